import assert from "node:assert/strict";
import { test } from "node:test";
import { Awake } from "./awake.ts";
import { replySpinMs, requestSpinMs } from "./fuse-limits.ts";

/** An event loop by hand: how many turns it was kept awake for, each of a hundredth of a millisecond. */
class Loop {
	nowMs = 0;
	#next: (() => void) | undefined;
	readonly awake = new Awake(undefined, {
		nowMs: () => this.nowMs,
		nextTurn: (fn) => {
			assert.equal(this.#next, undefined, "one turn at a time");
			this.#next = fn;
		},
	});

	/** Turns until it sleeps. */
	turns(): number {
		let count = 0;
		for (let fn = this.#next; fn !== undefined; fn = this.#next) {
			this.#next = undefined;
			this.nowMs += 0.01;
			fn();
			count++;
			assert.ok(count < 1000, "it sleeps at some time");
		}
		return count;
	}

	/** A call that is answered after a while, and the client's pause before the next. */
	call(answeredMs: number, pauseMs: number): void {
		this.awake.came();
		this.nowMs += answeredMs;
		this.awake.went();
		this.nowMs += pauseMs;
	}
}

test("a server that nobody asks sleeps, and a lone call keeps it awake for nothing", () => {
	const loop = new Loop();
	assert.equal(loop.turns(), 0);
	for (let i = 0; i < 20; i++) {
		loop.call(5, 1000);
		assert.equal(loop.turns(), 0);
	}
});

test("where calls follow replies soon it looks for the next, for a bounded time", () => {
	const loop = new Loop();
	for (let i = 0; i < 10; i++) loop.call(5, requestSpinMs / 2);
	loop.turns();
	loop.awake.came();
	loop.turns();
	loop.awake.went();
	const turns = loop.turns();
	assert.ok(turns > 5 && turns <= requestSpinMs / 0.01 + 2, `${turns} turns`);
});

test("where replies need a fast disk it waits for them awake, and no longer when they have become slow", () => {
	const loop = new Loop();
	for (let i = 0; i < 10; i++) loop.call(replySpinMs / 2, 1000);
	loop.awake.came();
	const turns = loop.turns();
	assert.ok(turns > 20 && turns <= replySpinMs / 0.01 + 2, `${turns} turns`);
	loop.awake.went();
	for (let i = 0; i < 10; i++) loop.call(20, 1000);
	loop.awake.came();
	assert.ok(loop.turns() <= 1);
});
