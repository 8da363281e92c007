/** A directory of 100,000 entries (CAIRN_ENTRIES says another number) through a real mount: made, listed while it changes, looked up, found again after a remount, removed. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { join } from "node:path";
import { cannotMount, must, TestVolume } from "../support/cairn.ts";

const entries = Number(process.env["CAIRN_ENTRIES"] ?? 100_000);
const minutes = 60_000;
let volume: TestVolume | undefined;
after(() => volume?.close());

/** Runs in the directory, in a process of its own. */
async function inside(folder: string, script: string): Promise<string> {
	const prelude = `const fs = require("node:fs"); const assert = require("node:assert/strict"); const n = ${entries}; process.chdir(process.argv[1]);`;
	return (await must(process.execPath, ["-e", prelude + script, folder], { timeoutMs: 60 * minutes })).trim();
}

test(`a directory of ${entries} entries`, { skip: cannotMount() ?? false }, async (t) => {
	volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
	const folder = join(volume.mountpoint, "large");
	const timed = async (what: string, script: string): Promise<void> => {
		const start = performance.now();
		const said = await inside(folder, script);
		t.diagnostic(`${what}: ${((performance.now() - start) / 1000).toFixed(1)} s ${said}`);
	};
	await must("mkdir", [folder]);
	await timed("create", `for (let i = 0; i < n; i++) fs.closeSync(fs.openSync("entry" + i, "wx"));`);
	await timed("list", `const names = fs.readdirSync("."); assert.equal(names.length, n); assert.equal(new Set(names).size, n);`);
	await timed("stat", `for (let i = 0; i < n; i++) assert.equal(fs.statSync("entry" + i).size, 0);`);
	await timed("absent", `for (let i = 0; i < 1000; i++) assert.equal(fs.existsSync("none" + i), false);`);
	// While somebody reads, a third goes, a third is renamed, as many come: what stays is shown exactly once, what is shown was there.
	await timed(
		"list while it changes",
		`
		const dir = fs.opendirSync(".", { bufferSize: 64 });
		const seen = new Map();
		let step = 0;
		for (let entry = dir.readSync(); entry !== null; entry = dir.readSync()) {
			seen.set(entry.name, (seen.get(entry.name) ?? 0) + 1);
			if (step < Math.floor(n / 3)) {
				fs.unlinkSync("entry" + (step * 3));
				fs.renameSync("entry" + (step * 3 + 1), "renamed" + step);
				fs.closeSync(fs.openSync("new" + step, "wx"));
				step++;
			}
			assert.ok(seen.size <= 3 * n, "the listing ends");
		}
		dir.closeSync();
		for (const [name, times] of seen) assert.equal(times, 1, name);
		for (let i = 2; i < n; i += 3) assert.ok(seen.has("entry" + i), "entry" + i + " stayed and was not shown");
		console.log(seen.size + " shown, " + step + " changed each way");
	`,
	);
	const count = await inside(folder, `console.log(fs.readdirSync(".").length)`);
	await volume.remount();
	assert.equal(await inside(folder, `console.log(fs.readdirSync(".").length)`), count);
	assert.equal(
		await must("bash", ["-c", "find . -mindepth 1 -type f -size 0 | wc -l"], { cwd: folder, timeoutMs: 30 * minutes }),
		`${count}\n`,
	);
	await timed("remove", `for (const name of fs.readdirSync(".")) fs.unlinkSync(name); assert.deepEqual(fs.readdirSync("."), []);`);
	await must("rmdir", [folder]);
	const verified = await volume.verify();
	assert.deepEqual([verified.corrupt, verified.unrecoverable], [0, 0]);
});
