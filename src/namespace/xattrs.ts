/**
 * Extended attributes, by any name of the four name spaces: which of them a caller may use is for `access.ts` to say. The two access lists are attributes by name and
 * records of their own (`access-list.ts`); a mode and a list are always equal, as one holds what the other lacks.
 */
import { assert } from "../base/assert.ts";
import { latin1ToUtf8 } from "../base/bytes.ts";
import { FsError } from "../base/errors.ts";
import type { AccessList, Ino, Inode, OperationContext, RecordTransaction } from "../records/interface.ts";
import { accessListRecord, keyName, orphanRecord, xattrRecord } from "../records/kinds.ts";
import { maximumNameBytes, maximumXattrBytes } from "../records/limits.ts";
import { accessName, applyList, defaultName, encodeAccessList, parseAccessList, wholeList } from "./access-list.ts";
import { inode, putInode } from "./entries.ts";
import { refuseGuarded } from "./flags.ts";
import { maximumXattrNameBytes, maximumXattrValueBytes } from "./limits.ts";

/** Rights of a program file; they go when its contents or owner change. */
export const capabilityName = "security.capability";
const setGid = 0o2000;
const nameSpaces = ["user.", "trusted.", "security."] as const;

function noXattr(ino: Ino, name: string): FsError {
	return new FsError("ENODATA", "namespace.no-xattr", `inode ${ino} has no extended attribute ${JSON.stringify(latin1ToUtf8(name))}`, {
		ino,
	});
}

/** @throws FsError ERANGE (length), EINVAL (a byte, nothing behind the name space), ENOTSUP (no such name space). */
export function checkXattrName(name: string): void {
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
	if (isAccessListName(name)) return;
	const space = nameSpaces.find((prefix) => name.startsWith(prefix));
	if (space === undefined) {
		const message = `${JSON.stringify(latin1ToUtf8(name))}: extended attributes are user.*, trusted.*, security.* and the access lists of system.*`;
		throw new FsError("ENOTSUP", "namespace.xattr-space", message);
	}
	if (name.length === space.length) throw new FsError("EINVAL", "namespace.xattr-empty", `${name} names no attribute`);
}

export function isAccessListName(name: string): boolean {
	return name === accessName || name === defaultName;
}

/** The access list of an inode; undefined when its mode is all there is. */
export function accessList(tx: RecordTransaction, of: Inode): AccessList | undefined {
	if (of.access === 0) return undefined;
	const list = tx.get(accessListRecord, of.ino);
	if (list !== undefined) return list;
	const message = `inode ${of.ino} says that it has an access list, which does not exist: run \`cairn verify\``;
	throw new FsError("CORRUPT", "namespace.access-list-lost", message, { ino: of.ino });
}

/** Writes what is left of a list and answers the tag that the inode carries. Adds one change at most. */
export function putAccessList(tx: RecordTransaction, of: Inode, list: Omit<AccessList, "ino" | "kind">): number {
	if (list.access !== undefined || list.inherited !== undefined) {
		tx.put(accessListRecord, { ino: of.ino, kind: "posix", ...list }, of.ino);
		return 1;
	}
	if (of.access !== 0) tx.delete(accessListRecord, of.ino);
	return 0;
}

function getAccessList(tx: RecordTransaction, of: Inode, name: string): Uint8Array {
	const list = accessList(tx, of);
	if (name === accessName) {
		if (list?.access === undefined) throw noXattr(of.ino, name);
		return encodeAccessList(wholeList(of.mode, list.access));
	}
	if (list?.inherited === undefined) throw noXattr(of.ino, name);
	return encodeAccessList(list.inherited);
}

/** `bytes` undefined takes the list away, which is no error where there is none. */
function setAccessList(
	tx: RecordTransaction,
	context: OperationContext,
	ino: Ino,
	name: string,
	bytes: Uint8Array | undefined,
	dropSetGid: boolean,
): Inode {
	const before = inode(tx, ino);
	const parsed = bytes === undefined ? undefined : parseAccessList(bytes);
	if (before.type === "symlink")
		throw new FsError("ENOTSUP", "namespace.access-list-link", `inode ${ino} is a symlink: its mode means nothing`);
	const old = accessList(tx, before);
	const { birthEpoch } = old ?? { birthEpoch: context.epoch };
	if (name === accessName) {
		const applied = parsed === undefined ? { mode: before.mode, access: undefined } : applyList(before.mode, parsed);
		const access = putAccessList(tx, before, { access: applied.access, inherited: old?.inherited, birthEpoch });
		const mode = dropSetGid ? applied.mode & ~setGid : applied.mode;
		return putInode(tx, { ...before, access, mode, ctime: context.now });
	}
	if (before.type !== "directory") {
		if (parsed === undefined) return before;
		const message = `inode ${ino} is a ${before.type}: only directories hand down an access list`;
		throw new FsError("EACCES", "namespace.access-list-default", message, { ino });
	}
	const access = putAccessList(tx, before, { access: old?.access, inherited: parsed, birthEpoch });
	return putInode(tx, { ...before, access, ctime: context.now });
}

