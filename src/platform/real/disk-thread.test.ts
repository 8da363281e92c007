import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { Prng } from "../sim/prng.ts";
import { realLimits } from "./limits.ts";
import { createRealPlatform } from "./platform.ts";

const folder = await mkdtemp(join(tmpdir(), "cairn-thread-"));
after(() => rm(folder, { recursive: true }));

const blockBytes = 4096;

function block(number: number): Uint8Array {
	return new Uint8Array(blockBytes).fill(number % 251);
}

test("reads that come together are answered with what each asked for, whatever else is asked among them", async () => {
	const disk = await createRealPlatform().openDisk(folder);
	const file = await disk.open("file", { create: true });
	const other = await disk.open("other", { create: true });
	for (let number = 0; number < 100; number++) await file.write(number * blockBytes, [block(number)]);
	await file.sync("test.file");
	await file.uncache(0, 100 * blockBytes);
	const wanted = Array.from({ length: 200 }, (_, i) => (i * 37) % 100);
	const answers = await Promise.all(
		wanted.map(async (number, i) => {
			if (i % 10 === 0) void other.write(i, [block(i)]);
			const lent = await file.borrow(number * blockBytes, i % 2 === 0 ? blockBytes : 3 * blockBytes);
			const first = lent.bytes.slice(0, blockBytes);
			lent.release();
			return first;
		}),
	);
	for (const [i, number] of wanted.entries()) assert.deepEqual(answers[i], block(number));
	assert.equal((await file.read(100 * blockBytes, 10)).length, 0);
	await disk.close();
});

test("small reads one after the other and side by side, errors among them, give what was asked for and let go of the process", async () => {
	const disk = await createRealPlatform().openDisk(folder);
	const file = await disk.open("small", { create: true });
	for (let number = 0; number < 50; number++) await file.write(number * blockBytes, [block(number)]);
	// More than there are slots, forgotten by their borrowers now and then, between pauses that let both sides fall asleep.
	for (let round = 0; round < 300; round++) {
		const number = (round * 37) % 50;
		const side = round % 7 === 0 ? 12 : 1;
		const answers = await Promise.all(Array.from({ length: side }, (_, i) => file.borrow(((number + i) % 50) * blockBytes, blockBytes)));
		for (const [i, lent] of answers.entries()) {
			assert.deepEqual(new Uint8Array(lent.bytes), block((number + i) % 50));
			if (round % 100 !== 99) lent.release();
		}
		if (round % 50 === 0) await setTimeout(5);
		// What was made after a write sees it.
		if (round % 10 === 0) {
			const written = file.write(number * blockBytes, [block(number + 1)]);
			const seen = await file.borrow(number * blockBytes, blockBytes);
			assert.deepEqual(new Uint8Array(seen.bytes), block(number + 1));
			seen.release();
			await written;
			await file.write(number * blockBytes, [block(number)]);
		}
	}
	const short = await file.borrow(50 * blockBytes - 10, blockBytes);
	assert.equal(short.bytes.length, 10);
	const [a, b] = await Promise.allSettled([file.borrow(0, blockBytes), disk.remove("small").then(() => file.close())]);
	assert.equal(a.status, "fulfilled");
	assert.equal(b.status, "fulfilled");
	await assert.rejects(file.borrow(0, blockBytes), { code: "EBADF" });
	await disk.close();
});

