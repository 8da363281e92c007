/**
 * The side of a raw device that runs in its thread: a block device, or a file that stands for one. Synchronous calls, one after the other.
 *
 * Invariants
 * 1. Nothing is written before a write is asked for: the device is opened for reading only until then, or until it is locked.
 * 2. A sync reports success only if the path still leads to the device that was opened, and it has not shrunk.
 * 3. After a sync that failed none succeeds any more in this opening.
 *
 * Block devices are read and written past the page cache (O_DIRECT), through one aligned buffer: errors are told by the call that met them, and nothing is held twice.
 */
import fs from "node:fs";
import { FsError } from "../../base/errors.ts";
import { type DiskRequest, type ReadAndSummed, summed } from "./disk-protocol.ts";
import { deviceSize, discardBlocks, forget, punch, sectorSize, tryLock } from "./libc.ts";
import { realLimits } from "./limits.ts";

// Node's types describe the language without the web: what is used of WebAssembly is declared here.
declare const WebAssembly: { readonly Memory: new (size: { readonly initial: number }) => { readonly buffer: ArrayBuffer } };

const { O_RDONLY, O_RDWR, O_DIRECT, O_EXCL, O_NOFOLLOW, O_NONBLOCK } = fs.constants;

interface Identity {
	readonly isBlock: boolean;
	/** Of a block device its own number, else the place of the file. */
	readonly dev: bigint;
	readonly ino: bigint;
}

/** What `openDisk` answers for a raw device. */
export interface OpenedDevice {
	readonly domain: string;
	readonly deviceBytes: number;
}

/** True when the path leads to what can be a raw device; false for directories and for nothing. */
export function isRawDevice(path: string): boolean {
	const stat = fs.statSync(path, { throwIfNoEntry: false });
	return stat !== undefined && (stat.isBlockDevice() || stat.isFile());
}

/** The device as a whole: partitions of one disk fail together. */
export function domainOfDevice(dev: bigint): string {
	const folder = `/sys/dev/block/${major(dev)}:${minor(dev)}`;
	try {
		if (fs.existsSync(`${folder}/partition`)) return `dev:${fs.readFileSync(`${folder}/../dev`, "latin1").trim()}`;
	} catch {
		// No sysfs here: the device itself is what is known.
	}
	return `dev:${major(dev)}:${minor(dev)}`;
}

// As in the C library's gnu_dev_major and gnu_dev_minor.
const major = (dev: bigint): bigint => ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
const minor = (dev: bigint): bigint => (dev & 0xffn) | ((dev >> 12n) & ~0xffn);

export class DeviceServer {
	readonly #path: string;
	#readFd = -1;
	#writeFd = -1;
	#locked = false;
	#identity: Identity | undefined;
	#sizeBytes = 0;
	/** What reads and writes of a block device are multiples of; 1 for files. */
	#block = 1;
	#buffer: Uint8Array | undefined;
	#syncFailed = false;

	constructor(path: string) {
		this.#path = path;
	}

