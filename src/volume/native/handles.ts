/**
 * Open files, in memory that outlives the process where a session does (handle-memory.ts). Errors are sticky: a handle that was told of a failed seal or sync reports it at fsync and close (architecture, rule 5).
 *
 * There may be a quarter of a million of them: what many have in common is held once.
 *
 * Invariant: `openCount(ino)` = number of handles of the inode; the caller reaps an orphan when it becomes 0.
 */
import { assert } from "../../base/assert.ts";
import { LruCache } from "../../base/bounded.ts";
import { FsError } from "../../base/errors.ts";
import type { OpenHandle } from "../../locks/file-locks.ts";
import { share } from "../../locks/matrix.ts";
import { guardedFlags } from "../../namespace/flags.ts";
import type { ReadPattern } from "../../storage/interface.ts";
import type { Caller, HandleId, Ino, RequestToken } from "../interface.ts";
import type { FoundHandle, HandleMemory } from "./handle-memory.ts";
import { limits } from "./limits.ts";

/** Handles of durable opens are numbers for good, above all others: places of a session's memory and counts since the mount stay far below. */
export const durableHandleBase = 2 ** 40;

export interface Handle {
	readonly id: HandleId;
	readonly ino: Ino;
	/** Who opened it; its request is over. */
	caller: Caller;
	readonly read: boolean;
	readonly write: boolean;
	readonly append: boolean;
	readonly sync: boolean;
	/** Flags of the inode that bind writers (namespace/flags.ts `guardedFlags`). */
	restriction: number;
	error: FsError | undefined;
	/** Where a sequential reader would read next. */
	nextRead: number;
	/** Short reads elsewhere, one after the other. */
	jumps: number;
}

/**
 * Random after some short reads each of which was far from where the one before ended. Readers whose requests overtake each other (read-ahead) stay near.
 */
export function readPattern(handle: Handle, offset: number, lengthBytes: number): ReadPattern {
	const isNear = Math.abs(offset - handle.nextRead) <= limits.nearReadBytes;
	handle.jumps = isNear || lengthBytes > limits.shortReadBytes ? 0 : handle.jumps + 1;
	handle.nextRead = offset + lengthBytes;
	return handle.jumps >= limits.randomAfterJumps ? "random" : "usual";
}

export class HandleTable {
	readonly #memory: HandleMemory | undefined;
	readonly #handles = new Map<HandleId, Handle>();
	/** One handle, which is usual, or several. */
	readonly #byIno = new Map<Ino, Handle | Set<Handle>>();
	readonly #callers = new LruCache<string, Caller>(limits.sharedCallers);
	#next = 1;
	#onFail: (id: HandleId) => void = () => {};

	/** What a resumed session has open is open at once. */
	constructor(memory?: HandleMemory) {
		this.#memory = memory;
		for (const found of memory?.found ?? []) this.#insert(restored(found, (caller) => this.#shared(caller)));
	}

	get size(): number {
		return this.#handles.size;
	}

	/** All that are open. */
	all(): IterableIterator<Handle> {
		return this.#handles.values();
	}

	/** `number`: of a durable open. @throws FsError EMFILE. */
	add(handle: Omit<Handle, "id" | "error" | "nextRead" | "jumps">, number?: HandleId): Handle {
		assert(number === undefined || (number >= durableHandleBase && !this.#handles.has(number)), "the number of a durable open is its own");
		const id = number ?? this.#place();
		if (id === undefined)
			throw new FsError("EMFILE", "volume.handles", `${limits.handles} files are open on this volume already; close some`);
		const { ino, read, write, append, sync, restriction } = handle;
		const caller = this.#shared(handle.caller);
		// Spelled out: what is spread from another object gets a hidden class of its own, three times the size of a handle.
		const added: Handle = { id, ino, caller, read, write, append, sync, restriction, error: undefined, nextRead: 0, jumps: 0 };
		this.#insert(added);
		return added;
	}

	#place(): HandleId | undefined {
		if (this.#handles.size >= limits.handles) return undefined;
		return this.#memory === undefined ? this.#next++ : this.#memory.take();
	}

	/** Its client is back, and may come as another session. */
	adopt(id: HandleId, caller: Caller): void {
		this.get(id).caller = this.#shared(caller);
	}

	/** Who is told when something fails that was written through a durable open. */
	onFail(fn: (id: HandleId) => void): void {
		this.#onFail = fn;
	}

	#insert(handle: Handle): void {
		this.#handles.set(handle.id, handle);
		const same = this.#byIno.get(handle.ino);
		if (same === undefined) this.#byIno.set(handle.ino, handle);
		else if (same instanceof Set) same.add(handle);
		else this.#byIno.set(handle.ino, new Set([same, handle]));
	}

	/** An equal caller that other handles have already, without what belongs to one request. */
	#shared({ request: _request, noted: _noted, umask: _umask, ...caller }: Caller): Caller {
		const { uid, gid, groups, principal, door, clientInstance, share, trusted, leaseKey } = caller;
		const key = JSON.stringify([uid, gid, groups, principal ?? null, door, clientInstance, share ?? null, trusted, leaseKey ?? null]);
		const known = this.#callers.get(key);
		if (known !== undefined) return known;
		this.#callers.set(key, caller, 1);
		return caller;
	}

