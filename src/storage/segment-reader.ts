/**
 * Reads of payload ranges: windows of shards from memory or from the best disks, decoded from other shards where that is needed.
 *
 * Invariants
 *  R1 The cache holds only verified bytes of data shards, by contents: (segment, shape, index, window). Where they came from does not
 *     matter.
 *  R2 A read that can be answered without a disk is not held up by that disk for longer than limits.hedgeMs.
 *  R3 What fails is what was asked for: damage in other blocks of a window that is beyond recovery takes nothing with it.
 *  R4 What has enough good shards at each of its blocks can be read, be they different ones at each.
 */
import { assert } from "../base/assert.ts";
import { allSettledOrThrow } from "../base/async.ts";
import { alignDown, alignUp } from "../base/bytes.ts";
import { FsError, isFsError } from "../base/errors.ts";
import { createErasureCode } from "../codec/erasure.ts";
import type { Borrowed } from "../platform/interface.ts";
import type { FragmentPlace, Segment } from "../records/interface.ts";
import { usedShardBytes } from "./fragment-reader.ts";
import type { FragmentReader, FragmentReaderModules } from "./fragment-reader.ts";
import type { ReadPattern } from "./interface.ts";
import { gather } from "./gather.ts";
import type { Source } from "./gather.ts";
import { blockBytes, limits } from "./limits.ts";
import { WindowCache } from "./window-cache.ts";

/** A run of adjoining windows of one data shard. */
interface Run {
	readonly segment: Segment;
	readonly index: number;
	readonly from: number;
	readonly to: number;
	/** Memory is not believed. */
	readonly uncached?: boolean;
}

interface Answer extends Borrowed {
	/** From other shards than the one that holds the bytes. */
	readonly decoded: boolean;
}

/** Why fragments could not be read, by index. */
type Failures = Map<number, string>;

/** One read that is under way for a run of windows. */
interface Flight {
	readonly from: number;
	readonly lengthBytes: number;
	readonly answer: Promise<Answer>;
	/** Who still needs its bytes; the last one gives them back. */
	users: number;
}

export class SegmentReader {
	#fragments: FragmentReader;
	#modules: FragmentReaderModules;
	#windows: WindowCache;
	/** Windows that are being fetched: who wants one of them waits for the same read. */
	#flights = new Map<string, Flight>();

	constructor(cacheBytes: number, fragments: FragmentReader, modules: FragmentReaderModules) {
		this.#fragments = fragments;
		this.#modules = modules;
		this.#windows = new WindowCache(cacheBytes);
	}

