/**
 * Who may do what, by mode bits and access list: for doors that do not check themselves (FUSE with default_permissions does). Root (uid 0) passes
 * everything but the execution of a file without any x bit. What forbids changes to everybody is in `flags.ts`.
 */
import { FsError } from "../base/errors.ts";
import type { Inode, PosixAccess, RecordTransaction } from "../records/interface.ts";
import { listAllows } from "./access-list.ts";
import { guardedFlags } from "./flags.ts";
import type { AttributeChange, Identity } from "./interface.ts";
import { accessList } from "./xattrs.ts";

export type Want = "read" | "write" | "execute";

const setUid = 0o4000;
const setGid = 0o2000;
const sticky = 0o1000;
const groupExecute = 0o010;
const bits: Readonly<Record<Want, number>> = { read: 4, write: 2, execute: 1 };

export function isRoot(identity: Identity): boolean {
	return identity.uid === 0;
}

export function isOwner(inode: Inode, identity: Identity): boolean {
	return isRoot(identity) || identity.uid === inode.uid;
}

export function inGroup(identity: Identity, gid: number): boolean {
	return identity.gid === gid || identity.groups.includes(gid);
}

/** One class only decides: an owner without the bit is refused even where others have it. `list` is what the inode's access list adds to its mode. */
export function mayAccess(inode: Inode, list: PosixAccess | undefined, identity: Identity, ...wants: readonly Want[]): boolean {
	const want = wants.reduce((all, one) => all | bits[one], 0);
	if (isRoot(identity)) return (want & bits.execute) === 0 || inode.type === "directory" || (inode.mode & 0o111) !== 0;
	if (identity.uid === inode.uid) return ((inode.mode >> 6) & want) === want;
	if (list !== undefined) {
		return listAllows(inode.mode, inode.gid, list, { uid: identity.uid, inGroup: (gid) => inGroup(identity, gid) }, want);
	}
	if (inGroup(identity, inode.gid)) return ((inode.mode >> 3) & want) === want;
	return (inode.mode & want) === want;
}

/** @throws FsError EACCES. */
export function checkAccess(tx: RecordTransaction, inode: Inode, identity: Identity, ...wants: readonly Want[]): void {
	if (mayAccess(inode, accessList(tx, inode)?.access, identity, ...wants)) return;
	const want = wants.join(" and ");
	const which = `mode 0${inode.mode.toString(8)}${inode.access === 0 ? "" : " and an access list"}, owner ${inode.uid}:${inode.gid}`;
	const message = `uid ${identity.uid} may not ${want} inode ${inode.ino} (${which})`;
	throw new FsError("EACCES", "namespace.access", message, { ino: inode.ino, uid: identity.uid, want });
}

/** The sticky rule alone: in such a directory only the owner of the file, of the directory, and root take names away. */
export function mayDelete(parent: Inode, victim: Inode, identity: Identity): boolean {
	return (parent.mode & sticky) === 0 || isOwner(victim, identity) || isOwner(parent, identity);
}

/** For unlink, rmdir, and both names of a rename. @throws FsError EACCES (no write or search in the directory), EPERM (sticky). */
export function checkDelete(tx: RecordTransaction, parent: Inode, victim: Inode, identity: Identity): void {
	checkAccess(tx, parent, identity, "write", "execute");
	if (mayDelete(parent, victim, identity)) return;
	const message = `directory ${parent.ino} is sticky: uid ${identity.uid} owns neither it nor inode ${victim.ino}`;
	throw new FsError("EPERM", "namespace.sticky", message, { parent: parent.ino, ino: victim.ino, uid: identity.uid });
}

/** A directory that gets another parent has its ".." written. @throws FsError EACCES. */
export function checkMove(tx: RecordTransaction, source: Inode, identity: Identity): void {
	if (source.type === "directory") checkAccess(tx, source, identity, "write");
}

/** Mode for a new node: without membership in the directory's group nobody makes a set-gid program of it. */
export function creationMode(parent: Inode, identity: Identity, type: Inode["type"], mode: number): number {
	const handsDownGroup = (parent.mode & setGid) !== 0;
	if (!handsDownGroup || type === "directory" || isRoot(identity) || inGroup(identity, parent.gid)) return mode;
	return (mode & (setGid | groupExecute)) === (setGid | groupExecute) ? mode & ~setGid : mode;
}

/** Mode of a non-directory after its owner or group was set: no set-id program survives it, not even by root's hand. */
export function modeAfterChown(inode: Inode): number {
	return inode.type === "directory" ? inode.mode : withoutSetId(inode.mode);
}

