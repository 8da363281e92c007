/**
 * The metadata engine: four verbs over byte-string keys (Latin-1 JS strings, compared byte by byte), and `transact` written once above them.
 */
import type { Logger } from "../base/telemetry.ts";

/** Position of a commit in the engine's total order. 0 = before everything. */
export type Position = number;

export interface Versioned {
	readonly value: Uint8Array;
	/** Position of the commit that wrote it. */
	readonly version: Position;
}

export interface KeyRange {
	/** Inclusive. */
	readonly start: string;
	/** Exclusive; undefined = to the end. */
	readonly end: string | undefined;
	readonly limit: number;
}

export interface Entry extends Versioned {
	readonly key: string;
}

export interface Commit {
	/** What the transaction has read: key and version, or undefined for "was absent". */
	readonly expect: readonly (readonly [key: string, version: Position | undefined])[];
	readonly puts: readonly (readonly [key: string, value: Uint8Array])[];
	readonly deletes: readonly string[];
}

export type CommitResult =
	| { readonly outcome: "committed"; readonly position: Position }
	| { readonly outcome: "conflict" }
	/** It may have happened or may still happen. Resolved by reading a record that the commit itself would have changed. */
	| { readonly outcome: "unknown" };

export interface EngineManifest {
	readonly name: string;
	/** Most puts + deletes in one commit (architecture, rule 7: 100). */
	readonly maximumChanges: number;
	/** Most bytes of keys and values in one commit (512 KiB). */
	readonly maximumCommitBytes: number;
	readonly maximumKeyBytes: number;
	/** `commit` may answer unknown. */
	readonly unknownOutcomes: boolean;
}

export interface Change {
	readonly position: Position;
	readonly puts: readonly (readonly [key: string, value: Uint8Array])[];
	readonly deletes: readonly string[];
}

export interface Engine {
	readonly manifest: EngineManifest;
	/** Latest committed values, all as of one position. A result has the order of `keys`. */
	read(keys: readonly string[]): Promise<(Versioned | undefined)[]>;
	/** Entries of a range in key order, as of one position, at most `limit`. */
	range(range: KeyRange): Promise<Entry[]>;
	/** Synchronous read: the value, `null` when surely absent, undefined when it is not in memory (then `read` brings it there). */
	peek(key: string): Versioned | null | undefined;
	/** Synchronous range, or undefined when some of it is not in memory. */
	peekRange(range: KeyRange): Entry[] | undefined;
	/**
	 * Compares all versions in `expect` and applies all changes, atomically. The local engine compares and applies in one synchronous step once it has room.
	 * @throws FsError E2BIG beyond the manifest's limits (asserted by all engines), ENOSPC, EIO (nothing was applied).
	 */
	commit(commit: Commit): Promise<CommitResult>;
	/** Like `commit`, synchronously, or undefined when the engine cannot do it now (remote, no room): then call `commit`. */
	commitNow?(commit: Commit): CommitResult | undefined;
	/** Resolves when everything up to `position` survives the loss of as many disks (nodes) as the volume tolerates. */
	durable(position: Position): Promise<void>;
	/** Commits after `position`, oldest first, at most `limit`, with the durable watermark; `gap` when they are kept no longer. */
	changesAfter(position: Position, limit: number): Promise<{ readonly changes: readonly Change[]; readonly watermark: Position } | "gap">;
	/** Newest position. */
	readonly position: Position;
	close(): Promise<void>;
}

/** A transaction as `transact`'s function sees it. All calls are synchronous; what is not in memory ends the attempt, is fetched, and the function runs again. */
export interface Transaction {
	get(key: string): Uint8Array | undefined;
	/** Merged with the transaction's own changes. Ranges are not conflict-checked: read a guard record first. */
	range(range: KeyRange): readonly { readonly key: string; readonly value: Uint8Array }[];
	put(key: string, value: Uint8Array): void;
	delete(key: string): void;
	/** Changes so far, to stay below the limits. */
	readonly changeCount: number;
	readonly changeBytes: number;
}

export interface TransactOptions {
	readonly logger?: Logger;
	/** Attempts after conflicts (default limits.transactAttempts). */
	readonly attempts?: number;
	/** Called once, in the very step in which the commit happens or becomes known: what memory says of it must not be looked at in between. Must not throw. */
	readonly onCommitted?: () => void;
	/**
	 * The shard's head: every transaction that changes something reads it, compares it and puts it back with sequence + 1 and a token of this attempt
	 * (kv/head.ts: {epoch, sequence, recent tokens}). It is the fence (a changed epoch ends the transaction with ESTALE), the order of the feed, and the
	 * answer to "did it happen?" after an `unknown` outcome: a retry expects the same head, so at most one of the two can win.
	 */
	readonly head: { readonly key: string; readonly epoch: number };
}

/**
 * kv/transact.ts exports
 *   transact<T>(engine, modules: {clock, random}, fn: (tx: Transaction) => T, options): Promise<{ result: T; position: Position }>
 * `fn` is a pure function of its reads and may run several times. A transaction that changes nothing commits nothing and returns the engine's position.
 * An error thrown by `fn` ends it without a commit.
 */
export interface Transacted<T> {
	readonly result: T;
	readonly position: Position;
}
