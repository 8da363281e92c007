/**
 * The kernel's FUSE device: mount, unmount, list. `/dev/fuse` and mount(2) are spoken directly. mount(2) and umount2(2) run on a thread
 * of the pool: they can need answers from the file system that this very process serves. umount2(2) lasts until the server has answered
 * DESTROY, so nothing that an answer needs may wait for that pool.
 *
 * A mount is of type `fuseblk.SUBTYPE` on a device of its own (`fuse-device.ts` says why), or of type `fuse.SUBTYPE` where that cannot be
 * had. Callers see the second in both cases.
 */
import { closeSync, constants, openSync, writeSync } from "node:fs";
import { readFile, stat, writeFile } from "node:fs/promises";
import { Worker } from "node:worker_threads";
import { bytesToLatin1, latin1ToBytes, latin1ToUtf8 } from "../../base/bytes.ts";
import { FsError, toFsError } from "../../base/errors.ts";
import type { ErrorCode } from "../../base/errors.ts";
import type { FuseChannel, FuseHost, FuseMountOptions } from "../interface.ts";
import type { CpuLatency } from "./cpu-latency.ts";
import { abortConnection, connectionOfDevice, serversOf } from "./fuse-abort.ts";
import { RealFuseChannel } from "./fuse-channel.ts";
import { createMountDevice, plainSource, removeStaleNodes } from "./fuse-device.ts";
import { hasFusermount, mountAsUser, unmountAsUser } from "./fuse-user.ts";
import { libc, mntDetach, mountFlags, pollErr, pollFdBytes, pollIn, umountNoFollow } from "./fuse-libc.ts";
import { workerHeap } from "./fuse-limits.ts";
import type { Unmount } from "./fuse-unmounter.ts";

const device = "/dev/fuse";
const blockType = "fuseblk";

export interface FuseHostOptions {
	/** The main thread stays awake while requests come one after the other (default; fuse-channel.ts). */
	readonly waitAwake?: boolean;
	/** Told of requests in a row (cpu-latency.ts). */
	readonly cpuLatency?: CpuLatency | undefined;
}

export function createFuseHost({ waitAwake = true, cpuLatency }: FuseHostOptions = {}): FuseHost {
	const serve: Serve = (fd, subtype) => new RealFuseChannel(fd, { waitAwake, cpuLatency, onClosed: () => removeStaleNodes(subtype) });
	return {
		unavailable,
		mount: (mountpoint, options) => mount(mountpoint, options, serve),
		resume: (descriptor, subtype) => resume(descriptor, subtype, serve),
		unmount,
		abort,
		mounts,
	};
}

/** Of a connection and the subtype of its mount. */
type Serve = (fd: number, subtype: string) => FuseChannel;

async function unavailable(): Promise<string | undefined> {
	if (process.platform !== "linux") return "mounting needs Linux";
	const there = await stat(device).catch(() => undefined);
	if (!there?.isCharacterDevice())
		return `${device} is missing: load the kernel module (modprobe fuse); in a container, pass the device in (--device /dev/fuse)`;
	if (!isRoot() && !hasFusermount()) return "mounting needs root, or fusermount3 for plain users: install the package fuse3";
	const types = await readFile("/proc/filesystems", "latin1").catch(() => "");
	if (types !== "" && !/\tfuse$/m.test(types)) return "this kernel has no FUSE: load its module (modprobe fuse)";
	return undefined;
}

const isRoot = (): boolean => process.geteuid?.() === 0;

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

