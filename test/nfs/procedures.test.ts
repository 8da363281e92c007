/** Every procedure of NFS version 3 and MOUNT through a socket, on a volume, each with its errors. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { bytesToLatin1, latin1ToBytes } from "../../src/base/bytes.ts";
import { status } from "../../src/doors/nfs/nfs3.ts";
import { maxTransferBytes } from "../../src/doors/nfs/limits.ts";
import { parseRange } from "../../src/doors/nfs/addresses.ts";
import type { VolumeNow } from "../../src/volume/interface.ts";
import { asUser, type Attributes3, type NfsClient } from "./client.ts";
import { inWorld, type NfsWorld, root, wholeVolume } from "./world.ts";

const seed = 20_261_121;
const zeroVerifier = new Uint8Array(8);
const text = latin1ToBytes;

/** A test with a client that is root, and the root of its export. */
function check(name: string, body: (client: NfsClient, top: Uint8Array, world: NfsWorld) => Promise<void>): void {
	test(name, () =>
		inWorld(seed, async (world) => {
			const client = await world.connect();
			const { status: mounted, handle } = await client.mount("/demo");
			assert.equal(mounted, 0);
			await body(client, handle, world);
			client.close();
		}),
	);
}

async function made(work: Promise<{ readonly status: number; readonly handle?: Uint8Array | undefined }>): Promise<Uint8Array> {
	const { status: code, handle } = await work;
	assert.equal(code, status.OK);
	assert.ok(handle);
	return handle;
}

async function attributesOf(client: NfsClient, handle: Uint8Array): Promise<Attributes3> {
	const { status: code, attributes } = await client.getattr(handle);
	assert.equal(code, status.OK);
	return attributes as Attributes3;
}

async function isStatus(expected: keyof typeof status, work: Promise<{ readonly status: number }>, what = ""): Promise<void> {
	const { status: code } = await work;
	const name = Object.entries(status).find(([, value]) => value === code)?.[0] ?? code;
	assert.equal(name, expected, what);
}

check("MOUNT: paths, lists, forgetting", async (client, top, world) => {
	const sub = await made(client.mkdir(top, "sub"));
	await made(client.create(top, "file", "guarded", { mode: 0o644 }));
	assert.deepEqual((await client.mount("/demo/sub/")).status, 0);
	assert.deepEqual((await client.mount("/demo")).flavors, [1]);
	assert.equal((await client.mount("/demo/none")).status, status.NOENT);
	assert.equal((await client.mount("/demo/file")).status, status.NOTDIR);
	assert.equal((await client.mount("/demo/../demo")).status, status.ACCES);
	assert.equal((await client.mount("/other")).status, status.NOENT);
	assert.equal((await client.mount("/demos")).status, status.NOENT);
	assert.deepEqual(await client.exports(), [{ path: "/demo", groups: ["localhost"] }]);
	assert.deepEqual(await client.mounts(), ["127.0.0.1:/demo/sub/", "127.0.0.1:/demo"]);
	await client.unmount("/demo");
	assert.deepEqual(await client.mounts(), ["127.0.0.1:/demo/sub/"]);
	await client.unmount();
	assert.deepEqual(await client.mounts(), []);
	world.setExports([{ ...wholeVolume, clients: [parseRange("10.0.0.0/8")] }]);
	assert.equal((await client.mount("/demo")).status, status.ACCES);
	await isStatus("ACCES", client.getattr(top), "handles of before are no way in");
	world.setExports([{ ...wholeVolume, clients: [parseRange("10.0.0.0/8"), parseRange("127.0.0.0/8")] }]);
	assert.deepEqual((await client.exports())[0]?.groups, ["10.0.0.0/8", "127.0.0.0/8"]);
	assert.equal((await client.mount("/demo")).status, 0);
	world.setExports([{ ...wholeVolume, privilegedPorts: true }]);
	await isStatus("ACCES", client.getattr(top), "a port that anybody may use");
	world.setExports([]);
	await isStatus("STALE", client.getattr(top), "nothing is exported");
	world.setExports([{ ...wholeVolume, id: 2 }]);
	const { fileid } = await attributesOf(client, sub);
	world.setExports([{ ...wholeVolume, rootIno: fileid }]);
	await isStatus("STALE", client.getattr(top), "another directory has come under the name of the export");
	await isStatus("STALE", client.getattr(sub), "what lies in it was reached through an export that is gone");
});

