/**
 * The local metadata engine: the mirrored log, a memtable above it, sorted runs on the manifest disks.
 *
 * Invariants
 *  K1 A commit is one log record; its sequence is the commit's position and the version of what it writes. Comparing, appending and applying are one
 *     synchronous step, so there is no window for conflicts.
 *  K2 What a reader sees is memtable over frozen memtable over runs, newest first, looked at in one synchronous step: one position.
 *  K3 A frozen memtable leaves memory in the step in which its run enters `runs`; its run holds only records that are durable in the log.
 *  K4 The log is cut only up to what a manifest covers that is durable on as many disks as should have it.
 *  K5 At most two memtables exist. Whoever would need a third waits; when disks have no space, it gets ENOSPC, and nothing is lost.
 *  K6 Before the engine serves, all that was recovered is in runs, named by a manifest that the roster names.
 */
import { Signal } from "../../base/async.ts";
import { FsError, isFsError, toFsError } from "../../base/errors.ts";
import type { Logger } from "../../base/telemetry.ts";
import { ByteArena } from "../../codec/binary.ts";
import type { DiskId, DiskSet, DiskState, Log, LogRecord } from "../../log/interface.ts";
import type { Clock, Memory, Platform, SimulationHooks } from "../../platform/interface.ts";
import { checkCommit } from "../check.ts";
import type { Change, Commit, CommitResult, Engine, EngineManifest, Entry, KeyRange, Position, Versioned } from "../interface.ts";
import type { LocalLimits } from "../limits.ts";
import { kvLimits, localLimits } from "../limits.ts";
import { OrderedMap } from "../ordered-map.ts";
import type { Block } from "./block.ts";
import { type CommitRecord, commitRecordBytes, decodeCommit, encodeCommit } from "./commit-record.ts";
import { Feed } from "./feed.ts";
import { type LogBinding, mirroredLog } from "./log-binding.ts";
import { MergePace, mergeRuns, pickMerge } from "./merge.ts";
import type { MemTable, View, Wanted } from "./read-view.ts";
import { collectRange, lookup } from "./read-view.ts";
import type { Run, RunWriter } from "./run.ts";
import { rotateBytes } from "./spare.ts";
import { RunStore, sameDisks, type StrayFile, type VerifyProgress, type VerifyReport } from "./store.ts";

export interface LocalEngineOptions {
	/** Go on where the log has lost records (default: what the mount was told). */
	readonly acceptLoss?: boolean;
	/** Other bounds than limits.ts has: for tests. */
	readonly limits?: Partial<LocalLimits>;
}

export interface LocalEngineModules {
	readonly platform: Platform;
	readonly disks: DiskSet;
	readonly logger: Logger;
	/** The log's memory tail. */
	readonly memory: Memory;
	/** Default: the mirrored log over `disks` and `memory`. */
	readonly log?: LogBinding;
}

export interface VerifyOptions {
	/** Mend what is damaged (default true); otherwise only count. */
	readonly repair?: boolean;
	readonly onProgress?: (progress: VerifyProgress) => void;
}

export interface LocalEngineStatistics {
	readonly runs: number;
	readonly runBytes: number;
	readonly memtableBytes: number;
	readonly generation: number;
	readonly flushes: number;
	readonly merges: number;
	readonly corruptPieces: number;
	/** Log records replayed when it was opened. */
	readonly replayed: number;
}

/**
 * Opens the engine of a volume: manifest, log recovered, checkpointed, a new log epoch begun.
 * @throws FsError EIO `kv.manifest-lost`, `kv.run-lost`, `log.lost`; ENOSPC when the checkpoint finds no space.
 */
export async function openLocalEngine(options: LocalEngineOptions, modules: LocalEngineModules): Promise<LocalEngine> {
	const limits = { ...localLimits, ...options.limits };
	const log = modules.log ?? mirroredLog(modules, options.acceptLoss);
	const { disks, logger } = modules;
	const { clock, simulation } = modules.platform;
	const store = new RunStore({ clock, disks, logger, limits, chooseMembers: (except) => log.chooseMembers(disks, except) });
	try {
		await store.load();
		const recovered = await replay(store, log, limits, clock);
		await store.establish(recovered.lastSequence);
		const running = await log.start(recovered.lastSequence + 1, recovered.lastChecksum);
		const engine = new LocalEngine(limits, {
			clock,
			simulation,
			disks,
			logger,
			store,
			log: running,
			binding: log,
			replayed: recovered.replayed,
		});
		await engine.begin();
		return engine;
	} catch (error) {
		store.stop();
		await store.close().catch(() => {});
		throw isFsError(error, "ENOSPC") && error.site !== "log.no-space" ? store.mountSpace(error) : error;
	}
}

