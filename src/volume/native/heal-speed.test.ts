import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { SpeedMeter, secondsFor } from "./heal-speed.ts";

const MiB = 1024 * 1024;
const options = { windowMs: 600_000, pieceBytes: 2 * MiB, before: undefined };

/** A machine that needs so much for each segment and each MiB; what it was given to do, and in what order. */
function worked(pieceMs: number, mebibyteMs: number, sizes: readonly number[]): SpeedMeter {
	const meter = new SpeedMeter(options);
	for (const bytes of sizes) meter.done(bytes, pieceMs + (bytes / MiB) * mebibyteMs);
	return meter;
}

const estimate = (meter: SpeedMeter, sizes: readonly number[]): number => {
	assert.ok(meter.speed !== undefined);
	return secondsFor(
		meter.speed,
		sizes.length,
		sizes.reduce((sum, one) => sum + one, 0),
		0,
	);
};
const truth = (pieceMs: number, mebibyteMs: number, sizes: readonly number[]): number =>
	sizes.reduce((sum, bytes) => sum + pieceMs + (bytes / MiB) * mebibyteMs, 0) / 1000;
const mixed = Array.from({ length: 1000 }, (_, at) => (at % 3 === 0 ? 2 * MiB : 16_384 * (1 + (at % 7))));
const large = new Array(1000).fill(2 * MiB);
const small = new Array(1000).fill(20_000);

describe("the speed of healing", () => {
	for (const [name, pieceMs, mebibyteMs] of [
		["a disk that seeks", 50, 7],
		["a fast one", 1, 2],
		["one without bandwidth", 0.1, 100],
		["one that only seeks", 30, 0],
	] as const) {
		test(`of ${name}: mixed lengths tell the costs apart, whatever comes next`, () => {
			const meter = worked(pieceMs, mebibyteMs, mixed);
			for (const next of [mixed, large, small]) {
				const wanted = truth(pieceMs, mebibyteMs, next);
				assert.ok(Math.abs(estimate(meter, next) - wanted) <= 1 + wanted / 20, `${estimate(meter, next)} s for ${wanted} s`);
			}
		});
	}

	test("of segments of one length is right for more of them", () => {
		for (const sizes of [large, small]) {
			const wanted = truth(20, 10, sizes);
			assert.ok(Math.abs(estimate(worked(20, 10, sizes), sizes) - wanted) <= 1 + wanted / 20);
		}
	});

	test("follows what changes, and begins with what was measured before", () => {
		const before = { pieceMicroseconds: 7, mebibyteMicroseconds: 8 };
		const meter = new SpeedMeter({ ...options, windowMs: 10_000, before });
		assert.deepEqual(meter.speed, before);
		const work = (count: number, ms: number): void => {
			for (let at = 0; at < count; at++) meter.done(2 * MiB, ms);
		};
		work(50, 10);
		assert.equal(estimate(meter, large), 10);
		work(200, 1000);
		assert.ok(estimate(meter, large) > 900);
	});

	test("rests are a multiple of the work, whatever they are when it is asked", () => {
		const speed = worked(20, 10, large).speed;
		assert.ok(speed !== undefined);
		assert.equal(secondsFor(speed, 1000, 2000 * MiB, 4), 5 * secondsFor(speed, 1000, 2000 * MiB, 0));
	});

	test("is unknown before anything was done", () => {
		assert.equal(new SpeedMeter(options).speed, undefined);
	});
});
