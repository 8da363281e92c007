import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { FsError } from "../base/errors.ts";
import type { Redundancy } from "./interface.ts";
import { defaultRedundancy, feasibleShape, formatRedundancy, parseRedundancy, tolerance, wantedShape } from "./redundancy.ts";

const shape = (text: string): Redundancy => {
	const [dataShards, parityShards] = text.split("+").map(Number) as [number, number];
	return { dataShards, parityShards };
};
const text = (redundancy: Redundancy | undefined) => (redundancy ? `${redundancy.dataShards}+${redundancy.parityShards}` : "none");

describe("redundancy", () => {
	it("is read and written", () => {
		for (const [given, means, printed] of [
			["rs:4+2", "4+2", "rs:4+2"],
			["rs:32+8", "32+8", "rs:32+8"],
			["rs:1+2", "1+2", "replicate:3"],
			["replicate:1", "1+0", "replicate:1"],
			["replicate:9", "1+8", "replicate:9"],
		] as const) {
			assert.equal(text(parseRedundancy(given)), means);
			assert.equal(formatRedundancy(parseRedundancy(given)), printed);
			assert.deepEqual(parseRedundancy(formatRedundancy(parseRedundancy(given))), parseRedundancy(given));
		}
		assert.equal(tolerance(parseRedundancy("rs:4+2")), 2);
		assert.equal(tolerance(parseRedundancy("replicate:3")), 2);
	});

	it("says what is wrong with what it cannot read", () => {
		const advice = "; write rs:K+M (K from 1 to 32, M from 1 to 8) or replicate:N (N from 1 to 9)";
		for (const [given, why] of [
			["", 'redundancy "" is not understood'],
			["rs:4", 'redundancy "rs:4" is not understood'],
			["RS:4+2", 'redundancy "RS:4+2" is not understood'],
			["rs:4+2 ", 'redundancy "rs:4+2 " is not understood'],
			["rs:-4+2", 'redundancy "rs:-4+2" is not understood'],
			["rs:99999+2", 'redundancy "rs:99999+2" is not understood'],
			["rs:0+2", 'redundancy "rs:0+2" has K = 0'],
			["rs:33+2", 'redundancy "rs:33+2" has K = 33'],
			["rs:4+0", 'redundancy "rs:4+0" has M = 0'],
			["rs:4+9", 'redundancy "rs:4+9" has M = 9'],
			["replicate:0", 'redundancy "replicate:0" has N = 0'],
			["replicate:10", 'redundancy "replicate:10" has N = 10'],
		] as const) {
			assert.throws(
				() => parseRedundancy(given),
				(error: FsError) => error.code === "EINVAL" && error.message === why + advice,
				given,
			);
		}
	});

	it("has a default for every number of disks", () => {
		const found = [1, 2, 3, 4, 5, 6, 7, 40].map((disks) => formatRedundancy(defaultRedundancy(disks)));
		assert.deepEqual(found, ["replicate:1", "replicate:2", "rs:2+1", "rs:2+1", "rs:2+1", "rs:4+2", "rs:4+2", "rs:4+2"]);
	});

	it("is brought down to what the domains allow", () => {
		const of = (target: string) => [7, 6, 5, 4, 3, 2, 1, 0].map((domains) => text(feasibleShape(shape(target), domains)));
		assert.deepEqual(of("4+2"), ["4+2", "4+2", "3+2", "2+2", "1+2", "1+1", "1+0", "none"]);
		assert.deepEqual(of("2+1"), ["2+1", "2+1", "2+1", "2+1", "2+1", "1+1", "1+0", "none"]);
		assert.deepEqual(of("1+3"), ["1+3", "1+3", "1+3", "1+3", "1+2", "1+1", "1+0", "none"]);
	});

	it("uses replicas for payloads that would make shards smaller than a block", () => {
		assert.equal(text(wantedShape(shape("4+2"), 16_384)), "1+2");
		assert.equal(text(wantedShape(shape("4+2"), 16_385)), "4+2");
		assert.equal(text(wantedShape(shape("1+2"), 10_000)), "1+2");
	});
});
