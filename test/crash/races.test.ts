/** Operations that overlap with the end of something: what was acknowledged must be there afterwards, and what was cut off must not. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { FsError } from "../../src/base/errors.ts";
import type { Commit } from "../../src/kv/interface.ts";
import { LocalEngine } from "../../src/kv/local/engine.ts";
import { SimWorld } from "../../src/platform/sim/world.ts";
import type { NativeVolume } from "../../src/volume/native/interface.ts";
import { caller, makeWorldVolume, openSim, pattern } from "./scenario.ts";

async function openFile(volume: NativeVolume, name: string): Promise<number> {
	const intent = { disposition: "open-or-create", access: { read: true, write: true }, attributes: { mode: 0o644 } } as const;
	return (await volume.open(caller, { parent: volume.root, name }, intent)).handle;
}

async function contents(volume: NativeVolume, name: string): Promise<Uint8Array> {
	const found = await volume.lookup(caller, volume.root, name);
	const handle = await openFile(volume, name);
	const bytes = await volume.read(handle, 0, found.size);
	await volume.close(handle);
	return bytes;
}

test("a write that is under way while the volume is shut down is refused or kept", async () => {
	for (let delay = 0; delay < 6; delay++) {
		const world = new SimWorld({ seed: 700 + delay });
		await makeWorldVolume(world);
		const node = world.node();
		await world.run(async () => {
			const volume = await openSim(node.boot());
			const handle = await openFile(volume, "file");
			const bytes = pattern(delay, 1_000_000);
			const written: number[] = [];
			// More than the memory takes: some of them wait for room.
			const writers = [0, 1, 2, 3].map((at) =>
				volume.write(handle, at * bytes.length, bytes).then(
					() => void written.push(at),
					() => {},
				),
			);
			await world.sleep(delay * 4);
			await volume.shutdown().catch(() => {});
			await Promise.race([Promise.all(writers), world.sleep(60_000)]);
			const again = await openSim(node.boot());
			const found = await contents(again, "file");
			for (const at of written) {
				const part = found.subarray(at * bytes.length, (at + 1) * bytes.length);
				assert(Buffer.compare(part, bytes) === 0, `delay ${delay}: acknowledged write ${at} is gone (${found.length} bytes are there)`);
			}
			await again.shutdown();
		});
	}
});

test("a write that outlives its file keeps no memory", async () => {
	const world = new SimWorld({ seed: 720 });
	await makeWorldVolume(world);
	await world.run(async () => {
		const volume = await openSim(world.node().boot());
		const other = await openFile(volume, "other");
		const handle = await openFile(volume, "file");
		const filled = volume.write(other, 0, pattern(1, 1_000_000));
		const filled2 = volume.write(other, 1_000_000, pattern(1, 900_000));
		const late = volume.write(handle, 0, pattern(2, 500_000)).catch(() => {});
		await volume.close(handle);
		await volume.unlink(caller, volume.root, "file");
		await Promise.all([filled, filled2, late]);
		for (let i = 0; i < 12; i++) {
			const done = await Promise.race([
				volume.write(other, i * 500_000, pattern(i, 500_000)).then(() => true),
				world.sleep(60_000).then(() => false),
			]);
			assert(done, `write ${i} waits for ever for memory that a removed file keeps`);
		}
		await volume.shutdown();
	});
});

test("what a truncation cut off stays gone when the truncation fails half way", async (t) => {
	const world = new SimWorld({ seed: 730 });
	await makeWorldVolume(world);
	const node = world.node();
	await world.run(async () => {
		const volume = await openSim(node.boot());
		const handle = await openFile(volume, "file");
		// A segment each: more than one transaction can let go of.
		const count = 150;
		for (let i = 0; i < count; i++) {
			await volume.write(handle, i * 8192, pattern(i, 8192));
			await volume.syncAll();
		}
		const { ino } = await volume.lookup(caller, volume.root, "file");
		const full = failCommitsAfter(t, 2);
		await assert.rejects(volume.setAttributes(caller, volume.node(ino), { size: 10 }), { code: "ENOSPC" });
		await assert.rejects(volume.write(handle, count * 8192, pattern(1, 8192)), { code: "ENOSPC" });
		full.restore();
		await volume.write(handle, count * 8192, pattern(1, 8192));
		await volume.fsync(handle, false);
		const expected = new Uint8Array((count + 1) * 8192);
		expected.set(pattern(0, 10));
		expected.set(pattern(1, 8192), count * 8192);
		assert(Buffer.compare(await contents(volume, "file"), expected) === 0, "old bytes came back");
		await volume.shutdown();
		const again = await openSim(node.boot());
		assert(Buffer.compare(await contents(again, "file"), expected) === 0, "the next mount cut off new bytes");
		await again.shutdown();
	});
});

test("an unlinked file that cannot be taken apart at once gives its space back without a mount", async (t) => {
	const world = new SimWorld({ seed: 740 });
	await makeWorldVolume(world);
	await world.run(async () => {
		const volume = await openSim(world.node().boot());
		const before = (await volume.status()).disks.reduce((sum, disk) => sum + disk.usedBytes, 0);
		const handles = [await openFile(volume, "one"), await openFile(volume, "two")];
		for (const handle of handles) await volume.write(handle, 0, pattern(1, 900_000));
		await volume.syncAll();
		for (const name of ["one", "two"]) await volume.unlink(caller, volume.root, name);
		const full = failCommitsAfter(t, 0);
		for (const handle of handles) await volume.close(handle);
		await world.sleep(10_000);
		full.restore();
		const taken = async (): Promise<number> => (await volume.status()).disks.reduce((sum, disk) => sum + disk.usedBytes, -before);
		assert((await taken()) > 1_800_000, "nothing was given back while there was no space for metadata");
		for (let i = 0; i < 100 && (await taken()) > 500_000; i++) await world.sleep(1_000);
		assert((await taken()) <= 500_000, `${await taken()} bytes are still taken`);
		await volume.shutdown();
	});
});

/** After so many commits the metadata engine has no space. */
function failCommitsAfter(t: TestContext, allowed: number): { restore(): void } {
	let left = allowed;
	const proto = LocalEngine.prototype;
	const restores = (["commit", "commitNow"] as const).map((name) => {
		const original = proto[name] as (commit: Commit) => never;
		const mocked = t.mock.method(proto, name, function (this: LocalEngine, commit: Commit) {
			if (commit.puts.length + commit.deletes.length > 0 && left-- <= 0)
				throw new FsError("ENOSPC", "kv.no-space", "no space for metadata");
			return original.call(this, commit);
		});
		return () => mocked.mock.restore();
	});
	return {
		restore() {
			for (const one of restores) one();
		},
	};
}
