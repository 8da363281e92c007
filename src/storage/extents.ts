/**
 * What files are made of: verbs over extent blocks, chunks and segments in a transaction (`ExtentVerbs`). Pure functions of the
 * transaction's reads.
 *
 * Invariants, true in every committed state
 *  E0 Reserved extents (chunk 0) name no record; effects.reservedDelta is what a call changed of their bytes.
 *  E1 Blocks of a file do not overlap; extents of one block are sorted, do not overlap, and lie inside [start, start + span).
 *  E2 chunk.references / referencedBytes = number / sum of lengths of the extents that name it; the record is gone at 0.
 *  E3 segment.liveBytes = Σ min(length, referencedBytes) of its chunks; the record is gone at 0 and is then in effects.freed.
 *  E4 A block has at most 1,024 extents (else it splits in halves) and is deleted when it has none.
 *  E5 The number of every chunk is in `chunks` of its segment.
 *
 * How a seal composes them. SegmentStore.write gives a segment with liveBytes 0, `addChunk` makes its chunks with references 0. Nobody
 * puts these: the first `write` of a chunk puts both records together with the first extent, so that no committed state has a chunk or a
 * segment that nothing names. What a write returns as `chunk` and `segment` goes, once committed, into the next transaction for what is
 * left: references or liveBytes above 0 there say that the record must exist. Should everything mapped so far be overwritten or truncated
 * in between, the record is gone, and `write` throws ESTALE instead of naming space that may be given away. (A caller that holds the
 * space of a segment until its seal has ended may go on with liveBytes 0: the segment then lives again.)
 *
 * A budget counts distinct keys; keys that earlier calls of the same transaction changed count again. Verbs also stop where the
 * transaction would grow beyond `extentLimits.transactionBytes`. A call that got nowhere wants a transaction of its own, with at least
 * `extentLimits.minimumBudget`.
 */
import { assert, failed } from "../base/assert.ts";
import { FsError } from "../base/errors.ts";
import type { Chunk, Extent, ExtentBlock, Ino, OperationContext, RecordTransaction, Segment } from "../records/interface.ts";
import { reservedChunk } from "../records/interface.ts";
import { chunkRecord, extentBlockRecord, segmentRecord } from "../records/kinds.ts";
import { maximumExtentsPerBlock, minimumSpan } from "../records/limits.ts";
import { inRanges } from "../records/number-ranges.ts";
import { cut, endOf, findBlock, firstBehind, freePlace, nextBlock, replacement } from "./extent-blocks.ts";
import type { Replacement } from "./extent-blocks.ts";
import { danglingExtent, ExtentChanges } from "./extent-changes.ts";
import type {
	ChunkPart,
	ChunkPlace,
	Coverage,
	ExtentPiece,
	ExtentsWritten,
	ExtentVerbs,
	MappedRange,
	StorageEffects,
	Truncated,
} from "./interface.ts";
import { extentLimits } from "./limits.ts";

// ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

/** The caller bounds `length` by what it wants to hold: at most one range per byte of data, none for holes. */
export function map(tx: RecordTransaction, ino: Ino, offset: number, length: number): MappedRange[] {
	return mapSome(tx, ino, offset, offset + length, Number.POSITIVE_INFINITY).ranges;
}

/** The first `most` mapped ranges; everything before `doneTo` is known then. */
function mapSome(tx: RecordTransaction, ino: Ino, from: number, to: number, most: number): { ranges: MappedRange[]; doneTo: number } {
	const ranges: MappedRange[] = [];
	for (const extent of walk(tx, ino, from, to)) {
		if (extent.chunk === reservedChunk) continue;
		if (ranges.length === most) return { ranges, doneTo: extent.offset };
		ranges.push(resolve(tx, ino, extent));
	}
	return { ranges, doneTo: to };
}

/** The extents in [from, to), cut to it, in order, reserved ones too. */
function* walk(tx: RecordTransaction, ino: Ino, from: number, to: number): Generator<Extent> {
	assertRange(from, to);
	if (from === to) return;
	for (let block = blockAt(tx, ino, from, to); block !== undefined; block = nextBlock(tx, ino, block.start + block.span, to)) {
		for (let i = firstBehind(block.extents, from); i < block.extents.length; i++) {
			const extent = block.extents[i] as Extent;
			if (extent.offset >= to) return;
			yield cut(extent, from, to);
		}
	}
}

