/**
 * The dirty bytes of one layer of one inode: pieces in file order. A later piece covers earlier ones.
 *
 * Invariants
 *  M1 Pieces are not empty, do not overlap, and are sorted by offset; buckets hold 1 .. limit pieces each.
 *  M2 `added` is called once for each piece that comes in, `removed` once for each that goes; `bytes` is the sum of what is in.
 */
import type { RingEntry } from "./ring.ts";
import { dirtyLimits } from "./limits.ts";

export interface Piece {
	/** Range of the file. */
	offset: number;
	end: number;
	/** The byte at `offset` is source[at]. */
	readonly source: Uint8Array;
	at: number;
	/** What keeps `source` from being overwritten; undefined for bytes on the heap. */
	readonly entry: RingEntry | undefined;
	/** Of the write that it comes from; 0 = from a pending record. */
	readonly number: number;
	/** A pending record holds it. */
	logged: boolean;
}

export interface PieceHooks {
	added(piece: Piece): void;
	removed(piece: Piece): void;
	/** That many bytes more (or fewer) are in. */
	grown(bytes: number): void;
}

export class PieceMap {
	readonly #hooks: PieceHooks;
	/** Most have one piece: arrays that are made with it have no room to spare, those that grow begin with room for sixteen. */
	#buckets: Piece[][] = [];
	#bytes = 0;

	constructor(hooks: PieceHooks) {
		this.#hooks = hooks;
	}

	get bytes(): number {
		return this.#bytes;
	}

	#count(bytes: number): void {
		this.#bytes += bytes;
		this.#hooks.grown(bytes);
	}

	get empty(): boolean {
		return this.#buckets.length === 0;
	}

	/** End of the furthest byte; 0 when empty. */
	get end(): number {
		return this.#buckets[this.#buckets.length - 1]?.at(-1)?.end ?? 0;
	}

	put(piece: Piece): void {
		if (piece.offset < this.end) this.cut(piece.offset, piece.end);
		this.#insert(piece);
	}

	/** Takes [from, to) away. */
	cut(from: number, to: number): void {
		for (;;) {
			const { bucket, index } = this.#locate(from);
			const piece = this.#buckets[bucket]?.[index];
			if (piece === undefined || piece.offset >= to) return;
			if (piece.offset < from) {
				const right = piece.end > to ? shifted(piece, to) : undefined;
				this.#count(from - piece.end);
				piece.end = from;
				if (right !== undefined) this.#insert(right);
			} else if (piece.end > to) {
				this.#count(piece.offset - to);
				piece.at += to - piece.offset;
				piece.offset = to;
			} else this.#remove(bucket, index, to);
		}
	}

	/** Pieces that lie at least partly in [from, to), whole. */
	within(from: number, to: number): Piece[] {
		const found: Piece[] = [];
		let { bucket, index } = this.#locate(from);
		for (; bucket < this.#buckets.length; bucket++, index = 0) {
			const pieces = this.#buckets[bucket] as Piece[];
			for (; index < pieces.length; index++) {
				const piece = pieces[index] as Piece;
				if (piece.offset >= to) return found;
				found.push(piece);
			}
		}
		return found;
	}

	all(): Piece[] {
		return this.#buckets.flat();
	}

	clear(): void {
		const gone = this.#buckets.flat();
		this.#buckets.length = 0;
		this.#count(-this.#bytes);
		for (const piece of gone) this.#hooks.removed(piece);
	}

	/** Of the first piece that ends behind `position`. */
	#locate(position: number): { bucket: number; index: number } {
		const bucket = firstWhere(this.#buckets.length, (i) => ((this.#buckets[i] as Piece[]).at(-1) as Piece).end > position);
		const pieces = this.#buckets[bucket] ?? [];
		return { bucket, index: firstWhere(pieces.length, (i) => (pieces[i] as Piece).end > position) };
	}

	/** Where it goes nothing lies. */
	#insert(piece: Piece): void {
		const { bucket, index } = this.#locate(piece.offset);
		const pieces = this.#buckets[bucket];
		if (pieces === undefined) this.#append(piece);
		else {
			pieces.splice(index, 0, piece);
			if (pieces.length > dirtyLimits.bucketPieces) this.#buckets.splice(bucket + 1, 0, pieces.splice(pieces.length >>> 1));
		}
		this.#count(piece.end - piece.offset);
		this.#hooks.added(piece);
	}

	#append(piece: Piece): void {
		const last = this.#buckets[this.#buckets.length - 1];
		if (last === undefined) this.#buckets = [[piece]];
		else if (last.length < dirtyLimits.bucketPieces) last.push(piece);
		else this.#buckets.push([piece]);
	}

	/** The piece at `index` and those after it in its bucket that end at `to` or before. */
	#remove(bucket: number, index: number, to: number): void {
		const pieces = this.#buckets[bucket] as Piece[];
		let behind = index + 1;
		while (behind < pieces.length && (pieces[behind] as Piece).end <= to) behind++;
		const gone = pieces.splice(index, behind - index);
		if (pieces.length === 0) this.#buckets.splice(bucket, 1);
		for (const piece of gone) {
			this.#count(piece.offset - piece.end);
			this.#hooks.removed(piece);
		}
	}
}

/** The part of a piece from `offset` on. */
function shifted(piece: Piece, offset: number): Piece {
	return { ...piece, offset, at: piece.at + offset - piece.offset };
}

/** The least index in [0, count) for which `holds` (false … false true … true), else count. */
function firstWhere(count: number, holds: (index: number) => boolean): number {
	let low = 0;
	let high = count;
	while (low < high) {
		const middle = (low + high) >>> 1;
		if (holds(middle)) high = middle;
		else low = middle + 1;
	}
	return low;
}
