/** A process that simulates the seeds that its parent asks for. */
import { simulate } from "./run.ts";

process.on("message", (message) => {
	const { seed, steps } = message as { seed: number; steps: number };
	void simulate({ seed, steps }).then((outcome) => process.send?.({ ...outcome, statistics: outcome.statistics.toJSON() }));
});
