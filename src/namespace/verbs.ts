/** The verbs of the namespace (interface.ts: contracts, errors and invariants N1-N6). */
import { assert } from "../base/assert.ts";
import { FsError } from "../base/errors.ts";
import type { Timestamp } from "../base/time.ts";
import type { DirectoryEntry, FileType, Ino, Inode, OperationContext, RecordTransaction } from "../records/interface.ts";
import { rootIno } from "../records/interface.ts";
import { accessListRecord, cookieRecord, entryRecord, inodeRecord, keySecondNumber, orphanRecord, volumeRecord } from "../records/kinds.ts";
import { maximumTargetBytes } from "../records/limits.ts";
import { modeAfterChown, withoutSetId } from "./access.ts";
import {
	changeDirectory,
	deleteEntry,
	directory,
	exists,
	inode,
	livingDirectory,
	loseName,
	named,
	noEntry,
	putEntry,
	putInode,
} from "./entries.ts";
import { checkFlags, refuseChange, refuseGuarded, refuseImmutable, refuseRemoval } from "./flags.ts";
import { checkOwner, freshInode, inherited } from "./fresh.ts";
import type { AttributeChange, NamespaceVerbs, NewNode, Removed } from "./interface.ts";
import { maximumLinks, maximumReaddir } from "./limits.ts";
import { checkName, isDots, shown } from "./names.ts";
import { checkSubdirectories, rename } from "./rename.ts";
import { getXattr, hasCapability, listXattrs, reapStep, removeXattr, setXattr, withoutCapability } from "./xattrs.ts";

export { inode } from "./entries.ts";
export { rename } from "./rename.ts";
export { getXattr, listXattrs, reapStep, removeXattr, setXattr } from "./xattrs.ts";

// ── finding ──────────────────────────────────────────────────────────────────────────────────────────────────────

export function lookup(tx: RecordTransaction, parent: Ino, name: string): Inode {
	const found = find(tx, parent, name);
	if (found === undefined) throw noEntry(parent, name);
	return found;
}

/** As `lookup`; undefined: there is no such name. */
export function find(tx: RecordTransaction, parent: Ino, name: string): Inode | undefined {
	const at = directory(tx, parent);
	if (name === ".") return at;
	if (name === "..") return at.nlink === 0 ? livingDirectory(tx, parent) : inode(tx, at.parent);
	checkName(name);
	const found = tx.get(entryRecord, parent, name);
	return found && named(tx, parent, name, found);
}

export function entry(tx: RecordTransaction, parent: Ino, name: string): DirectoryEntry | undefined {
	return tx.get(entryRecord, parent, name);
}

export function readdir(
	tx: RecordTransaction,
	ino: Ino,
	after: number,
	limit: number,
): { readonly name: string; readonly ino: Ino; readonly type: FileType; readonly cookie: number }[] {
	assert(Number.isSafeInteger(limit) && limit >= 0, `readdir of ${limit} entries`);
	if (directory(tx, ino).entryCount === 0 || limit === 0) return [];
	const options = { after: cookieRecord.key(ino, after), limit: Math.min(limit, maximumReaddir) };
	return tx.scan(cookieRecord, cookieRecord.prefix(ino), options).map(({ key, value }) => {
		return { name: value.name, ino: value.ino, type: value.type, cookie: keySecondNumber(key) };
	});
}

// ── making ───────────────────────────────────────────────────────────────────────────────────────────────────────

export function makeRoot(tx: RecordTransaction, context: OperationContext, uid: number, gid: number): Inode {
	if (tx.get(inodeRecord, rootIno) !== undefined)
		throw new FsError("EEXIST", "namespace.root-exists", "the volume has a root directory already");
	if (tx.get(volumeRecord) === undefined) {
		const { epoch } = context;
		const nextInoCounter = [{ group: 0, next: rootIno + 1 }];
		tx.put(volumeRecord, {
			nextInoCounter,
			nextChunk: 1,
			nextSegment: 1,
			nextPending: 1,
			epoch,
			protections: [],
			reservedBytes: 0,
			birthEpoch: epoch,
		});
	}
	const node: NewNode = { type: "directory", mode: 0o755, uid, gid };
	return putInode(tx, { ...freshInode(context, rootIno, node), parent: rootIno });
}

export function create(
	tx: RecordTransaction,
	context: OperationContext,
	parent: Ino,
	name: string,
	node: NewNode,
): { inode: Inode; parentAfter: Inode } {
	const at = freeName(tx, parent, name);
	checkNode(node);
	const isDirectory = node.type === "directory";
	if (isDirectory) checkSubdirectories(at);
	const made = putInode(tx, inherited(tx, context, at, node));
	putEntry(tx, parent, name, made, at.nextCookie, context.epoch);
	const parentAfter = changeDirectory(tx, at, { entries: 1, subdirectories: isDirectory ? 1 : 0, cookies: 1 }, context.now);
	return { inode: made, parentAfter };
}

