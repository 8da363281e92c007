/**
 * Moves fragments from full disks to empty ones where space is short only because they lie unevenly: after a disk was added beside full ones, or where sizes differ.
 * Nothing is moved while there is room: new writes go to the emptiest disks anyway.
 *
 * Invariants
 *  V1 At most one run at a time. Each move makes two disks more even, so there is an end to it.
 *  V2 As in healing: the copy is durable before the transaction that names it, and the old place is given back when that is durable.
 */
import { Signal } from "../../base/async.ts";
import { toFsError } from "../../base/errors.ts";
import type { Core } from "./core.ts";
import { replaceFragments } from "./healer.ts";
import { limits } from "./limits.ts";

export class Leveller {
	readonly #core: Core;
	readonly #moved = new Signal();
	#run: Promise<boolean> | undefined;
	/** What somebody waits for, in user bytes. */
	#wantedBytes = 0;
	#stopped = false;
	/** The last run could move nothing: look again only when free space has changed. */
	#vainAtBytes = -1;
	#cancelTick: () => void = () => {};

	constructor(core: Core) {
		this.#core = core;
	}

	get active(): boolean {
		return this.#run !== undefined;
	}

	/** Begins to watch for space that is short for this reason, so that df tells it before a writer meets it. */
	start(): void {
		this.#cancelTick = this.#core.platform.clock.after(limits.levelTickMs, () => {
			if (this.#stopped) return;
			const { freeBytes, levelFreeBytes } = this.#core.store.space();
			if (freeBytes < levelFreeBytes * limits.levelBelow && freeBytes !== this.#vainAtBytes) void this.#begin();
			this.start();
		});
	}

	/** Resolves when there is room for so much more, or when moving gives none. */
	async makeRoom(lengthBytes: number): Promise<void> {
		await this.#core.store.refreshSpace();
		const { freeBytes, levelFreeBytes } = this.#core.store.space();
		if (levelFreeBytes <= freeBytes) return;
		const wanted = freeBytes + lengthBytes + limits.levelStepBytes;
		this.#wantedBytes = Math.max(this.#wantedBytes, wanted);
		let over = false;
		const run = this.#begin().finally(() => {
			over = true;
			this.#moved.notifyAll();
		});
		run.catch(() => {});
		while (!over && this.#core.store.space().freeBytes < Math.min(wanted, levelFreeBytes)) await this.#moved.wait();
	}

	#begin(): Promise<boolean> {
		this.#run ??= this.#level().finally(() => {
			this.#run = undefined;
			this.#wantedBytes = 0;
		});
		return this.#run;
	}

	/** True when something moved. */
	async #level(): Promise<boolean> {
		let count = 0;
		try {
			for (let moved = -1; moved !== 0 && !this.#enough(); ) {
				moved = 0;
				for await (const segment of this.#core.segments()) {
					if (this.#stopped || this.#enough()) break;
					if (!(await replaceFragments(this.#core, segment, () => this.#core.store.evenOut(segment)))) continue;
					moved++;
					this.#moved.notifyAll();
				}
				count += moved;
				if (this.#stopped) break;
			}
		} catch (error) {
			this.#core.logger.warn("fragments could not be moved to emptier disks now", { error: toFsError(error, "volume.level").message });
		}
		await this.#core.store.refreshSpace();
		this.#vainAtBytes = count === 0 ? this.#core.store.space().freeBytes : -1;
		if (count > 0) this.#core.logger.info("fragments moved to emptier disks", { count });
		return count > 0;
	}

	#enough(): boolean {
		const { freeBytes, levelFreeBytes } = this.#core.store.space();
		return freeBytes >= Math.max(levelFreeBytes * limits.levelUpTo, Math.min(this.#wantedBytes, levelFreeBytes * limits.levelAtMost));
	}

	async stop(): Promise<void> {
		this.#stopped = true;
		this.#cancelTick();
		await this.#run;
	}
}
