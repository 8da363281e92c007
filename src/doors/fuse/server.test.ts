import assert from "node:assert/strict";
import { test } from "node:test";
import { AssertionError } from "../../base/assert.ts";
import { Deferred } from "../../base/async.ts";
import { FsError } from "../../base/errors.ts";
import type { ErrorCode } from "../../base/errors.ts";
import type { Logger } from "../../base/telemetry.ts";
import type { ByteWriter } from "../../codec/binary.ts";
import type { Clock } from "../../platform/interface.ts";
import type { VolumeNow } from "../../volume/interface.ts";
import { maxConcurrentRequests, recentWriteMs } from "./limits.ts";
import { errnoOf, fattr, fopen, initFlags, opcodes } from "./protocol.ts";
import { serveFuse } from "./server.ts";
import type { ForeignChange, FuseServerOptions } from "./server.ts";
import { MemoryVolume } from "./test/memory-volume.ts";
import { FakeChannel, body, name, request } from "./test/requests.ts";
import type { Reply, RequestOptions } from "./test/requests.ts";

const allFlags = 0x7fff_ffff;

class Bench {
	readonly volume = new MemoryVolume();
	readonly channel = new FakeChannel();
	readonly logged: string[] = [];
	readonly fatal: unknown[] = [];
	readonly server;
	nowMs = 1000;
	#unique = 2;

	/** Called instead of after the time. */
	readonly timers: (() => void)[] = [];

	constructor(options: FuseServerOptions = {}, now?: VolumeNow) {
		if (now !== undefined) Object.assign(this.volume, { now });
		const after = (_ms: number, fn: () => void) => {
			this.timers.push(fn);
			return () => void this.timers.splice(this.timers.indexOf(fn), 1);
		};
		const clock = { monotonicMs: () => this.nowMs, after } as Partial<Clock> as Clock;
		const logger: Logger = { debug() {}, info() {}, warn() {}, error: (message) => this.logged.push(message) };
		const all = { onFatal: (error: unknown) => this.fatal.push(error), ...options };
		this.server = serveFuse(all, { volume: this.volume, channel: this.channel, platform: { clock }, logger });
	}

