/**
 * Which bytes of a disk's packs are taken. Rebuilt from segment records at mount; never stored: the truth of space is metadata.
 *
 * Invariants
 *  A1 The free extents of a pack are sorted, do not touch or overlap each other, and lie inside the pack.
 *  A2 Every byte is free, or taken once, or contested (claimed by two records); contested bytes are never handed out again before the next
 *     load.
 *  A3 usedBytes = Σ over packs of (pack size − free).
 *  A4 The number of a pack that was forgotten is not given to a new one while the volume is mounted.
 */
import { assert } from "../base/assert.ts";
import { FsError } from "../base/errors.ts";
import { blockBytes, limits } from "./limits.ts";

export interface Position {
	readonly pack: number;
	/** Bytes, a multiple of 4 KiB. */
	readonly offset: number;
}

/** A range of bytes in a pack. */
export interface Gap {
	readonly offset: number;
	readonly length: number;
}

/** Free space of one pack, in units of 4 KiB. */
class PackSpace {
	starts: number[] = [0];
	ends: number[];
	free: number;
	/** No free extent is longer than this: an upper bound, so that full packs are passed over without a search. */
	longest: number;
	readonly units: number;
	/** Nothing more is placed in it. */
	closed = false;
	contested: { readonly start: number; readonly end: number }[] = [];

	constructor(units: number) {
		this.units = units;
		this.ends = [units];
		this.free = units;
		this.longest = units;
	}

	/** Number of free extents that end at or before `unit`: where one that reaches beyond it would be. */
	locate(unit: number): number {
		let low = 0;
		let high = this.ends.length;
		while (low < high) {
			const middle = (low + high) >>> 1;
			if ((this.ends[middle] as number) <= unit) low = middle + 1;
			else high = middle;
		}
		return low;
	}

	/** First fit. -1: none is long enough. */
	find(units: number): number {
		if (units > this.longest) return -1;
		let longest = 0;
		for (let i = 0; i < this.starts.length; i++) {
			const length = (this.ends[i] as number) - (this.starts[i] as number);
			if (length >= units) return this.starts[i] as number;
			if (length > longest) longest = length;
		}
		this.longest = longest;
		return -1;
	}

	/** Takes what is free of [start, end); returns how much that was. */
	take(start: number, end: number): number {
		let taken = 0;
		let i = this.locate(start);
		while (i < this.starts.length && (this.starts[i] as number) < end) {
			const from = this.starts[i] as number;
			const to = this.ends[i] as number;
			const left: number[] = [];
			const right: number[] = [];
			if (from < start) {
				left.push(from);
				right.push(start);
			}
			if (to > end) {
				left.push(end);
				right.push(to);
			}
			this.starts.splice(i, 1, ...left);
			this.ends.splice(i, 1, ...right);
			taken += Math.min(to, end) - Math.max(from, start);
			if (from < start) i++;
		}
		this.free -= taken;
		return taken;
	}

	give(start: number, end: number): void {
		const i = this.locate(start);
		assert(i === this.starts.length || (this.starts[i] as number) >= end, "space is freed once");
		const joinsLeft = i > 0 && this.ends[i - 1] === start;
		const joinsRight = i < this.starts.length && this.starts[i] === end;
		const from = joinsLeft ? (this.starts[i - 1] as number) : start;
		const to = joinsRight ? (this.ends[i] as number) : end;
		const at = joinsLeft ? i - 1 : i;
		this.starts.splice(at, (joinsLeft ? 1 : 0) + (joinsRight ? 1 : 0), from);
		this.ends.splice(at, (joinsLeft ? 1 : 0) + (joinsRight ? 1 : 0), to);
		this.free += end - start;
		this.longest = Math.max(this.longest, to - from);
	}

	isContested(start: number, end: number): boolean {
		return this.contested.some((range) => range.start < end && start < range.end);
	}
}

export class PackAllocator {
	#packs = new Map<number, PackSpace>();
	#next = 1;
	/** Where the last fragment went: neighbours in time become neighbours on disk. */
	#current: number | undefined;
	#used = 0;
	readonly #units: number;

	constructor(packBytes: number = limits.packBytes) {
		assert(packBytes % blockBytes === 0, "a pack is made of blocks");
		this.#units = packBytes / blockBytes;
	}

	get usedBytes(): number {
		return this.#used * blockBytes;
	}

	get current(): number | undefined {
		return this.#current;
	}

	has(pack: number): boolean {
		return this.#packs.has(pack);
	}

