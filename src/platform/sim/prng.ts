/**
 * Seeded random numbers: sfc32 (Chris Doty-Humphrey, PractRand), 32-bit integer arithmetic only, so that the bits are equal on
 * every Node version. Each purpose has its own stream: more draws for one do not shift the others.
 */
import type { Random } from "../interface.ts";

export class Prng implements Random {
	#a: number;
	#b: number;
	#c: number;
	#counter = 1;

	/** @param seed any safe integer. @param stream what the numbers are for. */
	constructor(seed: number, stream: string) {
		this.#a = seed | 0;
		this.#b = Math.floor(seed / 0x1_0000_0000) | 0;
		this.#c = hash32(stream);
		for (let i = 0; i < 15; i++) this.u32();
	}

	u32(): number {
		const sum = (((this.#a + this.#b) | 0) + this.#counter) | 0;
		this.#counter = (this.#counter + 1) | 0;
		this.#a = this.#b ^ (this.#b >>> 9);
		this.#b = (this.#c + (this.#c << 3)) | 0;
		this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0;
		return sum >>> 0;
	}

	/** Uniform in [0, 1), 53 bits. */
	float(): number {
		return ((this.u32() >>> 5) * 0x400_0000 + (this.u32() >>> 6)) / 0x20_0000_0000_0000;
	}

	below(bound: number): number {
		return Math.min(bound - 1, Math.floor(this.float() * bound));
	}

	chance(probability: number): boolean {
		return this.float() < probability;
	}

	pick<T>(items: readonly T[]): T {
		return items[this.below(items.length)] as T;
	}

	bytes(lengthBytes: number): Uint8Array {
		const bytes = new Uint8Array(lengthBytes);
		for (let i = 0; i < lengthBytes; i += 4) {
			const word = this.u32();
			for (let j = 0; j < 4 && i + j < lengthBytes; j++) bytes[i + j] = word >>> (8 * j);
		}
		return bytes;
	}
}

/** FNV-1a. */
export function hash32(text: string): number {
	let hash = 0x811c_9dc5;
	for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x0100_0193);
	return hash | 0;
}
