/**
 * The door on a real mount. Whatever touches the mount runs in another process: a synchronous call on it from here would wait for
 * ourselves.
 */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { mkdtemp, readFile, readdir, rm, rmdir } from "node:fs/promises";
import { release, tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Deferred } from "../../base/async.ts";
import { FsError } from "../../base/errors.ts";
import { silentLogger } from "../../base/telemetry.ts";
import type { Clock, FuseChannel } from "../../platform/interface.ts";
import { createFuseHost, parseMountInfo } from "../../platform/real/fuse.ts";
import { removeStaleNodes } from "../../platform/real/fuse-device.ts";
import { opcodes } from "./protocol.ts";
import { serveFuse } from "./server.ts";
import type { FuseServer, FuseServerOptions } from "./server.ts";
import { MemoryVolume } from "./test/memory-volume.ts";

const host = createFuseHost();
const skip = (await host.unavailable()) ?? false;

/** Other runs of these tests on this machine have mounts and devices of their own. */
const source = `cairn:test ${process.pid}`;
const memoryName = `cairn:test%20${process.pid}`;

interface Mounted {
	readonly folder: string;
	readonly volume: MemoryVolume;
	readonly channel: FuseChannel;
	readonly server: FuseServer;
	/** Runs a script for `node` in the mount, in a process of its own; prelude: fs, assert, dir. */
	run(script: string): Promise<string>;
}

const prelude = `
const fs = require("node:fs"); const assert = require("node:assert/strict"); const dir = process.cwd();
`;

/**
 * The child changes its directory by itself: `spawn` with `cwd` blocks this thread until the child is there, which needs our own answers.
 */
function child(file: string, args: readonly string[], folder: string): Promise<string> {
	return new Promise((resolve, reject) => {
		execFile("/bin/sh", ["-c", 'cd "$0" && exec "$@"', folder, file, ...args], { cwd: "/", timeout: 30_000 }, (error, out, errors) => {
			if (error) reject(new Error(`${file} failed: ${error.message}\n${errors}`));
			else resolve(out);
		});
	});
}

/** The threads of this process, once none of those that are ending is left. */
async function threads(): Promise<number> {
	const count = async () => (await readdir("/proc/self/task")).length;
	let last = await count();
	for (let same = 0, tries = 0; same < 4 && tries < 200; tries++) {
		await new Promise((resolve) => setTimeout(resolve, 25));
		const now = await count();
		same = now === last ? same + 1 : 0;
		last = now;
	}
	return last;
}

async function withMount(
	options: FuseServerOptions,
	use: (mounted: Mounted) => Promise<void>,
	readOnly = false,
	as = source,
): Promise<void> {
	const folder = await mkdtemp(join(tmpdir(), "cairn-fuse-"));
	const channel = await host.mount(folder, {
		source: as,
		subtype: "cairn",
		allowOther: true,
		readOnly,
		maxReadBytes: 1 << 20,
		flags: ["nosuid"],
	});
	const volume = new MemoryVolume();
	const clock = { monotonicMs: () => performance.now() } as Clock;
	const server = serveFuse(options, { volume, channel, platform: { clock }, logger: silentLogger });
	let lazy = true;
	try {
		await use({ folder, volume, channel, server, run: (script) => child(process.execPath, ["-e", prelude + script], folder) });
		lazy = false;
	} finally {
		if ((await mountType(folder)) !== undefined) await host.unmount(folder, lazy);
		await server.ended;
		await server.stop();
		await rmdir(folder);
	}
}

