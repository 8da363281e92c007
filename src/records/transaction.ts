/**
 * The typed view of one kv transaction.
 *
 * Invariants
 *  R1 What `get` and `scan` answer is what the transaction would answer, decoded: its own changes included.
 *  R2 A value is decoded at most once per transaction; cached values are never changed (they are read-only by type).
 */
import type { ByteArena } from "../codec/binary.ts";
import type { Transaction } from "../kv/interface.ts";
import type { RecordKind, RecordTransaction } from "./interface.ts";
import { scanBounds } from "./kind.ts";

export class Records implements RecordTransaction {
	readonly #tx: Transaction;
	readonly #arena: ByteArena | undefined;
	/** By key; undefined = known to be absent. As large as what the transaction touches, which the engine bounds. */
	#decoded = new Map<string, unknown>();

	/** With an arena records are encoded there. */
	constructor(tx: Transaction, arena?: ByteArena) {
		this.#tx = tx;
		this.#arena = arena;
	}

	get<Key extends readonly unknown[], Value>(kind: RecordKind<Key, Value>, ...key: Key): Value | undefined {
		const full = kind.key(...key);
		const known = this.#decoded.get(full);
		if (known !== undefined || this.#decoded.has(full)) return known as Value | undefined;
		const bytes = this.#tx.get(full);
		const value = bytes === undefined ? undefined : kind.decode(bytes, full);
		this.#decoded.set(full, value);
		return value;
	}

	put<Key extends readonly unknown[], Value>(kind: RecordKind<Key, Value>, value: Value, ...key: Key): void {
		const full = kind.key(...key);
		this.#tx.put(full, kind.encode(value, this.#arena));
		this.#decoded.set(full, value);
	}

	delete<Key extends readonly unknown[], Value>(kind: RecordKind<Key, Value>, ...key: Key): void {
		const full = kind.key(...key);
		this.#tx.delete(full);
		this.#decoded.set(full, undefined);
	}

	scan<Key extends readonly unknown[], Value>(
		kind: RecordKind<Key, Value>,
		prefix: string,
		options: { readonly after?: string; readonly limit: number },
	): { readonly key: string; readonly value: Value }[] {
		const { start, end } = scanBounds(prefix, options.after);
		if (end !== undefined && start >= end) return [];
		return this.#tx.range({ start, end, limit: options.limit }).map(({ key, value }) => {
			const known = this.#decoded.get(key);
			if (known !== undefined) return { key, value: known as Value };
			const decoded = kind.decode(value, key);
			this.#decoded.set(key, decoded);
			return { key, value: decoded };
		});
	}

	get changeCount(): number {
		return this.#tx.changeCount;
	}

	get changeBytes(): number {
		return this.#tx.changeBytes;
	}
}
