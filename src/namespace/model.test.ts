/**
 * Random operations against a naive tree of objects: results and errors are the same, and after each batch the records hold N1-N6 and show the
 * same tree.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SeededRandom, TestVolume } from "../../test/support/map-records.ts";
import { namespaceFaults } from "../../test/support/namespace-faults.ts";
import { isFsError } from "../base/errors.ts";
import type { FileType, Ino, Inode } from "../records/interface.ts";
import * as verbs from "./verbs.ts";

interface Node {
	ino: Ino;
	readonly type: FileType;
	mode: number;
	uid: number;
	gid: number;
	links: number;
	mtime: number;
	ctime: number;
	readonly target: string;
	readonly children: Map<string, Node>;
	readonly xattrs: Map<string, string>;
	removed: boolean;
}

class Fault extends Error {
	readonly code: string;

	constructor(code: string) {
		super(code);
		this.code = code;
	}
}

/** What POSIX says, as plainly as possible: no numbers, no counts that could be wrong in the same way. */
class NaiveTree {
	readonly root: Node = fresh("directory", 0o755, 0, 0, 0, "");
	now = 0;

	#directory(node: Node): Map<string, Node> {
		if (node.type !== "directory") throw new Fault("ENOTDIR");
		return node.children;
	}

	#living(node: Node): Map<string, Node> {
		const children = this.#directory(node);
		if (node.removed) throw new Fault("ENOENT");
		return children;
	}

	#check(name: string): void {
		if (name === "") throw new Fault("ENOENT");
		if (name.length > 255) throw new Fault("ENAMETOOLONG");
		if (/[/\0]/.test(name)) throw new Fault("EINVAL");
	}

	#touch(...nodes: readonly Node[]): void {
		for (const node of nodes) node.mtime = node.ctime = this.now;
	}

	#free(parent: Node, name: string): Map<string, Node> {
		const children = this.#living(parent);
		if (name === "." || name === "..") throw new Fault("EEXIST");
		this.#check(name);
		if (children.has(name)) throw new Fault("EEXIST");
		return children;
	}

	create(parent: Node, name: string, type: FileType, mode: number, uid: number, gid: number, target: string): Node {
		const children = this.#free(parent, name);
		const node = fresh(type, type === "symlink" ? 0o777 : mode, uid, gid, this.now, target);
		if ((parent.mode & 0o2000) !== 0) {
			node.gid = parent.gid;
			if (type === "directory") node.mode |= 0o2000;
		}
		children.set(name, node);
		this.#touch(parent);
		return node;
	}

	link(node: Node, parent: Node, name: string): void {
		const children = this.#free(parent, name);
		if (node.type === "directory") throw new Fault("EPERM");
		if (node.links === 0) throw new Fault("ENOENT");
		children.set(name, node);
		node.links++;
		node.ctime = this.now;
		this.#touch(parent);
	}

	unlink(parent: Node, name: string): Node {
		const children = this.#directory(parent);
		if (name === "." || name === "..") throw new Fault("EBUSY");
		this.#check(name);
		const node = children.get(name);
		if (node === undefined) throw new Fault("ENOENT");
		if (node.type === "directory") throw new Fault("EISDIR");
		children.delete(name);
		this.#lose(node);
		this.#touch(parent);
		return node;
	}

	#lose(node: Node): void {
		node.links--;
		node.ctime = this.now;
		if (node.type === "directory") node.removed = true;
	}

	rmdir(parent: Node, name: string): Node {
		const children = this.#directory(parent);
		if (name === ".") throw new Fault("EINVAL");
		if (name === "..") throw new Fault("ENOTEMPTY");
		this.#check(name);
		const node = children.get(name);
		if (node === undefined) throw new Fault("ENOENT");
		if (node.type !== "directory") throw new Fault("ENOTDIR");
		if (node.children.size > 0) throw new Fault("ENOTEMPTY");
		children.delete(name);
		this.#lose(node);
		this.#touch(parent);
		return node;
	}

	rename(from: Node, name: string, to: Node, newName: string, flags: number): void {
		const sources = this.#living(from);
		const targets = this.#living(to);
		const dots = (text: string): boolean => text === "." || text === "..";
		if (dots(name) || dots(newName)) throw new Fault(dots(name) || flags !== 1 ? "EBUSY" : "EEXIST");
		this.#check(name);
		this.#check(newName);
		const source = sources.get(name);
		if (source === undefined) throw new Fault("ENOENT");
		const target = targets.get(newName);
		if (flags === 1 && target !== undefined) throw new Fault("EEXIST");
		if (flags === 2 && target === undefined) throw new Fault("ENOENT");
		if (from !== to && contains(source, to)) throw new Fault("EINVAL");
		if (flags === 2 && target !== undefined && from !== to && contains(target, from)) throw new Fault("EINVAL");
		if (target === source) return;
		if (flags === 2 && target !== undefined) {
			targets.set(newName, source);
			sources.set(name, target);
			target.ctime = this.now;
		} else {
			this.#replace(source, target);
			sources.delete(name);
			targets.set(newName, source);
		}
		source.ctime = this.now;
		this.#touch(from, to);
	}

	#replace(source: Node, target: Node | undefined): void {
		if (target === undefined) return;
		if (source.type === "directory" && target.type !== "directory") throw new Fault("ENOTDIR");
		if (source.type !== "directory" && target.type === "directory") throw new Fault("EISDIR");
		if (target.children.size > 0) throw new Fault("ENOTEMPTY");
		this.#lose(target);
	}

	setXattr(node: Node, name: string, value: string, mode: string): void {
		if (mode === "create" && node.xattrs.has(name)) throw new Fault("EEXIST");
		if (mode === "replace" && !node.xattrs.has(name)) throw new Fault("ENODATA");
		node.xattrs.set(name, value);
		node.ctime = this.now;
	}

	removeXattr(node: Node, name: string): void {
		if (!node.xattrs.delete(name)) throw new Fault("ENODATA");
		node.ctime = this.now;
	}

	chown(node: Node, uid: number, gid: number): void {
		node.uid = uid;
		node.gid = gid;
		if (node.type !== "directory") node.mode &= (node.mode & 0o010) !== 0 ? ~0o6000 : ~0o4000;
		node.ctime = this.now;
	}

	chmod(node: Node, mode: number): void {
		if (node.type === "symlink") throw new Fault("ENOTSUP");
		node.mode = mode;
		node.ctime = this.now;
	}
}