async function mount(mountpoint: string, options: FuseMountOptions, serve: Serve): Promise<FuseChannel> {
	if (!/^[A-Za-z0-9_-]+$/.test(options.subtype))
		throw new FsError("EINVAL", "platform.fuse-subtype", `file system subtype ${options.subtype}`);
	const flags = flagsOf(options);
	if (!isRoot()) return opened(await mountAsUser(mountpoint, options), mountpoint, options, serve);
	const onDevice = await mountOnDevice(mountpoint, options, flags, serve);
	if (onDevice !== undefined) return onDevice;
	const fd = openDevice();
	const result = await mountConnection(fd, mountpoint, options, { type: `fuse.${options.subtype}`, source: options.source, flags });
	if (result < 0) {
		closeSync(fd);
		throw failed("mount on", "platform.fuse-mount", mountpoint, -result);
	}
	return opened(fd, mountpoint, options, serve);
}

interface HowMounted {
	readonly type: string;
	readonly source: string;
	readonly flags: number;
}

/** 0 or -errno. The descriptor stays the caller's. */
function mountConnection(fd: number, mountpoint: string, options: FuseMountOptions, how: HowMounted): Promise<number> {
	const others = options.allowOther ? ",allow_other" : "";
	const block = how.type.startsWith(blockType) ? ",blksize=4096" : "";
	const data = `fd=${fd},rootmode=40000,user_id=0,group_id=0,default_permissions${others},max_read=${options.maxReadBytes}${block}`;
	return libc().mount(cString(how.source), cString(mountpoint), cString(how.type), how.flags, cString(data));
}

/** undefined when it cannot be had, for whatever reason: the plain mount that follows says what is wrong, if anything is. */
async function mountOnDevice(mountpoint: string, options: FuseMountOptions, flags: number, serve: Serve): Promise<FuseChannel | undefined> {
	const device = await createMountDevice(options.subtype, options.source);
	if (device === undefined) return undefined;
	try {
		const fd = openDevice();
		const how = { type: `${blockType}.${options.subtype}`, source: device.path, flags };
		const result = await mountConnection(fd, mountpoint, options, how);
		if (result >= 0 && isConnected(fd)) return await opened(fd, mountpoint, options, serve);
		closeSync(fd);
		// Somebody put another node in the place of ours in between: the kernel has mounted that other volume a second time.
		if (result >= 0) await libc().umount(cString(mountpoint), mntDetach | umountNoFollow);
		return undefined;
	} finally {
		await device.release();
	}
}

/** Whether a mount belongs to this descriptor of `/dev/fuse`: then INIT waits to be read. */
export function isConnected(fd: number): boolean {
	const fds = new Uint8Array(pollFdBytes);
	const view = new DataView(fds.buffer);
	view.setInt32(0, fd, true);
	view.setInt16(4, pollIn, true);
	return libc().poll(fds, 1, 0) === 1 && (view.getInt16(6, true) & (pollIn | pollErr)) === pollIn;
}

async function opened(fd: number, mountpoint: string, options: FuseMountOptions, serve: Serve): Promise<FuseChannel> {
	try {
		await raiseReadAhead(mountpoint, options.maxReadBytes);
		return serve(fd, options.subtype);
	} catch (error) {
		// First the connection, or unmounting would wait for an answer to INIT.
		closeSync(fd);
		await libc().umount(cString(mountpoint), mntDetach | umountNoFollow);
		throw error;
	}
}

/** fuse.h FUSE_NOTIFY_RESEND, `struct fuse_out_header` without a body. */
const notifyResend = 7;

async function resume(descriptor: number, subtype: string, serve: Serve): Promise<FuseChannel> {
	const message = new Uint8Array(16);
	const view = new DataView(message.buffer);
	view.setUint32(0, message.length, true);
	view.setInt32(4, notifyResend, true);
	try {
		writeSync(descriptor, message);
	} catch (error) {
		const { code } = error as { code?: string };
		if (code === "EINVAL")
			throw new FsError(
				"ENOTSUP",
				"platform.fuse-resend",
				"this kernel cannot hand a mount over to another process: it needs Linux 6.9",
				{},
				error,
			);
		// EPERM, ENODEV: the mount is gone, and the first read will say so.
		if (code !== "EPERM" && code !== "ENODEV" && code !== "ENOTCONN") throw toFsError(error, "platform.fuse-resend");
	}
	return serve(descriptor, subtype);
}

