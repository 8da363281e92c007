/**
 * Typed, versioned records over kv. Each record's value starts with a common head: kind (u8), version (u8), feature flags (u16), birth epoch (u64), origin
 * site (u16, reserved 0), hybrid time (u64, reserved 0). An unknown version or feature flag is refused (CORRUPT `records.newer`), never guessed.
 */
import type { Timestamp } from "../base/time.ts";
import type { ByteArena } from "../codec/binary.ts";

// ── inode numbers ────────────────────────────────────────────────────────────────────────────────────────────────
// ino = birth group (12 bits) * 2^41 + counter (41 bits); never reused. The root is group 0, counter 1 = 1.
export type Ino = number;
export const rootIno: Ino = 1;

export type FileType = "file" | "directory" | "symlink" | "fifo" | "socket" | "character" | "block";

export interface Inode {
	readonly ino: Ino;
	readonly type: FileType;
	/** Permission bits 07777, without the type. */
	readonly mode: number;
	readonly uid: number;
	readonly gid: number;
	readonly nlink: number;
	/** Bytes; of a symlink the length of its target; of a directory 0 (shown as the number of entries × 32 or so by doors). */
	readonly size: number;
	/** Device number of character and block nodes, as Linux encodes dev_t in 32 bits. */
	readonly rdev: number;
	readonly atime: Timestamp;
	readonly mtime: Timestamp;
	readonly ctime: Timestamp;
	readonly btime: Timestamp;
	/** Bytes of file range that extents (reserved ones too) or inline data cover (for st_blocks). Of a shared chunk each file counts its own range. */
	readonly storedBytes: number;
	/** Raised by every truncation and replacement of contents: a fast answer to "is this still what I captured?". */
	readonly dataGeneration: number;
	/**
	 * Raised by every change of this record that somebody may see. Together with the newest write (sealedThrough, or the number of what is dirty) it tells any two states
	 * of a node apart, which times cannot: clocks stand still and jump.
	 */
	readonly change: number;
	/** All writes with a number up to this one (volume-wide counter of the dirty store) are in metadata or superseded: guards replay. */
	readonly sealedThrough: number;
	/** Tiny contents (and symlink targets); undefined = contents are in extents. */
	readonly inline: Uint8Array | undefined;
	/** Directories: cookie for the next entry, number of entries, parent (for "..", re-checked by rename). */
	readonly nextCookie: number;
	readonly entryCount: number;
	readonly parent: Ino;
	/** How many xattr records there are; 0 answers ENODATA without a read. */
	readonly xattrCount: number;
	/** Sum of the lengths of their names, each with the NUL that a list has behind it, and of their values: what bounds them. */
	readonly xattrNameBytes: number;
	readonly xattrValueBytes: number;
	/** Protection asked for by this file or inherited from its directory: 0 = the volume's default; else an id in the volume record's table. */
	readonly protection: number;
	/** The inode (this one, or a directory that it was made in) at which that protection was asked for; 0 with protection 0. */
	readonly protectionFrom: Ino;
	/** As `<linux/fs.h>` numbers them (FS_IMMUTABLE_FL …): namespace/flags.ts says which are known. */
	readonly flags: number;
	/** Which access list record belongs to it: 0 = none (mode bits only), 1 = POSIX. */
	readonly access: number;
	readonly birthEpoch: number;
}

export interface DirectoryEntry {
	readonly ino: Ino;
	readonly type: FileType;
	/** Stable position in the directory, ≥ 3 (1 and 2 are "." and ".."). */
	readonly cookie: number;
	readonly birthEpoch: number;
}

export interface CookieEntry {
	readonly name: string;
	readonly ino: Ino;
	readonly type: FileType;
	readonly birthEpoch: number;
}

/** An extended attribute; its name is in the key. */
export interface Xattr {
	readonly value: Uint8Array;
	readonly birthEpoch: number;
}

