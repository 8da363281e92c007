/**
 * What a reader sees at one moment: memtables above runs, newest first. Everything here is synchronous; what is not in memory is noted in `missing`.
 */
import type { Entry, KeyRange, Versioned } from "../interface.ts";
import type { MapCursor, OrderedMap } from "../ordered-map.ts";
import type { Block } from "./block.ts";
import { hashKey } from "./bloom.ts";
import type { BlockSource, Run } from "./run.ts";

/** An entry of a memtable; value null = tombstone. */
export interface MemEntry {
	readonly value: Uint8Array | null;
	readonly version: number;
}

export type MemTable = OrderedMap<MemEntry>;

export interface Wanted {
	readonly run: Run;
	readonly block: number;
	/** How many blocks from there on are worth reading together. */
	readonly count: number;
}

export interface View {
	/** Newest first. */
	readonly tables: readonly MemTable[];
	readonly runs: readonly Run[];
	readonly source: BlockSource;
	readonly readAhead: number;
}

/** null = absent, undefined = not in memory (then `missing` says what). */
export function lookup(view: View, key: string, missing: Wanted[]): Versioned | null | undefined {
	for (const table of view.tables) {
		const found = table.get(key);
		if (found !== undefined) return found.value === null ? null : (found as Versioned);
	}
	if (view.runs.length === 0) return null;
	const hash = hashKey(key);
	for (const run of view.runs) {
		const found = run.lookup(key, hash, view.source);
		if (found === "missing") {
			missing.push({ run, block: run.blockFor(key), count: 1 });
			return undefined;
		}
		if (found !== undefined) return found;
	}
	return null;
}

/** Undefined when something is not in memory. */
export function collectRange(view: View, range: KeyRange, missing: Wanted[]): Entry[] | undefined {
	if (range.limit <= 0) return [];
	const cursors: Cursor[] = view.tables.map((table) => new TableCursor(table, range.start));
	for (const run of view.runs) {
		if (run.overlaps(range.start, range.end)) cursors.push(new RunCursor(run, range, view, missing));
	}
	const found: Entry[] = [];
	if (missing.length > 0) return undefined;
	while (found.length < range.limit) {
		const first = smallest(cursors);
		if (first === undefined) break;
		const key = first.key as string;
		if (range.end !== undefined && key >= range.end) break;
		const entry = first.entry();
		if (entry !== null) found.push({ key, value: entry.value, version: entry.version });
		for (const cursor of cursors) if (cursor.key === key) cursor.next();
		// Looking further than the limit must not bring blocks into memory that nobody asked for.
		if (missing.length > 0 && found.length < range.limit) return undefined;
	}
	return found;
}

/** Of equal keys the newest: cursors stand newest first. */
function smallest(cursors: readonly Cursor[]): Cursor | undefined {
	let best: Cursor | undefined;
	for (const cursor of cursors) {
		if (cursor.key !== undefined && (best === undefined || cursor.key < (best.key as string))) best = cursor;
	}
	return best;
}

interface Cursor {
	/** Undefined at the end, or where the next block is missing. */
	readonly key: string | undefined;
	entry(): Versioned | null;
	next(): void;
}

class TableCursor implements Cursor {
	readonly #cursor: MapCursor<MemEntry>;
	key: string | undefined;

	constructor(table: MemTable, start: string) {
		this.#cursor = table.cursor(start);
		this.key = this.#cursor.key;
	}

	entry(): Versioned | null {
		const found = this.#cursor.value;
		return found.value === null ? null : (found as Versioned);
	}

	next(): void {
		this.#cursor.next();
		this.key = this.#cursor.key;
	}
}

class RunCursor implements Cursor {
	readonly #run: Run;
	readonly #view: View;
	readonly #missing: Wanted[];
	/** Blocks from there on begin at or after the end of the range. */
	readonly #blocks: number;
	#number: number;
	#block: Block | undefined;
	#at = 0;
	key: string | undefined;

	constructor(run: Run, range: KeyRange, view: View, missing: Wanted[]) {
		this.#run = run;
		this.#view = view;
		this.#missing = missing;
		this.#number = Math.max(0, run.blockFor(range.start));
		const { end } = range;
		this.#blocks = end === undefined ? run.blockCount : run.index.lowerBound(end);
		this.#load();
		if (this.#block !== undefined) {
			this.#at = this.#block.lowerBound(range.start);
			this.#settle();
		}
	}

	entry(): Versioned | null {
		return (this.#block as Block).versioned(this.#at);
	}

	next(): void {
		this.#at++;
		this.#settle();
	}

	#settle(): void {
		while (this.#block !== undefined && this.#at >= this.#block.count) {
			this.#number++;
			this.#at = 0;
			this.#load();
		}
		this.key = this.#block?.key(this.#at);
	}

	#load(): void {
		this.#block = undefined;
		const left = this.#blocks - this.#number;
		if (left <= 0) return;
		this.#block = this.#view.source(this.#run, this.#number);
		if (this.#block === undefined) this.#missing.push({ run: this.#run, block: this.#number, count: Math.min(left, this.#view.readAhead) });
	}
}
