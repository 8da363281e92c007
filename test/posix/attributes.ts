/** Modes, owners, times, flags. */
import assert from "node:assert/strict";
import { type Case, type Suite, fileType, flag, now, omit, open } from "./harness.ts";

export function attributeTests(suite: Suite): void {
	ownerTests(suite);
	rightsTests(suite);
	timeTests(suite);
	flagTests(suite);
}

async function file(c: Case, path: string, mode: number, who: "alice" | "bob" | "root" = "alice"): Promise<void> {
	await c.rows([
		["", who, "touch", path, open.create | open.write, 0o600],
		["", who, "chmod", path, mode],
	]);
}

function ownerTests(suite: Suite): void {
	suite.check("chmod and chown: whose right it is", async (c) => {
		await file(c, "f", 0o644);
		await c.rows([
			["EPERM", "bob", "chmod", "f", 0o777],
			["EPERM", "bob", "chown", "f", 1002, -1],
			["EPERM", "alice", "chown", "f", 1002, -1],
			["EPERM", "alice", "chown", "f", -1, 2002],
			["", "alice", "chown", "f", 1001, -1],
			["", "alice", "chown", "f", -1, 3001],
			["EPERM", "carol", "chown", "f", -1, 3001],
			["", "root", "chown", "f", 1003, 2002],
			["EPERM", "alice", "chmod", "f", 0o600],
			["", "carol", "chmod", "f", 0o600],
			["ENOENT", "root", "chmod", "none", 0o600],
			["EACCES", "alice", "touch", "f", open.read],
		]);
		const { uid, gid, mode } = await c.stat("f");
		assert.deepEqual([uid, gid, mode], [1003, 2002, 0o600]);
	});

	suite.check("one class of the mode decides; supplementary groups count", async (c) => {
		await file(c, "f", 0o640);
		await c.rows([
			["", "alice", "chown", "f", -1, 3001],
			["", "carol", "touch", "f", open.read],
			["EACCES", "carol", "touch", "f", open.write],
			["EACCES", "bob", "touch", "f", open.read],
			["", "alice", "chmod", "f", 0o047],
			["EACCES", "alice", "touch", "f", open.read],
			["EACCES", "carol", "touch", "f", open.write],
			["", "bob", "touch", "f", open.readWrite],
			["", "root", "touch", "f", open.readWrite],
			["", "alice", "chmod", "f", 0o600],
			["EACCES", "root", "access", "f", 1],
			["", "root", "access", "f", 6],
			["EACCES", "bob", "access", "f", 4],
			["", "bob", "access", "f", 0],
		]);
	});

	suite.check("chmod by somebody outside the group loses the set-gid bit", async (c) => {
		await file(c, "f", 0o644);
		await c.rows([
			["", "root", "chown", "f", -1, 2002],
			["", "alice", "chmod", "f", 0o2755],
		]);
		assert.equal(await c.mode("f"), 0o755);
		await c.rows([["", "root", "chmod", "f", 0o6755]]);
		assert.equal(await c.mode("f"), 0o6755);
	});
}

