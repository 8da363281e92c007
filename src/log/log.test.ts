import assert from "node:assert/strict";
import { test } from "node:test";
import { FsError, isFsError } from "../base/errors.ts";
import {
	append,
	checkpoint,
	createVolume,
	machine,
	memoryBytes,
	mount,
	type Mounted,
	readCheckpoint,
	type TestMachine,
	writeCheckpoint,
} from "./test-world.ts";
import { readMemoryTail } from "./memory-tail.ts";
import { scanRecords, segmentHeaderBytes } from "./record.ts";
import { markClean } from "./disk-set.ts";

/** What a workload knows of what it was told, filled as it goes. */
interface Knowledge {
	appended: string[];
	durable: number;
	mounted: boolean;
}

function payloadOf(at: TestMachine, index: number): string {
	return `${index}:${"x".repeat(at.world.random.below(index % 7 === 0 ? 9000 : 700))}`;
}

/** Appends, waits for durability now and then, checkpoints twice; a segment is used up several times over. */
async function workload(at: TestMachine, known: Knowledge, records = 22): Promise<Mounted> {
	const mounted = await mount(at);
	known.mounted = true;
	known.appended = mounted.history;
	for (let i = 1; i <= records; i++) {
		const sequence = await append(mounted, payloadOf(at, i));
		// Time enough for what nobody waits for to reach the disks, un-synced.
		if (i % 2 === 0) await mounted.platform.clock.sleep(25);
		if (i % 5 === 0) {
			await mounted.log.durable(sequence);
			known.durable = sequence;
		}
		if (i === 7 || i === 14) await checkpoint(mounted);
	}
	return mounted;
}

function isPrefix(shorter: readonly string[], longer: readonly string[]): boolean {
	return shorter.length <= longer.length && shorter.every((one, i) => one === longer[i]);
}

async function stepsOf(seed: number, disks: number): Promise<{ before: number; after: number }> {
	const at = machine(seed, disks);
	await createVolume(at);
	const before = at.world.steps;
	await at.world.run(workload(at, { appended: [], durable: 0, mounted: false }));
	return { before, after: at.world.steps };
}

for (const how of ["cut", "kill"] as const) {
	test(`${how} at every step: what was ${how === "cut" ? "durable" : "appended"} is recovered, twice the same`, async () => {
		const seed = 7;
		const { before, after } = await stepsOf(seed, 4);
		assert.ok(after - before > 100, `the workload has ${after - before} steps`);
		for (let step = before + 1; step <= after; step++) {
			const where = `seed ${seed}, ${how} at step ${step}`;
			const at = machine(seed, 4);
			await createVolume(at);
			const known: Knowledge = { appended: [], durable: 0, mounted: false };
			const ended = how === "cut" ? at.world.cutAt(step) : at.world.killAt(step);
			await at.world.run(Promise.race([workload(at, known), ended]));
			const first = await at.world.run(mount(at, { recoverOnly: true }));
			assert.ok(isPrefix(first.history, known.appended), `${where}: nothing that was not appended, in order`);
			assert.ok(first.history.length >= known.durable, `${where}: ${first.history.length} recovered, ${known.durable} durable`);
			if (how === "kill") assert.equal(first.history.length, known.appended.length, where);
			if (step % 4 !== 0) continue;
			at.node.kill();
			const second = await at.world.run(mount(at));
			assert.deepEqual(second.history, first.history, `${where}: second recovery`);
			assert.equal(second.report.lostFrom, undefined, where);
			await at.world.run(append(second, "after").then((sequence) => second.log.durable(sequence)));
			at.node.powerCut();
			const third = await at.world.run(mount(at));
			assert.deepEqual(third.history, [...first.history, "after"], `${where}: goes on`);
		}
	});
}

