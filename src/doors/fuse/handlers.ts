/**
 * What each opcode does, on the volume's interface. A handler decodes its request before its first await (invariant F2 of server.ts) and
 * replies through the door; what it throws becomes the error reply. It returns a promise while it is at work, or nothing when the reply
 * is out.
 */
import { FsError, isFsError } from "../../base/errors.ts";
import type { AllocateMode, Attributes, Caller, Changed, NodeRef, OpenIntent, Opened, SetAttributes } from "../../volume/interface.ts";
import { attributeValidity, dropHandle, keepHandle } from "./door.ts";
import type { Door, Negotiated, OpenFile } from "./door.ts";
import { readDirectory } from "./directory.ts";
import { ownerOf, requestNameOf, setLock, testLock } from "./locks.ts";
import { answerIoctl, changesFlags } from "./ioctl.ts";
import {
	congestionThreshold,
	maxBackground,
	maxMinor,
	resendMinor,
	maxPages,
	maxReadAheadBytes,
	maxWriteBytes,
	maxXattrBytes,
	minMinor,
	preferredIoBytes,
} from "./limits.ts";
import {
	decodeCopyFileRange,
	decodeCreate,
	decodeFallocate,
	decodeFh,
	decodeFlush,
	decodeFsync,
	decodeGetattr,
	decodeGetxattrSize,
	decodeInit,
	decodeIoctl,
	decodeLink,
	decodeLseek,
	decodeMkdir,
	decodeMknod,
	decodeOpen,
	decodeRead,
	decodeRename,
	decodeSetattr,
	decodeSetxattr,
	decodeStatx,
	decodeWrite,
	encodeAttrOut,
	encodeEntry,
	encodeInitOut,
	encodeIoctlOut,
	encodeNegativeEntry,
	encodeOpenOut,
	encodeStatfs,
	encodeStatxOut,
	errnoOf,
	fallocFlags,
	fattr,
	fopen,
	initFlags,
	initFlags2,
	opcodes,
	openFlags,
	openKillSuidGid,
	seekWhence,
	typeOfMode,
	writeKillSuidGid,
	xattrCreate,
	xattrReplace,
} from "./protocol.ts";
import type { InitIn, InitOut, RequestHeader, RequestReader, SetattrIn } from "./protocol.ts";
import { isResent, requestHighOf } from "./session.ts";
import type { Past } from "./session.ts";

const capSysAdmin = 21;

export type Handler = (header: RequestHeader, r: RequestReader) => Promise<void> | undefined;

// ── INIT ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * Asked for when offered. No WRITEBACK_CACHE: sizes would go stale for other doors.
 */
const wanted =
	initFlags.ASYNC_READ |
	initFlags.ATOMIC_O_TRUNC |
	initFlags.EXPORT_SUPPORT |
	initFlags.BIG_WRITES |
	initFlags.DO_READDIRPLUS |
	initFlags.READDIRPLUS_AUTO |
	initFlags.ASYNC_DIO |
	initFlags.PARALLEL_DIROPS |
	initFlags.DONT_MASK |
	initFlags.HAS_IOCTL_DIR |
	initFlags.POSIX_ACL |
	initFlags.ABORT_ERROR |
	initFlags.MAX_PAGES |
	initFlags.CACHE_SYMLINKS |
	initFlags.EXPLICIT_INVAL_DATA |
	initFlags.HANDLE_KILLPRIV_V2 |
	initFlags.SETXATTR_EXT |
	initFlags.INIT_EXT;

/** @throws FsError ENOTSUP: the kernel is too old. */
export function negotiate(
	init: InitIn,
	{ keepCache, serveLocks, nativeReads }: Pick<Door, "keepCache" | "serveLocks" | "nativeReads">,
): { readonly out: InitOut; readonly state: Negotiated } {
	if (init.major < 7 || (init.major === 7 && init.minor < minMinor)) {
		const data = { major: init.major, minor: init.minor };
		throw new FsError(
			"ENOTSUP",
			"fuse.init-old",
			`the kernel speaks FUSE ${init.major}.${init.minor}; 7.${minMinor} (Linux 5.4) is the oldest that works`,
			data,
		);
	}
	// Without the only writer's view of contents, cached pages are checked against size and mtime at each getattr.
	const caching = keepCache ? wanted : (wanted & ~initFlags.EXPLICIT_INVAL_DATA) | initFlags.AUTO_INVAL_DATA;
	// Both or none: half of them would be locks that the other half's users think they have.
	const both = initFlags.POSIX_LOCKS | initFlags.FLOCK_LOCKS;
	const locks = serveLocks && (init.flags & both) === both;
	const flags = (init.major === 7 ? init.flags : 0) & (locks ? caching | both : caching);
	const passthrough = nativeReads !== undefined && (flags & initFlags.INIT_EXT) !== 0 && (init.flags2 & initFlags2.PASSTHROUGH) !== 0;
	const minor = Math.min(init.minor, maxMinor);
	return {
		out: {
			minor,
			maxReadAhead: maxReadAheadBytes,
			flags: flags >>> 0,
			flags2: passthrough ? initFlags2.PASSTHROUGH : 0,
			maxBackground,
			congestionThreshold,
			maxWrite: maxWriteBytes,
			maxPages,
			maxStackDepth: passthrough ? 1 : 0,
		},
		state: {
			minor,
			killPriv: (flags & initFlags.HANDLE_KILLPRIV_V2) !== 0,
			setxattrExt: (flags & initFlags.SETXATTR_EXT) !== 0,
			dontMask: (flags & initFlags.DONT_MASK) !== 0,
			noOpendir: keepCache && (init.flags & initFlags.NO_OPENDIR_SUPPORT) !== 0,
			locks,
			resend: (init.flags2 & initFlags2.HAS_RESEND) !== 0,
			passthrough,
		},
	};
}

