import { type KvHarness, kvConformance } from "../../../test/conformance/kv.ts";
import { createVolume, machine, mount, type Mounted } from "./test-world.ts";

async function localHarness(seed: number): Promise<KvHarness> {
	const at = machine(seed, 4, 128 * 1024 * 1024);
	await createVolume(at, { logSegmentBytes: 4 * 1024 * 1024 });
	const open = (): Promise<Mounted> => mount(at, { memoryBytes: 2 * 1024 * 1024 });
	let mounted = await at.world.run(open());
	return {
		engine: mounted.engine,
		clock: mounted.platform.clock,
		random: mounted.platform.random,
		run: (work) => at.world.run(work),
		async reopen() {
			await mounted.close();
			mounted = await open();
			return mounted.engine;
		},
		close: () => at.world.run(mounted.close()),
	};
}

kvConformance("local", localHarness, { historySteps: 500, seeds: [1, 2] });
