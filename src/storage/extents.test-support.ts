/** A store of records and a recount of all references, for the tests of extent maps. */
import assert from "node:assert/strict";
import type { Chunk, OperationContext, RecordKind, RecordTransaction, Segment } from "../records/interface.ts";
import { reservedChunk } from "../records/interface.ts";
import { chunkRecord, extentBlockRecord, segmentRecord } from "../records/kinds.ts";
import { addChunk } from "./extents.ts";
import type { StorageEffects } from "./interface.ts";

/** Records as they are stored: encoded, by key. */
export class Store {
	readonly values = new Map<string, Uint8Array>();

	begin(): Attempt {
		return new Attempt(this.values);
	}

	all<Key extends readonly unknown[], Value>(kind: RecordKind<Key, Value>): Value[] {
		return this.entries(kind).map(([, value]) => value);
	}

	entries<Key extends readonly unknown[], Value>(kind: RecordKind<Key, Value>): [key: string, value: Value][] {
		const keys = [...this.values.keys()].filter((key) => key.startsWith(kind.tag)).sort(byBytes);
		return keys.map((key) => [key, kind.decode(this.values.get(key) as Uint8Array, key)]);
	}
}

const byBytes = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

export class Attempt implements RecordTransaction {
	readonly #base: Map<string, Uint8Array>;
	readonly changes = new Map<string, Uint8Array | undefined>();
	scans = 0;
	gets = 0;

	constructor(base: Map<string, Uint8Array>) {
		this.#base = base;
	}

	#read(key: string): Uint8Array | undefined {
		return this.changes.has(key) ? this.changes.get(key) : this.#base.get(key);
	}

	get<Key extends readonly unknown[], Value>(kind: RecordKind<Key, Value>, ...key: Key): Value | undefined {
		this.gets++;
		const full = kind.key(...key);
		const bytes = this.#read(full);
		return bytes && kind.decode(bytes, full);
	}

	put<Key extends readonly unknown[], Value>(kind: RecordKind<Key, Value>, value: Value, ...key: Key): void {
		this.changes.set(kind.key(...key), kind.encode(value));
	}

	delete<Key extends readonly unknown[], Value>(kind: RecordKind<Key, Value>, ...key: Key): void {
		this.changes.set(kind.key(...key), undefined);
	}

	scan<Key extends readonly unknown[], Value>(
		kind: RecordKind<Key, Value>,
		prefix: string,
		options: { readonly after?: string; readonly limit: number },
	): { readonly key: string; readonly value: Value }[] {
		this.scans++;
		const { after, limit } = options;
		const keys = [...new Set([...this.#base.keys(), ...this.changes.keys()])]
			.filter((key) => key.startsWith(prefix) && (after === undefined || key > after) && this.#read(key) !== undefined)
			.sort(byBytes);
		return keys.slice(0, limit).map((key) => ({ key, value: kind.decode(this.#read(key) as Uint8Array, key) }));
	}

	get changeCount(): number {
		return this.changes.size;
	}

	get changeBytes(): number {
		let bytes = 0;
		for (const [key, value] of this.changes) bytes += key.length + (value?.length ?? 0);
		return bytes;
	}

	commit(): void {
		for (const [key, value] of this.changes) {
			if (value === undefined) this.#base.delete(key);
			else this.#base.set(key, value);
		}
	}
}

/** xorshift32 */
export function randomOf(seed: number): (bound: number) => number {
	let state = (Math.imul(seed, 2654435761) ^ 0x9e3779b9) >>> 0 || 1;
	return (bound) => {
		state ^= state << 13;
		state ^= state >>> 17;
		state ^= state << 5;
		state >>>= 0;
		return state % bound;
	};
}

export const context: OperationContext = {
	now: { seconds: 0, nanoseconds: 0 },
	epoch: 1,
	numbers: {
		ino: () => assert.fail("no inode is made here"),
		chunk: () => assert.fail("the test numbers chunks"),
		segment: () => assert.fail("the test numbers segments"),
		pending: () => assert.fail("no pending record is made here"),
	},
};

export function newSegment(id: number, payloadBytes: number): Segment {
	const fragments = [{ index: 0, generation: 0, disk: 1, pack: 0, offset: 0, headerChecksum: 0 }];
	return {
		id,
		dataShards: 1,
		parityShards: 0,
		target: "replicate:1",
		payloadBytes,
		shardBytes: 4096,
		liveBytes: 0,
		chunks: [{ first: 1, count: 1_000_000 }],
		fragments,
		birthEpoch: 1,
	};
}

export function newChunk(id: number, segment: Segment, offset: number, length: number): Chunk {
	return addChunk(new Attempt(new Map()), context, segment, { id, offset, length, owner: 7, ownerOffset: offset });
}

export const noEffects = (): StorageEffects => ({ freed: [], reservedDelta: 0, deadBytes: 0 });

/** Runs one verb in a transaction of its own. */
export function run<T>(
	store: Store,
	fn: (tx: Attempt, effects: StorageEffects) => T,
): { result: T; tx: Attempt; freed: readonly Segment[] } {
	const tx = store.begin();
	const effects = noEffects();
	const result = fn(tx, effects);
	tx.commit();
	return { result, tx, freed: effects.freed };
}

/** Recounts E1-E4 of everything there is; answers the bytes that are reserved. */
export function recount(store: Store, message: string): number {
	const counted = new Map<number, { references: number; bytes: number }>();
	let end = 0;
	let reserved = 0;
	let file = "";
	for (const [key, block] of store.entries(extentBlockRecord)) {
		const its = key.slice(0, 9);
		if (its !== file) end = 0;
		file = its;
		assert.ok(block.start >= end, `${message}: E1 blocks overlap`);
		end = block.start + block.span;
		assert.ok(block.extents.length >= 1 && block.extents.length <= 1024, `${message}: E4 ${block.extents.length} extents`);
		let position = block.start;
		for (const extent of block.extents) {
			assert.ok(extent.offset >= position && extent.length > 0, `${message}: E1 order`);
			position = extent.offset + extent.length;
			if (extent.chunk === reservedChunk) {
				reserved += extent.length;
				continue;
			}
			const count = counted.get(extent.chunk) ?? { references: 0, bytes: 0 };
			counted.set(extent.chunk, { references: count.references + 1, bytes: count.bytes + extent.length });
		}
		assert.ok(position <= end, `${message}: E1 end`);
	}
	const live = new Map<number, number>();
	for (const chunk of store.all(chunkRecord)) {
		assert.deepEqual(
			{ references: chunk.references, bytes: chunk.referencedBytes },
			counted.get(chunk.id),
			`${message}: E2 chunk ${chunk.id}`,
		);
		counted.delete(chunk.id);
		live.set(chunk.segment, (live.get(chunk.segment) ?? 0) + Math.min(chunk.length, chunk.referencedBytes));
	}
	assert.equal(counted.size, 0, `${message}: E2 extents without a chunk`);
	for (const segment of store.all(segmentRecord)) {
		assert.equal(segment.liveBytes, live.get(segment.id), `${message}: E3 segment ${segment.id}`);
		live.delete(segment.id);
	}
	assert.equal(live.size, 0, `${message}: E3 chunks without a segment`);
	return reserved;
}
