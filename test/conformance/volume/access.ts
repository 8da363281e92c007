/** Access lists, flags, files without a name, rights of programs: for every door, and across kills and power cuts. */
import assert from "node:assert/strict";
import type { NodeRef } from "../../../src/volume/interface.ts";
import { alone, type Case, type Check, type MakeVolumeHarness, readWrite, rejects, root, shared, text, user } from "./support.ts";

export function accessTests(name: string, makeHarness: MakeVolumeHarness): void {
	shared(`${name}: access lists and flags`, makeHarness, (check) => {
		listTests(check);
		flagTests(check);
		rightsTests(check);
		unnamedTests(check);
	});
	alone(`${name}: survival of access lists, flags and files without a name`, makeHarness, survivalTests);
}

const alice = user(1001, 2001, [3001]);
const bob = user(1002, 2002);
const accessName = "system.posix_acl_access";
const defaultName = "system.posix_acl_default";

/** `[tag, bits, id]` each: `<linux/posix_acl_xattr.h>`. */
function posix(...entries: readonly (readonly [number, number, number?])[]): Uint8Array {
	const view = new DataView(new ArrayBuffer(4 + entries.length * 8));
	view.setUint32(0, 2, true);
	for (const [i, [tag, bits, id]] of entries.entries()) {
		view.setUint16(4 + i * 8, tag, true);
		view.setUint16(6 + i * 8, bits, true);
		view.setUint32(8 + i * 8, id ?? 0xffff_ffff, true);
	}
	return new Uint8Array(view.buffer);
}

/** The owner reads and writes, uid 1002 reads, the mask allows reading. */
const bobReads = posix([1, 6], [2, 7, 1002], [4, 0], [0x10, 4], [0x20, 0]);

async function owned(c: Case, name: string, mode: number): Promise<NodeRef> {
	const node = await c.file(name);
	await c.volume.setAttributes(root, node, { uid: 1001, gid: 2001 });
	await c.volume.setAttributes(root, node, { mode });
	return node;
}

async function opens(c: Case, caller: typeof bob, node: NodeRef, write: boolean): Promise<void> {
	const { handle } = await c.volume.open(caller, { node }, { disposition: "open", access: { read: !write, write } });
	await c.volume.close(handle);
}

async function unnamed(c: Case, linkable: boolean, caller = root): Promise<{ node: NodeRef; handle: number }> {
	const at = { parent: c.dir, name: "" };
	const opened = await c.volume.open(caller, at, { disposition: "create", access: readWrite, unnamed: true, linkable });
	assert.equal(opened.attributes.nlink, 0);
	return { node: c.node(opened.attributes), handle: opened.handle };
}

