import assert from "node:assert/strict";
import { test } from "node:test";
import { isFsError } from "../base/errors.ts";
import { crc32c } from "../codec/checksum.ts";
import { Prng } from "../platform/sim/prng.ts";
import { SimWorld } from "../platform/sim/world.ts";
import type { DiskHealth, Roster } from "./interface.ts";
import { superblockSlotBytes } from "./limits.ts";
import {
	decodeSuperblock,
	encodeSuperblock,
	readSuperblock,
	rosterFault,
	type Superblock,
	SuperblockFile,
	writeSuperblock,
} from "./superblock.ts";

function uuid(n: number): string {
	return `${n.toString(16).padStart(8, "0")}-0000-4000-8000-000000000000`;
}

function sample(epoch: number, disks = 3): Superblock {
	const roster: Roster = {
		volume: uuid(0xabc),
		name: "demo",
		epoch,
		incarnation: 5,
		createdAt: { seconds: -3, nanoseconds: 7 },
		config: { redundancy: "rs:2+1", tolerance: 1, logSegmentBytes: 65536, logSegmentCount: 4, sameDevice: true },
		disks: Array.from({ length: disks }, (_, i) => ({
			id: i + 1,
			uuid: uuid(i + 1),
			path: `/disks/\xc3\xa9/${i}`,
			membership: i === 1 ? ("out" as const) : ("in" as const),
			duty: (["use", "drain", "leave"] as const)[i % 3] as "use" | "drain" | "leave",
			health: (["healthy", "degraded", "suspect", "failed"] as const)[i % 4] as DiskHealth,
			isHealthSet: i % 2 === 0,
			domain: "8:1",
			reason: i === 1 ? "it hung" : "",
		})),
		nextDiskId: disks + 1,
		logEpochs: [
			{ epoch: 2, members: [1, 2], firstSequence: 1, incarnation: 4 },
			{ epoch: 9, members: [1, 3], firstSequence: 2 ** 40, incarnation: 5 },
		],
		manifestDisks: [1, 3],
		manifestGeneration: 77,
		clean: false,
		memoryIncarnation: 4,
	};
	return { diskUuid: uuid(1), roster };
}

test("what is written is read back, with and without the optional field", () => {
	for (const clean of [true, false]) {
		const superblock = { ...sample(12), roster: { ...sample(12).roster, clean } };
		assert.deepEqual(decodeSuperblock(encodeSuperblock(superblock), "t"), superblock);
		const unfinished = { ...superblock, roster: { ...superblock.roster, unfinished: true as const } };
		assert.deepEqual(decodeSuperblock(encodeSuperblock(unfinished), "t"), unfinished);
	}
	const { memoryIncarnation: _, ...roster } = sample(1).roster;
	assert.deepEqual(decodeSuperblock(encodeSuperblock({ diskUuid: uuid(1), roster }), "t"), { diskUuid: uuid(1), roster });
	assert.equal(decodeSuperblock(new Uint8Array(superblockSlotBytes), "t"), undefined);
});

test("only a slot of nothing but zeros was never written", () => {
	for (let start = 0; start < 5; start++) {
		const slot = new Uint8Array(80).subarray(start, start + 61);
		assert.equal(decodeSuperblock(slot, "t"), undefined);
		for (let i = 0; i < slot.length; i++) {
			slot[i] = 1;
			assert.throws(
				() => decodeSuperblock(slot, "t"),
				(error) => isFsError(error, "CORRUPT"),
			);
			slot[i] = 0;
		}
	}
	for (const short of [0, 1, 2, 3]) assert.equal(decodeSuperblock(new Uint8Array(9).subarray(1, 1 + short), "t"), undefined);
});

test("too many long paths are refused, not cut", () => {
	const superblock = sample(1, 200);
	const roster = { ...superblock.roster, disks: superblock.roster.disks.map((disk) => ({ ...disk, path: "/x".repeat(300) })) };
	assert.throws(
		() => encodeSuperblock({ ...superblock, roster }),
		(error) => isFsError(error, "E2BIG"),
	);
});

test("any bytes give a superblock or CORRUPT", () => {
	const seed = 42;
	const random = new Prng(seed, "fuzz");
	const good = encodeSuperblock(sample(3));
	for (let round = 0; round < 3_000; round++) {
		const bytes =
			round % 4 === 0 ? random.bytes(random.below(300)) : good.slice(0, random.chance(0.3) ? random.below(good.length) : good.length);
		for (let i = random.below(4); i >= 0 && bytes.length > 0; i--) bytes[random.below(bytes.length)] = random.below(256);
		// Half of them with a right checksum, so that the fields behind it are reached.
		if (random.chance(0.5) && bytes.length >= 24) {
			new DataView(bytes.buffer).setUint32(16, bytes.length, true);
			bytes.fill(0, 20, 24);
			new DataView(bytes.buffer).setUint32(20, crc32c(bytes), true);
		}
		try {
			const found = decodeSuperblock(bytes, "fuzz");
			if (found) assert.equal(rosterFault(found.roster), undefined);
		} catch (error) {
			assert.ok(isFsError(error, "CORRUPT") || isFsError(error, "REFUSED"), `seed ${seed}, round ${round}: ${String(error)}`);
		}
	}
});

test("a newer format is refused as such, and only when its checksum is right", () => {
	const bytes = encodeSuperblock(sample(3));
	bytes[8] = 2;
	assert.throws(
		() => decodeSuperblock(bytes, "t"),
		(error) => isFsError(error, "CORRUPT"),
	);
	bytes.fill(0, 20, 24);
	new DataView(bytes.buffer).setUint32(20, crc32c(bytes), true);
	assert.throws(
		() => decodeSuperblock(bytes, "t"),
		(error) => isFsError(error, "REFUSED") && error.site === "log.superblock-newer",
	);
});

test("slots alternate, the newest valid one wins, and a damaged one is told", async () => {
	const world = new SimWorld({ seed: 1 });
	world.addDisk("/d", { capacityBytes: 1 << 22 });
	await world.run(async () => {
		const disk = await world.node().boot().openDisk("/d");
		assert.deepEqual(await readSuperblock(disk), { kind: "absent", hasFile: false });
		const file = await SuperblockFile.format(disk);
		assert.deepEqual(await readSuperblock(disk), { kind: "absent", hasFile: true });
		for (let epoch = 1; epoch <= 5; epoch++) {
			await file.write(sample(epoch));
			const found = await readSuperblock(disk);
			assert.ok(found.kind === "valid" && found.superblock.roster.epoch === epoch && found.damagedSlots === 0, `epoch ${epoch}`);
		}
		await writeSuperblock(disk, sample(6));
		const newest = await readSuperblock(disk);
		assert.ok(newest.kind === "valid" && newest.superblock.roster.epoch === 6);
		world.corrupt("/d", "superblock", newest.slot * superblockSlotBytes + 100, 1);
		const older = await readSuperblock(disk);
		assert.ok(older.kind === "valid" && older.superblock.roster.epoch === 5 && older.damagedSlots === 1);
		// The next write goes over the damaged slot, not over the only good one.
		await writeSuperblock(disk, sample(7));
		world.corrupt("/d", "superblock", newest.slot * superblockSlotBytes + 100, 1);
		const kept = await readSuperblock(disk);
		assert.ok(kept.kind === "valid" && kept.superblock.roster.epoch === 5);
		world.corrupt("/d", "superblock", older.slot * superblockSlotBytes, 8);
		assert.equal((await readSuperblock(disk)).kind, "damaged");
	});
});
