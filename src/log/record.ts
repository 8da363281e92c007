/**
 * The bytes of the log: records, batches, segment headers.
 *
 * A record, little-endian, padded with zeros to 8:
 *    0 magic u32 "CLR1"        4 CRC32C u32 over bytes 8 … end of the payload
 *    8 type u16 (1)           10 flags u16 (0)            12 log epoch u32
 *   16 sequence u64           24 payload length u32       28 chain u32: `chainChecksum` of the record before
 *   32 highest sequence acknowledged as durable when it was written, u64
 *   40 first 8 bytes of the volume's uuid                 48 payload
 * A batch is records one after the other, from a 4 KiB boundary, padded with zeros to 4 KiB: a sector that was synced is never written again, not by a drive whose real sectors have 4 KiB and not by a page cache,
 * which writes whole pages; and no page has to be read from the disk before a part of it is written.
 *
 * The chain covers sequences and payloads, not the epoch, so that a record written again in a later epoch has the same place in it.
 */
import { bytesToLatin1, formatUuid, latin1ToBytes, parseUuid } from "../base/bytes.ts";
import { newerFormat } from "../base/errors.ts";
import { ByteReader, ByteWriter } from "../codec/binary.ts";
import { crc32c } from "../codec/checksum.ts";

export const recordHeaderBytes = 48;
export const sectorBytes = 4096;
/** The first sector of a segment names it; batches follow. */
export const segmentHeaderBytes = sectorBytes;
const recordMagic = 0x31524c43;
const recordType = 1;
const volumePrefixBytes = 8;
const alignment = 8;

export interface ChainedRecord {
	readonly sequence: number;
	readonly payload: Uint8Array;
	/** `chainChecksum` of the record before it. */
	readonly previous: number;
}

export interface FoundRecord extends ChainedRecord {
	readonly epoch: number;
	/** Highest sequence that had been acknowledged as durable when it was written. */
	readonly acknowledged: number;
	/** Where it starts in the bytes that were scanned. */
	readonly offset: number;
}

/** What a record adds to the chain. */
export function chainChecksum(record: ChainedRecord): number {
	return crc32c(record.payload, crc32c(sequenceBytes(record.sequence), record.previous));
}

/** As a u64, without a view: every commit does this, and so small an array lies in the heap. */
function sequenceBytes(sequence: number): Uint8Array {
	const bytes = new Uint8Array(8);
	const high = Math.floor(sequence / 0x1_0000_0000);
	for (let i = 0; i < 4; i++) {
		bytes[i] = sequence >>> (8 * i);
		bytes[4 + i] = high >>> (8 * i);
	}
	return bytes;
}

function padTo(value: number, to: number): number {
	return Math.ceil(value / to) * to;
}

/** Room that a record takes in a batch. */
export function recordBytes(payloadBytes: number): number {
	return padTo(recordHeaderBytes + payloadBytes, alignment);
}

/** Room that it takes at most: alone in its batch. */
export function loneRecordBytes(payloadBytes: number): number {
	return padTo(recordHeaderBytes + payloadBytes, sectorBytes);
}

export function batchBytes(records: readonly ChainedRecord[]): number {
	let bytes = 0;
	for (const record of records) bytes += recordBytes(record.payload.length);
	return padTo(bytes, sectorBytes);
}

export function encodeBatch(records: readonly ChainedRecord[], volume: string, epoch: number, acknowledged: number): Uint8Array {
	const bytes = new Uint8Array(batchBytes(records));
	encodeBatchInto(bytes, records, volumePrefix(volume), epoch, acknowledged);
	return bytes;
}

/** What a record says of its volume. */
export function volumePrefix(volume: string): Uint8Array {
	return parseUuid(volume).subarray(0, volumePrefixBytes);
}

/** Fills `bytes`, which are `batchBytes` long. */
export function encodeBatchInto(
	bytes: Uint8Array,
	records: readonly ChainedRecord[],
	prefix: Uint8Array,
	epoch: number,
	acknowledged: number,
): void {
	bytes.fill(0);
	const view = new DataView(bytes.buffer, bytes.byteOffset);
	let at = 0;
	const header = new ByteWriter(recordHeaderBytes).u32(recordMagic).u32(0).u16(recordType).u16(0).u32(epoch);
	header.u64(0).u32(0).u32(0).u64(acknowledged).raw(prefix);
	for (const record of records) {
		bytes.set(header.view(), at);
		view.setUint32(at + 16, record.sequence % 0x1_0000_0000, true);
		view.setUint32(at + 20, Math.floor(record.sequence / 0x1_0000_0000), true);
		view.setUint32(at + 24, record.payload.length, true);
		view.setUint32(at + 28, record.previous, true);
		bytes.set(record.payload, at + recordHeaderBytes);
		const checksum = crc32c(bytes.subarray(at + 8, at + recordHeaderBytes + record.payload.length));
		view.setUint32(at + 4, checksum, true);
		at += recordBytes(record.payload.length);
	}
}

/**
 * Finds the valid records of a volume in a segment's bytes (or the start of them), from `start` on. Damage is stepped over: after it the
 * next valid record at any 8-byte boundary is found. Payloads are views. Any bytes are fine.
 */
