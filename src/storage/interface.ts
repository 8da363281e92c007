/**
 * Data: fragments on disks (`SegmentStore`), what a file is made of (`ExtentVerbs`), and what was written but is not sealed yet (`DirtyStore`).
 *
 * Storage never opens a transaction of its own: the volume composes `SegmentStore` (I/O) with verbs that take a transaction.
 *
 * Life of a byte: DirtyStore.write → capture → packed into a payload → SegmentStore.write (encode, write, sync) → one transaction
 * (chunk + segment + extents + size) → DirtyStore.committed. Freed: the transaction that makes a segment dead deletes its record →
 * after that transaction is durable: SegmentStore.release.
 */
import type { Timestamp } from "../base/time.ts";
import type { DiskTarget } from "./balance.ts";
import type { PlaceInHand } from "./pack.ts";
import type { Chunk, FragmentPlace, Ino, OperationContext, Pending, RecordTransaction, Segment } from "../records/interface.ts";

/** storage/redundancy.ts: parseRedundancy("rs:4+2" | "replicate:3"), formatRedundancy, tolerance, feasible(target, disks), smallSeal(target). */
export interface Redundancy {
	/** 1 for replicas. */
	readonly dataShards: number;
	readonly parityShards: number;
}

// ── fragments and segments ───────────────────────────────────────────────────────────────────────────────────────

export interface SegmentHealth {
	readonly segment: Segment;
	/** One per index of the shape: ok (readable and right), missing (no place, or its disk is gone), corrupt. */
	readonly fragments: readonly {
		readonly index: number;
		readonly disk: number | undefined;
		readonly state: "ok" | "missing" | "corrupt";
	}[];
	/** Fewer than dataShards are ok. */
	readonly lost: boolean;
	/** Everything there, on distinct domains, in the target's shape. */
	readonly full: boolean;
	/** Good fragments on disks that are to be emptied. */
	readonly leaving: number;
}

/** possible: it can be bettered now; no-space: it could, if the disks that fit had room; no-disk: there is no other disk that fits; awaited: only by writing all of it anew, in another shape, which is not worth it while the disk may come back or be replaced. */
export type HealOutlook = "possible" | "no-space" | "no-disk" | "awaited";

export interface RebuildOptions {
	/** Leaves a segment as it is that still survives a loss and lacks nothing but fragments on disks that were lost a while ago at most (`limits.awaitedMs`), where it would have to be written anew in an interim shape. */
	readonly patient?: boolean;
}

export interface StorageSpace {
	/** Bytes of user data that fit in all / are stored / still fit, in the volume's default redundancy; what statfs shows. */
	readonly capacityBytes: number;
	readonly usedBytes: number;
	readonly freeBytes: number;
	/** What would fit if fragments moved until disks filled up evenly; never less than freeBytes. */
	readonly levelFreeBytes: number;
	readonly disks: readonly {
		readonly id: number;
		readonly capacityBytes: number;
		readonly usedBytes: number;
		readonly freeBytes: number;
	}[];
}

/** Random reads gain nothing from what lies around them. */
export type ReadPattern = "usual" | "random";

/** Compaction may draw deeper on what is kept free than data ("data" is what is meant when nothing is said): it gives back more than it takes. */
export type WritePurpose = "data" | "compaction";

/** Disks that come and go, in thought. */
export interface SpaceChange {
	readonly without?: number;
	readonly added?: readonly {
		readonly domain: string;
		/** As `Disk.ownsSpace`. */
		readonly ownsSpace: boolean;
		readonly capacityBytes: number;
		readonly freeBytes: number;
	}[];
}

export interface SpacePreview {
	readonly space: StorageSpace;
	/** Failure domains of the disks that can then be written. */
	readonly domains: number;
}

export interface BalancePreview {
	readonly targets: readonly DiskTarget[];
	/** What `space` would say then. */
	readonly space: StorageSpace;
}

/** What no record names. pack: a file without anything of anybody in it; space: bytes in free parts of a pack; place: a fragment that nobody has committed or given back. */
export interface FoundGarbage {
	readonly kind: "pack" | "space" | "place";
	readonly disk: number;
	readonly pack: number;
	/** What its removal gives back, about. */
	readonly bytes: number;
	/** Of a place. */
	readonly place?: PlaceInHand;
}

