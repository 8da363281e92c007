/** Disks of different sizes that are made equally free, on good days and bad ones. */
import assert from "node:assert/strict";
import type { BalanceResult } from "../../src/volume/native/interface.ts";
import { BadWorld, fails } from "./bad-world.ts";

const MiB = 1024 * 1024;

function balanced(bad: BadWorld): Promise<BalanceResult> {
	return bad.volume.balance.over(() => {});
}

/** Data bytes on each disk. */
async function heldOn(bad: BadWorld): Promise<Record<string, number>> {
	const { usedBytes } = await bad.volume.balance.plan();
	return Object.fromEntries(usedBytes.map(({ disk, usedBytes: { now } }) => [disk, now]));
}

async function fill(bad: BadWorld, files: number): Promise<void> {
	for (let at = 0; at < files; at++) await bad.put(`file ${at}`, 2 * MiB);
}

/** All are within the tolerance of the same free space, and nothing is worth moving any more. */
async function expectEven(bad: BadWorld, what: string): Promise<void> {
	const plan = await bad.volume.balance.plan();
	assert.deepEqual([plan.isEven, plan.work.segments], [true, 0], `seed ${bad.seed}, ${what}: ${JSON.stringify(plan)}`);
	await bad.volume.balance.begin();
	const again = await balanced(bad);
	assert.deepEqual([again.isEven, again.movedBytes], [true, 0], `seed ${bad.seed}, ${what}: nothing moves back`);
}

/** A larger and a smaller disk join; everything moves until all have the same space left, while others write, read and remove. */
export async function unequalDisks(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed, 64 * MiB);
	bad.world.addDisk("/d7", { capacityBytes: 68 * MiB });
	bad.world.addDisk("/d8", { capacityBytes: 40 * MiB });
	await bad.run(async () => {
		await bad.mount();
		await fill(bad, 60);
		const planned = await bad.volume.disks.planAdd(["/d7", "/d8"], false);
		const { balanceBytes } = await bad.volume.disks.add(["/d7", "/d8"]);
		const label = `seed ${seed}`;
		assert(
			balanceBytes > 20 * MiB && Math.abs(planned.balanceBytes - balanceBytes) < balanceBytes / 10,
			`${label}: ${planned.balanceBytes} planned, ${balanceBytes} told`,
		);
		const plan = await bad.volume.balance.plan();
		assert(!plan.isEven && plan.work.seconds > 0 && plan.freeBytes.after > plan.freeBytes.now, `${label}: ${JSON.stringify(plan)}`);
		await fails(label, bad.volume.balance.cancel(), "REFUSED", "volume.balance-not", /no balance/);
		assert((await bad.volume.balance.begin()).active, label);
		const work = balanced(bad);
		for (let at = 0; at < 10; at++) {
			await bad.put(`beside ${at}`, 300_000);
			await bad.read(`file ${at}`);
			if (at % 3 === 0) await bad.remove(`file ${40 + at}`);
		}
		const result = await work;
		assert(
			result.isEven && result.movedBytes > balanceBytes / 2 && result.movedBytes < 1.5 * balanceBytes,
			`${label}: ${JSON.stringify({ result, balanceBytes })}`,
		);
		// What was removed meanwhile is given back, from some disks more than from others.
		await bad.world.sleep(5_000);
		await bad.volume.balance.begin();
		assert((await balanced(bad)).isEven, label);
		const { disks } = await bad.volume.balance.plan();
		const free = disks.map(({ freeBytes: { now } }) => now);
		assert(
			Math.max(...free) - Math.min(...free) < 8 * MiB,
			`${label}: the same is free on all: ${free.map((one) => Math.round(one / MiB)).join(" ")}`,
		);
		assert.equal((await bad.volume.status()).balancing.active, false, label);
		await expectEven(bad, "balanced");
		await bad.check("balanced");
		await bad.expectClean("balanced");
		await bad.expectWhole("balanced");
		await bad.remount();
		await expectEven(bad, "after another mount");
		await bad.check("after another mount");
		await bad.unmount();
	});
}

