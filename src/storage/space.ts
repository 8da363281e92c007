/** What fits: raw space of disks told as bytes of user data in one redundancy. Pure. */
import { fragmentLength, shardLength } from "./fragment.ts";
import type { Redundancy, StorageSpace } from "./interface.ts";
import { limits } from "./limits.ts";
import { domainCount, waterFill } from "./placement.ts";
import { feasibleShape, parseRedundancy, width } from "./redundancy.ts";

export interface DiskSpace {
	readonly id: number;
	readonly domain: string;
	/** Its free space can be used now. */
	readonly writable: boolean;
	readonly capacityBytes: number;
	/** Taken by fragments. */
	readonly usedBytes: number;
	/** For data: without what is reserved. */
	readonly freeBytes: number;
}

/** User bytes per raw byte of one fragment, headers counted. */
function payloadShare(shape: Redundancy): number {
	const shard = shardLength(limits.nominalPayloadBytes, shape.dataShards);
	return shard / fragmentLength(shard);
}

/**
 * capacity = used + free. `used` is what fragments take, on disks that are gone too (their records still count them), divided by what the
 * default redundancy takes for a
 * byte; so it does not jump when a disk is lost. `free` is what still fits on distinct domains of disks that can be written.
 */
export function storageSpace(redundancy: string, disks: readonly DiskSpace[]): StorageSpace {
	const target = parseRedundancy(redundancy);
	const writable = disks.filter((disk) => disk.writable);
	const usual = feasibleShape(target, domainCount(disks));
	const now = feasibleShape(target, domainCount(writable));
	let raw = 0;
	for (const disk of disks) raw += disk.usedBytes;
	const usedBytes = usual ? Math.ceil((raw / width(usual)) * usual.dataShards * payloadShare(usual)) : 0;
	const freeBytes = now ? Math.floor(waterFill(freeByDomain(writable), width(now)) * now.dataShards * payloadShare(now)) : 0;
	const level = now ? Math.floor(levelFree(writable, width(now)) * now.dataShards * payloadShare(now)) : 0;
	const shown = disks.map(({ id, capacityBytes, usedBytes: used, freeBytes: free }) => ({
		id,
		capacityBytes,
		usedBytes: used,
		freeBytes: free,
	}));
	return { capacityBytes: usedBytes + freeBytes, usedBytes, freeBytes, levelFreeBytes: Math.max(freeBytes, level), disks: shown };
}

/** How long shards could still be, if what is there were moved as needed. */
function levelFree(disks: readonly DiskSpace[], width: number): number {
	const whole = new Map<string, number>();
	let used = 0;
	for (const { domain, freeBytes, usedBytes } of disks) {
		whole.set(domain, (whole.get(domain) ?? 0) + freeBytes + usedBytes);
		used += usedBytes;
	}
	return waterFill([...whole.values()], width) - used / width;
}

/**
 * The disks without one of them, what it holds laid onto the others that can be written, emptiest first. Undefined: they have no room for it. An estimate: which
 * fragments may lie together is not looked at.
 */
export function withoutDisk(disks: readonly DiskSpace[], id: number): DiskSpace[] | undefined {
	const moving = disks.find((disk) => disk.id === id)?.usedBytes ?? 0;
	const left = disks.filter((disk) => disk.id !== id);
	const level = levelAfter(
		left.filter((disk) => disk.writable).map((disk) => disk.freeBytes),
		moving,
	);
	if (level === undefined) return undefined;
	return left.map((disk) => {
		const taken = disk.writable ? Math.max(0, disk.freeBytes - level) : 0;
		return { ...disk, freeBytes: disk.freeBytes - taken, usedBytes: disk.usedBytes + taken };
	});
}

/** What the emptiest have left when `bytes` have been put on them so that they come down together. */
function levelAfter(free: readonly number[], bytes: number): number | undefined {
	if (bytes === 0) return Number.POSITIVE_INFINITY;
	const sorted = [...free].sort((a, b) => b - a);
	let sum = 0;
	for (const [at, one] of sorted.entries()) {
		sum += one;
		const level = (sum - bytes) / (at + 1);
		if (level >= (sorted[at + 1] ?? 0)) return level;
	}
	return undefined;
}

function freeByDomain(disks: readonly DiskSpace[]): number[] {
	const sums = new Map<string, number>();
	for (const { domain, freeBytes } of disks) sums.set(domain, (sums.get(domain) ?? 0) + freeBytes);
	return [...sums.values()];
}
