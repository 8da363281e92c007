/**
 * Open handles in memory that outlives the process: a mount goes on with the same handles when another process serves it. The process may be killed between any two stores.
 *
 * Memory: 64 bytes of header {magic u32, version u32, volume (16 bytes), session u64, capacity u32, CRC32C of the 36 bytes before u32}, then 32 bytes for each handle: state u32 (0 = free,
 * else bits), generation u32, ino u64, request low u32, request high u32, uid u32, gid u32. Little-endian. A handle's number is generation * capacity + its place, so that a number
 * does not come back when its place does.
 *
 * Invariants
 *  M1 A place counts as open exactly while its state word is not 0; the word is stored last when a handle is kept, and first when it is let go.
 *  M2 A place is given out once until it is freed.
 *  M3 What is there is believed only when the header names this volume and this session, and a bit that is not known here refuses all of it: a handle must not be taken for one that may less, or more.
 */
import { assert } from "../../base/assert.ts";
import { equalBytes, parseUuid } from "../../base/bytes.ts";
import { FsError, newerFormat, newerVersion } from "../../base/errors.ts";
import { crc32c } from "../../codec/checksum.ts";
import type { HandleId, Ino } from "../interface.ts";
import type { SessionOptions } from "./interface.ts";

const magic = 0x3148_4443; // "CDH1"
const formatVersion = 2;
const headerBytes = 64;
const headerUsed = 40;
const entryBytes = 32;
const bits = { open: 1, read: 2, write: 4, append: 8, sync: 16, failed: 32, trusted: 64 } as const;
const knownBits = Object.values(bits).reduce((sum, bit) => sum | bit, 0);

export interface StoredHandle {
	readonly ino: Ino;
	readonly read: boolean;
	readonly write: boolean;
	readonly append: boolean;
	readonly sync: boolean;
	/** It has an error to report. */
	readonly failed: boolean;
	readonly trusted: boolean;
	readonly uid: number;
	readonly gid: number;
	/** 0, 0: it was not opened by a request that could be sent again. */
	readonly requestLow: number;
	readonly requestHigh: number;
}

export interface FoundHandle extends StoredHandle {
	readonly id: HandleId;
}

export const handleMemoryBytes = (handles: number): number => headerBytes + handles * entryBytes;

export class HandleMemory {
	/** What the session had open when it was resumed. */
	readonly found: readonly FoundHandle[];
	readonly #words: Uint32Array;
	readonly #view: DataView;
	readonly #capacity: number;
	/** Places that were used and are free again; the last one is given out first. */
	readonly #free: number[] = [];
	/** From here on no place was ever used. */
	#fresh = 0;

