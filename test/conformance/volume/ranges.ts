/** Reservations, holes and copies of ranges: fallocate, copy_file_range, SEEK_DATA and SEEK_HOLE. */
import assert from "node:assert/strict";
import type { AllocateMode, HandleId, NodeRef } from "../../../src/volume/interface.ts";
import { SeededRandom } from "../../support/map-records.ts";
import {
	type Case,
	type Check,
	type MakeVolumeHarness,
	pattern,
	rejects,
	root,
	sameBytes,
	shared,
	type VolumeSuiteOptions,
} from "./support.ts";

const KiB = 1024;
const MiB = 1024 * KiB;

export function rangeTests(name: string, makeHarness: MakeVolumeHarness, options: VolumeSuiteOptions): void {
	shared(`${name}: ranges`, makeHarness, (check) => {
		allocateTests(check);
		spaceTests(check);
		copyTests(check);
		seekTests(check);
		argumentTests(check);
		for (const seed of options.seeds ?? [1, 2]) modelTests(check, seed);
	});
}

const modes: readonly AllocateMode[] = ["allocate", "allocate-keep-size", "punch", "zero", "zero-keep-size"];

/** What a file is after fallocate. */
function allocated(before: Uint8Array, mode: AllocateMode, offset: number, length: number): Uint8Array {
	const grows = mode === "allocate" || mode === "zero";
	const after = new Uint8Array(grows ? Math.max(before.length, offset + length) : before.length);
	after.set(before);
	if (!mode.startsWith("allocate")) after.fill(0, Math.min(offset, after.length), Math.min(offset + length, after.length));
	return after;
}

function copied(source: Uint8Array, from: number, target: Uint8Array, to: number, length: number): Uint8Array {
	const bytes = source.slice(from, from + length);
	if (bytes.length === 0) return target;
	const after = new Uint8Array(Math.max(target.length, to + bytes.length));
	after.set(target);
	after.set(bytes, to);
	return after;
}

/** All of a range, in as many calls as it takes. */
export async function copyAll(c: Case, source: HandleId, from: number, target: HandleId, to: number, length: number): Promise<number> {
	let done = 0;
	for (;;) {
		const { copied: count } = await c.volume.copyRange(source, from + done, target, to + done, length - done);
		done += count;
		if (count === 0 || done === length) return done;
	}
}

const sizes = [100, 2048, 2049, 10_000, 300_000, 2 * MiB + 77];
const states = ["unsealed", "synced", "sealed"] as const;

async function bring(c: Case, handle: HandleId, state: (typeof states)[number]): Promise<void> {
	if (state === "synced") await c.volume.fsync(handle, false);
	if (state === "sealed") await c.volume.syncAll();
}

function allocateTests(check: Check): void {
	for (const state of states) {
		check(`every mode of fallocate, in and around files of every size (${state})`, async (c) => {
			for (const size of sizes) {
				for (const mode of modes) {
					const at = Math.floor(size / 3);
					for (const [offset, length] of [
						[at, at],
						[0, size],
						[size - 10, 5000],
						[size + 5000, 70_000],
					] as const) {
						const node = await c.put("f", pattern(size, size));
						const handle = await c.openNode(node);
						await bring(c, handle, state);
						await c.volume.allocate(handle, mode, offset, length);
						const expected = allocated(pattern(size, size), mode, offset, length);
						const what = `${size} bytes, ${mode} ${offset}+${length}`;
						sameBytes(await c.readHandle(handle, 0, expected.length + 1), expected, what);
						assert.equal((await c.attributes(node)).size, expected.length, what);
						await c.volume.close(handle);
					}
				}
			}
		});
	}

	check("what was punched stays a hole when dirty bytes are replayed after a kill", async (c) => {
		const handle = await c.openNode(await c.put("f", pattern(200_000, 1)));
		await c.volume.allocate(handle, "punch", 50_000, 60_000);
		await c.volume.write(handle, 60_000, pattern(100, 2));
		const expected = allocated(pattern(200_000, 1), "punch", 50_000, 60_000);
		expected.set(pattern(100, 2), 60_000);
		await c.harness.crash();
		sameBytes(await c.get("f"), expected, "after the kill");
	});

	check("times and the change counter tell of a fallocate, fsync makes it durable", async (c) => {
		const node = await c.putDurable("f", pattern(100_000, 1));
		const before = await c.attributes(node);
		const handle = await c.openNode(node);
		await c.harness.sleep(20);
		await c.volume.allocate(handle, "zero", 90_000, 20_000);
		const after = await c.attributes(node);
		assert.ok(after.change > before.change);
		assert.notDeepEqual([after.mtime, after.ctime], [before.mtime, before.ctime]);
		await c.volume.fsync(handle, false);
		await c.harness.powerCut();
		sameBytes(await c.get("f"), allocated(pattern(100_000, 1), "zero", 90_000, 20_000), "after a power cut");
	});
}