/** Mode of a file after `identity` wrote to it, truncated or allocated it. */
export function modeAfterWrite(inode: Inode, identity: Identity): number {
	return inode.type !== "file" || isRoot(identity) ? inode.mode : withoutSetId(inode.mode);
}

/** Set-gid without group execution means mandatory locking and stays. */
export function withoutSetId(mode: number): number {
	const kept = mode & ~setUid;
	return (kept & groupExecute) !== 0 ? kept & ~setGid : kept;
}

/**
 * The rules of chmod, chown and utimensat: answers the change to make, which may lack a set-gid bit that the caller may not set.
 * @throws FsError EPERM (not the owner), EACCES (times to now without write permission).
 */
export function permittedChange(tx: RecordTransaction, inode: Inode, identity: Identity, change: AttributeChange): AttributeChange {
	if (isRoot(identity)) return change;
	checkOwnership(inode, identity, change);
	checkTimes(tx, inode, identity, change);
	checkFlagChange(inode, identity, change);
	if (change.mode === undefined) return change;
	if (identity.uid !== inode.uid) throw notOwner(inode, identity, "change the mode of");
	const gid = change.gid ?? inode.gid;
	return inGroup(identity, gid) ? change : { ...change, mode: change.mode & ~setGid };
}

function checkOwnership(inode: Inode, identity: Identity, change: AttributeChange): void {
	const owner = identity.uid === inode.uid;
	if (change.uid !== undefined && !(owner && change.uid === inode.uid)) throw notOwner(inode, identity, "give away");
	if (change.gid === undefined) return;
	if (!owner) throw notOwner(inode, identity, "change the group of");
	if (change.gid !== inode.gid && !inGroup(identity, change.gid)) throw notOwner(inode, identity, `give group ${change.gid} to`);
}

/** The owner sets flags; those that bind the owner too are root's (CAP_LINUX_IMMUTABLE). */
function checkFlagChange(inode: Inode, identity: Identity, { flags }: AttributeChange): void {
	if (flags === undefined) return;
	if (identity.uid !== inode.uid || ((flags ^ inode.flags) & guardedFlags) !== 0) throw notOwner(inode, identity, "set the flags of");
}

function checkTimes(tx: RecordTransaction, inode: Inode, identity: Identity, change: AttributeChange): void {
	if (identity.uid === inode.uid) return;
	const { atime, mtime, ctime } = change;
	if (ctime !== undefined || isExplicit(atime) || isExplicit(mtime)) throw notOwner(inode, identity, "set the times of");
	if (atime === undefined && mtime === undefined) return;
	// Setting both to now is what writing does; one of them alone is the owner's right.
	if (atime === undefined || mtime === undefined) throw notOwner(inode, identity, "set one time of");
	checkAccess(tx, inode, identity, "write");
}

function isExplicit(time: AttributeChange["atime"]): boolean {
	return time !== undefined && time !== "now";
}

function notOwner(inode: Inode, identity: Identity, what: string): FsError {
	const message = `uid ${identity.uid} may not ${what} inode ${inode.ino}, which belongs to ${inode.uid}:${inode.gid}`;
	return new FsError("EPERM", "namespace.owner", message, { ino: inode.ino, uid: identity.uid });
}

/**
 * Extended attributes by name space: `user.` on files and directories with the mode's permission (in sticky directories writing is the owner's),
 * `trusted.` root's, `security.` readable by all and written by root, `system.` (access lists) readable by all and written by the owner or root.
 * @throws FsError EACCES, EPERM, ENODATA (trusted. read by others).
 */
export function checkXattr(tx: RecordTransaction, inode: Inode, identity: Identity, name: string, want: "read" | "write"): void {
	if (name.startsWith("trusted.")) {
		if (isRoot(identity)) return;
		throw new FsError(
			want === "read" ? "ENODATA" : "EPERM",
			"namespace.xattr-trusted",
			`trusted attributes are root's (inode ${inode.ino})`,
		);
	}
	if (!name.startsWith("user.")) {
		if (want === "read" || isRoot(identity)) return;
		if (name.startsWith("system.") && isOwner(inode, identity)) return;
		throw notOwner(inode, identity, `set ${JSON.stringify(name)} on`);
	}
	if (inode.type !== "file" && inode.type !== "directory") {
		const message = `a ${inode.type} (inode ${inode.ino}) has no user attributes: its mode does not guard contents`;
		throw new FsError(want === "read" ? "ENODATA" : "EPERM", "namespace.xattr-type", message);
	}
	const guarded = inode.type === "directory" && (inode.mode & sticky) !== 0 && want === "write";
	if (guarded && !isOwner(inode, identity)) throw notOwner(inode, identity, "set attributes on the sticky directory");
	checkAccess(tx, inode, identity, want);
}
