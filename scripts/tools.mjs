/** What the scripts share: where the repository is, running programs, setting up a fresh clone. Only Node's own modules. */
import { spawn } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Runs a program. Its output is kept and shown only when it fails, unless `show`. `allowFailure` answers the code instead of throwing. */
export function execute(program, args, { show = false, allowFailure = false, cwd = root, env = process.env } = {}) {
	return new Promise((resolve, reject) => {
		const child = spawn(program, args, { cwd, env, stdio: show ? "inherit" : ["ignore", "pipe", "pipe"] });
		let output = "";
		child.stdout?.on("data", (data) => (output += data));
		child.stderr?.on("data", (data) => (output += data));
		child.on("error", reject);
		child.on("close", (code, signal) => {
			if (code === 0 || allowFailure) resolve({ code: code ?? 1, output });
			else reject(new Error(`${program} ${args.join(" ")} ended with ${signal ?? `code ${code}`}\n${output.trimEnd()}`));
		});
	});
}

/** All files below a folder as slash-separated paths relative to it, sorted; an absent folder is empty. */
export async function walk(folder) {
	const entries = await readdir(folder, { withFileTypes: true, recursive: true }).catch(() => []);
	return entries
		.filter((entry) => entry.isFile())
		.map((entry) => relative(folder, join(entry.parentPath ?? entry.path, entry.name)))
		.sort();
}

async function lockedPackages(path) {
	try {
		return JSON.parse(await readFile(path, "utf8")).packages;
	} catch {
		return undefined;
	}
}

/** True when node_modules holds what package-lock.json asks for. Packages for other machines are optional. */
async function installed() {
	const wanted = await lockedPackages(join(root, "package-lock.json"));
	const present = await lockedPackages(join(root, "node_modules/.package-lock.json"));
	if (!wanted || !present) return false;
	return Object.entries(wanted).every(([path, entry]) => path === "" || entry.optional || present[path]?.version === entry.version);
}

/** Installs the packages of a fresh clone (or one whose lock file changed). */
export async function ensureInstalled(say = console.log) {
	if (await installed()) return;
	say("installing packages (npm ci)");
	const npm = process.env.npm_execpath?.endsWith(".js") ? [process.execPath, process.env.npm_execpath] : ["npm"];
	await execute(npm[0], [...npm.slice(1), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
}

export async function ensureBuilt() {
	await execute(process.execPath, [join(root, "scripts/build.mjs")]);
}
