/**
 * The main thread's end of a disk's thread: hands calls over in order, within a window.
 *
 * Invariants
 * 1. Calls are handed over in the order in which they were made. Small reads go through the lane (disk-lane.ts) only while nothing but such reads is waiting or open, a small write and its sync only while nothing else is, and the thread looks there before it
 *    executes what came by message.
 * 2. Every call settles: by its reply, or with EIO when the thread died or was given up. Only a thread that hangs keeps calls open.
 * 3. The thread keeps the process alive only while a call is open.
 */
import { readFileSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { FsError } from "../../base/errors.ts";
import type { Borrowed, DiskActivity } from "../interface.ts";
import { createLaneMemory, LaneCaller, type LaneWriting, writingSlot } from "./disk-lane.ts";
import { type DiskCallMessage, type DiskReply, type DiskRequest, type DiskWorkerData, vitals } from "./disk-protocol.ts";
import { libc } from "./fuse-libc.ts";
import { replySpinMs } from "./fuse-limits.ts";
import { realLimits } from "./limits.ts";
import { SpinHistory } from "./spin-history.ts";

interface Open {
	readonly bytes: number;
	readonly resolve: (value: never) => void;
	readonly reject: (error: unknown) => void;
}

interface Call extends Open {
	readonly request: DiskRequest;
}

interface LaneCall extends Open {
	readonly askedMs: number;
}

export interface DiskThreadOptions {
	readonly workerUrl: URL;
	/** Small calls go through shared memory; otherwise all by message. */
	readonly useLane: boolean;
	/** It sums what it reads, where that is asked for. */
	readonly sumsReads: boolean;
	/** It goes before other threads that want its processor (scheduling.ts). */
	readonly runsFirst: boolean;
	/** The thread has ended. */
	readonly onExit: () => void;
}

export class DiskThread {
	readonly path: string;
	readonly sumsReads: boolean;
	readonly #worker: Worker;
	readonly #vitals = new Int32Array(new SharedArrayBuffer(4 * vitals.count));
	readonly #open = new Map<number, Open>();
	readonly #lane = new LaneCaller(createLaneMemory());
	/** Reads in the lane. */
	readonly #laneCalls = new Map<number, LaneCall>();
	/** A write, a sync or both in the lane: nothing else was open when they were asked for. */
	#laneWriting: { readonly ids: readonly number[]; readonly askedMs: number } | undefined;
	readonly #useLane: boolean;
	/** Whether answers in the lane have come soon enough lately to be waited for awake: a sync takes longer than a read. */
	readonly #laneHistory = new SpinHistory(replySpinMs);
	readonly #writingHistory = new SpinHistory(replySpinMs);
	/** When something was put into the lane while no call was open. */
	#roseMs = 0;
	/** A look is scheduled. */
	#looking = false;
	#lookUntilMs = 0;
	#waiting: Call[] = [];
	#nextId = 1;
	#openBytes = 0;
	#waitingBytes = 0;
	#flushing = false;
	#hurrying = false;
	#dead: FsError | undefined;
	#abandoned = false;
	#exited = false;

	/** @param onExit called when the thread has ended. */
	constructor(path: string, { workerUrl, useLane, sumsReads, runsFirst, onExit }: DiskThreadOptions) {
		this.path = path;
		this.sumsReads = sumsReads;
		this.#useLane = useLane;
		this.#worker = new Worker(workerUrl, {
			name: `disk ${path}`,
			workerData: { path, vitals: this.#vitals, lane: this.#lane.memory, runsFirst } satisfies DiskWorkerData,
			// Flags of the main script (--input-type, --test …) are not for threads; only uncompiled sources need theirs.
			execArgv: workerUrl.pathname.endsWith(".ts") ? process.execArgv : [],
			resourceLimits: { maxOldGenerationSizeMb: realLimits.diskHeapMb, maxYoungGenerationSizeMb: realLimits.diskYoungHeapMb },
		});
		this.#worker.unref();
		this.#worker.on("message", (replies: readonly DiskReply[]) => {
			for (const reply of replies) this.#settle(reply);
			this.#takeAnswers();
		});
		this.#worker.on("error", (error) => this.#die("platform.disk-thread-error", `its thread failed: ${error.message}`, error));
		this.#worker.on("exit", () => {
			this.#exited = true;
			this.#die("platform.disk-thread-exit", "its thread has ended");
			onExit();
		});
	}

	/** Inside a call, or given up while it was. */
	get busy(): boolean {
		return !this.#exited && (this.#abandoned || this.#open.size > 0);
	}

	/** Without asking the thread: from what it leaves in shared memory, and from the kernel. */
	activity(): DiskActivity {
		const finished = Atomics.load(this.#vitals, vitals.finished);
		if (Atomics.load(this.#vitals, vitals.begun) === finished) return { finished, state: "idle" };
		// To ask the kernel would cost more than most small reads.
		if (performance.now() - this.#roseMs < realLimits.freshMs) return { finished, state: "running" };
		return { finished, state: isRunnable(Atomics.load(this.#vitals, vitals.thread)) ? "running" : "waiting" };
	}

	/** @param bytes how many bytes of memory the call needs on its way, for the window. */
	call<T>(request: DiskRequest, bytes = 0): Promise<T> {
		return new Promise<T>((resolve, reject) => {
			if (this.#dead !== undefined) return reject(this.#dead);
			if (this.#waiting.length >= realLimits.diskQueuedCalls) {
				return reject(new FsError("EAGAIN", "platform.disk-queue", `${this.#waiting.length} calls wait for the disk ${this.path}`));
			}
			this.#waiting.push({ request, bytes, resolve: resolve as (value: never) => void, reject });
			this.#waitingBytes += bytes;
			this.#flushSoon();
		});
	}

	/** A small read, while nothing else is to be done. Undefined: `call` it. The bytes are short at the end of the file. */
	borrow(handle: number, offset: number, lengthBytes: number): Promise<Borrowed> | undefined {
		const isAlone = this.#waiting.length === 0 && this.#open.size === this.#laneCalls.size;
		const slot = isAlone && this.#useLane && this.#dead === undefined ? this.#lane.ask(handle, offset, lengthBytes) : undefined;
		if (slot === undefined) return undefined;
		return new Promise<Borrowed>((resolve, reject) => {
			const askedMs = performance.now();
			if (this.#open.size === 0) {
				this.#worker.ref();
				this.#roseMs = askedMs;
			}
			const call = { bytes: 0, resolve: resolve as (value: never) => void, reject, askedMs };
			this.#open.set(-1 - slot, call);
			this.#laneCalls.set(slot, call);
			this.#lookForAnswer(askedMs, this.#laneHistory);
			this.#ring();
		});
	}

	#lookForAnswer(askedMs: number, history: SpinHistory): void {
		this.#lookUntilMs = askedMs + replySpinMs;
		if (this.#looking || !history.worthIt) return;
		this.#looking = true;
		this.#lane.watch(true);
		setImmediate(this.#look);
	}

	/** Once in each turn of the event loop, for as long as fast disks take. */
	readonly #look = (): void => {
		this.#takeAnswers();
		if (this.#lane.outstanding > 0 && performance.now() < this.#lookUntilMs) {
			// The thread that shall answer may have been woken on this very processor.
			libc().yield();
			setImmediate(this.#look);
			return;
		}
		this.#looking = false;
		this.#lane.watch(false);
		this.#takeAnswers();
	};

	#takeAnswers(): void {
		if (this.#lane.outstanding > 0) this.#lane.look(this.#takeAnswer);
	}

	readonly #takeAnswer = (slot: number, bytes: Uint8Array | undefined): void => {
		if (bytes === undefined) {
			this.#written();
			return;
		}
		const call = this.#laneCalls.get(slot);
		// It was failed when the thread was given up (L1).
		if (call === undefined) return;
		this.#laneCalls.delete(slot);
		this.#laneHistory.waited(performance.now() - call.askedMs);
		const lent: Borrowed = { bytes, release: () => this.#lane.giveBack(slot) };
		call.resolve(lent as never);
		this.#closeCall(-1 - slot, call);
	};

	/** What stands in the lane for writing has succeeded. */
	#written(): void {
		const writing = this.#laneWriting;
		// It was failed when the thread was given up.
		if (writing === undefined) return;
		this.#laneWriting = undefined;
		this.#writingHistory.waited(performance.now() - writing.askedMs);
		for (const id of writing.ids) {
			const call = this.#open.get(id) as Open;
			call.resolve(undefined as never);
			this.#closeCall(id, call);
		}
	}

	/** Fails what is open and lets the thread go without waiting for it: a thread inside a system call ends when that call returns. */
	abandon(why: string): void {
		if (this.#open.size > 0) this.#abandoned = true;
		this.#die("platform.disk-abandoned", why);
		void this.#worker.terminate().catch(() => {});
		this.#worker.unref();
	}

	/** Calls made in the same turn travel in one message: a message costs more than a small write. Much to write is under way sooner. */
	#flushSoon(): void {
		if (this.#waitingBytes >= realLimits.diskHurryBytes && !this.#hurrying) {
			this.#hurrying = true;
			queueMicrotask(() => this.#flush());
		}
		if (this.#flushing) return;
		this.#flushing = true;
		// After all promises of this turn have had their say.
		process.nextTick(() => {
			this.#flushing = false;
			this.#flush();
		});
	}

	/** All that waits goes into the lane, if that is a small write, a sync, or both. False: it goes by message. */
	#writeInLane(): boolean {
		if (!this.#useLane || this.#open.size > 0) return false;
		const writing = asWriting(this.#waiting);
		if (writing === undefined || !this.#lane.askToWrite(writing)) return false;
		const askedMs = performance.now();
		this.#worker.ref();
		this.#roseMs = askedMs;
		const ids: number[] = [];
		for (const call of this.#waiting) {
			const id = -1 - writingSlot - ids.length;
			ids.push(id);
			this.#open.set(id, call);
			this.#openBytes += call.bytes;
			this.#waitingBytes -= call.bytes;
		}
		this.#waiting = [];
		this.#laneWriting = { ids, askedMs };
		this.#lookForAnswer(askedMs, this.#writingHistory);
		this.#ring();
		return true;
	}

	#flush(): void {
		this.#hurrying = false;
		if (this.#writeInLane()) return;
		const messages: DiskCallMessage[] = [];
		const moved: ArrayBuffer[] = [];
		let taken = 0;
		for (const call of this.#waiting) {
			if (this.#open.size >= realLimits.diskWindowCalls) break;
			if (this.#open.size > 0 && this.#openBytes + call.bytes > realLimits.diskWindowBytes) break;
			taken++;
			this.#waitingBytes -= call.bytes;
			if (this.#open.size === 0) this.#worker.ref();
			const id = this.#nextId++;
			this.#open.set(id, call);
			this.#openBytes += call.bytes;
			messages.push({ id, request: packed(call.request, moved) });
		}
		if (taken === 0) return;
		this.#waiting = this.#waiting.slice(taken);
		this.#worker.postMessage(messages, moved);
		this.#ring();
	}

	/** Something is to be done. */
	#ring(): void {
		Atomics.add(this.#vitals, vitals.messages, 1);
		Atomics.notify(this.#vitals, vitals.messages);
	}

	#settle(reply: DiskReply): void {
		const call = this.#open.get(reply.id);
		if (call === undefined) return;
		if (reply.id < 0) this.#failedInLane(-1 - reply.id);
		if ("error" in reply) call.reject(new FsError(reply.error.code, reply.error.site, reply.error.message, reply.error.data));
		else call.resolve(reply.value as never);
		this.#closeCall(reply.id, call);
	}

	/** A write and its sync have a reply each, and the slot of the first. */
	#failedInLane(slot: number): void {
		if (slot < writingSlot) this.#laneCalls.delete(slot);
		else this.#laneWriting = undefined;
		if (slot <= writingSlot) this.#lane.failed(slot);
	}

	#closeCall(id: number, call: Open): void {
		this.#open.delete(id);
		this.#openBytes -= call.bytes;
		if (this.#waiting.length > 0) this.#flushSoon();
		else if (this.#open.size === 0) this.#worker.unref();
	}

	#die(site: string, why: string, cause?: unknown): void {
		this.#dead ??= new FsError("EIO", site, `the disk ${this.path} cannot be used: ${why}`, { path: this.path }, cause);
		const calls = [...this.#open.values(), ...this.#waiting];
		this.#open.clear();
		this.#laneCalls.clear();
		this.#laneWriting = undefined;
		this.#waiting = [];
		this.#waitingBytes = 0;
		this.#openBytes = 0;
		for (const call of calls) call.reject(this.#dead);
	}
}

/** A write, a sync, or a write and the sync of the same file; undefined: something else, or more. */
function asWriting(calls: readonly Call[]): LaneWriting | undefined {
	if (calls.length > 2) return undefined;
	const [first, second] = calls.map((call) => call.request);
	if (first?.kind === "sync") return second === undefined ? { handle: first.handle, write: undefined, sync: true } : undefined;
	if (first?.kind !== "write" || (second !== undefined && (second.kind !== "sync" || second.handle !== first.handle))) return undefined;
	const lengthBytes = first.parts.reduce((sum, part) => sum + part.length, 0);
	return { handle: first.handle, write: { offset: first.offset, parts: first.parts, lengthBytes }, sync: second !== undefined };
}

/** It has the processor or waits for it (proc_pid_stat(5), state R). */
function isRunnable(thread: number): boolean {
	try {
		const stat = readFileSync(`/proc/self/task/${thread}/stat`, "latin1");
		// The name of a thread may hold brackets and blanks.
		return stat.charAt(stat.lastIndexOf(")") + 2) === "R";
	} catch {
		return false;
	}
}

/** Shared memory travels by reference, the rest is copied tightly and moved: a structured clone would copy whole backing buffers. */
function packed(request: DiskRequest, moved: ArrayBuffer[]): DiskRequest {
	if (request.kind !== "write") return request;
	const parts: Uint8Array[] = [];
	let run: Uint8Array[] = [];
	const endRun = () => {
		if (run.length === 0) return;
		const copy = joined(run);
		parts.push(copy);
		moved.push(copy.buffer);
		run = [];
	};
	for (const part of request.parts) {
		if (part.buffer instanceof SharedArrayBuffer) {
			endRun();
			parts.push(part);
		} else run.push(part);
	}
	endRun();
	return { ...request, parts };
}

function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
	let length = 0;
	for (const part of parts) length += part.length;
	const buffer = Buffer.allocUnsafeSlow(length).buffer as ArrayBuffer;
	const bytes = new Uint8Array(buffer);
	let at = 0;
	for (const part of parts) {
		bytes.set(part, at);
		at += part.length;
	}
	return bytes;
}
