#!/usr/bin/env node
/**
 * What many small files cost: makes them in a fresh volume (rs:4+2 on six directories), and tells whether the last ones are made as fast as the first, the daemon's memory, how long a clean mount takes, a listing of everything, and how long a
 * program waits when the daemon is killed.
 *
 *   npm run bench:million -- [--dir DIR] [--files N] [--directories N] [--clients N] [--json FILE]
 *
 * Needs root and FUSE, and a gigabyte. Files are made by open(2) with O_CREAT and O_EXCL, and closed; they are empty, as it is about metadata.
 */
import { execFileSync, fork } from "node:child_process";
import {
	closeSync,
	existsSync,
	mkdirSync,
	mkdtempSync,
	openSync,
	readdirSync,
	readFileSync,
	rmSync,
	statSync,
	unlinkSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { values: options, positionals } = parseArgs({
	allowPositionals: true,
	options: {
		dir: { type: "string", default: existsSync("/var/tmp") ? "/var/tmp" : tmpdir() },
		files: { type: "string", default: "1000000" },
		directories: { type: "string", default: "1000" },
		clients: { type: "string", default: "4" },
		json: { type: "string" },
	},
});
const files = Number(options.files);
const directories = Number(options.directories);
const clients = Number(options.clients);
const perDirectory = Math.ceil(files / directories);

const nameOf = (number, digits) => String(number).padStart(digits, "0");

/** Child: `maker FOLDER` makes the directories that its parent names, with their files, and tells of each: so all clients are busy to the end, and the last tenth is as busy as the first. */
function maker(folder) {
	process.on("message", (number) => {
		if (number === null) {
			process.disconnect();
			return;
		}
		const directory = join(folder, `d${nameOf(number, 4)}`);
		mkdirSync(directory);
		for (let i = 0; i < perDirectory; i++) closeSync(openSync(join(directory, `file-${nameOf(i, 6)}`), "wx"));
		process.send(perDirectory);
	});
	process.send(0);
}

/** When each tenth was made: seconds since the start, and of the daemon's processor time, which other work on the machine disturbs less. */
function makeAll(folder, pid) {
	const startMs = performance.now();
	const processorBefore = processorSeconds(pid);
	const tenths = [];
	let made = 0;
	const note = (count) => {
		made += count;
		while (tenths.length < 10 && made >= ((tenths.length + 1) * files) / 10)
			tenths.push({ at: (performance.now() - startMs) / 1000, processor: processorSeconds(pid) - processorBefore });
	};
	let next = 0;
	const children = Array.from({ length: clients }, () => {
		const child = fork(fileURLToPath(import.meta.url), ["maker", folder, "--files", options.files, "--directories", options.directories]);
		child.on("message", (count) => {
			note(count);
			child.send(next < directories ? next++ : null);
		});
		return new Promise((resolve, reject) =>
			child.on("close", (code) => (code === 0 ? resolve() : reject(new Error(`a maker ended with ${code}`)))),
		);
	});
	return Promise.all(children).then(() => tenths);
}

function statusField(pid, name) {
	return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0);
}

/** RssAnon + RssShmem, MiB, as proc(5) has them. */
const memoryMiB = (pid) => Math.round((statusField(pid, "RssAnon") + statusField(pid, "RssShmem")) / 1024);

/** utime and stime of all threads, proc(5), in seconds. */
function processorSeconds(pid) {
	const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
	return (Number(fields[11]) + Number(fields[12])) / 100;
}

const rounded = (value, digits = 2) => Number(value.toFixed(digits));

function timed(work) {
	const startMs = performance.now();
	work();
	return rounded((performance.now() - startMs) / 1000);
}

function countAll(folder) {
	let count = 0;
	for (const name of readdirSync(folder)) count += readdirSync(join(folder, name)).length;
	return count;
}

async function main() {
	const place = mkdtempSync(join(options.dir, "cairn-million-"));
	const home = join(place, "home");
	const mountpoint = join(place, "mnt");
	const cairn = (...words) =>
		execFileSync(process.execPath, [join(root, "dist/src/cli/main.js"), ...words], {
			env: { ...process.env, CAIRN_HOME: home },
			stdio: ["ignore", "pipe", "inherit"],
			encoding: "utf8",
		});
	const daemon = () => JSON.parse(cairn("status", "million", "--json")).pid;
	const disks = [1, 2, 3, 4, 5, 6].map((number) => join(place, `d${number}`));
	for (const folder of [...disks, mountpoint]) mkdirSync(folder);
	let mounted = false;
	let peakMiB = 0;
	let sampled;
	const sampler = setInterval(() => {
		try {
			if (sampled !== undefined) peakMiB = Math.max(peakMiB, memoryMiB(sampled));
		} catch {
			// Between two daemons.
		}
	}, 500);
	try {
		cairn("create", "million", "--redundancy", "rs:4+2", "--same-device", ...disks.flatMap((disk) => ["--disk", disk]));
		cairn("mount", "million", mountpoint);
		mounted = true;
		sampled = daemon();
		process.stderr.write(`making ${files} files in ${directories} directories …\n`);
		const tenths = await makeAll(mountpoint, sampled);
		const perTenth = (of) => tenths.map((tenth, i) => of(tenth) - (i === 0 ? 0 : of(tenths[i - 1])));
		const rates = perTenth(({ at }) => at).map((seconds) => Math.round(files / 10 / seconds));
		const processor = perTenth((tenth) => tenth.processor).map((seconds) => Math.round((seconds * 1e7) / files));
		const results = {
			files,
			directories,
			clients,
			seconds: rounded(tenths[9].at),
			perSecondByTenth: rates,
			lastToFirst: rounded(rates[9] / rates[0]),
		};
		results.processorMicrosecondsPerFileByTenth = processor;
		results.peakMiBMaking = peakMiB;
		results.umountSeconds = timed(() => cairn("umount", mountpoint));
		mounted = false;
		results.cleanMountSeconds = timed(() => cairn("mount", "million", mountpoint));
		mounted = true;
		sampled = daemon();
		results.listSeconds = timed(() => {
			if (countAll(mountpoint) !== perDirectory * directories) throw new Error("files are missing");
		});
		results.statThousandSeconds = timed(() => {
			for (let i = 0; i < 1000; i++)
				statSync(join(mountpoint, `d${nameOf((i * 617) % directories, 4)}`, `file-${nameOf((i * 7919) % perDirectory, 6)}`));
		});
		const removed = Math.min(10_000, perDirectory * Math.floor(directories / 2));
		results.unlinkSeconds = timed(() => {
			for (let i = 0; i < removed; i++)
				unlinkSync(join(mountpoint, `d${nameOf(Math.floor(i / perDirectory), 4)}`, `file-${nameOf(i % perDirectory, 6)}`));
		});
		results.unlinked = removed;
		results.peakMiB = peakMiB;
		process.kill(sampled, "SIGKILL");
		// Of a name that the kernel does not know: somebody has to answer.
		results.secondsAfterKill = timed(() => existsSync(join(mountpoint, "d0000", "never-asked-for")));
		if (countAll(mountpoint) !== perDirectory * directories - removed) throw new Error("after the kill the count is another one");
		sampled = daemon();
		console.log(JSON.stringify(results, null, "\t"));
		if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(results, null, "\t")}\n`);
	} finally {
		clearInterval(sampler);
		if (mounted) cairn("umount", mountpoint);
		rmSync(place, { recursive: true, force: true });
	}
}

if (positionals[0] === "maker") maker(positionals[1]);
else await main();
