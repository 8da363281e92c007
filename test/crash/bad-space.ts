/** Bad days on which space runs out: on all disks, or on one. */
import assert from "node:assert/strict";
import { FsError } from "../../src/base/errors.ts";
import { awayIn, BadWorld, must } from "./bad-world.ts";
import { caller, pattern } from "./scenario.ts";

const MiB = 1024 * 1024;
const smallDisk = 24 * MiB;

/** Writes files until there is no space; answers their names. Everything before the refusal stays acknowledged. */
async function fill(bad: BadWorld, prefix: string, length: number): Promise<string[]> {
	const made: string[] = [];
	for (let i = 0; i < 5_000; i++) {
		const path = `${prefix}${i}`;
		try {
			await bad.inTime(`writing ${path}`, () => bad.write(path, length));
			made.push(path);
		} catch (error) {
			assert(error instanceof FsError, `seed ${bad.seed}: ${String(error)}`);
			assert.deepEqual([error.code, error.site], ["ENOSPC", "volume.full"], `seed ${bad.seed}: ${error.message}`);
			assert.match(error.message, /delete something or give it another disk/);
			return made;
		}
	}
	return assert.fail(`seed ${bad.seed}: the disks never filled up`);
}

/** Small disks are filled, mounted anew while full, emptied and written again. */
export async function diskFull(seed: number, length: number): Promise<void> {
	const bad = await BadWorld.make(seed, smallDisk);
	await bad.run(async () => {
		await bad.mount();
		const made = await fill(bad, "f", length);
		must(bad, made.length * length > 6 * MiB, `${made.length} files of ${length} bytes fitted`);
		for (const path of made.slice(-3)) await bad.inTime(`fsync of ${path}`, () => bad.fsync(path));
		await bad.syncAll();
		// What was reckoned for headers and was not needed is free again; then it is over.
		const odd = await fill(bad, "odd", length);
		must(bad, odd.length < made.length / 4, `${odd.length} more files fitted`);
		await bad.check("full");
		await metadataWorks(bad, "full");
		await bad.expectWhole("full");
		await bad.remount();
		await bad.check("mounted while full");
		bad.kill();
		await bad.mount();
		await bad.check("mounted while full, after a kill");
		await metadataWorks(bad, "full-again");
		await emptyAndFillAgain(bad, made, length);
		await bad.expectClean("filled twice");
		await bad.unmount();
	});
}

/** Names, attributes and tiny files need no room on data disks. */
async function metadataWorks(bad: BadWorld, prefix: string): Promise<void> {
	const { volume } = bad;
	for (let i = 0; i < 40; i++) {
		const made = await volume.makeDirectory(caller, volume.root, `${prefix}-${i}`, 0o755);
		await volume.setXattr(caller, volume.node(made.attributes.ino), "user.why", new Uint8Array(200), "any");
		if (i === 39) await volume.durable(made.position);
	}
	for (let i = 0; i < 40; i++) await volume.removeDirectory(caller, volume.root, `${prefix}-${i}`);
}

async function emptyAndFillAgain(bad: BadWorld, made: readonly string[], length: number): Promise<void> {
	// Neighbours in time share segments, and a segment's space comes back when all of it is dead.
	const gone = made.slice(0, Math.floor(made.length * 0.75));
	for (const path of gone) await bad.remove(path);
	const freeBytes = async (): Promise<number> => (await bad.volume.space()).freeBytes;
	// Not all of it: metadata has grown, and what is kept for it was drawn on.
	await bad.until("the space comes back", async () => (await freeBytes()) > gone.length * length * 0.5, 20_000);
	const again = await fill(bad, "g", length);
	must(bad, again.length >= gone.length * 0.5, `${again.length} files fitted where ${gone.length} were deleted`);
	await bad.syncAll();
	await bad.check("filled again");
}

/**
 * One of six disks has no space, while the others have plenty. A segment of six fragments has no room then (a smaller shape is not
 * taken for lack of space), so what is larger than a replica is
 * refused; metadata and small files go on, nothing that was acknowledged is lost, no disk is blamed.
 */
