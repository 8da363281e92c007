/**
 * System calls by order of another process: `node agent.js FOLDER UID GID GROUPS UMASK`, GROUPS separated by commas or empty. Each line of the input is a call, `[name, ...arguments]` in JSON; each
 * line of the output is its result, `{"value": …}` or `{"errno": "EPERM"}`. Calls go through libc as they are: node:fs would add rules of its own. Paths are relative to FOLDER.
 *
 * Not privileged when UID is not 0: no capability is left then.
 */
import { readdirSync } from "node:fs";
import { createInterface } from "node:readline";
import koffi from "koffi";

const libc = koffi.load("libc.so.6");
const ints = (name: string, ...types: readonly string[]): ((...args: unknown[]) => number) => libc.func(`int ${name}(${types.join(", ")})`);
const longs = (name: string, ...types: readonly string[]): ((...args: unknown[]) => number) =>
	libc.func(`int64_t ${name}(${types.join(", ")})`);

const here = -100;
const noFollow = 0x100;
const follow = 0x400;
const emptyPath = 0x1000;

const c = {
	open: ints("open", "str", "int", "uint32_t"),
	close: ints("close", "int"),
	mkdir: ints("mkdir", "str", "uint32_t"),
	rmdir: ints("rmdir", "str"),
	unlink: ints("unlink", "str"),
	rename: ints("renameat2", "int", "str", "int", "str", "uint32_t"),
	link: ints("linkat", "int", "str", "int", "str", "int"),
	symlink: ints("symlink", "str", "str"),
	readlink: longs("readlink", "str", "_Out_ uint8_t *", "size_t"),
	mknod: ints("mknod", "str", "uint32_t", "uint64_t"),
	chmod: ints("chmod", "str", "uint32_t"),
	chown: ints("fchownat", "int", "str", "uint32_t", "uint32_t", "int"),
	truncate: ints("truncate", "str", "int64_t"),
	ftruncate: ints("ftruncate", "int", "int64_t"),
	fallocate: ints("fallocate", "int", "int", "int64_t", "int64_t"),
	pwrite: longs("pwrite", "int", "const uint8_t *", "size_t", "int64_t"),
	pread: longs("pread", "int", "_Out_ uint8_t *", "size_t", "int64_t"),
	write: longs("write", "int", "const uint8_t *", "size_t"),
	access: ints("faccessat", "int", "str", "int", "int"),
	utimens: ints("utimensat", "int", "str", "const int64_t *", "int"),
	statx: ints("statx", "int", "str", "int", "uint32_t", "_Out_ uint8_t *"),
	setxattr: ints("lsetxattr", "str", "str", "const uint8_t *", "size_t", "int"),
	getxattr: longs("lgetxattr", "str", "str", "_Out_ uint8_t *", "size_t"),
	listxattr: longs("llistxattr", "str", "_Out_ uint8_t *", "size_t"),
	removexattr: ints("lremovexattr", "str", "str"),
	ioctl: ints("ioctl", "int", "uint64_t", "_Inout_ uint8_t *"),
	fsync: ints("fsync", "int"),
	umask: ints("umask", "uint32_t"),
	chdir: ints("chdir", "str"),
} as const;

class Failed extends Error {}

/** What the call answered. @throws Failed. */
function must(result: number): number {
	if (result >= 0) return result;
	const number = koffi.errno();
	throw new Failed(Object.entries(koffi.os.errno).find(([, value]) => value === number)?.[0] ?? `errno ${number}`);
}

const fileTypes: Readonly<Record<number, string>> = {
	1: "fifo",
	2: "character",
	4: "directory",
	6: "block",
	8: "file",
	10: "symlink",
	12: "socket",
};

