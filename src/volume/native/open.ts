/**
 * Creates and opens volumes on this machine's own disks.
 *
 * Opening, in order: superblocks and locks (DiskSet) → engine (manifest, log recovered and checkpointed, a new log epoch) → space from segment records → dirty data
 * replayed from pending records and the memory ring → intents finished, orphans reaped → healing.
 */
import { Deferred } from "../../base/async.ts";
import { FsError, toFsError } from "../../base/errors.ts";
import { openLocalEngine, type LocalEngine } from "../../kv/local/engine.ts";
import { AdmissionTable } from "../../locks/admission.ts";
import { LockMemory } from "../../locks/memory.ts";
import { createDiskSet, markClean, type OpenDiskSet, openDiskSet } from "../../log/disk-set.ts";
import type { DiskSet } from "../../log/interface.ts";
import { makeRoot } from "../../namespace/verbs.ts";
import { openDiskWithDeadlines } from "../../platform/deadline.ts";
import type { Clock, Memory, Platform } from "../../platform/interface.ts";
import type { Ino, Pending } from "../../records/interface.ts";
import { inodeRecord, pendingRecord } from "../../records/kinds.ts";
import { NumberBlocks } from "../../records/numbers.ts";
import { createDirtyStore, type RingDirtyStore } from "../../storage/dirty.ts";
import type { SegmentStore } from "../../storage/interface.ts";
import { defaultRedundancy, formatRedundancy, parseRedundancy, tolerance, width } from "../../storage/redundancy.ts";
import { createSegmentStore } from "../../storage/segment-store.ts";
import { Core } from "./core.ts";
import { HandleMemory } from "./handle-memory.ts";
import type { CreatedVolume, CreateOptions, NativeVolume, OpenOptions, VolumeModules } from "./interface.ts";
import { limits } from "./limits.ts";
import { LockWitness, lockWitnessBytes } from "./lock-witness.ts";
import { memoryNames } from "./memory-names.ts";
import { memorySizes, refuseNewer } from "./newer.ts";
import { RequestMemory, requestMemoryBytes } from "./request-memory.ts";
import { destroyVolume, removeMemories } from "./offline.ts";
import type { MetadataCheck } from "./verify.ts";
import { type FoundLockState, LocalVolume, type VolumeSession } from "./native-volume.ts";

/** Birth epoch of everything made before the first snapshot. */
const firstEpoch = 1;

/** @throws FsError REFUSED: too few disks, disks that hold something, several on one device; EINVAL: no such redundancy. */
export async function createVolume(options: CreateOptions, modules: VolumeModules): Promise<CreatedVolume> {
	const redundancy = options.redundancy === undefined ? defaultRedundancy(options.diskPaths.length) : parseRedundancy(options.redundancy);
	const warnings = creationWarnings(options, width(redundancy), tolerance(redundancy));
	const log = logGeometry(await smallestCapacity(options.diskPaths, modules.platform));
	const roster = await createDiskSet(
		{
			name: options.name,
			unfinished: true,
			onAbandoned: (volume) => removeMemories(volume, modules.platform),
			paths: options.diskPaths,
			force: options.force ?? false,
			config: {
				redundancy: formatRedundancy(redundancy),
				tolerance: tolerance(redundancy),
				sameDevice: options.sameDevice,
				logSegmentBytes: options.logSegmentBytes ?? log.segmentBytes,
				logSegmentCount: options.logSegmentCount ?? log.segmentCount,
			},
		},
		modules,
	);
	await fillVolume(options, roster.volume, modules);
	return { id: roster.volume, redundancy: formatRedundancy(redundancy), warnings };
}

/** Everything up to the change of the roster that makes it a volume. What fails before is taken away again, as far as the disks let it. */
async function fillVolume(options: CreateOptions, volume: string, modules: VolumeModules): Promise<void> {
	const { name, diskPaths } = options;
	const memory = options.memory === undefined ? {} : { memory: options.memory };
	try {
		const opened = await openFloors({ name, diskPaths, acceptLoss: false, ...memory }, modules, volume);
		await opened.core.transactFirst((tx, context) => void makeRoot(tx, context, options.uid, options.gid));
		await opened.release(true);
	} catch (error) {
		await destroyVolume({ diskPaths, name, id: volume }, modules).catch((failure: unknown) =>
			modules.logger.warn("what was made of a volume could not be removed", { error: toFsError(failure, "volume.undo-create").message }),
		);
		throw error;
	}
}

