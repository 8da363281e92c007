/** Making disks: an empty directory or a blank raw device becomes a disk of a volume. Nothing that is not empty is written to, unless the operator gives a raw device up. */
import { allSettledOrThrow } from "../base/async.ts";
import { formatUuid, latin1ToUtf8, utf8ToLatin1 } from "../base/bytes.ts";
import { FsError } from "../base/errors.ts";
import { openDiskWithDeadlines } from "../platform/deadline.ts";
import type { Disk, Platform } from "../platform/interface.ts";
import type { FinderModules } from "./disk-finder.ts";
import type { Roster, RosterDisk, VolumeConfig } from "./interface.ts";
import { diskCallMs, maximumDisks } from "./limits.ts";
import { readSuperblock, rosterFault, SuperblockFile, superblockName } from "./superblock.ts";

/** Everything that a volume puts on a disk beside the superblock, which goes last, so that an interrupted removal is still recognised. */
export const diskFolders = ["pack", "kv", "log"] as const;

/** Removes what a volume has put on a disk, durably, and nothing else. Files that outlived their superblock in a power cut would be a stranger's for ever. */
export async function clearDisk(disk: Disk): Promise<void> {
	for (const folder of diskFolders) {
		for (const name of await disk.list(folder)) await disk.remove(`${folder}/${name}`);
		// Also when it was empty: what was removed before may not have been made durable.
		await disk.syncNames(folder, "log.disk-emptied");
	}
	await disk.remove(superblockName);
	await disk.syncNames("", "log.disk-cleared");
}

/** Made by locking a place before anything of a volume is in it; made by mkfs.ext4. */
export const harmlessNames: readonly string[] = ["lock", "lost+found/"];

export function newUuid(platform: Platform): string {
	const bytes = platform.random.bytes(16);
	bytes[6] = ((bytes[6] as number) & 0x0f) | 0x40;
	bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80;
	return formatUuid(bytes);
}

/**
 * A place is blank when it is empty, or holds only what an interrupted format left. `force` gives up what is foreign on a raw device.
 * Answers the volume whose creation was interrupted and has left its files there: nobody was ever promised anything of it, and `clearDisk` takes them away.
 * @throws FsError REFUSED for everything else.
 */
export async function refuseUnlessBlank(disk: Disk, force = false): Promise<string | undefined> {
	if (disk.foreign !== undefined) {
		if (force) {
			disk.disregard?.();
			return undefined;
		}
		const message = `${disk.path} holds ${disk.foreign}: if that may be overwritten, say --force`;
		throw new FsError("REFUSED", "log.foreign-contents", message, { path: disk.path });
	}
	const found = await readSuperblock(disk);
	const abandoned = found.kind === "valid" && found.superblock.roster.unfinished ? found.superblock.roster.volume : undefined;
	if (found.kind === "valid" && abandoned === undefined) throw alreadyDisk(disk.path, found.superblock.roster);
	const hasFile = abandoned !== undefined || (found.kind === "absent" && found.hasFile);
	const ours = abandoned === undefined ? [] : diskFolders.map((folder) => `${folder}/`);
	const stranger = await findStranger(disk, [...harmlessNames, ...ours, ...(hasFile ? [superblockName] : [])]);
	if (stranger === undefined) return abandoned;
	throw new FsError(
		"REFUSED",
		"log.not-empty",
		`${disk.path} is not empty (${stranger} is there): a disk is made from an empty place only`,
		{ path: disk.path },
	);
}

/** Empty folders of ours are what an interrupted removal leaves. */
async function findStranger(disk: Disk, allowed: readonly string[]): Promise<string | undefined> {
	for (const name of await disk.list("")) {
		if (allowed.includes(name)) continue;
		const folder = diskFolders.find((one) => name === `${one}/`);
		if (folder === undefined || (await disk.list(folder)).length > 0) return name;
	}
	return undefined;
}

function alreadyDisk(path: string, { name, volume }: Roster): FsError {
	const message =
		`${path} already is a disk of volume ${latin1ToUtf8(name)} (${volume}): choose an empty place. ` +
		`That volume is mounted with \`cairn mount ${latin1ToUtf8(name)} DIR --disk ${path}\`, and removed with \`cairn destroy ${latin1ToUtf8(name)} --yes ${latin1ToUtf8(name)} --disk ${path}\``;
	return new FsError("REFUSED", "log.already-disk", message, { path, volume });
}

/** Two disks of one device fail together. @throws FsError REFUSED unless `sameDevice`. */
export function refuseSharedDomain(
	disks: readonly { readonly path: string; readonly domain: string }[],
	sameDevice: boolean,
	hint = "or say --same-device",
): void {
	if (sameDevice) return;
	const byDomain = new Map<string, string>();
	for (const { path, domain } of disks) {
		const other = byDomain.get(domain);
		if (other !== undefined) {
			throw new FsError(
				"REFUSED",
				"log.same-device",
				`${other} and ${path} are on one device and would fail together: use another device, ${hint}`,
				{
					paths: [other, path],
				},
			);
		}
		byDomain.set(domain, path);
	}
}

