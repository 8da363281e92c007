/** Commands and daemons are killed in the middle of create, destroy and changes of disks; `npm run test:long command-kills` does it for longer. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { cannotMount } from "../support/cairn.ts";
import { killChanges, killCreations } from "./command-kills.ts";

const seed = Number(process.env["CAIRN_SEED"] ?? Date.now() % 1_000_000);
const skip = cannotMount() ?? false;

test(`create and destroy are killed and said again, seed ${seed}`, { skip }, async () => {
	await killCreations(seed, 1);
});

test(`add and replace, with kills, seed ${seed}`, { skip }, async () => {
	const { kills } = await killChanges(seed, 1, [0, 3]);
	assert.ok(kills > 0);
});
