/**
 * An engine in memory: for tests and the simulator. With `remote` it behaves like a database at the end of a wire: latency, keys that are not cached, spurious
 * conflicts, outcomes that stay unknown (done, not done, done later), a feed that forgets.
 *
 * Invariants
 *  E1 A commit compares and applies in one synchronous step, whatever latency surrounds it.
 *  E2 Every chance comes from the injected Random.
 */
import { assert } from "../../base/assert.ts";
import { FsError } from "../../base/errors.ts";
import type { Clock, Random } from "../../platform/interface.ts";
import { checkCommit } from "../check.ts";
import type { Change, Commit, CommitResult, Engine, EngineManifest, Entry, KeyRange, Position, Versioned } from "../interface.ts";
import { kvLimits } from "../limits.ts";
import { OrderedMap } from "../ordered-map.ts";

/** Contents that outlive an engine: open a second one on them to "reopen". */
export interface MemoryStore {
	readonly entries: OrderedMap<Versioned>;
	readonly feed: Change[];
	position: Position;
	/** Newest position that the feed has forgotten. */
	forgotten: Position;
}

export interface RemoteBehaviour {
	readonly clock: Clock;
	readonly random: Random;
	/** Upper bound of the delay before and after each call. */
	readonly latencyMs: number;
	/** Chances, 0 to 1. */
	readonly missedPeeks: number;
	readonly conflicts: number;
	readonly unknownDone: number;
	readonly unknownNotDone: number;
	/** Answered with unknown at once, tried up to `lateMs` later. */
	readonly unknownLate: number;
	readonly lateMs: number;
}

export interface MemoryEngineOptions {
	readonly store?: MemoryStore;
	/** Commits that the feed remembers. */
	readonly feedCommits?: number;
	readonly remote?: RemoteBehaviour;
}

export function createMemoryStore(): MemoryStore {
	return { entries: new OrderedMap(), feed: [], position: 0, forgotten: 0 };
}

export function createMemoryEngine(options: MemoryEngineOptions = {}): Engine {
	return options.remote ? new RemoteLikeEngine(options, options.remote) : new MemoryEngine(options);
}

const defaultFeedCommits = 4_096;

class PlainEngine {
	readonly manifest: EngineManifest;
	readonly store: MemoryStore;
	readonly #feedCommits: number;
	closed = false;

	constructor(options: MemoryEngineOptions) {
		this.store = options.store ?? createMemoryStore();
		this.#feedCommits = options.feedCommits ?? defaultFeedCommits;
		this.manifest = {
			name: "memory",
			maximumChanges: kvLimits.maximumChanges,
			maximumCommitBytes: kvLimits.maximumCommitBytes,
			maximumKeyBytes: kvLimits.maximumKeyBytes,
			unknownOutcomes: options.remote !== undefined,
		};
	}

	get position(): Position {
		return this.store.position;
	}

	get(key: string): Versioned | null {
		return this.store.entries.get(key) ?? null;
	}

	collect(range: KeyRange): Entry[] {
		const found: Entry[] = [];
		const cursor = this.store.entries.cursor(range.start);
		while (found.length < range.limit) {
			const key = cursor.key;
			if (key === undefined || (range.end !== undefined && key >= range.end)) break;
			found.push({ key, value: cursor.value.value, version: cursor.value.version });
			cursor.next();
		}
		return found;
	}

	/** Asserts the limits and copies what the caller may change later. */
	check(commit: Commit): Commit {
		this.assertOpen();
		checkCommit(commit, this.manifest);
		const keys = new Set([...commit.puts.map(([key]) => key), ...commit.deletes]);
		assert(keys.size === commit.puts.length + commit.deletes.length, "a commit changes a key once");
		return {
			expect: [...commit.expect],
			puts: commit.puts.map(([key, value]) => [key, value.slice()] as const),
			deletes: [...commit.deletes],
		};
	}

	/** E1. */
	apply(commit: Commit): CommitResult {
		for (const [key, version] of commit.expect) {
			if (this.store.entries.get(key)?.version !== version) return { outcome: "conflict" };
		}
		if (commit.puts.length + commit.deletes.length === 0) return { outcome: "committed", position: this.store.position };
		const position = ++this.store.position;
		for (const [key, value] of commit.puts) this.store.entries.set(key, { value, version: position });
		for (const key of commit.deletes) this.store.entries.delete(key);
		this.#remember({ position, puts: commit.puts, deletes: commit.deletes });
		return { outcome: "committed", position };
	}

	#remember(change: Change): void {
		const feed = this.store.feed;
		feed.push(change);
		while (feed.length > this.#feedCommits) this.store.forgotten = (feed.shift() as Change).position;
	}