export interface CreateOptions {
	/** ASCII, as the command line checks it. */
	readonly name: string;
	readonly paths: readonly string[];
	readonly config: VolumeConfig;
	/** Milliseconds until a disk counts as hung; default limits.diskCallMs. */
	readonly callMs?: number;
	/** Overwrites what is foreign on raw devices. */
	readonly force?: boolean;
	/** More has to be done before it is a volume: until `markClean` only `openDiskSet` with `creating` opens it. */
	readonly unfinished?: boolean;
	/** Told of each volume whose interrupted creation is about to be removed from these disks. */
	readonly onAbandoned?: (volume: string) => Promise<void>;
}

/**
 * Formats new disks for a new volume and closes them again; `openDiskSet` mounts it. Everything is checked on all disks before anything
 * is written on one; when writing fails, what was made is removed.
 * @throws FsError REFUSED (not empty, already a disk, same device, in use), EINVAL (names, paths, segments), and what disks throw.
 */
export async function createDiskSet(options: CreateOptions, modules: FinderModules): Promise<Roster> {
	checkOptions(options);
	const callMs = options.callMs ?? diskCallMs;
	const { platform } = modules;
	const disks: Disk[] = [];
	try {
		for (const path of options.paths) disks.push(await openDiskWithDeadlines(platform, path, { callMs }));
		for (const disk of disks) await refuseUnlessBlank(disk, options.force);
		refuseSharedDomain(disks, options.config.sameDevice);
		for (const disk of disks) await lockDisk(disk);
		await clearAbandoned(disks, options.onAbandoned);
		const roster = firstRoster(options, disks, platform);
		await formatAll(disks, roster);
		return roster;
	} finally {
		await Promise.allSettled(disks.map((disk) => disk.close()));
	}
}

/** Under the locks: until then another command may have been making a volume there. */
async function clearAbandoned(disks: readonly Disk[], onAbandoned: CreateOptions["onAbandoned"]): Promise<void> {
	const volumes = new Map<Disk, string>();
	for (const disk of disks) {
		const volume = await refuseUnlessBlank(disk);
		if (volume !== undefined) volumes.set(disk, volume);
	}
	for (const volume of new Set(volumes.values())) await onAbandoned?.(volume);
	for (const disk of volumes.keys()) await clearDisk(disk);
}

function checkOptions(options: CreateOptions): void {
	const invalid = (message: string): FsError => new FsError("EINVAL", "log.create-options", message);
	if (!/^[\x21-\x7e]{1,255}$/.test(options.name))
		throw invalid(`${JSON.stringify(options.name)} is no name for a volume: use 1 to 255 ASCII characters without blanks`);
	if (options.paths.length === 0) throw invalid("a volume needs at least one disk");
	if (options.paths.length > maximumDisks) throw invalid(`a volume has at most ${maximumDisks} disks`);
	if (new Set(options.paths).size !== options.paths.length) throw invalid("a disk is named twice");
}

function firstRoster(options: CreateOptions, disks: readonly Disk[], platform: Platform): Roster {
	const roster: Roster = {
		volume: newUuid(platform),
		name: options.name,
		epoch: 1,
		incarnation: 0,
		createdAt: platform.clock.realtime(),
		config: options.config,
		disks: disks.map((disk, index) => rosterEntry(disk, index + 1, newUuid(platform))),
		nextDiskId: disks.length + 1,
		logEpochs: [],
		manifestDisks: [],
		manifestGeneration: 0,
		clean: true,
		...(options.unfinished ? { unfinished: true } : {}),
	};
	const fault = rosterFault(roster);
	if (fault !== undefined) throw new FsError("EINVAL", "log.create-roster", `volume ${options.name} cannot be made: ${fault}`);
	return roster;
}

export function rosterEntry(disk: Disk, id: number, uuid: string): RosterDisk {
	return {
		id,
		uuid,
		path: utf8ToLatin1(disk.path),
		membership: "in",
		duty: "use",
		health: "healthy",
		isHealthSet: false,
		domain: utf8ToLatin1(disk.domain),
		reason: "",
	};
}

/** @throws FsError REFUSED when somebody else has it. */
export async function lockDisk(disk: Disk): Promise<void> {
	try {
		await disk.lock();
	} catch (error) {
		if (!(error instanceof FsError) || error.code !== "EBUSY") throw error;
		throw new FsError("REFUSED", "log.locked", error.message, { path: disk.path }, error);
	}
}

async function formatAll(disks: readonly Disk[], roster: Roster): Promise<void> {
	try {
		await allSettledOrThrow(
			disks.map(async (disk, index) => {
				const file = await SuperblockFile.format(disk);
				await file.write({ diskUuid: (roster.disks[index] as RosterDisk).uuid, roster });
			}),
		);
	} catch (error) {
		// Best effort: what cannot be removed is found as a disk of a volume that was never finished, and said so.
		await Promise.allSettled(disks.map((disk) => disk.remove(superblockName)));
		throw error;
	}
}
