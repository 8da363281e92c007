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
	 * `shards` has k+m places, undefined where lost; at least k are there. Returns the shards with the indexes in `wanted`
	 * (data or parity), newly allocated.
	 */
	reconstruct(shards: readonly (Uint8Array | undefined)[], wanted: readonly number[]): Uint8Array[];
}

/** codec/erasure.ts exports `createErasureCode(k, m): ErasureCode` (codes are cached per k, m); codec/checksum.ts exports `crc32c(bytes, seed = 0): number`. */
export type CreateErasureCode = (dataShards: number, parityShards: number) => ErasureCode;
export type Crc32c = (bytes: Uint8Array, seed?: number) => number;
