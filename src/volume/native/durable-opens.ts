/**
 * Opens that are kept by record (architecture, rule 6): durable and persistent handles of SMB clients ([MS-SMB2] 3.3.5.9.7 to 3.3.5.9.12, 3.3.7.1, 3.3.4.7). The table is `locks/`, the handle one of the volume's; here is what
 * outlives connection and process.
 *
 * Invariants
 *  D1 The record of an open is durable before it is answered, and so is every range, unlock and change of its lease.
 *  D2 What an open gives up leaves the record before it leaves the table; what it gets enters the table before the record. So a record never says less than what others were kept from, and nothing is granted to somebody else
 *     that a record still claims.
 *  D3 While the record is there, the handle is open: the inode is not taken apart. The record goes first, in a transaction before that of the inode.
 *  D4 Nobody has an open again but the client and user that made it, with the GUID that they gave it, and only while it waits for them.
 *  D5 An open that waits ends with its time; one that is not persistent ends for whoever is in conflict with it (a lease to keep handles is broken, a share or a range stands in the way), but for nobody while grace lasts.
 *  D6 Opens with one lease key (of one client, of one inode) have one lease, and it goes with the last of them.
 */
import { assert } from "../../base/assert.ts";
import { KeyedMutex } from "../../base/async.ts";
import { FsError, toFsError } from "../../base/errors.ts";
import type { FileLocks, OpenHandle } from "../../locks/file-locks.ts";
import { leaseBits, type Sharing } from "../../locks/matrix.ts";
import { positionOf, type Range, sameRange, wordsOf } from "../../locks/range.ts";
import { guardedFlags } from "../../namespace/flags.ts";
import type { DurableOpenRecord, Ino, OperationContext, RecordTransaction } from "../../records/interface.ts";
import { durableOpenRecord, durableRangesRecord, inodeRecord } from "../../records/kinds.ts";
import { maximumDurableOpens, maximumPrincipalBytes } from "../../records/limits.ts";
import type {
	Attributes,
	Caller,
	DurableGrant,
	DurableListener,
	DurableOpen,
	DurableOpens,
	DurableRequest,
	Guid,
	HandleId,
	LockAnswer,
	Opened,
	OpenIntent,
	Reconnect,
} from "../interface.ts";
import type { Core } from "./core.ts";
import { durableHandleBase, type Handle, type HandleTable } from "./handles.ts";
import type { DurableStatus } from "./interface.ts";
import { limits } from "./limits.ts";

export interface DurableModules {
	readonly core: Core;
	readonly locks: FileLocks;
	readonly handles: HandleTable;
	/** Lets a handle go: its locks, and the inode where nobody else has it open. */
	readonly close: (handle: HandleId) => void;
	readonly attributesOf: (ino: Ino) => Promise<Attributes>;
	/** What was written and not synced is there still: the machine has not lost power since. */
	readonly kept: boolean;
}

/** An open that is to be durable, until it is. */
export interface DurableAsked {
	readonly request: DurableRequest;
	/** As whom the volume and the lock table know the open: its client, not the session of the moment. */
	readonly caller: Caller;
	readonly intent: OpenIntent;
	readonly sharing: Sharing;
	/** Undefined before the first transaction. */
	record: DurableOpenRecord | undefined;
	/** It may be among the records. */
	isKept: boolean;
}

interface Durable {
	record: DurableOpenRecord;
	/** Who stands behind it in the lock table. */
	caller: Caller;
	readonly sharing: Sharing;
	state: "opening" | "connected" | "waiting" | "ending";
	/** Of one that waits; monotonic. */
	deadlineMs: number;
	cancelTimer: () => void;
	/** Nobody is in its way before it could be had again after a restart. */
	inGrace: boolean;
}

interface Group {
	readonly ino: Ino;
	/** In the lock table. */
	readonly key: string;
	readonly opens: Set<Durable>;
}

const guidPattern = /^[0-9a-f]{32}$/;
const nobody: DurableListener = { broken: () => {}, revoked: () => {}, ended: () => {} };

export class DurableOpenBook implements DurableOpens {
	readonly #modules: DurableModules;
	readonly #core: Core;
	readonly #locks: FileLocks;
	readonly #opens = new Map<HandleId, Durable>();
	readonly #byGuid = new Map<string, Durable>();
	/** GUIDs of opens under way. */
	readonly #asked = new Set<string>();
	readonly #groups = new Map<string, Group>();
	/** One change of the records of an open, or of a lease, at a time. */
	readonly #writing = new KeyedMutex<string>();
	readonly #background = new Set<Promise<void>>();
	/** Records that nobody stands behind and that could not be deleted yet. */
	readonly #doomed = new Set<number>();
	readonly #counts = { granted: 0, reconnected: 0, refused: 0, timedOut: 0, conflicts: 0, broken: 0, overLimit: 0 };
	#listener: DurableListener = nobody;
	#graceLeft = 0;
	#cancelGrace: () => void = () => {};
	#stopped = false;

