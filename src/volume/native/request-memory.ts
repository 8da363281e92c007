/**
 * Which requests a door has taken and not answered, in memory that outlives the process. Without it a successor could not tell the note of a request that may be sent again from one that was answered long ago, nor
 * a handle that somebody has from one whose opener was killed before it heard of it.
 *
 * Memory, for each slot 12 bytes: state u32 (0 = free, 1 = taken, 2 = its reply is being given), request low u32, request high u32; in the byte order of the machine.
 *
 * Invariant: the numbers of a slot change only while its state is 0, so that a process which is killed between two stores leaves either the whole request or none.
 */
import { assert } from "../../base/assert.ts";
import { newerFormat } from "../../base/errors.ts";
import { requestSlots } from "../interface.ts";
import type { RequestMarks, RequestToken } from "../interface.ts";

const wordsPerSlot = 3;
export const requestMemoryBytes = requestSlots * wordsPerSlot * 4;

const state = { free: 0, taken: 1, replying: 2 } as const;

export interface FoundRequest {
	readonly slot: number;
	readonly requestLow: number;
	readonly requestHigh: number;
	readonly replying: boolean;
}

export class RequestMemory implements RequestMarks {
	/** What the process before had not answered. */
	readonly found: readonly FoundRequest[];
	readonly #words: Uint32Array;

	/** `memory` is all zeros, or what a process of the same session left. @throws FsError REFUSED for a state that is not known here. */
	constructor(memory: Uint8Array) {
		assert(memory.length === requestMemoryBytes, "memory for each slot of requests");
		this.#words = new Uint32Array(memory.buffer, memory.byteOffset, requestSlots * wordsPerSlot);
		const found: FoundRequest[] = [];
		for (let slot = 0; slot < requestSlots; slot++) {
			const [now = state.free, requestLow = 0, requestHigh = 0] = this.#words.subarray(slot * wordsPerSlot, (slot + 1) * wordsPerSlot);
			if (now > state.replying) throw newerFormat("volume.session-newer", "what this mount was asked", `requests in state ${now}`);
			if (now !== state.free) found.push({ slot, requestLow, requestHigh, replying: now === state.replying });
		}
		this.found = found;
	}

	/** A request that is sent again has the slot of then already, and is not out of it for a moment. */
	begin({ slot, low, high }: RequestToken): void {
		const at = slot * wordsPerSlot;
		const isSame = this.#words[at] !== state.free && this.#words[at + 1] === low && this.#words[at + 2] === high;
		if (isSame) return void Atomics.store(this.#words, at, state.taken);
		Atomics.store(this.#words, at, state.free);
		Atomics.store(this.#words, at + 1, low);
		Atomics.store(this.#words, at + 2, high);
		Atomics.store(this.#words, at, state.taken);
	}

	replying(slot: number): void {
		Atomics.store(this.#words, slot * wordsPerSlot, state.replying);
	}

	end(slot: number): void {
		Atomics.store(this.#words, slot * wordsPerSlot, state.free);
	}
}
