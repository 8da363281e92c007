/**
 * Contents of files: read, write, seal, fsync, truncate. What else changes maps (fallocate, copies) is in ranges.ts.
 *
 * Invariants
 *  V1 A write is in the dirty ring before it is acknowledged; it leaves the ring only when a committed transaction holds its bytes or a later truncation removed them.
 *  V2 `flow` is held by whoever seals, logs, truncates or reaps an inode: at most one at a time; writes to an inode that is being truncated wait. One exception: while a seal is under way whose bytes are all in pending records, newer bytes may be logged
 *     beside it (`#besideSeal`); the seal waits for that before it ends.
 *  V3 inode.sealedThrough ≥ the number of every write whose bytes are in extents, inline data or pending records.
 *  V4 A transaction that names a segment begins after that segment's fragments are synced (Packer, SegmentStore.write).
 *  V5 An inode has inline contents or extents, never both.
 *  V6 While an intent stands for an inode, nothing else is written, cut or shared there: what it has not reached yet would be taken for old.
 *  V7 Who changes extents without going through the dirty store (ranges.ts) holds the inode exclusively and has sealed what was dirty: an old write must not come back above it.
 *  V8 Pending records of a sealed file go in the order in which they were made, and before anything else changes the map: what is left of them after a crash says nothing that the map does not say, and what was logged later comes after it.
 */
import { assert } from "../../base/assert.ts";
import { Mutex, Semaphore } from "../../base/async.ts";
import { FsError, isFsError } from "../../base/errors.ts";
import { compareTime, type Timestamp } from "../../base/time.ts";
import type { Chunk, Ino, Inode, Intent, OperationContext, RecordTransaction, Segment } from "../../records/interface.ts";
import { inodeRecord, intentRecord, pendingRecord } from "../../records/kinds.ts";
import { maximumPendingPieces } from "../../records/limits.ts";
import {
	addChunk,
	map as mapExtents,
	punch as punchExtents,
	reserve as reserveExtents,
	truncate as truncateExtents,
	writeAll as writeExtents,
} from "../../storage/extents.ts";
import type { Captured, DirtyPiece, DirtyStore, ExtentPiece, MappedRange, ReadPattern, StorageEffects } from "../../storage/interface.ts";
import type { Behind, Core } from "./core.ts";
import { limits } from "./limits.ts";
import type { Packer, Placed } from "./packer.ts";

export type Also = (tx: RecordTransaction, context: OperationContext) => void;

type Unlogged = NonNullable<ReturnType<DirtyStore["unlogged"]>>;

export interface FileView {
	readonly inode: Inode;
	readonly size: number;
}

interface Seal extends Captured {
	/** The oldest pending records, which go in the transaction that ends the seal. */
	readonly replacedAtOnce: readonly number[];
}

/** Work on a map of which the first transaction is committed, and more is to be done. */
interface Unfinished {
	readonly intent: Intent;
	/** Done up to here. */
	readonly doneTo: number;
}

/** Where a commit of placed pieces stands: the next piece, how much of it is done, and, when it is begun, the records it has become. */
interface CommitProgress {
	readonly index: number;
	readonly doneTo: number;
	readonly begun: { readonly chunk: Chunk; readonly segment: Segment } | undefined;
}

export class FileData {
	readonly #core: Core;
	readonly #packer: Packer;
	readonly #trouble: () => FsError | undefined;
	/** What one transaction may put into the log besides the inode: a volume with a small log has small ones. */
	readonly #loggedBytes: number;
	/** Inodes held exclusively: their writers wait (V2, V7). */
	readonly #frozen = new Map<Ino, Promise<void>>();
	/** Work that failed half way (V6). */
	readonly #unfinished = new Map<Ino, Unfinished>();
	/** Inodes that are being sealed while pending records hold all of what is sealed: what is written meanwhile may be logged, one after the other, by whoever holds this (V2). */
	readonly #besideSeal = new Map<Ino, Mutex>();
	/** Inodes of which somebody waits to log or seal what is dirty (`#persist`). */
	readonly #waitingPersists = new Map<Ino, Promise<void>>();
	/** Why nothing is written any more. */
	#refusal: FsError | undefined;

	/** `trouble` tells why seals fail at present. */
	constructor(core: Core, packer: Packer, trouble: () => FsError | undefined) {
		this.#core = core;
		this.#packer = packer;
		this.#trouble = trouble;
		this.#loggedBytes = Math.min(limits.logFsyncBytes, Math.floor(core.engine.manifest.maximumCommitBytes / 2));
	}

