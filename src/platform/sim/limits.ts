/** Bounds of the simulated world, with their reasons. */
export const simLimits = {
	/** A run that takes longer in virtual time waits for something that will not come (periodic timers keep the queue from running dry). */
	runVirtualMs: 3_600_000,
	/** Events of one run: a loop of zero-length waits never moves the clock, so it needs a bound of its own. */
	runEvents: 20_000_000,
	/** Calls that one opener may have waiting on one disk; more means that somebody forgot back-pressure. */
	queuedCalls: 16_384,
	/** After this long `close` of a hung disk gives up waiting for it, as the real platform does. */
	closeMs: 2_000,
	/** Host files and socket messages take this long, so that their results come through the event queue and die with the process. */
	hostLatencyMs: 0.02,
	/** What the kernels between two ends of a connection hold: a writer waits beyond it. */
	socketBufferBytes: 64 << 10,
	/** Ports that are given out where anyone will do, as Linux has them. */
	firstFreePort: 32_768,
	/** Buffers of borrowed reads: those that the collector would notice, as many as one reads at a time. */
	lent: { fromBytes: 32 * 1024, keptBytes: 16 * 1024 * 1024 },
	/** Time of one work of a coder, and until it can take any: long enough that others overtake it. */
	coderMs: [0.05, 2],
	coderStartMs: 5,
	coderWorks: 24,
	/** Parts of all processes whose machines start no thread for coding, and whose coder dies one day. */
	noCoderChance: 0.2,
	dyingCoderChance: 0.2,
	/** Works after which it does, at most. */
	coderLifeWorks: 40,
	/** Default time of a disk call, uniform in this range: small enough to be quick, wide enough that disks overtake each other. */
	diskLatencyMs: [0.05, 0.5],
} as const;

/** What a disk writes in one piece: a power cut tears writes only between sectors. */
export const sectorBytes = 512;
/** Granularity of the simulated page cache and of space accounting. */
export const pageBytes = 4096;
/** Sim clocks start here: 2026-01-01T00:00:00Z, in seconds since 1970. */
export const simStartSeconds = 1_767_225_600;