	execute(request: DiskRequest): unknown {
		switch (request.kind) {
			case "openDisk":
				return this.#open();
			case "lock":
				return this.#lock();
			case "probe":
				return this.#checkSame();
			case "size":
				return this.#sizeBytes;
			case "read":
				return this.#read(request.offset, request.lengthBytes, request.into, request.sumBlockBytes);
			case "write":
				return this.#write(request.offset, request.parts);
			case "sync":
				return this.#sync();
			case "discard":
				return this.#discard(request.offset, request.lengthBytes);
			case "uncache":
				return forget(this.#readFd, request.offset, request.lengthBytes);
			case "close":
				return this.#close();
			default:
				throw new FsError("EINVAL", "platform.device-call", `${request.kind} on the device ${this.#path}`);
		}
	}

	#open(): OpenedDevice {
		const isBlock = fs.statSync(this.#path).isBlockDevice();
		this.#readFd = this.#openFd(O_RDONLY, isBlock);
		const stat = fs.fstatSync(this.#readFd, { bigint: true });
		this.#identity = { isBlock, dev: isBlock ? stat.rdev : stat.dev, ino: isBlock ? 0n : stat.ino };
		this.#sizeBytes = this.#sizeNow();
		if (isBlock) this.#block = sectorSize(this.#readFd, this.#path);
		return { domain: domainOfDevice(this.#identity.dev), deviceBytes: this.#sizeBytes };
	}

	/** Some devices (and file systems under files) have no O_DIRECT. */
	#openFd(flags: number, isBlock: boolean): number {
		const common = flags | O_NONBLOCK;
		if (!isBlock) return fs.openSync(this.#path, common | O_NOFOLLOW);
		try {
			return fs.openSync(this.#path, common | O_DIRECT);
		} catch (error) {
			if ((error as { code?: string }).code !== "EINVAL") throw error;
			return fs.openSync(this.#path, common);
		}
	}

	#sizeNow(): number {
		return this.#identity?.isBlock ? deviceSize(this.#readFd, this.#path) : fs.fstatSync(this.#readFd).size;
	}

	/** A block device is claimed as a mount claims it, so mounts, swap, RAID and other daemons exclude each other; a file is locked, and refused while a loop device is on it. */
	#lock(): void {
		if (this.#locked) return;
		const inUse = (by: string): FsError =>
			new FsError("EBUSY", "platform.disk-locked", `${this.#path} is in use by ${by}`, { path: this.#path });
		if (this.#identity?.isBlock) {
			let fd: number;
			try {
				fd = this.#openFd(O_RDWR | O_EXCL, true);
			} catch (error) {
				if ((error as { code?: string }).code !== "EBUSY") throw error;
				throw inUse("another daemon, a mount, swap or another device");
			}
			if (this.#writeFd >= 0) fs.closeSync(this.#writeFd);
			this.#writeFd = fd;
		} else {
			const loop = loopOn(this.#path);
			if (loop !== undefined) throw inUse(`the loop device ${loop}`);
			if (!tryLock(this.#readFd, this.#path)) throw inUse("another daemon; stop that one first");
		}
		this.#locked = true;
	}

	#writable(): number {
		if (this.#writeFd < 0) this.#writeFd = this.#openFd(O_RDWR, this.#identity?.isBlock ?? false);
		return this.#writeFd;
	}

	/** Page-aligned, as O_DIRECT wants it. */
	#aligned(): Uint8Array {
		this.#buffer ??= new Uint8Array(new WebAssembly.Memory({ initial: realLimits.deviceBufferBytes / 65_536 }).buffer);
		return this.#buffer;
	}

	#read(
		offset: number,
		lengthBytes: number,
		into: Uint8Array | undefined,
		sumBlockBytes: number | undefined,
	): Uint8Array | number | ReadAndSummed {
		const bytes = into ?? new Uint8Array(lengthBytes);
		if (this.#block === 1) fill(this.#readFd, bytes.subarray(0, lengthBytes), offset, this.#path);
		else {
			for (let at = 0; at < lengthBytes; ) {
				const { from, to, inside } = this.#blocks(offset + at, lengthBytes - at);
				const buffer = this.#aligned().subarray(0, to - from);
				fill(this.#readFd, buffer, from, this.#path);
				bytes.set(buffer.subarray(offset + at - from, offset + at - from + inside), at);
				at += inside;
			}
		}
		return into === undefined ? bytes : summed(into, lengthBytes, sumBlockBytes);
	}

	/** Whole blocks around as much of the range as fits the buffer. */
	#blocks(offset: number, lengthBytes: number): { readonly from: number; readonly to: number; readonly inside: number } {
		const from = Math.floor(offset / this.#block) * this.#block;
		const most = from + realLimits.deviceBufferBytes;
		const inside = Math.min(lengthBytes, most - offset);
		return { from, to: Math.min(most, Math.ceil((offset + inside) / this.#block) * this.#block), inside };
	}

	#write(offset: number, parts: readonly Uint8Array[]): void {
		const fd = this.#writable();
		const lengthBytes = parts.reduce((sum, part) => sum + part.length, 0);
		if (this.#block === 1) writeParts(fd, parts, offset);
		else this.#writeBlocks(fd, offset, joined(parts, lengthBytes));
	}

	#writeBlocks(fd: number, offset: number, source: Uint8Array): void {
		const lengthBytes = source.length;
		for (let at = 0; at < lengthBytes; ) {
			const { from, to, inside } = this.#blocks(offset + at, lengthBytes - at);
			const buffer = this.#aligned().subarray(0, to - from);
			const end = offset + at + inside;
			// What lies around the bytes in their blocks stays as it is.
			if (from < offset + at) fill(fd, buffer.subarray(0, this.#block), from, this.#path);
			if (end < to) fill(fd, buffer.subarray(to - from - this.#block), to - this.#block, this.#path);
			buffer.set(source.subarray(at, at + inside), offset + at - from);
			for (let done = 0; done < buffer.length; ) done += fs.writeSync(fd, buffer, done, buffer.length - done, from + done);
			at += inside;
		}
	}

	#sync(): void {
		if (this.#syncFailed) {
			throw new FsError("EIO", "platform.disk-sync-failed-before", `${this.#path}: an earlier sync failed, what it holds is unknown`, {
				path: this.#path,
			});
		}
		try {
			if (this.#writeFd >= 0) fs.fdatasyncSync(this.#writeFd);
		} catch (error) {
			this.#syncFailed = true;
			throw error;
		}
		this.#checkSame();
	}

	#discard(offset: number, lengthBytes: number): void {
		const fd = this.#writable();
		if (punch(fd, offset, lengthBytes, this.#path)) return;
		// The device may forget without being able to promise zeros.
		if (this.#identity?.isBlock) discardBlocks(fd, offset, lengthBytes);
	}

	/** @throws FsError ENODEV. */
	#checkSame(): void {
		const before = this.#identity;
		const stat = fs.statSync(this.#path, { bigint: true, throwIfNoEntry: false });
		if (before === undefined || stat === undefined) throw this.#gone("it is not there any more");
		const same = before.isBlock
			? stat.isBlockDevice() && stat.rdev === before.dev
			: stat.isFile() && stat.dev === before.dev && stat.ino === before.ino;
		if (!same) throw this.#gone("another one is in its place");
		if (this.#sizeNow() < this.#sizeBytes) throw this.#gone(`it has ${this.#sizeNow()} bytes now instead of ${this.#sizeBytes}`);
	}

	#gone(why: string): FsError {
		return new FsError("ENODEV", "platform.disk-gone", `${this.#path} is no longer the device that was opened: ${why}`, {
			path: this.#path,
		});
	}

	#close(): void {
		const open = [this.#writeFd, this.#readFd].filter((fd) => fd >= 0);
		this.#writeFd = this.#readFd = -1;
		for (const fd of open) fs.closeSync(fd);
	}
}

/** A loop device that is on this file: whoever writes past it destroys what is seen through it. */
function loopOn(path: string): string | undefined {
	try {
		const real = fs.realpathSync(path);
		for (const name of fs.readdirSync("/sys/block")) {
			if (!name.startsWith("loop")) continue;
			const file = `/sys/block/${name}/loop/backing_file`;
			if (fs.existsSync(file) && fs.readFileSync(file, "utf8").trimEnd() === real) return `/dev/${name}`;
		}
	} catch {
		// No sysfs here.
	}
	return undefined;
}

/** @throws FsError EIO when the device ends too early. */
function fill(fd: number, bytes: Uint8Array, offset: number, path: string): void {
	for (let done = 0; done < bytes.length; ) {
		const count = fs.readSync(fd, bytes, done, bytes.length - done, offset + done);
		if (count === 0) throw new FsError("EIO", "platform.device-short", `${path} ends at ${offset + done}: it shrank`, { path });
		done += count;
	}
}

function writeParts(fd: number, parts: readonly Uint8Array[], offset: number): void {
	let at = offset;
	for (const part of parts) {
		for (let done = 0; done < part.length; ) done += fs.writeSync(fd, part, done, part.length - done, at + done);
		at += part.length;
	}
}

function joined(parts: readonly Uint8Array[], lengthBytes: number): Uint8Array {
	const [only] = parts;
	if (parts.length === 1 && only !== undefined) return only;
	const bytes = new Uint8Array(lengthBytes);
	let at = 0;
	for (const part of parts) {
		bytes.set(part, at);
		at += part.length;
	}
	return bytes;
}
