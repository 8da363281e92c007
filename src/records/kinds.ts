/** All record kinds (records/interface.ts): one constant each. */
import { assert, failed } from "../base/assert.ts";
import { keyU16, readKeyU64 } from "../base/bytes.ts";
import { type ByteReader, ByteWriter } from "../codec/binary.ts";
import { crc32c } from "../codec/checksum.ts";
import type {
	AccessList,
	CareRecord,
	Chunk,
	Conversion,
	CookieEntry,
	DirectoryEntry,
	DiskHistoryEntry,
	DiskHistoryRecord,
	DiskStateName,
	DurableOpenRecord,
	DurableRangesRecord,
	ExportRecord,
	ExportSquash,
	Extent,
	ExtentBlock,
	FileType,
	FragmentPlace,
	HealingWork,
	HealSpeed,
	FragmentProof,
	Ino,
	Inode,
	Intent,
	IntentKind,
	NamedPermissions,
	NumberRange,
	Orphan,
	Pending,
	PendingPiece,
	RequestOutcome,
	PortMapperChoice,
	PosixAccess,
	PosixList,
	ProofGroup,
	RecordKind,
	ScrubIntensity,
	ScrubPass,
	ScrubSchedule,
	ScrubState,
	Segment,
	SegmentProof,
	HeldRange,
	HeldShare,
	LockClientRecord,
	LockHoldsRecord,
	ServiceRecord,
	VolumeRecord,
	Xattr,
} from "./interface.ts";
import { reservedChunk } from "./interface.ts";
import { defineKind, readIdentity } from "./kind.ts";
import {
	inoCountersPerGroup,
	maximumAccessEntries,
	maximumChunkRanges,
	maximumClientTextBytes,
	maximumDataShards,
	maximumDurableRanges,
	maximumExportClients,
	maximumExtentsPerBlock,
	maximumGroups,
	maximumHeldRanges,
	maximumHeldShares,
	maximumHistoryEntries,
	maximumHistoryReasonBytes,
	maximumHostNameBytes,
	maximumInlineBytes,
	maximumNameBytes,
	maximumParityShards,
	maximumPendingBytes,
	maximumPendingPieces,
	maximumPrincipalBytes,
	maximumProtections,
	maximumShareOwnerBytes,
	maximumSpan,
	maximumTargetBytes,
	maximumTargetTextBytes,
	maximumXattrBytes,
	minimumSpan,
	maximumTranquility,
	segmentsPerProofGroup,
} from "./limits.ts";

const fileTypes: readonly FileType[] = ["file", "directory", "symlink", "fifo", "socket", "character", "block"];
const typeCodes: Readonly<Record<FileType, number>> = { file: 0, directory: 1, symlink: 2, fifo: 3, socket: 4, character: 5, block: 6 };

function readType(reader: ByteReader): FileType {
	const code = reader.u8();
	const type = fileTypes[code];
	if (type === undefined) throw reader.corrupt(`file type ${code}`);
	return type;
}

function readBytes(reader: ByteReader, maximum: number, what: string): Uint8Array {
	const bytes = reader.bytes();
	if (bytes.length > maximum) throw reader.corrupt(`${what} of ${bytes.length} bytes, at most ${maximum}`);
	// A copy: the record's bytes belong to the engine and may be a small part of a large block.
	return bytes.slice();
}

function readText(reader: ByteReader, maximum: number, what: string): string {
	const text = reader.text();
	if (text.length === 0 || text.length > maximum) throw reader.corrupt(`${what} of ${text.length} bytes, 1 to ${maximum} expected`);
	return text;
}

function readOptionalText(reader: ByteReader, maximum: number, what: string): string {
	const text = reader.text();
	if (text.length > maximum) throw reader.corrupt(`${what} of ${text.length} bytes, at most ${maximum} expected`);
	return text;
}

function readCount(reader: ByteReader, maximum: number, bytesEach: number, what: string): number {
	const count = reader.u32();
	if (count > maximum || count * bytesEach > reader.remaining) throw reader.corrupt(`${count} ${what}`);
	return count;
}

// ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────

const inlineFlag = 1;

export const inodeRecord: RecordKind<readonly [ino: Ino], Inode> = defineKind({
	name: "inode",
	tag: "i",
	parts: ["u64"],
	sizeHint: 160,
	knownFlags: inlineFlag,
	flags: (inode) => (inode.inline === undefined ? 0 : inlineFlag),
	epoch: (inode) => inode.birthEpoch,
	write: writeInode,
	read: (reader, head, key) => readInode(reader, head.birthEpoch, (head.flags & inlineFlag) !== 0, key),
});

function writeInode(writer: ByteWriter, inode: Inode): void {
	assert(inode.mode >= 0 && inode.mode <= 0o7777, `inode ${inode.ino}: mode ${inode.mode}`);
	writer.u64(inode.ino).u8(typeCodes[inode.type]).u16(inode.mode).u32(inode.uid).u32(inode.gid).u32(inode.nlink);
	writer.u64(inode.size).u32(inode.rdev).time(inode.atime).time(inode.mtime).time(inode.ctime).time(inode.btime);
	writer.u64(inode.storedBytes).u64(inode.dataGeneration).u64(inode.change).u64(inode.sealedThrough);
	writer.u64(inode.nextCookie).u64(inode.entryCount).u64(inode.parent);
	writer.u32(inode.xattrCount).u32(inode.xattrNameBytes).u32(inode.xattrValueBytes);
	writer.u32(inode.protection).u64(inode.protectionFrom).u32(inode.flags).u32(inode.access);
	if (inode.inline === undefined) return;
	assert(inode.inline.length <= maximumInlineBytes, `inode ${inode.ino}: ${inode.inline.length} bytes inline`);
	writer.bytes(inode.inline);
}

