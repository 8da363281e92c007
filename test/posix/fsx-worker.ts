/**
 * One process of the fsx suite: random operations on a few files of its own, each compared with a copy in memory. The copies are kept
 * outside the mount between runs, so that a later run of the same worker, behind a remount or a kill of the daemon, begins by comparing.
 *
 * Arguments: folder in the mount, folder for the copies, seed, milliseconds, "frozen" (files become immutable for a while, and are read so often that the kernel may read them by itself) or nothing. Ends with 0, or with 1 and the last operations.
 */
import { execFileSync } from "node:child_process";
import {
	closeSync,
	constants,
	existsSync,
	fdatasyncSync,
	fstatSync,
	fsyncSync,
	ftruncateSync,
	openSync,
	readFileSync,
	readSync,
	unlinkSync,
	writeFileSync,
	writeSync,
} from "node:fs";
import { join } from "node:path";
import { SeededRandom } from "../support/map-records.ts";
import { copyFileRange, dropPages, fallocate, falloc, Mapped, seek } from "../support/syscalls.ts";

const fileCount = 4;
const largestBytes = 1 << 20;
const keptOperations = 40;
/** Where the contents of each file begin: some behind holes of gigabytes and terabytes. */
const bases = [0, 0, 2 ** 32 - 300_000, 2 ** 43];

class File {
	readonly path: string;
	readonly copyPath: string;
	readonly base: number;
	fd = -1;
	/** From `base` on. */
	bytes: Uint8Array = new Uint8Array(0);
	/** What has no bytes at all: a file behind a hole that was never written may be empty. */
	exists = false;
	readonly log: string[] = [];

	constructor(folder: string, copies: string, index: number) {
		this.path = join(folder, `f${index}`);
		this.copyPath = join(copies, `f${index}`);
		this.base = bases[index % bases.length] as number;
	}

	get size(): number {
		return this.exists ? this.base + this.bytes.length : 0;
	}
}

const [folder, copies, seedText, durationText, frozen = ""] = process.argv.slice(2) as [string, string, string, string, string?];
const random = new SeededRandom(Number(seedText));
const endMs = Date.now() + Number(durationText);
const files = Array.from({ length: fileCount }, (_, i) => new File(folder, copies, i));
const freezes = frozen === "frozen";
/** From one file's being immutable to the next one's. */
const betweenFreezesMs = 2500;
const thawMs = 60_000;
let nextFreezeMs = Date.now();
let operations = 0;

function note(file: File, text: string): void {
	file.log.push(`${operations}: ${text}`);
	if (file.log.length > keptOperations) file.log.shift();
}

function fail(file: File, what: string): never {
	throw new Error(`seed ${seedText}, operation ${operations}, ${file.path} (from ${file.base}): ${what}\n  ${file.log.join("\n  ")}`);
}

function open(file: File, flags = 0): number {
	return openSync(file.path, constants.O_RDWR | constants.O_CREAT | flags, 0o644);
}

/** Bytes that say which operation wrote them. */
function fresh(length: number): Uint8Array {
	const bytes = new Uint8Array(length);
	const tag = 1 + (operations % 255);
	for (let i = 0; i < length; i++) bytes[i] = (tag + i * 7) & 0xff || 1;
	return bytes;
}

/** The copy becomes at least that long. */
function grow(file: File, end: number): void {
	file.exists = true;
	if (end <= file.bytes.length) return;
	const grown = new Uint8Array(end);
	grown.set(file.bytes);
	file.bytes = grown;
}

function compare(file: File, got: Uint8Array, at: number, what: string): void {
	const expected = file.bytes.subarray(at, at + got.length);
	if (expected.length === got.length && Buffer.compare(expected, got) === 0) return;
	let first = 0;
	while (first < got.length && got[first] === expected[first]) first++;
	let last = got.length - 1;
	while (last > first && got[last] === expected[last]) last--;
	const show = (bytes: Uint8Array): string => [...bytes.subarray(first, first + 12)].join(" ");
	fail(file, `${what}: bytes ${at + first} to ${at + last} differ: ${show(got)}, expected ${show(expected)}`);
}

function readAll(fd: number, length: number, position: number): Uint8Array {
	const bytes = new Uint8Array(length);
	let done = 0;
	while (done < length) {
		const count = readSync(fd, bytes, done, length - done, position + done);
		if (count === 0) break;
		done += count;
	}
	return bytes.subarray(0, done);
}

function writeAll(fd: number, bytes: Uint8Array, position: number | null): void {
	for (let done = 0; done < bytes.length; )
		done += writeSync(fd, bytes, done, bytes.length - done, position === null ? null : position + done);
}

