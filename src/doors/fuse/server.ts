/**
 * The FUSE door: one kernel connection served from one volume.
 *
 * Invariants
 *  F1 Every request that wants a reply gets exactly one; FORGET, BATCH_FORGET, INTERRUPT and NOTIFY_REPLY get none.
 *  F2 A handler reads its request only before its first await: the bytes belong to the channel afterwards. Decoders copy names; WRITE and
 *     SETXATTR hand a view to the volume, which copies before its own first await (SETXATTR copies here).
 *  F3 Each volume handle opened here is in `#handles` until its close was called; when the connection is over, all are closed.
 *  F4 An opcode that is implemented never answers ENOSYS: the kernel would remember it and, for FSYNC and FLUSH, report success ever after.
 *  F5 A directory's sync waits for the newest position that any reply of this door has reported.
 *  F6 Requests in flight and their bytes are bounded by pausing the channel; what is not read yet waits in the kernel.
 *  F7 Who waits for a lock is not in flight: others must come through to let go of it, and a successor is sent the request again. Their number is bounded by itself.
 */
import { AssertionError, assert } from "../../base/assert.ts";
import { Deferred, Signal } from "../../base/async.ts";
import { BufferPool } from "../../base/buffer-pool.ts";
import { FsError, isFsError, toFsError } from "../../base/errors.ts";
import type { RequestObserver } from "../../base/profile.ts";
import type { Logger } from "../../base/telemetry.ts";
import type { FuseChannel, Platform, RequestIdentity, RequestScope } from "../../platform/interface.ts";
import type { Changed, HandleId, Ino, RequestMarks, ResumedSession, Volume } from "../../volume/interface.ts";
import { BoundedMap } from "./bounded-map.ts";
import { dropHandle, keepHandle } from "./door.ts";
import type { Door, Negotiated, OpenFile } from "./door.ts";
import { FaultLog } from "./faults.ts";
import { answerAgain, createHandlers } from "./handlers.ts";
import { KnownNodes } from "./known-nodes.ts";
import { requestNameOf } from "./locks.ts";
import type { Handler } from "./handlers.ts";
import type { NativeReads } from "./native-reads.ts";
import {
	detachMs,
	maxBytesInFlight,
	maxConcurrentRequests,
	maxHandles,
	maxRecentWrites,
	maxRemovedNodes,
	maxWaitingLocks,
	defaultTimeoutMs,
	keptReadBytes,
	pooledReadBytes,
	writeOutMs,
} from "./limits.ts";
import {
	ReplyWriter,
	RequestReader,
	decodeBatchForget,
	decodeForget,
	decodeHeader,
	decodeInterrupt,
	encodeForgetAttributes,
	encodeForgetContents,
	encodeForgetEntry,
	errnoOf,
	inHeaderBytes,
	opcodes,
	outHeaderBytes,
} from "./protocol.ts";
import type { Forgotten, RequestHeader } from "./protocol.ts";
import { isResent, keyOfHeader, RequestSession } from "./session.ts";

export interface FuseServerOptions {
	/** Changes are refused with EROFS, whatever the mount flags say. */
	readonly readOnly?: boolean;
	/** How long the kernel may believe a name, an absent name, attributes; whole milliseconds. Default: one hour (`limits.ts` says why). */
	readonly entryTimeoutMs?: number;
	readonly negativeTimeoutMs?: number;
	readonly attributeTimeoutMs?: number;
	/** The kernel may keep contents and directory listings between opens (default). Only while every change passes through this mount. */
	readonly keepCache?: boolean;
	/** Tells this mount apart from others of the same volume. */
	readonly clientInstance?: string;
	/** Something is wrong with the program, not with a request: the daemon decides whether to go on. The request got EIO. */
	readonly onFatal?: (error: unknown) => void;
	/** Locks of files are the volume's (default), or the kernel's own, for this mount alone. */
	readonly locks?: "volume" | "kernel";
	/** The kernel is taken for one that speaks no more than FUSE 7.N. */
	readonly kernelMinor?: number;
	/** Requests that the volume can answer at once are answered before anything else happens (default); otherwise each waits for a promise. */
	readonly answerNow?: boolean;
	/** The connection may be taken over by another process. */
	readonly session?: FuseSession;
	/** The kernel reads hot files by itself. The caller ends it, when the server has ended. */
	readonly nativeReads?: NativeReads | undefined;
}

