/** What the daemon needs of a native volume beyond the doors' API: status, healing, verification, explanation, disks. */
import type { Logger } from "../../base/telemetry.ts";
import type { DiskErrors, DiskHealth, DiskState } from "../../log/interface.ts";
import type { Platform } from "../../platform/interface.ts";
import type { ExportRecord, Ino, ScrubIntensity, ScrubSchedule, ScrubState, ServiceRecord } from "../../records/interface.ts";
import type { ClientLocks, DurableOpens, RequestMarks, ResumedSession, Volume } from "../interface.ts";

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
	/** Overwrites what is foreign on raw devices. */
	readonly force?: boolean;
	/** Owner of the root directory. */
	readonly uid: number;
	readonly gid: number;
	/** Smaller logs for small disks and tests; default 16 × 8 MiB. */
	readonly logSegmentBytes?: number;
	readonly logSegmentCount?: number;
	/** As in `OpenOptions`; making the volume opens it once. */
	readonly memory?: OpenOptions["memory"];
}

/** A client's connection that outlives this process (a mount that a keeper holds). */
export interface SessionOptions {
	/** A safe integer that no other session of this volume has had. */
	readonly id: number;
	/** The session was begun by an earlier process: its handles are open still. Otherwise it begins now. */
	readonly resume: boolean;
}

/** How long something must have been found garbage before it is given back; when it is first looked for by itself, and how often then. Milliseconds. */
export interface GarbageTimes {
	readonly ageMs: number;
	readonly firstMs: number;
	readonly everyMs: number;
}

export interface OpenOptions {
	readonly name: string;
	readonly diskPaths: readonly string[];
	/** Go on although a newer state may exist on missing disks, or records of the log are lost. */
	readonly acceptLoss: boolean;
	/** A disk that another process has is missing for now, where enough others are there. */
	readonly skipLocked?: boolean;
	/** Other sizes of the memory files than limits.ts has: for tests. A volume must always be opened with the same. */
	readonly memory?: {
		readonly logTailBytes: number;
		readonly dirtyRingBytes: number;
		/** Of a session: places for open handles, and records of locks. */
		readonly handles?: number;
		readonly lockRecords?: number;
	};
	/** Other times than limits.ts has: for tests. */
	readonly garbage?: GarbageTimes;
	/** Without one, open handles and outcomes of requests end with this process. */
	readonly session?: SessionOptions;
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
	/** It is at work. What can be done by no disk there is does not count. */
	readonly active: boolean;
	/** What has still to be brought to its target or off a disk; where nothing is at work on it, the ledger says why. */
	readonly remainingBytes: number;
	/** null while unknown. */
	readonly etaSeconds: number | null;
	/** Live bytes brought to their target since `startedAt`, over restarts. ISO 8601; null: nothing is under way, or it has only just begun. */
	readonly doneBytes: number;
	readonly startedAt: string | null;
	readonly paused: boolean;
	readonly tranquility: number;
}

/** Fragments being moved so that all disks have the same free space left. Raw bytes. */
export interface BalancingStatus {
	/** Somebody wants it, and it has not come to its end. */
	readonly active: boolean;
	/** ISO 8601. */
	readonly startedAt: string | null;
	readonly movedBytes: number;
	/** Of a balance that is active; 0 until it has been reckoned. */
	readonly remainingBytes: number;
	/** null while unknown. */
	readonly etaSeconds: number | null;
	/** Why nothing moves just now; "" when nothing keeps it. */
	readonly waitingFor: string;
}

/** As of the last look. Raw bytes. */
export interface GarbageStatus {
	/** ISO 8601; null: nobody has looked since the mount. */
	readonly lookedAt: string | null;
	/** Named by no record, and not removed yet. */
	readonly bytes: number;
	/** Taken, and explained by nothing: a fault. */
	readonly unaccountedBytes: number;
	/** Names on the disks that are none of ours. */
	readonly foreign: number;
	/** Given back since the mount: by looks, and of what processes before this one left. */
	readonly removedBytes: number;
	readonly clearedBytes: number;
}