	constructor(modules: DurableModules) {
		this.#modules = modules;
		this.#core = modules.core;
		this.#locks = modules.locks;
		this.#locks.onGiveWay((_ino, handle) => this.#later(async () => this.#endForConflict(this.#opens.get(handle))));
		modules.handles.onFail((handle) => this.#later(() => this.#rememberFailure(handle)));
	}

	// ── opening the volume ─────────────────────────────────────────────────────────────────────────────────────

	/** Before anybody can open or lock, and before anything is reaped. */
	async load(): Promise<void> {
		for (let after: string | undefined; ; ) {
			const from: string | undefined = after;
			const batch = await this.#core.view((tx) =>
				tx.scan(durableOpenRecord, durableOpenRecord.prefix(), { limit: limits.scanBatch, ...(from === undefined ? {} : { after: from }) }),
			);
			for (const { value } of batch) await this.#restore(value);
			if (batch.length < limits.scanBatch) break;
			after = batch[batch.length - 1]?.key;
		}
		for (const group of this.#groups.values()) this.#restoreLease(group);
		if (this.#opens.size === 0) return;
		this.#beginGrace();
		this.#core.logger.info("durable opens wait for their clients", { opens: this.#opens.size, graceMs: limits.graceMs });
	}

	async #restore(record: DurableOpenRecord): Promise<void> {
		const { id, ino } = record;
		const { inode, ranges } = await this.#core.view((tx) => ({
			inode: tx.get(inodeRecord, ino),
			ranges: tx.get(durableRangesRecord, id)?.ranges ?? [],
		}));
		if (inode === undefined) {
			this.#core.logger.warn("the record of an open file whose inode is gone is deleted", { ino, open: id });
			await this.#deleteRecords([id]);
			return;
		}
		const caller = callerOf(record);
		// What was written and not synced may be gone with the power, and the client does not know.
		const isUnsure = record.failed || (!this.#modules.kept && record.write && !record.sync);
		const { read, write, append, sync } = record;
		const restriction = inode.flags & guardedFlags;
		const handle = this.#modules.handles.add({ ino, caller, read, write, append, sync, restriction }, id);
		if (isUnsure) handle.error = lostError(id);
		const sharing = { access: record.access, deny: record.deny };
		const open = this.#enter({ ...record, failed: isUnsure }, caller, sharing, "waiting");
		open.inGrace = true;
		this.#graceLeft++;
		this.#locks.restoreOpen({ ino, handle: id, asker: caller, sharing });
		for (const { exclusive, start, end, since } of ranges) {
			const range = { start: positionOf(...start), end: positionOf(...end) };
			this.#locks.restoreSmb({ ino, handle: id, client: record.clientGuid, exclusive, range }, since);
		}
		if (isUnsure && !record.failed) await this.#core.transact((tx) => tx.put(durableOpenRecord, open.record, id));
	}

	/** What all its records say: a change of it was under way where they differ, and not answered. A record whose open has come no further than its first transaction knows nothing of the lease (epoch 0). */
	#restoreLease(group: Group): void {
		const records = [...group.opens].map(({ record }) => record).filter(({ lease }) => lease !== undefined && lease.epoch > 0);
		const state = records.reduce((common, { lease }) => common & (lease?.state ?? 0), 7);
		const epoch = records.reduce((most, { lease }) => Math.max(most, lease?.epoch ?? 0), 0) + 1;
		const [first] = records;
		if (state === 0 || first === undefined) return;
		const { ino, key } = group;
		this.#locks.restoreLease({ ino, key, door: "smb", client: first.clientGuid, family: "smb", state, epoch }, this.#leaseListener(group));
	}

	#beginGrace(): void {
		this.#cancelGrace();
		if (this.#graceLeft > 0) this.#cancelGrace = this.#core.platform.clock.after(limits.graceMs, () => this.#endGrace());
		for (const open of this.#opens.values()) if (open.state === "waiting") this.#wait(open);
	}

	/** D5: from now on. */
	#endGrace(): void {
		this.#cancelGrace();
		this.#graceLeft = 0;
		for (const open of this.#opens.values()) {
			if (!open.inGrace) continue;
			open.inGrace = false;
			this.#yieldIfItMay(open);
		}
	}

	#leaveGrace(open: Durable): void {
		if (!open.inGrace) return;
		open.inGrace = false;
		if (--this.#graceLeft === 0) this.#cancelGrace();
	}

	// ── a new one ──────────────────────────────────────────────────────────────────────────────────────────────

	/** Undefined: it is an ordinary open, as there are too many already. `release` follows in any case. @throws FsError EINVAL, ENOTSUP, EEXIST. */
	ask(caller: Caller, intent: OpenIntent, sharing: Sharing): DurableAsked | undefined {
		const request = intent.durable;
		if (request === undefined) return undefined;
		if (caller.door !== "smb")
			throw new FsError("ENOTSUP", "volume.durable-door", `not supported: durable opens of the door ${caller.door}`, { door: caller.door });
		checkRequest(request, caller);
		const guids = guidsOf(request);
		if (this.#byGuid.has(guids) || this.#asked.has(guids))
			throw new FsError(
				"EEXIST",
				"volume.durable-exists",
				"this client has an open of that GUID already: it is a request that comes again",
				{
					handle: this.#byGuid.get(guids)?.record.id,
				},
			);
		if (this.#opens.size + this.#asked.size >= maximumDurableOpens) {
			this.#counts.overLimit++;
			return undefined;
		}
		this.#asked.add(guids);
		const leaseKey = request.lease === undefined ? {} : { leaseKey: leaseName(request.clientGuid, request.lease.key) };
		// Of a persistent one, what is answered is durable (architecture, rule 5).
		const sync = intent.sync === true || request.persistent;
		return {
			request,
			caller: { ...caller, clientInstance: request.clientGuid, ...leaseKey },
			intent: { ...intent, sync },
			sharing,
			record: undefined,
			isKept: false,
		};
	}

	release({ request }: DurableAsked): void {
		this.#asked.delete(guidsOf(request));
	}

	/** Part of the first transaction of the open. A file that it makes is not there without the record: the request that comes again after a death finds the open, and no file that exists already. */
	enter(tx: RecordTransaction, context: OperationContext, asked: DurableAsked, ino: Ino, made: boolean): void {
		const { request, caller, intent, sharing } = asked;
		const { clientGuid, createGuid, persistent, timeoutMs, lease } = request;
		const { seconds, nanoseconds } = context.now;
		asked.record = {
			id: durableHandleBase + context.numbers.pending(),
			ino,
			clientGuid,
			createGuid,
			persistent,
			timeoutMs: Math.min(timeoutMs === 0 ? limits.durableUsualMs : timeoutMs, limits.durableMostMs),
			uid: caller.uid,
			gid: caller.gid,
			principal: caller.principal ?? "",
			read: intent.access.read,
			write: intent.access.write,
			append: intent.append ?? false,
			sync: intent.sync ?? false,
			...sharing,
			lease: lease === undefined ? undefined : { key: lease.key, state: 0, epoch: 0 },
			failed: false,
			since: seconds * 1000 + Math.floor(nanoseconds / 1e6),
			birthEpoch: context.epoch,
		};
		asked.isKept = made;
		if (made) tx.put(durableOpenRecord, asked.record, asked.record.id);
	}

	/** D1. The handle has the record's number. */
	async begin(asked: DurableAsked, handle: Handle): Promise<DurableGrant> {
		assert(asked.record?.id === handle.id, "a durable open has the number of its record");
		const open = this.#enter(asked.record, asked.caller, asked.sharing, "opening");
		asked.isKept = true;
		const { lease } = asked.request;
		const group = this.#groupOf(open);
		const position = await this.#writing.run(keyOf(open, group), () => {
			if (group === undefined) return this.#writeOpens([open]);
			// Not before its turn: an answer that is being written would go into the records as this finds the lease, and count as this leaves it.
			if (lease !== undefined) this.#takeLease(open, group, lease.state);
			return this.#writeLease(group);
		});
		if (this.#core.platform.simulation?.planted("durable-open-unsynced") !== true) await this.#core.engine.durable(position);
		open.state = "connected";
		this.#counts.granted++;
		// Its client has a break still to hear if it was away.
		if (group !== undefined && this.#there(group).length === 1) this.#tellAgain(open, group);
		return this.#grant(open);
	}

	/** The open came to nothing. */
	async undo({ record, isKept }: DurableAsked): Promise<void> {
		if (record === undefined || !isKept) return;
		const open = this.#opens.get(record.id);
		if (open !== undefined) this.#leave(open);
		await this.#deleteRecords([record.id]).catch((error: unknown) => {
			this.#doomed.add(record.id);
			this.#core.logger.warn("the record of an open that failed stays for now", { error: toFsError(error, "volume.durable-undo").message });
			this.#core.platform.clock.after(limits.durableRetryMs, () => this.#later(() => this.#deleteDoomed()));
		});
	}

	async #deleteDoomed(): Promise<void> {
		const all = [...this.#doomed].slice(0, limits.transactionChanges / 2);
		await this.#deleteRecords(all);
		for (const id of all) this.#doomed.delete(id);
	}

	#grant({ record }: Durable): DurableGrant {
		const { persistent, timeoutMs, lease } = record;
		return { persistent, timeoutMs, lease: lease && { state: lease.state, epoch: lease.epoch } };
	}

	#enter(record: DurableOpenRecord, caller: Caller, sharing: Sharing, state: Durable["state"]): Durable {
		const open: Durable = { record, caller, sharing, state, deadlineMs: 0, cancelTimer: () => {}, inGrace: false };
		this.#opens.set(record.id, open);
		this.#byGuid.set(guidsOf(record), open);
		if (caller.leaseKey === undefined) return open;
		const name = groupName(record.ino, caller.leaseKey);
		const group = this.#groups.get(name) ?? { ino: record.ino, key: caller.leaseKey, opens: new Set() };
		this.#groups.set(name, group);
		group.opens.add(open);
		return open;
	}

	/** D6. Its handle is the caller's to let go. */
	#leave(open: Durable): void {
		const { record } = open;
		open.state = "ending";
		open.cancelTimer();
		this.#opens.delete(record.id);
		this.#byGuid.delete(guidsOf(record));
		this.#leaveGrace(open);
		this.#locks.cancelSmb(record.id);
		const group = this.#groupOf(open);
		if (group === undefined) return;
		group.opens.delete(open);
		if (group.opens.size > 0) return;
		this.#groups.delete(groupName(group.ino, group.key));
		if (this.#locks.leaseOf(group.ino, group.key) !== undefined) this.#locks.answerLease(group.ino, group.key, 0);
	}

	#groupOf({ record, caller }: Durable): Group | undefined {
		return caller.leaseKey === undefined ? undefined : this.#groups.get(groupName(record.ino, caller.leaseKey));
	}

	// ── what its client asks ───────────────────────────────────────────────────────────────────────────────────

	/** @throws FsError EBADF. */
	#connected(handle: HandleId): Durable {
		const open = this.#opens.get(handle);
		if (open?.state === "connected") return open;
		throw new FsError("EBADF", "volume.durable-handle", `handle ${handle} is no durable open of a client that is there`, { handle });
	}

	async lock(
		handle: HandleId,
		{ exclusive, range }: { readonly exclusive: boolean; readonly range: Range },
		wait: boolean,
	): Promise<LockAnswer> {
		const open = this.#connected(handle);
		if (this.#locks.inGrace) return { kind: "grace" };
		const { ino, clientGuid } = open.record;
		const later = this.#locks.lockSmb({ ino, handle, client: clientGuid, exclusive, range, leaseKey: open.caller.leaseKey }, wait);
		const keep = (): Promise<void> => this.#keepLocked(open, range);
		if (later === undefined) {
			await keep();
			return { kind: "granted" };
		}
		const granted = later.then(keep);
		if (!wait) {
			await granted;
			return { kind: "granted" };
		}
		granted.catch(() => {});
		return { kind: "waiting", granted };
	}

	/** What cannot be kept is not held. */
	async #keepLocked(open: Durable, range: Range): Promise<void> {
		const { id, ino, clientGuid } = open.record;
		try {
			await this.#core.engine.durable(await this.#writing.run(rangesKey(id), () => this.#writeRanges(open)));
		} catch (error) {
			const isHeld = this.#locks.heldSmb(ino, id).some((one) => sameRange(one.range, range));
			if (isHeld) this.#locks.unlockSmb({ ino, handle: id, client: clientGuid, range });
			throw error;
		}
	}

	/** D2: the record first. */
	async unlock(handle: HandleId, range: Range): Promise<void> {
		const open = this.#connected(handle);
		const { ino, clientGuid } = open.record;
		const position = await this.#writing.run(rangesKey(handle), async () => {
			const held = this.#locks.heldSmb(ino, handle).filter((one) => sameRange(one.range, range));
			if (held.length === 0) throw new FsError("ENOENT", "volume.durable-unlock", "this open has no such lock", { handle });
			const at = await this.#writeRanges(open, range);
			if (this.#opens.get(handle) === open) this.#locks.unlockSmb({ ino, handle, client: clientGuid, range });
			return at;
		});
		await this.#core.engine.durable(position);
	}

	/** As the table is when it is committed, but for one lock of this range. @throws FsError EBADF: it has ended meanwhile. */
	async #writeRanges(open: Durable, without?: Range): Promise<number> {
		const { id, ino } = open.record;
		const { position } = await this.#core.transact((tx, { epoch }) => {
			if (this.#opens.get(id) !== open || open.state === "ending") throw endedError(id);
			const held = [...this.#locks.heldSmb(ino, id)];
			if (without !== undefined) {
				// As the table does: an exclusive one before a shared one.
				const same = held.filter((one) => sameRange(one.range, without));
				const gone = same.find(({ exclusive }) => exclusive) ?? same[0];
				if (gone !== undefined) held.splice(held.indexOf(gone), 1);
			}
			const ranges = held.map(({ exclusive, range, sinceRealMs: since }) => ({
				exclusive,
				start: wordsOf(range.start),
				end: wordsOf(range.end),
				since,
			}));
			if (ranges.length > 0) tx.put(durableRangesRecord, { id, ranges, birthEpoch: epoch }, id);
			else if (tx.get(durableRangesRecord, id) !== undefined) tx.delete(durableRangesRecord, id);
		});
		return position;
	}

	async lease(handle: HandleId, state: number): Promise<{ readonly state: number; readonly epoch: number }> {
		const open = this.#connected(handle);
		const group = this.#groupOf(open);
		if (group === undefined) throw new FsError("EINVAL", "volume.durable-lease", "the open was made without a key for a lease", { handle });
		const position = await this.#writing.run(leaseKey(group), () => {
			this.#takeLease(open, group, state);
			return this.#writeLease(group);
		});
		await this.#core.engine.durable(position);
		const { lease } = open.record;
		return { state: lease?.state ?? 0, epoch: lease?.epoch ?? 0 };
	}

	#takeLease({ record, caller }: Durable, group: Group, state: number): void {
		const { ino, key } = group;
		const asked = { ino, key, door: caller.door as "smb", client: record.clientGuid, family: "smb", state } as const;
		this.#locks.lease(asked, this.#leaseListener(group));
	}

	/** The records are to say what the table says, or what it is about to. */
	#noteLease(group: Group, state?: number): void {
		const now = this.#locks.leaseOf(group.ino, group.key);
		for (const open of group.opens) {
			const { lease } = open.record;
			if (lease === undefined) continue;
			open.record = { ...open.record, lease: { key: lease.key, state: state ?? now?.state ?? 0, epoch: now?.epoch ?? lease.epoch } };
		}
	}

	/** D2: the records first. */
	async answerLease(handle: HandleId, state: number): Promise<void> {
		const open = this.#connected(handle);
		const group = this.#groupOf(open);
		const isAllowed = (): boolean => {
			const now = group && this.#locks.leaseOf(group.ino, group.key);
			return (state & ~(now?.breakingTo ?? now?.state ?? 0)) === 0;
		};
		if (group === undefined || !isAllowed())
			throw new FsError("EINVAL", "volume.durable-lease-answer", "it was broken to less than that", { handle });
		const position = await this.#writing.run(leaseKey(group), async () => {
			const at = await this.#writeLease(group, state);
			// Its time may be over meanwhile, and less be left.
			if (isAllowed()) this.#locks.answerLease(group.ino, group.key, state);
			else this.#later(() => this.#syncLease(group));
			this.#noteLease(group);
			return at;
		});
		await this.#core.engine.durable(position);
	}

	async #syncLease(group: Group): Promise<void> {
		await this.#writing.run(leaseKey(group), async () => {
			if (group.opens.size > 0) await this.#writeLease(group);
		});
	}

	/** In its turn. `state`: as it will be when this is written. */
	#writeLease(group: Group, state?: number): Promise<number> {
		return this.#writeOpens(group.opens, () => this.#noteLease(group, state));
	}

	/** All in one transaction where they fit, which is nearly always: a client opens a file a few times. */
	async #writeOpens(opens: Iterable<Durable>, note: () => void = () => {}): Promise<number> {
		let at = 0;
		const all = [...opens];
		for (let from = 0; from < all.length; from += limits.transactionChanges) {
			const some = all.slice(from, from + limits.transactionChanges);
			const { position } = await this.#core.transact((tx) => {
				note();
				for (const open of some) {
					const { id } = open.record;
					// One that ends has no record any more.
					if (this.#opens.get(id) === open && open.state !== "ending") tx.put(durableOpenRecord, open.record, id);
				}
			});
			at = position;
		}
		return at;
	}

	async #rememberFailure(handle: HandleId): Promise<void> {
		const open = this.#opens.get(handle);
		if (open === undefined || open.record.failed) return;
		open.record = { ...open.record, failed: true };
		await this.#writing.run(keyOf(open, this.#groupOf(open)), () => this.#writeOpens([open]));
	}

	// ── leases that are broken ─────────────────────────────────────────────────────────────────────────────────

	#leaseListener(group: Group): { broken(to: number, epoch: number): void; revoked(to: number): void } {
		return { broken: (to, epoch) => this.#broken(group, to, epoch), revoked: (to) => this.#revoked(group, to) };
	}

	#there(group: Group): readonly HandleId[] {
		return [...group.opens].filter(({ state }) => state === "connected" || state === "opening").map(({ record }) => record.id);
	}

	#broken(group: Group, to: number, epoch: number): void {
		this.#later(() => this.#syncLease(group));
		const there = this.#there(group);
		if (there.length > 0) this.#listener.broken(there, to, epoch);
		else for (const open of group.opens) this.#yieldIfItMay(open);
	}

	#revoked(group: Group, to: number): void {
		this.#later(() => this.#syncLease(group));
		const there = this.#there(group);
		if (there.length > 0) this.#listener.revoked(there, to);
	}

	// ── away, and back ─────────────────────────────────────────────────────────────────────────────────────────

	listen(listener: DurableListener): void {
		this.#listener = listener;
		this.#beginGrace();
	}

	disconnect(handle: HandleId): void {
		const open = this.#connected(handle);
		open.state = "waiting";
		this.#locks.cancelSmb(handle);
		this.#wait(open);
		this.#yieldIfItMay(open);
	}

	#wait(open: Durable): void {
		const { timeoutMs } = open.record;
		open.cancelTimer();
		open.deadlineMs = this.#nowMs + timeoutMs;
		open.cancelTimer = this.#core.platform.clock.after(timeoutMs, () =>
			this.#later(async () => {
				if (await this.#end(open, "waiting")) this.#counts.timedOut++;
			}),
		);
	}

	/** D5. */
	#yieldIfItMay(open: Durable): void {
		const { record } = open;
		if (open.state !== "waiting" || open.inGrace || record.persistent) return;
		const group = this.#groupOf(open);
		const breakingTo = group && this.#there(group).length === 0 ? this.#locks.leaseOf(group.ino, group.key)?.breakingTo : undefined;
		// Nobody is there who could close what it keeps open.
		if (breakingTo !== undefined && (breakingTo & leaseBits.handle) === 0) this.#later(() => this.#endForConflict(open));
		else this.#locks.setYields(record.ino, record.id, true);
	}

	/** As the lock core has to know them. */
	withYields(opens: OpenHandle[]): OpenHandle[] {
		if (this.#opens.size === 0) return opens;
		return opens.map((one) => {
			const open = this.#opens.get(one.handle);
			return open?.state === "waiting" && !open.inGrace && !open.record.persistent ? { ...one, yields: true } : one;
		});
	}

	async #endForConflict(open: Durable | undefined): Promise<void> {
		if (open !== undefined && (await this.#end(open, "waiting"))) this.#counts.conflicts++;
	}

	/** D3. False: it is not in that state any more. */
	async #end(open: Durable, from: "waiting" | "any"): Promise<boolean> {
		const { id } = open.record;
		return this.#writing.run(rangesKey(id), async () => {
			if (this.#opens.get(id) !== open || open.state === "ending" || (from === "waiting" && open.state !== "waiting")) return false;
			const before = open.state;
			open.state = "ending";
			try {
				await this.#deleteRecords([id]);
			} catch (error) {
				open.state = before;
				if (before === "waiting") this.#retryEnd(open);
				throw error;
			}
			this.#leave(open);
			this.#modules.close(id);
			return true;
		});
	}

	#retryEnd(open: Durable): void {
		if (this.#stopped) return;
		open.cancelTimer();
		open.cancelTimer = this.#core.platform.clock.after(limits.durableRetryMs, () => this.#later(() => this.#endForConflict(open)));
	}

	async #deleteRecords(ids: readonly number[]): Promise<number> {
		const { position } = await this.#core.transact((tx) => {
			for (const id of ids) {
				if (tx.get(durableOpenRecord, id) !== undefined) tx.delete(durableOpenRecord, id);
				if (tx.get(durableRangesRecord, id) !== undefined) tx.delete(durableRangesRecord, id);
			}
		});
		return position;
	}

	async reconnect(caller: Caller, by: Reconnect): Promise<Opened> {
		const open = this.#takeBack(caller, by);
		const { id: handle, ino } = open.record;
		const attributes = await this.#modules.attributesOf(ino);
		const { position } = this.#core.engine;
		return { handle, attributes, created: false, durable: this.#grant(open), parentBefore: undefined, parentAfter: undefined, position };
	}

	/** D4. */
	#takeBack(caller: Caller, by: Reconnect): Durable {
		const open = by.handle === undefined ? this.#byGuid.get(guidsOf(by)) : this.#opens.get(by.handle);
		if (open === undefined || !isMeant(open, by)) {
			this.#counts.refused++;
			throw new FsError("ENOENT", "volume.durable-absent", "no such open waits for this client", { handle: by.handle });
		}
		const { record } = open;
		if (caller.uid !== record.uid || (caller.principal ?? "") !== record.principal) {
			this.#counts.refused++;
			throw new FsError("EACCES", "volume.durable-user", "somebody else has made this open", { handle: record.id });
		}
		open.state = "connected";
		open.cancelTimer();
		this.#leaveGrace(open);
		const { leaseKey: key } = open.caller;
		open.caller = { ...caller, clientInstance: record.clientGuid, ...(key === undefined ? {} : { leaseKey: key }) };
		this.#modules.handles.adopt(record.id, open.caller);
		this.#locks.setYields(record.ino, record.id, false);
		this.#counts.reconnected++;
		const group = this.#groupOf(open);
		if (group !== undefined) this.#tellAgain(open, group);
		return open;
	}

	/** What its client was not there to hear. */
	#tellAgain(open: Durable, group: Group): void {
		this.#noteLease(group);
		const now = this.#locks.leaseOf(group.ino, group.key);
		if (now?.breakingTo === undefined) return;
		const { breakingTo, epoch } = now;
		void Promise.resolve().then(() => {
			if (open.state === "connected") this.#listener.broken([open.record.id], breakingTo, epoch);
		});
	}

	has(handle: HandleId): boolean {
		return this.#opens.has(handle);
	}

	/** Of a persistent one durable, of others committed: one that comes back with the power ends by itself. */
	async close(handle: HandleId): Promise<void> {
		const open = this.#opens.get(handle);
		if (open === undefined) throw new FsError("EBADF", "volume.handle", `handle ${handle} is not open`, { handle });
		await this.#end(open, "any");
		if (open.record.persistent) await this.#core.engine.durable(this.#core.engine.position);
	}

	/** An operator's: all of an inode, or those of one owner as lists name it. Answers how many. */
	async breakOpens(ino: Ino, owner: string | undefined): Promise<number> {
		let broken = 0;
		for (const open of [...this.#opens.values()]) {
			const { id } = open.record;
			const names = [ownerName(id), `handle:${id}`, open.caller.leaseKey];
			// One that is not answered yet is nobody's.
			if (open.state === "opening" || open.record.ino !== ino || (owner !== undefined && !names.includes(owner))) continue;
			const isThere = open.state === "connected";
			if (!(await this.#end(open, "any"))) continue;
			broken++;
			if (isThere) this.#listener.ended(id);
		}
		this.#counts.broken += broken;
		if (broken > 0) await this.#core.engine.durable(this.#core.engine.position);
		return broken;
	}

	// ── what operators and doors look at ───────────────────────────────────────────────────────────────────────

	find(clientGuid: Guid, createGuid: Guid): DurableOpen | undefined {
		const open = this.#byGuid.get(guidsOf({ clientGuid, createGuid }));
		return open === undefined || open.state === "opening" || open.state === "ending" ? undefined : this.#shown(open);
	}

	list(ino?: Ino): readonly DurableOpen[] {
		const all = [...this.#opens.values()].filter(({ record }) => ino === undefined || record.ino === ino);
		return all.filter(({ state }) => state !== "opening").map((open) => this.#shown(open));
	}

	#shown({ record, state, deadlineMs }: Durable): DurableOpen {
		const { id: handle, ino, clientGuid, createGuid, persistent, access, deny, since, lease } = record;
		const leftMs = state === "waiting" ? Math.max(0, deadlineMs - this.#nowMs) : undefined;
		const { seconds, nanoseconds } = this.#core.platform.clock.realtime();
		const ageMs = Math.max(0, seconds * 1000 + nanoseconds / 1e6 - since);
		const ranges = this.#locks.heldSmb(ino, handle).length;
		const what = { access, deny, leaseState: lease?.state ?? 0, ranges, owner: ownerName(handle) };
		return { handle, ino, clientGuid, createGuid, persistent, connected: state === "connected", leftMs, ageMs, ...what };
	}

	figures(): DurableStatus {
		let [connected, waiting, persistent] = [0, 0, 0];
		for (const { state, record } of this.#opens.values()) {
			if (state === "waiting") waiting++;
			else connected++;
			if (record.persistent) persistent++;
		}
		return { connected, waiting, persistent, ...this.#counts };
	}

	// ── the rest ───────────────────────────────────────────────────────────────────────────────────────────────

	get #nowMs(): number {
		return this.#core.platform.clock.monotonicMs();
	}

	#later(fn: () => Promise<void>): void {
		if (this.#stopped) return;
		const work = Promise.resolve()
			.then(fn)
			.catch((error: unknown) => {
				if (this.#stopped) return;
				this.#core.logger.warn("a durable open could not be kept in order yet", { error: toFsError(error, "volume.durable").message });
			})
			.finally(() => this.#background.delete(work));
		this.#background.add(work);
	}

	/** Before the volume is shut down: records stay as they are. */
	async stop(): Promise<void> {
		this.#stopped = true;
		this.#cancelGrace();
		for (const { cancelTimer } of this.#opens.values()) cancelTimer();
		while (this.#background.size > 0) await Promise.all([...this.#background]);
	}
}

const guidsOf = ({ clientGuid, createGuid }: { readonly clientGuid: Guid; readonly createGuid: Guid }): string =>
	`${clientGuid} ${createGuid}`;
const leaseName = (clientGuid: Guid, key: Guid): string => `${clientGuid}:${key}`;
const groupName = (ino: Ino, key: string): string => `${ino} ${key}`;
const leaseKey = ({ ino, key }: Group): string => `lease ${ino} ${key}`;
const rangesKey = (id: number): string => `open ${id}`;
const ownerName = (id: number): string => `smb:${id}`;
const keyOf = ({ record }: Durable, group: Group | undefined): string => (group === undefined ? rangesKey(record.id) : leaseKey(group));

function callerOf({ uid, gid, principal, clientGuid, lease }: DurableOpenRecord): Caller {
	return {
		uid,
		gid,
		groups: [],
		principal: principal === "" ? undefined : principal,
		door: "smb",
		clientInstance: clientGuid,
		share: undefined,
		trusted: false,
		...(lease === undefined ? {} : { leaseKey: leaseName(clientGuid, lease.key) }),
	};
}

function isMeant({ state, record }: Durable, by: Reconnect): boolean {
	const { clientGuid, createGuid, persistent, lease } = record;
	const isSame = clientGuid === by.clientGuid && createGuid === by.createGuid && persistent === by.persistent;
	return state === "waiting" && isSame && lease?.key === by.leaseKey;
}

function checkRequest({ clientGuid, createGuid, timeoutMs, lease }: DurableRequest, { principal = "" }: Caller): void {
	const wrong = (what: string): FsError => new FsError("EINVAL", "volume.durable-request", `${what} of a durable open`);
	for (const guid of [clientGuid, createGuid, ...(lease === undefined ? [] : [lease.key])])
		if (!guidPattern.test(guid)) throw wrong(`"${guid}" is no GUID (32 hexadecimal digits)`);
	if (!Number.isSafeInteger(timeoutMs) || timeoutMs < 0) throw wrong(`${timeoutMs} is no time-out`);
	if (lease !== undefined && (!Number.isInteger(lease.state) || lease.state < 0 || lease.state > 7))
		throw wrong(`${lease.state} is no lease`);
	if (principal.length > maximumPrincipalBytes) throw wrong(`${principal.length} bytes are no name`);
}

function lostError(handle: number): FsError {
	const message = "the machine lost power, or a write failed, while this file was open: what was written and not flushed may be missing";
	return new FsError("EIO", "volume.durable-lost", message, { handle });
}

function endedError(handle: number): FsError {
	return new FsError("EBADF", "volume.durable-ended", `the durable open ${handle} has ended meanwhile`, { handle });
}
