/** What the main thread and the coder's thread say to each other. */
import type { ShardWork } from "../../codec/interface.ts";

/** As the kernel knows the thread, 15 bytes at most. */
export const coderThreadName = "cairn-coder";

export interface CoderCall {
	readonly id: number;
	readonly work: ShardWork;
}

/** The first message of all says that the thread can take work. */
export type CoderReply =
	| "ready"
	| { readonly id: number; readonly sums: Uint32Array<ArrayBuffer> }
	/** The work itself was wrong, not the thread. */
	| { readonly id: number; readonly failed: string };
