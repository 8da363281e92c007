import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isFsError } from "../../base/errors.ts";
import { SimWorld } from "./world.ts";

const mib = 1 << 20;

function bytes(length: number, fill: number): Uint8Array {
	return new Uint8Array(length).fill(fill);
}

function oneDisk(seed: number) {
	const world = new SimWorld({ seed });
	const device = world.addDisk("/d0", { capacityBytes: 64 * mib });
	return { world, device, node: world.node() };
}

describe("sim: the crash model", () => {
	it("keeps what was synced and loses, keeps or tears what was not", async () => {
		const outcomes = new Set<string>();
		for (let seed = 1; seed <= 200; seed++) {
			const { world, device, node } = oneDisk(seed);
			const platform = node.boot();
			await world.run(async () => {
				const disk = await platform.openDisk("/d0");
				const file = await disk.open("f", { create: true });
				await file.write(0, [bytes(4096, 1)]);
				await file.sync("test.data");
				await disk.syncNames("", "test.names");
				await file.write(1024, [bytes(2048, 2)]);
				await file.write(4096, [bytes(1000, 3)]);
			});
			node.powerCut();
			const after = device.peek("f");
			assert.ok(after.length >= 4096 && after.length <= 5096, `seed ${seed}: size ${after.length}`);
			for (let at = 0; at < 4096; at += 512) {
				const sector = new Set(after.subarray(at, at + 512));
				assert.equal(sector.size, 1, `seed ${seed}: sector at ${at} is a mix`);
				const allowed = at >= 1024 && at < 3072 ? [1, 2] : [1];
				assert.ok(allowed.includes(after[at] as number), `seed ${seed}: ${after[at]} at ${at}`);
			}
			const twos = after.filter((byte) => byte === 2).length;
			outcomes.add(twos === 0 ? "lost" : twos === 2048 ? "kept" : "torn");
			outcomes.add(after.length === 4096 ? "short" : after.length === 5096 ? "grown" : "other");
			if (after.length === 5096) outcomes.add(after[4096] === 3 ? "appended" : "hole");
		}
		assert.deepEqual([...outcomes].sort(), ["appended", "grown", "hole", "kept", "lost", "short", "torn"]);
	});

	it("loses or keeps names that were not synced, creations and removals alike", async () => {
		const seen = new Set<string>();
		for (let seed = 1; seed <= 60; seed++) {
			const { world, device, node } = oneDisk(seed);
			const platform = node.boot();
			await world.run(async () => {
				const disk = await platform.openDisk("/d0");
				for (const name of ["a/old", "a/kept"]) await (await disk.open(name, { create: true })).sync("test.data");
				await disk.syncNames("a", "test.names");
				await disk.remove("a/old");
				await (await disk.open("a/new", { create: true })).sync("test.data");
				await disk.open("b/other", { create: true });
				await disk.syncNames("b", "test.names");
			});
			node.powerCut();
			const files = device.files();
			assert.ok(files.includes("a/kept") && files.includes("b/other"), `seed ${seed}: ${files.join()}`);
			seen.add(`${files.includes("a/old")},${files.includes("a/new")}`);
		}
		assert.deepEqual([...seen].sort(), ["false,false", "false,true", "true,false", "true,true"]);
	});

	it("keeps the page cache and memory over a kill, and loses memory in a power cut", async () => {
		const { world, node } = oneDisk(7);
		const first = node.boot();
		await world.run(async () => {
			const disk = await first.openDisk("/d0");
			await disk.lock();
			await (await disk.open("f", { create: true })).write(0, [bytes(10, 9)]);
			const memory = await first.openMemory("m", 100);
			assert.equal(memory.existed, false);
			memory.bytes[5] = 77;
		});
		node.kill();
		const second = node.boot();
		await world.run(async () => {
			const disk = await second.openDisk("/d0");
			await disk.lock();
			assert.deepEqual(await (await disk.open("f")).read(0, 100), bytes(10, 9));
			const memory = await second.openMemory("m", 100);
			assert.ok(memory.existed);
			assert.equal(memory.bytes[5], 77);
		});
		node.powerCut();
		const third = node.boot();
		const memory = await world.run(third.openMemory("m", 100));
		assert.equal(memory.existed, false);
		assert.equal(memory.bytes[5], 0);
	});

	it("never settles calls or fires timers of a dead process", async () => {
		const { world, node } = oneDisk(3);
		const platform = node.boot();
		const events: string[] = [];
		const disk = await world.run(platform.openDisk("/d0"));
		void disk.open("f", { create: true }).then(() => events.push("open"));
		platform.clock.after(5, () => events.push("timer"));
		void platform.clock.sleep(5).then(() => events.push("sleep"));
		node.kill();
		void disk.list("").then(() => events.push("list"));
		void platform.files.read("/x").then(() => events.push("file"));
		await world.advance(1000);
		assert.deepEqual(events, []);
	});
});

