/**
 * The memory tail: records that were acknowledged but are not yet written to all mirrors, in memory that outlives the process.
 *
 * Header page (4 KiB): two slots of 64 bytes, written alternately, the valid one with the higher counter wins:
 *   magic "CAIRNMT1" · version u32 · CRC32C u32 (over the slot with this field zero) · counter u64 · volume 16 · incarnation u64 · head
 *   u64 · released u64
 * Ring (the rest): entries, 8-byte aligned, never across the end:
 *   CRC32C u32 (over what follows) · payload length u32 · sequence u64 · chain u32 · incarnation u32 · payload · padding
 * A length of 2^32 - 1 says that the ring goes on at its start.
 *
 * Invariants
 *  M1 An entry counts only when its checksum is right, its incarnation is the header's and its sequence follows the one before it. So a
 *     process that dies between any two stores leaves a tail that ends before or after the entry that was being appended.
 *  M2 The bytes of an entry are used again only after a header slot that no longer covers it has been written completely.
 *  M3 `head` and the positions here are counted on and on; the place in the ring is the position modulo its size.
 */
import { assert } from "../base/assert.ts";
import { bytesToLatin1, formatUuid, latin1ToBytes, parseUuid } from "../base/bytes.ts";
import { FsError, newerFormat } from "../base/errors.ts";
import { ByteReader, ByteWriter } from "../codec/binary.ts";
import { crc32c } from "../codec/checksum.ts";
import type { Memory } from "../platform/interface.ts";
import type { ChainedRecord } from "./record.ts";

const magic = "CAIRNMT1";
const version = 1;
const headerPageBytes = 4096;
const slotBytes = 64;
const slotChecksumAt = 12;
const slotCounterAt = 16;
const slotHeadAt = 48;
const slotReleasedAt = 56;
const entryHeaderBytes = 24;
const wrapLength = 0xffff_ffff;
const alignment = 8;
/** Below this not even one ordinary commit fits. */
const minimumBytes = 64 * 1024;

interface Header {
	readonly counter: number;
	readonly volume: string;
	readonly incarnation: number;
	readonly head: number;
	readonly released: number;
}

function entryBytes(payloadBytes: number): number {
	return Math.ceil((entryHeaderBytes + payloadBytes) / alignment) * alignment;
}

export interface TailIdentity {
	readonly volume: string;
	readonly incarnation: number;
}

export class MemoryTail {
	readonly #bytes: Uint8Array;
	readonly #view: DataView;
	readonly #ringBytes: number;
	readonly #identity: TailIdentity;
	readonly #header: ReturnType<typeof headerSlot>;
	/** Where the oldest entry starts and where the next one goes (M3). */
	#head = 0;
	#next = 0;
	#counter: number;
	#released: number;
	/** Live entries, oldest first: the sequence and where it ends. */
	#entries: { readonly sequence: number; readonly end: number }[] = [];
	#firstEntry = 0;

	/** Empties the memory: whatever it held must be durable elsewhere. `released` = the sequence before the first that will be appended. */
	constructor(memory: Memory, identity: TailIdentity, released: number) {
		const size = memory.bytes.length;
		if (size < minimumBytes) {
			throw new FsError("EINVAL", "log.memory-small", `the memory tail has ${size} bytes; it needs at least ${minimumBytes}`);
		}
		this.#bytes = memory.bytes;
		this.#view = new DataView(memory.bytes.buffer, memory.bytes.byteOffset, memory.bytes.byteLength);
		this.#ringBytes = Math.floor((size - headerPageBytes) / alignment) * alignment;
		this.#identity = identity;
		this.#header = headerSlot(identity);
		this.#counter = newestHeader(memory.bytes)?.counter ?? 0;
		this.#released = released;
		// Twice: neither slot may speak of the memory's former life.
		this.#writeHeader();
		this.#writeHeader();
	}

	get liveBytes(): number {
		return this.#next - this.#head;
	}

