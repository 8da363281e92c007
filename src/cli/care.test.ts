import assert from "node:assert/strict";
import { test } from "node:test";
import type { Machine } from "./machine.test-support.ts";
import { expectCode, mounted, readFile, writeFile } from "./demo.test-support.ts";

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
		expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 0);
		if (dryRun) await assert.rejects(readFile(machine, "film"), { code: "ENOENT" });
		else assert.equal((await readFile(machine, "film")).length, 3_000_000);
	});