export interface StoreGarbage {
	readonly found: readonly FoundGarbage[];
	/** Taken in packs (`packKey`), neither named by a record nor in hand: for a moment of what is being given back, else a fault of this program. The next mount gives it back. */
	readonly unaccounted: ReadonlyMap<string, number>;
	/** Names in the folder of packs that are none of ours. */
	readonly strange: readonly { readonly disk: number; readonly name: string }[];
	/** Disks that could not be looked at. */
	readonly away: readonly number[];
}

export interface SegmentStore {
	/** Before anything else: every live segment record, to know what space is used. */
	load(segments: Iterable<Segment>): void;
	/**
	 * Packs `payload` into fragments of the best feasible shape for `target`, on distinct domains, writes them in parallel and syncs them (one sync serves all segments
	 * written meanwhile on a disk). A disk that fails during this is reported and the segment is written anew on what is left. Returns the record, with liveBytes 0: the
	 * caller's transaction fills that, and without `chunks`: the caller knows them. The payload must not change until it settles. When the transaction is not committed: `abandon`.
	 * @throws FsError ENOSPC (no room in that shape), EIO (fewer disks than any feasible shape needs).
	 */
	write(id: number, payload: Uint8Array, target: Redundancy, epoch: number, purpose?: WritePurpose): Promise<Segment>;
	abandon(segment: Segment): void;
	/** Verified bytes [offset, offset + length) of the payload; from data shards when they are good, else decoded. Damage found is reported and listed for healing. @throws FsError EIO `storage.lost`. */
	read(segment: Segment, offset: number, length: number): Promise<Uint8Array>;
	/** Whether the disks give these bytes of the payload; memory is not believed. */
	isOnDisk(segment: Segment, offset: number, length: number): Promise<boolean>;
	/** As `read`, as many bytes as `into` takes. With "random" nothing more is fetched than what is asked for, and it is not kept in memory. */
	readInto(segment: Segment, offset: number, into: Uint8Array, pattern?: ReadPattern): Promise<void>;
	/** Gives the space of dead fragments back; call when the freeing transaction is durable and no reader is left on it. */
	release(places: readonly FragmentPlace[], segment: Segment): Promise<void>;
	/** Readers of a segment hold this while they read; `release` waits for them. */
	pin(segmentId: number): () => void;
	/** Reads and verifies every fragment, header and all blocks. */
	check(segment: Segment): Promise<SegmentHealth>;
	/** What the record and the states of the disks say, without reading. */
	assess(segment: Segment): SegmentHealth;
	/** What a patient rebuild would come to with the disks that there are now, without doing it. */
	outlook(health: SegmentHealth): HealOutlook;
	/**
	 * Brings a segment to its target's shape, or to the best feasible, and off disks that are to be emptied: only missing, corrupt or leaving fragments are made anew (generation + 1), or all of them where the shape changes. The new
	 * fragments are durable when it resolves; the caller commits `segment` if the record is still the one given and then releases `retired`. Undefined: nothing can be bettered now.
	 * What it gives never survives fewer losses than before, unless the target asks for no more.
	 * @throws FsError EIO when the data is lost, ENOSPC.
	 */
	rebuild(
		health: SegmentHealth,
		options?: RebuildOptions,
	): Promise<
		{ readonly segment: Segment; readonly retired: readonly FragmentPlace[]; readonly written: readonly FragmentPlace[] } | undefined
	>;
	/** Moves one fragment of a whole segment from the fullest of its disks to the emptiest that may have it, as `rebuild` does. Undefined: that would make nothing more even. */
	evenOut(
		segment: Segment,
	): Promise<
		{ readonly segment: Segment; readonly retired: readonly FragmentPlace[]; readonly written: readonly FragmentPlace[] } | undefined
	>;
	/** Moves that fragment of a segment to that disk, as `rebuild` does. Undefined: it cannot be read, or that disk may not have it now or has no room. */
	move(
		segment: Segment,
		index: number,
		to: number,
	): Promise<
		{ readonly segment: Segment; readonly retired: readonly FragmentPlace[]; readonly written: readonly FragmentPlace[] } | undefined
	>;
	/** A committed record names them now. What is never settled nor given back is found as garbage. */
	settle(places: readonly FragmentPlace[]): void;
	/** What lies in the packs of all disks that can be read. `namedBytes`: what committed records name in a pack (`packKey`). */
	garbage(namedBytes: ReadonlyMap<string, number>): Promise<StoreGarbage>;
	/** Removes or punches it if it is still nobody's; answers the bytes given back, undefined when it is somebody's now or its disk is away. Of places the caller knows that no record names them. @throws FsError what the disk said. */
	collect(found: FoundGarbage): Promise<number | undefined>;
	/** What was cleared since this process began, of earlier ones: packs removed, bytes punched. */
	readonly cleared: { readonly packs: number; readonly bytes: number };
	/** Somebody reads it or makes it anew. */
	isPinned(segmentId: number): boolean;
	/** Gives back what a rebuild wrote when its transaction was not committed. */
	abandonPlaces(segmentId: number, places: readonly FragmentPlace[]): void;
	/** The shape that a segment for `target` would get on the disks that can be written now; undefined: none can be. */
	feasible(target: Redundancy): Redundancy | undefined;
	/** Segments in which a read found damage since the last call, but for those that are left for another one. */
	takeDamaged(except?: ReadonlySet<number>): readonly number[];
	/** `takeDamaged` would list it. */
	isSuspected(segmentId: number): boolean;
	/** Whoever has just checked the segment knows more than the reads that found damage in it, the check's own included. */
	forgetDamaged(segmentId: number): void;
	/** How many segments `takeDamaged` would list in all. */
	readonly damagedCount: number;
	/** Bytes that each disk keeps free for metadata: `space` leaves them out; writing what is acknowledged already may use a part of them (limits.ts). */
	setReserve(bytesPerDisk: (disk: number, capacityBytes: number) => number): void;
	/** `redundancy`: told in bytes of data that is protected like that; the volume's default when nothing is said. */
	space(redundancy?: Redundancy): StorageSpace;
	/** What `space` would say after such a change, everything moved. Undefined: what a disk holds has no room on the others. */
	spaceIf(change: SpaceChange): SpacePreview | undefined;
	/** Where fragments would lie if the disks had the same free space left; `mostBytes`: of one fragment of each segment. Disks that cannot be written take no part, those that are written only where others do not do neither. */
	balance(mostBytes: number, added?: SpaceChange["added"]): BalancePreview;
	/** Of a disk: no two fragments of a segment share one. */
	domainOf(disk: number): string;
	/** Asks the disks again how much they hold. */
	refreshSpace(): Promise<void>;
	readonly counters: {
		fragmentsRead: number;
		fragmentsWritten: number;
		corruptFragments: number;
		degradedReads: number;
		rebuiltFragments: number;
	};
	close(): Promise<void>;
}