export interface GarbageItem {
	/**
	 * pack, run, log: files that nothing needs; space: bytes in free parts of a pack; place: a fragment whose writer ended without committing or giving it back; unaccounted: taken and explained by nothing;
	 * foreign: none of ours.
	 */
	readonly kind: "pack" | "space" | "place" | "run" | "log" | "unaccounted" | "foreign";
	readonly disk: string;
	readonly name: string;
	readonly bytes: number;
	/** Since it was first found so. */
	readonly ageSeconds: number;
	/** kept: it is somebody's after all, or never touched; failed: its disk did not let it go. */
	readonly state: "young" | "aged" | "removed" | "kept" | "failed";
}

/** `verify --garbage --json`. */
export interface GarbageReport {
	readonly dryRun: boolean;
	/** So long it must have been found before it is removed. */
	readonly ageSeconds: number;
	/** The sum of the next three. */
	readonly foundBytes: number;
	readonly youngBytes: number;
	readonly agedBytes: number;
	readonly removedBytes: number;
	readonly unaccountedBytes: number;
	readonly foreign: number;
	/** Disks that could not be looked at. */
	readonly away: readonly string[];
	/** Given back since the mount of what processes before this one left. */
	readonly clearedBytes: number;
	/** The largest. */
	readonly items: readonly GarbageItem[];
	readonly itemsTotal: number;
}

/** Data being rewritten because another protection was asked for. */
export interface ConversionStatus {
	readonly active: boolean;
	readonly remainingBytes: number;
	/** Why it does not go on now; "" when nothing keeps it. */
	readonly waitingFor: string;
}

/** What compaction has done since the mount. */
export interface CompactionStatus {
	readonly active: boolean;
	/** Live bytes copied, dead bytes given back by that. */
	readonly movedBytes: number;
	readonly freedBytes: number;
}

/** One locked range, or one that is waited for. */
export interface ListedLock {
	readonly ino: number;
	readonly family: string;
	readonly kind: "shared" | "exclusive";
	/** First and last byte; beyond 2^53 as text; null: to the end. */
	readonly start: number | string;
	readonly end: number | string | null;
	/** Opaque; what `break` is given. */
	readonly owner: string;
	readonly door: string;
	readonly client: string;
	/** 0: not known. */
	readonly pid: number;
	readonly ageSeconds: number;
}

/** An open that denies others something. */
export interface ListedShare {
	readonly ino: number;
	/** Of read, write, delete. */
	readonly access: readonly string[];
	readonly deny: readonly string[];
	readonly owner: string;
	readonly door: string;
	readonly client: string;
}

/** What somebody caches. */
export interface ListedLease {
	readonly ino: number;
	readonly family: string;
	/** Of read, write, handle. */
	readonly caches: readonly string[];
	/** What is left when it has been given back; null: nobody wants it. */
	readonly breakingTo: readonly string[] | null;
	/** Operations and opens that wait for leases of this inode. */
	readonly waiting: number;
	readonly owner: string;
	readonly door: string;
	readonly client: string;
}

/** An open that is kept by record: it outlives its client's connection and this daemon. */
export interface ListedDurable {
	readonly ino: number;
	readonly kind: "durable" | "persistent";
	readonly state: "connected" | "waiting";
	readonly access: readonly string[];
	readonly deny: readonly string[];
	readonly caches: readonly string[];
	/** Locked through it. */
	readonly ranges: number;
	readonly owner: string;
	readonly door: string;
	/** GUIDs. */
	readonly client: string;
	readonly createGuid: string;
	readonly ageSeconds: number;
	/** Until it ends; null while its client is there. */
	readonly leftSeconds: number | null;
}

export interface LockList {
	readonly durable: readonly ListedDurable[];
	readonly shares: readonly ListedShare[];
	readonly leases: readonly ListedLease[];
	/** Of what was asked for, at most limits.listedLocks of each. */
	readonly held: readonly ListedLock[];
	readonly waiting: readonly (ListedLock & { readonly waitsFor: readonly string[] })[];
	/** Of the whole volume. */
	readonly totalHeld: number;
	readonly totalWaiting: number;
}

/** Since this daemon began. */
export interface HistogramStatus {
	/** How many took no longer. */
	readonly buckets: readonly { readonly seconds: number; readonly count: number }[];
	readonly sumSeconds: number;
	readonly count: number;
}

