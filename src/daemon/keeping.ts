/**
 * The daemon's side of its keeper: there is one while the mount lives, it knows how to go on, and it is told when nothing is left to keep.
 *
 * Invariant G1: whatever a successor needs was given to the keeper before the kernel is answered on the ground of it.
 */
import { toFsError } from "../base/errors.ts";
import type { Logger } from "../base/telemetry.ts";
import type { Clock } from "../platform/interface.ts";
import type { DaemonsLink, Program, ResumeState, ToDaemon } from "./keeper-link.ts";
import { keeperRetryMs, keepersInARow } from "./limits.ts";

/** What the process can do about keepers. */
export interface Keepers {
	/** Starts a keeper that holds the descriptor. @throws FsError EIO. */
	start(descriptor: number, onMessage: (message: ToDaemon) => void): Promise<DaemonsLink>;
	/** The keeper that has started this process. */
	adopt(onMessage: (message: ToDaemon) => void): DaemonsLink | undefined;
	/** How a successor of this process is started: its program and arguments. */
	successor(diskPaths: readonly string[]): { readonly program: Program; readonly words: readonly string[] };
}

export interface KeepingOptions {
	readonly descriptor: number;
	/** A keeper of another version is replaced. */
	readonly renew: boolean;
	onStop(reason: string): void;
}

export interface KeepingModules {
	readonly keepers: Keepers;
	readonly clock: Clock;
	readonly logger: Logger;
}

export interface KeptState {
	readonly diskPaths: readonly string[];
	/** Null: a mount that a daemon leaves is made anew, not resumed. */
	readonly resume: ResumeState | null;
}

export class Keeping {
	readonly #options: KeepingOptions;
	readonly #modules: KeepingModules;
	#link: DaemonsLink | undefined;
	#state: KeptState;
	#ended = false;
	#lost = 0;

	private constructor(options: KeepingOptions, modules: KeepingModules, state: KeptState) {
		this.#options = options;
		this.#modules = modules;
		this.#state = state;
	}

	/** From when it resolves the mount is kept. Without a keeper it is served all the same: `warning` and the log say so. */
	static async begin(options: KeepingOptions, modules: KeepingModules, state: KeptState): Promise<Keeping> {
		const keeping = new Keeping(options, modules, state);
		const inherited = modules.keepers.adopt((message) => keeping.#told(message));
		if (inherited === undefined || options.renew) await keeping.#start();
		if (inherited === undefined) return keeping;
		if (keeping.#link === undefined) await keeping.#use(inherited);
		else {
			await inherited.tell({ kind: "bye" });
			inherited.close();
		}
		return keeping;
	}

	#told(message: ToDaemon): void {
		if (message.kind === "stop") this.#options.onStop(message.reason);
	}

	async #start(): Promise<void> {
		const { keepers, logger } = this.#modules;
		try {
			await this.#use(await keepers.start(this.#options.descriptor, (message) => this.#told(message)));
		} catch (error) {
			logger.error("no keeper could be started: the mount would die with this daemon", {
				error: toFsError(error, "daemon.keeper").message,
			});
			this.#retry();
		}
	}

	async #use(link: DaemonsLink): Promise<void> {
		this.#link = link;
		void link.lost.then(() => this.#onLost(link));
		await this.#tell();
		await link.tell({ kind: "serving" });
	}

	#onLost(link: DaemonsLink): void {
		if (this.#link !== link) return;
		this.#link = undefined;
		if (this.#ended) return;
		this.#modules.logger.warn("the keeper has ended: another is started");
		this.#retry();
	}

	#retry(): void {
		const { clock, logger } = this.#modules;
		if (++this.#lost > keepersInARow) {
			logger.error(`${this.#lost} keepers were lost: the mount is not kept any more, and would die with this daemon`);
			return;
		}
		clock.after(this.#lost === 1 ? 0 : keeperRetryMs, () => {
			if (!this.#ended && this.#link === undefined) void this.#start();
		});
	}

	async #tell(): Promise<void> {
		const { diskPaths, resume } = this.#state;
		await this.#link?.tell({ kind: "plan", plan: { ...this.#modules.keepers.successor(diskPaths), resume } });
	}

	/** G1. */
	async know(state: Partial<KeptState>): Promise<void> {
		this.#state = { ...this.#state, ...state };
		await this.#tell();
	}

	get state(): KeptState {
		return this.#state;
	}

	get kept(): boolean {
		return this.#link !== undefined;
	}

	/** What `cairn status` has to say of it. */
	get warning(): string | undefined {
		if (this.#ended || this.kept) return undefined;
		return "the mount would end with its daemon: nobody keeps it, as its keeper has ended and no other could be started; the daemon's log says why";
	}

	/** False: there is nobody who could start the successor. */
	async handOver(program: Program): Promise<boolean> {
		this.#ended = true;
		return (await this.#link?.tell({ kind: "hand-over", program })) === true;
	}

	/** The mount is gone. */
	async end(): Promise<void> {
		this.#ended = true;
		await this.#link?.tell({ kind: "bye" });
	}
}
