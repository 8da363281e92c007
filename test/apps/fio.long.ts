/**
 * fio with verification through every engine that works on a file system: buffered, mapped, direct, asynchronous. Each block carries its checksum and place; what is written is read back at
 * once by other jobs, after a remount, and after the daemon was killed amidst the writes.
 */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { cannotMount, must, sleep, TestVolume } from "../support/cairn.ts";
import { MemoryWatch } from "../support/memory.ts";
import { programsFrom } from "../support/packages.ts";

const reason = cannotMount() ?? (await programsFrom(["fio"], "fio"));
const size = process.env["CAIRN_SIZE"] ?? "24m";
const minutes = 60_000;

interface Workload {
	readonly engine: string;
	readonly direct: boolean;
	readonly pattern: string;
	readonly blocks: string;
	readonly depth: number;
	readonly more?: readonly string[];
}

const workloads: readonly Workload[] = [
	{ engine: "sync", direct: false, pattern: "randwrite", blocks: "512-40k", depth: 1, more: ["--fsync=64", "--blockalign=512"] },
	{ engine: "psync", direct: false, pattern: "randrw", blocks: "4k", depth: 1, more: ["--fdatasync=32"] },
	{ engine: "psync", direct: true, pattern: "randwrite", blocks: "4k-64k", depth: 1, more: ["--blockalign=4k"] },
	{ engine: "pvsync2", direct: false, pattern: "write", blocks: "128k", depth: 1, more: ["--end_fsync=1"] },
	{ engine: "mmap", direct: false, pattern: "randwrite", blocks: "4k", depth: 1, more: ["--fsync=256"] },
	{ engine: "libaio", direct: true, pattern: "randwrite", blocks: "4k", depth: 32 },
	{ engine: "libaio", direct: false, pattern: "randrw", blocks: "16k", depth: 8 },
	{ engine: "posixaio", direct: false, pattern: "randwrite", blocks: "8k", depth: 16 },
	{ engine: "io_uring", direct: true, pattern: "randwrite", blocks: "4k", depth: 32 },
	{ engine: "io_uring", direct: false, pattern: "write", blocks: "64k", depth: 16, more: ["--sync=1"] },
	{ engine: "splice", direct: false, pattern: "write", blocks: "64k", depth: 1 },
];

function nameOf({ engine, direct, pattern, blocks, depth }: Workload): string {
	return `${engine}${direct ? "-direct" : ""}-${pattern}-${blocks}-${depth}`;
}

/** `--verify_backlog` reads blocks while others are still being written. */
function words(workload: Workload, folder: string, seed: number): readonly string[] {
	const { engine, direct, pattern, blocks, depth, more } = workload;
	return [
		`--name=${nameOf(workload)}`,
		`--directory=${folder}`,
		`--ioengine=${engine}`,
		`--direct=${direct ? 1 : 0}`,
		`--rw=${pattern}`,
		blocks.includes("-") ? `--bsrange=${blocks}` : `--bs=${blocks}`,
		`--iodepth=${depth}`,
		`--size=${size}`,
		"--numjobs=2",
		`--randseed=${seed}`,
		"--verify=crc32c",
		"--verify_fatal=1",
		"--group_reporting",
		"--output-format=terse",
		...(more ?? []),
	];
}

async function exists(engine: string): Promise<boolean> {
	return (await must("fio", ["--enghelp"])).split(/\s+/).includes(engine);
}

describe("fio", { skip: reason ?? false }, () => {
	let volume: TestVolume;
	let watch: MemoryWatch | undefined;
	after(async () => {
		watch?.stop();
		await volume?.close();
	});
	const seed = Number(process.env["CAIRN_SEED"] ?? Date.now() % 1_000_000);
	const folder = (workload: Workload): string => join(volume.mountpoint, nameOf(workload));
	const run = (workload: Workload, more: readonly string[]): Promise<string> =>
		must("fio", [...words(workload, folder(workload), seed), ...more], { timeoutMs: 30 * minutes });

	test(`written and verified through every engine, seed ${seed}`, async (t) => {
		volume = await TestVolume.start({ disks: 6, redundancy: "rs:4+2" });
		watch = new MemoryWatch(volume);
		const done: Workload[] = [];
		for (const workload of workloads) {
			if (!(await exists(workload.engine))) {
				t.diagnostic(`${nameOf(workload)}: fio has no such engine here`);
				continue;
			}
			mkdirSync(folder(workload));
			const start = performance.now();
			// With mixed reads fio draws other numbers when it reads back beside the writes: --verify_only would then expect other blocks, on any file system.
			await run(workload, ["--do_verify=1", ...(workload.pattern === "randrw" ? [] : ["--verify_backlog=128"])]);
			t.diagnostic(`${nameOf(workload)}: ${((performance.now() - start) / 1000).toFixed(1)} s`);
			done.push(workload);
		}
		assert.ok(done.length >= 6, "most engines are there");
		await volume.remount();
		for (const workload of done) await run(workload, ["--verify_only=1"]);
		t.diagnostic(`memory ${watch.peak("fio")}`);
	});

	test("the daemon is killed amidst the writes of four engines at once", async (t) => {
		const chosen = workloads.filter(
			({ engine, direct }) => ["psync", "mmap", "libaio", "io_uring"].includes(engine) && (direct || engine === "mmap"),
		);
		for (const workload of chosen) {
			await must("rm", ["-rf", folder(workload)]);
			mkdirSync(folder(workload));
		}
		let going = true;
		const writing = Promise.all(chosen.map((workload) => run(workload, ["--do_verify=1", "--loops=4"]))).finally(() => {
			going = false;
		});
		let kills = 0;
		const killing = (async () => {
			while (going && kills < 6) {
				await sleep(1500);
				if (!going) break;
				await volume.successorOf(volume.killDaemon());
				kills++;
			}
		})();
		await Promise.all([writing, killing]);
		assert.ok(kills > 0, "the daemon was killed while fio wrote");
		t.diagnostic(`${kills} kills, memory ${watch?.peak("fio and successors")}`);
		await volume.remount();
		for (const workload of chosen) await run(workload, ["--verify_only=1"]);
		const { corrupt, missing, unrecoverable } = await volume.verify();
		assert.deepEqual([corrupt, missing, unrecoverable], [0, 0, 0], volume.log());
	});
});
