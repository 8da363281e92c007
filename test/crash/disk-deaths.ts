/** `disk add`, `disk replace` and the exchange of a working disk end at one of their steps: the volume mounts and is whole, the command can be repeated, and nothing of the first attempt stays behind. */
import assert from "node:assert/strict";
import { BadWorld } from "./bad-world.ts";
import { diskPaths } from "./scenario.ts";

const MiB = 1024 * 1024;

export type Change = "add" | "replace" | "exchange";
export const changes: readonly Change[] = ["add", "replace", "exchange"];

export interface ChangeRun {
	readonly seed: number;
	readonly change: Change;
	readonly how: "kill" | "cut";
	/** Undefined: it comes to its end. */
	readonly at: number | undefined;
	readonly raw?: boolean;
	/** A working disk that is gone after the end. */
	readonly loses?: string;
}

async function membersOf(bad: BadWorld): Promise<Map<string, string>> {
	const { disks } = await bad.volume.status();
	return new Map(disks.map(({ path, state }) => [path, state]));
}

/** What the operator says, in words of the paths; it may be said again. */
async function command(bad: BadWorld, change: Change): Promise<void> {
	const { disks } = bad.volume;
	const members = await membersOf(bad);
	if (change === "add") {
		const missing = ["/new1", "/new2"].filter((path) => !members.has(path));
		assert(missing.length !== 1, `seed ${bad.seed}: all or none: ${[...members.keys()].join(" ")}`);
		if (missing.length > 0) await disks.add(missing);
	} else if (!members.has("/new1")) await disks.replace("/d4", "/new1");
}

/** Until nothing more is to be done; with traffic, so that it happens among other things. */
async function untilDone(bad: BadWorld, change: Change): Promise<void> {
	await bad.put("meanwhile", 60_000);
	if (change === "exchange") await bad.until("the old disk leaves", async () => !(await membersOf(bad)).has("/d4"));
	await bad.volume.heal(() => {});
}

/** Answers how many steps the whole of it takes. */
export async function deathDuringChange({ seed, change, how, at, raw = false, loses }: ChangeRun): Promise<number> {
	const bad = await BadWorld.make(seed, undefined, raw);
	const label = `seed ${seed}, ${change}, ${how} at ${at}${raw ? ", raw devices" : ""}${loses === undefined ? "" : `, ${loses} lost`}`;
	for (const path of ["/new1", "/new2"]) bad.world.addDisk(path, { capacityBytes: 256 * MiB, raw });
	const wanted = change === "add" ? [...diskPaths, "/new1", "/new2"] : [...diskPaths.filter((path) => path !== "/d4"), "/new1"];
	let steps = 0;
	await bad.run(async () => {
		if (change === "replace") bad.world.vanish("/d4");
		await bad.mount();
		await bad.syncAll();
		const first = bad.world.steps;
		const ended = at === undefined ? undefined : how === "cut" ? bad.world.cutAt(first + at) : bad.world.killAt(first + at);
		const work = async (): Promise<void> => {
			await command(bad, change);
			await untilDone(bad, change);
		};
		await (ended === undefined ? work() : Promise.race([work(), ended]));
		steps = bad.world.steps - first;
		bad.world.forgetEnd();
		if (how === "cut") bad.cut();
		else bad.kill();
		if (loses !== undefined) bad.world.vanish(loses);
		// What the command line remembers may be of before: the disks know better.
		await bad.mount();
		await bad.check(label, how === "cut" ? "durable" : "acknowledged");
		await command(bad, change);
		await untilDone(bad, change);
		if (loses === undefined) await bad.expectWhole(label);
		assert.deepEqual([...(await membersOf(bad)).keys()].sort(), [...wanted].sort(), label);
		await bad.expectClean(label);
		if (change === "exchange" && !raw) assert.deepEqual(bad.world.disk("/d4").files(), [], `${label}: nothing is left on the old one`);
		await bad.remount(["/new1"]);
		await bad.check(`${label}, found by the new disk`);
		if (loses === undefined) await bad.expectWhole(`${label}, found by the new disk`);
		await bad.unmount();
	});
	return steps;
}
