/** `npm run test:long nfs-fuzz -- --inputs 10000000 --calls 20000 --seed 1`: decoders, then a server, against hostile input. */
import { test } from "node:test";
import { SeededRandom } from "../support/map-records.ts";
import { fuzzDecoders } from "./fuzz.ts";
import { fuzzServer } from "./fuzz-server.ts";

const seed = Number(process.env["CAIRN_SEED"] ?? 1);
const inputs = Number(process.env["CAIRN_INPUTS"] ?? 10_000_000);
const calls = Number(process.env["CAIRN_CALLS"] ?? 20_000);

test(`decoders: ${inputs} inputs, seed ${seed}`, (t) => {
	const random = new SeededRandom(seed);
	for (let i = 0; i < inputs; i++) fuzzDecoders(random, i % 0xffff_ffff);
	t.diagnostic(`${inputs} inputs`);
});

for (let round = 0; round < 10; round++)
	test(`a server: ${calls / 10} calls, seed ${seed + round}`, () => fuzzServer(seed + round, Math.ceil(calls / 10)));
