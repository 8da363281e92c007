/**
 * The lock core: `apply(state, command, now)` changes the table and answers what is to be done (architecture, section 6). Synchronous, without clock, timers or I/O: the same commands at the same times always give the same
 * effects. One core for all doors, so that nothing has to be told from one table to another.
 *
 * Invariants
 *  C1 Each request is answered once by `granted` or `refused`, and at most once by `waiting` before that. A request that waits and comes again is answered `waiting`, not queued again.
 *  C2 After each command nobody waits who could go: whatever gives something up, of any kind, looks at the queue.
 *  C3 Who waits waits behind whom it would keep waiting (`barriers`).
 *  C4 An unlock and whatever a death takes away are never refused for want of room.
 *  C5 An open that yields refuses nobody: who is in conflict with it waits until it is ended, and each such open is told to end once.
 */
import { assert } from "../base/assert.ts";
import {
	barriers,
	blockers,
	conflictsWithHold,
	firmBlockers,
	followed,
	grantableLease,
	isDeadlock,
	leasesInTheWay,
	operationsInTheWay,
	waitsFor,
	whoWaitsElsewhere,
	yielding,
} from "./conflicts.ts";
import { addHold, carve, growthOfAdding, growthOfCarving, removeHolds, unstack } from "./holds.ts";
import type { Command, Effect, Hold, Owner, RefusalCode, Request, WaitingView } from "./interface.ts";
import { familyOf, type LockClass, type LockFamily } from "./matrix.ts";
import { type Range, wholeFile } from "./range.ts";
import {
	dequeue,
	enqueue,
	type Lease,
	type LockState,
	observe,
	type OpenEntry,
	type Resource,
	resourceOf,
	tidy,
	type Waiter,
} from "./state.ts";

export { createLockState, isPlain, type LockState } from "./state.ts";

type CommandOf<K extends Command["kind"]> = Extract<Command, { kind: K }>;

export function apply(state: LockState, command: Command, nowMs: number): readonly Effect[] {
	const effects: Effect[] = [];
	const touched = new Step(state, nowMs, effects);
	touched.run(command);
	return effects;
}

function hasShared(resource: Resource, { owner, want }: Request): boolean {
	return want.kind === "range" && resource.holds.some((hold) => hold.owner.id === owner.id && hold.class === "fcntl-shared");
}

/** One command under way. */
class Step {
	readonly #state: LockState;
	readonly #nowMs: number;
	readonly #effects: Effect[];
	/** Files in which somebody may go now, besides the one that the command is about. */
	readonly #others = new Set<number>();

	constructor(state: LockState, nowMs: number, effects: Effect[]) {
		this.#state = state;
		this.#nowMs = nowMs;
		this.#effects = effects;
	}

