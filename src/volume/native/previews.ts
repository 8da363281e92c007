/** What a change of the disks would come to, before it is made: bytes, time, and how much may still go wrong afterwards. Changes nothing, except that segments which are read to measure the disks are proven by it. */
import type { DiskId } from "../../log/interface.ts";
import type { Segment } from "../../records/interface.ts";
import type { StorageSpace } from "../../storage/interface.ts";
import { feasibleShape, parseRedundancy } from "../../storage/redundancy.ts";
import type { Core } from "./core.ts";
import { lanesAt } from "./heal-speed.ts";
import type { Healer } from "./healer.ts";
import type { DiskSpacePreview, NowAndAfter, WorkPreview } from "./interface.ts";
import { limits } from "./limits.ts";

/** What one look at all segment records tells. */
export interface Survey {
	readonly degradedBytes: number;
	readonly degraded: Work;
	/** Segments with fragments on the disk that was asked about. */
	readonly there: Work;
	/** Fragments there and their raw bytes are told by `DiskWork`. */
	readonly targets: ReadonlySet<string>;
	/** How many more fragments every readable segment may lose; of an empty volume what its default survives. */
	readonly survives: number;
	readonly lostBytes: number;
	/** Some segments, to be read for a measurement. */
	readonly samples: readonly number[];
}

interface Work {
	segments: number;
	payloadBytes: number;
	/** Some of them, to be read for a measurement. */
	readonly samples: number[];
}

/** Work that only has to be told. */
type PlannedWork = Omit<Work, "samples"> & { readonly samples: readonly number[] };

const noWork = (): Work => ({ segments: 0, payloadBytes: 0, samples: [] });

export async function survey(core: Core, disk: DiskId | undefined): Promise<Survey> {
	const degraded = noWork();
	const there = noWork();
	const targets = new Set([core.disks.roster.config.redundancy]);
	let degradedBytes = 0;
	const samples: number[] = [];
	let lostBytes = 0;
	let survives = parseRedundancy(core.disks.roster.config.redundancy).parityShards;
	for await (const segment of core.segments()) {
		const { lost, full, fragments } = core.store.assess(segment);
		targets.add(segment.target);
		if (lost) {
			lostBytes += segment.liveBytes;
			continue;
		}
		if (samples.length < limits.previewSamples) samples.push(segment.id);
		if (!full) {
			degradedBytes += segment.liveBytes;
			count(degraded, segment);
		}
		if (disk !== undefined && segment.fragments.some((place) => place.disk === disk)) count(there, segment);
		survives = Math.min(survives, fragments.filter((one) => one.state === "ok").length - segment.dataShards);
	}
	return { degradedBytes, degraded, there, targets, survives, lostBytes, samples };
}

function count(work: Work, segment: Segment): void {
	work.segments++;
	work.payloadBytes += segment.payloadBytes;
	if (work.samples.length < limits.previewSamples) work.samples.push(segment.id);
}

/** Losses that everything survives once it is as well protected as so many domains allow. */
export function survivesOn(targets: ReadonlySet<string>, domains: number): number {
	return Math.min(...[...targets].map((target) => feasibleShape(parseRedundancy(target), domains)?.parityShards ?? -1));
}

/** At the speed that healing had last; where it was never measured, some of the segments are read, and writing is taken to be as slow. */
export async function preview(core: Core, healer: Healer, { segments, payloadBytes, samples }: PlannedWork): Promise<WorkPreview> {
	const about = { segments, payloadBytes };
	if (segments === 0) return { ...about, seconds: 0, basis: "nothing to do" };
	const known = healer.secondsFor(segments, payloadBytes);
	if (known !== undefined) return { ...about, seconds: known, basis: "measured" };
	const { clock } = core.platform;
	const startMs = clock.monotonicMs();
	let read = 0;
	let readBytes = 0;
	for (const id of samples) {
		const health = await core.checkSegment(id);
		read++;
		readBytes += health?.segment.payloadBytes ?? 0;
		if (clock.monotonicMs() - startMs >= limits.previewSampleMs) break;
	}
	const took = (clock.monotonicMs() - startMs) / 1000;
	const share = Math.max(segments / read, payloadBytes / Math.max(1, readBytes));
	const rests = 1 + healer.status.tranquility;
	return { ...about, seconds: Math.ceil((2 * took * share * rests) / lanesAt(healer.status.tranquility)), basis: "sampled" };
}

/** Disk by disk; new ones by their place. */
export function spacePreview(now: StorageSpace, then: StorageSpace | undefined, places: readonly string[]): DiskSpacePreview[] {
	const before = new Map(now.disks.map((disk) => [disk.id, disk.freeBytes]));
	const rows = (then ?? now).disks.map(({ id, freeBytes }) => ({
		disk: id < 0 ? (places[-1 - id] ?? "new") : `d${id}`,
		freeBytes: { now: before.get(id) ?? 0, after: freeBytes },
	}));
	const gone = now.disks.filter((disk) => !(then ?? now).disks.some((one) => one.id === disk.id));
	return [...rows, ...gone.map((disk) => ({ disk: `d${disk.id}`, freeBytes: { now: disk.freeBytes, after: 0 } }))];
}

export const nowAndAfter = (now: number, after: number): NowAndAfter => ({ now, after });
