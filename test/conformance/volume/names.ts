/** Names: directories, links, removal, rename, listing. */
import assert from "node:assert/strict";
import type { DirectoryItem, FileType, NodeRef } from "../../../src/volume/interface.ts";
import { type Case, type Check, type MakeVolumeHarness, rejects, root, shared, text, type VolumeSuiteOptions } from "./support.ts";

export function nameTests(name: string, makeHarness: MakeVolumeHarness, options: VolumeSuiteOptions): void {
	shared(`${name}: names`, makeHarness, (check) => {
		lookupTests(check);
		makingTests(check);
		removalTests(check);
		renameTests(check);
		listingTests(check, options.largeDirectory ?? 4_000);
		concurrencyTests(check);
	});
}

// ── finding ──────────────────────────────────────────────────────────────────────────────────────────────────────

function lookupTests(check: Check): void {
	check("the root is a directory and its own parent", async (c) => {
		const attributes = await c.attributes(c.volume.root);
		assert.equal(attributes.type, "directory");
		assert.equal(attributes.ino, c.volume.root.ino);
		for (const dots of [".", ".."]) assert.equal((await c.lookup(dots, c.volume.root)).ino, c.volume.root.ino);
		assert.deepEqual(c.volume.node(c.volume.root.ino), c.volume.root);
	});

	check("lookup finds names, dots, and says what is wrong", async (c) => {
		const inner = await c.mkdir("inner");
		const file = await c.file("file", inner);
		assert.equal((await c.lookup("file", inner)).ino, file.ino);
		assert.equal((await c.lookup(".", inner)).ino, inner.ino);
		assert.equal((await c.lookup("..", inner)).ino, c.dir.ino);
		await rejects("ENOENT", c.lookup("absent"));
		await rejects("ENOENT", c.lookup(""));
		await rejects("ENOTDIR", c.lookup("x", file));
		await rejects("ENAMETOOLONG", c.lookup("x".repeat(256)));
		for (const name of ["a/b", "/", "a\0"]) await rejects("EINVAL", c.lookup(name));
	});

	check("a node that never was, of another volume or of a snapshot that does not exist, is ESTALE", async (c) => {
		const never = c.volume.node(2 ** 50 + 12345);
		await rejects("ESTALE", c.attributes(never));
		await rejects("ESTALE", c.lookup("x", never));
		await rejects("ESTALE", c.volume.makeDirectory(root, never, "x", 0o755));
		await rejects("ESTALE", c.openNode(never));
		await rejects("ESTALE", c.attributes({ ...c.dir, volume: "another" }));
		await rejects("ESTALE", c.attributes({ ...c.dir, snapshot: 77 }));
	});

	check("names are any bytes but / and NUL", async (c) => {
		const names = ["x".repeat(255), " ", "\n", "\x01\x7f", "\xff\xfe\x80", "...", "-rf", "a\\b", "Ä", "ä", "A", "a"];
		const inos = new Map<string, number>();
		for (const name of names) inos.set(name, (await c.file(name)).ino);
		assert.equal(new Set(inos.values()).size, names.length);
		for (const name of names) assert.equal((await c.lookup(name)).ino, inos.get(name));
		assert.deepEqual((await c.names()).sort(), [...names].sort());
	});
}

// ── making ───────────────────────────────────────────────────────────────────────────────────────────────────────

