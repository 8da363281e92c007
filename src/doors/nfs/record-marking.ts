/**
 * Record marking (RFC 5531, section 11): messages in a byte stream, each in fragments that say their length.
 *
 * Invariants
 *  R1 No more bytes are kept than of one unfinished record, and that is at most `maxRecordBytes` long.
 *  R2 After an error nothing more is read: the place in the stream is lost.
 */
import type { BufferPool, Lent } from "../../base/buffer-pool.ts";
import { concatBytes } from "../../base/bytes.ts";
import { FsError } from "../../base/errors.ts";
import { maxFragments, maxRecordBytes } from "./limits.ts";

const lastFragment = 0x8000_0000;

/** The four bytes before a record of one fragment. */
export function recordMark(lengthBytes: number): Uint8Array {
	const mark = new Uint8Array(4);
	new DataView(mark.buffer).setUint32(0, lastFragment + lengthBytes);
	return mark;
}

/** `release`: the record lies in a borrowed buffer, which has to be given back. Without it the record may be kept. */
type OnRecord = (record: Uint8Array, release: (() => void) | undefined) => void;

export class RecordReader {
	readonly #onRecord: OnRecord;
	readonly #pool: BufferPool | undefined;
	/** Bytes of the mark that has begun. */
	readonly #mark = new Uint8Array(4);
	#markBytes = 0;
	/** Bytes that the fragment still lacks. */
	#missing = 0;
	#isLast = false;
	#fragments = 0;
	#parts: Uint8Array[] = [];
	#length = 0;
	/** Where a record of one fragment that is large enough for the pool is put together. */
	#lent: Lent | undefined;
	#failed = false;

	constructor(onRecord: OnRecord, pool?: BufferPool) {
		this.#onRecord = onRecord;
		this.#pool = pool;
	}

	/** Bytes of an unfinished record that are kept. */
	get keptBytes(): number {
		return this.#length;
	}

	/** Whether a record has begun and not ended. */
	get unfinished(): boolean {
		return this.#markBytes > 0 || this.#missing > 0 || this.#fragments > 0;
	}

	/** @throws FsError CORRUPT: no stream of records, or one that is too long. The bytes are this reader's. */
	feed(bytes: Uint8Array): void {
		if (this.#failed) throw new FsError("CORRUPT", "nfs.record-after-error", "the stream was given up before");
		let at = 0;
		while (at < bytes.length) {
			if (this.#missing > 0) {
				const end = Math.min(bytes.length, at + this.#missing);
				this.#take(bytes.subarray(at, end));
				at = end;
			} else {
				this.#mark[this.#markBytes++] = bytes[at++] as number;
				if (this.#markBytes === 4) this.#beginFragment();
			}
		}
	}

	#beginFragment(): void {
		this.#markBytes = 0;
		const word = new DataView(this.#mark.buffer).getUint32(0);
		this.#isLast = word >= lastFragment;
		this.#missing = word % lastFragment;
		this.#fragments++;
		const isTooLong = this.#length + this.#missing > maxRecordBytes;
		if (isTooLong || this.#fragments > maxFragments) {
			this.#failed = true;
			const what = isTooLong ? `a record of ${this.#length + this.#missing} bytes or more` : `a record of ${this.#fragments} fragments`;
			throw new FsError(
				"CORRUPT",
				"nfs.record-bound",
				`${what} is not taken: at most ${maxRecordBytes} bytes in ${maxFragments} fragments`,
			);
		}
		if (this.#isLast && this.#fragments === 1) this.#lent = this.#pool?.take(this.#missing);
		if (this.#missing === 0) this.#endFragment();
	}

	#take(bytes: Uint8Array): void {
		if (this.#lent === undefined) this.#parts.push(bytes);
		else this.#lent.bytes.set(bytes, this.#length);
		this.#length += bytes.length;
		this.#missing -= bytes.length;
		if (this.#missing === 0) this.#endFragment();
	}

	#endFragment(): void {
		if (!this.#isLast) return;
		const lent = this.#lent;
		const record = lent?.bytes ?? (this.#parts.length === 1 ? (this.#parts[0] as Uint8Array) : concatBytes(this.#parts));
		this.#lent = undefined;
		this.#parts = [];
		this.#length = 0;
		this.#fragments = 0;
		this.#onRecord(record, lent?.release);
	}
}
