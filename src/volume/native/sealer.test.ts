import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLogger } from "../../base/telemetry.ts";
import { SimWorld } from "../../platform/sim/world.ts";
import type { Ino } from "../../records/interface.ts";
import type { Core } from "./core.ts";
import type { FileData } from "./data.ts";
import { limits } from "./limits.ts";
import { Sealer } from "./sealer.ts";

const fileBytes = 64 * 1024;
/** Of files. */
const enough = limits.sealClosedBytes / fileBytes;

/** Files that are dirty, each with `fileBytes`, and a sealer over them that takes a while for each. */
function sealerOver(world: SimWorld) {
	const platform = world.node().boot();
	const since = new Map<Ino, number>();
	const sealed: Ino[] = [];
	let atOnce = 0;
	let most = 0;
	const dirty = {
		get bytes() {
			return since.size * fileBytes;
		},
		attributes: (ino: Ino) => (since.has(ino) ? { bytes: fileBytes } : undefined),
		dirtyInodes: () => [...since].map(([ino, sinceMs]) => ({ ino, sinceMs, bytes: fileBytes })),
		hasRoom: () => true,
		stalledBy: () => undefined,
	};
	const data = {
		sealBehind: async (ino: Ino) => {
			most = Math.max(most, ++atOnce);
			await platform.clock.sleep(20);
			atOnce--;
			if (since.delete(ino)) sealed.push(ino);
		},
	};
	const core = { dirty, platform, logger: silentLogger } as unknown as Core;
	const sealer = new Sealer(core, data as unknown as FileData, () => {});
	const write = (ino: Ino): void => {
		since.set(ino, platform.clock.monotonicMs());
		sealer.afterWrite(ino);
	};
	return { sealer, sealed, write, remove: (ino: Ino) => since.delete(ino), clock: platform.clock, most: () => most };
}

test("files that were closed are sealed at once when they fill two segments; those that are open, or too few, when they are old enough", async () => {
	const world = new SimWorld({ seed: 1 });
	await world.run(async () => {
		const { sealer, sealed, write, clock } = sealerOver(world);
		sealer.start();
		write(1000);
		for (let ino = 1; ino < enough; ino++) {
			write(ino);
			sealer.afterClose(ino);
			// Opened and closed once more: it counts once.
			sealer.afterClose(ino);
		}
		await clock.sleep(200);
		assert.deepEqual(sealed, [], "too few so far");
		write(enough);
		sealer.afterClose(enough);
		await clock.sleep(200);
		assert.deepEqual(
			sealed,
			Array.from({ length: enough }, (_, i) => 1 + i),
		);
		await clock.sleep(limits.sealAgeMs + 2 * limits.sealTickMs);
		assert.deepEqual(sealed.at(-1), 1000, "an open one is sealed when it is old");
		await sealer.stop();
	});
});

test("what is closed while a pass runs is sealed after it, pass by pass, and what was removed is nobody's work", async () => {
	const world = new SimWorld({ seed: 2 });
	await world.run(async () => {
		const { sealer, sealed, write, remove, clock, most } = sealerOver(world);
		const closeAll = (from: number): void => {
			for (let ino = from; ino < from + enough; ino++) {
				write(ino);
				sealer.afterClose(ino);
			}
		};
		closeAll(1);
		await clock.sleep(1);
		closeAll(1001);
		remove(1001);
		await clock.sleep(500);
		assert.equal(sealed.length, 2 * enough - 1);
		assert.ok(!sealed.includes(1001));
		assert.equal(most(), enough, "one pass at a time");
		await sealer.stop();
		closeAll(2001);
		await clock.sleep(500);
		assert.equal(sealed.length, 2 * enough - 1, "nothing is begun after the end");
	});
});
