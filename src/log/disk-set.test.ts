import assert from "node:assert/strict";
import { test } from "node:test";
import { FsError, isFsError } from "../base/errors.ts";
import { silentLogger } from "../base/telemetry.ts";
import { chooseMembers, createDiskSet, inspectDisks, markClean, type OpenDiskSet, openDiskSet } from "./disk-set.ts";
import type { DiskState, Roster } from "./interface.ts";
import { hangPatience, healthCalmMs, healthDegradedPoints, healthPointMs, returnMs, smartFirstMs, suspectErrors } from "./limits.ts";
import { mirrorCount, mountRefusal, rosterQuorum } from "./roster.ts";
import { createVolume, machine, testConfig, type TestMachine } from "./test-world.ts";

function open(at: TestMachine, paths = at.paths, acceptLoss = false, readOnly = false): Promise<OpenDiskSet> {
	const platform = at.node.boot();
	return at.world.run(() => openDiskSet({ paths, acceptLoss, readOnly, callMs: 2_000 }, { platform, logger: silentLogger }));
}

function refusal(site: string, code: "REFUSED" | "NOTFOUND" | "EIO" = "REFUSED"): (error: unknown) => boolean {
	return (error) => {
		if (isFsError(error, code) && error.site === site) return true;
		throw error;
	};
}

function states(disks: OpenDiskSet): string {
	return disks
		.slots()
		.map(({ id, state }) => `d${id}:${state}`)
		.join(" ");
}

function memberships(roster: Roster): string {
	return roster.disks.map(({ id, membership }) => `d${id}:${membership}`).join(" ");
}

test("quorums", () => {
	assert.deepEqual(
		[rosterQuorum(6, 2), rosterQuorum(3, 1), rosterQuorum(3, 2), rosterQuorum(2, 1), rosterQuorum(1, 0), rosterQuorum(1, 2)],
		[4, 2, 1, 1, 1, 1],
	);
	for (let disks = 1; disks <= 12; disks++) {
		for (let tolerance = 0; tolerance <= 8; tolerance++) {
			const roster = { config: { tolerance }, logEpochs: [], manifestDisks: [], name: "v", epoch: 1, incarnation: 1 } as unknown as Roster;
			const all = Array.from({ length: disks }, (_, i) => ({ id: i + 1, membership: "in", duty: "use", path: "/p" }));
			for (let missing = 0; missing <= disks; missing++) {
				const found = new Set(all.slice(missing).map(({ id }) => id));
				const refused = mountRefusal({ ...roster, disks: all } as unknown as Roster, found) !== undefined;
				// A change that counts could be on the missing ones alone, or none could be made to count.
				const wanted = missing >= Math.max(1, disks - tolerance) || missing > tolerance;
				assert.equal(refused, wanted, `${missing} of ${disks} missing, tolerance ${tolerance}`);
			}
			const mirrors = mirrorCount({ ...roster, disks: all } as unknown as Roster);
			assert.ok(mirrors <= disks && (mirrors === disks || mirrors > tolerance), `${mirrors} mirrors of ${disks}`);
		}
	}
});

test("create: only empty places, only different devices, and nothing is written when one of them is not fit", async () => {
	const at = machine(1, 3);
	const platform = at.node.boot();
	const create = (paths: readonly string[], sameDevice = false): Promise<Roster> =>
		at.world.run(() => createDiskSet({ name: "v", paths, config: { ...testConfig, sameDevice } }, { platform, logger: silentLogger }));
	await at.world.run(async () => {
		const disk = await platform.openDisk("/d2");
		await (await disk.open("precious", { create: true })).write(0, [new Uint8Array(10)]);
		await disk.close();
	});
	await assert.rejects(create(at.paths), refusal("log.not-empty"));
	assert.deepEqual([at.world.disk("/d1").files(), at.world.disk("/d2").files()], [[], ["precious"]]);
	at.world.wipe("/d2");
	at.world.addDisk("/d1b", { capacityBytes: 1 << 22, domain: at.world.disk("/d1").domain });
	await assert.rejects(create(["/d1", "/d1b"]), refusal("log.same-device"));
	const roster = await create(["/d1", "/d1b"], true);
	assert.equal(roster.disks.length, 2);
	await assert.rejects(create(["/d1", "/d2"]), refusal("log.already-disk"));
	await assert.rejects(create([]), (error) => isFsError(error, "EINVAL"));
	await assert.rejects(create(["/d2", "/d2"]), (error) => isFsError(error, "EINVAL"));
	await assert.rejects(create(["/nowhere"]), (error) => isFsError(error, "ENOENT"));
	at.world.failNextSync("/d3");
	await assert.rejects(create(["/d2", "/d3"]), (error) => isFsError(error, "EIO"));
	assert.deepEqual(at.world.disk("/d2").files(), [], "what was made is removed");
	assert.equal((await create(["/d2", "/d3"])).disks.length, 2);
});

