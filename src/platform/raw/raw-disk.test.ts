import assert from "node:assert/strict";
import { test } from "node:test";
import { isFsError } from "../../base/errors.ts";
import type { Disk } from "../interface.ts";
import { Prng } from "../sim/prng.ts";
import { rawFileName } from "../sim/raw.ts";
import { SimWorld } from "../sim/world.ts";
import { FreeUnits } from "./free-units.ts";
import { newLayout, tableAt } from "./layout.ts";
import { rawLimits } from "./limits.ts";
import { recognise } from "./signatures.ts";

const capacityBytes = 6 << 20;
const { unitBytes } = rawLimits;
/** Bytes that are looked at: power cuts tear at sectors of 512. */
const sampled = 128;

function rawWorld(seed: number): SimWorld {
	const world = new SimWorld({ seed });
	world.addDisk("/r", { capacityBytes, raw: true });
	return world;
}

/** What a file may hold. A byte was written with a value that tells the file and the write; so what belongs to somebody else is found out. */
interface ModelFile {
	/** Now, as far as calls were made. */
	bytes: Uint8Array;
	/** As of the last sync. */
	durable: Uint8Array | undefined;
	/** Every value that each byte was given since the last sync, by any life of that name. */
	readonly since: Map<number, Set<number>>;
	readonly sizes: Set<number>;
	removed: boolean;
}

class Model {
	readonly files = new Map<string, ModelFile>();

	file(name: string): ModelFile {
		let file = this.files.get(name);
		if (file === undefined) {
			file = { bytes: new Uint8Array(0), durable: undefined, since: new Map(), sizes: new Set(), removed: true };
			this.files.set(name, file);
		}
		return file;
	}

	note(name: string, from: number, bytes: Uint8Array): void {
		const { since } = this.file(name);
		for (let i = 0; i < bytes.length; i++) {
			const at = from + i;
			if (at % sampled !== 0) continue;
			const byte = bytes[i] as number;
			const values = since.get(at) ?? new Set();
			values.add(byte);
			since.set(at, values);
		}
	}

	/** All of them: a sync covers every call before it. */
	synced(): void {
		for (const file of this.files.values()) {
			file.durable = file.removed ? undefined : file.bytes.slice();
			file.since.clear();
			file.sizes.clear();
		}
	}

	/** After a power cut: each file as of the last sync, or with some of what came since; nothing of anybody else. */
	check(name: string, found: Uint8Array | undefined, label: string): void {
		const file = this.file(name);
		const { durable, since, sizes } = file;
		if (found === undefined) {
			assert(durable === undefined || file.sizes.has(-1), `${label}: ${name} is gone`);
			return;
		}
		assert(found.length === durable?.length || sizes.has(found.length), `${label}: ${name} has ${found.length} bytes`);
		for (let at = 0; at < found.length; at += sampled) {
			const byte = found[at] as number;
			const was = durable?.[at] ?? 0;
			assert(
				byte === was || byte === 0 ? byte === was || since.has(at) || at >= (durable?.length ?? 0) : since.get(at)?.has(byte),
				`${label}: ${name} at ${at} holds ${byte}, was ${was}`,
			);
		}
	}
}

