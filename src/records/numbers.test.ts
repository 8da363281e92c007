import assert from "node:assert/strict";
import { test } from "node:test";
import { MapStore, TestVolume } from "../../test/support/map-records.ts";
import { isFsError } from "../base/errors.ts";
import type { RecordTransaction } from "./interface.ts";
import { volumeRecord } from "./kinds.ts";
import { inoCountersPerGroup, numberBlock, numberLowWater } from "./limits.ts";
import { groupOf, makeIno, NumberBlocks } from "./numbers.ts";

const runOn =
	(store: MapStore) =>
	async <T>(fn: (tx: RecordTransaction) => T): Promise<{ result: T }> => {
		await Promise.resolve();
		return { result: store.run(fn) };
	};

test("no number comes twice, over many blocks and several lives", async () => {
	const { store } = await TestVolume.empty();
	const seen = { ino: new Set<number>(), chunk: new Set<number>(), segment: new Set<number>(), pending: new Set<number>() };
	const fresh = (set: Set<number>, number: number): void => {
		assert.ok(!set.has(number) && number > 0, `${number} again`);
		set.add(number);
	};
	for (let life = 0; life < 3; life++) {
		const numbers = new NumberBlocks();
		for (let i = 0; i < numberBlock + 500; i++) {
			if (numbers.low) await numbers.ensure(runOn(store));
			fresh(seen.ino, numbers.ino(0));
			if (i % 3 === 0) fresh(seen.chunk, numbers.chunk());
			if (i % 5 === 0) fresh(seen.segment, numbers.segment());
			fresh(seen.pending, numbers.pending());
		}
	}
	assert.ok(!seen.ino.has(1), "the root's number is taken");
});

test("the volume record has passed a block before a number of it is given out", async () => {
	const { store } = await TestVolume.empty();
	const numbers = new NumberBlocks();
	for (let i = 0; i < 3 * numberBlock; i++) {
		if (numbers.low) await numbers.ensure(runOn(store));
		const chunk = numbers.chunk();
		if (i % 97 === 0) assert.ok(chunk < (store.run((tx) => tx.get(volumeRecord))?.nextChunk ?? 0));
	}
});

test("refills come ahead of use: as many numbers as the low-water mark are there without a wait", async () => {
	const { store } = await TestVolume.empty();
	const numbers = new NumberBlocks();
	assert.equal(numbers.low, true);
	await numbers.ensure(runOn(store));
	while (!numbers.low) numbers.chunk();
	for (let i = 1; i < numberLowWater; i++) numbers.chunk();
	assert.throws(
		() => numbers.chunk(),
		(error) => isFsError(error, "EAGAIN"),
	);
	await numbers.ensure(runOn(store));
	assert.ok(numbers.chunk() > 0);
});

test("concurrent callers share one refill", async () => {
	const { store } = await TestVolume.empty();
	const numbers = new NumberBlocks();
	let transactions = 0;
	const run = async <T>(fn: (tx: RecordTransaction) => T): Promise<{ result: T }> => {
		transactions++;
		return runOn(store)(fn);
	};
	await Promise.all(Array.from({ length: 50 }, () => numbers.ensure(run)));
	assert.equal(transactions, 1);
});

test("blocks of a failed or repeated attempt are not used", async () => {
	const { store } = await TestVolume.empty();
	const numbers = new NumberBlocks();
	await assert.rejects(
		numbers.ensure(async () => Promise.reject(new Error("disk gone"))),
		/disk gone/,
	);
	assert.throws(
		() => numbers.segment(),
		(error) => isFsError(error, "EAGAIN"),
	);
	const before = store.run((tx) => tx.get(volumeRecord))?.nextSegment;
	// The function runs twice, as after a conflict; only the second run is committed.
	await numbers.ensure(async (fn) => {
		try {
			store.run((tx) => {
				fn(tx);
				throw new Error("conflict");
			});
		} catch {}
		return { result: store.run(fn) };
	});
	assert.equal(numbers.segment(), before);
	assert.equal(store.run((tx) => tx.get(volumeRecord))?.nextSegment, (before ?? 0) + numberBlock);
});

test("groups: a new one is refused once, then served; a full one says so and does not stop the others", async () => {
	const { store } = await TestVolume.empty();
	const numbers = new NumberBlocks();
	await numbers.ensure(runOn(store));
	assert.throws(
		() => numbers.ino(4095),
		(error) => isFsError(error, "EAGAIN"),
	);
	assert.equal(numbers.low, true);
	await numbers.ensure(runOn(store));
	const ino = numbers.ino(4095);
	assert.equal(groupOf(ino), 4095);
	assert.ok(Number.isSafeInteger(makeIno(4095, inoCountersPerGroup - 1)));
	store.run((tx) => {
		const volume = tx.get(volumeRecord);
		assert.ok(volume);
		tx.put(volumeRecord, { ...volume, nextInoCounter: [...volume.nextInoCounter, { group: 7, next: inoCountersPerGroup - 2 }] });
	});
	assert.throws(() => numbers.ino(7));
	await numbers.ensure(runOn(store));
	assert.equal(numbers.ino(7), makeIno(7, inoCountersPerGroup - 2));
	assert.equal(numbers.ino(7), makeIno(7, inoCountersPerGroup - 1));
	assert.throws(
		() => numbers.ino(7),
		(error) => isFsError(error, "ENOSPC"),
	);
	assert.equal(numbers.low, false);
	assert.ok(numbers.ino(0) > 1);
});

test("without a volume record numbers are refused", async () => {
	await assert.rejects(
		new NumberBlocks().ensure(runOn(new MapStore())),
		(error) => isFsError(error, "CORRUPT") && error.site === "records.no-volume",
	);
});