function makingTests(check: Check): void {
	check("makeDirectory: attributes of the new one and of its parent around the change", async (c) => {
		const made = await c.volume.makeDirectory(root, c.dir, "d", 0o2750);
		assert.deepEqual([made.attributes.type, made.attributes.mode, made.attributes.nlink], ["directory", 0o2750, 2]);
		assert.deepEqual([made.parentBefore.ino, made.parentBefore.nlink, made.parentAfter.nlink], [c.dir.ino, 2, 3]);
		assert.deepEqual(await c.attributes(c.dir), made.parentAfter);
		assert.ok(Number.isSafeInteger(made.position) && made.position > 0);
	});

	check("makeNode makes every type but directories and symlinks", async (c) => {
		const types: readonly [FileType, number][] = [
			["file", 0],
			["fifo", 0],
			["socket", 0],
			["character", 0x0103],
			["block", 0x0801],
		];
		for (const [type, rdev] of types) {
			const { attributes } = await c.volume.makeNode(root, c.dir, type, type, 0o6751, rdev);
			assert.deepEqual([attributes.type, attributes.mode, attributes.nlink, attributes.rdev, attributes.size], [type, 0o6751, 1, rdev, 0]);
			assert.deepEqual(await c.lookup(type), attributes);
		}
		await rejects("EINVAL", c.volume.makeNode(root, c.dir, "d", "directory", 0o755, 0));
		await rejects("EINVAL", c.volume.makeNode(root, c.dir, "s", "symlink", 0o777, 0));
	});

	check("symlinks keep any target of 1 to 4,095 bytes", async (c) => {
		for (const target of ["x", "../a b", "\xff/\xfe", "y".repeat(4095)]) {
			const { attributes } = await c.volume.makeSymlink(root, c.dir, `to ${target.length}`, target);
			assert.deepEqual([attributes.type, attributes.size, attributes.mode], ["symlink", target.length, 0o777]);
			assert.equal(await c.volume.readSymlink(root, c.node(attributes)), target);
		}
		await rejects("ENAMETOOLONG", c.volume.makeSymlink(root, c.dir, "s", "y".repeat(4096)));
		await rejects("ENOENT", c.volume.makeSymlink(root, c.dir, "s", ""));
		await rejects("EINVAL", c.volume.readSymlink(root, c.dir));
		await rejects("EINVAL", c.volume.readSymlink(root, await c.file("f")));
	});

	check("making refuses names that are taken, too long or impossible, and parents that are no directories", async (c) => {
		const file = await c.file("file");
		await c.mkdir("dir");
		const makers: ((parent: NodeRef, name: string) => Promise<unknown>)[] = [
			(parent, name) => c.volume.makeDirectory(root, parent, name, 0o755),
			(parent, name) => c.volume.makeNode(root, parent, name, "file", 0o644, 0),
			(parent, name) => c.volume.makeSymlink(root, parent, name, "t"),
			(parent, name) => c.volume.link(root, file, parent, name),
		];
		for (const make of makers) {
			for (const name of ["file", "dir", ".", ".."]) await rejects("EEXIST", make(c.dir, name), name);
			await rejects("ENOENT", make(c.dir, ""));
			await rejects("ENAMETOOLONG", make(c.dir, "x".repeat(256)));
			await rejects("EINVAL", make(c.dir, "a/b"));
			await rejects("ENOTDIR", make(file, "x"));
		}
		assert.deepEqual(await c.names(), ["file", "dir"]);
	});

	check("a removed directory takes no names", async (c) => {
		const removed = await c.mkdir("removed");
		const handle = await c.openNode(removed, { access: { read: true, write: false } });
		const file = await c.file("file");
		await c.volume.removeDirectory(root, c.dir, "removed");
		await rejects("ENOENT", c.volume.makeDirectory(root, removed, "x", 0o755));
		await rejects("ENOENT", c.volume.makeNode(root, removed, "x", "file", 0o644, 0));
		await rejects("ENOENT", c.volume.link(root, file, removed, "x"));
		await rejects("ENOENT", c.volume.rename(root, c.dir, "file", removed, "x", 0));
		await rejects("ENOENT", c.open("x", "open-or-create", {}, removed));
		await rejects("ENOENT", c.lookup("x", removed));
		await c.volume.close(handle);
		await c.gone(removed);
	});

	check("hard links share one inode", async (c) => {
		const node = await c.put("a", text("shared"));
		const linked = await c.volume.link(root, node, c.dir, "b");
		assert.deepEqual([linked.attributes.ino, linked.attributes.nlink], [node.ino, 2]);
		assert.deepEqual(await c.get("b"), text("shared"));
		const after = await c.volume.unlink(root, c.dir, "a");
		assert.deepEqual([after.attributes.ino, after.attributes.nlink], [node.ino, 1]);
		assert.deepEqual(await c.get("b"), text("shared"));
		await rejects("EPERM", c.volume.link(root, await c.mkdir("d"), c.dir, "x"));
	});
}