function fresh(type: FileType, mode: number, uid: number, gid: number, now: number, target: string): Node {
	return { ino: 0, type, mode, uid, gid, links: 1, mtime: now, ctime: now, target, children: new Map(), xattrs: new Map(), removed: false };
}

function contains(top: Node, node: Node): boolean {
	return top === node || [...top.children.values()].some((child) => contains(child, node));
}

// ── the run ──────────────────────────────────────────────────────────────────────────────────────────────────────

class Run {
	readonly random: SeededRandom;
	readonly volume: TestVolume;
	readonly tree = new NaiveTree();
	/** Everything that ever was, removed nodes too, until it is reaped. */
	readonly nodes: Node[] = [this.tree.root];
	readonly outcomes = new Map<string, number>();

	constructor(seed: number, volume: TestVolume) {
		this.random = new SeededRandom(seed);
		this.volume = volume;
		const root = volume.run((tx, context) => verbs.makeRoot(tx, context, 0, 0));
		this.tree.root.ino = root.ino;
		this.tree.root.mtime = this.tree.root.ctime = volume.seconds;
	}

	#name(): string {
		const { random } = this;
		if (random.chance(0.04)) return random.pick([".", "..", "", "a/b", "n\0", "x".repeat(256), "y".repeat(255)]);
		return random.pick(["a", "b", "c", "d", "e", "\xff"]);
	}

	#node(): Node {
		return this.random.pick(this.nodes);
	}

	/** Mostly a directory that can hold names. */
	#directory(): Node {
		const directories = this.nodes.filter((node) => node.type === "directory" && !node.removed);
		return this.random.chance(0.9) ? this.random.pick(directories) : this.#node();
	}

	/** Mostly a name that is there. */
	#known(parent: Node): string {
		const names = [...parent.children.keys()];
		return names.length > 0 && this.random.chance(0.8) ? this.random.pick(names) : this.#name();
	}

	step(): void {
		const { random } = this;
		const choice = random.below(100);
		if (choice < 30) this.#create();
		else if (choice < 38) this.#link();
		else if (choice < 50) this.#remove("unlink");
		else if (choice < 58) this.#remove("rmdir");
		else if (choice < 85) this.#rename();
		else if (choice < 92) this.#xattr();
		else if (choice < 97) this.#setAttributes();
		else this.#reap();
	}

	/** Runs both; they agree on success or on the code. */
	#both(what: string, real: () => unknown, naive: () => unknown): boolean {
		const before = this.volume.store.values.size;
		this.volume.seconds++;
		this.tree.now = this.volume.seconds;
		const expected = outcome(naive);
		const actual = outcome(real);
		assert.equal(actual, expected, what);
		if (expected !== "ok") assert.equal(this.volume.store.values.size, before, `${what} failed and changed something`);
		const key = `${what.split(" ")[0]} ${expected}`;
		this.outcomes.set(key, (this.outcomes.get(key) ?? 0) + 1);
		return expected === "ok";
	}

	#run<T>(fn: Parameters<typeof this.volume.store.run<T>>[0]): T {
		return this.volume.store.run(fn);
	}

	#create(): void {
		const { random, tree } = this;
		const parent = this.#directory();
		const name = this.#name();
		const type = random.pick<FileType>(["file", "file", "directory", "directory", "symlink", "fifo"]);
		const [mode, uid, gid] = [random.pick([0o644, 0o2755, 0o6755, 0o1777]), random.below(3), random.below(3)];
		let ino = 0;
		let made: Node | undefined;
		const node = { type, mode, uid, gid, target: "t" };
		this.#both(
			`create ${type} ${JSON.stringify(name)} in ${parent.ino}`,
			() => (ino = this.#run((tx) => verbs.create(tx, this.volume.context, parent.ino, name, node).inode.ino)),
			() => (made = tree.create(parent, name, type, mode, uid, gid, type === "symlink" ? "t" : "")),
		);
		if (made === undefined) return;
		made.ino = ino;
		this.nodes.push(made);
	}

	#link(): void {
		const [node, parent, name] = [this.#node(), this.#directory(), this.#name()];
		this.#both(
			`link ${node.ino} as ${JSON.stringify(name)} in ${parent.ino}`,
			() => this.#run((tx) => verbs.link(tx, this.volume.context, node.ino, parent.ino, name)),
			() => this.tree.link(node, parent, name),
		);
	}

	#remove(verb: "unlink" | "rmdir"): void {
		const parent = this.#directory();
		const name = this.#known(parent);
		this.#both(
			`${verb} ${JSON.stringify(name)} in ${parent.ino}`,
			() => this.#run((tx) => (verb === "unlink" ? verbs.unlink : verbs.rmdir)(tx, this.volume.context, parent.ino, name)),
			() => this.tree[verb](parent, name),
		);
	}

	#rename(): void {
		const { random } = this;
		const from = this.#directory();
		const to = random.chance(0.4) ? from : this.#directory();
		const name = this.#known(from);
		const newName = random.chance(0.5) ? this.#known(to) : this.#name();
		const flags = random.pick([0, 0, 0, 1, 2, 2]);
		this.#both(
			`rename ${JSON.stringify(name)} of ${from.ino} to ${JSON.stringify(newName)} of ${to.ino}, flags ${flags}`,
			() => this.#run((tx) => verbs.rename(tx, this.volume.context, from.ino, name, to.ino, newName, flags)),
			() => this.tree.rename(from, name, to, newName, flags),
		);
	}

	#xattr(): void {
		const node = this.#node();
		const name = this.random.pick(["user.a", "user.b", "trusted.c"]);
		const mode = this.random.pick(["any", "create", "replace", "remove"] as const);
		const value = String.fromCharCode(this.random.below(256));
		const bytes = new Uint8Array([value.charCodeAt(0)]);
		this.#both(
			`xattr ${mode} ${name} of ${node.ino}`,
			() =>
				this.#run((tx) =>
					mode === "remove"
						? verbs.removeXattr(tx, this.volume.context, node.ino, name)
						: verbs.setXattr(tx, this.volume.context, node.ino, name, bytes, mode),
				),
			() => (mode === "remove" ? this.tree.removeXattr(node, name) : this.tree.setXattr(node, name, value, mode)),
		);
	}

	#setAttributes(): void {
		const { random, tree } = this;
		const node = this.#node();
		const [uid, gid, mode] = [random.below(3), random.below(3), random.pick([0o600, 0o6755, 0o2745, 0o1777])];
		const chown = random.chance(0.5);
		this.#both(
			`${chown ? "chown" : "chmod"} ${node.ino}`,
			() => this.#run((tx) => verbs.setAttributes(tx, this.volume.context, node.ino, chown ? { uid, gid } : { mode })),
			() => (chown ? tree.chown(node, uid, gid) : tree.chmod(node, mode)),
		);
	}

	/** What has no name any more is taken apart and forgotten, as the volume does when it is closed. */
	#reap(): void {
		const at = this.nodes.findIndex((node) => node.links === 0 || node.removed);
		if (at < 0) return;
		const [node] = this.nodes.splice(at, 1) as [Node];
		while (!this.#run((tx) => verbs.reapStep(tx, node.ino, 2)));
		this.#run((tx) => verbs.forget(tx, node.ino));
		assert.equal(
			outcome(() => this.#run((tx) => verbs.inode(tx, node.ino))),
			"ESTALE",
		);
	}

	/** Records hold their invariants and show the naive tree, nothing more. */
	check(): void {
		assert.deepEqual(
			namespaceFaults((fn) => this.volume.store.run(fn)),
			[],
		);
		for (const node of this.nodes) this.#compare(node);
		assert.equal([...this.volume.store.values.keys()].filter((key) => key.startsWith("i")).length, this.nodes.length);
	}

	#compare(node: Node): void {
		const inode = this.#run((tx) => verbs.inode(tx, node.ino));
		const shown = {
			type: inode.type,
			mode: inode.mode,
			uid: inode.uid,
			gid: inode.gid,
			mtime: inode.mtime.seconds,
			ctime: inode.ctime.seconds,
			nlink: inode.nlink,
			target: inode.inline === undefined ? "" : String.fromCharCode(...inode.inline),
		};
		const { type, mode, uid, gid, mtime, ctime, target } = node;
		assert.deepEqual(shown, { type, mode, uid, gid, mtime, ctime, nlink: linksOf(node), target }, `inode ${node.ino}`);
		const xattrs = this.#run((tx) =>
			verbs.listXattrs(tx, node.ino).map((name) => [name, String.fromCharCode(...verbs.getXattr(tx, node.ino, name))]),
		);
		assert.deepEqual(xattrs, [...node.xattrs].sort());
		if (type === "directory") this.#compareEntries(node, inode);
	}

	#compareEntries(node: Node, inode: Inode): void {
		const entries: [string, Ino][] = [];
		for (let after = 0; ; ) {
			const some = this.#run((tx) => verbs.readdir(tx, inode.ino, after, 3));
			if (some.length === 0) break;
			for (const entry of some) {
				assert.ok(entry.cookie > after, "cookies rise");
				after = entry.cookie;
				entries.push([entry.name, entry.ino]);
			}
		}
		const expected = [...node.children].map(([name, child]) => [name, child.ino]);
		assert.deepEqual(entries.sort(), expected.sort(), `entries of ${node.ino}`);
	}
}