	// ── read ─────────────────────────────────────────────────────────────────────────────────────────────────────

	/** Size as readers see it: what is committed or what is dirty, whichever reaches further. */
	sizeOf(inode: Inode): number {
		return Math.max(inode.size, this.#core.dirty.attributes(inode.ino)?.end ?? 0);
	}

	/** Into `room`, if it is given and as long as is asked for: then the answer is a part of it. */
	async read(ino: Ino, offset: number, lengthBytes: number, pattern: ReadPattern = "usual", room?: Uint8Array): Promise<Uint8Array> {
		try {
			return await this.#readOnce(ino, offset, lengthBytes, pattern, room);
		} catch (error) {
			// A rebuild may have moved the fragments between the look at the record and the read: the record of now decides.
			if (!isFsError(error, "EIO")) throw error;
			return await this.#readOnce(ino, offset, lengthBytes, pattern, undefined);
		}
	}

	async #readOnce(ino: Ino, offset: number, lengthBytes: number, pattern: ReadPattern, room: Uint8Array | undefined): Promise<Uint8Array> {
		const { dirty } = this.#core;
		const plan = await this.#core.view((tx) => {
			const inode = requireInode(tx, ino);
			if (inode.type === "directory")
				throw new FsError("EISDIR", "volume.read-directory", `inode ${ino} is a directory: list it instead`, { ino });
			const end = Math.min(this.sizeOf(inode), offset + Math.min(lengthBytes, limits.readBytes));
			const length = Math.max(0, end - offset);
			// Taken in the same step as the map: a seal that commits later changes neither.
			const overlay = dirty.overlay(ino, offset, length).map((piece) => ({ offset: piece.offset, bytes: piece.bytes.slice() }));
			const covered = overlay.length === 1 && overlay[0]?.offset === offset && overlay[0].bytes.length === length;
			const ranges = covered || inode.inline !== undefined ? [] : mapExtents(tx, ino, offset, length);
			return { length, overlay, ranges, inline: inode.inline };
		});
		if (plan.overlay[0]?.bytes.length === plan.length && plan.overlay.length === 1) return plan.overlay[0].bytes;
		const result = room === undefined || room.length < plan.length ? new Uint8Array(plan.length) : room.subarray(0, plan.length);
		// A used buffer holds what was read before: holes are zeros.
		const mapped = plan.ranges.reduce((sum, range) => sum + range.length, 0);
		if (result.buffer === room?.buffer && mapped < plan.length) result.fill(0);
		if (plan.inline !== undefined && offset < plan.inline.length) result.set(plan.inline.subarray(offset, offset + plan.length));
		await this.#readRanges(plan.ranges, offset, result, pattern);
		for (const piece of plan.overlay) result.set(piece.bytes, piece.offset - offset);
		return result;
	}

	async #readRanges(ranges: readonly MappedRange[], base: number, into: Uint8Array, pattern: ReadPattern): Promise<void> {
		if (ranges.length === 0) return;
		const [only] = ranges;
		if (only !== undefined && ranges.length === 1) return this.#readRange(only, base, into, pattern);
		const unpin = [...new Set(ranges.map((range) => range.segment.id))].map((id) => this.#core.store.pin(id));
		const gate = new Semaphore(limits.readRangesAtOnce);
		try {
			const reads = ranges.map((range) =>
				gate.run(async () => {
					const at = range.offset - base;
					await this.#core.store.readInto(range.segment, range.payloadOffset, into.subarray(at, at + range.length), pattern);
				}),
			);
			const results = await Promise.allSettled(reads);
			for (const result of results) if (result.status === "rejected") throw result.reason;
		} finally {
			for (const letGo of unpin) letGo();
		}
	}

	/** Most reads are of one range, and need nothing that keeps several apart. */
	async #readRange(range: MappedRange, base: number, into: Uint8Array, pattern: ReadPattern): Promise<void> {
		const unpin = this.#core.store.pin(range.segment.id);
		try {
			const at = range.offset - base;
			await this.#core.store.readInto(range.segment, range.payloadOffset, into.subarray(at, at + range.length), pattern);
		} finally {
			unpin();
		}
	}

	// ── write ────────────────────────────────────────────────────────────────────────────────────────────────────

	/** Acknowledged when it resolves (V1). `bytes` are copied before the first await. `offset` undefined = append. */
	async write(ino: Ino, offset: number | undefined, bytes: Uint8Array): Promise<void> {
		if (offset !== undefined && this.mayWriteNow(ino, bytes.length)) {
			this.writeNow(ino, offset, bytes);
			return;
		}
		const copy = bytes.slice();
		for (;;) {
			const frozen = this.#frozen.get(ino);
			if (this.#refusal !== undefined) throw this.#refusal;
			if (frozen !== undefined) await frozen;
			else if (this.#unfinished.has(ino)) await this.#core.flow.run(ino, () => this.#finishEarlier(ino));
			else if (!this.#core.dirty.hasRoom(copy.length)) await this.#roomOrTrouble();
			else {
				const at = offset ?? this.#endNow(ino);
				if (at !== undefined) {
					this.#core.dirty.write(ino, at, copy, this.#core.platform.clock.realtime());
					return;
				}
				await this.#core.view((tx) => requireInode(tx, ino));
			}
		}
	}

	/**
	 * Where an append goes, or undefined when the inode is not in memory. In one step with the write: whatever was awaited between the two could be a seal, a truncation or
	 * another append, and this one would overwrite it or leave a gap.
	 */
	#endNow(ino: Ino): number | undefined {
		const key = inodeRecord.key(ino);
		const found = this.#core.engine.peek(key);
		if (found === undefined) return undefined;
		if (found === null) throw noInode(ino);
		return this.sizeOf(inodeRecord.decode(found.value, key));
	}

	/** Memory is full: wait for a seal, unless seals fail; then the writer is told why instead of waiting for ever. */
	async #roomOrTrouble(): Promise<void> {
		const trouble = this.#trouble();
		if (trouble !== undefined) throw trouble;
		await this.#core.dirty.room();
	}

	/** In the same step as `mayWriteNow`. */
	writeNow(ino: Ino, offset: number, bytes: Uint8Array): void {
		this.#core.dirty.write(ino, offset, bytes, this.#core.platform.clock.realtime());
	}

	/** Nobody works on its map, holds it, or has left something undone there: who removes it now may take it apart in the same step. */
	isQuiet(ino: Ino): boolean {
		return !this.#core.flow.held(ino) && !this.#frozen.has(ino) && !this.#unfinished.has(ino);
	}

	mayWriteNow(ino: Ino, lengthBytes: number): boolean {
		const hindered = this.#frozen.has(ino) || this.#unfinished.has(ino) || this.#refusal !== undefined;
		return !hindered && this.#core.dirty.hasRoom(lengthBytes);
	}

	/** From now on nothing becomes dirty: a write that still waits fails with that error. */
	refuseWrites(refusal: FsError): void {
		this.#refusal = refusal;
	}

	// ── seal ─────────────────────────────────────────────────────────────────────────────────────────────────────

	/** Brings what is dirty now into segments (or the inode) and metadata. Not durable by itself: `engine.durable(position)`. */
	async seal(ino: Ino): Promise<void> {
		if (!this.#core.dirty.has(ino)) return;
		await this.#core.flow.run(ino, () => this.sealLocked(ino));
	}

	/** The same, a step at a time in the turns that are there for it: hundreds of files are sealed side by side, and who reads meanwhile must not wait for all of them. Who waits for this one makes it go on at once. */
	async sealBehind(ino: Ino): Promise<void> {
		if (!this.#core.dirty.has(ino)) return;
		await this.#core.sealBehind(ino, (behind) => this.sealLocked(ino, behind));
	}

	/** Like seal, for callers that hold `flow`. */
	async sealLocked(ino: Ino, behind?: Behind): Promise<void> {
		const captured = this.#core.dirty.capture(ino);
		if (captured === undefined) return;
		const beside = new Mutex();
		if (captured.isLogged) this.#besideSeal.set(ino, beside);
		try {
			await this.#isSlow();
			const atOnce = this.#core.platform.simulation?.buggify("volume.few-at-once") === true ? 1 : limits.pendingsAtOnce;
			const seal = { ...captured, replacedAtOnce: captured.pendings.slice(0, atOnce) };
			await this.#commitCapture(seal, behind);
			await this.#forgetReplaced(seal, behind);
		} catch (error) {
			await this.#endBeside(ino, beside);
			this.#core.dirty.restored(captured);
			// A write that came after its inode was taken apart: nobody else would let go of its memory.
			if (isGone(error)) this.#core.dirty.drop(ino);
			throw error;
		}
		await this.#endBeside(ino, beside);
		this.#core.dirty.committed(captured);
	}

	/**
	 * The pending records that had no place in the transaction that ended the seal, the oldest first: of those that are left after a crash the newest bytes must be the ones that the seal has written (V8).
	 */
	async #forgetReplaced({ ino, pendings, replacedAtOnce }: Seal, behind: Behind | undefined): Promise<void> {
		const left = pendings.slice(replacedAtOnce.length);
		if (this.#core.platform.simulation?.planted("newest-pending-first") === true) left.reverse();
		const most = Math.max(1, replacedAtOnce.length);
		for (let from = 0; from < left.length; from += most) {
			const some = left.slice(from, from + most);
			await this.#isSlow();
			await inTurn(behind, () =>
				this.#core.transact((tx) => {
					for (const id of some) tx.delete(pendingRecord, ino, id);
				}),
			);
		}
	}

	/** As on slow disks: writes, times and deaths come meanwhile. */
	async #isSlow(): Promise<void> {
		const { clock, random, simulation } = this.#core.platform;
		if (simulation?.buggify("volume.slow-seal") === true) await clock.sleep(random.below(limits.sealAgeMs));
	}

	/** Nobody logs beside the seal any more. */
	async #endBeside(ino: Ino, beside: Mutex): Promise<void> {
		this.#besideSeal.delete(ino);
		if (beside.held) await beside.run(() => {});
	}

	async #commitCapture(captured: Seal, behind: Behind | undefined): Promise<void> {
		const inode = await this.#core.view((tx) => requireInode(tx, captured.ino));
		const size = Math.max(inode.size, captured.attributes.end);
		const small = size <= limits.inlineBytes && !this.#core.platform.simulation?.buggify("volume.tiny-in-segment");
		if (small && (inode.inline !== undefined || inode.storedBytes === 0)) {
			await inTurn(behind, () => this.#commitInline(captured));
			return;
		}
		const pieces = inode.inline === undefined ? captured.pieces : withInline(inode.inline, captured.pieces);
		await this.#placeAndCommit(captured, pieces, inode.inline !== undefined, inode.protection, behind);
	}

	async #placeAndCommit(
		captured: Seal,
		pieces: readonly DirtyPiece[],
		wasInline: boolean,
		protection: number,
		behind?: Behind,
	): Promise<void> {
		const placed = await this.#packer.place(captured.ino, this.#core.redundancyOf(protection), pieces, behind);
		const used = new Set<number>();
		try {
			await this.#commitPlaced(captured, placed, wasInline, used, behind);
		} finally {
			for (const one of placed) one.settle(used.has(one.segment.id));
		}
	}

	async #commitInline(captured: Seal): Promise<void> {
		await this.#core.transact((tx) => {
			const inode = requireInode(tx, captured.ino);
			assert(inode.inline !== undefined || inode.storedBytes === 0, "V5: inline beside extents");
			const size = Math.max(inode.size, captured.attributes.end);
			const end = captured.pieces.reduce((most, piece) => Math.max(most, piece.offset + piece.bytes.length), inode.inline?.length ?? 0);
			assert(end <= limits.inlineBytes, "inline contents are small");
			const inline = new Uint8Array(end);
			if (inode.inline !== undefined) inline.set(inode.inline);
			for (const piece of captured.pieces) inline.set(piece.bytes, piece.offset);
			finishSeal(tx, captured, { ...inode, size, inline, storedBytes: inline.length });
		});
	}

	/** As many pieces a transaction as fit; each step leaves a file that is right, the last one ends the seal. */
	async #commitPlaced(
		captured: Seal,
		placed: readonly Placed[],
		wasInline: boolean,
		used: Set<number>,
		behind: Behind | undefined,
	): Promise<void> {
		let progress: CommitProgress = { index: 0, doneTo: placed[0]?.offset ?? 0, begun: undefined };
		for (let finished = false; !finished; ) {
			const from = progress;
			const step = await inTurn(behind, () =>
				this.#core.transact((tx, context, effects) => commitStep(tx, context, effects, captured, placed, wasInline, from)),
			);
			for (let i = from.index; i <= step.result.progress.index && i < placed.length; i++) {
				const one = placed[i] as Placed;
				if (i < step.result.progress.index || step.result.progress.begun !== undefined) used.add(one.segment.id);
			}
			assert(
				step.result.finished || step.result.progress.index > from.index || step.result.progress.doneTo > from.doneTo,
				"a step of a seal makes progress",
			);
			progress = step.result.progress;
			finished = step.result.finished;
		}
	}

	// ── fsync ────────────────────────────────────────────────────────────────────────────────────────────────────

	/** Bytes and names of the inode are durable when it resolves. */
	async fsync(ino: Ino): Promise<void> {
		if (this.#core.dirty.has(ino)) await this.#persist(ino);
		await this.#core.engine.durable(this.#core.engine.position);
	}

	/** Who comes while others wait for their turn is served with them: what is dirty now is dirty then. */
	#persist(ino: Ino): Promise<void> {
		const waiting = this.#waitingPersists.get(ino);
		if (waiting !== undefined) return waiting;
		let hasBegun = false;
		const begin = (): void => {
			hasBegun = true;
			this.#waitingPersists.delete(ino);
		};
		const beside = this.#besideSeal.get(ino);
		const persist = beside === undefined ? this.#persistInTurn(ino, begin) : this.#persistBeside(ino, beside, begin);
		if (!hasBegun) this.#waitingPersists.set(ino, persist);
		return persist;
	}

	#persistInTurn(ino: Ino, begin: () => void): Promise<void> {
		return this.#core.flow.run(ino, () => {
			begin();
			return this.#persistLocked(ino);
		});
	}

	/** Whoever waited for the seal instead would wait as long as for ten records. */
	async #persistBeside(ino: Ino, beside: Mutex, begin: () => void): Promise<void> {
		const isDone = await beside.run(async () => {
			const unlogged = this.#core.dirty.unlogged(ino);
			if (unlogged !== undefined && this.#isMuch(ino, unlogged.pieces, unlogged.bytes)) return false;
			begin();
			if (unlogged !== undefined) await this.#log(ino, unlogged);
			return true;
		});
		// Not with the mutex held: the seal waits for it.
		if (!isDone) await this.#persistInTurn(ino, begin);
	}

	/** Puts what is dirty into the log when it is little, else seals it. */
	async #persistLocked(ino: Ino): Promise<void> {
		const unlogged = this.#core.dirty.unlogged(ino);
		if (unlogged === undefined) return;
		const unusual = this.#core.platform.simulation?.buggify("volume.fsync-seals") === true;
		if (unusual || this.#isMuch(ino, unlogged.pieces, unlogged.bytes)) await this.sealLocked(ino);
		else await this.#log(ino, unlogged);
	}

	async #log(ino: Ino, { pieces, through }: Unlogged): Promise<void> {
		const end = pieces.reduce((most, piece) => Math.max(most, piece.offset + piece.bytes.length), 0);
		const { result: id } = await this.#core.transact((tx, context) => {
			const inode = requireInode(tx, ino);
			const pendingId = putPending(tx, context, ino, pieces);
			// Asked in each attempt: a time that was set meanwhile stays.
			const written = this.#core.dirty.attributes(ino)?.mtime;
			const mtime = written ?? inode.mtime;
			const ctime = later(inode.ctime, written);
			putInode(tx, {
				...inode,
				size: Math.max(inode.size, end),
				mtime,
				ctime,
				sealedThrough: Math.max(inode.sealedThrough, through),
			});
			return pendingId;
		});
		this.#core.dirty.logged(ino, [id], through);
	}

	/** One more fsync or a few, and somebody has to wait for a seal. */
	hasMuchLogged(ino: Ino): boolean {
		const most = this.#core.platform.simulation?.buggify("volume.few-pendings") === true ? 2 : limits.pendingsToSeal;
		return this.#core.dirty.pendings(ino).length >= most && !this.#core.flow.held(ino);
	}

	/** Whether a seal of the inode costs less than another record in the log. */
	#isMuch(ino: Ino, unlogged: readonly DirtyPiece[], unloggedBytes: number): boolean {
		const { dirty } = this.#core;
		return (
			unloggedBytes > this.#loggedBytes ||
			unlogged.length > maximumPendingPieces ||
			dirty.pendings(ino).length >= limits.pendingsPerInode ||
			(dirty.attributes(ino)?.bytes ?? 0) > limits.sealLoggedBytes
		);
	}

	// ── truncate ─────────────────────────────────────────────────────────────────────────────────────────────────

	/** Sets the size; what is cut off is gone for good, what a later growth uncovers reads as zeros. `also` becomes part of the transaction that sets it. */
	truncate(ino: Ino, size: number, also: Also = () => {}): Promise<void> {
		return this.exclusive(ino, () => this.#truncateLocked(ino, size, also));
	}

	/**
	 * Runs `fn` with `flow` of the inode held, its writers waiting, and earlier work on it finished. With `beside`, `flow` of that inode is held too, and its earlier work finished: nothing of it is
	 * sealed meanwhile, but it may be written to. (Flows are taken in order of inode numbers, so that two copies in opposite directions do not wait for each other.)
	 */
	exclusive<T>(ino: Ino, fn: () => Promise<T>, beside: Ino = ino): Promise<T> {
		const { flow } = this.#core;
		if (beside === ino) return flow.run(ino, () => this.#frozenWhile(ino, fn));
		const both = async (): Promise<T> => {
			await this.#finishEarlier(beside);
			return this.#frozenWhile(ino, fn);
		};
		return flow.run(Math.min(ino, beside), () => flow.run(Math.max(ino, beside), both));
	}

	async #frozenWhile<T>(ino: Ino, fn: () => Promise<T>): Promise<T> {
		let thaw = (): void => {};
		this.#frozen.set(
			ino,
			new Promise((resolve) => {
				thaw = resolve;
			}),
		);
		try {
			await this.#finishEarlier(ino);
			return await fn();
		} finally {
			this.#frozen.delete(ino);
			thaw();
		}
	}

	async #truncateLocked(ino: Ino, size: number, also: Also): Promise<void> {
		const { dirty } = this.#core;
		if (this.#mustSealBefore(ino, size)) await this.sealLocked(ino);
		const stays = dirty.overlay(ino, 0, size).map((piece) => ({ offset: piece.offset, bytes: piece.bytes.slice() }));
		const through = dirty.lastWrite;
		const obsolete = [...dirty.pendings(ino)];
		// In the step of the commit: readers would see the old size, and the new map under what was dirty.
		const cutDirty = (): void => {
			if (!this.#core.platform.simulation?.planted("seal-after-truncate")) dirty.truncate(ino, size);
			dirty.clearTime(ino);
		};
		const first = await this.#core.transact((tx, context, effects) => {
			const inode = requireInode(tx, ino);
			for (const id of obsolete) tx.delete(pendingRecord, ino, id);
			const pendingIds = stays.length === 0 ? [] : [putPending(tx, context, ino, stays)];
			also(tx, context);
			const inline = inode.inline?.subarray(0, size).slice();
			const counts = { dataGeneration: inode.dataGeneration + 1, change: inode.change + 1, sealedThrough: through };
			const cut: Inode = { ...inode, ...counts, size, mtime: context.now, ctime: context.now, inline };
			return {
				pendingIds,
				...startMapWork(tx, context, effects, inline === undefined ? cut : { ...cut, storedBytes: inline.length }, {
					kind: "truncate",
					from: size,
					to: Number.MAX_SAFE_INTEGER,
				}),
			};
		}, cutDirty);
		dirty.logged(ino, first.result.pendingIds, through);
		await this.finishWork(first.result);
	}

	/** The rest of what `startMapWork` began, once that is committed. */
	async finishWork({ intent, doneTo }: MapWorkStep): Promise<void> {
		if (intent === undefined) return;
		this.#unfinished.set(intent.ino, { intent, doneTo });
		await this.#finishEarlier(intent.ino);
	}

	/** What is left of such work when the inode has been taken apart: the intent goes. */
	finishLeft(ino: Ino): Promise<void> {
		return this.#finishEarlier(ino);
	}

	async #finishEarlier(ino: Ino): Promise<void> {
		const left = this.#unfinished.get(ino);
		if (left === undefined) return;
		await this.finishIntent(left.intent, left.doneTo);
		this.#unfinished.delete(ino);
	}

	#mustSealBefore(ino: Ino, size: number): boolean {
		const stays = this.#core.dirty.overlay(ino, 0, size);
		const bytes = stays.reduce((sum, piece) => sum + piece.bytes.length, 0);
		return (
			bytes > this.#loggedBytes ||
			stays.length > maximumPendingPieces ||
			// One transaction deletes them and puts the new one.
			this.#core.dirty.pendings(ino).length >= limits.pendingsAtOnce
		);
	}

	/** Goes on with work that took more than one transaction; after a crash, before the volume serves. */
	async finishIntent(intent: Intent, doneTo = intent.from): Promise<void> {
		let at = doneTo;
		for (let left: Intent | undefined = intent; left !== undefined; ) {
			const start = at;
			const { result } = await this.#core.transact((tx, context, effects) => {
				const inode = tx.get(inodeRecord, intent.ino);
				if (inode !== undefined) return goOnWithMapWork(tx, context, effects, inode, intent, start);
				tx.delete(intentRecord, intent.id);
				return { intent: undefined, doneTo: start };
			});
			at = result.doneTo;
			left = result.intent;
		}
	}

	// ── inline contents ──────────────────────────────────────────────────────────────────────────────────────────

	/** Moves inline contents into a segment, so that extents can lie beside them (V5). The caller holds the inode exclusively and has sealed it. */
	async outOfLine(ino: Ino): Promise<void> {
		const inode = await this.#core.view((tx) => requireInode(tx, ino));
		if (inode.inline === undefined) return;
		const attributes = { end: inode.size, mtime: undefined, bytes: 0, newest: 0 };
		const seal: Seal = { ino, pieces: [], bytes: 0, attributes, through: 0, pendings: [], isLogged: false, replacedAtOnce: [] };
		await this.#placeAndCommit(seal, withInline(inode.inline, []), true, inode.protection);
	}
}

