import assert from "node:assert/strict";
import { test } from "node:test";
import { SeededRandom } from "../../../test/support/map-records.ts";
import { concatBytes } from "../../base/bytes.ts";
import { isFsError } from "../../base/errors.ts";
import { maxFragments, maxRecordBytes } from "./limits.ts";
import { RecordReader, recordMark } from "./record-marking.ts";
import {
	acceptStatus,
	authStatus,
	beginCall,
	beginReply,
	type Credential,
	decodeCall,
	decodeReply,
	encodeAuthRefusal,
	encodeFailure,
	encodeProgramMismatch,
	type RpcCall,
	requireSuccess,
} from "./rpc.ts";

const corrupt = (error: unknown): boolean => isFsError(error, "CORRUPT");
const sys: Credential = { flavor: "sys", machineName: "host", uid: 1000, gid: 100, groups: [4, 24] };

function message(credential: Credential): Uint8Array {
	return beginCall({ xid: 0xfeed_beef, program: 100003, version: 3, procedure: 1, credential }).u32(77).finish();
}

test("a call comes back as it was", () => {
	for (const credential of [sys, { flavor: "none" } as const]) {
		const decoded = decodeCall(message(credential)) as RpcCall;
		const { reader, ...header } = decoded;
		assert.deepEqual(header, { xid: 0xfeed_beef, program: 100003, version: 3, procedure: 1, credential });
		assert.equal(reader.u32(), 77);
		reader.end();
	}
});

test("replies and refusals come back as they were", () => {
	const done = decodeReply(beginReply(5).u32(42).finish());
	assert.equal(requireSuccess(done, "test").u32(), 42);
	const mismatch = decodeReply(encodeProgramMismatch(6, 2, 4));
	assert.deepEqual([mismatch.status, mismatch.reader.u32(), mismatch.reader.u32()], [acceptStatus.programMismatch, 2, 4]);
	assert.equal(decodeReply(encodeFailure(7, acceptStatus.garbageArguments)).status, acceptStatus.garbageArguments);
	const refused = decodeReply(encodeAuthRefusal(8, authStatus.tooWeak));
	assert.deepEqual([refused.status, refused.authStatus], [undefined, authStatus.tooWeak]);
	assert.throws(
		() => requireSuccess(refused, "test"),
		(error) => isFsError(error, "ENOTSUP"),
	);
});

test("calls that can be answered are refused in their own words", () => {
	const change = (at: number, value: number): Uint8Array => {
		const bytes = message(sys).slice();
		new DataView(bytes.buffer).setUint32(at, value);
		return bytes;
	};
	const refusalOf = (bytes: Uint8Array) => decodeReply((decodeCall(bytes) as { refusal: Uint8Array }).refusal);
	assert.deepEqual([refusalOf(change(8, 3)).status, refusalOf(change(8, 3)).authStatus], [undefined, undefined], "another RPC version");
	assert.equal(refusalOf(change(24, 6)).authStatus, authStatus.tooWeak, "RPCSEC_GSS");
	// The count of groups stands behind stamp, name, uid and gid.
	assert.equal(refusalOf(change(32 + 4 + 8 + 8, 17)).authStatus, authStatus.badCredential, "seventeen groups");
	assert.equal(refusalOf(change(24, 0)).authStatus, authStatus.badCredential, "AUTH_NONE with a body");
	assert.throws(() => decodeCall(change(4, 1)), corrupt, "a reply is no call");
	assert.throws(() => decodeCall(change(28, 401)), corrupt, "a credential that is too long");
});

/** Cuts a stream at random places. */
function* pieces(random: SeededRandom, bytes: Uint8Array): Generator<Uint8Array> {
	for (let at = 0; at < bytes.length; ) {
		const end = Math.min(bytes.length, at + 1 + random.below(random.below(3) === 0 ? 3 : 3000));
		yield bytes.slice(at, end);
		at = end;
	}
}

test("records come out of a stream however it is cut", () => {
	const random = new SeededRandom(7);
	for (let round = 0; round < 200; round++) {
		const records = Array.from({ length: 5 }, () => random.bytes(random.below(4000)));
		const stream = records.flatMap((record) => {
			const cut = random.below(record.length + 1);
			if (random.below(2) === 0) return [recordMark(record.length), record];
			const first = recordMark(cut);
			first[0] = (first[0] as number) & 0x7f;
			return [first, record.subarray(0, cut), recordMark(record.length - cut), record.subarray(cut)];
		});
		const found: Uint8Array[] = [];
		const reader = new RecordReader((record) => found.push(record));
		for (const piece of pieces(random, concatBytes(stream))) reader.feed(piece);
		assert.deepEqual(found, records);
		assert.equal(reader.unfinished, false);
		assert.equal(reader.keptBytes, 0);
	}
});

test("records have a bound, in bytes and in fragments", () => {
	const reader = new RecordReader(() => assert.fail("no record"));
	reader.feed(recordMark(maxRecordBytes));
	assert.equal(reader.unfinished, true);
	assert.throws(() => new RecordReader(() => {}).feed(recordMark(maxRecordBytes + 1)), corrupt);
	const tiny = new RecordReader(() => {});
	const empty = new Uint8Array(4);
	for (let i = 0; i < maxFragments; i++) tiny.feed(empty);
	assert.throws(() => tiny.feed(empty), corrupt);
	assert.throws(() => tiny.feed(recordMark(0)), corrupt, "the stream is given up");
});

test("whatever comes is a call, a refusal or CORRUPT", () => {
	const seed = 20_261_121;
	const random = new SeededRandom(seed);
	for (let i = 0; i < 20_000; i++) {
		const bytes = message(sys).slice(0, random.below(2) === 0 ? undefined : random.below(100));
		for (let n = random.below(4); n >= 0 && bytes.length > 0; n--) bytes[random.below(bytes.length)] = random.below(256);
		try {
			decodeCall(bytes);
		} catch (error) {
			assert.ok(corrupt(error), `seed ${seed}, input ${i}: ${String(error)}`);
		}
	}
});
