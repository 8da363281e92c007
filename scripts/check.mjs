/** `npm run check`: types, lint and format, house rules (test/tidy.test.ts), generated kernels. Changes nothing. */
import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildKernels } from "./kernels.mjs";
import { ensureInstalled, execute, root } from "./tools.mjs";

const node = process.execPath;

/** Types, and the rules from the very output, so that dist/ is left alone. */
async function typesAndTidy() {
	const folder = await mkdtemp(join(tmpdir(), "cairn-check-"));
	try {
		const types = await execute(node, [join(root, "node_modules/typescript/bin/tsc"), "-p", root, "--outDir", folder], {
			allowFailure: true,
		});
		report("types", types);
		await symlink(join(root, "node_modules"), join(folder, "node_modules"));
		await writeFile(join(folder, "package.json"), '{"type":"module"}');
		report("tidy", await execute(node, ["--test", "--test-reporter=spec", join(folder, "test/tidy.test.js")], { allowFailure: true }));
	} finally {
		await rm(folder, { recursive: true, force: true });
	}
}

async function lint() {
	const biome = join(root, "node_modules/@biomejs/biome/bin/biome");
	report(
		"lint and format",
		await execute(node, [biome, "check", "--error-on-warnings", "--max-diagnostics=60", "."], { allowFailure: true }),
	);
}

async function kernels() {
	const stale = await buildKernels({ verify: true });
	const output = `not what their sources compile to (run \`npm run build\` and commit): ${stale.join(", ")}`;
	report("kernels", { code: stale.length === 0 ? 0 : 1, output });
}

function report(name, { code, output }) {
	if (code === 0) return console.log(`ok      ${name}`);
	console.log(`FAILED  ${name}\n${output.trimEnd().replaceAll(/^/gm, "        ")}`);
	process.exitCode = 1;
}

try {
	await ensureInstalled();
	await Promise.all([typesAndTidy(), lint(), kernels()]);
} catch (error) {
	console.error(error.message);
	process.exitCode = 1;
}