// ── extents, chunks, segments in metadata ────────────────────────────────────────────────────────────────────────

/** Filled by verbs of one attempt: what must happen once, after its commit. Make a fresh one in each run of a transaction's function. */
export interface StorageEffects {
	/** Segments whose records this transaction deleted. */
	readonly freed: Segment[];
	/** Change of the bytes in reserved extents: whoever opened the transaction adds it to the volume record in it. */
	reservedDelta: number;
	/** Bytes that died in segments that live on: compaction gives them back. */
	deadBytes: number;
}

/** A part of a file that lies in a chunk. */
export interface MappedRange {
	readonly offset: number;
	readonly length: number;
	readonly chunk: Chunk;
	readonly segment: Segment;
	/** Offset of the first byte in the segment's payload. */
	readonly payloadOffset: number;
}

/** Bytes of a range by what lies there; the rest is holes. */
export interface Coverage {
	readonly dataBytes: number;
	readonly reservedBytes: number;
	/** How far the walk came: the rest is for the next call. */
	readonly doneTo: number;
}

/** A part of a file that is to lie in a chunk. */
export interface ExtentPiece {
	readonly offset: number;
	readonly length: number;
	readonly chunk: Chunk;
	readonly chunkOffset: number;
}

/** What a new chunk is: its number, one of the segment's `chunks`; offset and length in the segment's payload; whom it is written for. */
export type ChunkPlace = Pick<Chunk, "id" | "offset" | "length" | "owner" | "ownerOffset">;

