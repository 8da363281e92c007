/** bench: how fast a directory is, alone or beside another one in the same run. */
import { accessSync, constants, mkdirSync, readFileSync, rmSync, statfsSync, statSync, writeFileSync } from "node:fs";
import { toHex } from "../base/bytes.ts";
import { FsError, toFsError } from "../base/errors.ts";
import { exitCodes } from "../daemon/exit-codes.ts";
import type { BenchProcesses, BenchWorker } from "./bench-process.ts";
import { benchBytes, benchGroups, benchRows, type BenchSizes } from "./bench-rows.ts";
import type { Context, Outcome } from "./context.ts";
import { type Colour, formatBytes, formatTable, type Paint } from "./format.ts";

export interface BenchFlags {
	readonly files?: string;
	readonly mib?: string;
	readonly clients?: string;
	readonly only?: readonly string[];
	readonly dropCaches?: boolean;
}

interface BenchOptions {
	readonly sizes: BenchSizes;
	readonly clients: number;
	readonly groups: readonly string[];
	readonly dropCaches: boolean;
}

interface Measured {
	readonly group: string;
	readonly name: string;
	readonly unit: string;
	readonly includes: string;
	readonly value: number;
	readonly other?: number;
	/** `value` by `other`. */
	readonly ratio?: number;
}

/** A directory that is measured, and the clients in a folder of their own there. */
interface Place {
	readonly path: string;
	readonly fileSystem: string;
	readonly folder: string;
	readonly workers: BenchWorker[];
}

/** Twice as slow as the other is worth a second look, and so is less than nine tenths. */
const ratioGood = 0.9;
const ratioFair = 0.5;
const dropCachesPath = "/proc/sys/vm/drop_caches";

export async function bench(context: Context, paths: readonly string[], flags: BenchFlags): Promise<Outcome> {
	const options = parse(flags);
	if (options.dropCaches && context.processes.uid !== 0)
		throw new FsError(
			"EPERM",
			"cli.bench-drop-caches",
			"--drop-caches needs root: without it the kernel forgets the files that are read, and nothing else",
		);
	const places: Place[] = [];
	const cleanUp = async (): Promise<void> => {
		for (const { workers } of places) await Promise.all(workers.map((worker) => worker.end()));
		for (const { folder } of places) rmSync(folder, { recursive: true, force: true });
	};
	const stop = context.processes.onStop(cleanUp);
	try {
		for (const path of paths) places.push(await openPlace(context, path, options));
		for (const place of places) await startClients(context.bench, place, options);
		const rows = await measure(context, places, options);
		return outcome(context.paint, places, options, rows);
	} finally {
		stop();
		await cleanUp();
	}
}

function parse(flags: BenchFlags): BenchOptions {
	const groups = flags.only ?? benchGroups;
	const unknown = groups.find((group) => !benchGroups.includes(group));
	if (unknown !== undefined) throw new FsError("EINVAL", "cli.bench-group", `--only knows ${benchGroups.join(", ")}; not ${unknown}`);
	return {
		sizes: { files: whole("files", flags.files, 2000, 4, 1_000_000), mib: whole("mib", flags.mib, 256, 1, 1 << 20) },
		clients: whole("clients", flags.clients, 1, 1, 64),
		groups,
		dropCaches: flags.dropCaches ?? false,
	};
}

function whole(name: string, text: string | undefined, usual: number, least: number, most: number): number {
	if (text === undefined) return usual;
	const value = Number(text);
	if (/^\d+$/.test(text) && value >= least && value <= most) return value;
	throw new FsError("EINVAL", "cli.bench-number", `--${name} must be a whole number from ${least} to ${most}`);
}

/** @throws FsError NOTFOUND, ENOTDIR, EACCES, ENOSPC: before anything is written. */
async function openPlace(context: Context, given: string, { sizes, clients }: BenchOptions): Promise<Place> {
	const path = await context.processes.canonical(given);
	try {
		if (!statSync(path).isDirectory()) throw new FsError("ENOTDIR", "cli.bench-directory", `${given} is not a directory`);
		accessSync(path, constants.W_OK);
	} catch (error) {
		const { code, site, message } = toFsError(error, "cli.bench-directory");
		throw new FsError(code, site, code === "ENOENT" ? `${given} does not exist` : code === "ENOTDIR" ? message : `${given}: ${message}`);
	}
	const { bavail, bsize } = statfsSync(path);
	const needed = clients * benchBytes(sizes);
	if (bavail * bsize < needed)
		throw new FsError(
			"ENOSPC",
			"cli.bench-space",
			`${given} has ${formatBytes(bavail * bsize)} free, ${formatBytes(needed)} are needed: make it smaller with --mib and --files`,
		);
	const folder = `${path}/.cairn-bench-${toHex(context.platform.random.bytes(6))}`;
	mkdirSync(folder, { mode: 0o700 });
	return { path: given, fileSystem: fileSystemOf(path), folder, workers: [] };
}

