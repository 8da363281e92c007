/**
 * The daemon is killed again and again behind a living mount, under load (`npm run test:long keeper`, `--times 50`, `--seed 7`): no program sees an error, no byte is lost, nothing is done twice.
 */
import assert from "node:assert/strict";
import { renameSync, truncateSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { cannotMount, sleep, TestVolume } from "../support/cairn.ts";
import { keeperSuite, search } from "./keeper.ts";

const times = Number(process.env["CAIRN_TIMES"] ?? 200);
const seed = Number(process.env["CAIRN_SEED"] ?? Date.now() % 1_000_000);

let volume: TestVolume | undefined;
after(() => volume?.close());

test(`${times} kills behind a living mount, seed ${seed}`, { skip: cannotMount() ?? false }, async () => {
	volume = await TestVolume.start({ disks: 6, redundancy: "rs:4+2" });
	const { operations } = await keeperSuite(volume, { seed, kills: times, workers: 4, killsPerRound: 20 }, console.log);
	assert.ok(operations > times, `${operations} operations`);
	const { corrupt, missing, unrecoverable } = await volume.verify();
	assert.deepEqual([corrupt, missing, unrecoverable], [0, 0, 0], volume.log());
});

test("a mount whose daemons cannot serve any more is given up: errors instead of waiting for ever", {
	skip: cannotMount() ?? false,
}, async () => {
	const on = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
	try {
		writeFileSync(join(on.mountpoint, "file"), "contents");
		writeFileSync(join(on.mountpoint, "mapped"), "");
		truncateSync(join(on.mountpoint, "mapped"), 96 << 20);
		// A thread of the daemon is in the kernel and holds the mount: letting go of it is not enough.
		const searching = await search(join(on.mountpoint, "mapped"));
		for (const path of on.diskPaths) renameSync(path, `${path}.away`);
		on.killDaemon();
		await assert.rejects(readFile(join(on.mountpoint, "file")), (error: NodeJS.ErrnoException) =>
			["ENOTCONN", "ECONNABORTED"].includes(error.code ?? ""),
		);
		assert.equal(await searching.said(), "searching\n");
		assert.match(on.log(), /the mount is given up/);
		// It lets go of the mount first, and then ends.
		for (let i = 0; i < 600 && on.keepers().length > 0; i++) await sleep(100);
		assert.deepEqual([on.daemons(), on.keepers()], [[], []]);
		for (const path of on.diskPaths) renameSync(`${path}.away`, path);
		await on.mount();
		assert.equal(await readFile(join(on.mountpoint, "file"), "utf8"), "contents");
	} finally {
		await on.close();
	}
});
