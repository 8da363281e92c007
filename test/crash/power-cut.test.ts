/** A sample of all ends of a volume's life; `npm run test:long crash` takes every step. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { describe, play, type Run } from "./power-cut.ts";
import { diskPaths } from "./scenario.ts";

const seed = 20_261_121;

async function survives(run: Run): Promise<void> {
	try {
		await play(run);
	} catch (error) {
		throw new Error(`${describe(run)}: ${(error as Error).message}`, { cause: error });
	}
}

const whole = { seed, endAt: undefined, how: "cut", ignored: [], lost: [] } as const;

test("a volume's life without accidents, then a power cut at rest", async () => {
	await survives(whole);
});

test("power cuts at a sample of write and sync boundaries lose nothing that was made durable", async () => {
	const { firstStep, lastStep } = await play(whole);
	assert(lastStep - firstStep > 200, `the script reaches the disks: ${lastStep - firstStep} steps`);
	const stride = Math.ceil((lastStep - firstStep) / 40);
	for (let step = firstStep + 1; step <= lastStep; step += stride) await survives({ ...whole, endAt: step });
});

test("the death of the process at a sample of boundaries loses nothing that was acknowledged", async () => {
	const { firstStep, lastStep } = await play(whole);
	const stride = Math.ceil((lastStep - firstStep) / 40);
	for (let step = firstStep + 2; step <= lastStep; step += stride) await survives({ ...whole, how: "kill", endAt: step });
});

test("a power cut and the loss of two disks at once, all fifteen pairs", async () => {
	const { firstStep, lastStep } = await play(whole);
	let at = 0;
	for (let a = 0; a < diskPaths.length; a++) {
		for (let b = a + 1; b < diskPaths.length; b++) {
			const lost = [diskPaths[a] as string, diskPaths[b] as string];
			const endAt = firstStep + 1 + Math.floor(((lastStep - firstStep - 2) * at++) / 15);
			await survives({ ...whole, endAt, lost });
		}
	}
});
