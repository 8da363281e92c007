/**
 * The fsx suite on a real mount: processes with random operations on their own files (fsx-worker.ts), in rounds; between rounds the volume is
 * remounted, its daemon killed, or the kernel's caches dropped.
 */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { execute, TestVolume } from "../support/cairn.ts";
import { SeededRandom } from "../support/map-records.ts";

const worker = fileURLToPath(new URL("./fsx-worker.js", import.meta.url));

export interface FsxOptions {
	readonly seed: number;
	readonly processes: number;
	readonly rounds: number;
	readonly roundMs: number;
}

/** Answers how many operations there were. */
export async function fsx(options: FsxOptions, log: (line: string) => void): Promise<number> {
	const { seed, processes, rounds, roundMs } = options;
	log(`seed ${seed}: ${processes} processes, ${rounds} rounds of ${roundMs} ms`);
	const random = new SeededRandom(seed);
	const copies = mkdtempSync(join(tmpdir(), "cairn-fsx-"));
	const volume = await TestVolume.start({ disks: 4, redundancy: "rs:2+1" });
	let operations = 0;
	try {
		for (let i = 0; i < processes; i++) for (const base of [volume.mountpoint, copies]) mkdirSync(join(base, `p${i}`));
		for (let round = 0; round <= rounds; round++) {
			// The last round only compares.
			operations += await runRound(volume, copies, options, round, round === rounds ? 0 : roundMs);
			if (round < rounds) await between(volume, random, log);
		}
		const { corrupt, missing, unrecoverable } = await volume.verify();
		assert.deepEqual([corrupt, missing, unrecoverable], [0, 0, 0], "verify finds nothing");
		return operations;
	} finally {
		await volume.close();
		rmSync(copies, { recursive: true, force: true });
	}
}

async function runRound(volume: TestVolume, copies: string, options: FsxOptions, round: number, ms: number): Promise<number> {
	const runs = Array.from({ length: options.processes }, async (_, i) => {
		const words = [
			worker,
			join(volume.mountpoint, `p${i}`),
			join(copies, `p${i}`),
			String(options.seed * 1000 + round * 50 + i),
			String(ms),
		];
		const { code, signal, stdout, stderr } = await execute(process.execPath, words, { timeoutMs: ms + 120_000 });
		assert.equal(code, 0, `seed ${options.seed}, round ${round}, process ${i} (${code ?? signal}):\n${stderr}\n${volume.log()}`);
		return Number(stdout.split(" ")[0]);
	});
	const results = await Promise.allSettled(runs);
	let operations = 0;
	for (const result of results) {
		if (result.status === "rejected") throw result.reason;
		operations += result.value;
	}
	return operations;
}

async function between(volume: TestVolume, random: SeededRandom, log: (line: string) => void): Promise<void> {
	const choice = random.below(4);
	log(["the kernel's caches dropped", "remounted", "daemon killed", "nothing"][choice] as string);
	if (choice === 0) writeFileSync("/proc/sys/vm/drop_caches", "3");
	else if (choice === 1) await volume.remount();
	else if (choice === 2) {
		await volume.kill();
		await execute("umount", ["-l", volume.mountpoint]);
		await volume.mount();
	}
}
