/** Protection by path: what is asked for comes to be, also over power cuts, and nothing is safe by less meanwhile. */
import assert from "node:assert/strict";
import { FsError } from "../../src/base/errors.ts";
import { BadWorld, fails, must } from "./bad-world.ts";
import { unmountAndRecount } from "./compaction.ts";
import { caller, diskPaths } from "./scenario.ts";

const quietly = (): void => {};

async function set(bad: BadWorld, path: string, redundancy: string | undefined, now = true): Promise<void> {
	const result = await bad.volume.setProtection(path, { redundancy, allowDegraded: false, now }, quietly);
	if (now) assert.deepEqual([result.done, result.waitingFor], [true, ""], `seed ${bad.seed}: ${path}`);
}

/** Every segment of the file is asked to be, and is, of this kind. */
async function expectKind(bad: BadWorld, path: string, redundancy: string, from: string): Promise<void> {
	const found = await bad.volume.explain(path);
	assert.deepEqual(found.redundancy, { value: redundancy, from }, `seed ${bad.seed}: ${path}`);
	must(bad, found.inline || found.segments.length > 0, `${path} has contents`);
	for (const segment of found.segments) {
		assert.equal(segment.redundancy, redundancy, `seed ${bad.seed}: segment ${segment.id} of ${path}`);
		must(
			bad,
			segment.fragments.every((one) => one.state === "ok"),
			`segment ${segment.id} of ${path} is whole`,
		);
	}
}

/** Asked for, inherited, taken back; told by explain, status and the attribute; refused where it cannot be. */
export async function byPath(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed);
	await bad.run(async () => {
		const { root } = await bad.mount();
		const sub = await bad.volume.makeDirectory(caller, root, "sub", 0o755);
		await bad.volume.makeDirectory(caller, bad.volume.node(sub.attributes.ino), "deep", 0o755);
		for (const path of ["sub/a", "sub/deep/b", "sub/deep/own", "other"]) await bad.put(path, 300_000);
		await bad.syncAll();
		await set(bad, "sub/deep/own", "rs:2+1");
		await set(bad, "sub", "replicate:3");
		await bad.put("sub/deep/new", 200_000);
		await bad.syncAll();
		for (const path of ["sub/a", "sub/deep/b", "sub/deep/new"]) await expectKind(bad, path, "replicate:3", "/sub");
		await expectKind(bad, "sub/deep/own", "rs:2+1", "/sub/deep/own");
		await expectKind(bad, "other", "rs:4+2", "volume");
		const deep = await bad.volume.lookup(caller, bad.volume.node(sub.attributes.ino), "deep");
		const value = await bad.volume.getXattr(caller, bad.volume.node(deep.ino), "cairn.redundancy");
		assert.equal(String.fromCharCode(...value), "replicate:3");
		const { targets } = (await bad.volume.status()).protection;
		assert.deepEqual(targets.map(({ redundancy }) => redundancy).sort(), ["replicate:3", "rs:2+1", "rs:4+2"]);
		await set(bad, "sub", undefined);
		await expectKind(bad, "sub/deep/b", "rs:4+2", "volume");
		await set(bad, "", "rs:3+2");
		await expectKind(bad, "sub/deep/b", "rs:3+2", "volume");
		await expectKind(bad, "other", "rs:3+2", "volume");
		await expectKind(bad, "sub/deep/own", "rs:2+1", "/sub/deep/own");
		assert.equal((await bad.volume.status()).redundancy, "rs:3+2");
		const label = `seed ${seed}`;
		const options = { allowDegraded: false, now: true };
		await fails(
			label,
			bad.volume.setProtection("other", { ...options, redundancy: "rs:6+2" }, quietly),
			"REFUSED",
			"volume.set-few",
			/needs 8 disks/,
		);
		await fails(
			label,
			bad.volume.setProtection("other", { ...options, redundancy: "replicate:5" }, quietly),
			"REFUSED",
			"volume.set-metadata",
			/metadata/,
		);
		await bad.check("converted");
		await bad.expectClean("converted");
		// Six disks are there, and one is to leave.
		await bad.volume.disks.drain("d6", { allowDegraded: false });
		await fails(
			label,
			bad.volume.setProtection("other", { ...options, redundancy: "rs:4+2" }, quietly),
			"REFUSED",
			"volume.set-few",
			/needs 6 disks, the volume has 5, without those that leave/,
		);
		await bad.remount();
		await bad.check("mounted again");
		await expectKind(bad, "sub/deep/own", "rs:2+1", "/sub/deep/own");
		await unmountAndRecount(bad, "converted");
	});
}

