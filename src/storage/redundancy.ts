/**
 * How data is protected: `rs:K+M` (any K of K + M shards give the data back) or `replicate:N` (N whole copies = 1 + (N − 1)). Pure
 * functions.
 */
import { FsError } from "../base/errors.ts";
import type { Redundancy } from "./interface.ts";
import { blockBytes, limits } from "./limits.ts";

function invalid(text: string, why: string): FsError {
	const erasure = `rs:K+M (K from 1 to ${limits.maxDataShards}, M from 1 to ${limits.maxParityShards})`;
	const message = `redundancy "${text}" ${why}; write ${erasure} or replicate:N (N from 1 to ${limits.maxReplicas})`;
	return new FsError("EINVAL", "storage.redundancy", message, { redundancy: text });
}

/** @throws FsError EINVAL `storage.redundancy`. */
export function parseRedundancy(text: string): Redundancy {
	const erasure = /^rs:(\d{1,4})\+(\d{1,4})$/.exec(text);
	if (erasure) {
		const dataShards = Number(erasure[1]);
		const parityShards = Number(erasure[2]);
		if (dataShards < 1 || dataShards > limits.maxDataShards) throw invalid(text, `has K = ${dataShards}`);
		if (parityShards < 1 || parityShards > limits.maxParityShards) throw invalid(text, `has M = ${parityShards}`);
		return { dataShards, parityShards };
	}
	const replicas = /^replicate:(\d{1,4})$/.exec(text);
	if (!replicas) throw invalid(text, "is not understood");
	const copies = Number(replicas[1]);
	if (copies < 1 || copies > limits.maxReplicas) throw invalid(text, `has N = ${copies}`);
	return { dataShards: 1, parityShards: copies - 1 };
}

/** The one spelling of a redundancy: `rs:1+2` is printed as `replicate:3`. */
export function formatRedundancy(redundancy: Redundancy): string {
	const { dataShards, parityShards } = redundancy;
	return dataShards === 1 ? `replicate:${parityShards + 1}` : `rs:${dataShards}+${parityShards}`;
}

/** Losses of disks (domains) that data of this shape survives. */
export function tolerance(redundancy: Redundancy): number {
	return redundancy.parityShards;
}

/** Number of fragments, each on a domain of its own. */
export function width(redundancy: Redundancy): number {
	return redundancy.dataShards + redundancy.parityShards;
}

export function sameShape(a: Redundancy, b: Redundancy): boolean {
	return a.dataShards === b.dataShards && a.parityShards === b.parityShards;
}

/** What a volume gets when nothing is asked for. */
export function defaultRedundancy(diskCount: number): Redundancy {
	if (diskCount >= 6) return { dataShards: 4, parityShards: 2 };
	if (diskCount >= 3) return { dataShards: 2, parityShards: 1 };
	return { dataShards: 1, parityShards: diskCount === 2 ? 1 : 0 };
}

/**
 * The best shape for `target` on that many failure domains: as asked when it fits; otherwise the same number of losses survived with fewer
 * data shards;
 * when even replicas do not fit, as many copies as there are domains. Undefined: no domain at all.
 */
export function feasibleShape(target: Redundancy, domains: number): Redundancy | undefined {
	if (domains <= 0) return undefined;
	if (domains >= width(target)) return target;
	const dataShards = domains - target.parityShards;
	if (dataShards >= 1) return { dataShards, parityShards: target.parityShards };
	return { dataShards: 1, parityShards: domains - 1 };
}

/** Replicas that survive as many losses as `target`: for payloads that would make shards smaller than a block. */
export function smallSealShape(target: Redundancy): Redundancy {
	return { dataShards: 1, parityShards: target.parityShards };
}

/** The shape that `target` means for a payload of this size, given enough domains. */
export function wantedShape(target: Redundancy, payloadBytes: number): Redundancy {
	return payloadBytes <= target.dataShards * blockBytes ? smallSealShape(target) : target;
}
