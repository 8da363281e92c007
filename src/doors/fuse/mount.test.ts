/**
 * The door on a real mount. Whatever touches the mount runs in another process: a synchronous call on it from here would wait for
 * ourselves.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readdir, rmdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { silentLogger } from "../../base/telemetry.ts";
import type { Clock, FuseChannel } from "../../platform/interface.ts";
import { createFuseHost } from "../../platform/real/fuse.ts";
import { opcodes } from "./protocol.ts";
import { serveFuse } from "./server.ts";
import type { FuseServer, FuseServerOptions } from "./server.ts";
import { MemoryVolume } from "./test/memory-volume.ts";

const host = createFuseHost();
const skip = (await host.unavailable()) ?? false;

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

async function threads(): Promise<number> {
	return (await readdir("/proc/self/task")).length;
}

async function withMount(options: FuseServerOptions, use: (mounted: Mounted) => Promise<void>, readOnly = false): Promise<void> {
	const folder = await mkdtemp(join(tmpdir(), "cairn-fuse-"));
	const channel = await host.mount(folder, {
		source: "cairn:test",
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
		await host.unmount(folder, lazy);
		await server.ended;
		await server.stop();
		await rmdir(folder);
	}
}

test("a mounted volume does what a file system does, and leaves nothing behind", { skip }, async () => {
	const before = await threads();
	await withMount({}, async ({ folder, run, volume, server }) => {
		const mounts = await host.mounts();
		assert.ok(mounts.some((mount) => mount.mountpoint === folder && mount.type === "fuse.cairn" && mount.source === "cairn:test"));
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
	assert.ok(!(await host.mounts()).some((mount) => mount.mountpoint.includes("cairn-fuse-")));
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
		source: "cairn:test",
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
	await host.unmount(folder, false);
	await rmdir(folder);
});
