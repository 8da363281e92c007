/** Bad days at mount: others have the disks, the disks are others', the daemon dies half-way, the format is from the future. */
import assert from "node:assert/strict";
import { FsError } from "../../src/base/errors.ts";
import { crc32c } from "../../src/codec/checksum.ts";
import { silentLogger } from "../../src/base/telemetry.ts";
import { segmentHeaderBytes } from "../../src/log/record.ts";
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

/** Where a format says what version it is. */
interface Versioned {
	readonly magic: string;
	readonly at: number;
	readonly bytes: 2 | 4;
	readonly checksumAt: number;
	/** The right checksum of the bytes, whatever stands in its place. */
	checksum(slot: Uint8Array): number;
}

const u32 = (bytes: Uint8Array, at: number): number => new DataView(bytes.buffer, bytes.byteOffset).getUint32(at, true);

/** Of so many bytes, the field itself being zero. */
function zeroed(slot: Uint8Array, lengthBytes: number, checksumAt: number): number {
	const copy = slot.slice(0, lengthBytes);
	copy.fill(0, checksumAt, checksumAt + 4);
	return crc32c(copy);
}

const superblock: Versioned = { magic: "CAIRNSB1", at: 8, bytes: 4, checksumAt: 20, checksum: (slot) => zeroed(slot, u32(slot, 16), 20) };
const rawHeader: Versioned = { ...superblock, magic: "CAIRNDV1" };
const logSegment: Versioned = {
	magic: "CAIRNLG1",
	at: 8,
	bytes: 4,
	checksumAt: 16,
	checksum: (slot) => zeroed(slot, segmentHeaderBytes, 16),
};
const manifest: Versioned = {
	magic: "CAIRNKVM",
	at: 8,
	bytes: 2,
	checksumAt: 16,
	checksum: (slot) => zeroed(slot, 20 + u32(slot, 12), 16),
};
const run: Versioned = { magic: "CAIRNRUN", at: 8, bytes: 2, checksumAt: 32, checksum: (slot) => crc32c(slot.subarray(0, 32)) };
const logTail: Versioned = { magic: "CAIRNMT1", at: 8, bytes: 4, checksumAt: 12, checksum: (slot) => zeroed(slot, 64, 12) };
const ring: Versioned = { magic: "CDR1", at: 4, bytes: 4, checksumAt: 48, checksum: (slot) => crc32c(slot.subarray(0, 48)) };
/** Its checksum is at its end: set by `raiseFragment`. */
const fragmentMagic = "CAIRNFR1";

/** Raises the version in place. Answers whether there was something of this format. */
function raise(slot: Uint8Array, kind: Versioned): boolean {
	if (String.fromCharCode(...slot.subarray(0, kind.magic.length)) !== kind.magic) return false;
	const view = new DataView(slot.buffer, slot.byteOffset, slot.byteLength);
	if (kind.bytes === 2) view.setUint16(kind.at, view.getUint16(kind.at, true) + 1, true);
	else view.setUint32(kind.at, view.getUint32(kind.at, true) + 1, true);
	view.setUint32(kind.checksumAt, kind.checksum(slot), true);
	return true;
}

/** Everything of that kind on a disk, at these places of its files. Answers how many there were. */
function raiseOn(bad: BadWorld, path: string, folder: string, places: readonly number[], kind: Versioned): number {
	let raised = 0;
	for (const name of bad.world
		.disk(path)
		.files()
		.filter((one) => one.startsWith(folder))) {
		for (const at of places) if (change(bad, path, name, at, (slot) => raise(slot, kind))) raised++;
	}
	return raised;
}

function change(bad: BadWorld, path: string, name: string, at: number, edit: (slot: Uint8Array) => boolean): boolean {
	const before = bad.world.disk(path).peek(name).slice(at);
	const after = before.slice();
	if (after.length < 64 || !edit(after)) return false;
	const last = after.findLastIndex((byte, i) => byte !== before[i]);
	bad.world.corrupt(
		path,
		name,
		at,
		last + 1,
		after.subarray(0, last + 1).map((byte, i) => byte ^ (before[i] as number)),
	);
	return true;
}

function raiseFragment(slot: Uint8Array): boolean {
	const lengthBytes = u32(slot, 12);
	return raise(slot, {
		magic: fragmentMagic,
		at: 8,
		bytes: 2,
		checksumAt: lengthBytes - 4,
		checksum: (whole) => crc32c(whole.subarray(0, lengthBytes - 4)),
	});
}

export type NewerKind = "superblock" | "log" | "manifest" | "run" | "fragment" | "raw header" | "memory of the log" | "memory of writes";
export const newerKinds: readonly NewerKind[] = [
	"superblock",
	"log",
	"manifest",
	"run",
	"fragment",
	"raw header",
	"memory of the log",
	"memory of writes",
];

