/**
 * `npm run quickstart`: what CairnFS is for, shown on this machine with real files. Six directories become a volume that survives
 * the loss of two; a tree is copied in, two disks are destroyed while it is mounted, every file is read back and compared, the
 * disks are replaced and healed.
 *
 *   npm run quickstart [-- --exit] [--keep] [--dir DIR]
 *
 * It stays up until Ctrl-C; `--exit` ends at once. Everything it made is removed at the end, unless `--keep`.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { access, constants, lstat, mkdir, open, readdir, readFile, readlink, rm, statfs, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { ensureBuilt, ensureInstalled, execute, root } from "./tools.mjs";

const name = "demo";
const diskCount = 6;
/** The tree: enough files to mean something, little enough to be quick. */
const wantedFiles = 4500;
const maximumBytes = 400e6;
const largestFileBytes = 32e6;
/** Volume, its log mirrors, and what two rebuilt disks take. */
const neededBytes = 2.5e9;
const copiesAtOnce = 8;

const { values: options } = parseArgs({
	options: { exit: { type: "boolean", default: false }, keep: { type: "boolean", default: false }, dir: { type: "string" } },
});

/** The signal that asked to stop. Acts end at their next step, so that nothing is begun behind the back of cleaning up. */
let stopped;

function goOn() {
	if (stopped !== undefined) throw new Error(`interrupted (${stopped})`);
}

const say = (text) => console.log(text);
const step = (text) => console.log(`\n── ${text}`);
const mib = (bytes) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;

// ── the machine ──────────────────────────────────────────────────────────────────────────────────────────────────

/** Why this cannot run here, and what to do about it. */
async function obstacle() {
	if (process.platform !== "linux") return "mounting needs Linux. `npm test` works elsewhere, with the tests of mounts skipped.";
	const fuse = await access("/dev/fuse", constants.R_OK | constants.W_OK).then(
		() => true,
		(error) => error.code !== "ENOENT",
	);
	if (!fuse)
		return "/dev/fuse is missing. Load the module (modprobe fuse); in a container, start it with --device /dev/fuse --cap-add SYS_ADMIN.";
	if (process.getuid() !== 0) return "mounting needs root. Run it as root: sudo npm run quickstart";
	return undefined;
}

async function choosePlace() {
	const parent = options.dir ?? ((await writable("/var/tmp")) ? "/var/tmp" : tmpdir());
	const place = join(parent, "cairn-demo");
	return {
		place,
		home: join(place, "home"),
		mountpoint: join(place, "mnt"),
		disks: Array.from({ length: diskCount }, (_, i) => join(place, `disk${i + 1}`)),
		marker: join(place, "made-by-cairn-quickstart"),
	};
}

const writable = (path) =>
	access(path, constants.W_OK).then(
		() => true,
		() => false,
	);

// ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────

const program = join(root, "dist/src/cli/main.js");

/** Runs `cairn …` in a group of its own: Ctrl-C is for this script, which ends after the step. Answers code and output. */
function runCairn(here, words, stdio) {
	return new Promise((resolve, reject) => {
		const env = { ...process.env, CAIRN_HOME: here.home };
		const child = spawn(process.execPath, [program, ...words], { env, stdio, detached: true });
		const kept = { out: "", err: "" };
		child.stdout?.on("data", (data) => (kept.out += data));
		child.stderr?.on("data", (data) => (kept.err += data));
		child.on("error", reject);
		child.on("close", (code) => resolve({ code, ...kept }));
	});
}

/** Answers the JSON of a verb. */
async function cairnJson(here, ...words) {
	const { code, out, err } = await runCairn(here, [...words, "--json"], ["ignore", "pipe", "pipe"]);
	if (code !== 0) throw new Error(`cairn ${words.join(" ")} ended with code ${code}\n${err.trim()}`);
	return JSON.parse(out);
}

/** Runs `cairn …` as a person would. */
async function cairnShown(here, ...words) {
	goOn();
	say(`$ cairn ${words.join(" ")}`);
	const { code } = await runCairn(here, words, ["ignore", "inherit", "inherit"]);
	if (code !== 0) throw new Error(`cairn ${words[0]} ended with code ${code}`);
}

// ── progress ─────────────────────────────────────────────────────────────────────────────────────────────────────

/** A bar on a terminal, a line every tenth elsewhere. */
async function progressBar(title, total) {
	if (process.stderr.isTTY) {
		const { default: cliProgress } = await import("cli-progress");
		const format = `${title} {bar} {percentage} % | {value} of {total} files`;
		const bar = new cliProgress.SingleBar({ format, hideCursor: true }, cliProgress.Presets.shades_classic);
		bar.start(total, 0);
		return { add: () => bar.increment(), stop: () => bar.stop() };
	}
	let done = 0;
	const add = () => {
		const before = Math.floor((10 * done) / total);
		const now = Math.floor((10 * ++done) / total);
		if (now !== before) say(`${title} ${now * 10} % (${done} of ${total} files)`);
	};
	return { add, stop: () => {} };
}

