/** The power fails, or the process dies, at every single step of a life of writing, releasing and rebuilding, with a coder, with one that dies and without. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { equalBytes } from "../base/bytes.ts";
import type { Segment } from "../records/interface.ts";
import { fragmentLength } from "./fragment.ts";
import type { Redundancy } from "./interface.ts";
import type { NativeSegmentStore } from "./segment-store.ts";
import { Lab, payloadOf, states } from "./store.test-support.ts";

const rs21: Redundancy = { dataShards: 2, parityShards: 1 };
const options = {
	disks: 4,
	capacityBytes: 16 * 1024 * 1024,
	redundancy: "rs:2+1",
	store: { packBytes: 128 * 1024 },
	coder: "drawn",
} as const;

/** Segments whose write resolved and that nobody asked to release: what a transaction may have counted. */
type Committed = Map<number, Segment>;

const payload = (id: number) => payloadOf(id % 3 === 0 ? 3000 : 40_000 + 999 * id, id);

async function writeOne(store: NativeSegmentStore, committed: Committed, id: number): Promise<void> {
	committed.set(id, await store.write(id, payload(id), rs21, 1));
}

async function life(lab: Lab, committed: Committed): Promise<void> {
	const store = await lab.boot();
	await Promise.all([1, 2, 3].map((id) => writeOne(store, committed, id)));
	const dead = committed.get(1) as Segment;
	committed.delete(1);
	await Promise.all([store.release(dead.fragments, dead), writeOne(store, committed, 4)]);
	await Promise.all([5, 6].map((id) => writeOne(store, committed, id)));
	const damaged = committed.get(4) as Segment;
	lab.damage(damaged, 0, 4096);
	const rebuilt = await store.rebuild(await store.check(damaged));
	assert.ok(rebuilt);
	committed.set(4, rebuilt.segment);
	await store.release(rebuilt.retired, rebuilt.segment);
	await writeOne(store, committed, 7);
	await store.close();
}

/** What is wrong after a restart; undefined when nothing is. */
async function fault(lab: Lab, committed: Committed): Promise<string | undefined> {
	const segments = [...committed.values()];
	const store = await lab.boot(segments);
	if (store.conflicts.length > 0) return `segments ${store.conflicts.map((conflict) => conflict.segment)} overlap`;
	for (let id = 11; id < 15; id++) await writeOne(store, committed, id);
	for (const segment of committed.values()) {
		const expected = payload(segment.id);
		const found = await store.read(segment, 0, expected.length).catch((error: Error) => error);
		if (found instanceof Error) return found.message;
		if (!equalBytes(found, expected)) return `segment ${segment.id} has other bytes`;
		const health = states(await store.check(segment));
		if (/[^o]/.test(health) && !(segment.id === 4 && health === "coo")) return `segment ${segment.id} is ${health}`;
	}
	const used = store.space().disks.reduce((sum, disk) => sum + disk.usedBytes, 0);
	const named = [...committed.values()].reduce((sum, segment) => sum + segment.fragments.length * fragmentLength(segment.shardBytes), 0);
	if (used !== named) return `${used} bytes taken for ${named} that records name`;
	await store.close();
	return undefined;
}

async function stepsOfLife(): Promise<number> {
	const lab = new Lab({ ...options, seed: 1 });
	await lab.run(() => life(lab, new Map()));
	return lab.world.steps;
}

async function endAt(how: "cut" | "kill", step: number, seed: number, ignored?: string): Promise<string | undefined> {
	const lab = new Lab({ ...options, seed });
	if (ignored) lab.world.ignoreSync(ignored);
	const committed: Committed = new Map();
	const end = how === "cut" ? lab.world.cutAt(step) : lab.world.killAt(step);
	await lab.run(() => Promise.race([life(lab, committed), end]));
	if (!lab.world.wasCut) return undefined;
	return lab.run(() => fault(lab, new Map(committed)));
}

describe("segment store: power cuts and kills at every step", () => {
	for (const how of ["cut", "kill"] as const) {
		it(`${how}: everything that was written is there in full, and its space is known`, async () => {
			const steps = await stepsOfLife();
			assert.ok(steps > 40, `${steps} steps`);
			for (let step = 1; step <= steps; step++) {
				const seed = 1000 + step;
				assert.equal(await endAt(how, step, seed), undefined, `${how} at step ${step}, seed ${seed}`);
			}
		});
	}

	for (const site of ["storage.fragment", "storage.pack-name"]) {
		it(`notices when the sync ${site} does nothing`, async () => {
			const steps = await stepsOfLife();
			const found: string[] = [];
			for (let step = 1; step <= steps && found.length === 0; step++) {
				for (const seed of [2000 + step, 3000 + step]) {
					const wrong = await endAt("cut", step, seed, site);
					if (wrong) found.push(wrong);
				}
			}
			assert.ok(found.length > 0, "without that sync a power cut loses something");
		});
	}
});
