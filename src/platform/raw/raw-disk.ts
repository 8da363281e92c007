/**
 * A disk without a file system: files on a raw device (or on one file that stands for a device), by a table of our own.
 *
 * Invariants
 *  R1 Nothing is written to a device that holds something foreign, before `disregard`.
 *  R2 Changes of names, sizes and places are in memory in the order of the calls; `sync` and `syncNames` make all of them durable that were made before, after the data
 *     they stand for. So a file never shows what its units held for another file, whenever power fails.
 *  R3 Units that a file let go of are given to another only after that is durable, and discarded in between.
 *  R4 After a sync that failed none succeeds any more.
 *  R5 Calls take effect, in memory and on the device, in the order in which they were made.
 */
import { allSettledOrThrow } from "../../base/async.ts";
import { FsError } from "../../base/errors.ts";
import type { Borrowed, Disk, DiskActivity, DiskFile, Random, TableCheck } from "../interface.ts";
import { checkDiskFolder, checkDiskName, checkRange } from "../names.ts";
import type { RawDevice } from "./interface.ts";
import { RawJournal } from "./journal.ts";
import { decodeHeader, encodeHeader, newLayout, type RawLayout, secondHeaderAt, unitsAt } from "./layout.ts";
import { rawLimits } from "./limits.ts";
import { recognise } from "./signatures.ts";
import type { RawFile, RawTable } from "./table.ts";

const { unitBytes, pageBytes } = rawLimits;

/** What a device turned out to be. */
interface Found {
	readonly layout: RawLayout | undefined;
	readonly state: State | undefined;
	readonly foreign: string | undefined;
	/** A copy of the header is damaged. */
	readonly mendHeaders: boolean;
}

interface State {
	readonly journal: RawJournal;
	readonly table: RawTable;
}

interface TableQuestion {
	readonly repair: boolean;
	answer: TableCheck | undefined;
}

/** Reads what is there; writes nothing. @throws FsError REFUSED (a newer format), EINVAL (too small), and what the device throws. */
export async function openRawDisk(device: RawDevice, random: Random): Promise<Disk> {
	return new RawDisk(device, random, await look(device));
}

async function look(device: RawDevice): Promise<Found> {
	// Says what is wrong with the size, if anything is.
	newLayout(device.sizeBytes, new Uint8Array(16), device.path);
	const first = decodeHeader(await device.read(0, pageBytes), device.path);
	const second = decodeHeader(
		await device.read(secondHeaderAt(first?.sizeBytes ?? device.sizeBytes, device.sizeBytes), pageBytes),
		device.path,
	);
	const layout = first ?? second;
	if (layout === undefined) return { layout, state: undefined, foreign: await foreignOn(device), mendHeaders: false };
	const nothing = { layout: undefined, state: undefined, mendHeaders: false };
	if (layout.sizeBytes > device.sizeBytes) {
		return {
			...nothing,
			foreign: `a CairnFS disk of ${layout.sizeBytes} bytes, more than there are (${device.sizeBytes}): the device shrank`,
		};
	}
	try {
		return { layout, state: await RawJournal.load(device, layout), foreign: undefined, mendHeaders: !first || !second };
	} catch (error) {
		if (!(error instanceof FsError) || error.code !== "CORRUPT") throw error;
		return { ...nothing, foreign: `a damaged CairnFS disk (${error.message})` };
	}
}

async function foreignOn(device: RawDevice): Promise<string | undefined> {
	const { lookFirstBytes, lookLastBytes } = rawLimits;
	const last = await device.read(device.sizeBytes - lookLastBytes, lookLastBytes);
	return recognise(await device.read(0, lookFirstBytes), last);
}

class RawDisk implements Disk {
	readonly path: string;
	readonly domain: string;
	readonly ownsSpace = true;
	readonly #device: RawDevice;
	readonly #random: Random;
	#layout: RawLayout | undefined;
	#state: State | undefined;
	#foreign: string | undefined;
	#mendHeaders: boolean;
	/** Commits that run, one after the other; and the next, for all who ask while one runs. */
	#running: Promise<void> | undefined;
	#next: Promise<void> | undefined;
	/** On their way from #released to free. */
	#freeingUnits = 0;
	/** A call waits for something; those behind it are in the queue. */
	#held = false;
	#queue: (() => void)[] = [];
	#failed: unknown;
	/** For the next commit. */
	readonly #questions: TableQuestion[] = [];
	#closed = false;

