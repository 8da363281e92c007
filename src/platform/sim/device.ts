/**
 * A simulated disk device: files, durable and un-durable names, faults. It executes calls at once; order and time are `disk.ts`.
 *
 * Invariants
 * 1. What was synced (data by `sync`, names by `syncNames`) survives every power cut; everything else may or may not, by the seed.
 * 2. A power cut, vanishing, restoring and wiping end all handles: those of an older generation never reach the new contents.
 * 3. `usedPages` = sum of the allocated pages of all named files.
 */
import { assert } from "../../base/assert.ts";
import type { ErrorCode } from "../../base/errors.ts";
import { FsError } from "../../base/errors.ts";
import { type CutStyle, pickCutStyle, SimFile } from "./file.ts";
import { pageBytes, simLimits } from "./limits.ts";
import type { Prng } from "./prng.ts";
import { hash32 } from "./prng.ts";

export type DiskCall =
	| "openDisk"
	| "lock"
	| "open"
	| "list"
	| "remove"
	| "setAside"
	| "syncNames"
	| "space"
	| "probe"
	| "close"
	| "read"
	| "write"
	| "sync"
	| "discard"
	| "uncache"
	| "size"
	| "truncate"
	| "closeFile";

export interface SimDiskOptions {
	readonly capacityBytes: number;
	/** Default: a domain of its own. */
	readonly domain?: string;
	/** A raw device instead of a directory. */
	readonly raw?: boolean;
	/** Range of the time of one call, milliseconds. */
	readonly latencyMs?: readonly [number, number];
}

export interface DiskSnapshot {
	readonly files: ReadonlyMap<string, SimFile>;
}

interface Fault {
	readonly calls: readonly DiskCall[];
	readonly code: ErrorCode;
	left: number;
}

interface ReadLie {
	readonly how: "stale" | "misdirected";
	readonly matches: (name: string) => boolean;
	/** What the disk held when the lie was asked for. */
	readonly before: ReadonlyMap<string, SimFile>;
	left: number;
}

interface NameChange {
	readonly name: string;
	/** undefined = removed. */
	readonly file: SimFile | undefined;
}

export class SimDevice {
	readonly path: string;
	readonly domain: string;
	readonly random: Prng;
	readonly capacityBytes: number;
	readonly raw: boolean;
	latencyMs: readonly [number, number];
	/** Raised whenever open handles lose their disk. */
	generation = 0;
	present = true;
	hung = false;
	/** It hangs because the threads that work for it do not get the processor. */
	isStarved = false;
	isFull = false;
	isReadOnly = false;
	/** Handles of a vanished disk: dead (EIO) or working on files that no longer have names, as after `rm -rf`. */
	orphansWork = false;
	/** Who holds the lock; opaque here. */
	lockedBy: { readonly holds: boolean } | undefined;
	readonly counts: Record<DiskCall, number>;
	/** Called when a hung disk goes on. */
	readonly onUnhang = new Set<() => void>();

	#names = new Map<string, SimFile>();
	#durableNames = new Map<string, SimFile>();
	#nameChanges: NameChange[] = [];
	#usedPages = 0;
	/** Of a full disk: what was set aside on it and given up, and nobody has taken since. */
	#givenUpPages = 0;
	#faults: Fault[] = [];
	#starves: ((name: string) => boolean) | undefined;
	#starvesWith: ErrorCode = "ENOSPC";
	#lie: { readonly how: "lost" | "misplaced"; readonly matches: (name: string) => boolean } | undefined;
	#readLie: ReadLie | undefined;

