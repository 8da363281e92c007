/** Small async primitives. None of them uses timers: whoever needs a deadline takes it from the Platform's clock. */
import { assert } from "./assert.ts";

export class Deferred<T> {
	readonly promise: Promise<T>;
	resolve!: (value: T) => void;
	reject!: (error: unknown) => void;
	settled = false;

	constructor() {
		this.promise = new Promise<T>((resolve, reject) => {
			this.resolve = (value) => {
				this.settled = true;
				resolve(value);
			};
			this.reject = (error) => {
				this.settled = true;
				reject(error);
			};
		});
	}
}

/** First come, first served. `run` holds the lock while the function's promise is pending. */
export class Mutex {
	#held = false;
	#waiters: (() => void)[] = [];

	get held(): boolean {
		return this.#held;
	}

	async run<T>(fn: () => Promise<T> | T): Promise<T> {
		if (this.#held) await new Promise<void>((resolve) => this.#waiters.push(resolve));
		this.#held = true;
		try {
			return await fn();
		} finally {
			const next = this.#waiters.shift();
			if (next) next();
			else this.#held = false;
		}
	}
}

/** A mutex per key; keys without holders take no memory. */
export class KeyedMutex<K> {
	#locks = new Map<K, { mutex: Mutex; users: number }>();
	readonly #onWait: (key: K) => void;

	/** @param onWait called when somebody has to wait for a key, before he does. */
	constructor(onWait: (key: K) => void = () => {}) {
		this.#onWait = onWait;
	}

	async run<T>(key: K, fn: () => Promise<T> | T): Promise<T> {
		let entry = this.#locks.get(key);
		if (!entry) {
			entry = { mutex: new Mutex(), users: 0 };
			this.#locks.set(key, entry);
		} else this.#onWait(key);
		entry.users++;
		try {
			return await entry.mutex.run(fn);
		} finally {
			if (--entry.users === 0) this.#locks.delete(key);
		}
	}

	held(key: K): boolean {
		return this.#locks.has(key);
	}
}

/** At most `limit` at once; the rest wait in order. */
export class Semaphore {
	#free: number;
	#waiters: (() => void)[] = [];

	constructor(limit: number) {
		assert(limit > 0, "semaphore limit");
		this.#free = limit;
	}

	async run<T>(fn: () => Promise<T> | T): Promise<T> {
		if (this.#free > 0) this.#free--;
		else await new Promise<void>((resolve) => this.#waiters.push(resolve));
		try {
			return await fn();
		} finally {
			const next = this.#waiters.shift();
			if (next) next();
			else this.#free++;
		}
	}
}

/** Waiters are woken all at once, each re-checks its condition. */
export class Signal {
	#waiters: (() => void)[] = [];

	wait(): Promise<void> {
		return new Promise((resolve) => this.#waiters.push(resolve));
	}

	notifyAll(): void {
		const waiters = this.#waiters;
		this.#waiters = [];
		for (const wake of waiters) wake();
	}
}

/** Settles when all have settled; throws the first error only then, so that nothing is left running behind the caller's back. */
export async function allSettledOrThrow<T>(promises: readonly Promise<T>[]): Promise<T[]> {
	const results = await Promise.allSettled(promises);
	const values: T[] = [];
	for (const result of results) {
		if (result.status === "rejected") throw result.reason;
		values.push(result.value);
	}
	return values;
}
