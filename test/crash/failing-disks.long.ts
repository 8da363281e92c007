/**
 * Disks that fail under programs that write and sync, through real mounts (`npm run test:long failing-disks`): a sync that fails once and for good, a file system that is read-only or whose folders are immutable, one whose device
 * has no space behind it (thin provisioning), raw and with ext4. Programs see no error where the others are enough, `status` names the disk and the true reason, healing goes on with the others, and whatever fsync(2) promised is
 * there after the power fails and that disk is lost.
 */
import assert from "node:assert/strict";
import { mkdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, test } from "node:test";
import { cannotMount, execute, missingPrograms, must, sleep, TestVolume, type TestVolumeOptions } from "../support/cairn.ts";
import { HangingDisk } from "../support/hanging-disk.ts";
import { SyncedLoad } from "./synced-load.ts";

const skip = cannotMount() ?? missingPrograms("mkfs.ext4", "mount", "truncate", "chattr", "losetup") ?? false;
const writers = 4;

/** What happens to the first disk of a volume. */
interface Fault {
	readonly name: string;
	readonly where: Partial<TestVolumeOptions>;
	begin(path: string): Promise<void>;
	/** As good as before, if it can be; where it needs the volume stopped this is called then, too. */
	end(path: string): Promise<void>;
	readonly reason: RegExp;
	/** The disk is of no use for a mount while the fault lasts. */
	readonly barsMount: boolean;
	/** What it says then. */
	readonly mountReason?: RegExp;
}

/** A disk on a FUSE file system whose answers are ours. */
function answering(name: string, what: "one-sync" | "syncs" | "writes", barsMount: boolean): Fault {
	const disk: { hanging?: HangingDisk } = {};
	return {
		name,
		where: {
			onFirstDisk: async (path) => {
				const hanging = await HangingDisk.on(path);
				disk.hanging = hanging;
				return () => hanging.close();
			},
		},
		begin: async () => disk.hanging?.fail(what),
		end: async () => disk.hanging?.answer(),
		reason: /EIO|i\/o error/i,
		barsMount,
	};
}

const thinMiB = 400;

/** A memory file system with a sparse image: what it cannot hold is found out by whoever writes there. */
async function thinImage(path: string): Promise<string> {
	const store = `${path}.store`;
	mkdirSync(store);
	await must("mount", ["-t", "tmpfs", "-o", `size=${thinMiB}M`, "thin", store]);
	await must("truncate", ["-s", "2G", join(store, "image")]);
	return join(store, "image");
}

async function useUp(path: string): Promise<void> {
	await execute("dd", ["if=/dev/zero", `of=${path}.store/others`, "bs=1M", "status=none"]);
}

async function dropThin(path: string): Promise<void> {
	await must("umount", ["-l", `${path}.store`]);
	rmSync(`${path}.store`, { recursive: true });
}

const thinExt4: Fault = {
	name: "ext4 on a device without space behind it",
	where: {
		onFirstDisk: async (path) => {
			const image = await thinImage(path);
			await must("mkfs.ext4", ["-q", "-F", "-m", "0", "-E", "nodiscard", image]);
			await must("mount", ["-o", "loop,nodiscard", image, path]);
			rmSync(join(path, "lost+found"), { recursive: true, force: true });
			return async () => {
				await must("umount", ["-l", path]);
				await dropThin(path);
			};
		},
	},
	begin: useUp,
	end: async (path) => {
		rmSync(`${path}.store/others`, { force: true });
		await must("umount", [path]);
		await execute("e2fsck", ["-fy", `${path}.store/image`]);
		await must("mount", ["-o", "loop,nodiscard", `${path}.store/image`, path]);
	},
	reason: /EIO|i\/o error|read-only|EROFS|no space/i,
	barsMount: false,
};

const immutable: Fault = {
	name: "everything on it is immutable",
	where: { ext4MiB: 400 },
	begin: async (path) => void (await must("chattr", ["-R", "+i", path])),
	end: async (path) => void (await must("chattr", ["-R", "-i", path])),
	reason: /EPERM|not permitted/i,
	barsMount: true,
	mountReason: /EPERM|not permitted/i,
};

const readOnly: Fault = {
	name: "its file system is read-only",
	where: { ext4MiB: 400 },
	begin: async (path) => void (await must("mount", ["-o", "remount,abort", path])),
	end: async (path) => {
		await must("umount", [path]);
		const { code, stdout } = await execute("e2fsck", ["-fp", `${path}.img`]);
		assert.ok(code === 0 || code === 1, stdout);
		await must("mount", ["-o", "loop", `${path}.img`, path]);
	},
	reason: /read-only|EROFS|EIO|i\/o error/i,
	barsMount: true,
	mountReason: /read-only|EROFS|EIO|i\/o error|opened for reading|shut ?down/i,
};

