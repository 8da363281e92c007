/**
 * The process that disks of guests lie in: `node disk-server.js FOLDER COUNT SIZE-BYTES ADDRESS PORT` serves COUNT disks with volatile caches by NBD, by the names 1 to COUNT; what is flushed goes to FOLDER/N.
 * A line {"cut": [1, 2], "seed": 7, "mode": "sectors", "cachedBytes": 4096, "patienceMs": 3000} on stdin is a power cut of these disks as soon as so much is not flushed on them, or the time is over: nothing that comes later
 * from those who are connected is taken, and what was not flushed is lost as `mode` says. They can be connected to again. Each line is answered by one: {"results": [...]}. Ends with stdin.
 */
import { constants, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { randomOf } from "../crash/kill-model.ts";
import { type Exported, NbdConnection } from "./nbd.ts";
import { type CutMode, type CutResult, VolatileDisk } from "./volatile-disk.ts";

export interface CutCommand {
	readonly cut: readonly number[];
	readonly seed: number;
	readonly mode: CutMode;
	readonly cachedBytes: number;
	readonly patienceMs: number;
}

function wholly(bytes: Uint8Array, some: (at: number, leftBytes: number) => number): void {
	for (let at = 0; at < bytes.length; ) {
		const count = some(at, bytes.length - at);
		if (count === 0) throw new Error("a disk's file is too short");
		at += count;
	}
}

class ServedDisk implements Exported {
	readonly sizeBytes: number;
	/** Each ends one connection at once. */
	readonly users = new Set<() => void>();
	readonly #disk: VolatileDisk;

	readonly #onWrite: () => void;

	constructor(path: string, sizeBytes: number, onWrite: () => void) {
		this.#onWrite = onWrite;
		this.sizeBytes = sizeBytes;
		const file = openSync(path, constants.O_RDWR | constants.O_CREAT);
		ftruncateSync(file, sizeBytes);
		this.#disk = new VolatileDisk({
			read: (offset, into) => wholly(into, (at, left) => readSync(file, into, at, left, offset + at)),
			write: (offset, bytes) => wholly(bytes, (at, left) => writeSync(file, bytes, at, left, offset + at)),
		});
	}

	read(offset: number, lengthBytes: number): Buffer {
		return this.#disk.read(offset, lengthBytes);
	}

	write(offset: number, bytes: Buffer, forced: boolean): void {
		this.#disk.write(offset, bytes, forced);
		this.#onWrite();
	}

	get cachedBytes(): number {
		return this.#disk.cachedBytes;
	}

	flush(): void {
		this.#disk.flush();
	}

	cut(mode: CutMode, seed: number): CutResult {
		for (const stop of this.users) stop();
		return this.#disk.powerCut(mode, randomOf(seed));
	}
}

/** Whoever names a disk is cut off with it. */
function serve(disks: ReadonlyMap<string, ServedDisk>, socket: Socket): void {
	let named: ServedDisk | undefined;
	const stop = (): void => {
		connection.stop();
		socket.destroy();
	};
	const find = (name: string): ServedDisk | undefined => {
		named = disks.get(name);
		named?.users.add(stop);
		return named;
	};
	const connection = new NbdConnection(
		find,
		(bytes) => void socket.write(bytes),
		() => void socket.end(),
	);
	socket.setNoDelay(true);
	socket.on("data", (bytes) => connection.receive(bytes));
	socket.on("error", () => {});
	socket.on("close", () => named?.users.delete(stop));
}

/** The power cut that was asked for and has not come yet. */
let awaited: { readonly command: CutCommand; readonly timer: NodeJS.Timeout } | undefined;

function chosen({ cut }: CutCommand): ServedDisk[] {
	return cut.map((number) => disks.get(String(number)) as ServedDisk);
}

function cutIfDue(): void {
	if (awaited === undefined) return;
	const cached = chosen(awaited.command).reduce((sum, disk) => sum + disk.cachedBytes, 0);
	if (cached >= awaited.command.cachedBytes) cutNow();
}

function cutNow(): void {
	if (awaited === undefined) return;
	const { command, timer } = awaited;
	awaited = undefined;
	clearTimeout(timer);
	console.log(JSON.stringify({ results: chosen(command).map((disk, i) => disk.cut(command.mode, command.seed + i)) }));
}

const [folder = "", count = "0", sizeBytes = "0", address = "", port = "0"] = process.argv.slice(2);
const disks = new Map(
	Array.from({ length: Number(count) }, (_, i) => [
		String(i + 1),
		new ServedDisk(join(folder, String(i + 1)), Number(sizeBytes), cutIfDue),
	]),
);
const server = createServer((socket) => serve(disks, socket));
server.listen(Number(port), address, () => console.log(JSON.stringify({ results: [] })));
createInterface({ input: process.stdin })
	.on("line", (line) => {
		const command = JSON.parse(line) as CutCommand;
		awaited = { command, timer: setTimeout(cutNow, command.patienceMs) };
		cutIfDue();
	})
	.on("close", () => process.exit(0));
