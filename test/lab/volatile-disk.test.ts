import assert from "node:assert/strict";
import { test } from "node:test";
import { randomOf } from "../crash/kill-model.ts";
import { cutModes, sectorBytes, VolatileDisk } from "./volatile-disk.ts";

const sectors = 64;

function memory(): { bytes: Buffer; disk: VolatileDisk } {
	const bytes = Buffer.alloc(sectors * sectorBytes);
	const disk = new VolatileDisk({
		read: (offset, into) => bytes.copy(into, 0, offset, offset + into.length),
		write: (offset, from) => bytes.set(from, offset),
	});
	return { bytes, disk };
}

/** Against a naive model that keeps, for each sector, every value that it may have after a power cut. */
test("random writes, flushes and power cuts: reads see the newest, a cut leaves what may be left", () => {
	const seed = Date.now() % 1_000_000;
	const random = randomOf(seed);
	const { disk } = memory();
	let newest: number[] = Array(sectors).fill(0);
	let possible: Set<number>[] = newest.map((value) => new Set([value]));
	let lost = 0;
	const look = (): number[] => {
		const bytes = disk.read(0, sectors * sectorBytes);
		return newest.map((_, sector) => bytes[sector * sectorBytes + 17] as number);
	};
	for (let step = 1; step < 3000; step++) {
		const kind = random(40);
		const first = random(sectors);
		const count = 1 + random(sectors - first);
		if (kind < 30) {
			const forced = random(6) === 0;
			disk.write(first * sectorBytes, Buffer.alloc(count * sectorBytes, step % 256), forced);
			for (let sector = first; sector < first + count; sector++) {
				newest[sector] = step % 256;
				if (forced) possible[sector] = new Set();
				possible[sector]?.add(step % 256);
			}
		} else if (kind < 36) {
			disk.flush();
			possible = newest.map((value) => new Set([value]));
		} else {
			const mode = cutModes[random(cutModes.length)] as (typeof cutModes)[number];
			lost += disk.powerCut(mode, random).lostWrites;
			newest = look();
			for (const [sector, value] of newest.entries())
				assert.ok(possible[sector]?.has(value), `seed ${seed}, step ${step}, ${mode}: sector ${sector} holds ${value}`);
			possible = newest.map((value) => new Set([value]));
		}
		assert.deepEqual(look(), newest, `seed ${seed}, step ${step}`);
	}
	assert.ok(lost > 0, "some writes were lost");
});

test("what was flushed or forced is in the store; the rest is lost when nothing arrives", () => {
	const { bytes, disk } = memory();
	disk.write(0, Buffer.alloc(sectorBytes, 1));
	disk.flush();
	disk.write(0, Buffer.alloc(2 * sectorBytes, 2));
	disk.write(3 * sectorBytes, Buffer.alloc(sectorBytes, 3), true);
	assert.deepEqual(disk.powerCut("nothing", randomOf(1)), { lostWrites: 1, tornWrites: 0, keptWrites: 0, lostBytes: 2 * sectorBytes });
	assert.deepEqual(
		[0, 1, 2, 3].map((sector) => bytes[sector * sectorBytes]),
		[1, 0, 0, 3],
	);
});
