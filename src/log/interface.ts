/**
 * The set of disks, the roster that says which of them count, and the mirrored log.
 *
 * Order of things at mount: `openDiskSet` (superblocks read, highest roster epoch taken, every disk locked) → `recoverLog` (the mirrors of all
 * log epochs that the roster still names, plus the memory tail, merged record by record) → the engine replays, makes its checkpoint durable →
 * `startLog` (a new log epoch, durable in the roster) → first reply.
 */
import type { Logger } from "../base/telemetry.ts";
import type { Disk, Memory, Platform } from "../platform/interface.ts";

// ── roster ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** A disk's number in its volume, 1-based, never given twice. Printed as `d1`. */
export type DiskId = number;

/** What the roster says of a disk. `out`: lost or thrown out; it does not count, and what it holds is used only where a checksum in metadata vouches for it. */
export type DiskMembership = "in" | "out";

/**
 * What the operator wants of a disk. `use`: everything. `drain`: nothing new is put on it, and what is there moves to others. `leave`: the same, and once
 * it is empty it leaves the volume by itself (another one takes its place). It counts for quorums until it has left.
 */
export type DiskDuty = "use" | "drain" | "leave";

/** How far a disk that answers is trusted. degraded: read and written where others do not do; suspect: only read; failed: not used, because the operator said so. */
export type DiskHealth = "healthy" | "degraded" | "suspect" | "failed";

export interface RosterDisk {
	readonly id: DiskId;
	/** Identity in the disk's own superblock, formatted uuid. */
	readonly uuid: string;
	/** Where it was last seen (byte string). */
	readonly path: string;
	readonly membership: DiskMembership;
	readonly duty: DiskDuty;
	readonly health: DiskHealth;
	/** The operator set the health: what happens to the disk does not change it. */
	readonly isHealthSet: boolean;
	/** Failure domain when it was last seen. */
	readonly domain: string;
	/** Operator's words: why it is out. */
	readonly reason: string;
}

export interface LogEpoch {
	readonly epoch: number;
	/** Mirrors. */
	readonly members: readonly DiskId[];
	/** Sequence of the first record of this epoch. Everything before it was durable when the epoch began. */
	readonly firstSequence: number;
	/** The mount that started it: the log's memory tail counts only when it is of this incarnation. */
	readonly incarnation: number;
}

export interface VolumeConfig {
	/** Default protection, `rs:4+2` or `replicate:3`. */
	readonly redundancy: string;
	/** Greatest number of losses that any policy of the volume tolerates: T. */
	readonly tolerance: number;
	/** Size and number of log segments on each member. */
	readonly logSegmentBytes: number;
	readonly logSegmentCount: number;
	/** Several disks on one device were allowed to count as domains of their own. */
	readonly sameDevice: boolean;
}

export interface Roster {
	readonly volume: string;
	readonly name: string;
	readonly epoch: number;
	/** Raised at every mount: fences memory files and generations of older daemons. */
	readonly incarnation: number;
	readonly createdAt: { readonly seconds: number; readonly nanoseconds: number };
	readonly config: VolumeConfig;
	readonly disks: readonly RosterDisk[];
	readonly nextDiskId: DiskId;
	/** Oldest first; the last is the one being written. Earlier ones are still needed until the engine's checkpoint covers them. */
	readonly logEpochs: readonly LogEpoch[];
	/** The disks that hold the engine's manifest and runs, and a lower bound of the manifest's generation. */
	readonly manifestDisks: readonly DiskId[];
	readonly manifestGeneration: number;
	/** Set by a clean unmount: the memory files hold nothing. */
	readonly clean: boolean;
	/** Oldest incarnation whose memory files still count (see `OpenedFrom`); absent: the present one. */
	readonly memoryIncarnation?: number;
	/** Its creation has not come to its end: nothing on its disks was ever promised to anybody. The first `markClean` takes this away. */
	readonly unfinished?: true;
}

/**
 * What the disks said before this mount changed the roster. A mount that dies half-way has raised the incarnation, but the memory files are still those of the mount before it:
 * a memory file counts when `oldestIncarnation` ≤ its incarnation ≤ `previousIncarnation` and not `clean`. Once all of them are taken over (stamped with the present
 * incarnation or emptied), say so with `DiskSet.memoryTaken()`.
 */
export interface OpenedFrom {
	readonly previousIncarnation: number;
	readonly oldestIncarnation: number;
	readonly clean: boolean;
	/** The operator said `--accept-loss`. */
	readonly acceptLoss: boolean;
}

// ── the set of disks ─────────────────────────────────────────────────────────────────────────────────────────────

