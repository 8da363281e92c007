import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { expectCode, mounted, readFile, six, writeFile } from "./demo.test-support.ts";
import { Machine } from "./machine.test-support.ts";

describe("the grammar", () => {
	const machine = new Machine(1, 0);

	test("help and version", async () => {
		expectCode(await machine.cairn("--help"), 0, /Exit codes: 0 done/);
		expectCode(await machine.cairn("--version"), 0, /^1\.2\.3\n$/);
		for (const verb of [
			"create",
			"mount",
			"umount",
			"status",
			"volumes",
			"upgrade",
			"destroy",
			"heal",
			"scrub",
			"verify",
			"ledger",
			"explain",
			"locks",
		]) {
			expectCode(await machine.cairn(verb, "--help"), 0, /Examples:\n {2}cairn/);
		}
		for (const verb of ["list", "add", "drain", "remove", "replace", "show", "set"])
			expectCode(await machine.cairn("disk", verb, "--help"), 0, /Examples:\n {2}cairn disk/);
	});

	test("what is no verb or flag is a usage error with a hint", async () => {
		expectCode(await machine.cairn("statsu"), 2, /Did you mean status/);
		expectCode(await machine.cairn("status", "--jsn"), 2, /Did you mean --json/);
		expectCode(await machine.cairn("disk", "lst", "demo"), 2, /Did you mean list/);
		expectCode(await machine.cairn("create", "demo"), 2, /--disk/);
		expectCode(await machine.cairn("mount", "demo"), 2, /directory/);
		expectCode(await machine.cairn("umount", "a", "b"), 2);
		expectCode(await machine.cairn(), 2, /Usage/);
	});

	test("verbs of later versions are absent", async () => {
		for (const verb of ["doctor", "snapshot"]) expectCode(await machine.cairn(verb), 2, /unknown command/);
	});

	test("wrong names, shapes and options are usage errors, as JSON too", async () => {
		expectCode(await machine.cairn("create", "../x", "--disk", "/d1"), 2, /no name for a volume/);
		expectCode(await machine.cairn("mount", "demo", "/mnt", "-o", "ro,frobnicate"), 2, /frobnicate/);
		const result = await machine.cairn("mount", "demo", "/mnt", "-o", "frobnicate", "--json");
		assert.deepEqual([result.code, result.json.error.code, result.json.error.site], [2, "EINVAL", "daemon.mount-option"]);
		assert.equal((await machine.cairn("volums", "--json")).json.error.site, "cli.usage");
	});
});

