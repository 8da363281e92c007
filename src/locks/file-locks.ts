/**
 * The lock table of a volume at work: performs the core's effects. Locks of local programs (fcntl, open file descriptions, flock) are of the volatile class: where a session outlives this process they stand in its lock memory
 * before whoever asked is told. Locks of clients elsewhere are of the roster class: whoever calls for them keeps them in records, from which they are put back.
 *
 * Invariants
 *  T1 What a command changed is in the lock memory before any promise that it settles.
 *  T2 Each waiting request has one entry in `#waiting`; it goes when the core answers.
 *  T3 A request of a predecessor that changed something is not carried out again: `#before` has its name until no request can come again.
 *  T5 An inode is bound (admission.ts) whenever it is not PLAIN, or somebody waits to operate on it or to open it. While it is, the core knows every open file and every operation under way there.
 *  T6 Who waits to be admitted holds no admission.
 *  T7 A request that was given up waits for nobody any more: neither where it waits, nor where it would begin to.
 *  T4 While grace lasts nothing is locked but what was held before: who asks for more waits (programs here) or is sent away (clients elsewhere).
 */
import { assert } from "../base/assert.ts";
import { Deferred } from "../base/async.ts";
import { FsError, isFsError } from "../base/errors.ts";
import type { Clock, SimulationHooks } from "../platform/interface.ts";
import {
	type Access,
	type Admission,
	AdmissionTable,
	type Asker,
	type CallName,
	doorOf,
	isBoundByRanges,
	operationOf,
	type Place,
} from "./admission.ts";
import { apply, createLockState, holdsOf, isPlain, type LockState, nextTick, test, waitedFor, waitersOf } from "./core.ts";
import type { Command, Effect, Hold, LockCounters, LockDoor, Owner, RefusalCode, Request } from "./interface.ts";
import { admissionLimits, fileLockLimits, lockLimits } from "./limits.ts";
import { familyOf, isExclusive, type LeaseFamily, type LockClass, type LockFamily, type Sharing } from "./matrix.ts";
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
	/** Its address: what it does itself is not denied. */
	readonly host: string;
}

/** An open file of the volume, for the core: shown to it when the inode is bound. */
export interface OpenHandle {
	readonly handle: number;
	readonly asker: Asker;
	/** Bits of `share` in matrix.ts. */
	readonly access: number;
	/** Nobody is behind it now, and it gives way. */
	readonly yields?: boolean;
}

/** What a door asks to cache. */
export interface LeaseRequest {
	readonly ino: number;
	/** Names it; a door's clients keep their own apart. */
	readonly key: string;
	readonly door: LockDoor;
	readonly client: string;
	readonly family: LeaseFamily;
	/** Bits of `leaseBits` in matrix.ts. */
	readonly state: number;
}

export interface LeaseListener {
	/** To be given back down to `to`, with `answerLease`, before its time is over. */
	broken(to: number, epoch: number): void;
	/** Its time is over: it is `to` now. */
	revoked(to: number): void;
}

/** A byte-range lock as SMB has them: of one open, stacking, binding for other SMB opens. */
export interface SmbLock {
	readonly ino: number;
	readonly handle: number;
	readonly client: string;
	readonly exclusive: boolean;
	readonly range: Range;
	/** Of what the open caches: no reason to wait. */
	readonly leaseKey?: string | undefined;
}

