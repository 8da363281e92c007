/**
 * The FUSE kernel protocol, 7.31 to 7.39 and COPY_FILE_RANGE_64 of 7.45: structures of `include/uapi/linux/fuse.h`, whose names are given at each one. Little-endian
 * hosts only (the kernel speaks its own byte order). Pure functions; input that is too short throws EINVAL, whatever it claims about
 * itself.
 *
 * Numbers are u64 on the wire and doubles here: above 2^53 they are approximate, and whoever cares tests `Number.isSafeInteger`.
 * `unique` is kept as two u32.
 */
import { FsError } from "../../base/errors.ts";
import type { ErrorCode } from "../../base/errors.ts";
import type { Timestamp } from "../../base/time.ts";
import type { Attributes, FileType } from "../../volume/interface.ts";

// ── constants ────────────────────────────────────────────────────────────────────────────────────────────────────

export const opcodes = {
	LOOKUP: 1,
	FORGET: 2,
	GETATTR: 3,
	SETATTR: 4,
	READLINK: 5,
	SYMLINK: 6,
	MKNOD: 8,
	MKDIR: 9,
	UNLINK: 10,
	RMDIR: 11,
	RENAME: 12,
	LINK: 13,
	OPEN: 14,
	READ: 15,
	WRITE: 16,
	STATFS: 17,
	RELEASE: 18,
	FSYNC: 20,
	SETXATTR: 21,
	GETXATTR: 22,
	LISTXATTR: 23,
	REMOVEXATTR: 24,
	FLUSH: 25,
	INIT: 26,
	OPENDIR: 27,
	READDIR: 28,
	RELEASEDIR: 29,
	FSYNCDIR: 30,
	GETLK: 31,
	SETLK: 32,
	SETLKW: 33,
	ACCESS: 34,
	CREATE: 35,
	INTERRUPT: 36,
	BMAP: 37,
	DESTROY: 38,
	IOCTL: 39,
	POLL: 40,
	NOTIFY_REPLY: 41,
	BATCH_FORGET: 42,
	FALLOCATE: 43,
	READDIRPLUS: 44,
	RENAME2: 45,
	LSEEK: 46,
	COPY_FILE_RANGE: 47,
	SETUPMAPPING: 48,
	REMOVEMAPPING: 49,
	SYNCFS: 50,
	TMPFILE: 51,
	STATX: 52,
	COPY_FILE_RANGE_64: 53,
} as const;

/** INIT flags; from bit 32 on they travel in `flags2`, here under names of their own. */
export const initFlags = {
	ASYNC_READ: 1 << 0,
	POSIX_LOCKS: 1 << 1,
	ATOMIC_O_TRUNC: 1 << 3,
	EXPORT_SUPPORT: 1 << 4,
	BIG_WRITES: 1 << 5,
	DONT_MASK: 1 << 6,
	FLOCK_LOCKS: 1 << 10,
	HAS_IOCTL_DIR: 1 << 11,
	AUTO_INVAL_DATA: 1 << 12,
	DO_READDIRPLUS: 1 << 13,
	READDIRPLUS_AUTO: 1 << 14,
	ASYNC_DIO: 1 << 15,
	WRITEBACK_CACHE: 1 << 16,
	PARALLEL_DIROPS: 1 << 18,
	POSIX_ACL: 1 << 20,
	ABORT_ERROR: 1 << 21,
	MAX_PAGES: 1 << 22,
	CACHE_SYMLINKS: 1 << 23,
	NO_OPENDIR_SUPPORT: 1 << 24,
	EXPLICIT_INVAL_DATA: 1 << 25,
	HANDLE_KILLPRIV_V2: 1 << 28,
	SETXATTR_EXT: 1 << 29,
	INIT_EXT: 1 << 30,
} as const;

export const fattr = {
	MODE: 1 << 0,
	UID: 1 << 1,
	GID: 1 << 2,
	SIZE: 1 << 3,
	ATIME: 1 << 4,
	MTIME: 1 << 5,
	FH: 1 << 6,
	ATIME_NOW: 1 << 7,
	MTIME_NOW: 1 << 8,
	LOCKOWNER: 1 << 9,
	CTIME: 1 << 10,
	KILL_SUIDGID: 1 << 11,
} as const;

