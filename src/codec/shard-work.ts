/** Shards of a segment and their checksums, whoever does it: the thread that wants them, or another one. */
import { assert } from "../base/assert.ts";
import { blockSums, crc32c } from "./checksum.ts";
import { createErasureCode } from "./erasure.ts";
import type { ShardWork } from "./interface.ts";

/** Makes the targets. Answers the CRC32C of each block, shard after shard. */
export function doShardWork(work: ShardWork): Uint32Array {
	const { dataShards, parityShards, present, sources, wanted, targets, blockBytes } = work;
	assert(present.length === sources.length && wanted.length === targets.length, "an index for every shard");
	const summed = summedShards(work);
	const blocks = (summed[0]?.length ?? 0) / blockBytes;
	assert(Number.isInteger(blocks), "shards of whole blocks");
	if (targets.length > 0) createErasureCode(dataShards, parityShards).recover(present, sources, wanted, targets);
	const sums = new Uint32Array(summed.length * blocks);
	for (const [at, shard] of summed.entries()) {
		assert(shard.length === blocks * blockBytes, "shards of one length");
		blockSums(shard, blockBytes, sums.subarray(at * blocks, (at + 1) * blocks));
	}
	return sums;
}

/** The shards whose checksums are wanted, in the order of these. */
export function summedShards({ sources, targets, sums }: Pick<ShardWork, "sources" | "targets" | "sums">): readonly Uint8Array[] {
	return sums === "all" ? [...sources, ...targets] : targets;
}

/**
 * Whether the checksums of a first parity are those that follow from its data's: it is their XOR, and a CRC of an XOR is the XOR of the CRCs, once more with that of zeros where the data are an even number. One that was
 * made from other bytes than were summed, or at another moment, does not pass. `tables`: of the data shards and the first parity, in this order.
 */
export function addsUp(tables: readonly Uint32Array[], blockBytes: number): boolean {
	const [first, ...others] = tables as [Uint32Array, ...Uint32Array[]];
	const start = tables.length % 2 === 1 ? crc32c(new Uint8Array(blockBytes)) : 0;
	for (let block = 0; block < first.length; block++) {
		let sum = start ^ (first[block] as number);
		for (const table of others) sum ^= table[block] as number;
		if (sum !== 0) return false;
	}
	return true;
}
