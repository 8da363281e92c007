/**
 * git on a mount: a clone of this repository, its object store checked, packed and checked again, history written, and all of it once
 * more after a remount.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, test } from "node:test";
import { cannotMount, execute, missingPrograms, must, TestVolume } from "../support/cairn.ts";

const repository = await findRepository();
const reason = cannotMount() ?? missingPrograms("git") ?? (repository === undefined ? "this copy is not a git repository" : undefined);
const author = ["-c", "user.name=suite", "-c", "user.email=suite@localhost", "-c", "commit.gpgsign=false"];

const identity = {
	GIT_AUTHOR_NAME: "suite",
	GIT_AUTHOR_EMAIL: "suite@localhost",
	GIT_COMMITTER_NAME: "suite",
	GIT_COMMITTER_EMAIL: "suite@localhost",
};

async function findRepository(): Promise<string | undefined> {
	if (missingPrograms("git") !== undefined) return undefined;
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
