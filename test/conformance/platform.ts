/**
 * What every Platform does. Registered for the real and the simulated one:
 *
 *     platformConformance("sim", async () => harness)
 */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Deferred } from "../../src/base/async.ts";
import type { ErrorCode } from "../../src/base/errors.ts";
import { isFsError } from "../../src/base/errors.ts";
import { compareTime } from "../../src/base/time.ts";
import { crc32cPortable } from "../../src/codec/checksum.ts";
import type { ShardWork } from "../../src/codec/interface.ts";
import { doShardWork } from "../../src/codec/shard-work.ts";
import type { Coder, Connection, Disk, Platform, Peer, TcpConnection } from "../../src/platform/interface.ts";

export interface PlatformHarness {
	readonly platform: Platform;
	/** Another process on the same machine, or as close to it as the harness comes. */
	readonly other: Platform;
	/** An empty disk; at most four. */
	addDisk(): Promise<string>;
	/** A folder for host files that exists. */
	readonly home: string;
	/** Runs `work`; the simulated world drives its clock here. */
	run(work: () => Promise<void>): Promise<void>;
	/** The disk disappears under its users. */
	vanish(path: string): Promise<void>;
	/** A disk with all its contents is replaced by an empty one at the same path. */
	replace(path: string): Promise<void>;
	/** An empty disk of about 4 MiB, where one can be made. */
	addSmallDisk(): Promise<string | undefined>;
	/** Makes every call on the disk hang until `unhang`. */
	hang(path: string): Promise<void>;
	unhang(path: string): Promise<void>;
	readonly memoryName: string;
	close(): Promise<void>;
}

function code(expected: ErrorCode): (error: unknown) => boolean {
	return (error) => {
		if (!isFsError(error)) throw error;
		assert.equal(error.code, expected, error.message);
		assert.match(error.site, /^platform\./);
		return true;
	};
}

function pattern(length: number, start: number): Uint8Array {
	return Uint8Array.from({ length }, (_, i) => (start + i * 7 + (i >> 8)) & 255);
}

