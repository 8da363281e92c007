/**
 * Packs pieces of many files into segments. Whoever seals adds pieces; those that come within one turn of the event loop share payloads, and so do those of one pass of seals in the background, which take
 * their share of many turns (`behind`).
 *
 * Invariants
 *  P1 A payload is not changed from when it is handed to the store until that settles; then its buffer is used again. (A disk that hung may still read it later: it
 *     writes to a place that no record will ever name, on a disk that is out.)
 *  P2 At most `segmentPayloads` payloads are there, open, waiting and being written together; who needs another one waits.
 *  P3 Each placed piece holds its segment (core.holdForPacking) until its user says how it ended; a segment that no user committed is abandoned.
 */
import { assert } from "../../base/assert.ts";
import { Deferred, Semaphore } from "../../base/async.ts";
import { isFsError } from "../../base/errors.ts";
import type { TurnShare } from "../../base/turn-share.ts";
import type { Ino, Segment } from "../../records/interface.ts";
import { rangesOf } from "../../records/number-ranges.ts";
import type { ChunkPlace, DirtyPiece, Redundancy } from "../../storage/interface.ts";
import { formatRedundancy } from "../../storage/redundancy.ts";
import type { Behind, Core } from "./core.ts";
import { limits } from "./limits.ts";

/** A piece of a file that now lies, durable, in a segment no record names yet: one chunk. */
export interface Placed {
	/** Offset in the file. */
	readonly offset: number;
	readonly length: number;
	readonly segment: Segment;
	/** As `addChunk` wants it. */
	readonly place: ChunkPlace;
	/** To be called exactly once. */
	settle(committed: boolean): void;
}

interface Item {
	readonly ino: Ino;
	readonly offset: number;
	readonly length: number;
	readonly payloadOffset: number;
	readonly placed: Deferred<Placed>;
}

interface Builder {
	readonly target: Redundancy;
	readonly payload: Uint8Array;
	length: number;
	readonly items: Item[];
	/** Somebody in the foreground waits for it. */
	isAwaited: boolean;
}

export class Packer {
	readonly #core: Core;
	readonly #writes = new Semaphore(limits.segmentWrites);
	readonly #makeRoom: (lengthBytes: number) => Promise<void>;
	/** By target: a segment is protected as a whole. */
	readonly #builders = new Map<string, Builder>();
	#closing = false;
	/** Whose turns open payloads wait for. */
	#behind: TurnShare | undefined;
	/** Payloads in use (P2), and who waits for one. */
	#inUse = 0;
	readonly #waiting: Deferred<void>[] = [];
	/** Buffers to be used again: fresh ones for each segment would grow faster than they are collected. */
	readonly #spare: Uint8Array[] = [];

	/** `makeRoom` looks for space that can be given back. */
	constructor(core: Core, makeRoom: (lengthBytes: number) => Promise<void>) {
		this.#core = core;
		this.#makeRoom = makeRoom;
	}

	/** Resolves when all pieces of the file are durable in segments of that target; on an error everything placed so far is let go. With `behind` they are copied in its turns. */
	async place(ino: Ino, target: Redundancy, pieces: readonly DirtyPiece[], behind?: Behind): Promise<Placed[]> {
		const waits: Promise<Placed>[] = [];
		for (const piece of pieces) {
			// Many chunks make a seal of many transactions.
			const chunkBytes = this.#core.platform.simulation?.buggify("volume.small-chunks") ? 2048 : limits.chunkBytes;
			const pieceBytes = piece.run?.lengthBytes ?? piece.bytes.length;
			for (let at = 0; at < pieceBytes; at += chunkBytes) {
				const lengthBytes = Math.min(chunkBytes, pieceBytes - at);
				const add = (): boolean => {
					if (!this.#hasPayload(target, lengthBytes)) return false;
					const placed = this.#add(ino, target, piece, at, lengthBytes, behind);
					// It may fail while this one waits for the next payload: it is looked at below.
					placed.catch(() => {});
					waits.push(placed);
					return true;
				};
				while (!(behind === undefined ? add() : await behind.gather.run(add, behind.hurry))) await this.#payloadFree();
			}
		}
		const results = await Promise.allSettled(waits);
		const failed = results.find((result) => result.status === "rejected");
		const placed = results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
		if (failed === undefined) return placed;
		for (const one of placed) one.settle(false);
		throw failed.reason;
	}

	#hasPayload(target: Redundancy, lengthBytes: number): boolean {
		const open = this.#builders.get(formatRedundancy(target));
		return (open !== undefined && open.length + lengthBytes <= limits.segmentBytes) || this.#inUse < limits.segmentPayloads;
	}

