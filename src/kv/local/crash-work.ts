/** For crash tests: a workload of which every state is known, and the check of what a mount finds after it was cut short. */
import assert from "node:assert/strict";
import { choices } from "../../../test/conformance/kv.ts";
import type { Entry } from "../interface.ts";
import type { LocalEngine } from "./engine.ts";
import { createVolume, type Mounted, machine, mount, type TestMachine } from "./test-world.ts";

export interface Knowledge {
	/** Commits that were acknowledged. Commit i writes i under the key "n". */
	committed: number;
	/** Newest one that was acknowledged durable. */
	durable: number;
	/** The disks that a scenario can do without from now on may be lost. */
	mayLose?: readonly string[];
}

interface Changes {
	readonly puts: readonly (readonly [string, string])[];
	readonly deletes: readonly string[];
}

const limits = { memtableBytes: 3 * 1024, manifestSlotBytes: 4 * 1024 };

/** What commit `i` does: a pure function of the seed. */
function changesOf(seed: number, i: number): Changes {
	const choose = choices(seed * 1_000 + i);
	const puts = new Map<string, string>([["n", String(i)]]);
	const deletes = new Set<string>();
	for (let c = 0; c < 4; c++) {
		const key = `k${String(choose(30)).padStart(2, "0")}`;
		if (choose(4) === 0) deletes.add(key);
		else puts.set(key, `${i}:${"v".repeat(choose(choose(10) === 0 ? 900 : 120))}`);
	}
	return { puts: [...puts].filter(([key]) => !deletes.has(key)), deletes: [...deletes] };
}

export function stateAfter(seed: number, commits: number): [string, string][] {
	const state = new Map<string, string>();
	for (let i = 1; i <= commits; i++) {
		const { puts, deletes } = changesOf(seed, i);
		for (const [key, value] of puts) state.set(key, value);
		for (const key of deletes) state.delete(key);
	}
	return [...state].sort((a, b) => (a[0] < b[0] ? -1 : 1));
}

export async function commitOne(engine: LocalEngine, seed: number, i: number): Promise<number> {
	const { puts, deletes } = changesOf(seed, i);
	const encoded = puts.map(([key, value]) => [key, new TextEncoder().encode(value)] as const);
	const result = await engine.commit({ expect: [], puts: encoded, deletes });
	assert.equal(result.outcome, "committed");
	return result.outcome === "committed" ? result.position : 0;
}

export async function commitSome(engine: LocalEngine, seed: number, known: Knowledge, upTo: number): Promise<void> {
	while (known.committed < upTo) {
		const i = known.committed + 1;
		const position = await commitOne(engine, seed, i);
		known.committed = i;
		if (i % 6 === 0) {
			await engine.durable(position);
			known.durable = i;
		}
	}
}

/** Commits with flushes and merges, a clean end, and again. */
export async function workload(at: TestMachine, seed: number, known: Knowledge, commits = 36): Promise<void> {
	const first = await mountSmall(at);
	await commitSome(first.engine, seed, known, Math.floor(commits / 2));
	await first.close();
	known.durable = known.committed;
	const second = await mountSmall(at);
	await commitSome(second.engine, seed, known, commits - 4);
	// Time for merges, before the last commits.
	await second.platform.clock.sleep(200);
	await commitSome(second.engine, seed, known, commits);
	const flushes = first.engine.statistics.flushes + second.engine.statistics.flushes;
	const merges = first.engine.statistics.merges + second.engine.statistics.merges;
	assert.ok(flushes > 3 && merges > 0, `it flushes (${flushes}) and merges (${merges})`);
}

export function mountSmall(at: TestMachine, paths?: readonly string[]): Promise<Mounted> {
	return mount(at, paths ? { limits, paths } : { limits });
}

export async function everything(engine: LocalEngine): Promise<[string, string][]> {
	const entries: Entry[] = await engine.range({ start: "", end: undefined, limit: 10_000 });
	return entries.map((entry) => [entry.key, new TextDecoder().decode(entry.value)]);
}

/** Asserts that the engine is in one of the states of the workload, and returns which. */
export async function stateOf(engine: LocalEngine, seed: number, where: string): Promise<number> {
	const found = await everything(engine);
	const n = Number(found.find(([key]) => key === "n")?.[1] ?? "0");
	assert.deepEqual(found, stateAfter(seed, n), `${where}: not the state after commit ${n}`);
	return n;
}

export async function freshMachine(seed: number, disks = 4): Promise<TestMachine> {
	const at = machine(seed, disks);
	await createVolume(at);
	return at;
}

/** What goes on before the end, and on how many disks. */
export interface Scenario {
	readonly disks: number;
	run(at: TestMachine, seed: number, known: Knowledge): Promise<void>;
}

export const flushing: Scenario = { disks: 4, run: workload };

/** A manifest disk goes; the metadata moves to another one. Then the two that stayed may be lost as well. */
export const moving: Scenario = {
	disks: 6,
	async run(at, seed, known) {
		const first = await mountSmall(at);
		await commitSome(first.engine, seed, known, 15);
		await first.close();
		known.durable = known.committed;
		const { engine, platform, disks } = await mountSmall(at);
		assert.deepEqual(engine.members, [1, 2, 3]);
		at.world.vanish("/d1");
		// Over when runs, manifest and log are elsewhere and no log epoch needs the old disks.
		const isMoved = (): boolean => engine.members.length === 3 && disks.roster.logEpochs.every((epoch) => !epoch.members.includes(1));
		for (let i = 0; !isMoved(); i++) {
			assert.ok(i < 30_000, "the metadata moves");
			await platform.clock.sleep(1);
		}
		known.mayLose = ["/d2", "/d3"];
		await platform.clock.sleep(20);
		await commitSome(engine, seed, known, 24);
	},
};

export async function stepsOf(scenario: Scenario, seed: number): Promise<{ readonly before: number; readonly after: number }> {
	const at = await freshMachine(seed, scenario.disks);
	const before = at.world.steps;
	await at.world.run(scenario.run(at, seed, { committed: 0, durable: 0 }));
	return { before, after: at.world.steps };
}

export interface Ending {
	readonly how: "cut" | "kill";
	readonly step: number;
	readonly seed: number;
	/** Sync sites that do nothing. */
	readonly sabotage?: readonly string[];
}

/** Ends power or process at a step, mounts, checks, cuts the power again, mounts, checks. */
export async function endAt(scenario: Scenario, ending: Ending): Promise<void> {
	const { how, step, seed } = ending;
	const where = `seed ${seed}, ${how} at step ${step}`;
	const at = await freshMachine(seed, scenario.disks);
	for (const site of ending.sabotage ?? []) at.world.ignoreSync(site);
	const known: Knowledge = { committed: 0, durable: 0 };
	const ended = how === "cut" ? at.world.cutAt(step) : at.world.killAt(step);
	await at.world.run(Promise.race([scenario.run(at, seed, known), ended]));
	if (!at.world.wasCut) at.node.powerCut();
	for (const path of known.mayLose ?? []) at.world.vanish(path);
	const least = how === "kill" && at.world.wasCut ? known.committed : known.durable;
	const first = await at.world.run(mountSmall(at));
	const n = await at.world.run(stateOf(first.engine, seed, where));
	assert.ok(n >= least, `${where}: commit ${least} was acknowledged, commit ${n} is the newest found`);
	at.node.powerCut();
	const second = await at.world.run(mountSmall(at));
	assert.equal(await at.world.run(stateOf(second.engine, seed, where)), n, `${where}: what a mount has shown is durable`);
	at.node.powerCut();
}
