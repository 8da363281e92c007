/**
 * Any file of some disks is changed in any way behind the volume's back: flipped, overwritten, zeroed, cut, extended, removed, exchanged for another. On as many disks as the volume survives: everything is read right, and mended. On more:
 * what is read is right, what cannot be read is an error, what is lost is named; nothing crashes, nothing goes on for ever.
 */
import assert from "node:assert/strict";
import { AssertionError } from "../../src/base/assert.ts";
import { FsError } from "../../src/base/errors.ts";
import type { Disk, DiskFile } from "../../src/platform/interface.ts";
import { Prng } from "../../src/platform/sim/prng.ts";
import type { Volume } from "../../src/volume/interface.ts";
import { BadWorld } from "./bad-world.ts";
import { caller, diskPaths, hash } from "./scenario.ts";

export type Moment = "unmounted" | "killed" | "mounted";

/** Lengths at which a cut file may be taken for something that it is not. */
const interestingBytes = [0, 1, 7, 8, 20, 24, 63, 64, 511, 512, 513, 4095, 4096, 4097, 65_535, 65_536, 65_537, 131_072];

/** One change of one file. Answers it in words. */
async function damageFile(disk: Disk, files: readonly string[], random: Prng): Promise<string> {
	const name = random.pick(files);
	const file = await disk.open(name);
	try {
		const size = await file.size();
		const at = size === 0 ? 0 : random.below(size);
		const length = Math.min(size - at, 1 + random.below(random.pick([1, 8, 600, 5_000, 100_000])));
		const how = random.pick([
			"flip",
			"flip",
			"noise",
			"noise",
			"zeros",
			"ones",
			"cut",
			"cut",
			"extend",
			"remove",
			"exchange",
			"shift",
		] as const);
		if (how === "flip") await edit(file, at, Math.min(1, length), (bytes) => bytes.map((byte) => byte ^ (1 << random.below(8))));
		else if (how === "noise") await edit(file, at, length, (bytes) => random.bytes(bytes.length));
		else if (how === "zeros") await edit(file, at - (at % 512), length, (bytes) => bytes.fill(0));
		else if (how === "ones") await edit(file, at - (at % 512), length, (bytes) => bytes.fill(0xff));
		else if (how === "cut") await file.truncate(Math.min(size, random.chance(0.5) ? random.pick(interestingBytes) : at));
		else if (how === "extend") await file.write(size, [random.bytes(1 + random.below(9_000))]);
		else if (how === "remove") await disk.remove(name);
		else if (how === "shift") await edit(file, at, length, (bytes) => Uint8Array.from([...bytes.subarray(1), bytes[0] ?? 0]));
		else await exchange(disk, file, random.pick(files));
		return `${name} of ${size} bytes: ${how} at ${at}, ${length} bytes`;
	} finally {
		await file.close();
	}
}

async function edit(file: DiskFile, at: number, length: number, change: (bytes: Uint8Array) => Uint8Array): Promise<void> {
	if (length === 0) return;
	await file.write(at, [change((await file.read(at, length)).slice())]);
}

/** The first bytes of another file, which all have right checksums. */
async function exchange(disk: Disk, file: DiskFile, other: string): Promise<void> {
	const from = await disk.open(other);
	const bytes = (await from.read(0, Math.min(200_000, await from.size()))).slice();
	await from.close();
	if (bytes.length > 0) await file.write(0, [bytes]);
}

async function damage(bad: BadWorld, paths: readonly string[], random: Prng, lines: string[]): Promise<void> {
	const somebody = bad.world.node().boot();
	for (const path of paths) {
		const disk = await somebody.openDisk(path);
		for (let count = 1 + random.below(random.pick([1, 3, 12])); count > 0; count--) {
			const files = bad.world
				.disk(path)
				.files()
				.filter((name) => name !== "lock");
			if (files.length > 0) lines.push(`${path}: ${await damageFile(disk, files, random)}`);
		}
		await disk.close();
	}
}

async function begin(seed: number, paths: number): Promise<{ bad: BadWorld; chosen: string[]; random: Prng; lines: string[] }> {
	const bad = await BadWorld.make(seed);
	const random = new Prng(seed, "damage");
	const chosen: string[] = [];
	while (chosen.length < paths) {
		const path = random.pick(diskPaths);
		if (!chosen.includes(path)) chosen.push(path);
	}
	return { bad, chosen, random, lines: [] };
}

/** Says what was done when it fails. */
async function telling(seed: number, lines: readonly string[], work: () => Promise<void>): Promise<void> {
	await work().catch((error: unknown) => {
		throw new Error(`seed ${seed}: ${(error as Error).message}\n${lines.join("\n")}`, { cause: error });
	});
}

