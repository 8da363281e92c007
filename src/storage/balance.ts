/**
 * How full each disk would be if all had the same free space left, as far as segments allow it, and which single move comes nearer to that. Pure.
 *
 * Free bytes are made even, not percentages: that is what new data goes by (`chooseDisks`), and where the most of it fits (`waterFill`).
 *
 * Invariants
 *  N1 With fixed targets each move lowers Σ surplus² by at least 2 × length²: there is an end to it, and nothing moves back.
 *  N2 No disk is to get more than one fragment of each segment.
 */
import type { FragmentPlace } from "../records/interface.ts";
import type { DiskSpace } from "./space.ts";

/** One disk that takes part. */
export interface DiskTarget {
	readonly id: number;
	readonly usedBytes: number;
	readonly freeBytes: number;
	readonly targetBytes: number;
}

/** `mostBytes`: what one disk can hold at the most, one fragment of each segment. Disks that cannot be written take no part. */
export function balanceTargets(disks: readonly DiskSpace[], mostBytes: number): DiskTarget[] {
	const members = disks.filter((disk) => disk.writable);
	const sizeOf = ({ usedBytes, freeBytes }: DiskSpace): number => usedBytes + freeBytes;
	const used = members.reduce((sum, disk) => sum + disk.usedBytes, 0);
	// What is just being written or given back is counted as used, and in no record.
	const mostOn = ({ usedBytes }: DiskSpace): number => Math.max(mostBytes, usedBytes);
	const heldAt = (freeBytes: number): number[] => members.map((disk) => Math.max(0, Math.min(mostOn(disk), sizeOf(disk) - freeBytes)));
	let low = -Math.max(0, ...members.map(mostOn)) - 1;
	let high = Math.max(0, ...members.map(sizeOf));
	while (high - low > 1) {
		const middle = Math.floor((low + high) / 2);
		const held = heldAt(middle).reduce((sum, bytes) => sum + bytes, 0);
		if (held >= used) low = middle;
		else high = middle;
	}
	const held = heldAt(low);
	return members.map(({ id, usedBytes, freeBytes }, at) => ({ id, usedBytes, freeBytes, targetBytes: held[at] as number }));
}

/** The bytes that have to move. */
export function unevenBytes(targets: readonly DiskTarget[]): number {
	return targets.reduce((sum, { usedBytes, targetBytes }) => sum + Math.max(0, usedBytes - targetBytes), 0);
}

/** The bytes that move until no disk is further from its target than `toleranceOf(its size)`. */
export function toleratedBytes(targets: readonly DiskTarget[], toleranceOf: (sizeBytes: number) => number): number {
	let above = 0;
	let below = 0;
	for (const { usedBytes, freeBytes, targetBytes } of targets) {
		const tooFar = Math.max(0, Math.abs(usedBytes - targetBytes) - toleranceOf(usedBytes + freeBytes));
		if (usedBytes > targetBytes) above += tooFar;
		else below += tooFar;
	}
	return Math.max(above, below);
}

export interface FragmentMove {
	readonly index: number;
	readonly from: number;
	readonly to: number;
}

export interface MoveOptions {
	readonly lengthBytes: number;
	/** Bytes that a disk holds beyond its target; negative: could take. Disks that take no part are not in it. */
	readonly surplus: ReadonlyMap<number, number>;
	readonly domainOf: (disk: number) => string;
	/**
	 * Undefined: only from disks that have too much to disks that have too little, the fewest bytes. Otherwise any move between disks that differ by more than this: where no segment on the one may have a
	 * fragment on the other, bytes go by way of a third.
	 */
	readonly detourBytes?: number | undefined;
}

/** The move of one fragment of a segment that helps most; undefined: none does. */
export function bestMove(
	places: readonly FragmentPlace[],
	{ lengthBytes, surplus, domainOf, detourBytes }: MoveOptions,
): FragmentMove | undefined {
	const domains = new Set(places.map(({ disk }) => domainOf(disk)));
	let from: FragmentPlace | undefined;
	let most = Number.NEGATIVE_INFINITY;
	for (const place of places) {
		const has = surplus.get(place.disk) ?? Number.NEGATIVE_INFINITY;
		if (has > most) [from, most] = [place, has];
	}
	if (from === undefined) return undefined;
	const own = domainOf(from.disk);
	let to: number | undefined;
	let least = Number.POSITIVE_INFINITY;
	for (const [disk, has] of surplus) {
		const domain = domainOf(disk);
		if (has >= least || disk === from.disk || (domain !== own && domains.has(domain))) continue;
		[to, least] = [disk, has];
	}
	if (to === undefined) return undefined;
	const helps =
		detourBytes === undefined ? most >= lengthBytes && -least >= lengthBytes : most - least >= Math.max(2 * lengthBytes, detourBytes);
	return helps ? { index: from.index, from: from.disk, to } : undefined;
}
