import assert from "node:assert/strict";
import { test } from "node:test";
import { SimWorld } from "../../src/platform/sim/world.ts";
import { caller, makeWorldVolume, openSim, pattern } from "./scenario.ts";

test("damage that a read finds is healed without anybody asking", async () => {
	const seed = 5;
	const world = new SimWorld({ seed });
	await makeWorldVolume(world);
	const node = world.node();
	const contents = pattern(seed, 500_000);
	await world.run(async () => {
		const volume = await openSim(node.boot());
		const { handle } = await volume.open(
			caller,
			{ parent: volume.root, name: "f" },
			{ disposition: "create", access: { read: true, write: true } },
		);
		await volume.write(handle, 0, contents);
		await volume.syncAll();
		await volume.shutdown();
	});
	node.powerCut();
	const damaged = ["/d2", "/d5"];
	for (const path of damaged)
		for (const name of world.disk(path).files()) if (name.startsWith("pack/")) world.corrupt(path, name, 8192, 20_000);
	await world.run(async () => {
		const platform = node.boot();
		const volume = await openSim(platform);
		const attributes = await volume.lookup(caller, volume.root, "f");
		const { handle } = await volume.open(
			caller,
			{ node: volume.node(attributes.ino) },
			{ disposition: "open", access: { read: true, write: false } },
		);
		assert.deepEqual(await volume.read(handle, 0, contents.length), contents, "right, whatever the disks hold");
		const corrupt = (await volume.status()).disks.reduce((sum, disk) => sum + disk.errorKinds.corrupt, 0);
		assert(corrupt > 0, "the read met the damage");
		await platform.clock.sleep(10_000);
		const proof = await volume.verify({ dryRun: true, lost: false }, () => {});
		assert.deepEqual({ corrupt: proof.corrupt, missing: proof.missing }, { corrupt: 0, missing: 0 }, "nobody asked for it");
		assert.equal((await volume.status()).state, "running");
	});
});
