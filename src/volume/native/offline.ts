/** What can be said of, and done with, a volume that no daemon serves. */
import { latin1ToUtf8 } from "../../base/bytes.ts";
import { FsError } from "../../base/errors.ts";
import { clearDisk, diskFolders } from "../../log/disk-format.ts";
import { inspectDisks } from "../../log/disk-set.ts";
import { inspectCallMs } from "../../log/limits.ts";
import { currentLogEpoch, wasReplaced } from "../../log/roster.ts";
import { reasonText } from "../../log/superblock.ts";
import { openDiskWithDeadlines } from "../../platform/deadline.ts";
import type { Disk } from "../../platform/interface.ts";
import type { OfflineDisk, OfflineVolume, VolumeModules } from "./interface.ts";
import { memoryNames } from "./memory-names.ts";

/** From superblocks alone, without locks and changing nothing. @throws FsError NOTFOUND when no disk of a volume is at these paths. */
export async function inspectVolume(options: { readonly diskPaths: readonly string[] }, modules: VolumeModules): Promise<OfflineVolume> {
	const { roster, found, absent } = await inspectDisks(options.diskPaths, modules);
	const metadata = new Set([...roster.manifestDisks, ...(currentLogEpoch(roster)?.members ?? [])]);
	const disks: OfflineDisk[] = [];
	for (const entry of roster.disks) {
		if (wasReplaced(entry)) continue;
		const path = found.find((one) => one.id === entry.id)?.path;
		const space = path === undefined ? undefined : await spaceOf(path, modules);
		disks.push({
			id: `d${entry.id}`,
			path: path ?? entry.path,
			state: path === undefined ? "missing" : entry.membership === "out" ? "failed" : entry.duty === "use" ? "healthy" : "draining",
			reason: path === undefined ? reasonText(absent.get(latin1ToUtf8(entry.path)) ?? "not found") : entry.reason,
			capacityBytes: space?.capacityBytes ?? 0,
			freeBytes: space?.freeBytes ?? 0,
			metadata: metadata.has(entry.id),
		});
	}
	const { redundancy, sameDevice } = roster.config;
	return { id: roster.volume, name: roster.name, redundancy, clean: roster.clean, sameDevice, disks };
}

async function spaceOf(path: string, modules: VolumeModules): Promise<{ capacityBytes: number; freeBytes: number } | undefined> {
	const disk = await openDiskWithDeadlines(modules.platform, path, { callMs: inspectCallMs }).catch(() => undefined);
	if (disk === undefined) return undefined;
	try {
		return await disk.space().catch(() => undefined);
	} finally {
		await disk.close().catch(() => undefined);
	}
}

/**
 * Removes what this volume has on the disks at these paths, and nothing else. All disks are locked before the first file goes.
 * `id`: of exactly this volume, whatever others have the name.
 * @throws FsError REFUSED: a daemon has a disk, or a disk belongs to another volume.
 */
export async function destroyVolume(
	options: { readonly diskPaths: readonly string[]; readonly name: string; readonly id?: string },
	modules: VolumeModules,
): Promise<{ readonly removedDisks: readonly string[] }> {
	const { roster, found } = await inspectDisks(options.diskPaths, modules);
	if (roster.name !== options.name || (options.id ?? roster.volume) !== roster.volume) {
		throw new FsError(
			"REFUSED",
			"volume.destroy-name",
			`the disks belong to volume ${roster.name}, not ${options.name}: nothing was removed`,
		);
	}
	const disks: Disk[] = [];
	try {
		for (const { path } of found) {
			const disk = await openDiskWithDeadlines(modules.platform, path);
			disks.push(disk);
			await disk.lock();
		}
		// With the last superblock goes what tells whose they are.
		await removeMemories(roster.volume, modules.platform);
		for (const disk of disks) await clearDisk(disk);
	} finally {
		await Promise.allSettled(disks.map((disk) => disk.close()));
	}
	for (const { path } of found) await removeShell(path, modules);
	return { removedDisks: found.map(({ path }) => path) };
}

export async function removeMemories(volume: string, platform: VolumeModules["platform"]): Promise<void> {
	for (const name of Object.values(memoryNames(volume))) await platform.removeMemory(name);
}

/** The empty folders and the lock file: the directory is then as blank as it was given. */
export async function removeShell(path: string, { platform }: Pick<VolumeModules, "platform">): Promise<void> {
	if ((await platform.files.kind(path)) !== "directory") return;
	for (const name of [...diskFolders, "lock"]) await platform.files.remove(`${path}/${name}`);
}
