/**
 * Recovery: the mirrors of all log epochs in the roster and the memory tail, merged record by record.
 *
 * Invariants
 *  V1 A record is believed when its checksum is right, its epoch is one of the roster's with this disk as a member, and it continues the
 *     chain.
 *  V2 Every sequence after `after` is given once, in order, from whichever source has it.
 *  V3 The first sequence that no source has is the end, unless it was acknowledged as durable: a record after it says so, or a log epoch
 *     begins beyond it. Then records are lost, and that is an error unless the operator accepted it.
 *  V4 Memory: one segment of each mirror of each epoch.
 *  V5 A mirror of the newest epoch holds a segment with its header, or a record: that was durable when the epoch began. When all of them have neither, the log is gone, not empty.
 */
import { emptyBytes, latin1ToUtf8 } from "../base/bytes.ts";
import { FsError, isFsError, toFsError } from "../base/errors.ts";
import type { Logger } from "../base/telemetry.ts";
import type { Borrowed, Disk, DiskFile } from "../platform/interface.ts";
import type { DiskId, DiskSet, LogEpoch, LogModules, LogRecord, RecoveredLog, Roster } from "./interface.ts";
import { maximumSegmentBytes, peekBytes, rereadBytes } from "./limits.ts";
import { readMemoryTail, readReleased } from "./memory-tail.ts";
import {
	type ChainedRecord,
	chainChecksum,
	decodeSegmentHeader,
	type FoundRecord,
	recordAt,
	scanRecords,
	segmentHeaderBytes,
	segmentName,
	segmentNumber,
} from "./record.ts";
import { currentLogEpoch } from "./roster.ts";

export interface RecoverOptions {
	/** Newest sequence that the engine's checkpoint covers. */
	readonly after: number;
	/** End the log at the first lost record instead of failing; default: what the mount was told. */
	readonly acceptLoss?: boolean;
}

type Report = { -readonly [K in keyof RecoveredLog["report"]]: RecoveredLog["report"][K] };

/** A record with what the merge needs to know of it. */
interface Found extends ChainedRecord {
	readonly epoch: number;
	readonly acknowledged: number;
}

/** One mirror of one epoch, or the memory tail: records in ascending order. */
interface Source {
	readonly disk: DiskId | undefined;
	readonly records: AsyncIterator<Found>;
	head: Found | undefined;
}

/**
 * The returned `records` can be iterated once.
 * @throws FsError EIO `log.gone`: no mirror of the newest log can be read. From `records`: EIO `log.lost` naming the first record that was acknowledged and that nothing holds; REFUSED (newer
 * format).
 */
export async function recoverLog(options: RecoverOptions, modules: LogModules): Promise<RecoveredLog> {
	const acceptLoss = options.acceptLoss ?? modules.disks.opened?.acceptLoss ?? false;
	const report: Report = { lastSequence: options.after, lastChecksum: 0, damagedRecords: 0, mirrorsRead: 0, fromMemory: 0 };
	const { sources, readable } = await openSources(options.after, modules, report);
	refuseGone(readable, { ...options, acceptLoss }, modules, report);
	return { records: merge({ ...options, acceptLoss }, sources, modules, report), report };
}

// ── merging ──────────────────────────────────────────────────────────────────────────────────────────────────────

async function* merge(
	options: Required<RecoverOptions>,
	sources: readonly Source[],
	modules: LogModules,
	report: Report,
): AsyncGenerator<LogRecord, void, undefined> {
	let acknowledged = Math.max(firstsBefore(modules.disks.roster), releasedBefore(modules) ?? 0);
	const advance = async (source: Source): Promise<void> => {
		const next = await source.records.next();
		source.head = next.done ? undefined : next.value;
		if (source.head) acknowledged = Math.max(acknowledged, source.head.acknowledged);
	};
	for (const source of sources) await advance(source);
	let chain: number | undefined;
	for (;;) {
		const sequence = report.lastSequence + 1;
		const record = pick(sources, sequence, chain);
		if (!record) break;
		noteDamage(sources, record, modules.disks, report);
		if (report.damagedRecords > 0 && modules.platform.simulation?.planted("log-cut-at-rot")) return;
		chain = report.lastChecksum = chainChecksum(record);
		report.lastSequence = sequence;
		// A copy: the segment's bytes are let go, and what is kept of the payload must not keep them all.
		yield { sequence, payload: record.payload.slice() };
		for (const source of sources) while (source.head && source.head.sequence <= sequence) await advance(source);
	}
	// What follows the first missing record is only asked whether that one had been acknowledged.
	for (const source of sources) while (source.head) await advance(source);
	if (acknowledged > report.lastSequence) refuseLoss(report.lastSequence + 1, acknowledged, options.acceptLoss, modules.logger, report);
}

