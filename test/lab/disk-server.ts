/**
 * The process that disks of guests lie in: `node disk-server.js FOLDER COUNT SIZE-BYTES ADDRESS PORT` serves COUNT disks with volatile caches by NBD, by the names 1 to COUNT; what is flushed goes to FOLDER/N.
 * A line {"cut": [1, 2], "seed": 7, "mode": "sectors"} on stdin is a power cut of these disks at this moment: nothing that comes later from those who are connected is taken, and what was not flushed is lost as
 * `mode` says. They can be connected to again. Each line is answered by one: {"results": [...]}. Ends with stdin.
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
	readonly sockets = new Set<Socket>();
	readonly #disk: VolatileDisk;

	constructor(path: string, sizeBytes: number) {
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
	}

	flush(): void {
		this.#disk.flush();
	}

	cut(mode: CutMode, seed: number): CutResult {
		for (const socket of this.sockets) socket.destroy();
		return this.#disk.powerCut(mode, randomOf(seed));
	}
}

/** Whoever names a disk is cut off with it. */
function serve(disks: ReadonlyMap<string, ServedDisk>, socket: Socket): void {
	let named: ServedDisk | undefined;
	const find = (name: string): ServedDisk | undefined => {
		named = disks.get(name);
		named?.sockets.add(socket);
		return named;
	};
	const connection = new NbdConnection(
		find,
		(bytes) => void socket.write(bytes),
		() => void socket.end(),
	);
	socket.setNoDelay(true);
	socket.on("data", (bytes) => {
		if (!socket.destroyed) connection.receive(bytes);
	});
	socket.on("error", () => {});
	socket.on("close", () => named?.sockets.delete(socket));
}

const [folder = "", count = "0", sizeBytes = "0", address = "", port = "0"] = process.argv.slice(2);
const disks = new Map(
	Array.from({ length: Number(count) }, (_, i) => [String(i + 1), new ServedDisk(join(folder, String(i + 1)), Number(sizeBytes))]),
);
const server = createServer((socket) => serve(disks, socket));
server.listen(Number(port), address, () => console.log(JSON.stringify({ results: [] })));
createInterface({ input: process.stdin })
	.on("line", (line) => {
		const { cut, seed, mode } = JSON.parse(line) as CutCommand;
		console.log(JSON.stringify({ results: cut.map((number) => disks.get(String(number))?.cut(mode, seed + number)) }));
	})
	.on("close", () => process.exit(0));
