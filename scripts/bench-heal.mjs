#!/usr/bin/env node
/**
 * How long a lost disk leaves a volume under-protected, and what its users feel meanwhile: fills a fresh volume (rs:4+2 on six image files, read and written past the page cache), puts an empty disk in the place of one, and measures until
 * everything has full protection again, beside the plain device in the same sitting, with one reader of random 4 KiB and one of random 64 KiB before and during.
 *
 *   npm run bench:heal -- [--dir DIR] [--gib N] [--tranquility 0,2] [--no-readers] [--directories] [--json FILE]
 *
 * Needs root and FUSE, and 1.5 times as much space. All six disks are on one device here: with devices of their own healing has six times the bandwidth. Ratios to trust, not absolutes.
 */
import { execFileSync, spawn } from "node:child_process";
import {
	closeSync,
	constants,
	existsSync,
	fsyncSync,
	mkdirSync,
	mkdtempSync,
	openSync,
	readdirSync,
	readFileSync,
	readSync,
	rmSync,
	statfsSync,
	truncateSync,
	writeFileSync,
	writeSync,
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
		gib: { type: "string", default: "4" },
		tranquility: { type: "string", default: "0,2" },
		"no-readers": { type: "boolean", default: false },
		directories: { type: "boolean", default: false },
		json: { type: "string" },
	},
});

const MiB = 1 << 20;
const fileMiB = 64;
const calmMs = 8000;

/** Child: `reader FOLDER BYTES` reads at random, past the kernel's cache, until stdin ends; then prints how long reads took. */
function reader(folder, lengthBytes) {
	const files = readdirSync(folder).map((name) => openSync(join(folder, name), constants.O_RDONLY | constants.O_DIRECT));
	const blocks = (fileMiB * MiB) / lengthBytes;
	// Memory of its own, which begins on a page.
	const bytes = Buffer.from(new WebAssembly.Memory({ initial: Math.ceil(lengthBytes / 65_536) }).buffer, 0, lengthBytes);
	const tookMs = [];
	let isOver = false;
	process.stdin.on("end", () => {
		isOver = true;
	});
	process.stdin.resume();
	const one = () => {
		const startMs = performance.now();
		const file = files[Math.floor(Math.random() * files.length)];
		if (readSync(file, bytes, 0, lengthBytes, Math.floor(Math.random() * blocks) * lengthBytes) !== lengthBytes)
			throw new Error("a short read");
		tookMs.push(performance.now() - startMs);
		if (!isOver) return setImmediate(one);
		tookMs.sort((a, b) => a - b);
		const at = (part) => Number(tookMs[Math.min(tookMs.length - 1, Math.floor(tookMs.length * part))].toFixed(2));
		console.log(JSON.stringify({ reads: tookMs.length, p50Ms: at(0.5), p99Ms: at(0.99), mostMs: at(1) }));
	};
	one();
}

/** Starts both readers; answers a function that ends them and tells what they felt. */
function startReaders(folder) {
	if (options["no-readers"]) return async () => ({});
	const running = [4096, 65_536].map((lengthBytes) => {
		const child = spawn(process.execPath, [fileURLToPath(import.meta.url), "reader", folder, String(lengthBytes)], {
			stdio: ["pipe", "pipe", "inherit"],
		});
		let told = "";
		child.stdout.on("data", (text) => {
			told += text;
		});
		return { lengthBytes, child, ended: new Promise((resolve) => child.on("close", () => resolve(JSON.parse(told)))) };
	});
	return async () => {
		for (const { child } of running) child.stdin.end();
		return Object.fromEntries(await Promise.all(running.map(async ({ lengthBytes, ended }) => [`${lengthBytes >> 10} KiB`, await ended])));
	};
}

/** Sequentially, 1 MiB at once, past the page cache, one sync at the end. */
function plainDevice(folder) {
	const file = join(folder, "plain");
	const total = 512;
	const block = Buffer.from(new WebAssembly.Memory({ initial: 16 }).buffer);
	for (let i = 0; i < block.length; i++) block[i] = (i * 2_654_435_761) >>> 13;
	const handle = openSync(file, constants.O_RDWR | constants.O_CREAT | constants.O_DIRECT);
	const timed = (work) => {
		const startMs = performance.now();
		work();
		return Math.round((total * 1000) / (performance.now() - startMs));
	};
	const writeMiBs = timed(() => {
		for (let i = 0; i < total; i++) writeSync(handle, block, 0, MiB, i * MiB);
		fsyncSync(handle);
	});
	const readMiBs = timed(() => {
		for (let i = 0; i < total; i++) readSync(handle, block, 0, MiB, i * MiB);
	});
	closeSync(handle);
	rmSync(file);
	return { writeMiBs, readMiBs };
}

function fill(folder, gib) {
	const block = Buffer.alloc(4 * MiB);
	let state = 1;
	for (let i = 0; i < block.length; i += 4) {
		state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
		block.writeUInt32LE(state, i);
	}
	for (let number = 0; number * fileMiB < gib * 1024; number++) {
		const handle = openSync(join(folder, `f${number}`), "w");
		for (let at = 0; at < fileMiB; at += 4) {
			block.writeUInt32LE(number * fileMiB + at, 0);
			writeSync(handle, block);
		}
		fsyncSync(handle);
		closeSync(handle);
	}
}

