/**
 * Requests that were carried out and not answered, the door and the volume together in a simulated world: for each kind of request the process dies when the effect is committed and the reply is lost,
 * and at each step of the disks before. The successor is sent the request again and must answer as if nothing had happened, and nothing may have happened twice.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { silentLogger } from "../../src/base/telemetry.ts";
import type { ByteWriter } from "../../src/codec/binary.ts";
import type { Negotiated } from "../../src/doors/fuse/door.ts";
import { opcodes } from "../../src/doors/fuse/protocol.ts";
import { type FuseServer, serveFuse } from "../../src/doors/fuse/server.ts";
import { body, FakeChannel, name, type Reply, request } from "../../src/doors/fuse/test/requests.ts";
import { inodeFlags } from "../../src/namespace/flags.ts";
import { SimWorld } from "../../src/platform/sim/world.ts";
import { requestSlots } from "../../src/volume/interface.ts";
import type { Attributes, Caller, RequestMarks } from "../../src/volume/interface.ts";
import type { NativeVolume } from "../../src/volume/native/interface.ts";
import { createVolume, openVolume } from "../../src/volume/native/open.ts";

const paths = ["/d1", "/d2", "/d3"];
const memory = { logTailBytes: 1 << 20, dirtyRingBytes: 2 << 20 };
/** Numbers of requests that stay exact in a double with bit 63 set. */
const uniqueStep = 4096;
const caller: Caller = {
	uid: 0,
	gid: 0,
	groups: [],
	principal: undefined,
	door: "test",
	clientInstance: "",
	share: undefined,
	trusted: true,
};

/** A machine on which daemons follow each other behind one connection. */
class Connection {
	readonly world: SimWorld;
	readonly #node;
	volume: NativeVolume | undefined;
	channel = new FakeChannel();
	server: FuseServer | undefined;
	negotiated: Negotiated | undefined;
	/** The process dies between the effect of each request and its reply: what comes after is not marked. */
	losing = false;
	#unique = 0;

	constructor(seed: number) {
		this.world = new SimWorld({ seed });
		this.#node = this.world.node();
		for (const path of paths) this.world.addDisk(path, { capacityBytes: 64 << 20 });
	}

	static async make(seed: number): Promise<Connection> {
		const made = new Connection(seed);
		await made.world.run(async () => {
			const platform = made.#node.boot();
			const create = { name: "demo", diskPaths: paths, sameDevice: false, allowDegraded: false, uid: 0, gid: 0 };
			await createVolume({ ...create, logSegmentBytes: 1 << 20, logSegmentCount: 4 }, { platform, logger: silentLogger });
			await made.serve(false);
			const flags2 = 1 << 7;
			const answer = await made.send(opcodes.INIT, (w) => w.u32(7).u32(45).u32(0).u32(0xffff_ffff).u32(flags2));
			assert.equal(answer.errno, 0);
		});
		return made;
	}

	async serve(resume: boolean, withHandles = true): Promise<void> {
		const platform = this.#node.boot();
		const modules = { platform, logger: silentLogger };
		const volume = await openVolume({ name: "demo", diskPaths: paths, acceptLoss: false, memory, session: { id: 77, resume } }, modules);
		this.volume = volume;
		this.channel = new FakeChannel();
		const resumed = { negotiated: this.negotiated, left: withHandles ? volume.resumed : { ...volume.resumed, handles: [] } };
		const onNegotiated = async (negotiated: Negotiated): Promise<void> => {
			this.negotiated = negotiated;
		};
		const { requestMarks } = volume;
		assert.ok(requestMarks);
		const marks: RequestMarks = {
			begin: (token) => requestMarks.begin(token),
			replying: (slot) => void (this.losing || requestMarks.replying(slot)),
			end: (slot) => void (this.losing || requestMarks.end(slot)),
		};
		const session = resume ? { resumed, onNegotiated, marks } : { onNegotiated, marks };
		const fatal = (error: unknown): void => {
			throw error;
		};
		this.server = serveFuse({ session, onFatal: fatal }, { volume, channel: this.channel, platform, logger: silentLogger });
	}

