/** Disks that come and go; `npm run test:long crash` ends the daemon at every step. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
	addedToFull,
	addDrainRemove,
	deathDuringChanges,
	drainingDiskDies,
	drainOverRestarts,
	drainsThatCannotBe,
	lossDuringDrain,
	manyAtOnce,
	replaceWorking,
} from "./disk-changes.ts";
import { changes, deathDuringChange } from "./disk-deaths.ts";

test("a disk joins, another is emptied and leaves", async () => {
	await addDrainRemove(1000, "/d1");
});

test("a drain goes on over restarts, and can be cancelled", async () => {
	await drainOverRestarts(1011, "kill");
	await drainOverRestarts(1012, "cut");
});

test("another disk dies while one is emptied, or that one itself", async () => {
	await lossDuringDrain(1020, "/d4", "during");
	await lossDuringDrain(1021, "/d2", "before");
	await drainingDiskDies(1022);
});

test("a working disk is exchanged for another and leaves by itself", async () => {
	await replaceWorking(1030, false);
	await replaceWorking(1031, true);
});

test("a disk that left is empty, wherever the daemon or the power ends", async () => {
	await deathDuringChange({ seed: 3063, change: "exchange", how: "kill", at: 63 });
	await deathDuringChange({ seed: 4081, change: "exchange", how: "cut", at: 81 });
	await deathDuringChange({ seed: 4084, change: "exchange", how: "cut", at: 84 });
});

test("drains that cannot be are refused with words", async () => {
	await drainsThatCannotBe(1040);
});

test("a disk that is added to a full volume is used before any writer is refused", async () => {
	await addedToFull(1060);
});

test("several operations at once wait for each other", async () => {
	await manyAtOnce(1050);
});

test("the daemon dies, or the power fails, at a sample of the steps of add, drain and remove", async () => {
	const { steps } = await deathDuringChanges(1100, "kill", undefined);
	assert(steps > 60, `it takes ${steps} steps`);
	const stride = Math.ceil(steps / 4);
	for (let at = 1; at <= steps; at += stride) await deathDuringChanges(1100 + at, "kill", at);
	for (let at = 2; at <= steps; at += stride) await deathDuringChanges(1100 + at, "cut", at);
	for (let at = 3; at <= steps; at += 2 * stride) await deathDuringChanges(1100 + at, "cut", at, "/d5");
});

test("the same for what is added, replaced or exchanged", async () => {
	for (const [i, change] of changes.entries()) {
		const steps = await deathDuringChange({ seed: 1200 + i, change, how: "kill", at: undefined });
		for (const [j, how] of (["kill", "cut"] as const).entries())
			for (let at = 1 + i + j; at <= steps; at += Math.ceil(steps / 3)) await deathDuringChange({ seed: 1210 + at, change, how, at });
	}
	await deathDuringChange({ seed: 1290, change: "exchange", how: "cut", at: 20, loses: "/d2" });
});
