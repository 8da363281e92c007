/**
 * Keeps the event loop from sleeping for the moment in which a client that has been answered asks again, or in which a disk helps with a reply: waking a thread costs more than most requests (see fuse-channel.ts, which
 * does the same for the kernel's). It looks at the sockets in each turn of the loop instead, for as long as that has been worth it lately.
 */
import type { CpuLatency } from "./cpu-latency.ts";
import { libc } from "./fuse-libc.ts";
import { replySpinMs, requestSpinMs } from "./fuse-limits.ts";
import { SpinHistory } from "./spin-history.ts";

export interface AwakeTime {
	readonly nowMs: () => number;
	/** Calls it in the next turn of the event loop. */
	readonly nextTurn: (fn: () => void) => void;
}

const realTime: AwakeTime = {
	nowMs: () => performance.now(),
	nextTurn: (fn) => {
		// A thread that helps with a reply may have been woken on this very processor.
		libc().yield();
		setImmediate(fn);
	},
};

export class Awake {
	readonly #cpuLatency: CpuLatency | undefined;
	readonly #time: AwakeTime;
	readonly #requests = new SpinHistory(requestSpinMs);
	readonly #replies = new SpinHistory(replySpinMs);
	#awaits: "request" | "reply" = "request";
	#sinceMs = Number.NEGATIVE_INFINITY;
	#looking = false;

	/** @param cpuLatency told of calls in a row. */
	constructor(cpuLatency?: CpuLatency, time: AwakeTime = realTime) {
		this.#cpuLatency = cpuLatency;
		this.#time = time;
	}

	/** Clients have sent something. */
	came(): void {
		this.#now("reply", this.#requests);
		if (this.#requests.worthIt) this.#cpuLatency?.busy(this.#sinceMs);
	}

	/** A reply goes out. */
	went(): void {
		this.#now("request", this.#replies);
	}

	#now(awaits: "request" | "reply", waited: SpinHistory): void {
		const nowMs = this.#time.nowMs();
		if (this.#awaits !== awaits) waited.waited(nowMs - this.#sinceMs);
		this.#awaits = awaits;
		this.#sinceMs = nowMs;
		if (this.#looking || this.#limitMs === 0) return;
		this.#looking = true;
		this.#time.nextTurn(this.#turn);
	}

	get #limitMs(): number {
		if (this.#awaits === "request") return this.#requests.worthIt ? requestSpinMs : 0;
		return this.#replies.worthIt ? replySpinMs : 0;
	}

	readonly #turn = (): void => {
		this.#looking = this.#time.nowMs() - this.#sinceMs < this.#limitMs;
		if (this.#looking) this.#time.nextTurn(this.#turn);
	};
}