/** A life of random calls; ends by itself or where the world ends it. */
async function live(disk: Disk, model: Model, random: Prng, steps: number): Promise<void> {
	const names = ["a", "pack/1", "pack/2", "log/1", "kv/run"];
	for (let step = 0; step < steps; step++) {
		const name = random.pick(names);
		const file = model.file(name);
		const what = random.below(100);
		if (what < 8 && !file.removed) {
			file.sizes.add(-1);
			file.bytes = new Uint8Array(0);
			file.removed = true;
			await disk.remove(name);
			continue;
		}
		if (file.removed) file.sizes.add(0);
		file.removed = false;
		const handle = await disk.open(name, { create: true });
		if (what < 60) {
			const offset = random.below(Math.min(file.bytes.length + 100_000, 700_000));
			const bytes = new Uint8Array(1 + random.below(200_000)).fill(1 + random.below(255));
			const size = Math.max(file.bytes.length, offset + bytes.length);
			model.note(name, offset, bytes);
			file.sizes.add(size);
			const after = new Uint8Array(size);
			after.set(file.bytes);
			after.set(bytes, offset);
			file.bytes = after;
			await handle.write(offset, [bytes.subarray(0, 1), bytes.subarray(1)]);
		} else if (what < 75) {
			const offset = random.below(file.bytes.length + 1);
			const length = random.below(300_000);
			const gone = file.bytes.slice(offset, offset + length).fill(0);
			model.note(name, offset, gone);
			file.bytes.set(gone, offset);
			await handle.discard(offset, length);
		} else if (what < 83) {
			const size = random.below(600_000);
			const after = new Uint8Array(size);
			after.set(file.bytes.subarray(0, size));
			model.note(name, Math.min(size, file.bytes.length), new Uint8Array(Math.abs(size - file.bytes.length)));
			file.sizes.add(size);
			file.bytes = after;
			await handle.truncate(size);
		} else {
			await handle.sync("test.raw");
			model.synced();
		}
		if (step % 7 === 0 && !file.removed) {
			const from = random.below(file.bytes.length + 1);
			assert.deepEqual(await handle.read(from, 150_000), file.bytes.slice(from, from + 150_000), `step ${step}: ${name} at ${from}`);
		}
		await handle.close();
	}
}

async function everything(disk: Disk): Promise<Map<string, Uint8Array>> {
	const found = new Map<string, Uint8Array>();
	for (const name of ["a", "pack/1", "pack/2", "log/1", "kv/run"]) {
		const file = await disk.open(name).catch((error: unknown) => {
			if (isFsError(error, "ENOENT")) return undefined;
			throw error;
		});
		if (file !== undefined) found.set(name, await file.read(0, 2 << 20));
	}
	return found;
}

async function cutAt(seed: number, step: number | undefined, ignored?: string): Promise<number> {
	const world = rawWorld(seed);
	if (ignored !== undefined) world.ignoreSync(ignored);
	const node = world.node();
	const model = new Model();
	const random = new Prng(seed, "raw");
	const first = world.steps;
	const ended = step === undefined ? undefined : world.cutAt(first + step);
	const life = async (): Promise<void> => live(await node.boot().openDisk("/r"), model, random, 60);
	await world.run(ended === undefined ? life() : Promise.race([life(), ended]));
	const steps = world.steps - first;
	world.forgetEnd();
	node.powerCut();
	const label = `seed ${seed}, cut at ${step}`;
	await world.run(async () => {
		const disk = await node.boot().openDisk("/r");
		assert.equal(disk.foreign, undefined, label);
		const found = await everything(disk);
		for (const name of model.files.keys()) model.check(name, found.get(name), label);
		// It goes on, and what it says then stands.
		const space = await disk.space();
		assert(space.freeBytes > 0 && space.freeBytes <= space.capacityBytes, label);
		const file = await disk.open("later", { create: true });
		await file.write(5, [new Uint8Array(100_000).fill(7)]);
		await file.sync("test.raw");
		await disk.close();
		const again = await node.boot().openDisk("/r");
		assert.deepEqual(
			await (await again.open("later")).read(0, 200_000),
			Uint8Array.from({ length: 100_005 }, (_, i) => (i < 5 ? 0 : 7)),
			label,
		);
		for (const [name, bytes] of await everything(again)) assert.deepEqual(bytes, found.get(name), `${label}: ${name} as after the cut`);
		await again.close();
	});
	return steps;
}

test("a power cut at any step leaves what was synced, and never shows a file what another one held", async () => {
	for (let seed = 1; seed <= 3; seed++) {
		const steps = await cutAt(seed, undefined);
		assert(steps > 60, `${steps} steps`);
		const stride = Math.ceil(steps / 12);
		for (let step = seed; step <= steps; step += stride) await cutAt(seed, step);
	}
});

