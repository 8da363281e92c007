/**
 * Moves contents into new segments, of files that go on being read, written and removed: for compaction and for changes of protection.
 *
 * Invariants
 *  R1 The copy is durable before the transaction that refers to it; what is moved is what that transaction finds: chunks and extents that died or changed meanwhile are
 *     left out, and chunks that somebody else has moved.
 *  R2 Source segments are pinned by the caller from before their records were read until the bytes are copied.
 *  R3 A segment that somebody packs into is no source: whoever packs holds values of its chunks.
 *  R4 One new segment at a time: as much space is taken ahead of what it gives back.
 */
import { assert } from "../../base/assert.ts";
import { Semaphore } from "../../base/async.ts";
import type { Chunk, OperationContext, RecordTransaction, Segment } from "../../records/interface.ts";
import { maximumChunkRanges } from "../../records/limits.ts";
import { segmentRecord } from "../../records/kinds.ts";
import { coarser, rangesOf } from "../../records/number-ranges.ts";
import { moveChunk, movePart } from "../../storage/extents.ts";
import type { ChunkPart, ChunkPlace, Redundancy, StorageEffects, WritePurpose } from "../../storage/interface.ts";
import type { Core } from "./core.ts";
import { limits } from "./limits.ts";

/** All of a chunk, or the part of it that a range of a file refers to. */
export interface Move {
	readonly chunk: Chunk;
	readonly from: Segment;
	readonly part: ChunkPart | undefined;
}

interface Placed {
	readonly move: Move;
	readonly place: ChunkPlace;
}

/** The next move, and how far in its file it is done. */
interface Progress {
	readonly index: number;
	readonly doneTo: number | undefined;
}

export function lengthOf(move: Move): number {
	return move.part?.length ?? move.chunk.length;
}

/**
 * Writes the moves into one new segment and lets everything refer to it. They fit one segment: limits.segmentBytes, limits.segmentChunks. Answers the bytes copied.
 * @throws FsError ENOSPC, EIO (a source is lost, or no disk can be written): nothing has changed.
 */
export async function relocate(core: Core, moves: readonly Move[], target: Redundancy, purpose: WritePurpose): Promise<number> {
	const bytes = moves.reduce((sum, move) => sum + lengthOf(move), 0);
	assert(bytes > 0 && bytes <= limits.segmentBytes && moves.length <= limits.segmentChunks, "moves that fit a segment");
	const payload = await readAll(core, moves, bytes);
	const fresh = await core.chunkNumbers(moves.filter((move) => move.part !== undefined).length);
	const placed = placesOf(moves, fresh);
	const chunks = coarser(rangesOf(placed.map(({ place }) => place.id).sort((a, b) => a - b)), maximumChunkRanges);
	await core.ensureNumbers();
	const id = core.nextSegmentId();
	const letGo = core.holdForPacking(id);
	let segment: Segment | undefined;
	let isUsed = false;
	try {
		segment = { ...(await core.store.write(id, payload, target, core.options.epoch, purpose)), chunks };
		await commitAll(core, placed, segment, () => {
			isUsed = true;
		});
		return bytes;
	} finally {
		if (segment !== undefined && isUsed) core.store.settle(segment.fragments);
		if (segment !== undefined && !isUsed) await abandonUnused(core, segment);
		letGo();
	}
}

/** A transaction whose outcome nobody told may have used it all the same. */
async function abandonUnused(core: Core, segment: Segment): Promise<void> {
	const record = await core.view((tx) => tx.get(segmentRecord, segment.id)).catch(() => segment);
	if (record === undefined) core.store.abandon(segment);
}

async function readAll(core: Core, moves: readonly Move[], bytes: number): Promise<Uint8Array> {
	const payload = new Uint8Array(new SharedArrayBuffer(bytes));
	const gate = new Semaphore(limits.readRangesAtOnce);
	let at = 0;
	const reads = moves.map((move) => {
		const to = at;
		at += lengthOf(move);
		const { chunk, from, part } = move;
		return gate.run(async () => {
			payload.set(await core.store.read(from, chunk.offset + (part?.chunkOffset ?? 0), lengthOf(move)), to);
		});
	});
	for (const result of await Promise.allSettled(reads)) if (result.status === "rejected") throw result.reason;
	return payload;
}

function placesOf(moves: readonly Move[], fresh: readonly number[]): Placed[] {
	let offset = 0;
	let used = 0;
	return moves.map((move) => {
		const { chunk, part } = move;
		const length = lengthOf(move);
		const whole = { id: chunk.id, owner: chunk.owner, ownerOffset: chunk.ownerOffset };
		const own = part === undefined ? whole : { id: fresh[used++] as number, owner: part.ino, ownerOffset: part.offset };
		const place: ChunkPlace = { ...own, offset, length };
		offset += length;
		return { move, place };
	});
}

/** `onUsed`: something refers to the new segment, or did. */
async function commitAll(core: Core, placed: readonly Placed[], segment: Segment, onUsed: () => void): Promise<void> {
	for (let progress: Progress = { index: 0, doneTo: undefined }; progress.index < placed.length; ) {
		const from: Progress = progress;
		const { result } = await core.transact((tx, context, effects) => step(core, tx, context, effects, placed, segment, from));
		if (result.isUsed) onUsed();
		assert(result.progress.index > from.index || result.progress.doneTo !== from.doneTo, "a step of a move makes progress");
		progress = result.progress;
	}
}

function step(
	core: Core,
	tx: RecordTransaction,
	context: OperationContext,
	effects: StorageEffects,
	placed: readonly Placed[],
	segment: Segment,
	from: Progress,
): { progress: Progress; isUsed: boolean } {
	let { index, doneTo } = from;
	const room = (): number => limits.transactionChanges - 2 - tx.changeCount;
	for (; index < placed.length && room() >= 4; index++, doneTo = undefined) {
		const { move, place } = placed[index] as Placed;
		assert(!core.isPacking(move.from.id), "R3");
		if (move.part === undefined) {
			moveChunk(tx, effects, place.id, move.from.id, segment, place.offset);
			continue;
		}
		const rest = doneTo === undefined ? move.part : cutAt(move.part, doneTo);
		const moved = movePart(tx, context, effects, rest, move.from.id, segment, place, room());
		if (moved.doneTo < rest.offset + rest.length) return { progress: { index, doneTo: moved.doneTo }, isUsed: tx.changeCount > 0 };
	}
	return { progress: { index, doneTo }, isUsed: tx.changeCount > 0 };
}

function cutAt(part: ChunkPart, offset: number): ChunkPart {
	const done = offset - part.offset;
	return { ...part, offset, length: part.length - done, chunkOffset: part.chunkOffset + done };
}
