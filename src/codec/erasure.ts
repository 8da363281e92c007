/**
 * Systematic Reed-Solomon: the first k shards are the data, the m others are Cauchy combinations of them.
 *
 * Invariants:
 * 1. The generator is part of the on-disk format: element (r, c) is 1 / ((k + r) ^ c), every column scaled so that row 0 is all
 *    ones and then every row so that column 0 is all ones. Scaling keeps every square part invertible, makes the first parity a
 *    plain XOR and, with k = 1, makes parities copies.
 * 2. No input is changed, and nothing of a call stays behind that a later call could see: tiles are overwritten before they are read.
 */
import { assert } from "../base/assert.ts";
import { alignDown } from "../base/bytes.ts";
import { erasureWasm } from "../kernels/erasure.wasm.ts";
import { inverse, invertMatrix, type Matrix, multiply, multiplyMatrices } from "./gf256.ts";
import type { ErasureCode } from "./interface.ts";
import { erasureSourceBytes, erasureTargetBytes, erasureTileBytes, maximumDataShards, maximumParityShards } from "./limits.ts";

interface Kernel {
	readonly memory: { readonly buffer: ArrayBuffer };
	multiply(tables: number, sources: number, targets: number, stride: number, rows: number, columns: number, length: number): void;
}

// The kernel's memory: tables for encoding, tables of the reconstruction under way, tiles of sources, tiles of targets.
const tableBytes = maximumParityShards * maximumDataShards * 32;
const encodeTables = 1024;
const decodeTables = encodeTables + tableBytes;
const sourceTiles = decodeTables + tableBytes;
const targetTiles = sourceTiles + erasureSourceBytes;
const kernelBytes = targetTiles + erasureTargetBytes;

// Node's types describe the language without the web: what is used of WebAssembly is declared here.
declare const WebAssembly: {
	readonly Module: new (bytes: Uint8Array) => object;
	readonly Instance: new (module: object) => { readonly exports: unknown };
};

function instantiate(): Kernel {
	const bytes = Uint8Array.from(atob(erasureWasm), (char) => char.charCodeAt(0));
	const kernel = new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports as Kernel;
	assert(kernel.memory.buffer.byteLength >= kernelBytes, "memory of the erasure kernel is too small");
	return kernel;
}

/** The m rows of the generator below the identity. */
export function parityMatrix(dataShards: number, parityShards: number): Matrix {
	const rows = Array.from({ length: parityShards }, (_, row) =>
		Uint8Array.from({ length: dataShards }, (_, column) => inverse((dataShards + row) ^ column)),
	);
	const scales = (rows[0] as Uint8Array).map((value) => inverse(value));
	return rows.map((row) => {
		const scaled = row.map((value, column) => multiply(value, scales[column] as number));
		const first = inverse(scaled[0] as number);
		return scaled.map((value) => multiply(value, first));
	});
}

function writeTables(memory: Uint8Array, at: number, matrix: Matrix): void {
	for (const row of matrix) {
		for (const factor of row) {
			for (let nibble = 0; nibble < 16; nibble++) {
				memory[at + nibble] = multiply(factor, nibble);
				memory[at + 16 + nibble] = multiply(factor, nibble << 4);
			}
			at += 32;
		}
	}
}

class ReedSolomon implements ErasureCode {
	readonly dataShards: number;
	readonly parityShards: number;
	readonly #parity: Matrix;
	readonly #kernel: Kernel;
	readonly #memory: Uint8Array;
	readonly #tileBytes: number;

