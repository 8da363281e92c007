/** Attributes, times, extended attributes, space. */
import assert from "node:assert/strict";
import { compareTime } from "../../../src/base/time.ts";
import type { Attributes } from "../../../src/volume/interface.ts";
import { type Check, type MakeVolumeHarness, pattern, rejects, root, shared, text } from "./support.ts";

export function attributeTests(name: string, makeHarness: MakeVolumeHarness): void {
	shared(`${name}: attributes`, makeHarness, (check) => {
		settingTests(check);
		timeTests(check);
		xattrTests(check);
		spaceTests(check);
	});
}

const past = { seconds: 12_345, nanoseconds: 678_901_234 };
const beforeEpoch = { seconds: -5, nanoseconds: 1 };

function settingTests(check: Check): void {
	check("mode, owner, group, times: set, told before and after, and kept", async (c) => {
		const node = await c.file("f");
		const before = await c.attributes(node);
		const set = await c.volume.setAttributes(root, node, { mode: 0o4711, uid: 70_000, gid: 80_000, atime: past, mtime: beforeEpoch });
		assert.deepEqual(set.before, before);
		const { mode, uid, gid, atime, mtime } = set.after;
		assert.deepEqual({ mode, uid, gid, atime, mtime }, { mode: 0o4711, uid: 70_000, gid: 80_000, atime: past, mtime: beforeEpoch });
		assert.deepEqual(await c.attributes(node), set.after);
		const now = await c.volume.setAttributes(root, node, { atime: "now", mtime: "now" });
		assert.ok(compareTime(now.after.mtime, before.btime) >= 0);
		assert.deepEqual(now.after.mtime, now.after.atime);
	});

	check("an owner change takes the set-id bits of a file", async (c) => {
		const node = await c.file("f", c.dir, 0o6755);
		assert.equal((await c.volume.setAttributes(root, node, { uid: 5 })).after.mode, 0o755);
		const directory = await c.mkdir("d", c.dir, 0o2775);
		assert.equal((await c.volume.setAttributes(root, directory, { gid: 5 })).after.mode, 0o2775);
	});

	check("set-gid directories hand down their group", async (c) => {
		const directory = await c.mkdir("d");
		await c.volume.setAttributes(root, directory, { gid: 4242, mode: 0o2775 });
		assert.equal((await c.attributes(await c.file("f", directory))).gid, 4242);
		const inner = await c.attributes(await c.mkdir("e", directory, 0o755));
		assert.deepEqual([inner.gid, inner.mode], [4242, 0o2755]);
		const opened = await c.open("g", "create", {}, directory);
		assert.equal(opened.attributes.gid, 4242);
		await c.volume.close(opened.handle);
	});

	check("a size only files have", async (c) => {
		await rejects("EISDIR", c.volume.setAttributes(root, c.dir, { size: 0 }));
		const fifo = await c.volume.makeNode(root, c.dir, "p", "fifo", 0o644, 0);
		await rejects("EINVAL", c.volume.setAttributes(root, c.node(fifo.attributes), { size: 0 }));
		const node = await c.file("f");
		await rejects("EINVAL", c.volume.setAttributes(root, node, { size: -1 }));
		await rejects("EFBIG", c.volume.setAttributes(root, node, { size: Number.MAX_SAFE_INTEGER }));
		assert.equal((await c.volume.setAttributes(root, node, { size: 10, mode: 0o600 })).after.size, 10);
		assert.equal((await c.attributes(node)).mode, 0o600);
	});

	check("size and mode are set together or not at all", async (c) => {
		const node = await c.put("f", text("12345"));
		await rejects("EINVAL", c.volume.setAttributes(root, node, { mode: 0o600, size: -1 }));
		await rejects("EINVAL", c.volume.setAttributes(root, node, { uid: 2 ** 32, size: 2 }));
		const after = await c.attributes(node);
		assert.deepEqual([after.mode, after.size], [0o644, 5]);
	});

	check("`change` is another after every change of the node, and the same without one", async (c) => {
		const node = await c.file("f");
		const handle = await c.openNode(node);
		const changes: [string, () => Promise<unknown>][] = [
			["chmod", () => c.volume.setAttributes(root, node, { mode: 0o600 })],
			["chmod again", () => c.volume.setAttributes(root, node, { mode: 0o600 })],
			["utimes", () => c.volume.setAttributes(root, node, { mtime: past })],
			["ctime", () => c.volume.setAttributes(root, node, { ctime: past })],
			["write", () => c.volume.write(handle, 0, text("1"))],
			["write again", () => c.volume.write(handle, 0, text("2"))],
			["larger write", () => c.volume.write(handle, 0, pattern(300_000, 1))],
			["truncate", () => c.volume.setAttributes(root, node, { size: 3 })],
			["truncate to the same", () => c.volume.setAttributes(root, node, { size: 3 })],
			["setxattr", () => c.volume.setXattr(root, node, "user.a", text("1"), "any")],
			["removexattr", () => c.volume.removeXattr(root, node, "user.a")],
			["link", () => c.volume.link(root, node, c.dir, "g")],
			["unlink", () => c.volume.unlink(root, c.dir, "g")],
			["rename", () => c.volume.rename(root, c.dir, "f", c.dir, "h", 0)],
		];
		const seen = new Map<number, string>([[(await c.attributes(node)).change, "creation"]]);
		for (const [what, change] of changes) {
			await change();
			const value = (await c.attributes(node)).change;
			assert.equal(seen.get(value), undefined, `${what} shows the same as ${seen.get(value)}`);
			seen.set(value, what);
		}
		const quiet = (await c.attributes(node)).change;
		await c.volume.read(handle, 0, 10);
		assert.equal((await c.attributes(node)).change, quiet);
		await c.volume.close(handle);
		const parent = new Set<number>();
		for (let i = 0; i < 20; i++) parent.add((await c.volume.makeDirectory(root, c.dir, `d${i}`, 0o755)).parentAfter.change);
		assert.equal(parent.size, 20);
	});
}

