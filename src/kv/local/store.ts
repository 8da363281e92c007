/**
 * The durable part of the local engine: sorted runs on the manifest disks and the manifest that names them.
 *
 * Invariants
 *  S1 A manifest is written only when every run that it names has a synced copy on every disk that the manifest goes to.
 *  S2 `homes` are the disks that hold the newest manifest and all runs. When they differ from the roster's manifestDisks, the roster is changed before anything
 *     that an older manifest needs is given up.
 *  S3 Runs leave the disks, and the log is cut, only after a manifest without them, or covering it, is durable on all homes.
 *  S4 Runs are ordered newest first; a merge replaces neighbours and stands in their place.
 *  S5 Edits of the manifest happen one at a time.
 *  S6 A generation is used for one manifest only; the slot with the newest manifest that is durable everywhere is not overwritten.
 *  S7 A run that a manifest names which only some disks have got leaves the disks when a later manifest without it is durable on all homes.
 *  S8 A disk that holds the newest durable manifest is never emptied: while homes are tried that turn out to be full, those of before hold everything.
 */
import { assert } from "../../base/assert.ts";
import { Mutex } from "../../base/async.ts";
import { LruCache } from "../../base/bounded.ts";
import { latin1ToUtf8 } from "../../base/bytes.ts";
import { FsError, isFsError, toFsError } from "../../base/errors.ts";
import type { Logger } from "../../base/telemetry.ts";
import type { DiskId, DiskSet, Roster } from "../../log/interface.ts";
import type { Clock } from "../../platform/interface.ts";
import type { LocalLimits } from "../limits.ts";
import type { Block } from "./block.ts";
import { encodeManifest, type Manifest, type RunInfo } from "./manifest.ts";
import { ManifestFile, manifestFileName, readManifestSlots, type SlotsFound } from "./manifest-disk.ts";
import type { BlockSource, Run, RunWriter } from "./run.ts";
import { blockFromSection, runFileName, runIdOf } from "./run.ts";
import { type MendReport, RunFiles } from "./run-files.ts";
import { spareBytes, spareFileName, SpareSpace } from "./spare.ts";
import type { Wanted } from "./read-view.ts";

export interface StoreModules {
	readonly clock: Clock;
	readonly disks: DiskSet;
	readonly logger: Logger;
	readonly limits: LocalLimits;
	/** W healthy disks of distinct domains, the log's members preferred, without those in `except`. */
	chooseMembers(except?: ReadonlySet<DiskId>): readonly DiskId[];
}

export interface VerifyReport extends MendReport {
	/** Copies that could not be read at all. */
	unchecked: number;
}

export interface VerifyProgress {
	/** Pieces (blocks, filters, headers) and manifest slots. */
	readonly checked: number;
	readonly total: number;
}

export interface Edit {
	/** Neighbours in the order of age. */
	readonly remove: readonly Run[];
	readonly add: Run | undefined;
	/** Log sequence that the runs cover afterwards; undefined = as before. */
	readonly covered: number | undefined;
	/** Called synchronously with the change of `runs`. */
	readonly onDone: () => void;
}

/** A file on a disk of the volume, as `Disk.open` names it. */
export interface StrayFile {
	readonly disk: DiskId;
	readonly name: string;
}

export class RunStore {
	readonly #modules: StoreModules;
	readonly #files: RunFiles;
	readonly spare: SpareSpace;
	readonly #edits = new Mutex();
	readonly #cache: LruCache<number, Block>;
	readonly #loading = new Map<number, Promise<Block>>();
	readonly #manifests = new Map<DiskId, ManifestFile>();
	readonly #keptSlots = new Map<DiskId, number>();
	/** Disks that had no space for metadata. */
	readonly #full = new Set<DiskId>();
	/** Homes that are being emptied. */
	readonly #leaving = new Set<DiskId>();
	#incoming: readonly DiskId[] = [];
	#homes: readonly DiskId[] = [];
	/** S8: disks that hold the newest manifest that is durable, and all its runs. */
	#holders: readonly DiskId[] = [];
	#runs: readonly Run[] = [];
	/** S7: of edits that failed at their manifest. */
	readonly #doubtful: Run[] = [];
	#generation = 0;
	/** Of the newest manifest that all homes have: an attempt that found no space has a generation too, and nobody may be told to look for it. */
	#written = 0;
	#covered = 0;
	#nextRunId = 1;
	#mends: { readonly run: Run; readonly id: DiskId }[] = [];
	#mending: Promise<void> = Promise.resolve();
	#stopping = false;
	readonly #retiring = new Set<Promise<void>>();
	/** Runs that are being written and not installed yet, or are retired and not removed: no manifest names them. */
	readonly #inHand = new Set<number>();
	/** Set when no manifest can be written any more. */
	broken: FsError | undefined;

