import assert from "node:assert/strict";
import { test } from "node:test";
import { StagingTable, stagingTableBytes } from "./staging-table.ts";

test("a successor finds what is held, with its newest number", () => {
	const memory = new Uint8Array(stagingTableBytes(2));
	const table = new StagingTable(memory, false);
	const one = { ino: 2 ** 45 + 7, file: 3, sizeBytes: 2 ** 33, number: 9, bound: true };
	table.set(one);
	table.set({ ino: 5, file: 4, sizeBytes: 1, number: 10, bound: true });
	assert.throws(() => table.set({ ino: 6, file: 5, sizeBytes: 1, number: 11, bound: true }), /a place for each/);
	table.set({ ...one, number: 12, bound: false });
	const again = new StagingTable(memory.slice(), true);
	const byFile = [...again.all()].sort((a, b) => a.file - b.file);
	assert.deepEqual(byFile, [
		{ ...one, number: 12, bound: false },
		{ ino: 5, file: 4, sizeBytes: 1, number: 10, bound: true },
	]);
	assert.equal(again.newest, 12);
	again.remove(one.ino);
	again.remove(77);
	again.set({ ino: 8, file: 6, sizeBytes: 2, number: 13, bound: true });
	assert.deepEqual(
		again.all().map(({ ino }) => ino),
		[5, 8],
	);
});

test("what this program has not written is refused", () => {
	const refused = { site: "fuse.staging-lost" };
	// The version; the state of the first place.
	for (const at of [4, 32]) {
		const memory = new Uint8Array(stagingTableBytes(2));
		new StagingTable(memory, false);
		memory[at] = 9;
		assert.throws(() => new StagingTable(memory, true), refused);
	}
});
