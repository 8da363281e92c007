import assert from "node:assert/strict";
import { test } from "node:test";
import { RequestProfile } from "./profile.ts";

test("requests are counted when they end, with all their time; what runs is told", () => {
	let nowMs = 1000;
	const profile = new RequestProfile(() => nowMs);
	profile.ended("99");
	for (let at = 0; at < 100; at++) {
		profile.began(String(at), "READ", 7, 40, 4096);
		nowMs += at === 50 ? 80 : 1;
		profile.ended(String(at));
	}
	profile.began("500", "FSYNC", 8, 41, 0);
	nowMs += 21;
	const window = profile.take();
	assert.equal(window.seconds, (99 + 80 + 21) / 1000);
	const [read, ...others] = window.operations;
	assert.deepEqual(others, []);
	assert.deepEqual([read?.operation, read?.count, read?.bytes, read?.maxMs, read?.meanMs], ["READ", 100, 409_600, 80, 1.79]);
	assert(read && read.p50Ms >= 1 && read.p50Ms < 1.2 && read.p99Ms < 1.2, JSON.stringify(read));
	assert.deepEqual(window.files, [{ ino: 7, pid: 40, count: 100, bytes: 409_600 }]);
	assert.deepEqual(window.running, [{ operation: "FSYNC", ino: 8, pid: 41, ageMs: 21 }]);

	nowMs += 979;
	profile.ended("500");
	const next = profile.take();
	assert.deepEqual(
		next.operations.map(({ operation, count, maxMs, p99Ms }) => [operation, count, maxMs, p99Ms]),
		[["FSYNC", 1, 1000, 1000]],
	);
	assert.deepEqual([next.seconds, next.runningCount], [0.979, 0]);
});

test("a busy file stays among the first, however many others there are", () => {
	const profile = new RequestProfile(() => 0);
	for (let at = 0; at < 100_000; at++) {
		const ino = at % 20 === 0 ? 1 : at + 10;
		profile.began(String(at), "LOOKUP", ino, 0, 0);
		profile.ended(String(at));
	}
	const [first, ...rest] = profile.take().files;
	assert.deepEqual([first?.ino, first?.count], [1, 5000]);
	assert.equal(rest.length, 19);
	assert.deepEqual(profile.take().files, []);
});
