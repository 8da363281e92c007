import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { isFsError } from "../base/errors.ts";
import type { Timestamp } from "../base/time.ts";
import type { Pending } from "../records/interface.ts";
import { createDirtyStore } from "./dirty.ts";
import type { RingDirtyStore } from "./dirty.ts";
import type { Captured, DirtyPiece } from "./interface.ts";
import { dirtyLimits } from "./limits.ts";
import { entryHeaderBytes } from "./ring.ts";

const volume = "01234567-89ab-cdef-0123-456789abcdef";
const pageBytes = 4096;
const clock = { monotonicMs: () => 5 };
const fileBytes = 1500;

function open(
	bytes: Uint8Array,
	incarnation: number,
	previous = incarnation - 1,
	more: { clean?: boolean; oldest?: number; volume?: string } = {},
): RingDirtyStore {
	const opened = { previousIncarnation: previous, oldestIncarnation: more.oldest ?? previous, clean: more.clean ?? false };
	const memory = { bytes, existed: true, close: async () => {} };
	return createDirtyStore({ volume: more.volume ?? volume, incarnation, opened }, { memory, clock });
}

/** xorshift32 */
function randomOf(seed: number): (bound: number) => number {
	let state = (Math.imul(seed, 2654435761) ^ 0x9e3779b9) >>> 0 || 1;
	return (bound) => {
		state ^= state << 13;
		state ^= state >>> 17;
		state ^= state << 5;
		state >>>= 0;
		return state % bound;
	};
}

const time = (seconds: number): Timestamp => ({ seconds, nanoseconds: seconds % 1000 });
const always = (): boolean => true;

function text(pieces: readonly DirtyPiece[]): string {
	return pieces.map((piece) => `${piece.offset}:${new TextDecoder().decode(piece.bytes)}`).join(" ");
}

const bytesOf = (words: string): Uint8Array => new TextEncoder().encode(words);

// ── a volume in small: what is in metadata, and what readers must see ────────────────────────────────────────────

interface Meta {
	readonly sealed: Uint8Array;
	sealedThrough: number;
	mtime: number;
	pendings: Map<number, Pending>;
}

interface Expected {
	/** What readers see, and which bytes of it are dirty. */
	readonly contents: Uint8Array;
	readonly dirty: Uint8Array;
	/** Which bytes were written since the capture that is out. */
	readonly active: Uint8Array;
	mtime: number;
}

/** Calls `look` before and after every store that others could see, in the middle of `fn` too. */
function watchingStores(look: () => void, fn: () => void): void {
	const original = Atomics.store;
	Atomics.store = ((array: Int32Array, index: number, value: number) => {
		look();
		const result = original(array, index, value);
		look();
		return result;
	}) as typeof Atomics.store;
	try {
		fn();
	} finally {
		Atomics.store = original;
	}
}

class Model {
	readonly #random: (bound: number) => number;
	readonly #message: string;
	#bytes: Uint8Array;
	#incarnation = 1;
	#store: RingDirtyStore;
	readonly #meta = new Map<number, Meta>();
	readonly #files = new Map<number, Expected>();
	readonly #captures = new Map<number, Captured>();
	#pendingIds = 0;
	#ticks = 0;
	fulls = 0;
	/** Records that were made beside a seal. */
	besides = 0;

