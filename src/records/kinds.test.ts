import assert from "node:assert/strict";
import { test } from "node:test";
import { SeededRandom } from "../../test/support/map-records.ts";
import { isFsError } from "../base/errors.ts";
import type {
	AccessList,
	CareRecord,
	Chunk,
	DurableOpenRecord,
	ExportRecord,
	ExtentBlock,
	Inode,
	NumberRange,
	ProofGroup,
	RecordKind,
	ScrubPass,
	Segment,
	VolumeRecord,
} from "./interface.ts";
import {
	accessListRecord,
	careRecord,
	diskHistoryRecord,
	chunkRecord,
	conversionRecord,
	cookieRecord,
	entryRecord,
	exportRecord,
	extentBlockRecord,
	headKey,
	inodeRecord,
	intentRecord,
	keyName,
	keyNumber,
	keySecondNumber,
	orphanRecord,
	pendingRecord,
	placeMark,
	proofRecord,
	requestRecord,
	segmentRecord,
	durableOpenRecord,
	durableRangesRecord,
	lockClientRecord,
	lockHoldsRecord,
	serviceRecord,
	volumeRecord,
	xattrRecord,
} from "./kinds.ts";

import { segmentsPerProofGroup } from "./limits.ts";

const time = { seconds: -5, nanoseconds: 999_999_999 };

const inode: Inode = {
	ino: 2 ** 52 + 7,
	type: "symlink",
	mode: 0o7777,
	uid: 0xffff_fffe,
	gid: 1000,
	nlink: 3,
	size: 4,
	rdev: 0x801,
	atime: time,
	mtime: { seconds: 2 ** 40, nanoseconds: 1 },
	ctime: { seconds: 0, nanoseconds: 0 },
	btime: time,
	storedBytes: 9,
	dataGeneration: 8,
	change: 6,
	sealedThrough: 7,
	inline: new Uint8Array([1, 2, 0, 255]),
	nextCookie: 12,
	entryCount: 6,
	parent: 5,
	xattrCount: 4,
	xattrNameBytes: 40,
	xattrValueBytes: 400,
	protection: 3,
	protectionFrom: 8,
	flags: 2,
	access: 1,
	birthEpoch: 77,
};
const firstProven = 2 ** 40 * segmentsPerProofGroup;
const proof: ProofGroup = {
	group: 2 ** 40,
	segments: [
		{ segment: firstProven, fragments: [{ index: 0, mark: 0xffff_ffff, provenAt: 0 }] },
		{
			segment: firstProven + segmentsPerProofGroup - 1,
			fragments: [
				{ index: 1, mark: 0, provenAt: 2 ** 40 },
				{ index: 39, mark: 7, provenAt: 1 },
			],
		},
	],
	birthEpoch: 3,
};
const scrubPass: ScrubPass = {
	byHand: true,
	dryRun: false,
	metadataDone: true,
	startedAt: 2 ** 40,
	endedAt: 0,
	after: 3,
	segments: 4,
	fragments: 5,
	bytes: 2 ** 50,
	corrupt: 6,
	missing: 7,
	repaired: 8,
	unrecoverable: 9,
};
const care: CareRecord = {
	schedule: "nightly",
	hour: 23,
	intensity: "high",
	state: "paused",
	pass: scrubPass,
	lastPass: { ...scrubPass, endedAt: 1 },
	metadataProvenAt: 3,
	verifyStartedAt: 2,
	healPaused: true,
	tranquility: 100,
	healing: { startedAt: 4, doneBytes: 2 ** 50 },
	healSpeed: { pieceMicroseconds: 5, mebibyteMicroseconds: 6 },
	balancing: { startedAt: 7, doneBytes: 2 ** 51 },
	balanceSpeed: { pieceMicroseconds: 8, mebibyteMicroseconds: 9 },
	birthEpoch: 1,
};
const durableOpen: DurableOpenRecord = {
	id: 9,
	ino: 17,
	clientGuid: "000102030405060708090a0b0c0d0e0f",
	createGuid: "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
	persistent: true,
	timeoutMs: 60_000,
	uid: 1000,
	gid: 100,
	principal: "user@realm.example",
	read: true,
	write: true,
	append: true,
	sync: true,
	access: 3,
	deny: 6,
	lease: { key: "00000000000000000000000000000001", state: 7, epoch: 3 },
	failed: true,
	since: 1_700_000_000_000,
	birthEpoch: 2,
};
const exported: ExportRecord = {
	id: 2 ** 31,
	folder: "p\xc3\xa9/q",
	clients: ["192.0.2.0/24", "2001:db8::/32"],
	squash: "all",
	anonymousUid: 0xffff_fffe,
	anonymousGid: 7,
	readOnly: true,
	privilegedPorts: true,
	birthEpoch: 2,
};
const accessList: AccessList = {
	ino: 8,
	kind: "posix",
	access: {
		group: 7,
		users: [{ id: 0, bits: 7 }],
		groups: [
			{ id: 5, bits: 0 },
			{ id: 0xffff_fffe, bits: 4 },
		],
	},
	inherited: { owner: 7, group: 5, other: 0, mask: undefined, users: [], groups: [] },
	birthEpoch: 2,
};
const block: ExtentBlock = {
	start: 65536,
	span: 65536,
	birthEpoch: 1,
	extents: [
		{ offset: 65536, length: 10, chunk: 5, chunkOffset: 3 },
		{ offset: 65546, length: 65526, chunk: 2 ** 50, chunkOffset: 0 },
	],
};
const chunk: Chunk = {
	id: 9,
	segment: 4,
	offset: 100,
	length: 4096,
	owner: 2 ** 41 + 7,
	ownerOffset: 65_536,
	references: 2,
	referencedBytes: 8192,
	fingerprint: undefined,
	birthEpoch: 1,
};
const segment: Segment = {
	id: 4,
	dataShards: 4,
	parityShards: 2,
	target: "rs:4+2",
	payloadBytes: 2 ** 21,
	shardBytes: 2 ** 19,
	liveBytes: 5,
	birthEpoch: 1,
	chunks: [
		{ first: 9, count: 1000 },
		{ first: 2 ** 50, count: 1 },
	],
	fragments: [{ index: 5, generation: 1, disk: 2, pack: 3, offset: 8192, headerChecksum: 0xdead_beef }],
};
const volume: VolumeRecord = {
	nextInoCounter: [
		{ group: 0, next: 2 },
		{ group: 4095, next: 2 ** 41 },
	],
	nextChunk: 1,
	nextSegment: 2,
	nextPending: 3,
	epoch: 4,
	protections: [{ id: 1, redundancy: "replicate:3" }],
	reservedBytes: 2 ** 40,
	birthEpoch: 1,
};

