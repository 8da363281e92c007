/** A new inode, before it is written: what the caller asked for and what its directory hands down. */
import { latin1ToBytes } from "../base/bytes.ts";
import { FsError } from "../base/errors.ts";
import type { Ino, Inode, OperationContext, RecordTransaction } from "../records/interface.ts";
import { groupOf } from "../records/numbers.ts";
import { inheritList } from "./access-list.ts";
import { inheritedFlags } from "./flags.ts";
import type { NewNode } from "./interface.ts";
import { accessList, putAccessList } from "./xattrs.ts";

/** 1 and 2 are "." and "..". */
const firstCookie = 3;
const setGid = 0o2000;

/** 2^32 - 1 is chown's "leave it". */
export function checkOwner(id: number): void {
	if (Number.isInteger(id) && id >= 0 && id < 0xffff_ffff) return;
	throw new FsError("EINVAL", "namespace.owner-range", `${id} is not a user or group: 0 to 4294967294 are`, { id });
}

/**
 * What a node gets from its directory: group number, protection, flags, access list, and from a set-gid directory the group (and the bit, for directories). Its list is
 * written, the node itself is not yet.
 */
export function inherited(tx: RecordTransaction, context: OperationContext, parent: Inode, node: NewNode): Inode {
	const fresh = freshInode(context, context.numbers.ino(groupOf(parent.ino)), node);
	const handsDownGroup = (parent.mode & setGid) !== 0;
	const isDirectory = node.type === "directory";
	const { mode, ...lists } = inheritList(accessList(tx, parent)?.inherited, node.type, fresh.mode, node.umask ?? 0);
	return {
		...fresh,
		gid: handsDownGroup ? parent.gid : fresh.gid,
		mode: handsDownGroup && isDirectory ? mode | setGid : mode,
		parent: isDirectory ? parent.ino : 0,
		protection: parent.protection,
		protectionFrom: parent.protectionFrom,
		flags: isDirectory || node.type === "file" ? parent.flags & inheritedFlags : 0,
		access: putAccessList(tx, fresh, { ...lists, birthEpoch: context.epoch }),
	};
}

export function freshInode(context: OperationContext, ino: Ino, node: NewNode): Inode {
	const { now } = context;
	const target = node.type === "symlink" ? latin1ToBytes(node.target ?? "") : undefined;
	const isDirectory = node.type === "directory";
	const isDevice = node.type === "character" || node.type === "block";
	return {
		ino,
		type: node.type,
		mode: node.type === "symlink" ? 0o777 : node.mode & 0o7777,
		uid: node.uid,
		gid: node.gid,
		nlink: isDirectory ? 2 : 1,
		size: target?.length ?? 0,
		rdev: isDevice ? (node.rdev ?? 0) : 0,
		atime: now,
		mtime: now,
		ctime: now,
		btime: now,
		storedBytes: 0,
		dataGeneration: 0,
		change: 0,
		sealedThrough: 0,
		inline: target,
		nextCookie: isDirectory ? firstCookie : 0,
		entryCount: 0,
		parent: 0,
		xattrCount: 0,
		xattrNameBytes: 0,
		xattrValueBytes: 0,
		protection: 0,
		protectionFrom: 0,
		flags: 0,
		access: 0,
		birthEpoch: context.epoch,
	};
}
