/** Space runs out at many moments of a life (`npm run test:long no-space`, `--times 500`, `--seed 7`). */
import { test } from "node:test";
import { type Lack, lifeMs, noSpaceAt } from "./no-space.ts";

const times = Number(process.env["CAIRN_TIMES"] ?? 150);
const seed = Number(process.env["CAIRN_SEED"] ?? Date.now() % 1_000_000);

for (const lack of ["all", "one", "call"] satisfies Lack[]) {
	test(`${lack}: ${times} moments, from seed ${seed}`, async () => {
		for (let i = 0; i < times; i++) await noSpaceAt(seed + i, lack, (lifeMs * (i + 0.5)) / times);
	});
}
