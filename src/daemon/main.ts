/**
 * The daemon's process: `node main.js NAME MOUNTPOINT [options]`. Builds the platform, logs, listens to signals, and tells its
 * parent on a descriptor whether the volume is mounted. Whatever is not expected ends the process at once: acknowledged data is in
 * memory files that the next mount takes over.
 */
import { spawn } from "node:child_process";
import { closeSync, openSync, realpathSync, renameSync, statSync, writeSync } from "node:fs";
import { Socket } from "node:net";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { setFlagsFromString } from "node:v8";
import { toFsError } from "../base/errors.ts";
import { type Logger, silentLogger } from "../base/telemetry.ts";
import { serveFuse } from "../doors/fuse/server.ts";
import type { Platform } from "../platform/interface.ts";
import { CpuLatency } from "../platform/real/cpu-latency.ts";
import { RealConnection } from "../platform/real/connection.ts";
import { createFuseHost } from "../platform/real/fuse.ts";
import { createRealPlatform } from "../platform/real/platform.ts";
import { letEngineWait } from "../platform/real/scheduling.ts";
import { openVolume } from "../volume/native/open.ts";
import { type DaemonArguments, encodeArguments } from "./arguments.ts";
import { Daemon, type DaemonOptions } from "./daemon.ts";
import { compilerFlags, keeperFlags } from "./engine-flags.ts";
import { exitCodeOf } from "./exit-codes.ts";
import { Home } from "./home.ts";
import {
	type DaemonsLink,
	decodeResumeState,
	KeeperLink,
	keptDescriptors,
	type ResumeState,
	type ToDaemon,
	type ToKeeper,
} from "./keeper-link.ts";
import type { Keepers } from "./keeping.ts";
import { logFileBytes } from "./limits.ts";
import { formatJsonLine, formatLogLine, type LogData, type LogLevel, callerOf } from "./log-line.ts";
import { parseMountOptions } from "./mountpoint.ts";
import { printable } from "./text.ts";

/** What the parent reads from the ready descriptor: one line. */
export type ReadyMessage =
	| { readonly ready: true; readonly pid: number; readonly warnings: readonly string[] }
	| { readonly error: { readonly code: string; readonly site: string; readonly message: string; readonly exitCode: number } };

export interface RunOptions extends DaemonArguments {
	/** Undefined: the mount lives and dies with this process. */
	readonly keepers?: Keepers;
	readonly renewKeeper?: boolean;
	readonly resume?: DaemonOptions["resume"];
	onReady(message: ReadyMessage): void;
}

/** Writes lines to standard error, or to a file that is begun anew when it is full. */
class LogSink {
	readonly #path: string | undefined;
	#fd = 2;
	#bytes = 0;

	constructor(path: string | undefined) {
		this.#path = path;
		if (path !== undefined) this.#open(path);
	}

	#open(path: string): void {
		this.#fd = openSync(path, "a", 0o600);
		this.#bytes = statSync(path).size;
	}

	write(line: string): void {
		try {
			if (this.#path !== undefined && this.#bytes > logFileBytes) this.#rotate(this.#path);
			this.#bytes += writeSync(this.#fd, line);
		} catch {
			// A log that cannot be written must not end what it reports on.
		}
	}

	#rotate(path: string): void {
		renameSync(path, `${path}.1`);
		closeSync(this.#fd);
		this.#open(path);
	}
}

function createLogger(sink: LogSink, platform: Platform, { name, mountOptions }: DaemonArguments): Logger {
	const text = (level: LogLevel) => (message: string, data?: LogData) =>
		sink.write(formatLogLine(platform.clock.realtime(), level, message, data));
	const json = (level: LogLevel) => (message: string, data?: LogData) => {
		const source = callerOf(new Error().stack);
		const origin = { volume: name, source, request: platform.requests?.current() };
		sink.write(formatJsonLine(platform.clock.realtime(), level, message, data, origin));
	};
	const at = mountOptions.logFormat === "json" ? json : text;
	return { debug: () => {}, info: at("info"), warn: at("warn"), error: at("error") };
}