/** An open that was there before a restart. */
export interface RestoredOpen extends Omit<OpenHandle, "access"> {
	readonly ino: number;
	readonly sharing: Sharing;
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

/** Somebody has it open and denies others something. */
export interface HeldShare {
	readonly ino: number;
	readonly owner: Owner;
	/** Bits of `share` in matrix.ts. */
	readonly access: number;
	readonly deny: number;
}

export interface HeldLease {
	readonly ino: number;
	readonly owner: Owner;
	readonly family: LeaseFamily;
	/** Bits of `leaseBits` in matrix.ts. */
	readonly state: number;
	/** To what it is being given back; undefined: nobody wants it. */
	readonly breakingTo: number | undefined;
	/** Operations and opens that wait, for this lease or another of the inode. */
	readonly waiting: number;
}

export interface LockFigures {
	/** Of shares that deny something, and leases. */
	readonly shares: number;
	readonly leases: number;
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
	readonly admissions?: AdmissionTable;
	/** Files that are open on an inode. */
	readonly opensOf?: (ino: number) => readonly OpenHandle[];
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
	readonly #admissions: AdmissionTable;
	readonly #listeners = new Map<string, LeaseListener>();
	/** Numbers what the core is asked. */
	#asked = 0;
	/** T7: what waits to be let in for a request that may be given up, by the name of the request; the key in the core. */
	readonly #calls = new Map<string, string>();
	/** Requests that were given up, the oldest first: they may be about to wait. */
	readonly #givenUp = new Set<string>();
	/** Who waits to be admitted or to open. */
	#waitingToEnter = 0;
	#cancelTick: () => void = () => {};
	#tickAtMs = Number.POSITIVE_INFINITY;
	#stopped = false;
	/** Inodes where something ends with time. */
	readonly #timed = new Set<number>();
	#onGiveWay: (ino: number, handle: number) => void = () => {};

