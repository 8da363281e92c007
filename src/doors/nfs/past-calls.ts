/**
 * Calls that a predecessor of this process carried out and was killed before it answered: their clients send them again, and the cache of replies has gone with the process. The volume notes each call that changes
 * names in the transaction of its effect; when it comes again, that note tells that it has succeeded, and about which inode it was.
 *
 * Invariants
 *  P1 A call has a slot from its begin to its end, alone: the note of a call that is not answered is overwritten by none.
 *  P2 Slots are used in turn, the longest unused first: a note outlives its call by some hundred others, so that a client whose reply was lost on its way gets it too.
 *  P3 What the predecessors have left counts for `pastCallsMs` from the start: clients that waited send again at once, and numbers of calls are used again one day.
 */
import { assert } from "../../base/assert.ts";
import { latin1ToBytes } from "../../base/bytes.ts";
import { sipHash } from "../../codec/siphash.ts";
import type { Clock } from "../../platform/interface.ts";
import { callSlots, type CallToken, type Ino, type PastCall } from "../../volume/interface.ts";
import { cacheKeyBytes, pastCallsMs } from "./limits.ts";

type CallName = Omit<CallToken, "slot">;

export class PastCalls {
	readonly #secret: Uint8Array;
	readonly #clock: Clock;
	#found = new Map<string, PastCall>();
	#untilMs = 0;
	/** P2. */
	readonly #free = new Set<number>();

	/** `secret`: 16 bytes, kept with the volume: nobody makes up a call that looks like another one. */
	constructor(secret: Uint8Array, clock: Clock) {
		this.#secret = secret;
		this.#clock = clock;
		for (let slot = 0; slot < callSlots; slot++) this.#free.add(slot);
	}

	/** Before the first call. */
	load(found: readonly PastCall[]): void {
		this.#found = new Map(found.map((call) => [keyOf(call), call]));
		this.#untilMs = this.#clock.monotonicMs() + pastCallsMs;
		for (const { slot } of found) this.#toEnd(slot);
	}

	/** `message`: the whole call, as it came from `address`. */
	async carryOut<T>(
		address: string,
		message: Uint8Array,
		work: (call: { readonly noted: CallToken } | { readonly past: Ino }) => Promise<T>,
	): Promise<T> {
		const name = this.#nameOf(address, message);
		const past = this.#past(name);
		if (past !== undefined) return work({ past: past.ino });
		const [slot] = this.#free;
		assert(slot !== undefined, "P1: there is a slot for each call");
		this.#free.delete(slot);
		try {
			return await work({ noted: { ...name, slot } });
		} finally {
			this.#free.add(slot);
		}
	}

	#past(name: CallName): PastCall | undefined {
		if (this.#found.size === 0) return undefined;
		if (this.#clock.monotonicMs() > this.#untilMs) this.#found.clear();
		const past = this.#found.get(keyOf(name));
		// It may be killed again before it answers.
		if (past !== undefined) this.#toEnd(past.slot);
		return past;
	}

	/** Unless another call has it. */
	#toEnd(slot: number): void {
		if (this.#free.delete(slot)) this.#free.add(slot);
	}

	#nameOf(address: string, message: Uint8Array): CallName {
		const from = latin1ToBytes(address);
		const words = message.subarray(0, cacheKeyBytes);
		const bytes = new Uint8Array(8 + from.length + words.length);
		const view = new DataView(bytes.buffer);
		view.setUint32(0, message.length);
		view.setUint32(4, from.length);
		bytes.set(from, 8);
		bytes.set(words, 8 + from.length);
		const hash = new DataView(sipHash(this.#secret, bytes).buffer);
		return { xid: new DataView(message.buffer, message.byteOffset, 4).getUint32(0), low: hash.getUint32(0), high: hash.getUint32(4) };
	}
}

function keyOf({ xid, low, high }: CallName): string {
	return `${xid}/${low}/${high}`;
}