test("any one disk finds the others; a second daemon is refused; another volume's disk too", async () => {
	const at = machine(2, 4);
	await createVolume({ ...at, paths: ["/d1", "/d2", "/d3"] });
	await createVolume({ ...at, paths: ["/d4"] }, { tolerance: 0 });
	const disks = await open(at, ["/d2"]);
	assert.equal(states(disks), "d1:healthy d2:healthy d3:healthy");
	assert.equal(disks.roster.incarnation, 1);
	const second = { ...at, node: at.world.node() };
	await assert.rejects(open(second, ["/d1"]), refusal("log.locked"));
	await at.world.run(disks.close());
	await assert.rejects(open(at, ["/d1", "/d4", "/d2"]), refusal("log.foreign-disk"));
	await assert.rejects(open(at, ["/nowhere"]), refusal("log.no-disk", "NOTFOUND"));
	const free = await open(at, ["/d3"]);
	assert.equal(free.roster.incarnation, 2, "a refused mount leaves no locks and raises nothing");
	const platform = second.node.boot();
	const seen = await at.world.run(() => inspectDisks(["/d1"], { platform, logger: silentLogger }));
	assert.deepEqual([seen.roster.epoch, seen.found.length], [free.roster.epoch, 3]);
});

test("a missing disk is out after the mount and in again when it comes back; an empty place is not adopted by itself", async () => {
	const at = machine(3, 6);
	await createVolume(at);
	const contents = at.world.snapshot("/d2");
	at.world.wipe("/d2");
	const without = await open(at);
	assert.match(states(without), /d2:missing/);
	assert.match(memberships(without.roster), /d2:out/);
	assert.deepEqual(at.world.disk("/d2").files(), []);
	assert.equal(without.writable(2), undefined);
	await at.world.run(without.close());
	at.world.restore("/d2", contents);
	const again = await open(at);
	assert.match(memberships(again.roster), /d2:in/);
	assert.match(states(again), /d2:healthy/);
});

test("a hung disk does not hold up a mount", async () => {
	const at = machine(4, 6);
	await createVolume(at);
	at.world.hang("/d5");
	const before = at.world.nowMs;
	const disks = await open(at);
	assert.match(states(disks), /d5:missing/);
	assert.ok(at.world.nowMs - before < 30_000);
});

test("a disk that another process has is missing until it is free, where enough others are there; else it is in use", async () => {
	const at = machine(14, 3);
	await createVolume(at, { tolerance: 1 });
	const other = at.world.node().boot();
	const holds = async (path: string): Promise<() => Promise<void>> => {
		const disk = await other.openDisk(path);
		await disk.lock();
		return () => disk.close();
	};
	const openSkipping = (acceptLoss = false): Promise<OpenDiskSet> => {
		const platform = at.node.boot();
		return at.world.run(() =>
			openDiskSet({ paths: at.paths, acceptLoss, skipLocked: true, callMs: 2_000 }, { platform, logger: silentLogger }),
		);
	};
	const free = [await at.world.run(() => holds("/d1"))];
	await assert.rejects(open(at), refusal("log.locked"));
	const without = await openSkipping();
	assert.equal(states(without), "d1:missing d2:healthy d3:healthy");
	assert.match(without.slot(1)?.reason ?? "", /another process has it/);
	await at.world.run(without.memoryTaken());
	await at.world.run(() => at.world.sleep(4 * returnMs));
	assert.equal(without.slot(1)?.state, "missing");
	await at.world.run(free[0] as () => Promise<void>);
	await at.world.run(() => at.world.sleep(2 * returnMs));
	assert.equal(states(without), "d1:healthy d2:healthy d3:healthy");
	assert.equal(memberships(without.roster), "d1:in d2:in d3:in");
	await assert.rejects(
		at.world.run(async () => (await other.openDisk("/d1")).lock()),
		(error) => isFsError(error, "EBUSY"),
		"it is locked again",
	);
	await at.world.run(without.close());
	for (const path of ["/d1", "/d2"]) await at.world.run(() => holds(path));
	await assert.rejects(openSkipping(), refusal("log.locked"));
	await assert.rejects(openSkipping(true), refusal("log.locked"), "nobody may be at work with what is accepted as lost");
});

