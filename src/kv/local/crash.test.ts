import assert from "node:assert/strict";
import { test } from "node:test";
import { endAt, stepsOf } from "./crash-work.ts";

/** The quick run takes each so-many-th step, from another offset for each seed; crash.long.ts takes all. */
const stride = 23;

for (const how of ["cut", "kill"] as const) {
	for (const seed of [1, 2]) {
		test(`${how} at steps of a workload, seed ${seed}: what was ${how === "cut" ? "durable" : "committed"} is there, whole and in order`, async () => {
			const { before, after } = await stepsOf(seed);
			assert.ok(after - before > 200, `the workload has ${after - before} steps`);
			for (let step = before + 1 + (seed % stride); step <= after; step += stride) await endAt(how, step, seed);
		});
	}
}
