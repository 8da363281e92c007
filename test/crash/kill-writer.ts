/**
 * The process whose file system is killed under it: `node kill-writer.js FOLDER JOURNAL SEED [power]`. Changes files in FOLDER (on the mount)
 * without pause, one operation after the other, and notes in JOURNAL (elsewhere) what begins and what was acknowledged. Ends with 0
 * when the file system is gone, with 1 on any other error. With `power` this whole machine will lose power: more is synced, and each
 * line of the journal is on its way before anything follows.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { copyFileRange, falloc, fallocate } from "../support/syscalls.ts";
import { contents, type JournalLine, type Operation, randomOf, sum, Tree } from "./kill-model.ts";

/** What calls end with when the process behind a FUSE mount is gone. */
const gone = new Set(["ENOTCONN", "ECONNABORTED", "ENODEV"]);
const mostFiles = 60;
const mostBytes = 24 * 1024 * 1024;

class Writer {
	readonly #folder: string;
	readonly #journal: number;
	readonly #seed: number;
	readonly #random: (bound: number) => number;
	/** One in so many operations is a sync, beside those that come anyway. */
	readonly #syncOneIn: number | undefined;
	readonly #tree = new Tree();
	#number = 0;

	constructor(folder: string, journal: string, seed: number, losesPower: boolean) {
		this.#folder = folder;
		this.#journal = fs.openSync(journal, losesPower ? "as" : "a");
		this.#seed = seed;
		this.#random = randomOf(seed);
		this.#syncOneIn = losesPower ? ([3, 6, 12, 40][this.#random(4)] as number) : undefined;
	}

	#note(line: JournalLine): void {
		fs.writeSync(this.#journal, `${JSON.stringify(line)}\n`);
	}

	/** Until the file system is gone. */
	run(): void {
		try {
			for (;;) this.#step();
		} catch (error) {
			const code = (error as NodeJS.ErrnoException).code ?? "";
			if (!gone.has(code)) throw error;
			this.#note({ ended: code });
		}
	}

