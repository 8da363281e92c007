/** A set of simulated disks for tests of the segment store: the rules of DiskSet that the store relies on, nothing durable behind them. */
import { FsError, isFsError } from "../base/errors.ts";
import { silentLogger } from "../base/telemetry.ts";
import type { DiskErrors, DiskId, DiskSet, DiskSlot, DiskState, Roster } from "../log/interface.ts";
import type { Clock, Disk, DiskFile, Platform } from "../platform/interface.ts";
import { SimWorld } from "../platform/sim/world.ts";
import type { Segment } from "../records/interface.ts";
import type { SegmentHealth } from "./interface.ts";
import { createSegmentStore } from "./segment-store.ts";
import type { NativeSegmentStore, SegmentStoreOptions } from "./segment-store.ts";

export const volumeUuid = "00112233-4455-6677-8899-aabbccddeeff";
const deadlineMs = 10_000;

interface Slot {
	id: DiskId;
	path: string;
	domain: string;
	state: DiskState;
	errors: DiskErrors;
	disk: Disk | undefined;
}

export interface Report {
	readonly disk: number;
	readonly code: string;
	readonly during: keyof DiskErrors;
}

export class FakeDiskSet {
	readonly reports: Report[] = [];
	roster: Roster;
	readonly broken = undefined;
	#slots: Slot[] = [];
	#listeners = new Set<(id: DiskId, state: DiskState) => void>();
	#platform: Platform;

	constructor(platform: Platform, redundancy: string, sameDevice: boolean, volume = volumeUuid) {
		this.#platform = platform;
		const config = { redundancy, tolerance: 2, logSegmentBytes: 0, logSegmentCount: 0, sameDevice };
		this.roster = {
			volume,
			name: "test",
			epoch: 1,
			incarnation: 1,
			createdAt: { seconds: 0, nanoseconds: 0 },
			config,
			disks: [],
			nextDiskId: 1,
			logEpochs: [],
			manifestDisks: [],
			manifestGeneration: 0,
			clean: false,
		};
	}

