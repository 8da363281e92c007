/** Durable opens of a door's clients through thousands of deaths, at any platform call. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { crashDurable } from "./durable.ts";

const first = Number(process.env["CAIRN_SEED"] ?? 1000);
const seeds = 400;

test(`durable opens through 10 deaths each, seeds ${first} to ${first + seeds - 1}`, async (context) => {
	const all = new Map<string, number>();
	for (let seed = first; seed < first + seeds; seed++)
		for (const [what, count] of await crashDurable(seed, 10)) all.set(what, (all.get(what) ?? 0) + count);
	const counts = [...all].map(([what, count]) => `${what} ${count}`).sort();
	context.diagnostic(counts.join(", "));
	for (const what of ["carried over, cut", "carried over, kill", "carried over, clean", "reconnect", "ended for others", "leases revoked"])
		assert.ok((all.get(what) ?? 0) > 0, `${what} never happened`);
});