/** Runs a workload with a fault in its middle, then cuts the power and mounts with what is left. */
async function withFault(seed: number, fault: (at: TestMachine, member: string) => void): Promise<void> {
	const at = machine(seed, 6);
	await createVolume(at);
	const mounted = await at.world.run(mount(at));
	const victim = mounted.log.members[1] as number;
	const durable = await at.world.run(async () => {
		for (let i = 1; i <= 12; i++) await append(mounted, payloadOf(at, i));
		const waiting = mounted.log.durable(12);
		fault(at, `/d${victim}`);
		for (let i = 13; i <= 20; i++) await append(mounted, payloadOf(at, i));
		await Promise.all([waiting, mounted.log.durable(20)]);
		return mounted.log.durableSequence;
	});
	assert.ok(durable >= 20, `seed ${seed}`);
	assert.ok(!mounted.log.members.includes(victim), `seed ${seed}: the mirror is out`);
	assert.equal(mounted.log.members.length, 3, `seed ${seed}: another one took its place`);
	const epochs = mounted.disks.roster.logEpochs;
	assert.equal(epochs.length, 2, "the old epoch is needed until a checkpoint");
	await at.world.run(checkpoint(mounted));
	assert.equal(mounted.disks.roster.logEpochs.length, 1, "and no longer");
	await at.world.run(append(mounted, "last").then((sequence) => mounted.log.durable(sequence)));
	at.node.powerCut();
	if (!at.world.disk(`/d${victim}`).present) at.world.reappear(`/d${victim}`);
	at.world.unhang(`/d${victim}`);
	at.world.heal(`/d${victim}`);
	const again = await at.world.run(mount(at));
	assert.deepEqual(again.history, mounted.history, `seed ${seed}`);
}

test("a mirror that hangs, fails, vanishes or is unlinked is ejected and replaced; nothing durable is lost", async () => {
	for (let seed = 1; seed <= 4; seed++) {
		await withFault(seed, (at, path) => at.world.hang(path));
		await withFault(seed, (at, path) => at.world.fail(path, ["write"], "EIO"));
		await withFault(seed, (at, path) => at.world.failNextSync(path));
		await withFault(seed, (at, path) => at.world.vanish(path));
		await withFault(seed, (at, path) => at.world.vanish(path, { unlinked: true }));
	}
});

test("nothing is acknowledged before a disk that failed, mirror or not, is out in a roster that counts", async () => {
	const at = machine(5, 6);
	await createVolume(at);
	const mounted = await at.world.run(mount(at));
	const other = at.paths.findIndex((_, i) => !mounted.log.members.includes(i + 1)) + 1;
	const slow = at.paths.findLastIndex((_, i) => !mounted.log.members.includes(i + 1)) + 1;
	assert.notEqual(other, slow);
	at.world.latency(`/d${slow}`, 200, 201);
	await at.world.run(async () => {
		const sequence = await append(mounted, "x");
		mounted.disks.report(other, new FsError("EIO", "t.t", "bad"), "write");
		await mounted.log.durable(sequence);
		assert.equal(mounted.disks.roster.disks.find(({ id }) => id === other)?.membership, "out");
	});
});

test("power cut at every step while a mirror fails: everything durable is recovered", async () => {
	const run = async (at: TestMachine, known: Knowledge): Promise<void> => {
		const mounted = await mount(at);
		known.appended = mounted.history;
		for (let i = 1; i <= 9; i++) {
			const sequence = await append(mounted, payloadOf(at, i));
			if (i === 3) at.world.failNextSync(`/d${mounted.log.members[0]}`);
			if (i === 5) at.world.fail(`/d${mounted.log.members[2]}`, ["write"], "EIO", 1);
			if (i % 3 !== 0) continue;
			await mounted.log.durable(sequence);
			known.durable = sequence;
		}
	};
	const rehearsal = machine(3, 4);
	await createVolume(rehearsal);
	const before = rehearsal.world.steps;
	await rehearsal.world.run(run(rehearsal, { appended: [], durable: 0, mounted: false }));
	for (let step = before + 1; step <= rehearsal.world.steps; step++) {
		const at = machine(3, 4);
		await createVolume(at);
		const known: Knowledge = { appended: [], durable: 0, mounted: false };
		const ended = at.world.cutAt(step);
		await at.world.run(Promise.race([run(at, known), ended]));
		for (const path of at.paths) at.world.heal(path);
		const again = await at.world.run(mount(at));
		assert.ok(
			isPrefix(again.history, known.appended) && again.history.length >= known.durable,
			`cut at step ${step}: ${again.history.length} of ${known.durable}`,
		);
	}
});

// ── damage ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** A volume with `count` durable records in its log, powered off. */
async function stopped(
	seed: number,
	count = 20,
): Promise<{ at: TestMachine; history: string[]; members: readonly number[]; volume: string }> {
	const at = machine(seed, 5);
	await createVolume(at);
	const mounted = await at.world.run(mount(at));
	await at.world.run(async () => {
		for (let i = 1; i <= count; i++) await mounted.log.durable(await append(mounted, `${i}:${"y".repeat(100 + i)}`));
	});
	const { volume } = mounted.disks.roster;
	at.node.powerCut();
	return { at, history: mounted.history, members: mounted.log.members, volume };
}

