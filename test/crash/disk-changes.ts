/** Disks that come and go by the operator's will, on good days and bad ones: add, drain, remove, replace. */
import assert from "node:assert/strict";
import { isFsError } from "../../src/base/errors.ts";
import type { DrainResult } from "../../src/volume/native/interface.ts";
import { BadWorld, fails } from "./bad-world.ts";
import { diskPaths } from "./scenario.ts";

const MiB = 1024 * 1024;
const roomy = { capacityBytes: 256 * MiB };

function drained(bad: BadWorld, disk: string): Promise<DrainResult> {
	return bad.inTime(`draining ${disk}`, () => bad.volume.disks.drained(disk, () => {}));
}

async function statesOf(bad: BadWorld): Promise<Record<string, string>> {
	const { disks } = await bad.volume.status();
	return Object.fromEntries(disks.map(({ id, state }) => [id, state]));
}

/** Everything that is said to be there is there, on other disks than these, and proven by reading. */
async function expectOff(bad: BadWorld, what: string, ids: readonly string[]): Promise<void> {
	await bad.check(what);
	await bad.expectClean(what);
	for (const path of bad.contents.keys()) {
		const { segments } = await bad.volume.explain(path);
		const on = segments.flatMap(({ fragments }) => fragments.filter(({ disk }) => ids.includes(disk)));
		assert.deepEqual(on, [], `seed ${bad.seed}, ${what}: ${path} has fragments there`);
	}
}

/** A disk joins, another is emptied and leaves; the volume is as safe as before, and the disk as empty as when it was given. */
export async function addDrainRemove(seed: number, leaving: string): Promise<void> {
	const bad = await BadWorld.make(seed);
	bad.world.addDisk("/d7", roomy);
	await bad.run(async () => {
		await bad.mount();
		const label = `seed ${seed}, ${leaving}`;
		await fails(label, bad.volume.disks.drain(leaving, { allowDegraded: false }), "REFUSED", "volume.drain-shape", /too few for rs:4\+2/);
		const plan = await bad.volume.disks.planAdd(["/d7"], false);
		assert(
			plan.capacityBytes.after > plan.capacityBytes.now && plan.freeBytes.after > plan.freeBytes.now,
			`${label}: ${JSON.stringify(plan)}`,
		);
		assert.deepEqual(bad.world.disk("/d7").files(), [], `${label}: a plan changes nothing`);
		assert.deepEqual((await bad.volume.disks.add(["/d7"])).added[0]?.id, "d7");
		await bad.put("after the addition", 300_000);
		const before = await bad.volume.status();
		const moves = await bad.volume.disks.planDrain(leaving);
		assert(moves.fits && moves.shapes.every((shape) => shape.isAsAsked), `${label}: ${JSON.stringify(moves)}`);
		await fails(label, bad.volume.disks.remove(leaving), "REFUSED", "volume.remove-needed", /in use \(drain it first\)/);
		const { id } = await bad.volume.disks.drain(leaving, { allowDegraded: false });
		await bad.put("during the drain", 300_000);
		const result = await drained(bad, id);
		assert.deepEqual([result.state, result.leftBytes, result.needed], ["draining", 0, null], label);
		const status = await bad.volume.status();
		assert.deepEqual([status.state, status.protection.degradedBytes, status.warnings], ["running", 0, []], label);
		assert.deepEqual(status.metadataCopies, { wanted: 3, present: 3 }, label);
		assert(!status.disks.find((disk) => disk.id === id)?.metadata, `${label}: metadata moved too`);
		await expectOff(bad, "drained", [id]);
		assert.deepEqual((await bad.volume.disks.remove(id)).cleared, true, label);
		assert.deepEqual(bad.world.disk(leaving).files(), [], `${label}: nothing is left on it`);
		assert.equal((await statesOf(bad))[id], undefined, label);
		await fails(label, bad.volume.disks.remove(id), "NOTFOUND", "volume.disk", /no disk/);
		const after = await bad.volume.status();
		assert(Math.abs(after.usedBytes - before.usedBytes) < before.usedBytes / 2 + 4 * MiB, `${label}: space adds up`);
		await bad.expectWhole("one came, one left");
		await bad.remount();
		await bad.check("after another mount");
		await bad.expectWhole("after another mount");
		// It is as good as new: it can join again.
		assert.equal((await bad.volume.disks.add([leaving])).added[0]?.id, "d8", label);
		await bad.expectWhole("back again");
		await bad.unmount();
	});
}

