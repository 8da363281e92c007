/** Hundreds of thousands of random histories: `npm run test:long locks-model`; `--times N` for other seeds. */
import { test } from "node:test";
import { AdmissionHistory } from "./admissions-history.ts";
import { LockHistory } from "./locks-history.ts";

const histories = 200_000;

test(`${histories} random histories of locks`, { timeout: 3_600_000 }, () => {
	const from = Math.floor(Math.random() * 2 ** 40);
	console.log(`seeds ${from} to ${from + histories - 1}`);
	for (let seed = from; seed < from + histories; seed++) new LockHistory(seed, seed % 2 === 0 ? 1 : 3).play(20 + (seed % 100));
});

test(`${histories / 2} random histories of operations, opens, shares and leases`, { timeout: 3_600_000 }, async () => {
	const from = Math.floor(Math.random() * 2 ** 40);
	console.log(`seeds ${from} to ${from + histories / 2 - 1}`);
	for (let seed = from; seed < from + histories / 2; seed++) await new AdmissionHistory(seed).play(20 + (seed % 100));
});
