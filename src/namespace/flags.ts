/**
 * Flags of inodes as chattr(1) sets and lsattr(1) shows them, numbered as in `<linux/fs.h>` (FS_*_FL). Two of them forbid changes, to root as well, through every door:
 * what may be done is what ext4 and XFS do (ioctl_iflags(2), may_delete and may_setattr of the kernel).
 */
import { FsError } from "../base/errors.ts";
import type { Inode } from "../records/interface.ts";
import type { AttributeChange } from "./interface.ts";

export const inodeFlags = {
	/** Nothing of it changes: no write, no attribute, no name. */
	immutable: 0x10,
	/** A file grows only; a directory gets names and loses none. */
	append: 0x20,
	/** dump(8) leaves it out: kept, nothing else. */
	noDump: 0x40,
	/** Reading does not change atime: kept; nothing here changes it. */
	noAccessTime: 0x80,
} as const;

export const knownFlags = inodeFlags.immutable | inodeFlags.append | inodeFlags.noDump | inodeFlags.noAccessTime;
/** What a new node gets from its directory. */
export const inheritedFlags = inodeFlags.noDump | inodeFlags.noAccessTime;
/** Only CAP_LINUX_IMMUTABLE changes them. */
export const guardedFlags = inodeFlags.immutable | inodeFlags.append;

export function isImmutable(inode: Inode): boolean {
	return (inode.flags & inodeFlags.immutable) !== 0;
}

export function isAppendOnly(inode: Inode): boolean {
	return (inode.flags & inodeFlags.append) !== 0;
}

/** @throws FsError EPERM: contents, attributes or names of an immutable inode. */
export function refuseImmutable(inode: Inode): void {
	if (isImmutable(inode)) throw forbidden(inode, "immutable");
}

/** @throws FsError EPERM: what neither an immutable nor an append-only inode allows. */
export function refuseGuarded(inode: Inode): void {
	refuseImmutable(inode);
	if (isAppendOnly(inode)) throw forbidden(inode, "append-only");
}

function forbidden(inode: Inode, what: string): FsError {
	const flag = what === "immutable" ? "i" : "a";
	return new FsError("EPERM", `namespace.${what}`, `inode ${inode.ino} is ${what}: \`chattr -${flag}\` it first`, { ino: inode.ino });
}

/** A name goes away: neither the directory nor the node allow it. @throws FsError EPERM. */
export function refuseRemoval(parent: Inode, node: Inode): void {
	refuseGuarded(parent);
	refuseGuarded(node);
}

/** @throws FsError EPERM; flags themselves can always be changed. */
export function refuseChange(inode: Inode, change: AttributeChange): void {
	const { mode, uid, gid, atime, mtime, ctime, dropRights } = change;
	const touches = atime === "now" && mtime === "now" && ctime === undefined;
	const timed = atime !== undefined || mtime !== undefined || ctime !== undefined;
	if (mode !== undefined || uid !== undefined || gid !== undefined || (timed && !touches)) refuseGuarded(inode);
	else if (timed || dropRights === true) refuseImmutable(inode);
}

/** @throws FsError ENOTSUP: a flag that is not kept. */
export function checkFlags(inode: Inode, flags: number): void {
	if (inode.type !== "file" && inode.type !== "directory") {
		throw new FsError("ENOTSUP", "namespace.flags-type", `a ${inode.type} (inode ${inode.ino}) has no flags: files and directories have`);
	}
	if ((flags & ~knownFlags) === 0) return;
	const message = `flags 0x${(flags & ~knownFlags).toString(16)} are not supported: i (immutable), a (append only), d (no dump) and A (no atime) are`;
	throw new FsError("ENOTSUP", "namespace.flags", message, { flags });
}