/** Everything before the first record of an epoch was durable when the epoch began. */
function firstsBefore(roster: Roster): number {
	return roster.logEpochs.reduce((most, epoch) => Math.max(most, epoch.firstSequence - 1), 0);
}

/** Of several copies the one of the newest epoch; where the chain is not known yet, one that most copies agree with. */
function pick(sources: readonly Source[], sequence: number, chain: number | undefined): Found | undefined {
	const copies = sources.flatMap((source) => (source.head?.sequence === sequence ? [source.head] : []));
	const inChain = copies.filter((copy) => chain === undefined || copy.previous === chain);
	const votes = new Map<number, number>();
	for (const copy of inChain) votes.set(copy.previous, (votes.get(copy.previous) ?? 0) + 1);
	const most = Math.max(...votes.values());
	const best = inChain.filter((copy) => votes.get(copy.previous) === most);
	return best.sort((a, b) => b.epoch - a.epoch)[0];
}

/** A mirror that goes on after this record but does not have it, or has another in its place, has lost it. */
function noteDamage(sources: readonly Source[], record: Found, disks: DiskSet, report: Report): void {
	for (const { disk, head } of sources) {
		if (!head || disk === undefined) continue;
		const differs = head.sequence === record.sequence && head.previous !== record.previous;
		const lacks = head.sequence > record.sequence && head.epoch === record.epoch;
		if (!differs && !lacks) continue;
		report.damagedRecords++;
		const why = new FsError("CORRUPT", "log.record-damaged", `d${disk}: log record ${record.sequence} is damaged; another copy is used`);
		// What was not acknowledged yet may be missing after a power cut: that is not the disk's fault.
		if (head.acknowledged >= record.sequence) disks.report(disk, why, "corrupt");
	}
	if (!sources.some(({ disk, head }) => disk !== undefined && head?.sequence === record.sequence)) report.fromMemory++;
}

/** What the process before had written to all mirrors, as far as its memory is still there: after its death alone, nothing of that may be missing. */
function releasedBefore({ disks, memory }: LogModules): number | undefined {
	const newest = currentLogEpoch(disks.roster);
	if (!newest || !memory.existed || disks.opened?.clean) return undefined;
	return readReleased(memory, { volume: disks.roster.volume, incarnation: newest.incarnation });
}

/** V5. Nothing is lost where the volume was left clean, or where the memory goes on from the checkpoint. */
function refuseGone(
	readable: ReadonlySet<DiskId>,
	{ after, acceptLoss }: Required<RecoverOptions>,
	modules: LogModules,
	report: Report,
): void {
	const { disks, logger } = modules;
	const newest = currentLogEpoch(disks.roster);
	if (!newest || disks.opened?.clean || newest.members.some((id) => readable.has(id))) return;
	if ((releasedBefore(modules) ?? Number.POSITIVE_INFINITY) <= after) return;
	const paths = newest.members.map((id) => `d${id} (${disks.slot(id)?.path ?? "not found"})`).join(", ");
	const message =
		`volume ${latin1ToUtf8(disks.roster.name)} was not unmounted cleanly, and the log of its last mount can be read on none of the disks that mirror it: ${paths}. ` +
		`The state of the last checkpoint (record ${after}) is there; what was acknowledged after it is in that log alone. ` +
		"Bring back disks that hold it and mount again; --accept-loss continues with the checkpoint, and what came after it is lost for good";
	if (!acceptLoss) throw new FsError("EIO", "log.gone", message, { after, members: newest.members });
	report.lostFrom = after + 1;
	logger.error(message);
}

