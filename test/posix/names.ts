/** Names: making, linking, removing, renaming, reading directories. */
import assert from "node:assert/strict";
import { type Suite, fileType, open, renameFlags } from "./harness.ts";

const long = "n".repeat(255);

export function nameTests(suite: Suite): void {
	makingTests(suite);
	removingTests(suite);
	renameTests(suite);
	unnamedTests(suite);
	stickyTests(suite);
	countingTests(suite);
}

function makingTests(suite: Suite): void {
	suite.check("making: what is there, what is not, what is no directory", async (c) => {
		await c.rows([
			["", "alice", "mkdir", "d", 0o755],
			["", "alice", "touch", "f", open.create | open.write, 0o644],
			["", "alice", "symlink", "f", "s"],
			["", "alice", "symlink", "nowhere", "dangling"],
			["", "alice", "mknod", "p", fileType.fifo | 0o644],
			["", "alice", "mknod", "sock", fileType.socket | 0o644],
			...["d", "f", "s", "dangling", "p", "sock", ".", "d/.", "d/.."].map((at) => ["EEXIST", "alice", "mkdir", at, 0o755] as const),
			...["d", "f", "s", "dangling", "p", "sock"].flatMap(
				(at) =>
					[
						["EEXIST", "alice", "symlink", "x", at],
						["EEXIST", "alice", "mknod", at, fileType.fifo | 0o644],
						["EEXIST", "alice", "link", "f", at],
						["EEXIST", "alice", "touch", at, open.create | open.exclusive | open.write, 0o644],
					] as const,
			),
			["ENOENT", "alice", "mkdir", "none/d", 0o755],
			["ENOENT", "alice", "mkdir", "", 0o755],
			["ENOENT", "alice", "symlink", "", "empty"],
			["ENOENT", "alice", "link", "none", "x"],
			["ENOTDIR", "alice", "mkdir", "f/d", 0o755],
			["ENOTDIR", "alice", "touch", "f/", open.read],
			["ENOTDIR", "alice", "link", "f", "f/x"],
			["EPERM", "alice", "link", "d", "e"],
			["EPERM", "root", "link", "d", "e"],
			["", "root", "mknod", "null", fileType.character | 0o666, 0x103],
			["", "root", "mknod", "disk", fileType.block | 0o600, 0x801],
			["EPERM", "alice", "mknod", "zero", fileType.character | 0o666, 0x105],
			["EPERM", "alice", "mknod", "other", fileType.block | 0o600, 0x801],
			["EISDIR", "alice", "touch", "d", open.write],
			["EISDIR", "alice", "touch", "d", open.read | open.create],
			["ENOTDIR", "alice", "touch", "f", open.directory],
			["ELOOP", "alice", "touch", "s", open.noFollow],
			["", "alice", "touch", "dangling", open.create | open.write, 0o600],
			["nowhere", "alice", "readlink", "dangling"],
			["EINVAL", "alice", "readlink", "f"],
			["ENXIO", "alice", "touch", "sock", open.read],
		]);
		assert.deepEqual((await c.stat("null")).rdev, [1, 3]);
		assert.deepEqual((await c.stat("disk")).rdev, [8, 1]);
		assert.equal((await c.stat("nowhere")).type, "file");
	});

	suite.check("names of 255 bytes, any but / and NUL; targets of 4,095; paths end in loops", async (c) => {
		const odd = "a\\\n\t *?\u0001";
		await c.rows([
			["", "alice", "mkdir", long, 0o755],
			["", "alice", "touch", `${long}/${long}`, open.create | open.write, 0o644],
			["ENAMETOOLONG", "alice", "mkdir", `${long}n`, 0o755],
			["ENAMETOOLONG", "alice", "touch", `${long}n`, open.create | open.write, 0o644],
			["ENAMETOOLONG", "alice", "symlink", "x", `${long}n`],
			["ENAMETOOLONG", "alice", "mknod", `${long}n`, fileType.fifo | 0o644],
			["ENAMETOOLONG", "alice", "link", `${long}/${long}`, `${long}n`],
			["ENAMETOOLONG", "alice", "rename", `${long}/${long}`, `${long}n`],
			["ENAMETOOLONG", "alice", "unlink", `${long}n`],
			["ENAMETOOLONG", "alice", "rmdir", `${long}n`],
			["ENAMETOOLONG", "alice", "stat", `${long}n`],
			["ENAMETOOLONG", "alice", "stat", "x/".repeat(2100)],
			["", "alice", "touch", odd, open.create | open.write, 0o644],
			["", "alice", "symlink", "t".repeat(4095), "target"],
			["t".repeat(4095), "alice", "readlink", "target"],
			["ENAMETOOLONG", "alice", "symlink", "t".repeat(4096), "more"],
			["", "alice", "symlink", "two", "one"],
			["", "alice", "symlink", "one", "two"],
			["ELOOP", "alice", "touch", "one", open.read],
			["ELOOP", "alice", "statFollow", "one/x"],
		]);
		assert.equal((await c.stat("target")).size, 4095);
		assert.deepEqual(await c.do("bob", "names", "."), [long, odd, "one", "target", "two"].sort());
	});

	suite.check("owner and group of what is made; umask; set-gid directories hand down their group", async (c) => {
		await c.rows([
			["", "carol", "umask", 0o027],
			["", "carol", "touch", "f", open.create | open.write, 0o6777],
			["", "carol", "mkdir", "d", 0o777],
			["", "carol", "mknod", "p", fileType.fifo | 0o666],
			["", "root", "mkdir", "shared", 0o777],
			["", "root", "chown", "shared", 0, 3001],
			["", "root", "chmod", "shared", 0o2777],
			["", "carol", "mkdir", "shared/d", 0o777],
			["", "carol", "touch", "shared/f", open.create | open.write, 0o666],
			["", "carol", "symlink", "x", "shared/s"],
			// A program of a group that one is not in: the bit goes.
			["", "bob", "touch", "shared/program", open.create | open.write, 0o2755],
			["", "carol", "touch", "shared/mine", open.create | open.write, 0o2755],
		]);
		const made = async (path: string): Promise<unknown[]> => {
			const { mode, uid, gid } = await c.stat(path);
			return [mode.toString(8), uid, gid];
		};
		assert.deepEqual(await made("f"), ["6750", 1003, 2003]);
		assert.deepEqual(await made("d"), ["750", 1003, 2003]);
		assert.deepEqual(await made("p"), ["640", 1003, 2003]);
		assert.deepEqual(await made("shared/d"), ["2750", 1003, 3001]);
		assert.deepEqual(await made("shared/f"), ["640", 1003, 3001]);
		assert.deepEqual(await made("shared/s"), ["777", 1003, 3001]);
		assert.deepEqual(await made("shared/program"), ["755", 1002, 3001]);
		assert.deepEqual(await made("shared/mine"), ["2750", 1003, 3001]);
	});

	suite.check("directories one may not write or search", async (c) => {
		await c.rows([
			["", "alice", "mkdir", "d", 0o755],
			["", "alice", "touch", "d/f", open.create | open.write, 0o644],
			["", "alice", "mkdir", "d/e", 0o755],
			["EACCES", "bob", "mkdir", "d/x", 0o755],
			["EACCES", "bob", "touch", "d/x", open.create | open.write, 0o644],
			["EACCES", "bob", "symlink", "t", "d/x"],
			["EACCES", "bob", "mknod", "d/x", fileType.fifo | 0o644],
			["EACCES", "bob", "unlink", "d/f"],
			["EACCES", "bob", "rmdir", "d/e"],
			["EACCES", "bob", "rename", "d/f", "f"],
			["EACCES", "bob", "touch", "d/f", open.write],
			["EACCES", "bob", "truncate", "d/f", 0],
			["", "alice", "chmod", "d", 0o711],
			["EACCES", "bob", "names", "d"],
			["", "bob", "stat", "d/f"],
			["", "alice", "chmod", "d", 0o744],
			[["e", "f"], "bob", "names", "d"],
			["EACCES", "bob", "stat", "d/f"],
			["EACCES", "bob", "stat", "d/none"],
			["", "root", "unlink", "d/f"],
		]);
	});
}

