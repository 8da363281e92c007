/**
 * One opening of a simulated disk: a queue of calls that are executed in order, each after its latency, unless the disk hangs or
 * the process dies.
 *
 * Invariants
 * 1. Calls are executed in the order in which they were made; `#queue[0]` is the one in flight.
 * 2. A call of a dead incarnation never settles.
 * 3. What a power cut or kill interrupts has happened, not happened or happened in part, by the seed.
 */
import { AssertionError } from "../../base/assert.ts";
import { Deferred } from "../../base/async.ts";
import type { BufferPool, Lent } from "../../base/buffer-pool.ts";
import { concatBytes } from "../../base/bytes.ts";
import { FsError } from "../../base/errors.ts";
import { sumsOf } from "../../codec/checksum.ts";
import type { Borrowed, Disk, DiskActivity, DiskFile } from "../interface.ts";
import { checkDiskFolder, checkDiskName, checkRange } from "../names.ts";
import { type DiskCall, folderOf, type SimDevice } from "./device.ts";
import type { SimFile } from "./file.ts";
import { pageBytes, simLimits } from "./limits.ts";
import type { Owner, Scheduler } from "./scheduler.ts";
import { isZero } from "./sparse.ts";

/** What the disk needs of its world. */
export interface DiskWorld {
	readonly scheduler: Scheduler;
	/** Counts a step; true when the test asked that power or process end right here. */
	countStep(): boolean;
	/** Ends it. */
	endNow(): void;
	/** Remembers the site; true when its syncs are turned off. */
	siteIgnored(site: string): boolean;
	/** For borrowed reads. */
	readonly buffers: BufferPool;
}

/** What a call does, once it is its turn. */
interface Action<T> {
	readonly execute: () => T;
	/** What happens of it when power or process end while it is in flight. Default: nothing. */
	readonly interrupted?: () => void;
	/** What a fault that the test set does beside failing the call. */
	readonly failed?: () => void;
}

interface Call {
	readonly kind: DiskCall;
	readonly action: Action<unknown>;
	readonly result: Deferred<unknown>;
}

const stepCalls: ReadonlySet<DiskCall> = new Set(["write", "sync", "syncNames", "remove", "setAside", "truncate", "discard"]);

export class SimDisk implements Disk {
	readonly path: string;
	readonly domain: string;
	readonly device: SimDevice;
	readonly #owner: Owner;
	readonly #world: DiskWorld;
	readonly #generation: number;
	#queue: Call[] = [];
	#inFlight = false;
	#stalled = false;
	#closed = false;
	#released = false;
	#finished = 0;
	readonly #wake = () => this.#resume();