check("the programs and versions that are there, and those that are not", async (client) => {
	for (const [program, version] of [
		[100003, 3],
		[100005, 3],
		[100000, 2],
	] as const)
		await client.call(
			program,
			version,
			0,
			() => {},
			() => {},
		);
	assert.equal((await client.raw(100003, 4, 0)).status, 2, "NFS version 4: mismatch");
	const mismatch = await client.raw(100003, 2, 0);
	assert.deepEqual([mismatch.status, mismatch.reader.u32(), mismatch.reader.u32()], [2, 3, 3]);
	assert.equal((await client.raw(100099, 1, 0)).status, 1, "no such program");
	assert.equal((await client.raw(100003, 3, 22)).status, 3, "no such procedure");
	assert.equal((await client.raw(100003, 3, 1)).status, 4, "no arguments");
	assert.equal((await client.raw(100003, 3, 0, (w) => w.u32(1))).status, 4, "too many arguments");
	const port = (program: number, protocol: number) =>
		client.call(
			100000,
			2,
			3,
			(w) => w.u32(program).u32(3).u32(protocol).u32(0),
			(r) => r.u32(),
		);
	assert.deepEqual([await port(100003, 6), await port(100003, 17), await port(100005, 17), await port(7, 6)], [2049, 0, 2049, 0]);
	const address = await client.call(
		100000,
		4,
		3,
		(w) => w.u32(100003).u32(3).text("tcp").text("").text(""),
		(r) => r.text(100),
	);
	assert.equal(address, "0.0.0.0.8.1");
	assert.equal((await client.raw(100000, 2, 1, (w) => w.u32(1).u32(1).u32(6).u32(1))).status, 3, "nobody registers anything");
	assert.equal((await client.raw(100000, 2, 5)).status, 3, "no call is passed on");
});

check("GETATTR, SETATTR: all attributes, the guard, sizes", async (client, top) => {
	const file = await made(client.create(top, "f", "guarded", { mode: 0o640, uid: 5, gid: 6 }));
	const first = await attributesOf(client, file);
	assert.deepEqual([first.type, first.mode, first.nlink, first.uid, first.gid, first.size], [1, 0o640, 1, 5, 6, 0]);
	assert.equal(first.fsid, (await attributesOf(client, top)).fsid);
	const time = { seconds: 1_000_000_007, nanoseconds: 123_456_789 };
	const set = await client.setattr(file, { mode: 0o4755, uid: 7, gid: 8, atime: time, mtime: { ...time, seconds: 3_000_000_000 } });
	assert.equal(set.status, 0);
	assert.deepEqual([set.before?.ctime, set.before?.size], [first.ctime, 0]);
	const { after } = set;
	assert.deepEqual([after?.mode, after?.uid, after?.gid, after?.atime, after?.mtime.seconds], [0o4755, 7, 8, time, 3_000_000_000]);
	assert.deepEqual(await attributesOf(client, file), after);
	await isStatus("NOT_SYNC", client.setattr(file, { mode: 0 }, first.ctime));
	await isStatus("OK", client.setattr(file, { mtime: "server", atime: "server" }, after?.ctime));
	await client.write(file, 0, text("contents"), 0);
	assert.equal((await client.setattr(file, { size: 3 })).after?.size, 3);
	assert.equal(bytesToLatin1(await client.readAll(file)), "con");
	assert.equal((await client.setattr(file, { size: 100_000 })).after?.size, 100_000);
	assert.equal((await client.readAll(file)).length, 100_000);
	await isStatus("ISDIR", client.setattr(top, { size: 0 }));
	await isStatus("FBIG", client.setattr(file, { size: Number.MAX_SAFE_INTEGER }));
	await isStatus("BADHANDLE", client.getattr(file.map((byte, i) => (i === 31 ? byte ^ 1 : byte))), "a handle of another inode, made up");
	await isStatus("BADHANDLE", client.getattr(file.map((byte, i) => (i === 11 ? byte ^ 1 : byte))), "of another export, made up");
	await isStatus("BADHANDLE", client.getattr(file.subarray(0, 40)));
	await isStatus("STALE", client.getattr(file.map((byte, i) => (i === 13 ? byte ^ 1 : byte))), "of another volume");
	await client.remove(top, "f");
	await isStatus("STALE", client.getattr(file));
});

