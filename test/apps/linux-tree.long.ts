/**
 * A Linux source tree (Debian's linux-source-6.1) on six disks in rs:4+2: two disks destroyed, then healed onto empty ones, then noise
 * over everything that another disk holds. Every file keeps its SHA-256 all the time, and verify counts and repairs the noise.
 */
import assert from "node:assert/strict";
import { randomFillSync } from "node:crypto";
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, rmSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { assertSameFiles, cannotMount, execute, fingerprint, missingPrograms, must, TestVolume } from "../support/cairn.ts";

const archive = "/usr/src/linux-source-6.1.tar.xz";
/** Smaller trees for a trial: CAIRN_TREE=/usr/include. */
const otherTree = process.env["CAIRN_TREE"];

async function reasonToSkip(): Promise<string | undefined> {
	const missing = cannotMount() ?? missingPrograms("tar", "xz", "sha256sum");
	if (missing !== undefined || otherTree !== undefined || existsSync(archive)) return missing;
	if (missingPrograms("apt-get") === undefined) {
		await execute("apt-get", ["install", "-y", "--no-install-recommends", "linux-source-6.1"], {
			env: { DEBIAN_FRONTEND: "noninteractive" },
		});
	}
	return existsSync(archive) ? undefined : "linux-source-6.1 is not installed and cannot be";
}

const reason = await reasonToSkip();
const steps = { skip: reason ?? false };

let volume: TestVolume;
let expected: string[] = [];
after(() => volume?.close());

const tree = (): string => join(volume.mountpoint, "tree");

async function assertAllThere(message: string): Promise<void> {
	assertSameFiles(await fingerprint(tree()), expected, message);
}

test("unpacked in the mount, every file is what it is on the host", steps, async () => {
	volume = await TestVolume.start({ disks: 6, redundancy: "rs:4+2" });
	const host = join(volume.base, "host");
	for (const folder of [host, tree()]) {
		mkdirSync(folder);
		if (otherTree === undefined) await must("tar", ["-C", folder, "-xf", archive], { timeoutMs: 3600_000 });
		else await must("bash", ["-c", `set -euo pipefail; tar -C '${otherTree}' -cf - . | tar -C '${folder}' -xf -`], { timeoutMs: 3600_000 });
	}
	expected = await fingerprint(host);
	rmSync(host, { recursive: true });
	await assertAllThere("as it was unpacked");
});

test("two disks destroyed: mounted again, every file is there", steps, async () => {
	assert.ok(expected.length > 0, "unpacked");
	await volume.unmount();
	for (const path of volume.diskPaths.slice(0, 2)) rmSync(path, { recursive: true });
	await volume.mount();
	await assertAllThere("with two disks gone");
	const { protection } = await volume.status();
	assert.equal(protection.lostBytes, 0);
	assert.ok(protection.degradedBytes > 0, "status says that protection is not whole");
});

test("two empty disks in their places: healed to full protection", steps, async () => {
	assert.ok(expected.length > 0, "unpacked");
	for (const path of volume.diskPaths.slice(0, 2)) await replaceEmptied(path);
	await volume.heal();
	await volume.remount();
	await assertAllThere("healed");
	const { corrupt, missing, unrecoverable } = await volume.verify();
	assert.deepEqual([corrupt, missing, unrecoverable], [0, 0, 0]);
});

test("noise over everything that a third disk holds: every file is there, the noise is counted and repaired", steps, async () => {
	assert.ok(expected.length > 0, "unpacked");
	await volume.unmount();
	const noisy = volume.diskPaths[3] as string;
	const packs = filesBelow(join(noisy, "pack"));
	assert.ok(packs.length > 0, "the disk holds fragments");
	// Without its superblock it would be no disk of this volume: that is the case of the two destroyed ones.
	for (const file of filesBelow(noisy)) if (!file.endsWith("/superblock")) overwrite(file);
	await volume.mount();
	await assertAllThere("with noise on a disk");
	const first = await volume.verify();
	assert.ok(first.corrupt > 0, "the noise is counted");
	assert.equal(first.unrecoverable, 0);
	assert.ok(first.repaired > 0, `what was corrupt (${first.corrupt} fragments) is repaired`);
	const second = await volume.verify();
	assert.deepEqual([second.corrupt, second.unrecoverable], [0, 0], `nothing of ${first.corrupt} corrupt fragments is left`);
	await volume.heal();
	await volume.remount();
	await assertAllThere("after the repair");
	const third = await volume.verify();
	assert.deepEqual([third.corrupt, third.missing, third.unrecoverable], [0, 0, 0]);
});

test(
	"noise over the whole of a fourth disk while it is mounted, superblock, log and runs included: counted, and repaired where it is",
	steps,
	async () => {
		assert.ok(expected.length > 0, "unpacked");
		const noisy = volume.diskPaths[2] as string;
		for (const file of filesBelow(noisy)) overwrite(file);
		await must("bash", ["-c", "sync; echo 3 > /proc/sys/vm/drop_caches"]);
		await assertAllThere("with noise on a disk that is in use");
		const first = await volume.verify();
		const { disks } = await volume.status();
		const counted = disks.find((disk) => disk.path === noisy);
		assert.ok((counted?.errors ?? 0) > 0, "the noise is counted on the disk that has it");
		assert.equal(first.unrecoverable, 0);
		const second = await volume.verify();
		assert.deepEqual([second.corrupt, second.missing, second.unrecoverable], [0, 0, 0], "all of it is repaired");
		assert.equal(counted?.state, "healthy", "the disk works: it goes on being written");
		await volume.remount();
		await assertAllThere("mounted again, with a superblock that was written anew");
		assert.equal((await volume.status()).state, "running");
	},
);

test("the noise has gone: two other disks may be destroyed", steps, async () => {
	assert.ok(expected.length > 0, "unpacked");
	await volume.unmount();
	for (const path of volume.diskPaths.slice(4)) rmSync(path, { recursive: true });
	await volume.mount();
	await assertAllThere("read from what was healed and repaired");
});

/** An empty disk in the place of one that is lost or given up. */
async function replaceEmptied(path: string): Promise<void> {
	rmSync(path, { recursive: true, force: true });
	mkdirSync(path);
	await volume.cairn("disk", "replace", volume.name, path);
}

function filesBelow(folder: string): string[] {
	if (!existsSync(folder)) return [];
	const items = readdirSync(folder, { withFileTypes: true });
	return items.flatMap((item) =>
		item.isDirectory() ? filesBelow(join(folder, item.name)) : item.isFile() ? [join(folder, item.name)] : [],
	);
}

/** Random bytes over all of it, in place. */
function overwrite(path: string): void {
	const noise = Buffer.alloc(1024 * 1024);
	const size = statSync(path).size;
	const file = openSync(path, "r+");
	try {
		for (let at = 0; at < size; ) at += writeSync(file, randomFillSync(noise), 0, Math.min(noise.length, size - at), at);
	} finally {
		closeSync(file);
	}
}
