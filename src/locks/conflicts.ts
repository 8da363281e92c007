/** Who and what stands in the way of a request: of what is held, and of who waits already. Looks, and changes nothing. */
import type { Hold, Owner, Request, Want } from "./interface.ts";
import {
	cell,
	type IoClass,
	type LeaseEvent,
	leaseAfter,
	leaseBits,
	type LockClass,
	modesConflict,
	share,
	sharingConflict,
} from "./matrix.ts";
import { isWhole, overlaps, type Range } from "./range.ts";
import type { Lease, LockState, OpenEntry, Resource, Waiter } from "./state.ts";

function rangesConflict(
	held: { class: LockClass; range: Range },
	asked: { class: LockClass | IoClass; range: Range },
	same: boolean,
): boolean {
	switch (cell(held.class, asked.class, same)) {
		case "-":
			return false;
		case "o":
			return overlaps(held.range, asked.range);
		case "w":
			return isWhole(held.range) && isWhole(asked.range);
	}
}

export function conflictsWithHold(hold: Hold, owner: string, asked: { class: LockClass | IoClass; range: Range }): boolean {
	return rangesConflict(hold, asked, hold.owner.id === owner);
}

/** Opens that stand in the way, themselves or by what is locked through them, and give way: their end is waited for. */
export function yielding(resource: Resource, request: Pick<Request, "owner" | "want">): readonly OpenEntry[] {
	return resource.opens.filter((open) => {
		if (open.yields === undefined) return false;
		const holds = resource.holds.filter(({ handle }) => handle === open.yields);
		return blockers({ ...resource, holds, modes: [], opens: [open] }, request).length > 0;
	});
}

/** As `blockers`, without those who give way. */
export function firmBlockers(resource: Resource, request: Pick<Request, "owner" | "want">): readonly Owner[] {
	const giving = new Set(resource.opens.map(({ yields }) => yields).filter((handle) => handle !== undefined));
	if (giving.size === 0) return blockers(resource, request);
	const holds = resource.holds.filter(({ handle }) => handle === undefined || !giving.has(handle));
	return blockers({ ...resource, holds, opens: resource.opens.filter(({ yields }) => yields === undefined) }, request);
}

/** Owners of what is held and does not go with the request; itself, where an SMB open is in its own way. */
export function blockers(resource: Resource, { owner, want }: Pick<Request, "owner" | "want">): readonly Owner[] {
	switch (want.kind) {
		case "range":
			return resource.holds.filter((hold) => conflictsWithHold(hold, owner.id, want)).map((hold) => hold.owner);
		case "mode":
			return resource.modes.filter((held) => held.owner.id !== owner.id && modesConflict(held.mode, want.mode)).map((held) => held.owner);
		case "open":
			return resource.opens.filter((open) => open.id !== want.id && sharingConflict(open.sharing, want.sharing)).map((open) => open.owner);
		case "operation":
			return [...boundRanges(resource, owner, want), ...denyingOpens(resource, owner, want)];
	}
}

type Operation = Extract<Want, { kind: "operation" }>;

function boundRanges(resource: Resource, owner: Owner, { io, range }: Operation): readonly Owner[] {
	if (io === undefined || range === undefined) return [];
	return resource.holds.filter((hold) => conflictsWithHold(hold, owner.id, { class: io, range })).map((hold) => hold.owner);
}

function denyingOpens(resource: Resource, owner: Owner, { access }: Operation): readonly Owner[] {
	if (access === 0) return [];
	return resource.opens.filter((open) => !isOwn(open.owner, owner) && (open.sharing.deny & access) !== 0).map((open) => open.owner);
}

/** What a machine has open denies nothing to the operations of that machine which name no open. */
function isOwn(a: Owner, b: Owner): boolean {
	return a.id === b.id || (a.host !== undefined && a.host === b.host);
}

/** Operations under way that an open would deny: it waits for their end, which they come to by themselves. */
export function operationsInTheWay(resource: Resource, { owner, want }: Pick<Request, "owner" | "want">): boolean {
	if (want.kind !== "open" || want.sharing.deny === 0) return false;
	return resource.operations.some((one) => (one.access & want.sharing.deny) !== 0 && !isOwn(one.owner, owner));
}

