/**
 * Names: directories, entries, links, attributes, xattrs. Synchronous verbs over a RecordTransaction; they know nothing of data (extents are storage's) and
 * nothing of open files (volume's). Each verb checks what POSIX makes it check and throws FsError with the exact errno; permission checks by mode bits are
 * in `access.ts` (`checkAccess(inode, identity, want)`), called by the volume for doors that do not run `default_permissions`.
 *
 * Invariants
 *  N1 An entry (parent, name) and its cookie record name the same ino, type and cookie; both or neither exist.
 *  N2 nlink of a file = number of entries that name it; of a directory = 2 + number of its subdirectories.
 *  N3 Every inode with nlink 0 has an orphan record; no other inode has one.
 *  N4 entryCount of a directory = number of its entries; an entry's cookie < nextCookie; cookies are never used again.
 *  N5 Directories form a tree: `parent` of each is where its one entry lies.
 *  N6 Each change of a directory's entries writes the directory's inode (mtime, ctime): it is the guard of ranges over its entries.
 *  N7 An inode's `access` is 1 exactly when it has an access list record; its counts of xattrs are those of its xattr records.
 */
import type { Timestamp } from "../base/time.ts";
import type { DirectoryEntry, FileType, Ino, Inode, OperationContext, RecordTransaction } from "../records/interface.ts";

export interface Identity {
	readonly uid: number;
	readonly gid: number;
	readonly groups: readonly number[];
}

export interface NewNode {
	readonly type: FileType;
	/** Permission bits as asked for. */
	readonly mode: number;
	/** Taken from the mode where the directory hands down no access list. Default 0. */
	readonly umask?: number;
	readonly uid: number;
	readonly gid: number;
	readonly rdev?: number;
	/** Symlink target (byte string, 1..4095 bytes). */
	readonly target?: string;
}

export interface AttributeChange {
	readonly mode?: number;
	readonly uid?: number;
	readonly gid?: number;
	readonly atime?: Timestamp | "now";
	readonly mtime?: Timestamp | "now";
	readonly ctime?: Timestamp;
	/** All flags of the inode anew (flags.ts). */
	readonly flags?: number;
	/** Somebody changed the contents: no set-id bit (beside group execution, for the group's) and no capability of a program survives it. */
	readonly dropRights?: boolean;
}

export interface Removed {
	/** The inode after the removal; nlink 0 = it became an orphan. */
	readonly inode: Inode;
	readonly parentAfter: Inode;
}

export interface Renamed {
	readonly source: Inode;
	/** What the name pointed to before, after losing that name; undefined if the name was free or the same file (then nothing was done). */
	readonly replaced: Inode | undefined;
}

/** namespace/verbs.ts exports these. `Verb` arguments: transaction, context, then as named. Names are byte strings. */
export interface NamespaceVerbs {
	/** Makes the root directory (mode 0755 of the given owner) and the volume's first records. */
	makeRoot(tx: RecordTransaction, context: OperationContext, uid: number, gid: number): Inode;
	/** @throws ESTALE when there is no such inode. */
	inode(tx: RecordTransaction, ino: Ino): Inode;
	/** "." and ".." included. @throws ENOENT, ENOTDIR, ENAMETOOLONG. */
	lookup(tx: RecordTransaction, parent: Ino, name: string): Inode;
	/** The entry alone, or undefined. */
	entry(tx: RecordTransaction, parent: Ino, name: string): DirectoryEntry | undefined;
	/** mkdir, mknod, symlink, create: fails EEXIST; set-gid directories hand down their group (and the bit, to directories). @throws ENOENT (parent removed), ENOTDIR, EEXIST, ENAMETOOLONG, EINVAL. */
	create(tx: RecordTransaction, context: OperationContext, parent: Ino, name: string, node: NewNode): { inode: Inode; parentAfter: Inode };
	/** An inode without a name, with an orphan record (O_TMPFILE); `linkable`: `link` may give it one. */
	createUnnamed(tx: RecordTransaction, context: OperationContext, parent: Ino, node: NewNode, linkable: boolean): Inode;
	/** Hard link. @throws EPERM (directory, immutable or append-only), EEXIST, EMLINK (65,000), ENOENT (nlink 0 and not linkable). */
	link(tx: RecordTransaction, context: OperationContext, ino: Ino, parent: Ino, name: string): { inode: Inode; parentAfter: Inode };
	/** @throws EISDIR, ENOENT, EBUSY (".", ".."). The last name of a file makes it an orphan. */
	unlink(tx: RecordTransaction, context: OperationContext, parent: Ino, name: string): Removed;
	/** @throws ENOTDIR, ENOTEMPTY, EINVAL ("."), ENOTEMPTY (".."). */
	rmdir(tx: RecordTransaction, context: OperationContext, parent: Ino, name: string): Removed;
	/**
	 * rename(2) with flags NOREPLACE (1), EXCHANGE (2) and WHITEOUT (4, alone or with 1: a character device 0:0 of `whiteoutOwner` stays under the old name). Directory moves are checked against cycles (EINVAL) by walking `parent` upwards; file onto directory EISDIR,
	 * directory onto file ENOTDIR, onto a non-empty directory ENOTEMPTY; two names of the same inode: success, nothing done.
	 */
	rename(
		tx: RecordTransaction,
		context: OperationContext,
		parent: Ino,
		name: string,
		newParent: Ino,
		newName: string,
		flags: number,
		whiteoutOwner?: { readonly uid: number; readonly gid: number },
	): Renamed;
	setAttributes(tx: RecordTransaction, context: OperationContext, ino: Ino, change: AttributeChange): Inode;
	/** Entries with cookie > `after` in cookie order, at most `limit`. "." and ".." are the volume's. */
	readdir(
		tx: RecordTransaction,
		ino: Ino,
		after: number,
		limit: number,
	): { readonly name: string; readonly ino: Ino; readonly type: FileType; readonly cookie: number }[];
	/** @throws ENODATA. */
	getXattr(tx: RecordTransaction, ino: Ino, name: string): Uint8Array;
	/**
	 * mode: create → EEXIST, replace → ENODATA. Value ≤ 64 KiB (E2BIG… as xattr(7)), name ≤ 255 (ERANGE) in one of the name spaces (ENOTSUP), all names of an inode ≤ 64 KiB
	 * and its values ≤ 16 MiB (ENOSPC). The two access lists are attributes too (xattrs.ts). Every verb on attributes: EPERM when the inode is immutable or append-only.
	 */
	setXattr(
		tx: RecordTransaction,
		context: OperationContext,
		ino: Ino,
		name: string,
		value: Uint8Array,
		mode: "any" | "create" | "replace",
		/** An access list set by somebody outside the node's group takes its set-gid bit. */
		dropSetGid?: boolean,
	): Inode;
	removeXattr(tx: RecordTransaction, context: OperationContext, ino: Ino, name: string): Inode;
	listXattrs(tx: RecordTransaction, ino: Ino): string[];
	/** Takes what is namespace's of an orphan apart (xattrs) in bounded steps: true when nothing is left but the inode and orphan records. */
	reapStep(tx: RecordTransaction, ino: Ino, budget: number): boolean;
	/** Deletes the inode and orphan records; storage has let go of the data before. */
	forget(tx: RecordTransaction, ino: Ino): void;
}
