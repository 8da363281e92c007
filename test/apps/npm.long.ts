/**
 * `npm ci` on a mount: this project's own lock file, whose native parts must load from there, and a large application of some hundred packages. The trees are compared with what npm makes
 * elsewhere, before and after a remount, and removed by npm itself.
 */
import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { assertSameFiles, cannotMount, execute, fingerprint, missingPrograms, must, TestVolume } from "../support/cairn.ts";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const minutes = 60_000;
const quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"];

/** Depended on by exact version, so that a lock file is the same every day but for what these ask for. */
const application = {
	name: "large",
	version: "1.0.0",
	private: true,
	dependencies: {
		webpack: "5.99.9",
		"webpack-cli": "6.0.1",
		eslint: "9.28.0",
		jest: "29.7.0",
		express: "5.1.0",
		rollup: "4.41.1",
		lodash: "4.17.21",
	},
};

async function reasonToSkip(): Promise<string | undefined> {
	const missing = cannotMount() ?? missingPrograms("npm");
	if (missing !== undefined) return missing;
	return (await execute("npm", ["view", "lodash@4.17.21", "version"], { timeoutMs: 2 * minutes })).code === 0
		? undefined
		: "no registry can be reached";
}

const reason = await reasonToSkip();

describe("npm", { skip: reason ?? false }, () => {
	let volume: TestVolume | undefined;
	after(() => volume?.close());

	test("npm ci of this project and of a large one", async (t) => {
		volume = await TestVolume.start({ disks: 6, redundancy: "rs:4+2" });
		const [inside, beside] = [join(volume.mountpoint, "npm"), join(volume.base, "npm")];
		const cache = `--cache=${join(volume.base, "cache")}`;
		const npm = (folder: string, ...words: readonly string[]): Promise<string> =>
			must("npm", [...words, cache, ...quiet], { cwd: folder, timeoutMs: 30 * minutes });
		for (const where of [beside, inside]) {
			for (const project of ["own", "large"]) mkdirSync(join(where, project), { recursive: true });
			for (const file of ["package.json", "package-lock.json"]) copyFileSync(join(root, file), join(where, "own", file));
			writeFileSync(join(where, "large/package.json"), JSON.stringify(application));
		}
		await npm(join(beside, "large"), "install", "--package-lock-only");
		copyFileSync(join(beside, "large/package-lock.json"), join(inside, "large/package-lock.json"));
		for (const project of ["own", "large"]) {
			for (const where of [beside, inside]) {
				const start = performance.now();
				await npm(join(where, project), "ci");
				t.diagnostic(
					`npm ci, ${project}, ${where === inside ? "on the mount" : "elsewhere"}: ${((performance.now() - start) / 1000).toFixed(1)} s`,
				);
			}
			const expected = await fingerprint(join(beside, project));
			t.diagnostic(`${project}: ${expected.length} files`);
			assert.ok(expected.length > 500);
			assertSameFiles(await fingerprint(join(inside, project)), expected, project);
			assert.deepEqual(JSON.parse(await npm(join(inside, project), "ls", "--all", "--json")).problems ?? [], []);
		}
		await volume.remount();
		for (const project of ["own", "large"])
			assertSameFiles(await fingerprint(join(inside, project)), await fingerprint(join(beside, project)), `${project}, remounted`);
		const load =
			"const c = require('@node-rs/crc32'); if (c.crc32c('123456789') !== 0xe3069283) throw new Error('crc32c'); require('koffi').load('libc.so.6');";
		await must(process.execPath, ["-e", load], { cwd: join(inside, "own") });
		await must(process.execPath, ["node_modules/.bin/tsc", "--version"], { cwd: join(inside, "own") });
		await npm(join(inside, "large"), "ci");
		await npm(join(inside, "large"), "uninstall", "jest", "webpack-cli");
		await npm(join(inside, "large"), "install", "jest@29.7.0", "webpack-cli@6.0.1", "--save-exact");
		assertSameFiles(
			(await fingerprint(join(inside, "large/node_modules"))).filter((line) => !line.includes(".package-lock.json")),
			(await fingerprint(join(beside, "large/node_modules"))).filter((line) => !line.includes(".package-lock.json")),
			"taken away and put back",
		);
		await must("rm", ["-rf", inside], { timeoutMs: 10 * minutes });
	});
});
