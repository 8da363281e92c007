import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { TestVolume } from "../../test/support/map-records.ts";
import { namespaceFaults } from "../../test/support/namespace-faults.ts";
import { type ErrorCode, isFsError } from "../base/errors.ts";
import type { FileType, Ino, Inode, RecordTransaction } from "../records/interface.ts";
import { inodeRecord, orphanRecord, volumeRecord } from "../records/kinds.ts";
import { inoCountersPerGroup } from "../records/limits.ts";
import type { AttributeChange, NewNode } from "./interface.ts";
import { maximumDirectoryLinks, maximumLinks, maximumXattrNameBytes, maximumXattrValueBytes } from "./limits.ts";
import * as verbs from "./verbs.ts";

const root = 1;
let volume: TestVolume;

beforeEach(async () => {
	volume = await TestVolume.empty();
	volume.run((tx, context) => verbs.makeRoot(tx, context, 0, 0));
});

const node = (type: FileType, change: Partial<NewNode> = {}): NewNode => ({ type, mode: 0o644, uid: 5, gid: 6, ...change });

function make(parent: Ino, name: string, type: FileType = "file", change: Partial<NewNode> = {}): Inode {
	return volume.run((tx, context) => verbs.create(tx, context, parent, name, node(type, change)).inode);
}

const link = (ino: Ino, parent: Ino, name: string): Inode => volume.run((tx, context) => verbs.link(tx, context, ino, parent, name).inode);
const unlink = (parent: Ino, name: string): Inode => volume.run((tx, context) => verbs.unlink(tx, context, parent, name).inode);
const rmdir = (parent: Ino, name: string): Inode => volume.run((tx, context) => verbs.rmdir(tx, context, parent, name).inode);
const setAttributes = (ino: Ino, change: AttributeChange): Inode =>
	volume.run((tx, context) => verbs.setAttributes(tx, context, ino, change));
const get = (ino: Ino): Inode => volume.store.run((tx) => verbs.inode(tx, ino));
const lookup = (parent: Ino, name: string): Inode => volume.store.run((tx) => verbs.lookup(tx, parent, name));
const names = (ino: Ino): string[] => volume.store.run((tx) => verbs.readdir(tx, ino, 0, 1000)).map(({ name }) => name);
const rename = (parent: Ino, name: string, newParent: Ino, newName: string, flags = 0): ReturnType<typeof verbs.rename> =>
	volume.run((tx, context) => verbs.rename(tx, context, parent, name, newParent, newName, flags));

/** The call fails with that code and changes nothing. */
function fails(code: ErrorCode, fn: () => unknown): void {
	const before = new Map(volume.store.values);
	assert.throws(fn, (error) => isFsError(error, code) || assert.fail(`${code} expected, not ${String(error)}`), code);
	assert.deepEqual(volume.store.values, before);
}

function sound(): void {
	assert.deepEqual(
		namespaceFaults((fn) => volume.store.run(fn)),
		[],
	);
}

/** Asserts which of the times are of the last operation. */
function times(ino: Ino, changed: "none" | "ctime" | "both"): void {
	const { mtime, ctime } = get(ino);
	assert.equal(ctime.seconds === volume.seconds, changed !== "none", `ctime of ${ino}`);
	assert.equal(mtime.seconds === volume.seconds, changed === "both", `mtime of ${ino}`);
}

function edit(ino: Ino, change: Partial<Inode>): void {
	volume.store.run((tx: RecordTransaction) => tx.put(inodeRecord, { ...verbs.inode(tx, ino), ...change }, ino));
}

// ── root ─────────────────────────────────────────────────────────────────────────────────────────────────────────

test("the root is its own parent, has 2 links and mode 0755; there is one only", () => {
	const made = get(root);
	assert.deepEqual([made.type, made.mode, made.nlink, made.parent, made.entryCount], ["directory", 0o755, 2, root, 0]);
	fails("EEXIST", () => volume.run((tx, context) => verbs.makeRoot(tx, context, 0, 0)));
	sound();
});

test("makeRoot makes the volume record when there is none", async () => {
	const bare = new TestVolume();
	bare.run((tx, context) => verbs.makeRoot(tx, context, 1, 2));
	await bare.prepare();
	assert.equal(bare.store.run((tx) => tx.get(volumeRecord))?.protections.length, 0);
	assert.equal(
		bare.run((tx, context) => verbs.create(tx, context, root, "a", node("file")).inode.ino),
		2,
	);
});

// ── lookup and names ─────────────────────────────────────────────────────────────────────────────────────────────

test("lookup: names, dots, and what is wrong", () => {
	const directory = make(root, "d", "directory");
	const file = make(directory.ino, "f");
	assert.equal(lookup(directory.ino, "f").ino, file.ino);
	assert.equal(lookup(directory.ino, ".").ino, directory.ino);
	assert.equal(lookup(directory.ino, "..").ino, root);
	assert.equal(lookup(root, "..").ino, root);
	fails("ENOENT", () => lookup(root, "absent"));
	fails("ENOENT", () => lookup(root, ""));
	fails("ENOTDIR", () => lookup(file.ino, "x"));
	fails("ENOTDIR", () => lookup(file.ino, "."));
	fails("ESTALE", () => lookup(999, "x"));
	fails("ENAMETOOLONG", () => lookup(root, "x".repeat(256)));
	fails("EINVAL", () => lookup(root, "a/b"));
	fails("EINVAL", () => lookup(root, "a\0b"));
	fails("EINVAL", () => lookup(root, "\u0100"));
	assert.equal(volume.store.run((tx) => verbs.entry(tx, root, "d"))?.ino, directory.ino);
	assert.equal(
		volume.store.run((tx) => verbs.entry(tx, root, "x")),
		undefined,
	);
});

