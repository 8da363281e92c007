/**
 * Counts everything anew, from the records and the bytes on the simulated disks alone: what is named exists, what exists is named, counts are right, no disk space is taken
 * twice or leaked, and every fragment is what its record says. Reads the metadata through the engine, nothing through the volume.
 */
import { isFsError } from "../../src/base/errors.ts";
import { silentLogger } from "../../src/base/telemetry.ts";
import { readKeyU64 } from "../../src/base/bytes.ts";
import { crc32c } from "../../src/codec/checksum.ts";
import { localLimits } from "../../src/kv/limits.ts";
import { openLocalEngine } from "../../src/kv/local/engine.ts";
import { manifestFileName, readManifestSlots } from "../../src/kv/local/manifest-disk.ts";
import { runFileName } from "../../src/kv/local/run.ts";
import { spareFileName } from "../../src/kv/local/spare.ts";
import { markClean, openDiskSet, type OpenDiskSet } from "../../src/log/disk-set.ts";
import { wasReplaced } from "../../src/log/roster.ts";
import { pageBytes } from "../../src/platform/sim/limits.ts";
import { rawLimits } from "../../src/platform/raw/limits.ts";
import type { Disk } from "../../src/platform/interface.ts";
import type { SimWorld } from "../../src/platform/sim/world.ts";
import { reservedChunk } from "../../src/records/interface.ts";
import type {
	Chunk,
	CookieEntry,
	DirectoryEntry,
	ExtentBlock,
	Inode,
	RecordKind,
	Segment,
	VolumeRecord,
} from "../../src/records/interface.ts";
import {
	accessListRecord,
	careRecord,
	diskHistoryRecord,
	exportRecord,
	serviceRecord,
	chunkRecord,
	conversionRecord,
	cookieRecord,
	entryRecord,
	extentBlockRecord,
	headKey,
	inodeRecord,
	intentRecord,
	keyName,
	keyNumber,
	keySecondNumber,
	orphanRecord,
	pendingRecord,
	placeMark,
	proofRecord,
	segmentRecord,
	volumeRecord,
	xattrRecord,
} from "../../src/records/kinds.ts";
import { decodeHeader, fragmentLength, headerLength } from "../../src/storage/fragment.ts";
import { blockBytes } from "../../src/storage/limits.ts";
import { feasibleShape, parseRedundancy, tolerance, wantedShape } from "../../src/storage/redundancy.ts";
import { storageSpace } from "../../src/storage/space.ts";
import type { VolumeSpace } from "../../src/volume/interface.ts";
import type { Ledger, VolumeModules, VolumeStatus } from "../../src/volume/native/interface.ts";
import { memoryNames } from "../../src/volume/native/memory-names.ts";

export interface AuditOptions {
	readonly world: SimWorld;
	readonly paths: readonly string[];
	readonly modules: VolumeModules;
	readonly memory: { readonly logTailBytes: number };
	/** What the volume said of itself before it was shut down. */
	readonly status: VolumeStatus;
	readonly ledger: Ledger;
	/** What statfs showed at that moment, and what lay on the disks then. */
	readonly shown: VolumeSpace;
	readonly lying: readonly LyingOn[];
}

/** One disk, counted page by page. */
export interface LyingOn {
	readonly path: string;
	readonly capacityBytes: number;
	readonly packBytes: number;
	readonly runBytes: number;
	readonly otherBytes: number;
	/** Of them: set aside for the next mount. */
	readonly spareBytes: number;
}

/** Empty where a raw device is among them, whose files only its own table tells: `#units` counts these. */
export function lyingOn(world: SimWorld, paths: readonly string[]): LyingOn[] {
	if (paths.some((path) => world.disk(path).raw)) return [];
	return paths.map((path) => {
		const disk = world.disk(path);
		const bytesOf = (isOne: (name: string) => boolean): number =>
			disk.files().reduce((sum, name) => sum + (isOne(name) ? disk.pagesOf(name).length * pageBytes : 0), 0);
		const isPack = (name: string): boolean => name.startsWith("pack/");
		const isRun = (name: string): boolean => name.startsWith("kv/run-");
		return {
			path,
			capacityBytes: disk.capacityBytes,
			packBytes: bytesOf(isPack),
			runBytes: bytesOf(isRun),
			otherBytes: bytesOf((name) => !isPack(name) && !isRun(name)),
			spareBytes: bytesOf((name) => name === spareFileName),
		};
	});
}

