/** profile: which requests a mount gets, how long they take, for which files and from whom. */
import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import type { OperationProfile, ProfileWindow, SubjectProfile } from "../base/profile.ts";
import { FsError } from "../base/errors.ts";
import { exitCodes } from "../daemon/exit-codes.ts";
import { callDaemon, type Context, type Outcome } from "./context.ts";
import { formatBytes, formatTable } from "./format.ts";

export interface ProfileFlags {
	readonly seconds?: string;
	readonly follow?: boolean;
	readonly json?: boolean;
}

interface Shown extends SubjectProfile {
	/** From the root of the volume; files have none here. */
	readonly path: string | null;
}

interface Look extends ProfileWindow {
	readonly files: readonly Shown[];
	readonly mountpoint: string | null;
}

const usualSeconds = 5;
const followedSeconds = 1;
const shownFiles = 10;
/** Of the busiest one's requests: what has fewer is not busy. */
const shownPart = 0.05;
/** Of the programs that asked: who has more files open is not searched. */
const descriptorsLookedAt = 4096;

export async function profile(context: Context, name: string, flags: ProfileFlags): Promise<Outcome> {
	const seconds = secondsOf(flags);
	if (flags.follow && flags.json) throw new FsError("EINVAL", "cli.profile", "--follow is for people, --json for programs");
	const look = async (): Promise<Look> => named(await callDaemon<Look>(context, name, "profile", { ms: Math.round(seconds * 1000) }));
	// Until somebody ends it.
	while (flags.follow) context.show(`${clearScreen}${text(name, await look())}`);
	const window = await look();
	return { exitCode: exitCodes.done, json: window, text: text(name, window) };
}

/** Cursor to the top, and what is below it away (ECMA-48). */
const clearScreen = "\u001b[H\u001b[J";

function secondsOf({ seconds, follow }: ProfileFlags): number {
	if (seconds === undefined) return follow ? followedSeconds : usualSeconds;
	const value = Number(seconds);
	if (value >= 0.1 && value <= 3600) return value;
	throw new FsError("EINVAL", "cli.profile-seconds", "--seconds must be a number from 0.1 to 3600");
}

/** Programs that are at work on a file mostly have it open: their descriptors tell its name. */
function named(given: Look): Look {
	const ofProcess = <T extends { readonly pid: number }>(one: T): T => ({ ...one, pid: processOf(one.pid) });
	const look = { ...given, files: given.files.map(ofProcess), running: given.running.map(ofProcess) };
	const { mountpoint } = look;
	if (mountpoint === null) return look;
	const pids = new Set(look.files.filter(({ path, pid }) => path === null && pid > 0).map(({ pid }) => pid));
	const open = new Map([...pids].flatMap((pid) => openFiles(pid, mountpoint)));
	return { ...look, files: look.files.map((file) => ({ ...file, path: file.path ?? open.get(file.ino) ?? null })) };
}

/** Inode and path from the root of the volume. A program that has ended, or is somebody else's, has none. */
function openFiles(pid: number, mountpoint: string): [number, string][] {
	const found: [number, string][] = [];
	for (const fd of listed(`/proc/${pid}/fd`).slice(0, descriptorsLookedAt)) {
		try {
			const link = `/proc/${pid}/fd/${fd}`;
			const path = readlinkSync(link);
			if (path.startsWith(`${mountpoint}/`)) found.push([statSync(link).ino, path.slice(mountpoint.length)]);
		} catch {
			// Closed meanwhile.
		}
	}
	return found;
}

function listed(folder: string): string[] {
	try {
		return readdirSync(folder);
	} catch {
		return [];
	}
}

/** The kernel names the thread that asked (proc_pid_status(5), Tgid). */
function processOf(thread: number): number {
	if (thread === 0) return 0;
	try {
		return Number(/^Tgid:\s*(\d+)$/m.exec(readFileSync(`/proc/${thread}/status`, "utf8"))?.[1] ?? thread);
	} catch {
		return thread;
	}
}

function programOf(pid: number): string {
	if (pid === 0) return "the kernel";
	try {
		return `${readFileSync(`/proc/${pid}/comm`, "utf8").trim()} (${pid})`;
	} catch {
		return `a process that has ended (${pid})`;
	}
}

function text(name: string, { seconds, operations, files, running, runningCount }: Look): string {
	const count = operations.reduce((sum, operation) => sum + operation.count, 0);
	const lines = [
		`volume ${name}: ${perSecond(count, seconds)} requests a second over ${seconds.toFixed(1)} s; what the kernel answers from its own memory is not among them\n`,
	];
	if (operations.length > 0) lines.push(`\n${operationTable(operations, seconds)}`);
	if (files.length > 0) lines.push(`\n${fileTable(files, seconds)}`);
	const [oldest] = running;
	if (oldest)
		lines.push(
			`\n${runningCount} under way, the oldest for ${milliseconds(oldest.ageMs)} ms: ${oldest.operation} of inode ${oldest.ino} by ${programOf(oldest.pid)}\n`,
		);
	return lines.join("");
}

function operationTable(operations: readonly OperationProfile[], seconds: number): string {
	const rows = operations.map(({ operation, count, bytes, meanMs, p50Ms, p99Ms, maxMs }) => [
		operation.toLowerCase(),
		perSecond(count, seconds),
		...[meanMs, p50Ms, p99Ms, maxMs].map(milliseconds),
		bytes > 0 ? `${formatBytes(bytes / seconds)}/s` : "",
	]);
	return formatTable(["REQUEST", "PER SECOND", "MEAN MS", "HALF", "99 %", "LONGEST", ""], rows, [1, 2, 3, 4, 5, 6]);
}

function fileTable(files: readonly Shown[], seconds: number): string {
	const least = shownPart * (files[0]?.count ?? 0);
	const rows = files
		.slice(0, shownFiles)
		.filter(({ count }) => count >= least)
		.map(({ ino, pid, count, bytes, path }) => [
			path ?? `inode ${ino}`,
			perSecond(count, seconds),
			bytes > 0 ? `${formatBytes(bytes / seconds)}/s` : "",
			programOf(pid),
		]);
	return formatTable(["BUSIEST", "PER SECOND", "", "ASKED LAST BY"], rows, [1, 2]);
}

function perSecond(count: number, seconds: number): string {
	const rate = count / seconds;
	return rate >= 100 ? String(Math.round(rate)) : rate.toFixed(1);
}

function milliseconds(ms: number): string {
	return ms >= 100 ? String(Math.round(ms)) : ms >= 10 ? ms.toFixed(1) : ms.toFixed(3);
}
