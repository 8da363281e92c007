/**
 * ioctl(2): flags of inodes, as chattr(1) and lsattr(1) ask for them (ioctl_iflags(2), `struct fsxattr` of `<linux/fs.h>`). The kernel has checked that the caller owns the
 * file, and CAP_LINUX_IMMUTABLE where it is needed; what it does not send here (FIONREAD, FIGETBSZ …) it answers by itself.
 */
import { FsError } from "../../base/errors.ts";
import type { Caller, NodeRef } from "../../volume/interface.ts";
import type { Door } from "./door.ts";
import type { IoctlIn } from "./protocol.ts";
import { ReplyWriter, outHeaderBytes } from "./protocol.ts";

/** Of 64-bit callers, and where they differ of 32-bit ones: _IOR('f', 1, long) and so on. */
const commands = {
	getFlags: [0x8008_6601, 0x8004_6601],
	setFlags: [0x4008_6602, 0x4004_6602],
	getExtended: [0x801c_581f],
	setExtended: [0x401c_5820],
	getVersion: [0x8008_7601, 0x8004_7601],
} as const satisfies Record<string, readonly number[]>;

type Command = keyof typeof commands;

const extendedBytes = 28;
/** FS_*_FL → FS_XFLAG_*. */
const extendedFlags: readonly (readonly [flag: number, extended: number])[] = [
	[0x10, 0x08],
	[0x20, 0x10],
	[0x40, 0x80],
	[0x80, 0x40],
];

/** The answer's bytes. @throws FsError ENOTTY (not known), ENOTSUP (flags that are not kept), EINVAL. */
export async function answerIoctl(door: Door, caller: Caller, node: NodeRef, { command, input }: IoctlIn): Promise<Uint8Array> {
	const known = (Object.keys(commands) as Command[]).find((name) => (commands[name] as readonly number[]).includes(command));
	if (known === undefined) throw new FsError("ENOTTY", "fuse.ioctl", `ioctl 0x${command.toString(16)} is not known here`);
	switch (known) {
		case "getFlags":
			return int((await door.volume.getAttributes(caller, node)).flags);
		case "setFlags":
			await setFlags(door, caller, node, readU32(input, 0));
			return new Uint8Array(0);
		case "getExtended":
			return extendedOf((await door.volume.getAttributes(caller, node)).flags);
		case "setExtended":
			await setFlags(door, caller, node, flagsOf(input));
			return new Uint8Array(0);
		case "getVersion":
			// Inode numbers are never used again: there is one generation of each.
			return int(0);
	}
}

export function changesFlags({ command }: IoctlIn): boolean {
	return [...commands.setFlags, ...commands.setExtended].some((known) => known === command);
}

function readU32(bytes: Uint8Array, at: number): number {
	if (bytes.length < at + 4) throw new FsError("EINVAL", "fuse.ioctl-short", `an ioctl with ${bytes.length} bytes`);
	return new DataView(bytes.buffer, bytes.byteOffset).getUint32(at, true);
}

/** The commands say long; what callers have room for is an int. */
function int(value: number): Uint8Array {
	const bytes = new Uint8Array(4);
	new DataView(bytes.buffer).setUint32(0, value, true);
	return bytes;
}

/** `struct fsxattr`: flags, extent size, extents, project, copy-on-write extent size, padding. */
function extendedOf(flags: number): Uint8Array {
	const w = new ReplyWriter(outHeaderBytes + extendedBytes);
	w.u32(extendedFlags.reduce((all, [flag, extended]) => ((flags & flag) === 0 ? all : all | extended), 0)).zeros(extendedBytes - 4);
	return w.bytes.subarray(outHeaderBytes);
}

function flagsOf(input: Uint8Array): number {
	const wanted = readU32(input, 0);
	const unknown = extendedFlags.reduce((rest, [, extended]) => rest & ~extended, wanted);
	for (const at of [4, 12, 16]) {
		if (readU32(input, at) !== 0) throw new FsError("ENOTSUP", "fuse.ioctl-fsxattr", "extent sizes and projects are not supported");
	}
	if (unknown !== 0) throw new FsError("ENOTSUP", "fuse.ioctl-xflags", `flags 0x${unknown.toString(16)} are not supported`);
	return extendedFlags.reduce((all, [flag, extended]) => ((wanted & extended) === 0 ? all : all | flag), 0);
}

async function setFlags(door: Door, caller: Caller, node: NodeRef, flags: number): Promise<void> {
	const changed = await door.volume.setAttributes(caller, node, { flags });
	door.changed(changed);
	// The kernel believes that flags leave the attributes as they were; ctime is another.
	await door.forgetAttributes(node.ino);
}
