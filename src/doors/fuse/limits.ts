/** Bounds of the FUSE door, each with its reason. */

/** Largest WRITE: 256 pages, what every kernel since 4.20 allows without a sysctl. */
export const maxWriteBytes = 1 << 20;
export const maxPages = 256;

/** Read-ahead in one go: as much as one READ can carry. The host raises the device's own figure to match. */
export const maxReadAheadBytes = 1 << 20;

/**
 * Background requests (read-ahead, direct I/O, releases) that the kernel keeps in flight; above the second figure it slows writers down.
 */
export const maxBackground = 64;
export const congestionThreshold = 48;

/** Oldest protocol understood: 7.31 (Linux 5.4). Newest structures known: 7.39; a newer kernel speaks down. */
export const minMinor = 31;
export const maxMinor = 39;
/** FUSE_NOTIFY_RESEND (Linux 6.9): a mount can go on with another process. */
export const resendMinor = 40;

/**
 * Requests being handled at once. Foreground requests are one per waiting thread, so more than this is a stampede: the rest waits in the
 * kernel.
 */
export const maxConcurrentRequests = 512;

/**
 * Bytes of READs and WRITEs being handled at once (each may hold a buffer of its size): 32 of the largest. Above it the rest waits in the
 * kernel.
 */
export const maxBytesInFlight = 32 << 20;

/** Buffers for the answers to READs and READDIRs of this size or more are used again; so many bytes of free ones are kept. */
export const pooledReadBytes = 32 << 10;
export const keptReadBytes = 8 << 20;

/** Programs that wait for locks at once: each is a thread that sleeps in the kernel, and costs some hundred bytes here. More are refused with ENOLCK. */
export const maxWaitingLocks = 16_384;

/** Open files. A handle costs about 300 bytes here and in the volume; more than this many opens fail EMFILE. */
export const maxHandles = 262_144;

/** Entries asked of the volume in one step of a directory read: bounds what is held in memory whatever the reply's size. */
export const maxDirectoryBatch = 512;

/** Largest directory reply: the kernel asks for a page to 1 MiB. */
export const maxDirectoryReplyBytes = 1 << 20;

/**
 * How long the kernel has for writing out what a mapping changed before a search for holes answers that there are none: it can take long only while hundreds of requests are waiting here.
 */
export const writeOutMs = 5000;

/** Largest xattr value and list (xattr(7)). */
export const maxXattrBytes = 65_536;

/** Attributes of removed nodes that somebody still holds (an O_PATH descriptor, a working directory); older ones answer ESTALE. */
export const maxRemovedNodes = 4096;

/** Files whose stored size may still change because their newest bytes are not sealed yet (see `recentWriteMs`). */
export const maxRecentWrites = 4096;

/**
 * How long after a write the stored size of a file may change behind the kernel's back: sealing starts after 2 s and a large one takes
 * some more.
 */
export const recentWriteMs = 15_000;

/** Validity of the attributes of such a file. */
export const recentAttributeMs = 1000;

/**
 * Default validity of names and attributes in the kernel. Every change passes through this mount, and the kernel updates or drops what it
 * caches on its own changes, so any time is coherent; an hour bounds the harm of a mistake. Other doors need notifications before they
 * may change anything.
 */
export const defaultTimeoutMs = 3_600_000;

/** st_blksize: stdio and cp size their buffers by it, and each write(2) is a trip to this process. */
export const preferredIoBytes = 131_072;

/** The same fault is logged this many times in full, then every thousandth time: a failing disk must not fill the log. */
export const fullLogsPerSite = 10;
export const maxLogSites = 256;

/** How long a hand-over to another process waits for requests in flight: programs wait as long for theirs, and a disk may hang. */
export const detachMs = 20_000;

/** Counters of the nodes that the kernel may know (256 KiB): a prime number, so that runs of inode numbers spread. With many more known nodes than counters the kernel is told of every change, as it would be without them. */
export const knownNodeCounters = 65_521;

/** Files that the kernel reads by itself (staging-core.ts). */
export const staging = {
	/** Staged files: each that is in use has a place in memory, a number in the kernel and an open file here. */
	files: 256,
	/** The page cache serves smaller files as well, and a copy of each would cost more than it saves. */
	minFileBytes: 1 << 20,
	/** Opened so often within so long: a file that is read once, or by a backup every night, is not worth a copy. */
	opens: 3,
	opensWithinMs: 600_000,
	/** Some 100 bytes each. */
	countedInodes: 4096,
	/** Servers open a hot file several times a second. */
	idleMs: 1000,
	/** Longer than a healthy disk needs to open a file. */
	attachMs: 1000,
	/** A program that has mapped a file keeps it mapped for long: looking costs three system calls. */
	lookMs: 100,
	maxLookMs: 10_000,
	/** A folder without room, a disk that fails: it is not tried at each open. */
	retryMs: 60_000,
} as const;

/** What staged files take unless told otherwise: at most this, and this part of the file system that holds them. */
export const stagingMostBytes = 4 * 2 ** 30;
export const stagingFraction = 1 / 20;
/** This part of it stays free for others. */
export const stagingFreeFraction = 1 / 10;
/** Copied at once: what one READ can carry. */
export const stagingStepBytes = 1 << 20;
/** How long an end waits for a hanging folder. */
export const nativeEndMs = 5000;
/** One for each process that died in the moment between getting a number and writing it down. */
export const unrecordedNumbers = 16;
