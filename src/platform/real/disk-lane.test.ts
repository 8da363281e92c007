import assert from "node:assert/strict";
import { test } from "node:test";
import { realLimits } from "./limits.ts";
import { createLaneMemory, LaneCaller, LaneServer, writingSlot } from "./disk-lane.ts";
import type { DiskRequest } from "./disk-protocol.ts";

function ends(): { caller: LaneCaller; server: LaneServer } {
	const memory = createLaneMemory();
	return { caller: new LaneCaller(memory), server: new LaneServer(memory) };
}

function askedOf(server: LaneServer): number[] {
	const found: number[] = [];
	for (let slot = server.next(0); slot >= 0; slot = server.next(slot + 1)) found.push(slot);
	return found;
}

function readOf(server: LaneServer, slot: number): Extract<DiskRequest, { readonly kind: "read" }> {
	const [request, ...more] = server.requests(slot);
	assert.equal(request?.kind, "read");
	assert.equal(more.length, 0);
	return request as Extract<DiskRequest, { readonly kind: "read" }>;
}

test("requests arrive as they were made, with offsets of any size", () => {
	const { caller, server } = ends();
	for (const offset of [0, 4096, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 45 + 4097, Number.MAX_SAFE_INTEGER]) {
		const slot = caller.ask(7, offset, 100);
		assert.deepEqual(askedOf(server), [slot]);
		const { into, ...rest } = readOf(server, slot as number);
		assert.deepEqual(rest, { kind: "read", handle: 7, offset, lengthBytes: 100 });
		assert.equal(into?.length, 100);
		server.answer(slot as number, 0);
		caller.look((answered) => caller.giveBack(answered));
	}
});

test("bytes belong to one read until they are given back; more than there are slots, or than fits, is not taken", () => {
	const { caller, server } = ends();
	assert.equal(caller.ask(1, 0, realLimits.laneSlotBytes + 1), undefined);
	for (let i = 0; i < realLimits.laneSlots; i++) assert.notEqual(caller.ask(1, i, realLimits.laneSlotBytes), undefined);
	assert.equal(caller.ask(1, 0, 1), undefined);
	for (const slot of askedOf(server)) {
		const { into, offset } = readOf(server, slot);
		into?.fill(offset);
		server.answer(slot, offset === 3 ? 5 : realLimits.laneSlotBytes);
	}
	const taken: { slot: number; bytes: Uint8Array }[] = [];
	caller.look((slot, bytes) => taken.push({ slot, bytes: bytes as Uint8Array }));
	assert.equal(caller.outstanding, 0);
	assert.equal(caller.ask(1, 0, 1), undefined, "none was given back");
	const lengths = taken.map(({ bytes }) => bytes.length).sort((a, b) => a - b);
	assert.deepEqual(lengths.slice(0, 2), [5, realLimits.laneSlotBytes]);
	assert.deepEqual(taken.map(({ bytes }) => bytes[0]).sort(), [0, 1, 2, 3, 4, 5, 6, 7]);
	for (const { bytes } of taken) assert.ok(bytes.every((byte) => byte === bytes[0]));
	const { slot } = taken[4] as { slot: number };
	caller.giveBack(slot);
	assert.throws(() => caller.giveBack(slot), /given back once/);
	assert.equal(caller.ask(1, 0, 1), slot);
});

test("who does not look is told, and a failure frees its slot", () => {
	const { caller, server } = ends();
	const slot = caller.ask(1, 0, 10) as number;
	assert.equal(server.answer(slot, 10), true);
	caller.look((answered) => caller.giveBack(answered));
	caller.watch(true);
	assert.equal(server.answer(caller.ask(1, 0, 10) as number, 10), false);
	caller.watch(false);
	let found = 0;
	caller.look((answered) => {
		found++;
		caller.giveBack(answered);
	});
	assert.equal(found, 1);
	const failing = caller.ask(1, 0, 10) as number;
	server.fail(failing);
	assert.deepEqual(askedOf(server), []);
	caller.look(() => assert.fail("it has no answer"));
	caller.failed(failing);
	assert.equal(caller.outstanding, 0);
	assert.throws(() => caller.failed(failing));
});

test("a write arrives with its bytes and the sync behind it, alone", () => {
	const { caller, server } = ends();
	const parts = [new Uint8Array([1, 2, 3]), new Uint8Array([]), new Uint8Array([4, 5])];
	const write = { offset: 2 ** 40 + 7, parts, lengthBytes: 5 };
	const written = { kind: "write", handle: 3, offset: 2 ** 40 + 7, parts: [new Uint8Array([1, 2, 3, 4, 5])] };
	for (const [asked, expected] of [
		[{ handle: 3, write, sync: true }, [written, { kind: "sync", handle: 3 }]],
		[{ handle: 3, write, sync: false }, [written]],
		[{ handle: 9, write: undefined, sync: true }, [{ kind: "sync", handle: 9 }]],
	] as const) {
		assert.equal(caller.askToWrite(asked), true);
		assert.equal(caller.outstanding, 1);
		assert.throws(() => caller.askToWrite(asked), /alone/);
		assert.deepEqual(askedOf(server), [writingSlot]);
		const requests = server
			.requests(writingSlot)
			.map((request) => (request.kind === "write" ? { ...request, parts: request.parts.map((part) => part.slice()) } : request));
		assert.deepEqual(requests, expected);
		caller.look(() => assert.fail("there is no answer yet"));
		assert.equal(server.answer(writingSlot, 0), true);
		const answered: (number | Uint8Array | undefined)[] = [];
		caller.look((slot, bytes) => answered.push(slot, bytes));
		assert.deepEqual(answered, [writingSlot, undefined]);
		assert.equal(caller.outstanding, 0);
		assert.deepEqual(askedOf(server), []);
	}
});

test("a write that is too large is not taken, one that fails is told by message, and the next finds the slot free", () => {
	const { caller, server } = ends();
	const write = { offset: 0, parts: [new Uint8Array(realLimits.laneSlotBytes + 1)], lengthBytes: realLimits.laneSlotBytes + 1 };
	assert.equal(caller.askToWrite({ handle: 1, write, sync: false }), false);
	assert.deepEqual(askedOf(server), []);
	assert.equal(caller.askToWrite({ handle: 1, write: undefined, sync: true }), true);
	server.fail(writingSlot);
	assert.deepEqual(askedOf(server), []);
	caller.look(() => assert.fail("it has no answer"));
	caller.failed(writingSlot);
	assert.throws(() => caller.failed(writingSlot), /asked for/);
	assert.equal(caller.askToWrite({ handle: 1, write: undefined, sync: true }), true);
	assert.deepEqual(askedOf(server), [writingSlot]);
});
