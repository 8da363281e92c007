/** Mounts without fast paths, and without one of them: files, locks, syncs, kill -9 and an upgrade are as ever, and successors have no fast paths either. The long suites run either way: `npm run test:long fsx -- --fast-paths off`. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
	closeSync,
	fsyncSync,
	openSync,
	readdirSync,
	readFileSync,
	readlinkSync,
	readSync,
	renameSync,
	unlinkSync,
	writeFileSync,
	writeSync,
} from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { coderThreadName } from "../../src/platform/real/coder-protocol.ts";
import { CpuLatency } from "../../src/platform/real/cpu-latency.ts";
import { cannotMount, execute, missingPrograms, TestVolume } from "../support/cairn.ts";

const off = "fast_paths=off";

describe("a mount without fast paths", { skip: cannotMount() ?? missingPrograms("flock") ?? false }, () => {
	let volume: TestVolume;
	const canHaveLatency = CpuLatency.open() !== undefined;
	before(async () => {
		volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1", mountOptions: off });
	});
	after(() => volume?.close());

	const at = (name: string): string => join(volume.mountpoint, name);
	/** What `cairn status` says of the mount. */
	const options = async (): Promise<string> => (await volume.status()).mountOptions.join();
	/** Whether the process that serves the volume can keep processors from sleeping deeply. */
	const hasLatency = (): boolean => {
		const [pid] = volume.daemons();
		const folder = `/proc/${pid}/fd`;
		const target = (fd: string): string | undefined => {
			try {
				return readlinkSync(`${folder}/${fd}`);
			} catch {
				return undefined;
			}
		};
		return readdirSync(folder).some((fd) => target(fd) === "/dev/cpu_dma_latency");
	};

	/** Whether V8's threads stand back for those of disks. */
	const hasRanks = (): boolean => {
		const [pid] = volume.daemons();
		const folder = `/proc/${pid}/task`;
		// The nice value is the 19th field (proc_pid_stat(5)).
		const nices = readdirSync(folder).map((id) => Number(readFileSync(`${folder}/${id}/stat`, "latin1").split(") ")[1]?.split(" ")[16]));
		return Math.max(...nices) > Math.min(...nices);
	};

	/** Whether the process that serves the volume has a thread for erasure coding; one that is about to come is waited for. */
	async function hasCoder(isExpected: boolean): Promise<boolean> {
		const [pid] = volume.daemons();
		const folder = `/proc/${pid}/task`;
		const nameOf = (thread: string): string => {
			try {
				return readFileSync(`${folder}/${thread}/comm`, "utf8").trim();
			} catch {
				return "";
			}
		};
		for (let i = 0; ; i++) {
			const has = readdirSync(folder).some((thread) => nameOf(thread) === coderThreadName);
			if (has === isExpected || i === 2000) return has;
			await new Promise((resolve) => setTimeout(resolve, 5));
		}
	}

	/** Writes and syncs small blocks, one of which a later one replaces in part; answers what is there then. */
	function writeBlocks(fd: number, first: number): Buffer {
		const all = Buffer.alloc(24 * 1000);
		for (let i = 0; i < 24; i++) {
			const block = Buffer.alloc(1100, first + i);
			assert.equal(writeSync(fd, block, 0, block.length, i * 1000), block.length);
			if (i % 3 === 0) fsyncSync(fd);
			block.copy(all, i * 1000);
		}
		return Buffer.concat([all, Buffer.alloc(100, first + 23)]);
	}

	test("files and locks are as ever, and stay over a successor and an upgrade", async () => {
		assert.equal(await options(), off);
		const fd = openSync(at("open"), "w+");
		const holder = spawn("flock", ["-F", at("locked"), "sh", "-c", "echo held; exec sleep 600"], { stdio: ["ignore", "pipe", "ignore"] });
		try {
			await new Promise((resolve) => holder.stdout.once("data", resolve));
			const locked = async (): Promise<boolean> => (await execute("flock", ["-n", at("locked"), "true"])).code === 1;
			assert.ok(await locked());
			for (const [first, change] of [
				[1, async () => void (await volume.successorOf(volume.killDaemon()))],
				[50, async () => void (await volume.cairn("upgrade", volume.name))],
			] as const) {
				const written = writeBlocks(fd, first);
				await change();
				assert.equal(await options(), off);
				assert.ok(await locked());
				const read = Buffer.alloc(written.length + 1);
				assert.equal(readSync(fd, read, 0, read.length, 0), written.length);
				assert.ok(read.subarray(0, written.length).equals(written));
			}
		} finally {
			closeSync(fd);
			holder.kill("SIGKILL");
		}
	});

	test("what was acknowledged is there after kill -9, and a mount with fast paths finds the same", async () => {
		const large = Buffer.alloc(3 << 20, "a few stripes ");
		writeFileSync(at("large"), large);
		writeFileSync(at("old name"), "renamed");
		renameSync(at("old name"), at("new name"));
		writeFileSync(at("removed"), "x");
		unlinkSync(at("removed"));
		const fd = openSync(at("synced"), "w");
		const synced = writeBlocks(fd, 100);
		closeSync(fd);
		const check = (): void => {
			assert.deepEqual(readdirSync(volume.mountpoint).sort(), ["large", "locked", "new name", "open", "synced"]);
			assert.ok(readFileSync(at("large")).equals(large));
			assert.equal(readFileSync(at("new name"), "utf8"), "renamed");
			assert.ok(readFileSync(at("synced")).equals(synced));
		};
		check();
		assert.ok(await volume.kill());
		await volume.mount();
		assert.equal(await options(), off);
		check();
		await volume.unmount();
		await volume.mount("-o", "fast_paths=on");
		assert.equal(await options(), "");
		check();
		const { corrupt, missing, unrecoverable } = await volume.verify();
		assert.deepEqual([corrupt, missing, unrecoverable], [0, 0, 0]);
	});

	for (const name of ["disk_lane", "answer_now", "wait_awake", "low_cpu_latency", "coder_thread"]) {
		test(`without ${name} alone what was acknowledged is there after kill -9`, async () => {
			const one = `${name}=off`;
			const again = async (): Promise<void> => volume.mount("-o", `fast_paths=on,${one}`);
			await volume.unmount();
			await again();
			assert.equal(await options(), one);
			assert.equal(hasLatency(), canHaveLatency && name !== "low_cpu_latency");
			assert.equal(hasRanks(), name !== "low_cpu_latency");
			const fd = openSync(at(name), "w");
			const synced = writeBlocks(fd, 200);
			closeSync(fd);
			// Some segments while the coder comes up, some with it.
			const parts = [randomBytes(5 << 20), randomBytes(5 << 20)];
			const large = openSync(at("many segments"), "w");
			for (const part of parts) {
				assert.equal(writeSync(large, part), part.length);
				fsyncSync(large);
				assert.equal(await hasCoder(name !== "coder_thread"), name !== "coder_thread");
			}
			closeSync(large);
			renameSync(at(name), at(`${name} renamed`));
			assert.ok(await volume.kill());
			await again();
			assert.equal(await options(), one);
			assert.ok(readFileSync(at(`${name} renamed`)).equals(synced));
			assert.ok(readFileSync(at("many segments")).equals(Buffer.concat(parts)));
			unlinkSync(at(`${name} renamed`));
			unlinkSync(at("many segments"));
		});
	}
});
