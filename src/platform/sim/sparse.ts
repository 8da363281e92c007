/**
 * Sparse file contents in pages, shared copy-on-write between the page cache, the durable image and snapshots.
 *
 * Invariants
 * 1. A page marked `shared` is never written: a writer replaces it by its own copy.
 * 2. Bytes at or beyond `size` are zero in every page, so that growing shows zeros.
 */
import { pageBytes } from "./limits.ts";

interface Page {
	readonly bytes: Uint8Array;
	shared: boolean;
}

const zeros = new Uint8Array(pageBytes);
const zeroPage: Page = { bytes: zeros, shared: true };

export function isZero(bytes: Uint8Array): boolean {
	for (let at = 0; at < bytes.length; at += pageBytes) {
		const piece = bytes.subarray(at, at + pageBytes);
		if (Buffer.compare(piece, zeros.subarray(0, piece.length)) !== 0) return false;
	}
	return true;
}

export class SparseBytes {
	#pages = new Map<number, Page>();
	size = 0;

	get allocatedPages(): number {
		return this.#pages.size;
	}

	pageNumbers(): number[] {
		return [...this.#pages.keys()].sort((a, b) => a - b);
	}

	hasPage(number: number): boolean {
		return this.#pages.has(number);
	}

	clone(): SparseBytes {
		const copy = new SparseBytes();
		for (const page of this.#pages.values()) page.shared = true;
		copy.#pages = new Map(this.#pages);
		copy.size = this.size;
		return copy;
	}

	/** Takes over one page of another image, or its absence. */
	takePage(number: number, from: SparseBytes): void {
		const page = from.#pages.get(number);
		if (page === undefined) this.#pages.delete(number);
		else {
			page.shared = true;
			this.#pages.set(number, page);
		}
	}

	/** `into`: memory to use again, at least `lengthBytes` of it. */
	read(offset: number, lengthBytes: number, into?: Uint8Array): Uint8Array {
		const length = Math.max(0, Math.min(lengthBytes, this.size - offset));
		const result = into === undefined ? new Uint8Array(length) : into.subarray(0, length).fill(0);
		for (let at = 0; at < length; ) {
			const inPage = (offset + at) % pageBytes;
			const count = Math.min(pageBytes - inPage, length - at);
			const page = this.#pages.get(Math.floor((offset + at) / pageBytes));
			if (page !== undefined && page !== zeroPage) result.set(page.bytes.subarray(inPage, inPage + count), at);
			at += count;
		}
		return result;
	}

	/** `bytes` undefined = zeros. Grows the file. */
	write(offset: number, lengthBytes: number, bytes: Uint8Array | undefined): void {
		if (lengthBytes === 0) return;
		this.size = Math.max(this.size, offset + lengthBytes);
		for (let at = 0; at < lengthBytes; ) {
			const number = Math.floor((offset + at) / pageBytes);
			const inPage = (offset + at) % pageBytes;
			const count = Math.min(pageBytes - inPage, lengthBytes - at);
			const piece = bytes?.subarray(at, at + count);
			if (count === pageBytes && (piece === undefined || isZero(piece))) this.#pages.set(number, zeroPage);
			else if (piece === undefined) this.#own(number).fill(0, inPage, inPage + count);
			else this.#own(number).set(piece, inPage);
			at += count;
		}
	}

	/** Zeros without growing; whole pages are given back. */
	punch(offset: number, lengthBytes: number): void {
		const end = Math.min(offset + lengthBytes, Math.ceil(this.size / pageBytes) * pageBytes);
		for (const number of this.#numbersIn(offset, end)) {
			const from = Math.max(offset - number * pageBytes, 0);
			const to = Math.min(end - number * pageBytes, pageBytes);
			if (from === 0 && to === pageBytes) this.#pages.delete(number);
			else this.#own(number).fill(0, from, to);
		}
	}

	truncate(sizeBytes: number): void {
		if (sizeBytes < this.size) this.punch(sizeBytes, this.size - sizeBytes + pageBytes);
		this.size = sizeBytes;
	}

	/** Changes bytes in place, below everything that tracks writes. */
	damage(offset: number, change: (old: number, at: number) => number, lengthBytes: number): void {
		const end = Math.min(offset + lengthBytes, this.size);
		for (let at = offset; at < end; at++) {
			const page = this.#own(Math.floor(at / pageBytes));
			page[at % pageBytes] = change(page[at % pageBytes] as number, at - offset);
		}
	}

	#numbersIn(from: number, to: number): number[] {
		if (to <= from) return [];
		const first = Math.floor(from / pageBytes);
		const last = Math.floor((to - 1) / pageBytes);
		if (last - first > this.#pages.size) return this.pageNumbers().filter((number) => number >= first && number <= last);
		const numbers: number[] = [];
		for (let number = first; number <= last; number++) if (this.#pages.has(number)) numbers.push(number);
		return numbers;
	}

	#own(number: number): Uint8Array {
		const page = this.#pages.get(number);
		if (page !== undefined && !page.shared) return page.bytes;
		const bytes = page === undefined ? new Uint8Array(pageBytes) : page.bytes.slice();
		this.#pages.set(number, { bytes, shared: false });
		return bytes;
	}
}