/** Opens that are kept by record. Counts are since this daemon began. */
export interface DurableStatus {
	/** Now: their client is there, or they wait for it; how many of both are persistent. */
	readonly connected: number;
	readonly waiting: number;
	readonly persistent: number;
	readonly granted: number;
	readonly reconnected: number;
	/** Reconnects. */
	readonly refused: number;
	/** Ended: their time was over, somebody was in conflict, an operator wanted it. */
	readonly timedOut: number;
	readonly conflicts: number;
	readonly broken: number;
	/** Opens that were not made durable, as there were too many. */
	readonly overLimit: number;
}

export interface LockStatus {
	readonly durable: DurableStatus;
	readonly held: number;
	/** Opens that deny something, leases. */
	readonly shares: number;
	readonly leases: number;
	readonly waiting: number;
	readonly files: number;
	/** By class (fcntl-shared …), since this daemon began. */
	readonly acquired: Readonly<Record<string, number>>;
	readonly released: Readonly<Record<string, number>>;
	/** Locks and shares that clients have had again within grace, and asked for in vain, since this daemon began. */
	readonly reclaims: { readonly granted: number; readonly refused: number };
	/** Requests that did not get their lock at once, by what became of them. */
	readonly refused: Readonly<Record<string, number>>;
	readonly waits: HistogramStatus;
	readonly holds: HistogramStatus;
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
	/** What writers would get; without `reservedBytes`. */
	readonly freeBytes: number;
	/** Space that files have reserved (fallocate) and not written yet. */
	readonly reservedBytes: number;
	/**
	 * User bytes by what protects them now: in full by the records, less than asked for, not readable any more. Metadata is in `metadataCopies`. Of what is in full, `provenBytes` were read whole
	 * from their disks since they were written there, the longest ago at `oldestProofAt` (ISO 8601); the ledger has the rest.
	 */
	readonly protection: {
		readonly fullBytes: number;
		readonly provenBytes: number;
		readonly oldestProofAt: string | null;
		readonly degradedBytes: number;
		readonly lostBytes: number;
		/** When these were counted: on a large volume some time ago. ISO 8601. */
		readonly countedAt: string;
		/** By what was asked for; as in the ledger. */
		readonly targets: readonly (Omit<LedgerLevel, "segments" | "wantedBytes"> & { readonly bytes: number })[];
		/** Why what is degraded or lost is so. */
		readonly shortages: readonly LedgerShortage[];
		/** Of what is in full: it has still to leave a disk that is to be emptied. */
		readonly leavingBytes: number;
	};
	readonly metadataCopies: { readonly wanted: number; readonly present: number };
	/** When all of it (superblocks, log, runs, manifests) was last read from every disk and left right; null: never, or damage was left. ISO 8601. */
	readonly metadataProvenAt: string | null;
	readonly disks: readonly DiskStatus[];
	readonly healing: HealingStatus;
	readonly balancing: BalancingStatus;
	readonly garbage: GarbageStatus;
	readonly scrub: ScrubStatus;
	readonly compaction: CompactionStatus;
	readonly locks: LockStatus;
	readonly conversion: ConversionStatus;
	/** Acknowledged and not yet sealed. */
	readonly dirtyBytes: number;
	/** Sentences for the operator: several disks on one device, disks missing, … */
	readonly warnings: readonly string[];
}

/** Why bytes are under-protected: the healer has yet to come to them, it expects a lost disk back or replaced, the healer is paused, no disk that fits has room, no other disk fits, or too many fragments are gone. */
export type LedgerCause = "waiting" | "paused" | "awaited" | "no-space" | "no-disk" | "lost";

export interface LedgerLevel {
	/** What was asked for. */
	readonly redundancy: string;
	readonly segments: number;
	/** The sum of the other four: user bytes. */
	readonly wantedBytes: number;
	/** In full, and every fragment was read from its disk and found right since it was written there. */
	readonly provenBytes: number;
	/** In full by the records, not yet proven. */
	readonly recordedBytes: number;
	readonly degradedBytes: number;
	readonly lostBytes: number;
	/** Of what is proven, the longest ago. ISO 8601. */
	readonly oldestProofAt: string | null;
}

export interface LedgerShortage {
	readonly cause: LedgerCause;
	readonly segments: number;
	readonly bytes: number;
	/** Disks that hold fragments of it and cannot be read. */
	readonly disks: readonly string[];
}