	constructor(device: SimDevice, owner: Owner, world: DiskWorld) {
		this.path = device.path;
		this.domain = device.domain;
		this.device = device;
		this.#owner = owner;
		this.#world = world;
		this.#generation = device.generation;
		device.onUnhang.add(this.#wake);
	}

	/** Whether it still has the lock that it took: until it is closed or its process dies. */
	get holds(): boolean {
		return this.#owner.alive && !this.#released;
	}

	get buffers(): BufferPool {
		return this.#world.buffers;
	}

	/** How many calls are waiting. */
	get waiting(): number {
		return this.#queue.length;
	}

	/** The first call of an opening: the device may be hung or gone. */
	opened(): Promise<void> {
		const execute = () => {
			if (this.device.present) return;
			throw new FsError("ENOENT", "platform.sim-open-disk", `the disk ${this.path} is not there`, { path: this.path });
		};
		return this.call("openDisk", { execute });
	}

	lock(): Promise<void> {
		const execute = () => {
			const holder = this.device.lockedBy;
			if (holder?.holds && holder !== this) {
				throw new FsError("EBUSY", "platform.sim-lock", `the disk ${this.path} is in use by another daemon`, { path: this.path });
			}
			this.device.lockedBy = this;
		};
		return this.call("lock", { execute });
	}

	async open(name: string, options: { readonly create?: boolean } = {}): Promise<DiskFile> {
		checkDiskName(name);
		const execute = () => {
			let file = this.device.find(name);
			if (file === undefined && options.create) file = this.device.create(name);
			if (file !== undefined) return new SimDiskFile(name, file, this);
			throw new FsError("ENOENT", "platform.sim-open", `no file ${name} on the disk ${this.path}`, { path: this.path, name });
		};
		return await this.call("open", { execute });
	}

	async list(folder: string): Promise<string[]> {
		checkDiskFolder(folder);
		return await this.call("list", { execute: () => this.device.list(folder) });
	}

	async remove(name: string): Promise<void> {
		checkDiskName(name);
		const execute = () => this.device.remove(name);
		await this.call("remove", { execute, interrupted: execute });
	}

	async setAside(name: string, sizeBytes: number, site: string): Promise<number> {
		checkDiskName(name);
		const isSynced = !this.#world.siteIgnored(site);
		const execute = () => {
			const taken = this.device.setAside(name, sizeBytes);
			if (isSynced) {
				this.device.find(name)?.sync();
				this.device.syncNames(folderOf(name));
			}
			return taken;
		};
		return await this.call("setAside", { execute });
	}

	async syncNames(folder: string, site: string): Promise<void> {
		checkDiskFolder(folder);
		const execute = () => this.device.syncNames(folder);
		await this.callSync("syncNames", site, { execute, interrupted: execute });
	}

	space(): Promise<{ readonly capacityBytes: number; readonly freeBytes: number }> {
		return this.call("space", { execute: () => ({ capacityBytes: this.device.capacityBytes, freeBytes: this.device.freeBytes }) });
	}

	probe(): Promise<void> {
		return this.call("probe", { execute: nothing });
	}

	activity(): DiskActivity {
		const isIdle = !this.#inFlight || (this.device.hung && this.device.isStarved);
		return { finished: this.#finished, state: isIdle ? "idle" : "waiting" };
	}

	async close(): Promise<void> {
		if (this.#closed) return;
		const closed = this.call("close", { execute: nothing });
		this.#closed = true;
		const hung = new Deferred<void>();
		const cancel = this.#world.scheduler.at(simLimits.closeMs, this.#owner, () => hung.resolve());
		await Promise.race([closed, hung.promise]);
		cancel();
		this.#drain();
	}

	/** The process is gone: what was in flight is cut short. `random` decides. */
	die(interrupt: boolean): void {
		const call = this.#queue[0];
		if (interrupt && this.#inFlight && !this.device.hung && this.device.random.chance(0.5)) runInterrupted(call);
		this.#queue = [];
		this.device.onUnhang.delete(this.#wake);
	}

	callSync(kind: DiskCall, site: string, action: Action<void>): Promise<void> {
		return this.call(kind, this.#world.siteIgnored(site) ? { execute: nothing } : action);
	}

	/** Puts a call into the queue. */
	call<T>(kind: DiskCall, action: Action<T>): Promise<T> {
		if (!this.#owner.alive) return new Promise<never>(() => {});
		if (this.#closed) return Promise.reject(this.#error("EBADF", "platform.sim-closed", `${kind}: the disk ${this.path} was closed`));
		if (this.#queue.length >= simLimits.queuedCalls) {
			return Promise.reject(this.#error("EAGAIN", "platform.sim-queue", `${this.#queue.length} calls wait for the disk ${this.path}`));
		}
		const result = new Deferred<unknown>();
		this.#queue.push({ kind, action, result });
		this.#pump();
		return result.promise as Promise<T>;
	}

	#pump(): void {
		if (this.#inFlight || this.#queue.length === 0) return;
		this.#inFlight = true;
		const [least, most] = this.device.latencyMs;
		this.#world.scheduler.at(least + this.device.random.float() * (most - least), this.#owner, () => this.#fire());
	}

	#resume(): void {
		if (!this.#stalled) return;
		this.#stalled = false;
		this.#inFlight = false;
		if (this.#released) this.#drain();
		else this.#pump();
	}

	#fire(): void {
		const call = this.#queue[0];
		if (call === undefined || this.device.hung) {
			this.#stalled = call !== undefined;
			this.#inFlight = call !== undefined;
			return;
		}
		if (stepCalls.has(call.kind) && this.#world.countStep()) {
			if (this.device.random.chance(0.5)) runInterrupted(call);
			this.#inFlight = false;
			this.#world.endNow();
			return;
		}
		this.#queue.shift();
		this.#finished++;
		this.#execute(call);
		this.#inFlight = false;
		this.#pump();
	}

	#execute(call: Call): void {
		try {
			this.device.check(call.kind, this.#generation);
		} catch (error) {
			call.action.failed?.();
			call.result.reject(error);
			return;
		}
		try {
			call.result.resolve(call.action.execute());
		} catch (error) {
			call.result.reject(error);
		}
	}

	/** After `close`: calls that a hung disk kept fail; the lock stays until the disk lets go. */
	#drain(): void {
		const left = this.#queue;
		this.#queue = [];
		this.#released = !this.device.hung;
		for (const call of left) {
			call.result.promise.catch(() => {});
			call.result.reject(this.#error("EIO", "platform.sim-close-hung", `${call.kind}: the disk ${this.path} hung and was closed`));
		}
		if (this.#released) this.device.onUnhang.delete(this.#wake);
		else
			this.device.onUnhang.add(() => {
				this.#released = true;
			});
	}

	#error(code: "EBADF" | "EAGAIN" | "EIO", site: string, message: string): FsError {
		return new FsError(code, site, message, { path: this.path });
	}
}

function nothing(): void {}

function runInterrupted(call: Call | undefined): void {
	try {
		call?.action.interrupted?.();
	} catch {
		// A full or read-only disk: then nothing of it happened.
	}
}

class SimDiskFile implements DiskFile {
	readonly name: string;
	readonly #file: SimFile;
	readonly #disk: SimDisk;
	#closed = false;

	constructor(name: string, file: SimFile, disk: SimDisk) {
		this.name = name;
		this.#file = file;
		this.#disk = disk;
	}

	async read(offset: number, lengthBytes: number): Promise<Uint8Array> {
		checkRange(this.name, offset, lengthBytes);
		return await this.#call("read", { execute: () => this.#disk.device.read(this.#file, this.name, offset, lengthBytes) });
	}

	/** What is used after it was given back is noise. */
	async borrow(offset: number, lengthBytes: number, sumBlockBytes?: number): Promise<Borrowed> {
		checkRange(this.name, offset, lengthBytes);
		let lent: Lent | undefined;
		const execute = () => {
			lent = this.#disk.buffers.take(lengthBytes);
			return this.#disk.device.read(this.#file, this.name, offset, lengthBytes, lent?.bytes);
		};
		const bytes = await this.#call("read", { execute });
		const release = () => {
			bytes.fill(0xa5);
			lent?.release();
		};
		return { bytes, sums: sumBlockBytes === undefined ? undefined : sumsOf(bytes, sumBlockBytes), release };
	}

	async write(offset: number, parts: readonly Uint8Array[]): Promise<void> {
		const length = parts.reduce((sum, part) => sum + part.length, 0);
		checkRange(this.name, offset, length);
		const bytes = parts.every(isZero) ? undefined : concatBytes(parts);
		const { device } = this.#disk;
		const execute = () => {
			this.#checkUnchanged(bytes, parts);
			device.write(this.#file, this.name, offset, length, bytes);
		};
		const interrupted = () => {
			const left = Math.min(length, device.random.below(Math.ceil(length / pageBytes) + 1) * pageBytes);
			device.write(this.#file, this.name, offset, left, bytes?.subarray(0, left));
		};
		await this.#call("write", { execute, interrupted });
	}

	async sync(site: string): Promise<void> {
		this.#checkOpen("sync");
		const { device } = this.#disk;
		const execute = () => {
			if (device.find(this.name) !== this.#file) {
				throw new FsError(
					"ENOENT",
					"platform.sim-sync-removed",
					`${this.name} on ${this.#disk.path} was removed; syncing it protects nothing`,
				);
			}
			device.sync(this.#file, this.name);
		};
		await this.#disk.callSync("sync", site, { execute, interrupted: execute, failed: () => this.#file.failSync(device.random) });
	}

	async discard(offset: number, lengthBytes: number): Promise<void> {
		checkRange(this.name, offset, lengthBytes);
		await this.#change("discard", () => this.#file.punch(offset, lengthBytes));
	}

	/** What the simulated page cache shows of what was synced is what the platter holds, rot included. */
	async uncache(offset: number, lengthBytes: number): Promise<void> {
		checkRange(this.name, offset, lengthBytes);
		await this.#call("uncache", { execute: nothing });
	}

	async size(): Promise<number> {
		return await this.#call("size", { execute: () => this.#file.size });
	}

	async held(): Promise<number> {
		return await this.#call("size", { execute: () => this.#file.allocatedPages * pageBytes });
	}

	async truncate(sizeBytes: number): Promise<void> {
		checkRange(this.name, sizeBytes, 0);
		await this.#change("truncate", () => this.#file.truncate(sizeBytes));
	}

	async close(): Promise<void> {
		if (this.#closed) return;
		const closed = this.#call("closeFile", { execute: nothing });
		this.#closed = true;
		await closed;
	}

	async #change(kind: DiskCall, fn: () => void): Promise<void> {
		const execute = () => this.#disk.device.change(this.#file, this.name, fn);
		await this.#call(kind, { execute, interrupted: execute });
	}

	async #call<T>(kind: DiskCall, action: Action<T>): Promise<T> {
		this.#checkOpen(kind);
		return await this.#disk.call(kind, action);
	}

	#checkOpen(kind: DiskCall): void {
		if (this.#closed) throw new FsError("EBADF", "platform.sim-file-closed", `${kind}: ${this.name} on ${this.#disk.path} was closed`);
	}

	/** `bytes` undefined: they were zeros. */
	#checkUnchanged(bytes: Uint8Array | undefined, parts: readonly Uint8Array[]): void {
		let at = 0;
		for (const part of parts) {
			const isSame = bytes === undefined ? isZero(part) : Buffer.compare(part, bytes.subarray(at, at + part.length)) === 0;
			if (!isSame) {
				throw new AssertionError(`${this.name} on ${this.#disk.path}: bytes given to write were changed before it settled`);
			}
			at += part.length;
		}
	}
}