async function startClients(processes: BenchProcesses, { folder, workers }: Place, { clients, sizes }: BenchOptions): Promise<void> {
	for (let at = 0; at < clients; at++) workers.push(await processes.start(`${folder}/c${at}`, sizes));
}

/** proc_pid_mountinfo(5): type and source of the last mount whose mount point is above the path. */
function fileSystemOf(path: string): string {
	let found = { depth: -1, text: "unknown" };
	for (const line of readFileSync("/proc/self/mountinfo", "utf8").split("\n")) {
		const words = line.split(" ");
		const dash = words.indexOf("-");
		const mountpoint = words[4]?.replaceAll(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
		if (dash < 0 || mountpoint === undefined) continue;
		const above = mountpoint === "/" || path === mountpoint || path.startsWith(`${mountpoint}/`);
		if (above && mountpoint.length >= found.depth) found = { depth: mountpoint.length, text: `${words[dash + 1]}, ${words[dash + 2]}` };
	}
	return found.text;
}

/** Row by row, the places in turn: what else the machine does meets both alike. */
async function measure(context: Context, places: readonly Place[], options: BenchOptions): Promise<Measured[]> {
	const rows: Measured[] = [];
	for (const [at, { group, name, unit, includes, cold }] of benchRows.entries()) {
		if (!options.groups.includes(group)) continue;
		context.note(`measuring ${group}: ${name}\n`);
		const values: number[] = [];
		for (const { workers } of places) {
			await Promise.all(workers.map((worker) => worker.prepare(at)));
			if (cold && options.dropCaches) writeFileSync(dropCachesPath, "3");
			const startMs = context.platform.clock.monotonicMs();
			const amounts = await Promise.all(workers.map((worker) => worker.run(at)));
			const seconds = (context.platform.clock.monotonicMs() - startMs) / 1000;
			values.push(amounts.reduce((sum, amount) => sum + amount, 0) / Math.max(seconds, 1e-6));
		}
		const [value, other] = values as [number, number | undefined];
		rows.push({ group, name, unit, includes, value, ...(other === undefined ? {} : { other, ratio: value / other }) });
	}
	return rows;
}

function outcome(paint: Paint, places: readonly Place[], { clients, sizes, dropCaches }: BenchOptions, rows: readonly Measured[]): Outcome {
	const [first, second] = places as [Place, Place | undefined];
	const shown = ({ path, fileSystem }: Place) => ({ path, fileSystem });
	const json = { directory: shown(first), other: second ? shown(second) : null, clients, ...sizes, dropCaches, rows };
	const head = [
		`${first.path} (${first.fileSystem})${second ? ` beside ${second.path} (${second.fileSystem})` : ""}`,
		`${clients === 1 ? "1 client" : `${clients} clients at once`}; cold: ${dropCaches ? "the kernel has forgotten everything" : "the kernel has forgotten the contents; names and the file system's own memory may be warm"}`,
	];
	const columns = second ? ["", "", first.path, second.path, "", "RATIO", "INCLUDES"] : ["", "", first.path, "", "INCLUDES"];
	const cells = rows.map((row) => [row.group, row.name, ...figures(paint, row), row.includes]);
	return { exitCode: exitCodes.done, json, text: `${head.join("\n")}\n\n${formatTable(columns, cells, second ? [2, 3, 5] : [2])}` };
}

function figures(paint: Paint, row: Measured): string[] {
	if (row.other === undefined || row.ratio === undefined) return [paint(gradeOf(row), rate(row.value)), row.unit];
	const grade = row.ratio >= ratioGood ? "green" : row.ratio >= ratioFair ? "yellow" : "red";
	return [rate(row.value), rate(row.other), row.unit, paint(grade, row.ratio.toFixed(2))];
}

function gradeOf({ group, name, value }: Measured): Colour {
	const row = benchRows.find((one) => one.group === group && one.name === name);
	if (!row || value >= row.good) return "green";
	return value >= row.fair ? "yellow" : "red";
}

/** Three figures that mean something: 12,345 · 12.3. */
function rate(value: number): string {
	return value >= 100
		? Math.round(value)
				.toString()
				.replace(/\B(?=(\d{3})+$)/g, ",")
		: value.toFixed(1);
}