function rightsTests(suite: Suite): void {
	const changes: [string, (c: Case) => Promise<unknown>][] = [
		["write", (c) => c.do("bob", "append", "f", "x")],
		["truncate", (c) => c.do("bob", "truncate", "f", 1)],
		["O_TRUNC", (c) => c.do("bob", "touch", "f", open.write | open.truncate)],
	];
	for (const [what, change] of changes) {
		suite.check(`${what} by another takes set-id bits; by root it does not`, async (c) => {
			await file(c, "f", 0o6777);
			await change(c);
			assert.equal((await c.mode("f")).toString(8), "777");
			await c.rows([["", "alice", "chmod", "f", 0o6767]]);
			await change(c);
			// Set-gid without group execution stays.
			assert.equal((await c.mode("f")).toString(8), "2767");
			await c.rows([
				["", "alice", "chmod", "f", 0o6777],
				["", "root", "append", "f", "y"],
			]);
			assert.equal((await c.mode("f")).toString(8), "6777");
		});
	}

	suite.check("an owner change takes set-id bits of files, not of directories", async (c) => {
		await file(c, "f", 0o6755);
		await c.rows([
			["", "alice", "mkdir", "d", 0o755],
			["", "alice", "chmod", "d", 0o2755],
			["", "root", "chown", "f", 1002, -1],
			["", "root", "chown", "d", 1002, -1],
		]);
		assert.deepEqual([await c.mode("f"), await c.mode("d")], [0o755, 0o2755]);
		await c.rows([
			["", "bob", "chmod", "f", 0o6711],
			["", "bob", "chown", "f", -1, 2002],
		]);
		assert.equal(await c.mode("f"), 0o711);
	});

	suite.check("capabilities of a program go at write, truncate and chown, by root's hand too", async (c) => {
		await file(c, "f", 0o755, "root");
		// VFS_CAP_REVISION_2, CAP_NET_RAW permitted and effective.
		const capability = `\u0001\0\0\u0002\0 ${"\0".repeat(14)}`;
		const name = "security.capability";
		const set = ["", "root", "setxattr", "f", name, capability] as const;
		const gone = ["ENODATA", "root", "getxattr", "f", name] as const;
		await c.rows([
			["EPERM", "alice", "setxattr", "f", name, capability],
			set,
			[capability, "bob", "getxattr", "f", name],
			["", "root", "append", "f", "x"],
			gone,
			set,
			["", "root", "truncate", "f", 0],
			gone,
			set,
			["", "root", "touch", "f", open.write | open.truncate],
			gone,
			set,
			["", "root", "chown", "f", 1001, -1],
			gone,
			set,
			["", "root", "chmod", "f", 0o700],
			[capability, "root", "getxattr", "f", name],
		]);
	});
}

