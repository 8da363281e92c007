/** What lies on a device that is not ours, by the marks that file systems and others leave in fixed places. Pure. */
import { bytesToLatin1 } from "../../base/bytes.ts";

interface Signature {
	readonly name: string;
	readonly at: number;
	readonly mark: string;
}

/** Places and marks as in the magic of util-linux's libblkid and the kernel's headers. Marks are byte strings. */
const signatures: readonly Signature[] = [
	{ name: "an ext2, ext3 or ext4 file system", at: 1024 + 56, mark: "\x53\xef" },
	{ name: "an XFS file system", at: 0, mark: "XFSB" },
	{ name: "a Btrfs file system", at: 64 * 1024 + 64, mark: "_BHRfS_M" },
	{ name: "an F2FS file system", at: 1024, mark: "\x10\x20\xf5\xf2" },
	{ name: "an NTFS file system", at: 3, mark: "NTFS    " },
	{ name: "an exFAT file system", at: 3, mark: "EXFAT   " },
	{ name: "a FAT file system", at: 82, mark: "FAT32   " },
	{ name: "a FAT file system", at: 54, mark: "FAT16   " },
	{ name: "a FAT file system", at: 54, mark: "FAT12   " },
	{ name: "a squashfs file system", at: 0, mark: "hsqs" },
	{ name: "an ISO 9660 file system", at: 32_769, mark: "CD001" },
	{ name: "an encrypted device (LUKS)", at: 0, mark: "LUKS\xba\xbe" },
	{ name: "a BitLocker volume", at: 3, mark: "-FVE-FS-" },
	...[0, 512, 1024, 1536].map((at) => ({ name: "a physical volume of LVM", at, mark: "LABELONE" })),
	{ name: "a member of a RAID (md)", at: 4096, mark: "\xfc\x4e\x2b\xa9" },
	{ name: "a member of a RAID (md)", at: 0, mark: "\xfc\x4e\x2b\xa9" },
	{ name: "a cache device (bcache)", at: 4096 + 24, mark: "\xc6\x85\x73\xf6\x4e\x1a\x45\xca" },
	{ name: "swap space", at: 4096 - 10, mark: "SWAPSPACE2" },
	{ name: "a partition table (GPT)", at: 512, mark: "EFI PART" },
	{ name: "a partition table (GPT)", at: 4096, mark: "EFI PART" },
	{ name: "a partition table or boot sector", at: 510, mark: "\x55\xaa" },
];

/** `first` and `last` are the ends of the device. Undefined: nothing but zeros there. */
export function recognise(first: Uint8Array, last: Uint8Array): string | undefined {
	for (const { name, at, mark } of signatures) {
		if (bytesToLatin1(first.subarray(at, at + mark.length)) === mark) return name;
	}
	return first.some((byte) => byte !== 0) || last.some((byte) => byte !== 0) ? "data of unknown kind" : undefined;
}
