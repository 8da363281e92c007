import assert from "node:assert/strict";
import { test } from "node:test";
import { choices } from "../../../test/conformance/kv.ts";
import { concatBytes } from "../../base/bytes.ts";
import { isFsError } from "../../base/errors.ts";
import { decodeHead, encodeHead } from "../head.ts";
import { localLimits } from "../limits.ts";
import { ByteArena } from "../../codec/binary.ts";
import { crc32c } from "../../codec/checksum.ts";
import { BlockBuilder, parseBlock, writeU32 } from "./block.ts";
import { Bloom, hashBytes, hashKey } from "./bloom.ts";
import { commitRecordBytes, decodeCommit, encodeCommit } from "./commit-record.ts";
import { decodeManifest, encodeManifest, type Manifest } from "./manifest.ts";
import { pickMerge } from "./merge.ts";
import { openRun, pieceIsGood, type Run, RunWriter } from "./run.ts";

const volume = "01234567-89ab-4def-8123-456789abcdef";
const text = (value: string): Uint8Array => new TextEncoder().encode(value);

/** Any bytes give a value or CORRUPT (or REFUSED for a newer format): never another error. */
function survives(seed: number, good: Uint8Array, decode: (bytes: Uint8Array) => unknown): void {
	const choose = choices(seed);
	for (let i = 0; i < 2_000; i++) {
		let bytes = good.slice();
		for (let change = 0; change < 1 + choose(4); change++) bytes[choose(bytes.length)] = choose(256);
		if (choose(3) === 0) bytes = bytes.slice(0, choose(bytes.length));
		if (choose(5) === 0) bytes = Uint8Array.from({ length: choose(300) }, () => choose(256));
		try {
			decode(bytes);
		} catch (error) {
			assert.ok(isFsError(error, "CORRUPT") || isFsError(error, "REFUSED"), `seed ${seed}, round ${i}: ${String(error)}`);
		}
	}
}

test("commit records: there and back, limits of length, any bytes", () => {
	const commit = {
		expect: [],
		puts: [["a\xff", text("1")] as const, ["b", new Uint8Array(0)] as const],
		deletes: ["\x00", "c".repeat(1_000)],
	};
	const bytes =
		commit.puts.reduce((sum, [key, value]) => sum + key.length + value.length, 0) +
		commit.deletes.reduce((sum, key) => sum + key.length, 0);
	const { payload, values } = encodeCommit(commit, commitRecordBytes(commit, bytes), new ByteArena(64));
	assert.deepEqual(decodeCommit(payload, "test"), { puts: commit.puts, deletes: commit.deletes });
	assert.deepEqual(
		values.map((value) => [...value]),
		commit.puts.map(([, value]) => [...value]),
	);
	assert.throws(() => encodeCommit({ expect: [], puts: [["\u0100", text("")]], deletes: [] }, 13, new ByteArena(64)), /byte strings/);
	survives(1, payload, (mutated) => decodeCommit(mutated, "test"));
});

test("heads: there and back, any bytes", () => {
	const head = { epoch: 3, sequence: 2 ** 40, tokens: [2 ** 52, 1, 0] };
	assert.deepEqual(decodeHead(encodeHead(head)), head);
	survives(2, encodeHead(head), decodeHead);
});

const manifest: Manifest = {
	generation: 7,
	incarnation: 2,
	covered: 123_456_789_012,
	nextRunId: 9,
	runs: [
		{ id: 8, level: 0, bytes: 10_000, entries: 100, tombstones: 3, footerChecksum: 0xffff_ffff, firstKey: "", lastKey: "\xff\xff" },
		{ id: 3, level: 2, bytes: 2 ** 41, entries: 10 ** 9, tombstones: 0, footerChecksum: 0, firstKey: "a", lastKey: "z".repeat(1_024) },
	],
};

test("manifests: there and back, of another volume, any bytes", () => {
	const bytes = encodeManifest(manifest, volume);
	assert.deepEqual(decodeManifest(concatBytes([bytes, new Uint8Array(100)]), volume, "test"), manifest);
	assert.throws(() => decodeManifest(bytes, volume.replace("0", "f"), "test"), /another volume/);
	survives(3, bytes, (mutated) => decodeManifest(mutated, volume, "test"));
});

test("manifests: damage of any bit is damage, and no newer format; a newer format is refused", () => {
	const bytes = encodeManifest(manifest, volume);
	for (let bit = 0; bit < 8 * bytes.length; bit++) {
		const damaged = bytes.slice();
		damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7));
		assert.throws(
			() => decodeManifest(damaged, volume, "test"),
			(error) => isFsError(error, "CORRUPT"),
			`bit ${bit}`,
		);
	}
	const newer = bytes.slice();
	newer[8] = 2;
	newer.fill(0, 16, 20);
	writeU32(newer, 16, crc32c(newer));
	assert.throws(
		() => decodeManifest(newer, volume, "test"),
		(error) => isFsError(error, "REFUSED") && error.site === "kv.manifest-newer",
	);
});

