/** `npm run test:long fsx -- [--minutes N] [--seed N] [--processes N] [--fast-paths off] [--native-reads on]`: rounds of half a minute, a new volume every ten. */
import { test } from "node:test";
import { askedMountOptions, cannotMount } from "../support/cairn.ts";
import { fsx } from "./fsx.ts";

const minutes = Number(process.env["CAIRN_MINUTES"] ?? "15");
const processes = Number(process.env["CAIRN_PROCESSES"] ?? "4");
const first = Number(process.env["CAIRN_SEED"] ?? String(Date.now() % 1_000_000));
const native = askedMountOptions().includes("native_reads=on");
const volumes = Math.max(1, Math.round(minutes / 5));

for (let i = 0; i < volumes; i++) {
	test(`random operations, seed ${first + i}`, { skip: cannotMount() ?? false }, async (t) => {
		const rounds = Math.max(1, Math.round((minutes * 2) / volumes));
		const done = await fsx({ seed: first + i, processes, rounds, roundMs: 30_000, native }, (line) => t.diagnostic(line));
		t.diagnostic(`${done} operations`);
	});
}
