/**
 * Work behind the foreground, in steps: of each turn of the event loop it takes a share, then whatever else waits has its turn.
 *
 * Invariants
 *  T1 Steps begin in the order in which they were asked for, but for those that somebody waits for (`Hurry`): these begin at once.
 *  T2 No other step begins when the share of this turn is used up; it is exceeded by one step at the most.
 *  T3 While steps wait, a turn is on its way, and at least one of them begins in it.
 */
export interface Turns {
	/** Milliseconds that never go back. */
	monotonicMs(): number;
	/** Resolves in a later turn. */
	yield(): Promise<void>;
}

/** Whether somebody waits for a piece of work that is done in steps. */
export class Hurry {
	#isOn = false;
	#start: (() => void) | undefined;

	get isOn(): boolean {
		return this.#isOn;
	}

	/** From now on it goes on at once, and so does what waits for its turn. */
	now(): void {
		this.#isOn = true;
		const start = this.#start;
		this.#start = undefined;
		start?.();
	}

	/** What `now` is to do for the step that the work is at; it takes the place of what was said for the one before. */
	whenOn(start: () => void): void {
		if (this.#isOn) start();
		else this.#start = start;
	}
}

/** A step that waits; nothing once it has begun. */
interface Place {
	begin: (() => void) | undefined;
}

export class TurnShare {
	readonly #turns: Turns;
	readonly #shareMs: number;
	readonly #isCut: () => boolean;
	#places: Place[] = [];
	#waiting = 0;
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
		return this.#waiting;
	}

	/** Begins the step at once where nothing waits and there is time left, else in its turn. What counts against the share is what it does before it returns; what its promise waits for does not. */
	run<T>(step: () => T | Promise<T>, hurry?: Hurry): Promise<T> {
		return new Promise((resolve) => {
			// The executor's own throw would be lost in a later turn.
			const begin = (): void => resolve(new Promise<T>((settle) => settle(step())));
			if (hurry?.isOn === true || (this.#waiting === 0 && this.#hasTime())) {
				begin();
				return;
			}
			const place: Place = { begin };
			this.#places.push(place);
			this.#waiting++;
			hurry?.whenOn(() => this.#begin(place));
		});
	}

	#begin(place: Place): void {
		const { begin } = place;
		if (begin === undefined) return;
		place.begin = undefined;
		this.#waiting--;
		begin();
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
		this.#places = this.#places.filter(({ begin }) => begin !== undefined);
		if (this.#places.length === 0) return;
		this.#open();
		let at = 0;
		do this.#begin(this.#places[at++] as Place);
		while (at < this.#places.length && this.#hasTime());
		this.#places = this.#places.slice(at);
	};
}
