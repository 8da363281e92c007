/** The few system calls that node:fs does not have, through koffi. Loaded at first use: most processes need none of them. */
import koffi from "koffi";
import { type ErrorCode, FsError } from "../../base/errors.ts";

interface Libc {
	readonly flock: (fd: number, operation: number) => number;
	readonly fallocate: (fd: number, mode: number, offset: number, length: number) => number;
	readonly posix_fadvise: (fd: number, offset: number, length: number, advice: number) => number;
	readonly mmap: (address: unknown, length: number, protection: number, flags: number, fd: number, offset: number) => unknown;
	readonly ioctlBytes: (fd: number, request: number, into: BigInt64Array) => number;
	readonly munmap: (address: unknown, length: number) => number;
	readonly clock_gettime: (clock: number, into: BigInt64Array) => number;
	readonly syncfs: (fd: number) => number;
	readonly statx: (directory: number, path: Uint8Array, flags: number, mask: number, into: Uint32Array) => number;
}

const lockExclusive = 2;
const lockNonBlocking = 4;
const adviceRandom = 1;
const adviceWillNeed = 3;
const adviceDontNeed = 4;
const keepSize = 1;
const punchHole = 2;
const readWrite = 1 | 2;
const mapShared = 0x01;
const mapPrivate = 0x02;
const mapFixed = 0x10;
const mapAnonymous = 0x20;
const mapNoReserve = 0x4000;

let loaded: Libc | undefined;

function libc(): Libc {
	if (loaded !== undefined) return loaded;
	const library = koffi.load("libc.so.6");
	loaded = {
		flock: library.func("int flock(int fd, int operation)"),
		fallocate: library.func("int fallocate(int fd, int mode, int64_t offset, int64_t length)"),
		posix_fadvise: library.func("int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)"),
		mmap: library.func("void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)"),
		ioctlBytes: library.func("int ioctl(int fd, unsigned long request, _Inout_ int64_t *into)"),
		munmap: library.func("int munmap(void *address, size_t length)"),
		clock_gettime: library.func("int clock_gettime(int clock, _Out_ int64_t *into)"),
		syncfs: library.func("int syncfs(int fd)"),
		statx: library.func("int statx(int directory, const void *path, int flags, unsigned int mask, void *into)"),
	};
	return loaded;
}

function lastError(): string {
	const number = koffi.errno();
	return Object.entries(koffi.os.errno).find(([, value]) => value === number)?.[0] ?? `errno ${number}`;
}

/** True when the lock was taken, false when somebody else has it. @throws FsError ENOTSUP, EIO. */
export function tryLock(fd: number, what: string): boolean {
	for (;;) {
		if (libc().flock(fd, lockExclusive | lockNonBlocking) === 0) return true;
		const error = lastError();
		if (error === "EINTR") continue;
		if (error === "EWOULDBLOCK" || error === "EAGAIN") return false;
		throw new FsError(
			"ENOTSUP",
			"platform.flock",
			`${what} cannot be locked (${error}); put the disk on a local file system that supports flock`,
		);
	}
}

/**
 * Reads fetch just what they ask for, in one go: without it the kernel cuts a read of half a megabyte into pieces of its read-ahead window, one after the other, and fetches neighbours of small
 * ones that nobody wants. Only speed is at stake.
 */
export function readExactly(fd: number): void {
	libc().posix_fadvise(fd, 0, 0, adviceRandom);
}

/** The device is asked for the range, and not waited for (POSIX_FADV_WILLNEED). What goes wrong is said by the read that follows. */
export function prefetch(fd: number, offset: number, lengthBytes: number): void {
	libc().posix_fadvise(fd, offset, lengthBytes, adviceWillNeed);
}

/** Clean pages of the range leave the page cache; whole pages only, and not those that somebody has mapped. What cannot leave stays. */
export function forget(fd: number, offset: number, lengthBytes: number): void {
	if (lengthBytes > 0) libc().posix_fadvise(fd, offset, lengthBytes, adviceDontNeed);
}

