/**
 * Protection by path: says how a file, a directory or the whole volume is to be protected, tells what lies below, and rewrites what is protected in another way.
 *
 * Invariants
 *  T1 Whoever asks for another protection leaves a conversion record in the same transaction; it goes when everything below has been told and rewritten. A mount goes on with it.
 *  T2 An inode that was asked for itself (protectionFrom = its own number) keeps its answer whatever is asked for above it.
 *  T3 Contents lie in full in their old segment until the new one is durable. Nothing is rewritten while the disks could only hold it with less protection than it has now and than is asked for.
 *  T4 What is being asked for is converted only when it is written down: whoever looked before would find nothing to do.
 *  T5 A chunk that several files share lies in the segment of the one that asks for the most: it is rewritten only when this file alone refers to it, or asks for more.
 *  T6 Compaction may move contents from one segment of the old kind into another meanwhile: a part of a file is done when it shows no such segment that was not tried.
 */
import { FsError, isFsError, toFsError } from "../../base/errors.ts";
import { mirrorCount } from "../../log/roster.ts";
import { readdir } from "../../namespace/verbs.ts";
import type { Ino, Inode, RecordTransaction, VolumeRecord } from "../../records/interface.ts";
import { rootIno } from "../../records/interface.ts";
import { conversionRecord, inodeRecord, volumeRecord } from "../../records/kinds.ts";
import { maximumProtections } from "../../records/limits.ts";
import { map as mapExtents } from "../../storage/extents.ts";
import type { MappedRange, Redundancy } from "../../storage/interface.ts";
import { formatRedundancy, parseRedundancy, sameShape, tolerance, width } from "../../storage/redundancy.ts";
import type { Core } from "./core.ts";
import { type FileData, requireInode } from "./data.ts";
import type { ConversionStatus, Progress } from "./interface.ts";
import { limits } from "./limits.ts";
import { memberSlots } from "./members.ts";
import { lengthOf, type Move, relocate } from "./relocator.ts";

interface Label {
	readonly protection: number;
	readonly protectionFrom: Ino;
}

export interface ProtectorModules {
	readonly core: Core;
	readonly data: FileData;
	readonly makeRoom: (lengthBytes: number) => Promise<void>;
}

type Walked = { readonly ino: Ino; readonly isFile: boolean; readonly storedBytes: number };

export class Protector {
	readonly #modules: ProtectorModules;
	readonly #core: Core;
	/** Conversions to be done; the first is the one in work. */
	readonly #queue: Ino[] = [];
	/** T4. */
	readonly #asking = new Set<{ readonly ino: Ino; readonly asked: Promise<void> }>();
	#worker: Promise<void> | undefined;
	#doneBytes = 0;
	#totalBytes = 0;
	#waitingFor = "";
	#cancelRetry: () => void = () => {};
	#stopped = false;

	constructor(modules: ProtectorModules) {
		this.#modules = modules;
		this.#core = modules.core;
	}