	constructor(device: RawDevice, random: Random, found: Found) {
		this.path = device.path;
		this.domain = device.domain;
		this.#device = device;
		this.#random = random;
		this.#layout = found.layout;
		this.#state = found.state;
		this.#foreign = found.foreign;
		this.#mendHeaders = found.mendHeaders;
	}

	get foreign(): string | undefined {
		return this.#foreign;
	}

	disregard(): void {
		this.#foreign = undefined;
	}

	activity(): DiskActivity {
		return this.#device.activity?.() ?? { finished: 0, state: "idle" };
	}

	lock(): Promise<void> {
		return this.#order(() => this.#device.lock());
	}

	async open(name: string, options: { readonly create?: boolean } = {}): Promise<DiskFile> {
		checkDiskName(name);
		return this.#order(() => this.#open(name, options.create === true));
	}

	#open(name: string, create: boolean): Promise<DiskFile> {
		const known = this.#state?.table.files.get(name);
		if (known !== undefined) return Promise.resolve(new RawDiskFile(known, this));
		if (create) {
			const { table } = this.#formatted();
			const file = table.create(name);
			return this.#device.probe().then(() => new RawDiskFile(file, this));
		}
		return this.#device.probe().then(() => {
			throw new FsError("ENOENT", "platform.raw-open", `no file ${name} on the disk ${this.path}`, { path: this.path, name });
		});
	}

	async list(folder: string): Promise<string[]> {
		checkDiskFolder(folder);
		return this.#order(async () => {
			const names = this.#names(folder === "" ? "" : `${folder}/`);
			await this.#device.probe();
			return names;
		});
	}

	#names(prefix: string): string[] {
		const names = new Set<string>();
		for (const name of this.#state?.table.files.keys() ?? []) {
			if (!name.startsWith(prefix)) continue;
			const rest = name.slice(prefix.length);
			const slash = rest.indexOf("/");
			names.add(slash < 0 ? rest : rest.slice(0, slash + 1));
		}
		return [...names].sort();
	}

	async remove(name: string): Promise<void> {
		checkDiskName(name);
		return this.#order(async () => {
			const file = this.#state?.table.files.get(name);
			if (file !== undefined) this.#state?.table.remove(file);
			await this.#device.probe();
		});
	}

	async syncNames(folder: string, site: string): Promise<void> {
		checkDiskFolder(folder);
		return this.#order(() => this.#commit(site));
	}

	async space(): Promise<{ readonly capacityBytes: number; readonly freeBytes: number }> {
		return this.#order(async () => {
			const layout = this.#layout ?? newLayout(this.#device.sizeBytes, new Uint8Array(16), this.path);
			const capacityBytes = layout.sizeBytes - rawLimits.headBytes - unitsAt(layout);
			const table = this.#state?.table;
			const freeBytes = table ? (table.freeUnits + table.releasedUnits + this.#freeingUnits) * unitBytes : capacityBytes;
			await this.#device.probe();
			return { capacityBytes, freeBytes };
		});
	}

	/** Without it, damage of the table would be noticed by the next mount, on all disks at once that were hit since the last. */
	async verifyTable(repair: boolean): Promise<TableCheck> {
		if (this.#state === undefined) return { checked: 0, corrupt: 0, repaired: 0 };
		const question: TableQuestion = { repair, answer: undefined };
		await this.#order(() => {
			this.#questions.push(question);
			return this.#commit("platform.raw-verify");
		});
		return question.answer as TableCheck;
	}

	/** Before a commit: while none runs. */
	async #answer(questions: readonly TableQuestion[], journal: RawJournal, layout: RawLayout): Promise<boolean> {
		if (questions.length === 0) return false;
		// What cannot be read is damaged: a commit that fails would end the disk.
		const isHeader = (at: number): Promise<boolean> =>
			this.#device
				.uncache(at, pageBytes)
				.then(() => this.#device.read(at, pageBytes))
				.then((page) => decodeHeader(page, this.path) !== undefined)
				.catch(() => false);
		const headers = [await isHeader(0), await isHeader(layout.sizeBytes - rawLimits.headBytes)];
		const isTable = await journal.isWhole().catch(() => false);
		const corrupt = [...headers, isTable].filter((isRight) => !isRight).length;
		const mends = questions.some(({ repair }) => repair);
		if (mends && headers.includes(false)) this.#mendHeaders = true;
		for (const question of questions) question.answer = { checked: 3, corrupt, repaired: mends ? corrupt : 0 };
		return mends && !isTable;
	}

	probe(): Promise<void> {
		return this.#order(() => this.#device.probe());
	}

	async close(): Promise<void> {
		if (this.#closed) return;
		this.#closed = true;
		await this.#device.close();
	}

	// ── order ────────────────────────────────────────────────────────────────────────────────────────────────────

	/** R5. `submit` hands everything over to the device before it returns; it throws `Wait`, having done nothing, when something has to come first. */
	#order<T>(submit: () => Promise<T>): Promise<T> {
		if (this.#closed)
			return Promise.reject(new FsError("EBADF", "platform.raw-closed", `the disk ${this.path} was closed`, { path: this.path }));
		if (this.#held) return new Promise((resolve, reject) => this.#queue.push(() => this.#order(submit).then(resolve, reject)));
		try {
			return submit();
		} catch (error) {
			return error instanceof Wait ? this.#hold(error.work(), submit) : Promise.reject(error);
		}
	}

	async #hold<T>(work: Promise<unknown>, submit: () => Promise<T>): Promise<T> {
		this.#held = true;
		const failure = await work.then(
			() => undefined,
			(error: unknown) => ({ error }),
		);
		this.#held = false;
		const result = failure ? Promise.reject(failure.error) : this.#submitNow(submit);
		// Those behind it, in their order; they queue again when one of them has to wait.
		const queued = this.#queue;
		this.#queue = [];
		for (const next of queued) next();
		return result;
	}

	#submitNow<T>(submit: () => Promise<T>): Promise<T> {
		try {
			return submit();
		} catch (error) {
			return Promise.reject(
				error instanceof Wait ? new FsError("ENOSPC", "platform.raw-full", `the disk ${this.path} is full`, { path: this.path }) : error,
			);
		}
	}

	// ── format ───────────────────────────────────────────────────────────────────────────────────────────────────

	/** R1 */
	#formatted(): State {
		if (this.#state) return this.#state;
		if (this.#foreign === undefined) throw new Wait(() => this.#formatNow());
		throw new FsError("REFUSED", "platform.raw-foreign", `${this.path} holds ${this.#foreign}: nothing is written to it`, {
			path: this.path,
		});
	}

	/** The first header goes last: without it nothing is there. */
	async #formatNow(): Promise<void> {
		const layout = newLayout(this.#device.sizeBytes, this.#random.bytes(16), this.path);
		// What an interrupted format or a foreign one left must not be taken for anything.
		await this.#device.write(0, [new Uint8Array(rawLimits.headBytes)]);
		await this.#device.write(layout.sizeBytes - rawLimits.headBytes, [new Uint8Array(rawLimits.headBytes)]);
		const state = await RawJournal.format(this.#device, layout);
		await this.#writeHeaders(layout);
		this.#layout = layout;
		this.#state = state;
	}

	/** Durable with the next sync: it covers the whole device, and nothing was promised before. */
	async #writeHeaders(layout: RawLayout): Promise<void> {
		const header = encodeHeader(layout);
		await this.#device.write(layout.sizeBytes - rawLimits.headBytes, [header]);
		await this.#device.write(0, [header]);
	}

	// ── durability ───────────────────────────────────────────────────────────────────────────────────────────────

	/** Who asks while a commit runs shares the next one: only that is sure to have seen his bytes. */
	#commit(site: string): Promise<void> {
		if (this.#next) return this.#next;
		if (!this.#running) return this.#start(site);
		const next = this.#running
			.catch(() => {})
			.then(() => {
				this.#next = undefined;
				return this.#start(site);
			});
		this.#next = next;
		return next;
	}

	#start(site: string): Promise<void> {
		if (this.#failed !== undefined) return Promise.reject(this.#failed);
		const run = this.#commitNow(site).then(
			() => {
				this.#running = undefined;
			},
			(error: unknown) => {
				this.#running = undefined;
				// R4
				this.#failed ??= error;
				throw error;
			},
		);
		this.#running = run;
		return run;
	}

	async #commitNow(site: string): Promise<void> {
		if (!this.#state) return this.#device.sync(site);
		const { journal, table } = this.#state;
		const anew = await this.#answer(this.#questions.splice(0), journal, this.#layout as RawLayout);
		this.#freeingUnits = table.releasedUnits;
		const freed = await journal.commit(table, site, anew);
		for (const { unit, count } of freed) await this.#device.discard(this.#placeOf(unit), count * unitBytes);
		table.free(freed);
		this.#freeingUnits = 0;
		if (this.#mendHeaders && this.#layout) {
			await this.#writeHeaders(this.#layout);
			await this.#device.sync("platform.raw-headers");
			this.#mendHeaders = false;
		}
	}

	#placeOf(unit: number): number {
		return unitsAt(this.#layout as RawLayout) + unit * unitBytes;
	}

	// ── files ────────────────────────────────────────────────────────────────────────────────────────────────────

	#checkFile(file: RawFile): void {
		if (!file.removed) return;
		throw new FsError("ENOENT", "platform.raw-removed", `${file.name} on ${this.path} was removed`, { path: this.path, name: file.name });
	}

	sync(file: RawFile, site: string): Promise<void> {
		return this.#order(() => {
			this.#checkFile(file);
			return this.#commit(site).then(() => this.#checkFile(file));
		});
	}

	size(file: RawFile): Promise<number> {
		return this.#order(async () => {
			this.#checkFile(file);
			return file.sizeBytes;
		});
	}

	held(file: RawFile): Promise<number> {
		return this.#order(async () => {
			this.#checkFile(file);
			return file.extents.reduce((sum, extent) => sum + extent.count * unitBytes, 0);
		});
	}

	read(file: RawFile, offset: number, lengthBytes: number): Promise<Uint8Array> {
		return this.#order(() => {
			this.#checkFile(file);
			const length = Math.max(0, Math.min(lengthBytes, file.sizeBytes - offset));
			const pieces = piecesOf(file, offset, length);
			const [only] = pieces;
			if (pieces.length === 1 && only?.unit !== undefined) return this.#device.read(this.#deviceOffset(only), length);
			return this.#join(pieces, offset, length);
		});
	}

	async #join(pieces: readonly Piece[], offset: number, length: number): Promise<Uint8Array> {
		const bytes = new Uint8Array(length);
		const read = async (piece: Piece): Promise<void> =>
			bytes.set(await this.#device.read(this.#deviceOffset(piece), piece.length), piece.from - offset);
		await Promise.all(pieces.filter((piece) => piece.unit !== undefined).map(read));
		return bytes;
	}

	borrow(file: RawFile, offset: number, lengthBytes: number, sumBlockBytes?: number): Promise<Borrowed> {
		return this.#order(() => {
			this.#checkFile(file);
			const length = Math.max(0, Math.min(lengthBytes, file.sizeBytes - offset));
			const pieces = piecesOf(file, offset, length);
			const [only] = pieces;
			if (pieces.length === 1 && only?.unit !== undefined) return this.#device.borrow(this.#deviceOffset(only), length, sumBlockBytes);
			return this.#join(pieces, offset, length).then((bytes) => ({ bytes, release: () => {} }));
		});
	}

	#deviceOffset(piece: Piece): number {
		return this.#placeOf(piece.unit as number) + (piece.from % unitBytes);
	}

	write(file: RawFile, offset: number, parts: readonly Uint8Array[]): Promise<void> {
		return this.#order(() => this.#write(file, offset, parts));
	}

	/** Zeros go before and behind the bytes where the file would else show what the units held before. */
	#write(file: RawFile, offset: number, parts: readonly Uint8Array[]): Promise<void> {
		this.#checkFile(file);
		const length = parts.reduce((sum, part) => sum + part.length, 0);
		if (length === 0) return Promise.resolve();
		const fresh = this.#ensureUnits(file, offset, length);
		const end = offset + length;
		const size = file.sizeBytes;
		// Behind the end of the file its last unit may hold anything.
		const writes = size < offset ? this.#zeros(file, size, Math.min(offset, alignUp(size))) : [];
		for (const unit of fresh) {
			const from = unit * unitBytes;
			writes.push(...this.#zeros(file, from, Math.min(offset, from + unitBytes)));
			writes.push(...this.#zeros(file, Math.max(from, end), Math.min(from + unitBytes, size)));
		}
		const source = new PartReader(parts);
		for (const piece of piecesOf(file, offset, length))
			writes.push(this.#device.write(this.#deviceOffset(piece), source.take(piece.length)));
		this.#formatted().table.setSize(file, Math.max(size, end));
		return together(writes);
	}

	/** Writes zeros where there are units. */
	#zeros(file: RawFile, from: number, to: number): Promise<void>[] {
		if (to <= from) return [];
		const mapped = piecesOf(file, from, to - from).filter((piece) => piece.unit !== undefined);
		return mapped.map((piece) => this.#device.write(this.#deviceOffset(piece), [new Uint8Array(piece.length)]));
	}

	/** Numbers of the units at either end of the range that are new. @throws Wait; FsError ENOSPC. */
	#ensureUnits(file: RawFile, offset: number, length: number): number[] {
		const first = Math.floor(offset / unitBytes);
		const last = Math.floor((offset + length - 1) / unitBytes);
		const holes = piecesOf(file, first * unitBytes, (last - first + 1) * unitBytes)
			.filter((piece) => piece.unit === undefined)
			.map((piece) => ({ at: piece.from / unitBytes, count: piece.length / unitBytes }));
		const needed = holes.reduce((sum, hole) => sum + hole.count, 0);
		if (needed === 0) return [];
		const { table } = this.#formatted();
		table.checkRoom(needed);
		// What was let go of is free when that is durable (R3).
		if (needed > table.freeUnits) throw new Wait(() => this.#commit("platform.raw-reuse"));
		for (const { at, count } of holes) table.map(file, at, count);
		const isNew = (unit: number): boolean => holes.some(({ at, count }) => at <= unit && unit < at + count);
		return [...new Set([first, last])].filter(isNew);
	}

	truncate(file: RawFile, sizeBytes: number): Promise<void> {
		return this.#order(() => {
			this.#checkFile(file);
			const { table } = this.#formatted();
			const before = file.sizeBytes;
			const writes = sizeBytes > before ? this.#zeros(file, before, Math.min(sizeBytes, alignUp(before))) : [];
			const from = alignUp(sizeBytes) / unitBytes;
			const behind = Math.ceil(before / unitBytes);
			if (from < behind) table.unmap(file, from, behind - from);
			table.setSize(file, sizeBytes);
			return together(writes);
		});
	}

	uncache(file: RawFile, offset: number, lengthBytes: number): Promise<void> {
		return this.#order(() => {
			this.#checkFile(file);
			const length = Math.max(0, Math.min(lengthBytes, file.sizeBytes - offset));
			const pieces = piecesOf(file, offset, length).filter((piece) => piece.unit !== undefined);
			return together(pieces.map((piece) => this.#device.uncache(this.#deviceOffset(piece), piece.length)));
		});
	}

	discard(file: RawFile, offset: number, lengthBytes: number): Promise<void> {
		return this.#order(() => {
			this.#checkFile(file);
			const end = Math.min(file.sizeBytes, offset + lengthBytes);
			if (end <= offset) return Promise.resolve();
			const first = alignUp(offset) / unitBytes;
			const behind = end === file.sizeBytes ? Math.ceil(end / unitBytes) : Math.floor(end / unitBytes);
			if (first < behind) this.#formatted().table.unmap(file, first, behind - first);
			const pieces = piecesOf(file, offset, end - offset).filter((piece) => piece.unit !== undefined);
			return together(pieces.flatMap((piece) => this.#discardPiece(file, piece)));
		});
	}

	/** Whole pages are discarded, the rest is overwritten with zeros. */
	#discardPiece(file: RawFile, piece: Piece): Promise<void>[] {
		const to = piece.from + piece.length;
		const pageFrom = Math.ceil(piece.from / pageBytes) * pageBytes;
		const pageTo = Math.floor(to / pageBytes) * pageBytes;
		if (pageFrom >= pageTo) return this.#zeros(file, piece.from, to);
		const discarded = this.#device.discard(this.#deviceOffset(piece) + pageFrom - piece.from, pageTo - pageFrom);
		return [discarded, ...this.#zeros(file, piece.from, pageFrom), ...this.#zeros(file, pageTo, to)];
	}
}

