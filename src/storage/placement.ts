/** Where fragments go and how much fits: pure functions over what is known of the disks. */
import { assert } from "../base/assert.ts";

export interface Candidate {
	readonly id: number;
	/** Failure domain: no two fragments of a segment share one. */
	readonly domain: string;
	/** What may still be used for data. */
	readonly freeBytes: number;
	readonly capacityBytes: number;
	/** Written only where the others do not do. */
	readonly isLastChoice?: boolean;
}

/**
 * `count` disks on distinct domains with room for `lengthBytes` each, most free first: that is what lets disks of different sizes fill up
 * together. Undefined: there
 * are not that many. The result is ordered by id and turned by `turn`, so that data and parity shards are spread evenly.
 */
export function chooseDisks(candidates: readonly Candidate[], count: number, lengthBytes: number, turn: number): number[] | undefined {
	const trusted = candidates.filter((candidate) => candidate.isLastChoice !== true);
	const chosen = trusted.length === candidates.length ? undefined : choose(trusted, count, lengthBytes, turn);
	return chosen ?? choose(candidates, count, lengthBytes, turn);
}

function choose(candidates: readonly Candidate[], count: number, lengthBytes: number, turn: number): number[] | undefined {
	const roomy = candidates.filter((candidate) => candidate.freeBytes >= lengthBytes);
	roomy.sort((a, b) => b.freeBytes - a.freeBytes || ((a.id + turn) % 64) - ((b.id + turn) % 64) || a.id - b.id);
	const domains = new Set<string>();
	const chosen: number[] = [];
	for (const candidate of roomy) {
		if (chosen.length === count) break;
		if (domains.has(candidate.domain)) continue;
		domains.add(candidate.domain);
		chosen.push(candidate.id);
	}
	if (chosen.length < count) return undefined;
	chosen.sort((a, b) => a - b);
	return rotate(chosen, turn);
}

export function rotate<T>(items: readonly T[], by: number): T[] {
	if (items.length === 0) return [];
	const at = by % items.length;
	return [...items.slice(at), ...items.slice(0, at)];
}

export function domainCount(candidates: Iterable<{ readonly domain: string }>): number {
	const domains = new Set<string>();
	for (const candidate of candidates) domains.add(candidate.domain);
	return domains.size;
}

/**
 * Water-filling: the greatest S so that `width` shards of S bytes each (in as many stripes as need be) fit on distinct domains, that is Σ
 * min(free, S) ≥ width × S.
 * It holds exactly when for every j < width the domains without the j largest hold (width − j) × S.
 */
export function waterFill(freePerDomain: readonly number[], width: number): number {
	assert(width > 0, "a shape has fragments");
	const sorted = [...freePerDomain].sort((a, b) => b - a);
	if (sorted.length < width) return 0;
	let rest = 0;
	for (const free of sorted) rest += free;
	let best = Number.POSITIVE_INFINITY;
	for (let j = 0; j < width; j++) {
		best = Math.min(best, rest / (width - j));
		rest -= sorted[j] as number;
	}
	return Math.max(0, Math.floor(best));
}
