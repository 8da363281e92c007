/** Processes of shared-files.test.ts: `VERB FILE ...`. Ends with 0, or with 1 and what was wrong. */
import assert from "node:assert/strict";
import { closeSync, constants, fstatSync, fsyncSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import { open } from "node:fs/promises";
import { SeededRandom } from "../support/map-records.ts";
import { copyFileRange, falloc, fallocate, Mapped, reflink, seek } from "../support/syscalls.ts";

const [verb, path, ...words] = process.argv.slice(2) as [string, string, ...string[]];
const numbers = words.map(Number);
const blockBytes = 4096;

function file(flags = 0): number {
	return openSync(path, constants.O_RDWR | constants.O_CREAT | flags, 0o644);
}

function block(writer: number, index: number): Buffer {
	const bytes = Buffer.alloc(blockBytes, (writer * 31 + index) % 251);
	bytes.writeUInt32LE(writer, 0);
	bytes.writeUInt32LE(index, 4);
	return bytes;
}

/** `writers` at once (UV_THREADPOOL_SIZE of them): each its own blocks, in turns, with an fsync now and then; on top of them ranges that all of them write. */
async function writeTogether(writers: number, blocks: number): Promise<void> {
	const work = Array.from({ length: writers }, async (_, writer) => {
		const random = new SeededRandom(writer);
		const handle = await open(path, constants.O_RDWR | (writer % 8 === 7 ? constants.O_DIRECT : 0));
		for (let i = 0; i < blocks; i++) {
			const index = i * writers + writer;
			await handle.write(block(writer, index), 0, blockBytes, index * blockBytes);
			// Shared blocks lie in front of byte 0 of nobody: behind all others.
			const shared = writers * blocks + random.below(16);
			await handle.write(block(writer, shared), 0, blockBytes, shared * blockBytes);
			if (random.below(blocks) < 3) await handle.sync();
		}
		await handle.sync();
		await handle.close();
	});
	await Promise.all(work);
}

function checkTogether(writers: number, blocks: number): void {
	const fd = file();
	const got = Buffer.alloc(blockBytes);
	for (let index = 0; index < writers * blocks; index++) {
		assert.equal(readSync(fd, got, 0, blockBytes, index * blockBytes), blockBytes);
		assert.ok(got.equals(block(index % writers, index)), `block ${index} is not what writer ${index % writers} wrote`);
	}
	for (let shared = writers * blocks; shared < writers * blocks + 16; shared++) {
		const count = readSync(fd, got, 0, blockBytes, shared * blockBytes);
		if (count === 0 || got.every((byte) => byte === 0)) continue;
		assert.ok(got.equals(block(got.readUInt32LE(0), shared)), `shared block ${shared} is torn`);
	}
}

/** Truncations, writes and reads at once: a byte is zero or the one that belongs there. */
function disturb(seed: number, ms: number): void {
	const random = new SeededRandom(seed);
	const fd = file();
	const endMs = Date.now() + ms;
	const at = (position: number): number => 1 + (position % 127);
	const bytes = Buffer.alloc(50_000);
	for (let round = 0; Date.now() < endMs; round++) {
		const offset = random.below(400_000);
		const length = 1 + random.below(bytes.length);
		const choice = random.below(10);
		if (choice < 4) {
			for (let i = 0; i < length; i++) bytes[i] = at(offset + i);
			writeSync(fd, bytes, 0, length, offset);
		} else if (choice < 8) {
			const count = readSync(fd, bytes, 0, length, offset);
			for (let i = 0; i < count; i++)
				assert.ok(bytes[i] === 0 || bytes[i] === at(offset + i), `byte ${offset + i} is ${bytes[i]} in round ${round}`);
		} else if (choice < 9) ftruncateSync(fd, random.below(400_000));
		else if (random.chance(0.5)) fallocate(fd, falloc.PUNCH_HOLE | falloc.KEEP_SIZE, offset, length);
		else fsyncSync(fd);
	}
}

/** Two processes and one page: the first line of input says that the other side has done its part. */
async function mapping(): Promise<void> {
	const fd = file();
	ftruncateSync(fd, 20_000);
	const mapped = new Mapped(fd, 0, 20_000, "shared");
	mapped.bytes.set([1, 2, 3], 5000);
	console.log("stored");
	for await (const _ of process.stdin) break;
	assert.deepEqual([...mapped.bytes.subarray(9000, 9003)], [7, 8, 9], "what the other process wrote with write(2)");
	assert.deepEqual([...mapped.bytes.subarray(9100, 9103)], [4, 5, 6], "what the other process stored in its mapping");
	mapped.sync();
	mapped.close();
	process.stdin.destroy();
}

function mappingBeside(): void {
	const fd = file();
	const got = Buffer.alloc(3);
	assert.equal(readSync(fd, got, 0, 3, 5000), 3);
	assert.deepEqual([...got], [1, 2, 3], "read(2) sees what another process stored");
	const mapped = new Mapped(fd, 0, 20_000, "shared");
	assert.deepEqual([...mapped.bytes.subarray(5000, 5003)], [1, 2, 3], "and so does a mapping");
	assert.equal(seek(fd, 0, "data"), 4096, "and a search for data");
	mapped.bytes.set([4, 5, 6], 9100);
	writeSync(fd, Buffer.from([7, 8, 9]), 0, 3, 9000);
	assert.deepEqual([...mapped.bytes.subarray(9000, 9003)], [7, 8, 9], "a mapping sees write(2)");
	const alone = new Mapped(fd, 0, 20_000, "private");
	alone.bytes.fill(77);
	assert.equal(readSync(fd, got, 0, 3, 9000), 3);
	assert.deepEqual([...got], [7, 8, 9], "a private mapping changes nothing");
	alone.close();
	mapped.close();
}

function code(fn: () => unknown): string {
	try {
		fn();
		return "done";
	} catch (error) {
		return (error as { code?: string }).code ?? String(error);
	}
}

/** What every program may count on, call by call. */
function calls(): void {
	const fd = file();
	const direct = file(constants.O_DIRECT);
	const odd = Buffer.alloc(777, 5);
	assert.equal(writeSync(direct, odd, 0, 777, 13), 777, "O_DIRECT at any offset and length");
	assert.equal(readSync(fd, Buffer.alloc(100), 0, 100, 13), 100);
	writeSync(fd, Buffer.from("xyz"), 0, 3, 20);
	const got = Buffer.alloc(777);
	assert.equal(readSync(direct, got, 0, 777, 13), 777);
	assert.equal(got.toString("latin1", 7, 10), "xyz", "O_DIRECT reads see what was written beside");
	writeSync(direct, Buffer.from("abc"), 0, 3, 30);
	assert.equal(readSync(fd, got, 0, 3, 30), 3);
	assert.equal(got.toString("latin1", 0, 3), "abc", "no stale page after an O_DIRECT write");
	assert.equal(readSync(fd, got, 0, 10, 10 ** 9), 0, "beyond the end");
	assert.equal(readSync(fd, got, 0, 777, 785), 5, "across the end");
	ftruncateSync(fd, 2 ** 43);
	writeSync(fd, Buffer.from("far"), 0, 3, 2 ** 43 - 3);
	assert.equal(readSync(fd, got, 0, 10, 2 ** 43 - 5), 5);
	assert.equal(got.toString("latin1", 0, 5), "\0\0far");
	assert.equal(
		code(() => ftruncateSync(fd, 2 ** 52 + 1)),
		"EFBIG",
	);
	assert.equal(
		code(() => writeSync(fd, odd, 0, 10, 2 ** 52)),
		"EFBIG",
	);
	assert.equal(
		code(() => fallocate(fd, 0, 2 ** 52, 10)),
		"EFBIG",
	);
	assert.equal(
		code(() => fallocate(fd, 0, 0, 2 ** 42)),
		"ENOSPC",
	);
	for (const mode of [falloc.COLLAPSE_RANGE, falloc.INSERT_RANGE])
		assert.equal(
			code(() => fallocate(fd, mode, 0, 4096)),
			"ENOTSUP",
		);
	const other = openSync(`${path}.copy`, constants.O_RDWR | constants.O_CREAT);
	assert.equal(
		code(() => reflink(fd, other)),
		"ENOTSUP",
		"Linux asks no FUSE server for a reflink: the README says so",
	);
	assert.equal(
		code(() => copyFileRange(fd, 0, fd, 10, 20)),
		"EINVAL",
		"overlap",
	);
	assert.equal(copyFileRange(fd, 2 ** 43, other, 0, 20), 0, "from the end");
	ftruncateSync(fd, 2 ** 40);
	let copied = 0;
	for (let count = -1; count !== 0; copied += count) count = copyFileRange(fd, copied, other, copied, 2 ** 40);
	assert.equal(copied, 2 ** 40, "a terabyte of holes is copied at once");
	assert.ok(fstatSync(other).blocks < 100);
	for (const one of [fd, direct, other]) closeSync(one);
}

/** Behind `ulimit -f`; SIGXFSZ is ignored by the shell that started us. */
function limited(limit: number): void {
	const fd = file();
	assert.equal(writeSync(fd, Buffer.alloc(limit + 100), 0, limit + 100, 0), limit, "up to the limit");
	assert.equal(
		code(() => writeSync(fd, Buffer.alloc(10), 0, 10, limit)),
		"EFBIG",
	);
	assert.equal(
		code(() => ftruncateSync(fd, limit + 1)),
		"EFBIG",
	);
	assert.equal(
		code(() => fallocate(fd, 0, limit, 10)),
		"EFBIG",
	);
	assert.equal(
		code(() => copyFileRange(fd, 0, fd, limit, 10)),
		"EFBIG",
	);
	assert.equal(fstatSync(fd).size, limit);
}

const verbs: Readonly<Record<string, () => void | Promise<void>>> = {
	writeTogether: () => writeTogether(numbers[0] as number, numbers[1] as number),
	checkTogether: () => checkTogether(numbers[0] as number, numbers[1] as number),
	disturb: () => disturb(numbers[0] as number, numbers[1] as number),
	limited: () => limited(numbers[0] as number),
	mapping,
	mappingBeside,
	calls,
};

try {
	await (verbs[verb] as () => void | Promise<void>)();
} catch (error) {
	console.error(error instanceof Error ? error.stack : String(error));
	process.exitCode = 1;
}