/** What an older kernel would have said. */
function asOlder(init: InitIn, minor: number | undefined): InitIn {
	if (minor === undefined || init.minor <= minor) return init;
	return { ...init, minor, flags2: minor < resendMinor ? 0 : init.flags2 };
}

async function handleInit(door: Door, header: RequestHeader, r: RequestReader): Promise<void> {
	const { out, state } = negotiate(asOlder(decodeInit(r), door.kernelMinor), door);
	door.negotiated = state;
	await door.onNegotiated(state);
	encodeInitOut(door.out.reset(), out);
	door.reply(header, door.out.finish(header, 0), undefined);
}

// ── helpers ──────────────────────────────────────────────────────────────────────────────────────────────────────

function refused(
	code: "EINVAL" | "EFBIG" | "EROFS" | "EBADF" | "EMFILE" | "ENOTSUP" | "E2BIG" | "ERANGE" | "EIO",
	what: string,
	message: string,
): FsError {
	return new FsError(code, `fuse.${what}`, message);
}

const nobodyElse: readonly number[] = [];

function callerOf(door: Door, header: RequestHeader): Caller {
	const caller: Caller = {
		uid: header.uid,
		gid: header.gid,
		groups: nobodyElse,
		principal: undefined,
		door: "fuse",
		clientInstance: door.clientInstance,
		share: undefined,
		trusted: true,
		call: requestNameOf(header),
	};
	if (header.slot === undefined) return caller;
	return { ...caller, request: { slot: header.slot, low: header.uniqueLow, high: requestHighOf(header.uniqueHigh) } };
}

/** For what makes nodes. */
function makerOf(door: Door, header: RequestHeader, umask: number): Caller {
	const caller = callerOf(door, header);
	return door.negotiated?.dontMask === true ? { ...caller, umask } : caller;
}

function node(door: Door, ino: number): NodeRef {
	if (!Number.isSafeInteger(ino) || ino < 1)
		throw refused("EINVAL", "nodeid", `the kernel named node ${ino}, which cannot be an inode number`);
	return door.volume.node(ino);
}

function writable(door: Door): void {
	if (door.readOnly) throw refused("EROFS", "read-only", "this mount is read-only");
}

function done(door: Door, header: RequestHeader): void {
	door.reply(header, door.out.reset().finish(header, 0), undefined);
}

/** With what the volume knew at once, or when it has found out. */
function answered<T>(
	now: T | undefined,
	later: () => Promise<T>,
	then: (result: T) => Promise<void> | undefined | void,
): Promise<void> | undefined {
	if (now === undefined) return later().then(then);
	return then(now) ?? undefined;
}

function noted(door: Door, changed: Changed): void {
	door.changed(changed);
}

/** For answers that are no faults: nothing is thrown, counted or logged. */
function sendError(door: Door, header: RequestHeader, errno: number): void {
	door.reply(header, door.out.reset().finish(header, errno), undefined);
}

function sendEntry(door: Door, header: RequestHeader, attributes: Attributes): void {
	const validity = { entryMs: door.entryMs, attributeMs: attributeValidity(door, attributes.ino) };
	encodeEntry(door.out.reset(), attributes, validity, preferredIoBytes);
	door.known.told(attributes.ino);
	door.reply(header, door.out.finish(header, 0), undefined);
}

function sendAttributes(door: Door, header: RequestHeader, attributes: Attributes): void {
	encodeAttrOut(door.out.reset(), attributes, attributeValidity(door, attributes.ino), preferredIoBytes);
	door.reply(header, door.out.finish(header, 0), undefined);
}

/**
 * What is left of the mode bits of a file whose contents or owner somebody changed, or nothing when nothing has to go. As the kernel's own
 * rule.
 */
export function modeWithoutSetId(attributes: Attributes): number | undefined {
	if (attributes.type !== "file") return undefined;
	let kill = attributes.mode & 0o4000;
	if ((attributes.mode & 0o2010) === 0o2010) kill |= 0o2000;
	return kill === 0 ? undefined : attributes.mode & ~kill;
}

// ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────

function handleLookup(door: Door, header: RequestHeader, r: RequestReader): Promise<void> | undefined {
	const name = r.name();
	const parent = node(door, header.nodeid);
	const caller = callerOf(door, header);
	const found = name === "." ? undefined : door.now?.lookup(caller, parent, name);
	if (found === undefined) return lookupLater(door, header, caller, parent, name);
	if (found === null) sendAbsent(door, header);
	else sendEntry(door, header, found);
	return undefined;
}

function sendAbsent(door: Door, header: RequestHeader): void {
	if (door.negativeMs === 0) {
		sendError(door, header, errnoOf.ENOENT);
		return;
	}
	encodeNegativeEntry(door.out.reset(), door.negativeMs);
	door.reply(header, door.out.finish(header, 0), undefined);
}

async function lookupLater(door: Door, header: RequestHeader, caller: Caller, parent: NodeRef, name: string): Promise<void> {
	try {
		// "." of any node: how the kernel finds a node again by its number (FUSE_EXPORT_SUPPORT).
		sendEntry(
			door,
			header,
			name === "." ? await door.volume.getAttributes(caller, parent) : await door.volume.lookup(caller, parent, name),
		);
	} catch (error) {
		if (!isFsError(error, "ENOENT")) throw error;
		sendAbsent(door, header);
	}
}

