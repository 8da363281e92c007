/**
 * Disk images of virtual machines: qemu's own tools make, fill, convert, compare and check them on a mount, with every cache mode and every way of asynchronous I/O. The same commands work on images beside the
 * mount, which must hold the same in the end: after a remount, and after the daemon was killed while they were written.
 */
import assert from "node:assert/strict";
import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { cannotMount, must, sleep, TestVolume } from "../support/cairn.ts";
import { SeededRandom } from "../support/map-records.ts";
import { MemoryWatch } from "../support/memory.ts";
import { programsFrom } from "../support/packages.ts";

const reason = cannotMount() ?? (await programsFrom(["qemu-utils"], "qemu-img", "qemu-io"));
const seed = Number(process.env["CAIRN_SEED"] ?? Date.now() % 1_000_000);
const sizeBytes = 192 * 1024 * 1024;
const minutes = 60_000;

interface Mode {
	readonly cache: string;
	readonly aio: string;
}

/** qemu refuses `native` with a host cache. */
const modes: readonly Mode[] = [
	{ cache: "writeback", aio: "threads" },
	{ cache: "writethrough", aio: "threads" },
	{ cache: "none", aio: "native" },
	{ cache: "directsync", aio: "native" },
	{ cache: "none", aio: "io_uring" },
	{ cache: "writeback", aio: "io_uring" },
	{ cache: "none", aio: "threads" },
];

/** Writes with patterns, zeros, discards, flushes, at whole sectors; some are asynchronous and overtake nothing, as a flush stands between them. */
function randomCommands(random: SeededRandom, count: number): string[] {
	const commands: string[] = [];
	for (let i = 0; i < count; i++) {
		const length = 512 * (1 + random.below(random.below(4) === 0 ? 2048 : 64));
		const offset = 512 * random.below((sizeBytes - length) / 512);
		const choice = random.below(20);
		if (choice < 13) commands.push(`write -P ${1 + random.below(255)} ${offset} ${length}`);
		else if (choice < 15) commands.push(`write -z ${offset} ${length}`);
		else if (choice < 16) commands.push(`write -zu ${offset} ${length}`);
		else if (choice < 18) commands.push(`discard ${offset} ${length}`, `write -z ${offset} ${length}`);
		else commands.push("flush");
	}
	return commands;
}