/** `struct statx`; times as `[seconds, nanoseconds]`. */
function stat(path: string, flags: number): unknown {
	const bytes = new Uint8Array(256);
	must(c.statx(here, path, flags, 0xfff, bytes));
	const view = new DataView(bytes.buffer);
	const time = (at: number): number[] => [Number(view.getBigInt64(at, true)), view.getUint32(at + 8, true)];
	const mode = view.getUint16(28, true);
	return {
		hasBirth: (view.getUint32(0, true) & 0x800) !== 0,
		nlink: view.getUint32(16, true),
		uid: view.getUint32(20, true),
		gid: view.getUint32(24, true),
		type: fileTypes[mode >> 12],
		mode: mode & 0o7777,
		ino: Number(view.getBigUint64(32, true)),
		size: Number(view.getBigUint64(40, true)),
		atime: time(64),
		btime: time(80),
		ctime: time(96),
		mtime: time(112),
		rdev: [view.getUint32(128, true), view.getUint32(132, true)],
	};
}

/** ioctl(2) on a path of its own opening: what chattr(1) and lsattr(1) do. */
function control(path: string, command: number, bytes: Uint8Array): DataView {
	const fd = must(c.open(path, 0o4000, 0));
	try {
		must(c.ioctl(fd, command, bytes));
	} finally {
		c.close(fd);
	}
	return new DataView(bytes.buffer);
}

function words(bytes: number, ...values: readonly number[]): Uint8Array {
	const view = new DataView(new ArrayBuffer(bytes));
	for (const [i, value] of values.entries()) view.setUint32(i * 4, value, true);
	return new Uint8Array(view.buffer);
}

/** Attributes travel as text, one char for each byte; a number stands for so many bytes of 'x'. */
function bytesOf(value: string | number): Uint8Array {
	return typeof value === "number" ? new Uint8Array(value).fill(120) : Uint8Array.from(value, (char) => char.charCodeAt(0));
}

function textOf(bytes: Uint8Array, length: number): string {
	return Buffer.from(bytes.subarray(0, length)).toString("latin1");
}

function names(path: string): string[] {
	const fd = must(c.open(path, 0o200000, 0));
	c.close(fd);
	return readdirSync(path).sort();
}

function time([seconds, nanoseconds]: readonly [number, number]): [bigint, bigint] {
	return [BigInt(seconds), BigInt(nanoseconds)];
}

type Time = readonly [seconds: number, nanoseconds: number];

