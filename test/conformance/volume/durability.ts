/** What survives: a clean end everything, a kill everything acknowledged, a power cut everything made durable; and nothing comes back as garbage. */
import assert from "node:assert/strict";
import type { NodeRef } from "../../../src/volume/interface.ts";
import { alone, type Case, type Check, type MakeVolumeHarness, pattern, rejects, root, sameBytes, text } from "./support.ts";

export function durabilityTests(name: string, makeHarness: MakeVolumeHarness): void {
	alone(`${name}: survival`, makeHarness, (check) => {
		wholeTreeTests(check);
		killTests(check);
		powerCutTests(check);
		orphanTests(check);
	});
}

// ── a tree of everything ─────────────────────────────────────────────────────────────────────────────────────────

const contents: readonly [string, number][] = [
	["empty", 0],
	["tiny", 700],
	["inline", 2048],
	["small", 5000],
	["medium", 200_000],
	["large", 3_000_000],
];

async function plant(c: Case): Promise<void> {
	const inner = await c.mkdir("inner");
	for (const [name, size] of contents) await c.put(name, pattern(size, size), inner);
	await c.volume.makeSymlink(root, inner, "link \xff", "../target");
	await c.volume.makeNode(root, inner, "fifo", "fifo", 0o640, 0);
	await c.volume.makeNode(root, inner, "device", "block", 0o660, 0x0801);
	const small = c.node(await c.lookup("small", inner));
	await c.volume.link(root, small, c.dir, "second name");
	await c.volume.setXattr(root, small, "user.a", pattern(60, 5), "any");
	await c.volume.setAttributes(root, small, { mode: 0o4751, uid: 12, gid: 34, mtime: { seconds: 99, nanoseconds: 7 } });
	await c.volume.rename(root, inner, "medium", inner, "moved", 0);
	await c.volume.setAttributes(root, c.node(await c.lookup("large", inner)), { size: 2_500_000 });
	await c.put("gone", pattern(10_000, 1));
	await c.volume.unlink(root, c.dir, "gone");
}

/** Everything that can be seen of a tree, as text. */
async function portrait(c: Case, node: NodeRef, path = ""): Promise<string[]> {
	const lines: string[] = [];
	for (const name of (await c.names(node)).sort()) {
		const attributes = await c.lookup(name, node);
		const { type, mode, nlink, uid, gid, rdev, size, mtime, ctime, ino } = attributes;
		const shownSize = type === "directory" ? 0 : size;
		lines.push(`${path}/${name} ${JSON.stringify({ ino, type, mode, nlink, uid, gid, rdev, size: shownSize, mtime, ctime })}`);
		const child = c.node(attributes);
		for (const xattr of await c.volume.listXattrs(root, child)) {
			lines.push(`${path}/${name}#${xattr} ${Buffer.from(await c.volume.getXattr(root, child, xattr)).toString("base64")}`);
		}
		if (type === "symlink") lines.push(`${path}/${name} -> ${await c.volume.readSymlink(root, child)}`);
		if (type === "directory") lines.push(...(await portrait(c, child, `${path}/${name}`)));
	}
	return lines;
}

async function checkPlanted(c: Case, before: readonly string[], when: string): Promise<void> {
	assert.deepEqual(await portrait(c, c.dir), before, when);
	const inner = c.node(await c.lookup("inner"));
	for (const [name, size] of contents) {
		const expected = pattern(size, size).subarray(0, name === "large" ? 2_500_000 : size);
		sameBytes(await c.get(name === "medium" ? "moved" : name, inner), expected, `${name} ${when}`);
	}
	sameBytes(await c.get("second name"), pattern(5000, 5000), `the second name ${when}`);
}

