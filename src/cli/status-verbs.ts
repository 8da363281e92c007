/** status, volumes, disk list, explain: what there is and how it is. */
import { FsError } from "../base/errors.ts";
import { parseTime } from "../base/time.ts";
import { exitCodes } from "../daemon/exit-codes.ts";
import { cairnMounts, mountState } from "../daemon/mountpoint.ts";
import { printable, printableDeep } from "../daemon/text.ts";
import type { DaemonStatus } from "../daemon/verbs.ts";
import type { Explanation, LedgerCause, OfflineVolume } from "../volume/native/interface.ts";
import { sameDeviceWarning } from "../volume/native/status.ts";
import { balancingText } from "./balance-verb.ts";
import { scrubLine } from "./scrub-verbs.ts";
import { callDaemon, type Context, findDaemon, type Outcome } from "./context.ts";
import { takenText } from "./export-verbs.ts";
import { counted, formatAge, formatBytes, formatDuration, formatTable, paintState } from "./format.ts";

/** Fields that nobody knows while no daemon serves the volume are null. */
type Unknown<T> = { readonly [K in keyof T]: T[K] | null };
interface StoppedDisk extends Unknown<Pick<DaemonStatus["disks"][number], "tier" | "errors">> {
	readonly id: string;
	readonly path: string;
	readonly state: string;
	readonly reason: string;
	readonly capacityBytes: number | null;
	readonly usedBytes: number | null;
	readonly metadata: boolean;
}

export interface StoppedStatus
	extends Unknown<Pick<DaemonStatus, "pid" | "capacityBytes" | "usedBytes" | "freeBytes" | "redundancy" | "id">> {
	readonly volume: string;
	readonly state: "stopped" | "starting" | "failed";
	readonly mounts: readonly string[];
	readonly protection: Unknown<Omit<DaemonStatus["protection"], "targets" | "shortages">> &
		Pick<DaemonStatus["protection"], "targets" | "shortages">;
	readonly disks: readonly StoppedDisk[];
	readonly healing: Unknown<DaemonStatus["healing"]>;
	readonly warnings: readonly string[];
}

type AnyStatus = DaemonStatus | StoppedStatus;
type MetadataShown = Pick<DaemonStatus, "metadataCopies" | "metadataProvenAt">;

async function statusOf(context: Context, name: string): Promise<AnyStatus> {
	const client = await findDaemon(context, name);
	if (!client) return stoppedStatus(context, name);
	try {
		const answer = (await client.call("status")) as Partial<DaemonStatus> & { state: string; pid: number; mounts: readonly string[] };
		if (answer.disks) return answer as DaemonStatus;
		return { ...nothingKnown(name), state: answer.state as StoppedStatus["state"], pid: answer.pid, mounts: answer.mounts };
	} finally {
		client.close();
	}
}

const nothingKnown = (name: string): StoppedStatus => ({
	volume: name,
	id: null,
	state: "stopped",
	pid: null,
	mounts: [],
	redundancy: null,
	capacityBytes: null,
	usedBytes: null,
	freeBytes: null,
	protection: {
		fullBytes: null,
		provenBytes: null,
		oldestProofAt: null,
		degradedBytes: null,
		lostBytes: null,
		countedAt: null,
		targets: [],
		shortages: [],
		leavingBytes: null,
	},
	disks: [],
	healing: { active: false, remainingBytes: null, etaSeconds: null, doneBytes: null, startedAt: null, paused: null, tranquility: null },
	warnings: [],
});

async function stoppedStatus(context: Context, name: string): Promise<StoppedStatus> {
	const entry = await context.home.require(name);
	const { platform, logger } = context;
	const warnings = await deadMountWarnings(context, name);
	let volume: OfflineVolume;
	try {
		volume = printableDeep(await context.offline.inspectVolume({ diskPaths: entry.diskPaths }, { platform, logger }));
	} catch (error) {
		const why = error instanceof Error ? printable(error.message) : String(error);
		return { ...nothingKnown(name), state: "failed", id: entry.id, warnings: [why, ...warnings] };
	}
	if (volume.sameDevice) warnings.push(sameDeviceWarning);
	if (!volume.clean) warnings.push("it was not unmounted cleanly: the next mount recovers what was acknowledged");
	const missing = volume.disks.filter((disk) => disk.state === "missing");
	for (const disk of missing) warnings.push(`disk ${disk.id} (${disk.path}) is missing: ${disk.reason}`);
	return { ...nothingKnown(name), id: volume.id, redundancy: volume.redundancy, disks: volume.disks.map(stoppedDisk), warnings };
}

