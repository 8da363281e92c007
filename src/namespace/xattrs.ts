/** Extended attributes, by any name: which names a caller may use is for `access.ts` to say. */
import { assert } from "../base/assert.ts";
import { latin1ToUtf8 } from "../base/bytes.ts";
import { FsError } from "../base/errors.ts";
import type { Ino, Inode, OperationContext, RecordTransaction } from "../records/interface.ts";
import { keyName, orphanRecord, xattrRecord } from "../records/kinds.ts";
import { maximumNameBytes, maximumXattrBytes } from "../records/limits.ts";
import { inode, putInode } from "./entries.ts";
import { maximumXattrs } from "./limits.ts";

function noXattr(ino: Ino, name: string): FsError {
	return new FsError("ENODATA", "namespace.no-xattr", `inode ${ino} has no extended attribute ${JSON.stringify(latin1ToUtf8(name))}`, {
		ino,
	});
}

function checkXattrName(name: string): void {
	if (name.length === 0 || name.length > maximumNameBytes) {
		throw new FsError(
			"ERANGE",
			"namespace.xattr-name",
			`a name of an extended attribute has 1 to ${maximumNameBytes} bytes, not ${name.length}`,
		);
	}
	for (let i = 0; i < name.length; i++) {
		const code = name.charCodeAt(i);
		if (code === 0 || code > 0xff)
			throw new FsError("EINVAL", "namespace.xattr-byte", `a name cannot contain the character ${code}`, { at: i });
	}
}

export function getXattr(tx: RecordTransaction, ino: Ino, name: string): Uint8Array {
	checkXattrName(name);
	if (inode(tx, ino).xattrCount === 0) throw noXattr(ino, name);
	const found = tx.get(xattrRecord, ino, name);
	if (found === undefined) throw noXattr(ino, name);
	return found.value;
}

export function setXattr(
	tx: RecordTransaction,
	context: OperationContext,
	ino: Ino,
	name: string,
	value: Uint8Array,
	mode: "any" | "create" | "replace",
): Inode {
	checkXattrName(name);
	if (value.length > maximumXattrBytes) {
		const message = `an extended attribute of ${value.length} bytes: at most ${maximumXattrBytes} are possible`;
		throw new FsError("E2BIG", "namespace.xattr-size", message, { ino, bytes: value.length });
	}
	const before = inode(tx, ino);
	const known = before.xattrCount === 0 ? undefined : tx.get(xattrRecord, ino, name);
	if (known !== undefined && mode === "create") {
		throw new FsError(
			"EEXIST",
			"namespace.xattr-exists",
			`inode ${ino} has the extended attribute ${JSON.stringify(latin1ToUtf8(name))} already`,
			{ ino },
		);
	}
	if (known === undefined && mode === "replace") throw noXattr(ino, name);
	if (known === undefined && before.xattrCount >= maximumXattrs) {
		throw new FsError("ENOSPC", "namespace.xattr-count", `inode ${ino} has ${maximumXattrs} extended attributes: remove some first`, {
			ino,
		});
	}
	tx.put(xattrRecord, { value: value.slice(), birthEpoch: context.epoch }, ino, name);
	const xattrCount = before.xattrCount + (known === undefined ? 1 : 0);
	return putInode(tx, { ...before, xattrCount, ctime: context.now });
}

export function removeXattr(tx: RecordTransaction, context: OperationContext, ino: Ino, name: string): Inode {
	checkXattrName(name);
	const before = inode(tx, ino);
	if (before.xattrCount === 0 || tx.get(xattrRecord, ino, name) === undefined) throw noXattr(ino, name);
	tx.delete(xattrRecord, ino, name);
	return putInode(tx, { ...before, xattrCount: before.xattrCount - 1, ctime: context.now });
}

/** Names in byte order. */
export function listXattrs(tx: RecordTransaction, ino: Ino): string[] {
	if (inode(tx, ino).xattrCount === 0) return [];
	return tx.scan(xattrRecord, xattrRecord.prefix(ino), { limit: maximumXattrs }).map(({ key }) => keyName(key));
}

/** Adds at most `budget` (≥ 2) changes. */
export function reapStep(tx: RecordTransaction, ino: Ino, budget: number): boolean {
	assert(budget >= 2, `a budget of ${budget}: one attribute and the inode need 2`);
	const before = inode(tx, ino);
	assert(before.nlink === 0 && tx.get(orphanRecord, ino) !== undefined, `inode ${ino} is not an orphan`);
	if (before.xattrCount === 0) return true;
	const some = tx.scan(xattrRecord, xattrRecord.prefix(ino), { limit: Math.min(budget - 1, maximumXattrs) });
	for (const { key } of some) tx.delete(xattrRecord, ino, keyName(key));
	const left = before.xattrCount - some.length;
	if (some.length === 0 || left < 0) {
		throw new FsError(
			"CORRUPT",
			"namespace.xattr-lost",
			`inode ${ino} counts ${before.xattrCount} extended attributes, ${some.length} are there`,
			{ ino },
		);
	}
	putInode(tx, { ...before, xattrCount: left });
	return left === 0;
}
