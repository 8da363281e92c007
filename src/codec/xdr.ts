/**
 * XDR (RFC 4506): big-endian words, everything padded to four bytes. Strings are byte strings. A hyper beyond 2^53 is read as 2^53: that is no safe integer, so whoever uses it must refuse it by its own rules (an
 * offset is too large for a file, not garbage).
 */
import { assert, failed } from "../base/assert.ts";
import { bytesToLatin1 } from "../base/bytes.ts";
import { FsError } from "../base/errors.ts";

const padding = (lengthBytes: number): number => (4 - (lengthBytes & 3)) & 3;

/** Bytes that an opaque of this length takes after its length. */
export const paddedBytes = (lengthBytes: number): number => lengthBytes + padding(lengthBytes);

export class XdrWriter {
	#bytes: Uint8Array;
	#view: DataView;
	#length = 0;

	constructor(initialBytes = 256) {
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
			const grown = new Uint8Array(Math.max(needed, this.#bytes.length * 2));
			grown.set(this.#bytes.subarray(0, at));
			this.#bytes = grown;
			this.#view = new DataView(grown.buffer);
		}
		this.#length = needed;
		return at;
	}

	u32(value: number): this {
		if (value >>> 0 !== value) failed(`xdr u32 out of range: ${value}`);
		const at = this.#reserve(4);
		this.#view.setUint32(at, value);
		return this;
	}

	i32(value: number): this {
		if ((value | 0) !== value) failed(`xdr i32 out of range: ${value}`);
		const at = this.#reserve(4);
		this.#view.setInt32(at, value);
		return this;
	}

	/** A non-negative safe integer. */
	u64(value: number): this {
		if (!Number.isSafeInteger(value) || value < 0) failed(`xdr u64 out of range: ${value}`);
		const at = this.#reserve(8);
		this.#view.setUint32(at, Math.floor(value / 0x1_0000_0000));
		this.#view.setUint32(at + 4, value % 0x1_0000_0000);
		return this;
	}

	bool(value: boolean): this {
		return this.u32(value ? 1 : 0);
	}

	/** Fixed length: no length before it. */
	fixed(bytes: Uint8Array): this {
		const at = this.#reserve(paddedBytes(bytes.length));
		this.#bytes.set(bytes, at);
		this.#bytes.fill(0, at + bytes.length, this.#length);
		return this;
	}

	opaque(bytes: Uint8Array): this {
		return this.u32(bytes.length).fixed(bytes);
	}

	/** A byte string. */
	text(text: string): this {
		this.u32(text.length);
		const at = this.#reserve(paddedBytes(text.length));
		for (let i = 0; i < text.length; i++) {
			const code = text.charCodeAt(i);
			assert(code <= 0xff, "text is not a byte string");
			this.#bytes[at + i] = code;
		}
		this.#bytes.fill(0, at + text.length, this.#length);
		return this;
	}

	/** Takes back what was written behind `length`. */
	cut(length: number): this {
		assert(length >= 0 && length <= this.#length && length % 4 === 0, `xdr cut to ${length} of ${this.#length}`);
		this.#length = length;
		return this;
	}

	/** Overwrites a word that was written before. */
	patchU32(at: number, value: number): void {
		assert(at % 4 === 0 && at + 4 <= this.#length, "xdr patch outside");
		this.#view.setUint32(at, value);
	}

	/** What was written; not a copy: nothing may be written afterwards. */
	finish(): Uint8Array {
		return this.#bytes.subarray(0, this.#length);
	}
}

/** Every impossible input throws CORRUPT. Opaques are views, not copies. */
export class XdrReader {
	readonly #bytes: Uint8Array;
	readonly #view: DataView;
	readonly #what: string;
	#at: number;

	constructor(bytes: Uint8Array, what: string, at = 0) {
		this.#bytes = bytes;
		this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
		this.#what = what;
		this.#at = at;
	}

	get offset(): number {
		return this.#at;
	}

	get remaining(): number {
		return this.#bytes.length - this.#at;
	}

	corrupt(why: string): FsError {
		return new FsError("CORRUPT", "codec.xdr", `${this.#what}: ${why}`);
	}

	#take(count: number): number {
		if (count > this.#bytes.length - this.#at) throw this.corrupt(`ends at ${this.#bytes.length}, ${this.#at + count} needed`);
		const at = this.#at;
		this.#at += count;
		return at;
	}

	u32(): number {
		return this.#view.getUint32(this.#take(4));
	}

	i32(): number {
		return this.#view.getInt32(this.#take(4));
	}

	/** 2^53 for everything beyond. */
	u64(): number {
		const at = this.#take(8);
		const high = this.#view.getUint32(at);
		return high >= 0x20_0000 ? 0x20_0000_0000_0000 : high * 0x1_0000_0000 + this.#view.getUint32(at + 4);
	}

	bool(): boolean {
		const value = this.u32();
		if (value > 1) throw this.corrupt(`${value} is no truth value`);
		return value === 1;
	}

	/** One of 0 … count - 1. */
	choice(count: number, what: string): number {
		const value = this.u32();
		if (value >= count) throw this.corrupt(`${what} ${value}`);
		return value;
	}

	fixed(lengthBytes: number): Uint8Array {
		const at = this.#take(paddedBytes(lengthBytes));
		return this.#bytes.subarray(at, at + lengthBytes);
	}

	opaque(mostBytes: number): Uint8Array {
		const lengthBytes = this.u32();
		if (lengthBytes > mostBytes) throw this.corrupt(`${lengthBytes} bytes where ${mostBytes} may be`);
		return this.fixed(lengthBytes);
	}

	text(mostBytes: number): string {
		return bytesToLatin1(this.opaque(mostBytes));
	}

	/** Everything must have been read. */
	end(): void {
		if (this.remaining !== 0) throw this.corrupt(`${this.remaining} bytes too many`);
	}
}
