/** Samples; `npm run test:long crash` plays many more. */
import { test } from "node:test";
import { endsAt, everySecondSmallFile, fullOfHoles, overwrittenParts, sharedChunks, stepsOfLife } from "./compaction.ts";

test("deleting every second small file gives the space back", () => everySecondSmallFile(900));

test("overwriting parts of a file gives back what they took", () => overwrittenParts(901));

test("chunks that files share are moved once, and what nobody refers to comes back", () => sharedChunks(902));

test("a full volume of which every second file was deleted takes as much again, at once", () => fullOfHoles(903));

test("power cuts and kills while segments are compacted", async () => {
	const steps = await stepsOfLife(904);
	for (let i = 0; i < 8; i++) {
		const step = Math.floor(steps * (0.15 + (0.85 * i) / 8)) + i;
		await endsAt(904, i % 2 === 0 ? "cut" : "kill", step);
	}
});
