/**
 * The mirrored log: append, group commit, ejection of mirrors.
 *
 * Invariants
 *  L1 A record gets its sequence, its place in the chain and its place in the memory tail in one synchronous step, and never changes
 *     afterwards.
 *  L2 It leaves the memory tail when the files of all mirrors have it, and the queue when all mirrors have synced it. So whatever a
 *     mirror loses can be written again.
 *  L3 `durableSequence` moves only after a sync of every mirror of one epoch that began after the records were written there, and after
 *     every disk that had failed by then was out in a roster that counts.
 *  L4 A mirror that fails, hangs or has no space ends the epoch. The next epoch is in the roster, durable, before anything is written to
 *     it; it begins with the first record that is not durable.
 *  L5 A sector that was synced is not written again before a checkpoint covers its segment (`cut`).
 *  L6 `hasRoom` keeps enough segments back for one ejection: what is queued can always be written once more.
 *  L7 Once broken, nothing is acknowledged any more.
 */
import { assert } from "../base/assert.ts";
import { Deferred, Signal } from "../base/async.ts";
import { BufferPool, type Lent } from "../base/buffer-pool.ts";
import { alignUp, latin1ToUtf8 } from "../base/bytes.ts";
import { FsError, isFsError, toFsError } from "../base/errors.ts";
import { chooseMembers } from "./disk-set.ts";
import type { DiskFile } from "../platform/interface.ts";
import type { DiskErrors, DiskId, DiskState, Log, LogCheck, LogModules, Roster } from "./interface.ts";
import {
	initialSegments,
	gatherBytes,
	gatherMs,
	keptBatchBytes,
	maximumBatchBytes,
	maximumBatchesInFlight,
	maximumLogEpochs,
	maximumPayloadBytes,
	maximumQueueBytes,
	maximumQueueRecords,
	maximumUnsyncedMs,
	rereadBytes,
	segmentFractionOfRecord,
} from "./limits.ts";
import { MemoryTail } from "./memory-tail.ts";
import {
	type ChainedRecord,
	chainChecksum,
	batchBytes,
	encodeBatchInto,
	volumePrefix,
	loneRecordBytes,
	recordBytes,
	scanRecords,
	sectorBytes,
	segmentHeaderBytes,
	segmentName,
	segmentNumber,
} from "./record.ts";
import { currentLogEpoch, mirrorCount } from "./roster.ts";
import { MirrorFiles, type SegmentFile } from "./segments.ts";

export interface StartOptions {
	/** Sequence of the first record: the last recovered one + 1. */
	readonly firstSequence: number;
	/** `report.lastChecksum` of the recovery. */
	readonly previousChecksum: number;
}

/** A segment in use, on all mirrors of its epoch. */
interface LiveSegment {
	readonly epoch: number;
	readonly firstSequence: number;
	/** Handed to the mirrors' files, header included. */
	usedBytes: number;
	lastSequence: number;
	readonly places: ReadonlyMap<DiskId, SegmentFile>;
	/** Written since the last sync began. */
	unsynced: boolean;
}

/** One set of mirrors and how far it has got. */
interface Epoch {
	readonly number: number;
	readonly members: readonly DiskId[];
	segment: LiveSegment;
	/** Where the next batch goes in the segment. */
	offset: number;
	/** Newest sequence handed to the mirrors' files. */
	submitted: number;
	batchesInFlight: number;
	/** Settles when everything handed over is written; rejects never. */
	writes: Promise<void>;
	syncing: boolean;
	/** A mirror is lost: no progress here any more. */
	ended: boolean;
}

interface Waiter {
	readonly sequence: number;
	readonly done: Deferred<void>;
}

/** Most payload bytes that `append` takes on a volume with this configuration. */
export function maximumRecordPayload(segmentBytes: number): number {
	return Math.min(maximumPayloadBytes, Math.floor(segmentBytes / segmentFractionOfRecord) - 512);
}

/**
 * Starts a new log epoch: durable in the roster when it resolves. The earlier epochs drop out of the roster and the memory tail is
 * emptied, so everything before `firstSequence` must be in the engine's durable checkpoint.
 * @throws FsError ENOSPC when the disks that could mirror the log are full, EIO when there is none or the roster change does not count.
 */
export async function startLog(options: StartOptions, modules: LogModules): Promise<Log> {
	const log = new MirroredLog(options, modules);
	try {
		await log.start();
	} catch (error) {
		await log.abandon();
		throw error;
	}
	return log;
}

