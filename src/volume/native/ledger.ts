/**
 * The redundancy ledger: of every protection level what was asked for, what was proven by reading, what is only written down, what is under-protected and why.
 *
 * Every byte is in exactly one of proven, recorded, degraded, lost. Proven: whole by the records, and each fragment was read from its disk and found right since it was written there.
 */
import { formatTime } from "../../base/time.ts";
import type { Clock } from "../../platform/interface.ts";
import type { Segment } from "../../records/interface.ts";
import type { SegmentHealth } from "../../storage/interface.ts";
import type { Core } from "./core.ts";
import { limits } from "./limits.ts";
import type { LedgerCause, LedgerLevel, LedgerShortage, LedgerSurvival } from "./interface.ts";

export interface SegmentsLedger {
	readonly levels: readonly LedgerLevel[];
	readonly shortages: readonly LedgerShortage[];
	readonly survival: readonly LedgerSurvival[];
	readonly provenBytes: number;
	readonly recordedBytes: number;
	readonly degradedBytes: number;
	readonly lostBytes: number;
	/** Of proven and recorded: what has still to leave a disk that is to be emptied. */
	readonly leavingBytes: number;
	readonly oldestProofAt: string | null;
}

interface Level {
	readonly redundancy: string;
	segments: number;
	wantedBytes: number;
	provenBytes: number;
	recordedBytes: number;
	degradedBytes: number;
	lostBytes: number;
	oldest: number;
}

interface Shortage {
	readonly cause: LedgerCause;
	segments: number;
	bytes: number;
	readonly disks: Set<number>;
}

interface Survival {
	readonly losses: number;
	recordedBytes: number;
	provenBytes: number;
}

/** Reads all segment records and their proofs; memory does not grow with them. */
export async function segmentsLedger(core: Core, healPaused: boolean): Promise<SegmentsLedger> {
	const sums = new Sums(core, healPaused);
	const proofsOf = core.proofs.reader();
	for await (const segment of core.segments()) sums.add(segment, core.store.assess(segment), await proofsOf(segment));
	return sums.result();
}

/**
 * The ledger for those who ask often. Counting a million segments takes seconds: such a count is kept for some time, unless disks, healing or a scrub have changed what it says, and who asks meanwhile shares it.
 */
export class LedgerBook {
	readonly #modules: LedgerBookModules;
	#kept: { readonly counted: CountedLedger; readonly version: number; readonly endMs: number; readonly tookMs: number } | undefined;
	#counting: { readonly promise: Promise<CountedLedger>; readonly version: number } | undefined;

	constructor(modules: LedgerBookModules) {
		this.#modules = modules;
	}

	get(): Promise<CountedLedger> {
		const nowMs = this.#modules.clock.monotonicMs();
		const kept = this.#kept;
		const version = this.#modules.version();
		const isSlow = kept !== undefined && kept.tookMs > limits.ledgerQuickMs;
		if (isSlow && kept.version === version && nowMs - kept.endMs < kept.tookMs * limits.ledgerRestTimes)
			return Promise.resolve(kept.counted);
		if (isSlow && this.#counting?.version === version) return this.#counting.promise;
		const promise = this.#count(version).finally(() => {
			if (this.#counting?.promise === promise) this.#counting = undefined;
		});
		this.#counting = { promise, version };
		return promise;
	}

	async #count(version: number): Promise<CountedLedger> {
		const { clock, count } = this.#modules;
		const startMs = clock.monotonicMs();
		const at = formatTime(clock.realtime());
		const counted = { at, ledger: await count() };
		const endMs = clock.monotonicMs();
		this.#kept = { counted, version, endMs, tookMs: endMs - startMs };
		return counted;
	}
}

export interface LedgerBookModules {
	readonly clock: Clock;
	/** Changes with everything that makes a count outdated at once. */
	readonly version: () => number;
	readonly count: () => Promise<SegmentsLedger>;
}

export interface CountedLedger {
	/** When the count began; ISO 8601. */
	readonly at: string;
	readonly ledger: SegmentsLedger;
}

/** Why a segment is not whole, or not where it should be. */
export function causeOf(core: Core, health: SegmentHealth, healPaused: boolean): LedgerCause {
	if (health.lost) return "lost";
	const outlook = core.store.outlook(health);
	if (outlook !== "possible") return outlook;
	return healPaused ? "paused" : "waiting";
}

