/** `cairn bench` as a person uses it, on directories of this machine. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { benchRows } from "./bench-rows.ts";

const folder = mkdtempSync(join(tmpdir(), "cairn-bench-test-"));
const script = fileURLToPath(new URL("./main.js", import.meta.url));
after(() => rmSync(folder, { recursive: true, force: true }));

interface Ended {
	readonly code: number | null;
	readonly signal: NodeJS.Signals | null;
	readonly out: string;
	readonly err: string;
}

function start(
	words: readonly string[],
	onNote: (text: string, kill: (signal: NodeJS.Signals) => void) => void = () => {},
): Promise<Ended> {
	return new Promise((resolve, reject) => {
		const child = spawn(process.execPath, [script, "bench", ...words], { env: { ...process.env, CAIRN_HOME: join(folder, "home") } });
		let out = "";
		let err = "";
		child.stdout.setEncoding("utf8").on("data", (text: string) => (out += text));
		child.stderr.setEncoding("utf8").on("data", (text: string) => {
			err += text;
			onNote(err, (signal) => child.kill(signal));
		});
		child.once("error", reject);
		child.once("close", (code, signal) => resolve({ code, signal, out, err }));
	});
}

function place(name: string): string {
	const path = join(folder, name);
	mkdirSync(path);
	return path;
}

const small = ["--files", "40", "--mib", "2"];

describe("cairn bench", () => {
	test("measures every row, says what it includes, and leaves nothing behind", async () => {
		const one = place("one");
		const { code, out, err } = await start([one, ...small, "--clients", "2", "--json"]);
		assert.equal(code, 0, err);
		const { directory, other, clients, rows } = JSON.parse(out);
		assert.deepEqual([directory.path, other, clients], [one, null, 2]);
		assert.deepEqual(
			rows.map(({ group, name }: { group: string; name: string }) => `${group} ${name}`),
			benchRows.map(({ group, name }) => `${group} ${name}`),
		);
		for (const { value, includes } of rows) assert(value > 0 && includes !== "", JSON.stringify(rows));
		assert.deepEqual(readdirSync(one), []);
	});

	test("two directories, some groups, as a table", async () => {
		const [left, right] = [place("left"), place("right")];
		const { code, out, err } = await start([left, right, ...small, "--only", "files", "sync"]);
		assert.equal(code, 0, err);
		assert.match(out, /RATIO/);
		assert.match(out, /^files +create +[\d.,]+ +[\d.,]+ +files\/s +[\d.]+ +opened/m);
		assert.match(out, /^sync +append/m);
		assert.doesNotMatch(out, /^tree/m);
		assert.match(err, /measuring sync: append/);
		assert.deepEqual([...readdirSync(left), ...readdirSync(right)], []);
	});

	test("wrong arguments are refused before anything is written", async () => {
		const here = place("here");
		const refused = async (expected: number, message: RegExp, ...words: string[]): Promise<void> => {
			const { code, err } = await start(words);
			assert.equal(code, expected, err);
			assert.match(err, message);
		};
		await refused(3, /nowhere does not exist/, join(folder, "nowhere"));
		await refused(4, /not a directory/, script);
		await refused(2, /--files must be a whole number/, here, "--files", "many");
		await refused(2, /--only knows files/, here, "--only", "colours");
		await refused(1, /are needed: make it smaller with --mib/, here, "--mib", String(1 << 20), "--clients", "64");
		await refused(2, /directory/);
		assert.deepEqual(readdirSync(here), []);
	});

	test("a signal ends it, and what it made is removed", async () => {
		const here = place("stopped");
		const { signal, err } = await start([here, "--files", "200000", "--only", "files"], (text, kill) => {
			if (text.includes("measuring files: create")) kill("SIGINT");
		});
		assert.equal(signal, "SIGINT", err);
		assert.deepEqual(readdirSync(here), []);
	});
});
