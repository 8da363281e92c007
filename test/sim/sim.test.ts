/** Short simulations of many seeds, and that a seed is all that a simulation depends on. The long suite is sim.long.ts. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { simCommand } from "./command.ts";
import { buggifyPoints, neverHit } from "./coverage.ts";
import { everyPlace } from "./reach.ts";
import { simulate } from "./run.ts";
import { Statistics } from "./statistics.ts";

const steps = 40;
const seeds = 300;

test(`seeds 1 to ${seeds}, ${steps} steps`, async () => {
	const total = new Statistics();
	const failures: string[] = [];
	for (let seed = 1; seed <= seeds; seed++) {
		const outcome = await simulate({ seed, steps });
		total.add(outcome.statistics);
		if (outcome.failure !== undefined) failures.push(outcome.failure);
	}
	assert.deepEqual(failures, [], total.report());
	assert.deepEqual(neverHit(total), [], "everything that can be done and go wrong happened");
	assert(buggifyPoints().length > 5, "the points are found in the sources");
});

test("the same seed gives the same digest, whatever ran before", async () => {
	const first = await simulate({ seed: 7, steps: 150 });
	await simulate({ seed: 8, steps: 20 });
	const again = await simulate({ seed: 7, steps: 150 });
	assert.equal(first.failure, undefined);
	assert.equal(again.digest, first.digest);
	assert.notEqual((await simulate({ seed: 9, steps: 150 })).digest, first.digest);
});

test("the command: a digest for a seed, a report for a range, usage otherwise", async () => {
	const lines: string[] = [];
	const run = async (...words: string[]): Promise<number> => {
		lines.length = 0;
		return await simCommand(words, (line) => void lines.push(line));
	};
	assert.equal(await run("--seed", "7", "--steps", "20"), 0);
	assert.match(lines.at(-1) ?? "", /^digest: [0-9a-f]{8}$/);
	const digest = lines.at(-1);
	assert.equal(await run("--seed", "7", "--steps", "20", "--replay"), 0);
	assert.equal(lines.at(-1), digest);
	assert(lines.length > 20, "the trace is printed");
	assert.equal(await run("--seeds", "1..4", "--steps", "10", "--jobs", "2", "--reach"), 0);
	assert.match(lines.join("\n"), /4 seeds, all right/);
	const together = lines.at(-1);
	assert.match(together ?? "", /^digest: [0-9a-f]{8}$/);
	const unreached = lines.find((line) => line.startsWith("never reached, of ")) ?? "";
	assert.match(unreached, / log\.lost,/, "no seed loses everything");
	assert(
		everyPlace().includes("namespace.no-entry") && !unreached.includes(" namespace.no-entry,"),
		"every mount asks for what is not there",
	);
	for (const wrong of [
		["--seeds", "5..4"],
		["--seed", "x"],
		[],
		["--what"],
		["--seed", "1", "--seeds", "1..2"],
		["--seed", "1", "--steps", "0"],
	]) {
		assert.equal(await run(...wrong), 2, wrong.join(" "));
		assert.match(lines.join("\n"), /Usage/);
	}
	assert.equal(await run("--help"), 0);
});
