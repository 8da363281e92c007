/** Ask some sources, and more of them when those fail or are slow, until enough have answered. */
import { AssertionError } from "../base/assert.ts";
import type { Clock } from "../platform/interface.ts";

/**
 * `live` turns false when the result is no longer wanted: what a source finds afterwards proves nothing, the space may have been reused.
 */
export type Source<T> = (live: () => boolean) => Promise<T>;

export interface Gathered<T> {
	/** By the source's position in the list. */
	readonly results: ReadonlyMap<number, T>;
	/** Sources that failed before enough had answered. */
	readonly errors: ReadonlyMap<number, unknown>;
}

/**
 * Starts the first `need` sources. Each failure starts the next one; when `hedgeMs` pass without an end, as many more are started as
 * answers are missing. Resolves with
 * `need` results, or with fewer when all sources have ended; rejects for a failed assertion alone. Sources that are still out are left
 * alone.
 */
export function gather<T>(clock: Clock, need: number, sources: readonly Source<T>[], hedgeMs: number): Promise<Gathered<T>> {
	return new Promise((resolve, reject) => {
		const results = new Map<number, T>();
		const errors = new Map<number, unknown>();
		let started = 0;
		let running = 0;
		let done = false;
		let disarm: (() => void) | undefined;

		function finish(): void {
			done = true;
			disarm?.();
			resolve({ results, errors });
		}

		function fail(error: AssertionError): void {
			done = true;
			disarm?.();
			reject(error);
		}

		function ended(): void {
			running--;
			if (results.size >= need || (running === 0 && started === sources.length)) finish();
		}

		function start(): void {
			const at = started++;
			running++;
			(sources[at] as Source<T>)(() => !done).then(
				(value) => {
					if (done) return;
					results.set(at, value);
					ended();
				},
				(error: unknown) => {
					if (done) return;
					if (error instanceof AssertionError) return fail(error);
					errors.set(at, error);
					if (started < sources.length) start();
					ended();
				},
			);
		}

		function startMore(count: number): void {
			for (let i = 0; i < count && started < sources.length; i++) start();
			disarm?.();
			if (started < sources.length) disarm = clock.after(hedgeMs, () => startMore(need - results.size));
		}

		if (sources.length === 0) finish();
		else startMore(need);
	});
}
