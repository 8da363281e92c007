/** What became of each disk, as long as it is one of the volume's: its last changes of state, so that somebody who comes later sees what led to it. */
import { Mutex } from "../../base/async.ts";
import { toFsError } from "../../base/errors.ts";
import { utf8ToLatin1 } from "../../base/bytes.ts";
import type { DiskId, DiskState } from "../../log/interface.ts";
import type { DiskHistoryEntry } from "../../records/interface.ts";
import { diskHistoryRecord } from "../../records/kinds.ts";
import { maximumHistoryEntries, maximumHistoryReasonBytes } from "../../records/limits.ts";
import type { Core } from "./core.ts";

export class DiskHistory {
	readonly #core: Core;
	readonly #writing = new Mutex();

	constructor(core: Core) {
		this.#core = core;
	}

	/** The volume serves: from here on every change is written down. What happened while nobody looked is the first. */
	async start(): Promise<void> {
		for (const slot of this.#core.disks.slots()) {
			const [last] = (await this.of(slot.id)).slice(-1);
			if (last === undefined ? slot.state !== "healthy" : last.state !== slot.state) this.#note(slot.id, slot.state, slot.reason);
		}
		this.#core.disks.onChange((id, state) => this.#note(id, state, this.#core.disks.slot(id)?.reason ?? ""));
	}

	async of(id: DiskId): Promise<readonly DiskHistoryEntry[]> {
		return (await this.#core.view((tx) => tx.get(diskHistoryRecord, id)))?.entries ?? [];
	}

	#note(id: DiskId, state: DiskState, reason: string): void {
		const at = Math.max(0, this.#core.platform.clock.realtime().seconds);
		const entry = { at, state, reason: utf8ToLatin1(reason).slice(0, maximumHistoryReasonBytes) };
		this.#writing
			.run(() => this.#write(id, entry))
			.catch((error: unknown) => {
				this.#core.logger.warn("the history of a disk could not be written down", {
					error: toFsError(error, "volume.disk-history").message,
				});
			});
	}

	async #write(id: DiskId, entry: DiskHistoryEntry): Promise<void> {
		const isGone = this.#core.disks.slot(id) === undefined;
		await this.#core.transact((tx, context) => {
			const before = tx.get(diskHistoryRecord, id);
			if (isGone) {
				if (before !== undefined) tx.delete(diskHistoryRecord, id);
				return;
			}
			const entries = [...(before?.entries ?? []), entry].slice(-maximumHistoryEntries);
			tx.put(diskHistoryRecord, { disk: id, entries, birthEpoch: before?.birthEpoch ?? context.epoch }, id);
		});
	}

	/** Resolves when nothing is being written. */
	async stop(): Promise<void> {
		await this.#writing.run(async () => {});
	}
}
