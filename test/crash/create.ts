/**
 * `create` and `destroy` end at one of their steps: what was cut is no volume, or is one that mounts; the command can be repeated, and nothing of the first attempt stays behind. Nobody else's bytes
 * are touched.
 */
import assert from "node:assert/strict";
import { silentLogger } from "../../src/base/telemetry.ts";
import { FsError } from "../../src/base/errors.ts";
import type { Platform } from "../../src/platform/interface.ts";
import type { SimNode } from "../../src/platform/sim/node.ts";
import { SimWorld } from "../../src/platform/sim/world.ts";
import type { CreatedVolume, NativeVolume } from "../../src/volume/native/interface.ts";
import { destroyVolume } from "../../src/volume/native/offline.ts";
import { createVolume, openVolume } from "../../src/volume/native/open.ts";
import { fails } from "./bad-world.ts";
import { caller, pattern } from "./scenario.ts";

const MiB = 1024 * 1024;
const paths = ["/n1", "/n2", "/n3"];
const memory = { logTailBytes: MiB, dirtyRingBytes: MiB };

export type End = "kill" | "cut";

export interface CreateRun {
	readonly seed: number;
	readonly how: End;
	/** Undefined: it comes to its end. */
	readonly at: number | undefined;
	readonly raw?: boolean;
	/** A sync that does nothing. */
	readonly ignored?: string;
	/** The repeated command fails at each of these calls, too. */
	readonly again?: readonly number[];
}

interface Town {
	readonly label: string;
	readonly world: SimWorld;
	readonly node: SimNode;
	readonly raw: boolean;
}

function town({ seed, how, at, ignored, raw = false }: CreateRun): Town {
	const world = new SimWorld({ seed });
	if (ignored !== undefined) world.ignoreSync(ignored);
	for (const path of [...paths, "/other"]) world.addDisk(path, { capacityBytes: 64 * MiB, raw });
	return { label: `seed ${seed}, ${how} at ${at}${raw ? ", raw devices" : ""}`, world, node: world.node(), raw };
}

function create(platform: Platform, diskPaths: readonly string[] = paths, name = "new"): Promise<CreatedVolume> {
	const shape = { redundancy: diskPaths.length === 1 ? "replicate:1" : "rs:2+1", sameDevice: false, allowDegraded: false, uid: 0, gid: 0 };
	const log = { logSegmentBytes: 128 * 1024, logSegmentCount: 4, memory };
	return createVolume({ name, diskPaths, ...shape, ...log }, { platform, logger: silentLogger });
}

const open = (platform: Platform): Promise<NativeVolume> =>
	openVolume({ name: "new", diskPaths: paths, acceptLoss: false, memory }, { platform, logger: silentLogger });

/** What `work` does until the end that was asked for; then the process, or the machine, is gone. Answers the steps it took. */
async function until({ world, node }: Town, how: End, at: number | undefined, work: () => Promise<unknown>): Promise<number> {
	const first = world.steps;
	const ended = at === undefined ? undefined : how === "cut" ? world.cutAt(first + at) : world.killAt(first + at);
	await world.run(ended === undefined ? work() : Promise.race([work(), ended]));
	const steps = world.steps - first;
	world.forgetEnd();
	if (how === "cut" && at !== undefined) node.powerCut();
	else node.kill();
	return steps;
}

/** A file can be made, made durable and read. */
async function worksAsVolume({ world, node, label }: Town): Promise<void> {
	await world.run(async () => {
		const volume = await open(node.boot());
		const intent = { disposition: "create", access: { read: true, write: true }, attributes: { mode: 0o644 } } as const;
		const { handle } = await volume.open(caller, { parent: volume.root, name: "first" }, intent);
		const bytes = pattern(7, 20_000);
		await volume.write(handle, 0, bytes);
		await volume.fsync(handle, false);
		assert.deepEqual(Uint8Array.from(await volume.read(handle, 0, bytes.length)), bytes, label);
		await volume.close(handle);
		const { state, warnings } = await volume.status();
		assert.deepEqual([state, warnings], ["running", []], label);
		await volume.shutdown();
	});
	node.kill();
}

async function destroyed(at: Town): Promise<void> {
	await at.world.run(() => destroyVolume({ diskPaths: paths, name: "new" }, { platform: at.node.boot(), logger: silentLogger }));
	at.node.kill();
	expectNothingLeft(at);
}

function expectNothingLeft({ world, node, label, raw }: Town): void {
	assert.deepEqual(node.memoryNames, [], label);
	if (!raw)
		for (const path of paths)
			assert.deepEqual(
				world
					.disk(path)
					.files()
					.filter((name) => name !== "lock"),
				[],
				`${label}: ${path}`,
			);
}

