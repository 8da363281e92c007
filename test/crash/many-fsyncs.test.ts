/** Many small fsyncs of one file: what the log holds of it and what its seals have written say the same whenever the process dies. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { FsError } from "../../src/base/errors.ts";
import type { Commit } from "../../src/kv/interface.ts";
import { LocalEngine } from "../../src/kv/local/engine.ts";
import type { Platform, PlantedBug } from "../../src/platform/interface.ts";
import { SimWorld } from "../../src/platform/sim/world.ts";
import { pendingRecord } from "../../src/records/kinds.ts";
import type { NativeVolume } from "../../src/volume/native/interface.ts";
import { caller, makeWorldVolume, openSim, pattern } from "./scenario.ts";

const blockBytes = 512;
const blocks = 16;
const name = "log";

/** The rare ways `points` are taken each time. */
function withHooks(platform: Platform, points: readonly string[], bug?: PlantedBug): Platform {
	return { ...platform, simulation: { buggify: (point) => points.includes(point), planted: (planted) => planted === bug } };
}

async function mtimeOf(volume: NativeVolume): Promise<unknown> {
	const { ino } = await volume.lookup(caller, volume.root, name);
	return (await volume.getAttributes(caller, volume.node(ino))).mtime;
}

async function open(volume: NativeVolume): Promise<number> {
	const intent = { disposition: "open-or-create", access: { read: true, write: true }, attributes: { mode: 0o644 } } as const;
	return (await volume.open(caller, { parent: volume.root, name }, intent)).handle;
}

/** One block after the other, each over an older one, each synced before the next. */
async function overwrite(volume: NativeVolume, handle: number, model: Uint8Array, count: number): Promise<void> {
	for (let i = 0; i < count; i++) {
		const offset = ((i * 5) % blocks) * blockBytes;
		const bytes = pattern(i + 1, blockBytes);
		await volume.write(handle, offset, bytes);
		model.set(bytes, offset);
		await volume.fsync(handle, true);
	}
}

/** `after` commits that delete pending records go through, nothing does from then on. Answers whether it came to that. */
function stopCommits(t: TestContext, after: number): () => boolean {
	let seen = 0;
	let stopped = false;
	const meet = ({ deletes }: Commit): void => {
		if (!stopped && deletes.some((key) => key.startsWith(pendingRecord.tag))) stopped = seen++ >= after;
		if (stopped) throw new FsError("EIO", "test.stopped", "nothing is committed any more, as the test asked");
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
	return () => stopped;
}

/** What a mount finds after the process has died in a seal, `after` of whose transactions that delete pending records were committed; undefined: there are not so many. */
async function killedInSeal(
	t: TestContext,
	after: number,
	bug?: PlantedBug,
): Promise<{ found: Uint8Array; model: Uint8Array } | undefined> {
	const world = new SimWorld({ seed: 700 + after });
	await makeWorldVolume(world);
	const node = world.node();
	return world.run(async () => {
		const volume = await openSim(withHooks(node.boot(), ["volume.few-at-once"], bug));
		const model = new Uint8Array(blocks * blockBytes);
		const handle = await open(volume);
		await overwrite(volume, handle, model, 3 * blocks);
		const hasStopped = stopCommits(t, after);
		await volume.syncAll().catch(() => {});
		const came = hasStopped();
		t.mock.restoreAll();
		node.kill();
		const next = await openSim(node.boot());
		const again = await open(next);
		const before = await next.read(again, 0, model.length);
		// Once more, when what was left of the pending records has been sealed.
		await next.syncAll();
		assert.deepEqual(await next.read(again, 0, model.length), before, "a seal changes nothing");
		await next.close(again);
		await next.shutdown();
		return came ? { found: before, model } : undefined;
	});
}

test("killed between any two transactions of a seal that replaces many pending records", async (t) => {
	let after = 0;
	for (; ; after++) {
		const left = await killedInSeal(t, after);
		if (left === undefined) break;
		assert.deepEqual(left.found, left.model, `after ${after} of them`);
	}
	assert.ok(after >= 3 * blocks, `the seal has ${after} such transactions`);
});

test("planted: the newest pending record goes first, which a kill shows", async (t) => {
	let shown = 0;
	for (let after = 0; ; after += 7) {
		const left = await killedInSeal(t, after, "newest-pending-first");
		if (left === undefined) break;
		if (Buffer.compare(left.found, left.model) !== 0) shown++;
	}
	assert.ok(shown > 0, "the test is blind");
});

test("fsyncs beside a slow seal do not wait for it, and lose nothing when the process dies", async () => {
	// Before the first seal has ended, between it and the next one, and later.
	for (const restMs of [0, 500, 1_000, 1_500, 2_000, 2_500, 3_000, 10_000]) {
		const world = new SimWorld({ seed: 1 });
		await makeWorldVolume(world);
		const node = world.node();
		await world.run(async () => {
			const platform = node.boot();
			const volume = await openSim(withHooks(platform, ["volume.few-pendings", "volume.slow-seal"]));
			const model = new Uint8Array(blocks * blockBytes);
			const handle = await open(volume);
			const began = platform.clock.monotonicMs();
			await overwrite(volume, handle, model, 60);
			// Each seal sleeps a second on average, and the first begins after two fsyncs.
			assert.ok(platform.clock.monotonicMs() - began < 600, `${platform.clock.monotonicMs() - began} virtual ms`);
			assert.deepEqual(await volume.read(handle, 0, model.length), model);
			const mtime = await mtimeOf(volume);
			await world.sleep(restMs);
			assert.deepEqual(await mtimeOf(volume), mtime, "the seal of older bytes brings no older time");
			node.kill();
			const next = await openSim(node.boot());
			const again = await open(next);
			assert.deepEqual(await next.read(again, 0, model.length), model);
			assert.deepEqual(await mtimeOf(next), mtime, `killed after ${restMs} ms: the time of the newest write`);
			await next.close(again);
			await next.shutdown();
		});
	}
});
