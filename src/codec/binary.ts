/** Little-endian records: a growing writer and a bounds-checked reader. Integers up to 2^53 travel as u64. */
import { FsError } from "../base/errors.ts";
import { AssertionError, assert } from "../base/assert.ts";
import type { Timestamp } from "../base/time.ts";

const finished = new Uint8Array(0);

/** Made only when it is thrown: numbers are written hundreds of thousands of times a second. */
function outOfRange(what: string, value: number): AssertionError {
	return new AssertionError(`${what} out of range: ${value}`);
}

/** Pieces of up to this part of an arena's buffer come from it; larger ones get a buffer of their own. */
const arenaFraction = 4;

/**
 * Room for many short pieces, one behind the other in one buffer: small buffers of their own cost more to make and to collect than to fill. A piece is never given out again; its buffer goes when nobody has a piece of it
 * any more, so that who keeps a small one for long keeps all of it.
 */
export class ByteArena {
	readonly #sizeBytes: number;
	#bytes: Uint8Array = finished;
	#view: DataView = new DataView(finished.buffer);
	#at = 0;

	constructor(sizeBytes: number) {
		this.#sizeBytes = sizeBytes;
	}

	/** The buffer that the last piece lies in. */
	get bytes(): Uint8Array {
		return this.#bytes;
	}

	get view(): DataView {
		return this.#view;
	}

