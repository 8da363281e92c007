/**
 * Verified reads of fragments. Every byte that comes out of here matched the checksum that the segment's record vouches for, and the header
 * said that it is this
 * fragment of this segment in this generation: stale and misdirected bytes are damage like any other.
 */
import { assert, AssertionError } from "../base/assert.ts";
import { LruCache } from "../base/bounded.ts";
import { alignUp } from "../base/bytes.ts";
import { FsError, isFsError, toFsError } from "../base/errors.ts";
import type { Borrowed, Disk } from "../platform/interface.ts";
import type { FragmentPlace, Segment } from "../records/interface.ts";
import { decodeHeader, firstBadBlock, fragmentLength, headerLength, identityMismatch } from "./fragment.ts";
import type { FragmentHeader } from "./fragment.ts";
import type { SegmentStore } from "./interface.ts";
import { blockBytes, limits } from "./limits.ts";
import type { DiskPacks, PackModules } from "./pack.ts";

export interface FragmentReaderModules extends PackModules {
	readonly packs: (disk: number) => DiskPacks;
	readonly counters: SegmentStore["counters"];
	/** Told once per fragment and damage, and for every segment that could not be read as its record says. */
	readonly onDamage: (segment: number) => void;
}

function fragmentKey(segment: Segment, place: FragmentPlace): string {
	return keyOf(segment.id, place);
}

function keyOf(segment: number, place: FragmentPlace): string {
	return `${segment}.${place.index}.${place.generation}.${place.headerChecksum}`;
}

export function describePlace(segment: Segment, place: FragmentPlace): string {
	return `fragment ${place.index} of segment ${segment.id} on d${place.disk} (pack ${place.pack}, offset ${place.offset})`;
}

export class FragmentReader {
	#volume: Uint8Array;
	#modules: FragmentReaderModules;
	/** Checksum tables of fragments whose header was found right, or which were written by this process. */
	#tables = new LruCache<string, Uint32Array>(limits.headerCacheBytes);
	/** Fragments whose damage was counted: reading the same bad block often does not make a bad disk. Oldest out first. */
	#known = new Set<string>();

	constructor(volume: Uint8Array, modules: FragmentReaderModules) {
		this.#volume = volume;
		this.#modules = modules;
	}

	/**
	 * Bytes [from, to) of the shard, both multiples of 4 KiB; to be released. Errors are reported and counted while `live()`.
	 * @throws FsError CORRUPT (damage), ENODEV (disk gone), or what the disk said.
	 */
	async read(segment: Segment, place: FragmentPlace, from: number, to: number, live: () => boolean): Promise<Borrowed> {
		const disk = this.#modules.disks.readable(place.disk);
		if (!disk) throw new FsError("ENODEV", "storage.disk-gone", `${describePlace(segment, place)} cannot be read: the disk is not there`);
		try {
			const bytes = await this.#read(disk, segment, place, from, to);
			this.#modules.counters.fragmentsRead++;
			return bytes;
		} catch (error) {
			throw await this.#judge(disk, segment, place, error, live);
		}
	}

	/** Damage was found in it and not disproved since. */
	isDamaged(segment: Segment, place: FragmentPlace): boolean {
		return this.#known.has(fragmentKey(segment, place));
	}

	/** Header and all blocks from a file that still has its name on a disk that is still there, nothing from memory, not the host's either. @throws as `read`. */
	async verify(segment: Segment, place: FragmentPlace): Promise<void> {
		const key = fragmentKey(segment, place);
		this.#tables.delete(key);
		const disk = this.#modules.disks.readable(place.disk);
		await disk?.probe().catch((error: unknown) => {
			this.#modules.disks.report(place.disk, error, isFsError(error, "ETIMEDOUT") ? "timeout" : "read");
		});
		const packs = this.#modules.packs(place.disk);
		packs.closeIdle(place.pack);
		if (disk) await packs.uncache(disk, place.pack, place.offset, fragmentLength(segment.shardBytes));
		for (let from = 0; from < segment.shardBytes; from += limits.readBytes) {
			(await this.read(segment, place, from, Math.min(from + limits.readBytes, segment.shardBytes), () => true)).release();
		}
		this.#known.delete(key);
	}

	/** The whole shard; to be released. @throws as `read`. */
	async shard(segment: Segment, place: FragmentPlace, live: () => boolean): Promise<Borrowed> {
		if (segment.shardBytes <= limits.readBytes) return await this.read(segment, place, 0, segment.shardBytes, live);
		const all = new Uint8Array(segment.shardBytes);
		for (let from = 0; from < all.length; from += limits.readBytes) {
			const piece = await this.read(segment, place, from, Math.min(from + limits.readBytes, all.length), live);
			all.set(piece.bytes, from);
			piece.release();
		}
		return { bytes: all, release: () => {} };
	}