interface Sample<Value = unknown> {
	readonly kind: RecordKind<readonly never[], Value>;
	readonly key: string;
	readonly value: Value;
}

function sample<Key extends readonly unknown[], Value>(kind: RecordKind<Key, Value>, value: Value, ...key: Key): Sample {
	return { kind: kind as unknown as RecordKind<readonly never[], unknown>, key: kind.key(...key), value };
}

const samples: readonly Sample[] = [
	sample(inodeRecord, inode, inode.ino),
	sample(inodeRecord, { ...inode, ino: 1, type: "directory", inline: undefined }, 1),
	sample(entryRecord, { ino: 8, type: "file", cookie: 3, birthEpoch: 2 }, 1, "a\xff"),
	sample(cookieRecord, { name: "a\xff", ino: 8, type: "block", birthEpoch: 2 }, 1, 3),
	sample(xattrRecord, { value: new Uint8Array(65536).fill(7), birthEpoch: 2 }, 8, "user.x"),
	sample(extentBlockRecord, block, 8, 65536),
	sample(chunkRecord, chunk, 9),
	sample(chunkRecord, { ...chunk, fingerprint: new Uint8Array(32).fill(3) }, 9),
	sample(segmentRecord, segment, 4),
	sample(orphanRecord, { ino: 8, since: time, linkable: false, birthEpoch: 2 }, 8),
	sample(orphanRecord, { ino: 8, since: time, linkable: true, birthEpoch: 2 }, 8),
	sample(accessListRecord, accessList, 8),
	sample(accessListRecord, { ...accessList, inherited: undefined }, 8),
	sample(accessListRecord, { ...accessList, access: undefined }, 8),
	sample(intentRecord, { id: 6, kind: "truncate", ino: 8, from: 2 ** 43, to: Number.MAX_SAFE_INTEGER, birthEpoch: 2 }, 6),
	sample(conversionRecord, { ino: 8, since: { seconds: 1, nanoseconds: 2 }, birthEpoch: 2 }, 8),
	sample(intentRecord, { id: 6, kind: "zero", ino: 8, from: 1, to: 2, birthEpoch: 2 }, 6),
	sample(requestRecord, { slot: 3, session: 2 ** 52, requestLow: 0xffff_ffff, requestHigh: 7, ino: 8, birthEpoch: 2 }, 3),
	sample(
		pendingRecord,
		{
			ino: 8,
			id: 3,
			pieces: [
				{ offset: 5, bytes: new Uint8Array([9]) },
				{ offset: 2 ** 43, bytes: new Uint8Array([1, 2, 3]) },
			],
			birthEpoch: 2,
		},
		8,
		3,
	),
	sample(proofRecord, proof, 2 ** 40),
	sample(
		diskHistoryRecord,
		{
			disk: 3,
			entries: [
				{ at: 2 ** 40, state: "missing", reason: "not \xc3\xa9" },
				{ at: 0, state: "healthy", reason: "" },
			],
			birthEpoch: 2,
		},
		3,
	),
	sample(exportRecord, exported, exported.id),
	sample(exportRecord, { ...exported, id: 1, folder: "", clients: [], squash: "none", readOnly: false, privilegedPorts: false }, 1),
	sample(serviceRecord, {
		secret: new Uint8Array(16).fill(7),
		nextExport: 9,
		port: 65_535,
		portMapper: "system",
		serverName: "files.example",
		lockState: 7,
		nextLockClient: 3,
		locksExact: true,
		birthEpoch: 3,
	}),
	sample(
		lockClientRecord,
		{ id: 2, name: "client", address: "192.0.2.7", serverAddress: "192.0.2.1", clientState: 3, knownState: 1, birthEpoch: 1 },
		2,
	),
	sample(
		lockHoldsRecord,
		{
			client: 2,
			ino: 17,
			ranges: [{ owner: 9, exclusive: true, start: [0, 4], end: [0xffff_ffff, 0xffff_ffff], since: 1_700_000_000_000 }],
			shares: [{ owner: "a\0b", access: 3, deny: 1 }],
			birthEpoch: 1,
		},
		2,
		17,
	),
	sample(durableOpenRecord, durableOpen, durableOpen.id),
	sample(durableOpenRecord, { ...durableOpen, lease: undefined, principal: "", persistent: false, failed: false, append: false }, 9),
	sample(
		durableRangesRecord,
		{ id: 9, ranges: [{ exclusive: true, start: [0, 4], end: [0xffff_ffff, 0xffff_ffff], since: 1_700_000_000_000 }], birthEpoch: 1 },
		9,
	),
	sample(careRecord, care),
	sample(careRecord, { ...care, state: "idle", pass: undefined, lastPass: undefined, healing: undefined, healSpeed: undefined }),
	sample(volumeRecord, volume),
];

