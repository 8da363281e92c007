/**
 * The packs of one disk: files `pack/NNNNNNNN` in which fragments lie, their open handles, their syncs, and what is known of the disk's
 * space.
 *
 * Invariants
 *  P1 A place is handed out only after the disk was prepared: files that no record names are gone or have numbers that are not used again.
 *  P2 `write` resolves only after a sync that began when the bytes were written, and a sync of the folder that began when the file was
 *     there.
 *  P3 After a failed sync of a file nothing that was written before is reported as durable in it any more. Lack of space is no fault of the disk: what is written
 *     later goes through another opening of the file, or, where a name could not be made durable, into another file.
 *  P4 A range is punched before it is free, never after: nobody else's bytes are in it.
 *  P5 The place of a write that timed out stays taken: the write may still land. It is given back when the disk has answered again since (`reclaim`), or by the next mount.
 *  P6 A place is in hand from `allocate` until it is given back, or a committed record names it (`settle`).
 */
import { assert } from "../base/assert.ts";
import { allSettledOrThrow } from "../base/async.ts";
import { isFsError } from "../base/errors.ts";
import type { Logger } from "../base/telemetry.ts";
import type { DiskErrors, DiskSet } from "../log/interface.ts";
import type { Borrowed, Disk, DiskFile, Platform } from "../platform/interface.ts";
import { PackAllocator } from "./allocator.ts";
import type { Gap, Position } from "./allocator.ts";
import { limits } from "./limits.ts";

export interface PackModules {
	readonly platform: Platform;
	readonly disks: DiskSet;
	readonly logger: Logger;
}

const folder = "pack";

export function packName(pack: number): string {
	return `${folder}/${String(pack).padStart(8, "0")}`;
}

/** One sync at a time; who asks while one is running joins the next. */
export class SyncGate {
	#running: Promise<void> | undefined;
	#next: Promise<void> | undefined;
	#failure: { readonly error: unknown } | undefined;

