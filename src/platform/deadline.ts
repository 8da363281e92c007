/**
 * Time limits around a disk: a disk that hangs becomes an error instead of a wait.
 *
 * Calls are executed in order, so a call may wait long in line behind others on a disk that is well. Its limit therefore counts from
 * the last call that the disk finished, and a call that waited `patience` limits in all fails in any case.
 *
 * Invariants
 * 1. Every call settles within `patience` limits.
 * 2. While a call that timed out is still out, further calls fail at once; only `close` is passed on, so that threads and locks are freed.
 * 3. What a late call brings is cleaned up: a file that opens after its limit is closed again.
 */
import type { ErrorCode } from "../base/errors.ts";
import { FsError } from "../base/errors.ts";
import type { Borrowed, Clock, Disk, DiskFile, Platform } from "./interface.ts";
import { deadlineLimits } from "./limits.ts";

export interface DeadlineOptions {
	/** Milliseconds without a sign of life, for every kind of call that has no limit of its own. Default 10 s. */
	readonly callMs?: number;
	readonly readMs?: number;
	readonly writeMs?: number;
	/** Syncs of files and of names. */
	readonly syncMs?: number;
}

/** `disk` with a limit on every call. @throws FsError ETIMEDOUT `platform.deadline` from its calls. */
export function withDeadlines(disk: Disk, clock: Clock, options: DeadlineOptions = {}): Disk {
	return new TimedDisk(disk, new Line(disk.path, clock, options));
}

/** Opens a disk that may hang already. What opens late is closed again. @throws FsError ETIMEDOUT, and what `openDisk` throws. */
export async function openDiskWithDeadlines(platform: Platform, path: string, options: DeadlineOptions = {}): Promise<Disk> {
	const line = new Line(path, platform.clock, options);
	const disk = await line.call("openDisk", line.callMs, () => platform.openDisk(path), closeQuietly);
	return new TimedDisk(disk, line);
}

/** Reads, writes and syncs that have come back since it was last asked, and the time that they took together, waiting in line included; undefined for a disk without deadlines. */
export function takeLatency(disk: Disk): { readonly calls: number; readonly totalMs: number } | undefined {
	return disk instanceof TimedDisk ? disk.takeLatency() : undefined;
}

/** The calls that are out on one disk. */
class Line {
	readonly callMs: number;
	readonly readMs: number;
	readonly writeMs: number;
	readonly syncMs: number;
	readonly #path: string;
	readonly #clock: Clock;
	#aliveAtMs = 0;
	/** Calls that timed out and did not come back yet. */
	#stuck = 0;
	#calls = 0;
	#totalMs = 0;

	constructor(path: string, clock: Clock, options: DeadlineOptions) {
		this.#path = path;
		this.#clock = clock;
		this.callMs = options.callMs ?? deadlineLimits.callMs;
		this.readMs = options.readMs ?? this.callMs;
		this.writeMs = options.writeMs ?? this.callMs;
		this.syncMs = options.syncMs ?? this.callMs;
	}