	constructor(modules: FileLockModules) {
		this.#modules = modules;
		this.#state = createLockState(lockLimits, modules.simulation?.planted("locks-upgraded-blindly"));
		this.#admissions = modules.admissions ?? new AdmissionTable();
		this.#admissions.onDone((ino, id) => this.#run({ kind: "done", ino, id }, noRequest));
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
		if (!this.#admissions.passes(ino)) this.#run({ kind: "close", ino, id: handleId(handle) }, noRequest);
	}

	/** An operator's: locks, shares and leases of one owner (as `list` names it), or all. Answers how many there were. */
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
		const deadlineMs = wait ? undefined : this.#nowMs + admissionLimits.answerMs;
		const lockClass: LockClass = lock.exclusive ? "nfs-exclusive" : "nfs-shared";
		const want = { kind: "range", class: lockClass, range: lock.range, handle: undefined } as const;
		const owner = remoteOwner(lock.client, lock.owner);
		const request = { ino: lock.ino, key: remoteKey(lock), owner, want, patient: wait, victim: true, deadlineMs } as const;
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
		const shares = (this.#state.resources.get(ino)?.opens ?? []).filter(({ id }) => isShareId(id));
		const clients = [...holdsOf(this.#state, ino), ...shares].flatMap(({ owner }) =>
			owner.door === "nfs" ? [remoteNumber(owner.client)] : [],
		);
		return [...new Set(clients)];
	}

	/** A client is gone: its locks, its shares, and what it waited for. */
	dropRemote(client: number): void {
		this.#run({ kind: "drop-client", client: remoteClient(client) }, noRequest);
	}

	/**
	 * Undefined when it is granted, else it waits for operations that it denies to end, or for a lease.
	 * @throws FsError EBUSY (somebody denies it, or does what it would deny), ENOLCK, EAGAIN (it took too long).
	 */
	share({ ino, client, owner: of, access, deny, host }: RemoteShare): Promise<void> | undefined {
		const { id, owner } = shareOwner(client, of, host);
		const want = { kind: "open", id, sharing: { access, deny } } as const;
		const deadlineMs = this.#nowMs + admissionLimits.answerMs;
		if (deny !== 0) this.#bind(ino);
		return this.#ask({ kind: "request", ino, key: shareKey(id, ino), owner, want, patient: false, victim: false, deadlineMs }, noRequest);
	}

	/** Held before: entered as it was, without asking. */
	restoreShare({ ino, client, owner: of, access, deny, host }: RemoteShare): void {
		const { id, owner } = shareOwner(client, of, host);
		if (deny !== 0) this.#bind(ino);
		this.#run({ kind: "enter-open", ino, id, owner, sharing: { access, deny } }, noRequest);
	}

	unshare({ ino, client, owner }: Pick<RemoteShare, "ino" | "client" | "owner">): void {
		const { id } = shareOwner(client, owner);
		// Asked for and not had yet: it must not come later.
		if (this.#state.waiters.has(shareKey(id, ino))) this.#run({ kind: "cancel", key: shareKey(id, ino) }, noRequest);
		this.#run({ kind: "close", ino, id }, noRequest);
	}

	sharesOf(client: number, ino: number): readonly Omit<RemoteShare, "ino" | "client" | "host">[] {
		const before = `${remoteClient(client)}:share:`;
		return (this.#state.resources.get(ino)?.opens ?? [])
			.filter(({ id }) => id.startsWith(before))
			.map(({ id, sharing }) => ({ owner: textOfHex(id.slice(before.length)), ...sharing }));
	}

	// ── admissions ─────────────────────────────────────────────────────────────────────────────────────────────

	/** Whether operations of this kind are let in unasked. */
	passes(ino: number, access: Access, asker: Asker): boolean {
		return this.#admissions.passes(ino) && !isBoundByRanges(access, asker);
	}

	/**
	 * Lets an operation in at all the places that it touches; whoever gets them releases them. Waits, holding nothing, for leases that are in its way (T6).
	 * @throws FsError EBUSY `locks.denied` (an open elsewhere allows it to nobody), EAGAIN (it may be tried later; SMB: locked).
	 */
	async admit(places: readonly Place[], asker: Asker): Promise<Admission[]> {
		for (let tries = 0; tries < admissionLimits.tries; tries++) {
			const held: Admission[] = [];
			let wait: Promise<Admission> | undefined;
			try {
				for (const place of places) {
					const next = this.#enter(place, asker);
					if (next instanceof Promise) {
						wait = next;
						break;
					}
					held.push(next);
				}
			} catch (error) {
				for (const one of held) one.release();
				throw error;
			}
			if (wait === undefined) return held;
			for (const one of held) one.release();
			const granted = await wait;
			if (places.length === 1) return [granted];
			granted.release();
		}
		throw refusal("EAGAIN", "the inodes that it touches are leased again and again");
	}

	#enter({ ino, access, range, handle, opened = false }: Place, asker: Asker): Admission | Promise<Admission> {
		if (this.passes(ino, access, asker)) return this.#admissions.enter(ino, access, asker, opened);
		const id = `operation:${++this.#asked}`;
		// Ranges belong to the open: its own do not keep it out as others' do.
		const owner = handle !== undefined && isBoundByRanges(access, asker) ? smbOwner(handle, asker.clientInstance) : askerOwner(asker);
		const operation = operationOf(access, asker, opened);
		const want = { kind: "operation", id, ...operation, range, leaseKey: asker.leaseKey } as const;
		const later = this.#askToEnter({ ino, key: id, owner, want }, asker.call);
		const enter = (): Admission => this.#admissions.enter(ino, access, asker, opened, id);
		return later === undefined ? enter() : later.then(enter);
	}

	/** Opens and operations: refused at once, or waiting for leases alone. */
	#askToEnter(request: Pick<Request, "ino" | "key" | "owner" | "want">, call: CallName | undefined): Promise<void> | undefined {
		// Only who is refused or let in at once when there are that many; as they wait for what ends by itself, they will be fewer.
		const deadlineMs = request.owner.door === "nfs" ? this.#nowMs + admissionLimits.resendingMs : undefined;
		const later = this.#ask({ kind: "request", ...request, patient: false, victim: false, deadlineMs }, noRequest);
		if (later === undefined) return undefined;
		if (this.#waitingToEnter >= admissionLimits.waiting) {
			later.catch(() => {});
			this.#run({ kind: "cancel", key: request.key }, noRequest);
			throw refusal("EAGAIN", `${admissionLimits.waiting} operations wait for leases of this volume already`);
		}
		this.#waitingToEnter++;
		const entered = later.finally(() => void this.#waitingToEnter--);
		return call === undefined ? entered : this.#unlessGivenUp(nameOf(call), request.key, entered);
	}

	/** T7. @throws FsError EINTR. */
	async #unlessGivenUp(name: string, key: string, entered: Promise<void>): Promise<void> {
		this.#calls.set(name, key);
		if (this.#givenUp.has(name)) this.#run({ kind: "cancel", key }, noRequest);
		try {
			await entered;
		} catch (error) {
			if (!isFsError(error, "ECANCELED") || !this.#givenUp.has(name)) throw error;
			throw new FsError("EINTR", "locks.given-up", "the request was interrupted while it waited for a lease elsewhere", {}, error);
		} finally {
			if (this.#calls.get(name) === key) this.#calls.delete(name);
		}
	}

	/** The client of a request does not want to wait any more. If it waits for a lease, now or later, it fails with EINTR; whatever else it does ends by itself. */
	giveUp(call: CallName): void {
		const name = nameOf(call);
		this.#givenUp.add(name);
		const [oldest] = this.#givenUp;
		if (this.#givenUp.size > admissionLimits.givenUp) this.#givenUp.delete(oldest as string);
		const key = this.#calls.get(name);
		if (key !== undefined) this.#run({ kind: "cancel", key }, noRequest);
	}

	/**
	 * An open of a file that is bound, or that denies something. Answers a name for `opened` or `closeOpen`.
	 * @throws FsError EBUSY `locks.denied`, EAGAIN, ENOLCK.
	 */
	async open(ino: number, sharing: Sharing, asker: Asker): Promise<string> {
		// T4. A share that a client elsewhere had is not known before it asks for it again.
		if (sharing.deny !== 0 && this.#grace !== undefined) throw refusal("EAGAIN", "clients elsewhere may still have again what they denied");
		if (sharing.deny !== 0) this.#bind(ino);
		const id = `opening:${++this.#asked}`;
		await this.#askToEnter({ ino, key: id, owner: askerOwner(asker, id), want: { kind: "open", id, sharing } }, asker.call);
		return id;
	}

	/** The open has a handle now. */
	opened(ino: number, opening: string, handle: number): void {
		const open = this.#state.resources.get(ino)?.opens.find(({ id }) => id === opening);
		// Taken away by an operator meanwhile.
		if (open === undefined) return;
		const id = handleId(handle);
		// Whatever bound it may be gone meanwhile.
		if (!this.#admissions.passes(ino)) this.#run({ kind: "enter-open", ino, id, owner: open.owner, sharing: open.sharing }, noRequest);
		this.closeOpen(ino, opening);
	}

	/** Open before a restart: entered as it was, without asking. */
	restoreOpen({ ino, handle, asker, sharing, yields }: RestoredOpen): void {
		if (sharing.deny !== 0) this.#bind(ino);
		if (this.#admissions.passes(ino)) return;
		const id = handleId(handle);
		const entry = { ino, id, owner: askerOwner(asker, id), sharing };
		this.#run({ kind: "enter-open", ...entry, yields: yields === true ? handle : undefined }, noRequest);
	}

	/** Whether an open, and what is locked through it, give way to whoever is in conflict with it (`onGiveWay`): because nobody is behind it now. */
	setYields(ino: number, handle: number, yields: boolean): void {
		const id = handleId(handle);
		const open = this.#state.resources.get(ino)?.opens.find((one) => one.id === id);
		if (open === undefined || (open.yields !== undefined) === yields) return;
		const { owner, sharing } = open;
		this.#run({ kind: "enter-open", ino, id, owner, sharing, yields: yields ? handle : undefined }, noRequest);
	}

	/** Who is told that an open is in somebody's way and yields: it is to be ended (`dropHandle`), somebody waits for that. */
	onGiveWay(fn: (ino: number, handle: number) => void): void {
		this.#onGiveWay = fn;
	}

	/** It came to nothing. */
	closeOpen(ino: number, opening: string): void {
		this.#run({ kind: "close", ino, id: opening }, noRequest);
	}

	/** A3 of admission.ts, T5. */
	#bind(ino: number): void {
		if (!this.#admissions.passes(ino)) return;
		this.#admissions.bind(ino);
		for (const { handle, asker, access, yields } of this.#modules.opensOf?.(ino) ?? []) {
			const id = handleId(handle);
			const entry = { ino, id, owner: askerOwner(asker, id), sharing: { access, deny: 0 } };
			apply(this.#state, { kind: "enter-open", ...entry, yields: yields === true ? handle : undefined }, this.#nowMs);
		}
		for (const admission of this.#admissions.underWay(ino)) {
			if (admission.id !== undefined) continue;
			const { access, asker, opened } = admission;
			const id = `operation:${++this.#asked}`;
			admission.id = id;
			const what = operationOf(access, asker, opened);
			const operation = { kind: "operation", id, ...what, range: undefined, leaseKey: asker.leaseKey } as const;
			apply(this.#state, { kind: "enter-operation", ino, owner: askerOwner(asker), operation }, this.#nowMs);
		}
	}

	/** T5. */
	#freePlain(ino: number): void {
		const resource = this.#state.resources.get(ino);
		const isWaitedFor = resource?.queue.some(({ request: { want } }) => want.kind === "open" || want.kind === "operation") === true;
		if (this.#admissions.passes(ino) || isWaitedFor || !isPlain(this.#state, ino)) return;
		this.#admissions.free(ino);
		for (const { id } of resource?.opens ?? []) if (isHandleId(id)) apply(this.#state, { kind: "close", ino, id }, this.#nowMs);
	}

	// ── leases ─────────────────────────────────────────────────────────────────────────────────────────────────

	/** Never waits: answers what can be had now, 0 when nothing. Asked again with its key it may become more. */
	lease(
		{ ino, key, door, client, family, state }: LeaseRequest,
		listener: LeaseListener,
	): { readonly state: number; readonly epoch: number } {
		// What was leased before a restart is not known: nobody caches before it is clear who holds what.
		if (this.#grace !== undefined) return { state: 0, epoch: 0 };
		const owner: Owner = { id: key, client: `${door}:${client}`, door, pid: 0 };
		const name = leaseName(ino, key);
		this.#bind(ino);
		const effects = this.#run({ kind: "lease", ino, key, owner, family, state }, noRequest);
		const leased = effects.find((effect) => effect.kind === "leased");
		assert(leased?.kind === "leased", "a lease is answered");
		if (leased.state !== 0) this.#listeners.set(name, listener);
		return { state: leased.state, epoch: leased.epoch };
	}

	/** Leased before a restart. Answers how much of it nobody is in the way of. */
	restoreLease(
		{ ino, key, door, client, family, state, epoch }: LeaseRequest & { readonly epoch: number },
		listener: LeaseListener,
	): number {
		const owner: Owner = { id: key, client: `${door}:${client}`, door, pid: 0 };
		this.#bind(ino);
		const effects = this.#run({ kind: "restore-lease", ino, key, owner, family, state, epoch }, noRequest);
		const leased = effects.find((effect) => effect.kind === "leased");
		assert(leased?.kind === "leased", "a lease is answered");
		if (leased.state !== 0) this.#listeners.set(leaseName(ino, key), listener);
		return leased.state;
	}

	/** What is left of it, and how far it is to be given back; undefined: there is none. */
	leaseOf(
		ino: number,
		key: string,
	): { readonly state: number; readonly epoch: number; readonly breakingTo: number | undefined } | undefined {
		const lease = this.#state.resources.get(ino)?.leases.find((one) => one.key === key);
		return lease && { state: lease.state, epoch: lease.epoch, breakingTo: lease.breaking?.told };
	}

	/** Answers a break, or gives it back. @throws FsError EINVAL: more than is left. */
	answerLease(ino: number, key: string, state: number): void {
		const effects = this.#run({ kind: "lease-answer", ino, key, state }, noRequest);
		for (const effect of effects) if (effect.kind === "refused" && effect.key === key) throw refusal(effect.code, effect.why);
		this.#forgetListener(ino, key);
	}

	#forgetListener(ino: number, key: string): void {
		if (this.#state.resources.get(ino)?.leases.some((lease) => lease.key === key) !== true) this.#listeners.delete(leaseName(ino, key));
	}

	/** A session, a node or a machine of a door is gone: what it has cached, opened and locked, and what it waits for. */
	dropClient(door: LockDoor, client: string): void {
		this.#run({ kind: "drop-client", client: `${door}:${client}` }, noRequest);
		for (const name of [...this.#listeners.keys()]) {
			const at = name.indexOf(" ");
			this.#forgetListener(Number(name.slice(0, at)), name.slice(at + 1));
		}
	}

	// ── ranges of SMB ──────────────────────────────────────────────────────────────────────────────────────────

	/** Undefined when it is granted; otherwise it waits. Grace is the caller's to mind. @throws FsError EAGAIN (held), ENOLCK. */
	lockSmb({ ino, handle, client, exclusive, range, leaseKey }: SmbLock, wait: boolean): Promise<void> | undefined {
		this.#bind(ino);
		const want = { kind: "range", class: exclusive ? "smb-exclusive" : "smb-shared", range, handle, leaseKey } as const;
		const key = `smb:${handle}:${exclusive}:${range.start}:${range.end}:${++this.#asked}`;
		const deadlineMs = wait ? undefined : this.#nowMs + admissionLimits.answerMs;
		return this.#ask(
			{ kind: "request", ino, key, owner: smbOwner(handle, client), want, patient: wait, victim: true, deadlineMs },
			noRequest,
		);
	}

	/** Exactly one lock as it was made. @throws FsError ENOENT. */
	unlockSmb({ ino, handle, client, range }: Omit<SmbLock, "exclusive">): void {
		const effects = this.#run({ kind: "unlock", ino, owner: smbOwner(handle, client), family: "smb", range }, noRequest);
		for (const effect of effects) if (effect.kind === "refused" && effect.key === "") throw refusal(effect.code, effect.why);
	}

	/** Held before a restart: entered as it was, without asking. */
	restoreSmb({ ino, handle, client, exclusive, range }: SmbLock, sinceRealMs: number): void {
		this.#bind(ino);
		const hold = { class: exclusive ? "smb-exclusive" : "smb-shared", owner: smbOwner(handle, client), range, handle } as const;
		apply(this.#state, { kind: "restore", ino, hold, sinceMs: this.#nowMs - Math.max(0, this.#realMs - sinceRealMs) }, this.#nowMs);
	}

	/** The ranges of one open, in the order in which they were locked. */
	heldSmb(ino: number, handle: number): readonly { readonly exclusive: boolean; readonly range: Range; readonly sinceRealMs: number }[] {
		const { id } = smbOwner(handle, "");
		const nowMs = this.#nowMs;
		const realMs = this.#realMs;
		return holdsOf(this.#state, ino)
			.filter(({ owner }) => owner.id === id)
			.map((hold) => ({
				exclusive: isExclusive(hold.class),
				range: hold.range,
				sinceRealMs: Math.max(0, Math.round(realMs - Math.max(0, nowMs - hold.sinceMs))),
			}));
	}

	/** Whatever the open waits for is given up: ECANCELED. */
	cancelSmb(handle: number): void {
		const waiting = [...(this.#state.waitersByOwner.get(smbOwner(handle, "").id) ?? [])];
		for (const { request } of waiting) this.#run({ kind: "cancel", key: request.key }, noRequest);
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

	/** Both are at inodes that are bound, and nowhere else. */
	listBound(limit: number, ino?: number): { readonly shares: readonly HeldShare[]; readonly leases: readonly HeldLease[] } {
		const inodes = ino === undefined ? [...this.#admissions.bound].sort((a, b) => a - b) : [ino];
		const shares: HeldShare[] = [];
		const leases: HeldLease[] = [];
		for (const one of inodes) {
			const resource = this.#state.resources.get(one);
			if (resource === undefined) continue;
			const waiting = resource.queue.filter(({ request: { want } }) => want.kind === "open" || want.kind === "operation").length;
			for (const { owner, sharing } of resource.opens)
				if (sharing.deny !== 0 && shares.length < limit) shares.push({ ino: one, owner, ...sharing });
			for (const { owner, family, state, breaking } of resource.leases)
				if (leases.length < limit) leases.push({ ino: one, owner, family, state, breakingTo: breaking?.to, waiting });
		}
		return { shares, leases };
	}

	figures(): LockFigures {
		const { total, waiters, resources, counters } = this.#state;
		let [shares, leases] = [0, 0];
		for (const ino of this.#admissions.bound) {
			const resource = resources.get(ino);
			leases += resource?.leases.length ?? 0;
			for (const { sharing } of resource?.opens ?? []) if (sharing.deny !== 0) shares++;
		}
		return { held: total, waiting: waiters.size, files: resources.size, shares, leases, counters };
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
		if (this.#admissions.bound.size > 0) {
			const touched = "ino" in command ? [command.ino] : [...this.#admissions.bound];
			for (const ino of touched) this.#look(ino);
			this.#armTick();
		}
		return effects;
	}

	/** After something has changed there. What ends with time (breaks, and waits for leases or for operations) is at inodes that are bound. */
	#look(ino: number): void {
		if (nextTick(this.#state, [ino]) === Number.POSITIVE_INFINITY) this.#timed.delete(ino);
		else this.#timed.add(ino);
		this.#freePlain(ino);
	}

	/** The volume is shut down: nothing is told to anybody any more. */
	stop(): void {
		this.#cancelTick();
		this.#tickAtMs = Number.POSITIVE_INFINITY;
		this.#stopped = true;
	}

	#armTick(): void {
		if (this.#stopped) return;
		const atMs = nextTick(this.#state, this.#timed);
		if (atMs === this.#tickAtMs) return;
		this.#cancelTick();
		this.#tickAtMs = atMs;
		if (atMs === Number.POSITIVE_INFINITY) return;
		this.#cancelTick = this.#modules.clock.after(Math.max(0, atMs - this.#nowMs), () => {
			this.#tickAtMs = Number.POSITIVE_INFINITY;
			this.#run({ kind: "tick" }, noRequest);
		});
	}

	#settle(effect: Effect): void {
		if (effect.kind === "break") this.#tellHolder(effect.ino, effect.key, (listener) => listener.broken(effect.to, effect.epoch));
		else if (effect.kind === "revoked") {
			this.#tellHolder(effect.ino, effect.key, (listener) => listener.revoked(effect.to));
			this.#forgetListener(effect.ino, effect.key);
		} else if (effect.kind === "give-way") this.#onGiveWay(effect.ino, effect.handle);
		if (effect.kind !== "granted" && effect.kind !== "refused") return;
		const waiting = this.#waiting.get(effect.key);
		if (waiting === undefined) return;
		this.#waiting.delete(effect.key);
		if (effect.kind === "granted") waiting.resolve();
		else waiting.reject(refusal(effect.code, effect.why));
	}

	/** Not in this step: it may answer at once, and who asked has to hear first that it waits. */
	#tellHolder(ino: number, key: string, tell: (listener: LeaseListener) => void): void {
		const listener = this.#listeners.get(leaseName(ino, key));
		if (listener !== undefined) void Promise.resolve().then(() => tell(listener));
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
	return (
		(effect.kind === "set" && effect.hold.owner.door !== "fuse") ||
		(effect.kind === "clear" && (effect.family === "nfs" || effect.family === "smb"))
	);
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

function shareOwner(client: number, owner: string, host?: string): { readonly id: string; readonly owner: Owner } {
	const id = `${remoteClient(client)}:share:${hexOfText(owner)}`;
	return { id, owner: { id, client: remoteClient(client), door: "nfs", pid: 0, ...(host === undefined ? {} : { host }) } };
}

/** What clients call their shares is any bytes, and ids are printed. */
const hexOfText = (bytes: string): string => [...bytes].map((one) => one.charCodeAt(0).toString(16).padStart(2, "0")).join("");
const textOfHex = (hex: string): string => hex.replace(/../g, (one) => String.fromCharCode(Number.parseInt(one, 16)));
const isShareId = (id: string): boolean => id.startsWith("nfs:");
const shareKey = (id: string, ino: number): string => `${id}:${ino}`;
const handleId = (handle: number): string => `handle:${handle}`;
const isHandleId = (id: string): boolean => id.startsWith("handle:");
const leaseName = (ino: number, key: string): string => `${ino} ${key}`;
const smbOwner = (handle: number, client: string): Owner => ({ id: `smb:${handle}`, client: `smb:${client}`, door: "smb", pid: 0 });

/** Of an operation, or (with an id) of an open. Calls of an NFS 3 client name no open: its machine is all that is known. */
function askerOwner(asker: Asker, id?: string): Owner {
	const { clientInstance: instance } = asker;
	const door = doorOf(asker);
	const client = door === "nfs" ? `nfs@${instance}` : `${door}:${instance}`;
	// What a client caches and what it has open under the same key are one owner's.
	const owner: Owner = { id: id === undefined ? `${client}:operation` : (asker.leaseKey ?? id), client, door, pid: 0 };
	if (door === "nfs") return { ...owner, host: instance };
	return asker.door === "control" ? { ...owner, firm: true } : owner;
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
	const site = code === "EBUSY" ? "locks.denied" : `locks.${code.toLowerCase()}`;
	return new FsError(code, site, `not to be had now: ${why}`);
}