export function* scanRecords(bytes: Uint8Array, start: number, volume: string): Generator<FoundRecord> {
	const input = new SegmentBytes(bytes, volumePrefix(volume));
	let at = padTo(start, alignment);
	while (at + recordHeaderBytes <= bytes.length) {
		const record = input.recordAt(at);
		if (record) {
			yield record;
			at += recordBytes(record.payload.length);
		} else {
			at = input.nextMagic(at + alignment);
		}
	}
}

/** The record that starts exactly at `offset`; undefined when there is none, or when it goes on beyond `bytes`. */
export function recordAt(bytes: Uint8Array, offset: number, volume: string): FoundRecord | undefined {
	if (offset + recordHeaderBytes > bytes.length) return undefined;
	return new SegmentBytes(bytes, volumePrefix(volume)).recordAt(offset);
}

class SegmentBytes {
	readonly #bytes: Uint8Array;
	readonly #view: DataView;
	readonly #prefix: Uint8Array;

	constructor(bytes: Uint8Array, prefix: Uint8Array) {
		this.#bytes = bytes;
		this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
		this.#prefix = prefix;
	}

	recordAt(at: number): FoundRecord | undefined {
		const view = this.#view;
		if (view.getUint32(at, true) !== recordMagic || view.getUint16(at + 8, true) !== recordType || view.getUint16(at + 10, true) !== 0)
			return undefined;
		const length = view.getUint32(at + 24, true);
		const end = at + recordHeaderBytes + length;
		if (end > this.#bytes.length || !this.#prefix.every((byte, i) => byte === this.#bytes[at + 40 + i])) return undefined;
		if (crc32c(this.#bytes.subarray(at + 8, end)) !== view.getUint32(at + 4, true)) return undefined;
		const sequence = this.#u64(at + 16);
		const acknowledged = this.#u64(at + 32);
		if (!Number.isSafeInteger(sequence) || !Number.isSafeInteger(acknowledged)) return undefined;
		const payload = this.#bytes.subarray(at + recordHeaderBytes, end);
		return { sequence, acknowledged, payload, epoch: view.getUint32(at + 12, true), previous: view.getUint32(at + 28, true), offset: at };
	}

	#u64(at: number): number {
		return this.#view.getUint32(at, true) + this.#view.getUint32(at + 4, true) * 0x1_0000_0000;
	}

	/** Most of a log is zeros: they are passed over in steps. */
	nextMagic(from: number): number {
		const view = this.#view;
		let at = from;
		const last = this.#bytes.length - 4;
		const lastStep = last - 3 * alignment;
		while (at <= last) {
			while (at <= lastStep && isZeroStep(view, at)) at += 4 * alignment;
			if (at > last || view.getUint32(at, true) === recordMagic) break;
			at += alignment;
		}
		return at;
	}
}

/** No magic at any of the four next places where a record may start. */
function isZeroStep(view: DataView, at: number): boolean {
	const two = view.getUint32(at, true) | view.getUint32(at + alignment, true);
	return (two | view.getUint32(at + 2 * alignment, true) | view.getUint32(at + 3 * alignment, true)) === 0;
}

// ── segments ─────────────────────────────────────────────────────────────────────────────────────────────────────

const segmentMagic = "CAIRNLG1";
const segmentVersion = 1;
const segmentChecksumAt = 16;

export interface SegmentHeader {
	readonly volume: string;
	readonly diskUuid: string;
	/** Number of the file. */
	readonly number: number;
}

export function encodeSegmentHeader(header: SegmentHeader): Uint8Array {
	const out = new ByteWriter(sectorBytes).raw(latin1ToBytes(segmentMagic)).u32(segmentVersion).u32(0).u32(0);
	out.raw(parseUuid(header.volume)).raw(parseUuid(header.diskUuid)).u32(header.number);
	out.zeros(sectorBytes - out.length);
	out.patchU32(segmentChecksumAt, crc32c(out.view()));
	return out.finish();
}

/** @throws FsError CORRUPT, REFUSED `log.segment-newer`. */
export function decodeSegmentHeader(bytes: Uint8Array, what: string): SegmentHeader {
	const input = new ByteReader(bytes.subarray(0, sectorBytes), what);
	if (bytesToLatin1(input.raw(8)) !== segmentMagic) throw input.corrupt("no log segment");
	const version = input.u32();
	const features = input.u32();
	const checksum = input.u32();
	const header = { volume: formatUuid(input.raw(16)), diskUuid: formatUuid(input.raw(16)), number: input.u32() };
	input.skip(sectorBytes - input.offset);
	const checked = bytes.slice(0, sectorBytes);
	checked.fill(0, segmentChecksumAt, segmentChecksumAt + 4);
	if (crc32c(checked) !== checksum) throw input.corrupt("checksum differs");
	if (version > segmentVersion || features !== 0) throw newerFormat("log.segment-newer", what, `${version}.${features}`);
	if (version !== segmentVersion) throw input.corrupt(`format ${version}`);
	return header;
}

export function segmentName(number: number): string {
	return `log/${String(number).padStart(2, "0")}`;
}

/** The number of a file in `log/`; undefined when it is no segment. */
export function segmentNumber(name: string): number | undefined {
	return /^[0-9]{2,4}$/.test(name) ? Number(name) : undefined;
}
