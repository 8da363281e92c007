/** A process that simulates the seeds that its parent asks for; at the end it says which places of the product were passed, if it was told to watch. */
import { Reach } from "./reach.ts";
import { simulate } from "./run.ts";

export type Request =
	| { readonly kind: "watch" }
	| { readonly kind: "seed"; readonly seed: number; readonly steps: number; readonly always?: readonly string[] | undefined }
	| { readonly kind: "end" };

const reach = new Reach();

async function answer(request: Request): Promise<unknown> {
	if (request.kind === "watch") return await reach.begin();
	if (request.kind === "end") return await reach.end();
	const outcome = await simulate({ seed: request.seed, steps: request.steps, ...(request.always && { always: new Set(request.always) }) });
	return { ...outcome, statistics: outcome.statistics.toJSON() };
}

process.on("message", (message) => void answer(message as Request).then((value) => process.send?.({ value })));
