import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Prng } from "../platform/sim/prng.ts";
import { chooseDisks, waterFill } from "./placement.ts";
import { storageSpace, withoutDisk } from "./space.ts";

/** Σ min(free, S) ≥ width × S, tried one by one. */
function bruteFill(free: readonly number[], width: number): number {
	let best = 0;
	const most = Math.max(0, ...free) * free.length;
	for (let s = 0; s <= most; s++) {
		let sum = 0;
		for (const bytes of free) sum += Math.min(bytes, s);
		if (sum >= width * s) best = s;
	}
	return best;
}

describe("placement", () => {
	it("reckons what fits as trying does", () => {
		const random = new Prng(7, "fill");
		for (let round = 0; round < 500; round++) {
			const free = Array.from({ length: 1 + random.below(8) }, () => random.below(random.chance(0.3) ? 5 : 40));
			const width = 1 + random.below(6);
			assert.equal(waterFill(free, width), bruteFill(free, width), `round ${round}: ${free} in ${width}`);
		}
	});

	it("fills disks of different sizes as far as was promised", () => {
		const random = new Prng(9, "greedy");
		for (let round = 0; round < 40; round++) {
			const free = Array.from({ length: 4 + random.below(5) }, () => 20 + random.below(100));
			const width = 1 + random.below(4);
			const left = [...free];
			let stripes = 0;
			for (;;) {
				const candidates = left.map((freeBytes, id) => ({ id, domain: `d${id}`, freeBytes, capacityBytes: 1000 }));
				const chosen = chooseDisks(candidates, width, 1, stripes);
				if (!chosen) break;
				assert.equal(new Set(chosen).size, width);
				for (const id of chosen) left[id] = (left[id] as number) - 1;
				stripes++;
			}
			assert.equal(stripes, waterFill(free, width), `round ${round}: ${free} in ${width}`);
		}
	});

	it("keeps domains apart and turns shards round", () => {
		const candidates = [1, 2, 3, 4, 5].map((id) => ({ id, domain: id <= 2 ? "shared" : `own${id}`, freeBytes: 100, capacityBytes: 100 }));
		const seen = new Map<number, number>();
		for (let turn = 0; turn < 60; turn++) {
			const chosen = chooseDisks(candidates, 3, 100, turn) as number[];
			assert.ok(!(chosen.includes(1) && chosen.includes(2)), `${chosen}`);
			seen.set(chosen[0] as number, 1 + (seen.get(chosen[0] as number) ?? 0));
		}
		assert.ok(seen.size >= 4, `first shards went to ${[...seen.keys()]} alone`);
		assert.equal(chooseDisks(candidates, 5, 100, 0), undefined, "only four domains");
		assert.equal(chooseDisks(candidates, 3, 101, 0), undefined, "no room");
	});

	it("tells space in bytes of the default redundancy", () => {
		const gib = 2 ** 30;
		const disk = (id: number, freeBytes: number, usedBytes = 0, writable = true) => {
			return { id, domain: `d${id}`, writable, capacityBytes: 10 * gib, usedBytes, freeBytes };
		};
		const share = 524_288 / 528_384;
		const six = [1, 2, 3, 4, 5, 6].map((id) => disk(id, 6 * gib, 3 * gib));
		const whole = storageSpace("rs:4+2", six);
		assert.equal(whole.usedBytes, Math.ceil(12 * gib * share));
		assert.equal(whole.freeBytes, Math.floor(24 * gib * share));
		assert.equal(whole.capacityBytes, whole.usedBytes + whole.freeBytes);
		const lost = storageSpace("rs:4+2", [...six.slice(1), disk(1, 0, 3 * gib, false)]);
		assert.equal(lost.usedBytes, whole.usedBytes, "what is used does not jump when a disk is lost");
		assert.ok(lost.freeBytes < whole.freeBytes && lost.freeBytes > 17 * gib, "3+2 on the other five");
		const odd = storageSpace("replicate:2", [disk(1, 100 * gib), disk(2, gib)]);
		assert.equal(odd.freeBytes, Math.floor(gib * (2_097_152 / (2_097_152 + 4096))), "the big disk alone holds no second copy");
		assert.deepEqual(storageSpace("rs:4+2", []), { capacityBytes: 0, usedBytes: 0, freeBytes: 0, levelFreeBytes: 0, disks: [] });
	});

	it("foresees disks that come and go, and what moving would give", () => {
		const disk = (id: number, freeBytes: number, usedBytes: number, writable = true) => {
			return { id, domain: `d${id}`, writable, capacityBytes: 1000, usedBytes, freeBytes };
		};
		const mib = 2 ** 20;
		const uneven = [1, 2, 3].map((id) => disk(id, 0, 90 * mib)).concat(disk(4, 90 * mib, 0));
		const { freeBytes, levelFreeBytes } = storageSpace("rs:2+1", uneven);
		assert.equal(freeBytes, 0, "one disk alone holds no segment");
		assert.ok(
			levelFreeBytes > 58 * mib && levelFreeBytes <= 60 * mib,
			`${levelFreeBytes}: a third of four disks and of two thirds of that`,
		);
		const even = storageSpace(
			"rs:2+1",
			[1, 2, 3].map((id) => disk(id, 30 * mib, 60 * mib)),
		);
		assert.ok(even.levelFreeBytes - even.freeBytes < mib, "nothing to win where disks are even");
		const free = (disks: ReturnType<typeof withoutDisk>) => disks?.map((one) => [one.id, one.freeBytes, one.usedBytes]);
		assert.deepEqual(free(withoutDisk([disk(1, 5, 12), disk(2, 10, 1), disk(3, 4, 2), disk(4, 99, 0, false)], 1)), [
			[2, 1, 10],
			[3, 1, 5],
			[4, 99, 0],
		]);
		assert.deepEqual(free(withoutDisk([disk(1, 5, 3), disk(2, 10, 1), disk(3, 4, 2)], 1)), [
			[2, 7, 4],
			[3, 4, 2],
		]);
		assert.equal(withoutDisk([disk(1, 5, 15), disk(2, 10, 1), disk(3, 4, 2)], 1), undefined, "no room");
		assert.deepEqual(free(withoutDisk([disk(1, 5, 0), disk(2, 10, 1)], 1)), [[2, 10, 1]]);
	});
});
