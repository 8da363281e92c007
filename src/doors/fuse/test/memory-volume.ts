/**
 * A small volume in memory for the tests of the door: enough POSIX for a real mount, no durability, no bounds. `calls` notes what the door
 * asked for.
 */
import { FileLocks } from "../../../locks/file-locks.ts";
import type { Clock } from "../../../platform/interface.ts";
import { FsError } from "../../../base/errors.ts";
import type { ErrorCode } from "../../../base/errors.ts";
import type { Timestamp } from "../../../base/time.ts";
import type {
	AllocateMode,
	At,
	Attributes,
	Caller,
	Changed,
	ChangedName,
	ChangedNode,
	ChangedRename,
	DirectoryItem,
	FileType,
	HandleId,
	Ino,
	NodeRef,
	OpenIntent,
	Opened,
	Permissions,
	SetAttributes,
	Volume,
	VolumeSpace,
} from "../../../volume/interface.ts";

interface Node {
	readonly ino: Ino;
	readonly type: FileType;
	mode: number;
	uid: number;
	gid: number;
	nlink: number;
	rdev: number;
	data: Uint8Array;
	size: number;
	target: string;
	atime: Timestamp;
	mtime: Timestamp;
	ctime: Timestamp;
	parent: Ino;
	flags: number;
	change: number;
	readonly entries: Map<string, { readonly ino: Ino; readonly cookie: number }>;
	readonly xattrs: Map<string, Uint8Array>;
}

function fail(code: ErrorCode, what: string): FsError {
	return new FsError(code, "test.memory-volume", what);
}

export class MemoryVolume implements Volume {
	readonly id = "memory";
	readonly root: NodeRef = { volume: "memory", snapshot: 0, ino: 1 };
	readonly calls: string[] = [];
	/** Thrown by the next call of the method named, once. */
	readonly faults = new Map<string, unknown>();
	/** Thrown by every call of the method named. */
	readonly failing = new Map<string, unknown>();
	/** Set to make calls of a method wait. */
	readonly gates = new Map<string, Promise<void>>();
	readonly open_ = new Map<HandleId, Node>();
	readonly locks = new FileLocks({ clock: { monotonicMs: () => 0, realtime: () => this.#tick() } as Clock, memory: undefined });
	#nodes = new Map<Ino, Node>();
	#nextIno = 2;
	#nextHandle = 1;
	#nextCookie = 3;
	#position = 0;
	#now = 1_000_000_000;

	constructor() {
		this.#nodes.set(1, this.#make(1, "directory", 0o755, 0, 0, 1));
	}

	#make(ino: Ino, type: FileType, mode: number, uid: number, gid: number, parent: Ino): Node {
		const now = this.#tick();
		return {
			ino,
			type,
			mode,
			uid,
			gid,
			parent,
			nlink: type === "directory" ? 2 : 1,
			rdev: 0,
			data: new Uint8Array(0),
			size: 0,
			target: "",
			flags: 0,
			change: 1,
			atime: now,
			mtime: now,
			ctime: now,
			entries: new Map(),
			xattrs: new Map(),
		};
	}

	#tick(): Timestamp {
		return { seconds: this.#now++, nanoseconds: 123_456_789 };
	}

	async #enter(method: string, detail = ""): Promise<void> {
		this.calls.push(detail === "" ? method : `${method} ${detail}`);
		if (this.calls.length > 100_000) this.calls.length = 0;
		const gate = this.gates.get(method);
		if (gate !== undefined) await gate;
		const fault = this.faults.get(method) ?? this.failing.get(method);
		if (fault === undefined) return;
		this.faults.delete(method);
		throw fault;
	}

	#node(ref: NodeRef): Node {
		const node = this.#nodes.get(ref.ino);
		if (node === undefined) throw fail("ESTALE", `no inode ${ref.ino}`);
		return node;
	}

