/**
 * A sorted run: an immutable file of entries in key order.
 *
 *     header 64 bytes · data blocks · index block · bloom filter · footer 96 bytes
 *
 * A block or filter is a *section*: CRC32C u32 (of what follows it), length of the payload u32, payload. The index maps the first key of each data block to
 * its place and checksum; the footer has those of index and filter; the manifest has the footer's. So stale and misdirected bytes are found as surely as rot.
 *
 * Invariants
 *  U1 Every byte of the file belongs to exactly one piece with a known checksum (`pieces`).
 *  U2 Keys ascend strictly through the whole run.
 */
import { assert } from "../../base/assert.ts";
import { equalBytes, parseUuid } from "../../base/bytes.ts";
import { FsError, newerFormat } from "../../base/errors.ts";
import { ByteReader, ByteWriter } from "../../codec/binary.ts";
import { crc32c } from "../../codec/checksum.ts";
import type { DiskId } from "../../log/interface.ts";
import type { LocalLimits } from "../limits.ts";
import type { Versioned } from "../interface.ts";
import { type Block, BlockBuilder, entryHeaderBytes, parseBlock, readU16, readU32, writeU32 } from "./block.ts";
import { Bloom, hashBytes, hashKey, type KeyHash } from "./bloom.ts";
import type { RunInfo } from "./manifest.ts";

export const runHeaderBytes = 64;
export const runFooterBytes = 96;
const sectionHeaderBytes = 8;
const formatVersion = 1;
const headerMagic = "CAIRNRUN";
const footerMagic = "CAIRNEND";

/** A part of the file with a checksum of its own. */
export interface Piece {
	readonly offset: number;
	readonly length: number;
	/** The checksum covers the bytes from here on. */
	readonly skip: number;
	readonly checksum: number;
	/** The header: all of it is known. A CRC over bytes that hold their own CRC would be the same for every header. */
	readonly exact?: Uint8Array;
}

export function pieceIsGood(piece: Piece, bytes: Uint8Array): boolean {
	if (bytes.length !== piece.length) return false;
	if (piece.exact) return equalBytes(bytes, piece.exact);
	if (crc32c(bytes.subarray(piece.skip)) !== piece.checksum) return false;
	return piece.skip === 0 || (readU32(bytes, 0) === piece.checksum && readU32(bytes, 4) === piece.length - sectionHeaderBytes);
}

function section(payload: Uint8Array): { readonly bytes: Uint8Array; readonly checksum: number } {
	const bytes = new Uint8Array(sectionHeaderBytes + payload.length);
	bytes.set(payload, sectionHeaderBytes);
	writeU32(bytes, 4, payload.length);
	const checksum = crc32c(bytes.subarray(4));
	writeU32(bytes, 0, checksum);
	return { bytes, checksum };
}

function encodeHeader(id: number, volume: string): Uint8Array {
	const writer = new ByteWriter(runHeaderBytes);
	for (let i = 0; i < headerMagic.length; i++) writer.u8(headerMagic.charCodeAt(i));
	writer.u16(formatVersion).u16(0).u32(id).raw(parseUuid(volume));
	writer.u32(crc32c(writer.view()));
	return writer.zeros(runHeaderBytes - writer.length).finish();
}

/** Of any run. What else is wrong with it is not looked at. @throws FsError REFUSED (a newer format). */
export function refuseNewerRun(header: Uint8Array, what: string): void {
	const reader = new ByteReader(header, what);
	for (let i = 0; i < headerMagic.length; i++) if (reader.u8() !== headerMagic.charCodeAt(i)) return;
	const version = reader.u16();
	const flags = reader.u16();
	const checked = headerMagic.length + 24;
	if (crc32c(header.subarray(0, checked)) !== new DataView(header.buffer, header.byteOffset).getUint32(checked, true)) return;
	if (version > formatVersion || flags !== 0) throw newerFormat("kv.run-newer", what, `${version}.${flags}`);
}

interface Footer {
	readonly index: Piece;
	readonly bloom: Piece;
}

function encodeFooter(id: number, entries: number, footer: Footer): Uint8Array {
	const writer = new ByteWriter(runFooterBytes);
	for (let i = 0; i < footerMagic.length; i++) writer.u8(footerMagic.charCodeAt(i));
	writer.u16(formatVersion).u16(0).u32(id).u64(entries);
	for (const piece of [footer.index, footer.bloom]) writer.u64(piece.offset).u32(piece.length).u32(piece.checksum);
	return writer.zeros(runFooterBytes - writer.length).finish();
}

