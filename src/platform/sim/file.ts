/**
 * One file of a simulated disk: what the page cache shows, what the platter holds, and the writes in between.
 *
 * Invariants
 * 1. `cache` = `durable` with all of `pending` applied in order, except after a failed sync or damage.
 * 2. After a power cut a sector holds what it held durably, or what the cache held after one of the pending writes that touch it;
 *    never a mix.
 * 3. Without pending operations a power cut changes nothing.
 */
import { alignDown, alignUp } from "../../base/bytes.ts";
import { pageBytes, sectorBytes } from "./limits.ts";
import type { Prng } from "./prng.ts";
import { SparseBytes } from "./sparse.ts";

type Pending =
	| { readonly kind: "write"; readonly offset: number; readonly length: number; readonly bytes: Uint8Array | undefined }
	| { readonly kind: "punch"; readonly offset: number; readonly length: number }
	/** `length`: what was cut off, 0 when the file grew. */
	| { readonly kind: "truncate"; readonly offset: number; readonly length: number };

/** How a power cut treats un-synced changes: none kept, all, in order up to one that is torn, each by itself, each sector by itself. */
export type CutStyle = "none" | "all" | "prefix" | "each" | "sectors";
const cutStyles: readonly CutStyle[] = ["none", "all", "prefix", "each", "sectors"];

export function pickCutStyle(random: Prng): CutStyle {
	return random.pick(cutStyles);
}

export class SimFile {
	#cache = new SparseBytes();
	#durable = new SparseBytes();
	#pending: Pending[] = [];
	#dirtyPages = new Set<number>();
	/** A sync failed: the cache shows what the platter does not hold. */
	#misleading = false;

	get size(): number {
		return this.#cache.size;
	}

	get allocatedPages(): number {
		return this.#cache.allocatedPages;
	}

	get unsynced(): boolean {
		return this.#pending.length > 0;
	}

	read(offset: number, lengthBytes: number, into?: Uint8Array): Uint8Array {
		return this.#cache.read(offset, lengthBytes, into);
	}

