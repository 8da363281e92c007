import assert from "node:assert/strict";
import { test } from "node:test";
import { isFsError } from "../../base/errors.ts";
import type { Logger } from "../../base/telemetry.ts";
import type { DiskId } from "../../log/interface.ts";
import { commitOne, commitSome, everything, freshMachine, type Knowledge, mountSmall, stateAfter, stateOf } from "./crash-work.ts";
import { createVolume, type Mounted, machine, mount, type TestMachine } from "./test-world.ts";

const seed = 5;
const pathOf = (id: DiskId): string => `/d${id}`;

/** Lets virtual time go by until it is true. */
async function until(at: TestMachine, what: string, isTrue: () => boolean): Promise<void> {
	for (let i = 0; i < 600 && !isTrue(); i++) await at.world.advance(100);
	assert.ok(isTrue(), `after a minute still not: ${what}`);
}

async function filled(disks: number, commits = 40): Promise<{ at: TestMachine; mounted: Mounted; known: Knowledge }> {
	const at = await freshMachine(seed, disks);
	const known: Knowledge = { committed: 0, durable: 0 };
	const mounted = await at.world.run(mountSmall(at));
	await at.world.run(commitSome(mounted.engine, seed, known, commits));
	await at.world.run(mounted.engine.durable(mounted.engine.position));
	return { at, mounted, known };
}

/** Closes and opens, so that no block is in memory and everything is in runs; merges are over. */
async function reopened(at: TestMachine, mounted: Mounted): Promise<Mounted> {
	await at.world.run(mounted.close());
	const again = await at.world.run(mountSmall(at));
	await at.world.advance(3_000);
	return again;
}

function runFilesOn(at: TestMachine, path: string): string[] {
	return at.world
		.disk(path)
		.list("kv")
		.filter((name) => name.startsWith("run-"))
		.map((name) => `kv/${name}`);
}

/** Spoils one byte in the first data block of every run on a disk. Returns how many runs. */
function damageRuns(at: TestMachine, path: string): number {
	let damaged = 0;
	for (const name of runFilesOn(at, path)) damaged += at.world.corrupt(path, name, 80, 1) > 0 ? 1 : 0;
	return damaged;
}

for (const lost of [
	[0, 1],
	[0, 2],
	[1, 2],
]) {
	test(`any two of the three manifest disks may be lost at once while mounted (${lost.join(" and ")})`, async () => {
		const { at, mounted, known } = await filled(6);
		const members = mounted.engine.members;
		assert.equal(members.length, 3);
		const gone = lost.map((i) => members[i] as DiskId);
		for (const id of gone) at.world.vanish(pathOf(id));
		await at.world.run(commitSome(mounted.engine, seed, known, 60));
		await at.world.run(mounted.engine.durable(mounted.engine.position));
		await until(
			at,
			"metadata on three other disks",
			() => mounted.engine.members.length === 3 && gone.every((id) => !mounted.engine.members.includes(id)),
		);
		assert.equal(await at.world.run(stateOf(mounted.engine, seed, "while mounted")), 60);
		at.node.powerCut();
		const rest = at.paths.filter((path) => !gone.some((id) => pathOf(id) === path));
		const again = await at.world.run(mountSmall(at, rest));
		assert.equal(await at.world.run(stateOf(again.engine, seed, "after a power cut")), 60);
		await at.world.run(again.close());
	});

	test(`any two of the three manifest disks may be missing at mount (${lost.join(" and ")})`, async () => {
		const { at, mounted } = await filled(6);
		const members = mounted.engine.members;
		at.node.powerCut();
		for (const i of lost) at.world.vanish(pathOf(members[i] as DiskId));
		const again = await at.world.run(mountSmall(at));
		assert.equal(await at.world.run(stateOf(again.engine, seed, "with two disks missing")), 40);
		assert.equal(again.engine.members.length, 3);
		await at.world.run(again.close());
	});
}