describe("create, mount, umount, destroy", () => {
	test("the life of a volume", async () => {
		const machine = new Machine(2);
		machine.host.makeFolder("/mnt/demo");
		const created = await machine.cairn("create", "demo", ...six, "--same-device", "--json");
		expectCode(created, 0);
		assert.equal(created.json.volume, "demo");
		assert.equal(created.json.redundancy, "rs:4+2");
		assert.match(created.json.id, /^[0-9a-f-]{36}$/);
		assert.equal(created.json.disks.length, 6);

		const stopped = await machine.cairn("status", "demo", "--json");
		expectCode(stopped, 0);
		assert.deepEqual([stopped.json.state, stopped.json.pid, stopped.json.mounts], ["stopped", null, []]);
		assert.equal(stopped.json.disks.length, 6);
		assert.match(stopped.json.warnings.join(), /lie on one device/);

		const mount = await machine.cairn("mount", "demo", "/mnt/demo", "--json");
		expectCode(mount, 0);
		assert.deepEqual([mount.json.volume, mount.json.mountpoint, typeof mount.json.pid], ["demo", "/mnt/demo", "number"]);
		assert.equal(machine.mounts[0]?.source, "cairn:demo");
		assert.equal(machine.mounts[0]?.type, "fuse.cairn");

		const running = await machine.cairn("status", "demo", "--json");
		expectCode(running, 0);
		assert.deepEqual([running.json.state, running.json.pid, running.json.mounts], ["running", mount.json.pid, ["/mnt/demo"]]);
		for (const field of ["capacityBytes", "usedBytes", "freeBytes"]) assert.equal(typeof running.json[field], "number", field);
		for (const field of ["fullBytes", "degradedBytes", "lostBytes"]) assert.equal(typeof running.json.protection[field], "number", field);
		assert.ok(Array.isArray(running.json.protection.targets));
		assert.deepEqual(Object.keys(running.json.healing).sort(), [
			"active",
			"doneBytes",
			"etaSeconds",
			"paused",
			"remainingBytes",
			"startedAt",
			"tranquility",
		]);
		for (const disk of running.json.disks) {
			for (const field of ["id", "path", "state", "tier", "capacityBytes", "usedBytes", "errors"]) assert.ok(field in disk, field);
		}

		const umount = await machine.cairn("umount", "/mnt/demo", "--json");
		expectCode(umount, 0);
		assert.deepEqual(umount.json, { volume: "demo", mountpoint: "/mnt/demo" });
		assert.equal(machine.mounts.length, 0);
		assert.deepEqual(machine.lines, [`ended ${mount.json.pid} cleanly`]);

		expectCode(await machine.cairn("destroy", "demo"), 2, /--yes demo/);
		expectCode(await machine.cairn("destroy", "demo", "--yes", "dem0"), 2, /--yes demo/);
		const destroyed = await machine.cairn("destroy", "demo", "--yes", "demo", "--json");
		expectCode(destroyed, 0);
		assert.equal(destroyed.json.removedDisks.length, 6);
		expectCode(await machine.cairn("status", "demo"), 3, /no volume demo/);
		assert.deepEqual((await machine.cairn("volumes", "--json")).json, []);
		// The directories are as blank as they were given.
		expectCode(await machine.cairn("create", "again", ...six, "--same-device"), 0);
	});

	test("refusals have code 4 and change nothing", async () => {
		const machine = await mounted(3);
		machine.host.makeFolder("/mnt/other");
		expectCode(await machine.cairn("create", "demo", "--disk", "/d1"), 4, /exists/);
		expectCode(await machine.cairn("create", "two", "--disk", "/d1"), 4, /d1/);
		expectCode(await machine.cairn("mount", "demo", "/mnt/other"), 4, /mounted on \/mnt\/demo already/);
		expectCode(await machine.cairn("destroy", "demo", "--yes", "demo"), 4, /umount it first/);
		machine.busy = true;
		expectCode(await machine.cairn("umount", "/mnt/demo"), 4, /bash \(4711\)/);
		machine.busy = false;
		assert.equal((await machine.cairn("status", "demo", "--json")).json.state, "running");
		expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
	});

	test("mount points that are no good", async () => {
		const machine = new Machine(4);
		expectCode(await machine.cairn("create", "demo", ...six, "--same-device"), 0);
		expectCode(await machine.cairn("mount", "demo", "/mnt/absent"), 3, /does not exist/);
		machine.host.makeFolder("/mnt/full/something");
		expectCode(await machine.cairn("mount", "demo", "/mnt/full"), 4, /not empty/);
		machine.host.files.set("/mnt/file", new Uint8Array(1));
		expectCode(await machine.cairn("mount", "demo", "/mnt/file"), 4, /not a directory/);
		expectCode(await machine.cairn("mount", "absent", "/mnt/full"), 3, /no volume absent/);
		machine.fuseMissing = "no /dev/fuse: load the module";
		expectCode(await machine.cairn("mount", "demo", "/mnt/full"), 1, /load the module/);
		assert.equal(machine.mounts.length, 0);
		// Nothing of the failed attempts keeps the disks.
		machine.fuseMissing = undefined;
		machine.host.makeFolder("/mnt/good");
		expectCode(await machine.cairn("mount", "demo", "/mnt/good", "-o", "ro"), 0);
		assert.deepEqual(
			machine.mounts.map((one) => one.readOnly),
			[true],
		);
		expectCode(await machine.cairn("umount", "/mnt/good"), 0);
	});

	test("nothing there: 3; not mounted: 6", async () => {
		const machine = new Machine(5);
		expectCode(await machine.cairn("umount", "/mnt"), 3, /no volume is mounted/);
		expectCode(await machine.cairn("heal", "absent"), 3);
		expectCode(await machine.cairn("create", "demo", ...six, "--same-device"), 0);
		for (const words of [
			["heal", "demo"],
			["verify", "demo"],
			["disk", "replace", "demo", "d1"],
			["disk", "drain", "demo", "d1"],
			["disk", "remove", "demo", "d1"],
		]) {
			expectCode(await machine.cairn(...words), 6, /mount it first/);
		}
		expectCode(await machine.cairn("explain", "/etc/passwd"), 3, /in no mounted volume/);
	});

	test("too few disks need --allow-degraded", async () => {
		const machine = new Machine(6, 3);
		const three = ["--disk", "/d1", "/d2", "/d3", "--same-device"];
		expectCode(await machine.cairn("create", "demo", ...three, "--redundancy", "rs:4+2"), 4, /--allow-degraded/);
		expectCode(await machine.cairn("create", "demo", ...three, "--redundancy", "raid5"), 2, /raid5/);
		expectCode(await machine.cairn("create", "demo", "--disk", "/d1", "/d1"), 2, /twice/);
		expectCode(await machine.cairn("create", "demo", ...three, "--redundancy", "rs:4+2", "--allow-degraded"), 0);
	});

	test("a machine that does not know a volume finds it by one disk", async () => {
		const machine = await mounted(7);
		expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
		machine.host.files.delete("/var/lib/cairn/demo/volume.json");
		expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 3);
		expectCode(await machine.cairn("mount", "demo", "/mnt/demo", "--disk", "/d4"), 0);
		assert.equal((await machine.cairn("status", "demo", "--json")).json.state, "running");
		expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
		expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 0);
	});
});

