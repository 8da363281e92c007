import assert from "node:assert/strict";
import { test } from "node:test";
import { MapStore, MapTransaction } from "../../test/support/map-records.ts";
import type { DirectoryEntry } from "./interface.ts";
import { entryRecord, keyName } from "./kinds.ts";
import { Records } from "./transaction.ts";

const entry = (ino: number): DirectoryEntry => ({ ino, type: "file", cookie: ino + 10, birthEpoch: 1 });

function filled(): MapStore {
	const store = new MapStore();
	store.run((tx) => {
		for (const [name, ino] of [
			["a", 1],
			["b", 2],
			["c", 3],
		] as const)
			tx.put(entryRecord, entry(ino), 7, name);
		tx.put(entryRecord, entry(9), 8, "other");
	});
	return store;
}

test("get sees the transaction's own puts and deletes", () => {
	const store = filled();
	store.run((tx) => {
		assert.deepEqual(tx.get(entryRecord, 7, "a"), entry(1));
		tx.put(entryRecord, entry(100), 7, "a");
		assert.deepEqual(tx.get(entryRecord, 7, "a"), entry(100));
		tx.delete(entryRecord, 7, "a");
		assert.equal(tx.get(entryRecord, 7, "a"), undefined);
		assert.equal(tx.get(entryRecord, 7, "absent"), undefined);
	});
	assert.equal(
		store.run((tx) => tx.get(entryRecord, 7, "a")),
		undefined,
	);
});

test("a transaction that throws leaves nothing", () => {
	const store = filled();
	assert.throws(() =>
		store.run((tx) => {
			tx.delete(entryRecord, 7, "a");
			throw new Error("no");
		}),
	);
	assert.deepEqual(
		store.run((tx) => tx.get(entryRecord, 7, "a")),
		entry(1),
	);
});

test("scan keeps to its prefix, goes on behind a key, and merges own changes", () => {
	const store = filled();
	store.run((tx) => {
		tx.delete(entryRecord, 7, "b");
		tx.put(entryRecord, entry(4), 7, "bb");
		const prefix = entryRecord.prefix(7);
		const names = (after: string | undefined, limit: number): string[] =>
			tx.scan(entryRecord, prefix, after === undefined ? { limit } : { after, limit }).map(({ key }) => keyName(key));
		assert.deepEqual(names(undefined, 10), ["a", "bb", "c"]);
		assert.deepEqual(names(entryRecord.key(7, "a"), 10), ["bb", "c"]);
		assert.deepEqual(names(entryRecord.key(7, "aa"), 1), ["bb"]);
		assert.deepEqual(names(entryRecord.key(7, "c"), 10), []);
		assert.deepEqual(names(entryRecord.key(9, "c"), 10), []);
		assert.deepEqual(names(entryRecord.key(1, "z"), 1), ["a"]);
		assert.deepEqual(
			tx.scan(entryRecord, entryRecord.prefix(7, "b"), { limit: 5 }).map(({ value }) => value),
			[entry(4)],
		);
	});
});

test("a record is decoded once per transaction, and counts are the transaction's", () => {
	const store = filled();
	let decodes = 0;
	const decode = (bytes: Uint8Array, key: string): DirectoryEntry => {
		decodes++;
		return entryRecord.decode(bytes, key);
	};
	const counting = { ...entryRecord, decode };
	const raw = new MapTransaction(store);
	const tx = new Records(raw);
	tx.get(counting, 7, "a");
	tx.get(counting, 7, "a");
	tx.scan(counting, entryRecord.prefix(7), { limit: 10 });
	tx.scan(counting, entryRecord.prefix(7), { limit: 10 });
	assert.equal(decodes, 3);
	tx.put(counting, entry(5), 7, "d");
	tx.get(counting, 7, "d");
	assert.equal(decodes, 3);
	assert.equal(tx.changeCount, 1);
	assert.equal(tx.changeBytes, entryRecord.key(7, "d").length + entryRecord.encode(entry(5)).length);
});