/** Serves until unmounted. Answers the exit code; the caller ends the process with it. */
export async function runDaemon(options: RunOptions): Promise<number> {
	for (const flag of compilerFlags(process.versions.v8)) setFlagsFromString(flag);
	const { fastPaths, logFormat } = options.mountOptions;
	const { diskLane, waitAwake, coderThread, lowCpuLatency: disksFirst } = fastPaths;
	// Before any other thread begins: each has a table of descriptors of its own, and a wish stands for as long as it is open in one.
	const cpuLatency = disksFirst ? CpuLatency.open() : undefined;
	if (disksFirst) letEngineWait();
	const fuse = createFuseHost({ waitAwake, cpuLatency });
	const platform = createRealPlatform({ fuse, requests: logFormat === "json", diskLane, waitAwake, disksFirst, cpuLatency, coderThread });
	const logger = createLogger(new LogSink(options.logPath), platform, options);
	const crash = (error: unknown) => {
		const { site, message } = toFsError(error, "daemon.crash");
		logger.error("the daemon stops at once: nothing acknowledged is lost, mount again", {
			site,
			message,
			stack: error instanceof Error ? error.stack : undefined,
		});
		// `exit` would wait for threads that hang in a call of a disk.
		process.kill(process.pid, "SIGKILL");
	};
	process.on("uncaughtException", crash);
	process.on("unhandledRejection", crash);
	const stop = stopOnSignals();
	const home = new Home(options.home, { files: platform.files });
	try {
		const keepers = options.keepers === undefined ? {} : { keepers: options.keepers };
		const daemon = await Daemon.start(
			{
				...options,
				pid: process.pid,
				privileged: process.getuid?.() === 0,
				script: options.keepers === undefined ? undefined : fileURLToPath(import.meta.url),
			},
			{ platform, home, logger, openVolume, serveFuse, crash, stuckDisks: () => platform.stuckDisks(), ...keepers },
		);
		options.onReady({ ready: true, pid: process.pid, warnings: await daemon.warnings() });
		void stop.then((signal) => daemon.stop(signal));
		const end = await daemon.ended;
		if (!end.clean) process.stderr.write(`cairn: ${end.message}\n`);
		return finish(platform.stuckDisks(), end.exitCode, logger);
	} catch (error) {
		const { code, site, message } = toFsError(error, "daemon.start");
		logger.error("could not start", { code, site, message: printable(message) });
		const exitCode = exitCodeOf(error);
		options.onReady({ error: { code, site, message: printable(message), exitCode } });
		return finish(platform.stuckDisks(), exitCode, logger);
	}
}

/** A signal may come before there is anything to stop. */
function stopOnSignals(): Promise<string> {
	return new Promise((resolve) => {
		for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, () => resolve(signal));
	});
}

/** Everything is closed; threads that still hang in a call of a disk would keep `exit` waiting for ever. */
function finish(stuckDisks: readonly string[], exitCode: number, logger: Logger): number {
	if (stuckDisks.length === 0) return exitCode;
	logger.warn("disks still hang: the process ends itself", { disks: stuckDisks });
	process.kill(process.pid, "SIGKILL");
	return exitCode;
}

interface ParsedArguments extends DaemonArguments {
	/** Where the parent waits for one line. */
	readonly readyDescriptor: number | undefined;
	/** A keeper started this process. */
	readonly kept: boolean;
	readonly renewKeeper: boolean;
	readonly resume: ResumeState | undefined;
}

/** @throws Error for what no cairn has written. */
function decodeArguments(words: readonly string[]): ParsedArguments {
	const { values, positionals } = parseArgs({
		args: [...words],
		allowPositionals: true,
		options: {
			home: { type: "string" },
			disk: { type: "string", multiple: true },
			options: { type: "string", short: "o", default: "" },
			log: { type: "string" },
			"accept-loss": { type: "boolean", default: false },
			"ready-fd": { type: "string" },
			kept: { type: "boolean", default: false },
			"renew-keeper": { type: "boolean", default: false },
			resume: { type: "string" },
		},
	});
	const [name, mountpoint] = positionals;
	if (name === undefined || mountpoint === undefined || values.home === undefined || !values.disk) {
		throw new Error("usage: main.js NAME MOUNTPOINT --home DIR --disk PATH... [-o OPTIONS] [--accept-loss] [--log FILE] [--ready-fd N]");
	}
	return {
		name,
		mountpoint,
		home: values.home,
		diskPaths: values.disk,
		mountOptions: parseMountOptions(values.options),
		acceptLoss: values["accept-loss"],
		logPath: values.log,
		readyDescriptor: values["ready-fd"] === undefined ? undefined : Number(values["ready-fd"]),
		kept: values.kept,
		renewKeeper: values["renew-keeper"],
		resume: values.resume === undefined ? undefined : decodeResumeState(values.resume),
	};
}

