/** A kv store over a Map, for tests of the floors above kv that need transactions and nothing else: no engine, no waiting. */
import { assert } from "../../src/base/assert.ts";
import type { KeyRange, Transaction } from "../../src/kv/interface.ts";
import type { OperationContext, RecordTransaction } from "../../src/records/interface.ts";
import { volumeRecord } from "../../src/records/kinds.ts";
import { NumberBlocks } from "../../src/records/numbers.ts";
import { Records } from "../../src/records/transaction.ts";

/** Most changes a logical operation may have (architecture, rule 7). */
const maximumChanges = 100;

export class MapStore {
	readonly values = new Map<string, Uint8Array>();
	#sorted: string[] | undefined;
	/** Of the last transaction. */
	lastReads = 0;
	lastChanges = 0;

	/** Runs `fn` in one transaction: its changes are there afterwards, unless it throws. */
	run<T>(fn: (tx: RecordTransaction) => T): T {
		const tx = new MapTransaction(this);
		const result = fn(new Records(tx));
		assert(tx.changeCount <= maximumChanges, `${tx.changeCount} changes in one transaction`);
		this.lastReads = tx.reads;
		this.lastChanges = tx.changeCount;
		for (const [key, value] of tx.changes) this.set(key, value);
		return result;
	}

	set(key: string, value: Uint8Array | undefined): void {
		if (this.values.has(key) !== (value !== undefined)) this.#sorted = undefined;
		if (value === undefined) this.values.delete(key);
		else this.values.set(key, value);
	}

	keys(): readonly string[] {
		this.#sorted ??= [...this.values.keys()].sort();
		return this.#sorted;
	}
}

export class MapTransaction implements Transaction {
	readonly #store: MapStore;
	readonly changes = new Map<string, Uint8Array | undefined>();
	/** Records looked at, those of ranges included. */
	reads = 0;

	constructor(store: MapStore) {
		this.#store = store;
	}

	get(key: string): Uint8Array | undefined {
		this.reads++;
		return this.changes.has(key) ? this.changes.get(key) : this.#store.values.get(key);
	}

	range(range: KeyRange): { readonly key: string; readonly value: Uint8Array }[] {
		const inRange = (key: string): boolean => key >= range.start && (range.end === undefined || key < range.end);
		const keys = this.#store.keys();
		const found: string[] = [];
		for (let i = lowerBound(keys, range.start); i < keys.length && found.length < range.limit + this.changes.size; i++) {
			const key = keys[i] as string;
			if (!inRange(key)) break;
			if (!this.changes.has(key)) found.push(key);
		}
		for (const [key, value] of this.changes) if (value !== undefined && inRange(key)) found.push(key);
		const result = found.sort().slice(0, range.limit);
		return result.map((key) => ({ key, value: this.get(key) as Uint8Array }));
	}

	put(key: string, value: Uint8Array): void {
		this.changes.set(key, value);
	}

	delete(key: string): void {
		this.changes.set(key, undefined);
	}

	get changeCount(): number {
		return this.changes.size;
	}

	get changeBytes(): number {
		let bytes = 0;
		for (const [key, value] of this.changes) bytes += key.length + (value?.length ?? 0);
		return bytes;
	}
}

function lowerBound(keys: readonly string[], start: string): number {
	let low = 0;
	let high = keys.length;
	while (low < high) {
		const middle = (low + high) >>> 1;
		if ((keys[middle] as string) < start) low = middle + 1;
		else high = middle;
	}
	return low;
}

/** A store with a volume record, numbers and a clock that goes on by one second per operation. */
export class TestVolume {
	readonly store = new MapStore();
	readonly numbers = new NumberBlocks();
	seconds = 1000;

	async prepare(): Promise<void> {
		await this.numbers.ensure(async (fn) => ({ result: this.store.run(fn) }));
	}

	/** Makes the first records without a namespace. */
	static async empty(): Promise<TestVolume> {
		const volume = new TestVolume();
		volume.store.run((tx) =>
			tx.put(volumeRecord, {
				nextInoCounter: [{ group: 0, next: 2 }],
				nextChunk: 1,
				nextSegment: 1,
				nextPending: 1,
				epoch: 1,
				protections: [],
				reservedBytes: 0,
				birthEpoch: 1,
			}),
		);
		await volume.prepare();
		return volume;
	}

	get context(): OperationContext {
		return { now: { seconds: this.seconds, nanoseconds: 0 }, epoch: 1, numbers: this.numbers };
	}

	run<T>(fn: (tx: RecordTransaction, context: OperationContext) => T): T {
		this.seconds++;
		return this.store.run((tx) => fn(tx, this.context));
	}
}

/** Small seeded generator (xorshift32): the same numbers on every machine. */
export class SeededRandom {
	#state: number;

	constructor(seed: number) {
		this.#state = (Math.imul(seed, 2_654_435_761) ^ 0x9e37_79b9) | 0 || 1;
		for (let i = 0; i < 4; i++) this.u32();
	}

	u32(): number {
		let x = this.#state;
		x ^= x << 13;
		x ^= x >>> 17;
		x ^= x << 5;
		this.#state = x;
		return x >>> 0;
	}

	/** Uniform integer in [0, bound). */
	below(bound: number): number {
		return Math.floor((this.u32() / 0x1_0000_0000) * bound);
	}

	chance(probability: number): boolean {
		return this.u32() < probability * 0x1_0000_0000;
	}

	pick<T>(items: readonly T[]): T {
		return items[this.below(items.length)] as T;
	}

	bytes(length: number): Uint8Array {
		const bytes = new Uint8Array(length);
		for (let i = 0; i < length; i++) bytes[i] = this.u32() >>> 8;
		return bytes;
	}
}
