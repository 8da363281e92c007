/** Clock and chance of the real world. */
import { randomBytes } from "node:crypto";
import type { Timestamp } from "../../base/time.ts";
import type { Clock, Random } from "../interface.ts";
import { readRealtime } from "./libc.ts";
import { realLimits } from "./limits.ts";

export class RealClock implements Clock {
	readonly #now = new BigInt64Array(2);

	/** With the nanoseconds of the kernel: Date.now has milliseconds, and files made one after the other would be of one time. */
	realtime(): Timestamp {
		readRealtime(this.#now);
		return { seconds: Number(this.#now[0]), nanoseconds: Number(this.#now[1]) };
	}

	monotonicMs(): number {
		return performance.now();
	}

	sleep(ms: number): Promise<void> {
		return new Promise((resolve) => this.after(ms, resolve));
	}

	after(ms: number, fn: () => void): () => void {
		const endMs = performance.now() + ms;
		let timer: NodeJS.Timeout | undefined;
		const wait = (leftMs: number) => {
			timer = setTimeout(
				() => {
					const restMs = endMs - performance.now();
					if (leftMs > realLimits.timerMs && restMs > 0) wait(restMs);
					else fn();
				},
				Math.min(leftMs, realLimits.timerMs),
			);
			timer.unref();
		};
		wait(Math.max(0, ms));
		return () => clearTimeout(timer);
	}

	yield(): Promise<void> {
		return new Promise((resolve) => setImmediate(resolve));
	}
}

export class RealRandom implements Random {
	#pool: Buffer = Buffer.alloc(0);
	#at = 0;

	u32(): number {
		if (this.#at + 4 > this.#pool.length) {
			this.#pool = randomBytes(realLimits.randomPoolBytes);
			this.#at = 0;
		}
		const value = this.#pool.readUInt32LE(this.#at);
		this.#at += 4;
		return value;
	}

	/** Draws again above the last whole multiple of `bound`, so that every value is equally likely. */
	below(bound: number): number {
		if (!(Number.isSafeInteger(bound - 1) && bound >= 1)) throw new RangeError(`random bound ${bound} is not within 1 .. 2^53`);
		const range = 0x20_0000_0000_0000;
		const limit = range - (range % bound);
		for (;;) {
			const value = (this.u32() >>> 11) * 0x1_0000_0000 + this.u32();
			if (value < limit) return value % bound;
		}
	}

	bytes(lengthBytes: number): Uint8Array {
		return new Uint8Array(randomBytes(lengthBytes));
	}
}
