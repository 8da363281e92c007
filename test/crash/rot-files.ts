/**
 * Files whose contents follow from numbers: `node rot-files.js write FOLDER SEED MIB` makes them, of all sizes, and syncs them; `read` compares them, piece by piece. Prints one line, Compared, after `read`.
 */
import { closeSync, fsyncSync, mkdirSync, openSync, readdirSync, readSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { contents, randomOf } from "./kill-model.ts";

export interface Compared {
	readonly files: number;
	readonly bytes: number;
	/** Those that gave EIO somewhere, by their path from the folder. */
	readonly unreadable: readonly string[];
	/** Pieces of 4 KiB that gave EIO, and those of the same files that did not. */
	readonly lostPieces: number;
	readonly savedPieces: number;
	/** What must never be: other bytes, other sizes, other errors. */
	readonly wrong: readonly string[];
}

const pieceBytes = 4096;
const filesPerFolder = 100;

interface Planned {
	readonly path: string;
	readonly number: number;
	readonly lengthBytes: number;
}

/** From inline contents to several segments, as many of each order of magnitude. */
function* plan(seed: number, mib: number): Generator<Planned> {
	const random = randomOf(seed);
	for (let number = 0, bytes = 0; bytes < mib << 20; number++) {
		const magnitude = 1024 << random(13);
		const lengthBytes = magnitude + random(magnitude);
		bytes += lengthBytes;
		yield { path: `d${Math.floor(number / filesPerFolder)}/f${number}`, number, lengthBytes };
	}
}

function writeAll(folder: string, seed: number, mib: number): void {
	for (const { path, number, lengthBytes } of plan(seed, mib)) {
		if (number % filesPerFolder === 0) mkdirSync(join(folder, path, ".."), { recursive: true });
		writeFileSync(join(folder, path), contents(seed, number, lengthBytes));
	}
	for (const { path } of plan(seed, mib)) {
		const file = openSync(join(folder, path), "r");
		fsyncSync(file);
		closeSync(file);
	}
}

function compareAll(folder: string, seed: number, mib: number): Compared {
	const unreadable: string[] = [];
	const wrong: string[] = [];
	const totals = { files: 0, bytes: 0, lostPieces: 0, savedPieces: 0 };
	for (const planned of plan(seed, mib)) {
		const { lost, saved } = compare(folder, seed, planned, wrong);
		totals.files++;
		totals.bytes += planned.lengthBytes;
		if (lost === 0) continue;
		unreadable.push(planned.path);
		totals.lostPieces += lost;
		totals.savedPieces += saved;
	}
	const there = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile()).length;
	if (there !== totals.files) wrong.push(`${there} files are there`);
	return { ...totals, unreadable, wrong };
}

function compare(folder: string, seed: number, { path, number, lengthBytes }: Planned, wrong: string[]): { lost: number; saved: number } {
	const expected = contents(seed, number, lengthBytes);
	const found = { lost: 0, saved: 0 };
	const whole = join(folder, path);
	const size = statSync(whole).size;
	if (size !== lengthBytes) wrong.push(`${path} has ${size} bytes`);
	const file = openSync(whole, "r");
	const piece = Buffer.alloc(pieceBytes);
	for (let at = 0; at < lengthBytes; at += pieceBytes) {
		try {
			const count = readSync(file, piece, 0, pieceBytes, at);
			if (!piece.subarray(0, count).equals(expected.subarray(at, at + pieceBytes))) wrong.push(`${path} at ${at}: other bytes`);
			found.saved++;
		} catch (error) {
			const { code } = error as NodeJS.ErrnoException;
			if (code !== "EIO") wrong.push(`${path} at ${at}: ${code}`);
			found.lost++;
		}
	}
	closeSync(file);
	return found;
}

const [verb = "", folder = "", seed = "1", mib = "0"] = process.argv.slice(2);
if (verb === "write") writeAll(folder, Number(seed), Number(mib));
else if (verb === "read") console.log(JSON.stringify(compareAll(folder, Number(seed), Number(mib))));
else throw new Error("usage: rot-files.js write|read FOLDER SEED MIB");
