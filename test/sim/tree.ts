/** A naive tree of names: what the volume's namespace must be like. Numbers below zero stand for inodes that the model does not know yet. */
import type { FileType } from "../../src/volume/interface.ts";

export interface TreeNode {
	readonly ino: number;
	readonly type: FileType;
	readonly mode: number;
	readonly uid: number;
	readonly gid: number;
	readonly rdev: number;
	readonly target: string | undefined;
	readonly nlink: number;
	readonly parent: number;
	/** Directories. */
	readonly entries: ReadonlyMap<string, number> | undefined;
	readonly xattrs: ReadonlyMap<string, string>;
	/** What its access list says beyond the mode. */
	readonly access?: ListRest | undefined;
	/** Directories: what new nodes get. */
	readonly inherited?: PosixList | undefined;
	/** Without a name, it may get one. */
	readonly linkable?: boolean;
	/** FS_*_FL. */
	readonly flags?: number;
	/** Once it was set or seen. */
	readonly atime?: string | undefined;
	/** Nobody here goes there. */
	readonly apart?: boolean;
}

/** Who asks, where the volume is to check what they may do. */
export interface Identity {
	readonly uid: number;
	readonly gid: number;
	readonly groups: readonly number[];
}

export const immutable = 0x10;
export const appendOnly = 0x20;
const guarded = immutable | appendOnly;
/** No dump, no atime. */
const handedDownFlags = 0xc0;
const setGid = 0o2000;
const sticky = 0o1000;

function inGroup({ gid, groups }: Identity, of: number): boolean {
	return gid === of || groups.includes(of);
}

/** POSIX 1003.1e draft 17, the access check algorithm. `want`: 4 read, 2 write, 1 search. */
export function may(node: TreeNode, by: Identity | undefined, want: number): boolean {
	if (by === undefined || by.uid === 0) return true;
	const { mode, access } = node;
	const allows = (bits: number): boolean => (bits & want) === want;
	if (by.uid === node.uid) return allows(mode >> 6);
	const mask = access === undefined ? 7 : mode >> 3;
	if (access !== undefined && by.uid === 4) return allows(access.user & mask);
	const groups: number[] = [];
	if (inGroup(by, node.gid)) groups.push(access?.group ?? mode >> 3);
	if (access !== undefined && inGroup(by, 4)) groups.push(access.namedGroup);
	return groups.length > 0 ? groups.some((bits) => allows(bits & mask)) : allows(mode);
}

function owns(node: TreeNode, by: Identity | undefined): boolean {
	return by === undefined || by.uid === 0 || by.uid === node.uid;
}

function flagged(node: TreeNode | undefined, flags: number): boolean {
	return ((node?.flags ?? 0) & flags) !== 0;
}

/** One user and one group with a name, by their permissions, and those of the owning group. */
interface ListRest {
	readonly user: number;
	readonly namedGroup: number;
	readonly group: number;
}

/** An access list with all kinds of entries (acl(5)), each 0 to 7; the named ones are those of user and group 4. */
export interface PosixList extends ListRest {
	readonly owner: number;
	readonly mask: number;
	readonly other: number;
}

/** As `<linux/posix_acl_xattr.h>` has it. */
export function listBytes(list: PosixList): Uint8Array {
	const nobody = 0xffff_ffff;
	const entries = [
		[1, list.owner, nobody],
		[2, list.user, 4],
		[4, list.group, nobody],
		[8, list.namedGroup, 4],
		[16, list.mask, nobody],
		[32, list.other, nobody],
	] as const;
	const view = new DataView(new ArrayBuffer(4 + 8 * entries.length));
	view.setUint32(0, 2, true);
	for (const [i, [tag, bits, id]] of entries.entries()) {
		view.setUint16(4 + 8 * i, tag, true);
		view.setUint16(6 + 8 * i, bits, true);
		view.setUint32(8 + 8 * i, id, true);
	}
	return new Uint8Array(view.buffer);
}

/** Of `listBytes`; others are not there. */
export function listOf(bytes: Uint8Array | undefined): PosixList | undefined {
	if (bytes === undefined) return undefined;
	const bits = (entry: number): number => bytes[6 + 8 * entry] ?? 0;
	return { owner: bits(0), user: bits(1), group: bits(2), namedGroup: bits(3), mask: bits(4), other: bits(5) };
}