	constructor(modules: StoreModules) {
		this.#modules = modules;
		this.#files = new RunFiles(modules);
		this.spare = new SpareSpace(modules);
		this.#cache = new LruCache(modules.limits.cacheBytes);
		this.#files.onDamage = (run, id) => this.#mendSoon(run, id);
		this.#files.onFull = (id) => this.#full.add(id);
		this.#files.onRelease = (run) => this.#removeWhenUnused(run);
	}

	/** Newest first. */
	get runs(): readonly Run[] {
		return this.#runs;
	}

	get covered(): number {
		return this.#covered;
	}

	/** Of the manifest that lies on the homes. */
	get generation(): number {
		return this.#written;
	}

	get homes(): readonly DiskId[] {
		return this.#homes;
	}

	get corruptPieces(): number {
		return this.#files.corruptPieces;
	}

	get #volume(): string {
		return this.#modules.disks.roster.volume;
	}

	// ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────

	/**
	 * Finds the newest manifest of the roster's manifest disks and opens its runs.
	 * @throws FsError EIO `kv.manifest-lost`, `kv.run-lost`; REFUSED (a newer format).
	 */
	async load(): Promise<void> {
		const { roster } = this.#modules.disks;
		const found = await this.#readAllManifests();
		const best = newest(found, countingHomes(roster));
		if (best === undefined || best.generation < roster.manifestGeneration) {
			if (roster.manifestGeneration > 0) throw manifestLost(roster, best);
		}
		const manifests = [...found.values()].flatMap((slots) => slots.slots.filter((slot) => slot !== undefined));
		this.#generation = manifests.reduce((most, manifest) => Math.max(most, manifest.generation), 0);
		this.#nextRunId = manifests.reduce((most, manifest) => Math.max(most, manifest.nextRunId), 1);
		if (best === undefined) return;
		this.#written = best.generation;
		const homes = countingHomes(roster).filter((id) => found.has(id));
		// Only who has this manifest is known to have all its runs (S1); the others are completed by `establish`.
		const holders = homes.filter((id) => found.get(id)?.slots.some((slot) => slot?.generation === best.generation));
		const others = homes.filter((id) => !holders.includes(id));
		this.#covered = best.covered;
		this.#homes = homes;
		this.#holders = homes;
		for (const id of homes) this.#keptSlots.set(id, keptSlot(found.get(id) as SlotsFound));
		const runs: Run[] = [];
		for (const info of best.runs) runs.push(await this.#files.openRun(info, this.#volume, holders, others));
		this.#runs = runs;
	}

	async #readAllManifests(): Promise<Map<DiskId, SlotsFound>> {
		const { disks, logger, limits } = this.#modules;
		const found = new Map<DiskId, SlotsFound>();
		await Promise.all(
			disks.slots().map(async ({ id }) => {
				const disk = disks.readable(id);
				if (!disk) return;
				try {
					const slots = await readManifestSlots(disk, this.#volume, limits.manifestSlotBytes);
					found.set(id, slots);
					if (slots.damaged > 0 && countingHomes(disks.roster).includes(id)) {
						logger.warn(`${slots.damaged} slots of the manifest on d${id} are damaged; it is written anew`, { disk: id });
						disks.report(
							id,
							new FsError("CORRUPT", "kv.manifest-corrupt", `manifest on d${id}: ${slots.damaged} damaged slots`),
							"corrupt",
						);
					}
				} catch (error) {
					if (isFsError(error, "REFUSED")) throw error;
					this.#files.report(id, error, "read");
				}
			}),
		);
		return found;
	}

	/**
	 * The first manifest of this mount: on freshly chosen homes, named by the roster.
	 * `covered`: what the runs (with those written since `load`) cover.
	 */
	async establish(covered: number): Promise<void> {
		await this.#edits.run(async () => {
			await this.untilDisksHold(async () => {
				await this.chooseHomes();
				await this.#ensureCopies(this.#runs, this.#writableHomes());
				await this.#writeManifest(this.#runs, covered, true);
			});
		});
	}

	/** Why a mount finds no space: what it could not write, and where. */
	mountSpace(error: FsError): FsError {
		const full = [...this.#full].sort((a, b) => a - b);
		const where = full.map((id) => `d${id} (${latin1ToUtf8(this.#modules.disks.slot(id)?.path ?? "")})`).join(", ");
		const message = `a mount has to write down what the log holds, and there is no space on ${where || "the disks"} (${error.message}): free space there, and mount again`;
		return new FsError("ENOSPC", "kv.mount-space", message, { disks: full }, error);
	}

	/** While mounting: tries again while failures take disks away, or show that they are full. Each does so for good; a full one first gives up what it has to spare. */
	async untilDisksHold<T>(work: () => Promise<T>): Promise<T> {
		const { disks } = this.#modules;
		const usable = (): number => disks.slots().filter(({ id }) => disks.writable(id) && !this.#full.has(id)).length;
		for (;;) {
			const before = usable();
			try {
				return await work();
			} catch (error) {
				if (this.broken) throw error;
				const gave = isFsError(error, "ENOSPC") ? await this.spare.giveUp(this.#full) : [];
				for (const id of gave) this.#full.delete(id);
				if (gave.length === 0 && usable() >= before) throw error;
			}
		}
	}

	/**
	 * Where the metadata should be: a disk without space gives its place to one that has some. Where there is none, a disk that is to leave keeps it for now; else one copy less (which is told) is better than no change of
	 * anything; where even that cannot be had, what is there stays, and changes have to wait for space.
	 */
	wantedHomes(): readonly DiskId[] {
		const all = this.#modules.chooseMembers();
		if (this.#full.size === 0) return all;
		const roomy = this.#modules.chooseMembers(this.#full);
		const homes = this.#writableHomes();
		if (roomy.length >= all.length) return roomy;
		if (homes.filter((id) => !this.#full.has(id)).length >= all.length) return homes;
		const enough = enoughOf(all);
		if (roomy.length >= enough) return roomy;
		return homes.length >= enough ? this.#homes : all;
	}

	/** Disks that had no space and have some now may be homes again: for all of the metadata and twice what is spare, or it would go back and forth. */
	async lookForRoom(): Promise<void> {
		const { disks, limits } = this.#modules;
		const runsBytes = this.#runs.reduce((sum, run) => sum + run.info.bytes, 0);
		const neededBytes = runsBytes + 2 * spareBytes(limits, disks.roster.config);
		for (const id of [...this.#full]) {
			const disk = disks.writable(id);
			const space = await disk?.space().catch(() => undefined);
			// One that is away is looked at when it is back.
			if (disk === undefined || (space !== undefined && space.freeBytes >= neededBytes)) this.#full.delete(id);
		}
	}

	/** Removes what no manifest names: after a crash, and on disks that are homes no more. */
	async removeOrphans(): Promise<void> {
		const { disks } = this.#modules;
		const named = new Set(this.#runs.map((run) => run.info.id));
		for (const { id } of disks.slots()) {
			const disk = disks.clearable(id);
			if (!disk) continue;
			try {
				if (!this.#homes.includes(id)) await this.#leaveHome(id);
				else
					for (const name of await disk.list("kv"))
						if (!named.has(runIdOf(name) ?? -1) && runIdOf(name) !== undefined) await disk.remove(`kv/${name}`);
			} catch (error) {
				this.#files.report(id, error, "write");
			}
		}
	}

	// ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

	/** Blocks in memory. `pins` hold what a read in progress has loaded, so that it makes progress whatever the cache drops. */
	source(pins?: ReadonlyMap<number, Block>): BlockSource {
		return (run, block) => {
			const id = blockId(run, block);
			return pins?.get(id) ?? this.#cache.get(id);
		};
	}

	/** Brings blocks into memory, and into `pins`. @throws FsError EIO `kv.run-lost`. */
	async loadBlocks(wanted: readonly Wanted[], pins: Map<number, Block>): Promise<void> {
		const work = wanted.map((one) => this.#loadBlocks(one.run, one.block, one.count, pins));
		for (const result of await Promise.allSettled(work)) if (result.status === "rejected") throw result.reason;
	}

	async #loadBlocks(run: Run, first: number, count: number, pins: Map<number, Block>): Promise<void> {
		const numbers: number[] = [];
		const running: Promise<void>[] = [];
		for (let block = first; block < first + count; block++) {
			const id = blockId(run, block);
			const cached = this.#cache.get(id);
			const loading = this.#loading.get(id);
			if (cached) pins.set(id, cached);
			else if (loading) running.push(loading.then((loaded) => void pins.set(id, loaded)));
			else numbers.push(block);
		}
		for (const group of neighbours(numbers)) running.push(this.#loadGroup(run, group, pins));
		for (const result of await Promise.allSettled(running)) if (result.status === "rejected") throw result.reason;
	}

	async #loadGroup(run: Run, numbers: readonly number[], pins: Map<number, Block>): Promise<void> {
		const pieces = numbers.map((block) => run.blockPiece(block));
		const read = this.#files.readPieces(run, pieces);
		const blocks = numbers.map(async (number, i) => {
			const bytes = (await read)[i] as Uint8Array;
			const own = numbers.length === 1 ? bytes : bytes.slice();
			return blockFromSection(own, `block ${number} of ${runFileName(run.info.id)}`);
		});
		for (const [i, number] of numbers.entries()) this.#remember(blockId(run, number), blocks[i] as Promise<Block>);
		for (const [i, number] of numbers.entries()) pins.set(blockId(run, number), await (blocks[i] as Promise<Block>));
	}

	#remember(id: number, loading: Promise<Block>): void {
		this.#loading.set(id, loading);
		loading.then(
			(block) => {
				this.#loading.delete(id);
				this.#cache.set(id, block, block.cost);
			},
			() => this.#loading.delete(id),
		);
	}

	/** Data blocks one after the other, past the cache, for merges. */
	async readThrough(run: Run, first: number, count: number): Promise<Block[]> {
		const pieces = Array.from({ length: Math.min(count, run.blockCount - first) }, (_, i) => run.blockPiece(first + i));
		const bytes = await this.#files.readPieces(run, pieces);
		return bytes.map((one, i) => blockFromSection(one, `block ${first + i} of ${runFileName(run.info.id)}`));
	}

	// ── changing ─────────────────────────────────────────────────────────────────────────────────────────────────

	/** Writes a run on all homes; it counts only when an edit names it. Undefined when `fill` added nothing. @throws FsError ENOSPC, EIO. */
	async writeRun(level: number, expectedEntries: number, fill: (writer: RunWriter) => Promise<void>): Promise<Run | undefined> {
		this.#throwIfBroken();
		const targets = this.#writableHomes();
		if (targets.length === 0) throw this.#break(noHomes(undefined));
		const id = this.#nextRunId++;
		this.#inHand.add(id);
		let run: Run | undefined;
		try {
			run = await this.#files.write({ id, level, volume: this.#volume, expectedEntries }, targets, fill);
			return run;
		} finally {
			if (run === undefined) this.#inHand.delete(id);
		}
	}

	/** While mounting: the run stands in memory, and `establish` will name it. */
	adopt(run: Run): void {
		this.#inHand.delete(run.info.id);
		this.#runs = [run, ...this.#runs];
	}

	/** While mounting, before any home is known: where new runs go. */
	async chooseHomes(): Promise<void> {
		const all = this.wantedHomes();
		if (all.length === 0) throw noHomes(undefined);
		// One copy less is better than no mount: what is missing is copied when there is space, and told meanwhile.
		const roomy = all.filter((id) => !this.#full.has(id));
		const wanted = roomy.length >= Math.max(1, this.#modules.chooseMembers().length - 1) ? roomy : all;
		for (const id of wanted) if (!this.#homes.includes(id) && !this.#holders.includes(id)) await this.#prepareHome(id);
		this.#homes = wanted;
	}

	/** Makes an edit durable on all homes. @throws FsError ENOSPC (nothing changed, `add` is removed), EIO. */
	async install(edit: Edit): Promise<void> {
		await this.#edits.run(async () => {
			this.#throwIfBroken();
			const runs = this.#edited(edit);
			try {
				if (edit.add) await this.#ensureCopies([edit.add], this.#writableHomes());
			} catch (error) {
				if (edit.add) {
					await this.#files.remove(edit.add, [...this.#homes, ...this.#incoming]);
					this.#inHand.delete(edit.add.info.id);
				}
				throw error;
			}
			// S7: when this fails, some disk's newest manifest may name the run all the same.
			if (edit.add) this.#doubtful.push(edit.add);
			await this.#writeManifest(runs, edit.covered ?? this.#covered, false);
			this.#runs = runs;
			if (edit.add) {
				await this.#removeStrays(edit.add);
				this.#inHand.delete(edit.add.info.id);
			}
			edit.onDone();
			for (const run of edit.remove) this.#retire(run);
		});
	}

	/** Copies on disks that ceased to be homes while the run was written. */
	async #removeStrays(run: Run): Promise<void> {
		const strays = [...run.copies].filter((id) => !this.#homes.includes(id) && !this.#incoming.includes(id));
		await this.#files.removeCopies(run, strays);
	}

	/** S4. */
	#edited(edit: Edit): readonly Run[] {
		const at = edit.remove.length === 0 ? 0 : this.#runs.indexOf(edit.remove[0] as Run);
		for (const [i, run] of edit.remove.entries()) assert(this.#runs[at + i] === run, "S4: a merge replaces neighbours");
		const runs = this.#runs.filter((run) => !edit.remove.includes(run));
		return edit.add ? [...runs.slice(0, at), edit.add, ...runs.slice(at)] : runs;
	}

	/** S1, S2, S6. The caller holds the edit lock. */
	async #writeManifest(runs: readonly Run[], covered: number, isFirst: boolean): Promise<void> {
		const { disks } = this.#modules;
		// S6: used up even when only some disks get it.
		const generation = ++this.#generation;
		const manifest: Manifest = {
			generation,
			incarnation: disks.roster.incarnation,
			covered,
			nextRunId: this.#nextRunId,
			runs: runs.map((run) => run.info),
		};
		const reached = await this.#writeEverywhere(encodeManifest(manifest, this.#volume), runs);
		if (reached.length === 0) throw this.#break(noHomes(disks.broken));
		for (const id of reached) this.#manifests.get(id)?.advance();
		this.#written = generation;
		// A disk may have failed since its write.
		this.#homes = reached.filter((id) => disks.clearable(id));
		this.#holders = this.#homes;
		this.#covered = covered;
		for (const run of this.#doubtful.splice(0)) if (!runs.includes(run)) this.#retire(run);
		if (isFirst || !sameDisks(reached, disks.roster.manifestDisks)) await this.#nameHomes(reached, generation);
		await disks.settled();
	}

	/**
	 * Returns the disks that have it durably. A disk without space (its file system copies on write, or its manifest file went away) fails the edit instead of holding it up: whoever waits for
	 * the edit is told, metadata may move to another disk, and the edit is tried again. @throws FsError ENOSPC.
	 */
	async #writeEverywhere(bytes: Uint8Array, runs: readonly Run[]): Promise<readonly DiskId[]> {
		const targets = this.#writableHomes();
		for (const run of runs) for (const id of targets) assert(run.copies.has(id), "S1: a manifest names a run that a home lacks");
		const results = await Promise.allSettled(targets.map((id) => this.#writeSlot(id, bytes)));
		const full = targets.filter((_, i) => isFsError(refusal(results[i]), "ENOSPC"));
		if (full.length === 0) return targets.filter((_, i) => results[i]?.status === "fulfilled");
		const where = full.map((id) => `d${id}`).join(", ");
		throw new FsError("ENOSPC", "kv.manifest-space", `no space for the manifest on ${where}: free space there or add a disk`, {
			disks: full,
		});
	}

	async #writeSlot(id: DiskId, bytes: Uint8Array): Promise<void> {
		try {
			const file = await this.#manifestFile(id);
			await file.write(bytes);
		} catch (error) {
			this.#files.report(id, error, "write");
			throw error;
		}
	}

	async #manifestFile(id: DiskId): Promise<ManifestFile> {
		const disk = this.#modules.disks.clearable(id);
		if (!disk) throw new FsError("EIO", "kv.disk-gone", `d${id} is not usable any more`);
		const open = this.#manifests.get(id);
		if (open?.disk === disk) return open;
		const file = await ManifestFile.open(disk, this.#modules.limits.manifestSlotBytes, this.#keptSlots.get(id) ?? 1);
		this.#manifests.set(id, file);
		return file;
	}

	async #nameHomes(homes: readonly DiskId[], generation: number): Promise<void> {
		try {
			await this.#modules.disks.changeRoster(`metadata on ${homes.map((id) => `d${id}`).join(", ")}`, (roster) => ({
				...roster,
				manifestDisks: homes,
				manifestGeneration: generation,
			}));
		} catch (error) {
			throw this.#break(toFsError(error, "kv.manifest-roster"));
		}
	}

	async #ensureCopies(runs: readonly Run[], homes: readonly DiskId[]): Promise<void> {
		for (const run of runs) {
			for (const id of homes) if (!run.copies.has(id) && this.#modules.disks.clearable(id)) await this.#copy(run, id);
		}
	}

	/** A disk that fails meanwhile is reported and simply stays without the copy. @throws FsError ENOSPC, EIO when no good copy is left. */
	async #copy(run: Run, id: DiskId): Promise<void> {
		try {
			await this.#files.mend(run, id, "copy", () => this.#stopping);
		} catch (error) {
			if (this.#modules.disks.clearable(id)) throw error;
		}
	}

	// ── homes ────────────────────────────────────────────────────────────────────────────────────────────────────

	/** The disk is gone; should it come back it is empty until it was copied to again. */
	dropDisk(id: DiskId): void {
		this.#homes = this.#homes.filter((home) => home !== id);
		this.#holders = this.#holders.filter((holder) => holder !== id);
		for (const run of this.#runs) run.copies.delete(id);
		this.#manifests.delete(id);
		this.#keptSlots.delete(id);
		this.spare.forget(id);
	}

	/** A disk that is to leave counts until the metadata has moved: what is written meanwhile would have a copy less. */
	#writableHomes(): readonly DiskId[] {
		return this.#homes.filter((id) => this.#modules.disks.clearable(id) !== undefined);
	}

	/** True when the metadata is on as many disks as it should be. */
	get complete(): boolean {
		return sameDisks(this.#homes, this.wantedHomes());
	}

	/**
	 * Moves runs and manifest to the disks that should have them. The bulk is copied while flushes and merges go on; only the last runs are copied under the edit
	 * lock. @throws FsError ENOSPC (a later try goes on), EIO.
	 */
	async relocate(): Promise<void> {
		const rounds = this.#modules.disks.slots().length + 2;
		for (let round = 0; round < rounds && !this.complete && !this.#stopping; round++) {
			this.#throwIfBroken();
			const wanted = this.wantedHomes();
			if (wanted.length === 0) return;
			await this.#relocateTo(wanted);
		}
	}

	async #relocateTo(wanted: readonly DiskId[]): Promise<void> {
		const { disks } = this.#modules;
		this.#incoming = wanted.filter((id) => !this.#homes.includes(id));
		try {
			for (const id of this.#incoming) if (!(await this.#prepareIncoming(id))) return;
			for (const run of this.#runs) if (!run.retired) await this.#ensureCopies([run], this.#incoming);
			await this.#mendBeforeLeaving(wanted);
			await this.#edits.run(async () => {
				this.#throwIfBroken();
				const usable = wanted.filter((id) => disks.writable(id));
				await this.#ensureCopies(this.#runs, usable);
				const before = this.#homes;
				const complete = usable.filter((id) => this.#runs.every((run) => run.copies.has(id)));
				if (complete.length === 0) return;
				this.#homes = complete;
				try {
					await this.#writeManifest(this.#runs, this.#covered, false);
				} catch (error) {
					if (isFsError(error, "ENOSPC")) this.#homes = before.filter((id) => disks.clearable(id));
					throw error;
				}
				for (const id of before) if (!this.#homes.includes(id)) await this.#leaveHome(id);
				this.#modules.logger.info(`metadata is on ${this.#homes.map((id) => `d${id}`).join(", ")}`);
			});
		} finally {
			this.#incoming = [];
		}
	}

	/** A disk that is left, but still readable, may have the only good copy of something: what stays is made whole first. */
	async #mendBeforeLeaving(staying: readonly DiskId[]): Promise<void> {
		const isLeaving = this.#homes.some((id) => !staying.includes(id) && this.#modules.disks.readable(id));
		if (!isLeaving) return;
		for (const run of this.#runs) {
			for (const id of staying) {
				if (run.retired || !run.copies.has(id) || !this.#modules.disks.writable(id)) continue;
				await this.#files.mend(run, id, "mend", () => this.#stopping);
			}
		}
	}

	/** False when the disk failed meanwhile. */
	async #prepareIncoming(id: DiskId): Promise<boolean> {
		try {
			await this.#prepareHome(id);
			return true;
		} catch (error) {
			if (this.#modules.disks.writable(id)) throw error;
			return false;
		}
	}

	/** What an earlier life left there is worth nothing: no roster names this disk. */
	async #prepareHome(id: DiskId): Promise<void> {
		try {
			await this.#emptyHome(id);
			this.#keptSlots.delete(id);
			await this.#manifestFile(id);
		} catch (error) {
			this.#files.report(id, error, "write");
			throw error;
		}
	}

	async #emptyHome(id: DiskId): Promise<void> {
		assert(!this.#holders.includes(id), "S8: what holds the metadata is not emptied");
		const disk = this.#modules.disks.clearable(id);
		if (!disk) throw new FsError("EIO", "kv.disk-gone", `d${id} is not usable any more`);
		// A move that was tried before may have copied runs there: they go now, and must not be counted on.
		for (const run of this.#runs) run.copies.delete(id);
		await this.#manifests.get(id)?.close();
		this.#manifests.delete(id);
		for (const name of await disk.list("kv")) {
			const runId = runIdOf(name);
			// Who has a run in hand sees to its files: taking one away beneath its writer would look like a failure of the disk.
			if (runId !== undefined && this.#inHand.has(runId)) continue;
			if (runId !== undefined) await this.#files.removeFile(runId, id, disk);
			else if (otherFiles.has(`kv/${name}`)) await disk.remove(`kv/${name}`);
		}
		this.spare.forget(id);
	}

	/** Until it is done what lies there is no garbage that somebody else would have to find. */
	async #leaveHome(id: DiskId): Promise<void> {
		this.#leaving.add(id);
		await this.#emptyHome(id).catch((error: unknown) => this.#files.report(id, error, "write"));
		this.#leaving.delete(id);
	}

	// ── retired runs, damaged copies ─────────────────────────────────────────────────────────────────────────────

	#retire(run: Run): void {
		run.retired = true;
		this.#inHand.add(run.info.id);
		this.#removeWhenUnused(run);
	}

	#removeWhenUnused(run: Run): void {
		if (!run.retired || run.removed || run.users > 0) return;
		run.removed = true;
		const work = this.#files.remove(run, [...run.copies, ...this.#homes, ...this.#incoming]).finally(() => {
			this.#retiring.delete(work);
			this.#inHand.delete(run.info.id);
		});
		this.#retiring.add(work);
	}

	// ── what nobody names ────────────────────────────────────────────────────────────────────────────────────────

	/** Files of ours that neither a manifest names nor somebody has in hand: what could not be removed when its time came. Disks that fail just now are left out. */
	async strays(): Promise<StrayFile[]> {
		const found: StrayFile[] = [];
		for (const { id } of this.#modules.disks.slots()) {
			const disk = this.#modules.disks.clearable(id);
			for (const name of disk === undefined ? [] : await disk.list("kv").catch(() => []))
				if (this.#isStray(id, name)) found.push({ disk: id, name: `kv/${name}` });
		}
		return found;
	}

	/** False: it is needed now, or its disk is away. */
	removeStray({ disk: id, name: path }: StrayFile): Promise<boolean> {
		return this.#edits.run(async () => {
			const disk = this.#modules.disks.clearable(id);
			const name = path.slice("kv/".length);
			if (disk === undefined || !this.#isStray(id, name)) return false;
			const runId = runIdOf(name);
			if (runId === undefined) await disk.remove(path);
			else await this.#files.removeFile(runId, id, disk);
			return true;
		});
	}

	#isStray(disk: DiskId, name: string): boolean {
		const isHome = this.#leaving.has(disk) || [this.#homes, this.#incoming, this.#holders].some((ids) => ids.includes(disk));
		const runId = runIdOf(name);
		if (runId === undefined) return !isHome && otherFiles.has(`kv/${name}`) && !this.#manifests.has(disk);
		if (this.#inHand.has(runId) || this.#doubtful.some((run) => run.info.id === runId)) return false;
		const run = this.#runs.find((one) => one.info.id === runId);
		return run === undefined || (!isHome && !run.copies.has(disk));
	}

	#mendSoon(run: Run, id: DiskId): void {
		if (this.#stopping || this.#mends.some((one) => one.run === run && one.id === id)) return;
		this.#mends.push({ run, id });
		if (this.#mends.length === 1) this.#mending = this.#mendAll();
	}

	async #mendAll(): Promise<void> {
		for (let next = this.#mends[0]; next !== undefined; next = this.#mends[0]) {
			const { run, id } = next;
			try {
				if (!run.retired && !this.#stopping) await this.#files.mend(run, id, "mend", () => this.#stopping);
			} catch (error) {
				this.#modules.logger.warn(`the damaged copy of ${runFileName(run.info.id)} on d${id} could not be mended: ${String(error)}`);
			}
			this.#mends.shift();
		}
	}

	/** Reads every piece of every copy, mends what is damaged, and writes damaged manifest slots anew. */
	async verify(repair: boolean, onProgress: (progress: VerifyProgress) => void): Promise<VerifyReport> {
		const report: VerifyReport = { checked: 0, corrupt: 0, repaired: 0, unrecoverable: 0, unchecked: 0 };
		await this.#mending;
		const runs = this.#runs;
		for (const run of runs) run.users++;
		try {
			const total = runs.reduce((sum, run) => sum + run.copies.size * (run.blockCount + runPiecesBesideBlocks), 2 * this.#homes.length);
			let checked = 0;
			const progress = (count: number): void => {
				checked = Math.min(total, checked + count);
				onProgress({ checked, total });
			};
			for (const run of runs) await this.#verifyRun(run, repair, report, progress);
			await this.#verifySlots(repair, report);
			progress(2 * this.#homes.length);
		} finally {
			for (const run of runs) {
				run.users--;
				this.#removeWhenUnused(run);
			}
		}
		return report;
	}

	async #verifyRun(run: Run, repair: boolean, report: VerifyReport, progress: (count: number) => void): Promise<void> {
		const copies = [...run.copies];
		// What one copy lacks for good all lack: a piece counts once.
		let unrecoverable = copies.length === 0 ? run.blockCount + runPiecesBesideBlocks : 0;
		for (const id of copies) {
			const how = repair && this.#modules.disks.writable(id) ? "mend" : "look";
			try {
				const found = await this.#files.mend(run, id, how, () => this.#stopping, progress);
				report.checked += found.checked;
				report.corrupt += found.corrupt;
				report.repaired += found.repaired;
				unrecoverable = Math.max(unrecoverable, found.unrecoverable);
			} catch (error) {
				if (isFsError(error, "ECANCELED")) throw error;
				report.unchecked++;
				this.#modules.logger.warn(`${runFileName(run.info.id)} on d${id} could not be checked: ${String(error)}`);
			}
		}
		report.unrecoverable += unrecoverable;
	}

	async #verifySlots(repair: boolean, report: VerifyReport): Promise<void> {
		await this.#edits.run(async () => {
			let damaged = 0;
			for (const id of this.#writableHomes()) {
				const found = await this.#damagedSlots(id);
				damaged += found ?? 0;
				if (found === undefined) report.unchecked++;
			}
			report.checked += 2 * this.#homes.length;
			report.corrupt += damaged;
			if (damaged === 0 || !repair) return;
			// Two manifests write both slots.
			for (let slot = 0; slot < 2; slot++) await this.#writeManifest(this.#runs, this.#covered, false);
			report.repaired += damaged;
		});
	}

	/** Undefined: the disk does not say. */
	async #damagedSlots(id: DiskId): Promise<number | undefined> {
		try {
			const found = await (await this.#manifestFile(id)).read(this.#volume);
			const holdsNewest = found.slots.some((slot) => (slot?.generation ?? 0) >= this.#written);
			const damaged = Math.max(found.damaged, holdsNewest ? 0 : 1);
			if (damaged > 0)
				this.#modules.disks.report(
					id,
					new FsError("CORRUPT", "kv.manifest-rot", `manifest on d${id}: ${damaged} damaged slots`),
					"corrupt",
				);
			return damaged;
		} catch (error) {
			this.#files.report(id, error, "read");
			return undefined;
		}
	}

	// ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────

	/** Bytes of runs and manifest on a disk. */
	bytesOn(id: DiskId): number {
		const runs = this.#runs.reduce((sum, run) => sum + (run.copies.has(id) ? run.info.bytes : 0), 0);
		return runs + (this.#homes.includes(id) ? 2 * this.#modules.limits.manifestSlotBytes : 0);
	}

	/** Background work ends at its next step. */
	stop(): void {
		this.#stopping = true;
	}

	/** Ends background work and closes files. What is durable stays as it is. */
	async close(): Promise<void> {
		this.#stopping = true;
		await this.#mending;
		while (this.#retiring.size > 0) await Promise.allSettled(this.#retiring);
		await this.#edits.run(async () => {
			await this.#files.close();
			for (const [id, file] of this.#manifests) if (this.#modules.disks.readable(id) === file.disk) await file.close();
		});
	}

	#throwIfBroken(): void {
		if (this.broken) throw this.broken;
	}

	#break(error: FsError): FsError {
		this.broken ??= error;
		return error;
	}
}

