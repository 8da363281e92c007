/**
 * What goes wrong with disks and clocks, as one table, and the rule that keeps it survivable: no more disks are hurt than the volume tolerates until everything is whole
 * again. So whatever is refused, lost or not healed is the volume's fault.
 */
import type { Prng } from "../../src/platform/sim/prng.ts";
import type { DiskSnapshot } from "../../src/platform/sim/device.ts";
import type { Life, Simulation } from "./simulation.ts";

export interface Fault {
	readonly name: string;
	readonly weight: number;
	/** It can lose contents or a disk: one of the tolerated. */
	readonly hurts: boolean;
	/** Only while no daemon runs. */
	readonly offline?: boolean;
	/** Only of disks that hold the metadata. */
	readonly mirrors?: boolean;
	strike(faults: Faults, path: string, random: Prng): void;
}

const inPacks = (name: string): boolean => name.startsWith("pack/");
const inLog = (name: string): boolean => name.startsWith("log/");
const inRuns = (name: string): boolean => name.startsWith("kv/");
const anywhere = (): boolean => true;

export const faultTable: readonly Fault[] = [
	{ name: "hang", weight: 1, hurts: true, strike: (faults, path, random) => faults.hang(path, random.pick([50, 3_000, 60_000])) },
	{ name: "sync-fails-once", weight: 2, hurts: true, strike: ({ world }, path) => world.failNextSync(path) },
	{ name: "names-sync-fails", weight: 1, hurts: true, strike: ({ world }, path) => world.fail(path, ["syncNames"], "EIO", 1) },
	{
		name: "writes-fail",
		weight: 1,
		hurts: true,
		strike: ({ world }, path, random) => world.fail(path, ["write"], "EIO", 1 + random.below(3)),
	},
	{
		name: "reads-fail",
		weight: 2,
		hurts: true,
		strike: ({ world }, path, random) => world.fail(path, ["read"], "EIO", 1 + random.below(20)),
	},
	{ name: "vanish", weight: 1, hurts: true, strike: ({ world }, path) => world.vanish(path) },
	{ name: "unlinked", weight: 1, hurts: true, strike: ({ world }, path) => world.vanish(path, { unlinked: true }) },
	{ name: "read-only", weight: 1, hurts: true, strike: ({ world }, path) => world.readOnly(path) },
	{ name: "full", weight: 1, hurts: true, strike: (faults, path, random) => faults.fill(path, random.pick([100, 5_000])) },
	{
		name: "volume-full",
		weight: 1,
		hurts: false,
		strike: (faults, _path, random) => faults.fillAll(random.pick([500, 5_000, 20_000])),
	},
	{
		name: "starved",
		weight: 2,
		hurts: false,
		strike: (faults, _path, random) => faults.starveAll(random.pick([500, 3_000, 20_000])),
	},
	{ name: "refusing", weight: 1, hurts: true, strike: (faults, path, random) => faults.refuse(path, random.pick([100, 5_000])) },
	{
		name: "rot",
		weight: 3,
		hurts: true,
		strike: (faults, path, random) =>
			void faults.world.rot(
				path,
				random.pick([0.001, 0.05, 1]),
				faults.places(path, random.pick([inPacks, inPacks, inLog, inRuns, anywhere])),
			),
	},
	{
		name: "write-lost",
		weight: 1,
		hurts: true,
		strike: (faults, path, random) => faults.world.lieNextWrite(path, "lost", faults.places(path, random.pick([inPacks, inLog, inRuns]))),
	},
	{
		name: "write-misdirected",
		weight: 1,
		hurts: true,
		strike: (faults, path, random) =>
			faults.world.lieNextWrite(path, "misplaced", faults.places(path, random.pick([inPacks, inLog, inRuns]))),
	},
	{
		name: "read-stale",
		weight: 2,
		hurts: true,
		strike: (faults, path, random) => faults.world.disk(path).lieNextReads("stale", 1 + random.below(4), faults.places(path, inPacks)),
	},
	{
		name: "read-misdirected",
		weight: 2,
		hurts: true,
		strike: (faults, path, random) =>
			faults.world.disk(path).lieNextReads("misdirected", 1 + random.below(4), faults.places(path, random.pick([inPacks, inRuns]))),
	},
	{
		name: "slow",
		weight: 2,
		hurts: false,
		strike: (faults, path, random) => faults.slow(path, random.pick([5, 60]), random.pick([500, 10_000])),
	},
	{ name: "clock-jump", weight: 2, hurts: false, strike: (faults, _path, random) => faults.jump(random) },
	{ name: "old-contents", weight: 2, hurts: true, offline: true, strike: (faults, path) => faults.comeBackOld(path) },
	{ name: "wiped", weight: 1, hurts: true, offline: true, strike: ({ world }, path) => world.wipe(path) },
	{ name: "absent", weight: 1, hurts: true, offline: true, strike: ({ world }, path) => world.vanish(path) },
	{
		name: "offline-rot",
		weight: 2,
		hurts: true,
		offline: true,
		strike: ({ world }, path, random) => void world.rot(path, random.pick([0.001, 0.1, 1])),
	},
	{
		name: "mirrors-lost",
		weight: 3,
		hurts: true,
		offline: true,
		mirrors: true,
		strike: (faults, path, random) => faults.leaveOneMirror(path, random),
	},
];

