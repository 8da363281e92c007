/**
 * Brings segments back to their target: after a loss, after damage was read, when disks come, at mount, on command. Most at risk first, and last what is
 * whole and only has to leave a disk.
 *
 * Invariants
 *  H1 At most one run at a time; a trigger during a run makes another run follow it.
 *  H2 New fragments are durable before the transaction that names them; that transaction commits only if the record still names the fragments the rebuild began from;
 *     the old places are given back only after it is durable.
 *  H3 Damage found by any read is healed without anybody asking; what cannot be healed now is tried again, as disks and space may come back.
 *  H4 A segment that was bettered and is not whole is looked at again at once: every step leaves fewer of them, or the disks more even, so that ends.
 *  H6 When disks fail during a run, or come, the rest of its list is dropped and a new one is made: what is most at risk now comes first. Damage that reads find meanwhile takes its place in the list.
 *  H7 Paused, it rebuilds nothing by itself; a run that is paused says what remains.
 *  H8 From the moment that something was to be healed until nothing is, what was done is in the care record, at most `healSaveMs` behind: a mount goes on counting there. What is to be done is always told
 *     by the records of the segments.
 *  H9 What a lost segment still gives is moved to safety behind what can be healed, once for each state of its places: looking costs reading all of it.
 *  H10 By itself it is patient with disks that were lost a while ago (`RebuildOptions`); whoever asks for healing is not made to wait for them.
 *  H5 What could not be bettered is counted as remaining or lost, never as healed. What no disk fits is not worked at: the healer is not active for it, and its pace is measured by what was done alone.
 */
import { toFsError } from "../../base/errors.ts";
import type { FragmentPlace, Segment } from "../../records/interface.ts";
import { segmentRecord } from "../../records/kinds.ts";
import type { SegmentHealth, SegmentStore } from "../../storage/interface.ts";
import type { Care } from "./care.ts";
import type { Core } from "./core.ts";
import type { HealingStatus, HealOptions, HealResult, Progress } from "./interface.ts";
import { salvage } from "./salvage.ts";
import { HealList } from "./heal-list.ts";
import { lanesAt, SpeedMeter, secondsFor } from "./heal-speed.ts";
import { timeOf } from "./ledger.ts";
import { limits } from "./limits.ts";

/** Segments in which reads have found damage, since the run began: how many more fragments may go of each, as far as was known when it was last looked at. */
type Suspects = Map<number, number>;

interface Totals {
	rebuiltSegments: number;
	rebuiltBytes: number;
	remainingBytes: number;
	leavingBytes: number;
	lostBytes: number;
}

export class Healer {
	readonly #core: Core;
	readonly #care: Care;
	/** H6 */
	#outdated = false;
	#run: Promise<Totals> | undefined;
	#again = false;
	/** The next run looks at all segments; otherwise only at those in which reads have found damage. */
	#lookAtAll = true;
	#stopped = false;
	#list = new HealList(0);
	/** Being rebuilt just now. */
	readonly #inHand = new Set<number>();
	#inHandBytes = 0;
	#speed: SpeedMeter | undefined;
	#endedMs = 0;
	/** H8: since the care record was written. */
	#doneBytes = 0;
	#savedMs = 0;
	#startedMs = 0;
	/** What the last run could not heal and is not lost. */
	#leftBytes = 0;
	#cancelTick: () => void = () => {};
	readonly #listeners = new Set<(progress: Progress) => void>();
	/** H10: how many wait for `heal`. */
	#asked = 0;
	/** H9: lost segments of the run, and what was looked at. */
	#lost: SegmentHealth[] = [];
	readonly #salvaged = new Map<number, string>();

	constructor(core: Core, care: Care) {
		this.#core = core;
		this.#care = care;
	}

	get running(): boolean {
		return this.#run !== undefined;
	}

	/** The last run left something that no disk fits or has room for. */
	get waiting(): boolean {
		return this.#leftBytes > 0;
	}

	get status(): HealingStatus {
		const { healing, healPaused, tranquility } = this.#care.now;
		const remainingBytes = this.#remainingBytes();
		const active = this.#run !== undefined && remainingBytes > 0;
		return {
			active,
			remainingBytes: active ? remainingBytes : 0,
			etaSeconds: active ? this.#etaSeconds(remainingBytes) : null,
			doneBytes: (healing?.doneBytes ?? 0) + this.#doneBytes,
			startedAt: healing === undefined ? null : timeOf(healing.startedAt),
			paused: healPaused,
			tranquility,
		};
	}