/** Of `flags2`, without the 32 bits below: 1 << 37 and 1 << 39 in fuse.h. */
export const initFlags2 = { PASSTHROUGH: 1 << 5, HAS_RESEND: 1 << 7 } as const;

export const fopen = { KEEP_CACHE: 1 << 1, CACHE_DIR: 1 << 3, NOFLUSH: 1 << 5, PASSTHROUGH: 1 << 7 } as const;
export const getattrFh = 1;
export const writeKillSuidGid = 1 << 2;
export const openKillSuidGid = 1 << 0;
export const fsyncDataOnly = 1;
export const xattrCreate = 1;
export const xattrReplace = 2;
/** In `setxattr_flags`: who sets an access list is not in the file's group. */
export const xattrKillSetGid = 1;
/** `FUSE_NOTIFY_INVAL_INODE`. */
const notifyInvalInode = 2;
const notifyInvalEntry = 3;

/** F_RDLCK and so on of asm-generic/fcntl.h, and `FUSE_LK_FLOCK`. */
export const lockTypes = { READ: 0, WRITE: 1, UNLOCK: 2 } as const;
const lockFlock = 1;

/** FALLOC_FL_* of linux/falloc.h. The kernel lets no other bits through to a FUSE server. */
export const fallocFlags = { KEEP_SIZE: 0x01, PUNCH_HOLE: 0x02, ZERO_RANGE: 0x10 } as const;
/** lseek(2). */
export const seekWhence = { DATA: 3, HOLE: 4 } as const;

/** open(2) flags of x86 and arm64 that a file system sees; O_SYNC holds O_DSYNC's bit. */
export const openFlags = {
	ACCMODE: 3,
	WRONLY: 1,
	RDWR: 2,
	CREAT: 0o100,
	EXCL: 0o200,
	TRUNC: 0o1000,
	APPEND: 0o2000,
	DSYNC: 0o10000,
} as const;

/** `struct fuse_in_header`, `fuse_out_header`, `fuse_attr`, `fuse_entry_out`. */
export const inHeaderBytes = 40;
export const outHeaderBytes = 16;
export const attrBytes = 88;
export const entryOutBytes = 40 + attrBytes;
export const attrOutBytes = 16 + attrBytes;
const direntBytes = 24;

const typeModes: Readonly<Record<FileType, number>> = {
	fifo: 0o010000,
	character: 0o020000,
	directory: 0o040000,
	block: 0o060000,
	file: 0o100000,
	symlink: 0o120000,
	socket: 0o140000,
};

export function typeOfMode(mode: number): FileType | undefined {
	for (const type of Object.keys(typeModes) as FileType[]) if (typeModes[type] === (mode & 0o170000)) return type;
	return undefined;
}

// ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** Linux errno of each error code: the one table of this door. */
export const errnoOf: Readonly<Record<ErrorCode, number>> = {
	EPERM: 1,
	ENOENT: 2,
	EINTR: 4,
	EIO: 5,
	ENXIO: 6,
	E2BIG: 7,
	EBADF: 9,
	EAGAIN: 11,
	ENOMEM: 12,
	EACCES: 13,
	EBUSY: 16,
	EEXIST: 17,
	EXDEV: 18,
	ENODEV: 19,
	ENOTDIR: 20,
	EISDIR: 21,
	EINVAL: 22,
	EMFILE: 24,
	ENOTTY: 25,
	EFBIG: 27,
	ENOSPC: 28,
	ESPIPE: 29,
	EROFS: 30,
	EMLINK: 31,
	ERANGE: 34,
	EDEADLK: 35,
	ENAMETOOLONG: 36,
	ENOLCK: 37,
	ENOSYS: 38,
	ENOTEMPTY: 39,
	ELOOP: 40,
	ENODATA: 61,
	EOVERFLOW: 75,
	ENOTSUP: 95,
	ENOTCONN: 107,
	ETIMEDOUT: 110,
	ESTALE: 116,
	ECANCELED: 125,
	CORRUPT: 5,
	REFUSED: 1,
	NOTFOUND: 2,
};

