/** The native volume as the product opens it, on simulated disks, for the conformance suite. */
import { silentLogger } from "../../src/base/telemetry.ts";
import { SimWorld } from "../../src/platform/sim/world.ts";
import type { NativeVolume, VolumeModules } from "../../src/volume/native/interface.ts";
import { createVolume, openVolume } from "../../src/volume/native/open.ts";
import { nowFirst } from "../support/now-first.ts";
import type { VolumeHarness } from "./volume.ts";

/** The simulated machine copies all memory at each kill: the product's 112 MiB would be most of the time of this suite. */
const memory = { logTailBytes: 2 * 1024 * 1024, dirtyRingBytes: 12 * 1024 * 1024 };
const paths = ["/d1", "/d2", "/d3", "/d4"];

export interface NativeHarnessOptions {
	readonly diskBytes?: number;
	readonly logSegmentCount?: number;
	/** Calls are answered at once where they can be. */
	readonly now?: boolean;
}

export async function makeNativeHarness(seed: number, options: NativeHarnessOptions = {}): Promise<VolumeHarness> {
	const world = new SimWorld({ seed });
	const node = world.node();
	for (const path of paths) world.addDisk(path, { capacityBytes: options.diskBytes ?? 512 * 1024 * 1024 });
	const modules = (): VolumeModules => ({ platform: node.boot(), logger: silentLogger });
	const small = { logSegmentBytes: 1024 * 1024, logSegmentCount: options.logSegmentCount ?? 6 };
	let volume: NativeVolume | undefined;
	const open = async (): Promise<NativeVolume> => {
		volume = await openVolume({ name: "demo", diskPaths: paths, acceptLoss: false, memory }, modules());
		return volume;
	};
	const offered = (opened: NativeVolume): NativeVolume => (options.now === true ? nowFirst(opened) : opened);
	const close = async (): Promise<void> => {
		const current = volume;
		volume = undefined;
		await current?.shutdown();
	};
	await world.run(async () => {
		const create = {
			name: "demo",
			diskPaths: paths,
			redundancy: "rs:2+1",
			sameDevice: false,
			allowDegraded: false,
			uid: 0,
			gid: 0,
			...small,
		};
		await createVolume(create, modules());
		await open();
	});
	return {
		get volume() {
			if (volume === undefined) throw new Error("no volume is open");
			return offered(volume);
		},
		run: (body) => world.run(body),
		reopen: async () => {
			await close();
			return offered(await open());
		},
		crash: async () => {
			node.kill();
			return offered(await open());
		},
		powerCut: async () => {
			node.powerCut();
			return offered(await open());
		},
		sleep: (ms) => world.sleep(ms),
		close: () => world.run(close),
	};
}