	packs(): number[] {
		return [...this.#packs.keys()].sort((a, b) => a - b);
	}

	usedIn(pack: number): number {
		const space = this.#packs.get(pack);
		return space ? (space.units - space.free) * blockBytes : 0;
	}

	/** A file of that number is on the disk: new packs get higher numbers. */
	seen(pack: number): void {
		this.#next = Math.max(this.#next, pack + 1);
	}

	/** In the current pack if it fits, else in the fullest that it fits in, else in a new one. @throws FsError ENOSPC after 10^8 packs. */
	allocate(lengthBytes: number): Position {
		const units = lengthBytes / blockBytes;
		assert(Number.isInteger(units) && units > 0 && units <= this.#units, `a fragment of ${lengthBytes} bytes fits into a pack`);
		const pack = this.#choose(units);
		const space = this.#packs.get(pack) as PackSpace;
		const start = space.find(units);
		const taken = space.take(start, start + units);
		assert(taken === units, "what was found free is free");
		this.#used += units;
		this.#current = pack;
		return { pack, offset: start * blockBytes };
	}

	#choose(units: number): number {
		const current = this.#current === undefined ? undefined : this.#packs.get(this.#current);
		if (current && current.find(units) >= 0) return this.#current as number;
		let best: number | undefined;
		let least = Number.POSITIVE_INFINITY;
		for (const [number, space] of this.#packs) {
			if (space.closed || space.free < units || space.free >= least || space.find(units) < 0) continue;
			best = number;
			least = space.free;
		}
		if (best !== undefined) return best;
		const number = this.#next++;
		if (number > limits.maxPackNumber)
			throw new FsError("ENOSPC", "storage.pack-numbers", "the disk has used up its numbers for packs; replace it");
		this.#packs.set(number, new PackSpace(this.#units));
		return number;
	}

	/** Takes an exact place. False: it lies outside every possible pack or a part of it is taken already (then all of it is contested). */
	take(position: Position, lengthBytes: number): boolean {
		const { pack, offset } = position;
		const start = offset / blockBytes;
		const end = start + lengthBytes / blockBytes;
		if (!Number.isInteger(start) || !Number.isInteger(end) || start < 0 || end > this.#units) return false;
		if (!Number.isInteger(pack) || pack < 1 || pack > limits.maxPackNumber) return false;
		this.seen(pack);
		const space = this.#packs.get(pack) ?? new PackSpace(this.#units);
		this.#packs.set(pack, space);
		const taken = space.take(start, end);
		this.#used += taken;
		if (taken === end - start) return true;
		space.contested.push({ start, end });
		return false;
	}

	/** False: the range is contested and stays taken. */
	free(position: Position, lengthBytes: number): boolean {
		const space = this.#packs.get(position.pack);
		const start = position.offset / blockBytes;
		const end = start + lengthBytes / blockBytes;
		assert(space !== undefined && end <= space.units, `pack ${position.pack} has that place`);
		if (space.isContested(start, end)) return false;
		space.give(start, end);
		this.#used -= end - start;
		return true;
	}

	isFree(position: Position, lengthBytes: number): boolean {
		const space = this.#packs.get(position.pack);
		if (!space) return false;
		const start = position.offset / blockBytes;
		const i = space.locate(start);
		return i < space.starts.length && (space.starts[i] as number) <= start && (space.ends[i] as number) >= start + lengthBytes / blockBytes;
	}

	/** True when another record claims a part of it too. */
	contested(position: Position, lengthBytes: number): boolean {
		const start = position.offset / blockBytes;
		return this.#packs.get(position.pack)?.isContested(start, start + lengthBytes / blockBytes) ?? false;
	}

	/** Nothing more is placed in that pack until it is empty and forgotten. */
	close(pack: number): void {
		const space = this.#packs.get(pack);
		if (space) space.closed = true;
		if (this.#current === pack) this.#current = undefined;
	}

	/** An empty pack goes; its file can be removed. */
	forget(pack: number): void {
		const space = this.#packs.get(pack);
		if (!space) return;
		assert(space.free === space.units, `pack ${pack} is empty`);
		this.#packs.delete(pack);
		if (this.#current === pack) this.#current = undefined;
	}

	/** Free bytes right before and right behind a range. */
	freeAround(position: Position, lengthBytes: number): { readonly before: number; readonly after: number } {
		const space = this.#packs.get(position.pack);
		if (!space) return { before: 0, after: 0 };
		const start = position.offset / blockBytes;
		const end = start + lengthBytes / blockBytes;
		const i = space.locate(start);
		const before = i > 0 && space.ends[i - 1] === start ? start - (space.starts[i - 1] as number) : 0;
		const after = i < space.starts.length && space.starts[i] === end ? (space.ends[i] as number) - end : 0;
		return { before: before * blockBytes, after: after * blockBytes };
	}

	/** Free ranges of at least that length. */
	gaps(pack: number, minBytes: number): Gap[] {
		const space = this.#packs.get(pack);
		const found: Gap[] = [];
		for (let i = 0; i < (space?.starts.length ?? 0); i++) {
			const start = space?.starts[i] as number;
			const length = ((space?.ends[i] as number) - start) * blockBytes;
			if (length >= minBytes) found.push({ offset: start * blockBytes, length });
		}
		return found;
	}
}