test("a disk that hung at the mount is taken back when it answers; one that knows a newer state is not", async () => {
	const at = machine(15, 3);
	await createVolume(at, { tolerance: 1 });
	at.world.hang("/d2");
	const disks = await open(at);
	assert.equal(states(disks), "d1:healthy d2:missing d3:healthy");
	await at.world.run(() => at.world.sleep(60_000));
	at.world.unhang("/d2");
	await at.world.run(() => at.world.sleep(2 * returnMs));
	assert.equal(states(disks), "d1:healthy d2:missing d3:healthy", "not while the log is recovered");
	await at.world.run(disks.memoryTaken());
	await at.world.run(() => at.world.sleep(2 * returnMs));
	assert.equal(states(disks), "d1:healthy d2:healthy d3:healthy");
	await at.world.run(disks.close());

	// Mounted without the two others meanwhile, over the operator's head.
	for (const path of ["/d1", "/d3"]) at.world.vanish(path);
	const alone = await open(at, ["/d2"], true);
	for (let i = 0; i < 9; i++) await at.world.run(alone.changeRoster("goes on", (roster) => roster));
	await at.world.run(alone.close());
	for (const path of ["/d1", "/d3"]) at.world.reappear(path);
	at.world.hang("/d2");
	const rest = await open(at);
	at.world.unhang("/d2");
	await at.world.run(rest.memoryTaken());
	await at.world.run(() => at.world.sleep(4 * returnMs));
	assert.equal(states(rest), "d1:healthy d2:missing d3:healthy");
	assert.match(rest.slot(2)?.reason ?? "", /knows a newer state of the volume/);
	await assert.rejects(at.world.run(rest.adopt("/d2", 2)), refusal("log.adopt-newer"));
	await at.world.run(rest.close());
});

test("too many missing: refused with their names, and --accept-loss goes on", async () => {
	const at = machine(5, 3);
	await createVolume(at, { tolerance: 1 });
	at.world.vanish("/d1");
	at.world.vanish("/d3");
	await assert.rejects(
		open(at),
		(error) => refusal("log.roster-stale")(error) && /d1 \(\/d1\), d3 \(\/d3\)/.test((error as Error).message),
	);
	const forced = await open(at, at.paths, true);
	assert.equal(memberships(forced.roster), "d1:out d2:in d3:out");
	assert.equal(forced.opened.acceptLoss, true);
	await at.world.run(forced.close());
	at.world.reappear("/d1");
	at.world.reappear("/d3");
	const all = await open(at);
	assert.equal(memberships(all.roster), "d1:in d2:in d3:in", "what was given up comes back under the newer roster");
	assert.equal(all.roster.incarnation, 2);
});

test("errors: which make a disk failed, which are counted, and who is told", async () => {
	const at = machine(6, 6);
	await createVolume(at);
	const disks = await open(at);
	const told: [number, DiskState][] = [];
	const stop = disks.onChange((id, state) => told.push([id, state]));
	disks.report(1, new FsError("ENOSPC", "t.t", "full"), "write");
	disks.report(1, new FsError("CORRUPT", "t.t", "bad"), "read");
	for (let i = 0; i < healthDegradedPoints - 1; i++) disks.report(1, new FsError("EIO", "t.t", "bad"), "read");
	assert.deepEqual(told, []);
	for (let i = healthDegradedPoints - 1; i < suspectErrors - 1; i++) disks.report(1, new FsError("EIO", "t.t", "bad"), "read");
	assert.deepEqual(told, [[1, "degraded"]]);
	assert.ok(disks.readable(1) && disks.writable(1), "degraded");
	disks.report(1, new FsError("EIO", "t.t", "bad"), "read");
	assert.ok(disks.readable(1) && !disks.writable(1));
	disks.report(2, new FsError("EIO", "t.t", "bad"), "sync");
	disks.report(3, new FsError("ENODEV", "t.t", "gone"), "read");
	assert.deepEqual(told, [
		[1, "degraded"],
		[1, "suspect"],
		[2, "failed"],
		[3, "failed"],
	]);
	assert.equal(disks.readable(2), undefined);
	await at.world.run(disks.settled());
	assert.equal(memberships(disks.roster), "d1:in d2:out d3:out d4:in d5:in d6:in");
	assert.deepEqual({ ...disks.slot(1)?.errors }, { read: suspectErrors, write: 0, sync: 0, corrupt: 1, timeout: 0 });
	stop();
	disks.report(4, new FsError("ETIMEDOUT", "t.t", "hangs"), "read");
	assert.equal(told.length, 4);
	assert.equal(disks.slot(4)?.state, "failed");
	assert.deepEqual(chooseMembers(disks), [5, 6]);
});

