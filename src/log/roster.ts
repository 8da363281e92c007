/**
 * The rules of the roster (architecture, section 4), as pure functions: what counts, what refuses, what a mount makes of it.
 *
 * Invariants
 *  R1 A change counts when it is durable on `rosterQuorum` of the disks that were `in` before and of those that are `in` afterwards.
 *     Nothing is acknowledged on the strength of a change that does not count.
 *  R2 So a newer roster can exist on missing disks alone only when at least a quorum of the `in` disks is missing: then mount refuses.
 *  R3 Every change raises the epoch by one; a mount also raises the incarnation, and makes at least two changes before its first
 *     acknowledgement, so that a change that did not count can never be newer than one that something was acknowledged on.
 *  R4 A mount that has no quorum is refused before it writes: a change that does not count is made only by disks that fail during it.
 */
import { latin1ToUtf8 } from "../base/bytes.ts";
import type { DiskId, LogEpoch, Roster, RosterDisk } from "./interface.ts";
import { reasonText } from "./superblock.ts";

/** How many of `disks` disks must know a change before it counts; `tolerance` = losses that the volume survives. */
export function rosterQuorum(disks: number, tolerance: number): number {
	return Math.max(1, disks - tolerance);
}

export function disksIn(roster: Roster): readonly RosterDisk[] {
	return roster.disks.filter((disk) => disk.membership === "in");
}

/** True when disks that know the change and are `in` are enough before and after it. */
export function changeCounts(before: Roster | undefined, after: Roster, written: ReadonlySet<DiskId>): boolean {
	return (before === undefined || enough(before, written)) && enough(after, written);
}

function enough(roster: Roster, written: ReadonlySet<DiskId>): boolean {
	const disks = disksIn(roster);
	return disks.filter((disk) => written.has(disk.id)).length >= rosterQuorum(disks.length, roster.config.tolerance);
}

/** How many disks mirror the log (W): one more than the losses that are survived, at least three where there are so many. Disks that are to be emptied mirror nothing. */
export function mirrorCount(roster: Roster): number {
	const usable = disksIn(roster).filter((disk) => disk.duty === "use").length;
	return Math.min(Math.max(3, roster.config.tolerance + 1), usable);
}

export function currentLogEpoch(roster: Roster): LogEpoch | undefined {
	return roster.logEpochs.at(-1);
}

export interface Refusal {
	readonly site: string;
	readonly message: string;
	readonly missing: readonly DiskId[];
}

/** Why a volume must not be mounted with only the disks in `found`; undefined when it may be. */
export function mountRefusal(roster: Roster, found: ReadonlySet<DiskId>): Refusal | undefined {
	const members = disksIn(roster);
	const missing = members.filter((disk) => !found.has(disk.id));
	const ids = missing.map((disk) => disk.id);
	const because = (site: string, why: string): Refusal => ({ site, missing: ids, message: refusalText(roster, missing, why) });
	if (missing.length > 0 && missing.length >= rosterQuorum(members.length, roster.config.tolerance)) {
		return because("log.roster-stale", "a newer state of the volume could exist on the missing disks alone");
	}
	// R4: a change tried all the same would tell those few disks that the others are out, and at the next mount they would be enough.
	if (missing.length > roster.config.tolerance)
		return because("log.too-many-missing", `it works without ${roster.config.tolerance} of them at most`);
	const epoch = currentLogEpoch(roster);
	if (epoch && !epoch.members.some((id) => found.has(id)))
		return because("log.mirrors-missing", "every mirror of the newest log is missing");
	if (roster.manifestDisks.length > 0 && !roster.manifestDisks.some((id) => found.has(id))) {
		return because("log.manifest-missing", "every disk that holds the metadata is missing");
	}
	return undefined;
}

function refusalText(roster: Roster, missing: readonly RosterDisk[], why: string): string {
	const names = missing.map((disk) => `d${disk.id} (${latin1ToUtf8(disk.path)})`).join(", ");
	return (
		`volume ${latin1ToUtf8(roster.name)}: ${missing.length} of its ${disksIn(roster).length} disks are missing (${names}), and ${why}. ` +
		`Bring them back and mount again. The disks that are here know the volume up to state ${roster.epoch} (mount ${roster.incarnation}): ` +
		"--accept-loss continues from there, and whatever was acknowledged after it is lost for good"
	);
}

