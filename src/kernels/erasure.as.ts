/**
 * Matrix times vectors over GF(2^8), polynomial 0x11d, 16 bytes at a time (AssemblyScript, not TypeScript).
 *
 * A product with a constant is two table look-ups: one for the low nibble of each byte, one for the high nibble;
 * `i8x16.swizzle` does sixteen at once. Two rows and two columns are worked on together: their eight tables stay in registers,
 * and a target is loaded and stored half as often. The memory is laid out by src/codec/erasure.ts: tables of 32 bytes (low 16,
 * high 16) in row-major order, sources and targets in tiles at a fixed distance, so that all of it stays in the inner caches.
 */

/** target[r] = sum over c of coefficient[r][c] * source[c], for rows r and columns c; `length` is a multiple of 16. */
export function multiply(tables: usize, sources: usize, targets: usize, stride: usize, rows: u32, columns: u32, length: usize): void {
	for (let row: u32 = 0; row < rows; row += 2) {
		const a = tables + ((row * columns) << 5);
		const target = targets + row * stride;
		const next: bool = row + 1 < rows;
		const b = a + (columns << 5);
		const other = target + stride;
		let column: u32 = 0;
		for (; column + 2 <= columns; column += 2) {
			const offset: usize = column << 5;
			if (next) pair(a + offset, b + offset, sources + column * stride, target, other, stride, length, column == 0);
			else pairOneRow(a + offset, sources + column * stride, target, stride, length, column == 0);
		}
		if (column < columns) {
			const offset: usize = column << 5;
			single(a + offset, sources + column * stride, target, length, column == 0);
			if (next) single(b + offset, sources + column * stride, other, length, column == 0);
		}
	}
}

// @ts-ignore: decorator
@inline
function product(low: v128, high: v128, lowNibbles: v128, highNibbles: v128): v128 {
	return v128.xor(i8x16.swizzle(low, lowNibbles), i8x16.swizzle(high, highNibbles));
}

function pair(a: usize, b: usize, source: usize, first: usize, second: usize, stride: usize, length: usize, fresh: bool): void {
	const nibble = i8x16.splat(0x0f);
	const a0Low = v128.load(a);
	const a0High = v128.load(a, 16);
	const a1Low = v128.load(a, 32);
	const a1High = v128.load(a, 48);
	const b0Low = v128.load(b);
	const b0High = v128.load(b, 16);
	const b1Low = v128.load(b, 32);
	const b1High = v128.load(b, 48);
	const source1 = source + stride;
	for (let at: usize = 0; at < length; at += 16) {
		let bytes = v128.load(source + at);
		let low = v128.and(bytes, nibble);
		let high = v128.and(i16x8.shr_u(bytes, 4), nibble);
		let sumA = product(a0Low, a0High, low, high);
		let sumB = product(b0Low, b0High, low, high);
		bytes = v128.load(source1 + at);
		low = v128.and(bytes, nibble);
		high = v128.and(i16x8.shr_u(bytes, 4), nibble);
		sumA = v128.xor(sumA, product(a1Low, a1High, low, high));
		sumB = v128.xor(sumB, product(b1Low, b1High, low, high));
		if (!fresh) {
			sumA = v128.xor(sumA, v128.load(first + at));
			sumB = v128.xor(sumB, v128.load(second + at));
		}
		v128.store(first + at, sumA);
		v128.store(second + at, sumB);
	}
}

function pairOneRow(a: usize, source: usize, target: usize, stride: usize, length: usize, fresh: bool): void {
	const nibble = i8x16.splat(0x0f);
	const a0Low = v128.load(a);
	const a0High = v128.load(a, 16);
	const a1Low = v128.load(a, 32);
	const a1High = v128.load(a, 48);
	const source1 = source + stride;
	for (let at: usize = 0; at < length; at += 16) {
		const bytes = v128.load(source + at);
		const bytes1 = v128.load(source1 + at);
		let sum = product(a0Low, a0High, v128.and(bytes, nibble), v128.and(i16x8.shr_u(bytes, 4), nibble));
		sum = v128.xor(sum, product(a1Low, a1High, v128.and(bytes1, nibble), v128.and(i16x8.shr_u(bytes1, 4), nibble)));
		if (!fresh) sum = v128.xor(sum, v128.load(target + at));
		v128.store(target + at, sum);
	}
}

function single(a: usize, source: usize, target: usize, length: usize, fresh: bool): void {
	const nibble = i8x16.splat(0x0f);
	const low = v128.load(a);
	const high = v128.load(a, 16);
	for (let at: usize = 0; at < length; at += 16) {
		const bytes = v128.load(source + at);
		let sum = product(low, high, v128.and(bytes, nibble), v128.and(i16x8.shr_u(bytes, 4), nibble));
		if (!fresh) sum = v128.xor(sum, v128.load(target + at));
		v128.store(target + at, sum);
	}
}
