/**
 * Whether waiting awake has been worth it lately. Every wait counts, also those that were slept through, so that it is noticed when a slow disk
 * has become a fast one.
 *
 * Invariant: waits that were too long end it when they are more than a third of all.
 */
const most = 8;
const enough = 4;
const missCosts = 2;

export class SpinHistory {
	readonly #limitMs: number;
	#credit = 0;

	/** @param limitMs the longest wait that is worth it. */
	constructor(limitMs: number) {
		this.#limitMs = limitMs;
	}

	get worthIt(): boolean {
		return this.#credit >= enough;
	}

	waited(ms: number): void {
		this.#credit = ms < this.#limitMs ? Math.min(most, this.#credit + 1) : Math.max(0, this.#credit - missCosts);
	}
}