test("distrust outlives the mount and wears off; what the operator sets stays, and what is set failed is not used until it is taken back", async () => {
	const at = machine(26, 6);
	await createVolume(at);
	let disks = await open(at);
	for (let i = 0; i < suspectErrors; i++) disks.report(1, new FsError("EIO", "t.t", "bad"), "read");
	await at.world.run(disks.setHealth(2, "degraded"));
	await at.world.run(disks.setHealth(3, "healthy"));
	for (let i = 0; i < suspectErrors; i++) disks.report(3, new FsError("EIO", "t.t", "bad"), "read");
	assert.match(states(disks), /d1:suspect d2:degraded d3:healthy d4:healthy/);
	assert.equal(chooseMembers(disks).includes(2), false, "others do");
	await at.world.run(disks.close());

	disks = await open(at);
	assert.match(states(disks), /d1:suspect d2:degraded d3:healthy d4:healthy/);
	await at.world.advance(healthCalmMs + 2_000);
	assert.match(states(disks), /d1:degraded d2:degraded d3:healthy/);
	await at.world.advance((suspectErrors - healthDegradedPoints + 1) * healthPointMs);
	assert.match(states(disks), /d1:healthy d2:degraded d3:healthy/);
	await at.world.run(disks.setHealth(2, undefined));
	assert.match(states(disks), /d2:healthy/);

	await at.world.run(disks.setHealth(6, "failed"));
	await at.world.run(disks.settled());
	assert.match(states(disks), /d6:failed/);
	await at.world.run(disks.close());
	disks = await open(at);
	assert.match(states(disks), /d6:failed/);
	assert.equal(memberships(disks.roster), "d1:in d2:in d3:in d4:in d5:in d6:out");
	await assert.rejects(at.world.run(disks.setHealth(6, "degraded")), refusal("log.health-away"));
	await assert.rejects(at.world.run(disks.setHealth(9, "failed")), (error) => isFsError(error, "NOTFOUND"));
	assert.equal(await at.world.run(disks.adopt("/d6", 6)), 6, "the same disk, taken back");
	assert.match(states(disks), /d6:healthy/);
	await at.world.run(disks.close());
	disks = await open(at);
	assert.match(states(disks), /d6:healthy/);
	for (const id of [4, 5]) await at.world.run(disks.setHealth(id, "failed"));
	await at.world.run(disks.settled());
	await at.world.run(disks.close());
});

test("an idle volume learns of a lost disk by itself", async () => {
	for (const lose of [(at: TestMachine) => at.world.vanish("/d4", { unlinked: true }), (at: TestMachine) => at.world.hang("/d4")]) {
		const at = machine(7, 6);
		await createVolume(at);
		const disks = await open(at);
		lose(at);
		await at.world.advance(8_000);
		assert.match(states(disks), /d4:failed/);
		assert.match(memberships(disks.roster), /d4:out/);
	}
});

test("a roster change that too few disks learn of breaks the set for good", async () => {
	const at = machine(8, 3);
	await createVolume(at, { tolerance: 1 });
	const disks = await open(at);
	at.world.fail("/d1", ["write"]);
	at.world.fail("/d2", ["sync"]);
	const change = at.world.run(disks.changeRoster("test", (roster) => ({ ...roster, manifestGeneration: 9 })));
	await assert.rejects(change, refusal("log.roster-quorum", "EIO"));
	assert.ok(disks.broken);
	assert.equal(disks.roster.manifestGeneration, 0);
	await assert.rejects(at.world.run(disks.settled()), refusal("log.roster-quorum", "EIO"));
	await assert.rejects(at.world.run(disks.changeRoster("again", (roster) => roster)), refusal("log.roster-quorum", "EIO"));
});

