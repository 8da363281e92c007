import assert from "node:assert/strict";
import { test } from "node:test";
import { TestVolume } from "../../test/support/map-records.ts";
import { type ErrorCode, isFsError } from "../base/errors.ts";
import type { Inode, RecordTransaction } from "../records/interface.ts";
import {
	checkAccess,
	checkDelete,
	checkMove,
	checkXattr,
	creationMode,
	mayAccess,
	mayDelete,
	modeAfterChown,
	modeAfterWrite,
	permittedChange,
} from "./access.ts";
import type { Identity } from "./interface.ts";
import { makeRoot } from "./verbs.ts";

const volume = await TestVolume.empty();
const template = volume.run((tx, context) => makeRoot(tx, context, 10, 20));
const node = (change: Partial<Inode>): Inode => ({ ...template, type: "file", uid: 10, gid: 20, mode: 0o640, ...change });
/** Modes decide here: no record is read. */
const tx = {} as RecordTransaction;
const root: Identity = { uid: 0, gid: 0, groups: [] };
const owner: Identity = { uid: 10, gid: 99, groups: [] };
const member: Identity = { uid: 11, gid: 20, groups: [] };
const supplementary: Identity = { uid: 12, gid: 99, groups: [5, 20] };
const stranger: Identity = { uid: 13, gid: 99, groups: [] };
const fails = (code: ErrorCode, fn: () => unknown): void => assert.throws(fn, (error) => isFsError(error, code), code);

test("one class decides: owner, group, others", () => {
	const wants = ["read", "write", "execute"] as const;
	const can = (mode: number, identity: Identity): string =>
		wants.filter((want) => mayAccess(node({ mode }), undefined, identity, want)).join(" ");
	assert.equal(can(0o640, owner), "read write");
	assert.equal(can(0o640, member), "read");
	assert.equal(can(0o640, supplementary), "read");
	assert.equal(can(0o640, stranger), "");
	assert.equal(can(0o077, owner), "");
	assert.equal(can(0o707, member), "");
	assert.equal(can(0o701, stranger), "execute");
	fails("EACCES", () => checkAccess(tx, node({ mode: 0o400 }), owner, "read", "write"));
	checkAccess(tx, node({ mode: 0o600 }), owner, "read", "write");
});

test("root passes, but does not execute what nobody may", () => {
	assert.ok(mayAccess(node({ mode: 0 }), undefined, root, "write"));
	assert.ok(!mayAccess(node({ mode: 0o666 }), undefined, root, "execute"));
	assert.ok(mayAccess(node({ mode: 0o001 }), undefined, root, "execute"));
	assert.ok(mayAccess(node({ mode: 0, type: "directory" }), undefined, root, "execute"));
});

test("sticky directories", () => {
	const parent = node({ type: "directory", mode: 0o1777, uid: 50 });
	assert.ok(mayDelete(parent, node({}), owner));
	assert.ok(mayDelete(parent, node({}), root));
	assert.ok(mayDelete(parent, node({}), { uid: 50, gid: 1, groups: [] }));
	assert.ok(!mayDelete(parent, node({}), member));
	assert.ok(mayDelete({ ...parent, mode: 0o777 }, node({}), stranger));
	fails("EPERM", () => checkDelete(tx, parent, node({}), member));
	fails("EACCES", () => checkDelete(tx, { ...parent, mode: 0o755 }, node({}), owner));
	checkDelete(tx, parent, node({}), owner);
	fails("EACCES", () => checkMove(tx, node({ type: "directory", mode: 0o755 }), stranger));
	checkMove(tx, node({ mode: 0 }), stranger);
});

test("chmod is the owner's; a set-gid bit needs membership", () => {
	assert.deepEqual(permittedChange(tx, node({}), root, { mode: 0o2755 }), { mode: 0o2755 });
	assert.deepEqual(permittedChange(tx, node({}), owner, { mode: 0o2755 }), { mode: 0o755 });
	assert.deepEqual(permittedChange(tx, node({ gid: 99 }), owner, { mode: 0o2755 }), { mode: 0o2755 });
	fails("EPERM", () => permittedChange(tx, node({}), member, { mode: 0o777 }));
});

test("chown", () => {
	fails("EPERM", () => permittedChange(tx, node({}), owner, { uid: 11 }));
	permittedChange(tx, node({}), owner, { uid: 10 });
	fails("EPERM", () => permittedChange(tx, node({}), stranger, { uid: 10 }));
	permittedChange(tx, node({}), owner, { gid: 99 });
	permittedChange(tx, node({}), owner, { gid: 20 });
	fails("EPERM", () => permittedChange(tx, node({}), owner, { gid: 21 }));
	fails("EPERM", () => permittedChange(tx, node({}), member, { gid: 20 }));
	permittedChange(tx, node({}), root, { uid: 1, gid: 1 });
});