	get status(): ConversionStatus {
		// Also while what is left waits to be tried again.
		const active = this.#queue.length > 0;
		return { active, remainingBytes: active ? Math.max(0, this.#totalBytes - this.#doneBytes) : 0, waitingFor: this.#waitingFor };
	}

	/** Goes on with what the last mount left. */
	async start(): Promise<void> {
		const left = await this.#core.view((tx) => tx.scan(conversionRecord, conversionRecord.prefix(), { limit: limits.conversions }));
		for (const { value } of left) this.#enqueue(value.ino);
		void this.#work();
	}

	/**
	 * `value` undefined: what lies above decides. `parent`: the directory in which a file was found.
	 * @throws FsError EINVAL (no redundancy; neither file nor directory), REFUSED (the disks, or the metadata, cannot hold it), EAGAIN.
	 */
	async set(ino: Ino, parent: Ino | undefined, value: string | undefined, allowDegraded: boolean): Promise<readonly string[]> {
		const wanted = value === undefined ? undefined : parseRedundancy(value);
		const warnings = wanted === undefined ? [] : await this.#prepare(wanted, allowDegraded);
		// Before the record is written: the end of a conversion of the same path must not take it away.
		this.#enqueue(ino);
		try {
			await this.#holdingConversion(ino, ino === rootIno ? this.#setDefault(wanted) : this.#setLabel(ino, parent, wanted));
			return warnings;
		} finally {
			void this.#work();
		}
	}

	/** Whether it can be kept; makes the volume's own tolerance follow where that costs nothing. */
	async #prepare(wanted: Redundancy, allowDegraded: boolean): Promise<string[]> {
		const { disks } = this.#core;
		const name = formatRedundancy(wanted);
		const { config } = disks.roster;
		const metadata = Math.max(2, config.tolerance);
		const losses = tolerance(wanted);
		if (losses > metadata) {
			const message = `${name} survives the loss of ${losses} disks, the metadata of this volume of ${metadata}: no path can be safer than that`;
			throw new FsError("REFUSED", "volume.set-metadata", message, { losses, metadata });
		}
		// A disk that is to leave takes nothing any more.
		const leaving = new Set(disks.roster.disks.filter(({ duty }) => duty !== "use").map(({ id }) => id));
		const members = memberSlots(disks);
		const slots = members.filter(({ id }) => !leaving.has(id));
		const domains = config.sameDevice ? slots.length : new Set(slots.map((slot) => slot.domain)).size;
		const warnings: string[] = [];
		if (domains < width(wanted)) {
			const message = `${name} needs ${width(wanted)} disks, the volume has ${domains}${slots.length < members.length ? ", without those that leave" : ""}`;
			const advice = "add disks, or --allow-degraded to begin under-protected";
			if (!allowDegraded) throw new FsError("REFUSED", "volume.set-few", `${message}: ${advice}`, { wanted: width(wanted), domains });
			warnings.push(`${message}: data is under-protected until more disks come`);
		}
		// With so many disks any quorum of the new size still knows every change: no mount is refused that was not refused before.
		if (losses > config.tolerance && slots.length >= 2 * losses + 1 && mirrorCount(disks.roster) > losses) {
			await disks.changeRoster(`the volume tolerates ${losses} losses`, (roster) => ({
				...roster,
				config: { ...roster.config, tolerance: Math.max(losses, roster.config.tolerance) },
			}));
		} else if (losses > config.tolerance) {
			warnings.push(
				`a mount with more than ${config.tolerance} disks missing asks for --accept-loss, although this data survives ${losses}`,
			);
		}
		return warnings;
	}

	async #holdingConversion(ino: Ino, asked: Promise<void>): Promise<void> {
		const asking = { ino, asked };
		this.#asking.add(asking);
		try {
			await asked;
		} finally {
			this.#asking.delete(asking);
		}
	}

	/** T4. */
	async #writtenDown(ino: Ino): Promise<void> {
		const open = (): Promise<void>[] => [...this.#asking].filter((one) => one.ino === ino).map((one) => one.asked);
		for (let asked = open(); asked.length > 0; asked = open()) await Promise.allSettled(asked);
	}