describe("a daemon that was killed", () => {
	test("is seen as stopped; mount cleans up, takes over and has everything acknowledged", async () => {
		const machine = await mounted(8);
		const bytes = await writeFile(machine, "film", 3_000_000);
		machine.kill();
		const status = await machine.cairn("status", "demo", "--json");
		assert.equal(status.json.state, "stopped");
		assert.match(status.json.warnings.join("\n"), /not unmounted cleanly/);
		assert.match(status.json.warnings.join("\n"), /its daemon is gone/);
		expectCode(await machine.cairn("heal", "demo"), 6);
		expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 0);
		assert.equal(machine.mounts.length, 1);
		assert.deepEqual(await readFile(machine, "film"), bytes);
		expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
	});

	test("and takes its time to die: mount waits until the old mount is dead", async () => {
		const machine = await mounted(22);
		const bytes = await writeFile(machine, "film", 3_000_000);
		machine.kill();
		machine.hangsUntilMs = machine.world.nowMs + 8_000;
		expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 0);
		assert.equal(machine.mounts.length, 1);
		assert.deepEqual(await readFile(machine, "film"), bytes);
		expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
	});

	test("and still holds a disk: mount waits for it a moment, then does without it, and takes it back when it is free", async () => {
		const machine = await mounted(23);
		machine.kill();
		const other = machine.world.node().boot();
		const hold = async (path: string): Promise<() => Promise<void>> => {
			const disk = await machine.world.run(other.openDisk(path));
			await machine.world.run(disk.lock());
			return () => disk.close();
		};
		const letGo = await hold("/d3");
		void machine.world.sleep(2_000).then(letGo);
		const { out, err, code } = await machine.cairn("mount", "demo", "/mnt/demo");
		assert.equal(code, 0);
		assert.doesNotMatch(out + err, /missing/);
		expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
		const free = await hold("/d3");
		expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 0, /d3 .*is missing \(another process has it.*mounted degraded/);
		await machine.world.run(free);
		await machine.world.advance(5_000);
		const { json } = await machine.cairn("status", "demo", "--json");
		assert.deepEqual(
			json.disks.map(({ state }: { readonly state: string }) => state).filter((state: string) => state !== "healthy"),
			[],
		);
		expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
		for (const path of ["/d1", "/d2", "/d3"]) await hold(path);
		expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 4, /in use by another daemon/);
	});

	test("umount takes a dead mount away", async () => {
		const machine = await mounted(9);
		machine.kill();
		expectCode(await machine.cairn("umount", "/mnt/demo"), 0, /its daemon was gone/);
		assert.equal(machine.mounts.length, 0);
	});
});

