/**
 * A mount of what a newer Cairn has left is refused before anything is written. The rule for those who change formats: whoever first writes a newer format of anything raises the version of the superblock on the disks in the same
 * version of the program, so that older ones refuse by that alone. This look catches what forgets it, and memory files, which have no superblock.
 */
import { FsError, isNewerFormat } from "../../base/errors.ts";
import { refuseNewerMetadata } from "../../kv/local/newer.ts";
import type { DiskSet } from "../../log/interface.ts";
import { refuseNewerLog } from "../../log/newer.ts";
import { refuseNewerTail } from "../../log/memory-tail.ts";
import { fileLockLimits } from "../../locks/limits.ts";
import { lockMemoryBytes, refuseNewerLocks } from "../../locks/memory.ts";
import type { Disk, Platform } from "../../platform/interface.ts";
import { refuseNewerFragments } from "../../storage/newer.ts";
import { refuseNewerRing } from "../../storage/ring.ts";
import { handleMemoryBytes, refuseNewerHandles } from "./handle-memory.ts";
import { limits } from "./limits.ts";
import { memoryNames } from "./memory-names.ts";
import { requestMemoryBytes } from "./request-memory.ts";

const memoryHeadBytes = 4096;

export interface MemorySizes {
	readonly logTailBytes: number;
	readonly dirtyRingBytes: number;
	readonly handleBytes: number;
	readonly lockBytes: number;
}

interface GivenSizes {
	readonly logTailBytes: number;
	readonly dirtyRingBytes: number;
	readonly handles?: number;
	readonly lockRecords?: number;
}

/** @throws FsError REFUSED. Everything else that may be wrong is found, and said, by those whose files they are. */
export async function refuseNewer(
	disks: DiskSet,
	platform: Platform,
	sizes: MemorySizes,
	{ acceptLoss, resumes }: { readonly acceptLoss: boolean; readonly resumes: boolean },
): Promise<void> {
	const { volume, clean } = disks.roster;
	const names = memoryNames(volume);
	if (resumes) {
		await refuseNewerMemory(platform, names.handles, sizes.handleBytes, refuseNewerHandles, whoGoesOn);
		await refuseNewerMemory(platform, names.locks, sizes.lockBytes, refuseNewerLocks, whoGoesOn);
	}
	if (!clean && !acceptLoss) {
		await refuseNewerMemory(platform, names.log, sizes.logTailBytes, refuseNewerTail, whatIsLost);
		await refuseNewerMemory(platform, names.dirty, sizes.dirtyRingBytes, refuseNewerRing, whatIsLost);
	}
	const open = disks.slots().flatMap(({ disk }) => (disk ? [disk] : []));
	const found = await Promise.allSettled(open.map((disk) => lookAt(disk, volume)));
	for (const one of found) if (one.status === "rejected" && isNewerFormat(one.reason)) throw one.reason;
}

async function lookAt(disk: Disk, volume: string): Promise<void> {
	await refuseNewerLog(disk);
	await refuseNewerMetadata(disk, volume);
	await refuseNewerFragments(disk);
}

const whatIsLost =
	"mount with that version, and unmount: what the last daemon had acknowledged is in it; --accept-loss goes on without that";
const whoGoesOn = "what programs have open and locked is in it, and only that version can go on with their mount";

/** Memory of another size could only be replaced by an empty one: what was acknowledged would be lost without a word. */
async function refuseNewerMemory(
	platform: Platform,
	name: string,
	sizeBytes: number,
	refuse: (head: Uint8Array, what: string) => void,
	advice: string,
): Promise<void> {
	const head = await platform.memoryHead(name, memoryHeadBytes);
	if (head === undefined) return;
	try {
		refuse(head.bytes, `the memory file ${name}`);
	} catch (error) {
		if (isNewerFormat(error)) throw Object.assign(error, { message: `${error.message}: ${advice}` });
		throw error;
	}
	if (head.sizeBytes === sizeBytes) return;
	const message = `the memory file ${name} has ${head.sizeBytes} bytes instead of ${sizeBytes}: another version of Cairn has left it; ${advice}`;
	throw new FsError("REFUSED", "volume.memory-size", message, { sizeBytes: head.sizeBytes });
}

/** Of a mount's memory files. */
export function memorySizes(given: GivenSizes | undefined): MemorySizes {
	const { logTailBytes, dirtyRingBytes, handles } = { ...limits, ...given };
	const lockRecords = given?.lockRecords ?? fileLockLimits.records;
	return {
		logTailBytes,
		dirtyRingBytes,
		handleBytes: handleMemoryBytes(handles) + requestMemoryBytes,
		lockBytes: lockMemoryBytes(lockRecords),
	};
}
