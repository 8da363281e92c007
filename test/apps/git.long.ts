/**
 * git on a mount: a clone of this repository, its object store checked, packed and checked again, history written, and all of it once
 * more after a remount. Then a repository of 50,000 files (`--files N`).
 */
import assert from "node:assert/strict";
import { createWriteStream, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { finished } from "node:stream/promises";
import { after, test } from "node:test";
import { assertSameFiles, cannotMount, execute, fingerprint, must, TestVolume } from "../support/cairn.ts";
import { SeededRandom } from "../support/map-records.ts";
import { MemoryWatch } from "../support/memory.ts";
import { programsFrom } from "../support/packages.ts";

const minutes = 60_000;
const files = Number(process.env["CAIRN_FILES"] ?? 50_000);
const without = cannotMount() ?? (await programsFrom(["git"], "git"));
const repository = await findRepository();
const reason = without ?? (repository === undefined ? "this copy is not a git repository" : undefined);
const author = ["-c", "user.name=suite", "-c", "user.email=suite@localhost", "-c", "commit.gpgsign=false"];

const identity = {
	GIT_AUTHOR_NAME: "suite",
	GIT_AUTHOR_EMAIL: "suite@localhost",
	GIT_COMMITTER_NAME: "suite",
	GIT_COMMITTER_EMAIL: "suite@localhost",
};

async function findRepository(): Promise<string | undefined> {
	if (without !== undefined) return undefined;
	const { code, stdout } = await execute("git", ["rev-parse", "--show-toplevel"]);
	return code === 0 ? stdout.trim() : undefined;
}

let volume: TestVolume | undefined;
after(() => volume?.close());

test("clone, fsck, gc, commits, fsck after a remount", { skip: reason ?? false }, async () => {
	volume = await TestVolume.start({ disks: 6, redundancy: "rs:4+2" });
	const clone = join(volume.mountpoint, "clone");
	const git = (...words: readonly string[]): Promise<string> => must("git", [...author, "-C", clone, ...words]);
	await must("git", ["clone", "-q", "--no-local", "--no-hardlinks", repository as string, clone]);
	assert.equal((await git("rev-parse", "HEAD")).trim(), (await must("git", ["-C", repository as string, "rev-parse", "HEAD"])).trim());
	await git("fsck", "--full", "--strict");
	assert.equal(await git("status", "--porcelain"), "");

	const work =
		"for i in $(seq 1 40); do mkdir -p t/$((i % 7)); head -c $((i * 997)) /dev/urandom > t/$((i % 7))/f$i; git add -A; git commit -qm $i; done";
	await must("bash", ["-c", `set -e; ${work}; git mv t/1 moved; git commit -qam moved; git rm -rqf t/2; git commit -qam removed`], {
		cwd: clone,
		env: identity,
	});
	await git("checkout", "-qb", "side", "HEAD~20");
	await must(
		"bash",
		["-c", "set -e; echo side > side.txt; git add side.txt; git commit -qm side; git checkout -q -; git merge -q --no-edit side"],
		{ cwd: clone, env: identity },
	);
	await git("gc", "-q", "--aggressive", "--prune=now");
	await git("fsck", "--full", "--strict");
	assert.equal(await git("status", "--porcelain"), "");
	const head = await git("rev-parse", "HEAD");

	await volume.remount();
	await git("fsck", "--full", "--strict");
	assert.equal(await git("rev-parse", "HEAD"), head);
	assert.equal(await git("status", "--porcelain"), "");
});

/** A stream for git fast-import: directories three deep, files from a line to some pages, a second commit that changes every tenth. */
async function writeHistory(path: string): Promise<void> {
	const random = new SeededRandom(files);
	const stream = createWriteStream(path);
	const text = (name: string, lines: number): string =>
		Array.from({ length: lines }, (_, line) => `${name} line ${line} ${random.u32().toString(36)}\n`).join("");
	const nameOf = (i: number): string => `d${i % 23}/e${i % 479}/${i % 7 === 0 ? "deep/" : ""}file${i}.txt`;
	for (const [commit, step] of [1, 10].entries()) {
		const message = `commit ${commit}`;
		stream.write(
			`commit refs/heads/main\ncommitter suite <suite@localhost> ${1_700_000_000 + commit} +0000\ndata ${message.length}\n${message}\n`,
		);
		for (let i = 0; i < files; i += step) {
			const bytes = Buffer.from(text(nameOf(i), 1 + random.below(i % 50 === 0 ? 2000 : 120)));
			stream.write(`M ${i % 11 === 0 ? "100755" : "100644"} inline ${nameOf(i)}\ndata ${bytes.length}\n`);
			if (!stream.write(Buffer.concat([bytes, Buffer.from("\n")])))
				await new Promise<void>((resolve) => stream.once("drain", () => resolve()));
		}
	}
	await finished(stream.end());
}

test(`a repository of ${files} files`, { skip: without ?? false }, async (t) => {
	await volume?.close();
	volume = await TestVolume.start({ disks: 6, redundancy: "rs:4+2" });
	const watch = new MemoryWatch(volume);
	try {
		const [origin, clone, beside] = [join(volume.mountpoint, "origin"), join(volume.mountpoint, "clone"), join(volume.base, "beside")];
		const timed = async (what: string, work: () => Promise<string>): Promise<string> => {
			const start = performance.now();
			const said = await work();
			t.diagnostic(`${what}: ${((performance.now() - start) / 1000).toFixed(1)} s, memory ${watch.peak(what)}`);
			return said;
		};
		const git = (folder: string, ...words: readonly string[]): Promise<string> =>
			must("git", [...author, "-C", folder, "-c", "gc.auto=0", ...words], { timeoutMs: 60 * minutes, env: identity });
		const status = async (folder: string): Promise<number> =>
			(await git(folder, "status", "--porcelain", "--untracked-files=all")).split("\n").length - 1;

		const history = join(volume.base, "history");
		await writeHistory(history);
		mkdirSync(origin);
		await git(origin, "init", "-q", "-b", "main");
		await timed("fast-import", () =>
			must("bash", ["-c", `git fast-import --quiet < "$0"`, history], { cwd: origin, timeoutMs: 30 * minutes }),
		);
		await timed("checkout", () => git(origin, "checkout", "-q", "-f", "main"));
		assert.equal(await status(origin), 0);
		// Loose objects: every fiftieth file is changed, as many come and go.
		for (let i = 0; i < files; i += 50) writeFileSync(join(origin, `new${i}`), `new ${i}\n`);
		const changed = (await git(origin, "ls-files"))
			.trim()
			.split("\n")
			.filter((_, i) => i % 50 === 0);
		assert.ok(changed.length >= files / 50);
		for (const name of changed) writeFileSync(join(origin, name), `changed ${name}\n`, { flag: "a" });
		assert.equal(await timed("status of changes", () => status(origin).then(String)), String(changed.length + Math.ceil(files / 50)));
		await timed("commit", () => git(origin, "add", "-A").then(() => git(origin, "commit", "-qm", "changes")));
		await timed("clone", () => must("git", ["clone", "-q", "--no-local", "--no-hardlinks", origin, clone], { timeoutMs: 60 * minutes }));
		await timed("gc", () => git(origin, "gc", "-q", "--prune=now"));
		await timed("fsck", () => git(origin, "fsck", "--full", "--strict"));
		assert.equal(readdirSync(join(origin, ".git/objects")).filter((name) => name.length === 2).length, 0, "everything is packed");

		await volume.remount();
		for (const folder of [origin, clone]) {
			assert.equal(await timed("status after a remount", () => status(folder).then(String)), "0");
			await git(folder, "fsck", "--full");
		}
		await must("git", ["clone", "-q", "--no-local", clone, beside], { timeoutMs: 60 * minutes });
		const tree = async (folder: string): Promise<string[]> => (await fingerprint(folder)).filter((line) => !line.includes("  ./.git/"));
		const expected = await tree(beside);
		assert.ok(expected.length >= files);
		for (const folder of [origin, clone]) assertSameFiles(await tree(folder), expected, folder);
		await timed("removal", () => must("rm", ["-rf", origin, clone], { timeoutMs: 60 * minutes }));
	} finally {
		watch.stop();
	}
});