/** Processor time that a process has taken, in seconds (proc(5), stat: utime and stime in ticks of 1/100 s). */
function processorSeconds(pid) {
	const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
	return (Number(fields[11]) + Number(fields[12])) / 100;
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function main() {
	const gib = Number(options.gib);
	const { bavail, bsize } = statfsSync(options.dir);
	const spareBytes = bavail * bsize - gib * 1.6 * 1024 ** 3;
	if (spareBytes < 5e9) throw new Error(`${options.dir} has not enough room for ${gib} GiB at rs:4+2 with 5 GB left: use --gib or --dir`);
	const place = mkdtempSync(join(options.dir, "cairn-heal-"));
	const home = join(place, "home");
	const cairn = (...words) =>
		execFileSync(process.execPath, [join(root, "dist/src/cli/main.js"), ...words], {
			env: { ...process.env, CAIRN_HOME: home },
			stdio: ["ignore", "pipe", "inherit"],
			encoding: "utf8",
		});
	const diskBytes = Math.ceil(gib / 4 + 1) * 1024 ** 3;
	const disks = [1, 2, 3, 4, 5, 6].map((number) => join(place, `d${number}`));
	const empty = (disk) => {
		rmSync(disk, { recursive: true, force: true });
		if (options.directories) return mkdirSync(disk);
		writeFileSync(disk, "");
		truncateSync(disk, diskBytes);
	};
	const mountpoint = join(place, "mnt");
	const results = { gib, disks: options.directories ? "directories" : "image files", runs: [] };
	let mounted = false;
	try {
		for (const disk of disks) empty(disk);
		mkdirSync(mountpoint);
		cairn("create", "heal", "--redundancy", "rs:4+2", "--same-device", ...disks.flatMap((disk) => ["--disk", disk]));
		cairn("mount", "heal", mountpoint);
		mounted = true;
		process.stderr.write(`filling ${gib} GiB …\n`);
		fill(mountpoint, gib);
		for (const [i, tranquility] of options.tranquility.split(",").entries()) {
			// Without that, what the lost disk held would be protected in a shape for five disks first, before anybody brings another.
			cairn("heal", "heal", "--pause");
			cairn("umount", mountpoint);
			mounted = false;
			empty(disks[i % disks.length]);
			const plain = plainDevice(place);
			cairn("mount", "heal", mountpoint);
			mounted = true;
			cairn("heal", "heal", "--tranquility", tranquility);
			process.stderr.write(`tranquility ${tranquility}: reading while nothing heals …\n`);
			const calm = startReaders(mountpoint);
			await sleep(calmMs);
			const before = await calm();
			process.stderr.write(`tranquility ${tranquility}: healing …\n`);
			const busy = startReaders(mountpoint);
			const { pid } = JSON.parse(cairn("status", "heal", "--json"));
			const processorBefore = processorSeconds(pid);
			const startMs = performance.now();
			cairn("disk", "replace", "heal", `d${i + 1}`);
			cairn("heal", "heal", "--resume");
			await new Promise((resolve, reject) => {
				const child = spawn(process.execPath, [join(root, "dist/src/cli/main.js"), "heal", "heal", "--wait"], {
					env: { ...process.env, CAIRN_HOME: home },
					stdio: "ignore",
				});
				child.on("close", (code) => (code === 0 ? resolve() : reject(new Error(`heal --wait ended with ${code}`))));
			});
			const seconds = (performance.now() - startMs) / 1000;
			const processor = processorSeconds(pid) - processorBefore;
			const during = await busy();
			const { protection } = JSON.parse(cairn("status", "heal", "--json"));
			if (protection.degradedBytes + protection.lostBytes > 0) throw new Error(`not healed: ${JSON.stringify(protection)}`);
			const rebuiltMiB = (gib * 1024) / 4;
			// What has to move at the least: four shards are read for each that is written.
			const floorSeconds = (4 * rebuiltMiB) / plain.readMiBs + rebuiltMiB / plain.writeMiBs;
			results.runs.push({
				tranquility: Number(tranquility),
				seconds: Number(seconds.toFixed(1)),
				dataMiBs: Math.round((gib * 1024) / seconds),
				daemonProcessorSeconds: Number(processor.toFixed(1)),
				plain,
				floorSeconds: Number(floorSeconds.toFixed(1)),
				timesFloor: Number((seconds / floorSeconds).toFixed(2)),
				before,
				during,
			});
			console.log(JSON.stringify(results.runs.at(-1)));
		}
		if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(results, null, "\t")}\n`);
	} finally {
		if (mounted) cairn("umount", mountpoint);
		rmSync(place, { recursive: true, force: true });
	}
}

if (positionals[0] === "reader") reader(positionals[1], Number(positionals[2]));
else await main();
