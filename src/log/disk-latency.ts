/**
 * Which disks answer slowly, by what they do anyway: against their own past and against the others in the same window. A pure core.
 *
 * A volume that is busy is slow on all of its disks, and a disk that was always slower than the others is no news; what is told apart here is the one that has become slow while the others have not.
 */
import type { DiskId } from "./interface.ts";
import { latencyLeastCalls, latencyLeastMs, latencyLeastPeers, latencyPastShare, latencyTimesPast, latencyTimesPeers } from "./limits.ts";

/** Reads, writes and syncs that came back in one window. */
export interface LatencyWindow {
	readonly calls: number;
	readonly totalMs: number;
}

export interface SlowDisk {
	readonly id: DiskId;
	readonly meanMs: number;
	readonly peersMs: number;
	readonly pastMs: number;
}

/** `past`: mean milliseconds of a call by disk, from windows in which it was not slow; it is learned here. Disks with few calls neither judge nor are judged. */
export function judgeLatency(windows: ReadonlyMap<DiskId, LatencyWindow>, past: Map<DiskId, number>): SlowDisk[] {
	const means = new Map<DiskId, number>();
	for (const [id, { calls, totalMs }] of windows) if (calls >= latencyLeastCalls) means.set(id, totalMs / calls);
	const slow: SlowDisk[] = [];
	for (const [id, meanMs] of means) {
		const peers = [...means].filter(([other]) => other !== id).map(([, mean]) => mean);
		const pastMs = past.get(id);
		const peersMs = median(peers);
		const isSlow =
			pastMs !== undefined &&
			peers.length >= latencyLeastPeers &&
			meanMs >= latencyLeastMs &&
			meanMs >= latencyTimesPeers * peersMs &&
			meanMs >= latencyTimesPast * pastMs;
		if (isSlow) slow.push({ id, meanMs, peersMs, pastMs });
		else past.set(id, pastMs === undefined ? meanMs : pastMs + (meanMs - pastMs) * latencyPastShare);
	}
	for (const id of past.keys()) if (!windows.has(id)) past.delete(id);
	return slow;
}

function median(values: readonly number[]): number {
	const sorted = [...values].sort((a, b) => a - b);
	return sorted[Math.floor(sorted.length / 2)] ?? 0;
}