/** What another version has said is refused in one line: its keeper goes back to that one. */
async function runProcess(words: readonly string[]): Promise<number> {
	let options: RunOptions;
	try {
		options = optionsFromArguments(words);
	} catch (error) {
		process.stderr.write(`cairn: ${printable(toFsError(error, "daemon.arguments").message)}\n`);
		return exitCodeOf(error);
	}
	return await runDaemon(options);
}

function optionsFromArguments(words: readonly string[]): RunOptions {
	const { readyDescriptor, kept, resume, ...options } = decodeArguments(words);
	return {
		...options,
		resume: resume === undefined ? undefined : { ...resume, descriptor: keptDescriptors.fuse },
		keepers: createKeepers(options, kept),
		onReady: (message) => tellParent(readyDescriptor, message),
	};
}

/** This very program, with the flags that Node was started with. */
const ownProgram = (): string[] => [process.execPath, ...process.execArgv, fileURLToPath(import.meta.url)];

function createKeepers(options: DaemonArguments, kept: boolean): Keepers {
	const silent = silentLogger;
	const link = (socket: Socket, onMessage: (message: ToDaemon) => void): DaemonsLink =>
		new KeeperLink<ToDaemon, ToKeeper>(new RealConnection(socket), onMessage, silent);
	let adopted = false;
	return {
		adopt: (onMessage) => {
			if (!kept || adopted) return undefined;
			adopted = true;
			return link(new Socket({ fd: keptDescriptors.link, readable: true, writable: true }), onMessage);
		},
		start: (descriptor, onMessage) => startKeeper(options, descriptor, (socket) => link(socket, onMessage)),
		// A loss that was accepted once is not accepted again by itself.
		successor: (diskPaths) => ({ program: ownProgram(), words: encodeArguments({ ...options, diskPaths, acceptLoss: false }) }),
	};
}

function startKeeper(
	{ name, mountpoint, mountOptions, logPath }: DaemonArguments,
	descriptor: number,
	link: (socket: Socket) => DaemonsLink,
): Promise<DaemonsLink> {
	return new Promise((resolve, reject) => {
		const log = logPath === undefined ? 2 : openSync(logPath, "a", 0o600);
		const script = fileURLToPath(new URL("./keeper.js", import.meta.url));
		const toLog = [...(logPath === undefined ? [] : ["--log", logPath]), "--log-format", mountOptions.logFormat];
		const words = [...keeperFlags(process.versions.v8), script, name, mountpoint, ...toLog];
		const keeper = spawn(process.execPath, words, {
			detached: true,
			cwd: "/",
			stdio: ["ignore", log, log, "ignore", descriptor, "pipe"],
		});
		if (logPath !== undefined) closeSync(log);
		keeper.unref();
		keeper.once("error", (error) => reject(toFsError(error, "daemon.keeper-spawn")));
		const socket = (keeper.stdio as readonly unknown[])[keptDescriptors.link] as Socket | null | undefined;
		if (socket) resolve(link(socket));
	});
}

function tellParent(descriptor: number | undefined, message: ReadyMessage): void {
	if (descriptor === undefined) return;
	try {
		writeSync(descriptor, `${JSON.stringify(message)}\n`);
		closeSync(descriptor);
	} catch {
		// The command that started this daemon is gone; the daemon stays.
	}
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
	// The platform's timers do not keep a process alive; serving does.
	const alive = setInterval(() => {}, 3_600_000);
	process.exitCode = await runProcess(process.argv.slice(2));
	clearInterval(alive);
	process.exit();
}