export interface FuseSession {
	/** The connection was begun by a process that is gone. */
	readonly resumed?: {
		/** What it settled with the kernel; undefined when it did not get that far. */
		readonly negotiated: Negotiated | undefined;
		readonly left: ResumedSession;
	};
	/** Where requests are marked for a successor. */
	readonly marks?: RequestMarks | undefined;
	/** To be kept for a successor before it resolves. */
	onNegotiated(negotiated: Negotiated): Promise<void>;
}

export interface FuseServerModules {
	readonly volume: Volume;
	readonly channel: FuseChannel;
	readonly platform: Pick<Platform, "clock" | "requests">;
	readonly logger: Logger;
}

export interface FuseCounters {
	/** By opcode. */
	readonly requests: ReadonlyMap<number, number>;
	readonly errors: number;
	readonly interrupts: number;
	readonly bytesRead: number;
	readonly bytesWritten: number;
	readonly inFlight: number;
	readonly openHandles: number;
	readonly pauses: number;
}

/** What somebody else has changed in the volume. */
export interface ForeignChange {
	/** Attributes are other ones; with `contentsFrom` the bytes too, from that offset on; of a directory: its entries. */
	readonly nodes: readonly { readonly ino: Ino; readonly contentsFrom?: number }[];
	readonly names: readonly { readonly parent: Ino; readonly name: string }[];
}

export interface FuseServer {
	/** The connection is over (unmounted or aborted), every handler has finished and every handle is closed. */
	readonly ended: Promise<void>;
	/** Whether the kernel has let go of it: no mount is left in any namespace. Mounts that belong to a user are not told; their connection just ends. */
	readonly destroyed: boolean;
	/**
	 * Waits for what is in flight, closes handles that are left, and closes the channel. It does not unmount: do that first, so that nothing
	 * is cut off.
	 */
	stop(): Promise<void>;
	/**
	 * Hands the connection over: takes no more requests, answers what is in flight, and closes the channel here; handles stay open. What was not answered, the kernel sends to the successor.
	 * @throws FsError ETIMEDOUT when requests are not done in time: then it goes on serving.
	 */
	detach(): Promise<void>;
	/** Resolves when the kernel believes nothing of before any more. False: that is not known after some seconds (`writeOutMs`); it goes on by itself. */
	changedElsewhere(change: ForeignChange): Promise<boolean>;
	counters(): FuseCounters;
	/** Tells of every request from now on, but for those that wait for a lock or want no reply; undefined: nobody watches. */
	observe(observer: RequestObserver | undefined): void;
}

/** `fuse_in_header` and `fuse_write_in` (linux/fuse.h). */
const writeHeaderBytes = inHeaderBytes + 40;

/** Opcodes without a reply. */
/** Whose replies name a node to the kernel. */
const naming: ReadonlySet<number> = new Set([
	opcodes.LOOKUP,
	opcodes.CREATE,
	opcodes.MKDIR,
	opcodes.MKNOD,
	opcodes.SYMLINK,
	opcodes.LINK,
	opcodes.TMPFILE,
	opcodes.READDIRPLUS,
]);
const silent: ReadonlySet<number> = new Set([opcodes.FORGET, opcodes.BATCH_FORGET, opcodes.INTERRUPT, opcodes.NOTIFY_REPLY]);

export function serveFuse(options: FuseServerOptions, modules: FuseServerModules): FuseServer {
	return new Server(options, modules);
}

class Server implements FuseServer {
	readonly ended: Promise<void>;
	readonly #options: FuseServerOptions;
	readonly #volume: Volume;
	readonly #channel: FuseChannel;
	readonly #door: Door;
	readonly #faults: FaultLog;
	readonly #handlers: ReadonlyMap<number, Handler>;
	readonly #handles = new Map<HandleId, OpenFile>();
	/** For replies without bytes of the volume's; a reply is on its way to the kernel before the next one is begun. */
	readonly #scratch = new ReplyWriter(512);
	readonly #requests = new Map<number, number>();
	readonly #idle = new Signal();
	readonly #session: RequestSession | undefined;
	readonly #scope: RequestScope | undefined;
	#observer: RequestObserver | undefined;
	#errors = 0;
	#interrupts = 0;
	#pauses = 0;
	#inFlight = 0;
	/** Requests at work whose replies will name nodes. */
	#namings = 0;
	#bytesInFlight = 0;
	#paused = false;
	#channelEnded = false;
	#detaching = false;
	#detached = false;
	#stopping: Promise<void> | undefined;
	readonly #over = new Deferred<void>();