/** Permission bits (4 read, 2 write, 1 execute) of a user or group by its number. */
export interface NamedPermissions {
	readonly id: number;
	readonly bits: number;
}

/**
 * What a POSIX access list says beyond the mode. The owner's and the others' bits and the mask (in the place of the group's) are the mode's: a list and a mode that
 * contradict each other cannot be written down. Sorted by number, no number twice.
 */
export interface PosixAccess {
	/** Bits of the owning group, before the mask. */
	readonly group: number;
	readonly users: readonly NamedPermissions[];
	readonly groups: readonly NamedPermissions[];
}

/** A whole POSIX access list: what a directory hands down. `mask` is undefined only without named entries. */
export interface PosixList extends PosixAccess {
	readonly owner: number;
	readonly other: number;
	readonly mask: number | undefined;
}

/** The one access list of an inode, tagged with its kind. At least one of the two is there: without any there is no record. */
export interface AccessList {
	readonly ino: Ino;
	readonly kind: "posix";
	/** Undefined: mode bits only. */
	readonly access: PosixAccess | undefined;
	/** Directories: what new nodes in it get. */
	readonly inherited: PosixList | undefined;
	readonly birthEpoch: number;
}

/**
 * The chunk number of extents that lie nowhere: space reserved for bytes to come (fallocate). They read as zeros, have no chunk record and chunkOffset 0, and count in the volume record's
 * `reservedBytes`.
 */
export const reservedChunk = 0;

/** A range of a file that lies in a chunk. Holes are absent. */
export interface Extent {
	readonly offset: number;
	readonly length: number;
	readonly chunk: number;
	/** Where in the chunk the range starts. */
	readonly chunkOffset: number;
}

/** Extents of [start, start + span) of a file, sorted, not overlapping; span is a power of two from 1 KiB to 64 MiB and start is a multiple of it. */
export interface ExtentBlock {
	readonly start: number;
	readonly span: number;
	readonly extents: readonly Extent[];
	readonly birthEpoch: number;
}

/** Immutable bytes inside a segment. Any number of extents of any files may name it: what shares it refers to the chunk, never to the segment, so that its bytes can move. */
export interface Chunk {
	readonly id: number;
	readonly segment: number;
	/** Offset in the segment's payload. */
	readonly offset: number;
	readonly length: number;
	/**
	 * The file it was written for and where its first byte lay there: a hint, for whoever wants to find the extents that refer to it. Extents move and are shared, files
	 * go: what is not found there may be anywhere.
	 */
	readonly owner: Ino;
	readonly ownerOffset: number;
	/** Extents that refer to it, of all files, and the sum of their lengths: more than `length` where ranges are shared. 0 extents = the record is gone, in the same transaction. */
	readonly references: number;
	readonly referencedBytes: number;
	/** BLAKE3, optional behind feature flag 1. */
	readonly fingerprint: Uint8Array | undefined;
	readonly birthEpoch: number;
}

export interface FragmentPlace {
	readonly index: number;
	/** Raised each time this index is written anew. */
	readonly generation: number;
	readonly disk: number;
	/** Pack number on that disk and offset in the pack (multiple of 4 KiB). */
	readonly pack: number;
	readonly offset: number;
	/** CRC32C of the fragment's header including its table of block checksums: ties the record to exactly these bytes. */
	readonly headerChecksum: number;
}

/** Numbers [first, first + count). */
export interface NumberRange {
	readonly first: number;
	readonly count: number;
}

