/**
 * Whether everything that clients were told of their locks is still known. Locks of clients are committed before the reply and not made durable (architecture, rule 6): they survive the death of the process, because
 * the log's tail lies in memory that outlives it, and not that of the machine. This memory lies beside the tail and goes with it: when it is there, nothing was lost.
 *
 * Memory: magic u32, version u32, volume (16 bytes), incarnation of the mount that wrote it f64, CRC32C of the 32 bytes before u32. Little-endian.
 *
 * Invariant: it is written when the table of locks is whole, and not before (a mount that is killed during its grace leaves none that counts).
 */
import { equalBytes, parseUuid } from "../../base/bytes.ts";
import { crc32c } from "../../codec/checksum.ts";
import type { OpenedFrom } from "../../log/interface.ts";
import type { Memory } from "../../platform/interface.ts";

const magic = 0x574b_4c43; // "CLKW"
const formatVersion = 1;
const usedBytes = 36;
export const lockWitnessBytes = 64;

export class LockWitness {
	readonly #memory: Memory;
	readonly #volume: Uint8Array;

	constructor(memory: Memory, volume: string) {
		this.#memory = memory;
		this.#volume = parseUuid(volume);
	}

	/** A mount that died while it opened has raised the incarnation and changed nothing here. */
	isOf({ oldestIncarnation, previousIncarnation }: OpenedFrom): boolean {
		const { bytes } = this.#memory;
		const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
		const incarnation = view.getFloat64(24, true);
		if (!equalBytes(bytes.subarray(0, usedBytes), this.#encode(incarnation))) return false;
		return incarnation >= oldestIncarnation && incarnation <= previousIncarnation;
	}

	write(incarnation: number): void {
		this.#memory.bytes.set(this.#encode(incarnation));
	}

	/** What it says does not count any more. */
	clear(): void {
		this.#memory.bytes.fill(0, 0, usedBytes);
	}

	close(): Promise<void> {
		return this.#memory.close();
	}

	#encode(incarnation: number): Uint8Array {
		const bytes = new Uint8Array(usedBytes);
		const view = new DataView(bytes.buffer);
		view.setUint32(0, magic, true);
		view.setUint32(4, formatVersion, true);
		bytes.set(this.#volume, 8);
		view.setFloat64(24, incarnation, true);
		view.setUint32(32, crc32c(bytes.subarray(0, 32)), true);
		return bytes;
	}
}
