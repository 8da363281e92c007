/**
 * Gives back what is dead in segments that are partly alive: their live chunks move into new segments, and they die. In the background, and at once when a writer finds no room.
 *
 * Invariants
 *  Z1 One pass at a time; a pass that a writer waits for does not rest.
 *  Z2 A segment is compacted only when no more than `threshold` of what it holds is to be copied: every pass gives back more than it takes, and what it makes needs no other.
 *  Z3 What could not be bettered is looked at again only after more of it has died.
 *  Z4 When space is short, what died is given back before the next new segment is written.
 */
import { Mutex } from "../../base/async.ts";
import { isFsError, toFsError } from "../../base/errors.ts";
import type { Chunk, Segment } from "../../records/interface.ts";
import { segmentRecord } from "../../records/kinds.ts";
import { chunksOf, map as mapExtents } from "../../storage/extents.ts";
import type { ChunkPart } from "../../storage/interface.ts";
import { parseRedundancy } from "../../storage/redundancy.ts";
import type { Core } from "./core.ts";
import type { CompactionStatus } from "./interface.ts";
import { limits } from "./limits.ts";
import { lengthOf, type Move, relocate } from "./relocator.ts";

interface Candidate {
	readonly id: number;
	readonly target: string;
	/** Part of the payload that lives. */
	readonly live: number;
}

/** What was found when a segment could not be bettered: its live bytes, and the part of it that would have had to be copied. */
interface Stuck {
	readonly liveBytes: number;
	readonly copied: number;
}

interface Plan {
	readonly segment: Segment;
	readonly moves: readonly Move[];
	readonly bytes: number;
}

/** What a pass is for, and when it has done enough. */
interface Errand {
	readonly threshold: number;
	/** A writer waits for so many bytes. */
	readonly wantedBytes: number | undefined;
}

export class Compactor {
	readonly #core: Core;
	readonly #passes = new Mutex();
	/** Z3. */
	readonly #stuck = new Map<number, Stuck>();
	#active = false;
	#movedBytes = 0;
	#freedBytes = 0;
	/** `core.deadBytes` at the last look in the background, and at the last time that a writer waited in vain. */
	#lookedAt = -1;
	#vainAt = -1;
	#nextLookMs = 0;
	#urgent = 0;
	#pressing: Promise<void> | undefined;
	/** Of a new segment: less when there was no room for more. */
	#payloadBytes: number = limits.segmentBytes;
	#cancelTick: () => void = () => {};
	#stopped = false;

	constructor(core: Core) {
		this.#core = core;
	}

