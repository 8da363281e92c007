/** Bounds of the FUSE host, each with its reason. */

/** The largest WRITE (1 MiB) and its headers: the kernel refuses reads of `/dev/fuse` into less. */
export const maxRequestBytes = (1 << 20) + 4096;

/** Requests that were read and not handled yet: seven of the largest, or thousands of small ones. Beyond it requests wait in the kernel. */
export const ringBytes = 8 << 20;

/** How long the main thread goes on looking for requests before it sleeps: waking a thread costs 20 to 60 µs on a virtual machine. */
export const spinMs = 0.05;

/** The same where requests have come within this time after a reply lately: a program has to be woken first. */
export const requestSpinMs = 0.3;

/** The same while a reply waits for something else, where replies have come within this time lately: a read or a sync of a fast disk, and the waking of its thread. */
export const replySpinMs = 1;

/** Looks between two glances at the clock: a look is a system call or less. */
export const looksPerTimeCheck = 8;

/** Requests count as coming in a row when the last gap was shorter than this; a lone request does not start spinning. */
export const burstGapMs = 1;

/** Requests that the main thread reads itself before it is worth two wake-ups of the reader thread to have it out of the way. */
export const ownReadsBeforeCall = 32;

/** Requests handled in one turn of the event loop, and the time after which no other one is begun in it, so that timers, disks and sockets get theirs: 64 writes of 1 MiB would take 20 ms. */
export const requestsPerTurn = 64;
export const turnMs = 1;

/** Notifications waiting for the notifier thread. */
export const maxQueuedNotifications = 4096;

/** How long `close` waits for a notifier thread that is stuck in the kernel. */
export const notifierGraceMs = 1000;

/** Heap of the reader and notifier threads: they hold no objects to speak of. */
export const workerHeap = { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 2, stackSizeMb: 1 } as const;

/** Size of the memory file behind the loop device of a mount. The kernel looks at the size only; nothing is stored in it. */
export const loopBackingBytes = 1 << 20;

/** A free loop device can be taken by somebody else between asking for it and configuring it. */
export const maxLoopTries = 16;

/** Mounts of one name at the same time, each with a device node of its own; beyond it they are mounted without a device. */
export const maxNodesPerName = 16;

/** Nodes looked at when stale ones are removed: one for each mounted volume, and somebody else's junk. */
export const maxNodesSwept = 4096;

/** Requests in a row before idle processors are asked to sleep lightly (cpu-latency.ts): asking wakes them all, 30 µs on a virtual machine. */
export const requestsBeforeLowLatency = 4;

/** Requests are in a row where no pause was longer: beside a sync of 10 ms a wake-up costs nothing. */
export const requestRowGapMs = 10;

/** How long the wish stands after the last request: twice as long as anything is waited for awake. */
export const lowLatencyHoldMs = 2;

/** Sleeps from which a processor wakes in so many µs are light: C1 and C1E of most (1 to 10). */
export const lightSleepUs = 10;

/** In a virtual machine the only light sleep is none. Processors that look on awake take time of their host: no more than so many may. */
export const maxPollingProcessors = 8;

/** The shortest slice that Linux has: a disk's thread needs the processor for 30 µs at a time. */
export const diskSliceMs = 0.1;

/** Slices of V8's threads: longer than those of all programs that have not asked for more (0.7 to 2.8 ms), and no longer, as its turn comes later, too, and the main thread may wait for it: with 100 beside 20 programs that never sleep, syncs took twice as long. */
export const engineSliceMs = 5;

/** By which V8's threads are nicer than the rest: with 0 and 5 others still waited for them 1 to 3 ms now and then, with 15 hardly ever; beside six programs that never sleep all was as fast as before. */
export const engineNice = 15;