check("LOOKUP, READLINK, SYMLINK", async (client, top) => {
	const sub = await made(client.mkdir(top, "sub", { mode: 0o750 }));
	const link = await made(client.symlink(sub, "link", "../else where/\xff"));
	const found = await client.lookup(sub, "link");
	assert.deepEqual(found.handle, link);
	assert.deepEqual([found.attributes?.type, found.directory?.type], [5, 2]);
	assert.equal((await client.readlink(link)).target, "../else where/\xff");
	assert.deepEqual((await client.lookup(sub, "..")).handle, top);
	assert.deepEqual((await client.lookup(sub, ".")).handle, sub);
	assert.deepEqual((await client.lookup(top, "..")).handle, top, "above the root of an export there is nothing");
	await isStatus("NOENT", client.lookup(sub, "none"));
	await isStatus("NOTDIR", client.lookup(link, "x"));
	await isStatus("NAMETOOLONG", client.lookup(sub, "x".repeat(256)));
	await isStatus("INVAL", client.lookup(sub, "a/b"));
	await isStatus("INVAL", client.readlink(sub));
	await isStatus("EXIST", client.symlink(sub, "link", "x"));
	const failed = await client.lookup(sub, "none");
	assert.equal(failed.directory?.type, 2, "a failure tells of the directory");
});

check("ACCESS: by mode, for files and directories, read-only too", async (client, top, world) => {
	const file = await made(client.create(top, "f", "guarded", { mode: 0o754, uid: 1001, gid: 2001 }));
	const folder = await made(client.mkdir(top, "d", { mode: 0o751, uid: 1001, gid: 2001 }));
	const bits = async (uid: number, gid: number, handle: Uint8Array, asked = 63): Promise<number> => {
		client.credential = asUser(uid, gid);
		return (await client.access(handle, asked)).bits;
	};
	const [read, lookup, modify, extend, del, execute] = [1, 2, 4, 8, 16, 32];
	assert.equal(await bits(1001, 1, file), read + modify + extend + execute);
	assert.equal(await bits(1002, 2001, file), read + execute);
	assert.equal(await bits(1003, 1, file), read);
	assert.equal(await bits(1001, 1, folder), read + lookup + modify + extend + del);
	assert.equal(await bits(1002, 2001, folder), read + lookup);
	assert.equal(await bits(1003, 1, folder), lookup);
	assert.equal(await bits(1001, 1, folder, modify + execute), modify, "what was not asked is not told");
	world.setExports([{ ...wholeVolume, readOnly: true }]);
	assert.equal(await bits(1001, 1, file), read + execute);
});

check("READ and WRITE: ends, offsets, sizes", async (client, top) => {
	const file = await made(client.create(top, "f", "guarded", { mode: 0o644 }));
	const empty = await client.read(file, 0, 100);
	assert.deepEqual([empty.status, empty.data.length, empty.eof], [0, 0, true]);
	const big = Uint8Array.from({ length: maxTransferBytes }, (_, i) => (i * 31 + (i >> 9)) & 255);
	const written = await client.write(file, 5000, big, 0);
	assert.deepEqual([written.status, written.count, written.committed, written.after?.size], [0, big.length, 0, 5000 + big.length]);
	const all = await client.readAll(file, 300_000);
	assert.deepEqual([all.length, Buffer.compare(all.subarray(5000), big)], [5000 + big.length, 0]);
	const middle = await client.read(file, 5000, 10);
	assert.deepEqual([[...middle.data], middle.eof], [[...big.subarray(0, 10)], false]);
	const last = await client.read(file, 5000 + big.length - 3, 3);
	assert.deepEqual([last.data.length, last.eof], [3, true], "exactly to the end is the end");
	const beyond = await client.read(file, 2 ** 60, 10);
	assert.deepEqual([beyond.status, beyond.data.length, beyond.eof], [0, 0, true]);
	assert.equal((await client.read(file, 0, 0)).data.length, 0);
	assert.equal((await client.write(file, 0, new Uint8Array(0), 2)).count, 0);
	await isStatus("FBIG", client.write(file, Number.MAX_SAFE_INTEGER - 2, text("abc"), 0));
	await isStatus("ISDIR", client.read(top, 0, 1));
	await isStatus("ISDIR", client.write(top, 0, text("x"), 0));
	const link = await made(client.symlink(top, "l", "x"));
	await isStatus("INVAL", client.read(link, 0, 1));
	await isStatus("INVAL", client.commit(link));
});