test("a full manifest fits into its slot", () => {
	const run = { ...manifest.runs[1], firstKey: "y".repeat(1_024) } as Manifest["runs"][0];
	const full = { ...manifest, runs: Array.from({ length: localLimits.maximumRuns + localLimits.mergeWidth }, () => run) };
	assert.ok(encodeManifest(full, volume).length <= localLimits.manifestSlotBytes);
});

test("blocks: order, search, any bytes", () => {
	const builder = new BlockBuilder(64);
	const keys = ["", "a", "aa", "b", "\x80", "\xff", "\xff\xff"];
	for (const [i, key] of keys.entries()) builder.add(key, i === 3 ? null : text(key), 2 ** 40 + i);
	const bytes = builder.take();
	const block = parseBlock(bytes, "test");
	assert.equal(block.count, keys.length);
	for (const [i, key] of keys.entries()) {
		assert.equal(block.lowerBound(key), i);
		assert.equal(block.lowerBound(`${key}\x00`), i + 1);
		assert.equal(block.key(i), key);
		assert.equal(block.versioned(i)?.version, i === 3 ? undefined : 2 ** 40 + i);
	}
	survives(4, bytes, (mutated) => {
		const parsed = parseBlock(mutated, "test");
		for (let i = 0; i < parsed.count; i++) assert.ok(parsed.value(i).length <= mutated.length && parsed.key(i).length <= mutated.length);
	});
});

test("bloom filters: no false negatives, few false positives, the same for strings and bytes", () => {
	const bloom = Bloom.forKeys(10_000, 10, 1 << 20);
	for (let i = 0; i < 10_000; i++) bloom.add(hashKey(`key ${i}`));
	let wrong = 0;
	for (let i = 0; i < 10_000; i++) {
		assert.ok(bloom.mayHold(hashKey(`key ${i}`)));
		if (bloom.mayHold(hashKey(`other ${i}`))) wrong++;
	}
	assert.ok(wrong < 250, `${wrong} of 10000 false positives`);
	for (const key of ["", "a", "\x00\xff", "long ".repeat(100)]) {
		assert.deepEqual(
			hashBytes(
				Uint8Array.from(`x${key}`, (char) => char.charCodeAt(0)),
				1,
				key.length,
			),
			hashKey(key),
		);
	}
});

async function writeRun(entries: readonly (readonly [string, Uint8Array | null])[], id = 1): Promise<{ run: Run; bytes: Uint8Array }> {
	const parts: Uint8Array[] = [];
	const limits = { ...localLimits, blockBytes: 256 };
	const writer = new RunWriter({ id, level: 0, volume, expectedEntries: entries.length }, limits, {
		async write(_offset, more) {
			parts.push(...more);
		},
	});
	for (const [i, [key, value]] of entries.entries()) writer.add(key, value, i + 1);
	const run = await writer.finish();
	return { run, bytes: concatBytes(parts) };
}

test("runs: every byte belongs to a piece, and a change of any byte is found", async () => {
	const entries = Array.from(
		{ length: 60 },
		(_, i) => [`key${String(i).padStart(3, "0")}`, i % 7 === 0 ? null : text("v".repeat(i))] as const,
	);
	const { run, bytes } = await writeRun(entries);
	assert.equal(run.info.bytes, bytes.length);
	assert.deepEqual([run.info.firstKey, run.info.lastKey, run.info.tombstones], ["key000", "key059", 9]);
	const read = async (piece: { offset: number; length: number }): Promise<Uint8Array> =>
		bytes.subarray(piece.offset, piece.offset + piece.length);
	const again = await openRun(run.info, volume, read);
	assert.deepEqual([...again.pieces()], [...run.pieces()]);
	let end = 0;
	for (const piece of run.pieces()) {
		assert.equal(piece.offset, end);
		end += piece.length;
		for (let at = 0; at < piece.length; at++) {
			const part = bytes.slice(piece.offset, piece.offset + piece.length);
			assert.ok(pieceIsGood(piece, part));
			part[at] = (part[at] as number) ^ 0x40;
			assert.ok(!pieceIsGood(piece, part), `byte ${piece.offset + at}`);
		}
	}
	assert.equal(end, bytes.length);
});

test("runs: the same bytes of another run are not believed", async () => {
	const one = await writeRun([["a", text("1")]], 1);
	const other = await writeRun([["a", text("2")]], 2);
	const pieces = [...one.run.pieces()];
	for (const piece of pieces.slice(0, 2)) assert.ok(!pieceIsGood(piece, other.bytes.subarray(piece.offset, piece.offset + piece.length)));
});

test("merges are picked so that few runs are left and sizes grow geometrically", () => {
	const fake = (bytes: number): Run => ({ info: { bytes } }) as unknown as Run;
	const pick = (...sizes: number[]): number[] | undefined => pickMerge(sizes.map(fake), localLimits)?.map((run) => run.info.bytes);
	assert.equal(pick(10, 10, 10), undefined);
	assert.deepEqual(pick(10, 10, 10, 10), [10, 10, 10, 10]);
	assert.deepEqual(pick(10, 10, 10, 10, 1_000), [10, 10, 10, 10]);
	assert.equal(pick(10, 10, 1_000, 2_000, 9_000), undefined);
	assert.deepEqual(pick(1, 5, 30, 200, 1_500, 9_000, 60_000, 500_000, 9_000_000), [1, 5]);
});