function removingTests(suite: Suite): void {
	suite.check("unlink and rmdir", async (c) => {
		await c.rows([
			["", "alice", "mkdir", "d", 0o755],
			["", "alice", "mkdir", "d/e", 0o755],
			["", "alice", "touch", "f", open.create | open.write, 0o644],
			["", "alice", "symlink", "d", "s"],
			["ENOTEMPTY", "alice", "rmdir", "d"],
			["EINVAL", "alice", "rmdir", "d/."],
			["ENOTEMPTY", "alice", "rmdir", "d/e/.."],
			["ENOTDIR", "alice", "rmdir", "f"],
			["ENOTDIR", "alice", "rmdir", "s"],
			["ENOTDIR", "alice", "unlink", "f/"],
			["EISDIR", "alice", "unlink", "d"],
			["EISDIR", "root", "unlink", "d"],
			["ENOENT", "alice", "unlink", "none"],
			["ENOENT", "alice", "rmdir", "none"],
			["", "alice", "rmdir", "d/e"],
			["", "alice", "rmdir", "d"],
			["ENOENT", "alice", "stat", "d"],
			["", "alice", "unlink", "s"],
			["", "alice", "unlink", "f"],
			[[], "alice", "names", "."],
		]);
	});

	suite.check("a removed file lives until it is closed; a removed directory can hold nothing", async (c) => {
		const fd = await c.do("alice", "open", "f", open.create | open.readWrite, 0o600);
		await c.rows([
			[5, "alice", "write", fd, "hello"],
			["", "alice", "unlink", "f"],
			["hello", "alice", "pread", fd, 10, 0],
			[2, "alice", "pwrite", fd, "!!", 5],
			["hello!!", "alice", "pread", fd, 10, 0],
			// It had a name: it does not get one again.
			["ENOENT", "alice", "linkFd", fd, "again"],
			["", "alice", "close", fd],
			["", "bob", "mkdir", "gone", 0o777],
			["", "bob", "chdir", "gone"],
			["", "alice", "rmdir", "gone"],
			["ENOENT", "bob", "mkdir", "x", 0o755],
			["ENOENT", "bob", "touch", "x", open.create | open.write, 0o644],
			["", "bob", "stat", "."],
			["", "bob", "chdir", ".."],
		]);
	});
}

