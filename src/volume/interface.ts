/**
 * The one API of a volume (architecture, section 7): what doors see. Asynchronous, serialisable, bounded. Implementations pass `test/conformance/volume.ts`.
 */
import type { Timestamp } from "../base/time.ts";
import type { CallName } from "../locks/admission.ts";
import type { FileLocks, HeldLock, RemoteLock, RemoteShare } from "../locks/file-locks.ts";
import type { Range } from "../locks/range.ts";
import type { FileType, Guid, Ino } from "../records/interface.ts";

export type { CallName } from "../locks/admission.ts";
export type { FileLocks, HeldLock, LocalLock, RemoteLock, RemoteShare } from "../locks/file-locks.ts";
export {
	offsetWordsOf,
	type Position,
	positionOf,
	type Range,
	rangeOfWords,
	rangeToLength,
	toEnd,
	without,
	wordsOf,
} from "../locks/range.ts";
export type { FileType, Guid, Ino } from "../records/interface.ts";

/**
 * Names one request of a client, for clients that send a request again when the process that serves them was replaced before it answered. Operations that make, move or remove
 * names, cut contents at an open or change attributes by name note the token in the transaction of their effect; no operation may be given the slot of another one that is not answered yet.
 */
export interface RequestToken {
	readonly slot: number;
	/** The client's own number, 64 bits. */
	readonly low: number;
	readonly high: number;
}

/** Slots of requests: those that a door carries out at once (some 512), those that its predecessor left unanswered, and room to spare. */
export const requestSlots = 2048;

/** Names a call of a client that has no connection to tell its calls by: what it says, hashed with a secret. Noted as a request is, in slots of their own, from 0; whoever serves next asks for the notes (`pastCalls`). */
export interface CallToken {
	readonly slot: number;
	/** The client's own number, 32 bits. */
	readonly xid: number;
	/** 64 bits. */
	readonly low: number;
	readonly high: number;
}

/** A call that had its effect, which was about this inode. */
export interface PastCall extends CallToken {
	readonly ino: Ino;
}

/** Slots of calls: twice those that a door carries out at once. */
export const callSlots = 1024;

export interface Caller {
	readonly uid: number;
	readonly gid: number;
	/** Supplementary groups. */
	readonly groups: readonly number[];
	/** Authenticated name, where the door knows one. */
	readonly principal: string | undefined;
	readonly door: "fuse" | "nfs" | "smb" | "s3" | "node" | "control" | "test";
	/** Tells clients of one door apart: a mount, an NFS client, an SMB session. */
	readonly clientInstance: string;
	readonly share: string | undefined;
	/** The door checks permissions itself (FUSE with default_permissions). */
	readonly trusted: boolean;
	/** Taken from the mode of what the caller makes, unless the directory hands down an access list. Default 0. */
	readonly umask?: number;
	/** Of a client that caches: its own lease is no reason for it to wait. */
	readonly leaseKey?: string;
	/** Without it, a request that is sent again is carried out again. */
	readonly request?: RequestToken;
	/** The same for doors whose clients may come again on another connection. */
	readonly noted?: CallToken;
	/** Of a client that may give up waiting (`locks.giveUp`): what waits for a lease elsewhere then fails with EINTR. Calls by a handle are given it by themselves. */
	readonly call?: CallName;
}

export interface NodeRef {
	readonly volume: string;
	/** 0 = live. */
	readonly snapshot: number;
	readonly ino: Ino;
}

export interface Attributes {
	readonly ino: Ino;
	readonly type: FileType;
	/** 07777. */
	readonly mode: number;
	readonly nlink: number;
	readonly uid: number;
	readonly gid: number;
	readonly rdev: number;
	readonly size: number;
	/** Bytes stored or reserved (st_blocks × 512), rounded up to 512; bytes that several files share count in each. */
	readonly storedBytes: number;
	readonly atime: Timestamp;
	readonly mtime: Timestamp;
	readonly ctime: Timestamp;
	readonly btime: Timestamp;
	/** FS_IMMUTABLE_FL (0x10), FS_APPEND_FL (0x20), FS_NODUMP_FL (0x40), FS_NOATIME_FL (0x80) of `<linux/fs.h>`. */
	readonly flags: number;
	/** Changes with every change of the node. */
	readonly change: number;
}

/** What changing calls answer: attributes around the change and a position for `durable`. */
export interface Changed {
	readonly position: number;
}

