import assert from "node:assert/strict";
import { test } from "node:test";
import { isFsError } from "../base/errors.ts";
import { XdrReader, XdrWriter } from "./xdr.ts";

const corrupt = (error: unknown): boolean => isFsError(error, "CORRUPT");

test("the examples of RFC 4506, byte by byte", () => {
	const writer = new XdrWriter(1);
	writer
		.u32(9)
		.text("sillyprog")
		.i32(-2)
		.u64(2 ** 32 + 5)
		.bool(true)
		.fixed(Uint8Array.of(1, 2))
		.opaque(Uint8Array.of(7));
	assert.deepEqual(
		[...writer.finish()],
		[
			...[0, 0, 0, 9],
			...[0, 0, 0, 9, ..."sillyprog".split("").map((c) => c.charCodeAt(0)), 0, 0, 0],
			...[255, 255, 255, 254],
			...[0, 0, 0, 1, 0, 0, 0, 5],
			...[0, 0, 0, 1],
			...[1, 2, 0, 0],
			...[0, 0, 0, 1, 7, 0, 0, 0],
		],
	);
	const reader = new XdrReader(writer.finish(), "test");
	assert.equal(reader.u32(), 9);
	assert.equal(reader.text(9), "sillyprog");
	assert.equal(reader.i32(), -2);
	assert.equal(reader.u64(), 2 ** 32 + 5);
	assert.equal(reader.bool(), true);
	assert.deepEqual([...reader.fixed(2)], [1, 2]);
	assert.deepEqual([...reader.opaque(1)], [7]);
	reader.end();
});

test("a writer that is used on after a cut leaves nothing of before", () => {
	const writer = new XdrWriter()
		.u32(1)
		.fixed(Uint8Array.of(9, 9, 9, 9))
		.cut(4)
		.opaque(Uint8Array.of(5));
	writer.patchU32(0, 3);
	assert.deepEqual([...writer.finish()], [0, 0, 0, 3, 0, 0, 0, 1, 5, 0, 0, 0]);
});

test("what cannot be is refused", () => {
	const of = (...bytes: number[]): XdrReader => new XdrReader(Uint8Array.from(bytes), "test");
	assert.throws(() => of(0, 0, 1).u32(), corrupt);
	assert.throws(() => of(0, 0, 0, 2).bool(), corrupt);
	assert.throws(() => of(0, 0, 0, 3).choice(3, "kind"), corrupt);
	assert.throws(() => of(0, 0, 0, 4, 1, 2, 3).opaque(8), corrupt, "ends inside");
	assert.throws(() => of(0, 0, 0, 1, 1, 0, 0).opaque(8), corrupt, "ends inside the padding");
	assert.throws(() => of(255, 255, 255, 255, 1, 2, 3, 4).opaque(400), corrupt, "longer than may be");
	assert.throws(() => of(0, 0, 0, 0).end(), corrupt);
});

test("a hyper beyond 2^53 is no safe integer", () => {
	for (const bytes of [
		[0, 0x20, 0, 0, 0, 0, 0, 0],
		[0, 0x20, 0, 0, 0, 0, 0, 1],
		[255, 255, 255, 255, 255, 255, 255, 255],
	])
		assert.equal(new XdrReader(Uint8Array.from(bytes), "test").u64(), 2 ** 53);
	assert.equal(new XdrReader(Uint8Array.of(0, 0x1f, 255, 255, 255, 255, 255, 255), "test").u64(), Number.MAX_SAFE_INTEGER);
});