/** A range of a file that refers to a part of a chunk. */
export interface ChunkPart {
	readonly ino: Ino;
	readonly offset: number;
	readonly length: number;
	readonly chunk: number;
	readonly chunkOffset: number;
}

export interface ExtentsWritten {
	/** Pieces wholly done; of the next one the part before `doneTo`. */
	readonly doneCount: number;
	readonly doneTo: number;
	readonly storedDelta: number;
	readonly segment: Segment;
	/** The chunk of the piece that is not wholly done, or of the last one. */
	readonly chunk: Chunk | undefined;
}

export interface Truncated {
	readonly done: boolean;
	/** Nothing is left in [size, doneTo). */
	readonly doneTo: number;
	readonly storedDelta: number;
}

/**
 * storage/extents.ts exports these. Budgets bound the changes (puts + deletes) a call may add: it does as much as fits, in file order, and says how far it came.
 * They also stop where the transaction would grow beyond its bytes. A call that got nowhere wants a fresh transaction (budget ≥ 40 always gets somewhere there).
 * Invariants
 *  E1 Extents of one block are sorted, do not overlap, and lie inside [start, start + span).
 *  E2 chunk.references / referencedBytes = number / sum of lengths of the extents that name it; the record is gone at 0.
 *  E3 segment.liveBytes = Σ min(length, referencedBytes) of its chunks; the record is gone at 0 and is then in effects.freed.
 *  E4 A block has at most 1,024 extents (else it splits in halves) and is deleted when it has none.
 */
