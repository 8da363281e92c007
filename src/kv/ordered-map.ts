/**
 * A sorted map keyed by byte strings, made for memtables: dense leaves under one sorted list of leaves. Lookups are two binary searches; an insertion moves
 * half a leaf on average. At 10^6 keys the list of leaves has about 2 * 10^4 places, so no further level is needed.
 *
 * Invariants
 *  M1 Keys inside a leaf ascend; the last key of a leaf is less than the first key of the next.
 *  M2 No leaf is empty; `firsts[i]` is the first key of leaf i.
 *  M3 A cursor is used only while the map does not change (asserted).
 */
import { assert } from "../base/assert.ts";

const leafKeys = 96;

interface Leaf<V> {
	readonly keys: string[];
	readonly values: V[];
}

export class OrderedMap<V> {
	#leaves: Leaf<V>[] = [];
	#firsts: string[] = [];
	#size = 0;
	#changes = 0;

	get size(): number {
		return this.#size;
	}

	/** Raised by every insertion and removal (not by replacing a value). */
	get changes(): number {
		return this.#changes;
	}

	get(key: string): V | undefined {
		const leaf = this.#leaves[this.#leafFor(key)];
		if (leaf === undefined) return undefined;
		const at = lowerBound(leaf.keys, key);
		return leaf.keys[at] === key ? leaf.values[at] : undefined;
	}

	/** Returns what was there before. */
	set(key: string, value: V): V | undefined {
		const number = this.#leafFor(key);
		const leaf = this.#leaves[number];
		if (leaf === undefined) {
			this.#leaves.push({ keys: [key], values: [value] });
			this.#firsts.push(key);
			this.#inserted();
			return undefined;
		}
		const at = lowerBound(leaf.keys, key);
		if (leaf.keys[at] === key) {
			const before = leaf.values[at];
			leaf.values[at] = value;
			return before;
		}
		insertAt(leaf.keys, at, key);
		insertAt(leaf.values, at, value);
		if (at === 0) this.#firsts[number] = key;
		if (leaf.keys.length > leafKeys) this.#split(number, leaf, at === leafKeys);
		this.#inserted();
		return undefined;
	}

	delete(key: string): boolean {
		const number = this.#leafFor(key);
		const leaf = this.#leaves[number];
		if (leaf === undefined) return false;
		const at = lowerBound(leaf.keys, key);
		if (leaf.keys[at] !== key) return false;
		leaf.keys.splice(at, 1);
		leaf.values.splice(at, 1);
		if (leaf.keys.length === 0) {
			this.#leaves.splice(number, 1);
			this.#firsts.splice(number, 1);
		} else if (at === 0) this.#firsts[number] = leaf.keys[0] as string;
		this.#size--;
		this.#changes++;
		return true;
	}

	/** Stands on the first key ≥ `start`. */
	cursor(start: string): MapCursor<V> {
		let number = this.#leafFor(start);
		const leaf = this.#leaves[number];
		let at = leaf === undefined ? 0 : lowerBound(leaf.keys, start);
		if (leaf !== undefined && at === leaf.keys.length) {
			number++;
			at = 0;
		}
		return new MapCursor(this, this.#leaves, number, at);
	}

	/** The leaf that would hold the key: the last one whose first key is ≤ key, or the first. */
	#leafFor(key: string): number {
		const firsts = this.#firsts;
		let low = 0;
		let high = firsts.length;
		while (low < high) {
			const middle = (low + high) >>> 1;
			if ((firsts[middle] as string) <= key) low = middle + 1;
			else high = middle;
		}
		return low === 0 ? 0 : low - 1;
	}

	/** Ascending insertion leaves full leaves behind instead of half-full ones. */
	#split(number: number, leaf: Leaf<V>, ascending: boolean): void {
		const at = ascending ? leafKeys : leafKeys >>> 1;
		const right = { keys: leaf.keys.splice(at), values: leaf.values.splice(at) };
		this.#leaves.splice(number + 1, 0, right);
		this.#firsts.splice(number + 1, 0, right.keys[0] as string);
	}

	#inserted(): void {
		this.#size++;
		this.#changes++;
	}
}

export class MapCursor<V> {
	readonly #map: OrderedMap<V>;
	readonly #leaves: readonly Leaf<V>[];
	readonly #changes: number;
	#leaf: number;
	#at: number;

	constructor(map: OrderedMap<V>, leaves: readonly Leaf<V>[], leaf: number, at: number) {
		this.#map = map;
		this.#leaves = leaves;
		this.#changes = map.changes;
		this.#leaf = leaf;
		this.#at = at;
	}

	/** Undefined at the end. */
	get key(): string | undefined {
		assert(this.#changes === this.#map.changes, "M3: the map changed under its cursor");
		return this.#leaves[this.#leaf]?.keys[this.#at];
	}

	get value(): V {
		return (this.#leaves[this.#leaf] as Leaf<V>).values[this.#at] as V;
	}

	next(): void {
		const leaf = this.#leaves[this.#leaf];
		if (leaf === undefined) return;
		if (++this.#at < leaf.keys.length) return;
		this.#leaf++;
		this.#at = 0;
	}
}

function lowerBound(keys: readonly string[], key: string): number {
	let low = 0;
	let high = keys.length;
	while (low < high) {
		const middle = (low + high) >>> 1;
		if ((keys[middle] as string) < key) low = middle + 1;
		else high = middle;
	}
	return low;
}

function insertAt<T>(list: T[], at: number, item: T): void {
	list.push(item);
	for (let i = list.length - 1; i > at; i--) list[i] = list[i - 1] as T;
	list[at] = item;
}