for (const { kind, key, value } of samples) {
	test(`${kind.name}: what is encoded comes back`, () => {
		const bytes = kind.encode(value);
		assert.deepEqual(kind.decode(bytes, key), value);
		assert.equal(String.fromCharCode(bytes[0] as number), kind.tag);
		assert.ok(key.startsWith(kind.tag));
	});

	test(`${kind.name}: decoded values do not share memory with the record`, () => {
		const bytes = kind.encode(value);
		const decoded = kind.decode(bytes, key);
		bytes.fill(0xaa);
		assert.deepEqual(decoded, value);
	});

	test(`${kind.name}: every cut and every longer record is CORRUPT`, () => {
		const bytes = kind.encode(value);
		const step = Math.max(1, Math.floor(bytes.length / 400));
		for (let length = 0; length < bytes.length; length += step) {
			assert.throws(
				() => kind.decode(bytes.subarray(0, length), key),
				(error) => isFsError(error, "CORRUPT"),
				`cut to ${length}`,
			);
		}
		const longer = new Uint8Array(bytes.length + 1);
		longer.set(bytes);
		assert.throws(
			() => kind.decode(longer, key),
			(error) => isFsError(error, "CORRUPT"),
		);
	});

	test(`${kind.name}: a newer version, unknown flags and foreign kinds are refused`, () => {
		const refused = (at: number, byte: number, site: string): void => {
			const bytes = kind.encode(value);
			bytes[at] = byte;
			assert.throws(
				() => kind.decode(bytes, key),
				(error) => isFsError(error, "CORRUPT") && error.site === site,
				`byte ${at}`,
			);
		};
		refused(0, 0x7a, "records.decode");
		refused(1, 0, "records.decode");
		refused(1, 2, "records.newer");
		refused(3, 0x80, "records.newer");
		refused(12, 1, "records.newer");
		refused(20, 1, "records.newer");
	});

	test(`${kind.name}: any bytes give a value that encodes to them, or CORRUPT`, () => fuzz(kind, key, value));
}