function wholeTreeTests(check: Check): void {
	check("a clean end keeps everything, time after time", async (c) => {
		await plant(c);
		const before = await portrait(c, c.dir);
		for (let i = 0; i < 3; i++) {
			await c.harness.reopen();
			await checkPlanted(c, before, `after reopening ${i}`);
		}
	});

	check("a kill keeps everything acknowledged, time after time", async (c) => {
		await plant(c);
		const before = await portrait(c, c.dir);
		for (let i = 0; i < 3; i++) {
			await c.harness.crash();
			await checkPlanted(c, before, `after kill ${i}`);
		}
	});

	check("after syncAll a power cut keeps everything, time after time", async (c) => {
		await plant(c);
		await c.volume.syncAll();
		const before = await portrait(c, c.dir);
		for (let i = 0; i < 3; i++) {
			await c.harness.powerCut();
			await checkPlanted(c, before, `after power cut ${i}`);
		}
	});

	check("a kill, then a power cut: what the kill left in memory is durable once the volume serves again and is synced", async (c) => {
		await plant(c);
		const before = await portrait(c, c.dir);
		await c.harness.crash();
		await c.volume.syncAll();
		await c.harness.powerCut();
		await checkPlanted(c, before, "after both");
	});

	check("a volume that was used and left clean goes on numbering: no inode number twice", async (c) => {
		const seen = new Set<number>();
		for (const end of ["reopen", "crash", "powerCut", "crash", "reopen"] as const) {
			for (let i = 0; i < 20; i++) {
				const { attributes, position } = await c.volume.makeNode(root, c.dir, `${end}${seen.size}`, "file", 0o644, 0);
				assert.ok(!seen.has(attributes.ino), `inode ${attributes.ino} again`);
				seen.add(attributes.ino);
				await c.volume.durable(position);
			}
			await c.harness[end]();
		}
		assert.equal((await c.names()).length, 100);
	});
}

// ── kill ─────────────────────────────────────────────────────────────────────────────────────────────────────────

function killTests(check: Check): void {
	check("writes of an open file that no one synced survive a kill, also overwrites of sealed bytes", async (c) => {
		const node = await c.put("f", pattern(500_000, 1));
		await c.volume.syncAll();
		const handle = await c.openNode(node);
		const model = pattern(500_000, 1).slice();
		for (let i = 0; i < 40; i++) {
			const offset = (i * 12_347) % 490_000;
			model.set(pattern(3000, i), offset);
			await c.volume.write(handle, offset, pattern(3000, i));
		}
		await c.harness.crash();
		sameBytes(await c.get("f"), model, "after the kill");
		await c.harness.crash();
		sameBytes(await c.get("f"), model, "after the second kill");
		await c.volume.syncAll();
		sameBytes(await c.get("f"), model, "sealed");
	});

	check("a truncation survives a kill: what it cut off does not come back", async (c) => {
		for (const [name, size, cut] of [
			["tiny", 1000, 300],
			["small", 50_000, 20_000],
			["large", 1_500_000, 5],
		] as const) {
			const node = await c.put(name, pattern(size, 1));
			await c.volume.setAttributes(root, node, { size: cut });
			await c.volume.setAttributes(root, node, { size });
		}
		await c.harness.crash();
		for (const [name, size, cut] of [
			["tiny", 1000, 300],
			["small", 50_000, 20_000],
			["large", 1_500_000, 5],
		] as const) {
			const expected = new Uint8Array(size);
			expected.set(pattern(size, 1).subarray(0, cut));
			sameBytes(await c.get(name), expected, name);
		}
	});

	check("a time that was set after a file was sealed survives a kill, though older writes of others are not sealed yet", async (c) => {
		const [first, second] = [await c.file("first"), await c.file("second")];
		const [keeps, sealed] = [await c.openNode(first), await c.openNode(second)];
		await c.volume.write(keeps, 0, pattern(5000, 1));
		await c.volume.write(sealed, 0, pattern(400_000, 2));
		await c.volume.fsync(sealed, false);
		const past = { seconds: 77, nanoseconds: 7 };
		await c.volume.setAttributes(root, second, { mtime: past });
		await c.harness.crash();
		assert.deepEqual((await c.attributes(second)).mtime, past);
		sameBytes(await c.get("first"), pattern(5000, 1), "first");
		sameBytes(await c.get("second"), pattern(400_000, 2), "second");
	});

	check("fsync and then more writes: a kill keeps both, a power cut the first", async (c) => {
		const handle = await c.openNode(await c.file("f"));
		await c.volume.write(handle, 0, pattern(10_000, 1));
		await c.volume.fsync(handle, false);
		await c.volume.write(handle, 10_000, pattern(10_000, 2));
		await c.harness.crash();
		sameBytes(await c.get("f"), new Uint8Array([...pattern(10_000, 1), ...pattern(10_000, 2)]), "after the kill");
		await c.harness.powerCut();
		const bytes = await c.get("f");
		sameBytes(bytes.subarray(0, 10_000), pattern(10_000, 1), "after the power cut");
	});

	check("a kill amid many operations: each is done or not, acknowledged ones are", async (c) => {
		const acknowledged = new Set<string>();
		const work = Array.from({ length: 200 }, async (_, i) => {
			await c.put(`f${i}`, pattern(1000 + i * 50, i));
			acknowledged.add(`f${i}`);
			await c.volume.rename(root, c.dir, `f${i}`, c.dir, `g${i}`, 0);
			acknowledged.add(`g${i}`);
		});
		void Promise.allSettled(work);
		while (acknowledged.size < 150) await c.harness.sleep(0.05);
		const known = new Set(acknowledged);
		await c.harness.crash();
		const names = new Set(await c.names());
		for (let i = 0; i < 200; i++) {
			const [before, after] = [names.has(`f${i}`), names.has(`g${i}`)];
			assert.ok(!(before && after), `f${i} and g${i}`);
			if (known.has(`g${i}`)) assert.ok(after, `g${i} was acknowledged`);
			if (!known.has(`f${i}`)) continue;
			assert.ok(before || after, `f${i} was acknowledged`);
			sameBytes(await c.get(after ? `g${i}` : `f${i}`), pattern(1000 + i * 50, i), `file ${i}`);
		}
	});

	check("handles end with the process", async (c) => {
		const handle = await c.openNode(await c.put("f", text("abc")));
		await c.harness.crash();
		await rejects("EBADF", c.volume.read(handle, 0, 1));
		await c.volume.unlink(root, c.dir, "f");
		assert.deepEqual(await c.names(), []);
	});
}