function linksOf(node: Node): number {
	if (node.type !== "directory") return node.links;
	if (node.removed) return 0;
	return 2 + [...node.children.values()].filter((child) => child.type === "directory").length;
}

function outcome(fn: () => unknown): string {
	try {
		fn();
		return "ok";
	} catch (error) {
		if (error instanceof Fault || isFsError(error)) return error.code;
		throw error;
	}
}

for (const seed of [1, 2, 3, 4, 5, 6]) {
	test(`3,000 random operations agree with a naive tree, seed ${seed}`, async () => {
		const run = new Run(seed, await TestVolume.empty());
		for (let step = 0; step < 3000; step++) {
			try {
				if (run.volume.numbers.low) await run.volume.prepare();
				run.step();
				if (step % 150 === 149) run.check();
			} catch (error) {
				throw new Error(`seed ${seed}, step ${step}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
			}
		}
		// A run that never comes to the hard cases proves nothing.
		for (const wanted of [
			"rename ok",
			"rename EINVAL",
			"rename ENOTEMPTY",
			"rename EISDIR",
			"rename ENOTDIR",
			"rename EEXIST",
			"rmdir ok",
			"link EPERM",
		]) {
			assert.ok((run.outcomes.get(wanted) ?? 0) > 0, `seed ${seed} never saw: ${wanted}`);
		}
	});
}
