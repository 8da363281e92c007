/**
 * What a keeper does when: a pure function of what happens to the daemon. keeper.ts performs it.
 *
 * Invariants
 *  K1 A daemon that said "bye" is not followed by another.
 *  K2 At most one daemon of this keeper is alive at a time: a successor is started after the connection to its predecessor has ended.
 *  K3 Programs that use the mount wait for a bounded time: after `deathsInARow` daemons that did not come to serve for a while, or one that could not start within its time, the mount is given up.
 *  K4 A keeper that ends although its mount lives ends the connection.
 */
import { deathsInARow, firstRestartMs, longestRestartMs, servedEnoughMs, startWithinMs } from "./limits.ts";
import type { Plan, Program, ToKeeper } from "./keeper-link.ts";

export type Happened =
	| { readonly kind: "told"; readonly message: ToKeeper }
	/** The connection to the daemon has ended; `how`: by which signal or exit code, where that is known. */
	| { readonly kind: "ended"; readonly how: string }
	/** A time that was asked for is over. */
	| { readonly kind: "time" }
	/** Somebody wants this process to end. */
	| { readonly kind: "signal"; readonly signal: string };

export type Effect =
	| { readonly kind: "start"; readonly plan: Plan; readonly renewKeeper: boolean }
	/** Ends the connection to the kernel, whoever else holds it: programs that wait get an error. */
	| { readonly kind: "abandon" }
	/** A new `time`, in place of an earlier one; undefined: none. */
	| { readonly kind: "timer"; readonly ms: number | undefined }
	| { readonly kind: "tell-stop"; readonly reason: string }
	/** kill -9: it does not come to serve. */
	| { readonly kind: "kill" }
	| { readonly kind: "log"; readonly level: "info" | "warn" | "error"; readonly message: string }
	| { readonly kind: "end"; readonly exitCode: number };

type Phase = "serving" | "waiting" | "starting" | "over";

export class KeeperCore {
	#phase: Phase = "serving";
	#plan: Plan | undefined;
	/** The daemon that serves hands over to this program. */
	#handOver: Program | undefined;
	/** What served before the program that is being tried, and how: that one may have said other things since. */
	#before: Plan | undefined;
	#deaths = 0;
	#servingSinceMs: number;
	#stopping = false;

	constructor(nowMs: number) {
		this.#servingSinceMs = nowMs;
	}

	apply(happened: Happened, nowMs: number): Effect[] {
		if (this.#phase === "over") return [];
		switch (happened.kind) {
			case "told":
				return this.#told(happened.message, nowMs);
			case "ended":
				return this.#ended(happened.how, nowMs);
			case "time":
				return this.#time();
			case "signal":
				return this.#signal(happened.signal);
		}
	}

	#told(message: ToKeeper, nowMs: number): Effect[] {
		// A daemon of another version may say anything.
		switch ((message as ToKeeper | null)?.kind) {
			case "plan":
				this.#plan = (message as Extract<ToKeeper, { kind: "plan" }>).plan;
				return [];
			case "hand-over":
				this.#handOver = (message as Extract<ToKeeper, { kind: "hand-over" }>).program;
				return [];
			case "bye":
				return this.#over(0);
			case "serving":
				return this.#phase === "starting" ? this.#served(nowMs) : [];
			default:
				return [log("warn", `the daemon said what this keeper does not understand: ${JSON.stringify(message).slice(0, 100)}`)];
		}
	}

	#served(nowMs: number): Effect[] {
		this.#phase = "serving";
		this.#servingSinceMs = nowMs;
		this.#before = undefined;
		// It has a mount and a keeper of its own.
		if (this.#plan?.resume === null) return this.#over(0);
		const stop: Effect[] = this.#stopping ? [{ kind: "tell-stop", reason: "the keeper was asked to end" }] : [];
		return [{ kind: "timer", ms: undefined }, { kind: "log", level: "info", message: "the mount is served again" }, ...stop];
	}

	#ended(how: string, nowMs: number): Effect[] {
		const plan = this.#plan;
		if (plan === undefined) return [log("error", `the daemon ended (${how}) before it said how to go on`), ...this.#over(1)];
		if (this.#handOver !== undefined) return this.#followUp(plan, this.#handOver);
		if (this.#stopping) return [log("warn", `the daemon ended (${how}) while it was to stop`), ...this.#over(1)];
		if (this.#phase === "starting" && this.#before !== undefined) return this.#goBack(plan, this.#before, how);
		if (this.#phase === "serving" && nowMs - this.#servingSinceMs >= servedEnoughMs) this.#deaths = 0;
		this.#deaths++;
		if (this.#deaths > deathsInARow) return this.#giveUp(`the daemon ended ${this.#deaths} times in a row, the last time by ${how}`);
		const waitMs = this.#deaths === 1 ? 0 : Math.min(longestRestartMs, firstRestartMs * 2 ** (this.#deaths - 2));
		const abandon: Effect[] = plan.resume === null ? [{ kind: "abandon" }] : [];
		const what = plan.resume === null ? "the volume is mounted anew" : "programs wait for its successor";
		this.#phase = "waiting";
		return [log("warn", `the daemon ended (${how}): ${what}`), ...abandon, { kind: "timer", ms: waitMs }];
	}

	#followUp(plan: Plan, program: Program): Effect[] {
		this.#handOver = undefined;
		this.#before = plan;
		this.#plan = { ...plan, program };
		return [log("info", `the daemon has handed over to ${program.at(-1)}`), ...this.#start(true)];
	}

	/** A program that cannot serve is no reason to lose the mount. */
	#goBack(plan: Plan, before: Plan, how: string): Effect[] {
		this.#before = undefined;
		this.#plan = before;
		return [
			log("error", `${plan.program.at(-1)} ended (${how}) before it served: back to ${before.program.at(-1)}`),
			...this.#start(false),
		];
	}

	#start(renewKeeper: boolean): Effect[] {
		this.#phase = "starting";
		return [
			{ kind: "start", plan: this.#plan as Plan, renewKeeper },
			{ kind: "timer", ms: startWithinMs },
		];
	}

	#time(): Effect[] {
		if (this.#phase === "waiting") return this.#start(false);
		if (this.#phase !== "starting") return [];
		return [{ kind: "kill" }, ...this.#giveUp(`the daemon did not come to serve within ${startWithinMs / 60_000} minutes`)];
	}

	#signal(signal: string): Effect[] {
		this.#stopping = true;
		if (this.#phase === "waiting") return this.#giveUp(`${signal} came while no daemon was there`);
		return [{ kind: "tell-stop", reason: `${signal} to the keeper` }];
	}

	#giveUp(why: string): Effect[] {
		const message = `${why}: the mount is given up, programs get errors from it. Nothing acknowledged is lost: mount the volume again`;
		return [log("error", message), ...this.#over(1)];
	}

	#over(exitCode: number): Effect[] {
		this.#phase = "over";
		return exitCode === 0 ? [{ kind: "end", exitCode }] : [{ kind: "abandon" }, { kind: "end", exitCode }];
	}
}

function log(level: "info" | "warn" | "error", message: string): Effect {
	return { kind: "log", level, message };
}