function spaceTests(check: Check): void {
	check("stored bytes and free space tell of reservations; truncation, holes and removal give them back", async (c) => {
		const free = async (): Promise<number> => (await c.volume.space()).freeBytes;
		await c.volume.syncAll();
		const node = await c.file("f");
		const handle = await c.openNode(node);
		const before = await free();
		await c.volume.allocate(handle, "allocate-keep-size", 0, 8 * MiB);
		const held = await c.attributes(node);
		assert.deepEqual([held.size, held.storedBytes], [0, 8 * MiB]);
		assert.ok(before - (await free()) >= 8 * MiB, "what is reserved is not free");
		await c.volume.allocate(handle, "allocate", 0, 8 * MiB);
		assert.deepEqual([(await c.attributes(node)).size, (await c.attributes(node)).storedBytes], [8 * MiB, 8 * MiB]);
		await c.writeAll(handle, 0, pattern(3 * MiB, 1));
		await c.volume.syncAll();
		assert.equal((await c.attributes(node)).storedBytes, 8 * MiB, "written bytes take their reservation's place");
		await c.volume.allocate(handle, "punch", 2 * MiB, 2 * MiB);
		assert.equal((await c.attributes(node)).storedBytes, 6 * MiB);
		await c.volume.setAttributes(root, node, { size: 5 * MiB });
		assert.equal((await c.attributes(node)).storedBytes, 3 * MiB);
		await c.harness.reopen();
		assert.ok(before - (await free()) >= 3 * MiB, "a reopened volume knows what is reserved");
		await c.volume.unlink(root, c.dir, "f");
		await c.gone(node);
		for (let waits = 0; (await free()) < before - 64 * KiB; waits++) {
			assert.ok(waits < 200, `${before - (await free())} bytes do not come back`);
			await c.harness.sleep(50);
		}
	});

	check("more than there is cannot be reserved, and nothing stays reserved then", async (c) => {
		const node = await c.file("f");
		const handle = await c.openNode(node);
		const { freeBytes } = await c.volume.space();
		await rejects("ENOSPC", c.volume.allocate(handle, "allocate", 0, freeBytes + 64 * MiB), "more than is free");
		assert.deepEqual([(await c.attributes(node)).size, (await c.attributes(node)).storedBytes], [0, 0]);
	});

	check("a copy takes no space, and outlives its source", async (c) => {
		const bytes = pattern(6 * MiB, 1);
		const source = await c.put("source", bytes);
		const target = await c.file("target");
		const from = await c.openNode(source);
		const to = await c.openNode(target);
		await c.volume.syncAll();
		const { freeBytes } = await c.volume.space();
		assert.equal(await copyAll(c, from, 0, to, 0, bytes.length), bytes.length);
		await c.volume.syncAll();
		assert.ok(freeBytes - (await c.volume.space()).freeBytes < MiB, "the bytes are shared");
		assert.equal((await c.attributes(target)).storedBytes, bytes.length);
		await c.volume.write(to, MiB + 5, pattern(1000, 2));
		await c.volume.close(from);
		await c.volume.unlink(root, c.dir, "source");
		await c.gone(source);
		await c.harness.sleep(1000);
		// New contents take whatever space was given back.
		await c.put("other", pattern(6 * MiB, 3));
		await c.volume.syncAll();
		await c.harness.reopen();
		bytes.set(pattern(1000, 2), MiB + 5);
		sameBytes(await c.get("target"), bytes, "the copy");
	});
}