function readInode(reader: ByteReader, birthEpoch: number, hasInline: boolean, key: string): Inode {
	const ino = readIdentity(reader, key, 1);
	const type = readType(reader);
	const mode = reader.u16();
	if (mode > 0o7777) throw reader.corrupt(`mode 0${mode.toString(8)}`);
	// Object members are evaluated in the order they are written: that is the order on disk.
	return {
		ino,
		type,
		mode,
		uid: reader.u32(),
		gid: reader.u32(),
		nlink: reader.u32(),
		size: reader.u64(),
		rdev: reader.u32(),
		atime: reader.time(),
		mtime: reader.time(),
		ctime: reader.time(),
		btime: reader.time(),
		storedBytes: reader.u64(),
		dataGeneration: reader.u64(),
		change: reader.u64(),
		sealedThrough: reader.u64(),
		nextCookie: reader.u64(),
		entryCount: reader.u64(),
		parent: reader.u64(),
		xattrCount: reader.u32(),
		xattrNameBytes: reader.u32(),
		xattrValueBytes: reader.u32(),
		protection: reader.u32(),
		protectionFrom: reader.u64(),
		flags: reader.u32(),
		access: reader.u32(),
		inline: hasInline ? readBytes(reader, maximumInlineBytes, "inline contents") : undefined,
		birthEpoch,
	};
}

export const entryRecord: RecordKind<readonly [parent: Ino, name: string], DirectoryEntry> = defineKind({
	name: "entry",
	tag: "e",
	parts: ["u64", "bytes"],
	sizeHint: 17,
	epoch: (entry) => entry.birthEpoch,
	write: (writer, entry) => void writer.u64(entry.ino).u8(typeCodes[entry.type]).u64(entry.cookie),
	read: (reader, head) => ({ ino: reader.u64(), type: readType(reader), cookie: reader.u64(), birthEpoch: head.birthEpoch }),
});

export const cookieRecord: RecordKind<readonly [parent: Ino, cookie: number], CookieEntry> = defineKind({
	name: "entry by cookie",
	tag: "c",
	parts: ["u64", "u64"],
	sizeHint: 48,
	epoch: (entry) => entry.birthEpoch,
	write(writer, entry) {
		assert(entry.name.length > 0 && entry.name.length <= maximumNameBytes, `a name of ${entry.name.length} bytes`);
		writer.u64(entry.ino).u8(typeCodes[entry.type]).text(entry.name);
	},
	read: (reader, head) => ({
		ino: reader.u64(),
		type: readType(reader),
		name: readText(reader, maximumNameBytes, "name"),
		birthEpoch: head.birthEpoch,
	}),
});

export const xattrRecord: RecordKind<readonly [ino: Ino, name: string], Xattr> = defineKind({
	name: "extended attribute",
	tag: "x",
	parts: ["u64", "bytes"],
	sizeHint: 64,
	epoch: (xattr) => xattr.birthEpoch,
	write(writer, xattr) {
		assert(xattr.value.length <= maximumXattrBytes, `an extended attribute of ${xattr.value.length} bytes`);
		writer.bytes(xattr.value);
	},
	read: (reader, head) => ({ value: readBytes(reader, maximumXattrBytes, "extended attribute"), birthEpoch: head.birthEpoch }),
});

const linkableFlag = 1;

export const orphanRecord: RecordKind<readonly [ino: Ino], Orphan> = defineKind({
	name: "orphan",
	tag: "o",
	parts: ["u64"],
	sizeHint: 20,
	knownFlags: linkableFlag,
	flags: (orphan) => (orphan.linkable ? linkableFlag : 0),
	epoch: (orphan) => orphan.birthEpoch,
	write: (writer, orphan) => void writer.u64(orphan.ino).time(orphan.since),
	read: (reader, head, key) => ({
		ino: readIdentity(reader, key, 1),
		since: reader.time(),
		linkable: (head.flags & linkableFlag) !== 0,
		birthEpoch: head.birthEpoch,
	}),
});

// ── access lists ─────────────────────────────────────────────────────────────────────────────────────────────────

const posixKind = 1;
const accessPart = 1;
const inheritedPart = 2;
const namedBytes = 5;

export const accessListRecord: RecordKind<readonly [ino: Ino], AccessList> = defineKind({
	name: "access list",
	tag: "a",
	parts: ["u64"],
	sizeHint: 80,
	epoch: (list) => list.birthEpoch,
	write(writer, list) {
		const wrong = wrongList(list);
		assert(wrong === undefined, `access list of inode ${list.ino}: ${wrong}`);
		const parts = (list.access === undefined ? 0 : accessPart) | (list.inherited === undefined ? 0 : inheritedPart);
		writer.u64(list.ino).u8(posixKind).u8(parts);
		if (list.access !== undefined) writePosixAccess(writer, list.access);
		if (list.inherited === undefined) return;
		const { owner, other, mask } = list.inherited;
		writer
			.u8(owner)
			.u8(other)
			.u8(mask ?? noMask);
		writePosixAccess(writer, list.inherited);
	},
	read(reader, head, key): AccessList {
		const ino = readIdentity(reader, key, 1);
		const kind = reader.u8();
		if (kind !== posixKind) throw reader.corrupt(`access list of kind ${kind}`);
		const parts = reader.u8();
		if ((parts & ~(accessPart | inheritedPart)) !== 0) throw reader.corrupt(`parts ${parts} of an access list`);
		const access = (parts & accessPart) === 0 ? undefined : readPosixAccess(reader);
		const inherited = (parts & inheritedPart) === 0 ? undefined : readPosixList(reader);
		const list: AccessList = { ino, kind: "posix", access, inherited, birthEpoch: head.birthEpoch };
		const wrong = wrongList(list);
		if (wrong !== undefined) throw reader.corrupt(wrong);
		return list;
	},
});

const noMask = 0xff;

function writePosixAccess(writer: ByteWriter, access: PosixAccess): void {
	writer.u8(access.group);
	for (const named of [access.users, access.groups]) {
		writer.u32(named.length);
		for (const { id, bits } of named) writer.u32(id).u8(bits);
	}
}

function readPosixAccess(reader: ByteReader): PosixAccess {
	return { group: reader.u8(), users: readNamed(reader), groups: readNamed(reader) };
}

function readNamed(reader: ByteReader): NamedPermissions[] {
	const count = readCount(reader, maximumAccessEntries, namedBytes, "entries of an access list");
	const named: NamedPermissions[] = [];
	for (let i = 0; i < count; i++) named.push({ id: reader.u32(), bits: reader.u8() });
	return named;
}

function readPosixList(reader: ByteReader): PosixList {
	const owner = reader.u8();
	const other = reader.u8();
	const mask = reader.u8();
	return { owner, other, mask: mask === noMask ? undefined : mask, ...readPosixAccess(reader) };
}

