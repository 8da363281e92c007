/** Requests as the kernel would send them, and a channel that keeps the replies: for the tests of the door. */
import { Deferred } from "../../../base/async.ts";
import { ByteWriter } from "../../../codec/binary.ts";
import type { FuseChannel } from "../../../platform/interface.ts";

export interface RequestOptions {
	readonly node?: number;
	readonly uid?: number;
	readonly gid?: number;
}

/** One request: `fuse_in_header` and the body. The request's number is `unique`. */
export function request(opcode: number, unique: number, body: Uint8Array, options: RequestOptions = {}): Uint8Array {
	const w = new ByteWriter();
	w.u32(40 + body.length)
		.u32(opcode)
		.u64(unique)
		.u64(options.node ?? 1);
	w.u32(options.uid ?? 0)
		.u32(options.gid ?? 0)
		.u32(77)
		.u32(0);
	return w.raw(body).finish();
}

export function body(fill: (w: ByteWriter) => void): Uint8Array {
	const w = new ByteWriter();
	fill(w);
	return w.finish();
}

export function name(w: ByteWriter, text: string): ByteWriter {
	for (let i = 0; i < text.length; i++) w.u8(text.charCodeAt(i));
	return w.u8(0);
}

export interface Reply {
	readonly unique: number;
	readonly errno: number;
	readonly body: Uint8Array;
	readonly view: DataView;
}

function decodeReply(bytes: Uint8Array): Reply {
	const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
	if (view.getUint32(0, true) !== bytes.length) throw new Error(`reply says ${view.getUint32(0, true)} bytes and has ${bytes.length}`);
	const inner = bytes.subarray(16);
	return {
		unique: Number(view.getBigUint64(8, true)),
		errno: 0 - view.getInt32(4, true),
		body: inner,
		view: new DataView(bytes.buffer, bytes.byteOffset + 16, inner.length),
	};
}

/** Requests go in by `send`; the ring's bytes are scribbled over when `onRequest` returns, as the real one may be. */
export class FakeChannel implements FuseChannel {
	readonly ended: Promise<void>;
	readonly replies: Reply[] = [];
	readonly notifications: Uint8Array[] = [];
	/** What `capable` answers, and `waitsForOpenFile`. */
	privileged = true;
	openFileLocks = false;
	paused = false;
	closed = false;
	readonly #end = new Deferred<void>();
	readonly #waiting = new Map<number, (reply: Reply) => void>();
	#take: ((request: Uint8Array) => void) | undefined;

	constructor() {
		this.ended = this.#end.promise;
	}

	start(onRequest: (request: Uint8Array) => void): void {
		this.#take = onRequest;
	}

	/** Delivers without waiting for an answer. */
	post(bytes: Uint8Array): void {
		const copy = bytes.slice();
		this.#take?.(copy);
		copy.fill(0xee);
	}

	send(bytes: Uint8Array): Promise<Reply> {
		const unique = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(8, true));
		return new Promise((resolve) => {
			this.#waiting.set(unique, resolve);
			this.post(bytes);
		});
	}

	reply(parts: readonly Uint8Array[]): void {
		const w = new ByteWriter();
		for (const part of parts) w.raw(part);
		const reply = decodeReply(w.finish());
		this.replies.push(reply);
		this.#waiting.get(reply.unique)?.(reply);
		this.#waiting.delete(reply.unique);
	}

	pause(): void {
		this.paused = true;
	}

	resume(): void {
		this.paused = false;
	}

	/** What notifications wait for. */
	notifyGate: Promise<void> = Promise.resolve();

	notify(message: Uint8Array): Promise<void> {
		this.notifications.push(message.slice());
		return this.notifyGate;
	}

	async capable(): Promise<boolean> {
		return this.privileged;
	}

	async waitsForOpenFile(): Promise<boolean> {
		return this.openFileLocks;
	}

	unmount(): void {
		this.#end.resolve();
	}

	async close(): Promise<void> {
		this.closed = true;
		this.#end.resolve();
	}
}
