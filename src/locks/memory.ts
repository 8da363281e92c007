/**
 * Locks in memory that outlives the process: programs go on holding what they have locked when another process serves their mount (the volatile class: nobody else remembers these locks, the kernel does not).
 * The process may be killed between any two stores.
 *
 * Memory: 64 bytes of header {magic u32, version u32, volume (16 bytes), session u64, records in a half u32, CRC32C of the 36 bytes before u32, which half u32, records in each half 2 × u32}, then two halves of records of
 * 64 bytes: {kind u8, class u8, 2 bytes of 0, pid u32, ino f64, owner u64, start u64, end u64, handle f64 (NaN: none), since f64 (ms since 1970), request low u32, request high u32}. Little-endian.
 *
 * The half in use is a log of what changed: locks that were set, ranges that were cleared, and with each the request that asked for it. When it is full, what is held is written to the other half, and that one is used.
 *
 * Invariants
 *  V1 Records count up to the half's number of records, which is stored after them: what one command changed is there altogether or not at all.
 *  V2 The half in use is changed to after the other one is complete.
 *  V3 What is there is believed only when the header names this volume and this session, and a kind of record or lock that is not known here refuses all of it.
 *  V4 A half has room for everything that may be held, the notes that are carried over, and one more command.
 */
import { assert } from "../base/assert.ts";
import { equalBytes, parseUuid } from "../base/bytes.ts";
import { FsError, newerFormat, newerVersion } from "../base/errors.ts";
import { crc32c } from "../codec/checksum.ts";
import { type LockClass, lockClasses } from "./matrix.ts";
import { positionOf, type Range, wordsOf } from "./range.ts";

const magic = 0x314b_4c43; // "CLK1"
const formatVersion = 1;
const headerBytes = 64;
const headerUsed = 40;
const recordBytes = 64;
const kinds = { set: 1, clear: 2, note: 3 } as const;
/** Places of the words that change, of the header. */
const activeWord = 10;
const countWord = 11;

/** Names a request for those who send it again. */
export interface RequestName {
	readonly low: number;
	readonly high: number;
}

export interface StoredLock {
	readonly class: LockClass;
	readonly ino: number;
	/** 64 bits, high word first. */
	readonly owner: readonly [number, number];
	readonly range: Range;
	readonly handle: number | undefined;
	readonly pid: number;
	readonly sinceRealMs: number;
}

export type LockRecord =
	| { readonly kind: "set"; readonly lock: StoredLock; readonly request: RequestName }
	/** Of the class only the family counts. */
	| { readonly kind: "clear"; readonly lock: StoredLock; readonly request: RequestName }
	| { readonly kind: "note"; readonly request: RequestName };

export const lockMemoryBytes = (records: number): number => headerBytes + 2 * records * recordBytes;

const noRequest: RequestName = { low: 0, high: 0 };

export class LockMemory {
	/** What the session had changed when it was resumed, in order. */
	readonly found: readonly LockRecord[];
	readonly #words: Uint32Array;
	readonly #view: DataView;
	readonly #capacity: number;
	/** The half in use and how much of it. */
	#active: number;
	#count: number;

