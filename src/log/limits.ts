/** Bounds of this floor, each with its reason (architecture, rule 7). Bytes unless the name says otherwise. */

/** One slot of the superblock: room for the roster of `maximumDisks` disks with usual paths; encoding checks the real size. */
export const superblockSlotBytes = 64 * 1024;
/** A disk is taken in only while this much of a slot is left: reasons, log epochs and metadata disks come and go without anybody being asked. */
export const rosterGrowthBytes = 8 * 1024;
/** More disks than a slot has room for cannot be named by it. */
export const maximumDisks = 256;
/** PATH_MAX of Linux. */
export const maximumPathBytes = 4096;
export const maximumNameBytes = 255;
/** Why a disk is out: a line for people, repeated in every superblock. */
export const maximumReasonBytes = 160;
/** Log epochs that wait for a checkpoint: each is one ejected mirror, so that many at once mean that nothing makes checkpoints any more. */
export const maximumLogEpochs = 64;

/** Read or checksum errors after which a disk is no longer written to: one bad sector is not a bad disk, a row of them is. */
export const suspectErrors = 16;
/** Fewer of them, or so many slow answers, make it the last choice for writes. */
export const healthDegradedPoints = 4;
/** A point of distrust wears off in this time, and a disk that was distrusted has to be without trouble for the second time, for each step back. Milliseconds. */
export const healthPointMs = 600_000;
export const healthCalmMs = 1_800_000;
/** What a bad day leaves wears off within half a day. */
export const healthMaximumPoints = 64;
/** An answer to a question that costs a disk nothing, later than this, is slow: on a disk that is only busy it comes sooner. Milliseconds. */
export const slowProbeMs = 4_000;

/**
 * A disk has become slow when a call took so many times as long as with its peers and as in its own past, in a window with enough calls, and long enough to matter: an answer of 20 ms is usual for a disk that seeks.
 * Milliseconds.
 */
export const latencyWindowMs = 60_000;
export const latencyLeastCalls = 32;
export const latencyLeastPeers = 2;
export const latencyLeastMs = 30;
export const latencyTimesPeers = 5;
export const latencyTimesPast = 4;
/** What one window counts in the past. */
export const latencyPastShare = 1 / 8;
/** How soon after a mount devices are asked for their SMART values, how often then, and how soon again when the answer is another one: one odd answer changes nothing. Milliseconds. */
export const smartFirstMs = 30_000;
export const smartPollMs = 3_600_000;
export const smartConfirmMs = 60_000;
/** Sectors that cannot be read: one may be what a power cut left. */
export const smartPendingSectors = 8;

/** How often a disk is asked whether it is still there: an idle volume learns of a loss within this time. Milliseconds. */
export const probeMs = 1_000;
/** How often a disk is asked for again that hung at the mount, or that another process had: such a process ends soon after the disk answers. Milliseconds. */
export const returnMs = 2_000;
/** A place from which a disk has vanished is looked at so often at last. */
export const returnPollMs = 30_000;
/** A disk that does not stay well is asked for so rarely in the end: it is left alone for longer each time, until it was well for an hour. */
export const returnMaximumMs = 600_000;
export const returnCalmMs = 3_600_000;
/** A call that waits longer in the disk means that it hangs. Milliseconds. */
export const diskCallMs = 10_000;
/** The same for a command that only looks: somebody waits for it, and nothing comes of it. */
export const inspectCallMs = 5_000;
/**
 * Disks that stand still together, more than the volume can lose, are waited for so many times as long: two minutes are enough for a controller that is reset (the kernel gives a command 30 s, and tries again), and giving up ends the
 * volume.
 */
export const hangPatience = 12;

/** A record that was acknowledged but that nobody waits for is synced after this time at the latest. Milliseconds. */
export const maximumUnsyncedMs = 1_000;
/** Largest payload of a record, where segments are large enough: a commit is at most 512 KiB of keys and values. */
export const maximumPayloadBytes = 1024 * 1024;
/** A record is at most this fraction of a segment, so that what is wasted at a segment's end stays small. */
export const segmentFractionOfRecord = 4;
/** Records that nobody waits for are written together: after this time, or when they are this much. */
export const gatherMs = 20;
export const gatherBytes = 256 * 1024;
/** One write to the mirrors: large enough for the disk's speed, small enough that a waiter behind it does not notice. */
export const maximumBatchBytes = 1024 * 1024;
/** Memory of batches that is kept for the next ones: those of small syncs, and a few large ones. */
export const keptBatchBytes = 2 * 1024 * 1024;
/** Writes under way; more would only wait in the disk's own queue. */
export const maximumBatchesInFlight = 4;
/** Records that are kept in memory until all mirrors have synced them; also what has to be written again when a mirror is ejected. */
export const maximumQueueBytes = 4 * 1024 * 1024;
/** Waiting records cost memory beyond their payload; small ones are bounded by number. */
export const maximumQueueRecords = 16_384;
/** Smallest ring that can go on: the current segment, one to write on into, and what an ejection needs. */
export const minimumSegments = 4;
/** Segments made ready before the log starts, so that a disk that fills up later cannot stop it; the others follow on demand. */
export const initialSegments = minimumSegments;
export const minimumSegmentBytes = 64 * 1024;
export const maximumSegmentBytes = 256 * 1024 * 1024;
export const maximumSegments = 1024;
/** Segments beyond the ring that ejections without a checkpoint between them may use. */
export const emergencySegments = 8;
/** Pieces in which a segment is zeroed, and read again where a read of all of it failed. */
export const pieceBytes = 1024 * 1024;
export const rereadBytes = 64 * 1024;
/** What is read of a segment to learn what it holds. */
export const peekBytes = 64 * 1024;
