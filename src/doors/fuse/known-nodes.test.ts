import assert from "node:assert/strict";
import { test } from "node:test";
import { KnownNodes } from "./known-nodes.ts";
import { knownNodeCounters } from "./limits.ts";

test("a node is known from the first reply that names it until all of them are forgotten", () => {
	const known = new KnownNodes(true);
	assert.deepEqual([known.mayKnow(1), known.mayKnow(7)], [true, false]);
	known.told(7);
	known.told(7);
	known.forgotten(7, 1);
	assert.equal(known.mayKnow(7), true);
	known.forgotten(7, 1);
	known.forgotten(1, 1);
	assert.deepEqual([known.mayKnow(7), known.mayKnow(1)], [false, true]);
});

test("nodes that share a counter do not hide each other", () => {
	const known = new KnownNodes(true);
	const other = 7 + knownNodeCounters * 3;
	known.told(7);
	known.told(other);
	known.forgotten(other, 1);
	assert.deepEqual([known.mayKnow(7), known.mayKnow(8)], [true, false]);
});

test("counters that cannot be right say nothing any more", () => {
	const wrong = new KnownNodes(true);
	wrong.forgotten(7, 1);
	const successor = new KnownNodes(false);
	assert.deepEqual([wrong.mayKnow(9), successor.mayKnow(9)], [true, true]);
});
