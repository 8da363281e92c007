/**
 * The kernel's FUSE device: mount, unmount, list. `/dev/fuse` and mount(2) are spoken directly. mount(2) and umount2(2) run on a thread
 * of the pool: they can need answers from the file system that this very process serves.
 */
import { closeSync, constants, openSync } from "node:fs";
import { readFile, stat, writeFile } from "node:fs/promises";
import { bytesToLatin1, latin1ToBytes, latin1ToUtf8 } from "../../base/bytes.ts";
import { FsError, toFsError } from "../../base/errors.ts";
import type { ErrorCode } from "../../base/errors.ts";
import type { FuseChannel, FuseHost, FuseMountOptions } from "../interface.ts";
import { RealFuseChannel } from "./fuse-channel.ts";
import { libc, mntDetach, mountFlags, umountNoFollow } from "./fuse-libc.ts";

const device = "/dev/fuse";

export function createFuseHost(): FuseHost {
	return { unavailable, mount, unmount, mounts };
}

async function unavailable(): Promise<string | undefined> {
	if (process.platform !== "linux") return "mounting needs Linux";
	const there = await stat(device).catch(() => undefined);
	if (!there?.isCharacterDevice())
		return `${device} is missing: load the kernel module (modprobe fuse); in a container, pass the device in (--device /dev/fuse)`;
	if (process.geteuid?.() !== 0) return "mounting needs root: run the daemon as root";
	const types = await readFile("/proc/filesystems", "latin1").catch(() => "");
	if (types !== "" && !/\tfuse$/m.test(types)) return "this kernel has no FUSE: load its module (modprobe fuse)";
	return undefined;
}

const errnoNames: Readonly<Record<number, ErrorCode>> = {
	1: "EPERM",
	2: "ENOENT",
	12: "ENOMEM",
	13: "EACCES",
	16: "EBUSY",
	19: "ENODEV",
	20: "ENOTDIR",
	22: "EINVAL",
	36: "ENAMETOOLONG",
	40: "ELOOP",
	107: "ENOTCONN",
};

const advice: Readonly<Record<number, string>> = {
	1: "it needs root (CAP_SYS_ADMIN)",
	2: "the directory does not exist",
	16: "it is in use: end the processes that have files or working directories there",
	19: "the kernel has no FUSE (modprobe fuse)",
	20: "it is not a directory",
	22: "nothing is mounted there",
	107: "what is mounted there has lost its daemon: unmount it first",
};

function failed(what: string, site: string, path: string, errno: number): FsError {
	const why = advice[errno] ?? `errno ${errno}`;
	return new FsError(errnoNames[errno] ?? "EIO", site, `cannot ${what} ${latin1ToUtf8(path)}: ${why}`, { path, errno });
}

function cString(text: string): Uint8Array {
	const bytes = latin1ToBytes(`${text}\0`);
	if (bytes.indexOf(0) !== bytes.length - 1) throw new FsError("EINVAL", "platform.fuse-nul", "a path or a source with a NUL byte");
	return bytes;
}

function flagsOf(options: FuseMountOptions): number {
	let flags = options.readOnly ? (mountFlags["ro"] as number) : 0;
	for (const name of options.flags) {
		const flag = mountFlags[name];
		if (flag === undefined)
			throw new FsError("EINVAL", "platform.fuse-flag", `unknown mount flag ${name}; known: ${Object.keys(mountFlags).join(", ")}`);
		flags |= flag;
	}
	return flags;
}

async function mount(mountpoint: string, options: FuseMountOptions): Promise<FuseChannel> {
	if (!/^[A-Za-z0-9_-]+$/.test(options.subtype))
		throw new FsError("EINVAL", "platform.fuse-subtype", `file system subtype ${options.subtype}`);
	const flags = flagsOf(options);
	const fd = openDevice();
	try {
		const others = options.allowOther ? ",allow_other" : "";
		const data = `fd=${fd},rootmode=40000,user_id=0,group_id=0,default_permissions${others},max_read=${options.maxReadBytes}`;
		const result = await libc().mount(
			cString(options.source),
			cString(mountpoint),
			cString(`fuse.${options.subtype}`),
			flags,
			cString(data),
		);
		if (result < 0) throw failed("mount on", "platform.fuse-mount", mountpoint, -result);
		return await opened(fd, mountpoint, options.maxReadBytes);
	} catch (error) {
		closeSync(fd);
		throw error;
	}
}

async function opened(fd: number, mountpoint: string, maxReadBytes: number): Promise<FuseChannel> {
	try {
		await raiseReadAhead(mountpoint, maxReadBytes);
		return new RealFuseChannel(fd);
	} catch (error) {
		await libc().umount(cString(mountpoint), mntDetach | umountNoFollow);
		throw error;
	}
}

function openDevice(): number {
	try {
		return openSync(device, constants.O_RDWR | constants.O_NONBLOCK);
	} catch (error) {
		throw toFsError(error, "platform.fuse-open");
	}
}

/**
 * The kernel reads 128 KiB ahead unless told otherwise; what it may ask for at most is settled in INIT. Only speed is at stake: failing is
 * fine.
 */
async function raiseReadAhead(mountpoint: string, bytes: number): Promise<void> {
	try {
		const line = (await mountTable()).filter((entry) => entry.mountpoint === mountpoint).at(-1);
		if (line !== undefined) await writeFile(`/sys/class/bdi/${line.device}/read_ahead_kb`, String(Math.floor(bytes / 1024)));
	} catch {
		// Without /sys, or read-only.
	}
}

async function unmount(mountpoint: string, lazy: boolean): Promise<void> {
	const result = await libc().umount(cString(mountpoint), umountNoFollow | (lazy ? mntDetach : 0));
	if (result < 0) throw failed("unmount", "platform.fuse-unmount", mountpoint, -result);
}

interface MountEntry {
	readonly device: string;
	readonly mountpoint: string;
	readonly source: string;
	readonly type: string;
}

/**
 * proc_pid_mountinfo(5): `id parent major:minor root mountpoint options [optional…] - type source superoptions`; blanks and backslashes as
 * octal.
 */
export function parseMountInfo(text: string): MountEntry[] {
	const entries: MountEntry[] = [];
	for (const line of text.split("\n")) {
		const words = line.split(" ");
		const dash = words.indexOf("-", 6);
		const [device, mountpoint, type, source] = [words[2], words[4], words[dash + 1], words[dash + 2]];
		if (dash < 0 || device === undefined || mountpoint === undefined || type === undefined || source === undefined) continue;
		entries.push({ device, mountpoint: unescapeOctal(mountpoint), source: unescapeOctal(source), type });
	}
	return entries;
}

function unescapeOctal(text: string): string {
	return text.replace(/\\([0-3][0-7]{2})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

async function mountTable(): Promise<MountEntry[]> {
	return parseMountInfo(bytesToLatin1(await readFile("/proc/self/mountinfo")));
}

async function mounts(): Promise<readonly { readonly mountpoint: string; readonly source: string; readonly type: string }[]> {
	return (await mountTable())
		.filter(({ type }) => type === "fuse" || type.startsWith("fuse."))
		.map(({ mountpoint, source, type }) => ({ mountpoint, source, type }));
}
