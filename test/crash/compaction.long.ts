/** Power cuts and kills at many steps of lives in which segments are compacted; other seeds of every life. `npm run test:long crash`; CAIRN_SEED, CAIRN_STRIDE (1 = every step). */
import { test } from "node:test";
import { endsAt, everySecondSmallFile, fullOfHoles, overwrittenParts, sharedChunks, stepsOfLife } from "./compaction.ts";

const seed = Number(process.env.CAIRN_SEED ?? 2_000);
const stride = Number(process.env.CAIRN_STRIDE ?? 7);

for (const how of ["cut", "kill"] as const) {
	test(`${how} while segments are compacted, seed ${seed}, every ${stride} steps`, async () => {
		const steps = await stepsOfLife(seed);
		for (let step = 1 + (how === "cut" ? 0 : 3); step <= steps; step += stride) await endsAt(seed, how, step);
	});
}

for (let i = 1; i <= 6; i++) {
	test(`lives with compaction, seed ${seed + i}`, async () => {
		await everySecondSmallFile(seed + i);
		await overwrittenParts(seed + i);
		await sharedChunks(seed + i);
		await fullOfHoles(seed + i);
	});
}
