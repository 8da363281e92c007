/** What a server owes its clients besides right answers: nothing acknowledged is lost, nothing is done twice, nobody holds up others. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { bytesToLatin1, latin1ToBytes, toHex } from "../../src/base/bytes.ts";
import type { XdrWriter } from "../../src/codec/xdr.ts";
import { maxConnections, maxReplyBytes, maxReplyBytesOfConnection, pastCallsMs, stuckMs } from "../../src/doors/nfs/limits.ts";
import { recordMark } from "../../src/doors/nfs/record-marking.ts";
import type { NfsClient } from "./client.ts";
import { inWorld, type NfsWorld } from "./world.ts";

const text = latin1ToBytes;

function check(name: string, seed: number, body: (client: NfsClient, top: Uint8Array, world: NfsWorld) => Promise<void>): void {
	test(name, () =>
		inWorld(seed, async (world) => {
			const client = await world.connect();
			await body(client, (await client.mount("/demo")).handle, world);
			client.close();
		}),
	);
}

for (const seed of [1, 2, 3]) {
	check(`power cut after replies: what they told of is there (seed ${seed})`, seed, async (client, top, world) => {
		const folder = (await client.mkdir(top, "d")).handle as Uint8Array;
		const file = (await client.create(folder, "f", "guarded", { mode: 0o640 })).handle as Uint8Array;
		const first = await client.write(file, 0, text("stable"), 2);
		const later = await client.write(file, 6, text(" and committed"), 0);
		assert.equal((await client.commit(file)).verifier, later.verifier);
		const verifier = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
		const exclusive = await client.create(folder, "x", verifier);
		await client.symlink(folder, "l", "target");
		await client.rename(folder, "x", top, "y");
		await client.link(file, top, "g");
		await client.create(top, "gone", "guarded");
		await client.remove(top, "gone");
		await client.setattr(file, { mode: 0o604, mtime: { seconds: 77, nanoseconds: 0 } });
		const before = (await client.getattr(file)).attributes;
		const lost = await client.write(file, 0, text("UNSTAB"), 0);
		world.node.powerCut();
		await world.open();
		const again = await world.connect();
		const now = await again.getattr(file);
		assert.equal(now.status, 0, "handles of before are good");
		assert.deepEqual([now.attributes?.mode, now.attributes?.nlink, now.attributes?.size], [0o604, 2, before?.size]);
		const contents = bytesToLatin1(await again.readAll(file));
		assert.ok(["stable and committed", "UNSTAB and committed"].includes(contents), contents);
		const names = (await again.list(top)).map(({ name }) => name).sort();
		assert.deepEqual(names, [".", "..", "d", "g", "y"]);
		assert.deepEqual((await again.list(folder)).map(({ name }) => name).sort(), [".", "..", "f", "l"]);
		assert.deepEqual((await again.lookup(top, "y")).handle, exclusive.handle);
		const written = await again.write(file, 0, text("UNSTAB"), 0);
		assert.notEqual(written.verifier, lost.verifier, "the client learns that it has to write again");
		assert.equal(first.committed, 2);
		again.close();
	});
}

check("kill: unstable writes that were answered are there, and an exclusive create that comes again", 4, async (client, top, world) => {
	const verifier = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
	const made = await client.create(top, "f", verifier);
	await client.write(made.handle as Uint8Array, 0, text("acknowledged"), 0);
	world.node.kill();
	await world.open();
	const again = await world.connect();
	assert.equal(bytesToLatin1(await again.readAll(made.handle as Uint8Array)), "acknowledged");
	assert.equal((await again.create(top, "x", verifier)).status, 0);
	const repeated = await again.create(top, "x", verifier);
	assert.equal(repeated.status, 0);
	again.close();
});

check(
	"killed after the effect, before the reply: a call that comes again succeeds, and is not done twice",
	14,
	async (client, top, world) => {
		const folder = (await client.mkdir(top, "folder")).handle as Uint8Array;
		const file = (await client.create(top, "file", "guarded")).handle as Uint8Array;
		for (const name of ["old", "gone"]) await client.create(top, name, "guarded");
		await client.mkdir(top, "empty");
		/** sattr3: nothing, or a mode alone. */
		const [plain, withMode] = [
			[0, 0, 0, 0, 0, 0],
			[1, 0o2750, 0, 0, 0, 0, 0],
		];
		const words = (w: XdrWriter, values: readonly number[]): void => {
			for (const value of values) w.u32(value);
		};
		const calls: Readonly<Record<string, readonly [number, (w: XdrWriter) => void]>> = {
			create: [8, (w) => words(w.opaque(top).text("guarded").u32(1), plain)],
			mkdir: [9, (w) => words(w.opaque(top).text("made"), withMode)],
			symlink: [
				10,
				(w) => {
					words(w.opaque(top).text("link"), plain);
					w.text("target");
				},
			],
			fifo: [11, (w) => words(w.opaque(top).text("fifo").u32(7), plain)],
			remove: [12, (w) => w.opaque(top).text("gone")],
			rmdir: [13, (w) => w.opaque(top).text("empty")],
			rename: [14, (w) => w.opaque(top).text("old").opaque(folder).text("new")],
			link: [15, (w) => w.opaque(file).opaque(top).text("other")],
		};
		const messages = Object.entries(calls).map(([name, [procedure, write]]) => ({
			name,
			bytes: client.message(100003, 3, procedure, write),
		}));
		const answers = async (by: NfsClient): Promise<Record<string, number>> => {
			const found: Record<string, number> = {};
			for (const { name, bytes } of messages) found[name] = (await by.send(bytes)).reader.u32();
			return found;
		};
		const good = Object.fromEntries(messages.map(({ name }) => [name, 0]));
		assert.deepEqual(await answers(client), good);
		const listing = async (by: NfsClient): Promise<unknown> => {
			const both = [await by.list(top), await by.list(folder)];
			return both.map((list) => list.map(({ name, fileid }) => [name, fileid]).sort());
		};
		const before = await listing(client);
		// The second process dies as well, after other calls; then the power goes.
		for (const end of [() => world.node.kill(), () => world.node.kill(), () => world.node.powerCut()]) {
			end();
			await world.open();
			const again = await world.connect();
			await again.mkdir(top, "between");
			await again.send(again.message(100003, 3, 13, (w) => w.opaque(top).text("between")));
			assert.deepEqual(await answers(again), good);
			assert.deepEqual(await listing(again), before, "nothing was done twice");
			const made = await again.lookup(top, "made");
			assert.equal(made.attributes?.mode, 0o2750);
			assert.equal((await again.remove(top, "gone")).status, 2, "another call is another call");
			again.close();
		}
		world.node.kill();
		await world.open();
		await world.platform.clock.sleep(pastCallsMs + 1);
		const fresh = await world.connect();
		assert.equal((await answers(fresh))["rename"], 2, "long after the start nothing is a call of then");
		fresh.close();
	},
);

