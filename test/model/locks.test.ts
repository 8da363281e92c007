/** A short share of `locks-model` (npm run test:long locks-model). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { LockHistory } from "./locks-history.ts";

test("random histories of locks of all doors go as in a table that lists every byte", () => {
	const tally = new Map<string, number>();
	for (let seed = 1; seed <= 400; seed++) {
		const history = new LockHistory(seed, seed <= 250 ? 1 : 3);
		history.play(seed <= 250 ? 60 : 90);
		for (const [name, count] of history.tally) tally.set(name, (tally.get(name) ?? 0) + count);
	}
	for (const name of ["granted", "granted at last", "waiting", "EAGAIN", "EDEADLK", "ECANCELED", "ENOENT"])
		assert.ok((tally.get(name) ?? 0) > 50, `${name} hardly happened: ${JSON.stringify([...tally])}`);
});