/** The block around `from`, else the next one that starts before `to`. */
function blockAt(tx: RecordTransaction, ino: Ino, from: number, to: number): ExtentBlock | undefined {
	return findBlock(tx, ino, from) ?? nextBlock(tx, ino, from, to);
}

/** Where a look at [from, to) stops that takes in no more than `extentLimits.walkBlocks` blocks. */
function walkEnd(tx: RecordTransaction, ino: Ino, from: number, to: number): number {
	let block = from < to ? blockAt(tx, ino, from, to) : undefined;
	for (let count = 1; block !== undefined; count++) {
		const end = block.start + block.span;
		if (end >= to) return to;
		if (count === extentLimits.walkBlocks) return end;
		block = nextBlock(tx, ino, end, to);
	}
	return to;
}

export function coverage(tx: RecordTransaction, ino: Ino, offset: number, length: number): Coverage {
	const doneTo = walkEnd(tx, ino, offset, offset + length);
	let dataBytes = 0;
	let reservedBytes = 0;
	for (const extent of walk(tx, ino, offset, doneTo)) {
		if (extent.chunk === reservedChunk) reservedBytes += extent.length;
		else dataBytes += extent.length;
	}
	return { dataBytes, reservedBytes, doneTo };
}

export function seek(
	tx: RecordTransaction,
	ino: Ino,
	offset: number,
	end: number,
	what: "data" | "hole",
): { readonly found: boolean; readonly doneTo: number } {
	const doneTo = walkEnd(tx, ino, offset, end);
	let position = offset;
	for (const extent of walk(tx, ino, offset, doneTo)) {
		if (extent.chunk === reservedChunk) continue;
		if (what === "data") return { found: true, doneTo: extent.offset };
		if (extent.offset > position) return { found: true, doneTo: position };
		position = endOf(extent);
	}
	return what === "hole" && position < doneTo ? { found: true, doneTo: position } : { found: false, doneTo };
}

function resolve(tx: RecordTransaction, ino: Ino, extent: Extent): MappedRange {
	const chunk = tx.get(chunkRecord, extent.chunk);
	if (chunk === undefined) throw danglingExtent(ino, `chunk ${extent.chunk}`, { chunk: extent.chunk });
	const segment = tx.get(segmentRecord, chunk.segment);
	if (segment === undefined) {
		throw danglingExtent(ino, `segment ${chunk.segment} of chunk ${chunk.id}`, { chunk: chunk.id, segment: chunk.segment });
	}
	if (extent.chunkOffset + extent.length > chunk.length) {
		throw danglingExtent(ino, `bytes behind the end of chunk ${chunk.id}`, { chunk: chunk.id, offset: extent.offset });
	}
	return { offset: extent.offset, length: extent.length, chunk, segment, payloadOffset: chunk.offset + extent.chunkOffset };
}

// ── changing ─────────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * A new chunk of `segment`, for `write`, which puts it. `place.offset` is in the segment's payload.
 * @param place.id never used before, and in `segment.chunks`
 */
export function addChunk(tx: RecordTransaction, context: OperationContext, segment: Segment, place: ChunkPlace): Chunk {
	assert(tx.get(chunkRecord, place.id) === undefined, `chunk number ${place.id} is new`);
	assert(
		place.length > 0 && place.offset >= 0 && place.offset + place.length <= segment.payloadBytes,
		`chunk ${place.id} lies in its segment`,
	);
	assert(inRanges(segment.chunks, place.id), `segment ${segment.id} knows chunk number ${place.id} as its own`);
	return { ...place, segment: segment.id, references: 0, referencedBytes: 0, fingerprint: undefined, birthEpoch: context.epoch };
}

export function write(
	tx: RecordTransaction,
	context: OperationContext,
	effects: StorageEffects,
	ino: Ino,
	offset: number,
	length: number,
	chunk: Chunk,
	segment: Segment,
	chunkOffset: number,
	budget: number,
): { readonly doneTo: number; readonly storedDelta: number; readonly chunk: Chunk; readonly segment: Segment } {
	const written = writeAll(tx, context, effects, ino, [{ offset, length, chunk, chunkOffset }], segment, budget);
	return { doneTo: written.doneTo, storedDelta: written.storedDelta, chunk: written.chunk ?? chunk, segment: written.segment };
}

