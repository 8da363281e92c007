/** Disks that other programs have filled to the last byte, and then the process dies or power fails: what a mount has to write down finds room in the spare space of the homes. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { silentLogger } from "../../src/base/telemetry.ts";
import { SimWorld } from "../../src/platform/sim/world.ts";
import type { NativeVolume } from "../../src/volume/native/interface.ts";
import { createVolume, openVolume } from "../../src/volume/native/open.ts";
import { caller, simMemory } from "./scenario.ts";

const paths = ["/d1", "/d2", "/d3"];

interface Stage {
	readonly world: SimWorld;
	open(): Promise<NativeVolume>;
	kill(): void;
	cut(): void;
	create(): Promise<void>;
}

function stage(seed: number): Stage {
	const world = new SimWorld({ seed });
	for (const path of paths) world.addDisk(path, { capacityBytes: 64 << 20 });
	const node = world.node();
	const modules = () => ({ platform: node.boot(), logger: silentLogger });
	return {
		world,
		open: () => openVolume({ name: "v", diskPaths: paths, acceptLoss: false, memory: simMemory }, modules()),
		kill: () => node.kill(),
		cut: () => node.powerCut(),
		create: async () => {
			const what = { name: "v", diskPaths: paths, redundancy: "rs:2+1", sameDevice: false, allowDegraded: false, uid: 0, gid: 0 };
			await createVolume({ ...what, logSegmentBytes: 1 << 19, logSegmentCount: 4 }, modules());
			node.kill();
		},
	};
}

const fill = ({ world }: Stage, on = true): void => {
	for (const path of paths) world.full(path, on);
};

const names = async (volume: NativeVolume): Promise<string[]> =>
	(await volume.readDirectory(caller, volume.root, 0, 1_000, false)).map(({ name }) => name);

describe("all disks are filled by other programs", () => {
	for (const end of ["kill", "cut"] as const) {
		test(`a mount after a ${end} has everything, again and again, and takes space aside when there is some`, async () => {
			const scene = stage(end === "kill" ? 41 : 42);
			await scene.world.run(async () => {
				await scene.create();
				for (let round = 0; round < 3; round++) {
					const volume = await scene.open();
					const spare = await spareOf(scene);
					fill(scene);
					const { position } = await volume.makeDirectory(caller, volume.root, `full${round}`, 0o755);
					if (round > 0) await volume.removeDirectory(caller, volume.root, `full${round - 1}`);
					await volume.durable(position);
					assert.ok(
						spare.every((bytes) => bytes > 1 << 19),
						`round ${round}: ${spare}`,
					);
					scene[end]();
				}
				const volume = await scene.open();
				const found = await names(volume);
				assert.ok(found.includes("full2"), found.join());
				assert.deepEqual((await volume.status()).metadataCopies, { wanted: 3, present: 3 });
				fill(scene, false);
				const whole = (await spareOf(scene))[0] as number;
				await scene.world.sleep(20_000);
				for (const bytes of await spareOf(scene)) assert.ok(bytes > whole, "what was given up is taken again");
				await volume.shutdown();
			});
		});
	}
});

async function spareOf({ world }: Stage): Promise<number[]> {
	await world.sleep(2_000);
	return paths.map((path) => world.disk(path).find("kv/spare")?.size ?? 0);
}
