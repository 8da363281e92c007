/** Bad days on which disks are lost, come back, or come back old. Each function is one day; it throws when a promise was broken. */
import assert from "node:assert/strict";
import { diskPaths } from "./scenario.ts";
import { BadWorld, fails } from "./bad-world.ts";

/** How a disk goes away. */
export type Loss = "vanish" | "unlinked" | "wipe" | "absent";

function lose(bad: BadWorld, path: string, how: Loss): void {
	if (how === "wipe") bad.world.wipe(path);
	else bad.world.vanish(path, { unlinked: how === "unlinked" });
}

/** Writes, syncs and reads side by side until `stopped`; everything has to work, and in time. */
async function traffic(bad: BadWorld, isOver: () => boolean): Promise<number> {
	let operations = 0;
	const paths = [...bad.contents.keys()];
	const write = async (): Promise<void> => {
		for (let i = 0; !isOver(); i++) {
			const path = `traffic${i % 7}`;
			await bad.inTime(`writing ${path}`, () => bad.write(path, 700 + ((i * 9_973) % 60_000), (i * 517) % 3_000));
			if (i % 3 !== 0) await bad.inTime(`fsync of ${path}`, () => bad.fsync(path));
			operations++;
			await bad.world.sleep(i < 8 ? 3 : 60);
		}
	};
	const read = async (): Promise<void> => {
		for (let i = 0; !isOver(); i++) {
			const path = paths[i % paths.length] as string;
			await bad.inTime(`reading ${path}`, () => bad.read(path));
			operations++;
			await bad.world.sleep(i < 16 ? 2 : 40);
		}
	};
	await Promise.all([write(), read()]);
	return operations;
}

/** Two disks are lost at once under traffic; given back empty, healed; then two others are lost. */
export async function pairLostMounted(seed: number, pair: readonly string[], how: Loss, raw = false): Promise<void> {
	const bad = await BadWorld.make(seed, undefined, raw);
	await bad.run(async () => {
		await bad.mount();
		let over = false;
		const running = traffic(bad, () => over);
		await bad.world.sleep(20);
		for (const path of pair) lose(bad, path, how);
		await bad.world.sleep(1_200);
		over = true;
		assert((await running) > 30, `seed ${seed}: there was traffic`);
		await bad.put("after", 80_000);
		await afterLoss(bad, pair);
	});
}

/** Two disks are away when the volume is mounted, empty or not there at all. */
export async function pairLostUnmounted(seed: number, pair: readonly string[], how: Loss, raw = false): Promise<void> {
	const bad = await BadWorld.make(seed, undefined, raw);
	for (const path of pair) lose(bad, path, how);
	await bad.run(async () => {
		await bad.mount();
		await bad.check("mounted without two disks");
		await bad.put("after", 80_000);
		await afterLoss(bad, pair);
	});
}

async function afterLoss(bad: BadWorld, pair: readonly string[]): Promise<void> {
	await bad.syncAll();
	await bad.expectDegraded(pair);
	await bad.check("degraded");
	for (const path of pair) {
		bad.world.wipe(path);
		bad.world.reappear(path);
		await bad.volume.disks.replace(path, undefined);
	}
	await bad.put("replaced", 300_000);
	await bad.expectWhole("after two disks were replaced");
	await bad.expectClean("after two disks were replaced");
	const others = diskPaths.filter((path) => !pair.includes(path));
	const next = [others[bad.seed % 4] as string, others[(bad.seed + 1 + (bad.seed % 3)) % 4] as string].slice(0, 2);
	for (const path of new Set(next)) bad.world.vanish(path);
	await bad.remount();
	await bad.check("two other disks lost");
	await bad.put("last", 50_000);
	await bad.unmount();
}

/** Three disks at once are too many: nothing wrong is read, nothing is promised, and all is there again when they are back. */
export async function threeLostMounted(seed: number, lost: readonly string[]): Promise<void> {
	const bad = await BadWorld.make(seed);
	await bad.run(async () => {
		await bad.mount();
		await bad.put("before", 90_000);
		await bad.write("acknowledged", 40_000);
		for (const path of lost) bad.world.vanish(path);
		const failure = await bad.volume.failed.catch((error: unknown) => error as Error);
		assert.match(failure.message, /bring disks back/, `seed ${seed}`);
		assert.equal((await bad.volume.status()).state, "failed", `seed ${seed}`);
		await fails(`seed ${seed}, reading`, bad.read("large"), "EIO", "storage.lost", /Bring the missing disks back/);
		await assert.rejects(bad.put("refused", 40_000), { code: "EIO" }, `seed ${seed}: nothing durable without a quorum`);
		await assert.rejects(bad.unmount(), { code: "EIO" }, `seed ${seed}: no clean end`);
		bad.node.kill();
		for (const path of lost) bad.world.reappear(path);
		await bad.mount();
		await bad.check("the three are back");
		await bad.expectWhole("the three are back");
		await bad.unmount();
	});
}

/**
 * Three absent disks of six: refused without writing anything, again and again, whichever three there are; so two halves can never
 * both go on.
 */
