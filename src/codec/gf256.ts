/** Arithmetic in GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1 (0x11d) and small matrices over it, rows of bytes. */
import { assert } from "../base/assert.ts";

const logs = new Uint8Array(256);
const powers = new Uint8Array(512);

for (let i = 0, value = 1; i < 255; i++) {
	powers[i] = value;
	powers[i + 255] = value;
	logs[value] = i;
	value <<= 1;
	if (value & 0x100) value ^= 0x11d;
}

export type Matrix = readonly Uint8Array[];

export function multiply(a: number, b: number): number {
	if (a === 0 || b === 0) return 0;
	return powers[(logs[a] as number) + (logs[b] as number)] as number;
}

export function inverse(a: number): number {
	assert(a !== 0, "zero has no inverse");
	return powers[255 - (logs[a] as number)] as number;
}

/** row += factor * other */
function addScaled(row: Uint8Array, other: Uint8Array, factor: number): void {
	for (let i = 0; i < row.length; i++) row[i] = (row[i] as number) ^ multiply(other[i] as number, factor);
}

/** Gauss-Jordan. The caller knows that the matrix has an inverse. */
export function invertMatrix(matrix: Matrix): Matrix {
	const size = matrix.length;
	const left: Uint8Array[] = matrix.map((row) => row.slice());
	const right: Uint8Array[] = matrix.map((_, index) => new Uint8Array(size).fill(1, index, index + 1));
	for (let column = 0; column < size; column++) {
		const pivot = left.findIndex((row, index) => index >= column && row[column] !== 0);
		assert(pivot >= 0, "matrix has no inverse");
		for (const side of [left, right]) {
			const row = side[pivot] as Uint8Array;
			side[pivot] = side[column] as Uint8Array;
			side[column] = row;
		}
		const scale = inverse((left[column] as Uint8Array)[column] as number);
		for (const side of [left, right]) {
			const row = side[column] as Uint8Array;
			for (let i = 0; i < size; i++) row[i] = multiply(row[i] as number, scale);
		}
		for (let other = 0; other < size; other++) {
			if (other === column) continue;
			const factor = (left[other] as Uint8Array)[column] as number;
			addScaled(left[other] as Uint8Array, left[column] as Uint8Array, factor);
			addScaled(right[other] as Uint8Array, right[column] as Uint8Array, factor);
		}
	}
	return right;
}

export function multiplyMatrices(a: Matrix, b: Matrix): Matrix {
	return a.map((row) => {
		const product = new Uint8Array((b[0] as Uint8Array).length);
		for (let i = 0; i < row.length; i++) addScaled(product, b[i] as Uint8Array, row[i] as number);
		return product;
	});
}