	async add(path: string): Promise<void> {
		const disk = guard(await this.#platform.openDisk(path), this.#platform.clock);
		const errors = { read: 0, write: 0, sync: 0, corrupt: 0, timeout: 0 };
		this.#slots.push({ id: this.#slots.length + 1, path, domain: disk.domain, state: "healthy", errors, disk });
	}

	/** A disk that was not found. */
	addMissing(path: string): void {
		const errors = { read: 0, write: 0, sync: 0, corrupt: 0, timeout: 0 };
		this.#slots.push({ id: this.#slots.length + 1, path, domain: `missing:${path}`, state: "missing", errors, disk: undefined });
	}

	slots(): readonly DiskSlot[] {
		return this.#slots.map((slot) => ({ ...slot, uuid: "", reason: "" }));
	}

	slot(id: DiskId): DiskSlot | undefined {
		return this.slots().find((slot) => slot.id === id);
	}

	readable(id: DiskId): Disk | undefined {
		const slot = this.#slots.find((one) => one.id === id);
		return slot?.state === "healthy" || slot?.state === "degraded" || slot?.state === "suspect" || slot?.state === "draining"
			? slot.disk
			: undefined;
	}

	writable(id: DiskId): Disk | undefined {
		const slot = this.#slots.find((one) => one.id === id);
		return slot?.state === "healthy" || slot?.state === "degraded" ? slot.disk : undefined;
	}

	clearable(id: DiskId): Disk | undefined {
		const slot = this.#slots.find((one) => one.id === id);
		return slot?.state === "draining" ? slot.disk : this.writable(id);
	}

	report(id: DiskId, error: unknown, during: keyof DiskErrors): void {
		const code = error instanceof FsError ? error.code : "?";
		this.reports.push({ disk: id, code, during });
		const slot = this.#slots.find((one) => one.id === id);
		if (slot) slot.errors[during]++;
		const fatal = during === "write" || during === "sync" || during === "timeout" || code === "ENODEV";
		if (fatal && slot?.state !== "failed") this.setState(id, "failed");
	}

	setState(id: DiskId, state: DiskState): void {
		const slot = this.#slots.find((one) => one.id === id);
		if (!slot) return;
		slot.state = state;
		if (state === "failed") slot.disk = undefined;
		for (const listener of this.#listeners) listener(id, state);
	}

	/** The disk was opened anew. */
	async comeBack(id: DiskId): Promise<void> {
		const slot = this.#slots.find((one) => one.id === id) as Slot;
		slot.disk = guard(await this.#platform.openDisk(slot.path), this.#platform.clock);
		this.setState(id, "healthy");
	}

	onChange(listener: (id: DiskId, state: DiskState) => void): () => void {
		this.#listeners.add(listener);
		return () => this.#listeners.delete(listener);
	}
}

/** Rejects with ETIMEDOUT what the disk does not answer in time; afterwards at once while the late call is out. */
function guard(disk: Disk, clock: Clock): Disk {
	let late = 0;
	const call = <T>(run: () => Promise<T>): Promise<T> => {
		const timeout = () => new FsError("ETIMEDOUT", "test.deadline", `${disk.path} did not answer`);
		if (late > 0) return Promise.reject(timeout());
		return new Promise<T>((resolve, reject) => {
			let over = false;
			const cancel = clock.after(deadlineMs, () => {
				over = true;
				late++;
				reject(timeout());
			});
			const end = (settle: () => void) => {
				if (over) late--;
				cancel();
				settle();
			};
			run().then(
				(value) => end(() => resolve(value)),
				(error: unknown) => end(() => reject(error)),
			);
		});
	};
	const wrapFile = (file: DiskFile): DiskFile => ({
		name: file.name,
		read: (offset, length) => call(() => file.read(offset, length)),
		borrow: (offset, length, sumBlockBytes) => call(() => file.borrow(offset, length, sumBlockBytes)),
		write: (offset, parts) => call(() => file.write(offset, parts)),
		sync: (site) => call(() => file.sync(site)),
		discard: (offset, length) => call(() => file.discard(offset, length)),
		uncache: (offset, length) => call(() => file.uncache(offset, length)),
		size: () => call(() => file.size()),
		held: () => call(() => file.held()),
		truncate: (size) => call(() => file.truncate(size)),
		close: () => call(() => file.close()),
	});
	return {
		path: disk.path,
		domain: disk.domain,
		lock: () => call(() => disk.lock()),
		open: (name, options) => call(async () => wrapFile(await disk.open(name, options))),
		list: (folder) => call(() => disk.list(folder)),
		remove: (name) => call(() => disk.remove(name)),
		syncNames: (folder, site) => call(() => disk.syncNames(folder, site)),
		space: () => call(() => disk.space()),
		probe: () => call(() => disk.probe()),
		close: () => call(() => disk.close()),
	};
}

export interface LabOptions {
	readonly seed?: number;
	readonly disks?: number;
	readonly capacityBytes?: number;
	readonly redundancy?: string;
	readonly sameDevice?: boolean;
	readonly domains?: readonly string[];
	readonly store?: SegmentStoreOptions;
	/** Of its machine (SimNodeOptions); where one is said, small segments are given to it, too. */
	readonly coder?: "none" | "well" | "drawn" | number;
}

/** A world with disks /d1 … /dN (ids 1 … N) and a store on them. */
export class Lab {
	readonly world: SimWorld;
	readonly node: ReturnType<SimWorld["node"]>;
	readonly options: LabOptions;
	platform!: Platform;
	disks!: FakeDiskSet;
	store!: NativeSegmentStore;

	constructor(options: LabOptions = {}) {
		this.options = options;
		this.world = new SimWorld({ seed: options.seed ?? 1 });
		for (let i = 1; i <= this.count; i++) this.addDisk(i);
		const { coder } = options;
		this.node = this.world.node(coder === undefined || coder === "drawn" ? {} : { coder });
	}

	/** A process of its machine. */
	#process(): Platform {
		const platform = this.node.boot();
		if (this.options.coder === undefined) return platform;
		return { ...platform, simulation: { buggify: (point) => point === "storage.coder", planted: () => false } };
	}

	get count(): number {
		return this.options.disks ?? 6;
	}

	addDisk(i: number, capacityBytes = this.options.capacityBytes ?? 256 * 1024 * 1024): void {
		const domain = this.options.domains?.[i - 1];
		this.world.addDisk(`/d${i}`, { capacityBytes, ...(domain === undefined ? {} : { domain }) });
	}

	/** A new incarnation. Disks in `without` are missing. */
	async boot(segments: readonly Segment[] = [], without: readonly number[] = [], volume = volumeUuid): Promise<NativeSegmentStore> {
		this.platform = this.#process();
		this.disks = new FakeDiskSet(this.platform, this.options.redundancy ?? "rs:4+2", this.options.sameDevice ?? false, volume);
		for (let i = 1; i <= this.count; i++) {
			if (without.includes(i)) this.disks.addMissing(`/d${i}`);
			else await this.disks.add(`/d${i}`);
		}
		return this.#start(segments);
	}

	/** A new store over the disks as they are now, with an empty cache. */
	async restart(segments: readonly Segment[]): Promise<NativeSegmentStore> {
		await this.store.close();
		return this.#start(segments);
	}

	async #start(segments: readonly Segment[]): Promise<NativeSegmentStore> {
		const modules = { platform: this.platform, disks: this.disks as unknown as DiskSet, logger: silentLogger };
		this.store = createSegmentStore(this.options.store ?? {}, modules);
		this.store.load(segments);
		await this.store.refreshSpace();
		return this.store;
	}

	run<T>(work: () => Promise<T>): Promise<T> {
		return this.world.run(work);
	}

	/** Turns bytes of a fragment over, on the platter. `at` counts from the start of its header. */
	damage(segment: Segment, index: number, at: number, length = 1): void {
		const place = segment.fragments.find((one) => one.index === index);
		if (!place) throw new Error(`no fragment ${index}`);
		this.world.corrupt(`/d${place.disk}`, packFile(place.pack), place.offset + at, length);
	}
}

export function packFile(pack: number): string {
	return `pack/${String(pack).padStart(8, "0")}`;
}

/** Bytes that differ everywhere. */
export function payloadOf(length: number, seed: number): Uint8Array {
	const bytes = new Uint8Array(length);
	let state = (seed * 2_654_435_761 + 12_345) >>> 0;
	for (let i = 0; i < length; i++) {
		state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
		bytes[i] = state >>> 24;
	}
	return bytes;
}

export async function codeOf(work: Promise<unknown>): Promise<string> {
	return work.then(
		() => "no error",
		(error: unknown) => (isFsError(error) ? `${error.code} ${error.site}` : String(error)),
	);
}

export function states(health: SegmentHealth): string {
	return health.fragments.map((fragment) => fragment.state[0]).join("");
}
