/** Commands, effects and what can be looked at: the shapes of the lock core. */
import type { IoClass, LeaseEvent, LeaseFamily, LockClass, LockFamily, Mode, Sharing } from "./matrix.ts";
import type { Range } from "./range.ts";

export type LockDoor = "fuse" | "nfs" | "smb" | "s3" | "node";

/** Who locks. `id` is opaque and compared for equality only; it has to differ between doors and clients. */
export interface Owner {
	readonly id: string;
	/** What dies together and is bounded together: a process, a machine, a session. */
	readonly client: string;
	readonly door: LockDoor;
	/** For people; 0 = not known. */
	readonly pid: number;
	/** The machine whose reads and writes name no open (NFS 3): what its own opens deny does not bind it. Absent where operations name their open. */
	readonly host?: string;
	/** Of the daemon itself: what its opens deny keeps what somebody else reads from going stale, and is no operator's to take away. */
	readonly firm?: true;
}

/** One locked range, and who has it since when. */
export interface Hold {
	readonly class: LockClass;
	readonly owner: Owner;
	readonly range: Range;
	/** The open file it was taken through; goes with it. */
	readonly handle: number | undefined;
	readonly sinceMs: number;
}

/** What can be asked for and waited for. */
export type Want =
	| {
			readonly kind: "range";
			readonly class: LockClass;
			readonly range: Range;
			readonly handle: number | undefined;
			/** The owner's own cache is no reason to wait. */
			readonly leaseKey?: string | undefined;
	  }
	| { readonly kind: "mode"; readonly mode: Mode }
	/** An open; `id` names it for `close`. */
	| { readonly kind: "open"; readonly id: string; readonly sharing: Sharing }
	/** Admission of one operation; `io` and `range` where it reads or writes bytes. */
	| {
			readonly kind: "operation";
			readonly id: string;
			readonly event: LeaseEvent;
			readonly io: IoClass | undefined;
			readonly range: Range | undefined;
			/** The caller's own cache is no reason to wait. */
			readonly leaseKey: string | undefined;
			/** Bits of `share` that opens may deny; 0 for what comes through an open of its own. */
			readonly access: number;
	  };

export interface Request {
	readonly kind: "request";
	readonly ino: number;
	/** Names the request: sent again it is the same one, not another. */
	readonly key: string;
	readonly owner: Owner;
	readonly want: Want;
	/** Waits for what others hold; without, it waits for leases to be given back and nothing else. */
	readonly patient: boolean;
	/** Refused with EDEADLK when waiting would never end. */
	readonly victim: boolean;
	/** Refused with EAGAIN then; monotonic ms. */
	readonly deadlineMs: number | undefined;
}

