import assert from "node:assert/strict";
import { test } from "node:test";
import { endAt, flushing, moving, stepsOf } from "./crash-work.ts";

/** The quick run takes each so-many-th step, from another offset for each seed; test/crash/kv-local.long.ts takes all. */
const stride = 37;

for (const [name, scenario, least] of [
	["flushes and merges", flushing, 200],
	["a move to another disk", moving, 100],
] as const) {
	for (const how of ["cut", "kill"] as const) {
		const seed = how === "cut" ? 1 : 2;
		test(`${how} during ${name}, seed ${seed}: what was ${how === "cut" ? "durable" : "committed"} is there, whole and in order`, async () => {
			const { before, after } = await stepsOf(scenario, seed);
			assert.ok(after - before > least, `the scenario has ${after - before} steps`);
			for (let step = before + 1 + (seed % stride); step <= after; step += stride) await endAt(scenario, { how, step, seed });
			await endAt(scenario, { how, step: after + 1_000_000, seed });
		});
	}
}
