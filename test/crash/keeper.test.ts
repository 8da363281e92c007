/** A mount outlives its daemon: the command line, real processes, a real kernel. The long suite kills more often. */
import assert from "node:assert/strict";
import { closeSync, openSync, readdirSync, readFileSync, readSync, truncateSync, unlinkSync, writeFileSync, writeSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { cannotMount, execute, sleep, TestVolume } from "../support/cairn.ts";
import { keeperSuite, search } from "./keeper.ts";
import { installation } from "./upgrade.ts";

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

/** What the command does, with any program. */
async function handOver(volume: TestVolume, program: readonly string[]): Promise<void> {
	const socket = connect(join(volume.base, "home", volume.name, "control.sock"));
	socket.write(`${JSON.stringify({ id: 1, verb: "hand-over", arguments: { program } })}\n`);
	const said = await new Promise<string>((resolve) => socket.once("data", (bytes) => resolve(String(bytes))));
	socket.destroy();
	assert.match(said, /"result"/);
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

	test("killed while it waits for the kernel to write a mapping out, twice: nothing of it stands in its successor's way", async () => {
		const path = join(volume.mountpoint, "mapped");
		writeFileSync(path, "");
		truncateSync(path, 96 << 20);
		for (let round = 0; round < 2; round++) {
			const searching = await search(path);
			await volume.successorOf(volume.killDaemon());
			assert.equal(await searching.said(), `searching\n${96 << 20} A\n`);
		}
	});

	test("nobody is left, and what is left of the daemon still holds the mount: programs get errors, umount takes it away", async () => {
		const searching = await search(join(volume.mountpoint, "mapped"));
		await volume.kill();
		await volume.cairn("umount", volume.mountpoint);
		assert.equal(await searching.said(), "searching\n");
		await volume.mount();
		unlinkSync(join(volume.mountpoint, "mapped"));
	});

	test("cairn upgrade: another installation takes over, programs wait", async () => {
		const elsewhere = installation(join(volume.base, "installed"));
		const held = openSync(join(volume.mountpoint, "held"), "w+");
		writeSync(held, "before ");
		unlinkSync(join(volume.mountpoint, "held"));
		const [before] = volume.daemons();
		const said = await volume.tryOf(elsewhere, "upgrade", volume.name, "--json");
		const { pid, to, mountpoint } = JSON.parse(said.stdout) as { pid: number; to: string; mountpoint: string };
		assert.deepEqual([said.code, to, mountpoint], [0, join(elsewhere, "dist/src/daemon/main.js"), volume.mountpoint], said.stderr);
		assert.notEqual(pid, before);
		writeSync(held, "after");
		assert.equal(readFileSync(`/proc/self/fd/${held}`, "utf8"), "before after");
		closeSync(held);
		// The old keeper has made room for one of the new installation.
		await until("the new keeper", () => volume.keepers().length === 1);
		assert.match(readFileSync(`/proc/${volume.keepers()[0]}/cmdline`, "utf8"), /installed/);
	});

	test("a version that has room for fewer open files refuses, and changes nothing that the one before needs (the long suite upgrade has more)", async () => {
		const difference = ["volume/native/limits.js", "handles: 262_144,", "handles: 1_024,"] as const;
		const smaller = installation(join(volume.base, "smaller"), [difference]);
		const held = openSync(join(volume.mountpoint, "held"), "w+");
		unlinkSync(join(volume.mountpoint, "held"));
		const { code, stderr } = await volume.tryOf(smaller, "upgrade", volume.name);
		assert.deepEqual([code, /could not serve .* goes on/.test(stderr)], [1, true], `${stderr}\n${volume.log()}`);
		assert.match(volume.log(), /instead of \d+: another version/);
		writeSync(held, "after");
		assert.equal(readFileSync(`/proc/self/fd/${held}`, "utf8"), "after");
		closeSync(held);
	});

	test("an installation that cannot serve makes room for the one before", async () => {
		const broken = join(volume.base, "broken.js");
		writeFileSync(broken, "process.exit(7);");
		const [before] = volume.daemons();
		const words = readFileSync(`/proc/${before}/cmdline`, "utf8").split("\0");
		await handOver(volume, [process.execPath, broken]);
		const now = await volume.successorOf(before as number);
		assert.ok(readFileSync(`/proc/${now}/cmdline`, "utf8").includes(words.find((word) => word.endsWith("/daemon/main.js")) as string));
		assert.equal(readFileSync(join(volume.mountpoint, "kept"), "utf8"), "before");
		assert.match(volume.log(), /broken\.js ended .* before it served/);
	});

	test("unmounted while nobody serves: umount(8) waits for the successor", async () => {
		volume.killDaemon();
		assert.equal((await execute("umount", [volume.mountpoint])).code, 0);
		await gone(volume);
		assert.doesNotMatch(await warnings(volume), /cleanly/);
		await volume.mount();
	});

	test("killed while it unmounts, waiting in the kernel for its own answer: a successor ends it", async () => {
		writeFileSync(join(volume.mountpoint, "large"), Buffer.alloc(64 << 20, "dirty "));
		const [daemon] = volume.daemons();
		const unmounted = volume.try("umount", volume.mountpoint);
		const waits = (): boolean =>
			readdirSync(`/proc/${daemon}/task`).some((task) => /destroy/.test(readFileSync(`/proc/${daemon}/task/${task}/stack`, "latin1")));
		try {
			await until("the last request", waits);
		} catch (error) {
			// It was quick: the thread, or the whole process, has ended.
			if ((error as { code?: string }).code !== "ENOENT" && (error as { code?: string }).code !== "ESRCH") throw error;
		}
		if (volume.daemons().includes(daemon as number)) volume.killDaemon();
		await unmounted;
		await gone(volume);
		await volume.mount();
		assert.equal(readFileSync(join(volume.mountpoint, "large")).length, 64 << 20);
		unlinkSync(join(volume.mountpoint, "large"));
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
			// The close is told to a server that is gone; the descriptor is free all the same.
			assert.throws(() => closeSync(held), { code: "ENOTCONN" });
		}
		await volume.unmount();
	});

	test("an installation whose keepers do not come up: the mount is served, and status says that nobody keeps it", async () => {
		const difference = ["daemon/keeper.js", "const options = {", "process.exit(1);\n    const options = {"] as const;
		const keeperless = installation(join(volume.base, "keeperless"), [difference]);
		const { code, stderr } = await volume.tryOf(keeperless, "mount", volume.name, volume.mountpoint);
		assert.equal(code, 0, stderr);
		let said = "";
		for (let tries = 0; tries < 100 && !/would end with its daemon: nobody keeps it/.test(said); tries++) {
			await sleep(200);
			said = await volume.cairn("status", volume.name);
		}
		assert.match(said, /would end with its daemon: nobody keeps it/);
		assert.equal(readFileSync(join(volume.mountpoint, "kept"), "utf8"), "before");
		await volume.unmount();
		assert.doesNotMatch(await warnings(volume), /nobody keeps it/);
	});

	test("on_crash=die: no keeper", async () => {
		await volume.cairn("mount", volume.name, volume.mountpoint, "-o", "on_crash=die");
		assert.deepEqual(volume.keepers(), []);
		volume.killDaemon();
		await until("the mount's death", () => !answers(volume));
		await volume.cairn("umount", volume.mountpoint);
	});
});