	/** The default is in the roster; the record that somebody has to rewrite is there before it changes. */
	async #setDefault(wanted: Redundancy | undefined): Promise<void> {
		if (wanted === undefined) throw new FsError("EINVAL", "volume.set-root", "the volume inherits from nothing: say rs:K+M or replicate:N");
		const { position } = await this.#core.transact((tx, context) => this.#note(tx, rootIno, context.now, context.epoch));
		await this.#core.engine.durable(position);
		const redundancy = formatRedundancy(wanted);
		await this.#core.disks.changeRoster(`${redundancy} by default`, (roster) => ({ ...roster, config: { ...roster.config, redundancy } }));
	}

	async #setLabel(ino: Ino, parent: Ino | undefined, wanted: Redundancy | undefined): Promise<void> {
		await this.#core.transact((tx, context) => {
			const inode = requireInode(tx, ino);
			if (inode.type !== "file" && inode.type !== "directory")
				throw new FsError("EINVAL", "volume.set-type", `a ${inode.type} has no contents to protect: name a file or a directory`);
			const found = wanted === undefined ? { label: inherited(tx, inode, parent), protections: [] } : asked(tx, ino, wanted);
			tx.put(inodeRecord, { ...inode, ...found.label, ctime: context.now, change: inode.change + 1 }, ino);
			// Known before anybody can see an inode with it; the table of an attempt that fails names nothing.
			for (const { id, redundancy } of found.protections) this.#core.protections.set(id, redundancy);
			this.#note(tx, ino, context.now, context.epoch);
		});
	}

	#note(tx: RecordTransaction, ino: Ino, since: Inode["ctime"], birthEpoch: number): void {
		const open = tx.scan(conversionRecord, conversionRecord.prefix(), { limit: limits.conversions });
		if (open.length >= limits.conversions && !open.some(({ value }) => value.ino === ino)) {
			throw new FsError("EAGAIN", "volume.set-busy", `${open.length} changes of protection are under way: try again when some are done`);
		}
		tx.put(conversionRecord, { ino, since, birthEpoch }, ino);
	}

	#enqueue(ino: Ino): void {
		// One that is in work is done once more: it may have passed what has changed since.
		if (!this.#queue.includes(ino, this.#worker === undefined ? 0 : 1)) this.#queue.push(ino);
	}

	/** Resolves when nothing of `ino` is left to be done, or nothing can be done now: then the reason. */
	async wait(ino: Ino, onProgress: (progress: Progress) => void): Promise<string | undefined> {
		const { clock } = this.#core.platform;
		for (;;) {
			onProgress({ doneBytes: Math.min(this.#doneBytes, this.#totalBytes), totalBytes: this.#totalBytes });
			if (!this.#queue.includes(ino)) return undefined;
			if (this.#stopped) return "the volume is being unmounted";
			if (this.#worker === undefined && this.#waitingFor !== "") return this.#waitingFor;
			await clock.sleep(limits.conversionPollMs);
		}
	}

	// ── the work ─────────────────────────────────────────────────────────────────────────────────────────────────

	async #work(): Promise<void> {
		this.#cancelRetry();
		if (this.#worker !== undefined || this.#stopped) return;
		this.#worker = this.#workOff().finally(() => {
			this.#worker = undefined;
			if (this.#queue.length > 0 && !this.#stopped)
				this.#cancelRetry = this.#core.platform.clock.after(limits.healRetryMs, () => void this.#work());
		});
		await this.#worker;
	}

	async #workOff(): Promise<void> {
		for (let ino = this.#queue[0]; ino !== undefined && !this.#stopped; ino = this.#queue[0]) {
			try {
				await this.#convert(ino);
				this.#queue.shift();
				this.#waitingFor = "";
			} catch (error) {
				const failure = toFsError(error, "volume.convert");
				this.#waitingFor = failure.message;
				this.#core.logger.warn("a change of protection waits", { ino, error: failure.message });
				return;
			}
		}
	}

	async #convert(ino: Ino): Promise<void> {
		this.#doneBytes = 0;
		this.#totalBytes = 0;
		await this.#writtenDown(ino);
		// Nothing is written down: what was asked for was refused.
		if ((await this.#core.view((tx) => tx.get(conversionRecord, ino))) === undefined) return;
		if (ino === rootIno) await this.#everyFile((file) => this.#convertFile(file.ino));
		else {
			await this.#below(ino, true, async (file) => {
				this.#totalBytes += file.storedBytes;
			});
			await this.#below(ino, false, async (file) => {
				await this.#convertFile(file.ino);
				this.#doneBytes += file.storedBytes;
			});
		}
		if (this.#stopped) return;
		await this.#core.transact((tx) => {
			// Asked for once more meanwhile: it is in the queue again, and its record stays.
			if (!this.#queue.includes(ino, 1)) tx.delete(conversionRecord, ino);
		});
	}

	/** Files that nobody asked anything for. */
	async #everyFile(visit: (file: Walked) => Promise<void>): Promise<void> {
		const { storedBytes } = await this.#scanFiles(async () => {});
		this.#totalBytes = storedBytes;
		await this.#scanFiles(async (file) => {
			await visit(file);
			this.#doneBytes += file.storedBytes;
		});
	}

	async #scanFiles(visit: (file: Walked) => Promise<void>): Promise<{ readonly storedBytes: number }> {
		let storedBytes = 0;
		for (let after: string | undefined; !this.#stopped; ) {
			const from = after;
			const options = { limit: limits.scanBatch, ...(from === undefined ? {} : { after: from }) };
			const batch = await this.#core.view((tx) => tx.scan(inodeRecord, inodeRecord.prefix(), options));
			for (const { value } of batch) {
				if (value.type !== "file" || value.protection !== 0 || this.#stopped) continue;
				storedBytes += value.storedBytes;
				await visit({ ino: value.ino, isFile: true, storedBytes: value.storedBytes });
			}
			if (batch.length < limits.scanBatch) break;
			after = batch[batch.length - 1]?.key;
		}
		return { storedBytes };
	}

	/** Everything at and below `top` that nothing was asked for itself; with `tells` it learns what its top is told. */
	async #below(top: Ino, tells: boolean, visit: (file: Walked) => Promise<void>): Promise<void> {
		const first = await this.#core.view((tx) => tx.get(inodeRecord, top));
		if (first === undefined) return;
		if (first.type === "file") return visit({ ino: top, isFile: true, storedBytes: first.storedBytes });
		const directories = [top];
		for (let directory = directories.pop(); directory !== undefined && !this.#stopped; directory = directories.pop()) {
			for (let cookie: number | undefined = 2; cookie !== undefined && !this.#stopped; ) {
				const page = await this.#page(top, directory, cookie, tells);
				for (const node of page.nodes) {
					if (this.#stopped) return;
					if (node.isFile) await visit(node);
					else directories.push(node.ino);
				}
				cookie = page.next;
			}
		}
	}

	async #page(top: Ino, directory: Ino, after: number, tells: boolean): Promise<{ nodes: Walked[]; next: number | undefined }> {
		const read = (tx: RecordTransaction): { nodes: Walked[]; next: number | undefined } => {
			const above = tx.get(inodeRecord, top);
			if (above === undefined || tx.get(inodeRecord, directory) === undefined) return { nodes: [], next: undefined };
			const { protection, protectionFrom } = above;
			const entries = readdir(tx, directory, after, limits.conversionPage);
			const nodes: Walked[] = [];
			for (const { ino } of entries) {
				const inode = tx.get(inodeRecord, ino);
				if (inode === undefined || inode.protectionFrom === ino || (inode.type !== "file" && inode.type !== "directory")) continue;
				const isTold = inode.protection === protection && inode.protectionFrom === protectionFrom;
				if (tells && !isTold) tx.put(inodeRecord, { ...inode, protection, protectionFrom }, ino);
				nodes.push({ ino, isFile: inode.type === "file", storedBytes: inode.inline === undefined ? inode.storedBytes : 0 });
			}
			return { nodes, next: entries.length < limits.conversionPage ? undefined : entries[entries.length - 1]?.cookie };
		};
		return tells ? (await this.#core.transact(read)).result : this.#core.view(read);
	}

	// ── one file ─────────────────────────────────────────────────────────────────────────────────────────────────

	async #convertFile(ino: Ino): Promise<void> {
		// What was on its way into a segment before the inode was told ends up there first, dirty or not: contents that were in the inode may be on their way, too.
		await this.#core.flow
			.run(ino, () => this.#modules.data.sealLocked(ino))
			.catch((error: unknown) => {
				if (!isFsError(error, "ESTALE")) throw error;
			});
		for (let at: number | undefined = 0; at !== undefined && !this.#stopped; ) {
			const start: number = at;
			at = await this.#convertWindow(ino, start);
		}
	}

	/** Returns where the next window begins. */
	async #convertWindow(ino: Ino, start: number): Promise<number | undefined> {
		const tried = new Set<number>();
		for (;;) {
			const seen = await this.#core.view((tx) => window(tx, ino, start));
			if (seen === undefined) return undefined;
			const wanted = this.#core.redundancyOf(seen.inode.protection);
			const name = formatRedundancy(wanted);
			const others = seen.ranges.filter(({ segment }) => segment.target !== name && !tried.has(segment.id));
			const sources = [...new Set(others.map(({ segment }) => segment.id))];
			// T6: again until there is nothing new.
			if (sources.length === 0 || this.#stopped) return seen.isLast ? undefined : start + limits.conversionWindowBytes;
			for (const id of sources) tried.add(id);
			await this.#convertSources(ino, start, wanted, sources);
		}
	}

	async #convertSources(ino: Ino, start: number, wanted: Redundancy, sources: readonly number[]): Promise<void> {
		for (const id of sources) await this.#core.packed(id);
		for (let at = 0; at < sources.length && !this.#stopped; at += limits.conversionSources) {
			const ids = sources.slice(at, at + limits.conversionSources);
			const unpin = ids.map((id) => this.#core.store.pin(id));
			try {
				const moves = await this.#core.view((tx) => movesOf(tx, ino, start, wanted, new Set(ids)));
				await this.#move(moves, wanted);
			} finally {
				for (const letGo of unpin) letGo();
			}
		}
	}

	async #move(moves: readonly Move[], wanted: Redundancy): Promise<void> {
		let batch: Move[] = [];
		let bytes = 0;
		for (const [i, move] of moves.entries()) {
			batch.push(move);
			bytes += lengthOf(move);
			const next = moves[i + 1];
			const isFull = next !== undefined && (bytes + lengthOf(next) > limits.segmentBytes || batch.length === limits.segmentChunks);
			if (next !== undefined && !isFull) continue;
			await this.#moveBatch(batch, wanted, bytes);
			batch = [];
			bytes = 0;
			if (this.#stopped) return;
		}
	}

	async #moveBatch(moves: readonly Move[], wanted: Redundancy, bytes: number): Promise<void> {
		this.#checkDisks(moves, wanted);
		try {
			await relocate(this.#core, moves, wanted, "data").catch(async (error: unknown) => {
				if (!isFsError(error, "ENOSPC")) throw error;
				await this.#modules.makeRoom(bytes);
				await relocate(this.#core, moves, wanted, "data");
			});
		} catch (error) {
			if (!isFsError(error, "EIO") || error.site !== "storage.lost") throw error;
			// What is lost cannot be rewritten, and must not keep the rest from it.
			if (moves.length > 1) for (const move of moves) await this.#moveBatch([move], wanted, lengthOf(move));
			else this.#core.logger.warn("lost contents keep their protection", { segment: (moves[0] as Move).from.id });
		}
	}

	/** T3. */
	#checkDisks(moves: readonly Move[], wanted: Redundancy): void {
		const now = this.#core.store.feasible(wanted);
		const has = moves.reduce((most, { from }) => Math.max(most, this.#survives(from.dataShards, this.#core.store.assess(from))), 0);
		if (now !== undefined && tolerance(now) >= Math.min(has, tolerance(wanted))) return;
		const message = `the disks that can be written now could hold ${formatRedundancy(wanted)} with less protection than the data has`;
		throw new FsError("EAGAIN", "volume.convert-disks", `${message}: bring disks back or replace them`);
	}

	#survives(dataShards: number, health: { readonly fragments: readonly { readonly state: string }[] }): number {
		return health.fragments.filter((one) => one.state === "ok").length - dataShards;
	}

	async stop(): Promise<void> {
		this.#stopped = true;
		this.#cancelRetry();
		await this.#worker;
	}
}

