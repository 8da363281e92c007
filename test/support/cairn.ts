/**
 * A volume on directory disks, created, mounted and killed through the `cairn` command line alone, for suites that work on a real mount.
 * Everything lies below one temporary folder, which `close` removes. What waits on the mount does so in child processes with a time
 * limit: a file system that hangs must fail a suite, not stop it.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { accessSync, constants, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";

const commandLine = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));

/** Why nothing can be mounted here; undefined when it can. */
export function cannotMount(): string | undefined {
	if (process.platform !== "linux") return "FUSE mounts need Linux";
	if (process.getuid?.() !== 0) return "mounting needs root";
	try {
		accessSync("/dev/fuse", constants.R_OK | constants.W_OK);
	} catch {
		return "/dev/fuse cannot be opened";
	}
	return existsSync(commandLine) ? undefined : "the command line is not built";
}

/** Why programs are not there; undefined when they are. */
export function missingPrograms(...names: readonly string[]): string | undefined {
	const folders = (process.env["PATH"] ?? "").split(":");
	const missing = names.filter((name) => !folders.some((folder) => existsSync(join(folder, name))));
	return missing.length === 0 ? undefined : `not installed: ${missing.join(", ")}`;
}

export interface Outcome {
	readonly code: number | null;
	readonly signal: NodeJS.Signals | null;
	readonly stdout: string;
	readonly stderr: string;
}

export interface RunLimits {
	readonly cwd?: string;
	readonly env?: Readonly<Record<string, string>>;
	/** Default 10 minutes. */
	readonly timeoutMs?: number;
	readonly input?: string;
}