interface Replayed {
	readonly lastSequence: number;
	readonly lastChecksum: number;
	readonly replayed: number;
}

/** K6: everything after the manifest goes through a memtable into runs, however much it is. */
async function replay(store: RunStore, log: LogBinding, limits: LocalLimits, clock: Clock): Promise<Replayed> {
	const recovered = await log.recover(store.covered);
	let table: MemTable = new OrderedMap();
	let bytes = 0;
	let replayed = 0;
	const flush = async (): Promise<void> => {
		if (table.size === 0) return;
		const full = table;
		const run = await store.untilDisksHold(async () => {
			await store.chooseHomes();
			return store.writeRun(0, full.size, (writer) => writeTable(full, writer, limits, clock));
		});
		if (run) store.adopt(run);
		table = new OrderedMap();
		bytes = 0;
	};
	for await (const record of recovered.records) {
		bytes += applyRecord(table, decodeRecord(record), record.sequence, limits) + record.payload.length;
		if (++replayed % limits.sliceEntries === 0) await clock.yield();
		if (bytes >= limits.memtableBytes) await flush();
	}
	await flush();
	const { lastSequence, lastChecksum } = recovered.report;
	return { lastSequence: Math.max(lastSequence, store.covered), lastChecksum, replayed };
}

function decodeRecord(record: LogRecord): CommitRecord {
	return decodeCommit(record.payload, `log record ${record.sequence}`);
}

/** Returns what the bookkeeping of new keys costs. */
function applyRecord(table: MemTable, record: CommitRecord, version: number, limits: LocalLimits): number {
	const before = table.size;
	for (const [key, value] of record.puts) table.set(key, { value, version });
	for (const key of record.deletes) table.set(key, { value: null, version });
	return (table.size - before) * limits.entryOverheadBytes;
}

async function writeTable(table: MemTable, writer: RunWriter, limits: LocalLimits, clock: Clock): Promise<void> {
	const cursor = table.cursor("");
	for (let count = 1; cursor.key !== undefined; count++) {
		writer.add(cursor.key, cursor.value.value, cursor.value.version);
		cursor.next();
		if (writer.pendingBytes >= limits.chunkBytes) await writer.drain();
		if (count % limits.sliceEntries === 0) await clock.yield();
	}
}

interface EngineParts {
	readonly clock: Clock;
	readonly simulation: SimulationHooks | undefined;
	readonly disks: DiskSet;
	readonly logger: Logger;
	readonly store: RunStore;
	readonly log: Log;
	readonly binding: LogBinding;
	readonly replayed: number;
}

interface Frozen {
	readonly table: MemTable;
	/** Position of its newest commit. */
	readonly last: Position;
}

export class LocalEngine implements Engine {
	readonly manifest: EngineManifest;
	readonly #limits: LocalLimits;
	readonly #parts: EngineParts;
	readonly #store: RunStore;
	readonly #log: Log;
	readonly #feed: Feed;
	readonly #rotateBytes: number;
	#active: MemTable = new OrderedMap();
	#activeBytes = 0;
	#frozen: Frozen | undefined;
	#view!: View;
	readonly #scratch: Wanted[] = [];
	readonly #payloads: ByteArena;
	/** Something changed that a waiter may wait for. */
	readonly #changed = new Signal();
	#noSpace: FsError | undefined;
	/** A move to other disks is to be tried first, before anybody is told that there is no space. */
	#moveMayHelp = false;
	#failed: FsError | undefined;
	#flushing: Promise<void> | undefined;
	#merging: Promise<void> | undefined;
	#moving: Promise<void> | undefined;
	#moveWanted = false;
	#looking: Promise<void> | undefined;
	#cancelLook: () => void = () => {};
	#closing: Promise<void> | undefined;
	#stopped = false;
	#stopListening: () => void = () => {};
	#flushes = 0;
	#merges = 0;

