/**
 * Open files. Errors are sticky: a handle that was told of a failed seal or sync reports it at fsync and close (architecture, rule 5).
 *
 * Invariant: `openCount(ino)` = number of handles of the inode; the caller reaps an orphan when it becomes 0.
 */
import { FsError } from "../../base/errors.ts";
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
	error: FsError | undefined;
}

export class HandleTable {
	readonly #handles = new Map<HandleId, Handle>();
	readonly #byIno = new Map<Ino, Set<Handle>>();
	#next = 1;

	get size(): number {
		return this.#handles.size;
	}

	/** @throws FsError EMFILE. */
	add(handle: Omit<Handle, "id" | "error">): Handle {
		if (this.#handles.size >= limits.handles) {
			throw new FsError("EMFILE", "volume.handles", `${limits.handles} files are open on this volume already; close some`);
		}
		const added: Handle = { ...handle, id: this.#next++, error: undefined };
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

	/** The first error stays: it is the one that explains the others. */
	fail(ino: Ino, error: FsError): void {
		for (const handle of this.#byIno.get(ino) ?? []) if (handle.write) handle.error ??= error;
	}
}
