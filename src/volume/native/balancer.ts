/**
 * Moves fragments until all disks have the same free space left, because somebody asked for it: after a disk was added, or where files were removed unevenly.
 *
 * Invariants
 *  B1 That somebody wants it is in the care record until it has come to its end or is called off. How far it is, the records of the segments say: a mount goes on.
 *  B2 It works by the healer's budget (tranquility, pause), and only while the healer has nothing to do.
 *  B3 As in healing: the copy is durable before the transaction that names it, and the old place is given back when that is durable.
 *  B4 Each move lowers Σ surplus² (storage/balance.ts): without writers it ends; when a whole pass has moved nothing it has ended.
 */
import { toFsError, FsError } from "../../base/errors.ts";
import type { Segment } from "../../records/interface.ts";
import { bestMove, type DiskTarget, type FragmentMove, toleratedBytes, unevenBytes } from "../../storage/balance.ts";
import { fragmentLength } from "../../storage/fragment.ts";
import type { SpaceChange } from "../../storage/interface.ts";
import type { Care } from "./care.ts";
import type { Core } from "./core.ts";
import { type Healer, replaceFragments } from "./healer.ts";
import { lanesAt, secondsFor, SpeedMeter } from "./heal-speed.ts";
import type { BalancePlan, BalanceResult, BalanceVerbs, BalancingStatus, Progress } from "./interface.ts";
import { timeOf } from "./ledger.ts";
import { limits } from "./limits.ts";
import { nowAndAfter, preview, survey } from "./previews.ts";

/** What all segments take on the disks. */
interface Measure {
	readonly fragments: number;
	readonly bytes: number;
	/** The longest fragment; and one of each segment together. */
	readonly longestBytes: number;
	readonly mostBytes: number;
}

/** Of what one way through all segments did. */
interface Pass {
	moved: number;
	failed: number;
}

export class Balancer implements BalanceVerbs {
	readonly #core: Core;
	readonly #care: Care;
	readonly #healer: Healer;
	#run: Promise<void> | undefined;
	#stopped = false;
	#measure: Measure = { fragments: 0, bytes: 0, longestBytes: 0, mostBytes: 0 };
	/** Bytes beyond what each disk is to hold, as of `#aimedMs` and the moves since. */
	#surplus = new Map<number, number>();
	#targets: readonly DiskTarget[] = [];
	#aimedMs = Number.NEGATIVE_INFINITY;
	/** Since the care record was written. */
	#movedBytes = 0;
	#savedMs = 0;
	#speed: SpeedMeter | undefined;
	#trouble = "";
	#cancelled = false;
	/** Simulations have too little data to be uneven by the usual measure. */
	#isPedantic = false;
	#cancelRetry: () => void = () => {};
	#last: Omit<BalanceResult, "paused" | "cancelled"> = { isEven: true, movedBytes: 0, leftBytes: 0 };

	constructor(core: Core, care: Care, healer: Healer) {
		this.#core = core;
		this.#care = care;
		this.#healer = healer;
	}