	request(sync: () => Promise<void>): Promise<void> {
		if (this.#next !== undefined) return this.#next;
		if (this.#running === undefined) return this.#start(sync);
		const next = this.#running
			.catch(() => undefined)
			.then(() => {
				this.#next = undefined;
				return this.#start(sync);
			});
		this.#next = next;
		return next;
	}

	/** A sync failed; so does every one to come. */
	get failed(): boolean {
		return this.#failure !== undefined;
	}

	#start(sync: () => Promise<void>): Promise<void> {
		if (this.#failure) return Promise.reject(this.#failure.error);
		const run = sync().then(
			() => {
				this.#running = undefined;
			},
			(error: unknown) => {
				this.#running = undefined;
				this.#failure = { error };
				throw error;
			},
		);
		this.#running = run;
		return run;
	}
}

/** A place that is taken, and named by no committed record that this process has made. */
export interface PlaceInHand extends Position {
	readonly disk: number;
	readonly lengthBytes: number;
	readonly segment: number;
	/** When it was taken, of the monotonic clock. */
	readonly sinceMs: number;
}

/** A pack as it lies on the disk. */
export interface PackFile {
	readonly pack: number;
	/** What its file takes. */
	readonly heldBytes: number;
	/** Of its bytes taken, and of those in hand. */
	readonly takenBytes: number;
	readonly inHandBytes: number;
	/** Taken, and what around it is too small to be punched, rounded up: a file that takes more holds what nobody needs. */
	readonly mostBytes: number;
	/** Fragments are being placed in it just now. */
	readonly isCurrent: boolean;
}

interface Handle {
	readonly file: Promise<DiskFile>;
	/** Opened so that an absent file is made. */
	readonly create: boolean;
	readonly gate: SyncGate;
	users: number;
	/** Closed by its last user: nobody may begin to use it (P3). */
	retired: boolean;
}

type PackWork<T> = (file: DiskFile, opening: Opening, handle: Handle) => Promise<T>;

/** What belongs to one opening of the disk; all of it goes when the disk is opened anew. */
class Opening {
	readonly disk: Disk;
	readonly handles = new Map<number, Handle>();
	/** Packs whose names are durable, or will be when that promise resolves. */
	readonly named = new Set<number>();
	readonly naming = new Map<number, Promise<void>>();
	names = new SyncGate();
	/** Packs whose names could not be made durable: nothing more is placed in them. */
	readonly unnamable = new Map<number, unknown>();
	ready: Promise<void> | undefined;
	prepared = false;

	constructor(disk: Disk) {
		this.disk = disk;
	}
}

export class DiskPacks {
	readonly id: number;
	readonly allocator: PackAllocator;
	/** A write met ENOSPC; until the space is asked for again. */
	full = false;
	#modules: PackModules;
	#opening: Opening | undefined;
	#space: { readonly capacityBytes: number; readonly freeBytes: number } | undefined;
	/** Allocated and not written yet; written, given back since the space was last asked for. */
	#pending = 0;
	#spent = 0;
	#returned = 0;
	/** Start times of the reads that are out, in order. */
	#reads = new Map<number, number>();
	#readCounter = 0;
	#latencyMs = 1;
	#firstOpening = true;
	#background = new Set<Promise<void>>();
	/** P6. */
	readonly #inHand = new Map<string, PlaceInHand>();
	/** What mounts found that no record names. */
	readonly cleared = { packs: 0, bytes: 0 };

	constructor(id: number, packBytes: number, modules: PackModules) {
		this.id = id;
		this.allocator = new PackAllocator(packBytes);
		this.#modules = modules;
	}

	// ── space ────────────────────────────────────────────────────────────────────────────────────────────────────

	/** Known only after `prepare` or `refresh`. */
	get capacityBytes(): number {
		return this.#space?.capacityBytes ?? 0;
	}

	/** An estimate between two refreshes; never counts what is promised to writes that are under way. */
	get freeBytes(): number {
		if (!this.#space) return 0;
		return Math.max(0, this.#space.freeBytes - this.#pending - this.#spent + this.#returned);
	}

	get prepared(): boolean {
		return this.#opening?.prepared === true && this.#opening.disk === this.#modules.disks.writable(this.id);
	}

	/** `sharers`: how many disks of the volume lie on the same device and divide its space. */
	async refresh(disk: Disk, sharers: number): Promise<void> {
		const spentBefore = this.#spent;
		const space = await this.#reporting("read", () => disk.space());
		this.#space = { capacityBytes: Math.floor(space.capacityBytes / sharers), freeBytes: Math.floor(space.freeBytes / sharers) };
		// What was written while the answer was under way may be in it or not: count it twice rather than not at all.
		this.#spent -= spentBefore;
		this.#returned = 0;
		this.full = false;
	}

	/** Before anything is placed on the disk (P1). Cheap when it was done for this opening of the disk. */
	prepare(disk: Disk, sharers: number): Promise<void> {
		const opening = this.#open(disk);
		opening.ready ??= this.#prepare(opening, sharers).catch((error: unknown) => {
			opening.ready = undefined;
			throw error;
		});
		return opening.ready;
	}

	async #prepare(opening: Opening, sharers: number): Promise<void> {
		const names = await this.#reporting("read", () => opening.disk.list(folder));
		for (const name of names) {
			if (!/^\d{8}$/.test(name)) continue;
			const pack = Number(name);
			this.#skipNumber(pack);
			if (this.allocator.usedIn(pack) > 0) {
				// Records vouch for names found at mount. One of a later opening may never have been synced.
				if (this.#firstOpening) opening.named.add(pack);
				continue;
			}
			// Written by an incarnation that died before its transaction, or emptied: nothing in it counts.
			this.allocator.forget(pack);
			await this.#reporting("write", () => opening.disk.remove(packName(pack)));
			this.cleared.packs++;
		}
		await this.refresh(opening.disk, sharers);
		opening.prepared = true;
		if (this.#firstOpening) this.#inBackground(this.#sweep(opening, sharers));
		this.#firstOpening = false;
	}

	/** Nobody gets near the end of the numbers: a strange file with such a name must not use them all up. */
	#skipNumber(pack: number): void {
		if (pack < limits.maxPackNumber / 2) this.allocator.seen(pack);
	}

	/** Punches gaps that hold bytes of an incarnation that died: the file system's free space shows them only then. */
	async #sweep(opening: Opening, sharers: number): Promise<void> {
		const current = () => this.#opening === opening && this.#modules.disks.writable(this.id) === opening.disk;
		for (const pack of [...opening.named]) {
			const gaps = this.allocator.gaps(pack, limits.sweepGapBytes);
			if (gaps.length === 0 || !current()) continue;
			const held = (): Promise<number> => this.#use(opening.disk, pack, false, (file) => file.held());
			const before = await held();
			await this.#punchGaps(opening.disk, pack, gaps, current);
			this.cleared.bytes += Math.max(0, before - (await held()));
		}
		if (current()) await this.refresh(opening.disk, sharers);
	}

	async #punchGaps(disk: Disk, pack: number, gaps: readonly Gap[], current: () => boolean): Promise<void> {
		const size = await this.#use(disk, pack, false, (file) => file.size());
		for (const gap of gaps) if (gap.offset < size && current()) await this.#punchGap(disk, pack, gap);
	}

