/**
 * One `/dev/fuse` connection: a reader thread fills a ring, the main thread drains it and writes replies, a notifier thread (started at
 * the first notification) writes notifications.
 *
 * Waking a thread costs more than handling a request, so after a request the main thread goes on looking for the next one for a moment.
 * It looks in a tight loop only while every request has its reply; otherwise something else has to happen first (a disk, a timer), and
 * it looks once in each turn of the event loop, for as long as fast disks take, if that has been worth it lately (spin-history.ts). While it
 * looks, it reads the device itself and the reader thread stands aside.
 *
 * Invariants
 *  H1 At most one turn is scheduled or waiting at any time.
 *  H2 `ended` resolves after the last request was delivered, and only once.
 *  H3 When no turn is scheduled or running, or the channel is paused, the reader thread has been called back.
 *  H4 The descriptors are closed after both threads have ended; nothing is read or written after that: the number may be another file's.
 *  H5 Nobody is left without an answer: when nobody reads any more, the kernel is told so, by the end of the last descriptor or by its word (`abortDescriptor`), unless another process has the connection.
 */
import { closeSync, writeSync, writevSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { Worker } from "node:worker_threads";
import { assert } from "../../base/assert.ts";
import { Deferred } from "../../base/async.ts";
import { FsError, toFsError } from "../../base/errors.ts";
import type { ErrorCode } from "../../base/errors.ts";
import type { FuseBackings, FuseChannel } from "../interface.ts";
import { abortDescriptor, isServedByOthers } from "./fuse-abort.ts";
import type { CpuLatency } from "./cpu-latency.ts";
import { RealBackings } from "./fuse-backings.ts";
import { libc } from "./fuse-libc.ts";
import {
	burstGapMs,
	ownReadsBeforeCall,
	looksPerTimeCheck,
	maxRequestBytes,
	maxQueuedNotifications,
	notifierGraceMs,
	requestsPerTurn,
	replySpinMs,
	requestSpinMs,
	ringBytes,
	spinMs,
	turnMs,
	workerHeap,
} from "./fuse-limits.ts";
import type { NotificationDone } from "./fuse-notifier.ts";
import type { ReaderData } from "./fuse-reader.ts";
import { RingConsumer, createRing } from "./fuse-ring.ts";
import { SpinHistory } from "./spin-history.ts";

/** F_OFD_SETLKW of `<linux/fcntl.h>`. */
const ofdSetLockWait = 38;
const eagain = 11;

/** What a read of the device says when there is nobody to be answered any more: ENODEV unmounted, ECONNABORTED aborted; 0: it was told to stop. */
const connectionOver: ReadonlySet<number> = new Set([0, 19, 103]);

/** Opcodes that are never answered: FORGET, INTERRUPT, NOTIFY_REPLY, BATCH_FORGET. */
const unanswered: ReadonlySet<number> = new Set([2, 36, 41, 42]);

export interface FuseChannelOptions {
	/** The main thread looks for requests, and reads them, while they come one after the other; otherwise each of them wakes it. */
	readonly waitAwake: boolean;
	/** Told of requests in a row. */
	readonly cpuLatency: CpuLatency | undefined;
	/** Tidies up what belongs to the connection outside this process. */
	readonly onClosed: () => Promise<void>;
}

export class RealFuseChannel implements FuseChannel {
	readonly ended: Promise<void>;
	readonly backings: FuseBackings;
	readonly #fd: number;
	readonly #stopFd: number;
	readonly #waitAwake: boolean;
	readonly #cpuLatency: CpuLatency | undefined;
	readonly #onClosed: () => Promise<void>;
	readonly #ring = createRing(ringBytes);
	readonly #consumer: RingConsumer;
	/** For requests that the main thread reads itself. */
	readonly #room = new Uint8Array(maxRequestBytes);
	readonly #calls = libc();
	readonly #over = new Deferred<void>();
	#readerGone: Promise<void> = Promise.resolve();
	#notifier: Notifier | undefined;
	#take: ((request: Uint8Array) => void) | undefined;
	#outstanding = 0;
	/** Requests that the main thread has read itself since it slept. */
	#ownReads = 0;
	/** When a request last came or a reply last went out, as far as a turn has seen it: from a reply on the client needs time for the next. */
	#lastActiveMs = 0;
	/** Whether requests after the last reply, and replies that something else has to happen for, come soon enough to be waited for awake. */
	readonly #requests = new SpinHistory(requestSpinMs);
	readonly #replies = new SpinHistory(replySpinMs);
	/** A turn has found nothing to do but to wait for something else to make a reply. */
	#awaitsReply = false;
	/** A turn has found nothing to do but to wait for a request, with all replies made. */
	#awaitsRequest = false;
	/** Requests come one after the other, and it may be awake for them. */
	#burst = false;
	#paused = false;
	#closed = false;
	/** A turn is scheduled, waiting or running. */
	#turning = false;
	/** The turn waits for the reader thread. */
	#asleep = false;
	/** The ring will tell when the reader thread has put something in. */
	#listening = false;
	#closing: Promise<void> | undefined;

	constructor(fd: number, { waitAwake, cpuLatency, onClosed }: FuseChannelOptions) {
		this.#fd = fd;
		this.#waitAwake = waitAwake;
		this.#cpuLatency = cpuLatency;
		this.#onClosed = onClosed;
		this.backings = new RealBackings(fd, () => this.#closing !== undefined);
		const stopFd = libc().eventfd();
		if (stopFd < 0)
			throw new FsError("EMFILE", "platform.fuse-eventfd", `eventfd failed with errno ${-stopFd}: raise the limit of open files`);
		this.#stopFd = stopFd;
		this.#consumer = new RingConsumer(this.#ring);
		this.ended = this.#over.promise;
	}

	get descriptor(): number {
		return this.#fd;
	}

	start(onRequest: (request: Uint8Array) => void): void {
		assert(this.#take === undefined && this.#closing === undefined, "a FUSE channel starts once");
		this.#take = onRequest;
		const data: ReaderData = { ring: this.#ring, fd: this.#fd, stopFd: this.#stopFd };
		const reader = new Worker(new URL("./fuse-reader.js", import.meta.url), {
			workerData: data,
			resourceLimits: workerHeap,
			name: "fuse-reader",
		});
		this.#readerGone = new Promise((resolve) => {
			reader.once("error", () => this.#readerFailed());
			reader.once("exit", () => resolve());
		});
		this.#schedule();
	}

	// ── requests ───────────────────────────────────────────────────────────────────────────────────────────────

	#schedule(): void {
		if (this.#turning) return;
		this.#turning = true;
		setImmediate(this.#turn);
	}

	readonly #deliver = (request: Uint8Array): void => {
		const opcode = (request[4] as number) | ((request[5] as number) << 8) | ((request[6] as number) << 16);
		if (!unanswered.has(opcode)) this.#outstanding++;
		this.#take?.(request);
	};

	readonly #turn = (): void => {
		this.#turning = false;
		if (this.#paused) return;
		if (this.#drain() > 0) this.#goOn();
		else if (this.#consumer.ended !== undefined) this.#readerEnded(this.#consumer.ended);
		else this.#wait();
	};

	#readerEnded(errno: number): void {
		if (connectionOver.has(errno)) this.#over.resolve();
		else this.#readerFailed();
	}

	/** H5. Nobody would read what clients ask from now on. */
	#readerFailed(): void {
		this.#over.resolve();
		// Whoever closes it later hears of what went wrong.
		this.close().catch(() => {});
	}

	#wait(): void {
		this.#awaitsReply = this.#outstanding > 0;
		this.#awaitsRequest = this.#outstanding === 0;
		const untilMs = this.#lastActiveMs + this.#limitMs();
		if (!this.#burst || performance.now() >= untilMs) this.#sleep();
		else if (this.#outstanding === 0 && this.#spin(untilMs)) this.#goOn();
		else {
			this.#calls.yield();
			this.#schedule();
		}
	}

	/** How long after something has happened it goes on looking. */
	#limitMs(): number {
		if (this.#outstanding > 0) return this.#replies.worthIt ? replySpinMs : spinMs;
		return this.#requests.worthIt ? requestSpinMs : spinMs;
	}

	/** After this turn the continuations of the handlers run; then the next turn looks again. */
	#goOn(): void {
		const nowMs = performance.now();
		const gapMs = nowMs - this.#lastActiveMs;
		if (this.#awaitsRequest) this.#requests.waited(gapMs);
		this.#awaitsRequest = this.#awaitsReply = false;
		const isSoon = gapMs < burstGapMs;
		this.#burst = this.#waitAwake && isSoon;
		if (isSoon) this.#cpuLatency?.busy(nowMs);
		this.#lastActiveMs = nowMs;
		this.#schedule();
	}

	#drain(): number {
		let count = 0;
		const untilMs = performance.now() + turnMs;
		while (count < requestsPerTurn && !this.#paused) {
			if (this.#consumer.drain(1, this.#deliver) === 0 && !this.#readOne()) break;
			count++;
			// What was answered by a disk, and what other requests wait for, comes between turns only.
			if (performance.now() >= untilMs) break;
		}
		return count;
	}

	/** Reads a request from the device and hands it over. False when there is none, or when reading is still the reader thread's. */
	#readOne(): boolean {
		// Once closing has begun the number may soon be another file's.
		if (!this.#burst || this.#closing !== undefined || !this.#consumer.alone()) return false;
		const count = this.#calls.read(this.#fd, this.#room, maxRequestBytes);
		if (count > 0) {
			if (++this.#ownReads === ownReadsBeforeCall) this.#callReader();
			this.#deliver(this.#room.subarray(0, count));
			return true;
		}
		// The reader thread knows what to make of whatever else this is; in the end it finds the end.
		if (count !== -eagain) this.#consumer.callBack();
		return false;
	}

	/** Looks for a moment. True when a request was delivered; one in the ring is left to the next turn. */
	#spin(untilMs: number): boolean {
		do {
			for (let looks = 0; looks < looksPerTimeCheck; looks++) {
				if (this.#consumer.ready) return false;
				if (this.#readOne()) return true;
			}
			this.#calls.yield();
		} while (performance.now() < untilMs);
		return false;
	}

	/**
	 * Every request wakes a thread that waits in poll(2), although there is nothing left for it to read, and the client pays for that: while requests come in a row it shall stand aside instead. It looks at what it is asked when it
	 * is woken.
	 */
	#callReader(): void {
		const one = new Uint8Array(8);
		one[0] = 1;
		writeSync(this.#stopFd, one);
	}

	#sleep(): void {
		this.#ownReads = 0;
		this.#consumer.callBack();
		if (!this.#consumer.announce()) {
			this.#schedule();
			return;
		}
		this.#turning = true;
		this.#asleep = true;
		// One promise at a time: when nothing comes through the ring for long, because requests come otherwise, they would pile up.
		if (this.#listening) return;
		const waiting = this.#consumer.wait();
		this.#listening = waiting !== undefined;
		if (waiting === undefined) this.#wakeUp();
		else void waiting.then(this.#heard);
	}

	readonly #heard = (): void => {
		this.#listening = false;
		if (!this.#asleep) return;
		this.#asleep = false;
		this.#turn();
	};

	#wakeUp(): void {
		this.#asleep = false;
		setImmediate(this.#turn);
	}

	pause(): void {
		this.#paused = true;
		this.#consumer.callBack();
	}

	resume(): void {
		this.#paused = false;
		if (this.#take !== undefined) this.#schedule();
	}

	// ── replies and notifications ──────────────────────────────────────────────────────────────────────────────

	reply(parts: readonly Uint8Array[]): void {
		this.#outstanding--;
		const nowMs = performance.now();
		if (this.#awaitsReply) this.#replies.waited(nowMs - this.#lastActiveMs);
		this.#awaitsReply = false;
		this.#lastActiveMs = nowMs;
		// Who has been answered often asks again at once.
		if (this.#asleep && this.#burst) this.#wakeUp();
		// Its connection is gone, and whoever waited was told by the kernel.
		if (this.#closed) return;
		let length = 0;
		for (const part of parts) length += part.length;
		const written = this.#write(parts);
		if (written !== undefined && written !== length) {
			throw new FsError("EIO", "platform.fuse-short-reply", `the kernel took ${written} of ${length} bytes of a FUSE reply`);
		}
	}

	/** undefined: nobody waits for this reply any more. */
	#write(parts: readonly Uint8Array[]): number | undefined {
		for (;;) {
			try {
				return parts.length === 1 ? writeSync(this.#fd, parts[0] as Uint8Array) : writevSync(this.#fd, parts as Uint8Array[]);
			} catch (error) {
				const code = (error as { code?: string }).code;
				// ENOENT: the request was interrupted and its caller is gone; ENODEV, ECONNABORTED, EPERM: the connection is over.
				if (code === "ENOENT" || code === "ENODEV" || code === "ECONNABORTED" || code === "EPERM") return undefined;
				if (code !== "EINTR") throw toFsError(error, "platform.fuse-reply");
			}
		}
	}

	async capable(pid: number, capability: number): Promise<boolean> {
		const status = await readFile(`/proc/${pid}/status`, "latin1").catch(() => "");
		const effective = /^CapEff:\s*([0-9a-f]{1,16})$/m.exec(status)?.[1];
		return effective !== undefined && ((BigInt(`0x${effective}`) >> BigInt(capability)) & 1n) === 1n;
	}

	async waitsForOpenFile(pid: number): Promise<boolean> {
		// proc_pid_syscall(5): the number of the call in decimal, its arguments in hexadecimal. The number of fcntl differs between machines; its second argument does not.
		const call = await readFile(`/proc/${pid}/syscall`, "latin1").catch(() => "");
		const [, , command] = call.split(" ");
		return command !== undefined && Number(command) === ofdSetLockWait;
	}

	notify(message: Uint8Array): Promise<void> {
		if (this.#closing !== undefined)
			return Promise.reject(new FsError("ENOTCONN", "platform.fuse-notify-closed", "this FUSE connection is closed"));
		this.#notifier ??= new Notifier(this.#fd);
		return this.#notifier.send(message);
	}

	// ── the end ────────────────────────────────────────────────────────────────────────────────────────────────

	close(): Promise<void> {
		this.#closing ??= this.#close();
		return this.#closing;
	}

	async #close(): Promise<void> {
		this.#consumer.stop();
		this.#callReader();
		await this.#readerGone;
		const free = (await this.#notifier?.close()) !== false || (await this.#freeNotifier());
		this.#take = undefined;
		this.#closed = true;
		this.#over.resolve();
		closeSync(this.#stopFd);
		// A notifier that is stuck in the kernel still uses the descriptor: leave both to whoever serves the connection from now on.
		if (free) closeSync(this.#fd);
		await this.#onClosed();
	}

	/**
	 * H5. The notifier waits in the kernel for a request that nobody will answer: it has a descriptor of its own (own-files.ts), which would keep the connection, whoever waits for an answer, and this process from ending.
	 * A successor or a keeper that has the connection goes on with it.
	 */
	async #freeNotifier(): Promise<boolean> {
		if (isServedByOthers(this.#fd)) return false;
		// What is in the way is nothing that could be done about here: then it is as before, until the process ends.
		abortDescriptor(this.#fd);
		return (await this.#notifier?.close()) ?? true;
	}
}

/** The notifier thread, seen from the main thread. */
class Notifier {
	readonly #worker: Worker;
	readonly #waiting = new Map<number, Deferred<void>>();
	#next = 1;
	#gone = false;

	constructor(fd: number) {
		this.#worker = new Worker(new URL("./fuse-notifier.js", import.meta.url), {
			workerData: { fd },
			resourceLimits: workerHeap,
			// It closes its copies of what others have opened.
			trackUnmanagedFds: false,
			name: "fuse-notifier",
		});
		this.#worker.on("message", (done: NotificationDone) => this.#done(done));
		this.#worker.once("error", () => this.#failAll());
		this.#worker.once("exit", () => this.#failAll());
		this.#worker.unref();
	}

	send(bytes: Uint8Array): Promise<void> {
		if (this.#gone)
			return Promise.reject(
				new FsError("ENOTCONN", "platform.fuse-notifier-gone", "the notifier thread of this FUSE connection has ended"),
			);
		if (this.#waiting.size >= maxQueuedNotifications) {
			return Promise.reject(
				new FsError(
					"EAGAIN",
					"platform.fuse-notify-full",
					`${maxQueuedNotifications} notifications wait for the kernel; wait for some of them`,
				),
			);
		}
		const deferred = new Deferred<void>();
		const id = this.#next++;
		this.#waiting.set(id, deferred);
		this.#worker.postMessage({ id, bytes: bytes.slice() });
		return deferred.promise;
	}

	#done({ id, code }: NotificationDone): void {
		const deferred = this.#waiting.get(id);
		this.#waiting.delete(id);
		if (code === undefined || code === "ENOENT") deferred?.resolve();
		else deferred?.reject(new FsError(code as ErrorCode, "platform.fuse-notify", `the kernel refused a notification: ${code}`));
	}

	#failAll(): void {
		this.#gone = true;
		for (const deferred of this.#waiting.values()) {
			deferred.reject(
				new FsError("ENOTCONN", "platform.fuse-notify-cut", "the FUSE connection was closed before the kernel took the notification"),
			);
		}
		this.#waiting.clear();
	}

	/** False when the thread is stuck in the kernel. */
	async close(): Promise<boolean> {
		let timer: NodeJS.Timeout | undefined;
		const late = new Promise<boolean>((resolve) => {
			timer = setTimeout(() => resolve(false), notifierGraceMs);
		});
		const free = await Promise.race([this.#worker.terminate().then(() => true), late]);
		clearTimeout(timer);
		return free;
	}
}
