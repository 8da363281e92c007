import assert from "node:assert/strict";
import { test } from "node:test";
import { contents, type JournalLine, type Operation } from "../crash/kill-model.ts";
import { type FoundFile, PowerModel } from "./power-model.ts";

const seed = 7;

function journal(...operations: readonly Operation[]): JournalLine[] {
	return operations.flatMap((operation, number): JournalLine[] => [{ begin: number, operation }, { done: number }]);
}

const save = (path: string, length: number, synced = false): Operation => ({ kind: "save", path, length, careful: synced, synced });
const fsync = (path: string): Operation => ({ kind: "fsync", path });

/** Faults of a folder with these files. */
function faults(
	lines: readonly JournalLine[],
	files: Readonly<Record<string, Buffer>>,
	folders: readonly string[] = [],
): readonly string[] {
	const found = Object.entries(files).map(([path, bytes]): [string, FoundFile] => [path, { bytes, mtimeMs: 0 }]);
	return new PowerModel(seed, lines).judge({ files: new Map(found), folders: new Set(folders) }).faults;
}

test("what was synced has to be there, byte for byte", () => {
	const lines = journal(save("a", 3000), fsync("a"));
	const bytes = contents(seed, 0, 3000);
	assert.deepEqual(faults(lines, { a: bytes }), []);
	assert.match(faults(lines, {})[0] ?? "", /missing \[a\]/);
	assert.match(faults(lines, { a: bytes.subarray(0, 2999) })[0] ?? "", /no size/);
	assert.match(
		faults(lines, { a: Buffer.concat([bytes.subarray(0, 2999), Buffer.from([~(bytes[2999] as number)])]) })[0] ?? "",
		/byte 2999/,
	);
	assert.match(faults(lines, { a: bytes, b: bytes })[0] ?? "", /too many \[b\]/);
});

test("what came after the newest sync is there in part, names in their order", () => {
	const [a, b] = [contents(seed, 0, 500), contents(seed, 2, 400)];
	const lines = journal(save("a", 500), fsync("a"), save("b", 400), { kind: "unlink", path: "a" }, { kind: "mkdir", path: "d" });
	const possible: Record<string, Buffer>[] = [{ a }, { a, b }, { a, b: b.subarray(0, 100) }, { b }];
	for (const files of possible) assert.deepEqual(faults(lines, files), []);
	assert.deepEqual(faults(lines, { b }, ["d"]), []);
	assert.match(faults(lines, {})[0] ?? "", /names/, "a is removed after b is made");
	assert.match(faults(lines, { a, b }, ["d"])[0] ?? "", /names/, "d is made after a is removed");
	assert.match(faults(lines, { b: a.subarray(0, 400) })[0] ?? "", /was never/);
});

test("a rename that was not synced leaves one of the two files, whole when its bytes were synced first", () => {
	const [old, next] = [contents(seed, 0, 500), contents(seed, 2, 600)];
	const lines = journal(save("a", 500), fsync("a"), save("a", 600, true));
	assert.deepEqual(faults(lines, { a: next }), []);
	assert.deepEqual(faults(lines, { a: old, ".saving": next }), []);
	assert.equal(faults(lines, { a: next.subarray(0, 550) }).length, 1);
	assert.equal(faults(lines, { a: old }).length, 1, "the sync made the temporary name durable");
});

test("an overwrite that was not synced may be there in part; what it did not touch is as it was", () => {
	const lines = journal(save("a", 5000), fsync("a"), { kind: "write", path: "a", offset: 1000, length: 2000 });
	const [old, next] = [contents(seed, 0, 5000), contents(seed, 2, 2000)];
	const mixed = Buffer.concat([old.subarray(0, 1000), next.subarray(0, 700), old.subarray(1700)]);
	assert.deepEqual(faults(lines, { a: mixed }), []);
	mixed[4000] = ~(mixed[4000] as number);
	assert.match(faults(lines, { a: mixed })[0] ?? "", /byte 4000/);
});