/** A pack of chunks, the unit of redundancy. */
export interface Segment {
	readonly id: number;
	/** Shape on disk: k data shards + m parity shards; replicas are k = 1, m = copies − 1 (each replica a whole copy). */
	readonly dataShards: number;
	readonly parityShards: number;
	/** What was asked for, "rs:4+2"; may be better than the shape while disks lack. */
	readonly target: string;
	/** Bytes of chunks packed into it. */
	readonly payloadBytes: number;
	/** Bytes of each shard's payload, multiple of 4 KiB; dataShards × shardBytes ≥ payloadBytes. */
	readonly shardBytes: number;
	/**
	 * Sum over its chunks of min(length, referencedBytes): exact while no range of a chunk is shared, else not less than the bytes that some file needs. 0 = dead: the record is deleted in that
	 * very transaction.
	 */
	readonly liveBytes: number;
	/**
	 * Every chunk of the segment has its number in here, so that its chunks can be found; numbers of other segments' chunks and of none may be too. In order, apart from each
	 * other, at most maximumChunkRanges.
	 */
	readonly chunks: readonly NumberRange[];
	/** One per index at the most; an index may be absent (lost, to be healed). */
	readonly fragments: readonly FragmentPlace[];
	readonly birthEpoch: number;
}

/** A fragment was read whole from its disk and found right. */
export interface FragmentProof {
	readonly index: number;
	/** Of the place that was read (`placeMark`): what was made anew or moved since is not what was proven. */
	readonly mark: number;
	/** Seconds since 1970. */
	readonly provenAt: number;
}

export interface SegmentProof {
	readonly segment: number;
	/** In order of their indexes; at least one. */
	readonly fragments: readonly FragmentProof[];
}

/** What was proven of the segments [group × segmentsPerProofGroup, … + segmentsPerProofGroup). Segments that do not exist any more may still be named. */
export interface ProofGroup {
	readonly group: number;
	/** In order; at least one. */
	readonly segments: readonly SegmentProof[];
	readonly birthEpoch: number;
}

export type DiskStateName = "healthy" | "degraded" | "suspect" | "draining" | "failed" | "missing";

export interface DiskHistoryEntry {
	/** Seconds since 1970. */
	readonly at: number;
	readonly state: DiskStateName;
	/** Byte string. */
	readonly reason: string;
}

/** The last changes of a disk's state, oldest first. */
export interface DiskHistoryRecord {
	readonly disk: number;
	readonly entries: readonly DiskHistoryEntry[];
	readonly birthEpoch: number;
}

/** How gently the scrub reads: limits.ts of the volume has pauses and batches. */
export type ScrubIntensity = "low" | "medium" | "high";
/** off: never, not even by hand. nightly: in some hours of each night, going on where it was. continuous: one pass after the other. */
export type ScrubSchedule = "off" | "manual" | "nightly" | "continuous";
export type ScrubState = "idle" | "running" | "paused";

/** One look at everything. Times in seconds since 1970, 0: not yet. */
export interface ScrubPass {
	/** Begun by a person: it does not wait for the night. */
	readonly byHand: boolean;
	/** Nothing is repaired. */
	readonly dryRun: boolean;
	/** Superblocks, log and sorted runs were read. They come first. */
	readonly metadataDone: boolean;
	readonly startedAt: number;
	/** Of a pass that came to its end. */
	readonly endedAt: number;
	/** Segments with numbers up to this one were looked at. */
	readonly after: number;
	readonly segments: number;
	readonly fragments: number;
	/** Payload of those segments. */
	readonly bytes: number;
	/** Fragments, and pieces of metadata. */
	readonly corrupt: number;
	readonly missing: number;
	readonly repaired: number;
	/** Segments and pieces of metadata. */
	readonly unrecoverable: number;
}

/** From the moment that something was to be healed until nothing is. */
export interface HealingWork {
	/** Seconds since 1970. */
	readonly startedAt: number;
	/** User bytes brought to their target or off a disk since. */
	readonly doneBytes: number;
}

/** What a segment takes, and each MiB of it besides. */
export interface HealSpeed {
	readonly pieceMicroseconds: number;
	readonly mebibyteMicroseconds: number;
}

