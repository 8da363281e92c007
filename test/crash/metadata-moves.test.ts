/** Metadata that moves from disk to disk, as failures and full disks make it: found by the simulator. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { isFsError } from "../../src/base/errors.ts";
import { inspectDisks } from "../../src/log/disk-set.ts";
import { awayIn, BadWorld } from "./bad-world.ts";
import { caller, diskPaths } from "./scenario.ts";

async function metadataDisks(bad: BadWorld): Promise<string[]> {
	return (await bad.volume.status()).disks.filter((disk) => disk.metadata).map((disk) => disk.path);
}

test("a move of the metadata that found no space at first ends with a checkpoint: old mirrors of the log are needed no more", async () => {
	const bad = await BadWorld.make(9002);
	await bad.run(async () => {
		await bad.mount();
		const homes = await metadataDisks(bad);
		for (let i = 0; i < 10; i++) await bad.put(`logged${i}`, 3_000);
		const others = diskPaths.filter((path) => !homes.includes(path));
		for (const path of others) bad.world.full(path);
		bad.world.vanish(homes[1] as string);
		await bad.until("it is away", async () => awayIn(await bad.volume.status()).length === 1);
		await bad.world.sleep(5_000);
		for (const path of others) bad.world.full(path, false);
		await bad.until("three copies", async () => (await bad.volume.status()).metadataCopies.present === 3);
		const seen = await inspectDisks([homes[0] as string], { platform: bad.world.node().boot(), logger: bad.logger() });
		assert.equal(seen.roster.logEpochs.length, 1, "records of older epochs are on the disks that had them then, and nowhere else");
		// Now the other two of the old mirrors may go as well, one after the other.
		for (const path of [homes[0] as string, homes[2] as string]) {
			bad.world.wipe(path);
			await bad.until(`${path} is away`, async () => awayIn(await bad.volume.status()).includes(path));
			await bad.volume.disks.replace(path, undefined);
			await bad.volume.heal(() => {});
			await bad.until("three copies again", async () => (await bad.volume.status()).metadataCopies.present === 3);
		}
		bad.cut();
		await bad.mount();
		await bad.check("after a power cut", "durable");
	});
});

/** Directories with long names, which need no space but the metadata's: `count` of them are more than the log's ring of 4 × 2.5 MiB takes. The last one is durable. */
class Names {
	readonly #bad: BadWorld;
	#made = 0;

	constructor(bad: BadWorld) {
		this.#bad = bad;
	}

