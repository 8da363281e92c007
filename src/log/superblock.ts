/**
 * The superblock: who a disk is and what it knows of its volume (the roster).
 *
 * File `superblock`, two slots of 64 KiB at 0 and 64 KiB. A slot, little-endian:
 *   magic "CAIRNSB1" · version u32 · features u32 · length u32 · CRC32C u32 (over `length` bytes with this field zero) · disk uuid 16 ·
 *   roster
 * The first 24 bytes never change their meaning, so that an older program can tell a newer format from damage.
 *
 * Invariants
 *  S1 A write goes to the slot that does not hold the newest valid superblock: a torn write leaves the older one.
 *  S2 Both slots are allocated when the file is made: writing the roster needs no space.
 */
import { assert } from "../base/assert.ts";
import { bytesToLatin1, formatUuid, isZeros, latin1ToBytes, parseUuid, utf8ToLatin1 } from "../base/bytes.ts";
import { FsError, isFsError, newerFormat } from "../base/errors.ts";
import { ByteReader, ByteWriter } from "../codec/binary.ts";
import { crc32c } from "../codec/checksum.ts";
import type { Disk, DiskFile } from "../platform/interface.ts";
import type { DiskDuty, DiskHealth, LogEpoch, Roster, RosterDisk, VolumeConfig } from "./interface.ts";
import {
	maximumDisks,
	maximumLogEpochs,
	maximumNameBytes,
	maximumPathBytes,
	maximumReasonBytes,
	maximumSegmentBytes,
	maximumSegments,
	minimumSegmentBytes,
	minimumSegments,
	superblockSlotBytes,
} from "./limits.ts";

export const superblockName = "superblock";
const magic = "CAIRNSB1";
const version = 1;
const headBytes = 24;
const checksumAt = 20;
/** By their number on disk. */
const duties: readonly DiskDuty[] = ["use", "drain", "leave"];
const healths: readonly DiskHealth[] = ["healthy", "degraded", "suspect", "failed"];
/** Slots are written in whole pages: a page is the unit in which devices read, change and write. */
const pageBytes = 4096;

export interface Superblock {
	readonly diskUuid: string;
	readonly roster: Roster;
}

// ── bytes ────────────────────────────────────────────────────────────────────────────────────────────────────────

/** A line for people as a byte string that fits the roster. */
export function reasonText(text: string): string {
	return utf8ToLatin1(text).slice(0, maximumReasonBytes);
}

/** @throws FsError E2BIG `log.superblock-full` when the roster does not fit a slot. */
export function encodeSuperblock(superblock: Superblock): Uint8Array {
	const out = new ByteWriter(4096);
	out.raw(latin1ToBytes(magic)).u32(version).u32(0).u32(0).u32(0).raw(parseUuid(superblock.diskUuid));
	encodeRoster(out, superblock.roster);
	if (out.length > superblockSlotBytes) {
		throw new FsError(
			"E2BIG",
			"log.superblock-full",
			`the list of ${superblock.roster.disks.length} disks does not fit a superblock: shorten the disks' paths`,
			{
				bytes: out.length,
			},
		);
	}
	out.patchU32(16, out.length);
	out.patchU32(checksumAt, crc32c(out.view()));
	return out.finish();
}

/**
 * `bytes` is one slot. Undefined = never written (all zeros).
 * @throws FsError CORRUPT, REFUSED `log.superblock-newer` (written by a newer Cairn).
 */