/** What the volume does by itself to keep its data whole; one record. */
export interface CareRecord {
	readonly schedule: ScrubSchedule;
	/** UTC, when the nightly scrub begins. */
	readonly hour: number;
	readonly intensity: ScrubIntensity;
	readonly state: ScrubState;
	/** Under way, paused, or the newest. */
	readonly pass: ScrubPass | undefined;
	/** The newest that came to its end. */
	readonly lastPass: ScrubPass | undefined;
	/** When the last look at all metadata began that left nothing damaged; 0: never, or damage was left. Seconds since 1970. */
	readonly metadataProvenAt: number;
	/** When a verify began that has not come to its end; 0: none. */
	readonly verifyStartedAt: number;
	readonly healPaused: boolean;
	/** The healer rests so many times as long as it worked. */
	readonly tranquility: number;
	/** What the healer has at hand; undefined: nothing. */
	readonly healing: HealingWork | undefined;
	/** What healing took last, without its rests; undefined: it has never been measured. */
	readonly healSpeed: HealSpeed | undefined;
	/** Somebody wants the disks evenly filled and they are not yet; `doneBytes`: raw bytes moved since. Undefined: nobody does. */
	readonly balancing: HealingWork | undefined;
	/** The same as `healSpeed`, of fragments that are moved for that. */
	readonly balanceSpeed: HealSpeed | undefined;
	readonly birthEpoch: number;
}

/** An inode without a name: still open, or being taken apart (then `reap` makes progress in bounded steps and resumes after a crash). */
export interface Orphan {
	readonly ino: Ino;
	readonly since: Timestamp;
	/** Made without a name and may get one by `link` (O_TMPFILE without O_EXCL). */
	readonly linkable: boolean;
	readonly birthEpoch: number;
}

/** truncate and punch: [from, to) becomes a hole (a truncation goes to the end of all files); reserve: holes become reserved; zero: everything becomes reserved. */
export type IntentKind = "truncate" | "punch" | "reserve" | "zero";

/** Work on a file's map that needs more than one transaction; finished before the volume serves after a crash, and before anything else is done to the file. */
export interface Intent {
	readonly id: number;
	readonly kind: IntentKind;
	readonly ino: Ino;
	readonly from: number;
	readonly to: number;
	readonly birthEpoch: number;
}

/** The protection of this inode was changed: what lies below it is to be told, and its contents are to be rewritten. For the root: the volume's default was changed. */
export interface Conversion {
	readonly ino: Ino;
	readonly since: Timestamp;
	readonly birthEpoch: number;
}

export interface PendingPiece {
	readonly offset: number;
	readonly bytes: Uint8Array;
}

/** Bytes of a file that an fsync put into the log; newer than what the extents say, older than what is dirty in memory. */
export interface Pending {
	readonly ino: Ino;
	/** Volume-wide counter: order of replay. */
	readonly id: number;
	/** In file order, not overlapping. */
	readonly pieces: readonly PendingPiece[];
	readonly birthEpoch: number;
}

/**
 * What a request of a client came to, in the same transaction as its effect: a successor of this process is sent the request again when it was not answered, and must not carry
 * it out twice. One record a slot; the next request in the slot writes over it.
 */
export interface RequestOutcome {
	/** Those of the mount's requests come first, behind them those of calls (volume/interface.ts). */
	readonly slot: number;
	/** The client's connection; of a call the client's number of it. */
	readonly session: number;
	/** The client's number of the request; of a call a hash of what it says. */
	readonly requestLow: number;
	readonly requestHigh: number;
	/** The inode that was made, changed or removed. */
	readonly ino: Ino;
	readonly birthEpoch: number;
}

/** Volume-wide counters and settings; one record. */
export interface VolumeRecord {
	/** Next inode counter block per birth group, next chunk, segment, intent ids: handed out in blocks, so that no transaction needs this record for each. */
	readonly nextInoCounter: readonly { readonly group: number; readonly next: number }[];
	readonly nextChunk: number;
	readonly nextSegment: number;
	readonly nextPending: number;
	/** Birth epoch of new records; raised by a snapshot. */
	readonly epoch: number;
	/** Protections that inodes refer to by id; id 0 is the volume's default. */
	readonly protections: readonly { readonly id: number; readonly redundancy: string }[];
	/** Sum of the lengths of all reserved extents, changed in the transactions that change those: what fallocate has promised. */
	readonly reservedBytes: number;
	readonly birthEpoch: number;
}

