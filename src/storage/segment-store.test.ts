import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { equalBytes } from "../base/bytes.ts";
import type { Segment } from "../records/interface.ts";
import { fragmentLength, headerLength } from "./fragment.ts";
import type { Redundancy } from "./interface.ts";
import { codeOf, Lab, packFile, payloadOf, states } from "./store.test-support.ts";

const rs42: Redundancy = { dataShards: 4, parityShards: 2 };
const replicas3: Redundancy = { dataShards: 1, parityShards: 2 };

function sameBytes(actual: Uint8Array, expected: Uint8Array, what: string): void {
	assert.ok(equalBytes(actual, expected), `${what}: the bytes differ`);
}

function shapeText(segment: Segment): string {
	return `${segment.dataShards}+${segment.parityShards}`;
}

/** All subsets of 0 … n − 1 with at most `most` members. */
function subsets(n: number, most: number): number[][] {
	let all: number[][] = [[]];
	for (let i = 0; i < n; i++) all = [...all, ...all.filter((set) => set.length < most).map((set) => [...set, i])];
	return all;
}

describe("segment store: shards made elsewhere", () => {
	for (const coder of ["none", "well", 1, 17] as const) {
		it(`many large segments at once, written and rebuilt in memory that is used again, coder: ${coder}`, async () => {
			const lab = new Lab({ disks: 8, coder, store: { cacheBytes: 0 } });
			await lab.run(async () => {
				const store = await lab.boot();
				const payload = (id: number) => payloadOf(id % 5 === 4 ? 3000 * id : 300_000 + 777 * id, id);
				const written: Segment[] = [];
				for (let round = 0; round < 3; round++) {
					const ids = Array.from({ length: 12 }, (_, i) => 1 + 12 * round + i);
					// Its memory belongs to somebody else as soon as the write has resolved.
					const one = async (id: number): Promise<Segment> => {
						const shared = new Uint8Array(new SharedArrayBuffer(payload(id).length));
						shared.set(payload(id));
						const segment = await store.write(id, shared, id % 4 === 0 ? replicas3 : rs42, 1);
						shared.fill(0xff);
						return segment;
					};
					written.push(...(await Promise.all(ids.map(one))));
				}
				const health = await Promise.all(written.map((segment) => store.check(segment)));
				for (const one of health) assert.match(states(one), /^o+$/, `segment ${one.segment.id}`);
				const lost = written[0]?.fragments[1]?.disk as number;
				lab.disks.setState(lost, "failed");
				const rebuilt = await Promise.all(
					written
						.filter(({ fragments }) => fragments.some(({ disk }) => disk === lost))
						.map((segment) => store.rebuild(store.assess(segment))),
				);
				assert.ok(rebuilt.length > 10 && rebuilt.every((one) => one !== undefined));
				for (const segment of written) {
					const now = rebuilt.find((one) => one?.segment.id === segment.id)?.segment ?? segment;
					assert.match(states(await store.check(now)), /^o+$/, `segment ${segment.id} after its rebuild`);
					sameBytes(await store.read(now, 0, now.payloadBytes), payload(now.id), `segment ${now.id}`);
				}
			});
		});
	}
});