// ── power cut ────────────────────────────────────────────────────────────────────────────────────────────────────

function powerCutTests(check: Check): void {
	check("fsync keeps the bytes, the name and the directories above", async (c) => {
		const outer = await c.mkdir("outer");
		const inner = await c.mkdir("inner", outer);
		for (const [name, size] of contents) await c.putDurable(name, pattern(size, size), inner);
		await c.harness.powerCut();
		const found = c.node(await c.lookup("inner", c.node(await c.lookup("outer"))));
		for (const [name, size] of contents) sameBytes(await c.get(name, found), pattern(size, size), name);
	});

	check("fsync after small overwrites, many times in a row", async (c) => {
		const handle = await c.openNode(await c.put("f", pattern(100_000, 0)));
		const model = pattern(100_000, 0).slice();
		for (let i = 0; i < 60; i++) {
			const offset = (i * 7919) % 99_000;
			model.set(pattern(500, i), offset);
			await c.volume.write(handle, offset, pattern(500, i));
			await c.volume.fsync(handle, i % 2 === 0);
		}
		await c.harness.powerCut();
		sameBytes(await c.get("f"), model, "after the power cut");
	});

	check("a synchronous handle's writes are durable when they are acknowledged", async (c) => {
		const { handle } = await c.open("f", "create", { sync: true });
		const model = new Uint8Array(50_000);
		for (let i = 0; i < 25; i++) {
			model.set(pattern(2000, i), i * 2000);
			await c.volume.write(handle, i * 2000, pattern(2000, i));
		}
		await c.harness.powerCut();
		sameBytes(await c.get("f"), model, "after the power cut");
	});

	check("durable(position) keeps names, links, removals and attributes", async (c) => {
		const node = await c.putDurable("a", text("abc"));
		await c.file("removed");
		await c.volume.link(root, node, c.dir, "b");
		await c.volume.unlink(root, c.dir, "removed");
		await c.volume.setAttributes(root, node, { mode: 0o600 });
		await c.volume.setXattr(root, node, "user.a", text("1"), "any");
		const { position } = await c.volume.rename(root, c.dir, "a", c.dir, "z", 0);
		await c.volume.durable(position);
		await c.harness.powerCut();
		assert.deepEqual((await c.names()).sort(), ["b", "z"]);
		assert.deepEqual([(await c.lookup("z")).mode, (await c.lookup("z")).nlink], [0o600, 2]);
		assert.deepEqual(await c.volume.getXattr(root, node, "user.a"), text("1"));
	});

	check("a file saved by writing another and renaming it over the old one is one or the other, whole", async (c) => {
		for (const [round, size] of [10, 3000, 60_000, 1_200_000].entries()) {
			const name = `f${round}`;
			await c.putDurable(name, pattern(size, 1));
			await c.put(`${name}.new`, pattern(size + 5, 2));
			await c.volume.rename(root, c.dir, `${name}.new`, c.dir, name, 0);
			await c.harness.powerCut();
			const bytes = await c.get(name);
			if (bytes.length === size) sameBytes(bytes, pattern(size, 1), "the old one");
			else sameBytes(bytes, pattern(size + 5, 2), "the new one");
		}
	});

	check("bytes that were not synced are old, new or a hole, never another's", async (c) => {
		for (let round = 0; round < 4; round++) {
			const size = 200_000;
			const node = await c.putDurable(`f${round}`, new Uint8Array(size).fill(1));
			const handle = await c.openNode(node);
			for (let at = 0; at < 2 * size; at += 10_000) await c.volume.write(handle, at, new Uint8Array(10_000).fill(2));
			await c.put(`other${round}`, new Uint8Array(300_000).fill(9));
			await c.harness.sleep(round * 900);
			await c.harness.powerCut();
			const bytes = await c.get(`f${round}`);
			assert.ok(bytes.length >= size, `${bytes.length} bytes: shorter than what was synced`);
			assert.ok(
				bytes.subarray(0, size).every((byte) => byte === 1 || byte === 2),
				"synced part",
			);
			assert.ok(
				bytes.subarray(size).every((byte) => byte === 0 || byte === 2),
				"new part",
			);
		}
	});

	check("a truncation that was synced stays, whatever was cut off before it reached the disks", async (c) => {
		const node = await c.put("f", pattern(300_000, 1));
		const handle = await c.openNode(node);
		await c.volume.setAttributes(root, node, { size: 1000 });
		await c.volume.setAttributes(root, node, { size: 400_000 });
		await c.volume.fsync(handle, false);
		await c.harness.powerCut();
		const expected = new Uint8Array(400_000);
		expected.set(pattern(1000, 1));
		sameBytes(await c.get("f"), expected, "after the power cut");
	});
}