/** What the request is for those who cache. */
export function leaseEvent(resource: Resource, { owner, want }: Pick<Request, "owner" | "want">): LeaseEvent | undefined {
	switch (want.kind) {
		case "range":
			return "lock";
		case "mode":
			return undefined;
		case "open":
			if (want.sharing.access === 0 && want.sharing.deny === 0) return "attributes";
			return blockers(resource, { owner, want }).length > 0 ? "share-violation" : "open";
		case "operation":
			return want.event;
	}
}

/** Leases of others that have to be given back, at least in part, and to what. */
export function leasesInTheWay(resource: Resource, request: Pick<Request, "owner" | "want">): readonly { lease: Lease; to: number }[] {
	const event = leaseEvent(resource, request);
	if (event === undefined || resource.leases.length === 0) return [];
	const mine = request.want.kind === "operation" || request.want.kind === "range" ? request.want.leaseKey : undefined;
	const found: { lease: Lease; to: number }[] = [];
	for (const lease of resource.leases) {
		if (lease.key === mine || lease.owner.id === request.owner.id) continue;
		const to = leaseAfter(lease.family, lease.state, event);
		if (to !== lease.state) found.push({ lease, to });
	}
	return found;
}

/** Whether a request that waits keeps a later one from going first. */
function bars(earlier: Want, later: Want): boolean {
	if (earlier.kind === "range" && later.kind === "range")
		return rangesConflict(earlier, later, false) || rangesConflict(later, earlier, false);
	if (earlier.kind === "mode" && later.kind === "mode") return modesConflict(earlier.mode, later.mode);
	// An open that waits for operations to end would wait for ever if others came after them.
	if (earlier.kind === "open" && later.kind === "operation") return (earlier.sharing.deny & later.access) !== 0;
	return false;
}

/**
 * Who waits already and would be kept waiting longer. Not of one's own, and not those who wait for the asker anyway, be it through others and over other files: to make him wait for them would be a deadlock of our own making, over
 * something that nobody holds. Who does not wait is not barred: it would be told of a conflict with somebody who holds nothing.
 */
export function barriers(state: LockState, resource: Resource, queueEnd: number, request: Request): readonly Owner[] {
	if (!request.patient && request.want.kind !== "operation") return [];
	const { want } = request;
	// Who caches brings back what it has: the others wait for just that.
	if (want.kind === "operation" && resource.leases.some(({ key }) => key === want.leaseKey)) return [];
	const inFront = resource.queue
		.slice(0, queueEnd)
		.filter(({ request: earlier }) => !isOwn(earlier.owner, request.owner) && bars(earlier.want, request.want));
	if (inFront.length === 0) return [];
	const waiting = whoWaitsFor(state, resource, request.owner.id);
	return inFront.map(({ request: earlier }) => earlier.owner).filter(({ id }) => !waiting.has(id));
}

/** Owners that wait here for that one, for what it holds or behind it, or for others who do, here or elsewhere; and itself. */
function whoWaitsFor(state: LockState, resource: Resource, owner: string): ReadonlySet<string> {
	const found = new Set([owner]);
	for (const id of whoWaitsElsewhere(state, resource)) if (leadsTo(state, id, owner)) found.add(id);
	for (let before = 0; before !== found.size; ) {
		before = found.size;
		const theirs = partOf(resource, found);
		const inFront: Want[] = [];
		for (const { request } of resource.queue) {
			const waits = found.has(request.owner.id) || blockers(theirs, request).length > 0 || inFront.some((want) => bars(want, request.want));
			if (!waits) continue;
			found.add(request.owner.id);
			inFront.push(request.want);
		}
	}
	return found;
}

/** Who holds something of this file or waits for it, and waits for another file too: only through these does a circle go over several files. Mostly nobody. */
export function whoWaitsElsewhere(state: LockState, { ino, holds, modes, opens, queue }: Resource): ReadonlySet<string> {
	const found = new Set<string>();
	if (state.waiters.size === queue.length) return found;
	const look = ({ id }: Owner): void => {
		for (const { request } of state.waitersByOwner.get(id) ?? []) if (request.ino !== ino) found.add(id);
	};
	for (const { owner } of [...holds, ...modes, ...opens]) look(owner);
	for (const { request } of queue) look(request.owner);
	return found;
}

/** Whether an owner waits for another one, in any file; or so far away that it is not known: an order of which nobody can see the end is not worth waiting for. */
function leadsTo(state: LockState, from: string, to: string): boolean {
	for (const id of followed(state, from)) if (id === to || id === undefined) return true;
	return false;
}