	constructor(seed: number, ringBytes: number) {
		this.#random = randomOf(seed);
		this.#message = `seed ${seed}`;
		this.#bytes = new Uint8Array(pageBytes + ringBytes);
		this.#store = open(this.#bytes, 1);
		for (const ino of [2, 3, 4, 5]) {
			this.#meta.set(ino, { sealed: new Uint8Array(fileBytes), sealedThrough: 0, mtime: 0, pendings: new Map() });
			this.#files.set(ino, {
				contents: new Uint8Array(fileBytes),
				dirty: new Uint8Array(fileBytes),
				active: new Uint8Array(fileBytes),
				mtime: 0,
			});
		}
	}

	step(): void {
		const ino = 2 + this.#random(4);
		const kind = this.#random(100);
		if (kind < 55) this.#write(ino, this.#random(fileBytes), this.#random(12) === 0 ? 700 : 90);
		else if (kind < 65) this.#capture(ino);
		else if (kind < 75) this.#endCapture(ino);
		else if (kind < 82) this.#log(ino);
		else if (kind < 86) this.#truncate(ino, this.#random(fileBytes));
		else if (kind < 90) this.#setTime(ino);
		else if (kind < 91) this.#drop(ino);
		else if (kind < 93) this.#restart();
		else this.check(this.#store, ino);
	}

	/** Runs something and looks at what a kill in the middle of it would leave: what was before, or what is afterwards. */
	#killable(fn: () => void, expect: () => void): void {
		const copies: Uint8Array[] = [];
		const before = this.#freeze();
		if (this.#random(3) === 0) watchingStores(() => copies.push(this.#bytes.slice()), fn);
		else fn();
		expect();
		const after = this.#freeze();
		for (const [i, copy] of copies.entries()) {
			this.#recovered(copy, [before, after]);
			const next = copies[i + 1];
			if (next !== undefined) this.#recovered(this.#half(copy, next), [before, after]);
		}
	}

	/** Between two stores that order matters for: some of the bytes are there, some are not yet. */
	#half(before: Uint8Array, after: Uint8Array): Uint8Array {
		const mixed = before.slice();
		const cut = this.#random(before.length);
		const from = this.#random(2) === 0 ? 0 : cut;
		mixed.set(from === 0 ? after.subarray(0, cut) : after.subarray(cut), from);
		return mixed;
	}

	#freeze(): Map<number, Expected> {
		const copy = new Map<number, Expected>();
		for (const [ino, file] of this.#files) {
			copy.set(ino, { ...file, contents: file.contents.slice(), dirty: file.dirty.slice() });
		}
		return copy;
	}

	#isNewer = (ino: number, number: number): boolean => number > (this.#meta.get(ino) as Meta).sealedThrough;

	#allPendings(): Pending[] {
		return [...this.#meta.values()].flatMap((meta) => [...meta.pendings.values()]).reverse();
	}

	#recovered(bytes: Uint8Array, allowed: readonly Map<number, Expected>[]): void {
		const store = open(bytes.slice(), this.#incarnation + 1);
		store.recover(this.#allPendings(), this.#isNewer);
		const right = allowed.some((expected) => {
			return [...expected].every(([ino, file]) => this.#differs(store, ino, file) === undefined);
		});
		if (!right) for (const [ino, file] of allowed[0] as Map<number, Expected>) assert.equal(this.#differs(store, ino, file), undefined);
	}

	/** What is wrong with a file as the store sees it, if anything. */
	#differs(store: RingDirtyStore, ino: number, file: Expected): string | undefined {
		const meta = this.#meta.get(ino) as Meta;
		const contents = meta.sealed.slice();
		const dirty = new Uint8Array(fileBytes);
		let position = 0;
		for (const piece of store.overlay(ino, 0, fileBytes)) {
			if (piece.offset < position) return `${this.#message}: pieces of ${ino} are not in order`;
			contents.set(piece.bytes, piece.offset);
			dirty.fill(1, piece.offset, piece.offset + piece.bytes.length);
			position = piece.offset + piece.bytes.length;
		}
		const attributes = store.attributes(ino);
		if (Buffer.compare(contents, file.contents) !== 0) return `${this.#message}: contents of inode ${ino}`;
		if (Buffer.compare(dirty, file.dirty) !== 0) return `${this.#message}: dirty bytes of inode ${ino}`;
		if ((attributes?.end ?? 0) !== file.dirty.lastIndexOf(1) + 1) return `${this.#message}: end of inode ${ino}`;
		if ((attributes?.mtime?.seconds ?? meta.mtime) !== file.mtime) return `${this.#message}: time of inode ${ino}`;
		return undefined;
	}

	check(store: RingDirtyStore, ino: number): void {
		assert.equal(this.#differs(store, ino, this.#files.get(ino) as Expected), undefined);
		const offset = this.#random(fileBytes);
		const length = this.#random(fileBytes - offset);
		const file = this.#files.get(ino) as Expected;
		for (const piece of store.overlay(ino, offset, length)) {
			assert.ok(piece.offset >= offset && piece.offset + piece.bytes.length <= offset + length, this.#message);
			assert.deepEqual(piece.bytes, file.contents.slice(piece.offset, piece.offset + piece.bytes.length), this.#message);
		}
		const dirtyBytes = [...this.#files.values()].reduce((sum, one) => sum + one.dirty.reduce((count, bit) => count + bit, 0), 0);
		assert.ok(store.bytes >= dirtyBytes, this.#message);
		assert.equal(
			store.bytes,
			store.dirtyInodes().reduce((sum, one) => sum + one.bytes, 0),
			this.#message,
		);
	}

	#write(ino: number, offset: number, most: number): void {
		const bytes = new Uint8Array(1 + this.#random(Math.min(most, fileBytes - offset))).map(() => this.#random(256));
		if (!this.#store.hasRoom(bytes.length)) {
			assert.throws(
				() => this.#store.write(ino, offset, bytes, time(1)),
				(error) => isFsError(error, "ENOMEM"),
				this.#message,
			);
			this.fulls++;
			this.#makeRoom(bytes.length);
		}
		const now = ++this.#ticks;
		this.#killable(
			() => this.#store.write(ino, offset, bytes, time(now)),
			() => {
				const file = this.#files.get(ino) as Expected;
				file.contents.set(bytes, offset);
				file.dirty.fill(1, offset, offset + bytes.length);
				file.active.fill(1, offset, offset + bytes.length);
				file.mtime = now;
			},
		);
	}

	#makeRoom(lengthBytes: number): void {
		for (let rounds = 0; !this.#store.hasRoom(lengthBytes); rounds++) {
			assert.ok(rounds < 12, `${this.#message}: sealing what stalls the ring makes room`);
			const ino = this.#store.stalledBy() as number;
			if (!this.#captures.has(ino)) this.#capture(ino);
			this.#commit(ino);
		}
	}

	#capture(ino: number): void {
		if (this.#captures.has(ino)) return;
		// A seal of what is logged lets more be logged beside it.
		if (this.#random(2) === 0) this.#log(ino);
		const captured = this.#captures.has(ino) ? undefined : this.#store.capture(ino);
		if (captured === undefined) return;
		this.#captures.set(ino, captured);
		(this.#files.get(ino) as Expected).active.fill(0);
	}

	#endCapture(ino: number): void {
		const captured = this.#captures.get(ino);
		if (captured === undefined) return;
		if (this.#random(3) > 0) {
			this.#commit(ino);
			return;
		}
		this.#captures.delete(ino);
		this.#store.restored(captured);
		this.check(this.#store, ino);
	}

	/** The transaction of a seal, then the store is told. */
	#commit(ino: number): void {
		const captured = this.#captures.get(ino) as Captured;
		const meta = this.#meta.get(ino) as Meta;
		const file = this.#files.get(ino) as Expected;
		let bytes = 0;
		for (const piece of captured.pieces) {
			const { run } = piece;
			if (run !== undefined) {
				assert.equal(run.lengthBytes, piece.bytes.length, this.#message);
				const from = this.#random(run.lengthBytes);
				const part = new Uint8Array(this.#random(run.lengthBytes - from + 1));
				run.copy(from, part);
				assert.deepEqual(part, piece.bytes.slice(from, from + part.length), this.#message);
			}
			meta.sealed.set(piece.bytes, piece.offset);
			bytes += piece.bytes.length;
		}
		assert.equal(bytes, captured.bytes, this.#message);
		// What was logged beside the seal has brought a later one.
		if (meta.sealedThrough <= captured.through) meta.mtime = captured.attributes.mtime?.seconds ?? meta.mtime;
		meta.sealedThrough = Math.max(meta.sealedThrough, captured.through);
		for (const id of captured.pendings) meta.pendings.delete(id);
		this.#captures.delete(ino);
		file.dirty.set(file.active);
		this.#killable(
			() => this.#store.committed(captured),
			() => {},
		);
	}

	#log(ino: number): void {
		if (this.#isSealedUnlogged(ino)) return;
		const unlogged = this.#store.unlogged(ino);
		if (unlogged === undefined) return;
		const mtime = this.#store.attributes(ino)?.mtime;
		// A write comes before the transaction.
		if (this.#random(2) === 0 && this.#store.hasRoom(100)) this.#write(ino, this.#random(fileBytes - 100), 90);
		if (this.#isSealedUnlogged(ino)) return;
		if (this.#captures.has(ino)) this.besides++;
		const meta = this.#meta.get(ino) as Meta;
		const ids = this.#pend(meta, ino, unlogged.pieces);
		meta.sealedThrough = Math.max(meta.sealedThrough, unlogged.through);
		meta.mtime = mtime?.seconds ?? meta.mtime;
		this.#store.logged(ino, ids, unlogged.through);
		assert.deepEqual([...this.#store.pendings(ino)].sort(), [...meta.pendings.keys()].sort(), this.#message);
	}

	/** D7. */
	#isSealedUnlogged(ino: number): boolean {
		return this.#captures.get(ino)?.isLogged === false;
	}

	/** In one record or two. */
	#pend(meta: Meta, ino: number, pieces: readonly DirtyPiece[]): number[] {
		if (pieces.length === 0) return [];
		const cut = this.#random(pieces.length);
		return (cut === 0 ? [pieces] : [pieces.slice(0, cut), pieces.slice(cut)]).map((part) => this.#pendOne(meta, ino, part));
	}

	#pendOne(meta: Meta, ino: number, pieces: readonly DirtyPiece[]): number {
		const id = ++this.#pendingIds;
		meta.pendings.set(id, { ino, id, pieces: pieces.map(({ offset, bytes }) => ({ offset, bytes: bytes.slice() })), birthEpoch: 1 });
		return id;
	}

	#truncate(ino: number, size: number): void {
		if (this.#captures.has(ino)) return;
		const meta = this.#meta.get(ino) as Meta;
		const file = this.#files.get(ino) as Expected;
		const stays = this.#store.overlay(ino, 0, size);
		const through = this.#store.lastWrite;
		meta.pendings.clear();
		const ids = this.#pend(meta, ino, stays);
		meta.sealed.fill(0, size);
		meta.sealedThrough = through;
		meta.mtime = ++this.#ticks;
		file.contents.fill(0, size);
		file.dirty.fill(0, size);
		file.mtime = this.#ticks;
		this.#killable(
			() => {
				this.#store.truncate(ino, size);
				this.#store.clearTime(ino);
				this.#store.logged(ino, ids, through);
			},
			() => {},
		);
		assert.equal(this.#store.unlogged(ino), undefined, this.#message);
	}

	#setTime(ino: number): void {
		const meta = this.#meta.get(ino) as Meta;
		const file = this.#files.get(ino) as Expected;
		meta.mtime = ++this.#ticks;
		file.mtime = this.#ticks;
		this.#store.clearTime(ino);
	}

	#drop(ino: number): void {
		if (this.#captures.has(ino)) return;
		const meta = this.#meta.get(ino) as Meta;
		const file = this.#files.get(ino) as Expected;
		Object.assign(meta, { sealedThrough: this.#store.lastWrite, mtime: 0, pendings: new Map() });
		meta.sealed.fill(0);
		for (const all of [file.contents, file.dirty]) all.fill(0);
		file.mtime = 0;
		this.#store.drop(ino);
		assert.equal(this.#store.has(ino), false, this.#message);
	}

	/** The process is killed and another one goes on; now and then the other one is killed while it recovers. */
	#restart(): void {
		this.#bytes = this.#bytes.slice();
		this.#captures.clear();
		if (this.#random(3) === 0) open(this.#bytes, ++this.#incarnation);
		const lastWrite = this.#store.lastWrite;
		this.#store = open(this.#bytes, ++this.#incarnation, this.#incarnation - 1, { oldest: 1 });
		this.#store.recover(this.#allPendings(), this.#isNewer);
		assert.ok(this.#store.lastWrite >= lastWrite, this.#message);
		for (const ino of this.#files.keys()) this.check(this.#store, ino);
	}

	/** All is sealed: nothing is left, and the largest piece fits. */
	end(): void {
		for (const ino of this.#files.keys()) {
			for (let rounds = 0; rounds < 2; rounds++) {
				this.#capture(ino);
				if (this.#captures.has(ino)) this.#commit(ino);
			}
			assert.equal(this.#store.has(ino), false, this.#message);
		}
		assert.equal(this.#store.bytes, 0, this.#message);
		assert.equal(this.#store.stalledBy(), undefined, this.#message);
		assert.ok(this.#store.hasRoom(this.#bytes.length - pageBytes - entryHeaderBytes), this.#message);
	}
}

describe("dirty store: against a byte array per inode, killed anywhere", () => {
	let fulls = 0;
	let besides = 0;
	for (let seed = 1; seed <= 16; seed++) {
		test(`seed ${seed}`, () => {
			const model = new Model(seed, 4096 + 1024 * (seed % 5) + 8 * seed);
			for (let i = 0; i < 300; i++) model.step();
			model.end();
			fulls += model.fulls;
			besides += model.besides;
		});
	}
	test("the ring was full at times, and something was logged beside seals", () => {
		assert.ok(fulls >= 16 && besides >= 16, `${fulls} and ${besides}`);
	});
});

describe("dirty store: layers", () => {
	const ring = (): Uint8Array => new Uint8Array(pageBytes + 65_536);

	test("writes during a seal lie above it, and stay when it is committed or restored", () => {
		for (const end of ["committed", "restored"] as const) {
			const store = open(ring(), 1);
			store.write(2, 0, bytesOf("aaaaaaaa"), time(1));
			const captured = store.capture(2) as Captured;
			store.write(2, 2, bytesOf("BB"), time(2));
			assert.equal(text(store.overlay(2, 0, 100)), "0:aa 2:BB 4:aaaa");
			assert.equal(text(store.overlay(2, 1, 2)), "1:a 2:B");
			assert.deepEqual(store.attributes(2), { end: 8, mtime: time(2), bytes: 10, newest: store.lastWrite });
			store[end](captured);
			assert.equal(text(store.overlay(2, 0, 100)), end === "committed" ? "2:BB" : "0:aa 2:BB 4:aaaa");
			assert.equal(store.bytes, end === "committed" ? 2 : 8);
		}
	});

	test("one capture of an inode at a time, and nothing else meanwhile", () => {
		const store = open(ring(), 1);
		store.write(2, 0, bytesOf("a"), time(1));
		const captured = store.capture(2) as Captured;
		for (const call of [() => store.capture(2), () => store.truncate(2, 0), () => store.drop(2)]) assert.throws(call, /D1/);
		assert.throws(() => store.unlogged(2), /D7/);
		store.committed(captured);
		assert.throws(() => store.committed(captured), /D1/);
		assert.equal(store.capture(2), undefined);
	});

	test("what is written beside a seal of what is logged can be logged; a failed seal keeps both", () => {
		const store = open(ring(), 1);
		store.write(2, 0, bytesOf("old"), time(1));
		store.logged(2, [1], store.unlogged(2)?.through ?? 0);
		const captured = store.capture(2) as Captured;
		assert.equal(captured.isLogged, true);
		assert.equal(store.unlogged(2), undefined);
		store.write(2, 1, bytesOf("new"), time(2));
		const unlogged = store.unlogged(2);
		assert.deepEqual(unlogged?.pieces, [{ offset: 1, bytes: bytesOf("new") }]);
		store.logged(2, [2], unlogged?.through ?? 0);
		assert.deepEqual([captured.pendings, store.pendings(2)], [[1], [1, 2]]);
		store.restored(captured);
		const again = store.capture(2) as Captured;
		assert.deepEqual([again.pendings, again.isLogged, again.bytes], [[1, 2], true, 4]);
		store.committed(again);
		assert.deepEqual(store.pendings(2), []);
	});

	test("adjoining pieces are sealed as one, up to 1 MiB", () => {
		const bytes = new Uint8Array(pageBytes + 8 * 1024 * 1024);
		const store = open(bytes, 1);
		const piece = 128 * 1024;
		for (let i = 0; i < 20; i++) store.write(2, i * piece, new Uint8Array(piece).fill(i + 1), time(1));
		store.write(2, 30 * piece, bytesOf("alone"), time(1));
		const captured = store.capture(2) as Captured;
		assert.deepEqual(
			captured.pieces.map((one) => [one.offset, one.bytes.length]),
			[
				[0, 8 * piece],
				[8 * piece, 8 * piece],
				[16 * piece, 4 * piece],
				[30 * piece, 5],
			],
		);
		for (let i = 0; i < 20; i++) {
			const run = captured.pieces[i >>> 3] as DirtyPiece;
			assert.ok(run.bytes.subarray((i % 8) * piece, (i % 8) * piece + piece).every((byte) => byte === i + 1));
		}
	});

	test("an explicit time outlives the seal that is under way, and a kill", () => {
		const bytes = ring();
		const store = open(bytes, 1);
		store.write(2, 0, bytesOf("a"), time(7));
		const captured = store.capture(2) as Captured;
		assert.deepEqual(captured.attributes.mtime, time(7));
		store.clearTime(2);
		assert.equal(captured.attributes.mtime, undefined);
		assert.equal(store.attributes(2)?.mtime, undefined);
		const next = open(bytes.slice(), 2);
		next.recover([], always);
		assert.equal(next.attributes(2)?.mtime, undefined);
		store.write(2, 5, bytesOf("b"), time(8));
		store.restored(captured);
		assert.deepEqual(store.attributes(2)?.mtime, time(8));
	});

	test("pending records: counted once, forgotten with the seal", () => {
		const store = open(ring(), 1);
		store.write(2, 0, bytesOf("abc"), time(1));
		const first = store.unlogged(2);
		store.write(2, 1, bytesOf("X"), time(2));
		assert.equal(text(first?.pieces ?? []), "0:abc");
		store.logged(2, [11, 12], first?.through ?? 0);
		assert.equal(text(store.unlogged(2)?.pieces ?? []), "1:X");
		assert.deepEqual(store.pendings(2), [11, 12]);
		const captured = store.capture(2) as Captured;
		assert.deepEqual([captured.pendings, captured.through], [[11, 12], store.lastWrite]);
		store.committed(captured);
		assert.deepEqual(store.pendings(2), []);
		assert.equal(store.has(2), false);
	});

	test("what a truncation leaves is to be logged again", () => {
		const store = open(ring(), 1);
		store.write(2, 0, bytesOf("abcdefgh"), time(1));
		store.logged(2, [1], store.lastWrite);
		assert.equal(store.unlogged(2), undefined);
		store.truncate(2, 6);
		assert.deepEqual(store.pendings(2), []);
		store.write(2, 2, bytesOf("X"), time(1));
		assert.equal(text(store.unlogged(2)?.pieces ?? []), "0:abXdef");
		assert.equal(store.attributes(2)?.end, 6);
	});

	test("the inode that keeps the tail is named, and sealing it makes room", async () => {
		const store = open(ring(), 1);
		store.write(2, 0, new Uint8Array(100), time(1));
		for (let i = 0; store.hasRoom(1000); i++) store.write(3, i * 1000, new Uint8Array(1000), time(1));
		store.committed(store.capture(3) as Captured);
		assert.equal(store.hasRoom(3000), false);
		assert.equal(store.stalledBy(), 2);
		let woken = false;
		const waiting = store.room().then(() => {
			woken = true;
		});
		store.committed(store.capture(2) as Captured);
		await waiting;
		assert.ok(woken && store.hasRoom(60_000));
	});

	test("ten thousand pieces, in order and at random, cover each other like bytes do", () => {
		const store = open(new Uint8Array(pageBytes + 16 * 1024 * 1024), 1);
		const random = randomOf(5);
		const model = new Uint8Array(10_000 * 16);
		const put = (offset: number, length: number, value: number): void => {
			store.write(2, offset, new Uint8Array(length).fill(value), time(1));
			model.fill(value, offset, offset + length);
		};
		for (let i = 0; i < 10_000; i++) put(i * 16, 16, (i % 250) + 1);
		for (let i = 0; i < 20_000; i++) put(random(model.length - 64), 1 + random(64), random(256));
		const seen = new Uint8Array(model.length);
		let end = 0;
		for (const piece of store.overlay(2, 0, model.length)) {
			assert.ok(piece.offset >= end);
			seen.set(piece.bytes, piece.offset);
			end = piece.offset + piece.bytes.length;
		}
		assert.equal(Buffer.compare(seen, model), 0);
		assert.equal(store.bytes, model.length);
	});

	test("the number of pieces is bounded", () => {
		const store = open(new Uint8Array(pageBytes + 16 * 1024 * 1024), 1);
		let count = 0;
		for (; store.hasRoom(1); count++) store.write(2, count * 2, bytesOf("x"), time(1));
		assert.ok(count >= dirtyLimits.pieces - 2 && count <= dirtyLimits.pieces);
		store.committed(store.capture(2) as Captured);
		assert.ok(store.hasRoom(1));
	});

	test("the number of files is bounded", () => {
		const store = open(new Uint8Array(pageBytes + 16 * 1024 * 1024), 1);
		let count = 0;
		for (; store.hasRoom(1); count++) store.write(2 + count, 0, bytesOf("x"), time(1));
		assert.equal(count, dirtyLimits.inodes);
		store.committed(store.capture(2) as Captured);
		assert.ok(store.hasRoom(1));
	});
});

describe("dirty store: what memory is believed", () => {
	function written(): Uint8Array {
		const bytes = new Uint8Array(pageBytes + 8192);
		open(bytes, 5).write(2, 0, bytesOf("kept"), time(3));
		return bytes;
	}

	const recovered = (store: RingDirtyStore): string => {
		store.recover([], always);
		return text(store.overlay(2, 0, 10));
	};

	test("of the incarnations that the roster names, of this volume, and when it was not clean", () => {
		assert.equal(recovered(open(written(), 6, 5)), "0:kept");
		assert.equal(recovered(open(written(), 9, 8, { oldest: 5 })), "0:kept");
		assert.equal(recovered(open(written(), 8, 7, { oldest: 6 })), "");
		assert.equal(recovered(open(written(), 5, 4)), "");
		assert.equal(recovered(open(written(), 6, 5, { clean: true })), "");
		assert.equal(recovered(open(written(), 6, 5, { volume: "11234567-89ab-cdef-0123-456789abcdef" })), "");
		assert.equal(recovered(open(written().slice(0, pageBytes + 8184), 6, 5)), "");
	});

	test("what was not believed never comes back", () => {
		const bytes = written();
		open(bytes, 6, 5, { clean: true }).write(3, 0, bytesOf("n"), time(1));
		const store = open(bytes, 7, 6, { oldest: 5 });
		store.recover([], always);
		assert.deepEqual([text(store.overlay(2, 0, 10)), text(store.overlay(3, 0, 10))], ["", "0:n"]);
	});

	test("recovery may be killed and begun again, and writes of all incarnations are found in order", () => {
		const bytes = written();
		open(bytes, 6, 5);
		const second = open(bytes, 7, 6, { oldest: 5 });
		assert.deepEqual(second.ringInodes(), [2]);
		assert.throws(() => second.write(2, 0, bytesOf("x"), time(1)), /recovered/);
		assert.deepEqual(second.recover([], always), { replayed: 1, skipped: 0 });
		const number = second.lastWrite;
		second.write(2, 1, bytesOf("EE"), time(4));
		assert.ok(second.lastWrite > number);
		assert.equal(recovered(open(bytes.slice(), 8, 7)), "0:k 1:EE 3:t");
		const skipping = open(bytes.slice(), 8, 7);
		assert.deepEqual(
			skipping.recover([], (_, write) => write > number),
			{ replayed: 1, skipped: 1 },
		);
		assert.equal(text(skipping.overlay(2, 0, 10)), "1:EE");
	});

	test("numbers rise over a clean restart, so that the guard of sealed inodes lets new writes pass", () => {
		const first = open(new Uint8Array(pageBytes + 8192), 5);
		first.write(2, 0, bytesOf("a"), time(1));
		const second = open(new Uint8Array(pageBytes + 8192), 6, 5, { clean: true });
		assert.ok(second.lastWrite >= first.lastWrite);
	});

	test("contents that look like an entry are not taken for one", () => {
		const bytes = new Uint8Array(pageBytes + 8192);
		const store = open(bytes, 1);
		// An entry as it is in the ring, with its right checksum and a high number, is written as contents where a later entry will end.
		const other = new Uint8Array(pageBytes + 8192);
		const forger = open(other, 1);
		for (let i = 0; i < 9; i++) forger.write(2, 0, bytesOf("forged"), time(1));
		const last = pageBytes + 8 * (entryHeaderBytes + 8);
		store.write(3, 0, new Uint8Array([...new Uint8Array(8), ...other.subarray(last, last + entryHeaderBytes + 8)]), time(1));
		store.committed(store.capture(3) as Captured);
		store.write(4, 0, bytesOf("x"), time(1));
		const next = open(bytes, 2);
		assert.deepEqual(next.ringInodes(), [4]);
	});

	test("what lies behind the newest entry is older, also where the ring is full to the byte", () => {
		const bytes = new Uint8Array(pageBytes + 4096);
		const store = open(bytes, 1);
		const block = (value: number): Uint8Array => new Uint8Array(1024 - entryHeaderBytes).fill(value);
		store.write(2, 0, block(1), time(1));
		store.write(6, 0, block(2), time(1));
		store.write(4, 0, block(3), time(1));
		store.write(5, 0, block(4), time(1));
		assert.equal(store.hasRoom(1), false);
		store.committed(store.capture(2) as Captured);
		store.write(6, 0, block(5), time(1));
		const next = open(bytes, 2);
		assert.deepEqual(next.ringInodes(), [4, 5, 6]);
		next.recover([], always);
		assert.equal(next.overlay(6, 0, 1)[0]?.bytes[0], 5);
	});

	test("an entry or a marker that is damaged ends the replay", () => {
		for (const damaged of ["contents", "header", "marker"]) {
			const bytes = new Uint8Array(pageBytes + 4096);
			const store = open(bytes, 1);
			store.write(2, 0, new Uint8Array(1000), time(1));
			store.write(3, 0, new Uint8Array(1000), time(1));
			store.write(4, 0, new Uint8Array(1000), time(1));
			store.committed(store.capture(2) as Captured);
			// Wraps: 3 × 1,064 bytes are used, 904 are left at the end.
			store.write(5, 0, new Uint8Array(950), time(1));
			const second = pageBytes + 1064;
			const at = { contents: second + 500, header: second + 25, marker: pageBytes + 3 * 1064 + 33 }[damaged] as number;
			assert.deepEqual(open(bytes.slice(), 2).ringInodes(), [3, 4, 5]);
			bytes[at] = (bytes[at] as number) ^ 1;
			assert.deepEqual(open(bytes, 2).ringInodes(), damaged === "marker" ? [3, 4] : [], damaged);
		}
	});

	test("a ring that has become empty holds nothing", () => {
		const bytes = written();
		const store = open(bytes, 6, 5);
		store.recover([], always);
		store.committed(store.capture(2) as Captured);
		assert.deepEqual(open(bytes.slice(), 7, 6).ringInodes(), []);
	});

	test("an explicit time marks only entries that are the inode's still", () => {
		const bytes = new Uint8Array(pageBytes + 8192);
		const store = open(bytes, 1);
		store.recover([{ ino: 2, id: 1, pieces: [{ offset: 0, bytes: bytesOf("heap") }], birthEpoch: 1 }], always);
		store.write(2, 100, bytesOf("cut off"), time(1));
		store.truncate(2, 50);
		store.write(3, 0, bytesOf("in its place"), time(9));
		store.clearTime(2);
		const next = open(bytes, 2);
		next.recover([], always);
		assert.deepEqual(next.attributes(3)?.mtime, time(9));
	});

	test("pending records come first, in the order of their ids", () => {
		const store = open(written(), 6, 5);
		const pending = (id: number, ...pieces: (readonly [offset: number, words: string])[]): Pending => ({
			ino: 2,
			id,
			pieces: pieces.map(([offset, words]) => ({ offset, bytes: bytesOf(words) })),
			birthEpoch: 1,
		});
		store.recover([pending(9, [1, "ep"], [3, "tB"]), pending(4, [2, "aaaa"], [40, "far"])], always);
		assert.equal(text(store.overlay(2, 0, 10)), "0:kept 4:B 5:a");
		assert.deepEqual(store.pendings(2), [4, 9]);
		const captured = store.capture(2) as Captured;
		assert.deepEqual(captured.pendings, [4, 9]);
		assert.ok(captured.through >= store.lastWrite);
	});
});

describe("dirty store: noise", () => {
	test("any bytes in memory give a store that works", () => {
		const random = randomOf(77);
		for (let round = 0; round < 400; round++) {
			const bytes = new Uint8Array(pageBytes + 4096 + 8 * random(100));
			const store = open(bytes, 3);
			for (let i = 0; i < 12; i++)
				if (store.hasRoom(400)) store.write(2 + random(3), random(1000), new Uint8Array(1 + random(400)), time(1));
			damage(bytes, random);
			const next = open(bytes, 4, 3);
			next.recover([], (_, number) => number % 2 === 0);
			for (const { ino } of next.dirtyInodes()) {
				const captured = next.capture(ino) as Captured;
				for (const piece of captured.pieces) assert.ok(piece.bytes.length > 0, `round ${round}`);
				next.committed(captured);
			}
			assert.ok(next.hasRoom(3000), `round ${round}`);
			next.write(9, 0, bytesOf("works"), time(1));
			assert.equal(text(next.overlay(9, 0, 10)), "0:works");
		}
	});

	function damage(bytes: Uint8Array, random: (bound: number) => number): void {
		for (let i = random(6); i >= 0; i--) {
			// Words that are looked at get more than their share.
			const places = [random(bytes.length), pageBytes + 8 * random(80), 1024 + random(4), random(64)];
			bytes[places[random(4)] as number] = random(256);
		}
		if (random(8) === 0) for (let at = pageBytes; at < bytes.length; at++) bytes[at] = random(256);
	}
});
