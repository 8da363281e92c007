/**
 * A process whose daemon is killed again and again behind a living mount: `node keeper-worker.js FOLDER SEED STOP`. Changes names and contents in FOLDER without pause until the file STOP
 * exists, and compares with a model in memory. No call may fail, no byte may be lost, nothing may happen twice: a name that is removed twice, a file that is made twice, two names that are exchanged
 * twice would all show. Prints the number of operations.
 */
import assert from "node:assert/strict";
import * as fs from "node:fs";
import { join } from "node:path";
import { exchange, Mapped, setXattr } from "../support/syscalls.ts";
import { randomOf } from "./kill-model.ts";

const { constants } = fs;
const mostFiles = 24;
const mostBytes = 300_000;
const keptOperations = 30;

interface File {
	/** Name → contents is the model; all names of one file share this. */
	bytes: Buffer;
	links: number;
	xattrs: number;
}

interface Open {
	readonly fd: number;
	readonly file: File;
	/** The name may be gone. */
	readonly path: string;
}

class Worker {
	readonly #folder: string;
	readonly #seed: number;
	readonly #random: (bound: number) => number;
	readonly #files = new Map<string, File>();
	readonly #folders = new Set<string>();
	readonly #open: Open[] = [];
	readonly #log: string[] = [];
	#number = 0;

	constructor(folder: string, seed: number) {
		this.#folder = folder;
		this.#seed = seed;
		this.#random = randomOf(seed);
	}

