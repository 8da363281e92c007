import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { bytesToLatin1, utf8ToLatin1 } from "../base/bytes.ts";
import { type ErrorCode, FsError, isFsError } from "../base/errors.ts";
import { SimWorld } from "../platform/sim/world.ts";
import { exitCodeOf } from "./exit-codes.ts";
import { checkVolumeName, Home } from "./home.ts";
import { civilFromDays, formatTime, parseTime } from "../base/time.ts";
import { callerOf, formatJsonLine, formatLogLine } from "./log-line.ts";
import { mountOptionWords, parseMountOptions } from "./mountpoint.ts";
import { printable, printableDeep } from "./text.ts";

/** As mount options are written. */
const inOrder = (a: string, b: string) => place(a) - place(b);
const place = (word: string) =>
	["ro", "root_only", "on_crash=remount", "on_crash=die", "metrics=9464", "log=json", "nodev", "noexec"].indexOf(word);
const inval = (error: unknown) => isFsError(error, "EINVAL");

describe("exit codes", () => {
	test("follow the code, the site where data is at stake, and what the daemon said", () => {
		const of = (code: ErrorCode, site = "test.x", data = {}) => exitCodeOf(new FsError(code, site, "", data));
		assert.deepEqual(
			[of("NOTFOUND"), of("ENOENT"), of("REFUSED"), of("EBUSY"), of("EINVAL"), of("CORRUPT"), of("EIO"), of("ETIMEDOUT")],
			[3, 3, 4, 4, 2, 5, 1, 1],
		);
		assert.deepEqual([of("REFUSED", "log.roster-stale"), of("EIO", "log.lost"), of("ENOTCONN", "control.unreachable")], [5, 5, 6]);
		assert.equal(of("EIO", "test.x", { exitCode: 5 }), 5);
		assert.equal(exitCodeOf(new Error("x")), 1);
	});
});

describe("text", () => {
	test("byte strings become UTF-8 where they are", () => {
		assert.equal(printable(utf8ToLatin1("größe 日本")), "größe 日本");
		assert.equal(printable("größe 日本"), "größe 日本");
		assert.equal(printable("größe"), "größe");
		assert.equal(printable(bytesToLatin1(Uint8Array.of(0xff, 0x41))), "\u00ffA");
		assert.deepEqual(printableDeep({ a: [utf8ToLatin1("ü"), 1, null, { b: true }] }), { a: ["ü", 1, null, { b: true }] });
	});
});

