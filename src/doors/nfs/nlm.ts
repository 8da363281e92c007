/** NLM, the network lock manager, on the wire (X/Open XNFS, chapter 10 and appendix G): version 4 with offsets of 64 bits, versions 1 and 3 with 32. Decoders read whatever comes; what they give was checked for its form alone. */
import type { XdrReader, XdrWriter } from "../../codec/xdr.ts";
import { type HeldLock, type Position, positionOf, type Range, toEnd, wordsOf } from "../../volume/interface.ts";
import { maxLockNameBytes, maxLockObjectBytes } from "./limits.ts";

export const nlmProgram = 100021;
export const nlmVersions = [1, 3, 4] as const;
export type NlmVersion = (typeof nlmVersions)[number];

export const nlmProcedures = {
	test: 1,
	lock: 2,
	cancel: 3,
	unlock: 4,
	granted: 5,
	testMessage: 6,
	lockMessage: 7,
	cancelMessage: 8,
	unlockMessage: 9,
	grantedMessage: 10,
	testResult: 11,
	lockResult: 12,
	cancelResult: 13,
	unlockResult: 14,
	grantedResult: 15,
	share: 20,
	unshare: 21,
	lockUnmonitored: 22,
	freeAll: 23,
} as const;

/** nlm4_stats. Versions 1 and 3 end at `grace`. */
export const nlmStatus = {
	granted: 0,
	denied: 1,
	noLocks: 2,
	blocked: 3,
	grace: 4,
	deadlock: 5,
	readOnly: 6,
	stale: 7,
	tooBig: 8,
	failed: 9,
} as const;
export type NlmStatus = (typeof nlmStatus)[keyof typeof nlmStatus];

export interface NlmLock {
	/** As the client calls itself. */
	readonly caller: string;
	readonly handle: Uint8Array;
	/** Of the client, opaque; who locks is told by `owner`. */
	readonly object: Uint8Array;
	/** svid: the process, as the client numbers it. */
	readonly owner: number;
	readonly offset: Position;
	/** 0: to the end. */
	readonly length: Position;
}

export interface TestArguments {
	readonly cookie: Uint8Array;
	readonly exclusive: boolean;
	readonly lock: NlmLock;
}

export interface LockArguments extends TestArguments {
	readonly block: boolean;
	readonly reclaim: boolean;
	/** The client's NSM state number. */
	readonly state: number;
}

export interface CancelArguments extends TestArguments {
	readonly block: boolean;
}

export interface UnlockArguments {
	readonly cookie: Uint8Array;
	readonly lock: NlmLock;
}

export interface ShareArguments {
	readonly cookie: Uint8Array;
	readonly caller: string;
	readonly handle: Uint8Array;
	readonly object: Uint8Array;
	/** Bits: 1 reading, 2 writing. */
	readonly deny: number;
	readonly access: number;
	readonly reclaim: boolean;
}

/** fsh4_mode and fsh4_access: none, reading, writing, both. */
const shareModes = 4;

const readName = (reader: XdrReader): string => reader.text(maxLockNameBytes);
/** What is kept of them outlives the message. */
const readObject = (reader: XdrReader): Uint8Array => reader.opaque(maxLockObjectBytes).slice();

function readPosition(reader: XdrReader, version: NlmVersion): Position {
	return version === 4 ? positionOf(reader.u32(), reader.u32()) : reader.u32();
}

function readLock(reader: XdrReader, version: NlmVersion): NlmLock {
	const caller = readName(reader);
	const handle = readObject(reader);
	const object = readObject(reader);
	const owner = reader.u32();
	const offset = readPosition(reader, version);
	return { caller, handle, object, owner, offset, length: readPosition(reader, version) };
}

export function readTest(reader: XdrReader, version: NlmVersion): TestArguments {
	const result = { cookie: readObject(reader), exclusive: reader.bool(), lock: readLock(reader, version) };
	reader.end();
	return result;
}

export function readLockArguments(reader: XdrReader, version: NlmVersion): LockArguments {
	const cookie = readObject(reader);
	const block = reader.bool();
	const exclusive = reader.bool();
	const lock = readLock(reader, version);
	const result = { cookie, block, exclusive, lock, reclaim: reader.bool(), state: reader.u32() };
	reader.end();
	return result;
}

export function readCancel(reader: XdrReader, version: NlmVersion): CancelArguments {
	const cookie = readObject(reader);
	const block = reader.bool();
	const result = { cookie, block, exclusive: reader.bool(), lock: readLock(reader, version) };
	reader.end();
	return result;
}

export function readUnlock(reader: XdrReader, version: NlmVersion): UnlockArguments {
	const result = { cookie: readObject(reader), lock: readLock(reader, version) };
	reader.end();
	return result;
}

export function readShare(reader: XdrReader): ShareArguments {
	const cookie = readObject(reader);
	const caller = readName(reader);
	const handle = readObject(reader);
	const object = readObject(reader);
	const deny = reader.choice(shareModes, "deny mode");
	const result = { cookie, caller, handle, object, deny, access: reader.choice(shareModes, "access"), reclaim: reader.bool() };
	reader.end();
	return result;
}

/** nlm_notify and NSM's stat_chge: who, and its state number. */
export function readNotice(reader: XdrReader): { readonly name: string; readonly state: number } {
	const result = { name: readName(reader), state: reader.u32() };
	reader.end();
	return result;
}

/** What the older versions know of it. */
export function statusIn(version: NlmVersion, status: NlmStatus): number {
	if (version === 4 || status <= nlmStatus.grace) return status;
	return status === nlmStatus.deadlock ? nlmStatus.denied : nlmStatus.noLocks;
}

export function writeResult(writer: XdrWriter, version: NlmVersion, cookie: Uint8Array, status: NlmStatus): void {
	writer.opaque(cookie).u32(statusIn(version, status));
}

function writePosition(writer: XdrWriter, version: NlmVersion, value: Position): void {
	if (version === 4) {
		const [high, low] = wordsOf(value);
		writer.u32(high).u32(low);
	} else writer.u32(value > 0xffff_ffff ? 0xffff_ffff : Number(value));
}

/** Length as NLM tells it: 0 = to the end. */
export function lengthOf({ start, end }: Range): Position {
	if (end === toEnd) return 0;
	const length = BigInt(end) - BigInt(start) + 1n;
	return length <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(length) : length;
}

export function writeTestResult(
	writer: XdrWriter,
	version: NlmVersion,
	{ cookie, status, holder }: { readonly cookie: Uint8Array; readonly status: NlmStatus; readonly holder: HeldLock | undefined },
): void {
	writeResult(writer, version, cookie, status);
	if (holder === undefined) return;
	// Its object is of another client, or of none: nobody can do anything with it.
	writer
		.bool(holder.exclusive)
		.u32(holder.owner.pid >>> 0)
		.u32(0);
	writePosition(writer, version, holder.range.start);
	writePosition(writer, version, lengthOf(holder.range));
}

/** The arguments of GRANTED: the lock as the client asked for it. */
export function writeGranted(writer: XdrWriter, version: NlmVersion, { cookie, exclusive, lock }: TestArguments): void {
	writer.opaque(cookie).bool(exclusive).text(lock.caller).opaque(lock.handle).opaque(lock.object).u32(lock.owner);
	writePosition(writer, version, lock.offset);
	writePosition(writer, version, lock.length);
}

/** nlm_res. */
export function readResult(reader: XdrReader): number {
	readObject(reader);
	const status = reader.u32();
	reader.end();
	return status;
}