/** A transaction. */
function inTurn<T>(behind: Behind | undefined, step: () => Promise<T>): Promise<T> {
	return behind === undefined ? step() : behind.commit.run(step, behind.hurry);
}

export function requireInode(tx: RecordTransaction, ino: Ino): Inode {
	const inode = tx.get(inodeRecord, ino);
	if (inode === undefined) throw noInode(ino);
	return inode;
}

function noInode(ino: Ino): FsError {
	return new FsError("ESTALE", "volume.no-inode", `inode ${ino} does not exist any more`, { ino });
}

/** The inode that an operation was about is not there any more. */
export function isGone(error: unknown): boolean {
	return isFsError(error, "ESTALE") && error.site === "volume.no-inode";
}

/** Of two times of change the later: ctime does not go back because older writes reach metadata. */
export function later(a: Timestamp, b: Timestamp | undefined): Timestamp {
	return b === undefined || compareTime(a, b) >= 0 ? a : b;
}

function putInode(tx: RecordTransaction, inode: Inode): void {
	tx.put(inodeRecord, inode, inode.ino);
}

/** `pieces` stay as they are until the transaction has ended: copies, not views of the ring. */
function putPending(tx: RecordTransaction, context: OperationContext, ino: Ino, pieces: readonly DirtyPiece[]): number {
	const id = context.numbers.pending();
	tx.put(pendingRecord, { ino, id, pieces, birthEpoch: context.epoch }, ino, id);
	return id;
}