function timeTests(check: Check): void {
	const moved = (before: Attributes, after: Attributes): string => {
		const parts = (["atime", "mtime", "ctime", "btime"] as const).filter((time) => compareTime(after[time], before[time]) > 0);
		return parts.join(" ");
	};

	check("names change mtime and ctime of the directory, and ctime of what is named", async (c) => {
		const node = await c.file("f");
		const steps: [string, () => Promise<unknown>, string][] = [
			["create", () => c.file("g"), ""],
			["link", () => c.volume.link(root, node, c.dir, "h"), "ctime"],
			["unlink", () => c.volume.unlink(root, c.dir, "h"), "ctime"],
			["rename", () => c.volume.rename(root, c.dir, "f", c.dir, "i", 0), "ctime"],
		];
		for (const [what, step, expected] of steps) {
			const [directory, file] = [await c.attributes(c.dir), await c.attributes(node)];
			await c.harness.sleep(5);
			await step();
			assert.equal(moved(directory, await c.attributes(c.dir)), "mtime ctime", what);
			assert.equal(moved(file, await c.attributes(node)), expected, what);
		}
	});

	check("writing and truncating change mtime and ctime; reading and fsync neither", async (c) => {
		const node = await c.put("f", pattern(10_000, 1));
		const handle = await c.openNode(node);
		const steps: [string, () => Promise<unknown>, string][] = [
			["write", () => c.volume.write(handle, 0, text("x")), "mtime ctime"],
			["read", () => c.volume.read(handle, 0, 5), ""],
			["fsync", () => c.volume.fsync(handle, false), ""],
			["syncAll", () => c.volume.syncAll(), ""],
			["truncate", () => c.volume.setAttributes(root, node, { size: 5 }), "mtime ctime"],
			["chmod", () => c.volume.setAttributes(root, node, { mode: 0o600 }), "ctime"],
		];
		for (const [what, step, expected] of steps) {
			const before = await c.attributes(node);
			await c.harness.sleep(5);
			await step();
			assert.equal(moved(before, await c.attributes(node)), expected, what);
		}
		await c.volume.close(handle);
	});

	check("an mtime that was set after a write stays, whenever the write reaches the disks", async (c) => {
		for (const size of [100, 300_000]) {
			const node = await c.put(`f${size}`, pattern(size, 2));
			await c.volume.setAttributes(root, node, { mtime: past });
			assert.deepEqual((await c.attributes(node)).mtime, past);
			await c.volume.syncAll();
			assert.deepEqual((await c.attributes(node)).mtime, past);
			const handle = await c.openNode(node);
			await c.volume.write(handle, 0, text("x"));
			assert.ok(compareTime((await c.attributes(node)).mtime, past) > 0);
			await c.volume.close(handle);
		}
	});

	check("fsync and sealing show the same times as before", async (c) => {
		const node = await c.put("f", pattern(5000, 3));
		const before = await c.attributes(node);
		await c.harness.sleep(20);
		await c.volume.syncAll();
		const after = await c.attributes(node);
		assert.deepEqual([after.mtime, after.ctime, after.size], [before.mtime, before.ctime, before.size]);
	});
}

