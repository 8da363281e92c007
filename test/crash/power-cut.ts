/** Runs the scripted life of scenario.ts with an end at a chosen disk step, recovers twice, and compares with the ledger. */
import assert from "node:assert/strict";
import { SimWorld } from "../../src/platform/sim/world.ts";
import type { NativeVolume } from "../../src/volume/native/interface.ts";
import { recount } from "../support/recount.ts";
import { canonical, diskPaths, Ledger, makeWorldVolume, openSim, readTree, simMemory, type Step, script } from "./scenario.ts";

export interface Run {
	readonly seed: number;
	/** Step at which it ends; undefined = runs through. */
	readonly endAt: number | undefined;
	readonly how: "cut" | "kill";
	/** Sync sites that do nothing in this run. */
	readonly ignored: readonly string[];
	/** On raw devices instead of directories. */
	readonly raw?: boolean;
	/** Disks that are gone when the volume is mounted again. */
	readonly lost: readonly string[];
}

export interface Outcome {
	/** Steps of the volume's life, first and last, in the world's numbering. */
	readonly firstStep: number;
	readonly lastStep: number;
	readonly syncSites: readonly string[];
}

/** Plays the run; throws when a promise was broken. */
export async function play(run: Run): Promise<Outcome> {
	const world = new SimWorld({ seed: run.seed });
	for (const site of run.ignored) world.ignoreSync(site);
	await makeWorldVolume(world, undefined, run.raw);
	const firstStep = world.steps + 1;
	const node = world.node();
	const ledger = new Ledger();
	const inWork = new Set<string>();
	const ended = run.endAt === undefined ? undefined : run.how === "cut" ? world.cutAt(run.endAt) : world.killAt(run.endAt);
	const life = live(await world.run(() => openOrEnd(node.boot(), ended)), ledger, inWork);
	await world.run(ended === undefined ? life : Promise.race([life, ended]));
	const lastStep = world.steps;
	if (run.endAt === undefined) {
		// The life was whole: everything is durable now, and the power fails at rest.
		node.powerCut();
	} else if (!world.wasCut) {
		if (run.how === "cut") node.powerCut();
		else node.kill();
	}
	for (const path of run.lost) world.wipe(path);
	const again = world.node();
	const recovering = run.how === "kill" && run.endAt !== undefined ? node : again;
	const first = await recover(world, recovering.boot());
	ledger.check(first.found, inWork, run.how === "kill" && run.endAt !== undefined);
	// A second recovery, after a power cut at rest, must agree with the first: recovery itself is durable.
	recovering.powerCut();
	const second = await recover(world, again.boot());
	assert.equal(canonical(second.found), canonical(first.found), "two recoveries agree");
	await world.run(async () => {
		await second.volume.shutdown();
		await recount(again.boot(), diskPaths, simMemory);
	});
	return { firstStep, lastStep, syncSites: world.syncSites };
}

async function openOrEnd(
	platform: ReturnType<ReturnType<SimWorld["node"]>["boot"]>,
	ended: Promise<void> | undefined,
): Promise<NativeVolume | undefined> {
	const opening = openSim(platform);
	return ended === undefined ? opening : await Promise.race([opening, ended.then(() => undefined)]);
}

async function live(volume: NativeVolume | undefined, ledger: Ledger, inWork: Set<string>): Promise<void> {
	if (volume === undefined) return;
	for (const step of script() as Step[]) {
		inWork.clear();
		for (const path of step.paths) inWork.add(path);
		await step.run(volume, ledger);
	}
	inWork.clear();
	await volume.syncAll();
	ledger.settleAll();
}

async function recover(
	world: SimWorld,
	platform: Parameters<typeof openSim>[0],
): Promise<{ found: Map<string, string>; volume: NativeVolume }> {
	return world.run(async () => {
		const volume = await openSim(platform, diskPaths);
		const found = await readTree(volume);
		await volume.syncAll();
		return { found, volume };
	});
}

/** The message that lets anyone replay a failure. */
export function describe(run: Run): string {
	const parts = [`seed ${run.seed}`, run.endAt === undefined ? "whole life" : `${run.how} at step ${run.endAt}`];
	if (run.ignored.length > 0) parts.push(`without ${run.ignored.join(", ")}`);
	if (run.raw === true) parts.push("raw devices");
	if (run.lost.length > 0) parts.push(`lost ${run.lost.join(" and ")}`);
	return parts.join(", ");
}
