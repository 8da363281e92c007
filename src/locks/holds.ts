/** Ranges of one owner: replaced, split and joined as fcntl(2) wants it, stacked and matched as SMB does. */
import type { Hold } from "./interface.ts";
import { familyOf, isExclusive, type LockFamily } from "./matrix.ts";
import { joined, overlaps, type Range, sameRange, without } from "./range.ts";
import { type LockState, observe, type Resource, setHolds } from "./state.ts";

function isOf(hold: Hold, owner: string, family: LockFamily): boolean {
	return hold.owner.id === owner && familyOf(hold.class) === family;
}

/** What `add` would add to the number of holds; less than 0 when it joins more than it splits. */
export function growthOfAdding(resource: Resource, hold: Hold): number {
	if (familyOf(hold.class) === "smb") return 1;
	return withHold(resource.holds, hold).length - resource.holds.length;
}

export function growthOfCarving(resource: Resource, owner: string, family: LockFamily, range: Range): number {
	return carved(resource.holds, owner, family, range).length - resource.holds.length;
}

function carved(holds: readonly Hold[], owner: string, family: LockFamily, range: Range): Hold[] {
	const left: Hold[] = [];
	for (const hold of holds) {
		if (!isOf(hold, owner, family) || !overlaps(hold.range, range)) left.push(hold);
		else for (const piece of without(hold.range, range)) left.push({ ...hold, range: piece });
	}
	return left;
}

/** The new one in the place of what it covers, made one with what it touches. */
function withHold(holds: readonly Hold[], hold: Hold): Hold[] {
	const family = familyOf(hold.class);
	const others: Hold[] = [];
	let { range, sinceMs } = hold;
	const same: Hold[] = [];
	for (const other of carved(holds, hold.owner.id, family, hold.range)) {
		if (isOf(other, hold.owner.id, family) && other.class === hold.class) same.push(other);
		else others.push(other);
	}
	// Those of one class do not touch each other, so two at the most touch the new one, however long it grows.
	for (const other of same) {
		const one = joined(range, other.range);
		if (one === undefined) others.push(other);
		else {
			range = one;
			sinceMs = Math.min(sinceMs, other.sinceMs);
		}
	}
	others.push({ ...hold, range, sinceMs });
	return others;
}

export function addHold(state: LockState, resource: Resource, hold: Hold): void {
	setHolds(state, resource, familyOf(hold.class) === "smb" ? [...resource.holds, hold] : withHold(resource.holds, hold));
}

/** Takes a range from an owner. False when there was nothing of it. */
export function carve(state: LockState, resource: Resource, owner: string, family: LockFamily, range: Range, nowMs: number): boolean {
	const touched = resource.holds.filter((hold) => isOf(hold, owner, family) && overlaps(hold.range, range));
	if (touched.length === 0) return false;
	setHolds(state, resource, carved(resource.holds, owner, family, range));
	for (const hold of touched) note(state, hold, nowMs);
	return true;
}

/** One lock of an SMB open, exactly as it was made; an exclusive one goes before a shared one of the same range. */
export function unstack(state: LockState, resource: Resource, owner: string, range: Range, nowMs: number): Hold | undefined {
	const matching = resource.holds.filter((hold) => isOf(hold, owner, "smb") && sameRange(hold.range, range));
	const gone = matching.find((hold) => isExclusive(hold.class)) ?? matching[0];
	if (gone !== undefined) removeHolds(state, resource, (hold) => hold === gone, nowMs);
	return gone;
}

/** All holds that `which` picks; they are answered. */
export function removeHolds(state: LockState, resource: Resource, which: (hold: Hold) => boolean, nowMs: number): readonly Hold[] {
	const gone = resource.holds.filter(which);
	if (gone.length === 0) return gone;
	setHolds(
		state,
		resource,
		resource.holds.filter((hold) => !which(hold)),
	);
	for (const hold of gone) note(state, hold, nowMs);
	return gone;
}

function note(state: LockState, hold: Hold, nowMs: number): void {
	const { released, holdMs } = state.counters;
	released.set(hold.class, (released.get(hold.class) ?? 0) + 1);
	observe(holdMs, Math.max(0, nowMs - hold.sinceMs));
}