/** `write` of many pieces of one file that lie in one segment, in file order: a block is read and written once for all pieces in it. */
export function writeAll(
	tx: RecordTransaction,
	context: OperationContext,
	effects: StorageEffects,
	ino: Ino,
	pieces: readonly ExtentPiece[],
	segment: Segment,
	budget: number,
): ExtentsWritten {
	const editor = new Editor(tx, ino, new ExtentChanges(tx, ino, budget), context.epoch);
	let doneCount = 0;
	let doneTo = pieces[0]?.offset ?? 0;
	for (const piece of pieces) {
		assertPiece(piece, segment, doneTo);
		const end = piece.offset + piece.length;
		doneTo = editor.replace(piece.offset, end, { piece, segment });
		if (doneTo < end) break;
		doneCount++;
	}
	editor.finish(effects);
	const last = pieces[doneCount] ?? pieces[pieces.length - 1];
	return {
		doneCount,
		doneTo,
		storedDelta: editor.changes.storedDelta,
		segment: tx.get(segmentRecord, segment.id) ?? segment,
		chunk: last && (tx.get(chunkRecord, last.chunk.id) ?? last.chunk),
	};
}

export function truncate(tx: RecordTransaction, effects: StorageEffects, ino: Ino, size: number, budget: number, from = size): Truncated {
	assert(from >= size, "a truncation goes on behind its size");
	const released = release(tx, effects, ino, from, Number.MAX_SAFE_INTEGER, budget);
	return { done: released.doneTo === Number.MAX_SAFE_INTEGER, ...released };
}

export function punch(
	tx: RecordTransaction,
	_context: OperationContext,
	effects: StorageEffects,
	ino: Ino,
	offset: number,
	length: number,
	budget: number,
): { readonly doneTo: number; readonly storedDelta: number } {
	return release(tx, effects, ino, offset, offset + length, budget);
}

export function reserve(
	tx: RecordTransaction,
	context: OperationContext,
	effects: StorageEffects,
	ino: Ino,
	offset: number,
	length: number,
	everything: boolean,
	budget: number,
): { readonly doneTo: number; readonly storedDelta: number } {
	const end = offset + length;
	assertRange(offset, end);
	assert(end <= extentLimits.maximumFileBytes, `a file ends below ${extentLimits.maximumFileBytes}`);
	const editor = new Editor(tx, ino, new ExtentChanges(tx, ino, budget), context.epoch);
	const limit = walkEnd(tx, ino, offset, end);
	const gaps = everything ? [{ from: offset, to: limit }] : holes(tx, ino, offset, limit);
	let doneTo = limit;
	for (const gap of gaps) {
		const reached = editor.replace(gap.from, gap.to, "reserved");
		if (reached === gap.to) continue;
		doneTo = reached;
		break;
	}
	editor.finish(effects);
	return { doneTo, storedDelta: editor.changes.storedDelta };
}

function holes(tx: RecordTransaction, ino: Ino, from: number, to: number): { readonly from: number; readonly to: number }[] {
	const found: { from: number; to: number }[] = [];
	let position = from;
	for (const extent of walk(tx, ino, from, to)) {
		if (extent.offset > position) found.push({ from: position, to: extent.offset });
		position = endOf(extent);
	}
	if (position < to) found.push({ from: position, to });
	return found;
}

export function share(
	tx: RecordTransaction,
	context: OperationContext,
	effects: StorageEffects,
	source: { readonly ino: Ino; readonly offset: number },
	target: { readonly ino: Ino; readonly offset: number },
	length: number,
	budget: number,
): { readonly doneBytes: number; readonly storedDelta: number } {
	const shift = target.offset - source.offset;
	assert(source.ino !== target.ino || Math.abs(shift) >= length, "a file is not copied onto itself");
	assert(target.offset + length <= extentLimits.maximumFileBytes, `a file ends below ${extentLimits.maximumFileBytes}`);
	// Before the first change: the target may be the same file. Each range costs a key at least.
	const { ranges, doneTo } = mapSome(tx, source.ino, source.offset, source.offset + length, budget);
	const editor = new Editor(tx, target.ino, new ExtentChanges(tx, target.ino, budget), context.epoch);
	let position = target.offset;
	const fill = (to: number, content: Content): boolean => {
		position = editor.replace(position, to, content);
		return position === to;
	};
	let going = true;
	for (const { offset, length: bytes, chunk, segment, payloadOffset } of ranges) {
		const piece = { offset: offset + shift, length: bytes, chunk, chunkOffset: payloadOffset - chunk.offset };
		going = fill(piece.offset, undefined) && fill(piece.offset + bytes, { piece, segment });
		if (!going) break;
	}
	if (going) fill(doneTo + shift, undefined);
	editor.finish(effects);
	return { doneBytes: position - target.offset, storedDelta: editor.changes.storedDelta };
}

