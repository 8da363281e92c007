import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import { describe, it } from "node:test";
import { isFsError } from "../../src/base/errors.ts";
import { createRealPlatform } from "../../src/platform/real/platform.ts";
import { SimWorld } from "../../src/platform/sim/world.ts";
import type { PlatformHarness } from "./platform.ts";
import { platformConformance } from "./platform.ts";

const diskWorker = new URL(`./stalling-disk-worker${import.meta.url.endsWith(".ts") ? ".ts" : ".js"}`, import.meta.url);

const realPlatform = new URL("../../src/platform/real/platform.js", import.meta.url).href;

for (const raw of [false, true]) platformConformance(raw ? "sim, raw disks" : "sim", () => simHarness(raw));

async function simHarness(raw: boolean): Promise<PlatformHarness> {
	const world = new SimWorld({ seed: 20_261_121 });
	const node = world.node({ coder: "well" });
	let disks = 0;
	const platform = node.boot();
	await world.run(platform.files.makeFolder("/home"));
	return {
		platform,
		other: node.boot(),
		addDisk: async () => world.addDisk(`/disk${disks++}`, { capacityBytes: 64 << 20, raw }).path,
		home: "/home",
		run: (work) => world.run(work),
		vanish: async (path) => world.vanish(path),
		replace: async (path) => world.wipe(path),
		addSmallDisk: async () => world.addDisk("/small", { capacityBytes: 4 << 20, raw }).path,
		hang: async (path) => world.hang(path),
		unhang: async (path) => world.unhang(path),
		memoryName: "cairn-test",
		close: async () => {},
	};
}

type RealKind = "directories" | "image files" | "loop devices";

const canLoop = process.getuid?.() === 0 && spawnSync("losetup", ["--find"], { stdio: "ignore" }).status === 0;
for (const kind of ["directories", "image files", "loop devices"] as const) {
	if (kind === "loop devices" && !canLoop) it("platform real, loop devices", (context) => context.skip("loop devices need root"));
	else platformConformance(kind === "directories" ? "real" : `real, ${kind}`, () => realHarness(kind));
}

async function realHarness(kind: RealKind): Promise<PlatformHarness> {
	const folder = fs.mkdtempSync(`${os.tmpdir()}/cairn-platform-`);
	const mounts: string[] = [];
	let disks = 0;
	const loops = new Set<string>();
	const image = (path: string, sizeBytes: number) => {
		fs.writeFileSync(path, "");
		fs.truncateSync(path, sizeBytes);
	};
	/** A symbolic link stands for the device: it can be made to lead elsewhere. */
	const attach = (path: string) => {
		const loop = execFileSync("losetup", ["--find", "--show", `${path}.img`], { encoding: "utf8" }).trim();
		loops.add(loop);
		fs.symlinkSync(loop, path);
	};
	const makeDisk = async (sizeBytes = 64 << 20) => {
		const path = `${folder}/disk${disks++}`;
		if (kind === "directories") fs.mkdirSync(path);
		else if (kind === "image files") image(path, sizeBytes);
		else {
			image(`${path}.img`, sizeBytes);
			attach(path);
		}
		return path;
	};
	const harness: PlatformHarness = {
		platform: createRealPlatform({ diskWorker }),
		other: createRealPlatform(),
		addDisk: () => makeDisk(),
		home: folder,
		run: async (work) => {
			// Timers of a platform do not keep the process alive; this one does.
			const alive = setInterval(() => {}, 1000);
			try {
				await work();
			} finally {
				clearInterval(alive);
			}
		},
		vanish: async (path) => fs.rmSync(path, { recursive: true }),
		replace: async (path) => {
			fs.renameSync(path, `${path}.old`);
			if (kind === "directories") fs.mkdirSync(path);
			else if (kind === "image files") image(path, 64 << 20);
			else {
				image(`${path}.img`, 64 << 20);
				attach(path);
			}
		},
		addSmallDisk: async () => {
			if (kind !== "directories") return makeDisk(4 << 20);
			const path = await makeDisk();
			if (!mountTmpfs(path)) return undefined;
			mounts.push(path);
			return path;
		},
		hang: async (path) => fs.writeFileSync(`${path}.hang`, ""),
		unhang: async (path) => fs.rmSync(`${path}.hang`),
		memoryName: `cairn-test-${process.pid}`,
		close: async () => {
			for (const mount of mounts) execFileSync("umount", ["-l", mount]);
			for (const loop of loops) execFileSync("losetup", ["--detach", loop]);
			fs.rmSync(folder, { recursive: true, force: true });
		},
	};
	return harness;
}