check("WRITE and COMMIT: what they answer about durability", async (client, top) => {
	const file = await made(client.create(top, "f", "guarded", { mode: 0o644 }));
	const unstable = await client.write(file, 0, text("one"), 0);
	const data = await client.write(file, 3, text("two"), 1);
	const sync = await client.write(file, 6, text("three"), 2);
	assert.deepEqual([unstable.committed, data.committed, sync.committed], [0, 2, 2]);
	const committed = await client.commit(file);
	assert.deepEqual([committed.status, committed.after?.size], [0, 11]);
	assert.deepEqual(new Set([unstable.verifier, data.verifier, sync.verifier, committed.verifier]).size, 1);
	assert.equal((await client.commit(file, 2 ** 60, 5)).status, 0, "a range beyond the end");
});

check("CREATE in its three ways", async (client, top) => {
	const file = await made(client.create(top, "f", "unchecked", { mode: 0o600 }));
	await client.write(file, 0, text("contents"), 2);
	await isStatus("EXIST", client.create(top, "f", "guarded", { mode: 0o600 }));
	const again = await client.create(top, "f", "unchecked", { mode: 0o777 });
	assert.deepEqual([again.status, again.handle, again.attributes?.size, again.attributes?.mode], [0, file, 8, 0o600], "what exists stays");
	const cut = await client.create(top, "f", "unchecked", { mode: 0o777, size: 0 });
	assert.deepEqual([cut.status, cut.attributes?.size], [0, 0]);
	const verifier = Uint8Array.of(9, 8, 7, 6, 5, 4, 3, 2);
	const exclusive = await client.create(top, "x", verifier);
	assert.equal(exclusive.status, 0);
	const repeated = await client.create(top, "x", verifier);
	assert.deepEqual([repeated.status, repeated.handle], [0, exclusive.handle]);
	await isStatus("EXIST", client.create(top, "x", Uint8Array.of(9, 8, 7, 6, 5, 4, 3, 1)));
	await made(client.mkdir(top, "d"));
	await isStatus("EXIST", client.create(top, "d", "unchecked"));
	await isStatus("EXIST", client.create(top, ".", "unchecked"));
	await isStatus("NAMETOOLONG", client.create(top, "n".repeat(256), "unchecked"));
	await isStatus("NOTDIR", client.create(file, "y", "unchecked"));
	const wcc = (await client.create(top, "y", "unchecked", { mode: 0o644, size: 5, mtime: { seconds: 5, nanoseconds: 6 } })) as {
		attributes?: Attributes3;
		directory: { before?: { ctime: unknown }; after?: Attributes3 };
	};
	assert.deepEqual([wcc.attributes?.size, wcc.attributes?.mtime], [5, { seconds: 5, nanoseconds: 6 }]);
	assert.notDeepEqual(wcc.directory.before?.ctime, wcc.directory.after?.ctime);
	assert.deepEqual(wcc.directory.after, await attributesOf(client, top));
});

check("MKDIR, MKNOD, REMOVE, RMDIR", async (client, top) => {
	const folder = await made(client.mkdir(top, "d", { mode: 0o1770, uid: 3, gid: 4 }));
	const attributes = await attributesOf(client, folder);
	assert.deepEqual([attributes.type, attributes.mode, attributes.nlink, attributes.uid, attributes.gid], [2, 0o1770, 2, 3, 4]);
	await isStatus("EXIST", client.mkdir(top, "d"));
	const device = await client.mknod(folder, "c", 4, { mode: 0o600 }, [259, 70_000]);
	assert.deepEqual([device.attributes?.type, device.attributes?.major, device.attributes?.minor], [4, 259, 70_000]);
	for (const [name, type] of [
		["s", 6],
		["p", 7],
	] as const)
		assert.equal((await client.mknod(folder, name, type, { mode: 0o600 })).attributes?.type, type);
	assert.equal((await client.mknod(folder, "b", 3, { mode: 0o600 }, [8, 1])).attributes?.major, 8);
	for (const type of [0, 1, 2, 5, 8]) await isStatus("BADTYPE", client.mknod(folder, "z", type, {}), `type ${type}`);
	await isStatus("NOTEMPTY", client.rmdir(top, "d"));
	await isStatus("ISDIR", client.remove(top, "d"));
	await isStatus("NOTDIR", client.rmdir(folder, "p"));
	await isStatus("INVAL", client.rmdir(folder, "."));
	await isStatus("EXIST", client.rmdir(folder, ".."));
	for (const name of ["c", "s", "p", "b"]) await isStatus("OK", client.remove(folder, name));
	await isStatus("NOENT", client.remove(folder, "p"));
	const gone = await client.rmdir(top, "d");
	assert.deepEqual([gone.status, gone.after], [0, await attributesOf(client, top)]);
	await isStatus("STALE", client.create(folder, "x", "unchecked"));
});

