/** NFS version 3 (RFC 1813) on the wire: constants, arguments, results. Pure. */
import type { FsError } from "../../base/errors.ts";
import type { Timestamp } from "../../base/time.ts";
import type { XdrReader, XdrWriter } from "../../codec/xdr.ts";
import type { Attributes, FileType, SetAttributes } from "../../volume/interface.ts";
import { fileHandleBytes } from "./file-handle.ts";
import { maxHandleBytes, maxNameBytes } from "./limits.ts";

export const nfsProgram = 100003;

/** nfsstat3. */
export const status = {
	OK: 0,
	PERM: 1,
	NOENT: 2,
	IO: 5,
	NXIO: 6,
	ACCES: 13,
	EXIST: 17,
	XDEV: 18,
	NODEV: 19,
	NOTDIR: 20,
	ISDIR: 21,
	INVAL: 22,
	FBIG: 27,
	NOSPC: 28,
	ROFS: 30,
	MLINK: 31,
	NAMETOOLONG: 63,
	NOTEMPTY: 66,
	STALE: 70,
	BADHANDLE: 10001,
	NOT_SYNC: 10002,
	BAD_COOKIE: 10003,
	NOTSUPP: 10004,
	TOOSMALL: 10005,
	SERVERFAULT: 10006,
	BADTYPE: 10007,
	JUKEBOX: 10008,
} as const;

const byCode: Readonly<Partial<Record<FsError["code"], number>>> = {
	EPERM: status.PERM,
	ENOENT: status.NOENT,
	EIO: status.IO,
	CORRUPT: status.IO,
	ENXIO: status.NXIO,
	EACCES: status.ACCES,
	EEXIST: status.EXIST,
	EXDEV: status.XDEV,
	ENODEV: status.NODEV,
	ENOTDIR: status.NOTDIR,
	EISDIR: status.ISDIR,
	EINVAL: status.INVAL,
	ELOOP: status.INVAL,
	EFBIG: status.FBIG,
	ENOSPC: status.NOSPC,
	EROFS: status.ROFS,
	EMLINK: status.MLINK,
	ENAMETOOLONG: status.NAMETOOLONG,
	ENOTEMPTY: status.NOTEMPTY,
	ESTALE: status.STALE,
	EBADF: status.BADHANDLE,
	ECANCELED: status.NOT_SYNC,
	ENOTSUP: status.NOTSUPP,
	ERANGE: status.TOOSMALL,
	// Later it may work: the client waits and asks again.
	EAGAIN: status.JUKEBOX,
	EBUSY: status.JUKEBOX,
	EMFILE: status.JUKEBOX,
	ENOMEM: status.JUKEBOX,
	ETIMEDOUT: status.JUKEBOX,
};

/** What errno has no name for. */
const bySite: Readonly<Record<string, number>> = { "nfs.bad-type": status.BADTYPE, "nfs.bad-cookie": status.BAD_COOKIE };

/** An error at the door's border. */
export function statusOf(error: FsError): number {
	const special = bySite[error.site];
	if (special !== undefined) return special;
	if (error.code === "REFUSED") return error.data["readOnly"] === true ? status.ROFS : status.IO;
	return byCode[error.code] ?? status.SERVERFAULT;
}

/** ACCESS bits. */
export const accessBits = { read: 1, lookup: 2, modify: 4, extend: 8, delete: 16, execute: 32 } as const;

/** stable_how. */
export const stable = { unstable: 0, data: 1, file: 2 } as const;

/** createmode3. */
export const createMode = { unchecked: 0, guarded: 1, exclusive: 2 } as const;

/** FSF3_LINK, SYMLINK, HOMOGENEOUS, CANSETTIME. */
export const fsProperties = 0x1b;

const typeNumbers: Readonly<Record<FileType, number>> = {
	file: 1,
	directory: 2,
	block: 3,
	character: 4,
	symlink: 5,
	socket: 6,
	fifo: 7,
};

/** ftype3 of what MKNOD makes. */
export function specialType(type: number): "block" | "character" | "socket" | "fifo" | undefined {
	return ({ 3: "block", 4: "character", 6: "socket", 7: "fifo" } as const)[type];
}

