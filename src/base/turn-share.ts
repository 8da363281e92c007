/**
 * Work behind the foreground, in steps: of each turn of the event loop it takes a share, then whatever else waits has its turn.
 *
 * Invariants
 *  T1 Steps begin in the order in which they were asked for.
 *  T2 No step begins when the share of this turn is used up; it is exceeded by one step at the most.
 *  T3 While steps wait, a turn is on its way, and at least one of them begins in it.
 */
export interface Turns {
	/** Milliseconds that never go back. */
	monotonicMs(): number;
	/** Resolves in a later turn. */
	yield(): Promise<void>;
}

export class TurnShare {
	readonly #turns: Turns;
	readonly #shareMs: number;
	readonly #isCut: () => boolean;
	#waiting: (() => void)[] = [];
	/** Until when steps may begin in this turn; undefined: none has begun. */
	#endMs: number | undefined;

	/** @param isCut asked before each step: true ends the share of this turn before its time. */
	constructor(turns: Turns, shareMs: number, isCut: () => boolean = () => false) {
		this.#turns = turns;
		this.#shareMs = shareMs;
		this.#isCut = isCut;
	}

	/** How many steps wait for a turn. They never wait for anything else. */
	get waiting(): number {
		return this.#waiting.length;
	}

	/** Begins the step at once where nothing waits and there is time left, else in its turn. What counts against the share is what it does before it returns; what its promise waits for does not. */
	run<T>(step: () => T | Promise<T>): Promise<T> {
		return new Promise((resolve) => {
			// The executor's own throw would be lost in a later turn.
			const begin = (): void => resolve(new Promise<T>((settle) => settle(step())));
			if (this.#waiting.length === 0 && this.#hasTime()) begin();
			else this.#waiting.push(begin);
		});
	}

	#hasTime(): boolean {
		if (this.#endMs === undefined) {
			this.#open();
			return true;
		}
		return this.#turns.monotonicMs() < this.#endMs && !this.#isCut();
	}

	#open(): void {
		this.#endMs = this.#turns.monotonicMs() + this.#shareMs;
		void this.#turns.yield().then(this.#turn);
	}

	readonly #turn = (): void => {
		this.#endMs = undefined;
		if (this.#waiting.length === 0) return;
		this.#open();
		let begun = 0;
		do this.#waiting[begun++]?.();
		while (begun < this.#waiting.length && this.#hasTime());
		this.#waiting = this.#waiting.slice(begun);
	};
}
