#!/usr/bin/env node
/**
 * Measures a volume (replicate:2 on two disks) through the NFS client of a Linux kernel, beside NFS-Ganesha over one plain disk, in one sitting: in turns, and the medians of all rounds.
 *
 *   npm run bench:nfs -- [--rounds N] [--mib N] [--files N] [--clients N] [--seconds S] [--dir DIR] [--json FILE] [--only cairn|ganesha]
 *
 * The client is a guest (lab/: `lab/build-image.sh` makes its image). All disks are ext4 on loop devices, past the page cache, in one folder; Ganesha's is mounted with `sync`, so that its replies about names are stable as Cairn's are.
 * Needs root, FUSE and Debian's nfs-ganesha-vfs (installed by bench/peer-ganesha.sh where it is missing). Figures are ratios to trust, not absolutes.
 */
import { execFileSync, spawn } from "node:child_process";
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { values: options } = parseArgs({
	options: {
		dir: { type: "string", default: existsSync("/var/tmp") ? "/var/tmp" : tmpdir() },
		rounds: { type: "string", default: "5" },
		mib: { type: "string", default: "128" },
		files: { type: "string", default: "1000" },
		clients: { type: "string", default: "8" },
		seconds: { type: "string", default: "3" },
		only: { type: "string" },
		json: { type: "string" },
	},
});

const place = mkdtempSync(join(options.dir, "cairn-bench-nfs-"));
const network = basename(place).slice(-15);
const home = join(place, "home");
const lab = { ...process.env, LAB_RUN: join(place, "run"), LAB_NETNS: network };
/** What has to be undone, the last first. */
const undo = [];

