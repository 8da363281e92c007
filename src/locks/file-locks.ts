/**
 * The lock table of a volume at work: performs the core's effects. Locks of local programs (fcntl, open file descriptions, flock) are of the volatile class: where a session outlives this process they stand in its lock memory
 * before whoever asked is told. Locks of clients elsewhere are of the roster class: whoever calls for them keeps them in records, from which they are put back.
 *
 * Invariants
 *  T1 What a command changed is in the lock memory before any promise that it settles.
 *  T2 Each waiting request has one entry in `#waiting`; it goes when the core answers.
 *  T3 A request of a predecessor that changed something is not carried out again: `#before` has its name until no request can come again.
 *  T4 While grace lasts nothing is locked but what was held before: who asks for more waits (programs here) or is sent away (clients elsewhere).
 */
import { assert } from "../base/assert.ts";
import { Deferred } from "../base/async.ts";
import { FsError } from "../base/errors.ts";
import type { Clock, SimulationHooks } from "../platform/interface.ts";
import { apply, createLockState, holdsOf, type LockState, test, waitedFor, waitersOf } from "./core.ts";
import type { Command, Effect, Hold, LockCounters, Owner, RefusalCode, Request } from "./interface.ts";
import { fileLockLimits, lockLimits } from "./limits.ts";
import { familyOf, isExclusive, type LockClass, type LockFamily } from "./matrix.ts";
import { isNamed, type LockMemory, type LockRecord, type RequestName, type StoredLock } from "./memory.ts";
import type { Range } from "./range.ts";

/** Who, as a door of this machine knows it: 16 hexadecimal digits that the kernel gave an owner. */
export interface LocalOwner {
	readonly id: string;
	readonly pid: number;
}

export interface LocalLock {
	readonly ino: number;
	readonly handle: number;
	readonly family: "fcntl" | "flock";
	readonly owner: LocalOwner;
	readonly exclusive: boolean;
	readonly range: Range;
}

/** Of a client elsewhere. */
export interface RemoteLock {
	readonly ino: number;
	/** Its number in the roster. */
	readonly client: number;
	/** Whoever locks there, as the client numbers them: 32 bits. */
	readonly owner: number;
	readonly exclusive: boolean;
	readonly range: Range;
}

/** A share reservation: what an open elsewhere does, and what it lets nobody else do (bits of `share` in matrix.ts). */
export interface RemoteShare {
	readonly ino: number;
	readonly client: number;
	/** Opaque. */
	readonly owner: string;
	readonly access: number;
	readonly deny: number;
}

export interface HeldLock {
	readonly ino: number;
	readonly family: LockFamily;
	readonly exclusive: boolean;
	readonly range: Range;
	readonly owner: Owner;
	readonly ageMs: number;
}

export interface WaitingLock extends HeldLock {
	/** Owners that it waits for. */
	readonly waitsFor: readonly string[];
}

export interface LockFigures {
	readonly held: number;
	readonly waiting: number;
	readonly files: number;
	readonly counters: LockCounters;
}

export interface FileLockModules {
	readonly clock: Clock;
	/** Undefined: locks end with this process. */
	readonly memory: LockMemory | undefined;
	readonly simulation?: SimulationHooks | undefined;
}

const doorId = (id: string): string => `fuse:${id}`;
const noRequest: RequestName = { low: 0, high: 0 };

export class FileLocks {
	readonly #modules: FileLockModules;
	readonly #state: LockState;
	readonly #waiting = new Map<string, Deferred<void>>();
	/** Names of requests that changed something, the newest last: carried over when the memory is written anew. */
	#notes: RequestName[] = [];
	#before = new Set<string>();
	/** T4: who waits for its end, by the key of the request. Undefined: there is no grace. */
	#grace: Map<string, Deferred<void>> | undefined;