class MirroredLog implements Log {
	readonly #modules: LogModules;
	readonly #volume: string;
	readonly #volumePrefix: Uint8Array;
	readonly #segmentBytes: number;
	readonly #maximumPayload: number;
	readonly #queueBytesLimit: number;
	/** Segments that `hasRoom` leaves for an ejection. */
	readonly #reserve: number;
	readonly #wake = new Signal();
	readonly #roomSignal = new Signal();
	readonly #mirrors = new Map<DiskId, MirrorFiles>();
	/** Memory that all mirrors' threads write from. */
	readonly #batches = new BufferPool({ fromBytes: 1, keptBytes: keptBatchBytes, shared: true });
	/** Disks that cannot be mirrors although they are healthy: no space. */
	readonly #unfit = new Set<DiskId>();
	readonly #memberListeners: ((members: readonly DiskId[]) => void)[] = [];
	#memory!: MemoryTail;
	#epoch!: Epoch;
	/** Segments that no checkpoint covers yet, oldest first. */
	#live: LiveSegment[] = [];
	/** Records that are not durable, from `durableSequence + 1` on. */
	#queue: ChainedRecord[] = [];
	#queueBytes = 0;
	/** Room that the records take which are not in a segment of this epoch yet. */
	#unplacedBytes = 0;
	/** The same records without what they may waste. */
	#waitingBytes = 0;
	#chain: number;
	#lastSequence: number;
	#durableSequence: number;
	/** A checkpoint holds everything up to here. */
	#coveredSequence: number;
	#wantedSync: number;
	#waiters: Waiter[] = [];
	#growWanted = false;
	#cancelTimer: (() => void) | undefined;
	#stopListening = (): void => {};
	#broken: Error | undefined;
	#closing = false;
	#stopped = false;
	#loop: Promise<void> = Promise.resolve();
	/** A timer runs for records that wait for company; they have waited long enough. */
	#gathering = false;
	#gathered = false;

	constructor(options: StartOptions, modules: LogModules) {
		const roster = modules.disks.roster;
		this.#modules = modules;
		this.#volume = roster.volume;
		this.#volumePrefix = volumePrefix(roster.volume);
		this.#segmentBytes = roster.config.logSegmentBytes;
		this.#maximumPayload = maximumRecordPayload(this.#segmentBytes);
		this.#queueBytesLimit = Math.min(maximumQueueBytes, Math.floor(this.#segmentBytes / 2));
		this.#reserve = Math.ceil(this.#queueBytesLimit / this.#usableBytes) + 1;
		this.#chain = options.previousChecksum;
		this.#lastSequence = this.#durableSequence = this.#coveredSequence = this.#wantedSync = options.firstSequence - 1;
	}