function handleMkdir(door: Door, header: RequestHeader, r: RequestReader): Promise<void> | undefined {
	const { mode, umask, name } = decodeMkdir(r);
	writable(door);
	const about = [makerOf(door, header, umask), node(door, header.nodeid), name, mode & 0o7777] as const;
	return answered(
		door.now?.makeDirectory(...about),
		() => door.volume.makeDirectory(...about),
		(made) => {
			noted(door, made);
			sendEntry(door, header, made.attributes);
		},
	);
}

async function handleMknod(door: Door, header: RequestHeader, r: RequestReader): Promise<void> {
	const { mode, rdev, umask, name } = decodeMknod(r);
	writable(door);
	const type = typeOfMode(mode);
	if (type === undefined || type === "directory" || type === "symlink")
		throw refused("EINVAL", "mknod-type", `mknod of mode ${mode.toString(8)} is not possible`);
	const made = await door.volume.makeNode(makerOf(door, header, umask), node(door, header.nodeid), name, type, mode & 0o7777, rdev);
	noted(door, made);
	sendEntry(door, header, made.attributes);
}

async function handleSymlink(door: Door, header: RequestHeader, r: RequestReader): Promise<void> {
	const name = r.name();
	const target = r.name();
	writable(door);
	const made = await door.volume.makeSymlink(callerOf(door, header), node(door, header.nodeid), name, target);
	noted(door, made);
	sendEntry(door, header, made.attributes);
}

async function handleLink(door: Door, header: RequestHeader, r: RequestReader): Promise<void> {
	const link = decodeLink(r);
	writable(door);
	const made = await door.volume.link(callerOf(door, header), node(door, link.node), node(door, header.nodeid), link.name);
	noted(door, made);
	sendEntry(door, header, made.attributes);
}

function handleRemove(door: Door, header: RequestHeader, r: RequestReader, directory: boolean): Promise<void> | undefined {
	const name = r.name();
	writable(door);
	const about = [callerOf(door, header), node(door, header.nodeid), name] as const;
	const { now, volume } = door;
	return answered(
		directory ? now?.removeDirectory(...about) : now?.unlink(...about),
		() => (directory ? volume.removeDirectory(...about) : volume.unlink(...about)),
		(gone) => {
			noted(door, gone);
			// Who still holds the node (a working directory, an O_PATH descriptor) can go on asking for its attributes until the kernel forgets it.
			if (directory || gone.attributes.nlink === 0) door.removed.set(gone.attributes.ino, { ...gone.attributes, nlink: 0 });
			done(door, header);
		},
	);
}

function handleRename(door: Door, header: RequestHeader, r: RequestReader, extended: boolean): Promise<void> | undefined {
	const rename = decodeRename(r, extended);
	writable(door);
	const to = node(door, rename.newParent);
	const about = [callerOf(door, header), node(door, header.nodeid), rename.name, to, rename.newName, rename.flags] as const;
	return answered(
		door.now?.rename(...about),
		() => door.volume.rename(...about),
		(renamed) => {
			noted(door, renamed);
			done(door, header);
		},
	);
}

async function handleReadlink(door: Door, header: RequestHeader): Promise<void> {
	const target = await door.volume.readSymlink(callerOf(door, header), node(door, header.nodeid));
	sendBytes(door, header, byteStringToBytes(target));
}

function byteStringToBytes(text: string): Uint8Array {
	const bytes = new Uint8Array(text.length);
	for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
	return bytes;
}

function sendBytes(door: Door, header: RequestHeader, bytes: Uint8Array): void {
	door.reply(header, door.out.reset().finish(header, 0, bytes.length), bytes);
}

// ── attributes ───────────────────────────────────────────────────────────────────────────────────────────────────

async function attributesOf(door: Door, header: RequestHeader, handle: number | undefined): Promise<Attributes> {
	const known = handle !== undefined && door.handles.has(handle) ? handle : undefined;
	const ref = node(door, header.nodeid);
	try {
		return await door.volume.getAttributes(callerOf(door, header), ref, known);
	} catch (error) {
		const last = isFsError(error, "ESTALE") || isFsError(error, "ENOENT") ? door.removed.get(header.nodeid) : undefined;
		if (last === undefined) throw error;
		return last;
	}
}

function handleGetattr(door: Door, header: RequestHeader, r: RequestReader): Promise<void> | undefined {
	const { handle } = decodeGetattr(r);
	// One that was removed is asked for the slow way, and so is one that the volume has lost.
	const known =
		door.removed.get(header.nodeid) !== undefined ? undefined : door.now?.getAttributes(callerOf(door, header), node(door, header.nodeid));
	return answered(
		known,
		() => attributesOf(door, header, handle),
		(attributes) => sendAttributes(door, header, attributes),
	);
}

async function handleStatx(door: Door, header: RequestHeader, r: RequestReader): Promise<void> {
	const { handle } = decodeStatx(r);
	const attributes = await attributesOf(door, header, handle);
	encodeStatxOut(door.out.reset(), attributes, attributeValidity(door, attributes.ino), preferredIoBytes);
	door.reply(header, door.out.finish(header, 0), undefined);
}

