/** Bounds of the codecs. */

/** Data shards of one segment: the kernel's memory is laid out for so many, and wider stripes make every repair read more disks. */
export const maximumDataShards = 32;

/** Parity shards of one segment: more losses at once than any layout here promises to survive. */
export const maximumParityShards = 8;

/** Bytes of each shard that are worked on at once: 4+2 tiles of this size fit a second-level cache together with the tables. */
export const erasureTileBytes = 8192;

/** Shorter inputs are summed in JavaScript: the call into native code costs more than the sum. */
export const checksumNativeFromBytes = 160;