	#remainingBytes(): number {
		return this.#list.weakBytes + this.#list.leavingBytes + this.#inHandBytes;
	}

	#etaSeconds(remainingBytes: number): number | null {
		return this.secondsFor(this.#list.count + this.#inHand.size, remainingBytes) ?? null;
	}

	/** How long work on so many segments of so many bytes takes as it went last, with the rests of now; undefined: it was never measured. */
	secondsFor(segments: number, bytes: number): number | undefined {
		const speed = this.#speed?.speed ?? this.#care.now.healSpeed;
		return speed === undefined ? undefined : secondsFor(speed, segments, bytes, this.#care.now.tranquility);
	}

	/** Begins to look for damage that reads have found, and to try again what could not be healed. */
	start(): void {
		this.#cancelTick = this.#core.platform.clock.after(limits.healTickMs, () => {
			const { clock } = this.#core.platform;
			const retry = this.#leftBytes > 0 && clock.monotonicMs() - this.#endedMs >= limits.healRetryMs;
			if (retry) this.trigger();
			else if (this.#core.store.damagedCount > 0 && this.#run === undefined) this.#wake();
			if (!this.#stopped) this.start();
		});
	}

	/** Something changed for the better or the worse: look at everything again soon. */
	trigger(): void {
		this.#lookAtAll = true;
		this.#wake();
	}

	#wake(): void {
		if (this.#stopped) return;
		if (this.#run !== undefined) {
			this.#again = true;
			return;
		}
		if (this.#care.now.healPaused) return;
		this.#healAgain(() => {}).catch((error: unknown) => {
			this.#core.logger.error("healing stopped; it is tried again at the next change of the disks or by `cairn heal`", {
				error: toFsError(error, "volume.heal").message,
			});
		});
	}

	/** A disk changed: what is most at risk may be something else now. */
	disksChanged(): void {
		this.#outdated = true;
		this.#core.protectionChanged();
		this.trigger();
	}

	async configure({ paused, tranquility }: HealOptions): Promise<HealingStatus> {
		await this.#care.change((care) => ({
			...care,
			healPaused: paused ?? care.healPaused,
			tranquility: tranquility ?? care.tranquility,
		}));
		this.#core.protectionChanged();
		if (paused === false) this.trigger();
		return this.status;
	}

	/** One segment that somebody has just checked, at once. What could not be bettered is tried again later (H3). */
	async mend(health: SegmentHealth): Promise<void> {
		const totals: Totals = { rebuiltSegments: 0, rebuiltBytes: 0, remainingBytes: 0, leavingBytes: 0, lostBytes: 0 };
		await this.#healOne(health, totals, false);
		this.#leftBytes += totals.remainingBytes + totals.leavingBytes;
	}

	/** Resolves when nothing more can be done with the disks there are now, or when the healer is paused. */
	async heal(onProgress: (progress: Progress) => void): Promise<HealResult> {
		this.#lookAtAll = true;
		this.#asked++;
		try {
			return await this.#healAgain(onProgress);
		} finally {
			this.#asked--;
		}
	}

	async #healAgain(onProgress: (progress: Progress) => void): Promise<HealResult> {
		this.#listeners.add(onProgress);
		let rebuiltSegments = 0;
		let rebuiltBytes = 0;
		try {
			// What is under way began before somebody asked: another one follows it, begun by whoever wakes first of those that wait.
			if (this.#run !== undefined) this.#again = true;
			for (;;) {
				const result = await (this.#run ?? this.#begin());
				rebuiltSegments += result.rebuiltSegments;
				rebuiltBytes += result.rebuiltBytes;
				const isOver = this.#run === undefined && !this.#again;
				if (isOver || this.#stopped) return { ...result, rebuiltSegments, rebuiltBytes, paused: this.#care.now.healPaused };
			}
		} finally {
			this.#listeners.delete(onProgress);
		}
	}

	#begin(): Promise<Totals> {
		this.#again = false;
		this.#run = this.#runOnce()
			.catch((error: unknown) => {
				// What it has not seen is looked at by the next one.
				this.#lookAtAll = true;
				throw error;
			})
			.finally(() => {
				this.#run = undefined;
			});
		return this.#run;
	}

	async #runOnce(): Promise<Totals> {
		const totals: Totals = { rebuiltSegments: 0, rebuiltBytes: 0, remainingBytes: 0, leavingBytes: 0, lostBytes: 0 };
		const { clock } = this.#core.platform;
		const isOfAll = this.#lookAtAll;
		this.#lookAtAll = this.#outdated = false;
		const suspects: Suspects = new Map();
		const list = new HealList(limits.healListSegments);
		// What disks there are to write to, and what room they have, says what can be done.
		await this.#core.store.refreshSpace();
		if (isOfAll) await this.#lookAtSegments(list, suspects, totals);
		else await this.#lookAtDamaged(list, suspects);
		this.#list = list;
		const before = this.#speed?.speed ?? this.#care.now.healSpeed;
		this.#startedMs = this.#savedMs = clock.monotonicMs();
		this.#speed = new SpeedMeter({ windowMs: limits.healSpeedMs, pieceBytes: limits.healPieceBytes, before });
		const progress = { doneBytes: 0, totalBytes: this.#remainingBytes() };
		this.#tell(progress);
		await this.#workSideBySide(list, (lane, open) => this.#workOff(lane, open, list, suspects, totals, progress));
		await this.#salvageLost(totals);
		totals.remainingBytes += list.weakBytes;
		totals.leavingBytes += list.leavingBytes;
		if (this.#outdated || list.overflowed) this.#again = this.#lookAtAll = true;
		const leftBytes = totals.remainingBytes + totals.leavingBytes;
		this.#leftBytes = isOfAll ? leftBytes : this.#leftBytes + leftBytes;
		this.#endedMs = clock.monotonicMs();
		if (totals.rebuiltSegments > 0) this.#core.protectionChanged();
		await this.#save(this.#leftBytes === 0 && !this.#again);
		this.#list = new HealList(0);
		return totals;
	}

	/** As many lanes as are wanted, which may change on the way: whoever works opens those that are missing. When one fails the others end before it is told. */
	async #workSideBySide(list: HealList, work: (lane: number, open: () => void) => Promise<void>): Promise<void> {
		const lanes = new Map<number, Promise<void>>();
		const failures: unknown[] = [];
		const begin = (lane: number): void => {
			// Taken before it begins: it opens others at once.
			lanes.set(lane, Promise.resolve());
			const ended = work(lane, open)
				.catch((error: unknown) => void failures.push(error))
				.finally(() => lanes.delete(lane));
			lanes.set(lane, ended);
		};
		const open = (): void => {
			if (failures.length > 0) return;
			for (let lane = 0; lane < lanesAt(this.#care.now.tranquility) && list.count > 0; lane++) if (!lanes.has(lane)) begin(lane);
		};
		begin(0);
		while (lanes.size > 0) await Promise.all(lanes.values());
		if (failures.length > 0) throw failures[0];
	}

	async #workOff(
		lane: number,
		open: () => void,
		list: HealList,
		suspects: Suspects,
		totals: Totals,
		progress: { doneBytes: number; readonly totalBytes: number },
	): Promise<void> {
		const { clock } = this.#core.platform;
		while (!this.#stopped && !this.#outdated && !this.#care.now.healPaused) {
			open();
			if (lane >= lanesAt(this.#care.now.tranquility)) return;
			if (this.#core.store.damagedCount > 0) await this.#lookAtDamaged(list, suspects);
			const item = list.take();
			if (item === undefined) return;
			const startMs = clock.monotonicMs();
			this.#inHand.add(item.id);
			this.#inHandBytes += item.bytes;
			const rebuiltBytes = await this.#healNumber(item.id, suspects, totals);
			this.#inHand.delete(item.id);
			this.#inHandBytes -= item.bytes;
			progress.doneBytes += item.bytes;
			this.#doneBytes += rebuiltBytes;
			this.#tell(progress);
			const workedMs = clock.monotonicMs() - startMs;
			if (rebuiltBytes > 0) this.#speed?.done(rebuiltBytes, workedMs / lanesAt(this.#care.now.tranquility));
			await this.#rest(workedMs, list);
			if (clock.monotonicMs() - this.#savedMs >= limits.healSaveMs) await this.#save(false);
		}
	}

	/** H8. */
	async #save(isOver: boolean): Promise<void> {
		const { clock } = this.#core.platform;
		const nowMs = clock.monotonicMs();
		const known = this.#care.now.healing;
		// What is healed in a moment needs no memory of it.
		if (known === undefined && nowMs - this.#startedMs < limits.healSaveMs) {
			if (isOver) this.#doneBytes = 0;
			return;
		}
		this.#savedMs = nowMs;
		const doneBytes = this.#doneBytes;
		this.#doneBytes = 0;
		const startedAt = Math.max(0, clock.realtime().seconds - Math.floor((nowMs - this.#startedMs) / 1000));
		const healSpeed = this.#speed?.speed;
		try {
			await this.#care.change((care) => ({
				...care,
				healSpeed: healSpeed ?? care.healSpeed,
				healing: isOver
					? undefined
					: { startedAt: care.healing?.startedAt ?? startedAt, doneBytes: (care.healing?.doneBytes ?? 0) + doneBytes },
			}));
		} catch (error) {
			this.#doneBytes += doneBytes;
			this.#core.logger.warn("how far healing came could not be written down", { error: toFsError(error, "volume.heal-save").message });
		}
	}

	/** In steps, so that a change of mind is noticed. Behind the last one nothing is spared by resting. */
	async #rest(workedMs: number, list: HealList): Promise<void> {
		const { clock } = this.#core.platform;
		const endMs = clock.monotonicMs() + workedMs * this.#care.now.tranquility;
		const isTold = (): boolean => this.#stopped || this.#outdated || this.#care.now.healPaused || this.#care.now.tranquility === 0;
		const isOver = (): boolean => isTold() || list.count === 0 || clock.monotonicMs() >= endMs;
		while (!isOver()) await clock.sleep(Math.min(limits.healRestStepMs, Math.max(1, endMs - clock.monotonicMs())));
	}

	#tell(progress: Progress): void {
		for (const listener of this.#listeners) listener({ ...progress });
	}

	async #lookAtSegments(list: HealList, suspects: Suspects, totals: Totals): Promise<void> {
		const suspected = new Set(this.#core.store.takeDamaged());
		for await (const segment of this.#core.segments()) {
			const health = this.#core.store.assess(segment);
			if (suspected.has(segment.id)) this.#suspect(health, list, suspects);
			else this.#enlist(health, list, totals);
		}
	}

	/** H6. What is being rebuilt just now waits for the end of that. */
	async #lookAtDamaged(list: HealList, suspects: Suspects): Promise<void> {
		for (const id of this.#core.store.takeDamaged(this.#inHand)) {
			const segment = await this.#core.view((tx) => tx.get(segmentRecord, id));
			if (segment === undefined) continue;
			const health = this.#core.store.assess(segment);
			// What was looked at already and cannot be mended now would be looked at for ever: only what has become worse is news.
			if (spareOf(health) < (suspects.get(id) ?? Number.POSITIVE_INFINITY)) this.#suspect(health, list, suspects);
		}
	}

	/** It is checked when its turn comes; until then it counts with what is known. */
	#suspect(health: SegmentHealth, list: HealList, suspects: Suspects): void {
		const spare = spareOf(health);
		suspects.set(health.segment.id, spare);
		list.add(health.segment.id, health.segment.liveBytes, spare, false);
	}

	/** A check that finds damage again is no news: what is beyond recovery would be looked at for ever. */
	async #checkDamaged(id: number): Promise<SegmentHealth | undefined> {
		const health = await this.#core.checkSegment(id);
		this.#core.store.forgetDamaged(id);
		return health;
	}

	#enlist(health: SegmentHealth, list: HealList, totals: Totals): void {
		const { segment, full, leaving, lost } = health;
		if (lost) this.#foundLost(health, totals);
		else if (this.#core.platform.simulation?.planted("healing-forgotten") || (full && leaving === 0)) return;
		else if (this.#isHopeless(health)) this.#count(health, totals);
		else list.add(segment.id, segment.liveBytes, spareOf(health), full);
	}

	/** Nothing can be bettered with the disks that there are now. */
	#isHopeless(health: SegmentHealth): boolean {
		const outlook = this.#core.store.outlook(health);
		return outlook === "no-disk" || (outlook === "awaited" && this.#asked === 0);
	}

	/** As it is now, when its turn has come. Answers the live bytes of what was rebuilt. */
	async #healNumber(id: number, suspects: Suspects, totals: Totals): Promise<number> {
		const segment = await this.#core.view((tx) => tx.get(segmentRecord, id));
		const isSuspected = suspects.has(id);
		const health = segment === undefined ? undefined : isSuspected ? await this.#checkDamaged(id) : this.#core.store.assess(segment);
		const isWhole = health?.full === true && health.leaving === 0;
		let rebuiltBytes = 0;
		if (health?.lost) this.#foundLost(health, totals);
		else if (health !== undefined && !isWhole) rebuiltBytes = await this.#healOne(health, totals, this.#asked === 0);
		if (isSuspected && (health === undefined || isWhole || rebuiltBytes > 0)) suspects.delete(id);
		else if (isSuspected && health !== undefined) suspects.set(id, spareOf(health));
		return rebuiltBytes;
	}

	/** Answers the live bytes of what was rebuilt. */
	async #healOne(health: SegmentHealth, totals: Totals, patient: boolean): Promise<number> {
		const { segment } = health;
		await this.#core.packed(segment.id);
		const unpin = this.#core.store.pin(segment.id);
		let retired: { readonly places: readonly FragmentPlace[]; readonly position: number } | undefined;
		let rebuiltBytes = 0;
		try {
			if (!(await isCurrent(this.#core, segment))) return 0;
			const rebuilt = await this.#core.store.rebuild(health, { patient });
			if (rebuilt === undefined) {
				this.#count(health, totals);
				return 0;
			}
			const position = await commitRebuilt(this.#core, segment, rebuilt);
			if (position === undefined) return 0;
			retired = { places: rebuilt.retired, position };
			await this.#core.engine.durable(position);
			totals.rebuiltSegments++;
			rebuiltBytes = segment.liveBytes;
			totals.rebuiltBytes += rebuiltBytes;
			const after = this.#core.store.assess(rebuilt.segment);
			// What comes next for it may need the room that this step gives.
			if (this.#count(after, totals)) this.#again = this.#lookAtAll = true;
		} catch (error) {
			this.#count(health, totals);
			this.#core.logger.warn("a segment could not be healed now", { segment: segment.id, error: toFsError(error, "volume.heal").message });
		} finally {
			unpin();
		}
		if (retired !== undefined) await this.#core.retire(retired.places, segment, retired.position);
		return rebuiltBytes;
	}

	#foundLost(health: SegmentHealth, totals: Totals): void {
		totals.lostBytes += health.segment.liveBytes;
		if (this.#lost.length < limits.salvagedSegments) this.#lost.push(health);
	}

	async #salvageLost(totals: Totals): Promise<void> {
		for (const health of this.#lost.splice(0)) {
			if (this.#stopped || this.#outdated || this.#care.now.healPaused) continue;
			const left = await this.salvage(health);
			this.#core.store.forgetDamaged(health.segment.id);
			totals.lostBytes -= Math.max(0, health.segment.liveBytes - left);
		}
	}

	/** H9. Answers how many of its live bytes are left in it. */
	async salvage({ segment, fragments }: SegmentHealth): Promise<number> {
		const state = JSON.stringify([segment.liveBytes, fragments]);
		if (this.#salvaged.get(segment.id) === state) return segment.liveBytes;
		try {
			const movedBytes = await salvage(this.#core, segment.id);
			if (movedBytes > 0) {
				this.#core.logger.warn("what a lost segment still gave was moved to safety", { segment: segment.id, movedBytes });
				this.#core.protectionChanged();
			}
			const left = await this.#core.view((tx) => tx.get(segmentRecord, segment.id));
			if (this.#salvaged.size >= limits.salvagedSegments) this.#salvaged.clear();
			if (left !== undefined) this.#salvaged.set(segment.id, JSON.stringify([left.liveBytes, fragments]));
			return left?.liveBytes ?? 0;
		} catch (error) {
			this.#core.logger.warn("what a lost segment still gives could not be moved to safety now", {
				segment: segment.id,
				error: toFsError(error, "volume.salvage").message,
			});
			return segment.liveBytes;
		}
	}

	/** True when something is still to be done for it. */
	#count({ segment, full, leaving }: SegmentHealth, totals: Totals): boolean {
		if (!full) totals.remainingBytes += segment.liveBytes;
		else if (leaving > 0) totals.leavingBytes += segment.liveBytes;
		return !full || leaving > 0;
	}

	/** Resolves when the run that is under way, if any, has ended. */
	async stop(): Promise<void> {
		this.#stopped = true;
		this.#cancelTick();
		await this.#run?.catch(() => {});
		if (this.#doneBytes > 0 && this.#care.now.healing !== undefined) await this.#save(false);
	}
}

/** How many more fragments may go before it is lost. */
function spareOf({ segment, fragments }: SegmentHealth): number {
	return fragments.filter((one) => one.state === "ok").length - segment.dataShards;
}

/** What died while its turn came has given its places back: reading them would find damage where there is none. */
export async function isCurrent(core: Core, segment: Segment): Promise<boolean> {
	const current = await core.view((tx) => tx.get(segmentRecord, segment.id));
	return current !== undefined && samePlaces(current.fragments, segment.fragments);
}

/** Lets the record of a segment name what `work` makes of it; false: nothing was made, or the segment changed meanwhile. H2. */
export async function replaceFragments(core: Core, segment: Segment, work: () => ReturnType<SegmentStore["move"]>): Promise<boolean> {
	await core.packed(segment.id);
	const unpin = core.store.pin(segment.id);
	let retired: { readonly places: readonly FragmentPlace[]; readonly position: number };
	try {
		if (!(await isCurrent(core, segment))) return false;
		const made = await work();
		if (made === undefined) return false;
		const position = await commitRebuilt(core, segment, made);
		if (position === undefined) return false;
		retired = { places: made.retired, position };
	} finally {
		unpin();
	}
	await core.retire(retired.places, segment, retired.position);
	return true;
}

type Position = Pick<FragmentPlace, "disk" | "pack" | "offset">;
type Made = Awaited<ReturnType<SegmentStore["move"]>> & object;

/** As `commitPlaces`; what was written belongs to the record then, or is given back. @throws FsError why it could not be committed. */
async function commitRebuilt(core: Core, before: Segment, made: Made): Promise<number | undefined> {
	let position: number | undefined;
	try {
		position = await commitPlaces(core, before, made.segment);
	} catch (error) {
		// A transaction whose outcome nobody told may have been made all the same. What cannot be told now is told when garbage is looked for.
		const now = await core.view((tx) => tx.get(segmentRecord, before.id)).catch(() => made.segment);
		if (!made.written.some((place) => now?.fragments.some((one) => isSamePlace(one, place))))
			core.store.abandonPlaces(before.id, made.written);
		throw error;
	}
	if (position === undefined) core.store.abandonPlaces(before.id, made.written);
	else core.store.settle(made.written);
	return position;
}

export function isSamePlace(a: Position, b: Position): boolean {
	return a.disk === b.disk && a.pack === b.pack && a.offset === b.offset;
}

/** The position of the commit, or undefined when the record changed its fragments or went away meanwhile. */
export async function commitPlaces(core: Core, before: Segment, after: Segment): Promise<number | undefined> {
	const { result, position } = await core.transact((tx) => {
		const current = tx.get(segmentRecord, before.id);
		if (current === undefined || !samePlaces(current.fragments, before.fragments)) return false;
		tx.put(segmentRecord, { ...after, liveBytes: current.liveBytes }, before.id);
		return true;
	});
	return result ? position : undefined;
}

export function samePlaces(a: readonly FragmentPlace[], b: readonly FragmentPlace[]): boolean {
	return (
		a.length === b.length &&
		a.every((place, i) => {
			const other = b[i];
			return (
				other !== undefined &&
				place.index === other.index &&
				place.generation === other.generation &&
				place.disk === other.disk &&
				place.pack === other.pack &&
				place.offset === other.offset
			);
		})
	);
}