function changeOf(s: SetattrIn): { -readonly [K in keyof SetAttributes]: SetAttributes[K] } {
	const change: { -readonly [K in keyof SetAttributes]: SetAttributes[K] } = {};
	if ((s.valid & fattr.MODE) !== 0) change.mode = s.mode & 0o7777;
	if ((s.valid & fattr.UID) !== 0) change.uid = s.uid;
	if ((s.valid & fattr.GID) !== 0) change.gid = s.gid;
	if ((s.valid & fattr.SIZE) !== 0) change.size = s.size;
	if ((s.valid & fattr.ATIME_NOW) !== 0) change.atime = "now";
	else if ((s.valid & fattr.ATIME) !== 0) change.atime = s.atime;
	if ((s.valid & fattr.MTIME_NOW) !== 0) change.mtime = "now";
	else if ((s.valid & fattr.MTIME) !== 0) change.mtime = s.mtime;
	if ((s.valid & fattr.CTIME) !== 0) change.ctime = s.ctime;
	return change;
}

/**
 * With FUSE_HANDLE_KILLPRIV_V2 the kernel leaves clearing set-id bits to us: on a change of owner always, on a truncation when it says
 * so, and a SETATTR that changes nothing means "clear them" (a write by somebody without CAP_FSETID, or chown(-1, -1)).
 */
function killsSetId(door: Door, s: SetattrIn): boolean {
	if (door.negotiated?.killPriv !== true || (s.valid & fattr.MODE) !== 0) return false;
	if ((s.valid & (fattr.KILL_SUIDGID | fattr.UID | fattr.GID)) !== 0) return true;
	return (s.valid & ~(fattr.FH | fattr.LOCKOWNER | fattr.CTIME)) === 0;
}

function handleSetattr(door: Door, header: RequestHeader, r: RequestReader): Promise<void> | undefined {
	const s = decodeSetattr(r);
	writable(door);
	const change = changeOf(s);
	if (change.size !== undefined && !Number.isSafeInteger(change.size)) throw refused("EFBIG", "size", "files end at 2^53 bytes");
	const ref = node(door, header.nodeid);
	const caller = callerOf(door, header);
	const handle = s.handle !== undefined && door.handles.has(s.handle) ? s.handle : undefined;
	if (killsSetId(door, s)) change.dropRights = true;
	return answered(
		door.now?.setAttributes(caller, ref, change),
		() => door.volume.setAttributes(caller, ref, change, handle),
		(changed) => {
			noted(door, changed);
			if (change.size !== undefined) door.recentWrites.set(header.nodeid, door.clock.monotonicMs());
			sendAttributes(door, header, changed.after);
		},
	);
}

async function handleStatfs(door: Door, header: RequestHeader): Promise<void> {
	const space = await door.volume.space();
	const blockBytes = 4096;
	encodeStatfs(door.out.reset(), {
		blockBytes,
		blocks: Math.floor(space.capacityBytes / blockBytes),
		freeBlocks: Math.floor(space.freeBytes / blockBytes),
		files: space.inodes,
		freeFiles: space.freeInodes,
		nameBytes: space.maximumNameBytes,
	});
	door.reply(header, door.out.finish(header, 0), undefined);
}

// ── extended attributes ──────────────────────────────────────────────────────────────────────────────────────────

function sendSized(door: Door, header: RequestHeader, size: number, bytes: Uint8Array): void {
	if (size === 0) {
		door.out.reset().u32(bytes.length).u32(0);
		door.reply(header, door.out.finish(header, 0), undefined);
	} else if (bytes.length > size) {
		throw refused("ERANGE", "xattr-size", `${bytes.length} bytes do not fit in the caller's ${size}`);
	} else sendBytes(door, header, bytes);
}

function handleGetxattr(door: Door, header: RequestHeader, r: RequestReader): Promise<void> | undefined {
	const size = decodeGetxattrSize(r);
	const about = [callerOf(door, header), node(door, header.nodeid), r.name()] as const;
	return answered(
		door.now?.getXattr(...about),
		() => door.volume.getXattr(...about),
		(value) => {
			if (value === null) sendError(door, header, errnoOf.ENODATA);
			else sendSized(door, header, size, value);
		},
	);
}

/** xattr(7): attributes that only processes with CAP_SYS_ADMIN see. */
function isTrusted(name: string): boolean {
	return name.startsWith("trusted.");
}

async function handleListxattr(door: Door, header: RequestHeader, r: RequestReader): Promise<void> {
	const size = decodeGetxattrSize(r);
	const names = await door.volume.listXattrs(callerOf(door, header), node(door, header.nodeid));
	const hidden = names.some(isTrusted) && !(await door.capable(header.pid, capSysAdmin));
	const seen = hidden ? names.filter((name) => !isTrusted(name)) : names;
	sendSized(door, header, size, byteStringToBytes(seen.map((name) => `${name}\0`).join("")));
}

async function handleSetxattr(door: Door, header: RequestHeader, r: RequestReader): Promise<void> {
	const { flags, killSetGid, name, value } = decodeSetxattr(r, door.negotiated?.setxattrExt === true);
	writable(door);
	if (value.length > maxXattrBytes)
		throw refused("E2BIG", "xattr-large", `extended attribute of ${value.length} bytes; ${maxXattrBytes} is the most`);
	if ((flags & ~(xattrCreate | xattrReplace)) !== 0) throw refused("EINVAL", "xattr-flags", `setxattr flags ${flags}`);
	const mode = (flags & xattrCreate) !== 0 ? "create" : (flags & xattrReplace) !== 0 ? "replace" : "any";
	noted(door, await door.volume.setXattr(callerOf(door, header), node(door, header.nodeid), name, value.slice(), mode, killSetGid));
	done(door, header);
}

