/** A bloom filter over byte-string keys: no false negatives, about 1 % false positives at 10 bits a key. */
import { alignUp } from "../../base/bytes.ts";

/** log(2) * bits per key: the best number for 10 bits. */
const probes = 7;

export interface KeyHash {
	readonly a: number;
	readonly b: number;
}

/** Two independent 32-bit hashes (murmur3-style mixing), the same for a string and for its bytes. */
export function hashKey(key: string): KeyHash {
	let a = 0x9747b28c;
	let b = 0x3c6ef372;
	for (let i = 0; i < key.length; i++) {
		const code = key.charCodeAt(i);
		a = Math.imul(a ^ code, 0x01000193);
		b = Math.imul((b << 5) ^ (b >>> 27) ^ code, 0x85ebca6b);
	}
	return { a: finish(a ^ key.length), b: finish(b) | 1 };
}

export function hashBytes(bytes: Uint8Array, from: number, length: number): KeyHash {
	let a = 0x9747b28c;
	let b = 0x3c6ef372;
	for (let i = 0; i < length; i++) {
		const code = bytes[from + i] as number;
		a = Math.imul(a ^ code, 0x01000193);
		b = Math.imul((b << 5) ^ (b >>> 27) ^ code, 0x85ebca6b);
	}
	return { a: finish(a ^ length), b: finish(b) | 1 };
}

function finish(hash: number): number {
	let h = hash;
	h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
	h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
	return (h ^ (h >>> 16)) >>> 0;
}

export class Bloom {
	readonly bytes: Uint8Array;
	readonly #bits: number;

	/** At least 8 bytes. */
	constructor(bytes: Uint8Array) {
		this.bytes = bytes;
		this.#bits = bytes.length * 8;
	}

	static forKeys(keys: number, bitsPerKey: number, maximumBytes: number): Bloom {
		return new Bloom(new Uint8Array(Math.min(maximumBytes, alignUp(Math.max(64, keys * bitsPerKey) / 8, 8))));
	}

	add(hash: KeyHash): void {
		let at = hash.a;
		for (let i = 0; i < probes; i++) {
			const bit = at % this.#bits;
			this.bytes[bit >>> 3] = (this.bytes[bit >>> 3] as number) | (1 << (bit & 7));
			at = (at + hash.b) >>> 0;
		}
	}

	mayHold(hash: KeyHash): boolean {
		let at = hash.a;
		for (let i = 0; i < probes; i++) {
			const bit = at % this.#bits;
			if (((this.bytes[bit >>> 3] as number) & (1 << (bit & 7))) === 0) return false;
			at = (at + hash.b) >>> 0;
		}
		return true;
	}
}
