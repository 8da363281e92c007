/**
 * Tells a disk that hangs from a machine on which nothing moves. One disk that has not moved for its limit, beside others that do, hangs and is given up. When more disks stand still at once than the volume can
 * lose, giving them up would end it, and what they have in common is more likely to blame than each of them: a controller, a bus, a host that is too busy. They are waited for, at most `hangPatience` limits.
 *
 * Invariants
 *  W1 At most as many disks as the volume can lose are given up before that time.
 *  W2 Whoever is waited for is told (`waits`), and logged when it begins and when it ends.
 */
import type { Logger } from "../base/telemetry.ts";
import type { HangJudge } from "../platform/deadline.ts";
import type { Disk } from "../platform/interface.ts";
import { hangPatience } from "./limits.ts";

interface Stuck {
	readonly stuckMs: number;
	readonly limitMs: number;
}

export class HangWatch implements HangJudge {
	readonly #mayLose: () => number;
	readonly #logger: Logger;
	readonly #stuck = new Map<Disk, Stuck>();
	readonly #waited = new Set<Disk>();

	/** @param mayLose how many disks more the volume can lose now. */
	constructor(mayLose: () => number, logger: Logger) {
		this.#mayLose = mayLose;
		this.#logger = logger;
	}

	/** Disks beyond their limit that are waited for, and for how long they have not moved. */
	waits(): ReadonlyMap<Disk, number> {
		return new Map([...this.#waited].map((disk) => [disk, this.#stuck.get(disk)?.stuckMs ?? 0]));
	}

	judge(disk: Disk, stuckMs: number, limitMs: number): boolean {
		if (stuckMs === 0) {
			this.#movesAgain(disk);
			return false;
		}
		this.#stuck.set(disk, { stuckMs, limitMs });
		if (stuckMs < limitMs) return false;
		// Who is half-way there is counted: they stopped together, and were only looked at one after the other.
		const together = [...this.#stuck.values()].filter((one) => one.stuckMs >= one.limitMs / 2).length;
		const mayLose = this.#mayLose();
		if (together <= mayLose || stuckMs >= limitMs * hangPatience) return true;
		this.#waitFor(disk, { together, mayLose, limitMs });
		return false;
	}

	#waitFor(disk: Disk, { together, mayLose, limitMs }: { together: number; mayLose: number; limitMs: number }): void {
		if (this.#waited.has(disk)) return;
		this.#waited.add(disk);
		this.#logger.warn("a disk does not answer, and neither do others: it is waited for, not given up", {
			path: disk.path,
			notAnswering: together,
			mayLose,
			atMostMs: limitMs * hangPatience,
		});
	}

	#movesAgain(disk: Disk): void {
		const was = this.#stuck.get(disk);
		this.#stuck.delete(disk);
		if (this.#waited.delete(disk))
			this.#logger.warn("a disk that was waited for is waited for no longer", { path: disk.path, stoodStillMs: was?.stuckMs ?? 0 });
	}
}