function fuzz(kind: Sample["kind"], key: string, value: unknown): void {
	const seed = 20_261_121;
	const random = new SeededRandom(seed);
	const good = kind.encode(value);
	let decoded = 0;
	for (let round = 0; round < 600; round++) {
		const bytes = round % 3 === 0 ? withGoodHead(random, good) : damaged(random, good);
		try {
			const again = kind.encode(kind.decode(bytes, key));
			assert.deepEqual(again, bytes, `seed ${seed}, round ${round}: not canonical`);
			decoded++;
		} catch (error) {
			assert.ok(isFsError(error, "CORRUPT"), `seed ${seed}, round ${round}: ${String(error)}`);
		}
	}
	assert.ok(decoded < 600, "damage must be noticed");
}

function damaged(random: SeededRandom, good: Uint8Array): Uint8Array {
	const bytes = good.slice();
	const count = 1 + random.below(6);
	for (let i = 0; i < count; i++) bytes[random.below(Math.min(bytes.length, 300))] = random.pick([0, 1, 127, 128, 255, random.below(256)]);
	return bytes;
}

function withGoodHead(random: SeededRandom, good: Uint8Array): Uint8Array {
	const bytes = random.bytes(22 + random.below(200));
	bytes.set(good.subarray(0, Math.min(30, good.length, bytes.length)));
	return bytes;
}

test("a record under another's key is refused", () => {
	const wrong: [Sample["kind"], unknown, string][] = [
		[inodeRecord as unknown as Sample["kind"], inode, inodeRecord.key(5)],
		[segmentRecord as unknown as Sample["kind"], segment, segmentRecord.key(5)],
		[chunkRecord as unknown as Sample["kind"], chunk, chunkRecord.key(5)],
		[extentBlockRecord as unknown as Sample["kind"], block, extentBlockRecord.key(8, 0)],
	];
	for (const [kind, value, key] of wrong) assert.throws(() => kind.decode(kind.encode(value), key), /misplaced/);
});

test("a short key cannot make a decoder crash", () => {
	for (const { kind, value } of samples) {
		try {
			kind.decode(kind.encode(value), kind.tag);
		} catch (error) {
			assert.ok(isFsError(error, "CORRUPT"), `${kind.name}: ${String(error)}`);
		}
	}
});

