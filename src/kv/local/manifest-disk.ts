/**
 * The manifest's two slots on one disk. The slot that holds the newest manifest that is durable everywhere is never written: the other one takes the next.
 */
import { alignUp, isZeros } from "../../base/bytes.ts";
import { FsError, isFsError } from "../../base/errors.ts";
import type { Disk, DiskFile } from "../../platform/interface.ts";
import { decodeManifest, type Manifest } from "./manifest.ts";

export const manifestFileName = "kv/manifest";

export interface SlotsFound {
	/** By slot number; undefined = empty or damaged. */
	readonly slots: readonly (Manifest | undefined)[];
	/** Slots that hold something that is no manifest of this volume. */
	readonly damaged: number;
}

/** Reads both slots. @throws FsError of the disk; REFUSED (a newer format). An absent file has two empty slots. */
export async function readManifestSlots(disk: Disk, volume: string, slotBytes: number): Promise<SlotsFound> {
	let file: DiskFile;
	try {
		file = await disk.open(manifestFileName);
	} catch (error) {
		if (isFsError(error, "ENOENT")) return { slots: [undefined, undefined], damaged: 0 };
		throw error;
	}
	try {
		return await readSlots(file, volume, slotBytes, `${manifestFileName} on ${disk.path}`);
	} finally {
		await file.close().catch(() => {});
	}
}

async function readSlots(file: DiskFile, volume: string, slotBytes: number, what: string): Promise<SlotsFound> {
	const slots: (Manifest | undefined)[] = [];
	let damaged = 0;
	for (let slot = 0; slot < 2; slot++) {
		await file.uncache(slot * slotBytes, slotBytes);
		const { bytes, release } = await file.borrow(slot * slotBytes, slotBytes);
		try {
			const found = decodeSlot(bytes, volume, `${what}, slot ${slot}`);
			slots.push(found);
			if (!found && !isZeros(bytes)) damaged++;
		} finally {
			release();
		}
	}
	return { slots, damaged };
}

function decodeSlot(bytes: Uint8Array, volume: string, what: string): Manifest | undefined {
	try {
		return decodeManifest(bytes, volume, what);
	} catch (error) {
		if (isFsError(error, "CORRUPT")) return undefined;
		throw error;
	}
}

/** The manifest file of one manifest disk, open for writing. */
export class ManifestFile {
	readonly disk: Disk;
	readonly #file: DiskFile;
	readonly #slotBytes: number;
	/** Slot that must stay as it is. */
	#kept: number;

	private constructor(disk: Disk, file: DiskFile, slotBytes: number, kept: number) {
		this.disk = disk;
		this.#file = file;
		this.#slotBytes = slotBytes;
		this.#kept = kept;
	}

	/**
	 * Opens or makes the file, with room for both slots so that later writes need no space. `kept`: the slot with the newest manifest (any when there is none).
	 */
	static async open(disk: Disk, slotBytes: number, kept: number): Promise<ManifestFile> {
		const file = await disk.open(manifestFileName, { create: true });
		const size = await file.size();
		if (size < 2 * slotBytes) await file.write(size, [new Uint8Array(2 * slotBytes - size)]);
		await disk.syncNames("kv", "kv.manifest-name");
		return new ManifestFile(disk, file, slotBytes, kept);
	}

	/** Writes and syncs the other slot; `advance` makes it the kept one. */
	async write(bytes: Uint8Array): Promise<void> {
		if (bytes.length > this.#slotBytes) {
			throw new FsError(
				"E2BIG",
				"kv.manifest-size",
				`a manifest of ${bytes.length} bytes does not fit into ${this.#slotBytes}: too many runs`,
			);
		}
		const padded = new Uint8Array(alignUp(bytes.length, 512));
		padded.set(bytes);
		await this.#file.write((1 - this.#kept) * this.#slotBytes, [padded]);
		await this.#file.sync("kv.manifest");
	}

	/** The manifest just written is durable on all manifest disks. */
	advance(): void {
		this.#kept = 1 - this.#kept;
	}

	read(volume: string): Promise<SlotsFound> {
		return readSlots(this.#file, volume, this.#slotBytes, `${manifestFileName} on ${this.disk.path}`);
	}

	async close(): Promise<void> {
		await this.#file.close().catch(() => {});
	}
}