export interface ChangedNode extends Changed {
	readonly before: Attributes | undefined;
	readonly after: Attributes;
}

export interface ChangedName extends Changed {
	readonly attributes: Attributes;
	readonly parentBefore: Attributes;
	readonly parentAfter: Attributes;
}

export interface ChangedRename extends Changed {
	/** What got another name. */
	readonly attributes: Attributes;
	/** What had that name before; with EXCHANGE: what has the old name now. */
	readonly replaced: Attributes | undefined;
	readonly parentBefore: Attributes;
	readonly parentAfter: Attributes;
	readonly newParentBefore: Attributes;
	readonly newParentAfter: Attributes;
}

/** What mode and access list let a caller do. Flags (immutable, append-only) and the door's own rules come on top. */
export interface Permissions {
	readonly read: boolean;
	readonly write: boolean;
	/** Of a directory: search. */
	readonly execute: boolean;
	readonly attributes: Attributes;
}

export interface SetAttributes {
	readonly mode?: number;
	readonly uid?: number;
	readonly gid?: number;
	readonly size?: number;
	readonly atime?: Timestamp | "now";
	readonly mtime?: Timestamp | "now";
	readonly ctime?: Timestamp;
	/** All of them anew. @throws FsError ENOTSUP (others than the four), EPERM (not the owner; the first two are root's). */
	readonly flags?: number;
	/** Takes set-id bits (as write(2) does) and `security.capability` from a file. */
	readonly dropRights?: boolean;
	/** Nothing is changed unless the node's ctime is this one. @throws FsError ECANCELED. */
	readonly onlyIfCtime?: Timestamp;
}

export type Disposition =
	/** The name must exist. */
	| "open"
	/** The name must not exist. */
	| "create"
	| "open-or-create"
	/** Exists: contents are cut to nothing; else created. */
	| "overwrite-or-create"
	/** The name must exist; contents are cut to nothing. */
	| "overwrite";

/** The rich open: find or create, check, and get a handle, in one step. Fields of later doors are there from the first day; what this implementation cannot do is refused with ENOTSUP, not ignored. */
export interface OpenIntent {
	readonly disposition: Disposition;
	readonly access: { readonly read: boolean; readonly write: boolean };
	/** SMB / NFSv4 share reservations: what others may not do. */
	readonly deny?: { readonly read: boolean; readonly write: boolean; readonly delete: boolean };
	/** For a creation. */
	readonly attributes?: { readonly mode: number; readonly uid?: number; readonly gid?: number };
	/**
	 * NFSv3 exclusive create, with disposition "create": 8 bytes; success when the file exists with the same verifier, and not `created` then. They are kept as the seconds of atime and mtime until the client sets those (RFC 1813, 3.3.8).
	 */
	readonly verifier?: Uint8Array;
	/** The door has asked for `permissions` and has rules of its own (an NFS server sees no opens): mode and access list are not asked again. Flags are, and set-id bits go as for any caller who is not trusted. */
	readonly checked?: boolean;
	readonly lease?: "none" | "read" | "read-handle" | "read-write-handle";
	readonly foldCase?: boolean;
	readonly deleteOnClose?: boolean;
	/** A file without a name, made in `at.parent` (the name does not matter); gone when it is closed, unless `linkable` and `link` gave it a name. Disposition "create". */
	readonly unnamed?: boolean;
	readonly linkable?: boolean;
	/** Of an SMB client: the open outlives its connection and this process. */
	readonly durable?: DurableRequest;
	/** Each write is durable before its reply. */
	readonly sync?: boolean;
	/** Each write goes to the end of the file. */
	readonly append?: boolean;
	/** With an overwriting disposition: set-id bits and `security.capability` go before the contents are cut (SetAttributes.dropRights). Callers that are not trusted need not ask. */
	readonly dropRights?: boolean;
	/** The client appends and says where: only so, or with `append`, append-only files are opened for writing. */
	readonly appending?: boolean;
}

/** [MS-SMB2] 2.2.13.2.11: what makes an open durable or persistent. A door grants it where its protocol says so (3.3.5.9.10). */
export interface DurableRequest {
	readonly clientGuid: Guid;
	/** Of this open: a request that comes again is known by it (`durableOpens.find`). */
	readonly createGuid: Guid;
	/** Not ended by whoever conflicts with it while its client is away; each write is durable before its reply. */
	readonly persistent: boolean;
	/** How long it waits for its client; 0 = as long as the volume likes. At most `durableTimeoutMs` of limits.ts. */
	readonly timeoutMs: number;
	/** What the client asks to cache under this key, bits of `leaseBits` in matrix.ts. */
	readonly lease?: { readonly key: Guid; readonly state: number };
}

