/**
 * Which nodes the kernel may know: those that a reply has named to it and that it has not let go of (`nlookup`, FORGET). A change that comes from elsewhere need not be told of others.
 *
 * Invariants
 *  K1 The counter of a node that the kernel knows is above zero. Nodes share counters: one may be above zero for another node's sake, and then the kernel is told something that it does not need.
 *  K2 When the counters cannot be right (the kernel lets go of what it was not told, or a predecessor has told it something), every node may be known.
 */
import { knownNodeCounters } from "./limits.ts";

const rootIno = 1;

export class KnownNodes {
	readonly #counters = new Uint32Array(knownNodeCounters);
	#isExact: boolean;

	/** @param isExact false: the kernel knows nodes from before (K2). */
	constructor(isExact: boolean) {
		this.#isExact = isExact;
	}

	/** A reply names the node in a way that the kernel counts. Before the reply. */
	told(ino: number): void {
		if (ino === rootIno) return;
		const at = ino % knownNodeCounters;
		this.#counters[at] = (this.#counters[at] as number) + 1;
	}

	/** The kernel lets go of what it was told so many times. */
	forgotten(ino: number, times: number): void {
		// It knows the root from the mount on, and counts that too.
		if (ino === rootIno) return;
		const at = ino % knownNodeCounters;
		const left = (this.#counters[at] as number) - times;
		if (left < 0) this.#isExact = false;
		else this.#counters[at] = left;
	}

	mayKnow(ino: number): boolean {
		return !this.#isExact || ino === rootIno || (this.#counters[ino % knownNodeCounters] as number) > 0;
	}
}
