/** Many processes lock, wait, close circles, are killed, and so is the daemon: `npm run test:long locks`. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { cannotMount, TestVolume } from "../support/cairn.ts";
import { lockStress } from "./locks.ts";

test("40 processes, 30 kills of daemons, 60 of processes", { skip: cannotMount() ?? false, timeout: 3_600_000 }, async () => {
	const volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
	try {
		for (let round = 0; round < 10; round++) {
			const seed = Date.now() % 1_000_000;
			const result = await lockStress(volume, { seed, workers: 40, seconds: 20, daemonKills: 3, workerKills: 6 });
			console.log(`seed ${seed}: ${result.grants} locks, ${result.deadlocks} deadlocks refused`);
			assert.ok(result.grants > 1000);
			const { locks } = (await volume.status()) as unknown as { readonly locks: { readonly held: number; readonly waiting: number } };
			assert.deepEqual([locks.held, locks.waiting], [0, 0], "nothing is left when all have ended");
		}
	} finally {
		await volume.close();
	}
});
