/** Hostile input for the NFS door: calls of every procedure with true handles, broken in all ways, and streams that are cut and torn. Whatever comes, each call has one answer that can be read, or none because its sender speaks no RPC. */
import assert from "node:assert/strict";
import { isFsError } from "../../src/base/errors.ts";
import { XdrReader } from "../../src/codec/xdr.ts";
import { fileHandleBytes } from "../../src/doors/nfs/file-handle.ts";
import { RecordReader, recordMark } from "../../src/doors/nfs/record-marking.ts";
import { beginCall, decodeCall, decodeReply } from "../../src/doors/nfs/rpc.ts";
import { readSetAttributes } from "../../src/doors/nfs/nfs3.ts";
import type { SeededRandom } from "../support/map-records.ts";
import { asUser } from "./client.ts";

/** Numbers that have been somebody's undoing. */
const edges = [0, 1, 2, 3, 4, 7, 8, 31, 32, 44, 63, 64, 65, 255, 256, 400, 1 << 20, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] as const;

const programs = [
	[100003, 3, 22],
	[100005, 3, 6],
	[100000, 2, 6],
	[100000, 4, 14],
] as const;

/** A call of some procedure whose arguments are words, handles and names in no order, or in one that may be right. */
export function randomCall(random: SeededRandom, handles: readonly Uint8Array[], xid: number): Uint8Array {
	const [program, version, count] = programs[random.below(8) < 5 ? 0 : random.below(programs.length)] as (typeof programs)[number];
	const credential = random.below(8) === 0 ? ({ flavor: "none" } as const) : asUser(random.below(3), random.below(3), [random.below(3)]);
	const writer = beginCall({ xid, program, version, procedure: random.below(count + 1), credential });
	for (let words = random.below(9); words > 0; words--) {
		const kind = random.below(6);
		if (kind <= 2 && handles.length > 0) writer.opaque(handles[random.below(handles.length)] as Uint8Array);
		else if (kind === 3) writer.text(["a", "b", "..", ".", "", "a/b", "\0", "x".repeat(random.below(300))][random.below(8)] as string);
		else if (kind === 4) writer.u32(edges[random.below(edges.length)] as number);
		else writer.u32(random.below(3)).u32(random.below(3));
	}
	const bytes = writer.finish().slice();
	for (let broken = random.below(4); broken > 0; broken--) {
		// Not the xid: replies are told apart by it.
		const at = 4 + random.below(bytes.length - 4);
		bytes[at] = random.below(2) === 0 ? random.below(256) : (bytes[at] as number) ^ (1 << random.below(8));
	}
	return random.below(4) === 0 ? bytes.slice(0, 4 + random.below(bytes.length - 4)) : bytes;
}

const isCorrupt = (error: unknown): boolean => isFsError(error, "CORRUPT");

/** One input for the pure decoders. Throws what they must not. */
export function fuzzDecoders(random: SeededRandom, xid: number): void {
	const message = randomCall(random, [random.bytes(random.below(2) === 0 ? fileHandleBytes : random.below(70))], xid);
	try {
		const call = decodeCall(message);
		if ("refusal" in call) decodeReply(call.refusal);
		else readSetAttributes(call.reader);
	} catch (error) {
		assert.ok(isCorrupt(error), String(error));
	}
	try {
		decodeReply(message);
	} catch (error) {
		assert.ok(isCorrupt(error), String(error));
	}
	try {
		const reader = new RecordReader((record) => void new XdrReader(record, "record").remaining);
		reader.feed(random.below(2) === 0 ? recordMark(random.below(200)) : random.bytes(4));
		for (let at = 0; at < message.length; ) {
			const end = Math.min(message.length, at + 1 + random.below(60));
			reader.feed(message.subarray(at, end));
			at = end;
		}
	} catch (error) {
		assert.ok(isCorrupt(error), String(error));
	}
}