check("RENAME and LINK, with what they tell of directories", async (client, top) => {
	const [a, b] = [await made(client.mkdir(top, "a")), await made(client.mkdir(top, "b"))];
	const file = await made(client.create(a, "f", "guarded", { mode: 0o644 }));
	const linked = await client.link(file, b, "g");
	assert.deepEqual([linked.status, linked.attributes?.nlink], [0, 2]);
	assert.deepEqual(linked.directory.after, await attributesOf(client, b));
	const moved = await client.rename(a, "f", b, "h");
	assert.deepEqual([moved.status, moved.from.after, moved.to.after], [0, await attributesOf(client, a), await attributesOf(client, b)]);
	assert.ok(moved.from.before && moved.to.before);
	await isStatus("OK", client.rename(b, "h", b, "g"), "two names of one file: nothing happens");
	assert.equal((await attributesOf(client, file)).nlink, 2);
	await isStatus("NOENT", client.rename(a, "none", b, "x"));
	await isStatus("INVAL", client.rename(top, "a", a, "inside"));
	await isStatus("INVAL", client.rename(a, ".", b, "x"));
	await made(client.create(a, "x", "guarded"));
	await isStatus("NOTEMPTY", client.rename(top, "b", top, "a"));
	await isStatus("ISDIR", client.rename(b, "g", top, "a"));
	await isStatus("NOTDIR", client.rename(top, "a", b, "g"));
	await isStatus("EXIST", client.link(file, a, "x"));
	await isStatus("PERM", client.link(a, b, "dir"));
	const other = await made(client.create(a, "other", "guarded"));
	await isStatus("OK", client.rename(b, "g", a, "other"));
	await isStatus("STALE", client.getattr(other));
});

check("READDIR and READDIRPLUS: pages, positions, verifiers", async (client, top) => {
	const names = Array.from({ length: 300 }, (_, i) => `entry-${i}-${"x".repeat(i % 40)}`);
	for (const name of names) await made(client.create(top, name, "guarded", { mode: 0o600 }));
	const all = await client.list(top, 4096);
	assert.deepEqual(all.map(({ name }) => name).sort(), [".", "..", ...names].sort());
	for (const { name, handle, attributes, fileid } of all.slice(2)) {
		const found = await client.lookup(top, name);
		assert.deepEqual([handle, attributes?.fileid], [found.handle, fileid]);
	}
	assert.deepEqual([all[0]?.fileid, all[1]?.fileid], [1, 1], "above the root of an export there is nothing");
	const first = await client.readdir(top, 0, zeroVerifier, 1000);
	assert.ok(first.bytes <= 1000 && first.entries.length > 5 && !first.eof);
	const cookie = first.entries[4]?.cookie ?? 0;
	await client.remove(top, first.entries[4]?.name ?? "");
	const next = await client.readdir(top, cookie, first.verifier, 1000);
	assert.deepEqual(next.entries[0], first.entries[5], "a position stays although its entry is gone");
	await isStatus("BAD_COOKIE", client.readdir(top, cookie, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8), 1000));
	await isStatus("BAD_COOKIE", client.readdir(top, 2 ** 60, first.verifier, 1000));
	await isStatus("TOOSMALL", client.readdir(top, 0, zeroVerifier, 100));
	await isStatus("TOOSMALL", client.readdirplus(top, 0, zeroVerifier, 1000, 150));
	const end = await client.readdir(top, all.at(-1)?.cookie ?? 0, first.verifier, 1000);
	assert.deepEqual([end.entries, end.eof], [[], true]);
	const file = await made(client.create(top, "f", "guarded"));
	await isStatus("NOTDIR", client.readdir(file, 0, zeroVerifier, 1000));
	await isStatus("NOTDIR", client.readdirplus(file, 0, zeroVerifier, 1000, 1000));
});

