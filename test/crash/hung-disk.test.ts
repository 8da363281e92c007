/** One disk of a mounted volume hangs in the kernel, or fails, and the daemon is killed while its thread waits there. The long suite plays the rest of such a day. */
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { cannotMount, execute, sleep, TestVolume } from "../support/cairn.ts";
import { HangingDisk } from "../support/hanging-disk.ts";
import { SyncedLoad } from "./synced-load.ts";

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

async function untilStates(volume: TestVolume, wanted: readonly string[]): Promise<void> {
	for (let i = 0; ; i++) {
		const { disks } = await volume.status();
		if (disks.every(({ state }, at) => state === wanted[at])) return;
		assert.ok(i < 600, `${disks.map(({ state }) => state).join()}, not ${wanted.join()}\n${volume.log()}`);
		await sleep(200);
	}
}

// They wait most of their time.
describe("a disk that hangs", { skip: cannotMount() ?? false, concurrency: true }, () => {
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
			// The dead daemon's thread may let go of the lock before the successor asks for it: then the disk is found to hang while it is used.
			const [first, ...others] = disks.map(({ state }) => state);
			assert.ok(first === "missing" || first === "failed", `${first}\n${volume.log()}`);
			assert.deepEqual(others, ["healthy", "healthy"], volume.log());
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

	test("it is done without after a while, and taken back by the same daemon when it answers", async () => {
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
			const daemons = volume.daemons();
			const contents = Buffer.alloc(3_000_000, "before");
			writeFileSync(join(volume.mountpoint, "before"), contents);
			await hanging.hang("everything");
			const synced = await execute(process.execPath, ["-e", writeSynced, join(volume.mountpoint, "synced")], { timeoutMs: 300_000 });
			assert.deepEqual([synced.code, synced.stderr], [0, ""], volume.log());
			await untilStates(volume, ["failed", "healthy", "healthy"]);
			await hanging.answer();
			await untilStates(volume, ["healthy", "healthy", "healthy"]);
			await volume.heal();
			assert.deepEqual(volume.daemons(), daemons);
			const { corrupt, missing, unrecoverable } = await volume.verify();
			assert.deepEqual([corrupt, missing, unrecoverable], [0, 0, 0], volume.log());
			await volume.remount();
			assert.deepEqual(readFileSync(join(volume.mountpoint, "before")), contents);
			assert.equal(readFileSync(join(volume.mountpoint, "synced"), "utf8"), "synced");
		} finally {
			await hanging?.answer();
			await volume.close();
		}
	});

	test("one whose fsync fails is done without, told with its reason, and nothing that was promised needs it (the long suite failing-disks plays the rest)", async () => {
		let failing: HangingDisk | undefined;
		const volume = await TestVolume.start({
			disks: 3,
			redundancy: "rs:2+1",
			onFirstDisk: async (path) => {
				const disk = await HangingDisk.on(path);
				failing = disk;
				return () => disk.close();
			},
		});
		const load = new SyncedLoad(volume.mountpoint, 1, 2);
		try {
			assert.ok(failing);
			await load.progress(20, () => volume.log());
			await failing.fail("syncs");
			await load.progress(60, () => volume.log());
			await load.stop();
			assert.deepEqual([...load.errors], [], volume.log());
			await untilStates(volume, ["failed", "healthy", "healthy"]);
			assert.match((await volume.try("disk", "show", volume.name, "d1")).stdout, /EIO/);
			await volume.kill();
			await execute("umount", ["-l", volume.mountpoint]);
			volume.forgetMemory();
			await volume.mount();
			load.check("after a power cut");
		} finally {
			load.kill();
			await failing?.answer();
			await volume.close();
		}
	});

	test("a daemon that did not get the processor for longer than any limit blames no disk", async () => {
		const volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
		const [daemon = 0] = volume.daemons();
		try {
			// Calls are out on all disks while it stands still.
			const writing = `const fs = require("node:fs"); const [folder, stop] = process.argv.slice(1);
				for (let i = 0; !fs.existsSync(stop); i++) {
					const fd = fs.openSync(folder + "/f" + (i % 50), "w"); fs.writeSync(fd, Buffer.alloc(100000, i)); fs.fsyncSync(fd); fs.closeSync(fd);
				}`;
			const stop = join(volume.base, "stop");
			const written = execute(process.execPath, ["-e", writing, volume.mountpoint, stop], { timeoutMs: 300_000 });
			await sleep(1_000);
			process.kill(daemon, "SIGSTOP");
			await sleep(12_000);
			process.kill(daemon, "SIGCONT");
			await sleep(1_000);
			writeFileSync(stop, "");
			const { code, stderr } = await written;
			assert.deepEqual([code, stderr], [0, ""], volume.log());
			const { disks } = await volume.status();
			assert.deepEqual(
				disks.map(({ state, errors }) => `${state} ${errors}`),
				["healthy 0", "healthy 0", "healthy 0"],
				volume.log(),
			);
		} finally {
			await volume.close();
		}
	});

	test("umount and the status of a stopped volume end, and say which disk does not answer", async () => {
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
			writeFileSync(join(volume.mountpoint, "file"), Buffer.alloc(300_000, "file"));
			await hanging.hang("everything");
			const unmounted = await volume.try("umount", volume.mountpoint);
			assert.deepEqual([unmounted.code, unmounted.stdout], [0, `unmounted ${volume.mountpoint}\n`], `${unmounted.stderr}\n${volume.log()}`);
			assert.match(unmounted.stderr, /disk1 does not answer: everything is on the others/);
			const stopped = await volume.try("status", volume.name);
			assert.equal(stopped.code, 0, stopped.stderr);
			assert.match(stopped.stdout, /disk d1 \(.*disk1\) is missing: .*the disk hangs/);
			await hanging.answer();
			await volume.mount();
			await untilStates(volume, ["healthy", "healthy", "healthy"]);
			assert.deepEqual(readFileSync(join(volume.mountpoint, "file")), Buffer.alloc(300_000, "file"));
		} finally {
			await hanging?.answer();
			await volume.close();
		}
	});
});
