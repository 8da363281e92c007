/**
 * What a simulation does to the code that runs in it: the rare ways of `buggify`, and bugs that are planted to see whether a checker notices.
 *
 * Each point is on in a quarter of all seeds, and then taken in some of its uses.
 */
import type { Disk, DiskFile, Platform, PlantedBug, SimulationHooks } from "../../src/platform/interface.ts";
import { Prng } from "../../src/platform/sim/prng.ts";
import type { SimWorld } from "../../src/platform/sim/world.ts";
import type { Statistics } from "./statistics.ts";

/** Bugs that syncs make: they need nothing of the code, the platform plants them. */
type SyncBug = "mirror-unsynced" | "acknowledged-before-sync" | "metadata-before-fragments" | "log-cut-before-run";
export type Canary = PlantedBug | SyncBug;

interface LateSync {
	readonly sites: readonly string[];
	/** Virtual milliseconds after which the sync is really made. */
	readonly lateMs: number;
	readonly path: string | undefined;
}

const syncBugs: Readonly<Record<SyncBug, LateSync>> = {
	"mirror-unsynced": { sites: ["log.records"], lateMs: Number.POSITIVE_INFINITY, path: "/d1" },
	"acknowledged-before-sync": { sites: ["log.records"], lateMs: 200, path: undefined },
	"metadata-before-fragments": { sites: ["storage.fragment"], lateMs: 500, path: undefined },
	"log-cut-before-run": { sites: ["kv.run", "kv.run-mend"], lateMs: 5_000, path: undefined },
};

export const canaries: readonly Canary[] = [
	"mirror-unsynced",
	"acknowledged-before-sync",
	"stale-roster-accepted",
	"log-cut-at-rot",
	"space-reused-early",
	"seal-after-truncate",
	"metadata-before-fragments",
	"log-cut-before-run",
	"healing-forgotten",
	"df-drift",
	"wrong-fragment-accepted",
	"tombstone-dropped-early",
	"set-time-lost",
	"failed-seal-on-top",
	"young-garbage",
	"reserve-shown-free",
	"locks-not-kept",
	"locks-upgraded-blindly",
	"search-not-asked",
	"open-files-not-bound",
	"durable-open-unsynced",
];

export class Hooks implements SimulationHooks {
	readonly #seed: number;
	readonly #statistics: Statistics;
	readonly #canary: Canary | undefined;
	readonly #always: ReadonlySet<string>;
	readonly #points = new Map<string, { readonly chance: number; readonly random: Prng }>();

	/** `always`: rare ways that are taken each time, whatever the seed says. */
	constructor(seed: number, statistics: Statistics, canary: Canary | undefined, always: ReadonlySet<string> = new Set()) {
		this.#always = always;
		this.#seed = seed;
		this.#statistics = statistics;
		this.#canary = canary;
	}

	buggify(name: string): boolean {
		let point = this.#points.get(name);
		if (point === undefined) {
			const random = new Prng(this.#seed, `point:${name}`);
			point = { chance: random.chance(0.25) ? random.pick([0.01, 0.05, 0.2]) : 0, random };
			this.#points.set(name, point);
		}
		if (this.#always.has(name)) {
			this.#statistics.count("points", name);
			return true;
		}
		if (point.chance === 0 || !point.random.chance(point.chance)) return false;
		this.#statistics.count("points", name);
		return true;
	}

	planted(bug: PlantedBug): boolean {
		return bug === this.#canary;
	}

	/** The platform of a process, with these hooks. */
	into(platform: Platform, world: SimWorld): Platform {
		const late = this.#canary !== undefined && this.#canary in syncBugs ? syncBugs[this.#canary as SyncBug] : undefined;
		if (late === undefined) return { ...platform, simulation: this };
		return {
			...platform,
			simulation: this,
			openDisk: async (path, onOpening) => lateDisk(await platform.openDisk(path, onOpening), late, world),
		};
	}
}

function lateDisk(disk: Disk, late: LateSync, world: SimWorld): Disk {
	const { path, domain, ownsSpace = false } = disk;
	return {
		path,
		domain,
		ownsSpace,
		get foreign() {
			return disk.foreign;
		},
		disregard: () => disk.disregard?.(),
		lock: () => disk.lock(),
		open: async (name, options) => lateFile(await disk.open(name, options), late, path, world),
		list: (folder) => disk.list(folder),
		remove: (name) => disk.remove(name),
		syncNames: (folder, site) => disk.syncNames(folder, site),
		space: () => disk.space(),
		probe: () => disk.probe(),
		verifyTable: async (repair) => (await disk.verifyTable?.(repair)) ?? { checked: 0, corrupt: 0, repaired: 0 },
		activity: () => disk.activity?.() ?? { finished: 0, state: "idle" },
		close: () => disk.close(),
	};
}

function lateFile(file: DiskFile, late: LateSync, path: string, world: SimWorld): DiskFile {
	const { name } = file;
	return {
		name,
		read: (offset, lengthBytes) => file.read(offset, lengthBytes),
		borrow: (offset, lengthBytes, sumBlockBytes) => file.borrow(offset, lengthBytes, sumBlockBytes),
		write: (offset, parts) => file.write(offset, parts),
		sync: async (site) => {
			if (!late.sites.includes(site) || (late.path ?? path) !== path) return file.sync(site);
			if (Number.isFinite(late.lateMs)) void world.sleep(late.lateMs).then(() => file.sync(site).catch(() => {}));
		},
		discard: (offset, lengthBytes) => file.discard(offset, lengthBytes),
		uncache: (offset, lengthBytes) => file.uncache(offset, lengthBytes),
		size: () => file.size(),
		held: () => file.held(),
		truncate: (sizeBytes) => file.truncate(sizeBytes),
		close: () => file.close(),
	};
}