	/** A fresh request; with `node` 1 the root. */
	prepare(opcode: number, fill: (w: ByteWriter) => ByteWriter, node = 1): Uint8Array {
		this.#unique += uniqueStep;
		return request(
			opcode,
			this.#unique,
			body((w) => void fill(w)),
			{ node },
		);
	}

	send(opcode: number, fill: (w: ByteWriter) => ByteWriter, node = 1): Promise<Reply> {
		return this.channel.send(this.prepare(opcode, fill, node));
	}

	/** As the kernel does for a successor. */
	sendAgain(bytes: Uint8Array): Promise<Reply> {
		const again = bytes.slice();
		again[15] = (again[15] as number) | 0x80;
		return this.channel.send(again);
	}

	async takeOver(withHandles = true): Promise<void> {
		this.#node.kill();
		await this.serve(true, withHandles);
	}

	get at(): NativeVolume {
		assert.ok(this.volume);
		return this.volume;
	}

	/** Names of the root with inode, links and size. */
	async tree(): Promise<Record<string, string>> {
		const items = await this.at.readDirectory(caller, this.at.root, 2, 1000, true);
		const line = (a: Attributes | undefined): string => (a === undefined ? "?" : `${a.type} ${a.nlink} ${a.size}`);
		return Object.fromEntries(items.map((item) => [item.name, line(item.attributes)]));
	}
}

interface Case {
	readonly title: string;
	readonly opcode: number;
	readonly fill: (w: ByteWriter, made: Made) => ByteWriter;
	readonly node?: (made: Made) => number;
	/** What the root holds afterwards, beside what was there. */
	readonly after: (tree: Record<string, string>) => Record<string, string>;
	/** Part of the reply that must not depend on whether the process died: inode numbers and handles may. */
	readonly entry?: boolean;
	readonly opens?: boolean;
}

/** Inodes of what is there before each case. */
interface Made {
	readonly file: number;
	readonly other: number;
}

const without = (tree: Record<string, string>, ...names: string[]) =>
	Object.fromEntries(Object.entries(tree).filter(([key]) => !names.includes(key)));
const creat = (w: ByteWriter, flags: number, of: string) => name(w.u32(flags).u32(0o100644).u32(0).u32(0), of);

