/** Compiles src/kernels/NAME.as.ts to WebAssembly and writes it, as base64, into the committed module src/kernels/NAME.wasm.ts. */
import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execute, root } from "./tools.mjs";

const flags = [
	"-O3",
	"--noAssert",
	"--runtime",
	"stub",
	"--enable",
	"simd",
	"--use",
	"abort=",
	"--initialMemory",
	"6",
	"--maximumMemory",
	"6",
];

async function fingerprint(source) {
	const { version } = JSON.parse(await readFile(join(root, "node_modules/assemblyscript/package.json"), "utf8"));
	return createHash("sha256")
		.update(source)
		.update(`\nasc ${version} ${flags.join(" ")}`)
		.digest("hex");
}

async function compile(path) {
	const folder = await mkdtemp(join(tmpdir(), "cairn-asc-"));
	try {
		const target = join(folder, "kernel.wasm");
		await execute(process.execPath, [join(root, "node_modules/assemblyscript/bin/asc.js"), path, "-o", target, ...flags]);
		return await readFile(target);
	} finally {
		await rm(folder, { recursive: true, force: true });
	}
}

function moduleText(name, wasm, print) {
	const base64 = wasm.toString("base64");
	const lines = [];
	for (let i = 0; i < base64.length; i += 120) lines.push(`\t"${base64.slice(i, i + 120)}",`);
	return [
		`/** Generated from ${name}.as.ts by scripts/build.mjs. Do not edit. Fingerprint ${print}. */`,
		"",
		`/** WebAssembly in base64, ${wasm.length} bytes. */`,
		`export const ${name}Wasm = [`,
		...lines,
		'].join("");',
		"",
	].join("\n");
}

/** Brings the generated modules up to date; with `verify` compiles in any case and names those whose committed text differs. */
export async function buildKernels({ verify = false } = {}) {
	const folder = join(root, "src/kernels");
	const stale = [];
	for (const file of await readdir(folder)) {
		if (!file.endsWith(".as.ts")) continue;
		const name = file.slice(0, -".as.ts".length);
		const path = join(folder, file);
		const generated = join(folder, `${name}.wasm.ts`);
		const print = await fingerprint(await readFile(path));
		const existing = await readFile(generated, "utf8").catch(() => "");
		if (!verify && existing.includes(`Fingerprint ${print}.`)) continue;
		const text = moduleText(name, await compile(path), print);
		if (verify ? text !== existing : true) stale.push(`src/kernels/${name}.wasm.ts`);
		if (!verify) await writeFile(generated, text);
	}
	return stale;
}