function listTests(check: Check): void {
	check("doors that do not check themselves follow the list", async (c) => {
		const node = await owned(c, "f", 0o600);
		await rejects("EACCES", opens(c, bob, node, false));
		await rejects("EPERM", c.volume.setXattr(bob, node, accessName, bobReads, "any"));
		await c.volume.setXattr(alice, node, accessName, bobReads, "any");
		await opens(c, bob, node, false);
		await rejects("EACCES", opens(c, bob, node, true));
		assert.deepEqual(await c.volume.getXattr(bob, node, accessName), bobReads);
		await c.volume.setAttributes(alice, node, { mode: 0o660 });
		await opens(c, bob, node, true);
		await rejects("EACCES", opens(c, user(5, 2001), node, false));
		await c.volume.removeXattr(alice, node, accessName);
		await rejects("EACCES", opens(c, bob, node, false));
	});

	check("reading and writing at once must be granted by one entry of the list", async (c) => {
		const node = await owned(c, "f", 0o600);
		const two = user(1003, 2001, [3002]);
		await c.volume.setXattr(alice, node, accessName, posix([1, 6], [4, 4], [8, 2, 3002], [0x10, 7], [0x20, 0]), "any");
		await opens(c, two, node, false);
		await opens(c, two, node, true);
		await rejects("EACCES", c.volume.open(two, { node }, { disposition: "open", access: readWrite }));
	});

	check("who makes something has a umask, unless the directory has a list", async (c) => {
		const made = async (name: string): Promise<number> =>
			(await c.volume.makeDirectory({ ...root, umask: 0o077 }, c.dir, name, 0o777)).attributes.mode;
		assert.equal(await made("a"), 0o700);
		await c.volume.setXattr(root, c.dir, defaultName, posix([1, 7], [4, 5], [0x20, 1]), "any");
		assert.equal(await made("b"), 0o751);
		const { handle, attributes } = await c.volume.open(
			{ ...root, umask: 0o077 },
			{ parent: c.dir, name: "f" },
			{ disposition: "create", access: readWrite, attributes: { mode: 0o666 } },
		);
		assert.equal(attributes.mode, 0o640);
		await c.volume.close(handle);
	});

	check("whoever gives a directory another parent must be able to write it, both of them in an exchange", async (c) => {
		const [one, other] = [await c.mkdir("one"), await c.mkdir("other")];
		for (const at of [one, other]) await c.volume.setAttributes(root, at, { mode: 0o777 });
		const made = await c.volume.makeDirectory(root, other, "kept", 0o755);
		await c.volume.makeNode(bob, one, "f", "file", 0o644, 0);
		await rejects("EACCES", c.volume.rename(bob, other, "kept", one, "kept", 0));
		await rejects("EACCES", c.volume.rename(bob, one, "f", other, "kept", 2));
		assert.equal((await c.volume.lookup(root, other, "kept")).ino, made.attributes.ino);
		await c.volume.makeNode(bob, other, "f", "file", 0o644, 0);
		await c.volume.rename(bob, other, "f", other, "kept", 2);
	});

	check("trusted attributes are shown to root alone", async (c) => {
		const node = await owned(c, "f", 0o644);
		await c.volume.setXattr(root, node, "trusted.t", text("1"), "any");
		await c.volume.setXattr(alice, node, "user.u", text("1"), "any");
		assert.deepEqual(await c.volume.listXattrs(user(0), node), ["trusted.t", "user.u"]);
		assert.deepEqual(await c.volume.listXattrs(alice, node), ["user.u"]);
		await rejects("ENOTSUP", c.volume.setXattr(root, node, "nobody.knows", text("1"), "any"));
	});
}

function flagTests(check: Check): void {
	const immutable = 0x10;
	const append = 0x20;

	check("immutable and append-only bind handles that are open, trusted callers and root", async (c) => {
		const node = await c.put("f", text("12345"));
		const handle = await c.openNode(node);
		await rejects("EPERM", c.volume.setAttributes(alice, node, { flags: 0x40 }));
		await c.volume.setAttributes(root, node, { flags: immutable });
		assert.equal((await c.attributes(node)).flags, immutable);
		await rejects("EPERM", c.volume.write(handle, 5, text("x")));
		await rejects("EPERM", c.volume.allocate(handle, "allocate", 0, 10));
		await rejects("EPERM", c.volume.setAttributes(root, node, { size: 0 }));
		await rejects("EPERM", c.openNode(node));
		await rejects("EPERM", c.volume.unlink(root, c.dir, "f"));
		await c.volume.setAttributes(root, node, { flags: append });
		await rejects("EPERM", c.volume.write(handle, 4, text("x")));
		await rejects("EPERM", c.volume.allocate(handle, "punch", 0, 1));
		await c.volume.write(handle, 5, text("6"));
		await rejects("EPERM", c.openNode(node));
		await rejects("EPERM", c.openNode(node, { append: true, disposition: "overwrite" }));
		const appender = await c.openNode(node, { append: true });
		await rejects("EPERM", c.volume.allocate(appender, "punch", 0, 1));
		await rejects("EPERM", c.volume.allocate(appender, "zero-keep-size", 0, 1));
		await c.volume.close(appender);
		await c.volume.close(await c.openNode(node, { appending: true }));
		await c.volume.setAttributes(root, node, { flags: 0 });
		await c.volume.write(handle, 0, text("x"));
		assert.equal(String.fromCharCode(...(await c.get("f"))), "x23456");
		await c.volume.close(handle);
	});
}