test("changes that resolved are found after a power cut at any step, with any T disks missing", async () => {
	const run = async (at: TestMachine, known: { generation: number }): Promise<void> => {
		const platform = at.node.boot();
		const disks = await openDiskSet({ paths: at.paths, acceptLoss: false, callMs: 2_000 }, { platform, logger: silentLogger });
		for (let generation = 1; generation <= 4; generation++) {
			await disks.changeRoster("count", (roster) => ({ ...roster, manifestGeneration: generation }));
			known.generation = generation;
		}
	};
	const rehearsal = machine(9, 4);
	await createVolume(rehearsal, { tolerance: 1 });
	const before = rehearsal.world.steps;
	await rehearsal.world.run(run(rehearsal, { generation: 0 }));
	for (let step = before + 1; step <= rehearsal.world.steps; step++) {
		for (const lost of ["/d1", "/d4"]) {
			const at = machine(9, 4);
			await createVolume(at, { tolerance: 1 });
			const known = { generation: 0 };
			const ended = at.world.cutAt(step);
			await at.world.run(Promise.race([run(at, known), ended]));
			at.world.vanish(lost);
			const disks = await open(at);
			const found = disks.roster.manifestGeneration;
			assert.ok(
				found === known.generation || found === known.generation + 1,
				`seed 9, step ${step}: ${found} found, ${known.generation} known`,
			);
		}
	}
});

test("adopt: a new disk in an empty place, the same disk coming back, and what is refused", async () => {
	const at = machine(10, 6);
	await createVolume(at);
	const disks = await open(at);
	await assert.rejects(at.world.run(disks.adopt("/d1", 99)), (error) => isFsError(error, "NOTFOUND"));
	at.world.addDisk("/new", { capacityBytes: 1 << 24 });
	await assert.rejects(at.world.run(disks.adopt("/new", 3)), refusal("log.adopt-healthy"));
	// Taken away and emptied under the daemon, replaced at the same place before any probe noticed.
	const old = at.world.snapshot("/d3");
	at.world.vanish("/d3", { unlinked: true });
	at.world.reappear("/d3");
	at.world.wipe("/d3");
	assert.equal(await at.world.run(disks.adopt("/d3", 3)), 7);
	assert.equal(disks.roster.disks.find(({ id }) => id === 3)?.reason, "replaced by d7");
	assert.equal(disks.slot(7)?.state, "healthy");
	assert.match(memberships(disks.roster), /d3:out .*d7:in/);
	await assert.rejects(at.world.run(disks.adopt("/new", 3)), refusal("log.adopt-replaced"));
	at.world.vanish("/d5");
	await at.world.advance(3_000);
	at.world.reappear("/d5");
	await assert.rejects(at.world.run(disks.adopt("/d1", 5)), refusal("log.already-disk"));
	assert.equal(await at.world.run(disks.adopt("/d5", 5)), 5, "the same disk keeps its number");
	assert.match(memberships(disks.roster), /d5:in/);
	await at.world.run(disks.close());
	// The replaced disk turns up elsewhere: it stays out.
	at.world.addDisk("/attic", { capacityBytes: 1 << 24 });
	at.world.restore("/attic", old);
	const again = await open(at, [...at.paths, "/attic"]);
	assert.match(memberships(again.roster), /d3:out .*d7:in/);
	assert.equal(again.readable(3), undefined);
});

test("two copies of one disk are refused", async () => {
	const at = machine(11, 3);
	await createVolume(at);
	at.world.addDisk("/copy", { capacityBytes: 1 << 24 });
	at.world.restore("/copy", at.world.snapshot("/d1"));
	await assert.rejects(open(at, [...at.paths, "/copy"]), refusal("log.disk-twice"));
});

test("read-only: nothing is written, and nothing can be", async () => {
	const at = machine(12, 3);
	await createVolume(at);
	const steps = at.world.steps;
	const disks = await open(at, at.paths, false, true);
	assert.ok(disks.readable(1) && !disks.writable(1));
	await assert.rejects(at.world.run(disks.changeRoster("x", (roster) => roster)), (error) => isFsError(error, "EROFS"));
	disks.report(1, new FsError("EIO", "t.t", "bad"), "sync");
	await at.world.run(disks.settled());
	assert.equal(at.world.steps, steps);
});

test("clean mark: set by the last change, gone after the next mount", async () => {
	const at = machine(13, 3);
	await createVolume(at);
	const disks = await open(at);
	assert.equal(disks.opened.clean, true, "a new volume");
	await at.world.run(markClean(disks));
	await at.world.run(disks.close());
	const again = await open(at);
	assert.deepEqual([again.opened.clean, again.roster.clean], [true, false]);
	at.node.kill();
	assert.equal((await open(at)).opened.clean, false);
});