/** That it is wanted is remembered: it goes on behind each mount, however the one before ended, until the disks are even. */
export async function deathDuringBalance(seed: number, how: "kill" | "cut", deaths: number): Promise<void> {
	const bad = await BadWorld.make(seed, 96 * MiB);
	bad.world.addDisk("/d7", { capacityBytes: 96 * MiB });
	await bad.run(async () => {
		await bad.mount();
		await fill(bad, 24);
		await bad.volume.disks.add(["/d7"]);
		await bad.syncAll();
		await bad.volume.balance.begin();
		for (let death = 0; death < deaths; death++) {
			const step = bad.world.steps + 1 + ((seed * 31 + death * 97) % 80);
			await Promise.race([how === "kill" ? bad.world.killAt(step) : bad.world.cutAt(step), bad.world.sleep(5_000)]);
			bad.world.forgetEnd();
			if (how === "kill") bad.kill();
			else bad.cut();
			await bad.mount();
			await bad.check(`${how} ${death}`, how === "kill" ? "acknowledged" : "durable");
		}
		const status = await bad.volume.status();
		const plan = await bad.volume.balance.plan();
		assert(status.balancing.active || plan.isEven, `seed ${seed}: it goes on by itself: ${JSON.stringify(status.balancing)}`);
		assert((await balanced(bad)).isEven, `seed ${seed}`);
		await bad.expectClean(`${how} during a balance`);
		await expectEven(bad, `${how} during a balance`);
		await bad.unmount();
	});
}

/** It waits while the healer is paused and while something is under-protected, and can be called off. */
export async function heldUp(seed: number): Promise<void> {
	const bad = await BadWorld.make(seed, 96 * MiB);
	for (const path of ["/d7", "/d8"]) bad.world.addDisk(path, { capacityBytes: 96 * MiB });
	await bad.run(async () => {
		await bad.mount();
		await fill(bad, 24);
		await bad.volume.disks.add(["/d7"]);
		await bad.volume.setHealing({ paused: true });
		await bad.volume.balance.begin();
		const before = await heldOn(bad);
		await bad.world.sleep(20_000);
		const paused = await balanced(bad);
		assert.deepEqual([paused.paused, paused.movedBytes, paused.isEven], [true, 0, false], `seed ${seed}`);
		assert.match((await bad.volume.status()).balancing.waitingFor, /paused/);
		assert.deepEqual(await heldOn(bad), before, `seed ${seed}: nothing moves`);
		// A disk dies: what it held comes first.
		bad.world.vanish("/d3");
		await bad.until("the loss is known", async () => (await bad.volume.status()).disks.some((disk) => disk.state === "failed"));
		await bad.volume.setHealing({ paused: false, tranquility: 1 });
		await bad.until("healing", async () => (await bad.volume.status()).protection.degradedBytes === 0);
		await bad.volume.setHealing({ tranquility: 0 });
		await balanced(bad);
		await bad.check("balanced beside a loss");
		// One more disk, and a change of mind.
		await bad.volume.disks.add(["/d8"]);
		await bad.volume.setHealing({ tranquility: 50 });
		await bad.volume.balance.begin();
		await bad.until("something has moved", async () => (await bad.volume.status()).balancing.movedBytes > 0);
		const waiting = balanced(bad);
		assert.equal((await bad.volume.balance.cancel()).active, false);
		const called = await waiting;
		assert.deepEqual([called.cancelled, called.isEven], [true, false], `seed ${seed}: ${JSON.stringify(called)}`);
		const held = await heldOn(bad);
		await bad.world.sleep(10_000);
		assert.deepEqual(await heldOn(bad), held, `seed ${seed}: nothing moves any more`);
		await bad.check("called off");
		await bad.unmount();
	});
}