function wrongList({ access, inherited }: AccessList): string | undefined {
	if (access === undefined && inherited === undefined) return "neither access nor inherited";
	const wrong = (access && wrongAccess(access)) ?? (inherited && wrongAccess(inherited));
	if (wrong !== undefined || inherited === undefined) return wrong;
	for (const bits of [inherited.owner, inherited.other, inherited.mask ?? 0]) if (bits > 7) return `permission bits ${bits}`;
	const named = inherited.users.length + inherited.groups.length;
	return named > 0 && inherited.mask === undefined ? `${named} named entries and no mask` : undefined;
}

function wrongAccess({ group, users, groups }: PosixAccess): string | undefined {
	if (users.length + groups.length + 4 > maximumAccessEntries) return `${users.length + groups.length} named entries`;
	for (const named of [users, groups]) {
		for (const [i, { id, bits }] of named.entries()) {
			if (bits > 7) return `permission bits ${bits}`;
			if (id > 0xffff_fffe || id <= (named[i - 1]?.id ?? -1)) return `number ${id} in its place`;
		}
	}
	return group > 7 ? `permission bits ${group}` : undefined;
}

// ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────

const extentBytes = 20;

export const extentBlockRecord: RecordKind<readonly [ino: Ino, start: number], ExtentBlock> = defineKind({
	name: "extent block",
	tag: "m",
	parts: ["u64", "u64"],
	// A block has 20 KiB, and each write in a fragmented file encodes one.
	sizeHint: ({ extents }) => 16 + extentBytes * extents.length,
	epoch: (block) => block.birthEpoch,
	write(writer, block) {
		const wrong = wrongBlock(block);
		assert(wrong === undefined, `extent block at ${block.start}: ${wrong}`);
		writer.u64(block.start).u32(block.span).u32(block.extents.length);
		for (const extent of block.extents) {
			writer
				.u32(extent.offset - block.start)
				.u32(extent.length)
				.u64(extent.chunk)
				.u32(extent.chunkOffset);
		}
	},
	read(reader, head, key) {
		const start = readIdentity(reader, key, 9);
		const span = reader.u32();
		const count = readCount(reader, maximumExtentsPerBlock, extentBytes, "extents");
		const extents: Extent[] = [];
		for (let i = 0; i < count; i++) {
			extents.push({ offset: start + reader.u32(), length: reader.u32(), chunk: reader.u64(), chunkOffset: reader.u32() });
		}
		const block = { start, span, extents, birthEpoch: head.birthEpoch };
		const wrong = wrongBlock(block);
		if (wrong !== undefined) throw reader.corrupt(wrong);
		return block;
	},
});

/** What breaks invariant E1 (storage/interface.ts), if anything. */
function wrongBlock(block: ExtentBlock): string | undefined {
	const { start, span, extents } = block;
	if (span < minimumSpan || span > maximumSpan || (span & (span - 1)) !== 0) return `span ${span}`;
	if (start % span !== 0 || !Number.isSafeInteger(start + span)) return `start ${start} for span ${span}`;
	if (extents.length > maximumExtentsPerBlock) return `${extents.length} extents`;
	let end = start;
	for (const extent of extents) {
		if (extent.offset < end || extent.length <= 0) return `extent of ${extent.length} bytes at ${extent.offset} behind ${end}`;
		if (extent.chunk === reservedChunk && extent.chunkOffset !== 0) return `a reserved extent with offset ${extent.chunkOffset}`;
		end = extent.offset + extent.length;
	}
	return end > start + span ? `extents reach ${end}, the block ends at ${start + span}` : undefined;
}

const fingerprintFlag = 1;
const fingerprintBytes = 32;

export const chunkRecord: RecordKind<readonly [id: number], Chunk> = defineKind({
	name: "chunk",
	tag: "k",
	parts: ["u64"],
	sizeHint: 96,
	knownFlags: fingerprintFlag,
	flags: (chunk) => (chunk.fingerprint === undefined ? 0 : fingerprintFlag),
	epoch: (chunk) => chunk.birthEpoch,
	write(writer, chunk) {
		writer.u64(chunk.id).u64(chunk.segment).u64(chunk.offset).u32(chunk.length).u64(chunk.owner).u64(chunk.ownerOffset);
		writer.u32(chunk.references).u64(chunk.referencedBytes);
		if (chunk.fingerprint === undefined) return;
		assert(chunk.fingerprint.length === fingerprintBytes, `a fingerprint of ${chunk.fingerprint.length} bytes`);
		writer.raw(chunk.fingerprint);
	},
	read: (reader, head, key) => ({
		id: readIdentity(reader, key, 1),
		segment: reader.u64(),
		offset: reader.u64(),
		length: reader.u32(),
		owner: reader.u64(),
		ownerOffset: reader.u64(),
		references: reader.u32(),
		referencedBytes: reader.u64(),
		fingerprint: (head.flags & fingerprintFlag) !== 0 ? reader.raw(fingerprintBytes).slice() : undefined,
		birthEpoch: head.birthEpoch,
	}),
});

const fragmentBytes = 25;

export const segmentRecord: RecordKind<readonly [id: number], Segment> = defineKind({
	name: "segment",
	tag: "s",
	parts: ["u64"],
	sizeHint: 240,
	epoch: (segment) => segment.birthEpoch,
	write(writer, segment) {
		const wrong = wrongSegment(segment);
		assert(wrong === undefined, `segment ${segment.id}: ${wrong}`);
		writer.u64(segment.id).u8(segment.dataShards).u8(segment.parityShards).text(segment.target);
		writer.u64(segment.payloadBytes).u64(segment.shardBytes).u64(segment.liveBytes).u32(segment.fragments.length);
		for (const place of segment.fragments) writePlace(writer, place);
		writer.u8(segment.chunks.length);
		for (const { first, count } of segment.chunks) writer.u64(first).u32(count);
	},
	read(reader, head, key) {
		const id = readIdentity(reader, key, 1);
		const dataShards = reader.u8();
		const parityShards = reader.u8();
		const target = readText(reader, maximumTargetTextBytes, "redundancy");
		const payloadBytes = reader.u64();
		const shardBytes = reader.u64();
		const liveBytes = reader.u64();
		const count = readCount(reader, maximumDataShards + maximumParityShards, fragmentBytes, "fragments");
		const fragments: FragmentPlace[] = [];
		for (let i = 0; i < count; i++) fragments.push(readPlace(reader));
		const chunks: NumberRange[] = [];
		for (let left = reader.u8(); left > 0; left--) chunks.push({ first: reader.u64(), count: reader.u32() });
		const sizes = { payloadBytes, shardBytes, liveBytes };
		const segment = { id, dataShards, parityShards, target, ...sizes, chunks, fragments, birthEpoch: head.birthEpoch };
		const wrong = wrongSegment(segment);
		if (wrong !== undefined) throw reader.corrupt(wrong);
		return segment;
	},
});

