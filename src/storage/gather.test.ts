import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AssertionError } from "../base/assert.ts";
import { Deferred } from "../base/async.ts";
import { SimWorld } from "../platform/sim/world.ts";
import { gather } from "./gather.ts";
import type { Source } from "./gather.ts";
import { SyncGate } from "./pack.ts";

describe("gather", () => {
	const world = new SimWorld({ seed: 1 });
	const clock = world.node().boot().clock;

	/** A source that answers (or fails) after some time; `log` gets its start time. */
	function source(value: string, ms: number, log: string[], fails = false): Source<string> {
		return async () => {
			log.push(`${value}@${Math.round(world.nowMs - start)}`);
			await clock.sleep(ms);
			if (fails) throw new Error(value);
			return value;
		};
	}
	let start = 0;

	function run<T>(work: () => Promise<T>): Promise<T> {
		start = world.nowMs;
		return world.run(work);
	}

	it("asks no more than it needs while all goes well", async () => {
		const log: string[] = [];
		const { results } = await run(() =>
			gather(
				clock,
				2,
				["a", "b", "c"].map((name) => source(name, 10, log)),
				250,
			),
		);
		assert.deepEqual(
			[...results],
			[
				[0, "a"],
				[1, "b"],
			],
		);
		assert.deepEqual(log, ["a@0", "b@0"]);
	});

	it("asks another at once when one fails, and more when some are slow", async () => {
		const log: string[] = [];
		const sources = [source("a", 10, log, true), source("b", 9999, log), source("c", 20, log), source("d", 30, log)];
		const { results, errors } = await run(() => gather(clock, 2, sources, 250));
		assert.deepEqual(
			[...results],
			[
				[2, "c"],
				[3, "d"],
			],
		);
		assert.deepEqual([...errors.keys()], [0]);
		assert.deepEqual(log, ["a@0", "b@0", "c@10", "d@250"]);
	});

	it("returns what there is when all have ended, and tells late ones that they are late", async () => {
		const log: string[] = [];
		const { results, errors } = await run(() =>
			gather(clock, 2, [source("a", 5, log, true), source("b", 9, log), source("c", 7, log, true)], 250),
		);
		assert.deepEqual([[...results], [...errors.keys()]], [[[1, "b"]], [0, 2]]);
		assert.deepEqual([...(await gather(clock, 1, [], 250)).results], []);
		const live: boolean[] = [];
		const late: Source<string> = async (isLive) => {
			await clock.sleep(500);
			live.push(isLive());
			return "late";
		};
		await run(() => gather(clock, 1, [late, source("quick", 5, log)], 250));
		await world.advance(1000);
		assert.deepEqual(live, [false]);
	});

	it("does not hide a failed assertion", async () => {
		const broken: Source<string> = () => Promise.reject(new AssertionError("broken"));
		await assert.rejects(
			run(() => gather(clock, 1, [broken, broken], 250)),
			AssertionError,
		);
	});
});

describe("sync gate", () => {
	it("serves all who came while a sync was running with the next one, and nobody with an older one", async () => {
		const gate = new SyncGate();
		const running: Deferred<void>[] = [];
		const sync = () => {
			running.push(new Deferred());
			return (running.at(-1) as Deferred<void>).promise;
		};
		const done: string[] = [];
		const ask = (name: string) => gate.request(sync).then(() => done.push(name));
		const all = [ask("a"), ask("b"), ask("c")];
		await Promise.resolve();
		assert.equal(running.length, 1);
		running[0]?.resolve();
		await all[0];
		assert.deepEqual(done, ["a"]);
		while (running.length < 2) await Promise.resolve();
		all.push(ask("d"));
		running[1]?.resolve();
		await Promise.all(all.slice(0, 3));
		assert.deepEqual(done, ["a", "b", "c"]);
		while (running.length < 3) await Promise.resolve();
		running[2]?.resolve();
		await Promise.all(all);
		assert.equal(running.length, 3);
	});

	it("never syncs again after a failure", async () => {
		const gate = new SyncGate();
		let calls = 0;
		const fails = () => {
			calls++;
			return Promise.reject(new Error("lost"));
		};
		const works = () => {
			calls++;
			return Promise.resolve();
		};
		const first = gate.request(fails);
		const second = gate.request(works);
		await assert.rejects(first, /lost/);
		await assert.rejects(second, /lost/);
		await assert.rejects(gate.request(works), /lost/);
		assert.equal(calls, 1);
	});
});