test("a mounted volume does what a file system does, and leaves nothing behind", { skip }, async () => {
	const before = await threads();
	let mountpoint = "";
	await withMount({}, async ({ folder, run, volume, server }) => {
		mountpoint = folder;
		const mounts = await host.mounts();
		assert.ok(mounts.some((mount) => mount.mountpoint === folder && mount.type === "fuse.cairn" && mount.source === source));
		await run(`
			fs.writeFileSync("a", "hello"); assert.equal(fs.readFileSync("a", "utf8"), "hello");
			fs.appendFileSync("a", " world"); assert.equal(fs.readFileSync("a", "utf8"), "hello world");
			fs.mkdirSync("d", 0o750); assert.equal(fs.statSync("d").mode & 0o7777, 0o750 & ~process.umask());
			fs.renameSync("a", "d/b"); assert.deepEqual(fs.readdirSync("."), ["d"]);
			fs.symlinkSync("d/b", "s"); assert.equal(fs.readlinkSync("s"), "d/b"); assert.equal(fs.readFileSync("s", "utf8"), "hello world");
			fs.linkSync("d/b", "h"); assert.equal(fs.statSync("h").nlink, 2); fs.unlinkSync("d/b"); assert.equal(fs.statSync("h").nlink, 1);
			assert.throws(() => fs.statSync("d/b"), { code: "ENOENT" }); assert.throws(() => fs.rmdirSync("h"), { code: "ENOTDIR" });
			fs.truncateSync("h", 5); assert.equal(fs.readFileSync("h", "utf8"), "hello");
			fs.utimesSync("h", 1000.5, 2000.25); assert.equal(fs.statSync("h").mtimeMs, 2000250); assert.equal(fs.statSync("h").atimeMs, 1000500);
			assert.equal(fs.statSync("h").size, 5); assert.ok(fs.statfsSync(".").blocks === 262144);
			const fd = fs.openSync("u", "wx+"); fs.unlinkSync("u"); fs.writeSync(fd, "still here"); assert.equal(fs.fstatSync(fd).nlink, 0);
			assert.equal(fs.fstatSync(fd).size, 10); fs.fsyncSync(fd); fs.fdatasyncSync(fd); fs.closeSync(fd);
			assert.throws(() => fs.openSync("h", "wx"), { code: "EEXIST" });
			const top = fs.openSync(".", "r"); fs.fsyncSync(top); fs.closeSync(top);
			fs.mkdirSync("gone"); process.chdir("gone"); fs.rmdirSync("../gone"); assert.equal(fs.statSync(".").nlink, 0); process.chdir(dir);
			assert.equal(fs.statSync("h").birthtimeMs > 0, true);
		`);
		assert.ok(
			volume.calls.some((call) => call.startsWith("durable")),
			"the directory's fsync arrived",
		);
		assert.equal(volume.calls.filter((call) => call.startsWith("fsync")).join(), "fsync false,fsync true");
		const counters = server.counters();
		assert.ok((counters.requests.get(opcodes.INIT) ?? 0) === 1 && counters.inFlight === 0);
	});
	assert.equal(await threads(), before, "threads are left over");
	assert.ok(!(await host.mounts()).some((mount) => mount.mountpoint === mountpoint), "the mount is left over");
});

test("10,000 entries are listed once each, cached or not", { skip }, async () => {
	await withMount({}, async ({ run, server }) => {
		await run(`
			fs.mkdirSync("many"); for (let i = 0; i < 10000; i++) fs.closeSync(fs.openSync("many/file-" + i, "w"));
			const list = () => { const names = fs.readdirSync("many"); assert.equal(names.length, new Set(names).size); return names.length; };
			assert.equal(list(), 10000); assert.equal(list(), 10000);
			for (let i = 0; i < 10000; i += 10) fs.unlinkSync("many/file-" + i);
			assert.equal(list(), 9000); fs.writeFileSync("many/new", ""); assert.equal(list(), 9001);
			fs.mkdirSync("few/a/b", { recursive: true }); fs.writeFileSync("few/a/b/c", ""); fs.rmSync("few", { recursive: true });
			assert.deepEqual(fs.readdirSync("."), ["many"]);
		`);
		const counters = server.counters();
		assert.equal(counters.openHandles, 0);
	});
});