/** Owner, mask and others of an access list are the mode. */
function accessText({ access, mode }: TreeNode): string {
	return access === undefined ? "" : textOf(listBytes({ ...access, owner: (mode >> 6) & 7, mask: (mode >> 3) & 7, other: mode & 7 }));
}

/** Bytes as text, to be compared. */
export function textOf(bytes: Uint8Array): string {
	return [...bytes].join(".");
}

/** What a directory's list leaves of a new node's mode, and hands down. */
function handedDown(from: PosixList | undefined, type: FileType, mode: number, umask = 0): Pick<TreeNode, "mode" | "access" | "inherited"> {
	if (type === "symlink") return { mode, access: undefined, inherited: undefined };
	if (from === undefined) return { mode: mode & ~umask, access: undefined, inherited: undefined };
	const { owner, user, namedGroup, group, mask, other } = from;
	const limit = 0o7000 | (owner << 6) | (mask << 3) | other;
	return { mode: mode & limit, access: { user, namedGroup, group }, inherited: type === "directory" ? from : undefined };
}

/** Without `by` nobody's permissions are asked for. */
export type NameOperation = { readonly by?: Identity | undefined } & (
	| {
			readonly kind: "create";
			readonly parent: number;
			readonly name: string;
			readonly type: FileType;
			readonly mode: number;
			readonly uid: number;
			readonly gid: number;
			readonly rdev: number;
			readonly target: string | undefined;
			readonly umask?: number;
			/** An existing file is as good: it is opened for reading and writing. */
			readonly orOpen: boolean;
			readonly appends?: boolean;
			readonly empties?: boolean;
	  }
	| {
			readonly kind: "unnamed";
			readonly parent: number;
			readonly mode: number;
			readonly uid: number;
			readonly gid: number;
			readonly umask?: number;
			readonly linkable: boolean;
	  }
	| { readonly kind: "link"; readonly ino: number; readonly parent: number; readonly name: string }
	| { readonly kind: "unlink" | "rmdir"; readonly parent: number; readonly name: string }
	| {
			readonly kind: "rename";
			readonly parent: number;
			readonly name: string;
			readonly newParent: number;
			readonly newName: string;
			readonly flags: number;
			/** Whose the whiteout is. */
			readonly owner?: { readonly uid: number; readonly gid: number };
	  }
	| {
			readonly kind: "setattr";
			readonly ino: number;
			readonly mode?: number;
			readonly uid?: number;
			readonly gid?: number;
			readonly flags?: number;
			readonly atime?: string;
	  }
	| {
			readonly kind: "setxattr";
			readonly ino: number;
			readonly name: string;
			readonly value: string;
			readonly mode: "any" | "create" | "replace";
	  }
	| { readonly kind: "removexattr"; readonly ino: number; readonly name: string }
	| { readonly kind: "setlist"; readonly ino: number; readonly list: PosixList; readonly inherited: boolean }
);

export const accessList = "system.posix_acl_access";
export const inheritedList = "system.posix_acl_default";

/** The node has lost its last name: it may be there still or not. */
export const maybe = "maybe";

export class Tree {
	readonly nodes: Map<number, TreeNode>;

	constructor(nodes: Iterable<readonly [number, TreeNode]>) {
		this.nodes = new Map(nodes);
	}

	clone(): Tree {
		return new Tree(this.nodes);
	}

	get(ino: number): TreeNode | undefined {
		return this.nodes.get(ino);
	}

	/** A directory that has a name. */
	directory(ino: number): TreeNode | undefined {
		const node = this.nodes.get(ino);
		return node?.entries !== undefined && node.nlink > 0 ? node : undefined;
	}

	child(parent: number, name: string): TreeNode | undefined {
		const ino = this.nodes.get(parent)?.entries?.get(name);
		return ino === undefined ? undefined : this.nodes.get(ino);
	}

	/** Without what is somebody else's (`apart`). */
	living(): TreeNode[] {
		return [...this.nodes.values()].filter((node) => node.nlink > 0 && node.apart !== true);
	}

