/** What operators see of the locks, as JSON. */
import { shownText } from "../../base/bytes.ts";
import { type FileLocks, type HeldLease, type HeldLock, type HeldShare, type LockFigures, remoteNumber } from "../../locks/file-locks.ts";
import { type Histogram, histogramMs, type Owner } from "../../locks/interface.ts";
import { leaseBits, share } from "../../locks/matrix.ts";
import { type Position, type Range, toEnd } from "../../locks/range.ts";
import type { DurableOpen } from "../interface.ts";
import type {
	DurableStatus,
	HistogramStatus,
	ListedDurable,
	ListedLease,
	ListedLock,
	ListedShare,
	LockList,
	LockStatus,
} from "./interface.ts";
import { limits } from "./limits.ts";

/** Exact: beyond 2^53 a text of digits. */
const shown = (value: Position): number | string => (typeof value === "number" ? value : String(value));

/** Name and address of a client elsewhere, by its number. */
type NameOf = (client: number) => string | undefined;

function listed({ ino, family, exclusive, range, owner, ageMs }: HeldLock, nameOf: NameOf): ListedLock {
	return {
		ino,
		family,
		kind: exclusive ? "exclusive" : "shared",
		...ends(range),
		...shownOwner(owner, nameOf),
		pid: owner.pid,
		ageSeconds: Math.round(ageMs) / 1000,
	};
}

function shownOwner(
	{ id, door, client }: Owner,
	nameOf: NameOf,
): { readonly owner: string; readonly door: string; readonly client: string } {
	const elsewhere = door === "nfs" ? nameOf(remoteNumber(client)) : undefined;
	return { owner: id, door, client: elsewhere === undefined ? client : shownText(elsewhere) };
}

function bitNames(names: Readonly<Record<string, number>>, bits: number): readonly string[] {
	return Object.entries(names).flatMap(([name, bit]) => ((bits & bit) === 0 ? [] : [name]));
}

function listedShare({ ino, owner, access, deny }: HeldShare, nameOf: NameOf): ListedShare {
	return { ino, access: bitNames(share, access), deny: bitNames(share, deny), ...shownOwner(owner, nameOf) };
}

function listedLease({ ino, owner, family, state, breakingTo, waiting }: HeldLease, nameOf: NameOf): ListedLease {
	const left = breakingTo === undefined ? null : bitNames(leaseBits, breakingTo);
	return { ino, family, caches: bitNames(leaseBits, state), breakingTo: left, waiting, ...shownOwner(owner, nameOf) };
}

function ends({ start, end }: Range): { readonly start: number | string; readonly end: number | string | null } {
	return { start: shown(start), end: end === toEnd ? null : shown(end) };
}

function listedDurable(open: DurableOpen): ListedDurable {
	const { ino, persistent, connected, access, deny, leaseState, ranges, owner, clientGuid, createGuid, ageMs, leftMs } = open;
	return {
		ino,
		kind: persistent ? "persistent" : "durable",
		state: connected ? "connected" : "waiting",
		access: bitNames(share, access),
		deny: bitNames(share, deny),
		caches: bitNames(leaseBits, leaseState),
		ranges,
		owner,
		door: "smb",
		client: clientGuid,
		createGuid,
		ageSeconds: Math.round(ageMs) / 1000,
		leftSeconds: leftMs === undefined ? null : Math.round(leftMs) / 1000,
	};
}

export function lockList(locks: FileLocks, durable: readonly DurableOpen[], nameOf: NameOf, ino: number | undefined): LockList {
	const { held, waiting } = locks.list(limits.listedLocks, ino);
	const { shares, leases } = locks.listBound(limits.listedLocks, ino);
	const all = locks.figures();
	return {
		durable: durable.slice(0, limits.listedLocks).map(listedDurable),
		shares: shares.map((one) => listedShare(one, nameOf)),
		leases: leases.map((one) => listedLease(one, nameOf)),
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

export function lockStatus(
	{ held, waiting, files, shares, leases, counters }: LockFigures,
	durable: DurableStatus,
	reclaims: LockStatus["reclaims"],
): LockStatus {
	const { blocked, conflicts, cancelled, deadlocks, overLimit, timedOut, broken } = counters;
	return {
		durable,
		reclaims: { ...reclaims },
		held,
		shares,
		leases,
		waiting,
		files,
		acquired: Object.fromEntries(counters.acquired),
		released: Object.fromEntries(counters.released),
		refused: { blocked, conflicts, cancelled, deadlocks, overLimit, timedOut, broken },
		waits: histogram(counters.waitMs),
		holds: histogram(counters.holdMs),
	};
}