	/** @throws FsError REFUSED when a session is to be resumed and its locks are not here. */
	constructor(
		options: { readonly volume: string; readonly session: { readonly id: number; readonly resume: boolean } },
		memory: Uint8Array,
	) {
		this.#words = new Uint32Array(memory.buffer, memory.byteOffset, Math.floor(memory.length / 4));
		this.#view = new DataView(memory.buffer, memory.byteOffset, memory.length);
		this.#capacity = Math.floor((memory.length - headerBytes) / recordBytes / 2);
		const header = encodeHeader(parseUuid(options.volume), options.session.id, this.#capacity);
		if (!options.session.resume) {
			assert(this.#words[0] === 0 && this.#words[countWord] === 0, "a session begins in empty memory");
			memory.set(header);
		} else if (!equalBytes(memory.subarray(0, headerUsed), header)) {
			const data = { volume: options.volume };
			throw new FsError(
				"REFUSED",
				"locks.session-lost",
				"what programs have locked is not known any more: their mount cannot be taken over",
				data,
			);
		}
		this.#active = (this.#words[activeWord] as number) & 1;
		this.#count = Math.min(this.#capacity, Atomics.load(this.#words, countWord + this.#active));
		this.found = Array.from({ length: this.#count }, (_, at) => this.#read(this.#active, at));
	}

	get capacity(): number {
		return this.#capacity;
	}

	/** Records since the half in use was begun. */
	get used(): number {
		return this.#count;
	}

	/** Of one command, altogether. False when there is no room: write everything anew with `rewrite`. */
	append(records: readonly LockRecord[]): boolean {
		if (this.#count + records.length > this.#capacity) return false;
		for (const [at, record] of records.entries()) this.#write(this.#active, this.#count + at, record);
		this.#count += records.length;
		Atomics.store(this.#words, countWord + this.#active, this.#count);
		return true;
	}

	/** V2. */
	rewrite(records: readonly LockRecord[]): void {
		assert(records.length <= this.#capacity, "V4: what is held fits");
		const other = 1 - this.#active;
		for (const [at, record] of records.entries()) this.#write(other, at, record);
		Atomics.store(this.#words, countWord + other, records.length);
		Atomics.store(this.#words, activeWord, other);
		this.#active = other;
		this.#count = records.length;
	}

	#at(half: number, index: number): number {
		return headerBytes + (half * this.#capacity + index) * recordBytes;
	}

	#write(half: number, index: number, record: LockRecord): void {
		const at = this.#at(half, index);
		const view = this.#view;
		view.setUint32(at + 56, record.request.low, true);
		view.setUint32(at + 60, record.request.high, true);
		view.setUint8(at, kinds[record.kind]);
		if (record.kind === "note") return;
		const { lock } = record;
		view.setUint8(at + 1, lockClasses.indexOf(lock.class));
		view.setUint32(at + 4, lock.pid, true);
		view.setFloat64(at + 8, lock.ino, true);
		this.#setWords(at + 16, lock.owner);
		this.#setWords(at + 24, wordsOf(lock.range.start));
		this.#setWords(at + 32, wordsOf(lock.range.end));
		view.setFloat64(at + 40, lock.handle ?? Number.NaN, true);
		view.setFloat64(at + 48, lock.sinceRealMs, true);
	}

	#setWords(at: number, [high, low]: readonly [number, number]): void {
		this.#view.setUint32(at, low, true);
		this.#view.setUint32(at + 4, high, true);
	}

	#getWords(at: number): readonly [number, number] {
		return [this.#view.getUint32(at + 4, true), this.#view.getUint32(at, true)];
	}

	#read(half: number, index: number): LockRecord {
		const at = this.#at(half, index);
		const view = this.#view;
		const request = { low: view.getUint32(at + 56, true), high: view.getUint32(at + 60, true) };
		const kind = view.getUint8(at);
		if (kind === kinds.note) return { kind: "note", request };
		const lockClass = lockClasses[view.getUint8(at + 1)];
		if ((kind !== kinds.set && kind !== kinds.clear) || lockClass === undefined || view.getUint16(at + 2, true) !== 0) {
			const format = `record ${kind} of class ${view.getUint8(at + 1)}`;
			throw newerFormat("locks.session-newer", "what programs have locked", format);
		}
		const handle = view.getFloat64(at + 40, true);
		const lock: StoredLock = {
			class: lockClass,
			ino: view.getFloat64(at + 8, true),
			owner: this.#getWords(at + 16),
			range: { start: positionOf(...this.#getWords(at + 24)), end: positionOf(...this.#getWords(at + 32)) },
			handle: Number.isNaN(handle) ? undefined : handle,
			pid: view.getUint32(at + 4, true),
			sinceRealMs: view.getFloat64(at + 48, true),
		};
		return { kind: kind === kinds.set ? "set" : "clear", lock, request };
	}
}

export function isNamed({ low, high }: RequestName): boolean {
	return low !== noRequest.low || high !== noRequest.high;
}

/** @throws FsError REFUSED: what a newer Cairn has left there. */
export function refuseNewerLocks(head: Uint8Array, what: string): void {
	const version = newerVersion(head, magic, formatVersion);
	if (version !== undefined) throw newerFormat("locks.session-newer", what, String(version));
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