function range(file: File, inside: boolean): { at: number; length: number } {
	const limit = inside ? file.bytes.length : Math.min(largestBytes, file.bytes.length + random.pick([0, 1, 5000, 300_000]) + 1);
	let at = random.below(Math.max(1, limit));
	if (random.chance(0.3)) at -= at % 4096;
	let length = 1 + random.below(random.pick([1, 100, 4096, 20_000, 140_000, 400_000]));
	if (random.chance(0.3)) length = Math.ceil(length / 4096) * 4096;
	return { at, length: Math.min(length, (inside ? file.bytes.length : largestBytes) - at) };
}

// ── operations ───────────────────────────────────────────────────────────────────────────────────────────────────

function write(file: File): void {
	const { at, length } = range(file, false);
	if (length <= 0) return;
	const bytes = fresh(length);
	const how = random.below(10);
	note(file, `write ${at}+${length} ${how === 0 ? "O_DIRECT" : how === 1 ? "O_DSYNC" : ""}`);
	const fd = how < 2 ? open(file, how === 0 ? constants.O_DIRECT : constants.O_DSYNC) : file.fd;
	writeAll(fd, bytes, file.base + at);
	if (fd !== file.fd) closeSync(fd);
	grow(file, at + length);
	file.bytes.set(bytes, at);
}

function append(file: File): void {
	if (!file.exists) return;
	const length = Math.min(1 + random.below(9000), largestBytes - file.bytes.length);
	if (length <= 0) return;
	const bytes = fresh(length);
	const at = file.bytes.length;
	note(file, `append ${length} at ${at}`);
	const fd = open(file, constants.O_APPEND);
	writeAll(fd, bytes, null);
	closeSync(fd);
	grow(file, at + length);
	file.bytes.set(bytes, at);
}

function read(file: File): void {
	if (file.bytes.length === 0) return;
	const { at, length } = range(file, true);
	const direct = random.chance(0.15);
	note(file, `read ${at}+${length}${direct ? " O_DIRECT" : ""}`);
	const fd = direct ? open(file, constants.O_DIRECT) : file.fd;
	const got = readAll(fd, length + (random.chance(0.2) ? 5000 : 0), file.base + at);
	if (fd !== file.fd) closeSync(fd);
	if (got.length < length) fail(file, `read ${at}+${length} answered ${got.length} bytes`);
	compare(file, got, at, `read ${at}+${length}`);
}

function truncate(file: File): void {
	const size = random.below(random.chance(0.5) ? file.bytes.length + 1 : largestBytes);
	note(file, `truncate ${size}`);
	ftruncateSync(file.fd, file.base + size);
	const cut = new Uint8Array(size);
	cut.set(file.bytes.subarray(0, size));
	file.bytes = cut;
	file.exists = true;
}

function mapRead(file: File): void {
	if (file.bytes.length === 0) return;
	const { at, length } = range(file, true);
	note(file, `mapped read ${at}+${length}`);
	const mapped = new Mapped(file.fd, file.base + at, length, "reading");
	compare(file, mapped.bytes.slice(), at, `mapped read ${at}+${length}`);
	mapped.close();
}

function mapWrite(file: File): void {
	if (file.bytes.length === 0) return;
	const { at, length } = range(file, true);
	const kind = random.chance(0.2) ? "private" : "shared";
	const bytes = fresh(length);
	const sync = random.chance(0.3);
	note(file, `mapped ${kind} write ${at}+${length}${sync ? " msync" : ""}`);
	const mapped = new Mapped(file.fd, file.base + at, length, kind);
	mapped.bytes.set(bytes);
	if (kind === "shared") {
		file.bytes.set(bytes, at);
		// What is only in the mapping so far is what read(2) shows.
		if (random.chance(0.5)) compare(file, readAll(file.fd, length, file.base + at), at, "read beside a mapping");
		if (random.chance(0.3)) checkSeek(file, at);
		if (sync) mapped.sync();
	}
	mapped.close();
}

const modes = [
	0,
	falloc.KEEP_SIZE,
	falloc.PUNCH_HOLE | falloc.KEEP_SIZE,
	falloc.PUNCH_HOLE | falloc.KEEP_SIZE,
	falloc.ZERO_RANGE,
	falloc.ZERO_RANGE | falloc.KEEP_SIZE,
];

function allocate(file: File): void {
	const { at, length } = range(file, false);
	if (length <= 0) return;
	const mode = random.pick(modes);
	note(file, `fallocate ${mode} ${at}+${length}`);
	fallocate(file.fd, mode, file.base + at, length);
	if ((mode & falloc.KEEP_SIZE) === 0) grow(file, at + length);
	if ((mode & (falloc.PUNCH_HOLE | falloc.ZERO_RANGE)) !== 0) file.bytes.fill(0, at, at + length);
}

