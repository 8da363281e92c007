/**
 * A commit as the payload of one log record: format version u8, reserved u8, puts u16, deletes u16; each put: key length u16, value length u32, key, value;
 * each delete: key length u16, key. Nothing of `expect`: what stands in the log was committed.
 */
import { assert } from "../../base/assert.ts";
import { type ByteArena, ByteReader } from "../../codec/binary.ts";
import { newerFormat } from "../../base/errors.ts";
import type { Commit } from "../interface.ts";
import { writeU16, writeU32 } from "./block.ts";

const formatVersion = 1;
const headerBytes = 6;

export interface CommitRecord {
	readonly puts: readonly (readonly [key: string, value: Uint8Array])[];
	readonly deletes: readonly string[];
}

/** Length of the payload, when keys and values together have `bytes`. */
export function commitRecordBytes(commit: Commit, bytes: number): number {
	return headerBytes + bytes + 6 * commit.puts.length + 2 * commit.deletes.length;
}

/** Encodes into a piece of the arena, and gives each value as a view on the payload: the caller's buffers are free afterwards. */
export function encodeCommit(
	commit: Commit,
	payloadBytes: number,
	arena: ByteArena,
): { readonly payload: Uint8Array; readonly values: readonly Uint8Array[] } {
	const payload = arena.take(payloadBytes);
	const values: Uint8Array[] = [];
	payload[0] = formatVersion;
	writeU16(payload, 2, commit.puts.length);
	writeU16(payload, 4, commit.deletes.length);
	let at = headerBytes;
	for (const [key, value] of commit.puts) {
		writeU16(payload, at, key.length);
		writeU32(payload, at + 2, value.length);
		at = writeKey(payload, at + 6, key);
		payload.set(value, at);
		values.push(payload.subarray(at, at + value.length));
		at += value.length;
	}
	for (const key of commit.deletes) {
		writeU16(payload, at, key.length);
		at = writeKey(payload, at + 2, key);
	}
	assert(at === payloadBytes, "a commit record has the length that was computed");
	return { payload, values };
}

function writeKey(payload: Uint8Array, at: number, key: string): number {
	for (let i = 0; i < key.length; i++) {
		const code = key.charCodeAt(i);
		assert(code <= 0xff, "keys are byte strings");
		payload[at + i] = code;
	}
	return at + key.length;
}

/** Values are views on the payload. @throws FsError CORRUPT. */
export function decodeCommit(payload: Uint8Array, what: string): CommitRecord {
	const reader = new ByteReader(payload, what);
	const version = reader.u8();
	if (version > formatVersion) throw newerFormat("kv.commit-newer", what, `${version}`);
	if (version !== formatVersion) throw reader.corrupt(`format ${version}`);
	reader.u8();
	const putCount = reader.u16();
	const deleteCount = reader.u16();
	const puts: (readonly [string, Uint8Array])[] = [];
	const deletes: string[] = [];
	for (let i = 0; i < putCount; i++) {
		const keyBytes = reader.u16();
		const valueBytes = reader.u32();
		puts.push([latin1(reader.raw(keyBytes)), reader.raw(valueBytes)]);
	}
	for (let i = 0; i < deleteCount; i++) deletes.push(latin1(reader.raw(reader.u16())));
	reader.end();
	return { puts, deletes };
}

function latin1(bytes: Uint8Array): string {
	let text = "";
	for (let i = 0; i < bytes.length; i += 1_024) text += String.fromCharCode(...bytes.subarray(i, i + 1_024));
	return text;
}