/** Something has to be done first; then the call is tried once more. */
class Wait extends Error {
	readonly work: () => Promise<unknown>;

	constructor(work: () => Promise<unknown>) {
		super("a call waits");
		this.work = work;
	}
}

/** All of them have settled; the first error counts. */
async function together(calls: readonly Promise<void>[]): Promise<void> {
	await allSettledOrThrow(calls);
}

/** A part of a file that lies in one run of units, or in none. */
interface Piece {
	readonly from: number;
	readonly length: number;
	/** The unit in which it begins; undefined: a hole. */
	readonly unit: number | undefined;
}

function piecesOf(file: RawFile, offset: number, length: number): Piece[] {
	const pieces: Piece[] = [];
	const end = offset + length;
	let at = offset;
	for (let i = firstExtent(file, offset); at < end; i++) {
		const extent = file.extents[i];
		const start = extent === undefined ? end : Math.min(end, extent.at * unitBytes);
		if (at < start) pieces.push({ from: at, length: start - at, unit: undefined });
		at = Math.max(at, start);
		if (extent === undefined || at >= end) break;
		const stop = Math.min(end, (extent.at + extent.count) * unitBytes);
		pieces.push({ from: at, length: stop - at, unit: extent.unit + Math.floor(at / unitBytes) - extent.at });
		at = stop;
	}
	return pieces;
}

