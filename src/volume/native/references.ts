/**
 * Counts references anew, from the maps of all files alone, and compares with what chunks and segments say of themselves (E2, E3 of storage/extents.ts). On a volume in use, in bounded memory.
 *
 * A window of chunk records is compared with all maps. What changed while these were read cannot be judged: it is left out by what the engine says was changed since; when that is too
 * much to be told, the window is read again.
 */
import type { Chunk, Extent, RecordTransaction, Segment } from "../../records/interface.ts";
import { reservedChunk } from "../../records/interface.ts";
import { chunkRecord, extentBlockRecord, keyNumber, segmentRecord } from "../../records/kinds.ts";
import { chunksOf } from "../../storage/extents.ts";
import type { Core } from "./core.ts";
import { limits } from "./limits.ts";

export interface ReferenceCheck {
	/** Chunks and segments. */
	readonly checked: number;
	/** Those whose counts are not what the maps say, and extents that name chunks which do not exist. */
	readonly wrong: number;
}

export async function checkReferences(core: Core): Promise<ReferenceCheck> {
	const chunks = await checkChunks(core);
	const segments = await checkSegments(core);
	return { checked: chunks.checked + segments.checked, wrong: chunks.wrong + segments.wrong };
}

// ── chunks ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** Chunk records behind one number, up to another, and what the maps say of them. */
class Window {
	readonly after: number;
	/** The last number that belongs to it. */
	readonly last: number;
	readonly #ids: Float64Array;
	readonly #references: Float64Array;
	readonly #bytes: Float64Array;
	/** Named by extents, not found among the records. */
	readonly dangling = new Set<number>();

	constructor(after: number, last: number, chunks: readonly Pick<Chunk, "id" | "references" | "referencedBytes">[]) {
		this.after = after;
		this.last = last;
		this.#ids = Float64Array.from(chunks, (chunk) => chunk.id);
		this.#references = Float64Array.from(chunks, (chunk) => chunk.references);
		this.#bytes = Float64Array.from(chunks, (chunk) => chunk.referencedBytes);
	}

	get size(): number {
		return this.#ids.length;
	}

