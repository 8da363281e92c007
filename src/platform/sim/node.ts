/**
 * A simulated machine: processes on it are incarnations, each with a Platform of its own.
 *
 * Invariants
 * 1. Nothing of a dead incarnation settles, fires or reaches disks, memory or sockets.
 * 2. Memory and page cache survive `kill`; host files survive everything; memory and locks do not survive `powerCut`.
 */
import type { Timestamp } from "../../base/time.ts";
import { FsError } from "../../base/errors.ts";
import type { Clock, Disk, DiskActivity, Memory, Platform } from "../interface.ts";
import { checkMemoryName } from "../names.ts";
import type { SimDevice } from "./device.ts";
import { SimCoder } from "./coder.ts";
import type { DiskWorld } from "./disk.ts";
import { SimDisk } from "./disk.ts";
import { SimHost, SimHostFiles, SimSockets } from "./host.ts";
import { SimNetwork } from "./network.ts";
import { simLimits, simStartSeconds } from "./limits.ts";
import { openRawDisk } from "../raw/raw-disk.ts";
import { Prng } from "./prng.ts";
import { SimRawDevice, starvingDisk } from "./raw.ts";
import type { Owner, Scheduler } from "./scheduler.ts";

/** What a node needs of its world. */
export interface NodeWorld {
	readonly scheduler: Scheduler;
	readonly seed: number;
	device(path: string): SimDevice | undefined;
	/** For the disks that this node opens. */
	diskWorld(node: SimNode): DiskWorld;
	/** A stream of random numbers that was never used before. */
	freshRandom(purpose: string): Prng;
}

export interface SimNodeOptions {
	readonly name?: string;
	/** Speed of its clock, 1 = exact. */
	readonly clockRate?: number;
	/** How far its wall clock is ahead. */
	readonly clockOffsetMs?: number;
	/** Its processes have no coder, one that lives, or one that dies of the work with this number, from 1; the seed decides by default. */
	readonly coder?: "none" | "well" | number;
}

interface Incarnation extends Owner {
	alive: boolean;
	readonly disks: Set<SimDisk>;
	readonly sockets: SimSockets;
	readonly network: SimNetwork;
}

export class SimNode {
	readonly name: string;
	readonly host = new SimHost();
	readonly #world: NodeWorld;
	readonly #options: SimNodeOptions;
	readonly #incarnations = new Set<Incarnation>();
	readonly #memories = new Map<string, Uint8Array>();
	readonly #devices = new Set<SimDevice>();
	#boots = 0;
	/** How far its wall clock is ahead. */
	#clockOffsetMs: number;

	constructor(world: NodeWorld, name: string, options: SimNodeOptions) {
		this.#world = world;
		this.name = name;
		this.#options = options;
		this.#clockOffsetMs = options.clockOffsetMs ?? 0;
	}

	/** Somebody sets the wall clock. */
	jumpClock(byMs: number): void {
		this.#clockOffsetMs += byMs;
	}

	get alive(): boolean {
		return this.#incarnations.size > 0;
	}

	/** Starts a process. Several may live at once (a daemon and a command); `kill` and `powerCut` end them all. */
	boot(): Platform {
		const { scheduler } = this.#world;
		const owner: Owner & { alive: boolean } = { alive: true };
		const incarnation: Incarnation = Object.assign(owner, {
			disks: new Set<SimDisk>(),
			sockets: new SimSockets(this.host, scheduler, owner),
			network: new SimNetwork(this.host, scheduler, owner),
		});
		this.#incarnations.add(incarnation);
		const boot = this.#boots++;
		const random = new Prng(this.#world.seed, `random:${this.name}:${boot}`);
		const coder = SimCoder.make(this.#options.coder, new Prng(this.#world.seed, `coder:${this.name}:${boot}`), {
			scheduler,
			owner: incarnation,
		});
		return {
			clock: this.#clock(incarnation),
			random,
			openDisk: (path, onOpening) => this.#openDisk(path, incarnation, onOpening),
			openMemory: (name, sizeBytes) => this.#openMemory(name, sizeBytes, incarnation),
			removeMemory: (name) => this.#removeMemory(name, incarnation),
			memoryHead: (name, lengthBytes) => this.#memoryHead(name, lengthBytes, incarnation),
			files: new SimHostFiles(this.host, scheduler, incarnation),
			sockets: incarnation.sockets,
			network: incarnation.network,
			...(coder === undefined ? {} : { coder }),
		};
	}

