/**
 * An independent look at the metadata of a volume that nobody has open: every reference is counted again from the extent maps alone, and
 * compared with what the records say. Finds leaks (chunks or segments that nobody names), double counts, and work that was left undone.
 */
import assert from "node:assert/strict";
import { silentLogger } from "../../src/base/telemetry.ts";
import type { Engine } from "../../src/kv/interface.ts";
import { openLocalEngine } from "../../src/kv/local/engine.ts";
import { openDiskSet } from "../../src/log/disk-set.ts";
import type { Platform } from "../../src/platform/interface.ts";
import { type Ino, type RecordKind, reservedChunk, type Segment } from "../../src/records/interface.ts";
import {
	chunkRecord,
	extentBlockRecord,
	inodeRecord,
	intentRecord,
	keyNumber,
	pendingRecord,
	segmentRecord,
	volumeRecord,
} from "../../src/records/kinds.ts";
import { memoryNames } from "../../src/volume/native/memory-names.ts";

export interface Recounted {
	readonly inodes: number;
	readonly chunks: number;
	/** Chunks that more than one extent names. */
	readonly shared: number;
	readonly segments: number;
	/** Of all segments: what they hold, and how much of it lives. */
	readonly payloadBytes: number;
	readonly liveBytes: number;
	/** What segments were asked to be. */
	readonly targets: readonly string[];
	readonly reservedBytes: number;
	readonly intents: number;
}

type All = <Key extends readonly unknown[], Value>(kind: RecordKind<Key, Value>) => Promise<[key: string, value: Value][]>;

/** The volume was shut down cleanly. Sizes as it was opened with. */
export function recount(platform: Platform, paths: readonly string[], memory: { readonly logTailBytes: number }): Promise<Recounted> {
	return withEngine(platform, paths, memory, (engine) =>
		count(async (kind) => {
			const entries = await engine.range({ start: kind.tag, end: String.fromCharCode(kind.tag.charCodeAt(0) + 1), limit: 1_000_000 });
			return entries.map((entry) => [entry.key, kind.decode(entry.value, entry.key)]);
		}),
	);
}

/** The metadata of a volume that nobody has open, for reading and for damaging it. */
export async function withEngine<T>(
	platform: Platform,
	paths: readonly string[],
	memory: { readonly logTailBytes: number },
	use: (engine: Engine) => Promise<T>,
): Promise<T> {
	const modules = { platform, logger: silentLogger };
	const disks = await openDiskSet({ paths, acceptLoss: false }, modules);
	const name = memoryNames(disks.roster.volume).log;
	const tail = await platform.openMemory(name, memory.logTailBytes);
	const engine = await openLocalEngine({ acceptLoss: false }, { ...modules, disks, memory: tail });
	try {
		return await use(engine);
	} finally {
		await engine.close();
		await tail.close();
		await platform.removeMemory(name);
		await disks.close();
	}
}

async function count(all: All): Promise<Recounted> {
	const inodes = new Map((await all(inodeRecord)).map(([, inode]) => [inode.ino, inode]));
	const named = new Map<number, { references: number; bytes: number }>();
	const stored = new Map<Ino, number>();
	let reservedBytes = 0;
	for (const [key, block] of await all(extentBlockRecord)) {
		const inode = inodes.get(keyNumber(key));
		assert.ok(inode !== undefined, `a map block of inode ${keyNumber(key)}, which does not exist`);
		assert.equal(inode.inline, undefined, `inode ${inode.ino} has a map beside inline contents`);
		for (const extent of block.extents) {
			stored.set(inode.ino, (stored.get(inode.ino) ?? 0) + extent.length);
			if (extent.chunk === reservedChunk) {
				reservedBytes += extent.length;
				continue;
			}
			assert.ok(
				extent.offset + extent.length <= inode.size,
				`inode ${inode.ino} has ${inode.size} bytes, and data up to ${extent.offset + extent.length}`,
			);
			const so = named.get(extent.chunk) ?? { references: 0, bytes: 0 };
			named.set(extent.chunk, { references: so.references + 1, bytes: so.bytes + extent.length });
		}
	}
	for (const inode of inodes.values()) {
		const expected = inode.inline?.length ?? stored.get(inode.ino) ?? 0;
		if (inode.type === "file") assert.equal(inode.storedBytes, expected, `stored bytes of inode ${inode.ino}`);
	}
	const chunks = await all(chunkRecord);
	const segments = await all(segmentRecord);
	const byId = new Map(segments.map(([, segment]) => [segment.id, segment]));
	const live = new Map<number, number>();
	for (const [, chunk] of chunks) {
		const so = named.get(chunk.id);
		assert.deepEqual({ references: chunk.references, bytes: chunk.referencedBytes }, so, `references of chunk ${chunk.id}`);
		named.delete(chunk.id);
		const segment = byId.get(chunk.segment);
		assert.ok(segment !== undefined && chunk.offset + chunk.length <= segment.payloadBytes, `chunk ${chunk.id} lies outside its segment`);
		const isFound = segment.chunks.some(({ first, count: numbers }) => chunk.id >= first && chunk.id < first + numbers);
		assert.ok(isFound, `segment ${segment.id} does not know chunk ${chunk.id}`);
		live.set(chunk.segment, (live.get(chunk.segment) ?? 0) + Math.min(chunk.length, chunk.referencedBytes));
	}
	assert.deepEqual([...named.keys()], [], "extents name chunks that do not exist");
	for (const [, segment] of segments) {
		assert.equal(segment.liveBytes, live.get(segment.id), `live bytes of segment ${segment.id}`);
		live.delete(segment.id);
	}
	assert.deepEqual([...live.keys()], [], "chunks name segments that do not exist");
	noOverlaps([...byId.values()]);
	const volumes = (await all(volumeRecord)).map(([, volume]) => volume.reservedBytes);
	assert.deepEqual(volumes, [reservedBytes], "reserved bytes");
	for (const [, pending] of await all(pendingRecord))
		assert.ok(inodes.has(pending.ino), `pending bytes of inode ${pending.ino}, which does not exist`);
	const intents = (await all(intentRecord)).length;
	assert.equal(intents, 0, "work was left undone");
	const shared = chunks.filter(([, chunk]) => chunk.references > 1).length;
	const sum = (of: (segment: Segment) => number): number => segments.reduce((total, [, segment]) => total + of(segment), 0);
	return {
		inodes: inodes.size,
		chunks: chunks.length,
		shared,
		segments: segments.length,
		payloadBytes: sum((segment) => segment.payloadBytes),
		liveBytes: sum((segment) => segment.liveBytes),
		targets: [...new Set(segments.map(([, segment]) => segment.target))].sort(),
		reservedBytes,
		intents,
	};
}

/** No two fragments claim the same bytes of a disk. */
function noOverlaps(segments: readonly Segment[]): void {
	const places = segments.flatMap(({ id, shardBytes, fragments }) =>
		fragments.map(({ disk, pack, offset }) => ({ id, disk, pack, offset, end: offset + shardBytes })),
	);
	places.sort((a, b) => a.disk - b.disk || a.pack - b.pack || a.offset - b.offset);
	for (const [i, place] of places.entries()) {
		const next = places[i + 1];
		if (next === undefined || next.disk !== place.disk || next.pack !== place.pack) continue;
		assert.ok(next.offset >= place.end, `segments ${place.id} and ${next.id} overlap on d${place.disk}`);
	}
}
