import assert from "node:assert/strict";
import { test } from "node:test";
import { SeededRandom } from "../../test/support/map-records.ts";
import { coarser, inRanges, rangesOf } from "./number-ranges.ts";

test("ranges hold exactly the numbers they were made of; coarser ones hold them all, are no more than asked for, and fill the smallest gaps first", () => {
	const random = new SeededRandom(20_261_121);
	for (let round = 0; round < 300; round++) {
		const numbers = [...new Set(Array.from({ length: random.below(60) }, () => random.below(200)))].sort((a, b) => a - b);
		const ranges = rangesOf(numbers);
		for (let i = 0; i < 200; i++) assert.equal(inRanges(ranges, i), numbers.includes(i));
		const maximum = 1 + random.below(8);
		const few = coarser(ranges, maximum);
		assert.ok(few.length === Math.min(ranges.length, maximum));
		for (const number of numbers) assert.ok(inRanges(few, number));
		const filled = few.reduce((sum, range) => sum + range.count, 0) - numbers.length;
		const gaps = ranges.slice(1).map((range, i) => range.first - (ranges[i]?.first as number) - (ranges[i]?.count as number));
		gaps.sort((a, b) => a - b);
		assert.equal(
			filled,
			gaps.slice(0, Math.max(0, ranges.length - maximum)).reduce((sum, gap) => sum + gap, 0),
		);
	}
	assert.deepEqual(coarser([], 4), []);
	assert.throws(() => rangesOf([1, 1]), /rising/);
});