const faults: readonly Fault[] = [
	answering("one fsync fails", "one-sync", false),
	answering("every fsync fails", "syncs", true),
	answering("every write and every fsync fails", "writes", true),
	immutable,
	readOnly,
	thinExt4,
];

async function untilState(volume: TestVolume, wanted: RegExp): Promise<void> {
	for (let i = 0; ; i++) {
		const state = (await volume.status()).disks[0]?.state ?? "";
		if (wanted.test(state)) return;
		assert.ok(i < 600, `d1 is ${state}, not ${wanted}\n${volume.log()}`);
		await sleep(200);
	}
}

async function said(volume: TestVolume, disk: string): Promise<string> {
	return (await volume.try("disk", "show", volume.name, disk)).stdout;
}

describe("a disk that fails under load", { skip }, () => {
	for (const [index, fault] of faults.entries())
		test(fault.name, async (t) => {
			const volume = await TestVolume.start({ disks: 4, redundancy: "rs:2+1", ...fault.where });
			const load = new SyncedLoad(volume.mountpoint, index + 1, writers);
			const log = (): string => volume.log();
			const [path] = volume.diskPaths as [string];
			try {
				await load.progress(200, log);
				await fault.begin(path);
				await load.progress(200, log);
				await untilState(volume, /failed/);
				assert.match(await said(volume, "d1"), fault.reason);
				const { disks } = await volume.status();
				assert.deepEqual(
					disks.slice(1).map(({ state, errors }) => `${state} ${errors}`),
					["healthy 0", "healthy 0", "healthy 0"],
					volume.log(),
				);
				await load.progress(200, log);
				const healed = await volume.try("heal", volume.name, "--wait");
				assert.equal(healed.code, 0, `three disks hold rs:2+1: ${healed.stdout}${healed.stderr}\n${volume.log()}`);
				await load.stop();
				load.check("at run time");
				assert.deepEqual([...load.errors], [], `no program sees an error\n${volume.log()}`);
				t.diagnostic(`${load.promises} promises`);

				// The power fails, and what is on that disk is of no use.
				await volume.kill();
				await execute("umount", ["-l", volume.mountpoint]);
				volume.forgetMemory();
				await volume.mount();
				load.check("after a power cut");
				const [first] = (await volume.status()).disks;
				if (fault.barsMount) {
					assert.match(first?.state ?? "", /missing|failed/, volume.log());
					assert.match(await said(volume, "d1"), fault.mountReason ?? fault.reason);
				}
				await volume.unmount();
				await fault.end(path);
				await volume.mount();
				await volume.heal();
				await untilState(volume, /healthy/);
				load.check("when the disk works again");
				const { corrupt, missing, unrecoverable } = await volume.verify();
				assert.deepEqual([missing, unrecoverable], [0, 0], `${corrupt} corrupt\n${volume.log()}`);
			} finally {
				load.kill();
				await fault.end(path).catch(() => {});
				await volume.close();
			}
		});

	test("more disks fail than the volume can lose: no sync succeeds any more, and what had succeeded is there when they work again", async (t) => {
		const disks: HangingDisk[] = [];
		const volume = await TestVolume.start({
			disks: 3,
			redundancy: "rs:2+1",
			onFirstDisk: async (path) => {
				for (const name of ["disk1", "disk2", "disk3"]) disks.push(await HangingDisk.on(join(dirname(path), name)));
				return async () => {
					for (const disk of disks) await disk.close();
				};
			},
		});
		const load = new SyncedLoad(volume.mountpoint, 99, writers);
		try {
			await load.progress(100, () => volume.log());
			for (const disk of disks) await disk.fail("syncs");
			const before = load.promises;
			for (let i = 0; load.errors.size === 0; i++) {
				assert.ok(i < 1200, `programs are told\n${volume.log()}`);
				await sleep(50);
			}
			await sleep(3_000);
			// One of each may have had its syncs behind it.
			assert.ok(load.promises <= before + writers, `${load.promises - before} promises after every sync failed\n${volume.log()}`);
			t.diagnostic(`${load.promises} promises, then ${[...load.errors].map(([code, times]) => `${code} ${times} times`).join(", ")}`);
			for (const code of load.errors.keys()) assert.match(code, /^(EIO|EROFS|ENOTCONN|ECONNABORTED|ENOENT)$/, volume.log());
			load.kill();
			await volume.kill();
			await execute("umount", ["-l", volume.mountpoint]);
			for (const disk of disks) await disk.answer();
			volume.forgetMemory();
			await volume.mount();
			load.check("when the disks work again");
			await volume.heal();
			const { corrupt, missing, unrecoverable } = await volume.verify();
			assert.deepEqual([corrupt, missing, unrecoverable], [0, 0, 0], volume.log());
		} finally {
			load.kill();
			for (const disk of disks) await disk.answer().catch(() => {});
			await volume.close();
		}
	});
});
