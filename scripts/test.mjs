/** `npm test`: sets a fresh clone up, builds, runs every test. Needs Node and npm only; what needs root or FUSE skips itself. */
import { join } from "node:path";
import { runTests } from "./run-tests.mjs";
import { ensureBuilt, ensureInstalled, root, walk } from "./tools.mjs";

/** Longer than any test may take on a slow machine; a file that hangs fails instead of stopping the run. */
const fileTimeoutMs = 10 * 60_000;

try {
	await ensureInstalled();
	await ensureBuilt();
	const wanted = process.argv.slice(2);
	const all = (await walk(join(root, "dist"))).filter((file) => file.endsWith(".test.js"));
	const files = all.filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)));
	if (wanted.length > 0 && files.length === 0) throw new Error(`no test file matches ${wanted.join(" ")}`);
	process.exitCode = await runTests(
		files.map((file) => join(root, "dist", file)),
		{ concurrency: 2, fileTimeoutMs },
	);
} catch (error) {
	console.error(error.message);
	console.log("0 passed, 1 failed, 0 skipped");
	process.exitCode = 1;
}
