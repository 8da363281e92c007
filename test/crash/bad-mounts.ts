/** Bad days at mount: others have the disks, the disks are others', the daemon dies half-way, the format is from the future. */
import assert from "node:assert/strict";
import { crc32c } from "../../src/codec/checksum.ts";
import { silentLogger } from "../../src/base/telemetry.ts";
import { createVolume } from "../../src/volume/native/open.ts";
import { diskPaths } from "./scenario.ts";
import { BadWorld, fails } from "./bad-world.ts";

/** Another machine opens the disks while the first serves them. */
export async function secondDaemon(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed);
	await bad.run(async () => {
		await bad.mount();
		await bad.write("before", 20_000);
		const other = bad.world.node();
		await fails(`seed ${seed}`, bad.open(other.boot()), "REFUSED", "log.locked", /\/d\d is in use by another daemon/);
		await fails(`seed ${seed}, one disk`, bad.open(other.boot(), ["/d4"]), "REFUSED", "log.locked", /in use by another daemon/);
		await bad.put("after", 20_000);
		await bad.check("a second daemon was refused");
		bad.kill();
		await bad.mount();
		await bad.check("taken over after the death of the first");
		await bad.unmount();
	});
}

/** A disk of another volume among the paths. */
export async function foreignDisk(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed);
	for (const path of ["/x1", "/x2"]) bad.world.addDisk(path, { capacityBytes: 64 << 20 });
	await bad.run(async () => {
		const options = { name: "other", redundancy: "replicate:2", sameDevice: false, allowDegraded: false, uid: 0, gid: 0 };
		const node = bad.world.node();
		const logs = { logSegmentBytes: 65_536 * 8, logSegmentCount: 4 };
		await createVolume({ ...options, ...logs, diskPaths: ["/x1", "/x2"] }, { platform: node.boot(), logger: silentLogger });
		const mixed = [...diskPaths.slice(0, 5), "/x1"];
		const error = await fails(`seed ${seed}`, bad.mount(mixed), "REFUSED", "log.foreign-disk", /another volume, other .*leave it out/);
		assert.match(error.message, /^\/x1 /, `seed ${seed}`);
		await fails(`seed ${seed}`, bad.mount(["/x1", "/x2"]), "REFUSED", "volume.name", /belong to volume other, not sim/);
		await bad.mount();
		await bad.check("without the stranger");
		await fails(`seed ${seed}`, bad.volume.disks.replace("/d2", "/x1"), "REFUSED", "log.already-disk", /is a disk of volume other/);
		bad.world.vanish("/d2");
		await fails(`seed ${seed}`, bad.volume.disks.replace("/d2", "/x1"), "REFUSED", "log.already-disk", /is a disk of volume other/);
		await bad.put("goes-on", 10_000);
		await bad.unmount();
	});
}

/** An empty directory in place of a disk is nobody's until the operator says so; nothing is written into it. */
export async function emptyDirectory(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed);
	await bad.run(async () => {
		bad.world.wipe("/d3");
		await bad.mount();
		await bad.check("one disk is an empty directory");
		await bad.put("more", 100_000);
		await bad.expectDegraded(["/d3"]);
		await bad.unmount();
		assert.deepEqual(bad.world.disk("/d3").files(), [], `seed ${seed}: nothing was put into it`);
		for (const path of diskPaths) bad.world.vanish(path);
		await fails(`seed ${seed}, all disks away`, bad.mount(), "NOTFOUND", "log.no-disk", /no disk of a CairnFS volume found/);
		for (const path of diskPaths) bad.world.reappear(path);
		for (const path of ["/d1", "/d2"]) bad.world.vanish(path);
		await bad.mount(["/d4"]);
		await bad.check("any one disk finds the others");
		await bad.unmount();
	});
}

/** Superblocks of a format to come: nothing is touched. */
export async function newerFormat(seed: number, paths: readonly string[]): Promise<void> {
	const bad = await BadWorld.make(seed);
	for (const path of paths) raiseVersion(bad, path);
	await bad.run(async () => {
		const steps = bad.world.steps;
		const error = await fails(`seed ${seed}`, bad.mount(), "REFUSED", "log.superblock-newer", /newer CairnFS.*use that one/);
		assert(
			paths.some((path) => error.message.includes(path)),
			`seed ${seed}: the disk is named: ${error.message}`,
		);
		assert.equal(bad.world.steps, steps, `seed ${seed}: nothing was written`);
	});
}

/** Makes both slots say format 2, with a right checksum. */
function raiseVersion(bad: BadWorld, path: string): void {
	const bytes = bad.world.disk(path).peek("superblock");
	for (const at of [0, 64 * 1024]) {
		const view = new DataView(bytes.buffer, bytes.byteOffset + at, 64 * 1024);
		const length = view.getUint32(16, true);
		if (length === 0) continue;
		const before = bytes.slice(at, at + 24);
		view.setUint32(8, 2, true);
		view.setUint32(20, 0, true);
		view.setUint32(20, crc32c(bytes.subarray(at, at + length)), true);
		const change = before.map((byte, i) => byte ^ (bytes[at + i] as number));
		bad.world.corrupt(path, "superblock", at, 24, change);
	}
}

/**
 * A daemon dies with dirty data in memory, and its successors die at step after step of their mount ("kill"), or the power fails there
 * ("cut"). `deaths` are the steps, counted from the start of each
 * mount. Answers how many steps the last mount takes.
 */
export async function deathsDuringMount(seed: number, how: "kill" | "cut", deaths: readonly number[]): Promise<number> {
	const bad = await BadWorld.make(seed);
	const label = `seed ${seed}, ${how} at steps ${deaths.join(", ")} of the mount`;
	await bad.run(async () => {
		await bad.mount();
		await bad.put("durable", 30_000);
		await bad.put("large", 50_000, 100_000);
		await bad.syncAll();
		await bad.write("large", 70_000, 10_000);
		await bad.write("dirty", 150_000);
		await bad.put("logged", 1_500);
		await bad.write("logged", 90, 300);
		await bad.remove("small");
		await bad.remove("dir/a");
	});
	bad.kill();
	for (const death of deaths) {
		const ended = how === "kill" ? bad.world.killAt(bad.world.steps + death) : bad.world.cutAt(bad.world.steps + death);
		await bad.run(() => Promise.race([bad.mount(), ended]));
		if (bad.world.wasCut) continue;
		// The mount took fewer steps: no end may be left over for the next one.
		void bad.world.cutAt(Number.MAX_SAFE_INTEGER);
		if (how === "kill") bad.kill();
		else bad.cut();
	}
	const level = how === "cut" && deaths.length > 0 ? "durable" : "acknowledged";
	const start = bad.world.steps;
	await bad.run(() => bad.mount());
	const steps = bad.world.steps - start;
	await bad.run(async () => {
		await bad.check(label, level);
		await bad.put("goes-on", 5_000);
	});
	bad.cut();
	await bad.run(async () => {
		await bad.mount();
		await bad.check(`${label}, then the power fails`, "durable");
		await bad.unmount();
	});
	return steps;
}