	/**
	 * Taken while it is punched, so that nobody writes into it meanwhile (P4); somebody else may have taken it since the gaps were listed.
	 */
	async #punchGap(disk: Disk, pack: number, gap: Gap): Promise<void> {
		const position = { pack, offset: gap.offset };
		if (!this.allocator.isFree(position, gap.length)) return;
		const taken = this.allocator.take(position, gap.length);
		assert(taken, "a free range can be taken");
		await this.#discardQuietly(disk, position, gap.length);
		this.#give(position, gap.length);
	}

	// ── places ───────────────────────────────────────────────────────────────────────────────────────────────────

	allocate(lengthBytes: number, segment: number): Position {
		assert(this.prepared, "the disk was prepared");
		const position = this.allocator.allocate(lengthBytes);
		this.#pending += lengthBytes;
		const sinceMs = this.#modules.platform.clock.monotonicMs();
		// Beyond the bound it can be given back by its owner alone, and by the next mount.
		if (this.#inHand.size < limits.placesInHand)
			this.#inHand.set(nameOf(position), { ...position, disk: this.id, lengthBytes, segment, sinceMs });
		return position;
	}

	/** A committed record names it. */
	settle(position: Position): void {
		this.#inHand.delete(nameOf(position));
	}

	inHand(): Iterable<PlaceInHand> {
		return this.#inHand.values();
	}

	/**
	 * Writes a fragment to a place from `allocate` and makes it durable (P2). Errors are reported to the set of disks before they are
	 * thrown.
	 */
	async write(disk: Disk, position: Position, parts: readonly Uint8Array[], lengthBytes: number): Promise<void> {
		try {
			await this.#use(disk, position.pack, true, async (file, opening, handle) => {
				await this.#reporting("write", () => file.write(position.offset, parts));
				await allSettledOrThrow([
					this.#reporting("sync", () => handle.gate.request(() => file.sync("storage.fragment"))),
					this.#reporting("sync", () => this.#nameDurable(opening, position.pack)),
				]);
			});
		} catch (error) {
			if (isFsError(error, "ENOSPC")) this.full = true;
			throw error;
		} finally {
			this.#pending -= lengthBytes;
			this.#spent += lengthBytes;
		}
	}

	/** The file is there when this is called, so any sync of the folder that starts from now on makes its name durable. */
	#nameDurable(opening: Opening, pack: number): Promise<void> {
		if (opening.named.has(pack)) return Promise.resolve();
		if (opening.unnamable.has(pack)) return Promise.reject(opening.unnamable.get(pack));
		let naming = opening.naming.get(pack);
		if (!naming) {
			const gate = opening.names;
			naming = gate
				.request(() => opening.disk.syncNames(folder, "storage.pack-name"))
				.then(
					() => void opening.named.add(pack),
					(error: unknown) => {
						if (isFsError(error, "ENOSPC")) this.#giveUpName(opening, pack, gate, error);
						throw error;
					},
				)
				.finally(() => opening.naming.delete(pack));
			opening.naming.set(pack, naming);
		}
		return naming;
	}

	/** P3: a later sync of the folder might not tell that this name is lost. Others may be made durable when there is space. */
	#giveUpName(opening: Opening, pack: number, gate: SyncGate, error: unknown): void {
		opening.unnamable.set(pack, error);
		this.allocator.close(pack);
		if (opening.names === gate) opening.names = new SyncGate();
	}

	/** Gives up a place that was allocated and never written. */
	unallocate(position: Position, lengthBytes: number): void {
		this.#pending -= lengthBytes;
		this.#inHand.delete(nameOf(position));
		this.allocator.free(position, lengthBytes);
	}

	/** Punches a place and makes it free. On a disk where that cannot be done now it is only made free: nobody writes there. */
	async release(position: Position, lengthBytes: number): Promise<void> {
		this.#inHand.delete(nameOf(position));
		const disk = this.#modules.disks.clearable(this.id);
		if (this.allocator.contested(position, lengthBytes)) {
			this.#modules.logger.warn("a place that two segment records claim stays taken until the next mount", { disk: this.id, ...position });
			return;
		}
		if (disk) await this.#discardWidely(disk, position, lengthBytes);
		this.#returned += lengthBytes;
		this.#give(position, lengthBytes);
	}

	/** A raw disk takes back whole units: what is free beside the range, up to the next ones, goes with it. That is taken meanwhile (P4). */
	async #discardWidely(disk: Disk, position: Position, lengthBytes: number): Promise<void> {
		const { pack, offset } = position;
		const unit = limits.discardUnitBytes;
		const free = this.allocator.freeAround(position, lengthBytes);
		const head = offset % unit;
		const tail = (unit - ((offset + lengthBytes) % unit)) % unit;
		const before = free.before >= head ? head : 0;
		const after = free.after >= tail ? tail : 0;
		const beside = [
			{ pack, offset: offset - before, length: before },
			{ pack, offset: offset + lengthBytes, length: after },
		].filter(({ length }) => length > 0);
		for (const one of beside) assert(this.allocator.take(one, one.length), "what was found free can be taken");
		await this.#discardQuietly(disk, { pack, offset: offset - before }, before + lengthBytes + after);
		for (const one of beside) this.allocator.free(one, one.length);
	}

	async #discardQuietly(disk: Disk, position: Position, lengthBytes: number): Promise<void> {
		try {
			await this.#use(disk, position.pack, false, (file) => file.discard(position.offset, lengthBytes));
		} catch (error) {
			// The file is gone: so is what it held. Anything else has been said to the set of disks, which decides about the disk.
			if (!isFsError(error, "ENOENT")) this.#modules.disks.report(this.id, error, during(error, "write"));
		}
	}

	#give(position: Position, lengthBytes: number): void {
		if (this.#modules.platform.simulation?.planted("df-drift")) return;
		const { allocator } = this;
		if (!allocator.free(position, lengthBytes)) return;
		const { pack } = position;
		// The pack in use stays, or writing and deleting one file in turn would make and sync a new name each time.
		if (pack === allocator.current || allocator.usedIn(pack) > 0) return;
		allocator.forget(pack);
		this.#inBackground(this.#removePack(pack));
	}

	async #removePack(pack: number): Promise<void> {
		const disk = this.#modules.disks.clearable(this.id);
		const opening = this.#opening;
		if (!disk || !opening || opening.disk !== disk) return;
		const handle = opening.handles.get(pack);
		opening.handles.delete(pack);
		opening.named.delete(pack);
		if (handle) await closeHandle(handle);
		await this.#reporting("write", () => disk.remove(packName(pack)));
	}

	// ── garbage ──────────────────────────────────────────────────────────────────────────────────────────────────

	/** The packs that lie on the disk, and names in their folder that are none of ours. */
	async packFiles(disk: Disk): Promise<{ readonly packs: readonly PackFile[]; readonly strange: readonly string[] }> {
		const packs: PackFile[] = [];
		const strange: string[] = [];
		for (const name of await disk.list(folder)) {
			if (!/^\d{8}$/.test(name)) {
				strange.push(`${folder}/${name}`);
				continue;
			}
			const pack = Number(name);
			try {
				const heldBytes = await this.#use(disk, pack, false, (file) => file.held());
				packs.push(this.#packFile(pack, heldBytes));
			} catch (error) {
				if (!isFsError(error, "ENOENT")) throw error;
			}
		}
		return { packs, strange };
	}

	#packFile(pack: number, heldBytes: number): PackFile {
		const takenBytes = this.allocator.usedIn(pack);
		let inHandBytes = 0;
		for (const place of this.#inHand.values()) if (place.pack === pack) inHandBytes += place.lengthBytes;
		const all = this.allocator.gaps(pack, 0);
		const small = all.filter(({ length }) => length < limits.sweepGapBytes).reduce((sum, { length }) => sum + length, 0);
		// A file system rounds up at both ends of what is punched, and keeps a map of it.
		const mostBytes = takenBytes + small + 2 * limits.sweepGapBytes * (1 + all.length) + Math.floor(takenBytes / 64);
		return { pack, heldBytes, takenBytes, inHandBytes, mostBytes, isCurrent: pack === this.allocator.current };
	}

	/** False: something lies in it, or may come to lie there. */
	async removeUnused(disk: Disk, pack: number): Promise<boolean> {
		if (this.allocator.usedIn(pack) > 0 || pack === this.allocator.current) return false;
		// From now on nothing is placed in it: numbers of packs are not given again (A4).
		this.#skipNumber(pack);
		this.allocator.forget(pack);
		const opening = this.#open(disk);
		const handle = opening.handles.get(pack);
		opening.handles.delete(pack);
		opening.named.delete(pack);
		if (handle) await closeHandle(handle);
		await this.#reporting("write", () => disk.remove(packName(pack)));
		return true;
	}

	/** Punches what is free in a pack and may still hold bytes. Answers what its file takes less by that, about. */
	async punchFree(disk: Disk, pack: number): Promise<number> {
		const current = (): boolean => this.#modules.disks.clearable(this.id) === disk;
		const held = (): Promise<number> => this.#use(disk, pack, false, (file) => file.held());
		const before = await held();
		await this.#punchGaps(disk, pack, this.allocator.gaps(pack, limits.sweepGapBytes), current);
		return Math.max(0, before - (await held()));
	}

	/** Gives a place back whose owner is gone; the caller knows that no record names it. False: its owner gave it back meanwhile. @throws FsError when the disk does not take the punch: it stays taken. */
	async reclaim(disk: Disk, place: PlaceInHand): Promise<boolean> {
		const name = nameOf(place);
		const isPlanted = this.#modules.platform.simulation?.planted("young-garbage") === true;
		if (this.#inHand.get(name) !== place && !isPlanted) return false;
		this.#inHand.delete(name);
		try {
			await this.#use(disk, place.pack, false, (file) => file.discard(place.offset, place.lengthBytes));
		} catch (error) {
			if (!isFsError(error, "ENOENT")) {
				this.#inHand.set(name, place);
				throw error;
			}
		}
		this.#returned += place.lengthBytes;
		this.#give(place, place.lengthBytes);
		return true;
	}

	// ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

	/**
	 * May be short at the end of the file. Errors are not reported: the reader knows what they mean. @throws FsError ENOENT: no such pack.
	 */
	async borrow(disk: Disk, pack: number, offset: number, lengthBytes: number, sumBlockBytes?: number): Promise<Borrowed> {
		const { clock } = this.#modules.platform;
		const number = this.#readCounter++;
		const start = clock.monotonicMs();
		this.#reads.set(number, start);
		try {
			return await this.#use(disk, pack, false, (file) => file.borrow(offset, lengthBytes, sumBlockBytes));
		} finally {
			this.#reads.delete(number);
			this.#latencyMs += (clock.monotonicMs() - start - this.#latencyMs) / 8;
		}
	}

	/** The next read of the place asks the device. Nothing is said of errors: that read meets them, too. */
	async uncache(disk: Disk, pack: number, offset: number, lengthBytes: number): Promise<void> {
		await this.#use(disk, pack, false, (file) => file.uncache(offset, lengthBytes)).catch(() => {});
	}

	/** The next use opens the pack by its name: an open file may have lost it, and with it all protection. */
	closeIdle(pack: number): void {
		const handle = this.#opening?.handles.get(pack);
		if (!handle || handle.users > 0) return;
		this.#opening?.handles.delete(pack);
		this.#inBackground(closeHandle(handle));
	}

	/**
	 * Expected wait for one more read, in coarse steps of powers of two, so that small differences do not make readers jump between
	 * replicas.
	 */
	get load(): number {
		return 32 - Math.clz32(Math.min(1_000_000, Math.floor((1 + this.#reads.size) * Math.max(1, this.#latencyMs)) >> 2));
	}

	/** A read has been out for that long: whoever can ask another disk should. */
	stalled(ms: number): boolean {
		if (this.#reads.size > 0 && this.#modules.platform.simulation?.buggify("storage.stalled")) return true;
		const oldest = this.#reads.values().next().value;
		return oldest !== undefined && this.#modules.platform.clock.monotonicMs() - oldest >= ms;
	}

	// ── handles ──────────────────────────────────────────────────────────────────────────────────────────────────

	#open(disk: Disk): Opening {
		if (this.#opening?.disk === disk) return this.#opening;
		this.drop();
		this.#opening = new Opening(disk);
		return this.#opening;
	}

	/** The disk is gone or was opened anew: its handles mean nothing any more. */
	drop(): void {
		const opening = this.#opening;
		this.#opening = undefined;
		this.#space = undefined;
		this.#spent = 0;
		this.#returned = 0;
		for (const handle of opening?.handles.values() ?? []) this.#inBackground(closeHandle(handle));
		opening?.handles.clear();
	}

	async #use<T>(disk: Disk, pack: number, create: boolean, work: PackWork<T>): Promise<T> {
		const opening = this.#open(disk);
		const handle = await this.#handle(opening, pack, create);
		try {
			const file = create ? await this.#reporting("write", () => handle.file) : await handle.file;
			return await work(file, opening, handle);
		} catch (error) {
			// What was not synced may be gone; what is written from now on goes through a file opened anew (P3).
			if (handle.gate.failed && isFsError(error, "ENOSPC")) handle.retired = true;
			const useless = handle.retired || (await opened(handle)) === undefined;
			if (useless && opening.handles.get(pack) === handle) opening.handles.delete(pack);
			throw error;
		} finally {
			handle.users--;
			if (handle.retired && handle.users === 0) this.#inBackground(closeHandle(handle));
		}
	}

	/** Counts the caller among its users. */
	async #handle(opening: Opening, pack: number, create: boolean): Promise<Handle> {
		let handle = opening.handles.get(pack);
		// A reader may have found the file absent just now: that must not fail a writer, who would have made it.
		if (handle && create && !handle.create && (await opened(handle)) === undefined) opening.handles.delete(pack);
		handle = opening.handles.get(pack);
		handle ??= { file: opening.disk.open(packName(pack), { create }), create, gate: new SyncGate(), users: 0, retired: false };
		handle.users++;
		// Deleting first moves it to the young end of the map.
		opening.handles.delete(pack);
		opening.handles.set(pack, handle);
		this.#evict(opening);
		return handle;
	}

	#evict(opening: Opening): void {
		for (const [pack, handle] of opening.handles) {
			if (opening.handles.size <= limits.openPacksPerDisk) return;
			if (handle.users > 0) continue;
			opening.handles.delete(pack);
			this.#inBackground(closeHandle(handle));
		}
	}

	async #reporting<T>(kind: keyof DiskErrors, call: () => Promise<T>): Promise<T> {
		try {
			return await call();
		} catch (error) {
			if (!isFsError(error, "ENOSPC")) this.#modules.disks.report(this.id, error, during(error, kind));
			throw error;
		}
	}

	#inBackground(work: Promise<void>): void {
		const quiet: Promise<void> = work
			.catch((error: unknown) => {
				this.#modules.logger.warn("tidying up a disk's packs failed", { disk: this.id, error: String(error) });
			})
			.finally(() => this.#background.delete(quiet));
		this.#background.add(quiet);
	}

	/** Nothing is under way behind the caller's back when it resolves. */
	async close(): Promise<void> {
		this.drop();
		while (this.#background.size > 0) await Promise.all(this.#background);
	}
}

function nameOf({ pack, offset }: Position): string {
	return `${pack}.${offset}`;
}

function during(error: unknown, kind: keyof DiskErrors): keyof DiskErrors {
	return isFsError(error, "ETIMEDOUT") ? "timeout" : kind;
}

/** The file, or undefined when opening it failed. */
async function opened(handle: Handle): Promise<DiskFile | undefined> {
	return handle.file.catch(() => undefined);
}

async function closeHandle(handle: Handle): Promise<void> {
	const file = await opened(handle);
	// A file of a disk that is gone need not close.
	await file?.close().catch(() => undefined);
}