	/** Whoever is woken looks again, in the order in which they came. */
	#payloadFree(): Promise<void> {
		const waiter = new Deferred<void>();
		this.#waiting.push(waiter);
		return waiter.promise;
	}

	#add(ino: Ino, target: Redundancy, piece: DirtyPiece, from: number, lengthBytes: number, behind: Behind | undefined): Promise<Placed> {
		const builder = this.#builderFor(target, lengthBytes);
		const item: Item = { ino, offset: piece.offset + from, length: lengthBytes, payloadOffset: builder.length, placed: new Deferred() };
		const into = builder.payload.subarray(builder.length, builder.length + lengthBytes);
		if (piece.run !== undefined) piece.run.copy(from, into);
		else into.set(piece.bytes.subarray(from, from + lengthBytes));
		builder.length += lengthBytes;
		builder.items.push(item);
		const full = builder.length === limits.segmentBytes || builder.items.length === limits.segmentChunks;
		if (full || this.#core.platform.simulation?.buggify("volume.small-segments")) this.#close(builder);
		else {
			const awaited = (): void => {
				builder.isAwaited = true;
			};
			if (behind === undefined) awaited();
			else behind.hurry.whenOn(awaited);
			this.#closeSoon(behind?.gather);
		}
		return item.placed.promise;
	}

	#builderFor(target: Redundancy, lengthBytes: number): Builder {
		const name = formatRedundancy(target);
		const open = this.#builders.get(name);
		if (open !== undefined && open.length + lengthBytes <= limits.segmentBytes) return open;
		if (open !== undefined) this.#close(open);
		assert(this.#inUse < limits.segmentPayloads, "P2: a payload is free");
		this.#inUse++;
		const payload = this.#spare.pop() ?? new Uint8Array(new SharedArrayBuffer(limits.segmentBytes));
		const builder: Builder = { target, payload, length: 0, items: [], isAwaited: false };
		this.#builders.set(name, builder);
		return builder;
	}

	#closeSoon(behind: TurnShare | undefined): void {
		if (behind !== undefined) this.#behind = behind;
		if (this.#closing) return;
		this.#closing = true;
		void this.#core.platform.clock.yield().then(this.#closeOpen);
	}

	/** What waits for its turn behind the foreground may still share a payload, unless somebody in the foreground waits for that: half-empty segments cost more than a few turns. */
	readonly #closeOpen = (): void => {
		this.#closing = false;
		const more = (this.#behind?.waiting ?? 0) > 0;
		for (const builder of [...this.#builders.values()]) if (!more || builder.isAwaited) this.#close(builder);
		if (this.#builders.size > 0) this.#closeSoon(undefined);
	};

	#close(builder: Builder): void {
		this.#builders.delete(formatRedundancy(builder.target));
		void this.#writes.run(() => this.#write(builder));
	}

	async #write(builder: Builder): Promise<void> {
		try {
			const chunks = await this.#core.chunkNumbers(builder.items.length);
			const id = this.#core.nextSegmentId();
			const letGo = this.#core.holdForPacking(id);
			const written = await this.#store(id, builder).catch((error: unknown) => {
				letGo();
				throw error;
			});
			this.#handOut(builder, { ...written, chunks: rangesOf(chunks) }, chunks, letGo);
		} catch (error) {
			for (const item of builder.items) item.placed.reject(error);
		} finally {
			this.#spare.push(builder.payload);
			this.#inUse--;
			// All of them: small pieces share the next payload.
			for (const waiter of this.#waiting.splice(0)) waiter.resolve();
		}
	}

	/** Written bytes were acknowledged while there was space for them: what can be given back is given back before they are refused. */
	async #store(id: number, builder: Builder): Promise<Segment> {
		const payload = builder.payload.subarray(0, builder.length);
		const write = (): Promise<Segment> => this.#core.store.write(id, payload, builder.target, this.#core.options.epoch);
		try {
			return await write();
		} catch (error) {
			if (!isFsError(error, "ENOSPC")) throw error;
			await this.#makeRoom(builder.length);
			return await write();
		}
	}

	#handOut(builder: Builder, segment: Segment, chunks: readonly number[], letGo: () => void): void {
		let open = builder.items.length;
		let used = false;
		for (const [i, item] of builder.items.entries()) {
			let settled = false;
			const { ino: owner, offset: ownerOffset, length } = item;
			item.placed.resolve({
				offset: item.offset,
				length,
				segment,
				place: { id: chunks[i] as number, offset: item.payloadOffset, length, owner, ownerOffset },
				settle: (committed) => {
					assert(!settled, "a placed piece is settled once");
					settled = true;
					used ||= committed;
					if (--open > 0) return;
					if (used) this.#core.store.settle(segment.fragments);
					letGo();
					if (!used) this.#core.store.abandon(segment);
				},
			});
		}
	}
}
