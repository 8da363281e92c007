/** The POSIX suite through a real mount, with the command line's volume under it. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { cannotMount, TestVolume } from "../support/cairn.ts";
import { attributeTests } from "./attributes.ts";
import { accessName, flag, open, posixList, Suite, tag } from "./harness.ts";
import { nameTests } from "./names.ts";
import { xattrTests } from "./xattrs.ts";

const reason = cannotMount();

if (reason !== undefined) test("POSIX suite", { skip: reason }, () => {});
else {
	let volume: TestVolume | undefined;
	const suite = new Suite(() => (volume as TestVolume).mountpoint);
	before(async () => {
		volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
	});
	after(async () => {
		await suite.end();
		await volume?.close();
	});
	nameTests(suite);
	attributeTests(suite);
	xattrTests(suite);

	test("access lists, attributes, flags and times survive a remount", async () => {
		await suite.end();
		const list = posixList([tag.owner, 6], [tag.user, 7, 1002], [tag.group, 4], [tag.mask, 6], [tag.other, 0]);
		const mounted = volume as TestVolume;
		const first = new Suite(() => mounted.mountpoint, "remount");
		const c = await first.begin();
		await c.rows([
			["", "alice", "touch", "f", open.create | open.write, 0o600],
			["", "alice", "setxattr", "f", accessName, list],
			["", "alice", "setxattr", "f", "user.big", 65_536],
			["", "root", "setxattr", "f", "trusted.t", "1"],
			["", "alice", "utimens", "f", [-5, 123_456_789], [2 ** 33, 1]],
			["", "root", "setFlags", "f", flag.append | flag.noDump],
		]);
		const before = await c.stat("f");
		await first.end();
		await mounted.remount();
		const second = new Suite(() => mounted.mountpoint);
		const again = await second.begin(c.name);
		assert.deepEqual(await again.stat("f"), before);
		await again.rows([
			[list, "alice", "getxattr", "f", accessName],
			["x".repeat(65_536), "alice", "getxattr", "f", "user.big"],
			[[accessName, "trusted.t", "user.big"], "root", "listxattr", "f"],
			[flag.append | flag.noDump, "root", "getFlags", "f"],
			["EPERM", "root", "unlink", "f"],
			["", "bob", "touch", "f", open.read],
			["", "root", "setFlags", "f", 0],
		]);
		await second.end();
	});
}