function copyTests(check: Check): void {
	for (const state of states) {
		check(`copies between files of every size, at odd offsets (${state})`, async (c) => {
			for (const size of sizes) {
				for (const [from, to, length] of [
					[0, 0, size],
					[size >> 1, 7, size],
					[1, size + 5000, size >> 1],
					[3, 100, 50],
				] as const) {
					const source = await c.openNode(await c.put("source", pattern(size, 1)));
					const node = await c.put("target", pattern(20_000, 2));
					const target = await c.openNode(node);
					await bring(c, source, state);
					const done = await copyAll(c, source, from, target, to, length);
					assert.equal(done, Math.min(length, size - from));
					const expected = copied(pattern(size, 1), from, pattern(20_000, 2), to, length);
					sameBytes(await c.readHandle(target, 0, expected.length + 1), expected, `${size} bytes: ${from} to ${to}, ${length}`);
					sameBytes(await c.readHandle(source, 0, size + 1), pattern(size, 1), "the source stays");
					await c.volume.close(source);
					await c.volume.close(target);
				}
			}
		});
	}

	check("a copy within one file, and of holes and reserved ranges over data", async (c) => {
		const node = await c.put("f", pattern(300_000, 1));
		const handle = await c.openNode(node);
		let expected = copied(pattern(300_000, 1), 0, pattern(300_000, 1), 150_000, 150_000);
		assert.equal(await copyAll(c, handle, 0, handle, 150_000, 150_000), 150_000);
		sameBytes(await c.readHandle(handle, 0, 300_001), expected, "within");
		for (const mode of ["punch", "zero"] as const) {
			await c.volume.allocate(handle, mode, 10_000, 50_000);
			expected = allocated(expected, mode, 10_000, 50_000);
			await copyAll(c, handle, 5000, handle, 205_000, 60_000);
			expected = copied(expected, 5000, expected, 205_000, 60_000);
			sameBytes(await c.readHandle(handle, 0, 300_001), expected, mode);
		}
		await c.harness.crash();
		sameBytes(await c.get("f"), expected, "after a kill");
	});

	check("both files of a copy are written to at once, in both directions", async (c) => {
		const names = ["a", "b"];
		const handles = await Promise.all(names.map(async (name, i) => c.openNode(await c.put(name, new Uint8Array(256 * KiB).fill(1 + i)))));
		const [a, b] = handles as [HandleId, HandleId];
		const work: Promise<unknown>[] = [];
		for (let i = 0; i < 40; i++) {
			work.push(c.volume.copyRange(a, 0, b, 0, 256 * KiB), c.volume.copyRange(b, 0, a, 0, 256 * KiB));
			work.push(c.volume.write(i % 2 === 0 ? a : b, (i % 16) * 16 * KiB, new Uint8Array(16 * KiB).fill(10 + i)));
			if (i % 8 === 0) work.push(c.volume.fsync(a, false), c.volume.allocate(b, "punch", i * KiB, 4 * KiB));
		}
		await Promise.all(work);
		for (const handle of handles) assert.equal((await c.readHandle(handle, 0, MiB)).length, 256 * KiB);
		await c.volume.syncAll();
	});
}

