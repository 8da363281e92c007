/** State that the handlers share with the server. */
import type { BufferPool } from "../../base/buffer-pool.ts";
import type { FsError } from "../../base/errors.ts";
import type { Clock } from "../../platform/interface.ts";
import type { Attributes, Changed, HandleId, Ino, Volume, VolumeNow } from "../../volume/interface.ts";
import type { BoundedMap } from "./bounded-map.ts";
import type { KnownNodes } from "./known-nodes.ts";
import { recentAttributeMs, recentWriteMs } from "./limits.ts";
import type { NativeReads } from "./native-reads.ts";
import type { ReplyWriter, RequestHeader } from "./protocol.ts";

export interface OpenFile {
	readonly ino: Ino;
	/** Open for reading and writing: it can be mapped shared, and written to without our knowledge. */
	readonly mappable: boolean;
	/** The kernel reads it by itself. */
	readonly native: boolean;
}

/** What INIT settled. */
export interface Negotiated {
	readonly minor: number;
	/** The kernel leaves clearing set-id bits to us. */
	readonly killPriv: boolean;
	readonly setxattrExt: boolean;
	/** The kernel leaves the umask to us. */
	readonly dontMask: boolean;
	/** The kernel can do without OPENDIR and RELEASEDIR. */
	readonly noOpendir: boolean;
	/** The volume serves locks; otherwise the kernel keeps them, for itself. */
	readonly locks: boolean;
	/** It can send requests again that a process took with it (Linux 6.9). */
	readonly resend: boolean;
	/** It reads files of this machine by itself where it is told to (Linux 6.9). */
	readonly passthrough: boolean;
}

export interface Door {
	readonly volume: Volume;
	/** What the volume answers at once; undefined where it cannot, or shall not. */
	readonly now: VolumeNow | undefined;
	readonly clock: Clock;
	readonly readOnly: boolean;
	readonly keepCache: boolean;
	readonly clientInstance: string;
	readonly entryMs: number;
	readonly attributeMs: number;
	readonly negativeMs: number;
	readonly handles: Map<HandleId, OpenFile>;
	readonly maxHandles: number;
	/** How many mappable handles a file has. */
	readonly mappable: Map<Ino, number>;
	/** Locks are the volume's, where the kernel is told so; with false it keeps them. */
	readonly serveLocks: boolean;
	/** The kernel is taken for one that speaks no more than FUSE 7.N; undefined: for what it is. */
	readonly kernelMinor: number | undefined;
	/** Requests that wait for locks, by their number (session.ts `keyOfHeader`); they are answered at the end of the connection. */
	readonly lockWaits: Map<string, RequestHeader>;
	readonly readBuffers: BufferPool;
	readonly known: KnownNodes;
	/** Undefined: every read comes through here. */
	readonly nativeReads: NativeReads | undefined;
	readonly removed: BoundedMap<Ino, Attributes>;
	/** When a file was last written, monotonic ms. */
	readonly recentWrites: BoundedMap<Ino, number>;
	/** Newest position that a reply of this door has reported. */
	position: number;
	bytesRead: number;
	bytesWritten: number;
	negotiated: Negotiated | undefined;
	/** To be kept for a successor, before INIT is answered. */
	onNegotiated(negotiated: Negotiated): Promise<void>;
	/** When the door took over from another process, monotonic ms; undefined when it did not. */
	readonly resumedMs: number | undefined;
	/** For replies; free again when `reply` returns. */
	readonly out: ReplyWriter;
	/** Makes the kernel send what mappings have changed from `offset` on. False: it is not known that it did, within the time that is given to it. */
	writeOut(ino: Ino, offset: number): Promise<boolean>;
	/** The kernel has sent its last request: no mount of this file system is left, in any namespace. */
	destroyed: boolean;
	/** Logs that not everything was durable at the unmount. */
	unsynced(error: FsError): void;
	/** Notes a position for F5. */
	changed(change: Changed): void;
	/** Makes the kernel ask anew for what it does not know to have changed. Never blocks for long: attributes alone. */
	forgetAttributes(ino: Ino): Promise<void>;
	/** Whether a thread waits for a lock of an open file description. */
	waitsForOpenFile(pid: number): Promise<boolean>;
	/** Whether a thread has a capability (capabilities(7), by number) now. */
	capable(pid: number, capability: number): Promise<boolean>;
	reply(header: RequestHeader, view: Uint8Array, body: Uint8Array | undefined): void;
}

/** Until its newest bytes are sealed, the stored size of a file changes by itself: the kernel may believe attributes for a moment only. */
export function attributeValidity(door: Door, ino: Ino): number {
	// What was written lately through a predecessor is not known here.
	const at = door.recentWrites.get(ino) ?? door.resumedMs;
	if (at === undefined) return door.attributeMs;
	if (door.clock.monotonicMs() - at < recentWriteMs) return Math.min(door.attributeMs, recentAttributeMs);
	door.recentWrites.delete(ino);
	return door.attributeMs;
}

export function keepHandle(door: Door, handle: HandleId, file: OpenFile): void {
	door.handles.set(handle, file);
	if (file.mappable) door.mappable.set(file.ino, (door.mappable.get(file.ino) ?? 0) + 1);
}

export function dropHandle(door: Door, handle: HandleId): void {
	const file = door.handles.get(handle);
	door.handles.delete(handle);
	if (file !== undefined) door.nativeReads?.closed(file.ino, file.native);
	if (file?.mappable !== true) return;
	const left = (door.mappable.get(file.ino) ?? 1) - 1;
	if (left === 0) door.mappable.delete(file.ino);
	else door.mappable.set(file.ino, left);
}