export function createUnnamed(tx: RecordTransaction, context: OperationContext, parent: Ino, node: NewNode, linkable: boolean): Inode {
	const at = livingDirectory(tx, parent);
	refuseImmutable(at);
	checkNode(node);
	if (node.type === "directory") throw new FsError("EINVAL", "namespace.unnamed-directory", "a directory cannot be without a name");
	const made = putInode(tx, { ...inherited(tx, context, at, node), nlink: 0 });
	tx.put(orphanRecord, { ino: made.ino, since: context.now, linkable, birthEpoch: context.epoch }, made.ino);
	return made;
}

/** The directory, when `name` can be made in it. @throws FsError ESTALE, ENOTDIR, ENOENT, EEXIST, ENAMETOOLONG, EINVAL. */
function freeName(tx: RecordTransaction, parent: Ino, name: string): Inode {
	const at = livingDirectory(tx, parent);
	if (isDots(name)) throw exists(parent, name);
	checkName(name);
	if (tx.get(entryRecord, parent, name) !== undefined) throw exists(parent, name);
	refuseImmutable(at);
	return at;
}

function checkNode(node: NewNode): void {
	checkOwner(node.uid);
	checkOwner(node.gid);
	const rdev = node.rdev ?? 0;
	if (!Number.isInteger(rdev) || rdev < 0 || rdev > 0xffff_ffff) {
		throw new FsError("EINVAL", "namespace.rdev", `the device number ${rdev} does not fit 32 bits`, { rdev });
	}
	if (node.type === "symlink") checkTarget(node.target ?? "");
}

function checkTarget(target: string): void {
	if (target.length === 0) throw new FsError("ENOENT", "namespace.target-empty", "an empty symlink target names nothing");
	if (target.length > maximumTargetBytes) {
		const message = `a symlink target of ${target.length} bytes: at most ${maximumTargetBytes} are possible`;
		throw new FsError("ENAMETOOLONG", "namespace.target-long", message, { bytes: target.length });
	}
	for (let i = 0; i < target.length; i++) {
		const code = target.charCodeAt(i);
		if (code === 0 || code > 0xff)
			throw new FsError("EINVAL", "namespace.target-byte", `a symlink target cannot contain the character ${code}`, { at: i });
	}
}

export function link(
	tx: RecordTransaction,
	context: OperationContext,
	ino: Ino,
	parent: Ino,
	name: string,
): { inode: Inode; parentAfter: Inode } {
	const before = inode(tx, ino);
	const at = freeName(tx, parent, name);
	if (before.type === "directory")
		throw new FsError("EPERM", "namespace.link-directory", `inode ${ino} is a directory: it has one name only`, { ino });
	refuseGuarded(before);
	if (before.nlink === 0) takeFromOrphans(tx, ino);
	if (before.nlink >= maximumLinks) {
		throw new FsError("EMLINK", "namespace.links", `inode ${ino} has ${before.nlink} names, the most possible: copy the file instead`, {
			ino,
		});
	}
	putEntry(tx, parent, name, before, at.nextCookie, context.epoch);
	const linked = putInode(tx, { ...before, nlink: before.nlink + 1, ctime: context.now });
	return { inode: linked, parentAfter: changeDirectory(tx, at, { entries: 1, subdirectories: 0, cookies: 1 }, context.now) };
}

/** An inode made without a name gets its first; one that has lost its last gets none again. */
function takeFromOrphans(tx: RecordTransaction, ino: Ino): void {
	if (tx.get(orphanRecord, ino)?.linkable === true) tx.delete(orphanRecord, ino);
	else throw new FsError("ENOENT", "namespace.link-orphan", `inode ${ino} has no name and may not get one`, { ino });
}

// ── removing ─────────────────────────────────────────────────────────────────────────────────────────────────────

export function unlink(tx: RecordTransaction, context: OperationContext, parent: Ino, name: string): Removed {
	const at = directory(tx, parent);
	if (isDots(name)) throw new FsError("EBUSY", "namespace.unlink-dots", '"." and ".." cannot be removed', { parent });
	checkName(name);
	const found = tx.get(entryRecord, parent, name);
	if (found === undefined) throw noEntry(parent, name);
	if (found.type === "directory") {
		throw new FsError("EISDIR", "namespace.unlink-directory", `${shown(parent, name)} is a directory: use rmdir`, {
			parent,
			ino: found.ino,
		});
	}
	const before = named(tx, parent, name, found);
	refuseRemoval(at, before);
	deleteEntry(tx, parent, name, found.cookie);
	const parentAfter = changeDirectory(tx, at, { entries: -1, subdirectories: 0, cookies: 0 }, context.now);
	return { inode: loseName(tx, context, before), parentAfter };
}