check("FSSTAT, FSINFO, PATHCONF", async (client, top) => {
	const stat = await client.fsstat(top);
	const [total, free, available, inodes] = stat.figures as [number, number, number, number];
	assert.ok(total >= free && free >= available && available > 0 && inodes > 0, String(stat.figures));
	const info = await client.fsinfo(top);
	assert.deepEqual(info.words, [1 << 20, 1 << 20, 4096, 1 << 20, 1 << 20, 4096, 65_536]);
	assert.deepEqual([info.maxFileSize, info.delta, info.properties], [Number.MAX_SAFE_INTEGER, { seconds: 0, nanoseconds: 1 }, 27]);
	assert.deepEqual((await client.pathconf(top)).values, [65_000, 255, true, true, false, true]);
	for (const work of [client.fsstat(top.subarray(1)), client.fsinfo(top.subarray(1)), client.pathconf(top.subarray(1))])
		await isStatus("BADHANDLE", work);
});

check("permissions are checked for every call, with what NFS lets pass", async (client, top, world) => {
	const file = await made(client.create(top, "f", "guarded", { mode: 0o400, uid: 1001, gid: 2001 }));
	const program = await made(client.create(top, "x", "guarded", { mode: 0o711, uid: 1, gid: 1 }));
	const sticky = await made(client.mkdir(top, "t", { mode: 0o1777 }));
	const closed = await made(client.mkdir(top, "c", { mode: 0o700 }));
	await made(client.create(closed, "inside", "guarded", { mode: 0o666 }));
	client.credential = asUser(1001);
	await isStatus("OK", client.write(file, 0, text("mine"), 0), "the owner goes on writing what it opened");
	await isStatus("OK", client.setattr(file, { size: 2 }));
	await isStatus("OK", client.read(program, 0, 1), "what may be run may be read");
	await made(client.create(sticky, "mine", "guarded", { mode: 0o666 }));
	await isStatus("PERM", client.setattr(file, { uid: 1002 }));
	client.credential = asUser(1002);
	const shared = (await client.lookup(sticky, "mine")).handle;
	await isStatus("OK", client.setattr(shared, { size: 0, mtime: "server" }), "how clients tell an open that cuts");
	await isStatus("OK", client.setattr(shared, { mtime: "server" }), "and when it is empty already");
	await isStatus("PERM", client.setattr(shared, { mtime: { seconds: 1, nanoseconds: 0 } }));
	await isStatus("PERM", client.setattr(shared, { mtime: "server", mode: 0o777 }));
	await isStatus("ACCES", client.setattr(file, { mtime: "server" }));
	await isStatus("ACCES", client.read(file, 0, 1));
	await isStatus("ACCES", client.write(file, 0, text("x"), 0));
	await isStatus("ACCES", client.write(program, 0, text("x"), 0));
	await isStatus("ACCES", client.setattr(file, { size: 0 }));
	await isStatus("PERM", client.setattr(file, { mode: 0o777 }));
	await isStatus("ACCES", client.lookup(closed, "inside"));
	await isStatus("ACCES", client.readdir(closed, 0, zeroVerifier, 1000));
	await isStatus("ACCES", client.create(top, "new", "guarded"));
	await isStatus("ACCES", client.mkdir(top, "new"));
	await isStatus("ACCES", client.remove(top, "f"));
	await isStatus("PERM", client.remove(sticky, "mine"));
	await isStatus("PERM", client.mknod(sticky, "dev", 4, { mode: 0o600 }, [1, 3]));
	await isStatus("ACCES", client.create(top, "f", "unchecked", { size: 0 }), "nobody cuts by creating");
	const setgid = await world.volume.makeDirectory(root, world.volume.root, "g", 0o777);
	await world.volume.setAttributes(root, world.volume.node(setgid.attributes.ino), { gid: 77 });
	await world.volume.setAttributes(root, world.volume.node(setgid.attributes.ino), { mode: 0o2777 });
	const { handle } = await client.lookup(top, "g");
	const foreign = await client.create(handle, "p", "guarded", { mode: 0o2771 });
	assert.deepEqual([foreign.attributes?.gid, foreign.attributes?.mode], [77, 0o771], "no set-gid program for those outside the group");
	const below = await client.mkdir(handle, "d", { mode: 0o755 });
	assert.deepEqual([below.attributes?.gid, below.attributes?.mode], [77, 0o2755]);
});

