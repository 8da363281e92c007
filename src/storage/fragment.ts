/**
 * The format of a fragment on disk: a header that says what it is, with a checksum for every 4 KiB of the payload behind it, then the
 * payload.
 *
 * ```
 *  0  magic "CAIRNFR1"      8  version u16   10  feature flags u16   12  header bytes u32 (multiple of 4 KiB)
 * 16  volume uuid (16)     32  segment u64   40  generation u32      44  index u16   46  data shards u8   47  parity shards u8
 * 48  payload bytes of the segment u64       56  payload bytes of this shard u32 (multiple of 4 KiB)      60  reserved u32, 0
 * 64  table: CRC32C u32 per 4 KiB of the shard, then zeros, and in the last four bytes the CRC32C of everything before them
 * ```
 * `FragmentPlace.headerChecksum` is that last CRC32C. It is not taken over itself: a CRC over bytes followed by their own CRC is the same
 * number for all
 * headers, and would tie a record to nothing.
 */
import { assert } from "../base/assert.ts";
import { alignUp, latin1ToBytes } from "../base/bytes.ts";
import { FsError, newerFormat } from "../base/errors.ts";
import { ByteReader, ByteWriter } from "../codec/binary.ts";
import { blockSums, crc32c } from "../codec/checksum.ts";
import type { Segment } from "../records/interface.ts";
import type { Redundancy } from "./interface.ts";
import { blockBytes, limits } from "./limits.ts";

const magic = latin1ToBytes("CAIRNFR1");
const version = 1;
const fixedBytes = 64;
const checksumBytes = 4;

export interface FragmentIdentity {
	/** 16 bytes. */
	readonly volume: Uint8Array;
	readonly segment: number;
	readonly generation: number;
	readonly index: number;
	readonly dataShards: number;
	readonly parityShards: number;
	/** Of the whole segment, and of one shard. */
	readonly payloadBytes: number;
	readonly shardBytes: number;
}

export interface FragmentHeader extends FragmentIdentity {
	/** CRC32C of each block of the payload. */
	readonly table: Uint32Array;
	readonly checksum: number;
}

/** Length of each shard's payload for a segment payload in that shape. */
export function shardLength(payloadBytes: number, dataShards: number): number {
	return alignUp(Math.ceil(payloadBytes / dataShards), blockBytes);
}

/** Length of the header of a fragment whose payload has `shardBytes`. */
export function headerLength(shardBytes: number): number {
	return alignUp(fixedBytes + (shardBytes / blockBytes) * 4 + checksumBytes, blockBytes);
}

/** Header and payload: what a fragment takes in a pack. */
export function fragmentLength(shardBytes: number): number {
	return headerLength(shardBytes) + shardBytes;
}

/** The checksums of a shard's blocks. */
export function blockTable(shard: Uint8Array): Uint32Array {
	const table = new Uint32Array(shard.length / blockBytes);
	blockSums(shard, blockBytes, table);
	return table;
}

export function encodeHeader(identity: FragmentIdentity, table: Uint32Array): { readonly bytes: Uint8Array; readonly checksum: number } {
	assert(table.length === identity.shardBytes / blockBytes, "a checksum for every block");
	assert(identity.volume.length === 16, "a volume uuid has 16 bytes");
	const length = headerLength(identity.shardBytes);
	const writer = new ByteWriter(length);
	writer.raw(magic).u16(version).u16(0).u32(length).raw(identity.volume).u64(identity.segment).u32(identity.generation);
	writer.u16(identity.index).u8(identity.dataShards).u8(identity.parityShards);
	writer.u64(identity.payloadBytes).u32(identity.shardBytes).u32(0);
	assert(writer.length === fixedBytes, "the fixed part of a fragment header");
	for (const checksum of table) writer.u32(checksum);
	writer.zeros(length - checksumBytes - writer.length);
	const checksum = crc32c(writer.view());
	writer.u32(checksum);
	return { bytes: writer.finish(), checksum };
}

/** Any bytes may be given. @throws FsError CORRUPT. */
export function decodeHeader(bytes: Uint8Array): FragmentHeader {
	const reader = new ByteReader(bytes, "fragment header");
	for (const byte of magic) if (reader.u8() !== byte) throw reader.corrupt("is not a fragment header");
	const found = reader.u16();
	const flags = reader.u16();
	const length = reader.u32();
	if (length !== bytes.length || length % blockBytes !== 0) throw reader.corrupt(`has ${bytes.length} bytes and says ${length}`);
	const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
	const checksum = view.getUint32(length - checksumBytes, true);
	if (crc32c(bytes.subarray(0, length - checksumBytes)) !== checksum) throw reader.corrupt("does not match its checksum");
	if (found > version || flags !== 0) throw newerFormat("storage.fragment-newer", "a fragment", `${found}.${flags}`);
	if (found !== version) throw reader.corrupt(`format ${found}`);
	return decodeBody(reader, length, checksum);
}

