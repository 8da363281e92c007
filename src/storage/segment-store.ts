/**
 * Segments on disks: written whole and durable or not at all, read verified, healed.
 *
 * Invariants
 *  S1 A segment that `write` returned is durable, each fragment on a failure domain of its own, in the best shape that the writable domains
 *     allow. Lack of space never makes the shape smaller.
 *  S2 Space is reused only after `release`, `abandon` or a write that failed in this process; never because a header on disk looks dead.
 *  S3 `release` gives nothing back while a reader that was there before it holds a pin.
 *  S4 A place is given back with the length that it was written with, also when the segment's shape changed since.
 */
import { assert } from "../base/assert.ts";
import { Deferred, Semaphore } from "../base/async.ts";
import { BufferPool } from "../base/buffer-pool.ts";
import { parseUuid } from "../base/bytes.ts";
import { FsError } from "../base/errors.ts";
import type { Borrowed } from "../platform/interface.ts";
import type { FragmentPlace, Segment } from "../records/interface.ts";
import { balanceTargets } from "./balance.ts";
import { assertSegment, fragmentLength, shardLength } from "./fragment.ts";
import { FragmentReader } from "./fragment-reader.ts";
import type { FragmentReaderModules } from "./fragment-reader.ts";
import { FragmentWriter } from "./fragment-writer.ts";
import type { FragmentWriterModules, PutFailure } from "./fragment-writer.ts";
import { Healer } from "./healer.ts";
import type { Rebuilt } from "./healer.ts";
import type {
	BalancePreview,
	FoundGarbage,
	StoreGarbage,
	HealOutlook,
	RebuildOptions,
	ReadPattern,
	Redundancy,
	SegmentHealth,
	SegmentStore,
	SpaceChange,
	SpacePreview,
	StorageSpace,
	WritePurpose,
} from "./interface.ts";
import { limits } from "./limits.ts";
import { DiskPacks } from "./pack.ts";
import type { PackModules } from "./pack.ts";
import { chooseDisks, domainCount } from "./placement.ts";
import type { Candidate } from "./placement.ts";
import { feasibleShape, formatRedundancy, sameShape, wantedShape, width } from "./redundancy.ts";
import { SegmentReader } from "./segment-reader.ts";
import { type Room, type Shard, ShardMaker } from "./shard-maker.ts";
import { type DiskSpace, storageSpace, withoutDisk } from "./space.ts";

export interface SegmentStoreOptions {
	/** Verified payload in memory; limits.cacheBytes by default. */
	readonly cacheBytes?: number;
	/** Size of a pack, a multiple of 4 KiB; the same for the life of a volume. limits.packBytes by default. */
	readonly packBytes?: number;
}

export type SegmentStoreModules = PackModules;

/** A place that a segment's record claims and cannot have: outside any pack, or (in part) another record's. */
export interface Conflict {
	readonly segment: number;
	readonly place: FragmentPlace;
}

export function createSegmentStore(options: SegmentStoreOptions, modules: SegmentStoreModules): NativeSegmentStore {
	return new NativeSegmentStore(options, modules);
}

export class NativeSegmentStore implements SegmentStore {
	readonly counters = { fragmentsRead: 0, fragmentsWritten: 0, corruptFragments: 0, degradedReads: 0, rebuiltFragments: 0 };
	#modules: SegmentStoreModules;
	#packBytes: number;
	#packs = new Map<number, DiskPacks>();
	#fragments: FragmentReader;
	#reader: SegmentReader;
	#writer: FragmentWriter;
	#healer: Healer;
	#writes = new Semaphore(limits.concurrentWrites);
	readonly #maker: ShardMaker;
	readonly #parity = new BufferPool({ fromBytes: limits.parityFromBytes, keptBytes: limits.parityKeptBytes, shared: true });
	#pins = new Map<number, Set<Deferred<void>>>();
	/** Segments in which damage was found. */
	#damaged = new Set<number>();
	/** Lengths of places that a rebuild took out of or put into a record: that record's shape may not be theirs (S4). */
	#lengths = new WeakMap<FragmentPlace, number>();
	#conflicts: Conflict[] = [];
	/** Places of records that cannot exist: there is nothing to give back. */
	#impossible = new Set<string>();
	#reserve: (disk: number, capacityBytes: number) => number = () => 0;
	#refreshing: Promise<void> | undefined;
	#background = new Set<Promise<void>>();
	#loaded = false;
	#unsubscribe: () => void;

