/** Power cuts and kills at many steps while contents are rewritten. `npm run test:long crash`; CAIRN_SEED, CAIRN_STRIDE (1 = every step). */
import { test } from "node:test";
import { byPath, conversionEndsAt, stepsOfConversion, underLoad } from "./protection.ts";

const seed = Number(process.env.CAIRN_SEED ?? 3_000);
const stride = Number(process.env.CAIRN_STRIDE ?? 3);

for (const how of ["cut", "kill"] as const) {
	test(`${how} while contents are rewritten, seed ${seed}, every ${stride} steps`, async () => {
		const { first, last } = await stepsOfConversion(seed);
		for (let step = first + (how === "cut" ? 1 : 2); step <= last; step += stride) await conversionEndsAt(seed, how, step);
	});
}

for (let i = 1; i <= 6; i++) {
	test(`protection by path, seed ${seed + i}`, async () => {
		await byPath(seed + i);
		await underLoad(seed + i);
	});
}
