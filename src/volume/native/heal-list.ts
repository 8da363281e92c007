/** What the healer has at hand, by numbers of segments: most at risk first, bounded, and what is left of it. Pure. */

interface Bucket {
	readonly ids: number[];
	readonly bytes: number[];
	/** Taken from the front. */
	taken: number;
}

export interface HealItem {
	readonly id: number;
	readonly bytes: number;
	readonly isFull: boolean;
}

/** Behind everything that lacks something. */
const fullKey = 1_000_000;

export class HealList {
	readonly #limit: number;
	readonly #buckets = new Map<number, Bucket>();
	#count = 0;
	#weakBytes = 0;
	#leavingBytes = 0;
	/** Something found no room: when this list is done, look again. */
	overflowed = false;

	constructor(limit: number) {
		this.#limit = limit;
	}

	/** `spare`: how many more fragments may go before it is lost. */
	add(id: number, bytes: number, spare: number, isFull: boolean): void {
		const key = isFull ? fullKey : spare;
		if (this.#count >= this.#limit) {
			this.overflowed = true;
			const worst = Math.max(...this.#buckets.keys());
			if (key >= worst) return;
			this.#dropLast(worst);
		}
		const bucket = this.#buckets.get(key) ?? { ids: [], bytes: [], taken: 0 };
		this.#buckets.set(key, bucket);
		bucket.ids.push(id);
		bucket.bytes.push(bytes);
		this.#account(key, 1, bytes);
	}

	#dropLast(key: number): void {
		const bucket = this.#buckets.get(key) as Bucket;
		bucket.ids.pop();
		this.#account(key, -1, -(bucket.bytes.pop() as number));
		if (bucket.ids.length === bucket.taken) this.#buckets.delete(key);
	}

	#account(key: number, count: number, bytes: number): void {
		this.#count += count;
		if (key === fullKey) this.#leavingBytes += bytes;
		else this.#weakBytes += bytes;
	}

	/** The one that is most at risk; it is not in the list any more. */
	take(): HealItem | undefined {
		if (this.#count === 0) return undefined;
		const key = Math.min(...this.#buckets.keys());
		const bucket = this.#buckets.get(key) as Bucket;
		const at = bucket.taken++;
		const item = { id: bucket.ids[at] as number, bytes: bucket.bytes[at] as number, isFull: key === fullKey };
		if (bucket.taken === bucket.ids.length) this.#buckets.delete(key);
		this.#account(key, -1, -item.bytes);
		return item;
	}

	/** Segments that are left. */
	get count(): number {
		return this.#count;
	}

	/** Live bytes of what lacks something, and of what is whole and only has to leave a disk. */
	get weakBytes(): number {
		return this.#weakBytes;
	}

	get leavingBytes(): number {
		return this.#leavingBytes;
	}
}
