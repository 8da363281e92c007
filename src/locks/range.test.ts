import assert from "node:assert/strict";
import { test } from "node:test";
import {
	isWhole,
	joined,
	lastOffset,
	next,
	overlaps,
	type Position,
	position,
	positionOf,
	previous,
	rangeOfBytes,
	rangeOfOffsets,
	rangeToLength,
	toEnd,
	without,
	wordsOf,
} from "./range.ts";

const edges: readonly bigint[] = [0n, 1n, 2n ** 32n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 2n, 2n ** 64n - 1n];

test("every position has one form, a number below 2^53 and a bigint above, and survives the wire", () => {
	for (const edge of edges) {
		const value = position(edge);
		assert.equal(typeof value, edge < 2n ** 53n ? "number" : "bigint");
		assert.equal(BigInt(value), edge);
		const [high, low] = wordsOf(value);
		assert.equal(positionOf(high, low), value);
		if (edge < 2n ** 64n - 1n) assert.equal(next(value), position(edge + 1n));
		if (edge > 0n) assert.equal(previous(value), position(edge - 1n));
	}
	assert.throws(() => position(2n ** 64n), { code: "EOVERFLOW" });
	assert.throws(() => position(-1), { code: "EOVERFLOW" });
});

test("0 bytes is nothing to SMB and everything to NLM; fcntl says everything by its last offset", () => {
	assert.deepEqual(rangeOfBytes(10, 0), { start: 10, end: 9 });
	assert.deepEqual(rangeOfBytes(0, 0), { start: 0, end: -1 });
	assert.deepEqual(rangeToLength(10, 0), { start: 10, end: toEnd });
	assert.deepEqual(rangeToLength(10, toEnd), { start: 10, end: toEnd });
	assert.ok(isWhole(rangeOfOffsets(0, lastOffset)));
	assert.deepEqual(rangeOfBytes(toEnd, 1), { start: toEnd, end: toEnd });
	assert.throws(() => rangeOfBytes(toEnd, 2), { code: "EOVERFLOW" });
	assert.throws(() => rangeToLength(2n ** 63n, 2n ** 63n + 1n), { code: "EOVERFLOW" });
	assert.throws(() => rangeOfOffsets(5, 4), { code: "EINVAL" });
});

test("a range of no bytes touches what lies strictly around it, and nothing else", () => {
	const empty = rangeOfBytes(10, 0);
	assert.ok(overlaps(empty, { start: 9, end: 10 }));
	assert.ok(overlaps({ start: 0, end: toEnd }, empty));
	for (const other of [{ start: 10, end: 20 }, { start: 0, end: 9 }, empty, rangeOfBytes(0, 0)]) assert.ok(!overlaps(empty, other));
	assert.ok(!overlaps(rangeOfBytes(0, 0), { start: 0, end: toEnd }));
});

test("cutting and joining are exact at both ends and where numbers stop being exact", () => {
	for (const middle of edges.slice(1, -1)) {
		const at: Position = position(middle);
		const pieces = without({ start: 0, end: toEnd }, { start: at, end: at });
		assert.deepEqual(pieces, [
			{ start: 0, end: previous(at) },
			{ start: next(at), end: toEnd },
		]);
		const [low, high] = pieces as [(typeof pieces)[0], (typeof pieces)[0]];
		assert.equal(joined(low, high), undefined);
		assert.deepEqual(joined(low, { start: at, end: at }), { start: 0, end: at });
		assert.deepEqual(joined(high, { start: 0, end: at }), { start: 0, end: toEnd });
	}
	assert.deepEqual(without({ start: 3, end: 5 }, { start: 0, end: toEnd }), []);
	assert.deepEqual(joined({ start: 5, end: toEnd }, { start: 0, end: 3 }), undefined);
});