describe("segment store: reading", () => {
	it("finds any wrong block of reads that the disk's thread has summed, and reads on from others", async () => {
		const lab = new Lab({ store: { cacheBytes: 0 } });
		await lab.run(async () => {
			let store = await lab.boot();
			const payload = payloadOf(1_250_000, 1);
			const blocks = Math.ceil(payload.length / 4 / 4096);
			for (const [at, [block, whole]] of (
				[
					[0, true],
					[40, true],
					[blocks - 1, true],
					[blocks - 1, false],
				] as const
			).entries()) {
				const segment = await store.write(10 + at, payload, rs42, 1);
				const head = headerLength(segment.shardBytes);
				assert.equal(segment.shardBytes, blocks * 4096);
				lab.damage(segment, 1, head + block * 4096 + (whole ? 7 : 4095), whole ? 4000 : 1);
				store = await lab.restart([segment]);
				sameBytes(await store.read(segment, 0, payload.length), payload, `block ${block} is wrong`);
				assert.equal(store.counters.corruptFragments, 1);
				assert.equal(states(await store.check(segment)), "ocoooo");
				await store.release(segment.fragments, segment);
			}
		});
	});

	it("gives back every range of what was written, from memory and from disk", async () => {
		const lab = new Lab();
		await lab.run(async () => {
			const store = await lab.boot();
			const payload = payloadOf(700_001, 1);
			const segment = await store.write(7, payload, rs42, 3);
			assert.deepEqual([segment.id, shapeText(segment), segment.target, segment.birthEpoch, segment.liveBytes], [7, "4+2", "rs:4+2", 3, 0]);
			assert.equal(new Set(segment.fragments.map((place) => place.disk)).size, 6);
			const shard = segment.shardBytes;
			const spots = [0, 1, 4095, 4096, 65_535, 65_537, shard - 1, shard, 2 * shard + 5, 3 * shard + 4095, 700_000];
			for (const from of spots) {
				for (const length of [0, 1, 4096, 70_000, shard + 3, 700_001]) {
					const n = Math.min(length, 700_001 - from);
					sameBytes(await store.read(segment, from, n), payload.subarray(from, from + n), `[${from}, +${n})`);
				}
			}
			assert.equal(store.counters.degradedReads, 0);
			assert.equal(store.counters.fragmentsWritten, 6);
			assert.equal(states(await store.check(segment)), "oooooo");
			assert.equal(store.assess(segment).full, true);
		});
	});

	it("reads through every pattern of two lost fragments of 4+2, and through none of three", async () => {
		const lab = new Lab({ store: { cacheBytes: 0 } });
		await lab.run(async () => {
			let store = await lab.boot();
			const payload = payloadOf(90_000, 2);
			const segment = await store.write(1, payload, rs42, 1);
			for (const lost of subsets(6, 3)) {
				store = await lab.restart([segment]);
				for (const index of lost) lab.disks.setState(segment.fragments[index]?.disk as number, "missing");
				if (lost.length <= 2) {
					sameBytes(await store.read(segment, 0, payload.length), payload, `without ${lost}`);
					const dataLost = lost.some((index) => index < 4);
					assert.equal(store.counters.degradedReads > 0, dataLost, `degraded reads without ${lost}`);
					assert.deepEqual(store.takeDamaged(), dataLost ? [1] : []);
				} else {
					const code = await codeOf(store.read(segment, 0, payload.length));
					assert.equal(code, lost.some((index) => index < 4) ? "EIO storage.lost" : "no error", `without ${lost}`);
				}
				for (const place of segment.fragments) lab.disks.setState(place.disk, "healthy");
			}
		});
	});

	it("beyond recovery, gives all blocks but those that are lost, whatever lies beside them", async () => {
		const lab = new Lab();
		await lab.run(async () => {
			let store = await lab.boot();
			const payload = payloadOf(4 * 131_072, 4);
			const segment = await store.write(1, payload, rs42, 1);
			store = await lab.restart([segment]);
			for (const index of [1, 2]) lab.disks.setState(segment.fragments[index]?.disk as number, "missing");
			const badBlock = 5;
			lab.damage(segment, 0, headerLength(segment.shardBytes) + badBlock * 4096 + 77);
			const lost: number[] = [];
			for (let from = 0; from < payload.length; from += 4096) {
				const read = store.read(segment, from, 4096);
				if ((await codeOf(read)) === "no error") sameBytes(await read, payload.subarray(from, from + 4096), `[${from}, +4096)`);
				else lost.push(from);
			}
			assert.deepEqual(
				lost,
				[0, 1, 2].map((index) => index * segment.shardBytes + badBlock * 4096),
			);
			assert.equal(await codeOf(store.read(segment, 0, 65_536)), "EIO storage.lost");
			sameBytes(await store.read(segment, 6 * 4096, 70_000), payload.subarray(6 * 4096, 6 * 4096 + 70_000), "behind it");
		});
	});

	it("gives all of a segment of which more shards are damaged than may be lost, but each block of fewer", async () => {
		const lab = new Lab({ store: { cacheBytes: 0 } });
		await lab.run(async () => {
			let store = await lab.boot();
			const payload = payloadOf(4 * 131_072, 8);
			const segment = await store.write(1, payload, rs42, 1);
			store = await lab.restart([segment]);
			const blockAt = (index: number): number => headerLength(segment.shardBytes) + (3 + 2 * index) * 4096 + 77;
			for (const index of [0, 1, 2, 4]) lab.damage(segment, index, blockAt(index));
			assert.equal((await store.check(segment)).lost, true);
			for (const [offset, length] of [
				[0, payload.length],
				[4096, 100_000],
				[100, 131_072],
			] as const) {
				sameBytes(await store.read(segment, offset, length), payload.subarray(offset, offset + length), `[${offset}, +${length})`);
			}
			assert.equal(await store.isOnDisk(segment, 0, payload.length), true);
			lab.damage(segment, 5, blockAt(0));
			lab.damage(segment, 3, blockAt(0));
			assert.equal(await store.isOnDisk(segment, 0, payload.length), false);
			assert.equal(await codeOf(store.read(segment, 0, payload.length)), "EIO storage.lost");
		});
	});

	it("needs no header of what it has written itself, and still believes no block that is not right", async () => {
		const lab = new Lab({ store: { cacheBytes: 0 } });
		await lab.run(async () => {
			let store = await lab.boot();
			const payload = payloadOf(4 * 131_072, 9);
			const segment = await store.write(1, payload, rs42, 1);
			lab.damage(segment, 0, 100);
			lab.damage(segment, 1, headerLength(segment.shardBytes) + 4096 + 5);
			sameBytes(await store.read(segment, 0, 131_072), payload.subarray(0, 131_072), "without its header");
			assert.equal(store.counters.degradedReads, 0);
			sameBytes(await store.read(segment, 131_072, 131_072), payload.subarray(131_072, 262_144), "with a damaged block");
			assert.ok(store.counters.degradedReads > 0);
			assert.equal(states(await store.check(segment)), "ccoooo", "a check reads headers");
			store = await lab.restart([segment]);
			sameBytes(await store.read(segment, 0, 131_072), payload.subarray(0, 131_072), "of another process");
			assert.ok(store.counters.degradedReads > 0);
		});
	});

	it("says which segment is lost and what is missing of it", async () => {
		const lab = new Lab();
		await lab.run(async () => {
			const store = await lab.boot();
			const segment = await store.write(41, payloadOf(100_000, 3), rs42, 1);
			for (const index of [0, 2, 4]) lab.disks.setState(segment.fragments[index]?.disk as number, "missing");
			await assert.rejects(
				store.read(segment, 0, 10),
				/segment 41 .* 4 of its 6 .*fragment 0 is on d\d.*fragment 2 is on d\d.*fragment 4 is on d\d/,
			);
		});
	});

	const places: { readonly name: string; readonly at: (segment: Segment) => number }[] = [
		{ name: "magic", at: () => 0 },
		{ name: "identity", at: () => 33 },
		{ name: "table", at: () => 64 },
		{ name: "table's end", at: (segment) => headerLength(segment.shardBytes) - 1 },
		{ name: "payload's first byte", at: (segment) => headerLength(segment.shardBytes) },
		{ name: "payload's last byte", at: (segment) => fragmentLength(segment.shardBytes) - 1 },
	];
	for (const target of [rs42, replicas3]) {
		for (const { name, at } of places) {
			it(`finds a damaged byte in the ${name} of a ${target.dataShards}+${target.parityShards}`, async () => {
				const lab = new Lab();
				await lab.run(async () => {
					let store = await lab.boot();
					const payload = payloadOf(8 * 4096 * target.dataShards, 4);
					const segment = await store.write(5, payload, target, 1);
					store = await lab.restart([segment]);
					for (const place of segment.fragments) if (place.index < target.parityShards) lab.damage(segment, place.index, at(segment));
					sameBytes(await store.read(segment, 0, payload.length), payload, "decoded");
					if (target.dataShards > 1) {
						assert.equal(store.counters.corruptFragments, 2);
						assert.equal(store.counters.degradedReads > 0, true);
						assert.deepEqual(store.takeDamaged(), [5]);
						assert.deepEqual(
							lab.disks.reports.map((report) => report.during),
							["corrupt", "corrupt"],
						);
						assert.equal(states(store.assess(segment)), "ccoooo");
					}
					const health = await store.check(segment);
					assert.equal(states(health), target.dataShards > 1 ? "ccoooo" : "cco");
					assert.equal(health.full, false);
					// Found again by check and by read, counted once.
					assert.equal(store.counters.corruptFragments, 2);
				});
			});
		}
	}

	it("takes other fragments' bytes for damage: swapped fragments, an older generation, another volume", async () => {
		const lab = new Lab();
		await lab.run(async () => {
			let store = await lab.boot();
			const payload = payloadOf(16 * 4096, 5);
			const first = await store.write(1, payload, rs42, 1);
			const second = await store.write(2, payloadOf(16 * 4096, 6), rs42, 1);
			store = await lab.restart([first, second]);
			const disk = first.fragments[0]?.disk as number;
			const other = second.fragments.find((place) => place.disk === disk) as Segment["fragments"][number];
			await swap(lab, first.fragments[0] as Segment["fragments"][number], other, fragmentLength(first.shardBytes));
			sameBytes(await store.read(first, 0, payload.length), payload, "swapped");
			assert.equal(store.counters.corruptFragments, 1);
			const renewed = { ...first, fragments: first.fragments.map((place) => (place.index === 1 ? { ...place, generation: 2 } : place)) };
			assert.equal(states(await store.check(renewed)), "ccoooo", "generation 1 where 2 is meant");
			await store.close();
			lab.node.kill();
			const foreign = await lab.boot([first, second], [], "ffffffff-4455-6677-8899-aabbccddeeff");
			assert.equal(states(await foreign.check(first)), "cccccc", "fragments of another volume");
		});
	});

	it("takes an older payload of the same number for damage", async () => {
		const lab = new Lab();
		await lab.run(async () => {
			const first = await (await lab.boot()).write(1, payloadOf(16 * 4096 + 9, 5), rs42, 1);
			const length = fragmentLength(first.shardBytes);
			const old = first.fragments[0] as Segment["fragments"][number];
			const file = await lab.disks.writable(old.disk)?.open(packFile(old.pack));
			const stale = (await file?.read(old.offset, length)) as Uint8Array;
			lab.node.kill();
			const payload = payloadOf(16 * 4096 + 9, 6);
			const second = await (await lab.boot()).write(1, payload, rs42, 1);
			const place = second.fragments[0] as Segment["fragments"][number];
			assert.deepEqual([place.disk, place.generation], [old.disk, old.generation]);
			await (await lab.disks.writable(place.disk)?.open(packFile(place.pack)))?.write(place.offset, [stale]);
			assert.equal(states(await lab.store.check(second)), "cooooo");
			sameBytes(await lab.store.read(second, 0, payload.length), payload, "decoded");
		});
	});

	it("keeps no part of a window for all of it when the last shard is short", async () => {
		const lab = new Lab();
		await lab.run(async () => {
			const store = await lab.boot();
			const payload = payloadOf(4 * 17 * 4096 - 12_000, 3);
			const segment = await store.write(1, payload, { dataShards: 4, parityShards: 2 }, 1);
			const tail = 3 * segment.shardBytes;
			assert.ok(payload.length > tail && payload.length - tail < 65_536, `the last shard holds ${payload.length - tail} bytes`);
			lab.disks.setState(segment.fragments[3]?.disk as number, "missing");
			sameBytes(await store.read(segment, tail, payload.length - tail), payload.subarray(tail), "tail");
			sameBytes(await store.read(segment, 0, payload.length), payload, "all");
		});
	});

	it("answers from other shards while a disk hangs, and reports the disk when its deadline is over", async () => {
		const lab = new Lab();
		await lab.run(async () => {
			let store = await lab.boot();
			const payload = payloadOf(64 * 4096, 7);
			const segments = [await store.write(1, payload, rs42, 1), await store.write(2, payload, replicas3, 1)];
			store = await lab.restart(segments);
			lab.world.hang("/d1");
			const before = lab.world.nowMs;
			for (const segment of segments) sameBytes(await store.read(segment, 0, payload.length), payload, `segment ${segment.id}`);
			assert.ok(lab.world.nowMs - before < 1000, `hedged reads took ${lab.world.nowMs - before} ms`);
			assert.equal(lab.disks.slot(1)?.state, "healthy");
			await lab.world.sleep(11_000);
			assert.equal(lab.disks.slot(1)?.state, "failed");
			assert.ok(
				lab.disks.reports.every((report) => report.during === "timeout"),
				JSON.stringify(lab.disks.reports),
			);
		});
	});

	it("does not ask a disk that hangs a second time while others can answer", async () => {
		const lab = new Lab({ store: { cacheBytes: 0 } });
		await lab.run(async () => {
			const store = await lab.boot();
			const payload = payloadOf(64 * 4096, 8);
			const segment = await store.write(1, payload, rs42, 1);
			const copies = await store.write(2, payload, replicas3, 1);
			lab.world.hang(`/d${segment.fragments[0]?.disk}`);
			await store.read(segment, 0, 4096);
			const before = lab.world.nowMs;
			for (let i = 0; i < 20; i++) await Promise.all([store.read(segment, 0, 4096), store.read(copies, 0, 4096)]);
			assert.ok(lab.world.nowMs - before < 200, `20 reads took ${lab.world.nowMs - before} ms`);
		});
	});

	it("keeps what it verified: a second read and its neighbours need no disk", async () => {
		const lab = new Lab();
		await lab.run(async () => {
			const store = await lab.boot();
			const payload = payloadOf(64 * 4096, 9);
			const segment = await store.write(1, payload, rs42, 1);
			await Promise.all([store.read(segment, 0, 100), store.read(segment, 8192, 100), store.read(segment, 60_000, 4096)]);
			assert.equal(store.counters.fragmentsRead, 1);
			await store.read(segment, 30_000, 2000);
			assert.equal(store.counters.fragmentsRead, 1);
		});
	});

	it("random reads fetch what is asked for, verified, from any shard, and take what is in memory", async () => {
		const lab = new Lab();
		await lab.run(async () => {
			const store = await lab.boot();
			const payload = payloadOf(2_000_000, 9);
			const segment = await store.write(1, payload, rs42, 1);
			const random = async (offset: number, length: number, what: string): Promise<void> => {
				const into = new Uint8Array(length).fill(0xee);
				await store.readInto(segment, offset, into, "random");
				sameBytes(into, payload.subarray(offset, offset + length), what);
			};
			for (let i = 0; i < 60; i++) await random((i * 654_321) % 1_990_000, 1 + ((i * 777) % 9000), `read ${i}`);
			await random(payload.length - 10, 10, "the end");
			await random(0, payload.length, "all of it");
			const before = store.counters.fragmentsRead;
			await random(500_000, 5000, "in memory");
			assert.equal(store.counters.fragmentsRead, before);
			lab.disks.setState(segment.fragments[1]?.disk as number, "failed");
			lab.damage(segment, 0, 4096 + 8192);
			const again = await lab.boot([segment]);
			const into = new Uint8Array(600_000);
			for (let at = 0; at < into.length; at += 6000) await again.readInto(segment, at, into.subarray(at, at + 6000), "random");
			sameBytes(into, payload.subarray(0, into.length), "decoded and damaged");
		});
	});

	it("notices a pack that is gone, and a disk that is gone", async () => {
		const lab = new Lab();
		await lab.run(async () => {
			let store = await lab.boot();
			const payload = payloadOf(32 * 4096, 10);
			const segment = await store.write(1, payload, rs42, 1);
			store = await lab.restart([segment]);
			await lab.disks.writable(2)?.remove(packFile(1));
			lab.world.vanish("/d3", { unlinked: true });
			sameBytes(await store.read(segment, 0, payload.length), payload, "decoded");
			const health = await store.check(segment);
			const state = (disk: number) => health.fragments[segment.fragments.find((place) => place.disk === disk)?.index as number]?.state;
			assert.deepEqual(
				[state(2), state(3), lab.disks.slot(2)?.state, lab.disks.slot(3)?.state],
				["corrupt", "missing", "healthy", "failed"],
			);
		});
	});
});