/** So many commits that the journal is full once or twice, with a power cut near the end of one. */
async function foldCut(seed: number, step: number | undefined, ignored?: string): Promise<number> {
	const world = rawWorld(seed);
	if (ignored !== undefined) world.ignoreSync(ignored);
	const node = world.node();
	let synced = 0;
	const life = async (): Promise<void> => {
		const disk = await node.boot().openDisk("/r");
		const file = await disk.open("f", { create: true });
		for (let size = 1; size <= 140; size++) {
			await file.write(size - 1, [new Uint8Array([size])]);
			await file.sync("test.raw");
			synced = size;
		}
	};
	const first = world.steps;
	const ended = step === undefined ? undefined : world.cutAt(first + step);
	await world.run(ended === undefined ? life() : Promise.race([life(), ended]));
	const steps = world.steps - first;
	world.forgetEnd();
	node.powerCut();
	const label = `seed ${seed}, cut at ${step}`;
	await world.run(async () => {
		const disk = await node.boot().openDisk("/r");
		assert.equal(disk.foreign, undefined, label);
		const bytes = synced === 0 ? new Uint8Array(0) : await (await disk.open("f")).read(0, 1000);
		assert(bytes.length >= synced && bytes.length <= synced + 1, `${label}: ${bytes.length} bytes, ${synced} were synced`);
		assert(
			bytes.every((byte, i) => byte === i + 1),
			label,
		);
	});
	return steps;
}

test("a power cut at any step around the end of a journal", async () => {
	const steps = await foldCut(11, undefined);
	for (let step = 1; step <= steps; step += 9) await foldCut(11 + step, step);
	// 64 records fit the journal; three calls a record.
	for (let step = 250; step <= 275; step++) await foldCut(12 + step, step);
});

test("every sync matters: without it a power cut is noticed", async () => {
	const noticed = async (play: (seed: number, step: number) => Promise<unknown>, steps: number): Promise<boolean> => {
		for (let seed = 21; seed <= 100; seed++) {
			for (let step = 1 + (seed % 3); step <= steps; step += 3) {
				const failed = await play(seed, step).then(
					() => false,
					() => true,
				);
				if (failed) return true;
			}
		}
		return false;
	};
	for (const site of ["test.raw", "platform.raw-journal"]) assert(await noticed((seed, step) => cutAt(seed, step, site), 90), site);
	assert(await noticed((seed, step) => foldCut(seed, step, "platform.raw-format"), 12), "platform.raw-format");
	assert(await noticed((seed, step) => foldCut(seed, 200 + step, "platform.raw-table"), 120), "platform.raw-table");
});

test("the journal is folded into the table again and again, units go round, and space adds up", async () => {
	const world = rawWorld(5);
	const node = world.node();
	await world.run(async () => {
		const disk = await node.boot().openDisk("/r");
		const { capacityBytes: capacity } = await disk.space();
		for (let round = 0; round < 400; round++) {
			const file = await disk.open(`pack/${round % 3}`, { create: true });
			await file.write((round % 20) * unitBytes, [new Uint8Array(3 * unitBytes).fill(round)]);
			await file.sync("test.raw");
			if (round % 50 === 49) await disk.remove(`pack/${round % 3}`);
			await disk.syncNames("", "test.raw");
		}
		for (const name of await disk.list("pack")) await disk.remove(`pack/${name}`);
		assert.equal((await disk.space()).freeBytes, capacity, "what was let go of counts as free");
		const whole = await disk.open("whole", { create: true });
		await whole.write(0, [new Uint8Array(capacity)]);
		assert.equal((await disk.space()).freeBytes, 0);
		await assert.rejects(whole.write(capacity, [new Uint8Array(1)]), (error) => isFsError(error, "ENOSPC"));
		await whole.sync("test.raw");
		await disk.close();
		const again = await node.boot().openDisk("/r");
		assert.deepEqual([await again.list(""), (await again.space()).freeBytes], [["whole"], 0]);
	});
});

