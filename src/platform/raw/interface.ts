/** A device without a file system on it, or a file that serves as one: so many bytes. `RawDisk` makes a Disk of it. */
import type { Borrowed, DiskActivity } from "../interface.ts";

/** Calls are executed in the order in which they are made. Errors are those of `Disk`. */
export interface RawDevice {
	readonly path: string;
	/** See Disk. */
	readonly domain: string;
	readonly sizeBytes: number;
	/** All of it: the range lies inside the device. */
	read(offset: number, lengthBytes: number): Promise<Uint8Array>;
	borrow(offset: number, lengthBytes: number, sumBlockBytes?: number): Promise<Borrowed>;
	write(offset: number, parts: readonly Uint8Array[]): Promise<void>;
	/** Everything written so far is durable, and the device still the one that was opened. A failed sync is final. */
	sync(site: string): Promise<void>;
	/** The device may forget a range; where it can it reads as zeros then. Offset and length are multiples of 4 KiB. */
	discard(offset: number, lengthBytes: number): Promise<void>;
	/** See DiskFile. */
	uncache(offset: number, lengthBytes: number): Promise<void>;
	/** @throws FsError EBUSY: another daemon, a mount, anybody who claims it for himself. */
	lock(): Promise<void>;
	probe(): Promise<void>;
	/** See Disk. */
	activity?(): DiskActivity;
	close(): Promise<void>;
}