test("8 MiB in one write, read back, and reads and writes side by side", { skip }, async () => {
	await withMount({}, async ({ run, server }) => {
		await run(`
			const big = require("node:crypto").randomBytes(8 << 20); fs.writeFileSync("big", big); assert.ok(fs.readFileSync("big").equals(big));
			const fd = fs.openSync("big", "r+"); const at = [0, 4095, 4096, 1048575, 5000000, 8388607];
			for (const offset of at) { fs.writeSync(fd, Buffer.from("X"), 0, 1, offset); big[offset] = 88; }
			fs.closeSync(fd); assert.ok(fs.readFileSync("big").equals(big));
			const direct = fs.openSync("big", fs.constants.O_RDONLY | fs.constants.O_DIRECT); const page = Buffer.alloc(1 << 20);
			assert.equal(fs.readSync(direct, page, 0, 1 << 20, 1 << 20), 1 << 20); assert.ok(page.equals(big.subarray(1 << 20, 2 << 20))); fs.closeSync(direct);
		`);
		assert.ok(server.counters().bytesWritten >= 8 << 20);
		// With O_DIRECT and read-ahead in play at least the direct MiB came from here.
		assert.ok(server.counters().bytesRead >= 1 << 20);
	});
});

test("without time-outs every stat arrives, from many processes at once", { skip }, async () => {
	await withMount({ entryTimeoutMs: 0, attributeTimeoutMs: 0, negativeTimeoutMs: 0, keepCache: false }, async ({ run, server }) => {
		await run(`for (let i = 0; i < 20; i++) fs.writeFileSync("f" + i, "x".repeat(i));`);
		const script = `for (let n = 0; n < 1000; n++) assert.equal(fs.statSync("f" + n % 20).size, n % 20);`;
		await Promise.all([run(script), run(script), run(script), run(script)]);
		assert.ok((server.counters().requests.get(opcodes.LOOKUP) ?? 0) >= 4000);
	});
});

test("set-id bits go when somebody else writes, and access is checked by mode", { skip }, async () => {
	await withMount({}, async ({ run }) => {
		await run(`
			fs.chmodSync(".", 0o777); fs.writeFileSync("s", "x"); fs.chmodSync("s", 0o6777); fs.writeFileSync("p", "x"); fs.chmodSync("p", 0o600);
			process.setgid(65534); process.setuid(65534);
			assert.throws(() => fs.readFileSync("p"), { code: "EACCES" });
			const fd = fs.openSync("s", "r+"); fs.writeSync(fd, "y"); fs.closeSync(fd);
			assert.equal(fs.statSync("s").mode & 0o7777, 0o777);
			fs.writeFileSync("mine", ""); assert.equal(fs.statSync("mine").uid, 65534);
		`);
	});
});

test("extended attributes through setfattr's system calls", { skip }, async (t) => {
	if (
		!(await child("python3", ["--version"], "/").then(
			() => true,
			() => false,
		))
	)
		return t.skip("no python3, whose os module has the calls");
	await withMount({}, async ({ folder, volume, run }) => {
		await run(`fs.writeFileSync("f", "")`);
		const python = `
import os, errno
os.setxattr("f", "user.k", b"v" * 1000)
assert os.getxattr("f", "user.k") == b"v" * 1000 and os.listxattr("f") == ["user.k"]
for call, want in ((lambda: os.getxattr("f", "user.none"), errno.ENODATA), (lambda: os.setxattr("f", "user.k", b"", os.XATTR_CREATE), errno.EEXIST)):
    try: call(); raise SystemExit("no error")
    except OSError as e: assert e.errno == want, e
os.removexattr("f", "user.k")
assert os.listxattr("f") == []
`;
		await child("python3", ["-c", python], folder);
		assert.ok(volume.calls.includes("removeXattr user.k"));
	});
});

test("a read-only mount refuses changes", { skip }, async () => {
	await withMount(
		{ readOnly: true },
		async ({ run }) => {
			await run(`assert.throws(() => fs.writeFileSync("a", ""), { code: "EROFS" }); assert.deepEqual(fs.readdirSync("."), []);`);
		},
		true,
	);
});

