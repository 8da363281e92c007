/**
 * Where things are on a raw disk, little-endian:
 *
 *   header 64 KiB · journal · table copy 0 · table copy 1 · units of 64 KiB · header 64 KiB
 *
 * A header: magic "CAIRNDV1" · version u32 · features u32 · length u32 · CRC32C u32 (over `length` bytes with this field zero) · identity of the format 16 · size u64 ·
 * unit u32 · journal u32 · table u32. It never changes after the format; the copy at the end serves when the first is damaged.
 */
import { bytesToLatin1, latin1ToBytes } from "../../base/bytes.ts";
import { FsError, newerFormat } from "../../base/errors.ts";
import { ByteReader, ByteWriter } from "../../codec/binary.ts";
import { crc32c } from "../../codec/checksum.ts";
import { rawLimits } from "./limits.ts";

const magic = "CAIRNDV1";
const version = 1;
const checksumAt = 20;

export interface RawLayout {
	/** Raised by every format: tables and journals of an earlier one are nobody's. */
	readonly identity: Uint8Array;
	readonly sizeBytes: number;
	readonly journalBytes: number;
	readonly tableBytes: number;
}

function part(sizeBytes: number, fraction: number, [least, most]: readonly [number, number]): number {
	const wanted = Math.min(Math.max(sizeBytes / fraction, least), most);
	return Math.ceil(wanted / rawLimits.unitBytes) * rawLimits.unitBytes;
}

/** For a new format. @throws FsError EINVAL. */
export function newLayout(deviceBytes: number, identity: Uint8Array, path: string): RawLayout {
	if (deviceBytes < rawLimits.minimumBytes) {
		const message = `${path} is too small for a disk: ${deviceBytes} bytes; it takes at least ${rawLimits.minimumBytes}`;
		throw new FsError("EINVAL", "platform.raw-small", message, { path });
	}
	const sizeBytes = Math.floor(deviceBytes / rawLimits.unitBytes) * rawLimits.unitBytes;
	const journalBytes = part(sizeBytes, rawLimits.journalFraction, rawLimits.journalBytes);
	return { identity, sizeBytes, journalBytes, tableBytes: part(sizeBytes, rawLimits.tableFraction, rawLimits.tableBytes) };
}

export const journalAt = rawLimits.headBytes;

export function tableAt(layout: RawLayout, copy: 0 | 1): number {
	return journalAt + layout.journalBytes + copy * layout.tableBytes;
}

export function unitsAt(layout: RawLayout): number {
	return tableAt(layout, 0) + 2 * layout.tableBytes;
}

export function unitCount(layout: RawLayout): number {
	return (layout.sizeBytes - rawLimits.headBytes - unitsAt(layout)) / rawLimits.unitBytes;
}

/** `sizeBytes` as the first header has it, else the device's own. A device that shrank has none. */
export function secondHeaderAt(sizeBytes: number, deviceBytes: number): number {
	return Math.floor(Math.min(sizeBytes, deviceBytes) / rawLimits.unitBytes) * rawLimits.unitBytes - rawLimits.headBytes;
}

/** One page. */
export function encodeHeader(layout: RawLayout): Uint8Array {
	const out = new ByteWriter(rawLimits.pageBytes);
	out.raw(latin1ToBytes(magic)).u32(version).u32(0).u32(0).u32(0).raw(layout.identity).u64(layout.sizeBytes);
	out.u32(rawLimits.unitBytes).u32(layout.journalBytes).u32(layout.tableBytes);
	out.patchU32(16, out.length);
	out.patchU32(checksumAt, crc32c(out.view()));
	const page = new Uint8Array(rawLimits.pageBytes);
	page.set(out.finish());
	return page;
}

/** Undefined: no header of ours, or a damaged one. @throws FsError REFUSED: of a newer format. */
export function decodeHeader(page: Uint8Array, what: string): RawLayout | undefined {
	if (bytesToLatin1(page.subarray(0, magic.length)) !== magic) return undefined;
	const input = new ByteReader(page, what);
	input.raw(magic.length);
	const format = input.u32();
	const features = input.u32();
	const length = input.u32();
	const checksum = input.u32();
	if (length < checksumAt + 4 || length > page.length) return undefined;
	const checked = page.slice(0, length);
	checked.fill(0, checksumAt, checksumAt + 4);
	if (crc32c(checked) !== checksum) return undefined;
	if (format > version || features !== 0) throw newerFormat("platform.raw-newer", what, `${format}.${features}`);
	const identity = input.raw(16).slice();
	const sizeBytes = input.u64();
	const unitBytes = input.u32();
	const layout = { identity, sizeBytes, journalBytes: input.u32(), tableBytes: input.u32() };
	return unitBytes === rawLimits.unitBytes && isSound(layout) ? layout : undefined;
}

function isSound(layout: RawLayout): boolean {
	const { sizeBytes, journalBytes, tableBytes } = layout;
	if ([sizeBytes, journalBytes, tableBytes].some((one) => one % rawLimits.unitBytes !== 0 || one === 0)) return false;
	return unitCount(layout) > 0;
}
