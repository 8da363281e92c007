/** Bounds of the codecs. */

/** Data shards of one segment: the kernel's memory is laid out for so many, and wider stripes make every repair read more disks. */
export const maximumDataShards = 32;

/** Parity shards of one segment: more losses at once than any layout here promises to survive. */
export const maximumParityShards = 8;

/**
 * Bytes of each shard that are worked on at once: 4+2 tiles of this size fit a second-level cache together with the tables, and half of them would take a fifth longer, as each is a copy of its own. Wide shapes have smaller
 * ones (`erasureSourceBytes`, `erasureTargetBytes`).
 */
export const erasureTileBytes = 16 * 1024;

/** Room for the tiles of all sources, and of all targets, in the kernel's memory: 8 KiB for each shard of the widest shape. */
export const erasureSourceBytes = maximumDataShards * 8192;
export const erasureTargetBytes = maximumParityShards * 8192;

/** Shorter inputs are summed in JavaScript: the call into native code costs more than the sum. */
export const checksumNativeFromBytes = 160;
