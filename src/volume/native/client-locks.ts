/**
 * Locks of clients elsewhere: the roster class (architecture, rule 6). The table is `locks/`; here is what outlives the process.
 *
 * Invariants
 *  R1 The record of a client is durable before its first lock.
 *  R2 What a client is told it holds, or holds no more, is committed: it survives the death of the process. The machine's death may take the last moments of it.
 *  R3 When it may have taken something, all ranges are forgotten and the state number rises, durably, before anything is locked; until grace ends nothing is locked but what was held before.
 *  R4 A lock is had again only by a client of the roster as it was, and not against what the record says another one held. After a clean end, when the records are exact, only what they say.
 *  R5 Whoever has had nothing again when grace ends leaves the roster, durably, before anything new is locked: it can have nothing again in a grace to come.
 *  R6 The witness says that all is known while there is no grace, and never during one.
 */
import { assert } from "../../base/assert.ts";
import { KeyedMutex } from "../../base/async.ts";
import { FsError, toFsError } from "../../base/errors.ts";
import type { FileLocks, RemoteLock, RemoteShare } from "../../locks/file-locks.ts";
import { overlaps, positionOf, type Range, without, wordsOf } from "../../locks/range.ts";
import type { Ino, LockClientRecord, LockHoldsRecord, RecordTransaction } from "../../records/interface.ts";
import { lockClientRecord, lockHoldsRecord, serviceRecord } from "../../records/kinds.ts";
import { maximumHeldShares, maximumHostNameBytes, maximumLockClients, maximumShareOwnerBytes } from "../../records/limits.ts";
import type { ClientLocks, EnrollingClient, GraceStatus, LockAnswer, LockClient } from "../interface.ts";
import type { Core } from "./core.ts";
import { limits } from "./limits.ts";
import type { LockWitness } from "./lock-witness.ts";

/** What the records are worth that a mount finds. `kept`: nothing was lost. `exact`: a clean end, and clients may have gone meanwhile. `inexact`: the last moments may be missing. */
export type FoundLocks = "kept" | "exact" | "inexact";

export interface ClientLockModules {
	readonly core: Core;
	readonly locks: FileLocks;
	readonly witness: LockWitness;
	/** What the witness said when the volume was opened. */
	readonly kept: boolean;
	/** The volume ended cleanly before. */
	readonly clean: boolean;
}

interface Recorded {
	readonly client: number;
	readonly owner: number;
	readonly exclusive: boolean;
	readonly range: Range;
}

interface Grace {
	/** The records are exact: only what they say may be had again, and when all of it is, grace is over. */
	readonly exact: boolean;
	/** Clients of before that have not begun anew since. */
	readonly entitled: Set<number>;
	/** What was recorded and not had again, by inode. */
	readonly recorded: Map<Ino, Recorded[]>;
	endsAtMs: number;
	cancelTimer: () => void;
	ending: boolean;
}

const nameKey = (name: string, address: string): string => `${address} ${name}`;

export class ClientLockBook implements ClientLocks {
	readonly #modules: ClientLockModules;
	readonly #core: Core;
	readonly #locks: FileLocks;
	readonly #roster = new Map<number, LockClientRecord>();
	readonly #byName = new Map<string, number>();
	readonly #enrolling = new KeyedMutex<string>();
	/** One transaction at a time for what one client holds of one file: the last one written is the newest. */
	readonly #writing = new KeyedMutex<string>();
	/** Since when clients hold nothing. */
	readonly #idleSinceMs = new Map<number, number>();
	/** Clients that have to be told of the state number, they may have left the roster. */
	readonly #untold = new Map<number, LockClientRecord>();
	/** Since the mount. */
	readonly reclaims = { granted: 0, refused: 0 };
	#state = 1;
	#grace: Grace | undefined;
	#cancelSweep: () => void = () => {};
	#stopped = false;

	constructor(modules: ClientLockModules) {
		this.#modules = modules;
		this.#core = modules.core;
		this.#locks = modules.locks;
	}

	// ── opening ────────────────────────────────────────────────────────────────────────────────────────────────