/** Of a volume that was shut down cleanly and is whole. @returns everything that is wrong. */
export async function audit(options: AuditOptions): Promise<string[]> {
	const { modules, paths, world } = options;
	const disks = await openDiskSet({ paths, acceptLoss: false }, modules);
	const memory = await modules.platform.openMemory(memoryNames(disks.roster.volume).log, options.memory.logTailBytes);
	const engine = await openLocalEngine({}, { ...modules, logger: silentLogger, disks, memory });
	const records = new Map<string, Uint8Array>();
	for (let start = ""; ; ) {
		const batch = await engine.range({ start, end: undefined, limit: 500 });
		for (const { key, value } of batch) records.set(key, value);
		if (batch.length < 500) break;
		start = `${batch.at(-1)?.key}\0`;
	}
	// It tidies up in the background.
	await engine.close();
	const wrong = await new Audit(records, disks, world).run(options);
	wrong.push(...(await strangeFiles(disks, world)));
	await markClean(disks, engine.statistics.generation);
	await memory.close();
	await modules.platform.removeMemory(memoryNames(disks.roster.volume).log);
	await disks.close();
	return wrong;
}

/** Files that nothing knows of. */
async function strangeFiles(disks: OpenDiskSet, world: SimWorld): Promise<string[]> {
	const { roster } = disks;
	const strange: string[] = [];
	for (const { id, disk } of disks.slots()) {
		if (disk === undefined) continue;
		const known = new Set(["superblock"]);
		if (roster.manifestDisks.includes(id)) {
			known.add(manifestFileName);
			known.add(spareFileName);
			const { slots } = await readManifestSlots(disk, roster.volume, localLimits.manifestSlotBytes);
			const newest = slots.reduce(
				(best, slot) => (slot !== undefined && slot.generation > (best?.generation ?? -1) ? slot : best),
				undefined,
			);
			for (const run of newest?.runs ?? []) known.add(runFileName(run.id));
		}
		const logs = roster.logEpochs.some((epoch) => epoch.members.includes(id));
		for (const name of await filesOn(disk, world))
			if (!known.has(name) && !name.startsWith("pack/") && !(logs && name.startsWith("log/")))
				strange.push(`${name} on d${id}, of which nothing knows`);
	}
	return strange;
}

/** Names of all files, as they lie there; of a raw device as the disk that is made of it tells them. */
async function filesOn(disk: Disk, world: SimWorld): Promise<string[]> {
	const device = world.disk(disk.path);
	if (!device.raw) return device.files();
	const files: string[] = [];
	const folders = [""];
	for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
		for (const name of await disk.list(folder)) {
			if (name.endsWith("/")) folders.push(folder + name.slice(0, -1));
			else files.push(folder === "" ? name : `${folder}/${name}`);
		}
	}
	return files;
}

class Audit {
	readonly #records: ReadonlyMap<string, Uint8Array>;
	readonly #disks: OpenDiskSet;
	readonly #world: SimWorld;
	readonly #wrong: string[] = [];
	readonly #inodes = new Map<number, Inode>();
	#reservedBytes = 0;
	/** Of each segment, by what extents name. */
	readonly #live = new Map<number, number>();

	constructor(records: ReadonlyMap<string, Uint8Array>, disks: OpenDiskSet, world: SimWorld) {
		this.#records = records;
		this.#disks = disks;
		this.#world = world;
	}

	async run({ status, ledger, shown, lying }: AuditOptions): Promise<string[]> {
		this.#nothingUnknown();
		for (const [key, inode] of this.#all(inodeRecord)) this.#inodes.set(keyNumber(key), inode);
		this.#names();
		this.#leftovers();
		const chunks = this.#extents();
		await this.#segments(chunks);
		this.#proofs();
		this.#numbers();
		this.#space(status);
		if (lying.length > 0) this.#df(status, shown, lying);
		this.#ledger(ledger);
		return this.#wrong;
	}

	#say(what: string): void {
		this.#wrong.push(what);
	}

