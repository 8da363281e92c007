/** `npm run build`: kernels to WebAssembly, TypeScript to dist/. Quiet unless something is wrong. */
import { chmod, rm } from "node:fs/promises";
import { join } from "node:path";
import { buildKernels } from "./kernels.mjs";
import { execute, root, walk } from "./tools.mjs";

/** What was compiled from a source that is gone would still be run by the tests. */
async function prune() {
	const dist = join(root, "dist");
	const sources = new Set();
	for (const folder of ["src", "test"]) for (const file of await walk(join(root, folder))) sources.add(`${folder}/${file}`);
	for (const file of await walk(dist)) {
		const source = file.replace(/\.js(\.map)?$/, ".ts");
		if (source !== file && !sources.has(source)) await rm(join(dist, file));
	}
}

try {
	await buildKernels();
	await execute(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-p", root]);
	await prune();
	await chmod(join(root, "dist/src/cli/main.js"), 0o755).catch(() => undefined);
} catch (error) {
	console.error(error.message);
	process.exitCode = 1;
}
