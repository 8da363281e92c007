/** Where a volume is mounted: checks before, and what a dead daemon left. Paths are host paths; the mount table has byte strings. */
import { latin1ToUtf8, utf8ToLatin1 } from "../base/bytes.ts";
import { FsError, isFsError, toFsError } from "../base/errors.ts";
import type { Logger } from "../base/telemetry.ts";
import type { Clock, FuseHost, HostFiles } from "../platform/interface.ts";
import { dyingDaemonMs, mountpointAnswerMs } from "./limits.ts";
import type { LogFormat } from "./log-line.ts";

export const mountSubtype = "cairn";
export const mountType = `fuse.${mountSubtype}`;

/** What the mount table shows as the device. */
export const mountSource = (name: string): string => `cairn:${name}`;

export interface MountModules {
	readonly fuse: FuseHost;
	readonly files: HostFiles;
	readonly clock: Clock;
	readonly logger: Logger;
}

export interface CairnMount {
	readonly name: string;
	readonly mountpoint: string;
}

/** All mounts of volumes on this machine, in the order of the mount table. */
export async function cairnMounts(fuse: FuseHost): Promise<CairnMount[]> {
	return (await fuse.mounts())
		.filter(({ type, source }) => type === mountType && source.startsWith(mountSource("")))
		.map(({ source, mountpoint }) => ({ name: source.slice(mountSource("").length), mountpoint: latin1ToUtf8(mountpoint) }));
}

/** Whether what is mounted there answers; "dead" when its daemon is gone. */
export async function mountState(
	mountpoint: string,
	{ files, clock }: Pick<MountModules, "files" | "clock">,
	answerMs = mountpointAnswerMs,
): Promise<"alive" | "dead" | "hangs"> {
	// The kernel goes on answering stat(2) from its cache for a while after the daemon's end.
	const look = files.probe(mountpoint).then(
		() => "alive" as const,
		(error: unknown) => (isFsError(error, "ENOTCONN") ? ("dead" as const) : ("alive" as const)),
	);
	return Promise.race([look, clock.sleep(answerMs).then(() => "hangs" as const)]);
}

/** Takes away what a dead daemon of this volume left mounted, wherever it is. Mounts that answer are not touched. */
export async function removeDeadMounts(name: string, modules: MountModules): Promise<string[]> {
	const removed: string[] = [];
	for (const { mountpoint, name: other } of (await cairnMounts(modules.fuse)).reverse()) {
		if (other !== name || (await mountState(mountpoint, modules, dyingDaemonMs)) !== "dead") continue;
		await removeMount(mountpoint, modules.fuse);
		modules.logger.info("took away the mount of a daemon that is gone", { mountpoint });
		removed.push(mountpoint);
	}
	return removed;
}

async function removeMount(mountpoint: string, fuse: FuseHost): Promise<void> {
	const path = utf8ToLatin1(mountpoint);
	try {
		await fuse.unmount(path, false);
	} catch (error) {
		// Programs still hold files of the dead mount: they get errors from them, and the mount goes when they let go.
		if (!isFsError(error, "EBUSY")) throw error;
		await fuse.unmount(path, true);
	}
}

/** @throws FsError NOTFOUND (no such directory), REFUSED (something is mounted there, not a directory, not empty). */
export async function checkMountpoint(mountpoint: string, modules: MountModules): Promise<void> {
	const refused = (site: string, why: string) => new FsError("REFUSED", site, `cannot mount on ${mountpoint}: ${why}`, { mountpoint });
	const there = (await modules.fuse.mounts()).filter((mount) => latin1ToUtf8(mount.mountpoint) === mountpoint).at(-1);
	if (there) {
		const state = await mountState(mountpoint, modules);
		const how = state === "dead" ? ", and its daemon is gone: umount it first" : ": choose another directory or umount it first";
		throw refused("daemon.mounted-there", `${latin1ToUtf8(there.source)} (${there.type}) is mounted there${how}`);
	}
	const kind = await modules.files.kind(mountpoint);
	if (kind === undefined) {
		throw new FsError("NOTFOUND", "daemon.no-mountpoint", `${mountpoint} does not exist: make the directory first (mkdir -p)`, {
			mountpoint,
		});
	}
	if (kind !== "directory") throw refused("daemon.mountpoint-kind", "it is not a directory");
	const names = await modules.files.list(mountpoint);
	if (names.length > 0) throw refused("daemon.mountpoint-full", `it is not empty (${names[0]} is there): a mount would hide that`);
}