	/** Largest payload that fits when it is empty. */
	get maximumPayload(): number {
		return this.#ringBytes / 2 - entryHeaderBytes;
	}

	hasRoom(payloadBytes: number): boolean {
		return this.#place(entryBytes(payloadBytes)) + entryBytes(payloadBytes) - this.#head <= this.#ringBytes;
	}

	/** Position where an entry of that size goes: here, or at the ring's start when it does not fit before the end. */
	#place(bytes: number): number {
		const inRing = this.#next % this.#ringBytes;
		return inRing + bytes <= this.#ringBytes ? this.#next : this.#next + this.#ringBytes - inRing;
	}

	append(record: ChainedRecord): void {
		assert(this.hasRoom(record.payload.length), "the memory tail has room");
		const bytes = entryBytes(record.payload.length);
		const position = this.#place(bytes);
		if (position !== this.#next) {
			const marker = headerPageBytes + (this.#next % this.#ringBytes);
			this.#view.setUint32(marker + 4, wrapLength, true);
		}
		const at = headerPageBytes + (position % this.#ringBytes);
		this.#bytes.set(record.payload, at + entryHeaderBytes);
		this.#view.setUint32(at + 4, record.payload.length, true);
		this.#view.setUint32(at + 8, record.sequence % 0x1_0000_0000, true);
		this.#view.setUint32(at + 12, Math.floor(record.sequence / 0x1_0000_0000), true);
		this.#view.setUint32(at + 16, record.previous, true);
		this.#view.setUint32(at + 20, this.#identity.incarnation % 0x1_0000_0000, true);
		const checksum = crc32c(this.#bytes.subarray(at + 4, at + entryHeaderBytes + record.payload.length));
		this.#view.setUint32(at, checksum, true);
		this.#next = position + bytes;
		this.#entries.push({ sequence: record.sequence, end: this.#next });
	}

	/** Records up to `sequence` are in the files of all mirrors. */
	release(sequence: number): void {
		let head = this.#head;
		let released = this.#released;
		while (this.#firstEntry < this.#entries.length) {
			const entry = this.#entries[this.#firstEntry] as { sequence: number; end: number };
			if (entry.sequence > sequence) break;
			head = entry.end;
			released = entry.sequence;
			this.#firstEntry++;
		}
		if (head === this.#head) return;
		this.#released = released;
		this.#writeHeader(head);
		this.#head = head;
		if (this.#firstEntry > 1024 && this.#firstEntry * 2 > this.#entries.length) {
			this.#entries = this.#entries.slice(this.#firstEntry);
			this.#firstEntry = 0;
		}
	}

	/** With each batch of the log, so only what changes is encoded. */
	#writeHeader(head = this.#head): void {
		this.#counter++;
		const { slot, view } = this.#header;
		setU64(view, slotCounterAt, this.#counter);
		setU64(view, slotHeadAt, head);
		setU64(view, slotReleasedAt, this.#released);
		view.setUint32(slotChecksumAt, 0, true);
		view.setUint32(slotChecksumAt, crc32c(slot), true);
		this.#bytes.set(slot, (this.#counter % 2) * slotBytes);
	}
}

/** A header slot of this identity; counter, head, what was released and the checksum are still to come. */
function headerSlot({ volume, incarnation }: TailIdentity): { readonly slot: Uint8Array; readonly view: DataView } {
	const out = new ByteWriter(slotBytes).raw(latin1ToBytes(magic)).u32(version).u32(0).u64(0);
	out.raw(parseUuid(volume)).u64(incarnation).u64(0).u64(0);
	const slot = new Uint8Array(slotBytes);
	slot.set(out.view());
	return { slot, view: new DataView(slot.buffer) };
}

function setU64(view: DataView, at: number, value: number): void {
	view.setUint32(at, value % 0x1_0000_0000, true);
	view.setUint32(at + 4, Math.floor(value / 0x1_0000_0000), true);
}

function newestHeader(bytes: Uint8Array): Header | undefined {
	let newest: Header | undefined;
	for (const at of [0, slotBytes]) {
		const header = decodeHeader(bytes.slice(at, at + slotBytes));
		if (header && header.counter >= (newest?.counter ?? 0)) newest = header;
	}
	return newest;
}

function decodeHeader(slot: Uint8Array): Header | undefined {
	try {
		const input = new ByteReader(slot, "memory tail");
		if (bytesToLatin1(input.raw(8)) !== magic || input.u32() !== version) return undefined;
		const checksum = input.u32();
		const header = {
			counter: input.u64(),
			volume: formatUuid(input.raw(16)),
			incarnation: input.u64(),
			head: input.u64(),
			released: input.u64(),
		};
		const checked = slot.slice(0, slotBytes);
		checked.fill(0, slotChecksumAt, slotChecksumAt + 4);
		return crc32c(checked) === checksum ? header : undefined;
	} catch {
		// Short, or a number beyond 2^53: no header.
		return undefined;
	}
}

/** Everything up to here a former process had written to the files of all mirrors; undefined when the memory is not of this volume and incarnation. */
export function readReleased(memory: Memory, identity: TailIdentity): number | undefined {
	const header = memory.bytes.length < minimumBytes ? undefined : newestHeader(memory.bytes);
	return header?.volume === identity.volume && header.incarnation === identity.incarnation ? header.released : undefined;
}

/** @throws FsError REFUSED: what a newer Cairn has left there. */
export function refuseNewerTail(head: Uint8Array, what: string): void {
	for (const at of [0, slotBytes]) {
		const slot = head.slice(at, at + slotBytes);
		if (slot.length < slotBytes || bytesToLatin1(slot.subarray(0, 8)) !== magic) continue;
		const view = new DataView(slot.buffer);
		const found = view.getUint32(8, true);
		const checksum = view.getUint32(slotChecksumAt, true);
		view.setUint32(slotChecksumAt, 0, true);
		if (found > version && crc32c(slot) === checksum) throw newerFormat("log.memory-newer", what, `${found}`);
	}
}

/**
 * The records that a former process left, oldest first, as views; empty when the memory is not of this volume and incarnation.
 * Any bytes are fine.
 */
export function readMemoryTail(memory: Memory, identity: TailIdentity): ChainedRecord[] {
	const bytes = memory.bytes;
	const ringBytes = Math.floor((bytes.length - headerPageBytes) / alignment) * alignment;
	if (bytes.length < minimumBytes) return [];
	const header = newestHeader(bytes);
	if (!header || header.volume !== identity.volume || header.incarnation !== identity.incarnation || header.head % alignment !== 0)
		return [];
	const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
	const records: ChainedRecord[] = [];
	let position = header.head;
	// Within one lap: further on would be what was read already.
	while (position - header.head < ringBytes) {
		const inRing = position % ringBytes;
		const at = headerPageBytes + inRing;
		const length = view.getUint32(at + 4, true);
		if (length === wrapLength) {
			position += ringBytes - inRing;
			continue;
		}
		if (entryBytes(length) > ringBytes - inRing) break;
		const record = decodeEntry(bytes, view, at, length, identity.incarnation);
		if (record?.sequence !== header.released + records.length + 1) break;
		records.push(record);
		position += entryBytes(length);
	}
	return records;
}

function decodeEntry(bytes: Uint8Array, view: DataView, at: number, length: number, incarnation: number): ChainedRecord | undefined {
	const end = at + entryHeaderBytes + length;
	if (crc32c(bytes.subarray(at + 4, end)) !== view.getUint32(at, true)) return undefined;
	if (view.getUint32(at + 20, true) !== incarnation % 0x1_0000_0000) return undefined;
	const sequence = view.getUint32(at + 8, true) + view.getUint32(at + 12, true) * 0x1_0000_0000;
	return { sequence, previous: view.getUint32(at + 16, true), payload: bytes.subarray(at + entryHeaderBytes, end) };
}
