/**
 * Fresh numbers for inodes, chunks, segments and pending records, from blocks that a transaction on the volume record hands out ahead of use.
 *
 * Invariants
 *  B1 A number is given out at most once in the life of a volume: the volume record has passed a block's end before any number of it is given out,
 *     and a block that was not used up when the process ended is lost.
 *  B2 At most one refill is under way.
 *  B3 Blocks are added only from the result of a committed transaction; those of an attempt that failed are forgotten.
 */
import { assert } from "../base/assert.ts";
import { FsError } from "../base/errors.ts";
import type { Ino, Numbers, RecordTransaction, VolumeRecord } from "./interface.ts";
import { volumeRecord } from "./kinds.ts";
import { inoCountersPerGroup, maximumGroups, numberBlock, numberLowWater } from "./limits.ts";

/** Opens a transaction, runs the function (perhaps several times), commits, and answers the result of the run that was committed. */
export type RunTransaction = <T>(fn: (tx: RecordTransaction) => T) => Promise<{ readonly result: T }>;

/** [next, end) */
interface Block {
	next: number;
	readonly end: number;
}

interface Counter {
	/** In order of use. */
	readonly blocks: Block[];
	/** Numbers in all blocks. */
	left: number;
	/** The last number that can exist was handed out. */
	exhausted: boolean;
}

interface Grant {
	readonly name: string;
	readonly block: Block;
}

export function groupOf(ino: Ino): number {
	return Math.floor(ino / inoCountersPerGroup);
}

export function makeIno(group: number, counter: number): Ino {
	assert(group >= 0 && group < maximumGroups && counter > 0 && counter < inoCountersPerGroup, `inode ${group}:${counter}`);
	return group * inoCountersPerGroup + counter;
}

export class NumberBlocks implements Numbers {
	/** "chunk", "segment", "pending", "ino:GROUP" for group 0 and each that was asked for. */
	readonly #counters = new Map<string, Counter>();
	#refill: Promise<void> | undefined;
	#low = true;

	constructor() {
		for (const name of ["chunk", "segment", "pending", inoCounter(0)]) this.#add(name);
	}

	ino(group: number): Ino {
		return makeIno(group, this.#take(inoCounter(group)));
	}

	chunk(): number {
		return this.#take("chunk");
	}

	segment(): number {
		return this.#take("segment");
	}

	pending(): number {
		return this.#take("pending");
	}

	/** True when a counter has fewer than numberLowWater left: call `ensure`. */
	get low(): boolean {
		return this.#low;
	}

	/**
	 * To be awaited before each operation while `low`. Inode numbers are made ready for every group that was asked for before.
	 * @throws FsError what the transaction threw.
	 */
	async ensure(run: RunTransaction): Promise<void> {
		while (this.#low) {
			this.#refill ??= this.#fill(run).finally(() => {
				this.#refill = undefined;
			});
			await this.#refill;
		}
	}

	#add(name: string): Counter {
		const counter = { blocks: [], left: 0, exhausted: false };
		this.#counters.set(name, counter);
		this.#low = true;
		return counter;
	}

	#lowCounters(): string[] {
		const low: string[] = [];
		for (const [name, counter] of this.#counters) if (counter.left < numberLowWater && !counter.exhausted) low.push(name);
		return low;
	}

	async #fill(run: RunTransaction): Promise<void> {
		const names = this.#lowCounters();
		const { result: grants } = await run((tx) => grantBlocks(tx, names));
		for (const { name, block } of grants) {
			const counter = this.#counters.get(name) ?? this.#add(name);
			const count = block.end - block.next;
			counter.exhausted = count === 0;
			counter.left += count;
			if (count > 0) counter.blocks.push({ ...block });
		}
		this.#low = this.#lowCounters().length > 0;
	}

	#take(name: string): number {
		const counter = this.#counters.get(name) ?? this.#add(name);
		const block = counter.blocks[0];
		if (block === undefined) throw noneLeft(name, counter.exhausted);
		const number = block.next++;
		if (block.next === block.end) counter.blocks.shift();
		if (--counter.left < numberLowWater && !counter.exhausted) this.#low = true;
		return number;
	}
}

function noneLeft(name: string, exhausted: boolean): FsError {
	if (exhausted) {
		return new FsError("ENOSPC", "records.group-full", `${name} has used up its numbers: new directories must start another group`, {
			counter: name,
		});
	}
	return new FsError("EAGAIN", "records.numbers-out", `no ${name} numbers are in memory: await ensure() and run the operation again`, {
		counter: name,
	});
}

function inoCounter(group: number): string {
	return `ino:${group}`;
}

function grantBlocks(tx: RecordTransaction, names: readonly string[]): Grant[] {
	const before = tx.get(volumeRecord);
	if (before === undefined) {
		throw new FsError("CORRUPT", "records.no-volume", "the volume record is missing, so numbers cannot be handed out: run `cairn verify`");
	}
	const grants: Grant[] = [];
	let volume = before;
	for (const name of names) {
		const advanced = advance(volume, name);
		grants.push({ name, block: advanced.block });
		volume = advanced.volume;
	}
	tx.put(volumeRecord, volume);
	return grants;
}

function advance(volume: VolumeRecord, counter: string): { volume: VolumeRecord; block: Block } {
	const grant = (next: number): Block => ({ next, end: next + numberBlock });
	if (counter === "chunk") return { volume: { ...volume, nextChunk: volume.nextChunk + numberBlock }, block: grant(volume.nextChunk) };
	if (counter === "segment")
		return { volume: { ...volume, nextSegment: volume.nextSegment + numberBlock }, block: grant(volume.nextSegment) };
	if (counter === "pending")
		return { volume: { ...volume, nextPending: volume.nextPending + numberBlock }, block: grant(volume.nextPending) };
	return advanceIno(volume, Number(counter.slice(4)));
}

function advanceIno(volume: VolumeRecord, group: number): { volume: VolumeRecord; block: Block } {
	assert(Number.isInteger(group) && group >= 0 && group < maximumGroups, `inode group ${group}`);
	// Counter 0 is never given out: inode number 0 means "none". Group 0 begins behind the root, which makeRoot has recorded.
	const next = volume.nextInoCounter.find((entry) => entry.group === group)?.next ?? 1;
	const end = Math.min(next + numberBlock, inoCountersPerGroup);
	const others = volume.nextInoCounter.filter((entry) => entry.group !== group);
	return { volume: { ...volume, nextInoCounter: [...others, { group, next: end }] }, block: { next, end } };
}
