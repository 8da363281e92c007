/** What the daemon does for the command line, verb by verb. Arguments come from outside and are checked; results are JSON. */
import { latin1ToUtf8, utf8ToLatin1 } from "../base/bytes.ts";
import { FsError } from "../base/errors.ts";
import type { Logger } from "../base/telemetry.ts";
import type { NativeReadsStatus } from "../doors/fuse/native-reads.ts";
import type { NativeVolume, Progress, ProtectionSet, ScrubStatus, VerifyResult, VolumeStatus } from "../volume/native/interface.ts";
import type { Arguments } from "./control.ts";
import type { Exporter, NfsDoorStatus, ShownExport } from "./exporter.ts";
import type { Program } from "./keeper-link.ts";
import { longestProfileMs, lostPathsInReply, pathsInCall, profileMs } from "./limits.ts";
import type { Profiler } from "./profiler.ts";
import { printable } from "./text.ts";

/** What a verb sees of the daemon at the moment of the call. */
export interface DaemonState {
	readonly name: string;
	readonly pid: number;
	/** Undefined before it is mounted and once it is not any more. */
	readonly mountpoint: string | undefined;
	/** As after -o, without what is so anyway. */
	readonly mountOptions: readonly string[];
	/** Undefined while it starts and while it ends. */
	readonly volume: NativeVolume | undefined;
	/** As the volume. */
	readonly exporter: Exporter | undefined;
	/** Undefined: not asked for. */
	readonly nativeReads: NativeReadsStatus | undefined;
	readonly ending: boolean;
	/** Of the mount, beside those of the volume. */
	readonly warnings: readonly string[];
	readonly failure: Error | undefined;
	readonly logger: Logger;
	/** The daemon's script: tells versions apart. Undefined where the daemon is no process of its own. */
	readonly script: string | undefined;
	/** As the volume. */
	readonly profiler: Profiler | undefined;
	umount(): Promise<unknown>;
	/** @throws FsError REFUSED: nothing could start a successor; ETIMEDOUT: requests do not come to an end. */
	handOver(program: Program): Promise<unknown>;
}

type ProgressSink = (value: unknown) => void;
type Verb = (given: Arguments, progress: ProgressSink, state: DaemonState) => Promise<unknown>;

const verbs: Readonly<Record<string, Verb>> = {
	hello: async (_given, _progress, { name, pid, mountpoint, script }) => ({
		name,
		pid,
		mountpoint: mountpoint ?? null,
		script: script ?? null,
	}),
	status: async (_given, _progress, state) => status(state),
	ledger: async (_given, _progress, state) => need(state).ledger(),
	umount: async (_given, _progress, state) => state.umount(),
	"hand-over": async (given, _progress, state) => state.handOver(program(given)),
	heal: (given, progress, state) => heal(given, progress, state),
	balance: (given, progress, state) => balance(given, progress, state),
	scrub: (given, _progress, state) => scrub(given, state),
	garbage: (given, _progress, state) => need(state).collectGarbage(flag(given, "dryRun")),
	verify: (given, progress, state) => verify(given, progress, state),
	explain: (given, _progress, state) => need(state).explain(utf8ToLatin1(text(given, "path"))),
	profile: (given, _progress, state) => profile(given, state),
	locks: (given, _progress, state) => need(state).listLocks(utf8ToLatin1(text(given, "path"))),
	"locks-break": (given, _progress, state) => breakLocks(given, state),
	"disk-add": (given, _progress, state) => addDisks(given, state),
	"disk-drain": (given, progress, state) => drainDisk(given, progress, state),
	"disk-drain-cancel": (given, _progress, state) => need(state).disks.cancelDrain(text(given, "disk")),
	"disk-remove": (given, _progress, state) => removeDisk(given, state),
	set: (given, progress, state) => setProtection(given, progress, state),
	"export-add": (given, _progress, state) => addExport(given, state),
	"export-remove": (given, _progress, state) => needExporter(state).remove(text(given, "folder")),
	"export-list": (_given, _progress, state) => needExporter(state).list(),
	"export-serve": (given, _progress, state) => serveExports(given, state),
	"disk-show": (given, _progress, state) => need(state).disks.show(text(given, "disk")),
	"disk-set": (given, _progress, state) => setDiskHealth(given, state),
	"disk-replace": (given, _progress, state) => replaceDisk(given, state),
};