// ── arguments ────────────────────────────────────────────────────────────────────────────────────────────────────

export function readHandle(reader: XdrReader): Uint8Array {
	return reader.opaque(maxHandleBytes);
}

export interface At {
	readonly directory: Uint8Array;
	readonly name: string;
}

export function readAt(reader: XdrReader): At {
	return { directory: readHandle(reader), name: reader.text(maxNameBytes) };
}

/** Nanoseconds are taken as they come; what is beyond a second is refused where they are used. */
export function readTime(reader: XdrReader): Timestamp {
	const seconds = reader.u32();
	const nanoseconds = reader.u32();
	if (nanoseconds > 999_999_999) throw reader.corrupt(`${nanoseconds} nanoseconds`);
	return { seconds, nanoseconds };
}

function readSetTime(reader: XdrReader): Timestamp | "now" | undefined {
	const how = reader.choice(3, "time");
	return how === 2 ? readTime(reader) : how === 1 ? "now" : undefined;
}

type Changes = { -readonly [K in keyof SetAttributes]: SetAttributes[K] };

export function readSetAttributes(reader: XdrReader): SetAttributes {
	const change: Changes = {};
	if (reader.bool()) change.mode = reader.u32() & 0o7777;
	if (reader.bool()) change.uid = reader.u32();
	if (reader.bool()) change.gid = reader.u32();
	if (reader.bool()) change.size = reader.u64();
	const atime = readSetTime(reader);
	const mtime = readSetTime(reader);
	if (atime !== undefined) change.atime = atime;
	if (mtime !== undefined) change.mtime = mtime;
	return change;
}

/** specdata3 as Linux encodes dev_t in 32 bits. */
export function readDevice(reader: XdrReader): number {
	const major = reader.u32();
	const minor = reader.u32();
	return (((major & 0xfff) << 8) | (minor & 0xff) | ((minor & 0xfff00) << 12)) >>> 0;
}

// ── results ──────────────────────────────────────────────────────────────────────────────────────────────────────

function writeTime(writer: XdrWriter, { seconds, nanoseconds }: Timestamp): void {
	// Times before 1970 and after 2106 do not fit: the nearest that does.
	writer.u32(Math.min(Math.max(seconds, 0), 0xffff_ffff)).u32(nanoseconds);
}

export interface FileSystemId {
	readonly high: number;
	readonly low: number;
}

export function writeAttributes(writer: XdrWriter, a: Attributes, fsid: FileSystemId): void {
	writer.u32(typeNumbers[a.type]).u32(a.mode).u32(a.nlink).u32(a.uid).u32(a.gid).u64(a.size).u64(a.storedBytes);
	writer.u32((a.rdev >>> 8) & 0xfff).u32((a.rdev & 0xff) | ((a.rdev >>> 12) & 0xfff00));
	writer.u32(fsid.high).u32(fsid.low).u64(a.ino);
	writeTime(writer, a.atime);
	writeTime(writer, a.mtime);
	writeTime(writer, a.ctime);
}

/** post_op_attr. */
export function writePostAttributes(writer: XdrWriter, attributes: Attributes | undefined, fsid: FileSystemId): void {
	writer.bool(attributes !== undefined);
	if (attributes !== undefined) writeAttributes(writer, attributes, fsid);
}

/** wcc_data. `before` only where nothing can have happened in between: clients believe it. */
export function writeChange(writer: XdrWriter, before: Attributes | undefined, after: Attributes | undefined, fsid: FileSystemId): void {
	writer.bool(before !== undefined);
	if (before !== undefined) {
		writer.u64(before.size);
		writeTime(writer, before.mtime);
		writeTime(writer, before.ctime);
	}
	writePostAttributes(writer, after, fsid);
}

/** post_op_fh3. */
export function writePostHandle(writer: XdrWriter, handle: Uint8Array): void {
	writer.bool(true).opaque(handle);
}

/** What an entry of a READDIR reply takes; with attributes and handle: of a READDIRPLUS reply. */
export function entryBytes(name: string, plus: boolean): number {
	const plain = 4 + 8 + 4 + ((name.length + 3) & ~3) + 8;
	return plus ? plain + (4 + 84) + (4 + 4 + fileHandleBytes) : plain;
}
