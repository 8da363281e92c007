/** Bounds of the namespace. */

/** As XFS and ext4 say it: enough for hard-link backups, small enough that a count never wraps anywhere. */
export const maximumLinks = 65_000;
/** A directory's nlink is 2 + its subdirectories in 32 bits; doors that show 32-bit signed counts must not see it negative. */
export const maximumDirectoryLinks = 0x7fff_ffff;
/** listxattr(2) returns 64 KiB at the most, NULs included; the names of the two access lists (51 bytes) are kept free: what can be set can be listed. */
export const maximumXattrNameBytes = 65_536 - 64;
/** Values of one inode together: a list of the names reads them all. */
export const maximumXattrValueBytes = 16 * 1024 * 1024;
/** Steps of the walk upwards that guards a directory's move. Paths have at most 4,096 bytes; trees built with relative names may be deeper. */
export const maximumDepth = 65_536;
/** Entries of one readdir: 64 Ki records are far more than a reply holds. */
export const maximumReaddir = 65_536;