async function handleRemovexattr(door: Door, header: RequestHeader, r: RequestReader): Promise<void> {
	const name = r.name();
	writable(door);
	noted(door, await door.volume.removeXattr(callerOf(door, header), node(door, header.nodeid), name));
	done(door, header);
}

// ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────

function accessOf(flags: number): { readonly read: boolean; readonly write: boolean } {
	const mode = flags & openFlags.ACCMODE;
	return { read: mode !== openFlags.WRONLY, write: mode !== 0 };
}

/**
 * O_APPEND stays out: the kernel, sole keeper of the size while it is the only door, computes the offset of an appending write under the
 * inode's lock.
 */
function intentOf(flags: number, disposition: OpenIntent["disposition"]): OpenIntent {
	return { disposition, access: accessOf(flags), sync: (flags & openFlags.DSYNC) !== 0, appending: (flags & openFlags.APPEND) !== 0 };
}

/** close(2) of a file opened for reading has nothing to report, and needs no FLUSH, unless that is what ends its locks (locks.ts). What the kernel reads by itself it does not keep for us: it would refuse the open. */
function openReplyFlags(door: Door, flags: number, native: boolean): number {
	const needsFlush = accessOf(flags).write || door.negotiated?.locks === true;
	const caching = native ? fopen.PASSTHROUGH : door.keepCache ? fopen.KEEP_CACHE : 0;
	return caching | (needsFlush ? 0 : fopen.NOFLUSH);
}

function roomForHandle(door: Door): void {
	if (door.handles.size >= door.maxHandles)
		throw refused("EMFILE", "handles", `${door.maxHandles} files are open through this mount, which is the limit`);
}

/** Finds out how the kernel is to read what was opened, notes the handle, and answers: by what is put in front of `fuse_open_out`, and that. */
function replyOpened(door: Door, header: RequestHeader, opened: Opened, flags: number, before: () => void): Promise<void> | undefined {
	noted(door, opened);
	const { attributes, created } = opened;
	const access = accessOf(flags);
	const isReading = access.read && !access.write && (flags & openFlags.TRUNC) === 0 && !created;
	const reply = (backing: number | undefined): void => {
		const mappable = access.read && access.write;
		keepHandle(door, opened.handle, { ino: attributes.ino, mappable, native: backing !== undefined });
		door.out.reset();
		before();
		encodeOpenOut(door.out, opened.handle, openReplyFlags(door, flags, backing !== undefined), backing);
		door.reply(header, door.out.finish(header, 0), undefined);
	};
	const backing = door.nativeReads?.opening(attributes, isReading && door.negotiated?.passthrough === true);
	if (!(backing instanceof Promise)) {
		reply(backing);
		return undefined;
	}
	return backing.then(reply, async (error: unknown) => {
		await door.volume.close(opened.handle);
		throw error;
	});
}

const nothingBefore = (): void => {};

function handleOpen(door: Door, header: RequestHeader, r: RequestReader): Promise<void> | undefined {
	const open = decodeOpen(r);
	const truncate = (open.flags & openFlags.TRUNC) !== 0;
	if (truncate || accessOf(open.flags).write) writable(door);
	roomForHandle(door);
	const caller = callerOf(door, header);
	const dropRights = truncate && (open.openFlags & openKillSuidGid) !== 0;
	const intent = { ...intentOf(open.flags, truncate ? "overwrite" : "open"), ...(dropRights ? { dropRights } : {}) };
	const at = { node: node(door, header.nodeid) };
	return answered(
		door.now?.open(caller, at, intent),
		() => door.volume.open(caller, at, intent),
		(opened) => {
			if (truncate) door.recentWrites.set(header.nodeid, door.clock.monotonicMs());
			return replyOpened(door, header, opened, open.flags, nothingBefore);
		},
	);
}

function handleCreate(door: Door, header: RequestHeader, r: RequestReader): Promise<void> | undefined {
	const create = decodeCreate(r);
	writable(door);
	roomForHandle(door);
	const exclusive = (create.flags & openFlags.EXCL) !== 0;
	const truncate = (create.flags & openFlags.TRUNC) !== 0;
	const caller = makerOf(door, header, create.umask);
	const at = { parent: node(door, header.nodeid), name: create.name };
	const dropRights = truncate && (create.openFlags & openKillSuidGid) !== 0;
	const intent = {
		...intentOf(create.flags, exclusive ? "create" : truncate ? "overwrite-or-create" : "open-or-create"),
		attributes: { mode: create.mode & 0o7777 },
		...(dropRights ? { dropRights } : {}),
	};
	return answered(
		door.now?.open(caller, at, intent),
		() => door.volume.open(caller, at, intent),
		(opened) => sendCreated(door, header, opened, create.flags),
	);
}

function sendCreated(door: Door, header: RequestHeader, opened: Opened, flags: number): Promise<void> | undefined {
	const { attributes } = opened;
	return replyOpened(door, header, opened, flags, () => {
		const validity = { entryMs: door.entryMs, attributeMs: attributeValidity(door, attributes.ino) };
		encodeEntry(door.out, attributes, validity, preferredIoBytes);
		door.known.told(attributes.ino);
	});
}