describe("a daemon that serves", () => {
	test("makes its socket anew when somebody removes it", async () => {
		const machine = await mounted(20);
		machine.host.sockets.clear();
		expectCode(await machine.cairn("heal", "demo"), 6);
		await machine.world.advance(6000);
		assert.equal((await machine.cairn("status", "demo", "--json")).json.state, "running");
		expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
		assert.equal(machine.host.sockets.size, 0);
	});

	test("ends cleanly on a signal, over the heads of programs that use the mount", async () => {
		const machine = await mounted(21);
		const bytes = await writeFile(machine, "film", 1_000_000);
		machine.busy = true;
		const [daemon] = machine.daemons.values();
		assert.ok(daemon);
		const ends = await machine.world.run(Promise.all([daemon.stop("SIGTERM"), daemon.stop("SIGINT")]));
		assert.deepEqual(
			ends.map((end) => [end.clean, end.exitCode]),
			[
				[true, 0],
				[true, 0],
			],
		);
		assert.equal(machine.mounts.length, 0);
		machine.busy = false;
		assert.doesNotMatch((await machine.cairn("status", "demo", "--json")).json.warnings.join(), /cleanly|missing|still mounted/);
		expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 0);
		assert.deepEqual(await readFile(machine, "film"), bytes);
	});

	test("is not replaced where nothing could start another", async () => {
		const machine = await mounted(23);
		expectCode(await machine.cairn("upgrade", "demo"), 4, /unmount it and mount it again/);
		assert.equal((await machine.cairn("status", "demo", "--json")).json.state, "running");
		for (const program of [[], ["node", "main.js"], ["/node"], "/node", ["/node", "x\0", "/main.js"], ["/node", 7, "/main.js"]])
			assert.equal((await machine.call("demo", "hand-over", { program })).data["exitCode"], 2, JSON.stringify(program));
		expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
		expectCode(await machine.cairn("upgrade", "demo"), 6, /mount it first/);
		expectCode(await machine.cairn("upgrade", "absent"), 3);
	});

	test("refuses what it does not know, on its socket too", async () => {
		const machine = await mounted(22);
		const result = await machine.call("demo", "frobnicate", {});
		assert.deepEqual([result.site, result.data["exitCode"]], ["control.verb-unknown", 2]);
		for (const [verb, given] of [
			["explain", {}],
			["explain", { path: 7 }],
			["heal", { wait: "yes" }],
			["disk-replace", {}],
			["disk-add", {}],
			["disk-add", { paths: [] }],
			["disk-add", { paths: ["/d9", 7] }],
			["disk-drain", { disk: "d1", wait: 1 }],
			["disk-remove", {}],
			["__proto__", {}],
		] as const) {
			assert.equal((await machine.call("demo", verb, given)).data["exitCode"], 2, verb);
		}
	});
});

describe("disks that come and go", () => {
	test("drain says beforehand, when it begins and in the end what finds no place on the other disks", async () => {
		const machine = await mounted(33);
		machine.world.addDisk("/d7", { capacityBytes: 1 << 20 });
		await writeFile(machine, "film", 8_000_000);
		expectCode(await machine.cairn("disk", "add", "demo", "/d7"), 0);
		const plan = await machine.cairn("disk", "drain", "demo", "d2", "--dry-run", "--json");
		expectCode(plan, 0);
		assert.ok(plan.json.unplacedBytes > 0 && plan.json.unplacedBytes <= plan.json.moveBytes, `${plan.json.unplacedBytes}`);
		expectCode(
			await machine.cairn("disk", "drain", "demo", "d2", "--dry-run"),
			0,
			/room {8}for .* no other disk that may hold it has room/,
		);
		const begun = await machine.cairn("disk", "drain", "demo", "d2");
		expectCode(begun, 0, /is being emptied/);
		assert.match(begun.err, /no other disk that may hold it has room now/);
		expectCode(await machine.cairn("disk", "drain", "demo", "d2", "--wait"), 5, /still holds/);
		expectCode(await machine.cairn("disk", "list", "demo"), 0, /d2\s+draining.*what is on it moves/);
	});

	test("added, drained, removed, exchanged; every step says what it would do, and what keeps it from being done", async () => {
		const machine = await mounted(30);
		for (const path of ["/d7", "/d8"]) machine.world.addDisk(path, { capacityBytes: 1 << 30 });
		const bytes = await writeFile(machine, "film", 5_000_000);
		expectCode(await machine.cairn("disk", "add", "demo", "/d7", "/d7"), 2, /twice/);
		expectCode(await machine.cairn("disk", "add", "demo", "/nowhere"), 3, /does not exist/);
		expectCode(await machine.cairn("disk", "add", "demo", "/d1"), 4, /already is a disk/);
		expectCode(await machine.cairn("disk", "drain", "demo", "d2"), 4, /too few for rs:4\+2.*--allow-degraded/);
		expectCode(await machine.cairn("disk", "drain", "demo", "d2", "--cancel", "--wait"), 2, /no other option/);
		expectCode(await machine.cairn("disk", "remove", "demo", "d2"), 4, /in use.*fragments/);
		const plan = await machine.cairn("disk", "add", "demo", "/d7", "--dry-run", "--json");
		expectCode(plan, 0);
		assert.equal(plan.json.dryRun, true);
		assert.ok(plan.json.capacityBytes.after > plan.json.capacityBytes.now);
		expectCode(await machine.cairn("disk", "add", "demo", "/d7", "--dry-run"), 0, /nothing was changed/);
		const before = await machine.cairn("status", "demo", "--json");
		assert.equal(before.json.disks.length, 6);

		expectCode(await machine.cairn("disk", "add", "demo", "/d7"), 0, /added d7 \(\/d7/);
		const would = await machine.cairn("disk", "drain", "demo", "/d2", "--dry-run", "--json");
		assert.deepEqual([would.json.id, would.json.fits, would.json.shapes[0].becomes], ["d2", true, "rs:4+2"]);
		assert.ok(would.json.moveBytes > 0 && would.json.fragments > 0);
		expectCode(await machine.cairn("disk", "drain", "demo", "/d2", "--dry-run"), 0, /stays as it is/);
		expectCode(await machine.cairn("disk", "drain", "demo", "/d2", "--wait"), 0, /d2 \(\/d2\) is empty/);
		expectCode(await machine.cairn("disk", "list", "demo"), 0, /d2\s+draining.*it is empty: `cairn disk remove`/);
		expectCode(await machine.cairn("disk", "drain", "demo", "d2", "--cancel"), 0, /used again/);
		expectCode(await machine.cairn("disk", "drain", "demo", "d2"), 0, /is being emptied/);
		expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
		const stopped = await machine.cairn("status", "demo", "--json");
		assert.equal(stopped.json.disks[1].state, "draining");
		expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 0);
		expectCode(await machine.cairn("disk", "drain", "demo", "d2", "--wait"), 0);
		expectCode(await machine.cairn("disk", "remove", "demo", "d2", "--dry-run"), 0, /could leave now/);
		const removed = await machine.cairn("disk", "remove", "demo", "d2", "--json");
		assert.deepEqual(removed.json, { id: "d2", path: "/d2", cleared: true });
		expectCode(await machine.cairn("disk", "remove", "demo", "d2"), 3, /no disk d2/);

		expectCode(await machine.cairn("disk", "replace", "demo", "d3", "/d8"), 0, /d8 \(\/d8\) takes over from d3/);
		expectCode(await machine.cairn("disk", "drain", "demo", "d3", "--wait"), 0, /is empty|has left/);
		await machine.world.advance(5_000);
		const ids = (await machine.cairn("disk", "list", "demo", "--json")).json.map((disk: { id: string }) => disk.id);
		assert.deepEqual(ids, ["d1", "d4", "d5", "d6", "d7", "d8"]);
		assert.deepEqual(await readFile(machine, "film"), bytes);
		expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
		// What this machine remembers follows: the places that were left may serve another volume.
		expectCode(await machine.cairn("create", "other", "--disk", "/d2", "/d3", "--same-device"), 0);
		expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 0);
		assert.deepEqual(await readFile(machine, "film"), bytes);
	});
});

