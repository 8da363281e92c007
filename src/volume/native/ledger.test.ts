import assert from "node:assert/strict";
import { test } from "node:test";
import { SimWorld } from "../../platform/sim/world.ts";
import { LedgerBook, type SegmentsLedger } from "./ledger.ts";
import { limits } from "./limits.ts";

/** A count that takes so long, and how often it was made. */
function book(tookMs: number) {
	const world = new SimWorld({ seed: 1 });
	const { clock } = world.node().boot();
	const state = { version: 0, counts: 0 };
	const count = async (): Promise<SegmentsLedger> => {
		const number = ++state.counts;
		await clock.sleep(tookMs);
		return { provenBytes: number } as SegmentsLedger;
	};
	return { world, clock, state, ledger: new LedgerBook({ clock, version: () => state.version, count }) };
}

test("a quick count is made for everybody who asks", async () => {
	const { world, state, ledger } = book(10);
	await world.run(async () => {
		for (let at = 1; at <= 3; at++) assert.equal((await ledger.get()).ledger.provenBytes, at);
		await Promise.all([ledger.get(), ledger.get()]);
	});
	assert.equal(state.counts, 5);
});

test("a slow one is shared and kept, says when it was, and is made anew when something has changed or it is old", async () => {
	const { world, clock, state, ledger } = book(5000);
	await world.run(async () => {
		const first = await ledger.get();
		await clock.sleep(30_000);
		assert.equal(await ledger.get(), first, "kept, and as old as it says");
		state.version++;
		const [second, same] = await Promise.all([ledger.get(), ledger.get()]);
		assert.equal(second, same);
		assert.deepEqual([second.ledger.provenBytes, state.counts], [2, 2]);
		assert.ok(second.at > first.at);
		await clock.sleep(5000 * limits.ledgerRestTimes + 1);
		assert.equal((await ledger.get()).ledger.provenBytes, 3);
	});
});
