/** Who holds which lock, as a plain list: what the table of locks must say. An owner here is an open file, so what goes with a file goes with its owner. */
import { type Position, toEnd } from "../../src/locks/range.ts";

export interface ModelLock {
	readonly ino: number;
	readonly family: "fcntl" | "flock";
	/** 16 hexadecimal digits. */
	readonly owner: string;
	readonly exclusive: boolean;
	readonly start: number;
	/** Inclusive; Infinity: to the end. */
	readonly end: number;
}

type Place = Omit<ModelLock, "exclusive">;

const overlap = (a: Place, b: Place): boolean => a.start <= b.end && b.start <= a.end;
const sameOwner = (a: Place, b: Place): boolean => a.ino === b.ino && a.family === b.family && a.owner === b.owner;
const inTheWay = (a: ModelLock, b: ModelLock): boolean =>
	a.ino === b.ino && a.family === b.family && a.owner !== b.owner && overlap(a, b) && (a.exclusive || b.exclusive);

export class LockModel {
	#held: ModelLock[] = [];
	/** They have asked and were not answered. */
	readonly waiting = new Set<ModelLock>();

	/** Held by another, which forbids it. */
	conflict(lock: ModelLock): ModelLock | undefined {
		return this.#held.find((held) => inTheWay(lock, held));
	}

	/** Those who came before may be served first. */
	mayWait(lock: ModelLock): boolean {
		return this.conflict(lock) !== undefined || [...this.waiting].some((other) => inTheWay(lock, other));
	}

	holdsAnother(lock: ModelLock): boolean {
		return this.#held.some((held) => sameOwner(held, lock) && held.exclusive !== lock.exclusive);
	}

	set(lock: ModelLock): void {
		this.clear(lock);
		this.#held.push(lock);
	}

	clear(place: Place): void {
		this.#held = this.#held.flatMap((held) => {
			if (!sameOwner(held, place) || !overlap(held, place)) return [held];
			const left: ModelLock[] = [];
			if (held.start < place.start) left.push({ ...held, end: place.start - 1 });
			if (held.end > place.end) left.push({ ...held, start: place.end + 1 });
			return left;
		});
	}

	keepOwners(stays: (owner: string) => boolean): void {
		this.#held = this.#held.filter(({ owner }) => stays(owner));
	}

	text(): string {
		return lockText(this.#held);
	}
}

/** Neighbours are one; sorted. */
export function lockText(locks: readonly ModelLock[]): string {
	const merged: ModelLock[] = [];
	for (const lock of [...locks].sort((a, b) => a.start - b.start)) {
		const at = merged.findIndex((one) => sameOwner(one, lock) && one.exclusive === lock.exclusive && one.end + 1 >= lock.start);
		const one = merged[at];
		if (one === undefined) merged.push(lock);
		else merged[at] = { ...one, end: Math.max(one.end, lock.end) };
	}
	return merged
		.map(({ ino, family, owner, exclusive, start, end }) => `${ino} ${family} ${owner} ${exclusive ? "alone" : "shared"} ${start}-${end}`)
		.sort()
		.join(", ");
}

export function endOf(end: number): Position {
	return Number.isFinite(end) ? end : toEnd;
}

export function endFrom(end: Position): number {
	return end === toEnd ? Number.POSITIVE_INFINITY : Number(end);
}
