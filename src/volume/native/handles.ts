/**
 * Open files. Errors are sticky: a handle that was told of a failed seal or sync reports it at fsync and close (architecture, rule 5).
 *
 * Invariant: `openCount(ino)` = number of handles of the inode; the caller reaps an orphan when it becomes 0.
 */
import { FsError } from "../../base/errors.ts";
import type { ReadPattern } from "../../storage/interface.ts";
import type { Caller, HandleId, Ino } from "../interface.ts";
import { limits } from "./limits.ts";

export interface Handle {
	readonly id: HandleId;
	readonly ino: Ino;
	readonly caller: Caller;
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
	readonly #handles = new Map<HandleId, Handle>();
	readonly #byIno = new Map<Ino, Set<Handle>>();
	#next = 1;

	get size(): number {
		return this.#handles.size;
	}

	/** @throws FsError EMFILE. */
	add(handle: Omit<Handle, "id" | "error" | "nextRead" | "jumps">): Handle {
		if (this.#handles.size >= limits.handles) {
			throw new FsError("EMFILE", "volume.handles", `${limits.handles} files are open on this volume already; close some`);
		}
		const added: Handle = { ...handle, id: this.#next++, error: undefined, nextRead: 0, jumps: 0 };
		this.#handles.set(added.id, added);
		const same = this.#byIno.get(added.ino);
		if (same === undefined) this.#byIno.set(added.ino, new Set([added]));
		else same.add(added);
		return added;
	}

	/** @throws FsError EBADF. */
	get(id: HandleId): Handle {
		const handle = this.#handles.get(id);
		if (handle === undefined) throw new FsError("EBADF", "volume.handle", `handle ${id} is not open`, { handle: id });
		return handle;
	}

	remove(id: HandleId): Handle {
		const handle = this.get(id);
		this.#handles.delete(id);
		const same = this.#byIno.get(handle.ino);
		same?.delete(handle);
		if (same?.size === 0) this.#byIno.delete(handle.ino);
		return handle;
	}

	openCount(ino: Ino): number {
		return this.#byIno.get(ino)?.size ?? 0;
	}

	/** The inode's flags were changed. */
	restrict(ino: Ino, restriction: number): void {
		for (const handle of this.#byIno.get(ino) ?? []) handle.restriction = restriction;
	}

	/** The first error stays: it is the one that explains the others. */
	fail(ino: Ino, error: FsError): void {
		for (const handle of this.#byIno.get(ino) ?? []) if (handle.write) handle.error ??= error;
	}
}
