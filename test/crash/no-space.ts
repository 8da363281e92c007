/** Space runs out at any moment of a volume's life: every operation ends with ENOSPC or success, what was acknowledged stays, deletion works, and when there is space again all is well. */
import assert from "node:assert/strict";
import { FsError } from "../../src/base/errors.ts";
import { recount } from "../support/recount.ts";
import { BadWorld } from "./bad-world.ts";
import { diskPaths } from "./scenario.ts";

/** all, one: those disks give no new space from then on. call: one write, or one making of a file, of one disk is refused. */
export type Lack = "all" | "one" | "call";

/** Virtual milliseconds that the work takes where nothing is lacking. */
export const lifeMs = 56;

export async function noSpaceAt(seed: number, lack: Lack, atMs: number): Promise<void> {
	const bad = await BadWorld.make(seed);
	const label = `seed ${seed}: no space (${lack}) after ${atMs} ms`;
	const path = diskPaths[seed % diskPaths.length] as string;
	await bad.run(async () => {
		await bad.mount();
		const begun = bad.world.nowMs;
		const lacking = bad.world.sleep(atMs).then(() => strike(bad, lack, path));
		const refused = await life(bad, label);
		if (process.env["CAIRN_TELL"] !== undefined) console.log(`${label}: ${refused} refused, ${bad.world.nowMs - begun} ms`);
		await lacking;
		await bad.check(label);
		await bad.inTime(`${label}: removing`, () => bad.remove("large"));
		await bad.inTime(`${label}: making a name durable`, async () => {
			const { position } = await bad.volume.makeDirectory(root, bad.volume.root, "made-while-full", 0o755);
			await bad.volume.durable(position);
		});
		for (const one of diskPaths) bad.world.heal(one);
		await bad.until(`${label}: there is space again`, async () => (await attempt(label, () => bad.syncAll())) === "done");
		await bad.check(label);
		await bad.put("afterwards", 250_000);
		const status = await bad.expectWhole(label);
		for (const disk of status.disks) assert.deepEqual([disk.state, disk.errors], ["healthy", 0], `${label}: ${disk.path} is blamed`);
		await bad.expectClean(label);
		await bad.remount();
		await bad.check(`${label}, mounted again`);
		await bad.unmount();
		const { intents } = await recount(bad.world.node().boot(), diskPaths, { logTailBytes: 4 << 20 });
		assert.equal(intents, 0, `${label}: nothing is left half done`);
	});
}

const root = {
	uid: 0,
	gid: 0,
	groups: [],
	principal: undefined,
	door: "test",
	clientInstance: "no-space",
	share: undefined,
	trusted: true,
} as const;

function strike(bad: BadWorld, lack: Lack, path: string): void {
	if (lack === "call") bad.world.fail(path, ["write", "open"], "ENOSPC", 1);
	else for (const one of lack === "all" ? diskPaths : [path]) bad.world.full(one);
}

async function attempt(label: string, work: () => Promise<unknown>): Promise<"done" | "refused"> {
	try {
		await work();
		return "done";
	} catch (error) {
		assert(error instanceof FsError, `${label}: ${String(error)}`);
		assert.equal(error.code, "ENOSPC", `${label}: ${error.site}: ${error.message}`);
		return "refused";
	}
}

/** Something of everything that takes space or gives it back. Answers how much of it was refused. */
async function life(bad: BadWorld, label: string): Promise<number> {
	let refused = 0;
	const tried = async (what: string, work: () => Promise<unknown>): Promise<void> => {
		if ((await attempt(`${label}: ${what}`, () => bad.inTime(what, work))) === "refused") refused++;
	};
	for (let round = 0; round < 6; round++) {
		const wide = `wide${round}`;
		await tried("a small write", () => bad.write(`few${round % 3}`, 3_000, 500 * round));
		if (bad.histories.has(`few${round % 3}`)) await tried("its fsync", () => bad.fsync(`few${round % 3}`));
		await tried("a large write", () => bad.write(wide, 300_000));
		await tried("syncfs", () => bad.syncAll());
		await tried("an overwrite", () => bad.write("medium", 20_000, 7_000 * round));
		await tried("its fsync", () => bad.fsync("medium"));
		if (round > 0 && bad.contents.has(wide)) await tried("a copy", () => bad.copy(wide, 1_000, `copy${round}`, 200_000));
		await tried("a tiny file", () => bad.put(`tiny${round}`, 90));
		if (round > 1 && bad.contents.has(`wide${round - 2}`)) await tried("a removal", () => bad.remove(`wide${round - 2}`));
		await bad.world.sleep(5);
	}
	return refused;
}