	constructor(path: string, options: SimDiskOptions, random: Prng) {
		assert(options.capacityBytes > 0, `capacity of ${path}`);
		this.path = path;
		this.domain = options.domain ?? `sim:${path}`;
		this.random = random;
		this.capacityBytes = options.capacityBytes;
		this.raw = options.raw ?? false;
		this.latencyMs = options.latencyMs ?? simLimits.diskLatencyMs;
		const none = 0;
		this.counts = {
			openDisk: none,
			lock: none,
			open: none,
			list: none,
			remove: none,
			setAside: none,
			syncNames: none,
			space: none,
			probe: none,
			close: none,
			read: none,
			write: none,
			sync: none,
			discard: none,
			uncache: none,
			size: none,
			truncate: none,
			closeFile: none,
		};
	}

	// ── faults, for tests ────────────────────────────────────────────────────────────────────────────────────────

	/** From now on no call settles, until `unhang`. */
	hang(): void {
		this.hung = true;
	}

	/** As `hang`, but it is not the device that keeps the calls: the machine is too busy. */
	starveThread(): void {
		this.hung = this.isStarved = true;
	}

	unhang(): void {
		this.hung = this.isStarved = false;
		for (const wake of [...this.onUnhang]) wake();
	}

	/** The next `count` calls of these kinds fail with `code`. */
	fail(calls: readonly DiskCall[], code: ErrorCode = "EIO", count = Number.POSITIVE_INFINITY): void {
		this.#faults.push({ calls, code, left: count });
	}

	/** The next file sync fails; some of what it should have made durable is lost for ever, though a later sync succeeds. */
	failNextSync(code: ErrorCode = "EIO"): void {
		this.fail(["sync"], code, 1);
	}

	/** The next write to a file whose name `matches` reports success and goes nowhere, or to another place of the file (`misplaced`). */
	lieNextWrite(how: "lost" | "misplaced", matches: (name: string) => boolean = () => true): void {
		this.#lie = { how, matches };
	}

	/** Writes to files whose name `matches` find no space, allocated before or not: a file system that copies on write and is full. Or another error. Undefined ends it. */
	starve(matches: ((name: string) => boolean) | undefined, code: ErrorCode = "ENOSPC"): void {
		this.#starves = matches;
		this.#starvesWith = code;
	}

