import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AssertionError } from "../base/assert.ts";
import { BufferPool } from "../base/buffer-pool.ts";
import { FsError } from "../base/errors.ts";
import type { ShardWork } from "../codec/interface.ts";
import { createErasureCode } from "../codec/erasure.ts";
import { doShardWork } from "../codec/shard-work.ts";
import type { Coder, Platform } from "../platform/interface.ts";
import { SimWorld } from "../platform/sim/world.ts";
import type { Segment } from "../records/interface.ts";
import { blockTable, shardLength, splitPayload } from "./fragment.ts";
import type { Redundancy } from "./interface.ts";
import { limits } from "./limits.ts";
import { type Room, type Shard, ShardMaker } from "./shard-maker.ts";
import { payloadOf } from "./store.test-support.ts";

const rs42: Redundancy = { dataShards: 4, parityShards: 2 };
const large = limits.coderFromBytes + 12_345;

type Answer = (work: ShardWork) => Promise<Uint32Array> | undefined;

class Yard {
	readonly world = new SimWorld({ seed: 7 });
	readonly logged: string[] = [];
	readonly asked: ShardWork[] = [];
	readonly pool = new BufferPool({ fromBytes: limits.parityFromBytes, keptBytes: limits.parityKeptBytes, shared: true });
	readonly maker: ShardMaker;

	constructor(answer: Answer | undefined) {
		const coder: Coder | undefined = answer && {
			begin: (work) => {
				this.asked.push(work);
				return answer(work);
			},
		};
		const { coder: _, ...rest } = this.world.node({ coder: "none" }).boot();
		const platform: Platform = coder === undefined ? rest : { ...rest, coder };
		const say = (level: string) => (message: string) => void this.logged.push(`${level} ${message}`);
		this.maker = new ShardMaker({ platform, logger: { debug: say("debug"), info: say("info"), warn: say("warn"), error: say("error") } });
	}

	/** Memory with something in it. */
	readonly room: Room = (lengthBytes) => (this.pool.take(lengthBytes)?.bytes ?? new Uint8Array(lengthBytes)).fill(0xaa);

	encode(payload: Uint8Array, shape = rs42): Promise<Shard[]> {
		return this.world.run(() => this.maker.encode(payload, shape, this.room));
	}
}

function checkShards(shards: readonly Shard[], payload: Uint8Array, { dataShards, parityShards }: Redundancy): void {
	const data = splitPayload(payload, dataShards);
	const parity = Array.from({ length: parityShards }, () => new Uint8Array(shardLength(payload.length, dataShards)));
	if (parityShards > 0) createErasureCode(dataShards, parityShards).encode(data, parity);
	const expected = [...data, ...parity];
	assert.equal(shards.length, expected.length);
	for (const [at, { index, bytes, table }] of shards.entries()) {
		assert.equal(index, at);
		assert.ok(Buffer.from(bytes).equals(expected[at] as Uint8Array), `shard ${at} of ${dataShards}+${parityShards}`);
		assert.deepEqual(table, blockTable(expected[at] as Uint8Array));
	}
}

/** Of the bytes as they are now. */
function sumsOf(work: ShardWork): Uint32Array {
	const sources = [...work.sources, ...work.targets];
	return doShardWork({ ...work, present: sources.map((_, at) => at), sources, wanted: [], targets: [] });
}

const honest: Answer = async (work) => doShardWork(work);

