/** Bounds of the metadata engines, with their reasons (architecture, rule 7). */

export const kvLimits = {
	/** Puts + deletes of one commit: what the smallest engine (etcd: 128 operations) can take, with room for compares. */
	maximumChanges: 100,
	/** Bytes of keys and values of one commit: far below etcd's 1.5 MiB request, and a fraction of a log segment. */
	maximumCommitBytes: 512 * 1024,
	/** A 255-byte name with its prefix needs a quarter of it. */
	maximumKeyBytes: 1024,
	/** Attempts of a transaction that runs into conflicts; with jitter this outlasts some hundred competitors. */
	transactAttempts: 100,
	/** Fetches of keys that are not in memory during one transaction; a verb reads a few dozen. */
	transactFetches: 2_000,
	/** Bounds of the pause after a conflict. The first two retries come at once. */
	retryFirstMs: 1,
	retryMaximumMs: 64,
	/** Attempt tokens that a head remembers: how far others may run ahead before an unknown outcome needs the feed. */
	headTokens: 8,
	/** Commits asked for at once when the feed must answer an unknown outcome, and how often. */
	feedPage: 256,
	feedPages: 64,
} as const;

export interface LocalLimits {
	/** Bytes (log payload plus bookkeeping) at which the memtable is frozen; one more of that size may be in flight to disk. */
	readonly memtableBytes: number;
	/** What an entry costs beyond its bytes: string header, slot, entry and view objects. */
	readonly entryOverheadBytes: number;
	/** Payload of a block of a run. */
	readonly blockBytes: number;
	/** Cached blocks of all runs. */
	readonly cacheBytes: number;
	readonly bloomBitsPerKey: number;
	/** A filter never takes more; beyond it only its error rate grows. */
	readonly bloomMaximumBytes: number;
	/** More runs than this are merged: each one costs a filter probe per lookup and a cursor per range. */
	readonly runsToLookInto: number;
	/** Beyond it a flush waits for a merge; the manifest has room for that many. */
	readonly maximumRuns: number;
	/** Runs merged at once, so that the read buffers stay small. */
	readonly mergeWidth: number;
	/** A merge rests so many times as long as it works, no longer than this at once, unless there are so many runs. */
	readonly mergeRests: number;
	readonly mergeRestMs: number;
	readonly runsInHurry: number;
	/** A run joins a merge when it is at most this many times as large as all newer ones of the merge together. */
	readonly mergeRatio: number;
	/** Bytes written to or read from a disk at once by flush, merge, copy and verify. */
	readonly chunkBytes: number;
	/** Entries handled between two yields to the foreground. */
	readonly sliceEntries: number;
	/** Bytes of each of the two slots of the manifest: 64 runs with two keys of 1 KiB. */
	readonly manifestSlotBytes: number;
	/** Recent commits kept for changesAfter. */
	readonly feedBytes: number;
	readonly feedCommits: number;
	/** Blocks read ahead by a range that leaves memory. */
	readonly readAheadBlocks: number;
	/** Pause before a flush, merge or copy that found no space is tried again. */
	readonly retryMs: number;
	/** Spare space of a home is counted in these, and takes no more than this part of the disk. */
	readonly spareUnitBytes: number;
	readonly spareFraction: number;
	/** Taken in one call: a file system that has to write zeros for it is not held up for long. */
	readonly spareStepBytes: number;
	/** Payloads of commits share buffers of this size: the memtable counts every payload, so that what one of its values keeps alive is counted too, but for one such buffer. */
	readonly payloadArenaBytes: number;
	/** How often disks that had no space are asked whether they have some, for spare space and for the metadata. */
	readonly roomRetryMs: number;
	/** Rounds of loading blocks for one read; each brings at least one block, unless a merge replaced runs meanwhile. */
	readonly loadRounds: number;
}

export const localLimits: LocalLimits = {
	memtableBytes: 16 * 1024 * 1024,
	entryOverheadBytes: 160,
	blockBytes: 16 * 1024,
	cacheBytes: 32 * 1024 * 1024,
	bloomBitsPerKey: 10,
	bloomMaximumBytes: 32 * 1024 * 1024,
	runsToLookInto: 8,
	maximumRuns: 64,
	mergeWidth: 12,
	mergeRests: 6,
	mergeRestMs: 20,
	runsInHurry: 24,
	mergeRatio: 1.5,
	chunkBytes: 512 * 1024,
	sliceEntries: 512,
	manifestSlotBytes: 256 * 1024,
	feedBytes: 4 * 1024 * 1024,
	feedCommits: 8_192,
	readAheadBlocks: 4,
	retryMs: 1_000,
	spareUnitBytes: 256 * 1024,
	payloadArenaBytes: 64 * 1024,
	spareFraction: 64,
	spareStepBytes: 8 * 1024 * 1024,
	roomRetryMs: 5_000,
	loadRounds: 100_000,
};
