import assert from "node:assert/strict";
import { test } from "node:test";
import { isFsError } from "../../base/errors.ts";
import { ByteWriter } from "../../codec/binary.ts";
import type { Attributes } from "../../volume/interface.ts";
import * as p from "./protocol.ts";
import { body, name, request } from "./test/requests.ts";

const decoders: readonly [string, (r: p.RequestReader) => unknown][] = [
	["init", p.decodeInit],
	["getattr", p.decodeGetattr],
	["statx", p.decodeStatx],
	["setattr", p.decodeSetattr],
	["mknod", p.decodeMknod],
	["mkdir", p.decodeMkdir],
	["rename", (r) => p.decodeRename(r, false)],
	["rename2", (r) => p.decodeRename(r, true)],
	["link", p.decodeLink],
	["open", p.decodeOpen],
	["create", p.decodeCreate],
	["read", p.decodeRead],
	["write", p.decodeWrite],
	["fh", p.decodeFh],
	["fsync", p.decodeFsync],
	["setxattr", (r) => p.decodeSetxattr(r, true)],
	["getxattr", p.decodeGetxattrSize],
	["batch-forget", p.decodeBatchForget],
	["header", (r) => p.decodeHeader(r.raw(r.remaining))],
];

/** xorshift32. */
function prng(seed: number): () => number {
	let x = seed | 1;
	return () => {
		x ^= x << 13;
		x ^= x >>> 17;
		x ^= x << 5;
		return x >>> 0;
	};
}

test("decoders refuse or answer whatever comes, and never read past the end", () => {
	const seed = 20_261_121;
	const random = prng(seed);
	let refused = 0;
	for (let round = 0; round < 20_000; round++) {
		const bytes = new Uint8Array(random() % 140);
		for (let i = 0; i < bytes.length; i++) bytes[i] = random() % 4 === 0 ? 0 : random();
		const [what, decode] = decoders[random() % decoders.length] as (typeof decoders)[number];
		const r = new p.RequestReader(bytes, 0, bytes.length, what);
		try {
			decode(r);
			assert.ok(r.remaining >= 0, `seed ${seed} round ${round} ${what}`);
		} catch (error) {
			assert.ok(isFsError(error, "EINVAL"), `seed ${seed} round ${round} ${what}: ${String(error)}`);
			refused++;
		}
	}
	assert.ok(refused > 1000, "short input is common in this test");
});

test("a reader stops at its own end, not at the buffer's", () => {
	const r = new p.RequestReader(new Uint8Array([65, 66, 67, 0]), 0, 3, "x");
	assert.throws(
		() => r.name(),
		(error) => isFsError(error, "EINVAL"),
	);
	assert.throws(
		() => r.raw(4),
		(error) => isFsError(error, "EINVAL"),
	);
	assert.equal(r.u16(), 65 + 66 * 256);
});

test("requests decode to what was encoded", () => {
	const header = p.decodeHeader(
		request(p.opcodes.LOOKUP, 2 ** 40 + 6, new Uint8Array(3), { node: 2 ** 41 + 5, uid: 10, gid: 4_294_967_294 }),
	);
	const { uniqueLow, uniqueHigh, ...rest } = header;
	assert.deepEqual([uniqueLow, uniqueHigh], [6, 256]);
	assert.deepEqual(rest, { lengthBytes: 43, opcode: 1, nodeid: 2 ** 41 + 5, uid: 10, gid: 4_294_967_294, pid: 77, slot: undefined });
	assert.throws(
		() => p.decodeHeader(new Uint8Array(39)),
		(error) => isFsError(error, "EINVAL"),
	);

	const rename = body((w) => name(name(w.u64(7).u32(1).u32(0), "from"), "to\xff"));
	assert.deepEqual(p.decodeRename(new p.RequestReader(rename), true), { newParent: 7, flags: 1, name: "from", newName: "to\xff" });

	const write = body((w) =>
		w
			.u64(9)
			.u64(2 ** 33)
			.u32(3)
			.u32(4)
			.u64(0)
			.u32(1)
			.u32(0)
			.raw(new Uint8Array([1, 2, 3])),
	);
	assert.deepEqual(p.decodeWrite(new p.RequestReader(write)), {
		handle: 9,
		offset: 2 ** 33,
		writeFlags: 4,
		data: new Uint8Array([1, 2, 3]),
	});

	const set = body((w) => {
		w.u32(p.fattr.FH | p.fattr.MTIME)
			.u32(0)
			.u64(5)
			.u64(100)
			.u64(0)
			.i64(-1)
			.i64(-(2 ** 33))
			.i64(3);
		w.u32(1).u32(2).u32(3).u32(0o100644).u32(0).u32(8).u32(9).u32(0);
	});
	assert.deepEqual(p.decodeSetattr(new p.RequestReader(set)), {
		valid: p.fattr.FH | p.fattr.MTIME,
		size: 100,
		mode: 0o100644,
		uid: 8,
		gid: 9,
		handle: 5,
		atime: { seconds: -1, nanoseconds: 1 },
		mtime: { seconds: -(2 ** 33), nanoseconds: 2 },
		ctime: { seconds: 3, nanoseconds: 3 },
	});

	const forget = body((w) => w.u32(2).u32(0).u64(4).u64(1).u64(5).u64(2));
	assert.deepEqual(p.decodeBatchForget(new p.RequestReader(forget)), [
		{ node: 4, times: 1 },
		{ node: 5, times: 2 },
	]);
	const old = body((w) => w.u32(7).u32(31).u32(131_072).u32(0xff));
	assert.deepEqual(p.decodeInit(new p.RequestReader(old)), { major: 7, minor: 31, maxReadAhead: 131_072, flags: 0xff, flags2: 0 });
});