/** Where the record with this sequence is in the segments of a disk. */
function placeOf(at: TestMachine, path: string, volume: string, sequence: number): { file: string; offset: number } {
	for (const file of at.world.disk(path).files()) {
		if (!file.startsWith("log/")) continue;
		for (const record of scanRecords(at.world.disk(path).peek(file), segmentHeaderBytes, volume)) {
			if (record.sequence === sequence) return { file, offset: record.offset };
		}
	}
	throw new Error(`record ${sequence} is not on ${path}`);
}

function damage(at: TestMachine, member: number, volume: string, sequence: number): void {
	const { file, offset } = placeOf(at, `/d${member}`, volume, sequence);
	at.world.corrupt(`/d${member}`, file, offset + 50, 3);
}

test("damage on one mirror is mended from another, and counted on the disk", async () => {
	const { at, history, members, volume } = await stopped(11);
	damage(at, members[0] as number, volume, 7);
	damage(at, members[1] as number, volume, 12);
	const again = await at.world.run(mount(at));
	assert.deepEqual(again.history, history);
	assert.equal(again.report.damagedRecords, 2);
	assert.equal(again.disks.slot(members[0] as number)?.errors.corrupt, 1);
});

test("random noise over one mirror changes nothing", async () => {
	for (let seed = 20; seed < 30; seed++) {
		const { at, history, members } = await stopped(seed);
		at.world.rot(`/d${members[seed % 3]}`, 0.3, (name) => name.startsWith("log/"));
		const again = await at.world.run(mount(at));
		assert.deepEqual(again.history, history, `seed ${seed}`);
	}
});

test("the same record damaged on all mirrors: refused in the middle, and the first lost one is named", async () => {
	const { at, members, history, volume } = await stopped(12);
	for (const member of members) damage(at, member, volume, 9);
	await assert.rejects(at.world.run(mount(at)), (error) => isFsError(error, "EIO") && error.site === "log.lost" && error.data.first === 9);
	at.node.kill();
	const forced = await at.world.run(mount(at, { acceptLoss: true }));
	assert.equal(forced.report.lostFrom, 9);
	assert.deepEqual(forced.history, history.slice(0, 8));
});

test("damaged on all mirrors at the end, where nothing says that it was acknowledged: the log ends before it", async () => {
	const { at, members, history, volume } = await stopped(13);
	for (const member of members) damage(at, member, volume, 20);
	const again = await at.world.run(mount(at));
	assert.deepEqual(again.history, history.slice(0, 19));
});

test("a member that fell behind and comes back alone is refused", async () => {
	const at = machine(14, 3);
	await createVolume(at, { tolerance: 1, redundancy: "rs:2+1" });
	const mounted = await at.world.run(mount(at));
	await at.world.run(append(mounted, "one").then((sequence) => mounted.log.durable(sequence)));
	at.world.hang("/d3");
	await at.world.run(append(mounted, "two").then((sequence) => mounted.log.durable(sequence)));
	at.node.powerCut();
	at.world.unhang("/d3");
	const refused = (error: unknown): boolean => isFsError(error, "REFUSED") && error.site === "log.roster-stale";
	at.world.vanish("/d1");
	at.world.vanish("/d2");
	await assert.rejects(at.world.run(mount(at)), refused);
	at.node.kill();
	at.world.reappear("/d1");
	at.world.reappear("/d2");
	at.world.vanish("/d3");
	const again = await at.world.run(mount(at));
	assert.deepEqual(again.history, ["one", "two"], "the two that went on are the whole volume");
});

// ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────

test("a memory tail of another incarnation is not believed", async () => {
	const at = machine(15, 5);
	await createVolume(at);
	const here = await at.world.run(mount(at));
	for (const path of at.paths) at.world.latency(path, 50, 60);
	// In memory only: the mirrors have not been reached yet when the process dies.
	here.log.append(new Uint8Array([65]));
	at.node.kill();
	const identity = { volume: here.disks.roster.volume, incarnation: here.disks.roster.incarnation };
	assert.equal(readMemoryTail(here.memory, identity).length, 1, "it is in the memory");
	// Meanwhile the disks were mounted on another machine.
	const elsewhere = { ...at, node: at.world.node() };
	const there = await at.world.run(mount(elsewhere));
	await at.world.run(append(there, "theirs").then((sequence) => there.log.durable(sequence)));
	elsewhere.node.powerCut();
	const again = await at.world.run(mount(at));
	assert.deepEqual(again.history, ["theirs"]);
	assert.equal(again.report.fromMemory, 0);
});