/** O_TMPFILE: a file without a name. With O_EXCL it can never get one. */
async function handleTmpfile(door: Door, header: RequestHeader, r: RequestReader): Promise<void> {
	const create = decodeCreate(r);
	writable(door);
	roomForHandle(door);
	const caller = makerOf(door, header, create.umask);
	const intent = { ...intentOf(create.flags, "create"), unnamed: true, linkable: (create.flags & openFlags.EXCL) === 0 };
	const at = { parent: node(door, header.nodeid), name: "" };
	const opened = await door.volume.open(caller, at, { ...intent, attributes: { mode: create.mode & 0o7777 } });
	await sendCreated(door, header, opened, create.flags);
}

function openFile(door: Door, handle: number): OpenFile {
	const file = door.handles.get(handle);
	if (file === undefined) throw refused("EBADF", "handle", `the kernel used handle ${handle}, which is not open`);
	return file;
}

async function handleRead(door: Door, header: RequestHeader, r: RequestReader): Promise<void> {
	const { handle, offset, size } = decodeRead(r);
	openFile(door, handle);
	// Nothing is stored beyond 2^53: such a read is past every end.
	if (!Number.isSafeInteger(offset + size)) return sendBytes(door, header, new Uint8Array(0));
	const lent = door.readBuffers.take(size);
	const bytes = await door.volume.read(handle, offset, size, lent?.bytes, undefined, requestNameOf(header));
	if (bytes.length > size) throw refused("EIO", "read-long", `the volume answered ${bytes.length} bytes to a read of ${size}`);
	door.bytesRead += bytes.length;
	sendBytes(door, header, bytes);
	lent?.release();
}

function handleWrite(door: Door, header: RequestHeader, r: RequestReader): Promise<void> | undefined {
	const { handle, offset, writeFlags, data } = decodeWrite(r);
	writable(door);
	const { ino } = openFile(door, handle);
	if (!Number.isSafeInteger(offset + data.length)) throw refused("EFBIG", "offset", "files end at 2^53 bytes");
	const dropsRights = (writeFlags & writeKillSuidGid) !== 0 && door.negotiated?.killPriv === true;
	const now = dropsRights ? undefined : door.now?.write(handle, offset, data);
	return answered(
		now,
		() => writeLater(door, header, ino, { handle, offset, data, dropsRights }),
		(written) => {
			door.recentWrites.set(ino, door.clock.monotonicMs());
			door.bytesWritten += written;
			door.out.reset().u32(written).u32(0);
			door.reply(header, door.out.finish(header, 0), undefined);
		},
	);
}

interface LaterWrite {
	readonly handle: number;
	readonly offset: number;
	readonly data: Uint8Array;
	readonly dropsRights: boolean;
}

async function writeLater(
	door: Door,
	header: RequestHeader,
	ino: number,
	{ handle, offset, data, dropsRights }: LaterWrite,
): Promise<number> {
	const { written, attributes } = await door.volume.write(handle, offset, data, undefined, requestNameOf(header));
	if (dropsRights && modeWithoutSetId(attributes) !== undefined)
		noted(door, await door.volume.setAttributes(callerOf(door, header), node(door, ino), { dropRights: true }, handle));
	return written;
}

const allocateModes: ReadonlyMap<number, AllocateMode> = new Map<number, AllocateMode>([
	[0, "allocate"],
	[fallocFlags.KEEP_SIZE, "allocate-keep-size"],
	[fallocFlags.PUNCH_HOLE | fallocFlags.KEEP_SIZE, "punch"],
	[fallocFlags.ZERO_RANGE, "zero"],
	[fallocFlags.ZERO_RANGE | fallocFlags.KEEP_SIZE, "zero-keep-size"],
]);

/** The kernel has written dirty pages of the range out before it asks, and drops them afterwards. */
async function handleFallocate(door: Door, header: RequestHeader, r: RequestReader): Promise<void> {
	const { handle, offset, length, mode } = decodeFallocate(r);
	writable(door);
	const { ino } = openFile(door, handle);
	const kind = allocateModes.get(mode);
	if (kind === undefined) throw refused("ENOTSUP", "fallocate-mode", `fallocate mode 0x${mode.toString(16)} is not supported`);
	if (!Number.isSafeInteger(offset + length)) throw refused("EFBIG", "offset", "files end at 2^53 bytes");
	noted(door, await door.volume.allocate(handle, kind, offset, length, requestNameOf(header)));
	door.recentWrites.set(ino, door.clock.monotonicMs());
	done(door, header);
}

/** Source and target pages are written out before the kernel asks, those of the target dropped afterwards. */
async function handleCopyFileRange(door: Door, header: RequestHeader, r: RequestReader, wide: boolean): Promise<void> {
	const { source, sourceOffset, target, targetOffset, length, flags } = decodeCopyFileRange(r);
	writable(door);
	openFile(door, source);
	const { ino } = openFile(door, target);
	if (flags !== 0) throw refused("EINVAL", "copy-flags", `copy_file_range flags ${flags} are not known`);
	// What is asked for may reach far beyond the source; it is the volume that knows its end. The narrow reply has 32 bits.
	const most = Math.min(length, wide ? 2 ** 52 : 0xffff_f000);
	if (!Number.isSafeInteger(sourceOffset + most) || !Number.isSafeInteger(targetOffset + most))
		throw refused("EFBIG", "offset", "files end at 2^53 bytes");
	const { copied } = await door.volume.copyRange(source, sourceOffset, target, targetOffset, most, requestNameOf(header));
	door.recentWrites.set(ino, door.clock.monotonicMs());
	if (wide) door.out.reset().u64(copied);
	else door.out.reset().u32(copied).u32(0);
	door.reply(header, door.out.finish(header, 0), undefined);
}

