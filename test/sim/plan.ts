/** What a seed decides before the world begins: the shape of the volume, its limits, who works on it, and what goes wrong. Pure. */
import { Prng } from "../../src/platform/sim/prng.ts";

const MiB = 1024 * 1024;

export interface Plan {
	readonly seed: number;
	/** Operations of all clients together. */
	readonly steps: number;
	readonly diskCount: number;
	readonly redundancy: string;
	/** Disks that may be lost at once. */
	readonly tolerance: number;
	readonly diskBytes: number;
	/** Which disks, spare ones included, are raw devices. */
	readonly raw: readonly boolean[];
	/** Milliseconds that a disk takes for anything, at the most. Slow ones make long seals: much comes meanwhile. */
	readonly diskMs: number;
	readonly logSegmentBytes: number;
	readonly logSegmentCount: number;
	readonly memory: { readonly logTailBytes: number; readonly dirtyRingBytes: number };
	readonly clients: number;
	/** Milliseconds that a client waits between operations, at the most. */
	readonly thinkMs: number;
	/** Operations in one life of the daemon, on average. */
	readonly stepsPerLife: number;
	/** Largest write. */
	readonly writeBytes: number;
	/** Files and directories that the clients keep about. */
	readonly nodes: number;
	/** Milliseconds between faults, on average; 0 = none. */
	readonly faultEveryMs: number;
	/** Share of the operations that are asked for at once first. */
	readonly quickness: number;
	/** Share of the operations on names and attributes that are asked for by somebody else than root. */
	readonly others: number;
	readonly clockRate: number;
	/** A door plays SMB clients with durable opens beside the others. */
	readonly durableOpens: boolean;
	/** Chance of a death while the volume is being mounted. */
	readonly mountDeaths: number;
	/** Multiplies the weight of an operation or a fault, by its name. */
	weight(name: string): number;
}

/** Spare ones included. */
const mostDisks = 16;

interface Shape {
	readonly redundancy: string;
	readonly tolerance: number;
	readonly disks: readonly number[];
}

/**
 * With so many disks that those which may be lost are never a quorum of the roster: on fewer, a mount with a disk missing rightly asks the operator first.
 */
const shapes: readonly Shape[] = [
	{ redundancy: "rs:2+1", tolerance: 1, disks: [3, 4] },
	{ redundancy: "rs:4+2", tolerance: 2, disks: [6, 7] },
	{ redundancy: "rs:3+2", tolerance: 2, disks: [5, 6] },
	{ redundancy: "replicate:2", tolerance: 1, disks: [3, 4] },
	{ redundancy: "replicate:3", tolerance: 2, disks: [5, 6] },
];

/** None of them in most runs, all in some, some in others. */
function rawDisks(random: Prng): readonly boolean[] {
	const share = random.pick([0, 0, 0, 0, 1, 0.5]);
	return Array.from({ length: mostDisks }, () => random.chance(share));
}

export function planOf(seed: number, steps: number): Plan {
	const random = new Prng(seed, "plan");
	const shape = random.pick(shapes);
	// Each thing that can be done is common in some runs, rare in others and absent in some.
	const weights = new Map<string, number>();
	const weightSeed = random.u32();
	return {
		seed,
		steps,
		diskCount: random.pick(shape.disks),
		redundancy: shape.redundancy,
		tolerance: shape.tolerance,
		raw: rawDisks(new Prng(seed, "raw disks")),
		diskBytes: random.pick([256, 256, 128]) * MiB,
		logSegmentBytes: random.pick([1, 1, 1, 1, 2.5]) * MiB,
		logSegmentCount: random.pick([4, 4, 6]),
		memory: { logTailBytes: random.pick([1, 2]) * MiB, dirtyRingBytes: random.pick([1.5, 2, 4]) * MiB },
		clients: random.pick([1, 2, 3, 4]),
		thinkMs: random.pick([0, 1, 10, 100, 1000]),
		stepsPerLife: random.pick([20, 60, 150, 400]),
		writeBytes: random.pick([500, 5_000, 60_000, 300_000]),
		nodes: random.pick([8, 20, 60]),
		faultEveryMs: random.pick([0, 300, 1_000, 5_000]),
		diskMs: new Prng(seed, "disk speed").pick([0.5, 0.5, 5, 40]),
		quickness: new Prng(seed, "quickness").pick([0, 0.5, 1]),
		others: new Prng(seed, "others").pick([0, 0, 0.2, 0.5]),
		durableOpens: new Prng(seed, "durable opens").chance(0.3),
		clockRate: random.pick([1, 1, 0.99, 1.01]),
		mountDeaths: random.pick([0, 0.2, 0.6]),
		weight(name) {
			let weight = weights.get(name);
			if (weight === undefined) {
				weight = new Prng(weightSeed, `weight:${name}`).pick([0, 0.2, 1, 1, 1, 3]);
				weights.set(name, weight);
			}
			return weight;
		},
	};
}

/** One of the names, by weight; undefined when all weigh nothing. */
export function pickWeighted<T extends { readonly name: string; readonly weight: number }>(
	items: readonly T[],
	plan: Plan,
	random: Prng,
): T | undefined {
	const total = items.reduce((sum, item) => sum + item.weight * plan.weight(item.name), 0);
	let left = random.float() * total;
	for (const item of items) {
		left -= item.weight * plan.weight(item.name);
		if (left < 0) return item;
	}
	return undefined;
}
