/** Bounds of the native volume, each with its reason. */

import { dirtyLimits } from "../../storage/limits.ts";

const MiB = 1024 * 1024;

export const limits = {
	/** An operation that finds a leased inode on its way begins anew when it is admitted there; it touches three at the most, and what is given back is not leased again for half a minute. */
	admissionTries: 20,
	/** How long clients may have again what they held before a restart: twice what Linux takes to notice and ask, and what servers of Linux give. */
	graceMs: 90_000,
	graceRetryMs: 5000,
	/** How long a durable open waits for its client: what Windows gives those who do not say, and the most that [MS-SMB2] 3.3.5.9.10 lets them ask for. */
	durableUsualMs: 60_000,
	durableMostMs: 300_000,
	/** The record of one that has ended could not be deleted: tried again. */
	durableRetryMs: 5000,
	/** Clients with locks behind one address: a router may hide some. One that makes up names must not fill the roster. */
	lockClientsOfAddress: 64,
	/** A client that holds nothing for so long leaves the roster: a program that locks now and then must not cost a sync each time. */
	lockClientIdleMs: 600_000,
	lockSweepMs: 60_000,
	/** Contents up to this size live in the inode: a fragment could not be smaller than 8 KiB on each of M + 1 disks. */
	inlineBytes: 2048,
	/** Payload of a segment: large enough to amortise six syncs, small enough that a 4+2 rebuild reads little for one file. */
	segmentBytes: 2 * MiB,
	/** Chunks in a segment: their numbers come from one refill (numberLowWater in records/limits.ts), and compaction holds all of them in memory. */
	segmentChunks: 1000,
	/** A chunk is the unit of reference; larger ones would keep more dead bytes alive after an overwrite. */
	chunkBytes: 1 * MiB,
	/** Dirty bytes of one fsync that go into the log rather than into a segment: one parallel sync of three mirrors instead of six. As many as `DirtyStore.unlogged` copies; half of what a transaction may have. */
	logFsyncBytes: dirtyLimits.loggedCopyBytes,
	/** A file with that much unsealed is sealed by its next fsync, however little that would log: a segment full, so that whoever waits for it does not wait for several. */
	sealLoggedBytes: 2 * MiB,
	/** Pending records one inode may have: with more, an fsync waits for a seal. 1 MiB of small appends. */
	pendingsPerInode: 256,
	/** With so many it is sealed behind the foreground: a seal takes as long as some ten small fsyncs, on a slow or busy disk as long as fifty. */
	pendingsToSeal: 192,
	/** So many are deleted in one transaction with the seal that replaces them, or with a truncation: both need `extentLimits.minimumBudget` changes besides. */
	pendingsAtOnce: 48,
	/** Memory of acknowledged and unsealed data (architecture: 96 MiB), as a ring. */
	dirtyRingBytes: 96 * MiB,
	logTailBytes: 16 * MiB,
	/** Log on each mirror: 128 MiB take some minutes of metadata changes between checkpoints. */
	logSegmentBytes: 8 * MiB,
	logSegmentCount: 16,
	/** On small disks: a record may take a quarter of a segment, and a transaction 512 KiB. */
	smallLogSegmentBytes: 2.5 * MiB,
	smallLogSegmentCount: 4,
	/** How soon a volume that can no longer work is noticed. */
	healthTickMs: 250,
	/** A file with that much unsealed is sealed at once, so that large writes stream. */
	sealInodeBytes: 8 * MiB,
	/** All files together: oldest are sealed until below. */
	sealPressureBytes: 32 * MiB,
	/** Unsealed data older than this is sealed: what a power cut may take of un-synced writes. */
	sealAgeMs: 2000,
	sealTickMs: 500,
	/** Kept free of data on each disk for metadata: so much, or this part of a small disk. */
	reserveBytes: 256 * MiB,
	reserveFraction: 16,
	/** Time in each turn of the event loop for gathering what is sealed behind the foreground, and as much for its transactions: some ten of these. A request that comes meanwhile waits so long at the most. */
	behindMs: 1,
	/** Inodes sealed side by side; they share segments. */
	sealBatchInodes: 512,
	/** Reads up to this size, farther than that from the last one, so many times in turn, are random: nothing around them is fetched. */
	shortReadBytes: 32 * 1024,
	nearReadBytes: 1 * MiB,
	randomAfterJumps: 4,
	/** Segments being written at once: bounds memory (payload + parity each). */
	segmentWrites: 4,
	/** Payloads in memory: those being written, and the next ones being filled meanwhile. A seal may be as large as the ring. */
	segmentPayloads: 6,
	/** Changes a transaction of ours may reach, below the engines' 100 to leave room for the head and the inode. */
	transactionChanges: 90,
	/** Handles a volume has open at once, all doors together. */
	handles: 262_144,
	/** Records of some hundred transactions are encoded into one buffer. */
	recordArenaBytes: 64 * 1024,
	/** Users whose handles share what is known of them. */
	sharedCallers: 256,
	maximumNameBytes: 255,
	/** Beyond this, offset arithmetic in doubles would no longer be exact with room to spare. */
	maximumFileBytes: 2 ** 52,
	/** Copies of less go through memory: a reference to a chunk would keep more alive than it saves. */
	sharedBytes: 4096,
	/** Transactions of one copy before it answers with what is done: some 40 chunks each, so that no request takes minutes. */
	shareSteps: 256,
	/** A search for a hole looks at so much of a file at once, and goes on so often there, before others get a turn. */
	seekWindowBytes: 64 * MiB,
	seekLooks: 256,
	/** Bytes read in one call: doors ask for at most 1 MiB. */
	readBytes: 16 * MiB,
	readRangesAtOnce: 8,
	/** Freed segments wait this long for company before the log is synced for them. */
	releaseDelayMs: 200,
	releaseRetryMs: 5000,
	/**
	 * Segments of which less than this part lives are compacted; when space is short, those of which a little is dead. Above a half, so that it does not hang on the sizes of neighbours whether
	 * the space of every second file comes back; 5 bytes are copied for 3 that come back at the most.
	 */
	compactBelow: 5 / 8,
	compactBelowShort: 15 / 16,
	/** Space is short when less than this part of the volume is free. */
	shortOfSpace: 1 / 16,
	/** Compaction looks for work when so much has died, or something has died and the longer time has gone by since it looked last. */
	compactTickMs: 1000,
	compactSoonBytes: 64 * MiB,
	compactIdleMs: 10_000,
	/** A look at all segment records takes at most this part of the time. */
	compactScanShare: 1 / 50,
	/** The best that one look remembers: 8 GiB of segments. */
	compactCandidates: 4096,
	/** Segments that become one: their chunks' numbers, as ranges, must fit its record. */
	compactGroup: 64,
	/** In the background compaction rests as long as it worked. When it finds no room it goes on with smaller segments, down to this. */
	compactLeastBytes: 128 * 1024,
	/** How long a writer waits for compaction before it is told that there is no space, and how much is enough to go on. */
	makeRoomMs: 20_000,
	makeRoomBytes: 32 * MiB,
	/** Changes of protection under way at once: each walks over everything below its path. */
	conversions: 64,
	/** Names told of a change, and bytes of a file's map looked at, in one step; segments pinned meanwhile. */
	conversionPage: 64,
	conversionWindowBytes: 16 * MiB,
	conversionSources: 32,
	conversionPollMs: 200,
	reapsAtOnce: 4,
	/** An unlinked file that could not be taken apart (no space for metadata, disks failing) is tried again this soon, then less and less often. */
	reapRetryMs: 1000,
	reapRetryMaximumMs: 60_000,
	/**
	 * Segments that are rebuilt or moved side by side. Each waits for its reads, for two syncs in a row and for the log, so with two of them the disks do nothing half of the time; with six readers wait longer and nothing is done sooner.
	 * Who asks for rests asks for less at once, too.
	 */
	healsAtOnce: 4,
	restingHealsAtOnce: 2,
	verifiesAtOnce: 2,
	/** A seal holds its segment for some transactions: milliseconds. */
	packingPollMs: 10,
	/** A status is told after this time with the figures of before, whatever the disks do. */
	statusPatienceMs: 2_000,
	/** Damage that a read found is healed this soon; what could not be healed is tried again after the second time. */
	healTickMs: 1000,
	healRetryMs: 60_000,
	healRestStepMs: 250,
	/** Segments that the healer has in mind at once, 16 bytes each: 2 TiB of full ones. */
	healListSegments: 1_000_000,
	/** A segment costs as much as so many bytes more (its record, syncs, a transaction), as long as nothing better is known: between what it is on spinning disks and on fast ones. */
	healPieceBytes: 2 * MiB,
	/** Speed is that of the last minute or so; progress and speed are written down this often. Milliseconds. */
	healSpeedMs: 60_000,
	healSaveMs: 5000,
	/** A preview reads so many segments, or for so long, where the speed of healing was never measured. Milliseconds. */
	previewSamples: 16,
	previewSampleMs: 2000,
	/** A count of all segments that takes no longer is made anew for everybody who asks; one that takes longer rests so many times as long. Milliseconds. */
	ledgerQuickMs: 200,
	ledgerRestTimes: 20,
	/** Less than this is called full: headers and paddings of what is written last take more than they do of whole segments. */
	leastFreeBytes: 64 * 1024,
	/** Free space below this part of what evenly filled disks would have is short; it is brought up to the second, for those who wait nearly to all of it. */
	levelBelow: 1 / 8,
	levelUpTo: 1 / 4,
	levelAtMost: 15 / 16,
	/** A writer who waits for moves gets a little more than it asks for, so that the next need not wait at once. */
	levelStepBytes: 8 * MiB,
	levelTickMs: 1000,
	/** Disks are even when none is further from what it is to hold than this part of its size, or two fragments. */
	balanceTolerance: 1 / 50,
	/** How often a balance reckons anew what each disk is to hold, and looks whether it may go on; after failures it waits longer, so often. Milliseconds. */
	balanceAimMs: 1000,
	balanceRetryMs: 60_000,
	/** Rounds that bring the disks no nearer to even: by way of a third disk it takes one or two. */
	balanceVainRounds: 4,
	balanceRetries: 5,
	/** What no record names is given back when it was found so over this time; looked for first some time after a mount, then this often. Simulations have no such patience. Milliseconds. */
	garbage: { ageMs: 24 * 3_600_000, firstMs: 3_600_000, everyMs: 6 * 3_600_000 },
	garbageSimulatedMs: 1000,
	/** The largest are told one by one. */
	garbageItems: 1000,
	/** Whoever waits for a disk to be empty looks this often, and gives up when nothing has changed for the second time. Milliseconds. */
	drainPollMs: 200,
	drainPatienceMs: 60_000,
	/** Free space is asked of the disks again after this time. */
	spaceRefreshMs: 500,
	/** Segment records read per step of a scan. */
	scanBatch: 256,
	/** Chunk records that one pass over all maps is compared with: 24 bytes each. */
	recountChunks: 1_000_000,
	/** Extent blocks read in one step: up to 1,024 extents each. */
	recountBlocks: 16,
	/** What does not add up is remembered up to this: more is as bad. */
	recountSuspects: 10_000,
	/** Passes over a window before a volume is too busy to be judged. */
	recountAttempts: 3,
	/** Proofs are written down in groups, when so many wait or after this time; more than the last bound would be memory without end while metadata has no space. */
	proofsAtOnce: 512,
	proofFlushMs: 2000,
	proofRetryMs: 30_000,
	proofsWaiting: 8192,
	/** Groups looked at in one step; all of them may be deleted in one transaction. */
	proofSweep: 64,
	/** Segments between two rests of the scrub, and how long it rests: on idle disks some 20, 150 and 500 MB/s of payload at the most. Milliseconds. */
	scrubBatch: { low: 1, medium: 5, high: 20 },
	scrubPauseMs: { low: 100, medium: 50, high: 10 },
	/** How often the scrub looks at the clock, and how often it writes down where it is. */
	scrubTickMs: 60_000,
	scrubSaveMs: 5000,
	/** A night, and the time between two passes of a continuous scrub: an empty volume must not be looked at without end. */
	scrubNightSeconds: 6 * 3600,
	scrubRestSeconds: 600,
	/** Lost segments that one verify can tell the files of: numbers in memory. */
	lostSegments: 100_000,
	/** Lost segments that one run of the healer salvages, and that it remembers having looked at; a later run takes the next. */
	salvagedSegments: 10_000,
	lostPaths: 10_000,
	explainSegments: 10_000,
	/** Locks held, and as many waited for, in one answer. */
	listedLocks: 10_000,
} as const;
