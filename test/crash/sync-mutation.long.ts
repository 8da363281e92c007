/**
 * Turns every sync call of the source off, one at a time: a test must then fail, or the sync is either superfluous or untested. `npm run test:long sync-mutation`.
 *
 * Most are noticed by a whole volume's scripted life under power cuts. What a life masks (a name that another sync of the same folder makes durable as well, for instance) is shown by
 * the floor's own suite, which turns it off with nothing else around it.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { describe, play, type Run } from "./power-cut.ts";

const dist = fileURLToPath(new URL("../../", import.meta.url));
const source = join(dist, "../src");

/** Noticed by the scripted life. */
const byLife = ["kv.manifest", "kv.run", "kv.run-name", "log.records", "log.superblock", "storage.fragment", "storage.pack-name"];

/** Noticed by a floor's suite: the file and the test in it that turns these sites off. */
const byFloor: readonly { readonly file: string; readonly name: string; readonly sites: readonly string[] }[] = [
	{
		file: "src/log/log.test.js",
		name: "every sync site of this floor matters",
		sites: ["log.records", "log.segment-header", "log.segment-name", "log.superblock", "log.superblock-name"],
	},
	{
		file: "test/crash/kv-local.long.js",
		name: "without the sync .* something is lost",
		sites: ["kv.manifest", "kv.manifest-name", "kv.run", "kv.run-mend", "kv.run-mend-name", "kv.run-name"],
	},
	{ file: "src/doors/fuse/native-reads.test.js", name: "that takes the sync fuse.staged", sites: ["fuse.staged"] },
	{ file: "test/crash/create.long.js", name: "without the sync log.disk-emptied", sites: ["log.disk-emptied"] },
];

/** Nothing is promised there: an interrupted destruction is repeated, and a disk that left is a stranger already; one that is to be taken back is only asked whether it works. */
const promisesNothing = ["log.disk-cleared", "log.return"];

test("every sync call in the source is accounted for here", () => {
	const listed = new Set([...byLife, ...byFloor.flatMap(({ sites }) => sites), ...promisesNothing]);
	assert.deepEqual([...syncSitesOf(source)].sort(), [...listed].sort());
});

for (const site of byLife) {
	test(`without ${site} a volume's life breaks a promise`, async () => {
		const found = await firstFailure(site);
		assert(found !== undefined, `no power cut noticed that ${site} does nothing`);
	});
}

for (const { file, name, sites } of byFloor) {
	test(`the floor's suite notices each of ${sites.join(", ")}`, () => {
		const run = spawnSync(process.execPath, ["--test", "--test-name-pattern", name, join(dist, file)], {
			encoding: "utf8",
			env: { ...process.env, NODE_TEST_CONTEXT: undefined },
		});
		assert.equal(run.status, 0, run.stdout);
		const passed = Number(/^# pass (\d+)$/m.exec(run.stdout)?.[1] ?? /pass (\d+)/.exec(run.stdout)?.[1] ?? 0);
		assert(passed > 0, `no test of ${file} matches ${name}`);
	});
}

/** Site ids of all calls of `sync` and `syncNames` above the platform. */
function syncSitesOf(folder: string): Set<string> {
	const sites = new Set<string>();
	for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true })) {
		if (!entry.isFile() || !entry.name.endsWith(".ts") || /\.test|test-support/.test(entry.name) || entry.parentPath.includes("platform"))
			continue;
		const text = readFileSync(join(entry.parentPath, entry.name), "utf8");
		for (const [, site] of text.matchAll(/\.sync(?:Names)?\((?:[^(),]*, )?"([a-z]+\.[a-z-]+)"\)/g)) sites.add(site as string);
	}
	return sites;
}

async function firstFailure(site: string): Promise<string | undefined> {
	for (const seed of [1, 2, 3, 4]) {
		const base: Run = { seed, endAt: undefined, how: "cut", ignored: [site], lost: [] };
		let range: { firstStep: number; lastStep: number };
		try {
			range = await play(base);
		} catch (error) {
			return `${describe(base)}: ${(error as Error).message}`;
		}
		for (const endAt of scattered(range.firstStep + 1, range.lastStep)) {
			const run: Run = { ...base, endAt };
			try {
				await play(run);
			} catch (error) {
				return `${describe(run)}: ${(error as Error).message}`;
			}
		}
	}
	return undefined;
}

/** All numbers of [first, last], in an order that reaches every part early: the failure that is looked for is seldom at the beginning. */
function* scattered(first: number, last: number): Generator<number> {
	const stride = 16;
	for (let offset = 0; offset < stride; offset++) {
		for (let at = first + ((offset * 7) % stride); at <= last; at += stride) yield at;
	}
}