	#same(what: string, recorded: unknown, counted: unknown): void {
		if (recorded !== counted) this.#say(`${what}: ${recorded} is recorded, ${counted} counted`);
	}

	#all<Key extends readonly unknown[], Value>(kind: RecordKind<Key, Value>): [string, Value][] {
		const prefix = kind.prefix(...([] as unknown as Partial<Key>));
		return [...this.#records].filter(([key]) => key.startsWith(prefix)).map(([key, value]) => [key, kind.decode(value, key)]);
	}

	#nothingUnknown(): void {
		const kinds = [
			inodeRecord,
			entryRecord,
			cookieRecord,
			xattrRecord,
			extentBlockRecord,
			chunkRecord,
			segmentRecord,
			volumeRecord,
			accessListRecord,
			proofRecord,
			careRecord,
			diskHistoryRecord,
			exportRecord,
			serviceRecord,
		];
		const tags = new Set(kinds.map((kind) => kind.tag));
		for (const key of this.#records.keys()) {
			const known =
				tags.has(key[0] as string) ||
				key === headKey(0) ||
				[orphanRecord.tag, intentRecord.tag, pendingRecord.tag, conversionRecord.tag].includes(key[0] as string);
			if (!known) this.#say(`a record of unknown kind ${JSON.stringify(key)}`);
		}
	}

	#names(): void {
		const links = new Map<number, number>();
		const subdirectories = new Map<number, number>();
		const entries = new Map<number, number>();
		const add = (map: Map<number, number>, key: number): void => void map.set(key, (map.get(key) ?? 0) + 1);
		const cookies = new Map(this.#all(cookieRecord));
		for (const [key, entry] of this.#all(entryRecord) as [string, DirectoryEntry][]) {
			const parent = keyNumber(key);
			const name = keyName(key);
			add(links, entry.ino);
			add(entries, parent);
			const child = this.#inodes.get(entry.ino);
			if (child === undefined) this.#say(`${parent}/${name} names inode ${entry.ino}, which does not exist`);
			else this.#same(`type of ${parent}/${name}`, entry.type, child.type);
			if (child?.type === "directory") {
				add(subdirectories, parent);
				this.#same(`parent of directory ${entry.ino}`, child.parent, parent);
			}
			const cookieKey = cookieRecord.key(parent, entry.cookie);
			const cookie: CookieEntry | undefined = cookies.get(cookieKey);
			cookies.delete(cookieKey);
			if (cookie?.name !== name || cookie.ino !== entry.ino || cookie.type !== entry.type)
				this.#say(`${parent}/${name} and its position do not agree`);
			if (entry.cookie >= (this.#inodes.get(parent)?.nextCookie ?? 0)) this.#say(`position of ${parent}/${name} was never given out`);
		}
		for (const key of cookies.keys()) this.#say(`position ${keySecondNumber(key)} of directory ${keyNumber(key)} has no name`);
		const attributes = new Map<number, number>();
		const bytes = new Map<number, { names: number; values: number }>();
		for (const [key, xattr] of this.#all(xattrRecord)) {
			const ino = keyNumber(key);
			add(attributes, ino);
			const sum = bytes.get(ino) ?? { names: 0, values: 0 };
			bytes.set(ino, { names: sum.names + keyName(key).length + 1, values: sum.values + xattr.value.length });
		}
		const lists = new Set(this.#all(accessListRecord).map(([key]) => keyNumber(key)));
		for (const [ino, inode] of this.#inodes) {
			const isDirectory = inode.type === "directory";
			const counted = isDirectory ? 2 + (subdirectories.get(ino) ?? 0) : (links.get(ino) ?? 0);
			this.#same(`nlink of inode ${ino}`, inode.nlink, counted);
			if (ino !== 1 && !links.has(ino)) this.#say(`inode ${ino} has no name`);
			if (isDirectory && (links.get(ino) ?? 0) > 1) this.#say(`directory ${ino} has ${links.get(ino)} names`);
			this.#same(`entries of inode ${ino}`, inode.entryCount, entries.get(ino) ?? 0);
			this.#same(`extended attributes of inode ${ino}`, inode.xattrCount, attributes.get(ino) ?? 0);
			this.#same(`bytes of names of attributes of inode ${ino}`, inode.xattrNameBytes, bytes.get(ino)?.names ?? 0);
			this.#same(`bytes of values of attributes of inode ${ino}`, inode.xattrValueBytes, bytes.get(ino)?.values ?? 0);
			this.#same(`access lists of inode ${ino}`, inode.access, lists.delete(ino) ? 1 : 0);
			for (const map of [links, entries, attributes]) map.delete(ino);
		}
		for (const ino of lists) this.#say(`inode ${ino} does not exist and has an access list`);
		for (const ino of [...entries.keys(), ...attributes.keys()]) this.#say(`inode ${ino} does not exist and has entries or attributes`);
		this.#noCycles();
	}

	#noCycles(): void {
		for (const inode of this.#inodes.values()) {
			let at: Inode | undefined = inode.type === "directory" ? inode : undefined;
			for (let depth = 0; at !== undefined && at.ino !== 1; depth++) {
				if (depth > this.#inodes.size) {
					this.#say(`directory ${inode.ino} is not below the root`);
					return;
				}
				at = this.#inodes.get(at.parent);
			}
		}
	}

	#leftovers(): void {
		for (const [key] of this.#all(orphanRecord)) this.#say(`inode ${keyNumber(key)} is still an orphan`);
		for (const [key] of this.#all(intentRecord)) this.#say(`intent ${keyNumber(key)} is still there`);
		for (const [key] of this.#all(conversionRecord)) this.#say(`a change of the protection of inode ${keyNumber(key)} is still under way`);
		for (const [key] of this.#all(pendingRecord)) this.#say(`bytes of inode ${keyNumber(key)} are still pending`);
	}

	/** Extent maps of all inodes. @returns what they refer to. */
	#extents(): Map<number, { references: number; bytes: number }> {
		const chunks = new Map<number, { references: number; bytes: number }>();
		const stored = new Map<number, number>();
		const ends = new Map<number, number>();
		for (const [key, block] of this.#all(extentBlockRecord) as [string, ExtentBlock][]) {
			const ino = readKeyU64(key, 1);
			const inode = this.#inodes.get(ino);
			if (inode === undefined || inode.type !== "file") this.#say(`extents of inode ${ino}, which is ${inode?.type ?? "not there"}`);
			if (inode?.inline !== undefined) this.#say(`inode ${ino} has inline contents and extents`);
			if (block.extents.length === 0) this.#say(`an empty block of extents of inode ${ino}`);
			let at = Math.max(block.start, ends.get(ino) ?? 0);
			for (const extent of block.extents) {
				if (extent.offset < at || extent.offset + extent.length > block.start + block.span)
					this.#say(`extents of inode ${ino} overlap or leave their block at ${extent.offset}`);
				at = extent.offset + extent.length;
				stored.set(ino, (stored.get(ino) ?? 0) + extent.length);
				if (extent.chunk === reservedChunk) {
					this.#reservedBytes += extent.length;
					continue;
				}
				if (inode !== undefined && at > inode.size) this.#say(`inode ${ino} has extents to ${at} and ${inode.size} bytes`);
				const chunk = chunks.get(extent.chunk) ?? { references: 0, bytes: 0 };
				chunks.set(extent.chunk, chunk);
				chunk.references++;
				chunk.bytes += extent.length;
				const record = this.#chunk(extent.chunk);
				if (inode !== undefined && record !== undefined) this.#asSafeAsAsked(inode, this.#segment(record.segment));
				if (record === undefined) this.#say(`inode ${ino} refers to chunk ${extent.chunk}, which does not exist`);
				else if (extent.chunkOffset + extent.length > record.length)
					this.#say(`inode ${ino} refers beyond the end of chunk ${extent.chunk}`);
			}
			ends.set(ino, at);
		}
		for (const [ino, inode] of this.#inodes) {
			if (inode.type === "file")
				this.#same(`stored bytes of inode ${ino}`, inode.storedBytes, inode.inline?.length ?? stored.get(ino) ?? 0);
		}
		return chunks;
	}

	/** What a file is made of lies as safe as it asks for; what others share may lie safer. */
	#asSafeAsAsked(inode: Inode, segment: Segment | undefined): void {
		const key = volumeRecord.key();
		const value = this.#records.get(key);
		if (segment === undefined || value === undefined) return;
		const { protections } = volumeRecord.decode(value, key);
		const asked =
			inode.protection === 0 ? this.#disks.roster.config.redundancy : protections.find(({ id }) => id === inode.protection)?.redundancy;
		if (asked === undefined) this.#say(`inode ${inode.ino} asks for protection ${inode.protection}, which is none`);
		else if (tolerance(parseRedundancy(segment.target)) < tolerance(parseRedundancy(asked)))
			this.#say(`inode ${inode.ino} asks for ${asked}, segment ${segment.id} is to be ${segment.target}`);
	}

	#segment(id: number): Segment | undefined {
		const key = segmentRecord.key(id);
		const value = this.#records.get(key);
		return value === undefined ? undefined : segmentRecord.decode(value, key);
	}

	#chunk(id: number): Chunk | undefined {
		const key = chunkRecord.key(id);
		const value = this.#records.get(key);
		return value === undefined ? undefined : chunkRecord.decode(value, key);
	}

	async #segments(counted: ReadonlyMap<number, { readonly references: number; readonly bytes: number }>): Promise<void> {
		const live = this.#live;
		const unknown = new Set<number>();
		const inSegment = new Map<number, Chunk[]>();
		for (const [, chunk] of this.#all(chunkRecord)) {
			const found = counted.get(chunk.id);
			this.#same(`references of chunk ${chunk.id}`, chunk.references, found?.references ?? 0);
			this.#same(`referenced bytes of chunk ${chunk.id}`, chunk.referencedBytes, found?.bytes ?? 0);
			live.set(chunk.segment, (live.get(chunk.segment) ?? 0) + Math.min(chunk.length, found?.bytes ?? 0));
			unknown.add(chunk.segment);
			inSegment.set(chunk.segment, [...(inSegment.get(chunk.segment) ?? []), chunk]);
		}
		const taken = new Map<string, { from: number; to: number; segment: number }[]>();
		for (const [, segment] of this.#all(segmentRecord)) {
			this.#same(`live bytes of segment ${segment.id}`, segment.liveBytes, live.get(segment.id) ?? 0);
			if (segment.liveBytes === 0) this.#say(`segment ${segment.id} is dead and still there`);
			for (const chunk of inSegment.get(segment.id) ?? []) {
				if (chunk.offset + chunk.length > segment.payloadBytes) this.#say(`chunk ${chunk.id} reaches beyond segment ${segment.id}`);
			}
			unknown.delete(segment.id);
			this.#protection(segment);
			for (const place of segment.fragments) {
				await this.#fragment(segment, place);
				const key = `${place.disk}/${place.pack}`;
				const places = taken.get(key) ?? [];
				taken.set(key, places);
				places.push({ from: place.offset, to: place.offset + fragmentLength(segment.shardBytes), segment: segment.id });
			}
		}
		for (const id of unknown) this.#say(`chunks of segment ${id}, which does not exist`);
		await this.#packs(taken);
	}

	/** All of them can be read, and none vouches for a place twice. What they vouch for was looked at already. */
	#proofs(): void {
		const seen = new Set<number>();
		for (const [key, { segments }] of this.#all(proofRecord))
			for (const { segment } of segments) {
				if (seen.has(segment)) this.#say(`two proofs of segment ${segment}, the second in group ${keyNumber(key)}`);
				seen.add(segment);
			}
	}

	/** In the shape that was asked for, one fragment for each index, each on another healthy disk. */
	#protection(segment: Segment): void {
		const wanted = wantedShape(parseRedundancy(segment.target), segment.payloadBytes);
		if (segment.dataShards !== wanted.dataShards || segment.parityShards !== wanted.parityShards)
			this.#say(
				`segment ${segment.id} is ${segment.dataShards}+${segment.parityShards} instead of ${wanted.dataShards}+${wanted.parityShards}`,
			);
		this.#same(`fragments of segment ${segment.id}`, segment.fragments.length, segment.dataShards + segment.parityShards);
		const disks = new Set(segment.fragments.map((place) => place.disk));
		if (disks.size !== segment.fragments.length) this.#say(`segment ${segment.id} has several fragments on one disk`);
		for (const disk of disks)
			if (this.#disks.writable(disk) === undefined) this.#say(`segment ${segment.id} has a fragment on d${disk}, which is not healthy`);
	}

	/** The bytes that lie there, checked without the code that reads them in the product. */
	async #fragment(segment: Segment, place: Segment["fragments"][number]): Promise<void> {
		const what = `fragment ${place.index} of segment ${segment.id} on d${place.disk}`;
		const name = `pack/${String(place.pack).padStart(8, "0")}`;
		const bytes = await this.#bytesOf(this.#disks.slot(place.disk)?.disk, name, place.offset, fragmentLength(segment.shardBytes));
		if (bytes === undefined) {
			this.#say(`${what}: there is no ${name}`);
			return;
		}
		const headerBytes = headerLength(segment.shardBytes);
		try {
			const header = decodeHeader(bytes.subarray(0, headerBytes));
			if (header.segment !== segment.id || header.index !== place.index || header.generation !== place.generation)
				this.#say(`${what} is another one`);
			if (header.checksum !== place.headerChecksum) this.#say(`${what} has another header than was recorded`);
			for (const [block, checksum] of header.table.entries()) {
				const from = headerBytes + block * blockBytes;
				if (crc32c(bytes.subarray(from, from + blockBytes)) !== checksum) this.#say(`${what} is damaged in block ${block}`);
			}
		} catch (error) {
			this.#say(`${what}: ${error instanceof Error ? error.message : error}`);
		}
	}

	/** Undefined: no such file. */
	async #bytesOf(disk: Disk | undefined, name: string, offset: number, lengthBytes: number): Promise<Uint8Array | undefined> {
		if (disk === undefined) return undefined;
		const device = this.#world.disk(disk.path);
		if (!device.raw) return device.files().includes(name) ? device.peekRange(name, offset, lengthBytes) : undefined;
		const file = await disk.open(name).catch((error: unknown) => {
			if (!isFsError(error, "ENOENT")) throw error;
		});
		const bytes = await file?.read(offset, lengthBytes);
		await file?.close();
		return bytes;
	}

	/** No place is taken twice, and no more is allocated on the disks than records name. */
	async #packs(taken: ReadonlyMap<string, { from: number; to: number; segment: number }[]>): Promise<void> {
		for (const [pack, places] of taken) {
			places.sort((a, b) => a.from - b.from);
			for (const [i, place] of places.entries()) {
				const next = places[i + 1];
				if (next !== undefined && next.from < place.to)
					this.#say(`segments ${place.segment} and ${next.segment} lie on one another in ${pack}`);
			}
		}
		for (const slot of this.#disks.slots()) {
			if (slot.disk === undefined) continue;
			const device = this.#world.disk(slot.path);
			if (device.raw) await this.#units(slot.id, slot.disk, taken);
			else
				for (const name of device.files()) {
					if (!name.startsWith("pack/")) continue;
					const places = taken.get(`${slot.id}/${Number(name.slice(5))}`) ?? [];
					const pages = device
						.pagesOf(name)
						.filter((page) => !places.some(({ from, to }) => page * pageBytes >= from && page * pageBytes < to));
					// What a dead daemon wrote and never committed is given back at the next mount, but for small gaps.
					if (pages.length * pageBytes > leakBytes) this.#say(`${pages.length} pages of ${name} on d${slot.id} belong to nobody`);
				}
		}
	}

	/** A raw device gives space in units; all that is given out is wanted. */
	async #units(id: number, disk: Disk, taken: ReadonlyMap<string, readonly { from: number; to: number }[]>): Promise<void> {
		const { capacityBytes, freeBytes } = await disk.space();
		const units = new Set<string>();
		for (const [pack, places] of taken) {
			if (!pack.startsWith(`${id}/`)) continue;
			for (const { from, to } of places)
				for (let unit = Math.floor(from / unitBytes); unit * unitBytes < to; unit++) units.add(`${pack}/${unit}`);
		}
		let wantedBytes = units.size * unitBytes;
		for (const name of await filesOn(disk, this.#world)) {
			if (name.startsWith("pack/")) continue;
			const file = await disk.open(name);
			wantedBytes += Math.ceil((await file.size()) / unitBytes) * unitBytes;
			await file.close();
		}
		if (capacityBytes - freeBytes > wantedBytes + leakBytes)
			this.#say(`${capacityBytes - freeBytes} bytes of d${id} are given out, ${wantedBytes} are wanted`);
	}

	#numbers(): void {
		const key = volumeRecord.key();
		const value = this.#records.get(key);
		if (value === undefined) {
			this.#say("there is no volume record");
			return;
		}
		const volume: VolumeRecord = volumeRecord.decode(value, key);
		this.#same("reserved bytes", volume.reservedBytes, this.#reservedBytes);
		for (const [, chunk] of this.#all(chunkRecord)) if (chunk.id >= volume.nextChunk) this.#say(`chunk ${chunk.id} was never numbered`);
		for (const [, segment] of this.#all(segmentRecord))
			if (segment.id >= volume.nextSegment) this.#say(`segment ${segment.id} was never numbered`);
	}

	/** What the volume said it uses, reckoned from the records. */
	#space({ usedBytes }: VolumeStatus): void {
		const used = new Map<number, number>();
		for (const [, segment] of this.#all(segmentRecord)) {
			for (const { disk } of segment.fragments) used.set(disk, (used.get(disk) ?? 0) + fragmentLength(segment.shardBytes));
		}
		const slots = this.#disks
			.slots()
			.map(({ id, domain }) => ({ id, domain, writable: true, capacityBytes: 0, usedBytes: used.get(id) ?? 0, freeBytes: 0 }));
		const members = slots.filter(
			({ id }) => !this.#disks.roster.disks.some((entry) => entry.id === id && wasReplaced(entry)) || used.has(id),
		);
		this.#same("used bytes", usedBytes, storageSpace(this.#disks.roster.config.redundancy, members).usedBytes);
	}

	/** df adds up: used, free and reserved are all there is, and what is free is what would fit, to one part in a hundred and a segment: where the last one does not fit there may be room for its bytes. */
	#df(status: VolumeStatus, shown: VolumeSpace, lying: readonly LyingOn[]): void {
		const { capacityBytes, usedBytes, freeBytes, reservedBytes, dirtyBytes } = status;
		const near = (what: string, told: number, counted: number, of: number): void => {
			if (Math.abs(told - counted) > of / 100 + triedBytes) this.#say(`${what}: ${told} is told, ${Math.round(counted)} counted, of ${of}`);
		};
		this.#same("bytes that are dirty after everything was sealed", dirtyBytes, 0);
		this.#same("reserved bytes in the status", reservedBytes, this.#reservedBytes);
		this.#same("capacity in df", shown.capacityBytes, capacityBytes);
		near("free space in df and status", shown.freeBytes, freeBytes, capacityBytes);
		const free = fitting(status.redundancy, lying);
		near("free and reserved space", freeBytes + reservedBytes, Math.max(free, reservedBytes), usedBytes + free);
		near("capacity", capacityBytes, usedBytes + free, usedBytes + free);
		const taken = new Map<string, number>();
		for (const [, segment] of this.#all(segmentRecord))
			for (const { disk } of segment.fragments) {
				const path = this.#disks.slot(disk)?.path ?? "";
				taken.set(path, (taken.get(path) ?? 0) + fragmentLength(segment.shardBytes));
			}
		for (const { path, capacityBytes: size, packBytes } of lying) near(`bytes in packs on ${path}`, packBytes, taken.get(path) ?? 0, size);
	}

	/** The ledger, reckoned from what the extents of files name: its own counts were held against them before. Everything is whole. */
	#ledger(ledger: Ledger): void {
		const proven = new Map<number, Set<string>>();
		for (const [, group] of this.#all(proofRecord))
			for (const { segment, fragments } of group.segments) proven.set(segment, new Set(fragments.map((one) => `${one.index}:${one.mark}`)));
		const levels = new Map<string, { segments: number; provenBytes: number; recordedBytes: number }>();
		const survival = new Map<number, { recordedBytes: number; provenBytes: number }>();
		const survives = (losses: number, field: "recordedBytes" | "provenBytes", bytes: number): void => {
			const sum = survival.get(losses) ?? { recordedBytes: 0, provenBytes: 0 };
			survival.set(losses, sum);
			sum[field] += bytes;
		};
		for (const [, segment] of this.#all(segmentRecord)) {
			const bytes = this.#live.get(segment.id) ?? 0;
			const level = levels.get(segment.target) ?? { segments: 0, provenBytes: 0, recordedBytes: 0 };
			levels.set(segment.target, level);
			const good = segment.fragments.filter((place) => proven.get(segment.id)?.has(`${place.index}:${placeMark(place)}`)).length;
			level.segments++;
			if (good === segment.fragments.length) level.provenBytes += bytes;
			else level.recordedBytes += bytes;
			survives(segment.fragments.length - segment.dataShards, "recordedBytes", bytes);
			survives(Math.max(-1, good - segment.dataShards), "provenBytes", bytes);
		}
		const text = (one: object): string => JSON.stringify(one);
		const told = ledger.levels.map(({ redundancy, segments, provenBytes, recordedBytes }) =>
			text([redundancy, { segments, provenBytes, recordedBytes }]),
		);
		this.#same("levels of the ledger", told.sort().join(), [...levels].map(text).sort().join());
		for (const level of ledger.levels)
			this.#same(`bytes of ${level.redundancy}`, level.wantedBytes, level.provenBytes + level.recordedBytes);
		const survivalTold = ledger.survival.map(({ losses, recordedBytes, provenBytes }) => text([losses, { recordedBytes, provenBytes }]));
		this.#same("survival in the ledger", survivalTold.sort().join(), [...survival].map(text).sort().join());
		this.#same("shortages of the ledger", ledger.shortages.length, 0);
		this.#same("degraded and lost bytes of the ledger", ledger.degradedBytes + ledger.lostBytes, 0);
	}
}

