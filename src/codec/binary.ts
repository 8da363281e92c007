/** Little-endian records: a growing writer and a bounds-checked reader. Integers up to 2^53 travel as u64. */
import { FsError } from "../base/errors.ts";
import { AssertionError, assert } from "../base/assert.ts";
import type { Timestamp } from "../base/time.ts";

const finished = new Uint8Array(0);

/** Made only when it is thrown: numbers are written hundreds of thousands of times a second. */
function outOfRange(what: string, value: number): AssertionError {
	return new AssertionError(`${what} out of range: ${value}`);
}

export class ByteWriter {
	#bytes: Uint8Array;
	#view: DataView;
	#length = 0;

	constructor(initialBytes = 128) {
		this.#bytes = new Uint8Array(initialBytes);
		this.#view = new DataView(this.#bytes.buffer);
	}

	get length(): number {
		return this.#length;
	}

	#reserve(count: number): number {
		const at = this.#length;
		const needed = at + count;
		if (needed > this.#bytes.length) {
			assert(this.#bytes !== finished, "nothing is written after finish");
			const grown = new Uint8Array(Math.max(needed, this.#bytes.length * 2));
			grown.set(this.#bytes.subarray(0, at));
			this.#bytes = grown;
			this.#view = new DataView(grown.buffer);
		}
		this.#length = needed;
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
		assert(at + 4 <= this.#length, "patch inside");
		this.#view.setUint32(at, value, true);
	}

	/** A view on what was written; valid until the next write. */
	view(): Uint8Array {
		assert(this.#bytes !== finished, "nothing is looked at after finish");
		return this.#bytes.subarray(0, this.#length);
	}

	/** Exactly what was written, in memory of its own; the last call. */
	finish(): Uint8Array {
		const bytes = this.#bytes;
		this.#bytes = finished;
		return bytes.length === this.#length ? bytes : bytes.slice(0, this.#length);
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