export function answerVerb(verb: string, given: Arguments, progress: ProgressSink, state: DaemonState): Promise<unknown> {
	const handler = Object.hasOwn(verbs, verb) ? verbs[verb] : undefined;
	if (!handler)
		throw new FsError(
			"EINVAL",
			"control.verb-unknown",
			`the daemon knows no verb "${verb}": is the command newer than the daemon? Mount again`,
		);
	return handler(given, progress, state);
}

function need(state: DaemonState): NativeVolume {
	if (state.volume) return state.volume;
	throw new FsError("EAGAIN", "control.not-ready", `volume ${state.name} is starting or ending: try again in a moment`);
}

const pathText = (path: string | undefined): string | null => (path === undefined ? null : latin1ToUtf8(path));

/** Directories get their paths; files have none of their own. */
async function profile(given: Arguments, state: DaemonState): Promise<unknown> {
	const volume = need(state);
	const ms = optionalWhole(given, "ms", 1, longestProfileMs) ?? profileMs;
	if (state.profiler === undefined)
		throw new FsError("EAGAIN", "control.no-profiler", `volume ${state.name} is starting or ending: try again in a moment`);
	const window = await state.profiler.look(ms);
	const files = [];
	for (const file of window.files)
		files.push({ ...file, path: await pathText(await volume.directoryPath(file.ino).catch(() => undefined)) });
	return { ...window, files, mountpoint: state.mountpoint ?? null };
}

function needExporter(state: DaemonState): Exporter {
	if (state.exporter) return state.exporter;
	throw new FsError("EAGAIN", "control.no-exporter", `volume ${state.name} is starting or ending: try again in a moment`);
}

function flag(given: Arguments, name: string): boolean {
	const value = given[name] ?? false;
	if (typeof value === "boolean") return value;
	throw new FsError("EINVAL", "control.argument", `${name} must be true or false`);
}

function text(given: Arguments, name: string): string {
	const value = given[name];
	if (typeof value === "string") return value;
	throw new FsError("EINVAL", "control.argument-text", `${name} must be text`);
}

function optionalWhole(given: Arguments, name: string, least: number, most: number): number | undefined {
	const value = given[name];
	if (value === undefined) return undefined;
	if (typeof value === "number" && Number.isInteger(value) && value >= least && value <= most) return value;
	throw new FsError("EINVAL", "control.argument-number", `${name} must be a whole number from ${least} to ${most}`);
}

function optionalChoice<T extends string>(given: Arguments, name: string, choices: readonly T[]): T | undefined {
	const value = given[name];
	if (value === undefined) return undefined;
	if (choices.includes(value as T)) return value as T;
	throw new FsError("EINVAL", "control.argument-choice", `${name} must be one of ${choices.join(", ")}`);
}

function texts(given: Arguments, name: string): readonly string[] {
	const value = given[name];
	if (Array.isArray(value) && value.length > 0 && value.length <= pathsInCall && value.every((one) => typeof one === "string"))
		return value as string[];
	throw new FsError("EINVAL", "control.argument-texts", `${name} must be a list of 1 to ${pathsInCall} texts`);
}

function program(given: Arguments): Program {
	const words = given["program"];
	const isWord = (word: unknown): word is string => typeof word === "string" && word !== "" && !word.includes("\0");
	const isPath = (word: string | undefined): boolean => word?.startsWith("/") === true;
	if (Array.isArray(words) && words.length >= 2 && words.length <= 16 && words.every(isWord) && isPath(words[0]) && isPath(words.at(-1)))
		return words;
	throw new FsError(
		"EINVAL",
		"control.argument-program",
		"program must be the absolute path of node, its flags, and the absolute path of a daemon's script",
	);
}

/** Who else uses the volume. */
export interface DoorsStatus {
	/** Null while the volume starts and ends. */
	readonly nfs: NfsDoorStatus | null;
}