export type ExportSquash = "root" | "all" | "none";

/** A part of the volume that clients elsewhere may use. */
export interface ExportRecord {
	/** Never used again. */
	readonly id: number;
	/** Below the root, a byte string: "" = the whole volume. */
	readonly folder: string;
	/** Ranges of addresses as text; none = this machine alone. */
	readonly clients: readonly string[];
	readonly squash: ExportSquash;
	readonly anonymousUid: number;
	readonly anonymousGid: number;
	readonly readOnly: boolean;
	/** Only clients that send from ports below 1024. */
	readonly privilegedPorts: boolean;
	readonly birthEpoch: number;
}

export type PortMapperChoice = "none" | "own" | "system";

/** How this volume is served over the network. */
export interface ServiceRecord {
	/** 16 bytes that clients' file handles are signed with. */
	readonly secret: Uint8Array;
	readonly nextExport: number;
	/** 0: none was chosen yet. */
	readonly port: number;
	readonly portMapper: PortMapperChoice;
	/** What clients know this service as, for notices after a restart; "" = by its address alone. */
	readonly serverName: string;
	/** NSM's state number: odd; two more whenever locks that clients hold were forgotten. */
	readonly lockState: number;
	/** Numbers of clients with locks; after it comes the next. */
	readonly nextLockClient: number;
	/** The volume ended in order, and not during grace: the records of locks are those of the end. */
	readonly locksExact: boolean;
	readonly birthEpoch: number;
}

/** A client elsewhere that may hold locks: durable before its first one (architecture, rule 6). */
export interface LockClientRecord {
	readonly id: number;
	/** As it calls itself, a byte string. */
	readonly name: string;
	readonly address: string;
	/** Of this service, as the client reaches it; "" = not known. */
	readonly serverAddress: string;
	/** Its own state number; 0 = not known. */
	readonly clientState: number;
	/** This service's, as far as it was told. */
	readonly knownState: number;
	readonly birthEpoch: number;
}

export interface HeldRange {
	/** Whoever locked, as the client numbers them: 32 bits. */
	readonly owner: number;
	readonly exclusive: boolean;
	/** Two words, high first; inclusive. */
	readonly start: readonly [number, number];
	readonly end: readonly [number, number];
	/** Milliseconds since 1970. */
	readonly since: number;
}

export interface HeldShare {
	/** Opaque, of the client. */
	readonly owner: string;
	readonly access: number;
	readonly deny: number;
}

/** What one client holds of one file: what it is told rests on this being committed, not on its being durable. */
export interface LockHoldsRecord {
	readonly client: number;
	readonly ino: Ino;
	readonly ranges: readonly HeldRange[];
	readonly shares: readonly HeldShare[];
	readonly birthEpoch: number;
}

/** 16 bytes as 32 lower-case hexadecimal digits. */
export type Guid = string;

/**
 * An open of an SMB client that outlives its connection and this process: durable before the reply (architecture, rule 6). What is locked through it is in a record of its own.
 */
