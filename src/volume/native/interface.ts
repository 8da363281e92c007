/** What the daemon needs of a native volume beyond the doors' API: status, healing, verification, explanation, disks. */
import type { Logger } from "../../base/telemetry.ts";
import type { DiskErrors, DiskState } from "../../log/interface.ts";
import type { Platform } from "../../platform/interface.ts";
import type { Volume } from "../interface.ts";

export interface VolumeModules {
	readonly platform: Platform;
	readonly logger: Logger;
}

export interface CreateOptions {
	readonly name: string;
	/** Host paths, as the command line has them (not byte strings). */
	readonly diskPaths: readonly string[];
	/** "rs:K+M" | "replicate:N"; default by the number of disks (contracts). */
	readonly redundancy?: string | undefined;
	readonly sameDevice: boolean;
	readonly allowDegraded: boolean;
	/** Owner of the root directory. */
	readonly uid: number;
	readonly gid: number;
	/** Smaller logs for small disks and tests; default 16 × 8 MiB. */
	readonly logSegmentBytes?: number;
	readonly logSegmentCount?: number;
}

export interface OpenOptions {
	readonly name: string;
	readonly diskPaths: readonly string[];
	/** Go on although a newer state may exist on missing disks, or records of the log are lost. */
	readonly acceptLoss: boolean;
	/** Other sizes of the memory files than limits.ts has: for tests. A volume must always be opened with the same. */
	readonly memory?: { readonly logTailBytes: number; readonly dirtyRingBytes: number };
}

export type VolumeState = "stopped" | "starting" | "running" | "degraded" | "recovering" | "failed";

export interface DiskStatus {
	/** `d1`. */
	readonly id: string;
	readonly path: string;
	readonly state: DiskState;
	readonly tier: string;
	readonly capacityBytes: number;
	readonly usedBytes: number;
	/** Sum of all kinds. */
	readonly errors: number;
	readonly errorKinds: Readonly<DiskErrors>;
	/** Why it is not healthy; "" when it is. */
	readonly reason: string;
	/** Holds a mirror of the log and of the metadata. */
	readonly metadata: boolean;
	readonly domain: string;
}

export interface HealingStatus {
	readonly active: boolean;
	readonly remainingBytes: number;
	/** null while unknown. */
	readonly etaSeconds: number | null;
}

/** What compaction has done since the mount. */
export interface CompactionStatus {
	readonly active: boolean;
	/** Live bytes copied, dead bytes given back by that. */
	readonly movedBytes: number;
	readonly freedBytes: number;
}

/** `status NAME --json` without pid and mounts. Byte strings in it are Latin-1; the daemon prints them as UTF-8. */
export interface VolumeStatus {
	readonly volume: string;
	readonly id: string;
	readonly state: VolumeState;
	readonly redundancy: string;
	readonly sameDevice: boolean;
	readonly capacityBytes: number;
	readonly usedBytes: number;
	readonly freeBytes: number;
	/** User bytes by what protects them now: in full, less than asked for, not readable any more. Metadata is in `metadataCopies`. */
	readonly protection: {
		readonly fullBytes: number;
		readonly degradedBytes: number;
		readonly lostBytes: number;
		readonly targets: readonly { readonly redundancy: string; readonly bytes: number }[];
	};
	readonly metadataCopies: { readonly wanted: number; readonly present: number };
	readonly disks: readonly DiskStatus[];
	readonly healing: HealingStatus;
	readonly compaction: CompactionStatus;
	/** Acknowledged and not yet sealed. */
	readonly dirtyBytes: number;
	/** Sentences for the operator: several disks on one device, disks missing, … */
	readonly warnings: readonly string[];
}

export interface Progress {
	readonly doneBytes: number;
	readonly totalBytes: number;
}

export interface HealResult {
	readonly rebuiltSegments: number;
	readonly rebuiltBytes: number;
	/** Still below target because no disk fits. */
	readonly remainingBytes: number;
	readonly lostBytes: number;
}

export interface VerifyResult {
	readonly checkedFragments: number;
	/** Damaged fragments and metadata blocks found. */
	readonly corrupt: number;
	/** Fragments that are named by metadata and lie on no readable disk. */
	readonly missing: number;
	readonly repaired: number;
	/** Segments that can no longer be read. */
	readonly unrecoverable: number;
	/** Chunks and segments whose counts of references are not what the maps of all files say: space that leaks, or is given back too early. */
	readonly miscounted: number;
	/** Files (byte-string paths) with bytes in those segments. */
	readonly lostPaths: readonly string[];
}

export interface Explanation {
	readonly path: string;
	readonly ino: number;
	readonly type: string;
	readonly sizeBytes: number;
	readonly redundancy: { readonly value: string; readonly from: string };
	/** Contents lie in the inode itself, which every metadata mirror holds. */
	readonly inline: boolean;
	/** Bytes acknowledged and not yet sealed into segments. */
	readonly dirtyBytes: number;
	readonly segments: readonly {
		readonly id: number;
		readonly redundancy: string;
		readonly fragments: readonly { readonly index: number; readonly disk: string; readonly state: "ok" | "missing" | "corrupt" }[];
	}[];
}

export interface NativeVolume extends Volume {
	readonly name: string;
	status(): Promise<VolumeStatus>;
	/** Everything below its target is brought there as far as the disks allow. Resolves when nothing more can be done now. */
	heal(onProgress: (progress: Progress) => void): Promise<HealResult>;
	/** Reads every fragment and every metadata block; repairs unless dryRun. */
	verify(options: { readonly dryRun: boolean; readonly lost: boolean }, onProgress: (progress: Progress) => void): Promise<VerifyResult>;
	/** Path relative to the root, byte string, "" = the root. */
	explain(path: string): Promise<Explanation>;
	/** Takes a fresh disk in place of a lost one; healing starts by itself. `disk` is `d3` or its path. @throws FsError NOTFOUND, REFUSED. */
	replaceDisk(disk: string, newPath: string | undefined): Promise<{ readonly id: string; readonly path: string }>;
	/** Seals everything, makes it durable, marks the volume clean, lets the disks go. Doors must be closed before. */
	shutdown(): Promise<void>;
	/** Resolves with the reason when the volume can no longer work (log or roster lost). */
	readonly failed: Promise<Error>;
}

export interface CreatedVolume {
	readonly id: string;
	readonly redundancy: string;
	readonly warnings: readonly string[];
}

export interface OfflineDisk {
	readonly id: string;
	readonly path: string;
	readonly state: "healthy" | "missing" | "failed";
	readonly reason: string;
	readonly capacityBytes: number;
	readonly freeBytes: number;
	readonly metadata: boolean;
}

/** What superblocks alone tell about a volume that no daemon serves. */
export interface OfflineVolume {
	readonly id: string;
	readonly name: string;
	readonly redundancy: string;
	readonly clean: boolean;
	readonly sameDevice: boolean;
	readonly disks: readonly OfflineDisk[];
}
