/**
 * The duplicate-request cache: a client that sends a call again (it lost its connection before the reply) gets the reply of then, and nothing is done twice. Only of calls that would answer or do something else the second time.
 *
 * Invariants
 *  D1 While a call is under way, the same call is not carried out again: its sender gets the same reply.
 *  D2 Entries and bytes are bounded; the oldest finished ones go first.
 */
import { assert } from "../../base/assert.ts";
import { crc32c } from "../../codec/checksum.ts";
import { cacheKeyBytes, maxReplyCacheBytes, maxReplyCacheEntries } from "./limits.ts";

export interface Reply {
	readonly parts: readonly Uint8Array[];
	/** False: "ask again later" is no answer to keep. */
	readonly keep: boolean;
	/** Parts lie in a borrowed buffer (never those of a reply that is kept). */
	readonly release?: (() => void) | undefined;
}

interface Entry {
	readonly reply: Promise<Reply | undefined>;
	/** Undefined while it is under way. */
	bytes: number | undefined;
}

const entryCost = 200;

export class ReplyCache {
	readonly #entries = new Map<string, Entry>();
	#bytes = 0;
	#hits = 0;

	get hits(): number {
		return this.#hits;
	}

	get size(): number {
		return this.#entries.size;
	}

	/** `address` and the message tell the call. A reply of `undefined` (none is sent) or a failure is not kept. */
	answer(address: string, message: Uint8Array, work: () => Promise<Reply | undefined>): Promise<Reply | undefined> {
		const key = `${address}/${message.length}/${crc32c(message.subarray(0, cacheKeyBytes))}/${xidOf(message)}`;
		const known = this.#entries.get(key);
		if (known !== undefined) {
			this.#hits++;
			return known.reply;
		}
		const reply = work();
		const entry: Entry = { reply, bytes: undefined };
		this.#entries.set(key, entry);
		reply.then(
			(settled) => this.#settle(key, entry, settled),
			() => this.#entries.delete(key),
		);
		return reply;
	}

	#settle(key: string, entry: Entry, settled: Reply | undefined): void {
		if (settled?.keep !== true) {
			this.#entries.delete(key);
			return;
		}
		entry.bytes = settled.parts.reduce((sum, part) => sum + part.length, entryCost);
		this.#bytes += entry.bytes;
		// From the end of the call, not from its beginning.
		this.#entries.delete(key);
		this.#entries.set(key, entry);
		for (const [oldest, { bytes }] of this.#entries) {
			if (this.#entries.size <= maxReplyCacheEntries && this.#bytes <= maxReplyCacheBytes) break;
			if (bytes === undefined) continue;
			this.#entries.delete(oldest);
			this.#bytes -= bytes;
		}
		assert(this.#bytes >= 0, "bytes of cached replies");
	}
}

function xidOf(message: Uint8Array): number {
	return new DataView(message.buffer, message.byteOffset, 4).getUint32(0);
}
