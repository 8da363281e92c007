/** Puts fragments on disks: all of them durable, or none of them anywhere. Knows which disks can take some. */
import { assert, AssertionError } from "../base/assert.ts";
import { FsError, isFsError, toFsError } from "../base/errors.ts";
import type { FragmentPlace } from "../records/interface.ts";
import { encodeHeader, fragmentLength } from "./fragment.ts";
import type { Redundancy, SegmentStore, WritePurpose } from "./interface.ts";
import type { DiskPacks, PackModules } from "./pack.ts";
import type { Candidate } from "./placement.ts";
import type { Shard } from "./shard-maker.ts";

export interface FragmentWriterModules extends PackModules {
	/** 16 bytes. */
	readonly volume: Uint8Array;
	readonly packs: (disk: number) => DiskPacks;
	readonly counters: SegmentStore["counters"];
	/** Bytes that a disk keeps free of what is written for that purpose. */
	readonly reserve: (disk: number, purpose: WritePurpose) => number;
	/** How many disks of the volume lie on the device of this one. */
	readonly sharers: (disk: number) => number;
	readonly domainOf: (disk: number) => string;
}

/** Shards that belong together. */
export interface ShardSet {
	readonly segment: number;
	readonly generation: number;
	readonly shape: Redundancy;
	readonly payloadBytes: number;
	readonly shardBytes: number;
	readonly shards: readonly Shard[];
}

export interface PutFailure {
	readonly disk: number;
	readonly error: FsError;
}

export class FragmentWriter {
	#modules: FragmentWriterModules;

	constructor(modules: FragmentWriterModules) {
		this.#modules = modules;
	}

	/** Every disk that can be written is prepared; one that fails at it has been reported and is not a candidate. */
	async ready(): Promise<void> {
		const waiting: Promise<void>[] = [];
		for (const { id } of this.#modules.disks.slots()) {
			const disk = this.#modules.disks.writable(id);
			const packs = this.#modules.packs(id);
			if (disk && !packs.prepared) waiting.push(packs.prepare(disk, this.#modules.sharers(id)));
		}
		if (waiting.length > 0) await Promise.allSettled(waiting);
	}

	/** Disks that can be written now, with what is free for data on them (0 on a full one). */
	candidates(purpose: WritePurpose = "data"): Candidate[] {
		const found: Candidate[] = [];
		for (const { id, state } of this.#modules.disks.slots()) {
			const packs = this.#modules.packs(id);
			if (!packs.prepared) continue;
			const freeBytes = packs.full ? 0 : Math.max(0, packs.freeBytes - this.#modules.reserve(id, purpose));
			const isLastChoice = state === "degraded";
			found.push({ id, domain: this.#modules.domainOf(id), freeBytes, capacityBytes: packs.capacityBytes, isLastChoice });
		}
		return found;
	}

	/**
	 * Writes the shards to the disks of the same position and makes them durable. When one disk fails, what was written elsewhere is given
	 * back and the failures are
	 * returned; they have been reported to the set of disks.
	 */
	async put(set: ShardSet, disks: readonly number[]): Promise<{ readonly places: FragmentPlace[]; readonly failures: PutFailure[] }> {
		assert(disks.length === set.shards.length, "a disk for every shard");
		const length = fragmentLength(set.shardBytes);
		const outcomes = await Promise.all(set.shards.map((shard, at) => this.#putOne(set, shard, disks[at] as number, length)));
		const failures = outcomes.flatMap((outcome) => (outcome.error ? [{ disk: outcome.disk, error: outcome.error }] : []));
		const places = outcomes.flatMap((outcome) => (outcome.place ? [outcome.place] : []));
		if (failures.length === 0) {
			this.#modules.counters.fragmentsWritten += places.length;
			return { places, failures };
		}
		await Promise.all(places.map((place) => this.#modules.packs(place.disk).release(place, length)));
		return { places: [], failures };
	}

	async #putOne(
		set: ShardSet,
		shard: Shard,
		id: number,
		length: number,
	): Promise<{ disk: number; place?: FragmentPlace; error?: FsError }> {
		const packs = this.#modules.packs(id);
		const disk = this.#modules.disks.writable(id);
		if (!disk || !packs.prepared) {
			return {
				disk: id,
				error: new FsError("ENODEV", "storage.disk-lost", `d${id} went away before segment ${set.segment} was written to it`),
			};
		}
		let position: { readonly pack: number; readonly offset: number } | undefined;
		try {
			position = packs.allocate(length, set.segment);
			const { dataShards, parityShards } = set.shape;
			const header = encodeHeader(
				{
					volume: this.#modules.volume,
					segment: set.segment,
					generation: set.generation,
					index: shard.index,
					dataShards,
					parityShards,
					payloadBytes: set.payloadBytes,
					shardBytes: set.shardBytes,
				},
				shard.table,
			);
			await packs.write(disk, position, [header.bytes, shard.bytes], length);
			const place = { index: shard.index, generation: set.generation, disk: id, ...position, headerChecksum: header.checksum };
			return { disk: id, place };
		} catch (error) {
			if (error instanceof AssertionError) throw error;
			const failure = toFsError(error, "storage.write-fragment");
			// P5: a write that timed out may still land where it was aimed.
			if (position && !isFsError(failure, "ETIMEDOUT")) await packs.release(position, length);
			return { disk: id, error: failure };
		}
	}
}
