/**
 * The public suite pjdfstest, where somebody has one: `PJDFSTEST_DIR=/where/it/was/built npm run test:long posix`. It is run as it is, by perl's `prove`, in a volume of the command line's.
 */
import assert from "node:assert/strict";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { cannotMount, execute, missingPrograms, TestVolume } from "../support/cairn.ts";

const folder = process.env["PJDFSTEST_DIR"] ?? "";
const absent = (): string | undefined => {
	if (folder === "") return "PJDFSTEST_DIR does not say where pjdfstest is";
	return existsSync(join(folder, "pjdfstest")) && existsSync(join(folder, "tests")) ? undefined : `no built pjdfstest in ${folder}`;
};
const reason = absent() ?? cannotMount() ?? missingPrograms("prove");

let volume: TestVolume | undefined;
after(() => volume?.close());

test("pjdfstest", { skip: reason ?? false }, async (t) => {
	volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
	const work = join(volume.mountpoint, "work");
	mkdirSync(work);
	const { code, stdout, stderr } = await execute("prove", ["-r", "-Q", join(folder, "tests")], { cwd: work, timeoutMs: 3600_000 });
	t.diagnostic(stdout.trim().split("\n").at(-2) ?? "");
	assert.equal(code, 0, `${stdout.slice(-6000)}${stderr.slice(-2000)}`);
});
