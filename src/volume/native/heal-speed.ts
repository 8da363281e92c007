/**
 * How long healing takes: so much for each segment (its record, syncs, a transaction) and so much for each byte, by what the latest ones took. Which of the two weighs more differs between disks by a factor
 * of a hundred. Rests are not measured: they are a multiple of the work, which may be changed at any time (`secondsFor`). Pure.
 */
import type { HealSpeed } from "../../records/interface.ts";
import { limits } from "./limits.ts";

export interface SpeedOptions {
	/** What is longer ago than this counts half, and so on. */
	readonly windowMs: number;
	/** A segment costs as much as so many bytes, as long as all were about equally long. */
	readonly pieceBytes: number;
	/** Measured before; it counts until there is enough to go by. */
	readonly before: HealSpeed | undefined;
}

/** So many segments say more than what was measured before; so many of different lengths tell the two costs apart. */
const enoughToKnow = 4;
const enoughToSplit = 16;

export class SpeedMeter {
	readonly #options: SpeedOptions;
	#count = 0;
	#bytes = 0;
	#bytesSquared = 0;
	#ms = 0;
	#msBytes = 0;

	constructor(options: SpeedOptions) {
		this.#options = options;
	}

	/** One more segment is done, in so much work: where several are worked on at once, each counts for its share of the time. */
	done(bytes: number, tookMs: number): void {
		this.#add(1, bytes, bytes * bytes, tookMs, tookMs * bytes);
		if (this.#ms > this.#options.windowMs)
			this.#add(-this.#count / 2, -this.#bytes / 2, -this.#bytesSquared / 2, -this.#ms / 2, -this.#msBytes / 2);
	}

	#add(count: number, bytes: number, bytesSquared: number, ms: number, msBytes: number): void {
		this.#count += count;
		this.#bytes += bytes;
		this.#bytesSquared += bytesSquared;
		this.#ms += ms;
		this.#msBytes += msBytes;
	}

	/** Undefined: not known. */
	get speed(): HealSpeed | undefined {
		if (this.#count < enoughToKnow || this.#ms <= 0)
			return this.#options.before ?? (this.#count > 0 && this.#ms > 0 ? this.#together() : undefined);
		return this.#apart() ?? this.#together();
	}

	#together(): HealSpeed {
		const { pieceBytes } = this.#options;
		const byteMs = this.#ms / (this.#bytes + this.#count * pieceBytes);
		return speedOf(byteMs * pieceBytes, byteMs);
	}

	/** The straight line through them. */
	#apart(): HealSpeed | undefined {
		const meanBytes = this.#bytes / this.#count;
		const variance = this.#bytesSquared / this.#count - meanBytes * meanBytes;
		if (this.#count < enoughToSplit || variance < (meanBytes * meanBytes) / 16) return undefined;
		const meanMs = this.#ms / this.#count;
		const byteMs = (this.#msBytes / this.#count - meanMs * meanBytes) / variance;
		const pieceMs = meanMs - byteMs * meanBytes;
		if (byteMs < 0) return speedOf(meanMs, 0);
		return pieceMs < 0 ? speedOf(0, this.#ms / this.#bytes) : speedOf(pieceMs, byteMs);
	}
}

const bytesPerMebibyte = 1024 * 1024;

function speedOf(pieceMs: number, byteMs: number): HealSpeed {
	return { pieceMicroseconds: Math.round(pieceMs * 1000), mebibyteMicroseconds: Math.round(byteMs * 1000 * bytesPerMebibyte) };
}

/** Segments worked on side by side. Fewer of them wait less for one another: so what was measured with one number of them is not far from right for the other. */
export function lanesAt(tranquility: number): number {
	return tranquility === 0 ? limits.healsAtOnce : limits.restingHealsAtOnce;
}

/** `tranquility`: rests so many times as long as it works. */
export function secondsFor(speed: HealSpeed, segments: number, bytes: number, tranquility: number): number {
	const microseconds = segments * speed.pieceMicroseconds + (bytes / bytesPerMebibyte) * speed.mebibyteMicroseconds;
	return Math.ceil((microseconds * (1 + tranquility)) / 1_000_000);
}
