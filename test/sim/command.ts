/** `npm run sim`: one seed, or a range of seeds on all cores. */
import { type ChildProcess, fork } from "node:child_process";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { hash32 } from "../../src/platform/sim/prng.ts";
import { neverHit } from "./coverage.ts";
import { everyPlace } from "./reach.ts";
import { type Outcome, shrink, simulate } from "./run.ts";
import type { SimulationOptions } from "./simulation.ts";
import { Statistics } from "./statistics.ts";
import type { Request } from "./worker.ts";

const usage = `Usage: npm run sim -- --seed N [--steps 2000] [--replay]
       npm run sim -- --seed N --steps S --only NAMES [--replay]
       npm run sim -- --seeds A..B [--steps 300] [--jobs J] [--reach] [--always NAMES]

  --seed N      one simulation; prints what it did and its digest
  --seeds A..B  all of them, on all cores; stops at the first failure, looks for the least that fails so, reports what was covered and a digest over those of all seeds
  --steps S     operations of all clients together in one simulation
  --only NAMES  of what the seed wants only this happens: as a failure that was made smaller says it
  --always NAMES  rare ways (points of \`buggify\`) that are taken each time, whatever the seed says
  --replay      prints every line of the trace
  --jobs J      processes; default: one for each core
  --reach       tells which errors and messages of the product never came up in a range; a fifth slower

A failure prints the seed, the last lines of the trace and the command that repeats it. Exit codes: 0 all right, 1 failed, 2 usage.`;

const progressMs = 10_000;
/** Bounds of looking for a smaller failure. */
const shrinkRuns = 400;
const shrinkMs = 120_000;

/** @returns the exit code. */
export async function simCommand(words: readonly string[], say: (line: string) => void): Promise<number> {
	const options = parse(words);
	if (options === undefined) {
		say(usage);
		return 2;
	}
	if (options.help) {
		say(usage);
		return 0;
	}
	const { first, last, steps, jobs, replay, reach, only, always } = options;
	if (first === last) return await one({ seed: first, steps: steps ?? 2000, ...only, ...always, ...(replay ? { onLine: say } : {}) }, say);
	return await many({ first, last, steps: steps ?? 300, jobs, reach, ...always }, say);
}

interface Options {
	readonly help: boolean;
	readonly first: number;
	readonly last: number;
	readonly steps: number | undefined;
	readonly jobs: number;
	readonly replay: boolean;
	readonly reach: boolean;
	readonly only: { readonly only?: ReadonlySet<string> };
	readonly always: Always;
}

/** Rare ways that are taken each time. */
interface Always {
	readonly always?: ReadonlySet<string>;
}

function parse(words: readonly string[]): Options | undefined {
	const text = { type: "string" } as const;
	const flag = { type: "boolean", default: false } as const;
	try {
		const { values } = parseArgs({
			args: [...words],
			options: { seed: text, seeds: text, steps: text, jobs: text, only: text, always: text, replay: flag, reach: flag, help: flag },
		});
		const { help, replay, reach } = values;
		const only = values.only === undefined ? {} : { only: new Set(values.only.split(",")) };
		const always = values.always === undefined ? {} : { always: new Set(values.always.split(",")) };
		if (help) return { help, first: 0, last: 0, steps: undefined, jobs: 1, replay, reach, only, always };
		const range = /^(\d+)(?:\.\.(\d+))?$/.exec(values.seed ?? values.seeds ?? "");
		if (range === null || (values.seed === undefined) === (values.seeds === undefined)) return undefined;
		const first = Number(range[1]);
		const last = Number(range[2] ?? range[1]);
		const steps = values.steps === undefined ? undefined : Number(values.steps);
		const jobs = Number(values.jobs ?? availableParallelism());
		const sane =
			[first, last, steps ?? 1, jobs].every((number) => Number.isSafeInteger(number)) && first <= last && jobs > 0 && (steps ?? 1) > 0;
		return sane ? { help, first, last, steps, jobs, replay, reach, only, always } : undefined;
	} catch {
		return undefined;
	}
}

