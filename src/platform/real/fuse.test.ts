import assert from "node:assert/strict";
import { closeSync, openSync, readdirSync, readFileSync } from "node:fs";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, rmdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { promisify } from "node:util";
import { isFsError } from "../../base/errors.ts";
import type { FuseHost } from "../interface.ts";
import { CpuLatency } from "./cpu-latency.ts";
import { RealHostFiles } from "./files.ts";
import { decodeNodeName, encodeNodeName, plainSource } from "./fuse-device.ts";
import { asPlain, createFuseHost, isConnected, parseMountInfo } from "./fuse.ts";

test("mountinfo: blanks, optional fields, broken lines", () => {
	const text = [
		"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue",
		"40 35 0:39 / /mnt/a\\040b\\134c rw - fuse.cairn cairn:de\\011mo rw,user_id=0",
		"41 35 0:40 / /short",
		"",
	].join("\n");
	assert.deepEqual(parseMountInfo(text), [
		{ device: "98:0", mountpoint: "/mnt2", source: "/dev/root", type: "ext3" },
		{ device: "0:39", mountpoint: "/mnt/a b\\c", source: "cairn:de\tmo", type: "fuse.cairn" },
	]);
});

test("any byte string is a node's name, and comes back from it", () => {
	const all = Array.from({ length: 255 }, (_, i) => String.fromCharCode(i + 1)).join("");
	for (const name of ["demo", "a.b-c_D9", ".", "..", ".x", "a/b", "a b", "n~2", "%41", all]) {
		const node = encodeNodeName(name);
		assert.match(node, /^[A-Za-z0-9_%-][A-Za-z0-9._%-]*$/);
		assert.equal(decodeNodeName(node), name);
		assert.equal(decodeNodeName(`${node}~2`), name);
	}
	assert.equal(encodeNodeName("demo.1"), "demo.1");
});

test("a mount on a device of ours is told as a plain one; others as they are", () => {
	const entry = { device: "7:0", mountpoint: "/m", source: "/dev/cairn/a%20b~2", type: "fuseblk.cairn" };
	assert.deepEqual(asPlain(entry), { mountpoint: "/m", source: "cairn:a b", type: "fuse.cairn" });
	const others = [
		{ source: "/dev/sda1", type: "fuseblk" },
		{ source: "/dev/sda1", type: "fuseblk.cairn" },
		{ source: "/dev/cairn/demo", type: "fuse.cairn" },
	];
	for (const other of others) assert.deepEqual(asPlain({ ...entry, ...other }), { mountpoint: "/m", ...other });
	assert.equal(plainSource("cairn", "/dev/cairn/"), undefined);
});

const execute = promisify(execFile);
const host = createFuseHost();
const options = { source: "cairn:test", subtype: "cairn", allowOther: true, readOnly: false, maxReadBytes: 1 << 20, flags: [] };

test("faults of mounting and unmounting say what and where", { skip: (await host.unavailable()) ?? false }, async () => {
	await assert.rejects(
		host.mount("/nowhere/at-all", options),
		(error) => isFsError(error, "ENOENT") && /\/nowhere\/at-all/.test(error.message),
	);
	await assert.rejects(host.mount("/etc/hostname", options), (error) => isFsError(error, "ENOTDIR"));
	await assert.rejects(
		host.mount("/tmp", { ...options, flags: ["quickly"] }),
		(error) => isFsError(error, "EINVAL") && /nosuid/.test(error.message),
	);
	await assert.rejects(host.mount("/tmp", { ...options, subtype: "a,b" }), (error) => isFsError(error, "EINVAL"));
	await assert.rejects(host.unmount("/etc", false), (error) => isFsError(error, "EINVAL"));
	await assert.rejects(host.unmount("/nowhere/at-all", true), (error) => isFsError(error, "ENOENT"));
});

test("a descriptor without a mount is told from one with", { skip: (await host.unavailable()) ?? false }, () => {
	const fd = openSync("/dev/fuse", "r+");
	assert.equal(isConnected(fd), false);
	closeSync(fd);
});

