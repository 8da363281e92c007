/** The head of a shard: fence, order of the feed, and the answer to "did it happen?" after an unknown outcome. */
import { assert, failed } from "../base/assert.ts";
import { FsError } from "../base/errors.ts";
import { keyU16 } from "../base/bytes.ts";
import { kvLimits } from "./limits.ts";

export interface Head {
	/** Raised when the shard changes its owner: transactions of the old one end with ESTALE. */
	readonly epoch: number;
	/** Number of the newest transaction of the shard. */
	readonly sequence: number;
	/** Attempt tokens of the newest transactions, newest first; token i belongs to `sequence - i`. 0 = that transaction's engine has no unknown outcomes. */
	readonly tokens: readonly number[];
}

const formatVersion = 1;

export function headKey(shard: number): string {
	return `h${keyU16(shard)}`;
}

/** The head after one more transaction. */
export function nextHead(head: Head, token: number): Head {
	return { epoch: head.epoch, sequence: head.sequence + 1, tokens: [token, ...head.tokens.slice(0, kvLimits.headTokens - 1)] };
}

const fixedBytes = 20;

/**
 * version u8, token count u8, reserved u16, epoch u64, sequence u64, tokens u64 each; little-endian. Written by hand: every transaction of a volume does this,
 * and a DataView costs more than the rest.
 */
export function encodeHead(head: Head): Uint8Array {
	assert(head.tokens.length <= kvLimits.headTokens, "a head has a bounded number of tokens");
	const bytes = new Uint8Array(fixedBytes + 8 * head.tokens.length);
	bytes[0] = formatVersion;
	bytes[1] = head.tokens.length;
	writeU64(bytes, 4, head.epoch);
	writeU64(bytes, 12, head.sequence);
	for (const [i, token] of head.tokens.entries()) writeU64(bytes, fixedBytes + 8 * i, token);
	return bytes;
}

/** @throws FsError CORRUPT. */
export function decodeHead(bytes: Uint8Array): Head {
	const version = bytes[0];
	if (version !== undefined && version !== formatVersion) {
		throw new FsError(
			"CORRUPT",
			"kv.head-version",
			`the shard's head has format ${version}; this version of cairn reads ${formatVersion}: use a newer cairn`,
		);
	}
	const count = bytes[1] ?? 0;
	if (count > kvLimits.headTokens || bytes.length !== fixedBytes + 8 * count) throw corrupt(bytes);
	const tokens: number[] = [];
	for (let i = 0; i < count; i++) tokens.push(readU64(bytes, fixedBytes + 8 * i));
	return { epoch: readU64(bytes, 4), sequence: readU64(bytes, 12), tokens };
}

function writeU64(bytes: Uint8Array, at: number, value: number): void {
	if (!Number.isSafeInteger(value) || value < 0) failed(`u64 out of range: ${value}`);
	writeU32(bytes, at, value % 0x1_0000_0000);
	writeU32(bytes, at + 4, Math.floor(value / 0x1_0000_0000));
}

function writeU32(bytes: Uint8Array, at: number, value: number): void {
	bytes[at] = value;
	bytes[at + 1] = value >>> 8;
	bytes[at + 2] = value >>> 16;
	bytes[at + 3] = value >>> 24;
}

function readU64(bytes: Uint8Array, at: number): number {
	const value = readU32(bytes, at) + readU32(bytes, at + 4) * 0x1_0000_0000;
	if (!Number.isSafeInteger(value)) throw corrupt(bytes);
	return value;
}

function readU32(bytes: Uint8Array, at: number): number {
	const low = (bytes[at] as number) | ((bytes[at + 1] as number) << 8) | ((bytes[at + 2] as number) << 16);
	return low + (bytes[at + 3] as number) * 0x100_0000;
}

function corrupt(bytes: Uint8Array): FsError {
	return new FsError("CORRUPT", "kv.head", `the shard's head cannot be read: ${bytes.length} bytes; run cairn verify`);
}