	/** Fills `into` with the payload from `offset` on. @throws FsError EIO `storage.lost`. */
	async read(segment: Segment, offset: number, into: Uint8Array, pattern: ReadPattern): Promise<void> {
		const { length } = into;
		assert(offset >= 0 && offset + length <= segment.payloadBytes, `a read inside the payload of segment ${segment.id}`);
		const parts: Promise<void>[] = [];
		for (let at = 0; at < length; ) {
			const index = Math.floor((offset + at) / segment.shardBytes);
			const from = offset + at - index * segment.shardBytes;
			const to = Math.min(segment.shardBytes, from + length - at);
			parts.push(...this.#copy(segment, index, from, to, into.subarray(at, at + to - from), pattern));
			at += to - from;
		}
		if (parts.length === 1) await parts[0];
		else if (parts.length > 0) await allSettledOrThrow(parts);
	}

	/** Whether the disks give these bytes; what is in memory does not count. @throws FsError other than EIO. */
	async isOnDisk(segment: Segment, offset: number, lengthBytes: number): Promise<boolean> {
		for (let at = offset; at < offset + lengthBytes; ) {
			const index = Math.floor(at / segment.shardBytes);
			const start = index * segment.shardBytes;
			const end = Math.min(
				start + segment.shardBytes,
				offset + lengthBytes,
				alignDown(at - start, limits.windowBytes) + start + limits.windowBytes,
			);
			const run = { segment, index, from: alignDown(at - start, blockBytes), to: alignUp(end - start, blockBytes), uncached: true };
			try {
				(await this.#fetch(run).catch((error: unknown) => this.#byBlocks(run, error))).release();
			} catch (error) {
				if (isFsError(error, "EIO")) return false;
				throw error;
			}
			at = end;
		}
		return true;
	}

	/** Forgets what is cached of a segment whose number might come back with other contents. */
	forget(segment: Segment): void {
		for (let index = 0; index < segment.dataShards; index++) {
			for (let from = 0; from < segment.shardBytes; from += limits.windowBytes) this.#windows.delete(windowKey(segment, index, from));
		}
	}

	/** Bytes [from, to) of a data shard into `target`: at once what is in memory, the rest when the promises resolve. */
	#copy(segment: Segment, index: number, from: number, to: number, target: Uint8Array, pattern: ReadPattern): Promise<void>[] {
		const waits: Promise<void>[] = [];
		const last = Math.ceil(to / limits.windowBytes);
		const known = (at: number): Uint8Array | Flight | undefined => {
			const key = windowKey(segment, index, at * limits.windowBytes);
			return this.#windows.get(key) ?? this.#flights.get(key);
		};
		for (let at = Math.floor(from / limits.windowBytes); at < last; ) {
			const have = known(at);
			let end = at + 1;
			if (have instanceof Uint8Array) copyRange(have, at * limits.windowBytes, from, to, target);
			else {
				const missing = have === undefined;
				while (missing && end < last && (end - at) * limits.windowBytes < limits.readBytes && known(end) === undefined) end++;
				// What is asked for of these windows.
				const a = Math.max(from, at * limits.windowBytes);
				const b = Math.min(to, end * limits.windowBytes);
				const flight = have ?? this.#depart(segment, index, at, end, a, b, pattern);
				const use = (bytes: Uint8Array, start: number): void => copyRange(bytes, start, a, b, target.subarray(a - from, b - from));
				waits.push(this.#land(flight, use).catch((error: unknown) => this.#narrower(segment, index, flight, a, b, use, error)));
			}
			at = end;
		}
		return waits;
	}

	#depart(segment: Segment, index: number, first: number, end: number, from: number, to: number, pattern: ReadPattern): Flight {
		if (pattern === "random" && to - from < limits.windowBytes) {
			const run = { segment, index, from: alignDown(from, blockBytes), to: alignUp(to, blockBytes) };
			return { from: run.from, lengthBytes: run.to - run.from, answer: this.#fetch(run), users: 0 };
		}
		return this.#launch(segment, index, first, end);
	}

	async #land(flight: Flight, use: (bytes: Uint8Array, start: number) => void): Promise<void> {
		flight.users++;
		const answer = await flight.answer;
		use(answer.bytes, flight.from);
		flight.users--;
		if (flight.users === 0) answer.release();
	}

	/** R3: after a read of whole windows found them lost, the blocks of [from, to) alone; and if they are lost too, each of them by itself. */
	async #narrower(
		segment: Segment,
		index: number,
		failed: Flight,
		from: number,
		to: number,
		use: (bytes: Uint8Array, start: number) => void,
		error: unknown,
	): Promise<void> {
		const run = { segment, index, from: alignDown(from, blockBytes), to: alignUp(to, blockBytes) };
		if (!isFsError(error, "EIO")) throw error;
		const narrower = run.to - run.from < failed.lengthBytes;
		const answer = narrower ? this.#fetch(run).catch((again: unknown) => this.#byBlocks(run, again)) : this.#byBlocks(run, error);
		await this.#land({ from: run.from, lengthBytes: run.to - run.from, answer, users: 0 }, use);
	}

