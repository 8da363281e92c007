/**
 * The house rules that a machine can check: floors, banned calls, module state, READMEs, sync sites, dead files, names that have
 * no place here. Each rule is a function over sources, and each is first shown a violation that it must find.
 */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, posix, relative } from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";

interface Source {
	/** Slash-separated, from the root of the repository. */
	readonly path: string;
	readonly text: string;
}

// ── the tree ─────────────────────────────────────────────────────────────────────────────────────────────────────

function isRoot(folder: string): boolean {
	const manifest = join(folder, "package.json");
	return existsSync(manifest) && existsSync(join(folder, "tsconfig.json")) && JSON.parse(readFileSync(manifest, "utf8")).name === "cairnfs";
}

function findRoot(): string {
	for (let folder = dirname(fileURLToPath(import.meta.url)); folder !== dirname(folder); folder = dirname(folder)) {
		if (isRoot(folder)) return folder;
	}
	assert.ok(isRoot(process.cwd()), "run this test from the root of the repository");
	return process.cwd();
}

const root = findRoot();

function walk(folder: string, accept: (name: string) => boolean): Source[] {
	return readdirSync(join(root, folder), { withFileTypes: true, recursive: true })
		.filter((entry) => entry.isFile() && accept(entry.name))
		.map((entry) => join(entry.parentPath, entry.name))
		.sort()
		.map((path) => ({ path: relative(root, path), text: readFileSync(path, "utf8") }));
}

const isTest = (path: string) => path.startsWith("test/") || /\.(test|long|test-support)\.ts$|\/test\//.test(path);
const typescript = (name: string) => name.endsWith(".ts") && !name.endsWith(".as.ts");
const sources = [...walk("src", typescript), ...walk("test", typescript)];

/** The text without comments, and with string contents blanked when `blank`: what looks like code there is none. */
function bare(text: string, blank: boolean): string {
	const token =
		/\/\/[^\n]*|\/\*[\s\S]*?\*\/|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|\/(?![*/])(?:[^/\\\n[]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/[dgimsuvy]*(?=\s*[.,;)\]])/g;
	return text.replaceAll(token, (match) => {
		if (match.startsWith("//") || match.startsWith("/*")) return match.replaceAll(/[^\n]/g, " ");
		return blank ? `${match[0]}${" ".repeat(match.length - 2)}${match.at(-1)}` : match;
	});
}

// ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Lowest first; floors of one row are siblings. */
const floors: readonly (readonly string[])[] = [
	["base"],
	["kernels"],
	["codec"],
	["platform"],
	["log"],
	["kv"],
	["records"],
	["namespace", "storage"],
	["locks"],
	["volume"],
	["doors"],
	["daemon"],
	["cli"],
];

const rankOf = (floor: string) => floors.findIndex((row) => row.includes(floor));
const floorOf = (path: string) => path.split("/")[1] as string;
const abovePlatform = (path: string) => rankOf(floorOf(path)) > rankOf("platform");