// ── removing ─────────────────────────────────────────────────────────────────────────────────────────────────────

function removalTests(check: Check): void {
	check("unlink and removeDirectory remove, each its own kind", async (c) => {
		const directory = await c.mkdir("d");
		const file = await c.file("f", directory);
		await rejects("EISDIR", c.volume.unlink(root, c.dir, "d"));
		await rejects("ENOTDIR", c.volume.removeDirectory(root, directory, "f"));
		await rejects("ENOTEMPTY", c.volume.removeDirectory(root, c.dir, "d"));
		await rejects("ENOENT", c.volume.unlink(root, c.dir, "x"));
		await rejects("ENOENT", c.volume.removeDirectory(root, c.dir, "x"));
		await rejects("ENOTDIR", c.volume.unlink(root, file, "x"));
		await rejects("EINVAL", c.volume.removeDirectory(root, directory, "."));
		await rejects("ENOTEMPTY", c.volume.removeDirectory(root, directory, ".."));
		const removed = await c.volume.unlink(root, directory, "f");
		assert.deepEqual([removed.attributes.ino, removed.attributes.nlink], [file.ino, 0]);
		const gone = await c.volume.removeDirectory(root, c.dir, "d");
		assert.deepEqual([gone.parentBefore.nlink, gone.parentAfter.nlink], [3, 2]);
		assert.deepEqual(await c.names(), []);
		await c.gone(file);
		await c.gone(directory);
	});

	check("a name can be used again, by another inode", async (c) => {
		const first = await c.put("f", text("one"));
		await c.volume.unlink(root, c.dir, "f");
		const second = await c.put("f", text("two"));
		assert.notEqual(second.ino, first.ino);
		assert.deepEqual(await c.get("f"), text("two"));
	});
}

// ── rename ───────────────────────────────────────────────────────────────────────────────────────────────────────

function renameTests(check: Check): void {
	const rename = (c: Case, from: string, to: string, flags = 0, parent = c.dir, newParent = c.dir): Promise<unknown> =>
		c.volume.rename(root, parent, from, newParent, to, flags);

	check("rename moves files and directories, and replaces", async (c) => {
		const [from, to] = [await c.mkdir("from"), await c.mkdir("to")];
		const file = await c.put("f", text("moved"), from);
		const directory = await c.mkdir("d", from);
		await rename(c, "f", "g", 0, from, to);
		await rename(c, "d", "e", 0, from, to);
		assert.deepEqual([await c.names(from), await c.names(to)], [[], ["g", "e"]]);
		assert.equal((await c.lookup("g", to)).ino, file.ino);
		assert.equal((await c.lookup("..", directory)).ino, to.ino);
		assert.deepEqual([(await c.attributes(from)).nlink, (await c.attributes(to)).nlink], [2, 3]);
		const old = await c.put("old", text("old"), to);
		await rename(c, "g", "old", 0, to, to);
		assert.deepEqual(await c.get("old", to), text("moved"));
		await c.gone(old);
		const empty = await c.mkdir("empty", to);
		await rename(c, "e", "empty", 0, to, to);
		assert.equal((await c.lookup("empty", to)).ino, directory.ino);
		await c.gone(empty);
	});

	check("rename refuses what POSIX refuses", async (c) => {
		const a = await c.mkdir("a");
		const b = await c.mkdir("b", a);
		await c.file("f");
		await c.file("x", a);
		await rejects("EINVAL", rename(c, "a", "x", 0, c.dir, b));
		await rejects("EINVAL", rename(c, "a", "x", 0, c.dir, a));
		await rejects("EISDIR", rename(c, "f", "a"));
		await rejects("ENOTDIR", rename(c, "a", "f"));
		await c.mkdir("e");
		await rejects("ENOTEMPTY", rename(c, "e", "a"));
		await rejects("ENOENT", rename(c, "absent", "y"));
		await rejects("EEXIST", rename(c, "f", "a", 1));
		await rejects("ENOENT", rename(c, "f", "absent", 2));
		for (const flags of [3, 6, 7, 8, -1]) await rejects("EINVAL", rename(c, "f", "y", flags), `flags ${flags}`);
		await rejects("EBUSY", rename(c, ".", "y"));
		await rejects("EBUSY", rename(c, "f", ".."));
		await rejects("ENAMETOOLONG", rename(c, "f", "x".repeat(256)));
		assert.deepEqual(await c.names(), ["a", "f", "e"]);
	});

	check("NOREPLACE, EXCHANGE, and two names of one file", async (c) => {
		const [a, b] = [await c.mkdir("a"), await c.mkdir("b")];
		const file = await c.put("f", text("f"), a);
		const directory = await c.mkdir("d", b);
		await rename(c, "f", "g", 1, a, a);
		await rename(c, "g", "d", 2, a, b);
		assert.equal((await c.lookup("g", a)).ino, directory.ino);
		assert.equal((await c.lookup("d", b)).ino, file.ino);
		assert.equal((await c.lookup("..", directory)).ino, a.ino);
		assert.deepEqual([(await c.attributes(a)).nlink, (await c.attributes(b)).nlink], [3, 2]);
		await c.volume.link(root, file, b, "same");
		await rename(c, "d", "same", 0, b, b);
		assert.deepEqual(await c.names(b), ["d", "same"]);
	});
}