/** @throws FsError CORRUPT, REFUSED (a newer format). */
function decodeFooter(bytes: Uint8Array, info: RunInfo, what: string): Footer {
	if (bytes.length !== runFooterBytes || crc32c(bytes) !== info.footerChecksum) {
		throw new FsError("CORRUPT", "kv.run-footer", `${what}: the footer does not match the manifest`);
	}
	const reader = new ByteReader(bytes, what);
	reader.skip(footerMagic.length);
	const version = reader.u16();
	const flags = reader.u16();
	if (version > formatVersion || flags !== 0) throw newerFormat("kv.run-newer", what, `${version}.${flags}`);
	if (version !== formatVersion) throw reader.corrupt(`format ${version}`);
	if (reader.u32() !== info.id || reader.u64() !== info.entries) throw reader.corrupt("the footer is of another run");
	const piece = (): Piece => ({ offset: reader.u64(), length: reader.u32(), skip: 4, checksum: reader.u32() });
	return { index: piece(), bloom: piece() };
}

// ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

/** What the reader of a run asks for its blocks; undefined = not in memory. */
export type BlockSource = (run: Run, block: number) => Block | undefined;

/** A run in memory: its index and filter, and who holds copies. Blocks are read by RunStore. */
export class Run {
	readonly info: RunInfo;
	readonly index: Block;
	readonly bloom: Bloom;
	readonly #footer: Footer;
	readonly #header: Uint8Array;
	/** Disks with a complete, synced copy. */
	readonly copies = new Set<DiskId>();
	/** Of these, the ones in which a bad piece was found and not mended yet. */
	readonly damaged = new Set<DiskId>();
	/** Readers at work; a retired run is removed when the last one is done. */
	users = 0;
	retired = false;
	removed = false;

	constructor(info: RunInfo, volume: string, parts: { readonly index: Block; readonly bloom: Bloom; readonly footer: Footer }) {
		this.info = info;
		this.index = parts.index;
		this.bloom = parts.bloom;
		this.#footer = parts.footer;
		this.#header = encodeHeader(info.id, volume);
	}

	get blockCount(): number {
		return this.index.count;
	}

	/** The block that would hold the key; -1 when the key is before the first. */
	blockFor(key: string): number {
		const at = this.index.lowerBound(key);
		return at < this.index.count && this.index.compare(at, key) === 0 ? at : at - 1;
	}

	blockPiece(block: number): Piece {
		const value = this.index.value(block);
		return {
			offset: readU32(value, 0) + readU32(value, 4) * 0x1_0000_0000,
			length: readU32(value, 8),
			skip: 4,
			checksum: readU32(value, 12),
		};
	}

	/** U1: all pieces in file order. */
	*pieces(): Generator<Piece> {
		yield { offset: 0, length: runHeaderBytes, skip: 0, checksum: 0, exact: this.#header };
		for (let block = 0; block < this.blockCount; block++) yield this.blockPiece(block);
		yield this.#footer.index;
		yield this.#footer.bloom;
		yield footerPiece(this.info);
	}

	/** The newest version of a key in this run: null = deleted, undefined = nothing known here, "missing" = not in memory. */
	lookup(key: string, hash: KeyHash, source: BlockSource): Versioned | null | undefined | "missing" {
		if (key < this.info.firstKey || key > this.info.lastKey || !this.bloom.mayHold(hash)) return undefined;
		const number = this.blockFor(key);
		if (number < 0) return undefined;
		const block = source(this, number);
		if (block === undefined) return "missing";
		const at = block.lowerBound(key);
		return at < block.count && block.compare(at, key) === 0 ? block.versioned(at) : undefined;
	}

	overlaps(start: string, end: string | undefined): boolean {
		return this.info.lastKey >= start && (end === undefined || this.info.firstKey < end);
	}
}

export function blockFromSection(bytes: Uint8Array, what: string): Block {
	return parseBlock(bytes.subarray(sectionHeaderBytes), what);
}

export function footerPiece(info: RunInfo): Piece {
	return { offset: info.bytes - runFooterBytes, length: runFooterBytes, skip: 0, checksum: info.footerChecksum };
}

/**
 * Loads index and filter. `read` gives a piece from any copy in which it is good.
 * @throws FsError what `read` throws; CORRUPT when the checksums are right and the contents are not.
 */
export async function openRun(info: RunInfo, volume: string, read: (piece: Piece) => Promise<Uint8Array>): Promise<Run> {
	const what = runFileName(info.id);
	const footer = decodeFooter(await read(footerPiece(info)), info, what);
	const index = blockFromSection(await read(footer.index), `index of ${what}`);
	for (let i = 0; i < index.count; i++) {
		if (index.value(i).length !== indexValueBytes) throw new FsError("CORRUPT", "kv.run-index", `index of ${what}: entry ${i} is no place`);
	}
	const bloom = new Bloom((await read(footer.bloom)).subarray(sectionHeaderBytes));
	return new Run(info, volume, { index, bloom, footer });
}

export function runFileName(id: number): string {
	return `kv/run-${String(id).padStart(8, "0")}`;
}

/** The number in a name as `Disk.list("kv")` gives it; undefined for other files. */
export function runIdOf(name: string): number | undefined {
	const match = /^run-(\d{8,10})$/.exec(name);
	return match ? Number(match[1]) : undefined;
}

// ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────

const indexValueBytes = 16;

export interface RunSink {
	/** Appends parts at `offset`; they are not changed afterwards. */
	write(offset: number, parts: readonly Uint8Array[]): Promise<void>;
}

export interface RunShape {
	readonly id: number;
	readonly level: number;
	readonly volume: string;
	/** At least the number of entries that will be added: sizes the filter. */
	readonly expectedEntries: number;
}

/** Takes entries in key order; nothing is written before `drain` or `finish`. */
export class RunWriter {
	readonly #shape: RunShape;
	readonly #limits: LocalLimits;
	readonly #sink: RunSink;
	readonly #data: BlockBuilder;
	readonly #index: BlockBuilder;
	readonly #bloom: Bloom;
	#pending: Uint8Array[] = [];
	#pendingBytes = 0;
	/** End of what was given to the sink or is pending. */
	#end = 0;
	#written = 0;
	#entries = 0;
	#tombstones = 0;
	#firstKey = "";
	#blockFirst = "";
	#last: (() => string) | undefined;

