/** How soon a planted bug is found: in how many seeds at the most, of so many steps. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Canary } from "./hooks.ts";
import { simulate } from "./run.ts";

export interface CanaryTest {
	readonly canary: Canary;
	readonly seeds: number;
	readonly steps: number;
}

export function canaryTests(all: readonly CanaryTest[]): void {
	for (const { canary, seeds, steps } of all) {
		test(`planted: ${canary}, found within ${seeds} seeds`, async (context) => {
			for (let seed = 1; seed <= seeds; seed++) {
				const { failure } = await simulate({ seed, steps, canary });
				if (failure === undefined) continue;
				context.diagnostic(`${canary}: seed ${seed}: ${failure.slice(0, failure.indexOf("\n"))}`);
				return;
			}
			assert.fail(`${canary} was not noticed in ${seeds} seeds: a checker is blind`);
		});
	}
}
