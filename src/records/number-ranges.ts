/** Sets of numbers as ranges, as segment records hold the numbers of their chunks: pure functions. */
import { assert } from "../base/assert.ts";
import type { NumberRange } from "./interface.ts";

/** Ranges of numbers that come in rising order. */
export function rangesOf(numbers: Iterable<number>): NumberRange[] {
	const ranges: { first: number; count: number }[] = [];
	for (const number of numbers) {
		const last = ranges[ranges.length - 1];
		assert(last === undefined || number >= endOf(last), "numbers come in rising order, each once");
		if (last !== undefined && number === endOf(last)) last.count++;
		else ranges.push({ first: number, count: 1 });
	}
	return ranges;
}

/** At most `maximum` ranges that cover all of the given ones: those with the least between them become one. */
export function coarser(ranges: readonly NumberRange[], maximum: number): NumberRange[] {
	assert(maximum >= 1, "at least one range");
	const gaps = ranges.slice(1).map((range, i) => ({ i, gap: range.first - endOf(ranges[i] as NumberRange) }));
	gaps.sort((a, b) => b.gap - a.gap || a.i - b.i);
	const cuts = new Set(gaps.slice(0, maximum - 1).map(({ i }) => i));
	const joined: { first: number; count: number }[] = [];
	for (const [i, range] of ranges.entries()) {
		const last = joined[joined.length - 1];
		if (last === undefined || cuts.has(i - 1)) joined.push({ ...range });
		else last.count = endOf(range) - last.first;
	}
	return joined;
}

export function inRanges(ranges: readonly NumberRange[], number: number): boolean {
	return ranges.some((range) => number >= range.first && number < endOf(range));
}

function endOf(range: NumberRange): number {
	return range.first + range.count;
}
