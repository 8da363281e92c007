/**
 * One percent of a disk's bytes is flipped behind the back of a mounted volume with real files (`npm run test:long rot`, `--mib 1024`, `--seed 7`): everything reads right meanwhile, exactly what was hit is found, repaired and
 * counted. Then the same with two disks of rs:4+2 gone: what can be read is right, what cannot gives EIO and is named.
 */
import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { after, type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { cannotMount, must, TestVolume, type VerifyJson } from "../support/cairn.ts";
import { randomOf } from "./kill-model.ts";
import { flipFragments, flipOthers } from "./rot-disk.ts";
import type { Compared } from "./rot-files.ts";

const mib = Number(process.env["CAIRN_MIB"] ?? 1024);
const seed = Number(process.env["CAIRN_SEED"] ?? Date.now() % 1_000_000);
const part = 0.01;
const filesProgram = fileURLToPath(new URL("rot-files.js", import.meta.url));
const skip = cannotMount() ?? false;

const volumes = new Set<TestVolume>();
after(() => Promise.all([...volumes].map((volume) => volume.close())));

async function filled(): Promise<TestVolume> {
	const volume = await TestVolume.start({ disks: 6, redundancy: "rs:4+2" });
	volumes.add(volume);
	await must(process.execPath, [filesProgram, "write", volume.mountpoint, String(seed), String(mib)], { timeoutMs: 3600_000 });
	await volume.remount();
	return volume;
}

async function compare(volume: TestVolume): Promise<Compared> {
	const words = [filesProgram, "read", volume.mountpoint, String(seed), String(mib)];
	const compared = JSON.parse(await must(process.execPath, words, { timeoutMs: 3600_000 })) as Compared;
	assert.deepEqual(compared.wrong, [], `seed ${seed}\n${volume.log()}`);
	return compared;
}

async function allReadsRight(volume: TestVolume): Promise<Compared> {
	const compared = await compare(volume);
	assert.deepEqual(compared.unreadable, [], `seed ${seed}\n${volume.log()}`);
	return compared;
}

async function close(volume: TestVolume): Promise<void> {
	await volume.close();
	volumes.delete(volume);
}

const clean = ({ corrupt, missing, repaired, unrecoverable }: VerifyJson): number[] => [corrupt, missing, repaired, unrecoverable];

test(`1 % of one disk, seed ${seed}`, { skip }, async (t: TestContext) => {
	const volume = await filled();
	const random = randomOf(seed);
	const [first, second, third] = volume.diskPaths as [string, string, string];

	// Nobody mends until verify does, so that its figures are all there is to count.
	await volume.cairn("heal", volume.name, "--pause");
	const flipped = flipFragments(first, part, random);
	const { files, bytes } = await allReadsRight(volume);
	const found = await volume.verify();
	assert.deepEqual(clean(found), [flipped.fragments, 0, flipped.fragments, 0], `${JSON.stringify(flipped)}, seed ${seed}\n${volume.log()}`);
	assert.deepEqual(clean(await volume.verify()), [0, 0, 0, 0], "nothing is left");
	t.diagnostic(
		`${files} files, ${bytes >> 20} MiB: all read right; ${flipped.blocks} blocks of 4 KiB flipped in ${flipped.fragments} fragments, ${found.corrupt} found, ${found.repaired} repaired`,
	);

	// The same in the log, the metadata and the superblock.
	const others = flipOthers(second, part, random);
	const { fragments } = flipFragments(second, part, random);
	await allReadsRight(volume);
	const all = await volume.verify();
	assert.equal(all.repaired, all.corrupt + all.missing, `${JSON.stringify(all)}, seed ${seed}\n${volume.log()}`);
	assert.ok(all.corrupt >= fragments && all.unrecoverable === 0, `${fragments} fragments hit: ${JSON.stringify(all)}, seed ${seed}`);
	await volume.remount();
	assert.deepEqual(clean(await volume.verify()), [0, 0, 0, 0], "nothing is left after a mount");
	t.diagnostic(`${others} blocks of log, metadata and superblock besides: ${all.corrupt} pieces found, ${all.repaired} repaired`);

	// Reading alone finds and mends what it meets.
	await volume.cairn("heal", volume.name, "--resume");
	const met = flipFragments(third, part, random);
	await allReadsRight(volume);
	await volume.heal();
	const left = await volume.verify();
	assert.deepEqual([left.missing, left.unrecoverable, left.repaired], [0, 0, left.corrupt], `seed ${seed}\n${volume.log()}`);
	assert.ok(left.corrupt < met.fragments, `reading met some of ${met.fragments}: ${left.corrupt} were left`);
	assert.deepEqual(clean(await volume.verify()), [0, 0, 0, 0], "nothing is left");
	t.diagnostic(
		`${met.fragments} fragments hit, ${met.fragments - left.corrupt} of them mended because somebody read them, the rest by verify`,
	);
	await close(volume);
});

test(`1 % of one disk, two others gone, seed ${seed}`, { skip }, async (t: TestContext) => {
	const volume = await filled();
	const random = randomOf(seed + 1);
	const [first, second, third] = volume.diskPaths as [string, string, string];
	await volume.unmount();
	const flipped = flipFragments(first, part, random);
	for (const disk of [second, third]) for (const name of ["superblock", "log", "kv", "pack"]) rmSync(join(disk, name), { recursive: true });
	await volume.mount();
	const { code, stdout } = await volume.try("verify", volume.name, "--lost", "--json");
	const verified = JSON.parse(stdout) as VerifyJson & { readonly lostPaths: readonly string[]; readonly lostPathsTotal: number };
	assert.equal(code, 5, stdout);
	assert.ok(verified.unrecoverable > 0, `segments are beyond recovery: ${stdout.slice(0, 500)}`);
	const compared = await compare(volume);
	const named = verified.lostPaths.map((path) => path.replace(/^\//, "")).sort();
	assert.deepEqual([...compared.unreadable].sort(), named, `what gives EIO is what is named, seed ${seed}\n${volume.log()}`);
	assert.equal(verified.lostPathsTotal, named.length);
	assert.ok(named.length > 0 && named.length < compared.files, `some files are lost, others not: ${named.length} of ${compared.files}`);
	t.diagnostic(
		`${flipped.blocks} blocks flipped, two disks gone: ${named.length} of ${compared.files} files have lost contents, all named; of their pieces of 4 KiB ${compared.lostPieces} give EIO, ${compared.savedPieces} read right`,
	);
	// Empty disks in the place of the lost ones make whole what is not lost, and change nothing in what is.
	for (const disk of [second, third]) await volume.cairn("disk", "replace", volume.name, disk);
	assert.equal((await volume.try("heal", volume.name, "--wait")).code, 5, "lost stays lost");
	const { protection } = await volume.status();
	assert.ok(protection.degradedBytes === 0 && protection.lostBytes > 0, `${JSON.stringify(protection)}\n${volume.log()}`);
	await volume.remount();
	assert.deepEqual((await compare(volume)).unreadable, compared.unreadable, `seed ${seed}`);
	await close(volume);
});