export function getXattr(tx: RecordTransaction, ino: Ino, name: string): Uint8Array {
	checkXattrName(name);
	const of = inode(tx, ino);
	if (isAccessListName(name)) return getAccessList(tx, of, name);
	if (of.xattrCount === 0) throw noXattr(ino, name);
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
	dropSetGid = false,
): Inode {
	// As the kernel orders it: first whether it may change at all.
	const before = inode(tx, ino);
	refuseGuarded(before);
	checkXattrName(name);
	if (value.length > maximumXattrBytes) {
		const message = `an extended attribute of ${value.length} bytes: at most ${maximumXattrBytes} are possible`;
		throw new FsError("E2BIG", "namespace.xattr-size", message, { ino, bytes: value.length });
	}
	if (isAccessListName(name)) return setAccessList(tx, context, ino, name, value, dropSetGid);
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
	const counted = {
		xattrCount: before.xattrCount + (known === undefined ? 1 : 0),
		xattrNameBytes: before.xattrNameBytes + (known === undefined ? name.length + 1 : 0),
		xattrValueBytes: before.xattrValueBytes + value.length - (known?.value.length ?? 0),
	};
	checkRoom(before, counted);
	tx.put(xattrRecord, { value: value.slice(), birthEpoch: context.epoch }, ino, name);
	return putInode(tx, { ...before, ...counted, ctime: context.now });
}

type Counts = Pick<Inode, "xattrCount" | "xattrNameBytes" | "xattrValueBytes">;

/** What grew beyond its bound is refused; what was there may stay. */
function checkRoom(before: Inode, after: Counts): void {
	const names = after.xattrNameBytes > maximumXattrNameBytes && after.xattrNameBytes > before.xattrNameBytes;
	const values = after.xattrValueBytes > maximumXattrValueBytes && after.xattrValueBytes > before.xattrValueBytes;
	if (!names && !values) return;
	const what = names ? `${maximumXattrNameBytes} bytes of names` : `${maximumXattrValueBytes} bytes of values`;
	const message = `inode ${before.ino} has ${before.xattrCount} extended attributes and would have more than ${what}: remove some first`;
	throw new FsError("ENOSPC", "namespace.xattr-room", message, { ino: before.ino });
}

function without(before: Inode, name: string, value: Uint8Array): Counts {
	const xattrCount = before.xattrCount - 1;
	const xattrNameBytes = before.xattrNameBytes - name.length - 1;
	const xattrValueBytes = before.xattrValueBytes - value.length;
	if (Math.min(xattrCount, xattrNameBytes, xattrValueBytes) < 0) throw miscounted(before, "fewer");
	return { xattrCount, xattrNameBytes, xattrValueBytes };
}

function miscounted(before: Inode, what: string): FsError {
	const message = `inode ${before.ino} counts ${before.xattrCount} extended attributes, ${what} than are there`;
	return new FsError("CORRUPT", "namespace.xattr-lost", message, { ino: before.ino });
}

export function removeXattr(tx: RecordTransaction, context: OperationContext, ino: Ino, name: string): Inode {
	const before = inode(tx, ino);
	refuseGuarded(before);
	checkXattrName(name);
	if (isAccessListName(name)) return setAccessList(tx, context, ino, name, undefined, false);
	const found = before.xattrCount === 0 ? undefined : tx.get(xattrRecord, ino, name);
	if (found === undefined) throw noXattr(ino, name);
	tx.delete(xattrRecord, ino, name);
	return putInode(tx, { ...before, ...without(before, name, found.value), ctime: context.now });
}

/** Names in byte order. */
export function listXattrs(tx: RecordTransaction, ino: Ino): string[] {
	const of = inode(tx, ino);
	const list = accessList(tx, of);
	const names =
		of.xattrCount === 0 ? [] : tx.scan(xattrRecord, xattrRecord.prefix(ino), { limit: of.xattrCount }).map(({ key }) => keyName(key));
	const lists = [...(list?.access === undefined ? [] : [accessName]), ...(list?.inherited === undefined ? [] : [defaultName])];
	// "system." sorts behind "security." and before the others.
	const at = names.findIndex((name) => name > accessName);
	return at < 0 ? [...names, ...lists] : [...names.slice(0, at), ...lists, ...names.slice(at)];
}

/** True when a program file has rights of its own. */
export function hasCapability(tx: RecordTransaction, of: Inode): boolean {
	return of.xattrCount > 0 && tx.get(xattrRecord, of.ino, capabilityName) !== undefined;
}

/** The inode, not yet written, without them. */
export function withoutCapability(tx: RecordTransaction, before: Inode): Inode {
	if (before.xattrCount === 0 || before.type === "directory") return before;
	const found = tx.get(xattrRecord, before.ino, capabilityName);
	if (found === undefined) return before;
	tx.delete(xattrRecord, before.ino, capabilityName);
	return { ...before, ...without(before, capabilityName, found.value) };
}

/** Root wrote to the file: its set-id bits stay, its capability does not. */
export function dropCapability(tx: RecordTransaction, context: OperationContext, ino: Ino): void {
	putInode(tx, { ...withoutCapability(tx, inode(tx, ino)), ctime: context.now });
}

/** Adds at most `budget` (≥ 2) changes. */
export function reapStep(tx: RecordTransaction, ino: Ino, budget: number): boolean {
	assert(budget >= 2, `a budget of ${budget}: one attribute and the inode need 2`);
	const before = inode(tx, ino);
	assert(before.nlink === 0 && tx.get(orphanRecord, ino) !== undefined, `inode ${ino} is not an orphan`);
	if (before.xattrCount === 0) return true;
	const some = tx.scan(xattrRecord, xattrRecord.prefix(ino), { limit: Math.min(budget - 1, before.xattrCount) });
	if (some.length === 0) throw miscounted(before, "more");
	let after = before;
	for (const { key, value } of some) {
		after = { ...after, ...without(after, keyName(key), value.value) };
		tx.delete(xattrRecord, ino, keyName(key));
	}
	putInode(tx, after);
	return after.xattrCount === 0;
}