test("keys sort as their parts, tags are distinct, and parts come back", () => {
	assert.equal(new Set(samples.map(({ kind }) => kind.tag)).size, 23);
	const starts = [0, 1, 255, 256, 65536, 2 ** 32, 2 ** 32 + 1, 2 ** 52];
	const keys = starts.map((start) => extentBlockRecord.key(7, start));
	assert.deepEqual([...keys].sort(), keys);
	assert.ok(keys.every((key) => key.startsWith(extentBlockRecord.prefix(7))));
	assert.ok(!keys.some((key) => key.startsWith(extentBlockRecord.prefix(8))));
	assert.deepEqual(keys.map(keySecondNumber), starts);
	assert.equal(keyNumber(entryRecord.key(2 ** 52, "x")), 2 ** 52);
	assert.equal(keyName(entryRecord.key(3, "a\0\xff")), "a\0\xff");
	assert.equal(inodeRecord.prefix(), "i");
	assert.equal(headKey(258), "h\x01\x02");
});

test("encoders refuse what decoders would", () => {
	assert.throws(() => extentBlockRecord.encode({ ...block, span: 3 }), /span/);
	assert.throws(() => extentBlockRecord.encode({ ...block, extents: [...block.extents].reverse() }), /extent/);
	assert.throws(
		() => extentBlockRecord.encode({ ...block, extents: [{ offset: 131_000, length: 100, chunk: 1, chunkOffset: 0 }] }),
		/reach/,
	);
	assert.throws(() => segmentRecord.encode({ ...segment, fragments: [...segment.fragments, ...segment.fragments] }), /twice/);
	const adjoining = { first: 1009, count: 2 };
	assert.throws(() => segmentRecord.encode({ ...segment, chunks: [segment.chunks[0] as NumberRange, adjoining] }), /chunk numbers/);
	assert.throws(() => segmentRecord.encode({ ...segment, chunks: [...segment.chunks].reverse() }), /chunk numbers/);
	assert.throws(() => inodeRecord.encode({ ...inode, mode: 0o10000 }), /mode/);
	assert.throws(() => inodeRecord.encode({ ...inode, inline: new Uint8Array(5000) }), /inline/);
	assert.throws(() => xattrRecord.encode({ value: new Uint8Array(65537), birthEpoch: 1 }), /attribute/);
});

test("proofs name segments of their group and fragments that can be, in order; a mark tells places apart", () => {
	const [first, last] = proof.segments as [ProofGroup["segments"][number], ProofGroup["segments"][number]];
	const refused: [Partial<ProofGroup>, RegExp][] = [
		[{ segments: [] }, /no segment/],
		[{ segments: [last, first] }, /behind/],
		[{ segments: [{ ...first, segment: firstProven - 1 }] }, /behind/],
		[{ segments: [{ ...last, segment: last.segment + 1 }] }, /behind/],
		[{ segments: [{ ...first, fragments: [] }] }, /no fragment/],
		[{ segments: [{ ...last, fragments: [...last.fragments].reverse() }] }, /out of order/],
		[{ segments: [{ ...first, fragments: [{ index: 40, mark: 1, provenAt: 1 }] }] }, /out of order/],
	];
	for (const [change, why] of refused) assert.throws(() => proofRecord.encode({ ...proof, ...change }), why);
	const place = { index: 1, generation: 2, disk: 3, pack: 4, offset: 8192, headerChecksum: 5 };
	const others = Object.entries(place).map(([field, value]) => placeMark({ ...place, [field]: value + 1 }));
	assert.equal(new Set([placeMark(place), ...others]).size, 7);
});

test("care makes sense or is refused", () => {
	const refused: [Partial<CareRecord>, RegExp][] = [
		[{ hour: 24 }, /hour/],
		[{ tranquility: 101 }, /tranquility/],
		[{ pass: undefined }, /without a pass/],
		[{ pass: { ...scrubPass, endedAt: 4 } }, /without a pass/],
		[{ lastPass: scrubPass }, /did not end/],
	];
	for (const [change, why] of refused) assert.throws(() => careRecord.encode({ ...care, ...change }), why);
});

test("a huge count does not allocate", () => {
	const bytes = volumeRecord.encode({ ...volume, nextInoCounter: [], protections: [] });
	new DataView(bytes.buffer).setUint32(22, 0xffff_ffff, true);
	assert.throws(() => volumeRecord.decode(bytes, volumeRecord.key()), /4294967295 inode groups/);
});
