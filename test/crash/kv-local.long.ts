import assert from "node:assert/strict";
import { test } from "node:test";
import { endAt, flushing, moving, type Scenario, stepsOf } from "../../src/kv/local/crash-work.ts";

const scenarios: readonly (readonly [string, Scenario])[] = [
	["flushes and merges", flushing],
	["a move to another disk", moving],
];
const beyond = 1_000_000;

for (const [name, scenario] of scenarios) {
	for (const how of ["cut", "kill"] as const) {
		for (const seed of [1, 2, 3]) {
			test(`${how} at every step of ${name}, seed ${seed}`, async () => {
				const { before, after } = await stepsOf(scenario, seed);
				for (let step = before + 1; step <= after; step++) await endAt(scenario, { how, step, seed });
				await endAt(scenario, { how, step: after + beyond, seed });
			});
		}
	}
}

for (const [site, scenario] of [
	["kv.run", flushing],
	["kv.run-name", flushing],
	["kv.manifest", flushing],
	["kv.manifest-name", flushing],
	["kv.run-mend", moving],
	["kv.run-mend-name", moving],
] as const) {
	test(`without the sync ${site} something is lost`, async () => {
		let lost = false;
		for (const seed of [1, 2, 3, 4]) {
			const { before, after } = await stepsOf(scenario, seed);
			const steps = [after + beyond, ...Array.from({ length: after - before }, (_, i) => after - i)];
			for (const step of steps) {
				lost ||= await endAt(scenario, { how: "cut", step, seed, sabotage: [site] }).then(
					() => false,
					() => true,
				);
				if (lost) return;
			}
		}
		assert.fail(`no power cut showed that ${site} is needed`);
	});
}
