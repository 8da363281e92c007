/** Containers with a bound (architecture, rule 7). */
import { assert } from "./assert.ts";

/** Least recently used out first; the bound is a sum of caller-given costs (bytes). */
export class LruCache<K, V> {
	#entries = new Map<K, { value: V; cost: number }>();
	#cost = 0;
	readonly #maxCost: number;

	constructor(maxCost: number) {
		assert(maxCost >= 0, "cache bound");
		this.#maxCost = maxCost;
	}

	get size(): number {
		return this.#entries.size;
	}

	get cost(): number {
		return this.#cost;
	}

	get(key: K): V | undefined {
		const entry = this.#entries.get(key);
		if (!entry) return undefined;
		this.#entries.delete(key);
		this.#entries.set(key, entry);
		return entry.value;
	}

	set(key: K, value: V, cost: number): void {
		this.delete(key);
		if (cost > this.#maxCost) return;
		this.#entries.set(key, { value, cost });
		this.#cost += cost;
		for (const [oldest, entry] of this.#entries) {
			if (this.#cost <= this.#maxCost) break;
			this.#entries.delete(oldest);
			this.#cost -= entry.cost;
		}
	}

	delete(key: K): void {
		const entry = this.#entries.get(key);
		if (!entry) return;
		this.#entries.delete(key);
		this.#cost -= entry.cost;
	}

	/** Takes out the least recently used value. */
	dropOldest(): V | undefined {
		const [oldest] = this.#entries;
		if (!oldest) return undefined;
		this.delete(oldest[0]);
		return oldest[1].value;
	}

	clear(): void {
		this.#entries.clear();
		this.#cost = 0;
	}
}
