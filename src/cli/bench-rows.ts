/**
 * What `cairn bench` measures: the rows, and what one client does for each. A client is a process of its own that makes blocking calls, as most programs do.
 *
 * Rows run in this order: later ones use what earlier ones made. What is prepared is not measured.
 */
import {
	closeSync,
	copyFileSync,
	fdatasyncSync,
	fstatSync,
	fsyncSync,
	mkdirSync,
	openSync,
	readdirSync,
	readFileSync,
	readSync,
	renameSync,
	rmSync,
	statSync,
	unlinkSync,
	writeFileSync,
	writeSync,
} from "node:fs";
import { FsError } from "../base/errors.ts";
import { forget, syncFileSystem } from "../platform/real/libc.ts";

export interface BenchSizes {
	/** Empty files of the first group; a quarter as many small files, and as many again in the tree. */
	readonly files: number;
	/** The big file. */
	readonly mib: number;
}

type Unit = "files/s" | "MiB/s" | "/s";

interface Row {
	readonly group: string;
	readonly name: string;
	readonly unit: Unit;
	/** What the figure includes, for people. */
	readonly includes: string;
	/** From here on people call it fast; below `fair`, slow. By what a hard disk, a solid-state disk and a file system over a network do. */
	readonly good: number;
	readonly fair: number;
	/** The kernel has to forget what it knows before. */
	readonly cold?: true;
	prepare?(client: BenchClient): void;
	/** Answers how much of the unit was done. */
	run(client: BenchClient): number;
}

const kib = 1024;
const blockBytes = 1024 * kib;
const smallBytes = 64 * kib;
const pageBytes = 4 * kib;
const randomReads = 2000;
const randomWrites = 2000;
const appends = 200;
const filesInFolder = 25;

const created = "opened, closed, empty";

export const benchRows: readonly Row[] = [
	{ group: "files", name: "create", unit: "files/s", includes: created, good: 2000, fair: 300, run: (client) => client.create() },
	{
		group: "files",
		name: "stat",
		unit: "files/s",
		includes: "by name",
		good: 20_000,
		fair: 2000,
		cold: true,
		run: (client) => client.stat(),
	},
	{
		group: "files",
		name: "list",
		unit: "files/s",
		includes: "names of one directory",
		good: 100_000,
		fair: 10_000,
		run: (client) => client.list(),
	},
	{
		group: "files",
		name: "rename",
		unit: "files/s",
		includes: "in one directory",
		good: 2000,
		fair: 300,
		run: (client) => client.rename(),
	},
	{
		group: "files",
		name: "remove",
		unit: "files/s",
		includes: "in one directory",
		good: 2000,
		fair: 300,
		run: (client) => client.remove(),
	},
	{
		group: "small",
		name: "write",
		unit: "files/s",
		includes: "64 KiB each, one syncfs",
		good: 500,
		fair: 100,
		run: (client) => client.writeSmall(),
	},
	{
		group: "small",
		name: "read",
		unit: "files/s",
		includes: "64 KiB each, cold",
		good: 1000,
		fair: 200,
		cold: true,
		prepare: (client) => client.forgetSmall(),
		run: (client) => client.readSmall(),
	},
	{
		group: "big",
		name: "write",
		unit: "MiB/s",
		includes: "1 MiB at a time, one fsync",
		good: 200,
		fair: 60,
		run: (client) => client.writeBig(),
	},
	{
		group: "big",
		name: "read",
		unit: "MiB/s",
		includes: "1 MiB at a time, cold",
		good: 300,
		fair: 80,
		cold: true,
		prepare: (client) => client.forgetBig(),
		run: (client) => client.readBig(),
	},
	{
		group: "big",
		name: "read again",
		unit: "MiB/s",
		includes: "1 MiB at a time",
		good: 2000,
		fair: 500,
		run: (client) => client.readBig(),
	},
	{
		group: "big",
		name: "random read",
		unit: "/s",
		includes: "4 KiB each, cold",
		good: 1000,
		fair: 100,
		cold: true,
		prepare: (client) => client.forgetBig(),
		run: (client) => client.readRandom(),
	},
	{
		group: "big",
		name: "random write",
		unit: "/s",
		includes: "4 KiB each, one fsync",
		good: 2000,
		fair: 200,
		run: (client) => client.writeRandom(),
	},
	{
		group: "sync",
		name: "append",
		unit: "/s",
		includes: "4 KiB and fdatasync each",
		good: 300,
		fair: 30,
		run: (client) => client.append(),
	},
	{
		group: "tree",
		name: "make",
		unit: "files/s",
		includes: "1 to 30 KiB, directories of 25, one syncfs",
		good: 500,
		fair: 100,
		run: (client) => client.makeTree(),
	},
	{
		group: "tree",
		name: "read",
		unit: "files/s",
		includes: "every directory, every byte, cold",
		good: 1000,
		fair: 200,
		cold: true,
		prepare: (client) => client.forgetTree(),
		run: (client) => client.readTree(),
	},
	{
		group: "tree",
		name: "copy",
		unit: "files/s",
		includes: "as cp -r, one syncfs",
		good: 500,
		fair: 100,
		run: (client) => client.copyTree(),
	},
	{
		group: "tree",
		name: "remove",
		unit: "files/s",
		includes: "tree and copy, as rm -r",
		good: 1000,
		fair: 200,
		run: (client) => client.removeTree(),
	},
];

