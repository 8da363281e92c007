/** How a segment fares (`check`, `assess`) and what makes it whole again (`rebuild`). */
import { AssertionError } from "../base/assert.ts";
import { FsError } from "../base/errors.ts";
import type { Borrowed } from "../platform/interface.ts";
import type { FragmentPlace, Segment } from "../records/interface.ts";
import { assertSegment, fragmentLength, shapeOf, shardLength } from "./fragment.ts";
import type { FragmentReader } from "./fragment-reader.ts";
import type { FragmentWriter, FragmentWriterModules, ShardSet } from "./fragment-writer.ts";
import { gather } from "./gather.ts";
import type { Source } from "./gather.ts";
import type { HealOutlook, RebuildOptions, Redundancy, SegmentHealth } from "./interface.ts";
import { limits } from "./limits.ts";
import { chooseDisks, domainCount } from "./placement.ts";
import type { Candidate } from "./placement.ts";
import { feasibleShape, parseRedundancy, sameShape, wantedShape, width } from "./redundancy.ts";
import { lostError } from "./segment-reader.ts";
import type { Room, ShardMaker } from "./shard-maker.ts";

export interface HealerModules extends FragmentWriterModules {
	readonly fragments: FragmentReader;
	readonly writer: FragmentWriter;
	readonly maker: ShardMaker;
	/** Memory for a shard; what is to be released afterwards is added to `lent`. */
	readonly room: (lengthBytes: number, lent: Borrowed[]) => Uint8Array;
	readonly refreshSpace: () => Promise<void>;
}

export interface Rebuilt {
	readonly segment: Segment;
	readonly retired: readonly FragmentPlace[];
	readonly written: readonly FragmentPlace[];
}

type FragmentState = SegmentHealth["fragments"][number];

/** What one attempt of a rebuild knows. */
interface Situation {
	readonly segment: Segment;
	readonly wanted: Redundancy;
	/** Believed good, each on a domain of its own. */
	readonly kept: readonly FragmentPlace[];
	/** Believed good, on the domain of a kept one. */
	readonly crowded: readonly FragmentPlace[];
	/** Believed good, on disks that are to be emptied. */
	readonly leaving: readonly FragmentPlace[];
	/** Indexes without a good fragment. */
	readonly missing: readonly number[];
	/** Disks that can be written, without those that failed during this rebuild. */
	readonly candidates: readonly Candidate[];
	/** Those of them whose domain holds no kept fragment. */
	readonly fresh: readonly Candidate[];
}

export class Healer {
	#modules: HealerModules;

	constructor(modules: HealerModules) {
		this.#modules = modules;
	}

