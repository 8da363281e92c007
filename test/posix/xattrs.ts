/** Extended attributes (xattr(7)) and POSIX access lists (acl(5)). */
import assert from "node:assert/strict";
import { type Suite, accessName, defaultName, fileType, open, posixList, tag } from "./harness.ts";

export function xattrTests(suite: Suite): void {
	spaceTests(suite);
	sizeTests(suite);
	listTests(suite);
	inheritanceTests(suite);
}

const create = 1;
const replace = 2;

function spaceTests(suite: Suite): void {
	suite.check("name spaces: user, trusted, security, system, and no others", async (c) => {
		await c.rows([
			["", "alice", "touch", "f", open.create | open.write, 0o640],
			["", "alice", "symlink", "f", "s"],
			["", "alice", "mknod", "p", fileType.fifo | 0o666],
			["", "alice", "setxattr", "f", "user.a", "1"],
			["1", "alice", "getxattr", "f", "user.a"],
			["EACCES", "bob", "getxattr", "f", "user.a"],
			["EACCES", "bob", "setxattr", "f", "user.a", "2"],
			["EEXIST", "alice", "setxattr", "f", "user.a", "2", create],
			["ENODATA", "alice", "setxattr", "f", "user.b", "2", replace],
			["", "alice", "setxattr", "f", "user.a", "", replace],
			["", "alice", "getxattr", "f", "user.a"],
			["ENODATA", "alice", "getxattr", "f", "user.b"],
			["ENODATA", "alice", "removexattr", "f", "user.b"],
			["EPERM", "alice", "setxattr", "s", "user.a", "1"],
			["EPERM", "alice", "setxattr", "p", "user.a", "1"],
			["EPERM", "root", "setxattr", "p", "user.a", "1"],
			["EPERM", "alice", "setxattr", "f", "trusted.a", "1"],
			["", "root", "setxattr", "f", "trusted.a", "1"],
			["", "root", "setxattr", "s", "trusted.a", "link"],
			["ENODATA", "alice", "getxattr", "f", "trusted.a"],
			["1", "root", "getxattr", "f", "trusted.a"],
			[["user.a"], "alice", "listxattr", "f"],
			[["trusted.a", "user.a"], "root", "listxattr", "f"],
			["EPERM", "alice", "setxattr", "f", "security.x", "1"],
			["", "root", "setxattr", "f", "security.x", "1"],
			["1", "bob", "getxattr", "f", "security.x"],
			["EPERM", "alice", "removexattr", "f", "security.x"],
			["EPERM", "alice", "removexattr", "f", "trusted.a"],
			["ENOTSUP", "alice", "setxattr", "f", "os2.a", "1"],
			["ENOTSUP", "alice", "setxattr", "f", "nothing", "1"],
			["ENOTSUP", "root", "setxattr", "f", "system.other", "1"],
			["ENOTSUP", "root", "getxattr", "f", "os2.a"],
			["ENOTSUP", "root", "removexattr", "f", "os2.a"],
			["EINVAL", "alice", "setxattr", "f", "user.", "1"],
			["EINVAL", "alice", "setxattr", "f", "user.x", "1", 4],
			["", "alice", "removexattr", "f", "user.a"],
			[["security.x"], "alice", "listxattr", "f"],
		]);
	});

	suite.check("user attributes of a sticky directory are its owner's to write", async (c) => {
		await c.rows([
			["", "alice", "mkdir", "d", 0o777],
			["", "alice", "chmod", "d", 0o1777],
			["", "alice", "setxattr", "d", "user.a", "1"],
			["EPERM", "bob", "setxattr", "d", "user.b", "1"],
			["1", "bob", "getxattr", "d", "user.a"],
			["", "alice", "chmod", "d", 0o777],
			["", "bob", "setxattr", "d", "user.b", "1"],
		]);
	});
}

