import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { pickCutStyle, SimFile } from "./file.ts";
import { sectorBytes } from "./limits.ts";
import { Prng } from "./prng.ts";

const maxBytes = 40_000;

/** All that a file ever was since its last sync, as plain arrays. */
class Model {
	versions: Uint8Array[] = [new Uint8Array(0)];

	get now(): Uint8Array {
		return this.versions.at(-1) as Uint8Array;
	}

	write(offset: number, bytes: Uint8Array): void {
		const next = new Uint8Array(Math.max(this.now.length, offset + bytes.length));
		next.set(this.now);
		next.set(bytes, offset);
		this.versions.push(next);
	}

	punch(offset: number, length: number): void {
		const next = this.now.slice();
		next.fill(0, offset, offset + length);
		this.versions.push(next);
	}

	truncate(size: number): void {
		const next = new Uint8Array(size);
		next.set(this.now.subarray(0, size));
		this.versions.push(next);
	}
}

function change(file: SimFile, model: Model, random: Prng): void {
	const offset = random.below(maxBytes);
	const length = random.below(random.chance(0.2) ? maxBytes - offset + 1 : 1000);
	const kind = random.below(10);
	if (kind < 7) {
		const bytes = random.chance(0.2) ? new Uint8Array(length) : random.bytes(length);
		if (length > 0) model.write(offset, bytes);
		file.write(offset, bytes.length, bytes.slice());
	} else if (kind < 9) {
		model.punch(offset, length);
		file.punch(offset, length);
	} else {
		model.truncate(offset);
		file.truncate(offset);
	}
}

function contents(file: SimFile): Uint8Array {
	return file.read(0, maxBytes * 2);
}

/** The sector of a version, as long as the file that came out of the cut has it. */
function sectorOf(bytes: Uint8Array, at: number, lengthBytes: number): string {
	const sector = new Uint8Array(lengthBytes);
	sector.set(bytes.subarray(at, at + lengthBytes));
	return Buffer.from(sector).toString("latin1");
}

function checkCut(after: Uint8Array, versions: readonly Uint8Array[], what: string): void {
	assert.ok(
		versions.some((version) => version.length === after.length),
		`${what}: size ${after.length} was never there`,
	);
	for (let at = 0; at < after.length; at += sectorBytes) {
		const length = Math.min(sectorBytes, after.length - at);
		const sector = sectorOf(after, at, length);
		assert.ok(
			versions.some((version) => sectorOf(version, at, length) === sector),
			`${what}: sector at ${at} is none that ever was`,
		);
	}
}

describe("sim file", () => {
	it("shows what a plain array shows", () => {
		for (let seed = 1; seed <= 40; seed++) {
			const random = new Prng(seed, "file");
			const file = new SimFile();
			const model = new Model();
			for (let i = 0; i < 60; i++) {
				change(file, model, random);
				if (random.chance(0.1)) file.sync();
				assert.equal(file.size, model.now.length, `seed ${seed}, change ${i}`);
				if (i % 5 === 0) assert.deepEqual(contents(file), model.now, `seed ${seed}, change ${i}`);
			}
			assert.deepEqual(contents(file), model.now, `seed ${seed}`);
		}
	});

	it("after a power cut every sector and the size are some that were there since the last sync, and a sync makes all of it sure", () => {
		let changed = 0;
		for (let seed = 1; seed <= 300; seed++) {
			const random = new Prng(seed, "cut");
			const file = new SimFile();
			const model = new Model();
			for (let round = 0; round < 4; round++) {
				for (let i = 0; i < 6; i++) change(file, model, random);
				if (random.chance(0.5)) {
					file.sync();
					model.versions = [model.now];
				}
				for (let i = random.below(4); i > 0; i--) change(file, model, random);
				file.powerCut(pickCutStyle(random), random);
				const after = contents(file);
				checkCut(after, model.versions, `seed ${seed}, round ${round}`);
				if (Buffer.compare(after, model.now) !== 0) changed++;
				model.versions = [after];
			}
		}
		assert.ok(changed > 200, `only ${changed} cuts lost something`);
	});

	it("a cut without pending changes changes nothing, and a snapshot is not touched by what follows", () => {
		const random = new Prng(9, "snapshot");
		const file = new SimFile();
		file.write(0, 10_000, random.bytes(10_000));
		file.sync();
		const before = contents(file);
		file.powerCut(pickCutStyle(random), random);
		assert.deepEqual(contents(file), before);
		const copy = file.snapshot();
		file.write(100, 5000, random.bytes(5000));
		file.damage(0, 10, (old) => old ^ 1);
		file.sync();
		assert.deepEqual(contents(copy), before);
		copy.powerCut(pickCutStyle(random), random);
		assert.deepEqual(contents(copy), before);
	});
});
