/** The command on a real mount: what only a kernel and processes can show. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { closeSync, openSync, readdirSync, readFileSync, rmSync, statSync, write, writeFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { cannotMount, execute, sleep, TestVolume } from "../../test/support/cairn.ts";
import type { ProfileWindow } from "../base/profile.ts";
import type { Explanation } from "../volume/native/interface.ts";

interface LogRecord {
	readonly time: string;
	readonly level: string;
	readonly volume: string;
	readonly message: string;
	readonly source: string;
	readonly site?: string;
	readonly request?: { readonly door: string; readonly id: string; readonly operation: string };
}

const commandLine = fileURLToPath(new URL("./main.js", import.meta.url));
const isMounted = (path: string) => readFileSync("/proc/self/mountinfo", "utf8").includes(` ${path} `);

async function until(what: string, condition: () => boolean | Promise<boolean>, limitMs = 30_000): Promise<void> {
	const endMs = performance.now() + limitMs;
	while (!(await condition())) {
		assert.ok(performance.now() < endMs, `${what}: not within ${limitMs} ms`);
		await sleep(50);
	}
}

describe("a real mount", { skip: cannotMount() ?? false }, () => {
	let volume: TestVolume;
	let id = "";
	const text = "written through the kernel\n".repeat(10_000);
	const path = (name: string) => join(volume.mountpoint, name);
	const stopped = async () => {
		await until("the daemon's end", () => volume.daemons().length === 0);
		assert.equal(isMounted(volume.mountpoint), false);
		const status = (await volume.status()) as unknown as { state: string; warnings: string[] };
		assert.equal(status.state, "stopped");
		return status.warnings.join("\n");
	};

	before(async () => {
		volume = await TestVolume.start({ disks: 6, redundancy: "rs:4+2" });
		id = (JSON.parse(await volume.cairn("status", volume.name, "--json")) as { id: string }).id;
	});
	after(() => volume?.close());

	test("what is asked of it, by whom, for which file", async () => {
		const file = openSync(path("busy"), "w");
		const window = volume.cairn("profile", volume.name, "--seconds", "1.5", "--json");
		let looked = false;
		const shown = window.finally(() => {
			looked = true;
		});
		let writes = 0;
		for (; !looked; writes++) {
			await promisify(write)(file, text, 0);
			writeFileSync(path("passing"), "");
			rmSync(path("passing"));
		}
		closeSync(file);
		const { operations, files, seconds } = JSON.parse(await shown) as Omit<ProfileWindow, "files"> & {
			files: { path: string | null; pid: number }[];
		};
		const of = (name: string) => operations.find(({ operation }) => operation === name);
		assert(seconds > 0 && writes > 0, `${writes} in ${seconds} s`);
		assert(of("WRITE")?.bytes && of("CREATE")?.count && of("UNLINK")?.count, JSON.stringify(operations));
		for (const { meanMs, p50Ms, p99Ms, maxMs } of operations)
			assert(meanMs > 0 && p50Ms <= p99Ms && p99Ms <= maxMs, JSON.stringify(operations));
		const asked = new Map(files.map((one) => [one.path, one.pid]));
		assert.equal(asked.get("/busy"), process.pid, JSON.stringify(files));
		assert.equal(asked.get("/"), process.pid, JSON.stringify(files));
		assert.match(await volume.cairn("profile", volume.name, "--seconds", "0.1"), /requests a second over/);
		assert.equal((await volume.try("profile", volume.name, "--seconds", "soon")).code, 2);
		assert.equal((await volume.try("profile", "nobody")).code, 3);
	});

	test("files, status, explain", async () => {
		await writeFile(path("file"), text);
		assert.equal(await readFile(path("file"), "utf8"), text);
		const status = await volume.status();
		assert.deepEqual([status.state, status.mounts, status.pid], ["running", [volume.mountpoint], volume.daemons()[0]]);
		const explained = JSON.parse(await volume.cairn("explain", path("file"), "--json")) as { path: string; ino: number };
		assert.equal(explained.path, path("file"));
		assert.equal((await volume.try("explain", path("absent"))).code, 3);
	});

	test("one daemon, one mount", async () => {
		const again = await volume.try("mount", volume.name, volume.mountpoint);
		assert.deepEqual([again.code, /already/.test(again.stderr)], [4, true], again.stderr);
		assert.equal((await volume.try("destroy", volume.name, "--yes", volume.name)).code, 4);
		assert.equal(volume.daemons().length, 1);
	});

	test("a busy mount is not taken away, and the holder is named", async () => {
		const holder = spawn("sleep", ["60"], { cwd: volume.mountpoint, stdio: "ignore" });
		try {
			const busy = await volume.try("umount", volume.mountpoint);
			assert.equal(busy.code, 4);
			assert.match(busy.stderr, new RegExp(`sleep \\(${holder.pid}\\)`));
			assert.equal(await readFile(path("file"), "utf8"), text);
		} finally {
			holder.kill("SIGKILL");
		}
	});

	test("a mount that another namespace keeps: umount says so, and the daemon ends when that lets go", async () => {
		// It prints when it has a copy of the mount of its own.
		const keeper = spawn("unshare", ["-m", "--propagation", "private", "sh", "-c", "echo copied; exec sleep 120"]);
		try {
			await new Promise((resolve) => keeper.stdout.once("data", resolve));
			const held = await volume.try("umount", volume.mountpoint);
			assert.deepEqual([held.code, /another mount namespace/.test(held.stderr)], [4, true], held.stderr);
			assert.equal((await volume.status()).state, "running");
		} finally {
			keeper.kill("SIGKILL");
		}
		assert.doesNotMatch(await stopped(), /cleanly/);
		await volume.mount();
		assert.equal(await readFile(path("file"), "utf8"), text);
	});

	test("kill -9: the next mount cleans up and has what was acknowledged", async () => {
		await writeFile(path("not synced"), text);
		await volume.kill();
		const seen = (await volume.status()) as unknown as { state: string; warnings: string[] };
		assert.equal(seen.state, "stopped");
		assert.match(seen.warnings.join("\n"), /its daemon is gone/);
		await volume.mount();
		assert.equal(await readFile(path("not synced"), "utf8"), text);
		assert.equal(await readFile(path("file"), "utf8"), text);
	});

	test("kill -9, then umount", async () => {
		await volume.kill();
		const { code, stderr } = await volume.try("umount", volume.mountpoint);
		assert.equal(code, 0, stderr);
		assert.match(await stopped(), /not unmounted cleanly/);
		await volume.mount();
	});

	test("SIGTERM and umount(8) end the daemon cleanly", async () => {
		process.kill(volume.daemons()[0] as number, "SIGTERM");
		assert.doesNotMatch(await stopped(), /cleanly/);
		await volume.mount();
		assert.equal((await execute("umount", [volume.mountpoint])).code, 0);
		assert.doesNotMatch(await stopped(), /cleanly/);
	});

	test("umount answers when the kernel has let go, however long that takes after the end of the connection", async () => {
		const slowly = new URL("../../test/support/slow-umount.js", import.meta.url).href;
		const env = { CAIRN_HOME: join(volume.base, "home"), NODE_OPTIONS: `--import=${slowly}` };
		const mounted = await execute(process.execPath, [commandLine, "mount", volume.name, volume.mountpoint], { env });
		assert.equal(mounted.code, 0, mounted.stderr);
		const { code, stderr } = await volume.try("umount", volume.mountpoint);
		assert.equal(code, 0, stderr);
		assert.doesNotMatch(await stopped(), /cleanly/);
	});

	test("--foreground serves until Ctrl-C", async () => {
		const env = { ...process.env, CAIRN_HOME: join(volume.base, "home") };
		const child = spawn(process.execPath, [commandLine, "mount", volume.name, volume.mountpoint, "--foreground"], { env, stdio: "ignore" });
		const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
		await until("the mount", () => isMounted(volume.mountpoint));
		await until("status", async () => (await volume.status()).state === "running");
		assert.equal(await readFile(path("file"), "utf8"), text);
		child.kill("SIGINT");
		assert.equal(await ended, 0);
		assert.doesNotMatch(await stopped(), /cleanly/);
	});

	test("read-only, and a mount point that is no good", async () => {
		await volume.cairn("mount", volume.name, volume.mountpoint, "-o", "ro");
		await assert.rejects(writeFile(path("new"), "x"), { code: "EROFS" });
		assert.equal(await readFile(path("file"), "utf8"), text);
		await volume.unmount();
		assert.equal((await volume.try("mount", volume.name, join(volume.base, "absent"))).code, 3);
		assert.equal((await volume.try("mount", volume.name, volume.base)).code, 4);
		assert.equal((await volume.try("umount", volume.mountpoint)).code, 3);
		assert.equal(volume.daemons().length, 0);
	});

	test("-o log=json: every line is an object, and those that a request caused name it", async () => {
		const log = join(volume.base, "home", volume.name, "daemon.log");
		const before = readFileSync(log).length;
		await volume.cairn("mount", volume.name, volume.mountpoint, "-o", "log=json");
		const explained = JSON.parse(await volume.cairn("explain", path("file"), "--json")) as Explanation;
		const first = explained.segments[0]?.fragments.find((one) => one.index === 0)?.disk ?? "";
		const packs = join(volume.diskPaths[Number(first.slice(1)) - 1] as string, "pack");
		for (const name of readdirSync(packs)) writeFileSync(join(packs, name), new Uint8Array(statSync(join(packs, name)).size).fill(7));
		assert.equal(await readFile(path("file"), "utf8"), text);
		assert.equal((await volume.try("disk", "show", volume.name, "d77")).code, 3);
		await volume.cairn("verify", volume.name);
		await volume.unmount();
		const lines = readFileSync(log).subarray(before).toString().trimEnd().split("\n");
		const records = lines.map((line) => JSON.parse(line) as LogRecord);
		for (const one of records) {
			assert.match(one.time, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
			assert.ok(["info", "warn", "error"].includes(one.level));
			assert.equal(one.volume, volume.name);
			assert.match(one.source, /^[a-z/-]+\.[jt]s(:\d+)?$/);
		}
		const damaged = records.find((one) => one.message === "a fragment is damaged" && one.request?.door === "fuse");
		assert.equal(damaged?.request?.operation, "READ", lines.join("\n"));
		assert.match(damaged?.request?.id ?? "", /^\d+$/);
		const refused = records.find((one) => one.message === "disk-show failed");
		assert.deepEqual([refused?.request?.operation, refused?.site], ["disk-show", "volume.disk"]);
		assert.equal(records.find((one) => one.message === "mounted")?.request, undefined);
	});

	test("destroy leaves empty directories and nothing in memory", async () => {
		rmSync(join(volume.diskPaths[5] as string, "superblock"));
		assert.equal((await volume.try("destroy", volume.name)).code, 2);
		await volume.cairn("destroy", volume.name, "--yes", volume.name);
		for (const disk of volume.diskPaths.slice(0, 5)) assert.deepEqual(readdirSync(disk), [], disk);
		assert.deepEqual(
			readdirSync("/dev/shm").filter((name) => name.includes(id)),
			[],
		);
		assert.equal((await volume.try("status", volume.name)).code, 3);
	});
});