	constructor(modules: FileLockModules) {
		this.#modules = modules;
		this.#state = createLockState(lockLimits, modules.simulation?.planted("locks-upgraded-blindly"));
		const left = createLockState(lockLimits);
		for (const record of modules.memory?.found ?? []) this.#replay(left, record);
		for (const [ino, { holds }] of left.resources)
			for (const { sinceMs, ...hold } of holds) apply(this.#state, { kind: "restore", ino, hold, sinceMs }, this.#nowMs);
	}

	// ── after a change of processes ────────────────────────────────────────────────────────────────────────────

	#replay(left: LockState, record: LockRecord): void {
		if (isNamed(record.request)) {
			this.#before.add(nameOf(record.request));
			this.#note(record.request);
		}
		if (record.kind === "note") return;
		const { class: lockClass, ino, owner: words, range, handle, pid, sinceRealMs } = record.lock;
		const owner = ownerOf({ id: hexOf(words), pid });
		const sinceMs = this.#nowMs - Math.max(0, this.#realMs - sinceRealMs);
		if (record.kind === "set")
			apply(left, { kind: "restore", ino, hold: { class: lockClass, owner, range, handle }, sinceMs }, this.#nowMs);
		else apply(left, { kind: "unlock", ino, owner, family: familyOf(lockClass), range }, this.#nowMs);
	}

	/** What was locked through files that are not open any more: their release was under way. */
	keepOnly(isOpen: (handle: number) => boolean): void {
		for (const [ino, { holds }] of [...this.#state.resources]) {
			const gone = new Set(holds.map(({ handle }) => handle).filter((handle) => handle !== undefined && !isOpen(handle)));
			for (const handle of gone) this.dropHandle(ino, handle as number);
		}
	}

	/** Whether a predecessor has carried the request out. */
	isDone(request: RequestName): boolean {
		return this.#before.has(nameOf(request));
	}

	/** No request of a predecessor can come again. */
	endPast(): void {
		if (this.#before.size > 0) this.#before = new Set();
	}

	// ── what doors ask ─────────────────────────────────────────────────────────────────────────────────────────

	/**
	 * Resolves when it is locked. A converted flock is given up first; an fcntl lock keeps what it has until it gets more.
	 * @param victim refused with EDEADLK instead of waiting for ever.
	 * @throws FsError EAGAIN (held, and `wait` is false), EDEADLK, ENOLCK (a bound), ECANCELED.
	 */
	async lock(lock: LocalLock, how: { readonly wait: boolean; readonly victim: boolean; readonly request: RequestName }): Promise<void> {
		const key = keyOf(how.request, lock);
		const owner = ownerOf(lock.owner);
		const lockClass: LockClass = `${lock.family}-${lock.exclusive ? "exclusive" : "shared"}`;
		const want = { kind: "range", class: lockClass, range: lock.range, handle: lock.handle } as const;
		const { wait: patient, victim } = how;
		if (this.#grace !== undefined) await this.#graceEnds(key, this.#grace);
		await this.#ask({ kind: "request", ino: lock.ino, key, owner, want, patient, victim, deadlineMs: undefined }, how.request);
	}

	/** Undefined: it is granted. Otherwise it waits. @throws FsError: it is refused. */
	#ask(request: Request, name: RequestName): Promise<void> | undefined {
		const { key } = request;
		const answer = this.#run(request, name);
		const mine = answer.findLast((effect) => "key" in effect && effect.key === key && effect.kind !== "set");
		assert(mine !== undefined, "C1: a request is answered");
		if (mine.kind === "refused") throw refusal(mine.code, mine.why);
		if (mine.kind !== "waiting") return undefined;
		const waiting = this.#waiting.get(key) ?? new Deferred<void>();
		this.#waiting.set(key, waiting);
		return waiting.promise;
	}

	/** @throws FsError ENOLCK: it would make more pieces of one file's locks than there may be. */
	unlock(lock: Omit<LocalLock, "exclusive" | "handle">, request: RequestName): void {
		const { ino, family, range } = lock;
		const effects = this.#run({ kind: "unlock", ino, owner: ownerOf(lock.owner), family, range }, request);
		for (const effect of effects) if (effect.kind === "refused" && effect.key === "") throw refusal(effect.code, effect.why);
	}

	/** The first lock that would be in the way. */
	conflict(lock: Omit<LocalLock, "handle">): HeldLock | undefined {
		const lockClass: LockClass = `${lock.family}-${lock.exclusive ? "exclusive" : "shared"}`;
		const hold = test(this.#state, lock.ino, doorId(lock.owner.id), { class: lockClass, range: lock.range });
		return hold === undefined ? undefined : this.#held(lock.ino, hold);
	}

	/** Gives up waiting, if it still waits: `lock` then throws ECANCELED. */
	cancel(request: RequestName): void {
		const key = `fuse:${nameOf(request)}`;
		const early = this.#grace?.get(key);
		if (early === undefined) this.#run({ kind: "cancel", key }, noRequest);
		else {
			this.#grace?.delete(key);
			early.reject(refusal("ECANCELED", "it was cancelled"));
		}
	}

	/** A process has closed one of its descriptors of the file: fcntl(2) takes all its locks there. */
	dropOwner(ino: number, owner: string, request: RequestName): void {
		if (!this.#state.resources.has(ino)) return;
		this.#run({ kind: "drop-owner", ino, owner: doorId(owner), family: "fcntl" }, request);
	}

	/** An open file is gone. */
	dropHandle(ino: number, handle: number): void {
		if (!this.#state.resources.has(ino)) return;
		this.#run({ kind: "drop-handle", ino, handle }, noRequest);
	}

	/** An operator's: locks of one owner (as `list` names it), or all. Answers how many ranges there were. */
	breakLocks(ino: number, owner: string | undefined): number {
		const before = this.#state.counters.broken;
		this.#run({ kind: "break-locks", ino, owner }, noRequest);
		return this.#state.counters.broken - before;
	}

	// ── what doors of clients elsewhere ask ────────────────────────────────────────────────────────────────────

	/**
	 * What becomes of a lock of a client elsewhere: undefined when it is granted, else it waits, and the promise settles when it is granted or was cancelled. The same request that comes again while it waits is the same one.
	 * Grace is the caller's to mind.
	 * @throws FsError as `lock`.
	 */
	lockRemote(lock: RemoteLock, wait: boolean): Promise<void> | undefined {
		const lockClass: LockClass = lock.exclusive ? "nfs-exclusive" : "nfs-shared";
		const want = { kind: "range", class: lockClass, range: lock.range, handle: undefined } as const;
		const owner = remoteOwner(lock.client, lock.owner);
		const request = { ino: lock.ino, key: remoteKey(lock), owner, want, patient: wait, victim: true, deadlineMs: undefined } as const;
		return this.#ask({ kind: "request", ...request }, noRequest);
	}

	/** @throws FsError ENOLCK, as `unlock`. */
	unlockRemote({ ino, client, owner, range }: Omit<RemoteLock, "exclusive">): void {
		const effects = this.#run({ kind: "unlock", ino, owner: remoteOwner(client, owner), family: "nfs", range }, noRequest);
		for (const effect of effects) if (effect.kind === "refused" && effect.key === "") throw refusal(effect.code, effect.why);
	}

	conflictRemote({ ino, client, owner, exclusive, range }: RemoteLock): HeldLock | undefined {
		const lockClass: LockClass = exclusive ? "nfs-exclusive" : "nfs-shared";
		const hold = test(this.#state, ino, remoteOwner(client, owner).id, { class: lockClass, range });
		return hold === undefined ? undefined : this.#held(ino, hold);
	}

	/** False: it did not wait. */
	cancelRemote(lock: RemoteLock): boolean {
		const key = remoteKey(lock);
		if (!this.#state.waiters.has(key)) return false;
		this.#run({ kind: "cancel", key }, noRequest);
		return true;
	}

	/** The ranges that one client has of a file. */
	heldRemote(
		client: number,
		ino: number,
	): readonly { readonly owner: number; readonly exclusive: boolean; readonly range: Range; readonly ageMs: number }[] {
		const of = remoteClient(client);
		return holdsOf(this.#state, ino)
			.filter(({ owner, class: held }) => owner.client === of && familyOf(held) === "nfs")
			.map((hold) => {
				const { exclusive, range, ageMs, owner } = this.#held(ino, hold);
				return { owner: owner.pid, exclusive, range, ageMs };
			});
	}

	/** Held before: entered as it was, without asking. */
	restoreRemote({ ino, client, owner, exclusive, range }: RemoteLock, sinceRealMs: number): void {
		const lockClass: LockClass = exclusive ? "nfs-exclusive" : "nfs-shared";
		const hold = { class: lockClass, owner: remoteOwner(client, owner), range, handle: undefined };
		apply(this.#state, { kind: "restore", ino, hold, sinceMs: this.#nowMs - Math.max(0, this.#realMs - sinceRealMs) }, this.#nowMs);
	}

	/** Clients elsewhere that hold a lock or wait for one, or have a share. */
	busyRemotes(): ReadonlySet<number> {
		const busy = new Set<number>();
		const note = ({ door, client }: Owner): void => {
			if (door === "nfs") busy.add(remoteNumber(client));
		};
		for (const { request } of this.#state.waiters.values()) note(request.owner);
		for (const { holds, opens } of this.#state.resources.values()) for (const { owner } of [...holds, ...opens]) note(owner);
		return busy;
	}

	/** Clients elsewhere that hold something of a file, by their numbers. */
	remoteClientsOf(ino: number): readonly number[] {
		const clients = holdsOf(this.#state, ino).flatMap(({ owner }) => (owner.door === "nfs" ? [remoteNumber(owner.client)] : []));
		return [...new Set(clients)];
	}

	/** A client is gone: its locks, its shares, and what it waited for. */
	dropRemote(client: number): void {
		this.#run({ kind: "drop-client", client: remoteClient(client) }, noRequest);
	}

	/** @throws FsError EBUSY (somebody denies it, or does what it would deny), ENOLCK. */
	share({ ino, client, owner: of, access, deny }: RemoteShare): void {
		const { id, owner } = shareOwner(client, of);
		const want = { kind: "open", id, sharing: { access, deny } } as const;
		const request = { ino, key: `${id}:${ino}`, owner, want, patient: false, victim: true, deadlineMs: undefined } as const;
		const later = this.#ask({ kind: "request", ...request }, noRequest);
		assert(later === undefined, "leases that an open would wait for are not given to anybody yet");
	}

	unshare({ ino, client, owner }: Pick<RemoteShare, "ino" | "client" | "owner">): void {
		this.#run({ kind: "close", ino, id: shareOwner(client, owner).id }, noRequest);
	}

	sharesOf(client: number, ino: number): readonly Omit<RemoteShare, "ino" | "client">[] {
		const before = `${remoteClient(client)}:share:`;
		return (this.#state.resources.get(ino)?.opens ?? [])
			.filter(({ id }) => id.startsWith(before))
			.map(({ id, sharing }) => ({ owner: id.slice(before.length), ...sharing }));
	}

	// ── grace ──────────────────────────────────────────────────────────────────────────────────────────────────

	get inGrace(): boolean {
		return this.#grace !== undefined;
	}

	/** T4, until `endGrace`. */
	beginGrace(): void {
		this.#grace ??= new Map();
	}

	endGrace(): void {
		const waiting = this.#grace;
		this.#grace = undefined;
		for (const one of waiting?.values() ?? []) one.resolve();
	}

	#graceEnds(key: string, grace: Map<string, Deferred<void>>): Promise<void> {
		const waiting = grace.get(key) ?? new Deferred<void>();
		grace.set(key, waiting);
		return waiting.promise;
	}

	// ── what operators ask ─────────────────────────────────────────────────────────────────────────────────────

	/** At most `limit` of each, by inode; `ino`: of one alone. */
	list(limit: number, ino?: number): { readonly held: readonly HeldLock[]; readonly waiting: readonly WaitingLock[] } {
		const inodes = ino === undefined ? [...this.#state.resources.keys()].sort((a, b) => a - b) : [ino];
		const held: HeldLock[] = [];
		const waiting: WaitingLock[] = [];
		for (const one of inodes) {
			for (const hold of holdsOf(this.#state, one)) if (held.length < limit) held.push(this.#held(one, hold));
			for (const waiter of waitersOf(this.#state, one)) {
				if (waiting.length >= limit || waiter.want.kind !== "range") continue;
				const { want, owner, sinceMs, key } = waiter;
				const waitsFor = [...new Set(waitedFor(this.#state, key).map(({ id }) => id))];
				waiting.push({ ...this.#held(one, { ...want, owner, sinceMs }), waitsFor });
			}
		}
		return { held, waiting };
	}

	figures(): LockFigures {
		const { total, waiters, resources, counters } = this.#state;
		return { held: total, waiting: waiters.size, files: resources.size, counters };
	}

	#held(ino: number, { class: lockClass, owner, range, sinceMs }: Pick<Hold, "class" | "owner" | "range" | "sinceMs">): HeldLock {
		const ageMs = Math.max(0, this.#nowMs - sinceMs);
		return { ino, family: familyOf(lockClass), exclusive: isExclusive(lockClass), range, owner, ageMs };
	}

	// ── effects ────────────────────────────────────────────────────────────────────────────────────────────────

	get #nowMs(): number {
		return this.#modules.clock.monotonicMs();
	}

	get #realMs(): number {
		const { seconds, nanoseconds } = this.#modules.clock.realtime();
		return seconds * 1000 + nanoseconds / 1e6;
	}

	#run(command: Command, request: RequestName): readonly Effect[] {
		const effects = apply(this.#state, command, this.#nowMs);
		this.#keep(command, effects, request);
		for (const effect of effects) this.#settle(effect);
		return effects;
	}

	#settle(effect: Effect): void {
		if (effect.kind !== "granted" && effect.kind !== "refused") return;
		const waiting = this.#waiting.get(effect.key);
		if (waiting === undefined) return;
		this.#waiting.delete(effect.key);
		if (effect.kind === "granted") waiting.resolve();
		else waiting.reject(refusal(effect.code, effect.why));
	}

	/** T1. */
	#keep(command: Command, effects: readonly Effect[], request: RequestName): void {
		const { memory } = this.#modules;
		if (memory === undefined) return;
		const records: LockRecord[] = [];
		for (const effect of effects) {
			if (isRemote(effect)) continue;
			if (effect.kind === "set") records.push(this.#record("set", effect.ino, effect.hold, requestOf(effect.key)));
			else if (effect.kind === "clear") {
				const owner: Owner = { id: effect.owner, client: "", door: "fuse", pid: 0 };
				const lockClass: LockClass = `${effect.family}-exclusive`;
				const cleared = { class: lockClass, owner, range: effect.range, handle: effect.handle, sinceMs: this.#nowMs };
				records.push(this.#record("clear", effect.ino, cleared, command.kind === "request" ? noRequest : request));
			}
		}
		if (records.length === 0) return;
		for (const record of records) this.#note(record.request);
		const worthIt = Math.max(fileLockLimits.leastRecords, 4 * this.#state.total);
		if (memory.used + records.length > Math.min(memory.capacity, worthIt) || !memory.append(records)) memory.rewrite(this.#all());
	}

	#record(kind: "set" | "clear", ino: number, hold: Hold, request: RequestName): LockRecord {
		const sinceRealMs = this.#realMs - Math.max(0, this.#nowMs - hold.sinceMs);
		const { class: lockClass, range, handle, owner } = hold;
		const lock: StoredLock = { class: lockClass, ino, owner: wordsOfHex(owner.id), range, handle, pid: owner.pid, sinceRealMs };
		return { kind, lock, request };
	}

	/** Everything that is held, and what may have to be answered again. */
	#all(): LockRecord[] {
		const records: LockRecord[] = [];
		for (const [ino, { holds }] of this.#state.resources)
			for (const hold of holds) if (hold.owner.door === "fuse") records.push(this.#record("set", ino, hold, noRequest));
		for (const request of this.#notes) records.push({ kind: "note", request });
		return records;
	}

	#note(request: RequestName): void {
		if (!isNamed(request)) return;
		this.#notes.push(request);
		if (this.#notes.length >= 2 * fileLockLimits.notes) this.#notes = this.#notes.slice(-fileLockLimits.notes);
	}
}

function ownerOf({ id, pid }: LocalOwner): Owner {
	assert(/^[0-9a-f]{16}$/.test(id), "an owner of this machine is a number of the kernel's");
	return { id: doorId(id), client: `fuse:${pid}`, door: "fuse", pid };
}

/** The roster class: not for the memory of this machine's locks. */
function isRemote(effect: Effect): boolean {
	return (effect.kind === "set" && effect.hold.owner.door !== "fuse") || (effect.kind === "clear" && effect.family === "nfs");
}

const remoteClient = (client: number): string => `nfs:${client}`;
/** The other way, for whoever shows an owner that is not of this machine. */
export const remoteNumber = (client: string): number => Number(client.slice("nfs:".length));

function remoteOwner(client: number, owner: number): Owner {
	return { id: `nfs:${client}:${owner}`, client: remoteClient(client), door: "nfs", pid: owner };
}

function remoteKey({ ino, client, owner, exclusive, range }: RemoteLock): string {
	return `nfs:${client}:${owner}:${ino}:${exclusive}:${range.start}:${range.end}`;
}

function shareOwner(client: number, owner: string): { readonly id: string; readonly owner: Owner } {
	const id = `${remoteClient(client)}:share:${owner}`;
	return { id, owner: { id, client: remoteClient(client), door: "nfs", pid: 0 } };
}

function hexOf([high, low]: readonly [number, number]): string {
	return high.toString(16).padStart(8, "0") + low.toString(16).padStart(8, "0");
}

function wordsOfHex(ownerId: string): readonly [number, number] {
	const hex = ownerId.slice(-16);
	return [Number.parseInt(hex.slice(0, 8), 16), Number.parseInt(hex.slice(8), 16)];
}

function nameOf({ low, high }: RequestName): string {
	return `${high}:${low}`;
}

/** Requests that nobody can send again have no number: theirs is what they ask for, which is the same request indeed. */
function keyOf(request: RequestName, { owner, ino, family, exclusive, range }: LocalLock): string {
	if (isNamed(request)) return `fuse:${nameOf(request)}`;
	return `local:${owner.id}:${ino}:${family}:${exclusive}:${range.start}:${range.end}`;
}

function requestOf(key: string): RequestName {
	const [door, high, low] = key.split(":");
	return door === "fuse" ? { high: Number(high), low: Number(low) } : noRequest;
}

function refusal(code: RefusalCode, why: string): FsError {
	return new FsError(code, `locks.${code.toLowerCase()}`, `not locked: ${why}`);
}