	send(opcode: number, fill: (w: ByteWriter) => void, options: RequestOptions = {}): Promise<Reply> {
		this.#unique += 2;
		return this.channel.send(request(opcode, this.#unique, body(fill), options));
	}

	async init(flags = allFlags): Promise<this> {
		const reply = await this.send(opcodes.INIT, (w) => w.u32(7).u32(45).u32(131_072).u32(flags).u32(0).zeros(44));
		assert.equal(reply.errno, 0);
		return this;
	}

	async create(
		file: string,
		flags = 2,
		options: RequestOptions = {},
	): Promise<{ readonly ino: number; readonly handle: number; readonly openFlags: number }> {
		const reply = await this.send(
			opcodes.CREATE,
			(w) =>
				name(
					w
						.u32(flags | 0o100)
						.u32(0o100644)
						.u32(0o22)
						.u32(0),
					file,
				),
			options,
		);
		assert.equal(reply.errno, 0);
		return { ino: u64(reply, 0), handle: u64(reply, 128), openFlags: reply.view.getUint32(136, true) };
	}

	write(handle: number, offset: number, bytes: Uint8Array, flags = 0): Promise<Reply> {
		return this.send(opcodes.WRITE, (w) => wide(w.u64(handle), offset).u32(bytes.length).u32(flags).u64(0).u32(2).u32(0).raw(bytes));
	}

	read(opcode: number, handle: number, offset: number, size: number, node = 1): Promise<Reply> {
		return this.send(opcode, (w) => wide(w.u64(handle), offset).u32(size).u32(0).u64(0).u32(0).u32(0), { node });
	}

	setattr(
		node: number,
		valid: number,
		values: { readonly size?: number; readonly mode?: number; readonly uid?: number; readonly fh?: number } = {},
	): Promise<Reply> {
		return this.send(
			opcodes.SETATTR,
			(w) => {
				wide(
					w
						.u32(valid)
						.u32(0)
						.u64(values.fh ?? 0),
					values.size ?? 0,
				)
					.u64(0)
					.i64(11)
					.i64(-12)
					.i64(13);
				w.u32(1)
					.u32(2)
					.u32(3)
					.u32(values.mode ?? 0)
					.u32(0)
					.u32(values.uid ?? 0)
					.u32(0)
					.u32(0);
			},
			{ node },
		);
	}

	named(opcode: number, file: string, options: RequestOptions = {}): Promise<Reply> {
		return this.send(opcode, (w) => name(w, file), options);
	}

	getattr(node: number): Promise<Reply> {
		return this.send(opcodes.GETATTR, (w) => w.u32(0).u32(0).u64(0), { node });
	}

	last(): string | undefined {
		return this.volume.calls.at(-1);
	}
}

/** Numbers beyond 2^53 too, which ByteWriter.u64 refuses. */
function wide(w: ByteWriter, value: number): ByteWriter {
	return w.u32(value % 2 ** 32).u32(Math.floor(value / 2 ** 32));
}

function u64(reply: Reply, at: number): number {
	return Number(reply.view.getBigUint64(at, true));
}

/** Mode in a reply of `fuse_attr_out` (attributes at 16) or `fuse_entry_out` (at 40). */
function mode(reply: Reply, at = 16): number {
	return reply.view.getUint32(at + 60, true);
}

const bytes = (text: string): Uint8Array => Uint8Array.from(text, (c) => c.charCodeAt(0));
const text = (b: Uint8Array): string => String.fromCharCode(...b);

test("INIT takes of the kernel's offer what the door wants", async () => {
	const bench = new Bench();
	const reply = await bench.send(opcodes.INIT, (w) => w.u32(7).u32(45).u32(131_072).u32(allFlags).u32(0xff).zeros(44));
	assert.deepEqual([reply.errno, reply.body.length], [0, 64]);
	assert.deepEqual([reply.view.getUint32(0, true), reply.view.getUint32(4, true)], [7, 39]);
	const flags = reply.view.getUint32(12, true);
	for (const flag of [
		"DONT_MASK",
		"POSIX_ACL",
		"MAX_PAGES",
		"PARALLEL_DIROPS",
		"ATOMIC_O_TRUNC",
		"HANDLE_KILLPRIV_V2",
		"DO_READDIRPLUS",
	] as const)
		assert.ok(flags & initFlags[flag], flag);
	assert.equal(flags & initFlags.WRITEBACK_CACHE, 0, "no writeback cache");
	assert.deepEqual([reply.view.getUint32(20, true), reply.view.getUint16(28, true)], [1 << 20, 256]);
	const old = await new Bench().send(opcodes.INIT, (w) => w.u32(7).u32(23).u32(0).u32(0));
	assert.equal(old.errno, errnoOf.ENOTSUP);
});

test("names: lookup, negative lookup, mkdir, mknod, symlink, readlink, link, rename, unlink, rmdir", async () => {
	const bench = await new Bench().init();
	const none = await bench.named(opcodes.LOOKUP, "a");
	assert.deepEqual([none.errno, u64(none, 0), u64(none, 16)], [0, 0, 3600]);
	const long = await bench.named(opcodes.LOOKUP, "x".repeat(256));
	assert.equal(long.errno, errnoOf.ENAMETOOLONG);

	const made = await bench.send(opcodes.MKDIR, (w) => name(w.u32(0o40755).u32(0), "d"), { uid: 5, gid: 6 });
	assert.deepEqual([made.errno, mode(made, 40)], [0, 0o40755]);
	const directory = u64(made, 0);
	assert.deepEqual([made.view.getUint32(40 + 68, true), made.view.getUint32(40 + 72, true)], [5, 6], "owner and group of the caller");
	assert.equal((await bench.send(opcodes.MKDIR, (w) => name(w.u32(0o755).u32(0), "d"))).errno, errnoOf.EEXIST);

	const device = await bench.send(opcodes.MKNOD, (w) => name(w.u32(0o20600).u32(259).u32(0).u32(0), "dev"), { node: directory });
	assert.deepEqual([device.errno, mode(device, 40), bench.last()], [0, 0o20600, "makeNode dev character 600 259"]);
	assert.equal((await bench.send(opcodes.MKNOD, (w) => name(w.u32(0o40600).u32(0).u32(0).u32(0), "x"))).errno, errnoOf.EINVAL);

	const link = await bench.send(opcodes.SYMLINK, (w) => name(name(w, "s"), "to/\xffthere"));
	assert.deepEqual([link.errno, mode(link, 40)], [0, 0o120777]);
	const target = await bench.send(opcodes.READLINK, () => {}, { node: u64(link, 0) });
	assert.equal(text(target.body), "to/\xffthere");

	const hard = await bench.send(opcodes.LINK, (w) => name(w.u64(u64(device, 0)), "dev2"));
	assert.deepEqual([hard.errno, u64(hard, 0), hard.view.getUint32(40 + 64, true)], [0, u64(device, 0), 2]);
	assert.equal((await bench.send(opcodes.RENAME, (w) => name(name(w.u64(directory), "dev2"), "dev3"))).errno, 0);
	assert.equal((await bench.send(opcodes.RENAME2, (w) => name(name(w.u64(directory).u32(1).u32(0), "s"), "dev3"))).errno, errnoOf.EEXIST);
	assert.equal((await bench.send(opcodes.RENAME2, (w) => name(name(w.u64(1).u32(4).u32(0), "s"), "t"))).errno, errnoOf.EINVAL);

	assert.equal((await bench.named(opcodes.RMDIR, "d")).errno, errnoOf.ENOTEMPTY);
	for (const file of ["dev", "dev3"]) assert.equal((await bench.named(opcodes.UNLINK, file, { node: directory })).errno, 0);
	assert.equal((await bench.named(opcodes.UNLINK, "d")).errno, errnoOf.EISDIR);
	assert.equal((await bench.named(opcodes.RMDIR, "d")).errno, 0);
	assert.equal((await bench.named(opcodes.RMDIR, "s")).errno, errnoOf.ENOTDIR);
	await bench.server.stop();
});

test("lookup of . finds a node by its number", async () => {
	const bench = await new Bench().init();
	const { ino } = await bench.create("f");
	const again = await bench.named(opcodes.LOOKUP, ".", { node: ino });
	assert.deepEqual([again.errno, u64(again, 0)], [0, ino]);
	assert.equal((await bench.named(opcodes.LOOKUP, ".", { node: 999 })).errno, errnoOf.ESTALE);
	await bench.server.stop();
});

test("a removed node answers with its last attributes until the kernel forgets it", async () => {
	const bench = await new Bench().init();
	const made = await bench.send(opcodes.MKDIR, (w) => name(w.u32(0o755).u32(0), "d"));
	const ino = u64(made, 0);
	await bench.named(opcodes.RMDIR, "d");
	const held = await bench.getattr(ino);
	assert.deepEqual([held.errno, held.view.getUint32(16 + 64, true)], [0, 0]);
	bench.channel.post(
		request(
			opcodes.FORGET,
			900,
			body((w) => w.u64(1)),
			{ node: ino },
		),
	);
	assert.equal((await bench.getattr(ino)).errno, errnoOf.ESTALE);
	await bench.server.stop();
});

test("a change from elsewhere is told of what the kernel may know: what replies have named, what is being named, and the root", async () => {
	const bench = await new Bench().init();
	const ino = u64(await bench.send(opcodes.MKDIR, (w) => name(w.u32(0o755).u32(0), "d")), 0);
	const told = async (change: ForeignChange): Promise<number> => {
		const before = bench.channel.notifications.length;
		assert.equal(await bench.server.changedElsewhere(change), true);
		return bench.channel.notifications.length - before;
	};
	const inside = { nodes: [{ ino, contentsFrom: 0 }, { ino: ino + 100 }], names: [{ parent: ino, name: "f" }] };
	assert.equal(await told({ nodes: [{ ino: 1 }], names: [{ parent: 1, name: "x" }] }), 2);
	assert.equal(await told(inside), 2, "the directory and the name in it, not the node that nobody has looked up");
	bench.channel.post(
		request(
			opcodes.FORGET,
			900,
			body((w) => w.u64(1)),
			{ node: ino },
		),
	);
	assert.equal(await told(inside), 0);
	const naming = bench.named(opcodes.SYMLINK, "s\0t");
	assert.equal(await told(inside), 3, "whatever a request that is under way has looked at");
	await naming;
	assert.equal(await told(inside), 0);
	await bench.server.stop();
});

test("files: create, write, read, flush, fsync, release", async () => {
	const bench = await new Bench().init();
	const file = await bench.create("f", 2 | 0o200);
	assert.ok(bench.last()?.includes('"disposition":"create"'), bench.last());
	assert.equal(file.openFlags, fopen.KEEP_CACHE);
	const exists = await bench.send(opcodes.CREATE, (w) => name(w.u32(0o302).u32(0o100644).u32(0).u32(0), "f"));
	assert.equal(exists.errno, errnoOf.EEXIST);
	const wrote = await bench.write(file.handle, 3, bytes("hello"));
	assert.deepEqual([wrote.errno, wrote.body.length, wrote.view.getUint32(0, true)], [0, 8, 5]);
	assert.equal(text((await bench.read(opcodes.READ, file.handle, 0, 100)).body), "\0\0\0hello");
	assert.equal((await bench.read(opcodes.READ, file.handle, 2 ** 60, 100)).body.length, 0);
	assert.equal((await bench.write(file.handle, 2 ** 53, bytes("x"))).errno, errnoOf.EFBIG);
	assert.equal((await bench.send(opcodes.FLUSH, (w) => w.u64(file.handle).zeros(16))).errno, 0);
	assert.equal((await bench.send(opcodes.FSYNC, (w) => w.u64(file.handle).u32(1).u32(0))).errno, 0);
	assert.equal(bench.last(), "fsync true");
	assert.equal(bench.server.counters().openHandles, 1);
	assert.equal((await bench.send(opcodes.RELEASE, (w) => w.u64(file.handle).zeros(16))).errno, 0);
	assert.deepEqual([bench.server.counters().openHandles, bench.volume.open_.size], [0, 0]);
	for (const opcode of [opcodes.RELEASE, opcodes.FLUSH, opcodes.FSYNC]) {
		assert.equal((await bench.send(opcode, (w) => w.u64(file.handle).zeros(16))).errno, errnoOf.EBADF);
	}
	await bench.server.stop();
});

test("a door that shall not answer at once never asks the volume to", async () => {
	for (const answerNow of [true, false]) {
		const asked: string[] = [];
		/** It says of everything that it has to wait. */
		const get = (_: VolumeNow, name: string | symbol) => () => void asked.push(String(name));
		const bench = await new Bench({ answerNow }, new Proxy({} as VolumeNow, { get })).init();
		const { ino, handle } = await bench.create("f");
		assert.equal((await bench.write(handle, 0, new Uint8Array([1, 2, 3]))).errno, 0);
		assert.equal((await bench.send(opcodes.GETATTR, (w) => w.u32(0).u32(0).u64(0), { node: ino })).errno, 0);
		assert.equal((await bench.send(opcodes.LOOKUP, (w) => name(w, "f"))).errno, 0);
		assert.equal((await bench.send(opcodes.UNLINK, (w) => name(w, "f"))).errno, 0);
		assert.deepEqual(asked, answerNow ? ["open", "write", "getAttributes", "lookup", "unlink"] : []);
	}
});

test("open flags become intents", async () => {
	const bench = await new Bench().init();
	const file = await bench.create("f");
	const open = async (flags: number, kill = 0): Promise<string> => {
		const reply = await bench.send(opcodes.OPEN, (w) => w.u32(flags).u32(kill), { node: file.ino });
		assert.equal(reply.errno, 0);
		return bench.volume.calls.findLast((call) => call.startsWith("open")) ?? "";
	};
	const intent = (read: boolean, write: boolean, sync: boolean, disposition: string, appending = false): string =>
		`open ${file.ino} ${JSON.stringify({ disposition, access: { read, write }, sync, appending })}`;
	assert.equal(await open(0), intent(true, false, false, "open"));
	assert.equal(await open(1), intent(false, true, false, "open"));
	assert.equal(await open(2 | 0o2000), intent(true, true, false, "open", true), "the kernel computes offsets of appending writes");
	assert.equal(await open(1 | 0o10000), intent(false, true, true, "open"), "O_DSYNC");
	assert.equal(await open(1 | 0o4010000), intent(false, true, true, "open"), "O_SYNC");
	assert.equal(await open(1 | 0o1000), intent(false, true, false, "overwrite"));
	const reading = await bench.send(opcodes.OPEN, (w) => w.u32(0).u32(0), { node: file.ino });
	assert.equal(reading.view.getUint32(8, true), fopen.KEEP_CACHE, "each close is told of: it ends locks");
	assert.equal((await bench.send(opcodes.OPEN, (w) => w.u32(0).u32(0), { node: 12_345 })).errno, errnoOf.ESTALE);
	await bench.server.stop();
	assert.equal(bench.volume.open_.size, 0, "stop closes what the kernel left open");
});

test("setattr: sizes, owners, times, and set-id bits that have to go", async () => {
	const bench = await new Bench().init();
	const file = await bench.create("f");
	const changes = (): string[] => bench.volume.calls.filter((call) => call.startsWith("setAttributes"));
	await bench.setattr(file.ino, fattr.SIZE | fattr.FH, { size: 5, fh: file.handle });
	assert.equal(changes().at(-1), `setAttributes ${file.ino} {"size":5} handle ${file.handle}`);
	await bench.setattr(file.ino, fattr.ATIME | fattr.ATIME_NOW | fattr.MTIME);
	assert.equal(changes().at(-1), `setAttributes ${file.ino} {"atime":"now","mtime":{"seconds":-12,"nanoseconds":2}}`);
	assert.equal((await bench.setattr(file.ino, fattr.SIZE, { size: 2 ** 53 })).errno, errnoOf.EFBIG);

	assert.equal(mode(await bench.setattr(file.ino, fattr.MODE, { mode: 0o106755 })), 0o106755);
	assert.equal(mode(await bench.setattr(file.ino, fattr.SIZE, { size: 1 })), 0o106755, "a truncation by root keeps them");
	assert.equal(mode(await bench.setattr(file.ino, fattr.SIZE | fattr.KILL_SUIDGID, { size: 1 })), 0o100755);
	await bench.setattr(file.ino, fattr.MODE, { mode: 0o106745 });
	assert.equal(mode(await bench.setattr(file.ino, fattr.UID, { uid: 3 })), 0o102745, "set-gid without group execute stays");
	await bench.setattr(file.ino, fattr.MODE, { mode: 0o104755 });
	assert.equal(mode(await bench.setattr(file.ino, 0)), 0o100755, "a change of nothing clears them");
	await bench.setattr(file.ino, fattr.MODE, { mode: 0o104755 });
	await bench.write(file.handle, 0, bytes("x"));
	assert.equal(mode(await bench.getattr(file.ino)), 0o104755);
	await bench.write(file.handle, 0, bytes("x"), 4);
	assert.equal(mode(await bench.getattr(file.ino)), 0o100755);
	await bench.setattr(file.ino, fattr.MODE, { mode: 0o104755 });
	await bench.send(opcodes.OPEN, (w) => w.u32(0o1001).u32(1), { node: file.ino });
	assert.equal(mode(await bench.getattr(file.ino)), 0o100755);
	await bench.server.stop();
});

test("attributes of a file just written are believed for a moment only", async () => {
	const bench = await new Bench().init();
	const file = await bench.create("f");
	assert.equal(u64(await bench.getattr(file.ino), 0), 3600);
	await bench.write(file.handle, 0, bytes("x"));
	assert.equal(u64(await bench.getattr(file.ino), 0), 1);
	bench.nowMs += recentWriteMs;
	assert.equal(u64(await bench.getattr(file.ino), 0), 3600);
	await bench.server.stop();
});

test("extended attributes: sizes, flags, names that are refused or hidden", async () => {
	const bench = await new Bench().init();
	const set = (attribute: string, value: string, flags = 0, more = 0): Promise<Reply> =>
		bench.send(opcodes.SETXATTR, (w) => name(w.u32(value.length).u32(flags).u32(more).u32(0), attribute).raw(bytes(value)));
	const get = (attribute: string, size: number): Promise<Reply> => bench.send(opcodes.GETXATTR, (w) => name(w.u32(size).u32(0), attribute));
	const list = (size: number, uid: number): Promise<Reply> => bench.send(opcodes.LISTXATTR, (w) => w.u32(size).u32(0), { uid });
	assert.equal((await set("user.a", "value")).errno, 0);
	assert.equal((await get("user.a", 0)).view.getUint32(0, true), 5);
	assert.equal(text((await get("user.a", 5)).body), "value");
	assert.equal((await get("user.a", 4)).errno, errnoOf.ERANGE);
	assert.equal((await get("user.b", 0)).errno, errnoOf.ENODATA);
	assert.equal((await set("user.a", "x", 1)).errno, errnoOf.EEXIST);
	assert.equal((await set("user.b", "x", 2)).errno, errnoOf.ENODATA);
	assert.equal((await set("user.a", "x", 8)).errno, errnoOf.EINVAL);
	assert.equal((await set("system.posix_acl_access", "x", 0, 1)).errno, 0);
	assert.equal(bench.volume.calls.at(-1), "setXattr system.posix_acl_access any drop");
	assert.equal((await bench.named(opcodes.REMOVEXATTR, "system.posix_acl_access")).errno, 0);
	assert.equal((await set("trusted.t", "")).errno, 0);
	assert.equal(text((await list(100, 7)).body), "user.a\0trusted.t\0");
	bench.channel.privileged = false;
	assert.equal(text((await list(100, 0)).body), "user.a\0");
	bench.channel.privileged = true;
	assert.equal((await list(0, 0)).view.getUint32(0, true), 17);
	assert.equal((await list(5, 0)).errno, errnoOf.ERANGE);
	assert.equal((await bench.named(opcodes.REMOVEXATTR, "user.a")).errno, 0);
	assert.equal((await bench.named(opcodes.REMOVEXATTR, "user.a")).errno, errnoOf.ENODATA);
	await bench.server.stop();
});

function dirents(reply: Reply, plus: boolean): { readonly name: string; readonly cookie: number; readonly node: number }[] {
	const found: { name: string; cookie: number; node: number }[] = [];
	for (let at = 0; at < reply.body.length; ) {
		const node = plus ? u64(reply, at) : 0;
		const entry = at + (plus ? 128 : 0);
		const length = reply.view.getUint32(entry + 16, true);
		found.push({ name: text(reply.body.subarray(entry + 24, entry + 24 + length)), cookie: u64(reply, entry + 8), node });
		at = entry + Math.ceil((24 + length) / 8) * 8;
	}
	return found;
}

for (const plus of [false, true]) {
	test(`directories stream by cookie${plus ? " with attributes" : ""}`, async () => {
		const bench = await new Bench().init();
		const expected = [".", ".."];
		for (let i = 0; i < 300; i++) {
			expected.push(`entry-${"x".repeat(i % 40)}${i}`);
			await bench.create(expected.at(-1) as string);
		}
		const seen: string[] = [];
		let cookie = 0;
		for (;;) {
			const reply = await bench.read(plus ? opcodes.READDIRPLUS : opcodes.READDIR, 0, cookie, 4096);
			assert.ok(reply.errno === 0 && reply.body.length <= 4096);
			const entries = dirents(reply, plus);
			if (entries.length === 0) break;
			for (const entry of entries) {
				seen.push(entry.name);
				if (plus) assert.equal(entry.node === 0, entry.name === "." || entry.name === "..");
			}
			cookie = entries.at(-1)?.cookie ?? 0;
		}
		assert.deepEqual(seen, expected);
		const limits = bench.volume.calls.filter((call) => call.startsWith("readDirectory")).map((call) => Number(call.split(" ")[2]));
		assert.ok(Math.max(...limits) < 150, `asked for ${Math.max(...limits)} entries for a page`);
		await bench.server.stop();
	});
}

test("opendir is done without where the kernel can, else with a cached listing", async () => {
	const bench = await new Bench().init();
	assert.equal((await bench.send(opcodes.OPENDIR, (w) => w.u32(0).u32(0))).errno, errnoOf.ENOSYS);
	const plain = await new Bench().init(allFlags & ~initFlags.NO_OPENDIR_SUPPORT);
	const opened = await plain.send(opcodes.OPENDIR, (w) => w.u32(0).u32(0));
	assert.deepEqual([opened.errno, opened.view.getUint32(8, true)], [0, fopen.KEEP_CACHE | fopen.CACHE_DIR]);
	assert.equal((await plain.send(opcodes.RELEASEDIR, (w) => w.u64(0).zeros(16))).errno, 0);
	const uncached = await new Bench({ keepCache: false }).init();
	assert.equal((await uncached.send(opcodes.OPENDIR, (w) => w.u32(0).u32(0))).view.getUint32(8, true), 0);
});

test("a directory's sync waits for the newest position; syncfs for everything", async () => {
	const bench = await new Bench().init();
	await bench.send(opcodes.MKDIR, (w) => name(w.u32(0o755).u32(0), "a"));
	await bench.send(opcodes.MKDIR, (w) => name(w.u32(0o755).u32(0), "b"));
	assert.equal((await bench.send(opcodes.FSYNCDIR, (w) => w.u64(0).u32(0).u32(0))).errno, 0);
	assert.equal(bench.last(), "durable 2");
	assert.equal((await bench.send(opcodes.SYNCFS, (w) => w.u64(0))).errno, 0);
	assert.equal(bench.last(), "syncAll");
	const space = await bench.send(opcodes.STATFS, () => {});
	assert.deepEqual([space.body.length, u64(space, 0), u64(space, 16)], [80, (1 << 30) / 4096, (1 << 29) / 4096]);
	await bench.server.stop();
});

test("the last request is answered when everything is durable, and a failure is logged", async () => {
	const bench = await new Bench().init();
	assert.equal((await bench.send(opcodes.DESTROY, () => {})).errno, 0);
	assert.deepEqual([bench.last(), bench.logged], ["syncAll", []]);
	bench.volume.faults.set("syncAll", new FsError("ENOSPC", "test.sync", "the disks are full"));
	assert.equal((await bench.send(opcodes.DESTROY, () => {})).errno, 0);
	assert.equal(bench.logged.length, 1);
	assert.match(bench.logged[0] as string, /not everything is durable: the disks are full/);
	await bench.server.stop();
});

test("every error code has its errno; ENOSYS and faults of the program do not get out as they are", async () => {
	const bench = await new Bench().init();
	for (const code of Object.keys(errnoOf) as ErrorCode[]) {
		bench.volume.faults.set("getAttributes", new FsError(code, "test.site", "made up"));
		const expected = code === "ENOSYS" ? errnoOf.ENOTSUP : errnoOf[code];
		assert.equal((await bench.getattr(1)).errno, expected, code);
	}
	assert.ok(bench.logged.some((line) => line.includes("made up")));
	bench.volume.faults.set("getAttributes", new FsError("REFUSED", "test.site", "read-only", { readOnly: true }));
	assert.equal((await bench.getattr(1)).errno, errnoOf.EROFS);
	assert.equal(bench.fatal.length, 0);
	bench.volume.faults.set("fsync", new FsError("ENOSYS", "test.site", "no"));
	const { handle } = await bench.create("f");
	assert.equal(
		(await bench.send(opcodes.FSYNC, (w) => w.u64(handle).u32(0).u32(0))).errno,
		errnoOf.ENOTSUP,
		"ENOSYS would mean success for ever",
	);
	for (const error of [new AssertionError("broken"), new TypeError("oops")]) {
		bench.volume.faults.set("getAttributes", error);
		assert.equal((await bench.getattr(1)).errno, errnoOf.EIO);
		assert.equal(bench.fatal.at(-1), error);
	}
	for (const opcode of [opcodes.BMAP, opcodes.POLL, 999]) {
		assert.equal((await bench.send(opcode, (w) => w.zeros(64))).errno, errnoOf.ENOSYS);
	}
	assert.equal((await bench.send(opcodes.SETATTR, (w) => w.zeros(20))).errno, errnoOf.EINVAL, "a request that ends too early");
	await bench.server.stop();
});

/** `struct fuse_fallocate_in`, `fuse_copy_file_range_in`, `fuse_lseek_in`. */
function fallocate(bench: Bench, handle: number, mode: number, offset: number, length: number): Promise<Reply> {
	return bench.send(opcodes.FALLOCATE, (w) =>
		wide(wide(w.u64(handle), offset), length)
			.u32(mode)
			.u32(0),
	);
}

function copy(bench: Bench, opcode: number, from: number, to: number, length: number, flags = 0): Promise<Reply> {
	return bench.send(opcode, (w) => wide(w.u64(from).u64(10).u64(99).u64(to).u64(20), length).u32(flags).u32(0));
}

function lseek(bench: Bench, handle: number, offset: number, whence: number, node = 2): Promise<Reply> {
	return bench.send(opcodes.LSEEK, (w) => wide(w.u64(handle), offset).u32(whence).u32(0), { node });
}

test("fallocate: each mode that the kernel lets through, and refusals", async () => {
	const bench = await new Bench().init();
	const { handle, ino } = await bench.create("f");
	for (const mode of [0, 1, 3, 0x10, 0x11]) assert.equal((await fallocate(bench, handle, mode, 5, 4096)).errno, 0);
	assert.deepEqual(
		bench.volume.calls.filter((call) => call.startsWith("allocate")),
		["allocate", "allocate-keep-size", "punch", "zero", "zero-keep-size"].map((mode) => `allocate ${mode} 5 4096`),
	);
	for (const mode of [2, 8, 0x20, 0x40, 0x12]) assert.equal((await fallocate(bench, handle, mode, 0, 10)).errno, errnoOf.ENOTSUP);
	assert.equal((await fallocate(bench, handle, 0, 2 ** 53, 10)).errno, errnoOf.EFBIG);
	assert.equal((await fallocate(bench, handle + 1, 0, 0, 10)).errno, errnoOf.EBADF);
	assert.equal(u64(await bench.getattr(ino), 16 + 8), 4101, "size");
	await bench.server.stop();
});

test("copy_file_range: both forms, and refusals", async () => {
	const bench = await new Bench().init();
	const from = await bench.create("from");
	const to = await bench.create("to");
	await bench.write(from.handle, 0, bytes("0123456789abcdef"));
	const narrow = await copy(bench, opcodes.COPY_FILE_RANGE, from.handle, to.handle, 2 ** 32);
	assert.deepEqual([narrow.errno, narrow.body.length, narrow.view.getUint32(0, true)], [0, 8, 6]);
	const wideReply = await copy(bench, opcodes.COPY_FILE_RANGE_64, from.handle, to.handle, 2 ** 62);
	assert.deepEqual([wideReply.errno, wideReply.body.length, u64(wideReply, 0)], [0, 8, 6]);
	assert.deepEqual(
		bench.volume.calls.filter((call) => call.startsWith("copyRange")),
		[`copyRange 10 20 ${0xffff_f000}`, `copyRange 10 20 ${2 ** 52}`],
	);
	assert.equal((await copy(bench, opcodes.COPY_FILE_RANGE, from.handle, to.handle, 5, 1)).errno, errnoOf.EINVAL);
	assert.equal((await copy(bench, opcodes.COPY_FILE_RANGE, 77, to.handle, 5)).errno, errnoOf.EBADF);
	assert.equal((await copy(bench, opcodes.COPY_FILE_RANGE, from.handle, 77, 5)).errno, errnoOf.EBADF);
	await bench.server.stop();
});

test("lseek: the kernel writes out what mappings changed first, where there may be any; if it does not, everything is data", async () => {
	const bench = await new Bench().init();
	const file = await bench.create("f", 1);
	await bench.write(file.handle, 0, bytes("0123456789"));
	const hole = (): Promise<Reply> => lseek(bench, file.handle, 3, 4);
	assert.deepEqual([(await hole()).errno, u64(await hole(), 0), bench.channel.notifications.length], [0, 10, 0]);
	const mappable = (await bench.send(opcodes.OPEN, (w) => w.u32(2).u32(0), { node: file.ino })).view;
	assert.equal(u64(await hole(), 0), 10);
	const message = bench.channel.notifications[0] as Uint8Array;
	const view = new DataView(message.buffer);
	assert.deepEqual(
		[view.getUint32(0, true), view.getInt32(4, true), view.getBigUint64(16, true), view.getBigInt64(24, true), view.getBigInt64(32, true)],
		[40, 2, BigInt(file.ino), 3n, 0n],
	);
	assert.equal(bench.timers.length, 0, "the time limit is cancelled");
	// The kernel does not answer in time, or refuses.
	const gate = new Deferred<void>();
	bench.channel.notifyGate = gate.promise;
	const seeks = bench.volume.calls.filter((call) => call.startsWith("seek")).length;
	const late = [lseek(bench, file.handle, 3, 3), lseek(bench, file.handle, 3, 4), lseek(bench, file.handle, 10, 3)];
	for (const fire of [...bench.timers]) fire();
	const answers = await Promise.all(late);
	assert.deepEqual(
		answers.map((reply) => (reply.errno === 0 ? u64(reply, 0) : reply.errno)),
		[3, 10, errnoOf.ENXIO],
	);
	gate.reject(new FsError("EAGAIN", "test.full", "full"));
	assert.equal(u64(await lseek(bench, file.handle, 4, 3), 0), 4);
	assert.equal(bench.volume.calls.filter((call) => call.startsWith("seek")).length, seeks, "the volume was not asked");
	bench.channel.notifyGate = Promise.resolve();
	await bench.send(opcodes.RELEASE, (w) => w.u64(Number(mappable.getBigUint64(0, true))).zeros(16));
	const before = bench.channel.notifications.length;
	assert.equal((await hole()).errno, 0);
	assert.equal(bench.channel.notifications.length, before, "no mapping is possible any more");
	assert.equal((await lseek(bench, file.handle, 0, 0)).errno, errnoOf.EINVAL);
	assert.equal((await lseek(bench, 99, 0, 3)).errno, errnoOf.EBADF);
	await bench.server.stop();
});

test("a file without a name: O_EXCL says whether it may get one", async () => {
	const bench = await new Bench().init();
	for (const [flags, linkable] of [
		[0o20200002, true],
		[0o20200202, false],
	] as const) {
		const reply = await bench.send(opcodes.TMPFILE, (w) => name(w.u32(flags).u32(0o100640).u32(0o022).u32(0), "/"));
		assert.deepEqual([reply.errno, reply.body.length], [0, 128 + 16]);
		assert.equal(reply.view.getUint32(40 + 64, true), 0, "nlink");
		assert.match(bench.volume.calls.at(-1) ?? "", new RegExp(`"unnamed":true,"linkable":${linkable},"attributes":{"mode":416}`));
	}
	await bench.server.stop();
});

test("ioctl: flags of inodes in both forms; what is not known is ENOTTY", async () => {
	const bench = await new Bench().init();
	const file = await bench.create("f");
	const ioctl = (command: number, input: readonly number[] = []): Promise<Reply> =>
		bench.send(
			opcodes.IOCTL,
			(w) => {
				w.u64(0).u32(0).u32(command).u64(0);
				w.u32(input.length * 4).u32(28);
				for (const word of input) w.u32(word);
			},
			{ node: file.ino },
		);
	assert.equal((await ioctl(0x4008_6602, [0x50])).errno, 0);
	assert.equal((await ioctl(0x8008_6601)).view.getUint32(16, true), 0x50);
	const extended = await ioctl(0x801c_581f);
	assert.deepEqual([extended.body.length, extended.view.getUint32(16, true)], [16 + 28, 0x88]);
	assert.equal((await ioctl(0x401c_5820, [0x10, 0, 0, 0, 0, 0, 0])).errno, 0);
	assert.equal((await ioctl(0x8008_6601)).view.getUint32(16, true), 0x20);
	assert.equal((await ioctl(0x8008_7601)).body.length, 20);
	assert.equal(bench.channel.notifications.length, 2, "the kernel asks for ctime again");
	assert.equal((await ioctl(0x401c_5820, [0x100, 0, 0, 0, 0, 0, 0])).errno, errnoOf.ENOTSUP);
	assert.equal((await ioctl(0x401c_5820, [0, 0, 0, 5, 0, 0, 0])).errno, errnoOf.ENOTSUP);
	assert.equal((await ioctl(0x4008_6602)).errno, errnoOf.EINVAL);
	assert.equal((await ioctl(0x1234)).errno, errnoOf.ENOTTY);
	await bench.server.stop();
});

test("a read-only door refuses every change and no read", async () => {
	const bench = await new Bench({ readOnly: true }).init();
	const refused = [
		await bench.named(opcodes.UNLINK, "a"),
		await bench.named(opcodes.RMDIR, "a"),
		await bench.named(opcodes.REMOVEXATTR, "user.a"),
		await bench.send(opcodes.MKDIR, (w) => name(w.u32(0).u32(0), "a")),
		await bench.setattr(1, fattr.MODE),
		await bench.send(opcodes.MKNOD, (w) => name(w.u32(0o100644).u32(0).u32(0).u32(0), "a")),
		await bench.send(opcodes.SYMLINK, (w) => name(name(w, "a"), "b")),
		await bench.send(opcodes.LINK, (w) => name(w.u64(1), "b")),
		await bench.send(opcodes.RENAME, (w) => name(name(w.u64(1), "a"), "b")),
		await bench.send(opcodes.OPEN, (w) => w.u32(1).u32(0)),
		await bench.send(opcodes.SETXATTR, (w) => name(w.u32(0).u32(0).u32(0).u32(0), "user.a")),
		await bench.send(opcodes.CREATE, (w) => name(w.u32(0).u32(0).u32(0).u32(0), "a")),
		await bench.write(1, 0, bytes("x")),
		await fallocate(bench, 1, 0, 0, 10),
		await copy(bench, opcodes.COPY_FILE_RANGE, 1, 2, 10),
	];
	assert.deepEqual(
		refused.map((reply) => reply.errno),
		refused.map(() => errnoOf.EROFS),
	);
	assert.equal((await bench.getattr(1)).errno, 0);
	await bench.server.stop();
});

test("requests without a reply get none, whatever is in them", async () => {
	const bench = await new Bench().init();
	const before = bench.channel.replies.length;
	bench.channel.post(
		request(
			opcodes.FORGET,
			100,
			body((w) => w.u64(1)),
		),
	);
	bench.channel.post(
		request(
			opcodes.BATCH_FORGET,
			102,
			body((w) => w.u32(1).u32(0).u64(3).u64(1)),
		),
	);
	bench.channel.post(
		request(
			opcodes.BATCH_FORGET,
			104,
			body((w) => w.u32(0xffff_ffff).u32(0)),
		),
	);
	bench.channel.post(
		request(
			opcodes.INTERRUPT,
			107,
			body((w) => w.u64(6)),
		),
	);
	bench.channel.post(new Uint8Array(12));
	await bench.getattr(1);
	assert.equal(bench.channel.replies.length, before + 1);
	assert.equal(bench.server.counters().interrupts, 1);
	await bench.server.stop();
});

test("too many requests pause the channel until half of them are done; each gets its reply; stop waits", async () => {
	const bench = await new Bench().init();
	const gate = new Deferred<void>();
	bench.volume.gates.set("getAttributes", gate.promise);
	const waiting = Array.from({ length: maxConcurrentRequests }, () => bench.getattr(1));
	assert.deepEqual([bench.channel.paused, bench.server.counters().inFlight], [true, maxConcurrentRequests]);
	const stopped = bench.server.stop();
	assert.equal(bench.channel.closed, false);
	gate.resolve();
	for (const reply of await Promise.all(waiting)) assert.equal(reply.errno, 0);
	await stopped;
	assert.deepEqual([bench.channel.paused, bench.channel.closed, bench.server.counters().inFlight], [false, true, 0]);
});

test("bytes in flight pause the channel too", async () => {
	const bench = await new Bench().init();
	const { handle } = await bench.create("f");
	const gate = new Deferred<void>();
	bench.volume.gates.set("read", gate.promise);
	const waiting = Array.from({ length: 32 }, (_, i) => bench.read(opcodes.READ, handle, i * 2 ** 20, 2 ** 20));
	assert.equal(bench.channel.paused, true);
	gate.resolve();
	await Promise.all(waiting);
	await bench.getattr(1);
	assert.equal(bench.channel.paused, false);
	await bench.server.stop();
});

test("when the connection ends, handlers finish and handles are closed before `ended`", async () => {
	const bench = await new Bench().init();
	const { handle } = await bench.create("f");
	const gate = new Deferred<void>();
	bench.volume.gates.set("write", gate.promise);
	const writing = bench.write(handle, 0, bytes("late"));
	bench.channel.unmount();
	await new Promise((resolve) => setImmediate(resolve));
	assert.equal(bench.volume.open_.size, 1);
	gate.resolve();
	assert.equal((await writing).errno, 0);
	await bench.server.ended;
	assert.equal(bench.volume.open_.size, 0);
	await bench.server.stop();
});

test("a fault that repeats does not flood the log", async () => {
	const bench = await new Bench().init();
	for (let i = 0; i < 2000; i++) {
		bench.volume.faults.set("getAttributes", new FsError("EIO", "test.disk", "disk gone"));
		await bench.getattr(1);
	}
	assert.equal(bench.logged.length, 12);
	await bench.server.stop();
});