test("a mount that dies before the log starts does not make the memory tail worthless", async () => {
	const at = machine(16, 5);
	await createVolume(at);
	const first = await at.world.run(mount(at));
	for (const path of at.paths) at.world.latency(path, 50, 60);
	first.log.append(new Uint8Array([65]));
	at.node.kill();
	for (const path of at.paths) at.world.latency(path, 0.1, 0.2);
	for (let i = 0; i < 3; i++) {
		const half = await at.world.run(mount(at, { recoverOnly: true }));
		assert.deepEqual(half.history, ["A"], `aborted mount ${i}`);
		assert.equal(half.disks.opened.oldestIncarnation, 1);
		assert.equal(half.disks.opened.previousIncarnation, 1 + i);
		at.node.kill();
	}
	const last = await at.world.run(mount(at));
	assert.deepEqual(last.history, ["A"]);
	await at.world.run(last.disks.memoryTaken());
	at.node.kill();
	assert.equal((await at.world.run(mount(at))).disks.opened.oldestIncarnation, last.disks.roster.incarnation);
});

test("a clean unmount leaves nothing to recover", async () => {
	const at = machine(17, 5);
	await createVolume(at);
	const mounted = await at.world.run(mount(at));
	await at.world.run(async () => {
		for (let i = 1; i <= 10; i++) await append(mounted, payloadOf(at, i));
		await checkpoint(mounted);
		await mounted.log.close();
		await markClean(mounted.disks);
		await mounted.disks.close();
	});
	const again = await at.world.run(mount(at));
	assert.equal(again.disks.opened.clean, true);
	assert.deepEqual([again.history.length, again.report.fromMemory], [10, 0]);
});

// ── room ─────────────────────────────────────────────────────────────────────────────────────────────────────────

test("without checkpoints room ends, before the ring does; a checkpoint gives it back, again and again", async () => {
	const at = machine(18, 5);
	await createVolume(at);
	const mounted = await at.world.run(mount(at));
	const fill = async (): Promise<number> => {
		for (let count = 0; ; count++) {
			if (!mounted.log.hasRoom(3000)) await mounted.log.durable(mounted.log.lastSequence);
			if (!mounted.log.hasRoom(3000)) return count;
			await append(mounted, "z".repeat(3000));
		}
	};
	for (let round = 0; round < 6; round++) {
		const count = await at.world.run(fill());
		assert.ok(count > 10, `round ${round}: ${count} records fit`);
		assert.throws(
			() => mounted.log.append(new Uint8Array(3000)),
			(error) => isFsError(error, "EAGAIN"),
		);
		let woken = false;
		const waiting = (async () => {
			while (!mounted.log.hasRoom(3000)) await mounted.log.room();
			woken = true;
		})();
		await at.world.advance(5_000);
		assert.equal(woken, false, "nothing gives room but a checkpoint");
		await at.world.run(checkpoint(mounted));
		await at.world.run(waiting);
	}
	for (const path of at.paths)
		assert.ok(
			at.world
				.disk(path)
				.files()
				.filter((name) => name.startsWith("log/")).length <= 6,
			"the ring is bounded",
		);
	at.node.powerCut();
	assert.deepEqual((await at.world.run(mount(at))).history, mounted.history);
});

test("it is said that room is short while there still is some, whatever the records' sizes", async () => {
	const at = machine(22, 5);
	await createVolume(at, { logSegmentCount: 8 });
	const mounted = await at.world.run(mount(at));
	await at.world.run(async () => {
		for (let round = 0; round < 3; round++) {
			assert.equal(mounted.log.scarce, false);
			// Each alone in its batch, and so in a sector of its own.
			let count = 0;
			for (; !mounted.log.scarce; count++) await mounted.log.durable(await append(mounted, "x".repeat(10)));
			assert.ok(count > 10, `${count} fit before`);
			for (let left = 4; left > 0; left--) {
				assert.ok(mounted.log.hasRoom(3000), "there is room until the checkpoint is made");
				await mounted.log.durable(await append(mounted, "z".repeat(3000)));
			}
			await checkpoint(mounted);
		}
	});
});

