/** create, destroy, mount, umount. */
import { utf8ToLatin1 } from "../base/bytes.ts";
import { FsError, isFsError } from "../base/errors.ts";
import { silentLogger } from "../base/telemetry.ts";
import { exitCodes } from "../daemon/exit-codes.ts";
import type { ControlClient } from "../daemon/control.ts";
import { checkVolumeName, type HomeEntry } from "../daemon/home.ts";
import {
	cairnMounts,
	type CairnMount,
	type MountOptions,
	mountState,
	parseMountOptions,
	removeDeadMounts,
	tryUnmount,
} from "../daemon/mountpoint.ts";
import { printable } from "../daemon/text.ts";
import type { FuseHost } from "../platform/interface.ts";
import { removeMemories } from "../volume/native/offline.ts";
import { type Context, type DaemonStart, findDaemon, type Outcome } from "./context.ts";
import { diskPlace } from "./disk-verbs.ts";
import { counted } from "./format.ts";

/** How long a daemon that has answered `umount` may take to be gone. */
const goneWithinMs = 30_000;

/** How long `umount` waits for the successor of a daemon that has died, and how long the mount may take to tell whether there will be one. */
const successorWithinMs = 60_000;
const stateAnswerMs = 200;

export interface CreateFlags {
	readonly disk: readonly string[];
	readonly redundancy?: string;
	readonly sameDevice?: boolean;
	readonly allowDegraded?: boolean;
	readonly force?: boolean;
}

export async function create(context: Context, name: string, flags: CreateFlags): Promise<Outcome> {
	checkVolumeName(name);
	if (await context.home.read(name)) {
		throw new FsError(
			"REFUSED",
			"cli.create-exists",
			`volume ${name} exists: choose another name, or destroy it (cairn destroy ${name} --yes ${name})`,
		);
	}
	const diskPaths = await Promise.all(flags.disk.map((path) => diskPlace(context, path)));
	const twice = diskPaths.find((path, index) => diskPaths.indexOf(path) !== index);
	if (twice !== undefined) throw new FsError("EINVAL", "cli.create-twice", `${twice} is given twice: each --disk is a disk of its own`);
	const { platform, processes } = context;
	const created = await context.offline.createVolume(
		{
			name,
			diskPaths,
			...(flags.redundancy === undefined ? {} : { redundancy: flags.redundancy }),
			sameDevice: flags.sameDevice === true,
			allowDegraded: flags.allowDegraded === true,
			force: flags.force === true,
			uid: processes.uid,
			gid: processes.gid,
		},
		{ platform, logger: context.logger },
	);
	await context.home.write({ name, id: created.id, diskPaths });
	const { id, redundancy } = created;
	const warnings = created.warnings.map(printable);
	return {
		exitCode: exitCodes.done,
		json: { volume: name, id, redundancy, disks: diskPaths, warnings },
		text: `created volume ${name} (${redundancy}, ${counted(diskPaths.length, "disk")}). Mount it: cairn mount ${name} DIR\n`,
		warnings,
	};
}

export interface DestroyFlags {
	readonly yes?: string;
	readonly disk?: readonly string[];
}

/** With `--disk` also a volume that this machine does not know, such as one whose creation was interrupted. */
export async function destroy(context: Context, name: string, { yes, disk = [] }: DestroyFlags): Promise<Outcome> {
	checkVolumeName(name);
	const known = disk.length === 0 ? await context.home.require(name) : await context.home.read(name).catch(() => undefined);
	const entry = { name, id: known?.id ?? "", diskPaths: await knownDisks(context, name, disk) };
	if (yes !== name) {
		throw new FsError("EINVAL", "cli.destroy-yes", `this removes everything that is in volume ${name}: say so with --yes ${name}`);
	}
	const client = await findDaemon(context, name);
	client?.close();
	if (client) throw new FsError("REFUSED", "cli.destroy-mounted", `volume ${name} is mounted: umount it first`);
	const { removedDisks } = await removeFromDisks(context, entry, known !== undefined);
	const { fuse, files, clock } = context.platform;
	if (fuse) await removeDeadMounts(name, { fuse, files, clock, logger: silentLogger });
	await context.home.remove(name);
	const left = entry.diskPaths.filter((path) => !removedDisks.includes(path));
	return {
		exitCode: exitCodes.done,
		json: { volume: name, removedDisks, notFound: left },
		text: `destroyed volume ${name} on ${counted(removedDisks.length, "disk")}\n`,
		warnings: left.map((path) => `${path} holds no disk of ${name} any more, or is not there: left alone`),
	};
}

async function removeFromDisks(
	context: Context,
	{ name, id, diskPaths }: HomeEntry,
	isKnown: boolean,
): Promise<{ readonly removedDisks: readonly string[] }> {
	const { platform, logger } = context;
	try {
		return await context.offline.destroyVolume({ diskPaths, name }, { platform, logger });
	} catch (error) {
		// No disk of it is left anywhere: what remains is this machine's memory of it.
		if (isKnown && error instanceof FsError && error.code === "NOTFOUND") {
			if (id !== "") await removeMemories(id, platform);
			return { removedDisks: [] };
		}
		throw error;
	}
}

