/**
 * The block device under a FUSE mount of type `fuseblk`. The kernel passes syncfs(2) and sync(2) to a FUSE server, and lets umount(2) wait
 * for it, only when the mount has a block device. Nothing is ever read from it or written to it: it is a loop device over a memory file.
 *
 * What people see as the device (`df`, `mount`) is a node of our own, `/dev/SUBTYPE/NAME`.
 *
 * Invariants
 *  V1 The loop device frees itself (AUTOCLEAR) when its last user is gone: the mount, or before it this process. No death leaves one.
 *  V2 A node is made after its loop device was configured, and the memory file is named after the node; a node whose device is not a
 *     loop device over that memory file is stale, and anybody may remove it.
 *  V3 Everything here may be missing or refused (containers); then there is no device, never an error.
 */
import { closeSync, constants, fstatSync, ftruncateSync, openSync } from "node:fs";
import { lstat, mkdir, opendir, readFile, unlink } from "node:fs/promises";
import { latin1ToBytes } from "../../base/bytes.ts";
import { deviceCalls } from "./fuse-libc.ts";
import type { DeviceCalls } from "./fuse-libc.ts";
import { loopBackingBytes, maxLoopTries, maxNodesPerName, maxNodesSwept } from "./fuse-limits.ts";

/** linux/loop.h. `struct loop_config`: u32 fd, u32 block size, `struct loop_info64` (232 bytes), 64 bytes reserved. */
const loopControl = { path: "/dev/loop-control", getFree: 0x4c82 } as const;
const loopConfigure = 0x4c0a;
const loopConfig = { bytes: 304, flags: 60, fileName: 64, fileNameBytes: 64, autoclear: 4 } as const;
const errno = { EBUSY: 16, EEXIST: 17 } as const;
const blockNode = 0o060600;

export interface MountDevice {
	/** The node: the source of the mount. A byte string. */
	readonly path: string;
	/** Call it once the mount holds the device, or when there will be no mount. */
	release(): Promise<void>;
}

// ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Several mounts of one name: the second is `NAME~2`. Names themselves are encoded without `~`. */
const again = "~";

/** One path component for any byte string: what is not a letter, a digit or one of `._-` becomes `%XX`, and so does a dot in front. */
export function encodeNodeName(name: string): string {
	const hex = (byte: string): string => `%${byte.charCodeAt(0).toString(16).padStart(2, "0")}`;
	return name.replace(/[^A-Za-z0-9._-]/g, hex).replace(/^\./, hex);
}

export function decodeNodeName(node: string): string {
	const [encoded = ""] = node.split(again, 1);
	return encoded.replace(/%([0-9a-f]{2})/g, (_, byte: string) => String.fromCharCode(Number.parseInt(byte, 16)));
}

const folderOf = (subtype: string): string => `/dev/${subtype}`;

/** What a mount with a device is called by its callers: as one without. undefined: it is not one of those made here. */
export function plainSource(subtype: string, source: string): string | undefined {
	const folder = `${folderOf(subtype)}/`;
	if (!source.startsWith(folder) || source.length === folder.length) return undefined;
	return `${subtype}:${decodeNodeName(source.slice(folder.length))}`;
}

/** The name within `SUBTYPE:NAME`, where it can be a node. */
function nodeNameOf(subtype: string, source: string): string | undefined {
	if (!source.startsWith(`${subtype}:`)) return undefined;
	const node = encodeNodeName(source.slice(subtype.length + 1));
	// NAME_MAX is 255 and memfd_create allows 249, both with something added here.
	return node.length > 0 && subtype.length + node.length <= 200 ? node : undefined;
}

const memoryName = (subtype: string, node: string): string => `${subtype}:${node.split(again, 1)[0]}`;

// ── stale nodes ──────────────────────────────────────────────────────────────────────────────────────────────────

async function isStale(subtype: string, node: string): Promise<boolean> {
	const there = await lstat(`${folderOf(subtype)}/${node}`);
	if (!there.isBlockDevice()) return false;
	const minor = (there.rdev & 0xff) | ((there.rdev >>> 12) & ~0xff);
	const device = `/sys/dev/block/${(there.rdev >>> 8) & 0xfff}:${minor}`;
	const backing = await readFile(`${device}/loop/backing_file`, "latin1").catch(() => undefined);
	if (backing !== undefined) return backing.trimEnd() !== `/memfd:${memoryName(subtype, node)} (deleted)`;
	// Without /sys nothing can be told, and nothing is taken away.
	return lstat("/sys/dev/block").then(
		() => true,
		() => false,
	);
}