/** The contract's status; what is not known while the volume starts is null. */
export type DaemonStatus = VolumeStatus & {
	readonly pid: number;
	readonly mounts: readonly string[];
	/** As after -o, without what is so anyway. */
	readonly mountOptions: readonly string[];
	readonly doors: DoorsStatus;
	/** Null: not asked for (`-o native_reads=on`), or the volume starts or ends. */
	readonly nativeReads: ToldNativeReads | null;
};

/** As JSON has it. */
export type ToldNativeReads = Omit<NativeReadsStatus, "unavailable"> & { readonly unavailable: string | null };

async function status(state: DaemonState): Promise<unknown> {
	const about = { pid: state.pid, mounts: state.mountpoint === undefined ? [] : [state.mountpoint], mountOptions: state.mountOptions };
	if (!state.volume) return { volume: state.name, state: state.ending ? "stopped" : "starting", ...about };
	const now = await state.volume.status();
	const doors: DoorsStatus = { nfs: (await state.exporter?.status()) ?? null };
	const nativeReads = state.nativeReads === undefined ? null : toldNativeReads(state.nativeReads);
	const warnings = [...state.warnings, ...now.warnings];
	if (!state.failure) return { ...now, ...about, doors, nativeReads, warnings };
	return {
		...now,
		...about,
		doors,
		nativeReads,
		state: "failed",
		warnings: [`failed: ${printable(state.failure.message)}`, ...warnings],
	};
}

function toldNativeReads({ unavailable, ...known }: NativeReadsStatus): ToldNativeReads {
	return { ...known, unavailable: unavailable === undefined ? null : printable(unavailable) };
}

function percent(progress: ProgressSink): (value: Progress) => void {
	return ({ doneBytes, totalBytes }) => progress({ doneBytes, totalBytes });
}

async function heal(given: Arguments, progress: ProgressSink, state: DaemonState): Promise<unknown> {
	const volume = need(state);
	const wait = flag(given, "wait");
	const paused = given["paused"] === undefined ? undefined : flag(given, "paused");
	const tranquility = optionalWhole(given, "tranquility", 0, 100);
	if (paused !== undefined || tranquility !== undefined) return { healing: await volume.setHealing({ paused, tranquility }) };
	const work = volume.heal(percent(progress));
	if (wait) return work;
	work.catch((error: unknown) => state.logger.error("healing failed", { error: String(error) }));
	const { healing, protection } = await volume.status();
	return { started: true, healing, degradedBytes: protection.degradedBytes };
}

async function balance(given: Arguments, progress: ProgressSink, state: DaemonState): Promise<unknown> {
	const { balance: verbs } = need(state);
	if (flag(given, "dryRun")) return { plan: await verbs.plan() };
	if (flag(given, "cancel")) return { balancing: await verbs.cancel() };
	const balancing = await verbs.begin();
	return flag(given, "wait") ? { balancing, result: await verbs.over(percent(progress)) } : { balancing };
}

async function verify(
	given: Arguments,
	progress: ProgressSink,
	state: DaemonState,
): Promise<VerifyResult & { readonly lostPathsTotal: number }> {
	const result = await need(state).verify(
		{ dryRun: flag(given, "dryRun"), lost: flag(given, "lost"), resume: flag(given, "resume") },
		percent(progress),
	);
	const lostPaths = result.lostPaths.slice(0, lostPathsInReply);
	return { ...result, lostPaths, lostPathsTotal: result.lostPaths.length };
}

async function setProtection(given: Arguments, progress: ProgressSink, state: DaemonState): Promise<ProtectionSet> {
	const value = text(given, "redundancy");
	const redundancy = value === "inherit" ? undefined : value;
	const options = { redundancy, allowDegraded: flag(given, "allowDegraded"), now: flag(given, "now") };
	return need(state).setProtection(utf8ToLatin1(text(given, "path")), options, percent(progress));
}

