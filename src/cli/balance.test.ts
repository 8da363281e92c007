import assert from "node:assert/strict";
import { test } from "node:test";
import { expectCode, readFile, six, writeFile } from "./demo.test-support.ts";
import { Machine } from "./machine.test-support.ts";

test("a disk that is added is told to be empty, and a balance fills it: planned, waited for, paused, called off", async () => {
	const machine = new Machine(41, 0);
	for (let at = 1; at <= 8; at++) machine.world.addDisk(`/d${at}`, { capacityBytes: 96 << 20 });
	machine.host.makeFolder("/mnt/demo");
	expectCode(await machine.cairn("create", "demo", ...six, "--same-device"), 0);
	expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 0);
	const bytes = await writeFile(machine, "film", 40 << 20);
	expectCode(await machine.cairn("balance", "demo", "--dry-run"), 0, /disks of demo are even/);
	expectCode(await machine.cairn("balance", "demo", "--wait"), 0, /0 B moved: the disks are even/);
	expectCode(await machine.cairn("balance", "demo", "--cancel"), 4, /no balance is under way/);
	expectCode(await machine.cairn("balance", "demo", "--cancel", "--wait"), 2, /exclude each other/);
	expectCode(await machine.cairn("balance", "nobody"), 3);

	expectCode(await machine.cairn("disk", "add", "demo", "/d7", "--dry-run"), 0, /cairn balance demo would then move \d/);
	expectCode(await machine.cairn("disk", "add", "demo", "/d7"), 0, /cairn balance demo moves \d/);
	const { json: plan } = await machine.cairn("balance", "demo", "--dry-run", "--json");
	assert.deepEqual([plan.isEven, plan.running, plan.work.basis], [false, false, "sampled"]);
	expectCode(await machine.cairn("balance", "demo", "--dry-run"), 0, /d7: 0 B -> \d[\s\S]*nothing was changed/);

	expectCode(await machine.cairn("heal", "demo", "--pause"), 0);
	expectCode(await machine.cairn("balance", "demo"), 0, /nothing moves yet: the healer is paused/);
	expectCode(await machine.cairn("balance", "demo", "--wait"), 4, /cairn heal demo --resume/);
	expectCode(await machine.cairn("status", "demo"), 0, /balance +0 B moved[^\n]*waits: the healer is paused/);
	expectCode(await machine.cairn("balance", "demo", "--cancel"), 0, /called off/);
	expectCode(await machine.cairn("heal", "demo", "--resume"), 0);

	const done = await machine.cairn("balance", "demo", "--wait", "--json");
	expectCode(done, 0);
	assert(done.json.isEven && done.json.movedBytes >= 0.8 * plan.work.payloadBytes, done.out);
	expectCode(await machine.cairn("balance", "demo", "--dry-run"), 0, /are even/);
	const { json: status } = await machine.cairn("status", "demo", "--json");
	assert.equal(status.balancing.active, false);
	const used = status.disks.find((disk: { path: string }) => disk.path === "/d7").usedBytes;
	assert(used >= 0.8 * plan.work.payloadBytes, `${used} on the new disk`);
	assert.deepEqual(await readFile(machine, "film"), bytes);
	expectCode(await machine.cairn("verify", "demo"), 0, / 0 corrupt, 0 missing/);
});

test("images of fixed size on one device do not divide its space: each has its own", async () => {
	const machine = new Machine(72, 0);
	machine.host.makeFolder("/mnt/demo");
	const sizes = { capacityBytes: 1 << 28, domain: "one", raw: true };
	for (const path of ["/i1", "/i2", "/i3", "/i4"]) machine.world.addDisk(path, sizes);
	expectCode(await machine.cairn("create", "demo", "--disk", "/i1", "/i2", "/i3", "/i4", "--same-device", "--redundancy", "rs:2+1"), 0);
	expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 0);
	const { json } = await machine.cairn("status", "demo", "--json");
	for (const disk of json.disks) assert.ok(disk.capacityBytes > 0.9 * (1 << 28), `${disk.id} has ${disk.capacityBytes}`);
	machine.world.addDisk("/i5", sizes);
	const { json: plan } = await machine.cairn("disk", "add", "demo", "/i5", "--dry-run", "--json");
	assert.ok(plan.freeBytes.after > 1.15 * plan.freeBytes.now, JSON.stringify(plan.freeBytes));
	expectCode(await machine.cairn("disk", "add", "demo", "/i5"), 0);
	const { json: after } = await machine.cairn("status", "demo", "--json");
	assert.ok(Math.abs(after.freeBytes - plan.freeBytes.after) < plan.freeBytes.after / 20, `${after.freeBytes}`);
});
