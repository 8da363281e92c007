/** Planted bugs that a few seeds find; the rest are in canaries.long.ts. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { canaryTests } from "./canaries.ts";
import { shrink, simulate } from "./run.ts";

const steps = 150;
canaryTests([
	{ canary: "acknowledged-before-sync", seeds: 60, steps },
	{ canary: "seal-after-truncate", seeds: 60, steps },
	{ canary: "log-cut-before-run", seeds: 60, steps },
	{ canary: "df-drift", seeds: 60, steps },
	{ canary: "young-garbage", seeds: 60, steps },
	{ canary: "reserve-shown-free", seeds: 5, steps: 20 },
	{ canary: "locks-not-kept", seeds: 60, steps },
]);

test("a failure is made smaller, and repeats by what it says", async () => {
	const canary = "seal-after-truncate";
	for (let seed = 1; ; seed++) {
		assert(seed <= 60, "no seed fails");
		const failure = await simulate({ seed, steps, canary });
		if (failure.failure === undefined) continue;
		let ticks = 0;
		const least = await shrink({ seed, steps, canary }, failure, { runs: 24, limitMs: 1000, nowMs: () => ticks++ });
		assert(least.happened.length < failure.happened.length, `${least.happened.length} of ${failure.happened.length} events are left`);
		const [, said, only] = /--steps (\d+) --replay --only ([\w.,]+)$/.exec(least.failure ?? "") ?? [];
		assert(said !== undefined && only !== undefined, least.failure);
		const again = await simulate({ seed, steps: Number(said), canary, only: new Set(only.split(",")), lines: 400 });
		assert.equal(again.failure, least.failure);
		return;
	}
});
