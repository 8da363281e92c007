/**
 * Locks of files: fcntl(2) of processes and of open file descriptions, flock(2). The kernel names an owner by 64 bits: those of a process's descriptor table for fcntl, those of the open file for the other two. It does not say
 * which of the first two a request is about; both are ranges of an owner, and differ in when they go:
 *  - FLUSH, sent at each close(2), names the process: what *it* has of the file goes, through whichever descriptor it was locked.
 *  - RELEASE comes when the last descriptor of an open file is gone: everything that was locked through it goes.
 * So no close may do without FLUSH while locks are served here (FOPEN_NOFLUSH).
 */
import { FsError, isFsError } from "../../base/errors.ts";
import { type LocalLock, offsetWordsOf, rangeOfWords } from "../../volume/interface.ts";
import type { Door } from "./door.ts";
import type { LockIn, RequestHeader, RequestReader, Words } from "./protocol.ts";
import { decodeLock, encodeLockOut, lockTypes } from "./protocol.ts";
import { isResent, requestHighOf } from "./session.ts";

interface RequestName {
	readonly low: number;
	readonly high: number;
}

export function requestNameOf({ uniqueLow, uniqueHigh }: Pick<RequestHeader, "uniqueLow" | "uniqueHigh">): RequestName {
	return { low: uniqueLow, high: requestHighOf(uniqueHigh) };
}

export function ownerOf([high, low]: Words): string {
	return high.toString(16).padStart(8, "0") + low.toString(16).padStart(8, "0");
}

function lockOf(ino: number, { handle, owner, start, end, type, pid, flock }: LockIn): LocalLock {
	return {
		ino,
		handle,
		family: flock ? "flock" : "fcntl",
		owner: { id: ownerOf(owner), pid },
		exclusive: type === lockTypes.WRITE,
		range: rangeOfWords(start, end),
	};
}

export function testLock(door: Door, header: RequestHeader, r: RequestReader): void {
	const lock = decodeLock(r);
	const found = door.volume.locks.conflict(lockOf(header.nodeid, lock));
	door.out.reset();
	if (found === undefined) encodeLockOut(door.out, lock.start, lock.end, lockTypes.UNLOCK, 0);
	else {
		const { start, end } = offsetWordsOf(found.range);
		encodeLockOut(door.out, start, end, found.exclusive ? lockTypes.WRITE : lockTypes.READ, found.owner.pid);
	}
	door.reply(header, door.out.finish(header, 0), undefined);
}

/** Returns when it is locked or unlocked. @throws FsError EAGAIN, EDEADLK, EINTR, ENOLCK. */
export async function setLock(door: Door, header: RequestHeader, r: RequestReader, wait: boolean): Promise<void> {
	const given = decodeLock(r);
	const { locks } = door.volume;
	const request = requestNameOf(header);
	// Carried out by a process that did not come to answer.
	if (isResent(header) && locks.isDone(request)) return;
	const lock = lockOf(header.nodeid, given);
	if (given.type === lockTypes.UNLOCK) {
		locks.unlock(lock, request);
		return;
	}
	try {
		await lockFile(door, header, lock, wait);
	} catch (error) {
		// fcntl(2) and flock(2): the call was interrupted; the kernel begins it anew where the signal's handler wants that.
		if (!isFsError(error, "ECANCELED")) throw error;
		throw interrupted(error);
	}
}

function interrupted(cause?: unknown): FsError {
	return new FsError("EINTR", "fuse.lock-interrupted", "a signal came while it waited for a lock", {}, cause);
}

/** Linux finds no deadlocks among open file descriptions, as another thread may let go of them: such a wait goes on. */
async function lockFile(door: Door, header: RequestHeader, lock: LocalLock, wait: boolean): Promise<void> {
	const { locks } = door.volume;
	const request = requestNameOf(header);
	try {
		await locks.lock(lock, { wait, victim: lock.family === "fcntl", request });
	} catch (error) {
		if (!isFsError(error, "EDEADLK") || !(await door.waitsForOpenFile(header.pid))) throw error;
		if (header.interrupted === true) throw interrupted();
		await locks.lock(lock, { wait, victim: false, request });
	}
}
