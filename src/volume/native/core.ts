/**
 * What all parts of the native volume share: the engine with its transactions, the stores, admissions, and the retirement of freed space.
 *
 * Invariants
 *  C1 Every change of metadata goes through `transact`; its storage effects are handed on exactly once, after the commit.
 *  C2 A freed segment's space is given back only when the freeing transaction is durable, nobody packs into it any more, and its record is still absent.
 *  C3 The volume record's reservedBytes = Σ lengths of reserved extents, in every committed state; `reservedBytes` here is what was committed.
 */
import { assert } from "../../base/assert.ts";
import { KeyedMutex, Mutex } from "../../base/async.ts";
import { FsError, toFsError } from "../../base/errors.ts";
import type { Logger } from "../../base/telemetry.ts";
import { Hurry, TurnShare } from "../../base/turn-share.ts";
import { ByteArena } from "../../codec/binary.ts";
import type { DiskSet } from "../../log/interface.ts";
import type { Engine, Transaction, TransactOptions } from "../../kv/interface.ts";
import { glance, transact, transactNow } from "../../kv/transact.ts";
import type { AdmissionTable } from "../../locks/admission.ts";
import type { Platform } from "../../platform/interface.ts";
import type { FragmentPlace, Ino, OperationContext, RecordTransaction, Segment } from "../../records/interface.ts";
import { headKey, segmentRecord, volumeRecord } from "../../records/kinds.ts";
import type { NumberBlocks } from "../../records/numbers.ts";
import { Records } from "../../records/transaction.ts";
import type { DirtyStore, Redundancy, SegmentHealth, SegmentStore, StorageEffects } from "../../storage/interface.ts";
import { parseRedundancy } from "../../storage/redundancy.ts";
import { limits } from "./limits.ts";
import { ProofBook } from "./proofs.ts";

export interface CoreModules {
	readonly platform: Platform;
	readonly logger: Logger;
	readonly disks: DiskSet;
	readonly engine: Engine;
	readonly store: SegmentStore;
	readonly dirty: DirtyStore;
	readonly numbers: NumberBlocks;
	readonly admissions: AdmissionTable;
}

/** The turns of seals that nobody waits for. */
export interface BehindTurns {
	/** Looking at what is dirty, and copying it into payloads. */
	readonly gather: TurnShare;
	/** Transactions of what lies in segments. */
	readonly commit: TurnShare;
}

/** One of these seals. */
export interface Behind extends BehindTurns {
	readonly hurry: Hurry;
}

export interface CoreOptions {
	/** Birth epoch of new records. */
	readonly epoch: number;
}

interface Retired {
	readonly places: readonly FragmentPlace[];
	readonly segment: Segment;
	readonly position: number;
}

export type Operation<T> = (tx: RecordTransaction, context: OperationContext, effects: StorageEffects) => T;