export type Command =
	| Request
	/** fcntl and NFS: any part; flock: all; SMB: exactly one lock as it was made (ENOENT otherwise). */
	| { readonly kind: "unlock"; readonly ino: number; readonly owner: Owner; readonly family: LockFamily; readonly range: Range }
	/** Gives up waiting: refused with ECANCELED, if it still waits. */
	| { readonly kind: "cancel"; readonly key: string }
	/** fcntl: some descriptor of the process was closed. */
	| { readonly kind: "drop-owner"; readonly ino: number; readonly owner: string; readonly family: LockFamily }
	/** An open file is gone, and everything that was locked through it. */
	| { readonly kind: "drop-handle"; readonly ino: number; readonly handle: number }
	/** A client is gone, and everything that it held or waited for. */
	| { readonly kind: "drop-client"; readonly client: string }
	/** An operator takes locks of an inode away; of one owner, or of all. */
	| { readonly kind: "break-locks"; readonly ino: number; readonly owner: string | undefined }
	| { readonly kind: "close"; readonly ino: number; readonly id: string }
	/** Open, or under way, already: entered as it is, without asking. `yields`: the handle, where nobody is behind it now, and it gives way to whoever is in conflict with it or with what is locked through it. */
	| {
			readonly kind: "enter-open";
			readonly ino: number;
			readonly id: string;
			readonly owner: Owner;
			readonly sharing: Sharing;
			readonly yields?: number | undefined;
	  }
	| {
			readonly kind: "enter-operation";
			readonly ino: number;
			readonly owner: Owner;
			readonly operation: Extract<Want, { kind: "operation" }>;
	  }
	/** An admitted operation has ended. */
	| { readonly kind: "done"; readonly ino: number; readonly id: string }
	| { readonly kind: "release-mode"; readonly ino: number; readonly owner: string }
	/** Never waits: answered with what can be had now, 0 when nothing. */
	| {
			readonly kind: "lease";
			readonly ino: number;
			readonly key: string;
			readonly owner: Owner;
			readonly family: LeaseFamily;
			readonly state: number;
	  }
	/** Answer to a break, or giving it back. @throws nothing: more than what the break leaves is refused with EINVAL. */
	| { readonly kind: "lease-answer"; readonly ino: number; readonly key: string; readonly state: number }
	/** Held before a restart: entered as it was, without asking. */
	| { readonly kind: "restore"; readonly ino: number; readonly hold: Omit<Hold, "sinceMs">; readonly sinceMs: number }
	/** Leased before a restart: as much of it as nobody else is in the way of now. */
	| {
			readonly kind: "restore-lease";
			readonly ino: number;
			readonly key: string;
			readonly owner: Owner;
			readonly family: LeaseFamily;
			readonly state: number;
			readonly epoch: number;
	  }
	/** Time has gone by. */
	| { readonly kind: "tick" };

export type RefusalCode = "EAGAIN" | "EBUSY" | "EDEADLK" | "ENOLCK" | "ECANCELED" | "ENOENT" | "EINVAL" | "EEXIST";

/** What the driver has to do, in this order. */
export type Effect =
	| { readonly kind: "granted"; readonly key: string; readonly ino: number; readonly owner: Owner; readonly want: Want }
	| { readonly kind: "waiting"; readonly key: string }
	| { readonly kind: "refused"; readonly key: string; readonly code: RefusalCode; readonly why: string }
	/** A lease is to be given back down to `to`. */
	| {
			readonly kind: "break";
			readonly ino: number;
			readonly key: string;
			readonly owner: Owner;
			readonly to: number;
			readonly epoch: number;
	  }
	/** Its holder did not answer in time: it is as if it had. */
	| { readonly kind: "revoked"; readonly ino: number; readonly key: string; readonly owner: Owner; readonly to: number }
	| { readonly kind: "leased"; readonly ino: number; readonly key: string; readonly state: number; readonly epoch: number }
	/** An open that yields stands in somebody's way, who waits for its end. Told once. */
	| { readonly kind: "give-way"; readonly ino: number; readonly handle: number }
	/** A holder of a mode stands in somebody's way. */
	| { readonly kind: "wanted"; readonly ino: number; readonly owner: Owner; readonly mode: Mode }
	/** Locked ranges changed hands: to be kept, before any answer, where that outlives the process. */
	| { readonly kind: "set"; readonly ino: number; readonly hold: Hold; readonly key: string }
	| {
			readonly kind: "clear";
			readonly ino: number;
			readonly owner: string;
			readonly family: LockFamily;
			readonly range: Range;
			readonly handle: number | undefined;
	  };

export interface WaitingView {
	readonly key: string;
	readonly ino: number;
	readonly owner: Owner;
	readonly want: Want;
	readonly sinceMs: number;
}

export interface LockCounters {
	/** By class. */
	readonly acquired: Map<LockClass, number>;
	readonly released: Map<LockClass, number>;
	/** Requests that had to wait, were refused because somebody holds it, gave up, would have waited for ever, met a bound. */
	blocked: number;
	conflicts: number;
	cancelled: number;
	deadlocks: number;
	overLimit: number;
	timedOut: number;
	broken: number;
	readonly waitMs: Histogram;
	readonly holdMs: Histogram;
}

export interface Histogram {
	readonly counts: number[];
	sumMs: number;
	count: number;
}

/** Upper ends of the histograms' classes. */
export const histogramMs: readonly number[] = [1, 10, 100, 1000, 10_000, 60_000, 600_000];