describe("sim: ends at a chosen step", () => {
	async function workload(world: SimWorld, node: ReturnType<SimWorld["node"]>): Promise<number[]> {
		const durable: number[] = [];
		const platform = node.boot();
		const work = async () => {
			const disk = await platform.openDisk("/d0");
			const file = await disk.open("log", { create: true });
			await disk.syncNames("", "test.names");
			for (let i = 1; i <= 5; i++) {
				await file.write(512 * i, [bytes(512, i)]);
				await file.sync("test.data");
				durable.push(i);
			}
		};
		await world.run(Promise.race([work(), world.onCut]));
		return durable;
	}

	it("cuts the power at every step, and what was acknowledged is there", async () => {
		const whole = oneDisk(1);
		await workload(whole.world, whole.node);
		assert.equal(whole.world.steps, 11);
		for (let step = 1; step <= 11; step++) {
			const { world, node, device } = oneDisk(step * 31);
			void world.cutAt(step);
			const durable = await workload(world, node);
			assert.ok(world.wasCut, `step ${step}`);
			assert.equal(node.alive, false);
			assert.equal(durable.length, Math.max(0, Math.floor((step - 2) / 2)), `step ${step}`);
			for (const i of durable)
				assert.deepEqual(device.peek("log").subarray(512 * i, 512 * i + 512), bytes(512, i), `step ${step}, record ${i}`);
		}
	});

	it("kills at every step, and every write that was acknowledged is there", async () => {
		for (let step = 1; step <= 11; step++) {
			const { world, node, device } = oneDisk(step);
			void world.killAt(step);
			const durable = await workload(world, node);
			for (const i of durable) assert.equal(device.peek("log")[512 * i], i, `step ${step}`);
		}
	});

	it("is the same again with the same seed, and another with another", async () => {
		const digests = new Set<string>();
		for (const seed of [5, 5, 6]) {
			const { world, node } = oneDisk(seed);
			void world.cutAt(9);
			await workload(world, node);
			digests.add(world.digest());
		}
		assert.equal(digests.size, 2);
	});

	it("shows a sync that does nothing", async () => {
		let lost = 0;
		for (let seed = 1; seed <= 20; seed++) {
			const { world, node, device } = oneDisk(seed);
			world.ignoreSync("test.data");
			await workload(world, node);
			assert.deepEqual(world.syncSites, ["test.data", "test.names"]);
			node.powerCut();
			if (device.peek("log")[512] !== 1) lost++;
		}
		assert.ok(lost > 0 && lost < 20, `${lost} of 20 lost`);
	});
});

