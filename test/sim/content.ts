/**
 * What a file may hold, as the model knows it: pieces of numbered writes, never bytes, so that sparse files of any size cost nothing. Bytes of a write follow from its number. With it goes the
 * time of its last change, which is known once it was set or seen.
 */
import type { Timestamp } from "../../src/base/time.ts";
import { Prng } from "../../src/platform/sim/prng.ts";

const tableBytes = 65_536;

/** Bytes of all writes of one simulation. */
export class Ink {
	readonly #table = new Prng(1, "ink").bytes(tableBytes);

	/** `raw`: bytes that were found rather than written. */
	fill(source: Source, from: number, to: number, out: Uint8Array, at: number): void {
		if (source.raw !== undefined) {
			out.set(source.raw.subarray(from - source.base, to - source.base), at);
			return;
		}
		// An odd step: no two of 65,536 successive writes have the same bytes at the same place.
		let phase = (Math.imul(source.id, 40_503) + (from - source.base)) & (tableBytes - 1);
		for (let done = 0; done < to - from; ) {
			const count = Math.min(to - from - done, tableBytes - phase);
			out.set(this.#table.subarray(phase, phase + count), at + done);
			done += count;
			phase = 0;
		}
	}

	bytes(source: Source, lengthBytes: number): Uint8Array {
		const bytes = new Uint8Array(lengthBytes);
		this.fill(source, source.base, source.base + lengthBytes, bytes, 0);
		return bytes;
	}

	/** [from, to) of the contents; zeros in holes and behind the end. */
	range(content: Content, from: number, to: number): Uint8Array {
		const bytes = new Uint8Array(Math.max(0, to - from));
		for (const piece of content.pieces) {
			const start = Math.max(from, piece.from);
			const end = Math.min(to, piece.to);
			if (start < end) this.fill(piece.source, start, end, bytes, start - from);
		}
		return bytes;
	}
}

export interface Source {
	readonly id: number;
	/** File offset of its first byte. */
	readonly base: number;
	readonly raw?: Uint8Array;
}

interface Piece {
	readonly from: number;
	readonly to: number;
	readonly source: Source;
}

/** Immutable. */
export class Content {
	static readonly empty = new Content(0, []);
	readonly size: number;
	readonly pieces: readonly Piece[];
	/** What the file says of its last change (`timeText`); undefined: what the clock said then. */
	readonly time: string | undefined;
	#key: string | undefined;

	constructor(size: number, pieces: readonly Piece[], time?: string) {
		this.size = size;
		this.pieces = pieces;
		this.time = time;
	}

	/** Equal for equal contents that came about in the same way. */
	get key(): string {
		this.#key ??= `${this.size}|${this.pieces.map((piece) => `${piece.from}-${piece.to}:${piece.source.id}@${piece.source.base}`).join()}|${this.time ?? ""}`;
		return this.#key;
	}

	withTime(time: string | undefined): Content {
		return time === this.time ? this : new Content(this.size, this.pieces, time);
	}

	/** Whether the file may say so of its last change. */
	mayBeOf(time: string): boolean {
		return this.time === undefined || this.time === time;
	}

	write(offset: number, lengthBytes: number, source: Source): Content {
		if (lengthBytes === 0) return this;
		const end = offset + lengthBytes;
		const pieces = [...this.#without(offset, end), { from: offset, to: end, source }].sort((a, b) => a.from - b.from);
		return new Content(Math.max(this.size, end), pieces);
	}

	truncate(size: number): Content {
		return new Content(size, this.#without(size, Number.POSITIVE_INFINITY));
	}

	/** Zeros in [offset, end) without a change of size. */
	punch(offset: number, end: number): Content {
		return new Content(this.size, this.#without(offset, end));
	}

	/** As punch, and as long as that at least. */
	zero(offset: number, end: number, grows: boolean): Content {
		return new Content(grows ? Math.max(this.size, end) : this.size, this.#without(offset, end));
	}

	/** Its [offset, offset + length) becomes what is at `from` in `source`, as far as that reaches. */
	copy(offset: number, source: Content, from: number, lengthBytes: number): Content {
		const length = Math.min(lengthBytes, source.size - from);
		if (length <= 0) return this;
		const shift = offset - from;
		const copied = source.pieces.flatMap((piece) => {
			const start = Math.max(piece.from, from);
			const end = Math.min(piece.to, from + length);
			if (start >= end) return [];
			return [{ from: start + shift, to: end + shift, source: { ...piece.source, base: piece.source.base + shift } }];
		});
		const pieces = [...this.#without(offset, offset + length), ...copied].sort((a, b) => a.from - b.from);
		return new Content(Math.max(this.size, offset + length), pieces);
	}

	#without(from: number, to: number): Piece[] {
		const left: Piece[] = [];
		for (const piece of this.pieces) {
			if (piece.to <= from || piece.from >= to) {
				left.push(piece);
				continue;
			}
			if (piece.from < from) left.push({ ...piece, to: from });
			if (piece.to > to) left.push({ ...piece, from: to });
		}
		return left;
	}
}

export function timeText({ seconds, nanoseconds }: Timestamp): string {
	return `${seconds}.${nanoseconds}`;
}

/** Where the bytes differ from all of `allowed`, byte by byte; undefined: nowhere. `bytes` are those at [from, …) of the file. */
export function strangeByte(ink: Ink, allowed: readonly Content[], from: number, bytes: Uint8Array): number | undefined {
	const candidates: Uint8Array[] = [];
	for (const content of allowed) {
		const candidate = ink.range(content, from, from + bytes.length);
		if (Buffer.compare(candidate, bytes) === 0) return undefined;
		candidates.push(candidate);
	}
	for (let at = 0; at < bytes.length; at++) if (!candidates.some((candidate) => candidate[at] === bytes[at])) return from + at;
	return undefined;
}
