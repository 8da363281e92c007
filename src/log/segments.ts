/**
 * The segment files of one mirror: a ring of preallocated files that are used again and again.
 *
 * Invariants
 *  G1 A file that is handed out has its full size allocated, a header of this volume and disk, and a durable name.
 *  G2 A file is handed out to one use at a time; `release` ends it.
 *  G3 At most `logSegmentCount` files are in use, or fewer where the disk had no space for more; only ejections go beyond, by
 *     `emergencySegments`.
 *  G4 After `settle` a power cut leaves what is allocated: whoever fills the disk afterwards cannot keep the log from being started again.
 */
import { assert } from "../base/assert.ts";
import { FsError, isFsError } from "../base/errors.ts";
import type { Disk, DiskFile } from "../platform/interface.ts";
import type { DiskId } from "./interface.ts";
import { emergencySegments, minimumSegments, pieceBytes } from "./limits.ts";
import { decodeSegmentHeader, encodeSegmentHeader, segmentHeaderBytes, segmentName, segmentNumber } from "./record.ts";

export interface SegmentFile {
	readonly number: number;
	readonly file: DiskFile;
}

export interface SegmentOptions {
	readonly volume: string;
	readonly diskUuid: string;
	readonly segmentBytes: number;
	readonly count: number;
}

export class MirrorFiles {
	readonly id: DiskId;
	readonly disk: Disk;
	readonly #options: SegmentOptions;
	readonly #open = new Map<number, DiskFile>();
	readonly #inUse = new Set<number>();
	/** Allocated and headed, not in use. */
	readonly #ready: number[] = [];
	/** Names in `log/` that are known to be durable. */
	readonly #named = new Set<number>();
	/** Allocated for good, header included. */
	readonly #settled = new Set<number>();
	/** Files that were there already: looked at when they are needed. */
	#unchecked: number[] = [];
	#count: number;
	#preparing: Promise<void> | undefined;
	/** What new segments are filled with, while some are made. */
	#zeros: Uint8Array | undefined;
	#closed = false;

	constructor(id: DiskId, disk: Disk, options: SegmentOptions) {
		this.id = id;
		this.disk = disk;
		this.#options = options;
		this.#count = options.count;
	}

