/** A short run; `npm run test:long fsx -- --minutes 30 --seed 7` goes on. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { cannotMount } from "../support/cairn.ts";
import { fsx } from "./fsx.ts";

test("random operations on many files keep to a model, through a remount and a kill", { skip: cannotMount() ?? false }, async () => {
	const lines: string[] = [];
	const done = await fsx({ seed: 20_261_121, processes: 3, rounds: 3, roundMs: 2500 }, (line) => lines.push(line)).catch((error: Error) => {
		throw new Error(`${lines.join("; ")}: ${error.message}`, { cause: error });
	});
	assert.ok(done > 100, `only ${done} operations`);
});