/** Whom an owner waits for, and whom they wait for, by what is held and by order, in any file; itself comes first. Ends with `undefined` where there are too many. */
export function* followed(state: LockState, from: string): Generator<string | undefined> {
	const seen = new Set([from]);
	let steps = 0;
	for (const id of seen) {
		yield id;
		for (const waiter of state.waitersByOwner.get(id) ?? []) {
			if (++steps > state.limits.deadlockSteps) {
				yield undefined;
				return;
			}
			for (const next of standingBefore(state, waiter)) seen.add(next);
		}
	}
}

/** Who holds what the waiter wants, and who came before it and wants what does not go with it. */
function standingBefore(state: LockState, { request }: Waiter): string[] {
	const resource = state.resources.get(request.ino);
	if (resource === undefined) return [];
	const found = blockers(resource, request).map(({ id }) => id);
	for (const { request: earlier } of resource.queue) {
		if (earlier.key === request.key) break;
		if (bars(earlier.want, request.want)) found.push(earlier.owner.id);
	}
	return found;
}

/** What these owners hold: mostly little, while all that is held may be a thousand ranges, which are not looked through for each who waits. */
function partOf(resource: Resource, owners: ReadonlySet<string>): Resource {
	const isTheirs = ({ owner }: { readonly owner: Owner }): boolean => owners.has(owner.id);
	return {
		...resource,
		holds: resource.holds.filter(isTheirs),
		modes: resource.modes.filter(isTheirs),
		opens: resource.opens.filter(isTheirs),
	};
}

/** Everybody that the waiter waits for now. */
export function waitsFor(state: LockState, { request }: Waiter): readonly Owner[] {
	const resource = state.resources.get(request.ino);
	if (resource === undefined) return [];
	const place = resource.queue.findIndex((waiter) => waiter.request.key === request.key);
	return [...blockers(resource, request), ...barriers(state, resource, place === -1 ? resource.queue.length : place, request)];
}

/**
 * Follows who waits for what whom holds. True when that leads back to the waiter's owner, or so far that it is not known. Order alone closes no circle: who would be in one passes those who wait (`barriers`).
 */
export function isDeadlock(state: LockState, { request }: Waiter): boolean {
	const goal = request.owner.id;
	const held = ({ request: asked }: Waiter): string[] => {
		const resource = state.resources.get(asked.ino);
		return resource === undefined ? [] : blockers(resource, asked).map(({ id }) => id);
	};
	const seen = new Set(held({ request, sinceMs: 0 }));
	let steps = 0;
	for (const id of seen) {
		if (id === goal) return true;
		for (const other of state.waitersByOwner.get(id) ?? []) {
			if (++steps > state.limits.deadlockSteps) return true;
			for (const next of held(other)) seen.add(next);
		}
	}
	return false;
}

/** The bits of a lease that can be given now. */
export function grantableLease(resource: Resource, asked: Omit<Lease, "epoch" | "breaking">): number {
	let state = asked.state;
	const take = (bits: number): void => {
		state &= ~bits;
	};
	for (const lease of resource.leases) {
		if (lease.key === asked.key) continue;
		const kept = lease.breaking?.to ?? lease.state;
		if ((kept & leaseBits.write) !== 0) take(leaseBits.read);
		if (kept !== 0 || lease.breaking !== undefined) take(leaseBits.write);
	}
	for (const { owner, sharing } of resource.opens) {
		if (owner.id === asked.owner.id) continue;
		take(leaseBits.write);
		if (asked.family !== "smb" && (sharing.access & share.write) !== 0) take(leaseBits.read);
	}
	for (const { owner, class: held } of resource.holds) {
		if (owner.client === asked.owner.client) continue;
		take(held.endsWith("-exclusive") ? leaseBits.read | leaseBits.write : leaseBits.write);
	}
	for (const { owner, event, leaseKey } of resource.operations) {
		if (owner.id === asked.owner.id || leaseKey === asked.key) continue;
		take(leaseAfter(asked.family, 7, event) === 7 ? 0 : leaseAfter(asked.family, 7, event) === 0 ? 7 : leaseBits.write);
	}
	const valid = (state & leaseBits.read) === 0 ? 0 : state;
	// A delegation is of reading or of writing, and is not made less on the way.
	return asked.family === "delegation" && valid !== asked.state ? 0 : valid;
}