check("a call that comes again gets its reply again, on another connection too, and is not done twice", 5, async (client, top, world) => {
	await client.create(top, "a", "guarded");
	const remove = client.message(100003, 3, 12, (w) => w.opaque(top).text("a"));
	const replies = await Promise.all([client.send(remove), world.connect().then((other) => other.send(remove))]);
	const third = await client.send(remove);
	assert.deepEqual(
		[...replies, third].map(({ reader }) => reader.u32()),
		[0, 0, 0],
	);
	assert.equal((await client.remove(top, "a")).status, 2, "another call is another call");
	const mkdir = client.message(100003, 3, 9, (w) => w.opaque(top).text("d").u32(0).u32(0).u32(0).u32(0).u32(0).u32(0));
	const [one, two] = [await client.send(mkdir), await client.send(mkdir)];
	const rest = ({ reader }: typeof one): string => toHex(reader.fixed(reader.remaining));
	const answered = rest(one);
	assert.match(answered, /^00000000/);
	assert.equal(rest(two), answered);
	assert.equal(world.server.counters().repeated, 3);
});

check("whoever sends no calls loses the connection, and nobody else does", 6, async (client, top, world) => {
	for (const bytes of [text("GET / HTTP/1.0\r\n\r\n"), recordMark(4), new Uint8Array(400)]) {
		const stranger = await world.platform.network.connectTcp({ address: "127.0.0.1", port: world.port });
		const ended = new Promise<void>((resolve) => stranger.onClose(resolve));
		stranger.onData(() => {});
		await stranger.writeParts([bytes, text("\0\0\0\0")]);
		await ended;
	}
	assert.equal((await client.getattr(top)).status, 0);
});

