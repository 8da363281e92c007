/** A short share of `locks-model` (npm run test:long locks-model). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { AdmissionHistory } from "./admissions-history.ts";

test("random histories of operations, opens, shares and leases of all doors: nothing is let in that somebody denies or caches, and nobody waits for ever", async () => {
	const tally = new Map<string, number>();
	for (let seed = 1; seed <= 200; seed++) {
		const history = new AdmissionHistory(seed);
		await history.play(60);
		for (const [name, count] of history.tally) tally.set(name, (tally.get(name) ?? 0) + count);
	}
	for (const name of ["granted", "EBUSY", "EAGAIN", "leased", "not leased", "revoked"])
		assert.ok((tally.get(name) ?? 0) > 20, `${name} hardly happened: ${JSON.stringify([...tally])}`);
});