/** Runs a program to its end. Never throws for how it ends. */
export function execute(program: string, words: readonly string[], limits: RunLimits = {}): Promise<Outcome> {
	return new Promise((resolve, reject) => {
		const env = { ...process.env, ...limits.env };
		const child = spawn(program, words, {
			cwd: limits.cwd,
			env,
			stdio: ["pipe", "pipe", "pipe"],
			timeout: limits.timeoutMs ?? 600_000,
			killSignal: "SIGKILL",
		});
		let stdout = "";
		let stderr = "";
		child.stdout.setEncoding("utf8").on("data", (text: string) => {
			stdout += text;
		});
		child.stderr.setEncoding("utf8").on("data", (text: string) => {
			stderr += text;
		});
		child.stdin.on("error", () => {});
		child.stdin.end(limits.input ?? "");
		child.on("error", reject);
		child.on("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
	});
}

/** The same, and it must succeed. Answers what it printed. */
export async function must(program: string, words: readonly string[], limits: RunLimits = {}): Promise<string> {
	const { code, signal, stdout, stderr } = await execute(program, words, limits);
	const said = `${stdout.slice(-4000)}${stderr.slice(-4000)}`;
	assert.equal(code, 0, `${program} ${words.join(" ").slice(0, 500)} ended with ${code ?? signal}:\n${said}`);
	return stdout;
}

export interface VolumeStatusJson {
	readonly state: string;
	readonly pid: number;
	readonly mounts: readonly string[];
	readonly mountOptions: readonly string[];
	readonly usedBytes: number;
	readonly protection: { readonly fullBytes: number; readonly degradedBytes: number; readonly lostBytes: number };
	readonly disks: readonly { readonly id: string | number; readonly path: string; readonly state: string; readonly errors: number }[];
	readonly healing: { readonly active: boolean; readonly remainingBytes: number };
}

export interface VerifyJson {
	readonly checkedFragments: number;
	readonly corrupt: number;
	readonly missing: number;
	readonly repaired: number;
	readonly unrecoverable: number;
}

export interface TestVolumeOptions {
	readonly disks: number;
	readonly redundancy: string;
	/** Where the disks lie: default the folder for temporary files. */
	readonly folder?: string;
	/** Mounts something of its own on the first disk's path, before the volume is created; answers what has to be done after its removal. */
	readonly onFirstDisk?: (path: string) => Promise<() => Promise<void>>;
	/** Each disk is a file system of ext4 of this size, on a loop device. */
	readonly ext4MiB?: number;
	/** The same, of XFS: 300 at least. */
	readonly xfsMiB?: number;
	/** Of all its mounts, as after -o. Default: what a long suite was asked for (`askedMountOptions`). */
	readonly mountOptions?: string;
}

const askedFor = ["fast_paths", "disk_lane", "answer_now", "wait_awake", "low_cpu_latency", "coder_thread", "native_reads"];

/** `npm run test:long SUITE -- --fast-paths off --native-reads on`: every mount of the suite has these options. */
export function askedMountOptions(): string {
	const words = askedFor.map((name) => [name, process.env[`CAIRN_${name.toUpperCase()}`]] as const);
	return words.flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`])).join();
}

export class TestVolume {
	/** Of its own: a mount takes away dead mounts of its name, and suites run side by side. */
	readonly name: string;
	readonly base: string;
	readonly mountpoint: string;
	readonly diskPaths: readonly string[];
	readonly #redundancy: string;
	readonly #mountOptions: string;
	readonly #onFirstDisk: TestVolumeOptions["onFirstDisk"];
	readonly #fileSystem: { readonly kind: "ext4" | "xfs"; readonly mib: number } | undefined;
	#undo: (() => Promise<void>) | undefined;
	/** Of the volume that this object created; undefined before. */
	#id: string | undefined;

	private constructor(options: TestVolumeOptions) {
		this.base = mkdtempSync(join(options.folder ?? tmpdir(), "cairn-suite-"));
		this.name = basename(this.base);
		this.mountpoint = join(this.base, "mnt");
		this.diskPaths = Array.from({ length: options.disks }, (_, i) => join(this.base, `disk${i + 1}`));
		for (const folder of [this.mountpoint, ...this.diskPaths]) mkdirSync(folder);
		this.#redundancy = options.redundancy;
		this.#mountOptions = options.mountOptions ?? askedMountOptions();
		this.#onFirstDisk = options.onFirstDisk;
		if (options.ext4MiB !== undefined) this.#fileSystem = { kind: "ext4", mib: options.ext4MiB };
		if (options.xfsMiB !== undefined) this.#fileSystem = { kind: "xfs", mib: options.xfsMiB };
	}

	/** Created and mounted. */
	static async start(options: TestVolumeOptions): Promise<TestVolume> {
		const volume = new TestVolume(options);
		try {
			await volume.#create();
			await volume.mount();
		} catch (error) {
			await volume.close();
			throw error;
		}
		return volume;
	}

	async #create(): Promise<void> {
		this.#undo = await this.#onFirstDisk?.(this.diskPaths[0] as string);
		if (this.#fileSystem !== undefined)
			for (const path of this.diskPaths) await makeFileSystem(path, this.#fileSystem.kind, this.#fileSystem.mib);
		const disks = this.diskPaths.flatMap((path) => ["--disk", path]);
		await this.cairn("create", this.name, ...disks, "--redundancy", this.#redundancy, "--same-device");
		this.#id = (JSON.parse(readFileSync(join(this.base, "home", this.name, "volume.json"), "utf8")) as { id: string }).id;
	}

	/** Any verb, whatever its end. */
	try(...words: readonly string[]): Promise<Outcome> {
		return execute(process.execPath, [commandLine, ...words], { env: this.#environment });
	}

	/** Any verb by the command of another installation. */
	tryOf(installation: string, ...words: readonly string[]): Promise<Outcome> {
		return execute(process.execPath, [join(installation, "dist/src/cli/main.js"), ...words], { env: this.#environment });
	}

	get #environment(): Readonly<Record<string, string>> {
		return { CAIRN_HOME: join(this.base, "home") };
	}

	get id(): string {
		assert.ok(this.#id !== undefined, "created");
		return this.#id;
	}

	/** A mount that may fail, but has to say so soon. */
	async tryMount(timeoutMs: number): Promise<void> {
		const { signal } = await execute(process.execPath, [commandLine, ...this.#mountWords([])], {
			env: this.#environment,
			timeoutMs,
		});
		assert.equal(
			signal,
			null,
			`cairn mount had not ended after ${timeoutMs} ms, its daemons: ${this.daemons().join() || "none"}\n${this.log()}`,
		);
	}

	/** A verb that must succeed. */
	async cairn(...words: readonly string[]): Promise<string> {
		const { code, signal, stdout, stderr } = await this.try(...words);
		assert.equal(code, 0, `cairn ${words.join(" ")} ended with ${code ?? signal}:\n${stdout}${stderr}\n${this.log()}`);
		return stdout;
	}

	async mount(...words: readonly string[]): Promise<void> {
		await this.cairn(...this.#mountWords(words));
	}

	/** Its own options come first: what a test says of one mount counts more. */
	#mountWords(words: readonly string[]): string[] {
		const at = words.indexOf("-o");
		const options = [this.#mountOptions, at < 0 ? "" : (words[at + 1] ?? "")].filter((some) => some !== "").join();
		const others = at < 0 ? words : words.toSpliced(at, 2);
		return ["mount", this.name, this.mountpoint, ...(options === "" ? [] : ["-o", options]), ...others];
	}

	async unmount(): Promise<void> {
		await this.cairn("umount", this.mountpoint);
	}

	/** Nothing that was read before is in the kernel's cache or the daemon's. */
	async remount(): Promise<void> {
		await this.unmount();
		await this.mount();
	}

	async status(): Promise<VolumeStatusJson> {
		return JSON.parse(await this.cairn("status", this.name, "--json")) as VolumeStatusJson;
	}

	/** Exit code 5 (degraded, lost) is an answer too. */
	async verify(...words: readonly string[]): Promise<VerifyJson> {
		const { code, stdout, stderr } = await this.try("verify", this.name, "--json", ...words);
		assert.ok(code === 0 || code === 5, `cairn verify ended with ${code}:\n${stdout}${stderr}\n${this.log()}`);
		return JSON.parse(stdout) as VerifyJson;
	}

	async heal(): Promise<void> {
		await this.cairn("heal", this.name, "--wait");
		const { protection } = await this.status();
		assert.deepEqual([protection.degradedBytes, protection.lostBytes], [0, 0], `healed to full protection\n${this.log()}`);
	}

	/** Processes of this volume's daemon. */
	daemons(): number[] {
		return this.#processes("main");
	}

	keepers(): number[] {
		return this.#processes("keeper");
	}

	/** What has this volume's folder and the program of a daemon, or a keeper, among its arguments. */
	#processes(program: "main" | "keeper" | "(main|keeper)"): number[] {
		const script = new RegExp(`/daemon/${program}\\.js$`);
		const pids = readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name));
		return pids.map(Number).filter((pid) => {
			try {
				const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
				return words.some((word) => script.test(word)) && words.some((word) => word.startsWith(this.base));
			} catch {
				return false;
			}
		});
	}

	/** kill -9 of the daemon and of what would bring it back: the mount is dead. Answers whether there was a daemon. */
	async kill(): Promise<boolean> {
		const found = this.daemons().length > 0;
		// A keeper may have started a successor in between, a daemon a keeper; before its exec a child looks like its parent.
		for (let left = this.#processes("(main|keeper)"); left.length > 0; left = this.#processes("(main|keeper)")) {
			for (const pid of left) kill(pid);
			await sleep(10);
		}
		return found;
	}

	/** kill -9 of the daemon alone. Answers its process. */
	killDaemon(): number {
		const [pid] = this.daemons();
		assert.ok(pid !== undefined, `no daemon to kill\n${this.log()}`);
		kill(pid);
		return pid;
	}

	/** A daemon other than `before` serves the volume. */
	async successorOf(before: number, limitMs = 120_000): Promise<number> {
		const endMs = performance.now() + limitMs;
		for (;;) {
			const { code, stdout } = await this.try("status", this.name, "--json");
			const status = code === 0 ? (JSON.parse(stdout) as VolumeStatusJson) : undefined;
			if (status !== undefined && status.mounts.length > 0 && status.pid !== before) return status.pid;
			assert.ok(performance.now() < endMs, `no successor of ${before} within ${limitMs} ms\n${this.log()}`);
			await sleep(50);
		}
	}

	/** The end of the daemon's log, for messages. */
	log(): string {
		try {
			return `daemon.log:\n${readFileSync(join(this.base, "home", this.name, "daemon.log"), "utf8").slice(-6000)}`;
		} catch {
			return "no daemon.log";
		}
	}

	/** As a power cut does. Nobody may be at work with it. */
	forgetMemory(): void {
		for (const name of readdirSync("/dev/shm")) if (name.startsWith(`cairn-${this.id}.`)) rmSync(join("/dev/shm", name), { force: true });
	}

	/** Unmounts, whatever state it is in, and removes everything. */
	async close(): Promise<void> {
		if ((await this.try("umount", this.mountpoint)).code !== 0) {
			await this.kill();
			await execute("umount", ["-l", this.mountpoint]);
		}
		await this.try("destroy", this.name, "--yes", this.name);
		await this.#undo?.();
		if (this.#fileSystem !== undefined) for (const path of this.diskPaths) await execute("umount", ["-l", path]);
		// Other volumes of this machine have their memory files beside: only those with exactly this id are ours.
		if (this.#id !== undefined) this.forgetMemory();
		rmSync(this.base, { recursive: true, force: true, maxRetries: 5 });
	}
}

async function makeFileSystem(path: string, kind: "ext4" | "xfs", mib: number): Promise<void> {
	const image = `${path}.img`;
	await must("truncate", ["-s", `${mib}M`, image]);
	if (kind === "ext4") await must("mkfs.ext4", ["-q", "-F", "-m", "0", image]);
	else await must("mkfs.xfs", ["-q", "-f", image]);
	await must("mount", ["-o", "loop", image, path]);
	rmSync(join(path, "lost+found"), { recursive: true, force: true });
}

function kill(pid: number): void {
	try {
		process.kill(pid, "SIGKILL");
	} catch {
		// It ended by itself in between.
	}
}

export function sleep(ms: number): Promise<void> {
	return new Promise((resolve) => setTimeout(resolve, ms));
}

/** SHA-256 of every regular file below `folder`, and the targets of symlinks, one line each, in order of names. */
export async function fingerprint(folder: string): Promise<string[]> {
	const script = "find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum; find . -type l -printf '%l -> %p\\n' | LC_ALL=C sort";
	const text = await must("bash", ["-c", `set -euo pipefail; ${script}`], { cwd: folder, timeoutMs: 3600_000 });
	return text.split("\n").filter((line) => line !== "");
}

/** Equal, with a message of the first differences instead of a hundred thousand lines. */
export function assertSameFiles(actual: readonly string[], expected: readonly string[], message: string): void {
	const [have, want] = [new Set(actual), new Set(expected)];
	const wrong = [
		...actual.filter((line) => !want.has(line)).map((line) => `+ ${line}`),
		...expected.filter((line) => !have.has(line)).map((line) => `- ${line}`),
	];
	assert.equal(wrong.length, 0, `${message}: ${wrong.length} differences (+ is there, - should be)\n${wrong.slice(0, 20).join("\n")}`);
	assert.equal(actual.length, expected.length, message);
}
