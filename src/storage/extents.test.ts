import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { isFsError } from "../base/errors.ts";
import type { Chunk, Segment } from "../records/interface.ts";
import { chunkRecord, extentBlockRecord, segmentRecord } from "../records/kinds.ts";
import { type Attempt, context, newChunk, newSegment, noEffects, randomOf, recount, run, Store } from "./extents.test-support.ts";
import { map, punch, truncate, write, writeAll } from "./extents.ts";
import type { ExtentPiece, StorageEffects } from "./interface.ts";

const MiB = 1024 * 1024;
const ino = 7;

/** A file as the owner of each of its bytes: chunk × 2^16 + offset in the chunk, plus 1; 0 = hole. */
class Model {
	readonly #store = new Store();
	readonly #owners: Float64Array;
	readonly #random: (bound: number) => number;
	readonly #message: string;
	readonly #live = new Set<number>();
	readonly #dead = new Set<number>();
	#ids = 0;
	stored = 0;

	constructor(seed: number, sizeBytes: number) {
		this.#message = `seed ${seed}`;
		this.#random = randomOf(seed);
		this.#owners = new Float64Array(sizeBytes);
	}

	get blocks(): number {
		return this.#store.all(extentBlockRecord).length;
	}

	#transaction<T>(budget: number, fn: (tx: Attempt, effects: StorageEffects) => T): T {
		const { result, tx, freed } = run(this.#store, fn);
		assert.ok(tx.changeCount <= budget, `${this.#message}: ${tx.changeCount} changes, budget ${budget}`);
		recount(this.#store, this.#message);
		const segments = new Set(this.#store.all(segmentRecord).map((segment) => segment.id));
		const died = [...this.#live].filter((id) => !segments.has(id)).sort((a, b) => a - b);
		assert.deepEqual(
			freed.map((segment) => segment.id).sort((a, b) => a - b),
			died,
			`${this.#message}: freed exactly what died`,
		);
		for (const id of died) {
			assert.ok(!this.#dead.has(id), `${this.#message}: segment ${id} dies once`);
			this.#dead.add(id);
			this.#live.delete(id);
		}
		for (const id of segments) this.#live.add(id);
		return result;
	}

	/** Single bytes with gaps between them, none of which continues another. */
	scatter(count: number): void {
		const segment = newSegment(++this.#ids, count);
		const chunk = newChunk(++this.#ids, segment, 0, count);
		const pieces = Array.from({ length: count }, (_, i) => ({ offset: 4 * i, length: 1, chunk, chunkOffset: count - 1 - i }));
		const done = this.#transaction(40, (tx, effects) => writeAll(tx, context, effects, ino, pieces, segment, 40));
		assert.equal(done.doneCount, count);
		this.stored += done.storedDelta;
		for (const piece of pieces) this.#own(piece.offset, piece.offset + 1, chunk.id, piece.chunkOffset);
	}

	step(budget: number, maximumBytes: number, truncates = true): void {
		const size = this.#owners.length;
		const offset = this.#random(size);
		const length = 1 + this.#random(Math.min(maximumBytes, size - offset));
		const kind = this.#random(20);
		if (kind === 0 && truncates) this.#truncate(offset, budget);
		else if (kind < 4) this.#punch(offset, length, budget);
		else if (kind < 14) this.#write(offset, length, budget);
		else this.#writeAll(offset, budget, maximumBytes);
		if (this.#random(8) === 0) this.check();
	}

	#write(offset: number, length: number, budget: number): void {
		const lead = this.#random(3);
		let segment = newSegment(++this.#ids, lead + length + 10);
		let chunk = newChunk(++this.#ids, segment, this.#random(5), lead + length + this.#random(5));
		const end = offset + length;
		for (let at = offset; at < end; ) {
			const from = at;
			const done = this.#transaction(budget, (tx, effects) =>
				write(tx, context, effects, ino, from, end - from, chunk, segment, lead + from - offset, budget),
			);
			assert.ok(done.doneTo > at, `${this.#message}: a write gets somewhere`);
			({ chunk, segment, doneTo: at } = done);
			this.stored += done.storedDelta;
			this.#own(from, at, chunk.id, lead + from - offset);
		}
	}

	#writeAll(offset: number, budget: number, maximumBytes: number): void {
		let segment = newSegment(++this.#ids, 1 << 20);
		let pieces: ExtentPiece[] = [];
		for (let at = offset, used = 0, count = this.#random(6); count >= 0 && at < this.#owners.length; count--) {
			const length = 1 + this.#random(Math.min(maximumBytes, this.#owners.length - at));
			pieces.push({ offset: at, length, chunk: newChunk(++this.#ids, segment, used, length), chunkOffset: 0 });
			used += length;
			at += length + (this.#random(2) === 0 ? 0 : this.#random(maximumBytes));
		}
		while (pieces.length > 0) {
			const now = pieces;
			const done = this.#transaction(budget, (tx, effects) => writeAll(tx, context, effects, ino, now, segment, budget));
			const [next, ...rest] = now.slice(done.doneCount);
			for (const piece of now.slice(0, done.doneCount))
				this.#own(piece.offset, piece.offset + piece.length, piece.chunk.id, piece.chunkOffset);
			if (next !== undefined && done.doneTo > next.offset) this.#own(next.offset, done.doneTo, next.chunk.id, next.chunkOffset);
			assert.ok(done.doneCount > 0 || done.doneTo > (next as ExtentPiece).offset, `${this.#message}: writes get somewhere`);
			segment = done.segment;
			this.stored += done.storedDelta;
			pieces = next === undefined ? [] : [this.#left(next, done.doneTo, done.chunk as Chunk), ...rest];
		}
	}

	#left(piece: ExtentPiece, doneTo: number, chunk: Chunk): ExtentPiece {
		const past = Math.max(0, doneTo - piece.offset);
		return { offset: piece.offset + past, length: piece.length - past, chunk, chunkOffset: piece.chunkOffset + past };
	}

	#own(from: number, to: number, chunk: number, chunkOffset: number): void {
		for (let at = from; at < to; at++) this.#owners[at] = chunk * 65_536 + chunkOffset + at - from + 1;
	}

	#punch(offset: number, length: number, budget: number): void {
		for (let at = offset; at < offset + length; ) {
			const from = at;
			const done = this.#transaction(budget, (tx, effects) => punch(tx, context, effects, ino, from, offset + length - from, budget));
			assert.ok(done.doneTo > at, `${this.#message}: a punch gets somewhere`);
			this.#owners.fill(0, at, done.doneTo);
			at = done.doneTo;
			this.stored += done.storedDelta;
		}
	}

	#truncate(size: number, budget: number): void {
		let from = size;
		for (;;) {
			const start = this.#random(2) === 0 ? size : from;
			const done = this.#transaction(budget, (tx, effects) => truncate(tx, effects, ino, size, budget, start));
			this.#owners.fill(0, size, Math.min(done.doneTo, this.#owners.length));
			this.stored += done.storedDelta;
			if (done.done) break;
			assert.ok(done.storedDelta < 0, `${this.#message}: a truncation gets somewhere`);
			from = done.doneTo;
		}
		this.#owners.fill(0, size);
	}

	check(): void {
		const size = this.#owners.length;
		const seen = new Float64Array(size);
		const offset = this.#random(size);
		const end = offset + this.#random(size - offset);
		for (const range of map(this.#store.begin(), ino, offset, end - offset)) {
			assert.ok(range.offset >= offset && range.offset + range.length <= end, `${this.#message}: map stays inside`);
			const base = range.chunk.id * 65_536 + range.payloadOffset - range.chunk.offset + 1;
			for (let i = 0; i < range.length; i++) seen[range.offset + i] = base + i;
		}
		assert.deepEqual(seen.subarray(offset, end), this.#owners.subarray(offset, end), `${this.#message}: map of [${offset}, ${end})`);
		assert.equal(
			this.stored,
			this.#owners.reduce((sum, owner) => sum + (owner === 0 ? 0 : 1), 0),
			`${this.#message}: stored bytes`,
		);
	}
}

describe("extents: against an owner for each byte", () => {
	for (const [seed, budget] of [
		[1, 5],
		[2, 6],
		[3, 7],
		[4, 9],
		[5, 100],
		[6, 13],
		[7, 5],
		[8, 30],
	] as const) {
		test(`seed ${seed}, budget ${budget}`, () => {
			const model = new Model(seed, 700);
			for (let i = 0; i < 150; i++) model.step(budget, 120);
			model.check();
		});
	}

	test("seed 9, a full map that splits and is overwritten", () => {
		const model = new Model(9, 5000);
		model.scatter(1020);
		assert.equal(model.blocks, 1);
		for (let i = 0; i < 120; i++) model.step(40, 1, false);
		model.check();
		const blocks = model.blocks;
		assert.ok(blocks > 1, "blocks have split");
		for (let i = 0; i < 40; i++) model.step(9, 3000);
		model.check();
	});
});

/** Writes one chunk in one transaction. */
function put(store: Store, id: number, offset: number, length: number): Segment {
	const segment = newSegment(id, length);
	const done = run(store, (tx, effects) =>
		write(tx, context, effects, ino, offset, length, newChunk(id, segment, 0, length), segment, 0, 100),
	);
	assert.equal(done.result.doneTo, offset + length);
	return done.result.segment;
}

describe("extents: blocks", () => {
	test("a file that goes on in the same chunk has one extent", () => {
		const store = new Store();
		let segment = newSegment(1, 1000);
		let chunk = newChunk(1, segment, 0, 1000);
		for (const at of [0, 500, 250, 750]) {
			const done = run(store, (tx, effects) => write(tx, context, effects, ino, at, 250, chunk, segment, at, 10));
			({ chunk, segment } = done.result);
		}
		const [block] = store.all(extentBlockRecord);
		assert.deepEqual(block?.extents, [{ offset: 0, length: 1000, chunk: 1, chunkOffset: 0 }]);
		assert.deepEqual([chunk.references, chunk.referencedBytes, segment.liveBytes], [1, 1000, 1000]);
	});

	test("a piece across a window is two extents of one chunk", () => {
		const store = new Store();
		put(store, 1, 64 * MiB - 100, 300);
		recount(store, "window");
		assert.deepEqual(
			store.all(chunkRecord).map((chunk) => [chunk.references, chunk.referencedBytes]),
			[[2, 300]],
		);
		assert.deepEqual(
			map(store.begin(), ino, 0, 128 * MiB).map((range) => [range.offset, range.length, range.payloadOffset]),
			[
				[64 * MiB - 100, 100, 0],
				[64 * MiB, 200, 100],
			],
		);
	});

	test("a full block splits in halves, down to the least span, and every byte stays where it is", () => {
		const store = new Store();
		const count = 1024;
		const segment = newSegment(1, count);
		const chunk = newChunk(1, segment, 0, count);
		// One chunk backwards: no two neighbours continue each other.
		const pieces = Array.from({ length: count }, (_, i) => ({ offset: 8192 + i, length: 1, chunk, chunkOffset: count - 1 - i }));
		const filled = run(store, (tx, effects) => writeAll(tx, context, effects, ino, pieces, segment, 40));
		assert.equal(filled.result.doneCount, count);
		assert.equal(filled.tx.changeCount, 3);
		put(store, 2, 0, 1);
		recount(store, "split");
		const blocks = store.all(extentBlockRecord);
		assert.deepEqual(
			blocks.map((block) => [block.start, block.span, block.extents.length]),
			[
				[0, 8192, 1],
				[8192, 8192, 1024],
			],
		);
		const ranges = map(store.begin(), ino, 0, MiB);
		assert.equal(ranges.length, count + 1);
		assert.ok(ranges.slice(1).every((range, i) => range.offset === 8192 + i && range.payloadOffset === count - 1 - i));
	});

	test("an extent across the middle of a block that splits becomes two", () => {
		const store = new Store();
		put(store, 1, 32 * MiB - 500, 1000);
		const segment = newSegment(2, 2000);
		const chunk = newChunk(2, segment, 0, 2000);
		const pieces = Array.from({ length: 1100 }, (_, i) => ({ offset: 2 * i, length: 1, chunk, chunkOffset: i }));
		run(store, (tx, effects) => assert.equal(writeAll(tx, context, effects, ino, pieces, segment, 100).doneCount, 1100));
		recount(store, "split");
		assert.equal(store.all(chunkRecord)[0]?.references, 2);
		assert.deepEqual(
			map(store.begin(), ino, MiB, 63 * MiB).map((range) => [range.offset, range.length, range.payloadOffset]),
			[
				[32 * MiB - 500, 500, 0],
				[32 * MiB, 500, 500],
			],
		);
	});

	test("a new block never overlaps what is left of a split one", () => {
		const store = new Store();
		const segment = newSegment(1, 4096);
		const chunk = newChunk(1, segment, 0, 4096);
		const pieces = Array.from({ length: 2000 }, (_, i) => ({ offset: 3 * i, length: 1, chunk, chunkOffset: i }));
		run(store, (tx, effects) => assert.equal(writeAll(tx, context, effects, ino, pieces, segment, 40).doneCount, 2000));
		recount(store, "split");
		run(store, (tx, effects) => assert.equal(punch(tx, context, effects, ino, 0, 3000, 100).doneTo, 3000));
		put(store, 2, 5, 10);
		put(store, 3, 50 * MiB, 10);
		recount(store, "after");
		assert.equal(map(store.begin(), ino, 0, 3000).length, 1);
	});

	test("blocks without extents are gone", () => {
		const store = new Store();
		put(store, 1, 0, 100);
		put(store, 2, 100 * MiB, 100);
		const cut = run(store, (tx, effects) => truncate(tx, effects, ino, 0, 100));
		assert.deepEqual([cut.result.done, cut.result.storedDelta, cut.freed.length], [true, -200, 2]);
		assert.equal(store.values.size, 0);
	});
});

describe("extents: bounds", () => {
	test("holes of terabytes are jumped over", () => {
		const store = new Store();
		const far = 2 ** 43;
		put(store, 1, 0, 4096);
		put(store, 2, far, 4096);
		const tx = store.begin();
		assert.deepEqual(
			map(tx, ino, 0, far + 4096).map((range) => [range.offset, range.length]),
			[
				[0, 4096],
				[far, 4096],
			],
		);
		assert.ok(tx.scans + tx.gets < 60, `${tx.scans} scans, ${tx.gets} reads`);
		assert.deepEqual(map(store.begin(), ino, 4096, far - 4096), []);
		const punched = run(store, (inner, effects) => punch(inner, context, effects, ino, 1, far + 10, 100));
		assert.deepEqual([punched.result.doneTo, punched.result.storedDelta], [far + 11, -4095 - 11]);
		assert.ok(punched.tx.scans + punched.tx.gets < 80);
		const cut = run(store, (inner, effects) => truncate(inner, effects, ino, 1, 100));
		assert.deepEqual([cut.result.done, cut.result.storedDelta], [true, -4096 + 11]);
		assert.equal(map(store.begin(), ino, 0, 2 ** 53 - 1).length, 1);
		recount(store, "sparse");
	});

	test("a budget of nothing changes nothing", () => {
		const store = new Store();
		put(store, 1, 0, 100);
		const segment = newSegment(2, 100);
		for (let budget = 0; budget < 5; budget++) {
			const tx = store.begin();
			assert.equal(write(tx, context, noEffects(), ino, 0, 100, newChunk(2, segment, 0, 100), segment, 0, budget).doneTo, 0);
			assert.equal(tx.changeCount, 0);
		}
	});

	test("a transaction does not outgrow its bytes", () => {
		const store = new Store();
		const windows = 40;
		for (let window = 0; window < windows; window++) {
			const segment = newSegment(window + 1, 1024);
			const chunk = newChunk(window + 1, segment, 0, 1024);
			const pieces = Array.from({ length: 1000 }, (_, i) => ({ offset: window * 64 * MiB + i * 4096, length: 1, chunk, chunkOffset: i }));
			run(store, (tx, effects) => assert.equal(writeAll(tx, context, effects, ino, pieces, segment, 40).doneCount, 1000));
		}
		let transactions = 0;
		for (let at = 0; at < windows * 64 * MiB; transactions++) {
			const from = at;
			const done = run(store, (tx, effects) => punch(tx, context, effects, ino, from, windows * 64 * MiB - from, 10_000));
			assert.ok(done.tx.changeBytes <= 450 * 1024);
			at = done.result.doneTo;
		}
		assert.ok(transactions > 1);
		assert.equal(store.values.size, 0);
	});
});

describe("extents: what must not happen", () => {
	test("a chunk that died between two transactions of its seal is refused, not revived", () => {
		const store = new Store();
		for (let window = 0; window < 5; window++) put(store, window + 1, window * 64 * MiB, 64 * MiB);
		const segment = newSegment(20, 100);
		const first = run(store, (tx, effects) => write(tx, context, effects, ino, 0, 50, newChunk(21, segment, 0, 100), segment, 0, 100));
		const { chunk, segment: committed } = first.result;
		assert.deepEqual([chunk.referencedBytes, committed.liveBytes], [50, 50]);
		const second = run(store, (tx, effects) => punch(tx, context, effects, ino, 0, 50, 100));
		assert.deepEqual(
			second.freed.map((one) => one.id),
			[20],
		);
		const refused = (error: unknown): boolean => isFsError(error, "ESTALE");
		const other = newChunk(22, committed, 50, 50);
		assert.throws(() => write(store.begin(), context, noEffects(), ino, 50, 50, chunk, committed, 50, 100), refused);
		assert.throws(() => write(store.begin(), context, noEffects(), ino, 50, 50, other, committed, 0, 100), refused);
	});

	test("an extent whose chunk or segment is not there is reported", () => {
		for (const kind of ["chunk", "segment"]) {
			const store = new Store();
			put(store, 1, 0, 100);
			store.values.delete(kind === "chunk" ? chunkRecord.key(1) : segmentRecord.key(1));
			const corrupt = (error: unknown): boolean => isFsError(error, "CORRUPT") && error.message.includes(kind);
			assert.throws(() => map(store.begin(), ino, 0, 10), corrupt);
			assert.throws(() => punch(store.begin(), context, noEffects(), ino, 0, 10, 100), corrupt);
		}
	});

	test("counts that are wrong already stop a change", () => {
		const store = new Store();
		put(store, 1, 0, 100);
		const wrong = run(store, (tx) => {
			const chunk = tx.get(chunkRecord, 1) as Chunk;
			tx.put(chunkRecord, { ...chunk, references: 2 }, 1);
		});
		assert.equal(wrong.tx.changeCount, 1);
		assert.throws(
			() => punch(store.begin(), context, noEffects(), ino, 0, 100, 100),
			(error) => isFsError(error, "CORRUPT"),
		);
	});

	test("two extents of one chunk: it dies with the last of them", () => {
		const store = new Store();
		const segment = put(store, 1, 0, 100);
		const chunk = store.all(chunkRecord)[0] as Chunk;
		run(store, (tx, effects) => write(tx, context, effects, ino, 1000, 100, chunk, segment, 0, 100));
		recount(store, "shared");
		const first = run(store, (tx, effects) => punch(tx, context, effects, ino, 0, 100, 100));
		assert.equal(first.freed.length, 0);
		recount(store, "one left");
		const last = run(store, (tx, effects) => truncate(tx, effects, ino, 0, 100));
		assert.deepEqual(
			last.freed.map((one) => [one.id, one.liveBytes]),
			[[1, 0]],
		);
		assert.equal(store.values.size, 0);
	});
});