function writePlace(writer: ByteWriter, place: FragmentPlace): void {
	writer.u8(place.index).u32(place.generation).u32(place.disk).u32(place.pack).u64(place.offset).u32(place.headerChecksum);
}

function readPlace(reader: ByteReader): FragmentPlace {
	return {
		index: reader.u8(),
		generation: reader.u32(),
		disk: reader.u32(),
		pack: reader.u32(),
		offset: reader.u64(),
		headerChecksum: reader.u32(),
	};
}

function wrongSegment(segment: Segment): string | undefined {
	const { dataShards, parityShards, target, fragments } = segment;
	if (dataShards < 1 || dataShards > maximumDataShards) return `${dataShards} data shards`;
	if (parityShards < 0 || parityShards > maximumParityShards) return `${parityShards} parity shards`;
	if (target.length === 0 || target.length > maximumTargetTextBytes) return `a redundancy of ${target.length} bytes`;
	const seen = new Set<number>();
	for (const place of fragments) {
		if (place.index >= dataShards + parityShards) return `fragment ${place.index} of ${dataShards}+${parityShards}`;
		if (seen.has(place.index)) return `fragment ${place.index} twice`;
		seen.add(place.index);
	}
	return wrongRanges(segment.chunks);
}

function wrongRanges(ranges: readonly NumberRange[]): string | undefined {
	if (ranges.length > maximumChunkRanges) return `${ranges.length} ranges of chunk numbers`;
	let end = -1;
	for (const { first, count } of ranges) {
		if (count === 0 || first <= end) return `chunk numbers ${first} + ${count} behind ${end}`;
		end = first + count;
	}
	return undefined;
}

/** CRC32C of a place as segment records spell it: which bytes a proof is about. */
export function placeMark(place: FragmentPlace): number {
	const writer = new ByteWriter(fragmentBytes);
	writePlace(writer, place);
	return crc32c(writer.view());
}

const segmentProofBytes = 2;
const fragmentProofBytes = 13;
const maximumFragments = maximumDataShards + maximumParityShards;

export const proofRecord: RecordKind<readonly [group: number], ProofGroup> = defineKind({
	name: "proof",
	tag: "r",
	parts: ["u64"],
	sizeHint: 64 * (segmentProofBytes + 6 * fragmentProofBytes),
	epoch: (proof) => proof.birthEpoch,
	write(writer, proof) {
		const wrong = wrongProof(proof);
		assert(wrong === undefined, `proofs of group ${proof.group}: ${wrong}`);
		writer.u64(proof.group).u32(proof.segments.length);
		for (const { segment, fragments } of proof.segments) {
			writer.u8(segment - proof.group * segmentsPerProofGroup).u8(fragments.length);
			for (const { index, mark, provenAt } of fragments) writer.u8(index).u32(mark).u64(provenAt);
		}
	},
	read(reader, head, key) {
		const group = readIdentity(reader, key, 1);
		const count = readCount(reader, segmentsPerProofGroup, segmentProofBytes, "proven segments");
		const segments: SegmentProof[] = [];
		for (let i = 0; i < count; i++) segments.push(readSegmentProof(reader, group * segmentsPerProofGroup));
		const proof = { group, segments, birthEpoch: head.birthEpoch };
		const wrong = wrongProof(proof);
		if (wrong !== undefined) throw reader.corrupt(wrong);
		return proof;
	},
});

function readSegmentProof(reader: ByteReader, firstSegment: number): SegmentProof {
	const segment = firstSegment + reader.u8();
	const count = reader.u8();
	const fragments: FragmentProof[] = [];
	for (let i = 0; i < count; i++) fragments.push({ index: reader.u8(), mark: reader.u32(), provenAt: reader.u64() });
	return { segment, fragments };
}

function wrongProof({ group, segments }: ProofGroup): string | undefined {
	if (segments.length === 0) return "no segment";
	let before = group * segmentsPerProofGroup - 1;
	for (const { segment, fragments } of segments) {
		if (segment <= before || segment >= (group + 1) * segmentsPerProofGroup) return `segment ${segment} behind ${before}`;
		before = segment;
		if (fragments.length === 0) return `no fragment of segment ${segment}`;
		if (fragments.some(({ index }, at) => index <= (fragments[at - 1]?.index ?? -1) || index >= maximumFragments))
			return `fragments of segment ${segment} out of order`;
	}
	return undefined;
}

// ── care ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The place in a list is the code on disk. */
const scrubSchedules: readonly ScrubSchedule[] = ["off", "manual", "nightly", "continuous"];
const scrubIntensities: readonly ScrubIntensity[] = ["low", "medium", "high"];
const scrubStates: readonly ScrubState[] = ["idle", "running", "paused"];