check("a client that takes no replies holds up nobody, and loses its connection in the end", 7, async (client, top, world) => {
	const file = (await client.create(top, "f", "guarded", { mode: 0o644 })).handle as Uint8Array;
	await client.write(file, 0, new Uint8Array(1 << 20).fill(7), 2);
	const slow = await world.platform.network.connectTcp({ address: "127.0.0.1", port: world.port });
	const ended = new Promise<void>((resolve) => slow.onClose(resolve));
	slow.onData(() => {});
	slow.pause();
	const read = (xid: number): Uint8Array =>
		client.message(
			100003,
			3,
			6,
			(w) =>
				w
					.opaque(file)
					.u64(0)
					.u32(1 << 20),
			xid,
		);
	// Far more than one connection may have in memory; the server stops to read, and the rest waits here.
	const asked = (2 * maxReplyBytesOfConnection) >> 20;
	const asking = Array.from({ length: 4 * asked }, (_, i) => {
		const message = read(5_000_000 + i);
		return slow.writeParts([recordMark(message.length), message]).catch(() => {});
	});
	await world.platform.clock.sleep(1000);
	for (let i = 0; i < 20; i++) assert.equal((await client.read(file, 0, 1 << 20)).data.length, 1 << 20);
	const [stuck] = world.server
		.status()
		.connections.filter(({ port }) => port !== undefined && port > 0)
		.slice(-1);
	assert.ok(stuck !== undefined && stuck.calls <= 2 * asked + 64, `${stuck?.calls} calls taken from who takes no replies`);
	await world.platform.clock.sleep(2 * stuckMs);
	slow.resume();
	await ended;
	await Promise.all(asking);
});

check(
	"as many clients that take no replies as there may be connections: memory is bounded, and others are served soon",
	11,
	async (client, top, world) => {
		const file = (await client.create(top, "f", "guarded", { mode: 0o644 })).handle as Uint8Array;
		await client.write(file, 0, new Uint8Array(1 << 20).fill(7), 2);
		client.close();
		const calls = Array.from({ length: 64 }, (_, i) => {
			const read = client.message(
				100003,
				3,
				6,
				(w) =>
					w
						.opaque(file)
						.u64(0)
						.u32(1 << 20),
				6_000_000 + i,
			);
			return [recordMark(read.length), read];
		}).flat();
		const slow: { destroy(): void }[] = [];
		for (let i = 0; i < maxConnections - 1; i++) {
			const connection = await world.platform.network.connectTcp({ address: "127.0.0.1", port: world.port });
			connection.onData(() => {});
			connection.pause();
			connection.writeParts(calls).catch(() => {});
			slow.push(connection);
		}
		const begunMs = world.platform.clock.monotonicMs();
		const other = await world.connect();
		for (let i = 0; i < 10; i++) assert.equal((await other.read(file, 0, 1 << 20)).data.length, 1 << 20);
		assert.ok(
			world.platform.clock.monotonicMs() - begunMs < stuckMs / 2,
			"virtual time: who takes nothing makes way long before it counts as gone",
		);
		const { mostReplyBytes } = world.server.counters();
		assert.ok(mostReplyBytes > maxReplyBytesOfConnection && mostReplyBytes <= maxReplyBytes, String(mostReplyBytes));
		for (const connection of slow) connection.destroy();
		other.close();
	},
);

