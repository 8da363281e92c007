#!/usr/bin/env node
/**
 * What reader threads of a FUSE mount could reach at best: a file system in which every name is absent, answered without looking anything up, by N threads that all read the device.
 *
 *   node bench/fuse-readers.mjs DIR N [clone]     (root; umount DIR ends it)
 *
 * `clone` gives each thread a descriptor of its own (FUSE_DEV_IOC_CLONE); otherwise they share one. Each looks for the next request for 100 µs before it sleeps, as the product does. docs/performance.md has the figures.
 */
import { openSync } from "node:fs";
import { isMainThread, Worker, workerData } from "node:worker_threads";
import koffi from "koffi";

const spinMs = 0.1;
const library = koffi.load("libc.so.6");
const read = library.func("long read(int fd, void *into, size_t length)");
const write = library.func("long write(int fd, void *from, size_t length)");
const poll = library.func("int poll(void *fds, unsigned long count, int timeout)");
const ioctl = library.func("int ioctl(int fd, unsigned long request, void *argument)");
const mount = library.func("int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)");
/** linux/fuse.h */
const opcodes = { forget: 2, getattr: 3, init: 26, interrupt: 36, batchForget: 42, lookup: 1 };
const cloneRequest = 0x8004e500;
const parallelDirectoryOperations = 1 << 18;
const errno = { again: 11, absent: 2, interrupted: 4, unknownCall: 38 };

function openDevice() {
	const readWrite = 2;
	const nonBlocking = 0o4000;
	return openSync("/dev/fuse", readWrite | nonBlocking);
}

/** A request in `room`, its length, or undefined at the end. */
function next(fd, room, fds) {
	for (let untilMs = 0; ; ) {
		const length = read(fd, room, room.length);
		if (length > 0) return length;
		const error = koffi.errno();
		if (error === errno.again) {
			const nowMs = performance.now();
			if (untilMs === 0) untilMs = nowMs + spinMs;
			else if (nowMs >= untilMs) {
				poll(fds, 1, -1);
				untilMs = 0;
			}
		} else if (error !== errno.interrupted && error !== errno.absent) return undefined;
	}
}

function serve(fd) {
	const room = Buffer.alloc((1 << 20) + 4096);
	const out = Buffer.alloc(128);
	const fds = Buffer.alloc(8);
	fds.writeInt32LE(fd, 0);
	fds.writeInt16LE(1, 4);
	const reply = (lengthBytes, error) => {
		out.writeUInt32LE(lengthBytes, 0);
		out.writeInt32LE(-error, 4);
		room.copy(out, 8, 8, 16);
		write(fd, out, lengthBytes);
	};
	while (next(fd, room, fds) !== undefined) {
		const opcode = room.readUInt32LE(4);
		out.fill(0, 16);
		if (opcode === opcodes.lookup) reply(16, errno.absent);
		else if (opcode === opcodes.getattr) {
			out.writeUInt32LE(1, 32);
			out.writeUInt32LE(0o40755, 92);
			out.writeUInt32LE(2, 96);
			reply(120, 0);
		} else if (opcode === opcodes.init) {
			out.writeUInt32LE(7, 16);
			out.writeUInt32LE(31, 20);
			out.writeUInt32LE(1 << 20, 24);
			out.writeUInt32LE(parallelDirectoryOperations, 28);
			out.writeUInt32LE(1 << 17, 36);
			reply(80, 0);
		} else if (![opcodes.forget, opcodes.batchForget, opcodes.interrupt].includes(opcode)) reply(16, errno.unknownCall);
	}
}

async function begin([directory, threads, clone]) {
	if (directory === undefined || !(Number(threads) >= 1)) {
		console.error("usage: fuse-readers.mjs DIR THREADS [clone]");
		process.exit(2);
	}
	const fd = openDevice();
	const data = `fd=${fd},rootmode=40000,user_id=0,group_id=0,allow_other`;
	const result = await new Promise((resolve) => mount.async("readers", directory, "fuse.readers", 0, data, (_, result) => resolve(result)));
	if (result !== 0) throw new Error(`cannot mount on ${directory}: it needs root and an empty directory`);
	for (let i = 1; i < Number(threads); i++) {
		const mine = clone === "clone" ? openDevice() : fd;
		const of = Buffer.alloc(4);
		of.writeUInt32LE(fd, 0);
		if (mine !== fd && ioctl(mine, cloneRequest, of) !== 0) throw new Error("this kernel cannot clone the device");
		new Worker(new URL(import.meta.url), { workerData: { fd: mine }, trackUnmanagedFds: false });
	}
	console.log("ready");
	setTimeout(() => {
		serve(fd);
		process.exit(0);
	}, 300);
}

if (isMainThread) await begin(process.argv.slice(2));
else serve(workerData.fd);