/** What a device holds is no measure of what the volume can: disks may share it, reserves are taken off. The daemon knows. */
function stoppedDisk({ id, path, state, reason, metadata }: OfflineVolume["disks"][number]): StoppedDisk {
	return { id, path, state, reason, tier: null, capacityBytes: null, usedBytes: null, errors: null, metadata };
}

async function deadMountWarnings(context: Context, name: string): Promise<string[]> {
	const { fuse } = context.platform;
	if (!fuse) return [];
	const warnings: string[] = [];
	for (const { mountpoint, name: other } of await cairnMounts(fuse).catch(() => [])) {
		if (other !== name || (await mountState(mountpoint, context.platform)) !== "dead") continue;
		warnings.push(`${mountpoint} is still mounted but its daemon is gone: mount again, or cairn umount ${mountpoint}`);
	}
	return warnings;
}

export async function status(context: Context, name: string | undefined): Promise<Outcome> {
	if (name !== undefined) {
		const one = await statusOf(context, name);
		return { exitCode: exitCodes.done, json: one, text: statusText(context, one) };
	}
	const all: AnyStatus[] = [];
	for (const known of await context.home.list()) all.push(await statusOf(context, known));
	const text = all.map((one) => statusText(context, one)).join("\n");
	return { exitCode: exitCodes.done, json: all, text: text === "" ? noVolumes(context) : text };
}

const noVolumes = (context: Context): string =>
	`no volumes are known under ${context.home.path}. Make one: cairn create NAME --disk PATH...\n`;

function statusText(context: Context, one: AnyStatus): string {
	const { paint } = context;
	const { protection } = one;
	const head = [paint("bold", one.volume), paintState(one.state, paint), one.redundancy ?? "", one.pid === null ? "" : `pid ${one.pid}`];
	const lines = [head.filter((word) => word !== "").join("  ")];
	const options = "mountOptions" in one && one.mountOptions.length > 0 ? `  (${one.mountOptions.join()})` : "";
	for (const mountpoint of one.mounts) lines.push(`  mounted on  ${mountpoint}${options}`);
	if (protection.fullBytes !== null) {
		const { degradedBytes, lostBytes } = protection;
		const lost = lostBytes ? paint("red", `${formatBytes(lostBytes)} lost`) : "nothing lost";
		const degraded = degradedBytes ? paint("yellow", `${formatBytes(degradedBytes)} degraded`) : "nothing degraded";
		lines.push(`  protection  ${fullText(context, protection)}, ${degraded}, ${lost}${countedText(context, protection.countedAt)}`);
		const reserved = "reservedBytes" in one && one.reservedBytes > 0 ? `${formatBytes(one.reservedBytes)} reserved, ` : "";
		const free = `${formatBytes(one.freeBytes)} free of ${formatBytes(one.capacityBytes)}`;
		lines.push(`  space       ${formatBytes(one.usedBytes)} used, ${reserved}${free}`);
		for (const text of healingTexts(one)) lines.push(`  healing     ${text}`);
	}
	if ("balancing" in one && one.balancing.active) lines.push(`  balance     ${balancingText(one.balancing)}`);
	if ("garbage" in one && one.garbage.bytes + one.garbage.unaccountedBytes > 0)
		lines.push(
			`  garbage     ${formatBytes(one.garbage.bytes + one.garbage.unaccountedBytes)} that nothing names (cairn verify ${one.volume} --garbage)`,
		);
	if ("scrub" in one) lines.push(`  scrub       ${scrubLine(context, one.scrub)}`);
	if ("doors" in one && one.doors.nfs !== null && one.doors.nfs.exports > 0) lines.push(`  NFS         ${nfsText(context, one.doors.nfs)}`);
	if ("nativeReads" in one && one.nativeReads !== null) lines.push(`  native      ${nativeText(context, one.nativeReads)}`);
	if ("metadataCopies" in one) lines.push(`  metadata    ${metadataText(context, one)}`);
	const warnings = one.warnings.map((text) => `  ${paint("yellow", "warning")}     ${text}\n`).join("");
	return `${lines.join("\n")}\n${warnings}${one.disks.length === 0 ? "" : diskTable(context, one.disks)}`;
}