export class Core {
	readonly options: CoreOptions;
	readonly platform: Platform;
	readonly logger: Logger;
	readonly disks: DiskSet;
	readonly engine: Engine;
	readonly store: SegmentStore;
	readonly dirty: DirtyStore;
	readonly admissions: AdmissionTable;
	/** Seal, fsync, truncation and reaping of one inode never overlap. */
	readonly flow = new KeyedMutex<Ino>((ino) => this.#hurries.get(ino)?.now());
	/** Seals behind the foreground: who waits for one makes it go on at once. */
	readonly #hurries = new Map<Ino, Hurry>();
	readonly behind: BehindTurns;
	readonly proofs: ProofBook;
	readonly #numbers: NumberBlocks;
	readonly #options: TransactOptions;
	/** Records are encoded there; a commit copies them. */
	readonly #arena = new ByteArena(limits.recordArenaBytes);
	/** Segments that somebody may still add chunks to: C2. */
	readonly #packing = new Map<number, number>();
	/** What fallocate has promised: nobody else may be given that space. */
	reservedBytes = 0;
	#freed: { segment: Segment; position: number }[] = [];
	/** Places that records named until that transaction. */
	readonly #retired = new Set<Retired>();
	/** One release at a time: a segment that died again during it still waits in #freed then. */
	readonly #releases = new Mutex();
	#releasing = false;
	#releaseDone: Promise<void> = Promise.resolve();
	#stopped = false;
	/** Counts changes that make figures of protection outdated: disks that changed, what was healed, what was proven. */
	protectionVersion = 0;
	/** Bytes that have died in segments that live on, since the process began: how much there may be for a compaction. */
	deadBytes = 0;

	constructor(options: CoreOptions, modules: CoreModules) {
		this.options = options;
		this.platform = modules.platform;
		this.logger = modules.logger;
		this.#options = { logger: modules.logger, head: { key: headKey(0), epoch: 1 } };
		this.disks = modules.disks;
		this.engine = modules.engine;
		this.store = modules.store;
		this.dirty = modules.dirty;
		this.admissions = modules.admissions;
		this.#numbers = modules.numbers;
		const { clock, simulation } = modules.platform;
		const share = (): TurnShare => new TurnShare(clock, limits.behindMs, () => simulation?.buggify("volume.turn-over") === true);
		this.behind = { gather: share(), commit: share() };
		this.proofs = new ProofBook(this);
	}

	/**
	 * `transact` in one synchronous step. Undefined, and nothing happened: something is not in memory, or there is no room, or numbers have to be fetched; then `transact` does it. @throws FsError whatever `fn` throws.
	 */
	transactNow<T>(fn: Operation<T>, onCommitted?: () => void): { result: T; position: number } | undefined {
		if (this.#numbers.low) return undefined;
		let effects: StorageEffects = { freed: [], reservedDelta: 0, deadBytes: 0 };
		const run = (tx: Transaction): T => {
			effects = { freed: [], reservedDelta: 0, deadBytes: 0 };
			const records = new Records(tx, this.#arena);
			const result = fn(records, this.#context(), effects);
			countReserved(records, effects.reservedDelta);
			return result;
		};
		try {
			const outcome = transactNow(this.engine, this.platform, run, this.#transactOptions(onCommitted));
			if (outcome !== undefined) this.#handOn(effects, outcome.position);
			return outcome;
		} catch (error) {
			if (isNumbersOut(error)) return undefined;
			throw error;
		}
	}

	/** `view` in one synchronous step. Undefined: something is not in memory. */
	viewNow<T>(fn: (tx: RecordTransaction) => T): { readonly result: T } | undefined {
		return glance(this.engine, (tx) => fn(new Records(tx, this.#arena)));
	}

	/** One transaction: `fn` is a pure function of its reads, run until it commits. `onCommitted` is called in the step of the commit: nothing else sees what is between the two. */
	async transact<T>(fn: Operation<T>, onCommitted?: () => void): Promise<{ result: T; position: number }> {
		const now = this.transactNow(fn, onCommitted);
		if (now !== undefined) return now;
		for (;;) {
			await this.ensureNumbers();
			try {
				return await this.#transactOnce(fn, onCommitted);
			} catch (error) {
				// Other operations used the numbers up while this one waited: get more and run it again.
				if (!isNumbersOut(error)) throw error;
			}
		}
	}

	/** Runs a seal behind the foreground, with `flow` of its inode. */
	async sealBehind(ino: Ino, seal: (behind: Behind) => Promise<void>): Promise<void> {
		const behind = { ...this.behind, hurry: new Hurry() };
		// A second one (syncfs beside a pass) waits for the first, which makes that one hurry.
		const isFirst = !this.#hurries.has(ino);
		if (isFirst) this.#hurries.set(ino, behind.hurry);
		try {
			await behind.gather.run(() => this.flow.run(ino, () => seal(behind)));
		} finally {
			if (isFirst) this.#hurries.delete(ino);
		}
	}

	/** The transaction that makes the volume record: before it there are no numbers to hand out, and it needs none. */
	async transactFirst(fn: Operation<void>): Promise<void> {
		await this.#transactOnce(fn);
	}

	async #transactOnce<T>(fn: Operation<T>, onCommitted?: () => void): Promise<{ result: T; position: number }> {
		let effects: StorageEffects = { freed: [], reservedDelta: 0, deadBytes: 0 };
		const outcome = await this.#raw((tx) => {
			effects = { freed: [], reservedDelta: 0, deadBytes: 0 };
			const records = new Records(tx, this.#arena);
			const result = fn(records, this.#context(), effects);
			countReserved(records, effects.reservedDelta);
			return result;
		}, onCommitted);
		this.#handOn(effects, outcome.position);
		return outcome;
	}

	/** C1. */
	#handOn(effects: StorageEffects, position: number): void {
		this.reservedBytes += effects.reservedDelta;
		for (const segment of effects.freed) this.#freed.push({ segment, position });
		if (effects.freed.length > 0) this.#startRelease();
		this.deadBytes += effects.deadBytes;
	}

	/** Once, before the first transaction. */
	async loadReserved(): Promise<void> {
		this.reservedBytes = await this.view((tx) => tx.get(volumeRecord)?.reservedBytes ?? 0);
	}

	#raw<T>(fn: Parameters<typeof transact<T>>[2], onCommitted?: () => void): Promise<{ result: T; position: number }> {
		return transact(this.engine, this.platform, fn, this.#transactOptions(onCommitted));
	}

	#transactOptions(onCommitted: (() => void) | undefined): TransactOptions {
		return onCommitted === undefined ? this.#options : { ...this.#options, onCommitted };
	}

	#context(): OperationContext {
		return { now: this.platform.clock.realtime(), epoch: this.options.epoch, numbers: this.#numbers };
	}

	/** Reads only; commits nothing. */
	async view<T>(fn: (tx: RecordTransaction) => T): Promise<T> {
		const now = this.viewNow(fn);
		if (now !== undefined) return now.result;
		return (await this.#raw((tx) => fn(new Records(tx, this.#arena)))).result;
	}

	nextSegmentId(): number {
		return this.#numbers.segment();
	}

	async ensureNumbers(): Promise<void> {
		if (this.#numbers.low) await this.#numbers.ensure((refill) => this.#raw((tx) => refill(new Records(tx, this.#arena))));
	}

	/** Fresh numbers for the chunks of a segment, in rising order. Those of an attempt that needed more than were in memory are lost. */
	async chunkNumbers(count: number): Promise<number[]> {
		for (;;) {
			await this.ensureNumbers();
			try {
				return Array.from({ length: count }, () => this.#numbers.chunk());
			} catch (error) {
				if (!isNumbersOut(error)) throw error;
			}
		}
	}

	isPacking(id: number): boolean {
		return this.#packing.has(id);
	}

	/** The segment may still get chunks until the returned function is called: its space is not given back meanwhile. */
	holdForPacking(id: number): () => void {
		this.#packing.set(id, (this.#packing.get(id) ?? 0) + 1);
		return () => {
			const left = (this.#packing.get(id) ?? 1) - 1;
			if (left === 0) this.#packing.delete(id);
			else this.#packing.set(id, left);
		};
	}

	/** Resolves when nobody packs into the segment: before that its places must stay where they are, as a chunk that is added may bring its record back. */
	async packed(id: number): Promise<void> {
		while (this.#packing.has(id)) await this.platform.clock.sleep(limits.packingPollMs);
	}

	#startRelease(): void {
		if (this.#releasing || this.#stopped) return;
		this.#releasing = true;
		this.#releaseDone = this.#releaseLoop().finally(() => {
			this.#releasing = false;
		});
	}

	async #releaseLoop(): Promise<void> {
		while (this.#freed.length + this.#retired.size > 0 && !this.#stopped) {
			await this.platform.clock.sleep(limits.releaseDelayMs);
			try {
				await this.releaseFreed();
			} catch (error) {
				this.logger.warn("freed space could not be given back yet", { error: toFsError(error, "volume.release").message });
				await this.platform.clock.sleep(limits.releaseRetryMs);
			}
		}
	}

	/** Makes the freeing transactions durable and gives their space back now: for a volume that is short of space, and for the release loop. */
	releaseFreed(): Promise<void> {
		return this.#releases.run(() => this.#releaseReady());
	}

	async #releaseReady(): Promise<void> {
		await this.#releaseRetired();
		const ready = this.#freed.filter((item) => !this.#packing.has(item.segment.id));
		if (ready.length === 0) return;
		this.#freed = this.#freed.filter((item) => this.#packing.has(item.segment.id));
		try {
			if (!this.platform.simulation?.planted("space-reused-early"))
				await this.engine.durable(ready.reduce((most, item) => Math.max(most, item.position), 0));
		} catch (error) {
			this.#freed.push(...ready);
			throw error;
		}
		// A segment can have died twice (chunks were added after its first death): its last death counts, once.
		const last = [...new Map(ready.map((item) => [item.segment.id, item.segment])).values()];
		const records = await this.engine.read(last.map((segment) => segmentRecord.key(segment.id)));
		// Whoever deleted one of those records enters that death in the turn of its commit.
		await this.platform.clock.yield();
		// One that lived again and died meanwhile: that death is not durable, and gives the space back in its turn.
		const again = new Set(this.#freed.map((item) => item.segment.id));
		for (const [i, segment] of last.entries()) {
			if (records[i] === undefined && !again.has(segment.id)) await this.store.release(segment.fragments, segment);
		}
	}

	/** Gives places back that no record names since that transaction: when it is durable, however often that has to be tried. Nobody may hold a pin of his own. */
	async retire(places: readonly FragmentPlace[], segment: Segment, position: number): Promise<void> {
		if (places.length === 0) return;
		const one = { places, segment, position };
		this.#retired.add(one);
		try {
			await this.engine.durable(position);
		} catch (error) {
			this.logger.warn("replaced fragments could not be given back yet", {
				segment: segment.id,
				error: toFsError(error, "volume.retire").message,
			});
			this.#startRelease();
			return;
		}
		if (this.#retired.delete(one)) await this.store.release(places, segment);
	}

	async #releaseRetired(): Promise<void> {
		const all = [...this.#retired];
		if (all.length === 0) return;
		await this.engine.durable(all.reduce((most, one) => Math.max(most, one.position), 0));
		for (const one of all) if (this.#retired.delete(one)) await this.store.release(one.places, one.segment);
	}

	/** Freed and waiting for its release. */
	isFreed(id: number): boolean {
		return this.#freed.some((item) => item.segment.id === id);
	}

	protectionChanged(): void {
		this.protectionVersion++;
	}

	get freedWaiting(): number {
		return this.#freed.length;
	}

	/** What the volume's table says; numbers are never used for anything else. */
	readonly protections = new Map<number, string>();

	/** How contents of an inode with that protection are to be protected; 0 = as the volume by default. */
	redundancyOf(protection: number): Redundancy {
		const text = protection === 0 ? this.disks.roster.config.redundancy : this.protections.get(protection);
		if (text !== undefined) return parseRedundancy(text);
		throw new FsError("CORRUPT", "volume.protection", `an inode asks for protection ${protection}, which the volume's table lacks`);
	}

	async loadProtections(): Promise<void> {
		const volume = await this.view((tx) => tx.get(volumeRecord));
		for (const { id, redundancy } of volume?.protections ?? []) this.protections.set(id, redundancy);
	}

	/** All segment records, in batches, each as of its own moment. */
	async *segments(): AsyncGenerator<Segment> {
		let after: string | undefined;
		const prefix = segmentRecord.prefix();
		for (;;) {
			const from = after;
			const batch = await this.view((tx) =>
				tx.scan(segmentRecord, prefix, from === undefined ? { limit: limits.scanBatch } : { after: from, limit: limits.scanBatch }),
			);
			for (const item of batch) yield item.value;
			if (batch.length < limits.scanBatch) return;
			after = batch[batch.length - 1]?.key;
			await this.platform.clock.yield();
		}
	}

	/**
	 * Reads and verifies all of a segment as its record is now: a record that was read earlier may name places that were given back since, which is no damage.
	 * Undefined: it is gone.
	 */
	async checkSegment(id: number): Promise<SegmentHealth | undefined> {
		const unpin = this.store.pin(id);
		try {
			const segment = await this.view((tx) => tx.get(segmentRecord, id));
			if (segment === undefined) return undefined;
			const at = this.proofs.now();
			const health = await this.store.check(segment);
			this.proofs.enter(health, at);
			return health;
		} finally {
			unpin();
		}
	}

	/** No more background work; resolves when what runs has ended. */
	async stop(): Promise<void> {
		this.#stopped = true;
		this.proofs.stop();
		await this.#releaseDone;
	}
}

function isNumbersOut(error: unknown): boolean {
	return error instanceof FsError && error.site === "records.numbers-out";
}

function countReserved(tx: RecordTransaction, delta: number): void {
	if (delta === 0) return;
	const volume = tx.get(volumeRecord);
	assert(volume !== undefined && volume.reservedBytes + delta >= 0, `C3: ${delta} reserved bytes beside ${volume?.reservedBytes}`);
	tx.put(volumeRecord, { ...volume, reservedBytes: volume.reservedBytes + delta });
}
