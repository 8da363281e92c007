/**
 * The main thread's end of the coder's thread.
 *
 * Invariants
 * 1. A work settles when the thread has answered it or has ended, never before: whoever has the memory back has it alone.
 * 2. The thread is started by the first work that somebody would like done, and once only: where it could not start, or has died, everybody does his own work.
 * 3. It keeps the process alive only while a work is open.
 */
import { Worker } from "node:worker_threads";
import { assert } from "../../base/assert.ts";
import { FsError } from "../../base/errors.ts";
import type { ShardWork } from "../../codec/interface.ts";
import type { Coder } from "../interface.ts";
import type { CoderCall, CoderReply } from "./coder-protocol.ts";
import { realLimits } from "./limits.ts";

interface Open {
	readonly resolve: (sums: Uint32Array) => void;
	readonly reject: (error: unknown) => void;
}

export class RealCoder implements Coder {
	readonly #workerUrl: URL;
	readonly #open = new Map<number, Open>();
	#worker: Worker | undefined;
	#state: "absent" | "starting" | "ready" | "dead" = "absent";
	#nextId = 1;
	#cause: unknown;

	constructor(workerUrl: URL) {
		this.#workerUrl = workerUrl;
	}

	begin(work: ShardWork): Promise<Uint32Array> | undefined {
		for (const shard of [...work.sources, ...work.targets])
			assert(shard.buffer instanceof SharedArrayBuffer, "a shard that the coder is given lies in shared memory");
		if (this.#state === "absent") this.#start();
		const worker = this.#worker;
		if (worker === undefined || this.#state !== "ready" || this.#open.size >= realLimits.coderWorks) return undefined;
		return new Promise<Uint32Array>((resolve, reject) => {
			const id = this.#nextId++;
			if (this.#open.size === 0) worker.ref();
			this.#open.set(id, { resolve, reject });
			worker.postMessage({ id, work } satisfies CoderCall);
		});
	}

	#start(): void {
		this.#state = "starting";
		try {
			const worker = new Worker(this.#workerUrl, {
				name: "coder",
				execArgv: this.#workerUrl.pathname.endsWith(".ts") ? process.execArgv : [],
				resourceLimits: { maxOldGenerationSizeMb: realLimits.coderHeapMb, maxYoungGenerationSizeMb: realLimits.coderYoungHeapMb },
			});
			worker.unref();
			worker.on("message", (reply: CoderReply) => this.#take(reply));
			// The thread may still be running: `exit` follows.
			worker.on("error", (error) => {
				this.#cause = error;
			});
			worker.on("exit", () => this.#die());
			this.#worker = worker;
		} catch (error) {
			this.#cause = error;
			this.#die();
		}
	}

	#take(reply: CoderReply): void {
		if (this.#state === "dead") return;
		if (reply === "ready") {
			this.#state = "ready";
			return;
		}
		const call = this.#open.get(reply.id);
		assert(call !== undefined, `the coder answers work ${reply.id}, which nobody waits for`);
		this.#open.delete(reply.id);
		if (this.#open.size === 0) this.#worker?.unref();
		if ("sums" in reply) call.resolve(reply.sums);
		else call.reject(new FsError("EIO", "platform.coder-failed", `the thread for erasure coding could not do it: ${reply.failed}`));
	}

	#die(): void {
		this.#state = "dead";
		this.#worker = undefined;
		const calls = [...this.#open.values()];
		this.#open.clear();
		const why = this.#cause instanceof Error ? this.#cause.message : "it has ended";
		const message = `the thread for erasure coding is lost, from now on the main thread does its work: ${why}`;
		for (const call of calls) call.reject(new FsError("EIO", "platform.coder-lost", message, {}, this.#cause));
	}
}
