/**
 * The bytes of runs on the manifest disks: written to all of them, read from any, mended from each other.
 *
 * Invariants
 *  F1 A run's `copies` holds a disk only after the whole file and its name were synced there.
 *  F2 A copy is only ever written with bytes that match their piece's checksum; a good piece is never overwritten.
 *  F3 Every error of a disk is reported to the disk set; a disk without space is an error of the whole write (ENOSPC), never of the disk.
 */
import { assert } from "../../base/assert.ts";
import { BufferPool, type Lent } from "../../base/buffer-pool.ts";
import { concatBytes } from "../../base/bytes.ts";
import { FsError, isFsError, toFsError } from "../../base/errors.ts";
import type { Logger } from "../../base/telemetry.ts";
import type { DiskErrors, DiskId, DiskSet } from "../../log/interface.ts";
import type { Clock, Disk, DiskFile } from "../../platform/interface.ts";
import type { LocalLimits } from "../limits.ts";
import type { RunInfo } from "./manifest.ts";
import type { Piece, Run, RunShape, RunSink } from "./run.ts";
import { openRun, pieceIsGood, runFileName, RunWriter } from "./run.ts";

export interface RunFilesModules {
	readonly clock: Clock;
	readonly disks: DiskSet;
	readonly logger: Logger;
	readonly limits: LocalLimits;
}

export type MendKind = "look" | "mend" | "copy";

export interface MendReport {
	checked: number;
	corrupt: number;
	repaired: number;
	unrecoverable: number;
}

interface OpenFile {
	readonly disk: Disk;
	readonly file: Promise<DiskFile>;
}

export class RunFiles {
	readonly #modules: RunFilesModules;
	readonly #open = new Map<string, OpenFile>();
	/** Offsets of bad pieces that were reported, by file. */
	readonly #knownDamage = new Map<string, Set<number>>();
	/** Memory that runs are written from: of a flush, and of a merge beside it. */
	readonly chunks: BufferPool;
	/** Bad pieces found since the start, by reads and checks alike. */
	corruptPieces = 0;
	/** Called when a copy turned out damaged. */
	onDamage: (run: Run, id: DiskId) => void = () => {};

	constructor(modules: RunFilesModules) {
		this.#modules = modules;
		this.chunks = new BufferPool({ fromBytes: 1, keptBytes: keptChunks * modules.limits.chunkBytes, shared: true });
	}

	// ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

	/**
	 * Writes a run to all `targets`, filled by `fill`, and syncs it. A disk that fails is reported and left out of `copies`.
	 * @throws FsError ENOSPC (nothing is left behind), EIO `kv.run-write` when no disk took it.
	 */
	async write(shape: RunShape, targets: readonly DiskId[], fill: (writer: RunWriter) => Promise<void>): Promise<Run | undefined> {
		const sink = new MirrorSink(this, shape.id, targets);
		try {
			await sink.open();
			const writer = new RunWriter(shape, this.#modules.limits, sink);
			await fill(writer);
			if (writer.entries === 0) {
				await this.#discard(shape.id, targets);
				return undefined;
			}
			const run = await writer.finish();
			await sink.sync();
			for (const id of sink.live) run.copies.add(id);
			return run;
		} catch (error) {
			await this.#discard(shape.id, targets);
			throw error;
		}
	}

	/** Removes a run from `targets`; what cannot be removed is cleaned up at the next mount. */
	async remove(run: Run, targets: Iterable<DiskId>): Promise<void> {
		run.copies.clear();
		await this.#discard(run.info.id, targets);
	}

	/** Some copies of a run that has others. */
	async removeCopies(run: Run, ids: readonly DiskId[]): Promise<void> {
		for (const id of ids) run.copies.delete(id);
		await this.#discard(run.info.id, ids);
	}

	/** One copy's file and what is known of it. An open file that has lost its name would be written to in vain when the run is copied there again. @throws FsError what the disk said. */
	async removeFile(runId: number, id: DiskId, disk: Disk): Promise<void> {
		await this.#closeFile(runId, id);
		this.#knownDamage.delete(fileKey(runId, id));
		await disk.remove(runFileName(runId));
	}

	async #discard(runId: number, targets: Iterable<DiskId>): Promise<void> {
		for (const id of new Set(targets)) {
			const disk = this.#modules.disks.clearable(id);
			await this.#closeFile(runId, id);
			this.#knownDamage.delete(fileKey(runId, id));
			if (!disk) continue;
			await disk.remove(runFileName(runId)).catch((error: unknown) => this.report(id, error, "write"));
		}
	}

	// ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

	/** Index and filter of a run, from any good copy; `others` may have it too, but do not count as copies. */
	async openRun(info: RunInfo, volume: string, copies: readonly DiskId[], others: readonly DiskId[]): Promise<Run> {
		const suspects = new Set<DiskId>();
		const run = await openRun(info, volume, async (piece) => {
			const { bytes, bad } = await this.#pieceFromAny(info.id, piece, [...copies, ...others]);
			for (const id of bad) suspects.add(id);
			if (bytes) return bytes;
			throw lost(info.id, piece, [...copies, ...others]);
		});
		for (const id of copies) run.copies.add(id);
		for (const id of suspects) this.#noteDamage(run, id);
		return run;
	}

	/** Pieces that lie one after the other, each verified. @throws FsError EIO `kv.run-lost` naming the run. */
	async readPieces(run: Run, pieces: readonly Piece[]): Promise<Uint8Array[]> {
		run.users++;
		try {
			const good = await this.#goodPieces(run, pieces, undefined);
			return pieces.map((piece) => {
				const bytes = good.get(piece);
				if (!bytes) throw lost(run.info.id, piece, [...run.copies]);
				return bytes;
			});
		} finally {
			run.users--;
			this.onRelease(run);
		}
	}

	/** Called whenever a reader is done. */
	onRelease: (run: Run) => void = () => {};

	/** Called whenever a disk had no space. */
	onFull: (id: DiskId) => void = () => {};