test("notifications go out on their own thread; closing without unmounting ends the connection", { skip }, async () => {
	const before = await threads();
	const folder = await mkdtemp(join(tmpdir(), "cairn-fuse-"));
	const channel = await host.mount(folder, {
		source,
		subtype: "cairn",
		allowOther: true,
		readOnly: false,
		maxReadBytes: 1 << 20,
		flags: [],
	});
	const volume = new MemoryVolume();
	const server = serveFuse(
		{},
		{ volume, channel, platform: { clock: { monotonicMs: () => performance.now() } as Clock }, logger: silentLogger },
	);
	try {
		await child("/bin/sh", ["-c", "echo x > f; stat f >/dev/null"], folder);
		// FUSE_NOTIFY_INVAL_INODE (2) of inode 2, attributes only (offset -1): error field = code, unique 0.
		const bytes = new Uint8Array(40);
		const view = new DataView(bytes.buffer);
		view.setUint32(0, 40, true);
		view.setInt32(4, 2, true);
		view.setBigUint64(16, 2n, true);
		view.setBigInt64(24, -1n, true);
		await channel.notify(bytes);
		view.setBigUint64(16, 999_999n, true);
		await channel.notify(bytes);
		view.setInt32(4, 99, true);
		await assert.rejects(channel.notify(bytes), { code: "EINVAL" });
		await server.stop();
		await assert.rejects(channel.notify(bytes), { code: "ENOTCONN" });
		assert.equal(await threads(), before, "threads are left over");
		await assert.rejects(child("/bin/ls", [folder], "/"), /not connected/);
	} finally {
		await server.stop();
		await host.unmount(folder, true);
		await rmdir(folder);
	}
});

// ── mounts on a block device ─────────────────────────────────────────────────────────────────────────────────────

async function mountType(folder: string): Promise<string | undefined> {
	return parseMountInfo(await readFile("/proc/self/mountinfo", "latin1")).find(({ mountpoint }) => mountpoint === folder)?.type;
}

/** The loop devices of this run's mounts that are in use. */
async function loops(): Promise<string[]> {
	const found: string[] = [];
	for (const device of await readdir("/sys/block").catch(() => [])) {
		const backing = await readFile(`/sys/block/${device}/loop/backing_file`, "latin1").catch(() => "");
		if (backing.startsWith(`/memfd:${memoryName} `)) found.push(device);
	}
	return found;
}

async function nodes(): Promise<string[]> {
	return (await readdir("/dev/cairn").catch(() => [])).filter((name) => name.startsWith(memoryName.slice("cairn:".length)));
}

/**
 * What is left of this run's mounts. Whoever on the machine looks at a loop device at the wrong moment keeps it for that moment; its node is then
 * taken away by the next mount.
 */
async function leftovers(): Promise<string[]> {
	let left = [...(await loops()), ...(await nodes())];
	for (let tries = 0; left.length > 0 && tries < 100; tries++) {
		await new Promise((resolve) => setTimeout(resolve, 100));
		await removeStaleNodes("cairn");
		left = [...(await loops()), ...(await nodes())];
	}
	return left;
}

/** Why syncfs(2) cannot reach a server on this machine, or nothing. */
async function noSyncfs(folder: string): Promise<string | undefined> {
	if ((await mountType(folder)) !== "fuseblk.cairn") return "no loop devices here: a plain mount";
	const [major = 0, minor = 0] = release().split(".").map(Number);
	return major > 6 || (major === 6 && minor >= 18) ? undefined : `Linux ${release()} sends no SYNCFS to fuseblk`;
}

test("syncfs(2) reaches the volume, reports its failure, and umount(2) waits for the last sync", { skip }, async (t) => {
	let why: string | undefined;
	await withMount({}, async ({ folder, volume }) => {
		why = await noSyncfs(folder);
		if (why !== undefined) return;
		const syncs = () => volume.calls.filter((call) => call === "syncAll").length;
		await child("/bin/sync", ["-f", folder], "/");
		assert.equal(syncs(), 1);
		volume.faults.set("syncAll", new FsError("EIO", "test.sync", "a disk is gone"));
		await assert.rejects(child("/bin/sync", ["-f", folder], "/"), /Input\/output error/);
		const gate = new Deferred<void>();
		volume.gates.set("syncAll", gate.promise);
		let unmounted = false;
		const unmounting = child("/bin/umount", [folder], "/").then(() => (unmounted = true));
		while (syncs() < 3) await new Promise((resolve) => setTimeout(resolve, 5));
		assert.equal(unmounted, false, "umount came back before everything was durable");
		gate.resolve();
		await unmounting;
		assert.deepEqual(await leftovers(), []);
	});
	if (why !== undefined) return t.skip(why);
	assert.deepEqual(await leftovers(), []);
});