describe("care", () => {
	test("lost disks are reported, read around, replaced, healed, verified", async () => {
		const machine = await mounted(10);
		const bytes = await writeFile(machine, "film", 5_000_000);
		const explained = await machine.cairn("explain", "/mnt/demo/film", "--json");
		expectCode(explained, 0);
		assert.deepEqual([explained.json.path, explained.json.redundancy.value, explained.json.inline], ["/mnt/demo/film", "rs:4+2", false]);
		assert.ok(explained.json.segments.length >= 2);
		assert.deepEqual(Object.keys(explained.json.segments[0].fragments[0]).sort(), ["disk", "index", "provenAt", "state"]);
		expectCode(await machine.cairn("explain", "/mnt/demo/film"), 0, /PROVEN[\s\S]*recorded, not yet proven/);
		expectCode(await machine.cairn("status", "demo"), 0, /protection {2}4\.8 MiB recorded, not yet proven, nothing degraded/);
		expectCode(await machine.cairn("ledger", "demo"), 0, /rs:4\+2 +4\.8 MiB +0 B +4\.8 MiB +0 B +0 B +never/);
		expectCode(await machine.cairn("explain", "/mnt/demo/nothing"), 3, /\/mnt\/demo\/nothing does not exist/);

		machine.world.wipe("/d1");
		machine.world.vanish("/d2");
		assert.deepEqual(await readFile(machine, "film"), bytes);
		await machine.world.advance(5000);
		const degraded = await machine.cairn("status", "demo", "--json");
		assert.equal(degraded.json.state, "degraded");
		assert.ok(degraded.json.protection.degradedBytes > 0);
		expectCode(await machine.cairn("disk", "list", "demo"), 0, /failed/);
		expectCode(await machine.cairn("ledger", "demo"), 0, /there is no other disk that fits[\s\S]*cairn disk replace demo/);
		expectCode(await machine.cairn("disk", "replace", "demo", "d3"), 4, /healthy|works/);
		expectCode(await machine.cairn("disk", "replace", "demo", "d77"), 3, /d77/);

		machine.world.reappear("/d2");
		machine.world.wipe("/d2");
		const replaced = await machine.cairn("disk", "replace", "demo", "d1", "--json");
		expectCode(replaced, 0);
		assert.equal(replaced.json.path, "/d1");
		expectCode(await machine.cairn("disk", "replace", "demo", "/d2"), 0);
		const healed = await machine.cairn("heal", "demo", "--wait", "--json");
		expectCode(healed, 0);
		assert.deepEqual([healed.json.remainingBytes, healed.json.lostBytes], [0, 0]);
		const verified = await machine.cairn("verify", "demo", "--json");
		expectCode(verified, 0);
		for (const field of ["corrupt", "missing", "repaired", "unrecoverable"]) assert.equal(verified.json[field], 0, field);
		assert.ok(verified.json.checkedFragments > 0);
		expectCode(
			await machine.cairn("status", "demo"),
			0,
			/protection {2}4\.8 MiB proven in full \(oldest proof \d+ s ago\), nothing degraded/,
		);
		const ledger = await machine.cairn("ledger", "demo", "--json");
		assert.deepEqual(
			[ledger.json.provenBytes, ledger.json.recordedBytes, ledger.json.levels[0].redundancy, ledger.json.shortages],
			[5_000_000, 0, "rs:4+2", []],
		);
		const whole = await machine.cairn("status", "demo", "--json");
		assert.deepEqual([whole.json.state, whole.json.protection.degradedBytes, whole.json.disks.length], ["running", 0, 6]);
		assert.deepEqual(await readFile(machine, "film"), bytes);
		expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
		const stopped = await machine.cairn("status", "demo", "--json");
		assert.deepEqual([stopped.json.disks.length, stopped.json.warnings.length], [6, 1]);
		assert.match(stopped.json.warnings[0], /lie on one device/);
	});

	test("verify finds rot (5 in a dry run), repairs it, and shows progress", async () => {
		const machine = await mounted(11);
		const bytes = await writeFile(machine, "film", 3_000_000);
		machine.world.rot("/d3", 0.3, (name) => name.startsWith("pack/"));
		const dry = await machine.cairn("verify", "demo", "--dry-run", "--json");
		expectCode(dry, 5, /verifying \d+ %/);
		assert.ok(dry.json.corrupt > 0 && dry.json.repaired === 0);
		const wet = await machine.cairn("verify", "demo", "--json");
		expectCode(wet, 0);
		assert.equal(wet.json.repaired, wet.json.corrupt + wet.json.missing);
		assert.equal((await machine.cairn("verify", "demo", "--dry-run", "--json")).json.corrupt, 0);
		assert.deepEqual(await readFile(machine, "film"), bytes);
	});

	test("the scrub and the healer are told when and how, and it stays so over restarts", async () => {
		const machine = await mounted(21);
		await writeFile(machine, "film", 3_000_000);
		expectCode(
			await machine.cairn("scrub", "demo", "status"),
			0,
			/idle[\s\S]*nightly, 01:00 to 07:00 UTC, intensity low[\s\S]*none has come to its end/,
		);
		for (const wrong of [
			["frob"],
			["start", "nightly"],
			["schedule", "weekly"],
			["schedule", "nightly", "--hour", "24"],
			["start", "--intensity", "x"],
		])
			expectCode(await machine.cairn("scrub", "demo", ...wrong), 2);
		expectCode(await machine.cairn("scrub", "demo", "pause"), 4, /nothing to pause/);
		expectCode(await machine.cairn("scrub", "demo", "start", "--intensity", "high"), 0, /scrub reads/);
		await machine.world.advance(60_000);
		expectCode(
			await machine.cairn("scrub", "demo", "status"),
			0,
			/last pass +ended [^\n]* 0 corrupt, 0 missing, 0 repaired, 0 beyond recovery/,
		);
		expectCode(await machine.cairn("status", "demo"), 0, /scrub +nightly[^\n]*; ended/);
		expectCode(
			await machine.cairn("scrub", "demo", "schedule", "nightly", "--hour", "3", "--intensity", "medium"),
			0,
			/03:00 to 09:00 UTC/,
		);
		expectCode(await machine.cairn("heal", "demo", "--tranquility", "4", "--pause"), 0, /is paused and rests 4 times/);
		for (const wrong of [
			["--tranquility", "101"],
			["--tranquility", "x"],
			["--pause", "--resume"],
			["--pause", "--wait"],
		])
			expectCode(await machine.cairn("heal", "demo", ...wrong), 2);
		expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
		expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 0);
		const now = await machine.cairn("scrub", "demo", "status", "--json");
		assert.deepEqual(
			[now.json.state, now.json.schedule, now.json.hourUtc, now.json.intensity, now.json.lastPass.repaired],
			["idle", "nightly", 3, "medium", 0],
		);
		expectCode(await machine.cairn("heal", "demo", "--resume", "--json"), 0);
		const { json } = await machine.cairn("status", "demo", "--json");
		assert.deepEqual([json.healing.paused, json.healing.tranquility, json.protection.provenBytes], [false, 4, 3_000_000]);
		expectCode(await machine.cairn("verify", "demo", "--resume"), 4, /no verify was interrupted/);
	});

	test("disks are shown and set: what is set stays, is respected by writes, and no word loses data", async () => {
		const machine = await mounted(22);
		expectCode(await machine.cairn("disk", "set", "demo", "d2", "degraded"), 0, /degraded: set by the operator[\s\S]*set to degraded/);
		expectCode(await machine.cairn("disk", "set", "demo", "/d3", "suspect", "--json"), 0);
		expectCode(await machine.cairn("disk", "set", "demo", "d2", "broken"), 2, /no health/);
		expectCode(await machine.cairn("disk", "set", "demo", "d9", "auto"), 3);
		await writeFile(machine, "film", 3_000_000);
		const placed = await machine.cairn("explain", "/mnt/demo/film", "--json");
		const used = new Set(
			placed.json.segments.flatMap((one: { fragments: { disk: string }[] }) => one.fragments.map((fragment) => fragment.disk)),
		);
		assert.deepEqual([...used].sort(), ["d1", "d2", "d4", "d5", "d6"], "the degraded one is needed, the suspect one is not written");
		expectCode(await machine.cairn("status", "demo"), 0, /d2 is written only where others do not do/);
		expectCode(await machine.cairn("disk", "set", "demo", "d3", "auto"), 0, /d3 \(\/d3\) is healthy\n/);
		expectCode(await machine.cairn("heal", "demo", "--wait"), 0);
		expectCode(await machine.cairn("disk", "set", "demo", "d2", "failed"), 0, /is failed: the operator set it failed/);
		expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
		expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 0);
		const shown = await machine.cairn("disk", "show", "demo", "d2", "--json");
		assert.deepEqual([shown.json.healthSet, shown.json.reason], ["failed", "the operator set it failed"]);
		assert.deepEqual(
			shown.json.history.map((one: { state: string }) => one.state),
			["degraded", "failed"],
		);
		expectCode(await machine.cairn("disk", "show", "demo", "d2"), 0, /history +\d{4}-[^\n]*degraded: set by the operator/);
		expectCode(await machine.cairn("heal", "demo", "--pause"), 0);
		machine.world.vanish("/d5");
		await machine.world.advance(4000);
		machine.world.vanish("/d6");
		await machine.world.advance(4000);
		expectCode(await machine.cairn("disk", "set", "demo", "d1", "failed"), 4, /cannot be given up/);
	});

	test("exports: kept with the volume, served from the first one on until the last is gone", async () => {
		const machine = await mounted(24);
		expectCode(await machine.cairn("export", "list"), 0, /nothing is exported/);
		assert.equal(machine.host.ports.get("tcp", 2049), undefined, "nothing listens");
		const added = await machine.cairn("export", "add", "demo", "--squash", "none", "--json");
		expectCode(added, 0);
		const { name, path, url, privilegedPorts } = added.json;
		assert.deepEqual([name, path, url, privilegedPorts], ["demo", "/demo", "nfs://127.0.0.1/demo?nfsport=2049&mountport=2049", true]);
		expectCode(await machine.cairn("export", "add", "demo"), 4, /exported already/);
		expectCode(await machine.cairn("export", "add", "demo:/none"), 3, /no directory \/none/);
		for (const wrong of ["demo:none", "/mnt/demo", ":/x"])
			expectCode(await machine.cairn("export", "add", wrong), 2, /is no volume|is a path/);
		expectCode(await machine.cairn("export", "add", "demo:/a/../b"), 2, /"\.\."/);
		expectCode(await machine.cairn("export", "add", "demo", "--clients", "10.0.0.1/8"), 2, /bits behind the prefix/);
		expectCode(await machine.cairn("export", "add", "demo", "--squash", "some"), 2, /root, all, none/);
		expectCode(await machine.cairn("export", "remove", "demo:/none"), 3, /not exported/);
		expectCode(await machine.cairn("export", "add", "absent"), 3);
		expectCode(await machine.cairn("status", "demo"), 0, /NFS +1 export on port 2049, 0 connections, no clients/);
		expectCode(await machine.cairn("export", "serve", "demo", "--port", "2050"), 0, /port 2050/);
		assert.equal(machine.host.ports.get("tcp", 2049), undefined);
		machine.kill();
		expectCode(await machine.cairn("export", "list"), 0, /nothing is exported/);
		expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 0);
		assert.equal((await machine.cairn("export", "list", "--json")).json[0].url, "nfs://127.0.0.1/demo?nfsport=2050&mountport=2050");
		assert.ok(machine.host.ports.get("tcp", 2050));
		expectCode(await machine.cairn("export", "remove", "demo"), 0, /exported no more/);
		assert.equal(machine.host.ports.get("tcp", 2050), undefined, "nothing listens any more");
		expectCode(await machine.cairn("export", "add", "demo"), 0, /nfsport=2050/);
		expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
		assert.equal(machine.host.ports.get("tcp", 2050), undefined);
		expectCode(await machine.cairn("export", "add", "demo"), 6, /not mounted/);
	});

	test("monitoring listens where it is asked to, over crashes, until the end", async () => {
		const machine = await mounted(23);
		expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
		assert.equal(machine.host.sockets.has("/tcp/9464"), false, "off until asked for");
		expectCode(await machine.cairn("mount", "demo", "/mnt/demo", "-o", "metrics=9464"), 0);
		assert.equal(machine.host.sockets.get("/tcp/9464")?.owner.alive, true);
		machine.kill();
		expectCode(await machine.cairn("mount", "demo", "/mnt/demo", "-o", "metrics=9464"), 0);
		assert.equal(machine.host.sockets.get("/tcp/9464")?.owner.alive, true);
		expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
		assert.equal(machine.host.sockets.has("/tcp/9464"), false);
		expectCode(await machine.cairn("mount", "demo", "/mnt/demo", "-o", "metrics=99999"), 2, /metrics=PORT/);
	});

	test("data beyond recovery is named, with code 5", async () => {
		const machine = await mounted(12);
		await writeFile(machine, "film", 3_000_000);
		for (const disk of ["/d4", "/d5", "/d6"]) machine.world.wipe(disk);
		await machine.world.advance(5000);
		const lost = await machine.cairn("verify", "demo", "--lost", "--json");
		expectCode(lost, 5);
		assert.ok(lost.json.unrecoverable > 0);
		assert.deepEqual(
			lost.json.lostPaths.map((path: string) => path.replace(/^\//, "")),
			["film"],
		);
	});

	test("missing disks at mount: degraded, said so, 0; too many: refused with 5", async () => {
		const machine = await mounted(13);
		expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
		machine.world.vanish("/d5");
		const degraded = await machine.cairn("mount", "demo", "/mnt/demo", "--json");
		expectCode(degraded, 0, /d5/);
		assert.match(degraded.json.warnings.join("\n"), /d5.*missing.*degraded/);
		expectCode(await machine.cairn("umount", "/mnt/demo"), 0);
		// With d5 thrown out already, three more are one too many.
		for (const disk of ["/d1", "/d2", "/d3"]) machine.world.vanish(disk);
		expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 5, /--accept-loss/);
		machine.world.vanish("/d4");
		expectCode(await machine.cairn("mount", "demo", "/mnt/demo"), 5, /--accept-loss/);
		assert.equal(machine.mounts.length, 0);
	});
});

describe("status of all", () => {
	test("volumes and status without a name list them", async () => {
		const machine = await mounted(14);
		const all = await machine.cairn("status", "--json");
		assert.deepEqual(
			all.json.map((one: { volume: string; state: string }) => [one.volume, one.state]),
			[["demo", "running"]],
		);
		const list = await machine.cairn("volumes", "--json");
		assert.deepEqual([list.json[0].volume, list.json[0].mounts, list.json[0].disks], ["demo", ["/mnt/demo"], 6]);
		expectCode(await machine.cairn("volumes"), 0, /VOLUME +STATE/);
		expectCode(await machine.cairn("status"), 0, /nothing lost/);
	});

	test("a volume whose disks are all gone is failed, and says why", async () => {
		const machine = new Machine(15);
		expectCode(await machine.cairn("create", "demo", ...six, "--same-device"), 0);
		for (let i = 1; i <= 6; i++) machine.world.vanish(`/d${i}`);
		const status = await machine.cairn("status", "demo", "--json");
		expectCode(status, 0);
		assert.equal(status.json.state, "failed");
		assert.match(status.json.warnings[0], /d1/);
	});
});