/** Bytes of segments of which so many more fragments may be lost: by the records, and counting proven fragments alone. −1: not to be read, or not proven to be. */
export interface LedgerSurvival {
	readonly losses: number;
	readonly recordedBytes: number;
	readonly provenBytes: number;
}

/** `ledger NAME --json`. */
export interface Ledger {
	readonly volume: string;
	readonly at: string;
	readonly levels: readonly LedgerLevel[];
	readonly shortages: readonly LedgerShortage[];
	readonly survival: readonly LedgerSurvival[];
	readonly provenBytes: number;
	readonly recordedBytes: number;
	readonly degradedBytes: number;
	readonly lostBytes: number;
	/** Of what is proven or recorded: it has still to leave a disk that is to be emptied. */
	readonly leavingBytes: number;
	readonly oldestProofAt: string | null;
	readonly metadataCopies: { readonly wanted: number; readonly present: number };
	/** When all of it (superblocks, log, runs, manifests) was last read from every disk and left right; null: never, or damage was left. ISO 8601. */
	readonly metadataProvenAt: string | null;
	/** Acknowledged, in memory and log, in no segment yet. */
	readonly dirtyBytes: number;
	readonly healing: HealingStatus;
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
	/** Fully protected, but still on disks that are to be emptied: no other disk fits or has room. */
	readonly leavingBytes: number;
	readonly lostBytes: number;
	/** The operator has paused the healer: what is open was not tried. */
	readonly paused: boolean;
}

export interface DiskName {
	/** `d3`. */
	readonly id: string;
	readonly path: string;
}

export interface NowAndAfter {
	readonly now: number;
	readonly after: number;
}

/** What is to be rebuilt or moved. */
export interface WorkPreview {
	readonly segments: number;
	readonly payloadBytes: number;
	readonly seconds: number;
	/** By the speed that healing had last, or by reading some of them. */
	readonly basis: "measured" | "sampled" | "nothing to do";
}

/** Free raw bytes for data; `disk` is d3, or the place of one that is not in yet. */
export interface DiskSpacePreview {
	readonly disk: string;
	readonly freeBytes: NowAndAfter;
}

/** The common part of what a change of disks would come to. */
export interface ChangePreview {
	readonly work: WorkPreview;
	readonly disks: readonly DiskSpacePreview[];
	/** Further losses that everything readable survives: now, which does not get less meanwhile, and when the work is done. -1: not even that. */
	readonly survives: NowAndAfter;
}

/** `disk replace --dry-run`. */
export interface ReplacePlan extends DiskName, ChangePreview {
	readonly newPath: string;
	readonly capacityBytes: number;
	/** The old disk works: what it holds is copied off it, and it leaves by itself. Otherwise that is made anew. */
	readonly moving: boolean;
	readonly freeBytes: NowAndAfter;
	/** What the old one holds finds room there and on the others. */
	readonly fits: boolean;
}

/** `balance --dry-run`. `work`: fragments and their raw bytes. */
export interface BalancePlan extends ChangePreview {
	/** Nothing is worth moving. */
	readonly isEven: boolean;
	/** User bytes, as `status` tells them. */
	readonly capacityBytes: NowAndAfter;
	readonly freeBytes: NowAndAfter;
	/** Raw bytes that each disk holds. */
	readonly usedBytes: readonly { readonly disk: string; readonly usedBytes: NowAndAfter }[];
	readonly running: boolean;
}

export interface BalanceResult {
	/** No disk is further from what it is to hold than two parts in a hundred of its size, or two fragments. */
	readonly isEven: boolean;
	readonly movedBytes: number;
	/** What a perfect balance would still move. */
	readonly leftBytes: number;
	/** The operator has paused the healer, by whose budget it works. */
	readonly paused: boolean;
	/** It was called off. */
	readonly cancelled: boolean;
}

export interface BalanceVerbs {
	plan(): Promise<BalancePlan>;
	/** Durable when it resolves; it goes on behind the caller's back, over restarts, until the disks are even. */
	begin(): Promise<BalancingStatus>;
	/** Resolves when it has come to its end, is called off, or is paused. */
	over(onProgress: (progress: Progress) => void): Promise<BalanceResult>;
	/** What has moved stays where it is. @throws FsError REFUSED: none is under way. */
	cancel(): Promise<BalancingStatus>;
}