export interface ExtentVerbs {
	/** Parts of [offset, offset + length) that lie in chunks, in order; what is not mentioned reads as zeros (a hole, or reserved). */
	map(tx: RecordTransaction, ino: Ino, offset: number, length: number): MappedRange[];
	/** A new chunk of `segment`, for `write`, which puts it: a value with references 0. `offset` is in the payload. */
	addChunk(tx: RecordTransaction, context: OperationContext, segment: Segment, place: ChunkPlace): Chunk;
	/**
	 * Makes [offset, offset + length) of the file be bytes [chunkOffset, …) of `chunk`, letting go of what was there. Puts the records of a chunk with references 0 and of a segment
	 * with liveBytes 0 together with the first extent; the caller puts neither. Returns the file offset up to which it is done, the change of stored bytes, and chunk and segment as they
	 * are now: give these, once committed, with what is left to the next transaction. @throws FsError ESTALE when they died in between: write those bytes anew.
	 */
	write(
		tx: RecordTransaction,
		context: OperationContext,
		effects: StorageEffects,
		ino: Ino,
		offset: number,
		length: number,
		chunk: Chunk,
		segment: Segment,
		chunkOffset: number,
		budget: number,
	): { readonly doneTo: number; readonly storedDelta: number; readonly chunk: Chunk; readonly segment: Segment };
	/** `write` of many pieces of one file that lie in one segment, in file order. */
	writeAll(
		tx: RecordTransaction,
		context: OperationContext,
		effects: StorageEffects,
		ino: Ino,
		pieces: readonly ExtentPiece[],
		segment: Segment,
		budget: number,
	): ExtentsWritten;
	/**
	 * Lets go of everything at or beyond `size`, front to back: the caller sets the inode's size in the first transaction and keeps an intent until `done`. `from` = `doneTo` of the
	 * call before, so that what was let go of already is not walked over again.
	 */
	truncate(tx: RecordTransaction, effects: StorageEffects, ino: Ino, size: number, budget: number, from?: number): Truncated;
	/** Makes a hole. */
	punch(
		tx: RecordTransaction,
		context: OperationContext,
		effects: StorageEffects,
		ino: Ino,
		offset: number,
		length: number,
		budget: number,
	): { readonly doneTo: number; readonly storedDelta: number };
	/** Reserves space for the holes in [offset, offset + length), or with `everything` for all of it: data there is let go of, and it reads as zeros. */
	reserve(
		tx: RecordTransaction,
		context: OperationContext,
		effects: StorageEffects,
		ino: Ino,
		offset: number,
		length: number,
		everything: boolean,
		budget: number,
	): { readonly doneTo: number; readonly storedDelta: number };
	/**
	 * Makes [targetOffset, …) of one file be what [sourceOffset, …) of another (or the same, not overlapping) is, by naming its chunks once more; holes and reserved ranges become holes.
	 * `doneBytes` = how much of `length` is done.
	 */
	share(
		tx: RecordTransaction,
		context: OperationContext,
		effects: StorageEffects,
		source: { readonly ino: Ino; readonly offset: number },
		target: { readonly ino: Ino; readonly offset: number },
		length: number,
		budget: number,
	): { readonly doneBytes: number; readonly storedDelta: number };
	/** What [offset, offset + length) consists of, as far as one call looks. */
	coverage(tx: RecordTransaction, ino: Ino, offset: number, length: number): Coverage;
	/** The first byte at or behind `offset` that lies (`data`) or does not lie (`hole`) in a chunk; `found` false: none before `doneTo`, go on there. */
	seek(
		tx: RecordTransaction,
		ino: Ino,
		offset: number,
		end: number,
		what: "data" | "hole",
	): { readonly found: boolean; readonly doneTo: number };
	/** Chunks of the segment with numbers from `from` on, in order; reads about `limit` records, and says from which number on to ask again. */
	chunksOf(
		tx: RecordTransaction,
		segment: Segment,
		from: number,
		limit: number,
	): { readonly chunks: Chunk[]; readonly next: number | undefined };
	/**
	 * The bytes of a chunk have been copied to another segment: from now on it lies there, whoever refers to it. Puts the record of a segment that has none yet. Takes four changes.
	 * Undefined: the chunk is gone or lies somewhere else already; nothing was changed. Nobody may still add extents to a chunk of `from` by a value that was read before.
	 */
	moveChunk(
		tx: RecordTransaction,
		effects: StorageEffects,
		id: number,
		from: number,
		to: Segment,
		payloadOffset: number,
	): Segment | undefined;
	/**
	 * The part of a chunk that a range of a file refers to was copied to a place of its own, `place`, whose owner is that file and whose ownerOffset the range began at: extents that still
	 * refer to it refer to the copy from now on, unless the chunk lies somewhere else than in segment `from` by now. Returns how far in the file it is done (what is left goes to the next transaction, with `offset` and `length` cut and the same
	 * place) and the segment as it is now.
	 */
	movePart(
		tx: RecordTransaction,
		context: OperationContext,
		effects: StorageEffects,
		part: ChunkPart,
		from: number,
		to: Segment,
		place: ChunkPlace,
		budget: number,
	): { readonly doneTo: number; readonly segment: Segment };
}

// ── dirty data ───────────────────────────────────────────────────────────────────────────────────────────────────

export interface DirtyPiece {
	readonly offset: number;
	/** Of a `run` they are put together, and kept until another run of the same capture is looked at. */
	readonly bytes: Uint8Array;
	/** Where it is many writes one behind the other. */
	readonly run?: DirtyRun;
}

/** Writes one behind the other, to be copied without being put together first. */
export interface DirtyRun {
	readonly lengthBytes: number;
	/** Fills `into` with what lies from `from` on, counted from the beginning of the piece. */
	copy(from: number, into: Uint8Array): void;
}

export interface DirtyAttributes {
	/** End of the furthest byte written and not sealed: size is at least this. */
	readonly end: number;
	/** Set by the newest write; undefined when an explicit setattr came after it. */
	readonly mtime: Timestamp | undefined;
	/** Dirty bytes in both layers. */
	readonly bytes: number;
	/** Number of the newest write since the last seal; 0 when what is dirty came from pending records alone. */
	readonly newest: number;
}

