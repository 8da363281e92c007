/**
 * kill -9 of commands and daemons at random moments of `create`, `destroy` and everything that changes the set of disks, on real directories through the command line: whatever was cut can be said again, and the
 * files are all there.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { closeSync, existsSync, fsyncSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { execute, type Outcome, sleep, TestVolume } from "../support/cairn.ts";
import { contents, randomOf } from "./kill-model.ts";

const commandLine = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));

interface Ended extends Outcome {
	readonly killed: boolean;
}

/** Runs a command, and kills it after `afterMs` when it has not ended by then. */
function runKilled(home: string, words: readonly string[], afterMs: number): Promise<Ended> {
	return new Promise((resolve, reject) => {
		const child: ChildProcess = spawn(process.execPath, [commandLine, ...words], { env: { ...process.env, CAIRN_HOME: home } });
		let killed = false;
		let stdout = "";
		let stderr = "";
		child.stdout?.setEncoding("utf8").on("data", (text: string) => (stdout += text));
		child.stderr?.setEncoding("utf8").on("data", (text: string) => (stderr += text));
		const timer = setTimeout(() => {
			killed = child.kill("SIGKILL");
		}, afterMs);
		child.on("error", reject);
		child.on("close", (code, signal) => {
			clearTimeout(timer);
			resolve({ code, signal, stdout, stderr, killed });
		});
	});
}

/** Everything below a directory, folders too. */
const below = (folder: string): string[] => readdirSync(folder, { recursive: true, encoding: "utf8" });

// ── create and destroy ───────────────────────────────────────────────────────────────────────────────────────────

export interface Tally {
	/** Commands that were killed while they worked. */
	killed: number;
	/** Of those that were said again, refused because the first had come to its end. */
	complete: number;
}

/** `create` is killed again and again, then said once more; then the same with `destroy`. */
export async function killCreations(seed: number, times: number): Promise<Tally> {
	const base = mkdtempSync(join(tmpdir(), "cairn-suite-"));
	const random = randomOf(seed);
	const tally: Tally = { killed: 0, complete: 0 };
	try {
		const home = join(base, "home");
		const name = basename(base);
		const disks = [1, 2, 3].map((number) => join(base, `disk${number}`));
		for (const folder of [...disks, join(base, "mnt")]) mkdirSync(folder);
		const at = { base, home, name, disks, seed, tookMs: 0 };
		const beginMs = performance.now();
		await said(at, 0, ...createWords(at));
		at.tookMs = performance.now() - beginMs;
		await said(at, 0, "destroy", name, "--yes", name);
		for (let round = 0; round < times; round++) await oneCreation({ ...at, afterMs: random(Math.ceil(at.tookMs)) }, round, random, tally);
		return tally;
	} finally {
		await execute("umount", ["-l", join(base, "mnt")]);
		rmSync(base, { recursive: true, force: true });
	}
}

interface Place {
	readonly base: string;
	readonly home: string;
	readonly name: string;
	readonly disks: readonly string[];
	readonly seed: number;
	/** Of a whole creation. */
	readonly tookMs: number;
}

const createWords = ({ name, disks }: Place): string[] => ["create", name, ...disks.flatMap((disk) => ["--disk", disk]), "--same-device"];

async function said({ home, seed }: Place, code: number, ...words: readonly string[]): Promise<Outcome> {
	const outcome = await execute(process.execPath, [commandLine, ...words], { env: { CAIRN_HOME: home } });
	assert.equal(outcome.code, code, `seed ${seed}: cairn ${words.join(" ")}:\n${outcome.stdout}${outcome.stderr}`);
	return outcome;
}

async function oneCreation(
	at: Place & { readonly afterMs: number },
	round: number,
	random: (bound: number) => number,
	tally: Tally,
): Promise<void> {
	const { base, home, name, disks, seed } = at;
	const label = `seed ${seed}, round ${round}, killed after ${at.afterMs} ms`;
	const first = await runKilled(home, createWords(at), at.afterMs);
	if (first.killed) tally.killed++;
	else assert.equal(first.code, 0, `${label}: ${first.stderr}`);
	const again = await execute(process.execPath, [commandLine, ...createWords(at)], { env: { CAIRN_HOME: home } });
	if (again.code !== 0) {
		tally.complete++;
		assert.equal(again.code, 4, `${label}: ${again.stderr}`);
		assert.match(again.stderr, /cairn destroy/, label);
	}
	const mountpoint = join(base, "mnt");
	await said(at, 0, "mount", name, mountpoint, "--disk", disks[random(3)] as string);
	const file = openSync(join(mountpoint, "file"), "w");
	writeSync(file, contents(seed, round, 50_000));
	fsyncSync(file);
	closeSync(file);
	await said(at, 0, "umount", mountpoint);
	const destroying = await runKilled(home, ["destroy", name, "--yes", name], at.tookMs / 4 + random(Math.ceil(at.tookMs)));
	if (destroying.killed) {
		tally.killed++;
		const repeated = await execute(process.execPath, [commandLine, "destroy", name, "--yes", name], { env: { CAIRN_HOME: home } });
		// Killed after the last thing that it does: there is nothing left to be destroyed.
		assert.ok(repeated.code === 0 || (repeated.code === 3 && !existsSync(join(home, name, "volume.json"))), `${label}: ${repeated.stderr}`);
	}
	for (const disk of disks) {
		const left = below(disk).filter((path) => !["log", "kv", "pack", "lock"].includes(path));
		assert.deepEqual(left, [], `${label}: ${disk}`);
	}
}