function timeTests(suite: Suite): void {
	suite.check("times: before 1970, beyond 2038 and 2106, nanoseconds, NOW and OMIT", async (c) => {
		await file(c, "f", 0o644);
		const times: [number, number][] = [
			[-2_000_000_000, 1],
			[-1, 999_999_999],
			[0, 0],
			[2 ** 31, 5],
			[2 ** 32 + 7, 123_456_789],
			[2 ** 34, 999_999_999],
		];
		for (const time of times) {
			await c.do("alice", "utimens", "f", time, [time[0] + 1, time[1]]);
			const { atime, mtime } = await c.stat("f");
			assert.deepEqual([atime, mtime], [time, [time[0] + 1, time[1]]]);
		}
		const before = await c.stat("f");
		await c.rows([["", "alice", "utimens", "f", [0, omit], [7, 8]]]);
		const one = await c.stat("f");
		assert.deepEqual([one.atime, one.mtime], [before.atime, [7, 8]]);
		await c.rows([["", "alice", "utimens", "f", [0, now], [0, omit]]]);
		const other = await c.stat("f");
		assert.deepEqual(other.mtime, [7, 8]);
		assert.ok(other.atime[0] > 1_700_000_000 && other.atime[0] < 2 ** 33, `now is ${other.atime}`);
		await c.rows([
			["", "alice", "utimens", "f", [0, now], [0, now]],
			["EINVAL", "alice", "utimens", "f", [0, 1_000_000_000], [0, 0]],
		]);
		const both = await c.stat("f");
		assert.deepEqual(both.atime, both.mtime);
	});

	suite.check("times: whose right it is", async (c) => {
		await file(c, "f", 0o644);
		await c.rows([
			["EPERM", "bob", "utimens", "f", [1, 1], [1, 1]],
			["EACCES", "bob", "utimesNow", "f"],
			["", "alice", "chmod", "f", 0o666],
			["", "bob", "utimesNow", "f"],
			["EPERM", "bob", "utimens", "f", [0, now], [0, omit]],
			["EPERM", "bob", "utimens", "f", [1, 1], [1, 1]],
			["", "bob", "utimens", "f", [0, omit], [0, omit]],
		]);
	});

	suite.check("birth, and nanoseconds of a real clock", async (c) => {
		let fine = 0;
		let last: readonly [number, number] = [0, 0];
		for (let i = 0; i < 20; i++) {
			await file(c, `f${i}`, 0o644);
			const { hasBirth, btime, ctime } = await c.stat(`f${i}`);
			assert.ok(hasBirth);
			assert.ok(btime[0] > last[0] || (btime[0] === last[0] && btime[1] > last[1]), `${btime} behind ${last}`);
			assert.ok(ctime[0] > btime[0] || (ctime[0] === btime[0] && ctime[1] >= btime[1]));
			if (btime[1] % 1_000_000 !== 0) fine++;
			last = btime;
		}
		assert.ok(fine >= 15, `${fine} of 20 times have more than milliseconds`);
		const { btime } = await c.stat("f0");
		await c.do("alice", "append", "f0", "x");
		await c.do("alice", "utimens", "f0", [1, 1], [1, 1]);
		assert.deepEqual((await c.stat("f0")).btime, btime);
	});

	suite.check("what changes which times", async (c) => {
		await c.rows([
			["", "alice", "mkdir", "d", 0o755],
			["", "alice", "touch", "d/f", open.create | open.write, 0o644],
		]);
		const steps: [string, (c: Case) => Promise<unknown>, string, string][] = [
			["chmod", () => c.do("alice", "chmod", "d/f", 0o600), "", "ctime"],
			["write", () => c.do("alice", "append", "d/f", "x"), "", "mtime ctime"],
			["truncate to the same", () => c.do("alice", "truncate", "d/f", 1), "", "mtime ctime"],
			["setxattr", () => c.do("alice", "setxattr", "d/f", "user.a", "1"), "", "ctime"],
			["flags", () => c.do("alice", "setFlags", "d/f", flag.noDump), "", "ctime"],
			["link", () => c.do("alice", "link", "d/f", "d/g"), "mtime ctime", "ctime"],
			["unlink", () => c.do("alice", "unlink", "d/g"), "mtime ctime", "ctime"],
			["rename", () => c.do("alice", "rename", "d/f", "d/h").then(() => c.do("alice", "rename", "d/h", "d/f")), "mtime ctime", "ctime"],
			["mkdir", () => c.do("alice", "mkdir", "d/x", 0o755), "mtime ctime", ""],
			["rmdir", () => c.do("alice", "rmdir", "d/x"), "mtime ctime", ""],
			["read", () => c.do("alice", "names", "d"), "", ""],
		];
		for (const [what, step, directory, node] of steps) {
			const [d, f] = [await c.stat("d"), await c.stat("d/f")];
			await step(c);
			const moved = (before: typeof d, after: typeof d): string =>
				(["mtime", "ctime"] as const)
					.filter((time) => before[time][0] < after[time][0] || (before[time][0] === after[time][0] && before[time][1] < after[time][1]))
					.join(" ");
			assert.deepEqual([moved(d, await c.stat("d")), moved(f, await c.stat("d/f"))], [directory, node], what);
		}
	});
}