const cases: readonly Case[] = [
	{
		title: "mkdir",
		opcode: opcodes.MKDIR,
		fill: (w) => name(w.u32(0o755).u32(0), "new"),
		entry: true,
		after: (t) => ({ ...t, new: "directory 2 0" }),
	},
	{
		title: "mknod",
		opcode: opcodes.MKNOD,
		fill: (w) => name(w.u32(0o10644).u32(0).u32(0).u32(0), "new"),
		entry: true,
		after: (t) => ({ ...t, new: "fifo 1 0" }),
	},
	{
		title: "symlink",
		opcode: opcodes.SYMLINK,
		fill: (w) => name(name(w, "new"), "target"),
		entry: true,
		after: (t) => ({ ...t, new: "symlink 1 6" }),
	},
	{
		title: "link",
		opcode: opcodes.LINK,
		fill: (w, { file }) => name(w.u64(file), "new"),
		entry: true,
		after: (t) => ({ ...t, file: "file 2 5", new: "file 2 5" }),
	},
	{ title: "unlink", opcode: opcodes.UNLINK, fill: (w) => name(w, "file"), after: (t) => without(t, "file") },
	{ title: "rmdir", opcode: opcodes.RMDIR, fill: (w) => name(w, "folder"), after: (t) => without(t, "folder") },
	{
		title: "rename onto a file",
		opcode: opcodes.RENAME2,
		fill: (w) => name(name(w.u64(1).u32(0).u32(0), "file"), "other"),
		after: (t) => ({ ...without(t, "file"), other: "file 1 5" }),
	},
	{
		title: "exchange",
		opcode: opcodes.RENAME2,
		fill: (w) => name(name(w.u64(1).u32(2).u32(0), "file"), "folder"),
		after: (t) => ({ ...t, file: "directory 2 0", folder: "file 1 5" }),
	},
	{
		title: "create, exclusively",
		opcode: opcodes.CREATE,
		fill: (w) => creat(w, 0o302, "new"),
		entry: true,
		opens: true,
		after: (t) => ({ ...t, new: "file 1 0" }),
	},
	{
		title: "open and truncate",
		opcode: opcodes.OPEN,
		node: ({ file }) => file,
		fill: (w) => w.u32(0o1002).u32(0),
		opens: true,
		after: (t) => ({ ...t, file: "file 1 0" }),
	},
	{ title: "open", opcode: opcodes.OPEN, node: ({ file }) => file, fill: (w) => w.u32(2).u32(0), opens: true, after: (t) => t },
	{ title: "a file without a name", opcode: opcodes.TMPFILE, fill: (w) => creat(w, 2, "#"), entry: true, opens: true, after: (t) => t },
	{
		title: "setxattr, exclusively",
		opcode: opcodes.SETXATTR,
		node: ({ file }) => file,
		fill: (w) => name(w.u32(5).u32(1).u32(0).u32(0), "user.new").raw(Uint8Array.of(1, 2, 3, 4, 5)),
		after: (t) => t,
	},
	{ title: "removexattr", opcode: opcodes.REMOVEXATTR, node: ({ file }) => file, fill: (w) => name(w, "user.old"), after: (t) => t },
	{
		title: "truncate",
		opcode: opcodes.SETATTR,
		node: ({ file }) => file,
		fill: (w) =>
			w
				.u32(1 << 3)
				.u32(0)
				.u64(0)
				.u64(2)
				.u64(0)
				.raw(new Uint8Array(56)),
		after: (t) => ({ ...t, file: "file 1 2" }),
	},
];

async function prepared(seed: number): Promise<{ connection: Connection; made: Made; before: Record<string, string> }> {
	const connection = await Connection.make(seed);
	const { world } = connection;
	return world.run(async () => {
		const volume = connection.at;
		const intent = { disposition: "create", access: { read: true, write: true }, attributes: { mode: 0o644 } } as const;
		const file = await volume.open(caller, { parent: volume.root, name: "file" }, intent);
		await volume.write(file.handle, 0, Uint8Array.of(1, 2, 3, 4, 5));
		await volume.close(file.handle);
		const other = await volume.open(caller, { parent: volume.root, name: "other" }, intent);
		await volume.close(other.handle);
		await volume.makeDirectory(caller, volume.root, "folder", 0o755);
		await volume.setXattr(caller, volume.node(file.attributes.ino), "user.old", Uint8Array.of(1), "any");
		return { connection, made: { file: file.attributes.ino, other: other.attributes.ino }, before: await connection.tree() };
	});
}

/** Ino of `fuse_entry_out`, and the handle behind it or alone. */
function parts(one: Case, reply: Reply): { ino: number | undefined; handle: number | undefined } {
	const at = one.entry === true ? 128 : 0;
	return {
		ino: one.entry === true ? Number(reply.view.getBigUint64(0, true)) : undefined,
		handle: one.opens === true ? Number(reply.view.getBigUint64(at, true)) : undefined,
	};
}

async function check(one: Case, connection: Connection, reply: Reply, before: Record<string, string>, what: string): Promise<void> {
	assert.equal(reply.errno, 0, what);
	assert.deepEqual(await connection.tree(), one.after(before), what);
	const { ino, handle } = parts(one, reply);
	if (one.entry === true && one.opcode !== opcodes.TMPFILE)
		assert.equal((await connection.at.lookup(caller, connection.at.root, "new")).ino, ino, what);
	assert.equal(connection.server?.counters().openHandles, one.opens === true ? 1 : 0, `${what}: open handles`);
	if (handle === undefined) return;
	const wrote = await connection.send(
		opcodes.WRITE,
		(w) =>
			w
				.u64(handle)
				.u64(0)
				.u32(3)
				.u32(0)
				.u64(0)
				.u32(2)
				.u32(0)
				.raw(Uint8Array.of(7, 8, 9)),
		ino ?? 0,
	);
	assert.equal(wrote.errno, 0, `${what}: the handle works`);
	const released = await connection.send(opcodes.RELEASE, (w) => w.u64(handle).u32(2).u32(0).u64(0));
	assert.equal(released.errno, 0, what);
}