function copy(file: File): void {
	const source = random.pick(files);
	if (source.bytes.length === 0) return;
	const { at, length } = range(source, true);
	const to = random.below(Math.max(1, Math.min(largestBytes - length, file.bytes.length + 100_000)));
	if (source === file && Math.abs(at - to) < length) return;
	note(file, `copy of ${source.path} ${at}+${length} to ${to}`);
	note(source, `source of a copy ${at}+${length} to ${file.path} ${to}`);
	const bytes = source.bytes.slice(at, at + length);
	for (let done = 0; done < length; ) {
		const count = copyFileRange(source.fd, source.base + at + done, file.fd, file.base + to + done, length - done);
		if (count === 0) fail(file, `copy_file_range stopped after ${done} of ${length}`);
		done += count;
	}
	grow(file, to + length);
	file.bytes.set(bytes, to);
}

function checkSeek(file: File, at: number): void {
	if (at >= file.bytes.length) {
		if (seek(file.fd, file.base + at, "data") !== undefined) fail(file, `data was found behind the end, at ${at}`);
		return;
	}
	const data = (seek(file.fd, file.base + at, "data") ?? file.size) - file.base;
	if (file.bytes.subarray(at, data).some((byte) => byte !== 0)) fail(file, `SEEK_DATA from ${at} passed over data: ${data}`);
	const hole = (seek(file.fd, file.base + at, "hole") ?? Number.NaN) - file.base;
	if (!(hole >= at && hole <= file.bytes.length)) fail(file, `SEEK_HOLE from ${at} answered ${hole}`);
	if (data !== at && hole !== at) fail(file, `${at} is neither data nor hole: ${data}, ${hole}`);
}

function findHoles(file: File): void {
	const at = random.below(file.bytes.length + 10);
	note(file, `seek from ${at}`);
	if (file.exists) checkSeek(file, at);
}

function sync(file: File): void {
	note(file, "fsync");
	if (random.chance(0.5)) fsyncSync(file.fd);
	else fdatasyncSync(file.fd);
	if (!random.chance(0.5)) return;
	note(file, "pages dropped");
	dropPages(file.fd);
}

function reopen(file: File): void {
	note(file, "close and open");
	closeSync(file.fd);
	file.fd = open(file);
}

function overwrite(file: File): void {
	note(file, "O_TRUNC");
	closeSync(file.fd);
	file.fd = open(file, constants.O_TRUNC);
	file.bytes = new Uint8Array(0);
	file.exists = false;
}

function replace(file: File): void {
	note(file, "removed and made again");
	closeSync(file.fd);
	unlinkSync(file.path);
	file.fd = open(file);
	file.bytes = new Uint8Array(0);
	file.exists = false;
}

function checkSize(file: File): void {
	const { size, blocks } = fstatSync(file.fd);
	if (size !== file.size) fail(file, `the size is ${size}, ${file.size} expected`);
	if (blocks * 512 > 4 * largestBytes) fail(file, `${blocks} blocks for at most ${largestBytes} bytes`);
}

function rest(file: File): void {
	const ms = random.pick([1, 20, 600]);
	note(file, `rest ${ms} ms`);
	pause(ms);
}

