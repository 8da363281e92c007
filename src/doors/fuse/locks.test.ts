/** Requests for locks as the kernel sends them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLogger } from "../../base/telemetry.ts";
import type { ByteWriter } from "../../codec/binary.ts";
import type { Clock } from "../../platform/interface.ts";
import { maxConcurrentRequests } from "./limits.ts";
import { errnoOf, fopen, initFlags, lockTypes, opcodes } from "./protocol.ts";
import { type FuseServerOptions, serveFuse } from "./server.ts";
import { MemoryVolume } from "./test/memory-volume.ts";
import { body, FakeChannel, name, type Reply, request } from "./test/requests.ts";

const { READ, WRITE, UNLOCK } = lockTypes;
const both = initFlags.POSIX_LOCKS | initFlags.FLOCK_LOCKS;
const lastOffset = 2n ** 63n - 1n;

class Bench {
	readonly volume = new MemoryVolume();
	readonly channel = new FakeChannel();
	readonly server;
	unique = 0;
	ino = 0;

	constructor(options: FuseServerOptions = {}) {
		const clock = { monotonicMs: () => 0, after: () => () => {}, sleep: async () => {} } as Partial<Clock> as Clock;
		const modules = { volume: this.volume, channel: this.channel, platform: { clock }, logger: silentLogger };
		this.server = serveFuse(options, modules);
	}

	static async make(options: FuseServerOptions = {}, flags = 0xffff_ffff): Promise<Bench> {
		const bench = new Bench(options);
		await bench.send(opcodes.INIT, (w) => w.u32(7).u32(45).u32(0).u32(flags).u32(0).zeros(44));
		const made = await bench.send(opcodes.CREATE, (w) => name(w.u32(0o102).u32(0o100644).u32(0).u32(0), "f"), 1);
		bench.ino = Number(made.view.getBigUint64(0, true));
		return bench;
	}

	prepare(opcode: number, fill: (w: ByteWriter) => void, node = this.ino): Uint8Array {
		this.unique += 2;
		return request(opcode, this.unique, body(fill), { node });
	}

	send(opcode: number, fill: (w: ByteWriter) => void, node = this.ino): Promise<Reply> {
		return this.channel.send(this.prepare(opcode, fill, node));
	}

	async open(): Promise<{ readonly handle: number; readonly flags: number }> {
		const reply = await this.send(opcodes.OPEN, (w) => w.u32(0).u32(0));
		return { handle: Number(reply.view.getBigUint64(0, true)), flags: reply.view.getUint32(8, true) };
	}

	lock(opcode: number, handle: number, owner: bigint, type: number, start = 0n, end = lastOffset, flock = 0): Promise<Reply> {
		return this.send(opcode, (w) => {
			w.u64(handle);
			for (const value of [owner, start, end]) w.u32(Number(value & 0xffff_ffffn)).u32(Number(value >> 32n));
			w.u32(type)
				.u32(Number(owner & 0xffffn))
				.u32(flock)
				.u32(0);
		});
	}

	interrupt(unique: number): void {
		this.channel.post(this.prepare(opcodes.INTERRUPT, (w) => w.u64(unique)));
	}
}

const owner = 0xffff_8880_1234_0001n;
const other = 0xffff_8880_1234_0002n;

test("locks are the volume's where the kernel offers both kinds; otherwise the kernel's, and reading needs no FLUSH", async () => {
	for (const [options, flags, served] of [
		[{}, 0xffff_ffff, true],
		[{ locks: "kernel" }, 0xffff_ffff, false],
		[{}, 0xffff_ffff & ~initFlags.FLOCK_LOCKS, false],
	] as const) {
		const bench = await Bench.make(options, flags >>> 0);
		const init = bench.channel.replies[0] as Reply;
		assert.equal(init.view.getUint32(12, true) & both, served ? both : 0);
		const { flags: opened } = await bench.open();
		assert.equal((opened & fopen.NOFLUSH) === 0, served);
		await bench.server.stop();
	}
});

test("GETLK tells of the first lock in the way, with ends as fcntl(2) has them", async () => {
	const bench = await Bench.make();
	const { handle } = await bench.open();
	await bench.lock(opcodes.SETLK, handle, owner, WRITE, 2n ** 53n + 1n);
	await bench.lock(opcodes.SETLK, handle, owner, READ, 5n, 9n);
	const at = async (start: bigint, end: bigint, type: number, by = other): Promise<(bigint | number)[]> => {
		const { view, errno } = await bench.lock(opcodes.GETLK, handle, by, type, start, end);
		assert.equal(errno, 0);
		return [view.getBigUint64(0, true), view.getBigUint64(8, true), view.getUint32(16, true), view.getUint32(20, true)];
	};
	assert.deepEqual(await at(0n, lastOffset, WRITE), [5n, 9n, READ, 1]);
	assert.deepEqual(await at(0n, lastOffset, READ), [2n ** 53n + 1n, lastOffset, WRITE, 1]);
	assert.deepEqual(await at(0n, 2n ** 53n, READ), [0n, 2n ** 53n, UNLOCK, 0]);
	assert.deepEqual(await at(0n, lastOffset, WRITE, owner), [0n, lastOffset, UNLOCK, 0]);
	await bench.server.stop();
});

test("FLUSH ends what the process has of the file, RELEASE what was locked through the open file", async () => {
	const bench = await Bench.make();
	const [a, b] = [await bench.open(), await bench.open()];
	const held = (): number => bench.volume.locks.figures().held;
	await bench.lock(opcodes.SETLK, a.handle, owner, WRITE, 0n, 9n);
	await bench.lock(opcodes.SETLK, a.handle, other, WRITE, 20n, 29n);
	await bench.lock(opcodes.SETLK, a.handle, other, WRITE, 0n, lastOffset, 1);
	assert.equal(held(), 3);
	const flush = (handle: number, by: bigint): Promise<Reply> =>
		bench.send(opcodes.FLUSH, (w) =>
			w
				.u64(handle)
				.u64(0)
				.u32(Number(by & 0xffff_ffffn))
				.u32(Number(by >> 32n)),
		);
	await flush(b.handle, owner);
	assert.equal(held(), 2, "through whichever descriptor it is closed");
	await bench.send(opcodes.RELEASE, (w) => w.u64(b.handle).u32(0).u32(0).u64(0));
	assert.equal(held(), 2);
	await bench.send(opcodes.RELEASE, (w) => w.u64(a.handle).u32(0).u32(0).u64(0));
	assert.equal(held(), 0);
	await bench.server.stop();
});

test("a thousand who wait do not keep the one who lets go from coming through; each is answered once", async () => {
	const bench = await Bench.make();
	const files: number[] = [];
	for (let i = 0; i < 10; i++) {
		const made = await bench.send(opcodes.CREATE, (w) => name(w.u32(0o102).u32(0o100644).u32(0).u32(0), `f${i}`), 1);
		files.push(Number(made.view.getBigUint64(0, true)));
	}
	const waiting: Promise<Reply>[] = [];
	for (const ino of files) {
		bench.ino = ino;
		const { handle } = await bench.open();
		await bench.lock(opcodes.SETLK, handle, owner, WRITE);
		for (let i = 0; i < 100; i++) waiting.push(bench.lock(opcodes.SETLKW, handle, other + BigInt(i), READ));
	}
	assert.ok(waiting.length > maxConcurrentRequests && !bench.channel.paused);
	for (const ino of files) {
		bench.ino = ino;
		assert.equal((await bench.lock(opcodes.SETLK, 1, owner, UNLOCK)).errno, 0);
	}
	for (const { errno } of await Promise.all(waiting)) assert.equal(errno, 0);
	const uniques = bench.channel.replies.map(({ unique }) => unique);
	assert.equal(new Set(uniques).size, uniques.length);
	await bench.server.stop();
});

test("an interrupted wait is answered EINTR and lets those behind it go; other interrupts change nothing", async () => {
	const bench = await Bench.make();
	const { handle } = await bench.open();
	await bench.lock(opcodes.SETLK, handle, owner, READ);
	const writer = bench.lock(opcodes.SETLKW, handle, other, WRITE);
	const unique = bench.unique;
	const reader = bench.lock(opcodes.SETLKW, handle, other + 1n, READ);
	bench.interrupt(4);
	bench.interrupt(unique);
	bench.interrupt(unique);
	assert.equal((await writer).errno, errnoOf.EINTR);
	assert.equal((await reader).errno, 0);
	await bench.server.stop();
});

test("a circle is refused to a process, and goes on for open file descriptions", async () => {
	const bench = await Bench.make();
	const { handle } = await bench.open();
	const circle = async (): Promise<Promise<Reply>> => {
		await bench.lock(opcodes.SETLK, handle, owner, WRITE, 0n, 0n);
		await bench.lock(opcodes.SETLK, handle, other, WRITE, 1n, 1n);
		void bench.lock(opcodes.SETLKW, handle, owner, WRITE, 1n, 1n);
		return bench.lock(opcodes.SETLKW, handle, other, WRITE, 0n, 0n);
	};
	assert.equal((await await circle()).errno, errnoOf.EDEADLK);
	bench.channel.openFileLocks = true;
	const waiting = bench.lock(opcodes.SETLKW, handle, other, WRITE, 0n, 0n);
	const { unique } = bench;
	await new Promise((resolve) => setImmediate(resolve));
	assert.equal(bench.volume.locks.figures().waiting, 2);
	// The signal may come while it is found out what kind of lock it is.
	const second = bench.lock(opcodes.SETLKW, handle, other, WRITE, 0n, 0n);
	bench.interrupt(bench.unique);
	assert.equal((await second).errno, errnoOf.EINTR);
	bench.interrupt(unique);
	assert.equal((await waiting).errno, errnoOf.EINTR);
	await bench.server.stop();
});

test("the end of the connection answers those who wait and frees what was locked", async () => {
	const bench = await Bench.make();
	const { handle } = await bench.open();
	await bench.lock(opcodes.SETLK, handle, owner, WRITE);
	const waiting = bench.lock(opcodes.SETLKW, handle, other, WRITE);
	bench.channel.unmount();
	await bench.server.ended;
	assert.equal((await waiting).errno, errnoOf.EINTR);
	const { held, waiting: left } = bench.volume.locks.figures();
	assert.deepEqual([held, left], [0, 0]);
});