	run(command: Command): void {
		switch (command.kind) {
			case "cancel":
				this.#cancel(command.key);
				break;
			case "drop-client":
				this.#dropClient(command.client);
				break;
			case "tick":
				this.#tick();
				break;
			default: {
				const resource = resourceOf(this.#state, command.ino);
				this.#change(resource, command);
				this.#settle(resource);
			}
		}
		this.#settleOthers();
	}

	#change(resource: Resource, command: Exclude<Command, { kind: "cancel" | "drop-client" | "tick" }>): void {
		switch (command.kind) {
			case "request":
				this.#request(resource, command);
				break;
			case "unlock":
				this.#unlock(resource, command);
				break;
			case "drop-owner":
				this.#drop(resource, (hold) => hold.owner.id === command.owner && familyOf(hold.class) === command.family);
				break;
			case "drop-handle":
				this.#drop(resource, (hold) => hold.handle === command.handle);
				break;
			case "break-locks":
				this.#breakLocks(resource, command.owner);
				break;
			case "close":
				resource.opens = resource.opens.filter(({ id }) => id !== command.id);
				break;
			case "enter-open":
				resource.opens = withOpen(resource, command);
				break;
			case "enter-operation": {
				const { id, event, leaseKey, access } = command.operation;
				resource.operations.push({ id, owner: command.owner, event, leaseKey, access });
				break;
			}
			case "done":
				resource.operations = resource.operations.filter(({ id }) => id !== command.id);
				break;
			case "release-mode":
				resource.modes = resource.modes.filter(({ owner }) => owner.id !== command.owner);
				break;
			case "lease":
				this.#lease(resource, command);
				break;
			case "lease-answer":
				this.#leaseAnswer(resource, command);
				break;
			case "restore":
				addHold(this.#state, resource, { ...command.hold, sinceMs: command.sinceMs });
				break;
			case "restore-lease":
				this.#restoreLease(resource, command);
		}
	}

	/** C2. */
	#settle(resource: Resource): void {
		while (this.#letOneGo(resource));
		if (resource.queue.length > 0) for (const { request } of resource.queue) this.#askToYield(resource, request);
		tidy(this.#state, resource, this.#nowMs);
	}

	/** Where somebody may go now because of what came to be in another file: one file after the other, in the order of their numbers. */
	#settleOthers(): void {
		while (this.#others.size > 0) {
			const ino = Math.min(...this.#others);
			this.#others.delete(ino);
			const resource = this.#state.resources.get(ino);
			if (resource !== undefined) this.#settle(resource);
		}
	}

	/** The owner waits for somebody since now, or somebody for it: that may have closed a circle of order, in which who waits behind another is let past it. */
	#passOrder({ id: owner }: Owner, resource: Resource): void {
		const { waitersByOwner } = this.#state;
		if (!waitersByOwner.has(owner) || whoWaitsElsewhere(this.#state, resource).size === 0) return;
		for (const id of followed(this.#state, owner))
			for (const { request } of waitersByOwner.get(id ?? owner) ?? []) if (request.ino !== resource.ino) this.#others.add(request.ino);
	}

	// ── requests ───────────────────────────────────────────────────────────────────────────────────────────────

	#refuse(key: string, code: RefusalCode, why: string): void {
		this.#effects.push({ kind: "refused", key, code, why });
	}

	#request(resource: Resource, request: Request): void {
		const { key, want, owner } = request;
		if (this.#state.waiters.has(key)) {
			this.#effects.push({ kind: "waiting", key });
			return;
		}
		const room = this.#roomFor(resource, request);
		if (room !== undefined) {
			this.#overLimit(key, room);
			return;
		}
		// What flock(2) converts is given up first, whatever becomes of the rest.
		if (want.kind === "range" && familyOf(want.class) === "flock") this.#giveUpFlock(resource, owner, want.class);
		const held = this.#state.upgradesBlindly && hasShared(resource, request) ? [] : firmBlockers(resource, request);
		const isYielding = yielding(resource, request).length > 0;
		this.#breakLeases(resource, request);
		const behind = barriers(this.#state, resource, resource.queue.length, request);
		const leased = leasesInTheWay(resource, request).length > 0;
		if (held.length === 0 && behind.length === 0 && !leased && !isYielding && !operationsInTheWay(resource, request)) {
			this.#grant(resource, request, undefined);
			return;
		}
		if (held.length > 0 && !request.patient && !this.#mayGo(resource, request, leased)) {
			this.#conflict(request);
			return;
		}
		this.#wait(resource, request);
	}

	/** A holder who only keeps a file open for later closes it when its lease is broken: that is worth waiting for. */
	#mayGo(_resource: Resource, { want }: Request, leased: boolean): boolean {
		return leased && want.kind === "open";
	}

	#conflict({ key, want }: Request): void {
		this.#state.counters.conflicts++;
		const isDenied = want.kind === "open" || (want.kind === "operation" && want.access !== 0);
		if (isDenied) this.#refuse(key, "EBUSY", "somebody has it open and allows no other");
		else this.#refuse(key, "EAGAIN", "somebody holds it");
	}

	#overLimit(key: string, why: string): void {
		this.#state.counters.overLimit++;
		this.#refuse(key, "ENOLCK", why);
	}

	#roomFor(resource: Resource, { want, owner }: Request): string | undefined {
		const { limits, total, byClient } = this.#state;
		if (want.kind === "open") return resource.opens.length >= limits.opensPerFile ? `${limits.opensPerFile} opens of one file` : undefined;
		if (want.kind !== "range") return undefined;
		const hold = this.#asHold({ want, owner } as Request);
		const growth = growthOfAdding(resource, hold);
		if (growth <= 0) return undefined;
		if (resource.holds.length + growth > limits.perFile) return `a file has at most ${limits.perFile} locks`;
		if ((byClient.get(owner.client) ?? 0) + growth > limits.perClient) return `a client has at most ${limits.perClient} locks`;
		if (total + growth > limits.total) return `a volume has at most ${limits.total} locks`;
		return undefined;
	}

	#asHold(request: Request): Hold {
		const { want, owner } = request;
		assert(want.kind === "range", "a range is held");
		return { class: want.class, owner, range: want.range, handle: want.handle, sinceMs: this.#nowMs };
	}

	#giveUpFlock(resource: Resource, owner: Owner, asked: LockClass): void {
		const has = resource.holds.find((hold) => hold.owner.id === owner.id && familyOf(hold.class) === "flock");
		if (has === undefined || has.class === asked) return;
		carve(this.#state, resource, owner.id, "flock", wholeFile, this.#nowMs);
		this.#cleared(resource, owner.id, "flock", wholeFile, undefined);
	}

