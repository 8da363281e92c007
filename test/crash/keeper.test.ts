/** A mount outlives its daemon: the command line, real processes, a real kernel. The long suite kills more often. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { closeSync, openSync, readdirSync, readFileSync, readSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cannotMount, execute, sleep, TestVolume } from "../support/cairn.ts";
import { keeperSuite } from "./keeper.ts";

async function until(what: string, condition: () => boolean): Promise<void> {
	const endMs = performance.now() + 60_000;
	while (!condition()) {
		assert.ok(performance.now() < endMs, `${what}: not within a minute`);
		await sleep(20);
	}
}

async function gone(volume: TestVolume): Promise<void> {
	await until(`the end of daemon and keeper\n${volume.log()}`, () => volume.daemons().length + volume.keepers().length === 0);
	assert.ok(!readFileSync("/proc/self/mountinfo", "utf8").includes(` ${volume.mountpoint} `));
}

async function warnings(volume: TestVolume): Promise<string> {
	const status = JSON.parse(await volume.cairn("status", volume.name, "--json")) as {
		readonly state: string;
		readonly warnings: readonly string[];
	};
	assert.equal(status.state, "stopped");
	return status.warnings.join("\n");
}

function answers(volume: TestVolume): boolean {
	try {
		readdirSync(volume.mountpoint);
		return true;
	} catch {
		return false;
	}
}

const seed = Number(process.env["CAIRN_SEED"] ?? Date.now() % 1_000_000);

describe("a mount outlives its daemon", { skip: cannotMount() ?? false }, () => {
	let volume: TestVolume;
	before(async () => {
		volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
	});
	after(() => volume?.close());

	test(`two kills under load, seed ${seed}`, async () => {
		const { operations } = await keeperSuite(volume, { seed, kills: 2, workers: 2, killsPerRound: 2 }, () => {});
		assert.ok(operations > 100, `${operations} operations`);
	});

	test("a keeper that is killed is replaced, and the new one does its work", async () => {
		const [old] = volume.keepers();
		process.kill(old as number, "SIGKILL");
		await until("another keeper", () => volume.keepers().some((pid) => pid !== old));
		writeFileSync(join(volume.mountpoint, "kept"), "before");
		// It holds the mount once it was told; before, the daemon's death would be the mount's.
		await sleep(300);
		await volume.successorOf(volume.killDaemon());
		assert.equal(readFileSync(join(volume.mountpoint, "kept"), "utf8"), "before");
		assert.equal(volume.keepers().length, 1);
	});

	test("unmounted while nobody serves: umount(8) waits for the successor", async () => {
		volume.killDaemon();
		assert.equal((await execute("umount", [volume.mountpoint])).code, 0);
		await gone(volume);
		assert.doesNotMatch(await warnings(volume), /cleanly/);
		await volume.mount();
	});

	test("SIGTERM to the keeper unmounts and ends cleanly", async () => {
		const [keeper] = volume.keepers();
		// Before, it would die of the signal, and be replaced.
		await until("the keeper has begun", () => volume.log().includes(`keeper: process ${keeper} `));
		process.kill(keeper as number, "SIGTERM");
		await gone(volume);
		assert.doesNotMatch(await warnings(volume), /cleanly/);
		assert.deepEqual(
			readdirSync("/dev/shm").filter((name) => name.includes(volume.id)),
			[],
		);
	});

	test("on_crash=remount: errors for those who have files open, then a mount by itself", async () => {
		await volume.cairn("mount", volume.name, volume.mountpoint, "-o", "on_crash=remount");
		const held = openSync(join(volume.mountpoint, "kept"), "r");
		try {
			await volume.successorOf(volume.killDaemon());
			assert.throws(() => readSync(held, Buffer.alloc(1), 0, 1, 0), { code: "ENOTCONN" });
			assert.equal(readFileSync(join(volume.mountpoint, "kept"), "utf8"), "before");
			await until("one keeper", () => volume.keepers().length === 1);
		} finally {
			closeSync(held);
		}
		await volume.unmount();
	});

	test("on_crash=die: no keeper", async () => {
		await volume.cairn("mount", volume.name, volume.mountpoint, "-o", "on_crash=die");
		assert.deepEqual(volume.keepers(), []);
		volume.killDaemon();
		await until("the mount's death", () => !answers(volume));
		await volume.cairn("umount", volume.mountpoint);
	});
});
