/** `create` and `destroy` end at a sample of their steps; `npm run test:long create` ends them at every one. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { deathBesideOthers, deathDuringCreate, deathDuringDestroy, type End } from "./create.ts";

const ends: readonly End[] = ["kill", "cut"];

test("a creation that is cut is repeated or refused with words, and leaves nothing", async () => {
	const steps = await deathDuringCreate({ seed: 3000, how: "kill", at: undefined });
	assert(steps > 20, `it takes ${steps} steps`);
	for (const [i, how] of ends.entries())
		for (let at = 1 + i; at <= steps; at += Math.ceil(steps / 9)) await deathDuringCreate({ seed: 3000 + at, how, at });
	await deathDuringCreate({ seed: 3090, how: "cut", at: steps - 2, again: [3, 8] });
	await deathDuringCreate({ seed: 3091, how: "kill", at: 5, again: [2, steps] });
});

test("raw devices, too", async () => {
	const steps = await deathDuringCreate({ seed: 3200, how: "kill", at: undefined, raw: true });
	for (const [i, how] of ends.entries())
		for (let at = 2 + i; at <= steps; at += Math.ceil(steps / 5)) await deathDuringCreate({ seed: 3200 + at, how, at, raw: true });
});

test("what was left is no harm to volumes and files beside it", async () => {
	for (const at of [4, 12, 30, 1000]) await deathBesideOthers({ seed: 3100 + at, how: "kill", at });
	await deathBesideOthers({ seed: 3150, how: "cut", at: 20 });
});

test("a destruction that is cut is repeated", async () => {
	const steps = await deathDuringDestroy({ seed: 3300, how: "kill", at: undefined });
	for (const [i, how] of ends.entries())
		for (let at = 1 + i; at <= steps; at += Math.ceil(steps / 4)) await deathDuringDestroy({ seed: 3300 + at, how, at });
});
