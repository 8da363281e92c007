/**
 * Blocks of sorted entries, used for data and for the index of a run, searched in place: no entry is decoded before it is wanted.
 *
 * An entry: key length u16, value length u32 (0xffffffff = tombstone), version u64, key, value. All little-endian.
 *
 * Invariants
 *  B1 Keys ascend strictly within a block.
 *  B2 `parseBlock` has checked every length: whoever holds a Block reads inside its bytes.
 */
import { assert } from "../../base/assert.ts";
import { FsError } from "../../base/errors.ts";
import type { Versioned } from "../interface.ts";

export const entryHeaderBytes = 14;
const tombstone = 0xffff_ffff;

export class Block {
	readonly bytes: Uint8Array;
	readonly #starts: Uint32Array;

	constructor(bytes: Uint8Array, starts: Uint32Array) {
		this.bytes = bytes;
		this.#starts = starts;
	}

	get count(): number {
		return this.#starts.length;
	}

	/** What it costs in memory. */
	get cost(): number {
		return this.bytes.length + 4 * this.#starts.length + 200;
	}

	/** Index of the first entry whose key is ≥ `key`; `count` when there is none. */
	lowerBound(key: string): number {
		let low = 0;
		let high = this.#starts.length;
		while (low < high) {
			const middle = (low + high) >>> 1;
			if (this.compare(middle, key) < 0) low = middle + 1;
			else high = middle;
		}
		return low;
	}

	/** Sign of (key of entry i) - key. */
	compare(i: number, key: string): number {
		const bytes = this.bytes;
		const start = this.#starts[i] as number;
		const length = readU16(bytes, start);
		const from = start + entryHeaderBytes;
		const common = length < key.length ? length : key.length;
		for (let at = 0; at < common; at++) {
			const difference = (bytes[from + at] as number) - key.charCodeAt(at);
			if (difference !== 0) return difference;
		}
		return length - key.length;
	}

	/** Sign of (key of entry i) - (key of entry j of another block). */
	compareEntries(i: number, other: Block, j: number): number {
		const a = this.bytes;
		const b = other.bytes;
		const startA = this.#starts[i] as number;
		const startB = other.#starts[j] as number;
		const lengthA = readU16(a, startA);
		const lengthB = readU16(b, startB);
		const common = lengthA < lengthB ? lengthA : lengthB;
		for (let at = entryHeaderBytes; at < common + entryHeaderBytes; at++) {
			const difference = (a[startA + at] as number) - (b[startB + at] as number);
			if (difference !== 0) return difference;
		}
		return lengthA - lengthB;
	}

	key(i: number): string {
		const start = this.#starts[i] as number;
		const from = start + entryHeaderBytes;
		return String.fromCharCode.apply(null, this.bytes.subarray(from, from + readU16(this.bytes, start)) as unknown as number[]);
	}

	isTombstone(i: number): boolean {
		return readU32(this.bytes, (this.#starts[i] as number) + 2) === tombstone;
	}

	version(i: number): number {
		const start = this.#starts[i] as number;
		return readU32(this.bytes, start + 6) + readU32(this.bytes, start + 10) * 0x1_0000_0000;
	}

	/** A view on the value; empty for a tombstone. */
	value(i: number): Uint8Array {
		const start = this.#starts[i] as number;
		if (this.isTombstone(i)) return this.bytes.subarray(0, 0);
		const from = start + entryHeaderBytes + readU16(this.bytes, start);
		return this.bytes.subarray(from, from + readU32(this.bytes, start + 2));
	}

	/** The value with its version, or null for a tombstone. */
	versioned(i: number): Versioned | null {
		return this.isTombstone(i) ? null : { value: this.value(i), version: this.version(i) };
	}

	/** The whole entry as it stands in the block. */
	raw(i: number): Uint8Array {
		const end = i + 1 < this.#starts.length ? (this.#starts[i + 1] as number) : this.bytes.length;
		return this.bytes.subarray(this.#starts[i] as number, end);
	}
}

/** Checks lengths and order. @throws FsError CORRUPT. */
export function parseBlock(bytes: Uint8Array, what: string): Block {
	const starts: number[] = [];
	let at = 0;
	while (at < bytes.length) {
		if (at + entryHeaderBytes > bytes.length) throw broken(what, at);
		const valueLength = readU32(bytes, at + 2);
		const end = at + entryHeaderBytes + readU16(bytes, at) + (valueLength === tombstone ? 0 : valueLength);
		if (end > bytes.length || readU32(bytes, at + 10) > 0x1f_ffff) throw broken(what, at);
		starts.push(at);
		at = end;
	}
	const block = new Block(bytes, Uint32Array.from(starts));
	for (let i = 1; i < starts.length; i++) if (block.compareEntries(i - 1, block, i) >= 0) throw broken(what, starts[i] as number);
	return block;
}

function broken(what: string, at: number): FsError {
	return new FsError("CORRUPT", "kv.block", `${what}: no entry can be read at byte ${at}`);
}

/** Collects entries in key order. */
export class BlockBuilder {
	#bytes: Uint8Array;
	#length = 0;
	#count = 0;

	constructor(expectedBytes: number) {
		this.#bytes = new Uint8Array(expectedBytes);
	}

	get length(): number {
		return this.#length;
	}

	get count(): number {
		return this.#count;
	}

	/** `value` null = tombstone. */
	add(key: string, value: Uint8Array | null, version: number): void {
		const size = entryHeaderBytes + key.length + (value?.length ?? 0);
		let at = this.#reserve(size);
		const bytes = this.#bytes;
		writeU16(bytes, at, key.length);
		writeU32(bytes, at + 2, value === null ? tombstone : value.length);
		writeU32(bytes, at + 6, version % 0x1_0000_0000);
		writeU32(bytes, at + 10, Math.floor(version / 0x1_0000_0000));
		at += entryHeaderBytes;
		for (let i = 0; i < key.length; i++) bytes[at + i] = key.charCodeAt(i);
		if (value !== null) bytes.set(value, at + key.length);
	}

	addRaw(entry: Uint8Array): void {
		const at = this.#reserve(entry.length);
		this.#bytes.set(entry, at);
	}

	/** A copy of what was collected; the builder is empty afterwards. */
	take(): Uint8Array {
		const bytes = this.#bytes.slice(0, this.#length);
		this.#length = 0;
		this.#count = 0;
		return bytes;
	}

	#reserve(size: number): number {
		const at = this.#length;
		if (at + size > this.#bytes.length) {
			const grown = new Uint8Array(Math.max(at + size, this.#bytes.length * 2));
			grown.set(this.#bytes.subarray(0, at));
			this.#bytes = grown;
		}
		this.#length += size;
		this.#count++;
		return at;
	}
}

export function readU16(bytes: Uint8Array, at: number): number {
	return (bytes[at] as number) | ((bytes[at + 1] as number) << 8);
}

export function readU32(bytes: Uint8Array, at: number): number {
	const low = (bytes[at] as number) | ((bytes[at + 1] as number) << 8) | ((bytes[at + 2] as number) << 16);
	return low + (bytes[at + 3] as number) * 0x100_0000;
}

export function writeU16(bytes: Uint8Array, at: number, value: number): void {
	assert(value <= 0xffff, "u16");
	bytes[at] = value;
	bytes[at + 1] = value >>> 8;
}

export function writeU32(bytes: Uint8Array, at: number, value: number): void {
	bytes[at] = value;
	bytes[at + 1] = value >>> 8;
	bytes[at + 2] = value >>> 16;
	bytes[at + 3] = value >>> 24;
}