function seekTests(check: Check): void {
	for (const state of states) {
		check(`data and holes are found (${state})`, async (c) => {
			const node = await c.file("f");
			const handle = await c.openNode(node);
			await c.volume.write(handle, 2 * MiB, pattern(MiB, 1));
			await c.volume.write(handle, 8 * MiB, pattern(100, 2));
			await c.volume.setAttributes(root, node, { size: 2 ** 43 });
			await bring(c, handle, state);
			assert.equal(await c.volume.seek(handle, 0, "hole"), 0);
			assert.equal(await c.volume.seek(handle, 0, "data"), 2 * MiB);
			assert.equal(await c.volume.seek(handle, 2 * MiB + 5, "data"), 2 * MiB + 5);
			assert.equal(await c.volume.seek(handle, 2 * MiB + 5, "hole"), 3 * MiB);
			assert.equal(await c.volume.seek(handle, 3 * MiB, "data"), 8 * MiB);
			assert.equal(await c.volume.seek(handle, 2 ** 42, "hole"), 2 ** 42);
			await rejects("ENXIO", c.volume.seek(handle, 2 ** 42, "data"), "no data behind");
			await rejects("ENXIO", c.volume.seek(handle, 2 ** 43, "hole"), "the end");
			await c.volume.allocate(handle, "allocate", 5 * MiB, MiB);
			assert.equal(await c.volume.seek(handle, 3 * MiB, "data"), 8 * MiB, "reserved ranges are holes");
		});
	}

	check("a small file is data up to its end, or to where it was extended", async (c) => {
		const node = await c.put("f", pattern(100, 1));
		const handle = await c.openNode(node);
		for (const state of states) {
			await bring(c, handle, state);
			assert.equal(await c.volume.seek(handle, 50, "data"), 50);
			assert.equal(await c.volume.seek(handle, 50, "hole"), 100);
			await rejects("ENXIO", c.volume.seek(handle, 100, "data"));
		}
		await c.volume.setAttributes(root, node, { size: MiB });
		assert.equal(await c.volume.seek(handle, 0, "hole"), 100);
		await rejects("ENXIO", c.volume.seek(handle, 200, "data"));
	});
}

function argumentTests(check: Check): void {
	check("wrong arguments are refused", async (c) => {
		const node = await c.put("f", pattern(10_000, 1));
		const handle = await c.openNode(node);
		const reader = await c.openNode(node, { access: { read: true, write: false } });
		const writer = await c.openNode(node, { access: { read: false, write: true } });
		const appender = await c.openNode(node, { append: true });
		await rejects("EINVAL", c.volume.allocate(handle, "allocate", 0, 0), "nothing");
		await rejects("EINVAL", c.volume.allocate(handle, "allocate", -1, 10), "before the start");
		await rejects("EBADF", c.volume.allocate(reader, "punch", 0, 10), "not open for writing");
		await rejects("EFBIG", c.volume.allocate(handle, "allocate-keep-size", 2 ** 52 - 5, 10), "too far");
		await rejects("EBADF", c.volume.copyRange(writer, 0, handle, 0, 10), "source not open for reading");
		await rejects("EBADF", c.volume.copyRange(handle, 0, reader, 0, 10), "target not open for writing");
		await rejects("EBADF", c.volume.copyRange(reader, 0, appender, 0, 10), "target open for appending");
		await rejects("EINVAL", c.volume.copyRange(handle, 0, handle, 5000, 5001), "overlap");
		await rejects("EFBIG", c.volume.copyRange(handle, 0, handle, 2 ** 52 - 5, 10), "too far");
		assert.equal((await c.volume.copyRange(handle, 10_000, handle, 20_000, 10)).copied, 0);
		sameBytes(await c.get("f"), pattern(10_000, 1), "nothing has changed");
	});
}

// ── the byte model ───────────────────────────────────────────────────────────────────────────────────────────────

const largest = 3 * MiB;

interface ModelFile {
	readonly node: NodeRef;
	handle: HandleId;
	bytes: Uint8Array;
}

