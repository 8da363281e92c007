import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { SimWorld } from "../../src/platform/sim/world.ts";
import type { NativeVolume } from "../../src/volume/native/interface.ts";
import { caller, makeWorldVolume, openSim, pattern } from "./scenario.ts";

const fileBytes = 3_000_000;
const write = { disposition: "open-or-create", access: { read: true, write: true } } as const;

async function put(volume: NativeVolume, name: string, seed: number): Promise<void> {
	const { handle } = await volume.open(caller, { parent: volume.root, name }, write);
	await volume.write(handle, 0, pattern(seed, fileBytes));
	await volume.close(handle);
	await volume.syncAll();
}

async function readAll(volume: NativeVolume, name: string): Promise<Uint8Array> {
	const { handle } = await volume.open(caller, { parent: volume.root, name }, write);
	const bytes = await volume.read(handle, 0, fileBytes);
	await volume.close(handle);
	return bytes;
}

const verify = (volume: NativeVolume, dryRun = false) => volume.verify({ dryRun, lost: false }, () => {});

async function provenFragments(volume: NativeVolume, name: string): Promise<boolean[]> {
	const { segments } = await volume.explain(name);
	return segments.flatMap(({ fragments }) => fragments.map((one) => one.provenAt !== null));
}

/** Every byte is in one place of the ledger, and the status says the same. */
async function ledgerOf(volume: NativeVolume): Promise<Awaited<ReturnType<NativeVolume["ledger"]>>> {
	const found = await volume.ledger();
	const { protection } = await volume.status();
	for (const level of [...found.levels, found]) {
		const sum = level.provenBytes + level.recordedBytes + level.degradedBytes + level.lostBytes;
		if ("wantedBytes" in level) assert.equal(sum, level.wantedBytes);
	}
	assert.equal(protection.provenBytes, found.provenBytes);
	assert.equal(protection.fullBytes, found.provenBytes + found.recordedBytes);
	assert.equal(protection.oldestProofAt, found.oldestProofAt);
	assert.equal(
		found.survival.reduce((all, one) => all + one.provenBytes, 0),
		found.survival.reduce((all, one) => all + one.recordedBytes, 0),
	);
	return found;
}

describe("the redundancy ledger", () => {
	test("what was written is recorded; what was read is proven, over restarts; what is made anew is not", async () => {
		const world = new SimWorld({ seed: 31 });
		await makeWorldVolume(world);
		const node = world.node();
		await world.run(async () => {
			let volume = await openSim(node.boot());
			await put(volume, "a", 1);
			const fresh = await ledgerOf(volume);
			assert.deepEqual([fresh.provenBytes, fresh.recordedBytes, fresh.oldestProofAt], [0, fileBytes, null]);
			assert.deepEqual(fresh.survival, [
				{ losses: -1, recordedBytes: 0, provenBytes: fileBytes },
				{ losses: 2, recordedBytes: fileBytes, provenBytes: 0 },
			]);
			// A reader of files proves nothing of parity.
			assert.deepEqual(await readAll(volume, "a"), pattern(1, fileBytes));
			assert.equal((await ledgerOf(volume)).provenBytes, 0);

			await verify(volume, true);
			const proven = await ledgerOf(volume);
			assert.deepEqual([proven.provenBytes, proven.recordedBytes], [fileBytes, 0]);
			assert.match(proven.oldestProofAt ?? "", /^\d{4}-\d\d-\d\dT/);
			assert.ok((await provenFragments(volume, "a")).every((one) => one));

			await put(volume, "b", 2);
			await volume.shutdown();
			volume = await openSim(node.boot());
			const again = await ledgerOf(volume);
			assert.deepEqual([again.provenBytes, again.recordedBytes, again.oldestProofAt], [fileBytes, fileBytes, proven.oldestProofAt]);
			assert.ok((await provenFragments(volume, "b")).every((one) => !one));
			await volume.shutdown();
		});

		for (const name of world.disk("/d3").files()) if (name.startsWith("pack/")) world.corrupt("/d3", name, 0, 3_000_000);
		await world.run(async () => {
			const volume = await openSim(node.boot());
			assert.ok((await verify(volume)).repaired > 0);
			const { segments } = await volume.explain("a");
			const unproven = segments.flatMap(({ fragments }) => fragments.filter((one) => one.provenAt === null));
			const healed = await ledgerOf(volume);
			// The repair was read back by verify itself: that is a proof. What nobody read back would be among the recorded.
			assert.deepEqual([unproven.length, healed.provenBytes, healed.degradedBytes], [0, 2 * fileBytes, 0]);
			await volume.shutdown();
		});
	});

	test("damage takes proofs away, and a rebuild alone gives none", async () => {
		const world = new SimWorld({ seed: 32 });
		await makeWorldVolume(world);
		const node = world.node();
		await world.run(async () => {
			const platform = node.boot();
			const volume = await openSim(platform);
			await put(volume, "a", 1);
			await verify(volume);
			assert.equal((await ledgerOf(volume)).provenBytes, fileBytes);
			for (const name of world.disk("/d2").files()) if (name.startsWith("pack/")) world.corrupt("/d2", name, 0, 3_000_000);
			const dry = await verify(volume, true);
			assert.ok(dry.corrupt > 0);
			assert.equal((await ledgerOf(volume)).provenBytes + (await ledgerOf(volume)).recordedBytes, 0, "one bad fragment each");
			await volume.heal(() => {});
			const healed = await ledgerOf(volume);
			assert.deepEqual([healed.provenBytes, healed.recordedBytes, healed.degradedBytes], [0, fileBytes, 0], "written, not proven");
			const marks = await provenFragments(volume, "a");
			assert.ok(marks.filter((one) => !one).length === dry.corrupt, "only what was made anew");
			await volume.shutdown();
		});
	});

	test("says why something is degraded, on which disks, and what is lost", async () => {
		const world = new SimWorld({ seed: 33 });
		await makeWorldVolume(world);
		const node = world.node();
		await world.run(async () => {
			const volume = await openSim(node.boot());
			await put(volume, "a", 1);
			await volume.shutdown();
		});
		world.disk("/d6").vanish();
		await world.run(async () => {
			const volume = await openSim(node.boot());
			await volume.heal(() => {});
			const found = await ledgerOf(volume);
			assert.deepEqual([found.degradedBytes, found.shortages.map((one) => [one.cause, one.bytes])], [fileBytes, [["no-disk", fileBytes]]]);
			await volume.shutdown();
		});
	});

	test("proofs of segments that are gone do not stay, and a power cut makes none up", async () => {
		const world = new SimWorld({ seed: 34 });
		await makeWorldVolume(world);
		const node = world.node();
		await world.run(async () => {
			const volume = await openSim(node.boot());
			await put(volume, "a", 1);
			await verify(volume);
		});
		node.powerCut();
		await world.run(async () => {
			const platform = node.boot();
			const volume = await openSim(platform);
			const after = await ledgerOf(volume);
			assert.equal(after.provenBytes + after.recordedBytes, fileBytes);
			await volume.unlink(caller, volume.root, "a");
			await put(volume, "b", 2);
			await platform.clock.sleep(20_000);
			const fresh = await ledgerOf(volume);
			assert.deepEqual([fresh.provenBytes, fresh.recordedBytes], [0, fileBytes]);
			await volume.shutdown();
		});
	});
});