	async start(): Promise<void> {
		const { disks, memory } = this.#modules;
		this.#stopListening = disks.onChange((id, state) => this.#diskChanged(id, state));
		await this.#startEpoch(true);
		this.#memory = new MemoryTail(memory, { volume: this.#volume, incarnation: disks.roster.incarnation }, this.#lastSequence);
		this.#loop = this.#run().catch((error: unknown) => {
			this.#break(error);
		});
	}

	get lastSequence(): number {
		return this.#lastSequence;
	}

	get durableSequence(): number {
		return this.#durableSequence;
	}

	get members(): readonly DiskId[] {
		return this.#epoch.members;
	}

	get broken(): Error | undefined {
		return this.#broken;
	}

	onMembersChanged(listener: (members: readonly DiskId[]) => void): void {
		this.#memberListeners.push(listener);
	}

	// ── appending ────────────────────────────────────────────────────────────────────────────────────────────────

	/** What a segment surely takes, however records fall: the end that the largest record does not fit into is wasted. */
	get #usableBytes(): number {
		return this.#segmentBytes - segmentHeaderBytes - loneRecordBytes(this.#maximumPayload);
	}

	hasRoom(payloadBytes: number): boolean {
		if (this.#broken || this.#closing || payloadBytes > this.#maximumPayload) return false;
		if (this.#queueBytes + recordBytes(payloadBytes) > this.#queueBytesLimit || this.#queue.length >= maximumQueueRecords) return false;
		return this.#memory.hasRoom(payloadBytes) && this.#unplacedBytes + loneRecordBytes(payloadBytes) <= this.#placeableBytes();
	}

	#placeableBytes(): number {
		let free = Number.POSITIVE_INFINITY;
		for (const id of this.#epoch.members) free = Math.min(free, this.#mirrors.get(id)?.available ?? 0);
		const current = Math.max(0, this.#segmentBytes - this.#epoch.offset - loneRecordBytes(this.#maximumPayload));
		return current + Math.max(0, free - this.#reserve) * this.#usableBytes;
	}

	get scarce(): boolean {
		const { logSegmentCount } = this.#modules.disks.roster.config;
		return this.#placeableBytes() - this.#waitingBytes < (Math.max(1, logSegmentCount - this.#reserve) * this.#usableBytes) / 4;
	}

	async room(): Promise<void> {
		if (this.#broken) throw this.#broken;
		this.#wantSync(this.#lastSequence);
		await this.#roomSignal.wait();
		if (this.#broken) throw this.#broken;
	}

	append(payload: Uint8Array): number {
		if (this.#broken) throw this.#broken;
		if (payload.length > this.#maximumPayload) {
			throw new FsError("E2BIG", "log.record-large", `a log record of ${payload.length} bytes; at most ${this.#maximumPayload} fit`, {
				bytes: payload.length,
			});
		}
		if (!this.hasRoom(payload.length))
			throw new FsError("EAGAIN", "log.append-full", "the log has no room: wait for room() before appending");
		const record: ChainedRecord = { sequence: this.#lastSequence + 1, payload, previous: this.#chain };
		this.#memory.append(record);
		this.#chain = chainChecksum(record);
		this.#lastSequence = record.sequence;
		this.#queue.push(record);
		this.#queueBytes += recordBytes(payload.length);
		this.#unplacedBytes += loneRecordBytes(payload.length);
		this.#waitingBytes += recordBytes(payload.length);
		if (this.#queueBytes > this.#queueBytesLimit / 2 || this.#queue.length > maximumQueueRecords / 2) this.#wantedSync = this.#lastSequence;
		if (this.#mustWrite(this.#epoch)) this.#wake.notifyAll();
		else this.#gather();
		return record.sequence;
	}

	durable(sequence: number): Promise<void> {
		assert(sequence <= this.#lastSequence, `durable(${sequence}) of a log that ends at ${this.#lastSequence}`);
		if (sequence <= this.#durableSequence) return Promise.resolve();
		if (this.#broken) return Promise.reject(this.#broken);
		const waiter = { sequence, done: new Deferred<void>() };
		this.#waiters.push(waiter);
		this.#wantSync(sequence);
		return waiter.done.promise;
	}

	#wantSync(sequence: number): void {
		this.#wantedSync = Math.max(this.#wantedSync, sequence);
		this.#wake.notifyAll();
	}

	// ── the writer ───────────────────────────────────────────────────────────────────────────────────────────────

	async #run(): Promise<void> {
		while (!this.#stopped && !this.#broken) {
			const epoch = this.#epoch;
			if (epoch.ended || this.#growWanted) await this.#startEpoch(false);
			else if (this.#mustWrite(epoch)) await this.#writeBatch(epoch);
			else if (this.#wantedSync > this.#durableSequence && !epoch.syncing && epoch.submitted > this.#durableSequence)
				this.#startSync(epoch);
			else await this.#wake.wait();
		}
	}

	/** Records that nobody waits for gather for a moment: they are in the memory tail, and a call to three disks costs as much as a hundred records. */
	#mustWrite(epoch: Epoch): boolean {
		if (epoch.submitted >= this.#lastSequence || epoch.batchesInFlight >= maximumBatchesInFlight) return false;
		return this.#wantedSync > epoch.submitted || this.#gathered || this.#waitingBytes >= gatherBytes;
	}

	#gather(): void {
		if (this.#gathering) return;
		this.#gathering = true;
		this.#modules.platform.clock.after(gatherMs, () => {
			this.#gathering = false;
			this.#gathered = true;
			this.#wake.notifyAll();
		});
	}

	/** Hands the next records to all mirrors; does not wait for them. */
	async #writeBatch(epoch: Epoch): Promise<void> {
		const first = this.#queue[epoch.submitted - this.#durableSequence];
		assert(first && first.sequence === epoch.submitted + 1, "the queue begins after the durable records");
		if (epoch.offset + loneRecordBytes(first.payload.length) > this.#segmentBytes) {
			await this.#nextSegment(epoch);
			if (epoch.ended) return;
		}
		const records = this.#takeBatch(epoch);
		const { bytes, release } = this.#batches.take(batchBytes(records)) as Lent;
		encodeBatchInto(bytes, records, this.#volumePrefix, epoch.number, this.#durableSequence);
		const { segment, offset } = epoch;
		const last = (records.at(-1) as ChainedRecord).sequence;
		epoch.offset += bytes.length;
		epoch.submitted = segment.lastSequence = last;
		segment.usedBytes = epoch.offset;
		if (last === this.#lastSequence) this.#gathered = false;
		segment.unsynced = true;
		for (const { payload } of records) {
			this.#unplacedBytes -= loneRecordBytes(payload.length);
			this.#waitingBytes -= recordBytes(payload.length);
		}
		epoch.batchesInFlight++;
		const writes = epoch.members.map((id) =>
			this.#onMirror(epoch, id, "write", (segment.places.get(id) as SegmentFile).file.write(offset, [bytes])),
		);
		epoch.writes = Promise.all([epoch.writes, ...writes])
			.then(() => this.#batchWritten(epoch, last, release))
			.catch((error: unknown) => {
				this.#break(error);
			});
		this.#syncLater();
	}

	#takeBatch(epoch: Epoch): readonly ChainedRecord[] {
		const space = Math.min(this.#segmentBytes - epoch.offset, Math.max(maximumBatchBytes, loneRecordBytes(this.#maximumPayload)));
		const start = epoch.submitted - this.#durableSequence;
		let end = start;
		let bytes = 0;
		while (end < this.#queue.length) {
			const more = recordBytes((this.#queue[end] as ChainedRecord).payload.length);
			if (alignUp(bytes + more, sectorBytes) > space) break;
			bytes += more;
			end++;
		}
		assert(end > start, "a batch has a record");
		return this.#queue.slice(start, end);
	}

	#batchWritten(epoch: Epoch, last: number, release: () => void): void {
		epoch.batchesInFlight--;
		// A mirror that did not answer in time may still be writing from the buffer.
		if (epoch.ended || this.#broken) return;
		release();
		this.#memory.release(last);
		this.#roomSignal.notifyAll();
		this.#wake.notifyAll();
	}

	async #nextSegment(epoch: Epoch): Promise<void> {
		const places = await this.#acquireOnAll(epoch.members, false);
		if (!places) {
			epoch.ended = true;
			return;
		}
		// The epoch may have ended meanwhile; then the segment is nobody's.
		if (epoch.ended) return this.#giveBack(places);
		epoch.segment = liveSegment(epoch.number, epoch.submitted, places);
		epoch.offset = segmentHeaderBytes;
		this.#live.push(epoch.segment);
		this.#prepareAhead(epoch.members);
	}

	/** One segment on each of these disks, or undefined when one of them could not: it is reported or unfit then. */
	async #acquireOnAll(members: readonly DiskId[], emergency: boolean): Promise<Map<DiskId, SegmentFile> | undefined> {
		const places = new Map<DiskId, SegmentFile>();
		await Promise.all(
			members.map(async (id) => {
				try {
					places.set(id, await this.#mirror(id).acquire(emergency));
				} catch (error) {
					this.#memberFailed(id, error, "write");
				}
			}),
		);
		if (places.size === members.length) return places;
		this.#giveBack(places);
		return undefined;
	}

	#giveBack(places: ReadonlyMap<DiskId, SegmentFile>): void {
		for (const [id, { number }] of places) this.#mirrors.get(id)?.release(number);
	}

	/** So that going on into the next segment does not wait for its allocation, and a disk that fills up has what an ejection needs (L6). */
	#prepareAhead(members: readonly DiskId[]): void {
		for (const id of members) {
			const mirror = this.#mirrors.get(id);
			if (!mirror || mirror.available === 0) continue;
			mirror.prepare(this.#reserve + 1).catch((error: unknown) => this.#memberFailed(id, error, "write"));
		}
	}

	#mirror(id: DiskId): MirrorFiles {
		const mirror = this.#mirrors.get(id);
		if (!mirror) throw new FsError("ENODEV", "log.mirror-gone", `d${id} is no mirror of the log any more`);
		return mirror;
	}

	// ── syncing ──────────────────────────────────────────────────────────────────────────────────────────────────

	#syncLater(): void {
		this.#cancelTimer ??= this.#modules.platform.clock.after(maximumUnsyncedMs, () => {
			this.#cancelTimer = undefined;
			this.#wantSync(this.#epoch.submitted);
		});
	}

	/** Covers everything handed over so far: calls on one disk run in order, so the sync of a file comes after the writes to it. */
	#startSync(epoch: Epoch): void {
		const covers = epoch.submitted;
		const segments = this.#live.filter((segment) => segment.epoch === epoch.number && segment.unsynced);
		for (const segment of segments) segment.unsynced = false;
		epoch.syncing = true;
		const syncs = segments.flatMap((segment) =>
			[...segment.places].map(([id, { file }]) => this.#onMirror(epoch, id, "sync", file.sync("log.records"))),
		);
		this.#finishSync(epoch, covers, Promise.all([epoch.writes, ...syncs])).catch((error: unknown) => {
			this.#break(error);
		});
	}

	async #finishSync(epoch: Epoch, covers: number, synced: Promise<unknown>): Promise<void> {
		await synced;
		if (!epoch.ended && !this.#broken) await this.#modules.disks.settled();
		epoch.syncing = false;
		this.#wake.notifyAll();
		// Of an epoch that ended meanwhile everything is written and synced again in the next one.
		if (!epoch.ended && !this.#broken) this.#advance(covers);
	}

	#advance(to: number): void {
		if (to <= this.#durableSequence) return;
		const done = this.#queue.splice(0, to - this.#durableSequence);
		for (const record of done) this.#queueBytes -= recordBytes(record.payload.length);
		this.#durableSequence = to;
		const ready = this.#waiters.filter((waiter) => waiter.sequence <= to);
		this.#waiters = this.#waiters.filter((waiter) => waiter.sequence > to);
		for (const waiter of ready) waiter.done.resolve();
		this.#roomSignal.notifyAll();
		this.#wake.notifyAll();
	}

	// ── mirrors that fail ────────────────────────────────────────────────────────────────────────────────────────

	/** A call on a mirror; an error ends the epoch, and the promise resolves all the same. */
	async #onMirror(epoch: Epoch, id: DiskId, during: keyof DiskErrors, call: Promise<void>): Promise<void> {
		try {
			await call;
		} catch (error) {
			epoch.ended = true;
			this.#memberFailed(id, error, during);
		}
	}

	#memberFailed(id: DiskId, error: unknown, during: keyof DiskErrors): void {
		if (this.#stopped || !this.#mirrors.has(id)) return;
		const { message } = toFsError(error, "log.mirror");
		this.#modules.logger.warn(`d${id} mirrors the log no more`, { during, message });
		if (isFsError(error, "ENOSPC")) this.#unfit.add(id);
		else this.#modules.disks.report(id, error, during);
		this.#dropMirror(id);
	}

	#dropMirror(id: DiskId): void {
		const mirror = this.#mirrors.get(id);
		this.#mirrors.delete(id);
		mirror?.close().catch(() => undefined);
		if (this.#epoch?.members.includes(id)) this.#epoch.ended = true;
		this.#wake.notifyAll();
	}

	#diskChanged(id: DiskId, state: DiskState): void {
		// A degraded disk goes on mirroring: other choices are made when there is one to be made.
		if (state === "degraded") return;
		if (state !== "healthy") {
			if (this.#mirrors.has(id)) this.#dropMirror(id);
			return;
		}
		this.#unfit.delete(id);
		// Not the members of an epoch that a lost mirror has ended: the next one may have been chosen before this disk came.
		const mirrors = this.#epoch?.members.filter((member) => this.#mirrors.has(member)).length;
		if (mirrors !== undefined && mirrors < mirrorCount(this.#modules.disks.roster)) this.#growWanted = true;
		this.#wake.notifyAll();
	}

	/**
	 * Chooses mirrors, makes a segment ready on each, makes the epoch durable in the roster, and goes on with the first record that is not
	 * durable. Each failure takes a disk away, so there are at most as many attempts as disks.
	 */
	async #startEpoch(first: boolean): Promise<void> {
		this.#growWanted = false;
		const { disks } = this.#modules;
		for (let attempt = 0; attempt <= disks.roster.disks.length; attempt++) {
			await disks.settled();
			const members = chooseMembers(disks, mirrorCount(disks.roster), this.#unfit);
			if (members.length === 0) break;
			if (!first && !this.#epoch.ended && sameMembers(members, this.#epoch.members)) return;
			const places = await this.#openMirrors(members);
			if (!places) continue;
			// A sync of the old epoch that ends while the roster changes must not count: the new one would begin behind what the roster says.
			if (!first) this.#epoch.ended = true;
			const firstSequence = this.#durableSequence + 1;
			const roster = await disks.changeRoster("log epoch", (before) => withLogEpoch(before, members, firstSequence, first));
			if (!this.#install(roster, members, places)) continue;
			if (!first) for (const listener of this.#memberListeners) listener(members);
			return;
		}
		throw this.#noMirror();
	}

	#noMirror(): FsError {
		const { disks } = this.#modules;
		const full = [...this.#unfit].filter((id) => disks.writable(id) !== undefined).sort((a, b) => a - b);
		if (full.length === 0) {
			const message = "no disk is left that can mirror the log: nothing more is acknowledged; unmount, bring disks back, mount again";
			return new FsError("EIO", "log.no-mirror", message);
		}
		const where = full.map((id) => `d${id} (${latin1ToUtf8(disks.slot(id)?.path ?? "")})`).join(", ");
		const message = `there is no space for the log on ${where}: nothing more is acknowledged; free space there, and mount again`;
		return new FsError("ENOSPC", "log.no-space", message, { disks: full });
	}

	async #openMirrors(members: readonly DiskId[]): Promise<Map<DiskId, SegmentFile> | undefined> {
		await Promise.all(members.map((id) => this.#openMirror(id)));
		const places = await this.#acquireOnAll(members, true);
		if (places === undefined || (await this.#settle(places))) return places;
		this.#giveBack(places);
		return undefined;
	}

	/** Before the roster names the epoch: a mirror of it on which nothing is found has then lost it. What else is allocated stays over a power cut, too, whoever fills the disk meanwhile. */
	async #settle(places: ReadonlyMap<DiskId, SegmentFile>): Promise<boolean> {
		let done = 0;
		await Promise.all(
			[...places.keys()].map(async (id) => {
				try {
					await this.#mirror(id).settle();
					done++;
				} catch (error) {
					this.#memberFailed(id, error, "sync");
				}
			}),
		);
		return done === places.size;
	}

	async #openMirror(id: DiskId): Promise<void> {
		const { disks } = this.#modules;
		const disk = disks.writable(id);
		if (!disk || this.#mirrors.get(id)?.disk === disk) return;
		const { config } = disks.roster;
		const diskUuid = disks.slot(id)?.uuid as string;
		const mirror = new MirrorFiles(id, disk, {
			volume: this.#volume,
			diskUuid,
			segmentBytes: this.#segmentBytes,
			count: config.logSegmentCount,
		});
		this.#mirrors.set(id, mirror);
		try {
			await mirror.load(this.#live.flatMap((segment) => segment.places.get(id)?.number ?? []));
			await mirror.prepare(initialSegments);
		} catch (error) {
			this.#memberFailed(id, error, "write");
		}
	}

	/** False when a mirror was lost while the roster changed. */
	#install(roster: Roster, members: readonly DiskId[], places: ReadonlyMap<DiskId, SegmentFile>): boolean {
		if (members.some((id) => !this.#mirrors.has(id) || this.#modules.disks.writable(id) === undefined)) {
			this.#giveBack(places);
			return false;
		}
		const number = (currentLogEpoch(roster) as { epoch: number }).epoch;
		const submitted = this.#durableSequence;
		const segment = liveSegment(number, submitted, places);
		if (this.#epoch) this.#epoch.ended = true;
		this.#live.push(segment);
		this.#epoch = {
			number,
			members,
			segment,
			offset: segmentHeaderBytes,
			submitted,
			batchesInFlight: 0,
			writes: Promise.resolve(),
			syncing: false,
			ended: false,
		};
		this.#unplacedBytes = 0;
		for (const record of this.#queue) this.#unplacedBytes += loneRecordBytes(record.payload.length);
		this.#waitingBytes = this.#queueBytes;
		for (const id of this.#mirrors.keys()) if (!members.includes(id)) this.#dropMirror(id);
		this.#prepareAhead(members);
		// Whoever waits has waited for the old mirrors.
		if (this.#waiters.length > 0) this.#wantedSync = Math.max(this.#wantedSync, this.#lastSequence);
		return true;
	}

	// ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────

	async cut(sequence: number): Promise<void> {
		await this.durable(sequence);
		if (this.#broken) throw this.#broken;
		try {
			await this.#dropEpochs(sequence);
		} catch (error) {
			throw this.#break(error);
		}
		this.#coveredSequence = Math.max(this.#coveredSequence, sequence);
		const kept: LiveSegment[] = [];
		for (const segment of this.#live) {
			if (segment.lastSequence > sequence || segment === this.#epoch.segment) kept.push(segment);
			else this.#giveBack(segment.places);
		}
		this.#live = kept;
		this.#retryUnfit();
		this.#prepareAhead(this.#epoch.members);
		this.#roomSignal.notifyAll();
		this.#wake.notifyAll();
	}

	/** Space may have come back since; once per checkpoint it is tried again to have as many mirrors as there should be. */
	#retryUnfit(): void {
		if (this.#unfit.size === 0 || this.#epoch.members.length >= mirrorCount(this.#modules.disks.roster)) return;
		this.#unfit.clear();
		this.#growWanted = true;
	}

	async #dropEpochs(sequence: number): Promise<void> {
		const covered = (roster: Roster): number => roster.logEpochs.findLastIndex((epoch, i) => i > 0 && epoch.firstSequence <= sequence + 1);
		const { disks } = this.#modules;
		if (covered(disks.roster) <= 0) return;
		await disks.changeRoster("log cut", (roster) => ({ ...roster, logEpochs: roster.logEpochs.slice(Math.max(0, covered(roster))) }));
	}

	/** Segments on disks that mirror the log no more: an ejected mirror keeps them until it is a mirror again, or somebody removes them. Disks that fail just now are left out. */
	async strays(): Promise<{ readonly disk: DiskId; readonly name: string }[]> {
		const { disks } = this.#modules;
		const found: { disk: DiskId; name: string }[] = [];
		for (const { id } of disks.slots()) {
			const disk = this.#isMirror(id) ? undefined : disks.clearable(id);
			for (const name of disk === undefined ? [] : await disk.list("log").catch(() => []))
				if (segmentNumber(name) !== undefined) found.push({ disk: id, name: `log/${name}` });
		}
		return found;
	}

	/** False: the disk mirrors the log again, or is away. In order on the disk: a mirror that is chosen meanwhile lists its folder after the removal. */
	async removeStray({ disk: id, name }: { readonly disk: DiskId; readonly name: string }): Promise<boolean> {
		const disk = this.#modules.disks.clearable(id);
		if (disk === undefined || this.#isMirror(id)) return false;
		await disk.remove(name);
		return true;
	}

	#isMirror(id: DiskId): boolean {
		return this.#mirrors.has(id) || this.#modules.disks.roster.logEpochs.some((epoch) => epoch.members.includes(id));
	}

	/** In order on each disk: a mirror that is chosen meanwhile lists its folder after what is removed here. */
	async removeOrphans(): Promise<void> {
		const { disks } = this.#modules;
		const isMirror = (id: DiskId): boolean => this.#isMirror(id);
		for (const { id } of disks.slots()) {
			const disk = disks.clearable(id);
			if (!disk || isMirror(id)) continue;
			try {
				for (const name of await disk.list("log")) {
					const number = segmentNumber(name);
					if (number !== undefined && !isMirror(id)) await disk.remove(segmentName(number));
				}
			} catch (error) {
				disks.report(id, error, "write");
			}
		}
	}

	// ── scrubbing ────────────────────────────────────────────────────────────────────────────────────────────────

	async check(): Promise<LogCheck> {
		let checked = 0;
		let corrupt = 0;
		let unchecked = 0;
		for (const segment of [...this.#live]) {
			for (const [id, { file }] of segment.places) {
				const damaged = await this.#checkCopy(segment, id, file);
				if (damaged === "unread") unchecked++;
				if (typeof damaged !== "object") continue;
				checked += damaged.of;
				corrupt += damaged.records.length;
				this.#tellDamage(id, file, damaged.records);
			}
		}
		return { checked, corrupt, unchecked };
	}

	/** Undefined: there is nothing to be checked, or not any more. */
	async #checkCopy(
		segment: LiveSegment,
		id: DiskId,
		file: DiskFile,
	): Promise<{ readonly of: number; readonly records: readonly number[] } | "unread" | undefined> {
		const first = Math.max(segment.firstSequence, this.#coveredSequence + 1);
		const last = Math.min(segment.lastSequence, this.#durableSequence, this.#lastOfEpoch(segment.epoch));
		const mirror = this.#mirrors.get(id);
		if (mirror === undefined || last < first || this.#broken) return undefined;
		const bytes = await this.#readCopy(id, file, segment.usedBytes);
		// Given back meanwhile: other records may lie there by now.
		if (!this.#live.includes(segment) || this.#mirrors.get(id) !== mirror) return undefined;
		if (bytes === undefined) return "unread";
		const missing = new Set(Array.from({ length: last - first + 1 }, (_, at) => first + at));
		for (const record of scanRecords(bytes, segmentHeaderBytes, this.#volume))
			if (record.epoch === segment.epoch) missing.delete(record.sequence);
		return { of: last - first + 1, records: [...missing] };
	}

	/** What an epoch has durably on all of its mirrors ends where the next one begins. */
	#lastOfEpoch(epoch: number): number {
		const { logEpochs } = this.#modules.disks.roster;
		const next = logEpochs[logEpochs.findIndex((one) => one.epoch === epoch) + 1];
		return next === undefined ? Number.POSITIVE_INFINITY : next.firstSequence - 1;
	}

	/** From the disk, not from the host's memory; in pieces, so that syncs do not wait for all of it. What cannot be read is zeros. */
	async #readCopy(id: DiskId, file: DiskFile, lengthBytes: number): Promise<Uint8Array | undefined> {
		const bytes = new Uint8Array(lengthBytes);
		try {
			await file.uncache(0, lengthBytes);
			for (let at = 0; at < lengthBytes; at += rereadBytes) {
				const piece = await file.read(at, Math.min(rereadBytes, lengthBytes - at)).catch((error: unknown) => {
					// A file that was closed because its mirror went is nothing that the disk did.
					if (!isFsError(error, "EBADF")) this.#modules.disks.report(id, error, "read");
					if (!isFsError(error, "EIO")) throw error;
					return new Uint8Array(0);
				});
				bytes.set(piece, at);
			}
			return bytes;
		} catch (error) {
			const { message } = toFsError(error, "log.check");
			this.#modules.logger.warn(`d${id}: ${file.name} could not be checked`, { message });
			return undefined;
		}
	}

	#tellDamage(id: DiskId, file: DiskFile, records: readonly number[]): void {
		if (records.length === 0) return;
		const message = `d${id}: ${records.length} records of ${file.name} are damaged, the first is ${records[0]}; other mirrors have them`;
		this.#modules.logger.warn(message, { disk: id });
		this.#modules.disks.report(id, new FsError("CORRUPT", "log.mirror-rot", message, { disk: id, records: records.length }), "corrupt");
	}

	// ── end ──────────────────────────────────────────────────────────────────────────────────────────────────────

	#break(error: unknown): Error {
		if (this.#broken) return this.#broken;
		this.#broken = new FsError("EIO", "log.broken", `the log is broken: ${toFsError(error, "log.run").message}`, {}, error);
		this.#modules.logger.error(this.#broken.message);
		const waiters = this.#waiters;
		this.#waiters = [];
		for (const waiter of waiters) waiter.done.reject(this.#broken);
		this.#roomSignal.notifyAll();
		this.#wake.notifyAll();
		this.#stop();
		return this.#broken;
	}

	#stop(): void {
		this.#stopped = true;
		this.#cancelTimer?.();
		this.#cancelTimer = undefined;
		this.#stopListening();
	}

	async close(): Promise<void> {
		this.#closing = true;
		try {
			await this.durable(this.#lastSequence);
			if (this.#broken) throw this.#broken;
		} finally {
			await this.abandon();
		}
	}

	/** Stops without waiting for anything to become durable. */
	async abandon(): Promise<void> {
		this.#stop();
		this.#wake.notifyAll();
		await this.#loop;
		await Promise.allSettled([...this.#mirrors.values()].map((mirror) => mirror.close()));
	}
}

function liveSegment(epoch: number, submitted: number, places: ReadonlyMap<DiskId, SegmentFile>): LiveSegment {
	return { epoch, firstSequence: submitted + 1, usedBytes: segmentHeaderBytes, lastSequence: submitted, places, unsynced: false };
}

function sameMembers(a: readonly DiskId[], b: readonly DiskId[]): boolean {
	return a.length === b.length && a.every((id) => b.includes(id));
}

/** A log epoch has the number of the roster epoch that begins it: never given twice among rosters that count. */
function withLogEpoch(roster: Roster, members: readonly DiskId[], firstSequence: number, first: boolean): Roster {
	const earlier = first ? [] : roster.logEpochs;
	if (earlier.length >= maximumLogEpochs) {
		throw new FsError(
			"EIO",
			"log.too-many-epochs",
			`${earlier.length} log epochs wait for a checkpoint: nothing makes checkpoints any more`,
		);
	}
	return { ...roster, logEpochs: [...earlier, { epoch: roster.epoch + 1, members, firstSequence, incarnation: roster.incarnation }] };
}