/** Gives a range back; false where file system or device cannot. @throws FsError EIO. */
export function punch(fd: number, offset: number, lengthBytes: number, what: string): boolean {
	if (lengthBytes === 0) return true;
	for (;;) {
		if (libc().fallocate(fd, punchHole | keepSize, offset, lengthBytes) === 0) return true;
		const error = lastError();
		if (error === "EINTR") continue;
		if (error === "EOPNOTSUPP" || error === "ENOTSUP" || error === "ENOSYS") return false;
		throw new FsError(
			error === "EROFS" ? "EROFS" : "EIO",
			"platform.punch",
			`${what}: punching a hole of ${lengthBytes} bytes at ${offset} failed: ${error}`,
		);
	}
}

/** Takes space for a range that is not written; what is there stays. True: done; false: no room for all of it; undefined: the file system cannot. @throws FsError EIO, EROFS. */
export function allocate(fd: number, offset: number, lengthBytes: number, what: string): boolean | undefined {
	for (;;) {
		if (libc().fallocate(fd, 0, offset, lengthBytes) === 0) return true;
		const error = lastError();
		if (error === "EINTR") continue;
		if (error === "ENOSPC" || error === "EDQUOT" || error === "EFBIG") return false;
		if (error === "EOPNOTSUPP" || error === "ENOTSUP" || error === "ENOSYS") return undefined;
		throw new FsError(
			error === "EROFS" ? "EROFS" : "EIO",
			"platform.allocate",
			`${what}: taking ${lengthBytes} bytes at ${offset} failed: ${error}`,
		);
	}
}

/** Puts memory behind every byte of the file: a store into a mapping without it kills the process. @throws FsError ENOSPC. */
export function reserve(fd: number, lengthBytes: number, what: string): void {
	for (;;) {
		if (libc().fallocate(fd, 0, 0, lengthBytes) === 0) return;
		const error = lastError();
		if (error === "EINTR") continue;
		throw new FsError(
			"ENOSPC",
			"platform.reserve",
			`${what}: no room for ${lengthBytes} bytes (${error}); make the file system larger or free some of it`,
		);
	}
}

/** syncfs(2): everything that was written to the file system of `fd` is durable. @throws FsError EIO, ENOSPC … */
export function syncFileSystem(fd: number, what: string): void {
	if (libc().syncfs(fd) === 0) return;
	const error = lastError();
	throw new FsError(/^E[A-Z0-9]+$/.test(error) ? (error as ErrorCode) : "EIO", "platform.syncfs", `${what}: syncfs failed: ${error}`);
}

const currentDirectory = -100;
const emptyPath = 0x1000;
/** STATX_NLINK and STATX_INO: what is asked for. */
const wantedFields = 0x4 | 0x100;
const statxBytes = 256;
const noPath = new Uint8Array(1);

/**
 * What tells a file from any other: the numbers of its device and inode. To look at one costs a system call and little else, where stat of node:fs makes an object of eighteen bigints.
 *
 * `struct statx` (linux/stat.h), as 32-bit words: links at 4, inode at 8 and 9, device at 34 and 35.
 */
export class FileIdentity {
	readonly #seen = statxRoom();
	readonly #words: readonly number[];

	private constructor(seen: Uint32Array) {
		this.#words = identityWords.map((at) => seen[at] as number);
	}

	/** Of an open file. Undefined where there is no such call. */
	static of(fd: number): FileIdentity | undefined {
		const seen = statxRoom();
		return libc().statx(fd, noPath, emptyPath, wantedFields, seen) === 0 ? new FileIdentity(seen) : undefined;
	}

