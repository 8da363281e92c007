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
function handedDown(from: PosixList | undefined, type: FileType, mode: number): Pick<TreeNode, "mode" | "access" | "inherited"> {
	if (from === undefined || type === "symlink") return { mode, access: undefined, inherited: undefined };
	const { owner, user, namedGroup, group, mask, other } = from;
	const limit = 0o7000 | (owner << 6) | (mask << 3) | other;
	return { mode: mode & limit, access: { user, namedGroup, group }, inherited: type === "directory" ? from : undefined };
}

export type NameOperation =
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
			/** An existing file is as good. */
			readonly orOpen: boolean;
	  }
	| {
			readonly kind: "unnamed";
			readonly parent: number;
			readonly mode: number;
			readonly uid: number;
			readonly gid: number;
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
	  }
	| { readonly kind: "setattr"; readonly ino: number; readonly mode?: number; readonly uid?: number; readonly gid?: number }
	| {
			readonly kind: "setxattr";
			readonly ino: number;
			readonly name: string;
			readonly value: string;
			readonly mode: "any" | "create" | "replace";
	  }
	| { readonly kind: "removexattr"; readonly ino: number; readonly name: string }
	| { readonly kind: "setlist"; readonly ino: number; readonly list: PosixList; readonly inherited: boolean };

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

	living(): TreeNode[] {
		return [...this.nodes.values()].filter((node) => node.nlink > 0);
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
				parent(op.parent);
				const there = this.child(op.parent, op.name);
				if (there !== undefined && !op.orOpen) errors.push("EEXIST");
				if (there !== undefined && op.orOpen && there.type !== "file") errors.push(errorOfOpening(there.type));
				break;
			}
			case "unnamed":
				parent(op.parent);
				break;
			case "link": {
				const found = this.nodes.get(op.ino);
				// It goes when it is closed.
				if (found?.nlink === 0 && found.linkable) errors.push(maybe);
				else if (found === undefined || found.nlink === 0) errors.push("ENOENT");
				parent(op.parent);
				if (this.child(op.parent, op.name) !== undefined) errors.push("EEXIST");
				if (found?.type === "directory") errors.push("EPERM");
				break;
			}
			case "unlink":
			case "rmdir": {
				parent(op.parent);
				const there = this.child(op.parent, op.name);
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
			case "setlist":
				node(op.ino);
				break;
			case "setattr":
				if (node(op.ino)?.type === "symlink" && op.mode !== undefined) errors.push("ENOTSUP");
				break;
			case "setxattr": {
				const has = node(op.ino)?.xattrs.has(op.name) ?? false;
				if (op.mode === "create" && has) errors.push("EEXIST");
				if (op.mode === "replace" && !has) errors.push("ENODATA");
				break;
			}
			case "removexattr":
				if (!(node(op.ino)?.xattrs.has(op.name) ?? false)) errors.push("ENODATA");
				break;
		}
		return errors;
	}

	#renameErrors(op: NameOperation & { kind: "rename" }, errors: string[]): void {
		const source = this.child(op.parent, op.name);
		const target = this.child(op.newParent, op.newName);
		if (source === undefined) {
			errors.push("ENOENT");
			return;
		}
		if (op.flags === 1 && target !== undefined) errors.push("EEXIST");
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
				const { parent, uid, gid, linkable } = op;
				const { mode, access } = handedDown(this.nodes.get(parent)?.inherited, "file", op.mode);
				const rest = { access, type: "file", rdev: 0, target: undefined, nlink: 0, entries: undefined, xattrs: new Map() } as const;
				this.#put({ ino: made, parent, mode, uid, gid, linkable, ...rest });
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
				this.#rename(op);
				break;
			case "setattr": {
				const node = this.nodes.get(op.ino);
				if (node === undefined) break;
				const { mode = node.mode, uid = node.uid, gid = node.gid } = op;
				this.#put({ ...node, mode, uid, gid });
				break;
			}
			case "setlist": {
				const node = this.nodes.get(op.ino);
				if (node === undefined) break;
				const { owner, user, namedGroup, group, mask, other } = op.list;
				if (op.inherited) this.#put({ ...node, inherited: op.list });
				else this.#put({ ...node, mode: (node.mode & 0o7000) | (owner << 6) | (mask << 3) | other, access: { user, namedGroup, group } });
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
		const { type, uid, gid, rdev, target, parent } = op;
		const entries = isDirectory ? new Map<string, number>() : undefined;
		const lists = handedDown(this.nodes.get(parent)?.inherited, type, op.mode);
		this.#put({ ino: made, type, uid, gid, rdev, target, nlink: isDirectory ? 2 : 1, parent, entries, xattrs: new Map(), ...lists });
		this.#setEntry(op.parent, op.name, made);
		if (isDirectory) this.#addLinks(op.parent, 1);
	}

	#rename(op: NameOperation & { kind: "rename" }): void {
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
	return `${node.ino} ${node.type} ${mode} ${node.uid}:${node.gid} nlink ${node.nlink} rdev ${node.rdev}`;
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
