import assert from "node:assert/strict";
import { test } from "node:test";
import { toHex } from "../base/bytes.ts";
import { sipHash } from "./siphash.ts";

/** SipHash-2-4 with 64 bits, written down from the paper's pseudocode with BigInt. */
function reference(key: Uint8Array, message: Uint8Array): string {
	const mask = (1n << 64n) - 1n;
	const word = (bytes: Uint8Array, at: number): bigint => {
		let value = 0n;
		for (let i = 7; i >= 0; i--) value = (value << 8n) | BigInt(bytes[at + i] ?? 0);
		return value;
	};
	const rotate = (value: bigint, by: bigint): bigint => ((value << by) | (value >> (64n - by))) & mask;
	const [k0, k1] = [word(key, 0), word(key, 8)];
	let [a, b, c, d] = [k0 ^ 0x736f6d6570736575n, k1 ^ 0x646f72616e646f6dn, k0 ^ 0x6c7967656e657261n, k1 ^ 0x7465646279746573n];
	const round = (): void => {
		a = (a + b) & mask;
		b = rotate(b, 13n) ^ a;
		a = rotate(a, 32n);
		c = (c + d) & mask;
		d = rotate(d, 16n) ^ c;
		a = (a + d) & mask;
		d = rotate(d, 21n) ^ a;
		c = (c + b) & mask;
		b = rotate(b, 17n) ^ c;
		c = rotate(c, 32n);
	};
	const padded = new Uint8Array((message.length & ~7) + 8);
	padded.set(message);
	padded[padded.length - 1] = message.length & 255;
	for (let at = 0; at < padded.length; at += 8) {
		const m = word(padded, at);
		d ^= m;
		round();
		round();
		a ^= m;
	}
	c ^= 0xffn;
	for (let i = 0; i < 4; i++) round();
	const bytes = new Uint8Array(8);
	new DataView(bytes.buffer).setBigUint64(0, a ^ b ^ c ^ d, true);
	return toHex(bytes);
}

const key = Uint8Array.from({ length: 16 }, (_, i) => i);

test("the vectors of the paper", () => {
	const of = (length: number): string =>
		toHex(
			sipHash(
				key,
				Uint8Array.from({ length }, (_, i) => i),
			),
		);
	assert.equal(of(0), "310e0edd47db6f72");
	assert.equal(of(1), "fd67dc93c539f874");
	assert.equal(of(15), "e545be4961ca29a1");
});

test("every length up to 100, and other keys, as the pseudocode has it", () => {
	for (let length = 0; length <= 100; length++) {
		const message = Uint8Array.from({ length: length + 3 }, (_, i) => (i * 151 + length * 7) & 255).subarray(3);
		const other = Uint8Array.from({ length: 16 }, (_, i) => (i * 59 + length * 31) & 255);
		assert.equal(toHex(sipHash(other, message)), reference(other, message), `${length} bytes`);
	}
});
