/**
 * What a segment beyond recovery still gives is moved into fresh segments, with all the redundancy that was asked for: a further loss would take it too. What it does not give stays where it is, is EIO, and comes back
 * should its disks come back.
 *
 * A chunk that can be read as a whole moves by its record. Of one that can be read in part, the ranges of the file that it was written for move that can be read, if that file accounts for all references to it.
 */
import { isFsError } from "../../base/errors.ts";
import type { Chunk, Segment } from "../../records/interface.ts";
import { segmentRecord } from "../../records/kinds.ts";
import { chunksOf, map as mapExtents } from "../../storage/extents.ts";
import { blockBytes } from "../../storage/limits.ts";
import { parseRedundancy } from "../../storage/redundancy.ts";
import type { Core } from "./core.ts";
import { limits } from "./limits.ts";
import { lengthOf, type Move, relocate } from "./relocator.ts";

/** Answers the bytes that were moved. @throws FsError ENOSPC, EIO (no disk can be written): what was moved before is safe. */
export async function salvage(core: Core, id: number): Promise<number> {
	await core.packed(id);
	const unpin = core.store.pin(id);
	try {
		const segment = await core.view((tx) => tx.get(segmentRecord, id));
		if (segment === undefined || core.isPacking(id)) return 0;
		let moved = 0;
		let group: Move[] = [];
		const flush = async (): Promise<void> => {
			if (group.length > 0) moved += await relocate(core, group, parseRedundancy(segment.target), "compaction");
			group = [];
		};
		for (let from: number | undefined = 0; from !== undefined; ) {
			const start: number = from;
			const step = await core.view((tx) => chunksOf(tx, segment, start, limits.scanBatch));
			for (const chunk of step.chunks) {
				for (const move of await movesOf(core, segment, chunk)) {
					const bytes = group.reduce((sum, one) => sum + lengthOf(one), 0);
					if (group.length >= limits.segmentChunks || bytes + lengthOf(move) > limits.segmentBytes) await flush();
					group.push(move);
				}
			}
			from = step.next;
		}
		await flush();
		return moved;
	} finally {
		unpin();
	}
}

async function movesOf(core: Core, from: Segment, chunk: Chunk): Promise<Move[]> {
	if (await gives(core, from, chunk.offset, chunk.length)) return [{ chunk, from, part: undefined }];
	const ranges = await core.view((tx) =>
		mapExtents(tx, chunk.owner, chunk.ownerOffset, chunk.length).filter((one) => one.chunk.id === chunk.id),
	);
	const bytes = ranges.reduce((sum, range) => sum + range.length, 0);
	if (ranges.length !== chunk.references || bytes !== chunk.referencedBytes) return [];
	const moves: Move[] = [];
	for (const { offset, length, payloadOffset } of ranges) {
		for (const run of await readableRuns(core, from, payloadOffset, length)) {
			const part = {
				ino: chunk.owner,
				chunk: chunk.id,
				offset: offset + run.offset - payloadOffset,
				length: run.length,
				chunkOffset: run.offset - chunk.offset,
			};
			moves.push({ chunk, from, part });
		}
	}
	return moves;
}

interface Run {
	readonly offset: number;
	readonly length: number;
}

/** The parts of a range of the payload that can be read, in whole blocks where it is cut. Found by halving: what is whole, and what is lost in one piece, is asked for in few reads. */
async function readableRuns(core: Core, segment: Segment, offset: number, length: number): Promise<Run[]> {
	if (await gives(core, segment, offset, length)) return [{ offset, length }];
	const blocks = Math.ceil((offset + length) / blockBytes) - Math.floor(offset / blockBytes);
	if (blocks <= 1) return [];
	const middle = (Math.floor(offset / blockBytes) + Math.ceil(blocks / 2)) * blockBytes;
	const first = await readableRuns(core, segment, offset, middle - offset);
	const second = await readableRuns(core, segment, middle, offset + length - middle);
	const [last, next] = [first.at(-1), second[0]];
	if (last === undefined || next === undefined || last.offset + last.length !== next.offset) return [...first, ...second];
	return [...first.slice(0, -1), { offset: last.offset, length: last.length + next.length }, ...second.slice(1)];
}

async function gives(core: Core, segment: Segment, offset: number, length: number): Promise<boolean> {
	try {
		await core.store.read(segment, offset, length);
		return true;
	} catch (error) {
		if (isFsError(error, "EIO")) return false;
		throw error;
	}
}