function rightsTests(check: Check): void {
	const name = "security.capability";

	check("programs lose their rights to whoever changes them", async (c) => {
		const node = await owned(c, "f", 0o6777);
		const renew = async (): Promise<void> => {
			await c.volume.setAttributes(root, node, { mode: 0o6777 });
			await c.volume.setXattr(root, node, name, text("rights"), "any");
		};
		const left = async (): Promise<unknown[]> => [(await c.attributes(node)).mode.toString(8), await c.volume.listXattrs(root, node)];
		const change: [string, unknown[], (caller: typeof bob) => Promise<unknown>][] = [
			["truncate", ["777", []], (caller) => c.volume.setAttributes(caller, node, { size: 0 })],
			["overwrite", ["777", []], (caller) => c.volume.open(caller, { node }, { disposition: "overwrite", access: readWrite })],
			[
				"write",
				["777", []],
				async (caller) => {
					const { handle } = await c.volume.open(caller, { node }, { disposition: "open", access: readWrite });
					await renew();
					await c.volume.write(handle, 0, text("x"));
					await c.volume.close(handle);
				},
			],
		];
		for (const [what, expected, run] of change) {
			await renew();
			await run(bob);
			assert.deepEqual(await left(), expected, what);
			await renew();
			await run(user(0));
			assert.deepEqual(await left(), ["6777", []], `${what} by root`);
		}
		await renew();
		await c.volume.setAttributes(root, node, { size: 0, dropRights: true });
		assert.deepEqual(await left(), ["777", []], "asked for by a trusted door");
	});
}

function unnamedTests(check: Check): void {
	check("a file without a name: gone when closed, or named once", async (c) => {
		const lost = await unnamed(c, true);
		await c.volume.write(lost.handle, 0, text("never seen"));
		await c.volume.close(lost.handle);
		await c.gone(lost.node);
		await rejects("ESTALE", c.volume.link(root, lost.node, c.dir, "late"));
		const closed = await unnamed(c, false);
		await rejects("ENOENT", c.volume.link(root, closed.node, c.dir, "x"));
		await c.volume.close(closed.handle);
		const kept = await unnamed(c, true);
		await c.volume.write(kept.handle, 0, text("kept"));
		await c.volume.link(root, kept.node, c.dir, "kept");
		await c.volume.close(kept.handle);
		assert.equal(String.fromCharCode(...(await c.get("kept"))), "kept");
		assert.equal((await c.lookup("kept")).nlink, 1);
		await rejects("EACCES", unnamed(c, true, bob));
	});
}

function survivalTests(check: Check): void {
	for (const end of ["crash", "powerCut"] as const) {
		check(`${end}: what was made durable is there, what had no name is not`, async (c) => {
			const node = await owned(c, "f", 0o600);
			await c.volume.setXattr(root, node, accessName, bobReads, "any");
			await c.volume.setXattr(root, c.dir, defaultName, bobReads, "any");
			await c.volume.setXattr(root, node, "user.big", new Uint8Array(65_536).fill(3), "any");
			await c.volume.setAttributes(root, node, { flags: 0xf0 });
			await c.volume.rename(root, c.dir, "f", c.dir, "g", 0).then(
				() => assert.fail("immutable"),
				() => {},
			);
			const named = await unnamed(c, true);
			await c.volume.write(named.handle, 0, text("named"));
			await c.volume.link(root, named.node, c.dir, "named");
			const lost = await unnamed(c, true);
			await c.volume.write(lost.handle, 0, text("lost"));
			await c.volume.fsync(named.handle, false);
			await c.volume.syncAll();
			const before = await c.attributes(node);
			await c.harness[end]();
			assert.deepEqual({ ...(await c.attributes(node)), change: 0 }, { ...before, change: 0 });
			assert.deepEqual(await c.volume.getXattr(root, node, accessName), bobReads);
			assert.deepEqual(await c.volume.getXattr(root, c.dir, defaultName), bobReads);
			assert.equal((await c.volume.getXattr(root, node, "user.big")).length, 65_536);
			await rejects("EPERM", c.volume.unlink(root, c.dir, "f"));
			assert.equal(String.fromCharCode(...(await c.get("named"))), "named");
			await c.gone(lost.node);
			await opens(c, bob, node, false);
		});
	}
}
