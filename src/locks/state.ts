/**
 * The table: what is held, open, leased and waited for, by inode.
 *
 * Invariants
 *  L1 No two holds stand in each other's way by the matrix (except what was restored, or broken open by an operator's word: never the first).
 *  L2 Of one owner the ranges of fcntl, flock and NFS do not overlap, and those of one class do not touch; there is one flock at most.
 *  L3 A resource is in the table exactly while something is in it.
 *  L4 `total` and `byClient` count the holds; `waiters` and `waitersByOwner` hold what the queues hold.
 *  L5 A queue is in the order of arrival.
 */
import { assert } from "../base/assert.ts";
import type { Hold, LockCounters, Owner, Request } from "./interface.ts";
import { histogramMs } from "./interface.ts";
import type { Histogram } from "./interface.ts";
import type { LockLimits } from "./limits.ts";
import type { LeaseEvent, LeaseFamily, LockClass, Mode, Sharing } from "./matrix.ts";

export interface Waiter {
	readonly request: Request;
	readonly sinceMs: number;
}

export interface OpenEntry {
	readonly id: string;
	readonly owner: Owner;
	readonly sharing: Sharing;
	/** Its handle, where it and what is locked through it give way to others. */
	readonly yields?: number | undefined;
	/** It was told to. */
	told?: boolean;
}

export interface ModeHold {
	readonly owner: Owner;
	readonly mode: Mode;
	readonly sinceMs: number;
}

export interface OperationEntry {
	readonly id: string;
	readonly owner: Owner;
	readonly event: LeaseEvent;
	readonly leaseKey: string | undefined;
	/** Bits of `share` that opens may deny. */
	readonly access: number;
}

export interface Lease {
	readonly key: string;
	readonly owner: Owner;
	readonly family: LeaseFamily;
	state: number;
	epoch: number;
	/** Where a break under way leads in the end, and what its holder was told. */
	breaking: { to: number; told: number; deadlineMs: number } | undefined;
}

export interface Resource {
	readonly ino: number;
	holds: Hold[];
	opens: OpenEntry[];
	modes: ModeHold[];
	leases: Lease[];
	operations: OperationEntry[];
	queue: Waiter[];
	/** Nobody gets a lease before. */
	quietUntilMs: number;
}

export interface LockState {
	readonly limits: LockLimits;
	/** A bug that is planted: who makes an exclusive lock of a shared one is not held against those who share it. */
	readonly upgradesBlindly: boolean;
	readonly resources: Map<number, Resource>;
	readonly waiters: Map<string, Waiter>;
	readonly waitersByOwner: Map<string, Set<Waiter>>;
	readonly byClient: Map<string, number>;
	total: number;
	readonly counters: LockCounters;
}

const histogram = (): Histogram => ({ counts: [...histogramMs, 0].map(() => 0), sumMs: 0, count: 0 });

export function createLockState(limits: LockLimits, upgradesBlindly = false): LockState {
	return {
		limits,
		upgradesBlindly,
		resources: new Map(),
		waiters: new Map(),
		waitersByOwner: new Map(),
		byClient: new Map(),
		total: 0,
		counters: {
			acquired: new Map<LockClass, number>(),
			released: new Map<LockClass, number>(),
			blocked: 0,
			conflicts: 0,
			cancelled: 0,
			deadlocks: 0,
			overLimit: 0,
			timedOut: 0,
			broken: 0,
			waitMs: histogram(),
			holdMs: histogram(),
		},
	};
}

export function observe(into: Histogram, ms: number): void {
	const at = histogramMs.findIndex((upper) => ms <= upper);
	const place = at === -1 ? histogramMs.length : at;
	into.counts[place] = (into.counts[place] ?? 0) + 1;
	into.sumMs += ms;
	into.count++;
}

/** It is in the table from here on; `tidy` takes it out again when nothing came into it. */
export function resourceOf(state: LockState, ino: number): Resource {
	let resource = state.resources.get(ino);
	if (resource === undefined) {
		resource = { ino, holds: [], opens: [], modes: [], leases: [], operations: [], queue: [], quietUntilMs: 0 };
		state.resources.set(ino, resource);
	}
	return resource;
}

export function tidy(state: LockState, resource: Resource, nowMs: number): void {
	const { holds, opens, modes, leases, operations, queue } = resource;
	const used = holds.length + opens.length + modes.length + leases.length + operations.length + queue.length;
	if (used === 0 && resource.quietUntilMs <= nowMs) state.resources.delete(resource.ino);
}

/** The only place where holds change. */
export function setHolds(state: LockState, resource: Resource, holds: Hold[]): void {
	const before = new Set(resource.holds);
	for (const hold of holds) if (!before.delete(hold)) countClient(state, hold.owner.client, 1);
	for (const hold of before) countClient(state, hold.owner.client, -1);
	state.total += holds.length - resource.holds.length;
	resource.holds = holds;
}

function countClient(state: LockState, client: string, change: number): void {
	const count = (state.byClient.get(client) ?? 0) + change;
	assert(count >= 0, "L4: no more locks go than came");
	if (count === 0) state.byClient.delete(client);
	else state.byClient.set(client, count);
}

export function enqueue(state: LockState, resource: Resource, waiter: Waiter): void {
	resource.queue.push(waiter);
	state.waiters.set(waiter.request.key, waiter);
	const { id } = waiter.request.owner;
	const same = state.waitersByOwner.get(id);
	if (same === undefined) state.waitersByOwner.set(id, new Set([waiter]));
	else same.add(waiter);
}

export function dequeue(state: LockState, resource: Resource, waiter: Waiter): void {
	const at = resource.queue.indexOf(waiter);
	assert(at >= 0, "L4: who waits is in the queue");
	resource.queue.splice(at, 1);
	state.waiters.delete(waiter.request.key);
	const { id } = waiter.request.owner;
	const same = state.waitersByOwner.get(id);
	same?.delete(waiter);
	if (same?.size === 0) state.waitersByOwner.delete(id);
}

/** No foreign lease, mandatory range or deny mode: fast paths that ask nobody are right. */
export function isPlain(state: LockState, ino: number): boolean {
	const resource = state.resources.get(ino);
	if (resource === undefined) return true;
	const denied = resource.opens.some(({ sharing }) => sharing.deny !== 0);
	const bound = resource.holds.some((hold) => hold.class === "smb-shared" || hold.class === "smb-exclusive");
	return !denied && !bound && resource.leases.length === 0;
}