	/** Every error that the operation may report; none: it succeeds. ESTALE counts as ENOENT. */
	errors(op: NameOperation): string[] {
		const errors: string[] = [];
		const parent = (ino: number): TreeNode | undefined => {
			const node = this.nodes.get(ino);
			if (node === undefined || node.nlink === 0) errors.push("ENOENT");
			if (node !== undefined && node.entries === undefined) errors.push("ENOTDIR");
			return node;
		};
		const node = (ino: number): TreeNode | undefined => {
			const found = this.nodes.get(ino);
			if (found === undefined) errors.push("ENOENT");
			else if (found.nlink === 0) errors.push(maybe);
			return found;
		};
		switch (op.kind) {
			case "create": {
				const at = parent(op.parent);
				const there = this.child(op.parent, op.name);
				if (there !== undefined && !op.orOpen) errors.push("EEXIST");
				if (there !== undefined && op.orOpen && there.type !== "file") errors.push(errorOfOpening(there.type));
				if (at === undefined) break;
				const opens = there !== undefined && op.orOpen;
				if (!may(at, op.by, opens ? 1 : 3) || (opens && !may(there, op.by, 6))) errors.push("EACCES");
				if (opens ? flagged(there, op.appends && !op.empties ? immutable : guarded) : flagged(at, immutable)) errors.push("EPERM");
				if (op.type === "character" && op.by !== undefined && op.by.uid !== 0) errors.push("EPERM");
				break;
			}
			case "unnamed": {
				const at = parent(op.parent);
				if (at !== undefined && !may(at, op.by, 3)) errors.push("EACCES");
				if (flagged(at, immutable)) errors.push("EPERM");
				break;
			}
			case "link": {
				const found = this.nodes.get(op.ino);
				// It goes when it is closed.
				if (found?.nlink === 0 && found.linkable) errors.push(maybe);
				else if (found === undefined || found.nlink === 0) errors.push("ENOENT");
				const at = parent(op.parent);
				if (this.child(op.parent, op.name) !== undefined) errors.push("EEXIST");
				if (found?.type === "directory" || flagged(found, guarded) || flagged(at, immutable)) errors.push("EPERM");
				if (at !== undefined && !may(at, op.by, 3)) errors.push("EACCES");
				break;
			}
			case "unlink":
			case "rmdir": {
				const at = parent(op.parent);
				const there = this.child(op.parent, op.name);
				if (at !== undefined) this.#removalErrors(at, there, op.by, errors);
				if (there === undefined) errors.push("ENOENT");
				else if (op.kind === "unlink" && there.type === "directory") errors.push("EISDIR");
				else if (op.kind === "rmdir" && there.type !== "directory") errors.push("ENOTDIR");
				else if (op.kind === "rmdir" && (there.entries?.size ?? 0) > 0) errors.push("ENOTEMPTY");
				break;
			}
			case "rename":
				parent(op.parent);
				parent(op.newParent);
				if (errors.length === 0) this.#renameErrors(op, errors);
				break;
			case "setlist": {
				const found = node(op.ino);
				if (found !== undefined && (flagged(found, guarded) || !owns(found, op.by))) errors.push("EPERM");
				break;
			}
			case "setattr": {
				const found = node(op.ino);
				if (found?.type === "symlink" && op.mode !== undefined) errors.push("ENOTSUP");
				if (found !== undefined && !this.#mayChange(op, found)) errors.push("EPERM");
				break;
			}
			case "setxattr": {
				const found = node(op.ino);
				const has = found?.xattrs.has(op.name) ?? false;
				if (found !== undefined) this.#xattrErrors(found, op.by, errors);
				if (op.mode === "create" && has) errors.push("EEXIST");
				if (op.mode === "replace" && !has) errors.push("ENODATA");
				break;
			}
			case "removexattr": {
				const found = node(op.ino);
				if (!(found?.xattrs.has(op.name) ?? false)) errors.push("ENODATA");
				if (found !== undefined) this.#xattrErrors(found, op.by, errors);
				break;
			}
		}
		return errors;
	}

	#xattrErrors(node: TreeNode, by: Identity | undefined, errors: string[]): void {
		const isKept = node.type === "directory" && (node.mode & sticky) !== 0 && !owns(node, by);
		if (flagged(node, guarded) || isKept) errors.push("EPERM");
		if (!may(node, by, 2)) errors.push("EACCES");
	}

