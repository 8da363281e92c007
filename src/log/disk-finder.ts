/**
 * Finding the disks of a volume: every given path is looked at, and every path that a roster found there names, so that any one disk
 * finds the others. Nothing is written and nothing is locked here.
 */
import { latin1ToUtf8 } from "../base/bytes.ts";
import { FsError, isFsError, toFsError, isNewerFormat } from "../base/errors.ts";
import type { Logger } from "../base/telemetry.ts";
import { openDiskWithDeadlines } from "../platform/deadline.ts";
import type { Disk, Platform } from "../platform/interface.ts";
import type { Roster } from "./interface.ts";
import { maximumDisks } from "./limits.ts";
import { compareRosters, readSuperblock, type Superblock } from "./superblock.ts";

export interface FinderModules {
	readonly platform: Platform;
	readonly logger: Logger;
}

/** A disk of some volume, open. */
export interface Candidate {
	readonly path: string;
	/** False when only a roster named this path. */
	readonly given: boolean;
	readonly disk: Disk;
	readonly superblock: Superblock;
	readonly slot: 0 | 1;
	readonly damagedSlots: number;
}

export interface Findings {
	readonly candidates: readonly Candidate[];
	/** Paths without a usable disk, and why. */
	readonly absent: ReadonlyMap<string, string>;
	/** Those of them that did not answer in time. */
	readonly hanging: ReadonlySet<string>;
}

/** @throws FsError REFUSED when a disk has a newer format. The caller closes the candidates. */
export async function findDisks(paths: readonly string[], callMs: number, modules: FinderModules): Promise<Findings> {
	const candidates: Candidate[] = [];
	const absent = new Map<string, string>();
	const hanging = new Set<string>();
	const tried = new Set<string>();
	try {
		await look(paths, true);
		// A roster found by the first look may name paths whose disks name further ones.
		for (let next = untriedPaths(candidates, tried); next.length > 0; next = untriedPaths(candidates, tried)) await look(next, false);
	} catch (error) {
		await closeAll(candidates);
		throw error;
	}
	return { candidates, absent, hanging };

	async function look(at: readonly string[], given: boolean): Promise<void> {
		const fresh = [...new Set(at)].filter((path) => !tried.has(path));
		for (const path of fresh) tried.add(path);
		if (tried.size > 4 * maximumDisks)
			throw new FsError("E2BIG", "log.too-many-paths", `more than ${4 * maximumDisks} places to look for disks`);
		const results = await Promise.allSettled(fresh.map((path) => tryPath(path, given, callMs, modules, absent, hanging)));
		for (const result of results) if (result.status === "fulfilled" && result.value) candidates.push(result.value);
		for (const result of results) if (result.status === "rejected") throw result.reason;
	}
}

async function tryPath(
	path: string,
	given: boolean,
	callMs: number,
	modules: FinderModules,
	absent: Map<string, string>,
	hanging: Set<string>,
): Promise<Candidate | undefined> {
	let disk: Disk | undefined;
	try {
		disk = await openDiskWithDeadlines(modules.platform, path, { callMs });
		const found = await readSuperblock(disk);
		if (found.kind === "valid")
			return { path, given, disk, superblock: found.superblock, slot: found.slot, damagedSlots: found.damagedSlots };
		absent.set(path, found.kind === "damaged" ? `its superblock is damaged: ${found.reason}` : (disk.foreign ?? "no CairnFS disk there"));
	} catch (error) {
		if (isNewerFormat(error) || (given && isFsError(error, "REFUSED"))) {
			if (disk) closeQuietly(disk, modules.logger);
			throw error;
		}
		absent.set(path, toFsError(error, "log.look").message);
		if (isFsError(error, "ETIMEDOUT")) hanging.add(path);
	}
	if (disk) closeQuietly(disk, modules.logger);
	return undefined;
}

/** Paths in the newest roster of each volume found, of disks that were not found. */
function untriedPaths(candidates: readonly Candidate[], tried: ReadonlySet<string>): string[] {
	const uuids = new Set(candidates.map((candidate) => candidate.superblock.diskUuid));
	const paths: string[] = [];
	for (const roster of newestRosters(candidates)) {
		for (const disk of roster.disks) {
			const path = latin1ToUtf8(disk.path);
			if (!uuids.has(disk.uuid) && !tried.has(path)) paths.push(path);
		}
	}
	return paths;
}

function newestRosters(candidates: readonly Candidate[]): readonly Roster[] {
	const newest = new Map<string, Roster>();
	for (const { superblock } of candidates) {
		const known = newest.get(superblock.roster.volume);
		if (!known || compareRosters(superblock.roster, known) > 0) newest.set(superblock.roster.volume, superblock.roster);
	}
	return [...newest.values()];
}

/**
 * The roster that counts among disks of one volume. Two different rosters of one epoch and incarnation can only be changes that never
 * counted (rule R3): the one on more disks is taken, so that every look gives the same answer.
 */
export function newestRoster(candidates: readonly Candidate[], plantedBug = false): Roster {
	const votes = new Map<string, { roster: Roster; count: number }>();
	for (const { superblock } of candidates) {
		const key = JSON.stringify(superblock.roster);
		const vote = votes.get(key);
		if (vote) vote.count++;
		else votes.set(key, { roster: superblock.roster, count: 1 });
	}
	const order = [...votes.entries()].sort(
		([aKey, a], [bKey, b]) => compareRosters(b.roster, a.roster) || b.count - a.count || (aKey < bKey ? -1 : 1),
	);
	const best = plantedBug ? order.at(-1) : order[0];
	if (!best) throw new FsError("NOTFOUND", "log.no-candidates", "no disk of the volume was found");
	return best[1].roster;
}

/** A close that hangs or fails changes nothing any more; it is said and forgotten. */
export function closeQuietly(disk: Disk, logger: Logger): void {
	disk.close().catch((error: unknown) => logger.debug("closing a disk failed", { path: disk.path, error: String(error) }));
}

export async function closeAll(candidates: readonly { readonly disk: Disk }[]): Promise<void> {
	await Promise.allSettled(candidates.map(({ disk }) => disk.close()));
}