	/** The processes die (`kill -9`): what they wrote is in the page cache and in memory files. */
	kill(): void {
		this.#end();
		// A dead process may have synchronous work left in this tick: its stores must not reach its successor.
		for (const [name, bytes] of this.#memories) this.#memories.set(name, bytes.slice());
	}

	/** The machine loses power: of what was not synced, anything may be lost, kept, reordered or torn. */
	powerCut(): void {
		this.#end();
		this.#memories.clear();
		// Often nothing that was not synced has reached any disk: what happens to disks one by one would seldom add up to that.
		const style = this.#world.freshRandom("power-cut").chance(0.3) ? "none" : undefined;
		for (const device of this.#devices) device.powerCut(this.#world.freshRandom(`power-cut:${device.path}`), style);
		this.#devices.clear();
	}

	/** Changes a memory file behind its owner's back. */
	tamper(name: string, change: (bytes: Uint8Array) => Uint8Array): void {
		const bytes = this.#memories.get(name);
		if (bytes !== undefined) this.#memories.set(name, change(bytes));
	}

	/** Memory files that are there, for tests. */
	get memoryNames(): string[] {
		return [...this.#memories.keys()].sort();
	}

	/** Calls that have not settled, per disk, for messages. */
	waiting(): string[] {
		const lines: string[] = [];
		for (const incarnation of this.#incarnations) {
			for (const disk of incarnation.disks) {
				if (disk.waiting > 0) lines.push(`${disk.waiting} calls on ${disk.path}${disk.device.hung ? " (hung)" : ""}`);
			}
		}
		return lines;
	}

	#end(): void {
		for (const incarnation of this.#incarnations) {
			incarnation.alive = false;
			for (const disk of incarnation.disks) disk.die(true);
			incarnation.sockets.die();
			incarnation.network.die();
		}
		this.#incarnations.clear();
	}

	#clock(owner: Owner): Clock {
		const { scheduler } = this.#world;
		const rate = this.#options.clockRate ?? 1;
		return {
			realtime: () => toTimestamp(this.#clockOffsetMs + scheduler.nowMs * rate),
			monotonicMs: () => scheduler.nowMs * rate,
			sleep: (ms) => scheduler.delay(Math.max(0, ms) / rate, owner),
			after: (ms, fn) => (owner.alive ? scheduler.at(Math.max(0, ms) / rate, owner, fn) : () => {}),
			yield: () => scheduler.delay(0, owner),
		};
	}

	async #openDisk(path: string, incarnation: Incarnation, onOpening?: (activity: () => DiskActivity) => void): Promise<Disk> {
		const device = this.#world.device(path);
		if (device === undefined) {
			await this.#world.scheduler.delay(simLimits.hostLatencyMs, incarnation);
			throw new FsError("ENOENT", "platform.sim-no-disk", `there is no directory ${path}`, { path });
		}
		const disk = new SimDisk(device, incarnation, this.#world.diskWorld(this));
		incarnation.disks.add(disk);
		this.#devices.add(device);
		onOpening?.(() => disk.activity());
		await disk.opened();
		if (!device.raw) return disk;
		const boot = this.#boots;
		return starvingDisk(await openRawDisk(await SimRawDevice.open(disk), new Prng(this.#world.seed, `raw:${path}:${boot}`)), device);
	}

	async #openMemory(name: string, sizeBytes: number, owner: Owner): Promise<Memory> {
		checkMemoryName(name, sizeBytes);
		await this.#world.scheduler.delay(simLimits.hostLatencyMs, owner);
		const old = this.#memories.get(name);
		const existed = old !== undefined && old.length === sizeBytes;
		const bytes = existed ? old : new Uint8Array(sizeBytes);
		this.#memories.set(name, bytes);
		return { bytes, existed, close: () => this.#world.scheduler.delay(simLimits.hostLatencyMs, owner) };
	}

	async #memoryHead(name: string, lengthBytes: number, owner: Owner): ReturnType<Platform["memoryHead"]> {
		checkMemoryName(name, lengthBytes);
		await this.#world.scheduler.delay(simLimits.hostLatencyMs, owner);
		const bytes = this.#memories.get(name);
		return bytes && { bytes: bytes.slice(0, lengthBytes), sizeBytes: bytes.length };
	}

	async #removeMemory(name: string, owner: Owner): Promise<void> {
		checkMemoryName(name, 1);
		await this.#world.scheduler.delay(simLimits.hostLatencyMs, owner);
		this.#memories.delete(name);
	}
}

function toTimestamp(ms: number): Timestamp {
	const whole = Math.floor(ms / 1000);
	const nanoseconds = Math.min(999_999_999, Math.floor((ms - whole * 1000) * 1e6));
	return { seconds: simStartSeconds + whole, nanoseconds };
}