for (const diskLane of [true, false]) {
	const how = diskLane ? "in shared memory" : "by message";
	test(`calls of all kinds ${how} are carried out in the order in which they were made`, async () => {
		const seed = randomInt(2 ** 31);
		const random = new Prng(seed, "order");
		const draw = (bound: number): number => random.below(bound);
		const disk = await createRealPlatform({ diskLane }).openDisk(folder);
		const file = await disk.open(`order-${diskLane}`, { create: true });
		const contents = new Uint8Array(40 * blockBytes);
		await file.write(0, [contents]);
		const read = async (offset: number, expected: Uint8Array): Promise<void> => {
			const lent = await file.borrow(offset, expected.length);
			assert.deepEqual(new Uint8Array(lent.bytes), expected, `seed ${seed}`);
			lent.release();
		};
		const write = (lengthBytes: number): Promise<void> => {
			const bytes = new Uint8Array(lengthBytes).fill(draw(256));
			const offset = draw(contents.length - lengthBytes);
			contents.set(bytes, offset);
			return file.write(offset, [bytes.subarray(0, 10), bytes.subarray(10)]);
		};
		for (let round = 0; round < 500; round++) {
			const calls: Promise<unknown>[] = [];
			for (let count = 1 + draw(5); count > 0; count--) {
				const kind = draw(8);
				const offset = draw(38) * blockBytes;
				if (kind < 3) calls.push(write(1 + draw(2 * blockBytes)));
				else if (kind === 3) calls.push(write(3 * realLimits.laneSlotBytes));
				else if (kind < 6) calls.push(file.sync("test.order"));
				else calls.push(read(offset, contents.slice(offset, offset + 2 * blockBytes)));
			}
			await Promise.all(calls);
			// Both sides fall asleep now and then.
			if (round % 100 === 0) await setTimeout(5);
		}
		assert.deepEqual(await file.read(0, contents.length), contents, `seed ${seed}`);
		await disk.close();
	});

	test(`a write that fails is told, and the sync behind it is answered too, ${how}`, async () => {
		const disk = await createRealPlatform({ diskLane }).openDisk(folder);
		const file = await disk.open(`far-${diskLane}`, { create: true });
		for (let round = 0; round < 10; round++) {
			// Farther than any file of ext4 or XFS goes; where it does go, there is nothing to be seen here.
			const [far, synced] = await Promise.allSettled([file.write(2 ** 52, [block(round)]), file.sync("test.far")]);
			assert.ok(far.status === "fulfilled" || (far.reason as { code?: string }).code === "EFBIG");
			assert.equal(synced.status, "fulfilled");
			await file.truncate(0);
			await Promise.all([file.write(0, [block(round)]), file.sync("test.near")]);
			const near = await file.borrow(0, blockBytes);
			assert.deepEqual(near.bytes.slice(), block(round));
			near.release();
		}
		await disk.close();
	});

	test(`a sync that protects nothing fails ${how}, and the write before it does not; the disk goes on`, async () => {
		const disk = await createRealPlatform({ diskLane }).openDisk(folder);
		const file = await disk.open(`removed-${diskLane}`, { create: true });
		const well = await disk.open(`well-${diskLane}`, { create: true });
		for (let round = 0; round < 10; round++) await Promise.all([file.write(0, [block(round)]), file.sync("test.before")]);
		await disk.remove(`removed-${diskLane}`);
		for (let round = 0; round < 3; round++) {
			const [written, synced] = await Promise.allSettled([file.write(0, [block(1)]), file.sync("test.removed")]);
			assert.equal(written.status, "fulfilled");
			assert.equal(synced.status === "rejected" && (synced.reason as { code?: string }).code, "ENOENT");
			await assert.rejects(file.sync("test.removed"), { code: "ENOENT" });
			await Promise.all([well.write(0, [block(round)]), well.sync("test.well")]);
			assert.deepEqual(await well.read(0, blockBytes), block(round));
		}
		// Calls that are out when it is closed settle.
		const last = [well.write(0, [block(9)]), well.sync("test.last")];
		await disk.close();
		await Promise.all(last);
	});
}

test("a disk that nobody asks takes no processor time, and answers who asks then", async () => {
	const disk = await createRealPlatform().openDisk(folder);
	const file = await disk.open("idle", { create: true });
	for (let round = 0; round < 2; round++) {
		for (let i = 0; i < 200; i++) await file.write(i, [block(i)]);
		const before = process.cpuUsage();
		// Longer than it takes until the thread's event loop has had its turn.
		await setTimeout(1_500);
		const { user, system } = process.cpuUsage(before);
		assert.ok(user + system < 700_000, `${user + system} microseconds`);
	}
	assert.equal(await file.size(), 199 + blockBytes);
	await disk.close();
});