function renameTests(suite: Suite): void {
	suite.check("rename", async (c) => {
		await c.rows([
			["", "alice", "mkdir", "d", 0o755],
			["", "alice", "mkdir", "d/sub", 0o755],
			["", "alice", "mkdir", "empty", 0o755],
			["", "alice", "touch", "f", open.create | open.write, 0o644],
			["", "alice", "link", "f", "same"],
			["ENOENT", "alice", "rename", "none", "x"],
			["ENOENT", "alice", "rename", "f", "none/x"],
			["ENOTDIR", "alice", "rename", "f", "same/x"],
			["EISDIR", "alice", "rename", "f", "d"],
			["ENOTDIR", "alice", "rename", "d", "f"],
			["ENOTEMPTY", "alice", "rename", "empty", "d"],
			["EINVAL", "alice", "rename", "d", "d/sub/x"],
			["EINVAL", "alice", "rename", "d", "d/x"],
			["ENOTEMPTY", "alice", "rename", "d/sub", "d"],
			["EBUSY", "alice", "rename", "d/.", "x"],
			["EBUSY", "alice", "rename", "f", "d/.."],
			["", "alice", "rename", "f", "same"],
			[["d", "empty", "f", "same"], "alice", "names", "."],
			["", "alice", "rename", "d", "empty"],
			[["empty", "f", "same"], "alice", "names", "."],
			["", "alice", "rename", "empty/sub", "up"],
			["", "alice", "rename", "f", "moved"],
			["EEXIST", "alice", "rename", "moved", "same", renameFlags.noReplace],
			["", "alice", "rename", "moved", "new", renameFlags.noReplace],
			["EINVAL", "alice", "rename", "new", "x", renameFlags.noReplace | renameFlags.exchange],
			["EINVAL", "alice", "rename", "new", "x", 8],
		]);
		assert.deepEqual([(await c.stat("empty")).nlink, (await c.stat("up")).nlink, (await c.stat(".")).nlink], [2, 2, 4]);
	});

	suite.check("exchange", async (c) => {
		await c.rows([
			["", "alice", "mkdir", "d", 0o755],
			["", "alice", "mkdir", "d/sub", 0o755],
			["", "alice", "touch", "f", open.create | open.write, 0o644],
			["ENOENT", "alice", "rename", "f", "none", renameFlags.exchange],
			["EINVAL", "alice", "rename", "d", "d/sub", renameFlags.exchange],
			["", "alice", "rename", "f", "d/sub", renameFlags.exchange],
			["", "alice", "stat", "f"],
		]);
		assert.deepEqual([(await c.stat("f")).type, (await c.stat("d/sub")).type], ["directory", "file"]);
		assert.deepEqual([(await c.stat("d")).nlink, (await c.stat(".")).nlink], [2, 4]);
	});

	suite.check("whiteout: a device 0:0 under the old name", async (c) => {
		await c.rows([
			["", "root", "touch", "f", open.create | open.write, 0o644],
			["", "root", "rename", "f", "g", renameFlags.whiteout],
			["EEXIST", "root", "rename", "g", "f", renameFlags.whiteout | renameFlags.noReplace],
			["EINVAL", "root", "rename", "g", "f", renameFlags.whiteout | renameFlags.exchange],
		]);
		const left = await c.stat("f");
		assert.deepEqual([left.type, left.rdev, left.nlink], ["character", [0, 0], 1]);
		await c.rows([
			["", "root", "rename", "g", "f", renameFlags.whiteout],
			[["f", "g"], "root", "names", "."],
		]);
		assert.deepEqual([(await c.stat("f")).type, (await c.stat("g")).type], ["file", "character"]);
	});

	suite.check("rename of what one may not write", async (c) => {
		await c.rows([
			["", "alice", "mkdir", "mine", 0o755],
			["", "bob", "mkdir", "his", 0o777],
			["", "bob", "mkdir", "his/d", 0o755],
			["", "bob", "touch", "his/f", open.create | open.write, 0o600],
			// A directory that gets another parent is written: its "..".
			["EACCES", "alice", "rename", "his/d", "mine/d"],
			["", "alice", "rename", "his/d", "his/e"],
			["", "alice", "rename", "his/f", "mine/f"],
			["EACCES", "bob", "rename", "mine/f", "his/f"],
		]);
	});
}

