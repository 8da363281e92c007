import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Hurry, TurnShare } from "./turn-share.ts";

/** Turns that begin when the test says so. */
class Turns {
	nowMs = 0;
	asked: (() => void)[] = [];

	monotonicMs(): number {
		return this.nowMs;
	}

	yield(): Promise<void> {
		return new Promise((resolve) => this.asked.push(resolve));
	}

	async next(): Promise<void> {
		for (const resolve of this.asked.splice(0)) resolve();
		await new Promise((resolve) => setImmediate(resolve));
	}
}

function stepsOn(turns: Turns, share: TurnShare): { readonly begun: number[]; ask(id: number, costMs: number): Promise<number> } {
	const begun: number[] = [];
	return {
		begun,
		ask: (id, costMs) =>
			share.run(() => {
				begun.push(id);
				turns.nowMs += costMs;
				return id;
			}),
	};
}

describe("share of a turn", () => {
	test("what fits begins at once, the rest in order, turn by turn", async () => {
		const turns = new Turns();
		const share = new TurnShare(turns, 2);
		const { begun, ask } = stepsOn(turns, share);
		const all = Array.from({ length: 7 }, (_, id) => ask(id, 1));
		assert.deepEqual(begun, [0, 1]);
		assert.equal(share.waiting, 5);
		await turns.next();
		assert.deepEqual(begun, [0, 1, 2, 3]);
		// Who comes later waits behind those who wait, also where there would be time.
		turns.nowMs -= 1;
		const late = ask(7, 1);
		assert.equal(begun.length, 4);
		await turns.next();
		await turns.next();
		assert.deepEqual(begun, [0, 1, 2, 3, 4, 5, 6, 7]);
		assert.deepEqual(await Promise.all([...all, late]), [0, 1, 2, 3, 4, 5, 6, 7]);
		await turns.next();
		await turns.next();
		assert.equal(turns.asked.length, 0, "without work no turn is asked for");
	});

	test("a step longer than the share has a turn for itself", async () => {
		const turns = new Turns();
		const { begun, ask } = stepsOn(turns, new TurnShare(turns, 1));
		for (let id = 0; id < 3; id++) void ask(id, 10);
		for (let turn = 1; turn <= 3; turn++) {
			assert.equal(begun.length, turn);
			await turns.next();
		}
	});

	test("a step that asks for another one, and one that fails, hold nobody up", async () => {
		const turns = new Turns();
		const share = new TurnShare(turns, 1);
		const { begun, ask } = stepsOn(turns, share);
		const first = share.run(() => {
			turns.nowMs += 1;
			return ask(1, 0);
		});
		const failing = share.run((): number => {
			throw new Error("no");
		});
		const last = ask(2, 0);
		const refused = assert.rejects(failing, /no/);
		await turns.next();
		await refused;
		assert.deepEqual(await Promise.all([first, last]), [1, 2]);
		assert.deepEqual(begun, [1, 2]);
	});

	test("a step that waits for a disk takes nothing from the others", async () => {
		const turns = new Turns();
		const share = new TurnShare(turns, 1);
		void share.run(() => new Promise(() => {}));
		assert.equal(await share.run(() => 5), 5);
	});

	test("a share that is cut leaves each step a turn", async () => {
		const turns = new Turns();
		const { begun, ask } = stepsOn(turns, new TurnShare(turns, 1000, () => true));
		for (let id = 0; id < 3; id++) void ask(id, 0);
		assert.equal(begun.length, 1);
		await turns.next();
		assert.equal(begun.length, 2);
		await turns.next();
		assert.equal(begun.length, 3);
	});

	test("what somebody waits for begins at once, and once only", async () => {
		const turns = new Turns();
		const share = new TurnShare(turns, 1);
		const { begun, ask } = stepsOn(turns, share);
		const hurry = new Hurry();
		void ask(0, 1);
		void ask(1, 1);
		const urgent = share.run(() => begun.push(2), hurry);
		void ask(3, 1);
		assert.equal(share.waiting, 3);
		hurry.now();
		hurry.now();
		await urgent;
		assert.deepEqual(begun, [0, 2]);
		assert.equal(share.waiting, 2);
		await share.run(() => begun.push(4), hurry);
		assert.deepEqual(begun, [0, 2, 4]);
		await turns.next();
		await turns.next();
		assert.deepEqual(begun, [0, 2, 4, 1, 3]);
		assert.equal(share.waiting, 0);
	});

	test("the last of those who wait may be in a hurry", async () => {
		const turns = new Turns();
		const share = new TurnShare(turns, 1);
		const { begun, ask } = stepsOn(turns, share);
		const hurry = new Hurry();
		void ask(0, 1);
		void share.run(() => begun.push(1), hurry);
		hurry.now();
		await turns.next();
		await ask(2, 1);
		assert.deepEqual(begun, [0, 1, 2]);
		assert.equal(turns.asked.length, 1);
	});
});
