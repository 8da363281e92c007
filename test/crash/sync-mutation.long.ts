/**
 * Turns every sync call of the source off, one at a time: some power cut of the scripted life must then break a promise. A sync whose absence nothing notices is either superfluous or
 * untested. `npm run test:long sync-mutation`.
 */
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { describe, play, type Run } from "./power-cut.ts";

const seeds = [1, 2, 3, 4, 5, 6];
const whole: Run = { seed: 1, endAt: undefined, how: "cut", ignored: [], lost: [] };

let sites: readonly string[] = [];

before(async () => {
	sites = (await play(whole)).syncSites;
});

test("every sync call is needed", async (t) => {
	assert(sites.length > 5, `sync sites of the scripted life: ${sites.join(", ")}`);
	for (const site of sites) {
		await t.test(`without ${site} a promise is broken`, async () => {
			const found = await firstFailure(site);
			assert(found !== undefined, `no power cut of ${seeds.length} lives noticed that ${site} does nothing`);
		});
	}
});

async function firstFailure(site: string): Promise<string | undefined> {
	for (const seed of seeds) {
		const base: Run = { ...whole, seed, ignored: [site] };
		let range: { firstStep: number; lastStep: number };
		try {
			range = await play(base);
		} catch (error) {
			return `${describe(base)}: ${(error as Error).message}`;
		}
		for (const endAt of scattered(range.firstStep + 1, range.lastStep)) {
			const run: Run = { ...base, endAt };
			try {
				await play(run);
			} catch (error) {
				return `${describe(run)}: ${(error as Error).message}`;
			}
		}
	}
	return undefined;
}

/** All numbers of [first, last], in an order that reaches every part early: the failure that is looked for is seldom at the beginning. */
function* scattered(first: number, last: number): Generator<number> {
	const stride = 16;
	for (let offset = 0; offset < stride; offset++) {
		for (let at = first + ((offset * 7) % stride); at <= last; at += stride) yield at;
	}
}
