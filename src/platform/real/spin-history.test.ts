import assert from "node:assert/strict";
import { test } from "node:test";
import { SpinHistory } from "./spin-history.ts";

function after(history: SpinHistory, waits: readonly number[]): boolean {
	for (const ms of waits) history.waited(ms);
	return history.worthIt;
}

test("waiting awake begins after some short waits and ends after a few long ones", () => {
	const history = new SpinHistory(0.4);
	assert.equal(history.worthIt, false);
	assert.equal(after(history, [0.1, 0.1, 0.1]), false);
	assert.equal(after(history, [0.39]), true);
	for (let i = 0; i < 1000; i++) history.waited(0.1);
	assert.equal(after(history, [0.4, 10]), true);
	assert.equal(after(history, [0.5]), false, "however many were short before");
	assert.equal(after(history, [5, 5, 5, 5]), false);
	assert.equal(after(history, [0, 0, 0, 0]), true, "however many were long before");
});

test("every other wait in vain is too many", () => {
	const history = new SpinHistory(0.4);
	for (let i = 0; i < 100; i++) history.waited(0.1);
	for (let i = 0; i < 100; i++) history.waited(i % 2 === 0 ? 1 : 0.1);
	assert.equal(history.worthIt, false);
});
