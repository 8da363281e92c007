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
 *  H6 When disks fail during a run, or come, the rest of its list is dropped and a new one is made: what is most at risk now comes first.
 *  H7 Paused, it rebuilds nothing by itself; a run that is paused says what remains.
 *  H5 What could not be bettered is counted as remaining or lost, never as healed.
 */
import { Semaphore } from "../../base/async.ts";
import { toFsError } from "../../base/errors.ts";
import type { FragmentPlace, Segment } from "../../records/interface.ts";
import { segmentRecord } from "../../records/kinds.ts";
import type { SegmentHealth } from "../../storage/interface.ts";
import type { Care } from "./care.ts";
import type { Core } from "./core.ts";
import type { HealingStatus, HealOptions, HealResult, Progress } from "./interface.ts";
import { limits } from "./limits.ts";

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
	#stopped = false;
	#doneBytes = 0;
	#totalBytes = 0;
	#startedMs = 0;
	#endedMs = 0;
	/** What the last run could not heal and is not lost. */
	#leftBytes = 0;
	#cancelTick: () => void = () => {};
	readonly #listeners = new Set<(progress: Progress) => void>();

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
		const remainingBytes = Math.max(0, this.#totalBytes - this.#doneBytes);
		const active = this.#run !== undefined && remainingBytes > 0;
		const elapsed = this.#core.platform.clock.monotonicMs() - this.#startedMs;
		const known = active && this.#doneBytes > 0 && elapsed > 0;
		return {
			active,
			remainingBytes: active ? remainingBytes : 0,
			etaSeconds: known ? Math.ceil((remainingBytes * elapsed) / this.#doneBytes / 1000) : null,
			paused: this.#care.now.healPaused,
			tranquility: this.#care.now.tranquility,
		};
	}

	/** Begins to look for damage that reads have found, and to try again what could not be healed. */
	start(): void {
		this.#cancelTick = this.#core.platform.clock.after(limits.healTickMs, () => {
			const { clock } = this.#core.platform;
			const retry = this.#leftBytes > 0 && clock.monotonicMs() - this.#endedMs >= limits.healRetryMs;
			if (this.#core.store.damagedCount > 0 || retry) this.trigger();
			if (!this.#stopped) this.start();
		});
	}

	/** Something changed for the better or the worse: look at everything again soon. */
	trigger(): void {
		if (this.#stopped) return;
		if (this.#run !== undefined) {
			this.#again = true;
			return;
		}
		if (this.#care.now.healPaused) return;
		this.heal(() => {}).catch((error: unknown) => {
			this.#core.logger.error("healing stopped; it is tried again at the next change of the disks or by `cairn heal`", {
				error: toFsError(error, "volume.heal").message,
			});
		});
	}

	/** A disk changed: what is most at risk may be something else now. */
	disksChanged(): void {
		this.#outdated = true;
		this.trigger();
	}

	async configure({ paused, tranquility }: HealOptions): Promise<HealingStatus> {
		await this.#care.change((care) => ({
			...care,
			healPaused: paused ?? care.healPaused,
			tranquility: tranquility ?? care.tranquility,
		}));
		if (paused === false) this.trigger();
		return this.status;
	}

	/** One segment that somebody has just checked, at once. What could not be bettered is tried again later (H3). */
	async mend(health: SegmentHealth): Promise<void> {
		const totals: Totals = { rebuiltSegments: 0, rebuiltBytes: 0, remainingBytes: 0, leavingBytes: 0, lostBytes: 0 };
		await this.#healOne(health, totals);
		this.#leftBytes += totals.remainingBytes + totals.leavingBytes;
	}

	/** Resolves when nothing more can be done with the disks there are now, or when the healer is paused. */
	async heal(onProgress: (progress: Progress) => void): Promise<HealResult> {
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
		this.#run = this.#runOnce().finally(() => {
			this.#run = undefined;
		});
		return this.#run;
	}

	async #runOnce(): Promise<Totals> {
		const totals: Totals = { rebuiltSegments: 0, rebuiltBytes: 0, remainingBytes: 0, leavingBytes: 0, lostBytes: 0 };
		this.#outdated = false;
		const work = await this.#findWork(totals);
		this.#doneBytes = 0;
		this.#totalBytes = work.reduce((sum, item) => sum + item.segment.liveBytes, 0);
		this.#startedMs = this.#core.platform.clock.monotonicMs();
		this.#tell();
		const gate = new Semaphore(limits.healsAtOnce);
		await Promise.all(
			work.map((health) =>
				gate.run(async () => {
					if (this.#stopped || this.#outdated || this.#care.now.healPaused) {
						this.#count(health, totals);
						return;
					}
					const startMs = this.#core.platform.clock.monotonicMs();
					await this.#healOne(health, totals);
					this.#doneBytes += health.segment.liveBytes;
					this.#tell();
					await this.#rest(this.#core.platform.clock.monotonicMs() - startMs);
				}),
			),
		);
		if (this.#outdated) this.#again = true;
		this.#leftBytes = totals.remainingBytes + totals.leavingBytes;
		this.#endedMs = this.#core.platform.clock.monotonicMs();
		return totals;
	}

	/** In steps, so that a change of mind is noticed. */
	async #rest(workedMs: number): Promise<void> {
		const { clock } = this.#core.platform;
		const endMs = clock.monotonicMs() + workedMs * this.#care.now.tranquility;
		const isTold = (): boolean => this.#stopped || this.#outdated || this.#care.now.healPaused || this.#care.now.tranquility === 0;
		const isOver = (): boolean => isTold() || clock.monotonicMs() >= endMs;
		while (!isOver()) await clock.sleep(Math.min(limits.healRestStepMs, Math.max(1, endMs - clock.monotonicMs())));
	}

	#tell(): void {
		for (const listener of this.#listeners) listener({ doneBytes: this.#doneBytes, totalBytes: this.#totalBytes });
	}

	async #findWork(totals: Totals): Promise<SegmentHealth[]> {
		const damaged = new Set(this.#core.store.takeDamaged());
		const work: SegmentHealth[] = [];
		for await (const segment of this.#core.segments()) {
			const health = damaged.has(segment.id) ? await this.#core.checkSegment(segment.id) : this.#core.store.assess(segment);
			if (health === undefined) continue;
			if (health.lost) totals.lostBytes += segment.liveBytes;
			else if (this.#core.platform.simulation?.planted("healing-forgotten")) continue;
			else if (!health.full || health.leaving > 0) work.push(health);
		}
		const spare = (health: SegmentHealth): number =>
			health.fragments.filter((one) => one.state === "ok").length - health.segment.dataShards;
		return work.sort((a, b) => Number(a.full) - Number(b.full) || spare(a) - spare(b));
	}

	async #healOne(health: SegmentHealth, totals: Totals): Promise<void> {
		const { segment } = health;
		await this.#core.packed(segment.id);
		const unpin = this.#core.store.pin(segment.id);
		let retired: readonly FragmentPlace[] = [];
		try {
			if (!(await isCurrent(this.#core, segment))) return;
			const rebuilt = await this.#core.store.rebuild(health);
			if (rebuilt === undefined) {
				this.#count(health, totals);
				return;
			}
			const position = await commitPlaces(this.#core, segment, rebuilt.segment);
			if (position === undefined) {
				this.#core.store.abandonPlaces(segment.id, rebuilt.written);
				return;
			}
			await this.#core.engine.durable(position);
			retired = rebuilt.retired;
			totals.rebuiltSegments++;
			totals.rebuiltBytes += segment.liveBytes;
			const after = this.#core.store.assess(rebuilt.segment);
			// What comes next for it may need the room that this step gives.
			if (this.#count(after, totals)) this.#again = true;
		} catch (error) {
			this.#count(health, totals);
			this.#core.logger.warn("a segment could not be healed now", { segment: segment.id, error: toFsError(error, "volume.heal").message });
		} finally {
			unpin();
		}
		if (retired.length > 0) await this.#core.store.release(retired, segment);
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
	}
}

/** What died while its turn came has given its places back: reading them would find damage where there is none. */
export async function isCurrent(core: Core, segment: Segment): Promise<boolean> {
	const current = await core.view((tx) => tx.get(segmentRecord, segment.id));
	return current !== undefined && samePlaces(current.fragments, segment.fragments);
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