/** Small disks get a small log: at most a sixteenth of the disk, but never less than the log can work with. */
function logGeometry(capacityBytes: number): { readonly segmentBytes: number; readonly segmentCount: number } {
	if (capacityBytes >= 16 * limits.logSegmentBytes * limits.logSegmentCount)
		return { segmentBytes: limits.logSegmentBytes, segmentCount: limits.logSegmentCount };
	const fitting = Math.floor(capacityBytes / 16 / limits.smallLogSegmentBytes);
	return {
		segmentBytes: limits.smallLogSegmentBytes,
		segmentCount: Math.max(limits.smallLogSegmentCount, Math.min(limits.logSegmentCount, fitting)),
	};
}

/** What is wrong with a path is said by the formatting itself. */
async function smallestCapacity(paths: readonly string[], platform: Platform): Promise<number> {
	let smallest = Number.POSITIVE_INFINITY;
	for (const path of paths) {
		const disk = await openDiskWithDeadlines(platform, path).catch(() => undefined);
		if (disk === undefined) continue;
		smallest = Math.min(smallest, (await disk.space().catch(() => undefined))?.capacityBytes ?? smallest);
		await disk.close();
	}
	return smallest;
}

function creationWarnings(options: CreateOptions, wanted: number, losses: number): string[] {
	const count = options.diskPaths.length;
	const warnings: string[] = [];
	if (count < wanted) {
		const message = `${options.redundancy ?? "the default"} needs ${wanted} disks, ${count} given`;
		if (!options.allowDegraded) {
			throw new FsError("REFUSED", "volume.create-few", `${message}: give more disks, or --allow-degraded to begin under-protected`, {
				wanted,
				count,
			});
		}
		warnings.push(`${message}: data is under-protected until more disks come`);
	}
	if (losses === 0) warnings.push("there is no redundancy: the loss of one disk loses data");
	if (options.sameDevice) warnings.push("disks on one device count as separate: the loss of that device loses everything");
	return warnings;
}

/** @throws FsError NOTFOUND (no disk of it), REFUSED (foreign disks, another daemon, a newer roster may exist), EIO (too much is lost). */
export async function openVolume(options: OpenOptions, modules: VolumeModules): Promise<NativeVolume> {
	const floors = await openFloors(options, modules);
	const { core, engine, disks } = floors;
	try {
		const root = await core.view((tx) => tx.get(inodeRecord, 1));
		if (root === undefined) {
			throw new FsError(
				"EIO",
				"volume.no-root",
				`volume ${options.name} has no root directory: its creation was interrupted; destroy it and create it again`,
			);
		}
		const volume = new LocalVolume(
			{ id: disks.roster.volume, name: options.name, ...(options.garbage && { garbage: options.garbage }) },
			{
				core,
				failed: floors.failed,
				release: floors.release,
				metadataBytes: (disk) => engine.metadataBytes(disk),
				metadataMembers: () => engine.members,
				metadataCopies: () => engine.copies,
				strays: () => engine.strays(),
				removeStray: (file) => engine.removeStray(file),
				verifyMetadata: async (repair) =>
					[await disks.verifySuperblocks(repair), await engine.verifyLog({ repair }), await engine.verifyRuns({ repair })].reduce(sum),
				session: floors.session,
				clientLocks: floors.clientLocks,
			},
		);
		await volume.start();
		return volume;
	} catch (error) {
		await floors.release(false).catch(() => {});
		throw error;
	}
}

function sum(a: MetadataCheck, b: MetadataCheck): MetadataCheck {
	return {
		checked: a.checked + b.checked,
		corrupt: a.corrupt + b.corrupt,
		repaired: a.repaired + b.repaired,
		unrecoverable: a.unrecoverable + b.unrecoverable,
		unchecked: a.unchecked + b.unchecked,
	};
}

interface Floors {
	readonly core: Core;
	readonly engine: LocalEngine;
	readonly disks: OpenDiskSet;
	readonly failed: Promise<Error>;
	readonly session: VolumeSession | undefined;
	readonly clientLocks: FoundLockState;
	/** Lets everything go; `clean` when nothing acknowledged is left in memory. */
	release(clean: boolean): Promise<void>;
}

