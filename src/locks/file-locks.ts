/**
 * The lock table of a volume at work: performs the core's effects. Locks of local programs (fcntl, open file descriptions, flock) are of the volatile class: where a session outlives this process they stand in its lock memory
 * before whoever asked is told.
 *
 * Invariants
 *  T1 What a command changed is in the lock memory before any promise that it settles.
 *  T2 Each waiting request has one entry in `#waiting`; it goes when the core answers.
 *  T3 A request of a predecessor that changed something is not carried out again: `#before` has its name until no request can come again.
 */
import { assert } from "../base/assert.ts";
import { Deferred } from "../base/async.ts";
import { FsError } from "../base/errors.ts";
import type { Clock } from "../platform/interface.ts";
import { apply, createLockState, holdsOf, type LockState, test, waitedFor, waitersOf } from "./core.ts";
import type { Command, Effect, Hold, LockCounters, Owner, RefusalCode } from "./interface.ts";
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
}

const doorId = (id: string): string => `fuse:${id}`;
const noRequest: RequestName = { low: 0, high: 0 };

export class FileLocks {
	readonly #modules: FileLockModules;
	readonly #state: LockState = createLockState(lockLimits);
	readonly #waiting = new Map<string, Deferred<void>>();
	/** Names of requests that changed something, the newest last: carried over when the memory is written anew. */
	#notes: RequestName[] = [];
	#before = new Set<string>();

	constructor(modules: FileLockModules) {
		this.#modules = modules;
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
		const answer = this.#run({ kind: "request", ino: lock.ino, key, owner, want, patient, victim, deadlineMs: undefined }, how.request);
		const mine = answer.findLast((effect) => "key" in effect && effect.key === key && effect.kind !== "set");
		assert(mine !== undefined, "C1: a request is answered");
		if (mine.kind === "refused") throw refusal(mine.code, mine.why);
		if (mine.kind !== "waiting") return;
		const waiting = this.#waiting.get(key) ?? new Deferred<void>();
		this.#waiting.set(key, waiting);
		await waiting.promise;
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
		this.#run({ kind: "cancel", key: `fuse:${nameOf(request)}` }, noRequest);
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
		for (const [ino, { holds }] of this.#state.resources) for (const hold of holds) records.push(this.#record("set", ino, hold, noRequest));
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