/** Removes the nodes whose mount is gone (umount(8), a killed daemon). */
export async function removeStaleNodes(subtype: string): Promise<void> {
	try {
		let looked = 0;
		for await (const { name } of await opendir(folderOf(subtype))) {
			if (++looked > maxNodesSwept) break;
			if (await isStale(subtype, name).catch(() => false)) await unlink(`${folderOf(subtype)}/${name}`).catch(() => {});
		}
	} catch {
		// No folder, no nodes.
	}
}

// ── making one ───────────────────────────────────────────────────────────────────────────────────────────────────

/** For the source `SUBTYPE:NAME`. undefined where there are no loop devices to be had. */
export async function createMountDevice(subtype: string, source: string): Promise<MountDevice | undefined> {
	const calls = deviceCalls();
	const node = nodeNameOf(subtype, source);
	if (calls === undefined || node === undefined) return undefined;
	await removeStaleNodes(subtype);
	const loop = await openLoop(calls, memoryName(subtype, node));
	if (loop === undefined) return undefined;
	const path = await makeNode(calls, subtype, node, loop);
	if (path === undefined) {
		closeSync(loop);
		return undefined;
	}
	const release = async (): Promise<void> => {
		closeSync(loop);
		await removeStaleNodes(subtype);
	};
	return { path, release };
}

/** A descriptor of a loop device over an empty memory file; the device is free again when it is closed, unless mounted by then. */
async function openLoop(calls: DeviceCalls, name: string): Promise<number | undefined> {
	const memory = calls.memfd(latin1ToBytes(`${name}\0`));
	if (memory < 0) return undefined;
	try {
		ftruncateSync(memory, loopBackingBytes);
		for (let tries = 0; tries < maxLoopTries; tries++) {
			const result = await tryLoop(calls, memory, name);
			if (result >= 0) return result;
			if (result !== -errno.EBUSY) return undefined;
		}
		return undefined;
	} catch {
		return undefined;
	} finally {
		closeSync(memory);
	}
}

/** A descriptor or -errno. Throws when a device cannot be opened. */
async function tryLoop(calls: DeviceCalls, memory: number, name: string): Promise<number> {
	const free = await withDescriptor(loopControl.path, (fd) => calls.ioctl(fd, loopControl.getFree, null));
	if (free < 0) return free;
	const loop = openSync(`/dev/loop${free}`, constants.O_RDWR);
	const result = await calls.ioctl(loop, loopConfigure, configuration(memory, name));
	if (result >= 0) return loop;
	closeSync(loop);
	return result;
}

async function withDescriptor(path: string, use: (fd: number) => Promise<number>): Promise<number> {
	const fd = openSync(path, constants.O_RDWR);
	try {
		return await use(fd);
	} finally {
		closeSync(fd);
	}
}

function configuration(memory: number, name: string): Uint8Array {
	const bytes = new Uint8Array(loopConfig.bytes);
	const view = new DataView(bytes.buffer);
	view.setUint32(0, memory, true);
	// Not read-only: the kernel refuses a writable mount on such a device.
	view.setUint32(loopConfig.flags, loopConfig.autoclear, true);
	bytes.set(latin1ToBytes(name.slice(0, loopConfig.fileNameBytes - 1)), loopConfig.fileName);
	return bytes;
}

/** The path of a node for the device, or nothing. */
async function makeNode(calls: DeviceCalls, subtype: string, node: string, loop: number): Promise<string | undefined> {
	const folder = folderOf(subtype);
	try {
		await mkdir(folder, { mode: 0o755, recursive: true });
		const device = fstatSync(loop).rdev;
		for (let number = 1; number <= maxNodesPerName; number++) {
			const path = `${folder}/${node}${number === 1 ? "" : `${again}${number}`}`;
			const result = calls.mknod(latin1ToBytes(`${path}\0`), blockNode, device);
			if (result >= 0) return path;
			if (result !== -errno.EEXIST) return undefined;
		}
	} catch {
		// A /dev that cannot be written.
	}
	return undefined;
}
