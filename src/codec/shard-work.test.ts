import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { AssertionError } from "../base/assert.ts";
import { crc32cPortable } from "./checksum.ts";
import { createErasureCode } from "./erasure.ts";
import type { ShardWork } from "./interface.ts";
import { addsUp, doShardWork } from "./shard-work.ts";

const blockBytes = 4096;

function bytesOf(length: number, seed: number): Uint8Array {
	return Uint8Array.from({ length }, (_, i) => (i * (2 * seed + 1) + (i >> 7) * 13 + seed) & 255);
}

/** Encoding `blocks` blocks for each of k data shards. */
function encoding(k: number, m: number, blocks: number): ShardWork {
	const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
	return {
		dataShards: k,
		parityShards: m,
		present: range(0, k),
		sources: range(0, k).map((i) => bytesOf(blocks * blockBytes, i)),
		wanted: range(k, k + m),
		targets: range(0, m).map(() => new Uint8Array(blocks * blockBytes).fill(0xee)),
		blockBytes,
		sums: "all",
	};
}

function tablesOf(sums: Uint32Array, blocks: number): Uint32Array[] {
	return Array.from({ length: sums.length / blocks }, (_, at) => sums.slice(at * blocks, (at + 1) * blocks));
}

describe("work on shards", () => {
	for (const [k, m, blocks] of [
		[4, 2, 9],
		[2, 1, 1],
		[1, 2, 3],
		[8, 3, 5],
		[17, 2, 5],
		[32, 8, 3],
	] as const) {
		test(`${k}+${m}: parity, its checksums, and that both belong together`, () => {
			const work = encoding(k, m, blocks);
			const tables = tablesOf(doShardWork(work), blocks);
			const parity = work.targets.map((target) => new Uint8Array(target.length));
			createErasureCode(k, m).encode(work.sources, parity);
			assert.deepEqual(work.targets, parity);
			assert.equal(tables.length, k + m);
			for (const [at, shard] of [...work.sources, ...work.targets].entries()) {
				for (let i = 0; i < blocks; i++)
					assert.equal(tables[at]?.[i], crc32cPortable(shard.subarray(i * blockBytes, (i + 1) * blockBytes)), `block ${i} of shard ${at}`);
			}
			const checked = tables.slice(0, k + 1);
			assert.ok(addsUp(checked, blockBytes));
			for (let at = 0; at <= k; at++) {
				const other = checked.map((table) => table.slice());
				(other[at] as Uint32Array)[blocks - 1] = ((other[at] as Uint32Array)[blocks - 1] as number) ^ 1;
				assert.ok(!addsUp(other, blockBytes), `a wrong checksum in shard ${at}`);
			}
		});
	}

	test("shards are made from any others, also data from parity, and only these are summed", () => {
		const whole = encoding(4, 2, 5);
		const tables = tablesOf(doShardWork(whole), 5);
		const shards = [...whole.sources, ...whole.targets];
		for (const [present, wanted] of [
			[
				[0, 2, 4, 5],
				[1, 3],
			],
			[[5, 3, 1, 4], [0]],
			[
				[0, 1, 2, 3],
				[5, 4],
			],
			[[0, 1, 2, 3], [5]],
			[
				[1, 2, 3, 4],
				[0, 5],
			],
		] as const) {
			const targets = wanted.map(() => new Uint8Array(5 * blockBytes).fill(7));
			const work = { ...whole, present, sources: present.map((i) => shards[i] as Uint8Array), wanted, targets, sums: "targets" } as const;
			assert.deepEqual(
				tablesOf(doShardWork(work), 5),
				wanted.map((i) => tables[i]),
			);
			assert.deepEqual(
				targets,
				wanted.map((i) => shards[i]),
			);
		}
	});

	test("what cannot be right is refused", () => {
		const work = encoding(4, 2, 1);
		const short = new Uint8Array(blockBytes - 16);
		for (const wrong of [
			{ ...work, sources: work.sources.slice(1) },
			{ ...work, present: [0, 1, 2], sources: work.sources.slice(1) },
			{ ...work, present: [0, 1, 2, 2] },
			{ ...work, present: [0, 1, 2, 6] },
			{ ...work, wanted: [4] },
			{ ...work, targets: [short, short] },
			{ ...work, sources: [short, short, short, short], targets: [short, short] },
			{ ...work, wanted: [0, 4, 5], targets: [...work.targets, new Uint8Array(blockBytes)], present: [1, 2, 3, 4] },
		])
			assert.throws(() => doShardWork(wrong), AssertionError);
	});
});
