/**
 * Admissions (architecture, section 6): doors do not test, they are admitted. Every volume operation takes one and gives it back; the commit compares its epoch. Where nothing is leased, denied or bound (PLAIN, nearly always)
 * an admission is an entry in a list that nobody looks at. Where something is, the lock core decides (`file-locks.ts`).
 *
 * Invariants
 *  A1 An admission is in the list from when it is given until it is released.
 *  A2 `epoch` only rises; an admission from an older epoch must not commit.
 *  A3 An inode is bound before the core is asked for anything that needs that: what is under way then is shown to the core (`underWay`), what comes later asks it.
 */
import { assert } from "../base/assert.ts";
import { FsError } from "../base/errors.ts";
import type { LockDoor } from "./interface.ts";
import { type IoClass, type LeaseEvent, share } from "./matrix.ts";
import type { Range } from "./range.ts";

/**
 * What an operation does to an inode. attributes: looks at it. look: looks up or lists names. names: changes them. write: bytes or size. remove: takes its name away, or gives it another.
 */
export type Access = "attributes" | "change-attributes" | "look" | "names" | "read" | "write" | "remove";

/** Who asks, as the lock core needs to know it. */
export interface Asker {
	/** What has no name here is a program of this machine. */
	readonly door: LockDoor | "control" | "test";
	/** Tells clients of one door apart; of NFS: its address. */
	readonly clientInstance: string;
	/** The caller's own cache is no reason to wait. */
	readonly leaseKey?: string;
	/** Its request, where it may give up waiting. */
	readonly call?: CallName | undefined;
}

/** A request of a door that its client may give up (`FileLocks.giveUp`): a number that is never used again. */
export interface CallName {
	readonly low: number;
	readonly high: number;
}

export function doorOf({ door }: Asker): LockDoor {
	return door === "control" || door === "test" ? "fuse" : door;
}

/** Where an operation wants to be let in. */
export interface Place {
	readonly ino: number;
	readonly access: Access;
	/** It comes through an open that was judged. */
	readonly opened?: boolean;
	/** The bytes, and the open that they are read or written through, for those whom ranges bind. */
	readonly range?: Range;
	readonly handle?: number;
}

interface Meaning {
	readonly event: LeaseEvent;
	/** Bits of `share` that opens may deny. */
	readonly share: number;
	readonly io: "read" | "write" | undefined;
}

const meanings: Readonly<Record<Access, Meaning>> = {
	attributes: { event: "attributes", share: 0, io: undefined },
	"change-attributes": { event: "change-attributes", share: 0, io: undefined },
	look: { event: "attributes", share: 0, io: undefined },
	names: { event: "names", share: 0, io: undefined },
	read: { event: "read", share: share.read, io: "read" },
	write: { event: "write", share: share.write, io: "write" },
	remove: { event: "lifecycle", share: share.delete, io: undefined },
};

/** An operation as the core judges it. */
export function operationOf(
	access: Access,
	{ door }: Asker,
	opened: boolean,
): { readonly event: LeaseEvent; readonly access: number; readonly io: IoClass | undefined } {
	const { event, share: bits, io } = meanings[access];
	// An object that is put takes the place of the one before: that is writing it.
	const more = door === "s3" && access === "remove" ? share.write : 0;
	const isBound = door === "smb" && io !== undefined;
	return { event, access: opened ? 0 : bits | more, io: isBound ? `bound-${io}` : io };
}

/** Ranges bind SMB's reads and writes (mandatory), and nobody else's. */
export function isBoundByRanges(access: Access, { door }: Asker): boolean {
	return door === "smb" && meanings[access].io !== undefined;
}

export class Admission {
	readonly ino: number;
	readonly access: Access;
	readonly asker: Asker;
	readonly opened: boolean;
	readonly epoch: number;
	/** By which the core knows it. */
	id: string | undefined;
	previous: Admission | undefined;
	next: Admission | undefined;
	readonly #table: AdmissionTable;
	#released = false;

	constructor(table: AdmissionTable, ino: number, access: Access, asker: Asker, opened: boolean, id: string | undefined) {
		this.#table = table;
		this.ino = ino;
		this.access = access;
		this.asker = asker;
		this.opened = opened;
		this.epoch = table.epoch;
		this.id = id;
		this.previous = undefined;
		this.next = undefined;
	}

	/** @throws FsError EAGAIN `locks.fenced` when the table's epoch has moved on: the operation must be admitted anew. */
	check(): void {
		assert(!this.#released, "admission used after its release");
		if (this.epoch === this.#table.epoch) return;
		const message = `admission to inode ${this.ino} is of epoch ${this.epoch}, now ${this.#table.epoch}`;
		throw new FsError("EAGAIN", "locks.fenced", message, { ino: this.ino });
	}

	release(): void {
		assert(!this.#released, "admission released twice");
		this.#released = true;
		this.#table.leave(this);
	}
}

export class AdmissionTable {
	#first: Admission | undefined;
	#total = 0;
	#epoch = 1;
	readonly #bound = new Set<number>();
	/** Tells the core that an operation which it knows has ended. */
	#onDone: (ino: number, id: string) => void = () => {};

	get epoch(): number {
		return this.#epoch;
	}

	/** Admissions out, over all inodes. */
	get total(): number {
		return this.#total;
	}

	/** Inodes that are not PLAIN. */
	get bound(): ReadonlySet<number> {
		return this.#bound;
	}

	onDone(fn: (ino: number, id: string) => void): void {
		this.#onDone = fn;
	}

	/** PLAIN: operations are let in unasked. */
	passes(ino: number): boolean {
		return this.#bound.size === 0 || !this.#bound.has(ino);
	}

	bind(ino: number): void {
		this.#bound.add(ino);
	}

	free(ino: number): void {
		this.#bound.delete(ino);
	}

	/** Where `passes`, or with the core's word under this id. */
	enter(ino: number, access: Access, asker: Asker, opened: boolean, id?: string): Admission {
		const admission = new Admission(this, ino, access, asker, opened, id);
		const first = this.#first;
		admission.next = first;
		if (first !== undefined) first.previous = admission;
		this.#first = admission;
		this.#total++;
		return admission;
	}

	leave(admission: Admission): void {
		const { previous, next, id, ino } = admission;
		if (previous === undefined) this.#first = next;
		else previous.next = next;
		if (next !== undefined) next.previous = previous;
		this.#total--;
		if (id !== undefined) this.#onDone(ino, id);
	}

	/** Operations on an inode that have not ended. */
	underWay(ino: number): readonly Admission[] {
		const found: Admission[] = [];
		for (let one = this.#first; one !== undefined; one = one.next) if (one.ino === ino) found.push(one);
		return found;
	}

	/** Everything admitted before may no longer commit. */
	raiseEpoch(): void {
		this.#epoch++;
	}
}
