/** Where extent map blocks lie: finding them by aligned starts, and taking a file's map apart block by block. */
import { assert } from "../base/assert.ts";
import { alignDown } from "../base/bytes.ts";
import type { Extent, ExtentBlock, Ino, RecordTransaction } from "../records/interface.ts";
import { reservedChunk } from "../records/interface.ts";
import { extentBlockRecord } from "../records/kinds.ts";
import { maximumSpan, minimumSpan } from "../records/limits.ts";

/**
 * Blocks are aligned to their span, so a position has one possible start per span: at most 17 point reads, one where files are not
 * fragmented.
 */
export function findBlock(tx: RecordTransaction, ino: Ino, position: number): ExtentBlock | undefined {
	let tried = -1;
	for (let span = maximumSpan; span >= minimumSpan; span /= 2) {
		const start = alignDown(position, span);
		if (start === tried) continue;
		tried = start;
		const block = tx.get(extentBlockRecord, ino, start);
		if (block !== undefined && position < start + block.span) return block;
	}
	return undefined;
}

/** The first block that starts in [from, to): a jump over any number of absent windows. */
export function nextBlock(tx: RecordTransaction, ino: Ino, from: number, to: number): ExtentBlock | undefined {
	if (from >= to) return undefined;
	const after = from === 0 ? undefined : extentBlockRecord.key(ino, from - 1);
	const found = tx.scan(extentBlockRecord, extentBlockRecord.prefix(ino), { after, limit: 1 })[0]?.value;
	return found !== undefined && found.start < to ? found : undefined;
}

/** The largest aligned place around `position` in which no block lies. Call only where `findBlock` found none. */
export function freePlace(tx: RecordTransaction, ino: Ino, position: number): { readonly start: number; readonly span: number } {
	for (let span = maximumSpan; span > minimumSpan; span /= 2) {
		const start = alignDown(position, span);
		if (nextBlock(tx, ino, start, start + span) === undefined) return { start, span };
	}
	return { start: alignDown(position, minimumSpan), span: minimumSpan };
}

export function endOf(extent: Extent): number {
	return extent.offset + extent.length;
}

/** Index of the first extent that ends behind `position`. */
export function firstBehind(extents: readonly Extent[], position: number): number {
	let low = 0;
	let high = extents.length;
	while (low < high) {
		const middle = (low + high) >>> 1;
		if (endOf(extents[middle] as Extent) > position) high = middle;
		else low = middle + 1;
	}
	return low;
}

/** The part of an extent that lies in [from, to). */
export function cut(extent: Extent, from: number, to: number): Extent {
	const offset = Math.max(from, extent.offset);
	const end = Math.min(to, endOf(extent));
	assert(offset < end, "an extent is cut to something");
	const chunkOffset = extent.chunk === reservedChunk ? 0 : extent.chunkOffset + offset - extent.offset;
	return { offset, length: end - offset, chunk: extent.chunk, chunkOffset };
}

/** `next` goes on where `extent` stops, in the file and in the chunk. */
export function continues(extent: Extent, next: Extent): boolean {
	if (extent.chunk !== next.chunk || endOf(extent) !== next.offset) return false;
	return extent.chunk === reservedChunk || extent.chunkOffset + extent.length === next.chunkOffset;
}

export function join(extent: Extent, next: Extent): Extent {
	return { ...extent, length: extent.length + next.length };
}

/** A change of one block: the extents with indexes [from, to) give way to `put`. */
export interface Replacement {
	readonly from: number;
	readonly to: number;
	readonly put: readonly Extent[];
}

/** How [from, to) of a block comes to be `piece`, or a hole; a piece that continues a neighbour is joined with it. */
export function replacement(extents: readonly Extent[], from: number, to: number, piece: Extent | undefined): Replacement {
	let first = firstBehind(extents, from);
	let last = first;
	while (last < extents.length && (extents[last] as Extent).offset < to) last++;
	const put: Extent[] = [];
	const left = extents[first];
	const right = extents[last - 1];
	if (first < last && left !== undefined && left.offset < from) put.push(cut(left, left.offset, from));
	if (piece !== undefined) put.push(piece);
	if (first < last && right !== undefined && endOf(right) > to) put.push(cut(right, to, endOf(right)));
	const before = extents[first - 1];
	const head = put[0];
	if (before !== undefined && head !== undefined && continues(before, head)) {
		put.unshift(before);
		first--;
	}
	const behind = extents[last];
	const tail = put[put.length - 1];
	if (behind !== undefined && tail !== undefined && continues(tail, behind)) {
		put.push(behind);
		last++;
	}
	return { from: first, to: last, put: joinAll(put) };
}

function joinAll(extents: readonly Extent[]): Extent[] {
	const joined: Extent[] = [];
	for (const extent of extents) {
		const previous = joined[joined.length - 1];
		if (previous !== undefined && continues(previous, extent)) joined[joined.length - 1] = join(previous, extent);
		else joined.push(extent);
	}
	return joined;
}