// ── listing ──────────────────────────────────────────────────────────────────────────────────────────────────────

async function listAll(
	c: Case,
	node: NodeRef,
	batch: number,
	between: (count: number) => Promise<void> = async () => {},
): Promise<DirectoryItem[]> {
	const all: DirectoryItem[] = [];
	for (let after = 0; ; ) {
		const items = await c.volume.readDirectory(root, node, after, batch, false);
		assert.ok(items.length <= batch, `${items.length} entries for a limit of ${batch}`);
		const last = items.at(-1);
		if (last === undefined) return all;
		after = last.cookie;
		all.push(...items);
		await between(all.length);
	}
}

function listingTests(check: Check, large: number): void {
	check("a listing has dots first, types, inode numbers, and attributes when asked", async (c) => {
		const file = await c.put("f", text("12345"));
		const directory = await c.mkdir("d");
		await c.volume.makeSymlink(root, c.dir, "s", "t");
		const items = await c.volume.readDirectory(root, c.dir, 0, 100, true);
		assert.deepEqual(
			items.map(({ name, type }) => [name, type]),
			[
				[".", "directory"],
				["..", "directory"],
				["f", "file"],
				["d", "directory"],
				["s", "symlink"],
			],
		);
		assert.deepEqual(items.map(({ ino }) => ino).slice(0, 4), [c.dir.ino, c.volume.root.ino, file.ino, directory.ino]);
		for (const { ino, attributes } of items.slice(2)) assert.deepEqual(attributes, await c.attributes(c.volume.node(ino)));
		assert.equal((await c.volume.readDirectory(root, c.dir, 0, 100, false))[2]?.attributes, undefined);
		await rejects("ENOTDIR", c.volume.readDirectory(root, file, 0, 10, false));
	});

	check("every batch size gives the same listing, and one can go on anywhere", async (c) => {
		for (let i = 0; i < 23; i++) await c.file(`f${i}`);
		const whole = await listAll(c, c.dir, 1000);
		assert.equal(whole.length, 25);
		for (const batch of [1, 2, 3, 7, 24, 25]) assert.deepEqual(await listAll(c, c.dir, batch), whole, `batches of ${batch}`);
		for (let i = 0; i < whole.length; i++) {
			const rest = await c.volume.readDirectory(root, c.dir, whole[i]?.cookie ?? 0, 1000, false);
			assert.deepEqual(rest, whole.slice(i + 1));
		}
	});

	check("a listing is stable while the directory changes", async (c) => {
		for (let i = 0; i < 300; i++) await c.file(`keep${i}`);
		for (let i = 0; i < 300; i++) await c.file(`drop${i}`);
		let step = 0;
		const seen = await listAll(c, c.dir, 20, async () => {
			const i = step++;
			for (let k = 0; k < 10 && i * 10 + k < 300; k++) await c.volume.unlink(root, c.dir, `drop${i * 10 + k}`);
			if (i < 30) await c.file(`new${i}`);
			if (i < 30) await c.volume.rename(root, c.dir, `keep${i}`, c.dir, `kept${i}`, 0);
			if (i < 30) await c.put(`replace${i}`, text("x"));
			if (i < 30) await c.volume.rename(root, c.dir, `replace${i}`, c.dir, `keep${299 - i}`, 0);
		});
		const names = seen.map(({ name }) => name);
		assert.equal(new Set(names).size, names.length, "no name twice");
		for (let i = 0; i < 300; i++) assert.ok(names.includes(`keep${i}`) || names.includes(`kept${i}`), `keep${i} was left out`);
		assert.ok(names.length < 900, "the listing comes to an end");
	});

	check(`a directory of ${large} entries`, async (c) => {
		for (let i = 0; i < large; i += 100) {
			await Promise.all(Array.from({ length: Math.min(100, large - i) }, (_, k) => c.file(`entry-${i + k}`)));
		}
		const all = await listAll(c, c.dir, 1000);
		assert.equal(all.length, large + 2);
		assert.equal(new Set(all.map(({ name }) => name)).size, large + 2);
		assert.equal((await c.lookup(`entry-${large - 1}`)).type, "file");
		await rejects("ENOTEMPTY", c.volume.removeDirectory(root, c.volume.root, (await nameOf(c, c.dir)) ?? ""));
		let removed = 0;
		const seen = new Set<string>();
		for (const { name } of await listAll(c, c.dir, 997, async () => {
			for (let k = 0; k < 50; k++) await c.volume.unlink(root, c.dir, `entry-${removed++}`);
		})) {
			assert.ok(!seen.has(name), `${name} twice`);
			seen.add(name);
		}
		for (let i = removed; i < large; i++) assert.ok(seen.has(`entry-${i}`), `entry-${i} left out`);
	});
}

