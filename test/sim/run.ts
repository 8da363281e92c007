/** One simulation from beginning to end, in this process; and of one that failed the least that fails in the same way. */
import { Simulation, type SimulationOptions } from "./simulation.ts";
import type { Statistics } from "./statistics.ts";

export interface Outcome {
	readonly seed: number;
	/** Undefined when it failed. */
	readonly digest: string | undefined;
	readonly failure: string | undefined;
	readonly statistics: Statistics;
	/** Names of what happened: operations, faults, deaths. */
	readonly happened: readonly string[];
}

export async function simulate(options: SimulationOptions): Promise<Outcome> {
	const simulation = new Simulation(options);
	const { seed } = options;
	const { stats: statistics, happened } = simulation;
	try {
		return { seed, digest: await simulation.run(), failure: undefined, statistics, happened };
	} catch (error) {
		return { seed, digest: undefined, failure: error instanceof Error ? error.message : String(error), statistics, happened };
	}
}

/** What a failure says, without the numbers in it: that of fewer operations is taken for the same only when it is of its kind. */
function kindOf(failure: string): string {
	const what = failure.slice(failure.indexOf(": ") + 2, failure.indexOf("\n"));
	return what.replace(/\d+/g, "N").slice(0, 24);
}

export interface ShrinkLimits {
	/** Simulations. */
	readonly runs: number;
	readonly nowMs: () => number;
	readonly limitMs: number;
}

const shrunkLines = 400;

/** Looks for fewer steps, then leaves out whatever is not needed, in halves, quarters, … one by one. Bounded; the best that was found when the bound is met. */
export async function shrink(options: SimulationOptions, failure: Outcome, limits: ShrinkLimits): Promise<Outcome> {
	const shrinker = new Shrinker(options, failure, limits);
	await shrinker.fewerSteps();
	await shrinker.fewerEvents();
	return shrinker.best;
}

class Shrinker {
	best: Outcome;
	#options: SimulationOptions;
	readonly #kind: string;
	readonly #limits: ShrinkLimits;
	readonly #endMs: number;
	#runs = 0;

	constructor(options: SimulationOptions, failure: Outcome, limits: ShrinkLimits) {
		this.best = failure;
		this.#options = { ...options, lines: shrunkLines };
		this.#kind = kindOf(failure.failure ?? "");
		this.#limits = limits;
		this.#endMs = limits.nowMs() + limits.limitMs;
	}

	get #over(): boolean {
		return this.#runs >= this.#limits.runs || this.#limits.nowMs() > this.#endMs;
	}

	/** True: it fails so, too, and is the best from now on. */
	async #fails(change: Partial<SimulationOptions>): Promise<boolean> {
		this.#runs++;
		const options = { ...this.#options, ...change };
		const outcome = await simulate(options);
		if (outcome.failure === undefined || kindOf(outcome.failure) !== this.#kind) return false;
		this.best = outcome;
		this.#options = options;
		return true;
	}

	/** Other steps may make another run: so the doubles first. */
	async fewerSteps(): Promise<void> {
		let right = 0;
		for (let steps = 10; steps < this.#options.steps && !this.#over; steps *= 2) {
			if (await this.#fails({ steps })) break;
			right = steps;
		}
		while (this.#options.steps - right > 2 && !this.#over) {
			const steps = (this.#options.steps + right) >> 1;
			if (!(await this.#fails({ steps }))) right = steps;
		}
	}

	async fewerEvents(): Promise<void> {
		for (let count = this.best.happened.length; count > 0 && !this.#over; count = count === 1 ? 0 : (count + 1) >> 1) {
			for (let at = 0; at < this.best.happened.length && !this.#over; ) {
				const kept = this.best.happened.filter((_, i) => i < at || i >= at + count);
				if (!(await this.#fails({ only: new Set(kept) }))) at += count;
			}
		}
	}
}
