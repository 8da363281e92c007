/** One simulation from beginning to end, in this process. */
import { Simulation, type SimulationOptions } from "./simulation.ts";
import type { Statistics } from "./statistics.ts";

export interface Outcome {
	readonly seed: number;
	/** Undefined when it failed. */
	readonly digest: string | undefined;
	readonly failure: string | undefined;
	readonly statistics: Statistics;
}

export async function simulate(options: SimulationOptions): Promise<Outcome> {
	const simulation = new Simulation(options);
	const { seed } = options;
	try {
		const digest = await simulation.run();
		return { seed, digest, failure: undefined, statistics: simulation.stats };
	} catch (error) {
		return { seed, digest: undefined, failure: error instanceof Error ? error.message : String(error), statistics: simulation.stats };
	}
}

/** The fewest steps with which a seed fails, tried in doubles. Other steps may make another run: whatever fails is a failure. */
export async function shrink(options: SimulationOptions, failure: Outcome): Promise<Outcome> {
	for (let steps = 10; steps < options.steps; steps *= 2) {
		const outcome = await simulate({ ...options, steps });
		if (outcome.failure !== undefined) return outcome;
	}
	return failure;
}