function release(
	tx: RecordTransaction,
	effects: StorageEffects,
	ino: Ino,
	from: number,
	to: number,
	budget: number,
): { readonly doneTo: number; readonly storedDelta: number } {
	assertRange(from, to);
	const editor = new Editor(tx, ino, new ExtentChanges(tx, ino, budget), undefined);
	const doneTo = editor.replace(from, to, undefined);
	editor.finish(effects);
	return { doneTo, storedDelta: editor.changes.storedDelta };
}

export function moveChunk(
	tx: RecordTransaction,
	effects: StorageEffects,
	id: number,
	from: number,
	to: Segment,
	payloadOffset: number,
): Segment | undefined {
	const chunk = tx.get(chunkRecord, id);
	if (chunk === undefined || chunk.segment !== from) return undefined;
	assert(from !== to.id && inRanges(to.chunks, id), `segment ${to.id} knows chunk number ${id} as its own`);
	assert(payloadOffset >= 0 && payloadOffset + chunk.length <= to.payloadBytes, `chunk ${id} lies inside segment ${to.id}`);
	const source = tx.get(segmentRecord, from);
	if (source === undefined) throw lostSegment(chunk);
	const live = Math.min(chunk.length, chunk.referencedBytes);
	const left = { ...source, liveBytes: source.liveBytes - live };
	if (left.liveBytes < 0) throw miscounted(source, left.liveBytes);
	const target = tx.get(segmentRecord, to.id) ?? { ...to, liveBytes: 0 };
	const next = { ...target, liveBytes: target.liveBytes + live };
	tx.put(chunkRecord, { ...chunk, segment: to.id, offset: payloadOffset }, id);
	tx.put(segmentRecord, next, to.id);
	if (left.liveBytes > 0) tx.put(segmentRecord, left, from);
	else {
		tx.delete(segmentRecord, from);
		effects.freed.push(left);
	}
	return next;
}

export function movePart(
	tx: RecordTransaction,
	context: OperationContext,
	effects: StorageEffects,
	part: ChunkPart,
	from: number,
	to: Segment,
	place: ChunkPlace,
	budget: number,
): { readonly doneTo: number; readonly segment: Segment } {
	const end = part.offset + part.length;
	let segment = tx.get(segmentRecord, to.id) ?? { ...to, liveBytes: 0 };
	const room = budget + tx.changeCount;
	for (const range of map(tx, part.ino, part.offset, part.length)) {
		const chunkOffset = range.payloadOffset - range.chunk.offset;
		if (range.chunk.id !== part.chunk || range.segment.id !== from || chunkOffset - range.offset !== part.chunkOffset - part.offset)
			continue;
		const chunk = tx.get(chunkRecord, place.id) ?? addChunk(tx, context, segment, place);
		const at = range.offset - place.ownerOffset;
		const left = room - tx.changeCount;
		if (left < extentLimits.minimumBudget && tx.changeCount > 0) return { doneTo: range.offset, segment };
		const written = write(tx, context, effects, part.ino, range.offset, range.length, chunk, segment, at, left);
		assert(written.storedDelta === 0, "bytes that move stay as many");
		segment = written.segment;
		if (written.doneTo < range.offset + range.length) return { doneTo: written.doneTo, segment };
	}
	return { doneTo: end, segment };
}