test("add: all places or none, refused where they are not fit; a duty outlives the mount; what leaves is forgotten and cleared", async () => {
	const at = machine(14, 3);
	await createVolume(at, { tolerance: 1 });
	const disks = await open(at);
	for (const path of ["/d4", "/d5"]) at.world.addDisk(path, { capacityBytes: 1 << 24 });
	at.world.addDisk("/d1b", { capacityBytes: 1 << 24, domain: at.world.disk("/d1").domain });
	await assert.rejects(at.world.run(disks.add(["/d4", "/d1"])), refusal("log.already-disk"));
	await assert.rejects(at.world.run(disks.add(["/d4", "/d1b"])), refusal("log.same-device"));
	await assert.rejects(at.world.run(disks.add(["/d4", "/nowhere"])), (error) => isFsError(error, "ENOENT"));
	assert.deepEqual(at.world.disk("/d4").files(), [], "all or none");
	assert.deepEqual(await at.world.run(disks.add(["/d4", "/d5"])), [4, 5]);
	assert.equal(memberships(disks.roster), "d1:in d2:in d3:in d4:in d5:in");
	await assert.rejects(at.world.run(disks.remove(4)), refusal("log.remove-needed"));
	await at.world.run(disks.setDuty(4, "drain"));
	assert.ok(disks.readable(4) && disks.clearable(4) && !disks.writable(4));
	for (let i = 0; i < suspectErrors; i++) disks.report(4, new FsError("EIO", "t.t", "bad"), "read");
	assert.equal(disks.slot(4)?.state, "draining");
	await at.world.run(disks.close());
	const again = await open(at, ["/d1"]);
	assert.match(states(again), /d3:healthy d4:draining d5:healthy/);
	assert.deepEqual(await at.world.run(again.remove(4)), { path: "/d4", cleared: true });
	assert.deepEqual([memberships(again.roster), at.world.disk("/d4").files()], ["d1:in d2:in d3:in d5:in", []]);
	assert.equal(again.slot(4), undefined);
	// One that cannot be told is a stranger all the same, and may join again as another disk.
	await at.world.run(again.setDuty(5, "leave"));
	const old = at.world.snapshot("/d5");
	at.world.vanish("/d5");
	await at.world.advance(3_000);
	assert.deepEqual(await at.world.run(again.remove(5)), { path: "/d5", cleared: false });
	at.world.reappear("/d5");
	at.world.restore("/d5", old);
	await at.world.run(again.close());
	const last = await open(at, [...at.paths, "/d5"]);
	assert.equal(states(last), "d1:healthy d2:healthy d3:healthy");
	assert.deepEqual(await at.world.run(last.add(["/d5"])), [6]);
	// A disk that knows more than this mount is not cleared, whatever it is.
	at.world.addDisk("/d7", { capacityBytes: 1 << 24 });
	await at.world.run(last.add(["/d7"]));
	const newer = at.world.snapshot("/d7");
	await at.world.run(last.setDuty(7, "leave"));
	await at.world.run(last.remove(7));
	await at.world.run(last.close());
	const forked = await open(at, ["/d1"]);
	at.world.restore("/d7", newer);
	assert.deepEqual(await at.world.run(forked.add(["/d7"])), [8], "older: cleared and taken");
});

test("a power cut at any step of add, duty and remove: the disks agree on one of the states on the way, and no later one is lost", async () => {
	const stages = ["d1:use d2:use d3:use", "d1:use d2:use d3:use d4:use", "d1:use d2:drain d3:use d4:use", "d1:use d3:use d4:use"];
	const run = async (at: TestMachine, known: { stage: number }): Promise<void> => {
		const platform = at.node.boot();
		const disks = await openDiskSet({ paths: at.paths, acceptLoss: false, callMs: 2_000 }, { platform, logger: silentLogger });
		await disks.add(["/d4"]);
		known.stage = 1;
		await disks.setDuty(2, "drain");
		known.stage = 2;
		await disks.remove(2);
		known.stage = 3;
	};
	const make = async (): Promise<TestMachine> => {
		const at = machine(15, 3);
		at.world.addDisk("/d4", { capacityBytes: 1 << 24 });
		await createVolume(at, { tolerance: 1 });
		return at;
	};
	const rehearsal = await make();
	const before = rehearsal.world.steps;
	await rehearsal.world.run(run(rehearsal, { stage: 0 }));
	for (let step = before + 1; step <= rehearsal.world.steps; step++) {
		for (const lost of [undefined, "/d1", "/d3", "/d4"]) {
			const at = await make();
			const known = { stage: 0 };
			const ended = at.world.cutAt(step);
			await at.world.run(Promise.race([run(at, known), ended]));
			if (lost !== undefined) at.world.vanish(lost);
			const disks = await open(at, [...at.paths, "/d4"]);
			const found = disks.roster.disks.map(({ id, duty }) => `d${id}:${duty}`).join(" ");
			const stage = stages.indexOf(found);
			assert.ok(
				stage === known.stage || stage === known.stage + 1,
				`seed 15, step ${step}, ${lost} lost: ${found}, stage ${known.stage} known`,
			);
		}
	}
});

