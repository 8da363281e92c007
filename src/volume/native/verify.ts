/**
 * Reads everything there is and says what is true: every fragment of every segment, every block of metadata, every reference; mends what can be mended; names the files that cannot.
 */
import { Semaphore } from "../../base/async.ts";
import { readKeyU64 } from "../../base/bytes.ts";
import { FsError } from "../../base/errors.ts";
import { type Ino, type Inode, type RecordTransaction, rootIno, type Segment } from "../../records/interface.ts";
import { chunkRecord, cookieRecord, extentBlockRecord, inodeRecord, segmentRecord } from "../../records/kinds.ts";
import { lookup } from "../../namespace/verbs.ts";
import { map as mapExtents } from "../../storage/extents.ts";
import { formatRedundancy } from "../../storage/redundancy.ts";
import { examine, proveMetadata } from "./care.ts";
import type { Core } from "./core.ts";
import type { FileData } from "./data.ts";
import type { Explanation, Progress, VerifyOptions, VerifyResult } from "./interface.ts";
import type { Healer } from "./healer.ts";
import { causeOf, timeOf } from "./ledger.ts";
import { limits } from "./limits.ts";
import { checkReferences } from "./references.ts";
import type { ScrubberModules } from "./scrubber.ts";

export interface MetadataCheck {
	/** Blocks read on all metadata disks. */
	readonly checked: number;
	readonly corrupt: number;
	readonly repaired: number;
	readonly unrecoverable: number;
	/** Copies that could not be read at all. */
	readonly unchecked: number;
}

/**
 * Whoever asks waits for it; when that ends early (the daemon is killed), `resume` goes on: proofs say what was read since it began. Damage is mended where it is found, so memory does not grow with it.
 */
export async function verifyVolume(
	modules: ScrubberModules,
	options: VerifyOptions,
	onProgress: (progress: Progress) => void,
): Promise<VerifyResult> {
	const { core } = modules;
	const since = await beginVerify(modules, options.resume === true);
	const metadata = await proveMetadata(modules, !options.dryRun);
	const look = new Look(modules, options, options.resume === true ? since : undefined, onProgress);
	await look.atAll();
	await core.proofs.settle({ sweep: true });
	const { lost, ...found } = look.result();
	const lostPaths = lost.size > 0 && options.lost ? await findLostPaths(core, lost) : [];
	// Where metadata itself is lost, every count would be wrong for that reason.
	const miscounted = metadata.unrecoverable > 0 ? 0 : (await checkReferences(core)).wrong;
	await endVerify(modules, since);
	return {
		...found,
		corrupt: found.corrupt + metadata.corrupt,
		repaired: found.repaired + metadata.repaired,
		unrecoverable: found.unrecoverable + metadata.unrecoverable,
		miscounted,
		lostPaths,
	};
}

/** When it began, seconds since 1970. A volume that takes no changes any more is verified all the same, and cannot be resumed. */
async function beginVerify({ core, care }: ScrubberModules, resume: boolean): Promise<number> {
	if (resume && care.now.verifyStartedAt === 0)
		throw new FsError("REFUSED", "volume.verify-resume", "no verify was interrupted: begin one without --resume");
	const startedAt = resume ? care.now.verifyStartedAt : Math.max(1, core.proofs.now());
	await care
		.change((now) => (now.verifyStartedAt === startedAt ? now : { ...now, verifyStartedAt: startedAt }))
		.catch((error: unknown) => core.logger.warn("the beginning of a verify could not be written down", { error: String(error) }));
	return startedAt;
}

async function endVerify({ core, care }: ScrubberModules, startedAt: number): Promise<void> {
	await care
		.change((now) => (now.verifyStartedAt === startedAt ? { ...now, verifyStartedAt: 0 } : now))
		.catch((error: unknown) => core.logger.warn("the end of a verify could not be written down", { error: String(error) }));
}