	#step(): void {
		const number = this.#number++;
		const operation = this.#choose();
		this.#note({ begin: number, operation });
		const sha256 = this.#perform(number, operation);
		this.#tree.apply(this.#seed, number, operation);
		this.#note(sha256 === undefined ? { done: number } : { done: number, sha256 });
	}

	#choose(): Operation {
		const random = this.#random;
		const bytes = [...this.#tree.files.values()].reduce((sum, file) => sum + file.bytes.length, 0);
		if (this.#tree.files.size > mostFiles || bytes > mostBytes) return { kind: "unlink", path: this.#some() };
		const kind = random(100);
		if (this.#tree.files.size < 5 || kind < 25) return this.#saving(this.#fresh(), random(2) === 0);
		const path = this.#some();
		if (this.#syncOneIn !== undefined && random(this.#syncOneIn) === 0) return { kind: "fsync", path };
		const size = this.#tree.files.get(path)?.bytes.length ?? 0;
		if (kind < 35) return this.#saving(path, random(3) > 0);
		if (kind < 41) return { kind: "zero", path, offset: random(size + 3000), length: 1 + random(30_000), hole: random(2) === 0 };
		if (kind < 47) return this.#copy(path, size);
		if (kind < 55) return { kind: "append", path, length: 1 + random(12_000) };
		if (kind < 66) return { kind: "write", path, offset: random(size + 5000), length: 1 + random(9000) };
		if (kind < 72) return { kind: "truncate", path, size: random(size + 3000) };
		if (kind < 80) return { kind: "rename", path, to: random(2) === 0 ? this.#fresh() : this.#other(path) };
		if (kind < 84) return { kind: "unlink", path };
		if (kind < 88) return { kind: "mkdir", path: `d${this.#number}` };
		if (kind < 92) return { kind: "touch", path, seconds: 1_000_000_000 + random(500_000_000) };
		return { kind: "fsync", path };
	}

	#saving(path: string, careful: boolean): Operation {
		return { kind: "save", path, length: this.#length(), careful, synced: this.#random(this.#syncOneIn ?? 2) === 0 && careful };
	}

	#copy(path: string, size: number): Operation {
		const from = this.#some();
		const there = this.#tree.files.get(from)?.bytes.length ?? 0;
		const length = this.#random(3) === 0 ? this.#random(there + 1) : there;
		if (from === path || length === 0) return { kind: "fsync", path };
		return { kind: "copy", path, from, offset: this.#random(size + 1), length };
	}

	/** Inline sizes, single fragments, several chunks. */
	#length(): number {
		const random = this.#random;
		return [random(2049), random(20_000), random(200_000), random(12) === 0 ? random(3_500_000) : random(70_000)][random(4)] as number;
	}

	#fresh(): string {
		const folders = [...this.#tree.folders];
		const folder = this.#random(3) === 0 ? "" : folders[this.#random(folders.length)];
		return folder ? `${folder}/f${this.#number}` : `f${this.#number}`;
	}

	#some(): string {
		const paths = [...this.#tree.files.keys()];
		return paths[this.#random(paths.length)] as string;
	}

	#other(path: string): string {
		const other = this.#some();
		return other === path ? this.#fresh() : other;
	}

	/** Answers the SHA-256 of what was synced. */
	#perform(number: number, operation: Operation): string | undefined {
		const path = join(this.#folder, operation.path);
		switch (operation.kind) {
			case "save":
				this.#save(path, contents(this.#seed, number, operation.length), operation);
				return undefined;
			case "write":
				this.#writeAt(path, contents(this.#seed, number, operation.length), "r+", operation.offset);
				return undefined;
			case "append":
				this.#writeAt(path, contents(this.#seed, number, operation.length), "a", null);
				return undefined;
			case "truncate":
				fs.truncateSync(path, operation.size);
				return undefined;
			case "zero":
				this.#zero(path, operation.offset, operation.length, operation.hole);
				return undefined;
			case "copy":
				this.#copyInto(path, join(this.#folder, operation.from), operation.offset, operation.length);
				return undefined;
			case "rename":
				fs.renameSync(path, join(this.#folder, operation.to));
				return undefined;
			case "unlink":
				fs.unlinkSync(path);
				return undefined;
			case "mkdir":
				fs.mkdirSync(path);
				return undefined;
			case "touch":
				fs.utimesSync(path, operation.seconds, operation.seconds);
				return undefined;
			case "fsync":
				return this.#sync(path, operation.path);
		}
	}

	#save(path: string, bytes: Buffer, { careful, synced }: { readonly careful: boolean; readonly synced: boolean }): void {
		const temporary = careful ? join(this.#folder, ".saving") : path;
		this.#writeAt(temporary, bytes, "w", null, synced);
		if (careful) fs.renameSync(temporary, path);
	}

	#writeAt(path: string, bytes: Buffer, flags: string, offset: number | null, sync = false): void {
		const file = fs.openSync(path, flags);
		try {
			for (let at = 0; at < bytes.length; ) at += fs.writeSync(file, bytes, at, bytes.length - at, offset === null ? null : offset + at);
			if (sync) fs.fsyncSync(file);
		} finally {
			fs.closeSync(file);
		}
	}

	#zero(path: string, offset: number, length: number, hole: boolean): void {
		const file = fs.openSync(path, "r+");
		try {
			fallocate(file, hole ? falloc.PUNCH_HOLE | falloc.KEEP_SIZE : falloc.ZERO_RANGE, offset, length);
		} finally {
			fs.closeSync(file);
		}
	}

	#copyInto(path: string, from: string, offset: number, length: number): void {
		const file = fs.openSync(path, "r+");
		const source = fs.openSync(from, "r");
		try {
			for (let at = 0; at < length; ) {
				const count = copyFileRange(source, at, file, offset + at, length - at);
				if (count === 0) throw new Error(`the copy of ${from} ended after ${at} of ${length} bytes`);
				at += count;
			}
		} finally {
			fs.closeSync(file);
			fs.closeSync(source);
		}
	}

	#sync(path: string, relative: string): string {
		const file = fs.openSync(path, "r+");
		try {
			fs.fsyncSync(file);
		} finally {
			fs.closeSync(file);
		}
		return sum(this.#tree.files.get(relative)?.bytes ?? Buffer.alloc(0));
	}
}

const [folder, journal, seed, losesPower] = process.argv.slice(2);
if (folder === undefined || journal === undefined || seed === undefined)
	throw new Error("usage: kill-writer.js FOLDER JOURNAL SEED [power]");
new Writer(folder, journal, Number(seed), losesPower === "power").run();