function openDevice(): number {
	try {
		return openSync(device, constants.O_RDWR | constants.O_NONBLOCK);
	} catch (error) {
		throw toFsError(error, "platform.fuse-open");
	}
}

/** Requests of the largest size that the kernel keeps under way for somebody who reads in order: the disks answer side by side. */
const requestsAhead = 8;

/**
 * The kernel reads 128 KiB ahead unless told otherwise; what it may ask for at most is settled in INIT. Only speed is at stake: failing is
 * fine.
 */
async function raiseReadAhead(mountpoint: string, bytes: number): Promise<void> {
	try {
		const line = await mountedAt(mountpoint);
		if (line === undefined) return;
		const bdi = line.type.startsWith(blockType) ? `${line.device}-fuseblk` : line.device;
		await writeFile(`/sys/class/bdi/${bdi}/read_ahead_kb`, String(Math.floor((bytes * requestsAhead) / 1024)));
	} catch {
		// Without /sys, or read-only.
	}
}

/** On a thread of its own. 0 or -errno. */
function unmountApart(workerData: Unmount): Promise<number> {
	return new Promise((resolve, reject) => {
		const url = new URL("./fuse-unmounter.js", import.meta.url);
		const worker = new Worker(url, { workerData, resourceLimits: workerHeap, trackUnmanagedFds: false, name: "fuse-unmounter" });
		worker.once("message", resolve);
		worker.once("error", reject);
	});
}

async function unmount(mountpoint: string, lazy: boolean): Promise<void> {
	if (!isRoot()) return unmountAsUser(mountpoint, lazy);
	const type = (await mountedAt(mountpoint))?.type ?? "";
	const result = await unmountApart({ target: cString(mountpoint), flags: umountNoFollow | (lazy ? mntDetach : 0) });
	if (result < 0) throw failed("unmount", "platform.fuse-unmount", mountpoint, -result);
	if (type.startsWith(`${blockType}.`)) await removeStaleNodes(type.slice(blockType.length + 1));
}

async function abort(mountpoint: string): Promise<void> {
	const entry = await mountedAt(mountpoint);
	if (entry === undefined || !/^fuse(blk)?(\.|$)/.test(entry.type)) throw failed("abort", "platform.fuse-abort", mountpoint, 22);
	const connection = connectionOfDevice(entry.device);
	const servers = serversOf(connection);
	if (servers.length > 0) {
		const message = `${latin1ToUtf8(mountpoint)} does not answer, but process ${servers.join(", ")} serves or keeps it: end that one first`;
		throw new FsError("EBUSY", "platform.fuse-abort-served", message, { mountpoint, servers });
	}
	const refused = abortConnection(connection);
	if (refused !== undefined)
		throw new FsError("EPERM", "platform.fuse-abort-refused", `the connection of ${latin1ToUtf8(mountpoint)} cannot be ended: ${refused}`);
}

export interface MountEntry {
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

async function mountedAt(mountpoint: string): Promise<MountEntry | undefined> {
	return (await mountTable()).filter((entry) => entry.mountpoint === mountpoint).at(-1);
}

/** A mount on a device made here is told as one without: callers know their mounts by `SUBTYPE:NAME`. */
export function asPlain({ mountpoint, source, type }: MountEntry): { mountpoint: string; source: string; type: string } {
	const subtype = type.startsWith(`${blockType}.`) ? type.slice(blockType.length + 1) : undefined;
	const plain = subtype === undefined ? undefined : plainSource(subtype, source);
	return plain === undefined ? { mountpoint, source, type } : { mountpoint, source: plain, type: `fuse.${subtype}` };
}

async function mounts(): Promise<readonly { readonly mountpoint: string; readonly source: string; readonly type: string }[]> {
	return (await mountTable()).filter(({ type }) => /^fuse(blk)?(\.|$)/.test(type)).map(asPlain);
}
