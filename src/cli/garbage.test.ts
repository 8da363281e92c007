import assert from "node:assert/strict";
import { test } from "node:test";
import { expectCode, mounted, writeFile } from "./demo.test-support.ts";

test("verify --garbage tells what no record names, keeps what is young, and leaves alone what is not ours", async () => {
	const machine = await mounted(42);
	await writeFile(machine, "film", 3_000_000);
	await machine.world.advance(3_000);
	expectCode(await machine.cairn("verify", "demo", "--garbage"), 0, /nothing lies on the disks that no record names/);
	expectCode(await machine.cairn("verify", "demo", "--garbage", "--lost"), 2, /--garbage goes with --dry-run alone/);
	await machine.world.run(async () => {
		const disk = await machine.world.node().boot().openDisk("/d5");
		for (const name of ["pack/00000500", "notes.txt"]) {
			const file = await disk.open(name, { create: true });
			await file.write(0, [new Uint8Array(2 << 20).fill(1)]);
		}
	});
	for (const flags of [["--dry-run"], []]) {
		const told = await machine.cairn("verify", "demo", "--garbage", ...flags);
		expectCode(told, 0, /2\.\d M\S+ that no record names: 0 B \S+[^\n]*, 2\.\d M\S+ found for less than [^\n]* left alone/);
		assert.match(told.out, /d5 +pack +2\.\d[^\n]*young +pack\/00000500/);
		assert.match(told.out, /d5 +foreign [^\n]*kept +notes\.txt/);
		assert.match(told.err, /1 name on the disks is none of CairnFS/);
	}
	const { json } = await machine.cairn("verify", "demo", "--garbage", "--dry-run", "--json");
	assert.deepEqual([json.dryRun, json.foreign, json.removedBytes, json.unaccountedBytes, json.itemsTotal], [true, 1, 0, 0, 2]);
	expectCode(await machine.cairn("status", "demo"), 0, /garbage +2\.\d M\S+ that nothing names \(cairn verify demo --garbage\)/);
	assert(machine.world.disk("/d5").files().includes("pack/00000500"));
	expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
	expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 0);
	expectCode(await machine.cairn("verify", "demo", "--garbage"), 0, /nothing lies on the disks/);
	assert(machine.world.disk("/d5").files().includes("notes.txt"));
});
