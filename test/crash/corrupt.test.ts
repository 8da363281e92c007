/** Files of disks are damaged in any way; `npm run test:long corrupt` does it for longer. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { corruptFew, corruptMany, type Found, type Moment } from "./corrupt.ts";

test("on as many disks as the volume survives: all is right, and mended", async () => {
	for (const [i, moment] of (["unmounted", "killed", "mounted"] as Moment[]).entries())
		for (let seed = 0; seed < 2; seed++) await corruptFew(4000 + 10 * i + seed, moment);
});

test("on more: right or an error", async () => {
	const tally: Found = { refused: 0, right: 0, errors: 0 };
	for (let seed = 0; seed < 6; seed++) await corruptMany(4100 + seed, seed % 2 === 0 ? "unmounted" : "killed", tally);
	assert(tally.right > 0 && tally.refused + tally.errors > 0, JSON.stringify(tally));
});
