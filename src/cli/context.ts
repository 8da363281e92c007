/** What the verbs of the command are given, and what they answer. */
import { FsError } from "../base/errors.ts";
import type { Logger } from "../base/telemetry.ts";
import { type ControlClient, connectControl } from "../daemon/control.ts";
import type { Home } from "../daemon/home.ts";
import type { ReadyMessage, RunOptions } from "../daemon/main.ts";
import type { Platform } from "../platform/interface.ts";
import type { CreatedVolume, CreateOptions, OfflineVolume, VolumeModules } from "../volume/native/interface.ts";
import type { BenchProcesses } from "./bench-process.ts";
import type { Paint } from "./format.ts";
import type { ProgressBar } from "./progress.ts";

/** Verbs on volumes that no daemon serves. */
export interface OfflineVerbs {
	createVolume(options: CreateOptions, modules: VolumeModules): Promise<CreatedVolume>;
	inspectVolume(options: { readonly diskPaths: readonly string[] }, modules: VolumeModules): Promise<OfflineVolume>;
	destroyVolume(
		options: { readonly diskPaths: readonly string[]; readonly name: string },
		modules: VolumeModules,
	): Promise<{ readonly removedDisks: readonly string[] }>;
}

export type DaemonStart = Omit<RunOptions, "onReady">;

/** Processes of this machine. */
export interface Processes {
	/** Starts a daemon that outlives this process; resolves when it is mounted or has failed. */
	startDaemon(options: DaemonStart): Promise<ReadyMessage>;
	/** How the daemon of this installation is started. */
	daemonProgram(): string[];
	/** Serves in this very process until unmounted; answers the exit code. */
	runForeground(options: RunOptions): Promise<number>;
	/** Who has files or working directories below a path: `bash (1234)`. */
	holders(path: string): Promise<string[]>;
	alive(pid: number): boolean;
	/** Its main thread has ended, and others are kept by the kernel. */
	lingers(pid: number): boolean;
	/** Absolute and without symbolic links as far as the path exists. */
	canonical(path: string): Promise<string>;
	/** The same, the last part taken as it is: a mount point must not be asked whether it answers. */
	canonicalParent(path: string): Promise<string>;
	/** Runs `fn` before SIGINT or SIGTERM ends this process; the returned function takes that back. */
	onStop(fn: () => Promise<void>): () => void;
	readonly uid: number;
	readonly gid: number;
}

export interface Context {
	readonly platform: Platform;
	readonly home: Home;
	readonly logger: Logger;
	readonly offline: OfflineVerbs;
	readonly processes: Processes;
	readonly bench: BenchProcesses;
	readonly paint: Paint;
	/** Standard output, at once: for what goes on until somebody ends it. */
	show(text: string): void;
	/** Standard error, at once. */
	note(text: string): void;
	progress(title: string): ProgressBar;
}

/** What a verb came to: printed as JSON or as text by the caller. */
export interface Outcome {
	readonly exitCode: number;
	readonly json: unknown;
	readonly text: string;
	/** One sentence each, to standard error. */
	readonly warnings?: readonly string[];
}

/** @throws FsError NOTFOUND: no such volume; ENOTCONN: nobody serves it. */
export async function requireDaemon(context: Context, name: string): Promise<ControlClient> {
	const client = await findDaemon(context, name);
	if (client) return client;
	await context.home.require(name);
	throw new FsError("ENOTCONN", "control.unreachable-daemon", `volume ${name} is not mounted: mount it first (cairn mount ${name} DIR)`);
}

export function findDaemon(context: Context, name: string): Promise<ControlClient | undefined> {
	return connectControl(context.home.socketPath(name), context.platform.sockets);
}

/** Calls one verb on a fresh connection. */
export async function callDaemon<T>(
	context: Context,
	name: string,
	verb: string,
	given: Readonly<Record<string, unknown>> = {},
	onProgress: (value: unknown) => void = () => {},
): Promise<T> {
	const client = await requireDaemon(context, name);
	try {
		return (await client.call(verb, given, onProgress)) as T;
	} finally {
		client.close();
	}
}

/** A verb with a bar: progress messages are {doneBytes, totalBytes}. */
export async function callWithBar<T>(
	context: Context,
	name: string,
	verb: string,
	given: Readonly<Record<string, unknown>>,
	title: string,
): Promise<T> {
	const bar = context.progress(title);
	try {
		return await callDaemon<T>(context, name, verb, given, (value) => {
			const { doneBytes, totalBytes } = value as { doneBytes: number; totalBytes: number };
			bar.update(doneBytes, totalBytes);
		});
	} finally {
		bar.stop();
	}
}
