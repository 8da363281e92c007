/**
 * SipHash-2-4 (Aumasson and Bernstein, 2012): a keyed hash of short messages that who does not have the key cannot compute. Words of 64 bits are pairs of 32: numbers as BigInt would take
 * ten times as long.
 */
import { assert } from "../base/assert.ts";

/** v0 … v3, low and high word each. */
type State = Uint32Array;

function add(v: State, to: number, from: number): void {
	const low = (v[to] as number) + (v[from] as number);
	v[to + 1] = (v[to + 1] as number) + (v[from + 1] as number) + (low > 0xffff_ffff ? 1 : 0);
	v[to] = low;
}

function xorRotated(v: State, at: number, bits: number, other: number): void {
	const [low, high] = bits < 32 ? [v[at] as number, v[at + 1] as number] : [v[at + 1] as number, v[at] as number];
	const by = bits & 31;
	const rotatedLow = by === 0 ? low : (low << by) | (high >>> (32 - by));
	const rotatedHigh = by === 0 ? high : (high << by) | (low >>> (32 - by));
	v[at] = rotatedLow ^ (v[other] as number);
	v[at + 1] = rotatedHigh ^ (v[other + 1] as number);
}

function rotate32(v: State, at: number): void {
	const low = v[at] as number;
	v[at] = v[at + 1] as number;
	v[at + 1] = low;
}

function rounds(v: State, count: number): void {
	for (let i = 0; i < count; i++) {
		add(v, 0, 2);
		xorRotated(v, 2, 13, 0);
		rotate32(v, 0);
		add(v, 4, 6);
		xorRotated(v, 6, 16, 4);
		add(v, 0, 6);
		xorRotated(v, 6, 21, 0);
		add(v, 4, 2);
		xorRotated(v, 2, 17, 4);
		rotate32(v, 4);
	}
}

function take(v: State, low: number, high: number): void {
	v[6] = (v[6] as number) ^ low;
	v[7] = (v[7] as number) ^ high;
	rounds(v, 2);
	v[0] = (v[0] as number) ^ low;
	v[1] = (v[1] as number) ^ high;
}

function initialState(key: Uint8Array): State {
	assert(key.length === 16, `a key of ${key.length} bytes`);
	const view = new DataView(key.buffer, key.byteOffset, 16);
	const [k0, k1, k2, k3] = [0, 4, 8, 12].map((at) => view.getUint32(at, true)) as [number, number, number, number];
	return Uint32Array.of(
		k0 ^ 0x7073_6575,
		k1 ^ 0x736f_6d65,
		k2 ^ 0x6e64_6f6d,
		k3 ^ 0x646f_7261,
		k0 ^ 0x6e65_7261,
		k1 ^ 0x6c79_6765,
		k2 ^ 0x7974_6573,
		k3 ^ 0x7465_6462,
	);
}

/** 8 bytes, little-endian as in the paper. */
export function sipHash(key: Uint8Array, message: Uint8Array): Uint8Array {
	const v = initialState(key);
	const whole = message.length & ~7;
	const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
	for (let at = 0; at < whole; at += 8) take(v, view.getUint32(at, true), view.getUint32(at + 4, true));
	const last = new Uint8Array(8);
	last.set(message.subarray(whole));
	last[7] = message.length & 255;
	const lastView = new DataView(last.buffer);
	take(v, lastView.getUint32(0, true), lastView.getUint32(4, true));
	v[4] = (v[4] as number) ^ 255;
	rounds(v, 4);
	lastView.setUint32(0, (v[0] as number) ^ (v[2] as number) ^ (v[4] as number) ^ (v[6] as number), true);
	lastView.setUint32(4, (v[1] as number) ^ (v[3] as number) ^ (v[5] as number) ^ (v[7] as number), true);
	return last;
}