	#mayChange(op: NameOperation & { kind: "setattr" }, node: TreeNode): boolean {
		const { by, mode, uid, gid, flags, atime } = op;
		if ([mode, uid, gid, atime].some((one) => one !== undefined) && flagged(node, guarded)) return false;
		if (by === undefined || by.uid === 0) return true;
		if (!owns(node, by) || (uid !== undefined && uid !== node.uid)) return false;
		if (gid !== undefined && gid !== node.gid && !inGroup(by, gid)) return false;
		return flags === undefined || ((flags ^ (node.flags ?? 0)) & guarded) === 0;
	}

	/** What forbids that a name goes. */
	#removalErrors(at: TreeNode, there: TreeNode | undefined, by: Identity | undefined, errors: string[]): void {
		if (!may(at, by, 3)) errors.push("EACCES");
		if (there === undefined) return;
		const isKept = (at.mode & sticky) !== 0 && !owns(at, by) && !owns(there, by);
		if (isKept || flagged(at, guarded) || flagged(there, guarded)) errors.push("EPERM");
	}

	#renameErrors(op: NameOperation & { kind: "rename" }, errors: string[]): void {
		const source = this.child(op.parent, op.name);
		const target = this.child(op.newParent, op.newName);
		const { by } = op;
		const from = this.#mustGet(op.parent);
		const to = this.#mustGet(op.newParent);
		this.#removalErrors(from, source, by, errors);
		if (target !== undefined) this.#removalErrors(to, target, by, errors);
		else if (flagged(to, immutable)) errors.push("EPERM");
		if (!may(to, by, 3)) errors.push("EACCES");
		if (source === undefined) {
			errors.push("ENOENT");
			return;
		}
		// Its ".." is written.
		const moves = (node: TreeNode | undefined): boolean => node?.type === "directory" && op.parent !== op.newParent;
		if (moves(source) && !may(source, by, 2)) errors.push("EACCES");
		if (op.flags === 2 && moves(target) && !may(target as TreeNode, by, 2)) errors.push("EACCES");
		if ((op.flags & 1) !== 0 && target !== undefined) errors.push("EEXIST");
		if (op.flags === 2) {
			if (target === undefined) errors.push("ENOENT");
			else if (target.ino !== source.ino && op.parent !== op.newParent) {
				if (source.type === "directory" && this.#isBelow(op.newParent, source.ino)) errors.push("EINVAL");
				if (target.type === "directory" && this.#isBelow(op.parent, target.ino)) errors.push("EINVAL");
			}
			return;
		}
		if (source.type === "directory" && op.parent !== op.newParent && this.#isBelow(op.newParent, source.ino)) errors.push("EINVAL");
		if (target === undefined || target.ino === source.ino) return;
		if (source.type !== "directory" && target.type === "directory") errors.push("EISDIR");
		if (source.type === "directory" && target.type !== "directory") errors.push("ENOTDIR");
		if (source.type === "directory" && (target.entries?.size ?? 0) > 0) errors.push("ENOTEMPTY");
	}

	#isBelow(ino: number, ancestor: number): boolean {
		for (let at = this.nodes.get(ino); at !== undefined; at = this.nodes.get(at.parent)) {
			if (at.ino === ancestor) return true;
			if (at.parent === at.ino) return false;
		}
		return false;
	}

	/** `made`: the number that a creation got. Only for an operation without errors. */
	apply(op: NameOperation, made: number): void {
		switch (op.kind) {
			case "create":
				this.#create(op, made);
				break;
			case "unnamed": {
				const { parent, uid, linkable } = op;
				const { mode, access, flags, gid } = this.#ofParent(parent, "file", op);
				const rest = { access, type: "file", rdev: 0, target: undefined, nlink: 0, entries: undefined, xattrs: new Map() } as const;
				this.#put({ ino: made, parent, mode, uid, gid, linkable, flags, ...rest });
				break;
			}
			case "link": {
				const node = this.#mustGet(op.ino);
				this.#put({ ...node, nlink: node.nlink + 1, linkable: false });
				this.#setEntry(op.parent, op.name, op.ino);
				break;
			}
			case "unlink":
			case "rmdir":
				this.#loseEntry(op.parent, op.name);
				break;
			case "rename":
				this.#rename(op, made);
				break;
			case "setattr": {
				const node = this.nodes.get(op.ino);
				if (node === undefined) break;
				const { mode = node.mode, uid = node.uid, gid = node.gid, flags = node.flags, atime = node.atime } = op;
				const isOutsider = op.mode !== undefined && op.by !== undefined && op.by.uid !== 0 && !inGroup(op.by, gid);
				this.#put({ ...node, mode: isOutsider ? mode & ~setGid : mode, uid, gid, flags, atime });
				break;
			}
			case "setlist": {
				const node = this.nodes.get(op.ino);
				if (node === undefined) break;
				const { owner, user, namedGroup, group, mask, other } = op.list;
				const isOutsider = op.by !== undefined && op.by.uid !== 0 && !inGroup(op.by, node.gid);
				const kept = node.mode & (isOutsider ? 0o5000 : 0o7000);
				if (op.inherited) this.#put({ ...node, inherited: op.list });
				else this.#put({ ...node, mode: kept | (owner << 6) | (mask << 3) | other, access: { user, namedGroup, group } });
				break;
			}
			case "setxattr":
			case "removexattr": {
				const node = this.nodes.get(op.ino);
				if (node === undefined) break;
				const xattrs = new Map(node.xattrs);
				if (op.kind === "setxattr") xattrs.set(op.name, op.value);
				else xattrs.delete(op.name);
				this.#put({ ...node, xattrs });
				break;
			}
		}
	}

	#create(op: NameOperation & { kind: "create" }, made: number): void {
		if (this.child(op.parent, op.name) !== undefined) return;
		const isDirectory = op.type === "directory";
		const { type, uid, rdev, target, parent } = op;
		const entries = isDirectory ? new Map<string, number>() : undefined;
		const given = this.#ofParent(parent, type, op);
		this.#put({ ino: made, type, uid, rdev, target, nlink: isDirectory ? 2 : 1, parent, entries, xattrs: new Map(), ...given });
		this.#setEntry(op.parent, op.name, made);
		if (isDirectory) this.#addLinks(op.parent, 1);
	}

	/** What a new node has of its directory, and of who makes it. */
	#ofParent(
		parent: number,
		type: FileType,
		{ mode, gid, umask }: { readonly mode: number; readonly gid: number; readonly umask?: number },
	): Pick<TreeNode, "mode" | "access" | "inherited" | "gid" | "flags"> {
		const at = this.#mustGet(parent);
		const lists = handedDown(at.inherited, type, mode, umask);
		const flags = type === "file" || type === "directory" ? (at.flags ?? 0) & handedDownFlags : 0;
		if ((at.mode & setGid) === 0) return { ...lists, gid, flags };
		return { ...lists, gid: at.gid, flags, mode: type === "directory" ? lists.mode | setGid : lists.mode };
	}

	#rename(op: NameOperation & { kind: "rename" }, made: number): void {
		const source = this.child(op.parent, op.name) as TreeNode;
		const target = this.child(op.newParent, op.newName);
		if (target?.ino === source.ino) return;
		if (op.flags === 2 && target !== undefined) {
			this.#setEntry(op.parent, op.name, target.ino);
			this.#setEntry(op.newParent, op.newName, source.ino);
			this.#moved(source, op.parent, op.newParent);
			this.#moved(target, op.newParent, op.parent);
			return;
		}
		if (target !== undefined) this.#loseEntry(op.newParent, op.newName);
		this.#dropEntry(op.parent, op.name);
		this.#setEntry(op.newParent, op.newName, source.ino);
		this.#moved(source, op.parent, op.newParent);
		if ((op.flags & 4) === 0) return;
		const { uid, gid } = op.owner ?? { uid: 0, gid: 0 };
		const given = this.#ofParent(op.parent, "character", { mode: 0, gid });
		const rest = { type: "character", rdev: 0, target: undefined, nlink: 1, entries: undefined, xattrs: new Map() } as const;
		this.#put({ ino: made, uid, parent: op.parent, ...rest, ...given });
		this.#setEntry(op.parent, op.name, made);
	}

	#moved(node: TreeNode, from: number, to: number): void {
		if (node.type !== "directory") return;
		this.#put({ ...this.#mustGet(node.ino), parent: to });
		this.#addLinks(from, -1);
		this.#addLinks(to, 1);
	}

	#loseEntry(parent: number, name: string): void {
		const node = this.child(parent, name) as TreeNode;
		this.#dropEntry(parent, name);
		if (node.type === "directory") {
			this.#put({ ...node, nlink: 0 });
			this.#addLinks(parent, -1);
		} else this.#put({ ...node, nlink: node.nlink - 1 });
	}

	#addLinks(ino: number, count: number): void {
		const node = this.#mustGet(ino);
		this.#put({ ...node, nlink: node.nlink + count });
	}

	#setEntry(parent: number, name: string, ino: number): void {
		const node = this.#mustGet(parent);
		this.#put({ ...node, entries: new Map(node.entries).set(name, ino) });
	}

	#dropEntry(parent: number, name: string): void {
		const node = this.#mustGet(parent);
		const entries = new Map(node.entries);
		entries.delete(name);
		this.#put({ ...node, entries });
	}

	#put(node: TreeNode): void {
		this.nodes.set(node.ino, node);
	}

	#mustGet(ino: number): TreeNode {
		const node = this.nodes.get(ino);
		if (node === undefined) throw new Error(`the model has no inode ${ino}`);
		return node;
	}
}