	async make(count: number): Promise<void> {
		const { volume } = this.#bad;
		for (let i = 0; i < count; i++) {
			const { position } = await volume.makeDirectory(caller, volume.root, this.#name(this.#made), 0o755);
			this.#made++;
			if (i === count - 1) await volume.durable(position);
		}
	}

	async check(): Promise<void> {
		const { volume } = this.#bad;
		for (let i = 0; i < this.#made; i++) await volume.lookup(caller, volume.root, this.#name(i));
	}

	#name(number: number): string {
		return `${number}${"n".repeat(240)}`;
	}
}

test("a metadata disk is lost and no other one has room: changes go on with a copy less, which is told, and it comes back by itself", async () => {
	const bad = await BadWorld.make(9020);
	await bad.run(async () => {
		await bad.mount();
		const names = new Names(bad);
		const homes = await metadataDisks(bad);
		for (const path of diskPaths) if (!homes.includes(path)) bad.world.full(path);
		bad.world.wipe(homes[1] as string);
		await bad.until("it is away", async () => awayIn(await bad.volume.status()).length === 1);
		await names.make(10_000);
		const short = await bad.volume.status();
		assert.deepEqual(short.metadataCopies, { wanted: 3, present: 2 });
		assert.equal(short.state, "degraded");
		assert.ok(short.warnings.includes("metadata has 2 of 3 copies"), short.warnings.join("; "));
		assert.deepEqual((await bad.volume.ledger()).metadataCopies, { wanted: 3, present: 2 });
		const seen = await inspectDisks([homes[0] as string], { platform: bad.world.node().boot(), logger: bad.logger() });
		assert.ok(seen.roster.logEpochs.length <= 2, "the log is cut meanwhile");
		// As it is, over a power cut and an unmount.
		bad.cut();
		await bad.mount();
		await names.check();
		await names.make(3_000);
		await bad.remount();
		await names.check();
		assert.deepEqual((await bad.volume.status()).metadataCopies, { wanted: 3, present: 2 });
		for (const path of diskPaths) bad.world.full(path, false);
		await bad.until("three copies", async () => (await bad.volume.status()).metadataCopies.present === 3);
		// Each of the two that had it may go now.
		bad.world.wipe(homes[0] as string);
		await bad.until("two are away", async () => awayIn(await bad.volume.status()).length === 2);
		await names.make(1_000);
		await bad.until("three copies again", async () => (await bad.volume.status()).metadataCopies.present === 3);
		bad.cut();
		await bad.mount();
		await names.check();
	});
});

test("the last two disks with metadata are not made one because one of them is full", async () => {
	const bad = await BadWorld.make(9021);
	await bad.run(async () => {
		await bad.mount();
		const names = new Names(bad);
		const homes = await metadataDisks(bad);
		for (const path of diskPaths) if (!homes.includes(path)) bad.world.full(path);
		bad.world.wipe(homes[1] as string);
		await bad.until("it is away", async () => awayIn(await bad.volume.status()).length === 1);
		bad.world.full(homes[0] as string);
		let refused: unknown;
		for (let round = 0; round < 40 && refused === undefined; round++) await names.make(1_000).catch((error: unknown) => (refused = error));
		assert.ok(isFsError(refused, "ENOSPC"), String(refused));
		assert.deepEqual((await bad.volume.status()).metadataCopies, { wanted: 3, present: 2 });
		await bad.read("dir/a");
		bad.world.full(homes[0] as string, false);
		await bad.until("changes go on", () =>
			names.make(1_000).then(
				() => true,
				() => false,
			),
		);
		for (const path of diskPaths) bad.world.full(path, false);
		await bad.until("three copies", async () => (await bad.volume.status()).metadataCopies.present === 3);
		bad.cut();
		await bad.mount();
		await names.check();
	});
});

test("a verification beside healing calls nothing lost and blames no healthy disk", async () => {
	for (let delay = 0; delay < 8; delay++) {
		const bad = await BadWorld.make(9010 + delay);
		await bad.run(async () => {
			await bad.mount();
			for (let i = 0; i < 12; i++) await bad.put(`more${i}`, 150_000);
			bad.world.wipe("/d5");
			await bad.until("it is away", async () => awayIn(await bad.volume.status()).length === 1);
			await bad.volume.heal(() => {});
			// Everything is written anew in its old shape: all places that the verification knew are given back under it.
			await bad.volume.disks.replace("/d5", undefined);
			await bad.world.sleep(delay * 3);
			const found = await bad.volume.verify({ dryRun: true, lost: true }, () => {});
			assert.deepEqual([found.unrecoverable, found.corrupt], [0, 0], `delay ${delay}`);
			await bad.expectWhole("healed");
			for (const disk of (await bad.volume.status()).disks) assert.equal(disk.errors, 0, `${disk.path} is blamed`);
		});
	}
});

test("a disk that is to leave has all of the metadata until another one has it: it can be read when the two others cannot", async () => {
	const bad = await BadWorld.make(9040);
	await bad.run(async () => {
		await bad.mount();
		const names = new Names(bad);
		const [leaving, ...others] = (await metadataDisks(bad)) as [string, string, string];
		for (const path of diskPaths) if (path !== leaving && !others.includes(path)) bad.world.full(path);
		await bad.volume.disks.drain(`d${1 + diskPaths.indexOf(leaving)}`, { allowDegraded: true });
		await names.make(10_000);
		for (const path of others) bad.world.fail(path, ["read"]);
		await names.check();
		for (const path of others) bad.world.heal(path);
		for (const path of diskPaths) bad.world.full(path, false);
		await bad.until("it has left", async () => !(await metadataDisks(bad)).includes(leaving));
		bad.cut();
		await bad.mount();
		await names.check();
	});
});

test("a home that cannot be read does not hold up the move from another", async () => {
	const bad = await BadWorld.make(9041);
	await bad.run(async () => {
		await bad.mount();
		const names = new Names(bad);
		await names.make(100);
		await bad.remount();
		const [leaving, unreadable] = (await metadataDisks(bad)) as [string, string, string];
		bad.world.fail(unreadable, ["read"]);
		const startMs = bad.world.nowMs;
		await bad.volume.disks.drain(`d${1 + diskPaths.indexOf(leaving)}`, { allowDegraded: true });
		const others = diskPaths.filter((path) => path !== leaving && path !== unreadable).map((path) => `d${1 + diskPaths.indexOf(path)}`);
		const isElsewhere = `metadata is on ${others.slice(0, 3).join(", ")}`;
		await bad.until("it is on three others", async () => bad.lines.some((line) => line.includes(isElsewhere)));
		// Virtual time: attempts that fail are a second apart, unless another disk can take the place.
		assert.ok(bad.world.nowMs - startMs < 1_000, `${bad.world.nowMs - startMs} ms`);
		await names.check();
	});
});
