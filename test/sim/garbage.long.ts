/** A million operations under faults, while garbage is looked for all the time: `npm run test:long garbage [-- --seeds A..B --steps S --jobs J]`. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { simCommand } from "./command.ts";

test("a million operations beside a collector that is never patient", async () => {
	const lines: string[] = [];
	// Long simulations: less of the time goes into making volumes and looking at them at the end, and more files grow old.
	const { CAIRN_SEEDS: seeds = "1..667", CAIRN_STEPS: steps = "1500", CAIRN_JOBS: jobs } = process.env;
	const some = jobs === undefined ? [] : ["--jobs", jobs];
	const code = await simCommand(["--seeds", seeds, "--steps", steps, "--always", "volume.garbage-soon", ...some], (line) => {
		lines.push(line);
		console.log(line);
	});
	assert.equal(code, 0, lines.at(-1));
});