	/** Learns which files are there. Those in `needed` are in use until they are released; the others may be written over. */
	async load(needed: readonly number[]): Promise<void> {
		for (const number of needed) this.#inUse.add(number);
		for (const name of await this.disk.list("log")) {
			const number = segmentNumber(name);
			if (number !== undefined && !this.#inUse.has(number)) this.#unchecked.push(number);
		}
		this.#unchecked.sort((a, b) => b - a);
	}

	/** How many more segments may be handed out in the ordinary way; those that are not allocated yet count. */
	get available(): number {
		return Math.max(0, this.#count - this.#inUse.size);
	}

	/**
	 * One segment for a new use.
	 * @throws FsError ENOSPC (the ring is used up or the disk full), and what the disk throws.
	 */
	async acquire(emergency: boolean): Promise<SegmentFile> {
		// Not behind one that is just being made for later.
		if (this.#ready.length === 0) await this.prepare(1, emergency);
		const number = this.#ready.shift();
		if (number === undefined) {
			throw new FsError(
				"ENOSPC",
				"log.ring-full",
				`all ${this.#inUse.size} log segments of d${this.id} are in use: the checkpoint is behind`,
			);
		}
		await this.#makeNamesDurable(number);
		const file = this.#open.get(number);
		assert(file && !this.#inUse.has(number), `segment ${number} of d${this.id} is free`);
		this.#inUse.add(number);
		return { number, file };
	}

	/** Nothing in it is needed any more. */
	release(number: number): void {
		assert(this.#inUse.delete(number), `segment ${number} of d${this.id} was in use`);
		if (this.#open.has(number)) this.#ready.push(number);
		else this.#unchecked.push(number);
	}

	/** Makes segments ready until `wanted` are, or the ring is complete. A disk without space makes the ring smaller. */
	async prepare(wanted: number, emergency = false): Promise<void> {
		while (this.#preparing !== undefined) await this.#preparing;
		this.#preparing = this.#prepareAll(wanted, emergency).finally(() => {
			this.#preparing = undefined;
			this.#zeros = undefined;
		});
		await this.#preparing;
	}

	async #prepareAll(wanted: number, emergency: boolean): Promise<void> {
		while (this.#ready.length < wanted && !this.#closed) {
			const limit = emergency ? this.#options.count + emergencySegments : this.#count;
			if (this.#inUse.size + this.#ready.length >= limit) return;
			await this.#prepareOne(emergency);
		}
	}

	async #prepareOne(emergency: boolean): Promise<void> {
		let number = this.#unchecked.pop();
		if (number === undefined) {
			number = 0;
			while (this.#inUse.has(number) || this.#open.has(number)) number++;
		}
		try {
			const file = this.#open.get(number) ?? (await this.disk.open(segmentName(number), { create: true }));
			this.#open.set(number, file);
			if (!(await this.#isWhole(file, number))) await this.#allocate(file, number);
			this.#ready.push(number);
		} catch (error) {
			if (!isFsError(error, "ENOSPC")) throw error;
			await this.#shrink(number, error, emergency);
		}
	}

	async #isWhole(file: DiskFile, number: number): Promise<boolean> {
		if ((await file.size()) < this.#options.segmentBytes) return false;
		try {
			const header = decodeSegmentHeader(await file.read(0, segmentHeaderBytes), file.name);
			return header.volume === this.#options.volume && header.diskUuid === this.#options.diskUuid && header.number === number;
		} catch (error) {
			if (isFsError(error, "CORRUPT") || isFsError(error, "EIO")) return false;
			throw error;
		}
	}

	/** The header comes last: a file with one has its size allocated, unless power failed before the first sync, and then the size tells. */
	async #allocate(file: DiskFile, number: number): Promise<void> {
		this.#zeros ??= new Uint8Array(Math.min(pieceBytes, this.#options.segmentBytes));
		const zeros = this.#zeros;
		for (let at = 0; at < this.#options.segmentBytes; at += zeros.length) {
			await file.write(at, [zeros.subarray(0, Math.min(zeros.length, this.#options.segmentBytes - at))]);
		}
		await file.write(0, [encodeSegmentHeader({ volume: this.#options.volume, diskUuid: this.#options.diskUuid, number })]);
	}

	async #shrink(number: number, error: unknown, emergency: boolean): Promise<void> {
		await this.#open.get(number)?.close();
		this.#open.delete(number);
		await this.disk.remove(segmentName(number));
		// Should it be made again, its name is a new one.
		this.#named.delete(number);
		this.#settled.delete(number);
		// Files that nobody has looked at yet may be whole: they need no space.
		const left = this.#inUse.size + this.#ready.length + this.#unchecked.length;
		// With a smaller ring the log could not go on after an ejection.
		if (left < minimumSegments) throw error;
		// Beyond the ring there is no end to what could be tried.
		if (emergency && this.#ready.length + this.#unchecked.length === 0) throw error;
		this.#count = Math.min(this.#count, left);
	}

	/** G4, and the headers of what is in use. */
	async settle(): Promise<void> {
		for (const number of [...this.#inUse, ...this.#ready]) {
			const file = this.#open.get(number);
			if (file === undefined || this.#settled.has(number)) continue;
			await file.sync("log.segment-header");
			this.#settled.add(number);
		}
	}

	async #makeNamesDurable(number: number): Promise<void> {
		if (this.#named.has(number)) return;
		const open = [...this.#open.keys()];
		await this.disk.syncNames("log", "log.segment-name");
		for (const one of open) this.#named.add(one);
	}

	async close(): Promise<void> {
		this.#closed = true;
		await this.#preparing?.catch(() => undefined);
		await Promise.allSettled([...this.#open.values()].map((file) => file.close()));
		this.#open.clear();
	}
}