	/** Before anybody can lock. */
	async load(): Promise<void> {
		const service = await this.#core.view((tx) => tx.get(serviceRecord));
		this.#state = service?.lockState ?? 1;
		const roster = await this.#core.view((tx) => tx.scan(lockClientRecord, lockClientRecord.prefix(), { limit: maximumLockClients }));
		for (const { value } of roster) this.#enter(value);
		const holds = await this.#holds();
		const { kept, clean } = this.#modules;
		const exact = this.#roster.size === 0 || (clean && service?.locksExact === true);
		if (kept) this.#restore(holds);
		else if (holds.length > 0 || !exact) await this.#forget(holds, exact);
		if (service?.locksExact === true) await this.#setService({ locksExact: false });
		for (const client of this.#roster.values()) if (client.knownState !== this.#state) this.#untold.set(client.id, client);
		if (this.#grace === undefined) this.#bearWitness();
		this.#sweepLater();
	}

	#enter(client: LockClientRecord): void {
		this.#roster.set(client.id, client);
		this.#byName.set(nameKey(client.name, client.address), client.id);
	}

	#leave(id: number): void {
		const client = this.#roster.get(id);
		if (client === undefined) return;
		this.#roster.delete(id);
		this.#byName.delete(nameKey(client.name, client.address));
		this.#idleSinceMs.delete(id);
	}