/** Inline contents become part of the first piece: an inode never has both (V5). */
function withInline(inline: Uint8Array, pieces: readonly DirtyPiece[]): DirtyPiece[] {
	if (inline.length === 0) return [...pieces];
	const head = inline.slice();
	const rest: DirtyPiece[] = [];
	for (const piece of pieces) {
		const inside = Math.max(0, Math.min(piece.bytes.length, head.length - piece.offset));
		if (inside > 0) head.set(piece.bytes.subarray(0, inside), piece.offset);
		if (inside < piece.bytes.length) rest.push({ offset: piece.offset + inside, bytes: piece.bytes.subarray(inside) });
	}
	return [{ offset: 0, bytes: head }, ...rest];
}

/** The end of a seal: attributes, the replay guard, and the pending records that the seal replaces, or the oldest of them. */
function finishSeal(tx: RecordTransaction, captured: Seal, inode: Inode): void {
	for (const id of captured.replacedAtOnce) tx.delete(pendingRecord, captured.ino, id);
	// What was logged beside this seal has brought a later time.
	const isNewest = inode.sealedThrough <= captured.through;
	const mtime = isNewest ? captured.attributes.mtime : undefined;
	const times = mtime === undefined ? {} : { mtime, ctime: later(inode.ctime, mtime) };
	putInode(tx, {
		...inode,
		...times,
		sealedThrough: Math.max(inode.sealedThrough, captured.through),
		dataGeneration: inode.dataGeneration + 1,
	});
}