async function swap(lab: Lab, a: Segment["fragments"][number], b: Segment["fragments"][number], length: number): Promise<void> {
	const disk = lab.disks.writable(a.disk);
	const fileA = await disk?.open(packFile(a.pack));
	const fileB = await disk?.open(packFile(b.pack));
	const bytesA = (await fileA?.read(a.offset, length)) as Uint8Array;
	const bytesB = (await fileB?.read(b.offset, length)) as Uint8Array;
	await fileA?.write(a.offset, [bytesB]);
	await fileB?.write(b.offset, [bytesA]);
}

describe("segment store: writing", () => {
	it("uses the best shape that the disks allow, replicas for small payloads, one fragment per domain", async () => {
		const big = payloadOf(100_000, 1);
		const small = payloadOf(16_384, 2);
		const expected: Record<number, [string, string]> = {
			7: ["4+2", "1+2"],
			6: ["4+2", "1+2"],
			5: ["3+2", "1+2"],
			4: ["2+2", "1+2"],
			3: ["1+2", "1+2"],
			2: ["1+1", "1+1"],
			1: ["1+0", "1+0"],
		};
		for (const [disks, shapes] of Object.entries(expected)) {
			const lab = new Lab({ disks: Number(disks) });
			await lab.run(async () => {
				const store = await lab.boot();
				const first = await store.write(1, big, rs42, 1);
				const second = await store.write(2, small, rs42, 1);
				assert.deepEqual([shapeText(first), shapeText(second)], shapes, `${disks} disks`);
				assert.deepEqual([store.assess(first).full, store.assess(second).full], [Number(disks) >= 6, Number(disks) >= 3]);
				sameBytes(await store.read(first, 0, big.length), big, "big");
				sameBytes(await store.read(second, 0, small.length), small, "small");
			});
		}
		const shared = new Lab({ disks: 6, domains: ["a", "a", "a", "b", "b", "c"] });
		await shared.run(async () => {
			const segment = await (await shared.boot()).write(1, big, rs42, 1);
			assert.equal(shapeText(segment), "1+2");
		});
		const allowed = new Lab({ disks: 6, domains: ["a", "a", "a", "b", "b", "c"], sameDevice: true });
		await allowed.run(async () => {
			const segment = await (await allowed.boot()).write(1, big, rs42, 1);
			assert.equal(shapeText(segment), "4+2");
		});
	});

	it("refuses when no disk can be written", async () => {
		const lab = new Lab({ disks: 2 });
		await lab.run(async () => {
			const store = await lab.boot();
			lab.disks.setState(1, "failed");
			lab.disks.setState(2, "suspect");
			assert.equal(await codeOf(store.write(1, payloadOf(10, 1), rs42, 1)), "EIO storage.no-disks");
		});
	});

	for (const how of ["fail write", "fail sync", "fail names", "hang", "vanish", "unlink"] as const) {
		it(`places a segment anew when a disk fails: ${how}`, async () => {
			const lab = new Lab({ disks: 7 });
			await lab.run(async () => {
				const store = await lab.boot();
				if (how === "fail write") lab.world.fail("/d2", ["write"], "EIO", 1);
				if (how === "fail sync") lab.world.failNextSync("/d2");
				if (how === "fail names") lab.world.fail("/d2", ["syncNames"], "EIO", 1);
				if (how === "hang") lab.world.hang("/d2");
				if (how === "vanish") lab.world.vanish("/d2");
				if (how === "unlink") lab.world.vanish("/d2", { unlinked: true });
				const payload = payloadOf(300_000, 3);
				const written = await Promise.all([1, 2, 3, 4].map((id) => store.write(id, payload, rs42, 1)));
				assert.equal(lab.disks.slot(2)?.state, "failed");
				for (const segment of written) {
					assert.equal(shapeText(segment), "4+2");
					assert.ok(segment.fragments.every((place) => place.disk !== 2));
					assert.equal(states(await store.check(segment)), "oooooo");
				}
				const used = store
					.space()
					.disks.filter((disk) => disk.id !== 2)
					.reduce((sum, disk) => sum + disk.usedBytes, 0);
				assert.equal(used, 4 * 6 * fragmentLength(77_824), "failed attempts gave their space back");
			});
		});
	}

	it("syncs once for segments that are written at the same time", async () => {
		const lab = new Lab();
		await lab.run(async () => {
			const store = await lab.boot();
			await Promise.all(Array.from({ length: 12 }, (_, i) => store.write(i + 1, payloadOf(20_000, i), rs42, 1)));
			const { sync, syncNames } = lab.world.disk("/d1").counts;
			assert.ok(sync <= 6, `${sync} syncs for 12 fragments`);
			assert.equal(syncNames, 1);
		});
	});
});