	run(stop: string): number {
		for (;;) {
			if (fs.existsSync(stop)) break;
			try {
				this.#step();
			} catch (error) {
				throw new Error(`seed ${this.#seed}, operation ${this.#number}: ${String(error)}\n  ${this.#log.join("\n  ")}`, { cause: error });
			}
			this.#number++;
		}
		this.#checkAll();
		for (const { fd } of this.#open) fs.closeSync(fd);
		return this.#number;
	}

	#note(text: string): void {
		this.#log.push(`${this.#number}: ${text}`);
		if (this.#log.length > keptOperations) this.#log.shift();
	}

	#path(name: string): string {
		return join(this.#folder, name);
	}

	#some(): string {
		const names = [...this.#files.keys()];
		return names[this.#random(names.length)] as string;
	}

	#fresh(): string {
		const folders = ["", ...this.#folders];
		return join(folders[this.#random(folders.length)] as string, `n${this.#number}`);
	}

	#bytes(most: number): Buffer {
		const bytes = Buffer.alloc(1 + this.#random(most));
		const tag = 1 + (this.#number % 250);
		for (let i = 0; i < bytes.length; i++) bytes[i] = (tag + i * 7) & 0xff;
		return bytes;
	}

	#step(): void {
		this.#choose()();
	}

	#choose(): () => void {
		const random = this.#random;
		if (this.#files.size < 4) return () => this.#create();
		if (this.#files.size > mostFiles) return () => this.#unlink();
		const choices: readonly (readonly [weight: number, run: () => void])[] = [
			[14, () => this.#create()],
			[10, () => this.#unlink()],
			[14, () => this.#append()],
			[12, () => this.#overwrite()],
			[6, () => this.#truncate()],
			[4, () => this.#rewrite()],
			[12, () => this.#rename()],
			[5, () => this.#exchange()],
			[6, () => this.#link()],
			[4, () => this.#makeFolder()],
			[3, () => this.#removeFolder()],
			[3, () => this.#symlink()],
			[3, () => this.#xattr()],
			[5, () => this.#map()],
			[4, () => this.#sync()],
			[7, () => this.#hold()],
			[9, () => this.#useHeld()],
			[6, () => this.#check(this.#some())],
			[1, () => this.#checkAll()],
		];
		let at = random(choices.reduce((sum, [weight]) => sum + weight, 0));
		for (const [weight, run] of choices) {
			if (at < weight) return run;
			at -= weight;
		}
		throw new Error("weights add up");
	}

	#create(): void {
		const name = this.#fresh();
		this.#note(`create ${name}`);
		const fd = fs.openSync(this.#path(name), "wx+");
		const file = { bytes: Buffer.alloc(0), links: 1, xattrs: 0 };
		this.#files.set(name, file);
		if (this.#random(4) > 0) this.#writeAll(fd, file, this.#bytes([100, 3000, 60_000][this.#random(3)] as number), 0);
		fs.closeSync(fd);
	}

	#writeAll(fd: number, file: File, bytes: Buffer, at: number): void {
		for (let done = 0; done < bytes.length; ) done += fs.writeSync(fd, bytes, done, bytes.length - done, at + done);
		const grown = Buffer.alloc(Math.max(file.bytes.length, at + bytes.length));
		file.bytes.copy(grown);
		bytes.copy(grown, at);
		file.bytes = grown;
	}

	#unlink(): void {
		const name = this.#some();
		this.#note(`unlink ${name}`);
		fs.unlinkSync(this.#path(name));
		(this.#files.get(name) as File).links--;
		this.#files.delete(name);
	}

	#append(): void {
		const name = this.#some();
		const file = this.#files.get(name) as File;
		if (file.bytes.length > mostBytes) return;
		this.#note(`append ${name}`);
		const bytes = this.#bytes(9000);
		const fd = fs.openSync(this.#path(name), "a");
		for (let done = 0; done < bytes.length; ) done += fs.writeSync(fd, bytes, done, bytes.length - done, null);
		fs.closeSync(fd);
		file.bytes = Buffer.concat([file.bytes, bytes]);
	}

	#overwrite(): void {
		const name = this.#some();
		const file = this.#files.get(name) as File;
		const at = this.#random(Math.min(file.bytes.length, mostBytes) + 2000);
		this.#note(`write ${name} at ${at}`);
		const fd = fs.openSync(this.#path(name), "r+");
		this.#writeAll(fd, file, this.#bytes(20_000), at);
		fs.closeSync(fd);
	}

	#truncate(): void {
		const name = this.#some();
		const file = this.#files.get(name) as File;
		const size = this.#random(file.bytes.length + 3000);
		this.#note(`truncate ${name} to ${size}`);
		fs.truncateSync(this.#path(name), size);
		this.#resize(file, size);
	}

	#resize(file: File, size: number): void {
		const bytes = Buffer.alloc(size);
		file.bytes.copy(bytes, 0, 0, Math.min(size, file.bytes.length));
		file.bytes = bytes;
	}

	/** O_TRUNC: the open itself changes something. */
	#rewrite(): void {
		const name = this.#some();
		const file = this.#files.get(name) as File;
		this.#note(`rewrite ${name}`);
		const fd = fs.openSync(this.#path(name), "w+");
		file.bytes = Buffer.alloc(0);
		if (this.#random(3) > 0) this.#writeAll(fd, file, this.#bytes(5000), 0);
		fs.closeSync(fd);
	}

	#rename(): void {
		const from = this.#some();
		const to = this.#random(3) === 0 ? this.#some() : this.#fresh();
		const [file, replaced] = [this.#files.get(from) as File, this.#files.get(to)];
		this.#note(`rename ${from} to ${to}`);
		fs.renameSync(this.#path(from), this.#path(to));
		// Two names of one file: nothing happens (rename(2)).
		if (file === replaced) return;
		if (replaced) replaced.links--;
		this.#files.delete(from);
		this.#files.set(to, file);
	}

	#exchange(): void {
		const [a, b] = [this.#some(), this.#some()];
		if (a === b) return;
		this.#note(`exchange ${a} and ${b}`);
		exchange(this.#path(a), this.#path(b));
		const [of, and] = [this.#files.get(a) as File, this.#files.get(b) as File];
		this.#files.set(a, and);
		this.#files.set(b, of);
	}

	#link(): void {
		const [from, to] = [this.#some(), this.#fresh()];
		this.#note(`link ${from} as ${to}`);
		fs.linkSync(this.#path(from), this.#path(to));
		const file = this.#files.get(from) as File;
		file.links++;
		this.#files.set(to, file);
	}

	#makeFolder(): void {
		if (this.#folders.size > 5) return;
		const name = `d${this.#number}`;
		this.#note(`mkdir ${name}`);
		fs.mkdirSync(this.#path(name));
		this.#folders.add(name);
	}

	#removeFolder(): void {
		const empty = [...this.#folders].filter((folder) => ![...this.#files.keys()].some((name) => name.startsWith(`${folder}/`)));
		const name = empty[0];
		if (name === undefined) return;
		this.#note(`rmdir ${name}`);
		fs.rmdirSync(this.#path(name));
		this.#folders.delete(name);
	}

	#symlink(): void {
		const name = `l${this.#number}`;
		this.#note(`symlink ${name}`);
		fs.symlinkSync("somewhere", this.#path(name));
		assert.equal(fs.readlinkSync(this.#path(name)), "somewhere");
		fs.unlinkSync(this.#path(name));
	}

	/** XATTR_CREATE: a second time it would fail. */
	#xattr(): void {
		const name = this.#some();
		const file = this.#files.get(name) as File;
		if (file.xattrs > 8) return;
		this.#note(`setxattr ${name}`);
		setXattr(this.#path(name), `user.x${file.xattrs++}`, "value", "create");
	}

	#map(): void {
		const name = this.#some();
		const file = this.#files.get(name) as File;
		if (file.bytes.length < 10) return;
		const at = this.#random(file.bytes.length - 5);
		const length = Math.min(file.bytes.length - at, 1 + this.#random(9000));
		this.#note(`map ${name} at ${at}, ${length} bytes`);
		const fd = fs.openSync(this.#path(name), "r+");
		const mapped = new Mapped(fd, at, length, "shared");
		assert.deepEqual(Buffer.from(mapped.bytes), file.bytes.subarray(at, at + length), "what a mapping shows");
		const bytes = this.#bytes(length).subarray(0, length);
		mapped.bytes.set(bytes);
		bytes.copy(file.bytes, at);
		if (this.#random(2) === 0) mapped.sync();
		mapped.close();
		fs.closeSync(fd);
	}

	#sync(): void {
		const name = this.#some();
		this.#note(`fsync ${name}`);
		const fd = fs.openSync(this.#path(name), "r+");
		fs.fsyncSync(fd);
		fs.closeSync(fd);
	}

	/** Files that stay open over the deaths of daemons, and over the loss of their names. */
	#hold(): void {
		if (this.#open.length > 8) {
			const [gone] = this.#open.splice(this.#random(this.#open.length), 1);
			this.#note(`close ${gone?.path}`);
			fs.closeSync((gone as Open).fd);
			return;
		}
		const name = this.#some();
		this.#note(`hold ${name}`);
		this.#open.push({ fd: fs.openSync(this.#path(name), "r+"), file: this.#files.get(name) as File, path: name });
	}

	#useHeld(): void {
		const held = this.#open[this.#random(Math.max(1, this.#open.length))];
		if (held === undefined) return;
		const { fd, file, path } = held;
		const kind = this.#random(5);
		this.#note(`held ${path}: ${["write", "append", "truncate", "fstat", "read"][kind]}`);
		if (kind === 0) this.#writeAll(fd, file, this.#bytes(4000), this.#random(file.bytes.length + 1));
		else if (kind === 1 && file.bytes.length < mostBytes) this.#writeAll(fd, file, this.#bytes(4000), file.bytes.length);
		else if (kind === 2) {
			const size = this.#random(file.bytes.length + 100);
			fs.ftruncateSync(fd, size);
			this.#resize(file, size);
		} else if (kind === 3) {
			const { size, nlink } = fs.fstatSync(fd);
			assert.deepEqual([size, nlink], [file.bytes.length, file.links], `${path}: size and links`);
		} else this.#compare(fd, file, path);
	}

	#compare(fd: number, file: File, name: string): void {
		const bytes = Buffer.alloc(file.bytes.length + 10);
		let done = 0;
		for (let count = -1; count !== 0; done += count) count = fs.readSync(fd, bytes, done, bytes.length - done, done);
		const seen = bytes.subarray(0, done);
		if (seen.equals(file.bytes)) return;
		let first = 0;
		while (first < seen.length && seen[first] === file.bytes[first]) first++;
		assert.fail(`${name}: ${seen.length} bytes, expected ${file.bytes.length}; they differ from ${first} on`);
	}

	#check(name: string): void {
		const file = this.#files.get(name) as File;
		const fd = fs.openSync(this.#path(name), constants.O_RDONLY);
		this.#compare(fd, file, name);
		const { size, nlink } = fs.fstatSync(fd);
		assert.deepEqual([size, nlink], [file.bytes.length, file.links], `${name}: size and links`);
		fs.closeSync(fd);
	}

	#checkAll(): void {
		this.#note("check everything");
		const seen = new Set<string>();
		for (const folder of ["", ...this.#folders]) {
			for (const entry of fs.readdirSync(this.#path(folder), { withFileTypes: true })) {
				const name = join(folder, entry.name);
				assert.ok(!seen.has(name), `${name} is listed twice`);
				seen.add(name);
			}
		}
		assert.deepEqual([...seen].sort(), [...this.#files.keys(), ...this.#folders].sort(), "names");
		for (const name of this.#files.keys()) this.#check(name);
		for (const { fd, file, path } of this.#open) this.#compare(fd, file, path);
	}
}

const [folder, seed, stop] = process.argv.slice(2);
if (folder === undefined || seed === undefined || stop === undefined) throw new Error("usage: keeper-worker.js FOLDER SEED STOP");
console.log(new Worker(folder, Number(seed)).run(stop));