	/** What can be read of neighbouring pieces from any copy but `except`. */
	async #goodPieces(run: Run, pieces: readonly Piece[], except: DiskId | undefined): Promise<Map<Piece, Uint8Array>> {
		const good = new Map<Piece, Uint8Array>();
		for (const id of this.#preference(run, pieces[0] as Piece)) {
			if (id === except) continue;
			const wanted = pieces.filter((piece) => !good.has(piece));
			if (wanted.length === 0) break;
			const bad = await this.#readInto(good, run.info.id, id, wanted);
			if (bad > 0) this.#noteDamage(run, id);
		}
		return good;
	}

	/** Returns how many pieces were bad (not: how many could not be read because of the disk). */
	async #readInto(good: Map<Piece, Uint8Array>, runId: number, id: DiskId, pieces: readonly Piece[]): Promise<number> {
		const first = pieces[0] as Piece;
		const last = pieces[pieces.length - 1] as Piece;
		const bytes = await this.#readRange(runId, id, first.offset, last.offset + last.length - first.offset);
		if (bytes === undefined) return 0;
		let bad = 0;
		for (const piece of pieces) {
			const at = piece.offset - first.offset;
			const part = bytes.subarray(at, at + piece.length);
			if (pieceIsGood(piece, part)) good.set(piece, part);
			else bad++;
		}
		if (bad > 0) {
			this.#reportCorrupt(
				runId,
				id,
				pieces.filter((piece) => !good.has(piece)),
			);
		}
		return bad;
	}

	/** Short at the end of the file, empty when there is no file, undefined when the disk cannot be read. */
	async #readRange(runId: number, id: DiskId, offset: number, length: number): Promise<Uint8Array | undefined> {
		try {
			const file = await this.#file(runId, id, false);
			return file && (await file.read(offset, length));
		} catch (error) {
			if (isFsError(error, "ENOENT")) return new Uint8Array(0);
			this.report(id, error, "read");
			return undefined;
		}
	}

	async #pieceFromAny(runId: number, piece: Piece, copies: readonly DiskId[]): Promise<{ bytes: Uint8Array | undefined; bad: DiskId[] }> {
		const bad: DiskId[] = [];
		const good = new Map<Piece, Uint8Array>();
		for (const id of copies) {
			if ((await this.#readInto(good, runId, id, [piece])) > 0) bad.push(id);
			if (good.size > 0) break;
		}
		return { bytes: good.get(piece), bad };
	}

	/** Healthy disks first, known damage last, the rest by turns. */
	#preference(run: Run, piece: Piece): DiskId[] {
		const ids = [...run.copies];
		const turn = Math.floor(piece.offset / 65_536) % Math.max(1, ids.length);
		const rotated = [...ids.slice(turn), ...ids.slice(0, turn)];
		const rank = (id: DiskId): number => (run.damaged.has(id) ? 2 : 0) + (this.#modules.disks.writable(id) ? 0 : 1);
		return rotated.sort((a, b) => rank(a) - rank(b));
	}

	// ── copies: made, mended, checked ────────────────────────────────────────────────────────────────────────────

	/**
	 * Makes the copy of `run` on a disk whole: writes every piece that is not good there from another copy, and syncs what it wrote. "look" only counts; "copy" makes
	 * a new copy, so what is not there is no damage. Adds the disk to `copies` when everything is good. @throws FsError ENOSPC; EIO when the disk failed.
	 */
	async mend(
		run: Run,
		id: DiskId,
		how: MendKind,
		isStopped: () => boolean,
		onGroup: (pieces: number) => void = () => {},
	): Promise<MendReport> {
		const report: MendReport = { checked: 0, corrupt: 0, repaired: 0, unrecoverable: 0 };
		run.users++;
		try {
			if (how !== "copy") await this.#forget(run, id);
			for (const group of groupPieces(run.pieces(), this.#modules.limits.chunkBytes)) {
				if (isStopped()) throw new FsError("ECANCELED", "kv.run-mend-stopped", "checking of runs was stopped");
				await this.#mendGroup(run, id, group, how, report);
				onGroup(group.length);
				await this.#modules.clock.yield();
			}
			if (report.repaired > 0 || how === "copy") await this.#syncCopy(run.info.id, id);
			if (report.unrecoverable === 0 && (how !== "look" || report.corrupt === 0)) {
				run.copies.add(id);
				run.damaged.delete(id);
				this.#knownDamage.delete(fileKey(run.info.id, id));
			}
		} finally {
			run.users--;
			this.onRelease(run);
		}
		return report;
	}

	/** What is checked is read from the disk, not from memory that the host keeps of it. Errors come again with the read. */
	async #forget(run: Run, id: DiskId): Promise<void> {
		try {
			await (await this.#file(run.info.id, id, false))?.uncache(0, run.info.bytes);
		} catch {
			// The read says why.
		}
	}

	async #mendGroup(run: Run, id: DiskId, group: readonly Piece[], how: MendKind, report: MendReport): Promise<void> {
		const here = new Map<Piece, Uint8Array>();
		const first = group[0] as Piece;
		const last = group[group.length - 1] as Piece;
		const bytes = await this.#readRange(run.info.id, id, first.offset, last.offset + last.length - first.offset);
		if (bytes === undefined)
			throw new FsError("EIO", "kv.run-mend", `d${id} cannot be read: ${runFileName(run.info.id)} on it was not checked`);
		for (const piece of group) {
			const part = bytes.subarray(piece.offset - first.offset, piece.offset - first.offset + piece.length);
			if (pieceIsGood(piece, part)) here.set(piece, part);
		}
		const bad = group.filter((piece) => !here.has(piece));
		report.checked += group.length;
		if (bad.length === 0) return;
		if (how !== "copy") {
			report.corrupt += bad.length;
			this.#reportCorrupt(run.info.id, id, bad);
			if (run.copies.has(id)) run.damaged.add(id);
		}
		const good = await this.#goodPieces(run, bad, id);
		report.unrecoverable += bad.length - good.size;
		if (how === "look") return;
		await this.#writePieces(run.info.id, id, bad, good);
		report.repaired += good.size;
		if (how === "copy" && good.size < bad.length) throw lost(run.info.id, bad.find((piece) => !good.has(piece)) as Piece, [...run.copies]);
	}

	/** F2. Neighbours in one write. */
	async #writePieces(runId: number, id: DiskId, pieces: readonly Piece[], good: ReadonlyMap<Piece, Uint8Array>): Promise<void> {
		let parts: Uint8Array[] = [];
		let from = 0;
		let end = 0;
		const flush = async (): Promise<void> => {
			if (parts.length > 0) await this.writeAt(runId, id, from, [concatBytes(parts)]);
			parts = [];
		};
		for (const piece of pieces) {
			const bytes = good.get(piece);
			if (!bytes) continue;
			if (piece.offset !== end) await flush();
			if (parts.length === 0) from = piece.offset;
			parts.push(bytes);
			end = piece.offset + piece.length;
		}
		await flush();
	}

	async #syncCopy(runId: number, id: DiskId): Promise<void> {
		try {
			const file = await this.#file(runId, id, false);
			const disk = this.#modules.disks.clearable(id);
			if (!file || !disk) throw gone(id);
			await file.sync("kv.run-mend");
			await disk.syncNames("kv", "kv.run-mend-name");
		} catch (error) {
			this.report(id, error, "sync");
			throw error;
		}
	}

	// ── one file on one disk ─────────────────────────────────────────────────────────────────────────────────────

	/** An empty file for a new run: what an earlier mount left under that name goes. */
	async createEmpty(runId: number, id: DiskId): Promise<void> {
		try {
			await this.#closeFile(runId, id);
			const file = await this.#file(runId, id, true);
			if (!file) throw gone(id);
			if ((await file.size()) > 0) await file.truncate(0);
		} catch (error) {
			this.report(id, error, "write");
			throw error;
		}
	}

	async writeAt(runId: number, id: DiskId, offset: number, parts: readonly Uint8Array[]): Promise<void> {
		try {
			const file = await this.#file(runId, id, true);
			if (!file || !this.#modules.disks.clearable(id)) throw gone(id);
			await file.write(offset, parts);
		} catch (error) {
			this.report(id, error, "write");
			throw error;
		}
	}

	async syncNew(runId: number, id: DiskId): Promise<void> {
		try {
			const file = await this.#file(runId, id, false);
			const disk = this.#modules.disks.clearable(id);
			if (!file || !disk) throw gone(id);
			await file.sync("kv.run");
			await disk.syncNames("kv", "kv.run-name");
		} catch (error) {
			this.report(id, error, "sync");
			throw error;
		}
	}

	async #file(runId: number, id: DiskId, create: boolean): Promise<DiskFile | undefined> {
		const disk = this.#modules.disks.readable(id);
		if (!disk) return undefined;
		const name = fileKey(runId, id);
		const open = this.#open.get(name);
		if (open?.disk === disk) return open.file;
		const file = disk.open(runFileName(runId), { create });
		this.#open.set(name, { disk, file });
		file.catch(() => {
			if (this.#open.get(name)?.file === file) this.#open.delete(name);
		});
		return file;
	}

	async #closeFile(runId: number, id: DiskId): Promise<void> {
		const name = fileKey(runId, id);
		const open = this.#open.get(name);
		if (!open) return;
		this.#open.delete(name);
		if (this.#modules.disks.readable(id) !== open.disk) return;
		await open.file.then((file) => file.close()).catch(() => {});
	}

	async close(): Promise<void> {
		for (const name of [...this.#open.keys()]) {
			const [id, runId] = name.split("/").map(Number) as [number, number];
			await this.#closeFile(runId, id);
		}
	}

	// ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────

	/** F3. */
	report(id: DiskId, error: unknown, during: keyof DiskErrors): void {
		if (isFsError(error, "ENOSPC")) this.onFull(id);
		if (isFsError(error, "ENOSPC") || isFsError(error, "ECANCELED") || (error instanceof FsError && error.site === "kv.disk-gone")) return;
		this.#modules.disks.report(id, toFsError(error, "kv.disk"), isFsError(error, "ETIMEDOUT") ? "timeout" : during);
	}

	/** Each damage counts once, however often it is read: the disk set judges a disk by the number of its errors. */
	#reportCorrupt(runId: number, id: DiskId, pieces: readonly Piece[]): void {
		const name = fileKey(runId, id);
		const known = this.#knownDamage.get(name) ?? new Set<number>();
		this.#knownDamage.set(name, known);
		const before = known.size;
		for (const piece of pieces) known.add(piece.offset);
		const count = known.size - before;
		if (count === 0) return;
		this.corruptPieces += count;
		const message = `${runFileName(runId)} on d${id}: ${count} parts do not match their checksums; other copies are used, and this one is mended from them`;
		this.#modules.logger.warn(message, { run: runId, disk: id, pieces: count });
		this.#modules.disks.report(id, new FsError("CORRUPT", "kv.run-corrupt", message, { run: runId, disk: id, pieces: count }), "corrupt");
	}

	#noteDamage(run: Run, id: DiskId): void {
		if (!run.copies.has(id) || run.damaged.has(id)) return;
		run.damaged.add(id);
		this.onDamage(run, id);
	}
}

