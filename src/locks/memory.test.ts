import assert from "node:assert/strict";
import { test } from "node:test";
import { isNewerFormat } from "../base/errors.ts";
import { LockMemory, lockMemoryBytes, type LockRecord, refuseNewerLocks, type StoredLock } from "./memory.ts";
import { toEnd } from "./range.ts";

const volume = "01234567-89ab-cdef-0123-456789abcdef";
const open = (bytes: Uint8Array, resume: boolean, id = 2 ** 52 + 1, of = volume) =>
	new LockMemory({ volume: of, session: { id, resume } }, bytes);

const lock: StoredLock = {
	class: "flock-exclusive",
	ino: 2 ** 52 + 3,
	owner: [0xffff_ffff, 0x8000_0001],
	range: { start: 2n ** 53n, end: toEnd },
	handle: 2 ** 50 + 1,
	pid: 0x7fff_ffff,
	sinceRealMs: 1_800_000_000_000.25,
};
const records: readonly LockRecord[] = [
	{ kind: "set", lock, request: { low: 0xffff_fffe, high: 0x7fff_ffff } },
	{ kind: "clear", lock: { ...lock, class: "fcntl-shared", range: { start: 0, end: 9 }, handle: undefined }, request: { low: 0, high: 0 } },
	{ kind: "note", request: { low: 4, high: 0 } },
];

test("what was appended or written anew is found as it was, in order", () => {
	const bytes = new Uint8Array(lockMemoryBytes(8));
	const memory = open(bytes, false);
	assert.equal(memory.capacity, 8);
	assert.ok(memory.append(records));
	assert.ok(memory.append([records[2] as LockRecord]));
	assert.deepEqual(open(bytes.slice(), true).found, [...records, records[2]]);
	memory.rewrite([records[0] as LockRecord]);
	assert.deepEqual(open(bytes.slice(), true).found, [records[0]]);
	const successor = open(bytes, true);
	assert.equal(successor.used, 1);
	assert.ok(successor.append(records));
	assert.deepEqual(open(bytes.slice(), true).found, [records[0], ...records]);
	assert.ok(!successor.append([...records, ...records]), "it does not fit");
	assert.equal(open(bytes.slice(), true).found.length, 4);
});

test("killed between any two stores: what one command changed is there altogether or not at all", () => {
	const before: LockRecord = { kind: "note", request: { low: 1, high: 1 } };
	for (const change of ["append", "rewrite"] as const) {
		// Every store is a state that a successor may find.
		const states: Uint8Array[] = [];
		const bytes = new Uint8Array(lockMemoryBytes(8));
		const memory = open(bytes, false);
		memory.append([before]);
		const spied = ["setUint32", "setUint8", "setFloat64"] as const;
		const originals = spied.map((name) => DataView.prototype[name]);
		const { store } = Atomics;
		const note = (): void => void states.push(bytes.slice());
		try {
			spied.forEach((name, i) => {
				DataView.prototype[name] = function (this: DataView, ...given: [number, number, boolean?]) {
					(originals[i] as (this: DataView, ...given: [number, number, boolean?]) => void).apply(this, given);
					if (this.buffer === bytes.buffer) note();
				};
			});
			Atomics.store = ((...given: Parameters<typeof store>) => {
				const stored = store(...given);
				note();
				return stored;
			}) as typeof store;
			if (change === "append") memory.append(records);
			else memory.rewrite(records);
		} finally {
			spied.forEach((name, i) => {
				DataView.prototype[name] = originals[i] as never;
			});
			Atomics.store = store;
		}
		assert.ok(states.length > 30);
		const after: readonly LockRecord[] = change === "append" ? [before, ...records] : [...records];
		const found: readonly string[] = states.map((state) => JSON.stringify(open(state, true).found, text));
		const wanted: readonly string[] = [JSON.stringify([before], text), JSON.stringify(after, text)];
		assert.ok(
			found.every((one) => wanted.includes(one)),
			change,
		);
		assert.equal(found.at(-1), wanted[1]);
		assert.equal(found[0], wanted[0]);
	}
});

const text = (_key: string, value: unknown): unknown => (typeof value === "bigint" ? `${value}` : value);

test("the memory of another session, another volume or another size is refused", () => {
	const bytes = new Uint8Array(lockMemoryBytes(4));
	open(bytes, false);
	assert.deepEqual(open(bytes, true).found, []);
	assert.throws(() => open(bytes, true, 5), { code: "REFUSED" });
	assert.throws(() => open(bytes, true, undefined, volume.replace("0123", "1123")), { code: "REFUSED" });
	assert.throws(() => open(bytes.slice(0, lockMemoryBytes(2)), true), { code: "REFUSED" });
	assert.throws(() => open(new Uint8Array(lockMemoryBytes(4)), true), { code: "REFUSED" });
});

test("a record or a lock of a kind that is not known here, and memory of a newer version, refuse all of it", () => {
	const bytes = new Uint8Array(lockMemoryBytes(8));
	open(bytes, false).append(records);
	refuseNewerLocks(bytes, "memory");
	const newer = bytes.slice();
	newer[4] = 2;
	assert.throws(() => refuseNewerLocks(newer, "memory"), isNewerFormat);
	const changes: readonly (readonly [number, number])[] = [
		[0, 0],
		[0, 4],
		[0, 255],
		[1, 200],
		[2, 1],
		[3, 128],
	];
	for (const [at, value] of changes) {
		const unknown = bytes.slice();
		// Of the second record.
		unknown[64 + 64 + at] = value;
		assert.throws(() => open(unknown, true), isNewerFormat, `byte ${at} is ${value}`);
	}
	assert.deepEqual(open(bytes, true).found, records);
});
