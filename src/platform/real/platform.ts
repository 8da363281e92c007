/** The Platform of a Linux process. */
import { stat } from "node:fs/promises";
import { BufferPool } from "../../base/buffer-pool.ts";
import { FsError } from "../../base/errors.ts";
import type { Disk, DiskActivity, FuseHost, Platform, Random } from "../interface.ts";
import { openRawDisk } from "../raw/raw-disk.ts";
import { RealClock, RealRandom } from "./clock.ts";
import type { CpuLatency } from "./cpu-latency.ts";
import { RealCoder } from "./coder.ts";
import { RealRawDevice } from "./device.ts";
import { RealDisk } from "./disk.ts";
import { DiskThread } from "./disk-thread.ts";
import { RealHostFiles } from "./files.ts";
import { realLimits } from "./limits.ts";
import { RealMemories } from "./memory.ts";
import { RealRequests } from "./requests.ts";
import { RealNetwork } from "./network.ts";
import { RealDeviceReports } from "./smart.ts";
import { RealSockets } from "./sockets.ts";

export interface RealPlatformOptions {
	readonly fuse?: FuseHost;
	/** Follow requests: every promise of the process costs a little more then. */
	readonly requests?: boolean;
	/** A tmpfs for memory files. Default /dev/shm. */
	readonly memoryFolder?: string;
	/** Entry point of disk threads; tests give one that can be made to hang. */
	readonly diskWorker?: URL;
	/** Entry point of the coder's thread; tests give one that dies. */
	readonly coderWorker?: URL;
	/** Shards are made and summed in a thread of their own, and large reads summed in those of the disks (default). */
	readonly coderThread?: boolean;
	/** Small calls of disks go through shared memory (default); otherwise all of them by message. */
	readonly diskLane?: boolean;
	/** The event loop of a server stays awake for the moment in which a client that was answered asks again (default). */
	readonly waitAwake?: boolean;
	/** Disks' threads go before other threads that want their processor (scheduling.ts). */
	readonly disksFirst?: boolean;
	/** Told of calls in a row by servers that stay awake for them (cpu-latency.ts). */
	readonly cpuLatency?: CpuLatency | undefined;
}

export interface RealPlatform extends Platform {
	/**
	 * Disks whose threads are still inside a call. After everything was closed these are disks that hang: a process with such
	 * threads cannot end by `exit`, which waits for them; it has to kill itself.
	 */
	stuckDisks(): string[];
}

export function createRealPlatform(options: RealPlatformOptions = {}): RealPlatform {
	const memories = new RealMemories(options.memoryFolder ?? "/dev/shm");
	const workerUrl = options.diskWorker ?? siblingUrl("disk-worker");
	const useLane = options.diskLane !== false;
	const sumsReads = options.coderThread !== false;
	const runsFirst = options.disksFirst === true;
	const threads = new Set<DiskThread>();
	const buffers = new BufferPool({ fromBytes: realLimits.lentFromBytes, keptBytes: realLimits.lentKeptBytes, shared: true });
	const random = new RealRandom();
	const platform = {
		clock: new RealClock(),
		random,
		openDisk: (path: string, onOpening?: OnOpening) =>
			openDisk(path, onOpening, { workerUrl, useLane, sumsReads, runsFirst, threads, buffers, random }),
		openMemory: async (name: string, sizeBytes: number) => memories.open(name, sizeBytes),
		removeMemory: async (name: string) => memories.remove(name),
		memoryHead: async (name: string, lengthBytes: number) => memories.head(name, lengthBytes),
		files: new RealHostFiles(),
		sockets: new RealSockets(),
		devices: new RealDeviceReports(),
		network: new RealNetwork(options.waitAwake !== false, options.cpuLatency),
		stuckDisks: () => [...threads].filter((thread) => thread.busy).map((thread) => thread.path),
	};
	return {
		...platform,
		...(options.coderThread === false ? {} : { coder: new RealCoder(options.coderWorker ?? siblingUrl("coder-worker")) }),
		...(options.requests === true ? { requests: new RealRequests() } : {}),
		...(options.fuse === undefined ? {} : { fuse: options.fuse }),
	};
}

type OnOpening = (activity: () => DiskActivity) => void;

interface DiskModules {
	readonly workerUrl: URL;
	readonly useLane: boolean;
	readonly sumsReads: boolean;
	readonly runsFirst: boolean;
	readonly threads: Set<DiskThread>;
	readonly buffers: BufferPool;
	readonly random: Random;
}

async function openDisk(path: string, onOpening: OnOpening | undefined, modules: DiskModules): Promise<Disk> {
	const { workerUrl, useLane, sumsReads, runsFirst, threads, buffers, random } = modules;
	if (!path.startsWith("/")) throw new FsError("EINVAL", "platform.disk-path", `the path of a disk must be absolute: ${path}`, { path });
	// A thread of libuv's pool belongs to the table of descriptors of whoever needed the pool first: that must not be a disk's.
	await stat("/");
	const thread = new DiskThread(path, { workerUrl, useLane, sumsReads, runsFirst, onExit: () => threads.delete(thread) });
	threads.add(thread);
	onOpening?.(() => thread.activity());
	try {
		const { domain, deviceBytes } = await thread.call<{ readonly domain: string; readonly deviceBytes?: number }>({ kind: "openDisk" });
		if (deviceBytes === undefined) return new RealDisk(path, domain, thread, buffers);
		return await openRawDisk(new RealRawDevice(path, { domain, sizeBytes: deviceBytes }, thread, buffers), random);
	} catch (error) {
		thread.abandon("it could not be opened");
		throw error;
	}
}

/** Compiled files lie beside each other; uncompiled ones too. */
function siblingUrl(name: string): URL {
	return new URL(`./${name}${import.meta.url.endsWith(".ts") ? ".ts" : ".js"}`, import.meta.url);
}