	/** @param cleanUp gets what the call brings after its limit. */
	call<T>(what: string, limitMs: number, start: () => Promise<T>, cleanUp?: (late: T) => void): Promise<T> {
		if (this.#stuck > 0) return Promise.reject(this.#error(what, "an earlier call has not come back"));
		return this.#timed(what, limitMs, start, cleanUp);
	}

	takeLatency(): { readonly calls: number; readonly totalMs: number } {
		const taken = { calls: this.#calls, totalMs: this.#totalMs };
		this.#calls = this.#totalMs = 0;
		return taken;
	}

	/** Passed on even to a disk that hangs. */
	closing(start: () => Promise<void>): Promise<void> {
		return this.#timed("close", this.callMs, start, undefined);
	}

	#timed<T>(what: string, limitMs: number, start: () => Promise<T>, cleanUp: ((late: T) => void) | undefined): Promise<T> {
		return new Promise<T>((resolve, reject) => {
			const startMs = this.#clock.monotonicMs();
			let late = false;
			let cancel = () => {};
			const check = () => {
				const nowMs = this.#clock.monotonicMs();
				const endMs = Math.min(Math.max(startMs, this.#aliveAtMs) + limitMs, startMs + limitMs * deadlineLimits.patience);
				// A timer may fire a little early: at most that little is missing, and waiting for it would be another timer for nothing.
				if (endMs - nowMs > 1) {
					cancel = this.#clock.after(endMs - nowMs, check);
					return;
				}
				late = true;
				this.#stuck++;
				reject(this.#error(what, `no answer within ${Math.round(nowMs - startMs)} ms`));
			};
			const settled = () => {
				this.#aliveAtMs = this.#clock.monotonicMs();
				this.#calls++;
				this.#totalMs += this.#aliveAtMs - startMs;
				cancel();
				if (late) this.#stuck--;
			};
			cancel = this.#clock.after(limitMs, check);
			start().then(
				(value) => {
					settled();
					if (late) cleanUp?.(value);
					else resolve(value);
				},
				(error: unknown) => {
					settled();
					reject(error);
				},
			);
		});
	}

	#error(what: string, why: string): FsError {
		const code: ErrorCode = "ETIMEDOUT";
		return new FsError(code, "platform.deadline", `${what} on the disk ${this.#path}: ${why}; the disk hangs`, { path: this.#path, what });
	}
}

class TimedDisk implements Disk {
	readonly path: string;
	readonly domain: string;
	readonly #disk: Disk;
	readonly #line: Line;

	constructor(disk: Disk, line: Line) {
		this.path = disk.path;
		this.domain = disk.domain;
		this.#disk = disk;
		this.#line = line;
	}

	get foreign(): string | undefined {
		return this.#disk.foreign;
	}

	disregard(): void {
		this.#disk.disregard?.();
	}

	lock(): Promise<void> {
		return this.#line.call("lock", this.#line.callMs, () => this.#disk.lock());
	}

	async open(name: string, options: { readonly create?: boolean } = {}): Promise<DiskFile> {
		const file = await this.#line.call(`open ${name}`, this.#line.callMs, () => this.#disk.open(name, options), closeQuietly);
		return new TimedFile(file, this.#line);
	}

	list(folder: string): Promise<string[]> {
		return this.#line.call("list", this.#line.callMs, () => this.#disk.list(folder));
	}

	remove(name: string): Promise<void> {
		return this.#line.call(`remove ${name}`, this.#line.callMs, () => this.#disk.remove(name));
	}

	syncNames(folder: string, site: string): Promise<void> {
		return this.#line.call(`syncNames ${folder}`, this.#line.syncMs, () => this.#disk.syncNames(folder, site));
	}

	space(): Promise<{ readonly capacityBytes: number; readonly freeBytes: number }> {
		return this.#line.call("space", this.#line.callMs, () => this.#disk.space());
	}

	probe(): Promise<void> {
		return this.#line.call("probe", this.#line.callMs, () => this.#disk.probe());
	}

	takeLatency(): { readonly calls: number; readonly totalMs: number } {
		return this.#line.takeLatency();
	}

	close(): Promise<void> {
		return this.#line.closing(() => this.#disk.close());
	}
}

class TimedFile implements DiskFile {
	readonly name: string;
	readonly #file: DiskFile;
	readonly #line: Line;

	constructor(file: DiskFile, line: Line) {
		this.name = file.name;
		this.#file = file;
		this.#line = line;
	}

	read(offset: number, lengthBytes: number): Promise<Uint8Array> {
		return this.#line.call(`read ${this.name}`, this.#line.readMs, () => this.#file.read(offset, lengthBytes));
	}

	borrow(offset: number, lengthBytes: number): Promise<Borrowed> {
		const start = () => this.#file.borrow(offset, lengthBytes);
		return this.#line.call(`read ${this.name}`, this.#line.readMs, start, (late) => late.release());
	}

	write(offset: number, parts: readonly Uint8Array[]): Promise<void> {
		return this.#line.call(`write ${this.name}`, this.#line.writeMs, () => this.#file.write(offset, parts));
	}

	sync(site: string): Promise<void> {
		return this.#line.call(`sync ${this.name}`, this.#line.syncMs, () => this.#file.sync(site));
	}

	discard(offset: number, lengthBytes: number): Promise<void> {
		return this.#line.call(`discard ${this.name}`, this.#line.writeMs, () => this.#file.discard(offset, lengthBytes));
	}

	uncache(offset: number, lengthBytes: number): Promise<void> {
		return this.#line.call(`uncache ${this.name}`, this.#line.callMs, () => this.#file.uncache(offset, lengthBytes));
	}

	size(): Promise<number> {
		return this.#line.call(`size ${this.name}`, this.#line.callMs, () => this.#file.size());
	}

	truncate(sizeBytes: number): Promise<void> {
		return this.#line.call(`truncate ${this.name}`, this.#line.writeMs, () => this.#file.truncate(sizeBytes));
	}

	close(): Promise<void> {
		return this.#line.closing(() => this.#file.close());
	}
}

function closeQuietly(late: { close(): Promise<void> }): void {
	late.close().catch(() => {});
}