/** What becomes of a mount whose daemon has died: a successor goes on with it, or makes a new one, or it stays dead until somebody mounts the volume. */
export type OnCrash = "resume" | "remount" | "die";

/** What is only there for speed: without it everything is the same, only slower. */
export interface FastPaths {
	/** Small calls of disks go through shared memory, otherwise by message. */
	readonly diskLane: boolean;
	/** Requests that can be answered at once are answered in one step, otherwise each waits its turn. */
	readonly answerNow: boolean;
	/** The main thread waits awake for what comes soon. */
	readonly waitAwake: boolean;
	/** Idle processors sleep lightly while requests come in a row, and threads of disks go before others. */
	readonly lowCpuLatency: boolean;
	/** Threads make the shards of large segments and the checksums of large reads, otherwise the main thread. */
	readonly coderThread: boolean;
}

export interface MountOptions {
	readonly readOnly: boolean;
	readonly allowOther: boolean;
	readonly onCrash: OnCrash;
	/** Monitoring listens on this port of the loopback interface; undefined: nowhere. */
	readonly metricsPort: number | undefined;
	readonly logFormat: LogFormat;
	/** Locks are the kernel's, for this mount alone, instead of the volume's. */
	readonly localLocks: boolean;
	/** The kernel is taken for one that speaks no more than FUSE 7.N; undefined: for what it is. */
	readonly fuseMinor: number | undefined;
	/** The kernel reads hot files that nobody can write to by itself, from copies on this machine; of at most so many MiB (undefined: a small part of that file system). */
	readonly nativeReads: boolean;
	readonly nativeReadsMiB: number | undefined;
	readonly fastPaths: FastPaths;
	/** Flags of mount(2) by name. */
	readonly flags: readonly string[];
}

const kernelFlags: ReadonlySet<string> = new Set(["nosuid", "nodev", "noexec", "noatime", "relatime"]);
const withoutEffect: ReadonlySet<string> = new Set(["rw", "suid", "dev", "exec", "defaults", "allow_other"]);
const onCrashWords: Readonly<Record<string, OnCrash>> = {
	"on_crash=resume": "resume",
	"on_crash=remount": "remount",
	"on_crash=die": "die",
};
const logWords: Readonly<Record<string, LogFormat>> = { "log=text": "text", "log=json": "json" };

/** As with mounts of NFS. */
const lockWords: Readonly<Record<string, boolean>> = { "local_lock=none": false, "local_lock=all": true };

/** Of `metrics=9464`; a word with a port that cannot be is no option. */
function portOf(word: string): number | undefined {
	const port = Number(/^metrics=(\d{1,5})$/.exec(word)?.[1] ?? 0);
	return port > 0 && port < 65_536 ? port : undefined;
}

/** Of `fuse_minor=37`. */
function fuseMinorOf(word: string): number | undefined {
	const minor = /^fuse_minor=(\d{1,3})$/.exec(word)?.[1];
	return minor === undefined ? undefined : Number(minor);
}

const nativeWords: Readonly<Record<string, boolean>> = { "native_reads=on": true, "native_reads=off": false };

const onOff: Readonly<Record<string, boolean>> = { on: true, off: false };

/** `fast_paths` is all of them. */
const fastPathNames: Readonly<Record<string, keyof FastPaths>> = {
	disk_lane: "diskLane",
	answer_now: "answerNow",
	wait_awake: "waitAwake",
	low_cpu_latency: "lowCpuLatency",
	coder_thread: "coderThread",
};

/** Of `fast_paths=off` or `wait_awake=off`. */
function fastPathsOf(word: string): Partial<FastPaths> | undefined {
	const [, name = "", value = ""] = /^(\w+)=(on|off)$/.exec(word) ?? [];
	const isOn = onOff[value] ?? true;
	if (name === "fast_paths") return allFastPaths(isOn);
	const path = Object.hasOwn(fastPathNames, name) ? fastPathNames[name] : undefined;
	return path === undefined ? undefined : { [path]: isOn };
}

function allFastPaths(isOn: boolean): FastPaths {
	return { diskLane: isOn, answerNow: isOn, waitAwake: isOn, lowCpuLatency: isOn, coderThread: isOn };
}

function fastPathWords(fastPaths: FastPaths): string[] {
	const off = Object.entries(fastPathNames).filter(([, path]) => !fastPaths[path]);
	if (off.length === Object.keys(fastPathNames).length) return ["fast_paths=off"];
	return off.map(([name]) => `${name}=off`);
}

