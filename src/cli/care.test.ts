import assert from "node:assert/strict";
import { test } from "node:test";
import { Machine } from "./machine.test-support.ts";
import { expectCode, mounted, readFile, six, writeFile } from "./demo.test-support.ts";

test("whoever waits for a paused healer is told so, and how it goes on", async () => {
	const machine = await mounted(31);
	await writeFile(machine, "film", 3_000_000);
	expectCode(await machine.cairn("heal", "demo", "--pause"), 0);
	expectCode(await machine.cairn("heal", "demo", "--wait"), 0, /everything is written in full/);
	machine.world.wipe("/d3");
	await machine.world.advance(5000);
	expectCode(await machine.cairn("disk", "replace", "demo", "d3"), 0);
	const waited = await machine.cairn("heal", "demo", "--wait", "--json");
	expectCode(waited, 4, /paused[^\n]*cairn heal demo --resume/);
	assert.deepEqual([waited.json.paused, waited.json.remainingBytes, waited.json.rebuiltSegments], [true, 3_000_000, 0]);
	expectCode(await machine.cairn("heal", "demo"), 4, /paused[^\n]*cairn heal demo --resume/);
	expectCode(await machine.cairn("disk", "drain", "demo", "d5", "--wait", "--allow-degraded"), 4, /paused[^\n]*cairn heal demo --resume/);
	expectCode(await machine.cairn("disk", "drain", "demo", "d5", "--cancel"), 0);
	expectCode(await machine.cairn("heal", "demo", "--resume"), 0);
	expectCode(await machine.cairn("heal", "demo", "--wait"), 0);
});

/** In steps of virtual time. */
async function until(machine: Machine, what: string, isSo: () => Promise<boolean>, stepMs = 250): Promise<void> {
	for (let step = 0; step < 2000; step++) {
		if (await isSo()) return;
		await machine.world.advance(stepMs);
	}
	assert.fail(`${what}: not within ${2 * stepMs} s`);
}

/** The log's segments on a disk that mirrors it, damaged behind their first record. */
function rotLog(machine: Machine, disk: string): void {
	for (const name of machine.world.disk(disk).files())
		if (name.startsWith("log/")) machine.world.corrupt(disk, name, 600, machine.world.disk(disk).peek(name).length - 600);
}

for (const dryRun of [false, true])
	test(`rot in the log's mirrors ${dryRun ? "is found by a dry run, and takes what only the log has where it is left" : "is found by verify and mended"}`, async () => {
		const machine = await mounted(32);
		await writeFile(machine, "film", 3_000_000);
		const before = await machine.cairn("status", "demo", "--json");
		assert.equal(before.json.metadataProvenAt, null);
		expectCode(await machine.cairn("status", "demo"), 0, /metadata +3 of 3 copies, not proven by reading/);
		const mirrors = before.json.disks.filter((one: { metadata: boolean }) => one.metadata).map((one: { path: string }) => one.path);
		assert.equal(mirrors.length, 3);
		for (const disk of mirrors.slice(0, 2)) rotLog(machine, disk);
		const found = await machine.cairn("verify", "demo", "--json", ...(dryRun ? ["--dry-run"] : []));
		expectCode(found, dryRun ? 5 : 0);
		assert.ok(found.json.corrupt >= 2, JSON.stringify(found.json));
		assert.equal(found.json.repaired, dryRun ? 0 : found.json.corrupt);
		expectCode(await machine.cairn("ledger", "demo"), 0, dryRun ? /copies, not proven by reading/ : /3 of 3 copies, proven \d+ s ago/);
		if (!dryRun) expectCode(await machine.cairn("verify", "demo", "--dry-run"), 0, / 0 corrupt/);
		// The memory that outlives the daemon, and the third mirror, are gone with the power.
		machine.cutPower();
		machine.world.vanish(mirrors[2]);
		if (dryRun)
			expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 5, /the log of its last mount can be read on none of the disks/);
		expectCode(await machine.cairn("mount", "demo", "/mnt/demo", ...(dryRun ? ["--accept-loss"] : [])), 0);
		if (dryRun) await assert.rejects(readFile(machine, "film"), { code: "ENOENT" });
		else assert.equal((await readFile(machine, "film")).length, 3_000_000);
	});

