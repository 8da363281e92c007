/**
 * Small calls of a disk in shared memory: reads, and a write with the sync behind it. A message costs two threads more than such a call, most of all where they run code that has not been compiled.
 *
 * The main thread asks, wakes the disk's thread, and looks for the answer itself as long as that has been worth it lately (`DiskThread`); otherwise it wants to be told by a message.
 *
 * Invariants
 *  L1 A slot belongs to one read from `ask` until its bytes are given back; a slot of a read whose end is unknown is never used again.
 *  L2 Everything in a slot is written before its state: who sees the state sees the rest.
 *  L3 An answer that is in its slot when `watch(false)` has returned is found by the next look, and one that comes later is told by a message.
 *  L4 One slot is for writing. It is asked for only while no other call is open, and no read is asked for until it is answered: slots are served in their own order, not in that of asking.
 */
import { assert } from "../../base/assert.ts";
import type { DiskRequest } from "./disk-protocol.ts";
import { realLimits } from "./limits.ts";

export interface LaneMemory {
	/** Word 0: the main thread looks for answers. Then the words of each slot. */
	readonly control: Int32Array<SharedArrayBuffer>;
	readonly bytes: Uint8Array<SharedArrayBuffer>;
}

/** A write, the sync of a file, or both in this order. */
export interface LaneWriting {
	readonly handle: number;
	readonly write: { readonly offset: number; readonly parts: readonly Uint8Array[]; readonly lengthBytes: number } | undefined;
	readonly sync: boolean;
}

const watching = 0;
const firstSlot = 1;
/** Behind those of reads. */
export const writingSlot = realLimits.laneSlots;
const slots = realLimits.laneSlots + 1;
/** Offsets are two numbers: whole 4 GiB, and the rest as an unsigned number. `kind`: what is asked for, bits of `asks`. */
const word = { state: 0, handle: 1, offsetHigh: 2, offsetLow: 3, lengthBytes: 4, count: 5, kind: 6, words: 7 } as const;
const state = { free: 0, asked: 1, answered: 2, failed: 3 } as const;
const asks = { read: 1, write: 2, sync: 4 } as const;
const highUnit = 2 ** 32;

export function createLaneMemory(): LaneMemory {
	return {
		control: new Int32Array(new SharedArrayBuffer(4 * (firstSlot + slots * word.words))),
		bytes: new Uint8Array(new SharedArrayBuffer(slots * realLimits.laneSlotBytes)),
	};
}

function at(slot: number): number {
	return firstSlot + slot * word.words;
}

function bytesOf({ bytes }: LaneMemory, slot: number, lengthBytes: number): Uint8Array {
	const start = slot * realLimits.laneSlotBytes;
	return bytes.subarray(start, start + lengthBytes);
}

/** The end of the main thread. */
export class LaneCaller {
	readonly memory: LaneMemory;
	readonly #free: number[] = [];
	/** Slots of reads that were asked for and not taken from yet. */
	readonly #out = new Set<number>();
	#writes = false;

	constructor(memory: LaneMemory) {
		this.memory = memory;
		for (let slot = realLimits.laneSlots - 1; slot >= 0; slot--) this.#free.push(slot);
	}

	/** Slots without an answer so far. */
	get outstanding(): number {
		return this.#out.size + (this.#writes ? 1 : 0);
	}

	/** The slot of a read, or undefined: too large, or too many at once. */
	ask(handle: number, offset: number, lengthBytes: number): number | undefined {
		if (lengthBytes > realLimits.laneSlotBytes) return undefined;
		const slot = this.#free.pop();
		if (slot === undefined) return undefined;
		this.#describe(slot, asks.read, handle, offset, lengthBytes);
		this.#out.add(slot);
		Atomics.store(this.memory.control, at(slot) + word.state, state.asked);
		return slot;
	}

	/** False: too large. L4. */
	askToWrite({ handle, write, sync }: LaneWriting): boolean {
		assert(this.outstanding === 0, "a write is asked for alone");
		const lengthBytes = write?.lengthBytes ?? 0;
		if (lengthBytes > realLimits.laneSlotBytes) return false;
		let filled = writingSlot * realLimits.laneSlotBytes;
		for (const part of write?.parts ?? []) {
			this.memory.bytes.set(part, filled);
			filled += part.length;
		}
		this.#describe(writingSlot, (write ? asks.write : 0) | (sync ? asks.sync : 0), handle, write?.offset ?? 0, lengthBytes);
		this.#writes = true;
		Atomics.store(this.memory.control, at(writingSlot) + word.state, state.asked);
		return true;
	}

