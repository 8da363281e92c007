/**
 * POSIX access lists: the form in which they travel (`system.posix_acl_access` and `system.posix_acl_default`, `<linux/posix_acl_xattr.h>`), what a new node gets from its
 * directory, and what they allow. Pure. Rules: acl(5), POSIX 1003.1e draft 17.
 *
 * Form: u32 version (2), then for each entry u16 tag, u16 permissions, u32 id; little-endian, in order of tag.
 */
import { FsError } from "../base/errors.ts";
import type { FileType, NamedPermissions, PosixAccess, PosixList } from "../records/interface.ts";
import { maximumAccessEntries } from "../records/limits.ts";

export const accessName = "system.posix_acl_access";
export const defaultName = "system.posix_acl_default";

const version = 2;
const headBytes = 4;
const entryBytes = 8;
const undefinedId = 0xffff_ffff;
const tags = { owner: 0x01, user: 0x02, group: 0x04, namedGroup: 0x08, mask: 0x10, other: 0x20 } as const;

function malformed(why: string): FsError {
	return new FsError("EINVAL", "namespace.access-list", `the access list is malformed: ${why}`);
}

interface Entry {
	readonly tag: number;
	readonly bits: number;
	readonly id: number;
}

function readEntries(bytes: Uint8Array): Entry[] {
	const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
	if (bytes.length < headBytes || (bytes.length - headBytes) % entryBytes !== 0) throw malformed(`${bytes.length} bytes`);
	const found = view.getUint32(0, true);
	if (found !== version)
		throw new FsError("ENOTSUP", "namespace.access-list-version", `access lists of version ${found} are not known: 2 is`);
	const count = (bytes.length - headBytes) / entryBytes;
	if (count > maximumAccessEntries) {
		const message = `an access list of ${count} entries: ${maximumAccessEntries} are possible; use groups`;
		throw new FsError("E2BIG", "namespace.access-list-long", message, { entries: count });
	}
	const entries: Entry[] = [];
	for (let at = headBytes; at < bytes.length; at += entryBytes) {
		entries.push({ tag: view.getUint16(at, true), bits: view.getUint16(at + 2, true), id: view.getUint32(at + 4, true) });
	}
	return entries;
}

/** Undefined: an empty list, which takes the list away. @throws FsError EINVAL, ENOTSUP, E2BIG. */
export function parseAccessList(bytes: Uint8Array): PosixList | undefined {
	const entries = readEntries(bytes);
	if (entries.length === 0) return undefined;
	let last = 0;
	for (const { tag, bits } of entries) {
		if (bits > 7) throw malformed(`permissions 0${bits.toString(8)}`);
		if (tag < last) throw malformed("its entries are out of order");
		last = tag;
	}
	const [owner, group, other] = [one(entries, tags.owner), one(entries, tags.group), one(entries, tags.other)];
	if (owner === undefined || group === undefined || other === undefined) throw malformed("owner, group and others have an entry each");
	const mask = one(entries, tags.mask);
	const users = several(entries, tags.user);
	const groups = several(entries, tags.namedGroup);
	const known = [owner, group, other, mask].filter((bits) => bits !== undefined).length + users.length + groups.length;
	if (known !== entries.length) throw malformed("an entry of an unknown kind");
	if (mask === undefined && users.length + groups.length > 0) throw malformed("named users and groups need a mask");
	return { owner, group, other, mask, users, groups };
}

function one(entries: readonly Entry[], tag: number): number | undefined {
	const found = entries.filter((entry) => entry.tag === tag);
	if (found.length > 1) throw malformed("an entry that can be there once is there twice");
	return found[0]?.bits;
}

function several(entries: readonly Entry[], tag: number): NamedPermissions[] {
	const found = entries.filter((entry) => entry.tag === tag).map(({ id, bits }) => ({ id, bits }));
	found.sort((a, b) => a.id - b.id);
	for (const [i, { id }] of found.entries()) {
		if (id === undefinedId) throw malformed("a named entry without a user or group");
		if (id === found[i - 1]?.id) throw malformed(`two entries for ${id}`);
	}
	return found;
}

export function encodeAccessList(list: PosixList): Uint8Array {
	const entries: Entry[] = [
		{ tag: tags.owner, bits: list.owner, id: undefinedId },
		...list.users.map(({ id, bits }) => ({ tag: tags.user, bits, id })),
		{ tag: tags.group, bits: list.group, id: undefinedId },
		...list.groups.map(({ id, bits }) => ({ tag: tags.namedGroup, bits, id })),
		...(list.mask === undefined ? [] : [{ tag: tags.mask, bits: list.mask, id: undefinedId }]),
		{ tag: tags.other, bits: list.other, id: undefinedId },
	];
	const bytes = new Uint8Array(headBytes + entries.length * entryBytes);
	const view = new DataView(bytes.buffer);
	view.setUint32(0, version, true);
	for (const [i, { tag, bits, id }] of entries.entries()) {
		const at = headBytes + i * entryBytes;
		view.setUint16(at, tag, true);
		view.setUint16(at + 2, bits, true);
		view.setUint32(at + 4, id, true);
	}
	return bytes;
}

/** The whole list of a node whose mode and stored part are given. */
export function wholeList(mode: number, access: PosixAccess): PosixList {
	return { ...access, owner: (mode >> 6) & 7, mask: (mode >> 3) & 7, other: mode & 7 };
}

/** Mode and stored part of a node that gets this list. Three entries alone say what a mode says. */
export function applyList(mode: number, list: PosixList): { readonly mode: number; readonly access: PosixAccess | undefined } {
	const { owner, group, other, mask, users, groups } = list;
	const bits = (owner << 6) | ((mask ?? group) << 3) | other;
	return { mode: (mode & 0o7000) | bits, access: mask === undefined ? undefined : { group, users, groups } };
}

export interface Inherited {
	readonly mode: number;
	readonly access: PosixAccess | undefined;
	/** Of a new directory. */
	readonly inherited: PosixList | undefined;
}

/** What a new node gets: the umask counts only where the directory hands down no list; a list limits the mode asked for, and is limited by it (acl(5), object creation). */
export function inheritList(from: PosixList | undefined, type: FileType, mode: number, umask: number): Inherited {
	if (type === "symlink") return { mode: 0o777, access: undefined, inherited: undefined };
	if (from === undefined) return { mode: mode & ~(umask & 0o777), access: undefined, inherited: undefined };
	const { access, mode: allowed } = applyList(0, from);
	return { mode: mode & (0o7000 | allowed), access, inherited: type === "directory" ? from : undefined };
}

/** Permission bits that the list grants somebody who is not the owner, all of `want` by one entry (acl(5), access check algorithm). */
export function listAllows(
	mode: number,
	gid: number,
	access: PosixAccess,
	identity: { readonly uid: number; readonly inGroup: (gid: number) => boolean },
	want: number,
): boolean {
	const mask = (mode >> 3) & 7;
	const user = access.users.find(({ id }) => id === identity.uid);
	if (user !== undefined) return (user.bits & mask & want) === want;
	const groups = access.groups.filter(({ id }) => identity.inGroup(id));
	const all = identity.inGroup(gid) ? [access.group, ...groups.map(({ bits }) => bits)] : groups.map(({ bits }) => bits);
	if (all.length > 0) return all.some((bits) => (bits & mask & want) === want);
	return (mode & want) === want;
}