/** `what`: a name, or the number of an opcode. */
function shortInput(what: string | number): FsError {
	return new FsError(
		"EINVAL",
		"fuse.short-request",
		`the kernel sent a ${typeof what === "number" ? `request of opcode ${what}` : `${what} request`} that ends too early: kernel and door disagree about the protocol`,
	);
}

// ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

export interface RequestHeader {
	/** Of the whole request, as the kernel states it. */
	readonly lengthBytes: number;
	readonly opcode: number;
	readonly uniqueLow: number;
	readonly uniqueHigh: number;
	readonly nodeid: number;
	readonly uid: number;
	readonly gid: number;
	readonly pid: number;
	/** Where the volume notes what came of it (`session.ts`). */
	slot?: number | undefined;
	/** Its caller does not want to wait any more (INTERRUPT). */
	interrupted?: boolean;
}

/** A bounds-checked cursor over one request. */
export class RequestReader {
	readonly #bytes: Uint8Array;
	readonly #what: string | number;
	#at: number;
	readonly #end: number;

	constructor(bytes: Uint8Array, at = 0, end = bytes.length, what: string | number = "FUSE") {
		this.#bytes = bytes;
		this.#at = at;
		this.#end = Math.min(end, bytes.length);
		this.#what = what;
	}

	get remaining(): number {
		return this.#end - this.#at;
	}

	#take(count: number): number {
		const at = this.#at;
		if (count > this.#end - at) throw shortInput(this.#what);
		this.#at = at + count;
		return at;
	}

