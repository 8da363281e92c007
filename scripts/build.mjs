/**
 * `npm run build`: kernels to WebAssembly, TypeScript to dist/. Quiet unless something is wrong.
 *
 * What is compiled replaces what is in dist/ file by file, and only where it differs: programs that run from there meanwhile (tests, a daemon that starts a successor) never see half a file.
 */
import { chmod, mkdir, readdir, readFile, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { buildKernels } from "./kernels.mjs";
import { execute, root, walk } from "./tools.mjs";

const dist = join(root, "dist");
/** As deep as dist/: source maps name their sources from there. */
const fresh = join(root, `.dist-${process.pid}`);

function isAlive(pid) {
	try {
		process.kill(pid, 0);
		return true;
	} catch (error) {
		return error.code === "EPERM";
	}
}

/** What builds that were killed have left. */
async function removeStale() {
	for (const name of await readdir(root)) {
		const pid = /^\.dist-(\d+)$/.exec(name)?.[1];
		if (pid !== undefined && !isAlive(Number(pid))) await rm(join(root, name), { recursive: true });
	}
}

async function isSame(a, b) {
	const [one, other] = await Promise.all([readFile(a), readFile(b).catch(() => undefined)]);
	return other !== undefined && one.equals(other);
}

/** What was compiled from a source that is gone would still be run by the tests. */
async function replace() {
	const made = new Set(await walk(fresh));
	for (const file of made) {
		if (await isSame(join(fresh, file), join(dist, file))) continue;
		await mkdir(dirname(join(dist, file)), { recursive: true });
		await rename(join(fresh, file), join(dist, file));
	}
	for (const file of await walk(dist)) if (/\.js(\.map)?$/.test(file) && !made.has(file)) await rm(join(dist, file), { force: true });
}

try {
	await removeStale();
	await buildKernels();
	await execute(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-p", root, "--outDir", fresh]);
	await replace();
	await chmod(join(dist, "src/cli/main.js"), 0o755);
} catch (error) {
	console.error(error.message);
	process.exitCode = 1;
} finally {
	await rm(fresh, { recursive: true, force: true });
}