/** What an open was given that is durable now. */
export interface DurableGrant {
	readonly persistent: boolean;
	readonly timeoutMs: number;
	/** What may be cached; undefined: nothing was asked for. */
	readonly lease: { readonly state: number; readonly epoch: number } | undefined;
}

/**
 * What becomes of a range (fallocate(2)). allocate: later writes into it find their space, or it fails with ENOSPC now; contents stay. punch: a hole, the size stays. zero: reads as zeros,
 * with space reserved. The first and the fourth make the file as long as the range reaches.
 */
export type AllocateMode = "allocate" | "allocate-keep-size" | "punch" | "zero" | "zero-keep-size";

export type HandleId = number;

export interface Opened extends Changed {
	readonly handle: HandleId;
	readonly attributes: Attributes;
	readonly created: boolean;
	/** Asked for and given: undefined where there are too many already, and the open is an ordinary one. */
	readonly durable?: DurableGrant;
	/** Of the directory, where something was created in it. */
	readonly parentBefore: Attributes | undefined;
	readonly parentAfter: Attributes | undefined;
}

export interface DirectoryItem {
	readonly name: string;
	readonly ino: Ino;
	readonly type: FileType;
	/** Give it as `after` to go on behind this entry. */
	readonly cookie: number;
	/** With `attributes: true`. */
	readonly attributes: Attributes | undefined;
}

export interface VolumeSpace {
	readonly capacityBytes: number;
	readonly freeBytes: number;
	readonly inodes: number;
	readonly freeInodes: number;
	readonly maximumNameBytes: number;
}

/** Where a door says which requests it has taken and not answered, so that a successor of this process knows. */
export interface RequestMarks {
	/** Before anything is done for it. */
	begin(request: RequestToken): void;
	/** The client may have its reply from now on. */
	replying(slot: number): void;
	end(slot: number): void;
}

/** What an earlier process of this session has left. */
export interface ResumedSession {
	readonly handles: readonly ResumedHandle[];
	/** What it had not answered: at most what a door carries out at once. */
	readonly requests: readonly ResumedRequest[];
}

export interface ResumedHandle {
	readonly handle: HandleId;
	readonly ino: Ino;
	readonly read: boolean;
	readonly write: boolean;
	/** The request that opened it. */
	readonly requestLow: number;
	readonly requestHigh: number;
}

export interface ResumedRequest {
	readonly slot: number;
	readonly requestLow: number;
	readonly requestHigh: number;
	/** Its reply was being given: the client may have it or not. */
	readonly replying: boolean;
	/** It had its effect, which was about this inode. */
	readonly ino: Ino | undefined;
}

/** Where an open or a new name is: a node itself, or a name in a directory. */
export type At = { readonly node: NodeRef } | { readonly parent: NodeRef; readonly name: string };

/** A client elsewhere with locks: the durable roster. */
export interface LockClient {
	readonly id: number;
	/** As it calls itself, a byte string; believed only from this address. */
	readonly name: string;
	readonly address: string;
	/** Of this service, as the client reaches it; "" = not known. */
	readonly serverAddress: string;
}

export interface EnrollingClient {
	readonly name: string;
	readonly address: string;
	readonly serverAddress: string;
	/** Its own state number (NSM); 0 = it does not say. */
	readonly state: number;
}

/** Grace: nothing else. Waiting: `granted` resolves when it is granted (and kept), or is refused as `lock` would be. */
export type LockAnswer =
	| { readonly kind: "granted" }
	| { readonly kind: "grace" }
	| { readonly kind: "waiting"; readonly granted: Promise<void> };

export interface GraceStatus {
	readonly leftMs: number;
	/** That may have locks again. */
	readonly clients: number;
	/** The records of before are exact: grace ends when everything was had again. */
	readonly exact: boolean;
}

/**
 * Locks of clients elsewhere (NLM), in the same table as all others. What they are told survives the death of this process; after that of the machine they have to ask again, within grace, for what they held.
 * Ranges of one owner (client, number) replace, split and join as those of fcntl(2).
 */
