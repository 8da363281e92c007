import assert from "node:assert/strict";
import { closeSync, mkdtempSync, openSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { FileIdentity, hasName, statxRoom } from "./libc.ts";

test("a file is known by its device and inode, not by what lies under its name now", (t) => {
	const folder = mkdtempSync(join(tmpdir(), "cairn-identity-"));
	t.after(() => rmSync(folder, { recursive: true }));
	const [name, other, link] = ["file", "other", "link"].map((one) => join(folder, one)) as [string, string, string];
	writeFileSync(name, "same");
	writeFileSync(other, "same");
	symlinkSync(name, link);
	const fd = openSync(name, "r");
	const [identity, foreign] = [FileIdentity.of(fd), FileIdentity.of(openAndClose(other))];
	const isAt = (path: string): boolean | undefined => identity?.isAt(Buffer.from(`${path}\0`));
	assert.deepEqual([isAt(name), isAt(link), isAt(other), isAt(join(folder, "none"))], [true, true, false, false]);
	assert.equal(foreign, undefined, "of a descriptor that is closed nothing is known");
	assert.equal(hasName(fd, statxRoom()), true);
	renameSync(other, name);
	assert.deepEqual([isAt(name), isAt(link)], [false, false]);
	assert.equal(hasName(fd, statxRoom()), false);
	unlinkSync(name);
	assert.equal(isAt(name), false);
	closeSync(fd);
	assert.equal(hasName(fd, statxRoom()), false, "what cannot be looked at has none");
});

function openAndClose(name: string): number {
	const fd = openSync(name, "r");
	closeSync(fd);
	return fd;
}
