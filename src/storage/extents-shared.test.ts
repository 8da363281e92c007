/** Reserved extents and chunks that several files share, against models of whole files. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Chunk } from "../records/interface.ts";
import { chunkRecord, extentBlockRecord, segmentRecord } from "../records/kinds.ts";
import { type Attempt, context, newChunk, newSegment, randomOf, recount, run, Store } from "./extents.test-support.ts";
import { coverage, map, punch, reserve, seek, share, truncate, write } from "./extents.ts";
import type { StorageEffects } from "./interface.ts";

const MiB = 1024 * 1024;
const fileBytes = 600;
const inos = [7, 8, 9];
/** What a byte of a file is: a hole, reserved, or a byte of a chunk (chunk × 65,536 + offset + 1). */
const hole = 0;
const reservedByte = -1;

class Files {
	readonly store = new Store();
	readonly bytes = new Map(inos.map((ino) => [ino, new Float64Array(fileBytes)]));
	readonly random: (bound: number) => number;
	readonly #message: string;
	#reserved = 0;
	#ids = 0;
	#stored = 0;
	readonly #live = new Set<number>();

	constructor(seed: number) {
		this.#message = `seed ${seed}`;
		this.random = randomOf(seed);
	}

	#transaction<T extends { readonly storedDelta: number }>(budget: number, fn: (tx: Attempt, effects: StorageEffects) => T): T {
		let effects: StorageEffects | undefined;
		const { result, tx, freed } = run(this.store, (attempt, its) => {
			effects = its;
			return fn(attempt, its);
		});
		assert.ok(tx.changeCount <= budget, `${this.#message}: ${tx.changeCount} changes, budget ${budget}`);
		this.#reserved += effects?.reservedDelta ?? 0;
		assert.equal(this.#reserved, recount(this.store, this.#message), `${this.#message}: reserved bytes`);
		this.#stored += result.storedDelta;
		const now = new Set(this.store.all(segmentRecord).map((segment) => segment.id));
		const died = [...this.#live].filter((id) => !now.has(id)).sort((a, b) => a - b);
		assert.deepEqual(
			freed.map((segment) => segment.id).sort((a, b) => a - b),
			died,
			`${this.#message}: freed exactly what died`,
		);
		this.#live.clear();
		for (const id of now) this.#live.add(id);
		return result;
	}

	of(ino: number): Float64Array {
		return this.bytes.get(ino) as Float64Array;
	}

	write(ino: number, offset: number, length: number, budget: number): void {
		let segment = newSegment(++this.#ids, length);
		let chunk: Chunk = newChunk(this.#ids, segment, 0, length);
		for (let at = offset; at < offset + length; ) {
			const from = at;
			const left = offset + length - from;
			const done = this.#transaction(budget, (tx, effects) =>
				write(tx, context, effects, ino, from, left, chunk, segment, from - offset, budget),
			);
			assert.ok(done.doneTo > from, `${this.#message}: a write gets somewhere`);
			({ chunk, segment, doneTo: at } = done);
		}
		for (let i = 0; i < length; i++) this.of(ino)[offset + i] = chunk.id * 65_536 + i + 1;
	}

	reserve(ino: number, offset: number, length: number, everything: boolean, budget: number): void {
		for (let at = offset; at < offset + length; ) {
			const from = at;
			const left = offset + length - from;
			const done = this.#transaction(budget, (tx, effects) => reserve(tx, context, effects, ino, from, left, everything, budget));
			assert.ok(done.doneTo > from, `${this.#message}: a reservation gets somewhere`);
			at = done.doneTo;
		}
		for (let i = offset; i < offset + length; i++) if (everything || this.of(ino)[i] === hole) this.of(ino)[i] = reservedByte;
	}

	release(ino: number, offset: number, length: number, budget: number): void {
		for (let at = offset; at < offset + length; ) {
			const from = at;
			const left = offset + length - from;
			const done = this.#transaction(budget, (tx, effects) => punch(tx, context, effects, ino, from, left, budget));
			assert.ok(done.doneTo > from, `${this.#message}: a punch gets somewhere`);
			at = done.doneTo;
		}
		this.of(ino).fill(hole, offset, offset + length);
	}

	share(source: number, from: number, target: number, to: number, length: number, budget: number): void {
		const bytes = this.of(source).slice(from, from + length);
		for (let done = 0; done < length; ) {
			const past = done;
			const step = this.#transaction(budget, (tx, effects) =>
				share(tx, context, effects, { ino: source, offset: from + past }, { ino: target, offset: to + past }, length - past, budget),
			);
			assert.ok(step.doneBytes > 0, `${this.#message}: a copy gets somewhere`);
			done += step.doneBytes;
		}
		for (let i = 0; i < length; i++) this.of(target)[to + i] = Math.max(hole, bytes[i] as number);
	}

	step(budget: number): void {
		const { random } = this;
		const [ino, other] = [inos[random(3)] as number, inos[random(3)] as number];
		const offset = random(fileBytes);
		const length = 1 + random(Math.min(150, fileBytes - offset));
		const kind = random(12);
		if (kind < 4) this.write(ino, offset, length, budget);
		else if (kind < 5) this.reserve(ino, offset, length, false, budget);
		else if (kind < 6) this.reserve(ino, offset, length, true, budget);
		else if (kind < 8) this.release(ino, offset, length, budget);
		else {
			const to = random(fileBytes - length + 1);
			if (ino !== other || Math.abs(to - offset) >= length) this.share(ino, offset, other, to, length, budget);
		}
		this.check(ino);
	}

	check(ino: number): void {
		const tx = this.store.begin();
		const expected = this.of(ino);
		const seen = new Float64Array(fileBytes);
		for (const range of map(tx, ino, 0, fileBytes)) {
			const base = range.chunk.id * 65_536 + range.payloadOffset - range.chunk.offset + 1;
			for (let i = 0; i < range.length; i++) seen[range.offset + i] = base + i;
		}
		assert.deepEqual(
			seen,
			expected.map((byte) => Math.max(hole, byte)),
			`${this.#message}: map of ${ino}`,
		);
		const offset = this.random(fileBytes);
		const part = expected.subarray(offset);
		const covered = coverage(tx, ino, offset, part.length);
		const count = (is: (byte: number) => boolean): number => part.filter(is).length;
		assert.deepEqual(
			covered,
			{ dataBytes: count((byte) => byte > 0), reservedBytes: count((byte) => byte < 0), doneTo: fileBytes },
			`${this.#message}: coverage`,
		);
		for (const what of ["data", "hole"] as const) {
			const index = part.findIndex((byte) => byte > 0 === (what === "data"));
			const wanted = index < 0 ? { found: false, doneTo: fileBytes } : { found: true, doneTo: offset + index };
			assert.deepEqual(seek(tx, ino, offset, fileBytes, what), wanted, `${this.#message}: ${what} behind ${offset}`);
		}
		const stored = [...this.bytes.values()].reduce((sum, bytes) => sum + bytes.filter((byte) => byte !== hole).length, 0);
		assert.equal(this.#stored, stored, `${this.#message}: stored bytes`);
	}

	clear(budget: number): void {
		for (const ino of inos) {
			for (let done = false; !done; ) done = this.#transaction(budget, (tx, effects) => truncate(tx, effects, ino, 0, budget)).done;
		}
		assert.equal(this.store.values.size, 0, `${this.#message}: records are left over`);
	}
}

describe("extents: reserved and shared, against a model", () => {
	for (const [seed, budget] of [
		[1, 5],
		[2, 7],
		[3, 12],
		[4, 100],
		[5, 6],
		[6, 40],
	] as const) {
		test(`seed ${seed}, budget ${budget}`, () => {
			const files = new Files(seed);
			for (let i = 0; i < 200; i++) files.step(budget);
			files.clear(budget);
		});
	}
});

describe("extents: shared chunks", () => {
	test("a chunk lives until the last file lets go of it, and its live bytes are what is referenced", () => {
		const files = new Files(1);
		files.write(7, 0, 100, 40);
		files.share(7, 0, 8, 0, 100, 40);
		files.share(7, 0, 9, 50, 100, 40);
		const counts = (): unknown => files.store.all(chunkRecord).map((chunk) => [chunk.references, chunk.referencedBytes]);
		const live = (): unknown => files.store.all(segmentRecord).map((segment) => segment.liveBytes);
		assert.deepEqual([counts(), live()], [[[3, 300]], [100]]);
		files.release(7, 0, 100, 40);
		files.release(8, 0, 100, 40);
		assert.deepEqual([counts(), live()], [[[1, 100]], [100]]);
		files.release(9, 50, 30, 40);
		assert.deepEqual([counts(), live()], [[[1, 70]], [70]]);
		files.release(9, 0, 200, 40);
		assert.deepEqual([counts(), live()], [[], []]);
	});

	test("16 GiB are reserved in bounded steps, one extent a block", () => {
		const store = new Store();
		const length = 2 ** 34;
		let reserved = 0;
		for (let at = 0; at < length; ) {
			const from = at;
			const { result, tx } = run(store, (attempt, effects) => {
				const done = reserve(attempt, context, effects, 7, from, length - from, false, 80);
				reserved += effects.reservedDelta;
				return done;
			});
			assert.ok(result.doneTo > from && tx.changeCount <= 80);
			at = result.doneTo;
		}
		assert.equal(reserved, length);
		assert.equal(recount(store, "reserved"), length);
		const blocks = store.all(extentBlockRecord);
		assert.equal(blocks.length, length / (64 * MiB));
		assert.ok(
			blocks.every((block) => block.extents.length === 1),
			"one extent a block",
		);
		let there = { dataBytes: 0, reservedBytes: 0, doneTo: 0 };
		for (let looks = 0; there.doneTo < length; looks++) {
			const next = coverage(store.begin(), 7, there.doneTo, length - there.doneTo);
			assert.ok(looks < 10 && next.doneTo > there.doneTo);
			there = { ...next, reservedBytes: there.reservedBytes + next.reservedBytes };
		}
		assert.equal(there.reservedBytes, length);
	});
});
