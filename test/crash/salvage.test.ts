/** More of a segment is lost than it can miss: what is left of it is moved to safety, and what is lost is named. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { FsError } from "../../src/base/errors.ts";
import type { Segment } from "../../src/records/interface.ts";
import { segmentRecord } from "../../src/records/kinds.ts";
import { headerLength } from "../../src/storage/fragment.ts";
import { withEngine } from "../support/recount.ts";
import { BadWorld } from "./bad-world.ts";
import { caller, diskPaths, pattern, simMemory } from "./scenario.ts";

const block = 4096;

/** All contents that lie on these disks are other bytes now. */
function ruin(bad: BadWorld, paths: readonly string[]): void {
	for (const path of paths) {
		for (const name of bad.world.disk(path).files()) {
			if (!name.startsWith("pack/")) continue;
			const noise = pattern(bad.fresh(), 251).map((byte) => byte | 1);
			bad.world.corrupt(path, name, 0, bad.world.disk(path).peek(name).length, noise);
		}
	}
}

/** The blocks of a file that can be read. */
async function blocksOf(bad: BadWorld, path: string): Promise<Map<number, string>> {
	const { volume } = bad;
	const { ino, size } = await volume.lookup(caller, volume.root, path);
	const { handle } = await volume.open(caller, { node: volume.node(ino) }, { disposition: "open", access: { read: true, write: false } });
	const blocks = new Map<number, string>();
	for (let at = 0; at < size; at += block) {
		try {
			blocks.set(at, Buffer.from(await volume.read(handle, at, block)).toString("latin1"));
		} catch (error) {
			assert.ok(error instanceof FsError && error.code === "EIO", `seed ${bad.seed}: ${String(error)}`);
		}
	}
	await volume.close(handle);
	return blocks;
}

const files = ["big", "more", "medium", "small"];

test("what still can be read survives two further losses; verify names the rest, whatever is in memory", async () => {
	for (const seed of [31]) {
		const bad = await BadWorld.make(seed);
		await bad.run(async () => {
			await bad.mount();
			await bad.write("big", 500_000);
			await bad.write("more", 200_000);
			await bad.syncAll();
			for (const path of files) await bad.read(path);
			ruin(bad, diskPaths.slice(0, 3));
			const found = await bad.volume.verify({ dryRun: true, lost: true }, () => {});
			assert.ok(found.unrecoverable > 0, `seed ${seed}`);
			assert.ok(found.lostPaths.includes("big"), `seed ${seed}: ${found.lostPaths.join()}`);
			bad.kill();

			await bad.mount();
			const before = new Map<string, Map<number, string>>();
			for (const path of files) before.set(path, await blocksOf(bad, path));
			const big = before.get("big") as Map<number, string>;
			assert.ok(big.size > 0 && big.size * block < 500_000, `seed ${seed}: ${big.size} blocks are left`);
			const { lostBytes } = await bad.volume.heal(() => {});
			assert.ok(lostBytes > 0, `seed ${seed}`);
			await bad.volume.syncAll();
			bad.kill();

			ruin(bad, diskPaths.slice(4, 6));
			await bad.mount();
			for (const path of files) {
				const after = await blocksOf(bad, path);
				for (const [at, bytes] of before.get(path) as Map<number, string>)
					assert.ok(after.get(at) === bytes, `seed ${seed}: ${path} at ${at}`);
			}
			const { lostPaths, miscounted } = await bad.volume.verify({ dryRun: false, lost: true }, () => {});
			const lost = files.filter((path) => (before.get(path)?.size ?? 0) * block < (bad.contents.get(path)?.length ?? 0));
			assert.deepEqual(lostPaths.filter((path) => files.includes(path)).sort(), [...lost].sort(), `seed ${seed}`);
			assert.equal(miscounted, 0, `seed ${seed}`);
		});
	}
});

/** All segments of a volume that is not mounted. */
async function segmentsOf(bad: BadWorld): Promise<Segment[]> {
	const { tag } = segmentRecord;
	return await withEngine(bad.world.node().boot(), diskPaths, simMemory, async (engine) => {
		const found = await engine.range({ start: tag, end: String.fromCharCode(tag.charCodeAt(0) + 1), limit: 1000 });
		return found.map(({ key, value }) => segmentRecord.decode(value, key));
	});
}

/** One block of each fragment, another one on each disk. Answers in how many segments there are as many blocks as fragments. */
function spoilOneBlockEach(bad: BadWorld, segments: readonly Segment[]): number {
	let spoilt = 0;
	for (const segment of segments) {
		if (segment.shardBytes < segment.fragments.length * block) continue;
		spoilt++;
		for (const { disk, pack, offset, index } of segment.fragments) {
			const at = offset + headerLength(segment.shardBytes) + index * block + 9;
			bad.world.corrupt(`/d${disk}`, `pack/${String(pack).padStart(8, "0")}`, at, 5);
		}
	}
	return spoilt;
}

test("all fragments of a segment are damaged, each at another place: nothing is lost, and all of it is made whole", async () => {
	const bad = await BadWorld.make(41);
	await bad.run(async () => {
		await bad.mount();
		await bad.write("big", 500_000);
		await bad.syncAll();
		await bad.volume.shutdown();
		assert.ok(spoilOneBlockEach(bad, await segmentsOf(bad)) > 0);
		await bad.mount();
		await bad.read("big");
		const found = await bad.volume.verify({ dryRun: true, lost: true }, () => {});
		assert.ok(found.corrupt > 2);
		assert.deepEqual([found.unrecoverable, found.lostPaths], [0, []]);
		const mended = await bad.volume.verify({ dryRun: false, lost: true }, () => {});
		assert.deepEqual([mended.unrecoverable, mended.lostPaths, mended.repaired], [0, [], mended.corrupt + mended.missing]);
		await bad.expectClean("verified again");
		await bad.read("big");
	});
});
