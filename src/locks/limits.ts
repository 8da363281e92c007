/** Bounds of the lock core, each with its reason. */
export interface LockLimits {
	readonly perFile: number;
	readonly perClient: number;
	readonly total: number;
	readonly waitersPerFile: number;
	readonly leasesPerFile: number;
	readonly opensPerFile: number;
	readonly deadlockSteps: number;
	readonly breakMs: Readonly<Record<"smb" | "delegation" | "node", number>>;
	readonly quietMs: number;
}

export const lockLimits: LockLimits = {
	/** Locked ranges of one inode: each request looks at all of them. */
	perFile: 1000,
	/** Of one client: a client is a process of this machine, a machine elsewhere, an SMB session. */
	perClient: 10_000,
	/** On the volume: 64 bytes each in memory that outlives the daemon. Unlocking the middle of a range makes two of one: what unlocks do may take each of the three to the double. */
	total: 100_000,
	/** Requests waiting for one inode: whoever comes last looks at all before it. */
	waitersPerFile: 100,
	leasesPerFile: 1000,
	opensPerFile: 10_000,
	/** Waiters that one search for a deadlock looks at: a chain that long is refused as if it were closed, rather than searched without end. */
	deadlockSteps: 10_000,
	/** How long a holder may take to give a lease back before it is taken: Windows waits 35 s, NFSv4 for a lease time, nodes for ten seconds. */
	breakMs: { smb: 35_000, delegation: 90_000, node: 10_000 },
	/** After a break nobody caches this inode for so long: two clients that take turns would do nothing else than break. */
	quietMs: 30_000,
};

/** Of the table at work. */
export const admissionLimits = {
	/** Operations and opens that wait for a lease to be given back, on the volume: fewer than a mount carries out at once (512), so that others go on meanwhile. */
	waiting: 256,
	/** How long an operation of a client that sends its requests again waits: less than the shortest time after which clients do (1.1 s over UDP). Then it is told to come later. */
	resendingMs: 1000,
	/** Requests that were given up and are remembered: more than a mount carries out at once. */
	givenUp: 1024,
	/** How long a client elsewhere waits for an answer that says whether it has a lock or a share, where it does not ask to wait. */
	answerMs: 5000,
	/** An operation that touches several inodes waits for one after the other, holding nothing, and begins anew after each: they are given back once, so this is far more than ever happens. */
	tries: 100,
} as const;

/** Of the memory that locks survive in. */
export const fileLockLimits = {
	/** Records of one half: what may be held (an unlock may double it), the notes, and the largest command: the release of a file with all its locks, and as many grants as may wait. */
	records: 2 * lockLimits.total + 16_384,
	/** It is written anew at four records for each lock that is held, but not while it is small. */
	leastRecords: 8192,
	/** Requests that changed something and may be unanswered still: a door has 512 under way, and each may let a hundred others go. */
	notes: 2048,
} as const;