export interface ClientLocks {
	/** The service's own (NSM): odd; two more whenever locks were forgotten. */
	readonly stateNumber: number;
	/** Undefined: none. */
	readonly grace: GraceStatus | undefined;
	clients(): readonly LockClient[];
	find(name: string, address: string): LockClient | undefined;
	/** Durable when it resolves. A state that is newer than the one known: the client has begun anew, and what it held is released. @throws FsError ENOLCK (too many clients, a name too long). */
	enroll(client: EnrollingClient): Promise<LockClient>;
	/** A client is gone or has begun anew: everything it holds or waits for, and its place in the roster. */
	release(client: number): Promise<void>;
	/** A client says that it has begun anew (SM_NOTIFY), with this state: those at this address that are called so, and do not have that state yet, are released. Answers which. */
	begunAnew(name: string, address: string, state: number): Promise<readonly number[]>;
	/** @throws FsError EAGAIN (held by another, or not to be had again), EDEADLK, ENOLCK. */
	lock(lock: RemoteLock, how: { readonly wait: boolean; readonly reclaim: boolean }): Promise<LockAnswer>;
	/** Of nothing: fine. @throws FsError ENOLCK (too many pieces). */
	unlock(lock: Omit<RemoteLock, "exclusive">): Promise<void>;
	/** Gives up waiting. False: it did not wait. */
	cancel(lock: RemoteLock): boolean;
	/** The first lock in the way. */
	test(lock: RemoteLock): HeldLock | undefined;
	held(client: number, ino: Ino): ReturnType<FileLocks["heldRemote"]>;
	/** @throws FsError EBUSY (another denies it, or does what it would deny), ENOLCK. */
	share(share: Omit<RemoteShare, "host">, reclaim: boolean): Promise<LockAnswer>;
	unshare(share: Pick<RemoteShare, "ino" | "client" | "owner">): Promise<void>;
	/** Clients that have to be told of the state number. */
	untold(): readonly LockClient[];
	told(client: number): Promise<void>;
	/** Clients can reach the service from now on: the time of grace begins anew. */
	reachable(): void;
}

/** Who comes back for an open, and how he knows it. */
export interface Reconnect {
	/** undefined: by the two GUIDs alone ([MS-SMB2] 3.3.5.9.12). */
	readonly handle: HandleId | undefined;
	readonly clientGuid: Guid;
	readonly createGuid: Guid;
	readonly persistent: boolean;
	readonly leaseKey: Guid | undefined;
}

/** What the door of durable opens is told. */
export interface DurableListener {
	/** A lease is to be given back down to `to`, with `answerLease` of one of these opens, before its time is over. */
	broken(handles: readonly HandleId[], to: number, epoch: number): void;
	/** Its time is over: it is `to` now. */
	revoked(handles: readonly HandleId[], to: number): void;
	/** An operator has ended an open whose client is there. */
	ended(handle: HandleId): void;
}

export interface DurableOpen {
	readonly handle: HandleId;
	readonly ino: Ino;
	readonly clientGuid: Guid;
	readonly createGuid: Guid;
	readonly persistent: boolean;
	readonly connected: boolean;
	/** Of its time-out; undefined while its client is there. */
	readonly leftMs: number | undefined;
	readonly ageMs: number;
	/** Bits of `share` and `leaseBits` in matrix.ts. */
	readonly access: number;
	readonly deny: number;
	readonly leaseState: number;
	readonly ranges: number;
	/** As `FileLocks.list` names the owner of its ranges. */
	readonly owner: string;
}

/**
 * Opens of SMB clients that outlive connection and process (durable and persistent handles). They are made by `open` and ended by `close`; handles are numbers for good. Whatever is answered here is durable:
 * after any death the open is there again with its ranges and its lease, waits for its client, and nothing is granted that conflicts with it.
 */
