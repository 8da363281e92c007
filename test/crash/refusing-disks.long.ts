/**
 * Disks that refuse to be written, through real mounts on small file systems of ext4: read-only at run time and at a mount, one and all, and full (`npm run test:long refusing-disks`). Programs get the right error, `status` says
 * which disk and why, nothing that was synced is lost, and all is well when the disks can be written again.
 */
import assert from "node:assert/strict";
import { closeSync, fsyncSync, openSync, readdirSync, readFileSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { cannotMount, execute, missingPrograms, must, sleep, TestVolume } from "../support/cairn.ts";
import { contents } from "./kill-model.ts";

const skip = cannotMount() ?? missingPrograms("mkfs.ext4", "e2fsck", "mount", "truncate", "python3", "dd") ?? false;

class Files {
	readonly #volume: TestVolume;
	readonly #synced = new Map<string, Buffer>();
	#puts = 0;

	constructor(volume: TestVolume) {
		this.#volume = volume;
	}

	/** Written and synced. Answers the code of the first error. */
	put(name: string, lengthBytes: number): string | undefined {
		let file: number | undefined;
		try {
			file = openSync(join(this.#volume.mountpoint, name), "w");
			const bytes = contents(1, this.#puts++, lengthBytes);
			for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
			fsyncSync(file);
			this.#synced.set(name, bytes);
			return undefined;
		} catch (error) {
			return (error as NodeJS.ErrnoException).code;
		} finally {
			try {
				if (file !== undefined) closeSync(file);
			} catch {
				// Errors are told at close(2), too.
			}
		}
	}

	remove(name: string): void {
		rmSync(join(this.#volume.mountpoint, name));
		this.#synced.delete(name);
	}

	/** What was synced is there. */
	check(): void {
		for (const [name, expected] of this.#synced)
			assert.ok(readFileSync(join(this.#volume.mountpoint, name)).equals(expected), `${name}\n${this.#volume.log()}`);
	}
}

/** What ext4 does when it finds itself damaged: it is read-only from then on, whoever has files open for writing. */
const breakDown = (path: string): Promise<string> => must("mount", ["-o", "remount,abort", path]);

async function mendDisk(path: string): Promise<void> {
	await must("umount", [path]);
	const { code, stdout } = await execute("e2fsck", ["-fp", `${path}.img`]);
	assert.ok(code === 0 || code === 1, stdout);
	await must("mount", ["-o", "loop", `${path}.img`, path]);
}

const remount = (path: string, how: "ro" | "rw"): Promise<string> => must("mount", ["-o", `remount,${how}`, path]);

async function untilState(volume: TestVolume, disk: number, wanted: RegExp): Promise<void> {
	for (let i = 0; ; i++) {
		const state = (await volume.status()).disks[disk]?.state ?? "";
		if (wanted.test(state)) return;
		assert.ok(i < 300, `d${disk + 1} is ${state}, not ${wanted}\n${volume.log()}`);
		await sleep(200);
	}
}

async function untilCopies(wanted: string, copies: () => Promise<string>, volume: TestVolume): Promise<void> {
	for (let i = 0; (await copies()) !== wanted; i++) {
		assert.ok(i < 300, `${await copies()} copies of the metadata, not ${wanted}\n${volume.log()}`);
		await sleep(200);
	}
}

async function start(ext4MiB: number): Promise<{ volume: TestVolume; files: Files }> {
	const volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1", ext4MiB });
	return { volume, files: new Files(volume) };
}

describe("disks that refuse", { skip }, () => {
	test("one is read-only at run time and at a mount", async () => {
		const { volume, files } = await start(256);
		try {
			const [first] = volume.diskPaths as [string];
			assert.equal(files.put("before", 3_000_000), undefined);
			await breakDown(first);
			assert.equal(files.put("small", 3_000), undefined, volume.log());
			assert.equal(files.put("large", 3_000_000), undefined, volume.log());
			await untilState(volume, 0, /failed|missing/);
			const { stdout } = await volume.try("disk", "show", volume.name, "d1");
			assert.match(stdout, /read-only|EROFS/i, stdout);
			files.check();
			await volume.unmount();
			await mendDisk(first);
			await remount(first, "ro");
			await volume.mount();
			files.check();
			assert.equal(files.put("mounted without it", 2_000_000), undefined, volume.log());
			await volume.unmount();
			await remount(first, "rw");
			await volume.mount();
			await volume.heal();
			await untilState(volume, 0, /healthy/);
			files.check();
			const { corrupt, missing, unrecoverable } = await volume.verify();
			assert.deepEqual([corrupt, missing, unrecoverable], [0, 0, 0]);
		} finally {
			await volume.close();
		}
	});

	test("all are read-only at run time and at a mount", async () => {
		const { volume, files } = await start(256);
		try {
			assert.equal(files.put("before", 3_000_000), undefined);
			for (const path of volume.diskPaths) await breakDown(path);
			assert.match(files.put("refused", 3_000_000) ?? "it went through", /^(EIO|EROFS|ENOTCONN)$/, volume.log());
			await volume.kill();
			await volume.try("umount", volume.mountpoint);
			for (const path of volume.diskPaths) {
				await mendDisk(path);
				await remount(path, "ro");
			}
			const { code, stderr } = await volume.try("mount", volume.name, volume.mountpoint);
			assert.ok(code !== 0 && code !== null, `a mount of disks that cannot be written ended with ${code}`);
			assert.match(stderr, /read-only|EROFS|opened for reading/i, stderr);
			for (const path of volume.diskPaths) await remount(path, "rw");
			await volume.mount();
			files.check();
			assert.equal(files.put("after", 1_000_000), undefined, volume.log());
			await volume.heal();
		} finally {
			await volume.close();
		}
	});

	test("one with metadata breaks while no other one has room for it: changes go on with a copy less, and there are three again as soon as there is room", async () => {
		const volume = await TestVolume.start({ disks: 5, redundancy: "rs:2+1", ext4MiB: 400 });
		const files = new Files(volume);
		const copies = async (): Promise<string> => {
			const { wanted, present } = ((await volume.status()) as unknown as { metadataCopies: { wanted: number; present: number } })
				.metadataCopies;
			return `${present} of ${wanted}`;
		};
		try {
			assert.equal(files.put("before", 3_000_000), undefined);
			const { disks } = (await volume.status()) as unknown as { disks: { path: string; metadata: boolean }[] };
			const [home = "", ...others] = disks.filter(({ metadata }) => metadata).map(({ path }) => path);
			assert.equal(others.length, 2);
			const full = disks.filter(({ metadata }) => !metadata).map(({ path }) => join(path, "somebody"));
			for (const path of full) await execute("dd", ["if=/dev/zero", `of=${path}`, "bs=64k", "status=none"]);
			await breakDown(home);
			// More than the log's ring of 128 MiB takes: it goes on only when checkpoints do.
			const names = `import os, sys
for i in range(60000):
    os.mkdir("%s/%d%s" % (sys.argv[1], i, "n" * 240))
    if i % 1000 == 0:
        fd = os.open(sys.argv[1], os.O_RDONLY); os.fsync(fd); os.close(fd)
`;
			const folder = join(volume.mountpoint, "names");
			await must("mkdir", [folder]);
			await must("python3", ["-c", names, folder], { timeoutMs: 1_200_000 });
			await untilCopies("2 of 3", copies, volume);
			const { stdout } = await volume.try("status", volume.name);
			assert.match(stdout, /2 of 3 copies/);
			assert.match((await volume.try("ledger", volume.name)).stdout, /2 of 3 copies/);
			files.check();
			await volume.kill();
			await execute("umount", ["-l", volume.mountpoint]);
			volume.forgetMemory();
			await volume.mount();
			assert.equal(readdirSync(folder).length, 60_000);
			await untilCopies("2 of 3", copies, volume);
			for (const path of full) rmSync(path);
			await untilCopies("3 of 3", copies, volume);
			files.check();
			await volume.unmount();
			await mendDisk(home);
			await volume.mount();
			await volume.heal();
			const { corrupt, missing, unrecoverable } = await volume.verify();
			assert.deepEqual([corrupt, missing, unrecoverable], [0, 0, 0]);
			assert.equal(readdirSync(folder).length, 60_000);
			files.check();
		} finally {
			await volume.close();
		}
	});

	test("full, emptied, and full again", async () => {
		const { volume, files } = await start(96);
		try {
			for (let round = 0; round < 2; round++) {
				let code: string | undefined;
				let count = 0;
				while (code === undefined) code = files.put(`round${round} file${count++}`, 2_000_000);
				assert.equal(code, "ENOSPC", volume.log());
				files.check();
				for (const { state } of (await volume.status()).disks) assert.equal(state, "healthy", "being full is no fault");
				for (const name of readdirSync(volume.mountpoint)) files.remove(name);
				for (let i = 0; files.put("small again", 500_000) !== undefined; i++) {
					assert.ok(i < 100, `there is room again\n${volume.log()}`);
					await sleep(100);
				}
			}
			await volume.remount();
			files.check();
		} finally {
			await volume.close();
		}
	});
});
