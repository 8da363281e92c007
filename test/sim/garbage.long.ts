/** A million operations under faults, while garbage is looked for all the time: `npm run test:long garbage [-- --seeds A..B --steps S]`. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { simCommand } from "./command.ts";

test("a million operations beside a collector that is never patient", async () => {
	const lines: string[] = [];
	const seeds = process.env["CAIRN_SEEDS"] ?? "1..5000";
	const steps = process.env["CAIRN_STEPS"] ?? "200";
	const code = await simCommand(["--seeds", seeds, "--steps", steps, "--always", "volume.garbage-soon"], (line) => {
		lines.push(line);
		console.log(line);
	});
	assert.equal(code, 0, lines.at(-1));
});
