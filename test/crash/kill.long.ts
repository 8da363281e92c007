/**
 * kill -9 of the daemon under load, again and again (`npm run test:long kill`, `--times 50`, `--seed 7`): whatever was acknowledged is
 * there after the next mount, synced or not; what was under way is there or not; files of earlier rounds stay as they were.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { cannotMount, sleep, TestVolume } from "../support/cairn.ts";
import { type JournalLine, parseJournal, randomOf, type Replayed, replay, sum, type Tree } from "./kill-model.ts";

const times = Number(process.env["CAIRN_TIMES"] ?? 200);
const seed = Number(process.env["CAIRN_SEED"] ?? Date.now() % 1_000_000);
const writers = 2;
const keptRounds = 6;
const writerProgram = fileURLToPath(new URL("kill-writer.js", import.meta.url));
const reason = cannotMount();

/** Path → SHA-256, of everything in a round's folder. */
type Seen = ReadonlyMap<string, string>;

interface RunningWriter {
	readonly seed: number;
	readonly folder: string;
	readonly journal: string;
	readonly ended: Promise<{ code: number | null; stderr: string }>;
}

let volume: TestVolume | undefined;
after(() => volume?.close());

test(`${times} kills, seed ${seed}`, { skip: reason ?? false }, async () => {
	volume = await TestVolume.start({ disks: 6, redundancy: "rs:4+2" });
	const random = randomOf(seed);
	const kept = new Map<string, Seen>();
	let operations = 0;
	let synced = 0;
	for (let round = 0; round < times; round++) {
		const running = Array.from({ length: writers }, (_, i) => startWriter(volume as TestVolume, round, i));
		await sleep(30 + random(random(4) === 0 ? 3500 : 900));
		assert.ok(await volume.kill(), `round ${round}: the daemon was still there\n${volume.log()}`);
		const journals = await Promise.all(running.map((writer) => journalOf(writer, round)));
		if (random(5) === 0) await killWhileMounting(volume, random(1200));
		await volume.mount();
		for (const [i, writer] of running.entries()) {
			const replayed = replay(writer.seed, journals[i] as JournalLine[]);
			operations += replayed.count;
			synced += replayed.synced;
			const seen = checkTree(writer.folder, replayed, `seed ${seed}, round ${round}, writer ${i}`);
			kept.set(writer.folder, seen);
			rmSync(writer.journal);
		}
		for (const [folder, seen] of kept) assertSeen(folder, seen, `seed ${seed}, round ${round}`);
		forgetOldest(kept);
	}
	assert.ok(operations > times && synced > 0, `${operations} operations were acknowledged, ${synced} synced`);
	await volume.remount();
	for (const [folder, seen] of kept) assertSeen(folder, seen, "after a clean unmount");
	const verified = await volume.verify();
	assert.deepEqual([verified.corrupt, verified.missing, verified.unrecoverable], [0, 0, 0], volume.log());
	console.log(`${times} kills, ${operations} operations acknowledged, ${synced} of them synced: all there`);
});

function startWriter(on: TestVolume, round: number, index: number): RunningWriter {
	const name = `round${round}-${index}`;
	const folder = join(on.mountpoint, name);
	const journal = join(on.base, `${name}.journal`);
	const writerSeed = (seed * 1000 + round) * writers + index;
	mkdirSync(folder);
	const child = spawn(process.execPath, [writerProgram, folder, journal, String(writerSeed)], {
		stdio: ["ignore", "ignore", "pipe"],
		timeout: 300_000,
	});
	let stderr = "";
	child.stderr.setEncoding("utf8").on("data", (text: string) => {
		stderr += text;
	});
	const ended = new Promise<{ code: number | null; stderr: string }>((resolve) => {
		child.on("close", (code) => resolve({ code, stderr }));
	});
	return { seed: writerSeed, folder, journal, ended };
}

async function journalOf(writer: RunningWriter, round: number): Promise<JournalLine[]> {
	const { code, stderr } = await writer.ended;
	assert.equal(
		code,
		0,
		`seed ${seed}, round ${round}: the writer met another error than the end of the daemon:\n${stderr}\n${volume?.log()}`,
	);
	return existsSync(writer.journal) ? parseJournal(readFileSync(writer.journal, "utf8")) : [];
}

/** A mount that is killed itself must not lose anything either. */
async function killWhileMounting(on: TestVolume, afterMs: number): Promise<void> {
	const mounting = on.tryMount(60_000);
	mounting.catch(() => {});
	await sleep(afterMs);
	await on.kill();
	await mounting;
	await on.kill();
}

function walk(folder: string, prefix = ""): { files: string[]; folders: string[] } {
	const files: string[] = [];
	const folders: string[] = [];
	for (const item of readdirSync(join(folder, prefix), { withFileTypes: true })) {
		const path = prefix === "" ? item.name : `${prefix}/${item.name}`;
		if (!item.isDirectory()) files.push(path);
		else {
			const below = walk(folder, path);
			folders.push(path, ...below.folders);
			files.push(...below.files);
		}
	}
	return { files, folders };
}