export interface MountFlags {
	readonly foreground?: boolean;
	readonly acceptLoss?: boolean;
	readonly options?: string;
	readonly disk?: readonly string[];
}

export async function mount(context: Context, name: string, directory: string, flags: MountFlags): Promise<Outcome> {
	checkVolumeName(name);
	const mountOptions = ofUser(context, parseMountOptions(flags.options ?? ""), flags.options ?? "");
	const diskPaths = await knownDisks(context, name, flags.disk ?? []);
	await requireFuse(context);
	await refuseSecond(context, name);
	const mountpoint = await mountpointOf(context, directory);
	const options: DaemonStart = {
		name,
		mountpoint,
		diskPaths,
		mountOptions,
		acceptLoss: flags.acceptLoss === true,
		home: context.home.path,
		logPath: flags.foreground === true ? undefined : context.home.logPath(name),
	};
	return flags.foreground === true ? foreground(context, options) : background(context, options);
}

/** For a plain user, others see nothing of the mount unless that is asked for: fusermount3 allows it only where root has allowed it. */
function ofUser(context: Context, options: MountOptions, text: string): MountOptions {
	return context.processes.uid === 0 || text.split(",").includes("allow_other") ? options : { ...options, allowOther: false };
}

async function background(context: Context, options: DaemonStart): Promise<Outcome> {
	const answer = await context.processes.startDaemon(options);
	if ("error" in answer) {
		const { code, site, message, exitCode } = answer.error;
		throw new FsError(code as FsError["code"], site, message, { exitCode });
	}
	const { name, mountpoint } = options;
	return {
		exitCode: exitCodes.done,
		json: { volume: name, mountpoint, pid: answer.pid, warnings: answer.warnings },
		text: `mounted ${name} on ${mountpoint}\n`,
		warnings: answer.warnings,
	};
}

async function foreground(context: Context, options: DaemonStart): Promise<Outcome> {
	const { name, mountpoint } = options;
	let failure: string | undefined;
	const exitCode = await context.processes.runForeground({
		...options,
		onReady: (message) => {
			if ("error" in message) failure = message.error.message;
			else
				context.note(
					`mounted ${name} on ${mountpoint} (pid ${message.pid}); Ctrl-C unmounts\n${message.warnings.map((text) => `warning: ${text}\n`).join("")}`,
				);
		},
	});
	if (failure !== undefined) throw new FsError("EIO", "cli.foreground", failure, { exitCode });
	return { exitCode, json: { volume: name, mountpoint, ended: true }, text: `unmounted ${mountpoint}\n` };
}

/** Disks given by hand come first: they are how a machine that does not know the volume finds it. */
async function knownDisks(context: Context, name: string, given: readonly string[]): Promise<readonly string[]> {
	if (given.length === 0) return (await context.home.require(name)).diskPaths;
	const entry = await context.home.read(name).catch(() => undefined);
	const paths = await Promise.all(given.map((path) => diskPlace(context, path)));
	return [...new Set([...paths, ...(entry?.diskPaths ?? [])])];
}

async function requireFuse(context: Context): Promise<FuseHost> {
	const { fuse } = context.platform;
	const missing = fuse ? await fuse.unavailable() : "this system has no FUSE";
	if (fuse && missing === undefined) return fuse;
	throw new FsError("ENODEV", "cli.no-fuse", `cannot mount: ${missing}`);
}

async function refuseSecond(context: Context, name: string): Promise<void> {
	const client = await findDaemon(context, name);
	if (!client) return;
	try {
		const { pid, mountpoint } = (await client.call("hello")) as { pid: number; mountpoint: string | null };
		const where = mountpoint === null ? "is starting or ending" : `is mounted on ${mountpoint}`;
		throw new FsError("REFUSED", "cli.already-mounted", `volume ${name} ${where} already (pid ${pid}): umount it first`);
	} finally {
		client.close();
	}
}

/** The directory without symbolic links. A dead mount does not answer questions about itself, its parent does. */
async function mountpointOf(context: Context, directory: string): Promise<string> {
	const parent = await context.processes.canonicalParent(directory);
	const state = await mountState(parent, context.platform);
	return state === "alive" ? context.processes.canonical(directory) : parent;
}

export async function umount(context: Context, directory: string): Promise<Outcome> {
	const { fuse } = context.platform;
	if (!fuse) throw new FsError("ENODEV", "cli.umount-no-fuse", "this system has no FUSE: nothing can be mounted");
	const mount = await findMount(context, fuse, directory);
	const client = (await findDaemon(context, mount.name)) ?? (await successorOf(context, fuse, mount));
	if (!client) return umountDead(context, fuse, mount);
	try {
		const hello = (await client.call("hello")) as { pid: number; mountpoint: string | null };
		// A daemon of the same name that has its mount elsewhere (or none yet): this one is another's.
		if (hello.mountpoint !== mount.mountpoint) return await umountDead(context, fuse, mount);
		const end = await client.call("umount").catch((error: unknown) => explainBusy(context, mount.mountpoint, error));
		const { hangingDisks = [] } = end as { hangingDisks?: readonly string[] };
		await untilGone(context, hello.pid, hangingDisks);
		const warnings = context.processes.alive(hello.pid) ? hangingDisks.map((path) => lingering(path, hello.pid)) : [];
		return { ...done(mount, `unmounted ${mount.mountpoint}\n`), warnings };
	} finally {
		client.close();
	}
}

