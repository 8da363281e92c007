/** Kills daemons behind a living mount, under load: what the quick and the long suite share. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { execute, sleep, type TestVolume } from "../support/cairn.ts";
import { randomOf } from "./kill-model.ts";

const workerProgram = fileURLToPath(new URL("keeper-worker.js", import.meta.url));

const searchProgram = fileURLToPath(new URL("keeper-mapped.js", import.meta.url));

/** A search that waits in the daemon for the kernel, and the kernel for the daemon. */
export async function search(path: string): Promise<{ said(): Promise<string> }> {
	const child = spawn(process.execPath, [searchProgram, path], { stdio: ["ignore", "pipe", "ignore"] });
	let said = "";
	const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
	child.stdout.on("data", (bytes) => {
		said += String(bytes);
	});
	while (said === "") await sleep(20);
	await sleep(100);
	return {
		said: async () => {
			await ended;
			return said;
		},
	};
}

export interface KeeperSuite {
	readonly seed: number;
	readonly kills: number;
	readonly workers: number;
	/** Rounds of that many kills: workers compare everything at the end of each, and begin anew. */
	readonly killsPerRound: number;
}

export interface KeeperResult {
	readonly operations: number;
	/** From a kill to the first answer of a successor, the longest. */
	readonly longestMs: number;
}

export async function keeperSuite(volume: TestVolume, suite: KeeperSuite, log: (line: string) => void): Promise<KeeperResult> {
	const random = randomOf(suite.seed);
	let [operations, longestMs, kills] = [0, 0, 0];
	for (let round = 0; kills < suite.kills; round++) {
		const stop = join(volume.base, `stop-${round}`);
		const running = Array.from({ length: suite.workers }, (_, i) => {
			const folder = join(volume.mountpoint, `w${round}-${i}`);
			mkdirSync(folder);
			return execute(process.execPath, [workerProgram, folder, String(suite.seed * 100 + round * 10 + i), stop], { timeoutMs: 3600_000 });
		});
		const failed = Promise.race(running.map(async (one) => assert.equal((await one).code, 0, "a worker ended before its time")));
		const killing = killSome(volume, random, Math.min(suite.killsPerRound, suite.kills - kills));
		const result = await Promise.race([killing, failed.then(() => 0)]).finally(() => writeFileSync(stop, ""));
		longestMs = Math.max(longestMs, result);
		kills += suite.killsPerRound;
		for (const { code, signal, stdout, stderr } of await Promise.all(running)) {
			assert.equal(code, 0, `seed ${suite.seed}, round ${round}: a worker ended with ${code ?? signal}:\n${stderr}\n${volume.log()}`);
			operations += Number(stdout);
		}
		log(`${Math.min(kills, suite.kills)} kills, ${operations} operations, longest wait ${Math.round(longestMs)} ms`);
		for (const name of readdirSync(volume.mountpoint)) rmSync(join(volume.mountpoint, name), { recursive: true });
	}
	return { operations, longestMs };
}

/** Answers the longest wait for a successor in milliseconds. */
async function killSome(volume: TestVolume, random: (bound: number) => number, kills: number): Promise<number> {
	let longestMs = 0;
	for (let i = 0; i < kills; i++) {
		// Long enough to count as having served; a keeper gives up on daemons that die one after the other.
		await sleep(1100 + random(900));
		const atMs = performance.now();
		const before = volume.killDaemon();
		await volume.successorOf(before);
		longestMs = Math.max(longestMs, performance.now() - atMs);
	}
	return longestMs;
}
