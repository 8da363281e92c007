/** Pure functions over bytes. No floor below base, no I/O. */

/**
 * Systematic Reed-Solomon over GF(2^8), Vandermonde-derived or Cauchy generator, polynomial 0x11d. 1 ≤ k ≤ 32, 1 ≤ m ≤ 8. Any k of the k+m
 * shards give the others back. All shards of one call have the same length, a multiple of 16.
 */
export interface ErasureCode {
	readonly dataShards: number;
	readonly parityShards: number;
	/** Fills `parity` (m buffers) from `data` (k buffers). */
	encode(data: readonly Uint8Array[], parity: readonly Uint8Array[]): void;
	/**
	 * Fills `targets`, the shards with the indexes `wanted`, from `sources`, the k shards with the indexes `present`; data or parity, in any order. `encode` and `reconstruct` are this.
	 */
	recover(present: readonly number[], sources: readonly Uint8Array[], wanted: readonly number[], targets: readonly Uint8Array[]): void;
	/**
	 * `shards` has k+m places, undefined where lost; at least k are there. Returns the shards with the indexes in `wanted`
	 * (data or parity), newly allocated.
	 */
	reconstruct(shards: readonly (Uint8Array | undefined)[], wanted: readonly number[]): Uint8Array[];
}

/** Shards to be made from others of the same segment, and their checksums. All shards have one length, a multiple of `blockBytes`. */
export interface ShardWork {
	readonly dataShards: number;
	readonly parityShards: number;
	/** Indexes of `sources`: dataShards of them, or any where nothing is wanted but checksums. */
	readonly present: readonly number[];
	readonly sources: readonly Uint8Array[];
	/** Indexes of `targets`. */
	readonly wanted: readonly number[];
	/** Filled; what was in them before does not matter. */
	readonly targets: readonly Uint8Array[];
	/** A multiple of 16. */
	readonly blockBytes: number;
	/** Whose checksums are wanted: the sources' and then the targets', or the targets' alone. */
	readonly sums: "all" | "targets";
}

/** codec/shard-work.ts exports `doShardWork(work): Uint32Array`: the checksums (CRC32C), shard after shard, block after block. */
export type DoShardWork = (work: ShardWork) => Uint32Array;
/** codec/erasure.ts exports `createErasureCode(k, m): ErasureCode` (codes are cached per k, m); codec/checksum.ts exports `crc32c(bytes, seed = 0): number`. */
export type CreateErasureCode = (dataShards: number, parityShards: number) => ErasureCode;
export type Crc32c = (bytes: Uint8Array, seed?: number) => number;
