import assert from "node:assert/strict";
import { test } from "node:test";
import { isFsError } from "../base/errors.ts";
import type { Memory } from "../platform/interface.ts";
import { Prng } from "../platform/sim/prng.ts";
import { MemoryTail, readMemoryTail } from "./memory-tail.ts";
import { type ChainedRecord, chainChecksum } from "./record.ts";

const identity = { volume: "12345678-9abc-4def-8123-456789abcdef", incarnation: 3 };

function memoryOf(bytes: Uint8Array): Memory {
	return { bytes, existed: true, close: async () => undefined };
}

function plain(records: readonly ChainedRecord[]): unknown {
	return records.map(({ sequence, previous, payload }) => ({ sequence, previous, payload: [...payload] }));
}

test("whatever was appended and not released is there, round and round the ring", () => {
	for (let seed = 1; seed <= 5; seed++) {
		const random = new Prng(seed, "t");
		const memory = memoryOf(new Uint8Array(64 * 1024 + 24));
		const tail = new MemoryTail(memory, identity, 10);
		let live: ChainedRecord[] = [];
		let sequence = 10;
		let previous = 1;
		for (let step = 0; step < 1_500; step++) {
			const payload = random.bytes(random.below(random.chance(0.1) ? 20_000 : 900));
			if (random.chance(0.6) && tail.hasRoom(payload.length)) {
				const record = { sequence: ++sequence, payload, previous };
				tail.append(record);
				previous = chainChecksum(record);
				live.push(record);
			} else if (live.length > 0) {
				const upTo = (live[random.below(live.length)] as ChainedRecord).sequence;
				tail.release(upTo);
				live = live.filter((record) => record.sequence > upTo);
			}
			if (step % 20 === 0) assert.deepEqual(plain(readMemoryTail(memory, identity)), plain(live), `seed ${seed}, step ${step}`);
		}
		tail.release(sequence);
		assert.equal(tail.liveBytes, 0);
		assert.ok(tail.hasRoom(tail.maximumPayload), "an empty one takes the largest payload wherever it stands");
	}
});

test("a process that dies between any two stores leaves the tail before or after the append or release", () => {
	const random = new Prng(77, "t");
	const bytes = new Uint8Array(64 * 1024);
	const tail = new MemoryTail(memoryOf(bytes), identity, 0);
	const live: ChainedRecord[] = [];
	const check = (what: string, act: () => void): void => {
		const before = bytes.slice();
		const wasLive = plain(live);
		act();
		const changed: number[] = [];
		for (let i = 0; i < bytes.length; i++) if (bytes[i] !== before[i]) changed.push(i);
		// Stores of one step may come to be in any order and number.
		for (let round = 0; round < 12; round++) {
			const torn = before.slice();
			for (const i of changed) if (random.chance(round / 12)) torn[i] = bytes[i] as number;
			const found = JSON.stringify(plain(readMemoryTail(memoryOf(torn), identity)));
			assert.ok(found === JSON.stringify(wasLive) || found === JSON.stringify(plain(live)), `seed 77: ${what}, round ${round}`);
		}
	};
	for (let sequence = 1; sequence <= 120; sequence++) {
		const record = { sequence, payload: random.bytes(random.below(1500)), previous: sequence };
		check(`append ${sequence}`, () => {
			tail.append(record);
			live.push(record);
		});
		if (sequence % 3 !== 0) continue;
		check(`release ${sequence - 1}`, () => {
			tail.release(sequence - 1);
			live.splice(0, live.length - 1);
		});
	}
});

test("another volume, another incarnation, an empty or foreign memory hold nothing", () => {
	const memory = memoryOf(new Uint8Array(64 * 1024));
	assert.deepEqual(readMemoryTail(memory, identity), []);
	new MemoryTail(memory, identity, 0).append({ sequence: 1, payload: new Uint8Array(5), previous: 0 });
	assert.equal(readMemoryTail(memory, identity).length, 1);
	assert.deepEqual(readMemoryTail(memory, { ...identity, incarnation: 4 }), []);
	assert.deepEqual(readMemoryTail(memory, { ...identity, volume: "02345678-9abc-4def-8123-456789abcdef" }), []);
	new MemoryTail(memory, { ...identity, incarnation: 4 }, 1);
	assert.deepEqual(readMemoryTail(memory, identity), [], "a new life empties it");
	assert.throws(
		() => new MemoryTail(memoryOf(new Uint8Array(1000)), identity, 0),
		(error) => isFsError(error, "EINVAL"),
	);
});

test("any bytes are read without harm", () => {
	const random = new Prng(8, "fuzz");
	const good = new Uint8Array(64 * 1024);
	const tail = new MemoryTail(memoryOf(good), identity, 0);
	for (let sequence = 1; sequence <= 30; sequence++) tail.append({ sequence, payload: random.bytes(random.below(2000)), previous: 0 });
	for (let round = 0; round < 400; round++) {
		const bytes = round % 10 === 0 ? random.bytes(random.below(80_000)) : good.slice();
		for (let i = random.below(20); i > 0 && bytes.length > 0; i--)
			bytes[random.below(round % 2 ? Math.min(bytes.length, 8192) : bytes.length)] = random.below(256);
		assert.ok(readMemoryTail(memoryOf(bytes), identity).length <= 30, `seed 8, round ${round}`);
	}
});
