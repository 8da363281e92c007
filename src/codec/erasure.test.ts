import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, test } from "node:test";
import { AssertionError } from "../base/assert.ts";
import { createErasureCode, parityMatrix } from "./erasure.ts";
import { inverse, invertMatrix, multiply, multiplyMatrices } from "./gf256.ts";

/** Product in the field by shift and add: nothing in common with the tables under test. */
function slowMultiply(a: number, b: number): number {
	let product = 0;
	for (let bit = 7; bit >= 0; bit--) {
		product <<= 1;
		if (product & 0x100) product ^= 0x11d;
		if ((b >> bit) & 1) product ^= a;
	}
	return product;
}

function slowEncode(data: readonly Uint8Array[], parityShards: number): Uint8Array[] {
	return parityMatrix(data.length, parityShards).map((row) => {
		const parity = new Uint8Array((data[0] as Uint8Array).length);
		for (let i = 0; i < parity.length; i++) {
			for (let column = 0; column < data.length; column++) {
				parity[i] = (parity[i] as number) ^ slowMultiply(row[column] as number, (data[column] as Uint8Array)[i] as number);
			}
		}
		return parity;
	});
}

function randomBytes(lengthBytes: number, seed: number): Uint8Array {
	let state = seed >>> 0 || 1;
	return new Uint8Array(lengthBytes).map(() => {
		state ^= state << 13;
		state ^= state >>> 17;
		state ^= state << 5;
		return state & 255;
	});
}

/** All subsets of 0..count-1 with at most `most` members. */
function subsets(count: number, most: number): number[][] {
	const all: number[][] = [[]];
	for (let index = 0; index < count; index++) {
		for (const subset of all.slice()) if (subset.length < most) all.push([...subset, index]);
	}
	return all;
}

const shapes: readonly (readonly [number, number])[] = [
	[4, 2],
	[2, 1],
	[8, 3],
	[1, 1],
	[1, 2],
	[2, 2],
	[3, 2],
	[5, 3],
];