/** A directory is converted while its files are read, written, removed and copied, and two disks are lost in between. */
export async function underLoad(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed);
	await bad.run(async () => {
		const { root } = await bad.mount();
		await bad.volume.makeDirectory(caller, root, "busy", 0o755);
		for (let i = 0; i < 12; i++) await bad.put(`busy/f${i}`, 200_000 + 10_000 * i);
		await bad.syncAll();
		await bad.copy("busy/f1", 0, "copy", 150_000);
		await set(bad, "busy", "replicate:3", false);
		for (let i = 0; i < 12; i++) {
			await bad.read(`busy/f${i}`);
			await bad.write(`busy/f${i}`, 20_000, 5_000 * i);
			if (i % 4 === 3) await bad.remove(`busy/f${i}`);
		}
		await set(bad, "busy", "replicate:3");
		await bad.syncAll();
		for (const i of [0, 4, 10]) await expectKind(bad, `busy/f${i}`, "replicate:3", "/busy");
		// What it shares with the copy stays where it is, as that survives as much: rewriting it would take its space twice.
		const shared = await bad.volume.explain("busy/f1");
		assert.equal(shared.redundancy.value, "replicate:3");
		assert.deepEqual([...new Set(shared.segments.map((segment) => segment.redundancy))].sort(), ["replicate:3", "rs:4+2"]);
		assert.equal((await bad.volume.explain("copy")).redundancy.value, "rs:4+2");
		await bad.check("converted under load");
		await bad.expectClean("converted under load");
		for (const path of ["/d2", "/d5"]) bad.world.wipe(path);
		await bad.expectDegraded(["/d2", "/d5"]);
		await bad.check("two disks lost");
		await bad.unmount();
	});
}

/** A copy is as safe as it is asked to be, whatever it is a copy of; where the source lies at least as safely, it is shared. */
export async function copiesKeepTheirOwn(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed);
	await bad.run(async () => {
		const { root } = await bad.mount();
		await bad.volume.makeDirectory(caller, root, "cheap", 0o755);
		await set(bad, "cheap", "rs:2+1");
		await bad.put("cheap/a", 700_000);
		await bad.put("usual", 700_000);
		await bad.syncAll();
		await bad.copy("cheap/a", 0, "safer", 700_000);
		await bad.copy("cheap/a", 0, "usual", 700_000);
		await bad.syncAll();
		await bad.copy("safer", 0, "cheap/b", 700_000);
		await bad.syncAll();
		for (const path of ["safer", "usual"]) await expectKind(bad, path, "rs:4+2", "volume");
		await expectKind(bad, "cheap/a", "rs:2+1", "/cheap");
		const of = async (path: string) => new Set((await bad.volume.explain(path)).segments.map((segment) => segment.id));
		assert.deepEqual(await of("cheap/b"), await of("safer"), `seed ${seed}: shared`);
		await bad.check("copied");
		for (const path of ["/d2", "/d5"]) bad.world.wipe(path);
		for (const path of ["safer", "usual"]) await bad.read(path);
		await bad.unmount();
	});
}