/** Version 7.31, no features. */
function initReply(request: Uint8Array): Uint8Array {
	const reply = new Uint8Array(16 + 64);
	const view = new DataView(reply.buffer);
	view.setUint32(0, reply.length, true);
	reply.set(request.subarray(8, 16), 8);
	view.setUint32(16, 7, true);
	view.setUint32(20, 31, true);
	view.setUint32(36, 4096, true);
	return reply;
}

function refusal(request: Uint8Array): Uint8Array {
	const reply = new Uint8Array(16);
	const view = new DataView(reply.buffer);
	view.setUint32(0, reply.length, true);
	view.setInt32(4, -38, true);
	reply.set(request.subarray(8, 16), 8);
	return reply;
}

/** Processor time of this process in the next half second. */
async function restlessMs(): Promise<number> {
	const before = process.cpuUsage();
	await setTimeout(500);
	const { user, system } = process.cpuUsage(before);
	return (user + system) / 1000;
}

/** The wishes that requests in a row led to (cpu-latency.ts), in a file in the place of the device. */
async function wishes(serve: (cpuLatency: CpuLatency) => Promise<void>): Promise<number[]> {
	const folder = await mkdtemp(join(tmpdir(), "cairn-latency-"));
	const fd = openSync(join(folder, "device"), "w+");
	try {
		await serve(new CpuLatency(fd, 7));
		const read = (): number[] => {
			const bytes = readFileSync(join(folder, "device"));
			return [...new Int32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length))];
		};
		for (let waits = 0; waits < 500 && read().at(-1) !== -1; waits++) await setTimeout(10);
		return read();
	} finally {
		closeSync(fd);
		await rm(folder, { recursive: true });
	}
}

async function requestsInARow(server: FuseHost): Promise<void> {
	const files = new RealHostFiles();
	const folder = await mkdtemp(join(tmpdir(), "cairn-fuse-"));
	const channel = await server.mount(folder, options);
	try {
		let kept: Uint8Array | undefined;
		let keepsNext = false;
		channel.start((request) => {
			if (request[4] === 26) channel.reply([initReply(request)]);
			else if (keepsNext) kept = request.slice();
			// Not in the same turn: something else has to happen first, as usual.
			else void Promise.resolve(request.slice()).then((copy) => setImmediate(() => channel.reply([refusal(copy)])));
		});
		for (let i = 0; i < 500; i++) await files.probe(folder).catch(() => {});
		assert.ok((await restlessMs()) < 250, "nothing is asked");
		for (let i = 0; i < 500; i++) await files.probe(folder).catch(() => {});
		keepsNext = true;
		const last = files.probe(folder).catch(() => {});
		assert.ok((await restlessMs()) < 250, "a reply is owed");
		assert.ok(kept !== undefined);
		channel.reply([refusal(kept)]);
		await last;
	} finally {
		await channel.close();
		await host.unmount(folder, true);
		await rmdir(folder);
	}
}

for (const waitAwake of [true, false])
	test(`requests in a row are ${waitAwake ? "waited for awake, and nobody stays awake after them" : "answered by a thread that sleeps between them"}`, {
		skip: (await host.unavailable()) ?? false,
	}, async () => {
		const said = await wishes((cpuLatency) => requestsInARow(createFuseHost({ waitAwake, cpuLatency })));
		assert.ok(said.length > 0 && said.every((word, at) => word === (at % 2 === 0 ? 7 : -1)), `${said}`);
		assert.equal(said.at(-1), -1, "nobody asks any more");
	});

test("who asks a daemon that dies is told the same as who asks a dead one", { skip: (await host.unavailable()) ?? false }, async () => {
	const files = new RealHostFiles();
	const folder = await mkdtemp(join(tmpdir(), "cairn-fuse-"));
	try {
		const channel = await host.mount(folder, options);
		const asked = new Promise<void>((resolve) => {
			channel.start((request) => {
				const isInit = request[4] === 26;
				if (isInit) channel.reply([initReply(request)]);
				else resolve();
			});
		});
		const during = assert.rejects(files.probe(folder), { code: "ENOTCONN" });
		await asked;
		await channel.close();
		await during;
		await assert.rejects(files.probe(folder), { code: "ENOTCONN" });
	} finally {
		await host.unmount(folder, true);
		await rmdir(folder);
	}
});

const opcode = (request: Uint8Array): number => request[4] as number;