/** Repository-relative paths of the modules that a source names, workers included. */
function importsOf(source: Source): string[] {
	const text = bare(source.text, false);
	const found = text.matchAll(/(?:\bfrom\s*|\bimport\s*\(?\s*|new URL\(\s*(?=[^)]*import\.meta\.url))"((?:\.{1,2}\/)?[\w./-]+\.[jt]s)"/g);
	const workers = [...text.matchAll(/\b(?:siblingUrl\("|new URL\(`\.\/)([\w-]+)(?:"\)|\$\{)/g)].map(([, name]) => `./${name}.ts`);
	const paths = [...[...found].map(([, path]) => path as string), ...workers];
	return paths.map((path) => posix.join(posix.dirname(source.path), path).replace(/\.js$/, ".ts"));
}

/** Where Node starts. */
const entryPoints = ["src/cli/main.ts", "src/daemon/main.ts", "src/daemon/keeper.ts"];

/** Everything that these files import, directly or not, themselves included. */
function reachable(from: readonly string[], all: readonly Source[]): Set<string> {
	const byPath = new Map(all.map((source) => [source.path, source]));
	const found = new Set<string>();
	const open = [...from];
	for (let path = open.pop(); path !== undefined; path = open.pop()) {
		const source = byPath.get(path);
		if (found.has(path) || !source) continue;
		found.add(path);
		open.push(...importsOf(source));
	}
	return found;
}

/** What the product needs, and whatever is in src/ and does not show by its own imports that it only helps tests. */
function productOf(all: readonly Source[]): Source[] {
	const used = reachable(entryPoints, all);
	const helpsTests = (source: Source) =>
		isTest(source.path) ||
		/from "node:(assert|test)/.test(source.text) ||
		importsOf(source).some(
			(target) => isTest(target) || (target.startsWith("src/platform/sim/") && !source.path.startsWith("src/platform/sim/")),
		);
	return all.filter((source) => source.path.startsWith("src/") && (used.has(source.path) || !helpsTests(source)));
}

function floorViolations(all: readonly Source[]): string[] {
	const found: string[] = [];
	for (const source of all) {
		const from = floorOf(source.path);
		if (rankOf(from) < 0) found.push(`${source.path}: no floor is called ${from}`);
		for (const target of importsOf(source)) {
			const wrong = !target.startsWith("src/") ? "leaves src/" : forbidden(source.path, target);
			if (wrong) found.push(`${source.path} imports ${target}: ${wrong}`);
		}
	}
	return found;
}

function forbidden(path: string, target: string): string | undefined {
	const [from, to] = [floorOf(path), floorOf(target)];
	if (isTest(target)) return "a test";
	if (from !== to) {
		if (rankOf(to) === rankOf(from)) return "siblings do not import each other";
		if (rankOf(to) > rankOf(from)) return "imports point down only";
	}
	if (to === "kernels" && from !== "codec") return "only codec loads kernels";
	if (from !== "doors" && to === "doors" && from !== "daemon") return "only the daemon builds doors";
	const realOrSimulated = /^src\/platform\/(real|sim)\//.exec(target)?.[1];
	const inside = path.startsWith(`src/platform/${realOrSimulated}/`);
	if (realOrSimulated === "sim" && !inside) return "the simulated platform is for tests";
	if (realOrSimulated === "real" && !inside && from !== "daemon" && from !== "cli") return "the platform is an argument";
	if (from !== "doors") return undefined;
	if (to === "doors" && path.split("/")[2] !== target.split("/")[2]) return "doors do not import each other";
	const allowed = ["doors", "codec", "base"].includes(to) || /^src\/(volume|platform)\/interface\.ts$/.test(target);
	return allowed ? undefined : "a door knows the volume's and the platform's interface, codec and base";
}

const bannedCalls: readonly (readonly [RegExp, string])[] = [
	[/\bDate\b/, "Date"],
	[/\bperformance\b/, "performance"],
	[/\bMath\.(random|pow|sin|cos|tan|asin|acos|atan2?|sinh|cosh|tanh|hypot|cbrt)\b/, "Math"],
	[/\b(setTimeout|setInterval|setImmediate)\b/, "timers"],
	[/\bcrypto\.(getRandomValues|randomUUID)\b/, "randomness"],
	[/\bnew (Worker|SharedWorker)\b/, "workers"],
	[/\bglobalThis\b/, "globalThis"],
];
const bannedOutside: readonly (readonly [RegExp, string])[] = [
	[/\bprocess\s*[.[]/, "process"],
	[/\bconsole\s*\./, "console"],
	[/\bBuffer\b/, "Buffer"],
];

/** Entry points keep their process alive while a promise is pending. */
const keepsAlive = (path: string, what: string) => what === "timers" && /^src\/((cli|daemon)\/main|daemon\/keeper)\.ts$/.test(path);

/** The command and the daemon's entry point build the platform: they may touch what is outside. */
const touchesOutside = (path: string) => path.startsWith("src/cli/") || /^src\/daemon\/(main|keeper)\.ts$/.test(path);

function bannedCallViolations(all: readonly Source[]): string[] {
	const found: string[] = [];
	for (const { path, text } of all.filter((source) => abovePlatform(source.path))) {
		const rules = touchesOutside(path) ? bannedCalls : [...bannedCalls, ...bannedOutside];
		const code = bare(text, true);
		for (const [pattern, what] of rules)
			if (pattern.test(code) && !keepsAlive(path, what)) found.push(`${path} uses ${what}: it comes from the Platform`);
		const builtin = /(?:\bfrom|\bimport\s*\(?|\brequire\s*\()\s*"(node:[^"]+)"/.exec(bare(text, false));
		if (builtin && !touchesOutside(path)) found.push(`${path} imports ${builtin[1]}: it comes from the Platform`);
	}
	return found;
}

function moduleStateViolations(all: readonly Source[]): string[] {
	const found: string[] = [];
	for (const { path, text } of all.filter((source) => abovePlatform(source.path))) {
		const code = bare(text, true);
		const variable = /^(?:export )?(?:let|var) (\w+)/m.exec(code);
		const container =
			/^(?:export )?const (\w+)(?![^=\n]*\b(?:readonly|Readonly(?:Map|Set))\b)[^=\n]*= (?:new (?:Map|Set|WeakMap|WeakSet|LruCache)\b[^(\n]*\(\s*\)|\[\]|\{\});/m.exec(
				code,
			);
		for (const match of [variable, container]) {
			if (match) found.push(`${path}: ${match[1]} is state of the module; it belongs to an object that somebody makes`);
		}
	}
	return found;
}

/** A sync call in a wrapper passes its caller's site on; everywhere else the site is a literal. */
function syncSiteViolations(all: readonly Source[]): string[] {
	const found: string[] = [];
	const seen = new Map<string, string>();
	for (const { path, text } of all) {
		const calls = bare(text, false).matchAll(/\.(sync|syncNames)\(([^()]*(?:\([^()]*\)[^()]*)*)\)/g);
		for (const [, verb, written] of calls) {
			const site = /"([^"]*)"\s*,?\s*$/.exec(written as string)?.[1];
			// Without any argument it is no call of a disk: those do not compile without a site.
			if (written?.trim() === "") continue;
			if (site === undefined) {
				const passedOn = path.startsWith("src/platform/") || /\bsite\w*\s*,?\s*$/i.test(written as string);
				if (!passedOn) found.push(`${path}: ${verb}(${written}) names no site`);
				continue;
			}
			if (!/^[a-z]+\.[a-z0-9-]+$/.test(site)) found.push(`${path}: site "${site}" is not of the form floor.what`);
			const other = seen.get(site);
			if (other !== undefined) found.push(`${path}: site "${site}" is also in ${other}`);
			seen.set(site, path);
		}
	}
	return found;
}

function readmeViolations(all: readonly Source[], exists: (path: string) => boolean): string[] {
	const folders = new Set<string>();
	for (const { path } of all.filter((source) => source.path.startsWith("src/"))) {
		const parts = path.split("/");
		folders.add(parts.slice(0, parts[1] === "doors" ? 3 : 2).join("/"));
	}
	return [...folders].filter((folder) => !exists(`${folder}/README.md`)).map((folder) => `${folder} has no README.md`);
}

/** Neither the product nor a test needs it, and it is no contract. */
function deadFiles(all: readonly Source[]): string[] {
	const tests = all.map((source) => source.path).filter((path) => /\.(test|long)\.ts$/.test(path));
	const used = reachable([...entryPoints, ...tests], all);
	const contract = (path: string) => /^src\/[a-z]+(\/[a-z]+)?\/interface\.ts$/.test(path);
	return all
		.map((source) => source.path)
		.filter((path) => !used.has(path) && !contract(path))
		.map((path) => `${path} is used by nobody`);
}

/** Put together here, so that this file does not contain them. */
const foreignNames = [
	["/wo", "rk/main"],
	["/wo", "rk/shared"],
	["/tmp/br", "ief"],
	["/tmp/", "out-"],
].map((parts) => parts.join(""));

function foreignNameViolations(all: readonly Source[]): string[] {
	return all.flatMap(({ path, text }) => foreignNames.filter((name) => text.includes(name)).map((name) => `${path} mentions ${name}`));
}

// ── the tests ────────────────────────────────────────────────────────────────────────────────────────────────────

const none: string[] = [];
const one = (path: string, text: string): Source[] => [{ path, text }];

function finds(rule: (all: readonly Source[]) => string[], path: string, text: string, expected: RegExp): void {
	const found = rule(one(path, text));
	assert.ok(found.length === 1 && expected.test(found[0] as string), `${path}: ${text}\nfound: ${JSON.stringify(found)}`);
}

const passes = (rule: (all: readonly Source[]) => string[], path: string, text: string) => assert.deepEqual(rule(one(path, text)), none);

describe("the rules find what they are there for", () => {
	test("floors", () => {
		finds(floorViolations, "src/kv/x.ts", 'import { a } from "../records/x.ts";', /point down only/);
		finds(floorViolations, "src/storage/x.ts", 'import type { A } from "../namespace/x.ts";', /siblings/);
		finds(floorViolations, "src/log/x.ts", 'import { a } from "../platform/sim/x.ts";', /for tests/);
		finds(floorViolations, "src/log/x.ts", 'export { a } from "../platform/real/x.ts";', /is an argument/);
		finds(floorViolations, "src/doors/fuse/x.ts", 'import { a } from "../../volume/native/x.ts";', /a door knows/);
		finds(floorViolations, "src/doors/fuse/x.ts", 'const a = await import("../nfs/x.ts");', /doors do not/);
		finds(floorViolations, "src/log/x.ts", 'import { a } from "./x.test.ts";', /a test/);
		finds(floorViolations, "src/log/x.ts", 'import { a } from "../kernels/x.ts";', /only codec/);
		finds(floorViolations, "src/log/x.ts", 'import { a } from "../../test/x.ts";', /leaves src/);
		finds(floorViolations, "src/other/x.ts", "", /no floor/);
		passes(floorViolations, "src/volume/native/x.ts", 'import { a } from "../../storage/x.ts";\n// from "../../doors/x.ts"');
		passes(floorViolations, "src/daemon/x.ts", 'import { a } from "../platform/real/x.ts";');
	});

	test("banned calls", () => {
		for (const [code, what] of [
			["const t = Date.now();", /Date/],
			["Math.random();", /Math/],
			["x = Math.pow(2, 3);", /Math/],
			["setTimeout(fn, 1);", /timers/],
			["process.exit(1);", /process/],
			['import { a } from "node:fs";', /node:fs/],
			['import { Worker } from "node:worker_threads";', /node:worker_threads/],
		] as const) {
			finds(bannedCallViolations, "src/kv/x.ts", code, what);
			passes(bannedCallViolations, "src/platform/real/x.ts", code);
		}
		passes(bannedCallViolations, "src/kv/x.ts", '// Date.now()\nconst a = "setTimeout(";\n/* Math.random() */ const b = updateDate;');
		passes(bannedCallViolations, "src/cli/x.ts", "process.exit(1);");
		finds(bannedCallViolations, "src/cli/x.ts", "Math.random();", /Math/);
	});

	test("state of a module", () => {
		finds(moduleStateViolations, "src/kv/x.ts", "let counter = 0;", /counter/);
		finds(moduleStateViolations, "src/kv/x.ts", "export const cache = new Map<string, number>();", /cache/);
		finds(moduleStateViolations, "src/kv/x.ts", "const queue: number[] = [];", /queue/);
		passes(moduleStateViolations, "src/kv/x.ts", "const none: readonly string[] = [];");
		passes(moduleStateViolations, "src/kv/x.ts", "const table = new Map([[1, 2]]);\nfunction f() {\n\tlet x = 0;\n\treturn x;\n}");
	});

	test("sync sites", () => {
		finds(syncSiteViolations, "src/log/x.ts", 'await file.sync("log.a"); await other.sync("log.a");', /also in/);
		finds(syncSiteViolations, "src/log/x.ts", "await file.sync(name);", /names no site/);
		finds(syncSiteViolations, "src/log/x.ts", 'await disk.syncNames("", "Log");', /not of the form/);
		passes(syncSiteViolations, "src/log/x.ts", 'await file.sync("log.a"); await disk.syncNames(folder(x), "log.b"); f.sync(site);');
	});

	test("READMEs, dead files, names", () => {
		assert.deepEqual(
			readmeViolations(one("src/doors/nfs/x.ts", ""), () => false),
			["src/doors/nfs has no README.md"],
		);
		assert.deepEqual(
			readmeViolations(one("src/log/x.ts", ""), (path) => path === "src/log/README.md"),
			none,
		);
		finds(deadFiles, "src/log/x.ts", "", /used by nobody/);
		passes(deadFiles, "src/log/interface.ts", "");
		finds(foreignNameViolations, "src/log/x.ts", `// see ${foreignNames[0]}`, /mentions/);
	});
});

const product = productOf(sources);

describe("the repository keeps the rules", () => {
	test("imports point down", () => assert.deepEqual(floorViolations(product), none));
	test("nothing above the platform touches the outside", () => assert.deepEqual(bannedCallViolations(product), none));
	test("no state of modules above the platform", () => assert.deepEqual(moduleStateViolations(product), none));
	test("every sync has a site of its own", () => assert.deepEqual(syncSiteViolations(product), none));
	test("every floor says what it is", () =>
		assert.deepEqual(
			readmeViolations(sources, (path) => existsSync(join(root, path))),
			none,
		));
	test("no dead files", () => assert.deepEqual(deadFiles(sources), none));
	test("nothing from elsewhere is named", () => {
		const top = readdirSync(root).filter((name) => /\.(md|json|mjs)$/.test(name) && name !== "package-lock.json");
		const others = ["docs", "scripts", "bench", "lab", "src"].flatMap((folder) => walk(folder, (name) => !name.endsWith(".ts")));
		const texts = [...sources, ...others, ...top.map((path) => ({ path, text: readFileSync(join(root, path), "utf8") }))];
		assert.deepEqual(foreignNameViolations(texts), none);
	});
});
