import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { equalBytes } from "../base/bytes.ts";
import type { FragmentPlace, Segment } from "../records/interface.ts";
import { fragmentLength } from "./fragment.ts";
import type { Redundancy, SegmentHealth } from "./interface.ts";
import type { NativeSegmentStore } from "./segment-store.ts";
import { codeOf, Lab, payloadOf, states } from "./store.test-support.ts";

const rs42: Redundancy = { dataShards: 4, parityShards: 2 };

function shapeText(segment: Segment): string {
	return `${segment.dataShards}+${segment.parityShards}`;
}

/** What the volume does: rebuild, commit, release what the record no longer names. */
async function heal(store: NativeSegmentStore, health: SegmentHealth): Promise<Segment | undefined> {
	const rebuilt = await store.rebuild(health);
	if (!rebuilt) return undefined;
	await store.release(rebuilt.retired, rebuilt.segment);
	return rebuilt.segment;
}

function usedBy(segments: readonly Segment[]): number {
	return segments.reduce((sum, segment) => sum + segment.fragments.length * fragmentLength(segment.shardBytes), 0);
}

function usedOn(store: NativeSegmentStore): number {
	return store.space().disks.reduce((sum, disk) => sum + disk.usedBytes, 0);
}

describe("segment store: healing", () => {
	it("makes only damaged and missing fragments anew, elsewhere, with a higher generation", async () => {
		const lab = new Lab({ disks: 8 });
		await lab.run(async () => {
			const store = await lab.boot();
			const payload = payloadOf(300_000, 1);
			const segment = await store.write(1, payload, rs42, 1);
			assert.equal(await store.rebuild(store.assess(segment)), undefined, "nothing to do");
			lab.damage(segment, 1, 5000);
			const lost = segment.fragments[4] as FragmentPlace;
			lab.disks.setState(lost.disk, "failed");
			const health = await store.check(segment);
			assert.equal(states(health), "ocoomo");
			const rebuilt = await store.rebuild(health);
			assert.ok(rebuilt);
			assert.deepEqual(
				rebuilt.written.map((place) => [place.index, place.generation]),
				[
					[1, 2],
					[4, 2],
				],
			);
			assert.deepEqual(rebuilt.retired, [segment.fragments[1], lost]);
			assert.deepEqual(
				rebuilt.segment.fragments.map((place) => place.index),
				[0, 1, 2, 3, 4, 5],
			);
			await store.release(rebuilt.retired, segment);
			assert.equal(usedOn(store), usedBy([rebuilt.segment]));
			const after = await store.check(rebuilt.segment);
			assert.deepEqual([states(after), after.full], ["oooooo", true]);
			assert.equal(store.counters.rebuiltFragments, 2);
			const [dead1, dead2] = [rebuilt.segment.fragments[0], rebuilt.segment.fragments[2]];
			for (const place of [dead1, dead2]) lab.disks.setState(place?.disk as number, "missing");
			assert.ok(equalBytes(await store.read(rebuilt.segment, 0, payload.length), payload), "the new fragments decode");
		});
	});

	for (const length of [9000, 300_000]) {
		it(`heals every pattern of two damaged fragments of ${length} bytes`, async () => {
			const lab = new Lab({ store: { cacheBytes: 0 } });
			await lab.run(async () => {
				const store = await lab.boot();
				const payload = payloadOf(length, 2);
				for (let a = 0; a < 6; a++) {
					for (let b = a; b < 6; b++) {
						const segment = await store.write(1 + 6 * a + b, payload, rs42, 1);
						const width = segment.dataShards + segment.parityShards;
						if (a >= width || b >= width) continue;
						for (const index of new Set([a, b])) lab.damage(segment, index, 4096 + 77);
						const healed = await heal(store, await store.check(segment));
						assert.ok(healed, `${a} and ${b}`);
						assert.equal(states(await store.check(healed)), "o".repeat(width), `${a} and ${b}`);
						assert.ok(equalBytes(await store.read(healed, 0, length), payload), `${a} and ${b}`);
					}
				}
			});
		});
	}

	it("finds damage that the record's states do not tell while it rebuilds", async () => {
		const lab = new Lab({ disks: 7 });
		await lab.run(async () => {
			const store = await lab.boot();
			const segment = await store.write(1, payloadOf(300_000, 3), rs42, 1);
			lab.damage(segment, 0, 9000);
			lab.disks.setState(segment.fragments[5]?.disk as number, "failed");
			const healed = await heal(store, store.assess(segment));
			assert.ok(healed);
			assert.equal(states(await store.check(healed)), "oooooo");
			assert.deepEqual(
				healed.fragments.map((place) => place.generation),
				[2, 1, 1, 1, 1, 2],
			);
		});
	});

	it("says that data is lost when too little is left", async () => {
		const lab = new Lab({ disks: 9 });
		await lab.run(async () => {
			const store = await lab.boot();
			const segment = await store.write(1, payloadOf(300_000, 3), rs42, 1);
			for (const index of [0, 3, 5]) lab.damage(segment, index, 9000);
			const health = await store.check(segment);
			assert.deepEqual([states(health), health.lost], ["coococ", true]);
			assert.equal(await codeOf(store.rebuild(health)), "EIO storage.lost");
			assert.equal(usedOn(store), usedBy([segment]), "nothing stays behind");
		});
	});

	it("reshapes to survive as much as asked when disks are lost for good, and back when they return", async () => {
		const lab = new Lab({ disks: 6 });
		await lab.run(async () => {
			const store = await lab.boot();
			const payload = payloadOf(300_000, 4);
			const small = payloadOf(3000, 5);
			let segments = [await store.write(1, payload, rs42, 1), await store.write(2, small, rs42, 1)];
			const expected: [number, string, string][] = [
				[6, "3+2", "1+2"],
				[5, "2+2", "1+2"],
				[4, "1+2", "1+2"],
			];
			for (const [disk, big, little] of expected) {
				lab.disks.setState(disk, "failed");
				segments = await Promise.all(segments.map(async (segment) => (await heal(store, store.assess(segment))) ?? segment));
				assert.deepEqual(segments.map(shapeText), [big, little], `without d${disk}`);
				for (const segment of segments) assert.match(states(await store.check(segment)), /^o+$/);
				assert.equal(usedOn(store), usedBy(segments), `space without d${disk}`);
			}
			// Two copies are left where three are wanted: writing them as 1+1 would not make them safer.
			lab.disks.setState(3, "failed");
			for (const segment of segments) assert.equal(await store.rebuild(store.assess(segment)), undefined);
			for (const disk of [3, 4, 5, 6]) await lab.disks.comeBack(disk);
			segments = await Promise.all(segments.map(async (segment) => (await heal(store, store.assess(segment))) ?? segment));
			assert.deepEqual(segments.map(shapeText), ["4+2", "1+2"]);
			assert.ok(segments.every((segment) => store.assess(segment).full));
			assert.equal(usedOn(store), usedBy(segments));
			assert.ok(equalBytes(await store.read(segments[0] as Segment, 0, payload.length), payload), "big");
			assert.ok(equalBytes(await store.read(segments[1] as Segment, 0, small.length), small), "small");
			for (const segment of segments) assert.match(states(await store.check(segment)), /^o+$/);
		});
	});

	it("fills up what was written with fewer copies, and spreads what is crowded on one domain", async () => {
		const lab = new Lab({ disks: 4, domains: ["a", "a", "b", "c"], sameDevice: true });
		await lab.run(async () => {
			let store = await lab.boot();
			for (const disk of [3, 4]) lab.disks.setState(disk, "failed");
			const segment = await store.write(1, payloadOf(5000, 1), { dataShards: 1, parityShards: 2 }, 1);
			assert.equal(shapeText(segment), "1+1");
			for (const disk of [3, 4]) await lab.disks.comeBack(disk);
			lab.disks.roster = { ...lab.disks.roster, config: { ...lab.disks.roster.config, sameDevice: false } };
			store = await lab.restart([segment]);
			assert.equal(store.assess(segment).full, false);
			const healed = await heal(store, store.assess(segment));
			assert.ok(healed);
			const health = await store.check(healed);
			assert.deepEqual([shapeText(healed), health.full], ["1+2", true]);
			assert.equal(usedOn(store), usedBy([healed]));
		});
	});

	it("moves one of two fragments that share a domain", async () => {
		const lab = new Lab({ disks: 3, domains: ["a", "a", "b"], sameDevice: true });
		await lab.run(async () => {
			let store = await lab.boot();
			lab.disks.setState(3, "suspect");
			const segment = await store.write(1, payloadOf(5000, 1), { dataShards: 1, parityShards: 1 }, 1);
			assert.deepEqual([shapeText(segment), store.assess(segment).full], ["1+1", true]);
			lab.disks.setState(3, "healthy");
			lab.disks.roster = { ...lab.disks.roster, config: { ...lab.disks.roster.config, sameDevice: false } };
			store = await lab.restart([segment]);
			assert.equal(store.assess(segment).full, false);
			const healed = await heal(store, store.assess(segment));
			assert.ok(healed);
			assert.deepEqual(healed.fragments.map((place) => [place.disk === 3, place.generation]).sort(), [
				[false, 1],
				[true, 2],
			]);
			assert.deepEqual([store.assess(healed).full, await store.rebuild(store.assess(healed))], [true, undefined]);
			assert.equal(usedOn(store), usedBy([healed]));
		});
	});

	it("goes round a disk that fails while it rebuilds, and says when there is no room", async () => {
		const lab = new Lab({ disks: 8, capacityBytes: 4 * 1024 * 1024 });
		await lab.run(async () => {
			const store = await lab.boot();
			const segment = await store.write(1, payloadOf(3_000_000, 1), rs42, 1);
			const spare = lab.disks.slots().find((slot) => segment.fragments.every((place) => place.disk !== slot.id))?.id as number;
			lab.damage(segment, 2, 9000);
			lab.world.fail(`/d${spare}`, ["write"], "EIO", 1);
			const healed = await heal(store, await store.check(segment));
			assert.ok(healed);
			assert.equal(states(await store.check(healed)), "oooooo");
			assert.equal(usedOn(store), usedBy([healed]));
			lab.damage(healed, 1, 9000);
			for (let i = 1; i <= 8; i++) lab.world.full(`/d${i}`);
			assert.equal(await codeOf(store.rebuild(await store.check(healed))), "ENOSPC storage.rebuild-full");
			assert.equal(usedOn(store), usedBy([healed]));
		});
	});

	it("gives a rebuild back that was not committed", async () => {
		const lab = new Lab({ disks: 7 });
		await lab.run(async () => {
			const store = await lab.boot();
			const segment = await store.write(1, payloadOf(300_000, 1), rs42, 1);
			lab.damage(segment, 2, 9000);
			const rebuilt = await store.rebuild(await store.check(segment));
			assert.ok(rebuilt);
			store.abandonPlaces(1, rebuilt.written);
			await lab.world.sleep(1000);
			assert.equal(usedOn(store), usedBy([segment]));
			assert.throws(() => store.abandonPlaces(1, [{ ...(segment.fragments[0] as FragmentPlace) }]), /comes from a rebuild/);
			const foreign = { ...(segment.fragments[0] as FragmentPlace), offset: 1 << 20 };
			await assert.rejects(store.release([foreign], segment), /belongs to the record of segment 1/);
		});
	});

	it("does not move or rewrite what lies on a disk that is only suspect", async () => {
		const lab = new Lab({ disks: 6 });
		await lab.run(async () => {
			const store = await lab.boot();
			const segment = await store.write(1, payloadOf(300_000, 1), rs42, 1);
			lab.disks.setState(2, "suspect");
			assert.equal(await store.rebuild(store.assess(segment)), undefined);
			assert.equal(states(await store.check(segment)), "oooooo");
			const other = await store.write(2, payloadOf(300_000, 2), rs42, 1);
			assert.equal(shapeText(other), "3+2");
		});
	});
});