/**
 * healthy: used. degraded: some errors, or slow: read, and written where the healthy ones do not do. suspect: read, not written (too many errors). draining: works, read, not written, what is on it moves away. failed: not used (an I/O error
 * on write or sync, hung, vanished). missing: not found at mount.
 */
export type DiskState = "healthy" | "degraded" | "suspect" | "draining" | "failed" | "missing";

export interface DiskErrors {
	read: number;
	write: number;
	sync: number;
	/** Checksum or identity mismatches found on it. */
	corrupt: number;
	timeout: number;
}

export interface DiskSlot {
	readonly id: DiskId;
	readonly uuid: string;
	readonly path: string;
	readonly state: DiskState;
	readonly reason: string;
	readonly errors: Readonly<DiskErrors>;
	/** With deadlines. Undefined when failed or missing. */
	readonly disk: Disk | undefined;
	readonly domain: string;
	/** When it was lost (`Clock.monotonicMs`), or the mount that missed it began; undefined: it is there, or nobody wants it back. */
	readonly lostAtMs?: number | undefined;
}

export interface AddOptions {
	/** The disk that goes in exchange, in the same change: its duty is `leave` afterwards. */
	readonly leaving?: DiskId;
	/** Overwrites what is foreign on raw devices. */
	readonly force?: boolean;
}

/** A place that could become a disk. */
export interface DiskPlace {
	readonly path: string;
	readonly domain: string;
	/** As `Disk.ownsSpace`. */
	readonly ownsSpace: boolean;
	readonly capacityBytes: number;
	readonly freeBytes: number;
}

export interface DiskSet {
	readonly roster: Roster;
	slots(): readonly DiskSlot[];
	slot(id: DiskId): DiskSlot | undefined;
	/** The open disk, or undefined when it must not be read now. */
	readable(id: DiskId): Disk | undefined;
	/** The open disk, or undefined when it must not be written now (only healthy ones are, and degraded ones as a last choice). */
	writable(id: DiskId): Disk | undefined;
	/** The open disk, or undefined when not even space may be given back on it (healthy and draining ones may). Metadata is written to a draining disk until it has moved. */
	clearable(id: DiskId): Disk | undefined;
	/** Disks that have not answered for their limit and are waited for all the same, because more stand still than the volume can lose; and for how long, in milliseconds. Absent only in fakes. */
	waits?(): ReadonlyMap<DiskId, number>;
	/**
	 * Whoever got an error from a disk says so here, at once, whatever it does next. Write, sync, ENODEV and time-out errors (not ENOSPC) make the disk
	 * `failed`: no call reaches it any more, listeners are told, and a roster change that takes it out is started.
	 * Read errors count (disk-health.ts); `CORRUPT` is counted and shown: damaged contents are mended in place.
	 */
	report(id: DiskId, error: unknown, during: keyof DiskErrors): void;
	/** What the operator says of a disk; undefined: let errors and time decide again. Durable when it resolves. @throws FsError NOTFOUND, REFUSED (it is not there, or has been replaced). */
	setHealth(id: DiskId, health: DiskHealth | undefined): Promise<void>;
	/** Called synchronously after a state changed. Returns the unsubscriber. */
	onChange(listener: (id: DiskId, state: DiskState) => void): () => void;
	/**
	 * One roster change at a time, in order: `edit` gets the current roster and returns the next (epoch and incarnation are set by this function).
	 * Resolves when it is durable on all reachable member disks and on at least N − T of the N disks that were `in` before (and of those that are in
	 * afterwards); a disk that fails meanwhile is reported and counts as out of reach. @throws FsError EIO `log.roster-quorum` when too few could be written: the set is then broken
	 * for good (`failed`), nothing may be acknowledged.
	 */
	changeRoster(reason: string, edit: (roster: Roster) => Roster): Promise<Roster>;
	/** Resolves when every disk that is failed now is `out` in a durable roster. Acknowledgements wait for it. */
	settled(): Promise<void>;
	/** Writes a fresh superblock on an empty place and takes it in under a new DiskId (or the old id when it is the same disk coming back). */
	adopt(path: string, replaces: DiskId, force?: boolean): Promise<DiskId>;
	/**
	 * Takes empty places in as new disks, all of them or none.
	 * What an interrupted addition or removal left there of this volume is cleared first.
	 * @throws FsError REFUSED (not empty, in use, same device as another disk), E2BIG (too many disks), and what disks throw.
	 */
	add(paths: readonly string[], options?: AddOptions): Promise<readonly DiskId[]>;
	/** What `add` would find, or refuse, there; nothing is changed. */
	examine(paths: readonly string[], options?: AddOptions): Promise<readonly DiskPlace[]>;
	/** @throws FsError REFUSED `log.duty-away` when the disk is not there. */
	setDuty(id: DiskId, duty: DiskDuty): Promise<void>;
	/**
	 * Lets a disk go for good: it leaves the roster, and what the volume put on it is removed as far as it can be reached. The caller has made sure that no record names
	 * a fragment on it. @throws FsError REFUSED `log.remove-needed`: the roster still needs it for the log or the metadata, or it is in use.
	 */
	remove(id: DiskId): Promise<{ readonly path: string; readonly cleared: boolean }>;
	/** Undefined while all is well; otherwise why nothing can be acknowledged any more. */
	readonly broken: Error | undefined;
	/** What was found at open. Absent only in fakes. */
	readonly opened?: OpenedFrom;
	/** The memory files of earlier incarnations hold nothing that is not also elsewhere: one roster change says so for good. */
	memoryTaken?(): Promise<void>;
	close(): Promise<void>;
}

// ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────────

export interface LogRecord {
	readonly sequence: number;
	readonly payload: Uint8Array;
}

/** Records, each mirror's counted by themselves. */
export interface LogCheck {
	readonly checked: number;
	readonly corrupt: number;
	/** Segments of mirrors that could not be read at all. */
	readonly unchecked: number;
}

export interface Log {
	/** Sequence of the newest record appended (0 before the first of a volume). */
	readonly lastSequence: number;
	/** Newest sequence known to be durable on all current mirrors. */
	readonly durableSequence: number;
	/**
	 * True when a record of that size can be appended now: memory tail, queue and segments have room. Otherwise wait for `room()`. Bounds memory and disk.
	 */
	hasRoom(payloadBytes: number): boolean;
	/** Less than a quarter of the room is left until the next checkpoint: time for one. Lone small records take a sector of 4 KiB each, so this cannot be told from payloads. */
	readonly scarce: boolean;
	room(): Promise<void>;
	/**
	 * Synchronous: the record gets the next sequence and is in the memory tail (survives the death of the process) when this returns. It is written to the
	 * mirrors soon after, without a sync; it is synced when somebody waits for it or after `limits.maximumUnsyncedMs`.
	 */
	append(payload: Uint8Array): number;
	/**
	 * Resolves when all records up to `sequence` are synced on all current mirrors (group commit). A mirror that fails or hangs is ejected: the wait then
	 * includes a new roster epoch, durable, with a new log epoch on the mirrors that are left and on new ones. @throws FsError EIO when no mirror is left.
	 */
	durable(sequence: number): Promise<void>;
	/** All records up to `sequence` are in the engine's durable checkpoint: their segments may be used again. */
	cut(sequence: number): Promise<void>;
	/** Segments on disks that mirror the log no more are removed. What fails is reported, and left for the next mount. */
	removeOrphans(): Promise<void>;
	/** Segments that lie on disks that do not mirror the log, and are in no epoch of the roster. Disks that fail just now are left out. */
	strays(): Promise<readonly { readonly disk: DiskId; readonly name: string }[]>;
	/** False: it is needed, or its disk is away. @throws FsError what the disk said. */
	removeStray(file: { readonly disk: DiskId; readonly name: string }): Promise<boolean>;
	/** Disks that mirror the log now. */
	readonly members: readonly DiskId[];
	/** Tells that members changed (the engine then checkpoints onto the new members at once). */
	onMembersChanged(listener: (members: readonly DiskId[]) => void): void;
	readonly broken: Error | undefined;
	/**
	 * Reads from the disks what is durable and in no checkpoint yet, on every mirror. What is damaged there is reported; it is mended by a checkpoint, which makes it superfluous.
	 */
	check(): Promise<LogCheck>;
	/** Makes everything durable and stops. */
	close(): Promise<void>;
}

export interface RecoveredLog {
	/** All records with sequence > `after` that could be read from any mirror or from the memory tail, in order, without a gap. */
	readonly records: AsyncIterable<LogRecord>;
	/** Filled when `records` is exhausted: what was found and mended, for the operator's eyes. */
	readonly report: {
		lastSequence: number;
		lastChecksum: number;
		damagedRecords: number;
		mirrorsRead: number;
		fromMemory: number;
		/** Set only with acceptLoss: the first of the acknowledged records that no mirror holds. */
		lostFrom?: number;
	};
}

export interface LogModules {
	readonly platform: Platform;
	readonly disks: DiskSet;
	readonly logger: Logger;
	/** The memory tail. */
	readonly memory: Memory;
}