function sizeTests(suite: Suite): void {
	suite.check("names of 255 bytes, values and lists of 64 KiB", async (c) => {
		const longest = `user.${"n".repeat(250)}`;
		await c.rows([
			["", "alice", "touch", "f", open.create | open.write, 0o644],
			["", "alice", "setxattr", "f", longest, "v"],
			["v", "alice", "getxattr", "f", longest],
			["ERANGE", "alice", "setxattr", "f", `${longest}n`, "v"],
			["", "alice", "setxattr", "f", "user.big", 65_536],
			[65_536, "alice", "getxattr", "f", "user.big", 0],
			["x".repeat(65_536), "alice", "getxattr", "f", "user.big"],
			["ERANGE", "alice", "getxattr", "f", "user.big", 65_535],
			["E2BIG", "alice", "setxattr", "f", "user.big", 65_537],
			[longest.length + 10, "alice", "listxattr", "f", 0],
			["ERANGE", "alice", "listxattr", "f", 20],
			["", "alice", "touch", "g", open.create | open.write, 0o644],
		]);
		const each = (i: number): string => `user.${String(i).padStart(250, "0")}`;
		const fit = Math.floor((65_536 - 64) / 256);
		for (let i = 0; i < fit; i++) await c.do("alice", "setxattr", "g", each(i), "1");
		await c.rows([
			["ENOSPC", "alice", "setxattr", "g", each(fit), "1"],
			["", "alice", "setxattr", "g", each(0), "2"],
			[fit * 256, "alice", "listxattr", "g", 0],
			["", "alice", "removexattr", "g", each(1)],
			["", "alice", "setxattr", "g", each(fit), "1"],
		]);
		assert.equal(((await c.do("alice", "listxattr", "g")) as string[]).length, fit);
	});
}

const listed = posixList([tag.owner, 6], [tag.user, 7, 1002], [tag.group, 4], [tag.namedGroup, 2, 3002], [tag.mask, 6], [tag.other, 0]);

function listTests(suite: Suite): void {
	suite.check("an access list decides, and is equal to the mode", async (c) => {
		await c.rows([
			["", "alice", "touch", "f", open.create | open.write, 0o600],
			["EACCES", "bob", "touch", "f", open.read],
			["EPERM", "bob", "setxattr", "f", accessName, listed],
			["ENODATA", "alice", "getxattr", "f", accessName],
			["", "alice", "setxattr", "f", accessName, listed],
			[listed, "bob", "getxattr", "f", accessName],
			[[accessName], "alice", "listxattr", "f"],
			["", "bob", "touch", "f", open.readWrite],
			["EACCES", "bob", "access", "f", 1],
			["", "carol", "touch", "f", open.write],
			["EACCES", "carol", "touch", "f", open.read],
			["EACCES", "carol", "touch", "f", open.readWrite],
		]);
		assert.equal(await c.mode("f"), 0o660);
		// chmod changes the mask, not the group's entry.
		await c.rows([
			["", "alice", "chmod", "f", 0o740],
			[
				posixList([tag.owner, 7], [tag.user, 7, 1002], [tag.group, 4], [tag.namedGroup, 2, 3002], [tag.mask, 4], [tag.other, 0]),
				"alice",
				"getxattr",
				"f",
				accessName,
			],
			["", "bob", "touch", "f", open.read],
			["EACCES", "bob", "touch", "f", open.write],
			["EACCES", "carol", "touch", "f", open.write],
			["", "alice", "removexattr", "f", accessName],
			["ENODATA", "alice", "getxattr", "f", accessName],
			["EACCES", "bob", "touch", "f", open.read],
		]);
		assert.equal(await c.mode("f"), 0o740);
		await c.rows([
			["", "alice", "setxattr", "f", accessName, posixList([tag.owner, 6], [tag.group, 4], [tag.other, 4])],
			["ENODATA", "alice", "getxattr", "f", accessName],
			["EINVAL", "alice", "setxattr", "f", accessName, posixList([tag.owner, 6], [tag.group, 4])],
			["EINVAL", "alice", "setxattr", "f", accessName, "xyz"],
			["EACCES", "alice", "setxattr", "f", defaultName, posixList([tag.owner, 6], [tag.group, 4], [tag.other, 4])],
		]);
		assert.equal(await c.mode("f"), 0o644);
	});

	suite.check("an access list on a directory: search, write, and the sticky bit beside it", async (c) => {
		const list = posixList([tag.owner, 7], [tag.user, 7, 1002], [tag.group, 0], [tag.mask, 7], [tag.other, 0]);
		await c.rows([
			["", "alice", "mkdir", "d", 0o700],
			["", "alice", "touch", "d/f", open.create | open.write, 0o666],
			["EACCES", "bob", "stat", "d/f"],
			["", "alice", "setxattr", "d", accessName, list],
			["", "bob", "touch", "d/g", open.create | open.write, 0o666],
			["EACCES", "carol", "names", "d"],
			["", "alice", "chmod", "d", 0o1770],
			["EPERM", "bob", "unlink", "d/f"],
			["", "bob", "unlink", "d/g"],
		]);
	});

	suite.check("setting an access list from outside the group takes the set-gid bit", async (c) => {
		await c.rows([
			["", "alice", "touch", "f", open.create | open.write, 0o755],
			["", "root", "chown", "f", -1, 2002],
			["", "root", "chmod", "f", 0o2755],
			["", "root", "setxattr", "f", accessName, listed],
		]);
		assert.equal(await c.mode("f"), 0o2660);
		await c.do("alice", "setxattr", "f", accessName, listed);
		assert.equal(await c.mode("f"), 0o660);
	});
}

