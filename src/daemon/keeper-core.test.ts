import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type Effect, KeeperCore } from "./keeper-core.ts";
import type { Plan, ToKeeper } from "./keeper-link.ts";
import { deathsInARow, longestRestartMs, servedEnoughMs, startWithinMs } from "./limits.ts";

const plan: Plan = { program: ["node", "/old/main.js"], words: ["demo"], resume: { version: 1, session: 7, negotiated: null } };

/** A keeper and its clock. */
class Setup {
	nowMs = 1000;
	readonly core = new KeeperCore(this.nowMs);

	constructor(first: Plan | undefined = plan) {
		if (first !== undefined) this.tell({ kind: "plan", plan: first });
	}

	#kinds(effects: readonly Effect[]): string[] {
		return effects.filter(({ kind }) => kind !== "log").map(told);
	}

	tell(message: ToKeeper): string[] {
		return this.#kinds(this.core.apply({ kind: "told", message }, this.nowMs));
	}

	end(afterMs = 0): string[] {
		this.nowMs += afterMs;
		return this.#kinds(this.core.apply({ kind: "ended", how: "SIGKILL" }, this.nowMs));
	}

	time(): string[] {
		return this.#kinds(this.core.apply({ kind: "time" }, this.nowMs));
	}

	signal(): string[] {
		return this.#kinds(this.core.apply({ kind: "signal", signal: "SIGTERM" }, this.nowMs));
	}
}

function told(effect: Effect): string {
	switch (effect.kind) {
		case "start":
			return `start ${effect.plan.program.at(-1)}${effect.renewKeeper ? " new" : ""}`;
		case "timer":
			return `timer ${effect.ms ?? "off"}`;
		case "end":
			return `end ${effect.exitCode}`;
		default:
			return effect.kind;
	}
}

const startOld = ["start /old/main.js", `timer ${startWithinMs}`];

describe("the keeper", () => {
	test("follows a death with a successor, as often as each has served a while", () => {
		const setup = new Setup();
		for (let i = 0; i < 3 * deathsInARow; i++) {
			assert.deepEqual(setup.end(servedEnoughMs), ["timer 0"]);
			assert.deepEqual(setup.time(), startOld);
			assert.deepEqual(setup.tell({ kind: "serving" }), ["timer off"]);
		}
	});

	test("waits longer and longer for what dies at once, then gives the mount up, once", () => {
		const setup = new Setup();
		const pauses: number[] = [];
		for (let i = 0; i < deathsInARow; i++) {
			const [timer] = setup.end();
			pauses.push(Number(timer?.split(" ")[1]));
			assert.deepEqual(setup.time(), startOld);
			// Half of them come to serve, and die of the first request.
			if (i % 2 === 0) setup.tell({ kind: "serving" });
		}
		assert.deepEqual([pauses[0], pauses.at(-1)], [0, longestRestartMs]);
		assert.deepEqual(
			[...pauses].sort((a, b) => a - b),
			pauses,
		);
		assert.deepEqual(setup.end(), ["abandon", "end 1"]);
		assert.deepEqual([setup.end(), setup.time(), setup.signal()], [[], [], []]);
	});

	test("does not follow a daemon that said goodbye", () => {
		const setup = new Setup();
		assert.deepEqual(setup.tell({ kind: "bye" }), ["end 0"]);
		assert.deepEqual(setup.end(), []);
	});

	test("gives up on one that does not come to serve", () => {
		const setup = new Setup();
		setup.end();
		setup.time();
		assert.deepEqual(setup.time(), ["kill", "abandon", "end 1"]);
	});

	test("a time that is over while the daemon serves means nothing", () => {
		assert.deepEqual(new Setup().time(), []);
	});

	test("a hand-over is followed at once, by the new program from then on", () => {
		const setup = new Setup();
		assert.deepEqual(setup.tell({ kind: "hand-over", program: ["node", "/new/main.js"] }), []);
		assert.deepEqual(setup.end(), ["start /new/main.js new", `timer ${startWithinMs}`]);
		setup.tell({ kind: "serving" });
		assert.deepEqual(setup.end(servedEnoughMs), ["timer 0"]);
		assert.deepEqual(setup.time(), ["start /new/main.js", `timer ${startWithinMs}`]);
	});

	test("a new program that cannot serve makes room for the old one", () => {
		const setup = new Setup();
		setup.tell({ kind: "hand-over", program: ["node", "/new/main.js"] });
		setup.end();
		assert.deepEqual(setup.end(), startOld);
		assert.deepEqual(setup.tell({ kind: "serving" }), ["timer off"]);
	});

	test("a new program that has said how it would be followed and then ends is not followed that way", () => {
		const setup = new Setup();
		setup.tell({ kind: "hand-over", program: ["node", "/new/main.js"] });
		setup.end();
		setup.tell({ kind: "plan", plan: { program: ["node", "/new/main.js"], words: ["--tomorrow"], resume: null } });
		const effects = setup.core.apply({ kind: "ended", how: "exit code 4" }, setup.nowMs);
		const start = effects.find((effect) => effect.kind === "start");
		assert.deepEqual(start?.kind === "start" && start.plan, plan);
	});

	test("what a newer daemon says and this keeper does not know is no word of serving", () => {
		const setup = new Setup();
		setup.tell({ kind: "hand-over", program: ["node", "/new/main.js"] });
		setup.end();
		for (const unknown of [{ kind: "weather" }, { kind: "Serving" }, {}, null, 7, "serving"]) {
			const effects = setup.core.apply({ kind: "told", message: unknown as unknown as ToKeeper }, setup.nowMs);
			assert.deepEqual(
				effects.map(({ kind }) => kind),
				["log"],
				JSON.stringify(unknown),
			);
		}
		assert.deepEqual(setup.end(), startOld, "it never served");
	});

	test("where mounts cannot be resumed, programs get errors before the volume is mounted anew", () => {
		const setup = new Setup({ ...plan, resume: null });
		assert.deepEqual(setup.end(), ["abandon", "timer 0"]);
		assert.deepEqual(setup.time(), startOld);
		assert.deepEqual(setup.tell({ kind: "serving" }), ["end 0"]);
	});

	test("asked to end, it has the daemon end, and does not follow it", () => {
		const setup = new Setup();
		assert.deepEqual(setup.signal(), ["tell-stop"]);
		assert.deepEqual(setup.end(), ["abandon", "end 1"]);
		const waiting = new Setup();
		waiting.end();
		assert.deepEqual(waiting.signal(), ["abandon", "end 1"]);
		const starting = new Setup();
		starting.end();
		starting.time();
		assert.deepEqual(starting.signal(), ["tell-stop"]);
		assert.deepEqual(starting.tell({ kind: "serving" }), ["timer off", "tell-stop"]);
	});

	test("a daemon that ends before it has said anything cannot be followed", () => {
		const effects = new KeeperCore(0).apply({ kind: "ended", how: "SIGKILL" }, 1);
		assert.deepEqual(effects.filter(({ kind }) => kind !== "log").map(told), ["abandon", "end 1"]);
	});
});