export interface DurableOpens {
	/** The door can be reached from now on: the time of those who wait for their clients begins anew. */
	listen(listener: DurableListener): void;
	find(clientGuid: Guid, createGuid: Guid): DurableOpen | undefined;
	list(ino?: Ino): readonly DurableOpen[];
	/** Its connection is gone: what it waits for is given up, the rest stays for its time-out. One without a lease to keep handles the door closes instead ([MS-SMB2] 3.3.7.1), unless it is persistent. */
	disconnect(handle: HandleId): void;
	/** @throws FsError ENOENT (no such open waits for this client), EACCES (somebody else's). */
	reconnect(caller: Caller, by: Reconnect): Promise<Opened>;
	/** Waiting: `granted` resolves when it is granted and durable. @throws FsError EAGAIN, EDEADLK, ENOLCK, EBADF. */
	lock(handle: HandleId, lock: { readonly exclusive: boolean; readonly range: Range }, wait: boolean): Promise<LockAnswer>;
	/** Exactly one lock as it was made. @throws FsError ENOENT, EBADF. */
	unlock(handle: HandleId, range: Range): Promise<void>;
	/** More of the lease: answers what is held then. @throws FsError EINVAL (the open was made without), EBADF. */
	lease(handle: HandleId, state: number): Promise<{ readonly state: number; readonly epoch: number }>;
	/** Answers a break, or gives it back. @throws FsError EINVAL (more than is left), EBADF. */
	answerLease(handle: HandleId, state: number): Promise<void>;
}

/**
 * What a volume can do at once because everything that it takes is in memory: each call is one synchronous step, and means and throws what the method of `Volume` of the same name does. Undefined: it cannot, and
 * nothing has happened; then that method does it. For doors to whom a promise for each request costs more than the request.
 */
export interface VolumeNow {
	/** null: there is no such name. */
	lookup(caller: Caller, parent: NodeRef, name: string): Attributes | null | undefined;
	makeDirectory(caller: Caller, parent: NodeRef, name: string, mode: number): ChangedName | undefined;
	unlink(caller: Caller, parent: NodeRef, name: string): ChangedName | undefined;
	removeDirectory(caller: Caller, parent: NodeRef, name: string): ChangedName | undefined;
	rename(caller: Caller, parent: NodeRef, name: string, newParent: NodeRef, newName: string, flags: number): ChangedRename | undefined;
	readDirectory(caller: Caller, node: NodeRef, after: number, limit: number, attributes: boolean): readonly DirectoryItem[] | undefined;
	getAttributes(caller: Caller, node: NodeRef): Attributes | undefined;
	setAttributes(caller: Caller, node: NodeRef, change: SetAttributes): ChangedNode | undefined;
	/** null: there is no such attribute. */
	getXattr(caller: Caller, node: NodeRef, name: string): Uint8Array | null | undefined;
	open(caller: Caller, at: At, intent: OpenIntent): Opened | undefined;
	/** All of the bytes, or undefined. */
	write(handle: HandleId, offset: number, bytes: Uint8Array): number | undefined;
	flush(handle: HandleId): void;
	/** @throws FsError EINVAL: not of a durable open. */
	close(handle: HandleId): void;
}

export interface Volume {
	readonly id: string;
	readonly root: NodeRef;
	/** Absent where every call has to wait for somebody. */
	readonly now?: VolumeNow;
	node(ino: Ino): NodeRef;

	// names
	lookup(caller: Caller, parent: NodeRef, name: string): Promise<Attributes>;
	makeDirectory(caller: Caller, parent: NodeRef, name: string, mode: number): Promise<ChangedName>;
	makeSymlink(caller: Caller, parent: NodeRef, name: string, target: string): Promise<ChangedName>;
	/** Regular files too. */
	makeNode(caller: Caller, parent: NodeRef, name: string, type: FileType, mode: number, rdev: number): Promise<ChangedName>;
	link(caller: Caller, node: NodeRef, parent: NodeRef, name: string): Promise<ChangedName>;
	unlink(caller: Caller, parent: NodeRef, name: string): Promise<ChangedName>;
	removeDirectory(caller: Caller, parent: NodeRef, name: string): Promise<ChangedName>;
	/** flags: 1 NOREPLACE, 2 EXCHANGE, 4 WHITEOUT (a character device 0:0 of the caller's stays under the old name; with 1 too); others EINVAL. */
	rename(caller: Caller, parent: NodeRef, name: string, newParent: NodeRef, newName: string, flags: number): Promise<ChangedRename>;
	readSymlink(caller: Caller, node: NodeRef): Promise<string>;
	/** Entries behind `after` (0 = from the start, "." and ".." included), at most `limit`. Stable while the directory changes: no entry that stays is left out or shown twice. */
	readDirectory(caller: Caller, node: NodeRef, after: number, limit: number, attributes: boolean): Promise<readonly DirectoryItem[]>;