/** Every call that can be ordered, with its arguments. What they answer is told where it is not 0. */
const calls = {
	/** A descriptor. */
	open: (path: string, flags: number, mode = 0) => must(c.open(path, flags, mode)),
	close: (fd: number) => must(c.close(fd)),
	/** Opens and closes. */
	touch: (path: string, flags: number, mode = 0) => must(c.close(must(c.open(path, flags, mode)))),
	mkdir: (path: string, mode: number) => must(c.mkdir(path, mode)),
	rmdir: (path: string) => must(c.rmdir(path)),
	unlink: (path: string) => must(c.unlink(path)),
	rename: (from: string, to: string, flags = 0) => must(c.rename(here, from, here, to, flags)),
	link: (from: string, to: string) => must(c.link(here, from, here, to, 0)),
	/** Of an open file: by /proc, as everybody may, or with AT_EMPTY_PATH, which is root's. */
	linkFd: (fd: number, to: string) => must(c.link(here, `/proc/self/fd/${fd}`, here, to, follow)),
	linkEmpty: (fd: number, to: string) => must(c.link(fd, "", here, to, emptyPath)),
	symlink: (target: string, path: string) => must(c.symlink(target, path)),
	readlink: (path: string) => {
		const bytes = new Uint8Array(4096);
		return textOf(bytes, must(c.readlink(path, bytes, bytes.length)));
	},
	mknod: (path: string, mode: number, device = 0) => must(c.mknod(path, mode, device)),
	chmod: (path: string, mode: number) => must(c.chmod(path, mode)),
	/** -1 leaves one as it is. */
	chown: (path: string, uid: number, gid: number) => must(c.chown(here, path, uid >>> 0, gid >>> 0, noFollow)),
	truncate: (path: string, size: number) => must(c.truncate(path, size)),
	ftruncate: (fd: number, size: number) => must(c.ftruncate(fd, size)),
	fallocate: (fd: number, mode: number, offset: number, length: number) => must(c.fallocate(fd, mode, offset, length)),
	write: (fd: number, text: string | number) => must(c.write(fd, bytesOf(text), bytesOf(text).length)),
	pwrite: (fd: number, text: string | number, offset: number) => must(c.pwrite(fd, bytesOf(text), bytesOf(text).length, offset)),
	pread: (fd: number, length: number, offset: number) => {
		const bytes = new Uint8Array(length);
		return textOf(bytes, must(c.pread(fd, bytes, length, offset)));
	},
	/** Opens for writing and appending, writes, closes. */
	append: (path: string, text: string) => {
		const fd = must(c.open(path, 0o6001, 0));
		try {
			return must(c.write(fd, bytesOf(text), text.length));
		} finally {
			c.close(fd);
		}
	},
	/** With the effective user. */
	access: (path: string, mode: number) => must(c.access(here, path, mode, 0x200)),
	utimens: (path: string, atime: Time, mtime: Time) =>
		must(c.utimens(here, path, new BigInt64Array([...time(atime), ...time(mtime)]), noFollow)),
	/** Both to now: futimens(NULL). */
	utimesNow: (path: string) => must(c.utimens(here, path, null, 0)),
	stat: (path: string) => stat(path, noFollow),
	statFollow: (path: string) => stat(path, 0),
	setxattr: (path: string, name: string, value: string | number, flags = 0) =>
		must(c.setxattr(path, name, bytesOf(value), bytesOf(value).length, flags)),
	getxattr: (path: string, name: string, room = 65_536) => {
		const bytes = new Uint8Array(room);
		const length = must(c.getxattr(path, name, bytes, room));
		return room === 0 ? length : textOf(bytes, length);
	},
	listxattr: (path: string, room = 65_536) => {
		const bytes = new Uint8Array(room);
		const length = must(c.listxattr(path, bytes, room));
		return room === 0 ? length : textOf(bytes, length).split("\0").slice(0, -1).sort();
	},
	removexattr: (path: string, name: string) => must(c.removexattr(path, name)),
	getFlags: (path: string) => control(path, 0x8008_6601, new Uint8Array(8)).getUint32(0, true),
	setFlags: (path: string, flags: number) => void control(path, 0x4008_6602, words(8, flags)),
	getExtendedFlags: (path: string) => control(path, 0x801c_581f, new Uint8Array(28)).getUint32(0, true),
	setExtendedFlags: (path: string, flags: number, project = 0) => void control(path, 0x401c_5820, words(28, flags, 0, 0, project)),
	getVersion: (path: string) => control(path, 0x8008_7601, new Uint8Array(8)).getUint32(0, true),
	/** Bytes that can be read from here: FIONREAD. */
	readable: (path: string) => control(path, 0x541b, new Uint8Array(8)).getInt32(0, true),
	fsync: (fd: number) => must(c.fsync(fd)),
	names,
	umask: (mask: number) => must(c.umask(mask)),
	chdir: (path: string) => must(c.chdir(path)),
} as const;

export type Calls = typeof calls;
export type CallName = keyof Calls;

function answer(line: string): unknown {
	const [name, ...rest] = JSON.parse(line) as [CallName, ...unknown[]];
	try {
		return { value: (calls[name] as (...args: unknown[]) => unknown)(...rest) ?? 0 };
	} catch (error) {
		if (error instanceof Failed) return { errno: error.message };
		throw error;
	}
}

function begin(folder: string, uid: number, gid: number, groups: string, umask: string): void {
	process.chdir(folder);
	process.setgroups?.(groups === "" ? [] : groups.split(",").map(Number));
	process.setgid?.(gid);
	process.setuid?.(uid);
	process.umask(Number.parseInt(umask, 8));
	createInterface({ input: process.stdin }).on("line", (line) => process.stdout.write(`${JSON.stringify(answer(line))}\n`));
}

const [folder, uid, gid, groups, umask] = process.argv.slice(2);
if (folder !== undefined) begin(folder, Number(uid), Number(gid), groups ?? "", umask ?? "0");