describe("qemu's disk images", { skip: reason ?? false }, () => {
	let volume: TestVolume;
	let watch: MemoryWatch | undefined;
	after(async () => {
		watch?.stop();
		await volume?.close();
	});
	const image = (...words: readonly string[]): Promise<string> => must("qemu-img", words, { timeoutMs: 20 * minutes });
	const same = (first: string, second: string): Promise<string> => image("compare", "-s", first, second);
	const both = (name: string): [inside: string, beside: string] => [join(volume.mountpoint, name), join(volume.base, "beside", name)];

	async function io(path: string, format: string, { cache, aio }: Mode, commands: readonly string[]): Promise<void> {
		const words = commands.flatMap((command) => ["-c", command]);
		const said = await must("qemu-io", ["-f", format, "-t", cache, "-i", aio, "-d", "unmap", ...words, path], { timeoutMs: 20 * minutes });
		// It ends with 0 whatever its commands met.
		assert.doesNotMatch(said, /failed|error|Pattern verification/i, `qemu-io on ${path}`);
	}

	test(`commands at random in every mode, seed ${seed}`, async (t) => {
		volume = await TestVolume.start({ disks: 6, redundancy: "rs:4+2" });
		watch = new MemoryWatch(volume);
		mkdirSync(join(volume.base, "beside"));
		const random = new SeededRandom(seed);
		for (const format of ["raw", "qcow2"]) {
			const [inside, beside] = both(`random.${format}`);
			for (const path of [inside, beside]) await image("create", "-q", "-f", format, path, String(sizeBytes));
			for (const mode of modes) {
				const start = performance.now();
				const commands = randomCommands(random, 150);
				await Promise.all([io(inside, format, mode, commands), io(beside, format, mode, commands)]);
				await image("compare", "-f", format, "-F", format, inside, beside);
				t.diagnostic(`${format}, ${mode.cache}, ${mode.aio}: ${((performance.now() - start) / 1000).toFixed(1)} s`);
			}
			if (format === "qcow2") await image("check", "-q", inside);
		}
		await volume.remount();
		for (const name of ["random.raw", "random.qcow2"]) await image("compare", ...both(name));
		await image("check", "-q", both("random.qcow2")[0]);
		await image("compare", both("random.raw")[0], both("random.raw")[1]);
		t.diagnostic(`memory ${watch.peak("qemu-io")}`);
	});

	test("converted, compressed, grown, rebased, committed, snapshots", async (t) => {
		const [source] = both("random.qcow2");
		const at = (name: string): string => join(volume.mountpoint, name);
		const start = performance.now();
		for (const [name, words] of Object.entries({
			"out-of-order.raw": ["-O", "raw", "-t", "none", "-T", "none", "-W", "-m", "16"],
			"through.qcow2": ["-O", "qcow2", "-t", "writethrough"],
			"compressed.qcow2": ["-O", "qcow2", "-c"],
			"allocated.raw": ["-O", "raw", "-o", "preallocation=falloc"],
			"full.qcow2": ["-O", "qcow2", "-o", "preallocation=full"],
			"metadata.qcow2": ["-O", "qcow2", "-o", "preallocation=metadata,cluster_size=4k"],
			"other.vmdk": ["-O", "vmdk"],
			"other.vdi": ["-O", "vdi"],
			"other.vhdx": ["-O", "vhdx"],
		})) {
			await image("convert", "-q", ...words, source, at(name));
			// What is rounded up to other units has zeros behind: not strict there.
			await image("compare", source, at(name));
			if (/qcow2|vdi|vhdx|vmdk/.test(name)) await image("check", "-q", at(name));
		}
		assert.ok(statSync(at("allocated.raw")).blocks * 512 >= sizeBytes, "allocated in full");
		assert.ok(statSync(at("out-of-order.raw")).blocks * 512 < sizeBytes, "with holes");
		await same(at("out-of-order.raw"), both("random.raw")[0]).catch(() => image("compare", at("out-of-order.raw"), source));
		// The kernel's answers about holes are those of the program that made them.
		const map = JSON.parse(await image("map", "--output=json", "-f", "raw", at("out-of-order.raw"))) as { length: number; data: boolean }[];
		assert.equal(
			map.reduce((sum, { length }) => sum + length, 0),
			sizeBytes,
		);
		assert.ok(map.some(({ data }) => data) && map.some(({ data }) => !data));

		const overlay = at("overlay.qcow2");
		await image("create", "-q", "-f", "qcow2", "-b", source, "-F", "qcow2", overlay);
		await io(overlay, "qcow2", { cache: "none", aio: "native" }, ["write -P 77 1M 3M", "write -z 100M 5M", "flush"]);
		await image("snapshot", "-c", "before", overlay);
		await io(overlay, "qcow2", { cache: "none", aio: "io_uring" }, ["write -P 78 2M 9M", "flush", "read -P 77 1M 1M", "read -P 78 2M 9M"]);
		await image("snapshot", "-a", "before", overlay);
		await io(overlay, "qcow2", { cache: "writeback", aio: "threads" }, ["read -P 77 1M 3M", "read -P 0 100M 5M"]);
		await image("snapshot", "-d", "before", overlay);
		await image("rebase", "-q", "-b", at("through.qcow2"), "-F", "qcow2", overlay);
		await image("convert", "-q", "-O", "raw", overlay, join(volume.base, "beside/overlay.raw"));
		await image("commit", "-q", overlay);
		await image("compare", at("through.qcow2"), join(volume.base, "beside/overlay.raw"));
		for (const name of ["through.qcow2", "out-of-order.raw"]) {
			await image("resize", "-q", at(name), "+64M");
			await image("resize", "-q", "--shrink", at(name), String(sizeBytes));
		}
		await volume.remount();
		await image("compare", at("through.qcow2"), join(volume.base, "beside/overlay.raw"));
		await image("compare", at("out-of-order.raw"), source);
		for (const name of ["through.qcow2", "overlay.qcow2", "full.qcow2", "metadata.qcow2"]) await image("check", "-q", at(name));
		for (const aio of ["native", "io_uring"]) {
			const words = [
				"bench",
				"-q",
				"-w",
				"-c",
				"2000",
				"-d",
				"32",
				"-s",
				"4096",
				"-S",
				"20480",
				"-t",
				"none",
				"-i",
				aio,
				"--flush-interval=256",
			];
			await image(...words, "-f", "qcow2", "--pattern=119", at("full.qcow2"));
		}
		await image("check", "-q", at("full.qcow2"));
		t.diagnostic(`${((performance.now() - start) / 1000).toFixed(1)} s, memory ${watch?.peak("qemu-img")}`);
	});

	test("the daemon is killed while images are written", async (t) => {
		const random = new SeededRandom(seed + 1);
		const format = "qcow2";
		let going = true;
		let kills = 0;
		const killing = (async () => {
			while (going) {
				await sleep(500 + random.below(1500));
				if (!going) break;
				await volume.successorOf(volume.killDaemon());
				kills++;
			}
		})();
		try {
			for (let round = 0; round < 6 || kills === 0; round++) {
				const [inside, beside] = both(`killed${round}.${format}`);
				for (const path of [inside, beside]) await image("create", "-q", "-f", format, path, String(sizeBytes));
				const mode = modes[round % modes.length] as Mode;
				const commands = randomCommands(random, 200);
				await Promise.all([io(inside, format, mode, commands), io(beside, format, mode, commands)]);
				await image("convert", "-q", "-O", "raw", "-t", "none", "-W", inside, join(volume.mountpoint, `killed${round}.raw`));
			}
		} finally {
			going = false;
			await killing;
		}
		await volume.remount();
		for (let round = 0; round < 6; round++) {
			const [inside, beside] = both(`killed${round}.${format}`);
			await image("check", "-q", inside);
			await image("compare", inside, beside);
			await image("compare", join(volume.mountpoint, `killed${round}.raw`), beside);
		}
		const { corrupt, missing, unrecoverable } = await volume.verify();
		assert.deepEqual([corrupt, missing, unrecoverable], [0, 0, 0], volume.log());
		t.diagnostic(`${kills} kills, memory ${watch?.peak("qemu and successors")}`);
	});
});