test("times", () => {
	const time = { seconds: 1, nanoseconds: 0 };
	permittedChange(tx, node({}), owner, { atime: time, mtime: "now" });
	fails("EPERM", () => permittedChange(tx, node({ mode: 0o666 }), stranger, { mtime: time, atime: "now" }));
	permittedChange(tx, node({ mode: 0o666 }), stranger, { atime: "now", mtime: "now" });
	fails("EACCES", () => permittedChange(tx, node({ mode: 0o644 }), stranger, { atime: "now", mtime: "now" }));
	fails("EPERM", () => permittedChange(tx, node({ mode: 0o666 }), stranger, { mtime: "now" }));
	fails("EPERM", () => permittedChange(tx, node({ mode: 0o666 }), stranger, { ctime: time }));
});

test("set-id bits go when the owner changes and when others write", () => {
	assert.equal(modeAfterChown(node({ mode: 0o6755 })), 0o755);
	assert.equal(modeAfterChown(node({ mode: 0o6745 })), 0o2745);
	assert.equal(modeAfterChown(node({ mode: 0o6755, type: "directory" })), 0o6755);
	assert.equal(modeAfterWrite(node({ mode: 0o6775 }), owner), 0o775);
	assert.equal(modeAfterWrite(node({ mode: 0o6775 }), root), 0o6775);
	assert.equal(modeAfterWrite(node({ mode: 0o644 }), stranger), 0o644);
});

test("a set-gid program cannot be made for a group one is not in", () => {
	const parent = node({ type: "directory", mode: 0o2777, gid: 20 });
	assert.equal(creationMode(parent, stranger, "file", 0o2755), 0o755);
	assert.equal(creationMode(parent, stranger, "file", 0o2745), 0o2745);
	assert.equal(creationMode(parent, member, "file", 0o2755), 0o2755);
	assert.equal(creationMode(parent, stranger, "directory", 0o2755), 0o2755);
	assert.equal(creationMode({ ...parent, mode: 0o777 }, stranger, "file", 0o2755), 0o2755);
});

test("extended attributes by name space", () => {
	checkXattr(tx, node({}), owner, "user.a", "write");
	fails("EACCES", () => checkXattr(tx, node({}), stranger, "user.a", "read"));
	fails("EPERM", () => checkXattr(tx, node({ type: "fifo" }), root, "user.a", "write"));
	fails("ENODATA", () => checkXattr(tx, node({ type: "symlink" }), root, "user.a", "read"));
	fails("EPERM", () => checkXattr(tx, node({}), owner, "trusted.a", "write"));
	fails("ENODATA", () => checkXattr(tx, node({}), owner, "trusted.a", "read"));
	checkXattr(tx, node({}), root, "trusted.a", "write");
	checkXattr(tx, node({}), stranger, "security.a", "read");
	fails("EPERM", () => checkXattr(tx, node({}), owner, "security.a", "write"));
	checkXattr(tx, node({}), root, "security.a", "write");
	checkXattr(tx, node({}), owner, "system.posix_acl_access", "write");
	fails("EPERM", () => checkXattr(tx, node({}), stranger, "system.posix_acl_access", "write"));
	fails("EPERM", () => checkXattr(tx, node({ type: "directory", mode: 0o1777 }), stranger, "user.a", "write"));
});

test("an access list: a named user, then any matching group, then others; the mask bounds all but owner and others", () => {
	const list = { group: 4, users: [{ id: 13, bits: 6 }], groups: [{ id: 5, bits: 2 }] };
	const can = (mode: number, identity: Identity): string =>
		(["read", "write", "execute"] as const).filter((want) => mayAccess(node({ mode, access: 1 }), list, identity, want)).join(" ");
	assert.equal(can(0o060, owner), "");
	assert.equal(can(0o070, stranger), "read write");
	assert.equal(can(0o047, stranger), "read");
	assert.equal(can(0o071, member), "read");
	assert.equal(can(0o070, { uid: 14, gid: 5, groups: [] }), "write");
	assert.equal(can(0o071, { uid: 14, gid: 1, groups: [] }), "execute");
	assert.equal(can(0o007, { uid: 14, gid: 5, groups: [] }), "");
	// Both of two groups are not one that grants both.
	assert.equal(can(0o070, supplementary), "read write");
	assert.ok(!mayAccess(node({ mode: 0o070, access: 1 }), list, supplementary, "read", "write"));
	assert.ok(mayAccess(node({ mode: 0o070, access: 1 }), list, stranger, "read", "write"));
});

test("flags are the owner's to set, those that bind the owner are root's", () => {
	assert.deepEqual(permittedChange(tx, node({}), owner, { flags: 0x40 }), { flags: 0x40 });
	fails("EPERM", () => permittedChange(tx, node({}), stranger, { flags: 0x40 }));
	fails("EPERM", () => permittedChange(tx, node({}), owner, { flags: 0x10 }));
	fails("EPERM", () => permittedChange(tx, node({ flags: 0x20 }), owner, { flags: 0 }));
	permittedChange(tx, node({ flags: 0x30 }), owner, { flags: 0x70 });
	permittedChange(tx, node({}), root, { flags: 0x30 });
});
