/**
 * The manifest: which runs exist, in order of age, and the log sequence that they cover. A file `kv/manifest` with two slots on every manifest disk.
 *
 * A slot: magic 8 bytes, format version u16, feature flags u16, length of the rest u32, CRC32C of all of it u32 (itself as 0); the rest: volume uuid 16 bytes, generation u64,
 * incarnation u64, covered u64, next run id u32, number of runs u16, runs newest first.
 */
import { parseUuid } from "../../base/bytes.ts";
import { newerFormat } from "../../base/errors.ts";
import { ByteReader, ByteWriter } from "../../codec/binary.ts";
import { crc32c } from "../../codec/checksum.ts";

export interface RunInfo {
	readonly id: number;
	/** 0: a flushed memtable; else one more than the highest of the runs that were merged. */
	readonly level: number;
	readonly bytes: number;
	readonly entries: number;
	readonly tombstones: number;
	/** CRC32C of the run's footer, which vouches for everything else in it. */
	readonly footerChecksum: number;
	readonly firstKey: string;
	readonly lastKey: string;
}

export interface Manifest {
	/** Raised by every manifest that is written; never used twice for different contents. */
	readonly generation: number;
	/** Mount that wrote it. */
	readonly incarnation: number;
	/** All log records up to this one are in the runs. */
	readonly covered: number;
	readonly nextRunId: number;
	/** Newest first. */
	readonly runs: readonly RunInfo[];
}

const magic = "CAIRNKVM";
const formatVersion = 1;
const checksumAt = 16;
const headerBytes = 20;

export function encodeManifest(manifest: Manifest, volume: string): Uint8Array {
	const writer = new ByteWriter(4_096);
	for (let i = 0; i < magic.length; i++) writer.u8(magic.charCodeAt(i));
	writer.u16(formatVersion).u16(0).u32(0).u32(0);
	writer.raw(parseUuid(volume)).u64(manifest.generation).u64(manifest.incarnation).u64(manifest.covered);
	writer.u32(manifest.nextRunId).u16(manifest.runs.length);
	for (const run of manifest.runs) {
		writer.u32(run.id).u32(run.level).u64(run.bytes).u64(run.entries).u64(run.tombstones).u32(run.footerChecksum);
		writer.text(run.firstKey).text(run.lastKey);
	}
	writer.patchU32(12, writer.length - headerBytes);
	writer.patchU32(checksumAt, crc32c(writer.view()));
	return writer.finish();
}

/** @throws FsError CORRUPT (not a manifest of this volume), REFUSED (a newer format). */
export function decodeManifest(slot: Uint8Array, volume: string, what: string): Manifest {
	const reader = new ByteReader(slot, what);
	for (let i = 0; i < magic.length; i++) if (reader.u8() !== magic.charCodeAt(i)) throw reader.corrupt("no manifest");
	const version = reader.u16();
	const flags = reader.u16();
	const length = reader.u32();
	const checksum = reader.u32();
	const rest = reader.raw(length);
	const checked = slot.slice(0, headerBytes + length);
	checked.fill(0, checksumAt, headerBytes);
	// The version as well: a damaged slot must not pass for one of a newer format, which no mount goes on without.
	if (crc32c(checked) !== checksum) throw reader.corrupt("checksum does not match");
	if (version > formatVersion || flags !== 0) throw newerFormat("kv.manifest-newer", what, `${version}.${flags}`);
	if (version !== formatVersion) throw reader.corrupt(`format ${version}`);
	return decodeBody(new ByteReader(rest, what), volume);
}

function decodeBody(reader: ByteReader, volume: string): Manifest {
	const uuid = parseUuid(volume);
	const found = reader.raw(16);
	if (!uuid.every((byte, i) => byte === found[i])) throw reader.corrupt("belongs to another volume");
	const generation = reader.u64();
	const incarnation = reader.u64();
	const covered = reader.u64();
	const nextRunId = reader.u32();
	const count = reader.u16();
	const runs: RunInfo[] = [];
	for (let i = 0; i < count; i++) {
		runs.push({
			id: reader.u32(),
			level: reader.u32(),
			bytes: reader.u64(),
			entries: reader.u64(),
			tombstones: reader.u64(),
			footerChecksum: reader.u32(),
			firstKey: reader.text(),
			lastKey: reader.text(),
		});
	}
	reader.end();
	return { generation, incarnation, covered, nextRunId, runs };
}
