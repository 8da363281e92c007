/**
 * Packs pieces of many files into segments. Whoever seals adds pieces; those that come within one turn of the event loop share payloads.
 *
 * Invariants
 *  P1 A payload is not changed from when it is handed to the store until that settles; then its buffer is used again. (A disk that hung may still read it later: it
 *     writes to a place that no record will ever name, on a disk that is out.)
 *  P2 Each placed piece holds its segment (core.holdForPacking) until its user says how it ended; a segment that no user committed is abandoned.
 */
import { assert } from "../../base/assert.ts";
import { Deferred, Semaphore } from "../../base/async.ts";
import type { Segment } from "../../records/interface.ts";
import type { DirtyPiece } from "../../storage/interface.ts";
import type { Core } from "./core.ts";
import { limits } from "./limits.ts";

/** A piece of a file that now lies, durable, in a segment no record names yet. */
export interface Placed {
	/** Offset in the file. */
	readonly offset: number;
	readonly length: number;
	readonly segment: Segment;
	/** Offset in the segment's payload. */
	readonly payloadOffset: number;
	/** To be called exactly once. */
	settle(committed: boolean): void;
}

interface Item {
	readonly offset: number;
	readonly length: number;
	readonly payloadOffset: number;
	readonly placed: Deferred<Placed>;
}

interface Builder {
	readonly payload: Uint8Array;
	length: number;
	readonly items: Item[];
}

export class Packer {
	readonly #core: Core;
	readonly #writes = new Semaphore(limits.segmentWrites);
	#builder: Builder | undefined;
	#closing = false;
	/** Buffers to be used again: fresh ones for each segment would grow faster than they are collected. */
	readonly #spare: Uint8Array[] = [];

	constructor(core: Core) {
		this.#core = core;
	}

	/** Resolves when all pieces are durable in segments; on an error everything placed so far is let go. */
	async place(pieces: readonly DirtyPiece[]): Promise<Placed[]> {
		const waits: Promise<Placed>[] = [];
		for (const piece of pieces) {
			for (let at = 0; at < piece.bytes.length; at += limits.chunkBytes) {
				waits.push(this.#add(piece.offset + at, piece.bytes.subarray(at, at + limits.chunkBytes)));
			}
		}
		const results = await Promise.allSettled(waits);
		const failed = results.find((result) => result.status === "rejected");
		const placed = results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
		if (failed === undefined) return placed;
		for (const one of placed) one.settle(false);
		throw failed.reason;
	}

	#add(offset: number, bytes: Uint8Array): Promise<Placed> {
		if (this.#builder !== undefined && this.#builder.length + bytes.length > limits.segmentBytes) this.#close();
		this.#builder ??= { payload: this.#spare.pop() ?? new Uint8Array(new SharedArrayBuffer(limits.segmentBytes)), length: 0, items: [] };
		const builder = this.#builder;
		const item: Item = { offset, length: bytes.length, payloadOffset: builder.length, placed: new Deferred() };
		builder.payload.set(bytes, builder.length);
		builder.length += bytes.length;
		builder.items.push(item);
		if (builder.length === limits.segmentBytes) this.#close();
		else this.#closeSoon();
		return item.placed.promise;
	}

	#closeSoon(): void {
		if (this.#closing) return;
		this.#closing = true;
		void this.#core.platform.clock.yield().then(() => {
			this.#closing = false;
			this.#close();
		});
	}

	#close(): void {
		const builder = this.#builder;
		if (builder === undefined) return;
		this.#builder = undefined;
		void this.#writes.run(() => this.#write(builder));
	}

	async #write(builder: Builder): Promise<void> {
		try {
			await this.#core.ensureNumbers();
			const id = this.#core.nextSegmentId();
			const letGo = this.#core.holdForPacking(id);
			const segment = await this.#core.store
				.write(id, builder.payload.subarray(0, builder.length), this.#core.options.redundancy, this.#core.options.epoch)
				.catch((error: unknown) => {
					letGo();
					throw error;
				});
			this.#handOut(builder, segment, letGo);
		} catch (error) {
			for (const item of builder.items) item.placed.reject(error);
		} finally {
			if (this.#spare.length < limits.segmentWrites) this.#spare.push(builder.payload);
		}
	}

	#handOut(builder: Builder, segment: Segment, letGo: () => void): void {
		let open = builder.items.length;
		let used = false;
		for (const item of builder.items) {
			let settled = false;
			item.placed.resolve({
				offset: item.offset,
				length: item.length,
				segment,
				payloadOffset: item.payloadOffset,
				settle: (committed) => {
					assert(!settled, "a placed piece is settled once");
					settled = true;
					used ||= committed;
					if (--open > 0) return;
					letGo();
					if (!used) this.#core.store.abandon(segment);
				},
			});
		}
	}
}
