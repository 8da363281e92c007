/** Bounds of the segment store, with the reasons for them. */

/** Unit of checksums, of space in a pack and of a shard's length: a page, and what every file system can punch. */
export const blockBytes = 4096;

export const limits = {
	/** Small enough that a pack empties and can be removed, big enough that 8 TB are 32,000 files. */
	packBytes: 256 * 1024 * 1024,
	/** Architecture: a segment is 2 MiB by default and 64 MiB at the most. */
	maxPayloadBytes: 64 * 1024 * 1024,
	/** Time for making parity and checksums on the main thread in each turn of the event loop: some small segments, or one large one that no coder takes, which takes longer. */
	encodeMs: 0.5,
	/** What headers cost is reckoned for segments of this size when free space is shown. */
	nominalPayloadBytes: 2 * 1024 * 1024,
	/**
	 * Part of the reserve that writing respects; what is shown as free leaves out all of it. What was acknowledged while there was space
	 * must be sealed when there is none: the rest of the reserve is for the headers, paddings and odd remainders that nobody could reckon
	 * with when it was acknowledged.
	 */
	writableReserve: 0.5,
	/**
	 * How long a lost disk is expected back, or another one in its place, before what still survives a loss is written anew for the disks that are left: all of it, and all of it once more when there are enough disks again. Most disks
	 * that vanish were pulled, restarted or hung. Milliseconds.
	 */
	awaitedMs: 600_000,
	/** The same for compaction, which takes little at a time and gives back more than it took. */
	compactionReserve: 0.125,
	/** Part of a disk that stays free when data whose disks are lost is copied in a shape that takes more room than the one it has. */
	interimHeadroom: 1 / 16,
	/** Eight digits in the name of a pack. */
	maxPackNumber: 99_999_999,

	/** Limits of the erasure code, and of what an operator may ask for. */
	maxDataShards: 32,
	maxParityShards: 8,
	maxReplicas: 9,

	/**
	 * A read fetches and keeps whole windows of a shard: neighbours of a small file are usually wanted next, and 64 KiB cost little more than 4 KiB.
	 * Must be a multiple of blockBytes.
	 */
	windowBytes: 64 * 1024,
	/** One disk read asks for at most this much, so that a small read does not wait behind a huge one on the disk's thread. */
	readBytes: 1024 * 1024,
	/** From here on the disk's thread is asked for the checksums of what it reads: below, the main thread has made them itself as soon as it has taken them over. */
	sumsFromBytes: 128 * 1024,
	/** Header and payload come in one disk read when both end within this; otherwise in two at once. */
	joinedReadBytes: 128 * 1024,
	/** Verified payload windows in memory (docs/design.md, memory). */
	cacheBytes: 128 * 1024 * 1024,
	/** Part of it that holds whole windows, in slabs of 4 MiB that are made as they are needed; the rest is for the ends of shards. */
	wholeWindows: 0.75,
	slabWindows: 64,
	/** What an entry costs beside its bytes: key, map, view. */
	windowOverheadBytes: 400,
	/** Checksum tables in memory: those of 4,600 fragments of 512 KiB. */
	headerCacheBytes: 4 * 1024 * 1024,
	/** A shard that has not answered after this gets company: well above a seek in a queue, well below a disk's deadline. */
	hedgeMs: 250,

	/** Memory for parity is used again, and shared with the disks' threads, which copies nothing: free buffers of four segments of 4+2 and some more. */
	parityKeptBytes: 8 * 1024 * 1024,
	parityFromBytes: 32 * 1024,
	/**
	 * Payloads from here on are encoded by the coder of the platform. To hand one over takes the main thread 0.06 ms, to encode 1 MiB itself half a millisecond; but two threads have to be woken, and who writes 256 KiB to 1 MiB and
	 * waits for that alone waited 0.1 to 0.3 ms longer. Shards that are made anew count by what they are made from.
	 */
	coderFromBytes: 1536 * 1024,
	/** Segments being encoded and written at once: each holds its parity, at 64 MiB payloads at most 16 × 64 MiB × M/K. */
	concurrentWrites: 16,
	/** A failed attempt takes at least one disk out of the next one; nobody loses more than this many disks during one write. */
	writeAttempts: 8,

	/** Descriptors: 32 disks of these stay below 1,024. */
	openPacksPerDisk: 24,
	/** Gaps smaller than this are not punched when a disk is opened: they are reused, and there may be many. */
	sweepGapBytes: 64 * 1024,
	/** What a raw disk gives back at once (rawLimits.unitBytes), aligned. */
	discardUnitBytes: 64 * 1024,
	/** Places of a disk that are being written, or whose writer is gone: a hundred bytes each. */
	placesInHand: 65_536,
	/** Segments and fragments remembered as damaged. Beyond it a scrub has to find them again. */
	maxDamaged: 65_536,
} as const;

/** Extent maps. */
export const extentLimits = {
	/** A transaction holds at most 512 KiB; this leaves room for the inode, the pending records that a seal deletes, and the head. */
	transactionBytes: 448 * 1024,
	/**
	 * Changes with which every call gets somewhere: a full block that splits down to the least span (16 × a half and the chunk cut in two), a new chunk and
	 * segment, and one old chunk and segment that go.
	 */
	minimumBudget: 40,
	/** Blocks that one call of `coverage` or `seek` looks at: 4 GiB of a file at 64 MiB each, some milliseconds. */
	walkBlocks: 64,
	/** Offsets stay exact in a double, with the last block whole. */
	maximumFileBytes: 2 ** 53 - 64 * 1024 * 1024,
} as const;

/** Dirty data. */
export const dirtyLimits = {
	/** Written pieces held at once: some 200 bytes of heap each, 13 MiB of the daemon's 160. */
	pieces: 65_536,
	/** Files with such pieces: some 500 bytes of heap each beside their pieces. Where disks are slow, writers wait for seals. */
	inodes: 16_384,
	/** Adjoining pieces are handed to a seal as one up to this: the largest chunk. */
	mergedBytes: 1024 * 1024,
	/** Pieces in one bucket of a piece map: what an insertion in the middle moves. */
	bucketPieces: 256,
	/** Bytes that `unlogged` copies at once; larger amounts are sealed, not logged. */
	loggedCopyBytes: 256 * 1024,
	/**
	 * Write numbers of an incarnation begin at incarnation × this, so that they rise over restarts without being stored: 10 days of 20,000 writes a second
	 * in one incarnation, and half a million mounts in the life of a volume.
	 */
	numbersPerIncarnation: 2 ** 34,
} as const;
