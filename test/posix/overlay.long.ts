/** overlayfs with its upper layer on the mount, as container engines use a file system: whiteouts, opaque directories, copies up. */
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { cannotMount, execute, must, TestVolume } from "../support/cairn.ts";

const known = readFileSync("/proc/filesystems", "utf8").includes("\toverlay\n");
let volume: TestVolume | undefined;
let merged: string | undefined;
after(async () => {
	if (merged !== undefined) await execute("umount", [merged]);
	await volume?.close();
});

test("an overlay above a volume", { skip: cannotMount() ?? (known ? false : "this kernel has no overlay file system") }, async () => {
	volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
	const at = (...parts: readonly string[]): string => join((volume as TestVolume).base, ...parts);
	const upper = join(volume.mountpoint, "upper");
	for (const folder of [at("lower"), at("lower", "d"), at("lower", "e"), at("merged"), upper, join(volume.mountpoint, "work")])
		mkdirSync(folder);
	for (const file of ["a", "b", "d/inside", "e/inside"]) writeFileSync(at("lower", file), file);
	const mount = async (): Promise<void> => {
		const options = `lowerdir=${at("lower")},upperdir=${upper},workdir=${join((volume as TestVolume).mountpoint, "work")}`;
		await must("mount", ["-t", "overlay", "overlay", "-o", options, at("merged")]);
		merged = at("merged");
	};
	await mount();
	const run = (script: string): Promise<string> => must("bash", ["-ec", script], { cwd: at("merged") });
	await run("rm a; mv b c; rm -r d; mkdir d; echo new > d/new; mv e/inside moved; rmdir e; chmod 600 c; setfattr -n user.x -v 1 c || true");
	const check = (): void => {
		assert.deepEqual(readdirSync(at("merged")).sort(), ["c", "d", "moved"]);
		assert.deepEqual(readdirSync(at("merged", "d")), ["new"]);
		assert.equal(readFileSync(at("merged", "c"), "utf8"), "b");
		assert.equal(readFileSync(at("merged", "moved"), "utf8"), "e/inside");
	};
	check();
	await must("umount", [at("merged")]);
	merged = undefined;
	await volume.remount();
	await mount();
	check();
	assert.deepEqual(readdirSync(at("lower")).sort(), ["a", "b", "d", "e"]);
});