/** Calls `work` for each item, a few at a time; the first failure ends it. */
async function forEach(items, work) {
	let next = 0;
	let failed;
	const lane = async () => {
		while (next < items.length && failed === undefined && stopped === undefined) {
			const item = items[next++];
			await work(item).catch((error) => {
				failed ??= error;
			});
		}
	};
	await Promise.all(Array.from({ length: copiesAtOnce }, lane));
	if (failed !== undefined) throw failed;
	goOn();
}

// ── the tree ─────────────────────────────────────────────────────────────────────────────────────────────────────

const sources = [
	[join(root, "node_modules"), "node_modules"],
	["/usr/include", "include"],
	["/usr/share/doc", "doc"],
	["/usr/share/perl", "perl"],
	["/usr/lib/python3", "python3"],
	["/usr/share", "share"],
];

/** Files, links and folders of real trees of this machine until there are enough. */
async function gatherTree() {
	const tree = { folders: [], files: [], links: [], bytes: 0 };
	for (const [from, to] of sources) {
		if (tree.files.length >= wantedFiles) break;
		await gather(tree, from, to);
	}
	return tree;
}

async function gather(tree, from, to) {
	const entries = await readdir(from, { withFileTypes: true }).catch(() => []);
	if (entries.length === 0) return;
	tree.folders.push(to);
	for (const entry of entries) {
		const [source, target] = [join(from, entry.name), join(to, entry.name)];
		if (entry.isDirectory()) await gather(tree, source, target);
		else if (entry.isSymbolicLink()) tree.links.push({ target, text: await readlink(source) });
		else if (entry.isFile()) await gatherFile(tree, source, target);
	}
}

async function gatherFile(tree, source, target) {
	const { size, mode } = await lstat(source);
	if (tree.files.length >= wantedFiles || size > largestFileBytes || tree.bytes + size > maximumBytes) return;
	if (
		!(await access(source, constants.R_OK).then(
			() => true,
			() => false,
		))
	)
		return;
	tree.files.push({ source, target, mode: mode & 0o777, hash: "" });
	tree.bytes += size;
}

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

/** Copies the tree and keeps the hash of what was read from the source. */
async function copyIn(tree, mountpoint) {
	for (const folder of tree.folders) await mkdir(join(mountpoint, folder), { recursive: true });
	const bar = await progressBar("copying", tree.files.length);
	await forEach(tree.files, async (file) => {
		const bytes = await readFile(file.source);
		file.hash = sha256(bytes);
		await writeFile(join(mountpoint, file.target), bytes, { mode: file.mode });
		bar.add();
	});
	bar.stop();
	for (const { target, text } of tree.links) await symlink(text, join(mountpoint, target));
	await execute("sync", ["-f", mountpoint]);
}

/** Around the kernel's cache: what counts is what the disks still give. */
async function readUncached(path) {
	const file = await open(path, constants.O_RDONLY | constants.O_DIRECT);
	try {
		return await file.readFile();
	} finally {
		await file.close();
	}
}

async function compare(tree, mountpoint) {
	const bar = await progressBar("reading", tree.files.length);
	const wrong = [];
	await forEach(tree.files, async ({ target, hash }) => {
		const bytes = await readUncached(join(mountpoint, target)).catch((error) => error);
		if (bytes instanceof Error) wrong.push(`${target}: ${bytes.message}`);
		else if (sha256(bytes) !== hash) wrong.push(`${target}: contents differ`);
		bar.add();
	});
	for (const { target, text } of tree.links) if ((await readlink(join(mountpoint, target))) !== text) wrong.push(`${target}: link differs`);
	bar.stop();
	if (wrong.length > 0) throw new Error(`${wrong.length} files are not what they were:\n${wrong.slice(0, 20).join("\n")}`);
	say(`all ${tree.files.length} files and ${tree.links.length} links are what they were (SHA-256)`);
}

// ── acts ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** What an interrupted run left behind. Only a folder with the marker is this script's to remove. */
async function cleanUp(here) {
	const entries = await readdir(here.place).catch(() => undefined);
	if (entries === undefined) return;
	if (entries.length > 0 && !(await isFile(here.marker))) {
		throw new Error(`${here.place} exists and was not made by the quickstart: move it away, or choose another place with --dir DIR`);
	}
	await umount(here);
	// What a killed daemon had in memory goes with the volume.
	if (await isFile(program)) await cairnJson(here, "destroy", name, "--yes", name).catch(() => undefined);
	await rm(here.place, { recursive: true, force: true });
}

async function umount(here) {
	const mounts = await readFile("/proc/self/mountinfo", "utf8");
	if (mounts.includes(` ${here.mountpoint} `)) await cairnJson(here, "umount", here.mountpoint);
}

