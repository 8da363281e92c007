/**
 * Virtual time: one queue of events, ordered by time and then by order of asking.
 *
 * Invariants
 * 1. `nowMs` never goes back, and moves only between events.
 * 2. An event whose owner is dead or which was cancelled is never run.
 * 3. All microtasks that an event caused have run before the next event.
 */
import { assert } from "../../base/assert.ts";
import { simLimits } from "./limits.ts";

/** Whoever owns an event; the events of the dead do not happen. */
export interface Owner {
	readonly alive: boolean;
}

interface Event {
	readonly atMs: number;
	readonly order: number;
	readonly owner: Owner;
	fn: (() => void) | undefined;
}

export interface RunOptions {
	/** Virtual milliseconds after which the run fails. */
	readonly limitMs?: number;
}

export class Scheduler {
	#nowMs = 0;
	#order = 0;
	#heap: Event[] = [];
	#cancelled = 0;
	#running = false;
	readonly #explain: () => string;

	/** @param explain what is outstanding, for the message of a run that cannot go on. */
	constructor(explain: () => string) {
		this.#explain = explain;
	}

	get nowMs(): number {
		return this.#nowMs;
	}

	/** Runs `fn` after `delayMs`; the result cancels. */
	at(delayMs: number, owner: Owner, fn: () => void): () => void {
		assert(delayMs >= 0, `a timer in the past: ${delayMs} ms`);
		const event: Event = { atMs: this.#nowMs + delayMs, order: this.#order++, owner, fn };
		this.#push(event);
		return () => {
			if (event.fn === undefined) return;
			event.fn = undefined;
			if (++this.#cancelled > 1024 && this.#cancelled > this.#heap.length / 2) this.#compact();
		};
	}

	delay(delayMs: number, owner: Owner): Promise<void> {
		return new Promise((resolve) => {
			if (owner.alive) this.at(delayMs, owner, resolve);
		});
	}

	/** Lets the world go on until `work` settles, and settles like it. Only one run at a time. */
	async run<T>(work: Promise<T> | (() => Promise<T> | T), options: RunOptions = {}): Promise<T> {
		assert(!this.#running, "world.run called while another run is going on: await the first, or run Promise.all of both");
		this.#running = true;
		try {
			return await this.#drive(work, options.limitMs ?? simLimits.runVirtualMs);
		} finally {
			this.#running = false;
		}
	}

	async #drive<T>(work: Promise<T> | (() => Promise<T> | T), limitMs: number): Promise<T> {
		let settled = false;
		const promise = typeof work === "function" ? (async () => await work())() : work;
		const mark = () => {
			settled = true;
		};
		promise.then(mark, mark);
		const startMs = this.#nowMs;
		for (let events = 0; ; events++) {
			await new Promise<void>((resolve) => setImmediate(resolve));
			if (settled) return await promise;
			if (events > simLimits.runEvents) throw new Error(`sim: ${events} events and no end at ${this.#nowMs} ms. ${this.#explain()}`);
			if (!this.#fireNext()) throw new Error(`sim: deadlock at ${this.#nowMs} ms: nothing left that could happen. ${this.#explain()}`);
			if (this.#nowMs - startMs > limitMs) throw new Error(`sim: not done after ${limitMs} virtual ms. ${this.#explain()}`);
		}
	}

	#fireNext(): boolean {
		for (;;) {
			const event = this.#pop();
			if (event === undefined) return false;
			const fn = event.fn;
			if (fn === undefined) this.#cancelled--;
			if (fn === undefined || !event.owner.alive) continue;
			event.fn = undefined;
			if (event.atMs > this.#nowMs) this.#nowMs = event.atMs;
			fn();
			return true;
		}
	}

	#compact(): void {
		const events = this.#heap.filter((event) => event.fn !== undefined && event.owner.alive);
		this.#heap = [];
		this.#cancelled = 0;
		for (const event of events) this.#push(event);
	}

	#push(event: Event): void {
		const heap = this.#heap;
		let at = heap.length;
		heap.push(event);
		while (at > 0) {
			const parent = (at - 1) >> 1;
			if (!before(event, heap[parent] as Event)) break;
			heap[at] = heap[parent] as Event;
			at = parent;
		}
		heap[at] = event;
	}

	#pop(): Event | undefined {
		const heap = this.#heap;
		const first = heap[0];
		const last = heap.pop();
		if (first === undefined || last === undefined || heap.length === 0) return first;
		let at = 0;
		for (;;) {
			let child = 2 * at + 1;
			if (child >= heap.length) break;
			if (child + 1 < heap.length && before(heap[child + 1] as Event, heap[child] as Event)) child++;
			if (!before(heap[child] as Event, last)) break;
			heap[at] = heap[child] as Event;
			at = child;
		}
		heap[at] = last;
		return first;
	}
}

function before(a: Event, b: Event): boolean {
	return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}