	#describe(slot: number, kind: number, handle: number, offset: number, lengthBytes: number): void {
		const { control } = this.memory;
		const first = at(slot);
		control[first + word.kind] = kind;
		control[first + word.handle] = handle;
		control[first + word.offsetHigh] = Math.floor(offset / highUnit);
		control[first + word.offsetLow] = (offset % highUnit) | 0;
		control[first + word.lengthBytes] = lengthBytes;
	}

	/** Hands over what has been answered: the bytes of reads, nothing for `writingSlot`. Failures come by message. */
	look(take: (slot: number, bytes: Uint8Array | undefined) => void): void {
		const { control } = this.memory;
		for (const slot of this.#out) {
			if (Atomics.load(control, at(slot) + word.state) !== state.answered) continue;
			this.#out.delete(slot);
			take(slot, bytesOf(this.memory, slot, control[at(slot) + word.count] as number));
		}
		if (!this.#writes || Atomics.load(control, at(writingSlot) + word.state) !== state.answered) return;
		this.#writes = false;
		take(writingSlot, undefined);
	}

	/** A message has told why there is no answer. */
	failed(slot: number): void {
		if (slot === writingSlot) {
			assert(this.#writes, "a write fails that was asked for");
			this.#writes = false;
			return;
		}
		assert(this.#out.delete(slot), "a read fails that was asked for");
		this.giveBack(slot);
	}

	/** Nobody needs its bytes any more. */
	giveBack(slot: number): void {
		const before = Atomics.exchange(this.memory.control, at(slot) + word.state, state.free);
		assert(before !== state.free, "a slot is given back once");
		this.#free.push(slot);
	}

	/** Whether answers are looked for; otherwise they are told by messages. L3. */
	watch(isWatching: boolean): void {
		Atomics.store(this.memory.control, watching, isWatching ? 1 : 0);
	}
}

/** What is asked for in a slot, without an object for it. */
export interface LaneAsked {
	readonly handle: number;
	readonly offset: number;
	readonly lengthBytes: number;
	/** All of the slot's bytes: a write has its own at the beginning, a read wants them there. */
	readonly bytes: Uint8Array;
	readonly reads: boolean;
	readonly writes: boolean;
	readonly syncs: boolean;
}

type Writable = { -readonly [key in keyof LaneAsked]: LaneAsked[key] };

/** The end of the disk's thread. */
export class LaneServer {
	readonly #memory: LaneMemory;
	readonly #bytes: readonly Uint8Array[];
	readonly #asked: Writable = { handle: 0, offset: 0, lengthBytes: 0, bytes: new Uint8Array(0), reads: false, writes: false, syncs: false };

	constructor(memory: LaneMemory) {
		this.#memory = memory;
		this.#bytes = Array.from({ length: slots }, (_, slot) => bytesOf(memory, slot, realLimits.laneSlotBytes));
	}

	/** The first slot from `from` on that waits for an answer; -1: none does. */
	next(from: number): number {
		const { control } = this.#memory;
		for (let slot = from; slot < slots; slot++) if (Atomics.load(control, at(slot) + word.state) === state.asked) return slot;
		return -1;
	}

	/** Valid until it is called again. */
	look(slot: number): LaneAsked {
		const { control } = this.#memory;
		const first = at(slot);
		const asked = this.#asked;
		asked.handle = control[first + word.handle] as number;
		asked.offset = (control[first + word.offsetHigh] as number) * highUnit + ((control[first + word.offsetLow] as number) >>> 0);
		asked.lengthBytes = control[first + word.lengthBytes] as number;
		asked.bytes = this.#bytes[slot] as Uint8Array;
		const kind = control[first + word.kind] as number;
		asked.reads = kind === asks.read;
		asked.writes = (kind & asks.write) !== 0;
		asked.syncs = (kind & asks.sync) !== 0;
		return asked;
	}

	/** The same as calls: one, or a write and the sync behind it. */
	requests(slot: number): readonly DiskRequest[] {
		const { handle, offset, lengthBytes, reads, writes, syncs } = this.look(slot);
		const bytes = bytesOf(this.#memory, slot, lengthBytes);
		if (reads) return [{ kind: "read", handle, offset, lengthBytes, into: bytes }];
		const found: DiskRequest[] = [];
		if (writes) found.push({ kind: "write", handle, offset, parts: [bytes] });
		if (syncs) found.push({ kind: "sync", handle });
		return found;
	}

	/** True when the main thread has to be told. L3. */
	answer(slot: number, count: number): boolean {
		const { control } = this.#memory;
		control[at(slot) + word.count] = count;
		Atomics.store(control, at(slot) + word.state, state.answered);
		return Atomics.load(control, watching) === 0;
	}

	/** A message says why. */
	fail(slot: number): void {
		Atomics.store(this.#memory.control, at(slot) + word.state, state.failed);
	}
}
