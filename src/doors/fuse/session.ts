/**
 * Requests of a connection that outlives this process. When a daemon dies behind a living mount, the kernel sends its successor every request again that was read and not answered, bit 63 of
 * `unique` set (FUSE_UNIQUE_RESEND); some of them were carried out already.
 *
 * Invariants
 *  S1 A request that changes what cannot be changed twice has a slot from its arrival until its reply is out, alone; the volume notes it there in the transaction of its effect.
 *  S2 A slot whose note came from a predecessor is given to nobody else until its request was answered, or until no request can come again.
 *  S3 The kernel puts requests that it sends again before all others: the first fresh request says that no more of them will come.
 */
import { assert } from "../../base/assert.ts";
import { requestSlots } from "../../volume/interface.ts";
import type { ResumedHandle, ResumedOutcome, ResumedSession } from "../../volume/interface.ts";
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
	readonly outcome: ResumedOutcome | undefined;
}

export class RequestSession {
	readonly #free: number[] = [];
	#opened: Map<string, ResumedHandle> | undefined;
	#outcomes: Map<string, ResumedOutcome> | undefined;

	constructor(resumed: ResumedSession | undefined) {
		const taken = new Set<number>();
		if (resumed !== undefined) {
			this.#opened = new Map(resumed.handles.map((one) => [keyOf(one.requestLow, one.requestHigh), one]));
			this.#outcomes = new Map(resumed.outcomes.map((one) => [keyOf(one.requestLow, one.requestHigh), one]));
			for (const { slot } of resumed.outcomes) taken.add(slot);
		}
		for (let slot = requestSlots - 1; slot >= 0; slot--) if (!taken.has(slot)) this.#free.push(slot);
	}

	/** To be called for each request that wants a reply, in the order of arrival. */
	begin(header: RequestHeader): void {
		const resent = isResent(header);
		if (!resent && this.#outcomes !== undefined) this.#endPast();
		if (!recorded.has(header.opcode)) return;
		const slot = (resent ? this.#outcomes?.get(keyOfHeader(header))?.slot : undefined) ?? this.#free.pop();
		assert(slot !== undefined, "S1: there is a slot for each request");
		header.slot = slot;
	}

	/** Of a request that was sent again; asked once, when it arrives. */
	past(header: RequestHeader): Past | undefined {
		if (!isResent(header) || !recorded.has(header.opcode)) return undefined;
		const key = keyOfHeader(header);
		const past = { opened: this.#opened?.get(key), outcome: this.#outcomes?.get(key) };
		this.#opened?.delete(key);
		// Its slot is the request's own now: freed by `end`.
		this.#outcomes?.delete(key);
		return past.opened === undefined && past.outcome === undefined ? undefined : past;
	}

	/** The reply is out. */
	end(header: RequestHeader): void {
		if (header.slot !== undefined) this.#free.push(header.slot);
	}

	/** S3. */
	#endPast(): void {
		for (const { slot } of this.#outcomes?.values() ?? []) this.#free.push(slot);
		this.#opened = undefined;
		this.#outcomes = undefined;
	}
}

function keyOf(low: number, high: number): string {
	return `${high}:${low}`;
}

function keyOfHeader({ uniqueLow, uniqueHigh }: RequestHeader): string {
	return keyOf(uniqueLow, requestHighOf(uniqueHigh));
}

/** The kernel's number of a request without the mark of those that are sent again. */
export function requestHighOf(uniqueHigh: number): number {
	return uniqueHigh % resendBit;
}