	/** @throws FsError REFUSED when a session is to be resumed and its handles are not here. */
	constructor(options: { readonly volume: string; readonly session: SessionOptions }, memory: Uint8Array) {
		const { volume, session } = options;
		this.#words = new Uint32Array(memory.buffer, memory.byteOffset, Math.floor(memory.length / 4));
		this.#view = new DataView(memory.buffer, memory.byteOffset, memory.length);
		this.#capacity = Math.floor((memory.length - headerBytes) / entryBytes);
		const header = encodeHeader(parseUuid(volume), session.id, this.#capacity);
		if (session.resume) {
			if (!equalBytes(memory.subarray(0, headerUsed), header)) {
				throw new FsError("REFUSED", "volume.session-lost", "what this mount has open is not known any more: it cannot be taken over", {
					volume,
				});
			}
			this.found = this.#find();
			return;
		}
		assert(memory[0] === 0 && this.#words[(headerBytes + 4) / 4] === 0, "a session begins in empty memory");
		memory.set(header);
		this.found = [];
	}

	#find(): FoundHandle[] {
		const found: FoundHandle[] = [];
		// Places are used in order; one without a generation was never used, nor any behind it.
		for (let place = 0; place < this.#capacity && this.#words[this.#wordOf(place) + 1] !== 0; place++) {
			const state = Atomics.load(this.#words, this.#wordOf(place));
			if ((state & ~knownBits) !== 0) throw newerFormat("volume.session-newer", "what this mount has open", `handles of kind ${state}`);
			if (state !== 0) found.push(this.#read(place, state));
			this.#fresh = place + 1;
		}
		const open = new Set(found.map(({ id }) => id % this.#capacity));
		for (let place = this.#fresh - 1; place >= 0; place--) if (!open.has(place)) this.#free.push(place);
		return found;
	}

	#read(place: number, state: number): FoundHandle {
		const at = headerBytes + place * entryBytes;
		const has = (bit: number): boolean => (state & bit) !== 0;
		return {
			id: this.#view.getUint32(at + 4, true) * this.#capacity + place,
			ino: this.#view.getUint32(at + 8, true) + this.#view.getUint32(at + 12, true) * 0x1_0000_0000,
			requestLow: this.#view.getUint32(at + 16, true),
			requestHigh: this.#view.getUint32(at + 20, true),
			uid: this.#view.getUint32(at + 24, true),
			gid: this.#view.getUint32(at + 28, true),
			read: has(bits.read),
			write: has(bits.write),
			append: has(bits.append),
			sync: has(bits.sync),
			failed: has(bits.failed),
			trusted: has(bits.trusted),
		};
	}

	#wordOf(place: number): number {
		return (headerBytes + place * entryBytes) / 4;
	}

	/** A number for a handle; it is open for a successor from `keep` on. Undefined when all are in use. */
	take(): HandleId | undefined {
		const place = this.#free.pop() ?? (this.#fresh < this.#capacity ? this.#fresh++ : undefined);
		if (place === undefined) return undefined;
		const at = this.#wordOf(place);
		assert(this.#words[at] === 0, "M2: the place of a handle is free");
		// 0 stands for "never used".
		const generation = (this.#words[at + 1] as number) === 0xffff_ffff ? 1 : (this.#words[at + 1] as number) + 1;
		this.#words[at + 1] = generation;
		return generation * this.#capacity + place;
	}

	keep(id: HandleId, handle: StoredHandle): void {
		const place = id % this.#capacity;
		const at = headerBytes + place * entryBytes;
		this.#view.setUint32(at + 8, handle.ino % 0x1_0000_0000, true);
		this.#view.setUint32(at + 12, Math.floor(handle.ino / 0x1_0000_0000), true);
		this.#view.setUint32(at + 16, handle.requestLow, true);
		this.#view.setUint32(at + 20, handle.requestHigh, true);
		this.#view.setUint32(at + 24, handle.uid, true);
		this.#view.setUint32(at + 28, handle.gid, true);
		let state: number = bits.open;
		for (const name of ["read", "write", "append", "sync", "failed", "trusted"] as const) if (handle[name]) state |= bits[name];
		Atomics.store(this.#words, this.#wordOf(place), state);
	}

	/** It has an error to report, after a change of processes too. */
	fail(id: HandleId): void {
		const at = this.#wordOf(id % this.#capacity);
		if (this.#words[at] !== 0) Atomics.or(this.#words, at, bits.failed);
	}

	free(id: HandleId): void {
		const place = id % this.#capacity;
		Atomics.store(this.#words, this.#wordOf(place), 0);
		this.#free.push(place);
	}
}

/** @throws FsError REFUSED: what a newer Cairn has left there. */
export function refuseNewerHandles(head: Uint8Array, what: string): void {
	const version = newerVersion(head, magic, formatVersion);
	if (version !== undefined) throw newerFormat("volume.session-newer", what, String(version));
}

function encodeHeader(volume: Uint8Array, session: number, capacity: number): Uint8Array {
	const bytes = new Uint8Array(headerUsed);
	const view = new DataView(bytes.buffer);
	view.setUint32(0, magic, true);
	view.setUint32(4, formatVersion, true);
	bytes.set(volume, 8);
	view.setUint32(24, session % 0x1_0000_0000, true);
	view.setUint32(28, Math.floor(session / 0x1_0000_0000), true);
	view.setUint32(32, capacity, true);
	view.setUint32(36, crc32c(bytes.subarray(0, 36)), true);
	return bytes;
}