function refuseLoss(first: number, acknowledged: number, acceptLoss: boolean, logger: Logger, report: Report): void {
	const message =
		`log records ${first} to ${acknowledged} were acknowledged as durable, but record ${first} is on none of the disks that can be read. ` +
		`Bring missing disks back and mount again; --accept-loss continues with the state before record ${first}, ` +
		"and what came after it is lost for good";
	if (!acceptLoss) throw new FsError("EIO", "log.lost", message, { first, acknowledged });
	report.lostFrom = first;
	logger.error(message);
}

// ── sources ──────────────────────────────────────────────────────────────────────────────────────────────────────

async function openSources(
	after: number,
	modules: LogModules,
	report: Report,
): Promise<{ readonly sources: readonly Source[]; readonly readable: ReadonlySet<DiskId> }> {
	const { disks } = modules;
	const epochs = disks.roster.logEpochs;
	const members = new Set(epochs.flatMap((epoch) => epoch.members));
	const sources: Source[] = [];
	const readable = new Set<DiskId>();
	await Promise.all(
		[...members].map(async (id) => {
			const disk = disks.readable(id);
			if (!disk) return;
			const mirror = new Mirror(id, disk, epochs, after, modules);
			await mirror.survey();
			report.mirrorsRead++;
			if (mirror.isReadable) readable.add(id);
			for (const epoch of epochs)
				if (epoch.members.includes(id)) sources.push({ disk: id, records: mirror.records(epoch.epoch), head: undefined });
		}),
	);
	sources.sort((a, b) => (a.disk ?? 0) - (b.disk ?? 0));
	sources.push({ disk: undefined, records: memoryRecords(after, modules), head: undefined });
	return { sources, readable };
}

/** Only of the mount that started the newest log epoch, and only when that one did not end cleanly. */
async function* memoryRecords(after: number, modules: LogModules): AsyncGenerator<Found, undefined, undefined> {
	const { disks, memory } = modules;
	const newest = currentLogEpoch(disks.roster);
	if (!newest || !memory.existed || disks.opened?.clean) return undefined;
	for (const record of readMemoryTail(memory, { volume: disks.roster.volume, incarnation: newest.incarnation })) {
		if (record.sequence > after) yield { ...record, epoch: newest.epoch, acknowledged: 0 };
	}
	return undefined;
}

interface SurveyedSegment {
	readonly number: number;
	readonly epoch: number;
	readonly firstSequence: number;
}

/** The segments of one disk. */
class Mirror {
	readonly #id: DiskId;
	readonly #disk: Disk;
	readonly #epochs: ReadonlyMap<number, LogEpoch>;
	readonly #after: number;
	readonly #modules: LogModules;
	#segments: SurveyedSegment[] = [];
	#hasHeader = false;

	constructor(id: DiskId, disk: Disk, epochs: readonly LogEpoch[], after: number, modules: LogModules) {
		this.#id = id;
		this.#disk = disk;
		this.#epochs = new Map(epochs.filter((epoch) => epoch.members.includes(id)).map((epoch) => [epoch.epoch, epoch]));
		this.#after = after;
		this.#modules = modules;
	}

	/** There is something of the log on it, be it empty. */
	get isReadable(): boolean {
		return this.#hasHeader || this.#segments.length > 0;
	}