	constructor(limits: LocalLimits, parts: EngineParts) {
		this.#limits = limits;
		this.#parts = parts;
		this.#store = parts.store;
		this.#log = parts.log;
		this.#rotateBytes = rotateBytes(limits, parts.disks.roster.config);
		this.#payloads = new ByteArena(limits.payloadArenaBytes);
		const overheadBytes = 1_024;
		this.manifest = {
			name: "local",
			maximumChanges: kvLimits.maximumChanges,
			maximumCommitBytes: Math.min(kvLimits.maximumCommitBytes, parts.binding.maximumPayloadBytes - overheadBytes),
			maximumKeyBytes: kvLimits.maximumKeyBytes,
			unknownOutcomes: false,
		};
		this.#feed = new Feed(parts.log.lastSequence, limits.feedBytes, limits.feedCommits);
		this.#refreshView();
	}

	/** Gives up what only the last mount needed, and starts listening. */
	async begin(): Promise<void> {
		this.#stopListening = this.#parts.disks.onChange((id, state) => this.#diskChanged(id, state));
		this.#log.onMembersChanged(() => this.#moveSoon());
		try {
			await this.#cut();
			await this.#store.removeOrphans();
			await this.#log.removeOrphans();
			await this.#store.spare.takeBack(this.#store.homes);
			// Before anybody is told how much is free.
			await this.#store.spare.take(this.#store.homes);
		} catch (error) {
			this.#stopListening();
			await this.#log.close().catch(() => {});
			throw error;
		}
		this.#mergeSoon();
		if (!this.#store.complete) this.#moveSoon();
		this.#lookForRoom();
	}

	get position(): Position {
		return this.#log.lastSequence;
	}

	/** Disks that hold the metadata: runs, manifest and log. */
	get members(): readonly DiskId[] {
		return this.#log.members.filter((id) => this.#store.homes.includes(id));
	}

	/**
	 * How many disks hold all of it: the runs, and the log in each of its epochs that no checkpoint covers yet; what was written in an earlier one lies on the mirrors of that
	 * time alone.
	 */
	get copies(): number {
		const { disks } = this.#parts;
		const mirrors = disks.roster.logEpochs.map(({ members }) => members.filter((id) => disks.readable(id) !== undefined).length);
		return Math.min(this.#store.homes.length, ...mirrors);
	}

	/** Undefined while all is well; otherwise why nothing is acknowledged any more. */
	get broken(): Error | undefined {
		return this.#failed ?? this.#store.broken ?? this.#log.broken ?? this.#parts.disks.broken;
	}

	get statistics(): LocalEngineStatistics {
		const { runs, generation, corruptPieces } = this.#store;
		return {
			runs: runs.length,
			runBytes: runs.reduce((sum, run) => sum + run.info.bytes, 0),
			memtableBytes: this.#activeBytes,
			generation,
			flushes: this.#flushes,
			merges: this.#merges,
			corruptPieces,
			replayed: this.#parts.replayed,
		};
	}

	// ── reading (K2) ─────────────────────────────────────────────────────────────────────────────────────────────

	peek(key: string): Versioned | null | undefined {
		if (this.#parts.simulation?.buggify("kv.not-in-memory")) return undefined;
		const found = lookup(this.#view, key, this.#scratch);
		this.#scratch.length = 0;
		return found;
	}

	peekRange(range: KeyRange): Entry[] | undefined {
		const found = collectRange(this.#view, range, this.#scratch);
		this.#scratch.length = 0;
		return found;
	}

	async read(keys: readonly string[]): Promise<(Versioned | undefined)[]> {
		return this.#withBlocks((view, missing) => {
			const found = keys.map((key) => lookup(view, key, missing) ?? undefined);
			return missing.length > 0 ? undefined : found;
		});
	}

	async range(range: KeyRange): Promise<Entry[]> {
		return this.#withBlocks((view, missing) => collectRange(view, range, missing));
	}

	/** Calls `look` until nothing is missing, loading blocks in between. `look` gives undefined when something is missing. */
	async #withBlocks<T>(look: (view: View, missing: Wanted[]) => T | undefined): Promise<T> {
		this.#throwIfClosed();
		const pins = new Map<number, Block>();
		for (let round = 0; round < this.#limits.loadRounds; round++) {
			const missing: Wanted[] = [];
			const found = look(this.#pinnedView(pins), missing);
			if (found !== undefined) return found;
			await this.#store.loadBlocks(missing, pins);
		}
		throw new FsError(
			"EIO",
			"kv.read-rounds",
			`a read was not done after loading blocks ${this.#limits.loadRounds} times: it must be split`,
		);
	}

	#pinnedView(pins: ReadonlyMap<number, Block>): View {
		return pins.size === 0 ? this.#view : { ...this.#view, source: this.#store.source(pins) };
	}

	/** To be called in the step in which memtables or runs change. */
	#refreshView(): void {
		const tables = this.#frozen ? [this.#active, this.#frozen.table] : [this.#active];
		this.#view = { tables, runs: this.#store.runs, source: this.#store.source(), readAhead: this.#limits.readAheadBlocks };
	}

	// ── committing (K1, K5) ──────────────────────────────────────────────────────────────────────────────────────

	commitNow(commit: Commit): CommitResult | undefined {
		const bytes = this.#check(commit);
		const result = this.#tryCommit(commit, bytes, this.#view, this.#scratch);
		this.#scratch.length = 0;
		return typeof result === "string" ? undefined : result;
	}

	async commit(commit: Commit): Promise<CommitResult> {
		const bytes = this.#check(commit);
		const pins = new Map<number, Block>();
		for (let round = 0; round < this.#limits.loadRounds; round++) {
			const missing: Wanted[] = [];
			const result = this.#tryCommit(commit, bytes, this.#pinnedView(pins), missing);
			if (typeof result !== "string") return result;
			if (result === "missing") await this.#store.loadBlocks(missing, pins);
			else await this.#waitForRoom(commitRecordBytes(commit, bytes));
			this.#throwIfUnusable();
		}
		throw new FsError("EAGAIN", "kv.commit-rounds", "a commit found no room for too long: try again");
	}

	#check(commit: Commit): number {
		this.#throwIfUnusable();
		return checkCommit(commit, this.manifest);
	}

