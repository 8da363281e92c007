/** A mount outlives its daemon: the command line, real processes, a real kernel. The long suite kills more often. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { readdirSync } from "node:fs";
import { cannotMount, TestVolume } from "../support/cairn.ts";
import { keeperSuite } from "./keeper.ts";

const seed = Number(process.env["CAIRN_SEED"] ?? Date.now() % 1_000_000);

describe("a mount outlives its daemon", { skip: cannotMount() ?? false }, () => {
	let volume: TestVolume;
	before(async () => {
		volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
	});
	after(() => volume?.close());

	test(`three kills under load, seed ${seed}`, async () => {
		const { operations } = await keeperSuite(volume, { seed, kills: 3, workers: 2, killsPerRound: 3 }, () => {});
		assert.ok(operations > 100, `${operations} operations`);
		await volume.unmount();
		assert.deepEqual([volume.daemons(), volume.keepers()], [[], []]);
		assert.deepEqual(
			readdirSync("/dev/shm").filter((name) => name.endsWith(".handles") && name.includes(volume.id)),
			[],
		);
	});
});