/** The tree is what was acknowledged, but for what the open operation may have changed. Answers what is there. */
function checkTree(folder: string, replayed: Replayed, message: string): Seen {
	const { acknowledged, attempted, open } = replayed;
	const touched = new Set(open === undefined ? [] : [open.path, open.kind === "rename" ? open.to : open.path, ".saving"]);
	const { files, folders } = walk(folder);
	const seen = new Map<string, string>();
	for (const path of files) {
		const bytes = readFileSync(join(folder, path));
		seen.set(path, sum(bytes));
		if (touched.has(path)) continue;
		const file = acknowledged.files.get(path);
		assert.ok(file !== undefined, `${message}: ${path} is there and should not be`);
		assert.ok(bytes.equals(file.bytes), `${message}: ${path} has ${describeDifference(bytes, file.bytes)}`);
		const { mtimeMs } = statSync(join(folder, path));
		if (file.mtimeSeconds !== undefined) assert.equal(mtimeMs, file.mtimeSeconds * 1000, `${message}: time of ${path}`);
	}
	for (const path of acknowledged.files.keys())
		assert.ok(touched.has(path) || seen.has(path), `${message}: ${path} is gone (open: ${JSON.stringify(open)})`);
	const expected = [acknowledged, attempted].map((tree) => [...tree.folders].sort().join());
	assert.ok(expected.includes([...folders].sort().join()), `${message}: folders ${folders.join()}, expected ${expected[0]}`);
	if (open !== undefined) checkOpen(folder, replayed, message);
	return seen;
}

function describeDifference(have: Buffer, want: Buffer): string {
	let at = 0;
	while (at < have.length && at < want.length && have[at] === want[at]) at++;
	return `${have.length} bytes, ${want.length} expected, equal up to ${at}`;
}

/** The operation that was cut off has happened, has not, or, where it is more than one call, has come some way. */
function checkOpen(folder: string, replayed: Replayed, message: string): void {
	const { acknowledged, attempted } = replayed;
	const open = replayed.open as NonNullable<Replayed["open"]>;
	const about = `${message}: cut off in ${JSON.stringify(open)}`;
	const at = (path: string): Buffer | undefined => (existsSync(join(folder, path)) ? readFileSync(join(folder, path)) : undefined);
	const is = (tree: Tree, path: string): boolean => {
		const [have, want] = [at(path), tree.files.get(path)?.bytes];
		return have === undefined || want === undefined ? have === want : have.equals(want);
	};
	if (open.kind === "rename") {
		const whole = [acknowledged, attempted].some((tree) => is(tree, open.path) && is(tree, open.to));
		assert.ok(whole, `${about}: neither as before nor as afterwards`);
	} else if (open.kind === "mkdir") return;
	else if (open.kind === "save" && !open.careful) {
		// In place: cut to nothing, then written from the front.
		const [have, old, next] = [at(open.path), acknowledged.files.get(open.path)?.bytes, attempted.files.get(open.path)?.bytes as Buffer];
		const started = have?.equals(next.subarray(0, have.length)) ?? false;
		assert.ok(started || (have === undefined ? old === undefined : old?.equals(have)), about);
	} else if (open.kind === "write" || open.kind === "append" || open.kind === "copy" || open.kind === "zero") {
		assertMixed(
			at(open.path) ?? Buffer.alloc(0),
			acknowledged.files.get(open.path)?.bytes as Buffer,
			attempted.files.get(open.path)?.bytes as Buffer,
			about,
		);
	} else assert.ok(is(acknowledged, open.path) || is(attempted, open.path), `${about}: neither as before nor as afterwards`);
}

/** Each byte is the old one or the new one, and the size is one of the two or between. */
function assertMixed(have: Buffer, old: Buffer, next: Buffer, message: string): void {
	assert.ok(
		have.length >= Math.min(old.length, next.length) && have.length <= Math.max(old.length, next.length),
		`${message}: ${have.length} bytes`,
	);
	for (let i = 0; i < have.length; i++) {
		if (have[i] !== next[i] && have[i] !== (old[i] ?? 0)) assert.fail(`${message}: byte ${i} is neither old nor new`);
	}
}

function assertSeen(folder: string, seen: Seen, message: string): void {
	const { files } = walk(folder);
	assert.deepEqual([...files].sort(), [...seen.keys()].sort(), `${message}: names in ${folder}`);
	for (const path of files)
		assert.equal(sum(readFileSync(join(folder, path))), seen.get(path), `${message}: ${folder}/${path} changed after it was checked`);
}

function forgetOldest(kept: Map<string, Seen>): void {
	for (const folder of kept.keys()) {
		if (kept.size <= keptRounds * writers) return;
		rmSync(folder, { recursive: true });
		kept.delete(folder);
	}
}
