import assert from "node:assert/strict";
import { test } from "node:test";
import { FsError } from "../../base/errors.ts";
import type { RequestToken } from "../interface.ts";
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

test("handles of one file are counted whether one or several, and share what is known of who opened them", () => {
	const table = new HandleTable();
	const open = (uid: number, low: number) => {
		const groups = [uid, 7];
		const caller = {
			uid,
			gid: 0,
			groups,
			principal: undefined,
			door: "fuse",
			clientInstance: "m",
			share: undefined,
			trusted: true,
		} as const;
		const request = { low, high: 0 } as RequestToken;
		const noted = { slot: 1, xid: 2, low, high: 0 };
		return table.add({
			ino: 2,
			caller: { ...caller, umask: low, request, noted },
			read: true,
			write: true,
			append: false,
			sync: false,
			restriction: 0,
		});
	};
	const [first, second, third] = [open(1, 1), open(1, 2), open(2, 3)];
	assert.equal(first.caller, second.caller);
	assert.notEqual(first.caller, third.caller);
	assert.deepEqual([third.caller.uid, third.caller.groups], [2, [2, 7]]);
	assert.deepEqual([first.caller.request, first.caller.noted], [undefined, undefined]);
	const error = new FsError("EIO", "test.seal", "no disk");
	table.fail(2, error);
	for (const [handle, left] of [
		[second, 2],
		[third, 1],
		[first, 0],
	] as const) {
		assert.equal(handle.error, error);
		table.remove(handle.id);
		assert.equal(table.openCount(2), left);
	}
	table.fail(2, error);
	const alone = open(1, 4);
	table.restrict(2, 9);
	assert.deepEqual([table.openCount(2), alone.restriction, alone.error], [1, 9, undefined]);
});
