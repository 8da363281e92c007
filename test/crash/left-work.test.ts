/** Work on a file's map that takes several transactions and stops half-way, while the file loses its last name: nothing of either stays, and no reference is lost. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { FsError } from "../../src/base/errors.ts";
import type { Commit } from "../../src/kv/interface.ts";
import { LocalEngine } from "../../src/kv/local/engine.ts";
import { SimWorld } from "../../src/platform/sim/world.ts";
import { intentRecord } from "../../src/records/kinds.ts";
import type { NativeVolume } from "../../src/volume/native/interface.ts";
import { recount } from "../support/recount.ts";
import { caller, diskPaths, makeWorldVolume, openSim, pattern, simMemory } from "./scenario.ts";

const blocks = 260;
const stride = 16_384;

/** A file of many extents: more than one transaction can change. */
async function manyExtents(volume: NativeVolume, name: string): Promise<number> {
	const intent = { disposition: "create", access: { read: true, write: true }, attributes: { mode: 0o644 } } as const;
	const { handle } = await volume.open(caller, { parent: volume.root, name }, intent);
	for (let i = 0; i < blocks; i++) await volume.write(handle, i * stride, pattern(i, 4096));
	await volume.syncAll();
	return handle;
}

/** From the next work on that leaves an intent, `after` commits go through, the next one finds no space. Answers whether it came to that. */
function failWorkOnce(t: TestContext, after: number): () => boolean {
	let seen = -1;
	let failed = false;
	const isWork = ({ puts, deletes }: Commit): boolean =>
		puts.some(([key]) => key.startsWith(intentRecord.tag)) || deletes.some((key) => key.startsWith(intentRecord.tag));
	const meet = (commit: Commit): void => {
		if (failed) return;
		if (seen < 0 && isWork(commit)) seen = 0;
		if (seen < 0 || seen++ < after) return;
		failed = true;
		throw new FsError("ENOSPC", "test.no-space", "no space, as the test asked");
	};
	const { commitNow, commit } = LocalEngine.prototype;
	t.mock.method(LocalEngine.prototype, "commitNow", function (this: LocalEngine, one: Commit) {
		meet(one);
		return commitNow.call(this, one);
	});
	t.mock.method(LocalEngine.prototype, "commit", async function (this: LocalEngine, one: Commit) {
		meet(one);
		return commit.call(this, one);
	});
	return () => failed;
}

for (const open of [true, false]) {
	test(`a hole that was half punched, and the file removed ${open ? "while it is open" : "when nobody has it open"}`, async (t) => {
		for (const after of [1, 2]) {
			const world = new SimWorld({ seed: 900 + after });
			await makeWorldVolume(world);
			const node = world.node();
			await world.run(async () => {
				const volume = await openSim(node.boot());
				const handle = await manyExtents(volume, "file");
				const hasFailed = failWorkOnce(t, after);
				await assert.rejects(
					volume.allocate(handle, "punch", 0, blocks * stride),
					(error) => error instanceof FsError && error.code === "ENOSPC",
				);
				assert.ok(hasFailed(), `the work takes more than ${after} transactions`);
				if (!open) await volume.close(handle);
				await volume.unlink(caller, volume.root, "file");
				if (open) await volume.close(handle);
				await world.sleep(5_000);
				await volume.shutdown();
				t.mock.restoreAll();
			});
			node.kill();
			const { intents, inodes, chunks } = await world.run(recount(world.node().boot(), diskPaths, simMemory));
			assert.deepEqual({ intents, inodes, chunks }, { intents: 0, inodes: 1, chunks: 0 });
		}
	});
}

test("a daemon dies while it punches a hole in a file without a name", async () => {
	let cuts = 0;
	for (let steps = 1; steps <= 8; steps++) {
		const world = new SimWorld({ seed: 950 });
		await makeWorldVolume(world);
		const node = world.node();
		const { volume, handle } = await world.run(async () => {
			const opened = await openSim(node.boot());
			const file = await manyExtents(opened, "file");
			await opened.unlink(caller, opened.root, "file");
			return { volume: opened, handle: file };
		});
		const died = world.killAt(world.steps + steps);
		await world.run(Promise.race([volume.allocate(handle, "punch", 0, blocks * stride).then(() => world.sleep(60_000)), died]));
		if (world.wasCut) cuts++;
		world.forgetEnd();
		node.kill();
		await world.run(async () => {
			const again = await openSim(node.boot());
			await world.sleep(5_000);
			await again.shutdown();
		});
		node.kill();
		const { intents, inodes, chunks } = await world.run(recount(world.node().boot(), diskPaths, simMemory));
		assert.deepEqual({ intents, inodes, chunks }, { intents: 0, inodes: 1, chunks: 0 }, `killed at step ${steps}`);
	}
	assert.ok(cuts > 3, `${cuts} deaths`);
});
