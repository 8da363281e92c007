/**
 * rename(2): plain, NOREPLACE, EXCHANGE, WHITEOUT.
 *
 * Cookies: a name that is replaced keeps its position in the directory, and so does an entry renamed within its directory, so that a reader meets
 * each name at most once and a loop that renames what it reads comes to an end. An entry from another directory gets a fresh position.
 */
import { assert } from "../base/assert.ts";
import { FsError } from "../base/errors.ts";
import type { DirectoryEntry, Ino, Inode, OperationContext, RecordTransaction } from "../records/interface.ts";
import { rootIno } from "../records/interface.ts";
import { cookieRecord, entryRecord } from "../records/kinds.ts";
import { changeDirectory, deleteEntry, exists, inode, livingDirectory, loseName, named, noEntry, putEntry, putInode } from "./entries.ts";
import { refuseImmutable, refuseRemoval } from "./flags.ts";
import { inherited } from "./fresh.ts";
import type { NewNode, Renamed } from "./interface.ts";
import { maximumDepth, maximumDirectoryLinks } from "./limits.ts";
import { checkName, isDots, shown } from "./names.ts";

export const noReplace = 1;
export const exchange = 2;
/** Overlay file systems: "what lies below this name is hidden". */
export const whiteout = 4;
const possibleFlags: readonly number[] = [0, noReplace, exchange, whiteout, whiteout | noReplace];

interface Side {
	readonly parent: Inode;
	readonly name: string;
	readonly entry: DirectoryEntry;
	readonly node: Inode;
}

export function rename(
	tx: RecordTransaction,
	context: OperationContext,
	parent: Ino,
	name: string,
	newParent: Ino,
	newName: string,
	flags: number,
	whiteoutOwner: { readonly uid: number; readonly gid: number } = { uid: 0, gid: 0 },
): Renamed {
	if (!possibleFlags.includes(flags)) {
		const message = `rename flags ${flags} are not known: 1 (no replace), 2 (exchange), 4 (whiteout), 5`;
		throw new FsError("EINVAL", "namespace.rename-flags", message, { flags });
	}
	const from = livingDirectory(tx, parent);
	const to = livingDirectory(tx, newParent);
	refuseDots(name, newName, flags);
	const source = side(tx, from, name);
	if (source === undefined) throw noEntry(parent, name);
	const target = side(tx, to, newName);
	if (target !== undefined && (flags & noReplace) !== 0) throw exists(newParent, newName);
	refuseRemoval(from, source.node);
	if (target === undefined) refuseImmutable(to);
	else refuseRemoval(to, target.node);
	if (flags === exchange) {
		if (target === undefined) throw noEntry(newParent, newName);
		return swap(tx, context, source, target);
	}
	const left: NewNode | undefined = (flags & whiteout) === 0 ? undefined : { type: "character", mode: 0, ...whiteoutOwner };
	return move(tx, context, source, to, newName, target, left);
}

function refuseDots(name: string, newName: string, flags: number): void {
	if (isDots(name) || (isDots(newName) && (flags & noReplace) === 0)) {
		throw new FsError("EBUSY", "namespace.rename-dots", '"." and ".." cannot be renamed or replaced', {});
	}
	if (isDots(newName)) throw new FsError("EEXIST", "namespace.rename-dots-exist", '"." and ".." exist in every directory', {});
	checkName(name);
	checkName(newName);
}

function side(tx: RecordTransaction, parent: Inode, name: string): Side | undefined {
	const entry = tx.get(entryRecord, parent.ino, name);
	if (entry === undefined) return undefined;
	return { parent, name, entry, node: named(tx, parent.ino, name, entry) };
}

// ── plain ────────────────────────────────────────────────────────────────────────────────────────────────────────

function move(
	tx: RecordTransaction,
	context: OperationContext,
	source: Side,
	to: Inode,
	newName: string,
	target: Side | undefined,
	left: NewNode | undefined,
): Renamed {
	const { parent: from, node } = source;
	const isDirectory = node.type === "directory";
	if (isDirectory && from.ino !== to.ino) refuseCycle(tx, node, to);
	if (target !== undefined) {
		if (target.node.ino === node.ino) return { source: node, replaced: undefined };
		refuseReplacement(source, target);
	}
	refuseFullDirectory(source, to, target);
	const cookie = newPosition(source, to, target);
	deleteEntry(tx, from.ino, source.name, source.entry.cookie);
	putEntry(tx, to.ino, newName, node, cookie, context.epoch);
	const replaced = target === undefined ? undefined : loseName(tx, context, target.node);
	changeParents(tx, context, source, to, target, cookie === to.nextCookie ? 1 : 0);
	if (left !== undefined) leave(tx, context, source, cookie, left);
	const parent = isDirectory ? to.ino : node.parent;
	return { source: putInode(tx, { ...node, parent, ctime: context.now }), replaced };
}