export async function threeLostUnmounted(seed: number, lost: readonly string[]): Promise<void> {
	const bad = await BadWorld.make(seed);
	const here = diskPaths.filter((path) => !lost.includes(path));
	await bad.run(async () => {
		for (const away of [lost, here]) {
			for (const path of away) bad.world.vanish(path);
			const before = bad.world.steps;
			for (let attempt = 0; attempt < 2; attempt++) {
				const label = `seed ${seed}, ${away.join(" ")} away, attempt ${attempt}`;
				const error = await fails(label, bad.mount(), "REFUSED", "log.too-many-missing", /Bring them back and mount again/);
				for (const path of away) assert(error.message.includes(path), `${label}: ${path} is named: ${error.message}`);
			}
			assert.equal(bad.world.steps, before, `seed ${seed}: a refused mount writes nothing`);
			for (const path of away) bad.world.reappear(path);
		}
		await bad.mount();
		await bad.check("all are back");
		await bad.expectWhole("all are back");
		await bad.unmount();
	});
}

/**
 * Disks that were thrown out come back while all that know what happened since are away: refused. With the others there again nothing
 * old is read.
 */
export async function staleAlone(seed: number, stale: readonly string[]): Promise<void> {
	const bad = await BadWorld.make(seed);
	const others = diskPaths.filter((path) => !stale.includes(path));
	await bad.run(async () => {
		await bad.mount();
		for (const path of stale) bad.world.vanish(path);
		await bad.put("large", 100_000, 50_000);
		await bad.remove("small");
		await bad.put("newer", 250_000);
		await bad.unmount();
		for (const path of stale) bad.world.reappear(path);
		for (const path of others) bad.world.vanish(path);
		for (const paths of [diskPaths, stale]) {
			const label = `seed ${seed}, only ${stale.join(" ")} there`;
			const error = await fails(label, bad.mount(paths), "REFUSED", "log.roster-stale", /newer state.*--accept-loss/s);
			for (const path of others) assert(error.message.includes(path), `${label}: ${path} is named: ${error.message}`);
		}
		for (const path of others) bad.world.reappear(path);
		await bad.mount();
		await bad.check("stale disks among current ones");
		await bad.expectWhole("stale disks among current ones");
		await bad.expectClean("stale disks among current ones");
		const two = others.slice(0, 2);
		for (const path of two) bad.world.vanish(path);
		await bad.remount();
		await bad.check("on the strength of the disks that were stale");
	});
}

/** Changes most of what the template holds, so that an old copy of a disk differs in log, runs, and reused space. */
async function changeMuch(bad: BadWorld): Promise<void> {
	await bad.put("tiny", 60, 20);
	await bad.remove("medium");
	await bad.remove("dir/c");
	await bad.put("large", 200_000, 30_000);
	await bad.syncAll();
	await bad.world.sleep(1_000);
	await bad.put("dir/e", 60_000);
	await bad.put("dir/f", 20_000);
	await bad.syncAll();
}

export type Moment = "unmounted" | "killed" | "cut";

/** Disks return with what they held some time ago, among current ones. */
export async function oldContents(seed: number, old: readonly string[], moment: Moment): Promise<void> {
	const bad = await BadWorld.make(seed);
	await bad.run(async () => {
		const early = moment === "unmounted" ? snapshots(bad, old) : undefined;
		await bad.mount();
		await bad.put("early", 40_000);
		const before = early ?? snapshots(bad, old);
		await changeMuch(bad);
		await bad.write("last", 5_000);
		if (moment === "unmounted") await bad.unmount();
		else if (moment === "killed") bad.kill();
		else bad.cut();
		for (const [path, snapshot] of before) bad.world.restore(path, snapshot);
		await bad.mount();
		await bad.check(`${old.join(" and ")} old after ${moment}`, moment === "cut" ? "durable" : "acknowledged");
		const found = await bad.volume.verify({ dryRun: false, lost: true }, () => {});
		assert.deepEqual([found.unrecoverable, found.lostPaths], [0, []], `seed ${seed}`);
		await bad.expectWhole("old contents healed");
		await bad.expectClean("old contents healed");
		const others = diskPaths.filter((path) => !old.includes(path));
		for (const path of others.slice(0, 2)) bad.world.vanish(path);
		await bad.remount();
		await bad.check("on the strength of the disks that were old");
	});
}

function snapshots(bad: BadWorld, paths: readonly string[]): [string, ReturnType<BadWorld["world"]["snapshot"]>][] {
	return paths.map((path) => [path, bad.world.snapshot(path)]);
}

/** All mirrors of metadata come back old: more than the volume survives. Refused, whatever the operator tries without --accept-loss. */
export async function allMetadataOld(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed);
	await bad.run(async () => {
		await bad.mount();
		const members = (await bad.volume.status()).disks.filter((disk) => disk.metadata).map((disk) => disk.path);
		assert.equal(members.length, 3, `seed ${seed}`);
		const before = snapshots(bad, members);
		await changeMuch(bad);
		const now = snapshots(bad, members);
		await bad.unmount();
		const last = snapshots(bad, members);
		for (const set of [before, now]) {
			for (const [path, snapshot] of set) bad.world.restore(path, snapshot);
			await fails(`seed ${seed}`, bad.mount(), "EIO", "kv.manifest-lost", /bring missing disks back/);
		}
		for (const [path, snapshot] of last) bad.world.restore(path, snapshot);
		await bad.mount();
		await bad.check("the right disks are back");
		await bad.unmount();
	});
}
