/** Hostile input for the NFS door: calls of every procedure with true handles, broken in all ways, and streams that are cut and torn. Whatever comes, each call has one answer that can be read, or none because its sender speaks no RPC. */
import assert from "node:assert/strict";
import { isFsError } from "../../src/base/errors.ts";
import { XdrReader, type XdrWriter } from "../../src/codec/xdr.ts";
import { fileHandleBytes } from "../../src/doors/nfs/file-handle.ts";
import { RecordReader, recordMark } from "../../src/doors/nfs/record-marking.ts";
import { beginCall, decodeCall, decodeReply } from "../../src/doors/nfs/rpc.ts";
import {
	nlmVersions,
	readCancel,
	readLockArguments,
	readNotice,
	readResult,
	readShare,
	readTest,
	readUnlock,
} from "../../src/doors/nfs/nlm.ts";
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
	[100021, 1, 15],
	[100021, 3, 23],
	[100021, 4, 23],
	[100024, 1, 6],
] as const;

const names = ["a", "b", "a.example", "", "\0", "x".repeat(300)] as const;

/** Arguments of NLM in their order: the procedures differ in a few words. */
function writeLockCall(writer: XdrWriter, random: SeededRandom, handles: readonly Uint8Array[], version: number, procedure: number): void {
	const handle = handles[random.below(Math.max(1, handles.length))] ?? random.bytes(8);
	const name = names[random.below(names.length)] as string;
	const position = (): void => {
		if (version === 4) writer.u32(random.below(3) === 0 ? (edges[random.below(edges.length)] as number) : 0);
		writer.u32(edges[random.below(edges.length)] as number);
	};
	if (procedure === 23) return void writer.text(name).u32(random.below(5));
	writer.opaque(random.bytes(random.below(9)));
	if (procedure === 20 || procedure === 21) {
		writer
			.text(name)
			.opaque(handle)
			.opaque(random.bytes(random.below(200)))
			.u32(random.below(5))
			.u32(random.below(5))
			.u32(random.below(2));
		return;
	}
	const locks = [2, 7, 22].includes(procedure);
	if (locks || procedure === 3 || procedure === 8) writer.u32(random.below(2));
	if (procedure !== 4 && procedure !== 9) writer.u32(random.below(2));
	writer
		.text(name)
		.opaque(handle)
		.opaque(random.bytes(random.below(20)))
		.u32(random.below(3));
	position();
	position();
	if (locks) writer.u32(random.below(2)).u32(random.below(5));
}

/** A call of some procedure whose arguments are words, handles and names in no order, or in one that may be right. */
export function randomCall(random: SeededRandom, handles: readonly Uint8Array[], xid: number): Uint8Array {
	const [program, version, count] = programs[random.below(8) < 4 ? 0 : random.below(programs.length)] as (typeof programs)[number];
	const credential = random.below(8) === 0 ? ({ flavor: "none" } as const) : asUser(random.below(3), random.below(3), [random.below(3)]);
	const procedure = random.below(count + 1);
	const writer = beginCall({ xid, program, version, procedure, credential });
	// Locks that are nearly right get further than chance would.
	if (program === 100021 && random.below(4) > 0) writeLockCall(writer, random, handles, version, procedure);
	else
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

function decodeArguments(procedure: number, reader: XdrReader): void {
	const version = nlmVersions[procedure % 3] ?? 4;
	const decoders = [
		() => readSetAttributes(reader),
		() => readTest(reader, version),
		() => readLockArguments(reader, version),
		() => readCancel(reader, version),
		() => readUnlock(reader, version),
		() => readShare(reader),
		() => readNotice(reader),
		() => readResult(reader),
	];
	decoders[procedure % decoders.length]?.();
}

/** One input for the pure decoders. Throws what they must not. */
export function fuzzDecoders(random: SeededRandom, xid: number): void {
	const message = randomCall(random, [random.bytes(random.below(2) === 0 ? fileHandleBytes : random.below(70))], xid);
	try {
		const call = decodeCall(message);
		if ("refusal" in call) decodeReply(call.refusal);
		else decodeArguments(call.procedure, call.reader);
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