	get status(): CompactionStatus {
		return { active: this.#active, movedBytes: this.#movedBytes, freedBytes: this.#freedBytes };
	}

	start(): void {
		this.#cancelTick = this.#core.platform.clock.after(limits.compactTickMs, () => {
			void this.#lookAround().finally(() => {
				if (!this.#stopped) this.start();
			});
		});
	}

	async #lookAround(): Promise<void> {
		const { clock } = this.#core.platform;
		const died = this.#core.deadBytes - this.#lookedAt;
		const soon = died >= limits.compactSoonBytes || this.#lookedAt < 0;
		const idle = died > 0 && clock.monotonicMs() >= this.#nextLookMs + limits.compactIdleMs;
		if (this.#stopped || clock.monotonicMs() < this.#nextLookMs || !(soon || idle)) return;
		this.#lookedAt = this.#core.deadBytes;
		try {
			await this.#passes.run(() => this.#pass({ threshold: this.#threshold(), wantedBytes: undefined }));
		} catch (error) {
			this.#core.logger.warn("compaction stopped; it is tried again", { error: toFsError(error, "volume.compact").message });
		}
	}

	#threshold(): number {
		const { capacityBytes, freeBytes } = this.#core.store.space();
		return freeBytes < capacityBytes * limits.shortOfSpace ? limits.compactBelowShort : limits.compactBelow;
	}

	/**
	 * Somebody has no room for so many bytes: gives back what is free for it, and compacts. Resolves when there is some more room, when there is nothing to be had, or when that takes too long.
	 * Whoever comes meanwhile shares the work.
	 */
	async makeRoom(lengthBytes: number): Promise<void> {
		this.#pressing ??= this.#press(lengthBytes).finally(() => {
			this.#pressing = undefined;
		});
		const tooLong = this.#core.platform.clock.sleep(limits.makeRoomMs);
		await Promise.race([this.#pressing, tooLong]);
	}

	async #press(lengthBytes: number): Promise<void> {
		this.#urgent++;
		try {
			await this.#core.releaseFreed();
			if (this.#core.deadBytes === this.#vainAt || this.#stopped) return;
			const before = this.#core.deadBytes;
			const errand = { threshold: limits.compactBelowShort, wantedBytes: Math.max(lengthBytes, limits.makeRoomBytes) };
			const freed = await this.#passes.run(() => this.#pass(errand));
			if (freed === 0) this.#vainAt = before;
		} catch (error) {
			this.#core.logger.warn("no room could be made", { error: toFsError(error, "volume.make-room").message });
		} finally {
			this.#urgent--;
		}
	}

	/** Returns the dead bytes that it gave back. */
	async #pass(errand: Errand): Promise<number> {
		const { clock } = this.#core.platform;
		const startMs = clock.monotonicMs();
		const candidates = await this.#candidates(errand.threshold);
		const tookMs = clock.monotonicMs() - startMs;
		this.#nextLookMs = clock.monotonicMs() + tookMs / limits.compactScanShare;
		const before = this.#freedBytes;
		const isEnough = (): boolean => errand.wantedBytes !== undefined && this.#freedBytes - before >= errand.wantedBytes;
		this.#active = candidates.length > 0;
		try {
			for (const ids of byTarget(candidates)) await this.#compactThese(ids, errand.threshold, isEnough);
		} finally {
			this.#active = false;
		}
		return this.#freedBytes - before;
	}

	/** Nothing is pinned while a new segment is followed by a release: that would wait for its own pins. */
	async #compactThese(ids: readonly number[], threshold: number, isEnough: () => boolean): Promise<void> {
		let group = new Group();
		try {
			for (let at = 0; at < ids.length && !this.#stopped && !isEnough(); at++) {
				const id = ids[at] as number;
				const letGo = this.#core.store.pin(id);
				const plan = await this.#plan(id, threshold).catch((error: unknown) => {
					letGo();
					throw error;
				});
				if (plan !== undefined && group.fits(plan, this.#payloadBytes)) {
					group.add(plan, letGo);
					continue;
				}
				letGo();
				if (plan === undefined || group.isEmpty) continue;
				const full = group;
				group = new Group();
				await this.#compact(full);
				// Planned again, with a pin of its own.
				at--;
			}
			if (!group.isEmpty && !this.#stopped && !isEnough()) await this.#compact(group);
		} finally {
			group.letGo();
		}
	}

	/** Those that give back most for what is copied come first. */
	async #candidates(threshold: number): Promise<Candidate[]> {
		let best: Candidate[] = [];
		const keepBest = (): void => {
			best.sort((a, b) => a.live - b.live || a.id - b.id);
			best = best.slice(0, limits.compactCandidates);
		};
		const alive = new Set<number>();
		for await (const segment of this.#core.segments()) {
			if (this.#stopped) return [];
			const { id, target, liveBytes, payloadBytes } = segment;
			const stuck = this.#stuck.get(id);
			if (stuck !== undefined) alive.add(id);
			if (liveBytes > payloadBytes * threshold || this.#core.isPacking(id)) continue;
			if (stuck?.liveBytes === liveBytes && stuck.copied > threshold) continue;
			best.push({ id, target, live: liveBytes / payloadBytes });
			if (best.length >= 2 * limits.compactCandidates) keepBest();
		}
		for (const id of this.#stuck.keys()) if (!alive.has(id)) this.#stuck.delete(id);
		keepBest();
		return best;
	}

	/** One new segment. */
	async #compact(group: Group): Promise<void> {
		const { clock } = this.#core.platform;
		const startMs = clock.monotonicMs();
		const target = (group.segments[0] as Segment).target;
		try {
			this.#movedBytes += await relocate(this.#core, group.moves, parseRedundancy(target), "compaction");
			this.#freedBytes += group.payloadBytes - group.bytes;
			this.#payloadBytes = Math.min(limits.segmentBytes, 2 * this.#payloadBytes);
		} catch (error) {
			this.#core.logger.warn("segments could not be compacted now", {
				segments: group.segments.map(({ id }) => id),
				error: toFsError(error, "volume.compact-segment").message,
			});
			// What cannot be read is the healer's: it is in its list now.
			if (!isFsError(error, "ENOSPC")) for (const segment of group.segments) this.#giveUp(segment, Number.POSITIVE_INFINITY);
			else this.#payloadBytes = Math.max(limits.compactLeastBytes, this.#payloadBytes / 2);
		} finally {
			group.letGo();
		}
		const isHurried = this.#urgent > 0;
		if (isHurried || this.#payloadBytes < limits.segmentBytes) await this.#core.releaseFreed();
		if (!isHurried) await clock.sleep(clock.monotonicMs() - startMs);
	}

	/** What to copy so that the segment dies. The caller has pinned it. */
	async #plan(id: number, threshold: number): Promise<Plan | undefined> {
		const segment = await this.#core.view((tx) => tx.get(segmentRecord, id));
		if (segment === undefined || this.#core.isPacking(id)) return undefined;
		const moves: Move[] = [];
		for (let from: number | undefined = 0; from !== undefined; ) {
			const start: number = from;
			const step = await this.#core.view((tx) => chunksOf(tx, segment, start, limits.scanBatch));
			for (const chunk of step.chunks) moves.push(...(await this.#movesOf(chunk, segment)));
			from = step.next;
		}
		const bytes = moves.reduce((sum, move) => sum + lengthOf(move), 0);
		const copied = bytes / segment.payloadBytes;
		if (bytes === 0 || copied > threshold || moves.length > limits.segmentChunks) this.#giveUp(segment, copied);
		// Without room for it now it is left to a better time.
		else if (bytes <= this.#payloadBytes) return { segment, moves, bytes };
		return undefined;
	}

	#giveUp(segment: Segment, copied: number): void {
		if (this.#stuck.size < limits.compactCandidates) this.#stuck.set(segment.id, { liveBytes: segment.liveBytes, copied });
	}

	/** The live parts of the chunk, when the file that it was written for accounts for all of them; else all of it. */
	async #movesOf(chunk: Chunk, from: Segment): Promise<Move[]> {
		const whole = [{ chunk, from, part: undefined }];
		if (chunk.referencedBytes >= chunk.length) return whole;
		const parts = await this.#core.view((tx) => {
			const ranges = mapExtents(tx, chunk.owner, chunk.ownerOffset, chunk.length).filter((range) => range.chunk.id === chunk.id);
			const bytes = ranges.reduce((sum, range) => sum + range.length, 0);
			if (ranges.length !== chunk.references || bytes !== chunk.referencedBytes) return undefined;
			return partsOf(ranges.map(({ offset, length, payloadOffset }) => ({ offset, length, chunkOffset: payloadOffset - chunk.offset })));
		});
		if (parts === undefined || parts.length > limits.segmentChunks) return whole;
		return parts.map((part) => ({ chunk, from, part: { ...part, ino: chunk.owner, chunk: chunk.id } }));
	}

	/** Resolves when the pass that is under way, if any, has ended. */
	async stop(): Promise<void> {
		this.#stopped = true;
		this.#cancelTick();
		await this.#passes.run(() => {});
	}
}

