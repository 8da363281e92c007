#!/usr/bin/env node
/**
 * The longest turns of a daemon's event loop: how long a request that comes meanwhile has to wait, and for what.
 *
 *   TURNS=FILE node --import ./bench/turns.mjs dist/src/daemon/main.js NAME DIR …     watched; kill -USR2 PID begins, again ends and writes FILE
 *   node bench/turns.mjs FILE [N]                                                     tells of the N longest (default 10)
 *
 * Turns are measured by the processor time of the main thread, so that a busy machine does not make them longer; those below 1.5 ms are not kept. The profile says what the main thread was at.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { Session } from "node:inspector";
import { isMainThread } from "node:worker_threads";
import koffi from "koffi";

const longUs = 1500;
const samplingUs = 250;
const threadCpuClock = 3;

function watch(path) {
	const gettime = koffi.load("libc.so.6").func("int clock_gettime(int clock, void *time)");
	const time = new BigInt64Array(2);
	const cpuUs = () => {
		gettime(threadCpuClock, time);
		return Number(time[0]) * 1e6 + Number(time[1]) / 1e3;
	};
	const wallUs = () => Number(process.hrtime.bigint()) / 1e3;
	const session = new Session();
	session.connect();
	const ask = (method, words) =>
		new Promise((resolve, reject) => session.post(method, words, (error, result) => (error ? reject(error) : resolve(result))));
	let turns;
	let last = { wall: wallUs(), cpu: cpuUs() };
	setInterval(() => {
		const now = { wall: wallUs(), cpu: cpuUs() };
		if (now.cpu - last.cpu > longUs) turns?.push({ from: last.wall, to: now.wall, cpuUs: now.cpu - last.cpu });
		last = now;
	}, 1).unref();
	process.on("SIGUSR2", async () => {
		if (turns === undefined) {
			await ask("Profiler.enable");
			await ask("Profiler.setSamplingInterval", { interval: samplingUs });
			await ask("Profiler.start");
			// Starting it was a long turn of its own.
			last = { wall: wallUs(), cpu: cpuUs() };
			turns = [];
		} else {
			const { profile } = await ask("Profiler.stop");
			writeFileSync(path, JSON.stringify({ turns, profile }));
			turns = undefined;
		}
	});
}

function report(path, most) {
	const { turns, profile } = JSON.parse(readFileSync(path, "utf8"));
	const nodes = new Map(profile.nodes.map((node) => [node.id, node]));
	const parents = new Map(profile.nodes.flatMap((node) => (node.children ?? []).map((child) => [child, node.id])));
	const nameOf = ({ callFrame: { functionName, url, lineNumber } }) =>
		`${functionName || "(anonymous)"} ${url.split("/").slice(-2).join("/")}:${lineNumber + 1}`;
	const pathOf = (id) => {
		const path = [];
		for (let at = id; at !== undefined; at = parents.get(at)) path.unshift(nodes.get(at));
		const ours = path.filter(({ callFrame }) => callFrame.url.includes("dist/")).slice(0, 6);
		return ours.length > 0 ? ours.map(nameOf).join(" > ") : nameOf(nodes.get(id));
	};
	let at = profile.startTime;
	const samples = profile.samples.map((id, i) => {
		at += profile.timeDeltas[i];
		return { at, id };
	});
	const seconds = (profile.endTime - profile.startTime) / 1e6;
	const longer = [2, 5, 10, 20].map((ms) => `${turns.filter((turn) => turn.cpuUs > ms * 1000).length} above ${ms} ms`);
	console.log(`${seconds.toFixed(1)} s: ${longer.join(", ")}`);
	for (const turn of [...turns].sort((a, b) => b.cpuUs - a.cpuUs).slice(0, most)) {
		const counts = new Map();
		for (const { at, id } of samples) if (at > turn.from && at <= turn.to) counts.set(pathOf(id), (counts.get(pathOf(id)) ?? 0) + 1);
		console.log(`${(turn.cpuUs / 1000).toFixed(1)} ms`);
		for (const [path, count] of [...counts].sort((a, b) => b[1] - a[1]).slice(0, 4)) console.log(`    ${count} ${path}`);
	}
}

const { TURNS } = process.env;
if (TURNS === undefined) report(process.argv[2], Number(process.argv[3] ?? 10));
else if (isMainThread) watch(TURNS);