test("more disks than the volume can lose stand still together: they are waited for, said so, and fail only after that time", async () => {
	const at = machine(40, 6);
	await createVolume(at);
	const disks = await open(at);
	for (const path of ["/d1", "/d2", "/d4"]) at.world.hang(path);
	const change = disks.changeRoster("meanwhile", (roster) => ({ ...roster, manifestGeneration: 7 }));
	await at.world.advance(15_000);
	assert.match(states(disks), /d1:healthy d2:healthy d3:healthy d4:healthy d5:healthy d6:healthy/);
	const waits = disks.waits?.() ?? new Map<number, number>();
	assert.deepEqual([...waits.keys()], [1, 2, 4]);
	assert.ok((waits.get(1) ?? 0) > 10_000);
	for (const path of ["/d1", "/d2", "/d4"]) at.world.unhang(path);
	await at.world.run(change);
	await at.world.advance(2_000);
	assert.equal(disks.waits?.().size, 0);
	assert.equal(memberships(disks.roster), "d1:in d2:in d3:in d4:in d5:in d6:in");

	for (const path of ["/d1", "/d2", "/d4"]) at.world.hang(path);
	const hopeless = disks.changeRoster("never", (roster) => roster);
	hopeless.catch(() => {});
	await at.world.advance(2_000 * hangPatience + 5_000);
	await assert.rejects(at.world.run(hopeless), refusal("log.roster-quorum", "EIO"));
	assert.match(states(disks), /d1:failed d2:failed d3:healthy d4:failed/);
});

test("as many disks as the volume can lose hang among others: each is found in time, and a busy machine blames none", async () => {
	const at = machine(41, 6);
	await createVolume(at);
	const disks = await open(at);
	for (const path of at.paths) at.world.disk(path).starveThread();
	await at.world.advance(40_000);
	for (const path of at.paths) at.world.unhang(path);
	await at.world.advance(2_000);
	assert.equal(states(disks), "d1:healthy d2:healthy d3:healthy d4:healthy d5:healthy d6:healthy");
	assert.deepEqual(
		disks.slots().map(({ errors }) => errors.timeout),
		[0, 0, 0, 0, 0, 0],
	);
	for (const path of ["/d1", "/d4"]) at.world.hang(path);
	await at.world.advance(4_000);
	assert.match(states(disks), /d1:failed d2:healthy d3:healthy d4:failed/);
	assert.match(memberships(disks.roster), /d1:out d2:in d3:in d4:out/);
});

test("a disk that hung or vanished while it was in use is taken back when it answers, and what it was asked before is void", async () => {
	for (const [lose, giveBack] of [
		[(at: TestMachine) => at.world.hang("/d2"), (at: TestMachine) => at.world.unhang("/d2")],
		[(at: TestMachine) => at.world.vanish("/d2"), (at: TestMachine) => at.world.reappear("/d2")],
		[(at: TestMachine) => at.world.vanish("/d2"), (at: TestMachine) => at.world.reappear("/d2", at.world.snapshot("/d2"))],
	] as const) {
		const at = machine(42, 3);
		await createVolume(at, { tolerance: 1 });
		const disks = await open(at);
		await at.world.run(disks.memoryTaken());
		const told: string[] = [];
		disks.onChange((id, state) => told.push(`d${id}:${state}`));
		const old = await at.world.run(disks.readable(2)?.open("data", { create: true }) ?? Promise.reject(new Error("there")));
		lose(at);
		const late = old.write(0, [new Uint8Array([1])]).then(
			() => "written",
			() => "refused",
		);
		await at.world.advance(60_000);
		assert.equal(states(disks), "d1:healthy d2:failed d3:healthy");
		assert.equal(memberships(disks.roster), "d1:in d2:out d3:in");
		giveBack(at);
		await at.world.advance(65_000);
		assert.equal(states(disks), "d1:healthy d2:healthy d3:healthy");
		assert.equal(memberships(disks.roster), "d1:in d2:in d3:in");
		assert.deepEqual(told, ["d2:failed", "d2:healthy"]);
		assert.equal(await at.world.run(late), "refused");
		await at.world.run(disks.close());
		at.node.kill();
		assert.equal(memberships((await open(at)).roster), "d1:in d2:in d3:in");
	}
});