test("names are any bytes but / and NUL, 1 to 255 of them", () => {
	const odd = ["x".repeat(255), " ", "\n", "\x01", "\xff\xfe", "...", "-", "a\\b", "ä"];
	for (const name of odd) make(root, name);
	for (const name of odd) assert.equal(lookup(root, name).type, "file");
	assert.deepEqual(names(root), odd);
	sound();
});

// ── create ───────────────────────────────────────────────────────────────────────────────────────────────────────

test("create gives every type its attributes", () => {
	const file = make(root, "f", "file", { mode: 0o106755 });
	assert.deepEqual([file.mode, file.uid, file.gid, file.nlink, file.size, file.parent], [0o6755, 5, 6, 1, 0, 0]);
	assert.deepEqual([file.atime.seconds, file.btime.seconds, file.mtime.seconds], [volume.seconds, volume.seconds, volume.seconds]);
	const directory = make(root, "d", "directory");
	assert.deepEqual([directory.nlink, directory.nextCookie, directory.parent], [2, 3, root]);
	const symlink = make(root, "s", "symlink", { target: "to/\xff" });
	assert.deepEqual([symlink.mode, symlink.size, symlink.inline], [0o777, 4, new Uint8Array([116, 111, 47, 255])]);
	assert.equal(make(root, "b", "block", { rdev: 0x801 }).rdev, 0x801);
	assert.equal(make(root, "p", "fifo", { rdev: 0x801 }).rdev, 0);
	assert.equal(get(root).nlink, 3);
	assert.deepEqual(get(root), { ...get(root), entryCount: 5, nextCookie: 8 });
	times(root, "both");
	sound();
});

test("create refuses", () => {
	const directory = make(root, "d", "directory");
	const file = make(root, "f");
	fails("EEXIST", () => make(root, "f", "directory"));
	fails("EEXIST", () => make(root, "."));
	fails("EEXIST", () => make(root, ".."));
	fails("ENOENT", () => make(root, ""));
	fails("ENAMETOOLONG", () => make(root, "x".repeat(256)));
	fails("EINVAL", () => make(root, "a/b"));
	fails("ENOTDIR", () => make(file.ino, "x"));
	fails("ENOENT", () => make(root, "s", "symlink", { target: "" }));
	fails("ENAMETOOLONG", () => make(root, "s", "symlink", { target: "x".repeat(4096) }));
	fails("EINVAL", () => make(root, "s", "symlink", { target: "a\0" }));
	fails("EINVAL", () => make(root, "x", "file", { uid: 0xffff_ffff }));
	fails("EINVAL", () => make(root, "x", "block", { rdev: -1 }));
	rmdir(root, "d");
	fails("ENOENT", () => make(directory.ino, "x"));
	edit(root, { nlink: maximumDirectoryLinks });
	fails("EMLINK", () => make(root, "x", "directory"));
});

test("a symlink target of 4,095 bytes fits", () => {
	assert.equal(make(root, "s", "symlink", { target: "x".repeat(4095) }).inline?.length, 4095);
});

test("set-gid directories hand down their group, and the bit to directories", () => {
	const shared = make(root, "d", "directory", { mode: 0o2775, gid: 77 });
	assert.deepEqual([make(shared.ino, "f").gid, make(shared.ino, "g").mode], [77, 0o644]);
	const inner = make(shared.ino, "d", "directory", { mode: 0o755 });
	assert.deepEqual([inner.gid, inner.mode], [77, 0o2755]);
	assert.equal(make(root, "plain").gid, 6);
});

test("files are born in the group and with the protection of their directory", async () => {
	const directory = make(root, "d", "directory");
	const far = 9 * inoCountersPerGroup + 1;
	volume.store.run((tx) => tx.put(inodeRecord, { ...directory, ino: far, protection: 4 }, far));
	assert.throws(
		() => make(far, "x"),
		(error) => isFsError(error, "EAGAIN"),
	);
	await volume.prepare();
	const file = make(far, "x");
	assert.equal(Math.floor(file.ino / inoCountersPerGroup), 9);
	assert.equal(file.protection, 4);
});

test("createUnnamed makes an orphan that can be forgotten", () => {
	const made = volume.run((tx, context) => verbs.createUnnamed(tx, context, root, node("file"), false));
	assert.equal(made.nlink, 0);
	fails("ENOENT", () => link(made.ino, root, "x"));
	sound();
	fails("EINVAL", () => volume.run((tx, context) => verbs.createUnnamed(tx, context, root, node("directory"), true)));
	volume.run((tx) => verbs.forget(tx, made.ino));
	fails("ESTALE", () => get(made.ino));
	sound();
});

test("a linkable one gets a name once, and after it has lost that none", () => {
	const made = volume.run((tx, context) => verbs.createUnnamed(tx, context, root, node("file"), true));
	assert.equal(link(made.ino, root, "named").nlink, 1);
	sound();
	assert.equal(link(made.ino, root, "again").nlink, 2);
	unlink(root, "again");
	assert.equal(unlink(root, "named").nlink, 0);
	fails("ENOENT", () => link(made.ino, root, "x"));
	sound();
});

