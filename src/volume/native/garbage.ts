/**
 * Finds what lies on the disks and no committed record names, and gives back what has been nobody's for long enough: files and fragments whose removal failed when its time came, because a disk was away or had an error, and
 * fragments whose writer ended without a word.
 *
 * Invariants
 *  G1 Liveness is told by the committed records alone, and by who has what in hand in this process: the daemon that owns the disks is the only one that writes there. Headers on the disks prove nothing.
 *  G2 A fragment is dead when nobody packs into its segment, pins it or waits to release it, and a record read after that does not name its place. Then nothing can come to name it any more.
 *  G3 Besides, everything is left alone until it was found dead by all looks over `ageMs`, and is looked at once more, behind a sync of the log, when it is removed.
 *  G4 What is none of ours, and what is taken and explained by nothing, is told and never touched.
 */
import { Mutex } from "../../base/async.ts";
import { toFsError } from "../../base/errors.ts";
import type { StrayFile } from "../../kv/local/store.ts";
import { diskFolders, harmlessNames } from "../../log/disk-format.ts";
import { superblockName } from "../../log/superblock.ts";
import type { DiskId } from "../../log/interface.ts";
import { segmentRecord } from "../../records/kinds.ts";
import { fragmentLength } from "../../storage/fragment.ts";
import type { FoundGarbage } from "../../storage/interface.ts";
import type { PlaceInHand } from "../../storage/pack.ts";
import { packKey } from "../../storage/segment-store.ts";
import type { Disk } from "../../platform/interface.ts";
import type { Core } from "./core.ts";
import { isSamePlace } from "./healer.ts";
import type { GarbageItem, GarbageReport, GarbageStatus, GarbageTimes } from "./interface.ts";
import { timeOf } from "./ledger.ts";
import { limits } from "./limits.ts";

export interface GarbageModules {
	readonly core: Core;
	readonly strays: () => Promise<readonly StrayFile[]>;
	readonly removeStray: (file: StrayFile) => Promise<boolean>;
}

/** Something that may be given back. */
interface Candidate {
	readonly key: string;
	readonly item: Pick<GarbageItem, "kind" | "disk" | "name" | "bytes">;
	/** Answers the bytes given back; undefined: it is somebody's after all. */
	readonly remove: () => Promise<number | undefined>;
}

interface Seen {
	readonly firstMs: number;
	/** The least of all looks. */
	readonly bytes: number;
}

export class Garbage {
	readonly #modules: GarbageModules;
	readonly #turn = new Mutex();
	#seen = new Map<string, Seen>();
	#status: GarbageStatus = { lookedAt: null, bytes: 0, unaccountedBytes: 0, foreign: 0, removedBytes: 0, clearedBytes: 0 };
	#removedBytes = 0;
	#times: GarbageTimes;
	#cancelTick: () => void = () => {};
	#stopped = false;
	#working: Promise<void> = Promise.resolve();

	constructor(times: GarbageTimes, modules: GarbageModules) {
		this.#times = times;
		this.#modules = modules;
	}