describe("erasure code", () => {
	test("the field: products, inverses, matrices", () => {
		for (let a = 0; a < 256; a++) {
			for (let b = 0; b < 256; b++) assert.equal(multiply(a, b), slowMultiply(a, b), `${a} * ${b}`);
			if (a > 0) assert.equal(multiply(a, inverse(a)), 1);
		}
		const matrix = [
			[1, 2, 3],
			[4, 5, 6],
			[7, 8, 10],
		].map((row) => Uint8Array.from(row));
		const identity = [
			[1, 0, 0],
			[0, 1, 0],
			[0, 0, 1],
		].map((row) => Uint8Array.from(row));
		assert.deepEqual(multiplyMatrices(matrix, invertMatrix(matrix)), identity);
		assert.throws(() => invertMatrix([Uint8Array.of(1, 2), Uint8Array.of(1, 2)]), AssertionError);
	});

	for (const [k, m] of shapes) {
		test(`${k}+${m}: every pattern of up to ${m} losses`, () => {
			const code = createErasureCode(k, m);
			// Two tiles and an odd rest.
			const length = 2 * 8192 + 48;
			const data = Array.from({ length: k }, (_, i) => randomBytes(length, 1000 * k + i + 1));
			const parity = Array.from({ length: m }, () => new Uint8Array(length).fill(0xee));
			code.encode(data, parity);
			assert.deepEqual(parity, slowEncode(data, m));
			const whole = [...data, ...parity];
			for (const lost of subsets(k + m, m)) {
				const left = whole.map((shard, index) => (lost.includes(index) ? undefined : shard));
				assert.deepEqual(
					code.reconstruct(left, lost),
					lost.map((index) => whole[index]),
					`lost ${lost}`,
				);
			}
		});
	}

	test("widest shape 32+8: the worst losses, and every 8 parity rows alone", () => {
		const code = createErasureCode(32, 8);
		const data = Array.from({ length: 32 }, (_, i) => randomBytes(64, i + 77));
		const parity = Array.from({ length: 8 }, () => new Uint8Array(64));
		code.encode(data, parity);
		const whole = [...data, ...parity];
		for (let start = 0; start < 40; start++) {
			const lost = Array.from({ length: 8 }, (_, i) => (start + i * 5) % 40);
			const left = whole.map((shard, index) => (lost.includes(index) ? undefined : shard));
			assert.deepEqual(
				code.reconstruct(left, lost),
				lost.map((index) => whole[index]),
				`lost ${lost}`,
			);
		}
	});

	test("the generator is part of the disk format", () => {
		assert.deepEqual(
			parityMatrix(4, 2).map((row) => [...row]),
			[
				[1, 1, 1, 1],
				[1, 217, 92, 172],
			],
		);
		assert.deepEqual(
			parityMatrix(1, 3).map((row) => [...row]),
			[[1], [1], [1]],
		);
		const print = createHash("sha256");
		for (let k = 1; k <= 32; k++) for (let m = 1; m <= 8; m++) for (const row of parityMatrix(k, m)) print.update(row);
		assert.equal(print.digest("hex"), "904b13b8cb960de99cf0638fe70291fcc9738c1efccfac2fad6b54bad1dcc35c");
	});

	test("every square part of every generator has an inverse (up to 8+3)", () => {
		const matrix = parityMatrix(8, 3);
		for (const rows of subsets(3, 3)) {
			for (const columns of subsets(8, rows.length)) {
				if (columns.length !== rows.length) continue;
				invertMatrix(rows.map((row) => Uint8Array.from(columns, (column) => matrix[row]?.[column] as number)));
			}
		}
	});

	test("one data shard: parities are copies", () => {
		const data = randomBytes(4096, 5);
		const parity = [new Uint8Array(4096), new Uint8Array(4096)];
		createErasureCode(1, 2).encode([data], parity);
		assert.deepEqual(parity, [data, data]);
	});

	test("subarrays and shared memory, inputs unchanged, results are the caller's own", () => {
		const code = createErasureCode(2, 1);
		const shared = new Uint8Array(new SharedArrayBuffer(3 * 64 + 8));
		shared.set(randomBytes(shared.length, 9));
		const before = shared.slice();
		const [a, b, p] = [shared.subarray(8, 72), shared.subarray(72, 136), shared.subarray(136, 200)];
		code.encode([a, b], [p]);
		assert.deepEqual(shared.slice(0, 136), before.slice(0, 136));
		const [again, other] = code.reconstruct([undefined, b, p], [0, 1]) as [Uint8Array, Uint8Array];
		assert.deepEqual(again, a.slice());
		assert.deepEqual(other, b.slice());
		other.fill(0);
		assert.deepEqual(b.slice(), before.slice(72, 136));
	});

	test("empty shards are fine", () => {
		const none = new Uint8Array(0);
		createErasureCode(4, 2).encode([none, none, none, none], [none, none]);
		assert.deepEqual(createErasureCode(2, 1).reconstruct([none, undefined, none], [1]), [none]);
	});

	test("what cannot be is refused", () => {
		const code = createErasureCode(2, 1);
		const shard = new Uint8Array(16);
		assert.throws(() => createErasureCode(0, 1), AssertionError);
		assert.throws(() => createErasureCode(33, 1), AssertionError);
		assert.throws(() => createErasureCode(4, 9), AssertionError);
		assert.throws(() => createErasureCode(2.5, 1), AssertionError);
		assert.throws(() => code.encode([shard], [shard]), AssertionError);
		assert.throws(() => code.encode([shard, new Uint8Array(32)], [shard]), AssertionError);
		assert.throws(() => code.encode([new Uint8Array(15), new Uint8Array(15)], [new Uint8Array(15)]), AssertionError);
		assert.throws(() => code.reconstruct([shard, undefined, undefined], [1]), AssertionError);
		assert.throws(() => code.reconstruct([shard, shard, undefined], [3]), AssertionError);
		assert.throws(() => code.reconstruct([shard, shard, undefined], [-1]), AssertionError);
	});
});