// ── link, unlink, rmdir ──────────────────────────────────────────────────────────────────────────────────────────

test("link counts names and sets ctime; the last unlink makes an orphan", () => {
	const file = make(root, "a");
	assert.equal(link(file.ino, root, "b").nlink, 2);
	times(file.ino, "ctime");
	times(root, "both");
	assert.equal(unlink(root, "a").nlink, 1);
	times(file.ino, "ctime");
	times(root, "both");
	assert.equal(lookup(root, "b").ino, file.ino);
	const last = unlink(root, "b");
	assert.equal(last.nlink, 0);
	assert.equal(volume.store.run((tx) => tx.get(orphanRecord, file.ino))?.since.seconds, volume.seconds);
	fails("ENOENT", () => link(file.ino, root, "c"));
	sound();
});

test("link refuses", () => {
	const directory = make(root, "d", "directory");
	const file = make(root, "f");
	fails("EPERM", () => link(directory.ino, root, "x"));
	fails("EEXIST", () => link(file.ino, root, "d"));
	fails("EEXIST", () => link(file.ino, root, "."));
	fails("ENOTDIR", () => link(file.ino, file.ino, "x"));
	fails("ESTALE", () => link(999, root, "x"));
	fails("ENAMETOOLONG", () => link(file.ino, root, "x".repeat(256)));
	edit(file.ino, { nlink: maximumLinks });
	fails("EMLINK", () => link(file.ino, root, "x"));
	edit(file.ino, { nlink: maximumLinks - 1 });
	assert.equal(link(file.ino, root, "x").nlink, maximumLinks);
});

test("unlink refuses", () => {
	const directory = make(root, "d", "directory");
	const file = make(root, "f");
	fails("EISDIR", () => unlink(root, "d"));
	fails("ENOENT", () => unlink(root, "x"));
	fails("ENOENT", () => unlink(root, ""));
	fails("EBUSY", () => unlink(root, "."));
	fails("EBUSY", () => unlink(directory.ino, ".."));
	fails("ENOTDIR", () => unlink(file.ino, "x"));
	fails("EINVAL", () => unlink(root, "a/b"));
});

test("rmdir takes empty directories only and gives the parent its link back", () => {
	const directory = make(root, "d", "directory");
	make(directory.ino, "f");
	fails("ENOTEMPTY", () => rmdir(root, "d"));
	fails("ENOTDIR", () => rmdir(directory.ino, "f"));
	fails("EINVAL", () => rmdir(directory.ino, "."));
	fails("ENOTEMPTY", () => rmdir(directory.ino, ".."));
	fails("ENOENT", () => rmdir(root, "x"));
	unlink(directory.ino, "f");
	assert.equal(get(root).nlink, 3);
	assert.equal(rmdir(root, "d").nlink, 0);
	assert.equal(get(root).nlink, 2);
	times(root, "both");
	fails("ENOENT", () => lookup(directory.ino, ".."));
	fails("ENOENT", () => lookup(directory.ino, "x"));
	assert.deepEqual(names(directory.ino), []);
	assert.equal(lookup(directory.ino, ".").nlink, 0);
	sound();
});

// ── rename ───────────────────────────────────────────────────────────────────────────────────────────────────────

test("rename within a directory: times, and the position stays", () => {
	const file = make(root, "a");
	make(root, "z");
	const result = rename(root, "a", root, "b");
	assert.equal(result.source.ino, file.ino);
	assert.equal(result.replaced, undefined);
	assert.deepEqual(names(root), ["b", "z"]);
	times(root, "both");
	times(file.ino, "ctime");
	fails("ENOENT", () => lookup(root, "a"));
	sound();
});

test("rename to another directory moves links, counts and parents", () => {
	const from = make(root, "from", "directory");
	const to = make(root, "to", "directory");
	const moved = make(from.ino, "m", "directory");
	rename(from.ino, "m", to.ino, "n");
	assert.deepEqual([get(from.ino).nlink, get(to.ino).nlink, get(moved.ino).parent], [2, 3, to.ino]);
	assert.deepEqual([get(from.ino).entryCount, get(to.ino).entryCount], [0, 1]);
	assert.equal(lookup(moved.ino, "..").ino, to.ino);
	for (const ino of [from.ino, to.ino]) times(ino, "both");
	times(moved.ino, "ctime");
	times(root, "none");
	sound();
});

test("rename replaces: the old inode loses its name, the name keeps its position", () => {
	const directory = make(root, "d", "directory");
	make(directory.ino, "first");
	const old = make(directory.ino, "name");
	make(directory.ino, "last");
	const fresh = make(root, "new");
	const result = rename(root, "new", directory.ino, "name");
	assert.deepEqual([result.replaced?.ino, result.replaced?.nlink, result.source.ino], [old.ino, 0, fresh.ino]);
	assert.deepEqual(names(directory.ino), ["first", "name", "last"]);
	assert.equal(get(directory.ino).entryCount, 3);
	times(old.ino, "ctime");
	sound();
});

