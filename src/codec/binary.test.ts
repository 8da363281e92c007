import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { AssertionError } from "../base/assert.ts";
import { isFsError } from "../base/errors.ts";
import { ByteArena, ByteReader, ByteWriter } from "./binary.ts";

const corrupt = (error: unknown) => isFsError(error, "CORRUPT");

describe("binary records", () => {
	test("what is written is read, with growth past the first buffer", () => {
		const writer = new ByteWriter(2);
		const integers = [0, 1, -1, 0x7fffffff, -0x80000000, 0x1_0000_0000, -0x1_0000_0000, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER];
		writer.u8(255).u16(65535).u32(0xffffffff).u64(Number.MAX_SAFE_INTEGER);
		for (const value of integers) writer.i64(value);
		writer
			.time({ seconds: -5, nanoseconds: 999_999_999 })
			.bytes(Uint8Array.of(1, 2, 3))
			.text("n\u00e4\u0000me")
			.zeros(3)
			.raw(Uint8Array.of(9));
		const reader = new ByteReader(writer.finish(), "test");
		assert.deepEqual([reader.u8(), reader.u16(), reader.u32(), reader.u64()], [255, 65535, 0xffffffff, Number.MAX_SAFE_INTEGER]);
		assert.deepEqual(
			integers.map(() => reader.i64()),
			integers,
		);
		assert.deepEqual(reader.time(), { seconds: -5, nanoseconds: 999_999_999 });
		assert.deepEqual([...reader.bytes()], [1, 2, 3]);
		assert.equal(reader.text(), "n\u00e4\u0000me");
		reader.skip(3);
		assert.equal(reader.remaining, 1);
		assert.throws(() => reader.end(), corrupt);
		assert.deepEqual([...reader.raw(1)], [9]);
		reader.end();
	});

	test("what is finished stays as it is, whether the first buffer was just right or not", () => {
		for (const initialBytes of [1, 4, 100]) {
			const writer = new ByteWriter(initialBytes).u32(7);
			const bytes = writer.finish();
			assert.deepEqual([...bytes], [7, 0, 0, 0]);
			for (const more of [() => writer.u8(1), () => writer.view(), () => writer.u64(1)]) assert.throws(more, AssertionError);
			assert.deepEqual([...bytes], [7, 0, 0, 0]);
		}
	});

	test("pieces of an arena do not touch each other, whatever their sizes and however their writers take turns", () => {
		const arena = new ByteArena(512);
		const made: { readonly bytes: Uint8Array; readonly expected: readonly number[] }[] = [];
		let seed = 1;
		const below = (limit: number): number => {
			seed = (seed * 48_271) % 0x7fff_ffff;
			return seed % limit;
		};
		const piece = (value: number): { readonly writer: ByteWriter; readonly expected: number[] } => {
			const expected = Array.from({ length: below(30) }, () => value);
			const writer = new ByteWriter(below(20), arena);
			// The length comes last, so that it is patched wherever the writer has grown to.
			writer.u32(0);
			return { writer, expected };
		};
		for (let round = 0; round < 200; round++) {
			const open = [piece(1 + (round % 250)), piece(2 + (round % 250))];
			for (let i = 0; i < 30; i++) for (const { writer, expected } of open) if (i < expected.length) writer.u8(expected[i] as number);
			if (round % 7 === 0) open.pop();
			for (const { writer, expected } of open) {
				writer.patchU32(0, expected.length);
				assert.equal(writer.length, 4 + expected.length);
				made.push({ bytes: writer.finish(), expected: [expected.length, 0, 0, 0, ...expected] });
			}
			const zeros = arena.take(below(40));
			assert.ok(zeros.every((byte) => byte === 0));
			zeros.fill(255);
		}
		for (const { bytes, expected } of made) assert.deepEqual([...bytes], expected);
		assert.ok(new Set(made.map(({ bytes }) => bytes.buffer)).size < made.length / 2, "pieces share buffers");
	});

	test("little-endian layout is fixed", () => {
		const bytes = new ByteWriter().u16(0x0102).u32(0x03040506).u64(0x0708090a0b0c).i64(-2).finish();
		assert.equal(Buffer.from(bytes).toString("hex"), "0201060504030c0b0a0908070000feffffffffffffff");
	});

	test("short input and absurd lengths are corrupt, not crashes", () => {
		const whole = new ByteWriter().u32(5).text("abc").time({ seconds: 1, nanoseconds: 2 }).finish();
		for (let length = 0; length < whole.length; length++) {
			const reader = new ByteReader(whole.subarray(0, length), "cut");
			const readAll = () => [reader.u32(), reader.text(), reader.time()];
			assert.throws(readAll, corrupt, `cut to ${length}`);
		}
		assert.throws(() => new ByteReader(new Uint8Array(8).fill(255), "huge").bytes(), corrupt);
		assert.throws(() => new ByteReader(new Uint8Array(8).fill(255), "huge").u64(), corrupt);
		assert.throws(() => new ByteReader(new ByteWriter().i64(0).u32(1e9).finish(), "time").time(), corrupt);
		const far = new ByteReader(Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0x80), "far");
		assert.throws(() => far.i64(), corrupt);
	});

	test("numbers out of range are a fault of the writer", () => {
		const writer = new ByteWriter();
		for (const wrong of [-1, 0.5, Number.NaN]) {
			assert.throws(() => writer.u8(wrong), AssertionError);
			assert.throws(() => writer.u16(wrong), AssertionError);
			assert.throws(() => writer.u32(wrong), AssertionError);
			assert.throws(() => writer.u64(wrong), AssertionError);
		}
		assert.throws(() => writer.i64(2 ** 53), AssertionError);
		assert.throws(() => writer.text("\u0100"), AssertionError);
		assert.equal(new ByteWriter().u32(1).u32(2).length, 8);
	});

	test("patching", () => {
		const writer = new ByteWriter().u32(0).u32(7);
		writer.patchU32(0, 0xdeadbeef);
		assert.equal(new ByteReader(writer.view(), "patched").u32(), 0xdeadbeef);
		assert.throws(() => writer.patchU32(5, 0), AssertionError);
	});
});