/** Segments that become one, pinned. */
class Group {
	readonly segments: Segment[] = [];
	readonly moves: Move[] = [];
	bytes = 0;
	payloadBytes = 0;
	readonly #unpin: (() => void)[] = [];

	get isEmpty(): boolean {
		return this.segments.length === 0;
	}

	fits(plan: Plan, segmentBytes: number): boolean {
		const isFew = this.moves.length + plan.moves.length <= limits.segmentChunks && this.segments.length < limits.compactGroup;
		return isFew && this.bytes + plan.bytes <= segmentBytes;
	}

	add(plan: Plan, unpin: () => void): void {
		this.segments.push(plan.segment);
		this.moves.push(...plan.moves);
		this.bytes += plan.bytes;
		this.payloadBytes += plan.segment.payloadBytes;
		this.#unpin.push(unpin);
	}

	letGo(): void {
		for (const unpin of this.#unpin.splice(0)) unpin();
	}
}

function byTarget(candidates: readonly Candidate[]): Iterable<readonly number[]> {
	const lists = new Map<string, number[]>();
	for (const { id, target } of candidates) {
		const list = lists.get(target) ?? [];
		list.push(id);
		lists.set(target, list);
	}
	return lists.values();
}

/** Ranges that follow each other in the file and in the chunk become one. */
function partsOf(ranges: readonly Omit<ChunkPart, "ino" | "chunk">[]): Omit<ChunkPart, "ino" | "chunk">[] {
	const parts: { offset: number; length: number; chunkOffset: number }[] = [];
	for (const range of ranges) {
		const last = parts[parts.length - 1];
		const adjoins =
			last !== undefined && last.offset + last.length === range.offset && last.chunkOffset + last.length === range.chunkOffset;
		if (adjoins) last.length += range.length;
		else parts.push({ ...range });
	}
	return parts;
}