	/** How many pages a write would have to allocate. */
	newPages(offset: number, lengthBytes: number): number {
		let count = 0;
		for (let page = Math.floor(offset / pageBytes); page * pageBytes < offset + lengthBytes; page++) {
			if (!this.#cache.hasPage(page)) count++;
		}
		return count;
	}

	/** Takes ownership of `bytes`; undefined = zeros. */
	write(offset: number, lengthBytes: number, bytes: Uint8Array | undefined): void {
		if (lengthBytes > 0) this.#change({ kind: "write", offset, length: lengthBytes, bytes });
	}

	punch(offset: number, lengthBytes: number): void {
		const length = Math.min(lengthBytes, this.size - offset);
		if (length > 0) this.#change({ kind: "punch", offset, length });
	}

	truncate(sizeBytes: number): void {
		if (sizeBytes === this.size) return;
		this.#change({ kind: "truncate", offset: sizeBytes, length: Math.max(0, this.size - sizeBytes) });
	}

	sync(): void {
		for (const page of this.#dirtyPages) this.#durable.takePage(page, this.#cache);
		this.#durable.size = this.#cache.size;
		this.#clean();
	}

	/**
	 * A sync that failed: the kernel marks the pages clean although only some of them arrived, and goes on showing them.
	 * A later sync reports success and they are still not durable.
	 */
	failSync(random: Prng): void {
		this.#durable = this.#survivors(pickCutStyle(random), random);
		this.#misleading = true;
		this.#clean();
	}

	powerCut(style: CutStyle, random: Prng): void {
		if (this.#pending.length === 0 && !this.#misleading) return;
		if (this.#pending.length > 0) this.#durable = this.#survivors(style, random);
		this.#misleading = false;
		this.#clean();
		this.#cache = this.#durable.clone();
	}

	snapshot(): SimFile {
		const copy = new SimFile();
		copy.#cache = this.#cache.clone();
		copy.#durable = this.#durable.clone();
		copy.#pending = [...this.#pending];
		copy.#dirtyPages = new Set(this.#dirtyPages);
		copy.#misleading = this.#misleading;
		return copy;
	}

	damage(offset: number, lengthBytes: number, change: (old: number, at: number) => number): void {
		this.#cache.damage(offset, change, lengthBytes);
		this.#durable.damage(offset, change, lengthBytes);
	}

	/** Numbers of the pages that hold something. */
	pageNumbers(): number[] {
		return this.#cache.pageNumbers();
	}

	#change(change: Pending): void {
		this.#markDirty(change);
		apply(this.#cache, change);
		this.#markDirty(change);
		this.#pending.push(change);
	}

	#markDirty(change: Pending): void {
		const end = change.offset + change.length;
		if (change.kind === "write" || change.length <= 64 * pageBytes) {
			for (let page = Math.floor(change.offset / pageBytes); page * pageBytes < end; page++) this.#dirtyPages.add(page);
			return;
		}
		for (const page of this.#cache.pageNumbers()) {
			if (page * pageBytes < end && (page + 1) * pageBytes > change.offset) this.#dirtyPages.add(page);
		}
	}

	#clean(): void {
		this.#pending = [];
		this.#dirtyPages.clear();
	}

	#survivors(style: CutStyle, random: Prng): SparseBytes {
		const tornAt = random.below(this.#pending.length + 1);
		if (style === "none") return this.#durable;
		const image = this.#durable.clone();
		const live = this.#durable.clone();
		let keptSize = image.size;
		for (const [index, change] of this.#pending.entries()) {
			const before = live.size;
			apply(live, change);
			const whole = style === "all" || (style === "prefix" && index < tornAt) || (style === "each" && random.chance(0.5));
			const torn = !whole && (style === "sectors" || (style === "prefix" && index === tornAt));
			if (!whole && !torn) continue;
			if (live.size !== before && (whole || random.chance(0.5))) keptSize = live.size;
			if (whole || change.kind !== "write") keep(image, live, change, whole || random.chance(0.5));
			else keepSomeSectors(image, live, change, random);
		}
		image.truncate(keptSize);
		return image;
	}
}

function apply(image: SparseBytes, change: Pending): void {
	if (change.kind === "write") image.write(change.offset, change.length, change.bytes);
	else if (change.kind === "punch") image.punch(change.offset, change.length);
	else image.truncate(change.offset);
}

/** The whole change; its first and last sector are as the cache had them then. Metadata changes (punch, truncate) are all or nothing. */
function keep(image: SparseBytes, live: SparseBytes, change: Pending, yes: boolean): void {
	if (!yes || change.length === 0) return;
	const from = alignDown(change.offset, sectorBytes);
	const to = alignUp(change.offset + change.length, sectorBytes);
	if (change.kind === "write") {
		copyRange(image, live, from, to - from);
		return;
	}
	image.punch(from, to - from);
	copyRange(image, live, from, sectorBytes);
	if (change.offset + change.length < live.size) copyRange(image, live, to - sectorBytes, sectorBytes);
}

function keepSomeSectors(image: SparseBytes, live: SparseBytes, change: Pending, random: Prng): void {
	const end = change.offset + change.length;
	for (let at = alignDown(change.offset, sectorBytes); at < end; at += sectorBytes) {
		if (random.chance(0.5)) copyRange(image, live, at, sectorBytes);
	}
}

/** Makes `image` longer if need be; its size is set when all is decided. Whole pages are shared. */
function copyRange(image: SparseBytes, live: SparseBytes, offset: number, lengthBytes: number): void {
	for (let at = offset; at < offset + lengthBytes; ) {
		const page = Math.floor(at / pageBytes);
		const count = Math.min((page + 1) * pageBytes, offset + lengthBytes) - at;
		if (count === pageBytes && live.hasPage(page)) {
			image.takePage(page, live);
			image.size = Math.max(image.size, at + count);
		} else {
			const bytes = new Uint8Array(count);
			bytes.set(live.read(at, count));
			image.write(at, count, bytes);
		}
		at += count;
	}
}
