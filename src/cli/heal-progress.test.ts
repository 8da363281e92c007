import assert from "node:assert/strict";
import { test } from "node:test";
import { expectCode, mounted, readFile, writeFile } from "./demo.test-support.ts";
import type { Machine } from "./machine.test-support.ts";

const status = async (machine: Machine) => (await machine.cairn("status", "demo", "--json")).json;
const slowDisks = (machine: Machine): void => {
	for (let at = 1; at <= 6; at++) machine.world.latency(`/d${at}`, 20, 60);
};
/** Seconds of virtual time until the healer has nothing more to do. */
async function healed(machine: Machine): Promise<number> {
	const beganMs = machine.world.nowMs;
	for (let step = 0; step < 4000; step++) {
		const { healing, protection } = await status(machine);
		if (!healing.active && protection.degradedBytes === 0) return (machine.world.nowMs - beganMs) / 1000;
		await machine.world.advance(250);
	}
	return assert.fail("it was not healed");
}
const within = (told: number, took: number, what: string, times = 2): void =>
	assert.ok(told <= times * took + 1 && told >= took / times - 1, `${what}: told ${told} s, took ${took} s`);

/** A disk was replaced, and so much is to be healed. */
async function withEmptyDisk(seed: number, files: number): Promise<Machine> {
	const machine = await mounted(seed);
	for (let at = 0; at < files; at++) await writeFile(machine, `file${at}`, 1_500_000);
	slowDisks(machine);
	expectCode(await machine.cairn("heal", "demo", "--pause"), 0);
	machine.world.wipe("/d3");
	await machine.world.advance(5000);
	expectCode(await machine.cairn("disk", "replace", "demo", "d3"), 0);
	return machine;
}

test("what is done and what is left of healing add up to what there was", async () => {
	const machine = await withEmptyDisk(61, 24);
	const before = (await status(machine)).protection.degradedBytes;
	expectCode(await machine.cairn("heal", "demo", "--resume"), 0);
	let looks = 0;
	for (let step = 0; step < 4000; step++) {
		const { healing, protection } = await status(machine);
		if (!healing.active && protection.degradedBytes === 0) break;
		if (healing.active) {
			looks++;
			assert.ok(
				healing.doneBytes + healing.remainingBytes <= before,
				`${healing.doneBytes} done, ${healing.remainingBytes} left of ${before}`,
			);
			assert.ok(
				healing.doneBytes <= before - protection.degradedBytes,
				`${healing.doneBytes} done, ${protection.degradedBytes} degraded of ${before}`,
			);
		}
		await machine.world.advance(300);
	}
	assert.ok(looks > 3, "it was seen at work");
});

test("how long healing takes is right after it had nothing that it could do, and at once when its pace is changed", async () => {
	const machine = await mounted(62);
	for (let at = 0; at < 24; at++) await writeFile(machine, `file${at}`, 1_500_000);
	slowDisks(machine);
	machine.world.wipe("/d3");
	await machine.world.advance(5000);
	expectCode(await machine.cairn("heal", "demo", "--wait"), 5);
	for (let minute = 0; minute < 5; minute++) {
		for (let step = 0; step < 20; step++) {
			const { state, healing } = await status(machine);
			assert.deepEqual([state, healing.active], ["degraded", false], "nothing can be done now");
			await machine.world.advance(3000);
		}
	}
	const stuck = await status(machine);
	assert.equal(stuck.healing.remainingBytes, stuck.protection.degradedBytes, "not done is not nothing to do");
	expectCode(await machine.cairn("status", "demo"), 0, /healing +34\.3 MiB wait: there is no other disk that fits/);
	expectCode(await machine.cairn("explain", "/mnt/demo/file0"), 0, /safety +1 of 1 segment degraded: there is no other disk that fits/);
	const plan = (await machine.cairn("disk", "replace", "demo", "d3", "--dry-run", "--json")).json;
	expectCode(await machine.cairn("disk", "replace", "demo", "d3"), 0);
	within(plan.work.seconds, await healed(machine), "before it began");

	expectCode(await machine.cairn("heal", "demo", "--tranquility", "20"), 0);
	machine.world.wipe("/d5");
	await machine.world.advance(5000);
	const gentle = (await machine.cairn("disk", "replace", "demo", "d5", "--dry-run", "--json")).json;
	expectCode(await machine.cairn("disk", "replace", "demo", "d5"), 0);
	await machine.world.advance(15_000);
	const { etaSeconds } = (await status(machine)).healing;
	assert.ok(etaSeconds > 4 * plan.work.seconds, `${etaSeconds} s`);
	const tookSeconds = await healed(machine);
	within(etaSeconds, tookSeconds, "with rests");
	// Two at a time get in each other's way, and with rests they do not.
	within(gentle.work.seconds, 15 + tookSeconds, "before, with rests that were never measured", 3);
});

