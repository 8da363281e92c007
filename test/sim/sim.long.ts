/** Many seeds: `npm run test:long sim [-- --seeds 1..20000 --steps 100]`. Other seeds find more than more steps of the same ones; `garbage` plays few long ones. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { simCommand } from "./command.ts";

test("simulations", async () => {
	const lines: string[] = [];
	const seeds = process.env["CAIRN_SEEDS"] ?? "1..20000";
	const code = await simCommand(["--seeds", seeds, "--steps", process.env["CAIRN_STEPS"] ?? "100", "--reach"], (line) => {
		lines.push(line);
		console.log(line);
	});
	assert.equal(code, 0, lines.at(-1));
});
