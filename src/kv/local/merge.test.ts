import assert from "node:assert/strict";
import { test } from "node:test";
import { localLimits } from "../limits.ts";
import { MergePace } from "./merge.ts";

const { mergeRests, mergeRestMs, runsInHurry } = localLimits;

/** What a merge that worked so many ms in each of its slices did between them. */
async function rests(workedMs: readonly number[], runs: number): Promise<(number | "yield")[]> {
	const done: (number | "yield")[] = [];
	const pace = new MergePace(localLimits, {
		sleep: async (ms) => void done.push(ms),
		yield: async () => void done.push("yield"),
	});
	for (const worked of workedMs) await pace.rest(worked, runs);
	return done;
}

test("a merge rests longer than it works, small slices together, and never long at once", async () => {
	assert.deepEqual(await rests([1, 1], 9), [mergeRests, mergeRests]);
	const small = 0.6 / mergeRests;
	assert.deepEqual(await rests([small, small, small], 9), ["yield", 2 * 0.6, "yield"]);
	assert.deepEqual(await rests([1000, 0], 9), [mergeRestMs, "yield"]);
	assert.deepEqual(await rests([0, 0], 9), ["yield", "yield"], "where work takes no time (a simulation) all is as without");
});

test("where runs pile up it does not rest", async () => {
	assert.deepEqual(await rests([10, 10], runsInHurry), ["yield", "yield"]);
	assert.ok(runsInHurry < localLimits.maximumRuns);
});