function nativeText({ paint }: Context, reads: NonNullable<DaemonStatus["nativeReads"]>): string {
	if (reads.unavailable !== null) return paint("yellow", `reads: not used: ${reads.unavailable}`);
	const staged = `${counted(reads.stagedFiles, "file")} staged (${formatBytes(reads.stagedBytes)} of ${formatBytes(reads.spaceBytes)})`;
	return `reads: ${staged}, open ${counted(reads.handles, "time")}`;
}

function nfsText(
	{ paint }: Context,
	{ exports, port, portMapper, connections, trouble, takenByOthers, locksUnfound, locks }: NonNullable<DaemonStatus["doors"]["nfs"]>,
): string {
	if (trouble !== "") return paint("yellow", `${counted(exports, "export")}, not served: ${trouble}`);
	const clients = [...new Set(connections.map(({ address }) => address))];
	const who = clients.length === 0 ? "no clients" : `clients: ${clients.slice(0, 5).join(", ")}${clients.length > 5 ? " …" : ""}`;
	const taken = takenByOthers.length === 0 ? "" : paint("yellow", `, ${takenText(takenByOthers)}`);
	const unfound = locksUnfound === "" || portMapper === "none" ? "" : paint("yellow", ", clients must mount with nolock");
	const locking = locks.clients.length === 0 ? "" : `, ${counted(locks.clients.length, "client")} with locks`;
	const grace =
		locks.grace === null
			? ""
			: paint("yellow", `, grace for ${formatDuration(locks.grace.leftMs / 1000)}: clients get back what they had locked`);
	return `${counted(exports, "export")} on port ${port}, ${counted(connections.length, "connection")}, ${who}${locking}${grace}${taken}${unfound}`;
}

/** A count that is not of this moment says so. */
function countedText({ platform, paint }: Context, countedAt: string | null): string {
	const now = platform.clock.realtime();
	const isOld = countedAt !== null && now.seconds - (parseTime(countedAt) ?? now.seconds) >= 5;
	return isOld ? paint("dim", ` (counted ${formatAge(countedAt, now)})`) : "";
}

/** Why bytes are not as safe as they should be. */
export const causeTexts: Readonly<Record<LedgerCause, string>> = {
	waiting: "the healer has yet to come to them",
	paused: "the healer is paused",
	awaited: "a lost disk is expected back, or another in its place, for ten minutes",
	"no-space": "the disks that fit have no room for them",
	"no-disk": "there is no other disk that fits",
	lost: "lost, wholly or in part: too many of their fragments are gone or damaged",
};

/** How many copies there are, and when they were last read from the disks. */
export function metadataText({ platform }: Context, { metadataCopies, metadataProvenAt }: MetadataShown): string {
	const proven = metadataProvenAt === null ? "not proven by reading" : `proven ${formatAge(metadataProvenAt, platform.clock.realtime())}`;
	return `${metadataCopies.present} of ${metadataCopies.wanted} copies, ${proven}`;
}

/** "In full" is said of what was read and found right; the rest is what records say. */
function fullText({ paint, platform }: Context, { fullBytes, provenBytes, oldestProofAt }: AnyStatus["protection"]): string {
	const proven = provenBytes ?? 0;
	const recorded = (fullBytes ?? 0) - proven;
	const age = oldestProofAt === null ? "" : ` (oldest proof ${formatAge(oldestProofAt, platform.clock.realtime())})`;
	const said = recorded > 0 ? paint("dim", `${formatBytes(recorded)} recorded, not yet proven`) : "";
	if (recorded === 0) return `${formatBytes(proven)} proven in full${age}`;
	return proven === 0 ? said : `${formatBytes(proven)} proven in full${age}, ${said}`;
}

