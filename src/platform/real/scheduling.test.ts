import assert from "node:assert/strict";
import { execFile } from "node:child_process";
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

/** `nice` (the 19th field) of each thread of a process that has ranked its threads, and that of a worker of it. */
const program = `
	import { readdirSync, readFileSync } from "node:fs";
	import { Worker, isMainThread, parentPort } from "node:worker_threads";
	const { letEngineWait, runFirst } = await import(process.env.MODULE);
	letEngineWait();
	runFirst();
	const all = readdirSync("/proc/self/task").map((id) => readFileSync(\`/proc/self/task/\${id}/stat\`, "latin1").split(") ")[1].split(" ")[16]);
	const own = readFileSync(\`/proc/self/task/\${process.pid}/sched\`, "latin1").match(/^se.slice +: +(\\d+)/m)?.[1];
	console.log(JSON.stringify({ all: all.map(Number), own: own === undefined ? null : Number(own) }));
`;

test("V8's threads of a real process stand back, and nobody else's; a short slice is had", {
	skip: process.platform !== "linux",
}, async () => {
	const module = new URL(`./scheduling.${import.meta.url.endsWith(".ts") ? "ts" : "js"}`, import.meta.url).href;
	const run = promisify(execFile);
	const { stdout } = await run(process.execPath, ["--v8-pool-size=2", "--input-type=module", "-e", program], {
		env: { ...process.env, MODULE: module },
	});
	const { all, own } = JSON.parse(stdout) as { all: number[]; own: number | null };
	const usual = Math.min(...all);
	assert.equal(all.filter((nice) => nice === Math.min(19, usual + 15)).length, 2);
	assert.equal(all.filter((nice) => nice === usual).length, all.length - 2);
	// Only kernels with debugging of the scheduler tell; before 6.12 there are no slices of threads.
	if (own !== null && own < 700_000) assert.equal(own, 100_000);
});
