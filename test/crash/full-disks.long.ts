/**
 * Disks that other programs have filled to the last byte, through real mounts on ext4 and XFS of 600 MB (`npm run test:long full-disks`): the daemon is killed, with and without a successor, and its memory is taken away as by a power
 * cut. Each time everything is there, can be removed, and gives its space back.
 */
import assert from "node:assert/strict";
import { closeSync, fsyncSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, statfsSync, writeSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { cannotMount, missingPrograms, sleep, TestVolume } from "../support/cairn.ts";
import { contents } from "./kill-model.ts";

const skip = cannotMount() ?? missingPrograms("mkfs.ext4", "mkfs.xfs", "mount", "truncate") ?? false;

/** Not a byte more can be written there. */
function fill(path: string): void {
	const file = openSync(join(path, "somebody-elses"), "a");
	try {
		for (let piece = 1 << 20; piece >= 1; piece >>= 1) {
			const bytes = new Uint8Array(piece).fill(1);
			try {
				for (;;) if (writeSync(file, bytes) < bytes.length) break;
			} catch (error) {
				assert.equal((error as NodeJS.ErrnoException).code, "ENOSPC");
			}
		}
		fsyncSync(file);
	} finally {
		closeSync(file);
	}
}

const fillAll = (volume: TestVolume): void => volume.diskPaths.forEach(fill);
const freeOn = (path: string): number => statfsSync(path).bavail * statfsSync(path).bsize;

function put(volume: TestVolume, name: string, seed: number, lengthBytes: number): void {
	const file = openSync(join(volume.mountpoint, name), "w");
	try {
		const bytes = contents(1, seed, lengthBytes);
		for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
		fsyncSync(file);
	} finally {
		closeSync(file);
	}
}

function check(volume: TestVolume, from: number, to: number): void {
	for (let i = from; i < to; i++)
		assert.ok(readFileSync(join(volume.mountpoint, `file${i}`)).equals(contents(1, i, fileBytes)), `file${i}\n${volume.log()}`);
}

async function until(what: string, isDone: () => boolean, volume: TestVolume): Promise<void> {
	for (let i = 0; !isDone(); i++) {
		assert.ok(i < 600, `${what}\n${volume.log()}`);
		await sleep(100);
	}
}

const fileBytes = 3_000_000;
const files = 50;

describe("disks that others have filled", { skip }, () => {
	for (const kind of ["ext4", "xfs"] as const) {
		test(`${kind}: everything is there after each death, and can be removed`, async () => {
			const volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1", [kind === "ext4" ? "ext4MiB" : "xfsMiB"]: 600 });
			const path = (name: string): string => join(volume.mountpoint, name);
			try {
				for (let i = 0; i < files; i++) put(volume, `file${i}`, i, fileBytes);
				fillAll(volume);
				for (const one of volume.diskPaths) assert.ok(freeOn(one) < 1 << 20, `${one} is full`);
				check(volume, 0, files);

				mkdirSync(path("made while full"));
				const before = volume.killDaemon();
				await volume.successorOf(before);
				assert.ok(readdirSync(volume.mountpoint).includes("made while full"));
				check(volume, 0, 10);

				for (const isPowerCut of [false, true, false]) {
					fillAll(volume);
					mkdirSync(path(`made before ${isPowerCut}`), { recursive: true });
					await volume.kill();
					await volume.try("umount", volume.mountpoint);
					if (isPowerCut) volume.forgetMemory();
					// What is given up in a mount others may take at once.
					await volume.mount();
					check(volume, 0, files);
				}
				for (const { state } of (await volume.status()).disks) assert.equal(state, "healthy", "being full is no fault");

				fillAll(volume);
				const full = volume.diskPaths.map(freeOn);
				for (let i = 0; i < files / 2; i++) rmSync(path(`file${i}`));
				const givenBack = ((fileBytes / 2) * files) / 2;
				await until(
					"space comes back",
					() => volume.diskPaths.every((one, i) => freeOn(one) > (full[i] as number) + givenBack / 2),
					volume,
				);
				check(volume, files / 2, files);

				for (const one of volume.diskPaths) rmSync(join(one, "somebody-elses"));
				await until(
					"there is room again",
					() => {
						try {
							put(volume, "file0", 0, fileBytes);
							return true;
						} catch (error) {
							assert.equal((error as NodeJS.ErrnoException).code, "ENOSPC");
							return false;
						}
					},
					volume,
				);
				await volume.remount();
				check(volume, files / 2, files);
				check(volume, 0, 1);
				await volume.heal();
				const { corrupt, missing, unrecoverable } = await volume.verify();
				assert.deepEqual([corrupt, missing, unrecoverable], [0, 0, 0]);
			} finally {
				await volume.close();
			}
		});
	}
});