	assess(segment: Segment): SegmentHealth {
		return this.#health(segment, (place) => {
			if (!place || !this.#modules.disks.readable(place.disk)) return "missing";
			return this.#modules.fragments.isDamaged(segment, place) ? "corrupt" : "ok";
		});
	}

	async check(segment: Segment): Promise<SegmentHealth> {
		const states = new Map<number, FragmentState["state"]>();
		const one = async (place: FragmentPlace): Promise<void> => {
			if (!this.#modules.disks.readable(place.disk)) return;
			const ok = await this.#modules.fragments.verify(segment, place).then(() => true, passAssertions);
			if (ok) states.set(place.index, "ok");
			else if (this.#modules.disks.readable(place.disk)) states.set(place.index, "corrupt");
		};
		await Promise.all(segment.fragments.map(one));
		return this.#health(segment, (place) => (place && states.get(place.index)) ?? "missing");
	}

	#health(segment: Segment, stateOf: (place: FragmentPlace | undefined) => FragmentState["state"]): SegmentHealth {
		assertSegment(segment);
		const fragments: FragmentState[] = [];
		const domains = new Set<string>();
		let good = 0;
		let leaving = 0;
		for (let index = 0; index < width(shapeOf(segment)); index++) {
			const place = segment.fragments.find((candidate) => candidate.index === index);
			const state = stateOf(place);
			fragments.push({ index, disk: place?.disk, state });
			if (state !== "ok" || !place) continue;
			good++;
			if (this.#isLeaving(place)) leaving++;
			domains.add(this.#modules.domainOf(place.disk));
		}
		const whole = good === fragments.length && domains.size === good;
		return { segment, fragments, lost: good < segment.dataShards, full: whole && hasTargetShape(segment), leaving };
	}

	#isLeaving(place: FragmentPlace): boolean {
		return this.#modules.disks.slot(place.disk)?.state === "draining";
	}

	/** See SegmentStore.outlook. */
	outlook({ segment, fragments }: SegmentHealth): HealOutlook {
		const bad = new Set(fragments.filter((one) => one.state === "corrupt").map((one) => one.index));
		const plan = this.#plan(this.#situation(segment, bad, new Set()), true);
		if (plan === undefined) return "no-disk";
		if (plan === "awaited") return "awaited";
		return plan === "full" ? "no-space" : "possible";
	}

	/** See SegmentStore.rebuild. */
	async rebuild(health: SegmentHealth, { patient = false }: RebuildOptions): Promise<Rebuilt | undefined> {
		const { segment } = health;
		assertSegment(segment);
		const bad = new Set<number>();
		for (const fragment of health.fragments) if (fragment.state === "corrupt") bad.add(fragment.index);
		const excluded = new Set<number>();
		let refreshed = false;
		for (let attempt = 0; attempt < limits.writeAttempts + segment.fragments.length; attempt++) {
			await this.#modules.writer.ready();
			const situation = this.#situation(segment, bad, excluded);
			const plan = this.#plan(situation, patient);
			if (!plan || plan === "awaited") return undefined;
			if (plan === "full") {
				if (refreshed) throw noRoom(segment);
				refreshed = true;
				await this.#modules.refreshSpace();
				continue;
			}
			const lent: Borrowed[] = [];
			const set = await this.#shards(situation, plan, bad, lent);
			if (!set) continue;
			const { places, failures } = await this.#modules.writer.put(set, plan.disks);
			if (failures.length === 0) {
				for (const one of lent) one.release();
				return this.#result(segment, set, places);
			}
			for (const { disk, error } of failures) if (error.code !== "ENOSPC") excluded.add(disk);
		}
		throw new FsError(
			"EIO",
			"storage.rebuild-attempts",
			`segment ${segment.id} could not be rebuilt: disks kept failing while it was written`,
			{ segment: segment.id },
		);
	}

	/** See SegmentStore.evenOut. */
	async even(segment: Segment): Promise<Rebuilt | undefined> {
		assertSegment(segment);
		await this.#modules.writer.ready();
		const bad = new Set<number>();
		const situation = this.#situation(segment, bad, new Set());
		if (situation.kept.length < width(shapeOf(segment))) return undefined;
		const plan = evening(situation);
		const lent: Borrowed[] = [];
		const set = plan && (await this.#shards(situation, plan, bad, lent));
		if (!plan || !set) return undefined;
		const { places, failures } = await this.#modules.writer.put(set, plan.disks);
		if (failures.length > 0) return undefined;
		for (const one of lent) one.release();
		return this.#result(segment, set, places);
	}

	/** See SegmentStore.move. */
	async move(segment: Segment, index: number, to: number): Promise<Rebuilt | undefined> {
		assertSegment(segment);
		await this.#modules.writer.ready();
		const bad = new Set<number>();
		const situation = this.#situation(segment, bad, new Set());
		const place = situation.kept.find((one) => one.index === index);
		const own = place && this.#modules.domainOf(place.disk);
		const target = situation.candidates.find((one) => one.id === to);
		const isFit = target !== undefined && (target.domain === own || situation.fresh.includes(target));
		if (!place || !isFit || target.freeBytes < fragmentLength(segment.shardBytes)) return undefined;
		const lent: Borrowed[] = [];
		const set = await this.#shards(situation, { shape: shapeOf(segment), indexes: [index], disks: [to] }, bad, lent);
		if (!set) return undefined;
		const { places, failures } = await this.#modules.writer.put(set, [to]);
		if (failures.length > 0) return undefined;
		for (const one of lent) one.release();
		return this.#result(segment, set, places);
	}

	#situation(segment: Segment, bad: ReadonlySet<number>, excluded: ReadonlySet<number>): Situation {
		const kept: FragmentPlace[] = [];
		const crowded: FragmentPlace[] = [];
		const leaving: FragmentPlace[] = [];
		const missing: number[] = [];
		const domains = new Set<string>();
		for (let index = 0; index < width(shapeOf(segment)); index++) {
			const place = segment.fragments.find((candidate) => candidate.index === index);
			if (!place || bad.has(index) || !this.#modules.disks.readable(place.disk)) {
				missing.push(index);
				continue;
			}
			if (this.#isLeaving(place)) {
				leaving.push(place);
				continue;
			}
			const domain = this.#modules.domainOf(place.disk);
			(domains.has(domain) ? crowded : kept).push(place);
			domains.add(domain);
		}
		const candidates = this.#modules.writer.candidates().filter((candidate) => !excluded.has(candidate.id));
		const fresh = candidates.filter((candidate) => !domains.has(candidate.domain));
		const wanted = wantedShape(parseRedundancy(segment.target), segment.payloadBytes);
		return { segment, wanted, kept, crowded, leaving, missing, candidates, fresh };
	}

	/** A new shape would only bridge the time until the disks are back that it lacks, and it does not hang on the next loss. */
	#isBridge({ segment, wanted, kept, crowded, leaving, missing }: Situation, best: Redundancy): boolean {
		if (sameShape(best, wanted) || crowded.length + leaving.length > 0 || kept.length <= segment.dataShards) return false;
		return missing.every((index) => this.#isAwaited(segment.fragments.find((place) => place.index === index)));
	}

	#isAwaited(place: FragmentPlace | undefined): boolean {
		const { disks, platform } = this.#modules;
		const lostAtMs = place && disks.slot(place.disk)?.lostAtMs;
		return lostAtMs !== undefined && platform.clock.monotonicMs() - lostAtMs < limits.awaitedMs;
	}

	/** What to write where. Undefined: nothing can be bettered; "full": it could, if there were room; "awaited": see RebuildOptions. */
	#plan(situation: Situation, patient: boolean): Plan | "full" | "awaited" | undefined {
		const { segment, wanted, kept, crowded, leaving, missing, candidates, fresh } = situation;
		const shape = shapeOf(segment);
		const mendable = Math.min(missing.length + crowded.length + leaving.length, domainCount(fresh));
		// What stays on a disk that is to be emptied does not count for the future, but it protects now.
		const survives = kept.length + mendable - shape.dataShards;
		const survivesNow = kept.length + leaving.length - shape.dataShards;
		const best = feasibleShape(wanted, domainCount(candidates));
		// Another shape costs a copy of everything: only for what was asked for, or where it survives more losses.
		const better = best && (best.parityShards > survives || (!hasTargetShape(segment) && sameShape(best, wanted)));
		const worthwhile = better && best.parityShards >= Math.min(survivesNow, wanted.parityShards);
		let full = false;
		const awaited = patient && best !== undefined && this.#isBridge(situation, best);
		if (best && worthwhile && !awaited && !sameShape(best, shape)) {
			const length = fragmentLength(shardLength(segment.payloadBytes, best.dataShards));
			const roomy = isDearer(best, shape) ? withHeadroom(candidates) : candidates;
			const disks = chooseDisks(roomy, width(best), length, segment.id);
			if (disks) return { shape: best, indexes: undefined, disks };
			const move = evening(situation);
			if (move) return move;
			full = true;
		}
		const order = [...missing, ...[...crowded, ...leaving].map((place) => place.index)];
		for (let count = mendable; count > 0; count--) {
			const disks = chooseDisks(fresh, count, fragmentLength(segment.shardBytes), segment.id);
			if (disks) return { shape, indexes: order.slice(0, count), disks };
			full = true;
		}
		if (full) return "full";
		return worthwhile && awaited ? "awaited" : undefined;
	}

	/**
	 * Reads what is needed and makes the shards of the plan. Undefined: damage was found that changes the plan. `lent` gets what is to be released when everything is written; after a failure it is not: a write that
	 * timed out may still take its bytes from there.
	 */
	async #shards(situation: Situation, plan: Plan, bad: Set<number>, lent: Borrowed[]): Promise<ShardSet | undefined> {
		const { segment } = situation;
		const damagedBefore = bad.size;
		const moved = await this.#moved(situation, plan.indexes, lent);
		const shards = moved ?? (await this.#sources(situation, bad, lent));
		if (bad.size > damagedBefore) return undefined;
		const generation = 1 + segment.fragments.reduce((most, place) => Math.max(most, place.generation), 0);
		const common = { segment: segment.id, generation, shape: plan.shape, payloadBytes: segment.payloadBytes };
		const { maker } = this.#modules;
		const room: Room = (lengthBytes) => this.#modules.room(lengthBytes, lent);
		if (plan.indexes)
			return { ...common, shardBytes: segment.shardBytes, shards: await maker.restore(segment, shards, plan.indexes, room) };
		// Those that are there are not summed: the new shape has other blocks.
		const data = shards.slice(0, segment.dataShards);
		const lost = range(segment.dataShards).filter((index) => data[index] === undefined);
		for (const { index, bytes } of await maker.restore(segment, shards, lost, room)) data[index] = bytes;
		const payload = join(segment, data as readonly Uint8Array[], room);
		return {
			...common,
			shardBytes: shardLength(payload.length, plan.shape.dataShards),
			shards: await maker.encode(payload, plan.shape, room),
		};
	}

	/** Fragments that only change their place are copied; undefined when one of them has to be made from the others. */
	async #moved(
		situation: Situation,
		indexes: readonly number[] | undefined,
		lent: Borrowed[],
	): Promise<(Uint8Array | undefined)[] | undefined> {
		const { segment, kept, crowded, leaving } = situation;
		const places = [...kept, ...crowded, ...leaving].filter((place) => indexes?.includes(place.index));
		if (indexes === undefined || places.length < indexes.length) return undefined;
		const shards: (Uint8Array | undefined)[] = new Array(width(shapeOf(segment))).fill(undefined);
		try {
			for (const place of places) {
				const shard = await this.#modules.fragments.shard(segment, place, () => true);
				lent.push(shard);
				shards[place.index] = shard.bytes;
			}
			return shards;
		} catch (error) {
			passAssertions(error);
			return undefined;
		}
	}

	/** dataShards verified shards by index. What turns out damaged is added to `bad`. @throws FsError EIO `storage.lost`. */
	async #sources(situation: Situation, bad: Set<number>, lent: Borrowed[]): Promise<(Uint8Array | undefined)[]> {
		const { segment, kept, crowded, leaving } = situation;
		const { disks, fragments, platform } = this.#modules;
		const places = [...kept, ...crowded, ...leaving].sort((a, b) => a.index - b.index);
		const failures = new Map<number, string>();
		const sources = places.map(
			(place): Source<Borrowed> =>
				async (live) => {
					try {
						return await fragments.shard(segment, place, live);
					} catch (error) {
						failures.set(place.index, (error as Error).message);
						if (live()) bad.add(place.index);
						throw error;
					}
				},
		);
		const { results } = await gather(platform.clock, segment.dataShards, sources, limits.hedgeMs);
		if (results.size < segment.dataShards) throw lostError(segment, failures, (disk) => disks.readable(disk) !== undefined);
		const shards: (Uint8Array | undefined)[] = new Array(width(shapeOf(segment))).fill(undefined);
		for (const [at, shard] of results) {
			lent.push(shard);
			shards[(places[at] as FragmentPlace).index] = shard.bytes;
		}
		return shards;
	}

	#result(segment: Segment, set: ShardSet, written: readonly FragmentPlace[]): Rebuilt {
		const whole = set.shards.length === width(set.shape) && !sameShape(set.shape, shapeOf(segment));
		const replaced = new Set(written.map((place) => place.index));
		const retired = segment.fragments.filter((place) => whole || replaced.has(place.index));
		const staying = segment.fragments.filter((place) => !retired.includes(place));
		const fragments = [...staying, ...written].sort((a, b) => a.index - b.index);
		const { dataShards, parityShards } = set.shape;
		this.#modules.counters.rebuiltFragments += written.length;
		return { segment: { ...segment, dataShards, parityShards, shardBytes: set.shardBytes, fragments }, retired, written };
	}
}

