/** Unknown outcomes of commits, and that a blind retry of them is noticed. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { simulateCommits } from "./commits.ts";

test("transactions happen once and whole, whatever the engine answers: 300 seeds", async () => {
	const sums = { done: 0, unknown: 0, doubts: 0 };
	for (let seed = 1; seed <= 300; seed++) {
		const outcome = await simulateCommits({ seed, steps: 20 });
		assert.equal(outcome.failure, undefined);
		sums.done += outcome.done;
		sums.doubts += outcome.doubts;
	}
	assert(sums.done > 1000 && sums.doubts > 300, `something was at stake: ${JSON.stringify(sums)}`);
});

test("planted: unknown outcomes are retried blindly, found within 20 seeds", async () => {
	const failures: string[] = [];
	for (let seed = 1; seed <= 20; seed++) {
		const { failure } = await simulateCommits({ seed, steps: 20, retriedBlindly: true });
		if (failure !== undefined) failures.push(failure);
	}
	assert.match(failures[0] ?? "", /happened \d times/);
});