export interface AddPlan extends ChangePreview {
	readonly places: readonly { readonly path: string; readonly capacityBytes: number }[];
	/** User bytes, as `status` tells them. */
	readonly capacityBytes: NowAndAfter;
	readonly freeBytes: NowAndAfter;
	/** Under-protected now: healed onto the new disks as far as they help. */
	readonly degradedBytes: number;
	/** Space is short for being uneven: after that work, fragments move to the new disks, too. */
	readonly levels: boolean;
	/** Raw bytes that `balance` would move then; 0: nothing would be worth it. */
	readonly balanceBytes: number;
}

export interface AddResult {
	readonly added: readonly (DiskName & { readonly capacityBytes: number })[];
	readonly capacityBytes: number;
	readonly freeBytes: number;
	/** Raw bytes that `balance` would move; 0: nothing would be worth it. */
	readonly balanceBytes: number;
}

export interface DrainOptions {
	/** Data may be kept in another shape that survives as many losses, when the disks that stay are too few for what was asked for. */
	readonly allowDegraded: boolean;
}

export interface DrainPlan extends DiskName, ChangePreview {
	readonly fragments: number;
	/** Raw bytes on the disk. */
	readonly moveBytes: number;
	/** Log or metadata move, too. */
	readonly metadata: boolean;
	/** What it holds has room on the others, and so have reservations. */
	readonly fits: boolean;
	/** Raw bytes of it that find no place on the disks as they are now: no other disk that may hold them has room. They stay until one has. */
	readonly unplacedBytes: number;
	readonly freeBytes: NowAndAfter;
	/** What becomes of each redundancy that is asked for on it, and of the volume's own. `becomes`: null where nothing fits any more. */
	readonly shapes: readonly {
		readonly redundancy: string;
		readonly becomes: string | null;
		readonly isAsAsked: boolean;
		readonly survivesAsMany: boolean;
	}[];
}

export interface DrainResult extends DiskName {
	readonly state: DiskState | "removed";
	/** Raw bytes that are still on it. */
	readonly leftBytes: number;
	/** What of the volume's own is still on it: metadata, a mirror of the log. */
	readonly needed: string | null;
	/** It was replaced while it worked: it leaves the volume by itself when it is empty. */
	readonly leaves: boolean;
	/** The operator has paused the healer, which moves things. */
	readonly paused: boolean;
}

export interface RemovePlan extends DiskName {
	readonly state: DiskState;
	readonly fragments: number;
	readonly bytes: number;
	readonly needed: string | null;
	readonly removable: boolean;
	/** Why it cannot leave now. */
	readonly reasons: readonly string[];
}

export interface ReplaceResult extends DiskName {
	/** The old disk works: what is on it moves, and then it leaves by itself. */
	readonly moving: boolean;
}

/** `disk show NAME DISK --json`. */
export interface DiskDetails extends DiskName {
	readonly state: DiskState;
	readonly reason: string;
	/** The operator set it; null: errors and time decide. */
	readonly healthSet: DiskHealth | null;
	/** Counted since the mount. */
	readonly errorKinds: Readonly<DiskErrors>;
	readonly fragments: number;
	readonly capacityBytes: number;
	readonly usedBytes: number;
	/** Changes of its state, oldest first; ISO 8601. */
	readonly history: readonly { readonly at: string; readonly state: DiskState; readonly reason: string }[];
}

