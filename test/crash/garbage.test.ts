/** What no record names: found on every disk, left alone while it is young, given back when it is old; and nothing else is touched. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { GarbageReport } from "../../src/volume/native/interface.ts";
import { BadWorld } from "./bad-world.ts";

const MiB = 1024 * 1024;
/** An hour stands for a second, or the tests would play days of nothing. */
const hourMs = 1000;
const garbage = { ageMs: 240 * hourMs, firstMs: hourMs, everyMs: 60 * hourMs };

const kindsOf = ({ items }: GarbageReport): string[] =>
	items.map(({ kind, disk, name, state }) => `${kind} ${disk} ${name} ${state}`).sort();

/** Somebody else's program puts a file on a disk. */
async function plant(bad: BadWorld, path: string, name: string, lengthBytes: number): Promise<void> {
	const disk = await bad.world.node().boot().openDisk(path);
	const file = await disk.open(name, { create: true });
	await file.write(0, [new Uint8Array(lengthBytes).fill(7)]);
	await file.close();
}

test("files of ours that nothing needs are found, aged and removed; foreign ones are told and left alone", async () => {
	const bad = await BadWorld.make(1400);
	bad.garbage = { ...garbage, firstMs: 9_000_000 };
	await bad.run(async () => {
		await bad.mount();
		const status = await bad.volume.status();
		const mirror = status.disks.find((disk) => disk.metadata)?.path as string;
		const other = status.disks.find((disk) => !disk.metadata)?.path as string;
		const id = (path: string): string => status.disks.find((disk) => disk.path === path)?.id as string;
		await bad.world.sleep(3_000);
		assert.deepEqual(kindsOf(await bad.volume.collectGarbage(false)), [], "nothing is garbage in a volume at rest");
		await plant(bad, mirror, "kv/run-00000999", 50_000);
		await plant(bad, mirror, "pack/99999999", MiB);
		await plant(bad, other, "kv/run-00000001", 50_000);
		await plant(bad, other, "log/03", 60_000);
		await plant(bad, other, "holiday.jpg", 3_000);
		await plant(bad, other, "pack/README", 30);
		const expected = (state: string): string[] =>
			[
				`foreign ${id(other)} holiday.jpg kept`,
				`foreign ${id(other)} pack/README kept`,
				`log ${id(other)} log/03 ${state}`,
				`pack ${id(mirror)} pack/99999999 ${state}`,
				`run ${id(mirror)} kv/run-00000999 ${state}`,
				`run ${id(other)} kv/run-00000001 ${state}`,
			].sort();
		const young = await bad.volume.collectGarbage(false);
		assert.deepEqual(kindsOf(young), expected("young"));
		assert(young.foundBytes >= MiB && young.foundBytes === young.youngBytes && young.removedBytes === 0, JSON.stringify(young));
		assert.equal((await bad.volume.status()).garbage.bytes, young.foundBytes);
		await bad.put("beside", 300_000);
		await bad.world.sleep(240 * hourMs - 60_000);
		assert.deepEqual(kindsOf(await bad.volume.collectGarbage(true)), expected("young"), "a minute before its time");
		await bad.world.sleep(120_000);
		const before = bad.world.disk(mirror).files();
		assert.deepEqual(kindsOf(await bad.volume.collectGarbage(true)), expected("aged"), "a dry run only tells");
		assert.deepEqual(bad.world.disk(mirror).files(), before);
		const removed = await bad.volume.collectGarbage(false);
		assert.deepEqual(kindsOf(removed), expected("removed"));
		assert.equal(removed.removedBytes, young.foundBytes);
		for (const name of ["kv/run-00000999", "pack/99999999"]) assert(!bad.world.disk(mirror).files().includes(name), name);
		const left = bad.world.disk(other).files();
		assert(left.includes("holiday.jpg") && left.includes("pack/README") && !left.includes("log/03"), left.join());
		assert.deepEqual(
			kindsOf(await bad.volume.collectGarbage(false)),
			expected("removed").filter((line) => line.startsWith("foreign")),
		);
		const { garbage } = await bad.volume.status();
		assert.deepEqual([garbage.bytes, garbage.unaccountedBytes, garbage.foreign], [0, 0, 2]);
		await bad.check("collected");
		await bad.expectClean("collected");
		await bad.remount();
		await bad.check("after another mount");
		await bad.unmount();
	}, 1_800_000);
});