	/** Where the next piece of `count` bytes begins in `bytes`, all zeros; undefined: it is too large. */
	reserve(count: number): number | undefined {
		if (count * arenaFraction > this.#sizeBytes) return undefined;
		if (this.#at + count > this.#bytes.length) {
			this.#bytes = new Uint8Array(this.#sizeBytes);
			this.#view = new DataView(this.#bytes.buffer);
			this.#at = 0;
		}
		const at = this.#at;
		this.#at = at + count;
		return at;
	}

	/** The end of the last piece was not written to. */
	giveBack(bytes: Uint8Array, from: number, to: number): void {
		if (bytes === this.#bytes && to === this.#at) this.#at = from;
	}

	/** A piece of zeros. */
	take(count: number): Uint8Array {
		const at = this.reserve(count);
		return at === undefined ? new Uint8Array(count) : this.#bytes.subarray(at, at + count);
	}
}

export class ByteWriter {
	readonly #arena: ByteArena | undefined;
	#bytes!: Uint8Array;
	#view!: DataView;
	/** What was written lies in `bytes` from `start` to `at`; up to `limit` it may go on. */
	#start = 0;
	#at = 0;
	#limit = 0;

	/** In memory of its own, or in a piece of the arena. */
	constructor(initialBytes = 128, arena?: ByteArena) {
		this.#arena = arena;
		this.#room(initialBytes);
	}

	#room(count: number): void {
		const at = this.#arena?.reserve(count);
		if (at === undefined || this.#arena === undefined) {
			this.#bytes = new Uint8Array(count);
			this.#view = new DataView(this.#bytes.buffer);
			this.#start = 0;
		} else {
			this.#bytes = this.#arena.bytes;
			this.#view = this.#arena.view;
			this.#start = at;
		}
		this.#at = this.#start;
		this.#limit = this.#start + count;
	}

	get length(): number {
		return this.#at - this.#start;
	}

	#reserve(count: number): number {
		const at = this.#at;
		if (at + count > this.#limit) return this.#grow(count);
		this.#at = at + count;
		return at;
	}

	#grow(count: number): number {
		assert(this.#bytes !== finished, "nothing is written after finish");
		const before = this.view();
		this.#room(Math.max(before.length + count, 2 * (this.#limit - this.#start)));
		this.#bytes.set(before, this.#start);
		const at = this.#start + before.length;
		this.#at = at + count;
		return at;
	}

	u8(value: number): this {
		if (!(Number.isInteger(value) && value >= 0 && value <= 0xff)) throw outOfRange("u8", value);
		const at = this.#reserve(1);
		this.#bytes[at] = value;
		return this;
	}

	u16(value: number): this {
		if (!(Number.isInteger(value) && value >= 0 && value <= 0xffff)) throw outOfRange("u16", value);
		const at = this.#reserve(2);
		this.#view.setUint16(at, value, true);
		return this;
	}

	u32(value: number): this {
		if (!(Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff)) throw outOfRange("u32", value);
		const at = this.#reserve(4);
		this.#view.setUint32(at, value, true);
		return this;
	}

	/** A non-negative safe integer. */
	u64(value: number): this {
		if (!(Number.isSafeInteger(value) && value >= 0)) throw outOfRange("u64", value);
		const at = this.#reserve(8);
		this.#view.setUint32(at, value % 0x1_0000_0000, true);
		this.#view.setUint32(at + 4, Math.floor(value / 0x1_0000_0000), true);
		return this;
	}

	/** A safe integer of either sign, two's complement. */
	i64(value: number): this {
		if (!Number.isSafeInteger(value)) throw outOfRange("i64", value);
		const high = Math.floor(value / 0x1_0000_0000);
		const at = this.#reserve(8);
		this.#view.setUint32(at, value - high * 0x1_0000_0000, true);
		this.#view.setInt32(at + 4, high, true);
		return this;
	}

	time(value: Timestamp): this {
		return this.i64(value.seconds).u32(value.nanoseconds);
	}

	/** Bytes as they are, without a length. */
	raw(bytes: Uint8Array): this {
		const at = this.#reserve(bytes.length);
		this.#bytes.set(bytes, at);
		return this;
	}

	/** u32 length, then the bytes. */
	bytes(bytes: Uint8Array): this {
		return this.u32(bytes.length).raw(bytes);
	}

	/** A Latin-1 byte string: u32 length, then one byte per char. */
	text(text: string): this {
		this.u32(text.length);
		const at = this.#reserve(text.length);
		for (let i = 0; i < text.length; i++) {
			const code = text.charCodeAt(i);
			assert(code <= 0xff, "text is not a byte string");
			this.#bytes[at + i] = code;
		}
		return this;
	}

	zeros(count: number): this {
		const at = this.#reserve(count);
		this.#bytes.fill(0, at, at + count);
		return this;
	}

	/** Overwrites a u32 written before (lengths and checksums). */
	patchU32(at: number, value: number): void {
		assert(at + 4 <= this.length, "patch inside");
		this.#view.setUint32(this.#start + at, value, true);
	}

	/** A view on what was written; valid until the next write. */
	view(): Uint8Array {
		assert(this.#bytes !== finished, "nothing is looked at after finish");
		return this.#bytes.subarray(this.#start, this.#at);
	}

	/** Exactly what was written, in memory of its own, or of the arena; the last call. */
	finish(): Uint8Array {
		const bytes = this.#bytes;
		assert(bytes !== finished, "a writer is finished once");
		this.#bytes = finished;
		const [start, end, limit] = [this.#start, this.#at, this.#limit];
		this.#start = this.#at = this.#limit = 0;
		if (bytes.length === end - start) return bytes;
		if (this.#arena === undefined || bytes !== this.#arena.bytes) return bytes.slice(start, end);
		this.#arena.giveBack(bytes, end, limit);
		return bytes.subarray(start, end);
	}
}

/** Every read past the end, and every number beyond 2^53, throws CORRUPT: decoders need no checks of their own against short input. */
export class ByteReader {
	readonly #bytes: Uint8Array;
	readonly #view: DataView;
	readonly #what: string;
	#at = 0;

	constructor(bytes: Uint8Array, what: string) {
		this.#bytes = bytes;
		this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
		this.#what = what;
	}

	get offset(): number {
		return this.#at;
	}

	get remaining(): number {
		return this.#bytes.length - this.#at;
	}

	#take(count: number): number {
		if (count > this.#bytes.length - this.#at) throw this.corrupt(`ends at ${this.#bytes.length}, ${this.#at + count} needed`);
		const at = this.#at;
		this.#at += count;
		return at;
	}

	corrupt(why: string): FsError {
		return new FsError("CORRUPT", "codec.binary", `${this.#what}: ${why}`);
	}

	u8(): number {
		return this.#bytes[this.#take(1)] as number;
	}

	u16(): number {
		return this.#view.getUint16(this.#take(2), true);
	}

	u32(): number {
		return this.#view.getUint32(this.#take(4), true);
	}

	u64(): number {
		const at = this.#take(8);
		const value = this.#view.getUint32(at, true) + this.#view.getUint32(at + 4, true) * 0x1_0000_0000;
		if (!Number.isSafeInteger(value)) throw this.corrupt("number beyond 2^53");
		return value;
	}

	i64(): number {
		const at = this.#take(8);
		const value = this.#view.getUint32(at, true) + this.#view.getInt32(at + 4, true) * 0x1_0000_0000;
		if (!Number.isSafeInteger(value)) throw this.corrupt("number beyond 2^53");
		return value;
	}

	time(): Timestamp {
		const seconds = this.i64();
		const nanoseconds = this.u32();
		if (nanoseconds > 999_999_999) throw this.corrupt("nanoseconds out of range");
		return { seconds, nanoseconds };
	}

	/** A view, not a copy. */
	raw(count: number): Uint8Array {
		const at = this.#take(count);
		return this.#bytes.subarray(at, at + count);
	}

	bytes(): Uint8Array {
		return this.raw(this.u32());
	}

	text(): string {
		const bytes = this.bytes();
		let text = "";
		for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
		return text;
	}

	skip(count: number): void {
		this.#take(count);
	}

	/** Everything must have been read. */
	end(): void {
		if (this.remaining !== 0) throw this.corrupt(`${this.remaining} bytes too many`);
	}
}