	#tryCommit(commit: Commit, bytes: number, view: View, missing: Wanted[]): CommitResult | "missing" | "room" {
		for (const [key, version] of commit.expect) {
			const found = lookup(view, key, missing);
			if (found === undefined) return "missing";
			if (found?.version !== version) return { outcome: "conflict" };
		}
		if (commit.puts.length + commit.deletes.length === 0) return { outcome: "committed", position: this.position };
		const payloadBytes = commitRecordBytes(commit, bytes);
		if (!this.#hasRoom(payloadBytes)) return "room";
		const { payload, values } = encodeCommit(commit, payloadBytes, this.#payloads);
		const position = this.#log.append(payload);
		const puts = commit.puts.map(([key], i) => [key, values[i] as Uint8Array] as const);
		this.#activeBytes += payloadBytes + applyRecord(this.#active, { puts, deletes: commit.deletes }, position, this.#limits);
		this.#feed.add(position, payload);
		const full = this.#activeBytes >= this.#rotateBytes || this.#log.scarce || this.#parts.simulation?.buggify("kv.flush-early");
		if (full && !this.#frozen) this.#freeze();
		return { outcome: "committed", position };
	}

	#memtableHasRoom(): boolean {
		// Without space no more than a mount can count on (spare.ts).
		return this.#activeBytes < (this.#noSpace ? this.#rotateBytes : this.#limits.memtableBytes) || !this.#frozen;
	}

	#hasRoom(payloadBytes: number): boolean {
		return this.#memtableHasRoom() && this.#log.hasRoom(payloadBytes);
	}