function modelTests(check: Check, seed: number): void {
	check(`random writes, reservations, holes, copies, syncs, kills, seed ${seed}`, async (c) => {
		const random = new SeededRandom(seed);
		const files: ModelFile[] = [];
		for (const name of ["a", "b", "c"]) {
			const node = await c.file(name);
			files.push({ node, handle: await c.openNode(node), bytes: new Uint8Array(0) });
		}
		for (let step = 0; step < 200; step++) {
			try {
				await modelStep(c, random, files, step);
			} catch (error) {
				throw new Error(`seed ${seed}, step ${step}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
			}
		}
		for (const file of files) {
			sameBytes(await c.readHandle(file.handle, 0, largest * 2), file.bytes, `seed ${seed}, at the end`);
			await c.volume.close(file.handle);
		}
	});
}

async function modelStep(c: Case, random: SeededRandom, files: readonly ModelFile[], step: number): Promise<void> {
	const file = random.pick(files);
	const choice = random.below(100);
	const offset = random.below(random.pick([5000, file.bytes.length + 1, Math.min(largest, file.bytes.length + 100_000)]));
	const length = 1 + random.below(random.pick([10, 5000, 70_000, 600_000]));
	if (choice < 30) {
		const bytes = pattern(length, step + 1);
		file.bytes = copied(bytes, 0, file.bytes, offset, length);
		await c.writeAll(file.handle, offset, bytes);
	} else if (choice < 50) {
		const mode = random.pick(modes);
		await c.volume.allocate(file.handle, mode, offset, length);
		file.bytes = allocated(file.bytes, mode, offset, length);
	} else if (choice < 70) {
		const other = random.pick(files);
		const to = random.below(largest / 2);
		const count = Math.max(0, Math.min(length, file.bytes.length - offset));
		if (file === other && Math.abs(offset - to) < count) return;
		// A copy behind the end of its own file would find more to copy than was there.
		const asked = file === other ? count : length;
		assert.equal(await copyAll(c, file.handle, offset, other.handle, to, asked), count, "bytes copied");
		other.bytes = copied(file.bytes, offset, other.bytes, to, length);
	} else if (choice < 75) {
		const size = random.below(Math.min(largest, file.bytes.length + 100_000));
		const cut = new Uint8Array(size);
		cut.set(file.bytes.subarray(0, size));
		file.bytes = cut;
		await c.volume.setAttributes(root, file.node, { size });
	} else if (choice < 80) await c.volume.fsync(file.handle, random.chance(0.5));
	else if (choice < 83) await c.volume.syncAll();
	else if (choice < 86) await c.harness.sleep(random.below(3000));
	else if (choice < 89) {
		await (random.chance(0.7) ? c.harness.crash() : c.harness.reopen());
		for (const one of files) one.handle = await c.openNode(one.node);
	} else {
		sameBytes(await c.readHandle(file.handle, offset, length), file.bytes.slice(offset, offset + length), `read of ${length} at ${offset}`);
		await checkSeek(c, file, offset);
	}
}

/** What is said to be a hole reads as zeros. */
async function checkSeek(c: Case, file: ModelFile, offset: number): Promise<void> {
	if (offset >= file.bytes.length) return rejects("ENXIO", c.volume.seek(file.handle, offset, "data"));
	const hole = await c.volume.seek(file.handle, offset, "hole");
	assert.ok(hole >= offset && hole <= file.bytes.length, `hole at ${hole}`);
	const data = await c.volume.seek(file.handle, offset, "data").catch(() => file.bytes.length);
	assert.ok(data >= offset && data <= file.bytes.length, `data at ${data}`);
	assert.ok(
		file.bytes.subarray(offset, data).every((byte) => byte === 0),
		`there is data between ${offset} and ${data}`,
	);
	assert.ok(data === offset || hole === offset, `${offset} is neither data nor hole`);
}
