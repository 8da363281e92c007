import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { crc32c, crc32cNative, crc32cPortable } from "./checksum.ts";

const ascii = (text: string) => Uint8Array.from(text, (char) => char.charCodeAt(0));

/** Bit by bit. */
function slowCrc32c(bytes: Uint8Array): number {
	let crc = 0xffffffff;
	for (const byte of bytes) {
		crc ^= byte;
		for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
	}
	return ~crc >>> 0;
}

const noise = Uint8Array.from({ length: 5000 }, (_, i) => (i * 2654435761) >>> (i % 24));

const sums: [string, (bytes: Uint8Array, seed?: number) => number][] = [
	["chosen", crc32c],
	["portable", crc32cPortable],
];
if (crc32cNative) sums.push(["native", crc32cNative]);

describe("CRC32C", () => {
	for (const [name, sum] of sums) {
		test(`${name}: published values`, () => {
			assert.equal(sum(ascii("123456789")), 0xe3069283);
			assert.equal(sum(new Uint8Array(0)), 0);
			// RFC 3720, appendix B.4.
			assert.equal(sum(new Uint8Array(32)), 0x8a9136aa);
			assert.equal(sum(new Uint8Array(32).fill(0xff)), 0x62a8ab43);
			assert.equal(sum(Uint8Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e);
		});

		test(`${name}: every length and alignment agrees with the sum bit by bit`, () => {
			for (let length = 0; length <= 300; length++) {
				const bytes = noise.subarray(length % 13, (length % 13) + length);
				assert.equal(sum(bytes), slowCrc32c(bytes), `${length} bytes`);
			}
		});

		test(`${name}: chains`, () => {
			const whole = sum(noise);
			for (const cut of [0, 1, 7, 8, 159, 160, 161, 4096, 5000]) {
				assert.equal(sum(noise.subarray(cut), sum(noise.subarray(0, cut))), whole, `cut at ${cut}`);
			}
		});

		test(`${name}: shared memory`, () => {
			const shared = new Uint8Array(new SharedArrayBuffer(noise.length + 3), 3);
			shared.set(noise);
			assert.equal(sum(shared), slowCrc32c(noise));
		});
	}
});