/** A mount that hangs while nobody answers has lost its daemon a moment ago, and its keeper starts another. */
async function successorOf(context: Context, fuse: FuseHost, { name, mountpoint }: CairnMount): Promise<ControlClient | undefined> {
	const { clock } = context.platform;
	const endMs = clock.monotonicMs() + successorWithinMs;
	while (clock.monotonicMs() < endMs) {
		const client = await findDaemon(context, name);
		if (client) return client;
		if ((await mountState(mountpoint, context.platform, stateAnswerMs)) !== "hangs") return undefined;
		if ((await endUnserved(fuse, mountpoint)) === undefined) return undefined;
	}
	return undefined;
}

const done = ({ name, mountpoint }: CairnMount, text: string): Outcome => ({
	exitCode: exitCodes.done,
	json: { volume: name, mountpoint },
	text,
});

async function findMount(context: Context, fuse: FuseHost, directory: string): Promise<CairnMount> {
	const mounts = await cairnMounts(fuse);
	const asGiven = await context.processes.canonicalParent(directory);
	const direct = mounts.findLast(({ mountpoint }) => mountpoint === asGiven);
	if (direct) return direct;
	// Perhaps a symbolic link to the mount point.
	const followed = await context.processes.canonical(directory).catch(() => asGiven);
	const mount = mounts.findLast(({ mountpoint }) => mountpoint === followed);
	if (mount) return mount;
	const there =
		mounts.length === 0 ? "nothing of cairn is mounted" : `mounted are: ${mounts.map(({ mountpoint }) => mountpoint).join(", ")}`;
	throw new FsError("NOTFOUND", "cli.umount-nothing", `no volume is mounted on ${asGiven} (${there})`);
}

async function umountDead(context: Context, fuse: FuseHost, mount: CairnMount): Promise<Outcome> {
	const { mountpoint, name } = mount;
	const state = await mountState(mountpoint, context.platform);
	const servedBy = state === "hangs" ? await endUnserved(fuse, mountpoint) : undefined;
	if (servedBy !== undefined) throw new FsError("REFUSED", "cli.umount-hangs", servedBy.message, servedBy.data, servedBy);
	if (state === "alive") {
		throw new FsError(
			"REFUSED",
			"cli.umount-foreign",
			`the daemon behind ${mountpoint} is not one of ${context.home.path}: set CAIRN_HOME as it was when mounting`,
		);
	}
	if (!(await tryUnmount(mountpoint, false, fuse))) await tryUnmount(mountpoint, true, fuse);
	const outcome = done(mount, `took away ${mountpoint}: its daemon was gone already\n`);
	return {
		...outcome,
		warnings: [`the daemon of ${name} had ended without unmounting; the next mount takes over what it had acknowledged`],
	};
}

/** Unmounting what hangs would hang too: what is left of a dead daemon may hold the connection. Answers who else does. */
async function endUnserved(fuse: FuseHost, mountpoint: string): Promise<FsError | undefined> {
	try {
		await fuse.abort(utf8ToLatin1(mountpoint));
		return undefined;
	} catch (error) {
		if (isFsError(error, "EBUSY")) return error;
		throw error;
	}
}

async function explainBusy(context: Context, mountpoint: string, error: unknown): Promise<never> {
	if (!(error instanceof FsError) || error.site !== "daemon.busy") throw error;
	const holders = await context.processes.holders(mountpoint);
	const who = holders.length === 0 ? "" : `; it is used by ${holders.slice(0, 8).join(", ")}${holders.length > 8 ? " and others" : ""}`;
	throw new FsError("REFUSED", "cli.umount-busy", `${error.message}${who}`, error.data);
}

const lingering = (path: string, pid: number): string =>
	`the disk ${path} does not answer: everything is on the others, and what is left of the daemon (pid ${pid}) lasts, and keeps that disk, until it does`;

/** Its disks are free and its log is closed only when the process is gone; all but those that hang when nothing of it is left but the threads in them. */
async function untilGone(context: Context, pid: number, hangingDisks: readonly string[]): Promise<void> {
	const { clock } = context.platform;
	const endMs = clock.monotonicMs() + goneWithinMs;
	while (context.processes.alive(pid)) {
		if (hangingDisks.length > 0 && context.processes.lingers(pid)) return;
		if (clock.monotonicMs() > endMs) {
			throw new FsError(
				"ETIMEDOUT",
				"cli.umount-lingers",
				`unmounted and sealed, but the daemon (pid ${pid}) has not ended: a disk may hang; see its log`,
			);
		}
		await clock.sleep(20);
	}
}