test("two mounts of one name have a device each; nothing is left of either", { skip }, async (t) => {
	let types: (string | undefined)[] = [];
	await withMount({}, async (one) => {
		await withMount({}, async (two) => {
			types = [await mountType(one.folder), await mountType(two.folder)];
			const known = (await host.mounts()).filter((mount) => mount.source === source && mount.type === "fuse.cairn");
			assert.deepEqual(known.map(({ mountpoint }) => mountpoint).sort(), [one.folder, two.folder].sort());
			await one.run(`fs.writeFileSync("one", "1");`);
			await two.run(`assert.deepEqual(fs.readdirSync("."), []); fs.writeFileSync("two", "2");`);
			await one.run(`assert.deepEqual(fs.readdirSync("."), ["one"]);`);
			if (types[0] !== "fuse.cairn") assert.equal((await loops()).length, 2);
		});
	});
	assert.deepEqual(await leftovers(), []);
	if (types.includes("fuse.cairn")) t.skip("no loop devices here: plain mounts were tested");
});

test("a name that cannot be a node is mounted without a device", { skip }, async () => {
	const long = `cairn:${"x".repeat(300)}`;
	await withMount(
		{},
		async ({ folder, run }) => {
			assert.equal(await mountType(folder), "fuse.cairn");
			assert.ok((await host.mounts()).some((mount) => mount.mountpoint === folder && mount.source === long));
			await run(`fs.writeFileSync("a", "");`);
		},
		false,
		long,
	);
});

test("a killed server leaves a mount that can be taken away, and no device", { skip }, async () => {
	const folder = await mkdtemp(join(tmpdir(), "cairn-fuse-"));
	const at = (path: string) => JSON.stringify(new URL(path, import.meta.url).href);
	const script = `
		(async () => {
			const { createFuseHost } = await import(${at("../../platform/real/fuse.js")});
			const { serveFuse } = await import(${at("./server.js")});
			const { MemoryVolume } = await import(${at("./test/memory-volume.js")});
			const { silentLogger } = await import(${at("../../base/telemetry.js")});
			const options = { source: ${JSON.stringify(source)}, subtype: "cairn", allowOther: true, readOnly: false, maxReadBytes: 4096, flags: [] };
			const channel = await createFuseHost().mount(${JSON.stringify(folder)}, options);
			const platform = { clock: { monotonicMs: () => performance.now() } };
			serveFuse({}, { volume: new MemoryVolume(), channel, platform, logger: silentLogger });
			console.log("up");
		})();
	`;
	const server = spawn(process.execPath, ["-e", script], { cwd: "/", stdio: ["ignore", "pipe", "inherit"] });
	try {
		await new Promise((resolve, reject) => {
			server.stdout.once("data", resolve);
			server.once("exit", () => reject(new Error("the server ended before it was up")));
		});
		await child("/bin/sh", ["-c", "echo x > f"], folder);
		const gone = new Promise((resolve) => server.once("exit", resolve));
		server.kill("SIGKILL");
		await gone;
		await assert.rejects(child("/bin/ls", [folder], "/"), /not connected/);
		await host.unmount(folder, true);
		assert.deepEqual(await leftovers(), []);
		await withMount({}, async ({ run }) => void (await run(`fs.writeFileSync("again", "");`)));
	} finally {
		server.kill("SIGKILL");
		await host.unmount(folder, true).catch(() => {});
		await rm(folder, { recursive: true });
	}
});
