import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { judgeLatency, type LatencyWindow } from "./disk-latency.ts";
import { latencyLeastCalls } from "./limits.ts";

const window = (means: readonly number[], calls = 100): Map<number, LatencyWindow> =>
	new Map(means.map((mean, at) => [at + 1, { calls, totalMs: calls * mean }]));
const slowOnes = (windows: Map<number, LatencyWindow>, past: Map<number, number>): number[] =>
	judgeLatency(windows, past).map(({ id }) => id);

describe("slow disks", () => {
	test("one that has become slow is told from a busy volume and from one that always was", () => {
		const past = new Map<number, number>();
		assert.deepEqual(slowOnes(window([5, 6, 7, 100]), past), [], "nothing is known of the past");
		assert.deepEqual(slowOnes(window([5, 6, 7, 100]), past), [], "it always was");
		assert.deepEqual(slowOnes(window([90, 110, 95, 380]), past), [], "all are busy");
		assert.deepEqual(slowOnes(window([200, 6, 7, 100]), past), [1]);
		assert.deepEqual(slowOnes(window([200, 6, 7, 100]), past), [1], "being slow is not learned");
		assert.deepEqual(slowOnes(window([5, 6, 7, 100]), past), []);
	});

	test("few calls, few peers and short times say nothing", () => {
		const past = new Map([1, 2, 3].map((id) => [id, 1] as const));
		assert.deepEqual(slowOnes(window([500, 1, 1], latencyLeastCalls - 1), past), []);
		assert.deepEqual(slowOnes(window([500, 1]), new Map(past)), []);
		assert.deepEqual(slowOnes(window([20, 1, 1]), new Map(past)), [], "twenty milliseconds are usual for a disk that seeks");
		assert.deepEqual(slowOnes(window([500, 1, 1]), new Map(past)), [1]);
		assert.deepEqual(slowOnes(new Map(), past), []);
		assert.equal(past.size, 0, "disks that left are forgotten");
	});
});