	/** Whether the path, which ends with a NUL, leads to it. False too when that cannot be found out. */
	isAt(path: Uint8Array): boolean {
		const seen = this.#seen;
		if (libc().statx(currentDirectory, path, 0, wantedFields, seen) !== 0) return false;
		for (let index = 0; index < identityWords.length; index++)
			if (seen[identityWords[index] as number] !== this.#words[index]) return false;
		return true;
	}
}

const identityWords = [8, 9, 34, 35] as const;
const linksWord = 4;

/** Whether a name leads to an open file. False too when that cannot be found out. `room` is written over. */
export function hasName(fd: number, room: Uint32Array): boolean {
	return libc().statx(fd, noPath, emptyPath, wantedFields, room) === 0 && room[linksWord] !== 0;
}

/** For `hasName`. */
export function statxRoom(): Uint32Array {
	return new Uint32Array(statxBytes / 4);
}

const clockRealtime = 0;

/** CLOCK_REALTIME into two numbers, seconds and nanoseconds (`struct timespec` of 64-bit machines). */
export function readRealtime(into: BigInt64Array): void {
	if (libc().clock_gettime(clockRealtime, into) !== 0)
		throw new FsError("EIO", "platform.clock", `the clock cannot be read: ${lastError()}`);
}

export interface Mapping {
	readonly buffer: ArrayBuffer;
	/** Lets go of the file. The buffer stays readable and writable, but it is nobody's memory any more. */
	release(): void;
}

interface Address {
	readonly pointer: unknown;
	readonly lengthBytes: number;
}

/** Address space is given back when the last view of a mapping is gone: unmapping earlier would turn a late access into SIGSEGV. */
const collected = new FinalizationRegistry<Address>((address) => {
	libc().munmap(address.pointer, address.lengthBytes);
});

/** Maps the whole file, shared. @throws FsError ENOMEM. */
export function mapShare(fd: number, lengthBytes: number, what: string): Mapping {
	const pointer = libc().mmap(null, lengthBytes, readWrite, mapShared, fd, 0);
	if (isFailed(pointer)) throw new FsError("ENOMEM", "platform.mmap", `${what}: mapping ${lengthBytes} bytes failed: ${lastError()}`);
	const buffer = koffi.view(pointer, lengthBytes);
	collected.register(buffer, { pointer, lengthBytes });
	const release = () => {
		const flags = mapPrivate | mapAnonymous | mapFixed | mapNoReserve;
		if (isFailed(libc().mmap(pointer, lengthBytes, readWrite, flags, -1, 0))) {
			throw new FsError("ENOMEM", "platform.unmap", `${what}: letting go of the mapping failed: ${lastError()}`);
		}
	};
	return { buffer, release };
}

/** MAP_FAILED is (void *)-1; koffi gives pointers as BigInt. */
function isFailed(pointer: unknown): boolean {
	return pointer === null || pointer === undefined || BigInt.asIntN(64, pointer as bigint) === -1n;
}

// linux/fs.h
const BLKDISCARD = 0x1277;
const BLKSSZGET = 0x1268;
const BLKGETSIZE64 = 0x80081272;

/** Bytes of a block device. @throws FsError ENODEV. */
export function deviceSize(fd: number, what: string): number {
	const into = new BigInt64Array(1);
	if (libc().ioctlBytes(fd, BLKGETSIZE64, into) === 0) return Number(into[0]);
	throw new FsError("ENODEV", "platform.device-size", `${what} does not tell its size: ${lastError()}`);
}

/** What reads and writes past the page cache are multiples of: its logical sectors. */
export function sectorSize(fd: number, what: string): number {
	const into = new BigInt64Array(1);
	if (libc().ioctlBytes(fd, BLKSSZGET, into) === 0) return Number(BigInt.asIntN(32, into[0] as bigint));
	throw new FsError("ENODEV", "platform.device-sector", `${what} does not tell the size of its sectors: ${lastError()}`);
}

/** Tells the device that a range is not needed. It may not know how, or not listen: only space and speed are at stake. */
export function discardBlocks(fd: number, offset: number, lengthBytes: number): void {
	libc().ioctlBytes(fd, BLKDISCARD, new BigInt64Array([BigInt(offset), BigInt(lengthBytes)]));
}
