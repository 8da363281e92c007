/** The pure parts: addresses, admission, file handles, the cache of replies. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Deferred } from "../../base/async.ts";
import { isFsError } from "../../base/errors.ts";
import type { Clock } from "../../platform/interface.ts";
import { callSlots, type CallToken, type Ino } from "../../volume/interface.ts";
import { XdrWriter } from "../../codec/xdr.ts";
import { formatRange, inRanges, isLoopback, parseAddress, parseRange } from "./addresses.ts";
import { admit, callerOf, type Export } from "./exports.ts";
import { decodeFileHandle, encodeFileHandle, fileHandleBytes } from "./file-handle.ts";
import { maxReplyCacheBytes, maxReplyCacheEntries, pastCallsMs } from "./limits.ts";
import { PastCalls } from "./past-calls.ts";
import { type Reply, ReplyCache } from "./reply-cache.ts";
import { authFlavor, type Credential } from "./rpc.ts";

test("addresses and ranges: what they are, and what is none", () => {
	for (const text of ["10.0.0.0/8", "192.0.2.7", "0.0.0.0/0", "2001:db8::/32", "::1", "::/0", "fe80::1:2:0:3"])
		assert.equal(formatRange(parseRange(text)), text);
	assert.equal(formatRange(parseRange("2001:0DB8:0:0:0:0:0:1/128")), "2001:db8::1");
	const wrong = [
		"",
		"10.0.0",
		"10.0.0.256",
		"010.0.0.1",
		"1.2.3.4.5",
		"10.0.0.1/8",
		"10.0.0.0/33",
		"10.0.0.0/-1",
		"10.0.0.0/8/8",
		":::",
		"1:2",
		"::1::",
		"2001:db8::/129",
		"2001:db8::1/32",
		"g::",
		"1:2:3:4:5:6:7:8:9",
		"host",
	];
	for (const text of wrong)
		assert.throws(
			() => parseRange(text),
			(error) => isFsError(error, "EINVAL"),
			text,
		);
	assert.deepEqual(parseAddress("::ffff:192.0.2.1")?.slice(10), [255, 255, 192, 0, 2, 1]);
	const ranges = [parseRange("10.1.0.0/20"), parseRange("2001:db8:8000::/33")];
	for (const [address, expected] of [
		["10.1.15.255", true],
		["10.1.16.0", false],
		["11.1.0.0", false],
		["2001:db8:8001::1", true],
		["2001:db8:7fff::1", false],
		["::ffff:10.1.0.1", false],
		["nonsense", false],
	] as const)
		assert.equal(inRanges(address, ranges), expected, address);
	assert.equal(inRanges("203.0.113.9", [parseRange("0.0.0.0/0")]), true);
	assert.deepEqual(["127.0.0.1", "127.9.9.9", "::1", "128.0.0.1", "127.0.0.1.evil", "::2"].map(isLoopback), [
		true,
		true,
		true,
		false,
		false,
		false,
	]);
});

const entry: Export = {
	id: 1,
	name: "photos",
	path: "/photos",
	folder: "",
	clients: [],
	squash: "root",
	anonymousUid: 99,
	anonymousGid: 98,
	readOnly: false,
	privilegedPorts: true,
};

test("who is admitted: this machine alone unless others are named, from ports that root gives", () => {
	const refused = (one: Export, address: string, port: number): void =>
		assert.throws(
			() => admit(one, { address, port }),
			(error) => isFsError(error, "EACCES"),
			`${address} ${port}`,
		);
	admit(entry, { address: "127.0.0.1", port: 700 });
	admit(entry, { address: "::1", port: 1023 });
	refused(entry, "127.0.0.1", 1024);
	refused(entry, "192.0.2.1", 700);
	const others = { ...entry, clients: [parseRange("192.0.2.0/24")] };
	admit(others, { address: "192.0.2.1", port: 700 });
	refused(others, "127.0.0.1", 700);
	refused(others, "192.0.3.1", 700);
	admit({ ...entry, privilegedPorts: false }, { address: "127.0.0.1", port: 40_000 });
});

test("as whom: nobody is more than the export allows", () => {
	const peer = { address: "192.0.2.1", port: 700 };
	const of = (squash: Export["squash"], credential: Credential) => {
		const { uid, gid, groups, trusted } = callerOf({ ...entry, squash }, credential, peer);
		assert.equal(trusted, false);
		return [uid, gid, ...groups];
	};
	const rootly: Credential = { flavor: "sys", machineName: "m", uid: 0, gid: 0, groups: [0, 5] };
	const user: Credential = { ...rootly, uid: 7, gid: 8 };
	assert.deepEqual(
		[of("root", rootly), of("root", user)],
		[
			[99, 98, 98, 5],
			[7, 8, 98, 5],
		],
	);
	assert.deepEqual(
		[of("all", rootly), of("all", user)],
		[
			[99, 98],
			[99, 98],
		],
	);
	assert.deepEqual(
		[of("none", rootly), of("none", user)],
		[
			[0, 0, 0, 5],
			[7, 8, 0, 5],
		],
	);
	for (const squash of ["root", "all", "none"] as const) assert.deepEqual(of(squash, { flavor: "none" }), [99, 98]);
});

test("file handles: nobody makes one up, whichever bit is changed", () => {
	const keys = { secret: new Uint8Array(16).fill(3), volume: Uint8Array.from({ length: 16 }, (_, i) => i) };
	const about = { rootIno: 2 ** 40 + 7, ino: 2 ** 52 + 1, generation: 0xffff_ffff };
	const bytes = encodeFileHandle(keys, about);
	assert.equal(bytes.length, fileHandleBytes);
	assert.deepEqual(decodeFileHandle(keys, bytes), about);
	for (let bit = 0; bit < 8 * fileHandleBytes; bit++) {
		const changed = bytes.slice();
		changed[bit >> 3] = (changed[bit >> 3] as number) ^ (1 << (bit & 7));
		assert.throws(
			() => decodeFileHandle(keys, changed),
			(error) => isFsError(error, "EBADF") || isFsError(error, "ESTALE"),
			`bit ${bit}`,
		);
	}
	assert.throws(
		() => decodeFileHandle({ ...keys, secret: new Uint8Array(16) }, bytes),
		(error) => isFsError(error, "EBADF"),
	);
	for (const length of [0, 43, 45, 64])
		assert.throws(
			() => decodeFileHandle(keys, new Uint8Array(length)),
			(error) => isFsError(error, "EBADF"),
		);
});

const message = (xid: number): Uint8Array => new XdrWriter().u32(xid).u32(authFlavor.sys).finish();
const replyOf = (bytes: number, keep = true): Reply => ({ parts: [new Uint8Array(bytes)], keep });

test("the cache of replies: while it is under way, afterwards, and what is not kept", async () => {
	const cache = new ReplyCache();
	const slow = new Deferred<Reply | undefined>();
	let done = 0;
	const work = () => {
		done++;
		return slow.promise;
	};
	const [one, two] = [cache.answer("a", message(1), work), cache.answer("a", message(1), work)];
	const other = cache.answer("b", message(1), work);
	slow.resolve(replyOf(8));
	assert.deepEqual([await one, await two, await other, done], [replyOf(8), replyOf(8), replyOf(8), 2]);
	await cache.answer("a", message(1), work);
	assert.deepEqual([done, cache.hits], [2, 2]);
	for (const reply of [undefined, replyOf(8, false)]) {
		const again = async () => {
			done++;
			return reply;
		};
		done = 0;
		await cache.answer("a", message(2), again);
		await cache.answer("a", message(2), again);
		assert.equal(done, 2, "no reply, or one that says: ask again");
	}
	await assert.rejects(
		cache.answer("a", message(3), () => Promise.reject(new Error("fault"))),
		/fault/,
	);
	assert.deepEqual(await cache.answer("a", message(3), async () => replyOf(4)), replyOf(4));
});

test("the cache of replies is bounded, in entries and in bytes, and never lets go of what is under way", async () => {
	const cache = new ReplyCache();
	const slow = new Deferred<Reply | undefined>();
	const first = cache.answer("a", message(0), () => slow.promise);
	for (let xid = 1; xid < maxReplyCacheEntries + 100; xid++) await cache.answer("a", message(xid), async () => replyOf(4));
	assert.ok(cache.size <= maxReplyCacheEntries, `${cache.size} entries`);
	for (let xid = 10_000; xid < 10_100; xid++) await cache.answer("a", message(xid), async () => replyOf(maxReplyCacheBytes >> 4));
	assert.ok(cache.size <= 17, `${cache.size} large entries`);
	const again = cache.answer("a", message(0), async () => replyOf(99));
	slow.resolve(replyOf(1));
	assert.deepEqual([await first, await again], [replyOf(1), replyOf(1)]);
});

test("calls of before: slots in turn, never one that is under way; a call is known by its words and its sender, for a while", async () => {
	let now = 0;
	const clock = { monotonicMs: () => now } as Clock;
	const secret = new Uint8Array(16).fill(3);
	const calls = new PastCalls(secret, clock);
	const message = (n: number): Uint8Array => Uint8Array.of(0, 0, n >> 8, n & 255, 1, 2, 3, 4);
	const look = (of: PastCalls, n: number, address = "10.0.0.1"): Promise<{ noted?: CallToken; past?: Ino }> =>
		of.carryOut(address, message(n), async (call) => call);
	const held = new Deferred<void>();
	let heldSlot = -1;
	const long = calls.carryOut("10.0.0.1", message(0), async (call) => {
		if ("noted" in call) heldSlot = call.noted.slot;
		await held.promise;
	});
	const tokens: CallToken[] = [];
	for (let n = 1; n < callSlots; n++) tokens.push((await look(calls, n)).noted as CallToken);
	assert.deepEqual(new Set([heldSlot, ...tokens.map(({ slot }) => slot)]).size, callSlots, "in turn");
	assert.equal((await look(calls, 1)).noted?.slot, tokens[0]?.slot, "the longest unused, not the one under way");
	held.resolve();
	await long;

	const noted = tokens[7] as CallToken;
	const successor = new PastCalls(secret, clock);
	successor.load([{ ...noted, ino: 77 }]);
	assert.deepEqual(await look(successor, 8), { past: 77 });
	assert.equal((await look(successor, 8, "10.0.0.2")).past, undefined, "of another client");
	assert.equal((await look(successor, 9)).past, undefined, "another call");
	for (let n = 100; n < 100 + callSlots - 3; n++)
		assert.notEqual((await look(successor, n)).noted?.slot, noted.slot, "its note stays for long");
	now += pastCallsMs;
	assert.deepEqual(await look(successor, 8), { past: 77 });
	now++;
	assert.equal((await look(successor, 8)).past, undefined);
});
