/** The head of a shard: fence, order of the feed, and the answer to "did it happen?" after an unknown outcome. */
import { FsError } from "../base/errors.ts";
import { keyU16 } from "../base/bytes.ts";
import { ByteReader, ByteWriter } from "../codec/binary.ts";
import { kvLimits } from "./limits.ts";

export interface Head {
	/** Raised when the shard changes its owner: transactions of the old one end with ESTALE. */
	readonly epoch: number;
	/** Number of the newest transaction of the shard. */
	readonly sequence: number;
	/** Attempt tokens of the newest transactions, newest first; token i belongs to `sequence - i`. 0 = that transaction's engine has no unknown outcomes. */
	readonly tokens: readonly number[];
}

const formatVersion = 1;

export function headKey(shard: number): string {
	return `h${keyU16(shard)}`;
}

/** The head after one more transaction. */
export function nextHead(head: Head, token: number): Head {
	return { epoch: head.epoch, sequence: head.sequence + 1, tokens: [token, ...head.tokens.slice(0, kvLimits.headTokens - 1)] };
}

/** version u8, token count u8, reserved u16, epoch u64, sequence u64, tokens u64 each. */
export function encodeHead(head: Head): Uint8Array {
	const writer = new ByteWriter(20 + 8 * head.tokens.length);
	writer.u8(formatVersion).u8(head.tokens.length).u16(0).u64(head.epoch).u64(head.sequence);
	for (const token of head.tokens) writer.u64(token);
	return writer.finish();
}

/** @throws FsError CORRUPT. */
export function decodeHead(bytes: Uint8Array): Head {
	const reader = new ByteReader(bytes, "head record");
	const version = reader.u8();
	if (version !== formatVersion) {
		throw new FsError(
			"CORRUPT",
			"kv.head-version",
			`the shard's head has format ${version}; this version of cairn reads ${formatVersion}: use a newer cairn`,
		);
	}
	const count = reader.u8();
	if (count > kvLimits.headTokens) throw reader.corrupt(`${count} tokens`);
	reader.u16();
	const epoch = reader.u64();
	const sequence = reader.u64();
	const tokens: number[] = [];
	for (let i = 0; i < count; i++) tokens.push(reader.u64());
	reader.end();
	return { epoch, sequence, tokens };
}
