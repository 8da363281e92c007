import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isFsError, isNewerFormat } from "../base/errors.ts";
import { Prng } from "../platform/sim/prng.ts";
import type { FragmentIdentity } from "./fragment.ts";
import {
	blockTable,
	decodeHeader,
	encodeHeader,
	firstBadBlock,
	fragmentLength,
	headerLength,
	identityMismatch,
	shardLength,
	splitPayload,
} from "./fragment.ts";

const seed = 20_261_121;

function identityOf(shardBytes: number, random: Prng): FragmentIdentity {
	return {
		volume: random.bytes(16),
		segment: 1 + random.below(2 ** 50),
		generation: 1 + random.below(2 ** 31),
		index: random.below(6),
		dataShards: 4,
		parityShards: 2,
		payloadBytes: 4 * shardBytes - random.below(4096),
		shardBytes,
	};
}

describe("fragment format", () => {
	it("has lengths that are whole blocks", () => {
		assert.deepEqual(
			[1, 4096, 4097, 16_384, 16_385].map((bytes) => shardLength(bytes, 4)),
			[4096, 4096, 4096, 4096, 8192],
		);
		// 64 bytes, 4 per block, 4 at the end: 1,007 blocks are the most that fit into the first 4 KiB.
		assert.deepEqual([4096, 1007 * 4096, 1008 * 4096, 64 * 1024 * 1024].map(headerLength), [4096, 4096, 8192, 69_632]);
		assert.equal(fragmentLength(524_288), 528_384);
	});

	it("comes back as it was written, and differs in its checksum for every difference", () => {
		const random = new Prng(seed, "fragment");
		const checksums = new Set<number>();
		for (const blocks of [1, 2, 1007, 1008, 3000]) {
			const shard = random.bytes(blocks * 4096);
			const identity = identityOf(shard.length, random);
			const { bytes, checksum } = encodeHeader(identity, blockTable(shard));
			assert.equal(bytes.length, headerLength(shard.length));
			const header = decodeHeader(bytes);
			assert.equal(identityMismatch(header, identity), undefined);
			assert.equal(header.checksum, checksum);
			assert.equal(firstBadBlock(header.table, 0, shard), -1);
			assert.equal(firstBadBlock(header.table, (blocks - 1) * 4096, shard.subarray((blocks - 1) * 4096)), -1);
			checksums.add(checksum);
			for (const change of [{ segment: 9 }, { generation: 9 }, { index: 5 - identity.index }, { volume: random.bytes(16) }]) {
				const other = encodeHeader({ ...identity, ...change }, blockTable(shard));
				checksums.add(other.checksum);
				assert.match(identityMismatch(decodeHeader(other.bytes), identity) as string, /volume|segment|generation|index/);
			}
		}
		assert.equal(checksums.size, 5 * 5, `seed ${seed}`);
	});

	it("finds every flipped bit of a header and of a block", () => {
		const random = new Prng(seed, "bits");
		const shard = random.bytes(3 * 4096);
		const { bytes } = encodeHeader(identityOf(shard.length, random), blockTable(shard));
		const table = blockTable(shard);
		for (let i = 0; i < 2000; i++) {
			const copy = bytes.slice();
			const at = random.below(copy.length);
			copy[at] = (copy[at] as number) ^ (1 << random.below(8));
			assert.throws(
				() => decodeHeader(copy),
				(error) => isFsError(error, "CORRUPT"),
				`seed ${seed}, byte ${at}`,
			);
			const payload = shard.slice();
			const place = random.below(payload.length);
			payload[place] = (payload[place] as number) ^ (1 << random.below(8));
			assert.equal(firstBadBlock(table, 0, payload), Math.floor(place / 4096), `seed ${seed}, byte ${place}`);
		}
	});

	it("survives any bytes, also with a right checksum behind them", () => {
		const random = new Prng(seed, "fuzz");
		const shard = random.bytes(4096);
		const { bytes } = encodeHeader(identityOf(shard.length, random), blockTable(shard));
		let decoded = 0;
		for (let i = 0; i < 3000; i++) {
			const mutant = i % 3 === 0 ? random.bytes(random.below(9000)) : bytes.slice(0, i % 3 === 1 ? 4096 : random.below(4097));
			for (let j = random.below(4); j > 0 && mutant.length > 0; j--) mutant[random.below(Math.min(80, mutant.length))] = random.below(256);
			if (i % 3 === 1) reseal(mutant);
			try {
				decodeHeader(mutant);
				decoded++;
			} catch (error) {
				assert.ok(isFsError(error, "CORRUPT") || isNewerFormat(error), `seed ${seed}, round ${i}: ${String(error)}`);
			}
		}
		assert.ok(decoded > 100, `${decoded} mutants were resealed into valid headers: the checksum is not all that is tested`);
	});

	it("splits a payload into equal shards that cover it", () => {
		const random = new Prng(seed, "split");
		for (const [length, k] of [
			[1, 1],
			[4096, 1],
			[20_480, 4],
			[16_385, 4],
			[100_000, 3],
			[5 * 4096, 32],
		] as const) {
			const payload = random.bytes(length);
			const shards = splitPayload(payload, k);
			assert.ok(shards.length === k && shards.every((shard) => shard.length === shardLength(length, k)));
			const joined = new Uint8Array(k * shardLength(length, k));
			for (const [i, shard] of shards.entries()) joined.set(shard, i * shardLength(length, k));
			assert.deepEqual(joined.subarray(0, length), payload);
			assert.ok(joined.subarray(length).every((byte) => byte === 0));
		}
	});
});

/** Puts the right checksum at the end. */
function reseal(bytes: Uint8Array): void {
	const checksum = crcOf(bytes.subarray(0, bytes.length - 4));
	new DataView(bytes.buffer, bytes.byteOffset).setUint32(bytes.length - 4, checksum, true);
}

/** CRC32C bit by bit: an independent second opinion. */
function crcOf(bytes: Uint8Array): number {
	let crc = ~0;
	for (const byte of bytes) {
		crc ^= byte;
		for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f6_3b78 : 0);
	}
	return ~crc >>> 0;
}
