/** Bounds of records: what encoders assert and decoders refuse. */

/** NAME_MAX of Linux, in bytes. */
export const maximumNameBytes = 255;
/** PATH_MAX of Linux without the final NUL: no longer target can be followed. */
export const maximumTargetBytes = 4095;
/** Inline contents and symlink targets share the field; contents are held below this by the volume (2,048). */
export const maximumInlineBytes = 4096;
/** XATTR_SIZE_MAX of Linux. */
export const maximumXattrBytes = 65_536;
/** Entries of an access list, the four or three unnamed ones included: the kernel reads a list from FUSE into one page of 4 KiB (4 bytes, then 8 for each). */
export const maximumAccessEntries = 511;
/** Groups are 12 bits of an inode number, so that group and counter together stay exact in a double. */
export const maximumGroups = 4096;
/** 41 bits: two thousand billion inodes in a group, more than can be made at a million a second in 25 days times the 4,096 groups. */
export const inoCountersPerGroup = 0x200_0000_0000;
/** An extent map block splits beyond this; 1,024 extents encode to 20 KiB, a twentieth of a commit. */
export const maximumExtentsPerBlock = 1024;
/** A block of this span cannot have more extents than bytes, so that splitting always ends below the bound. */
export const minimumSpan = 1024;
export const maximumSpan = 64 * 1024 * 1024;
/** k ≤ 32 data shards and m ≤ 8 parity shards or further copies (codec/interface.ts). */
export const maximumDataShards = 32;
export const maximumParityShards = 8;
/** A new segment has one range of chunk numbers or two; one that was compacted from others has theirs, the nearest ones joined. The record is rewritten with every death of a chunk: it stays small. */
export const maximumChunkRanges = 64;
/** "rs:32+8", "replicate:9": room to spare for future names of schemes. */
export const maximumTargetTextBytes = 64;
/** Proofs are kept together: one record for 128 MiB of usual segments, 5 KiB with six fragments each, 33 KiB with the most there can be. */
export const segmentsPerProofGroup = 64;
/** A disk that flaps all day leaves the last of it; the record stays below 10 KiB. */
export const maximumHistoryEntries = 32;
export const maximumHistoryReasonBytes = 256;
/** Nobody wants a healer that rests for a hundred days after one of work. */
export const maximumTranquility = 100;
/** A pending record must fit a commit (512 KiB) together with the inode and the head. */
export const maximumPendingBytes = 384 * 1024;
/** Pieces in it: as many scattered writes as are under way at once share one record. */
export const maximumPendingPieces = 256;
/** Distinct protections that files of one volume ask for; they sit in the one volume record. */
export const maximumProtections = 1024;

/** Numbers that one transaction on the volume record hands out. Each mount loses what is left of the blocks it holds: at most two of each counter. */
export const numberBlock = 4096;
/** Refilled below this many left: more than all operations between two calls of `ensure` take. */
export const numberLowWater = 1024;
/** Parts of one volume that are exported, and ranges of clients of each: every call looks through them. */
export const maximumExports = 128;
export const maximumExportClients = 64;
/** "2001:db8:1234:5678:9abc:def0:1234:5678/128" and room to spare. */
export const maximumClientTextBytes = 64;
/** Clients that may hold locks: each may have thousands of them, and all are told of a restart. */
export const maximumLockClients = 1024;
/** Names of hosts (RFC 1035), which is what clients call themselves. */
export const maximumHostNameBytes = 255;
/** Ranges of one client in one file: the bound of the lock table for a file, which unlocks may double. A record stays below 64 KiB. */
export const maximumHeldRanges = 2000;
/** Share reservations of one client in one file, and how it may name their owners. */
export const maximumHeldShares = 256;
export const maximumShareOwnerBytes = 128;
/** Durable opens of SMB clients on a volume: as many as a Samba server lets one process have open (16,404), and 512 bytes each. */
export const maximumDurableOpens = 16_384;
/** Ranges locked through one durable open: the bound of the lock table for a file. A record stays below 32 KiB. */
export const maximumDurableRanges = 1000;
/** "user@realm.example", or a SID as text. */
export const maximumPrincipalBytes = 255;
