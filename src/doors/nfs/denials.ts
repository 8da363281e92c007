/**
 * What clients are told whose reads and writes an open elsewhere denies: first to come later (JUKEBOX: they try again by themselves, and the program waits), and when that has lasted, that they may not (ACCES), as NFS 3 knows
 * no better word. A client that is told JUKEBOX for ever hangs its programs for ever.
 */
import { LruCache } from "../../base/bounded.ts";
import type { Clock } from "../../platform/interface.ts";
import { deniedLaterMs, maxDenied, sameDenialMs } from "./limits.ts";
import { status } from "./nfs3.ts";
import type { Target } from "./nfs-server.ts";

interface Denial {
	readonly sinceMs: number;
	lastMs: number;
}

export class Denials {
	readonly #clock: Clock;
	/** By machine and inode. */
	readonly #denied = new LruCache<string, Denial>(maxDenied);

	constructor(clock: Clock) {
		this.#clock = clock;
	}

	/** Of a call about this node that was denied now. */
	status(target: Target | undefined): number {
		if (target === undefined) return status.JUKEBOX;
		const key = `${target.caller.clientInstance} ${target.node.ino}`;
		const nowMs = this.#clock.monotonicMs();
		const known = this.#denied.get(key);
		if (known === undefined || nowMs - known.lastMs > sameDenialMs) {
			this.#denied.set(key, { sinceMs: nowMs, lastMs: nowMs }, 1);
			return status.JUKEBOX;
		}
		known.lastMs = nowMs;
		return nowMs - known.sinceMs < deniedLaterMs ? status.JUKEBOX : status.ACCES;
	}
}