test("rename replaces an empty directory, and no other", () => {
	const source = make(root, "s", "directory");
	const target = make(root, "t", "directory");
	const file = make(root, "f");
	const inner = make(target.ino, "x");
	fails("ENOTEMPTY", () => rename(root, "s", root, "t"));
	fails("ENOTDIR", () => rename(root, "s", root, "f"));
	fails("EISDIR", () => rename(root, "f", root, "t"));
	unlink(target.ino, "x");
	assert.equal(get(inner.ino).nlink, 0);
	assert.equal(get(root).nlink, 4);
	assert.equal(rename(root, "s", root, "t").replaced?.nlink, 0);
	assert.equal(get(root).nlink, 3);
	assert.equal(lookup(root, "t").ino, source.ino);
	assert.equal(lookup(root, "f").ino, file.ino);
	sound();
});

test("rename across directories onto an empty directory keeps both parents' links right", () => {
	const a = make(root, "a", "directory");
	const b = make(root, "b", "directory");
	make(a.ino, "x", "directory");
	make(b.ino, "x", "directory");
	rename(a.ino, "x", b.ino, "x");
	assert.deepEqual([get(a.ino).nlink, get(b.ino).nlink], [2, 3]);
	sound();
});

test("two names of one inode: nothing is done", () => {
	const file = make(root, "a");
	const directory = make(root, "d", "directory");
	link(file.ino, directory.ino, "b");
	const before = new Map(volume.store.values);
	assert.equal(rename(root, "a", directory.ino, "b").replaced, undefined);
	assert.equal(rename(root, "a", root, "a").replaced, undefined);
	assert.equal(rename(root, "d", root, "d").replaced, undefined);
	assert.equal(rename(root, "a", directory.ino, "b", 2).replaced, undefined);
	assert.deepEqual(volume.store.values, before);
	fails("EEXIST", () => rename(root, "a", directory.ino, "b", 1));
});

test("rename refuses cycles", () => {
	const a = make(root, "a", "directory");
	const b = make(a.ino, "b", "directory");
	const c = make(b.ino, "c", "directory");
	fails("EINVAL", () => rename(root, "a", a.ino, "x"));
	fails("EINVAL", () => rename(root, "a", c.ino, "x"));
	fails("EINVAL", () => rename(root, "a", b.ino, "c"));
	fails("EINVAL", () => rename(root, "a", b.ino, "c", 2));
	fails("EINVAL", () => rename(b.ino, "c", root, "a", 2));
	fails("ENOTEMPTY", () => rename(b.ino, "c", root, "a"));
	rename(b.ino, "c", root, "c");
	rename(root, "a", c.ino, "a");
	sound();
});

test("rename refuses names and flags", () => {
	const directory = make(root, "d", "directory");
	const file = make(root, "f");
	for (const name of [".", ".."]) {
		fails("EBUSY", () => rename(root, name, root, "x"));
		fails("EBUSY", () => rename(root, "f", directory.ino, name));
		fails("EEXIST", () => rename(root, "f", directory.ino, name, 1));
	}
	fails("ENOENT", () => rename(root, "x", root, "y"));
	fails("ENOENT", () => rename(root, "f", root, "y", 2));
	fails("ENOENT", () => rename(root, "f", root, ""));
	fails("ENAMETOOLONG", () => rename(root, "f", root, "x".repeat(256)));
	fails("EINVAL", () => rename(root, "f", root, "a/b"));
	fails("ENOTDIR", () => rename(file.ino, "f", root, "x"));
	fails("ENOTDIR", () => rename(root, "f", file.ino, "x"));
	for (const flags of [3, 6, 7, -1, 8]) fails("EINVAL", () => rename(root, "f", root, "x", flags));
	fails("EEXIST", () => rename(root, "f", root, "d", 1));
	rmdir(root, "d");
	fails("ENOENT", () => rename(root, "f", directory.ino, "x"));
	rename(root, "f", root, "free", 1);
	assert.equal(lookup(root, "free").ino, file.ino);
});

test("exchange: files, directories, both, within and across directories", () => {
	const a = make(root, "a", "directory");
	const b = make(root, "b", "directory");
	const file = make(a.ino, "file");
	const directory = make(b.ino, "directory", "directory");
	const inner = make(directory.ino, "inner");
	const result = rename(a.ino, "file", b.ino, "directory", 2);
	assert.deepEqual([result.source.ino, result.replaced?.ino, result.replaced?.nlink], [file.ino, directory.ino, 2]);
	assert.equal(lookup(a.ino, "file").ino, directory.ino);
	assert.equal(lookup(b.ino, "directory").ino, file.ino);
	assert.deepEqual([get(a.ino).nlink, get(b.ino).nlink, get(directory.ino).parent], [3, 2, a.ino]);
	for (const ino of [a.ino, b.ino]) times(ino, "both");
	for (const ino of [file.ino, directory.ino]) times(ino, "ctime");
	sound();
	rename(root, "a", root, "b", 2);
	assert.equal(lookup(root, "b").ino, a.ino);
	assert.equal(lookup(lookup(lookup(root, "b").ino, "file").ino, "inner").ino, inner.ino);
	sound();
});

