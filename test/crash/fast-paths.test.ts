/** A mount with `-o fast_paths=off`: files, locks, syncs, kill -9 and an upgrade are as ever, and successors have no fast paths either. The long suites run either way: `npm run test:long fsx -- --fast-paths off`. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import {
	closeSync,
	fsyncSync,
	openSync,
	readdirSync,
	readFileSync,
	readSync,
	renameSync,
	unlinkSync,
	writeFileSync,
	writeSync,
} from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { cannotMount, execute, missingPrograms, TestVolume } from "../support/cairn.ts";

const off = "fast_paths=off";

describe("a mount without fast paths", { skip: cannotMount() ?? missingPrograms("flock") ?? false }, () => {
	let volume: TestVolume;
	before(async () => {
		volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1", mountOptions: off });
	});
	after(() => volume?.close());

	const at = (name: string): string => join(volume.mountpoint, name);
	/** What the process that serves the volume was told. */
	const isOff = (): boolean => {
		const [pid] = volume.daemons();
		return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").includes(off);
	};

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
		assert.ok(isOff());
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
				assert.ok(isOff());
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
		assert.ok(isOff());
		check();
		await volume.unmount();
		await volume.mount("-o", "fast_paths=on");
		assert.ok(!isOff());
		check();
		const { corrupt, missing, unrecoverable } = await volume.verify();
		assert.deepEqual([corrupt, missing, unrecoverable], [0, 0, 0]);
	});
});
