/** Recent commits in memory, bounded by bytes and number, for `changesAfter`. */
import type { Change, Position } from "../interface.ts";
import { decodeCommit } from "./commit-record.ts";

interface Kept {
	readonly position: Position;
	readonly payload: Uint8Array;
}

export class Feed {
	readonly #maximumBytes: number;
	readonly #maximumCommits: number;
	#kept: Kept[] = [];
	/** Index of the oldest that still counts. */
	#first = 0;
	#bytes = 0;
	/** Newest position that is forgotten. */
	#forgotten: Position;

	constructor(position: Position, maximumBytes: number, maximumCommits: number) {
		this.#forgotten = position;
		this.#maximumBytes = maximumBytes;
		this.#maximumCommits = maximumCommits;
	}

	add(position: Position, payload: Uint8Array): void {
		this.#kept.push({ position, payload });
		this.#bytes += payload.length;
		while (this.#bytes > this.#maximumBytes || this.#kept.length - this.#first > this.#maximumCommits) this.#forget();
		// Shifting an array for each commit would be slow; half of it being dead is not.
		if (this.#first > 64 && this.#first * 2 > this.#kept.length) {
			this.#kept = this.#kept.slice(this.#first);
			this.#first = 0;
		}
	}

	#forget(): void {
		const oldest = this.#kept[this.#first] as Kept;
		this.#kept[this.#first++] = { position: oldest.position, payload: nothing };
		this.#bytes -= oldest.payload.length;
		this.#forgotten = oldest.position;
	}

	after(position: Position, limit: number): readonly Change[] | "gap" {
		if (position < this.#forgotten) return "gap";
		const changes: Change[] = [];
		for (let at = this.#indexAfter(position); at < this.#kept.length && changes.length < limit; at++) {
			const kept = this.#kept[at] as Kept;
			changes.push({ position: kept.position, ...decodeCommit(kept.payload, `commit ${kept.position}`) });
		}
		return changes;
	}

	#indexAfter(position: Position): number {
		let low = this.#first;
		let high = this.#kept.length;
		while (low < high) {
			const middle = (low + high) >>> 1;
			if ((this.#kept[middle] as Kept).position <= position) low = middle + 1;
			else high = middle;
		}
		return low;
	}
}

const nothing = new Uint8Array(0);