describe("segment store: space", () => {
	it("says ENOSPC when the shape does not fit, and takes data again after a release", async () => {
		const lab = new Lab({ disks: 6, capacityBytes: 8 * 1024 * 1024 });
		await lab.run(async () => {
			const store = await lab.boot();
			const written: Segment[] = [];
			let code = "";
			while (code === "") {
				const outcome = await store
					.write(written.length + 1, payloadOf(1_000_000, written.length), rs42, 1)
					.catch((error: { code: string }) => error.code);
				if (typeof outcome === "string") code = outcome;
				else written.push(outcome);
			}
			assert.equal(code, "ENOSPC");
			assert.ok(written.length >= 30, `${written.length} segments of 6 × 249,856 bytes on 6 × 8 MiB`);
			assert.ok(
				written.every((segment) => shapeText(segment) === "4+2"),
				"never fewer fragments for want of space",
			);
			assert.equal(lab.disks.reports.length, 0, "a full disk is not a broken one");
			const full = store.space();
			assert.ok(full.freeBytes < 1_100_000, `${full.freeBytes} free`);
			for (const segment of written.splice(0, 10)) await store.release(segment.fragments, segment);
			assert.ok(store.space().freeBytes >= 9_000_000, `${store.space().freeBytes} free after the release`);
			for (let i = 0; i < 9; i++) await store.write(100 + i, payloadOf(1_000_000, i), rs42, 1);
			for (const segment of written) assert.equal(states(await store.check(segment)), "oooooo");
		});
	});

	it("goes round a disk that says ENOSPC, and keeps the shape", async () => {
		const lab = new Lab({ disks: 7 });
		await lab.run(async () => {
			const store = await lab.boot();
			lab.world.full("/d3");
			const segment = await store.write(1, payloadOf(100_000, 1), rs42, 1);
			assert.equal(shapeText(segment), "4+2");
			assert.ok(segment.fragments.every((place) => place.disk !== 3));
			lab.world.full("/d4");
			assert.equal(await codeOf(store.write(2, payloadOf(100_000, 1), rs42, 1)), "ENOSPC storage.full");
			lab.world.full("/d3", false);
			await store.refreshSpace();
			assert.equal(shapeText(await store.write(3, payloadOf(100_000, 1), rs42, 1)), "4+2");
		});
	});

	// Of many disks, a small segment asks a few at a time.
	for (const [disks, bytes] of [
		[6, 100_000],
		[30, 10],
	] as const) {
		it(`says ENOSPC, not EIO, when all ${disks} disks refuse with room left, and goes on when they take data again`, async () => {
			const lab = new Lab({ disks });
			await lab.run(async () => {
				const store = await lab.boot();
				for (let disk = 1; disk <= disks; disk++) lab.world.disk(`/d${disk}`).starve((name) => name.startsWith("pack/"));
				assert.match(await codeOf(store.write(1, payloadOf(bytes, 1), rs42, 1)), /^ENOSPC /);
				for (let disk = 1; disk <= disks; disk++) lab.world.disk(`/d${disk}`).starve(undefined);
				await store.refreshSpace();
				assert.match(shapeText(await store.write(2, payloadOf(bytes, 1), rs42, 1)), /^[14]\+2$/);
			});
		});
	}

	for (const call of ["sync", "syncNames"] as const) {
		it(`goes on with a disk on which a ${call} found no space once`, async () => {
			const lab = new Lab({ disks: 6 });
			await lab.run(async () => {
				const store = await lab.boot();
				lab.world.fail("/d3", [call], "ENOSPC", 1);
				const first = await Promise.allSettled([1, 2, 3].map((id) => store.write(id, payloadOf(100_000, id), rs42, 1)));
				const written = first.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
				await store.refreshSpace();
				for (let id = 10; id < 20; id++) written.push(await store.write(id, payloadOf(100_000, id), rs42, 1));
				assert.equal(lab.disks.slot(3)?.state, "healthy");
				for (const segment of written) assert.equal(states(await store.check(segment)), "oooooo");
				lab.node.powerCut();
				const again = await lab.boot(written);
				for (const segment of written)
					assert.equal(states(await again.check(segment)), "oooooo", `segment ${segment.id} after a power cut`);
				const used = again.space().disks.find((disk) => disk.id === 3)?.usedBytes;
				assert.equal(used, written.length * fragmentLength(28_672), "failed attempts gave their space back");
			});
		});
	}

	it("keeps the reserve free and adds up", async () => {
		const lab = new Lab({ disks: 6, capacityBytes: 64 * 1024 * 1024 });
		await lab.run(async () => {
			const store = await lab.boot();
			const empty = store.space();
			assert.equal(empty.usedBytes, 0);
			assert.equal(empty.capacityBytes, empty.freeBytes);
			const raw = 6 * 64 * 1024 * 1024;
			assert.ok(empty.freeBytes > (raw * 4) / 6 - 3_000_000 && empty.freeBytes < (raw * 4) / 6, `${empty.freeBytes} of ${raw}`);
			for (let i = 1; i <= 10; i++) await store.write(i, payloadOf(2_097_152, i), rs42, 1);
			const some = store.space();
			assert.ok(Math.abs(some.usedBytes - 20 * 1_048_576) < 100_000, `${some.usedBytes} used`);
			assert.ok(Math.abs(some.capacityBytes - empty.capacityBytes) < 100_000, `${some.capacityBytes} against ${empty.capacityBytes}`);
			await store.refreshSpace();
			assert.ok(Math.abs(store.space().freeBytes - some.freeBytes) < 100_000, "the estimate was right");
			store.setReserve(() => 16 * 1024 * 1024);
			assert.ok(Math.abs(some.freeBytes - store.space().freeBytes - 64 * 1_048_576) < 1_000_000, "4/6 of 6 × 16 MiB less");
			store.setReserve(() => 64 * 1024 * 1024);
			assert.equal(store.space().freeBytes, 0);
			await store.write(12, payloadOf(2_000_000, 12), rs42, 1);
			store.setReserve(() => 128 * 1024 * 1024);
			assert.equal(await codeOf(store.write(11, payloadOf(10, 1), rs42, 1)), "ENOSPC storage.full");
		});
	});

	it("divides one device between the disks on it", async () => {
		const lab = new Lab({ disks: 3, domains: ["same", "same", "own"], sameDevice: true, redundancy: "replicate:1" });
		await lab.run(async () => {
			const [a, b, c] = (await lab.boot()).space().disks;
			assert.deepEqual([a?.freeBytes, b?.freeBytes, c?.freeBytes], [134_217_728, 134_217_728, 268_435_456]);
		});
	});

	it("gives nothing back while a reader holds a pin, and everything afterwards", async () => {
		const lab = new Lab();
		await lab.run(async () => {
			const store = await lab.boot();
			const segment = await store.write(1, payloadOf(100_000, 1), rs42, 1);
			const unpin = store.pin(1);
			const released = store.release(segment.fragments, segment);
			await lab.world.sleep(1000);
			assert.ok(store.space().usedBytes > 0);
			const later = store.pin(1);
			unpin();
			await released;
			later();
			assert.equal(store.space().usedBytes, 0);
			const again = await store.write(2, payloadOf(100_000, 2), rs42, 1);
			assert.deepEqual(again.fragments[0]?.offset, 0);
			assert.equal(
				await codeOf(store.release(segment.fragments, segment).then(() => store.release(again.fragments, again))),
				"AssertionError: assertion failed: space is freed once",
			);
		});
	});

	it("removes packs that became empty, here and in a later life", async () => {
		const lab = new Lab({ store: { packBytes: 1024 * 1024 } });
		await lab.run(async () => {
			let store = await lab.boot();
			const written: Segment[] = [];
			for (let i = 1; i <= 12; i++) written.push(await store.write(i, payloadOf(1_000_000, i), rs42, 1));
			assert.equal(lab.world.disk("/d1").files().length, 4 - 1);
			for (const segment of written) await store.release(segment.fragments, segment);
			await store.close();
			assert.deepEqual(lab.world.disk("/d1").files(), [packFile(3)]);
			lab.node.kill();
			store = await lab.boot();
			assert.deepEqual(lab.world.disk("/d1").files(), []);
			assert.equal(lab.world.disk("/d1").freeBytes, 256 * 1024 * 1024);
		});
	});

	it("punches what a life that died left in a pack", async () => {
		const lab = new Lab();
		await lab.run(async () => {
			let store = await lab.boot();
			const dead = await store.write(1, payloadOf(1_000_000, 1), rs42, 1);
			const alive = await store.write(2, payloadOf(1_000_000, 2), rs42, 1);
			lab.node.kill();
			store = await lab.boot([alive]);
			await lab.world.sleep(1000);
			const used = 256 * 1024 * 1024 - lab.world.disk("/d1").freeBytes;
			assert.equal(used, fragmentLength(alive.shardBytes));
			assert.equal(states(await (await lab.restart([alive])).check(alive)), "oooooo");
			assert.equal(states(await lab.store.check(dead)), "cccccc");
		});
	});

	it("reports records that claim the same space or impossible space, and never hands it out", async () => {
		const lab = new Lab();
		await lab.run(async () => {
			const store = await lab.boot();
			const segment = await store.write(1, payloadOf(100_000, 1), rs42, 1);
			const place = segment.fragments[2] as Segment["fragments"][number];
			const twin = { ...segment, id: 2, fragments: [{ ...place, offset: place.offset + 4096 }] };
			const mad = { ...segment, id: 3, fragments: [{ ...place, offset: 1 << 30 }] };
			const next = await lab.restart([segment, twin, mad]);
			assert.deepEqual(
				next.conflicts.map((conflict) => conflict.segment),
				[2, 3],
			);
			assert.deepEqual(next.takeDamaged(), [2, 3]);
			await next.release(segment.fragments, segment);
			await next.release(twin.fragments, twin);
			await next.release(mad.fragments, mad);
			const left = next.space().disks.filter((disk) => disk.usedBytes > 0);
			assert.deepEqual(
				left.map((disk) => disk.id),
				[place.disk],
			);
		});
	});

	it("gives back what is abandoned", async () => {
		const lab = new Lab();
		await lab.run(async () => {
			const store = await lab.boot();
			const segment = await store.write(1, payloadOf(100_000, 1), rs42, 1);
			await store.read(segment, 0, 100);
			store.abandon(segment);
			const other = payloadOf(100_000, 2);
			const again = await store.write(1, other, rs42, 1);
			sameBytes(await store.read(again, 0, 100), other.subarray(0, 100), "written under the number that was abandoned");
			store.abandon(again);
			await store.close();
			assert.equal(lab.world.disk("/d1").freeBytes, 256 * 1024 * 1024);
		});
	});
});
