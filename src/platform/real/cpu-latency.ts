/**
 * While requests come in a row, idle processors shall not sleep so deeply that waking them takes longer than the request: a program waits for two wake-ups at least, and 20 to 60 µs each are more than most of its
 * requests cost. The kernel takes such a wish through `/dev/cpu_dma_latency` (Documentation/power/pm_qos_interface.rst): a number of µs, 32 bits, for as long as the descriptor is open, so that it ends with the process.
 *
 * Invariants
 *  L1 The wish stands only from the fourth request in a row on, and until a moment after the last one: an idle mount leaves the processors alone.
 *  L2 While it stands exactly one timer runs, which takes it back.
 */
import { closeSync, openSync, readdirSync, readFileSync, writeSync } from "node:fs";
import { cpus } from "node:os";
import { lightSleepUs, lowLatencyHoldMs, maxPollingProcessors, requestRowGapMs, requestsBeforeLowLatency } from "./fuse-limits.ts";

const latencyDevice = "/dev/cpu_dma_latency";
const idleFolder = "/sys/devices/system/cpu/cpu0/cpuidle";
const idleDriver = "/sys/devices/system/cpu/cpuidle/current_driver";

/** PM_QOS_DEFAULT_VALUE of `<linux/pm_qos.h>`. */
const noWish = -1;

export interface IdleStates {
	/** As in `cpuidle/current_driver`. */
	readonly driver: string;
	readonly states: readonly { readonly name: string; readonly exitLatencyUs: number }[];
	readonly processors: number;
}

/** What to wish for, in µs: 0 is that idle processors look on awake. Undefined: nothing would be gained, or too much lost. */
export function wishedLatencyUs({ driver, states, processors }: IdleStates): number | undefined {
	// A guest has no light sleep: whatever its states say, the host has to wake it.
	if (driver === "haltpoll") return processors <= maxPollingProcessors ? 0 : undefined;
	const isLight = (state: IdleStates["states"][number]): boolean => state.exitLatencyUs <= lightSleepUs;
	// Without one the kernel would have no choice but to stay awake; without a deeper one there is nothing to keep it from.
	const hasLight = states.some((state) => state.name !== "POLL" && isLight(state));
	return hasLight && !states.every(isLight) ? lightSleepUs : undefined;
}

export interface LatencyTime {
	readonly nowMs: () => number;
	/** Calls it once, not before that time has passed; keeps no process alive. */
	readonly later: (fn: () => void, ms: number) => void;
}

const realTime: LatencyTime = { nowMs: () => performance.now(), later: (fn, ms) => void setTimeout(fn, ms).unref() };

export class CpuLatency {
	readonly #wish: Uint8Array;
	readonly #time: LatencyTime;
	/** Undefined once the kernel has refused something. */
	#fd: number | undefined;
	#lastMs = Number.NEGATIVE_INFINITY;
	#inRow = 0;
	#stands = false;

	/** @param fd of the device, its own from now on. */
	constructor(fd: number, wishUs: number, time: LatencyTime = realTime) {
		this.#fd = fd;
		this.#wish = wordOf(wishUs);
		this.#time = time;
	}

	/** The device, where it is of use and this process may have it. */
	static open(): CpuLatency | undefined {
		try {
			const wishUs = wishedLatencyUs(readIdleStates());
			return wishUs === undefined ? undefined : new CpuLatency(openSync(latencyDevice, "r+"), wishUs);
		} catch {
			// No such kernel, no root, a container: processors sleep as ever.
			return undefined;
		}
	}

	/** A request has come that others preceded closely. */
	busy(nowMs: number): void {
		this.#inRow = nowMs - this.#lastMs < requestRowGapMs ? this.#inRow + 1 : 1;
		this.#lastMs = nowMs;
		if (this.#stands || this.#inRow < requestsBeforeLowLatency || !this.#say(this.#wish)) return;
		this.#stands = true;
		this.#time.later(this.#look, lowLatencyHoldMs);
	}

	readonly #look = (): void => {
		const leftMs = this.#lastMs + lowLatencyHoldMs - this.#time.nowMs();
		if (leftMs > 0) this.#time.later(this.#look, leftMs);
		else {
			this.#stands = false;
			this.#say(wordOf(noWish));
		}
	};

	#say(word: Uint8Array): boolean {
		if (this.#fd === undefined) return false;
		try {
			writeSync(this.#fd, word);
			return true;
		} catch {
			// A wish that cannot be taken back ends with its descriptor.
			closeSync(this.#fd);
			this.#fd = undefined;
			return false;
		}
	}
}

function wordOf(latencyUs: number): Uint8Array {
	return new Uint8Array(new Int32Array([latencyUs]).buffer);
}

function readIdleStates(): IdleStates {
	const word = (path: string): string => readFileSync(path, "latin1").trim();
	const states = readdirSync(idleFolder).map((name) => ({
		name: word(`${idleFolder}/${name}/name`),
		exitLatencyUs: Number(word(`${idleFolder}/${name}/latency`)),
	}));
	return { driver: word(idleDriver), states, processors: cpus().length };
}
