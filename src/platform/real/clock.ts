/** Clock and chance of the real world. */
import { randomBytes } from "node:crypto";
import type { Timestamp } from "../../base/time.ts";
import type { Clock, Random } from "../interface.ts";
import { realLimits } from "./limits.ts";

export class RealClock implements Clock {
	#millisecond = 0;
	/** Monotonic time at which the current millisecond of the wall clock was first seen. */
	#seenAtMs = 0;

	/** Date.now has milliseconds; within one the monotonic clock counts on, so that later is never earlier. */
	realtime(): Timestamp {
		const millisecond = Date.now();
		const nowMs = performance.now();
		if (millisecond !== this.#millisecond) {
			this.#millisecond = millisecond;
			this.#seenAtMs = nowMs;
		}
		const within = Math.min(999_999, Math.floor((nowMs - this.#seenAtMs) * 1e6));
		const seconds = Math.floor(millisecond / 1000);
		return { seconds, nanoseconds: (millisecond - seconds * 1000) * 1_000_000 + within };
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