test("a full ring survives ejections one after the other, until no disk is left", async () => {
	const at = machine(19, 6);
	await createVolume(at, { tolerance: 4 });
	const mounted = await at.world.run(mount(at));
	await at.world.run(async () => {
		while (mounted.log.hasRoom(3000)) await mounted.log.durable(await append(mounted, "z".repeat(3000)));
	});
	for (let left = 5; left >= 1; left--) {
		at.world.vanish(`/d${mounted.log.members[0]}`);
		await at.world.advance(3_000);
		assert.equal(mounted.log.members.length, Math.min(5, left), `${left} disks left`);
		assert.equal(mounted.log.broken, undefined);
	}
	await at.world.run(checkpoint(mounted));
	const sequence = await at.world.run(append(mounted, "still"));
	await at.world.run(mounted.log.durable(sequence));
	at.world.vanish(`/d${mounted.log.members[0]}`);
	const next = await at.world.run(append(mounted, "never durable"));
	await assert.rejects(at.world.run(mounted.log.durable(next)), (error) => isFsError(error, "EIO"));
	assert.ok(mounted.log.broken);
	assert.throws(
		() => mounted.log.append(new Uint8Array(1)),
		(error) => isFsError(error, "EIO"),
	);
});

test("a disk without space gets a smaller ring, or no part of the log at all", async () => {
	const at = machine(21, 5);
	await createVolume(at);
	at.world.full("/d1");
	const mounted = await at.world.run(mount(at));
	assert.ok(!mounted.log.members.includes(1), "d1 has no room for a ring");
	at.world.full(`/d${mounted.log.members[0]}`);
	await at.world.run(async () => {
		for (let i = 1; i <= 60; i++) {
			if (!mounted.log.hasRoom(3000)) await mounted.log.durable(mounted.log.lastSequence);
			if (!mounted.log.hasRoom(3000)) await checkpoint(mounted);
			await append(mounted, "z".repeat(3000));
		}
		await mounted.log.durable(mounted.log.lastSequence);
	});
	at.node.powerCut();
	assert.deepEqual((await at.world.run(mount(at))).history, mounted.history);
});

test("disks that others have filled since the mount take the log after a power cut all the same", async () => {
	for (let seed = 30; seed < 38; seed++) {
		const at = machine(seed, 3);
		await createVolume(at);
		at.node.powerCut();
		await at.world.run(mount(at));
		for (const path of at.paths) at.world.full(path);
		at.node.powerCut();
		const mounted = await at.world.run(mount(at));
		assert.deepEqual(mounted.log.members, [1, 2, 3], `seed ${seed}`);
		await at.world.run(append(mounted, "while full").then((sequence) => mounted.log.durable(sequence)));
		at.node.powerCut();
		assert.deepEqual((await at.world.run(mount(at))).history, ["while full"]);
	}
});

test("disks that are full before they ever took the log are named", async () => {
	const at = machine(39, 3);
	await createVolume(at);
	for (const path of at.paths) at.world.full(path);
	await assert.rejects(at.world.run(mount(at)), (error) => {
		assert.ok(isFsError(error, "ENOSPC"), String(error));
		assert.equal(error.site, "log.no-space");
		assert.match(error.message, /no space for the log on d1 \(\/d1\), d2 .*free space there, and mount again/);
		return true;
	});
	at.node.kill();
	for (const path of at.paths) at.world.full(path, false);
	await at.world.run(mount(at));
});