function pause(ms: number): void {
	Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/** undefined: the file system of the staged file wants direct reads to be aligned, to what it likes. */
function tryRead(fd: number, length: number, position: number, direct: boolean): Uint8Array | undefined {
	try {
		return readAll(fd, length, position);
	} catch (error) {
		if (direct && (error as { code?: unknown }).code === "EINVAL") return undefined;
		throw error;
	}
}

/** By an open of its own, or a mapping that outlives its descriptor. Answers what lets go of it. */
function readFrozen(file: File): () => void {
	const { at, length } = range(file, true);
	const how = random.pick(["", "", "O_DIRECT", "mapped"]);
	note(file, `frozen read ${at}+${length} ${how}`);
	const fd = openSync(file.path, constants.O_RDONLY | (how === "O_DIRECT" ? constants.O_DIRECT : 0));
	if (how !== "mapped") {
		const got = tryRead(fd, length, file.base + at, how === "O_DIRECT");
		if (got !== undefined) compare(file, got, at, `frozen read ${at}+${length} ${how}`);
		if (got !== undefined && got.length < length) fail(file, `a frozen read of ${length} bytes answered ${got.length}`);
		return () => closeSync(fd);
	}
	const mapped = new Mapped(fd, file.base + at, length, "reading");
	closeSync(fd);
	const look = (): void => compare(file, mapped.bytes.slice(), at, `frozen mapping ${at}+${length}`);
	look();
	return () => {
		look();
		mapped.close();
	};
}

/** Until nobody reads it natively any more. */
function thaw(file: File): void {
	for (const limitMs = Date.now() + thawMs; ; pause(20)) {
		try {
			file.fd = open(file);
			return;
		} catch (error) {
			if ((error as { code?: unknown }).code !== "EBUSY" || Date.now() > limitMs) throw error;
		}
	}
}

function openForWriting(file: File): string {
	try {
		closeSync(openSync(file.path, constants.O_RDWR));
		return "";
	} catch (error) {
		return String((error as { code?: unknown }).code);
	}
}

function growWhole(file: File): void {
	note(file, "grows to its largest");
	const end = fresh(1);
	writeAll(file.fd, end, file.base + largestBytes - 1);
	grow(file, largestBytes);
	file.bytes.set(end, largestBytes - 1);
}

/** It is immutable for a while; whoever reads it then may read it natively, and what is written afterwards is what everybody sees. */
function freeze(file: File): void {
	growWhole(file);
	note(file, "is closed and frozen");
	closeSync(file.fd);
	execFileSync("chattr", ["+i", file.path]);
	const held: (() => void)[] = [];
	for (const untilMs = Date.now() + random.pick([0, 200, 1000, 1000]); Date.now() < untilMs; pause(random.below(15))) {
		held.push(readFrozen(file));
		while (held.length > random.below(5)) (held.shift() as () => void)();
	}
	const refused = openForWriting(file);
	if (refused !== "EPERM") fail(file, `an open for writing of an immutable file answered ${refused || "a descriptor"}`);
	execFileSync("chattr", ["-i", file.path]);
	note(file, `no longer immutable; ${held.length} read it still, an open for writing answers ${openForWriting(file) || "a descriptor"}`);
	for (const letGo of held) letGo();
	thaw(file);
	checkWhole(file, "thawed");
}

const choices: readonly (readonly [weight: number, run: (file: File) => void])[] = [
	[24, write],
	[4, append],
	[18, read],
	[8, truncate],
	[8, mapRead],
	[12, mapWrite],
	[14, allocate],
	[12, copy],
	[6, findHoles],
	[6, sync],
	[3, reopen],
	[1, overwrite],
	[1, replace],
	[6, checkSize],
	[1, rest],
];
const weights = choices.reduce((sum, [weight]) => sum + weight, 0);

function step(): void {
	operations++;
	if (freezes && Date.now() >= nextFreezeMs) {
		// The others are too large to be staged.
		attempt(freeze, random.pick(files.filter(({ base }) => base === 0)));
		nextFreezeMs = Date.now() + betweenFreezesMs;
		return;
	}
	const file = random.pick(files);
	let at = random.below(weights);
	for (const [weight, run] of choices) {
		at -= weight;
		if (at >= 0) continue;
		attempt(run, file);
		return;
	}
}

function attempt(run: (file: File) => void, file: File): void {
	try {
		run(file);
	} catch (error) {
		const message = error instanceof Error ? error.message : String(error);
		if (message.startsWith("seed ")) throw error;
		fail(file, message);
	}
}

/** Everything there is, and that in front of the base there is nothing. */
function checkWhole(file: File, when: string): void {
	note(file, when);
	checkSize(file);
	compare(file, readAll(file.fd, file.bytes.length, file.base), 0, when);
	if (file.exists && file.base > 0) {
		const data = seek(file.fd, 0, "data");
		// A mapping writes whole pages.
		if (data !== undefined && data < file.base - (file.base % 4096))
			fail(file, `${when}: data at ${data}, in front of everything that was written`);
	}
}

function load(file: File): void {
	file.exists = existsSync(file.copyPath);
	if (file.exists) file.bytes = new Uint8Array(readFileSync(file.copyPath));
	file.fd = open(file);
	checkWhole(file, "as the run before left it");
}

function keep(file: File): void {
	checkWhole(file, "at the end");
	closeSync(file.fd);
	if (file.exists) writeFileSync(file.copyPath, file.bytes);
	else if (existsSync(file.copyPath)) unlinkSync(file.copyPath);
}

try {
	for (const file of files) load(file);
	while (Date.now() < endMs) step();
	// One at least is large enough to be staged on a mount for reading alone.
	if (freezes) attempt(growWhole, files[0] as File);
	for (const file of files) keep(file);
	console.log(`${operations} operations`);
} catch (error) {
	console.error(error instanceof Error ? error.message : String(error));
	process.exitCode = 1;
}
