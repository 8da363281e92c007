/** Entries of directories, two records each, and the directory that counts them: what all verbs on names are made of. */
import { assert } from "../base/assert.ts";
import { FsError } from "../base/errors.ts";
import type { Timestamp } from "../base/time.ts";
import type { DirectoryEntry, FileType, Ino, Inode, OperationContext, RecordTransaction } from "../records/interface.ts";
import { cookieRecord, entryRecord, inodeRecord, orphanRecord } from "../records/kinds.ts";
import { shown } from "./names.ts";

/** @throws FsError ESTALE. */
export function inode(tx: RecordTransaction, ino: Ino): Inode {
	const found = tx.get(inodeRecord, ino);
	if (found === undefined) throw new FsError("ESTALE", "namespace.no-inode", `inode ${ino} does not exist any more`, { ino });
	return found;
}

/** @throws FsError ESTALE, ENOTDIR. */
export function directory(tx: RecordTransaction, ino: Ino): Inode {
	const found = inode(tx, ino);
	if (found.type === "directory") return found;
	throw new FsError("ENOTDIR", "namespace.not-a-directory", `inode ${ino} is a ${found.type}, not a directory`, { ino });
}

/** A directory that may get names. @throws FsError ESTALE, ENOTDIR, ENOENT (removed). */
export function livingDirectory(tx: RecordTransaction, ino: Ino): Inode {
	const found = directory(tx, ino);
	if (found.nlink > 0) return found;
	throw new FsError("ENOENT", "namespace.directory-removed", `directory ${ino} was removed: it can hold no names`, { ino });
}

export function noEntry(parent: Ino, name: string): FsError {
	return new FsError("ENOENT", "namespace.no-entry", `there is no ${shown(parent, name)}`, { parent });
}

export function exists(parent: Ino, name: string): FsError {
	return new FsError("EEXIST", "namespace.exists", `there is a ${shown(parent, name)} already`, { parent });
}

/** The inode an entry names; that it exists is invariant N2. */
export function named(tx: RecordTransaction, parent: Ino, name: string, entry: DirectoryEntry): Inode {
	const found = tx.get(inodeRecord, entry.ino);
	if (found !== undefined) return found;
	const message = `${shown(parent, name)} names inode ${entry.ino}, which does not exist: run \`cairn verify\``;
	throw new FsError("CORRUPT", "namespace.dangling", message, { parent, ino: entry.ino });
}

/** Writes a changed inode; every change counts. */
export function putInode(tx: RecordTransaction, changed: Inode): Inode {
	const value = { ...changed, change: changed.change + 1 };
	tx.put(inodeRecord, value, value.ino);
	return value;
}

/** Writes both records of an entry (N1). */
export function putEntry(
	tx: RecordTransaction,
	parent: Ino,
	name: string,
	to: { readonly ino: Ino; readonly type: FileType },
	cookie: number,
	birthEpoch: number,
): void {
	const { ino, type } = to;
	tx.put(entryRecord, { ino, type, cookie, birthEpoch }, parent, name);
	tx.put(cookieRecord, { name, ino, type, birthEpoch }, parent, cookie);
}

export function deleteEntry(tx: RecordTransaction, parent: Ino, name: string, cookie: number): void {
	tx.delete(entryRecord, parent, name);
	tx.delete(cookieRecord, parent, cookie);
}

/** What happens to the counts of a directory (N4, N5). */
export interface Counts {
	readonly entries: number;
	readonly subdirectories: number;
	/** A cookie was taken. */
	readonly cookies: number;
}

/** Writes the directory with its counts and times: the guard of its entries (N6). */
export function changeDirectory(tx: RecordTransaction, before: Inode, counts: Counts, now: Timestamp): Inode {
	const entryCount = before.entryCount + counts.entries;
	const nlink = before.nlink + counts.subdirectories;
	assert(entryCount >= 0 && nlink >= 2, `directory ${before.ino}: ${entryCount} entries, ${nlink} links`);
	const nextCookie = before.nextCookie + counts.cookies;
	return putInode(tx, { ...before, entryCount, nlink, nextCookie, mtime: now, ctime: now });
}

/** An inode that loses one name; without any it becomes an orphan (N3). A directory loses its only one, and with it its own ".". */
export function loseName(tx: RecordTransaction, context: OperationContext, before: Inode): Inode {
	const nlink = before.type === "directory" ? 0 : before.nlink - 1;
	assert(nlink >= 0, `inode ${before.ino}: a name more than links`);
	if (nlink === 0) tx.put(orphanRecord, { ino: before.ino, since: context.now, linkable: false, birthEpoch: context.epoch }, before.ino);
	return putInode(tx, { ...before, nlink, ctime: context.now });
}
