/** A raw device of this machine: the work is done by its thread. */
import type { BufferPool } from "../../base/buffer-pool.ts";
import { FsError } from "../../base/errors.ts";
import type { Borrowed, DiskActivity } from "../interface.ts";
import { checkRange } from "../names.ts";
import type { RawDevice } from "../raw/interface.ts";
import { closeThread, lentBytes } from "./disk.ts";
import type { ReadAndSummed } from "./disk-protocol.ts";
import type { DiskThread } from "./disk-thread.ts";

/** The thread knows one thing only. */
const handle = 0;

export class RealRawDevice implements RawDevice {
	readonly path: string;
	readonly domain: string;
	readonly sizeBytes: number;
	readonly #thread: DiskThread;
	readonly #buffers: BufferPool;
	#closing: Promise<void> | undefined;

	constructor(path: string, found: { readonly domain: string; readonly sizeBytes: number }, thread: DiskThread, buffers: BufferPool) {
		this.path = path;
		this.domain = found.domain;
		this.sizeBytes = found.sizeBytes;
		this.#thread = thread;
		this.#buffers = buffers;
	}

	read(offset: number, lengthBytes: number): Promise<Uint8Array> {
		this.#check(offset, lengthBytes);
		return this.#open().call({ kind: "read", handle, offset, lengthBytes, into: undefined }, lengthBytes);
	}

	async borrow(offset: number, lengthBytes: number, sumBlockBytes?: number): Promise<Borrowed> {
		this.#check(offset, lengthBytes);
		const small = this.#open().borrow(handle, offset, lengthBytes);
		if (small !== undefined) return await small;
		const lent = this.#buffers.take(lengthBytes);
		if (lent === undefined) return { bytes: await this.read(offset, lengthBytes), release: () => {} };
		// A read that fails may still be under way in an abandoned thread: its buffer is never used again.
		const request = {
			kind: "read",
			handle,
			offset,
			lengthBytes,
			into: lent.bytes,
			...(this.#open().sumsReads && { sumBlockBytes }),
		} as const;
		return lentBytes(lent, await this.#open().call<number | ReadAndSummed>(request, lengthBytes));
	}

	write(offset: number, parts: readonly Uint8Array[]): Promise<void> {
		const lengthBytes = parts.reduce((sum, part) => sum + part.length, 0);
		this.#check(offset, lengthBytes);
		return this.#open().call({ kind: "write", handle, offset, parts }, lengthBytes);
	}

	sync(_site: string): Promise<void> {
		return this.#open().call({ kind: "sync", handle });
	}

	discard(offset: number, lengthBytes: number): Promise<void> {
		this.#check(offset, lengthBytes);
		return this.#open().call({ kind: "discard", handle, offset, lengthBytes });
	}

	uncache(offset: number, lengthBytes: number): Promise<void> {
		this.#check(offset, lengthBytes);
		return this.#open().call({ kind: "uncache", handle, offset, lengthBytes });
	}

	lock(): Promise<void> {
		return this.#open().call({ kind: "lock" });
	}

	probe(): Promise<void> {
		return this.#open().call({ kind: "probe" });
	}

	activity(): DiskActivity {
		return this.#thread.activity();
	}

	close(): Promise<void> {
		this.#closing ??= closeThread(this.#thread);
		return this.#closing;
	}

	#open(): DiskThread {
		if (this.#closing === undefined) return this.#thread;
		throw new FsError("EBADF", "platform.device-closed", `the device ${this.path} was closed`, { path: this.path });
	}

	#check(offset: number, lengthBytes: number): void {
		checkRange(this.path, offset, lengthBytes);
		if (offset + lengthBytes <= this.sizeBytes) return;
		throw new FsError(
			"EINVAL",
			"platform.device-range",
			`${this.path}: ${lengthBytes} bytes at ${offset} are behind its end (${this.sizeBytes})`,
		);
	}
}