/** User bytes that would fit: segments of the usual size, one fragment on a disk, as long as enough disks have room beside what is kept for metadata. Tried, not reckoned. */
function fitting(redundancy: string, lying: readonly LyingOn[]): number {
	const shape = feasibleShape(parseRedundancy(redundancy), lying.length);
	if (shape === undefined) return 0;
	const payloadBytes = triedBytes;
	const fragment = fragmentLength(Math.ceil(payloadBytes / shape.dataShards / blockBytes) * blockBytes);
	const free = lying.map(({ capacityBytes, packBytes, runBytes, otherBytes, spareBytes }) => {
		const room = Math.min(256 * 1024 * 1024, capacityBytes / 16);
		const kept = Math.max(runBytes, room - Math.min(spareBytes, room / 2));
		return capacityBytes - packBytes - runBytes - otherBytes - kept;
	});
	let segments = 0;
	for (;;) {
		free.sort((a, b) => b - a);
		const last = free[shape.dataShards + shape.parityShards - 1] as number;
		// The last one fits in part.
		if (last < fragment) return (segments + Math.max(0, last) / fragment) * payloadBytes;
		for (let at = 0; at < shape.dataShards + shape.parityShards; at++) free[at] = (free[at] as number) - fragment;
		segments++;
	}
}

/** Payload of the segments that are laid out. */
const triedBytes = 2 * 1024 * 1024;
const { unitBytes } = rawLimits;
const leakBytes = 4 * 1024 * 1024;
