/**
 * File handles. They say all that is needed to find the node again after any restart, and carry a keyed hash, so that nobody reaches a node that no reply has named to somebody: a client of `/photos/public` must not be able to make up
 * handles of the rest of the volume.
 *
 * An export is named by the inode of its directory: who removes an export and adds it again has not made another one, and clients that have it mounted go on; another directory under the same name is another export.
 *
 * 48 bytes, big-endian: version u32, directory of the export u64, volume (16 bytes), inode u64, generation u32, SipHash of what is before (8 bytes).
 */
import { equalBytes } from "../../base/bytes.ts";
import { FsError } from "../../base/errors.ts";
import { sipHash } from "../../codec/siphash.ts";
import { XdrReader, XdrWriter } from "../../codec/xdr.ts";
import type { Attributes, Ino } from "../../volume/interface.ts";

const version = 2;
const signedBytes = 40;
export const fileHandleBytes = 48;

export interface FileHandle {
	/** Of the export through which it was named. */
	readonly rootIno: Ino;
	readonly ino: Ino;
	readonly generation: number;
}

export interface HandleKeys {
	/** 16 bytes, kept with the volume. */
	readonly secret: Uint8Array;
	/** 16 bytes. */
	readonly volume: Uint8Array;
}

/** Inode numbers are never used again; this would tell apart two files if they were. */
export function generationOf({ btime }: Attributes): number {
	return (btime.seconds ^ btime.nanoseconds) >>> 0;
}

export function encodeFileHandle({ secret, volume }: HandleKeys, { rootIno, ino, generation }: FileHandle): Uint8Array {
	const writer = new XdrWriter(fileHandleBytes).u32(version).u64(rootIno).fixed(volume).u64(ino).u32(generation);
	return writer.fixed(sipHash(secret, writer.finish())).finish();
}

/** @throws FsError EBADF (not made here: BADHANDLE), ESTALE (of another volume). */
export function decodeFileHandle({ secret, volume }: HandleKeys, bytes: Uint8Array): FileHandle {
	const bad = (): FsError => new FsError("EBADF", "nfs.handle", "this is no file handle of this server");
	if (bytes.length !== fileHandleBytes) throw bad();
	const reader = new XdrReader(bytes, "file handle");
	if (reader.u32() !== version) throw bad();
	const rootIno = reader.u64();
	// Another volume has another secret, too: told apart first, a client learns that its file system is gone.
	if (!equalBytes(reader.fixed(16), volume)) throw new FsError("ESTALE", "nfs.handle-volume", "the file handle is of another volume");
	const ino = reader.u64();
	const generation = reader.u32();
	if (!equalBytes(reader.fixed(8), sipHash(secret, bytes.subarray(0, signedBytes)))) throw bad();
	return { rootIno, ino, generation };
}
