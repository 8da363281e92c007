/** What operators see of the locks, as JSON. */
import { shownText } from "../../base/bytes.ts";
import { type FileLocks, type HeldLock, type LockFigures, remoteNumber } from "../../locks/file-locks.ts";
import { type Histogram, histogramMs } from "../../locks/interface.ts";
import { type Position, type Range, toEnd } from "../../locks/range.ts";
import type { HistogramStatus, ListedLock, LockList, LockStatus } from "./interface.ts";
import { limits } from "./limits.ts";

/** Exact: beyond 2^53 a text of digits. */
const shown = (value: Position): number | string => (typeof value === "number" ? value : String(value));

/** Name and address of a client elsewhere, by its number. */
type NameOf = (client: number) => string | undefined;

function listed({ ino, family, exclusive, range, owner, ageMs }: HeldLock, nameOf: NameOf): ListedLock {
	const elsewhere = owner.door === "nfs" ? nameOf(remoteNumber(owner.client)) : undefined;
	return {
		ino,
		family,
		kind: exclusive ? "exclusive" : "shared",
		...ends(range),
		owner: owner.id,
		door: owner.door,
		client: elsewhere === undefined ? owner.client : shownText(elsewhere),
		pid: owner.pid,
		ageSeconds: Math.round(ageMs) / 1000,
	};
}

function ends({ start, end }: Range): { readonly start: number | string; readonly end: number | string | null } {
	return { start: shown(start), end: end === toEnd ? null : shown(end) };
}

export function lockList(locks: FileLocks, nameOf: NameOf, ino: number | undefined): LockList {
	const { held, waiting } = locks.list(limits.listedLocks, ino);
	const all = locks.figures();
	return {
		held: held.map((one) => listed(one, nameOf)),
		waiting: waiting.map((one) => ({ ...listed(one, nameOf), waitsFor: one.waitsFor })),
		totalHeld: all.held,
		totalWaiting: all.waiting,
	};
}

function histogram({ counts, sumMs, count }: Histogram): HistogramStatus {
	let sum = 0;
	const buckets = histogramMs.map((ms, at) => {
		sum += counts[at] ?? 0;
		return { seconds: ms / 1000, count: sum };
	});
	return { buckets, sumSeconds: sumMs / 1000, count };
}

export function lockStatus({ held, waiting, files, counters }: LockFigures): LockStatus {
	const { blocked, conflicts, cancelled, deadlocks, overLimit, timedOut, broken } = counters;
	return {
		held,
		waiting,
		files,
		acquired: Object.fromEntries(counters.acquired),
		released: Object.fromEntries(counters.released),
		refused: { blocked, conflicts, cancelled, deadlocks, overLimit, timedOut, broken },
		waits: histogram(counters.waitMs),
		holds: histogram(counters.holdMs),
	};
}