test("a preview that has nothing measured to go by counts the rests too", async () => {
	const machine = await withEmptyDisk(63, 12);
	expectCode(await machine.cairn("heal", "demo", "--tranquility", "10"), 0);
	const plan = (await machine.cairn("disk", "drain", "demo", "d1", "--dry-run", "--allow-degraded", "--json")).json;
	assert.equal(plan.work.basis, "sampled");
	expectCode(await machine.cairn("heal", "demo", "--tranquility", "0"), 0);
	const quick = (await machine.cairn("disk", "drain", "demo", "d1", "--dry-run", "--allow-degraded", "--json")).json;
	assert.ok(plan.work.seconds > 4 * quick.work.seconds, `${plan.work.seconds} s, ${quick.work.seconds} s`);
});

test("what a read finds damaged while other things are healed comes before what is less at risk", async () => {
	const machine = await withEmptyDisk(64, 24);
	const survives = async (losses: number): Promise<number> => {
		const { json } = await machine.cairn("ledger", "demo", "--json");
		return json.survival.find((one: { losses: number }) => one.losses === losses)?.recordedBytes ?? 0;
	};
	expectCode(await machine.cairn("heal", "demo", "--tranquility", "20"), 0);
	expectCode(await machine.cairn("heal", "demo", "--resume"), 0);
	await machine.world.advance(1000);
	const explained = (await machine.cairn("explain", "/mnt/demo/file23", "--json")).json;
	assert.equal(explained.segments.length, 1);
	for (const name of machine.world.disk("/d1").files())
		if (name.startsWith("pack/")) machine.world.corrupt("/d1", name, 0, machine.world.disk("/d1").peek(name).length);
	await readFile(machine, "file23");
	assert.equal(await survives(0), 1_500_000, "it hangs on one more loss");
	const before = await survives(1);
	assert.ok(before > 15_000_000, `${before}`);
	for (let step = 0; step < 4000 && (await survives(0)) > 0; step++) await machine.world.advance(100);
	assert.equal(await survives(0), 0);
	assert.ok((await survives(1)) > before - 6_000_000, `${await survives(1)} of ${before} wait still`);
});

test("a dry run repairs nothing: what it found stays, is told, and is mended when that is asked for", async () => {
	const machine = await mounted(65);
	await writeFile(machine, "film", 1_500_000);
	expectCode(await machine.cairn("verify", "demo"), 0);
	expectCode(await machine.cairn("explain", "/mnt/demo/film"), 0, /safety +1 of 1 segment proven in full \(oldest proof/);
	for (const name of machine.world.disk("/d1").files())
		if (name.startsWith("pack/")) machine.world.corrupt("/d1", name, 0, machine.world.disk("/d1").peek(name).length);
	for (const look of [1, 2, 3]) {
		const found = await machine.cairn("verify", "demo", "--dry-run", "--json");
		expectCode(found, 5);
		assert.deepEqual([found.json.corrupt, found.json.repaired], [1, 0], `look ${look}`);
		await machine.world.advance(20_000);
	}
	expectCode(await machine.cairn("scrub", "demo", "start", "--dry-run", "--intensity", "high"), 0);
	await machine.world.advance(20_000);
	expectCode(await machine.cairn("scrub", "demo", "status"), 0, /dry run +ended .*1 corrupt, 0 missing, nothing changed/);
	expectCode(await machine.cairn("scrub", "demo", "status"), 0, /last pass +none has come to its end yet/);
	expectCode(await machine.cairn("status", "demo"), 0, /demo +degraded[\s\S]*healing +1\.4 MiB wait: the healer has yet to come to them/);
	expectCode(await machine.cairn("ledger", "demo"), 0, /what a dry run found is mended when it is asked for, or read: cairn heal demo/);
	expectCode(await machine.cairn("heal", "demo", "--wait"), 0);
	const after = await machine.cairn("verify", "demo", "--dry-run", "--json");
	expectCode(after, 0);
	assert.equal(after.json.corrupt, 0);
	expectCode(await machine.cairn("status", "demo"), 0, /demo +running[\s\S]*healing +nothing to do/);
});

test("a scrub that was stopped does not begin again at once, and takes no options that do nothing", async () => {
	const machine = await mounted(66);
	for (let at = 0; at < 8; at++) await writeFile(machine, `file${at}`, 1_500_000);
	slowDisks(machine);
	expectCode(await machine.cairn("scrub", "demo", "pause", "--intensity", "high"), 2, /schedule --intensity high/);
	expectCode(await machine.cairn("scrub", "demo", "resume", "--dry-run"), 2, /start --dry-run/);
	expectCode(await machine.cairn("scrub", "demo", "schedule", "continuous", "--intensity", "low"), 0);
	const state = async () => (await machine.cairn("scrub", "demo", "status", "--json")).json.state;
	for (let step = 0; step < 100 && (await state()) !== "running"; step++) await machine.world.advance(1000);
	expectCode(await machine.cairn("scrub", "demo", "stop"), 0, /was stopped/);
	for (let minute = 0; minute < 10; minute++) {
		await machine.world.advance(60_000);
		assert.equal(await state(), "idle");
	}
});
