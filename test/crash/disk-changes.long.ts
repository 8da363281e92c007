/** Disks that come and go: a death at every step of add, drain and remove, and all kinds of everything else. */
import { test } from "node:test";
import { addDrainRemove, deathDuringChanges, drainOverRestarts, lossDuringDrain } from "./disk-changes.ts";
import { changes, deathDuringChange } from "./disk-deaths.ts";
import { diskPaths } from "./scenario.ts";

test("every disk leaves once", async () => {
	for (const [i, path] of diskPaths.entries()) await addDrainRemove(2000 + i, path);
});

test("drains over every kind of end", async () => {
	for (const [i, how] of (["unmount", "kill", "cut"] as const).entries()) await drainOverRestarts(2010 + i, how);
});

test("every other disk dies during a drain", async () => {
	for (const [i, path] of diskPaths.slice(1).entries()) {
		await lossDuringDrain(2020 + i, path, "during");
		await lossDuringDrain(2030 + i, path, "before");
	}
});

test("deaths and power cuts at every step of add, drain and remove", async () => {
	const { steps } = await deathDuringChanges(2100, "kill", undefined);
	for (let at = 1; at <= steps; at++) {
		await deathDuringChanges(2100 + at, "kill", at);
		await deathDuringChanges(2100 + at, "cut", at);
		await deathDuringChanges(2100 + at, "cut", at, diskPaths[at % 6 === 1 ? 2 : at % 6]);
	}
});

for (const change of changes) {
	test(`deaths and power cuts at every step of ${change}`, async () => {
		const steps = await deathDuringChange({ seed: 3000, change, how: "kill", at: undefined });
		for (let at = 1; at <= steps; at++) {
			await deathDuringChange({ seed: 3000 + at, change, how: "kill", at });
			await deathDuringChange({ seed: 4000 + at, change, how: "cut", at });
			if (at % 3 === 0) await deathDuringChange({ seed: 5000 + at, change, how: "cut", at, raw: true });
			if (at % 4 === 0) await deathDuringChange({ seed: 6000 + at, change, how: "cut", at, loses: diskPaths[at % 3] as string });
		}
	});
}
