/** Bounds of the daemon. */

/** A request line: a verb and a few paths. */
export const requestLineBytes = 64 * 1024;

/** An answer line: a status of many disks, or the paths of damaged files. */
export const replyLineBytes = 16 * 1024 * 1024;

/** Clients at once: operators and monitoring, not programs' data paths. */
export const controlConnections = 32;

/** Calls under way on one connection. */
export const callsPerConnection = 8;

/** Damaged files named in one answer: more would not fit the line, and nobody reads them; the count is exact anyway. */
export const lostPathsInReply = 10_000;

/** Disks that one call may add: more than a volume has. */
export const pathsInCall = 256;

/** How often the daemon looks whether its socket is still there: tidy-up scripts remove "old" sockets. */
export const socketWatchMs = 5_000;

/** A mount point that does not answer within this time belongs to a file system that hangs. */
export const mountpointAnswerMs = 3_000;

/**
 * A daemon that was killed keeps its mount hanging until its last thread is back from the kernel, where it may wait for a slow disk: for so long a new one waits
 * for the mount to turn dead.
 */
export const dyingDaemonMs = 20_000;

/** Its locks on the disks go with its last thread too. Somebody else's daemon on these disks is told of after this time. */
export const lockPatienceMs = 5_000;
export const lockRetryMs = 250;

/** How long answers under way may still be written when the daemon ends. */
export const controlDrainMs = 2_000;

/** On a signal: how long programs may go on using files of a mount that was taken out of the tree. */
export const detachedUsersMs = 10_000;

/** After umount(2) a connection ends at once, unless another mount namespace has a copy of the mount: after this time one surely has. */
export const connectionEndMs = 5_000;

/** Bytes the kernel asks for in one read. */
export const maxReadBytes = 1024 * 1024;

/** daemon.log is begun anew at this size; one older one is kept. */
export const logFileBytes = 8 * 1024 * 1024;

/** Heap of the daemon's main thread in MiB (contracts: memory). */
export const heapMiB = 160;

/**
 * Its young generation takes three times this. By default it grows to 48 MiB under load, and buffers that nobody needs any more wait in it to be found: 25 MiB less of both, measured with a thousand clients, at no
 * measurable time.
 */
export const semiSpaceMiB = 4;

/** A line between daemon and keeper: the arguments of a daemon, with the paths of its disks. */
export const keeperLineBytes = 1024 * 1024;

/**
 * A daemon that served so long has brought programs forward: its death does not count towards giving up. A request that kills every daemon does so at once.
 */
export const servedEnoughMs = 1_000;

/** Daemons that may die one after the other without having served for `servedEnoughMs`; the pauses before them grow from the first to the longest. */
export const deathsInARow = 6;
export const firstRestartMs = 250;
export const longestRestartMs = 4_000;

/** A successor has to read the metadata of the volume and what its predecessor left: seconds, minutes for a large one on slow disks. Programs wait as long. */
export const startWithinMs = 10 * 60_000;

/** A daemon whose keeper is gone starts another; one that cannot be kept is not to start processes for ever. */
export const keepersInARow = 5;
export const keeperRetryMs = 2_000;

/**
 * How much bytecode a function runs before V8 compiles it well; its own default is 67,584. A daemon that has just started, or taken a mount over, is slow for so much shorter.
 */
export const compileBudget = 20_000;

/** How much of it (V8 estimates bytes of machine code) gathers before functions get their first machine code together; its own default is 4,096. */
export const firstCodeBytes = 512;

/** Heap of a keeper in MiB: it holds a few strings. */
export const keeperHeapMiB = 8;

/** How long after the end of its connection a keeper waits for the news of how its daemon ended. */
export const reportedWithinMs = 2_000;

/** Who follows requests asks again at once. */
export const profileLingerMs = 3_000;
/** A look at requests; people want to see something before they forget what they asked. */
export const profileMs = 5_000;
export const longestProfileMs = 3_600_000;

/** Monitoring asks every few seconds, from one or two places. */
export const httpConnections = 16;
export const httpRequestBytes = 8 * 1024;
export const httpRequestMs = 10_000;

/** Figures are read from all segment records: not more often than this, nor in more than this part of the time. */
export const metricsFreshMs = 5_000;
export const metricsShare = 1 / 50;

/** A port that somebody has, maybe the daemon before this one, is asked for again after this time. */
export const portRetryMs = 2_000;

/** Where NFS clients look when they are not told another port. */
export const usualNfsPort = 2049;

/** Who squashed users are: nobody, as Linux has it. */
export const anonymousId = 65_534;