function commitStep(
	tx: RecordTransaction,
	context: OperationContext,
	effects: StorageEffects,
	captured: Seal,
	placed: readonly Placed[],
	wasInline: boolean,
	from: CommitProgress,
): { progress: CommitProgress; finished: boolean } {
	const inode = requireInode(tx, captured.ino);
	let { index, doneTo, begun } = from;
	let storedDelta = 0;
	// Room for the inode, the head, and the pending records that the last step deletes.
	const room = (): number => limits.transactionChanges - 2 - captured.replacedAtOnce.length - tx.changeCount;
	while (index < placed.length && room() > 0) {
		const first = placed[index] as Placed;
		const segment = begun?.segment ?? first.segment;
		const pieces = sameSegment(placed, index, room()).map((one): ExtentPiece => {
			const chunk = one === first && begun !== undefined ? begun.chunk : addChunk(tx, context, one.segment, one.place);
			const offset = one === first ? doneTo : one.offset;
			return { offset, length: one.offset + one.length - offset, chunk, chunkOffset: offset - one.offset };
		});
		const written = writeExtents(tx, context, effects, captured.ino, pieces, segment, room());
		storedDelta += written.storedDelta;
		index += written.doneCount;
		if (written.doneCount > 0) begun = undefined;
		const stopped = pieces[written.doneCount];
		if (stopped !== undefined) {
			if (written.doneTo > stopped.offset) begun = { chunk: written.chunk ?? stopped.chunk, segment: written.segment };
			doneTo = written.doneTo;
			break;
		}
		doneTo = placed[index]?.offset ?? written.doneTo;
	}
	const finished = index === placed.length;
	// Only what is committed may be inside the size: later pieces of this seal come with later steps.
	const reached = finished ? captured.attributes.end : index > from.index || doneTo > from.doneTo ? reachedEnd(placed, index, doneTo) : 0;
	const inline = wasInline && inode.inline !== undefined ? undefined : inode.inline;
	const base = wasInline && inode.inline !== undefined ? 0 : inode.storedBytes;
	const next: Inode = { ...inode, inline, size: Math.max(inode.size, reached), storedBytes: base + storedDelta };
	if (finished) finishSeal(tx, captured, next);
	else putInode(tx, next);
	return { progress: { index, doneTo, begun }, finished };
}