async function scrub(given: Arguments, state: DaemonState): Promise<ScrubStatus> {
	const { scrub: verbs } = need(state);
	const intensity = optionalChoice(given, "intensity", ["low", "medium", "high"]);
	const schedule = optionalChoice(given, "schedule", ["off", "manual", "nightly", "continuous"]);
	const hour = optionalWhole(given, "hour", 0, 23);
	switch (text(given, "action")) {
		case "start":
			return verbs.begin({ dryRun: flag(given, "dryRun"), intensity });
		case "pause":
			return verbs.pause();
		case "resume":
			return verbs.resume();
		case "stop":
			return verbs.stopPass();
		case "schedule":
			return verbs.setSchedule({ schedule, hour, intensity });
		case "status":
			return verbs.status();
		default:
			throw new FsError("EINVAL", "control.scrub", `the daemon knows no scrub action "${text(given, "action")}"`);
	}
}

async function breakLocks(given: Arguments, state: DaemonState): Promise<{ readonly broken: number }> {
	const owner = given["owner"] === undefined ? undefined : text(given, "owner");
	return { broken: await need(state).breakLocks(utf8ToLatin1(text(given, "path")), owner) };
}

async function replaceDisk(given: Arguments, state: DaemonState): Promise<unknown> {
	const newPath = given["newPath"] === undefined ? undefined : text(given, "newPath");
	const { disks } = need(state);
	const force = flag(given, "force");
	return flag(given, "dryRun")
		? disks.planReplace(text(given, "disk"), newPath, force)
		: disks.replace(text(given, "disk"), newPath, force);
}

async function addDisks(given: Arguments, state: DaemonState): Promise<unknown> {
	const { disks } = need(state);
	const paths = texts(given, "paths");
	const force = flag(given, "force");
	return flag(given, "dryRun") ? disks.planAdd(paths, force) : disks.add(paths, force);
}

async function drainDisk(given: Arguments, progress: ProgressSink, state: DaemonState): Promise<unknown> {
	const { disks } = need(state);
	const disk = text(given, "disk");
	const wait = flag(given, "wait");
	if (flag(given, "dryRun")) return { plan: await disks.planDrain(disk) };
	const plan = await disks.drain(disk, { allowDegraded: flag(given, "allowDegraded") });
	return wait ? { plan, result: await disks.drained(disk, percent(progress)) } : { plan };
}

async function addExport(given: Arguments, state: DaemonState): Promise<ShownExport> {
	return needExporter(state).add({
		folder: text(given, "folder"),
		clients: given["clients"] === undefined ? [] : texts(given, "clients"),
		squash: optionalChoice(given, "squash", ["root", "all", "none"]) ?? "root",
		readOnly: flag(given, "readOnly"),
		privilegedPorts: !flag(given, "anyPort"),
		anonymousUid: optionalWhole(given, "anonymousUid", 0, 0xffff_fffe),
		anonymousGid: optionalWhole(given, "anonymousGid", 0, 0xffff_fffe),
	});
}

async function serveExports(given: Arguments, state: DaemonState): Promise<NfsDoorStatus> {
	const port = optionalWhole(given, "port", 1, 65_535);
	const portMapper = optionalChoice(given, "portMapper", ["none", "own", "system"]);
	const serverName = given["serverName"] === undefined ? undefined : hostName(text(given, "serverName"));
	return needExporter(state).serve({ port, portMapper, serverName });
}

function hostName(name: string): string {
	if (name === "" || /^[A-Za-z0-9]([A-Za-z0-9.-]{0,253}[A-Za-z0-9])?$/.test(name)) return name;
	throw new FsError("EINVAL", "control.host-name", `"${name}" is no name of a host: letters, digits, dots and hyphens`);
}

async function setDiskHealth(given: Arguments, state: DaemonState): Promise<unknown> {
	const health = optionalChoice(given, "health", ["auto", "healthy", "degraded", "suspect", "failed"]);
	if (health === undefined) throw new FsError("EINVAL", "control.disk-health", "health is missing");
	return need(state).disks.setHealth(text(given, "disk"), health);
}

async function removeDisk(given: Arguments, state: DaemonState): Promise<unknown> {
	const { disks } = need(state);
	const disk = text(given, "disk");
	return flag(given, "dryRun") ? disks.planRemove(disk) : disks.remove(disk);
}