describe("log lines", () => {
	test("dates agree with the runtime's", () => {
		for (let days = -800_000; days < 800_000; days += 997) {
			const date = new Date(days * 86_400_000);
			assert.deepEqual(
				civilFromDays(days),
				{ year: date.getUTCFullYear(), month: date.getUTCMonth() + 1, day: date.getUTCDate() },
				`${days}`,
			);
		}
		for (const seconds of [0, 1, 951_782_399, 951_868_800, 1_732_165_953, 4_102_444_799]) {
			const text = formatTime({ seconds, nanoseconds: 123_999_999 });
			assert.equal(text, new Date(seconds * 1000 + 123).toISOString());
			assert.equal(parseTime(text), seconds);
		}
	});

	test("one line, whatever is in it", () => {
		const line = formatLogLine({ seconds: 0, nanoseconds: 0 }, "warn", "two\nlines", {
			path: utf8ToLatin1("/ü"),
			long: "x".repeat(10_000),
		});
		assert.match(line, /^1970-01-01T00:00:00\.000Z warn {2}two lines \{"path":"\/ü","long":"x+…\n$/);
		assert.ok(line.length < 5000);
		assert.equal(formatLogLine({ seconds: 0, nanoseconds: 0 }, "info", "m"), "1970-01-01T00:00:00.000Z info  m\n");
	});
});

describe("log lines in JSON", () => {
	const origin = { volume: "demo", source: "log/log.js:7", request: { door: "fuse", id: "42", operation: "READ" } };

	test("one object, whatever is in it", () => {
		const time = { seconds: 0, nanoseconds: 0 };
		const line = formatJsonLine(time, "warn", "two\nlines", { site: "log.x", path: utf8ToLatin1("/ü") }, origin);
		assert.equal(line.indexOf("\n"), line.length - 1);
		assert.deepEqual(JSON.parse(line), {
			time: "1970-01-01T00:00:00.000Z",
			level: "warn",
			volume: "demo",
			message: "two\nlines",
			site: "log.x",
			source: "log/log.js:7",
			request: origin.request,
			data: { path: "/ü" },
		});
		const bare = JSON.parse(formatJsonLine(time, "info", "m", undefined, { ...origin, request: undefined }));
		assert.deepEqual(Object.keys(bare), ["time", "level", "volume", "message", "source"]);
		const long = formatJsonLine(time, "info", "y".repeat(10_000), { long: "x".repeat(10_000) }, origin);
		assert.ok(long.length < 10_000);
		assert.match(JSON.parse(long).data.cut, /^\{"long":"x+…$/);
	});

	test("the place that logged is read from the stack", () => {
		const stack = [
			"Error",
			"    at Object.json [as warn] (file:///opt/cairn/dist/src/daemon/main.js:70:11)",
			"    at Healer.trigger (file:///opt/src/cairn/dist/src/volume/native/healer.js:97:22)",
		].join("\n");
		assert.equal(callerOf(stack), "volume/native/healer.js:97");
		assert.equal(callerOf("Error\n    at a\n    at node:internal/x:1:1"), undefined);
		assert.equal(callerOf(undefined), undefined);
	});
});

describe("mount options", () => {
	const allFast = { diskLane: true, answerNow: true, waitAwake: true, lowCpuLatency: true, coderThread: true };

	test("each fast path has a word, fast_paths is all of them, and the last word counts", () => {
		const of = (text: string) => parseMountOptions(text).fastPaths;
		assert.deepEqual(of("wait_awake=off"), { ...allFast, waitAwake: false });
		assert.deepEqual(of("wait_awake=off,fast_paths=on"), allFast);
		const onlyLane = { diskLane: true, answerNow: false, waitAwake: false, lowCpuLatency: false, coderThread: false };
		assert.deepEqual(of("fast_paths=off,disk_lane=on"), onlyLane);
		assert.equal(
			mountOptionWords(parseMountOptions("disk_lane=off,answer_now=off,wait_awake=off,low_cpu_latency=off,coder_thread=off")).join(),
			"fast_paths=off",
		);
	});

	test("known ones", () => {
		assert.deepEqual(parseMountOptions(""), {
			readOnly: false,
			allowOther: true,
			onCrash: "resume",
			metricsPort: undefined,
			logFormat: "text",
			localLocks: false,
			fuseMinor: undefined,
			nativeReads: false,
			nativeReadsMiB: undefined,
			fastPaths: allFast,
			flags: [],
		});
		assert.deepEqual(parseMountOptions("defaults,ro,noatime,nosuid"), {
			readOnly: true,
			allowOther: true,
			onCrash: "resume",
			metricsPort: undefined,
			logFormat: "text",
			localLocks: false,
			fuseMinor: undefined,
			nativeReads: false,
			nativeReadsMiB: undefined,
			fastPaths: allFast,
			flags: ["noatime", "nosuid"],
		});
		assert.deepEqual(parseMountOptions("root_only,on_crash=die,metrics=9464"), {
			readOnly: false,
			allowOther: false,
			onCrash: "die",
			metricsPort: 9464,
			logFormat: "text",
			localLocks: false,
			fuseMinor: undefined,
			nativeReads: false,
			nativeReadsMiB: undefined,
			fastPaths: allFast,
			flags: [],
		});
		for (const text of [
			"",
			"ro",
			"root_only,nodev",
			"on_crash=remount,noexec",
			"ro,root_only,on_crash=die",
			"metrics=9464,nodev",
			"metrics=9464,log=json,nodev",
			"local_lock=all,nodev",
			"fuse_minor=37,nodev",
			"native_reads=on,native_reads_mib=512,nodev",
			"fast_paths=off,nodev",
			"disk_lane=off,nodev",
			"answer_now=off,wait_awake=off,low_cpu_latency=off,coder_thread=off",
		]) {
			assert.equal(mountOptionWords(parseMountOptions(text)).join(), text.split(",").sort(inOrder).join());
		}
		for (const wrong of [
			"writeback",
			"ro,,x",
			"RO",
			"on_crash",
			"on_crash=",
			"on_crash=live",
			"metrics",
			"metrics=0",
			"metrics=65536",
			"metrics=x",
			"fuse_minor=",
			"log",
			"log=xml",
			"local_lock=posix",
			"fast_paths",
			"fast_paths=",
			"fast_paths=lane",
			"disk_lane",
			"wait_awake=",
			"low_cpu_latency=1",
			"coder_thread=no",
			"__proto__",
		])
			assert.throws(() => parseMountOptions(wrong), inval, wrong);
	});
});

describe("home", () => {
	test("names", () => {
		for (const good of ["a", "demo", "A-b_c.9", "x".repeat(63)]) checkVolumeName(good);
		for (const bad of ["", ".", "..", "-x", ".x", "a/b", "a b", "ü", "x".repeat(64), "a\n"])
			assert.throws(() => checkVolumeName(bad), inval, bad);
	});

	test("entries are written, listed, read, removed; damage is said", async () => {
		const world = new SimWorld({ seed: 1 });
		const node = world.node();
		const { files } = node.boot();
		const home = new Home("/var/lib/cairn", { files });
		const entry = { name: "demo", id: "0-1", diskPaths: ["/mnt/ä", "/mnt/b"] };
		await world.run(async () => {
			assert.deepEqual(await home.list(), []);
			assert.equal(await home.read("demo"), undefined);
			await assert.rejects(home.require("demo"), (error) => isFsError(error, "NOTFOUND"));
			await home.write(entry);
			await home.write({ ...entry, name: "other" });
			await files.makeFolder("/var/lib/cairn/half");
			assert.deepEqual(await home.list(), ["demo", "other"]);
			assert.deepEqual(await home.require("demo"), entry);
			for (const damage of ["", "{", "null", "[]", '{"format":2}', '{"format":1,"id":"x","disks":["relative"]}', '{"format":1,"id":"x"}']) {
				await files.write("/var/lib/cairn/demo/volume.json", new TextEncoder().encode(damage));
				await assert.rejects(home.read("demo"), (error) => isFsError(error, "CORRUPT"), damage);
			}
			await home.remove("demo");
			assert.deepEqual(await home.list(), ["other"]);
			assert.equal(await files.kind("/var/lib/cairn/demo"), undefined);
		});
	});
});