function unnamedTests(suite: Suite): void {
	suite.check("O_TMPFILE: a file without a name gets one, unless it was O_EXCL", async (c) => {
		await c.do("alice", "umask", 0o022);
		const fd = await c.do("alice", "open", ".", open.unnamed | open.readWrite, 0o666);
		const closed = await c.do("alice", "open", ".", open.unnamed | open.readWrite | open.exclusive, 0o600);
		await c.rows([
			[5, "alice", "write", fd, "hello"],
			[[], "alice", "names", "."],
			["", "alice", "linkFd", fd, "f"],
			["EEXIST", "alice", "linkFd", fd, "f"],
			["", "alice", "linkFd", fd, "g"],
			["", "alice", "unlink", "g"],
			["ENOENT", "alice", "linkFd", closed, "x"],
			["", "alice", "close", closed],
			["", "alice", "unlink", "f"],
			["ENOENT", "alice", "linkFd", fd, "again"],
			["", "alice", "close", fd],
			["ENOENT", "alice", "open", "none", open.unnamed | open.write, 0o600],
			["EINVAL", "alice", "open", ".", open.unnamed | open.read, 0o600],
		]);
		const kept = await c.do("alice", "open", ".", open.unnamed | open.readWrite, 0o666);
		await c.rows([
			[3, "alice", "write", kept, "abc"],
			["", "alice", "linkFd", kept, "kept"],
			["", "alice", "close", kept],
			["", "root", "mkdir", "closed", 0o755],
			["EACCES", "alice", "open", "closed", open.unnamed | open.write, 0o600],
		]);
		const { mode, size, nlink, uid } = await c.stat("kept");
		assert.deepEqual([mode, size, nlink, uid], [0o644, 3, 1, 1001]);
		const byRoot = await c.do("root", "open", ".", open.unnamed | open.write, 0o600);
		await c.rows([
			["", "root", "linkEmpty", byRoot, "empty-path"],
			["", "root", "close", byRoot],
			["", "root", "stat", "empty-path"],
		]);
	});
}

