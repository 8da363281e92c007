/**
 * Admissions (architecture, section 6): doors do not test, they are admitted. Every volume operation takes one and gives it back; the commit compares its epoch.
 * With no lock state an admission is a counter; the lock core will decide here who waits.
 *
 * Invariants
 *  A1 An inode has an entry exactly while somebody is admitted to it.
 *  A2 `epoch` only rises; an admission from an older epoch must not commit.
 */
import { assert } from "../base/assert.ts";
import { FsError } from "../base/errors.ts";

export type Access = "attributes" | "names" | "read" | "write" | "lifecycle";

export interface Admission {
	readonly ino: number;
	readonly epoch: number;
	/** @throws FsError EAGAIN `locks.fenced` when the table's epoch has moved on: the operation must be admitted anew. */
	check(): void;
	release(): void;
}

export class AdmissionTable {
	#counts = new Map<number, number>();
	#epoch = 1;

	get epoch(): number {
		return this.#epoch;
	}

	admitted(ino: number): number {
		return this.#counts.get(ino) ?? 0;
	}

	/** Admissions out, over all inodes. */
	get total(): number {
		let total = 0;
		for (const count of this.#counts.values()) total += count;
		return total;
	}

	admit(ino: number, _access: Access): Admission {
		this.#counts.set(ino, this.admitted(ino) + 1);
		const epoch = this.#epoch;
		let released = false;
		return {
			ino,
			epoch,
			check: () => {
				assert(!released, "admission used after its release");
				if (epoch !== this.#epoch)
					throw new FsError("EAGAIN", "locks.fenced", `admission to inode ${ino} is of epoch ${epoch}, now ${this.#epoch}`, { ino });
			},
			release: () => {
				assert(!released, "admission released twice");
				released = true;
				const count = this.admitted(ino) - 1;
				if (count === 0) this.#counts.delete(ino);
				else this.#counts.set(ino, count);
			},
		};
	}

	/** For an operation that begins and ends in one step: nobody could see its entry. False: it may have to wait, and is to be admitted. */
	passes(_ino: number, _access: Access): boolean {
		return true;
	}

	/** Everything admitted before may no longer commit. */
	raiseEpoch(): void {
		this.#epoch++;
	}
}