test("what is told of healing is true: at half-way the time that is left, and over a restart what was done", async () => {
	const machine = await mounted(33);
	for (let at = 0; at < 32; at++) await writeFile(machine, `file${at}`, at % 4 === 0 ? 2_500_000 : 150_000);
	for (let at = 1; at <= 6; at++) machine.world.latency(`/d${at}`, 20, 60);
	expectCode(await machine.cairn("heal", "demo", "--tranquility", "20"), 0);
	machine.world.wipe("/d3");
	await machine.world.advance(5000);
	expectCode(await machine.cairn("disk", "replace", "demo", "d3"), 0);
	const healing = async () => (await machine.cairn("status", "demo", "--json")).json.healing;
	await machine.world.advance(500);
	const first = await healing();
	assert.equal(first.active, true);
	let now = first;
	const isHalfWay = async () => {
		now = await healing();
		return now.remainingBytes <= first.remainingBytes / 2;
	};
	await until(machine, "half-way", isHalfWay, 1000);
	assert.ok(now.etaSeconds > 5, "long enough to be told");
	expectCode(await machine.cairn("status", "demo"), 0, /healing +[\d.]+ [KM]iB done, [\d.]+ [KM]iB to do, about /);

	machine.kill();
	const killedMs = machine.world.nowMs;
	expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 0);
	await machine.world.advance(2000);
	const again = await healing();
	assert.equal(again.startedAt, now.startedAt, "it is the same work");
	assert.ok(again.doneBytes >= now.doneBytes / 2 && again.doneBytes > 0, `${again.doneBytes} of ${now.doneBytes}`);
	assert.ok(again.etaSeconds > 0, "the speed is known at once");
	const isOver = async () => {
		now = await healing();
		return !now.active;
	};
	await until(machine, "the end of healing", isOver, 1000);
	const tookSeconds = (machine.world.nowMs - killedMs) / 1000;
	const { etaSeconds } = again;
	assert.ok(etaSeconds < 2 * tookSeconds && etaSeconds > tookSeconds / 2, `told ${etaSeconds} s, took ${tookSeconds} s`);
	await machine.world.advance(5000);
	now = await healing();
	assert.deepEqual([now.active, now.remainingBytes, now.doneBytes, now.startedAt], [false, 0, 0, null]);
});

test("a disk that fails while another is being healed brings what is most at risk to the front", async () => {
	const machine = new Machine(34, 8);
	machine.host.makeFolder("/mnt/demo");
	expectCode(await machine.cairn("create", "demo", ...six, "/d7", "/d8", "--same-device", "--redundancy", "rs:4+2"), 0);
	expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 0);
	for (let at = 0; at < 24; at++) await writeFile(machine, `clip${at}`, 1_000_000);
	/** Bytes that survive so many losses. */
	const survives = async (losses: number): Promise<number> => {
		const { json } = await machine.cairn("ledger", "demo", "--json");
		return json.survival.find((one: { losses: number }) => one.losses === losses)?.recordedBytes ?? 0;
	};
	for (let at = 1; at <= 8; at++) machine.world.latency(`/d${at}`, 20, 60);
	expectCode(await machine.cairn("heal", "demo", "--tranquility", "20"), 0);
	machine.world.wipe("/d1");
	await until(machine, "the loss is known", async () => (await survives(1)) > 0);
	const weak = await survives(1);
	assert.ok(weak >= 10_000_000);
	await until(machine, "some are healed", async () => (await survives(1)) < weak - 1_000_000);
	machine.world.wipe("/d2");
	await until(machine, "the second loss is known", async () => (await survives(0)) > 0);
	const before = await survives(1);
	assert.ok((await survives(0)) >= 3_000_000 && before >= 3_000_000, "there are both");
	await until(machine, "none is at the edge", async () => (await survives(0)) === 0);
	assert.ok((await survives(1)) >= before - 2_000_000, `${await survives(1)} of ${before}: those come afterwards`);
	expectCode(await machine.cairn("heal", "demo", "--tranquility", "0"), 0);
	expectCode(await machine.cairn("heal", "demo", "--wait"), 0);
	assert.deepEqual([await survives(0), await survives(1)], [0, 0]);
});