test("with all disks full the log takes what fits, and the loss of a mirror keeps nothing from becoming durable", async () => {
	const fill = async (mounted: Mounted, most: number): Promise<number> => {
		const { log } = mounted;
		for (let count = 0; count < most; count++) {
			if (!log.hasRoom(3_000)) await log.durable(log.lastSequence);
			if (!log.hasRoom(3_000)) return count;
			await append(mounted, "z".repeat(3_000));
		}
		return most;
	};
	const filled = async (seed: number, most: number): Promise<{ at: TestMachine; mounted: Mounted; count: number }> => {
		const at = machine(seed, 4);
		await createVolume(at, { logSegmentCount: 8 });
		const mounted = await at.world.run(mount(at));
		for (const path of at.paths) at.world.full(path);
		return { at, mounted, count: await at.world.run(fill(mounted, most)) };
	};
	const { at: whole, mounted: before, count: most } = await filled(40, 1_000);
	assert.ok(most > 10 && most < 1_000, `${most} records fit`);
	await whole.world.run(checkpoint(before));
	assert.ok((await whole.world.run(fill(before, 1_000))) > 10, "a checkpoint makes room");
	for (let count = 1; count <= most; count += 3) {
		const { at, mounted } = await filled(40, count);
		const { log } = mounted;
		at.world.vanish(`/d${log.members[1]}`);
		const isDurable = log.durable(log.lastSequence).then(() => true);
		assert.ok(await at.world.run(Promise.race([isDurable, at.world.sleep(60_000)])), `after ${count} records`);
		assert.equal(log.members.length, 2);
		await at.world.run(checkpoint(mounted));
		await at.world.run(append(mounted, "after all").then((sequence) => log.durable(sequence)));
		at.node.powerCut();
		assert.deepEqual((await at.world.run(mount(at))).history, mounted.history);
	}
});

test("a mirror that was left out for want of space is taken again at a checkpoint after space came back", async () => {
	const at = machine(23, 3);
	await createVolume(at);
	at.world.full("/d2");
	const mounted = await at.world.run(mount(at));
	assert.deepEqual(mounted.log.members, [1, 3]);
	await at.world.run(append(mounted, "one"));
	await at.world.run(checkpoint(mounted));
	await at.world.advance(100);
	assert.deepEqual([mounted.log.members, mounted.log.broken], [[1, 3], undefined], "still full");
	at.world.full("/d2", false);
	await at.world.run(checkpoint(mounted));
	await at.world.advance(100);
	assert.equal(mounted.log.members.length, 3);
	await at.world.run(append(mounted, "two").then((sequence) => mounted.log.durable(sequence)));
	at.node.powerCut();
	assert.deepEqual((await at.world.run(mount(at))).history, ["one", "two"]);
});

test("a log that grows to more mirrors keeps what became durable on the old ones while the roster changed", async () => {
	for (let seed = 1; seed <= 6; seed++) {
		const at = machine(seed, 3);
		await createVolume(at);
		let durable = 0;
		await at.world.run(async () => {
			const mounted = await mount(at);
			const { disks, log, platform } = mounted;
			at.world.vanish("/d3");
			await disks
				.slot(3)
				?.disk?.probe()
				.catch((error: unknown) => disks.report(3, error, "read"));
			await disks.settled();
			await log.durable(await append(mounted, "before"));
			assert.equal(log.members.length, 2, "one mirror is gone");
			at.world.reappear("/d3");
			let grown = false;
			log.onMembersChanged(() => {
				grown = true;
			});
			for (const path of ["/d1", "/d2"]) at.world.latency(path, 20, 40);
			const writer = async (): Promise<void> => {
				while (!grown) {
					const sequence = await append(mounted, `record ${mounted.history.length}`);
					await platform.clock.sleep(at.world.random.below(20));
					await log.durable(sequence);
					durable = Math.max(durable, sequence);
				}
			};
			await Promise.all([writer(), writer(), disks.adopt("/d3", 3)]);
			// A checkpoint that had begun before: all that the new epoch need not hold, by what the roster says.
			const first = disks.roster.logEpochs.at(-1)?.firstSequence as number;
			await writeCheckpoint(platform, mounted.history.slice(0, first - 1));
			await log.cut(first - 1);
		});
		at.node.kill();
		await at.world.run(async () => {
			const { history } = await mount(at, { recoverOnly: true });
			assert(history.length >= durable, `seed ${seed}: ${durable} records were durable, ${history.length} are found`);
		});
	}
});

test("an unawaited record becomes durable by itself", async () => {
	const at = machine(22, 5);
	await createVolume(at);
	const mounted = await at.world.run(mount(at));
	await at.world.run(append(mounted, "alone"));
	await at.world.advance(1_500);
	assert.equal(mounted.log.durableSequence, 1);
	assert.equal((await at.world.run(readCheckpoint(mounted.platform))).length, 0);
	assert.equal(mounted.memory.bytes.length, memoryBytes);
});