async function nameOf(c: Case, node: NodeRef): Promise<string | undefined> {
	return (await listAll(c, c.volume.root, 1000)).find(({ ino }) => ino === node.ino)?.name;
}

// ── at once ──────────────────────────────────────────────────────────────────────────────────────────────────────

function concurrencyTests(check: Check): void {
	check("of many who make one name at once, one succeeds", async (c) => {
		const tries = Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? c.mkdir("one") : c.file("one")));
		const results = await Promise.allSettled(tries);
		assert.equal(results.filter(({ status }) => status === "fulfilled").length, 1);
		assert.deepEqual(await c.names(), ["one"]);
	});

	check("many operations at once leave a whole tree", async (c) => {
		const dirs = await Promise.all(Array.from({ length: 8 }, (_, i) => c.mkdir(`d${i}`)));
		const at = (i: number): NodeRef => dirs[i % 8] as NodeRef;
		await Promise.all(Array.from({ length: 400 }, (_, i) => c.file(`f${i}`, at(i))));
		const moves = Array.from({ length: 400 }, (_, i) => c.volume.rename(root, at(i), `f${i}`, at(i + 3), `g${i}`, 0));
		const links = Array.from({ length: 8 }, (_, i) => c.mkdir("inner", at(i)));
		await Promise.all([...moves, ...links]);
		for (let i = 0; i < 8; i++) {
			const expected = Array.from({ length: 400 }, (_, k) => k)
				.filter((k) => (k + 3) % 8 === i)
				.map((k) => `g${k}`);
			assert.deepEqual((await c.names(at(i))).sort(), [...expected, "inner"].sort());
			assert.equal((await c.attributes(at(i))).nlink, 3);
		}
	});

	check("directories that are moved into each other at once never make a ring", async (c) => {
		const [a, b] = [await c.mkdir("a"), await c.mkdir("b")];
		const moves = [c.volume.rename(root, c.dir, "a", b, "a", 0), c.volume.rename(root, c.dir, "b", a, "b", 0)];
		const results = await Promise.allSettled(moves);
		assert.equal(results.filter(({ status }) => status === "fulfilled").length, 1);
		assert.equal((await c.names()).length, 1);
	});
}
