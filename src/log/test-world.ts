/** For the tests of this floor: a simulated machine with disks, and the least engine that a log can have. */
import { assert } from "../base/assert.ts";
import { bytesToLatin1, latin1ToBytes } from "../base/bytes.ts";
import { silentLogger } from "../base/telemetry.ts";
import type { Memory, Platform } from "../platform/interface.ts";
import type { SimNode } from "../platform/sim/node.ts";
import { SimWorld } from "../platform/sim/world.ts";
import { createDiskSet, type OpenDiskSet, openDiskSet } from "./disk-set.ts";
import type { Log, RecoveredLog, VolumeConfig } from "./interface.ts";
import { startLog } from "./log.ts";
import { recoverLog } from "./recover.ts";

export const memoryBytes = 128 * 1024;
const checkpointPath = "/checkpoint";

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

export function machine(seed: number, disks: number): TestMachine {
	const world = new SimWorld({ seed });
	const paths = Array.from({ length: disks }, (_, i) => `/d${i + 1}`);
	for (const path of paths) world.addDisk(path, { capacityBytes: 16 * 1024 * 1024 });
	return { world, node: world.node(), paths };
}

export async function createVolume(test: TestMachine, config: Partial<VolumeConfig> = {}): Promise<void> {
	const platform = test.node.boot();
	await test.world.run(() =>
		createDiskSet({ name: "demo", paths: test.paths, config: { ...testConfig, ...config } }, { platform, logger: silentLogger }),
	);
	test.node.kill();
}

export interface Mounted {
	readonly platform: Platform;
	readonly disks: OpenDiskSet;
	readonly log: Log;
	readonly memory: Memory;
	/** Payloads of all records of the volume up to the mount, by the checkpoint and the log. */
	readonly history: string[];
	readonly report: RecoveredLog["report"];
}

export interface MountOptions {
	readonly paths?: readonly string[];
	readonly acceptLoss?: boolean;
	/** Without it the log is recovered but not started, as a mount that dies half-way does. */
	readonly recoverOnly?: boolean;
}

/** What an engine does at mount: recover, checkpoint, start. Its checkpoint is a file of the host, which is always durable. */
export async function mount(test: TestMachine, options: MountOptions = {}): Promise<Mounted> {
	const platform = test.node.boot();
	const logger = silentLogger;
	const disks = await openDiskSet(
		{ paths: options.paths ?? test.paths, acceptLoss: options.acceptLoss ?? false, callMs: 2_000 },
		{ platform, logger },
	);
	const memory = await platform.openMemory(`cairn-${disks.roster.volume}.log`, memoryBytes);
	const modules = { platform, disks, logger, memory };
	const history = await readCheckpoint(platform);
	const recovered = await recoverLog({ after: history.length }, modules);
	for await (const record of recovered.records) {
		assert(record.sequence === history.length + 1, "records come in order, without a gap");
		history.push(bytesToLatin1(record.payload));
	}
	const { report } = recovered;
	if (options.recoverOnly) return { platform, disks, memory, history, report, log: undefined as unknown as Log };
	await writeCheckpoint(platform, history);
	const log = await startLog({ firstSequence: history.length + 1, previousChecksum: report.lastChecksum }, modules);
	return { platform, disks, log, memory, history, report };
}

export async function readCheckpoint(platform: Platform): Promise<string[]> {
	const bytes = await platform.files.read(checkpointPath);
	return bytes ? (JSON.parse(bytesToLatin1(bytes)) as string[]) : [];
}

export async function writeCheckpoint(platform: Platform, history: readonly string[]): Promise<void> {
	await platform.files.write(checkpointPath, latin1ToBytes(JSON.stringify(history)));
}

/** Appends when there is room, as an engine does. */
export async function append(mounted: Mounted, payload: string): Promise<number> {
	while (!mounted.log.hasRoom(payload.length)) await mounted.log.room();
	const sequence = mounted.log.append(latin1ToBytes(payload));
	mounted.history.push(payload);
	assert(sequence === mounted.history.length, "sequences follow one another");
	return sequence;
}

export async function checkpoint(mounted: Mounted): Promise<void> {
	const upTo = mounted.log.lastSequence;
	await writeCheckpoint(mounted.platform, mounted.history.slice(0, upTo));
	await mounted.log.cut(upTo);
}