	take(extent: Extent): void {
		const { chunk, length } = extent;
		if (chunk === reservedChunk || chunk <= this.after || chunk > this.last) return;
		const index = this.#indexOf(chunk);
		if (index === undefined) {
			if (this.dangling.size < limits.recountSuspects) this.dangling.add(chunk);
			return;
		}
		(this.#references[index] as number)--;
		(this.#bytes[index] as number) -= length;
	}

	#indexOf(id: number): number | undefined {
		let low = 0;
		let high = this.#ids.length;
		while (low < high) {
			const middle = (low + high) >>> 1;
			if ((this.#ids[middle] as number) < id) low = middle + 1;
			else high = middle;
		}
		return this.#ids[low] === id ? low : undefined;
	}

	/** Numbers of chunks that do not add up. */
	suspects(): Set<number> {
		const found = new Set(this.dangling);
		for (let i = 0; i < this.#ids.length && found.size < limits.recountSuspects; i++)
			if (this.#references[i] !== 0 || this.#bytes[i] !== 0) found.add(this.#ids[i] as number);
		return found;
	}
}

async function checkChunks(core: Core): Promise<ReferenceCheck> {
	let checked = 0;
	let wrong = 0;
	for (let after = 0; after < Number.MAX_SAFE_INTEGER; ) {
		const from = after;
		const result = await checkWindow(core, from);
		checked += result.size;
		wrong += result.wrong.size;
		if (result.wrong.size > 0)
			core.logger.error("the counts of chunks are not what the maps of files say", {
				chunks: [...result.wrong].slice(0, 20).join(" "),
				count: result.wrong.size,
			});
		after = result.last;
	}
	return { checked, wrong };
}

async function checkWindow(
	core: Core,
	after: number,
): Promise<{ readonly size: number; readonly wrong: Set<number>; readonly last: number }> {
	for (let attempt = 1; ; attempt++) {
		const { position } = core.engine;
		const window = await readWindow(core, after);
		for await (const extent of allExtents(core)) window.take(extent);
		const wrong = window.suspects();
		const isCertain = wrong.size === 0 || (await leaveOutChanged(core, position, wrong));
		if (isCertain) return { size: window.size, wrong, last: window.last };
		if (attempt < limits.recountAttempts) continue;
		core.logger.warn("some chunks change too fast to be counted again", { chunks: wrong.size });
		return { size: window.size, wrong: new Set(), last: window.last };
	}
}

async function readWindow(core: Core, after: number): Promise<Window> {
	const found: Pick<Chunk, "id" | "references" | "referencedBytes">[] = [];
	for (let from = after; found.length < limits.recountChunks; ) {
		const start = from;
		const batch = await core.view((tx) =>
			tx.scan(chunkRecord, chunkRecord.prefix(), { limit: limits.scanBatch, after: chunkRecord.key(start) }).map(({ value }) => ({
				id: value.id,
				references: value.references,
				referencedBytes: value.referencedBytes,
			})),
		);
		found.push(...batch);
		if (batch.length < limits.scanBatch) return new Window(after, Number.MAX_SAFE_INTEGER, found);
		from = (batch[batch.length - 1] as { readonly id: number }).id;
		await core.platform.clock.yield();
	}
	return new Window(after, (found[found.length - 1] as { readonly id: number }).id, found);
}

async function* allExtents(core: Core): AsyncGenerator<Extent> {
	let after: string | undefined;
	for (;;) {
		const from = after;
		const batch = await core.view((tx) =>
			tx.scan(extentBlockRecord, extentBlockRecord.prefix(), {
				limit: limits.recountBlocks,
				...(from === undefined ? {} : { after: from }),
			}),
		);
		for (const { value } of batch) yield* value.extents;
		if (batch.length < limits.recountBlocks) return;
		after = batch[batch.length - 1]?.key;
		await core.platform.clock.yield();
	}
}

/** Takes out of `suspects` what was changed behind `position`: chunks, and what changed maps name. False: the engine cannot tell any more. */
async function leaveOutChanged(core: Core, position: number, suspects: Set<number>): Promise<boolean> {
	for (let from = position; from < core.engine.position; ) {
		const told = await core.engine.changesAfter(from, limits.scanBatch);
		if (told === "gap") return false;
		for (const { position: at, puts, deletes } of told.changes) {
			for (const key of deletes) if (key.startsWith(chunkRecord.tag)) suspects.delete(keyNumber(key));
			for (const [key, value] of puts) {
				if (key.startsWith(chunkRecord.tag)) suspects.delete(keyNumber(key));
				if (!key.startsWith(extentBlockRecord.tag)) continue;
				for (const { chunk } of extentBlockRecord.decode(value, key).extents) suspects.delete(chunk);
			}
			from = at;
		}
		if (told.changes.length === 0) return true;
	}
	return true;
}

// ── segments ─────────────────────────────────────────────────────────────────────────────────────────────────────

async function checkSegments(core: Core): Promise<ReferenceCheck> {
	let checked = 0;
	let wrong = 0;
	for await (const { id } of core.segments()) {
		const answer = await core.view((tx) => {
			const segment = tx.get(segmentRecord, id);
			return segment === undefined ? undefined : { said: segment.liveBytes, counted: liveBytesOf(tx, segment) };
		});
		if (answer === undefined) continue;
		checked++;
		if (answer.said === answer.counted) continue;
		wrong++;
		core.logger.error("the live bytes of a segment are not what its chunks say", { segment: id, ...answer });
	}
	return { checked, wrong };
}

function liveBytesOf(tx: RecordTransaction, segment: Segment): number {
	let sum = 0;
	for (let from: number | undefined = 0; from !== undefined; ) {
		const { chunks, next }: { chunks: Chunk[]; next: number | undefined } = chunksOf(tx, segment, from, limits.scanBatch);
		for (const { length, referencedBytes } of chunks) sum += Math.min(length, referencedBytes);
		from = next;
	}
	return sum;
}