function inheritanceTests(suite: Suite): void {
	suite.check("a directory's list replaces the umask and is handed down", async (c) => {
		const handed = posixList([tag.owner, 7], [tag.user, 6, 1002], [tag.group, 5], [tag.mask, 7], [tag.other, 1]);
		const expected: [string, number, string][] = [
			["f", 0o660, posixList([tag.owner, 6], [tag.user, 6, 1002], [tag.group, 5], [tag.mask, 6], [tag.other, 0])],
			["d", 0o771, handed],
			["p", 0o660, posixList([tag.owner, 6], [tag.user, 6, 1002], [tag.group, 5], [tag.mask, 6], [tag.other, 0])],
			["u", 0o660, posixList([tag.owner, 6], [tag.user, 6, 1002], [tag.group, 5], [tag.mask, 6], [tag.other, 0])],
		];
		await c.rows([
			["", "alice", "mkdir", "top", 0o777],
			["", "alice", "setxattr", "top", defaultName, handed],
			["ENODATA", "alice", "getxattr", "top", accessName],
			["", "alice", "umask", 0o077],
			["", "alice", "touch", "top/f", open.create | open.write, 0o666],
			["", "alice", "mkdir", "top/d", 0o777],
			["", "alice", "mknod", "top/p", fileType.fifo | 0o666],
			["", "alice", "symlink", "x", "top/s"],
		]);
		const fd = await c.do("alice", "open", "top", open.unnamed | open.write, 0o666);
		await c.rows([
			["", "alice", "linkFd", fd, "top/u"],
			["", "alice", "close", fd],
		]);
		for (const [name, mode, list] of expected) {
			assert.equal((await c.mode(`top/${name}`)).toString(8), mode.toString(8), name);
			await c.rows([[list, "alice", "getxattr", `top/${name}`, accessName]]);
		}
		await c.rows([
			[handed, "alice", "getxattr", "top/d", defaultName],
			["ENODATA", "alice", "getxattr", "top/f", defaultName],
			[[accessName, defaultName], "alice", "listxattr", "top/d"],
			["", "alice", "setxattr", "top", defaultName, posixList([tag.owner, 6], [tag.group, 4], [tag.other, 0])],
			["", "alice", "touch", "top/simple", open.create | open.write, 0o777],
			["ENODATA", "alice", "getxattr", "top/simple", accessName],
			["", "alice", "removexattr", "top", defaultName],
			["", "alice", "touch", "top/masked", open.create | open.write, 0o666],
		]);
		assert.deepEqual([await c.mode("top/simple"), await c.mode("top/masked")], [0o640, 0o600]);
		await c.do("alice", "umask", 0);
	});
}
