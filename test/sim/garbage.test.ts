/** What no record names is looked for all the time, beside everything else that goes on: nothing that lives is ever taken. The long suite is garbage.long.ts. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { simulate } from "./run.ts";

test("with a look for garbage every second nothing is lost and nothing is left", async () => {
	let removed = 0;
	for (let seed = 1; seed <= 20 || (removed === 0 && seed <= 60); seed++) {
		const { failure, statistics } = await simulate({ seed, steps: 60, always: new Set(["volume.garbage-soon"]) });
		assert.equal(failure, undefined);
		removed += statistics.counts.probes.get("what no record names was given back") ?? 0;
	}
	assert(removed > 0, "something was given back");
});