function xattrTests(check: Check): void {
	check("extended attributes: any bytes, on files, directories and symlinks", async (c) => {
		const symlink = c.node((await c.volume.makeSymlink(root, c.dir, "s", "t")).attributes);
		for (const node of [await c.file("f"), await c.mkdir("d"), symlink]) {
			assert.deepEqual(await c.volume.listXattrs(root, node), []);
			await c.volume.setXattr(root, node, "user.\xff", new Uint8Array([0, 255, 7]), "any");
			await c.volume.setXattr(root, node, "user.empty", new Uint8Array(0), "create");
			await c.volume.setXattr(root, node, "trusted.big", pattern(65_536, 1), "any");
			assert.deepEqual(await c.volume.getXattr(root, node, "user.\xff"), new Uint8Array([0, 255, 7]));
			assert.equal((await c.volume.getXattr(root, node, "user.empty")).length, 0);
			assert.deepEqual(await c.volume.getXattr(root, node, "trusted.big"), pattern(65_536, 1));
			assert.deepEqual([...(await c.volume.listXattrs(root, node))].sort(), ["trusted.big", "user.empty", "user.\xff"]);
			await c.volume.removeXattr(root, node, "user.empty");
			await rejects("ENODATA", c.volume.getXattr(root, node, "user.empty"));
		}
	});

	check("extended attributes: modes and limits", async (c) => {
		const node = await c.file("f");
		const set = (name: string, length: number, mode: "any" | "create" | "replace" = "any"): Promise<unknown> =>
			c.volume.setXattr(root, node, name, new Uint8Array(length), mode);
		await rejects("ENODATA", set("user.a", 1, "replace"));
		await set("user.a", 1, "create");
		await rejects("EEXIST", set("user.a", 1, "create"));
		await set("user.a", 2, "replace");
		await rejects("ENODATA", c.volume.removeXattr(root, node, "user.b"));
		await rejects("ENODATA", c.volume.getXattr(root, node, "user.b"));
		await rejects("E2BIG", set("user.a", 65_537));
		await rejects("ERANGE", set("user.".padEnd(256, "x"), 1));
		await set("user.".padEnd(255, "x"), 1);
		assert.equal((await c.volume.getXattr(root, node, "user.a")).length, 2);
	});

	check("the value of an extended attribute is copied before the first await", async (c) => {
		const node = await c.file("f");
		const value = text("first");
		const setting = c.volume.setXattr(root, node, "user.a", value, "any");
		value.fill(0);
		await setting;
		const got = await c.volume.getXattr(root, node, "user.a");
		assert.deepEqual(got, text("first"));
		got.fill(0);
		assert.deepEqual(await c.volume.getXattr(root, node, "user.a"), text("first"));
	});
}

function spaceTests(check: Check): void {
	check("space adds up and follows what is stored and freed", async (c) => {
		const before = await c.volume.space();
		assert.ok(before.capacityBytes > 0 && before.freeBytes > 0 && before.freeBytes <= before.capacityBytes);
		assert.ok(before.inodes >= before.freeInodes && before.freeInodes > 0);
		assert.equal(before.maximumNameBytes, 255);
		const size = 4 * 1024 * 1024;
		const node = await c.putDurable("big", pattern(size, 9));
		const stored = await c.attributes(node);
		assert.ok(stored.storedBytes >= size && stored.storedBytes <= size * 1.1, `${stored.storedBytes} bytes stored`);
		const during = await c.volume.space();
		assert.ok(before.freeBytes - during.freeBytes >= size * 0.9, `only ${before.freeBytes - during.freeBytes} bytes taken`);
		await c.volume.unlink(root, c.dir, "big");
		await c.gone(node);
		for (let waits = 0; (await c.volume.space()).freeBytes < before.freeBytes - size / 4; waits++) {
			assert.ok(waits < 200, "the space of a removed file does not come back");
			await c.harness.sleep(50);
		}
	});
}
