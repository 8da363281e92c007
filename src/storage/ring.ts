/**
 * The ring of written bytes in memory that outlives the process. The process may be killed between any two stores.
 *
 * Memory: a page of header, then the ring. Header: two slots {magic, version, flags, capacity, volume, incarnation, base, CRC32C} at 0
 * and 512, written in turn, the valid one with the highest incarnation counts; at 1024 the tail, position / 8 as one word. Entries carry
 * the incarnation that wrote them: those from `base` to `incarnation` are valid, so that a new incarnation takes the ring over where it
 * is and recovery may be killed as often as you like.
 *
 * Entry, 8-byte aligned: magic u32, length u32, number u64, ino u64, offset u64, seconds i64, nanoseconds u32, reserved u32, incarnation
 * u64, CRC32C u32 (seeded with the volume, over length .. incarnation and the bytes), marks u32 (bit 0: a time was set explicitly
 * afterwards), then the bytes. Little-endian. An entry that does not fit before the end of the memory goes to its beginning; a marker
 * (other magic, length 0) stands in its place where one fits.
 *
 * Invariants
 *  R1 Bytes first, then the next entry's place zeroed, then the header, its magic last; a marker last of all. Replay goes from the tail
 *     and ends at the first place that is no valid entry with a higher number, so it finds exactly what was appended.
 *  R2 The tail passes entries in order, and only those that nobody refers to; the space behind it is used only after the tail was stored.
 *  R3 Numbers rise from entry to entry, over all incarnations.
 */
import { assert } from "../base/assert.ts";
import { alignDown, alignUp, equalBytes, parseUuid } from "../base/bytes.ts";
import { FsError, newerFormat } from "../base/errors.ts";
import { Signal } from "../base/async.ts";
import type { Timestamp } from "../base/time.ts";
import { ByteWriter } from "../codec/binary.ts";
import { crc32c } from "../codec/checksum.ts";
import type { OpenedFrom } from "../log/interface.ts";
import type { Memory } from "../platform/interface.ts";
import type { Ino } from "../records/interface.ts";
import { dirtyLimits } from "./limits.ts";

const headerBytes = 4096;
const slotBytes = 512;
const slotLength = 56;
const tailWord = 1024 / 4;
const headerMagic = 0x3152_4443; // "CDR1"
const formatVersion = 1;

export const entryHeaderBytes = 64;
const entryMagic = 0x4552_4443; // "CDRE"
const markerMagic = 0x5752_4443; // "CDRW"
const numberAt = 8;
const inoAt = 16;
const offsetAt = 24;
const secondsAt = 32;
const nanosecondsAt = 40;
const incarnationAt = 48;
const checksumAt = 56;
const marksAt = 60;
const timeSetMark = 1;

export interface RingOptions {
	/** Formatted uuid. */
	readonly volume: string;
	/** Of this mount. */
	readonly incarnation: number;
	/** What the disks said at opening: rings of these incarnations are believed. */
	readonly opened: Pick<OpenedFrom, "previousIncarnation" | "oldestIncarnation" | "clean">;
}

export interface RingEntry {
	readonly number: number;
	readonly ino: Ino;
	/** Of its header in the ring. */
	readonly position: number;
	readonly lengthBytes: number;
	/** Pieces that refer to it, and whoever is working on it. */
	references: number;
	/** The tail is past it: its place may belong to another entry. */
	passed: boolean;
}

export interface FoundEntry {
	readonly entry: RingEntry;
	readonly offset: number;
	readonly time: Timestamp;
	/** A time was set explicitly after it. */
	readonly timeSet: boolean;
}

interface Slot {
	readonly index: number;
	readonly incarnation: number;
	readonly base: number;
}

export class Ring {
	/** Entries and their bytes. */
	readonly data: Uint8Array;
	/** Entries of earlier incarnations, oldest first, until `settle`. */
	found: readonly FoundEntry[];
	readonly #memory: Uint8Array;
	readonly #words: Uint32Array;
	readonly #view: DataView;
	readonly #capacity: number;
	readonly #volume: Uint8Array;
	readonly #seed: number;
	readonly #incarnation: number;
	/** From #first on in use, oldest first. */
	#queue: RingEntry[] = [];
	#first = 0;
	#head = 0;
	readonly #freed = new Signal();