function healingTexts({ volume, healing, protection }: AnyStatus): string[] {
	const { active, remainingBytes, etaSeconds, doneBytes, paused } = healing;
	if ((remainingBytes ?? 0) === 0)
		return [paused === true ? `nothing to do, and paused until cairn heal ${volume} --resume` : "nothing to do"];
	if (paused === true) return [`paused: ${formatBytes(remainingBytes)} wait until cairn heal ${volume} --resume`];
	const done = (doneBytes ?? 0) === 0 ? "" : `${formatBytes(doneBytes)} done, `;
	const eta = etaSeconds === null ? "" : `, about ${formatDuration(etaSeconds)}`;
	const work = active === true ? [`${done}${formatBytes(remainingBytes)} to do${eta}`] : [];
	const held = protection.shortages
		.filter(({ cause }) => cause !== "lost" && cause !== "paused" && (cause !== "waiting" || active !== true))
		.map(({ cause, bytes }) => `${formatBytes(bytes)} wait: ${causeTexts[cause]} (cairn ledger ${volume} tells more)`);
	const leaving = protection.leavingBytes ?? 0;
	const leave =
		active === true || leaving === 0 ? [] : [`${formatBytes(leaving)} that are to leave a disk wait for their turn, or for room on others`];
	return [...work, ...held, ...leave];
}

function diskTable({ paint }: Context, disks: AnyStatus["disks"]): string {
	const rows = disks.map((disk) => [
		`  ${disk.id}`,
		paintState(disk.state, paint),
		disk.metadata ? "data, metadata" : "data",
		disk.usedBytes === null ? "-" : formatBytes(disk.usedBytes),
		disk.capacityBytes === null ? "-" : formatBytes(disk.capacityBytes),
		disk.errors === null ? "-" : String(disk.errors),
		`${disk.path}${disk.reason === "" ? "" : ` (${disk.reason})`}`,
	]);
	return formatTable(["  DISK", "STATE", "HOLDS", "USED", "CAPACITY", "ERRORS", "PATH"], rows, [3, 4, 5]);
}

export async function volumes(context: Context): Promise<Outcome> {
	const list: { volume: string; state: string; redundancy: string | null; disks: number; mounts: readonly string[]; pid: number | null }[] =
		[];
	for (const name of await context.home.list()) {
		const { volume, state, redundancy, disks, mounts, pid } = await statusOf(context, name);
		list.push({ volume, state, redundancy, disks: disks.length, mounts, pid });
	}
	const rows = list.map((one) => [
		one.volume,
		paintState(one.state, context.paint),
		one.redundancy ?? "-",
		one.disks === 0 ? "-" : String(one.disks),
		one.mounts.join(", ") || "-",
	]);
	const text = list.length === 0 ? noVolumes(context) : formatTable(["VOLUME", "STATE", "REDUNDANCY", "DISKS", "MOUNTED ON"], rows, [3]);
	return { exitCode: exitCodes.done, json: list, text };
}

export async function diskList(context: Context, name: string): Promise<Outcome> {
	const { disks } = await statusOf(context, name);
	return { exitCode: exitCodes.done, json: disks, text: diskTable(context, disks) };
}

interface Inside {
	readonly full: string;
	readonly mount: { readonly name: string; readonly mountpoint: string };
	/** From the volume's root, "" = the root. */
	readonly relative: string;
}

/** The mounted volume in which a path lies. */
export async function insideVolume(context: Context, path: string): Promise<Inside> {
	const { fuse } = context.platform;
	const full = await context.processes.canonicalParent(path);
	const mounts = fuse ? await cairnMounts(fuse) : [];
	const inside = mounts.filter(({ mountpoint }) => full === mountpoint || full.startsWith(mountpoint === "/" ? "/" : `${mountpoint}/`));
	const mount = inside.sort((a, b) => b.mountpoint.length - a.mountpoint.length)[0];
	if (!mount) throw new FsError("NOTFOUND", "cli.outside", `${full} is in no mounted volume`);
	return { full, mount, relative: full.slice(mount.mountpoint.length).replace(/^\/+/, "") };
}

