/**
 * A program that reads one file in its own way until it is told to stop, and looks at every word: `node native-worker.js reader|opener|mapper FILE STOP`. Prints "reading" when it has begun, at the end how often it has read.
 * reader: one descriptor. opener: a new one each time. mapper: a mapping whose descriptor is closed.
 */
import assert from "node:assert/strict";
import { closeSync, existsSync, fstatSync, openSync, readSync } from "node:fs";
import koffi from "koffi";
import { wordOf } from "./native-reads.ts";

const blockBytes = 4096;
const [way = "", path = "", stop = ""] = process.argv.slice(2);

function check(bytes: Uint8Array, offset: number): void {
	const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
	for (let i = 0; i < words.length; i++) assert.equal(words[i], wordOf(offset / 4 + i), `${way}: word at ${offset + i * 4} of ${path}`);
}

const room = new Uint8Array(blockBytes);

function readBlock(fd: number, offset: number): void {
	assert.equal(readSync(fd, room, 0, blockBytes, offset), blockBytes, `${way}: short read at ${offset}`);
	check(room, offset);
}

/** Answers what reads a block. */
function begin(): (offset: number) => void {
	if (way === "opener")
		return (offset) => {
			const fd = openSync(path, "r");
			readBlock(fd, offset);
			closeSync(fd);
		};
	const fd = openSync(path, "r");
	if (way === "reader") return (offset) => readBlock(fd, offset);
	const mmap = koffi.load("libc.so.6").func("void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)");
	const { size } = fstatSync(fd);
	const [read, shared] = [1, 1];
	const bytes = new Uint8Array(koffi.view(mmap(null, size, read, shared, fd, 0), size));
	closeSync(fd);
	return (offset) => check(bytes.subarray(offset, offset + blockBytes), offset);
}

const { size } = (() => {
	const fd = openSync(path, "r");
	const found = fstatSync(fd);
	closeSync(fd);
	return found;
})();
const readAt = begin();
let count = 0;
for (let at = 0; ; at = (at + 7 * blockBytes) % size) {
	readAt(at);
	if (++count === 1) process.stdout.write("reading\n");
	if (count % 16 === 0) {
		if (existsSync(stop)) break;
		await new Promise((resolve) => setTimeout(resolve, 1));
	}
}
process.stdout.write(`${count}\n`);