	constructor(options: FuseServerOptions, modules: FuseServerModules) {
		this.#options = options;
		this.#volume = modules.volume;
		this.#channel = modules.channel;
		this.#scope = modules.platform.requests;
		this.#faults = new FaultLog(modules.logger);
		this.#door = this.#createDoor(options, modules);
		this.#handlers = createHandlers(this.#door);
		const { session } = options;
		this.#session =
			session === undefined ? undefined : new RequestSession(session.resumed?.left, session.marks, (handle) => this.#closeLeft(handle));
		for (const { handle, ino, read, write } of session?.resumed?.left.handles ?? [])
			keepHandle(this.#door, handle, { ino, mappable: read && write, native: options.nativeReads?.isNative(ino) === true });
		if (this.#door.negotiated !== undefined) options.nativeReads?.negotiated(this.#door.negotiated.passthrough);
		this.ended = this.#over.promise;
		void modules.channel.ended.then(() => this.#finish());
		modules.channel.start((request) => this.#receive(request));
	}

	#createDoor(options: FuseServerOptions, modules: FuseServerModules): Door {
		const attributeMs = options.attributeTimeoutMs ?? defaultTimeoutMs;
		const entryMs = options.entryTimeoutMs ?? defaultTimeoutMs;
		const negativeMs = options.negativeTimeoutMs ?? defaultTimeoutMs;
		for (const ms of [attributeMs, entryMs, negativeMs]) assert(Number.isSafeInteger(ms) && ms >= 0, `time-out of the FUSE door: ${ms}`);
		return {
			volume: modules.volume,
			now: options.answerNow === false ? undefined : modules.volume.now,
			clock: modules.platform.clock,
			readOnly: options.readOnly === true,
			keepCache: options.keepCache !== false,
			clientInstance: options.clientInstance ?? "fuse",
			entryMs,
			attributeMs,
			negativeMs,
			handles: this.#handles,
			maxHandles,
			serveLocks: options.locks !== "kernel",
			kernelMinor: options.kernelMinor,
			lockWaits: new Map(),
			readBuffers: new BufferPool({ fromBytes: pooledReadBytes, keptBytes: keptReadBytes, shared: false }),
			known: new KnownNodes(options.session?.resumed === undefined),
			mappable: new Map(),
			writeOut: (ino, offset) => this.#writeOut(ino, offset),
			removed: new BoundedMap(maxRemovedNodes),
			recentWrites: new BoundedMap(maxRecentWrites),
			position: 0,
			bytesRead: 0,
			bytesWritten: 0,
			negotiated: options.session?.resumed?.negotiated,
			nativeReads: options.nativeReads,
			onNegotiated: async (negotiated) => {
				options.nativeReads?.negotiated(negotiated.passthrough);
				await options.session?.onNegotiated(negotiated);
			},
			resumedMs: options.session?.resumed === undefined ? undefined : modules.platform.clock.monotonicMs(),
			out: this.#scratch,
			destroyed: false,
			unsynced: (error) => this.#faults.unsynced(error),
			changed: (change) => this.#changed(change),
			forgetAttributes: (ino) => modules.channel.notify(encodeForgetAttributes(ino)),
			waitsForOpenFile: (pid) => modules.channel.waitsForOpenFile(pid),
			capable: (pid, capability) => modules.channel.capable(pid, capability),
			reply: (header, view, body) => this.#reply(header, view, body),
		};
	}

	get destroyed(): boolean {
		return this.#door.destroyed;
	}

	counters(): FuseCounters {
		return {
			requests: this.#requests,
			errors: this.#errors,
			interrupts: this.#interrupts,
			bytesRead: this.#door.bytesRead,
			bytesWritten: this.#door.bytesWritten,
			inFlight: this.#inFlight,
			openHandles: this.#handles.size,
			pauses: this.#pauses,
		};
	}

	observe(observer: RequestObserver | undefined): void {
		this.#observer = observer;
	}

	#changed({ position }: Changed): void {
		if (position > this.#door.position) this.#door.position = position;
	}

	#reply(header: RequestHeader, view: Uint8Array, body: Uint8Array | undefined): void {
		this.#session?.replying(header);
		this.#channel.reply(body === undefined || body.length === 0 ? [view] : [view, body]);
	}

	// ── one request ────────────────────────────────────────────────────────────────────────────────────────────

	/** Called by the channel; everything that needs the bytes happens before it returns. */
	#receive(request: Uint8Array): void {
		let header: RequestHeader;
		try {
			header = decodeHeader(request);
		} catch (error) {
			this.#fatal(error);
			return;
		}
		this.#requests.set(header.opcode, (this.#requests.get(header.opcode) ?? 0) + 1);
		const end = Math.min(header.lengthBytes, request.length);
		if (silent.has(header.opcode)) {
			this.#receiveSilent(header, request, end);
			return;
		}
		// Room for what the request brings (WRITE) or asks for (READ and directory reads: `size` at 16 of the body).
		const asks = header.opcode === opcodes.READ && request.length >= inHeaderBytes + 20 ? readSize(request) : 0;
		const weight = request.length + Math.min(asks, maxBytesInFlight);
		const waits = header.opcode === opcodes.SETLKW;
		if (!waits) this.#begin(weight);
		if (!waits && this.#observer !== undefined) this.#tell(this.#observer, header, request, asks);
		if (this.#scope === undefined) this.#runEither(header, request, end, weight, waits);
		else this.#scope.run(identityOf(header), () => this.#runEither(header, request, end, weight, waits));
	}

	#runEither(header: RequestHeader, request: Uint8Array, end: number, weight: number, waits: boolean): void {
		if (waits) this.#runWaiting(header, request, end);
		else this.#run(header, request, end, weight);
	}

	#tell(observer: RequestObserver, header: RequestHeader, request: Uint8Array, asks: number): void {
		const { opcode, nodeid, pid } = header;
		const brings = opcode === opcodes.WRITE ? Math.max(0, request.length - writeHeaderBytes) : Math.max(0, asks - outHeaderBytes);
		observer.began(keyOfHeader(header), operationNames.get(opcode) ?? `opcode ${opcode}`, nodeid, pid, brings);
	}

	#arrived(header: RequestHeader): void {
		this.#session?.begin(header);
		// S3 of session.ts.
		if (!isResent(header)) this.#volume.locks.endPast();
	}

	#run(header: RequestHeader, request: Uint8Array, end: number, weight: number): void {
		let running: Promise<void> | undefined;
		try {
			this.#arrived(header);
			running = this.#dispatch(header, request, end);
		} catch (error) {
			this.#fail(header, error);
		}
		if (running === undefined) this.#end(header, weight);
		else
			void this.#noting(header, running).then(
				() => this.#end(header, weight),
				(error: unknown) => {
					this.#fail(header, error);
					this.#end(header, weight);
				},
			);
	}

	/** While it is at work it may have looked at a node already that the kernel is told only by its reply. */
	#noting(header: RequestHeader, running: Promise<void>): Promise<void> {
		if (!naming.has(header.opcode)) return running;
		this.#namings++;
		return running.finally(() => {
			this.#namings--;
		});
	}

	/** F7. */
	#runWaiting(header: RequestHeader, request: Uint8Array, end: number): void {
		const { lockWaits } = this.#door;
		const key = keyOfHeader(header);
		const late = (error: unknown): void => {
			lockWaits.delete(key);
			this.#fail(header, error);
		};
		try {
			this.#arrived(header);
			if (lockWaits.size >= maxWaitingLocks)
				throw new FsError("ENOLCK", "fuse.lock-waits", `${maxWaitingLocks} programs wait for locks of this mount already`);
			lockWaits.set(key, header);
			void this.#dispatch(header, request, end)?.then(() => lockWaits.delete(key), late);
		} catch (error) {
			late(error);
		}
	}

	/** A promise while a handler is at work, nothing when the reply is out already. */
	#dispatch(header: RequestHeader, request: Uint8Array, end: number): Promise<void> | undefined {
		const handler = this.#handlers.get(header.opcode);
		if (handler === undefined) {
			this.#reply(header, this.#scratch.reset().finish(header, errnoOf.ENOSYS), undefined);
			return undefined;
		}
		const reader = new RequestReader(request, inHeaderBytes, end, header.opcode);
		const past = this.#session?.past(header);
		return past === undefined ? handler(header, reader) : answerAgain(this.#door, header, reader, past);
	}

	#receiveSilent(header: RequestHeader, request: Uint8Array, end: number): void {
		try {
			if (header.opcode === opcodes.INTERRUPT) this.#interrupt(new RequestReader(request, inHeaderBytes, end, "INTERRUPT"));
			else if (header.opcode === opcodes.FORGET)
				this.#forgotten({ node: header.nodeid, times: decodeForget(new RequestReader(request, inHeaderBytes, end, "FORGET")) });
			else if (header.opcode === opcodes.BATCH_FORGET) {
				const forgotten = decodeBatchForget(new RequestReader(request, inHeaderBytes, end, "BATCH_FORGET"));
				for (const one of forgotten) this.#forgotten(one);
			}
		} catch (error) {
			this.#fatal(error);
		}
	}

	#forgotten({ node, times }: Forgotten): void {
		this.#door.removed.delete(node);
		this.#door.known.forgotten(node, times);
	}

	/** What waits for a lock, or for a lease of somebody elsewhere, gives up; everything else ends by itself. The kernel sends it once, after the request. */
	#interrupt(r: RequestReader): void {
		this.#interrupts++;
		const of = decodeInterrupt(r);
		const waiting = this.#door.lockWaits.get(keyOfHeader(of));
		if (waiting === undefined) {
			this.#volume.locks.giveUp(requestNameOf(of));
			return;
		}
		waiting.interrupted = true;
		this.#volume.locks.cancel(requestNameOf(waiting));
	}

	#begin(weight: number): void {
		this.#inFlight++;
		this.#bytesInFlight += weight;
		if (!this.#paused && (this.#inFlight >= maxConcurrentRequests || this.#bytesInFlight >= maxBytesInFlight)) {
			this.#paused = true;
			this.#pauses++;
			this.#channel.pause();
		}
	}

	#end(header: RequestHeader, weight: number): void {
		this.#session?.end(header);
		if (this.#observer !== undefined) this.#observer.ended(keyOfHeader(header));
		this.#inFlight--;
		this.#bytesInFlight -= weight;
		assert(this.#inFlight >= 0 && this.#bytesInFlight >= 0, "more FUSE requests ended than began");
		// Half-way down, so that a full door does not pause and resume at every request.
		if (this.#paused && !this.#detaching && this.#inFlight <= maxConcurrentRequests / 2 && this.#bytesInFlight <= maxBytesInFlight / 2) {
			this.#paused = false;
			this.#channel.resume();
		}
		if (this.#inFlight === 0) this.#idle.notifyAll();
	}

	async changedElsewhere({ nodes, names }: ForeignChange): Promise<boolean> {
		if (this.#channelEnded || this.#detaching) return true;
		const now = this.#door.clock.monotonicMs();
		for (const { ino, contentsFrom } of nodes) if (contentsFrom !== undefined) this.#door.recentWrites.set(ino, now);
		const mayKnow = (ino: Ino): boolean => this.#namings > 0 || this.#door.known.mayKnow(ino);
		const messages = [
			...names.filter(({ parent }) => mayKnow(parent)).map(({ parent, name }) => encodeForgetEntry(parent, name)),
			...nodes
				.filter(({ ino }) => mayKnow(ino))
				.map(({ ino, contentsFrom }) =>
					contentsFrom === undefined ? encodeForgetAttributes(ino) : encodeForgetContents(ino, contentsFrom),
				),
		];
		if (messages.length === 0) return true;
		return this.#withinTime(Promise.all(messages.map((message) => this.#notifyFully(message))));
	}

	/** A full queue is waited for: what the kernel keeps believing would be wrong for an hour. */
	async #notifyFully(message: Uint8Array): Promise<void> {
		for (;;) {
			try {
				return await this.#channel.notify(message);
			} catch (error) {
				if (this.#channelEnded || this.#detaching || isFsError(error, "ENOTCONN")) return;
				if (!isFsError(error, "EAGAIN")) throw error;
				await this.#door.clock.sleep(1);
			}
		}
	}

	/**
	 * The notification waits, in the kernel, for the WRITEs that it causes. Those are answered here like any others, but not while the door is full: hence the time limit.
	 */
	#writeOut(ino: number, offset: number): Promise<boolean> {
		return this.#withinTime(this.#channel.notify(encodeForgetContents(ino, offset)));
	}

	async #withinTime(work: Promise<unknown>): Promise<boolean> {
		let cancel = (): void => {};
		const late = new Promise<boolean>((resolve) => {
			cancel = this.#door.clock.after(writeOutMs, () => resolve(false));
		});
		try {
			return await Promise.race([work.then(() => true), late]);
		} catch {
			// The queue of notifications is full, or their thread is gone: not known, as after the time limit.
			return false;
		} finally {
			cancel();
		}
	}

	// ── errors ─────────────────────────────────────────────────────────────────────────────────────────────────

	#fail(header: RequestHeader, error: unknown): void {
		try {
			const errno = this.#faults.errno(error, header.opcode, header.nodeid);
			if (errno !== errnoOf.ENODATA && errno !== errnoOf.ENOENT) this.#errors++;
			this.#reply(header, this.#scratch.reset().finish(header, errno), undefined);
			if (!isFsError(error)) this.#fatal(error);
		} catch (second) {
			this.#fatal(second);
		}
	}

	#fatal(error: unknown): void {
		this.#faults.fatal(error);
		if (error instanceof AssertionError || !isFsError(error)) this.#options.onFatal?.(error);
	}

	// ── the end ────────────────────────────────────────────────────────────────────────────────────────────────

	async #drain(): Promise<void> {
		while (this.#inFlight > 0) await this.#idle.wait();
	}

	/** The kernel sends no RELEASE when a connection is aborted. */
	async #closeHandles(): Promise<void> {
		for (const handle of [...this.#handles.keys()]) {
			this.#handles.delete(handle);
			try {
				await this.#volume.close(handle);
			} catch (error) {
				this.#faults.closing(toFsError(error, "fuse.close-left"), handle);
			}
		}
	}

	/** Its opener was killed while nobody served, and never heard of it. */
	#closeLeft(handle: HandleId): void {
		dropHandle(this.#door, handle);
		this.#volume.close(handle).catch((error: unknown) => this.#faults.closing(toFsError(error, "fuse.close-left"), handle));
	}

	async #finish(): Promise<void> {
		if (this.#channelEnded || this.#detached) return;
		this.#channelEnded = true;
		for (const waiting of this.#door.lockWaits.values()) this.#volume.locks.cancel(requestNameOf(waiting));
		await this.#drain();
		await this.#closeHandles();
		this.#over.resolve();
	}

	async detach(): Promise<void> {
		assert(!this.#detaching, "a door is handed over once at a time");
		this.#detaching = true;
		this.#channel.pause();
		const { clock } = this.#door;
		if (!(await Promise.race([this.#drain().then(() => true), clock.sleep(detachMs).then(() => false)]))) {
			this.#detaching = false;
			this.#paused = false;
			this.#channel.resume();
			throw new FsError("ETIMEDOUT", "fuse.detach", `${this.#inFlight} requests were not done after ${detachMs / 1000} s`);
		}
		if (this.#channelEnded) throw new FsError("ENOTCONN", "fuse.detach-ended", "the file system was unmounted meanwhile");
		this.#detached = true;
		await this.#channel.close();
	}

	stop(): Promise<void> {
		this.#stopping ??= this.#stop();
		return this.#stopping;
	}

	async #stop(): Promise<void> {
		await this.#drain();
		await this.#channel.close();
		await this.#finish();
		await this.ended;
	}
}

const operationNames: ReadonlyMap<number, string> = new Map(Object.entries(opcodes).map(([name, opcode]) => [opcode, name]));

/** Bit 63 says that the kernel has sent a request again: it is the same one. */
function identityOf({ uniqueHigh, uniqueLow, opcode }: RequestHeader): RequestIdentity {
	const unique = (uniqueHigh & 0x7fff_ffff) * 2 ** 32 + uniqueLow;
	return { door: "fuse", id: String(unique), operation: operationNames.get(opcode) ?? `opcode ${opcode}` };
}

function readSize(request: Uint8Array): number {
	const at = inHeaderBytes + 16;
	const r = new RequestReader(request, at, at + 4, "READ");
	return r.u32() + outHeaderBytes;
}