function stickyTests(suite: Suite): void {
	suite.check("sticky directories: names go by their owners' hands", async (c) => {
		await c.rows([
			["", "root", "mkdir", "t", 0o777],
			["", "root", "chmod", "t", 0o1777],
			["", "alice", "touch", "t/f", open.create | open.write, 0o666],
			["", "alice", "mkdir", "t/d", 0o777],
			["", "bob", "touch", "t/b", open.create | open.write, 0o666],
			["EPERM", "bob", "unlink", "t/f"],
			["EPERM", "bob", "rmdir", "t/d"],
			["EPERM", "bob", "rename", "t/f", "t/x"],
			["EPERM", "bob", "rename", "t/b", "t/f"],
			["EPERM", "bob", "rename", "t/b", "t/f", renameFlags.exchange],
			["", "bob", "link", "t/b", "t/c"],
			["", "bob", "rename", "t/b", "t/c2"],
			["", "alice", "unlink", "t/f"],
			["", "alice", "rmdir", "t/d"],
			["", "root", "chown", "t", 1002, -1],
			["", "alice", "touch", "t/g", open.create | open.write, 0o666],
			["", "bob", "unlink", "t/g"],
		]);
	});
}

function countingTests(suite: Suite): void {
	suite.check("link counts of files and directories", async (c) => {
		await c.rows([
			["", "alice", "mkdir", "d", 0o755],
			["", "alice", "mkdir", "d/a", 0o755],
			["", "alice", "mkdir", "d/b", 0o755],
			["", "alice", "touch", "d/f", open.create | open.write, 0o644],
			["", "alice", "link", "d/f", "d/g"],
			["", "alice", "link", "d/f", "h"],
		]);
		const counts = async (...paths: readonly string[]): Promise<number[]> => {
			const found: number[] = [];
			for (const path of paths) found.push((await c.stat(path)).nlink);
			return found;
		};
		assert.deepEqual(await counts("d", "d/a", "d/f", "h"), [4, 2, 3, 3]);
		assert.equal((await c.stat("d/g")).ino, (await c.stat("h")).ino);
		await c.rows([
			["", "alice", "rename", "d/a", "a"],
			["", "alice", "rmdir", "d/b"],
			["", "alice", "unlink", "h"],
			["", "alice", "rename", "d/g", "d/f"],
		]);
		assert.deepEqual(await counts("d", "a", "d/f", "d/g"), [2, 2, 2, 2]);
	});

	suite.check("a listing while the directory changes: what stays is shown once", async (c) => {
		for (let i = 0; i < 300; i++) await c.do("alice", "touch", `f${i}`, open.create | open.write, 0o644);
		for (let i = 0; i < 300; i += 2) await c.do("alice", "unlink", `f${i}`);
		for (let i = 1; i < 300; i += 2) await c.do("alice", "rename", `f${i}`, `g${i}`);
		const names = await c.do("bob", "names", ".");
		assert.deepEqual(names, Array.from({ length: 150 }, (_, i) => `g${i * 2 + 1}`).sort());
	});
}
