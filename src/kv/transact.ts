/**
 * Transactions over any engine: a synchronous function over reads in memory, buffered writes, one commit.
 *
 * Invariants
 *  T1 Every key read is in `expect` with the version that `fn` saw, so a commit proves that all reads were current at one position.
 *  T2 What `fn` concludes without a commit (a result without changes, an error) is believed only if its reads were made in one synchronous step over memory,
 *     or one later `read` shows all of them unchanged.
 *  T3 A range that had to be fetched is used only while everything read before it is unchanged since before the fetch: a guard read first guards it.
 *  T4 Every commit compares and bumps the shard's head. After an unknown outcome nothing is reported before the head says what became of it: it happened
 *     (its token stands at its sequence), or it cannot happen any more (the head has moved on without it; moved by a fence if need be).
 */
import { AssertionError, assert } from "../base/assert.ts";
import { FsError } from "../base/errors.ts";
import type { Clock, Random, SimulationHooks } from "../platform/interface.ts";
import type { Head } from "./head.ts";
import { decodeHead, encodeHead, nextHead } from "./head.ts";
import type {
	Commit,
	CommitResult,
	Engine,
	Entry,
	KeyRange,
	Position,
	Transacted,
	Transaction,
	TransactOptions,
	Versioned,
} from "./interface.ts";
import { kvLimits } from "./limits.ts";

export interface TransactModules {
	readonly clock: Clock;
	readonly random: Random;
	readonly simulation?: SimulationHooks;
}

/** Runs `fn` to a commit. See interface.ts. @throws FsError EAGAIN (conflicts), ESTALE (fenced), E2BIG, ENOSPC, EIO, and whatever `fn` throws. */
export function transact<T>(
	engine: Engine,
	modules: TransactModules,
	fn: (transaction: Transaction) => T,
	options: TransactOptions,
): Promise<Transacted<T>> {
	return new Run(engine, modules, fn, options).go();
}

/**
 * The same in one synchronous step, for an engine that can (`commitNow`). Undefined, and nothing happened: something is not in memory, or the commit would have to wait; then `transact` does it, and `fn` runs anew.
 * What was read in this step is current (T1), so that the commit compares the head alone. @throws FsError ESTALE (fenced), E2BIG, ENOSPC, EIO, and whatever `fn` throws.
 */
export function transactNow<T>(
	engine: Engine,
	modules: Pick<TransactModules, "simulation">,
	fn: (transaction: Transaction) => T,
	options: TransactOptions,
): Transacted<T> | undefined {
	if (engine.commitNow === undefined || engine.manifest.unknownOutcomes) return undefined;
	const attempt = new Attempt(engine, undefined, options.head.key);
	const outcome = attempt.run(fn);
	if (outcome.kind === "suspend") return undefined;
	if (outcome.kind === "error") throw outcome.error;
	if (attempt.changeCount === 0) return { result: outcome.value, position: engine.position };
	if (modules.simulation?.buggify("kv.conflict")) return undefined;
	const { version, head = { epoch: options.head.epoch, sequence: 0, tokens: [] } } = attempt.seenHead as SeenHead;
	checkFence(head, options.head.epoch);
	const next = { epoch: head.epoch, sequence: head.sequence + 1, tokens: [] };
	const committed = engine.commitNow(attempt.commit(options.head.key, next, [[options.head.key, version]]));
	if (committed?.outcome !== "committed") return undefined;
	options.onCommitted?.();
	return { result: outcome.value, position: committed.position };
}

/** Reads of one synchronous step over memory. Undefined: something is not there. @throws whatever `fn` throws. */
export function glance<T>(engine: Engine, fn: (transaction: Transaction) => T): { readonly result: T } | undefined {
	const reads = new Glance(engine);
	try {
		const result = fn(reads);
		assert(!reads.missed, "a function swallowed what ends its glance: rethrow what is not an Error");
		return { result };
	} catch (error) {
		if (error === missed) return undefined;
		if (reads.missed) throw new AssertionError(`a function swallowed what ends its glance, then threw ${String(error)}`);
		throw error;
	}
}

/** Ends a glance. Not an Error, as `Suspend`. */
const missed = Symbol("not in memory");

class Glance implements Transaction {
	readonly #engine: Engine;
	readonly changeCount = 0;
	readonly changeBytes = 0;
	missed = false;

	constructor(engine: Engine) {
		this.#engine = engine;
	}

	get(key: string): Uint8Array | undefined {
		const found = this.missed ? undefined : this.#engine.peek(key);
		if (found === undefined) throw this.#miss();
		return found?.value;
	}