test("what a disk that was away could not let go of is found when it is back, and given back by itself", async () => {
	const bad = await BadWorld.make(1410);
	bad.garbage = garbage;
	await bad.run(async () => {
		await bad.mount();
		for (let at = 0; at < 12; at++) await bad.put(`file ${at}`, 2 * MiB);
		const held = (): number =>
			bad.world
				.disk("/d3")
				.files()
				.filter((name) => name.startsWith("pack/"))
				.reduce((sum, name) => sum + bad.world.disk("/d3").pagesOf(name).length, 0);
		// What is left of its packs stays needed.
		await bad.volume.setHealing({ paused: true });
		bad.world.vanish("/d3");
		await bad.until("the loss is known", async () =>
			(await bad.volume.status()).disks.some((disk) => disk.path === "/d3" && disk.state === "failed"),
		);
		for (let at = 0; at < 10; at++) await bad.remove(`file ${at}`);
		await bad.syncAll();
		await bad.world.sleep(5_000);
		bad.world.reappear("/d3");
		const isBack = async (): Promise<boolean> => (await bad.volume.status()).disks.every((disk) => disk.state === "healthy");
		await bad.until("it is back", isBack, 120_000);
		await bad.volume.setHealing({ paused: false });
		await bad.expectWhole("back");
		const young = await bad.volume.collectGarbage(false);
		const before = held();
		const space = young.items.find(({ kind }) => kind === "space");
		assert(space !== undefined && space.bytes > 2 * MiB && young.items.every(({ disk }) => disk === "d3"), JSON.stringify(young));
		await bad.world.sleep(320 * hourMs);
		assert(held() * 4096 < before * 4096 - 2 * MiB, `${before} pages before, ${held()} after`);
		const { garbage } = await bad.volume.status();
		assert(garbage.removedBytes > 2 * MiB && garbage.bytes === 0 && garbage.lookedAt !== null, JSON.stringify(garbage));
		await bad.check("given back");
		await bad.expectClean("given back");
		await bad.unmount();
	}, 1_800_000);
});

test("the place of a write that hung is given back when its disk is back, and not before", async () => {
	const bad = await BadWorld.make(1420);
	bad.garbage = garbage;
	await bad.run(async () => {
		await bad.mount();
		await bad.write("hangs", 2 * MiB);
		bad.world.hang("/d2");
		await bad.syncAll();
		await bad.until("it is out", async () => (await bad.volume.status()).disks.some((disk) => disk.state !== "healthy"));
		bad.world.unhang("/d2");
		await bad.until("it is back", async () => (await bad.volume.status()).disks.every((disk) => disk.state === "healthy"), 300_000);
		await bad.expectWhole("back");
		const used = async (): Promise<number> =>
			(await bad.volume.balance.plan()).usedBytes.find(({ disk }) => disk === "d2")?.usedBytes.now as number;
		const found = await bad.volume.collectGarbage(false);
		const places = found.items.filter(({ kind }) => kind === "place");
		assert(places.length > 0 && places.every(({ state }) => state === "young"), JSON.stringify(found));
		const before = await used();
		await bad.world.sleep(320 * hourMs);
		assert(before - (await used()) >= 512 * 1024, `${before} bytes taken before, ${await used()} after; ${JSON.stringify(places)}`);
		assert.deepEqual(kindsOf(await bad.volume.collectGarbage(false)), []);
		await bad.check("given back");
		await bad.expectClean("given back");
		await bad.unmount();
	}, 1_800_000);
});
