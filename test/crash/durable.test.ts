/** A sample of durable.long.ts. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { crashDurable } from "./durable.ts";

for (let seed = 1; seed <= 6; seed++)
	test(`durable opens through 6 deaths, seed ${seed}`, async () => {
		await crashDurable(seed, 6);
	});

test("planted: an open that is answered before its record is durable, found within 20 seeds", async (context) => {
	for (let seed = 1; seed <= 20; seed++) {
		const failure = await crashDurable(seed, 6, "durable-open-unsynced").then(
			() => undefined,
			(error: Error) => error.message,
		);
		if (failure === undefined) continue;
		context.diagnostic(`seed ${seed}: ${failure.slice(0, failure.indexOf("\n"))}`);
		return;
	}
	assert.fail("it was not noticed");
});
