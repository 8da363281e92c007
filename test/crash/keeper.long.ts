/**
 * The daemon is killed again and again behind a living mount, under load (`npm run test:long keeper`, `--times 50`, `--seed 7`): no program sees an error, no byte is lost, nothing is done twice.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { cannotMount, TestVolume } from "../support/cairn.ts";
import { keeperSuite } from "./keeper.ts";

const times = Number(process.env["CAIRN_TIMES"] ?? 200);
const seed = Number(process.env["CAIRN_SEED"] ?? Date.now() % 1_000_000);

let volume: TestVolume | undefined;
after(() => volume?.close());

test(`${times} kills behind a living mount, seed ${seed}`, { skip: cannotMount() ?? false }, async () => {
	volume = await TestVolume.start({ disks: 6, redundancy: "rs:4+2" });
	const { operations } = await keeperSuite(volume, { seed, kills: times, workers: 4, killsPerRound: 20 }, console.log);
	assert.ok(operations > times, `${operations} operations`);
	const { corrupt, missing, unrecoverable } = await volume.verify();
	assert.deepEqual([corrupt, missing, unrecoverable], [0, 0, 0], volume.log());
});
