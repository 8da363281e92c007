/** Volumes on raw devices: the same lives and bad days as on directories; `npm run test:long crash` has more. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { pairLostMounted, pairLostUnmounted } from "./bad-loss.ts";
import { journalAt } from "../../src/platform/raw/layout.ts";
import { rawFileName } from "../../src/platform/sim/raw.ts";
import { SimWorld } from "../../src/platform/sim/world.ts";
import { drainOverRestarts } from "./disk-changes.ts";
import { describe, play, type Run } from "./power-cut.ts";
import { caller, diskPaths, makeWorldVolume, openSim } from "./scenario.ts";

const seed = 20_261_122;
const whole = { seed, endAt: undefined, how: "cut", ignored: [], lost: [], raw: true } as const;

async function survives(run: Run): Promise<void> {
	try {
		await play(run);
	} catch (error) {
		throw new Error(`${describe(run)}: ${(error as Error).message}`, { cause: error });
	}
}

test("power cuts and kills at a sample of write and sync boundaries of a life on raw devices", async () => {
	const { firstStep, lastStep } = await play(whole);
	assert(lastStep - firstStep > 200, `${lastStep - firstStep} steps`);
	const stride = Math.ceil((lastStep - firstStep) / 12);
	for (let step = firstStep + 1; step <= lastStep; step += stride) await survives({ ...whole, endAt: step });
	for (let step = firstStep + 2; step <= lastStep; step += 2 * stride) await survives({ ...whole, how: "kill", endAt: step });
	for (let step = firstStep + 3; step <= lastStep; step += 3 * stride) await survives({ ...whole, endAt: step, lost: ["/d2", "/d5"] });
});

test("raw devices are lost, replaced, drained over a power cut", async () => {
	await pairLostMounted(3000, ["/d1", "/d4"], "vanish", true);
	await pairLostUnmounted(3001, ["/d2", "/d3"], "wipe", true);
	await drainOverRestarts(3002, "cut", true);
	await drainOverRestarts(3003, "kill", true);
});

test("verify finds and mends what a raw disk finds its files by: more disks than may be lost are damaged, one after the other", async () => {
	const world = new SimWorld({ seed });
	await makeWorldVolume(world, undefined, true);
	const node = world.node();
	await world.run(async () => {
		const volume = await openSim(node.boot());
		await volume.makeDirectory(caller, volume.root, "kept", 0o755);
		await volume.syncAll();
		const verify = () => volume.verify({ dryRun: false, lost: true }, () => {});
		assert.equal((await verify()).corrupt, 0);
		for (const path of diskPaths.slice(0, 4)) {
			for (const at of [0, journalAt]) assert(world.corrupt(path, rawFileName, at, 4096) > 0, "something was there");
			const { corrupt, repaired, unrecoverable } = await verify();
			assert.deepEqual([corrupt, repaired, unrecoverable], [2, 2, 0], path);
			assert.equal((await verify()).corrupt, 0, `${path} is whole again`);
		}
		node.powerCut();
		const again = await openSim(node.boot());
		await again.lookup(caller, again.root, "kept");
		assert.deepEqual([...new Set((await again.status()).disks.map(({ state }) => state))], ["healthy"]);
		await again.shutdown();
	});
});

test("a raw disk whose sync fails while it is verified is out at once: the next disk that fails is not one too many (seed 17124)", async () => {
	const world = new SimWorld({ seed: seed + 1 });
	await makeWorldVolume(world, undefined, true);
	const node = world.node();
	await world.run(async () => {
		const volume = await openSim(node.boot());
		await volume.makeDirectory(caller, volume.root, "kept", 0o755);
		await volume.syncAll();
		world.failNextSync("/d6");
		await volume.verify({ dryRun: false, lost: false }, () => {});
		const failed = (await volume.status()).disks.filter(({ state }) => state === "failed").map(({ path }) => path);
		assert.deepEqual(failed, ["/d6"]);
		await volume.shutdown();
	});
});