/** Where a disk was found at mount. */
export interface FoundDisk {
	readonly path: string;
	readonly domain: string;
}

const replacedPrefix = "replaced by ";

/** The operator put another disk in its place: it does not come back by itself. */
export function wasReplaced(disk: RosterDisk): boolean {
	return disk.membership === "out" && disk.reason.startsWith(replacedPrefix);
}

export const givenUpReason = "the operator set it failed";

/** The operator does not want it used: it stays out over mounts. */
export function isGivenUp(disk: RosterDisk): boolean {
	return disk.isHealthSet && disk.health === "failed";
}

/**
 * The roster of a mount: what is found is in (a disk that was out comes back: its fragments are vouched for by checksums, its log and
 * runs are not named by this roster), what is missing is out.
 */
export function mountedRoster(roster: Roster, found: ReadonlyMap<DiskId, FoundDisk>): Roster {
	const disks = roster.disks.map((disk): RosterDisk => {
		const here = found.get(disk.id);
		if (wasReplaced(disk)) return disk;
		if (isGivenUp(disk)) return { ...disk, membership: "out", reason: givenUpReason };
		if (here) return { ...disk, ...here, membership: "in", reason: "" };
		return disk.membership === "out" ? disk : { ...disk, membership: "out", reason: "missing at mount" };
	});
	const { memoryIncarnation, ...rest } = roster;
	const next = { ...rest, disks, clean: false, incarnation: roster.incarnation + 1 };
	return roster.clean ? next : { ...next, memoryIncarnation: memoryIncarnation ?? roster.incarnation };
}

export function withDiskOut(roster: Roster, id: DiskId, reason: string): Roster {
	return changeDisk(roster, id, { membership: "out", reason: reasonText(reason) });
}

export function changeDisk(roster: Roster, id: DiskId, change: Partial<RosterDisk>): Roster {
	return { ...roster, disks: roster.disks.map((disk) => (disk.id === id ? { ...disk, ...change } : disk)) };
}

export function withDisksAdded(roster: Roster, added: readonly Omit<RosterDisk, "id">[], leaving: DiskId | undefined): Roster {
	const disks = [...roster.disks, ...added.map((disk, at) => ({ ...disk, id: roster.nextDiskId + at }))];
	const next = { ...roster, disks, nextDiskId: roster.nextDiskId + added.length };
	return leaving === undefined ? next : changeDisk(next, leaving, { duty: "leave" });
}

export function withDiskRemoved(roster: Roster, id: DiskId): Roster {
	return { ...roster, disks: roster.disks.filter((disk) => disk.id !== id) };
}

/** The roster needs the disk for what is not elsewhere yet; undefined when it does not. */
export function rosterNeeds(roster: Roster, id: DiskId): string | undefined {
	if (roster.manifestDisks.includes(id)) return "metadata";
	return roster.logEpochs.some((epoch) => epoch.members.includes(id)) ? "a mirror of the log" : undefined;
}

/** Puts a new disk in the place of another. The oldest replaced ones are forgotten when the list would grow beyond `maximum`. */
export function withReplacement(roster: Roster, added: Omit<RosterDisk, "id">, replaces: DiskId, maximum: number): Roster {
	const id = roster.nextDiskId;
	const out = withDiskOut(roster, replaces, `${replacedPrefix}d${id}`);
	const disks = [...out.disks, { ...added, id }];
	const needed = new Set([...roster.manifestDisks, ...roster.logEpochs.flatMap((epoch) => epoch.members)]);
	while (disks.length > maximum) {
		const oldest = disks.findIndex((disk) => wasReplaced(disk) && !needed.has(disk.id));
		if (oldest < 0) break;
		disks.splice(oldest, 1);
	}
	return { ...out, disks, nextDiskId: id + 1 };
}