test("a disk that hangs again and again is taken back more and more seldom", async () => {
	const at = machine(43, 3);
	await createVolume(at, { tolerance: 1 });
	const disks = await open(at);
	await at.world.run(disks.memoryTaken());
	const awayMs: number[] = [];
	for (let round = 0; round < 5; round++) {
		at.world.hang("/d2");
		for (let i = 0; disks.slot(2)?.state !== "failed"; i++) {
			assert.ok(i < 60, "it is given up");
			await at.world.advance(1_000);
		}
		at.world.unhang("/d2");
		const fromMs = at.world.nowMs;
		for (let i = 0; disks.slot(2)?.state !== "healthy"; i++) {
			assert.ok(i < 1_000, "it comes back");
			await at.world.advance(1_000);
		}
		awayMs.push(at.world.nowMs - fromMs);
	}
	assert.ok((awayMs[0] as number) <= 2 * returnMs, String(awayMs));
	for (let round = 1; round < awayMs.length; round++) assert.ok((awayMs[round] as number) > (awayMs[round - 1] as number), String(awayMs));
});

test("a disk whose writes failed comes back by itself only after it was away; one that the operator set failed does not", async () => {
	const at = machine(44, 6);
	await createVolume(at);
	const disks = await open(at);
	await at.world.run(disks.memoryTaken());
	at.world.fail("/d2", ["write"], "EIO", 1);
	await at.world.run(disks.changeRoster("meets it", (roster) => roster));
	await at.world.run(disks.setHealth(3, "failed"));
	await at.world.advance(300_000);
	assert.match(states(disks), /d1:healthy d2:failed d3:failed d4:healthy/);
	for (const path of ["/d2", "/d3"]) at.world.vanish(path);
	await at.world.advance(60_000);
	for (const path of ["/d2", "/d3"]) at.world.reappear(path);
	await at.world.advance(60_000);
	assert.match(states(disks), /d1:healthy d2:healthy d3:failed d4:healthy/);
	assert.match(memberships(disks.roster), /d1:in d2:in d3:out d4:in/);
});

test("another disk in the place of one that vanished is not taken in by itself", async () => {
	const at = machine(45, 3);
	await createVolume(at, { tolerance: 1 });
	const disks = await open(at);
	await at.world.run(disks.memoryTaken());
	const third = at.world.snapshot("/d3");
	at.world.vanish("/d2");
	await at.world.advance(10_000);
	at.world.reappear("/d2", third);
	await at.world.advance(120_000);
	assert.equal(states(disks), "d1:healthy d2:failed d3:healthy");
	at.world.wipe("/d2");
	await at.world.advance(120_000);
	assert.equal(states(disks), "d1:healthy d2:failed d3:healthy");
	assert.equal(await at.world.run(disks.adopt("/d2", 2)), 4, "but by the operator's word");
});

test("a device is asked for its SMART values once, however many disks lie on it", async () => {
	const at = machine(31, 2);
	at.world.addDisk("/d1b", { capacityBytes: 1 << 26, domain: at.world.disk("/d1").domain });
	const paths = ["/d1", "/d1b", "/d2"];
	await createVolume({ ...at, paths }, { sameDevice: true });
	const asked: string[] = [];
	const smart = async (domain: string): Promise<string | undefined> => {
		asked.push(domain);
		return undefined;
	};
	const platform = { ...at.node.boot(), devices: { smart } };
	await at.world.run(async () => {
		const disks = await openDiskSet({ paths, acceptLoss: false, callMs: 2_000 }, { platform, logger: silentLogger });
		await platform.clock.sleep(smartFirstMs + 1000);
		assert.deepEqual(asked.sort(), [at.world.disk("/d1").domain, at.world.disk("/d2").domain].sort());
		await disks.close();
	});
});
