import assert from "node:assert/strict";
import { test } from "node:test";
import { isFsError, isNewerFormat } from "../../base/errors.ts";
import { HandleMemory, handleMemoryBytes, refuseNewerHandles, type StoredHandle } from "./handle-memory.ts";
import { RequestMemory, requestMemoryBytes } from "./request-memory.ts";

const volume = "01234567-89ab-cdef-0123-456789abcdef";
const fresh = (memory: Uint8Array) => new HandleMemory({ volume, session: { id: 2 ** 52 + 1, resume: false } }, memory);
const resumed = (memory: Uint8Array, id = 2 ** 52 + 1, of = volume) =>
	new HandleMemory({ volume: of, session: { id, resume: true } }, memory);
const handle: StoredHandle = {
	ino: 2 ** 52 + 3,
	read: true,
	write: false,
	append: true,
	sync: false,
	failed: false,
	trusted: true,
	uid: 0xffff_fffe,
	gid: 7,
	requestLow: 0xffff_ffff,
	requestHigh: 5,
};

test("what was kept and not let go of is found, as it was", () => {
	const bytes = new Uint8Array(handleMemoryBytes(4));
	const memory = fresh(bytes);
	const [a, b, c] = [memory.take(), memory.take(), memory.take()] as [number, number, number];
	memory.keep(a, handle);
	memory.keep(b, { ...handle, write: true, ino: 1 });
	// c was taken, and the process killed before it was kept.
	memory.keep(c, handle);
	memory.free(c);
	memory.fail(b);
	const { found } = resumed(bytes);
	assert.deepEqual(found, [
		{ ...handle, id: a },
		{ ...handle, write: true, failed: true, ino: 1, id: b },
	]);
});

test("a successor gives out no number that is open, nor one that was", () => {
	const bytes = new Uint8Array(handleMemoryBytes(3));
	const first = fresh(bytes);
	const seen = new Set<number>();
	const open: number[] = [];
	for (let i = 0; i < 2; i++) {
		const id = first.take() as number;
		first.keep(id, handle);
		open.push(id);
		seen.add(id);
	}
	for (let round = 0; round < 20; round++) {
		const memory = resumed(bytes);
		assert.deepEqual(memory.found.map(({ id }) => id).sort(), [...open].sort(), `round ${round}`);
		const id = memory.take() as number;
		assert.ok(!seen.has(id), `round ${round}: ${id} again`);
		assert.equal(memory.take(), undefined, "three are in use");
		memory.keep(id, handle);
		seen.add(id);
		const gone = open.shift() as number;
		memory.free(gone);
		open.push(id);
	}
});

test("memory of another session, another volume or damaged is refused", () => {
	const bytes = new Uint8Array(handleMemoryBytes(3));
	const refused = (error: unknown) => isFsError(error, "REFUSED");
	assert.throws(() => resumed(bytes), refused);
	fresh(bytes);
	assert.throws(() => resumed(bytes, 3), refused);
	assert.throws(() => resumed(bytes, undefined, volume.replace("0", "1")), refused);
	assert.throws(() => resumed(bytes.slice(0, handleMemoryBytes(2))), refused);
	for (let at = 0; at < 40; at++) {
		const damaged = bytes.slice();
		damaged[at] = (damaged[at] as number) ^ 0x10;
		assert.throws(() => resumed(damaged), refused, `byte ${at}`);
	}
	assert.deepEqual(resumed(bytes).found, []);
});

test("a handle of a kind that is not known here, and memory of a newer version, refuse all of it", () => {
	const bytes = new Uint8Array(handleMemoryBytes(3));
	const memory = fresh(bytes);
	for (let i = 0; i < 2; i++) memory.keep(memory.take() as number, handle);
	refuseNewerHandles(bytes, "memory");
	const newer = bytes.slice();
	newer[4] = 3;
	assert.throws(() => refuseNewerHandles(newer, "memory"), isNewerFormat);
	for (let bit = 7; bit < 32; bit++) {
		const unknown = bytes.slice();
		// The state of the second handle.
		unknown[64 + 32 + (bit >> 3)] = (unknown[64 + 32 + (bit >> 3)] as number) | (1 << (bit & 7));
		assert.throws(() => resumed(unknown), isNewerFormat, `bit ${bit}`);
	}
	assert.equal(resumed(bytes).found.length, 2);
});

test("a request in a state that is not known here is refused", () => {
	const bytes = new Uint8Array(requestMemoryBytes);
	const requests = new RequestMemory(bytes);
	requests.begin({ slot: 5, low: 6, high: 7 });
	assert.deepEqual(new RequestMemory(bytes).found, [{ slot: 5, requestLow: 6, requestHigh: 7, replying: false }]);
	new Uint32Array(bytes.buffer)[5 * 3] = 3;
	assert.throws(() => new RequestMemory(bytes), isNewerFormat);
});
