/** Contents against a byte model: overwrites, truncations, holes, tiny files, files of several MiB, many operations at once. */
import assert from "node:assert/strict";
import type { HandleId, NodeRef } from "../../../src/volume/interface.ts";
import { SeededRandom } from "../../support/map-records.ts";
import { type Case, type Check, type MakeVolumeHarness, pattern, root, sameBytes, shared, type VolumeSuiteOptions } from "./support.ts";

export function contentsTests(name: string, makeHarness: MakeVolumeHarness, options: VolumeSuiteOptions): void {
	shared(`${name}: contents`, makeHarness, (check) => {
		sizeTests(check);
		truncationTests(check);
		concurrentTests(check);
		for (const seed of options.seeds ?? [1, 2]) modelTests(check, seed);
	});
}

/** Sizes around the borders an implementation may have: inline contents, blocks, chunks, segments. */
const borders = [0, 1, 2047, 2048, 2049, 4095, 4096, 4097, 65_536, 131_072, 131_073, 1_048_576, 1_048_577, 2_097_153];

function sizeTests(check: Check): void {
	check("files of every size come back, unsealed, sealed and after a reopening", async (c) => {
		for (const size of borders) await c.put(`f${size}`, pattern(size, size));
		for (const size of borders) sameBytes(await c.get(`f${size}`), pattern(size, size), `unsealed ${size}`);
		await c.volume.syncAll();
		for (const size of borders) sameBytes(await c.get(`f${size}`), pattern(size, size), `sealed ${size}`);
		await c.harness.reopen();
		for (const size of borders) {
			sameBytes(await c.get(`f${size}`), pattern(size, size), `reopened ${size}`);
			assert.equal((await c.lookup(`f${size}`)).size, size);
		}
	});

	check("a file grows across every border, synced after each step", async (c) => {
		const node = await c.file("f");
		const handle = await c.openNode(node);
		let size = 0;
		for (const next of borders) {
			await c.writeAll(handle, size, pattern(next, 7).subarray(size));
			size = next;
			await c.volume.fsync(handle, false);
			sameBytes(await c.readHandle(handle, 0, size + 1), pattern(size, 7), `at ${size}`);
		}
		await c.volume.close(handle);
		sameBytes(await c.get("f"), pattern(size, 7), "whole");
	});

	check("one byte in the middle of sealed contents", async (c) => {
		for (const size of borders.filter((size) => size > 2)) {
			const node = await c.put("f", pattern(size, 1));
			const handle = await c.openNode(node);
			await c.volume.syncAll();
			const expected = pattern(size, 1);
			for (const at of [0, size >> 1, size - 1]) {
				expected[at] = (expected[at] ?? 0) ^ 0xff;
				await c.volume.write(handle, at, expected.subarray(at, at + 1));
			}
			sameBytes(await c.readHandle(handle, 0, size), expected, `${size}, unsealed`);
			await c.volume.syncAll();
			sameBytes(await c.readHandle(handle, 0, size), expected, `${size}, sealed`);
			assert.equal((await c.attributes(node)).size, size);
			await c.volume.close(handle);
		}
	});
}

function truncationTests(check: Check): void {
	const truncate = async (c: Case, node: NodeRef, size: number): Promise<void> => {
		assert.equal((await c.volume.setAttributes(root, node, { size })).after.size, size);
	};

	for (const when of ["unsealed", "sealed"] as const) {
		check(`what was cut off never comes back (${when})`, async (c) => {
			for (const size of borders) {
				const node = await c.put("f", pattern(size, 3));
				const handle = await c.openNode(node);
				if (when === "sealed") await c.volume.syncAll();
				const cut = size >> 1;
				await truncate(c, node, cut);
				await truncate(c, node, size + 10);
				const expected = new Uint8Array(size + 10);
				expected.set(pattern(size, 3).subarray(0, cut));
				sameBytes(await c.readHandle(handle, 0, size + 10), expected, `${size} cut to ${cut}`);
				await c.volume.syncAll();
				sameBytes(await c.readHandle(handle, 0, size + 10), expected, `${size} cut to ${cut}, sealed`);
				await c.volume.close(handle);
			}
		});
	}

	check("writes on both sides of a truncation", async (c) => {
		const node = await c.file("f");
		const handle = await c.openNode(node);
		const model = new Uint8Array(700_000);
		const write = async (offset: number, length: number, tag: number): Promise<void> => {
			model.set(pattern(length, tag), offset);
			await c.volume.write(handle, offset, pattern(length, tag));
		};
		await write(0, 400_000, 1);
		await truncate(c, node, 100_000);
		model.fill(0, 100_000);
		await write(300_000, 1000, 2);
		await truncate(c, node, 300_500);
		model.fill(0, 300_500);
		await write(99_990, 20, 3);
		await truncate(c, node, 700_000);
		sameBytes(await c.readHandle(handle, 0, 700_001), model, "unsealed");
		await c.volume.fsync(handle, false);
		await c.harness.reopen();
		sameBytes(await c.get("f"), model, "reopened");
	});

	check("truncation to nothing and new contents, over and over", async (c) => {
		for (let i = 0; i < 30; i++) {
			const bytes = pattern((i * 7919) % 9000, i);
			await c.put("f", bytes);
			if (i % 7 === 0) await c.volume.syncAll();
			sameBytes(await c.get("f"), bytes, `round ${i}`);
		}
	});
}

