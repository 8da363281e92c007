/** Samples; `npm run test:long crash` plays many more. */
import { test } from "node:test";
import {
	besideAllocation,
	besideCompaction,
	byPath,
	copiesKeepTheirOwn,
	conversionEndsAt,
	stepsOfConversion,
	underLoad,
} from "./protection.ts";

test("protection is asked for by path, inherited, taken back, and told", () => byPath(920));

test("files are converted while compaction moves what they are made of", () => besideCompaction(924));

test("contents that are leaving their inode are converted", () => besideAllocation(925));

test("a copy is as safe as it is asked to be", () => copiesKeepTheirOwn(926));

test("files are rewritten while they are used, and survive what they are said to survive", () => underLoad(921));

test("power cuts and kills while contents are rewritten", async () => {
	const { first, last } = await stepsOfConversion(922);
	for (let i = 0; i < 8; i++)
		await conversionEndsAt(922, i % 2 === 0 ? "cut" : "kill", Math.floor(first + ((last - first) * (i + 6)) / 15));
});
