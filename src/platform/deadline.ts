/**
 * Time limits around a disk: a disk that hangs becomes an error instead of a wait.
 *
 * A disk hangs when one and the same call has waited in it, for the kernel or the device, for a whole limit. What does not count: waiting in line behind other calls, the start of the disk's thread, a thread that does not get the
 * processor, and time in which this very thread was held up (it looks at intervals, and an interval that took long counts as a short one). A machine that is too busy is slow; its disks are well.
 *
 * Invariants
 * 1. Every call settles within `patience` limits of time in which this thread could look, however the disk fares.
 * 2. A disk that hangs fails all calls that are out, and further ones at once, until they have come back; only `close` is passed on, so that threads and locks are freed.
 * 3. What a late call brings is cleaned up: a file that opens after its limit is closed again.
 */
import type { ErrorCode } from "../base/errors.ts";
import { FsError } from "../base/errors.ts";
import type { Borrowed, Clock, Disk, DiskActivity, DiskFile, Platform, TableCheck } from "./interface.ts";
import { deadlineLimits } from "./limits.ts";

export interface DeadlineOptions {
	/** Milliseconds in one call after which a disk hangs. Default 10 s. */
	readonly callMs?: number;
}

/** Decides over disks that have not moved for a while, where several belong together. */
export interface HangJudge {
	/** Told again and again while a disk does not move, and once with `stuckMs` 0 when it moves. True: it hangs, and its calls fail. */
	judge(disk: Disk, stuckMs: number, limitMs: number): boolean;
}

/** `disk` with a limit on every call. @throws FsError ETIMEDOUT `platform.deadline` from its calls. */
export function withDeadlines(disk: Disk, clock: Clock, options: DeadlineOptions = {}): Disk {
	const line = new Line(disk.path, clock, options);
	if (disk.activity) line.activity = () => disk.activity?.();
	return new TimedDisk(disk, line);
}

/** Opens a disk that may hang already. What opens late is closed again. @throws FsError ETIMEDOUT, and what `openDisk` throws. */
export async function openDiskWithDeadlines(platform: Platform, path: string, options: DeadlineOptions = {}): Promise<Disk> {
	const line = new Line(path, platform.clock, options);
	const open = (): Promise<Disk> =>
		platform.openDisk(path, (activity) => {
			line.activity = activity;
		});
	return new TimedDisk(await line.call("openDisk", open, closeQuietly), line);
}

/** From now on `judge` says when this disk hangs, not its limit alone. Nothing happens to a disk without deadlines. */
export function judgedBy(disk: Disk, judge: HangJudge): void {
	if (disk instanceof TimedDisk) disk.judgedBy(judge);
}

/** Reads, writes and syncs that have come back since it was last asked, and the time that they took together, waiting in line included; undefined for a disk without deadlines. */
export function takeLatency(disk: Disk): { readonly calls: number; readonly totalMs: number } | undefined {
	return disk instanceof TimedDisk ? disk.takeLatency() : undefined;
}

/** A call that is out and has not failed. */
interface Out {
	readonly what: string;
	readonly beganMs: number;
	/** Rejects it. */
	readonly fail: (error: FsError) => void;
}

/** The calls that are out on one disk. */
class Line {
	/** Undefined: the disk cannot say, and moves when a call comes back. */
	activity: () => DiskActivity | undefined = () => undefined;
	judge: (stuckMs: number, limitMs: number) => boolean = (stuckMs, limitMs) => stuckMs >= limitMs;
	readonly #path: string;
	readonly #clock: Clock;
	readonly #limitMs: number;
	readonly #lookMs: number;
	readonly #out = new Set<Out>();
	/** Calls that failed by their limit and did not come back yet. */
	#late = 0;
	/** Time in which this thread looked, while calls were out. */
	#watchedMs = 0;
	/** How much of it the call in hand has waited in the disk. */
	#stuckMs = 0;
	#lookedAtMs = 0;
	/** How far the disk was at the last look. */
	#moved = 0;
	#wasWaiting = false;
	#settled = 0;
	#cancelLook: (() => void) | undefined;
	#calls = 0;
	#totalMs = 0;

	constructor(path: string, clock: Clock, options: DeadlineOptions) {
		this.#path = path;
		this.#clock = clock;
		this.#limitMs = options.callMs ?? deadlineLimits.callMs;
		this.#lookMs = this.#limitMs / deadlineLimits.looks;
	}