interface Plan {
	readonly shape: Redundancy;
	/** Undefined: all of them, in a new shape. */
	readonly indexes: number[] | undefined;
	readonly disks: readonly number[];
}

/**
 * One good fragment from the fullest disk to the emptiest that may take it. Disks that came empty beside full ones help nobody otherwise: a new shape needs
 * some room on the full ones too before it gives theirs back. Each move makes the disks more even, so there is an end to it.
 */
function evening({ segment, kept, candidates, fresh }: Situation): Plan | undefined {
	const length = fragmentLength(segment.shardBytes);
	const free = new Map(candidates.map(({ id, freeBytes }) => [id, freeBytes]));
	const to = fresh.reduce<Candidate | undefined>((most, one) => (most && most.freeBytes >= one.freeBytes ? most : one), undefined);
	let from: FragmentPlace | undefined;
	for (const place of kept) {
		const least = from === undefined ? Number.POSITIVE_INFINITY : (free.get(from.disk) as number);
		if ((free.get(place.disk) ?? Number.POSITIVE_INFINITY) < least) from = place;
	}
	if (!to || !from || to.freeBytes - (free.get(from.disk) as number) < 2 * length) return undefined;
	return { shape: shapeOf(segment), indexes: [from.index], disks: [to.id] };
}

/** Takes more room for the same data. */
function isDearer(a: Redundancy, b: Redundancy): boolean {
	return width(a) * b.dataShards > width(b) * a.dataShards;
}

