/** Bad days on which one disk fails in one of the ways that disks have, in the middle of something. */
import assert from "node:assert/strict";
import { awayIn, BadWorld } from "./bad-world.ts";

export type Fault = "vanish" | "sync" | "write" | "hang" | "read-only";
export const faults: readonly Fault[] = ["vanish", "sync", "write", "hang", "read-only"];

/** In the middle of what. */
export type Middle = "fsync" | "seal" | "flush" | "roster";
export const middles: readonly Middle[] = ["fsync", "seal", "flush", "roster"];

function strike(bad: BadWorld, path: string, fault: Fault): void {
	if (fault === "vanish") bad.world.vanish(path);
	else if (fault === "sync") bad.world.failNextSync(path);
	else if (fault === "write") bad.world.fail(path, ["write"], "EIO", 1);
	else if (fault === "hang") bad.world.hang(path);
	else bad.world.readOnly(path);
}

function mend(bad: BadWorld, path: string, fault: Fault): void {
	if (fault === "hang") bad.world.unhang(path);
	else if (fault === "vanish") bad.world.reappear(path);
	bad.world.heal(path);
}

/** Work of that kind; the whole of it takes longer than the fault's delay. */
async function work(bad: BadWorld, middle: Middle): Promise<void> {
	const timed = (what: string, fn: () => Promise<void>): Promise<void> => bad.inTime(`${what} in the middle of ${middle}`, fn);
	if (middle === "seal") {
		for (let i = 0; i < 4; i++) {
			await timed("writing", () => bad.write(`sealed${i}`, 150_000));
			await timed("syncfs", () => bad.syncAll());
		}
		return;
	}
	// A memtable is flushed when a quarter of the log has been written.
	const rounds = middle === "flush" ? 26 : 10;
	for (let i = 0; i < rounds; i++) {
		const length = middle === "flush" ? 120_000 : 3_000;
		await timed("writing", () => bad.write(`logged${i % 5}`, length));
		await timed("fsync", () => bad.fsync(`logged${i % 5}`));
		await timed("reading", () => bad.read(i % 2 === 0 ? "large" : "dir/a"));
	}
}

/** When work of that kind is well under way, virtual milliseconds after its start. */
const underWayMs: Readonly<Record<Middle, number>> = { fsync: 6, seal: 3, flush: 100, roster: 6 };

/**
 * One disk fails after `extraMs`; everything goes on in time, that disk is reported and no other, and when it comes back it is taken
 * in.
 */
export async function faultInTheMiddle(seed: number, path: string, fault: Fault, middle: Middle, extraMs = 0): Promise<void> {
	const label = `seed ${seed}: ${path}, ${fault} in the middle of ${middle}`;
	const bad = await BadWorld.make(seed);
	const first = path === "/d6" ? "/d1" : "/d6";
	const away = middle === "roster" ? [first, path] : [path];
	await bad.run(async () => {
		await bad.mount();
		const running = work(bad, middle);
		await bad.world.sleep(underWayMs[middle] + extraMs);
		if (middle === "roster") {
			bad.world.vanish(first);
			await bad.put("notices", 1_000);
		}
		strike(bad, path, fault);
		await running;
		// Whatever the work did not ask of the disk, this does.
		await bad.put("touches-all", 200_000);
		await bad.syncAll();
		await bad.until(`${label}: it is reported`, async () => awayIn(await bad.volume.status()).length === away.length);
		await bad.check(label);
		const status = await bad.expectDegraded(away);
		const slot = status.disks.find((disk) => disk.path === path);
		assert.equal(slot?.state, "failed", label);
		assert((slot?.errors ?? 0) > 0, `${label}: an error is counted`);
		for (const disk of status.disks) if (!away.includes(disk.path)) assert.equal(disk.errors, 0, `${label}: ${disk.path} is blamed`);
		for (const one of away) mend(bad, one, one === path ? fault : "vanish");
		await bad.world.sleep(2_000);
		await bad.put("later", 30_000);
		await bad.remount();
		await bad.check(`${label}, mended`);
		await bad.expectWhole(`${label}, mended`);
		await bad.expectClean(`${label}, mended`);
		await bad.unmount();
	});
}
