import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Prng } from "../platform/sim/prng.ts";
import { PackAllocator } from "./allocator.ts";
import type { Position } from "./allocator.ts";

const block = 4096;
const packBlocks = 64;

/** A naive oracle: who owns each block of each pack. */
class Blocks {
	#owners = new Map<string, number>();

	take(position: Position, blocks: number, owner: number, what: string): void {
		for (const key of keys(position, blocks)) {
			assert.equal(this.#owners.get(key), undefined, `${what}: block ${key} is handed out twice`);
			this.#owners.set(key, owner);
		}
	}

	free(position: Position, blocks: number): void {
		for (const key of keys(position, blocks)) this.#owners.delete(key);
	}

	get taken(): number {
		return this.#owners.size;
	}

	isFree(pack: number, at: number): boolean {
		return !this.#owners.has(`${pack}:${at}`);
	}
}

function keys({ pack, offset }: Position, blocks: number): string[] {
	return Array.from({ length: blocks }, (_, i) => `${pack}:${offset / block + i}`);
}

function mapOf(allocator: PackAllocator): string {
	return allocator
		.packs()
		.filter((pack) => allocator.usedIn(pack) > 0)
		.map((pack) => `${pack}: ${JSON.stringify(allocator.gaps(pack, 0))}`)
		.join("\n");
}

function checkAround(
	allocator: PackAllocator,
	blocks: Blocks,
	{ position, blocks: size }: { readonly position: Position; readonly blocks: number },
	what: string,
): void {
	const first = position.offset / block;
	let before = 0;
	let after = 0;
	while (first - before > 0 && blocks.isFree(position.pack, first - before - 1)) before++;
	while (first + size + after < packBlocks && blocks.isFree(position.pack, first + size + after)) after++;
	assert.deepEqual(allocator.freeAround(position, size * block), { before: before * block, after: after * block }, what);
}

describe("pack allocator", () => {
	for (let seed = 1; seed <= 8; seed++) {
		it(`never hands out a block twice and is rebuilt from its places (seed ${seed})`, () => {
			const random = new Prng(seed, "allocator");
			const allocator = new PackAllocator(packBlocks * block);
			const blocks = new Blocks();
			const live: { position: Position; blocks: number }[] = [];
			for (let step = 0; step < 1500; step++) {
				const what = `seed ${seed}, step ${step}`;
				if (live.length === 0 || random.chance(step % 300 < 200 ? 0.6 : 0.3)) {
					const size = 1 + random.below(random.chance(0.1) ? packBlocks : 12);
					const position = allocator.allocate(size * block);
					assert.ok(position.offset + size * block <= packBlocks * block, what);
					blocks.take(position, size, step, what);
					live.push({ position, blocks: size });
				} else {
					const [gone] = live.splice(random.below(live.length), 1) as [(typeof live)[number]];
					assert.equal(allocator.free(gone.position, gone.blocks * block), true);
					blocks.free(gone.position, gone.blocks);
				}
				assert.equal(allocator.usedBytes, blocks.taken * block, what);
				const pack = random.pick(allocator.packs());
				if (allocator.usedIn(pack) === 0 && random.chance(0.5)) allocator.forget(pack);
				if (step % 100 === 0) checkGaps(allocator, blocks, what);
				if (live.length > 0) checkAround(allocator, blocks, random.pick(live), what);
			}
			const again = new PackAllocator(packBlocks * block);
			for (const { position, blocks: size } of shuffled(live, random)) assert.equal(again.take(position, size * block), true);
			assert.equal(mapOf(again), mapOf(allocator), `seed ${seed}`);
			assert.equal(again.usedBytes, allocator.usedBytes);
		});
	}

	it("keeps what two claim, and says so", () => {
		const allocator = new PackAllocator(packBlocks * block);
		const first = { pack: 3, offset: 8 * block };
		const second = { pack: 3, offset: 10 * block };
		assert.equal(allocator.take(first, 4 * block), true);
		assert.equal(allocator.take(second, 4 * block), false);
		assert.equal(allocator.usedBytes, 6 * block);
		assert.equal(allocator.free(first, 4 * block), false);
		assert.equal(allocator.free(second, 4 * block), false);
		assert.equal(allocator.usedBytes, 6 * block);
		for (let i = 0; i < 58; i++) {
			const { pack, offset } = allocator.allocate(block);
			assert.ok(pack === 3 && (offset < 8 * block || offset >= 14 * block), `${pack} ${offset}`);
		}
		assert.equal(allocator.allocate(block).pack, 4);
	});

	it("refuses places that cannot be and frees nothing twice", () => {
		const allocator = new PackAllocator(packBlocks * block);
		const impossible = [
			{ pack: 1, offset: 63 * block },
			{ pack: 1, offset: 100 },
			{ pack: 0, offset: 0 },
			{ pack: 1.5, offset: 0 },
			{ pack: 1, offset: -block },
			{ pack: 100_000_000, offset: 0 },
		];
		for (const position of impossible) assert.equal(allocator.take(position, 2 * block), false, JSON.stringify(position));
		assert.equal(allocator.usedBytes, 0);
		const position = allocator.allocate(2 * block);
		allocator.free(position, 2 * block);
		assert.throws(() => allocator.free(position, 2 * block), /freed once/);
		assert.throws(() => allocator.free({ pack: 9, offset: 0 }, block), /pack 9/);
		assert.throws(() => allocator.allocate(packBlocks * block + block), /fits into a pack/);
	});

	it("puts neighbours in time side by side, then fills the fullest pack", () => {
		const allocator = new PackAllocator(packBlocks * block);
		const offsets = [10, 10, 10].map((size) => allocator.allocate(size * block).offset / block);
		assert.deepEqual(offsets, [0, 10, 20]);
		assert.equal(allocator.allocate(60 * block).pack, 2);
		assert.deepEqual(allocator.allocate(4 * block), { pack: 2, offset: 60 * block });
		assert.deepEqual(allocator.allocate(30 * block), { pack: 1, offset: 30 * block });
		allocator.seen(77);
		assert.equal(allocator.allocate(50 * block).pack, 78);
	});
});

function checkGaps(allocator: PackAllocator, blocks: Blocks, what: string): void {
	for (const pack of allocator.packs()) {
		const free = new Set<number>();
		let before = -1;
		for (const gap of allocator.gaps(pack, 0)) {
			assert.ok(gap.offset / block > before, `${what}: gaps are sorted and do not touch`);
			before = (gap.offset + gap.length) / block;
			for (let at = gap.offset / block; at < before; at++) free.add(at);
		}
		for (let at = 0; at < packBlocks; at++) {
			assert.equal(free.has(at), blocks.isFree(pack, at), `${what}: block ${at} of pack ${pack}`);
			assert.equal(allocator.isFree({ pack, offset: at * block }, block), blocks.isFree(pack, at), what);
		}
	}
}

function shuffled<T>(items: readonly T[], random: Prng): T[] {
	const copy = [...items];
	for (let i = copy.length - 1; i > 0; i--) {
		const j = random.below(i + 1);
		[copy[i], copy[j]] = [copy[j] as T, copy[i] as T];
	}
	return copy;
}