/** The duty is in the roster: whatever ends the daemon, the drain goes on; a cancelled one does not. */
export async function drainOverRestarts(seed: number, how: "unmount" | "kill" | "cut", raw = false): Promise<void> {
	const bad = await BadWorld.make(seed, undefined, raw);
	bad.world.addDisk("/d7", { ...roomy, raw });
	await bad.run(async () => {
		await bad.mount();
		await bad.volume.disks.add(["/d7"]);
		await bad.put("more", 2_000_000);
		await bad.volume.disks.drain("d2", { allowDegraded: false });
		if (how === "unmount") await bad.unmount();
		else if (how === "kill") bad.kill();
		else bad.cut();
		const level = how === "cut" ? "durable" : "acknowledged";
		await bad.mount();
		assert.equal((await statesOf(bad))["d2"], "draining", `seed ${seed}`);
		await bad.check("mounted again", level);
		const result = await drained(bad, "/d2");
		assert.deepEqual([result.leftBytes, result.needed], [0, null], `seed ${seed}`);
		await expectOff(bad, "drained", ["d2"]);
		await bad.volume.disks.cancelDrain("d2");
		await fails(`seed ${seed}`, bad.volume.disks.cancelDrain("d2"), "REFUSED", "volume.drain-not", /not being drained/);
		assert.equal((await statesOf(bad))["d2"], "healthy", `seed ${seed}`);
		for (let i = 0; i < 8; i++) await bad.put(`later ${i}`, 500_000);
		const used = (await bad.volume.status()).disks.find(({ id }) => id === "d2")?.usedBytes ?? 0;
		assert(used > 0, `seed ${seed}: it is used again`);
		await bad.remount();
		assert.equal((await statesOf(bad))["d2"], "healthy", `seed ${seed}`);
		await bad.check("cancelled");
		await bad.unmount();
	});
}

/** Another disk dies while one is emptied: nothing is given up to free the draining one, which goes on protecting. */
export async function lossDuringDrain(seed: number, lost: string, when: "before" | "during"): Promise<void> {
	const bad = await BadWorld.make(seed);
	bad.world.addDisk("/d7", roomy);
	await bad.run(async () => {
		await bad.mount();
		await bad.volume.disks.add(["/d7"]);
		await bad.put("more", 2_000_000);
		if (when === "before") bad.world.vanish(lost);
		await bad.volume.disks.drain("d1", { allowDegraded: true });
		bad.world.vanish(lost);
		await bad.until("the loss is known", async () => Object.values(await statesOf(bad)).includes("failed"));
		const result = await bad.volume.disks.drained("d1", () => {});
		// Five are left of seven: rs:3+2 survives as many losses, so it can be emptied all the same.
		assert.deepEqual([result.state, result.leftBytes, result.needed], ["draining", 0, null], `seed ${seed}`);
		await expectOff(bad, "drained beside a loss", ["d1"]);
		assert.equal((await bad.volume.status()).protection.lostBytes, 0, `seed ${seed}`);
		const gone = (await bad.volume.status()).disks.find(({ path }) => path === lost)?.id as string;
		await bad.volume.disks.remove("d1");
		const removed = await bad.volume.disks.remove(gone);
		assert.equal(removed.cleared, false, `seed ${seed}: it was not there`);
		await bad.check("both have left");
		// The lost one turns up again with all it ever held: it is a stranger now.
		await bad.unmount();
		bad.world.reappear(lost);
		await bad.mount();
		assert.equal(Object.keys(await statesOf(bad)).length, 5, `seed ${seed}`);
		await bad.check("the lost disk is ignored");
		// And can be taken in anew, since this volume let it go.
		await bad.volume.disks.add([lost]);
		await bad.volume.heal(() => {});
		assert.equal((await bad.volume.status()).protection.degradedBytes, 0, `seed ${seed}: on six disks it is rs:4+2 again`);
		await bad.expectClean("taken in anew");
		await bad.unmount();
	});
}