/** The old name stays, and names this. It keeps its position unless the node took that along. */
function leave(tx: RecordTransaction, context: OperationContext, source: Side, taken: number, left: NewNode): void {
	const from = inode(tx, source.parent.ino);
	const made = putInode(tx, inherited(tx, context, from, left));
	const free = taken !== source.entry.cookie || tx.get(cookieRecord, from.ino, source.entry.cookie) === undefined;
	putEntry(tx, from.ino, source.name, made, free ? source.entry.cookie : from.nextCookie, context.epoch);
	changeDirectory(tx, from, { entries: 1, subdirectories: 0, cookies: free ? 0 : 1 }, context.now);
}

function newPosition(source: Side, to: Inode, target: Side | undefined): number {
	if (target !== undefined) return target.entry.cookie;
	return source.parent.ino === to.ino ? source.entry.cookie : to.nextCookie;
}

function changeParents(
	tx: RecordTransaction,
	context: OperationContext,
	source: Side,
	to: Inode,
	target: Side | undefined,
	cookies: number,
): void {
	const moved = source.node.type === "directory" ? 1 : 0;
	const lost = target?.node.type === "directory" ? 1 : 0;
	const replacedEntries = target === undefined ? 0 : 1;
	if (source.parent.ino === to.ino) {
		changeDirectory(tx, to, { entries: -replacedEntries, subdirectories: -lost, cookies }, context.now);
		return;
	}
	changeDirectory(tx, source.parent, { entries: -1, subdirectories: -moved, cookies: 0 }, context.now);
	changeDirectory(tx, to, { entries: 1 - replacedEntries, subdirectories: moved - lost, cookies }, context.now);
}

function refuseReplacement(source: Side, target: Side): void {
	const { parent, name, node } = target;
	if (source.node.type !== "directory") {
		if (node.type !== "directory") return;
		throw new FsError(
			"EISDIR",
			"namespace.rename-onto-directory",
			`${shown(parent.ino, name)} is a directory: only a directory can replace it`,
		);
	}
	if (node.type !== "directory") {
		throw new FsError(
			"ENOTDIR",
			"namespace.rename-onto-file",
			`${shown(parent.ino, name)} is not a directory: a directory cannot replace it`,
		);
	}
	if (node.entryCount > 0) {
		throw new FsError(
			"ENOTEMPTY",
			"namespace.rename-onto-full",
			`${shown(parent.ino, name)} has ${node.entryCount} entries: empty it first`,
		);
	}
}

function refuseFullDirectory(source: Side, to: Inode, target: Side | undefined): void {
	const gains = source.node.type === "directory" && source.parent.ino !== to.ino && target === undefined;
	if (gains) checkSubdirectories(to);
}

/** @throws FsError EMLINK. */
export function checkSubdirectories(parent: Inode): void {
	if (parent.nlink < maximumDirectoryLinks) return;
	throw new FsError(
		"EMLINK",
		"namespace.directory-links",
		`directory ${parent.ino} has ${parent.nlink - 2} subdirectories, the most possible`,
	);
}

/** @throws FsError EINVAL when `to` is `node` or lies below it; ELOOP when it lies deeper than maximumDepth. */
function refuseCycle(tx: RecordTransaction, node: Inode, to: Inode): void {
	let at = to;
	for (let depth = 0; depth <= maximumDepth; depth++) {
		if (at.ino === node.ino) {
			throw new FsError("EINVAL", "namespace.rename-cycle", `directory ${node.ino} cannot be moved into its own subtree`, {
				ino: node.ino,
				to: to.ino,
			});
		}
		if (at.ino === rootIno) return;
		at = inode(tx, at.parent);
	}
	throw new FsError("ELOOP", "namespace.too-deep", `directory ${to.ino} lies more than ${maximumDepth} levels deep: move it up first`, {
		ino: to.ino,
	});
}

// ── exchange ─────────────────────────────────────────────────────────────────────────────────────────────────────

function swap(tx: RecordTransaction, context: OperationContext, one: Side, other: Side): Renamed {
	if (one.node.ino === other.node.ino) return { source: one.node, replaced: undefined };
	const across = one.parent.ino !== other.parent.ino;
	if (across && one.node.type === "directory") refuseCycle(tx, one.node, other.parent);
	if (across && other.node.type === "directory") refuseCycle(tx, other.node, one.parent);
	const toOther = (one.node.type === "directory" ? 1 : 0) - (other.node.type === "directory" ? 1 : 0);
	if (across && toOther > 0) checkSubdirectories(other.parent);
	if (across && toOther < 0) checkSubdirectories(one.parent);
	putEntry(tx, one.parent.ino, one.name, other.node, one.entry.cookie, context.epoch);
	putEntry(tx, other.parent.ino, other.name, one.node, other.entry.cookie, context.epoch);
	changeDirectory(tx, one.parent, { entries: 0, subdirectories: across ? -toOther : 0, cookies: 0 }, context.now);
	if (across) changeDirectory(tx, other.parent, { entries: 0, subdirectories: toOther, cookies: 0 }, context.now);
	const source = settle(tx, context, one.node, other.parent);
	const replaced = settle(tx, context, other.node, one.parent);
	assert(replaced.nlink > 0, "an exchange orphans nothing");
	return { source, replaced };
}

function settle(tx: RecordTransaction, context: OperationContext, node: Inode, parent: Inode): Inode {
	return putInode(tx, { ...node, parent: node.type === "directory" ? parent.ino : node.parent, ctime: context.now });
}