async function one(options: SimulationOptions, say: (line: string) => void): Promise<number> {
	const outcome = await simulate(options);
	say(outcome.failure ?? outcome.statistics.report());
	if (outcome.digest !== undefined) say(`digest: ${outcome.digest}`);
	return outcome.failure === undefined ? 0 : 1;
}

interface Range extends Always {
	readonly first: number;
	readonly last: number;
	readonly steps: number;
	readonly jobs: number;
	readonly reach: boolean;
}

async function many({ first, last, steps, jobs, reach, ...always }: Range, say: (line: string) => void): Promise<number> {
	const started = performance.now();
	const seconds = (): number => Math.round((performance.now() - started) / 1000);
	const total = new Statistics();
	const failures: Outcome[] = [];
	const reached = new Set<string>();
	const digests = new Map<number, string>();
	let next = first;
	let done = 0;
	let shown = started;
	const lane = async (): Promise<void> => {
		const child = fork(fileURLToPath(new URL("./worker.js", import.meta.url)));
		try {
			if (reach) await ask(child, { kind: "watch" });
			while (next <= last && failures.length === 0) {
				const outcome = await simulated(child, next++, { steps, ...always });
				total.add(outcome.statistics);
				done++;
				if (outcome.failure !== undefined) failures.push(outcome);
				else digests.set(outcome.seed, outcome.digest ?? "");
				if (performance.now() - shown < progressMs) continue;
				shown = performance.now();
				say(`${done} of ${last - first + 1} seeds, ${seconds()} s`);
			}
			const names = reach ? ((await ask(child, { kind: "end" })) as readonly string[] | undefined) : [];
			for (const name of names ?? []) reached.add(name);
		} finally {
			child.kill();
		}
	};
	await Promise.all(Array.from({ length: Math.min(jobs, last - first + 1) }, lane));
	say(total.report());
	say(`never hit: ${neverHit(total).join(", ") || "nothing"}`);
	if (reach) {
		const missed = everyPlace().filter((name) => !reached.has(name));
		say(`never reached, of ${everyPlace().length} errors and messages of the product, ${missed.length}: ${missed.join(", ")}`);
	}
	const [failure] = failures.sort((a, b) => a.seed - b.seed);
	if (failure === undefined) {
		say(`${done} seeds, all right, ${seconds()} s`);
		const inOrder = [...digests].sort(([a], [b]) => a - b).map((one) => one.join());
		say(`digest: ${(hash32(inOrder.join("\n")) >>> 0).toString(16).padStart(8, "0")}`);
		return 0;
	}
	say(`\nseed ${failure.seed} failed after ${done} seeds; looking for the least that fails so`);
	const limits = { runs: shrinkRuns, limitMs: shrinkMs, nowMs: () => performance.now() };
	const least = await shrink({ seed: failure.seed, steps, ...always }, failure, limits);
	say(`${least.happened.length} events are left of ${failure.happened.length}\n${least.failure}`);
	return 1;
}

async function simulated(child: ChildProcess, seed: number, { steps, always }: Always & { readonly steps: number }): Promise<Outcome> {
	const answer = await ask(child, { kind: "seed", seed, steps, always: always && [...always] });
	if (answer === undefined)
		return { seed, digest: undefined, failure: `seed ${seed}: the process died\n`, statistics: new Statistics(), happened: [] };
	const outcome = answer as Outcome & { statistics: object };
	return { ...outcome, statistics: Statistics.fromJSON(outcome.statistics) };
}

/** Undefined: the process died. */
function ask(child: ChildProcess, request: Request): Promise<unknown> {
	return new Promise((resolve) => {
		const died = (): void => resolve(undefined);
		child.once("exit", died);
		child.once("message", (message) => {
			child.off("exit", died);
			resolve((message as { readonly value: unknown }).value ?? null);
		});
		child.send(request);
	});
}