	#of(ino: Ino): Iterable<Handle> {
		const same = this.#byIno.get(ino);
		return same === undefined ? [] : same instanceof Set ? same : [same];
	}

	/** Everything that opening it had to do is done: from now on it is open for a successor of this process too. */
	keep(handle: Handle, request: RequestToken | undefined): void {
		const { id, ino, read, write, append, sync, error, caller } = handle;
		const { uid, gid, trusted } = caller;
		const { low: requestLow, high: requestHigh } = request ?? { low: 0, high: 0 };
		this.#memory?.keep(id, { ino, uid, gid, trusted, requestLow, requestHigh, read, write, append, sync, failed: error !== undefined });
	}

	/** @throws FsError EBADF. */
	get(id: HandleId): Handle {
		const handle = this.#handles.get(id);
		if (handle === undefined) throw new FsError("EBADF", "volume.handle", `handle ${id} is not open`, { handle: id });
		return handle;
	}

	remove(id: HandleId): Handle {
		const handle = this.get(id);
		if (!isDurable(id)) this.#memory?.free(id);
		this.#handles.delete(id);
		const same = this.#byIno.get(handle.ino);
		if (same instanceof Set) same.delete(handle);
		if (!(same instanceof Set) || same.size === 0) this.#byIno.delete(handle.ino);
		return handle;
	}

	/** As the lock core has to know them. Those of an NFS server are nobody's opens: its calls are judged one by one. */
	opensOf(ino: Ino): OpenHandle[] {
		return [...this.#of(ino)]
			.filter(({ caller }) => caller.door !== "nfs")
			.map((handle) => ({ handle: handle.id, asker: handle.caller, access: accessBits(handle) }));
	}

	openCount(ino: Ino): number {
		const same = this.#byIno.get(ino);
		return same === undefined ? 0 : same instanceof Set ? same.size : 1;
	}

	/** The inode's flags were changed. */
	restrict(ino: Ino, restriction: number): void {
		for (const handle of this.#of(ino)) handle.restriction = restriction;
	}

	/** The first error stays: it is the one that explains the others. */
	fail(ino: Ino, error: FsError): void {
		for (const handle of this.#of(ino)) {
			if (!handle.write) continue;
			handle.error ??= error;
			if (isDurable(handle.id)) this.#onFail(handle.id);
			else this.#memory?.fail(handle.id);
		}
	}
}

const isDurable = (id: HandleId): boolean => id >= durableHandleBase;

export function accessBits({ read, write }: { readonly read: boolean; readonly write: boolean }): number {
	return (read ? share.read : 0) | (write ? share.write : 0);
}

function restored(
	{ id, ino, read, write, append, sync, failed, trusted, uid, gid }: FoundHandle,
	shared: (caller: Caller) => Caller,
): Handle {
	const message = "a write through this handle failed before its daemon was replaced: see the log of then";
	const error = failed ? new FsError("EIO", "volume.handle-failed-before", message, { handle: id }) : undefined;
	const opener: Caller = { uid, gid, groups: [], principal: undefined, door: "fuse", clientInstance: "resumed", share: undefined, trusted };
	const caller = shared(opener);
	// Unknown here: any flag makes each write look at the inode.
	return { id, ino, caller, read, write, append, sync, restriction: guardedFlags, error, nextRead: 0, jumps: 0 };
}