test("a disk that took over is as good as the ones it replaced: the two others may go", async () => {
	const { at, mounted, known } = await filled(6);
	const before = mounted.engine.members;
	const [first, ...others] = before as [DiskId, DiskId, DiskId];
	at.world.vanish(pathOf(first));
	await until(at, "the metadata moved", () => mounted.engine.members.length === 3 && !mounted.engine.members.includes(first));
	await at.world.run(commitSome(mounted.engine, seed, known, 46));
	at.node.powerCut();
	for (const id of others) at.world.vanish(pathOf(id));
	const again = await at.world.run(mountSmall(at));
	assert.ok((await at.world.run(stateOf(again.engine, seed, "on the new disk alone"))) >= known.durable);
	await at.world.run(again.close());
});

test("a disk that hangs is dropped, and commits go on", async () => {
	const { at, mounted, known } = await filled(5);
	const hung = mounted.engine.members[1] as DiskId;
	at.world.hang(pathOf(hung));
	await at.world.run(commitSome(mounted.engine, seed, known, 70));
	await at.world.run(mounted.engine.durable(mounted.engine.position));
	await until(at, "another disk took over", () => mounted.engine.members.length === 3 && !mounted.engine.members.includes(hung));
	assert.equal(await at.world.run(stateOf(mounted.engine, seed, "with a hung disk")), 70);
	at.node.powerCut();
});

test("damaged blocks on one disk are read from another, counted and mended", async () => {
	const { at, mounted } = await filled(4);
	const second = await reopened(at, mounted);
	const [victim, ...rest] = second.engine.members as [DiskId, DiskId, DiskId];
	at.node.powerCut();
	assert.ok(damageRuns(at, pathOf(victim)) > 0);
	const third = await at.world.run(mountSmall(at));
	for (let i = 0; i < 4; i++) assert.equal(await at.world.run(stateOf(third.engine, seed, "with damage")), 40);
	const report = await at.world.run(third.engine.verifyRuns());
	assert.ok(report.checked > 20);
	assert.equal(report.unrecoverable, 0);
	assert.equal(report.repaired, report.corrupt);
	assert.ok(third.engine.statistics.corruptPieces > 0, "damage is counted");
	assert.ok((third.disks.slot(victim)?.errors.corrupt ?? 0) > 0, "damage is reported to the disk set");
	const clean = await at.world.run(third.engine.verifyRuns());
	assert.deepEqual([clean.corrupt, clean.repaired, clean.unrecoverable], [0, 0, 0]);
	at.node.powerCut();
	// The mended copies stand on their own.
	for (const id of rest) for (const name of runFilesOn(at, pathOf(id))) at.world.corrupt(pathOf(id), name, 80, 1);
	const fourth = await at.world.run(mountSmall(at));
	assert.equal(await at.world.run(stateOf(fourth.engine, seed, "from the mended copies")), 40);
	at.node.powerCut();
});

test("verifyRuns without repair counts and changes nothing", async () => {
	const { at, mounted } = await filled(4);
	const second = await reopened(at, mounted);
	const victim = second.engine.members[0] as DiskId;
	const damaged = damageRuns(at, pathOf(victim));
	assert.ok(damaged > 0);
	for (let round = 0; round < 2; round++) {
		const seen: number[] = [];
		const report = await at.world.run(
			second.engine.verifyRuns({ repair: false, onProgress: ({ checked, total }) => seen.push(checked / total) }),
		);
		assert.deepEqual([report.corrupt, report.repaired, report.unrecoverable], [damaged, 0, 0]);
		assert.equal(seen.at(-1), 1);
	}
	at.node.powerCut();
});

test("damage in every copy is an EIO that names the run, and never a wrong answer", async () => {
	const { at, mounted } = await filled(3);
	const second = await reopened(at, mounted);
	const members = second.engine.members;
	at.node.powerCut();
	for (const id of members) assert.ok(damageRuns(at, pathOf(id)) > 0);
	const third = await at.world.run(mountSmall(at));
	await assert.rejects(
		at.world.run(everything(third.engine)),
		(error) => isFsError(error, "EIO") && error.site === "kv.run-lost" && /run-\d{8}/.test(error.message),
	);
	const report = await at.world.run(third.engine.verifyRuns());
	assert.ok(report.unrecoverable >= 1 && report.corrupt >= 3 && report.repaired === 0, JSON.stringify(report));
	at.node.powerCut();
});