/**
 * The kernel asks without writing out what a shared mapping has stored: a copy by data and holes would leave that out. So it is made to, where a mapping is possible; if it cannot be made to, everything is
 * data.
 */
async function handleLseek(door: Door, header: RequestHeader, r: RequestReader): Promise<void> {
	const { handle, offset, whence } = decodeLseek(r);
	const { ino } = openFile(door, handle);
	if (whence !== seekWhence.DATA && whence !== seekWhence.HOLE) throw refused("EINVAL", "whence", `lseek from ${whence}`);
	const what = whence === seekWhence.DATA ? "data" : "hole";
	const known = !door.mappable.has(ino) || (await door.writeOut(ino, Math.min(offset, Number.MAX_SAFE_INTEGER)));
	const found = known
		? await door.volume.seek(handle, offset, what, requestNameOf(header))
		: await withoutHoles(door, header, handle, offset, what);
	door.out.reset().u64(found);
	door.reply(header, door.out.finish(header, 0), undefined);
}

async function withoutHoles(door: Door, header: RequestHeader, handle: number, offset: number, what: "data" | "hole"): Promise<number> {
	const { size } = await attributesOf(door, header, handle);
	if (offset >= size) throw new FsError("ENXIO", "fuse.seek", `the file ends at ${size}`);
	return what === "data" ? offset : size;
}

function handleFlush(door: Door, header: RequestHeader, r: RequestReader): Promise<void> | undefined {
	const { handle, owner } = decodeFlush(r);
	const { ino } = openFile(door, handle);
	const { locks } = door.volume;
	const request = requestNameOf(header);
	if (!(isResent(header) && locks.isDone(request))) locks.dropOwner(ino, ownerOf(owner), request);
	if (door.now === undefined) return door.volume.flush(handle).then(() => done(door, header));
	door.now.flush(handle);
	done(door, header);
	return undefined;
}

function handleRelease(door: Door, header: RequestHeader, r: RequestReader): Promise<void> | undefined {
	const handle = decodeFh(r);
	if (isResent(header) && !door.handles.has(handle)) {
		// Carried out already by a process that did not come to answer.
		done(door, header);
		return undefined;
	}
	openFile(door, handle);
	dropHandle(door, handle);
	if (door.now === undefined) return door.volume.close(handle).then(() => done(door, header));
	door.now.close(handle);
	done(door, header);
	return undefined;
}

function handleGetlk(door: Door, header: RequestHeader, r: RequestReader): undefined {
	testLock(door, header, r);
}

async function handleSetlk(door: Door, header: RequestHeader, r: RequestReader, wait: boolean): Promise<void> {
	await setLock(door, header, r, wait);
	done(door, header);
}

async function handleFsync(door: Door, header: RequestHeader, r: RequestReader): Promise<void> {
	const { handle, dataOnly } = decodeFsync(r);
	openFile(door, handle);
	await door.volume.fsync(handle, dataOnly, requestNameOf(header));
	done(door, header);
}

async function handleIoctl(door: Door, header: RequestHeader, r: RequestReader): Promise<void> {
	const ioctl = decodeIoctl(r);
	if (changesFlags(ioctl)) writable(door);
	const answer = await answerIoctl(door, callerOf(door, header), node(door, header.nodeid), { ...ioctl, input: ioctl.input.slice() });
	encodeIoctlOut(door.out.reset());
	door.reply(header, door.out.finish(header, 0, answer.length), answer);
}

// ── directories and the whole ────────────────────────────────────────────────────────────────────────────────────

/**
 * Directories keep no state here. A kernel that can do without OPENDIR is told so (ENOSYS, on purpose), saving two trips for each
 * directory read.
 */
function handleOpendir(door: Door, header: RequestHeader): undefined {
	if (door.negotiated?.noOpendir === true) {
		door.reply(header, door.out.reset().finish(header, errnoOf.ENOSYS), undefined);
		return;
	}
	encodeOpenOut(door.out.reset(), 0, door.keepCache ? fopen.KEEP_CACHE | fopen.CACHE_DIR : 0);
	door.reply(header, door.out.finish(header, 0), undefined);
}

async function handleReaddir(door: Door, header: RequestHeader, r: RequestReader, plus: boolean): Promise<void> {
	const { offset, size } = decodeRead(r);
	if (!Number.isSafeInteger(offset)) throw refused("EINVAL", "cookie", "a directory position beyond 2^53 was never given out");
	const ref = node(door, header.nodeid);
	const { writer, release } = await readDirectory(door, callerOf(door, header), ref, offset, size, plus);
	door.reply(header, writer.finish(header, 0), undefined);
	release();
}

async function handleFsyncdir(door: Door, header: RequestHeader): Promise<void> {
	await door.volume.durable(door.position);
	done(door, header);
}

async function handleSyncfs(door: Door, header: RequestHeader): Promise<void> {
	await door.volume.syncAll();
	done(door, header);
}

/**
 * The last request. umount(2) of a mount on a block device waits for the answer, so it says "unmounted" when everything is durable; it
 * cannot say that this failed.
 */
async function handleDestroy(door: Door, header: RequestHeader): Promise<void> {
	door.destroyed = true;
	try {
		await door.volume.syncAll();
	} catch (error) {
		if (!isFsError(error)) throw error;
		door.unsynced(error);
	}
	done(door, header);
}

function handleNothing(door: Door, header: RequestHeader): undefined {
	done(door, header);
}