export function platformConformance(name: string, makeHarness: () => Promise<PlatformHarness>): void {
	function test(what: string, body: (harness: PlatformHarness) => Promise<void>): void {
		it(what, async () => {
			const harness = await makeHarness();
			try {
				await harness.run(() => body(harness));
			} finally {
				await harness.close();
			}
		});
	}

	/** With an open disk. */
	function diskTest(what: string, body: (disk: Disk, harness: PlatformHarness, path: string) => Promise<void>): void {
		test(what, async (harness) => {
			const path = await harness.addDisk();
			const disk = await harness.platform.openDisk(path);
			try {
				await body(disk, harness, path);
			} finally {
				await disk.close();
			}
		});
	}

	describe(`platform ${name}: coder`, () => {
		test("makes shards and checksums as anybody else does, of many works at once, in their order", async ({ platform }) => {
			const coder = await readyCoder(platform);
			const order: number[] = [];
			const begun: { readonly work: ShardWork; readonly sums: Promise<Uint32Array> }[] = [];
			for (let i = 0; i < 9; i++) {
				const work = shardWork(4096 * (1 + ((i * 5) % 7)), i, i % 3 === 2);
				const sums = coder.begin(work);
				assert.ok(sums, `work ${i} is taken`);
				void sums.then(() => order.push(i));
				begun.push({ work, sums });
			}
			for (const { work, sums } of begun) {
				const expected = { ...work, targets: work.targets.map((target) => new Uint8Array(target.length)) };
				const expectedSums = doShardWork(expected);
				assert.deepEqual(await sums, expectedSums);
				for (const [at, target] of work.targets.entries()) assert.deepEqual(new Uint8Array(target), expected.targets[at]);
			}
			assert.deepEqual(
				order,
				begun.map((_, i) => i),
			);
		});

		test("sums what nothing is to be made from", async ({ platform }) => {
			const coder = await readyCoder(platform);
			const { sources } = shardWork(8192, 3);
			const work = { ...shardWork(8192, 3), dataShards: 1, present: [0], sources: sources.slice(0, 1), wanted: [], targets: [] };
			assert.deepEqual(await coder.begin(work), doShardWork(work));
		});

		test("takes shared memory only, and no more than some works at once", async ({ platform }) => {
			const coder = await readyCoder(platform);
			const work = shardWork(4096, 1);
			const own = (shards: readonly Uint8Array[]) => shards.map((shard) => new Uint8Array(shard));
			assert.throws(() => coder.begin({ ...work, sources: own(work.sources) }), /shared memory/);
			assert.throws(() => coder.begin({ ...work, targets: own(work.targets) }), /shared memory/);
			const begun = Array.from({ length: 200 }, (_, i) => coder.begin(shardWork(4096, i)));
			const taken = begun.filter((one) => one !== undefined);
			assert.ok(taken.length >= 8 && taken.length < 200, `${taken.length} works are taken`);
			await Promise.all(taken);
			assert.ok(coder.begin(shardWork(4096, 1)), "it takes more when these are done");
		});
	});

	describe(`platform ${name}: disks`, () => {
		test("refuses a disk that is not there", async ({ platform, home }) => {
			await assert.rejects(platform.openDisk(`${home}/absent`), code("ENOENT"));
		});

		diskTest("writes parts, reads them back, reads short only at the end", async (disk) => {
			const file = await disk.open("f", { create: true });
			await file.write(3, [pattern(5, 1), new Uint8Array(0), pattern(5000, 9)]);
			assert.equal(await file.size(), 5008);
			const all = await file.read(0, 10_000);
			assert.deepEqual(all, new Uint8Array([0, 0, 0, ...pattern(5, 1), ...pattern(5000, 9)]));
			assert.deepEqual(await file.read(5000, 100), pattern(5000, 9).subarray(4992));
			assert.equal((await file.read(5008, 10)).length, 0);
			assert.equal((await file.read(1 << 20, 10)).length, 0);
			assert.equal((await file.read(0, 0)).length, 0);
		});

		diskTest("lends what it reads: every borrower has bytes of its own until the release, short only at the end", async (disk) => {
			const file = await disk.open("f", { create: true });
			const length = 300_000;
			const contents = pattern(length, 3);
			await file.write(0, [contents]);
			for (let round = 0; round < 3; round++) {
				const ranges = [
					[0, length],
					[1, 70_000],
					[250_000, 100_000],
					[5, 10],
					[length, 40_000],
				] as const;
				const all = await Promise.all(ranges.map(([offset, lengthBytes]) => file.borrow(offset, lengthBytes)));
				for (const [i, { bytes }] of all.entries()) {
					const [offset, lengthBytes] = ranges[i] as readonly [number, number];
					assert.deepEqual(new Uint8Array(bytes), contents.subarray(offset, offset + lengthBytes), `range ${i}, round ${round}`);
				}
				for (const lent of all) lent.release();
			}
			await assert.rejects(file.borrow(-1, 100_000), code("EINVAL"));
		});

		diskTest("sums what it lends, where it does, block by block from where the read began", async (disk) => {
			const file = await disk.open("f", { create: true });
			const contents = pattern(300_000, 3);
			await file.write(0, [contents]);
			let summed = 0;
			for (const [offset, lengthBytes] of [
				[0, 300_000],
				[4096, 200_000],
				[777, 131_072],
				[200_000, 150_000],
				[8192, 4096],
				[299_000, 200_000],
				[300_000, 140_000],
			] as const) {
				const lent = await file.borrow(offset, lengthBytes, 4096);
				const bytes = contents.subarray(offset, offset + lengthBytes);
				assert.deepEqual(new Uint8Array(lent.bytes), bytes);
				if (lent.sums !== undefined) {
					summed++;
					const blocks = Array.from({ length: Math.floor(bytes.length / 4096) }, (_, i) => bytes.subarray(i * 4096, (i + 1) * 4096));
					assert.deepEqual(
						[...lent.sums],
						blocks.map((block) => crc32cPortable(block)),
						`[${offset}, +${lengthBytes})`,
					);
				}
				lent.release();
				const plain = await file.borrow(offset, lengthBytes);
				assert.equal(plain.sums, undefined, "nobody asked for them");
				plain.release();
			}
			assert.ok(summed > 0, "some are summed");
		});

		diskTest("copies small views of large buffers and takes shared memory", async (disk) => {
			const file = await disk.open("f", { create: true });
			const large = pattern(1 << 20, 5);
			const shared = new Uint8Array(new SharedArrayBuffer(1000));
			shared.set(pattern(1000, 77));
			await file.write(0, [large.subarray(1000, 1010), shared.subarray(10, 20), large.subarray(20, 21), large.subarray(30, 32)]);
			const expected = [...large.subarray(1000, 1010), ...shared.subarray(10, 20), ...large.subarray(20, 21), ...large.subarray(30, 32)];
			assert.deepEqual(await file.read(0, 100), new Uint8Array(expected));
			assert.equal(large.length, 1 << 20);
		});

		diskTest("gives reads that belong to the caller", async (disk) => {
			const file = await disk.open("f", { create: true });
			await file.write(0, [pattern(100, 1)]);
			const first = await file.read(0, 100);
			first.fill(0);
			assert.deepEqual(await file.read(0, 100), pattern(100, 1));
		});

		diskTest("writes thousands of parts in one call", async (disk) => {
			const file = await disk.open("f", { create: true });
			const shared = new Uint8Array(new SharedArrayBuffer(3));
			shared.set([1, 2, 3]);
			await file.write(
				0,
				Array.from({ length: 2500 }, () => shared),
			);
			const all = await file.read(0, 10_000);
			assert.equal(all.length, 7500);
			assert.ok(all.every((byte, i) => byte === 1 + (i % 3)));
		});

		diskTest("truncates down and up, and shows zeros", async (disk) => {
			const file = await disk.open("f", { create: true });
			await file.write(0, [pattern(10_000, 1)]);
			await file.truncate(100);
			await file.truncate(9000);
			assert.equal(await file.size(), 9000);
			const all = await file.read(0, 20_000);
			assert.deepEqual(all.subarray(0, 100), pattern(10_000, 1).subarray(0, 100));
			assert.ok(all.subarray(100).every((byte) => byte === 0) && all.length === 9000);
		});

		diskTest("discards a range without changing the size", async (disk) => {
			const file = await disk.open("f", { create: true });
			await file.write(0, [pattern(40_000, 1)]);
			await file.discard(5000, 20_000);
			await file.discard(39_000, 1 << 20);
			const all = await file.read(0, 50_000);
			const expected = pattern(40_000, 1).fill(0, 5000, 25_000).fill(0, 39_000);
			assert.deepEqual(all, expected);
		});

		diskTest("tells what a file takes: all that was written, and no longer what was discarded", async (disk) => {
			const file = await disk.open("f", { create: true });
			assert.equal(await file.held(), 0);
			await file.write(0, [pattern(1 << 20, 1)]);
			await file.write(4 << 20, [pattern(1 << 20, 2)]);
			await file.sync("test.file");
			const full = await file.held();
			assert.ok(full >= 2 << 20 && full < 3 << 20, `${full} bytes`);
			await file.discard(0, 1 << 20);
			await file.sync("test.file");
			const less = await file.held();
			assert.ok(less <= full && less >= 1 << 20, `${less} bytes of ${full}`);
		});

		diskTest("forgets what the host remembers, not what was written", async (disk) => {
			const file = await disk.open("f", { create: true });
			await file.write(0, [pattern(40_000, 1)]);
			await file.uncache(0, 40_000);
			assert.deepEqual(await file.read(0, 40_000), pattern(40_000, 1), "not synced yet");
			await file.sync("test.file");
			await file.uncache(4096, 20_000);
			await file.uncache(30_000, 1 << 20);
			assert.deepEqual(await file.read(0, 50_000), pattern(40_000, 1));
		});

		diskTest("makes folders with files, lists them, removes files", async (disk) => {
			for (const file of ["b", "a", "pack/2", "pack/1", "kv/deep/x"]) await disk.open(file, { create: true });
			assert.deepEqual(await disk.list(""), ["a", "b", "kv/", "pack/"]);
			assert.deepEqual(await disk.list("pack"), ["1", "2"]);
			assert.deepEqual(await disk.list("kv"), ["deep/"]);
			assert.deepEqual(await disk.list("absent"), []);
			await disk.syncNames("kv/deep", "test.names");
			await disk.syncNames("absent/folder", "test.names");
			await disk.remove("pack/1");
			await disk.remove("pack/1");
			await disk.remove("absent/1");
			await disk.syncNames("pack", "test.names");
			assert.deepEqual(await disk.list("pack"), ["2"]);
			await assert.rejects(disk.open("pack/1"), code("ENOENT"));
			await assert.rejects(disk.open("absent/1"), code("ENOENT"));
		});

		diskTest("opens what exists without emptying it, twice if asked", async (disk) => {
			const first = await disk.open("f", { create: true });
			await first.write(0, [pattern(10, 1)]);
			const second = await disk.open("f", { create: true });
			await second.write(10, [pattern(10, 2)]);
			assert.equal(await first.size(), 20);
			await first.close();
			await first.close();
			await assert.rejects(first.read(0, 1), code("EBADF"));
			assert.equal((await second.read(0, 100)).length, 20);
		});

		diskTest("refuses names that lead elsewhere and ranges that are none", async (disk) => {
			for (const bad of ["", "/etc/passwd", "..", "a/../../b", "a//b", "a/", ".", "a\0b", "ä"]) {
				await assert.rejects(disk.open(bad, { create: true }), code("EINVAL"), JSON.stringify(bad));
				await assert.rejects(disk.remove(bad), code("EINVAL"));
			}
			await assert.rejects(disk.list("../x"), code("EINVAL"));
			const file = await disk.open("f", { create: true });
			await assert.rejects(file.read(-1, 1), code("EINVAL"));
			await assert.rejects(file.write(0.5, [pattern(1, 1)]), code("EINVAL"));
			await assert.rejects(file.truncate(Number.NaN), code("EINVAL"));
		});

		diskTest("executes calls in the order in which they are made", async (disk) => {
			const file = await disk.open("f", { create: true });
			const order: number[] = [];
			const calls: Promise<unknown>[] = [];
			for (let i = 0; i < 300; i++) {
				calls.push(file.write(0, [pattern(64, i)]).then(() => order.push(2 * i)));
				calls.push(
					file.read(0, 64).then((bytes) => {
						assert.deepEqual(bytes, pattern(64, i), `read ${i}`);
						order.push(2 * i + 1);
					}),
				);
			}
			await Promise.all(calls);
			assert.deepEqual(
				order,
				Array.from({ length: 600 }, (_, i) => i),
			);
		});

		diskTest("keeps everything over close and open", async (disk, { platform }, path) => {
			const file = await disk.open("pack/f", { create: true });
			await file.write(0, [pattern(9000, 3)]);
			await file.sync("test.data");
			await disk.syncNames("pack", "test.names");
			await disk.close();
			await disk.close();
			await assert.rejects(disk.list(""), code("EBADF"));
			const again = await platform.openDisk(path);
			assert.deepEqual(await (await again.open("pack/f")).read(0, 10_000), pattern(9000, 3));
			await again.close();
		});

		diskTest("locks against every other opener until closed", async (disk, { platform, other }, path) => {
			await disk.lock();
			await disk.lock();
			for (const who of [platform, other]) {
				const second = await who.openDisk(path);
				await assert.rejects(second.lock(), code("EBUSY"));
				await second.close();
			}
			assert.deepEqual(await disk.list(""), [], "a lock leaves no file behind");
			await disk.close();
			const third = await other.openDisk(path);
			await third.lock();
			await third.close();
		});

		diskTest("tells space and domain", async (disk, { platform, addDisk }) => {
			const { capacityBytes, freeBytes } = await disk.space();
			assert.ok(capacityBytes > 1 << 20 && freeBytes > 0 && freeBytes <= capacityBytes, `${freeBytes} of ${capacityBytes}`);
			const second = await platform.openDisk(await addDisk());
			assert.ok(disk.domain.length > 0 && second.domain.length > 0);
			await second.close();
		});

		diskTest("notices that it vanished: sync, names and probe protect nothing any more", async (disk, { vanish }, path) => {
			const file = await disk.open("pack/f", { create: true });
			await file.write(0, [pattern(10, 1)]);
			await file.sync("test.data");
			await disk.probe();
			await vanish(path);
			await assert.rejects(file.sync("test.data"), code("ENODEV"));
			await assert.rejects(disk.syncNames("pack", "test.names"), code("ENODEV"));
			await assert.rejects(disk.probe(), code("ENODEV"));
			await assert.rejects(disk.open("new", { create: true }), code("ENODEV"));
			await assert.rejects(disk.list(""), code("ENODEV"));
		});

		diskTest("notices that another disk is in its place", async (disk, { platform, replace }, path) => {
			const file = await disk.open("superblock", { create: true });
			await file.write(0, [pattern(10, 1)]);
			await file.sync("test.data");
			await replace(path);
			await assert.rejects(file.sync("test.data"), code("ENODEV"));
			await assert.rejects(disk.syncNames("", "test.names"), code("ENODEV"));
			await assert.rejects(disk.probe(), code("ENODEV"));
			const again = await platform.openDisk(path);
			assert.deepEqual(await again.list(""), []);
			await again.probe();
			await again.close();
		});

		diskTest("does not claim that a removed file is safe", async (disk) => {
			const file = await disk.open("f", { create: true });
			await file.write(0, [pattern(10, 1)]);
			await disk.remove("f");
			await assert.rejects(file.sync("test.data"), code("ENOENT"));
			const again = await disk.open("f", { create: true });
			assert.equal(await again.size(), 0);
			await again.sync("test.data");
			await disk.probe();
		});

		it("says ENOSPC when it is full, and keeps what it has", async (context) => {
			const harness = await makeHarness();
			try {
				await harness.run(async () => {
					const path = await harness.addSmallDisk();
					if (path === undefined) context.skip("no small disk can be made here");
					else await fillUp(await harness.platform.openDisk(path));
				});
			} finally {
				await harness.close();
			}
		});

		it("keeps space that is set aside from everybody else, and gives it back at once", async (context) => {
			const harness = await makeHarness();
			try {
				await harness.run(async () => {
					const path = await harness.addSmallDisk();
					if (path === undefined) return context.skip("no small disk can be made here");
					const disk = await harness.platform.openDisk(path);
					if (disk.setAside === undefined) context.skip("all of its space is the volume's");
					else await setAside(disk, disk.setAside.bind(disk));
				});
			} finally {
				await harness.close();
			}
		});

		diskTest("holds up no other disk when it hangs", async (disk, { platform, addDisk, hang, unhang }, path) => {
			const file = await disk.open("f", { create: true });
			const second = await platform.openDisk(await addDisk());
			await hang(path);
			let done = false;
			const stuck = file.write(0, [pattern(10, 1)]).then(() => {
				done = true;
			});
			const healthy = await second.open("g", { create: true });
			for (let i = 0; i < 20; i++) await healthy.write(i * 10, [pattern(10, i)]);
			await healthy.sync("test.data");
			await second.close();
			assert.equal(done, false);
			assert.notEqual(disk.activity?.().state, "idle", "it says itself that it is in a call");
			const { finished } = disk.activity?.() ?? { finished: 0 };
			await unhang(path);
			await stuck;
			assert.equal(disk.activity?.().finished, finished + 1);
			assert.deepEqual(await file.read(0, 10), pattern(10, 1));
		});
	});

	describe(`platform ${name}: memory`, () => {
		test("outlives its opener and is made anew in another size", async ({ platform, other, memoryName }) => {
			const memory = await platform.openMemory(memoryName, 1 << 20);
			assert.equal(memory.existed, false);
			assert.ok(memory.bytes.length === 1 << 20 && memory.bytes.every((byte) => byte === 0));
			memory.bytes.set(pattern(1000, 1), 5000);
			await memory.close();
			const again = await other.openMemory(memoryName, 1 << 20);
			assert.equal(again.existed, true);
			assert.deepEqual(again.bytes.slice(5000, 6000), pattern(1000, 1));
			const head = await other.memoryHead(memoryName, 5010);
			assert.deepEqual([head?.sizeBytes, head?.bytes.slice(5000)], [1 << 20, pattern(1000, 1).slice(0, 10)]);
			assert.equal((await other.memoryHead(memoryName, 2 << 20))?.bytes.length, 1 << 20);
			await again.close();
			await again.close();
			const other2 = await platform.openMemory(memoryName, 1 << 19);
			assert.equal(other2.existed, false);
			assert.ok(other2.bytes.length === 1 << 19 && other2.bytes.every((byte) => byte === 0));
			await other2.close();
			await platform.removeMemory(memoryName);
			assert.equal(await platform.memoryHead(memoryName, 10), undefined);
			await platform.removeMemory(memoryName);
			assert.equal((await platform.openMemory(memoryName, 4096)).existed, false);
			await platform.removeMemory(memoryName);
		});

		test("refuses names that lead elsewhere", async ({ platform }) => {
			for (const bad of ["", "../x", "a/b", ".x", "x".repeat(201)]) {
				await assert.rejects(platform.openMemory(bad, 4096), code("EINVAL"));
				await assert.rejects(platform.removeMemory(bad), code("EINVAL"));
			}
			await assert.rejects(platform.openMemory("a", 0), code("EINVAL"));
		});
	});

	describe(`platform ${name}: host files`, () => {
		test("reads, writes whole, lists, removes", async ({ platform: { files }, home }) => {
			assert.equal(await files.read(`${home}/a`), undefined);
			assert.equal(await files.kind(`${home}/a`), undefined);
			assert.deepEqual(await files.list(`${home}/absent`), []);
			await files.write(`${home}/x/y/a`, pattern(10, 1));
			await files.write(`${home}/x/y/a`, pattern(20, 2));
			assert.deepEqual(await files.read(`${home}/x/y/a`), pattern(20, 2));
			assert.equal(await files.kind(`${home}/x/y/a`), "file");
			assert.equal(await files.kind(`${home}/x`), "directory");
			await files.write(`${home}/x/b`, new Uint8Array(0));
			assert.deepEqual(await files.read(`${home}/x/b`), new Uint8Array(0));
			assert.deepEqual(await files.list(`${home}/x`), ["b", "y"]);
			await assert.rejects(files.remove(`${home}/x/y`), code("ENOTEMPTY"));
			await files.remove(`${home}/x/y/a`);
			await files.remove(`${home}/x/y/a`);
			await files.remove(`${home}/x/y`);
			assert.deepEqual(await files.list(`${home}/x`), ["b"]);
			await files.makeFolder(`${home}/m/n`);
			await files.makeFolder(`${home}/m/n`);
			assert.equal(await files.kind(`${home}/m/n`), "directory");
			await files.probe(`${home}/m/n`);
			await assert.rejects(files.probe(`${home}/m/none`), code("ENOENT"));
			await assert.rejects(files.write(`${home}/m/n`, pattern(1, 1)), code("EISDIR"));
			await assert.rejects(files.read(`${home}/m/n`), code("EISDIR"));
		});
	});

	describe(`platform ${name}: sockets`, () => {
		test("carries bytes both ways and tells the end after the last of them", async ({ platform, other, home }) => {
			const path = `${home}/s`;
			const seen: number[] = [];
			const listener = await platform.sockets.listen(path, (connection) => {
				connection.onData((bytes) => {
					seen.push(...bytes);
					void connection.write(bytes.map((byte) => byte + 1));
				});
				connection.onClose(() => seen.push(-1));
			});
			assert.equal(await platform.files.kind(path), "socket");
			const connection = await other.sockets.connect(path);
			const answers: number[] = [];
			const enough = received(connection, 6, answers);
			await connection.write(new Uint8Array([1, 2, 3]));
			await connection.write(new Uint8Array([10, 20, 30]));
			await enough;
			assert.deepEqual(answers, [2, 3, 4, 11, 21, 31]);
			const ended = new Promise<void>((resolve) => connection.onClose(resolve));
			connection.close();
			connection.close();
			await ended;
			await assert.rejects(connection.write(new Uint8Array([1])), code("ENOTCONN"));
			while (seen.at(-1) !== -1) await platform.clock.sleep(1);
			assert.deepEqual(seen, [1, 2, 3, 10, 20, 30, -1]);
			await listener.close();
		});

		test("keeps what arrives before anybody asks, in order, and the end for last", async ({ platform, other, home }) => {
			const path = `${home}/s`;
			const seen: number[] = [];
			const accepted = new Deferred<Connection>();
			const listener = await platform.sockets.listen(path, (one) => accepted.resolve(one));
			const connection = await other.sockets.connect(path);
			await connection.write(new Uint8Array([1, 2]));
			await connection.write(new Uint8Array([3]));
			connection.close();
			const late = await accepted.promise;
			await platform.clock.sleep(5);
			await new Promise<void>((resolve) => {
				late.onClose(resolve);
				late.onData((bytes) => seen.push(...bytes));
			});
			assert.deepEqual(seen, [1, 2, 3]);
			await listener.close();
		});

		test("refuses where nobody listens, and a second listener", async ({ platform, other, home }) => {
			const path = `${home}/s`;
			await assert.rejects(platform.sockets.connect(path), code("ENOENT"));
			const listener = await platform.sockets.listen(path, () => {});
			await assert.rejects(
				other.sockets.listen(path, () => {}),
				code("EBUSY"),
			);
			await listener.close();
			await assert.rejects(platform.sockets.connect(path), (error) => isFsError(error, "ENOENT") || isFsError(error, "ENOTCONN"));
			const again = await other.sockets.listen(path, () => {});
			await again.close();
		});
	});

	describe(`platform ${name}: network`, () => {
		test("TCP carries bytes both ways, parts in one piece, and tells the end", async ({ platform, other }) => {
			const accepted = new Deferred<TcpConnection>();
			const listener = await platform.network.listenTcp("127.0.0.1", 0, (one) => accepted.resolve(one));
			const near = await other.network.connectTcp({ address: "127.0.0.1", port: listener.port });
			const far = await accepted.promise;
			assert.deepEqual([near.remote, far.remote.address], [{ address: "127.0.0.1", port: listener.port }, "127.0.0.1"]);
			const seen: number[] = [];
			const enough = received(far, 6, seen);
			await Promise.all([near.writeParts([pattern(1, 1), pattern(2, 2)]), near.writeParts([pattern(3, 3)])]);
			await enough;
			assert.deepEqual(seen, [...pattern(1, 1), ...pattern(2, 2), ...pattern(3, 3)]);
			const ended = new Promise<void>((resolve) => near.onClose(resolve));
			near.onData(() => {});
			far.destroy();
			await ended;
			await assert.rejects(far.writeParts([pattern(1, 1)]), code("ENOTCONN"));
			await assert.rejects(
				other.network.listenTcp("127.0.0.1", listener.port, () => {}),
				code("EBUSY"),
			);
			await listener.close();
			await assert.rejects(other.network.connectTcp({ address: "127.0.0.1", port: listener.port }), code("ENOTCONN"));
		});

		test("whoever is paused gets nothing, and its writer waits in the end", async ({ platform, other }) => {
			const accepted = new Deferred<TcpConnection>();
			const listener = await platform.network.listenTcp("127.0.0.1", 0, (one) => accepted.resolve(one));
			const near = await other.network.connectTcp({ address: "127.0.0.1", port: listener.port });
			const far = await accepted.promise;
			let bytesSeen = 0;
			far.pause();
			far.onData((bytes) => {
				bytesSeen += bytes.length;
			});
			far.pause();
			const total = 64 << 20;
			let written = false;
			const writing = near.writeParts([new Uint8Array(total)]).then(() => {
				written = true;
			});
			await platform.clock.sleep(50);
			assert.equal(written, false, "more than the buffers between hold");
			assert.ok(bytesSeen <= 1 << 20, `${bytesSeen} bytes while paused`);
			far.resume();
			await writing;
			while (bytesSeen < total) await platform.clock.sleep(1);
			assert.equal(bytesSeen, total);
			near.close();
			await listener.close();
		});

		test("closing a listener ends its connections", async ({ platform, other }) => {
			const listener = await platform.network.listenTcp("127.0.0.1", 0, () => {});
			const near = await other.network.connectTcp({ address: "127.0.0.1", port: listener.port });
			const ended = new Promise<void>((resolve) => near.onClose(resolve));
			near.onData(() => {});
			await listener.close();
			await ended;
		});

		test("UDP carries datagrams and says from whom", async ({ platform, other }) => {
			const heard = new Deferred<{ readonly bytes: Uint8Array; readonly from: Peer }>();
			const back = new Deferred<Uint8Array>();
			const far = await platform.network.bindUdp("127.0.0.1", 0, (bytes, from) => heard.resolve({ bytes, from }));
			const near = await other.network.bindUdp("127.0.0.1", 0, (bytes) => back.resolve(bytes));
			await near.send(pattern(3, 100), { address: "127.0.0.1", port: far.port });
			const { bytes, from } = await heard.promise;
			assert.deepEqual([[...bytes], from], [[...pattern(3, 100)], { address: "127.0.0.1", port: near.port }]);
			await far.send(pattern(4, 10), from);
			assert.deepEqual([...(await back.promise)], [...pattern(4, 10)]);
			await assert.rejects(
				other.network.bindUdp("127.0.0.1", far.port, () => {}),
				code("EBUSY"),
			);
			await far.close();
			await near.close();
		});
	});

	describe(`platform ${name}: clock and chance`, () => {
		test("time goes on, timers fire in order, cancelled ones do not", async ({ platform: { clock } }) => {
			const start = clock.monotonicMs();
			const realStart = clock.realtime();
			const fired: string[] = [];
			clock.after(20, () => fired.push("late"));
			clock.after(5, () => fired.push("early"));
			const cancel = clock.after(6, () => fired.push("cancelled"));
			cancel();
			cancel();
			await clock.sleep(40);
			assert.deepEqual(fired, ["early", "late"]);
			assert.ok(clock.monotonicMs() - start >= 39, `${clock.monotonicMs() - start} ms`);
			assert.ok(compareTime(clock.realtime(), realStart) > 0);
			await clock.yield();
		});

		test("wall time never goes back within a burst, and is a valid timestamp", async ({ platform: { clock } }) => {
			let last = clock.realtime();
			for (let i = 0; i < 20_000; i++) {
				const now = clock.realtime();
				assert.ok(compareTime(now, last) >= 0, `${now.seconds}.${now.nanoseconds} after ${last.seconds}.${last.nanoseconds}`);
				assert.ok(Number.isSafeInteger(now.seconds) && Number.isInteger(now.nanoseconds) && now.nanoseconds >= 0 && now.nanoseconds < 1e9);
				last = now;
			}
		});

		test("chance stays within its bounds and reaches them", async ({ platform: { random } }) => {
			const seen = new Set<number>();
			for (let i = 0; i < 500; i++) seen.add(random.below(5));
			assert.deepEqual([...seen].sort(), [0, 1, 2, 3, 4]);
			for (let i = 0; i < 100; i++) {
				const large = random.below(0x20_0000_0000_0000);
				assert.ok(Number.isSafeInteger(large) && large >= 0);
				const word = random.u32();
				assert.ok(Number.isInteger(word) && word >= 0 && word <= 0xffff_ffff);
			}
			assert.equal(random.below(1), 0);
			assert.notDeepEqual(random.bytes(16), random.bytes(16));
			assert.equal(random.bytes(7).length, 7);
		});
	});
}

