/** `npm run test:long nfs-locks-crash -- --seeds 200 --deaths 20 --seed 1`: locks of clients through deaths of the server and of its machine at any platform call. */
import { test } from "node:test";
import { crashLocks } from "./locks-crash.ts";

const seed = Number(process.env["CAIRN_SEED"] ?? 1);
const seeds = Number(process.env["CAIRN_SEEDS"] ?? 200);
const deaths = Number(process.env["CAIRN_DEATHS"] ?? 20);

test(`${seeds} seeds from ${seed}, ${deaths} deaths each`, async (t) => {
	let had = 0;
	let refused = 0;
	for (let i = 0; i < seeds; i++) {
		const count = await crashLocks(seed + i, deaths);
		had += count.had;
		refused += count.refused;
	}
	t.diagnostic(`${had} locks had again after power cuts, ${refused} refused because the record of the last moments was lost`);
});