	#wait(resource: Resource, request: Request): void {
		const { key, victim } = request;
		if (resource.queue.length >= this.#state.limits.waitersPerFile) {
			this.#overLimit(key, `at most ${this.#state.limits.waitersPerFile} requests wait for one file`);
			return;
		}
		const waiter: Waiter = { request, sinceMs: this.#nowMs };
		if (victim && isDeadlock(this.#state, waiter)) {
			this.#state.counters.deadlocks++;
			this.#refuse(key, "EDEADLK", "whoever holds it waits for this owner");
			return;
		}
		this.#state.counters.blocked++;
		enqueue(this.#state, resource, waiter);
		this.#passOrder(request.owner, resource);
		this.#effects.push({ kind: "waiting", key });
		const { want } = request;
		if (want.kind !== "mode") return;
		for (const owner of blockers(resource, request)) this.#effects.push({ kind: "wanted", ino: resource.ino, owner, mode: want.mode });
	}

	#grant(resource: Resource, request: Request, waiter: Waiter | undefined): void {
		const { key, owner, want } = request;
		if (waiter !== undefined) observe(this.#state.counters.waitMs, Math.max(0, this.#nowMs - waiter.sinceMs));
		switch (want.kind) {
			case "range": {
				const hold = this.#asHold(request);
				addHold(this.#state, resource, hold);
				const { acquired } = this.#state.counters;
				acquired.set(want.class, (acquired.get(want.class) ?? 0) + 1);
				this.#effects.push({ kind: "set", ino: resource.ino, hold, key });
				break;
			}
			case "mode":
				resource.modes = resource.modes.filter((held) => held.owner.id !== owner.id);
				resource.modes.push({ owner, mode: want.mode, sinceMs: this.#nowMs });
				break;
			case "open":
				resource.opens = withOpen(resource, { id: want.id, owner, sharing: want.sharing });
				break;
			case "operation":
				resource.operations.push({ id: want.id, owner, event: want.event, leaseKey: want.leaseKey, access: want.access });
		}
		this.#effects.push({ kind: "granted", key, ino: resource.ino, owner, want });
		this.#refuseNewCycles(resource, owner);
		this.#passOrder(owner, resource);
	}

	/** Who has several threads may have closed a circle by what one of them just got. */
	#refuseNewCycles(resource: Resource, owner: Owner): void {
		for (const waiter of [...(this.#state.waitersByOwner.get(owner.id) ?? [])]) {
			if (!waiter.request.victim || !isDeadlock(this.#state, waiter)) continue;
			this.#state.counters.deadlocks++;
			this.#leave(waiter, "EDEADLK", "whoever holds it waits for this owner");
			// Somebody may wait behind it there; this inode is settled by who has called.
			if (waiter.request.ino !== resource.ino) this.#others.add(waiter.request.ino);
		}
	}

	#leave(waiter: Waiter, code: RefusalCode, why: string): void {
		const { key, ino } = waiter.request;
		const resource = resourceOf(this.#state, ino);
		dequeue(this.#state, resource, waiter);
		this.#refuse(key, code, why);
	}

	/** The first in the queue that can go. */
	#letOneGo(resource: Resource): boolean {
		for (const [place, waiter] of resource.queue.entries()) {
			const { request } = waiter;
			const held = firmBlockers(resource, request).length > 0;
			const leased = leasesInTheWay(resource, request).length > 0;
			if (held && !request.patient && !leased) {
				dequeue(this.#state, resource, waiter);
				this.#conflict(request);
				return true;
			}
			// What it is for those who cache may have changed: who stood in its way is gone, and more has to be given back.
			if (leased && !held) this.#breakLeases(resource, request);
			if (held || leased || yielding(resource, request).length > 0) continue;
			if (operationsInTheWay(resource, request) || barriers(this.#state, resource, place, request).length > 0) continue;
			dequeue(this.#state, resource, waiter);
			const room = this.#roomFor(resource, request);
			if (room === undefined) this.#grant(resource, request, waiter);
			else this.#overLimit(request.key, room);
			return true;
		}
		return false;
	}

	/** C5. Not for somebody who would not get anything by it: while something firm is in the way too. */
	#askToYield(resource: Resource, request: Request): void {
		const giving = yielding(resource, request);
		if (giving.length === 0 || firmBlockers(resource, request).length > 0) return;
		for (const open of giving) {
			if (open.told === true || open.yields === undefined) continue;
			open.told = true;
			this.#effects.push({ kind: "give-way", ino: resource.ino, handle: open.yields });
		}
	}

	#cancel(key: string): void {
		const waiter = this.#state.waiters.get(key);
		if (waiter === undefined) return;
		this.#state.counters.cancelled++;
		this.#leave(waiter, "ECANCELED", "it was cancelled");
		this.#settle(resourceOf(this.#state, waiter.request.ino));
	}

	// ── giving up ──────────────────────────────────────────────────────────────────────────────────────────────

	#cleared(resource: Resource, owner: string, family: LockFamily, range: Range, handle: number | undefined): void {
		this.#effects.push({ kind: "clear", ino: resource.ino, owner, family, range, handle });
	}

	#unlock(resource: Resource, { owner, family, range }: CommandOf<"unlock">): void {
		if (family === "smb") {
			const gone = unstack(this.#state, resource, owner.id, range, this.#nowMs);
			if (gone === undefined) this.#refuse("", "ENOENT", "this open has no such lock");
			else this.#cleared(resource, owner.id, "smb", gone.range, gone.handle);
			return;
		}
		const part = family === "flock" ? wholeFile : range;
		const growth = growthOfCarving(resource, owner.id, family, part);
		const { limits, total } = this.#state;
		if (growth > 0 && (resource.holds.length + growth > 2 * limits.perFile || total + growth > 2 * limits.total)) {
			this.#overLimit("", `a file has at most ${2 * limits.perFile} pieces of locks`);
			return;
		}
		if (carve(this.#state, resource, owner.id, family, part, this.#nowMs)) this.#cleared(resource, owner.id, family, part, undefined);
	}

	#drop(resource: Resource, which: (hold: Hold) => boolean): void {
		for (const hold of removeHolds(this.#state, resource, which, this.#nowMs))
			this.#cleared(resource, hold.owner.id, familyOf(hold.class), hold.range, hold.handle);
	}

	#breakLocks(resource: Resource, owner: string | undefined): void {
		const count = (): number => resource.holds.length + resource.opens.length + resource.leases.length;
		const before = count();
		const isMeant = (one: Owner): boolean => one.firm !== true && (owner === undefined || one.id === owner);
		this.#drop(resource, (hold) => isMeant(hold.owner));
		// An open that denies nothing is in nobody's way, and belongs to somebody who goes on using it.
		resource.opens = resource.opens.filter((open) => !isMeant(open.owner) || (owner === undefined && open.sharing.deny === 0));
		for (const lease of resource.leases.filter((one) => isMeant(one.owner))) {
			this.#effects.push({ kind: "revoked", ino: resource.ino, key: lease.key, owner: lease.owner, to: 0 });
			resource.leases = resource.leases.filter((one) => one !== lease);
		}
		this.#state.counters.broken += before - count();
	}

	#dropClient(client: string): void {
		for (const resource of [...this.#state.resources.values()]) {
			for (const waiter of resource.queue.filter(({ request }) => request.owner.client === client)) {
				this.#state.counters.cancelled++;
				this.#leave(waiter, "ECANCELED", "its client is gone");
			}
			this.#drop(resource, (hold) => hold.owner.client === client);
			resource.opens = resource.opens.filter(({ owner }) => owner.client !== client);
			resource.modes = resource.modes.filter(({ owner }) => owner.client !== client);
			resource.leases = resource.leases.filter(({ owner }) => owner.client !== client);
			resource.operations = resource.operations.filter(({ owner }) => owner.client !== client);
			this.#settle(resource);
		}
	}

	// ── leases ─────────────────────────────────────────────────────────────────────────────────────────────────

	/** One break for each lease, however many ask for it; what they ask for adds up. */
	#breakLeases(resource: Resource, request: Request): void {
		for (const { lease, to } of leasesInTheWay(resource, request)) {
			const { breaking } = lease;
			if (breaking !== undefined && (breaking.to & ~to) === 0) continue;
			resource.quietUntilMs = this.#nowMs + this.#state.limits.quietMs;
			if (breaking !== undefined) breaking.to &= to;
			else this.#tell(resource, lease, to);
		}
	}

	#tell(resource: Resource, lease: Lease, to: number): void {
		lease.epoch++;
		lease.breaking = { to, told: to, deadlineMs: this.#nowMs + this.#state.limits.breakMs[lease.family] };
		const { key, owner, epoch } = lease;
		this.#effects.push({ kind: "break", ino: resource.ino, key, owner, to, epoch });
	}

	#lease(resource: Resource, command: CommandOf<"lease">): void {
		const { key, owner, family } = command;
		const has = resource.leases.find((lease) => lease.key === key);
		const quiet = this.#nowMs < resource.quietUntilMs;
		const full = has === undefined && resource.leases.length >= this.#state.limits.leasesPerFile;
		const could = quiet || full || has?.breaking !== undefined ? 0 : grantableLease(resource, { key, owner, family, state: command.state });
		// What is held already is not taken by asking.
		const state = has === undefined ? could : has.state | could;
		if (has !== undefined) has.state = state;
		else if (state !== 0) resource.leases.push({ key, owner, family, state, epoch: 1, breaking: undefined });
		this.#effects.push({ kind: "leased", ino: resource.ino, key, state, epoch: has?.epoch ?? 1 });
	}

	#restoreLease(resource: Resource, { key, owner, family, state: had, epoch }: CommandOf<"restore-lease">): void {
		const state = grantableLease(resource, { key, owner, family, state: had });
		if (state !== 0) resource.leases.push({ key, owner, family, state, epoch, breaking: undefined });
		this.#effects.push({ kind: "leased", ino: resource.ino, key, state, epoch });
	}

	#leaseAnswer(resource: Resource, { key, state }: CommandOf<"lease-answer">): void {
		const lease = resource.leases.find((one) => one.key === key);
		if (lease === undefined) return;
		const allowed = lease.breaking?.told ?? lease.state;
		if ((state & ~allowed) !== 0) {
			this.#refuse(key, "EINVAL", `this lease was broken to ${allowed}`);
			return;
		}
		this.#settleLease(resource, lease, state);
	}

	#settleLease(resource: Resource, lease: Lease, state: number): void {
		const to = state & (lease.breaking?.to ?? state);
		lease.state = state;
		lease.breaking = undefined;
		if (state === 0) resource.leases = resource.leases.filter((one) => one !== lease);
		else if (to !== state) this.#tell(resource, lease, to);
	}

	// ── time ───────────────────────────────────────────────────────────────────────────────────────────────────

	#tick(): void {
		for (const resource of [...this.#state.resources.values()]) {
			for (const lease of resource.leases.filter(({ breaking }) => breaking !== undefined && breaking.deadlineMs <= this.#nowMs)) {
				const to = lease.breaking?.to ?? 0;
				this.#effects.push({ kind: "revoked", ino: resource.ino, key: lease.key, owner: lease.owner, to });
				this.#settleLease(resource, lease, to);
			}
			for (const waiter of resource.queue.filter(({ request }) => (request.deadlineMs ?? Number.POSITIVE_INFINITY) <= this.#nowMs)) {
				this.#state.counters.timedOut++;
				this.#leave(waiter, "EAGAIN", "it was not let go in time");
			}
			this.#settle(resource);
		}
	}
}

function withOpen({ opens }: Resource, { id, owner, sharing, yields }: OpenEntry): OpenEntry[] {
	return [...opens.filter((open) => open.id !== id), { id, owner, sharing, yields }];
}

/** When `tick` has something to do; Infinity: never. Looks at these inodes, or at all. */
export function nextTick(state: LockState, among: Iterable<number> = state.resources.keys()): number {
	let soonest = Number.POSITIVE_INFINITY;
	for (const ino of among) {
		const resource = state.resources.get(ino);
		if (resource === undefined) continue;
		const { leases, queue } = resource;
		for (const { breaking } of leases) soonest = Math.min(soonest, breaking?.deadlineMs ?? soonest);
		for (const { request } of queue) soonest = Math.min(soonest, request.deadlineMs ?? soonest);
	}
	return soonest;
}

/** fcntl(2) F_GETLK, NLM TEST: the first range that would keep the owner from locking; undefined: none. */
export function test(state: LockState, ino: number, owner: string, asked: { class: LockClass; range: Range }): Hold | undefined {
	let first: Hold | undefined;
	for (const hold of state.resources.get(ino)?.holds ?? []) {
		if (conflictsWithHold(hold, owner, asked) && (first === undefined || hold.range.start < first.range.start)) first = hold;
	}
	return first;
}

export function holdsOf(state: LockState, ino: number): readonly Hold[] {
	return state.resources.get(ino)?.holds ?? [];
}

export function waitersOf(state: LockState, ino: number): readonly WaitingView[] {
	return (state.resources.get(ino)?.queue ?? []).map(({ request, sinceMs }) => {
		const { key, owner, want } = request;
		return { key, ino, owner, want, sinceMs };
	});
}

/** Whom a request that waits is waiting for. */
export function waitedFor(state: LockState, key: string): readonly Owner[] {
	const waiter = state.waiters.get(key);
	return waiter === undefined ? [] : waitsFor(state, waiter);
}