test("what a change of disks would come to is told before it is made: work, time, risk, space of each disk", async () => {
	const machine = await mounted(35);
	for (let at = 1; at <= 6; at++) machine.world.latency(`/d${at}`, 10, 30);
	for (let at = 0; at < 12; at++) await writeFile(machine, `file${at}`, 1_500_000);
	machine.world.addDisk("/d7", { capacityBytes: 1 << 30 });
	const plan = async (...words: string[]) => {
		const result = await machine.cairn("disk", ...words, "--dry-run", "--json");
		expectCode(result, 0);
		return result.json;
	};
	const move = await plan("replace", "demo", "d2", "/d7");
	assert.deepEqual([move.moving, move.fits, move.newPath, move.work.segments, move.work.basis], [true, true, "/d7", 12, "sampled"]);
	assert.ok(move.work.seconds > 0);
	assert.deepEqual(move.survives, { now: 2, after: 2 });
	assert.deepEqual(
		move.disks.map((one: { disk: string }) => one.disk),
		["d1", "d3", "d4", "d5", "d6", "/d7", "d2"],
	);
	const ofNew = move.disks.find((one: { disk: string }) => one.disk === "/d7");
	assert.ok(ofNew.freeBytes.now === 0 && ofNew.freeBytes.after > 500_000_000);
	const add = await plan("add", "demo", "/d7");
	assert.deepEqual([add.work.basis, add.levels, add.survives], ["nothing to do", false, { now: 2, after: 2 }]);
	expectCode(await machine.cairn("disk", "add", "demo", "/d7", "--dry-run"), 0, /risk +everything survives 2 more losses now[\s\S]*d1: /);
	expectCode(await machine.cairn("disk", "replace", "demo", "d2", "--dry-run"), 4, /works/);
	expectCode(await machine.cairn("disk", "set", "demo", "d5", "failed"), 0);
	assert.equal((await plan("replace", "demo", "d5")).newPath, "/d5", "the same disk may come back with what is on it");
	expectCode(await machine.cairn("disk", "replace", "demo", "d5"), 0);
	expectCode(await machine.cairn("heal", "demo", "--wait"), 0);

	machine.world.wipe("/d3");
	await machine.world.advance(5000);
	const lost = await plan("replace", "demo", "d3");
	assert.deepEqual([lost.moving, lost.fits, lost.survives.after], [false, true, 2]);
	assert.ok(lost.work.segments > 0);
	const survival: { losses: number; recordedBytes: number }[] = (await machine.cairn("ledger", "demo", "--json")).json.survival;
	assert.equal(lost.survives.now, Math.min(...survival.filter((one) => one.recordedBytes > 0).map((one) => one.losses)));
	expectCode(await machine.cairn("disk", "replace", "demo", "d3", "--dry-run"), 0, /is made anew[\s\S]*about [\s\S]*nothing was changed/);
	expectCode(await machine.cairn("disk", "list", "demo"), 0, /d3 +failed/);
	expectCode(await machine.cairn("disk", "replace", "demo", "d3"), 0);
	expectCode(await machine.cairn("heal", "demo", "--tranquility", "5"), 0);
	const beganMs = machine.world.nowMs;
	expectCode(await machine.cairn("heal", "demo", "--wait"), 0);
	const tookSeconds = (machine.world.nowMs - beganMs) / 1000;
	const drain = await plan("drain", "demo", "d1");
	assert.equal(drain.work.basis, "measured");
	assert.ok(
		drain.work.seconds < 3 * tookSeconds + 2 && drain.work.seconds > tookSeconds / 3 - 2,
		`${drain.work.seconds} s, ${tookSeconds} s`,
	);
	assert.equal(drain.survives.now, 2);
});
