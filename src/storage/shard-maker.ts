/**
 * Makes shards and their checksums: in the coder of the platform where there is one and it is worth the way, else here, in turns.
 *
 * Invariants
 *  M1 The tables are those of the bytes that are returned with them. Wherever all data and the first parity are among what was used and made, these add up: by checksums, so that bytes which changed meanwhile, or another segment's, are
 *     found out whoever made it.
 *  M2 What the coder has in hand is not touched and not given back before it has settled.
 *  M3 Whatever becomes of the coder, the shards are made.
 */
import { assert, AssertionError } from "../base/assert.ts";
import type { Logger } from "../base/telemetry.ts";
import { TurnShare } from "../base/turn-share.ts";
import type { ShardWork } from "../codec/interface.ts";
import { addsUp, doShardWork, summedShards } from "../codec/shard-work.ts";
import type { Platform } from "../platform/interface.ts";
import type { Segment } from "../records/interface.ts";
import { blockTable, shapeOf, splitPayload } from "./fragment.ts";
import type { Redundancy } from "./interface.ts";
import { blockBytes, limits } from "./limits.ts";

export interface Shard {
	readonly index: number;
	readonly bytes: Uint8Array;
	readonly table: Uint32Array;
}

/** Gives memory of that length, with anything in it, for as long as the shards are needed. */
export type Room = (lengthBytes: number) => Uint8Array;

export interface ShardMakerModules {
	readonly platform: Platform;
	readonly logger: Logger;
}

export class ShardMaker {
	readonly #modules: ShardMakerModules;
	/** A large payload takes a millisecond or more: one of them in each turn. */
	readonly #turns: TurnShare;
	/** Undefined: there is none, or none any more that is to be asked. */
	#coder: Platform["coder"];

	constructor(modules: ShardMakerModules) {
		this.#modules = modules;
		this.#turns = new TurnShare(modules.platform.clock, limits.encodeMs);
		this.#coder = modules.platform.coder;
	}

	/** All shards of a payload in that shape. Replicas share their bytes and their table. The payload is left alone until it resolves. */
	async encode(payload: Uint8Array, shape: Redundancy, room: Room): Promise<Shard[]> {
		const { dataShards, parityShards } = shape;
		const width = dataShards + parityShards;
		const isCoded = dataShards > 1;
		const coder = this.#coderFor(payload.length);
		const give = coder === undefined ? room : sharing(room);
		const sources = splitPayload(payload, dataShards, give);
		const length = (sources[0] as Uint8Array).length;
		const wanted = isCoded ? range(dataShards, width) : [];
		const work: ShardWork = {
			...shape,
			present: range(0, dataShards),
			sources: coder === undefined ? sources : sources.map((source) => sharedCopy(source, give)),
			wanted,
			targets: wanted.map(() => give(length)),
			blockBytes,
			sums: "all",
		};
		const tables = await this.#make(work, coder);
		const shards = [...work.sources, ...work.targets];
		return range(0, width).map((index) => {
			const at = isCoded ? index : 0;
			return { index, bytes: shards[at] as Uint8Array, table: tables[at] as Uint32Array };
		});
	}

	/** The shards with these indexes, from any dataShards of them. `shards` has a place for each; none of them changes until it resolves. */
	async restore(segment: Segment, shards: readonly (Uint8Array | undefined)[], indexes: readonly number[], room: Room): Promise<Shard[]> {
		if (segment.dataShards === 1) {
			const bytes = shards.find((shard) => shard !== undefined) as Uint8Array;
			const table = blockTable(bytes);
			return indexes.map((index) => ({ index, bytes, table }));
		}
		const lost = indexes.filter((index) => shards[index] === undefined);
		const made = lost.length === 0 ? new Map<number, Shard>() : await this.#rebuild(segment, shards, lost, room);
		return indexes.map((index) => {
			const bytes = shards[index];
			return bytes === undefined ? (made.get(index) as Shard) : { index, bytes, table: blockTable(bytes) };
		});
	}