test("damaged manifest slots are survived, and written anew", async () => {
	const { at, mounted } = await filled(4);
	const [first, second] = mounted.engine.members as [DiskId, DiskId];
	at.node.powerCut();
	at.world.corrupt(pathOf(first), "kv/manifest", 0, 64);
	at.world.corrupt(pathOf(first), "kv/manifest", 4_096, 64);
	at.world.corrupt(pathOf(second), "kv/manifest", 0, 64);
	const again = await at.world.run(mountSmall(at));
	assert.equal(await at.world.run(stateOf(again.engine, seed, "with damaged manifests")), 40);
	await at.world.advance(3_000);
	at.world.corrupt(pathOf(second), "kv/manifest", 0, 64);
	at.world.corrupt(pathOf(second), "kv/manifest", 4_096, 64);
	const report = await at.world.run(again.engine.verifyRuns());
	assert.ok(report.corrupt >= 1 && report.repaired === report.corrupt && report.unrecoverable === 0, JSON.stringify(report));
	assert.equal((await at.world.run(again.engine.verifyRuns())).corrupt, 0);
	at.node.powerCut();
	// Now that one alone.
	for (const id of again.engine.members) if (id !== second) at.world.corrupt(pathOf(id), "kv/manifest", 0, 8_192);
	const alone = await at.world.run(mountSmall(at));
	assert.equal(await at.world.run(stateOf(alone.engine, seed, "on the mended manifest")), 40);
	at.node.powerCut();
});

test("a manifest that is older than the roster says is refused", async () => {
	const { at, mounted } = await filled(3);
	const members = mounted.engine.members;
	at.node.powerCut();
	for (const id of members) at.world.corrupt(pathOf(id), "kv/manifest", 0, 8_192);
	await assert.rejects(at.world.run(mountSmall(at)), (error) => isFsError(error, "EIO") && error.site === "kv.manifest-lost");
	at.node.powerCut();
});

test("without space reads go on, commits end with ENOSPC, and all is well when space comes back", async () => {
	const warnings: string[] = [];
	const logger: Logger = {
		debug() {},
		info() {},
		warn: (message) => void warnings.push(message),
		error: (message) => void warnings.push(message),
	};
	const at = machine(seed, 3);
	await createVolume(at);
	const limits = { memtableBytes: 3 * 1024, manifestSlotBytes: 4 * 1024 };
	const mounted = await at.world.run(mount(at, { limits, logger }));
	const known: Knowledge = { committed: 0, durable: 0 };
	await at.world.run(commitSome(mounted.engine, seed, known, 20));
	await at.world.advance(2_000);
	for (const path of at.paths) at.world.full(path);
	const fillUp = async (): Promise<void> => {
		for (let i = known.committed + 1; i < 2_000; i++) {
			await commitOne(mounted.engine, seed, i);
			known.committed = i;
		}
	};
	await assert.rejects(at.world.run(fillUp()), (error) => isFsError(error, "ENOSPC"));
	assert.equal(mounted.engine.commitNow({ expect: [], puts: [["x", new Uint8Array(10)]], deletes: [] }), undefined);
	assert.equal(await at.world.run(stateOf(mounted.engine, seed, "while full")), known.committed);
	assert.equal(mounted.engine.broken, undefined);
	for (const path of at.paths) at.world.full(path, false);
	await at.world.advance(3_000);
	await at.world.run(commitSome(mounted.engine, seed, known, known.committed + 10));
	await at.world.run(mounted.close());
	const again = await at.world.run(mountSmall(at));
	assert.equal(await at.world.run(stateOf(again.engine, seed, "after the disks were full")), known.committed);
	assert.ok(warnings.some((message) => message.includes("space")));
	at.node.powerCut();
});

test("a clean close leaves nothing to replay, and what is closed says so", async () => {
	const { at, mounted } = await filled(4, 33);
	await at.world.run(mounted.close());
	await assert.rejects(at.world.run(mounted.engine.read(["a"])), (error) => isFsError(error, "EBADF"));
	await assert.rejects(at.world.run(mounted.engine.commit({ expect: [], puts: [], deletes: [] })), (error) => isFsError(error, "EBADF"));
	const again = await at.world.run(mountSmall(at));
	assert.equal(again.engine.statistics.replayed, 0);
	assert.equal(again.engine.position, mounted.engine.position);
	assert.deepEqual(await at.world.run(everything(again.engine)), stateAfter(seed, 33));
	at.node.powerCut();
});