/** Two of a chunk and what it exceeds a chunk by, each rounded up to a power of two. */
const keptChunks = 4;

/** Writes to several disks at once; goes on without those that fail. */
class MirrorSink implements RunSink {
	readonly #files: RunFiles;
	readonly #runId: number;
	live: DiskId[];

	constructor(files: RunFiles, runId: number, targets: readonly DiskId[]) {
		this.#files = files;
		this.#runId = runId;
		this.live = [...targets];
	}

	open(): Promise<void> {
		return this.#onAll((id) => this.#files.createEmpty(this.#runId, id));
	}

	/** From memory that all disks' threads share: each would be sent a copy of its own otherwise. */
	async write(offset: number, parts: readonly Uint8Array[]): Promise<void> {
		const { bytes, release } = this.#files.chunks.take(parts.reduce((sum, part) => sum + part.length, 0)) as Lent;
		let at = 0;
		for (const part of parts) {
			bytes.set(part, at);
			at += part.length;
		}
		const wasLive = this.live.length;
		await this.#onAll((id) => this.#files.writeAt(this.#runId, id, offset, [bytes]));
		// A disk that did not answer in time may still be writing from it.
		if (this.live.length === wasLive) release();
	}

	sync(): Promise<void> {
		return this.#onAll((id) => this.#files.syncNew(this.#runId, id));
	}