	async #rebuild(
		segment: Segment,
		shards: readonly (Uint8Array | undefined)[],
		lost: readonly number[],
		room: Room,
	): Promise<Map<number, Shard>> {
		const { dataShards, shardBytes } = segment;
		const coder = this.#coderFor(dataShards * shardBytes);
		const give = coder === undefined ? room : sharing(room);
		const present = shards.flatMap((shard, index) => (shard === undefined ? [] : [index])).slice(0, dataShards);
		const sources = present.map((index) => shards[index] as Uint8Array);
		const work: ShardWork = {
			...shapeOf(segment),
			present,
			sources: coder === undefined ? sources : sources.map((source) => sharedCopy(source, give)),
			wanted: lost,
			targets: lost.map(() => give(shardBytes)),
			blockBytes,
			sums: isProvable(dataShards, [...present, ...lost]) ? "all" : "targets",
		};
		const tables = (await this.#make(work, coder)).slice(-lost.length);
		return new Map(
			lost.map((index, at) => [index, { index, bytes: work.targets[at] as Uint8Array, table: tables[at] as Uint32Array }] as const),
		);
	}

	#coderFor(lengthBytes: number): Platform["coder"] {
		const isWorthIt = lengthBytes >= limits.coderFromBytes || this.#modules.platform.simulation?.buggify("storage.coder") === true;
		return isWorthIt ? this.#coder : undefined;
	}

	/** A table for each shard that is summed. */
	async #make(work: ShardWork, coder: Platform["coder"]): Promise<Uint32Array[]> {
		const beside = await this.#beside(work, coder);
		if (beside !== undefined) return beside;
		const tables = tablesOf(work, await this.#turns.run(() => doShardWork(work)));
		assert(isSound(work, tables), "M1: parity adds up with the data that it was made from");
		return tables;
	}

	/** Undefined: it is to be done here. */
	async #beside(work: ShardWork, coder: Platform["coder"]): Promise<Uint32Array[] | undefined> {
		try {
			const sums = await coder?.begin(work);
			if (sums === undefined) return undefined;
			const tables = tablesOf(work, sums);
			if (isSound(work, tables)) return tables;
			this.#giveUp(
				"error",
				"the thread for erasure coding made parity that does not belong to its data: it is not asked again; test this machine's memory",
			);
		} catch (error) {
			if (error instanceof AssertionError) throw error;
			this.#giveUp("warn", "shards are made on the main thread from now on", { error: String(error) });
		}
		return undefined;
	}

	/** Said once: others may be waiting for it, too. */
	#giveUp(level: "warn" | "error", message: string, data: Readonly<Record<string, string>> = {}): void {
		if (this.#coder === undefined) return;
		this.#coder = undefined;
		this.#modules.logger[level](message, data);
	}
}

function tablesOf(work: ShardWork, sums: Uint32Array): Uint32Array[] {
	const shards = summedShards(work);
	const blocks = (shards[0] as Uint8Array).length / blockBytes;
	assert(sums.length === shards.length * blocks, "M1: a checksum for every block");
	// Each of its own memory: some are kept, others not.
	return shards.map((_, at) => sums.slice(at * blocks, (at + 1) * blocks));
}

/** Where all data and the first parity were summed. */
function isSound({ dataShards, present, wanted, sums }: ShardWork, tables: readonly Uint32Array[]): boolean {
	const indexes = [...present, ...wanted];
	if (sums === "targets" || !isProvable(dataShards, indexes)) return true;
	return addsUp(
		tables.filter((_, at) => (indexes[at] as number) <= dataShards),
		blockBytes,
	);
}

/** Whether all data and the first parity are there: what adds up. */
function isProvable(dataShards: number, indexes: readonly number[]): boolean {
	return indexes.filter((index) => index <= dataShards).length === dataShards + 1;
}

function sharing(room: Room): Room {
	return (lengthBytes) => {
		const bytes = room(lengthBytes);
		return isShared(bytes) ? bytes : new Uint8Array(new SharedArrayBuffer(lengthBytes));
	};
}

/** The same bytes where other threads see them. */
function sharedCopy(bytes: Uint8Array, room: Room): Uint8Array {
	if (isShared(bytes)) return bytes;
	const copy = room(bytes.length);
	copy.set(bytes);
	return copy;
}

function isShared(bytes: Uint8Array): boolean {
	return bytes.buffer instanceof SharedArrayBuffer;
}

function range(from: number, to: number): number[] {
	return Array.from({ length: to - from }, (_, at) => from + at);
}