// ── disks that come and go ───────────────────────────────────────────────────────────────────────────────────────

/** Which process is killed. */
type Victim = "command" | "daemon";

interface Step {
	readonly words: readonly string[];
	/** Exit codes and words of a repetition that mean that it was done before. */
	readonly doneAlready: RegExp;
	before?(): void;
}

/** Files are written all the time while disks come and go and either the command or the daemon is killed; `rounds` times all of it, or of these steps. */
export async function killChanges(seed: number, rounds: number, only?: readonly number[]): Promise<{ kills: number; files: number }> {
	const volume = await TestVolume.start({ disks: 4, redundancy: "rs:2+1" });
	const random = randomOf(seed);
	const files = new Map<string, string>();
	let kills = 0;
	try {
		const spare = (number: number): string => {
			const path = join(volume.base, `spare${number}`);
			mkdirSync(path, { recursive: true });
			return path;
		};
		for (let round = 0; round < rounds; round++) {
			const steps = stepsOf(volume, round, spare);
			for (const step of only?.map((number) => steps[number] as Step) ?? steps) {
				write(volume, files, seed, random);
				step.before?.();
				kills += await killStep(volume, step, random, `seed ${seed}, round ${round}`);
			}
			await volume.heal();
			compare(volume, files, seed);
		}
		const { corrupt, missing, unrecoverable } = await volume.verify();
		assert.deepEqual([corrupt, missing, unrecoverable], [0, 0, 0], `seed ${seed}\n${volume.log()}`);
		await volume.remount();
		compare(volume, files, seed);
		return { kills, files: files.size };
	} finally {
		await volume.close();
	}
}

/** One more disk, one less, one lost and replaced, one exchanged: as many as before. */
function stepsOf(volume: TestVolume, round: number, spare: (number: number) => string): Step[] {
	const { name, diskPaths } = volume;
	const [added, other] = [spare(2 * round), spare(2 * round + 1)];
	const leaving = round === 0 ? (diskPaths[0] as string) : spare(2 * round - 2);
	const lost = diskPaths[1] as string;
	const exchanged = round === 0 ? (diskPaths[2] as string) : spare(2 * round - 1);
	return [
		{ words: ["disk", "add", name, added], doneAlready: /already is a disk of volume/ },
		{ words: ["disk", "drain", name, leaving, "--wait"], doneAlready: /is being emptied|is empty/ },
		{ words: ["disk", "remove", name, leaving], doneAlready: /no disk / },
		{
			words: ["disk", "replace", name, lost],
			doneAlready: /works: name the place/,
			before: () => {
				for (const file of ["superblock", "log", "kv", "pack", "lock"]) rmSync(join(lost, file), { recursive: true, force: true });
			},
		},
		{ words: ["disk", "replace", name, exchanged, other], doneAlready: /already is a disk of volume|no disk / },
	];
}

async function killStep(volume: TestVolume, step: Step, random: (bound: number) => number, label: string): Promise<number> {
	const home = join(volume.base, "home");
	const victim: Victim = random(3) === 0 ? "command" : "daemon";
	const afterMs = 150 + random(500);
	let kills = 0;
	if (victim === "command") kills += (await runKilled(home, step.words, afterMs)).killed ? 1 : 0;
	else {
		const running = runKilled(home, step.words, 120_000);
		await sleep(afterMs);
		await volume.successorOf(volume.killDaemon());
		kills++;
		await running;
	}
	// A lost disk that the daemon has not asked anything of may still count as working.
	for (let tries = 0; ; tries++) {
		const { code, stdout, stderr } = await volume.try(...step.words);
		if (code === 0 || step.doneAlready.test(stdout + stderr)) return kills;
		const text = `${label}, ${victim} killed after ${afterMs} ms: cairn ${step.words.join(" ")} ended with ${code}:\n${stdout}${stderr}`;
		assert.ok(
			tries < 40 && /being given back|still being emptied|holds|away|in the volume's state/.test(stderr),
			`${text}\n${volume.log()}`,
		);
		await sleep(250);
	}
}

function write(volume: TestVolume, files: Map<string, string>, seed: number, random: (bound: number) => number): void {
	for (let i = 0; i < 6; i++) {
		const path = `file${files.size}`;
		const bytes = contents(seed, files.size, 1 + random(random(2) === 0 ? 4000 : 900_000));
		const file = openSync(join(volume.mountpoint, path), "w");
		writeSync(file, bytes);
		if (i % 2 === 0) fsyncSync(file);
		closeSync(file);
		files.set(path, createHash("sha256").update(bytes).digest("hex"));
	}
}

function compare(volume: TestVolume, files: ReadonlyMap<string, string>, seed: number): void {
	for (const [path, hash] of files) {
		const found = createHash("sha256")
			.update(readFileSync(join(volume.mountpoint, path)))
			.digest("hex");
		assert.equal(found, hash, `seed ${seed}: ${path}\n${volume.log()}`);
	}
	assert.equal(readdirSync(volume.mountpoint).length, files.size, `seed ${seed}`);
}
