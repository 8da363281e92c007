/** What there is to be hit in many seeds: whatever never was tells of a blind spot of the simulator, or of dead code. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { faultTable } from "./faults.ts";
import { operations } from "./operations.ts";
import type { Statistics } from "./statistics.ts";

/** Every point of `buggify` in the product, read from its compiled sources: a literal each. */
export function buggifyPoints(): string[] {
	const folder = fileURLToPath(new URL("../../src", import.meta.url));
	const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".js"));
	const points = files.flatMap((name) =>
		[...readFileSync(join(folder, name), "utf8").matchAll(/buggify\("([a-z.-]+)"\)/g)].map(([, point]) => point as string),
	);
	return [...new Set(points)].sort();
}

export function neverHit(statistics: Statistics): string[] {
	const { operations: done, faults, points } = statistics.counts;
	return [
		...operations.filter(({ name }) => !done.has(name)).map(({ name }) => `operation ${name}`),
		...faultTable.filter(({ name }) => !faults.has(name)).map(({ name }) => `fault ${name}`),
		...buggifyPoints()
			.filter((name) => !points.has(name))
			.map((name) => `point ${name}`),
	];
}