	/** Some writes find no space. */
	get isTight(): boolean {
		return this.isFull || (this.#starves !== undefined && this.#starvesWith === "ENOSPC");
	}

	/** @throws FsError when `starve` is about this file. On a raw device files are those of the disk that is made of it. */
	checkStarved(name: string): void {
		if (this.#starves?.(name) !== true) return;
		throw new FsError(this.#starvesWith, "platform.sim-starved", `${name} on ${this.path}: writes are refused with ${this.#starvesWith}`, {
			path: this.path,
			name,
		});
	}

	/**
	 * The next `count` reads of files whose name `matches` give other bytes and report success: those that lay there when this was called (`stale`), or those of another
	 * place of the file (`misdirected`).
	 */
	lieNextReads(how: "stale" | "misdirected", count: number, matches: (name: string) => boolean = () => true): void {
		this.#readLie = { how, matches, before: this.snapshot().files, left: count };
	}

	/** Takes back `fail`, `lieNextWrite`, `lieNextReads`, `starve`, `full` and `readOnly`. */
	heal(): void {
		this.#faults = [];
		this.#givenUpPages = 0;
		this.#starves = undefined;
		this.#lie = undefined;
		this.#readLie = undefined;
		this.isFull = false;
		this.isReadOnly = false;
	}

	/** Nothing new can be allocated; what is allocated can be overwritten. */
	full(on = true): void {
		this.isFull = on;
		this.#givenUpPages = 0;
	}

	readOnly(on = true): void {
		this.isReadOnly = on;
	}

	/**
	 * The disk is gone: un-synced changes as in a power cut, every call of those who had it open fails, opening says ENOENT.
	 * With `unlinked` its files were removed under their users: reads and writes of open files go on, only sync, names and probe tell.
	 */
	vanish(options: { readonly unlinked?: boolean } = {}): void {
		this.orphansWork = options.unlinked === true;
		this.generation++;
		if (this.orphansWork) this.#replace(new Map());
		else this.powerCut(this.random);
		this.present = false;
	}

	/** The disk is there again, with what it held or with `contents`. Who had it open before must open it again. */
	reappear(contents?: DiskSnapshot): void {
		this.present = true;
		if (contents !== undefined) this.restore(contents);
	}

	/** What the disk holds, un-synced changes included. */
	snapshot(): DiskSnapshot {
		const files = new Map<string, SimFile>();
		for (const [name, file] of this.#names) files.set(name, file.snapshot());
		return { files };
	}

	/** The contents of the snapshot, durably; open handles end. */
	restore(snapshot: DiskSnapshot): void {
		this.generation++;
		const files = new Map<string, SimFile>();
		for (const [name, file] of snapshot.files) {
			const copy = file.snapshot();
			copy.sync();
			files.set(name, copy);
		}
		this.#replace(files);
	}

	/** An empty directory; open handles end. */
	wipe(): void {
		this.generation++;
		this.#replace(new Map());
	}

	/** Damages bytes on the platter: XOR with `pattern` (repeated), default 0xff. Returns how many bytes were there to change. */
	corrupt(name: string, offset: number, lengthBytes: number, pattern: Uint8Array = new Uint8Array([0xff])): number {
		const file = this.#named(name);
		this.#account(file, true, () => file.damage(offset, lengthBytes, (old, at) => old ^ (pattern[at % pattern.length] as number)));
		return Math.max(0, Math.min(lengthBytes, file.size - offset));
	}

	/** Flips one bit in this fraction of all pages (at least one if there is any) of the files whose name `matches`. Returns the places. */
	rot(fraction: number, matches: (name: string) => boolean = () => true): { readonly name: string; readonly offset: number }[] {
		const places: { name: string; offset: number }[] = [];
		for (const name of this.files()) {
			if (!matches(name)) continue;
			for (const page of this.#named(name).pageNumbers()) places.push({ name, offset: page * pageBytes });
		}
		const chosen = places.filter(() => this.random.chance(fraction));
		if (chosen.length === 0 && places.length > 0 && fraction > 0) chosen.push(this.random.pick(places));
		return chosen.map(({ name, offset }) => {
			const file = this.#named(name);
			const at = offset + this.random.below(Math.min(pageBytes, file.size - offset));
			const bit = 1 << this.random.below(8);
			file.damage(at, 1, (old) => old ^ bit);
			return { name, offset: at };
		});
	}

	/** All file names, sorted. */
	files(): string[] {
		return [...this.#names.keys()].sort();
	}

	/** What the page cache shows of a file, for tests. */
	peek(name: string): Uint8Array {
		const file = this.#named(name);
		return file.read(0, file.size);
	}

	/** A part of it. */
	peekRange(name: string, offset: number, lengthBytes: number): Uint8Array {
		return this.#named(name).read(offset, lengthBytes);
	}

	/** Numbers of the pages of a file that take space. */
	pagesOf(name: string): number[] {
		return this.#named(name).pageNumbers();
	}

	/** A number over names and contents: equal worlds have equal digests. */
	digest(): number {
		let hash = 0;
		for (const name of this.files()) {
			hash = Math.imul(hash ^ hash32(name), 0x0100_0193);
			for (const byte of this.peek(name)) hash = Math.imul(hash ^ byte, 0x0100_0193);
		}
		return hash >>> 0;
	}

	// ── what happens to it ───────────────────────────────────────────────────────────────────────────────────────

	/** `all`: what becomes of everything that was not synced; by default drawn. */
	powerCut(random: Prng, all?: CutStyle): void {
		this.generation++;
		for (const change of survivingNames(this.#nameChanges, all ?? pickCutStyle(random), random)) this.#applyDurably(change);
		const style = all ?? pickCutStyle(random);
		for (const name of [...this.#durableNames.keys()].sort()) (this.#durableNames.get(name) as SimFile).powerCut(style, random);
		this.#replace(this.#durableNames);
	}

	/** @throws FsError when a fault is set for this call. `generation` is that of the opener. */
	check(call: DiskCall, generation: number): void {
		this.counts[call]++;
		if (generation !== this.generation && call !== "close" && call !== "closeFile") this.#refuseOrphan(call);
		const fault = this.#faults.find((one) => one.left > 0 && one.calls.includes(call));
		if (fault === undefined) return;
		fault.left--;
		throw new FsError(fault.code, `platform.sim-${call}`, `${call} on ${this.path} fails with ${fault.code}, as the test asked`, {
			path: this.path,
		});
	}

	find(name: string): SimFile | undefined {
		return this.#names.get(name);
	}

	create(name: string): SimFile {
		this.#checkWritable(name);
		if (this.isFull && this.#givenUpPages === 0) throw this.#noSpace(name);
		const file = new SimFile();
		this.#names.set(name, file);
		this.#nameChanges.push({ name, file });
		return file;
	}

	remove(name: string): void {
		const file = this.#names.get(name);
		if (file === undefined) return;
		this.#checkWritable(name);
		this.#names.delete(name);
		this.#nameChanges.push({ name, file: undefined });
		this.#usedPages -= file.allocatedPages;
	}

	/** Takes `sizeBytes`, or what there is, for a file that holds nothing. Answers how much it takes. */
	setAside(name: string, sizeBytes: number): number {
		this.#checkWritable(name);
		const file = this.#names.get(name) ?? this.create(name);
		const before = this.#usedPages;
		if (sizeBytes < file.size) this.#account(file, true, () => file.truncate(sizeBytes));
		if (this.isFull) this.#givenUpPages += before - this.#usedPages;
		const from = file.size;
		const room = this.isFull ? this.#givenUpPages : Math.floor(this.freeBytes / pageBytes);
		const fits = Math.min(sizeBytes, from + room * pageBytes);
		if (fits > from) this.write(file, name, from, fits - from, undefined);
		return file.size;
	}

	list(folder: string): string[] {
		const prefix = folder === "" ? "" : `${folder}/`;
		const found = new Set<string>();
		for (const name of this.#names.keys()) {
			if (!name.startsWith(prefix)) continue;
			const slash = name.indexOf("/", prefix.length);
			found.add(slash < 0 ? name.slice(prefix.length) : name.slice(prefix.length, slash + 1));
		}
		return [...found].sort();
	}

	syncNames(folder: string): void {
		const rest: NameChange[] = [];
		for (const change of this.#nameChanges) {
			if (folderOf(change.name) === folder) this.#applyDurably(change);
			else rest.push(change);
		}
		this.#nameChanges = rest;
	}

	/** `bytes` undefined = zeros. @throws FsError ENOSPC after writing what fits, EROFS. */
	write(file: SimFile, name: string, wanted: number, lengthBytes: number, bytes: Uint8Array | undefined): void {
		this.#checkWritable(name);
		this.checkStarved(name);
		const offset = this.#placeOf(name, wanted);
		if (offset === undefined) return;
		const linked = this.#names.get(name) === file;
		const room = this.isFull ? this.#givenUpPages : Math.floor(this.freeBytes / pageBytes);
		let fits = lengthBytes;
		if (linked && file.newPages(offset, fits) > room) fits = this.random.below(2) === 0 ? 0 : this.#fitting(file, offset, fits, room);
		const before = this.#usedPages;
		this.#account(file, linked, () => file.write(offset, fits, bytes?.subarray(0, fits)));
		this.#givenUpPages = Math.max(0, this.#givenUpPages - (this.#usedPages - before));
		if (fits < lengthBytes) throw this.#noSpace(name);
	}

	/** Where a write really goes; undefined = nowhere. */
	#placeOf(name: string, wanted: number): number | undefined {
		const lie = this.#lie;
		if (lie === undefined || !lie.matches(name)) return wanted;
		this.#lie = undefined;
		if (lie.how === "lost") return undefined;
		return this.#elsewhere(wanted);
	}

	read(file: SimFile, name: string, offset: number, lengthBytes: number, into?: Uint8Array): Uint8Array {
		const bytes = file.read(offset, lengthBytes, into);
		const lie = this.#readLie;
		if (lie === undefined || lie.left === 0 || !lie.matches(name)) return bytes;
		lie.left--;
		const other = lie.how === "stale" ? lie.before.get(name)?.read(offset, lengthBytes) : file.read(this.#elsewhere(offset), lengthBytes);
		// As long as the true answer: a disk that lies does not say so by a short read.
		const told = new Uint8Array(bytes.length);
		if (other !== undefined) told.set(other.subarray(0, bytes.length));
		return told;
	}

	#elsewhere(offset: number): number {
		const distance = (1 + this.random.below(16)) * pageBytes;
		return offset >= distance && this.random.chance(0.5) ? offset - distance : offset + distance;
	}

	/** Truncation and discarding. */
	change(file: SimFile, name: string, fn: () => void): void {
		this.#checkWritable(name);
		this.#account(file, this.#names.get(name) === file, fn);
	}

	sync(file: SimFile, name: string): void {
		if (file.unsynced) this.#checkWritable(name);
		file.sync();
	}

	get freeBytes(): number {
		return this.isFull ? 0 : Math.max(0, this.capacityBytes - this.#usedPages * pageBytes);
	}

	#fitting(file: SimFile, offset: number, length: number, room: number): number {
		let fits = 0;
		while (fits < length) {
			const next = Math.min(length, pageBytes * (Math.floor((offset + fits) / pageBytes) + 1) - offset);
			if (file.newPages(offset, next) > room) break;
			fits = next;
		}
		return fits;
	}

	#account(file: SimFile, linked: boolean, fn: () => void): void {
		const before = file.allocatedPages;
		fn();
		if (linked) this.#usedPages += file.allocatedPages - before;
	}

	#replace(files: ReadonlyMap<string, SimFile>): void {
		this.#names = new Map(files);
		this.#durableNames = new Map(files);
		this.#nameChanges = [];
		this.#usedPages = 0;
		for (const file of files.values()) this.#usedPages += file.allocatedPages;
	}

	#applyDurably(change: NameChange): void {
		if (change.file === undefined) this.#durableNames.delete(change.name);
		else this.#durableNames.set(change.name, change.file);
	}

	#named(name: string): SimFile {
		const file = this.#names.get(name);
		assert(file !== undefined, `no file ${name} on ${this.path}; there are: ${this.files().join(", ")}`);
		return file;
	}

	#refuseOrphan(call: DiskCall): void {
		const onFile = call === "read" || call === "write" || call === "size" || call === "truncate" || call === "discard";
		if (onFile && this.orphansWork) return;
		throw new FsError(
			onFile ? "EIO" : "ENODEV",
			"platform.sim-gone",
			`${call}: the disk ${this.path} is no longer the one that was opened; open it again`,
			{ path: this.path },
		);
	}

	#checkWritable(name: string): void {
		if (!this.isReadOnly) return;
		throw new FsError("EROFS", "platform.sim-read-only", `${name} on ${this.path}: the disk is read-only`, { path: this.path, name });
	}

	#noSpace(name: string): FsError {
		return new FsError("ENOSPC", "platform.sim-full", `${name} on ${this.path}: no space left on the disk`, { path: this.path, name });
	}
}

/** Which un-synced creations and removals a power cut leaves: none, all, the first few, or any. */
function survivingNames(changes: readonly NameChange[], style: CutStyle, random: Prng): NameChange[] {
	if (style === "none") return [];
	if (style === "all") return [...changes];
	if (style === "prefix") return changes.slice(0, random.below(changes.length + 1));
	return changes.filter(() => random.chance(0.5));
}

export function folderOf(name: string): string {
	const slash = name.lastIndexOf("/");
	return slash < 0 ? "" : name.slice(0, slash);
}