function decodeBody(reader: ByteReader, length: number, checksum: number): FragmentHeader {
	const volume = reader.raw(16).slice();
	const segment = reader.u64();
	const generation = reader.u32();
	const index = reader.u16();
	const dataShards = reader.u8();
	const parityShards = reader.u8();
	const payloadBytes = reader.u64();
	const shardBytes = reader.u32();
	reader.u32();
	if (shardBytes === 0 || shardBytes % blockBytes !== 0 || headerLength(shardBytes) !== length)
		throw reader.corrupt(`has shards of ${shardBytes} bytes`);
	if (dataShards < 1 || index >= dataShards + parityShards) throw reader.corrupt(`is number ${index} of ${dataShards}+${parityShards}`);
	if (payloadBytes > dataShards * shardBytes) throw reader.corrupt(`holds ${payloadBytes} bytes in ${dataShards} shards of ${shardBytes}`);
	const table = new Uint32Array(shardBytes / blockBytes);
	for (let i = 0; i < table.length; i++) table[i] = reader.u32();
	return { volume, segment, generation, index, dataShards, parityShards, payloadBytes, shardBytes, table, checksum };
}

/** What is different, in words; undefined when `header` is the fragment that is meant. */
export function identityMismatch(header: FragmentIdentity, expected: FragmentIdentity): string | undefined {
	for (let i = 0; i < 16; i++) if (header.volume[i] !== expected.volume[i]) return "it belongs to another volume";
	for (const field of ["segment", "index", "generation", "dataShards", "parityShards", "payloadBytes", "shardBytes"] as const) {
		if (header[field] !== expected[field]) return `its ${field} is ${header[field]} instead of ${expected[field]}`;
	}
	return undefined;
}

/**
 * Number of the first block of [from, from + bytes.length) that does not match the table, or -1. `from` is a multiple of 4 KiB. `sums`: the checksums of `bytes`, where somebody has made them already.
 */
export function firstBadBlock(table: Uint32Array, from: number, bytes: Uint8Array, sums?: Uint32Array): number {
	const first = from / blockBytes;
	if (sums !== undefined) {
		assert(sums.length === Math.ceil(bytes.length / blockBytes), "a checksum for every block that was read");
		for (let i = 0; i < sums.length; i++) if (sums[i] !== table[first + i]) return first + i;
		return -1;
	}
	for (let i = 0; i * blockBytes < bytes.length; i++) {
		if (crc32c(bytes.subarray(i * blockBytes, (i + 1) * blockBytes)) !== table[first + i]) return first + i;
	}
	return -1;
}

/** The data shards of a payload: views where whole shards lie in it, zero-padded copies at its end. `room` gives memory for these, with anything in it. */
export function splitPayload(
	payload: Uint8Array,
	dataShards: number,
	room: (lengthBytes: number) => Uint8Array = (lengthBytes) => new Uint8Array(lengthBytes),
): Uint8Array[] {
	const length = shardLength(payload.length, dataShards);
	const shards: Uint8Array[] = [];
	for (let i = 0; i < dataShards; i++) {
		const part = payload.subarray(Math.min(i * length, payload.length), Math.min((i + 1) * length, payload.length));
		if (part.length === length) {
			shards.push(part);
			continue;
		}
		const padded = room(length);
		padded.set(part);
		padded.fill(0, part.length);
		shards.push(padded);
	}
	return shards;
}

/** @throws FsError CORRUPT when a record describes a shape that no segment can have. */
export function assertSegment(segment: Segment): void {
	const { dataShards: k, parityShards: m, payloadBytes, shardBytes } = segment;
	const shape = k >= 1 && k <= limits.maxDataShards && m >= 0 && m <= limits.maxParityShards;
	const sizes = payloadBytes >= 1 && payloadBytes <= limits.maxPayloadBytes && shardBytes === shardLength(payloadBytes, k);
	if (shape && sizes) return;
	throw new FsError(
		"CORRUPT",
		"storage.segment-shape",
		`segment ${segment.id} has an impossible record: ${k}+${m} shards of ${shardBytes} bytes for ${payloadBytes} bytes`,
		{
			segment: segment.id,
		},
	);
}

export function shapeOf(segment: Segment): Redundancy {
	return { dataShards: segment.dataShards, parityShards: segment.parityShards };
}