check("set-id bits go when others write", async (client, top) => {
	const file = await made(client.create(top, "f", "guarded", { mode: 0o6777, uid: 1001, gid: 1001 }));
	await client.write(file, 0, text("root"), 0);
	assert.equal((await attributesOf(client, file)).mode, 0o6777, "root's writes leave them");
	client.credential = asUser(1002);
	await client.write(file, 0, text("other"), 0);
	assert.equal((await attributesOf(client, file)).mode, 0o777);
});

check("squashing: root, all, and calls without a user", async (client, top, world) => {
	await client.setattr(top, { mode: 0o777 });
	const ownerOf = async (name: string): Promise<readonly [number, number]> => {
		const { attributes } = await client.create(top, name, "guarded", { mode: 0o644 });
		return [attributes?.uid ?? -1, attributes?.gid ?? -1];
	};
	world.setExports([{ ...wholeVolume, squash: "root", anonymousUid: 99, anonymousGid: 98 }]);
	assert.deepEqual(await ownerOf("a"), [99, 98]);
	client.credential = asUser(1001, 0, [0]);
	assert.deepEqual(await ownerOf("b"), [1001, 98]);
	world.setExports([{ ...wholeVolume, squash: "all", anonymousUid: 99, anonymousGid: 98 }]);
	assert.deepEqual(await ownerOf("c"), [99, 98]);
	world.setExports([{ ...wholeVolume, squash: "none" }]);
	client.credential = { flavor: "none" };
	assert.deepEqual(await ownerOf("d"), [65_534, 65_534]);
	client.credential = asUser(0);
	assert.deepEqual(await ownerOf("e"), [0, 0]);
});

test("a door that shall not answer at once never asks the volume to, and answers the same", (t) =>
	inWorld(seed, async (world) => {
		const answers: unknown[] = [];
		for (const answerNow of [true, false]) {
			await world.close();
			world.answerNow = answerNow;
			await world.open();
			const now = world.volume.now as VolumeNow;
			const asked = [t.mock.method(now, "lookup"), t.mock.method(now, "getAttributes")];
			const client = await world.connect();
			const { handle: top } = await client.mount("/demo");
			if (answerNow) await made(client.create(top, "f", "guarded", { mode: 0o644 }));
			const found = await client.lookup(top, "f");
			assert.equal(found.status, status.OK);
			answers.push([found.handle, await attributesOf(client, found.handle as Uint8Array)]);
			await isStatus("NOENT", client.lookup(top, "g"));
			for (const { mock } of asked) assert.equal(mock.callCount() > 0, answerNow);
			client.close();
		}
		assert.deepEqual(answers[1], answers[0]);
	}));

check("read-only exports refuse every change", async (client, top, world) => {
	const file = await made(client.create(top, "f", "guarded", { mode: 0o644 }));
	world.setExports([{ ...wholeVolume, readOnly: true }]);
	const changes: readonly Promise<{ readonly status: number }>[] = [
		client.setattr(file, { mode: 0 }),
		client.write(file, 0, text("x"), 0),
		client.create(top, "x", "unchecked"),
		client.mkdir(top, "x"),
		client.symlink(top, "x", "y"),
		client.mknod(top, "x", 7, {}),
		client.remove(top, "f"),
		client.rmdir(top, "f"),
		client.rename(top, "f", top, "g"),
		client.link(file, top, "g"),
	];
	for (const change of changes) await isStatus("ROFS", change);
	await isStatus("OK", client.read(file, 0, 1));
});

check("two exports of one volume are two file systems", async (client, top, world) => {
	const sub = await made(client.mkdir(top, "sub"));
	const file = await made(client.create(sub, "f", "guarded", { mode: 0o644 }));
	const { attributes } = await client.getattr(sub);
	const part = { ...wholeVolume, id: 2, name: "demo:/sub", path: "/demo/sub", folder: "sub", rootIno: attributes?.fileid ?? 0 };
	world.setExports([wholeVolume, part]);
	const { handle: inner } = await client.mount("/demo/sub");
	assert.notDeepEqual(inner, sub);
	assert.deepEqual((await client.lookup(inner, "..")).handle, inner);
	assert.notEqual((await attributesOf(client, inner)).fsid, (await attributesOf(client, sub)).fsid);
	await isStatus("XDEV", client.link(file, inner, "g"));
	await isStatus("XDEV", client.rename(sub, "f", inner, "g"));
	world.setExports([part]);
	await isStatus("STALE", client.getattr(top), "what is not exported any more is out of reach");
	await isStatus("OK", client.lookup(inner, "f"));
});
