/** Every write and sync boundary of a volume's life, by power cut and by the death of the process. `npm run test:long crash`. */
import { test } from "node:test";
import { describe, play, type Run } from "./power-cut.ts";

const seed = Number(process.env.CAIRN_SEED ?? 1);
const whole: Run = { seed, endAt: undefined, how: "cut", ignored: [], lost: [] };

for (const how of ["cut", "kill"] as const) {
	test(`${how} at every step, seed ${seed}`, async () => {
		const { firstStep, lastStep } = await play(whole);
		for (let endAt = firstStep + 1; endAt <= lastStep; endAt++) {
			const run: Run = { ...whole, how, endAt };
			await play(run).catch((error: unknown) => {
				throw new Error(`${describe(run)}: ${(error as Error).message}`, { cause: error });
			});
		}
	});
}
