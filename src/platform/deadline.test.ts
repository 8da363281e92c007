import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isFsError } from "../base/errors.ts";
import { openDiskWithDeadlines, withDeadlines } from "./deadline.ts";
import { SimWorld } from "./sim/world.ts";

const late = (error: unknown) => isFsError(error, "ETIMEDOUT") && error.site === "platform.deadline";

async function ready() {
	const world = new SimWorld({ seed: 11 });
	const device = world.addDisk("/d0", { capacityBytes: 1 << 24 });
	const platform = world.node().boot();
	const disk = withDeadlines(await world.run(platform.openDisk("/d0")), platform.clock, { callMs: 1000 });
	const file = await world.run(disk.open("f", { create: true }));
	return { world, device, platform, disk, file };
}

describe("deadlines", () => {
	it("end a call on a hung disk, fail the next at once, and let go when it comes back", async () => {
		const { world, disk, file } = await ready();
		world.hang("/d0");
		const startMs = world.nowMs;
		await assert.rejects(world.run(file.read(0, 10)), late);
		assert.ok(world.nowMs - startMs >= 999 && world.nowMs - startMs < 1010, `${world.nowMs - startMs} ms`);
		const againMs = world.nowMs;
		await assert.rejects(world.run(disk.probe()), late);
		await assert.rejects(world.run(file.sync("test.data")), late);
		assert.equal(world.nowMs, againMs);
		world.unhang("/d0");
		await world.advance(10);
		await world.run(disk.probe());
	});

	it("do not blame a call that waits in line on a slow disk that is well", async () => {
		const { world, file } = await ready();
		world.latency("/d0", 400, 500);
		await world.run(Promise.all(Array.from({ length: 8 }, (_, i) => file.write(i, [new Uint8Array(1)]))));
	});

	it("lose patience with a call that waits in line for ever", async () => {
		const { world, file } = await ready();
		world.latency("/d0", 800, 900);
		const calls = Array.from({ length: 12 }, (_, i) => file.write(i, [new Uint8Array(1)]));
		const results = await world.run(Promise.allSettled(calls));
		assert.ok(results.slice(0, 6).every((result) => result.status === "fulfilled"));
		const last = results.at(-1);
		assert.ok(last?.status === "rejected" && late(last.reason));
	});

	it("close what opens late", async () => {
		const { world, device, disk, platform } = await ready();
		world.hang("/d0");
		await assert.rejects(world.run(disk.open("g", { create: true })), late);
		await assert.rejects(world.run(openDiskWithDeadlines(platform, "/d0", { callMs: 500 })), late);
		const { closeFile, close } = device.counts;
		world.unhang("/d0");
		await world.advance(100);
		assert.equal(device.counts.closeFile, closeFile + 1);
		assert.equal(device.counts.close, close + 1);
	});

	it("close a disk that hangs", async () => {
		const { world, disk, file } = await ready();
		world.hang("/d0");
		await assert.rejects(world.run(file.size()), late);
		await world.run(
			disk.close().catch(() => {}),
			{ limitMs: 5000 },
		);
	});

	it("pass errors and results through", async () => {
		const { world, disk, file } = await ready();
		await world.run(file.write(0, [new Uint8Array([1, 2, 3])]));
		assert.deepEqual(await world.run(file.read(1, 10)), new Uint8Array([2, 3]));
		assert.equal(await world.run(file.size()), 3);
		await world.run(file.truncate(1));
		await world.run(file.discard(0, 1));
		await world.run(file.close());
		assert.deepEqual(await world.run(disk.list("")), ["f"]);
		assert.equal((await world.run(disk.space())).capacityBytes, 1 << 24);
		await assert.rejects(world.run(disk.open("absent")), (error) => isFsError(error, "ENOENT"));
	});
});
