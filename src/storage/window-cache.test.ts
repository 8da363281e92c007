import assert from "node:assert/strict";
import { test } from "node:test";
import { limits } from "./limits.ts";
import { WindowCache } from "./window-cache.ts";

const { windowBytes } = limits;
const whole = (value: number): Uint8Array => new Uint8Array(windowBytes).fill(value);

test("whole and partial windows come back as they were put in, the oldest go first", () => {
	// Room for three whole windows.
	const cache = new WindowCache(4 * windowBytes);
	for (const value of [1, 2, 3]) cache.set(`w${value}`, whole(value));
	const source = new Uint8Array(5000).fill(9);
	cache.set("end", source);
	source.fill(0);
	assert.deepEqual(cache.get("end"), new Uint8Array(5000).fill(9), "a copy");
	assert.deepEqual(cache.get("w1"), whole(1));
	cache.set("w4", whole(4));
	assert.equal(cache.get("w2"), undefined, "w1 was used since");
	for (const value of [1, 3, 4]) assert.deepEqual(cache.get(`w${value}`), whole(value));
	cache.delete("w3");
	cache.set("w5", whole(5));
	for (const value of [1, 4, 5]) assert.deepEqual(cache.get(`w${value}`), whole(value));
	cache.set("w5", new Uint8Array([1]));
	assert.deepEqual(cache.get("w5"), new Uint8Array([1]), "whole before, partial now");
	cache.set("w6", whole(6));
	for (const value of [1, 4, 6]) assert.deepEqual(cache.get(`w${value}`), whole(value));
});

test("a cache without room keeps nothing", () => {
	const cache = new WindowCache(0);
	cache.set("a", whole(1));
	cache.set("b", new Uint8Array(10));
	assert.deepEqual([cache.get("a"), cache.get("b")], [undefined, undefined]);
});