export const benchGroups: readonly string[] = [...new Set(benchRows.map(({ group }) => group))];

/** What the largest moment of a run takes on the disks of one client, redundancy aside. */
export function benchBytes({ files, mib }: BenchSizes): number {
	const small = Math.ceil(files / 4) * (smallBytes + 2 * 30 * kib);
	return small + mib * blockBytes + appends * pageBytes + files * pageBytes;
}

/** One client in a folder of its own, which exists and is empty. Bytes come from `bytes`, so that nothing can be compressed away. */
export class BenchClient {
	readonly #folder: string;
	readonly #sizes: BenchSizes;
	readonly #block: Uint8Array;
	readonly #into = new Uint8Array(blockBytes);

	constructor(folder: string, sizes: BenchSizes, block: Uint8Array) {
		this.#folder = folder;
		this.#sizes = sizes;
		this.#block = block;
		mkdirSync(this.#path("files"));
		mkdirSync(this.#path("small"));
	}

	create(): number {
		for (const path of this.#files()) closeSync(openSync(path, "wx"));
		return this.#sizes.files;
	}

	stat(): number {
		for (const path of this.#files()) statSync(path);
		return this.#sizes.files;
	}

	list(): number {
		return this.#expect(readdirSync(this.#path("files")).length, this.#sizes.files, "names listed");
	}

	rename(): number {
		for (const path of this.#files()) renameSync(path, `${path}x`);
		return this.#sizes.files;
	}

	remove(): number {
		for (const path of this.#files()) unlinkSync(`${path}x`);
		return this.#sizes.files;
	}

	writeSmall(): number {
		const paths = this.#small();
		for (const [at, path] of paths.entries()) {
			const start = (at * pageBytes) % (blockBytes - smallBytes);
			writeFileSync(path, this.#block.subarray(start, start + smallBytes));
		}
		this.#sync();
		return paths.length;
	}

	forgetSmall(): void {
		for (const path of this.#small()) forgetFile(path);
	}

	readSmall(): number {
		const paths = this.#small();
		for (const path of paths) this.#expect(readFileSync(path).length, smallBytes, "bytes read");
		return paths.length;
	}

	writeBig(): number {
		const fd = openSync(this.#path("big"), "w");
		for (let at = 0; at < this.#sizes.mib; at++) writeWhole(fd, this.#block);
		fsyncSync(fd);
		closeSync(fd);
		return this.#sizes.mib;
	}

	forgetBig(): void {
		forgetFile(this.#path("big"));
	}

	readBig(): number {
		const fd = openSync(this.#path("big"), "r");
		let bytes = 0;
		for (let got = -1; got !== 0; bytes += got) got = readSync(fd, this.#into);
		closeSync(fd);
		return this.#expect(bytes, this.#sizes.mib * blockBytes, "bytes read") / blockBytes;
	}

	readRandom(): number {
		const fd = openSync(this.#path("big"), "r");
		for (const offset of this.#offsets(randomReads)) this.#expect(readSync(fd, this.#into, 0, pageBytes, offset), pageBytes, "bytes read");
		closeSync(fd);
		return randomReads;
	}

	writeRandom(): number {
		const fd = openSync(this.#path("big"), "r+");
		for (const offset of this.#offsets(randomWrites))
			this.#expect(writeSync(fd, this.#block, offset % blockBytes, pageBytes, offset), pageBytes, "bytes written");
		fsyncSync(fd);
		closeSync(fd);
		return randomWrites;
	}

	append(): number {
		const fd = openSync(this.#path("log"), "a");
		for (let at = 0; at < appends; at++) {
			writeWhole(fd, this.#block.subarray(at * pageBytes, (at + 1) * pageBytes));
			fdatasyncSync(fd);
		}
		closeSync(fd);
		return appends;
	}

	makeTree(): number {
		const count = this.#smallCount;
		mkdirSync(this.#path("tree"));
		for (let at = 0; at < count; at++) {
			const folder = this.#path(`tree/${Math.floor(at / filesInFolder)}`);
			if (at % filesInFolder === 0) mkdirSync(folder);
			writeFileSync(`${folder}/${at}`, this.#block.subarray(0, treeFileBytes(at)));
		}
		this.#sync();
		return count;
	}

	forgetTree(): void {
		for (const path of walk(this.#path("tree"))) forgetFile(path);
	}

	readTree(): number {
		let bytes = 0;
		let count = 0;
		for (const path of walk(this.#path("tree"))) {
			bytes += readFileSync(path).length;
			count++;
		}
		let wanted = 0;
		for (let at = 0; at < this.#smallCount; at++) wanted += treeFileBytes(at);
		this.#expect(bytes, wanted, "bytes read");
		return count;
	}

	copyTree(): number {
		const [from, to] = [this.#path("tree"), this.#path("copy")];
		let count = 0;
		mkdirSync(to);
		for (const folder of readdirSync(from)) {
			mkdirSync(`${to}/${folder}`);
			for (const name of readdirSync(`${from}/${folder}`)) {
				copyFileSync(`${from}/${folder}/${name}`, `${to}/${folder}/${name}`);
				count++;
			}
		}
		this.#sync();
		return count;
	}

	removeTree(): number {
		rmSync(this.#path("tree"), { recursive: true });
		rmSync(this.#path("copy"), { recursive: true });
		return 2 * this.#smallCount;
	}

	get #smallCount(): number {
		return Math.ceil(this.#sizes.files / 4);
	}

	#path(name: string): string {
		return `${this.#folder}/${name}`;
	}

	#files(): string[] {
		return Array.from({ length: this.#sizes.files }, (_, at) => this.#path(`files/f${at}`));
	}

	#small(): string[] {
		return Array.from({ length: this.#smallCount }, (_, at) => this.#path(`small/s${at}`));
	}

	/** The same for everybody, so that two directories are asked for the same; pages of the big file. */
	#offsets(count: number): number[] {
		const pages = (this.#sizes.mib * blockBytes) / pageBytes;
		let state = 1;
		return Array.from({ length: count }, () => {
			state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
			return (state % pages) * pageBytes;
		});
	}

	#sync(): void {
		const fd = openSync(this.#folder, "r");
		syncFileSystem(fd, this.#folder);
		closeSync(fd);
	}

	#expect(found: number, wanted: number, what: string): number {
		if (found === wanted) return found;
		throw new FsError(
			"EIO",
			"cli.bench-wrong",
			`${this.#folder}: ${found} ${what} instead of ${wanted}: this file system does not give back what it was given`,
		);
	}
}

const treeFileBytes = (at: number): number => (1 + ((at * 7) % 30)) * kib;

function writeWhole(fd: number, bytes: Uint8Array): void {
	for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
}

function forgetFile(path: string): void {
	const fd = openSync(path, "r");
	// Only what was written out can be forgotten.
	fdatasyncSync(fd);
	forget(fd, 0, fstatSync(fd).size);
	closeSync(fd);
}

/** Every file below a folder. */
function* walk(folder: string): Generator<string> {
	for (const entry of readdirSync(folder, { withFileTypes: true })) {
		const path = `${folder}/${entry.name}`;
		if (entry.isDirectory()) yield* walk(path);
		else yield path;
	}
}