export class Faults {
	readonly #sim: Simulation;
	/** Hurt since everything was last seen whole. */
	readonly hurt = new Set<string>();
	/** Disks that hold the metadata now: what is lost of these matters most. */
	mirrors: readonly string[] = [];
	readonly #old = new Map<string, DiskSnapshot>();

	constructor(sim: Simulation) {
		this.#sim = sim;
	}

	get world() {
		return this.#sim.world;
	}

	/** One fault, if the rule allows it. `kind`: no other than that. */
	strike(life: Life | undefined, name: string, kind?: string): void {
		const { plan } = this.#sim;
		const random = this.#sim.randomOf(name);
		const possible = faultTable.filter((fault) => (fault.offline ?? false) === (life === undefined) && (kind ?? fault.name) === fault.name);
		const fault = this.#sim.pickWeighted(possible, random);
		if (fault === undefined) return;
		const path = this.#target(fault, plan.tolerance, random);
		if (path === undefined || !this.world.disk(path).present || !this.#sim.happens(name)) return;
		if (fault.hurts) this.hurt.add(path);
		this.#sim.note(`fault ${fault.name} on ${path}`);
		this.#sim.stats.count("faults", fault.name);
		fault.strike(this, path, random);
	}

	/** A disk that was hurt already may always be hurt again. */
	#target(fault: Fault, tolerance: number, random: Prng): string | undefined {
		const paths = this.#sim.inUse;
		const some =
			fault.mirrors || (fault.offline && random.chance(0.6))
				? this.mirrors.filter((path) => paths.includes(path) && !this.hurt.has(path))
				: paths;
		const candidates = !fault.hurts || this.hurt.size < tolerance ? some : [...this.hurt];
		return candidates.length === 0 ? undefined : random.pick(candidates);
	}

	hang(path: string, forMs: number): void {
		this.world.hang(path);
		this.#later(forMs, () => this.world.unhang(path));
	}

	/** A device has all its bytes: the disk that is made of it has no room for more, where it is not overwritten. */
	fill(path: string, forMs: number): void {
		const device = this.world.disk(path);
		if (device.raw) device.starve((name) => inPacks(name) || inRuns(name));
		else device.full();
		this.#sim.spaceIsTight();
		this.#later(forMs, () => {
			device.full(false);
			device.starve(undefined);
		});
	}

	/** Files of these names; a device has none, and is hit anywhere. */
	places(path: string, matches: (name: string) => boolean): (name: string) => boolean {
		return this.world.disk(path).raw ? anywhere : matches;
	}

	/** No disk has room: what is dirty stays so, seals fail and are tried again. */
	fillAll(forMs: number): void {
		for (const path of this.#sim.inUse) this.fill(path, forMs);
	}

	/** No disk takes fragments and all are slow, while metadata goes on: so clients write while seals are under way that will fail. */
	starveAll(forMs: number): void {
		this.#sim.spaceIsTight();
		for (const path of this.#sim.inUse) {
			this.world.disk(path).starve(inPacks);
			this.slow(path, 60, forMs, 20);
			this.#later(forMs, () => this.world.disk(path).starve(undefined));
		}
	}

	/** A disk that takes no fragments, as if its surface had gone bad where they lie. */
	refuse(path: string, forMs: number): void {
		this.world.disk(path).starve(inPacks, "EIO");
		this.#later(forMs, () => this.world.disk(path).starve(undefined));
	}

	slow(path: string, mostMs: number, forMs: number, leastMs = 0.1): void {
		const { latencyMs } = this.world.disk(path);
		this.world.latency(path, leastMs, mostMs);
		this.#later(forMs, () => this.world.latency(path, Math.min(latencyMs[0], 0.05), this.#sim.plan.diskMs));
	}

	jump(random: Prng): void {
		this.#sim.node.jumpClock(random.pick([-3_600_000, -5_000, 5_000, 86_400_000]));
	}

	/** As many copies of the metadata are gone at once as may be: what is left must have everything. */
	leaveOneMirror(first: string, random: Prng): void {
		const { tolerance } = this.#sim.plan;
		const others = this.mirrors.filter((path) => path !== first);
		const left = others.length === 0 ? undefined : random.pick(others);
		for (const path of [first, ...others.filter((other) => other !== left)]) {
			if (!this.world.disk(path).present || (!this.hurt.has(path) && this.hurt.size >= tolerance)) continue;
			this.hurt.add(path);
			if (random.chance(0.5)) this.world.wipe(path);
			else this.world.vanish(path);
		}
	}

	comeBackOld(path: string): void {
		const old = this.#old.get(path);
		if (old !== undefined) this.world.restore(path, old);
	}

	/** What a disk may come back with later. */
	remember(random: Prng): void {
		for (const path of this.#sim.paths) {
			if (this.world.disk(path).present && random.chance(0.2)) this.#old.set(path, this.world.snapshot(path));
		}
	}

	/** No fault acts on any more; what was damaged stays so. */
	end(): void {
		for (const path of this.#sim.paths) {
			const device = this.world.disk(path);
			device.heal();
			if (device.hung) this.world.unhang(path);
			if (!device.present) this.world.reappear(path);
			this.world.latency(path, 0.05, this.#sim.plan.diskMs);
		}
	}

	#later(ms: number, fn: () => void): void {
		void this.world.sleep(ms).then(fn);
	}
}