	get #isWanted(): boolean {
		return this.#care.now.balancing !== undefined;
	}

	get status(): BalancingStatus {
		const { balancing } = this.#care.now;
		if (balancing === undefined)
			return { active: false, startedAt: null, movedBytes: 0, remainingBytes: 0, etaSeconds: null, waitingFor: "" };
		const remainingBytes = this.#workBytes(this.#targets);
		return {
			active: true,
			startedAt: timeOf(balancing.startedAt),
			movedBytes: balancing.doneBytes + this.#movedBytes,
			remainingBytes,
			etaSeconds: this.#secondsFor(remainingBytes) ?? null,
			waitingFor: this.#waitingFor(),
		};
	}

	#waitingFor(): string {
		if (this.#care.now.healPaused) return "the healer is paused, by whose budget it works: cairn heal NAME --resume";
		if (this.#healer.status.active) return "what is under-protected or has to leave a disk comes first";
		return this.#trouble;
	}

	#secondsFor(bytes: number): number | undefined {
		const { balanceSpeed, tranquility } = this.#care.now;
		const speed = this.#speed?.speed ?? balanceSpeed;
		const count = this.#countOf(bytes);
		return speed === undefined ? this.#healer.secondsFor(count, bytes) : secondsFor(speed, count, bytes, tranquility);
	}

	/** Fragments that make up so many bytes. */
	#countOf(bytes: number): number {
		return this.#measure.bytes === 0 ? 0 : Math.ceil((bytes * this.#measure.fragments) / this.#measure.bytes);
	}

	// ── verbs ────────────────────────────────────────────────────────────────────────────────────────────────────

	async plan(): Promise<BalancePlan> {
		await this.#core.store.refreshSpace();
		await this.#look();
		const now = this.#core.store.space();
		const { targets, space } = this.#core.store.balance(this.#measure.mostBytes);
		const isEven = this.#isEven(targets);
		const bytes = isEven ? 0 : this.#workBytes(targets);
		const then = isEven ? now : space;
		const seen = await survey(this.#core, undefined);
		const about = { segments: this.#countOf(bytes), payloadBytes: bytes };
		const seconds = this.#secondsFor(bytes);
		const work =
			bytes === 0 || seconds === undefined
				? await preview(this.#core, this.#healer, { ...about, samples: seen.samples })
				: { ...about, seconds, basis: "measured" as const };
		const after = new Map(then.disks.map((disk) => [disk.id, disk.freeBytes]));
		const target = new Map(targets.map(({ id, targetBytes }) => [id, targetBytes]));
		return {
			isEven,
			work,
			survives: nowAndAfter(seen.survives, seen.survives),
			disks: now.disks.map(({ id, freeBytes }) => ({ disk: `d${id}`, freeBytes: nowAndAfter(freeBytes, after.get(id) ?? freeBytes) })),
			usedBytes: now.disks.map(({ id, usedBytes }) => ({
				disk: `d${id}`,
				usedBytes: nowAndAfter(usedBytes, isEven ? usedBytes : (target.get(id) ?? usedBytes)),
			})),
			capacityBytes: nowAndAfter(now.capacityBytes, then.capacityBytes),
			freeBytes: nowAndAfter(this.#unpromised(now.freeBytes), this.#unpromised(then.freeBytes)),
			running: this.#isWanted,
		};
	}

	#unpromised(freeBytes: number): number {
		return Math.max(0, freeBytes - this.#core.reservedBytes);
	}

	/** Raw bytes that it would be worth to move, with these disks besides; 0: none. */
	async worthBytes(added: SpaceChange["added"] = []): Promise<number> {
		await this.#look();
		const { targets } = this.#core.store.balance(this.#measure.mostBytes, added);
		return this.#isEven(targets) ? 0 : this.#workBytes(targets);
	}

	async begin(): Promise<BalancingStatus> {
		this.#cancelled = false;
		const startedAt = Math.max(1, this.#core.platform.clock.realtime().seconds);
		await this.#care.change((care) => (care.balancing === undefined ? { ...care, balancing: { startedAt, doneBytes: 0 } } : care));
		await this.#core.engine.durable(this.#core.engine.position);
		this.#goOn();
		return this.status;
	}

	async over(onProgress: (progress: Progress) => void): Promise<BalanceResult> {
		const { clock } = this.#core.platform;
		while (this.#isWanted && !this.#stopped && !this.#care.now.healPaused) {
			const { movedBytes, remainingBytes } = this.status;
			onProgress({ doneBytes: movedBytes, totalBytes: movedBytes + remainingBytes });
			await clock.sleep(limits.drainPollMs);
		}
		if (this.#stopped)
			throw new FsError("ENOTCONN", "volume.balance-unmounted", "the volume is unmounted; the balance goes on at the next mount");
		await this.#core.store.refreshSpace();
		const { targets } = this.#core.store.balance(this.#measure.mostBytes);
		const open = this.#isWanted
			? { isEven: this.#isEven(targets), movedBytes: this.status.movedBytes, leftBytes: unevenBytes(targets) }
			: this.#last;
		return { ...open, paused: this.#isWanted && this.#care.now.healPaused, cancelled: !this.#isWanted && this.#cancelled };
	}

	async cancel(): Promise<BalancingStatus> {
		if (!this.#isWanted) throw new FsError("REFUSED", "volume.balance-not", "no balance is under way");
		this.#cancelled = true;
		await this.#end();
		await this.#core.engine.durable(this.#core.engine.position);
		return this.status;
	}

	// ── the work ─────────────────────────────────────────────────────────────────────────────────────────────────

	/** The care record is loaded. */
	start(): void {
		if (this.#isWanted) this.#goOn();
	}

	#goOn(): void {
		if (this.#run !== undefined || this.#stopped) return;
		this.#cancelRetry();
		this.#run = this.#work().then(
			() => {
				this.#run = undefined;
				// Asked for again while it ended.
				if (this.#isWanted) this.#goOn();
			},
			(error: unknown) => {
				this.#run = undefined;
				const { message } = toFsError(error, "volume.balance");
				this.#trouble = message;
				this.#core.logger.warn("the balance stopped; it is tried again", { error: message });
				if (!this.#stopped) this.#cancelRetry = this.#core.platform.clock.after(limits.balanceRetryMs, () => this.start());
			},
		);
	}

	async #work(): Promise<void> {
		const { clock } = this.#core.platform;
		this.#trouble = "";
		this.#isPedantic = this.#core.platform.simulation !== undefined;
		this.#savedMs = clock.monotonicMs();
		const before = this.#speed?.speed ?? this.#care.now.balanceSpeed;
		this.#speed = new SpeedMeter({ windowMs: limits.healSpeedMs, pieceBytes: limits.healPieceBytes, before });
		let leastBytes = Number.POSITIVE_INFINITY;
		for (let failures = 0, vain = 0; this.#mayWork; ) {
			await this.#turn();
			await this.#look();
			await this.#aim();
			if (this.#isEven(this.#targets) || !this.#mayWork) break;
			// Aims follow what disks say they have left, which is counted in larger pieces than fragments: the last of it could be moved to and fro for ever.
			const leftBytes = unevenBytes(this.#targets);
			vain = leftBytes < leastBytes ? 0 : vain + 1;
			leastBytes = Math.min(leastBytes, leftBytes);
			if (vain > limits.balanceVainRounds) break;
			const direct = await this.#pass(undefined);
			const pass = direct.moved > 0 || this.#isEven(this.#targets) ? direct : await this.#pass(0);
			if (pass.moved > 0) failures = 0;
			else if (pass.failed === 0 || ++failures > limits.balanceRetries) break;
			else await this.#sleep(limits.balanceRetryMs);
			await this.#save();
		}
		this.#isPedantic = false;
		if (this.#mayWork) await this.#end();
	}

	get #mayWork(): boolean {
		return this.#isWanted && !this.#stopped;
	}

	/** B2. */
	async #turn(): Promise<void> {
		while (this.#mayWork && (this.#care.now.healPaused || this.#healer.status.active))
			await this.#core.platform.clock.sleep(limits.healRestStepMs);
	}

	async #sleep(ms: number): Promise<void> {
		const { clock } = this.#core.platform;
		const endMs = clock.monotonicMs() + ms;
		while (this.#mayWork && clock.monotonicMs() < endMs)
			await clock.sleep(Math.min(limits.healRestStepMs, Math.max(1, endMs - clock.monotonicMs())));
	}

	async #look(): Promise<void> {
		let fragments = 0;
		let bytes = 0;
		let longestBytes = 0;
		let mostBytes = 0;
		for await (const segment of this.#core.segments()) {
			const length = fragmentLength(segment.shardBytes);
			fragments += segment.fragments.length;
			bytes += segment.fragments.length * length;
			longestBytes = Math.max(longestBytes, length);
			mostBytes += length;
			if (this.#stopped) return;
		}
		this.#measure = { fragments, bytes, longestBytes, mostBytes };
	}

	async #aim(): Promise<void> {
		await this.#core.store.refreshSpace();
		this.#targets = this.#core.store.balance(this.#measure.mostBytes).targets;
		this.#surplus = new Map(this.#targets.map(({ id, usedBytes, targetBytes }) => [id, usedBytes - targetBytes]));
		this.#aimedMs = this.#core.platform.clock.monotonicMs();
	}

	#isEven(targets: readonly DiskTarget[]): boolean {
		return targets.every(
			({ usedBytes, freeBytes, targetBytes }) => Math.abs(usedBytes - targetBytes) <= this.#tolerance(usedBytes + freeBytes),
		);
	}

	/** Raw bytes that move before no disk is further from its target than is tolerated. */
	#workBytes(targets: readonly DiskTarget[]): number {
		return toleratedBytes(targets, (sizeBytes) => this.#tolerance(sizeBytes));
	}

	#tolerance(sizeBytes: number): number {
		if (this.#isPedantic) return 0;
		return Math.max(2 * this.#measure.longestBytes, sizeBytes * limits.balanceTolerance);
	}

	/** Once through all segments. With a detour moves go by way of disks that are right, where nothing else helps. */
	async #pass(detourBytes: number | undefined): Promise<Pass> {
		const pass: Pass = { moved: 0, failed: 0 };
		const segments = this.#core.segments();
		const count = lanesAt(this.#care.now.tranquility);
		const lanes = Array.from({ length: count }, (_, lane) => this.#lane(lane, segments, detourBytes, pass));
		try {
			await Promise.all(lanes);
		} finally {
			await Promise.allSettled(lanes);
			await this.#aim();
			this.#core.protectionChanged();
		}
		return pass;
	}

	async #lane(lane: number, segments: AsyncGenerator<Segment>, detourBytes: number | undefined, pass: Pass): Promise<void> {
		const { clock } = this.#core.platform;
		for (;;) {
			const { value: segment, done } = await segments.next();
			if (done === true || !this.#mayWork || lane >= lanesAt(this.#care.now.tranquility)) return;
			if (this.#choose(segment, detourBytes) === undefined) continue;
			await this.#turn();
			if (clock.monotonicMs() - this.#aimedMs >= limits.balanceAimMs) await this.#aim();
			if (this.#isEven(this.#targets)) return;
			const startMs = clock.monotonicMs();
			const movedBytes = await this.#move(segment, this.#choose(segment, detourBytes), pass);
			const workedMs = clock.monotonicMs() - startMs;
			if (movedBytes > 0) this.#speed?.done(movedBytes, workedMs / lanesAt(this.#care.now.tranquility));
			await this.#sleep(workedMs * this.#care.now.tranquility);
			if (clock.monotonicMs() - this.#savedMs >= limits.healSaveMs) await this.#save();
		}
	}

	#choose(segment: Segment, detourBytes: number | undefined): FragmentMove | undefined {
		if (segment.fragments.length < segment.dataShards + segment.parityShards) return undefined;
		const lengthBytes = fragmentLength(segment.shardBytes);
		const isOff = (disk: number): boolean => {
			const target = this.#targets.find(({ id }) => id === disk);
			return target !== undefined && Math.abs(this.#surplus.get(disk) ?? 0) > this.#tolerance(target.usedBytes + target.freeBytes);
		};
		const move = bestMove(segment.fragments, {
			lengthBytes,
			surplus: this.#surplus,
			domainOf: (disk) => this.#core.store.domainOf(disk),
			detourBytes,
		});
		if (move === undefined) return undefined;
		// What is right already is not touched for the last few bytes.
		return isOff(move.from) || isOff(move.to) ? move : undefined;
	}

	/** Answers the raw bytes that were moved. */
	async #move(segment: Segment, move: FragmentMove | undefined, pass: Pass): Promise<number> {
		if (move === undefined) return 0;
		const lengthBytes = fragmentLength(segment.shardBytes);
		this.#shift(move, lengthBytes);
		try {
			if (await replaceFragments(this.#core, segment, () => this.#core.store.move(segment, move.index, move.to))) {
				pass.moved++;
				this.#movedBytes += lengthBytes;
				this.#trouble = "";
				return lengthBytes;
			}
		} catch (error) {
			const { message } = toFsError(error, "volume.balance-move");
			this.#core.logger.warn("a fragment could not be moved now", { segment: segment.id, from: move.from, to: move.to, error: message });
			this.#trouble = message;
			pass.failed++;
		}
		this.#shift(move, -lengthBytes);
		return 0;
	}

	#shift({ from, to }: FragmentMove, lengthBytes: number): void {
		this.#surplus.set(from, (this.#surplus.get(from) ?? 0) - lengthBytes);
		this.#surplus.set(to, (this.#surplus.get(to) ?? 0) + lengthBytes);
	}

	async #save(): Promise<void> {
		this.#savedMs = this.#core.platform.clock.monotonicMs();
		const movedBytes = this.#movedBytes;
		this.#movedBytes = 0;
		const speed = this.#speed?.speed;
		try {
			await this.#care.change((care) => ({
				...care,
				balanceSpeed: speed ?? care.balanceSpeed,
				balancing: care.balancing && { ...care.balancing, doneBytes: care.balancing.doneBytes + movedBytes },
			}));
		} catch (error) {
			this.#movedBytes += movedBytes;
			this.#core.logger.warn("how far the balance came could not be written down", {
				error: toFsError(error, "volume.balance-save").message,
			});
		}
	}

	/** It is over, or called off. */
	async #end(): Promise<void> {
		const { movedBytes } = this.status;
		this.#last = { isEven: this.#isEven(this.#targets), movedBytes, leftBytes: unevenBytes(this.#targets) };
		const speed = this.#speed?.speed;
		await this.#care.change((care) => ({ ...care, balancing: undefined, balanceSpeed: speed ?? care.balanceSpeed }));
		this.#movedBytes = 0;
		this.#core.logger.info("the balance is over", { ...this.#last });
	}

	/** Resolves when nothing of this is under way any more. */
	async stop(): Promise<void> {
		this.#stopped = true;
		this.#cancelRetry();
		await this.#run;
		if (this.#movedBytes > 0 && this.#isWanted) await this.#save();
	}
}
