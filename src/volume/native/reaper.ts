/**
 * Takes inodes without a name apart once nobody has them open: data, xattrs, pending records, then the inode itself, in bounded transactions. The orphan record keeps the
 * work from being forgotten: a mount goes on where a crash left it.
 */
import { Semaphore } from "../../base/async.ts";
import { toFsError } from "../../base/errors.ts";
import { forget, reapStep } from "../../namespace/verbs.ts";
import type { Ino, RecordTransaction } from "../../records/interface.ts";
import { inodeRecord, orphanRecord, pendingRecord } from "../../records/kinds.ts";
import { truncate as truncateExtents } from "../../storage/extents.ts";
import type { StorageEffects } from "../../storage/interface.ts";
import type { Core } from "./core.ts";
import { limits } from "./limits.ts";

/** What `takeApartStep` answers when nothing is left. */
export const gone = Number.POSITIVE_INFINITY;

/** As much of it as fits the transaction, from byte `start` of the file on; answers where to go on. The caller holds `flow`, and drops what is dirty. */
export function takeApartStep(tx: RecordTransaction, effects: StorageEffects, ino: Ino, start: number): number {
	const inode = tx.get(inodeRecord, ino);
	if (inode === undefined) {
		tx.delete(orphanRecord, ino);
		return gone;
	}
	let doneTo = start;
	if (inode.inline === undefined) {
		const cut = truncateExtents(tx, effects, ino, 0, limits.transactionChanges - 8 - tx.changeCount, start);
		doneTo = cut.doneTo;
		if (!cut.done) {
			tx.put(inodeRecord, { ...inode, storedBytes: inode.storedBytes + cut.storedDelta }, ino);
			return doneTo;
		}
	}
	const pendings = tx.scan(pendingRecord, pendingRecord.prefix(ino), { limit: limits.pendingsAtOnce });
	if (tx.changeCount + pendings.length + 4 > limits.transactionChanges) return doneTo;
	for (const { value } of pendings) tx.delete(pendingRecord, ino, value.id);
	if (pendings.length === limits.pendingsAtOnce) return doneTo;
	if (!reapStep(tx, ino, limits.transactionChanges - 4 - tx.changeCount)) return doneTo;
	forget(tx, ino);
	return gone;
}

export class Reaper {
	readonly #core: Core;
	readonly #finished: (ino: Ino) => Promise<void>;
	readonly #gate = new Semaphore(limits.reapsAtOnce);
	readonly #reaping = new Map<Ino, Promise<void>>();
	/** Could not be taken apart; tried again, together, after a pause that grows while nothing succeeds. */
	readonly #left = new Set<Ino>();
	#pauseMs: number = limits.reapRetryMs;
	#cancelRetry: (() => void) | undefined;
	#stopped = false;

	/** `finished`: an inode is gone, its records with it. */
	constructor(core: Core, finished: (ino: Ino) => Promise<void>) {
		this.#core = core;
		this.#finished = finished;
	}

	/** An inode that is being taken apart can no longer be opened. */
	reaping(ino: Ino): boolean {
		return this.#reaping.has(ino);
	}

	get waiting(): number {
		return this.#reaping.size + this.#left.size;
	}

	/** Starts; an inode that cannot be taken apart now is tried again later, and by the next mount: its orphan record stays. */
	reap(ino: Ino): void {
		if (this.#stopped || this.#reaping.has(ino)) return;
		this.#left.delete(ino);
		const work = this.#gate
			.run(() => this.#core.flow.run(ino, () => this.#takeApart(ino)))
			.then(
				() => {
					this.#pauseMs = limits.reapRetryMs;
				},
				(error: unknown) => this.#leave(ino, error),
			)
			.finally(() => this.#reaping.delete(ino));
		this.#reaping.set(ino, work);
	}

	#leave(ino: Ino, error: unknown): void {
		this.#core.logger.warn("an unlinked file could not be taken apart; it is tried again", {
			ino,
			error: toFsError(error, "volume.reap").message,
		});
		this.#left.add(ino);
		if (this.#stopped || this.#cancelRetry !== undefined) return;
		this.#cancelRetry = this.#core.platform.clock.after(this.#pauseMs, () => {
			this.#cancelRetry = undefined;
			this.#pauseMs = Math.min(2 * this.#pauseMs, limits.reapRetryMaximumMs);
			for (const waiting of [...this.#left]) this.reap(waiting);
		});
	}

	async #takeApart(ino: Ino): Promise<void> {
		if (this.#stopped) return;
		this.#core.dirty.drop(ino);
		let from = 0;
		for (let done = false; !done && !this.#stopped; ) {
			const start = from;
			const step = await this.#core.transact((tx, _context, effects) => takeApartStep(tx, effects, ino, start));
			from = step.result;
			done = from === gone;
			if (done) await this.#finished(ino);
		}
	}

	/** Resolves when every attempt that is under way has ended. */
	async idle(): Promise<void> {
		while (this.#reaping.size > 0) await Promise.all([...this.#reaping.values()]);
	}

	async stop(): Promise<void> {
		this.#stopped = true;
		this.#cancelRetry?.();
		await this.idle();
	}
}
