/** Bounds of the real platform, with their reasons. */
export const realLimits = {
	/** Calls handed to a disk's thread at once: enough to keep it busy, few enough that copies of their bytes stay small. */
	diskWindowCalls: 64,
	/** Bytes handed to a disk's thread at once; the rest waits as references in the caller's memory. */
	diskWindowBytes: 16 << 20,
	/** Below this a buffer of its own costs less than the bookkeeping. */
	lentFromBytes: 4 << 10,
	/** Free buffers that are kept for reads: two windows of read-ahead of a few readers. */
	lentKeptBytes: 16 << 20,
	/** Small reads under way through shared memory, of one disk: a header and a block for a few readers. A page that no read has used takes no memory. */
	laneSlots: 8,
	laneSlotBytes: 16 << 10,
	/** A disk that was idle until then is taken for one that is at work; looks for a hang are hundreds of milliseconds apart. */
	freshMs: 1,
	/** From here on calls are handed over at once, not at the end of the turn. */
	diskHurryBytes: 64 << 10,
	/** Calls waiting for one disk; more means that a floor above forgot back-pressure. */
	diskQueuedCalls: 16_384,
	/** After this long, closing gives up on a disk that hangs: its thread is abandoned, its calls fail. */
	diskCloseMs: 2_000,
	/** The least that is taken of what is left of a disk, and what is zeroed at once where a file system cannot allocate. */
	setAsideBytes: 64 * 1024,
	/** Larger reads keep a device busy by themselves. */
	expectedReadBytes: 128 * 1024,
	/** A disk's thread that had nothing to do for so long gives its event loop a turn, then sleeps until it is called. */
	diskIdleMs: 1_000,
	/** Heap of a disk's thread: it keeps no data beside the call in hand (buffers are outside of the heap). */
	diskHeapMb: 64,
	diskYoungHeapMb: 8,
	/** One read or write of a block device: the aligned buffer of its thread. */
	deviceBufferBytes: 1 << 20,
	/** Work handed to the coder's thread at once: as many segments as are written at once, and some that are healed. More is done by who wants it. */
	coderWorks: 24,
	/** Heap of the coder's thread: it keeps nothing beside the kernels of a few shapes. */
	coderHeapMb: 16,
	coderYoungHeapMb: 2,
	/** Parts of one writev (IOV_MAX of Linux). */
	writeParts: 1024,
	/** sun_path less its final NUL; the kernel interface cuts longer names silently. */
	socketPathBytes: 107,
	/** Random bytes are fetched in pieces of this size. */
	randomPoolBytes: 4096,
	/** The longest timer that setTimeout keeps (2^31 - 1 ms); longer ones are chained. */
	timerMs: 0x7fff_ffff,
	/** A listener that does not answer a connect within this time counts as living: its socket is not taken over. */
	socketProbeMs: 1_000,
	/** Connecting to another machine: longer than a few lost packets, shorter than what people wait for. */
	connectMs: 5_000,
	/** Silence after which the kernel asks whether the other end of a connection is still there. */
	keepAliveMs: 60_000,
	/** smartctl asks a device for a few pages; one that hangs is told of by others. */
	smartTimeoutMs: 20_000,
	smartBytes: 1024 * 1024,
} as const;