describe("shards are made", () => {
	for (const [how, answer] of [
		["without a coder", undefined],
		["by a coder", honest],
		["by who wants them, when the coder takes nothing", () => undefined],
		["by who wants them, when the coder has died of it", async () => Promise.reject(new FsError("EIO", "test.died", "it died"))],
		[
			"by who wants them, when the coder makes other parity",
			async (work: ShardWork) => {
				doShardWork(work);
				for (const target of work.targets) target[5000] = (target[5000] as number) ^ 1;
				return sumsOf(work);
			},
		],
	] as const) {
		it(how, async () => {
			for (const length of [large, limits.coderFromBytes]) {
				const yard = new Yard(answer as Answer | undefined);
				for (const payload of [payloadOf(length, 3), new Uint8Array(new SharedArrayBuffer(length)).fill(9)]) {
					checkShards(await yard.encode(payload), payload, rs42);
				}
				for (const work of yard.asked) {
					const all = [...work.sources, ...work.targets];
					assert.ok(all.every((shard) => shard.buffer instanceof SharedArrayBuffer));
				}
			}
		});
	}

	it("small ones never by a coder, replicas by one, wide ones too", async () => {
		const yard = new Yard(honest);
		for (const length of [1, 4096, 16_385, limits.coderFromBytes - 1])
			checkShards(await yard.encode(payloadOf(length, 1)), payloadOf(length, 1), rs42);
		assert.equal(yard.asked.length, 0);
		const payload = payloadOf(large, 2);
		const copies = await yard.encode(payload, { dataShards: 1, parityShards: 2 });
		assert.ok(copies.every(({ bytes }) => bytes === copies[0]?.bytes));
		checkShards(copies, payload, { dataShards: 1, parityShards: 2 });
		checkShards(await yard.encode(payload, { dataShards: 1, parityShards: 0 }), payload, { dataShards: 1, parityShards: 0 });
		checkShards(await yard.encode(payload, { dataShards: 32, parityShards: 8 }), payload, { dataShards: 32, parityShards: 8 });
		assert.equal(yard.asked.length, 3);
		assert.deepEqual(yard.logged, []);
	});

	it("a coder that is lost is told of once, and is not asked again", async () => {
		let fail: (error: unknown) => void = () => {};
		const lost = new Promise<Uint32Array>((_, reject) => {
			fail = reject;
		});
		const yard = new Yard(() => lost);
		const payloads = [1, 2, 3].map((seed) => payloadOf(large, seed));
		const all = await yard.world.run(async () => {
			const encoded = payloads.map((payload) => yard.maker.encode(payload, rs42, yard.room));
			await yard.world.sleep(100);
			fail(new FsError("EIO", "test.died", "it died"));
			return Promise.all(encoded);
		});
		for (const [at, shards] of all.entries()) checkShards(shards, payloads[at] as Uint8Array, rs42);
		assert.equal(yard.asked.length, 3);
		await yard.encode(payloadOf(large, 4));
		assert.equal(yard.asked.length, 3);
		assert.equal(yard.logged.length, 1);
		assert.match(yard.logged[0] as string, /^warn .*main thread/);
	});

	it("a payload that changes while the coder has it is found out, whoever is at fault", async () => {
		const payload = new Uint8Array(new SharedArrayBuffer(large));
		// Parity is made of other bytes than are summed.
		const yard = new Yard(async (work) => {
			doShardWork(work);
			payload[70_000] = 1;
			return sumsOf(work);
		});
		checkShards(await yard.encode(payload), payload, rs42);
		assert.match(yard.logged.join(), /^error .*does not belong to its data/);
	});

	it("an answer of another shape stops everything", async () => {
		const yard = new Yard(async (work) => doShardWork(work).subarray(1));
		await assert.rejects(yard.encode(payloadOf(large, 1)), AssertionError);
	});

	it("a lost one that the coder makes wrong is found out and made again, where the others tell", async () => {
		const payload = payloadOf(large, 6);
		const shards = await new Yard(undefined).encode(payload);
		const segment = { id: 1, ...rs42, payloadBytes: payload.length, shardBytes: shardLength(payload.length, 4) } as Segment;
		for (const gone of [[1], [4], [0, 5], [2, 3], [0, 4]]) {
			const yard = new Yard(async (work) => {
				doShardWork(work);
				const [target] = work.targets as [Uint8Array];
				target[5000] = (target[5000] as number) ^ 1;
				return sumsOf(work);
			});
			const left = shards.map(({ bytes }, at) => (gone.includes(at) ? undefined : bytes));
			for (const { index, bytes, table } of await yard.world.run(() => yard.maker.restore(segment, left, gone, yard.room))) {
				assert.ok(Buffer.from(bytes).equals(shards[index]?.bytes as Uint8Array), `shard ${index} without ${gone}`);
				assert.deepEqual(table, shards[index]?.table);
			}
			assert.equal(yard.asked.length, 1);
			assert.match(yard.logged.join(), /^error .*does not belong to its data/);
		}
	});

	it("lost ones from any of the others; what is there is only summed", async () => {
		for (const answer of [undefined, honest, async () => Promise.reject(new FsError("EIO", "test.died", "it died"))]) {
			const yard = new Yard(answer as Answer | undefined);
			const payload = payloadOf(large, 5);
			const shards = await yard.encode(payload);
			const segment = { id: 1, ...rs42, payloadBytes: payload.length, shardBytes: shardLength(payload.length, 4) } as Segment;
			for (const [gone, indexes] of [
				[
					[0, 5],
					[0, 5],
				],
				[[1], [3, 1]],
				[
					[4, 2],
					[2, 4],
				],
				[[], [0, 1, 2, 3]],
			] as const) {
				const left = shards.map(({ bytes }, at) => ((gone as readonly number[]).includes(at) ? undefined : bytes));
				const made = await yard.world.run(() => yard.maker.restore(segment, left, indexes, yard.room));
				assert.deepEqual(
					made.map(({ index }) => index),
					indexes,
				);
				for (const { index, bytes, table } of made) {
					assert.ok(Buffer.from(bytes).equals(shards[index]?.bytes as Uint8Array), `shard ${index} without ${gone}`);
					assert.deepEqual(table, shards[index]?.table);
				}
			}
		}
	});
});