/** Disks that come and go while the volume is mounted. DISK is `d3` or its path. Each waits for the one before. */
export interface DiskVerbs {
	planAdd(paths: readonly string[], force: boolean): Promise<AddPlan>;
	/** Empty places become disks, all of them or none; `force` overwrites what is foreign on raw devices. @throws FsError REFUSED, E2BIG. */
	add(paths: readonly string[], force?: boolean): Promise<AddResult>;
	planDrain(disk: string): Promise<DrainPlan>;
	/** Begins to empty a disk; resolves when that is durable. @throws FsError NOTFOUND, REFUSED. */
	drain(disk: string, options: DrainOptions): Promise<DrainPlan>;
	cancelDrain(disk: string): Promise<DiskName>;
	/** Resolves when the disk is empty, or when nothing more can be moved now. */
	drained(disk: string, onProgress: (progress: Progress) => void): Promise<DrainResult>;
	planRemove(disk: string): Promise<RemovePlan>;
	/** Lets an empty disk go; `cleared`: nothing of the volume is left on it. @throws FsError NOTFOUND, REFUSED while it is needed. */
	remove(disk: string): Promise<DiskName & { readonly cleared: boolean }>;
	/** What `replace` would come to. @throws FsError NOTFOUND, REFUSED as `replace` does. */
	planReplace(disk: string, newPath: string | undefined, force?: boolean): Promise<ReplacePlan>;
	/** A fresh disk takes over; healing or moving starts by itself. @throws FsError NOTFOUND, REFUSED. */
	replace(disk: string, newPath: string | undefined, force?: boolean): Promise<ReplaceResult>;
	show(disk: string): Promise<DiskDetails>;
	/** "auto": errors and time decide. @throws FsError NOTFOUND, REFUSED (not there; "failed" while data would be lost with it). */
	setHealth(disk: string, health: DiskHealth | "auto"): Promise<DiskDetails>;
	/** Called when disks joined or left. */
	onMembers(listener: () => void): void;
}

export interface ScrubPassStatus {
	readonly byHand: boolean;
	readonly dryRun: boolean;
	readonly startedAt: string | null;
	/** null: it has not come to its end. */
	readonly endedAt: string | null;
	readonly segments: number;
	readonly fragments: number;
	/** Payload of these segments. */
	readonly bytes: number;
	readonly corrupt: number;
	readonly missing: number;
	readonly repaired: number;
	readonly unrecoverable: number;
}

/** `scrub NAME status --json`. */
export interface ScrubStatus {
	readonly state: ScrubState;
	/** It is reading now: a nightly one that is running sleeps by day. */
	readonly active: boolean;
	readonly schedule: ScrubSchedule;
	readonly hourUtc: number;
	readonly intensity: ScrubIntensity;
	/** Under way, paused, or the newest. */
	readonly pass: ScrubPassStatus | null;
	readonly lastPass: ScrubPassStatus | null;
	readonly totalBytes: number | null;
	readonly etaSeconds: number | null;
}

export interface ScrubVerbs {
	/** @throws FsError REFUSED: the scrub is off, or a pass is under way. */
	begin(options: { readonly dryRun: boolean; readonly intensity?: ScrubIntensity | undefined }): Promise<ScrubStatus>;
	/** @throws FsError REFUSED: there is nothing to pause, resume, stop. */
	pause(): Promise<ScrubStatus>;
	resume(): Promise<ScrubStatus>;
	stopPass(): Promise<ScrubStatus>;
	setSchedule(change: {
		readonly schedule?: ScrubSchedule | undefined;
		/** UTC, 0 to 23. */
		readonly hour?: number | undefined;
		readonly intensity?: ScrubIntensity | undefined;
	}): Promise<ScrubStatus>;
	status(): ScrubStatus;
}

export interface VerifyOptions {
	readonly dryRun: boolean;
	/** Name the files with bytes in lost segments. */
	readonly lost: boolean;
	/** Go on with one that did not come to its end: what was proven since it began is not read again. */
	readonly resume?: boolean;
}

/** How the healer is to work. */
export interface HealOptions {
	readonly paused?: boolean | undefined;
	/** It rests so many times as long as it worked, 0 to 100. */
	readonly tranquility?: number | undefined;
}

export interface VerifyResult {
	readonly checkedFragments: number;
	/** Damaged fragments and metadata blocks found. */
	readonly corrupt: number;
	/** Fragments that are named by metadata and lie on no readable disk. */
	readonly missing: number;
	readonly repaired: number;
	/** Segments that were not read, because all of their fragments had been proven since the verify that is resumed began. */
	readonly skippedSegments: number;
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
	/** When all that is proven of it was proven at the latest: of all fragments the longest ago; null: some are not. ISO 8601. */
	readonly oldestProofAt: string | null;
	/** Of the volume: how long until what can be healed now is. */
	readonly healing: Pick<HealingStatus, "active" | "etaSeconds">;
	readonly segments: readonly {
		readonly id: number;
		readonly redundancy: string;
		/** As in the ledger. */
		readonly state: "proven" | "recorded" | "degraded" | "lost";
		/** Why it is degraded or lost; null: it is not. */
		readonly cause: LedgerCause | null;
		readonly fragments: readonly {
			readonly index: number;
			readonly disk: string;
			readonly state: "ok" | "missing" | "corrupt";
			/** When it was last read whole and found right, as it lies there now; ISO 8601. */
			readonly provenAt: string | null;
		}[];
	}[];
}