const run = (program, words, more = {}) =>
	execFileSync(program, words, { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"], maxBuffer: 1 << 26, ...more });
const machine = (...words) => run(join(root, "lab/vm.sh"), words, { env: lab });
const inNetwork = (...words) => run("nsenter", [`--net=/run/netns/${network}`, ...words], { env: { ...process.env, CAIRN_HOME: home } });
const cairn = (...words) => inNetwork(process.execPath, join(root, "dist/src/cli/main.js"), ...words);

function disk(name, mountOptions) {
	const image = join(place, `${name}.img`);
	const folder = join(place, name);
	closeSync(openSync(image, "w"));
	truncateSync(image, 3 * 2 ** 30);
	mkdirSync(folder);
	run("mkfs.ext4", ["-q", "-F", image]);
	const device = run("losetup", ["--find", "--show", "--direct-io=on", image]).trim();
	undo.push(() => run("losetup", ["--detach", device]));
	run("mount", ["-o", mountOptions, device, folder]);
	undo.push(() => run("umount", [folder]));
	return folder;
}

function startCairn() {
	const disks = ["cairn1", "cairn2"].map((name) => disk(name, "defaults"));
	const mountpoint = join(place, "mnt");
	mkdirSync(mountpoint);
	cairn("create", "bench", "--redundancy", "replicate:2", "--same-device", ...disks.flatMap((path) => ["--disk", path]));
	cairn("mount", "bench", mountpoint);
	undo.push(() => cairn("umount", mountpoint));
	cairn("export", "add", "bench", "--clients", "10.77.0.0/24", "--squash", "none");
	return { name: "cairn", path: "/bench", port: 2049, mountPort: 2049, folders: disks };
}

function startGanesha() {
	const folder = disk("ganesha", "sync");
	const script = join(root, "bench/peer-ganesha.sh");
	const state = join(place, "ganesha-state");
	undo.push(() => run("bash", [script, "down", state]));
	run("bash", [script, "up", network, folder, state]);
	return { name: "ganesha", path: folder, port: 12049, mountPort: 12050, folders: [folder] };
}

/** The kernel's pages of everything below a folder: only those, as others work on this machine. */
const forgetting = `
import os, sys
for top in sys.argv[1:]:
    os.sync()
    for folder, _, names in os.walk(top):
        for name in names:
            try: fd = os.open(os.path.join(folder, name), os.O_RDONLY)
            except OSError: continue
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED); os.close(fd)
`;

/** One run of the client's program. */
async function measure({ name, path, port, mountPort, folders }) {
	const where = `/mnt/${name}`;
	const mountOptions = `vers=3,nolock,proto=tcp,port=${port},mountport=${mountPort},mountproto=tcp`;
	const evict = join(place, "shared/evict");
	const words = `--files ${options.files} --mib ${options.mib} --clients ${options.clients} --seconds ${options.seconds} --evict /host/shared/evict`;
	const command = `mkdir -p ${where} && mount -t nfs -o ${mountOptions} $LAB_HOST:${path} ${where} && python3 /host/bench/nfs-client.py ${where} ${words}; code=$?; umount ${where}; exit $code`;
	const child = spawn(join(root, "lab/vm.sh"), ["exec", "guest", "--timeout", "900", "--", command], {
		env: lab,
		stdio: ["ignore", "pipe", "inherit"],
	});
	let told = "";
	child.stdout.setEncoding("utf8").on("data", (text) => {
		told += text;
	});
	const watch = setInterval(() => {
		if (!existsSync(evict)) return;
		run("python3", ["-c", forgetting, ...folders]);
		rmSync(evict);
	}, 50);
	const code = await new Promise((resolve) => child.on("close", resolve));
	clearInterval(watch);
	if (code !== 0) throw new Error(`the client ended with ${code}:\n${told}`);
	return JSON.parse(told.trim().split("\n").at(-1));
}

function median(values) {
	const sorted = [...values].sort((a, b) => a - b);
	const middle = sorted.length >> 1;
	return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function table(results) {
	const names = Object.keys(results);
	const lines = [`| row | ${names.join(" | ")} | ratio, and of single rounds |`, `|---|${names.map(() => "--:|").join("")}--:|`];
	for (const row of Object.keys(results[names[0]][0])) {
		const medians = names.map((name) => median(results[name].map((one) => one[row])));
		const [own, other] = names.map((name) => results[name].map((one) => one[row]));
		const ratios = other === undefined ? [] : own.map((value, i) => value / other[i]).sort((a, b) => a - b);
		const ratio =
			ratios.length === 0 ? "" : `${(medians[0] / medians[1]).toFixed(2)} (${ratios[0].toFixed(2)} to ${ratios.at(-1).toFixed(2)})`;
		lines.push(`| ${row} | ${medians.map((value) => Math.round(value).toLocaleString("en")).join(" | ")} | ${ratio} |`);
	}
	return lines.join("\n");
}

const results = {};

/** Also of a sitting that was ended early. */
function tell() {
	const names = Object.keys(results);
	const rounds = Math.min(...names.map((name) => results[name].length));
	if (names.length > 0 && rounds > 0) console.log(table(Object.fromEntries(names.map((name) => [name, results[name].slice(0, rounds)]))));
	if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(results, null, "\t")}\n`);
}

function cleanUp() {
	for (const step of undo.splice(0).reverse())
		try {
			step();
		} catch (error) {
			console.error(error.message);
		}
	// Never below a mount that is still there.
	const isInUse = readdirSync(place).some((name) => name !== "run" && isMounted(join(place, name)));
	if (isInUse) console.error(`${place} is not removed: something is still mounted there`);
	else rmSync(place, { recursive: true, force: true });
}

for (const signal of ["SIGINT", "SIGTERM"])
	process.once(signal, () => {
		tell();
		cleanUp();
		process.exit(1);
	});

try {
	for (const folder of ["shared", "run"]) mkdirSync(join(place, folder));
	machine("net", "up");
	undo.push(() => machine("net", "down"));
	const sides = [];
	if (options.only !== "ganesha") sides.push(startCairn());
	if (options.only !== "cairn") sides.push(startGanesha());
	machine("start", "guest", "--mem", "1024", "--share", `bench=${join(root, "bench")}:ro`, "--share", `shared=${join(place, "shared")}`);
	undo.push(() => machine("kill", "guest"));
	for (let round = 0; round < Number(options.rounds); round++)
		for (const side of round % 2 === 0 ? sides : [...sides].reverse()) {
			process.stderr.write(`round ${round + 1}: ${side.name}\n`);
			results[side.name] = [...(results[side.name] ?? []), await measure(side)];
			if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(results, null, "\t")}\n`);
		}
	tell();
} finally {
	cleanUp();
}

function isMounted(path) {
	try {
		execFileSync("mountpoint", ["-q", path]);
		return true;
	} catch {
		return false;
	}
}
