/** kill -9 of commands and daemons, for a while (`npm run test:long command-kills`, `--times 100`, `--seed 7`). */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { cannotMount } from "../support/cairn.ts";
import { killChanges, killCreations } from "./command-kills.ts";

const seed = Number(process.env["CAIRN_SEED"] ?? Date.now() % 1_000_000);
const times = Number(process.env["CAIRN_TIMES"] ?? 60);
const skip = cannotMount() ?? false;

test(`create and destroy, seed ${seed}`, { skip }, async (t: TestContext) => {
	const { killed, complete } = await killCreations(seed, times);
	t.diagnostic(`${killed} kills; ${complete} creations had come to their end`);
	assert.ok(killed > times / 2);
});

test(`disks that come and go, seed ${seed}`, { skip }, async (t: TestContext) => {
	const { kills, files } = await killChanges(seed, Math.ceil(times / 6));
	t.diagnostic(`${kills} kills, ${files} files`);
});
