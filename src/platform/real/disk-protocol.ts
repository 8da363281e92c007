/** What the main thread and a disk's thread say to each other. */
import type { ErrorCode, ErrorData } from "../../base/errors.ts";
import { sumsOf } from "../../codec/checksum.ts";
import type { LaneMemory } from "./disk-lane.ts";

export type DiskRequest =
	| { readonly kind: "openDisk" | "lock" | "space" | "probe" | "close" }
	| { readonly kind: "open"; readonly name: string; readonly create: boolean }
	| { readonly kind: "list" | "syncNames"; readonly folder: string }
	| { readonly kind: "remove"; readonly name: string }
	| { readonly kind: "setAside"; readonly name: string; readonly sizeBytes: number }
	| {
			readonly kind: "read";
			readonly handle: number;
			readonly offset: number;
			readonly lengthBytes: number;
			/** Shared memory for the bytes; the reply is their number then, or `ReadAndSummed`. */
			readonly into: Uint8Array | undefined;
			/** Checksums of blocks of so many bytes are wanted, too. */
			readonly sumBlockBytes?: number | undefined;
	  }
	| { readonly kind: "write"; readonly handle: number; readonly offset: number; readonly parts: readonly Uint8Array[] }
	| { readonly kind: "discard" | "uncache"; readonly handle: number; readonly offset: number; readonly lengthBytes: number }
	| { readonly kind: "truncate"; readonly handle: number; readonly sizeBytes: number }
	| { readonly kind: "sync" | "size" | "held" | "closeFile"; readonly handle: number };

export interface ReadAndSummed {
	readonly count: number;
	/** CRC32C of each whole block. */
	readonly sums: Uint32Array;
}

/** The reply to a read into shared memory. */
export function summed(bytes: Uint8Array, count: number, blockBytes: number | undefined): number | ReadAndSummed {
	if (blockBytes === undefined) return count;
	return { count, sums: sumsOf(bytes.subarray(0, count), blockBytes) };
}

export interface DiskCallMessage {
	readonly id: number;
	readonly request: DiskRequest;
}

/** A message brings some of them; one without any says that there are answers in the lane. The number of a call in the lane is -1 - slot, and that of the sync behind a write one less. */
export type DiskReply =
	| { readonly id: number; readonly value: unknown }
	| {
			readonly id: number;
			readonly error: { readonly code: ErrorCode; readonly site: string; readonly message: string; readonly data: ErrorData };
	  };

export interface DiskWorkerData {
	readonly path: string;
	/** What the thread is at, for whoever must not wait for its answer, and what it sleeps on: see `vitals`. */
	readonly vitals: Int32Array<SharedArrayBuffer>;
	/** For small calls. */
	readonly lane: LaneMemory;
	/** It goes before other threads that want its processor (scheduling.ts). */
	readonly runsFirst: boolean;
}

/**
 * Places in `DiskWorkerData.vitals`: calls begun and finished (modulo 2^32), the kernel's number of the thread, 0 before it runs, and messages to it. It sleeps on that last one: to be woken by its event loop would
 * take twice as long.
 */
export const vitals = { begun: 0, finished: 1, thread: 2, messages: 3, count: 4 } as const;