/** A coder that has come up. */
async function readyCoder({ coder, clock }: Platform): Promise<Coder> {
	assert.ok(coder);
	for (let i = 0; i < 5000; i++) {
		const done = coder.begin(shardWork(4096, i));
		if (done !== undefined) {
			await done;
			return coder;
		}
		await clock.sleep(2);
	}
	throw new Error("the coder never came up");
}

/** 4+2: parity from data, or data 1 and parity 4 from the others. */
function shardWork(lengthBytes: number, seed: number, isRepair = false): ShardWork {
	const shared = (at: number) => {
		const bytes = new Uint8Array(new SharedArrayBuffer(lengthBytes));
		bytes.set(pattern(lengthBytes, seed * 31 + at));
		return bytes;
	};
	const [present, wanted] = isRepair
		? [
				[0, 2, 3, 5],
				[1, 4],
			]
		: [
				[0, 1, 2, 3],
				[4, 5],
			];
	return {
		dataShards: 4,
		parityShards: 2,
		present,
		sources: present.map(shared),
		wanted,
		targets: wanted.map((index) => shared(index + 100)),
		blockBytes: 4096,
		sums: isRepair ? "targets" : "all",
	};
}

async function fillUp(disk: Disk): Promise<void> {
	const file = await disk.open("f", { create: true });
	await file.write(0, [pattern(4096, 1)]);
	const big = new Uint8Array(1 << 20).fill(7);
	const fill = async () => {
		for (let i = 0; i < 8; i++) await file.write(4096 + i * big.length, [big]);
	};
	await assert.rejects(fill(), code("ENOSPC"));
	assert.deepEqual(await file.read(0, 4096), pattern(4096, 1));
	assert.ok((await disk.space()).freeBytes < big.length);
	await file.truncate(4096);
	await file.write(4096, [big]);
	await file.sync("test.data");
	await disk.close();
}

