/** A simulated raw device: one file of a simulated disk, as long as the disk. */
import { FsError } from "../../base/errors.ts";
import { sumsOf } from "../../codec/checksum.ts";
import type { Borrowed, Disk, DiskActivity, DiskFile } from "../interface.ts";
import type { RawDevice } from "../raw/interface.ts";
import type { SimDevice } from "./device.ts";
import type { SimDisk } from "./disk.ts";
import { pageBytes } from "./limits.ts";

/** For tests that damage it: `world.corrupt(path, rawFileName, …)`. */
export const rawFileName = "device";

const top = "";

export class SimRawDevice implements RawDevice {
	readonly path: string;
	readonly domain: string;
	readonly sizeBytes: number;
	readonly #disk: SimDisk;
	readonly #file: DiskFile;

	private constructor(disk: SimDisk, file: DiskFile) {
		this.path = disk.path;
		this.domain = disk.domain;
		this.sizeBytes = Math.floor(disk.device.capacityBytes / pageBytes) * pageBytes;
		this.#disk = disk;
		this.#file = file;
	}

	static async open(disk: SimDisk): Promise<SimRawDevice> {
		// Devices have no names that power could take away.
		if (disk.device.find(rawFileName) === undefined) {
			disk.device.create(rawFileName);
			disk.device.syncNames(top);
		}
		return new SimRawDevice(disk, await disk.open(rawFileName));
	}

	async read(offset: number, lengthBytes: number): Promise<Uint8Array> {
		this.#check(offset, lengthBytes);
		const found = await this.#file.read(offset, lengthBytes);
		if (found.length === lengthBytes) return found;
		const bytes = new Uint8Array(lengthBytes);
		bytes.set(found);
		return bytes;
	}

	async borrow(offset: number, lengthBytes: number, sumBlockBytes?: number): Promise<Borrowed> {
		const bytes = await this.read(offset, lengthBytes);
		return { bytes, sums: sumBlockBytes === undefined ? undefined : sumsOf(bytes, sumBlockBytes), release: () => void bytes.fill(0xa5) };
	}

	write(offset: number, parts: readonly Uint8Array[]): Promise<void> {
		const lengthBytes = parts.reduce((sum, part) => sum + part.length, 0);
		this.#check(offset, lengthBytes);
		return this.#file.write(offset, parts);
	}

	sync(site: string): Promise<void> {
		return this.#file.sync(site);
	}

	discard(offset: number, lengthBytes: number): Promise<void> {
		this.#check(offset, lengthBytes);
		return this.#file.discard(offset, lengthBytes);
	}

	uncache(offset: number, lengthBytes: number): Promise<void> {
		this.#check(offset, lengthBytes);
		return this.#file.uncache(offset, lengthBytes);
	}

	lock(): Promise<void> {
		return this.#disk.lock();
	}

	probe(): Promise<void> {
		return this.#disk.probe();
	}

	activity(): DiskActivity {
		return this.#disk.activity();
	}

	close(): Promise<void> {
		return this.#disk.close();
	}

	#check(offset: number, lengthBytes: number): void {
		if (offset >= 0 && offset + lengthBytes <= this.sizeBytes) return;
		throw new FsError("EINVAL", "platform.sim-raw-range", `${this.path}: ${lengthBytes} bytes at ${offset} of ${this.sizeBytes}`);
	}
}

/** The disk that is made of a device, with the writes refused that the device is told to refuse (`SimDevice.starve`): the device itself knows no names. */
export function starvingDisk(disk: Disk, device: SimDevice): Disk {
	const { path, domain, ownsSpace = false } = disk;
	return {
		path,
		domain,
		ownsSpace,
		get foreign() {
			return disk.foreign;
		},
		disregard: () => disk.disregard?.(),
		lock: () => disk.lock(),
		open: async (name, options) => starvingFile(await disk.open(name, options), device),
		list: (folder) => disk.list(folder),
		remove: (name) => disk.remove(name),
		syncNames: (folder, site) => disk.syncNames(folder, site),
		space: () => disk.space(),
		probe: () => disk.probe(),
		verifyTable: async (repair) => (await disk.verifyTable?.(repair)) ?? { checked: 0, corrupt: 0, repaired: 0 },
		...(disk.activity === undefined ? {} : { activity: () => disk.activity?.() as DiskActivity }),
		close: () => disk.close(),
	};
}

function starvingFile(file: DiskFile, device: SimDevice): DiskFile {
	const { name } = file;
	return {
		name,
		read: (offset, lengthBytes) => file.read(offset, lengthBytes),
		borrow: (offset, lengthBytes, sumBlockBytes) => file.borrow(offset, lengthBytes, sumBlockBytes),
		write: async (offset, parts) => {
			device.checkStarved(name);
			await file.write(offset, parts);
		},
		sync: (site) => file.sync(site),
		discard: (offset, lengthBytes) => file.discard(offset, lengthBytes),
		uncache: (offset, lengthBytes) => file.uncache(offset, lengthBytes),
		size: () => file.size(),
		held: () => file.held(),
		truncate: (sizeBytes) => file.truncate(sizeBytes),
		close: () => file.close(),
	};
}
