/** A native volume that runs full: it says so, keeps what it has, and works again when something is deleted. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { isFsError } from "../../src/base/errors.ts";
import type { VolumeHarness } from "./volume.ts";
import { Case, pattern, rejects, root, sameBytes } from "./volume/support.ts";
import { makeNativeHarness } from "./volume-native-harness.ts";

const mebibyte = 1024 * 1024;
const small = { diskBytes: 28 * mebibyte, logSegmentCount: 4 };

async function on(body: (c: Case) => Promise<void>): Promise<void> {
	const harness: VolumeHarness = await makeNativeHarness(3, small);
	try {
		await harness.run(() => body(new Case(harness, harness.volume.root)));
	} finally {
		await harness.close();
	}
}

/** Durable files of 1 MiB until there is no room; how many there are. */
async function fill(c: Case): Promise<number> {
	for (let i = 0; i < 1000; i++) {
		try {
			await c.putDurable(`f${i}`, pattern(mebibyte, i));
		} catch (error) {
			assert.ok(isFsError(error, "ENOSPC"), `ENOSPC expected, not ${String(error)}`);
			return i;
		}
	}
	return assert.fail("the volume never runs full");
}

async function checkFiles(c: Case, count: number, when: string): Promise<void> {
	for (let i = 0; i < count; i++) sameBytes(await c.get(`f${i}`), pattern(mebibyte, i), `f${i} ${when}`);
}

test("a full volume answers ENOSPC, keeps what was durable, and can be read, listed and deleted from", () =>
	on(async (c) => {
		const count = await fill(c);
		assert.ok(count > 8, `only ${count} MiB fit on four disks of 28 MiB`);
		await checkFiles(c, count, "when full");
		const before = await c.volume.space();
		assert.ok(before.freeBytes < 16 * mebibyte, `${before.freeBytes} bytes are said to be free`);
		await c.volume.unlink(root, c.dir, `f${count}`);
		const removed = await c.lookup("f0");
		await c.volume.unlink(root, c.dir, "f0");
		await c.gone(c.node(removed));
		for (let i = 1; i < 6; i++) await c.volume.unlink(root, c.dir, `f${i}`);
		for (let waits = 0; ; waits++) {
			try {
				await c.putDurable("again", pattern(2 * mebibyte, 1));
				break;
			} catch (error) {
				assert.ok(isFsError(error, "ENOSPC") && waits < 100, String(error));
				await c.harness.sleep(100);
			}
		}
		sameBytes(await c.get("again"), pattern(2 * mebibyte, 1), "written after deletion");
		for (let i = 6; i < count; i++) sameBytes(await c.get(`f${i}`), pattern(mebibyte, i), `f${i}`);
	}));

test("a full volume survives a kill, a power cut and a clean end", () =>
	on(async (c) => {
		const count = await fill(c);
		await c.harness.crash();
		await checkFiles(c, count, "after a kill");
		await c.harness.powerCut();
		await checkFiles(c, count, "after a power cut");
		await c.harness.reopen();
		await checkFiles(c, count, "after a clean end");
		await c.volume.unlink(root, c.dir, "f0");
		await c.volume.makeDirectory(root, c.dir, "d", 0o755);
	}));

test("what was acknowledged before the volume ran full is not lost for it", () =>
	on(async (c) => {
		const sizes: number[] = [];
		try {
			for (let i = 0; i < 1000; i++) {
				await c.put(`f${i}`, pattern(mebibyte, i));
				sizes.push(i);
			}
			assert.fail("the volume never runs full");
		} catch (error) {
			assert.ok(isFsError(error, "ENOSPC"), `ENOSPC expected, not ${String(error)}`);
		}
		await c.volume.syncAll();
		await c.harness.powerCut();
		await checkFiles(c, sizes.length, "after a power cut");
	}));

test("renaming, linking and removing names need no room worth speaking of", () =>
	on(async (c) => {
		const count = await fill(c);
		// What could not be stored is still wanted by its file: without it a sync can succeed.
		await c.volume.unlink(root, c.dir, `f${count}`);
		for (let i = 0; i < 200; i++) {
			await c.volume.makeDirectory(root, c.dir, `d${i}`, 0o755);
			await c.volume.rename(root, c.dir, `d${i}`, c.dir, `e${i}`, 0);
		}
		for (let i = 0; i < 200; i++) await c.volume.removeDirectory(root, c.dir, `e${i}`);
		await c.volume.syncAll();
	}));

test("what was reserved can be written when everybody else is told that the volume is full", () =>
	on(async (c) => {
		const size = 6 * mebibyte;
		const node = await c.file("reserved");
		const handle = await c.openNode(node);
		await c.volume.allocate(handle, "allocate", 0, size);
		const count = await fill(c);
		await rejects("ENOSPC", c.volume.allocate(handle, "allocate-keep-size", size, 16 * mebibyte), "more than is left");
		// In pieces that are neither aligned nor in order, some of them synced by themselves.
		const expected = pattern(size, 77);
		const piece = 100_000;
		const offsets = Array.from({ length: Math.ceil(size / piece) }, (_, i) => ((i * 37) % Math.ceil(size / piece)) * piece);
		for (const [i, offset] of offsets.entries()) {
			await c.volume.write(handle, offset, expected.subarray(offset, offset + piece));
			if (i % 16 === 0) await c.volume.fsync(handle, false);
		}
		await c.volume.fsync(handle, false);
		await c.volume.syncAll();
		assert.equal((await c.attributes(node)).storedBytes, size);
		await c.harness.reopen();
		sameBytes(await c.get("reserved"), expected, "the reserved file");
		await checkFiles(c, count, "beside the reserved file");
	}));