function flagTests(suite: Suite): void {
	suite.check("flags are shown as they were set; those that are not kept are refused", async (c) => {
		await file(c, "f", 0o644);
		await c.rows([
			["", "alice", "mkdir", "d", 0o755],
			[0, "alice", "getFlags", "f"],
			["", "alice", "setFlags", "f", flag.noDump | flag.noAccessTime],
			[0xc0, "bob", "getFlags", "f"],
			[0xc0, "alice", "getExtendedFlags", "f"],
			["EPERM", "bob", "setFlags", "f", 0],
			["EPERM", "alice", "setFlags", "f", flag.immutable],
			["EPERM", "alice", "setFlags", "f", flag.append],
			["ENOTSUP", "root", "setFlags", "f", 0x4],
			["ENOTSUP", "root", "setExtendedFlags", "f", 0x100],
			["ENOTSUP", "root", "setExtendedFlags", "f", 0, 7],
			["", "alice", "setExtendedFlags", "f", 0x40],
			[flag.noAccessTime, "alice", "getFlags", "f"],
			[0, "alice", "getVersion", "f"],
			[0, "alice", "getVersion", "d"],
			["", "alice", "setFlags", "d", flag.noDump],
			["", "alice", "touch", "d/f", open.create | open.write, 0o644],
			["", "alice", "mkdir", "d/e", 0o755],
			[flag.noDump, "alice", "getFlags", "d/f"],
			[flag.noDump, "alice", "getFlags", "d/e"],
			["", "alice", "append", "f", "12345"],
			[5, "alice", "readable", "f"],
			["", "alice", "mknod", "p", fileType.fifo | 0o644],
		]);
	});

	suite.check("immutable: nobody changes it, root neither", async (c) => {
		await file(c, "f", 0o666);
		const fd = await c.do("alice", "open", "f", open.readWrite);
		await c.rows([
			["", "alice", "mkdir", "d", 0o777],
			["", "alice", "touch", "d/inside", open.create | open.write, 0o644],
			["", "root", "setFlags", "f", flag.immutable],
			["", "root", "setFlags", "d", flag.immutable],
		]);
		for (const who of ["alice", "root"] as const) {
			await c.rows([
				["EPERM", who, "touch", "f", open.write],
				["EPERM", who, "touch", "f", open.write | open.append],
				["EPERM", who, "touch", "f", open.write | open.truncate],
				["", who, "touch", "f", open.read],
				["EPERM", who, "truncate", "f", 0],
				["EPERM", who, "chmod", "f", 0o600],
				["EPERM", who, "chown", "f", 1001, 2001],
				["EPERM", who, "utimens", "f", [1, 1], [1, 1]],
				["EPERM", who, "utimesNow", "f"],
				["EPERM", who, "setxattr", "f", "user.a", "1"],
				["EPERM", who, "unlink", "f"],
				["EPERM", who, "rename", "f", "g"],
				["EPERM", who, "link", "f", "g"],
				["EPERM", who, "rmdir", "d"],
				["EPERM", who, "mkdir", "d/x", 0o755],
				["EPERM", who, "touch", "d/x", open.create | open.write, 0o644],
				["EPERM", who, "unlink", "d/inside"],
				["EPERM", who, "rename", "d/inside", "d/y"],
				["EPERM", who, "rename", "d", "e"],
				["EPERM", who, "open", "d", open.unnamed | open.write, 0o600],
				// What lies in it can be written.
				["", who, "append", "d/inside", "x"],
			]);
		}
		await c.rows([
			["EPERM", "alice", "pwrite", fd, "x", 0],
			["EPERM", "alice", "ftruncate", fd, 0],
			["", "root", "setFlags", "f", 0],
			["", "root", "setFlags", "d", 0],
			[1, "alice", "pwrite", fd, "x", 0],
			["", "alice", "close", fd],
			["", "alice", "unlink", "f"],
		]);
	});

	suite.check("append-only: it grows and nothing else", async (c) => {
		await file(c, "f", 0o666);
		await c.do("alice", "append", "f", "12345");
		const fd = await c.do("alice", "open", "f", open.readWrite);
		await c.rows([
			["", "alice", "mkdir", "d", 0o777],
			["", "alice", "touch", "d/inside", open.create | open.write, 0o644],
			["", "root", "setFlags", "f", flag.append],
			["", "root", "setFlags", "d", flag.append],
		]);
		for (const who of ["alice", "root"] as const) {
			await c.rows([
				["EPERM", who, "touch", "f", open.write],
				["EPERM", who, "touch", "f", open.write | open.append | open.truncate],
				["", who, "touch", "f", open.write | open.append],
				["", who, "append", "f", "678"],
				["EPERM", who, "truncate", "f", 0],
				["EPERM", who, "chmod", "f", 0o600],
				["EPERM", who, "utimens", "f", [1, 1], [1, 1]],
				["", who, "utimesNow", "f"],
				["EPERM", who, "setxattr", "f", "user.a", "1"],
				["EPERM", who, "unlink", "f"],
				["EPERM", who, "rename", "f", "g"],
				["EPERM", who, "link", "f", "g"],
				["EPERM", who, "unlink", "d/inside"],
				["EPERM", who, "rename", "d/inside", "x"],
				["", who, "touch", `d/${who}`, open.create | open.write, 0o644],
			]);
		}
		await c.rows([
			["EPERM", "alice", "pwrite", fd, "x", 2],
			["EPERM", "alice", "fallocate", fd, 3, 0, 4096],
			["12345678678", "alice", "pread", fd, 100, 0],
			["", "alice", "close", fd],
			["", "root", "setFlags", "f", 0],
			["", "root", "setFlags", "d", 0],
			["", "alice", "unlink", "f"],
		]);
	});
}