/** Pieces from that one on that lie in its segment, and no more than there is room for: each takes a change at least. */
function sameSegment(placed: readonly Placed[], index: number, most: number): readonly Placed[] {
	const { id } = (placed[index] as Placed).segment;
	let end = index + 1;
	while (end < placed.length && end < index + most && (placed[end] as Placed).segment.id === id) end++;
	return placed.slice(index, end);
}

/** End of the committed bytes: of the piece in work up to where it is done, else of the piece before. */
function reachedEnd(placed: readonly Placed[], index: number, doneTo: number): number {
	const current = placed[index];
	if (current !== undefined && doneTo > current.offset) return doneTo;
	const before = placed[index - 1];
	return before === undefined ? 0 : before.offset + before.length;
}

export type MapWork = Pick<Intent, "kind" | "from" | "to">;

export interface MapWorkStep {
	/** There while something is left to do. */
	readonly intent: Intent | undefined;
	readonly doneTo: number;
}

/** Begins work on the map of a file: as much as fits; an intent keeps the rest from being forgotten. Puts the inode with its new count of stored bytes. */
export function startMapWork(
	tx: RecordTransaction,
	context: OperationContext,
	effects: StorageEffects,
	inode: Inode,
	work: MapWork,
): MapWorkStep {
	const doneTo = mapWorkStep(tx, context, effects, inode, work, work.from);
	if (doneTo === work.to) return { intent: undefined, doneTo };
	const intent: Intent = { ...work, id: context.numbers.pending(), ino: inode.ino, birthEpoch: context.epoch };
	tx.put(intentRecord, intent, intent.id);
	return { intent, doneTo };
}