	// attributes
	getAttributes(caller: Caller, node: NodeRef, handle?: HandleId): Promise<Attributes>;
	permissions(caller: Caller, node: NodeRef): Promise<Permissions>;
	setAttributes(caller: Caller, node: NodeRef, change: SetAttributes, handle?: HandleId): Promise<ChangedNode>;
	getXattr(caller: Caller, node: NodeRef, name: string): Promise<Uint8Array>;
	/**
	 * `system.posix_acl_access` and `system.posix_acl_default` are the access lists, in the form of `<linux/posix_acl_xattr.h>`. `dropSetGid`: of a trusted caller who is not in
	 * the node's group, an access list takes the set-gid bit.
	 */
	setXattr(
		caller: Caller,
		node: NodeRef,
		name: string,
		value: Uint8Array,
		mode: "any" | "create" | "replace",
		dropSetGid?: boolean,
	): Promise<Changed>;
	/** `trusted.*` for root alone, where the door is not trusted. */
	listXattrs(caller: Caller, node: NodeRef): Promise<readonly string[]>;
	removeXattr(caller: Caller, node: NodeRef, name: string): Promise<Changed>;

	// files
	/** @throws FsError EBUSY `locks.denied` (an open elsewhere allows it to nobody, or does what this one denies), and what the checks of names and permissions say. */
	open(caller: Caller, at: At, intent: OpenIntent): Promise<Opened>;
	/**
	 * Shorter only at the end of the file. `room` is a buffer of at least that length that may be used for the answer, to spare a fresh one: it is the caller's again when the promise settles.
	 * `by`: whose request it is, where the handle is not one that he has opened (NFS 3 knows no opens): then what opens elsewhere deny is denied to it.
	 * @throws FsError EBUSY `locks.denied`, EAGAIN (`by` a client that asks again: a lease is on its way back; of SMB: the bytes are locked).
	 */
	read(handle: HandleId, offset: number, lengthBytes: number, room?: Uint8Array, by?: Caller, call?: CallName): Promise<Uint8Array>;
	/** The bytes are copied before the first await. With append the offset is the end of the file. Acknowledged = survives the death of the daemon. `by` and errors as for `read`. */
	write(
		handle: HandleId,
		offset: number,
		bytes: Uint8Array,
		by?: Caller,
		call?: CallName,
	): Promise<{ readonly written: number; readonly attributes: Attributes }>;
	/** @throws FsError EINVAL (empty range), EBADF (not open for writing), EFBIG, ENOSPC. */
	allocate(handle: HandleId, mode: AllocateMode, offset: number, lengthBytes: number, call?: CallName): Promise<Changed>;
	/**
	 * Copies a range without moving bytes where it can: both files then share them. Fewer bytes than asked for at the end of the source, or because it would take long: call again. 0 = the source ends there.
	 * @throws FsError EBADF, EINVAL (ranges of one file overlap), EISDIR, EFBIG, ENOSPC.
	 */
	copyRange(
		source: HandleId,
		sourceOffset: number,
		target: HandleId,
		targetOffset: number,
		lengthBytes: number,
		call?: CallName,
	): Promise<{ readonly copied: number; readonly attributes: Attributes }>;
	/** The first byte at or behind `offset` that is data, or hole (the end of the file counts as one). @throws FsError ENXIO: none. */
	seek(handle: HandleId, offset: number, what: "data" | "hole", call?: CallName): Promise<number>;
	/** Reports (and does not clear) the handle's sticky error: close(2). */
	flush(handle: HandleId): Promise<void>;
	/** Bytes and names of the file survive the loss of as many disks as the volume tolerates. Reports the handle's sticky error. */
	fsync(handle: HandleId, dataOnly: boolean, call?: CallName): Promise<void>;
	/** Locks that were taken through the handle go with it. A durable open ends. */
	close(handle: HandleId): Promise<void>;
	/** Byte ranges and flocks of the files of this volume, of all doors. What it does, it does before it returns: answers come in the order of the calls. */
	readonly locks: FileLocks;

	// the whole
	/** Every acknowledged change up to `position` is durable. */
	durable(position: number): Promise<void>;
	/** What is noted of calls (`Caller.noted`), at most `callSlots`: durable, if it was noted before this process began. */
	pastCalls(): Promise<readonly PastCall[]>;
	/** Everything that is dirty is sealed and durable: syncfs. */
	syncAll(): Promise<void>;
	space(): Promise<VolumeSpace>;
}