export function decodeSuperblock(bytes: Uint8Array, what: string): Superblock | undefined {
	if (isZeros(bytes)) return undefined;
	const input = new ByteReader(bytes, what);
	if (bytesToLatin1(input.raw(8)) !== magic) throw input.corrupt("no superblock");
	const formatVersion = input.u32();
	const features = input.u32();
	const length = input.u32();
	const checksum = input.u32();
	if (length < headBytes || length > Math.min(bytes.length, superblockSlotBytes)) throw input.corrupt(`length ${length}`);
	const checked = bytes.slice(0, length);
	checked.fill(0, checksumAt, headBytes);
	if (crc32c(checked) !== checksum) throw input.corrupt("checksum differs");
	if (formatVersion > version || features !== 0) throw newerFormat("log.superblock-newer", what, `${formatVersion}.${features}`);
	if (formatVersion !== version) throw input.corrupt(`format ${formatVersion}`);
	const body = new ByteReader(bytes.subarray(headBytes, length), what);
	const diskUuid = formatUuid(body.raw(16));
	const roster = decodeRoster(body);
	body.end();
	const wrong = rosterFault(roster);
	if (wrong !== undefined) throw input.corrupt(wrong);
	return { diskUuid, roster };
}

function encodeRoster(out: ByteWriter, roster: Roster): void {
	out.raw(parseUuid(roster.volume)).text(roster.name).u64(roster.epoch).u64(roster.incarnation).time(roster.createdAt);
	out
		.u64(roster.memoryIncarnation ?? roster.incarnation)
		.u8(roster.clean ? 1 : 0)
		.u8(roster.unfinished ? 1 : 0);
	const config = roster.config;
	out
		.text(config.redundancy)
		.u8(config.tolerance)
		.u32(config.logSegmentBytes)
		.u32(config.logSegmentCount)
		.u8(config.sameDevice ? 1 : 0);
	out.u32(roster.nextDiskId).u16(roster.disks.length);
	for (const disk of roster.disks) {
		out
			.u32(disk.id)
			.raw(parseUuid(disk.uuid))
			.u8(disk.membership === "in" ? 1 : 0)
			.u8(duties.indexOf(disk.duty))
			.u8(healths.indexOf(disk.health))
			.u8(disk.isHealthSet ? 1 : 0);
		out.text(disk.path).text(disk.domain).text(disk.reason);
	}
	out.u16(roster.logEpochs.length);
	for (const epoch of roster.logEpochs) {
		out.u32(epoch.epoch).u64(epoch.firstSequence).u64(epoch.incarnation);
		encodeIds(out, epoch.members);
	}
	encodeIds(out, roster.manifestDisks);
	out.u64(roster.manifestGeneration);
}

function encodeIds(out: ByteWriter, ids: readonly number[]): void {
	out.u16(ids.length);
	for (const id of ids) out.u32(id);
}

function decodeRoster(input: ByteReader): Roster {
	const volume = formatUuid(input.raw(16));
	const name = input.text();
	const epoch = input.u64();
	const incarnation = input.u64();
	const createdAt = input.time();
	const memoryIncarnation = input.u64();
	const clean = decodeFlag(input);
	const unfinished = decodeFlag(input);
	const config: VolumeConfig = {
		redundancy: input.text(),
		tolerance: input.u8(),
		logSegmentBytes: input.u32(),
		logSegmentCount: input.u32(),
		sameDevice: decodeFlag(input),
	};
	const nextDiskId = input.u32();
	const disks = decodeList(input, decodeDisk);
	const logEpochs = decodeList(input, decodeEpoch);
	const manifestDisks = decodeIds(input);
	const manifestGeneration = input.u64();
	const roster = {
		volume,
		name,
		epoch,
		incarnation,
		createdAt,
		config,
		disks,
		nextDiskId,
		logEpochs,
		manifestDisks,
		manifestGeneration,
		clean,
		...(unfinished ? { unfinished } : {}),
	};
	return memoryIncarnation === incarnation ? roster : { ...roster, memoryIncarnation };
}

/** The count is not trusted for an allocation: a wrong one runs into the end of the bytes. */
function decodeList<T>(input: ByteReader, one: (input: ByteReader) => T): T[] {
	const count = input.u16();
	const list: T[] = [];
	for (let i = 0; i < count; i++) list.push(one(input));
	return list;
}

function decodeIds(input: ByteReader): number[] {
	return decodeList(input, (from) => from.u32());
}

function decodeFlag(input: ByteReader): boolean {
	const value = input.u8();
	if (value > 1) throw input.corrupt(`flag ${value}`);
	return value === 1;
}