	u16(): number {
		const at = this.#take(2);
		return (this.#bytes[at] as number) | ((this.#bytes[at + 1] as number) << 8);
	}

	u32(): number {
		const at = this.#at;
		if (this.#end - at < 4) throw shortInput(this.#what);
		this.#at = at + 4;
		return u32At(this.#bytes, at);
	}

	u64(): number {
		const low = this.u32();
		return this.u32() * 0x1_0000_0000 + low;
	}

	/** An exact u64, high word first. */
	words(): Words {
		const low = this.u32();
		return [this.u32(), low];
	}

	i64(): number {
		const low = this.u32();
		return (this.u32() | 0) * 0x1_0000_0000 + low;
	}

	skip(count: number): void {
		this.#take(count);
	}

	/** A NUL-terminated name as a byte string. */
	name(): string {
		const from = this.#at;
		const zero = this.#bytes.indexOf(0, from);
		if (zero < 0 || zero >= this.#end) throw shortInput(this.#what);
		this.#at = zero + 1;
		return byteString(this.#bytes, from, zero);
	}

	/** A view, not a copy. */
	raw(count: number): Uint8Array {
		const at = this.#take(count);
		return this.#bytes.subarray(at, at + count);
	}
}

function byteString(bytes: Uint8Array, from: number, to: number): string {
	let text = "";
	for (let at = from; at < to; at += 4096) text += String.fromCharCode(...bytes.subarray(at, Math.min(to, at + 4096)));
	return text;
}

/** `struct fuse_in_header`. @throws FsError EINVAL. */
export function decodeHeader(bytes: Uint8Array): RequestHeader {
	if (bytes.length < inHeaderBytes) throw shortInput("header");
	return {
		lengthBytes: u32At(bytes, 0),
		opcode: u32At(bytes, 4),
		uniqueLow: u32At(bytes, 8),
		uniqueHigh: u32At(bytes, 12),
		nodeid: u32At(bytes, 20) * 0x1_0000_0000 + u32At(bytes, 16),
		uid: u32At(bytes, 24),
		gid: u32At(bytes, 28),
		pid: u32At(bytes, 32),
		slot: undefined,
	};
}

function u32At(b: Uint8Array, at: number): number {
	return ((b[at] as number) | ((b[at + 1] as number) << 8) | ((b[at + 2] as number) << 16) | ((b[at + 3] as number) << 24)) >>> 0;
}

export interface InitIn {
	readonly major: number;
	readonly minor: number;
	readonly maxReadAhead: number;
	readonly flags: number;
	readonly flags2: number;
}

/** `struct fuse_init_in`; before 7.36 it ends after `flags`. */
export function decodeInit(r: RequestReader): InitIn {
	const major = r.u32();
	const minor = r.u32();
	const maxReadAhead = r.remaining >= 4 ? r.u32() : 0;
	const flags = r.remaining >= 4 ? r.u32() : 0;
	return { major, minor, maxReadAhead, flags, flags2: r.remaining >= 4 ? r.u32() : 0 };
}

/** `struct fuse_getattr_in`: the handle, where one is given. */
export function decodeGetattr(r: RequestReader): { readonly handle: number | undefined } {
	const flags = r.u32();
	r.skip(4);
	const fh = r.u64();
	return { handle: (flags & getattrFh) !== 0 ? fh : undefined };
}

/** `struct fuse_statx_in` (7.39): the handle, where one is given; the mask is ignored, as everything is known at once. */
export function decodeStatx(r: RequestReader): { readonly handle: number | undefined } {
	const known = decodeGetattr(r);
	r.skip(8);
	return known;
}

export interface SetattrIn {
	readonly valid: number;
	readonly handle: number | undefined;
	readonly size: number;
	readonly atime: Timestamp;
	readonly mtime: Timestamp;
	readonly ctime: Timestamp;
	readonly mode: number;
	readonly uid: number;
	readonly gid: number;
}

/** `struct fuse_setattr_in`. */
export function decodeSetattr(r: RequestReader): SetattrIn {
	const valid = r.u32();
	r.skip(4);
	const fh = r.u64();
	const size = r.u64();
	r.skip(8);
	const atime = r.i64();
	const mtime = r.i64();
	const ctime = r.i64();
	const atimeNs = r.u32();
	const mtimeNs = r.u32();
	const ctimeNs = r.u32();
	const mode = r.u32();
	r.skip(4);
	const uid = r.u32();
	const gid = r.u32();
	r.skip(4);
	return {
		valid,
		size,
		mode,
		uid,
		gid,
		handle: (valid & fattr.FH) !== 0 ? fh : undefined,
		atime: { seconds: atime, nanoseconds: atimeNs },
		mtime: { seconds: mtime, nanoseconds: mtimeNs },
		ctime: { seconds: ctime, nanoseconds: ctimeNs },
	};
}

/** `struct fuse_mknod_in` and the name. */
export function decodeMknod(r: RequestReader): {
	readonly mode: number;
	readonly rdev: number;
	readonly umask: number;
	readonly name: string;
} {
	const mode = r.u32();
	const rdev = r.u32();
	const umask = r.u32();
	r.skip(4);
	return { mode, rdev, umask, name: r.name() };
}

/** `struct fuse_mkdir_in` and the name. */
export function decodeMkdir(r: RequestReader): { readonly mode: number; readonly umask: number; readonly name: string } {
	const mode = r.u32();
	const umask = r.u32();
	return { mode, umask, name: r.name() };
}

export interface RenameIn {
	readonly newParent: number;
	readonly flags: number;
	readonly name: string;
	readonly newName: string;
}

/** `struct fuse_rename_in`, or with `extended` `fuse_rename2_in`, and both names. */
export function decodeRename(r: RequestReader, extended: boolean): RenameIn {
	const newParent = r.u64();
	const flags = extended ? r.u32() : 0;
	if (extended) r.skip(4);
	const name = r.name();
	return { newParent, flags, name, newName: r.name() };
}

/** `struct fuse_link_in` and the new name. */
export function decodeLink(r: RequestReader): { readonly node: number; readonly name: string } {
	const node = r.u64();
	return { node, name: r.name() };
}

/** `struct fuse_open_in`. */
export function decodeOpen(r: RequestReader): { readonly flags: number; readonly openFlags: number } {
	const flags = r.u32();
	return { flags, openFlags: r.u32() };
}

export interface CreateIn {
	readonly flags: number;
	readonly mode: number;
	readonly umask: number;
	readonly openFlags: number;
	readonly name: string;
}

/** `struct fuse_create_in` and the name, of CREATE and TMPFILE (whose name means nothing). */
export function decodeCreate(r: RequestReader): CreateIn {
	const flags = r.u32();
	const mode = r.u32();
	const umask = r.u32();
	const openFlags = r.u32();
	return { flags, mode, umask, openFlags, name: r.name() };
}

/** `struct fuse_read_in`, of READ, READDIR and READDIRPLUS. */
export function decodeRead(r: RequestReader): { readonly handle: number; readonly offset: number; readonly size: number } {
	const handle = r.u64();
	const offset = r.u64();
	const size = r.u32();
	r.skip(4 + 8 + 4 + 4);
	return { handle, offset, size };
}

export interface WriteIn {
	readonly handle: number;
	readonly offset: number;
	readonly writeFlags: number;
	/** A view on the request. */
	readonly data: Uint8Array;
}

/** `struct fuse_write_in` and the bytes. */
export function decodeWrite(r: RequestReader): WriteIn {
	const handle = r.u64();
	const offset = r.u64();
	const size = r.u32();
	const writeFlags = r.u32();
	r.skip(8 + 4 + 4);
	return { handle, offset, writeFlags, data: r.raw(size) };
}

/** The leading `fh` of `fuse_release_in`, `fuse_flush_in` and, with flags, `fuse_fsync_in`. */
export function decodeFh(r: RequestReader): number {
	return r.u64();
}

/** `struct fuse_fsync_in`. */
export function decodeFsync(r: RequestReader): { readonly handle: number; readonly dataOnly: boolean } {
	const handle = r.u64();
	return { handle, dataOnly: (r.u32() & fsyncDataOnly) !== 0 };
}

/** An u64 as two words, high first: lock owners and offsets use all of it. */
export type Words = readonly [number, number];

export interface LockIn {
	readonly handle: number;
	readonly owner: Words;
	readonly start: Words;
	/** Inclusive. */
	readonly end: Words;
	/** F_RDLCK, F_WRLCK, F_UNLCK. */
	readonly type: number;
	/** Of the process. */
	readonly pid: number;
	readonly flock: boolean;
}

/** `struct fuse_lk_in`, of GETLK, SETLK and SETLKW. */
export function decodeLock(r: RequestReader): LockIn {
	const handle = r.u64();
	const owner = r.words();
	const start = r.words();
	const end = r.words();
	const type = r.u32();
	const pid = r.u32();
	return { handle, owner, start, end, type, pid, flock: (r.u32() & lockFlock) !== 0 };
}

/** `struct fuse_flush_in`: the handle, and who closed one of his descriptors of it. */
export function decodeFlush(r: RequestReader): { readonly handle: number; readonly owner: Words } {
	const handle = r.u64();
	r.skip(8);
	return { handle, owner: r.words() };
}

/** `struct fuse_interrupt_in`: the number of the request that is to be given up. */
export function decodeInterrupt(r: RequestReader): { readonly uniqueLow: number; readonly uniqueHigh: number } {
	const [uniqueHigh, uniqueLow] = r.words();
	return { uniqueLow, uniqueHigh };
}

export interface FallocateIn {
	readonly handle: number;
	readonly offset: number;
	readonly length: number;
	/** FALLOC_FL_*. */
	readonly mode: number;
}

/** `struct fuse_fallocate_in`. */
export function decodeFallocate(r: RequestReader): FallocateIn {
	const handle = r.u64();
	const offset = r.u64();
	const length = r.u64();
	return { handle, offset, length, mode: r.u32() };
}

export interface CopyFileRangeIn {
	readonly source: number;
	readonly sourceOffset: number;
	readonly target: number;
	readonly targetOffset: number;
	readonly length: number;
	readonly flags: number;
}

/** `struct fuse_copy_file_range_in`. */
export function decodeCopyFileRange(r: RequestReader): CopyFileRangeIn {
	const source = r.u64();
	const sourceOffset = r.u64();
	// The node of the target, which its handle knows.
	r.skip(8);
	const target = r.u64();
	const targetOffset = r.u64();
	const length = r.u64();
	// The flags are an u64 of which no bit above 32 has a meaning: those, too, must be refused.
	const flags = r.u32() + r.u32();
	return { source, sourceOffset, target, targetOffset, length, flags };
}

/** `struct fuse_lseek_in`. */
export function decodeLseek(r: RequestReader): { readonly handle: number; readonly offset: number; readonly whence: number } {
	const handle = r.u64();
	const offset = r.u64();
	return { handle, offset, whence: r.u32() };
}

export interface SetxattrIn {
	readonly flags: number;
	readonly killSetGid: boolean;
	readonly name: string;
	/** A view on the request. */
	readonly value: Uint8Array;
}

/** `struct fuse_setxattr_in` (8 bytes, 16 with FUSE_SETXATTR_EXT), the name and the value. */
export function decodeSetxattr(r: RequestReader, extended: boolean): SetxattrIn {
	const size = r.u32();
	const flags = r.u32();
	const more = extended ? r.u32() : 0;
	if (extended) r.skip(4);
	const name = r.name();
	return { flags, killSetGid: (more & xattrKillSetGid) !== 0, name, value: r.raw(size) };
}

/** `struct fuse_getxattr_in`; GETXATTR's name follows. */
export function decodeGetxattrSize(r: RequestReader): number {
	const size = r.u32();
	r.skip(4);
	return size;
}

export interface IoctlIn {
	readonly handle: number;
	readonly command: number;
	/** A view on the request. */
	readonly input: Uint8Array;
}

/** `struct fuse_ioctl_in` and the bytes that the command brings. */
export function decodeIoctl(r: RequestReader): IoctlIn {
	const handle = r.u64();
	r.skip(4);
	const command = r.u32();
	r.skip(8);
	const inputBytes = r.u32();
	r.skip(4);
	return { handle, command, input: r.raw(inputBytes) };
}

/** A node that the kernel lets go of, and how many of the replies that named it. */
export interface Forgotten {
	readonly node: number;
	readonly times: number;
}

/** `struct fuse_forget_in`: how many replies. */
export const decodeForget = (r: RequestReader): number => r.u64();

/** `struct fuse_batch_forget_in`. */
export function decodeBatchForget(r: RequestReader): Forgotten[] {
	const count = r.u32();
	r.skip(4);
	if (count * 16 > r.remaining) throw shortInput("BATCH_FORGET");
	const forgotten: Forgotten[] = [];
	for (let i = 0; i < count; i++) forgotten.push({ node: r.u64(), times: r.u64() });
	return forgotten;
}

// ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────

/** Writes replies into one buffer of fixed size. The header is filled in by `finish`. */
export class ReplyWriter {
	readonly bytes: Uint8Array;
	readonly #view: DataView;
	at = outHeaderBytes;

	/** Memory of its own of so many bytes, or memory that is lent to it, with whatever is in it. */
	constructor(room: number | Uint8Array) {
		this.bytes = typeof room === "number" ? new Uint8Array(room) : room;
		this.#view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength);
	}

	get room(): number {
		return this.bytes.length - this.at;
	}

	reset(): this {
		this.at = outHeaderBytes;
		return this;
	}

	u16(value: number): this {
		this.#view.setUint16(this.at, value, true);
		this.at += 2;
		return this;
	}

	u32(value: number): this {
		this.#view.setUint32(this.at, value, true);
		this.at += 4;
		return this;
	}

	/** A safe integer; negative ones become two's complement. */
	u64(value: number): this {
		const high = Math.floor(value / 0x1_0000_0000);
		this.#view.setUint32(this.at, value - high * 0x1_0000_0000, true);
		this.#view.setInt32(this.at + 4, high | 0, true);
		this.at += 8;
		return this;
	}

	raw(bytes: Uint8Array): this {
		this.bytes.set(bytes, this.at);
		this.at += bytes.length;
		return this;
	}

	/** A byte string, without a NUL. */
	text(text: string): this {
		for (let i = 0; i < text.length; i++) this.bytes[this.at + i] = text.charCodeAt(i);
		this.at += text.length;
		return this;
	}

	zeros(count: number): this {
		this.bytes.fill(0, this.at, this.at + count);
		this.at += count;
		return this;
	}

	/** Fills in `struct fuse_out_header`: `errno` ≥ 0; `bodyBytes` more follow in another part. The view is valid until the next reply. */
	finish(header: Pick<RequestHeader, "uniqueLow" | "uniqueHigh">, errno: number, bodyBytes = 0): Uint8Array {
		this.#view.setUint32(0, this.at + bodyBytes, true);
		this.#view.setInt32(4, -errno, true);
		this.#view.setUint32(8, header.uniqueLow, true);
		this.#view.setUint32(12, header.uniqueHigh, true);
		return this.bytes.subarray(0, this.at);
	}
}

export interface Validity {
	readonly entryMs: number;
	readonly attributeMs: number;
}

function milliseconds(w: ReplyWriter, entryMs: number, attributeMs: number): void {
	w.u64(Math.floor(entryMs / 1000)).u64(Math.floor(attributeMs / 1000));
	w.u32((entryMs % 1000) * 1_000_000).u32((attributeMs % 1000) * 1_000_000);
}

/** `struct fuse_attr`. */
export function encodeAttr(w: ReplyWriter, a: Attributes, blockBytes: number): void {
	w.u64(a.ino)
		.u64(a.size)
		.u64(Math.ceil(a.storedBytes / 512));
	w.u64(a.atime.seconds).u64(a.mtime.seconds).u64(a.ctime.seconds);
	w.u32(a.atime.nanoseconds).u32(a.mtime.nanoseconds).u32(a.ctime.nanoseconds);
	w.u32(typeModes[a.type] | a.mode)
		.u32(a.nlink)
		.u32(a.uid)
		.u32(a.gid)
		.u32(a.rdev)
		.u32(blockBytes)
		.u32(0);
}

/** `struct fuse_entry_out`; generation 0, as inode numbers are never used again. */
export function encodeEntry(w: ReplyWriter, a: Attributes, validity: Validity, blockBytes: number): void {
	w.u64(a.ino).u64(0);
	milliseconds(w, validity.entryMs, validity.attributeMs);
	encodeAttr(w, a, blockBytes);
}

/** `struct fuse_entry_out` that says "no such name" and for how long. */
export function encodeNegativeEntry(w: ReplyWriter, entryMs: number): void {
	w.u64(0).u64(0);
	milliseconds(w, entryMs, 0);
	w.zeros(attrBytes);
}

/** `struct fuse_attr_out`. */
export function encodeAttrOut(w: ReplyWriter, a: Attributes, attributeMs: number, blockBytes: number): void {
	w.u64(Math.floor(attributeMs / 1000))
		.u32((attributeMs % 1000) * 1_000_000)
		.u32(0);
	encodeAttr(w, a, blockBytes);
}

function statxTime(w: ReplyWriter, time: Timestamp): void {
	w.u64(time.seconds).u32(time.nanoseconds).u32(0);
}

/** STATX_BASIC_STATS and STATX_BTIME. */
const statxMask = 0xfff;

/** `struct fuse_statx_out` and `fuse_statx` in it (7.39): the attributes with the time of birth. */
export function encodeStatxOut(w: ReplyWriter, a: Attributes, attributeMs: number, blockBytes: number): void {
	w.u64(Math.floor(attributeMs / 1000))
		.u32((attributeMs % 1000) * 1_000_000)
		.u32(0)
		.zeros(16);
	w.u32(statxMask)
		.u32(blockBytes)
		.u64(0)
		.u32(a.nlink)
		.u32(a.uid)
		.u32(a.gid)
		.u16(typeModes[a.type] | a.mode)
		.u16(0);
	w.u64(a.ino)
		.u64(a.size)
		.u64(Math.ceil(a.storedBytes / 512))
		.u64(0);
	statxTime(w, a.atime);
	statxTime(w, a.btime);
	statxTime(w, a.ctime);
	statxTime(w, a.mtime);
	// Device numbers as new_encode_dev packs them: major in bits 8 to 19, minor in the rest.
	w.u32((a.rdev >>> 8) & 0xfff)
		.u32((a.rdev & 0xff) | ((a.rdev >>> 12) & 0xfff00))
		.zeros(8 + 112);
}

/** `struct fuse_lk_out`: type F_UNLCK where nothing is in the way. */
export function encodeLockOut(w: ReplyWriter, start: Words, end: Words, type: number, pid: number): void {
	w.u32(start[1]).u32(start[0]).u32(end[1]).u32(end[0]).u32(type).u32(pid);
}

/** `struct fuse_open_out`. */
export function encodeOpenOut(w: ReplyWriter, handle: number, flags: number, backing = 0): void {
	w.u64(handle).u32(flags).u32(backing);
}

/** `struct fuse_ioctl_out`, before the bytes of the answer. */
export function encodeIoctlOut(w: ReplyWriter): void {
	w.zeros(16);
}

/** A notification: `struct fuse_out_header` (code instead of errno) and `fuse_notify_inval_inode_out` with offset -1: attributes and access lists alone. */
export function encodeForgetAttributes(ino: number): Uint8Array {
	const w = new ReplyWriter(outHeaderBytes + 24);
	w.u64(ino).u64(-1).u64(0);
	return w.finish({ uniqueLow: 0, uniqueHigh: 0 }, -notifyInvalInode);
}

/**
 * The same with an offset: the kernel drops its pages from there to the end of the file, after it has written out those that a shared
 * mapping has made dirty.
 */
export function encodeForgetContents(ino: number, offset: number): Uint8Array {
	const w = new ReplyWriter(outHeaderBytes + 24);
	w.u64(ino).u64(offset).u64(0);
	return w.finish({ uniqueLow: 0, uniqueHigh: 0 }, -notifyInvalInode);
}

/** FUSE_NOTIFY_INVAL_ENTRY, `struct fuse_notify_inval_entry_out`: a name in a directory means something else now, or nothing. */
export function encodeForgetEntry(parent: number, name: string): Uint8Array {
	const w = new ReplyWriter(outHeaderBytes + 16 + name.length + 1);
	w.u64(parent).u32(name.length).u32(0).text(name).zeros(1);
	return w.finish({ uniqueLow: 0, uniqueHigh: 0 }, -notifyInvalEntry);
}

export interface InitOut {
	readonly minor: number;
	readonly maxReadAhead: number;
	readonly flags: number;
	readonly flags2: number;
	readonly maxBackground: number;
	readonly congestionThreshold: number;
	readonly maxWrite: number;
	readonly maxPages: number;
	/** Of file systems below this one, itself included: more than 0 where files are passed through. */
	readonly maxStackDepth: number;
}

/** `struct fuse_init_out` of 7.23 and later: 64 bytes. Nanosecond times. */
export function encodeInitOut(w: ReplyWriter, init: InitOut): void {
	w.u32(7).u32(init.minor).u32(init.maxReadAhead).u32(init.flags);
	w.u16(init.maxBackground).u16(init.congestionThreshold).u32(init.maxWrite).u32(1);
	w.u16(init.maxPages).u16(0).u32(init.flags2).u32(init.maxStackDepth).zeros(24);
}

export interface StatfsOut {
	readonly blockBytes: number;
	readonly blocks: number;
	readonly freeBlocks: number;
	readonly files: number;
	readonly freeFiles: number;
	readonly nameBytes: number;
}

/** `struct fuse_statfs_out`. */
export function encodeStatfs(w: ReplyWriter, s: StatfsOut): void {
	w.u64(s.blocks).u64(s.freeBlocks).u64(s.freeBlocks).u64(s.files).u64(s.freeFiles);
	w.u32(s.blockBytes).u32(s.nameBytes).u32(s.blockBytes).zeros(28);
}

export interface Dirent {
	readonly ino: number;
	readonly cookie: number;
	readonly type: FileType;
	readonly name: string;
}

/** Bytes of `struct fuse_dirent`, or `fuse_direntplus`, with this name, padding included. */
export function direntLength(nameBytes: number, plus: boolean): number {
	return Math.ceil(((plus ? entryOutBytes : 0) + direntBytes + nameBytes) / 8) * 8;
}

/** `struct fuse_dirent`, padded to 8. */
export function encodeDirent(w: ReplyWriter, entry: Dirent): void {
	w.u64(entry.ino)
		.u64(entry.cookie)
		.u32(entry.name.length)
		.u32(typeModes[entry.type] >>> 12)
		.text(entry.name);
	w.zeros((8 - (entry.name.length % 8)) % 8);
}