test("every sync site of this floor matters", async () => {
	const sites = new Set<string>();
	const all = ["log.records", "log.segment-header", "log.segment-name", "log.superblock", "log.superblock-name"];
	for (const ignored of [undefined, ...all]) {
		let lost = 0;
		for (let seed = 100; seed < 112; seed++) {
			const at = machine(seed, 3);
			if (ignored) at.world.ignoreSync(ignored);
			await createVolume(at);
			at.node.powerCut();
			try {
				await at.world.run(mount(at));
				at.node.powerCut();
				const mounted = await at.world.run(mount(at));
				await at.world.run(async () => {
					for (let i = 1; i <= 5; i++) await mounted.log.durable(await append(mounted, payloadOf(at, i)));
				});
				at.node.powerCut();
				// Then a log needs what was allocated before.
				for (const path of at.paths) at.world.full(path);
				const again = await at.world.run(mount(at));
				if (again.history.length < 5) lost++;
			} catch {
				lost++;
			}
			for (const site of at.world.syncSites) sites.add(site);
		}
		if (ignored) assert.ok(lost > 0, `without ${ignored} something is lost (seeds 100 to 111)`);
		else assert.equal(lost, 0, "with all of them nothing is");
	}
	assert.deepEqual([...sites].sort(), all);
});

test("the log gone from all mirrors: refused, saying what is there, and only --accept-loss goes on; not where nothing is lost by it", async () => {
	for (const how of ["removed", "noise", "zeros"] as const) {
		const { at, members, history } = await stopped(31);
		const destroy = (): void => {
			for (const member of members) {
				const device = at.world.disk(`/d${member}`);
				for (const name of device.files().filter((one) => one.startsWith("log/"))) {
					const bytes = device.peek(name);
					if (how === "removed") device.remove(name);
					else device.corrupt(name, 0, bytes.length, how === "noise" ? new Uint8Array([0x5a, 0xc3, 0x11]) : bytes);
				}
			}
		};
		destroy();
		const refused = (error: unknown): boolean => {
			if (!isFsError(error, "EIO") || error.site !== "log.gone") throw error;
			assert.match(error.message, /d\d \(\/d\d\).*checkpoint \(record \d+\).*--accept-loss/s);
			return true;
		};
		await assert.rejects(at.world.run(mount(at)), refused);
		at.node.kill();
		await assert.rejects(at.world.run(mount(at)), refused, "nor at the second try");
		at.node.kill();
		const forced = await at.world.run(mount(at, { acceptLoss: true }));
		assert.ok(isPrefix(forced.history, history) && forced.history.length < history.length, how);
		assert.equal(forced.report.lostFrom, forced.history.length + 1);
		// Whatever became of the log: a volume that was left clean needs none.
		await at.world.run(checkpoint(forced));
		await at.world.run(markClean(forced.disks));
		at.node.powerCut();
		destroy();
		assert.deepEqual((await at.world.run(mount(at))).history, forced.history, how);
	}
});

test("one mirror of the log is enough; and power that fails as soon as a log begins is no loss", async () => {
	for (let seed = 32; seed < 40; seed++) {
		const { at, members, history } = await stopped(seed);
		for (const member of members.slice(1)) {
			const device = at.world.disk(`/d${member}`);
			for (const name of device.files().filter((one) => one.startsWith("log/"))) device.remove(name);
		}
		const again = await at.world.run(mount(at));
		assert.deepEqual(again.history, history, `seed ${seed}`);
		at.node.powerCut();
		for (let round = 0; round < 3; round++) {
			const empty = await at.world.run(mount(at));
			assert.deepEqual(empty.history, history, `seed ${seed}, round ${round}`);
			at.node.powerCut();
		}
	}
});

test("what a daemon that was killed had written to the mirrors is missed, though nobody had waited for it", async () => {
	const at = machine(41, 6);
	await createVolume(at);
	const mounted = await at.world.run(mount(at));
	for (let i = 1; i <= 5; i++) await at.world.run(append(mounted, `record ${i}`));
	await at.world.advance(200);
	const { members } = mounted.log;
	at.node.kill();
	for (const member of members) {
		const device = at.world.disk(`/d${member}`);
		for (const name of device.files().filter((one) => one.startsWith("log/"))) {
			const length = device.peek(name).length;
			// The header stays.
			device.corrupt(name, segmentHeaderBytes, length - segmentHeaderBytes, device.peekRange(name, segmentHeaderBytes, length));
		}
	}
	await assert.rejects(at.world.run(mount(at)), (error) => isFsError(error, "EIO") && error.site === "log.lost" && error.data.first === 1);
	at.node.kill();
	assert.deepEqual((await at.world.run(mount(at, { acceptLoss: true }))).history, []);
});