describe("requests that are sent again", () => {
	for (const one of cases) {
		test(one.title, async () => {
			const { connection, made, before } = await prepared(1);
			const { world } = connection;
			await world.run(async () => {
				const bytes = connection.prepare(one.opcode, (w) => one.fill(w, made), one.node?.(made));
				connection.losing = true;
				const first = await connection.channel.send(bytes);
				assert.equal(first.errno, 0);
				// The reply is lost, twice.
				for (let death = 0; death < 2; death++) {
					await connection.takeOver();
					const again = await connection.sendAgain(bytes);
					assert.equal(again.errno, 0, `death ${death}`);
					assert.deepEqual(
						one.opcode === opcodes.TMPFILE ? [] : [parts(one, again)],
						one.opcode === opcodes.TMPFILE ? [] : [parts(one, first)],
					);
				}
				await connection.takeOver();
				connection.losing = false;
				await check(one, connection, await connection.sendAgain(bytes), before, one.title);
				// An operation like it is one of its own, not the old one again.
				const twice = await connection.send(one.opcode, (w) => one.fill(w, made), one.node?.(made));
				const repeatable: readonly number[] = [opcodes.OPEN, opcodes.TMPFILE, opcodes.SETATTR];
				if (one.title === "exchange") assert.deepEqual(await connection.tree(), before);
				else assert.equal(twice.errno === 0, repeatable.includes(one.opcode), `${one.title} once more: ${twice.errno}`);
			});
		});
	}

	/** Killed between the transaction and the handle's place in memory, which is some microseconds. */
	for (const one of cases.filter(({ title }) => /^create|truncate$/.test(title) && title !== "truncate")) {
		test(`${one.title}: the effect is there, the handle is not`, async () => {
			const { connection, made, before } = await prepared(4);
			await connection.world.run(async () => {
				const bytes = connection.prepare(one.opcode, (w) => one.fill(w, made), one.node?.(made));
				connection.losing = true;
				await connection.channel.send(bytes);
				await connection.world.sleep(1);
				connection.losing = false;
				if (one.opcode === opcodes.OPEN) {
					// Written behind the truncation: it must not be cut again.
					const { handle } = await connection.at.open(
						caller,
						{ node: connection.at.node(made.file) },
						{ disposition: "open", access: { read: true, write: true } },
					);
					await connection.at.write(handle, 0, Uint8Array.of(1, 2, 3));
				}
				await connection.takeOver(false);
				const again = await connection.sendAgain(bytes);
				assert.equal(again.errno, 0);
				const expected = one.after(before);
				assert.deepEqual(await connection.tree(), one.opcode === opcodes.OPEN ? { ...expected, file: "file 1 3" } : expected);
				const released = await connection.send(opcodes.RELEASE, (w) =>
					w
						.u64(parts(one, again).handle ?? 0)
						.u32(2)
						.u32(0)
						.u64(0),
				);
				assert.equal(released.errno, 0);
			});
		});
	}

	test("a release that was carried out is answered", async () => {
		const { connection, made } = await prepared(2);
		await connection.world.run(async () => {
			const opened = await connection.send(opcodes.OPEN, (w) => w.u32(2).u32(0), made.file);
			const handle = Number(opened.view.getBigUint64(0, true));
			const release = connection.prepare(opcodes.RELEASE, (w) => w.u64(handle).u32(2).u32(0).u64(0), made.file);
			assert.equal((await connection.channel.send(release)).errno, 0);
			await connection.takeOver();
			assert.equal((await connection.sendAgain(release)).errno, 0);
			const fresh = connection.prepare(opcodes.RELEASE, (w) => w.u64(handle).u32(2).u32(0).u64(0), made.file);
			assert.notEqual((await connection.channel.send(fresh)).errno, 0, "a handle that is not open");
		});
	});

	test("what was open is written as what is opened anew: in one step, once its file was looked at", async () => {
		const { connection, made } = await prepared(4);
		await connection.world.run(async () => {
			const open = (): Promise<Reply> => connection.send(opcodes.OPEN, (w) => w.u32(2).u32(0), made.file);
			const handleOf = (opened: Reply): number => Number(opened.view.getBigUint64(0, true));
			const before = handleOf(await open());
			await connection.takeOver();
			const after = handleOf(await open());
			await connection.at.write(before, 0, new Uint8Array(5));
			const { now } = connection.at;
			assert.deepEqual([now?.write(after, 0, new Uint8Array(3)), now?.write(before, 0, new Uint8Array(4))], [3, 4]);
			// Flags bind it as before.
			await connection.at.setAttributes(caller, connection.at.node(made.file), { flags: inodeFlags.immutable });
			assert.equal(now?.write(before, 0, new Uint8Array(4)), undefined);
			await assert.rejects(connection.at.write(before, 0, new Uint8Array(4)), { code: "EPERM" });
			await connection.takeOver();
			assert.equal(connection.at.now?.write(before, 0, new Uint8Array(4)), undefined);
			await assert.rejects(connection.at.write(before, 0, new Uint8Array(4)), { code: "EPERM" });
		});
	});

	test("an unlinked file stays while it is open, over deaths, and goes with its handle", async () => {
		const { connection, made } = await prepared(3);
		await connection.world.run(async () => {
			const opened = await connection.send(opcodes.OPEN, (w) => w.u32(2).u32(0), made.file);
			const handle = Number(opened.view.getBigUint64(0, true));
			await connection.send(opcodes.UNLINK, (w) => name(w, "file"));
			for (let death = 0; death < 3; death++) {
				await connection.takeOver();
				const read = await connection.send(opcodes.READ, (w) => w.u64(handle).u64(0).u32(10).u32(0).u64(0).u32(2).u32(0), made.file);
				assert.deepEqual([read.errno, [...read.body]], [0, [1, 2, 3, 4, 5]], `death ${death}`);
			}
			await connection.send(opcodes.RELEASE, (w) => w.u64(handle).u32(2).u32(0).u64(0), made.file);
			await connection.world.sleep(1000);
			await assert.rejects(connection.at.getAttributes(caller, connection.at.node(made.file)), { code: "ESTALE" });
		});
	});

	test("no number of deaths uses up what keeps requests apart", async () => {
		const { connection } = await prepared(5);
		await connection.world.run(async () => {
			const count = 400;
			for (let death = 0; death * count <= requestSlots + count; death++) {
				const make = (i: number): Uint8Array => connection.prepare(opcodes.MKDIR, (w) => name(w.u32(0o755).u32(0), `d${death}-${i}`));
				const requests = Array.from({ length: count }, (_, i) => make(i));
				// The predecessor read them, and was killed before it did anything.
				await connection.takeOver();
				const replies = await Promise.all(requests.map((bytes) => connection.sendAgain(bytes)));
				assert.deepEqual(
					replies.map(({ errno }) => errno).filter((errno) => errno !== 0),
					[],
					`death ${death}`,
				);
				for (const i of [0, count - 1])
					assert.equal((await connection.at.lookup(caller, connection.at.root, `d${death}-${i}`)).type, "directory");
			}
		});
	});

	test("a handle whose opener was killed while nobody served is closed; one that its opener may have stays", async () => {
		const { connection, made } = await prepared(6);
		await connection.world.run(async () => {
			const open = async (flags: number): Promise<number> => {
				const opened = await connection.send(opcodes.OPEN, (w) => w.u32(flags).u32(0), made.file);
				return Number(opened.view.getBigUint64(0, true));
			};
			const had = await open(2);
			await connection.send(opcodes.UNLINK, (w) => name(w, "file"));
			connection.losing = true;
			await open(2);
			await connection.world.sleep(1);
			connection.losing = false;
			await connection.takeOver();
			assert.equal(connection.server?.counters().openHandles, 2, "its request may come again");
			const read = await connection.send(opcodes.READ, (w) => w.u64(had).u64(0).u32(10).u32(0).u64(0).u32(2).u32(0), made.file);
			assert.deepEqual([read.errno, [...read.body]], [0, [1, 2, 3, 4, 5]]);
			assert.equal(connection.server?.counters().openHandles, 1);
			await connection.takeOver();
			assert.equal(connection.at.resumed.handles.length, 1, "over another death too");
			await connection.send(opcodes.RELEASE, (w) => w.u64(had).u32(2).u32(0).u64(0), made.file);
			await connection.world.sleep(1000);
			await assert.rejects(connection.at.getAttributes(caller, connection.at.node(made.file)), { code: "ESTALE" });
		});
	});

	describe("locks", () => {
		const [reading, writing, unlock] = [0, 1, 2];
		const lockBody = (w: ByteWriter, handle: number, owner: number, type: number, flags = 0, start = 0, end = 99) =>
			w.u64(handle).u64(owner).u64(start).u64(end).u32(type).u32(owner).u32(flags).u32(0);
		const flushBody = (w: ByteWriter, handle: number, owner: number) => w.u64(handle).u64(0).u64(owner);

		async function opened(seed: number) {
			const { connection, made } = await prepared(seed);
			const open = async (): Promise<number> => {
				const reply = await connection.send(opcodes.OPEN, (w) => w.u32(2).u32(0), made.file);
				return Number(reply.view.getBigUint64(0, true));
			};
			const ask = (opcode: number, handle: number, owner: number, type: number, flags = 0) =>
				connection.prepare(opcode, (w) => lockBody(w, handle, owner, type, flags), made.file);
			const now = async (opcode: number, handle: number, owner: number, type: number, flags = 0): Promise<number> =>
				(await connection.channel.send(ask(opcode, handle, owner, type, flags))).errno;
			return { connection, made, open, ask, now };
		}

		test("what was held is held, over deaths, and goes with its process and its files", async () => {
			const { connection, made, open, now } = await opened(11);
			await connection.world.run(async () => {
				const [a, b] = [await open(), await open()];
				assert.equal(await now(opcodes.SETLK, a, 1, writing), 0);
				assert.equal(await now(opcodes.SETLK, a, 7, writing, 1), 0);
				for (let death = 0; death < 3; death++) {
					await connection.takeOver();
					assert.equal(await now(opcodes.SETLK, b, 2, reading), 11, "EAGAIN");
					assert.equal(await now(opcodes.SETLK, b, 8, reading, 1), 11, "EAGAIN");
				}
				await connection.send(opcodes.FLUSH, (w) => flushBody(w, a, 1), made.file);
				assert.equal(await now(opcodes.SETLK, b, 2, reading), 0);
				assert.equal(await now(opcodes.SETLK, b, 8, reading, 1), 11, "the flock belongs to the open file");
				await connection.takeOver();
				await connection.send(opcodes.RELEASE, (w) => w.u64(a).u32(2).u32(2).u64(7), made.file);
				assert.equal(await now(opcodes.SETLK, b, 8, writing, 1), 0);
			});
		});

		test("who waited waits on, and gets it; what was granted and not answered is answered, and not asked for again", async () => {
			const { connection, open, ask, now } = await opened(12);
			await connection.world.run(async () => {
				const [a, b, c] = [await open(), await open(), await open()];
				assert.equal(await now(opcodes.SETLK, a, 1, writing), 0);
				const [second, third] = [ask(opcodes.SETLKW, b, 2, writing), ask(opcodes.SETLKW, c, 3, writing)];
				connection.channel.post(second);
				connection.channel.post(third);
				await connection.takeOver();
				const answers = [connection.sendAgain(second), connection.sendAgain(third)] as const;
				assert.equal(await now(opcodes.SETLK, a, 1, unlock), 0);
				assert.equal((await answers[0]).errno, 0);
				// The grant to the third is lost: the process dies with the reply in its hand.
				const lost = connection.channel;
				const release = ask(opcodes.SETLK, b, 2, unlock);
				lost.post(release);
				await connection.takeOver();
				assert.equal(await now(opcodes.SETLK, a, 1, reading), 11, "it is the third's");
				const [unlocked, granted] = await Promise.all([connection.sendAgain(release), connection.sendAgain(third)]);
				assert.deepEqual([unlocked.errno, granted.errno], [0, 0]);
			});
		});

		test("a lock, an unlock and a close that were carried out do not happen twice", async () => {
			const { connection, made, open, ask, now } = await opened(13);
			await connection.world.run(async () => {
				const [a, b] = [await open(), await open()];
				const taken = ask(opcodes.SETLK, a, 1, writing);
				assert.equal((await connection.channel.send(taken)).errno, 0);
				assert.equal(await now(opcodes.SETLK, a, 1, unlock), 0);
				await connection.takeOver();
				assert.equal((await connection.sendAgain(taken)).errno, 0);
				assert.equal(await now(opcodes.SETLK, b, 2, writing), 0, "another thread had let go of it");
				assert.equal(await now(opcodes.SETLK, b, 2, unlock), 0);

				assert.equal(await now(opcodes.SETLK, a, 1, writing), 0);
				const closed = connection.prepare(opcodes.FLUSH, (w) => flushBody(w, a, 1), made.file);
				const freed = ask(opcodes.SETLK, b, 2, unlock);
				assert.equal((await connection.channel.send(closed)).errno, 0);
				assert.equal(await now(opcodes.SETLK, b, 2, writing), 0);
				assert.equal((await connection.channel.send(freed)).errno, 0);
				assert.equal(await now(opcodes.SETLK, a, 1, writing), 0, "another thread again");
				await connection.takeOver();
				assert.equal((await connection.sendAgain(closed)).errno, 0);
				assert.equal((await connection.sendAgain(freed)).errno, 0);
				assert.equal(await now(opcodes.SETLK, b, 2, reading), 11, "the newer lock stayed");
			});
		});

		test("locks of a file whose release was under way go with it", async () => {
			const { connection, made, open, now } = await opened(14);
			await connection.world.run(async () => {
				const [a, b] = [await open(), await open()];
				assert.equal(await now(opcodes.SETLK, a, 7, writing, 1), 0);
				const release = connection.prepare(opcodes.RELEASE, (w) => w.u64(a).u32(2).u32(2).u64(7), made.file);
				connection.channel.post(release);
				await connection.takeOver();
				assert.equal((await connection.sendAgain(release)).errno, 0);
				assert.equal(await now(opcodes.SETLK, b, 8, writing, 1), 0);
			});
		});
	});

	test("many requests at once, of which any may have been carried out", async () => {
		let killed = 0;
		for (let seed = 1; seed <= 8; seed++) {
			const { connection, before } = await prepared(100 + seed);
			const { world } = connection;
			const requests = Array.from({ length: 300 }, (_, i) => connection.prepare(opcodes.MKDIR, (w) => name(w.u32(0o755).u32(0), `d${i}`)));
			const ended = world.killAt(world.steps + 1 + world.random.below(8));
			for (const bytes of requests) connection.channel.post(bytes);
			await world.run(() => Promise.race([ended, world.sleep(2000)]));
			if (world.wasCut) killed++;
			world.forgetEnd();
			const answered = new Set(connection.channel.replies.map(({ unique }) => unique));
			await world.run(async () => {
				await connection.takeOver();
				const isOpen = (bytes: Uint8Array) => !answered.has(Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(8, true)));
				const replies = await Promise.all(requests.filter(isOpen).map((bytes) => connection.sendAgain(bytes)));
				for (const { errno } of replies) assert.equal(errno, 0, `seed ${seed}`);
				assert.equal(Object.keys(await connection.tree()).length, Object.keys(before).length + 300, `seed ${seed}`);
			});
		}
		assert.ok(killed > 1, `killed ${killed} times`);
	});
});