export function rmdir(tx: RecordTransaction, context: OperationContext, parent: Ino, name: string): Removed {
	const at = directory(tx, parent);
	if (name === ".")
		throw new FsError("EINVAL", "namespace.rmdir-dot", '"." cannot be removed: name the directory in its parent', { parent });
	if (name === "..") throw new FsError("ENOTEMPTY", "namespace.rmdir-dots", '".." is not empty', { parent });
	checkName(name);
	const found = tx.get(entryRecord, parent, name);
	if (found === undefined) throw noEntry(parent, name);
	if (found.type !== "directory") {
		throw new FsError("ENOTDIR", "namespace.rmdir-file", `${shown(parent, name)} is a ${found.type}: use unlink`, {
			parent,
			ino: found.ino,
		});
	}
	const before = named(tx, parent, name, found);
	refuseRemoval(at, before);
	if (before.entryCount > 0) {
		throw new FsError("ENOTEMPTY", "namespace.rmdir-full", `${shown(parent, name)} has ${before.entryCount} entries`, {
			parent,
			ino: found.ino,
		});
	}
	deleteEntry(tx, parent, name, found.cookie);
	const parentAfter = changeDirectory(tx, at, { entries: -1, subdirectories: -1, cookies: 0 }, context.now);
	return { inode: loseName(tx, context, before), parentAfter };
}

export function forget(tx: RecordTransaction, ino: Ino): void {
	const before = inode(tx, ino);
	assert(before.nlink === 0 && before.xattrCount === 0 && before.entryCount === 0, `inode ${ino} is not taken apart`);
	assert(tx.get(orphanRecord, ino) !== undefined, `inode ${ino} has no orphan record`);
	if (before.access !== 0) tx.delete(accessListRecord, ino);
	tx.delete(inodeRecord, ino);
	tx.delete(orphanRecord, ino);
}

// ── attributes ───────────────────────────────────────────────────────────────────────────────────────────────────

/** Clears set-id bits and the rights of a program where an owner or group is set and no mode is. A change without any member changes nothing. */
export function setAttributes(tx: RecordTransaction, context: OperationContext, ino: Ino, change: AttributeChange): Inode {
	const before = inode(tx, ino);
	if (Object.values(change).every((value) => value === undefined)) return before;
	refuseChange(before, change);
	const { dropRights, ...rest } = change;
	if (Object.values(rest).every((value) => value === undefined) && !hasRights(tx, before)) return before;
	const changed = changedAttributes(before, change, context.now);
	const strips = dropRights === true || change.uid !== undefined || change.gid !== undefined;
	return putInode(tx, strips ? withoutCapability(tx, changed) : changed);
}

/** What `dropRights` takes. */
function hasRights(tx: RecordTransaction, before: Inode): boolean {
	return before.type === "file" && (withoutSetId(before.mode) !== before.mode || hasCapability(tx, before));
}

/** What `setAttributes` makes of an inode; alone it tells whether a change is possible before something else is done. @throws FsError EINVAL, ENOTSUP, EPERM. */
export function changedAttributes(before: Inode, change: AttributeChange, now: Timestamp): Inode {
	refuseChange(before, change);
	if (change.flags !== undefined) checkFlags(before, change.flags);
	return {
		...before,
		mode: newMode(before, change),
		uid: newOwner(before.uid, change.uid),
		gid: newOwner(before.gid, change.gid),
		flags: change.flags ?? before.flags,
		atime: newTime(before.atime, change.atime, now),
		mtime: newTime(before.mtime, change.mtime, now),
		ctime: newTime(now, change.ctime, now),
	};
}

function newMode(before: Inode, change: AttributeChange): number {
	if (change.mode === undefined) {
		const chowned = change.uid !== undefined || change.gid !== undefined;
		if (chowned) return modeAfterChown(before);
		return change.dropRights === true && before.type === "file" ? withoutSetId(before.mode) : before.mode;
	}
	if (before.type === "symlink")
		throw new FsError("ENOTSUP", "namespace.symlink-mode", `inode ${before.ino} is a symlink: its mode means nothing`);
	return change.mode & 0o7777;
}

function newOwner(before: number, id: number | undefined): number {
	if (id === undefined) return before;
	checkOwner(id);
	return id;
}

function newTime(before: Timestamp, time: Timestamp | "now" | undefined, now: Timestamp): Timestamp {
	if (time === undefined) return before;
	if (time === "now") return now;
	const { seconds, nanoseconds } = time;
	if (!Number.isSafeInteger(seconds) || !Number.isInteger(nanoseconds) || nanoseconds < 0 || nanoseconds > 999_999_999) {
		throw new FsError("EINVAL", "namespace.time", `${seconds} s ${nanoseconds} ns is not a time`, { seconds, nanoseconds });
	}
	return { seconds, nanoseconds };
}

/** All of them, for whoever takes the namespace as an argument; also the proof that each has the shape the interface gives. */
export const namespaceVerbs: NamespaceVerbs = {
	makeRoot,
	inode,
	lookup,
	entry,
	create,
	createUnnamed,
	link,
	unlink,
	rmdir,
	rename,
	setAttributes,
	readdir,
	getXattr,
	setXattr,
	removeXattr,
	listXattrs,
	reapStep,
	forget,
};
