/** State that the handlers share with the server. */
import type { BufferPool } from "../../base/buffer-pool.ts";
import type { FsError } from "../../base/errors.ts";
import type { Clock } from "../../platform/interface.ts";
import type { Attributes, Changed, HandleId, Ino, Volume } from "../../volume/interface.ts";
import type { BoundedMap } from "./bounded-map.ts";
import { recentAttributeMs, recentWriteMs } from "./limits.ts";
import type { ReplyWriter, RequestHeader } from "./protocol.ts";

export interface OpenFile {
	readonly ino: Ino;
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
}

export interface Door {
	readonly volume: Volume;
	readonly clock: Clock;
	readonly readOnly: boolean;
	readonly keepCache: boolean;
	readonly clientInstance: string;
	readonly entryMs: number;
	readonly attributeMs: number;
	readonly negativeMs: number;
	readonly handles: Map<HandleId, OpenFile>;
	readonly maxHandles: number;
	readonly readBuffers: BufferPool;
	readonly removed: BoundedMap<Ino, Attributes>;
	/** When a file was last written, monotonic ms. */
	readonly recentWrites: BoundedMap<Ino, number>;
	/** Newest position that a reply of this door has reported. */
	position: number;
	bytesRead: number;
	bytesWritten: number;
	negotiated: Negotiated | undefined;
	/** For replies; free again when `reply` returns. */
	readonly out: ReplyWriter;
	/** Logs that not everything was durable at the unmount. */
	unsynced(error: FsError): void;
	/** Notes a position for F5. */
	changed(change: Changed): void;
	/** Makes the kernel ask anew for what it does not know to have changed. Never blocks for long: attributes alone. */
	forgetAttributes(ino: Ino): Promise<void>;
	/** Whether a thread has a capability (capabilities(7), by number) now. */
	capable(pid: number, capability: number): Promise<boolean>;
	reply(header: RequestHeader, view: Uint8Array, body: Uint8Array | undefined): void;
}

/** Until its newest bytes are sealed, the stored size of a file changes by itself: the kernel may believe attributes for a moment only. */
export function attributeValidity(door: Door, ino: Ino): number {
	const at = door.recentWrites.get(ino);
	if (at === undefined) return door.attributeMs;
	if (door.clock.monotonicMs() - at < recentWriteMs) return Math.min(door.attributeMs, recentAttributeMs);
	door.recentWrites.delete(ino);
	return door.attributeMs;
}
