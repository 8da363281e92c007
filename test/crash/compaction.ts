/** Space of what died beside what lives comes back: lives of a volume in which compaction has much to do. */
import assert from "node:assert/strict";
import { recount, type Recounted } from "../support/recount.ts";
import { BadWorld, must } from "./bad-world.ts";
import { caller, diskPaths } from "./scenario.ts";

const MiB = 1024 * 1024;

async function usedBytes(bad: BadWorld): Promise<number> {
	return (await bad.volume.status()).usedBytes;
}

/** Ends the volume's life and counts everything in its metadata. */
export async function unmountAndRecount(bad: BadWorld, what: string): Promise<Recounted> {
	await bad.unmount();
	try {
		return await recount(bad.node.boot(), diskPaths, { logTailBytes: 4 * MiB });
	} catch (error) {
		throw new Error(`seed ${bad.seed}, ${what}: ${(error as Error).message}`, { cause: error });
	} finally {
		bad.kill();
	}
}

/** Of many small files that share segments every second one goes. */
export async function everySecondSmallFile(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed);
	await bad.run(async () => {
		await bad.mount();
		const before = await usedBytes(bad);
		const files = Array.from({ length: 200 }, (_, i) => `f${i}`);
		for (const [i, path] of files.entries()) {
			await bad.write(path, 6_000 + 37 * i);
			if (i % 60 === 59) await bad.syncAll();
		}
		await bad.syncAll();
		const full = (await usedBytes(bad)) - before;
		for (const [i, path] of files.entries()) if (i % 2 === 0) await bad.remove(path);
		await bad.until("half of the space comes back", async () => (await usedBytes(bad)) - before < 0.6 * full);
		const { compaction } = await bad.volume.status();
		must(bad, compaction.freedBytes > 0.3 * full && compaction.movedBytes > 0.3 * full, JSON.stringify(compaction));
		await bad.check("compacted");
		await bad.expectClean("compacted");
		const { liveBytes, payloadBytes } = await unmountAndRecount(bad, "compacted");
		must(bad, payloadBytes < 1.1 * liveBytes, `${payloadBytes} bytes hold ${liveBytes}`);
		await bad.mount();
		await bad.check("mounted again");
		await bad.unmount();
	});
}

/** A large file of which random parts are overwritten, many times over: chunks that are partly dead. */
export async function overwrittenParts(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed);
	const random = bad.world.random;
	await bad.run(async () => {
		await bad.mount();
		const before = await usedBytes(bad);
		await bad.write("base", 6 * MiB);
		await bad.syncAll();
		const once = (await usedBytes(bad)) - before;
		for (let i = 0; i < 400; i++) {
			await bad.write("base", 1_000 + random.below(30_000), random.below(6 * MiB - 31_000));
			if (i % 20 === 19) await bad.syncAll();
		}
		await bad.until("the space of what was overwritten comes back", async () => (await usedBytes(bad)) - before < 1.5 * once, 120_000);
		await bad.check("compacted");
		await bad.expectClean("compacted");
		await unmountAndRecount(bad, "compacted");
	});
}

/** Files share chunks, and the one they were written for goes. */
export async function sharedChunks(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed);
	await bad.run(async () => {
		await bad.mount();
		const before = await usedBytes(bad);
		for (let i = 0; i < 6; i++) await bad.write(`own${i}`, 1.5 * MiB);
		await bad.syncAll();
		const full = (await usedBytes(bad)) - before;
		for (let i = 0; i < 6; i += 2) await bad.copy(`own${i}`, 100_000, `copy${i}`, 1_200_000);
		await bad.syncAll();
		for (let i = 0; i < 6; i++) await bad.remove(`own${i}`);
		await bad.until("what nobody refers to comes back", async () => (await usedBytes(bad)) - before < 0.62 * full, 120_000);
		await bad.check("compacted");
		await bad.expectClean("compacted");
		await unmountAndRecount(bad, "compacted");
	});
}

/** A full volume of small files, of which every second goes, takes as much again. */
export async function fullOfHoles(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed, 24 * MiB);
	await bad.run(async () => {
		await bad.mount();
		const length = 20_000;
		const made: string[] = [];
		const fill = async (prefix: string): Promise<number> => {
			for (let i = 0; i < 5_000; i++) {
				try {
					await bad.inTime(`writing ${prefix}${i}`, () => bad.write(`${prefix}${i}`, length));
					made.push(`${prefix}${i}`);
				} catch (error) {
					assert.equal((error as { code?: string }).code, "ENOSPC", String(error));
					return i;
				}
			}
			return assert.fail("the disks never filled up");
		};
		const first = await fill("f");
		must(bad, (await bad.volume.space()).freeBytes === 0, "df says that a full volume is full");
		must(
			bad,
			(await bad.volume.status()).warnings.some((line) => line.includes("of the space is free")),
			"status warns of it",
		);
		await bad.syncAll();
		for (let i = 0; i < first; i += 2) await bad.remove(`f${i}`);
		// At once: whoever writes waits for compaction.
		const again = await fill("g");
		must(bad, again >= 0.45 * first, `${again} files fitted where ${Math.ceil(first / 2)} of ${first} were deleted`);
		await bad.syncAll();
		await bad.check("filled again");
		await bad.expectClean("filled again");
		await unmountAndRecount(bad, "filled again");
	});
}

/** Everything that compaction does beside others who write, remove, read and copy. */
async function life(bad: BadWorld): Promise<void> {
	await bad.mount();
	const { random } = bad.world;
	for (let i = 0; i < 24; i++) await bad.write(`f${i}`, 3_000 + random.below(60_000));
	await bad.put("base", 900_000);
	await bad.syncAll();
	for (let i = 0; i < 24; i += 2) await bad.remove(`f${i}`);
	for (let i = 0; i < 30; i++) await bad.write("base", 12_000, random.below(880_000));
	await bad.syncAll();
	const end = bad.world.nowMs + 16_000;
	for (let i = 1; bad.world.nowMs < end; i += 2) {
		await bad.world.sleep(700);
		// The sleep is the world's: this life is over when its machine is.
		if (bad.world.wasCut) await new Promise(() => {});
		if (i < 12) await bad.remove(`f${i}`);
		await bad.write(`g${i}`, 5_000 + random.below(20_000));
		await bad.write("base", 4_000, random.below(880_000));
		if (i % 4 === 1) await bad.syncAll();
	}
	must(bad, (await bad.volume.status()).compaction.movedBytes > 0, "compaction has worked");
	await bad.unmount();
}

/** How many steps of the disks that life has. */
export async function stepsOfLife(seed: number): Promise<number> {
	const bad = await BadWorld.make(seed);
	await bad.run(() => life(bad));
	return bad.world.steps;
}

/** The power fails or the daemon dies at a step of that life; what was promised must be there, and every count be right. */
export async function endsAt(seed: number, how: "cut" | "kill", step: number): Promise<void> {
	const bad = await BadWorld.make(seed);
	const ended = how === "cut" ? bad.world.cutAt(step) : bad.world.killAt(step);
	await bad.run(() => Promise.race([life(bad), ended]));
	if (!bad.world.wasCut) return;
	const what = `${how} at step ${step}`;
	await bad.run(async () => {
		await bad.mount();
		await bad.check(what, how === "cut" ? "durable" : "acknowledged");
		await bad.volume.readDirectory(caller, bad.volume.root, 0, 10, false);
		await bad.expectClean(what);
		await unmountAndRecount(bad, what);
	});
}