function concurrentTests(check: Check): void {
	check("writes to different parts at once all count", async (c) => {
		const handle = await c.openNode(await c.file("f"));
		const part = 3001;
		await Promise.all(
			Array.from({ length: 200 }, (_, i) => c.volume.write(handle, ((i * 77) % 200) * part, pattern(part, (i * 77) % 200))),
		);
		await Promise.all([c.volume.fsync(handle, false), c.volume.syncAll(), c.volume.fsync(handle, true)]);
		for (let i = 0; i < 200; i++) sameBytes(await c.volume.read(handle, i * part, part), pattern(part, i), `part ${i}`);
		await c.volume.close(handle);
	});

	check("writes, seals and truncations at once: every byte is one that was written there, or a hole", async (c) => {
		const node = await c.file("f");
		const handle = await c.openNode(node);
		const work: Promise<unknown>[] = [];
		for (let i = 0; i < 120; i++) {
			work.push(c.volume.write(handle, ((i * 37) % 60) * 4096, new Uint8Array(4096).fill(1 + (i % 250))));
			if (i % 10 === 0) work.push(c.volume.fsync(handle, false));
			if (i % 15 === 0) work.push(c.volume.setAttributes(root, node, { size: ((i * 13) % 60) * 4096 }));
			if (i % 20 === 0) work.push(c.volume.read(handle, 0, 60 * 4096));
		}
		await Promise.all(work);
		const before = await c.readHandle(handle, 0, 60 * 4096);
		for (let at = 0; at < before.length; at += 4096) {
			const block = before.subarray(at, at + 4096);
			assert.ok(
				block.every((byte) => byte === block[0]),
				`the block at ${at} is torn`,
			);
		}
		await c.volume.syncAll();
		sameBytes(await c.readHandle(handle, 0, 60 * 4096), before, "sealing changes nothing");
		await c.volume.close(handle);
	});

	check("a reader beside a writer sees each small write whole", async (c) => {
		const handle = await c.openNode(await c.put("f", new Uint8Array(8192).fill(1)));
		const readings: Promise<Uint8Array>[] = [];
		const writings: Promise<unknown>[] = [];
		for (let i = 2; i < 100; i++) {
			writings.push(c.volume.write(handle, 0, new Uint8Array(8192).fill(i)));
			readings.push(c.volume.read(handle, 0, 8192));
			if (i % 25 === 0) writings.push(c.volume.fsync(handle, false));
		}
		for (const bytes of await Promise.all(readings))
			assert.ok(
				bytes.every((byte) => byte === bytes[0]),
				"a torn read",
			);
		await Promise.all(writings);
		await c.volume.close(handle);
	});

	check("many files written and synced at once", async (c) => {
		const sizes = Array.from({ length: 40 }, (_, i) => (i * i * 1000) % 400_000);
		await Promise.all(sizes.map((size, i) => (i % 2 === 0 ? c.putDurable(`f${i}`, pattern(size, i)) : c.put(`f${i}`, pattern(size, i)))));
		for (const [i, size] of sizes.entries()) sameBytes(await c.get(`f${i}`), pattern(size, i), `file ${i}`);
	});
}

// ── the byte model ───────────────────────────────────────────────────────────────────────────────────────────────

/** What a file should be: bytes, and everything behind them does not exist. */
class Model {
	bytes = new Uint8Array(0);

	write(offset: number, bytes: Uint8Array): void {
		if (offset + bytes.length > this.bytes.length) this.truncate(offset + bytes.length);
		this.bytes.set(bytes, offset);
	}

	truncate(size: number): void {
		const cut = new Uint8Array(size);
		cut.set(this.bytes.subarray(0, size));
		this.bytes = cut;
	}
}

const largest = 6 * 1024 * 1024;

function modelTests(check: Check, seed: number): void {
	check(`several MiB with random writes, truncations, syncs and reopenings, seed ${seed}`, async (c) => {
		const random = new SeededRandom(seed);
		const model = new Model();
		const node = await c.file("f");
		let handle = await c.openNode(node);
		for (let step = 0; step < 150; step++) {
			try {
				handle = await modelStep(c, random, model, node, handle, step);
			} catch (error) {
				throw new Error(`seed ${seed}, step ${step}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
			}
		}
		sameBytes(await c.readHandle(handle, 0, model.bytes.length + 1), model.bytes, `seed ${seed}, at the end`);
		await c.volume.close(handle);
	});
}

async function modelStep(c: Case, random: SeededRandom, model: Model, node: NodeRef, handle: HandleId, step: number): Promise<HandleId> {
	const choice = random.below(100);
	if (choice < 60) {
		const length = 1 + random.below(random.pick([10, 5000, 70_000, 600_000]));
		const offset = random.below(random.pick([100, model.bytes.length + 1, Math.min(largest, model.bytes.length + 500_000)]));
		const bytes = pattern(Math.min(length, largest - offset), step + 1);
		model.write(offset, bytes);
		await c.writeAll(handle, offset, bytes);
	} else if (choice < 70) {
		const size = random.below(Math.min(largest, model.bytes.length + 200_000));
		model.truncate(size);
		await c.volume.setAttributes(root, node, { size });
	} else if (choice < 78) await c.volume.fsync(handle, random.chance(0.5));
	else if (choice < 82) await c.volume.syncAll();
	else if (choice < 84) {
		await c.harness.reopen();
		return c.openNode(node);
	} else if (choice < 88) await c.harness.sleep(random.below(3000));
	else {
		const offset = random.below(model.bytes.length + 100);
		const length = random.below(300_000);
		sameBytes(await c.readHandle(handle, offset, length), model.bytes.slice(offset, offset + length), `read of ${length} at ${offset}`);
		assert.equal((await c.attributes(node)).size, model.bytes.length);
	}
	return handle;
}