const isFile = (path) =>
	lstat(path).then(
		(found) => found.isFile(),
		() => false,
	);

async function prepare(here) {
	await cleanUp(here);
	await mkdir(here.place, { recursive: true });
	await writeFile(here.marker, "Made by `npm run quickstart` of CairnFS; removed by it.\n");
	const { bavail, bsize } = await statfs(here.place);
	if (bavail * bsize < neededBytes) {
		throw new Error(
			`${dirname(here.place)} has ${mib(bavail * bsize)} free, ${mib(neededBytes)} are needed: choose another place with --dir DIR`,
		);
	}
	for (const folder of [...here.disks, here.mountpoint]) await mkdir(folder);
}

/** One disk that mirrors the log and the metadata, and one other. */
async function destroyTwo(here) {
	goOn();
	const disks = await cairnJson(here, "disk", "list", name);
	const mirror = disks.find((disk) => disk.metadata);
	const other = disks.findLast((disk) => !disk.metadata) ?? disks.findLast((disk) => disk !== mirror);
	for (const { id, path, metadata } of [mirror, other]) {
		say(`$ rm -rf ${path}     # ${id}${metadata ? ", a mirror of log and metadata" : ""}`);
		await rm(path, { recursive: true });
	}
	return [mirror, other];
}

async function show(here) {
	step(`a volume on ${diskCount} directories that survives the loss of any two`);
	await cairnShown(here, "create", name, "--disk", ...here.disks, "--redundancy", "rs:4+2", "--same-device");
	await cairnShown(here, "mount", name, here.mountpoint);
	step("real files go in");
	const tree = await gatherTree();
	say(`${tree.files.length} files, ${mib(tree.bytes)}`);
	await copyIn(tree, here.mountpoint);
	step("two disks are destroyed while it is mounted");
	const gone = await destroyTwo(here);
	await compare(tree, here.mountpoint);
	await cairnShown(here, "status", name);
	step("two empty disks take their places");
	for (const { id, path } of gone) {
		await mkdir(path);
		await cairnShown(here, "disk", "replace", name, id);
	}
	await cairnShown(here, "heal", name, "--wait");
	await compare(tree, here.mountpoint);
	await cairnShown(here, "status", name);
	const { protection } = await cairnJson(here, "status", name);
	if (protection.degradedBytes + protection.lostBytes > 0) throw new Error(`not everything is protected: ${JSON.stringify(protection)}`);
}

function howToUse(here) {
	step("it is yours to try");
	say(`files:   ${here.mountpoint}`);
	say(`disks:   ${here.disks[0]} … ${here.disks.at(-1)}    (rm -rf up to two of them)`);
	say("command: in another terminal");
	say(`           export CAIRN_HOME=${here.home}`);
	say(`           alias cairn='node ${program}'`);
	say(`           cairn status ${name};  cairn verify ${name};  cairn explain ${here.mountpoint}/FILE`);
}

/** Unmounts, and takes everything away unless it is to be kept. */
async function finish(here) {
	await umount(here);
	if (options.keep) {
		say(`unmounted; the volume is kept in ${here.place}: CAIRN_HOME=${here.home} cairn mount ${name} ${here.mountpoint}`);
		return;
	}
	await rm(here.place, { recursive: true });
	say(`unmounted, and ${here.place} was removed`);
}

const interrupted = new Promise((resolve) => {
	const stop = (signal) => {
		stopped ??= signal;
		resolve();
	};
	for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => stop(signal));
});

async function perform(here) {
	const started = performance.now();
	try {
		await show(here);
		say(`\ndone in ${((performance.now() - started) / 1000).toFixed(0)} s`);
		if (options.exit) return 0;
		howToUse(here);
		say(`\nCtrl-C unmounts${options.keep ? "" : ` and removes ${here.place} with everything in it`}.`);
		await interrupted;
		return 0;
	} catch (error) {
		if (stopped !== undefined) {
			say(`\ninterrupted (${stopped})`);
			return 130;
		}
		console.error(`\n${error.message}`);
		const log = await readFile(join(here.home, name, "daemon.log"), "utf8").catch(() => "");
		if (log !== "") console.error(`\nThe daemon's log ends with:\n${log.trimEnd().split("\n").slice(-15).join("\n")}`);
		return 1;
	}
}

async function main() {
	const why = await obstacle();
	if (why !== undefined) {
		console.error(`The quickstart cannot mount here: ${why}`);
		return 1;
	}
	await ensureInstalled(say);
	say("building");
	await ensureBuilt();
	const here = await choosePlace();
	await prepare(here);
	const code = await perform(here);
	try {
		await finish(here);
		return code;
	} catch (error) {
		console.error(`${error.message}\nleft behind: ${here.place} (the next run cleans it up)`);
		return code || 1;
	}
}

try {
	process.exitCode = await main();
} catch (error) {
	console.error(error.message);
	process.exitCode = 1;
}