	constructor(options: SegmentStoreOptions, modules: SegmentStoreModules) {
		this.#modules = modules;
		this.#packBytes = options.packBytes ?? limits.packBytes;
		this.#maker = new ShardMaker(modules);
		const shared: FragmentReaderModules & FragmentWriterModules = {
			...modules,
			volume: parseUuid(modules.disks.roster.volume),
			packs: (disk) => this.#packsOf(disk),
			counters: this.counters,
			onDamage: (segment) => this.#addDamaged(segment),
			reserve: (disk, purpose) => {
				const share = purpose === "compaction" ? limits.compactionReserve : limits.writableReserve;
				return Math.floor(this.#reserveOf(disk) * share);
			},
			sharers: (disk) => this.#sharers(disk),
			domainOf: (disk) => this.#domainOf(disk),
		};
		this.#fragments = new FragmentReader(shared.volume, shared);
		const fragments = this.#fragments;
		this.#reader = new SegmentReader(options.cacheBytes ?? limits.cacheBytes, fragments, shared);
		this.#writer = new FragmentWriter(shared);
		this.#healer = new Healer({
			...shared,
			fragments,
			writer: this.#writer,
			maker: this.#maker,
			room: (lengthBytes, lent) => this.#room(lengthBytes, lent),
			refreshSpace: () => this.refreshSpace(),
		});
		this.#unsubscribe = modules.disks.onChange((disk, state) => {
			if (state === "failed" || state === "missing") this.#packs.get(disk)?.drop();
			// It left the volume: its number is not given again.
			if (modules.disks.slot(disk) === undefined) this.#packs.delete(disk);
		});
	}

	// ── space in use ─────────────────────────────────────────────────────────────────────────────────────────────

	load(segments: Iterable<Segment>): void {
		assert(!this.#loaded, "segments are loaded once, before anything is written");
		this.#loaded = true;
		for (const segment of segments) {
			assertSegment(segment);
			const length = fragmentLength(segment.shardBytes);
			for (const place of segment.fragments) this.#claim(segment, place, length);
		}
	}

	#claim(segment: Segment, place: FragmentPlace, length: number): void {
		const { allocator } = this.#packsOf(place.disk);
		if (allocator.take(place, length)) return;
		this.#conflicts.push({ segment: segment.id, place });
		this.#addDamaged(segment.id);
		const overlaps = allocator.has(place.pack) && allocator.contested(place, length);
		if (!overlaps) this.#impossible.add(placeKey(place));
		const why = overlaps ? "another segment's record claims a part of it too" : "no pack has such a place";
		const { disk, pack, offset } = place;
		this.#modules.logger.error(`a segment's record is wrong: ${why}; verify the volume`, { segment: segment.id, disk, pack, offset });
	}

	/** What `load` found wrong. */
	get conflicts(): readonly Conflict[] {
		return this.#conflicts;
	}

	#packsOf(disk: number): DiskPacks {
		let packs = this.#packs.get(disk);
		if (!packs) {
			packs = new DiskPacks(disk, this.#packBytes, this.#modules);
			this.#packs.set(disk, packs);
		}
		return packs;
	}

	#domainOf(disk: number): string {
		const { disks } = this.#modules;
		return disks.roster.config.sameDevice ? `d${disk}` : (disks.slot(disk)?.domain ?? `d${disk}`);
	}

	#sharers(disk: number): number {
		const device = this.#sharedDevice(disk);
		return device === undefined ? 1 : Math.max(1, this.#sharersOf(device));
	}

	/** The device whose space the disk divides with others; undefined: it has its own, or is not there. */
	#sharedDevice(id: number): string | undefined {
		const disk = this.#modules.disks.slot(id)?.disk;
		return disk === undefined || disk.ownsSpace === true ? undefined : disk.domain;
	}

	#sharersOf(device: string): number {
		return this.#modules.disks.slots().filter(({ id }) => this.#sharedDevice(id) === device).length;
	}

	// ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

	async write(id: number, payload: Uint8Array, target: Redundancy, epoch: number, purpose: WritePurpose = "data"): Promise<Segment> {
		assert(this.#loaded, "segments are loaded before one is written");
		assert(payload.length > 0 && payload.length <= limits.maxPayloadBytes, `a payload of ${payload.length} bytes`);
		const lent: Borrowed[] = [];
		const room: Room = (lengthBytes) => this.#room(lengthBytes, lent);
		try {
			return await this.#writes.run(() => this.#write(id, payload, target, epoch, purpose, room));
		} finally {
			// A disk that hangs may write from it late, to a place that was given up, as from the payload; it carries out its calls in their order.
			for (const one of lent) one.release();
		}
	}

	#room(lengthBytes: number, lent: Borrowed[]): Uint8Array {
		const one = this.#parity.take(lengthBytes);
		if (one !== undefined) lent.push(one);
		return one?.bytes ?? new Uint8Array(lengthBytes);
	}

	async #write(id: number, payload: Uint8Array, target: Redundancy, epoch: number, purpose: WritePurpose, room: Room): Promise<Segment> {
		const wanted = wantedShape(target, payload.length);
		const excluded = new Set<number>();
		let encoded: { readonly shape: Redundancy; readonly shards: Shard[] } | undefined;
		let failures: readonly PutFailure[] = [];
		let refreshed = false;
		for (let attempt = 0; attempt < limits.writeAttempts; attempt++) {
			await this.#writer.ready();
			const usable = (): Candidate[] => this.#writer.candidates(purpose).filter((candidate) => !excluded.has(candidate.id));
			const shape = feasibleShape(wanted, domainCount(usable()));
			if (!shape) throw noDisks(id, failures);
			if (!encoded || !sameShape(encoded.shape, shape)) encoded = { shape, shards: await this.#maker.encode(payload, shape, room) };
			// Space is looked at in the step that takes it.
			const candidates = usable();
			const shardBytes = shardLength(payload.length, shape.dataShards);
			const disks = chooseDisks(candidates, width(shape), fragmentLength(shardBytes), id);
			if (!disks) {
				if (refreshed) throw noSpace(id, shape, fragmentLength(shardBytes), candidates);
				refreshed = true;
				await this.refreshSpace();
				continue;
			}
			const set = { segment: id, generation: 1 + attempt, shape, payloadBytes: payload.length, shardBytes, shards: encoded.shards };
			const put = await this.#writer.put(set, disks);
			if (put.failures.length === 0) {
				const { dataShards, parityShards } = shape;
				const sizes = { payloadBytes: payload.length, shardBytes, liveBytes: 0 };
				this.#remember(id, shape, encoded.shards, put.places);
				return {
					id,
					dataShards,
					parityShards,
					target: formatRedundancy(target),
					...sizes,
					chunks: [],
					fragments: put.places,
					birthEpoch: epoch,
				};
			}
			failures = put.failures;
			for (const { disk, error } of failures) if (error.code !== "ENOSPC") excluded.add(disk);
		}
		throw noDisks(id, failures);
	}

	/** Of what readers ask for first: parity is needed where something is damaged. */
	#remember(id: number, { dataShards }: Redundancy, shards: readonly Shard[], places: readonly FragmentPlace[]): void {
		for (const place of places) {
			const shard = shards[place.index] as Shard;
			assert(shard.index === place.index, "shards lie in the order of their numbers");
			if (dataShards === 1 || place.index < dataShards) this.#fragments.remember(id, place, shard.table);
		}
	}

	abandon(segment: Segment): void {
		this.settle(segment.fragments);
		this.#reader.forget(segment);
		this.#inBackground(this.release(segment.fragments, segment));
	}

	settle(places: readonly FragmentPlace[]): void {
		for (const place of places) this.#packsOf(place.disk).settle(place);
	}

	isPinned(segmentId: number): boolean {
		return this.#pins.has(segmentId);
	}

	get cleared(): { readonly packs: number; readonly bytes: number } {
		const sum = { packs: 0, bytes: 0 };
		for (const { cleared } of this.#packs.values()) {
			sum.packs += cleared.packs;
			sum.bytes += cleared.bytes;
		}
		return sum;
	}

	async garbage(namedBytes: ReadonlyMap<string, number>): Promise<StoreGarbage> {
		const found: FoundGarbage[] = [];
		const unaccounted = new Map<string, number>();
		const strange: { disk: number; name: string }[] = [];
		const away: number[] = [];
		for (const { id } of this.#modules.disks.slots()) {
			const disk = this.#modules.disks.clearable(id);
			const packs = this.#packsOf(id);
			if (disk === undefined) {
				away.push(id);
				continue;
			}
			for (const place of packs.inHand()) found.push({ kind: "place", disk: id, pack: place.pack, bytes: place.lengthBytes, place });
			const lying = await packs.packFiles(disk).catch((error: unknown) => {
				if (!(error instanceof FsError)) throw error;
				return undefined;
			});
			if (lying === undefined) {
				away.push(id);
				continue;
			}
			for (const name of lying.strange) strange.push({ disk: id, name });
			for (const file of lying.packs) {
				const { pack, heldBytes, takenBytes, inHandBytes, mostBytes, isCurrent } = file;
				const named = namedBytes.get(packKey(id, pack)) ?? 0;
				if (takenBytes > named + inHandBytes) unaccounted.set(packKey(id, pack), takenBytes - named - inHandBytes);
				if (takenBytes === 0 && named === 0 && !isCurrent) found.push({ kind: "pack", disk: id, pack, bytes: heldBytes });
				else if (heldBytes > mostBytes) found.push({ kind: "space", disk: id, pack, bytes: heldBytes - takenBytes });
			}
		}
		return { found, unaccounted, strange, away };
	}

	async collect({ kind, disk: id, pack, bytes, place }: FoundGarbage): Promise<number | undefined> {
		const disk = this.#modules.disks.clearable(id);
		const packs = this.#packsOf(id);
		if (disk === undefined) return undefined;
		if (kind === "pack") return (await packs.removeUnused(disk, pack)) ? bytes : undefined;
		if (place !== undefined) return (await packs.reclaim(disk, place)) ? bytes : undefined;
		const punched = await packs.punchFree(disk, pack);
		return punched > 0 ? punched : undefined;
	}

	abandonPlaces(segmentId: number, places: readonly FragmentPlace[]): void {
		for (const place of places) {
			const length = this.#lengths.get(place);
			assert(length !== undefined, `place ${placeKey(place)} of segment ${segmentId} comes from a rebuild`);
			this.settle([place]);
			this.#inBackground(this.#giveBack(place, length));
		}
	}

	async release(places: readonly FragmentPlace[], segment: Segment): Promise<void> {
		const lengths = places.map((place) => this.#lengthOf(place, segment));
		await Promise.all([...(this.#pins.get(segment.id) ?? [])].map((pin) => pin.promise));
		await Promise.all(places.map((place, at) => this.#giveBack(place, lengths[at] as number)));
	}

	#lengthOf(place: FragmentPlace, segment: Segment): number {
		const known = this.#lengths.get(place);
		if (known !== undefined) return known;
		const own = segment.fragments.some((candidate) => placeKey(candidate) === placeKey(place));
		assert(own, `place ${placeKey(place)} belongs to the record of segment ${segment.id} or comes from a rebuild`);
		return fragmentLength(segment.shardBytes);
	}

	async #giveBack(place: FragmentPlace, length: number): Promise<void> {
		if (this.#impossible.has(placeKey(place))) return;
		await this.#packsOf(place.disk).release({ pack: place.pack, offset: place.offset }, length);
	}

	pin(segmentId: number): () => void {
		const pin = new Deferred<void>();
		const pins = this.#pins.get(segmentId) ?? new Set();
		this.#pins.set(segmentId, pins);
		pins.add(pin);
		return () => {
			if (!pins.delete(pin)) return;
			if (pins.size === 0 && this.#pins.get(segmentId) === pins) this.#pins.delete(segmentId);
			pin.resolve();
		};
	}

	// ── reading and healing ──────────────────────────────────────────────────────────────────────────────────────

	async read(segment: Segment, offset: number, length: number): Promise<Uint8Array> {
		const bytes = new Uint8Array(length);
		await this.readInto(segment, offset, bytes);
		return bytes;
	}

	async readInto(segment: Segment, offset: number, into: Uint8Array, pattern: ReadPattern = "usual"): Promise<void> {
		assertSegment(segment);
		await this.#reader.read(segment, offset, into, pattern);
	}

	isOnDisk(segment: Segment, offset: number, length: number): Promise<boolean> {
		assertSegment(segment);
		return this.#reader.isOnDisk(segment, offset, length);
	}

	assess(segment: Segment): SegmentHealth {
		return this.#healer.assess(segment);
	}

	outlook(health: SegmentHealth): HealOutlook {
		return this.#healer.outlook(health);
	}

	async check(segment: Segment): Promise<SegmentHealth> {
		const unpin = this.pin(segment.id);
		try {
			return await this.#healer.check(segment);
		} finally {
			unpin();
		}
	}

	rebuild(health: SegmentHealth, options: RebuildOptions = {}): ReturnType<SegmentStore["rebuild"]> {
		return this.#replacing(health.segment, () => this.#healer.rebuild(health, options));
	}

	evenOut(segment: Segment): ReturnType<SegmentStore["evenOut"]> {
		return this.#replacing(segment, () => this.#healer.even(segment));
	}

	move(segment: Segment, index: number, to: number): ReturnType<SegmentStore["move"]> {
		return this.#replacing(segment, () => this.#healer.move(segment, index, to));
	}

	domainOf(disk: number): string {
		return this.#domainOf(disk);
	}

	async #replacing(segment: Segment, work: () => Promise<Rebuilt | undefined>): Promise<Rebuilt | undefined> {
		assert(this.#loaded, "segments are loaded before one is rebuilt");
		const unpin = this.pin(segment.id);
		try {
			const rebuilt = await work();
			for (const place of rebuilt?.retired ?? []) this.#lengths.set(place, fragmentLength(segment.shardBytes));
			for (const place of rebuilt?.written ?? []) this.#lengths.set(place, fragmentLength(rebuilt?.segment.shardBytes as number));
			return rebuilt;
		} finally {
			unpin();
		}
	}

	feasible(target: Redundancy): Redundancy | undefined {
		return feasibleShape(target, domainCount(this.#writer.candidates()));
	}

	#addDamaged(segment: number): void {
		if (this.#damaged.size < limits.maxDamaged) this.#damaged.add(segment);
	}

	get damagedCount(): number {
		return this.#damaged.size;
	}

	takeDamaged(except?: ReadonlySet<number>): readonly number[] {
		const damaged = [...this.#damaged].filter((id) => except?.has(id) !== true);
		for (const id of damaged) this.#damaged.delete(id);
		return damaged;
	}

	isSuspected(segmentId: number): boolean {
		return this.#damaged.has(segmentId);
	}

	forgetDamaged(segmentId: number): void {
		this.#damaged.delete(segmentId);
	}

	// ── space ────────────────────────────────────────────────────────────────────────────────────────────────────

	setReserve(bytesPerDisk: (disk: number, capacityBytes: number) => number): void {
		this.#reserve = bytesPerDisk;
	}

	#reserveOf(disk: number): number {
		return this.#reserve(disk, this.#packsOf(disk).capacityBytes);
	}

	space(redundancy?: Redundancy): StorageSpace {
		const { config } = this.#modules.disks.roster;
		return storageSpace(redundancy === undefined ? config.redundancy : formatRedundancy(redundancy), this.#diskSpaces());
	}

	spaceIf({ without, added = [] }: SpaceChange): SpacePreview | undefined {
		const { config } = this.#modules.disks.roster;
		const all = this.#diskSpacesWith(added);
		const disks = without === undefined ? all : withoutDisk(all, without);
		if (disks === undefined) return undefined;
		return { space: storageSpace(config.redundancy, disks), domains: domainCount(disks.filter((disk) => disk.writable)) };
	}

	balance(mostBytes: number, added: SpaceChange["added"] = []): BalancePreview {
		const disks = this.#diskSpacesWith(added);
		const isLastChoice = (id: number): boolean => this.#modules.disks.slot(id)?.state === "degraded";
		const targets = balanceTargets(
			disks.filter((disk) => !isLastChoice(disk.id)),
			mostBytes,
		);
		const change = new Map(targets.map(({ id, usedBytes, targetBytes }) => [id, targetBytes - usedBytes]));
		const then = disks.map((disk) => {
			const more = change.get(disk.id) ?? 0;
			return { ...disk, usedBytes: disk.usedBytes + more, freeBytes: Math.max(0, disk.freeBytes - more) };
		});
		return { targets, space: storageSpace(this.#modules.disks.roster.config.redundancy, then) };
	}

	/** New disks have numbers below 0, in their order. */
	#diskSpacesWith(added: NonNullable<SpaceChange["added"]>): DiskSpace[] {
		const { config } = this.#modules.disks.roster;
		// Disks on one device share what it has.
		const newcomers = (device: string): number => added.filter((one) => !one.ownsSpace && one.domain === device).length;
		const now = this.#diskSpaces().map((disk): DiskSpace => {
			const device = this.#sharedDevice(disk.id);
			const sharers = this.#sharers(disk.id);
			const share = device === undefined ? 1 : sharers / (sharers + newcomers(device));
			return { ...disk, capacityBytes: Math.floor(disk.capacityBytes * share), freeBytes: Math.floor(disk.freeBytes * share) };
		});
		const more = added.map(({ domain, ownsSpace, ...place }, at): DiskSpace => {
			const sharers = ownsSpace ? 1 : this.#sharersOf(domain) + newcomers(domain);
			const id = -1 - at;
			const capacityBytes = Math.floor(place.capacityBytes / sharers);
			const freeBytes = Math.max(0, Math.floor(place.freeBytes / sharers) - this.#reserve(id, capacityBytes));
			return { id, domain: config.sameDevice ? `new ${at}` : domain, writable: true, capacityBytes, usedBytes: 0, freeBytes };
		});
		return [...now, ...more];
	}

	#diskSpaces(): DiskSpace[] {
		const { disks } = this.#modules;
		return disks.slots().map(({ id }) => {
			const packs = this.#packsOf(id);
			const writable = disks.writable(id) !== undefined;
			const isPlanted = this.#modules.platform.simulation?.planted("reserve-shown-free") === true;
			const freeBytes = writable ? Math.max(0, packs.freeBytes - (isPlanted ? 0 : this.#reserveOf(id))) : 0;
			const { capacityBytes, allocator } = packs;
			return { id, domain: this.#domainOf(id), writable, capacityBytes, usedBytes: allocator.usedBytes, freeBytes };
		});
	}

	/** Also prepares disks that were not used yet. Who comes while one is under way shares it. */
	refreshSpace(): Promise<void> {
		assert(this.#loaded, "segments are loaded before space is reckoned");
		this.#refreshing ??= this.#refresh().finally(() => {
			this.#refreshing = undefined;
		});
		return this.#refreshing;
	}

	async #refresh(): Promise<void> {
		const asked = this.#modules.disks.slots().map(async ({ id }) => {
			const packs = this.#packsOf(id);
			const writable = this.#modules.disks.writable(id);
			const disk = this.#modules.disks.readable(id);
			if (writable && !packs.prepared) await packs.prepare(writable, this.#sharers(id));
			else if (disk) await packs.refresh(disk, this.#sharers(id));
		});
		// A disk that fails to answer has been reported; the others' answers count.
		await Promise.allSettled(asked);
	}

	#inBackground(work: Promise<void>): void {
		const quiet: Promise<void> = work
			.catch((error: unknown) => {
				this.#modules.logger.error("giving space back failed", { error: String(error) });
			})
			.finally(() => this.#background.delete(quiet));
		this.#background.add(quiet);
	}

	async close(): Promise<void> {
		this.#unsubscribe();
		while (this.#background.size > 0) await Promise.all(this.#background);
		await Promise.all([...this.#packs.values()].map((packs) => packs.close()));
	}
}

/** A pack among those of all disks. */
export function packKey(disk: number, pack: number): string {
	return `${disk}/${pack}`;
}

function placeKey(place: FragmentPlace): string {
	return `d${place.disk}.${place.pack}.${place.offset}`;
}

function noDisks(id: number, failures: readonly PutFailure[]): FsError {
	const full = failures.find(({ error }) => error.code === "ENOSPC");
	if (full !== undefined) {
		const message = `no room for segment ${id}: d${full.disk} says that it has space and refuses: ${full.error.message}. Delete something or add a disk`;
		return new FsError("ENOSPC", "storage.refused", message, { segment: id }, full.error);
	}
	const [last] = failures;
	const why = last ? `the last to fail was d${last.disk}: ${last.error.message}` : "no disk can be written";
	return new FsError(
		"EIO",
		"storage.no-disks",
		`segment ${id} could not be written: ${why}. Bring disks back or replace them`,
		{ segment: id },
		last?.error,
	);
}

function noSpace(id: number, shape: Redundancy, lengthBytes: number, candidates: readonly Candidate[]): FsError {
	const roomy = candidates.filter((candidate) => candidate.freeBytes >= lengthBytes).length;
	const needed = `${width(shape)} disks with ${lengthBytes} free bytes each are needed`;
	return new FsError(
		"ENOSPC",
		"storage.full",
		`no room for segment ${id}: ${needed} and ${roomy} of ${candidates.length} have that. Delete something or add a disk`,
		{ segment: id, neededBytes: lengthBytes, disksNeeded: width(shape), disksWithRoom: roomy },
	);
}