export interface Captured {
	readonly ino: Ino;
	/** Not overlapping, in file order, adjoining ones merged up to 1 MiB. */
	readonly pieces: readonly DirtyPiece[];
	readonly bytes: number;
	readonly attributes: DirtyAttributes;
	/** Number of the newest write in it: goes to inode.sealedThrough. */
	readonly through: number;
	/** Pending records that this seal makes superfluous. */
	readonly pendings: readonly number[];
	/** These hold all of it: what is written meanwhile may be logged beside the seal (D7). */
	readonly isLogged: boolean;
}

/**
 * Written, acknowledged, not yet sealed. Bounded; lives in platform memory (`Memory`), so that the death of the process loses nothing: entries
 * {write number, ino, offset, time, checksum, bytes} in a ring.
 * Two layers per inode: `active` (writes go here) above `sealing` (captured, being sealed). Reads see active over sealing.
 * Invariants
 *  D1 At most one capture of an inode is out at any time.
 *  D2 Ring entries are in order of their write number; the tail moves over entries whose bytes no layer refers to.
 *  D3 Replay takes an entry only if its number is > the inode's sealedThrough.
 *  D4 An entry is valid only when its checksum, volume and incarnation match; the first that is not ends the replay.
 *  D7 Beside a capture, pending records are made only when they hold all that it holds.
 */
export interface DirtyStore {
	/** True when that many more bytes fit now; else seal something and wait (`room`). */
	hasRoom(lengthBytes: number): boolean;
	room(): Promise<void>;
	/** Copies the bytes. Call only after hasRoom. */
	write(ino: Ino, offset: number, bytes: Uint8Array, now: Timestamp): void;
	attributes(ino: Ino): DirtyAttributes | undefined;
	/** Parts of [offset, offset + length) that are dirty, newest contents, in order. Views: copy before the next await. */
	overlay(ino: Ino, offset: number, length: number): DirtyPiece[];
	/** Moves active to sealing. Undefined when nothing is dirty. Asserts D1. */
	capture(ino: Ino): Captured | undefined;
	/** The seal is committed: the captured pieces go. */
	committed(captured: Captured): void;
	/** The seal failed: what was captured becomes active again, beneath what was written since. */
	restored(captured: Captured): void;
	/**
	 * Forgets dirty bytes at or beyond `size` (asserts that no capture is out); attributes.end is lowered. Call it after the truncating transaction, which has deleted all pending records
	 * of the inode: their ids are forgotten, what stays counts as not logged until `logged` is called.
	 */
	truncate(ino: Ino, size: number): void;
	/** Forgets everything of an inode (it was reaped). Asserts that no capture is out. */
	drop(ino: Ino): void;
	/** An explicit setattr of mtime came: the next seal leaves it alone. */
	clearTime(ino: Ino): void;
	/** Pieces of the active layer that no pending record holds yet, in file order; used by fsync into the log. Asserts D7. Copies up to `dirtyLimits.loggedCopyBytes`, beyond that views. `through` as in Captured. */
	unlogged(ino: Ino): { readonly pieces: readonly DirtyPiece[]; readonly bytes: number; readonly through: number } | undefined;
	/** Those pieces are in pending records with these ids now (committed). */
	logged(ino: Ino, pendingIds: readonly number[], through: number): void;
	/** Ids of the pending records of an inode that are in metadata now. */
	pendings(ino: Ino): readonly number[];
	/** Newest write number. */
	readonly lastWrite: number;
	readonly bytes: number;
	/** Inodes with dirty data, oldest first, with the age-determining time and bytes. */
	dirtyInodes(): { readonly ino: Ino; readonly sinceMs: number; readonly bytes: number }[];
	has(ino: Ino): boolean;
	/** The inode whose old entry keeps the ring's tail from moving, if any: seal it first. */
	stalledBy(): Ino | undefined;
	/** After a crash: first the pending records of metadata, in id order, then the ring's entries that pass `isNewer`. */
	recover(
		pendings: readonly Pending[],
		isNewer: (ino: Ino, writeNumber: number) => boolean,
	): { readonly replayed: number; readonly skipped: number };
	close(): Promise<void>;
}