	/** R4: one block after the other, of a run that is lost as a whole. @throws `error`, if it is of one block; EIO of the first block that is lost. */
	async #byBlocks(run: Run, error: unknown): Promise<Answer> {
		if (!isFsError(error, "EIO") || run.to - run.from <= blockBytes) throw error;
		const bytes = new Uint8Array(run.to - run.from);
		for (let from = run.from; from < run.to; from += blockBytes) {
			const block = await this.#fetch({ ...run, from, to: from + blockBytes });
			bytes.set(block.bytes, from - run.from);
			block.release();
		}
		return { bytes, decoded: true, release: () => {} };
	}

	/** Starts one read for the windows [first, end), which are kept when it comes back. */
	#launch(segment: Segment, index: number, first: number, end: number): Flight {
		const from = first * limits.windowBytes;
		const to = Math.min(end * limits.windowBytes, usedShardBytes(segment, index));
		const keys: string[] = [];
		for (let at = from; at < to; at += limits.windowBytes) keys.push(windowKey(segment, index, at));
		const answer = this.#fetch({ segment, index, from, to }).then(
			(got) => {
				for (const [i, key] of keys.entries()) {
					this.#flights.delete(key);
					this.#windows.set(key, got.bytes.subarray(i * limits.windowBytes, (i + 1) * limits.windowBytes));
				}
				return got;
			},
			(error: unknown) => {
				for (const key of keys) this.#flights.delete(key);
				throw error;
			},
		);
		const flight = { from, lengthBytes: to - from, answer, users: 0 };
		for (const key of keys) this.#flights.set(key, flight);
		return flight;
	}

	// ── from disks ───────────────────────────────────────────────────────────────────────────────────────────────

	async #fetch(run: Run): Promise<Answer> {
		const { segment } = run;
		const failures: Failures = new Map();
		const sources = segment.dataShards === 1 ? this.#replicas(run, failures) : this.#shardThenDecode(run, failures);
		const { results } = await gather(this.#modules.platform.clock, 1, sources, limits.hedgeMs);
		const [answer] = results.values();
		if (!answer) throw this.#lost(segment, failures);
		if (answer.decoded || failures.size > 0) this.#modules.counters.degradedReads++;
		return answer;
	}

	#replicas(run: Run, failures: Failures): Source<Answer>[] {
		const places = this.#preferred(run.segment, run.segment.fragments);
		return places.map((place) => this.#direct(run, place, failures));
	}

	#shardThenDecode(run: Run, failures: Failures): Source<Answer>[] {
		const { segment, index } = run;
		const own = this.#preferred(
			segment,
			segment.fragments.filter((place) => place.index === index),
		)[0];
		const decode: Source<Answer> = async (live) => {
			return { bytes: await this.#decode(run, failures, live), decoded: true, release: () => {} };
		};
		if (!own) {
			this.#modules.onDamage(segment.id);
			return [decode];
		}
		const direct = this.#direct(run, own, failures);
		if (!this.#modules.packs(own.disk).stalled(limits.hedgeMs)) return [direct, decode];
		return [(live) => decode(live).catch(() => direct(live))];
	}

	#direct(run: Run, place: FragmentPlace, failures: Failures): Source<Answer> {
		const read = this.#source(run, place, failures);
		return async (live) => {
			const lent = await read(live);
			return { bytes: lent.bytes, decoded: false, release: () => lent.release() };
		};
	}

	#source(run: Run, place: FragmentPlace, failures: Failures): Source<Borrowed> {
		return async (live) => {
			try {
				return await this.#fragments.read(run.segment, place, run.from, run.to, live);
			} catch (error) {
				failures.set(place.index, (error as Error).message);
				throw error;
			}
		};
	}

	/** The same range of any k other shards gives this one's. */
	async #decode(run: Run, failures: Failures, live: () => boolean): Promise<Uint8Array> {
		const { segment, index, from, to } = run;
		const others = this.#preferred(
			segment,
			segment.fragments.filter((place) => place.index !== index),
		);
		const inMemory = (place: FragmentPlace) => (run.uncached ? undefined : this.#cached(segment, place.index, from, to));
		const cached = new Map(others.map((place) => [place.index, inMemory(place)]));
		others.sort((a, b) => (cached.get(a.index) ? 0 : 1) - (cached.get(b.index) ? 0 : 1));
		if (others.length < segment.dataShards) throw this.#lost(segment, failures);
		const sources = others.map((place): Source<Borrowed> => {
			const bytes = cached.get(place.index);
			if (bytes) return () => Promise.resolve({ bytes, release: () => {} });
			const read = this.#source(run, place, failures);
			return (wanted) => read(() => live() && wanted());
		});
		const { results } = await gather(this.#modules.platform.clock, segment.dataShards, sources, limits.hedgeMs);
		if (results.size < segment.dataShards) throw this.#lost(segment, failures);
		const shards: (Uint8Array | undefined)[] = new Array(segment.dataShards + segment.parityShards).fill(undefined);
		for (const [at, { bytes }] of results) {
			const place = others[at] as FragmentPlace;
			shards[place.index] = bytes;
			if (place.index < segment.dataShards) this.#keepRange(segment, place.index, from, bytes);
		}
		const [decoded] = createErasureCode(segment.dataShards, segment.parityShards).reconstruct(shards, [index]);
		for (const lent of results.values()) lent.release();
		return decoded as Uint8Array;
	}

	/** The range, if all its windows are in memory. What a shard does not use is zeros. */
	#cached(segment: Segment, index: number, from: number, to: number): Uint8Array | undefined {
		if (index >= segment.dataShards) return undefined;
		const bytes = new Uint8Array(to - from);
		const end = Math.min(to, usedShardBytes(segment, index));
		for (let at = from; at < end; at += limits.windowBytes) {
			const window = this.#windows.get(windowKey(segment, index, at));
			if (!window) return undefined;
			bytes.set(window.subarray(0, end - at), at - from);
		}
		return bytes;
	}

	#keepRange(segment: Segment, index: number, from: number, bytes: Uint8Array): void {
		if (from % limits.windowBytes !== 0) return;
		const used = usedShardBytes(segment, index);
		for (let at = from; at < Math.min(from + bytes.length, used); at += limits.windowBytes) {
			const end = Math.min(at + limits.windowBytes, used);
			// A range that was cut short by another shard's end gives no whole window here.
			if (end - from <= bytes.length) this.#windows.set(windowKey(segment, index, at), bytes.subarray(at - from, end - from));
		}
	}

	/**
	 * Places on disks that can be read: those that answer first, healthy before suspect, the less loaded first, and otherwise always in the
	 * same order.
	 */
	#preferred(segment: Segment, places: readonly FragmentPlace[]): FragmentPlace[] {
		const { disks, packs } = this.#modules;
		const width = segment.dataShards + segment.parityShards;
		const ranked = places
			.filter((place) => disks.readable(place.disk) !== undefined)
			.map((place) => {
				const pack = packs(place.disk);
				const late = pack.stalled(limits.hedgeMs) ? 2 : 0;
				const doubtful = disks.slot(place.disk)?.state === "healthy" ? 0 : 1;
				return { place, rank: [late + doubtful, pack.load, (place.index + segment.id) % width] as const };
			});
		ranked.sort((a, b) => a.rank[0] - b.rank[0] || a.rank[1] - b.rank[1] || a.rank[2] - b.rank[2]);
		return ranked.map(({ place }) => place);
	}

	#lost(segment: Segment, failures: ReadonlyMap<number, string>): FsError {
		return lostError(segment, failures, (disk) => this.#modules.disks.readable(disk) !== undefined);
	}
}