async function setAside(disk: Disk, take: (name: string, sizeBytes: number, site: string) => Promise<number>): Promise<void> {
	const { freeBytes } = await disk.space();
	const some = 1 << 20;
	assert.equal(await take("kv/aside", some, "test.aside"), some);
	const after = (await disk.space()).freeBytes;
	assert.ok(after <= freeBytes - some, `${freeBytes - after} bytes are taken`);
	assert.equal(await take("kv/aside", some, "test.aside"), some, "asked for once more");
	const file = await disk.open("f", { create: true });
	const piece = new Uint8Array(1 << 18).fill(7);
	let at = 0;
	const fill = async () => {
		for (; at < 2 * freeBytes; at += piece.length) await file.write(at, [piece]);
	};
	await assert.rejects(fill(), code("ENOSPC"));
	assert.equal(await take("kv/aside", some / 2, "test.aside"), some / 2);
	await file.write(at, [piece]);
	await file.sync("test.data");
	const all = await take("kv/aside", 2 * freeBytes, "test.aside");
	assert.ok(all >= some / 2 && all < freeBytes, `${all} is what there is`);
	await assert.rejects(fill(), code("ENOSPC"));
	assert.equal(await take("kv/aside", 0, "test.aside"), 0);
	await disk.close();
}

function received(connection: Connection, count: number, into: number[]): Promise<void> {
	return new Promise((resolve) => {
		connection.onData((bytes) => {
			into.push(...bytes);
			if (into.length >= count) resolve();
		});
	});
}