test("a move into a directory with the most subdirectories is refused; a replacement is not", () => {
	const full = make(root, "full", "directory");
	make(full.ino, "x", "directory");
	make(root, "d", "directory");
	make(root, "f");
	make(full.ino, "file");
	edit(full.ino, { nlink: maximumDirectoryLinks });
	fails("EMLINK", () => rename(root, "d", full.ino, "y"));
	fails("EMLINK", () => rename(root, "d", full.ino, "file", 2));
	assert.equal(rename(root, "f", full.ino, "f").source.type, "file");
	assert.equal(rename(root, "d", full.ino, "x").replaced?.nlink, 0);
});

test("a tree deeper than the walk's bound is refused, not walked for ever", () => {
	const a = make(root, "a", "directory");
	const b = make(a.ino, "b", "directory");
	make(root, "s", "directory");
	// A broken tree: two directories that are each other's parent.
	edit(a.ino, { parent: b.ino });
	fails("ELOOP", () => rename(root, "s", b.ino, "x"));
});

// ── attributes ───────────────────────────────────────────────────────────────────────────────────────────────────

test("setAttributes", () => {
	const file = make(root, "f", "file", { mode: 0o6755 });
	const set = (ino: Ino, change: Parameters<typeof verbs.setAttributes>[3]): Inode =>
		volume.run((tx, context) => verbs.setAttributes(tx, context, ino, change));
	assert.equal(set(file.ino, { mode: 0o107000 | 0o644 }).mode, 0o7644);
	times(file.ino, "ctime");
	assert.deepEqual(set(file.ino, {}), get(file.ino));
	times(file.ino, "none");
	set(file.ino, { mode: 0o6755 });
	const owned = set(file.ino, { uid: 9, gid: 8 });
	assert.deepEqual([owned.uid, owned.gid, owned.mode], [9, 8, 0o755]);
	assert.equal(set(file.ino, { uid: 1, mode: 0o4755 }).mode, 0o4755);
	const time = { seconds: -7, nanoseconds: 5 };
	const timed = set(file.ino, { atime: time, mtime: "now" });
	assert.deepEqual([timed.atime, timed.mtime.seconds, timed.ctime.seconds], [time, volume.seconds, volume.seconds]);
	assert.deepEqual(set(file.ino, { mtime: time, ctime: time }).ctime, time);
	fails("EINVAL", () => set(file.ino, { mtime: { seconds: 1, nanoseconds: 1_000_000_000 } }));
	fails("EINVAL", () => set(file.ino, { mtime: { seconds: 1.5, nanoseconds: 0 } }));
	fails("EINVAL", () => set(file.ino, { uid: 0xffff_ffff }));
	fails("ESTALE", () => set(999, { mode: 0 }));
	const symlink = make(root, "s", "symlink", { target: "x" });
	fails("ENOTSUP", () => set(symlink.ino, { mode: 0o600 }));
	assert.equal(set(symlink.ino, { uid: 3 }).mode, 0o777);
	const directory = make(root, "d", "directory", { mode: 0o2755 });
	assert.equal(set(directory.ino, { gid: 3 }).mode, 0o2755);
});

// ── readdir ──────────────────────────────────────────────────────────────────────────────────────────────────────

test("readdir goes on where it was, whatever happens in between", () => {
	for (let i = 0; i < 10; i++) make(root, `f${i}`);
	const read = (after: number, limit: number): ReturnType<typeof verbs.readdir> =>
		volume.store.run((tx) => verbs.readdir(tx, root, after, limit));
	const first = read(0, 4);
	assert.deepEqual(
		first.map(({ name }) => name),
		["f0", "f1", "f2", "f3"],
	);
	unlink(root, "f3");
	unlink(root, "f5");
	make(root, "f5");
	rename(root, "f6", root, "g6");
	rename(root, "f1", root, "f8");
	const rest = read(first[3]?.cookie ?? 0, 100);
	assert.deepEqual(
		rest.map(({ name }) => name),
		["f4", "g6", "f7", "f8", "f9", "f5"],
	);
	assert.deepEqual(read(rest.at(-1)?.cookie ?? 0, 5), []);
	assert.deepEqual(read(1000, 5), []);
	fails("ENOTDIR", () => volume.store.run((tx) => verbs.readdir(tx, lookup(root, "f4").ino, 0, 1)));
	fails("ESTALE", () => volume.store.run((tx) => verbs.readdir(tx, 999, 0, 1)));
});

test("a loop that renames what it reads ends", () => {
	for (let i = 0; i < 5; i++) make(root, `f${i}`);
	let after = 0;
	let steps = 0;
	for (;;) {
		const next = volume.store.run((tx) => verbs.readdir(tx, root, after, 1))[0];
		if (next === undefined) break;
		after = next.cookie;
		rename(root, next.name, root, `${next.name}.bak`);
		assert.ok(++steps <= 5);
	}
	assert.deepEqual(names(root), ["f0.bak", "f1.bak", "f2.bak", "f3.bak", "f4.bak"]);
});

// ── extended attributes ──────────────────────────────────────────────────────────────────────────────────────────

const setXattr = (ino: Ino, name: string, value: Uint8Array, mode: "any" | "create" | "replace" = "any"): Inode =>
	volume.run((tx, context) => verbs.setXattr(tx, context, ino, name, value, mode));
const getXattr = (ino: Ino, name: string): Uint8Array => volume.store.run((tx) => verbs.getXattr(tx, ino, name));
const removeXattr = (ino: Ino, name: string): Inode => volume.run((tx, context) => verbs.removeXattr(tx, context, ino, name));
const listXattrs = (ino: Ino): string[] => volume.store.run((tx) => verbs.listXattrs(tx, ino));

