/** A directory disk: names and ranges are checked here, the work is done by its thread. */
import type { BufferPool, Lent } from "../../base/buffer-pool.ts";
import { FsError } from "../../base/errors.ts";
import type { Borrowed, Disk, DiskActivity, DiskFile } from "../interface.ts";
import { checkDiskFolder, checkDiskName, checkRange } from "../names.ts";
import type { ReadAndSummed } from "./disk-protocol.ts";
import type { DiskThread } from "./disk-thread.ts";
import { realLimits } from "./limits.ts";

export class RealDisk implements Disk {
	readonly path: string;
	readonly domain: string;
	readonly #thread: DiskThread;
	readonly #buffers: BufferPool;
	#closing: Promise<void> | undefined;

	constructor(path: string, domain: string, thread: DiskThread, buffers: BufferPool) {
		this.path = path;
		this.domain = domain;
		this.#thread = thread;
		this.#buffers = buffers;
	}

	async lock(): Promise<void> {
		await this.#open().call({ kind: "lock" });
	}

	async open(name: string, options: { readonly create?: boolean } = {}): Promise<DiskFile> {
		checkDiskName(name);
		const handle = await this.#open().call<number>({ kind: "open", name, create: options.create ?? false });
		return new RealDiskFile(name, handle, this.#thread, this.#buffers);
	}

	async list(folder: string): Promise<string[]> {
		checkDiskFolder(folder);
		return await this.#open().call<string[]>({ kind: "list", folder });
	}

	async remove(name: string): Promise<void> {
		checkDiskName(name);
		await this.#open().call({ kind: "remove", name });
	}

	async syncNames(folder: string, _site: string): Promise<void> {
		checkDiskFolder(folder);
		await this.#open().call({ kind: "syncNames", folder });
	}

	async space(): Promise<{ readonly capacityBytes: number; readonly freeBytes: number }> {
		return await this.#open().call({ kind: "space" });
	}

	async setAside(name: string, sizeBytes: number, _site: string): Promise<number> {
		checkDiskName(name);
		checkRange(name, 0, sizeBytes);
		return await this.#open().call<number>({ kind: "setAside", name, sizeBytes });
	}

	async probe(): Promise<void> {
		await this.#open().call({ kind: "probe" });
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
		throw new FsError("EBADF", "platform.disk-closed", `the disk ${this.path} was closed`, { path: this.path });
	}
}

/** Waits for the calls before it, at most `diskCloseMs`: a disk that hangs is abandoned, and its lock goes when its thread ends. */
export async function closeThread(thread: DiskThread): Promise<void> {
	let timer: NodeJS.Timeout | undefined;
	const late = new Promise<void>((resolve) => {
		timer = setTimeout(() => {
			thread.abandon("it did not answer while it was being closed");
			resolve();
		}, realLimits.diskCloseMs);
	});
	try {
		await Promise.race([thread.call<void>({ kind: "close" }).catch(() => {}), late]);
	} finally {
		clearTimeout(timer);
	}
}

/** What a read into `lent` has brought. */
export function lentBytes({ bytes, release }: Lent, reply: number | ReadAndSummed): Borrowed {
	if (typeof reply === "number") return { bytes: bytes.subarray(0, reply), release };
	return { bytes: bytes.subarray(0, reply.count), sums: reply.sums, release };
}

class RealDiskFile implements DiskFile {
	readonly name: string;
	readonly #handle: number;
	readonly #thread: DiskThread;
	readonly #buffers: BufferPool;
	#closed = false;

	constructor(name: string, handle: number, thread: DiskThread, buffers: BufferPool) {
		this.name = name;
		this.#handle = handle;
		this.#thread = thread;
		this.#buffers = buffers;
	}

	async read(offset: number, lengthBytes: number): Promise<Uint8Array> {
		checkRange(this.name, offset, lengthBytes);
		return await this.#open().call({ kind: "read", handle: this.#handle, offset, lengthBytes, into: undefined }, lengthBytes);
	}

	async borrow(offset: number, lengthBytes: number, sumBlockBytes?: number): Promise<Borrowed> {
		checkRange(this.name, offset, lengthBytes);
		const small = this.#open().borrow(this.#handle, offset, lengthBytes);
		if (small !== undefined) return await small;
		const lent = this.#buffers.take(lengthBytes);
		if (lent === undefined) return { bytes: await this.read(offset, lengthBytes), release: () => {} };
		// A read that fails may still be under way in an abandoned thread: its buffer is never used again.
		const request = {
			kind: "read",
			handle: this.#handle,
			offset,
			lengthBytes,
			into: lent.bytes,
			...(this.#open().sumsReads && { sumBlockBytes }),
		} as const;
		return lentBytes(lent, await this.#open().call<number | ReadAndSummed>(request, lengthBytes));
	}

	async write(offset: number, parts: readonly Uint8Array[]): Promise<void> {
		let lengthBytes = 0;
		for (const part of parts) lengthBytes += part.length;
		checkRange(this.name, offset, lengthBytes);
		await this.#open().call({ kind: "write", handle: this.#handle, offset, parts }, lengthBytes);
	}

	async sync(_site: string): Promise<void> {
		await this.#open().call({ kind: "sync", handle: this.#handle });
	}

	async discard(offset: number, lengthBytes: number): Promise<void> {
		checkRange(this.name, offset, lengthBytes);
		await this.#open().call({ kind: "discard", handle: this.#handle, offset, lengthBytes });
	}

	async uncache(offset: number, lengthBytes: number): Promise<void> {
		checkRange(this.name, offset, lengthBytes);
		await this.#open().call({ kind: "uncache", handle: this.#handle, offset, lengthBytes });
	}

	async size(): Promise<number> {
		return await this.#open().call({ kind: "size", handle: this.#handle });
	}

	async held(): Promise<number> {
		return await this.#open().call({ kind: "held", handle: this.#handle });
	}

	async truncate(sizeBytes: number): Promise<void> {
		checkRange(this.name, sizeBytes, 0);
		await this.#open().call({ kind: "truncate", handle: this.#handle, sizeBytes });
	}

	async close(): Promise<void> {
		if (this.#closed) return;
		this.#closed = true;
		await this.#thread.call({ kind: "closeFile", handle: this.#handle });
	}

	#open(): DiskThread {
		if (!this.#closed) return this.#thread;
		throw new FsError("EBADF", "platform.disk-file-closed", `${this.name} was closed`, { name: this.name });
	}
}