export const careRecord: RecordKind<readonly [], CareRecord> = defineKind({
	name: "care",
	tag: "b",
	parts: [],
	sizeHint: 200,
	epoch: (care) => care.birthEpoch,
	write(writer, care) {
		const wrong = wrongCare(care);
		assert(wrong === undefined, `care: ${wrong}`);
		writer.u8(scrubSchedules.indexOf(care.schedule)).u8(care.hour).u8(scrubIntensities.indexOf(care.intensity));
		writer
			.u8(scrubStates.indexOf(care.state))
			.u64(care.verifyStartedAt)
			.u8(care.healPaused ? 1 : 0)
			.u32(care.tranquility)
			.u64(care.metadataProvenAt);
		for (const work of [care.healing, care.balancing]) writeWork(writer, work);
		for (const speed of [care.healSpeed, care.balanceSpeed]) writeSpeed(writer, speed);
		for (const pass of [care.pass, care.lastPass]) writePass(writer, pass);
	},
	read(reader, head): CareRecord {
		const schedule = readChoice(reader, scrubSchedules, "schedule");
		const hour = reader.u8();
		const intensity = readChoice(reader, scrubIntensities, "intensity");
		const state = readChoice(reader, scrubStates, "state");
		const verifyStartedAt = reader.u64();
		const healPaused = readFlag(reader);
		const tranquility = reader.u32();
		const metadataProvenAt = reader.u64();
		const healing = readWork(reader);
		const balancing = readWork(reader);
		const healSpeed = readSpeed(reader);
		const balanceSpeed = readSpeed(reader);
		const pass = readPass(reader);
		const lastPass = readPass(reader);
		const { birthEpoch } = head;
		const scrub = { schedule, hour, intensity, state, pass, lastPass };
		const work = { healing, healSpeed, balancing, balanceSpeed };
		const care = { ...scrub, ...work, metadataProvenAt, verifyStartedAt, healPaused, tranquility, birthEpoch };
		const wrong = wrongCare(care);
		if (wrong !== undefined) throw reader.corrupt(wrong);
		return care;
	},
});

function writeWork(writer: ByteWriter, work: HealingWork | undefined): void {
	writer.u8(work === undefined ? 0 : 1);
	if (work !== undefined) writer.u64(work.startedAt).u64(work.doneBytes);
}

function readWork(reader: ByteReader): HealingWork | undefined {
	return readFlag(reader) ? { startedAt: reader.u64(), doneBytes: reader.u64() } : undefined;
}

function writeSpeed(writer: ByteWriter, speed: HealSpeed | undefined): void {
	writer.u8(speed === undefined ? 0 : 1);
	if (speed !== undefined) writer.u64(speed.pieceMicroseconds).u64(speed.mebibyteMicroseconds);
}

function readSpeed(reader: ByteReader): HealSpeed | undefined {
	return readFlag(reader) ? { pieceMicroseconds: reader.u64(), mebibyteMicroseconds: reader.u64() } : undefined;
}

function wrongCare({ hour, tranquility, state, pass, lastPass }: CareRecord): string | undefined {
	if (hour > 23) return `hour ${hour}`;
	if (tranquility > maximumTranquility) return `tranquility ${tranquility}`;
	if (state !== "idle" && (pass === undefined || pass.endedAt !== 0)) return `${state} without a pass under way`;
	return lastPass?.endedAt === 0 ? "a last pass that did not end" : undefined;
}

function readChoice<T>(reader: ByteReader, choices: readonly T[], what: string): T {
	const code = reader.u8();
	const choice = choices[code];
	if (choice === undefined) throw reader.corrupt(`${what} ${code}`);
	return choice;
}

function readFlag(reader: ByteReader): boolean {
	return readChoice(reader, [false, true], "a flag of");
}

function writePass(writer: ByteWriter, pass: ScrubPass | undefined): void {
	writer.u8(pass === undefined ? 0 : 1);
	if (pass === undefined) return;
	for (const flag of [pass.byHand, pass.dryRun, pass.metadataDone]) writer.u8(flag ? 1 : 0);
	writer.u64(pass.startedAt).u64(pass.endedAt).u64(pass.after).u64(pass.segments).u64(pass.fragments).u64(pass.bytes);
	writer.u64(pass.corrupt).u64(pass.missing).u64(pass.repaired).u64(pass.unrecoverable);
}

function readPass(reader: ByteReader): ScrubPass | undefined {
	if (!readFlag(reader)) return undefined;
	return {
		byHand: readFlag(reader),
		dryRun: readFlag(reader),
		metadataDone: readFlag(reader),
		startedAt: reader.u64(),
		endedAt: reader.u64(),
		after: reader.u64(),
		segments: reader.u64(),
		fragments: reader.u64(),
		bytes: reader.u64(),
		corrupt: reader.u64(),
		missing: reader.u64(),
		repaired: reader.u64(),
		unrecoverable: reader.u64(),
	};
}

/** The place in the list is the code on disk. */
const diskStates: readonly DiskStateName[] = ["healthy", "degraded", "suspect", "draining", "failed", "missing"];

export const diskHistoryRecord: RecordKind<readonly [disk: number], DiskHistoryRecord> = defineKind({
	name: "history of disk",
	tag: "d",
	parts: ["u64"],
	sizeHint: 400,
	epoch: (history) => history.birthEpoch,
	write(writer, { disk, entries }) {
		assert(entries.length <= maximumHistoryEntries, `a history of ${entries.length} entries`);
		writer.u64(disk).u32(entries.length);
		for (const { at, state, reason } of entries) {
			assert(reason.length <= maximumHistoryReasonBytes, `a reason of ${reason.length} bytes`);
			writer.u64(at).u8(diskStates.indexOf(state)).text(reason);
		}
	},
	read(reader, head, key) {
		const disk = readIdentity(reader, key, 1);
		const count = readCount(reader, maximumHistoryEntries, 9, "entries of a history");
		const entries: DiskHistoryEntry[] = [];
		for (let i = 0; i < count; i++) {
			const at = reader.u64();
			const state = readChoice(reader, diskStates, "state");
			const reason = reader.text();
			if (reason.length > maximumHistoryReasonBytes) throw reader.corrupt(`a reason of ${reason.length} bytes`);
			entries.push({ at, state, reason });
		}
		return { disk, entries, birthEpoch: head.birthEpoch };
	},
});

// ── exports ──────────────────────────────────────────────────────────────────────────────────────────────────────

/** The place in the list is the code on disk. */
const squashes: readonly ExportSquash[] = ["root", "all", "none"];
const portMappers: readonly PortMapperChoice[] = ["none", "own", "system"];
const exportFlags = { readOnly: 1, privilegedPorts: 2 } as const;
const secretBytes = 16;
const truths: readonly boolean[] = [false, true];