test("damage: one header or one table copy is survived and mended, more is said; a foreign device is left alone", async () => {
	const world = rawWorld(6);
	const node = world.node();
	const open = (): Promise<Disk> => world.run(() => node.boot().openDisk("/r"));
	const put = async (disk: Disk): Promise<void> => {
		const file = await disk.open("f", { create: true });
		await file.write(0, [new Uint8Array(10).fill(3)]);
		await file.sync("test.raw");
	};
	const disk = await open();
	await world.run(put(disk));
	await world.run(disk.close());
	world.corrupt("/r", rawFileName, 0, 4096);
	const second = await open();
	assert.deepEqual(await world.run(second.list("")), ["f"]);
	await world.run(put(second));
	await world.run(second.close());
	world.corrupt("/r", rawFileName, capacityBytes - unitBytes, 4096);
	const third = await open();
	assert.deepEqual(await world.run(third.list("")), ["f"], "the first header was mended");
	await world.run(async () => {
		const file = await third.open("g", { create: true });
		await file.sync("test.raw");
		await third.close();
	});
	// Not the last record of the journal: what is where cannot be told any more.
	world.corrupt("/r", rawFileName, rawLimits.headBytes + 60, 1);
	const fourth = await open();
	assert.equal(fourth.foreign === undefined ? "readable" : "foreign", "foreign", "a record in the middle");
	await assert.rejects(
		world.run(fourth.open("f", { create: true })),
		(error) => isFsError(error, "REFUSED") && error.site === "platform.raw-foreign",
	);
	assert.deepEqual(await world.run(fourth.list("")), []);
	await world.run(fourth.close());
	const fifth = await open();
	fifth.disregard?.();
	await world.run(put(fifth));
	await world.run(fifth.close());
	assert.deepEqual(await world.run((await open()).list("")), ["f"]);
});

test("a table that is damaged under an open disk is found and written anew, and nonsense in the old copy harms nobody", async () => {
	const world = rawWorld(8);
	const node = world.node();
	const layout = newLayout(capacityBytes, new Uint8Array(16), "/r");
	await world.run(async () => {
		const disk = await node.boot().openDisk("/r");
		await (await disk.open("f", { create: true })).sync("test.raw");
		assert.deepEqual(await disk.verifyTable?.(true), { checked: 3, corrupt: 0, repaired: 0 });
		// The highest byte of the generation: such a number cannot be.
		world.corrupt("/r", rawFileName, tableAt(layout, 0) + 8 + 16 + 7, 1);
		assert.deepEqual(await disk.verifyTable?.(false), { checked: 3, corrupt: 1, repaired: 0 });
		assert.deepEqual(await disk.verifyTable?.(true), { checked: 3, corrupt: 1, repaired: 1 });
		assert.deepEqual(await disk.verifyTable?.(true), { checked: 3, corrupt: 0, repaired: 0 });
		await (await disk.open("g", { create: true })).sync("test.raw");
		node.powerCut();
		const again = await node.boot().openDisk("/r");
		assert.deepEqual(await again.list(""), ["f", "g"]);
	});
});

test("marks of file systems and others are known", () => {
	const first = new Uint8Array(128 * 1024);
	const last = new Uint8Array(64 * 1024);
	assert.equal(recognise(first, last), undefined);
	for (const [at, mark, words] of [
		[1080, "\x53\xef", /ext4/],
		[0, "XFSB", /XFS/],
		[65_600, "_BHRfS_M", /Btrfs/],
		[512, "EFI PART", /GPT/],
		[510, "\x55\xaa", /partition table/],
		[0, "LUKS\xba\xbe", /LUKS/],
		[4086, "SWAPSPACE2", /swap/],
		[536, "LABELONE", /unknown/],
		[1024, "LABELONE", /LVM/],
		[70_000, "x", /unknown/],
	] as const) {
		const bytes = first.slice();
		for (let i = 0; i < mark.length; i++) bytes[at + i] = mark.charCodeAt(i);
		assert.match(recognise(bytes, last) ?? "", words);
	}
	last[100] = 1;
	assert.match(recognise(first, last) ?? "", /unknown/);
});

test("free units: what is taken and given back adds up", () => {
	const random = new Prng(9, "units");
	const free = new FreeUnits(1000);
	const taken: { unit: number; count: number }[] = [];
	for (let i = 0; i < 5000; i++) {
		if (random.below(2) === 0 || taken.length === 0) {
			const count = 1 + random.below(40);
			const runs = free.take(count, taken.at(-1)?.unit);
			if (runs === undefined) assert(count > free.count, `${count} of ${free.count}`);
			else taken.push(...runs);
		} else for (const run of taken.splice(random.below(taken.length), 1)) free.give(run);
		const sum = taken.reduce((all, run) => all + run.count, 0);
		assert.equal(free.count + sum, 1000);
	}
	const seen = new Set(taken.flatMap((run) => Array.from({ length: run.count }, (_, i) => run.unit + i)));
	assert.equal(seen.size, 1000 - free.count, "no unit is out twice");
});