test("merges keep the number of runs low, drop tombstones at the bottom, and free the space", async () => {
	const { at, mounted } = await filled(3, 300);
	await until(at, "few runs", () => mounted.engine.statistics.runs <= 3);
	for (let i = 0; i < 30; i++) {
		const key = `k${String(i).padStart(2, "0")}`;
		await at.world.run(mounted.engine.commit({ expect: [], puts: [], deletes: [key, "n"] }));
	}
	const again = await reopened(at, mounted);
	await at.world.run(async () => {
		for (let i = 0; i < 400; i++) await again.engine.commit({ expect: [], puts: [["only", new Uint8Array(200)]], deletes: [] });
	});
	await until(at, "few runs again", () => again.engine.statistics.runs <= 3);
	const last = await reopened(at, again);
	assert.deepEqual(
		(await at.world.run(everything(last.engine))).map(([key]) => key),
		["only"],
	);
	const named = last.engine.statistics.runs;
	for (const id of last.engine.members) assert.equal(runFilesOn(at, pathOf(id)).length, named, "no run is left that nothing names");
	assert.ok(last.engine.metadataBytes(last.engine.members[0] as DiskId) >= last.engine.statistics.runBytes);
	assert.equal(last.engine.metadataBytes(99), 0);
	at.node.powerCut();
});

test("files of an unfinished past are cleaned up at mount", async () => {
	const { at, mounted } = await filled(4);
	await at.world.run(mounted.close());
	const platform = at.node.boot();
	await at.world.run(async () => {
		for (const path of at.paths) {
			const disk = await platform.openDisk(path);
			const file = await disk.open("kv/run-09999999", { create: true });
			await file.write(0, [new Uint8Array(5_000)]);
			await disk.syncNames("kv", "test.orphan");
			await disk.close();
		}
	});
	at.node.kill();
	const again = await at.world.run(mountSmall(at));
	for (const path of at.paths) assert.ok(!at.world.disk(path).list("kv").includes("run-09999999"), `${path} is clean`);
	assert.equal(await at.world.run(stateOf(again.engine, seed, "after cleaning")), 40);
	at.node.powerCut();
});

test("memory is bounded: writers wait for flushes", async () => {
	const at = await freshMachine(seed, 3);
	const mounted = await at.world.run(mountSmall(at));
	let refused = 0;
	let most = 0;
	await at.world.run(async () => {
		for (let i = 0; i < 400; i++) {
			const commit = { expect: [], puts: [[`w${i}`, new Uint8Array(300)] as const], deletes: [] };
			if (mounted.engine.commitNow(commit) === undefined) {
				refused++;
				const result = await mounted.engine.commit(commit);
				assert.equal(result.outcome, "committed");
			}
			most = Math.max(most, mounted.engine.statistics.memtableBytes);
		}
	});
	assert.ok(refused > 0, "commitNow refuses when there is no room");
	assert.ok(most < 3 * 1024 + 600, `a memtable grew to ${most} bytes`);
	assert.equal((await at.world.run(mounted.engine.range({ start: "w", end: "x", limit: 1_000 }))).length, 400);
	at.node.powerCut();
});

test("a manifest that finds no space fails the flush, not the engine: writers are told, reads go on, and everything is taken when space comes", async () => {
	const { at, mounted, known } = await filled(3);
	const isManifest = (name: string): boolean => name === "kv/manifest";
	const { generation } = mounted.engine.statistics;
	for (const path of ["/d2", "/d3"]) at.world.disk(path).starve(isManifest);
	const commit = { expect: [], puts: [["w", new Uint8Array(300)] as const], deletes: [] };
	let refusal: unknown;
	await at.world.run(async () => {
		for (let i = 0; i < 400 && refusal === undefined; i++) {
			await mounted.engine.commit(commit).catch((error: unknown) => {
				refusal = error;
			});
		}
	});
	assert.ok(isFsError(refusal, "ENOSPC"), String(refusal));
	assert.match(refusal.message, /space/);
	// A clean end names it in the roster, and the next mount refuses without it.
	assert.equal(mounted.engine.statistics.generation, generation);
	assert.equal((await at.world.run(mounted.engine.read(["w"])))[0]?.value.length, 300);
	for (const path of ["/d2", "/d3"]) at.world.heal(path);
	await at.world.advance(5_000);
	await at.world.run(mounted.engine.commit({ expect: [], puts: [], deletes: ["w"] }));
	await at.world.run(commitSome(mounted.engine, seed, known, 90));
	await at.world.run(mounted.engine.durable(mounted.engine.position));
	const again = await reopened(at, mounted);
	assert.equal(await at.world.run(stateOf(again.engine, seed, "after the manifest found no space")), 90);
	for (const id of again.engine.members)
		assert.equal(runFilesOn(at, pathOf(id)).length, again.engine.statistics.runs, "no run is left over");
	at.node.powerCut();
});

