/**
 * rsync -aHAXS there and back with nothing left to do, and again after a part of the tree changed: metadata, hard links, sparse files, extended attributes and access lists included. What rsync
 * sees is not taken on trust: getfacl, getfattr and find tell the same of both sides.
 */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { assertSameFiles, cannotMount, fingerprint, must, TestVolume } from "../support/cairn.ts";
import { programsFrom } from "../support/packages.ts";

const reason = cannotMount() ?? (await programsFrom(["rsync", "acl", "attr"], "rsync", "setfacl", "getfacl", "setfattr", "getfattr"));

/** Otherwise rsync calls times equal that differ by less than a second, and leaves them. */
const exact = "--modify-window=-1";

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
setfattr -n user.note -v value big
setfattr -n user.binary -v 0x00ff0a3d22 big; setfattr -n user.empty d4; setfattr -n trusted.of -v root d1/e*/f*; setfattr -n user.long -v "$(head -c 3000 /dev/zero | tr '\\0' x)" d11
setfacl -m u:1234:rw,g:4321:r,m::rwx big; setfacl -m u:77:--- d6/e1/f*; setfacl -d -m u:1234:rwx,g::r-x,o::--- d12; setfacl -m d:u:9:r,u:9:x d5
mkdir d12/under; printf inherits > d12/under/file; ln d3/e1/f* d12/
for i in $(seq 1 400); do printf "$((i % 40))" > "links$((i % 40)).$i"; done
for i in $(seq 1 39); do for j in $(seq 1 9); do ln -f links$i.$i links$i.$((i + 40 * j)); done; done
mknod device c 1 3; mknod block b 7 99
`;

const change = `
set -euo pipefail
for i in $(seq 1 60); do printf changed >> "d$((i % 13))/e$((i % 5))/f $i"; done
rm -rf d9; mv d10 moved; truncate -s 100 big; rm dangling; mkdir dangling; chmod 700 d4
setfacl -x u:1234 -m u:55:r big; setfacl -b d6/e1/f*; setfacl -k d12; setfattr -x user.note big; setfattr -n user.more -v "$(head -c 60000 /dev/urandom | base64 -w0 | head -c 60000)" d11 2> /dev/null || true
rm links7.7; ln -f links8.8 links9.9; ln links10.10 links.new
`;

/** What rsync would still have to do. */
async function left(from: string, to: string): Promise<string> {
	return must("rsync", ["-aHAXSn", exact, "--checksum", "--delete", "--itemize-changes", `${from}/`, `${to}/`], { timeoutMs: 1800_000 });
}

/** Access lists, extended attributes and all that find knows of everything below `folder`. Hard links are shown as the first of their names. */
const tell = `
set -euo pipefail; export LC_ALL=C
find . -print0 | sort -z | xargs -0 getfacl -n -p -P -s -d; find . -print0 | sort -z | xargs -0 getfacl -n -p -P
find . -print0 | sort -z | xargs -0 getfattr -h -d -m - -e hex
find . -not -type d -printf '%i %p\\n' | sort -k2 | awk '{ if (!($1 in first)) first[$1] = $0; sub(/^[0-9]+ /, "", first[$1]); sub(/^[0-9]+ /, ""); print $0 " is " first[$1] }' FS=' '
find . -type d -printf '%p %y %m %U %G %T@\\n' | sort; find . -not -type d -printf '%p %y %m %U %G %T@ %s %n %l\\n' | sort
`;

async function told(folder: string): Promise<string[]> {
	return (await must("bash", ["-c", tell], { cwd: folder, timeoutMs: 1800_000 })).split("\n");
}

let volume: TestVolume | undefined;
after(() => volume?.close());

test("rsync -aHAXS there and back", { skip: reason ?? false }, async () => {
	volume = await TestVolume.start({ disks: 6, redundancy: "rs:4+2" });
	const [source, inside, back] = [join(volume.base, "source"), join(volume.mountpoint, "tree"), join(volume.base, "back")];
	for (const folder of [source, inside, back]) mkdirSync(folder);
	await must("bash", ["-c", makeTree], { cwd: source });
	const copy = (from: string, to: string): Promise<string> =>
		must("rsync", ["-aHAXS", exact, "--delete", `${from}/`, `${to}/`], { timeoutMs: 1800_000 });
	for (const round of ["first copy", "after changes"]) {
		if (round === "after changes") await must("bash", ["-c", change], { cwd: source });
		await copy(source, inside);
		assert.equal(await left(source, inside), "", `${round}: nothing is left to do towards the mount`);
		await volume.remount();
		assert.equal(await left(inside, source), "", `${round}: nothing is left to do from the mount`);
		await copy(inside, back);
		assert.equal(await left(source, back), "", `${round}: the copy of the copy is the same`);
		assertSameFiles(await fingerprint(back), await fingerprint(source), round);
		const expected = await told(source);
		assert.ok(expected.length > 2000 && expected.some((line) => line.startsWith("default:user:")), "there is something to compare");
		for (const folder of [inside, back]) assertSameFiles(await told(folder), expected, `${round}: ${folder}`);
	}
});