test("extended attributes: set, get, list, remove", () => {
	const file = make(root, "f");
	const bytes = new Uint8Array([0, 1, 255]);
	assert.deepEqual(listXattrs(file.ino), []);
	assert.equal(setXattr(file.ino, "user.b", bytes).xattrCount, 1);
	times(file.ino, "ctime");
	setXattr(file.ino, "user.a", new Uint8Array(0), "create");
	setXattr(file.ino, "user.b", new Uint8Array(65536), "replace");
	assert.equal(getXattr(file.ino, "user.b").length, 65536);
	assert.equal(getXattr(file.ino, "user.a").length, 0);
	assert.deepEqual(listXattrs(file.ino), ["user.a", "user.b"]);
	assert.equal(removeXattr(file.ino, "user.a").xattrCount, 1);
	times(file.ino, "ctime");
	assert.deepEqual(listXattrs(file.ino), ["user.b"]);
	sound();
});

test("extended attributes refuse", () => {
	const file = make(root, "f");
	fails("ENODATA", () => getXattr(file.ino, "user.x"));
	fails("ENODATA", () => removeXattr(file.ino, "user.x"));
	fails("ENODATA", () => setXattr(file.ino, "user.x", new Uint8Array(1), "replace"));
	setXattr(file.ino, "user.x", new Uint8Array(1));
	fails("EEXIST", () => setXattr(file.ino, "user.x", new Uint8Array(1), "create"));
	fails("ENODATA", () => getXattr(file.ino, "user.y"));
	fails("E2BIG", () => setXattr(file.ino, "user.x", new Uint8Array(65537)));
	fails("ERANGE", () => setXattr(file.ino, "", new Uint8Array(1)));
	fails("ERANGE", () => setXattr(file.ino, "x".repeat(256), new Uint8Array(1)));
	fails("EINVAL", () => setXattr(file.ino, "user.\0", new Uint8Array(1)));
	fails("ESTALE", () => listXattrs(999));
	fails("ENOTSUP", () => setXattr(file.ino, "os2.x", new Uint8Array(1)));
	fails("ENOTSUP", () => setXattr(file.ino, "system.nfs4_acl", new Uint8Array(1)));
	fails("ENOTSUP", () => getXattr(file.ino, "x"));
	fails("EINVAL", () => setXattr(file.ino, "user.", new Uint8Array(1)));
});

test("what can be set can be listed: names up to 64 KiB, values up to 16 MiB", () => {
	const file = make(root, "f");
	const long = (i: number): string => `user.${String(i).padStart(250, "x")}`;
	const fit = Math.floor(maximumXattrNameBytes / 256);
	for (let i = 0; i < fit; i++) setXattr(file.ino, long(i), new Uint8Array(1));
	fails("ENOSPC", () => setXattr(file.ino, long(fit), new Uint8Array(1)));
	setXattr(file.ino, long(0), new Uint8Array(2));
	assert.equal(listXattrs(file.ino).length, fit);
	sound();
	const large = make(root, "large");
	const most = new Uint8Array(65_536);
	for (let i = 0; i < maximumXattrValueBytes / most.length; i++) setXattr(large.ino, `user.${i}`, most);
	fails("ENOSPC", () => setXattr(large.ino, "user.more", new Uint8Array(1)));
	setXattr(large.ino, "user.more", new Uint8Array(0));
	setXattr(large.ino, "user.0", new Uint8Array(10));
	setXattr(large.ino, "user.more", new Uint8Array(10));
	sound();
});

// ── access lists and flags ───────────────────────────────────────────────────────────────────────────────────────

/** `[tag, bits, id]` each: <linux/posix_acl.h>. */
const posix = (...entries: readonly (readonly [number, number, number?])[]): Uint8Array => {
	const view = new DataView(new ArrayBuffer(4 + entries.length * 8));
	view.setUint32(0, 2, true);
	for (const [i, [tag, bits, id]] of entries.entries()) {
		view.setUint16(4 + i * 8, tag, true);
		view.setUint16(6 + i * 8, bits, true);
		view.setUint32(8 + i * 8, id ?? 0xffff_ffff, true);
	}
	return new Uint8Array(view.buffer);
};
const accessName = "system.posix_acl_access";
const defaultName = "system.posix_acl_default";

test("an access list and the mode are equal whoever changes which", () => {
	const file = make(root, "f", "file", { mode: 0o2644 });
	fails("ENODATA", () => getXattr(file.ino, accessName));
	const list = posix([1, 6], [2, 7, 1000], [2, 4, 1001], [4, 5], [8, 0, 7], [0x10, 6], [0x20, 0]);
	const set = setXattr(file.ino, accessName, list);
	assert.deepEqual([set.mode, set.access], [0o2660, 1]);
	assert.deepEqual(getXattr(file.ino, accessName), list);
	assert.deepEqual(listXattrs(file.ino), [accessName]);
	setAttributes(file.ino, { mode: 0o741 });
	assert.deepEqual(getXattr(file.ino, accessName), posix([1, 7], [2, 7, 1000], [2, 4, 1001], [4, 5], [8, 0, 7], [0x10, 4], [0x20, 1]));
	sound();
	// Three entries say what a mode says; an empty list and no list are the same.
	assert.deepEqual(pick(setXattr(file.ino, accessName, posix([1, 4], [4, 2], [0x20, 1]))), [0o421, 0]);
	sound();
	setXattr(file.ino, accessName, list);
	assert.deepEqual(pick(removeXattr(file.ino, accessName)), [0o660, 0]);
	removeXattr(file.ino, accessName);
	setXattr(file.ino, accessName, list);
	assert.deepEqual(pick(setXattr(file.ino, accessName, posix())), [0o660, 0]);
	setXattr(file.ino, accessName, list);
	unlink(root, "f");
	volume.run((tx) => verbs.forget(tx, file.ino));
	sound();
});

