/** Memory of a volume's processes while a suite works on it, held against the bound (docs/design.md: 512 MiB, workers included). */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import type { TestVolume } from "./cairn.ts";

export const memoryBoundBytes = 512 * 1024 * 1024;

/** How often is looked: what is there for a shorter time is not seen. */
const sampleMs = 200;

/** Anonymous and shared memory of a process, its threads included; pages of files do not count. 0 for one that is gone. */
export function residentBytes(pid: number): number {
	try {
		const text = readFileSync(`/proc/${pid}/status`, "utf8");
		const kibibytes = ["RssAnon", "RssShmem"].map((name) => Number(new RegExp(`^${name}:\\s+([0-9]+) kB$`, "m").exec(text)?.[1] ?? 0));
		return kibibytes.reduce((sum, one) => sum + one, 0) * 1024;
	} catch {
		return 0;
	}
}

export function megabytes(bytes: number): string {
	return `${(bytes / 1024 / 1024).toFixed(0)} MiB`;
}

/** Looks until `stop`. The greatest of the sums over all processes of the volume counts, except that daemons which follow one another may overlap. */
export class MemoryWatch {
	readonly #volume: TestVolume;
	readonly #timer: ReturnType<typeof setInterval>;
	#daemons: readonly number[] = [];
	#pids: readonly number[] = [];
	#samples = 0;
	#peakBytes = 0;
	#peakOf = "";

	constructor(volume: TestVolume) {
		this.#volume = volume;
		this.#timer = setInterval(() => this.#look(), sampleMs);
		this.#look();
	}

	#look(): void {
		// Going through all processes of a machine costs milliseconds: only when one of ours is gone, or between a daemon and its successor.
		if (this.#daemons.length === 0 || this.#pids.some((pid) => residentBytes(pid) === 0)) {
			this.#daemons = this.#volume.daemons();
			this.#pids = [...this.#daemons, ...this.#volume.keepers()];
		}
		const each = this.#pids.map(residentBytes);
		const bytes = each.reduce((sum, one) => sum + one, 0);
		if (this.#daemons.length > 0) this.#samples++;
		if (bytes <= this.#peakBytes) return;
		this.#peakBytes = bytes;
		this.#peakOf = this.#pids.map((pid, i) => `${pid}: ${megabytes(each[i] ?? 0)}`).join(", ");
	}

	/** The greatest since the last call, which must have kept the bound. */
	peak(what: string): string {
		this.#look();
		const bytes = this.#peakBytes;
		assert.ok(this.#samples > 0 && bytes > 0, `${what}: no daemon's memory was seen`);
		assert.ok(
			bytes < memoryBoundBytes,
			`${what}: ${megabytes(bytes)} resident (${this.#peakOf}), bound ${megabytes(memoryBoundBytes)}\n${this.#volume.log()}`,
		);
		this.#peakBytes = 0;
		this.#samples = 0;
		return megabytes(bytes);
	}

	stop(): void {
		clearInterval(this.#timer);
	}
}
