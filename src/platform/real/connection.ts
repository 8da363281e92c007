/** A stream socket as a `Connection`. */
import type net from "node:net";
import { FsError } from "../../base/errors.ts";
import type { Connection, Peer, TcpConnection } from "../interface.ts";
import type { Awake } from "./awake.ts";

export class RealConnection implements Connection {
	readonly #socket: net.Socket;

	constructor(socket: net.Socket) {
		this.#socket = socket;
		// Errors end the connection; `onClose` and the callbacks of writes report them.
		socket.on("error", () => {});
	}

	onData(fn: (bytes: Uint8Array) => void): void {
		this.#socket.on("data", (chunk: Buffer) => fn(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength)));
	}

	onClose(fn: () => void): void {
		if (this.#socket.closed) queueMicrotask(fn);
		else this.#socket.once("close", () => fn());
	}

	write(bytes: Uint8Array): Promise<void> {
		return new Promise((resolve, reject) => {
			if (this.#socket.destroyed || this.#socket.writableEnded) reject(closed());
			else this.#socket.write(bytes, (error) => (error ? reject(closed(error)) : resolve()));
		});
	}

	close(): void {
		this.#socket.end(() => this.#socket.destroy());
	}
}

const nothing = new Uint8Array(0);

const closed = (cause?: unknown): FsError => new FsError("ENOTCONN", "platform.socket-write", "the connection is closed", {}, cause);

/** IPv4 that came in on a socket of both kinds is told as IPv4. */
export const plainAddress = (address: string): string => (/^::ffff:\d+\./i.test(address) ? address.slice(7) : address);

export class RealTcpConnection extends RealConnection implements TcpConnection {
	readonly remote: Peer;
	readonly local: string;
	readonly #socket: net.Socket;
	readonly #awake: Awake | undefined;
	#isGathering = false;

	/** `awake`: of a server, which its clients ask again soon after a reply. */
	constructor(socket: net.Socket, awake?: Awake) {
		super(socket);
		this.#socket = socket;
		this.#awake = awake;
		this.remote = { address: plainAddress(socket.remoteAddress ?? ""), port: socket.remotePort ?? 0 };
		this.local = plainAddress(socket.localAddress ?? "");
	}

	override onData(fn: (bytes: Uint8Array) => void): void {
		super.onData((bytes) => {
			this.#awake?.came();
			fn(bytes);
		});
	}

	writeParts(parts: readonly Uint8Array[]): Promise<void> {
		const socket = this.#socket;
		return new Promise((resolve, reject) => {
			if (socket.destroyed || socket.writableEnded) {
				reject(closed());
				return;
			}
			this.#gather();
			const last = parts.length - 1;
			// Bytes are taken in order: with the last of them all are.
			for (let i = 0; i < last; i++) socket.write(parts[i] as Uint8Array);
			socket.write(parts[last] ?? nothing, (error) => (error ? reject(closed(error)) : resolve()));
		});
	}

	/** What is written before all promises of this turn have had their say goes to the kernel in one call: that costs more than the rest of a small reply, and wakes the other side. */
	#gather(): void {
		if (this.#isGathering) return;
		this.#isGathering = true;
		this.#socket.cork();
		process.nextTick(() => {
			this.#isGathering = false;
			this.#socket.uncork();
			this.#awake?.went();
		});
	}

	pause(): void {
		this.#socket.pause();
	}

	resume(): void {
		this.#socket.resume();
	}

	destroy(): void {
		this.#socket.destroy();
	}
}