/** Two of the six disks of rs:4+2, or one. */
export async function corruptFew(seed: number, moment: Moment): Promise<void> {
	const { bad, chosen, random, lines } = await begin(seed, 1 + (seed % 2));
	await telling(seed, lines, () =>
		bad.run(async () => {
			await bad.mount();
			await bad.put("synced", 70_000);
			await bad.put("large", 30_000, 90_000);
			await bad.write("acknowledged", 20_000);
			if (moment === "unmounted") await bad.unmount();
			else if (moment === "killed") bad.kill();
			await damage(bad, chosen, random, lines);
			if (moment !== "mounted") await bad.mount();
			await bad.check("damaged");
			await bad.put("later", 40_000);
			const found = await bad.volume.verify({ dryRun: false, lost: true }, () => {});
			assert.deepEqual([found.unrecoverable, found.lostPaths], [0, []]);
			await bad.check("verified");
			await bad.remount();
			await bad.check("mounted again");
			await restore(bad, chosen);
			await bad.check("restored");
			await bad.expectWhole("restored");
			const again = await bad.volume.verify({ dryRun: false, lost: true }, () => {});
			assert.deepEqual([again.unrecoverable, again.lostPaths], [0, []]);
			await bad.expectClean("restored");
			await bad.remount();
			await bad.check("restored and mounted again");
			await bad.unmount();
		}),
	);
}

/** A disk that nobody knows any more is emptied and given back. */
async function restore(bad: BadWorld, chosen: readonly string[]): Promise<void> {
	for (const disk of (await bad.volume.status()).disks) {
		if (disk.state === "healthy") continue;
		assert(chosen.includes(disk.path), `${disk.path} is ${disk.state}: ${disk.reason}`);
		if (disk.state === "degraded" || disk.state === "suspect") await bad.volume.disks.setHealth(disk.id, "healthy");
		else {
			bad.world.wipe(disk.path);
			await bad.volume.disks.replace(disk.path, undefined);
		}
	}
	await bad.volume.heal(() => {});
}

export interface Found {
	/** The mount was refused. */
	refused: number;
	/** Files that were read, right. */
	right: number;
	/** Files that gave an error. */
	errors: number;
}

/** Three to six disks. */
export async function corruptMany(seed: number, moment: Exclude<Moment, "mounted">, tally: Found): Promise<void> {
	const { bad, chosen, random, lines } = await begin(seed, 3 + (seed % 4));
	await telling(seed, lines, () =>
		bad.run(async () => {
			await bad.mount();
			await bad.put("synced", 70_000);
			await bad.put("large", 30_000, 90_000);
			if (moment === "unmounted") await bad.unmount();
			else bad.kill();
			await damage(bad, chosen, random, lines);
			try {
				await bad.mount();
			} catch (error) {
				expectRefusal(error);
				tally.refused++;
				bad.kill();
				return;
			}
			await readAll(bad, tally);
			const result = await bad.volume.verify({ dryRun: false, lost: true }, () => {}).catch((error: unknown) => expectRefusal(error));
			await bad.volume.heal(() => {}).catch((error: unknown) => expectRefusal(error));
			// Of what a long read could not give, verify has saved what is there block by block.
			const lost = await readAll(bad, tally);
			if (result !== undefined)
				assert(lost.length === 0 || result.unrecoverable + result.lostPaths.length > 0, `what is lost is named: ${lost.join(" ")}`);
			await bad.volume.shutdown().catch((error: unknown) => expectRefusal(error));
		}),
	);
}

/** An answer of the program, not a fault of it. */
function expectRefusal(error: unknown): undefined {
	if (error instanceof FsError && !(error instanceof AssertionError)) return undefined;
	throw error;
}

/** Every file that is read is one of its own versions; answers the others. */
async function readAll(bad: BadWorld, tally: Found): Promise<string[]> {
	const lost: string[] = [];
	const { volume } = bad;
	for (const [path, history] of bad.histories) {
		try {
			const bytes = await readFile(volume, path);
			assert(
				history.versions.includes(hash(bytes)),
				`${path} holds ${hash(bytes)}, which nobody has written; it had ${history.versions.join(" ")}`,
			);
			tally.right++;
		} catch (error) {
			expectRefusal(error);
			lost.push(`${path} (${(error as Error).message})`);
			tally.errors++;
		}
	}
	return lost;
}

async function readFile(volume: Volume, path: string): Promise<Uint8Array> {
	const parts = path.split("/");
	let parent = volume.root;
	for (const part of parts.slice(0, -1)) parent = volume.node((await volume.lookup(caller, parent, part)).ino);
	const { ino, size } = await volume.lookup(caller, parent, parts.at(-1) as string);
	const { handle } = await volume.open(caller, { node: volume.node(ino) }, { disposition: "open", access: { read: true, write: false } });
	try {
		return await volume.read(handle, 0, size + 1);
	} finally {
		await volume.close(handle);
	}
}
