/**
 * Transactions over an engine that behaves as a database at the end of a wire: answers that stay unknown, commits that come late, conflicts, reads that are old. Clients append the number of each
 * transaction to several lists at once; so the lists tell what happened, how often, and in which order.
 */
import { FsError } from "../../src/base/errors.ts";
import type { Commit, CommitResult, Engine } from "../../src/kv/interface.ts";
import { createMemoryEngine, createMemoryStore, type RemoteBehaviour } from "../../src/kv/memory/engine.ts";
import { transact } from "../../src/kv/transact.ts";
import { Prng } from "../../src/platform/sim/prng.ts";
import { SimWorld } from "../../src/platform/sim/world.ts";

export interface CommitsOptions {
	readonly seed: number;
	readonly steps: number;
	/** The bug: an unknown outcome is taken for a conflict. */
	readonly retriedBlindly?: boolean;
}

export interface CommitsOutcome {
	readonly failure: string | undefined;
	readonly done: number;
	readonly unknown: number;
	readonly refused: number;
	/** Commits that the engine answered with unknown. */
	readonly doubts: number;
}

type Fate = "done" | "unknown" | "refused";

export async function simulateCommits(options: CommitsOptions): Promise<CommitsOutcome> {
	const { seed, steps } = options;
	const world = new SimWorld({ seed });
	const random = new Prng(seed, "commits");
	const platform = world.node().boot();
	const store = createMemoryStore();
	const chance = (): number => random.pick([0, 0.02, 0.2]);
	const remote: RemoteBehaviour = {
		clock: platform.clock,
		random: platform.random,
		latencyMs: random.pick([0, 3, 30]),
		missedPeeks: random.pick([0, 0.3, 1]),
		conflicts: chance(),
		unknownDone: chance(),
		unknownNotDone: chance(),
		unknownLate: chance(),
		lateMs: random.pick([1, 20, 300]),
	};
	const engine = new Counted(createMemoryEngine({ store, remote, feedCommits: random.pick([10, 4096]) }), options.retriedBlindly ?? false);
	const keys = Array.from({ length: 1 + random.below(5) }, (_, i) => `list${i}`);
	const fates = new Map<number, { readonly keys: readonly string[]; readonly fate: Fate }>();
	let next = 1;
	const client = async (): Promise<void> => {
		for (let i = 0; i < steps; i++) {
			const number = next++;
			const chosen = keys.filter(() => random.chance(0.6));
			if (chosen.length === 0) continue;
			fates.set(number, { keys: chosen, fate: await append(engine, platform, number, chosen) });
			await world.sleep(random.below(5));
		}
	};
	const clients = 1 + random.below(4);
	await world.run(() => Promise.all(Array.from({ length: clients }, client)));
	// What is still under way comes.
	await world.advance(1_000);
	const lists = new Map(keys.map((key) => [key, numbersOf(store.entries.get(key)?.value)]));
	const count = (fate: Fate): number => [...fates.values()].filter((one) => one.fate === fate).length;
	const failure = judge(fates, lists);
	const { doubts } = engine;
	return {
		failure: failure === undefined ? undefined : `seed ${seed}: ${failure}`,
		done: count("done"),
		unknown: count("unknown"),
		refused: count("refused"),
		doubts,
	};
}

async function append(engine: Engine, modules: Parameters<typeof transact>[1], number: number, keys: readonly string[]): Promise<Fate> {
	let told = 0;
	try {
		await transact(
			engine,
			modules,
			(tx) => {
				for (const key of keys) tx.put(key, new TextEncoder().encode([...numbersOf(tx.get(key)), number].join()));
			},
			{ head: { key: "head", epoch: 1 }, onCommitted: () => void told++ },
		);
		if (told !== 1) throw new Error(`transaction ${number} was told ${told} times that it is committed`);
		return "done";
	} catch (error) {
		if (!(error instanceof FsError) || (error.code !== "EAGAIN" && error.code !== "EIO")) throw error;
		if (told > 0) throw new Error(`transaction ${number} was told that it is committed, and refused`, { cause: error });
		return error.site === "kv.unknown-outcome" ? "unknown" : "refused";
	}
}

function numbersOf(value: Uint8Array | undefined): number[] {
	const text = value === undefined ? "" : new TextDecoder().decode(value);
	return text === "" ? [] : text.split(",").map(Number);
}

function judge(
	fates: ReadonlyMap<number, { readonly keys: readonly string[]; readonly fate: Fate }>,
	lists: ReadonlyMap<string, readonly number[]>,
): string | undefined {
	for (const [number, { keys, fate }] of fates) {
		const times = keys.map((key) => (lists.get(key) ?? []).filter((one) => one === number).length);
		if (times.some((count) => count !== times[0])) return `transaction ${number} happened in part: ${times.join()}`;
		const count = times[0] ?? 0;
		if (count > 1) return `transaction ${number} happened ${count} times`;
		if (fate === "done" && count === 0) return `transaction ${number} was answered and did not happen`;
		if (fate === "refused" && count === 1) return `transaction ${number} was refused and happened`;
	}
	return orderFault([...lists.values()]);
}

/** Transactions that are in two lists are in one order. */
function orderFault(lists: readonly (readonly number[])[]): string | undefined {
	for (const a of lists) {
		for (const b of lists) {
			const common = a.filter((number) => b.includes(number));
			const other = b.filter((number) => a.includes(number));
			if (common.join() !== other.join())
				return `two lists have their transactions in different orders: ${common.join()} and ${other.join()}`;
		}
	}
	return undefined;
}

/** Counts unknown outcomes; with the bug it hides them. */
class Counted implements Engine {
	doubts = 0;
	readonly #engine: Engine;
	readonly #blind: boolean;

	constructor(engine: Engine, blind: boolean) {
		this.#engine = engine;
		this.#blind = blind;
	}

	get manifest() {
		return this.#engine.manifest;
	}

	get position() {
		return this.#engine.position;
	}

	read(...args: Parameters<Engine["read"]>) {
		return this.#engine.read(...args);
	}

	range(...args: Parameters<Engine["range"]>) {
		return this.#engine.range(...args);
	}

	peek(key: string) {
		return this.#engine.peek(key);
	}

	peekRange(...args: Parameters<Engine["peekRange"]>) {
		return this.#engine.peekRange(...args);
	}

	async commit(commit: Commit): Promise<CommitResult> {
		const result = await this.#engine.commit(commit);
		if (result.outcome !== "unknown") return result;
		this.doubts++;
		return this.#blind ? { outcome: "conflict" } : result;
	}

	durable(position: number) {
		return this.#engine.durable(position);
	}

	changesAfter(...args: Parameters<Engine["changesAfter"]>) {
		return this.#engine.changesAfter(...args);
	}

	close() {
		return this.#engine.close();
	}
}
