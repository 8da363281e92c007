import assert from "node:assert/strict";
import { test } from "node:test";
import { HandleTable, readPattern } from "./handles.ts";
import { limits } from "./limits.ts";

function reader(): (offset: number, lengthBytes: number) => string {
	const caller = {
		uid: 0,
		gid: 0,
		groups: [],
		principal: undefined,
		door: "test",
		clientInstance: "",
		share: undefined,
		trusted: true,
	} as const;
	const handle = new HandleTable().add({ ino: 2, caller, read: true, write: false, append: false, sync: false, restriction: 0 });
	return (offset, lengthBytes) => readPattern(handle, offset, lengthBytes);
}

test("a sequential reader is never random, even when its requests overtake each other", () => {
	const read = reader();
	const step = 128 * 1024;
	for (let at = 0; at < 100; at += 2) {
		assert.equal(read((at + 1) * step, step), "usual");
		assert.equal(read(at * step, step), "usual");
	}
});

test("short reads all over the file are random, until two are neighbours", () => {
	const read = reader();
	const far = 3 * limits.nearReadBytes;
	const seen = Array.from({ length: 8 }, (_, i) => read(((i * 5) % 8) * far + far, 4096));
	assert.deepEqual(seen.slice(0, 3), ["usual", "usual", "usual"]);
	assert.deepEqual(seen.slice(limits.randomAfterJumps), Array(8 - limits.randomAfterJumps).fill("random"));
	assert.equal(read(((7 * 5) % 8) * far + far + 4096, 4096), "usual");
	for (let i = 0; i < 8; i++) assert.equal(read(((i * 5) % 8) * far, 1 << 20), "usual", "long reads are never random");
});
