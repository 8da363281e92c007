import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Deferred } from "../../base/async.ts";
import { FsError } from "../../base/errors.ts";
import { Hurry, TurnShare } from "../../base/turn-share.ts";
import type { Segment } from "../../records/interface.ts";
import { parseRedundancy } from "../../storage/redundancy.ts";
import type { Behind, Core } from "./core.ts";
import { limits } from "./limits.ts";
import { Packer } from "./packer.ts";

const target = parseRedundancy("rs:4+2");

/** A store whose writes end when the test says so. */
class Writes {
	readonly open: { readonly payload: Uint8Array; readonly done: Deferred<void> }[] = [];
	readonly buffers = new Set<ArrayBufferLike>();
	readonly lengths: number[] = [];
	abandoned = 0;

	async write(id: number, payload: Uint8Array): Promise<Segment> {
		const done = new Deferred<void>();
		const before = payload.slice();
		this.open.push({ payload, done });
		this.buffers.add(payload.buffer);
		this.lengths.push(payload.length);
		await done.promise;
		assert.deepEqual(payload, before, "P1: a payload that is being written stays as it is");
		return { id } as Segment;
	}

	settle(): void {}

	abandon(): void {
		this.abandoned++;
	}

	/** Ends what is open, again and again, until nothing more comes. */
	async endAll(error?: FsError): Promise<void> {
		for (let quiet = 0; quiet < 10; quiet++) {
			await turn();
			const open = this.open.splice(0);
			assert.ok(open.length <= limits.segmentWrites, "segments being written at once");
			for (const { done } of open) error === undefined ? done.resolve() : done.reject(error);
			if (open.length > 0) quiet = 0;
		}
	}
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function packerOver(store: Writes): Packer {
	let last = 0;
	const core = {
		store,
		options: { epoch: 1 },
		platform: { clock: { yield: turn } },
		chunkNumbers: async (count: number) => Array.from({ length: count }, () => ++last),
		nextSegmentId: () => ++last,
		holdForPacking: () => () => {},
	};
	return new Packer(core as unknown as Core, async () => {});
}

describe("packer", () => {
	test("a seal as large as the ring takes few payloads, and every byte is in one of them", async () => {
		const store = new Writes();
		const packer = packerOver(store);
		const bytes = new Uint8Array(24 * limits.segmentBytes).fill(7);
		const placing = packer.place(2, target, [{ offset: 0, bytes }]);
		await store.endAll();
		const placed = await placing;
		assert.equal(store.buffers.size, limits.segmentPayloads);
		assert.equal(
			placed.reduce((sum, { length }) => sum + length, 0),
			bytes.length,
		);
		for (const one of placed) one.settle(true);
		assert.equal(store.abandoned, 0);
	});

	test("small pieces that wait for a payload share it", async () => {
		const store = new Writes();
		const packer = packerOver(store);
		const large = packer.place(2, target, [{ offset: 0, bytes: new Uint8Array(limits.segmentPayloads * limits.segmentBytes) }]);
		const small = Array.from({ length: 100 }, (_, i) => packer.place(3 + i, target, [{ offset: 0, bytes: new Uint8Array(100).fill(i) }]));
		await store.endAll();
		const placed = (await Promise.all([large, ...small])).flat();
		assert.equal(placed.length, (limits.segmentPayloads * limits.segmentBytes) / limits.chunkBytes + 100);
		assert.deepEqual(store.lengths.slice(-1), [10_000]);
		assert.equal(store.lengths.length, limits.segmentPayloads + 1);
	});

	test("an error while others wait is told to each, and what was placed is let go", async () => {
		const store = new Writes();
		const packer = packerOver(store);
		const error = new FsError("EIO", "test.write", "no disk");
		const placing = packer.place(2, target, [{ offset: 0, bytes: new Uint8Array(12 * limits.segmentBytes) }]);
		const refused = assert.rejects(placing, error);
		await turn();
		await turn();
		store.open.shift()?.done.resolve();
		await store.endAll(error);
		await refused;
		assert.equal(store.abandoned, 1);
	});

	test("behind the foreground, pieces of many turns share a payload; who waits for one of them is not held up", async () => {
		const store = new Writes();
		const packer = packerOver(store);
		// Each step has a turn for itself.
		const clock = { monotonicMs: () => 0, yield: turn };
		const gather = new TurnShare(clock, 1, () => true);
		const behind = (): Behind => ({ gather, commit: new TurnShare(clock, 1), hurry: new Hurry() });
		const small = (): { offset: number; bytes: Uint8Array }[] => [{ offset: 0, bytes: new Uint8Array(100).fill(5) }];
		const together = Array.from({ length: 10 }, (_, i) => packer.place(2 + i, target, small(), behind()));
		while (gather.waiting > 0) await turn();
		await store.endAll();
		await Promise.all(together);
		assert.deepEqual(store.lengths.splice(0), [1000]);

		const awaited = behind();
		const first = Array.from({ length: 40 }, (_, i) => packer.place(2 + i, target, small(), i === 20 ? awaited : behind()));
		for (let turns = 0; turns < 5; turns++) await turn();
		assert.deepEqual(store.lengths, []);
		awaited.hurry.now();
		await turn();
		await turn();
		assert.equal(store.lengths.length, 1);
		assert.ok((store.lengths[0] as number) < 2000, "it does not wait for those behind it");
		while (gather.waiting > 0) await turn();
		await store.endAll();
		await Promise.all(first);
		assert.equal(
			store.lengths.reduce((sum, length) => sum + length, 0),
			4000,
		);
		assert.equal(store.lengths.length, 2);
	});
});