/** The protection asked for, with its number in the volume's table. */
function asked(
	tx: RecordTransaction,
	ino: Ino,
	wanted: Redundancy,
): { readonly label: Label; readonly protections: VolumeRecord["protections"] } {
	const redundancy = formatRedundancy(wanted);
	const volume = tx.get(volumeRecord);
	if (volume === undefined) throw new FsError("CORRUPT", "volume.no-record", "the volume record is missing: run `cairn verify`");
	const known = volume.protections.find((one) => one.redundancy === redundancy);
	if (known !== undefined) return { label: { protection: known.id, protectionFrom: ino }, protections: [known] };
	const id = 1 + volume.protections.reduce((most, one) => Math.max(most, one.id), 0);
	if (volume.protections.length >= maximumProtections)
		throw new FsError("ENOSPC", "volume.protections", "the volume has too many kinds of protection");
	const protections = [...volume.protections, { id, redundancy }];
	tx.put(volumeRecord, { ...volume, protections });
	return { label: { protection: id, protectionFrom: ino }, protections };
}

function inherited(tx: RecordTransaction, inode: Inode, parent: Ino | undefined): Label {
	const above = inode.type === "directory" ? inode.parent : parent;
	if (above === undefined)
		throw new FsError("ENOTSUP", "volume.set-inherit", "a file does not know its directory: use `cairn set PATH --redundancy inherit`");
	const { protection, protectionFrom } = requireInode(tx, above);
	return { protection, protectionFrom };
}

