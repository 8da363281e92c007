/**
 * CRC32C (Castagnoli, reflected polynomial 0x82f63b78): the checksum of every record and every 4 KiB on disk. Native where
 * the module for this machine loads and proves itself on the check value, otherwise in JavaScript, eight bytes at a time.
 */
import { createRequire } from "node:module";
import { checksumNativeFromBytes } from "./limits.ts";

const tables = Array.from({ length: 8 }, () => new Int32Array(256));
const [t0, t1, t2, t3, t4, t5, t6, t7] = tables as [
	Int32Array,
	Int32Array,
	Int32Array,
	Int32Array,
	Int32Array,
	Int32Array,
	Int32Array,
	Int32Array,
];

for (let byte = 0; byte < 256; byte++) {
	let value = byte;
	for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
	t0[byte] = value;
}
for (let level = 1; level < 8; level++) {
	const previous = tables[level - 1] as Int32Array;
	const table = tables[level] as Int32Array;
	for (let byte = 0; byte < 256; byte++) {
		const value = previous[byte] as number;
		table[byte] = (value >>> 8) ^ (t0[value & 255] as number);
	}
}

/** The same sum without native code (slice by 8). */
export function crc32cPortable(bytes: Uint8Array, seed = 0): number {
	let crc = ~seed;
	let at = 0;
	for (const end = bytes.length - 7; at < end; at += 8) {
		crc =
			t7[(bytes[at] ^ crc) & 255] ^
			t6[(bytes[at + 1] ^ (crc >>> 8)) & 255] ^
			t5[(bytes[at + 2] ^ (crc >>> 16)) & 255] ^
			t4[bytes[at + 3] ^ (crc >>> 24)] ^
			t3[bytes[at + 4]] ^
			t2[bytes[at + 5]] ^
			t1[bytes[at + 6]] ^
			t0[bytes[at + 7]];
	}
	for (; at < bytes.length; at++) crc = (crc >>> 8) ^ t0[(crc ^ bytes[at]) & 255];
	return ~crc >>> 0;
}

function loadNative(): ((bytes: Uint8Array, seed?: number) => number) | undefined {
	try {
		const native = createRequire(import.meta.url)("@node-rs/crc32").crc32c as (bytes: Uint8Array, seed?: number) => number;
		const check = Uint8Array.from("123456789", (char) => char.charCodeAt(0));
		const chained = native(check.subarray(4), native(check.subarray(0, 4)));
		return native(check) === 0xe3069283 && chained === 0xe3069283 ? native : undefined;
	} catch {
		return undefined;
	}
}

/** Undefined where no native module loads. */
export const crc32cNative = loadNative();

/** CRC32C of `bytes` as an unsigned number. Chains: `crc32c(b, crc32c(a))` is the sum of a followed by b. */
export function crc32c(bytes: Uint8Array, seed = 0): number {
	return crc32cNative && bytes.length >= checksumNativeFromBytes ? crc32cNative(bytes, seed) : crc32cPortable(bytes, seed);
}

/** The CRC32C of each whole block. */
export function sumsOf(bytes: Uint8Array, blockBytes: number): Uint32Array {
	const sums = new Uint32Array(Math.floor(bytes.length / blockBytes));
	blockSums(bytes, blockBytes, sums);
	return sums;
}

/** Fills `sums` with the CRC32C of as many blocks of `bytes`, from its beginning. */
export function blockSums(bytes: Uint8Array, blockBytes: number, sums: Uint32Array): void {
	for (let i = 0; i < sums.length; i++) sums[i] = crc32c(bytes.subarray(i * blockBytes, (i + 1) * blockBytes));
}
