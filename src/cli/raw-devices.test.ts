/** Volumes on block devices and image files, through the command line and the kernel: loop devices play the devices. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { cannotMount, execute, missingPrograms, type Outcome, sleep } from "../../test/support/cairn.ts";

const commandLine = fileURLToPath(new URL("./main.js", import.meta.url));

function cannotLoop(): string | undefined {
	const missing = cannotMount() ?? missingPrograms("losetup", "mkfs.ext4");
	if (missing !== undefined) return missing;
	return spawnSync("losetup", ["--find"], { stdio: "ignore" }).status === 0 ? undefined : "there are no loop devices";
}

describe("raw devices", { skip: cannotLoop() ?? false }, () => {
	const base = mkdtempSync(join(tmpdir(), "cairn-raw-"));
	const name = base.slice(base.lastIndexOf("/") + 1);
	const mountpoint = join(base, "mnt");
	const loops: string[] = [];
	const contents = Buffer.alloc(9_000_000, (() => "contents of a file\n")());
	const cairn = (...words: string[]): Promise<Outcome> =>
		execute(process.execPath, [commandLine, ...words], { env: { CAIRN_HOME: join(base, "home") }, timeoutMs: 60_000 });
	const expect = async (code: number, words: RegExp, ...line: string[]): Promise<Outcome> => {
		const outcome = await cairn(...line);
		assert.equal(outcome.code, code, `${line.join(" ")}: ${outcome.stdout}${outcome.stderr}`);
		assert.match(outcome.stdout + outcome.stderr, words);
		return outcome;
	};
	const image = (file: string, sizeBytes = 160 << 20): string => {
		const path = join(base, file);
		writeFileSync(path, "");
		truncateSync(path, sizeBytes);
		return path;
	};
	const loop = (file: string): string => {
		const device = execFileSync("losetup", ["--find", "--show", image(file)], { encoding: "utf8" }).trim();
		loops.push(device);
		return device;
	};
	const status = async (): Promise<{ pid: number; state: string; disks: { id: string; path: string; state: string }[] }> =>
		JSON.parse((await cairn("status", name, "--json")).stdout);
	const until = async (what: string, holds: () => Promise<boolean>): Promise<void> => {
		const endMs = performance.now() + 60_000;
		while (!(await holds())) {
			assert.ok(performance.now() < endMs, what);
			await sleep(200);
		}
	};
	let devices: string[] = [];
	let file = "";
	let last = "";

	before(() => {
		mkdirSync(mountpoint);
		devices = [loop("a.img"), loop("b.img")];
		file = image("c.img");
		last = loop("d.img");
	});

	after(async () => {
		await cairn("umount", mountpoint);
		spawnSync("umount", ["-l", mountpoint], { stdio: "ignore" });
		for (const device of loops) spawnSync("losetup", ["--detach", device], { stdio: "ignore" });
		rmSync(base, { recursive: true, force: true });
	});

	test("what holds something else, or is in use, is refused", async () => {
		const [first = "", second = ""] = devices;
		execFileSync("mkfs.ext4", ["-q", first]);
		const disks = ["--disk", first, second, file, "--same-device"];
		await expect(4, /holds an ext2, ext3 or ext4 file system.*--force/, "create", name, ...disks);
		const there = join(base, "ext");
		mkdirSync(there);
		execFileSync("mount", [first, there]);
		try {
			await expect(4, /in use/, "create", name, ...disks, "--force");
		} finally {
			execFileSync("umount", [there]);
		}
		await expect(4, /in use by the loop device/, "create", name, "--disk", join(base, "b.img"), "--same-device");
		await expect(2, /too small/, "create", name, "--disk", image("tiny.img", 1 << 20));
		await expect(0, /created volume/, "create", name, ...disks, "--force");
		await expect(4, /already is a disk of volume/, "create", "other", "--disk", second, "--force");
	});

	test("files survive a kill, a disk is added and another leaves", async () => {
		await expect(0, /mounted/, "mount", name, mountpoint);
		await writeFile(join(mountpoint, "film"), contents);
		execFileSync("sync", ["-f", mountpoint]);
		const { pid } = await status();
		process.kill(pid, "SIGKILL");
		// Its keeper starts another behind the living mount.
		await until("a new daemon", async () => {
			const now = await status();
			return now.pid !== pid && now.disks.length === 3 && now.disks.every(({ state }) => state === "healthy");
		});
		assert.ok(contents.equals(await readFile(join(mountpoint, "film"))));
		await expect(0, /added d4/, "disk", "add", name, last);
		await expect(0, /d1 .* is empty/, "disk", "drain", name, "d1", "--wait");
		await expect(0, /nothing of it is left/, "disk", "remove", name, "d1");
		await expect(0, /0 corrupt, 0 missing/, "verify", name);
		await expect(0, /created volume/, "create", "other", "--disk", devices[0] as string);
		await expect(0, /destroyed/, "destroy", "other", "--yes", "other");
	});

	test("a device that shrinks under the volume is thrown out, and the volume goes on", async () => {
		truncateSync(join(base, "d.img"), 64 << 20);
		execFileSync("losetup", ["--set-capacity", last]);
		await writeFile(join(mountpoint, "more"), contents);
		execFileSync("sync", ["-f", mountpoint]);
		await until("d4 failed", async () => (await status()).disks.find(({ id }) => id === "d4")?.state === "failed");
		assert.ok(contents.equals(await readFile(join(mountpoint, "film"))));
		await expect(0, /takes the place of d4/, "disk", "replace", name, "d4", image("e.img"));
		await expect(0, /in full|lacks nothing/, "heal", name, "--wait");
	});

	test("devices whose names were swapped while nobody looked are told by what is on them", async () => {
		await expect(0, /unmounted/, "umount", mountpoint);
		const known = (await status()).disks.map(({ path }) => path);
		// The image moves, and a blank one takes its place.
		const before = known.find((path) => path === file) as string;
		const moved = join(base, "moved.img");
		execFileSync("mv", [before, moved]);
		image("c.img");
		await expect(0, /mounted/, "mount", name, mountpoint, "--disk", moved);
		assert.deepEqual(
			(await status()).disks.map(({ state }) => state),
			["healthy", "healthy", "healthy"],
		);
		assert.ok(contents.equals(await readFile(join(mountpoint, "more"))));
		await expect(0, /unmounted/, "umount", mountpoint);
		await expect(0, /destroyed/, "destroy", name, "--yes", name);
		assert.deepEqual(readdirSync(join(base, "home")), []);
	});
});