	constructor(options: RingOptions, memory: Memory) {
		const { bytes } = memory;
		this.#capacity = alignDown(bytes.length - headerBytes, 8);
		assert(bytes.byteOffset % 8 === 0 && this.#capacity >= headerBytes, "the ring is aligned and larger than its header");
		assert(options.incarnation < 2 ** 19, `incarnation ${options.incarnation} leaves no write numbers`);
		this.#memory = bytes;
		this.data = bytes.subarray(headerBytes, headerBytes + this.#capacity);
		this.#words = new Uint32Array(bytes.buffer, bytes.byteOffset, Math.floor(bytes.length / 4));
		this.#view = new DataView(bytes.buffer, bytes.byteOffset + headerBytes, this.#capacity);
		this.#volume = parseUuid(options.volume);
		this.#seed = crc32c(this.#volume);
		this.#incarnation = options.incarnation;
		const believed = this.#believed(options);
		this.found = believed === undefined ? [] : this.#replay(believed);
		if (believed === undefined) this.#format();
		else this.#takeOver(believed);
	}

	get lastNumber(): number {
		return this.#queue[this.#queue.length - 1]?.number ?? 0;
	}

	/** The oldest entry that somebody refers to: what keeps the tail where it is. */
	get oldest(): RingEntry | undefined {
		return this.#queue[this.#first];
	}

	// ── taking over ──────────────────────────────────────────────────────────────────────────────────────────────

	#believed(options: RingOptions): Slot | undefined {
		const { clean, oldestIncarnation, previousIncarnation } = options.opened;
		const newest = this.#slots().sort((a, b) => b.incarnation - a.incarnation)[0];
		if (clean || newest === undefined) return undefined;
		const trusted = newest.incarnation >= oldestIncarnation && newest.incarnation <= previousIncarnation;
		return trusted ? newest : undefined;
	}

	#slots(): Slot[] {
		const slots: Slot[] = [];
		for (const index of [0, 1]) {
			const bytes = this.#memory.subarray(index * slotBytes, index * slotBytes + slotLength);
			const view = new DataView(bytes.buffer, bytes.byteOffset, slotLength);
			const incarnation = readU64(view, 32);
			const base = readU64(view, 40);
			const right =
				view.getUint32(0, true) === headerMagic &&
				view.getUint32(4, true) === formatVersion &&
				view.getUint32(8, true) === 0 &&
				view.getUint32(12, true) === this.#capacity / 8 &&
				equalBytes(bytes.subarray(16, 32), this.#volume) &&
				view.getUint32(48, true) === crc32c(bytes.subarray(0, 48)) &&
				base <= incarnation;
			if (right) slots.push({ index, incarnation, base });
		}
		return slots;
	}

	#writeSlot(index: number, base: number): void {
		const writer = new ByteWriter(slotLength)
			.u32(headerMagic)
			.u32(formatVersion)
			.u32(0)
			.u32(this.#capacity / 8);
		writer.raw(this.#volume).u64(this.#incarnation).u64(base);
		writer.u32(crc32c(writer.view())).u32(0);
		this.#memory.set(writer.view(), index * slotBytes);
	}

	/** Nothing that is there counts any more. */
	#format(): void {
		this.#memory.fill(0, 0, 2 * slotBytes);
		this.#restart();
		this.#writeSlot(0, this.#incarnation);
	}

	#takeOver(believed: Slot): void {
		if (believed.incarnation !== this.#incarnation) this.#writeSlot(1 - believed.index, believed.base);
		if (this.#queue.length === 0) this.#restart();
	}

	/** An empty ring begins at its beginning, so that the largest piece fits. */
	#restart(): void {
		this.#queue = [];
		this.#first = 0;
		this.#head = 0;
		this.#storeMagic(0, 0);
		Atomics.store(this.#words, tailWord, 0);
	}

	#replay(believed: Slot): FoundEntry[] {
		const found: FoundEntry[] = [];
		const tail = (this.#words[tailWord] as number) * 8;
		if (tail > this.#capacity - entryHeaderBytes) return found;
		let position = tail;
		let wrapped = false;
		for (;;) {
			const last = found[found.length - 1]?.entry.number ?? 0;
			const limit = wrapped ? tail : this.#capacity;
			if (limit - position >= entryHeaderBytes && this.#view.getUint32(position, true) === entryMagic) {
				const next = this.#readEntry(position, limit, last, believed);
				if (next === undefined) break;
				found.push(next);
				this.#queue.push(next.entry);
				position += sizeOf(next.entry.lengthBytes);
			} else if (!wrapped && (this.#capacity - position < entryHeaderBytes || this.#isMarker(position, last, believed))) {
				wrapped = true;
				position = 0;
			} else break;
		}
		this.#head = position;
		return found;
	}

	#readEntry(position: number, limit: number, last: number, believed: Slot): FoundEntry | undefined {
		const lengthBytes = this.#view.getUint32(position + 4, true);
		if (lengthBytes === 0 || sizeOf(lengthBytes) > limit - position || !this.#isOurs(position, last, believed)) return undefined;
		if (this.#checksum(position, lengthBytes) !== this.#view.getUint32(position + checksumAt, true)) return undefined;
		const number = readU64(this.#view, position + numberAt);
		const ino = readU64(this.#view, position + inoAt);
		const offset = readU64(this.#view, position + offsetAt);
		const seconds = readI64(this.#view, position + secondsAt);
		const nanoseconds = this.#view.getUint32(position + nanosecondsAt, true);
		if (!Number.isSafeInteger(ino) || !Number.isSafeInteger(offset + lengthBytes) || !Number.isSafeInteger(seconds)) return undefined;
		return {
			entry: { number, ino, position, lengthBytes, references: 0, passed: false },
			offset,
			time: { seconds, nanoseconds },
			timeSet: (this.#view.getUint32(position + marksAt, true) & timeSetMark) !== 0,
		};
	}

	#isOurs(position: number, last: number, believed: Slot): boolean {
		const number = readU64(this.#view, position + numberAt);
		const incarnation = readU64(this.#view, position + incarnationAt);
		return Number.isSafeInteger(number) && number > last && incarnation >= believed.base && incarnation <= believed.incarnation;
	}

	#isMarker(position: number, last: number, believed: Slot): boolean {
		const right = this.#view.getUint32(position, true) === markerMagic && this.#view.getUint32(position + 4, true) === 0;
		if (!right || !this.#isOurs(position, last, believed)) return false;
		return this.#checksum(position, 0) === this.#view.getUint32(position + checksumAt, true);
	}

	// ── appending ────────────────────────────────────────────────────────────────────────────────────────────────

	/** Where an entry of that size goes; undefined while there is no room in one piece. */
	#place(sizeBytes: number): number | undefined {
		const oldest = this.oldest;
		if (oldest === undefined) return sizeBytes <= this.#capacity ? 0 : undefined;
		const tail = oldest.position;
		if (this.#head <= tail) return tail - this.#head >= sizeBytes ? this.#head : undefined;
		if (this.#capacity - this.#head >= sizeBytes) return this.#head;
		return tail >= sizeBytes ? 0 : undefined;
	}

	hasRoom(lengthBytes: number): boolean {
		return this.#place(sizeOf(lengthBytes)) !== undefined;
	}

	/** Resolves when the tail has moved. */
	moved(): Promise<void> {
		return this.#freed.wait();
	}

	/** Copies `bytes`. Call only after hasRoom. The entry comes with one reference, the caller's. */
	append(number: number, ino: Ino, offset: number, bytes: Uint8Array, time: Timestamp): RingEntry {
		const size = sizeOf(bytes.length);
		const position = this.#place(size);
		if (position === undefined) {
			const message = `${bytes.length} bytes do not fit into the memory of unsealed data now: ask hasRoom first`;
			throw new FsError("ENOMEM", "storage.ring-full", message, { bytes: bytes.length, capacity: this.#capacity });
		}
		assert(number > this.lastNumber, "R3: write numbers rise");
		const marker = this.#queue.length > this.#first && position !== this.#head ? this.#head : undefined;
		this.#storeMagic(position, 0);
		this.data.set(bytes, position + entryHeaderBytes);
		this.#endAt(position + size);
		this.#writeHeader(position, bytes.length, number, ino, offset, time);
		this.#storeMagic(position, entryMagic);
		if (marker !== undefined && this.#capacity - marker >= entryHeaderBytes) {
			this.#writeHeader(marker, 0, number, ino, 0, time);
			this.#storeMagic(marker, markerMagic);
		}
		this.#head = position + size;
		const entry: RingEntry = { number, ino, position, lengthBytes: bytes.length, references: 1, passed: false };
		this.#queue.push(entry);
		return entry;
	}

	/** What is written in a file must never look like the next entry; at the tail an older entry with a lower number ends the replay. */
	#endAt(position: number): void {
		const next = this.#capacity - position < entryHeaderBytes ? 0 : position;
		if (this.oldest?.position !== next) this.#storeMagic(next, 0);
	}

	#writeHeader(position: number, lengthBytes: number, number: number, ino: Ino, offset: number, time: Timestamp): void {
		const view = this.#view;
		view.setUint32(position + 4, lengthBytes, true);
		writeU64(view, position + numberAt, number);
		writeU64(view, position + inoAt, ino);
		writeU64(view, position + offsetAt, offset);
		writeU64(view, position + secondsAt, time.seconds);
		view.setUint32(position + nanosecondsAt, time.nanoseconds, true);
		view.setUint32(position + nanosecondsAt + 4, 0, true);
		writeU64(view, position + incarnationAt, this.#incarnation);
		view.setUint32(position + checksumAt, this.#checksum(position, lengthBytes), true);
		view.setUint32(position + marksAt, 0, true);
	}

	#checksum(position: number, lengthBytes: number): number {
		const header = crc32c(this.data.subarray(position + 4, position + checksumAt), this.#seed);
		return lengthBytes === 0
			? header
			: crc32c(this.data.subarray(position + entryHeaderBytes, position + entryHeaderBytes + lengthBytes), header);
	}

	/** One store that cannot be seen half done. */
	#storeMagic(position: number, magic: number): void {
		Atomics.store(this.#words, (headerBytes + position) / 4, magic);
	}

	/** A time was set explicitly after this entry, the newest of its inode. */
	markTimeSet(entry: RingEntry): void {
		if (!entry.passed) this.#view.setUint32(entry.position + marksAt, timeSetMark, true);
	}

	// ── letting go ───────────────────────────────────────────────────────────────────────────────────────────────

	release(entry: RingEntry): void {
		entry.references--;
		assert(entry.references >= 0, "R2: an entry is let go of once by each");
		if (entry.references === 0 && entry === this.oldest) this.#advance();
	}

	/** Where in `data` its bytes begin. */
	dataAt(entry: RingEntry): number {
		return entry.position + entryHeaderBytes;
	}

	/** What was found is referred to, or not wanted. */
	settle(): void {
		this.found = [];
		this.#advance();
	}

	/** Moves the tail over entries that nobody refers to. */
	#advance(): void {
		const before = this.#first;
		for (let entry = this.oldest; entry !== undefined && entry.references === 0; entry = this.oldest) {
			entry.passed = true;
			this.#first++;
		}
		if (this.#first === before) return;
		const oldest = this.oldest;
		if (oldest === undefined) this.#restart();
		else Atomics.store(this.#words, tailWord, oldest.position / 8);
		if (this.#first > 1024 && this.#first * 2 > this.#queue.length) {
			this.#queue = this.#queue.slice(this.#first);
			this.#first = 0;
		}
		this.#freed.notifyAll();
	}

	/** Wakes everybody who waits for `moved`. */
	wake(): void {
		this.#freed.notifyAll();
	}
}

/** @throws FsError REFUSED: what a newer Cairn has left there. */
export function refuseNewerRing(head: Uint8Array, what: string): void {
	for (const index of [0, 1]) {
		const bytes = head.slice(index * slotBytes, index * slotBytes + slotLength);
		if (bytes.length < slotLength) return;
		const view = new DataView(bytes.buffer);
		const [version, flags] = [view.getUint32(4, true), view.getUint32(8, true)];
		const isRing = view.getUint32(0, true) === headerMagic && view.getUint32(48, true) === crc32c(bytes.subarray(0, 48));
		if (isRing && (version > formatVersion || flags !== 0)) throw newerFormat("storage.memory-newer", what, `${version}.${flags}`);
	}
}

function sizeOf(lengthBytes: number): number {
	return entryHeaderBytes + alignUp(lengthBytes, 8);
}

/** First write number of an incarnation. */
export function firstNumber(incarnation: number): number {
	return incarnation * dirtyLimits.numbersPerIncarnation;
}

/** Two's complement for a negative one. */
function writeU64(view: DataView, at: number, value: number): void {
	const high = Math.floor(value / 0x1_0000_0000);
	view.setUint32(at, value - high * 0x1_0000_0000, true);
	view.setInt32(at + 4, high, true);
}

/** May be no safe integer. */
function readU64(view: DataView, at: number): number {
	return view.getUint32(at, true) + view.getUint32(at + 4, true) * 0x1_0000_0000;
}

function readI64(view: DataView, at: number): number {
	return view.getUint32(at, true) + view.getInt32(at + 4, true) * 0x1_0000_0000;
}