/** Of `native_reads_mib=2048`. */
function nativeMiBOf(word: string): number | undefined {
	const number = Number(/^native_reads_mib=(\d{1,9})$/.exec(word)?.[1] ?? 0);
	return number > 0 ? number : undefined;
}

/** `-o ro,noatime,…`. @throws FsError EINVAL for an option that is not known. */
export function parseMountOptions(text: string): MountOptions {
	const words = text.split(",").filter((word) => word !== "");
	const known = (word: string) =>
		word === "ro" ||
		word === "root_only" ||
		kernelFlags.has(word) ||
		portOf(word) !== undefined ||
		fuseMinorOf(word) !== undefined ||
		nativeMiBOf(word) !== undefined ||
		Object.hasOwn(nativeWords, word) ||
		fastPathsOf(word) !== undefined ||
		withoutEffect.has(word) ||
		Object.hasOwn(onCrashWords, word) ||
		Object.hasOwn(logWords, word) ||
		Object.hasOwn(lockWords, word);
	const unknown = words.filter((word) => !known(word));
	if (unknown.length > 0) {
		const there = [
			"ro",
			"root_only",
			...kernelFlags,
			...Object.keys(onCrashWords),
			"metrics=PORT",
			...Object.keys(logWords),
			...Object.keys(lockWords),
			...Object.keys(nativeWords),
			"native_reads_mib=N",
			...["fast_paths", ...Object.keys(fastPathNames)].flatMap((name) => [`${name}=on`, `${name}=off`]),
			"fuse_minor=N",
		].join(", ");
		throw new FsError("EINVAL", "daemon.mount-option", `unknown mount option ${unknown.join(", ")}; there are: ${there}`, {});
	}
	return {
		readOnly: words.includes("ro"),
		allowOther: !words.includes("root_only"),
		onCrash: onCrashWords[words.findLast((word) => Object.hasOwn(onCrashWords, word)) ?? ""] ?? "resume",
		logFormat: logWords[words.findLast((word) => Object.hasOwn(logWords, word)) ?? ""] ?? "text",
		localLocks: lockWords[words.findLast((word) => Object.hasOwn(lockWords, word)) ?? ""] ?? false,
		metricsPort: words.map(portOf).findLast((port) => port !== undefined),
		fuseMinor: words.map(fuseMinorOf).findLast((minor) => minor !== undefined),
		nativeReads: nativeWords[words.findLast((word) => Object.hasOwn(nativeWords, word)) ?? ""] ?? false,
		nativeReadsMiB: words.map(nativeMiBOf).findLast((number) => number !== undefined),
		fastPaths: Object.assign(allFastPaths(true), ...words.map(fastPathsOf)) as FastPaths,
		flags: words.filter((word) => kernelFlags.has(word)),
	};
}

/** The words that `parseMountOptions` makes the same of. */
export function mountOptionWords({
	readOnly,
	allowOther,
	onCrash,
	metricsPort,
	logFormat,
	localLocks,
	fuseMinor,
	nativeReads,
	nativeReadsMiB,
	fastPaths,
	flags,
}: MountOptions): string[] {
	return [
		...(readOnly ? ["ro"] : []),
		...(allowOther ? [] : ["root_only"]),
		...(onCrash === "resume" ? [] : [`on_crash=${onCrash}`]),
		...(metricsPort === undefined ? [] : [`metrics=${metricsPort}`]),
		...(logFormat === "text" ? [] : [`log=${logFormat}`]),
		...(localLocks ? ["local_lock=all"] : []),
		...(fuseMinor === undefined ? [] : [`fuse_minor=${fuseMinor}`]),
		...(nativeReads ? ["native_reads=on"] : []),
		...(nativeReadsMiB === undefined ? [] : [`native_reads_mib=${nativeReadsMiB}`]),
		...fastPathWords(fastPaths),
		...flags,
	];
}

/** @returns false when it is busy. */
export async function tryUnmount(mountpoint: string, lazy: boolean, fuse: FuseHost): Promise<boolean> {
	try {
		await fuse.unmount(utf8ToLatin1(mountpoint), lazy);
		return true;
	} catch (error) {
		// Somebody else has taken it away already: what was wanted.
		if (isFsError(error, "EINVAL")) return true;
		if (isFsError(error, "EBUSY")) return false;
		throw toFsError(error, "daemon.unmount");
	}
}
