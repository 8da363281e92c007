/** locks: who has locked what and who waits for it, on the volumes of this machine. */
import { FsError } from "../base/errors.ts";
import { exitCodes } from "../daemon/exit-codes.ts";
import type { ListedDurable, ListedLease, ListedLock, ListedShare, LockList } from "../volume/native/interface.ts";
import { callDaemon, type Context, findDaemon, type Outcome } from "./context.ts";
import { counted, formatDuration, formatTable } from "./format.ts";
import { absent, insideVolume } from "./status-verbs.ts";

interface Target {
	readonly name: string;
	/** From the volume's root; "" = everything of it. */
	readonly relative: string;
	readonly full: string;
}

interface VolumeLocks extends LockList {
	readonly volume: string;
	readonly path: string;
}

/** A mount point or the name of a volume that is served stands for all of it. */
async function target(context: Context, path: string): Promise<Target> {
	if (!path.includes("/") && (await isServed(context, path))) return { name: path, relative: "", full: path };
	const { full, mount, relative } = await insideVolume(context, path);
	return { name: mount.name, relative, full };
}

async function isServed(context: Context, name: string): Promise<boolean> {
	const client = await findDaemon(context, name).catch(() => undefined);
	client?.close();
	return client !== undefined;
}

/** Without a path, all volumes that are known here and served. */
async function targets(context: Context, path: string | undefined): Promise<readonly Target[]> {
	if (path !== undefined) return [await target(context, path)];
	const served: Target[] = [];
	for (const name of await context.home.list()) if (await isServed(context, name)) served.push({ name, relative: "", full: name });
	return served;
}

export async function locks(context: Context, path: string | undefined): Promise<Outcome> {
	const found: VolumeLocks[] = [];
	for (const { name, relative, full } of await targets(context, path)) {
		const list = await callDaemon<LockList>(context, name, "locks", { path: relative }).catch((error: unknown) => absent(full, error));
		found.push({ volume: name, path: full, ...list });
	}
	const json = path === undefined ? found : found[0];
	const text = found.length === 0 ? "no volume is mounted\n" : found.map(locksText).join("\n");
	return { exitCode: exitCodes.done, json, text };
}

function locksText({ volume, path, held, waiting, shares, leases, durable, totalHeld, totalWaiting }: VolumeLocks): string {
	const all = `volume ${volume}: ${counted(totalHeld, "lock")} held, ${totalWaiting} waiting\n`;
	const about = path === volume ? all : `${path}\n${all}`;
	const open = sharesText(shares) + leasesText(leases) + durableText(durable);
	if (held.length + waiting.length === 0) return path === volume || open !== "" ? about + open : `${about}none of them here\n`;
	const rows = [
		...held.map((lock) => [...cells(lock), "holds", ""]),
		...waiting.map((lock) => [...cells(lock), "waits", `for ${lock.waitsFor.join(", ")}`]),
	];
	const head = ["INODE", "LOCK", "BYTES", "HOLDER", "DOOR", "OWNER", "SINCE", "STATE", ""];
	const more = path === volume && held.length < totalHeld ? `and ${totalHeld - held.length} more\n` : "";
	return `${about}${formatTable(head, rows)}${more}${open}`;
}

const words = (all: readonly string[]): string => (all.length === 0 ? "nothing" : all.join("+"));

/** Who has a file open and lets others not do everything with it. */
function sharesText(shares: readonly ListedShare[]): string {
	if (shares.length === 0) return "";
	const rows = shares.map(({ ino, access, deny, client, door, owner }) => [String(ino), words(access), words(deny), client, door, owner]);
	return formatTable(["INODE", "OPEN TO", "DENIES", "HOLDER", "DOOR", "OWNER"], rows);
}

function leasesText(leases: readonly ListedLease[]): string {
	if (leases.length === 0) return "";
	const rows = leases.map(({ ino, caches, breakingTo, waiting, client, door, owner }) => {
		const state = breakingTo === null ? "" : `is asked for it, but for ${words(breakingTo)}; ${waiting} waiting`;
		return [String(ino), words(caches), client, door, owner, state];
	});
	return formatTable(["INODE", "CACHES", "HOLDER", "DOOR", "OWNER", ""], rows);
}

/** Open files that are there again after a restart, and wait for a client that is away. */
function durableText(durable: readonly ListedDurable[]): string {
	if (durable.length === 0) return "";
	const rows = durable.map(({ ino, kind, access, deny, caches, ranges, client, door, owner, ageSeconds, leftSeconds }) => {
		const state = leftSeconds === null ? "its client is there" : `waits for its client, ${formatDuration(leftSeconds)} more`;
		const has = [words(access), words(deny), words(caches), String(ranges)];
		return [String(ino), kind, ...has, client, door, owner, formatDuration(ageSeconds), state];
	});
	return formatTable(["INODE", "KEPT OPEN", "OPEN TO", "DENIES", "CACHES", "LOCKS", "CLIENT", "DOOR", "OWNER", "SINCE", ""], rows);
}

function cells({ ino, family, kind, start, end, pid, door, owner, client, ageSeconds }: ListedLock): string[] {
	const bytes = family === "flock" ? "all" : `${start}-${end ?? "end"}`;
	// Clients elsewhere number their processes as they like.
	const holder = door === "nfs" || door === "smb" ? client : pid === 0 ? "?" : String(pid);
	return [String(ino), `${family} ${kind}`, bytes, holder, door, owner, formatDuration(ageSeconds)];
}

export async function breakLocks(
	context: Context,
	path: string,
	flags: { readonly owner?: string; readonly yes?: boolean },
): Promise<Outcome> {
	const { name, relative, full } = await target(context, path);
	if (relative === "")
		throw new FsError("EINVAL", "cli.break-all", `${full} is a whole volume: locks are broken file by file, cairn locks break PATH`);
	if (flags.yes !== true) {
		const message = `the programs that hold locks of ${full} are not told that they are gone: two may write at once, and spoil the file. End them instead, or say --yes`;
		throw new FsError("REFUSED", "cli.break-unsure", message);
	}
	const given = { path: relative, ...(flags.owner === undefined ? {} : { owner: flags.owner }) };
	const { broken } = await callDaemon<{ broken: number }>(context, name, "locks-break", given).catch((error: unknown) =>
		absent(full, error),
	);
	const text = broken === 0 ? `no such lock of ${full} is held\n` : `${counted(broken, "lock")} of ${full} broken\n`;
	const warning = `whoever held ${broken === 1 ? "it" : "them"} does not know that, and goes on as if nothing had happened`;
	return {
		exitCode: broken === 0 ? exitCodes.notFound : exitCodes.done,
		json: { path: full, broken },
		text,
		...(broken === 0 ? {} : { warnings: [warning] }),
	};
}
