/**
 * Decides when what is dirty is sealed: by age, by size, under pressure of memory, and all of it for syncfs and shutdown.
 *
 * Invariants
 *  S1 While the volume runs, nothing stays dirty longer than sealAgeMs plus the time a seal takes, unless seals fail; then it is tried again and said.
 *  S2 At most one pass runs at a time; a pass seals at most sealBatchInodes side by side. Beside it files are sealed one by one that have many records in the log.
 */
import type { FsError } from "../../base/errors.ts";
import { toFsError } from "../../base/errors.ts";
import type { Ino } from "../../records/interface.ts";
import type { Core } from "./core.ts";
import { type FileData, isGone } from "./data.ts";
import { limits } from "./limits.ts";

export class Sealer {
	readonly #core: Core;
	readonly #data: FileData;
	/** Told of each inode whose seal failed, for the sticky errors of its handles. */
	readonly #onFailure: (ino: Ino, error: FsError) => void;
	#cancelTick: () => void = () => {};
	#pass: Promise<void> | undefined;
	/** Files that are sealed because of what is in the log. */
	readonly #logged = new Map<Ino, Promise<void>>();
	#stopped = false;
	/** The newest failure, until a pass succeeds again. */
	trouble: FsError | undefined;

	constructor(core: Core, data: FileData, onFailure: (ino: Ino, error: FsError) => void) {
		this.#core = core;
		this.#data = data;
		this.#onFailure = onFailure;
	}

	start(): void {
		this.#tick();
	}

	#tick(): void {
		if (this.#stopped) return;
		this.#cancelTick = this.#core.platform.clock.after(limits.sealTickMs, () => {
			void this.#runPass().finally(() => this.#tick());
		});
	}

	/** Called after each write: starts a pass at once when there is much. */
	afterWrite(ino: Ino): void {
		if (this.#pass !== undefined || this.#stopped) return;
		const { dirty } = this.#core;
		const mine = dirty.attributes(ino)?.bytes ?? 0;
		const isPressed = this.#core.platform.simulation?.buggify("volume.pressure") === true;
		if (isPressed || dirty.bytes >= limits.sealPressureBytes || mine >= limits.sealInodeBytes) void this.#runPass(isPressed);
	}

	/** Called after each fsync: with too many records in the log the next ones would have to wait for a seal. */
	afterFsync(ino: Ino): void {
		if (this.#stopped || !this.#data.hasMuchLogged(ino) || this.#logged.has(ino)) return;
		const seal = this.#sealThese([ino]).then(() => void this.#logged.delete(ino));
		this.#logged.set(ino, seal);
	}

	#runPass(isPressed = false): Promise<void> {
		this.#pass ??= this.#sealDue(isPressed).finally(() => {
			this.#pass = undefined;
		});
		return this.#pass;
	}

	/** Everything that is due now, the oldest first. More than a batch may become due between two ticks, so it goes on until none is left. */
	async #sealDue(isPressed: boolean): Promise<void> {
		const { dirty, platform } = this.#core;
		const now = platform.clock.monotonicMs();
		let pressure = isPressed || platform.simulation?.buggify("volume.seal-early") === true || this.#memoryIsShort();
		const stalled = pressure ? dirty.stalledBy() : undefined;
		const all = dirty.dirtyInodes();
		let due: Ino[] = stalled === undefined ? [] : [stalled];
		for (let at = 0; (at < all.length || due.length > 0) && !this.#stopped; due = []) {
			for (; at < all.length && due.length < limits.sealBatchInodes; at++) {
				const { ino, sinceMs, bytes } = all[at] as (typeof all)[number];
				if (ino !== stalled && (pressure || now - sinceMs >= limits.sealAgeMs || bytes >= limits.sealInodeBytes)) due.push(ino);
			}
			if (due.length === 0 || (await this.#sealThese(due)) !== undefined) return;
			pressure = this.#memoryIsShort();
		}
	}

	#memoryIsShort(): boolean {
		return this.#core.dirty.bytes >= limits.sealPressureBytes || !this.#core.dirty.hasRoom(limits.chunkBytes);
	}

	async #sealThese(inos: readonly Ino[]): Promise<FsError | undefined> {
		let failure: FsError | undefined;
		await Promise.all(
			inos.map(async (ino) => {
				try {
					await this.#data.sealBehind(ino);
				} catch (error) {
					// A file that was removed meanwhile has nothing to lose, and must not hide the failure of another.
					if (isGone(error)) return;
					failure = toFsError(error, "volume.seal");
					this.#onFailure(ino, failure);
				}
			}),
		);
		if (failure !== undefined) {
			this.trouble = failure;
			this.#core.logger.error("sealing failed; the data stays in memory and is tried again", {
				error: failure.message,
				site: failure.site,
			});
		} else this.trouble = undefined;
		return failure;
	}

	/** Seals everything that is dirty now. @throws FsError the first failure. */
	async sealAll(): Promise<void> {
		const inos = this.#core.dirty.dirtyInodes().map((item) => item.ino);
		for (let at = 0; at < inos.length; at += limits.sealBatchInodes) {
			const failure = await this.#sealThese(inos.slice(at, at + limits.sealBatchInodes));
			if (failure !== undefined) throw failure;
		}
	}

	async stop(): Promise<void> {
		this.#stopped = true;
		this.#cancelTick();
		await Promise.all([this.#pass, ...this.#logged.values()]);
	}
}