	async #read(disk: Disk, segment: Segment, place: FragmentPlace, from: number, to: number): Promise<Borrowed> {
		const key = fragmentKey(segment, place);
		const headerBytes = headerLength(segment.shardBytes);
		const packs = this.#modules.packs(place.disk);
		const read = (at: number, length: number, sumBlockBytes?: number) =>
			packs.borrow(disk, place.pack, place.offset + at, length, sumBlockBytes);
		const sumBlockBytes = to - from >= limits.sumsFromBytes ? blockBytes : undefined;
		const table = this.#tables.get(key);
		if (table) {
			const lent = await read(headerBytes + from, to - from, sumBlockBytes);
			return releasing([lent], () => checked(segment, place, table, from, to, lent));
		}
		if (headerBytes + to <= limits.joinedReadBytes) {
			const lent = await read(0, headerBytes + to);
			return releasing([lent], () => {
				const found = this.#header(segment, place, lent.bytes.subarray(0, headerBytes)).table;
				this.#keep(key, found);
				return checked(segment, place, found, from, to, lent, headerBytes + from);
			});
		}
		const [head, payload] = await bothLent(read(0, headerBytes), read(headerBytes + from, to - from, sumBlockBytes));
		return releasing([head, payload], () => {
			const found = this.#header(segment, place, head.bytes).table;
			this.#keep(key, found);
			const right = checked(segment, place, found, from, to, payload);
			head.release();
			return right;
		});
	}

	/** What was written by this process, and is durable, need not be read to be known: bytes that match this table are the right ones. */
	remember(segment: number, place: FragmentPlace, table: Uint32Array): void {
		this.#keep(keyOf(segment, place), table);
	}

	#keep(key: string, table: Uint32Array): void {
		this.#tables.set(key, table, table.byteLength + limits.windowOverheadBytes);
	}

	#header(segment: Segment, place: FragmentPlace, bytes: Uint8Array): FragmentHeader {
		let header: FragmentHeader;
		try {
			header = decodeHeader(bytes);
		} catch (error) {
			throw damage(segment, place, toFsError(error, "storage.fragment-header").message, error);
		}
		const { id, dataShards, parityShards, payloadBytes, shardBytes } = segment;
		const { index, generation } = place;
		const expected = { volume: this.#volume, segment: id, index, generation, dataShards, parityShards, payloadBytes, shardBytes };
		if (this.#modules.platform.simulation?.planted("wrong-fragment-accepted")) return header;
		const mismatch = identityMismatch(header, expected);
		if (mismatch) throw damage(segment, place, `other data lies there: ${mismatch}`);
		if (header.checksum !== place.headerChecksum) throw damage(segment, place, "its header is not the one that was recorded");
		return header;
	}

	/** Says what an error means and to whom it matters; returns what to throw. */
	async #judge(disk: Disk, segment: Segment, place: FragmentPlace, error: unknown, live: () => boolean): Promise<FsError> {
		const { disks } = this.#modules;
		if (error instanceof AssertionError) throw error;
		if (isFsError(error, "CORRUPT")) return this.#damaged(segment, place, error, live);
		if (isFsError(error, "ENOENT")) {
			// Either the pack is lost or the whole disk is.
			const gone = await disk.probe().then(
				() => undefined,
				(reason: unknown) => toFsError(reason, "storage.probe"),
			);
			if (!gone) return this.#damaged(segment, place, damage(segment, place, "its pack is not there", error), live);
			disks.report(place.disk, gone, "read");
			return gone;
		}
		const failure = toFsError(error, "storage.read");
		const late = !live() && failure.code !== "ETIMEDOUT" && failure.code !== "ENODEV";
		if (!late) {
			disks.report(place.disk, failure, failure.code === "ETIMEDOUT" ? "timeout" : "read");
			this.#modules.onDamage(segment.id);
		}
		return failure;
	}

	#damaged(segment: Segment, place: FragmentPlace, error: FsError, live: () => boolean): FsError {
		if (!live()) return error;
		this.#modules.onDamage(segment.id);
		const key = fragmentKey(segment, place);
		if (this.#known.has(key)) return error;
		this.#known.add(key);
		if (this.#known.size > limits.maxDamaged) this.#known.delete(this.#known.values().next().value as string);
		this.#modules.counters.corruptFragments++;
		this.#modules.logger.warn("a fragment is damaged", { disk: place.disk, segment: segment.id, index: place.index, why: error.message });
		this.#modules.disks.report(place.disk, error, "corrupt");
		return error;
	}
}

/** The bytes [from, to) of the shard, which lie in `lent` from `skip` on. @throws FsError CORRUPT when they are not right; they stay lent. */
function checked(segment: Segment, place: FragmentPlace, table: Uint32Array, from: number, to: number, lent: Borrowed, skip = 0): Borrowed {
	const bytes = lent.bytes.subarray(skip);
	assert(skip === 0 || lent.sums === undefined, "checksums begin where the bytes do");
	if (bytes.length !== to - from) throw damage(segment, place, `the pack ends ${to - from - bytes.length} bytes too early`);
	const bad = firstBadBlock(table, from, bytes, lent.sums);
	if (bad >= 0) throw damage(segment, place, `block ${bad} does not match its checksum`);
	return { bytes, release: () => lent.release() };
}

/** Both, or none of them is kept. */
async function bothLent(first: Promise<Borrowed>, second: Promise<Borrowed>): Promise<[Borrowed, Borrowed]> {
	const [one, other] = await Promise.allSettled([first, second]);
	if (one.status === "fulfilled" && other.status === "fulfilled") return [one.value, other.value];
	for (const end of [one, other]) if (end.status === "fulfilled") end.value.release();
	throw one.status === "rejected" ? one.reason : (other as PromiseRejectedResult).reason;
}

/** What is lent is given back when `fn` throws. */
function releasing<T>(lent: readonly Borrowed[], fn: () => T): T {
	try {
		return fn();
	} catch (error) {
		for (const one of lent) one.release();
		throw error;
	}
}

function damage(segment: Segment, place: FragmentPlace, why: string, cause?: unknown): FsError {
	const data = { segment: segment.id, index: place.index, disk: place.disk };
	return new FsError("CORRUPT", "storage.damaged", `${describePlace(segment, place)} is damaged: ${why}`, data, cause);
}

/** Where the shard's payload ends, rounded up to a block: what follows is padding, which no reader of the payload needs. */
export function usedShardBytes(segment: Segment, index: number): number {
	const rest = Math.max(0, segment.payloadBytes - index * segment.shardBytes);
	return Math.min(segment.shardBytes, alignUp(rest, blockBytes));
}