/** `creating`: the volume that is just being made. */
async function openFloors(options: OpenOptions, modules: VolumeModules, creating?: string): Promise<Floors> {
	const { platform, logger } = modules;
	const undo: (() => Promise<void>)[] = [];
	try {
		const { diskPaths, acceptLoss, skipLocked = false } = options;
		const resumes = options.session?.resume === true;
		const beforeMount = (found: DiskSet): Promise<void> =>
			refuseNewer(found, platform, memorySizes(options.memory), { acceptLoss, resumes });
		const disks = await openDiskSet({ paths: diskPaths, acceptLoss, skipLocked, beforeMount, ...(creating && { creating }) }, modules);
		undo.push(() => disks.close());
		const { roster } = disks;
		if (roster.name !== options.name) {
			throw new FsError("REFUSED", "volume.name", `these disks belong to volume ${roster.name}, not ${options.name}`);
		}
		const memories = await openMemories(platform, roster.volume, options);
		const engine = await openLocalEngine({ acceptLoss: options.acceptLoss }, { platform, logger, disks, memory: memories.log });
		undo.push(() => engine.close());
		const store = createSegmentStore({}, { platform, logger, disks });
		undo.push(() => store.close());
		const dirty = createDirtyStore(
			{ volume: roster.volume, incarnation: roster.incarnation, opened: disks.opened },
			{ memory: memories.dirty, clock: platform.clock, ...(platform.simulation && { simulation: platform.simulation }) },
		);
		const core = new Core(
			{ epoch: firstEpoch },
			{ platform, logger, disks, engine, store, dirty, numbers: new NumberBlocks(), admissions: new AdmissionTable() },
		);
		await loadSpace(core);
		await core.loadProtections();
		await core.loadReserved();
		store.setReserve((disk, capacityBytes) => reserveBytes(engine.runBytes(disk), engine.spareBytes(disk), capacityBytes));
		await recoverDirty(core, dirty);
		const witness = new LockWitness(await platform.openMemory(memoryNames(roster.volume).witness, lockWitnessBytes), roster.volume);
		undo.push(() => witness.close());
		const kept = witness.isOf(disks.opened) && !acceptLoss;
		if (kept) witness.write(disks.roster.incarnation);
		else witness.clear();
		await disks.memoryTaken();
		const session = await openSession(options, roster.volume, platform);
		return {
			core,
			engine,
			disks,
			failed: failureOf(disks, engine, platform.clock),
			session,
			clientLocks: { witness, kept, clean: disks.opened.clean },
			release: (clean) => releaseFloors({ core, engine, disks, store, dirty, memories, session, witness, platform }, clean),
		};
	} catch (error) {
		for (const step of undo.reverse())
			await step().catch((failure: unknown) =>
				logger.warn("closing after a failed opening", { error: toFsError(failure, "volume.undo").message }),
			);
		throw error;
	}
}

async function openMemories(
	platform: Platform,
	volume: string,
	options: OpenOptions,
): Promise<{ readonly log: Memory; readonly dirty: Memory }> {
	const names = memoryNames(volume);
	const { logTailBytes, dirtyRingBytes } = memorySizes(options.memory);
	return { log: await platform.openMemory(names.log, logTailBytes), dirty: await platform.openMemory(names.dirty, dirtyRingBytes) };
}

interface OpenSession extends VolumeSession {
	readonly ends: () => boolean;
	readonly memories: readonly Memory[];
}

async function openSession({ session, memory: sizes }: OpenOptions, volume: string, platform: Platform): Promise<OpenSession | undefined> {
	if (session === undefined) return undefined;
	const names = memoryNames(volume);
	if (!session.resume) {
		await platform.removeMemory(names.handles);
		await platform.removeMemory(names.locks);
	}
	const { handleBytes: sessionBytes, lockBytes } = memorySizes(sizes);
	const handleBytes = sessionBytes - requestMemoryBytes;
	const memory = await platform.openMemory(names.handles, sessionBytes);
	const lockMemory = await platform.openMemory(names.locks, lockBytes);
	// A process that was killed while it opened has left the session as it was.
	let ends = false;
	const endWithVolume = (end: boolean): void => {
		ends = end;
	};
	const handles = new HandleMemory({ volume, session }, memory.bytes.subarray(0, handleBytes));
	const requests = new RequestMemory(memory.bytes.subarray(handleBytes, handleBytes + requestMemoryBytes));
	const locks = new LockMemory({ volume, session }, lockMemory.bytes);
	return { id: session.id, handles, requests, locks, endWithVolume, ends: () => ends, memories: [memory, lockMemory] };
}