	constructor(shape: RunShape, limits: LocalLimits, sink: RunSink) {
		this.#shape = shape;
		this.#limits = limits;
		this.#sink = sink;
		this.#data = new BlockBuilder(limits.blockBytes * 2);
		this.#index = new BlockBuilder(limits.blockBytes);
		this.#bloom = Bloom.forKeys(shape.expectedEntries, limits.bloomBitsPerKey, limits.bloomMaximumBytes);
		this.#push(encodeHeader(shape.id, shape.volume));
	}

	get entries(): number {
		return this.#entries;
	}

	/** Bytes that wait for `drain`. */
	get pendingBytes(): number {
		return this.#pendingBytes;
	}

	/** `value` null = tombstone. */
	add(key: string, value: Uint8Array | null, version: number): void {
		this.#begin(entryHeaderBytes + key.length + (value?.length ?? 0), () => key, value === null);
		this.#data.add(key, value, version);
		this.#bloom.add(hashKey(key));
	}

	/** Copies an entry of another block as it stands. */
	addRaw(block: Block, i: number): void {
		const entry = block.raw(i);
		this.#begin(entry.length, () => block.key(i), block.isTombstone(i));
		this.#data.addRaw(entry);
		this.#bloom.add(hashBytes(entry, entryHeaderBytes, readU16(entry, 0)));
	}

	async drain(): Promise<void> {
		const parts = this.#pending;
		if (parts.length === 0) return;
		const offset = this.#written;
		this.#written += this.#pendingBytes;
		this.#pending = [];
		this.#pendingBytes = 0;
		await this.#sink.write(offset, parts);
	}

	/** Writes the rest. The sink is not synced. */
	async finish(): Promise<Run> {
		assert(
			this.#last !== undefined && this.#entries <= Math.max(this.#shape.expectedEntries, 1),
			"a run has as many entries as were expected, and at least one",
		);
		this.#endBlock();
		const lastKey = this.#last();
		const indexBytes = this.#index.take();
		const footer = { index: this.#pushSection(indexBytes), bloom: this.#pushSection(this.#bloom.bytes) };
		const footerBytes = encodeFooter(this.#shape.id, this.#entries, footer);
		this.#push(footerBytes);
		await this.drain();
		const info: RunInfo = {
			id: this.#shape.id,
			level: this.#shape.level,
			bytes: this.#end,
			entries: this.#entries,
			tombstones: this.#tombstones,
			footerChecksum: crc32c(footerBytes),
			firstKey: this.#firstKey,
			lastKey,
		};
		const index = parseBlock(indexBytes, `index of run ${info.id}`);
		return new Run(info, this.#shape.volume, { index, bloom: this.#bloom, footer });
	}

	#begin(size: number, key: () => string, isTombstone: boolean): void {
		if (this.#data.count > 0 && this.#data.length + size > this.#limits.blockBytes) this.#endBlock();
		if (this.#data.count === 0) this.#blockFirst = key();
		if (this.#entries === 0) this.#firstKey = this.#blockFirst;
		this.#last = key;
		this.#entries++;
		if (isTombstone) this.#tombstones++;
	}

	#endBlock(): void {
		if (this.#data.count === 0) return;
		const piece = this.#pushSection(this.#data.take());
		const place = new Uint8Array(indexValueBytes);
		writeU32(place, 0, piece.offset % 0x1_0000_0000);
		writeU32(place, 4, Math.floor(piece.offset / 0x1_0000_0000));
		writeU32(place, 8, piece.length);
		writeU32(place, 12, piece.checksum);
		this.#index.add(this.#blockFirst, place, 0);
	}

	#pushSection(payload: Uint8Array): Piece {
		const made = section(payload);
		const offset = this.#end;
		this.#push(made.bytes);
		return { offset, length: made.bytes.length, skip: 4, checksum: made.checksum };
	}

	#push(bytes: Uint8Array): void {
		this.#pending.push(bytes);
		this.#pendingBytes += bytes.length;
		this.#end += bytes.length;
	}
}