/** A path from the volume's root as people know it. */
export function shownSource(from: string, mountpoint: string): string {
	return from.startsWith("/") ? `${mountpoint === "/" ? "" : mountpoint}${from}` : from;
}

export function absent(full: string, error: unknown): never {
	if (!(error instanceof FsError) || error.code !== "ENOENT") throw error;
	throw new FsError("ENOENT", "cli.absent", `${full} does not exist`, {}, error);
}

export async function explain(context: Context, path: string): Promise<Outcome> {
	const { full, mount, relative } = await insideVolume(context, path);
	const answer = await callDaemon<Explanation>(context, mount.name, "explain", { path: relative }).catch((error: unknown) =>
		absent(full, error),
	);
	const redundancy = { ...answer.redundancy, from: shownSource(answer.redundancy.from, mount.mountpoint) };
	const found = { ...answer, redundancy, path: full };
	return { exitCode: exitCodes.done, json: found, text: explainText(context, full, mount.name, found) };
}

/** What the ledger says of the file's segments. */
function safetyTexts({ platform }: Context, { segments, oldestProofAt, healing }: Explanation): string[] {
	if (segments.length === 0) return [];
	const of = (state: string): number => segments.filter((one) => one.state === state).length;
	const age = oldestProofAt === null ? "" : ` (oldest proof ${formatAge(oldestProofAt, platform.clock.realtime())})`;
	const counts = [
		[of("proven"), `proven in full${age}`],
		[of("recorded"), "recorded in full, not yet proven by reading"],
	] as const;
	const good = counts.filter(([count]) => count > 0).map(([count, text]) => `${count} of ${counted(segments.length, "segment")} ${text}`);
	const bad = (Object.keys(causeTexts) as LedgerCause[]).flatMap((cause) => {
		const count = segments.filter((one) => one.cause === cause).length;
		if (count === 0) return [];
		const eta =
			cause === "waiting" && healing.etaSeconds !== null
				? `; all that can be healed is in about ${formatDuration(healing.etaSeconds)}`
				: "";
		return [`${count} of ${counted(segments.length, "segment")} ${cause === "lost" ? "" : "degraded: "}${causeTexts[cause]}${eta}`];
	});
	return [...good, ...bad];
}

function explainText(context: Context, path: string, volume: string, found: Explanation): string {
	const lines = [
		path,
		`  volume      ${volume}`,
		`  inode       ${found.ino} (${found.type}, ${formatBytes(found.sizeBytes)})`,
		`  protection  ${found.redundancy.value} (${found.redundancy.from})`,
	];
	if (found.inline) lines.push("  contents    in the inode, on every disk that holds metadata");
	else if (found.type === "file" && found.segments.length === 0 && found.dirtyBytes === 0)
		lines.push(`  contents    none${found.sizeBytes > 0 ? ": nothing was written, it reads as zeros" : ""}`);
	lines.push(...safetyTexts(context, found).map((text) => `  safety      ${text}`));
	if (found.dirtyBytes > 0) lines.push(`  dirty       ${formatBytes(found.dirtyBytes)} in memory and log, not in a segment yet`);
	const rows = found.segments.flatMap((segment) =>
		segment.fragments.map((fragment, index) => [
			`  ${index === 0 ? segment.id : ""}`,
			index === 0 ? segment.redundancy : "",
			String(fragment.index),
			fragment.disk,
			fragment.state,
			fragment.provenAt ?? (fragment.state === "ok" ? "recorded, not yet proven" : "-"),
		]),
	);
	return `${lines.join("\n")}\n${rows.length === 0 ? "" : formatTable(["  SEGMENT", "SHAPE", "FRAGMENT", "DISK", "STATE", "PROVEN"], rows)}`;
}