	range(range: KeyRange): readonly Entry[] {
		const found = this.missed ? undefined : this.#engine.peekRange(range);
		if (found === undefined) throw this.#miss();
		return found;
	}

	put(): never {
		throw new AssertionError("a glance changes nothing");
	}

	delete(): never {
		throw new AssertionError("a glance changes nothing");
	}

	#miss(): typeof missed {
		this.missed = true;
		return missed;
	}
}

/** Ends an attempt because something is not in memory. Not an Error, so that nobody who handles errors takes it for one. */
class Suspend {
	readonly key: string | undefined;
	readonly range: KeyRange | undefined;
	readonly guards: ReadonlyMap<string, Position | undefined>;

	constructor(key: string | undefined, range: KeyRange | undefined, guards: ReadonlyMap<string, Position | undefined>) {
		this.key = key;
		this.range = range;
		this.guards = guards;
	}
}

interface FetchedRange {
	readonly entries: readonly Entry[];
	/** What had been read before the fetch. */
	readonly guards: ReadonlyMap<string, Position | undefined>;
}

/** What was brought into memory for this transaction; thrown away after a conflict. */
class Fetched {
	readonly keys = new Map<string, Versioned | null>();
	readonly ranges = new Map<string, FetchedRange>();

	clear(): void {
		this.keys.clear();
		this.ranges.clear();
	}
}

type Outcome<T> =
	| { readonly kind: "value"; readonly value: T }
	| { readonly kind: "error"; readonly error: unknown }
	| { readonly kind: "suspend"; readonly suspend: Suspend };

/** A commit whose outcome is unknown. */
interface Doubt<T> {
	readonly token: number;
	/** Version of the head that it expects, and the sequence that it would give it. */
	readonly expected: Position | undefined;
	readonly sequence: number;
	readonly result: T | undefined;
	readonly isFence: boolean;
}

interface SeenHead {
	readonly head: Head | undefined;
	readonly version: Position | undefined;
}

class Run<T> {
	readonly #engine: Engine;
	readonly #modules: TransactModules;
	readonly #fn: (transaction: Transaction) => T;
	readonly #options: TransactOptions;
	readonly #fetched = new Fetched();
	#doubts: Doubt<T>[] = [];
	#attempts = 0;
	#fetches = 0;

	constructor(engine: Engine, modules: TransactModules, fn: (transaction: Transaction) => T, options: TransactOptions) {
		this.#engine = engine;
		this.#modules = modules;
		this.#fn = fn;
		this.#options = options;
	}