function decodeDisk(input: ByteReader): RosterDisk {
	const id = input.u32();
	const uuid = formatUuid(input.raw(16));
	const membership = decodeFlag(input) ? "in" : "out";
	const number = input.u8();
	const duty = duties[number];
	if (duty === undefined) throw input.corrupt(`duty ${number} of d${id}`);
	const code = input.u8();
	const health = healths[code];
	if (health === undefined) throw input.corrupt(`health ${code} of d${id}`);
	const isHealthSet = decodeFlag(input);
	return { id, uuid, membership, duty, health, isHealthSet, path: input.text(), domain: input.text(), reason: input.text() };
}

function decodeEpoch(input: ByteReader): LogEpoch {
	const epoch = input.u32();
	const firstSequence = input.u64();
	const incarnation = input.u64();
	return { epoch, firstSequence, incarnation, members: decodeIds(input) };
}

/** What is wrong with a roster, in words; undefined when it makes sense. */
export function rosterFault(roster: Roster): string | undefined {
	const ids = new Set(roster.disks.map((disk) => disk.id));
	const uuids = new Set(roster.disks.map((disk) => disk.uuid));
	if (roster.disks.length === 0 || roster.disks.length > maximumDisks) return `${roster.disks.length} disks`;
	if (ids.size !== roster.disks.length || uuids.size !== roster.disks.length) return "a disk is named twice";
	if (roster.disks.some((disk) => disk.id === 0 || disk.id >= roster.nextDiskId)) return "a disk number that was never given";
	if (roster.epoch > 0xffff_ffff) return `roster epoch ${roster.epoch}`;
	if ((roster.memoryIncarnation ?? 0) > roster.incarnation) return "memory of a later incarnation";
	return configFault(roster.config) ?? textFault(roster) ?? epochFault(roster, ids);
}

function configFault(config: VolumeConfig): string | undefined {
	if (
		config.logSegmentBytes < minimumSegmentBytes ||
		config.logSegmentBytes > maximumSegmentBytes ||
		config.logSegmentBytes % pageBytes !== 0
	) {
		return `log segments of ${config.logSegmentBytes} bytes (${minimumSegmentBytes} to ${maximumSegmentBytes}, a multiple of ${pageBytes})`;
	}
	if (config.logSegmentCount < minimumSegments || config.logSegmentCount > maximumSegments) {
		return `${config.logSegmentCount} log segments (${minimumSegments} to ${maximumSegments})`;
	}
	return undefined;
}

function textFault(roster: Roster): string | undefined {
	if (roster.name.length === 0 || roster.name.length > maximumNameBytes) return "name too long or empty";
	if (roster.config.redundancy.length > maximumNameBytes) return "redundancy too long";
	for (const disk of roster.disks) {
		if (disk.path.length > maximumPathBytes || disk.domain.length > maximumPathBytes) return `path of d${disk.id} too long`;
		if (disk.reason.length > maximumReasonBytes) return `reason of d${disk.id} too long`;
	}
	return undefined;
}

function epochFault(roster: Roster, ids: ReadonlySet<number>): string | undefined {
	if (roster.logEpochs.length > maximumLogEpochs) return `${roster.logEpochs.length} log epochs`;
	let before: LogEpoch | undefined;
	for (const epoch of roster.logEpochs) {
		if (epoch.members.length === 0 || epoch.members.some((id) => !ids.has(id))) return `members of log epoch ${epoch.epoch}`;
		if (before && (before.epoch >= epoch.epoch || before.firstSequence > epoch.firstSequence)) return "log epochs out of order";
		before = epoch;
	}
	return roster.manifestDisks.some((id) => !ids.has(id)) ? "manifest on an unknown disk" : undefined;
}

// ── on a disk ────────────────────────────────────────────────────────────────────────────────────────────────────

export type SuperblockFound =
	| { readonly kind: "valid"; readonly superblock: Superblock; readonly slot: 0 | 1; readonly damagedSlots: number }
	/** No superblock file, or one that was allocated and never written (a format that was interrupted). */
	| { readonly kind: "absent"; readonly hasFile: boolean }
	| { readonly kind: "damaged"; readonly reason: string };

