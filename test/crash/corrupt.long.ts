/** Files of disks are damaged in any way, again and again (`npm run test:long corrupt`, `--times 2000`, `--seed 7`). */
import { type TestContext, test } from "node:test";
import { corruptFew, corruptMany, type Found, type Moment } from "./corrupt.ts";

const base = Number(process.env["CAIRN_SEED"] ?? 1) * 1_000_000;
const times = Number(process.env["CAIRN_TIMES"] ?? 600);

/** Goes through all of them, so that one failure does not hide another. */
async function all(count: number, one: (number: number) => Promise<void>): Promise<void> {
	const failures: unknown[] = [];
	for (let number = 0; number < count; number++) await one(number).catch((error: unknown) => failures.push(error));
	if (failures.length > 0)
		throw new AggregateError(
			failures,
			`${failures.length} of ${count}:\n${failures.map((error) => (error as Error).message).join("\n\n")}`,
		);
}

for (const [i, moment] of (["unmounted", "killed", "mounted"] as Moment[]).entries())
	test(`few disks, ${moment}, seed ${base}`, () => all(times, (number) => corruptFew(base + 100_000 * i + number, moment)));

test(`many disks, seed ${base}`, async (t: TestContext) => {
	const tally: Found = { refused: 0, right: 0, errors: 0 };
	await all(times, (number) => corruptMany(base + 500_000 + number, number % 2 === 0 ? "unmounted" : "killed", tally));
	t.diagnostic(`mounts refused ${tally.refused}, files right ${tally.right}, errors ${tally.errors}`);
});
