/** One disk of a mounted volume hangs in the kernel, and the daemon is killed while its thread waits there. The long suite plays the rest of such a day. */
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { cannotMount, execute, sleep, TestVolume } from "../support/cairn.ts";
import { HangingDisk } from "../support/hanging-disk.ts";

const writeSynced =
	'const fs = require("node:fs"); const fd = fs.openSync(process.argv[1], "w"); fs.writeSync(fd, "synced"); fs.fsyncSync(fd);';

/** A thread of the daemon waits for an answer of the disk's file system. */
async function inKernel(daemon: number, volume: TestVolume): Promise<void> {
	const waits = (): boolean =>
		readdirSync(`/proc/${daemon}/task`).some((task) => /fuse_fsync/.test(readFileSync(`/proc/${daemon}/task/${task}/stack`, "latin1")));
	for (let i = 0; !waits(); i++) {
		assert.ok(i < 6000, `a thread waits for the disk\n${volume.log()}`);
		await sleep(10);
	}
}

describe("a disk that hangs", { skip: cannotMount() ?? false }, () => {
	test("a daemon that is killed while its thread waits for the disk has a successor, which does without it and takes it back", async () => {
		let hanging: HangingDisk | undefined;
		const volume = await TestVolume.start({
			disks: 3,
			redundancy: "rs:2+1",
			onFirstDisk: async (path) => {
				const disk = await HangingDisk.on(path);
				hanging = disk;
				return () => disk.close();
			},
		});
		try {
			assert.ok(hanging);
			mkdirSync(join(volume.mountpoint, "dir"));
			writeFileSync(join(volume.mountpoint, "dir/before"), Buffer.alloc(300_000, "before"));
			await hanging.hang("syncs");
			const synced = execute(process.execPath, ["-e", writeSynced, join(volume.mountpoint, "dir/synced")], { timeoutMs: 300_000 });
			const [daemon] = volume.daemons();
			await inKernel(daemon as number, volume);
			const successor = await volume.successorOf(volume.killDaemon());
			assert.deepEqual([(await synced).code, (await synced).stderr], [0, ""], volume.log());
			const { disks } = await volume.status();
			assert.deepEqual(
				disks.map(({ state }) => state),
				["missing", "healthy", "healthy"],
				volume.log(),
			);
			await hanging.answer();
			for (let i = 0; (await volume.status()).disks.some(({ state }) => state !== "healthy"); i++) {
				assert.ok(i < 1200, `taken back\n${volume.log()}`);
				await sleep(100);
			}
			await volume.heal();
			assert.deepEqual(volume.daemons(), [successor]);
			assert.equal(readFileSync(join(volume.mountpoint, "dir/synced"), "utf8"), "synced");
			assert.deepEqual(readFileSync(join(volume.mountpoint, "dir/before")), Buffer.alloc(300_000, "before"));
		} finally {
			await hanging?.answer();
			await volume.close();
		}
	});
});