	async go(): Promise<Transacted<T>> {
		for (;;) {
			if (this.#doubts.length > 0) {
				const happened = await this.#settleDoubts();
				if (happened) return happened;
			}
			const attempt = new Attempt(this.#engine, this.#fetched, this.#options.head.key);
			const outcome = attempt.run(this.#fn);
			if (outcome.kind === "suspend") {
				await this.#fetch(outcome.suspend);
				continue;
			}
			if (outcome.kind === "error" || attempt.changeCount === 0) {
				if (!(await this.#concludes(attempt))) continue;
				if (outcome.kind === "error") throw outcome.error;
				return { result: outcome.value, position: this.#engine.position };
			}
			const done = await this.#commit(attempt, outcome.value);
			if (done) return done;
		}
	}

	// ── without a commit ─────────────────────────────────────────────────────────────────────────────────────────

	/** T2 and T4: true when what the attempt saw may be reported. */
	async #concludes(attempt: Attempt): Promise<boolean> {
		if (attempt.usedFetched && !(await this.#unchanged(attempt))) {
			await this.#conflict();
			return false;
		}
		return this.#doubts.length === 0 || (await this.#fence());
	}

	async #unchanged(attempt: Attempt): Promise<boolean> {
		const { reads } = attempt;
		const keys = [...reads.keys()];
		const now = await this.#engine.read(keys);
		return keys.every((key, i) => reads.get(key) === now[i]?.version);
	}

	// ── fetching ─────────────────────────────────────────────────────────────────────────────────────────────────

	async #fetch(suspend: Suspend): Promise<void> {
		if (++this.#fetches > kvLimits.transactFetches) {
			throw new FsError(
				"EAGAIN",
				"kv.transact-fetches",
				`a transaction needed more than ${kvLimits.transactFetches} reads from disk: it must be split`,
			);
		}
		if (suspend.key !== undefined) {
			const [found] = await this.#engine.read([suspend.key]);
			this.#fetched.keys.set(suspend.key, found ?? null);
			return;
		}
		const range = suspend.range as KeyRange;
		const entries = await this.#engine.range(range);
		this.#fetched.ranges.set(rangeId(range), { entries, guards: suspend.guards });
	}

	// ── committing ───────────────────────────────────────────────────────────────────────────────────────────────

	/** Undefined: try again. */
	async #commit(attempt: Attempt, result: T): Promise<Transacted<T> | undefined> {
		const seen = attempt.seenHead;
		assert(seen, "an attempt with changes has read the head");
		// A doubtful commit may have come true since the doubts were looked at: this attempt would do it a second time. Only where it expects the same head as they do, one of them wins.
		if (this.#doubts.some((doubt) => doubt.expected !== seen.version)) {
			await this.#conflict();
			return undefined;
		}
		const head = seen.head ?? { epoch: this.#options.head.epoch, sequence: 0, tokens: [] };
		checkFence(head, this.#options.head.epoch);
		const next = this.#advance(head);
		const commit = attempt.commit(this.#options.head.key, next);
		const outcome = await this.#send(commit, this.#options.onCommitted);
		if (outcome.outcome === "committed") return { result, position: outcome.position };
		if (outcome.outcome === "unknown") this.#doubts.push(doubtOf(next, seen.version, result, false));
		await this.#conflict();
		return undefined;
	}

	#advance(head: Head): Head {
		if (!this.#engine.manifest.unknownOutcomes) return { epoch: head.epoch, sequence: head.sequence + 1, tokens: [] };
		return nextHead(head, 1 + this.#modules.random.below(Number.MAX_SAFE_INTEGER - 1));
	}

	async #send(commit: Commit, onCommitted: (() => void) | undefined): Promise<CommitResult> {
		if (this.#modules.simulation?.buggify("kv.conflict")) return { outcome: "conflict" };
		try {
			const result = this.#engine.commitNow?.(commit) ?? (await this.#engine.commit(commit));
			if (result.outcome === "committed") onCommitted?.();
			return result;
		} catch (error) {
			if (this.#doubts.length === 0) throw error;
			throw this.#unresolved(error);
		}
	}

	async #conflict(): Promise<void> {
		this.#fetched.clear();
		this.#attempts++;
		const limit = this.#options.attempts ?? kvLimits.transactAttempts;
		if (this.#attempts >= limit) {
			if (this.#doubts.length > 0) throw this.#unresolved(undefined);
			throw new FsError("EAGAIN", "kv.transact-conflicts", `a transaction lost against others ${limit} times: try again later`, {
				attempts: limit,
			});
		}
		if (this.#attempts <= 2) return;
		const bound = Math.min(kvLimits.retryMaximumMs, kvLimits.retryFirstMs << Math.min(this.#attempts - 2, 10));
		await this.#modules.clock.sleep(1 + this.#modules.random.below(bound));
	}

	// ── unknown outcomes (T4) ────────────────────────────────────────────────────────────────────────────────────

	async #readHead(): Promise<SeenHead & { readonly head: Head }> {
		const [found] = await this.#engine.read([this.#options.head.key]);
		if (!found) return { head: { epoch: this.#options.head.epoch, sequence: 0, tokens: [] }, version: undefined };
		return { head: decodeHead(found.value), version: found.version };
	}

	/** Looks at the head: returns the result of the doubt that happened; forgets doubts that cannot happen any more. */
	async #settleDoubts(): Promise<Transacted<T> | undefined> {
		const seen = await this.#readHead();
		const open: Doubt<T>[] = [];
		let happened: Doubt<T> | undefined;
		for (const doubt of this.#doubts) {
			if (seen.version === doubt.expected) open.push(doubt);
			else if (await this.#didHappen(doubt, seen.head)) happened = doubt;
		}
		this.#doubts = open;
		if (happened === undefined || happened.isFence) return undefined;
		this.#options.onCommitted?.();
		return { result: happened.result as T, position: seen.version as Position };
	}

	async #didHappen(doubt: Doubt<T>, head: Head): Promise<boolean> {
		const age = head.sequence - doubt.sequence;
		assert(age >= 0, "T4: a head that changed has a higher sequence");
		if (age < head.tokens.length) return head.tokens[age] === doubt.token;
		return this.#inFeed(doubt);
	}

	/** The head has forgotten: the feed still may know. */
	async #inFeed(doubt: Doubt<T>): Promise<boolean> {
		let after = doubt.expected ?? 0;
		for (let page = 0; page < kvLimits.feedPages; page++) {
			const found = await this.#engine.changesAfter(after, kvLimits.feedPage);
			if (found === "gap") break;
			for (const change of found.changes) {
				const put = change.puts.find(([key]) => key === this.#options.head.key);
				if (put) return decodeHead(put[1]).tokens[0] === doubt.token;
				after = change.position;
			}
			if (found.changes.length === 0) break;
		}
		throw this.#unresolved(undefined);
	}

	/** Moves the head on, so that no open doubt can happen any more. True when that is sure. */
	async #fence(): Promise<boolean> {
		const seen = await this.#readHead();
		const isOpen = this.#doubts.some((doubt) => doubt.expected === seen.version);
		if (isOpen) {
			checkFence(seen.head, this.#options.head.epoch);
			const next = this.#advance(seen.head);
			const put = [this.#options.head.key, encodeHead(next)] as const;
			const commit = { expect: [[this.#options.head.key, seen.version] as const], puts: [put], deletes: [] };
			const outcome = await this.#send(commit, undefined);
			if (outcome.outcome === "committed") {
				this.#doubts = [];
				return true;
			}
			if (outcome.outcome === "unknown") this.#doubts.push(doubtOf<T>(next, seen.version, undefined, true));
		}
		await this.#conflict();
		return false;
	}

	#unresolved(cause: unknown): FsError {
		return new FsError(
			"EIO",
			"kv.unknown-outcome",
			"the metadata engine did not say whether a change was made, and it cannot be found out any more: check the result before trying again",
			{ doubts: this.#doubts.length },
			cause,
		);
	}
}

function checkFence(head: Head, own: number): void {
	if (head.epoch === own) return;
	const message = `the shard is owned in epoch ${head.epoch} now, this owner had epoch ${own}: it must stop and open the volume anew`;
	throw new FsError("ESTALE", "kv.fenced", message, { epoch: head.epoch, own });
}

function doubtOf<T>(next: Head, expected: Position | undefined, result: T | undefined, isFence: boolean): Doubt<T> {
	return { token: next.tokens[0] as number, expected, sequence: next.sequence, result, isFence };
}

class Attempt implements Transaction {
	readonly #engine: Engine;
	readonly #fetched: Fetched | undefined;
	readonly #headKey: string;
	readonly #writes = new Map<string, Uint8Array | null>();
	/** What was read. Undefined: the attempt is one step over memory, which answers the same again. */
	readonly #seen: Map<string, Versioned | null> | undefined;
	#bytes = 0;
	#suspended: Suspend | undefined;
	/** Something came from an earlier step than the rest. */
	usedFetched = false;
	seenHead: SeenHead | undefined;

	/** `fetched` undefined: the attempt is made in one step over memory. */
	constructor(engine: Engine, fetched: Fetched | undefined, headKey: string) {
		this.#engine = engine;
		this.#fetched = fetched;
		this.#headKey = headKey;
		this.#seen = fetched === undefined ? undefined : new Map();
	}

	/** Runs the function, then reads the head if it changed anything. */
	run<T>(fn: (transaction: Transaction) => T): Outcome<T> {
		try {
			const value = fn(this);
			assert(this.#suspended === undefined, "a transaction function swallowed what suspends it: rethrow what is not an Error");
			assert(!isThenable(value), "a transaction function must be synchronous");
			if (this.changeCount > 0) this.#readHead();
			return { kind: "value", value };
		} catch (error) {
			if (error instanceof Suspend) return { kind: "suspend", suspend: error };
			if (this.#suspended !== undefined)
				throw new AssertionError(`a transaction function swallowed what suspends it, then threw ${String(error)}`);
			return { kind: "error", error };
		}
	}

	/** T1. */
	get reads(): Map<string, Position | undefined> {
		return new Map([...(this.#seen ?? [])].map(([key, found]) => [key, found?.version]));
	}

	get changeCount(): number {
		return this.#writes.size === 0 ? 0 : this.#writes.size + 1;
	}

	get changeBytes(): number {
		return this.#writes.size === 0 ? 0 : this.#bytes + headReserveBytes;
	}

	get(key: string): Uint8Array | undefined {
		const own = this.#writes.get(key);
		if (own !== undefined) return own ?? undefined;
		return this.#read(key)?.value;
	}

	range(range: KeyRange): { readonly key: string; readonly value: Uint8Array }[] {
		if (range.limit <= 0 || (range.end !== undefined && range.end <= range.start)) return [];
		const own = this.#ownIn(range);
		if (own.length === 0) return this.#readRange(range);
		// Own changes can hide at most that many entries, so a longer look always leaves `limit` of them.
		const beneath = this.#readRange({ start: range.start, end: range.end, limit: range.limit + own.length });
		return mergeOwn(beneath, own, range.limit);
	}

	put(key: string, value: Uint8Array): void {
		this.#change(key, value);
	}

	delete(key: string): void {
		this.#change(key, null);
	}

	/** The commit, with the head as its last put. */
	commit(headKey: string, head: Head, expect: Commit["expect"] = [...this.reads]): Commit {
		const puts: (readonly [string, Uint8Array])[] = [];
		const deletes: string[] = [];
		for (const [key, value] of this.#writes) {
			if (value === null) deletes.push(key);
			else puts.push([key, value]);
		}
		puts.push([headKey, encodeHead(head)]);
		return { expect, puts, deletes };
	}

	#change(key: string, value: Uint8Array | null): void {
		this.#stillRunning();
		assert(key !== this.#headKey, "the head belongs to transact");
		const before = this.#writes.get(key);
		if (before !== undefined) this.#bytes -= key.length + (before?.length ?? 0);
		this.#bytes += key.length + (value?.length ?? 0);
		this.#writes.set(key, value);
	}

	#readHead(): void {
		const found = this.#read(this.#headKey);
		this.seenHead = { head: found ? decodeHead(found.value) : undefined, version: found?.version };
	}

	/** A key that was read keeps its value for the whole attempt. */
	#read(key: string): Versioned | undefined {
		this.#stillRunning();
		const before = this.#seen?.get(key);
		if (before !== undefined) return before ?? undefined;
		let found = this.#engine.peek(key);
		if (found === undefined) {
			found = this.#fetched?.keys.get(key);
			if (found === undefined) throw this.#suspend(key, undefined);
			this.usedFetched = true;
		}
		if (this.#seen === undefined) return found ?? undefined;
		this.#seen.set(key, found);
		return found ?? undefined;
	}

	#readRange(range: KeyRange): Entry[] {
		this.#stillRunning();
		const found = this.#engine.peekRange(range);
		if (found !== undefined) return found;
		const fetched = this.#fetched?.ranges.get(rangeId(range));
		if (fetched === undefined || !this.#guardsHold(fetched)) throw this.#suspend(undefined, range);
		this.usedFetched = true;
		return [...fetched.entries];
	}

	/** T3. */
	#guardsHold(fetched: FetchedRange): boolean {
		for (const [key, version] of fetched.guards) {
			const seen = this.#seen?.get(key);
			if (seen === undefined || seen?.version !== version) return false;
		}
		return true;
	}

	#suspend(key: string | undefined, range: KeyRange | undefined): Suspend {
		this.#suspended = new Suspend(key, range, range === undefined ? noGuards : this.reads);
		return this.#suspended;
	}

	#stillRunning(): void {
		if (this.#suspended !== undefined) throw this.#suspended;
	}

	#ownIn(range: KeyRange): (readonly [string, Uint8Array | null])[] {
		if (this.#writes.size === 0) return [];
		const own = [...this.#writes].filter(([key]) => key >= range.start && (range.end === undefined || key < range.end));
		return own.sort((a, b) => (a[0] < b[0] ? -1 : 1));
	}
}

const noGuards: ReadonlyMap<string, Position | undefined> = new Map();
/** Head record with all its tokens and its key. */
const headReserveBytes = 20 + 8 * kvLimits.headTokens + 16;

function mergeOwn(
	beneath: readonly Entry[],
	own: readonly (readonly [string, Uint8Array | null])[],
	limit: number,
): { key: string; value: Uint8Array }[] {
	const merged: { key: string; value: Uint8Array }[] = [];
	let i = 0;
	let j = 0;
	while (merged.length < limit && (i < beneath.length || j < own.length)) {
		const entry = beneath[i];
		const change = own[j];
		if (change === undefined || (entry !== undefined && entry.key < change[0])) {
			merged.push(entry as Entry);
			i++;
			continue;
		}
		if (entry?.key === change[0]) i++;
		if (change[1] !== null) merged.push({ key: change[0], value: change[1] });
		j++;
	}
	return merged;
}

function rangeId(range: KeyRange): string {
	return `${range.limit}:${range.start.length}:${range.start}${range.end === undefined ? "" : `:${range.end}`}`;
}

function isThenable(value: unknown): boolean {
	return typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function";
}
