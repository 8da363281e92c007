import assert from "node:assert/strict";
import { test } from "node:test";
import { FsError } from "../../base/errors.ts";
import { silentLogger } from "../../base/telemetry.ts";
import { createMemoryEngine } from "../../kv/memory/engine.ts";
import { SimWorld } from "../../platform/sim/world.ts";
import type { FragmentPlace, Segment } from "../../records/interface.ts";
import { segmentRecord } from "../../records/kinds.ts";
import { Core, type CoreModules } from "./core.ts";

const segment: Segment = {
	id: 7,
	dataShards: 1,
	parityShards: 1,
	target: "rs:1+1",
	payloadBytes: 4096,
	shardBytes: 4096,
	liveBytes: 4096,
	chunks: [{ first: 1, count: 1 }],
	fragments: [],
	birthEpoch: 1,
};

test("a segment that lives again and dies while its first death becomes durable is given back once, after its last death is durable", async () => {
	const world = new SimWorld({ seed: 1 });
	const platform = world.node().boot();
	await world.run(async () => {
		const memory = createMemoryEngine();
		const durable: number[] = [];
		const engine = new Proxy(memory, {
			get(target, name) {
				if (name !== "durable") {
					const value = Reflect.get(target, name, target);
					return typeof value === "function" ? value.bind(target) : value;
				}
				return async (position: number) => {
					await platform.clock.sleep(50);
					durable.push(position);
				};
			},
		});
		const released: number[] = [];
		const store = { release: async () => void released.push(durable.at(-1) ?? 0) };
		const numbers = { low: false };
		const modules = { platform, logger: silentLogger, engine, store, numbers } as unknown as CoreModules;
		const core = new Core({ epoch: 1 }, modules);
		const die = () =>
			core.transact((tx, _context, effects) => {
				tx.delete(segmentRecord, segment.id);
				effects.freed.push(segment);
			});
		await core.transact((tx) => tx.put(segmentRecord, segment, segment.id));
		const letGo = core.holdForPacking(segment.id);
		await die();
		await core.transact((tx) => tx.put(segmentRecord, segment, segment.id));
		letGo();
		const first = core.releaseFreed();
		await platform.clock.sleep(10);
		const last = (await die()).position;
		await Promise.all([first, core.releaseFreed()]);
		await platform.clock.sleep(1000);
		assert.equal(released.length, 1, "given back once");
		assert((released[0] as number) >= last, `given back when ${released[0]} was durable, its last death is ${last}`);
		await core.stop();
	});
});

test("places that a record has let go of are given back when that is durable, however often it fails before, and once", async () => {
	const world = new SimWorld({ seed: 2 });
	const platform = world.node().boot();
	await world.run(async () => {
		let failures = 3;
		const durable = async (): Promise<void> => {
			await platform.clock.sleep(10);
			if (failures-- > 0) throw new FsError("EIO", "test.durable", "the log does not sync just now");
		};
		const released: number[] = [];
		const store = { release: async (places: readonly FragmentPlace[]) => void released.push(places.length) };
		const modules = { platform, logger: silentLogger, engine: { durable }, store, numbers: { low: false } } as unknown as CoreModules;
		const core = new Core({ epoch: 1 }, modules);
		const place: FragmentPlace = { index: 0, generation: 1, disk: 1, pack: 1, offset: 0, headerChecksum: 0 };
		await core.retire([place], segment, 5);
		assert.deepEqual(released, [], "not before it is durable");
		await platform.clock.sleep(60_000);
		assert.deepEqual(released, [1]);
		await core.retire([place, place], segment, 6);
		assert.deepEqual(released, [1, 2]);
		await core.stop();
	});
});

test("who waits for a file that is sealed behind the foreground does not wait for the files before it", async () => {
	const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
	// Every step uses up its turn.
	let nowMs = 0;
	const platform = { clock: { monotonicMs: () => nowMs++, yield: turn } };
	const core = new Core({ epoch: 1 }, { platform, logger: silentLogger, numbers: { low: false } } as unknown as CoreModules);
	const sealed: number[] = [];
	const seals = Array.from({ length: 100 }, (_, at) =>
		core.sealBehind(1000 + at, async ({ commit, hurry }) => {
			await commit.run(() => {}, hurry);
			await commit.run(() => sealed.push(1000 + at), hurry);
		}),
	);
	// All of them hold their inodes, and wait for a turn.
	while (core.behind.gather.waiting > 0) await turn();
	assert.ok(core.flow.held(1099));
	const before = sealed.length;
	await core.flow.run(1099, () => assert.ok(sealed.includes(1099), "the seal that it waited for is done"));
	assert.ok(sealed.length < before + 20, `${sealed.length} of 100 files were sealed before`);
	await Promise.all(seals);
	assert.deepEqual(
		sealed.filter((ino) => ino !== 1099),
		Array.from({ length: 99 }, (_, at) => 1000 + at),
	);
	assert.equal(core.flow.held(1099), false);
});
