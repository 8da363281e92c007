/** The suite on the native volume as the product opens it, on simulated disks. */
import { silentLogger } from "../../src/base/telemetry.ts";
import { SimWorld } from "../../src/platform/sim/world.ts";
import type { NativeVolume } from "../../src/volume/native/interface.ts";
import { createVolume, openVolume } from "../../src/volume/native/open.ts";
import { volumeConformance, type VolumeHarness } from "./volume.ts";

const paths = ["/d1", "/d2", "/d3", "/d4"];

async function makeHarness(seed: number): Promise<VolumeHarness> {
	const world = new SimWorld({ seed });
	const node = world.node();
	for (const path of paths) world.addDisk(path, { capacityBytes: 512 * 1024 * 1024 });
	const modules = (): { platform: ReturnType<typeof node.boot>; logger: typeof silentLogger } => ({
		platform: node.boot(),
		logger: silentLogger,
	});
	const small = { logSegmentBytes: 1024 * 1024, logSegmentCount: 16 };
	let volume: NativeVolume | undefined;
	const open = async (): Promise<NativeVolume> => {
		volume = await openVolume({ name: "demo", diskPaths: paths, acceptLoss: false }, modules());
		return volume;
	};
	const close = async (): Promise<void> => {
		const current = volume;
		volume = undefined;
		await current?.shutdown();
	};
	await world.run(async () => {
		const options = {
			name: "demo",
			diskPaths: paths,
			redundancy: "rs:2+1",
			sameDevice: false,
			allowDegraded: false,
			uid: 0,
			gid: 0,
			...small,
		};
		await createVolume(options, modules());
		await open();
	});
	return {
		get volume() {
			if (volume === undefined) throw new Error("no volume is open");
			return volume;
		},
		run: (body) => world.run(body),
		reopen: async () => {
			await close();
			return open();
		},
		crash: () => {
			node.kill();
			return open();
		},
		powerCut: () => {
			node.powerCut();
			return open();
		},
		sleep: (ms) => world.sleep(ms),
		close: () => world.run(close),
	};
}

volumeConformance("native volume", makeHarness);
