/** What the loss of one disk of six costs: nothing but what was on it, if it comes back or is replaced soon; everything is written anew only when it is not, when somebody asks, or when the next loss would hurt. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { BadWorld } from "./bad-world.ts";
import { diskPaths } from "./scenario.ts";

const others = diskPaths.slice(0, 5);

type Packs = ReadonlyMap<string, Uint8Array>;

/** What lies in the packs of these disks, by file. */
function packs(bad: BadWorld, paths: readonly string[]): Packs {
	const found = new Map<string, Uint8Array>();
	for (const path of paths) {
		const device = bad.world.disk(path);
		for (const name of device.files()) if (name.startsWith("pack/")) found.set(`${path}/${name}`, device.peek(name));
	}
	return found;
}

/** Everything lies where it lay; a few replicas of tiny files may have come beside. */
function expectUntouched(before: Packs, after: Packs): void {
	for (const [name, bytes] of after) {
		const old = before.get(name) ?? new Uint8Array(0);
		assert.ok(bytes.length <= old.length + 64 * 1024, `${name} grew from ${old.length} to ${bytes.length} bytes`);
		assert.equal(Buffer.compare(bytes.subarray(0, old.length), old), 0, `${name} holds something else`);
	}
}

/** A mounted volume with some megabytes in segments of rs:4+2. */
async function day(seed: number, events: (bad: BadWorld) => Promise<void>): Promise<void> {
	const bad = await BadWorld.make(seed);
	await bad.run(async () => {
		await bad.mount();
		for (let i = 0; i < 4; i++) await bad.put(`file${i}`, 2_000_000);
		await bad.syncAll();
		await bad.expectWhole("before");
		await events(bad);
		await bad.check("at the end");
		await bad.expectClean("at the end");
		await bad.unmount();
	}, 3_600_000);
}

const degraded = async (bad: BadWorld): Promise<number> => (await bad.volume.status()).protection.degradedBytes;

/** Losses that everything survives, by the records. */
async function survives(bad: BadWorld): Promise<number> {
	const { survival } = await bad.volume.ledger();
	return Math.min(...survival.filter((one) => one.recordedBytes > 0).map((one) => one.losses));
}

test("one disk of six is replaced within minutes: only what it held is made anew", async () => {
	await day(1, async (bad) => {
		const before = packs(bad, others);
		bad.world.vanish("/d6");
		await bad.world.sleep(300_000);
		assert.ok((await degraded(bad)) > 7_000_000);
		assert.deepEqual(
			(await bad.volume.ledger()).shortages.map(({ cause }) => cause),
			["awaited"],
		);
		expectUntouched(before, packs(bad, others));
		bad.world.reappear("/d6");
		bad.world.wipe("/d6");
		await bad.volume.disks.replace("d6", undefined);
		await bad.until("healed onto the new disk", async () => (await degraded(bad)) === 0);
		expectUntouched(before, packs(bad, others));
	});
});

test("one disk of six comes back within minutes: nothing is made anew", async () => {
	await day(2, async (bad) => {
		const before = packs(bad, diskPaths);
		bad.world.hang("/d6");
		await bad.until("it is missed", async () => (await degraded(bad)) > 7_000_000);
		await bad.world.sleep(120_000);
		bad.world.unhang("/d6");
		await bad.until("all is whole", async () => (await degraded(bad)) === 0);
		expectUntouched(before, packs(bad, diskPaths));
	});
});

test("one disk of six stays away: after a while, or at once when somebody asks, the others hold everything as safely as before", async () => {
	for (const asks of [false, true]) {
		await day(3, async (bad) => {
			bad.world.vanish("/d6");
			await bad.until("it is missed", async () => (await degraded(bad)) > 7_000_000);
			assert.equal(await survives(bad), 1);
			if (asks) await bad.volume.heal(() => {});
			else {
				await bad.world.sleep(590_000);
				await bad.until("healed onto five", async () => (await survives(bad)) === 2, 120_000);
			}
			assert.equal(await survives(bad), 2);
		});
	}
});

test("two disks of six are lost: nothing waits", async () => {
	await day(4, async (bad) => {
		for (const path of ["/d5", "/d6"]) bad.world.vanish(path);
		await bad.until("healed onto four", async () => (await degraded(bad)) > 0 && (await survives(bad)) === 2);
	});
});
