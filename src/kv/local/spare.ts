/**
 * Space on the homes that nobody else can take: disks that are directories are shared with other programs, and these fill them. A mount has to write down what the log holds before it serves; where it finds no room for that, it gives
 * spare space up, a piece at a time.
 *
 * Invariants
 *  P1 Only a mount gives it up: what is not flushed while a disk is full must find it there when the process dies.
 *  P2 It is taken only where as much again stays free, so it never is what keeps a flush or a merge from finding room. What this mount gave up is the exception: what is left of it is taken back before the first reply, or others would.
 *
 * The file `kv/spare` on each home has no contents; its size is what it takes. A volume works without it.
 */
import { alignUp } from "../../base/bytes.ts";
import { isFsError } from "../../base/errors.ts";
import type { Logger } from "../../base/telemetry.ts";
import type { DiskId, DiskSet, VolumeConfig } from "../../log/interface.ts";
import type { Disk } from "../../platform/interface.ts";
import type { LocalLimits } from "../limits.ts";

export const spareFileName = "kv/spare";

export interface SpareModules {
	readonly disks: DiskSet;
	readonly logger: Logger;
	readonly limits: LocalLimits;
}

/** Log bytes after which a memtable is frozen, however small it is: the ring must not fill up. */
export function rotateBytes(limits: LocalLimits, { logSegmentBytes, logSegmentCount }: VolumeConfig): number {
	return Math.min(limits.memtableBytes, Math.floor((logSegmentBytes * logSegmentCount) / 4));
}

/** What may wait for its flush, two memtables, and the headers, indexes and filters of their runs. */
export function spareBytes(limits: LocalLimits, config: VolumeConfig): number {
	const unflushedBytes = 2 * rotateBytes(limits, config);
	return alignUp(unflushedBytes + unflushedBytes / 32, limits.spareUnitBytes);
}

/** On a small disk less: it is used for much else. */
function wantedBytes(limits: LocalLimits, config: VolumeConfig, capacityBytes: number): number {
	const fitting = Math.floor(capacityBytes / limits.spareFraction / limits.spareUnitBytes) * limits.spareUnitBytes;
	return Math.min(spareBytes(limits, config), fitting);
}

export class SpareSpace {
	readonly #modules: SpareModules;
	/** Where it was looked at. */
	readonly #held = new Map<DiskId, number>();
	/** Nothing is missing there. */
	readonly #whole = new Set<DiskId>();
	/** How much there was before this mount gave some of it up. */
	readonly #before = new Map<DiskId, number>();

	constructor(modules: SpareModules) {
		this.#modules = modules;
	}

	bytesOn(id: DiskId): number {
		return this.#held.get(id) ?? 0;
	}

	/** The disk is gone, or no home any more. */
	forget(id: DiskId): void {
		this.#held.delete(id);
		this.#before.delete(id);
		this.#whole.delete(id);
	}

	/** P1. A piece of it on each of these disks. Answers those that gave some. */
	async giveUp(ids: Iterable<DiskId>): Promise<readonly DiskId[]> {
		const gave: DiskId[] = [];
		for (const id of ids) {
			await this.#onDisk(id, async (disk, setAside) => {
				const held = await sizeOf(disk);
				if (held === 0) return;
				if (!this.#before.has(id)) this.#before.set(id, held);
				const pieceBytes = alignUp((this.#before.get(id) ?? held) / 8, this.#modules.limits.spareUnitBytes);
				this.#held.set(id, await setAside(Math.max(0, held - pieceBytes)));
				this.#whole.delete(id);
				if (this.bytesOn(id) < held) gave.push(id);
			});
		}
		if (gave.length > 0) this.#modules.logger.warn("no room for the metadata: spare space is given up", { disks: gave });
		return gave;
	}

	/** P2. At the end of a mount. */
	async takeBack(homes: readonly DiskId[]): Promise<void> {
		await Promise.all(
			homes.map((id) =>
				this.#onDisk(id, async (disk, setAside) => {
					const bytes = this.#before.get(id);
					this.#held.set(id, bytes === undefined ? await sizeOf(disk) : await setAside(bytes));
				}),
			),
		);
		this.#before.clear();
	}

	/** Takes what is missing where there is room. */
	async take(homes: readonly DiskId[]): Promise<void> {
		await Promise.all(homes.map((id) => (this.#whole.has(id) ? undefined : this.#takeOn(id))));
	}

	async #takeOn(id: DiskId): Promise<void> {
		const { disks, limits } = this.#modules;
		await this.#onDisk(id, async (disk, setAside) => {
			let held = await sizeOf(disk);
			const { capacityBytes, freeBytes } = await disk.space();
			const wanted = wantedBytes(limits, disks.roster.config, capacityBytes);
			while (held < wanted && freeBytes >= 2 * wanted - held) {
				const next = await setAside(Math.min(wanted, held + limits.spareStepBytes));
				if (next <= held) break;
				held = next;
			}
			this.#held.set(id, held);
			if (held >= wanted) this.#whole.add(id);
		});
	}

	/** A disk that has none of it works all the same, and what is wrong with it others find out. */
	async #onDisk(id: DiskId, work: (disk: Disk, setAside: (bytes: number) => Promise<number>) => Promise<void>): Promise<void> {
		const disk = this.#modules.disks.writable(id);
		const setAside = disk?.setAside?.bind(disk);
		if (disk === undefined || setAside === undefined) return;
		try {
			await work(disk, (bytes) => setAside(spareFileName, bytes, "kv.spare"));
		} catch (error) {
			this.#modules.logger.warn("spare space for the metadata", { disk: id, error: String(error) });
		}
	}
}

async function sizeOf(disk: Disk): Promise<number> {
	try {
		const file = await disk.open(spareFileName);
		try {
			return await file.size();
		} finally {
			await file.close();
		}
	} catch (error) {
		if (isFsError(error, "ENOENT")) return 0;
		throw error;
	}
}