/**
 * Room to grow beside what lies there already: merging rewrites the runs before the old ones go, the log may still get longer, and a volume that is full of data must be able to lose names. Part of that is set aside already.
 */
function reserveBytes(runBytes: number, spareBytes: number, capacityBytes: number): number {
	const room = Math.min(limits.reserveBytes, Math.floor(capacityBytes / limits.reserveFraction));
	return Math.max(runBytes, room - Math.min(spareBytes, room / 2));
}

async function loadSpace(core: Core): Promise<void> {
	const segments = [];
	for await (const segment of core.segments()) segments.push(segment);
	core.store.load(segments);
	await core.store.refreshSpace();
}

/** What was acknowledged before the process ended: pending records, and the ring's entries that metadata does not hold yet. */
async function recoverDirty(core: Core, dirty: RingDirtyStore): Promise<void> {
	const pendings: Pending[] = [];
	for (let after: string | undefined; ; ) {
		const from: string | undefined = after;
		const batch = await core.view((tx) =>
			tx.scan(pendingRecord, pendingRecord.prefix(), { limit: 64, ...(from === undefined ? {} : { after: from }) }),
		);
		for (const { value } of batch) pendings.push(value);
		if (batch.length < 64) break;
		after = batch[batch.length - 1]?.key;
	}
	const sealedThrough = new Map<Ino, number>();
	for (const ino of dirty.ringInodes()) {
		const inode = await core.view((tx) => tx.get(inodeRecord, ino));
		if (inode !== undefined) sealedThrough.set(ino, inode.sealedThrough);
	}
	const isNewer = (ino: Ino, writeNumber: number): boolean => writeNumber > (sealedThrough.get(ino) ?? Number.POSITIVE_INFINITY);
	const { replayed, skipped } = dirty.recover(pendings, isNewer);
	if (replayed > 0) core.logger.info("writes of the last daemon were taken over from memory", { replayed, skipped });
}

function failureOf(disks: DiskSet, engine: LocalEngine, clock: Clock): Promise<Error> {
	const failed = new Deferred<Error>();
	const look = (): void => {
		const error = disks.broken ?? engine.broken;
		if (error !== undefined) failed.resolve(error);
		else clock.after(limits.healthTickMs, look);
	};
	look();
	return failed.promise;
}

interface Opened {
	readonly core: Core;
	readonly engine: LocalEngine;
	readonly disks: OpenDiskSet;
	readonly store: SegmentStore;
	readonly dirty: RingDirtyStore;
	readonly memories: { readonly log: Memory; readonly dirty: Memory };
	readonly session: OpenSession | undefined;
	readonly witness: LockWitness;
	readonly platform: Platform;
}

/** The memory files go only after the roster says, durably, that they hold nothing. */
async function releaseFloors(opened: Opened, clean: boolean): Promise<void> {
	const { engine, disks, store, dirty, memories, session, witness, platform } = opened;
	await opened.core.stop();
	let tidy = clean;
	const attempt = async (what: string, step: () => Promise<void>): Promise<void> => {
		try {
			await step();
		} catch (error) {
			tidy = false;
			opened.core.logger.error(`${what} failed`, { error: toFsError(error, "volume.release").message });
		}
	};
	await attempt("closing the metadata engine", () => engine.close());
	await attempt("closing the data store", () => store.close());
	if (tidy) await attempt("marking the volume clean", () => markClean(disks, engine.statistics.generation));
	await dirty.close();
	await memories.log.close();
	await memories.dirty.close();
	for (const memory of session?.memories ?? []) await memory.close();
	await witness.close();
	// A successor that takes over at once finds clients as they were; after an end they may have gone meanwhile.
	if (tidy && (session === undefined || session.ends())) await platform.removeMemory(memoryNames(disks.roster.volume).witness);
	if (session?.ends() === true) {
		const { handles, locks } = memoryNames(disks.roster.volume);
		await platform.removeMemory(handles);
		await platform.removeMemory(locks);
	}
	if (tidy) {
		const names = memoryNames(disks.roster.volume);
		await platform.removeMemory(names.log);
		await platform.removeMemory(names.dirty);
	}
	await disks.close();
	if (clean && !tidy)
		throw new FsError(
			"EIO",
			"volume.unclean",
			"the volume could not be left clean: what was acknowledged stays in memory until the next mount on this machine",
		);
}