/** For a mount that has a root directory and nothing in it. */
function emptyRoot(request: Uint8Array): Uint8Array {
	if (opcode(request) !== 3) return refusal(request);
	const reply = new Uint8Array(16 + 16 + 88);
	const view = new DataView(reply.buffer);
	view.setUint32(0, reply.length, true);
	reply.set(request.subarray(8, 16), 8);
	view.setBigUint64(32, 1n, true);
	view.setUint32(32 + 60, 0o040777, true);
	view.setUint32(32 + 64, 2, true);
	return reply;
}

/** It rejects, and does not wait for ever: the test would. */
async function ends(work: Promise<unknown>): Promise<string> {
	return work.then(
		() => "done",
		(error: unknown) => (error as { code?: string }).code ?? String(error),
	);
}

test("who asks from many threads while a connection is closed is answered by the kernel, each of them", {
	skip: (await host.unavailable()) ?? false,
}, async () => {
	for (let round = 0; round < 6; round++) {
		const folder = await mkdtemp(join(tmpdir(), "cairn-fuse-"));
		const channel = await host.mount(folder, options);
		let count = 0;
		const many = new Promise<void>((resolve) => {
			channel.start((request) => {
				if (++count > 60) resolve();
				const copy = request.slice();
				if (opcode(copy) === 26) channel.reply([initReply(copy)]);
				// In some rounds requests are left unanswered, in others answers are on their way.
				else if (![2, 36, 42].includes(opcode(copy)) && (round % 2 === 0 || count < 60)) setImmediate(() => channel.reply([refusal(copy)]));
			});
		});
		const files = new RealHostFiles();
		// The pool has four threads, and the reader thread needs one of them to begin.
		const asking = Array.from({ length: 2 }, async () => {
			for (;;) if ((await ends(files.probe(folder))) === "ENOTCONN") return;
		});
		const elsewhere = execute("sh", [
			"-c",
			'for i in 1 2 3; do (while stat -f "$0"; do :; done; stat -f "$0"; stat -f "$0") & done; wait',
			folder,
		]);
		await many;
		await channel.close();
		await Promise.all([...asking, ends(elsewhere)]);
		await host.unmount(folder, true);
		await rmdir(folder);
	}
});

test("a notification that waits for a request which nobody will answer keeps nobody from hearing of the end", {
	skip: (await host.unavailable()) ?? false,
}, async () => {
	const folder = await mkdtemp(join(tmpdir(), "cairn-fuse-"));
	const channel = await host.mount(folder, options);
	try {
		const asked = new Promise<void>((resolve) => {
			channel.start((request) => {
				if (opcode(request) === 26) channel.reply([initReply(request)]);
				// MKDIR: the kernel holds the directory until it is answered.
				else if (opcode(request) === 9) resolve();
				else if (opcode(request) === 1) channel.reply([negative(request, 2)]);
				else if (![2, 36, 42].includes(opcode(request))) channel.reply([emptyRoot(request)]);
			});
		});
		const made = ends(mkdir(join(folder, "d")));
		await asked;
		// NOTIFY_INVAL_ENTRY of that directory.
		const message = new Uint8Array(16 + 16 + 2);
		const view = new DataView(message.buffer);
		view.setUint32(0, message.length, true);
		view.setInt32(4, 3, true);
		view.setBigUint64(16, 1n, true);
		view.setUint32(24, 1, true);
		message[32] = 0x78;
		const notified = ends(channel.notify(message));
		// The notifier waits for the directory, which the kernel holds until who makes one in it is answered.
		while (threadsInKernel() < 1) await setTimeout(20);
		await channel.close();
		assert.match(await made, /ECONNABORTED|ENOTCONN/);
		await notified;
	} finally {
		await host.unmount(folder, true);
		await rmdir(folder);
	}
});

/** Threads of this process in uninterruptible sleep (proc_pid_stat(5)). */
function threadsInKernel(): number {
	const states = readdirSync("/proc/self/task").map((id) => readFileSync(`/proc/self/task/${id}/stat`, "latin1").replace(/^.*\) /s, "")[0]);
	return states.filter((state) => state === "D").length;
}

function negative(request: Uint8Array, errno: number): Uint8Array {
	const reply = refusal(request);
	new DataView(reply.buffer).setInt32(4, -errno, true);
	return reply;
}