/** The part of [from, to) that `bytes`, which begin at `start`, hold, into `target`, which begins at `from`. */
function copyRange(bytes: Uint8Array, start: number, from: number, to: number, target: Uint8Array): void {
	const a = Math.max(from, start);
	const b = Math.min(to, start + bytes.length);
	target.set(bytes.subarray(a - start, b - start), a - from);
}

function windowKey(segment: Segment, index: number, from: number): string {
	const shard = segment.dataShards === 1 ? 0 : index;
	return `${segment.id}/${segment.dataShards}/${shard}/${from}`;
}

/** Names the segment and what is missing of it. */
export function lostError(segment: Segment, failures: ReadonlyMap<number, string>, readable: (disk: number) => boolean): FsError {
	const missing: string[] = [];
	const width = segment.dataShards + segment.parityShards;
	for (let index = 0; index < width; index++) {
		const place = segment.fragments.find((candidate) => candidate.index === index);
		if (!place) missing.push(`fragment ${index} has no place`);
		else if (!readable(place.disk)) missing.push(`fragment ${index} is on d${place.disk}, which is not there`);
		else if (failures.has(index)) missing.push(failures.get(index) as string);
	}
	const needed = `${segment.dataShards} of its ${width} fragments are needed`;
	const message = `segment ${segment.id} cannot be read: ${needed}. ${missing.join("; ")}. Bring the missing disks back`;
	return new FsError("EIO", "storage.lost", message, { segment: segment.id, dataShards: segment.dataShards, missing: missing.length });
}