const attributes: Attributes = {
	ino: 2 ** 52 + 1,
	type: "character",
	mode: 0o4755,
	nlink: 3,
	uid: 1,
	gid: 2,
	rdev: 0xfff1_23ff,
	size: 2 ** 40 + 1,
	storedBytes: 513,
	atime: { seconds: -1, nanoseconds: 5 },
	mtime: { seconds: 2 ** 34, nanoseconds: 6 },
	ctime: { seconds: 3, nanoseconds: 7 },
	btime: { seconds: 4, nanoseconds: 8 },
	flags: 0,
	change: 1,
};

const header: p.RequestHeader = {
	lengthBytes: 40,
	opcode: 1,
	uniqueLow: 0xffff_fffe,
	uniqueHigh: 0x8000_0000,
	nodeid: 1,
	uid: 0,
	gid: 0,
	pid: 0,
};

test("replies have the kernel's layout", () => {
	const w = new p.ReplyWriter(512);
	p.encodeEntry(w, attributes, { entryMs: 1500, attributeMs: 3_600_000 }, 4096);
	const bytes = w.finish(header, 0);
	assert.equal(bytes.length, 16 + 128);
	const v = new DataView(bytes.buffer);
	assert.deepEqual([v.getUint32(0, true), v.getInt32(4, true), v.getBigUint64(8, true)], [144, 0, 0x8000_0000_ffff_fffen]);
	assert.deepEqual([v.getBigUint64(16, true), v.getBigUint64(24, true)], [2n ** 52n + 1n, 0n]);
	assert.deepEqual(
		[v.getBigUint64(32, true), v.getBigUint64(40, true), v.getUint32(48, true), v.getUint32(52, true)],
		[1n, 3600n, 500_000_000, 0],
	);
	assert.deepEqual([v.getBigUint64(56, true), v.getBigUint64(64, true), v.getBigUint64(72, true)], [2n ** 52n + 1n, 2n ** 40n + 1n, 2n]);
	assert.deepEqual([v.getBigInt64(80, true), v.getBigInt64(88, true), v.getBigInt64(96, true)], [-1n, 2n ** 34n, 3n]);
	const words = [104, 108, 112, 116, 120, 124, 128, 132, 136, 140].map((at) => v.getUint32(at, true));
	assert.deepEqual(words, [5, 6, 7, 0o024755, 3, 1, 2, 0xfff1_23ff, 4096, 0]);
});

test("statx carries the time of birth and split device numbers", () => {
	const w = new p.ReplyWriter(512);
	p.encodeStatxOut(w, attributes, 1000, 4096);
	const bytes = w.finish(header, 0);
	// fuse_statx_out: 32 bytes before `struct fuse_statx` of 256.
	assert.equal(bytes.length, 16 + 32 + 256);
	const v = new DataView(bytes.buffer, 48);
	assert.equal(v.getUint32(0, true), 0xfff);
	assert.equal(v.getUint16(28, true), 0o024755);
	assert.deepEqual([v.getBigUint64(32, true), v.getBigUint64(40, true)], [2n ** 52n + 1n, 2n ** 40n + 1n]);
	assert.deepEqual(
		[v.getBigInt64(64, true), v.getBigInt64(80, true), v.getUint32(88, true), v.getBigInt64(112, true)],
		[-1n, 4n, 8, 2n ** 34n],
	);
	// 0xfff123ff: major 0x123, minor 0xfff00 | 0xff.
	assert.deepEqual([v.getUint32(128, true), v.getUint32(132, true)], [0x123, 0xfffff]);
});

test("INIT, statfs and directory entries have the kernel's sizes", () => {
	const w = new p.ReplyWriter(512);
	p.encodeInitOut(w, {
		minor: 38,
		maxReadAhead: 1,
		flags: 0xffff_ffff,
		flags2: 2,
		maxBackground: 64,
		congestionThreshold: 48,
		maxWrite: 1 << 20,
		maxPages: 256,
		maxStackDepth: 1,
	});
	assert.equal(w.finish(header, 0).length, 16 + 64);
	p.encodeStatfs(w.reset(), { blockBytes: 4096, blocks: 1, freeBlocks: 2, files: 3, freeFiles: 4, nameBytes: 255 });
	assert.equal(w.finish(header, 0).length, 16 + 80);
	for (const entry of ["a", "12345678", "123456789"]) {
		p.encodeDirent(w.reset(), { ino: 1, cookie: 2, type: "file", name: entry });
		assert.equal(w.finish(header, 0).length, 16 + p.direntLength(entry.length, false));
		assert.equal(w.bytes[16 + 20], 8);
	}
	const negative = w.reset();
	p.encodeNegativeEntry(negative, 250);
	assert.deepEqual([negative.finish(header, 0).length, negative.bytes[16]], [144, 0]);
});

test("an error reply is a header with the negated errno", () => {
	const bytes = new p.ReplyWriter(64).finish(header, p.errnoOf.ENOTEMPTY);
	assert.deepEqual([bytes.length, new DataView(bytes.buffer).getInt32(4, true)], [16, -39]);
	assert.equal(new ByteWriter().raw(bytes).length, 16);
});