export async function oneDiskFull(seed: number, path: string): Promise<void> {
	const bad = await BadWorld.make(seed);
	await bad.run(async () => {
		await bad.mount();
		await bad.write("before", 90_000);
		bad.world.full(path);
		await bad.inTime("fsync of what is dirty", () => bad.fsync("before"));
		await noSpace(bad, "syncfs", () => bad.syncAll());
		// Writes believe an answer of the disks for half a second.
		await bad.world.sleep(600);
		await noSpace(bad, "wide data", () => bad.write("wide", 300_000));
		await bad.check("one disk full");
		await metadataWorks(bad, "one-full");
		for (const disk of (await bad.volume.status()).disks)
			assert.deepEqual([disk.state, disk.errors], ["healthy", 0], `seed ${seed}: ${disk.path}`);
		await noSpace(bad, "unmounting", () => bad.unmount());
		bad.node.kill();
		await bad.mount();
		await bad.check("mounted with one disk full, and dirty data in memory");
		bad.world.full(path, false);
		await bad.put("wide", 300_000);
		await bad.syncAll();
		await bad.expectWhole("there is space again");
		await bad.expectClean("there is space again");
		await bad.remount();
		await bad.check("there is space again");
		await bad.unmount();
	});
}

/**
 * Three of six disks are lost one after the other, and each time the data is copied to what is left, until that is full; then three empty ones come. What was
 * asked for must come back by itself although the old ones have no room, and people can write all the time that there is space.
 */
export async function healedWhenFull(seed: number, order: readonly string[]): Promise<void> {
	const bad = await BadWorld.make(seed, smallDisk);
	const [first, second, third] = order as [string, string, string];
	await bad.run(async () => {
		await bad.mount();
		for (let i = 0; i < 24; i++) await bad.put(`f${i}`, 600_000);
		await bad.syncAll();
		for (const path of [first, second]) bad.world.wipe(path);
		await bad.expectDegraded([first, second]);
		bad.world.wipe(third);
		await bad.until("three disks are left", async () => awayIn(await bad.volume.status()).length === 3);
		await bad.expectDegraded(order);
		await bad.check("three disks left");
		await bad.put("while-degraded", 100_000);
		for (const path of order) await bad.volume.disks.replace(path, undefined);
		await bad.expectWhole("three empty disks beside three full ones");
		await bad.expectClean("three empty disks beside three full ones");
		for (let i = 0; i < 12; i++) await bad.put(`g${i}`, 600_000);
		await bad.remount();
		await bad.check("healed");
		await bad.unmount();
	});
}

/** Refused for want of space, in time, and with nothing else. */
async function noSpace(bad: BadWorld, what: string, work: () => Promise<void>): Promise<void> {
	const error = await bad.inTime(what, () =>
		work().then(
			() => undefined,
			(caught: unknown) => caught,
		),
	);
	assert(error instanceof FsError, `seed ${bad.seed}, ${what}: ${error === undefined ? "it went through" : String(error)}`);
	assert.equal(error.code, "ENOSPC", `seed ${bad.seed}, ${what}: ${error.message}`);
	assert.match(error.message, /[Dd]elete something or/);
}

/**
 * The disk of a metadata mirror fills up while metadata is written: it moves to a disk with space, and goes on as if nothing had
 * happened.
 */
export async function metadataDiskFull(seed: number, path: string): Promise<void> {
	const bad = await BadWorld.make(seed);
	await bad.run(async () => {
		const { root } = await bad.mount();
		bad.world.full(path);
		for (let i = 0; i < 280; i++) {
			const made = await bad.inTime("mkdir", () => bad.volume.makeDirectory(caller, root, `m${i}`, 0o755));
			const node = bad.volume.node(made.attributes.ino);
			const { position } = await bad.inTime("setxattr", () => bad.volume.setXattr(caller, node, "user.much", pattern(i, 15_000), "any"));
			if (i % 8 === 0) await bad.inTime("durable", () => bad.volume.durable(position));
		}
		const isMoved = async (): Promise<boolean> => !(await bad.volume.status()).disks.some((disk) => disk.path === path && disk.metadata);
		await bad.until("the metadata moves away", isMoved);
		const status = await bad.volume.status();
		assert.deepEqual(status.metadataCopies, { wanted: 3, present: 3 }, `seed ${seed}`);
		for (const disk of status.disks) assert.deepEqual([disk.state, disk.errors], ["healthy", 0], `seed ${seed}: ${disk.path}`);
		await bad.syncAll();
		bad.cut();
		await bad.mount();
		const names = await bad.volume.readDirectory(caller, bad.volume.root, 0, 1_000, false);
		assert.equal(names.filter(({ name }) => name.startsWith("m")).length, 281, `seed ${seed}: 280 directories and "medium"`);
		for (let i = 0; i < 280; i += 31) {
			const { ino } = await bad.volume.lookup(caller, bad.volume.root, `m${i}`);
			assert.deepEqual(await bad.volume.getXattr(caller, bad.volume.node(ino), "user.much"), pattern(i, 15_000), `seed ${seed}: m${i}`);
		}
		await bad.unmount();
	});
}
