/**
 * `npm run test:long [-- ] SUITE...`: the suites that take minutes to hours, `NAME.long.ts` below test/. A suite is named by its file
 * (test/crash/kill.long.ts is `kill`) or by its folder (test/apps/*.long.ts is `apps`). Without a name: all of them. `--times 50` and
 * the like reach the suites as CAIRN_TIMES=50.
 */
import { basename, join } from "node:path";
import { runTests } from "./run-tests.mjs";
import { ensureBuilt, ensureInstalled, root, walk } from "./tools.mjs";

/** A simulation or a kill suite may run over night. */
const fileTimeoutMs = 12 * 3600_000;
const ending = ".long.js";

/** Suite → files. */
function suitesOf(files) {
	const suites = new Map();
	const add = (name, file) => suites.set(name, [...(suites.get(name) ?? []), file]);
	for (const file of files) {
		const folder = file.split("/").at(-2);
		const name = basename(file, ending);
		add(name, file);
		if (folder !== name) add(folder, file);
	}
	return suites;
}

/** `--name value`, `--name=value` → CAIRN_NAME=value in the environment of the suites; the rest are names. */
function takeOptions(words) {
	const names = [];
	for (let i = 0; i < words.length; i++) {
		const option = /^--([a-z][a-z-]*)(?:=(.*))?$/.exec(words[i]);
		if (!option) names.push(words[i]);
		else process.env[`CAIRN_${option[1].replaceAll("-", "_").toUpperCase()}`] = option[2] ?? words[++i] ?? "1";
	}
	return names;
}

try {
	await ensureInstalled();
	await ensureBuilt();
	const files = (await walk(join(root, "dist/test"))).filter((file) => file.endsWith(ending));
	const suites = suitesOf(files);
	const names = takeOptions(process.argv.slice(2));
	const unknown = names.filter((name) => !suites.has(name));
	if (unknown.length > 0) {
		console.error(`no suite ${unknown.join(", ")}; there are: ${[...suites.keys()].sort().join(" ") || "none"}`);
		process.exitCode = 2;
	} else {
		const chosen = names.length === 0 ? files : [...new Set(names.flatMap((name) => suites.get(name)))];
		process.exitCode = await runTests(
			chosen.map((file) => join(root, "dist/test", file)),
			{ concurrency: 1, fileTimeoutMs, showDiagnostics: true },
		);
	}
} catch (error) {
	console.error(error.message);
	console.log("0 passed, 1 failed, 0 skipped");
	process.exitCode = 1;
}