export const exportRecord: RecordKind<readonly [id: number], ExportRecord> = defineKind({
	name: "export",
	tag: "n",
	parts: ["u64"],
	sizeHint: 64,
	epoch: (entry) => entry.birthEpoch,
	write(writer, { id, folder, clients, squash, anonymousUid, anonymousGid, readOnly, privilegedPorts }) {
		assert(folder.length <= maximumTargetBytes, `an exported folder of ${folder.length} bytes`);
		assert(clients.length <= maximumExportClients, `${clients.length} ranges of clients`);
		writer.u64(id).text(folder).u32(clients.length);
		for (const client of clients) {
			assert(client.length > 0 && client.length <= maximumClientTextBytes, `a range of ${client.length} bytes`);
			writer.text(client);
		}
		const flags = (readOnly ? exportFlags.readOnly : 0) | (privilegedPorts ? exportFlags.privilegedPorts : 0);
		writer.u8(squashes.indexOf(squash)).u32(anonymousUid).u32(anonymousGid).u8(flags);
	},
	read(reader, head, key) {
		const id = readIdentity(reader, key, 1);
		const folder = reader.text();
		if (folder.length > maximumTargetBytes) throw reader.corrupt(`an exported folder of ${folder.length} bytes`);
		const count = readCount(reader, maximumExportClients, 5, "ranges of clients");
		const clients = Array.from({ length: count }, () => readText(reader, maximumClientTextBytes, "range"));
		const squash = readChoice(reader, squashes, "squash");
		const anonymousUid = reader.u32();
		const anonymousGid = reader.u32();
		const flags = reader.u8();
		if (flags > 3) throw reader.corrupt(`flags ${flags} of an export`);
		const readOnly = (flags & exportFlags.readOnly) !== 0;
		const privilegedPorts = (flags & exportFlags.privilegedPorts) !== 0;
		return { id, folder, clients, squash, anonymousUid, anonymousGid, readOnly, privilegedPorts, birthEpoch: head.birthEpoch };
	},
});

export const serviceRecord: RecordKind<readonly [], ServiceRecord> = defineKind({
	name: "service",
	tag: "w",
	parts: [],
	sizeHint: 32,
	epoch: (service) => service.birthEpoch,
	write(writer, { secret, nextExport, port, portMapper, serverName, lockState, nextLockClient, locksExact }) {
		assert(secret.length === secretBytes, `a secret of ${secret.length} bytes`);
		assert(serverName.length <= maximumHostNameBytes, `a name of ${serverName.length} bytes`);
		writer.raw(secret).u32(nextExport).u16(port).u8(portMappers.indexOf(portMapper));
		writer
			.text(serverName)
			.u32(lockState)
			.u32(nextLockClient)
			.u8(locksExact ? 1 : 0);
	},
	read(reader, head) {
		const secret = reader.raw(secretBytes).slice();
		const nextExport = reader.u32();
		const port = reader.u16();
		const portMapper = readChoice(reader, portMappers, "port mapper");
		const serverName = readOptionalText(reader, maximumHostNameBytes, "name");
		const lockState = reader.u32();
		const nextLockClient = reader.u32();
		const locksExact = readChoice(reader, truths, "end");
		return { secret, nextExport, port, portMapper, serverName, lockState, nextLockClient, locksExact, birthEpoch: head.birthEpoch };
	},
});

// ── locks of clients elsewhere ───────────────────────────────────────────────────────────────────────────────────

export const lockClientRecord: RecordKind<readonly [id: number], LockClientRecord> = defineKind({
	name: "client with locks",
	tag: "l",
	parts: ["u64"],
	sizeHint: 64,
	epoch: (client) => client.birthEpoch,
	write(writer, { id, name, address, serverAddress, clientState, knownState }) {
		assert(name.length <= maximumHostNameBytes, `a name of ${name.length} bytes`);
		for (const text of [address, serverAddress]) assert(text.length <= maximumClientTextBytes, `an address of ${text.length} bytes`);
		writer.u64(id).text(name).text(address).text(serverAddress).u32(clientState).u32(knownState);
	},
	read(reader, head, key) {
		const id = readIdentity(reader, key, 1);
		const name = readOptionalText(reader, maximumHostNameBytes, "name");
		const address = readText(reader, maximumClientTextBytes, "address");
		const serverAddress = readOptionalText(reader, maximumClientTextBytes, "address");
		const clientState = reader.u32();
		const knownState = reader.u32();
		return { id, name, address, serverAddress, clientState, knownState, birthEpoch: head.birthEpoch };
	},
});

const rangeBytes = 29;

export const lockHoldsRecord: RecordKind<readonly [client: number, ino: Ino], LockHoldsRecord> = defineKind({
	name: "locks of client",
	tag: "j",
	parts: ["u64", "u64"],
	sizeHint: ({ ranges, shares }) => 32 + rangeBytes * ranges.length + 64 * shares.length,
	epoch: (holds) => holds.birthEpoch,
	write(writer, { client, ino, ranges, shares }) {
		assert(ranges.length <= maximumHeldRanges, `${ranges.length} ranges`);
		assert(shares.length <= maximumHeldShares, `${shares.length} shares`);
		writer.u64(client).u64(ino).u32(ranges.length);
		for (const { owner, exclusive, start, end, since } of ranges) {
			writer.u32(owner).u8(exclusive ? 1 : 0);
			for (const word of [...start, ...end]) writer.u32(word);
			writer.u64(since);
		}
		writer.u32(shares.length);
		for (const { owner, access, deny } of shares) {
			assert(owner.length <= maximumShareOwnerBytes, `an owner of ${owner.length} bytes`);
			writer.text(owner).u8(access).u8(deny);
		}
	},
	read(reader, head, key) {
		const client = readIdentity(reader, key, 1);
		const ino = readIdentity(reader, key, 9);
		const count = readCount(reader, maximumHeldRanges, rangeBytes, "ranges");
		const ranges = Array.from({ length: count }, () => readHeldRange(reader));
		const shareCount = readCount(reader, maximumHeldShares, 6, "shares");
		const shares: HeldShare[] = [];
		for (let i = 0; i < shareCount; i++) {
			const owner = readOptionalText(reader, maximumShareOwnerBytes, "owner");
			const [access, deny] = [reader.u8(), reader.u8()];
			if (access > 3 || deny > 3) throw reader.corrupt(`a share of ${access} and ${deny}`);
			shares.push({ owner, access, deny });
		}
		return { client, ino, ranges, shares, birthEpoch: head.birthEpoch };
	},
});

function readHeldRange(reader: ByteReader): HeldRange {
	return { owner: reader.u32(), ...readRange(reader) };
}