/** The volume is whole, or nothing of it counts. A mount that is refused writes nothing. */
async function isVolume({ world, node, label }: Town): Promise<boolean> {
	const before = world.steps;
	try {
		const volume = await world.run(() => open(node.boot()));
		await world.run(() => volume.shutdown());
		return true;
	} catch (error) {
		assert(error instanceof FsError, `${label}: ${String(error)}`);
		assert(["log.unfinished", "log.no-disk"].includes(error.site), `${label}: ${error.site}: ${error.message}`);
		if (error.site === "log.unfinished") assert.match(error.message, /Repeat `cairn create`.*cairn destroy new --yes new --disk/, label);
		assert.equal(world.steps, before, `${label}: a refused mount writes nothing`);
		return false;
	} finally {
		node.kill();
	}
}

/** Answers how many steps it takes. */
export async function deathDuringCreate(run: CreateRun): Promise<number> {
	const at = town(run);
	const { world, node, label } = at;
	const steps = await until(at, run.how, run.at, () => create(node.boot()));
	for (const again of run.again ?? [])
		await until(at, run.how, again, () => create(node.boot()).catch((error: unknown) => expectExists(label, error)));
	if (await isVolume(at)) {
		const before = world.steps;
		await fails(
			label,
			world.run(() => create(node.boot())),
			"REFUSED",
			"log.already-disk",
			/cairn mount new DIR --disk .*cairn destroy new/,
		);
		node.kill();
		assert.equal(world.steps, before, `${label}: a refused creation writes nothing`);
	} else {
		await world.run(() => create(node.boot()));
		node.kill();
	}
	await worksAsVolume(at);
	await destroyed(at);
	return steps;
}

function expectExists(label: string, error: unknown): void {
	assert(error instanceof FsError && error.site === "log.already-disk", `${label}: ${String(error)}`);
}

/** Other disks beside what was left of it: another command may take those, a volume that is complete loses nothing, and files of the user stay. */
export async function deathBesideOthers(run: CreateRun): Promise<void> {
	const at = town(run);
	const { world, node, label } = at;
	await world.run(() => create(node.boot(), ["/other"], "precious"));
	node.kill();
	await until(at, run.how, run.at, () => create(node.boot()));
	const other = world.disk("/other").digest();
	const mixed = ["/n1", "/other", "/n3"];
	const before = world.steps;
	await fails(
		label,
		world.run(() => create(node.boot(), mixed)),
		"REFUSED",
		"log.already-disk",
		/\/(other|n1) already is a disk/,
	);
	node.kill();
	assert.deepEqual([world.steps, world.disk("/other").digest()], [before, other], `${label}: nothing was written`);
	const unfinished = !(await isVolume(at));
	if (unfinished && !at.raw) {
		await putFile(at, "/n2", "thesis");
		const refused = world.run(() => create(node.boot()));
		await fails(label, refused, "REFUSED", "log.not-empty", /thesis/);
		node.kill();
		assert.equal(world.disk("/n2").peek("thesis").length, 100, label);
		await takeFile(at, "/n2", "thesis");
	}
	// A volume that is there takes what was abandoned as empty disks, and only that.
	const joined = world.run(async () => {
		const volume = await openVolume(
			{ name: "precious", diskPaths: ["/other"], acceptLoss: false, memory },
			{ platform: node.boot(), logger: silentLogger },
		);
		try {
			return await volume.disks.add(paths);
		} finally {
			await volume.shutdown();
		}
	});
	if (unfinished) assert.equal((await joined).added.length, 3, label);
	else await fails(label, joined, "REFUSED", "log.already-disk", /already is a disk of volume new/);
	node.kill();
	if (!unfinished) await worksAsVolume(at);
}

async function putFile({ world, node }: Town, path: string, name: string): Promise<void> {
	await world.run(async () => {
		const disk = await node.boot().openDisk(path);
		await (await disk.open(name, { create: true })).write(0, [pattern(3, 100)]);
		await disk.close();
	});
	node.kill();
}

async function takeFile({ world, node }: Town, path: string, name: string): Promise<void> {
	await world.run(async () => {
		const disk = await node.boot().openDisk(path);
		await disk.remove(name);
		await disk.close();
	});
	node.kill();
}

/** An interrupted destruction can be repeated, and so can the creation of a volume on the same disks. */
export async function deathDuringDestroy(run: CreateRun): Promise<number> {
	const at = town(run);
	const { world, node, label } = at;
	const destroy = (): Promise<unknown> => destroyVolume({ diskPaths: paths, name: "new" }, { platform: node.boot(), logger: silentLogger });
	await world.run(() => create(node.boot()));
	node.kill();
	const steps = await until(at, run.how, run.at, destroy);
	await world.run(async () => {
		// Nothing of it is left on any disk: the command line forgets it then.
		await destroy().catch((error: unknown) =>
			assert(error instanceof FsError && error.site === "log.no-disk", `${label}: ${String(error)}`),
		);
	});
	node.kill();
	expectNothingLeft(at);
	await world.run(() => create(node.boot()));
	node.kill();
	await worksAsVolume(at);
	return steps;
}
