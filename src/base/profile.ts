/**
 * What requests cost, while somebody watches: how many of each kind, how long they took, who asked, for what.
 *
 * Invariants
 *  P1 Memory is bounded: by the requests that are under way, the kinds of operations, and `keptSubjects`.
 *  P2 A request is counted when it ends, with all the time it took; until then it is told as running.
 */

/** Somebody who watches the requests of a door. Begin and end come in pairs of the same key. */
export interface RequestObserver {
	/** @param bytes that the request brings or asks for; 0 where it is about no contents. */
	began(key: string, operation: string, ino: number, pid: number, bytes: number): void;
	ended(key: string): void;
}

export interface OperationProfile {
	readonly operation: string;
	readonly count: number;
	readonly bytes: number;
	readonly meanMs: number;
	/** Not more than this took, of half and of 99 in 100; to a fifth. */
	readonly p50Ms: number;
	readonly p99Ms: number;
	readonly maxMs: number;
}

export interface SubjectProfile {
	readonly ino: number;
	/** Who asked last; 0 where the kernel did by itself. */
	readonly pid: number;
	readonly count: number;
	readonly bytes: number;
}

export interface RunningRequest {
	readonly operation: string;
	readonly ino: number;
	readonly pid: number;
	readonly ageMs: number;
}

/** What ended since the last look, and what runs now. */
export interface ProfileWindow {
	readonly seconds: number;
	/** Most time first. */
	readonly operations: readonly OperationProfile[];
	/** Most requests first; a sample where there were very many. */
	readonly files: readonly SubjectProfile[];
	/** Oldest first. */
	readonly running: readonly RunningRequest[];
	readonly runningCount: number;
}

/** Files and directories that are counted at once: a hundred times what is shown. When there are more, the busiest quarter goes on. */
const keptSubjects = 4096;
const shownSubjects = 20;
const shownRunning = 10;
const bucketsPerOctave = 4;
const bucketCount = 32 * bucketsPerOctave;

interface Began {
	readonly operation: string;
	readonly ino: number;
	readonly pid: number;
	readonly bytes: number;
	readonly atMs: number;
}

interface Count {
	count: number;
	bytes: number;
	pid: number;
}

/** Times of one operation in buckets of equal ratio, from 1 µs. */
class Durations {
	count = 0;
	bytes = 0;
	sumMs = 0;
	maxMs = 0;
	readonly #buckets = new Uint32Array(bucketCount);

	add(ms: number, bytes: number): void {
		this.count++;
		this.bytes += bytes;
		this.sumMs += ms;
		this.maxMs = Math.max(this.maxMs, ms);
		const bucket = Math.ceil(Math.log2(Math.max(1, ms * 1000)) * bucketsPerOctave);
		const at = Math.min(bucket, bucketCount - 1);
		this.#buckets[at] = (this.#buckets[at] as number) + 1;
	}

	/** Upper end of the bucket that this part of all falls into, and never more than the longest. */
	percentileMs(part: number): number {
		let left = Math.ceil(this.count * part);
		for (let at = 0; at < bucketCount; at++) {
			left -= this.#buckets[at] as number;
			if (left <= 0) return Math.min(this.maxMs, 2 ** (at / bucketsPerOctave) / 1000);
		}
		return this.maxMs;
	}
}

export class RequestProfile implements RequestObserver {
	readonly #nowMs: () => number;
	readonly #running = new Map<string, Began>();
	#operations = new Map<string, Durations>();
	#subjects = new Map<number, Count>();
	#sinceMs: number;

	constructor(nowMs: () => number) {
		this.#nowMs = nowMs;
		this.#sinceMs = nowMs();
	}

	began(key: string, operation: string, ino: number, pid: number, bytes: number): void {
		this.#running.set(key, { operation, ino, pid, bytes, atMs: this.#nowMs() });
	}

	/** One that began before anybody watched is not known, and not counted. */
	ended(key: string): void {
		const began = this.#running.get(key);
		if (began === undefined) return;
		this.#running.delete(key);
		const { operation, ino, pid, bytes, atMs } = began;
		const durations = this.#operations.get(operation) ?? new Durations();
		this.#operations.set(operation, durations);
		durations.add(this.#nowMs() - atMs, bytes);
		const subject = this.#subjects.get(ino);
		if (subject === undefined) this.#newSubject(ino, { count: 1, bytes, pid });
		else {
			subject.count++;
			subject.bytes += bytes;
			subject.pid = pid;
		}
	}

	#newSubject(ino: number, count: Count): void {
		if (this.#subjects.size >= keptSubjects) this.#subjects = new Map(this.#busiest(keptSubjects / 4));
		this.#subjects.set(ino, count);
	}

	#busiest(limit: number): [number, Count][] {
		return [...this.#subjects].sort(([inoA, a], [inoB, b]) => b.count - a.count || inoA - inoB).slice(0, limit);
	}

	/** Answers the window that ends now, and begins the next one. */
	take(): ProfileWindow {
		const nowMs = this.#nowMs();
		const operations = [...this.#operations]
			.sort(([, a], [, b]) => b.sumMs - a.sumMs)
			.map(([operation, durations]) => ({
				operation,
				count: durations.count,
				bytes: durations.bytes,
				meanMs: durations.sumMs / durations.count,
				p50Ms: durations.percentileMs(0.5),
				p99Ms: durations.percentileMs(0.99),
				maxMs: durations.maxMs,
			}));
		const files = this.#busiest(shownSubjects).map(([ino, { count, bytes, pid }]) => ({ ino, pid, count, bytes }));
		const running = [...this.#running.values()]
			.slice(0, shownRunning)
			.map(({ operation, ino, pid, atMs }) => ({ operation, ino, pid, ageMs: nowMs - atMs }));
		const window = { seconds: (nowMs - this.#sinceMs) / 1000, operations, files, running, runningCount: this.#running.size };
		this.#operations = new Map();
		this.#subjects = new Map();
		this.#sinceMs = nowMs;
		return window;
	}
}