export interface SetProtection {
	/** undefined = inherit. */
	readonly redundancy: string | undefined;
	readonly allowDegraded: boolean;
	/** Wait until everything below is rewritten. */
	readonly now: boolean;
}

export interface ProtectionSet {
	readonly redundancy: { readonly value: string; readonly from: string };
	readonly warnings: readonly string[];
	/** Everything lies as asked for. */
	readonly done: boolean;
	/** Why not, when that was waited for. */
	readonly waitingFor: string;
}

/** What the volume remembers of how it is served over the network; doors give it its meaning. */
export interface ExportVerbs {
	list(): Promise<readonly ExportRecord[]>;
	/** Durable when it resolves. @throws FsError EEXIST (the folder is exported already), ENOENT, ENOTDIR, REFUSED (too many). */
	add(entry: NewExport): Promise<ExportRecord>;
	/** Durable when it resolves. @throws FsError NOTFOUND. */
	remove(folder: string): Promise<void>;
	/** The inode of an exported folder; undefined while it is not there. */
	locate(folder: string): Promise<Ino | undefined>;
	/** Made at the first call. */
	service(): Promise<ServiceRecord>;
	setService(change: Partial<Pick<ServiceRecord, "port" | "portMapper" | "serverName">>): Promise<ServiceRecord>;
}

export type NewExport = Omit<ExportRecord, "id" | "birthEpoch">;

export interface NativeVolume extends Volume {
	readonly name: string;
	readonly exports: ExportVerbs;
	status(): Promise<VolumeStatus>;
	ledger(): Promise<Ledger>;
	/** Everything below its target is brought there as far as the disks allow. Resolves when nothing more can be done now. */
	heal(onProgress: (progress: Progress) => void): Promise<HealResult>;
	/** Kept over restarts. */
	setHealing(options: HealOptions): Promise<HealingStatus>;
	readonly scrub: ScrubVerbs;
	readonly balance: BalanceVerbs;
	/** Reads every fragment and every metadata block; repairs unless dryRun. */
	verify(options: VerifyOptions, onProgress: (progress: Progress) => void): Promise<VerifyResult>;
	/** Looks for what lies on the disks and no record names; removes what was found so for long enough. */
	collectGarbage(dryRun: boolean): Promise<GarbageReport>;
	/** Path as in `explain`; "" = the volume's default. @throws FsError EINVAL, REFUSED, ENOENT. */
	setProtection(path: string, options: SetProtection, onProgress: (progress: Progress) => void): Promise<ProtectionSet>;
	/** Path relative to the root, byte string, "" = the root. */
	explain(path: string): Promise<Explanation>;
	/** From the root, for people; undefined: no directory, or too many names would have to be looked through. */
	directoryPath(ino: Ino): Promise<string | undefined>;
	/** Of one path (as in `explain`), or of all with "". @throws FsError ENOENT. */
	listLocks(path: string): Promise<LockList>;
	/** Takes locks of a file away from those who hold them, and does not tell them: all, or those of one owner of the list. @throws FsError ENOENT. */
	breakLocks(path: string, owner: string | undefined): Promise<number>;
	readonly clientLocks: ClientLocks;
	readonly durableOpens: DurableOpens;
	readonly disks: DiskVerbs;
	/** What is left of the session that was resumed; empty when none was. */
	readonly resumed: ResumedSession;
	/** Undefined without a session. */
	readonly requestMarks: RequestMarks | undefined;
	/**
	 * Seals everything, makes it durable, marks the volume clean, lets the disks go. Doors must be closed before. With `keepSession`, handles stay as they are for the process that
	 * resumes the session.
	 */
	shutdown(options?: { readonly keepSession: boolean }): Promise<void>;
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
	readonly state: "healthy" | "draining" | "missing" | "failed";
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