const raisers: Readonly<Record<NewerKind, (bad: BadWorld, path: string) => number>> = {
	superblock: (bad, path) => raiseOn(bad, path, "superblock", [0, 65_536], superblock),
	log: (bad, path) => raiseOn(bad, path, "log/", [0], logSegment),
	manifest: (bad, path) => raiseOn(bad, path, "kv/manifest", [0, 262_144], manifest),
	run: (bad, path) => raiseOn(bad, path, "kv/run-", [0], run),
	fragment: (bad, path) =>
		bad.world
			.disk(path)
			.files()
			.filter((one) => one.startsWith("pack/") && change(bad, path, one, 0, raiseFragment)).length,
	"raw header": (bad, path) => {
		const [image] = bad.world.disk(path).files();
		const size = bad.world.disk(path).peek(image as string).length;
		return raiseOn(bad, path, image as string, [0, size - 65_536], rawHeader);
	},
	"memory of the log": (bad) => raiseMemory(bad, ".log", [0, 64], logTail),
	"memory of writes": (bad) => raiseMemory(bad, ".dirty", [0, 512], ring),
};

function raiseMemory(bad: BadWorld, ending: string, places: readonly number[], kind: Versioned): number {
	let raised = 0;
	for (const name of bad.node.memoryNames.filter((one) => one.endsWith(ending)))
		bad.node.tamper(name, (bytes) => {
			for (const at of places) if (raise(bytes.subarray(at), kind)) raised++;
			return bytes;
		});
	return raised;
}

/** Steps so far, and a checksum of every file. */
function print({ world }: BadWorld): (string | number)[] {
	const files = diskPaths.flatMap((path) =>
		world
			.disk(path)
			.files()
			.map((name) => `${path}/${name} ${crc32c(world.disk(path).peek(name))}`),
	);
	return [world.steps, ...files];
}

/** Something of a format to come, on these disks: the mount is refused with words, whichever disks it is given, and nothing is written. */
export async function newerFormat(seed: number, kind: NewerKind, paths: readonly string[]): Promise<void> {
	const bad = await BadWorld.make(seed, undefined, kind === "raw header");
	const label = `seed ${seed}, newer ${kind} on ${paths.join(" ")}`;
	await bad.run(async () => {
		await bad.mount();
		await bad.put("before", 30_000);
		await bad.write("before", 500, 100);
		bad.kill();
		const raised = paths.map((path) => raisers[kind](bad, path));
		assert(
			raised.some((count) => count > 0),
			`${label}: there is something of it`,
		);
		const before = print(bad);
		for (const given of [diskPaths, ["/d1"]]) {
			const site = /^(log\.(superblock|segment|memory)|kv\.(manifest|run)|storage\.(fragment|memory)|platform\.raw)-newer$/;
			const error = await bad.mount(given).then(
				() => assert.fail(`${label}: it went through`),
				(caught: unknown) => caught as FsError,
			);
			bad.kill();
			assert(error instanceof FsError && error.code === "REFUSED" && site.test(error.site), `${label}: ${String(error)}`);
			assert.match(error.message, /was written by a newer Cairn \(format .*install that one/, label);
			if (!kind.startsWith("memory"))
				assert(
					paths.some((path) => error.message.includes(path)),
					`${label}: ${error.message}`,
				);
			const after = print(bad);
			assert.deepEqual(after, before, `${label}: nothing was written`);
		}
		if (!kind.startsWith("memory")) return;
		await bad.mount(diskPaths, true);
		await bad.check(label, "durable");
		await bad.unmount();
	});
}

/** A memory file of another size belongs to another version of the program: it is not replaced by an empty one. */
export async function otherMemorySize(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed);
	await bad.run(async () => {
		await bad.mount();
		await bad.write("acknowledged", 30_000);
		bad.kill();
		const [name] = bad.node.memoryNames.filter((one) => one.endsWith(".dirty"));
		bad.node.tamper(name as string, (bytes) => {
			const larger = new Uint8Array(2 * bytes.length);
			larger.set(bytes);
			return larger;
		});
		const steps = bad.world.steps;
		await fails(`seed ${seed}`, bad.mount(), "REFUSED", "volume.memory-size", /another version of Cairn.*mount with that version/);
		assert.equal(bad.world.steps, steps, `seed ${seed}: nothing was written`);
		bad.kill();
		bad.node.tamper(name as string, (bytes) => bytes.slice(0, bytes.length / 2));
		await bad.mount();
		await bad.check("that version again");
		await bad.unmount();
	});
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