class Sums {
	readonly #core: Core;
	readonly #healPaused: boolean;
	#leavingBytes = 0;
	readonly #levels = new Map<string, Level>();
	readonly #shortages = new Map<LedgerCause, Shortage>();
	readonly #survival = new Map<number, Survival>();

	constructor(core: Core, healPaused: boolean) {
		this.#core = core;
		this.#healPaused = healPaused;
	}

	add(segment: Segment, health: SegmentHealth, proven: ReadonlyMap<number, number>): void {
		const level = this.#level(segment.target);
		const bytes = segment.liveBytes;
		level.segments++;
		level.wantedBytes += bytes;
		this.#survives(segment, health, proven);
		if (health.lost) level.lostBytes += bytes;
		else if (!health.full) level.degradedBytes += bytes;
		else if (health.fragments.every(({ index }) => proven.has(index))) {
			level.provenBytes += bytes;
			level.oldest = Math.min(level.oldest, ...proven.values());
		} else level.recordedBytes += bytes;
		if (health.lost || !health.full) this.#falls(health);
		else if (health.leaving > 0) this.#leavingBytes += bytes;
	}

	#level(redundancy: string): Level {
		const known = this.#levels.get(redundancy);
		if (known !== undefined) return known;
		const sums = { segments: 0, wantedBytes: 0, provenBytes: 0, recordedBytes: 0, degradedBytes: 0, lostBytes: 0 };
		const level = { redundancy, ...sums, oldest: Number.POSITIVE_INFINITY };
		this.#levels.set(redundancy, level);
		return level;
	}

	#falls(health: SegmentHealth): void {
		const { segment } = health;
		const cause = causeOf(this.#core, health, this.#healPaused);
		const shortage = this.#shortages.get(cause) ?? { cause, segments: 0, bytes: 0, disks: new Set() };
		this.#shortages.set(cause, shortage);
		shortage.segments++;
		shortage.bytes += segment.liveBytes;
		for (const place of segment.fragments) if (this.#core.disks.readable(place.disk) === undefined) shortage.disks.add(place.disk);
	}

	/** How many more fragments may go before the data is lost. Two fragments on one domain count as two: the ledger is about fragments. */
	#survives(segment: Segment, health: SegmentHealth, proven: ReadonlyMap<number, number>): void {
		const good = health.fragments.filter((one) => one.state === "ok");
		const add = (losses: number, field: "recordedBytes" | "provenBytes"): void => {
			const at = Math.max(-1, losses);
			const sum = this.#survival.get(at) ?? { losses: at, recordedBytes: 0, provenBytes: 0 };
			this.#survival.set(at, sum);
			sum[field] += segment.liveBytes;
		};
		add(good.length - segment.dataShards, "recordedBytes");
		add(good.filter((one) => proven.has(one.index)).length - segment.dataShards, "provenBytes");
	}

	result(): SegmentsLedger {
		const levels = [...this.#levels.values()].sort((a, b) => (a.redundancy < b.redundancy ? -1 : 1));
		const total = (field: "provenBytes" | "recordedBytes" | "degradedBytes" | "lostBytes"): number =>
			levels.reduce((sum, level) => sum + level[field], 0);
		const oldest = levels.reduce((least, level) => Math.min(least, level.oldest), Number.POSITIVE_INFINITY);
		return {
			levels: levels.map(({ oldest: its, ...level }) => ({ ...level, oldestProofAt: timeOf(its) })),
			shortages: [...this.#shortages.values()].map(({ disks, ...one }) => ({
				...one,
				disks: [...disks].sort((a, b) => a - b).map((id) => `d${id}`),
			})),
			survival: [...this.#survival.values()].sort((a, b) => a.losses - b.losses),
			provenBytes: total("provenBytes"),
			recordedBytes: total("recordedBytes"),
			degradedBytes: total("degradedBytes"),
			lostBytes: total("lostBytes"),
			leavingBytes: this.#leavingBytes,
			oldestProofAt: timeOf(oldest),
		};
	}
}

/** Seconds since 1970 as people read them; infinity: never. */
export function timeOf(seconds: number | undefined): string | null {
	return seconds === undefined || !Number.isFinite(seconds) ? null : formatTime({ seconds, nanoseconds: 0 });
}