export function chunksOf(
	tx: RecordTransaction,
	segment: Segment,
	from: number,
	limit: number,
): { readonly chunks: Chunk[]; readonly next: number | undefined } {
	const chunks: Chunk[] = [];
	let left = limit;
	for (const { first, count } of segment.chunks) {
		const start = Math.max(first, from);
		const end = first + count;
		if (start >= end) continue;
		if (left <= 0) return { chunks, next: start };
		// `after` is exclusive: the key before the first.
		const after = start === 0 ? {} : { after: chunkRecord.key(start - 1) };
		const batch = tx.scan(chunkRecord, chunkRecord.prefix(), { limit: left, ...after });
		for (const { value } of batch) if (value.id < end && value.segment === segment.id) chunks.push(value);
		const last = batch[batch.length - 1]?.value.id;
		if (batch.length === left && last !== undefined && last < end - 1) return { chunks, next: last + 1 };
		left -= batch.length;
	}
	return { chunks, next: undefined };
}

function lostSegment(chunk: Chunk): FsError {
	const message = `chunk ${chunk.id} lies in segment ${chunk.segment}, which metadata does not have; nothing was changed, run verify`;
	return new FsError("CORRUPT", "storage.dangling-chunk", message, { chunk: chunk.id, segment: chunk.segment });
}

function miscounted(segment: Segment, liveBytes: number): FsError {
	const message = `segment ${segment.id} would have ${liveBytes} live bytes: its count was wrong before; nothing was changed, run verify`;
	return new FsError("CORRUPT", "storage.live-bytes", message, { segment: segment.id, liveBytes: segment.liveBytes });
}

export const extentVerbs: ExtentVerbs = {
	moveChunk,
	movePart,
	chunksOf,
	map,
	addChunk,
	write,
	writeAll,
	truncate,
	punch,
	reserve,
	share,
	coverage,
	seek,
};

// ── one block at a time ──────────────────────────────────────────────────────────────────────────────────────────

/** What a range is to become: a hole, reserved, a part of a chunk. */
type Content = undefined | "reserved" | { readonly piece: ExtentPiece; readonly segment: Segment };

interface EditedBlock {
	readonly start: number;
	readonly span: number;
	readonly extents: Extent[];
	readonly birthEpoch: number;
	/** There is a record at `start` in the transaction's view. */
	readonly stored: boolean;
	dirty: boolean;
}

class Editor {
	readonly changes: ExtentChanges;
	readonly #tx: RecordTransaction;
	readonly #ino: Ino;
	/** Of new blocks; undefined where none are made. */
	readonly #epoch: number | undefined;
	#block: EditedBlock | undefined;

	constructor(tx: RecordTransaction, ino: Ino, changes: ExtentChanges, epoch: number | undefined) {
		this.#tx = tx;
		this.#ino = ino;
		this.changes = changes;
		this.#epoch = epoch;
	}

	/** Fills [from, to), in file order, as far as the budget goes. Returns where it stopped. */
	replace(from: number, to: number, content: Content): number {
		let position = from;
		while (position < to) {
			const block = this.#seek(position, to, content !== undefined);
			if (block === undefined) return to;
			position = Math.max(position, block.start);
			const blockEnd = Math.min(to, block.start + block.span);
			if (!this.changes.reserveBlock(block.start, maximumExtentsPerBlock)) return position;
			if (typeof content === "object" && !this.changes.reserveWritten(content.piece.chunk, content.segment)) return position;
			const stop = this.#affordable(block, position, blockEnd);
			if (stop === position) return position;
			const edit = replacement(block.extents, position, stop, partOf(content, position, stop));
			if (block.extents.length - (edit.to - edit.from) + edit.put.length <= maximumExtentsPerBlock) {
				this.#apply(block, edit);
				position = stop;
				if (stop < blockEnd) return stop;
			} else if (!this.#split(block, position)) return position;
		}
		return position;
	}

	/** How far in [from, to) the chunks of the extents that would go can be paid for. */
	#affordable(block: EditedBlock, from: number, to: number): number {
		for (let i = firstBehind(block.extents, from); i < block.extents.length; i++) {
			const extent = block.extents[i] as Extent;
			if (extent.offset >= to) break;
			if (!this.changes.reserveChunk(extent.chunk)) return Math.max(from, extent.offset);
		}
		return to;
	}

