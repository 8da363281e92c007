/** Metadata that moves from disk to disk, as failures and full disks make it: found by the simulator. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { inspectDisks } from "../../src/log/disk-set.ts";
import { awayIn, BadWorld } from "./bad-world.ts";
import { diskPaths } from "./scenario.ts";

async function metadataDisks(bad: BadWorld): Promise<string[]> {
	return (await bad.volume.status()).disks.filter((disk) => disk.metadata).map((disk) => disk.path);
}

test("a move of the metadata that found no space at first ends with a checkpoint: old mirrors of the log are needed no more", async () => {
	const bad = await BadWorld.make(9002);
	await bad.run(async () => {
		await bad.mount();
		const homes = await metadataDisks(bad);
		for (let i = 0; i < 10; i++) await bad.put(`logged${i}`, 3_000);
		const others = diskPaths.filter((path) => !homes.includes(path));
		for (const path of others) bad.world.full(path);
		bad.world.vanish(homes[1] as string);
		await bad.until("it is away", async () => awayIn(await bad.volume.status()).length === 1);
		await bad.world.sleep(5_000);
		for (const path of others) bad.world.full(path, false);
		await bad.until("three copies", async () => (await bad.volume.status()).metadataCopies.present === 3);
		const seen = await inspectDisks([homes[0] as string], { platform: bad.world.node().boot(), logger: bad.logger() });
		assert.equal(seen.roster.logEpochs.length, 1, "records of older epochs are on the disks that had them then, and nowhere else");
		// Now the other two of the old mirrors may go as well, one after the other.
		for (const path of [homes[0] as string, homes[2] as string]) {
			bad.world.wipe(path);
			await bad.until(`${path} is away`, async () => awayIn(await bad.volume.status()).includes(path));
			await bad.volume.disks.replace(path, undefined);
			await bad.volume.heal(() => {});
			await bad.until("three copies again", async () => (await bad.volume.status()).metadataCopies.present === 3);
		}
		bad.cut();
		await bad.mount();
		await bad.check("after a power cut", "durable");
	});
});

test("a verification beside healing calls nothing lost and blames no healthy disk", async () => {
	for (let delay = 0; delay < 8; delay++) {
		const bad = await BadWorld.make(9010 + delay);
		await bad.run(async () => {
			await bad.mount();
			for (let i = 0; i < 12; i++) await bad.put(`more${i}`, 150_000);
			bad.world.wipe("/d5");
			await bad.until("it is away", async () => awayIn(await bad.volume.status()).length === 1);
			await bad.volume.heal(() => {});
			// Everything is written anew in its old shape: all places that the verification knew are given back under it.
			await bad.volume.disks.replace("/d5", undefined);
			await bad.world.sleep(delay * 3);
			const found = await bad.volume.verify({ dryRun: true, lost: true }, () => {});
			assert.deepEqual([found.unrecoverable, found.corrupt], [0, 0], `delay ${delay}`);
			await bad.expectWhole("healed");
			for (const disk of (await bad.volume.status()).disks) assert.equal(disk.errors, 0, `${disk.path} is blamed`);
		});
	}
});