const pick = ({ mode, access }: Inode): number[] => [mode, access];

test("malformed lists are refused", () => {
	const file = make(root, "f");
	const wrong: [ErrorCode, Uint8Array][] = [
		["EINVAL", new Uint8Array(3)],
		["EINVAL", posix([1, 6], [4, 4])],
		["EINVAL", posix([1, 6], [4, 4], [0x20, 8])],
		["EINVAL", posix([4, 6], [1, 4], [0x20, 0])],
		["EINVAL", posix([1, 6], [1, 6], [4, 4], [0x20, 0])],
		["EINVAL", posix([1, 6], [2, 6, 5], [4, 4], [0x20, 0])],
		["EINVAL", posix([1, 6], [2, 6, 5], [2, 6, 5], [4, 4], [0x10, 7], [0x20, 0])],
		["EINVAL", posix([1, 6], [2, 6], [4, 4], [0x10, 7], [0x20, 0])],
		["EINVAL", posix([1, 6], [4, 4], [0x20, 0], [0x40, 0])],
		["ENOTSUP", new Uint8Array([9, 0, 0, 0])],
		["E2BIG", posix(...Array.from({ length: 512 }, (_, i): [number, number, number] => [2, 7, i]))],
	];
	for (const [code, bytes] of wrong) fails(code, () => setXattr(file.ino, accessName, bytes));
	fails("EACCES", () => setXattr(file.ino, defaultName, posix([1, 6], [4, 4], [0x20, 0])));
	removeXattr(file.ino, defaultName);
	const link = make(root, "l", "symlink", { target: "f" });
	fails("ENOTSUP", () => setXattr(link.ino, accessName, posix([1, 6], [4, 4], [0x20, 0])));
	assert.deepEqual(pick(get(file.ino)), [file.mode, 0]);
});

test("a directory hands down its list instead of the umask", () => {
	const plain = make(root, "plain", "directory", { mode: 0o777, umask: 0o027 });
	assert.equal(plain.mode, 0o750);
	const handed = posix([1, 7], [2, 6, 1000], [4, 5], [0x10, 7], [0x20, 1]);
	setXattr(plain.ino, defaultName, handed);
	assert.deepEqual([get(plain.ino).mode, listXattrs(plain.ino)], [0o750, [defaultName]]);
	const file = make(plain.ino, "f", "file", { mode: 0o666, umask: 0o077 });
	assert.equal(file.mode, 0o660);
	assert.deepEqual(getXattr(file.ino, accessName), posix([1, 6], [2, 6, 1000], [4, 5], [0x10, 6], [0x20, 0]));
	const inner = make(plain.ino, "d", "directory", { mode: 0o755, umask: 0o077 });
	assert.equal(inner.mode, 0o751);
	assert.deepEqual(getXattr(inner.ino, defaultName), handed);
	assert.equal(make(inner.ino, "l", "symlink", { target: "x", umask: 0o077 }).mode, 0o777);
	setXattr(plain.ino, defaultName, posix([1, 6], [4, 4], [0x20, 0]));
	const simple = make(plain.ino, "simple", "file", { mode: 0o777 });
	assert.deepEqual(pick(simple), [0o640, 0]);
	sound();
	removeXattr(plain.ino, defaultName);
	assert.equal(make(plain.ino, "again", "file", { mode: 0o666, umask: 0o022 }).mode, 0o644);
	sound();
});

test("immutable: nothing; append-only: names and contents come, none go", () => {
	const directory = make(root, "d", "directory");
	const file = make(directory.ino, "f");
	make(directory.ino, "other");
	const time = { seconds: 1, nanoseconds: 0 };
	setAttributes(file.ino, { flags: 0x10 });
	const onFile: (() => unknown)[] = [
		() => setAttributes(file.ino, { mode: 0o600 }),
		() => setAttributes(file.ino, { uid: 1 }),
		() => setAttributes(file.ino, { mtime: time }),
		() => setXattr(file.ino, "user.a", new Uint8Array(1)),
		() => removeXattr(file.ino, "user.a"),
		() => setXattr(file.ino, accessName, posix([1, 6], [4, 4], [0x20, 0])),
		() => link(file.ino, root, "x"),
		() => unlink(directory.ino, "f"),
		() => rename(directory.ino, "f", root, "x"),
		() => rename(directory.ino, "other", directory.ino, "f"),
		() => rename(directory.ino, "other", directory.ino, "f", 2),
	];
	for (const change of onFile) fails("EPERM", change);
	fails("EPERM", () => setAttributes(file.ino, { atime: "now", mtime: "now" }));
	setAttributes(file.ino, { flags: 0x20 });
	for (const change of onFile) fails("EPERM", change);
	setAttributes(file.ino, { atime: "now", mtime: "now" });
	setAttributes(file.ino, { flags: 0 });
	setAttributes(directory.ino, { flags: 0x20 });
	make(directory.ino, "more");
	fails("EPERM", () => unlink(directory.ino, "f"));
	fails("EPERM", () => rename(directory.ino, "f", root, "x"));
	link(file.ino, directory.ino, "name");
	setAttributes(directory.ino, { flags: 0x10 });
	fails("EPERM", () => make(directory.ino, "y"));
	fails("EPERM", () => link(file.ino, directory.ino, "y"));
	fails("EPERM", () => rename(root, "d", root, "e"));
	fails("EPERM", () => volume.run((tx, context) => verbs.createUnnamed(tx, context, directory.ino, node("file"), true)));
	fails("ENOTSUP", () => setAttributes(file.ino, { flags: 0x1 }));
	sound();
});

