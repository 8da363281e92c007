import assert from "node:assert/strict";
import { test } from "node:test";
import type { Machine } from "./machine.test-support.ts";
import { expectCode, mounted, writeFile } from "./demo.test-support.ts";

test("a disk that becomes slower than it was and than the others is the last choice, and comes back after a calm", async () => {
	const machine: Machine = await mounted(36);
	for (let at = 1; at <= 6; at++) machine.world.latency(`/d${at}`, 1, 4);
	let written = 0;
	const minutes = async (count: number): Promise<void> => {
		for (let at = 0; at < count; at++) {
			for (let file = 0; file < 12; file++) await writeFile(machine, `file${written++}`, 150_000);
			await machine.world.advance(60_000);
		}
	};
	const shown = async () => (await machine.cairn("disk", "show", "demo", "d3", "--json")).json;
	await minutes(3);
	assert.equal((await shown()).state, "healthy");
	machine.world.latency("/d3", 200, 400);
	await minutes(8);
	const slow = await shown();
	assert.deepEqual([slow.state, slow.history.at(-1).state], ["degraded", "degraded"]);
	assert.match(slow.history.at(-1).reason, /slow answers/);
	machine.world.latency("/d3", 1, 4);
	for (let step = 0; step < 50 && (await shown()).state !== "healthy"; step++) await machine.world.advance(600_000);
	assert.deepEqual(
		(await shown()).history.map((one: { state: string }) => one.state),
		["degraded", "healthy"],
	);
});

test("a device that says twice that it fails is the last choice for writes; one odd answer changes nothing", async () => {
	const machine = await mounted(37);
	const { json } = await machine.cairn("status", "demo", "--json");
	const domain = json.disks[3].domain;
	const shown = async () => (await machine.cairn("disk", "show", "demo", "d4", "--json")).json;
	const say = (passed: boolean) => (asked: string) => (asked === domain ? JSON.stringify({ smart_status: { passed } }) : undefined);
	machine.smart = say(false);
	await machine.world.advance(35_000);
	machine.smart = say(true);
	await machine.world.advance(100_000);
	assert.deepEqual([(await shown()).state, (await shown()).history], ["healthy", []]);
	machine.smart = say(false);
	await machine.world.advance(3_700_000);
	expectCode(await machine.cairn("disk", "show", "demo", "d4"), 0, /degraded: the device says \(SMART\): it expects to fail/);
	expectCode(await machine.cairn("status", "demo"), 0, /d4 is written only where others do not do: the device says/);
	machine.smart = say(true);
	await machine.world.advance(3_700_000 + 1_900_000);
	assert.deepEqual(
		(await shown()).history.map((one: { state: string }) => one.state),
		["degraded", "healthy"],
	);
});
