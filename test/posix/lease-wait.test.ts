/**
 * Programs on a mount that wait for a lease of another door (played by the test): they go on when it is given back, and a signal ends their wait. The volume is a real one, in this process; whatever touches the mount runs in others.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Deferred } from "../../src/base/async.ts";
import { silentLogger } from "../../src/base/telemetry.ts";
import { type FuseServer, serveFuse } from "../../src/doors/fuse/server.ts";
import { createFuseHost } from "../../src/platform/real/fuse.ts";
import { createRealPlatform } from "../../src/platform/real/platform.ts";
import type { NativeVolume } from "../../src/volume/native/interface.ts";
import { createVolume, openVolume } from "../../src/volume/native/open.ts";

const asRoot = {
	uid: 0,
	gid: 0,
	groups: [],
	principal: undefined,
	door: "test",
	clientInstance: "t",
	share: undefined,
	trusted: true,
} as const;
const host = createFuseHost();
const skip = (await host.unavailable()) ?? false;

/** Handles its signal and goes on, as a shell or a server does; a call that is begun anew by the kernel would not return. Prints a line before and after the call. */
const program = `
import ctypes, os, signal, sys
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.siginterrupt(signal.SIGUSR1, True)
libc = ctypes.CDLL(None, use_errno=True)
name, what = sys.argv[1:3]
if what in ("write", "allocate", "copy"): fd = libc.open(name.encode(), os.O_RDWR)
print("begins", flush=True)
sys.stdin.readline()
zero = ctypes.c_longlong(0)
if what == "open": result = libc.open(name.encode(), os.O_RDWR)
elif what == "rename": result = libc.rename(name.encode(), (name + "2").encode())
elif what == "write": result = libc.pwrite(fd, b"other", 5, zero)
elif what == "allocate": result = libc.fallocate(fd, 0, zero, ctypes.c_longlong(100))
else: result = libc.copy_file_range(fd, ctypes.byref(zero), fd, ctypes.byref(ctypes.c_longlong(100)), 5, 0)
print(result >= 0, ctypes.get_errno() if result < 0 else 0, flush=True)
`;

/** One program of the mount, told line by line. */
class Program {
	readonly ended = new Deferred<NodeJS.Signals | null>();
	readonly child: ChildProcess;
	#told = "";
	#waits: (() => void) | undefined;

	constructor(folder: string, name: string, what: string) {
		// Not with `cwd`: spawn waits for it, and this process has to answer.
		this.child = spawn("python3", ["-c", program, join(folder, name), what], { stdio: ["pipe", "pipe", "inherit"] });
		this.child.stdout?.setEncoding("utf8").on("data", (text: string) => {
			this.#told += text;
			this.#waits?.();
		});
		this.child.on("exit", (_code, signal) => this.ended.resolve(signal));
	}

	/** It makes its call now. */
	go(): void {
		this.child.stdin?.write("\n");
	}

	async line(number: number): Promise<string> {
		while (this.#told.split("\n").length <= number + 1)
			await new Promise<void>((resolve) => {
				this.#waits = resolve;
			});
		return this.#told.split("\n")[number] ?? "";
	}
}

describe("programs that wait for a lease", { skip, timeout: 120_000 }, () => {
	const base = mkdtempSync(join(tmpdir(), "cairn-lease-"));
	const folder = join(base, "mnt");
	const diskPaths = [1, 2].map((number) => join(base, `d${number}`));
	let volume: NativeVolume;
	let server: FuseServer;

	before(async () => {
		for (const path of [folder, ...diskPaths]) mkdirSync(path);
		const platform = createRealPlatform({ memoryFolder: base });
		const memory = { logTailBytes: 2 << 20, dirtyRingBytes: 12 << 20 };
		await createVolume(
			{ name: "lease", diskPaths, sameDevice: true, force: false, allowDegraded: false, uid: 0, gid: 0 },
			{ platform, logger: silentLogger },
		);
		volume = await openVolume({ name: "lease", diskPaths, acceptLoss: false, memory }, { platform, logger: silentLogger });
		const options = {
			source: `cairn:lease ${process.pid}`,
			subtype: "cairn",
			allowOther: true,
			readOnly: false,
			maxReadBytes: 1 << 20,
			flags: [],
		};
		const channel = await host.mount(folder, options);
		server = serveFuse({}, { volume, channel, platform, logger: silentLogger });
	});
	after(async () => {
		if (server !== undefined) {
			await host.unmount(folder, true);
			await server.ended;
			await server.stop();
			await volume.shutdown();
		}
		rmSync(base, { recursive: true, force: true });
	});

	/** A file with five bytes. */
	async function fileOf(name: string): Promise<number> {
		const access = { read: true, write: true };
		const { handle, attributes } = await volume.open(asRoot, { parent: volume.root, name }, { disposition: "create", access });
		await volume.write(handle, 0, new TextEncoder().encode("first"));
		await volume.close(handle);
		return attributes.ino;
	}

	/** A door caches the file, for writing too unless somebody has it open; `wanted` when it is asked to give that back. */
	function lease(ino: number): { readonly wanted: Promise<void>; readonly giveBack: () => void } {
		const wanted = new Deferred<void>();
		const listener = { broken: () => wanted.resolve(), revoked: () => {} };
		const key = `lease of ${ino}`;
		const { state } = volume.locks.lease({ ino, key, door: "smb", client: "c", family: "smb", state: 7 }, listener);
		assert.notEqual(state, 0);
		return { wanted: wanted.promise, giveBack: () => volume.locks.answerLease(ino, key, 0) };
	}

	for (const what of ["open", "rename", "write", "allocate", "copy"]) {
		test(`${what}: it goes on when the lease is given back`, async () => {
			const ino = await fileOf(`back-${what}`);
			const waits = new Program(folder, `back-${what}`, what);
			await waits.line(0);
			const { wanted, giveBack } = lease(ino);
			waits.go();
			await wanted;
			giveBack();
			assert.equal(await waits.line(1), "True 0");
		});

		test(`${what}: a signal ends the wait with EINTR, and what was asked for does not happen later`, async () => {
			const name = `signal-${what}`;
			const ino = await fileOf(name);
			const waits = new Program(folder, name, what);
			await waits.line(0);
			const { wanted, giveBack } = lease(ino);
			waits.go();
			await wanted;
			waits.child.kill("SIGUSR1");
			assert.equal(await waits.line(1), "False 4");
			giveBack();
			const now = await volume.lookup(asRoot, volume.root, name);
			assert.deepEqual([now.ino, now.size], [ino, 5]);
			const { handle } = await volume.open(
				asRoot,
				{ node: volume.node(ino) },
				{ disposition: "open", access: { read: true, write: false } },
			);
			assert.equal(new TextDecoder().decode(await volume.read(handle, 0, 10)), "first");
			await volume.close(handle);
			assert.equal(volume.locks.figures().waiting, 0);
		});
	}

	test("SIGKILL ends a program that waits", async () => {
		const { wanted, giveBack } = lease(await fileOf("killed"));
		const waits = new Program(folder, "killed", "open");
		waits.go();
		await wanted;
		waits.child.kill("SIGKILL");
		assert.equal(await waits.ended.promise, "SIGKILL");
		giveBack();
	});
});