/** More copies for the time being must not take what people need to go on writing. */
function withHeadroom(candidates: readonly Candidate[]): Candidate[] {
	return candidates.map((one) => ({ ...one, freeBytes: one.freeBytes - one.capacityBytes * limits.interimHeadroom }));
}

/** In the shape that was asked for, or in the one that small payloads get for it. */
export function hasTargetShape(segment: Segment): boolean {
	const target = parseRedundancy(segment.target);
	return sameShape(shapeOf(segment), target) || sameShape(shapeOf(segment), wantedShape(target, segment.payloadBytes));
}

function join(segment: Segment, data: readonly Uint8Array[], room: Room): Uint8Array {
	const payload = room(segment.payloadBytes);
	for (const [i, bytes] of data.entries()) {
		const at = i * segment.shardBytes;
		if (at < payload.length) payload.set(bytes.subarray(0, payload.length - at), at);
	}
	return payload;
}

/** A failure of the world is an answer; a failure of the code is not. */
function passAssertions(error: unknown): false {
	if (error instanceof AssertionError) throw error;
	return false;
}

function range(count: number): number[] {
	return Array.from({ length: count }, (_, index) => index);
}

function noRoom(segment: Segment): FsError {
	const message = `segment ${segment.id} stays under-protected: no disk has room for what it lacks. Delete something or add a disk`;
	return new FsError("ENOSPC", "storage.rebuild-full", message, { segment: segment.id });
}
