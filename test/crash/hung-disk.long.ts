/**
 * A whole bad day with a disk that hangs in the kernel (`npm run test:long hung-disk`): it stops answering under load, is named, is done without, its daemon is killed twice meanwhile, and it is taken
 * back. Nothing that was acknowledged is lost, and no program sees an error.
 */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { cannotMount, execute, sleep, TestVolume } from "../support/cairn.ts";
import { HangingDisk } from "../support/hanging-disk.ts";

/** Writes, syncs and reads back until the file `stop` is there; says how often, and how long the longest round took in milliseconds. */
const program = `
const fs = require("node:fs"); const [folder, stop] = process.argv.slice(1);
let rounds = 0, longest = 0;
while (!fs.existsSync(stop)) {
	const begun = performance.now();
	const path = folder + "/f" + (rounds % 20);
	const bytes = Buffer.alloc(1 + (rounds * 7919) % 300000, String(rounds));
	const fd = fs.openSync(path, "w+");
	fs.writeSync(fd, bytes);
	if (rounds % 3 === 0) fs.fsyncSync(fd);
	fs.closeSync(fd);
	if (!fs.readFileSync(path).equals(bytes)) throw new Error("other bytes in " + path);
	longest = Math.max(longest, performance.now() - begun);
	rounds++;
}
console.log(JSON.stringify({ rounds, longest }));
`;

async function until(what: string, volume: TestVolume, holds: () => Promise<boolean>, limitMs = 180_000): Promise<void> {
	const endMs = performance.now() + limitMs;
	while (!(await holds())) {
		assert.ok(performance.now() < endMs, `${what}: not within ${limitMs} ms\n${volume.log()}`);
		await sleep(200);
	}
}

/** A successor of the daemon, by its log: a command that asks the disks itself while nobody serves lasts as long as the disk hangs. */
async function succeeded(volume: TestVolume): Promise<void> {
	const tookOver = (): number => volume.log().split("took over the mount").length;
	const before = tookOver();
	const [daemon] = volume.daemons();
	assert.ok(daemon !== undefined, volume.log());
	process.kill(daemon, "SIGKILL");
	await until("a successor", volume, async () => tookOver() > before);
}

test("a disk hangs for a day", { skip: cannotMount() ?? false }, async (t) => {
	let hanging: HangingDisk | undefined;
	const volume = await TestVolume.start({
		disks: 4,
		redundancy: "rs:2+1",
		onFirstDisk: async (path) => {
			const disk = await HangingDisk.on(path);
			hanging = disk;
			return () => disk.close();
		},
	});
	try {
		assert.ok(hanging);
		const folder = join(volume.mountpoint, "work");
		const stop = join(volume.base, "stop");
		mkdirSync(folder);
		await writeFile(join(volume.mountpoint, "before"), Buffer.alloc(3_000_000, "before"));
		const working = execute(process.execPath, ["-e", program, folder, stop], { timeoutMs: 1_200_000 });
		await sleep(2_000);
		const stateOf = async () => (await volume.status()).disks.map(({ state }) => state);

		await hanging.hang("everything");
		await until("the disk is named", volume, async () => (await stateOf())[0] === "failed");
		assert.deepEqual((await stateOf()).slice(1), ["healthy", "healthy", "healthy"]);
		const { code, stdout, stderr } = await volume.try("heal", volume.name, "--wait");
		assert.equal(code, 0, `three disks hold rs:2+1: ${stdout}${stderr}`);
		assert.deepEqual(await readFile(join(volume.mountpoint, "before")), Buffer.alloc(3_000_000, "before"));
		// Its thread is in the kernel for good.
		for (let death = 0; death < 2; death++) {
			await succeeded(volume);
			await until("missing", volume, async () => (await stateOf())[0] === "missing");
			await sleep(3_000);
		}
		const replaced = await volume.try("disk", "replace", volume.name, "d1");
		assert.notEqual(replaced.code, 0, "a disk that hangs is not taken in");

		await hanging.answer();
		await until("taken back", volume, async () => (await stateOf()).every((state) => state === "healthy"));
		await volume.heal();
		await writeFile(stop, "");
		const done = await working;
		assert.deepEqual([done.code, done.stderr], [0, ""], volume.log());
		const { rounds, longest } = JSON.parse(done.stdout) as { rounds: number; longest: number };
		t.diagnostic(`${rounds} rounds, the longest took ${Math.round(longest)} ms`);
		assert.ok(rounds > 20);

		// A mount that was asked for while it hangs, and an unmount.
		await hanging.hang("everything");
		await until("the disk is named again", volume, async () => (await stateOf())[0] === "failed");
		const unmounted = await volume.try("umount", volume.mountpoint);
		assert.equal(unmounted.code, 0, unmounted.stderr);
		await volume.mount();
		assert.equal((await stateOf())[0], "missing");
		assert.deepEqual(await readFile(join(volume.mountpoint, "before")), Buffer.alloc(3_000_000, "before"));
		await hanging.answer();
		await until("taken back again", volume, async () => (await stateOf()).every((state) => state === "healthy"));
		await volume.heal();
		const { corrupt, missing, unrecoverable } = await volume.verify();
		assert.deepEqual([corrupt, missing, unrecoverable], [0, 0, 0], volume.log());
	} finally {
		await hanging?.answer();
		await volume.close();
	}
});
