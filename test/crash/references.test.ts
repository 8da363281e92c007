/** `verify` counts every reference again: right on a volume in use, and wrong counts are found. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Engine } from "../../src/kv/interface.ts";
import { SimWorld } from "../../src/platform/sim/world.ts";
import type { Chunk, RecordKind, Segment } from "../../src/records/interface.ts";
import { chunkRecord, segmentRecord } from "../../src/records/kinds.ts";
import type { NativeVolume } from "../../src/volume/native/interface.ts";
import { recount, withEngine } from "../support/recount.ts";
import { caller, diskPaths, makeWorldVolume, openSim, pattern, simMemory } from "./scenario.ts";

const intent = { disposition: "open-or-create", access: { read: true, write: true }, attributes: { mode: 0o644 } } as const;

async function verified(volume: NativeVolume): Promise<number> {
	const { corrupt, missing, unrecoverable, miscounted } = await volume.verify({ dryRun: true, lost: false }, () => {});
	assert.deepEqual([corrupt, missing, unrecoverable], [0, 0, 0]);
	return miscounted;
}

/** Files that share their chunks, and one with its own. */
async function fill(volume: NativeVolume): Promise<void> {
	const first = await volume.open(caller, { parent: volume.root, name: "f0" }, intent);
	await volume.write(first.handle, 0, pattern(1, 300_000));
	await volume.syncAll();
	for (let i = 1; i < 6; i++) {
		const next = await volume.open(caller, { parent: volume.root, name: `f${i}` }, intent);
		await volume.copyRange(first.handle, i * 10_000, next.handle, 0, 100_000);
		await volume.write(next.handle, 50_000, pattern(i, 5000));
	}
	await volume.syncAll();
}

test("a volume in use is counted right", async () => {
	const world = new SimWorld({ seed: 760 });
	await makeWorldVolume(world);
	await world.run(async () => {
		const volume = await openSim(world.node().boot());
		await fill(volume);
		let busy = true;
		const work = (async () => {
			const handles = await Promise.all(
				[0, 1, 2, 3].map(async (i) => (await volume.open(caller, { parent: volume.root, name: `f${i}` }, intent)).handle),
			);
			for (let i = 0; busy; i++) {
				const [from, to] = [handles[i % 4] as number, handles[(i + 1) % 4] as number];
				await volume.copyRange(from, (i * 7919) % 100_000, to, (i * 104_729) % 200_000, 60_000);
				await volume.write(to, (i * 4099) % 250_000, pattern(i, 3000));
				if (i % 3 === 0) await volume.allocate(from, "punch", (i * 15_485) % 200_000, 20_000);
				if (i % 5 === 0) await volume.syncAll();
			}
		})();
		for (let i = 0; i < 5; i++) assert.equal(await verified(volume), 0);
		busy = false;
		await work;
		assert.equal(await verified(volume), 0);
		await volume.shutdown();
	});
});

async function change<Value>(
	engine: Engine,
	kind: RecordKind<readonly [id: number], Value>,
	id: number,
	to: (value: Value) => Value | undefined,
): Promise<void> {
	const key = kind.key(id);
	const [found] = await engine.read([key]);
	assert.ok(found, `record ${id} is there`);
	const next = to(kind.decode(found.value, key));
	await engine.commit({ expect: [], puts: next === undefined ? [] : [[key, kind.encode(next)]], deletes: next === undefined ? [key] : [] });
	await engine.durable(engine.position);
}

const damages: readonly (readonly [
	what: string,
	wrong: number,
	damage: (engine: Engine, chunk: Chunk, segment: Segment) => Promise<void>,
])[] = [
	[
		"a reference too many",
		1,
		(engine, { id }) => change(engine, chunkRecord, id, (chunk) => ({ ...chunk, references: chunk.references + 1 })),
	],
	["bytes too few", 1, (engine, { id }) => change(engine, chunkRecord, id, (chunk) => ({ ...chunk, referencedBytes: chunk.length }))],
	["a chunk that is gone", 2, (engine, { id }) => change(engine, chunkRecord, id, () => undefined)],
	[
		"live bytes too many",
		1,
		(engine, _, { id }) => change(engine, segmentRecord, id, (segment) => ({ ...segment, liveBytes: segment.liveBytes + 1 })),
	],
];

for (const [what, wrong, damage] of damages) {
	test(`wrong counts are found: ${what}`, async () => {
		const world = new SimWorld({ seed: 761 });
		await makeWorldVolume(world);
		const node = world.node();
		await world.run(async () => {
			const volume = await openSim(node.boot());
			await fill(volume);
			await volume.shutdown();
			await withEngine(node.boot(), diskPaths, simMemory, async (engine) => {
				const entries = await engine.range({
					start: chunkRecord.tag,
					end: String.fromCharCode(chunkRecord.tag.charCodeAt(0) + 1),
					limit: 100,
				});
				const chunks = entries.map((entry) => chunkRecord.decode(entry.value, entry.key));
				const chunk = chunks.find((one) => one.references > 3) as Chunk;
				const key = segmentRecord.key(chunk.segment);
				const [found] = await engine.read([key]);
				assert.ok(found);
				await damage(engine, chunk, segmentRecord.decode(found.value, key));
			});
			await assert.rejects(recount(node.boot(), diskPaths, simMemory), assert.AssertionError);
			const again = await openSim(node.boot());
			assert.equal(await verified(again), wrong);
			node.kill();
		});
	});
}
