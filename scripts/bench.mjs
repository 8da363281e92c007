#!/usr/bin/env node
/**
 * Measures a fresh volume (rs:4+2 on six directories) beside the plain disk under it, and beside mergerfs (a C++ pass-through FUSE file system) and GlusterFS if asked for, in one sitting.
 *
 *   npm run bench -- [--dir DIR] [--mib N] [--files N] [--tree TREE.tar] [--rounds N] [--open N] [--mergerfs] [--gluster] [--json FILE]
 *
 * --rounds N  everything N times, in turns, each time from nothing; the table shows medians, the JSON all of them
 * --open N    Cairn once more beside N files that a program holds open for writing
 *
 * Needs root and FUSE. Figures are ratios to trust, not absolutes: other work on the machine disturbs them. Every row says what it includes (bench/fsbench.py).
 */
import { execFileSync, spawn } from "node:child_process";
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { values: options } = parseArgs({
	options: {
		dir: { type: "string", default: existsSync("/var/tmp") ? "/var/tmp" : tmpdir() },
		mib: { type: "string", default: "512" },
		files: { type: "string", default: "5000" },
		tree: { type: "string" },
		rounds: { type: "string", default: "1" },
		open: { type: "string", default: "0" },
		gluster: { type: "boolean", default: false },
		mergerfs: { type: "boolean", default: false },
		json: { type: "string" },
	},
});

const place = mkdtempSync(join(options.dir, "cairn-bench-"));
const home = join(place, "home");
const cairn = (...words) =>
	execFileSync(process.execPath, [join(root, "dist/src/cli/main.js"), ...words], {
		env: { ...process.env, CAIRN_HOME: home },
		stdio: ["ignore", "pipe", "inherit"],
		encoding: "utf8",
	});

/** Without a tree of the user's: this project's dependencies, some thousand real files. */
function treeFile() {
	if (options.tree !== undefined) return options.tree;
	const tar = join(place, "tree.tar");
	execFileSync("tar", ["cf", tar, "-C", root, "node_modules"]);
	return tar;
}

async function measure(name, directory, tree) {
	process.stderr.write(`measuring ${name} …\n`);
	const words = [join(root, "bench/fsbench.py"), directory, "--json", "--mib", options.mib, "--files", options.files, "--tree", tree];
	const child = spawn("python3", words, { stdio: ["ignore", "pipe", "inherit"] });
	let said = "";
	child.stdout.setEncoding("utf8").on("data", (text) => {
		said += text;
	});
	const code = await new Promise((resolve) => child.on("close", resolve));
	if (code !== 0) throw new Error(`${name}: fsbench.py ended with ${code}`);
	return JSON.parse(said);
}

/** RssAnon + RssShmem of a process, MiB, as proc(5) has them. */
function memoryMiB(pid) {
	const status = readFileSync(`/proc/${pid}/status`, "utf8");
	const kib = (field) => Number(new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(status)?.[1] ?? 0);
	return Math.round((kib("RssAnon") + kib("RssShmem")) / 1024);
}

/** A fresh volume; the most memory that its daemon took is a row of its own. */
async function measureCairn(tree, openFiles) {
	const disks = [1, 2, 3, 4, 5, 6].map((number) => join(place, `d${number}`));
	const mountpoint = join(place, "mnt");
	for (const directory of [...disks, mountpoint]) mkdirSync(directory, { recursive: true });
	cairn("create", "bench", "--redundancy", "rs:4+2", "--same-device", ...disks.flatMap((disk) => ["--disk", disk]));
	cairn("mount", "bench", mountpoint);
	const open = [];
	let sampler;
	try {
		const { pid } = JSON.parse(cairn("status", "bench", "--json"));
		for (let i = 0; i < openFiles; i++) {
			open.push(openSync(join(mountpoint, `open-${i}`), "w+"));
			writeSync(open[i], Buffer.alloc(65_536, i));
		}
		let peak = 0;
		sampler = setInterval(() => {
			peak = Math.max(peak, memoryMiB(pid));
		}, 250);
		const beside = openFiles === 0 ? "" : ` beside ${openFiles} open files`;
		const results = await measure(`cairn rs:4+2${beside}`, mountpoint, tree);
		return { ...results, "daemon_memory_MiB (RssAnon + RssShmem, most)": peak };
	} finally {
		clearInterval(sampler);
		for (const fd of open) closeSync(fd);
		cairn("umount", mountpoint);
		cairn("destroy", "bench", "--yes", "bench");
		for (const directory of disks) rmSync(directory, { recursive: true, force: true });
	}
}

function median(values) {
	const sorted = values.filter((value) => value !== undefined).sort((a, b) => a - b);
	return sorted.length === 0 ? undefined : (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

/** The median of each row. */
function medians(rounds) {
	return Object.fromEntries(Object.keys(rounds[0]).map((row) => [row, median(rounds.map((round) => round[row]))]));
}

function table(results) {
	const names = Object.keys(results);
	const rows = Object.keys(results[names[0]]);
	const width = Math.max(...rows.map((row) => row.length));
	const lines = [
		`${"".padEnd(width)}  ${names.map((name) => name.padStart(12)).join("")}  ${names
			.slice(1)
			.map((name) => `cairn/${name}`.padStart(18))
			.join("")}`,
	];
	for (const row of rows) {
		const cells = names.map((name) => String(results[name][row] ?? "").padStart(12)).join("");
		// Seconds: how many times as long as the other; rates: how many times as fast.
		const ratios = names
			.slice(1)
			.map((name) =>
				results[name][row] === undefined
					? ""
					: `${(results.cairn[row] / results[name][row]).toFixed(2)}${row.includes("_s") && !row.includes("per_s") ? " × time" : " × rate"}`.padStart(
							18,
						),
			)
			.join("");
		lines.push(`${row.padEnd(width)}  ${cells}  ${ratios}`);
	}
	return lines.join("\n");
}

async function measurePeer(peer, mountpoints, tree) {
	const script = join(root, `bench/peer-${peer}.sh`);
	const env = { ...process.env, BRICKS: join(place, `bricks-${peer}`) };
	execFileSync("bash", [script, "up"], { stdio: ["ignore", "ignore", "inherit"], env });
	try {
		for (const [name, title, mountpoint] of mountpoints) note(name, await measure(title, mountpoint, tree));
	} finally {
		execFileSync("bash", [script, "down"], { stdio: "ignore", env });
	}
}

const rounds = {};
function note(name, results) {
	rounds[name] ??= [];
	rounds[name].push(results);
}

async function round(tree) {
	note("cairn", await measureCairn(tree, 0));
	if (Number(options.open) > 0) note(`cairn+${options.open}`, await measureCairn(tree, Number(options.open)));
	const plain = join(place, "plain");
	mkdirSync(plain, { recursive: true });
	note("plain", await measure("the plain disk", plain, tree));
	if (options.mergerfs) await measurePeer("mergerfs", [["mergerfs", "mergerfs", "/mnt/peer-mergerfs"]], tree);
	if (!options.gluster) return;
	const peers = [
		["gluster", "GlusterFS disperse 4+2", "/mnt/peer-disperse"],
		["gluster-x3", "GlusterFS replica 3", "/mnt/peer-replica"],
	];
	await measurePeer("glusterfs", peers, tree);
}

try {
	const tree = treeFile();
	for (let i = 0; i < Number(options.rounds); i++) await round(tree);
	const results = Object.fromEntries(Object.entries(rounds).map(([name, all]) => [name, medians(all)]));
	console.log(table(results));
	if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify({ medians: results, rounds }, null, "\t")}\n`);
} finally {
	rmSync(place, { recursive: true, force: true });
}