	/**
	 * Learns which segments hold records that are needed, and their order. A segment is used from its start on by one epoch, with ascending
	 * sequences; behind them lie records of its former use. So when its first record is sound, it alone tells the use; a segment that the
	 * next one of its epoch shows to be covered is not read any further.
	 */
	async survey(): Promise<void> {
		const opening = new Map<number, SurveyedSegment | undefined>();
		for (const number of await this.#numbers()) opening.set(number, await this.#firstRecord(number));
		const unsure = [...opening].filter(([, first]) => first === undefined).map(([number]) => number);
		const known = [...opening.values()].filter((first) => first !== undefined && this.#epochs.has(first.epoch)) as SurveyedSegment[];
		const covered = (one: SurveyedSegment): boolean =>
			known.some((next) => next.epoch === one.epoch && next.firstSequence > one.firstSequence && next.firstSequence <= this.#after + 1);
		const needed = [...unsure, ...known.filter((one) => !covered(one)).map((one) => one.number)];
		for (const number of needed) await this.#surveyAll(number);
		this.#segments.sort((a, b) => a.firstSequence - b.firstSequence);
	}

	async #numbers(): Promise<readonly number[]> {
		try {
			return (await this.#disk.list("log")).flatMap((name) => segmentNumber(name) ?? []);
		} catch (error) {
			this.#modules.disks.report(this.#id, error, "read");
			return [];
		}
	}

	/** The record at the segment's start; undefined when there is no sound one. */
	async #firstRecord(number: number): Promise<SurveyedSegment | undefined> {
		const { bytes, release } = await this.#borrow(number, peekBytes);
		this.#hasHeader ||= this.#isHeader(bytes, number);
		const record = recordAt(bytes, segmentHeaderBytes, this.#modules.disks.roster.volume);
		const first = record && { number, epoch: record.epoch, firstSequence: record.sequence };
		release();
		return first;
	}

	#isHeader(bytes: Uint8Array, number: number): boolean {
		const { disks } = this.#modules;
		try {
			const header = decodeSegmentHeader(bytes, segmentName(number));
			return header.volume === disks.roster.volume && header.diskUuid === disks.slot(this.#id)?.uuid && header.number === number;
		} catch (error) {
			if (isFsError(error, "CORRUPT")) return false;
			throw error;
		}
	}

	/** The first needed record of each epoch in a segment. */
	async #surveyAll(number: number): Promise<void> {
		const seen = new Set<number>();
		const { bytes, release } = await this.#borrow(number, maximumSegmentBytes);
		for (const record of this.#needed(bytes)) {
			if (!seen.has(record.epoch)) this.#segments.push({ number, epoch: record.epoch, firstSequence: record.sequence });
			seen.add(record.epoch);
		}
		release();
	}

	*#needed(bytes: Uint8Array): Generator<FoundRecord> {
		for (const record of scanRecords(bytes, segmentHeaderBytes, this.#modules.disks.roster.volume)) {
			const epoch = this.#epochs.get(record.epoch);
			if (epoch && record.sequence > this.#after && record.sequence >= epoch.firstSequence) yield record;
		}
	}

	async *records(epoch: number): AsyncGenerator<Found, undefined, undefined> {
		let last = this.#after;
		for (const segment of this.#segments) {
			if (segment.epoch !== epoch) continue;
			for (const record of this.#needed(await this.#read(segment.number))) {
				if (record.epoch !== epoch || record.sequence <= last) continue;
				last = record.sequence;
				yield record;
			}
		}
		return undefined;
	}

	/** For who keeps the records: their payloads are views. */
	async #read(number: number): Promise<Uint8Array> {
		return (await this.#readWith(number, maximumSegmentBytes, async (file, length) => keptBytes(await file.read(0, length)))).bytes;
	}

	/** For who only looks: most segments of a log are read at each mount and hold nothing that is needed. */
	#borrow(number: number, lengthBytes: number): Promise<Borrowed> {
		return this.#readWith(number, lengthBytes, (file, length) => file.borrow(0, length));
	}

	/** What can be read of a segment's start; what cannot is zeros. */
	async #readWith(number: number, lengthBytes: number, read: (file: DiskFile, length: number) => Promise<Borrowed>): Promise<Borrowed> {
		let file: DiskFile | undefined;
		try {
			file = await this.#disk.open(segmentName(number));
			const length = Math.min(lengthBytes, await file.size());
			try {
				return await read(file, length);
			} catch (error) {
				if (!isFsError(error, "EIO")) throw error;
				return keptBytes(await this.#readInPieces(file, length));
			}
		} catch (error) {
			const { code, message } = toFsError(error, "log.recover-read");
			this.#modules.logger.warn(`d${this.#id}: log segment ${number} cannot be read`, { code, message });
			this.#modules.disks.report(this.#id, error, "read");
			return keptBytes(emptyBytes);
		} finally {
			await file?.close().catch(() => undefined);
		}
	}

	async #readInPieces(file: DiskFile, length: number): Promise<Uint8Array> {
		const bytes = new Uint8Array(length);
		for (let at = 0; at < length; at += rereadBytes) {
			try {
				bytes.set(await file.read(at, Math.min(rereadBytes, length - at)), at);
			} catch (error) {
				if (!isFsError(error, "EIO")) throw error;
				this.#modules.disks.report(this.#id, error, "read");
			}
		}
		return bytes;
	}
}

function keptBytes(bytes: Uint8Array): Borrowed {
	return { bytes, release() {} };
}