	#apply(block: EditedBlock, edit: Replacement): void {
		for (let i = edit.from; i < edit.to; i++) this.changes.count(block.extents[i] as Extent, -1);
		for (const extent of edit.put) this.changes.count(extent, 1);
		block.extents.splice(edit.from, edit.to - edit.from, ...edit.put);
		block.dirty = true;
	}

	/** Halves a full block; the half around `position` is the current one afterwards. An extent across the middle becomes two. */
	#split(block: EditedBlock, position: number): boolean {
		assert(block.span > minimumSpan, "a block of the least span holds an extent for each of its bytes");
		const span = block.span / 2;
		const middle = block.start + span;
		const index = firstBehind(block.extents, middle);
		const across = block.extents[index];
		const lower = block.extents.slice(0, index);
		const upper = block.extents.slice(index);
		if (!this.changes.reserveBlock(middle, maximumExtentsPerBlock)) return false;
		if (across !== undefined && across.offset < middle) {
			if (!this.changes.reserveChunk(across.chunk)) return false;
			lower.push(cut(across, across.offset, middle));
			upper[0] = cut(across, middle, endOf(across));
			this.changes.count(across, -1);
			for (const half of [lower[lower.length - 1], upper[0]]) this.changes.count(half as Extent, 1);
		}
		const halves: EditedBlock[] = [
			{ start: block.start, span, extents: lower, birthEpoch: block.birthEpoch, stored: block.stored, dirty: true },
			{ start: middle, span, extents: upper, birthEpoch: block.birthEpoch, stored: false, dirty: true },
		];
		const [current, other] = position < middle ? halves : halves.reverse();
		this.#store(other as EditedBlock);
		this.#block = current;
		return true;
	}

	/** The block around `position`; for a hole the next one before `to`; for a write a new one. */
	#seek(position: number, to: number, make: boolean): EditedBlock | undefined {
		const current = this.#block;
		if (current !== undefined && position >= current.start && position < current.start + current.span) return current;
		this.#flush();
		const found = findBlock(this.#tx, this.#ino, position) ?? (make ? undefined : nextBlock(this.#tx, this.#ino, position, to));
		if (found !== undefined) this.#block = { ...found, extents: found.extents.slice(), stored: true, dirty: false };
		else if (make) this.#block = this.#made(position);
		return this.#block;
	}

	#made(position: number): EditedBlock {
		assert(this.#epoch !== undefined, "only writes make blocks");
		const place = freePlace(this.#tx, this.#ino, position);
		return { ...place, extents: [], birthEpoch: this.#epoch, stored: false, dirty: false };
	}

	#flush(): void {
		if (this.#block?.dirty) this.#store(this.#block);
		this.#block = undefined;
	}

	#store(block: EditedBlock): void {
		const { start, span, extents, birthEpoch } = block;
		const value: ExtentBlock = { start, span, extents, birthEpoch };
		if (extents.length > 0) this.#tx.put(extentBlockRecord, value, this.#ino, start);
		else if (block.stored) this.#tx.delete(extentBlockRecord, this.#ino, start);
	}

	finish(effects: StorageEffects): void {
		this.#flush();
		this.changes.settle(effects);
	}
}

function partOf(content: Content, from: number, to: number): Extent | undefined {
	if (content === undefined) return undefined;
	if (content === "reserved") return { offset: from, length: to - from, chunk: reservedChunk, chunkOffset: 0 };
	const { piece } = content;
	return { offset: from, length: to - from, chunk: piece.chunk.id, chunkOffset: piece.chunkOffset + from - piece.offset };
}

function assertRange(from: number, to: number): void {
	if (!Number.isSafeInteger(from) || !Number.isSafeInteger(to) || from < 0 || to < from) failed(`a range of a file: [${from}, ${to})`);
}

function assertPiece(piece: ExtentPiece, segment: Segment, doneTo: number): void {
	const { offset, length, chunk, chunkOffset } = piece;
	assertRange(offset, offset + length);
	assert(length > 0 && offset >= doneTo, "pieces are not empty, and in file order");
	assert(offset + length <= extentLimits.maximumFileBytes, `a file ends below ${extentLimits.maximumFileBytes}`);
	if (chunkOffset < 0 || chunkOffset + length > chunk.length) failed(`a piece lies outside of chunk ${chunk.id}`);
	if (chunk.segment !== segment.id) failed(`chunk ${chunk.id} is no part of segment ${segment.id}`);
	if (chunk.offset + chunk.length > segment.payloadBytes) failed(`chunk ${chunk.id} lies outside of its segment`);
	if (chunk.references === 0 && chunk.referencedBytes !== 0) failed(`new chunk ${chunk.id} is referenced`);
}
