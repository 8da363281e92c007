import assert from "node:assert/strict";
import { test } from "node:test";
import { isFsError } from "../base/errors.ts";
import { Prng } from "../platform/sim/prng.ts";
import {
	batchBytes,
	type ChainedRecord,
	chainChecksum,
	decodeSegmentHeader,
	encodeBatch,
	encodeSegmentHeader,
	loneRecordBytes,
	recordAt,
	scanRecords,
	segmentHeaderBytes,
	segmentName,
	segmentNumber,
} from "./record.ts";

const volume = "12345678-9abc-4def-8123-456789abcdef";
const otherVolume = "02345678-9abc-4def-8123-456789abcdef";

function chain(random: Prng, count: number, largest: number): ChainedRecord[] {
	const records: ChainedRecord[] = [];
	let previous = random.u32();
	for (let i = 1; i <= count; i++) {
		const record = { sequence: 2 ** 33 + i, payload: random.bytes(random.below(largest)), previous };
		records.push(record);
		previous = chainChecksum(record);
	}
	return records;
}

/** A segment of batches with their places. */
function segmentOf(random: Prng, records: readonly ChainedRecord[], bytes: number): Uint8Array {
	const segment = new Uint8Array(bytes);
	let at = segmentHeaderBytes;
	for (let i = 0; i < records.length; ) {
		const batch = records.slice(i, i + 1 + random.below(4));
		segment.set(encodeBatch(batch, volume, 7, 99), at);
		at += batchBytes(batch);
		i += batch.length;
	}
	return segment;
}

test("batches are whole sectors, and their records are found with all their fields", () => {
	const random = new Prng(5, "t");
	const records = chain(random, 40, 1500);
	const segment = segmentOf(random, records, 128 * 1024);
	const found = [...scanRecords(segment, segmentHeaderBytes, volume)];
	assert.deepEqual(
		found.map(({ sequence, previous, payload }) => ({ sequence, previous, payload: payload.slice() })),
		records,
	);
	assert.ok(found.every((record) => record.epoch === 7 && record.acknowledged === 99));
	assert.equal([...scanRecords(segment, segmentHeaderBytes, otherVolume)].length, 0, "another volume's records are not ours");
	for (let bytes = 0; bytes < 2000; bytes += 37) {
		const one = [{ sequence: 1, payload: new Uint8Array(bytes), previous: 0 }];
		assert.equal(batchBytes(one), loneRecordBytes(bytes));
		assert.equal(encodeBatch(one, volume, 1, 0).length % 4096, 0);
		assert.equal(recordAt(encodeBatch(one, volume, 1, 0), 0, volume)?.payload.length, bytes);
	}
});

test("damage takes only the records that it touches", () => {
	for (let seed = 1; seed <= 60; seed++) {
		const random = new Prng(seed, "t");
		const records = chain(random, 30, 900);
		const segment = segmentOf(random, records, 96 * 1024);
		const places = [...scanRecords(segment, segmentHeaderBytes, volume)];
		const at = segmentHeaderBytes + random.below(20_000);
		const length = 1 + random.below(600);
		for (let i = at; i < at + length; i++) segment[i] = (segment[i] as number) ^ (1 + random.below(255));
		const found = new Set([...scanRecords(segment, segmentHeaderBytes, volume)].map((record) => record.sequence));
		for (const record of places) {
			const hit = record.offset < at + length && record.offset + 48 + record.payload.length > at;
			assert.equal(
				found.has(record.sequence),
				!hit,
				`seed ${seed}: record ${record.sequence} at ${record.offset}, damage at ${at}+${length}`,
			);
		}
		assert.ok(found.size <= places.length);
	}
});

test("any bytes are scanned without harm", () => {
	const random = new Prng(9, "fuzz");
	const good = encodeBatch(chain(random, 5, 200), volume, 3, 1);
	for (let round = 0; round < 2_000; round++) {
		const bytes = round % 2 === 0 ? random.bytes(random.below(2000)) : good.slice(0, random.below(good.length + 1));
		for (let i = 0; i < 4 && bytes.length > 0; i++) bytes[random.below(bytes.length)] = random.below(256);
		const found = [...scanRecords(bytes, random.below(64), volume)];
		assert.ok(found.length <= 5, `seed 9, round ${round}`);
		recordAt(bytes, random.below(2100), volume);
		try {
			decodeSegmentHeader(bytes, "fuzz");
		} catch (error) {
			assert.ok(isFsError(error, "CORRUPT"), `seed 9, round ${round}: ${String(error)}`);
		}
	}
});

test("segment headers name volume, disk and number; a newer one is refused", () => {
	const header = { volume, diskUuid: otherVolume, number: 17 };
	const bytes = encodeSegmentHeader(header);
	assert.equal(bytes.length, segmentHeaderBytes);
	assert.deepEqual(decodeSegmentHeader(bytes, "t"), header);
	bytes[300] = 1;
	assert.throws(
		() => decodeSegmentHeader(bytes, "t"),
		(error) => isFsError(error, "CORRUPT"),
	);
	for (const number of [0, 7, 15, 99, 100]) assert.equal(segmentNumber(segmentName(number).slice("log/".length)), number);
	assert.equal(segmentNumber("lost+found/"), undefined);
});