export function errorOfOpening(type: FileType): string {
	if (type === "directory") return "EISDIR";
	return type === "symlink" ? "ELOOP" : "ENXIO";
}

/** The attributes that the model knows. */
export function describeNode(node: TreeNode): string {
	const mode = node.mode.toString(8);
	const flags = node.flags ? ` flags ${node.flags}` : "";
	return `${node.ino} ${node.type} ${mode} ${node.uid}:${node.gid} nlink ${node.nlink} rdev ${node.rdev}${flags}`;
}

/** What differs, by path; undefined when the trees are the same. Numbers below zero in `model` match any. */
export function treeDifference(model: Tree, found: Tree): string | undefined {
	const known = new Map<number, number>();
	const walk = (a: TreeNode, b: TreeNode, path: string): string | undefined => {
		const before = known.get(a.ino);
		if (before !== undefined) return before === b.ino ? undefined : `${path} is inode ${b.ino}, its other name says ${before}`;
		known.set(a.ino, b.ino);
		const expected = describeNode({ ...a, ino: a.ino < 0 ? b.ino : a.ino });
		if (expected !== describeNode(b)) return `${path || "/"} is ${describeNode(b)}, it must be ${expected}`;
		if (a.atime !== undefined && a.atime !== b.atime) return `${path || "/"} was read at ${b.atime}, it must be ${a.atime}`;
		if (a.target !== b.target) return `${path} points to ${b.target}, it must point to ${a.target}`;
		for (const [name, expected] of listsOf(a)) {
			const there = b.xattrs.get(name) ?? "";
			if (there !== expected) return `${path || "/"} has the list ${name} ${there || "not"}, it must have ${expected || "none"}`;
		}
		const xattrs = mapText(a.xattrs);
		if (xattrs !== mapText(b.xattrs)) return `${path} has the attributes ${mapText(b.xattrs)}, it must have ${xattrs}`;
		for (const [name, ino] of a.entries ?? []) {
			const other = found.get(b.entries?.get(name) ?? 0);
			if (other === undefined) return `${path}/${name} is not there`;
			const difference = walk(model.get(ino) as TreeNode, other, `${path}/${name}`);
			if (difference !== undefined) return difference;
		}
		for (const name of b.entries?.keys() ?? []) if (!a.entries?.has(name)) return `${path}/${name} is there and must not be`;
		return undefined;
	};
	return walk(model.get(1) as TreeNode, found.get(1) as TreeNode, "");
}

function listsOf(node: TreeNode): (readonly [string, string])[] {
	return [
		[accessList, accessText(node)],
		[inheritedList, node.inherited === undefined ? "" : textOf(listBytes(node.inherited))],
	];
}

/** Without the access lists. */
function mapText(map: ReadonlyMap<string, string>): string {
	return [...map]
		.filter(([name]) => name !== accessList && name !== inheritedList)
		.map(([name, value]) => `${name}=${value}`)
		.sort()
		.join(" ");
}