test("nodump and noatime are handed down", () => {
	const directory = make(root, "d", "directory");
	setAttributes(directory.ino, { flags: 0xe0 });
	assert.equal(make(directory.ino, "f").flags, 0xc0);
	assert.equal(make(directory.ino, "p", "fifo").flags, 0);
});

test("a whiteout stays where a name was", () => {
	const directory = make(root, "d", "directory");
	const file = make(root, "a");
	const whiteout = (from: Ino, name: string, to: Ino, newName: string, flags = 4): unknown =>
		volume.run((tx, context) => verbs.rename(tx, context, from, name, to, newName, flags, { uid: 3, gid: 4 }));
	whiteout(root, "a", root, "b");
	const left = lookup(root, "a");
	assert.deepEqual([left.type, left.rdev, left.mode, left.uid, left.gid], ["character", 0, 0, 3, 4]);
	assert.equal(lookup(root, "b").ino, file.ino);
	sound();
	whiteout(root, "b", directory.ino, "c");
	assert.equal(lookup(root, "b").type, "character");
	whiteout(directory.ino, "c", root, "b");
	assert.deepEqual([lookup(root, "b").ino, lookup(directory.ino, "c").type], [file.ino, "character"]);
	whiteout(root, "d", root, "e", 5);
	fails("EEXIST", () => whiteout(root, "e", root, "d", 5));
	fails("EINVAL", () => whiteout(root, "e", root, "d", 6));
	sound();
});

test("somebody else's write takes a program's rights", () => {
	const file = make(root, "f", "file", { mode: 0o6755 });
	setXattr(file.ino, "security.capability", new Uint8Array(20));
	setXattr(file.ino, "user.kept", new Uint8Array(1));
	const after = setAttributes(file.ino, { dropRights: true });
	assert.deepEqual([after.mode, listXattrs(file.ino)], [0o755, ["user.kept"]]);
	setXattr(file.ino, "security.capability", new Uint8Array(20));
	setAttributes(file.ino, { gid: 9 });
	assert.deepEqual(listXattrs(file.ino), ["user.kept"]);
	sound();
});

test("an orphan is taken apart in bounded steps, then forgotten", () => {
	const file = make(root, "f");
	const other = make(root, "other");
	setXattr(other.ino, "user.kept", new Uint8Array(1));
	for (let i = 0; i < 25; i++) setXattr(file.ino, `user.${i}`, new Uint8Array(1));
	assert.throws(() => volume.run((tx) => verbs.reapStep(tx, file.ino, 10)), /not an orphan/);
	unlink(root, "f");
	assert.throws(() => volume.run((tx) => verbs.forget(tx, file.ino)), /not taken apart/);
	let steps = 0;
	for (;;) {
		const done = volume.run((tx) => verbs.reapStep(tx, file.ino, 10));
		assert.ok(volume.store.lastChanges <= 10);
		sound();
		if (done) break;
		steps++;
	}
	assert.equal(steps, 2);
	volume.run((tx) => verbs.forget(tx, file.ino));
	sound();
	fails("ESTALE", () => get(file.ino));
	assert.deepEqual(listXattrs(other.ino), ["user.kept"]);
});

// ── bounds ───────────────────────────────────────────────────────────────────────────────────────────────────────

test("in a directory of 20,000 entries no verb touches more than a few records", async () => {
	const directory = make(root, "d", "directory");
	for (let i = 0; i < 20_000; i++) {
		if (volume.numbers.low) await volume.prepare();
		make(directory.ino, `f${i}`);
	}
	const cheap = (fn: () => unknown): void => {
		fn();
		assert.ok(
			volume.store.lastReads <= 12 && volume.store.lastChanges <= 10,
			`${volume.store.lastReads} reads, ${volume.store.lastChanges} changes`,
		);
	};
	cheap(() => make(directory.ino, "new"));
	cheap(() => lookup(directory.ino, "f19999"));
	cheap(() => unlink(directory.ino, "f7"));
	cheap(() => rename(directory.ino, "f8", directory.ino, "f9"));
	cheap(() => rename(directory.ino, "f10", root, "x"));
	cheap(() => rename(directory.ino, "f11", directory.ino, "f12", 2));
	cheap(() => rename(root, "d", root, "e"));
	cheap(() => volume.store.run((tx) => verbs.readdir(tx, directory.ino, 10_000, 5)));
	fails("ENOTEMPTY", () => rmdir(root, "e"));
	assert.equal(get(directory.ino).entryCount, 19_998);
	sound();
});