	feedAfter(position: Position, limit: number): { readonly changes: readonly Change[]; readonly watermark: Position } | "gap" {
		if (position < this.store.forgotten) return "gap";
		const changes = this.store.feed.filter((change) => change.position > position).slice(0, limit);
		return { changes, watermark: this.store.position };
	}

	assertOpen(): void {
		if (this.closed) throw new FsError("EBADF", "kv.memory-closed", "the memory engine is closed");
	}
}

class MemoryEngine implements Engine {
	readonly #plain: PlainEngine;

	constructor(options: MemoryEngineOptions) {
		this.#plain = new PlainEngine(options);
	}

	get manifest(): EngineManifest {
		return this.#plain.manifest;
	}

	get position(): Position {
		return this.#plain.position;
	}

	async read(keys: readonly string[]): Promise<(Versioned | undefined)[]> {
		this.#plain.assertOpen();
		return keys.map((key) => this.#plain.get(key) ?? undefined);
	}

	async range(range: KeyRange): Promise<Entry[]> {
		this.#plain.assertOpen();
		return this.#plain.collect(range);
	}

	peek(key: string): Versioned | null {
		return this.#plain.get(key);
	}

	peekRange(range: KeyRange): Entry[] {
		return this.#plain.collect(range);
	}

	async commit(commit: Commit): Promise<CommitResult> {
		return this.commitNow(commit);
	}

	commitNow(commit: Commit): CommitResult {
		return this.#plain.apply(this.#plain.check(commit));
	}

	async durable(position: Position): Promise<void> {
		assert(position <= this.#plain.position, "durable() of a position that was never given out");
	}

	async changesAfter(
		position: Position,
		limit: number,
	): Promise<{ readonly changes: readonly Change[]; readonly watermark: Position } | "gap"> {
		return this.#plain.feedAfter(position, limit);
	}

	async close(): Promise<void> {
		this.#plain.closed = true;
	}
}

class RemoteLikeEngine implements Engine {
	readonly #plain: PlainEngine;
	readonly #remote: RemoteBehaviour;

	constructor(options: MemoryEngineOptions, remote: RemoteBehaviour) {
		this.#plain = new PlainEngine(options);
		this.#remote = remote;
	}

	get manifest(): EngineManifest {
		return this.#plain.manifest;
	}

	get position(): Position {
		return this.#plain.position;
	}

	async read(keys: readonly string[]): Promise<(Versioned | undefined)[]> {
		this.#plain.assertOpen();
		await this.#latency();
		const found = keys.map((key) => this.#plain.get(key) ?? undefined);
		await this.#latency();
		return found;
	}

	async range(range: KeyRange): Promise<Entry[]> {
		this.#plain.assertOpen();
		await this.#latency();
		const found = this.#plain.collect(range);
		await this.#latency();
		return found;
	}

	peek(key: string): Versioned | null | undefined {
		return this.#chance(this.#remote.missedPeeks) ? undefined : this.#plain.get(key);
	}

	peekRange(range: KeyRange): Entry[] | undefined {
		return this.#chance(this.#remote.missedPeeks) ? undefined : this.#plain.collect(range);
	}

	async commit(given: Commit): Promise<CommitResult> {
		const commit = this.#plain.check(given);
		await this.#latency();
		if (this.#chance(this.#remote.conflicts)) return { outcome: "conflict" };
		if (this.#chance(this.#remote.unknownNotDone)) return { outcome: "unknown" };
		if (this.#chance(this.#remote.unknownLate)) {
			this.#remote.clock.after(this.#remote.random.below(this.#remote.lateMs + 1), () => this.#plain.apply(commit));
			return { outcome: "unknown" };
		}
		const result = this.#plain.apply(commit);
		await this.#latency();
		return this.#chance(this.#remote.unknownDone) ? { outcome: "unknown" } : result;
	}

	async durable(position: Position): Promise<void> {
		assert(position <= this.#plain.position, "durable() of a position that was never given out");
		await this.#latency();
	}

	async changesAfter(
		position: Position,
		limit: number,
	): Promise<{ readonly changes: readonly Change[]; readonly watermark: Position } | "gap"> {
		await this.#latency();
		return this.#plain.feedAfter(position, limit);
	}

	async close(): Promise<void> {
		this.#plain.closed = true;
	}

	#chance(probability: number): boolean {
		return this.#remote.random.below(1_000_000) < probability * 1_000_000;
	}

	async #latency(): Promise<void> {
		if (this.#remote.latencyMs > 0) await this.#remote.clock.sleep(this.#remote.random.below(this.#remote.latencyMs + 1));
	}
}
