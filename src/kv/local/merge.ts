/**
 * Which runs to merge, and the merge itself: a k-way merge that reads and writes in chunks and yields to the foreground between slices.
 *
 * Invariants
 *  G1 Of equal keys only the newest run's entry is kept (inputs are ordered newest first).
 *  G2 Tombstones are dropped only when the oldest run takes part.
 */
import { FsError } from "../../base/errors.ts";
import type { Clock } from "../../platform/interface.ts";
import type { LocalLimits } from "../limits.ts";
import type { Block } from "./block.ts";
import type { Run, RunWriter } from "./run.ts";

/**
 * Neighbouring runs, newest first, that are worth merging now; undefined when all is well. Runs join while they are not much larger than what they are merged
 * with, so each entry is rewritten about log(size) times. When there are still too many runs, the cheapest neighbours that bring them down are taken.
 */
export function pickMerge(runs: readonly Run[], limits: LocalLimits): readonly Run[] | undefined {
	if (runs.length < Math.min(4, limits.runsToLookInto)) return undefined;
	const picked: Run[] = [];
	let bytes = 0;
	for (const run of runs) {
		if (picked.length >= limits.mergeWidth || (picked.length > 0 && run.info.bytes > bytes * limits.mergeRatio)) break;
		picked.push(run);
		bytes += run.info.bytes;
	}
	if (picked.length >= Math.min(4, limits.runsToLookInto)) return picked;
	return runs.length > limits.runsToLookInto ? cheapest(runs, runs.length - limits.runsToLookInto + 1, limits.mergeWidth) : undefined;
}

function cheapest(runs: readonly Run[], count: number, width: number): readonly Run[] {
	const size = Math.min(Math.max(2, count), width);
	let best = runs.slice(0, size);
	for (let at = 1; at + size <= runs.length; at++) {
		const candidate = runs.slice(at, at + size);
		if (totalBytes(candidate) < totalBytes(best)) best = candidate;
	}
	return best;
}

export function totalBytes(runs: readonly Run[]): number {
	return runs.reduce((sum, run) => sum + run.info.bytes, 0);
}

export interface MergeModules {
	readonly limits: LocalLimits;
	read(run: Run, first: number, count: number): Promise<Block[]>;
	nowMs(): number;
	/** After a slice that took so long: lets other work run before going on. */
	rest(workedMs: number): Promise<void>;
	isStopped(): boolean;
}

/**
 * A merge has time, and requests have not: it rests so many times as long as it has worked. Not where runs pile up: each of them costs every look, and beyond `maximumRuns` a flush waits.
 */
export class MergePace {
	readonly #limits: LocalLimits;
	readonly #clock: Pick<Clock, "sleep" | "yield">;
	#owedMs = 0;

	constructor(limits: LocalLimits, clock: Pick<Clock, "sleep" | "yield">) {
		this.#limits = limits;
		this.#clock = clock;
	}

	/** @param runs how many there are. */
	rest(workedMs: number, runs: number): Promise<void> {
		const { mergeRests, mergeRestMs, runsInHurry } = this.#limits;
		this.#owedMs += workedMs * mergeRests;
		if (runs >= runsInHurry) this.#owedMs = 0;
		// A timer takes a millisecond at least.
		if (this.#owedMs < 1) return this.#clock.yield();
		const restMs = Math.min(this.#owedMs, mergeRestMs);
		this.#owedMs = 0;
		return this.#clock.sleep(restMs);
	}
}

/** @throws FsError ECANCELED when stopped; what reading and writing throw. */
export async function mergeRuns(inputs: readonly Run[], dropTombstones: boolean, writer: RunWriter, modules: MergeModules): Promise<void> {
	let cursors: MergeCursor[] = inputs.map((run) => new MergeCursor(run, modules));
	for (const cursor of cursors) await cursor.fill();
	for (;;) {
		if (modules.isStopped()) throw new FsError("ECANCELED", "kv.merge-stopped", "a merge of runs was stopped; nothing is lost");
		cursors = cursors.filter((cursor) => !cursor.ended);
		if (cursors.length === 0) return;
		const begunMs = modules.nowMs();
		mergeSlice(cursors, dropTombstones, writer, modules.limits.sliceEntries);
		const workedMs = modules.nowMs() - begunMs;
		for (const cursor of cursors) if (cursor.hungry) await cursor.fill();
		if (writer.pendingBytes >= modules.limits.chunkBytes) await writer.drain();
		await modules.rest(workedMs);
	}
}

/** Stops early when an input must be filled. */
function mergeSlice(cursors: readonly MergeCursor[], dropTombstones: boolean, writer: RunWriter, entries: number): void {
	for (let left = entries; left > 0; left--) {
		let best = cursors[0] as MergeCursor;
		for (let k = 1; k < cursors.length; k++) {
			const cursor = cursors[k] as MergeCursor;
			if (cursor.compare(best) < 0) best = cursor;
		}
		// The older entries of the key go first: `best` must still stand on it for the comparison.
		let isHungry = false;
		for (const cursor of cursors) {
			if (cursor !== best && cursor.compare(best) === 0) {
				cursor.next();
				isHungry ||= cursor.hungry || cursor.ended;
			}
		}
		if (!(dropTombstones && best.isTombstone)) best.copyTo(writer);
		best.next();
		if (isHungry || best.hungry || best.ended) return;
	}
}

class MergeCursor {
	readonly #run: Run;
	readonly #modules: MergeModules;
	#blocks: Block[] = [];
	#next = 0;
	#at = 0;

	constructor(run: Run, modules: MergeModules) {
		this.#run = run;
		this.#modules = modules;
	}

	/** Nothing in memory, but more on disk. */
	get hungry(): boolean {
		return this.#blocks.length === 0 && this.#next < this.#run.blockCount;
	}

	get ended(): boolean {
		return this.#blocks.length === 0 && this.#next >= this.#run.blockCount;
	}

	get isTombstone(): boolean {
		return (this.#blocks[0] as Block).isTombstone(this.#at);
	}

	async fill(): Promise<void> {
		const count = Math.max(1, Math.floor(this.#modules.limits.chunkBytes / 4 / this.#modules.limits.blockBytes));
		const blocks = await this.#modules.read(this.#run, this.#next, count);
		this.#next += blocks.length;
		this.#blocks.push(...blocks);
	}

	compare(other: MergeCursor): number {
		return (this.#blocks[0] as Block).compareEntries(this.#at, other.#blocks[0] as Block, other.#at);
	}

	copyTo(writer: RunWriter): void {
		writer.addRaw(this.#blocks[0] as Block, this.#at);
	}

	next(): void {
		if (++this.#at < (this.#blocks[0] as Block).count) return;
		this.#blocks.shift();
		this.#at = 0;
	}
}