/** Copies of the metadata that changes are taken with where no disk is left for one more: two at least, or the next loss would take everything. */
const enoughOf = (all: readonly DiskId[]): number => Math.max(Math.min(2, all.length), all.length - 1);

/** What a home has beside runs. */
const otherFiles: ReadonlySet<string> = new Set([manifestFileName, spareFileName]);

/** Header, index, filter, footer. */
const runPiecesBesideBlocks = 4;

function blockId(run: Run, block: number): number {
	return run.info.id * 0x100_0000 + block;
}

function neighbours(numbers: readonly number[]): number[][] {
	const groups: number[][] = [];
	for (const number of numbers) {
		const group = groups[groups.length - 1];
		if (group && group[group.length - 1] === number - 1) group.push(number);
		else groups.push([number]);
	}
	return groups;
}

/** Disks whose manifest counts: named by the roster, and in. */
function countingHomes(roster: Roster): readonly DiskId[] {
	return roster.manifestDisks.filter((id) => roster.disks.find((disk) => disk.id === id)?.membership === "in");
}

function newest(found: ReadonlyMap<DiskId, SlotsFound>, homes: readonly DiskId[]): Manifest | undefined {
	let best: Manifest | undefined;
	for (const id of homes) {
		for (const slot of found.get(id)?.slots ?? []) if (slot && slot.generation > (best?.generation ?? 0)) best = slot;
	}
	return best;
}

function keptSlot(found: SlotsFound): number {
	const [first, second] = found.slots;
	if (!first && !second) return 1;
	return (first?.generation ?? 0) >= (second?.generation ?? 0) ? 0 : 1;
}

function refusal(result: PromiseSettledResult<unknown> | undefined): unknown {
	return result?.status === "rejected" ? (result.reason as unknown) : undefined;
}

export function sameDisks(a: readonly DiskId[], b: readonly DiskId[]): boolean {
	return a.length === b.length && a.every((id) => b.includes(id));
}

function manifestLost(roster: Roster, best: Manifest | undefined): FsError {
	const where = roster.manifestDisks.map((id) => `d${id}`).join(", ");
	return new FsError(
		"EIO",
		"kv.manifest-lost",
		`no manifest of generation ${roster.manifestGeneration} or later can be read on ${where}${best ? ` (newest: ${best.generation})` : ""}: bring missing disks back`,
		{ wanted: roster.manifestGeneration, found: best?.generation },
	);
}

function noHomes(cause: unknown): FsError {
	return new FsError(
		"EIO",
		"kv.no-manifest-disk",
		"no healthy disk is left for the volume's metadata: bring disks back and mount again",
		{},
		cause,
	);
}

export type { RunInfo };