/** Better = later epoch; of one epoch the later incarnation. > 0 when `a` is the better one. */
export function compareRosters(a: Roster, b: Roster): number {
	return a.epoch - b.epoch || a.incarnation - b.incarnation;
}

/** @throws FsError REFUSED (newer format), and what the disk throws. */
export async function readSuperblock(disk: Disk): Promise<SuperblockFound> {
	let file: DiskFile;
	try {
		file = await disk.open(superblockName);
	} catch (error) {
		if (isFsError(error, "ENOENT")) return { kind: "absent", hasFile: false };
		throw error;
	}
	try {
		return await readSlots(disk, file);
	} finally {
		await file.close();
	}
}

async function readSlots(disk: Disk, file: DiskFile): Promise<SuperblockFound> {
	let best: { superblock: Superblock; slot: 0 | 1 } | undefined;
	const damage: string[] = [];
	for (const slot of [0, 1] as const) {
		try {
			await file.uncache(slot * superblockSlotBytes, superblockSlotBytes);
			const superblock = await readSlot(disk, file, slot);
			if (superblock && (!best || compareRosters(superblock.roster, best.superblock.roster) > 0)) best = { superblock, slot };
		} catch (error) {
			if (!isFsError(error, "CORRUPT") && !isFsError(error, "EIO")) throw error;
			damage.push(error.message);
		}
	}
	if (best) return { kind: "valid", ...best, damagedSlots: damage.length };
	if (damage.length > 0) return { kind: "damaged", reason: damage.join("; ") };
	return { kind: "absent", hasFile: true };
}

async function readSlot(disk: Disk, file: DiskFile, slot: 0 | 1): Promise<Superblock | undefined> {
	const { bytes, release } = await file.borrow(slot * superblockSlotBytes, superblockSlotBytes);
	try {
		return decodeSuperblock(bytes, `superblock ${slot} of ${disk.path}`);
	} finally {
		release();
	}
}

/** The open superblock of a disk, for writing. */
export class SuperblockFile {
	readonly #file: DiskFile;
	#newestSlot: 0 | 1;

	constructor(file: DiskFile, newestSlot: 0 | 1) {
		this.#file = file;
		this.#newestSlot = newestSlot;
	}

	/** Opens what `readSuperblock` found valid. */
	static async open(disk: Disk, newestSlot: 0 | 1): Promise<SuperblockFile> {
		return new SuperblockFile(await disk.open(superblockName), newestSlot);
	}

	/** Allocates both slots, zeroed, on a disk that has none; the name is durable. No slot is valid until the first `write`. */
	static async format(disk: Disk): Promise<SuperblockFile> {
		const file = await disk.open(superblockName, { create: true });
		await file.write(0, [new Uint8Array(2 * superblockSlotBytes)]);
		await disk.syncNames("", "log.superblock-name");
		return new SuperblockFile(file, 1);
	}

	/** Durable when it resolves. After an error the disk must not be used any more. */
	async write(superblock: Superblock): Promise<void> {
		const bytes = encodeSuperblock(superblock);
		const padded = new Uint8Array(Math.ceil(bytes.length / pageBytes) * pageBytes);
		padded.set(bytes);
		const slot = this.#newestSlot === 0 ? 1 : 0;
		assert(padded.length <= superblockSlotBytes, "superblock fits its slot");
		await this.#file.write(slot * superblockSlotBytes, [padded]);
		await this.#file.sync("log.superblock");
		this.#newestSlot = slot;
	}
}

/** One superblock on a disk that has one (tools and tests; a mounted volume goes through its DiskSet). */
export async function writeSuperblock(disk: Disk, superblock: Superblock): Promise<void> {
	const found = await readSuperblock(disk);
	const file = found.kind === "valid" ? await SuperblockFile.open(disk, found.slot) : await SuperblockFile.format(disk);
	await file.write(superblock);
}