// ── sent again ───────────────────────────────────────────────────────────────────────────────────────────────────

/** Answers a request that a process which is gone has carried out: what it has opened, or what became of the inode. */
export function answerAgain(door: Door, header: RequestHeader, r: RequestReader, past: Past): Promise<void> {
	const { opened, outcome } = past;
	switch (header.opcode) {
		case opcodes.OPEN:
			return openAgain(door, header, decodeOpen(r), past);
		case opcodes.CREATE:
		case opcodes.TMPFILE:
			return createAgain(door, header, decodeCreate(r), past);
		case opcodes.MKNOD:
		case opcodes.MKDIR:
		case opcodes.SYMLINK:
		case opcodes.LINK:
			return entryAgain(door, header, outcome?.ino ?? opened?.ino ?? 0);
		default:
			done(door, header);
			return Promise.resolve();
	}
}

async function entryAgain(door: Door, header: RequestHeader, ino: number): Promise<void> {
	sendEntry(door, header, await door.volume.getAttributes(callerOf(door, header), node(door, ino)));
}

/** The handle of then, or one like it: then the truncation, if there was one, is done. */
async function reopened(door: Door, header: RequestHeader, flags: number, { opened, outcome }: Past): Promise<Opened> {
	const caller = callerOf(door, header);
	const ref = node(door, opened?.ino ?? outcome?.ino ?? 0);
	if (opened === undefined) return door.volume.open(caller, { node: ref }, intentOf(flags, "open"));
	const attributes = await door.volume.getAttributes(caller, ref);
	return { handle: opened.handle, attributes, created: false, parentBefore: undefined, parentAfter: undefined, position: 0 };
}

/** Rights that the open had to take away went before the truncation, which is what the outcome tells of. */
async function openAgain(door: Door, header: RequestHeader, open: ReturnType<typeof decodeOpen>, past: Past): Promise<void> {
	const opened = await reopened(door, header, open.flags, past);
	dropHandle(door, opened.handle);
	await replyOpened(door, header, opened, open.flags, nothingBefore);
}

async function createAgain(door: Door, header: RequestHeader, create: ReturnType<typeof decodeCreate>, past: Past): Promise<void> {
	const opened = await reopened(door, header, create.flags, past);
	dropHandle(door, opened.handle);
	await sendCreated(door, header, opened, create.flags);
}

export function createHandlers(door: Door): ReadonlyMap<number, Handler> {
	const on =
		(fn: (door: Door, header: RequestHeader, r: RequestReader) => Promise<void> | undefined): Handler =>
		(header, r) =>
			fn(door, header, r);
	return new Map<number, Handler>([
		[opcodes.INIT, on(handleInit)],
		[opcodes.LOOKUP, on(handleLookup)],
		[opcodes.GETATTR, on(handleGetattr)],
		[opcodes.STATX, on(handleStatx)],
		[opcodes.SETATTR, on(handleSetattr)],
		[opcodes.READLINK, on(handleReadlink)],
		[opcodes.SYMLINK, on(handleSymlink)],
		[opcodes.MKNOD, on(handleMknod)],
		[opcodes.MKDIR, on(handleMkdir)],
		[opcodes.UNLINK, (header, r) => handleRemove(door, header, r, false)],
		[opcodes.RMDIR, (header, r) => handleRemove(door, header, r, true)],
		[opcodes.RENAME, (header, r) => handleRename(door, header, r, false)],
		[opcodes.RENAME2, (header, r) => handleRename(door, header, r, true)],
		[opcodes.LINK, on(handleLink)],
		[opcodes.OPEN, on(handleOpen)],
		[opcodes.CREATE, on(handleCreate)],
		[opcodes.READ, on(handleRead)],
		[opcodes.WRITE, on(handleWrite)],
		[opcodes.FALLOCATE, on(handleFallocate)],
		[opcodes.COPY_FILE_RANGE, (header, r) => handleCopyFileRange(door, header, r, false)],
		[opcodes.COPY_FILE_RANGE_64, (header, r) => handleCopyFileRange(door, header, r, true)],
		[opcodes.LSEEK, on(handleLseek)],
		[opcodes.STATFS, on(handleStatfs)],
		[opcodes.RELEASE, on(handleRelease)],
		[opcodes.FSYNC, on(handleFsync)],
		[opcodes.TMPFILE, on(handleTmpfile)],
		[opcodes.IOCTL, on(handleIoctl)],
		[opcodes.FLUSH, on(handleFlush)],
		[opcodes.GETLK, on(handleGetlk)],
		[opcodes.SETLK, (header, r) => handleSetlk(door, header, r, false)],
		[opcodes.SETLKW, (header, r) => handleSetlk(door, header, r, true)],
		[opcodes.SETXATTR, on(handleSetxattr)],
		[opcodes.GETXATTR, on(handleGetxattr)],
		[opcodes.LISTXATTR, on(handleListxattr)],
		[opcodes.REMOVEXATTR, on(handleRemovexattr)],
		[opcodes.OPENDIR, on(handleOpendir)],
		[opcodes.READDIR, (header, r) => handleReaddir(door, header, r, false)],
		[opcodes.READDIRPLUS, (header, r) => handleReaddir(door, header, r, true)],
		[opcodes.RELEASEDIR, on(handleNothing)],
		[opcodes.FSYNCDIR, on(handleFsyncdir)],
		[opcodes.SYNCFS, on(handleSyncfs)],
		[opcodes.DESTROY, on(handleDestroy)],
	]);
}
