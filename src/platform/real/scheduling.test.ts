import assert from "node:assert/strict";
import { execFile, spawnSync } from "node:child_process";
import { release } from "node:os";
import { test } from "node:test";
import { promisify } from "node:util";
import { enginePool, engineThreads, parseThread } from "./scheduling.ts";

test("V8's threads: by name, or the first after the one that keeps time", () => {
	const seen = (id: number, startedTicks: number, name = "node") => ({ id, name, startedTicks });
	const plain = [seen(100, 7), seen(101, 7), seen(102, 7), seen(103, 7), seen(104, 8), seen(105, 8)];
	assert.deepEqual(engineThreads(plain, 100, 2), [102, 103]);
	assert.deepEqual(engineThreads(plain, 100, 0), []);
	assert.deepEqual(engineThreads(plain.toReversed(), 100, 1), [102]);
	const wrapped = [seen(32_766, 7), seen(32_767, 7), seen(300, 7), seen(301, 9), seen(302, 9)];
	assert.deepEqual(engineThreads([...plain, seen(106, 7, "V8Worker"), seen(99, 7, "V8Worker")], 100, 4), [106, 99]);
	assert.equal(engineThreads(wrapped, 32_766, 1).length, 1);
	assert.deepEqual(engineThreads([], 1, 4), []);
});

test("how many there are", () => {
	assert.equal(enginePool([]), 4);
	assert.equal(enginePool(["--enable-source-maps", "--v8-pool-size=1"]), 1);
	assert.equal(enginePool(["--v8-pool-size=3", "--v8-pool-size=2"]), 2);
});

test("a thread's line, whatever its name is", () => {
	const rest = "S 1 1 1 0 -1 4194304 100 0 0 0 1 2 0 0 20 0 11 0 12345 1000 200";
	assert.deepEqual(parseThread(`77 (a) b (c) ${rest}`), { id: 77, name: "a) b (c", startedTicks: 12_345 });
});

/** `nice` (the 19th field) and policy (the 41st) of each thread of a process that has ranked its threads, and the slice of one that goes first. */
const program = `
	import { readdirSync, readFileSync } from "node:fs";
	const { letEngineWait, runFirst } = await import(process.env.MODULE);
	letEngineWait();
	runFirst();
	const fields = readdirSync("/proc/self/task").map((id) => readFileSync(\`/proc/self/task/\${id}/stat\`, "latin1").split(") ")[1].split(" "));
	const own = readFileSync(\`/proc/self/task/\${process.pid}/sched\`, "latin1").match(/^se.slice +: +(\\d+)/m)?.[1];
	const [nices, policies] = [16, 38].map((at) => fields.map((one) => Number(one[at])));
	console.log(JSON.stringify({ nices, policies, own: own === undefined ? null : Number(own) }));
`;

interface Ranked {
	readonly nices: readonly number[];
	readonly policies: readonly number[];
	/** Null: this kernel does not tell. */
	readonly own: number | null;
}

/** @param before the command that starts it, as `chrt`. */
async function ranked(...before: readonly string[]): Promise<Ranked> {
	const module = new URL(`./scheduling.${import.meta.url.endsWith(".ts") ? "ts" : "js"}`, import.meta.url).href;
	const words = [...before, process.execPath, "--v8-pool-size=2", "--input-type=module", "-e", program];
	const { stdout } = await promisify(execFile)(words[0] as string, words.slice(1), { env: { ...process.env, MODULE: module } });
	return JSON.parse(stdout) as Ranked;
}

test("V8's threads of a real process stand back, and nobody else's; a short slice is had", {
	skip: process.platform !== "linux",
}, async () => {
	const { nices, own } = await ranked();
	const usual = Math.min(...nices);
	assert.equal(nices.filter((nice) => nice === Math.min(19, usual + 15)).length, 2);
	assert.equal(nices.filter((nice) => nice === usual).length, nices.length - 2);
	const [major = 0, minor = 0] = release().split(".").map(Number);
	// Only kernels with debugging of the scheduler tell; before 6.12 there are no slices of threads.
	if (own !== null && (major > 6 || (major === 6 && minor >= 12))) assert.equal(own, 100_000);
});

test("the policy that the process was given stays that of all its threads", {
	skip: process.platform !== "linux" || spawnSync("chrt", ["--version"]).status !== 0,
}, async () => {
	const batch = 3;
	const { policies } = await ranked("chrt", "--batch", "0");
	assert.deepEqual(
		policies,
		policies.map(() => batch),
	);
});
