/**
 * A kernel that cannot hand a mount over to another process (before Linux 6.9), through real mounts: a daemon that is killed leaves nothing that hangs. Programs get errors, the volume is mounted anew, what was acknowledged is
 * there. `-o fuse_minor=37` takes this kernel for one of Linux 6.1.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { closeSync, fsyncSync, openSync, readdirSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { cannotMount, sleep, TestVolume } from "../support/cairn.ts";

const older = ["-o", "fuse_minor=37"] as const;
/** Of everything that waits for a dead daemon. */
const boundMs = 60_000;

describe("a kernel that cannot resume", { skip: cannotMount() ?? false }, () => {
	let volume: TestVolume;
	before(async () => {
		volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
		await volume.unmount();
		await volume.mount(...older);
	});
	after(() => volume?.close());

	const path = (name: string): string => join(volume.mountpoint, name);

	/**
	 * What a program is told that waits while the daemon dies, by the name of the error. It is started before the daemon stands still: a child that closes an inherited file of the mount would wait for it, and whoever
	 * started the child with it.
	 */
	async function waiting(kill: () => Promise<unknown>): Promise<string> {
		const [daemon] = volume.daemons() as [number];
		const look = `try { require("node:fs").statSync(${JSON.stringify(path("never asked for"))}); console.log("there") } catch (error) { console.log(error.code) }`;
		const child = spawn(process.execPath, ["-e", `console.log("ready"); process.stdin.once("data", () => { ${look}; process.exit() })`]);
		let said = "";
		const lines = (count: number): Promise<void> =>
			new Promise((resolve, reject) => {
				const timer = setTimeout(() => reject(new Error(`it hangs, and has said ${JSON.stringify(said)}\n${volume.log()}`)), boundMs);
				const look = (): void => {
					if (said.split("\n").length <= count) return;
					clearTimeout(timer);
					resolve();
				};
				child.stdout.on("data", look);
				look();
			});
		child.stdout.setEncoding("utf8").on("data", (text: string) => {
			said += text;
		});
		try {
			await lines(1);
			// It takes no request any more until it dies.
			process.kill(daemon, "SIGSTOP");
			child.stdin.write("look\n");
			await sleep(500);
			await kill();
			await lines(2);
			return said.split("\n")[1] as string;
		} finally {
			child.kill("SIGKILL");
			try {
				process.kill(daemon, "SIGKILL");
			} catch {
				// As it should be: it is dead.
			}
		}
	}

	test("programs get an error, and the volume is mounted anew with what was acknowledged", async () => {
		writeFileSync(path("synced"), "synced".repeat(10_000));
		const held = openSync(path("held"), "w");
		writeSync(held, "synced");
		fsyncSync(held);
		writeSync(held, " and acknowledged");
		const [daemon] = volume.daemons();
		assert.match(await waiting(async () => process.kill(daemon as number, "SIGKILL")), /^(ENOTCONN|ECONNABORTED|EIO)$/, volume.log());
		await volume.successorOf(daemon as number);
		// The handle was of the mount that is gone.
		assert.throws(() => writeSync(held, "more"), { code: /^(ENOTCONN|ECONNABORTED|EIO)$/ });
		try {
			closeSync(held);
		} catch {
			// That it is gone may be told here, too.
		}
		assert.equal(readFileSync(path("held"), "utf8"), "synced and acknowledged", volume.log());
		assert.equal(readFileSync(path("synced"), "utf8").length, 60_000);
		writeFileSync(path("anew"), "works");
		const mounts = readFileSync("/proc/self/mountinfo", "utf8")
			.split("\n")
			.filter((line) => line.includes(` ${volume.mountpoint} `));
		assert.equal(mounts.length, 1, mounts.join("\n"));
	});

	test("nobody is left who could mount it anew: umount and mount work again", async () => {
		for (const way of ["umount", "mount"]) {
			writeFileSync(path(way), "acknowledged");
			assert.match(await waiting(() => volume.kill()), /^(ENOTCONN|ECONNABORTED|EIO)$/, volume.log());
			assert.throws(() => readdirSync(volume.mountpoint), { code: /^(ENOTCONN|ECONNABORTED|EIO)$/ });
			if (way === "umount") await volume.unmount();
			await volume.mount(...older);
			assert.equal(readFileSync(path(way), "utf8"), "acknowledged", volume.log());
		}
		await volume.remount();
		assert.equal(readFileSync(path("anew"), "utf8"), "works");
	});
});