	#directory(ref: NodeRef): Node {
		const node = this.#node(ref);
		if (node.type !== "directory") throw fail("ENOTDIR", `inode ${ref.ino}`);
		return node;
	}

	#child(parent: Node, name: string): Node {
		const found = this.#find(parent, name);
		if (found === undefined) throw fail("ENOENT", name);
		return found;
	}

	#find(parent: Node, name: string): Node | undefined {
		if (name === ".") return parent;
		if (name === "..") return this.#nodes.get(parent.parent);
		const entry = parent.entries.get(name);
		return entry && this.#nodes.get(entry.ino);
	}

	#attributes(node: Node): Attributes {
		return {
			ino: node.ino,
			type: node.type,
			mode: node.mode,
			nlink: node.nlink,
			uid: node.uid,
			gid: node.gid,
			rdev: node.rdev,
			size: node.size,
			storedBytes: Math.ceil(node.size / 512) * 512,
			atime: node.atime,
			mtime: node.mtime,
			ctime: node.ctime,
			btime: node.ctime,
			flags: node.flags,
			change: node.change,
		};
	}

	#touched(...nodes: Node[]): number {
		for (const node of nodes) {
			node.ctime = this.#tick();
			node.mtime = node.type === "directory" ? node.ctime : node.mtime;
			node.change++;
		}
		return ++this.#position;
	}

	#named(parent: Node, node: Node): ChangedName {
		const position = this.#touched(parent);
		const at = this.#attributes(parent);
		return { position, attributes: this.#attributes(node), parentBefore: at, parentAfter: at };
	}

	#add(caller: Caller, at: NodeRef, name: string, type: FileType, mode: number): { readonly parent: Node; readonly node: Node } {
		const parent = this.#directory(at);
		if (name.length > 255) throw fail("ENAMETOOLONG", name);
		if (parent.entries.has(name)) throw fail("EEXIST", name);
		const node = this.#make(this.#nextIno++, type, mode, caller.uid, caller.gid, parent.ino);
		this.#nodes.set(node.ino, node);
		parent.entries.set(name, { ino: node.ino, cookie: this.#nextCookie++ });
		if (type === "directory") parent.nlink++;
		return { parent, node };
	}

	node(ino: Ino): NodeRef {
		return { volume: this.id, snapshot: 0, ino };
	}

	async lookup(_caller: Caller, parent: NodeRef, name: string): Promise<Attributes> {
		await this.#enter("lookup", name);
		if (name.length > 255) throw fail("ENAMETOOLONG", name);
		return this.#attributes(this.#child(this.#directory(parent), name));
	}

	async makeDirectory(caller: Caller, parent: NodeRef, name: string, mode: number): Promise<ChangedName> {
		await this.#enter("makeDirectory", name);
		const made = this.#add(caller, parent, name, "directory", mode);
		return this.#named(made.parent, made.node);
	}

	async makeSymlink(caller: Caller, parent: NodeRef, name: string, target: string): Promise<ChangedName> {
		await this.#enter("makeSymlink", name);
		const made = this.#add(caller, parent, name, "symlink", 0o777);
		made.node.target = target;
		made.node.size = target.length;
		return this.#named(made.parent, made.node);
	}

	async makeNode(caller: Caller, parent: NodeRef, name: string, type: FileType, mode: number, rdev: number): Promise<ChangedName> {
		await this.#enter("makeNode", `${name} ${type} ${mode.toString(8)} ${rdev}`);
		const made = this.#add(caller, parent, name, type, mode);
		made.node.rdev = rdev;
		return this.#named(made.parent, made.node);
	}

	async link(_caller: Caller, ref: NodeRef, parentRef: NodeRef, name: string): Promise<ChangedName> {
		await this.#enter("link", name);
		const node = this.#node(ref);
		const parent = this.#directory(parentRef);
		if (parent.entries.has(name)) throw fail("EEXIST", name);
		parent.entries.set(name, { ino: node.ino, cookie: this.#nextCookie++ });
		node.nlink++;
		this.#touched(node);
		return this.#named(parent, node);
	}

	#drop(node: Node): void {
		if (node.nlink === 0 && ![...this.open_.values()].includes(node)) this.#nodes.delete(node.ino);
	}

	async unlink(_caller: Caller, parentRef: NodeRef, name: string): Promise<ChangedName> {
		await this.#enter("unlink", name);
		const parent = this.#directory(parentRef);
		const node = this.#child(parent, name);
		if (node.type === "directory") throw fail("EISDIR", name);
		parent.entries.delete(name);
		node.nlink--;
		this.#touched(node);
		this.#drop(node);
		return this.#named(parent, node);
	}

	async removeDirectory(_caller: Caller, parentRef: NodeRef, name: string): Promise<ChangedName> {
		await this.#enter("removeDirectory", name);
		const parent = this.#directory(parentRef);
		const node = this.#child(parent, name);
		if (node.type !== "directory") throw fail("ENOTDIR", name);
		if (node.entries.size > 0) throw fail("ENOTEMPTY", name);
		parent.entries.delete(name);
		parent.nlink--;
		node.nlink = 0;
		this.#drop(node);
		return this.#named(parent, node);
	}

	async rename(_caller: Caller, from: NodeRef, name: string, to: NodeRef, newName: string, flags: number): Promise<ChangedRename> {
		await this.#enter("rename", `${name} ${newName} ${flags}`);
		if (flags > 1) throw fail("EINVAL", `flags ${flags}`);
		const [source, target] = [this.#directory(from), this.#directory(to)];
		const node = this.#child(source, name);
		const old = this.#find(target, newName);
		if (old !== undefined && flags === 1) throw fail("EEXIST", newName);
		if (old === node) return this.#renamed(source, target, node, undefined);
		if (old?.type === "directory" && old.entries.size > 0) throw fail("ENOTEMPTY", newName);
		source.entries.delete(name);
		target.entries.set(newName, { ino: node.ino, cookie: this.#nextCookie++ });
		if (node.type === "directory") this.#reparent(node, source, target);
		if (old !== undefined) {
			old.nlink = old.type === "directory" ? 0 : old.nlink - 1;
			this.#drop(old);
		}
		this.#touched(source, target, node);
		return this.#renamed(source, target, node, old);
	}

	#renamed(source: Node, target: Node, node: Node, old: Node | undefined): ChangedRename {
		const [from, to] = [this.#attributes(source), this.#attributes(target)];
		const parents = { parentBefore: from, parentAfter: from, newParentBefore: to, newParentAfter: to };
		const replaced = old === undefined ? undefined : this.#attributes(old);
		return { position: this.#position, attributes: this.#attributes(node), replaced, ...parents };
	}

	#reparent(node: Node, source: Node, target: Node): void {
		source.nlink--;
		target.nlink++;
		node.parent = target.ino;
	}

	async readSymlink(_caller: Caller, ref: NodeRef): Promise<string> {
		await this.#enter("readSymlink");
		return this.#node(ref).target;
	}

	async readDirectory(_caller: Caller, ref: NodeRef, after: number, limit: number, attributes: boolean): Promise<readonly DirectoryItem[]> {
		await this.#enter("readDirectory", `${after} ${limit} ${attributes}`);
		const node = this.#directory(ref);
		const items: DirectoryItem[] = [];
		const dots: [string, Ino, number][] = [
			[".", node.ino, 1],
			["..", node.parent, 2],
		];
		const all = [...dots, ...[...node.entries].map(([name, entry]): [string, Ino, number] => [name, entry.ino, entry.cookie])];
		for (const [name, ino, cookie] of all) {
			if (cookie <= after || items.length >= limit) continue;
			const child = this.#nodes.get(ino) as Node;
			items.push({ name, ino, cookie, type: child.type, attributes: attributes ? this.#attributes(child) : undefined });
		}
		return items;
	}

	async getAttributes(_caller: Caller, ref: NodeRef, handle?: HandleId): Promise<Attributes> {
		await this.#enter("getAttributes", `${ref.ino}${handle === undefined ? "" : ` handle ${handle}`}`);
		return this.#attributes(this.#node(ref));
	}

	async permissions(_caller: Caller, ref: NodeRef): Promise<Permissions> {
		await this.#enter("permissions", String(ref.ino));
		return { read: true, write: true, execute: true, attributes: this.#attributes(this.#node(ref)) };
	}

	async setAttributes(_caller: Caller, ref: NodeRef, change: SetAttributes, handle?: HandleId): Promise<ChangedNode> {
		await this.#enter("setAttributes", `${ref.ino} ${JSON.stringify(change)}${handle === undefined ? "" : ` handle ${handle}`}`);
		const node = this.#node(ref);
		const before = this.#attributes(node);
		const position = this.#touched(node);
		node.mode = change.mode ?? node.mode;
		if (change.dropRights === true && node.type === "file") node.mode &= (node.mode & 0o10) !== 0 ? 0o1777 : 0o3777;
		node.flags = change.flags ?? node.flags;
		node.uid = change.uid ?? node.uid;
		node.gid = change.gid ?? node.gid;
		if (change.size !== undefined) this.#resize(node, change.size);
		if (change.atime !== undefined) node.atime = change.atime === "now" ? this.#tick() : change.atime;
		if (change.mtime !== undefined) node.mtime = change.mtime === "now" ? this.#tick() : change.mtime;
		return { position, before, after: this.#attributes(node) };
	}

	#resize(node: Node, size: number): void {
		if (size > node.data.length) {
			const grown = new Uint8Array(Math.max(size, node.data.length * 2));
			grown.set(node.data.subarray(0, node.size));
			node.data = grown;
		} else node.data.fill(0, size, node.size);
		node.size = size;
		node.mtime = this.#tick();
	}

	async getXattr(_caller: Caller, ref: NodeRef, name: string): Promise<Uint8Array> {
		await this.#enter("getXattr", name);
		const value = this.#node(ref).xattrs.get(name);
		if (value === undefined) throw fail("ENODATA", name);
		return value;
	}

	async setXattr(
		_caller: Caller,
		ref: NodeRef,
		name: string,
		value: Uint8Array,
		mode: "any" | "create" | "replace",
		dropSetGid = false,
	): Promise<Changed> {
		await this.#enter("setXattr", `${name} ${mode}${dropSetGid ? " drop" : ""}`);
		const node = this.#node(ref);
		if (mode === "create" && node.xattrs.has(name)) throw fail("EEXIST", name);
		if (mode === "replace" && !node.xattrs.has(name)) throw fail("ENODATA", name);
		node.xattrs.set(name, value);
		return { position: this.#touched(node) };
	}

	async listXattrs(_caller: Caller, ref: NodeRef): Promise<readonly string[]> {
		await this.#enter("listXattrs");
		return [...this.#node(ref).xattrs.keys()];
	}

	async removeXattr(_caller: Caller, ref: NodeRef, name: string): Promise<Changed> {
		await this.#enter("removeXattr", name);
		const node = this.#node(ref);
		if (!node.xattrs.delete(name)) throw fail("ENODATA", name);
		return { position: this.#touched(node) };
	}

	async open(caller: Caller, at: At, intent: OpenIntent): Promise<Opened> {
		await this.#enter("open", `${"node" in at ? at.node.ino : at.name} ${JSON.stringify(intent)}`);
		if (intent.unnamed === true && "parent" in at) return this.#openUnnamed(caller, at.parent, intent);
		const found = "node" in at ? this.#node(at.node) : this.#find(this.#directory(at.parent), at.name);
		if (found !== undefined && intent.disposition === "create") throw fail("EEXIST", "open");
		const node = found ?? this.#createFile(caller, at, intent);
		if (node.type !== "file") throw fail("EISDIR", "open");
		if (found !== undefined && intent.disposition.startsWith("overwrite")) {
			if (intent.dropRights === true) node.mode &= (node.mode & 0o10) !== 0 ? 0o1777 : 0o3777;
			this.#resize(node, 0);
		}
		const handle = this.#nextHandle++;
		this.open_.set(handle, node);
		return {
			position: ++this.#position,
			handle,
			attributes: this.#attributes(node),
			created: found === undefined,
			parentBefore: undefined,
			parentAfter: undefined,
		};
	}

	#openUnnamed(caller: Caller, parent: NodeRef, intent: OpenIntent): Opened {
		const node = this.#make(this.#nextIno++, "file", intent.attributes?.mode ?? 0, caller.uid, caller.gid, parent.ino);
		node.nlink = 0;
		this.#nodes.set(node.ino, node);
		const handle = this.#nextHandle++;
		this.open_.set(handle, node);
		return {
			position: ++this.#position,
			handle,
			attributes: this.#attributes(node),
			created: true,
			parentBefore: undefined,
			parentAfter: undefined,
		};
	}

	#createFile(caller: Caller, at: At, intent: OpenIntent): Node {
		if ("node" in at || intent.disposition === "open") throw fail("ENOENT", "open");
		const made = this.#add(caller, at.parent, at.name, "file", intent.attributes?.mode ?? 0);
		this.#touched(made.parent);
		return made.node;
	}

	#opened(handle: HandleId): Node {
		const node = this.open_.get(handle);
		if (node === undefined) throw fail("EBADF", `handle ${handle}`);
		return node;
	}

	async read(handle: HandleId, offset: number, lengthBytes: number): Promise<Uint8Array> {
		await this.#enter("read", `${offset} ${lengthBytes}`);
		const node = this.#opened(handle);
		return node.data.slice(Math.min(offset, node.size), Math.min(offset + lengthBytes, node.size));
	}

	async write(handle: HandleId, offset: number, bytes: Uint8Array): Promise<{ readonly written: number; readonly attributes: Attributes }> {
		const copy = bytes.slice();
		await this.#enter("write", `${offset} ${copy.length}`);
		const node = this.#opened(handle);
		if (offset + copy.length > node.size) this.#resize(node, offset + copy.length);
		node.data.set(copy, offset);
		node.mtime = this.#tick();
		node.ctime = node.mtime;
		return { written: copy.length, attributes: this.#attributes(node) };
	}

	async allocate(handle: HandleId, mode: AllocateMode, offset: number, lengthBytes: number): Promise<Changed> {
		await this.#enter("allocate", `${mode} ${offset} ${lengthBytes}`);
		const node = this.#opened(handle);
		const end = offset + lengthBytes;
		if ((mode === "allocate" || mode === "zero") && end > node.size) this.#resize(node, end);
		if (!mode.startsWith("allocate")) node.data.fill(0, Math.min(offset, node.size), Math.min(end, node.size));
		return { position: this.#touched(node) };
	}

	async copyRange(
		source: HandleId,
		sourceOffset: number,
		target: HandleId,
		targetOffset: number,
		lengthBytes: number,
	): Promise<{ readonly copied: number; readonly attributes: Attributes }> {
		await this.#enter("copyRange", `${sourceOffset} ${targetOffset} ${lengthBytes}`);
		const [from, to] = [this.#opened(source), this.#opened(target)];
		const bytes = from.data.slice(Math.min(sourceOffset, from.size), Math.min(sourceOffset + lengthBytes, from.size));
		if (targetOffset + bytes.length > to.size) this.#resize(to, targetOffset + bytes.length);
		to.data.set(bytes, targetOffset);
		return { copied: bytes.length, attributes: this.#attributes(to) };
	}

	async seek(handle: HandleId, offset: number, what: "data" | "hole"): Promise<number> {
		await this.#enter("seek", `${offset} ${what}`);
		const { size } = this.#opened(handle);
		if (offset >= size) throw fail("ENXIO", `nothing behind ${offset}`);
		return what === "data" ? offset : size;
	}

	async flush(handle: HandleId): Promise<void> {
		await this.#enter("flush");
		this.#opened(handle);
	}

	async fsync(handle: HandleId, dataOnly: boolean): Promise<void> {
		await this.#enter("fsync", String(dataOnly));
		this.#opened(handle);
	}

	async close(handle: HandleId): Promise<void> {
		await this.#enter("close");
		const node = this.#opened(handle);
		this.locks.dropHandle(node.ino, handle);
		this.open_.delete(handle);
		this.#drop(node);
	}

	async durable(position: number): Promise<void> {
		await this.#enter("durable", String(position));
	}

	async pastCalls(): Promise<readonly []> {
		return [];
	}

	async syncAll(): Promise<void> {
		await this.#enter("syncAll");
	}

	async space(): Promise<VolumeSpace> {
		await this.#enter("space");
		return { capacityBytes: 1 << 30, freeBytes: 1 << 29, inodes: 1000, freeInodes: 900, maximumNameBytes: 255 };
	}
}