	/** @param cleanUp gets what the call brings after its limit. */
	call<T>(what: string, start: () => Promise<T>, cleanUp?: (late: T) => void): Promise<T> {
		if (this.#late > 0) return Promise.reject(this.#error(what, "an earlier call has not come back"));
		return new Promise<T>((resolve, reject) => {
			const startMs = this.#clock.monotonicMs();
			const begun = start();
			const out: Out = { what, beganMs: this.#watchedMs, fail: reject };
			this.#out.add(out);
			const settled = (): boolean => {
				this.#settled++;
				this.#calls++;
				this.#totalMs += this.#clock.monotonicMs() - startMs;
				if (this.#out.delete(out)) return this.#rest();
				this.#late--;
				return false;
			};
			begun.then(
				(value) => {
					if (settled()) resolve(value);
					else cleanUp?.(value);
				},
				(error: unknown) => {
					settled();
					reject(error);
				},
			);
			if (this.#cancelLook === undefined) this.#watch();
		});
	}

	takeLatency(): { readonly calls: number; readonly totalMs: number } {
		const taken = { calls: this.#calls, totalMs: this.#totalMs };
		this.#calls = this.#totalMs = 0;
		return taken;
	}

	/** Passed on even to a disk that hangs. */
	closing(start: () => Promise<void>): Promise<void> {
		return new Promise<void>((resolve, reject) => {
			const late = (): void => reject(this.#error("close", `no answer within ${this.#limitMs} ms`));
			const cancel = this.#clock.after(this.#limitMs, late);
			start().finally(cancel).then(resolve, reject);
		});
	}

	/** Nothing is out any more: nothing is looked at. Always true. */
	#rest(): true {
		if (this.#out.size > 0) return true;
		this.#cancelLook?.();
		this.#cancelLook = undefined;
		this.#moves();
		return true;
	}

	#moves(): void {
		const wasStuck = this.#stuckMs > 0;
		this.#stuckMs = 0;
		if (wasStuck) this.judge(0, this.#limitMs);
	}

	#watch(): void {
		this.#lookedAtMs = this.#clock.monotonicMs();
		this.#progress();
		this.#lookLater();
	}

	#lookLater(): void {
		this.#cancelLook = this.#clock.after(this.#lookMs, () => this.#look());
	}

	/** What has happened since the last look: it moved; it still waits in the same call; it is still in that call, and not kept there by the disk. */
	#progress(): "moved" | "stuck" | "busy" {
		const { finished, state } = this.activity() ?? { finished: this.#settled, state: "waiting" };
		const isSameCall = finished === this.#moved && this.#wasWaiting && state !== "idle";
		this.#moved = finished;
		if (state !== "running") this.#wasWaiting = state === "waiting";
		if (!isSameCall) return "moved";
		return state === "waiting" ? "stuck" : "busy";
	}

	#look(): void {
		const nowMs = this.#clock.monotonicMs();
		// What held this thread up has kept the answers from it, too: they are taken before the next look.
		const watchedMs = Math.min(nowMs - this.#lookedAtMs, this.#lookMs * deadlineLimits.slowestLook);
		this.#lookedAtMs = nowMs;
		this.#watchedMs += watchedMs;
		const progress = this.#progress();
		if (progress === "moved") this.#moves();
		else if (progress === "stuck") this.#stuckMs += watchedMs;
		if (this.#stuckMs > 0 && this.judge(this.#stuckMs, this.#limitMs)) this.#giveUp(this.#stuckMs);
		else this.#endPatience();
		if (this.#out.size > 0) this.#lookLater();
		else this.#cancelLook = undefined;
	}

	/** The oldest call stands first. */
	#endPatience(): void {
		const [oldest] = this.#out;
		if (oldest === undefined) return;
		const waitedMs = this.#watchedMs - oldest.beganMs;
		if (waitedMs >= this.#limitMs * deadlineLimits.patience) this.#giveUp(waitedMs);
	}

	#giveUp(waitedMs: number): void {
		const given = [...this.#out];
		this.#out.clear();
		this.#late += given.length;
		this.#moves();
		for (const { what, fail } of given) fail(this.#error(what, `no answer within ${Math.round(waitedMs)} ms`));
	}

	#error(what: string, why: string): FsError {
		const code: ErrorCode = "ETIMEDOUT";
		return new FsError(code, "platform.deadline", `${what} on the disk ${this.#path}: ${why}; the disk hangs`, { path: this.#path, what });
	}
}

class TimedDisk implements Disk {
	readonly path: string;
	readonly domain: string;
	readonly ownsSpace: boolean;
	/** Absent where the disk has none. */
	readonly setAside?: (name: string, sizeBytes: number, site: string) => Promise<number>;
	readonly #disk: Disk;
	readonly #line: Line;

	constructor(disk: Disk, line: Line) {
		this.path = disk.path;
		this.domain = disk.domain;
		this.ownsSpace = disk.ownsSpace === true;
		this.#disk = disk;
		this.#line = line;
		const setAside = disk.setAside?.bind(disk);
		if (setAside !== undefined)
			this.setAside = (name, sizeBytes, site) => line.call(`set aside ${name}`, () => setAside(name, sizeBytes, site));
	}

	get foreign(): string | undefined {
		return this.#disk.foreign;
	}

	disregard(): void {
		this.#disk.disregard?.();
	}

	lock(): Promise<void> {
		return this.#line.call("lock", () => this.#disk.lock());
	}

	async open(name: string, options: { readonly create?: boolean } = {}): Promise<DiskFile> {
		const file = await this.#line.call(`open ${name}`, () => this.#disk.open(name, options), closeQuietly);
		return new TimedFile(file, this.#line);
	}

	list(folder: string): Promise<string[]> {
		return this.#line.call("list", () => this.#disk.list(folder));
	}

	remove(name: string): Promise<void> {
		return this.#line.call(`remove ${name}`, () => this.#disk.remove(name));
	}

	syncNames(folder: string, site: string): Promise<void> {
		return this.#line.call(`syncNames ${folder}`, () => this.#disk.syncNames(folder, site));
	}

	space(): Promise<{ readonly capacityBytes: number; readonly freeBytes: number }> {
		return this.#line.call("space", () => this.#disk.space());
	}

	probe(): Promise<void> {
		return this.#line.call("probe", () => this.#disk.probe());
	}

	async verifyTable(repair: boolean): Promise<TableCheck> {
		if (this.#disk.verifyTable === undefined) return { checked: 0, corrupt: 0, repaired: 0 };
		return this.#line.call(
			"verify table",
			() => this.#disk.verifyTable?.(repair) ?? Promise.resolve({ checked: 0, corrupt: 0, repaired: 0 }),
		);
	}

	activity(): DiskActivity {
		return this.#line.activity() ?? { finished: 0, state: "idle" };
	}

	judgedBy(judge: HangJudge): void {
		this.#line.judge = (stuckMs, limitMs) => judge.judge(this, stuckMs, limitMs);
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
		return this.#line.call(`read ${this.name}`, () => this.#file.read(offset, lengthBytes));
	}

	borrow(offset: number, lengthBytes: number, sumBlockBytes?: number): Promise<Borrowed> {
		const start = () => this.#file.borrow(offset, lengthBytes, sumBlockBytes);
		return this.#line.call(`read ${this.name}`, start, (late) => late.release());
	}

	write(offset: number, parts: readonly Uint8Array[]): Promise<void> {
		return this.#line.call(`write ${this.name}`, () => this.#file.write(offset, parts));
	}

	sync(site: string): Promise<void> {
		return this.#line.call(`sync ${this.name}`, () => this.#file.sync(site));
	}

	discard(offset: number, lengthBytes: number): Promise<void> {
		return this.#line.call(`discard ${this.name}`, () => this.#file.discard(offset, lengthBytes));
	}

	uncache(offset: number, lengthBytes: number): Promise<void> {
		return this.#line.call(`uncache ${this.name}`, () => this.#file.uncache(offset, lengthBytes));
	}

	size(): Promise<number> {
		return this.#line.call(`size ${this.name}`, () => this.#file.size());
	}

	held(): Promise<number> {
		return this.#line.call(`held ${this.name}`, () => this.#file.held());
	}

	truncate(sizeBytes: number): Promise<void> {
		return this.#line.call(`truncate ${this.name}`, () => this.#file.truncate(sizeBytes));
	}

	close(): Promise<void> {
		return this.#line.closing(() => this.#file.close());
	}
}

function closeQuietly(late: { close(): Promise<void> }): void {
	late.close().catch(() => {});
}