/** Index of the first extent that ends behind `offset`. */
function firstExtent({ extents }: RawFile, offset: number): number {
	let low = 0;
	let high = extents.length;
	while (low < high) {
		const middle = (low + high) >>> 1;
		const extent = extents[middle];
		if (extent !== undefined && (extent.at + extent.count) * unitBytes <= offset) low = middle + 1;
		else high = middle;
	}
	return low;
}

function alignUp(bytes: number): number {
	return Math.ceil(bytes / unitBytes) * unitBytes;
}

/** Hands out parts in pieces, without copying. */
class PartReader {
	readonly #parts: readonly Uint8Array[];
	#part = 0;
	#offset = 0;

	constructor(parts: readonly Uint8Array[]) {
		this.#parts = parts;
	}

	take(length: number): Uint8Array[] {
		const taken: Uint8Array[] = [];
		for (let left = length; left > 0; ) {
			const part = this.#parts[this.#part] as Uint8Array;
			const count = Math.min(left, part.length - this.#offset);
			if (count > 0) taken.push(part.subarray(this.#offset, this.#offset + count));
			left -= count;
			this.#offset += count;
			if (this.#offset < part.length) continue;
			this.#part++;
			this.#offset = 0;
		}
		return taken;
	}
}

class RawDiskFile implements DiskFile {
	readonly #file: RawFile;
	readonly #disk: RawDisk;
	#closed = false;

	constructor(file: RawFile, disk: RawDisk) {
		this.#file = file;
		this.#disk = disk;
	}

	get name(): string {
		return this.#file.name;
	}

	async read(offset: number, lengthBytes: number): Promise<Uint8Array> {
		checkRange(this.name, offset, lengthBytes);
		this.#checkOpen();
		return this.#disk.read(this.#file, offset, lengthBytes);
	}

	async borrow(offset: number, lengthBytes: number, sumBlockBytes?: number): Promise<Borrowed> {
		checkRange(this.name, offset, lengthBytes);
		this.#checkOpen();
		return this.#disk.borrow(this.#file, offset, lengthBytes, sumBlockBytes);
	}

	async write(offset: number, parts: readonly Uint8Array[]): Promise<void> {
		for (const part of parts) checkRange(this.name, offset, part.length);
		this.#checkOpen();
		await this.#disk.write(this.#file, offset, parts);
	}

	async sync(site: string): Promise<void> {
		this.#checkOpen();
		await this.#disk.sync(this.#file, site);
	}

	async discard(offset: number, lengthBytes: number): Promise<void> {
		checkRange(this.name, offset, lengthBytes);
		this.#checkOpen();
		await this.#disk.discard(this.#file, offset, lengthBytes);
	}

	async uncache(offset: number, lengthBytes: number): Promise<void> {
		checkRange(this.name, offset, lengthBytes);
		this.#checkOpen();
		await this.#disk.uncache(this.#file, offset, lengthBytes);
	}

	async size(): Promise<number> {
		this.#checkOpen();
		return this.#disk.size(this.#file);
	}

	async held(): Promise<number> {
		this.#checkOpen();
		return this.#disk.held(this.#file);
	}

	async truncate(sizeBytes: number): Promise<void> {
		checkRange(this.name, sizeBytes, 0);
		this.#checkOpen();
		await this.#disk.truncate(this.#file, sizeBytes);
	}

	async close(): Promise<void> {
		this.#closed = true;
	}

	#checkOpen(): void {
		if (this.#closed) throw new FsError("EBADF", "platform.raw-file-closed", `${this.name} was closed`);
	}
}
