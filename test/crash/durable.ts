/** Durable opens through deaths at any platform call: what the clients of a door were told is there again, exactly. */
import type { PlantedBug, Platform, SimulationHooks } from "../../src/platform/interface.ts";
import { SeededRandom } from "../support/map-records.ts";
import { SimWorld } from "../../src/platform/sim/world.ts";
import { Yard } from "../support/durable-yard.ts";
import { diskPaths, makeWorldVolume, openSim, simMemory } from "./scenario.ts";
import { recount } from "../support/recount.ts";

/** Answers what happened, by name. `planted`: a bug, to see whether it is noticed. @throws Error with the seed. */
export async function crashDurable(seed: number, deaths: number, planted?: PlantedBug): Promise<ReadonlyMap<string, number>> {
	const world = new SimWorld({ seed });
	const random = new SeededRandom(seed);
	await makeWorldVolume(world);
	const node = world.node();
	const simulation: SimulationHooks = { buggify: () => false, planted: (bug) => bug === planted };
	const boot = (): Platform => ({ ...node.boot(), simulation });
	const lines: string[] = [];
	const failed: Error[] = [];
	const fail = (what: string): never => {
		const error = new Error(`seed ${seed}: ${what}\n${lines.slice(-40).join("\n")}`);
		failed.push(error);
		throw error;
	};
	const note = (line: string): void => void lines.push(`${world.nowMs.toFixed(1)} ${line}`);
	const sleep = (ms: number): Promise<void> => world.sleep(ms);
	const yard = new Yard({ fail, note, mayLackSpace: () => false, nowMs: () => world.nowMs, sleep });
	await world.run(
		async () => {
			let how: "clean" | "kill" | "cut" = "clean";
			for (let death = 0; death < deaths; death++) {
				const volume = await openSim(boot());
				note(`mounted after ${how}`);
				yard.mounted(volume, random, how);
				how = (["clean", "kill", "cut"] as const)[random.below(3)] as "clean" | "kill" | "cut";
				let isOver = false;
				const work = (async () => {
					while (!isOver) {
						await yard.step(random);
						await world.sleep(random.below(50) === 0 ? random.below(40_000) : random.below(5));
					}
				})().catch((error: unknown) => {
					if (!isOver || failed.length > 0) fail(error instanceof Error ? error.message : String(error));
				});
				const calls = 5 + random.below(120);
				if (how === "clean") {
					await Promise.race([world.sleep(random.below(60_000)), work]);
					isOver = true;
					await Promise.race([work, world.sleep(400_000)]);
					await volume.shutdown();
				} else {
					const died = how === "cut" ? world.cutAt(world.steps + calls) : world.killAt(world.steps + calls);
					await Promise.race([died, work]);
					isOver = true;
				}
				world.forgetEnd();
				if (how === "cut") node.powerCut();
				else node.kill();
				note(`end: ${how}`);
				if (failed[0] !== undefined) throw failed[0];
			}
			const volume = await openSim(node.boot());
			yard.mounted(volume, random, how);
			await yard.finish();
			await volume.shutdown();
			await recount(node.boot(), diskPaths, simMemory);
		},
		{ limitMs: 100 * 3_600_000 },
	);
	return yard.counts;
}
