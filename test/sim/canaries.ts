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
		test(`planted: ${canary}, found within ${seeds} seeds`, async () => {
			for (let seed = 1; seed <= seeds; seed++) {
				const { failure } = await simulate({ seed, steps, canary });
				if (failure !== undefined) return;
			}
			assert.fail(`${canary} was not noticed in ${seeds} seeds: a checker is blind`);
		});
	}
}
