/** For the tests of this folder: a simulated machine with a volume on its disks, and an engine with small bounds, so that flushes and merges happen all the time. */
import type { Logger } from "../../base/telemetry.ts";
import { silentLogger } from "../../base/telemetry.ts";
import { createDiskSet, type OpenDiskSet, openDiskSet } from "../../log/disk-set.ts";
import type { VolumeConfig } from "../../log/interface.ts";
import type { Platform } from "../../platform/interface.ts";
import type { SimNode } from "../../platform/sim/node.ts";
import { SimWorld } from "../../platform/sim/world.ts";
import type { LocalLimits } from "../limits.ts";
import { type LocalEngine, openLocalEngine } from "./engine.ts";

export const smallLimits: Partial<LocalLimits> = {
	memtableBytes: 6 * 1024,
	blockBytes: 512,
	cacheBytes: 8 * 1024,
	runsToLookInto: 3,
	chunkBytes: 4 * 1024,
	sliceEntries: 16,
	manifestSlotBytes: 16 * 1024,
	readAheadBlocks: 2,
};

export const testConfig: VolumeConfig = {
	redundancy: "rs:4+2",
	tolerance: 2,
	logSegmentBytes: 64 * 1024,
	logSegmentCount: 6,
	sameDevice: false,
};

export interface TestMachine {
	readonly world: SimWorld;
	readonly node: SimNode;
	readonly paths: readonly string[];
}

export function machine(seed: number, disks: number, capacityBytes = 16 * 1024 * 1024): TestMachine {
	const world = new SimWorld({ seed });
	const paths = Array.from({ length: disks }, (_, i) => `/d${i + 1}`);
	for (const path of paths) world.addDisk(path, { capacityBytes });
	return { world, node: world.node(), paths };
}

export async function createVolume(at: TestMachine, config: Partial<VolumeConfig> = {}): Promise<void> {
	const platform = at.node.boot();
	const options = { name: "demo", paths: at.paths, config: { ...testConfig, ...config } };
	await at.world.run(() => createDiskSet(options, { platform, logger: silentLogger }));
	at.node.kill();
}

export interface Mounted {
	readonly platform: Platform;
	readonly disks: OpenDiskSet;
	readonly engine: LocalEngine;
	/** Closes engine and disks, as a clean unmount does. */
	close(): Promise<void>;
}

export interface MountOptions {
	readonly paths?: readonly string[];
	readonly acceptLoss?: boolean;
	readonly limits?: Partial<LocalLimits>;
	readonly memoryBytes?: number;
	readonly logger?: Logger;
}

/** Drive it with `world.run`. */
export async function mount(at: TestMachine, options: MountOptions = {}): Promise<Mounted> {
	const platform = at.node.boot();
	const logger = options.logger ?? silentLogger;
	const disks = await openDiskSet(
		{ paths: options.paths ?? at.paths, acceptLoss: options.acceptLoss ?? false, callMs: 2_000 },
		{ platform, logger },
	);
	const memory = await platform.openMemory(`cairn-${disks.roster.volume}.log`, options.memoryBytes ?? 128 * 1024);
	const limits = { ...smallLimits, ...options.limits };
	const engine = await openLocalEngine({ limits }, { platform, disks, logger, memory });
	await disks.memoryTaken();
	return {
		platform,
		disks,
		engine,
		async close() {
			await engine.close();
			await memory.close();
			await disks.close();
		},
	};
}