/** Contents that lie in the inode and are on their way into a segment, because the file gets space set aside, when another protection is asked for. */
export async function besideAllocation(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed);
	await bad.run(async () => {
		await bad.mount();
		for (let i = 0; i < 8; i++) await bad.put(`small${i}`, 12);
		for (const path of diskPaths) bad.world.latency(path, 5, 20);
		for (let i = 0; i < 8; i++) {
			const allocated = bad.withFile(`small${i}`, (handle, volume) => volume.allocate(handle, "allocate-keep-size", 1_000_000, 610));
			await bad.world.sleep(5 * i);
			await Promise.all([allocated, set(bad, `small${i}`, "rs:2+1")]);
			// As few bytes lie in as many copies as survive the same losses; by default they would be three.
			const kinds = (await bad.volume.explain(`small${i}`)).segments.map(({ redundancy }) => redundancy);
			assert.deepEqual(kinds, ["replicate:2"], `seed ${seed}: small${i}`);
		}
		await bad.check("converted beside allocations");
		await bad.expectClean("converted beside allocations");
		await bad.unmount();
	});
}

/** Contents that compaction moves from one segment of the old kind into another, while they are being moved into one of the new kind. */
export async function besideCompaction(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed);
	await bad.run(async () => {
		for (let round = 0; round < 3; round++) {
			await bad.mount();
			for (let i = 0; i < 40; i++) await bad.write(`${round}-${i}`, 25_000);
			await bad.syncAll();
			for (let i = 0; i < 40; i++) if (i % 3 !== 0) await bad.remove(`${round}-${i}`);
			// Of those only parts are moved.
			for (let i = 0; i < 40; i += 6) await bad.write(`${round}-${i}`, 20_000, 3_000);
			await bad.unmount();
			await bad.mount();
			// The first look of the compactor, a second after the mount.
			await bad.world.sleep(990 + round * 4);
			const kind = round % 2 === 0 ? "rs:2+1" : "rs:3+2";
			await set(bad, "", kind);
			const { targets } = await unmountAndRecount(bad, "beside compaction");
			assert.deepEqual(targets, [kind], `seed ${seed}, round ${round}`);
		}
	});
}

async function life(bad: BadWorld): Promise<void> {
	const { root } = await bad.mount();
	await bad.volume.makeDirectory(caller, root, "sub", 0o755);
	for (let i = 0; i < 8; i++) await bad.put(`sub/f${i}`, 50_000 + 30_000 * i);
	await bad.syncAll();
	const asked = await bad.volume.setProtection("sub", { redundancy: "replicate:3", allowDegraded: false, now: false }, quietly);
	must(bad, !asked.done, "it goes on in the background");
	await bad.syncAll();
	isAsked.add(bad);
	await bad.volume.setProtection("sub", { redundancy: "replicate:3", allowDegraded: false, now: true }, quietly);
	await bad.volume.setProtection("", { redundancy: "rs:3+2", allowDegraded: false, now: true }, quietly);
	await bad.unmount();
}

/** Lives in which the first question was durable. */
const isAsked = new WeakSet<BadWorld>();

export async function stepsOfConversion(seed: number): Promise<{ readonly first: number; readonly last: number }> {
	const bad = await BadWorld.make(seed);
	const first = bad.world.steps;
	await bad.run(() => life(bad));
	return { first, last: bad.world.steps };
}

/** The power fails or the daemon dies while contents are rewritten: nothing is lost, and the next mount ends what was asked for. */
export async function conversionEndsAt(seed: number, how: "cut" | "kill", step: number): Promise<void> {
	const bad = await BadWorld.make(seed);
	const ended = how === "cut" ? bad.world.cutAt(step) : bad.world.killAt(step);
	await bad.run(() => Promise.race([life(bad).catch((error: unknown) => assert.ok(error instanceof FsError)), ended]));
	if (!bad.world.wasCut) return;
	const what = `${how} at step ${step}`;
	await bad.run(async () => {
		await bad.mount();
		await bad.check(what, how === "cut" ? "durable" : "acknowledged");
		if (isAsked.has(bad)) {
			await bad.until("what was asked for is done", async () => !(await bad.volume.status()).conversion.active);
			for (let i = 0; i < 8; i++) await expectKind(bad, `sub/f${i}`, "replicate:3", "/sub");
		}
		await bad.expectClean(what);
		const { targets } = await unmountAndRecount(bad, what);
		if (isAsked.has(bad)) must(bad, targets.includes("replicate:3"), `targets ${targets.join(", ")}`);
	});
}