	async #holds(): Promise<readonly LockHoldsRecord[]> {
		const all: LockHoldsRecord[] = [];
		for (let after: string | undefined; ; ) {
			const from: string | undefined = after;
			const batch = await this.#core.view((tx) =>
				tx.scan(lockHoldsRecord, lockHoldsRecord.prefix(), { limit: limits.scanBatch, ...(from === undefined ? {} : { after: from }) }),
			);
			for (const { value } of batch) all.push(value);
			if (batch.length < limits.scanBatch) return all;
			after = batch[batch.length - 1]?.key;
		}
	}

	#restore(holds: readonly LockHoldsRecord[]): void {
		for (const { client, ino, ranges, shares } of holds) {
			if (!this.#roster.has(client)) continue;
			for (const { owner, exclusive, start, end, since } of ranges) {
				const range = { start: positionOf(...start), end: positionOf(...end) };
				this.#locks.restoreRemote({ ino, client, owner, exclusive, range }, since);
			}
			for (const share of shares) this.#locks.restoreShare({ ino, client, ...share, host: this.#hostOf(client) });
		}
	}

	/** What its own calls come from. */
	#hostOf(client: number): string {
		return this.#roster.get(client)?.address ?? "";
	}

	/** R3. */
	async #forget(holds: readonly LockHoldsRecord[], exact: boolean): Promise<void> {
		this.#state = (this.#state + 2) % 0x8000_0000;
		const position = await this.#setService({ lockState: this.#state });
		const recorded = new Map<Ino, Recorded[]>();
		for (const { client, ino, ranges } of holds) {
			const ofFile = recorded.get(ino) ?? [];
			for (const { owner, exclusive, start, end } of ranges)
				ofFile.push({ client, owner, exclusive, range: { start: positionOf(...start), end: positionOf(...end) } });
			recorded.set(ino, ofFile);
		}
		await this.#core.engine.durable(position);
		for (const { client, ino } of holds) await this.#core.transact((tx) => tx.delete(lockHoldsRecord, client, ino));
		const entitled = new Set(this.#roster.keys());
		const endsAtMs = this.#nowMs + limits.graceMs;
		this.#grace = { exact, entitled, recorded, endsAtMs, cancelTimer: () => {}, ending: false };
		this.#locks.beginGrace();
		this.#armGrace(this.#grace);
		this.#core.logger.info("clients may have again what they had locked; nothing else is locked meanwhile", {
			clients: entitled.size,
			graceMs: limits.graceMs,
			exact,
		});
	}

	async #setService(change: { readonly lockState?: number; readonly locksExact?: boolean }): Promise<number> {
		const { position } = await this.#core.transact((tx) => {
			const service = tx.get(serviceRecord);
			if (service !== undefined) tx.put(serviceRecord, { ...service, ...change });
		});
		return position;
	}

	#bearWitness(): void {
		this.#modules.witness.write(this.#core.disks.roster.incarnation);
	}

	get #nowMs(): number {
		return this.#core.platform.clock.monotonicMs();
	}

	// ── the roster ─────────────────────────────────────────────────────────────────────────────────────────────

	get stateNumber(): number {
		return this.#state;
	}

	clients(): readonly LockClient[] {
		return [...this.#roster.values()];
	}

	find(name: string, address: string): LockClient | undefined {
		const id = this.#byName.get(nameKey(name, address));
		return id === undefined ? undefined : this.#roster.get(id);
	}

	enroll(asked: EnrollingClient): Promise<LockClient> {
		return this.#enrolling.run(nameKey(asked.name, asked.address), () => this.#enroll(asked));
	}

	/** R1. */
	async #enroll(asked: EnrollingClient): Promise<LockClient> {
		const known = this.find(asked.name, asked.address) as LockClientRecord | undefined;
		if (known !== undefined && isNewer(asked.state, known.clientState)) {
			// It has begun anew: what it held, it does not know any more.
			this.#core.logger.info("a client with locks has begun anew: they are released", { client: known.id, address: known.address });
			await this.release(known.id);
		} else if (known !== undefined) {
			this.#idleSinceMs.delete(known.id);
			const serverAddress = asked.serverAddress === "" ? known.serverAddress : asked.serverAddress;
			const clientState = asked.state === 0 ? known.clientState : asked.state;
			if (serverAddress === known.serverAddress && clientState === known.clientState) return known;
			return this.#keepClient({ ...known, serverAddress, clientState });
		}
		if (asked.name.length > maximumHostNameBytes)
			throw new FsError("ENOLCK", "volume.lock-client-name", `a name of ${asked.name.length} bytes: at most ${maximumHostNameBytes}`);
		this.#makeRoom(asked.address);
		const { name, address, serverAddress, state: clientState } = asked;
		const { result, position } = await this.#core.transact((tx, context) => {
			const service = tx.get(serviceRecord);
			assert(service !== undefined, "who serves clients has made the record of the service");
			const id = service.nextLockClient;
			const made = { id, name, address, serverAddress, clientState, knownState: this.#state, birthEpoch: context.epoch };
			tx.put(serviceRecord, { ...service, nextLockClient: id + 1 });
			tx.put(lockClientRecord, made, id);
			return made;
		});
		await this.#core.engine.durable(position);
		this.#enter(result);
		return result;
	}

	async #keepClient(client: LockClientRecord): Promise<LockClientRecord> {
		this.#enter(client);
		await this.#core.transact((tx) => tx.put(lockClientRecord, client, client.id));
		return client;
	}

	/** Those that hold nothing go, when there are too many. */
	#makeRoom(address: string): void {
		const here = [...this.#roster.values()].filter((client) => client.address === address);
		const tooMany = here.length >= limits.lockClientsOfAddress || this.#roster.size >= maximumLockClients;
		if (!tooMany) return;
		const candidates = here.length >= limits.lockClientsOfAddress ? here : [...this.#roster.values()];
		const busy = this.#locks.busyRemotes();
		const idle = candidates.find(({ id }) => !busy.has(id) && this.#grace?.entitled.has(id) !== true);
		if (idle === undefined)
			throw new FsError(
				"ENOLCK",
				"volume.lock-clients",
				`at most ${maximumLockClients} clients have locks, ${limits.lockClientsOfAddress} of one address`,
			);
		void this.#strike(idle.id);
	}

	/** Takes a client that holds nothing from the roster. */
	async #strike(id: number): Promise<void> {
		this.#leave(id);
		await this.#core
			.transact((tx) => tx.delete(lockClientRecord, id))
			.catch((error: unknown) =>
				this.#core.logger.warn("a client stays in the roster of locks", { error: toFsError(error, "volume.strike").message }),
			);
	}

	#sweepLater(): void {
		if (this.#stopped) return;
		this.#cancelSweep = this.#core.platform.clock.after(limits.lockSweepMs, () => {
			const busy = this.#locks.busyRemotes();
			for (const id of [...this.#roster.keys()]) this.#sweep(id, busy.has(id));
			this.#sweepLater();
		});
	}

	#sweep(id: number, busy: boolean): void {
		if (busy || this.#grace !== undefined || this.#untold.has(id)) {
			this.#idleSinceMs.delete(id);
			return;
		}
		const since = this.#idleSinceMs.get(id);
		if (since === undefined) this.#idleSinceMs.set(id, this.#nowMs);
		else if (this.#nowMs - since >= limits.lockClientIdleMs) void this.#strike(id);
	}

	async release(id: number): Promise<void> {
		this.#locks.dropRemote(id);
		this.#leave(id);
		this.#untold.delete(id);
		for (;;) {
			const { result: left } = await this.#core.transact((tx) => {
				const found = tx.scan(lockHoldsRecord, lockHoldsRecord.prefix(id), { limit: limits.scanBatch });
				for (const { value } of found.slice(0, limits.transactionChanges)) tx.delete(lockHoldsRecord, id, value.ino);
				if (found.length === 0) tx.delete(lockClientRecord, id);
				return found.length;
			});
			if (left === 0) break;
		}
		const grace = this.#grace;
		if (grace === undefined) return;
		grace.entitled.delete(id);
		for (const [ino, recorded] of grace.recorded)
			this.#setRecorded(
				grace,
				ino,
				recorded.filter(({ client }) => client !== id),
			);
		this.#endWhenNothingIsLeft(grace);
	}

	async begunAnew(name: string, address: string, state: number): Promise<readonly number[]> {
		const released: number[] = [];
		for (const client of [...this.#roster.values()]) {
			if (client.address !== address || !isSameHost(client.name, name)) continue;
			// Locks of after its beginning are its own: it told its state with them.
			if (client.clientState !== 0 && state !== 0 && !isNewer(state, client.clientState)) continue;
			await this.release(client.id);
			released.push(client.id);
		}
		return released;
	}

	label(id: number): string | undefined {
		const client = this.#roster.get(id);
		return client === undefined ? undefined : `${client.name}@${client.address}`;
	}

	untold(): readonly LockClient[] {
		return [...this.#untold.values()];
	}

	async told(id: number): Promise<void> {
		this.#untold.delete(id);
		const client = this.#roster.get(id);
		if (client !== undefined && client.knownState !== this.#state) await this.#keepClient({ ...client, knownState: this.#state });
	}

	// ── locks ──────────────────────────────────────────────────────────────────────────────────────────────────

	async lock(lock: RemoteLock, { wait, reclaim }: { readonly wait: boolean; readonly reclaim: boolean }): Promise<LockAnswer> {
		this.#requireClient(lock.client);
		if (reclaim) return this.#counted(() => this.#reclaim(lock));
		if (this.#grace !== undefined) return { kind: "grace" };
		const later = this.#locks.lockRemote(lock, wait);
		if (later === undefined) {
			await this.#keepGranted(lock);
			return { kind: "granted" };
		}
		const granted = later.then(() => this.#keepGranted(lock));
		if (!wait) {
			// A lease is in the way: the answer is known when it is given back.
			await granted;
			return { kind: "granted" };
		}
		// Whoever is told later may not listen any more.
		granted.catch(() => {});
		return { kind: "waiting", granted };
	}

	/** What is asked for again. */
	async #counted(work: () => Promise<LockAnswer>): Promise<LockAnswer> {
		try {
			const answer = await work();
			this.reclaims.granted++;
			return answer;
		} catch (error) {
			this.reclaims.refused++;
			throw error;
		}
	}

	#requireClient(id: number): void {
		if (!this.#roster.has(id))
			throw new FsError("ENOLCK", "volume.lock-client-gone", "the client has left the roster meanwhile: ask again");
	}

	/** R2: what cannot be kept is not held. */
	async #keepGranted(lock: RemoteLock): Promise<void> {
		try {
			await this.#keep(lock.client, lock.ino);
		} catch (error) {
			this.#locks.unlockRemote(lock);
			throw error;
		}
	}

	/** R4. */
	async #reclaim(lock: RemoteLock): Promise<LockAnswer> {
		const grace = this.#grace;
		if (grace === undefined || grace.ending) {
			if (this.#holdsAlready(lock)) return { kind: "granted" };
			throw new FsError("EAGAIN", "volume.grace-over", "the time to have locks again is over");
		}
		const others = (grace.recorded.get(lock.ino) ?? []).filter((one) => one.client !== lock.client);
		const against = others.some((one) => (one.exclusive || lock.exclusive) && overlaps(one.range, lock.range));
		const covered = !grace.exact || this.#holdsAlready(lock) || isRecorded(grace, lock);
		if (!grace.entitled.has(lock.client) || against || !covered)
			throw new FsError("EAGAIN", "volume.reclaim", "this lock was not held before the restart", { client: lock.client, ino: lock.ino });
		await this.#locks.lockRemote(lock, false);
		await this.#keepGranted(lock);
		this.#account(grace, lock);
		return { kind: "granted" };
	}

	#holdsAlready({ client, ino, owner, exclusive, range }: RemoteLock): boolean {
		return this.#locks
			.heldRemote(client, ino)
			.some((held) => held.owner === owner && covers(held.range, range) && (held.exclusive || !exclusive));
	}

	#account(grace: Grace, { client, ino, owner, range }: RemoteLock): void {
		const left = (grace.recorded.get(ino) ?? []).flatMap((one) => {
			if (one.client !== client || one.owner !== owner) return [one];
			return without(one.range, range).map((piece) => ({ ...one, range: piece }));
		});
		this.#setRecorded(grace, ino, left);
		this.#endWhenNothingIsLeft(grace);
	}

	#setRecorded(grace: Grace, ino: Ino, left: Recorded[]): void {
		if (left.length === 0) grace.recorded.delete(ino);
		else grace.recorded.set(ino, left);
	}

	async unlock(lock: Omit<RemoteLock, "exclusive">): Promise<void> {
		this.#locks.unlockRemote(lock);
		const grace = this.#grace;
		// What was given up is not had again.
		if (grace !== undefined) this.#account(grace, { ...lock, exclusive: true });
		await this.#keep(lock.client, lock.ino);
	}

	cancel(lock: RemoteLock): boolean {
		return this.#locks.cancelRemote(lock);
	}

	test(lock: RemoteLock): ReturnType<ClientLocks["test"]> {
		return this.#locks.conflictRemote(lock);
	}

	held(client: number, ino: Ino): ReturnType<ClientLocks["held"]> {
		return this.#locks.heldRemote(client, ino);
	}

	share(share: Omit<RemoteShare, "host">, reclaim: boolean): Promise<LockAnswer> {
		return reclaim ? this.#counted(() => this.#share(share, true)) : this.#share(share, false);
	}

	async #share(share: Omit<RemoteShare, "host">, reclaim: boolean): Promise<LockAnswer> {
		this.#requireClient(share.client);
		const grace = this.#grace;
		if (!reclaim && grace !== undefined) return { kind: "grace" };
		if (reclaim && grace?.entitled.has(share.client) !== true)
			throw new FsError("EBUSY", "volume.reclaim-share", "the time to have shares again is over");
		const has = this.#locks.sharesOf(share.client, share.ino);
		if (share.owner.length > maximumShareOwnerBytes || (has.length >= maximumHeldShares && !has.some(({ owner }) => owner === share.owner)))
			throw new FsError(
				"ENOLCK",
				"volume.shares",
				`at most ${maximumHeldShares} shares of a client in a file, named by ${maximumShareOwnerBytes} bytes`,
			);
		await this.#locks.share({ ...share, host: this.#hostOf(share.client) });
		try {
			await this.#keep(share.client, share.ino);
		} catch (error) {
			this.#locks.unshare(share);
			throw error;
		}
		return { kind: "granted" };
	}

	async unshare(share: Pick<RemoteShare, "ino" | "client" | "owner">): Promise<void> {
		this.#locks.unshare(share);
		await this.#keep(share.client, share.ino);
	}

	/** What an operator has taken away must not come back. */
	async keepAll(ino: Ino, clients: readonly number[]): Promise<void> {
		for (const client of clients) await this.#keep(client, ino);
	}

	#keep(client: number, ino: Ino): Promise<void> {
		return this.#writing.run(`${client} ${ino}`, async () => {
			await this.#core.transact((tx, { epoch }) => this.#writeHolds(tx, client, ino, epoch));
		});
	}

	/** As the table is when it is committed. */
	#writeHolds(tx: RecordTransaction, client: number, ino: Ino, birthEpoch: number): void {
		const nowMs = this.#realMs;
		const ranges = this.#locks.heldRemote(client, ino).map(({ owner, exclusive, range, ageMs }) => ({
			owner,
			exclusive,
			start: wordsOf(range.start),
			end: wordsOf(range.end),
			since: Math.max(0, Math.round(nowMs - ageMs)),
		}));
		const shares = this.#locks.sharesOf(client, ino);
		if (ranges.length + shares.length > 0) tx.put(lockHoldsRecord, { client, ino, ranges, shares, birthEpoch }, client, ino);
		else if (tx.get(lockHoldsRecord, client, ino) !== undefined) tx.delete(lockHoldsRecord, client, ino);
	}

	get #realMs(): number {
		const { seconds, nanoseconds } = this.#core.platform.clock.realtime();
		return seconds * 1000 + nanoseconds / 1e6;
	}

	// ── grace ──────────────────────────────────────────────────────────────────────────────────────────────────

	get grace(): GraceStatus | undefined {
		const grace = this.#grace;
		if (grace === undefined) return undefined;
		return { leftMs: Math.max(0, grace.endsAtMs - this.#nowMs), clients: grace.entitled.size, exact: grace.exact };
	}

	/** Clients can reach the service from now on. */
	reachable(): void {
		const grace = this.#grace;
		if (grace === undefined || grace.ending) return;
		grace.endsAtMs = this.#nowMs + limits.graceMs;
		this.#armGrace(grace);
	}

	#armGrace(grace: Grace): void {
		grace.cancelTimer();
		grace.cancelTimer = this.#core.platform.clock.after(Math.max(0, grace.endsAtMs - this.#nowMs), () => void this.#endGrace(grace));
	}

	#endWhenNothingIsLeft(grace: Grace): void {
		const allHad = grace.exact && grace.recorded.size === 0;
		if (grace.entitled.size > 0 && !allHad) return;
		void this.#endGrace(grace);
	}

	/** R5. */
	async #endGrace(grace: Grace): Promise<void> {
		if (grace.ending || this.#stopped) return;
		grace.ending = true;
		grace.cancelTimer();
		const busy = this.#locks.busyRemotes();
		const lost = [...grace.entitled].filter((id) => !busy.has(id));
		try {
			let position = 0;
			for (const id of lost) ({ position } = await this.#core.transact((tx) => tx.delete(lockClientRecord, id)));
			await this.#core.engine.durable(position);
		} catch (error) {
			this.#core.logger.warn("grace cannot end yet", { error: toFsError(error, "volume.grace").message });
			grace.ending = false;
			grace.endsAtMs = this.#nowMs + limits.graceRetryMs;
			if (!this.#stopped) this.#armGrace(grace);
			return;
		}
		for (const id of lost) this.#leave(id);
		this.#grace = undefined;
		this.#bearWitness();
		this.#locks.endGrace();
		this.#core.logger.info("grace is over", { clients: this.#roster.size, lost: lost.length });
	}

	/** Before the volume is shut down: nobody locks any more. */
	async stop(): Promise<void> {
		this.#stopped = true;
		this.#cancelSweep();
		this.#grace?.cancelTimer();
		if (this.#grace === undefined && this.#roster.size > 0) await this.#setService({ locksExact: true });
	}
}

function covers(outer: Range, inner: Range): boolean {
	return outer.start <= inner.start && outer.end >= inner.end;
}

function isRecorded(grace: Grace, { client, ino, owner, exclusive, range }: RemoteLock): boolean {
	const own = (grace.recorded.get(ino) ?? []).filter((one) => one.client === client && one.owner === owner);
	return own.some((one) => covers(one.range, range) && (one.exclusive || !exclusive));
}

/** A host may leave its domain out. */
function isSameHost(one: string, other: string): boolean {
	const [a, b] = [one.toLowerCase(), other.toLowerCase()];
	return a === b || a.startsWith(`${b}.`) || b.startsWith(`${a}.`);
}

/** State numbers rise, and wrap around (NSM): half of them are newer. 0 is no number. */
export function isNewer(state: number, known: number): boolean {
	return state !== 0 && known !== 0 && state !== known && (state - known) >>> 0 < 0x8000_0000;
}