// ── orphans ──────────────────────────────────────────────────────────────────────────────────────────────────────

function orphanTests(check: Check): void {
	for (const end of ["reopen", "crash", "powerCut"] as const) {
		check(`open files without a name are gone after ${end}, with their space`, async (c) => {
			await c.putDurable("stays", pattern(100_000, 1));
			await c.volume.syncAll();
			const before = (await c.volume.space()).freeBytes;
			const nodes: NodeRef[] = [];
			for (let i = 0; i < 10; i++) {
				const node = await c.put(`f${i}`, pattern(500_000, i));
				await c.openNode(node);
				await c.volume.setXattr(root, node, "user.a", text("1"), "any");
				nodes.push(node);
			}
			await c.volume.syncAll();
			let position = 0;
			for (let i = 0; i < 10; i++) position = (await c.volume.unlink(root, c.dir, `f${i}`)).position;
			await c.volume.durable(position);
			for (const node of nodes) assert.equal((await c.attributes(node)).nlink, 0);
			await c.harness[end]();
			for (const node of nodes) await c.gone(node);
			for (let waits = 0; (await c.volume.space()).freeBytes < before - 1_000_000; waits++) {
				assert.ok(waits < 200, "their space does not come back");
				await c.harness.sleep(50);
			}
			sameBytes(await c.get("stays"), pattern(100_000, 1), "what stays");
		});
	}
}
