import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Deferred } from "../base/async.ts";
import { isFsError } from "../base/errors.ts";
import { judgedBy, openDiskWithDeadlines, withDeadlines } from "./deadline.ts";
import type { Clock, Disk } from "./interface.ts";
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

/** Time goes on only while nothing else can happen. */
class HeldUpClock implements Clock {
	#nowMs = 0;
	readonly #timers = new Set<{ readonly atMs: number; readonly fn: () => void }>();

	/** Then whoever's time has come is called, with nothing in between. */
	holdUp(ms: number): void {
		this.#nowMs += ms;
		for (const timer of [...this.#timers]) if (timer.atMs <= this.#nowMs && this.#timers.delete(timer)) timer.fn();
	}

	monotonicMs(): number {
		return this.#nowMs;
	}

	after(ms: number, fn: () => void): () => void {
		const timer = { atMs: this.#nowMs + ms, fn };
		this.#timers.add(timer);
		return () => void this.#timers.delete(timer);
	}

	realtime(): never {
		throw new Error("not asked for");
	}

	sleep(): never {
		throw new Error("not asked for");
	}

	yield(): never {
		throw new Error("not asked for");
	}
}

function fakeDisk(probed: Promise<void>): Disk {
	const never = (): never => {
		throw new Error("not asked for");
	};
	const verbs = { lock: never, open: never, list: never, remove: never, syncNames: never, space: never, close: never };
	return { path: "/fake", domain: "fake", ...verbs, probe: () => probed };
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
		const calls = Array.from({ length: 60 }, (_, i) => file.write(i, [new Uint8Array(1)]));
		const results = await world.run(Promise.allSettled(calls));
		assert.ok(results.slice(0, 30).every((result) => result.status === "fulfilled"));
		const last = results.at(-1);
		assert.ok(last?.status === "rejected" && late(last.reason));
	});

	it("do not blame a disk whose thread does not get the processor, nor one that is opened meanwhile", async () => {
		const { world, device, platform, file } = await ready();
		device.starveThread();
		const written = file.write(0, [new Uint8Array([7])]);
		const opened = openDiskWithDeadlines(platform, "/d0", { callMs: 1000 });
		await world.advance(20_000);
		world.unhang("/d0");
		await world.run(Promise.all([written, opened]));
		assert.deepEqual(await world.run(file.read(0, 10)), new Uint8Array([7]));
	});

	it("do not count what held this thread up, and take the answers that came meanwhile", async () => {
		const clock = new HeldUpClock();
		const answer = new Deferred<void>();
		const disk = withDeadlines(fakeDisk(answer.promise), clock, { callMs: 1000 });
		const asked = disk.probe();
		// Longer than any limit in one go: the timer is late, and runs before the answer that has come is looked at.
		clock.holdUp(60_000);
		answer.resolve();
		await asked;
		const hanging = withDeadlines(fakeDisk(new Promise(() => {})), clock, { callMs: 1000 }).probe();
		const failed = assert.rejects(hanging, late);
		for (let looks = 0; looks < 20; looks++) clock.holdUp(50);
		await failed;
	});

	it("leave the judgement to whom it was given, and tell of a disk that moves again", async () => {
		const { world, disk, file } = await ready();
		const seen: number[] = [];
		judgedBy(disk, {
			judge: (of, stuckMs, limitMs) => {
				assert.deepEqual([of, limitMs], [disk, 1000]);
				seen.push(stuckMs);
				return stuckMs >= 3000;
			},
		});
		world.hang("/d0");
		const size = file.size();
		await world.advance(2500);
		world.unhang("/d0");
		assert.equal(await world.run(size), 0);
		assert.ok(seen.some((ms) => ms > 2000) && seen.at(-1) === 0, String(seen));
		world.hang("/d0");
		const startMs = world.nowMs;
		await assert.rejects(world.run(file.size()), late);
		assert.ok(world.nowMs - startMs >= 2999 && world.nowMs - startMs < 3100, `${world.nowMs - startMs} ms`);
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