/** The draining disk itself dies: what it still held is made anew from the others. */
export async function drainingDiskDies(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed);
	bad.world.addDisk("/d7", roomy);
	await bad.run(async () => {
		await bad.mount();
		await bad.volume.disks.add(["/d7"]);
		await bad.put("more", 4_000_000);
		await bad.volume.disks.drain("d3", { allowDegraded: false });
		bad.world.vanish("/d3");
		await bad.until("the loss is known", async () => (await statesOf(bad))["d3"] === "failed");
		await bad.volume.heal(() => {});
		await bad.check("without it");
		assert.equal((await bad.volume.status()).protection.degradedBytes, 0, `seed ${seed}`);
		// Its mirror of the log moves by itself, and may do so after the data is whole.
		const leaves = (): Promise<boolean> =>
			bad.volume.disks.remove("d3").then(
				() => true,
				(error: unknown) => {
					if (isFsError(error, "REFUSED")) return false;
					throw error;
				},
			);
		await bad.until("its mirror of the log is elsewhere", leaves);
		await bad.expectWhole("it has left");
		await bad.unmount();
	});
}

/** A working disk is exchanged: it protects until the new one holds everything, then it leaves by itself, also over a kill. */
export async function replaceWorking(seed: number, kill: boolean): Promise<void> {
	const bad = await BadWorld.make(seed);
	bad.world.addDisk("/new", roomy);
	await bad.run(async () => {
		await bad.mount();
		await bad.put("more", 4_000_000);
		const label = `seed ${seed}`;
		await fails(label, bad.volume.disks.replace("d4", undefined), "REFUSED", "volume.replace-healthy", /works: name the place/);
		const { id, moving } = await bad.volume.disks.replace("d4", "/new");
		assert.deepEqual([id, moving], ["d7", true], label);
		if (kill) {
			bad.kill();
			await bad.mount([...diskPaths, "/new"]);
		}
		await bad.put("meanwhile", 200_000);
		await bad.until("the old one leaves", async () => (await statesOf(bad))["d4"] === undefined);
		await expectOff(bad, "exchanged", ["d4"]);
		await bad.expectWhole("exchanged");
		assert.deepEqual(bad.world.disk("/d4").files(), [], `${label}: nothing is left on the old one`);
		await bad.unmount();
		await bad.mount(["/new"]);
		await bad.check("found by the new disk alone");
		await bad.expectWhole("found by the new disk alone");
		await bad.unmount();
	});
}

/** What stays is too small or too few: refused with words, or brought to a clear end. */
export async function drainsThatCannotBe(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed, 48 * MiB);
	bad.world.addDisk("/tiny", { capacityBytes: 12 * MiB });
	await bad.run(async () => {
		await bad.mount();
		const label = `seed ${seed}`;
		await bad.volume.disks.add(["/tiny"]);
		for (let i = 0; ; i++) {
			if ((await bad.volume.status()).freeBytes < 3 * MiB) break;
			await bad.put(`fill ${i}`, 3_000_000);
		}
		await fails(label, bad.volume.disks.drain("d5", { allowDegraded: true }), "REFUSED", "volume.drain-full", /no room on the others/);
		await fails(label, bad.volume.disks.drain("d9", { allowDegraded: true }), "NOTFOUND", "volume.disk", /there are d1/);
		bad.world.vanish("/d6");
		await bad.until("the loss is known", async () => (await statesOf(bad))["d6"] === "failed");
		await fails(
			label,
			bad.volume.disks.drain("d6", { allowDegraded: true }),
			"REFUSED",
			"volume.drain-away",
			/nothing can be moved off it/,
		);
		await fails(label, bad.volume.disks.remove("d6"), "REFUSED", "volume.remove-needed", /fragments/);
		await bad.check("nothing happened");
		await bad.unmount();
	});
}

/** Several at once wait for each other, and each decides on what is then. */
export async function manyAtOnce(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed);
	for (const path of ["/d7", "/d8", "/d9"]) bad.world.addDisk(path, roomy);
	await bad.run(async () => {
		await bad.mount();
		const { disks } = bad.volume;
		const options = { allowDegraded: false };
		const outcomes = await Promise.allSettled([
			disks.add(["/d7", "/d8"]),
			disks.add(["/d8", "/d9"]),
			disks.drain("d1", options),
			disks.drain("d2", options),
			disks.drain("d3", options),
			disks.remove("d1"),
		]);
		const how = outcomes.map((one) => (one.status === "fulfilled" ? "done" : (one.reason as { site: string }).site));
		assert.deepEqual(how, ["done", "log.already-disk", "done", "done", "volume.drain-shape", "volume.remove-needed"], `seed ${seed}`);
		assert.deepEqual(bad.world.disk("/d9").files(), [], `seed ${seed}: all or none`);
		await Promise.all(["d1", "d2"].map((id) => bad.volume.disks.drained(id, () => {})));
		await expectOff(bad, "two drained", ["d1", "d2"]);
		await Promise.all([disks.remove("d1"), disks.remove("d2")]);
		await bad.expectWhole("two have left");
		await bad.remount();
		await bad.check("two have left");
		await bad.unmount();
	});
}

