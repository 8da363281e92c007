import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Prng } from "../platform/sim/prng.ts";
import type { FragmentPlace } from "../records/interface.ts";
import { balanceTargets, bestMove, toleratedBytes, unevenBytes } from "./balance.ts";
import type { DiskSpace } from "./space.ts";

interface Segment {
	readonly lengthBytes: number;
	readonly places: FragmentPlace[];
}

/** Disks and segments of one random world, and what a balancer does with them. */
class World {
	readonly disks: { id: number; domain: string; size: number }[];
	readonly segments: Segment[];
	readonly #random: Prng;

	constructor(seed: number) {
		const random = new Prng(seed, "balance");
		this.#random = random;
		const old = 3 + random.below(5);
		const added = random.below(4);
		this.disks = Array.from({ length: old + added }, (_, id) => ({ id, domain: `d${id}`, size: 2_000 + random.below(8_000) }));
		const width = 1 + random.below(Math.min(old, 6));
		this.segments = [];
		for (let at = 0; at < 400; at++) this.#place(old, width, at);
		for (let at = 0; at < this.segments.length; at++) if (random.chance(0.1)) this.segments.splice(at, 1);
	}

	#place(old: number, width: number, turn: number): void {
		const lengthBytes = 1 + this.#random.below(20);
		const roomy = this.disks.slice(0, old).filter((disk) => disk.size - this.used(disk.id) >= lengthBytes);
		roomy.sort((a, b) => ((a.id * 7 + turn) % old) - ((b.id * 7 + turn) % old));
		if (roomy.length < width) return;
		const places = roomy
			.slice(0, width)
			.map(({ id }, index) => ({ index, disk: id, generation: 1, pack: 1, offset: 0, headerChecksum: 0 }));
		this.segments.push({ lengthBytes, places });
	}

	used(disk: number): number {
		let sum = 0;
		for (const { lengthBytes, places } of this.segments) if (places.some((place) => place.disk === disk)) sum += lengthBytes;
		return sum;
	}

	get mostBytes(): number {
		return this.segments.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
	}

	spaces(): DiskSpace[] {
		return this.disks.map(({ id, domain, size }) => {
			const usedBytes = this.used(id);
			return { id, domain, writable: true, capacityBytes: size, usedBytes, freeBytes: size - usedBytes };
		});
	}

	/** One pass; answers the bytes moved. */
	pass(surplus: Map<number, number>, detourBytes: number | undefined, tolerance: number): number {
		let moved = 0;
		for (const { lengthBytes, places } of this.segments) {
			const move = bestMove(places, { lengthBytes, surplus, domainOf: (disk) => `d${disk}`, detourBytes });
			if (move === undefined) continue;
			if (detourBytes !== undefined && Math.max(...[move.from, move.to].map((id) => Math.abs(surplus.get(id) as number))) <= tolerance)
				continue;
			const at = places.findIndex(({ index }) => index === move.index);
			places[at] = { ...(places[at] as FragmentPlace), disk: move.to };
			assert.equal(new Set(places.map(({ disk }) => disk)).size, places.length, "N2");
			const square = (): number => [...surplus.values()].reduce((sum, one) => sum + one * one, 0);
			const before = square();
			surplus.set(move.from, (surplus.get(move.from) as number) - lengthBytes);
			surplus.set(move.to, (surplus.get(move.to) as number) + lengthBytes);
			assert(square() <= before - 2 * lengthBytes * lengthBytes, "N1");
			moved += lengthBytes;
		}
		return moved;
	}
}

describe("balance", () => {
	it("foretells what moves until the disks are as even as they have to be", () => {
		const disks = [1, 2, 3, 4, 5, 6].map((id) => ({ id, usedBytes: 120, freeBytes: 880, targetBytes: 100 }));
		const targets = [...disks, { id: 7, usedBytes: 0, freeBytes: 3000, targetBytes: 120 }];
		assert.equal(unevenBytes(targets), 120);
		assert.equal(
			toleratedBytes(targets, () => 0),
			120,
		);
		assert.equal(
			toleratedBytes(targets, (sizeBytes) => sizeBytes / 50),
			60,
		);
		assert.equal(
			toleratedBytes(targets, (sizeBytes) => sizeBytes / 100),
			90,
		);
		assert.equal(
			toleratedBytes(targets, (sizeBytes) => sizeBytes / 10),
			0,
		);
	});

	it("ends with all disks within two fragments of what they are to hold, and moves little more than has to move", () => {
		let even = 0;
		for (let seed = 1; seed <= 60; seed++) {
			const world = new World(seed);
			const targets = balanceTargets(world.spaces(), world.mostBytes);
			const total = targets.reduce((sum, { targetBytes }) => sum + targetBytes, 0);
			const used = targets.reduce((sum, { usedBytes }) => sum + usedBytes, 0);
			assert(Math.abs(total - used) <= targets.length, `seed ${seed}: all of it has a place: ${total} of ${used}`);
			const tolerance = 40;
			const surplus = new Map(targets.map(({ id, usedBytes, targetBytes }) => [id, usedBytes - targetBytes]));
			let moved = 0;
			for (let last = -1; last !== 0; ) {
				last = world.pass(surplus, undefined, tolerance);
				if (last === 0 && [...surplus.values()].some((one) => Math.abs(one) > tolerance)) last = world.pass(surplus, 0, tolerance);
				moved += last;
			}
			const worst = Math.max(...[...surplus.values()].map(Math.abs));
			assert(worst <= tolerance, `seed ${seed}: a disk is ${worst} from its target: ${[...surplus.values()].map(Math.round)}`);
			const least = unevenBytes(targets);
			assert(moved <= 1.5 * least + 100, `seed ${seed}: ${moved} moved, ${least} had to`);
			if (least > 100) even++;
			assert.equal(
				world.pass(
					new Map(balanceTargets(world.spaces(), world.mostBytes).map((one) => [one.id, one.usedBytes - one.targetBytes])),
					0,
					tolerance,
				),
				0,
				`seed ${seed}: nothing moves back`,
			);
		}
		assert(even > 20, "there was something to move");
	});

	it("gives no disk more than one fragment of each segment, however large it is", () => {
		const disks = [10, 10, 10, 100].map((size, id) => ({
			id,
			domain: `d${id}`,
			writable: true,
			capacityBytes: size,
			usedBytes: id < 3 ? 6 : 0,
			freeBytes: id < 3 ? size - 6 : size,
		}));
		const targets = balanceTargets(disks, 9);
		assert.deepEqual(
			targets.map(({ targetBytes }) => targetBytes),
			[3, 3, 3, 9],
		);
	});

	it("takes a full disk, an empty volume and a disk that cannot be written for what they are", () => {
		const disk = (id: number, usedBytes: number, freeBytes: number, writable = true): DiskSpace => ({
			id,
			domain: `d${id}`,
			writable,
			capacityBytes: 100,
			usedBytes,
			freeBytes,
		});
		assert.deepEqual(
			balanceTargets([disk(1, 100, 0), disk(2, 0, 100), disk(3, 50, 0, false)], 1000).map(({ targetBytes }) => targetBytes),
			[50, 50],
		);
		assert.equal(unevenBytes(balanceTargets([disk(1, 0, 7), disk(2, 0, 100)], 0)), 0);
		assert.deepEqual(balanceTargets([], 0), []);
	});
});
