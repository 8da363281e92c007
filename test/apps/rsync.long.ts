/**
 * rsync -aHX there and back with nothing left to do, and again after a part of the tree changed: metadata, hard links, sparse files and
 * extended attributes included.
 */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { assertSameFiles, cannotMount, execute, fingerprint, missingPrograms, must, TestVolume } from "../support/cairn.ts";

/** Debian's package, where it can be had. */
async function rsyncMissing(): Promise<string | undefined> {
	const missing = missingPrograms("rsync");
	if (missing === undefined || missingPrograms("apt-get") !== undefined) return missing;
	await execute("apt-get", ["install", "-y", "rsync"], { env: { DEBIAN_FRONTEND: "noninteractive" }, timeoutMs: 300_000 });
	return missingPrograms("rsync");
}

const reason = cannotMount() ?? (await rsyncMissing());

const makeTree = `
set -euo pipefail
cp -a /usr/include/linux headers 2>/dev/null || cp -a /usr/share/doc headers
for i in $(seq 1 300); do mkdir -p "d$((i % 13))/e$((i % 5))"; head -c $((i * i % 70000)) /dev/urandom > "d$((i % 13))/e$((i % 5))/f $i"; done
chmod 640 d1/e*/f*; chmod 4755 d2/e*/f*; chown 12:34 d3/e*/f*; chmod 1777 d4; chmod 500 d5
ln -s "no such target" dangling; ln -s d1 to-folder; mkfifo pipe; mkdir empty
ln d6/e1/f* d7/ ; touch -d '1999-12-31 23:59:59.123456789' d8/e*/f*; touch -h -d '2005-05-05' dangling
truncate -s 400M sparse; printf tail | dd of=sparse bs=1 seek=300000000 conv=notrunc status=none
head -c 9000000 /dev/urandom > big
touch "$(printf 'n\\303\\251 \\001\\377')"
command -v setfattr > /dev/null && setfattr -n user.note -v value big || true
`;

const change = `
set -euo pipefail
for i in $(seq 1 60); do printf changed >> "d$((i % 13))/e$((i % 5))/f $i"; done
rm -rf d9; mv d10 moved; truncate -s 100 big; rm dangling; mkdir dangling; chmod 700 d4
`;

/** What rsync would still have to do. */
async function left(from: string, to: string): Promise<string> {
	return must("rsync", ["-aHXSn", "--checksum", "--delete", "--itemize-changes", `${from}/`, `${to}/`], { timeoutMs: 1800_000 });
}

let volume: TestVolume | undefined;
after(() => volume?.close());

test("rsync -aHXS there and back", { skip: reason ?? false }, async () => {
	volume = await TestVolume.start({ disks: 6, redundancy: "rs:4+2" });
	const [source, inside, back] = [join(volume.base, "source"), join(volume.mountpoint, "tree"), join(volume.base, "back")];
	for (const folder of [source, inside, back]) mkdirSync(folder);
	await must("bash", ["-c", makeTree], { cwd: source });
	const copy = (from: string, to: string): Promise<string> =>
		must("rsync", ["-aHXS", "--delete", `${from}/`, `${to}/`], { timeoutMs: 1800_000 });
	for (const round of ["first copy", "after changes"]) {
		if (round === "after changes") await must("bash", ["-c", change], { cwd: source });
		await copy(source, inside);
		assert.equal(await left(source, inside), "", `${round}: nothing is left to do towards the mount`);
		await volume.remount();
		assert.equal(await left(inside, source), "", `${round}: nothing is left to do from the mount`);
		await copy(inside, back);
		assert.equal(await left(source, back), "", `${round}: the copy of the copy is the same`);
		assertSameFiles(await fingerprint(back), await fingerprint(source), round);
	}
});