export interface Deaths {
	readonly steps: number;
}

/**
 * Add, drain, remove and add again, with a death at one step of it: whatever the disks then say, a mount finds the volume, nothing that was durable is
 * lost, and the work can be finished. `loses`: a disk that is gone after the death.
 */
export async function deathDuringChanges(seed: number, how: "kill" | "cut", at: number | undefined, loses?: string): Promise<Deaths> {
	const bad = await BadWorld.make(seed);
	bad.world.addDisk("/d7", roomy);
	const label = `seed ${seed}, ${how} at ${at}${loses === undefined ? "" : `, ${loses} lost`}`;
	const all = [...diskPaths, "/d7"];
	let steps = 0;
	await bad.run(async () => {
		await bad.mount();
		await bad.syncAll();
		const first = bad.world.steps;
		const ended = at === undefined ? undefined : how === "cut" ? bad.world.cutAt(first + at) : bad.world.killAt(first + at);
		const work = async (): Promise<void> => {
			await bad.volume.disks.add(["/d7"]);
			await bad.put("in between", 100_000);
			await bad.volume.disks.drain("d2", { allowDegraded: false });
			await bad.volume.disks.drained("d2", () => {});
			await bad.volume.disks.remove("d2");
		};
		await (ended === undefined ? work() : Promise.race([work(), ended]));
		steps = bad.world.steps - first;
		// The work may have been done in fewer steps than in the rehearsal.
		bad.world.forgetEnd();
		if (at === undefined) return bad.unmount();
		if (how === "cut") bad.cut();
		else bad.kill();
		if (loses !== undefined) bad.world.vanish(loses);
		await bad.mount(all);
		await bad.check(label, how === "cut" ? "durable" : "acknowledged");
		await finish(bad, label);
		await bad.remount(all);
		await bad.check(`${label}, finished`);
		if (loses === undefined) await bad.expectWhole(`${label}, finished`);
		await bad.unmount();
	});
	return { steps };
}

/** What an operator does who finds it half done. */
async function finish(bad: BadWorld, label: string): Promise<void> {
	const { disks } = bad.volume;
	const before = await bad.volume.status();
	if (!before.disks.some(({ path }) => path === "/d7")) await disks.add(["/d7"]);
	const old = before.disks.find(({ id }) => id === "d2");
	if (old === undefined) return;
	if (old.state === "healthy") await disks.drain("d2", { allowDegraded: true });
	const result = await disks.drained("d2", () => {});
	assert.deepEqual([result.leftBytes, result.needed], [0, null], label);
	await disks.remove("d2");
	await expectOff(bad, label, ["d2"]);
	assert.deepEqual(bad.world.disk("/d2").files(), [], `${label}: cleared`);
}

/** A full volume and one more disk: no shape fits on that one alone, so fragments move until there is room, before any writer is refused. */
export async function addedToFull(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed, 48 * MiB);
	bad.world.addDisk("/d7", { capacityBytes: 48 * MiB });
	await bad.run(async () => {
		await bad.mount();
		let filled = 0;
		for (;;) {
			const { freeBytes } = await bad.volume.space();
			if (freeBytes < 2 * MiB) break;
			await bad.put(`fill ${filled++}`, 2 * MiB);
		}
		await bad.volume.disks.add(["/d7"]);
		// At once, and much more than fits without moving: a seventh of all there was.
		for (let i = 0; i < 6; i++) await bad.put(`at once ${i}`, 2 * MiB);
		await bad.until("df tells the room that is there", async () => (await bad.volume.space()).freeBytes > 2 * MiB);
		await bad.check("the new room is used");
		await bad.remount();
		await bad.expectClean("the new room is used");
		const { disks } = await bad.volume.status();
		const used = disks.map(({ usedBytes }) => usedBytes);
		assert(Math.min(...used) > 8 * MiB, `seed ${seed}: the new disk has its part: ${used.join(" ")}`);
		await bad.check("after another mount");
		await bad.unmount();
	});
}