	constructor(dataShards: number, parityShards: number) {
		this.dataShards = dataShards;
		this.parityShards = parityShards;
		this.#parity = parityMatrix(dataShards, parityShards);
		this.#kernel = instantiate();
		this.#memory = new Uint8Array(this.#kernel.memory.buffer);
		const roomBytes = Math.min(erasureSourceBytes / dataShards, erasureTargetBytes / parityShards);
		this.#tileBytes = Math.min(erasureTileBytes, alignDown(roomBytes, 4096));
		writeTables(this.#memory, encodeTables, this.#parity);
	}

	encode(data: readonly Uint8Array[], parity: readonly Uint8Array[]): void {
		assert(data.length === this.dataShards && parity.length === this.parityShards, "number of shards");
		const length = (data[0] as Uint8Array).length;
		checkLengths(length, [...data, ...parity]);
		this.#combine(encodeTables, data, parity, length);
	}

	recover(present: readonly number[], sources: readonly Uint8Array[], wanted: readonly number[], targets: readonly Uint8Array[]): void {
		assert(present.length === this.dataShards && sources.length === present.length, "as many sources as data shards");
		assert(wanted.length === targets.length, "a target for each shard that is wanted");
		const isEncoding = wanted.length === this.parityShards && wanted.every((index, at) => index === this.dataShards + at);
		if (isEncoding && present.every((index, at) => index === at)) this.encode(sources, targets);
		else if (wanted.length > 0) this.#recover(present, sources, wanted, targets);
	}

	#recover(present: readonly number[], sources: readonly Uint8Array[], wanted: readonly number[], targets: readonly Uint8Array[]): void {
		assert(wanted.length <= this.parityShards, `${wanted.length} shards to be made, ${this.parityShards} at the most`);
		const length = (sources[0] as Uint8Array).length;
		checkLengths(length, [...sources, ...targets]);
		// Rows of the generator: what is there = G_present * data, so wanted = G_wanted * G_present^-1 * what is there.
		const decode = invertMatrix(present.map((index) => this.#generatorRow(index)));
		const matrix = multiplyMatrices(
			wanted.map((index) => this.#generatorRow(index)),
			decode,
		);
		writeTables(this.#memory, decodeTables, matrix);
		this.#combine(decodeTables, sources, targets, length);
	}

	reconstruct(shards: readonly (Uint8Array | undefined)[], wanted: readonly number[]): Uint8Array[] {
		assert(shards.length === this.dataShards + this.parityShards, "number of shards");
		const present = shards.flatMap((shard, index) => (shard ? [index] : [])).slice(0, this.dataShards);
		assert(present.length === this.dataShards, `${present.length} shards left, ${this.dataShards} needed`);
		const sources = present.map((index) => shards[index] as Uint8Array);
		const length = (sources[0] as Uint8Array).length;
		checkLengths(
			length,
			shards.filter((shard) => shard !== undefined),
		);
		const lost = [...new Set(wanted)].filter((index) => !shards[index]);
		const made = new Map(lost.map((index) => [index, new Uint8Array(length)]));
		this.recover(present, sources, lost, [...made.values()]);
		return wanted.map((index, at) => {
			assert(Number.isInteger(index) && index >= 0 && index < shards.length, `no shard ${index}`);
			const bytes = shards[index] ?? (made.get(index) as Uint8Array);
			// Nobody else has what was made for the first who wants it.
			return made.has(index) && wanted.indexOf(index) === at ? bytes : bytes.slice();
		});
	}

	#generatorRow(index: number): Uint8Array {
		if (index < this.dataShards) return new Uint8Array(this.dataShards).fill(1, index, index + 1);
		const row = this.#parity[index - this.dataShards];
		assert(row, `no shard ${index}`);
		return row;
	}

	#combine(tables: number, sources: readonly Uint8Array[], targets: readonly Uint8Array[], length: number): void {
		const memory = this.#memory;
		const stride = this.#tileBytes;
		for (let at = 0; at < length; at += stride) {
			const tile = Math.min(stride, length - at);
			for (let i = 0; i < sources.length; i++) memory.set((sources[i] as Uint8Array).subarray(at, at + tile), sourceTiles + i * stride);
			this.#kernel.multiply(tables, sourceTiles, targetTiles, stride, targets.length, sources.length, tile);
			for (let i = 0; i < targets.length; i++) {
				const from = targetTiles + i * stride;
				(targets[i] as Uint8Array).set(memory.subarray(from, from + tile), at);
			}
		}
	}
}

function checkLengths(length: number, shards: readonly Uint8Array[]): void {
	assert(length % 16 === 0, `shards of ${length} bytes: not a multiple of 16`);
	for (const shard of shards) assert(shard.length === length, `shards of ${length} and ${shard.length} bytes in one segment`);
}

// Below platform/: a cache of pure tables, so that every caller of one shape shares one kernel.
const codes = new Map<string, ErasureCode>();

/** The code of k data and m parity shards, one per shape. */
export function createErasureCode(dataShards: number, parityShards: number): ErasureCode {
	const valid = (value: number, most: number) => Number.isInteger(value) && value >= 1 && value <= most;
	assert(valid(dataShards, maximumDataShards) && valid(parityShards, maximumParityShards), `no code of ${dataShards}+${parityShards}`);
	const key = `${dataShards}+${parityShards}`;
	const existing = codes.get(key);
	if (existing) return existing;
	const code = new ReedSolomon(dataShards, parityShards);
	codes.set(key, code);
	return code;
}
