/** tar: a tree packed into the mount, unpacked inside, compared inside, packed again inside, removed. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { assertSameFiles, cannotMount, fingerprint, missingPrograms, must, TestVolume } from "../support/cairn.ts";

const source = ["/usr/include", "/usr/share/perl", "/usr/share/doc", "/usr/lib/python3"].find((path) => existsSync(path));
const reason = cannotMount() ?? missingPrograms("tar") ?? (source === undefined ? "no tree of this machine to pack" : undefined);

let volume: TestVolume | undefined;
after(() => volume?.close());

test("a tree goes in and out through tar unchanged", { skip: reason ?? false }, async () => {
	volume = await TestVolume.start({ disks: 6, redundancy: "rs:4+2" });
	const tree = source as string;
	const mount = volume.mountpoint;
	const [archive, inside] = [join(mount, "tree.tar"), join(mount, "tree")];
	mkdirSync(inside);
	await must("tar", ["-C", tree, "-cf", archive, "."]);
	await must("tar", ["-C", inside, "-xpf", archive]);
	await must("tar", ["-C", inside, "--compare", "-f", archive]);
	const before = await fingerprint(tree);
	assertSameFiles(await fingerprint(inside), before, "unpacked");
	await volume.remount();
	await must("tar", ["-C", tree, "--compare", "-f", archive]);
	assertSameFiles(await fingerprint(inside), before, "after a remount");
	await must(
		"bash",
		[
			"-c",
			"set -euo pipefail; mkdir again; tar -C tree -cf - . | tar -C again -xpf -; diff -r --no-dereference tree again; rm -rf tree again",
		],
		{ cwd: mount },
	);
	assert.deepEqual(readdirSync(mount), ["tree.tar"]);
});
