/**
 * Byte helpers. Names and keys are byte strings held as JS strings with one char per byte (Latin-1), so that `<` compares
 * them byte by byte; they become UTF-8 only when printed.
 */
import { AssertionError, assert } from "./assert.ts";

export const emptyBytes = new Uint8Array(0);

export function latin1ToBytes(text: string): Uint8Array {
	const bytes = new Uint8Array(text.length);
	for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
	return bytes;
}

export function bytesToLatin1(bytes: Uint8Array): string {
	let text = "";
	for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
	return text;
}

/** A JS string from outside (command line, JSON) to a byte string. */
export function utf8ToLatin1(text: string): string {
	return bytesToLatin1(new TextEncoder().encode(text));
}

/** For printing only: invalid UTF-8 becomes U+FFFD. */
export function latin1ToUtf8(text: string): string {
	return new TextDecoder().decode(latin1ToBytes(text));
}

export function concatBytes(parts: readonly Uint8Array[]): Uint8Array {
	let length = 0;
	for (const part of parts) length += part.length;
	const all = new Uint8Array(length);
	let at = 0;
	for (const part of parts) {
		all.set(part, at);
		at += part.length;
	}
	return all;
}

export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
	if (a.length !== b.length) return false;
	for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
	return true;
}

/** By words: every mount looks at slots of zeros. */
export function isZeros(bytes: Uint8Array): boolean {
	if (bytes.length < 8) return bytes.every((byte) => byte === 0);
	const head = (4 - (bytes.byteOffset % 4)) % 4;
	const words = new Uint32Array(bytes.buffer, bytes.byteOffset + head, Math.floor((bytes.length - head) / 4));
	for (let i = 0; i < words.length; i++) if (words[i] !== 0) return false;
	return bytes.subarray(0, head).every((byte) => byte === 0) && bytes.subarray(head + words.length * 4).every((byte) => byte === 0);
}

const hexDigits = "0123456789abcdef";

export function toHex(bytes: Uint8Array): string {
	let text = "";
	for (let i = 0; i < bytes.length; i++) {
		const byte = bytes[i] as number;
		text += (hexDigits[byte >> 4] as string) + (hexDigits[byte & 15] as string);
	}
	return text;
}

export function fromHex(text: string): Uint8Array {
	const bytes = new Uint8Array(text.length >> 1);
	let right = text.length % 2 === 0;
	for (let i = 0; i < bytes.length; i++) {
		const byte = (hexValue(text.charCodeAt(2 * i)) << 4) | hexValue(text.charCodeAt(2 * i + 1));
		right &&= byte >= 0;
		bytes[i] = byte;
	}
	assert(right, `not hex: ${text}`);
	return bytes;
}

/** Of a digit in either case; below zero: it is none. */
function hexValue(code: number): number {
	if (code >= 0x30 && code <= 0x39) return code - 0x30;
	const lower = code | 0x20;
	return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}

/** 16 bytes → 8-4-4-4-12. */
export function formatUuid(bytes: Uint8Array): string {
	const hex = toHex(bytes);
	return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

export function parseUuid(text: string): Uint8Array {
	const bytes = fromHex(text.replaceAll("-", ""));
	assert(bytes.length === 16, `not a uuid: ${text}`);
	return bytes;
}

/** Unsigned integers in keys are big-endian so that they sort; 53 bits travel as 8 bytes. */
export function keyU64(value: number): string {
	if (!(Number.isSafeInteger(value) && value >= 0)) throw new AssertionError(`keyU64 out of range: ${value}`);
	const high = (value / 0x1_0000_0000) | 0;
	const low = value | 0;
	return String.fromCharCode(
		high >>> 24,
		(high >>> 16) & 255,
		(high >>> 8) & 255,
		high & 255,
		low >>> 24,
		(low >>> 16) & 255,
		(low >>> 8) & 255,
		low & 255,
	);
}

export function keyU32(value: number): string {
	return String.fromCharCode((value >>> 24) & 255, (value >>> 16) & 255, (value >>> 8) & 255, value & 255);
}

export function keyU16(value: number): string {
	return String.fromCharCode((value >>> 8) & 255, value & 255);
}

export function readKeyU64(key: string, at: number): number {
	return readKeyU32(key, at) * 0x1_0000_0000 + readKeyU32(key, at + 4);
}

export function readKeyU32(key: string, at: number): number {
	return key.charCodeAt(at) * 0x100_0000 + ((key.charCodeAt(at + 1) << 16) | (key.charCodeAt(at + 2) << 8) | key.charCodeAt(at + 3));
}

/** The smallest key that is greater than every key with this prefix, or undefined when there is none. */
export function prefixEnd(prefix: string): string | undefined {
	for (let i = prefix.length - 1; i >= 0; i--) {
		const code = prefix.charCodeAt(i);
		if (code < 255) return prefix.slice(0, i) + String.fromCharCode(code + 1);
	}
	return undefined;
}

export function alignUp(value: number, to: number): number {
	return Math.ceil(value / to) * to;
}

export function alignDown(value: number, to: number): number {
	return Math.floor(value / to) * to;
}

/** A byte string that a stranger chose, for people to look at: UTF-8, and nothing that a terminal would act on. */
export function shownText(latin1: string): string {
	return [...latin1ToUtf8(latin1)]
		.map((char) => {
			const code = char.codePointAt(0) ?? 0;
			return code < 0x20 || (code >= 0x7f && code < 0xa0) ? "?" : char;
		})
		.join("");
}
