/**
 * Requests of a connection that outlives this process. When a daemon dies behind a living mount, the kernel sends its successor every request again that was read and not answered, bit 63 of
 * `unique` set (FUSE_UNIQUE_RESEND); some of them were carried out already.
 *
 * Invariants
 *  S1 A request that changes what cannot be changed twice has a slot from its arrival until its reply is out, alone; the volume notes it there in the transaction of its effect.
 *  S2 A slot of a request that a predecessor has not answered is given to nobody else until that request was answered, or until no request can come again. Which those are is marked in memory that outlives the
 *     process, so they are never more than a door carries out at once.
 *  S3 The kernel puts requests that it sends again before all others: the first fresh request says that no more of them will come.
 *  S4 A handle is closed for want of anybody who knows it only if its request's reply was not yet being given and the request did not come again.
 */
import { assert } from "../../base/assert.ts";
import { requestSlots } from "../../volume/interface.ts";
import type { HandleId, Ino, RequestMarks, ResumedHandle, ResumedRequest, ResumedSession } from "../../volume/interface.ts";
import { opcodes } from "./protocol.ts";
import type { RequestHeader } from "./protocol.ts";

/** fuse.h FUSE_UNIQUE_RESEND, of the upper word. */
const resendBit = 0x8000_0000;

/**
 * What must not be carried out twice, and what makes handles. Not here: requests that come to the same when they are carried out again, because the kernel holds the lock of the inode until they are answered,
 * so that no other change comes in between (WRITE, SETATTR, FALLOCATE, COPY_FILE_RANGE, IOCTL), and those that change nothing.
 */
const recorded: ReadonlySet<number> = new Set([
	opcodes.CREATE,
	opcodes.TMPFILE,
	opcodes.OPEN,
	opcodes.MKNOD,
	opcodes.MKDIR,
	opcodes.SYMLINK,
	opcodes.LINK,
	opcodes.UNLINK,
	opcodes.RMDIR,
	opcodes.RENAME,
	opcodes.RENAME2,
	opcodes.SETXATTR,
	opcodes.REMOVEXATTR,
]);

export function isResent(header: RequestHeader): boolean {
	return header.uniqueHigh >= resendBit;
}

/** What became of a request before: the handle that it has opened, or the inode of its effect. */
export interface Past {
	readonly opened: ResumedHandle | undefined;
	readonly outcome: { readonly ino: Ino } | undefined;
}

/** A request that the predecessor had not answered. */
interface Left {
	readonly request: ResumedRequest;
	readonly opened: ResumedHandle | undefined;
}

export class RequestSession {
	readonly #free: number[] = [];
	readonly #marks: RequestMarks | undefined;
	readonly #onLost: (handle: HandleId) => void;
	#left: Map<string, Left> | undefined;

	/** `onLost`: a handle that nobody has heard of, nor will. */
	constructor(resumed?: ResumedSession, marks?: RequestMarks, onLost: (handle: HandleId) => void = () => {}) {
		this.#marks = marks;
		this.#onLost = onLost;
		const taken = new Set<number>();
		if (resumed !== undefined) {
			const opened = new Map(resumed.handles.map((one) => [keyOf(one.requestLow, one.requestHigh), one]));
			this.#left = new Map();
			for (const request of resumed.requests) {
				const key = keyOf(request.requestLow, request.requestHigh);
				this.#left.set(key, { request, opened: opened.get(key) });
				taken.add(request.slot);
			}
		}
		for (let slot = requestSlots - 1; slot >= 0; slot--) if (!taken.has(slot)) this.#free.push(slot);
	}

	/** To be called for each request that wants a reply, in the order of arrival. */
	begin(header: RequestHeader): void {
		const resent = isResent(header);
		if (!resent && this.#left !== undefined) this.#endPast(this.#left);
		if (!recorded.has(header.opcode)) return;
		const slot = (resent ? this.#left?.get(keyOfHeader(header))?.request.slot : undefined) ?? this.#free.pop();
		assert(slot !== undefined, "S1: there is a slot for each request");
		header.slot = slot;
		this.#marks?.begin({ slot, low: header.uniqueLow, high: requestHighOf(header.uniqueHigh) });
	}

	/** Of a request that was sent again; asked once, when it arrives. */
	past(header: RequestHeader): Past | undefined {
		if (!isResent(header) || !recorded.has(header.opcode)) return undefined;
		const key = keyOfHeader(header);
		const left = this.#left?.get(key);
		// Its slot is the request's own now: freed by `end`.
		this.#left?.delete(key);
		const ino = left?.request.ino;
		if (left === undefined || (left.opened === undefined && ino === undefined)) return undefined;
		return { opened: left.opened, outcome: ino === undefined ? undefined : { ino } };
	}

	/** The client may know the reply from now on. */
	replying(header: RequestHeader): void {
		if (header.slot !== undefined) this.#marks?.replying(header.slot);
	}

	/** The reply is out. */
	end(header: RequestHeader): void {
		if (header.slot === undefined) return;
		this.#marks?.end(header.slot);
		this.#free.push(header.slot);
	}

	/** S3: what has not come again was given up with its caller, or its reply was out after all. */
	#endPast(left: ReadonlyMap<string, Left>): void {
		this.#left = undefined;
		for (const { request, opened } of left.values()) {
			this.#marks?.end(request.slot);
			this.#free.push(request.slot);
			if (opened !== undefined && !request.replying) this.#onLost(opened.handle);
		}
	}
}

function keyOf(low: number, high: number): string {
	return `${high}:${low}`;
}

export function keyOfHeader({ uniqueLow, uniqueHigh }: Pick<RequestHeader, "uniqueLow" | "uniqueHigh">): string {
	return keyOf(uniqueLow, requestHighOf(uniqueHigh));
}

/** The kernel's number of a request without the mark of those that are sent again. */
export function requestHighOf(uniqueHigh: number): number {
	return uniqueHigh % resendBit;
}
