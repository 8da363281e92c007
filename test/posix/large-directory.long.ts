/**
 * A directory of 100,000 entries (`--entries N` says another number; a million was done) through a real mount: made, listed while it changes, looked up, found again after a remount and after
 * the daemon and its keeper were killed, removed. The daemon's memory keeps its bound. Times are printed: of the last tenth beside the first, of a clean mount, of recovery.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { join } from "node:path";
import { cannotMount, execute, must, TestVolume } from "../support/cairn.ts";
import { MemoryWatch } from "../support/memory.ts";

const entries = Number(process.env["CAIRN_ENTRIES"] ?? 100_000);
/** As many go, are renamed and come while somebody lists; so many are looked at one by one. */
const changes = Math.min(Math.floor(entries / 3), 50_000);
const sample = Math.min(entries, 100_000);
const minutes = 60_000;
let volume: TestVolume | undefined;
let watch: MemoryWatch | undefined;
after(async () => {
	watch?.stop();
	await volume?.close();
});

/** Runs in the directory, in a process of its own. `tenths(f)` calls f for each number and prints what the first and the last tenth took. */
const prelude = `
	const fs = require("node:fs");
	const assert = require("node:assert/strict");
	const n = ${entries};
	const changes = ${changes};
	process.chdir(process.argv[1]);
	function tenths(f) {
		const ms = [];
		for (let tenth = 0; tenth < 10; tenth++) {
			const start = performance.now();
			for (let i = Math.floor(n * tenth / 10); i < Math.floor(n * (tenth + 1) / 10); i++) f(i);
			ms.push(performance.now() - start);
		}
		console.log("(tenths: first " + (ms[0] / 1000).toFixed(1) + " s, last " + (ms[9] / 1000).toFixed(1) + " s)");
	}
`;

async function inside(folder: string, script: string): Promise<string> {
	return (await must(process.execPath, ["-e", prelude + script, folder], { timeoutMs: 120 * minutes })).trim();
}

test(`a directory of ${entries} entries`, { skip: cannotMount() ?? false }, async (t) => {
	volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
	watch = new MemoryWatch(volume);
	const { mountpoint } = volume;
	const folder = join(mountpoint, "large");
	const timed = async (what: string, work: () => Promise<string | void>): Promise<void> => {
		const start = performance.now();
		const said = await work().catch((error: unknown) => assert.fail(`${what}: ${String(error)}\n${volume?.log()}`));
		t.diagnostic(`${what}: ${((performance.now() - start) / 1000).toFixed(1)} s ${said ?? ""}, memory ${watch?.peak(what)}`);
	};
	const step = (what: string, script: string): Promise<void> => timed(what, () => inside(folder, script));
	await must("mkdir", [folder]);
	await step("create", `tenths((i) => fs.closeSync(fs.openSync("entry" + i, "wx")));`);
	await step("list", `const names = fs.readdirSync("."); assert.equal(names.length, n); assert.equal(new Set(names).size, n);`);
	await step("stat", `for (let i = 0; i < ${sample}; i++) assert.equal(fs.statSync("entry" + Math.floor((i * n) / ${sample})).size, 0);`);
	await step("absent", `for (let i = 0; i < 1000; i++) assert.equal(fs.existsSync("none" + i), false);`);
	// While somebody reads, some go, as many are renamed, as many come: what stays is shown exactly once, what is shown was there.
	await step(
		"list while it changes",
		`
		const dir = fs.opendirSync(".", { bufferSize: 64 });
		const seen = new Map();
		let step = 0;
		for (let entry = dir.readSync(); entry !== null; entry = dir.readSync()) {
			seen.set(entry.name, (seen.get(entry.name) ?? 0) + 1);
			if (step < changes) {
				fs.unlinkSync("entry" + (step * 3));
				fs.renameSync("entry" + (step * 3 + 1), "renamed" + step);
				fs.closeSync(fs.openSync("new" + step, "wx"));
				step++;
			}
			assert.ok(seen.size <= 3 * n, "the listing ends");
		}
		dir.closeSync();
		for (const [name, times] of seen) assert.equal(times, 1, name);
		for (let i = 0; i < n; i++) assert.ok(seen.has("entry" + i) || (i % 3 < 2 && i < 3 * changes), "entry" + i + " stayed and was not shown");
		assert.equal(step, changes);
		console.log(seen.size + " shown, " + step + " changed each way");
	`,
	);
	const count = await inside(folder, `console.log(fs.readdirSync(".").length)`);
	const stop = performance.now();
	await volume.unmount();
	t.diagnostic(`unmount: ${((performance.now() - stop) / 1000).toFixed(1)} s`);
	await timed("clean mount", () => (volume as TestVolume).mount());
	assert.equal(await inside(folder, `console.log(fs.readdirSync(".").length)`), count);
	assert.equal(
		await must("bash", ["-c", "find . -mindepth 1 -type f -size 0 | wc -l"], { cwd: folder, timeoutMs: 60 * minutes }),
		`${count}\n`,
	);
	// What was acknowledged and never synced is there after a kill.
	await step("changes before a kill", `for (let i = 0; i < 1000; i++) { fs.writeFileSync("late" + i, "late"); fs.unlinkSync("new" + i); }`);
	await (volume as TestVolume).kill();
	await execute("umount", ["-l", mountpoint]);
	await timed("mount after a kill", () => (volume as TestVolume).mount());
	await step(
		"list after a kill",
		`
		const names = new Set(fs.readdirSync("."));
		assert.equal(names.size, ${count});
		for (let i = 0; i < 1000; i++) assert.ok(names.has("late" + i) && !names.has("new" + i), "change " + i);
	`,
	);
	await step("remove", `for (const name of fs.readdirSync(".")) fs.unlinkSync(name); assert.deepEqual(fs.readdirSync("."), []);`);
	await must("rmdir", [folder]);
	const verified = await volume.verify();
	assert.deepEqual([verified.corrupt, verified.unrecoverable], [0, 0]);
});