/** False where this user may not mount. */
function mountTmpfs(path: string): boolean {
	if (process.getuid?.() !== 0) return false;
	try {
		execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m", "none", path], { stdio: "ignore" });
		return true;
	} catch {
		return false;
	}
}

describe("platform real: threads", () => {
	async function withDisk(body: (path: string) => Promise<void>): Promise<void> {
		const folder = fs.mkdtempSync(`${os.tmpdir()}/cairn-platform-`);
		const alive = setInterval(() => {}, 1000);
		try {
			fs.mkdirSync(`${folder}/d`);
			await body(`${folder}/d`);
		} finally {
			clearInterval(alive);
			fs.rmSync(folder, { recursive: true, force: true });
		}
	}

	it("fails all calls with EIO when the thread of a disk dies", async () => {
		await withDisk(async (path) => {
			const disk = await createRealPlatform({ diskWorker }).openDisk(path);
			const calls = [disk.open("crash-the-thread", { create: true }), disk.list(""), disk.probe()];
			for (const call of await Promise.allSettled(calls)) assert.ok(call.status === "rejected" && isFsError(call.reason, "EIO"));
			await assert.rejects(disk.list(""), (error) => isFsError(error, "EIO"));
			await disk.close();
		});
	});

	it("closes a disk that hangs without waiting for it, and names it as stuck", async () => {
		await withDisk(async (path) => {
			const platform = createRealPlatform({ diskWorker });
			const disk = await platform.openDisk(path);
			await disk.lock();
			fs.writeFileSync(`${path}.hang`, "");
			const stuck = assert.rejects(disk.list(""), (error) => isFsError(error, "EIO"));
			await disk.close();
			await stuck;
			assert.deepEqual(platform.stuckDisks(), [path]);
			fs.rmSync(`${path}.hang`);
			for (let i = 0; i < 2000 && platform.stuckDisks().length > 0; i++) await new Promise((resolve) => setTimeout(resolve, 2));
			assert.deepEqual(platform.stuckDisks(), []);
			const again = await platform.openDisk(path);
			await again.lock();
			await again.close();
		});
	});

	it("has small reads wait on a disk that hangs, answers them when it goes on, and fails them when it is given up", async () => {
		await withDisk(async (path) => {
			const platform = createRealPlatform({ diskWorker });
			const disk = await platform.openDisk(path);
			const file = await disk.open("f", { create: true });
			await file.write(0, [new Uint8Array(8192).fill(7)]);
			fs.writeFileSync(`${path}.hang`, "");
			// More than go the short way at once.
			const late = Array.from({ length: 20 }, () => file.borrow(4096, 4096));
			// The main thread has long stopped looking for answers: it must be told.
			await new Promise((resolve) => setTimeout(resolve, 20));
			assert.notEqual(disk.activity?.().state, "idle");
			fs.rmSync(`${path}.hang`);
			for (const lent of await Promise.all(late)) assert.ok(lent.bytes.length === 4096 && lent.bytes.every((byte) => byte === 7));
			fs.writeFileSync(`${path}.hang`, "");
			const stuck = Promise.allSettled(Array.from({ length: 3 }, () => file.borrow(0, 100)));
			await disk.close();
			for (const end of await stuck) assert.ok(end.status === "rejected" && isFsError(end.reason, "EIO"));
			assert.deepEqual(platform.stuckDisks(), [path]);
			fs.rmSync(`${path}.hang`);
			for (let i = 0; i < 2000 && platform.stuckDisks().length > 0; i++) await new Promise((resolve) => setTimeout(resolve, 2));
			assert.deepEqual(platform.stuckDisks(), []);
		});
	});

	for (const diskLane of [true, false]) {
		it(`has a write and its sync wait on a disk that hangs, and fails them when it is given up, ${diskLane ? "in shared memory" : "by message"}`, async () => {
			await withDisk(async (path) => {
				const platform = createRealPlatform({ diskWorker, diskLane });
				const disk = await platform.openDisk(path);
				const file = await disk.open("f", { create: true });
				fs.writeFileSync(`${path}.hang`, "");
				const ended: string[] = [];
				const late = [file.write(0, [new Uint8Array(100).fill(3)]), file.sync("test.late")];
				for (const call of late) void call.then(() => ended.push("late"));
				await new Promise((resolve) => setTimeout(resolve, 20));
				assert.notEqual(disk.activity?.().state, "idle");
				assert.deepEqual(ended, []);
				// What is asked for behind them waits behind them.
				const behind = file.borrow(0, 100);
				fs.rmSync(`${path}.hang`);
				await Promise.all(late);
				assert.ok((await behind).bytes.every((byte) => byte === 3));
				fs.writeFileSync(`${path}.hang`, "");
				const stuck = Promise.allSettled([file.write(0, [new Uint8Array(100).fill(4)]), file.sync("test.stuck")]);
				await disk.close();
				for (const end of await stuck) assert.ok(end.status === "rejected" && isFsError(end.reason, "EIO"));
				fs.rmSync(`${path}.hang`);
				for (let i = 0; i < 2000 && platform.stuckDisks().length > 0; i++) await new Promise((resolve) => setTimeout(resolve, 2));
				assert.deepEqual(platform.stuckDisks(), []);
			});
		});
	}

	it("says what is wrong with a path that is no disk, and its thread does not count as stuck", async () => {
		await withDisk(async (path) => {
			const platform = createRealPlatform();
			fs.writeFileSync(`${path}/file`, "");
			const says = (code: "ENOENT" | "ENOTDIR" | "EINVAL", words: string) => (error: unknown) =>
				isFsError(error, code) && error instanceof Error && error.message.startsWith(words);
			await assert.rejects(platform.openDisk(`${path}/none`), says("ENOENT", `${path}/none does not exist: `));
			await assert.rejects(platform.openDisk(`${path}/file`), says("EINVAL", `${path}/file is too small for a disk: `));
			await assert.rejects(platform.openDisk("/dev/null"), says("ENOTDIR", "/dev/null is no disk: "));
			assert.deepEqual(platform.stuckDisks(), []);
		});
	});

	it("notices an unmounted disk, and makes nothing in the folder under it", async (context) => {
		await withDisk(async (path) => {
			if (!mountTmpfs(path)) return context.skip("mounting needs root");
			let mounted = true;
			try {
				const disk = await createRealPlatform().openDisk(path);
				const file = await disk.open("pack/f", { create: true });
				await file.sync("test.data");
				execFileSync("umount", ["-l", path]);
				mounted = false;
				await assert.rejects(file.sync("test.data"), (error) => isFsError(error, "ENODEV"));
				await assert.rejects(disk.syncNames("pack", "test.names"), (error) => isFsError(error, "ENODEV"));
				await disk.open("pack/g", { create: true });
				assert.deepEqual(fs.readdirSync(path), []);
				await disk.close();
			} finally {
				if (mounted) execFileSync("umount", ["-l", path]);
			}
		});
	});

	it("reads from a disk that is mounted read-only, and says EROFS for the rest", async (context) => {
		await withDisk(async (path) => {
			if (!mountTmpfs(path)) return context.skip("mounting needs root");
			try {
				fs.writeFileSync(`${path}/f`, "abc");
				execFileSync("mount", ["-o", "remount,ro", path]);
				const disk = await createRealPlatform().openDisk(path);
				const file = await disk.open("f", { create: true });
				assert.deepEqual(await file.read(0, 10), new Uint8Array([97, 98, 99]));
				const refused = (error: unknown) => isFsError(error, "EROFS");
				await assert.rejects(file.write(0, [new Uint8Array(1)]), refused);
				await assert.rejects(file.truncate(0), refused);
				await assert.rejects(disk.open("g", { create: true }), refused);
				await assert.rejects(disk.open("pack/g", { create: true }), refused);
				await assert.rejects(disk.remove("f"), refused);
				await assert.rejects(disk.open("g"), (error) => isFsError(error, "ENOENT"));
				await disk.close();
			} finally {
				execFileSync("umount", ["-l", path]);
			}
		});
	});

	it("keeps memory over kill -9", async () => {
		const name = `cairn-test-kill-${process.pid}`;
		const platform = createRealPlatform();
		const script = `const { createRealPlatform } = await import(${JSON.stringify(realPlatform)});
			const memory = await createRealPlatform().openMemory(${JSON.stringify(name)}, 8192);
			memory.bytes[5000] = 42;
			process.kill(process.pid, "SIGKILL");`;
		try {
			const child = spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8", timeout: 20_000 });
			assert.equal(child.signal, "SIGKILL", child.stderr);
			const memory = await platform.openMemory(name, 8192);
			assert.equal(memory.existed, true);
			assert.equal(memory.bytes[5000], 42);
			await memory.close();
			assert.equal(memory.bytes[5000], 0, "a released mapping is nobody's memory, but no crash either");
		} finally {
			await platform.removeMemory(name);
		}
	});

	it("refuses a memory file that others can reach", async () => {
		const name = `cairn-test-open-${process.pid}`;
		fs.writeFileSync(`/dev/shm/${name}`, new Uint8Array(4096));
		fs.chmodSync(`/dev/shm/${name}`, 0o666);
		try {
			await assert.rejects(createRealPlatform().openMemory(name, 4096), (error) => isFsError(error, "EACCES"));
		} finally {
			fs.rmSync(`/dev/shm/${name}`);
		}
	});

	it("takes over a stale socket, mode 0600, and refuses paths that the kernel would cut", async () => {
		await withDisk(async (path) => {
			const script = `const { createRealPlatform } = await import(${JSON.stringify(realPlatform)});
				await createRealPlatform().sockets.listen(${JSON.stringify(`${path}/s`)}, () => {});
				process.kill(process.pid, "SIGKILL");`;
			spawnSync(process.execPath, ["--input-type=module", "-e", script], { timeout: 20_000 });
			assert.ok(fs.statSync(`${path}/s`).isSocket());
			const { sockets } = createRealPlatform();
			await assert.rejects(sockets.connect(`${path}/s`), (error) => isFsError(error, "ENOTCONN"));
			const listener = await sockets.listen(`${path}/s`, () => {});
			assert.equal(fs.statSync(`${path}/s`).mode & 0o777, 0o600);
			await listener.close();
			await assert.rejects(
				sockets.listen(`${path}/${"s".repeat(108)}`, () => {}),
				(error) => isFsError(error, "ENAMETOOLONG"),
			);
		});
	});

	it("refuses what is not a regular file", async () => {
		await withDisk(async (path) => {
			fs.symlinkSync("/etc/passwd", `${path}/link`);
			execFileSync("mkfifo", [`${path}/fifo`]);
			const disk = await createRealPlatform().openDisk(path);
			await assert.rejects(disk.open("fifo"), (error) => isFsError(error, "EINVAL"));
			await assert.rejects(disk.open("link"), (error) => isFsError(error, "ELOOP"));
			await disk.close();
		});
	});

	it("does not keep an idle process alive", () => {
		const script = `const { createRealPlatform } = await import(${JSON.stringify(realPlatform)});
			const disk = await createRealPlatform().openDisk(${JSON.stringify(os.tmpdir())});
			console.log((await disk.space()).capacityBytes > 0);`;
		const output = execFileSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8", timeout: 20_000 });
		assert.equal(output, "true\n");
	});
});