test("metadata leaves one of three disks whose manifest finds no space, and comes back when it does", async () => {
	const { at, mounted, known } = await filled(3);
	at.world.disk("/d2").starve((name) => name === "kv/manifest");
	await at.world.run(commitSome(mounted.engine, seed, known, 90));
	await until(at, "two copies", () => mounted.engine.copies === 2);
	await at.world.run(commitSome(mounted.engine, seed, known, 120));
	at.world.heal("/d2");
	await until(at, "three copies", () => mounted.engine.copies === 3);
	await at.world.run(mounted.engine.durable(mounted.engine.position));
	at.node.powerCut();
	const again = await at.world.run(mountSmall(at));
	assert.equal(await at.world.run(stateOf(again.engine, seed, "with three copies again")), 120);
	at.node.powerCut();
});

test("a power cut while some disks have a manifest that others had no space for loses nothing", async () => {
	const { at, mounted, known } = await filled(3);
	at.world.disk("/d2").starve((name) => name === "kv/manifest");
	await at.world.run(commitSome(mounted.engine, seed, known, 60).catch((error: unknown) => assert.ok(isFsError(error, "ENOSPC"))));
	await at.world.advance(5_000);
	await at.world.run(mounted.engine.durable(mounted.engine.position));
	at.node.powerCut();
	at.world.heal("/d2");
	const again = await at.world.run(mountSmall(at));
	assert.ok((await at.world.run(stateOf(again.engine, seed, "after a cut"))) >= 40);
	at.node.powerCut();
});

test("metadata leaves a disk whose manifest finds no space", async () => {
	const { at, mounted, known } = await filled(4);
	const victim = mounted.engine.members[0] as DiskId;
	at.world.disk(pathOf(victim)).starve((name) => name === "kv/manifest");
	await at.world.run(commitSome(mounted.engine, seed, known, 60).catch((error: unknown) => assert.ok(isFsError(error, "ENOSPC"))));
	// The log may stay where it is: only the manifest has no room.
	await until(at, "the runs are on three other disks", () => mounted.engine.copies === 3 && mounted.engine.runBytes(victim) === 0);
	await at.world.advance(3_000);
	await at.world.run(commitSome(mounted.engine, seed, known, 80));
	await at.world.run(mounted.engine.durable(mounted.engine.position));
	at.node.powerCut();
});

test("a mount that finds the disks full which it would like best leaves those alone that hold the metadata", async () => {
	const { at, mounted, known } = await filled(6);
	const before = mounted.engine.members;
	// The log has its space there already: they stay its mirrors, and the next mount likes them best.
	for (const id of before) at.world.disk(pathOf(id)).starve((name) => name.startsWith("kv/run"));
	await at.world.run(commitSome(mounted.engine, seed, known, 90).catch((error: unknown) => assert.ok(isFsError(error, "ENOSPC"))));
	await until(at, "the runs moved", () => before.every((id) => mounted.engine.runBytes(id) === 0));
	await at.world.advance(3_000);
	await at.world.run(commitSome(mounted.engine, seed, known, 120));
	await at.world.run(mounted.close());
	for (let round = 0; round < 3; round++) {
		const again = await at.world.run(mountSmall(at));
		assert.equal(await at.world.run(stateOf(again.engine, seed, `mounted beside full disks, round ${round}`)), 120);
		const report = await at.world.run(again.engine.verifyRuns({ repair: false }));
		assert.deepEqual([report.corrupt, report.unrecoverable], [0, 0]);
		// As it lies on the disks, without what is open.
		at.node.powerCut();
	}
});