check(
	"there is a bound on connections: those that nobody uses make room, and if all are used, new ones wait outside",
	8,
	async (client, top, world) => {
		const idle: NfsClient[] = [];
		for (let i = 0; i < maxConnections + 10; i++) idle.push(await world.connect());
		await world.platform.clock.sleep(100);
		assert.ok(world.server.status().connections.length <= maxConnections);
		const fresh = await world.connect();
		assert.equal((await fresh.getattr(top)).status, 0);
		const again = client.closed ? await world.connect() : client;
		assert.equal((await again.getattr(top)).status, 0, "a client whose idle connection was taken connects again");
		for (const one of [...idle, fresh, again]) one.close();
	},
);

check("the mount is told of every change, before the reply", 9, async (client, top, world) => {
	const told = async (work: Promise<{ readonly status: number }>): Promise<string> => {
		world.changes.length = 0;
		assert.equal((await work).status, 0);
		const names = world.changes.flatMap((change) => change.names.map(({ parent, name }) => `${parent}/${name}`));
		const nodes = world.changes.flatMap((change) =>
			change.nodes.map(({ ino, contentsFrom }) => `${ino}${contentsFrom === undefined ? "" : `@${contentsFrom}`}`),
		);
		return `${[...new Set(names)].join(" ")} | ${[...new Set(nodes)].join(" ")}`;
	};
	const ino = async (name: string): Promise<number> => (await client.lookup(top, name)).attributes?.fileid ?? 0;
	assert.match(await told(client.mkdir(top, "d")), /^1\/d \| 1@0/);
	assert.match(await told(client.create(top, "f", "guarded", { mode: 0o644 })), /^1\/f \| 1@0 \d+$/);
	const file = (await client.lookup(top, "f")).handle;
	assert.equal(await told(client.write(file, 4096, text("x"), 0)), ` | ${await ino("f")}@4096`);
	assert.equal(await told(client.write(file, 0, text("x"), 2)), ` | ${await ino("f")}@0`);
	assert.equal(await told(client.setattr(file, { mode: 0o600 })), ` | ${await ino("f")}`);
	assert.equal(await told(client.setattr(file, { size: 10 })), ` | ${await ino("f")}@10`);
	assert.match(await told(client.link(file, top, "g")), /^1\/g \| 1@0 \d+$/);
	assert.match(await told(client.rename(top, "g", (await client.lookup(top, "d")).handle, "h")), /^1\/g \d+\/h \| 1@0 \d+@0 \d+$/);
	assert.match(await told(client.symlink(top, "l", "x")), /^1\/l \| 1@0/);
	assert.match(await told(client.remove(top, "l")), /^1\/l \| 1@0 \d+$/);
	assert.equal(await told(client.getattr(file)), " | ");
});

check("what may have been done by a server that was killed is told to the mount again", 10, async (client, top, world) => {
	await client.mkdir(top, "d");
	const names = async (work: Promise<{ readonly status: number }>, expected: number): Promise<string[]> => {
		world.changes.length = 0;
		assert.equal((await work).status, expected);
		return world.changes.flatMap((change) => change.names.map(({ parent, name }) => `${parent}/${name}`));
	};
	const [absent, exists] = [2, 17];
	assert.deepEqual(await names(client.mkdir(top, "d"), exists), ["1/d"]);
	assert.deepEqual(await names(client.remove(top, "gone"), absent), ["1/gone"]);
	assert.deepEqual(await names(client.rmdir(top, "gone"), absent), ["1/gone"]);
	assert.deepEqual(await names(client.rename(top, "from", top, "to"), absent), ["1/from", "1/to"]);
	assert.deepEqual(await names(client.symlink(top, "d", "x"), exists), ["1/d"]);
	assert.deepEqual(await names(client.lookup(top, "gone"), absent), [], "looking changes nothing");
});
