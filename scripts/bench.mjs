#!/usr/bin/env node
/**
 * Measures a fresh volume (rs:4+2 on six directories) beside the plain disk under it, and beside mergerfs (a C++ pass-through FUSE file system) and GlusterFS if asked for, in one sitting.
 *
 *   npm run bench -- [--dir DIR] [--mib N] [--files N] [--tree TREE.tar] [--mergerfs] [--gluster] [--json FILE]
 *
 * Needs root and FUSE. Figures are ratios to trust, not absolutes: other work on the machine disturbs them. Every row says what it includes (bench/fsbench.py).
 */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
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
		stdio: ["ignore", "ignore", "inherit"],
	});

/** Without a tree of the user's: this project's dependencies, some thousand real files. */
function treeFile() {
	if (options.tree !== undefined) return options.tree;
	const tar = join(place, "tree.tar");
	execFileSync("tar", ["cf", tar, "-C", root, "node_modules"]);
	return tar;
}

function measure(name, directory, tree) {
	process.stderr.write(`measuring ${name} …\n`);
	const run = spawnSync(
		"python3",
		[join(root, "bench/fsbench.py"), directory, "--json", "--mib", options.mib, "--files", options.files, "--tree", tree],
		{ encoding: "utf8" },
	);
	if (run.status !== 0) throw new Error(`${name}: ${run.stderr}`);
	return JSON.parse(run.stdout);
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
		const cells = names.map((name) => String(results[name][row]).padStart(12)).join("");
		// Seconds: how many times as long as the other; rates: how many times as fast.
		const ratios = names
			.slice(1)
			.map((name) =>
				`${(results.cairn[row] / results[name][row]).toFixed(2)}${row.includes("_s") && !row.includes("per_s") ? " × time" : " × rate"}`.padStart(
					18,
				),
			)
			.join("");
		lines.push(`${row.padEnd(width)}  ${cells}  ${ratios}`);
	}
	return lines.join("\n");
}

function measurePeer(peer, name, mountpoint, tree) {
	const script = join(root, `bench/peer-${peer}.sh`);
	const env = { ...process.env, BRICKS: join(place, `bricks-${peer}`) };
	execFileSync("bash", [script, "up"], { stdio: ["ignore", "ignore", "inherit"], env });
	try {
		return measure(name, mountpoint, tree);
	} finally {
		execFileSync("bash", [script, "down"], { stdio: "ignore", env });
	}
}

const results = {};
let mounted = false;
try {
	const tree = treeFile();
	const disks = [1, 2, 3, 4, 5, 6].map((number) => join(place, `d${number}`));
	const mountpoint = join(place, "mnt");
	const plain = join(place, "plain");
	for (const directory of [...disks, mountpoint, plain]) mkdirSync(directory, { recursive: true });
	cairn("create", "bench", "--redundancy", "rs:4+2", "--same-device", ...disks.flatMap((disk) => ["--disk", disk]));
	cairn("mount", "bench", mountpoint);
	mounted = true;
	results.cairn = measure("cairn rs:4+2", mountpoint, tree);
	cairn("umount", mountpoint);
	mounted = false;
	results.plain = measure("the plain disk", plain, tree);
	if (options.mergerfs) results.mergerfs = measurePeer("mergerfs", "mergerfs", "/mnt/peer-mergerfs", tree);
	if (options.gluster) results.gluster = measurePeer("glusterfs", "GlusterFS disperse 4+2", "/mnt/peer-disperse", tree);
	console.log(table(results));
	if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(results, null, "\t")}\n`);
} finally {
	if (mounted) cairn("umount", join(place, "mnt"));
	rmSync(place, { recursive: true, force: true });
}
