import assert from "node:assert/strict";
import { test } from "node:test";
import { BufferPool } from "./buffer-pool.ts";

for (const shared of [true, false]) {
	test(`${shared ? "shared" : "own"} buffers are lent to one at a time and come again`, () => {
		const pool = new BufferPool({ fromBytes: 1000, keptBytes: 10_000, shared });
		assert.equal(pool.take(999), undefined, "not worth it");
		const first = pool.take(3000);
		const second = pool.take(3000);
		assert.ok(first && second);
		assert.equal(first.bytes.length, 3000);
		assert.notEqual(first.bytes.buffer, second.bytes.buffer);
		assert.equal(first.bytes.buffer instanceof SharedArrayBuffer, shared);
		first.release();
		assert.throws(() => first.release(), /given back once/);
		const third = pool.take(4096);
		assert.equal(third?.bytes.buffer, first.bytes.buffer, "same size class");
		assert.equal(pool.take(4097)?.bytes.buffer.byteLength, 8192);
	});
}

test("free buffers are bounded", () => {
	const pool = new BufferPool({ fromBytes: 1, keptBytes: 10_000, shared: false });
	const lent = Array.from({ length: 8 }, () => pool.take(4096));
	for (const one of lent) one?.release();
	assert.equal(pool.freeBytes, 8192);
	assert.equal(pool.take(1)?.bytes.length, 1);
});
