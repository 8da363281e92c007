import assert from "node:assert/strict";
import { test } from "node:test";
import { expectCode, mounted, writeFile } from "./demo.test-support.ts";

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