export interface DurableOpenRecord {
	/** Its number, which is the handle's for good. */
	readonly id: number;
	readonly ino: Ino;
	readonly clientGuid: Guid;
	/** Of this open, by the client. */
	readonly createGuid: Guid;
	/** Not ended by whoever conflicts with it. */
	readonly persistent: boolean;
	readonly timeoutMs: number;
	/** Who opened it, and alone may have it again. */
	readonly uid: number;
	readonly gid: number;
	/** "" = not known. */
	readonly principal: string;
	readonly read: boolean;
	readonly write: boolean;
	readonly append: boolean;
	readonly sync: boolean;
	/** What the open does, and what it lets nobody else do: 1 read, 2 write, 4 delete. */
	readonly access: number;
	readonly deny: number;
	/** undefined: none. Opens of one client with the same key have one lease, and each says its state. */
	readonly lease: { readonly key: Guid /** 1 read, 2 write, 4 handle. */; readonly state: number; readonly epoch: number } | undefined;
	/** Something written through it may be lost: it is told at its next flush. */
	readonly failed: boolean;
	/** Milliseconds since 1970. */
	readonly since: number;
	readonly birthEpoch: number;
}

/** What is locked through a durable open, in the order in which it was locked. */
export interface DurableRangesRecord {
	readonly id: number;
	readonly ranges: readonly Omit<HeldRange, "owner">[];
	readonly birthEpoch: number;
}

/**
 * A record type: how its key and value are made. records/kinds.ts exports one constant per type:
 *   inodeRecord(ino) 'i' · entryRecord(parent, name) 'e' · cookieRecord(parent, cookie) 'c' · xattrRecord(ino, name) 'x' · accessListRecord(ino) 'a' ·
 *   extentBlockRecord(ino, start) 'm' · chunkRecord(id) 'k' · segmentRecord(id) 's' · orphanRecord(ino) 'o' · intentRecord(id) 't' ·
 *   conversionRecord(ino) 'y' · pendingRecord(ino, id) 'p' · requestRecord(slot) 'q' · proofRecord(group) 'r' · careRecord() 'b' · diskHistoryRecord(disk) 'd' · exportRecord(id) 'n' · serviceRecord() 'w' · lockClientRecord(id) 'l' · lockHoldsRecord(client, ino) 'j' · durableOpenRecord(id) 'u' · durableRangesRecord(id) 'g' · volumeRecord() 'v' ; the head of shard 0 is the key 'h' + u16 (kv/head.ts encodes it).
 * Integers in keys are big-endian (base/bytes.ts keyU64), so that ranges run in order.
 */
export interface RecordKind<Key extends readonly unknown[], Value> {
	readonly name: string;
	readonly tag: string;
	key(...key: Key): string;
	/** Prefix of all keys that share the first components given. */
	prefix(...key: Partial<Key>): string;
	/** In memory of its own, or in a piece of the arena. */
	encode(value: Value, arena?: ByteArena): Uint8Array;
	/** @throws FsError CORRUPT. `key` lets messages name the record. */
	decode(bytes: Uint8Array, key: string): Value;
}

/** Typed view of a kv transaction (records/transaction.ts: `class Records implements RecordTransaction`, built from a kv Transaction). */
export interface RecordTransaction {
	get<Key extends readonly unknown[], Value>(kind: RecordKind<Key, Value>, ...key: Key): Value | undefined;
	put<Key extends readonly unknown[], Value>(kind: RecordKind<Key, Value>, value: Value, ...key: Key): void;
	delete<Key extends readonly unknown[], Value>(kind: RecordKind<Key, Value>, ...key: Key): void;
	/** Entries whose key starts with `prefix` (from kind.prefix) and is > `after` (a full key) if given. */
	scan<Key extends readonly unknown[], Value>(
		kind: RecordKind<Key, Value>,
		prefix: string,
		options: { readonly after?: string; readonly limit: number },
	): { readonly key: string; readonly value: Value }[];
	readonly changeCount: number;
	readonly changeBytes: number;
}

/** What namespace and storage verbs need besides the transaction: everything that would make them impure. */
export interface OperationContext {
	readonly now: Timestamp;
	/** Birth epoch for new records. */
	readonly epoch: number;
	/** Fresh numbers from blocks handed out before the transaction began. A number taken by an attempt that fails is simply lost. */
	readonly numbers: Numbers;
}

export interface Numbers {
	ino(group: number): Ino;
	chunk(): number;
	segment(): number;
	pending(): number;
}