	get status(): GarbageStatus {
		return { ...this.#status, removedBytes: this.#removedBytes, clearedBytes: this.#modules.core.store.cleared.bytes };
	}

	/** Looks by itself now and then, from some time after the mount on. */
	start(): void {
		const { simulation } = this.#modules.core.platform;
		const isSoon = simulation?.buggify("volume.garbage-soon") === true;
		const soonMs = limits.garbageSimulatedMs;
		// A simulation lives for seconds: there the proof stands alone.
		if (simulation !== undefined) this.#times = { ...this.#times, ageMs: soonMs };
		if (isSoon) this.#times = { ageMs: soonMs, firstMs: soonMs, everyMs: soonMs };
		if (this.#isPlanted) this.#times = { ageMs: 0, firstMs: soonMs / 20, everyMs: soonMs / 50 };
		this.#tickIn(this.#times.firstMs);
	}

	#tickIn(ms: number): void {
		this.#cancelTick = this.#modules.core.platform.clock.after(ms, () => {
			this.#working = this.look(true).then(
				() => {},
				(error: unknown) => {
					const { message } = toFsError(error, "volume.garbage");
					this.#modules.core.logger.warn("looking for what no record names failed; it is tried again", { error: message });
				},
			);
			void this.#working.then(() => {
				if (!this.#stopped) this.#tickIn(this.#times.everyMs);
			});
		});
	}

	/** Looks at all disks; what has been garbage for long enough is removed, or only told. */
	look(removes: boolean): Promise<GarbageReport> {
		return this.#turn.run(() => this.#look(removes));
	}

	async #look(removes: boolean): Promise<GarbageReport> {
		const { core } = this.#modules;
		const { clock } = core.platform;
		const named = await this.#namedBytes();
		const lying = await core.store.garbage(named);
		const candidates = [...(await this.#ofStore(lying.found)), ...(await this.#ofMetadata())];
		const unaccounted = await this.#unaccounted(lying.unaccounted, named);
		const foreign = [...lying.strange, ...(await this.#strangers())];
		const nowMs = clock.monotonicMs();
		const seen = new Map<string, Seen>();
		const note = (key: string, bytes: number): Seen => {
			const before = this.#seen.get(key);
			const now = { firstMs: before?.firstMs ?? nowMs, bytes: Math.min(bytes, before?.bytes ?? bytes) };
			seen.set(key, now);
			return now;
		};
		const items: GarbageItem[] = [];
		for (const candidate of candidates) {
			const { firstMs } = note(candidate.key, candidate.item.bytes);
			const isAged = nowMs - firstMs >= this.#times.ageMs;
			const ageSeconds = Math.floor((nowMs - firstMs) / 1000);
			if (!isAged) items.push({ ...candidate.item, ageSeconds, state: "young" });
			else if (!removes || this.#stopped) items.push({ ...candidate.item, ageSeconds, state: "aged" });
			else items.push({ ...candidate.item, ageSeconds, ...(await this.#remove(candidate)) });
		}
		for (const [pack, bytes] of unaccounted) {
			const one = note(`unaccounted ${pack}`, bytes);
			// What is just being given back looks the same for a moment.
			if (nowMs - one.firstMs < this.#times.ageMs) continue;
			const [disk, number] = pack.split("/");
			const item = {
				kind: "unaccounted",
				disk: `d${disk}`,
				name: `pack/${(number as string).padStart(8, "0")}`,
				bytes: one.bytes,
			} as const;
			items.push({ ...item, ageSeconds: Math.floor((nowMs - one.firstMs) / 1000), state: "kept" });
		}
		for (const { disk, name } of foreign) items.push({ kind: "foreign", disk: `d${disk}`, name, bytes: 0, ageSeconds: 0, state: "kept" });
		this.#seen = seen;
		return this.#report(items, lying.away, removes);
	}

	#report(items: readonly GarbageItem[], away: readonly DiskId[], removes: boolean): GarbageReport {
		const { core } = this.#modules;
		const bytesOf = (isOne: (item: GarbageItem) => boolean): number => items.filter(isOne).reduce((sum, item) => sum + item.bytes, 0);
		const isOurs = ({ kind }: GarbageItem): boolean => kind !== "foreign" && kind !== "unaccounted";
		const removedBytes = bytesOf(({ state }) => state === "removed");
		this.#removedBytes += removedBytes;
		const at = timeOf(Math.max(1, core.platform.clock.realtime().seconds));
		const unaccountedBytes = bytesOf(({ kind }) => kind === "unaccounted");
		const foreign = items.filter(({ kind }) => kind === "foreign").length;
		this.#status = { ...this.#status, lookedAt: at, bytes: bytesOf(isOurs) - removedBytes, unaccountedBytes, foreign };
		if (removedBytes > 0) core.logger.info("what no record names was given back", { bytes: removedBytes });
		if (unaccountedBytes > 0)
			core.logger.error(
				"space is taken that no record names and nobody has in hand: a fault of this program; the next mount gives it back",
				{ bytes: unaccountedBytes },
			);
		return {
			dryRun: !removes,
			ageSeconds: this.#times.ageMs / 1000,
			foundBytes: bytesOf(isOurs),
			youngBytes: bytesOf(({ state }) => state === "young"),
			agedBytes: bytesOf(({ state }) => state === "aged" || state === "failed"),
			removedBytes,
			unaccountedBytes,
			foreign,
			away: away.map((id) => `d${id}`),
			clearedBytes: core.store.cleared.bytes,
			items: [...items].sort((a, b) => b.bytes - a.bytes).slice(0, limits.garbageItems),
			itemsTotal: items.length,
		};
	}

	get #isPlanted(): boolean {
		return this.#modules.core.platform.simulation?.planted("young-garbage") === true;
	}

	// ── what there is ────────────────────────────────────────────────────────────────────────────────────────────

	async #namedBytes(): Promise<Map<string, number>> {
		const named = new Map<string, number>();
		for await (const segment of this.#modules.core.segments()) {
			const length = fragmentLength(segment.shardBytes);
			for (const { disk, pack } of segment.fragments) {
				const key = packKey(disk, pack);
				named.set(key, (named.get(key) ?? 0) + length);
			}
		}
		return named;
	}

	/** What has come to be named, or was given back, since the first look at the records explains itself. */
	async #unaccounted(found: ReadonlyMap<string, number>, before: ReadonlyMap<string, number>): Promise<ReadonlyMap<string, number>> {
		if (found.size === 0) return found;
		const after = await this.#namedBytes();
		const left = new Map<string, number>();
		for (const [key, bytes] of found) {
			const since = Math.max(0, (after.get(key) ?? 0) - (before.get(key) ?? 0));
			if (bytes > since) left.set(key, bytes - since);
		}
		return left;
	}

	async #ofStore(found: readonly FoundGarbage[]): Promise<Candidate[]> {
		const candidates: Candidate[] = [];
		for (const one of found) {
			const { kind, disk, pack, bytes, place } = one;
			const name = `pack/${String(pack).padStart(8, "0")}`;
			if (place === undefined) {
				const remove = (): Promise<number | undefined> => this.#modules.core.store.collect(one);
				candidates.push({ key: `${kind} ${disk}/${pack}`, item: { kind, disk: `d${disk}`, name, bytes }, remove });
				continue;
			}
			if (!(await this.#isDead(place))) continue;
			const key = `place ${disk}/${pack}/${place.offset}/${place.sinceMs}`;
			const remove = async (): Promise<number | undefined> =>
				(await this.#isDead(place)) ? this.#modules.core.store.collect(one) : undefined;
			candidates.push({ key, item: { kind, disk: `d${disk}`, name: `${name} at ${place.offset}`, bytes }, remove });
		}
		return candidates;
	}

	/** G2. */
	async #isDead(place: PlaceInHand): Promise<boolean> {
		const { core } = this.#modules;
		if (this.#isPlanted) return true;
		const id = place.segment;
		const isHeld = (): boolean => core.isPacking(id) || core.store.isPinned(id) || core.isFreed(id);
		if (isHeld()) return false;
		const record = await core.view((tx) => tx.get(segmentRecord, id));
		const own = record?.fragments.find((one) => isSamePlace(one, place));
		if (own !== undefined) core.store.settle([own]);
		return own === undefined && !isHeld();
	}

	async #ofMetadata(): Promise<Candidate[]> {
		const { core, strays, removeStray } = this.#modules;
		const candidates: Candidate[] = [];
		for (const file of await strays()) {
			const kind = file.name.startsWith("log/") ? "log" : "run";
			const disk = core.disks.clearable(file.disk);
			const bytes = disk === undefined ? undefined : await heldBy(disk, file.name).catch(() => undefined);
			// It went just now, or its disk fails: another time.
			if (bytes === undefined) continue;
			candidates.push({
				key: `${kind} ${file.disk}/${file.name}`,
				item: { kind, disk: `d${file.disk}`, name: file.name, bytes },
				remove: async () => ((await removeStray(file)) ? bytes : undefined),
			});
		}
		return candidates;
	}

	/** Names at the top of the disks and in our folders that are none of ours. */
	async #strangers(): Promise<{ readonly disk: DiskId; readonly name: string }[]> {
		const { disks } = this.#modules.core;
		const known = new Set<string>([superblockName, ...diskFolders.map((folder) => `${folder}/`), ...harmlessNames]);
		const strangers: { disk: DiskId; name: string }[] = [];
		for (const { id } of disks.slots()) {
			const disk = disks.clearable(id);
			if (disk === undefined) continue;
			// A disk that fails just now is looked at another time.
			const namesIn = (folder: string): Promise<string[]> => disk.list(folder).catch(() => []);
			for (const name of await namesIn("")) if (!known.has(name)) strangers.push({ disk: id, name });
			for (const name of await namesIn("log")) if (!/^\d+$/.test(name)) strangers.push({ disk: id, name: `log/${name}` });
			for (const name of await namesIn("kv"))
				if (!/^(manifest|spare|run-\d+)$/.test(name)) strangers.push({ disk: id, name: `kv/${name}` });
		}
		return strangers;
	}

	// ── removal ──────────────────────────────────────────────────────────────────────────────────────────────────

	/** G3. */
	async #remove(candidate: Candidate): Promise<Pick<GarbageItem, "state" | "bytes">> {
		const { core } = this.#modules;
		try {
			if (!this.#isPlanted) await core.engine.durable(core.engine.position);
			const bytes = await candidate.remove();
			return bytes === undefined ? { state: "kept", bytes: 0 } : { state: "removed", bytes };
		} catch (error) {
			const { message } = toFsError(error, "volume.garbage-remove");
			core.logger.warn("what no record names could not be given back now", {
				disk: candidate.item.disk,
				name: candidate.item.name,
				error: message,
			});
			return { state: "failed", bytes: candidate.item.bytes };
		}
	}

	/** Resolves when nothing of this is under way any more. */
	async stop(): Promise<void> {
		this.#stopped = true;
		this.#cancelTick();
		await this.#turn.run(async () => {});
		await this.#working;
	}
}

async function heldBy(disk: Disk, name: string): Promise<number> {
	const file = await disk.open(name);
	return file.held().finally(() => file.close());
}
