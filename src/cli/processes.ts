/** Starting daemons, and asking this machine who uses a path. Only here does the command touch processes and the file system around it. */
import { spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { mkdir, readdir, readlink, realpath } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { FsError } from "../base/errors.ts";
import { encodeArguments } from "../daemon/arguments.ts";
import { exitCodes } from "../daemon/exit-codes.ts";
import { heapMiB, semiSpaceMiB } from "../daemon/limits.ts";
import { type ReadyMessage, runDaemon } from "../daemon/main.ts";
import type { DaemonStart, Processes } from "./context.ts";

/** A ready line is one line of JSON with a few warnings. */
const readyLineBytes = 256 * 1024;

/**
 * glibc keeps an arena for each thread and learns to keep what was freed: with a thread per disk and buffers of some 100 KiB that is a third more memory than is in use. Two arenas, and
 * large blocks given back at once, cost no measurable time.
 */
const allocatorBounds = { MALLOC_ARENA_MAX: "2", MALLOC_MMAP_THRESHOLD_: "131072", MALLOC_TRIM_THRESHOLD_: "131072" };

export function createProcesses(): Processes {
	return {
		startDaemon,
		daemonProgram,
		runForeground: runDaemon,
		holders,
		alive,
		lingers,
		canonical,
		canonicalParent,
		onStop,
		uid: process.getuid?.() ?? 0,
		gid: process.getgid?.() ?? 0,
	};
}

function daemonProgram(): string[] {
	const script = fileURLToPath(new URL("../daemon/main.js", import.meta.url));
	const heap = [`--max-old-space-size=${heapMiB}`, `--max-semi-space-size=${semiSpaceMiB}`];
	// One thread for what V8 does beside: four of them had all processors of a small machine for milliseconds, and programs waited.
	return [process.execPath, ...heap, "--v8-pool-size=1", "--enable-source-maps", script];
}

async function startDaemon(options: DaemonStart): Promise<ReadyMessage> {
	const [node, ...script] = daemonProgram() as [string, ...string[]];
	if (options.logPath !== undefined) await mkdir(dirname(options.logPath), { recursive: true, mode: 0o700 });
	// What the runtime itself says when it dies goes to the log as well.
	const log = openSync(options.logPath ?? "/dev/null", "a", 0o600);
	try {
		const child = spawn(node, [...script, ...encodeArguments(options), "--ready-fd", "3"], {
			detached: true,
			cwd: "/",
			env: { ...allocatorBounds, ...process.env },
			stdio: ["ignore", log, log, "pipe"],
		});
		const pipe = child.stdio[3] as NodeJS.ReadableStream;
		const message = await readyLine(pipe, child, options);
		child.unref();
		return message;
	} finally {
		closeSync(log);
	}
}

function readyLine(pipe: NodeJS.ReadableStream, child: ReturnType<typeof spawn>, options: DaemonStart): Promise<ReadyMessage> {
	return new Promise((resolvePromise, reject) => {
		let text = "";
		const where = options.logPath === undefined ? "" : `: see ${options.logPath}`;
		const died = (how: string) =>
			new FsError("EIO", "cli.daemon-died", `the daemon ended before the volume was mounted (${how})${where}`, {
				exitCode: exitCodes.failed,
			});
		child.once("error", (error) =>
			reject(new FsError("EIO", "cli.daemon-start", `the daemon could not be started: ${error.message}`, {}, error)),
		);
		// After "exit", and after the pipe was read to its end: the line may be its last word.
		child.once("close", (code, signal) => reject(died(signal ?? `exit code ${code}`)));
		pipe.on("data", (chunk: Buffer) => {
			text += chunk.toString("utf8");
			const end = text.indexOf("\n");
			if (end >= 0) resolvePromise(JSON.parse(text.slice(0, end)) as ReadyMessage);
			else if (text.length > readyLineBytes) reject(died("it said something unreadable"));
		});
	});
}

function alive(pid: number): boolean {
	try {
		process.kill(pid, 0);
		return true;
	} catch (error) {
		return (error as { code?: unknown }).code === "EPERM";
	}
}

/** proc_pid_stat(5): the main thread is a zombie while others are in uninterruptible calls. */
function lingers(pid: number): boolean {
	try {
		const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
		return stat.charAt(stat.lastIndexOf(")") + 2) === "Z";
	} catch {
		return false;
	}
}

/** Links in /proc name paths without touching the file system they are on. */
async function holders(path: string): Promise<string[]> {
	const inside = (target: string | undefined) => target === path || target?.startsWith(`${path}/`) === true;
	const found: string[] = [];
	for (const pid of (await readdir("/proc").catch(() => [])).filter((name) => /^\d+$/.test(name))) {
		const links = [`/proc/${pid}/cwd`, `/proc/${pid}/root`, `/proc/${pid}/exe`];
		for (const fd of await readdir(`/proc/${pid}/fd`).catch(() => [])) links.push(`/proc/${pid}/fd/${fd}`);
		const targets = await Promise.all(links.map((link) => readlink(link).catch(() => undefined)));
		if (!targets.some(inside)) continue;
		const program = await readlink(`/proc/${pid}/exe`).catch(() => "a process");
		found.push(`${basename(program)} (${pid})`);
	}
	return found;
}

async function canonical(path: string): Promise<string> {
	const absolute = resolve(path);
	try {
		return await realpath(absolute);
	} catch (error) {
		if ((error as { code?: unknown }).code !== "ENOENT") throw error;
		return canonicalParent(absolute);
	}
}

async function canonicalParent(path: string): Promise<string> {
	const absolute = resolve(path);
	if (absolute === "/") return absolute;
	const parent = await realpath(dirname(absolute)).catch(() => dirname(absolute));
	return join(parent, basename(absolute));
}

/** Ends as the signal would have, once `fn` has. */
function onStop(fn: () => Promise<void>): () => void {
	const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
	const stop = (signal: NodeJS.Signals): void => {
		takeBack();
		const end = (): void => void process.kill(process.pid, signal);
		fn().then(end, end);
	};
	const takeBack = (): void => {
		for (const signal of signals) process.off(signal, stop);
	};
	for (const signal of signals) process.on(signal, stop);
	return takeBack;
}