function goOnWithMapWork(
	tx: RecordTransaction,
	context: OperationContext,
	effects: StorageEffects,
	inode: Inode,
	intent: Intent,
	at: number,
): MapWorkStep {
	const doneTo = mapWorkStep(tx, context, effects, inode, intent, at);
	if (doneTo < intent.to) return { intent, doneTo };
	tx.delete(intentRecord, intent.id);
	return { intent: undefined, doneTo };
}

function mapWorkStep(
	tx: RecordTransaction,
	context: OperationContext,
	effects: StorageEffects,
	inode: Inode,
	work: MapWork,
	at: number,
): number {
	// Room for the inode, the intent, the head, and the volume record that counts what is reserved.
	const budget = limits.transactionChanges - 4 - tx.changeCount;
	const { doneTo, storedDelta } =
		inode.inline === undefined ? changeMap(tx, context, effects, inode.ino, work, at, budget) : { doneTo: work.to, storedDelta: 0 };
	putInode(tx, { ...inode, storedBytes: inode.storedBytes + storedDelta });
	return doneTo;
}

function changeMap(
	tx: RecordTransaction,
	context: OperationContext,
	effects: StorageEffects,
	ino: Ino,
	{ kind, from, to }: MapWork,
	at: number,
	budget: number,
): { readonly doneTo: number; readonly storedDelta: number } {
	if (kind === "truncate") return truncateExtents(tx, effects, ino, from, budget, at);
	if (kind === "punch") return punchExtents(tx, context, effects, ino, at, to - at, budget);
	return reserveExtents(tx, context, effects, ino, at, to - at, kind === "zero", budget);
}