	async #onAll(work: (id: DiskId) => Promise<void>): Promise<void> {
		const ids = this.live;
		const results = await Promise.allSettled(ids.map(work));
		const failed = results.filter((result) => result.status === "rejected");
		const full = failed.find((result) => isFsError(result.reason, "ENOSPC"));
		if (full) throw full.reason;
		this.live = ids.filter((_, i) => results[i]?.status === "fulfilled");
		if (this.live.length > 0) return;
		throw new FsError(
			"EIO",
			"kv.run-write",
			"no disk is left that takes the volume's metadata: bring disks back and mount again",
			{},
			failed[0]?.reason,
		);
	}
}

/** Neighbouring pieces of together at most `bytes` (or one larger piece). */
export function* groupPieces(pieces: Iterable<Piece>, bytes: number): Generator<Piece[]> {
	let group: Piece[] = [];
	let size = 0;
	for (const piece of pieces) {
		if (group.length > 0 && size + piece.length > bytes) {
			yield group;
			group = [];
			size = 0;
		}
		assert(
			group.length === 0 || (group[group.length - 1] as Piece).offset + (group[group.length - 1] as Piece).length === piece.offset,
			"U1: no gaps",
		);
		group.push(piece);
		size += piece.length;
	}
	if (group.length > 0) yield group;
}

function fileKey(runId: number, id: DiskId): string {
	return `${id}/${runId}`;
}

function gone(id: DiskId): FsError {
	return new FsError("EIO", "kv.disk-gone", `d${id} is not usable any more`);
}

function lost(runId: number, piece: Piece, copies: readonly DiskId[]): FsError {
	const where = copies.map((id) => `d${id}`).join(", ") || "no disk";
	return new FsError(
		"EIO",
		"kv.run-lost",
		`${runFileName(runId)}: ${piece.length} bytes at ${piece.offset} can be read from no copy (${where}): bring missing disks back, or restore from a backup`,
		{ run: runId, offset: piece.offset },
	);
}