function window(tx: RecordTransaction, ino: Ino, start: number): { inode: Inode; ranges: MappedRange[]; isLast: boolean } | undefined {
	const inode = tx.get(inodeRecord, ino);
	if (inode === undefined || inode.inline !== undefined || start >= inode.size) return undefined;
	const length = Math.min(limits.conversionWindowBytes, inode.size - start);
	return { inode, ranges: mapExtents(tx, ino, start, length), isLast: start + length >= inode.size };
}

/** Chunks in these segments that are to lie in segments of the wanted kind. */
function movesOf(tx: RecordTransaction, ino: Ino, start: number, wanted: Redundancy, sources: ReadonlySet<number>): Move[] {
	const moves = new Map<number, Move>();
	for (const { chunk, segment } of window(tx, ino, start)?.ranges ?? []) {
		if (moves.has(chunk.id) || !sources.has(segment.id)) continue;
		const target = parseRedundancy(segment.target);
		if (sameShape(target, wanted)) continue;
		if (tolerance(wanted) <= tolerance(target) && !isOwn(tx, ino, chunk)) continue;
		moves.set(chunk.id, { chunk, from: segment, part: undefined });
	}
	return [...moves.values()];
}

/** T5: this file accounts for all references, where it was written. */
function isOwn(tx: RecordTransaction, ino: Ino, chunk: Move["chunk"]): boolean {
	if (chunk.owner !== ino) return false;
	const ranges = mapExtents(tx, ino, chunk.ownerOffset, chunk.length).filter((range) => range.chunk.id === chunk.id);
	return ranges.length === chunk.references && ranges.reduce((sum, range) => sum + range.length, 0) === chunk.referencedBytes;
}