type Found = Omit<VerifyResult, "miscounted" | "lostPaths">;

/** One verify's way through all segments. */
class Look {
	readonly #modules: ScrubberModules;
	readonly #options: VerifyOptions;
	/** Seconds since 1970: what was proven whole since is passed over; undefined: nothing is. */
	readonly #since: number | undefined;
	readonly #onProgress: (progress: Progress) => void;
	readonly #found: { -readonly [K in keyof Found]: Found[K] } = {
		checkedFragments: 0,
		corrupt: 0,
		missing: 0,
		repaired: 0,
		unrecoverable: 0,
		skippedSegments: 0,
	};
	readonly #lost = new Set<number>();
	#doneBytes = 0;
	#totalBytes = 0;

	constructor(modules: ScrubberModules, options: VerifyOptions, since: number | undefined, onProgress: (progress: Progress) => void) {
		this.#modules = modules;
		this.#options = options;
		this.#since = since;
		this.#onProgress = onProgress;
	}

	async atAll(): Promise<void> {
		const { core } = this.#modules;
		for await (const segment of core.segments()) this.#totalBytes += segment.payloadBytes;
		const gate = new Semaphore(limits.verifiesAtOnce);
		const looks = new Set<Promise<void>>();
		const proofsOf = core.proofs.reader();
		for await (const segment of core.segments()) {
			const isProven = this.#since !== undefined && this.#isProven(segment, await proofsOf(segment), this.#since);
			const look = gate.run(() => this.#at(segment, isProven)).finally(() => looks.delete(look));
			looks.add(look);
			if (looks.size >= 4 * limits.verifiesAtOnce) await Promise.race(looks);
		}
		await Promise.all(looks);
	}

	#isProven(segment: Segment, proven: ReadonlyMap<number, number>, since: number): boolean {
		const { full, fragments } = this.#modules.core.store.assess(segment);
		return full && fragments.every(({ index }) => (proven.get(index) ?? -1) >= since);
	}

	async #at({ id, payloadBytes }: Segment, isProven: boolean): Promise<void> {
		const { core, healer } = this.#modules;
		const examined = isProven ? undefined : await examine(core, healer, id, this.#options.dryRun ? "dry-run" : "now");
		if (isProven) this.#found.skippedSegments++;
		if (examined !== undefined) {
			this.#found.checkedFragments += examined.fragments;
			this.#found.corrupt += examined.corrupt;
			this.#found.missing += examined.missing;
			this.#found.repaired += examined.repaired;
			if (examined.lost) {
				this.#found.unrecoverable++;
				if (this.#lost.size < limits.lostSegments) this.#lost.add(id);
			}
		}
		this.#doneBytes += payloadBytes;
		this.#onProgress({ doneBytes: this.#doneBytes, totalBytes: Math.max(this.#totalBytes, this.#doneBytes) });
	}

	result(): Found & { readonly lost: ReadonlySet<number> } {
		return { ...this.#found, lost: this.#lost };
	}
}

/**
 * Files that cannot be read wholly, by path; at most limits.lostPaths. A segment beyond recovery may still give some of its bytes back, block by block: only files whose own bytes it does not give are named.
 */
async function findLostPaths(core: Core, lost: ReadonlySet<number>): Promise<string[]> {
	const inos = new Set<Ino>();
	for (let after: string | undefined; ; ) {
		const from: string | undefined = after;
		const options = { limit: limits.recountBlocks, ...(from === undefined ? {} : { after: from }) };
		const batch = await core.view((tx) =>
			tx.scan(extentBlockRecord, extentBlockRecord.prefix(), options).map(({ key, value }) => ({
				key,
				ino: readKeyU64(key, 1),
				doubtful: value.extents.flatMap((extent) => {
					const chunk = tx.get(chunkRecord, extent.chunk);
					const segment = chunk !== undefined && lost.has(chunk.segment) ? tx.get(segmentRecord, chunk.segment) : undefined;
					return chunk === undefined || segment === undefined
						? []
						: [{ segment, offset: chunk.offset + extent.chunkOffset, length: extent.length }];
				}),
			})),
		);
		for (const { ino, doubtful } of batch) {
			for (const range of doubtful) {
				if (inos.has(ino)) break;
				if (!(await isReadable(core, range))) inos.add(ino);
			}
		}
		if (batch.length < limits.recountBlocks) break;
		after = batch[batch.length - 1]?.key;
	}
	return inos.size === 0 ? [] : await pathsOf(core, inos);
}

interface PayloadRange {
	readonly segment: Segment;
	readonly offset: number;
	readonly length: number;
}

async function isReadable(core: Core, { segment, offset, length }: PayloadRange): Promise<boolean> {
	const unpin = core.store.pin(segment.id);
	try {
		return await core.store.isOnDisk(segment, offset, length);
	} finally {
		unpin();
	}
}

/** Walks the directories once; every name of the inodes asked for. */
async function pathsOf(core: Core, inos: ReadonlySet<Ino>): Promise<string[]> {
	const paths: string[] = [];
	let after: string | undefined;
	const prefix = cookieRecord.prefix();
	for (;;) {
		const from = after;
		const batch = await core.view((tx) => {
			const items = tx.scan(cookieRecord, prefix, { limit: limits.scanBatch, ...(from === undefined ? {} : { after: from }) });
			return items.map(({ key, value }) => ({ key, path: inos.has(value.ino) ? pathFrom(tx, readKeyU64(key, 1), value.name) : undefined }));
		});
		for (const { path } of batch) {
			if (path !== undefined && paths.length < limits.lostPaths) paths.push(path);
		}
		if (batch.length < limits.scanBatch) return paths.sort();
		after = batch[batch.length - 1]?.key;
	}
}

/** Path of a name in a directory, by the directories' parents and their cookie records. */
function pathFrom(tx: RecordTransaction, parent: Ino, name: string): string {
	let path = name;
	let directory = tx.get(inodeRecord, parent);
	for (let depth = 0; directory !== undefined && directory.parent !== directory.ino && depth < 4096; depth++) {
		const own = directory.ino;
		const up: Ino = directory.parent;
		const entry = tx.scan(cookieRecord, cookieRecord.prefix(up), { limit: 100_000 }).find(({ value }) => value.ino === own);
		path = `${entry?.value.name ?? `#${own}`}/${path}`;
		directory = tx.get(inodeRecord, up);
	}
	return path;
}

interface Resolved {
	readonly inode: Inode;
	/** The directory that it was found in; undefined for the root. */
	readonly parent: Ino | undefined;
	/** Every inode on the way, the last included, by its path. */
	readonly paths: ReadonlyMap<Ino, string>;
}

/** @throws FsError ENOENT, ENOTDIR. */
export function resolvePath(tx: RecordTransaction, path: string): Resolved {
	let inode = lookup(tx, rootIno, ".");
	let parent: Ino | undefined;
	let at = "";
	const paths = new Map([[rootIno, "/"]]);
	for (const name of path.split("/").filter((part) => part !== "" && part !== ".")) {
		parent = inode.ino;
		inode = lookup(tx, parent, name);
		at = `${at}/${name}`;
		paths.set(inode.ino, at);
	}
	return { inode, parent, paths };
}

/** What protects an inode, and where that was asked for: "volume", or a path from the root of the volume. */
export function effectiveProtection(core: Core, tx: RecordTransaction, { inode, paths }: Resolved): Explanation["redundancy"] {
	const value = formatRedundancy(core.redundancyOf(inode.protection));
	if (inode.protection === 0) return { value, from: "volume" };
	const source = tx.get(inodeRecord, inode.protectionFrom);
	const from = paths.get(inode.protectionFrom) ?? (source?.type === "directory" ? pathOfDirectory(tx, source) : undefined);
	return { value, from: from ?? "a path that is gone" };
}

function pathOfDirectory(tx: RecordTransaction, directory: Inode): string {
	const entry = tx
		.scan(cookieRecord, cookieRecord.prefix(directory.parent), { limit: 100_000 })
		.find(({ value }) => value.ino === directory.ino);
	return `/${pathFrom(tx, directory.parent, entry?.value.name ?? `#${directory.ino}`)}`;
}

/** Deeper paths are not shown. */
const maxDepthShown = 64;
/** Names have cookies in the order of their making: of a directory with very many, one that came late is not looked for. */
const namesLookedThrough = 4096;

/** Undefined: it is none, it has no name any more, or it is one of too many. */
export function directoryPath(tx: RecordTransaction, ino: Ino): string | undefined {
	let path = "";
	let directory = tx.get(inodeRecord, ino);
	for (let depth = 0; directory?.type === "directory" && depth < maxDepthShown; depth++) {
		const { ino: own, parent } = directory;
		if (own === parent) return path === "" ? "/" : path;
		const entry = tx.scan(cookieRecord, cookieRecord.prefix(parent), { limit: namesLookedThrough }).find(({ value }) => value.ino === own);
		if (entry === undefined) return undefined;
		path = `/${entry.value.name}${path}`;
		directory = tx.get(inodeRecord, parent);
	}
	return undefined;
}

export async function explainPath(core: Core, data: FileData, healer: Healer, path: string): Promise<Explanation> {
	const plan = await core.view((tx) => {
		const found = resolvePath(tx, path);
		const { inode } = found;
		const size = data.sizeOf(inode);
		const ranges = inode.type === "file" && inode.inline === undefined ? mapExtents(tx, inode.ino, 0, size) : [];
		return { inode, size, ranges, redundancy: effectiveProtection(core, tx, found) };
	});
	if (plan.ranges.length > limits.explainSegments)
		throw new FsError("E2BIG", "volume.explain", `${path} has more than ${limits.explainSegments} extents: too many to list`);
	// What can be done for it hangs on the room that disks have.
	await core.store.refreshSpace();
	const { active, etaSeconds, paused } = healer.status;
	const segments: Explanation["segments"][number][] = [];
	for (const segment of new Map(plan.ranges.map((range) => [range.segment.id, range.segment])).values())
		segments.push(await explainSegment(core, segment, paused));
	const proofs = segments.flatMap(({ fragments }) => fragments.map(({ provenAt }) => provenAt));
	const oldestProofAt = proofs.reduce(
		(oldest, at) => (oldest === null || at === null ? null : at < oldest ? at : oldest),
		proofs[0] ?? null,
	);
	return {
		path,
		ino: plan.inode.ino,
		type: plan.inode.type,
		sizeBytes: plan.size,
		redundancy: plan.redundancy,
		inline: plan.inode.inline !== undefined,
		dirtyBytes: core.dirty.attributes(plan.inode.ino)?.bytes ?? 0,
		oldestProofAt,
		healing: { active, etaSeconds },
		segments,
	};
}

async function explainSegment(core: Core, segment: Segment, healPaused: boolean): Promise<Explanation["segments"][number]> {
	const proven = await core.proofs.of(segment);
	const health = core.store.assess(segment);
	const { fragments, full, lost } = health;
	const whole = fragments.every(({ index }) => proven.has(index)) ? "proven" : "recorded";
	return {
		id: segment.id,
		redundancy: formatRedundancy({ dataShards: segment.dataShards, parityShards: segment.parityShards }),
		state: lost ? "lost" : full ? whole : "degraded",
		cause: full && !lost ? null : causeOf(core, health, healPaused),
		fragments: fragments.map(({ index, disk, state }) => {
			const provenAt = state === "ok" ? timeOf(proven.get(index)) : null;
			return { index, disk: disk === undefined ? "none" : `d${disk}`, state, provenAt };
		}),
	};
}
