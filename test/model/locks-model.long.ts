/** Hundreds of thousands of random histories: `npm run test:long locks-model`; `--times N` for other seeds. */
import { test } from "node:test";
import { LockHistory } from "./locks-history.ts";

const histories = 200_000;

test(`${histories} random histories of locks`, { timeout: 3_600_000 }, () => {
	const from = Math.floor(Math.random() * 2 ** 40);
	console.log(`seeds ${from} to ${from + histories - 1}`);
	for (let seed = from; seed < from + histories; seed++) new LockHistory(seed).play(20 + (seed % 100));
});
