/** The quick part; the long suite takes many more moments. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { silentLogger } from "../../src/base/telemetry.ts";
import { isFsError } from "../../src/base/errors.ts";
import { SimWorld } from "../../src/platform/sim/world.ts";
import type { NativeVolume } from "../../src/volume/native/interface.ts";
import { createVolume, openVolume } from "../../src/volume/native/open.ts";
import { type Lack, lifeMs, noSpaceAt } from "./no-space.ts";
import { caller, simMemory } from "./scenario.ts";

describe("space runs out", () => {
	for (const lack of ["all", "one", "call"] satisfies Lack[]) {
		test(`${lack}: at some moments of a life`, async () => {
			for (let i = 0; i < 4; i++) await noSpaceAt(20 + i, lack, (lifeMs * (i + 0.3)) / 4);
		});
	}

	test("before a mount that has to write down what the log holds: one copy of the metadata less, until there is space; on two of three disks it is refused", async () => {
		const world = new SimWorld({ seed: 3 });
		const paths = ["/d1", "/d2", "/d3"];
		for (const path of paths) world.addDisk(path, { capacityBytes: 64 << 20 });
		const node = world.node();
		const open = (): Promise<NativeVolume> =>
			openVolume({ name: "v", diskPaths: paths, acceptLoss: false, memory: simMemory }, { platform: node.boot(), logger: silentLogger });
		await world.run(async () => {
			const create = { name: "v", diskPaths: paths, redundancy: "rs:2+1", sameDevice: false, allowDegraded: false, uid: 0, gid: 0 };
			const logs = { logSegmentBytes: 1 << 19, logSegmentCount: 4 };
			await createVolume({ ...create, ...logs }, { platform: node.boot(), logger: silentLogger });
			node.kill();
			const first = await open();
			await first.makeDirectory(caller, first.root, "made", 0o755);
			node.kill();
			// Spare space that the homes had for this is gone, too.
			for (const path of paths) world.disk(path).remove("kv/spare");
			for (const path of ["/d1", "/d2"]) world.full(path);
			await assert.rejects(open(), (error) => {
				assert.ok(isFsError(error, "ENOSPC"));
				assert.equal(error.site, "kv.mount-space");
				assert.match(error.message, /no space on d1 \(\/d1\), d2 \(\/d2\).*free space there, and mount again/);
				return true;
			});
			node.kill();
			world.full("/d2", false);
			const volume = await open();
			const copies = async () => (await volume.status()).metadataCopies;
			assert.deepEqual(await copies(), { wanted: 3, present: 2 });
			assert.match((await volume.status()).warnings.join("\n"), /metadata has 2 of 3 copies/);
			const { position } = await volume.makeDirectory(caller, volume.root, "while-full", 0o755);
			await volume.removeDirectory(caller, volume.root, "made");
			await volume.durable(position);
			world.full("/d1", false);
			for (let i = 0; (await copies()).present < 3; i++) {
				assert.ok(i < 600, "copied when there is space");
				await world.sleep(100);
			}
			await volume.shutdown();
		});
	});
});
