/** `create` and `destroy` end at every one of their steps (`npm run test:long create`, `--seed 7`). A sample of it is in create.test.ts. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { deathBesideOthers, deathDuringCreate, deathDuringDestroy } from "./create.ts";

const base = Number(process.env["CAIRN_SEED"] ?? 1) * 1_000_000;
let next = base;

test(`without the sync log.disk-emptied files outlive what says whose they are, seed ${base}`, async () => {
	const run = { seed: base, how: "kill", at: undefined } as const;
	const steps = await deathDuringDestroy(run);
	let noticed = 0;
	for (let at = 1; at <= steps; at++)
		await deathDuringDestroy({ seed: next++, how: "cut", at, ignored: "log.disk-emptied" }).catch(() => noticed++);
	assert(noticed > 0);
});

for (const raw of [false, true]) {
	const where = raw ? "raw devices" : "directories";
	test(`a creation that ends at every step, ${where}, seed ${base}`, async () => {
		const steps = await deathDuringCreate({ seed: next++, how: "kill", at: undefined, raw });
		for (const how of ["kill", "cut", "cut", "cut"] as const)
			for (let at = 1; at <= steps; at++) await deathDuringCreate({ seed: next++, how, at, raw });
		for (let at = 1; at <= steps; at += 3)
			await deathDuringCreate({
				seed: next++,
				how: at % 2 === 0 ? "kill" : "cut",
				at,
				again: [(at * 7) % steps || 1, (at * 11) % steps || 1],
				raw,
			});
	});

	test(`a destruction that ends at every step, ${where}, seed ${base}`, async () => {
		const steps = await deathDuringDestroy({ seed: next++, how: "kill", at: undefined, raw });
		for (const how of ["kill", "cut", "cut", "cut"] as const)
			for (let at = 1; at <= steps; at++) await deathDuringDestroy({ seed: next++, how, at, raw });
	});

	test(`beside others, ${where}, seed ${base}`, async () => {
		for (const how of ["kill", "cut"] as const)
			for (let at = 1; at <= 60; at += raw ? 3 : 1) await deathBesideOthers({ seed: next++, how, at, raw });
	});
}