describe("sim: faults", () => {
	async function ready(seed: number) {
		const parts = oneDisk(seed);
		const platform = parts.node.boot();
		const disk = await parts.world.run(platform.openDisk("/d0"));
		const file = await parts.world.run(disk.open("f", { create: true }));
		return { ...parts, platform, disk, file };
	}

	it("hangs and goes on", async () => {
		const { world, file } = await ready(1);
		world.hang("/d0");
		let done = false;
		const write = file.write(0, [bytes(10, 1)]).then(() => {
			done = true;
		});
		await world.advance(60_000);
		assert.equal(done, false);
		await assert.rejects(world.run(write), /deadlock.*1 calls on \/d0 \(hung\)/);
		world.unhang("/d0");
		await world.run(write);
		assert.equal(done, true);
	});

	it("closes a hung disk within a bound, and keeps the lock until it lets go", async () => {
		const { world, platform, disk, file } = await ready(2);
		await world.run(disk.lock());
		world.hang("/d0");
		const stuck = assert.rejects(file.read(0, 10), (error) => isFsError(error, "EIO"));
		await world.run(disk.close(), { limitMs: 5000 });
		await world.run(stuck);
		world.unhang("/d0");
		const again = await world.run(platform.openDisk("/d0"));
		await world.run(again.lock());
	});

	it("fails calls, syncs, space and read-only as asked", async () => {
		const { world, disk, file } = await ready(3);
		const code = (expected: string) => (error: unknown) => isFsError(error) && error.code === expected;
		world.fail("/d0", ["read"], "EIO", 1);
		await assert.rejects(world.run(file.read(0, 1)), code("EIO"));
		await world.run(file.read(0, 1));
		await world.run(file.write(0, [bytes(4096, 1)]));
		world.full("/d0");
		await world.run(file.write(0, [bytes(4096, 2)]));
		await assert.rejects(world.run(file.write(4096, [bytes(1, 1)])), code("ENOSPC"));
		await assert.rejects(world.run(disk.open("new", { create: true })), code("ENOSPC"));
		world.heal("/d0");
		world.readOnly("/d0");
		await assert.rejects(world.run(file.truncate(0)), code("EROFS"));
	});

	it("a failed sync loses data for good although the next one succeeds", async () => {
		let lost = 0;
		for (let seed = 1; seed <= 20; seed++) {
			const { world, node, device, disk, file } = await ready(seed);
			await world.run(disk.syncNames("", "test.names"));
			await world.run(file.write(0, [bytes(512, 1)]));
			world.failNextSync("/d0");
			await assert.rejects(world.run(file.sync("test.data")));
			await world.run(file.sync("test.data"));
			assert.equal((await world.run(file.read(0, 1)))[0], 1, `seed ${seed}: the cache still shows it`);
			node.powerCut();
			if (device.peek("f")[0] !== 1) lost++;
		}
		assert.ok(lost > 0 && lost < 20, `${lost} of 20 lost`);
	});

	it("vanishes, comes back old, is wiped, rots", async () => {
		const { world, device, platform, disk, file } = await ready(4);
		const code = (expected: string) => (error: unknown) => isFsError(error) && error.code === expected;
		await world.run(file.write(0, [bytes(5000, 1)]));
		await world.run(file.sync("test.data"));
		await world.run(disk.syncNames("", "test.names"));
		const old = world.snapshot("/d0");
		await world.run(file.write(0, [bytes(5000, 2)]));
		world.vanish("/d0");
		await assert.rejects(world.run(disk.probe()), code("ENODEV"));
		await assert.rejects(world.run(file.read(0, 1)), code("EIO"));
		await assert.rejects(world.run(file.sync("test.data")), code("ENODEV"));
		await assert.rejects(world.run(platform.openDisk("/d0")), code("ENOENT"));
		world.reappear("/d0", old);
		await assert.rejects(world.run(disk.probe()), code("ENODEV"));
		assert.deepEqual(device.peek("f"), bytes(5000, 1));
		assert.equal(world.corrupt("/d0", "f", 4990, 100), 10);
		assert.equal(device.peek("f")[4990], 1 ^ 0xff);
		assert.equal(world.rot("/d0", 1).length, 2);
		world.wipe("/d0");
		assert.deepEqual(device.files(), []);
	});

	it("goes on with unlinked files when asked, and only sync, names and probe tell", async () => {
		const { world, disk, file } = await ready(5);
		await world.run(file.write(0, [bytes(10, 1)]));
		world.vanish("/d0", { unlinked: true });
		await world.run(file.write(10, [bytes(10, 2)]));
		assert.equal((await world.run(file.read(0, 100))).length, 20);
		for (const call of [file.sync("test.data"), disk.syncNames("", "test.names"), disk.probe()]) {
			await assert.rejects(world.run(call), (error) => isFsError(error, "ENODEV"));
		}
	});

	it("lies about a write: lost or misplaced, and reports success", async () => {
		const { world, file, device } = await ready(9);
		await world.run(file.write(0, [bytes(8192, 1)]));
		world.lieNextWrite("/d0", "lost");
		await world.run(file.write(0, [bytes(100, 2)]));
		assert.deepEqual(device.peek("f"), bytes(8192, 1));
		world.lieNextWrite("/d0", "misplaced", (name) => name === "f");
		await world.run(file.write(0, [bytes(100, 3)]));
		assert.equal(device.peek("f")[0], 1);
		assert.equal(device.peek("f").filter((byte) => byte === 3).length, 100);
		await world.run(file.write(0, [bytes(100, 4)]));
		assert.equal(device.peek("f")[0], 4);
	});

	it("notices bytes that change under a write", async () => {
		const { world, file } = await ready(6);
		const mine = bytes(100, 1);
		const write = file.write(0, [mine]);
		mine[50] = 2;
		await assert.rejects(world.run(write), /changed before it settled/);
	});

	it("says why a run cannot end", async () => {
		const { world, node, platform } = await ready(8);
		const tick = () => {
			platform.clock.after(1000, tick);
		};
		tick();
		await assert.rejects(world.run(new Promise(() => {}), { limitMs: 10_000 }), /not done after 10000 virtual ms/);
		node.kill();
		await assert.rejects(world.run(new Promise(() => {})), /deadlock.*dead: node0/);
	});
});