function readRange(reader: ByteReader): Omit<HeldRange, "owner"> {
	const exclusive = reader.u8();
	if (exclusive > 1) throw reader.corrupt(`a lock of kind ${exclusive}`);
	const start = [reader.u32(), reader.u32()] as const;
	const end = [reader.u32(), reader.u32()] as const;
	if (start[0] > end[0] || (start[0] === end[0] && start[1] > end[1])) throw reader.corrupt("a range that ends before it begins");
	return { exclusive: exclusive === 1, start, end, since: reader.u64() };
}

// ── durable opens ────────────────────────────────────────────────────────────────────────────────────────────────

const guidBytes = 16;
/** Places in the byte of flags. */
const durableFlags = { persistent: 1, read: 2, write: 4, append: 8, sync: 16, failed: 32, lease: 64 } as const;

function writeGuid(writer: ByteWriter, guid: string): void {
	assert(/^[0-9a-f]{32}$/.test(guid), `a GUID is 32 hexadecimal digits, not ${guid}`);
	for (let at = 0; at < 2 * guidBytes; at += 2) writer.u8(Number.parseInt(guid.slice(at, at + 2), 16));
}

function readGuid(reader: ByteReader): string {
	return [...reader.raw(guidBytes)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export const durableOpenRecord: RecordKind<readonly [id: number], DurableOpenRecord> = defineKind({
	name: "durable open",
	tag: "u",
	parts: ["u64"],
	sizeHint: 160,
	epoch: (open) => open.birthEpoch,
	write(writer, open) {
		const { id, ino, clientGuid, createGuid, timeoutMs, uid, gid, principal, access, deny, lease, since } = open;
		assert(principal.length <= maximumPrincipalBytes, `a principal of ${principal.length} bytes`);
		assert(access < 8 && deny < 8, `a share of ${access} and ${deny}`);
		let flags = lease === undefined ? 0 : durableFlags.lease;
		for (const name of ["persistent", "read", "write", "append", "sync", "failed"] as const) if (open[name]) flags |= durableFlags[name];
		writer.u64(id).u64(ino).u8(flags).u8(access).u8(deny).u32(timeoutMs).u32(uid).u32(gid).u64(since).text(principal);
		writeGuid(writer, clientGuid);
		writeGuid(writer, createGuid);
		if (lease === undefined) return;
		writeGuid(writer, lease.key);
		writer.u8(lease.state).u32(lease.epoch);
	},
	read(reader, head, key) {
		const id = readIdentity(reader, key, 1);
		const ino = reader.u64();
		const [flags, access, deny] = [reader.u8(), reader.u8(), reader.u8()];
		if (flags > 127 || access > 7 || deny > 7) throw reader.corrupt(`a durable open of ${flags}, ${access} and ${deny}`);
		const has = (bit: number): boolean => (flags & bit) !== 0;
		const [timeoutMs, uid, gid, since] = [reader.u32(), reader.u32(), reader.u32(), reader.u64()];
		const principal = readOptionalText(reader, maximumPrincipalBytes, "principal");
		const [clientGuid, createGuid] = [readGuid(reader), readGuid(reader)];
		const lease = has(durableFlags.lease) ? readLease(reader) : undefined;
		const { persistent, read, write, append, sync, failed } = durableFlags;
		const how = { persistent: has(persistent), read: has(read), write: has(write), append: has(append), sync: has(sync) };
		const who = { uid, gid, principal, clientGuid, createGuid };
		return { id, ino, ...who, ...how, timeoutMs, access, deny, lease, failed: has(failed), since, birthEpoch: head.birthEpoch };
	},
});

function readLease(reader: ByteReader): NonNullable<DurableOpenRecord["lease"]> {
	const key = readGuid(reader);
	const [state, epoch] = [reader.u8(), reader.u32()];
	if (state > 7) throw reader.corrupt(`a lease of ${state}`);
	return { key, state, epoch };
}

const durableRangeBytes = 25;

export const durableRangesRecord: RecordKind<readonly [id: number], DurableRangesRecord> = defineKind({
	name: "ranges of durable open",
	tag: "g",
	parts: ["u64"],
	sizeHint: ({ ranges }) => 32 + durableRangeBytes * ranges.length,
	epoch: (ranges) => ranges.birthEpoch,
	write(writer, { id, ranges }) {
		assert(ranges.length > 0 && ranges.length <= maximumDurableRanges, `${ranges.length} ranges`);
		writer.u64(id).u32(ranges.length);
		for (const { exclusive, start, end, since } of ranges) {
			writer.u8(exclusive ? 1 : 0);
			for (const word of [...start, ...end]) writer.u32(word);
			writer.u64(since);
		}
	},
	read(reader, head, key) {
		const id = readIdentity(reader, key, 1);
		const count = readCount(reader, maximumDurableRanges, durableRangeBytes, "ranges");
		if (count === 0) throw reader.corrupt("no ranges");
		return { id, ranges: Array.from({ length: count }, () => readRange(reader)), birthEpoch: head.birthEpoch };
	},
});

// ── work and counters ────────────────────────────────────────────────────────────────────────────────────────────

/** The place in the list is the code on disk. */
const intentKinds: readonly (IntentKind | undefined)[] = [undefined, "truncate", "punch", "reserve", "zero"];

export const intentRecord: RecordKind<readonly [id: number], Intent> = defineKind({
	name: "intent",
	tag: "t",
	parts: ["u64"],
	sizeHint: 33,
	epoch: (intent) => intent.birthEpoch,
	write: (writer, intent) =>
		void writer.u64(intent.id).u8(intentKinds.indexOf(intent.kind)).u64(intent.ino).u64(intent.from).u64(intent.to),
	read(reader, head, key): Intent {
		const id = readIdentity(reader, key, 1);
		const code = reader.u8();
		const kind = intentKinds[code];
		if (kind === undefined) throw reader.corrupt(`intent of kind ${code}`);
		const ino = reader.u64();
		const from = reader.u64();
		const to = reader.u64();
		if (to < from) throw reader.corrupt(`an intent for [${from}, ${to})`);
		return { id, kind, ino, from, to, birthEpoch: head.birthEpoch };
	},
});

export const conversionRecord: RecordKind<readonly [ino: Ino], Conversion> = defineKind({
	name: "conversion",
	tag: "y",
	parts: ["u64"],
	sizeHint: 20,
	epoch: (conversion) => conversion.birthEpoch,
	write: (writer, conversion) => void writer.u64(conversion.ino).time(conversion.since),
	read: (reader, head, key) => ({ ino: readIdentity(reader, key, 1), since: reader.time(), birthEpoch: head.birthEpoch }),
});

export const pendingRecord: RecordKind<readonly [ino: Ino, id: number], Pending> = defineKind({
	name: "pending bytes",
	tag: "p",
	parts: ["u64", "u64"],
	sizeHint: 4096 + 28,
	epoch: (pending) => pending.birthEpoch,
	write(writer, pending) {
		writer.u64(pending.ino).u64(pending.id).u32(pending.pieces.length);
		let [bytes, end] = [0, 0];
		for (const piece of pending.pieces) {
			if (piece.offset < end || piece.bytes.length === 0) failed(`a pending piece at ${piece.offset}, the one before ends at ${end}`);
			writer.u64(piece.offset).bytes(piece.bytes);
			end = piece.offset + piece.bytes.length;
			bytes += piece.bytes.length;
		}
		assert(bytes <= maximumPendingBytes && pending.pieces.length <= maximumPendingPieces, "a pending record is bounded");
	},
	read: (reader, head, key) => ({
		ino: readIdentity(reader, key, 1),
		id: readIdentity(reader, key, 9),
		pieces: readPendingPieces(reader),
		birthEpoch: head.birthEpoch,
	}),
});

function readPendingPieces(reader: ByteReader): PendingPiece[] {
	const count = reader.u32();
	if (count > maximumPendingPieces) throw reader.corrupt(`${count} pending pieces`);
	const pieces: PendingPiece[] = [];
	let [left, end] = [maximumPendingBytes, 0];
	for (let i = 0; i < count; i++) {
		const offset = reader.u64();
		const bytes = readBytes(reader, left, "pending contents");
		if (offset < end || bytes.length === 0) throw reader.corrupt(`a pending piece at ${offset}, the one before ends at ${end}`);
		end = offset + bytes.length;
		left -= bytes.length;
		pieces.push({ offset, bytes });
	}
	return pieces;
}

export const requestRecord: RecordKind<readonly [slot: number], RequestOutcome> = defineKind({
	name: "request outcome",
	tag: "q",
	parts: ["u64"],
	sizeHint: 32,
	epoch: (outcome) => outcome.birthEpoch,
	write: (writer, outcome) =>
		void writer.u64(outcome.slot).u64(outcome.session).u32(outcome.requestLow).u32(outcome.requestHigh).u64(outcome.ino),
	read: (reader, head, key) => ({
		slot: readIdentity(reader, key, 1),
		session: reader.u64(),
		requestLow: reader.u32(),
		requestHigh: reader.u32(),
		ino: reader.u64(),
		birthEpoch: head.birthEpoch,
	}),
});

export const volumeRecord: RecordKind<readonly [], VolumeRecord> = defineKind({
	name: "volume",
	tag: "v",
	parts: [],
	sizeHint: 64,
	epoch: (volume) => volume.birthEpoch,
	write(writer, volume) {
		assert(volume.nextInoCounter.length <= maximumGroups, `${volume.nextInoCounter.length} groups`);
		assert(volume.protections.length <= maximumProtections, `${volume.protections.length} protections`);
		writer.u32(volume.nextInoCounter.length);
		for (const { group, next } of volume.nextInoCounter) writer.u16(group).u64(next);
		writer.u64(volume.nextChunk).u64(volume.nextSegment).u64(volume.nextPending).u64(volume.epoch);
		writer.u32(volume.protections.length);
		for (const { id, redundancy } of volume.protections) writer.u32(id).text(redundancy);
		writer.u64(volume.reservedBytes);
	},
	read(reader, head) {
		const nextInoCounter = readGroups(reader);
		const nextChunk = reader.u64();
		const nextSegment = reader.u64();
		const nextPending = reader.u64();
		const epoch = reader.u64();
		const protections = readProtections(reader);
		const reservedBytes = reader.u64();
		return { nextInoCounter, nextChunk, nextSegment, nextPending, epoch, protections, reservedBytes, birthEpoch: head.birthEpoch };
	},
});

function readGroups(reader: ByteReader): { group: number; next: number }[] {
	const count = readCount(reader, maximumGroups, 10, "inode groups");
	const groups: { group: number; next: number }[] = [];
	for (let i = 0; i < count; i++) {
		const group = reader.u16();
		const next = reader.u64();
		if (group >= maximumGroups || next > inoCountersPerGroup) throw reader.corrupt(`inode group ${group} at ${next}`);
		groups.push({ group, next });
	}
	return groups;
}

function readProtections(reader: ByteReader): { id: number; redundancy: string }[] {
	const count = readCount(reader, maximumProtections, 8, "protections");
	const protections: { id: number; redundancy: string }[] = [];
	for (let i = 0; i < count; i++)
		protections.push({ id: reader.u32(), redundancy: readText(reader, maximumTargetTextBytes, "redundancy") });
	return protections;
}

/** Every kind, for checkers and fuzzers. */
export const allKinds: readonly RecordKind<readonly never[], unknown>[] = [
	inodeRecord,
	entryRecord,
	cookieRecord,
	xattrRecord,
	orphanRecord,
	extentBlockRecord,
	chunkRecord,
	segmentRecord,
	intentRecord,
	conversionRecord,
	pendingRecord,
	proofRecord,
	careRecord,
	diskHistoryRecord,
	exportRecord,
	serviceRecord,
	lockClientRecord,
	lockHoldsRecord,
	durableOpenRecord,
	durableRangesRecord,
	requestRecord,
	volumeRecord,
] as unknown as readonly RecordKind<readonly never[], unknown>[];

/** Key of a shard's head; its value is kv's (kv/head.ts). */
export function headKey(shard: number): string {
	return `h${keyU16(shard)}`;
}

// ── keys back to numbers ─────────────────────────────────────────────────────────────────────────────────────────

/** The first number of a key: inode, parent, chunk, segment. */
export function keyNumber(key: string): number {
	return readKeyU64(key, 1);
}

/** The second number of a key: cookie, start, pending id. */
export function keySecondNumber(key: string): number {
	return readKeyU64(key, 9);
}

/** The name at the end of the key of an entry or extended attribute. */
export function keyName(key: string): string {
	return key.slice(9);
}
