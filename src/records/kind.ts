/**
 * How one record kind is made from a description: its key, the common head of its value, and a decoder that gives a value or CORRUPT.
 *
 * Value: kind u8 (the tag), version u8, feature flags u16, birth epoch u64, origin site u16 (0), hybrid time u64 (0), then the kind's own fields;
 * little-endian. Encodings are canonical: bytes that decode are exactly what encoding the value gives.
 */
import { failed } from "../base/assert.ts";
import { keyU64, latin1ToBytes, latin1ToUtf8, prefixEnd, readKeyU64, toHex } from "../base/bytes.ts";
import { FsError } from "../base/errors.ts";
import { type ByteArena, ByteReader, ByteWriter } from "../codec/binary.ts";
import type { RecordKind } from "./interface.ts";

/** Of all kinds so far. A kind that changes its layout raises its own version and keeps reading the older ones. */
const formatVersion = 1;
const headBytes = 22;

export type KeyPart = "u64" | "bytes";

export interface Description<Key extends readonly unknown[], Value> {
	readonly name: string;
	/** One character: first byte of the key and kind byte of the value. */
	readonly tag: string;
	/** "bytes" (a byte string without a length) only as the last part. */
	readonly parts: readonly KeyPart[];
	/** Typical size of a value, so that the writer need not grow; for large ones the size of this very value. */
	readonly sizeHint: number | ((value: Value) => number);
	/** Feature flags that this version understands. */
	readonly knownFlags?: number;
	flags?(value: Value): number;
	epoch(value: Value): number;
	write(writer: ByteWriter, value: Value): void;
	read(reader: ByteReader, head: Head, key: string): Value;
	/** For types only: what `key` takes. */
	readonly keyType?: Key;
}

export interface Head {
	readonly flags: number;
	readonly birthEpoch: number;
}

export function defineKind<Key extends readonly unknown[], Value>(description: Description<Key, Value>): RecordKind<Key, Value> {
	const { name, tag, parts } = description;
	return {
		name,
		tag,
		key(...key) {
			if (key.length !== parts.length) failed(`${name}: key of ${key.length} parts`);
			return tag + joinParts(parts, key);
		},
		prefix(...key) {
			if (key.length > parts.length) failed(`${name}: prefix of ${key.length} parts`);
			return tag + joinParts(parts, key);
		},
		encode: (value, arena) => encode(description, value, arena),
		decode: (bytes, key) => decode(description, bytes, key),
	};
}

function joinParts(parts: readonly KeyPart[], values: readonly unknown[]): string {
	let joined = "";
	for (let i = 0; i < values.length; i++) {
		joined += parts[i] === "u64" ? keyU64(values[i] as number) : (values[i] as string);
	}
	return joined;
}

function encode<Key extends readonly unknown[], Value>(
	description: Description<Key, Value>,
	value: Value,
	arena: ByteArena | undefined,
): Uint8Array {
	const { sizeHint } = description;
	const writer = new ByteWriter(headBytes + (typeof sizeHint === "number" ? sizeHint : sizeHint(value)), arena);
	writer
		.u8(description.tag.charCodeAt(0))
		.u8(formatVersion)
		.u16(description.flags?.(value) ?? 0);
	writer.u64(description.epoch(value)).u16(0).u64(0);
	description.write(writer, value);
	return writer.finish();
}

function decode<Key extends readonly unknown[], Value>(description: Description<Key, Value>, bytes: Uint8Array, key: string): Value {
	const reader = new ByteReader(bytes, description.name);
	try {
		const head = readHead(reader, description.tag, description.knownFlags ?? 0);
		const value = description.read(reader, head, key);
		reader.end();
		return value;
	} catch (error) {
		if (!(error instanceof FsError)) throw error;
		const site = error.site === "codec.binary" ? "records.decode" : error.site;
		const message = `the record of ${describeKey(description, key)} cannot be read: ${error.message}`;
		throw new FsError("CORRUPT", site, message, { key: toHex(latin1ToBytes(key)), bytes: bytes.length }, error);
	}
}

function readHead(reader: ByteReader, tag: string, knownFlags: number): Head {
	const kind = reader.u8();
	if (kind !== tag.charCodeAt(0)) throw reader.corrupt(`kind ${kind}, expected ${tag.charCodeAt(0)}`);
	const version = reader.u8();
	if (version === 0) throw reader.corrupt("version 0");
	if (version > formatVersion) throw newer(`version ${version}, this cairn reads up to ${formatVersion}: use a newer cairn`);
	const flags = reader.u16();
	if ((flags & ~knownFlags) !== 0)
		throw newer(`feature flags 0x${flags.toString(16)}, this cairn knows 0x${knownFlags.toString(16)}: use a newer cairn`);
	const birthEpoch = reader.u64();
	const origin = reader.u16();
	const hybridTime = reader.u64();
	if (origin !== 0 || hybridTime !== 0)
		throw newer(`origin site ${origin} and hybrid time ${hybridTime} are not known yet: use a newer cairn`);
	return { flags, birthEpoch };
}

function newer(why: string): FsError {
	return new FsError("CORRUPT", "records.newer", why);
}

/** For messages: `entry 17 "name"`. */
export function describeKey(kind: { readonly name: string; readonly parts: readonly KeyPart[] }, key: string): string {
	let at = 1;
	let text = kind.name;
	for (const part of kind.parts) {
		if (part === "bytes") text += ` ${JSON.stringify(latin1ToUtf8(key.slice(at)))}`;
		else if (at + 8 <= key.length) text += ` ${readKeyU64(key, at)}`;
		else text += " ?";
		at += 8;
	}
	return text;
}

/** A record carries its own number: one that lies under another's key was misdirected. */
export function readIdentity(reader: ByteReader, key: string, at: number): number {
	const id = reader.u64();
	const expected = readKeyU64(key, at);
	if (id !== expected) throw reader.corrupt(`it is about ${id}, not about ${expected}: misplaced`);
	return id;
}

/** Where a scan of `prefix` that goes on behind `after` begins and ends. */
export function scanBounds(prefix: string, after: string | undefined): { readonly start: string; readonly end: string | undefined } {
	const start = after === undefined || after < prefix ? prefix : `${after}\0`;
	return { start, end: prefixEnd(prefix) };
}
