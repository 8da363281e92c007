/**
 * Buffers that are used again and again. Large reads into fresh memory make the garbage collector run after every few dozen of them, and it takes longer than
 * the reads.
 *
 * Invariants
 *  1. A buffer is lent to one borrower at a time, and is free again only after that one's release.
 *  2. Free buffers take at most `keptBytes`; what is lent is not held on to, so a borrower who forgets it only makes work for the collector.
 */
import { assert } from "./assert.ts";

export interface Lent {
	/** Of the length that was asked for; what is in it is left from before. */
	readonly bytes: Uint8Array;
	readonly release: () => void;
}

export interface BufferPoolOptions {
	/** Below this a buffer of its own costs less than the bookkeeping. */
	readonly fromBytes: number;
	readonly keptBytes: number;
	/** Memory that other threads can fill. */
	readonly shared: boolean;
}

export class BufferPool {
	/** Size → free buffers of that size. */
	readonly #free = new Map<number, (ArrayBuffer | SharedArrayBuffer)[]>();
	readonly #options: BufferPoolOptions;
	#freeBytes = 0;

	constructor(options: BufferPoolOptions) {
		this.#options = options;
	}

	get freeBytes(): number {
		return this.#freeBytes;
	}

	/** Undefined: too small to be worth it. */
	take(lengthBytes: number): Lent | undefined {
		if (lengthBytes < this.#options.fromBytes) return undefined;
		const sizeBytes = 2 ** (32 - Math.clz32(lengthBytes - 1));
		const known = this.#free.get(sizeBytes)?.pop();
		if (known !== undefined) this.#freeBytes -= sizeBytes;
		const buffer = known ?? (this.#options.shared ? new SharedArrayBuffer(sizeBytes) : new ArrayBuffer(sizeBytes));
		let isLent = true;
		return {
			bytes: new Uint8Array(buffer, 0, lengthBytes),
			release: () => {
				assert(isLent, "a borrowed buffer is given back once");
				isLent = false;
				this.#give(buffer);
			},
		};
	}

	#give(buffer: ArrayBuffer | SharedArrayBuffer): void {
		const sizeBytes = buffer.byteLength;
		if (this.#freeBytes + sizeBytes > this.#options.keptBytes) return;
		this.#freeBytes += sizeBytes;
		const same = this.#free.get(sizeBytes);
		if (same === undefined) this.#free.set(sizeBytes, [buffer]);
		else same.push(buffer);
	}
}