	async #waitForRoom(payloadBytes: number): Promise<void> {
		if (this.#noSpace && !this.#moveMayHelp) throw this.#noSpace;
		const changed = this.#changed.wait();
		if (this.#noSpace || !this.#memtableHasRoom()) return changed;
		if (this.#log.hasRoom(payloadBytes)) return;
		// Only a checkpoint empties the ring.
		if (!this.#frozen && this.#active.size > 0) this.#freeze();
		await Promise.race([changed, this.#log.room()]);
	}

	async durable(position: Position): Promise<void> {
		await this.#log.durable(position);
	}

	async changesAfter(
		position: Position,
		limit: number,
	): Promise<{ readonly changes: readonly Change[]; readonly watermark: Position } | "gap"> {
		const changes = this.#feed.after(position, limit);
		return changes === "gap" ? "gap" : { changes, watermark: this.#log.durableSequence };
	}

	// ── flushing (K3, K4) ────────────────────────────────────────────────────────────────────────────────────────

	#freeze(): void {
		this.#frozen = { table: this.#active, last: this.position };
		this.#active = new OrderedMap();
		this.#activeBytes = 0;
		this.#refreshView();
		this.#flushSoon();
	}

	#flushSoon(): void {
		if (!this.#frozen || this.#stopped || this.broken) return;
		this.#flushing ??= this.#flushAll().finally(() => {
			this.#flushing = undefined;
			this.#changed.notifyAll();
			// A memtable frozen after the last look of the loop.
			this.#flushSoon();
		});
	}

	async #flushAll(): Promise<void> {
		while (this.#frozen && !this.#stopped && !this.broken) {
			try {
				await this.#flush(this.#frozen);
				this.#noSpace = undefined;
				this.#changed.notifyAll();
				await this.#cut();
			} catch (error) {
				this.#moveMayHelp = isFsError(error, "ENOSPC") && !this.#store.complete;
				await this.#troubled("writing metadata to disk", error, true);
			}
		}
		if (this.broken) this.#changed.notifyAll();
	}

	async #flush(frozen: Frozen): Promise<void> {
		await this.#log.durable(frozen.last);
		await this.#awaitMerges();
		const { clock } = this.#parts;
		const run = await this.#store.writeRun(0, frozen.table.size, (writer) => writeTable(frozen.table, writer, this.#limits, clock));
		await this.#store.install({
			remove: [],
			add: run,
			covered: frozen.last,
			onDone: () => {
				this.#frozen = undefined;
				this.#refreshView();
			},
		});
		this.#flushes++;
		this.#mergeSoon();
	}

	/** The manifest has room for so many runs only. */
	async #awaitMerges(): Promise<void> {
		while (this.#store.runs.length >= this.#limits.maximumRuns && !this.#stopped && !this.broken) {
			this.#mergeSoon();
			await this.#changed.wait();
		}
	}

	/** K4. What cannot be cut now is cut after the move of the metadata to enough disks. */
	async #cut(): Promise<void> {
		if (!this.#store.complete) {
			this.#moveSoon();
			return;
		}
		await this.#log.cut(this.#store.covered);
		this.#changed.notifyAll();
	}

	/** Everything committed up to now into a durable run and manifest. False when disks lack space. */
	async #checkpoint(): Promise<boolean> {
		const target = this.position;
		while (this.#store.covered < target) {
			if (this.broken) throw this.broken;
			if (this.#noSpace || this.#stopped) return false;
			if (!this.#frozen && this.#active.size > 0) this.#freeze();
			await this.#changed.wait();
		}
		return true;
	}

	/** Background work that failed: waits before the next try, or ends everything when nothing will get better. */
	/** Waits before the next attempt, as long as nothing has changed that it hangs on. */
	async #troubled(what: string, error: unknown, isNeeded: boolean, isAsBefore: () => boolean = () => true): Promise<void> {
		if (isFsError(error, "ECANCELED") || this.#stopped) return;
		if (this.broken) return this.#fail(error);
		if (!(error instanceof FsError)) return this.#fail(error);
		this.#parts.logger.warn(`${what} failed: ${error.message}; it is tried again`, { code: error.code, site: error.site });
		if (isNeeded && error.code === "ENOSPC") {
			const message = "the disks have no space left for the volume's metadata: add space or disks; reading goes on";
			this.#noSpace = new FsError("ENOSPC", "kv.no-space", message, {}, error);
			// Other disks may have some.
			if (!this.#store.complete) this.#moveSoon();
		}
		this.#changed.notifyAll();
		for (let part = 0; part < 10 && isAsBefore() && !this.#stopped; part++) await this.#parts.clock.sleep(this.#limits.retryMs / 10);
	}

	/** What is no FsError is a broken invariant: going on could write wrong metadata. */
	#fail(error: unknown): void {
		this.#failed ??= toFsError(error, "kv.engine-failed");
		this.#parts.logger.error(`the metadata engine stops: ${this.#failed.message}`, { site: this.#failed.site });
		this.#changed.notifyAll();
	}

	// ── merging ──────────────────────────────────────────────────────────────────────────────────────────────────

	#mergeSoon(): void {
		if (this.#stopped || this.#merging || !pickMerge(this.#store.runs, this.#limits)) return;
		this.#merging = this.#mergeAll().finally(() => {
			this.#merging = undefined;
			this.#changed.notifyAll();
		});
	}

	async #mergeAll(): Promise<void> {
		while (!this.#stopped && !this.broken) {
			const picked = pickMerge(this.#store.runs, this.#limits);
			if (!picked) return;
			try {
				await this.#merge(picked);
			} catch (error) {
				// A merge that finds no space harms nobody; the next flush tries again.
				await this.#troubled("merging runs", error, false);
				return;
			}
		}
	}

	async #merge(picked: readonly Run[]): Promise<void> {
		const store = this.#store;
		const level = 1 + picked.reduce((most, run) => Math.max(most, run.info.level), 0);
		const entries = picked.reduce((sum, run) => sum + run.info.entries, 0);
		const includesOldest = picked[picked.length - 1] === store.runs[store.runs.length - 1];
		const isAbove =
			this.#parts.simulation?.planted("tombstone-dropped-early") === true && store.runs.every((run) => run.info.level < level);
		const { clock } = this.#parts;
		const pace = new MergePace(this.#limits, clock);
		const modules = {
			limits: this.#limits,
			read: (run: Run, first: number, count: number) => store.readThrough(run, first, count),
			nowMs: () => clock.monotonicMs(),
			rest: (workedMs: number) => pace.rest(workedMs, store.runs.length),
			isStopped: () => this.#stopped,
		};
		const merged = await store.writeRun(level, entries, (writer) => mergeRuns(picked, includesOldest || isAbove, writer, modules));
		await store.install({ remove: picked, add: merged, covered: undefined, onDone: () => this.#refreshView() });
		this.#merges++;
		this.#changed.notifyAll();
	}

	// ── disks that come and go ───────────────────────────────────────────────────────────────────────────────────

	#diskChanged(id: DiskId, state: DiskState): void {
		if (state === "failed" || state === "missing") this.#store.dropDisk(id);
		if (!this.#store.complete) this.#moveSoon();
	}

	/** Puts the metadata on the disks that should have it, then makes a checkpoint there, so that old log epochs are needed no more. */
	#moveSoon(): void {
		if (this.#stopped || this.broken) return;
		this.#moveWanted = true;
		this.#moving ??= this.#moveAll().finally(() => {
			this.#moving = undefined;
			this.#changed.notifyAll();
			if (this.#moveWanted) this.#moveSoon();
		});
	}

	async #moveAll(): Promise<void> {
		while (this.#moveWanted && !this.#stopped && !this.broken) {
			this.#moveWanted = false;
			const wanted = this.#store.wantedHomes();
			try {
				await this.#store.relocate();
				// There is space now, or the checkpoint will say so again: what an earlier try found must not keep it from being made.
				this.#noSpace = undefined;
				this.#moveMayHelp = false;
				this.#changed.notifyAll();
				if (await this.#checkpoint()) await this.#cut();
			} catch (error) {
				this.#moveWanted = true;
				// A disk that turned out to be full or not to be read is left out of the next attempt, which comes at once: whoever writes waits for it, and the metadata has a copy less meanwhile.
				const isAsBefore = (): boolean => sameDisks(wanted, this.#store.wantedHomes());
				this.#moveMayHelp = !isAsBefore() && isFsError(error, "ENOSPC");
				if (isAsBefore()) await this.#troubled("moving metadata to other disks", error, !this.#store.complete, isAsBefore);
				else
					this.#parts.logger.warn(
						`metadata could not move to ${wanted.map((id) => `d${id}`).join(", ")}: ${toFsError(error, "kv.move").message}; other disks are taken`,
					);
			}
		}
	}

	/** Again and again: homes change, and disks that are full now have room later. */
	#lookForRoom(): void {
		if (this.#stopped) return;
		this.#looking ??= this.#lookForRoomNow().finally(() => {
			this.#looking = undefined;
			this.#cancelLook = this.#stopped ? () => {} : this.#parts.clock.after(this.#limits.roomRetryMs, () => this.#lookForRoom());
		});
	}

	async #lookForRoomNow(): Promise<void> {
		await this.#store.lookForRoom();
		if (!this.#store.complete) this.#moveSoon();
		await this.#store.spare.take(this.#store.homes);
	}

	// ── upkeep ───────────────────────────────────────────────────────────────────────────────────────────────────

	/** Reads all runs and manifest slots on all their disks, and mends what is damaged from good copies. Counts pieces: blocks, filters, headers, slots. */
	verifyRuns(options: VerifyOptions = {}): Promise<VerifyReport> {
		this.#throwIfClosed();
		return this.#store.verify(options.repair ?? true, options.onProgress ?? (() => {}));
	}

	/** Reads what of the log no run holds yet, on all its mirrors. What is damaged is mended by putting it into a run: it is in memory still, and nobody needs it of the log then. */
	async verifyLog(options: VerifyOptions = {}): Promise<VerifyReport> {
		this.#throwIfClosed();
		const found = await this.#log.check();
		if (found.corrupt === 0 || options.repair === false) return { ...found, repaired: 0, unrecoverable: 0 };
		if (await this.#checkpoint()) await this.#cut();
		const left = (await this.#log.check()).corrupt;
		return { ...found, repaired: Math.max(0, found.corrupt - left), unrecoverable: 0 };
	}

	/** Files of metadata on the disks that nobody needs: what could not be removed when its time came. Disks that fail just now are left out. */
	async strays(): Promise<readonly StrayFile[]> {
		this.#throwIfClosed();
		return [...(await this.#store.strays()), ...(await this.#log.strays())];
	}

	/** False: it is needed now, or its disk is away. @throws FsError what the disk said. */
	removeStray(file: StrayFile): Promise<boolean> {
		this.#throwIfClosed();
		return file.name.startsWith("log/") ? this.#log.removeStray(file) : this.#store.removeStray(file);
	}

	/** Bytes of runs, manifest, log and spare space on a disk; the log counts as large as it may get. */
	metadataBytes(disk: DiskId): number {
		return this.runBytes(disk) + this.logBytes(disk) + this.spareBytes(disk);
	}

	/** What the next mount has for itself on a disk. */
	spareBytes(disk: DiskId): number {
		return this.#store.spare.bytesOn(disk);
	}

	/** Bytes of runs and manifest on a disk. */
	runBytes(disk: DiskId): number {
		return this.#store.bytesOn(disk);
	}

	/** What the log may take on a disk; 0 where it is not mirrored. */
	logBytes(disk: DiskId): number {
		const { config, logEpochs } = this.#parts.disks.roster;
		return logEpochs.some((epoch) => epoch.members.includes(disk)) ? config.logSegmentBytes * config.logSegmentCount : 0;
	}

	#throwIfClosed(): void {
		if (this.#closing !== undefined) throw new FsError("EBADF", "kv.closed", "the metadata engine is closed");
	}

	#throwIfUnusable(): void {
		this.#throwIfClosed();
		const { broken } = this;
		if (broken) throw toFsError(broken, "kv.broken");
	}

	close(): Promise<void> {
		this.#closing ??= this.#close();
		return this.#closing;
	}

	async #close(): Promise<void> {
		const { logger } = this.#parts;
		try {
			if (!this.broken && !(await this.#checkpoint())) {
				logger.warn("no space for a last checkpoint: the log keeps the newest changes, and the next mount replays them");
			}
		} finally {
			this.#stopped = true;
			this.#store.stop();
			this.#stopListening();
			this.#cancelLook();
			this.#changed.notifyAll();
			await Promise.allSettled([this.#flushing, this.#merging, this.#moving, this.#looking]);
			await Promise.allSettled([this.#store.close(), this.#log.close()]).then((results) => {
				for (const result of results) if (result.status === "rejected") throw result.reason;
			});
		}
	}
}
