/**
 * Byte ranges over the whole of u64, exact. A position is a number below 2^53 and a bigint from there on, never both: JavaScript compares the two kinds with each other exactly, nearly every lock of the world is
 * small, and SMB clients and databases do lock single bytes at the far end. Pure.
 *
 * Ranges are inclusive, so that the last byte of all has a number and no end overflows. A range of no bytes (SMB knows them; "0 bytes" there, while 0 means "to the end" to NFS and fcntl) ends one before its start: with
 * that, the one formula of `overlaps` says what Windows does, that it touches only what lies strictly around it.
 */
import { FsError } from "../base/errors.ts";

export type Position = number | bigint;

export interface Range {
	readonly start: Position;
	/** Inclusive; start - 1 for a range of no bytes. */
	readonly end: Position;
}

const firstBig = 2n ** 53n;

/** 2^64 - 1: what "to the end" means, whatever the file's size. */
export const toEnd: Position = 2n ** 64n - 1n;
/** 2^63 - 1: the last offset that off_t has; fcntl(2) means "to the end" by it. */
export const lastOffset: Position = 2n ** 63n - 1n;

export const wholeFile: Range = { start: 0, end: toEnd };

/** @throws FsError EOVERFLOW outside of u64. */
export function position(value: Position): Position {
	if (value < 0 || value > toEnd) throw new FsError("EOVERFLOW", "locks.position", `there is no byte ${value}: offsets are below 2^64`);
	if (typeof value === "bigint") return value < firstBig ? Number(value) : value;
	return Number.isSafeInteger(value) ? value : BigInt(value);
}

export function next(value: Position): Position {
	return typeof value === "number" && value < Number.MAX_SAFE_INTEGER ? value + 1 : BigInt(value) + 1n;
}

/** Of 0 it is -1, which is only ever an end. */
export function previous(value: Position): Position {
	if (typeof value === "number") return value - 1;
	return value === firstBig ? Number.MAX_SAFE_INTEGER : value - 1n;
}

/** From two words as they are on the wire. */
export function positionOf(high: number, low: number): Position {
	return high < 0x20_0000 ? high * 0x1_0000_0000 + low : (BigInt(high) << 32n) | BigInt(low);
}

/** The two words, high first. */
export function wordsOf(value: Position): readonly [number, number] {
	if (typeof value === "number") return [Math.floor(value / 0x1_0000_0000), value % 0x1_0000_0000];
	return [Number(value >> 32n), Number(value & 0xffff_ffffn)];
}

/** By length, as SMB means it: 0 is no bytes. @throws FsError EOVERFLOW: it reaches beyond 2^64. */
export function rangeOfBytes(start: Position, lengthBytes: Position): Range {
	const end = BigInt(start) + BigInt(lengthBytes) - 1n;
	if (end > toEnd) throw new FsError("EOVERFLOW", "locks.range", `${lengthBytes} bytes from ${start} on reach beyond 2^64`);
	return { start: position(start), end: end < 0n ? -1 : position(end) };
}

/** By length, as NLM means it: 0 is to the end. NFSv4 says the same with a length of 2^64 - 1. @throws FsError EOVERFLOW. */
export function rangeToLength(start: Position, lengthBytes: Position): Range {
	if (lengthBytes === 0 || lengthBytes === toEnd) return { start: position(start), end: toEnd };
	return rangeOfBytes(start, lengthBytes);
}

/** As fcntl(2) has it: both ends inclusive, the largest offset stands for the end of everything. @throws FsError EINVAL. */
export function rangeOfOffsets(start: Position, end: Position): Range {
	if (start > end || end > lastOffset) throw new FsError("EINVAL", "locks.offsets", `bytes ${start} to ${end} are no range of a file`);
	return { start: position(start), end: end === lastOffset ? toEnd : position(end) };
}

export function overlaps(a: Range, b: Range): boolean {
	return a.start <= b.end && b.start <= a.end;
}

export function isWhole(range: Range): boolean {
	return range.start === 0 && range.end === toEnd;
}

export function sameRange(a: Range, b: Range): boolean {
	return a.start === b.start && a.end === b.end;
}

/** One range, when there is no gap between the two. */
export function joined(a: Range, b: Range): Range | undefined {
	const touch = (low: Range, high: Range): boolean => low.end === toEnd || next(low.end) >= high.start;
	if (!(a.start <= b.start ? touch(a, b) : touch(b, a))) return undefined;
	return { start: a.start <= b.start ? a.start : b.start, end: a.end >= b.end ? a.end : b.end };
}

/** What is left of `from` without `taken`: nothing, or the piece before, the piece behind, or both. */
export function without(from: Range, taken: Range): readonly Range[] {
	if (!overlaps(from, taken)) return [from];
	const left: Range[] = [];
	if (from.start < taken.start) left.push({ start: from.start, end: previous(taken.start) });
	if (from.end > taken.end) left.push({ start: next(taken.end), end: from.end });
	return left;
}

/** `rangeOfOffsets` of two u64, high word first. @throws FsError EINVAL. */
export function rangeOfWords(start: readonly [number, number], end: readonly [number, number]): Range {
	return rangeOfOffsets(positionOf(...start), positionOf(...end));
}

/** The other way; what lies beyond the last offset of fcntl(2) becomes that offset. */
export function offsetWordsOf({ start, end }: Range): {
	readonly start: readonly [number, number];
	readonly end: readonly [number, number];
} {
	const atMost = (value: Position): Position => (value > lastOffset ? lastOffset : value);
	return { start: wordsOf(atMost(start)), end: wordsOf(atMost(end)) };
}
