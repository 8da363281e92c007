/**
 * What one call of an extent verb may change and what it changes: a budget in keys and bytes, and the counts of chunks and segments,
 * which are written once at its end.
 */
import { FsError } from "../base/errors.ts";
import type { Chunk, Extent, Ino, RecordTransaction, Segment } from "../records/interface.ts";
import { reservedChunk } from "../records/interface.ts";
import { chunkRecord, segmentRecord } from "../records/kinds.ts";
import type { StorageEffects } from "./interface.ts";
import { extentLimits } from "./limits.ts";

/** Estimates from above of what records take in a transaction, keys included. */
const chunkBytes = 160;
const segmentBytes = (segment: Segment): number => 180 + 25 * segment.fragments.length + 12 * segment.chunks.length;
const blockBytes = (extentCount: number): number => 80 + 20 * extentCount;

interface ChunkChange {
	/** As it is in metadata, or as it was given when it is new. */
	readonly base: Chunk;
	references: number;
	bytes: number;
}

export class ExtentChanges {
	readonly #tx: RecordTransaction;
	readonly #ino: Ino;
	readonly #chunks = new Map<number, ChunkChange>();
	readonly #segments = new Map<number, Segment>();
	readonly #blocks = new Set<number>();
	#keysLeft: number;
	#bytesLeft: number;
	/** Change of the bytes of the file that extents cover. */
	storedDelta = 0;
	#reservedDelta = 0;

	constructor(tx: RecordTransaction, ino: Ino, budget: number) {
		this.#tx = tx;
		this.#ino = ino;
		this.#keysLeft = budget;
		this.#bytesLeft = extentLimits.transactionBytes - tx.changeBytes;
	}

	/** May the block at `start` be changed? Counted once. */
	reserveBlock(start: number, extentCount: number): boolean {
		if (this.#blocks.has(start)) return true;
		if (!this.#take(1, blockBytes(extentCount))) return false;
		this.#blocks.add(start);
		return true;
	}

	/** May the counts of a chunk that extents name, and those of its segment, be changed? */
	reserveChunk(id: number): boolean {
		if (id === reservedChunk || this.#chunks.has(id)) return true;
		const base = this.#tx.get(chunkRecord, id);
		if (base === undefined) throw danglingExtent(this.#ino, `chunk ${id}`, { chunk: id });
		const segment = this.#segments.get(base.segment) ?? this.#tx.get(segmentRecord, base.segment);
		if (segment === undefined) {
			throw danglingExtent(this.#ino, `segment ${base.segment} of chunk ${id}`, { chunk: id, segment: base.segment });
		}
		return this.#reserve(base, segment);
	}

	/**
	 * The same for the chunk of a write, which may be new: `references` 0 says that no transaction with it was committed yet, `liveBytes` 0
	 * that none with the segment was. Otherwise the record must be there: absent, it died meanwhile, and its space may already belong to
	 * somebody else.
	 */
	reserveWritten(chunk: Chunk, segment: Segment): boolean {
		if (this.#chunks.has(chunk.id)) return true;
		const base = this.#tx.get(chunkRecord, chunk.id) ?? (chunk.references === 0 ? chunk : undefined);
		if (base === undefined) throw this.#died(`chunk ${chunk.id}`, { chunk: chunk.id });
		const known =
			this.#segments.get(segment.id) ?? this.#tx.get(segmentRecord, segment.id) ?? (segment.liveBytes === 0 ? segment : undefined);
		if (known === undefined) throw this.#died(`segment ${segment.id}`, { segment: segment.id });
		return this.#reserve(base, known);
	}

	#reserve(base: Chunk, segment: Segment): boolean {
		const fresh = !this.#segments.has(segment.id);
		if (!this.#take(fresh ? 2 : 1, chunkBytes + (fresh ? segmentBytes(segment) : 0))) return false;
		this.#chunks.set(base.id, { base, references: 0, bytes: 0 });
		this.#segments.set(segment.id, segment);
		return true;
	}

	#take(keys: number, bytes: number): boolean {
		if (keys > this.#keysLeft || bytes > this.#bytesLeft) return false;
		this.#keysLeft -= keys;
		this.#bytesLeft -= bytes;
		return true;
	}

	/** An extent was added (sign 1) or taken away (−1); its chunk is reserved. */
	count(extent: Extent, sign: 1 | -1): void {
		this.storedDelta += sign * extent.length;
		if (extent.chunk === reservedChunk) {
			this.#reservedDelta += sign * extent.length;
			return;
		}
		const change = this.#chunks.get(extent.chunk) as ChunkChange;
		change.references += sign;
		change.bytes += sign * extent.length;
	}

	/** Writes the counts. Afterwards `chunk` and `segment` give what is in the transaction. */
	settle(effects: StorageEffects): void {
		effects.reservedDelta += this.#reservedDelta;
		const live = new Map<number, number>();
		for (const { base, references, bytes } of this.#chunks.values()) {
			if (references === 0 && bytes === 0) continue;
			const next = { ...base, references: base.references + references, referencedBytes: base.referencedBytes + bytes };
			if (next.references < 0 || next.referencedBytes < 0 || (next.references === 0) !== (next.referencedBytes === 0)) {
				throw this.#miscounted(base, next);
			}
			if (next.references === 0) this.#tx.delete(chunkRecord, base.id);
			else this.#tx.put(chunkRecord, next, base.id);
			const delta = Math.min(next.length, next.referencedBytes) - Math.min(base.length, base.referencedBytes);
			live.set(base.segment, (live.get(base.segment) ?? 0) + delta);
		}
		for (const [id, delta] of live) if (delta !== 0) this.#settleSegment(this.#segments.get(id) as Segment, delta, effects);
	}

	#settleSegment(base: Segment, delta: number, effects: StorageEffects): void {
		const next = { ...base, liveBytes: base.liveBytes + delta };
		if (next.liveBytes < 0) {
			throw new FsError(
				"CORRUPT",
				"storage.live-bytes",
				`segment ${base.id} would have ${next.liveBytes} live bytes: its count was wrong before; nothing was changed, run verify`,
				{ segment: base.id, liveBytes: base.liveBytes },
			);
		}
		if (next.liveBytes > 0) {
			this.#tx.put(segmentRecord, next, base.id);
			effects.deadBytes += Math.max(0, -delta);
			return;
		}
		this.#tx.delete(segmentRecord, base.id);
		effects.freed.push(next);
	}

	#died(what: string, data: Readonly<Record<string, number>>): FsError {
		const message = `${what} died before all of it was mapped into inode ${this.#ino}; write those bytes into a new segment`;
		return new FsError("ESTALE", "storage.written-died", message, { ino: this.#ino, ...data });
	}

	#miscounted(base: Chunk, next: Chunk): FsError {
		const message =
			`chunk ${base.id} would have ${next.references} references and ${next.referencedBytes} referenced bytes: ` +
			"its counts were wrong before; nothing was changed, run verify";
		return new FsError("CORRUPT", "storage.chunk-counts", message, { chunk: base.id, ino: this.#ino });
	}
}

export function danglingExtent(ino: Ino, what: string, data: Readonly<Record<string, number>>): FsError {
	const message = `the extent map of inode ${ino} names ${what}, which metadata does not have; nothing was changed, run verify`;
	return new FsError("CORRUPT", "storage.dangling-extent", message, { ino, ...data });
}
