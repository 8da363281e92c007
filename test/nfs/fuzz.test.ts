/** A short share of `npm run test:long nfs-fuzz`. */
import { test } from "node:test";
import { SeededRandom } from "../support/map-records.ts";
import { fuzzDecoders } from "./fuzz.ts";
import { fuzzServer } from "./fuzz-server.ts";

const seed = 20_261_121;

test("decoders take whatever comes", () => {
	const random = new SeededRandom(seed);
	for (let i = 0; i < 10_000; i++) fuzzDecoders(random, i);
});

test("a server answers whatever comes", () => fuzzServer(seed, 1500));
