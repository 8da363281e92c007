/** Permissions for callers whose door does not check them itself. */
import assert from "node:assert/strict";
import type { Caller, NodeRef } from "../../../src/volume/interface.ts";
import { type Case, type Check, type MakeVolumeHarness, readWrite, rejects, root, shared, text, user } from "./support.ts";

export function permissionTests(name: string, makeHarness: MakeVolumeHarness): void {
	shared(`${name}: permissions`, makeHarness, permissions);
}

const alice = user(1001, 2001, [3001]);
const bob = user(1002, 2002);

/** A node of alice's. */
async function owned(c: Case, name: string, mode: number, kind: "file" | "directory" = "file"): Promise<NodeRef> {
	const node = kind === "file" ? await c.file(name) : await c.mkdir(name);
	await c.volume.setAttributes(root, node, { uid: 1001, gid: 2001 });
	await c.volume.setAttributes(root, node, { mode });
	return node;
}

const open = (c: Case, caller: Caller, node: NodeRef, read: boolean, write: boolean): Promise<unknown> =>
	c.volume.open(caller, { node }, { disposition: "open", access: { read, write } }).then(({ handle }) => c.volume.close(handle));

function permissions(check: Check): void {
	check("opening needs the bits of one's class", async (c) => {
		const node = await owned(c, "f", 0o640);
		await open(c, alice, node, true, true);
		await open(c, user(9, 2001), node, true, false);
		await open(c, user(9, 9, [2001]), node, true, false);
		await rejects("EACCES", open(c, user(9, 2001), node, false, true));
		await rejects("EACCES", open(c, bob, node, true, false));
		await open(c, { ...bob, trusted: true }, node, true, true);
		await open(c, user(0), node, true, true);
		await c.volume.setAttributes(root, node, { mode: 0o077 });
		await rejects("EACCES", open(c, alice, node, true, false));
	});

	check("names need search, changes of names write as well", async (c) => {
		const directory = await owned(c, "d", 0o754, "directory");
		const file = await c.file("f", directory);
		const other = user(9, 2001);
		assert.equal((await c.volume.lookup(other, directory, "f")).ino, file.ino);
		assert.equal((await c.volume.readDirectory(bob, directory, 0, 10, false)).length, 3);
		await rejects("EACCES", c.volume.lookup(bob, directory, "f"));
		for (const caller of [other, bob]) {
			await rejects("EACCES", c.volume.makeDirectory(caller, directory, "x", 0o755));
			await rejects("EACCES", c.volume.makeNode(caller, directory, "x", "file", 0o644, 0));
			await rejects("EACCES", c.volume.makeSymlink(caller, directory, "x", "t"));
			await rejects("EACCES", c.volume.link(caller, file, directory, "x"));
			await rejects("EACCES", c.volume.unlink(caller, directory, "f"));
			await rejects("EACCES", c.volume.rename(caller, directory, "f", directory, "g", 0));
			await rejects("EACCES", c.volume.open(caller, { parent: directory, name: "x" }, { disposition: "create", access: readWrite }));
		}
		await c.volume.setAttributes(root, directory, { mode: 0o711 });
		await rejects("EACCES", c.volume.readDirectory(bob, directory, 0, 10, false));
		await c.volume.makeDirectory(alice, directory, "x", 0o755);
		await c.volume.removeDirectory(alice, directory, "x");
	});

	check("what a user makes is the user's", async (c) => {
		await c.volume.setAttributes(root, c.dir, { mode: 0o777 });
		const made = await c.volume.makeDirectory(alice, c.dir, "d", 0o755);
		assert.deepEqual([made.attributes.uid, made.attributes.gid], [1001, 2001]);
		const opened = await c.volume.open(
			alice,
			{ parent: c.dir, name: "f" },
			{ disposition: "create", access: readWrite, attributes: { mode: 0o400 } },
		);
		assert.deepEqual([opened.attributes.uid, opened.attributes.gid, opened.attributes.mode], [1001, 2001, 0o400]);
		// The creator's handle writes whatever the mode says.
		await c.volume.write(opened.handle, 0, text("x"));
		await c.volume.close(opened.handle);
		await rejects("EACCES", open(c, alice, c.node(opened.attributes), false, true));
	});

	check("in sticky directories only owners remove", async (c) => {
		await c.volume.setAttributes(root, c.dir, { mode: 0o1777 });
		await owned(c, "hers", 0o666);
		await rejects("EPERM", c.volume.unlink(bob, c.dir, "hers"));
		await rejects("EPERM", c.volume.rename(bob, c.dir, "hers", c.dir, "x", 0));
		await c.volume.makeNode(bob, c.dir, "his", "file", 0o644, 0);
		await rejects("EPERM", c.volume.rename(bob, c.dir, "his", c.dir, "hers", 0));
		await c.volume.rename(bob, c.dir, "his", c.dir, "his2", 0);
		await c.volume.unlink(alice, c.dir, "hers");
		await c.volume.unlink(root, c.dir, "his2");
	});

	check("attributes are their owner's", async (c) => {
		const node = await owned(c, "f", 0o644);
		await rejects("EPERM", c.volume.setAttributes(bob, node, { mode: 0o777 }));
		await rejects("EPERM", c.volume.setAttributes(bob, node, { uid: 1002 }));
		await rejects("EPERM", c.volume.setAttributes(alice, node, { uid: 1002 }));
		await rejects("EPERM", c.volume.setAttributes(alice, node, { gid: 2002 }));
		await rejects("EPERM", c.volume.setAttributes(bob, node, { mtime: { seconds: 1, nanoseconds: 0 } }));
		await rejects("EACCES", c.volume.setAttributes(bob, node, { atime: "now", mtime: "now" }));
		await rejects("EACCES", c.volume.setAttributes(bob, node, { size: 0 }));
		await c.volume.setAttributes(alice, node, { gid: 3001, atime: "now" });
		assert.equal((await c.volume.setAttributes(alice, node, { mode: 0o2755 })).after.mode, 0o2755);
		await c.volume.setAttributes(root, node, { gid: 4001 });
		assert.equal((await c.volume.setAttributes(alice, node, { mode: 0o2755 })).after.mode, 0o755, "no set-gid for a foreign group");
		await c.put("f", text("kept"));
		await c.volume.setAttributes(root, node, { mode: 0o666 });
		await rejects("EPERM", c.volume.setAttributes(bob, node, { size: 0, mode: 0o600 }));
		assert.deepEqual(await c.get("f"), text("kept"), "what is refused does nothing");
	});

	check("writing by others takes the set-id bits", async (c) => {
		const node = await owned(c, "f", 0o6777);
		const opened = await c.volume.open(bob, { node }, { disposition: "open", access: readWrite });
		await c.volume.write(opened.handle, 0, text("x"));
		assert.equal((await c.attributes(node)).mode, 0o777);
		await c.volume.close(opened.handle);
		await c.volume.setAttributes(root, node, { mode: 0o6777 });
		await c.volume.setAttributes(bob, node, { size: 0 });
		assert.equal((await c.attributes(node)).mode, 0o777);
		await c.volume.setAttributes(root, node, { mode: 0o6777 });
		const cut = await c.volume.open(bob, { parent: c.dir, name: "f" }, { disposition: "overwrite", access: readWrite });
		await c.volume.close(cut.handle);
		assert.equal((await c.attributes(node)).mode, 0o777);
	});

	check("extended attributes by name space", async (c) => {
		const node = await owned(c, "f", 0o640);
		await c.volume.setXattr(alice, node, "user.a", text("1"), "any");
		await rejects("EACCES", c.volume.getXattr(bob, node, "user.a"));
		await rejects("EACCES", c.volume.setXattr(bob, node, "user.a", text("2"), "any"));
		await rejects("EPERM", c.volume.setXattr(alice, node, "trusted.a", text("2"), "any"));
		await c.volume.removeXattr(alice, node, "user.a");
	});

	check("moving a directory to another parent needs write permission on it", async (c) => {
		await c.volume.setAttributes(root, c.dir, { mode: 0o777 });
		const to = await c.mkdir("to", c.dir, 0o777);
		await owned(c, "hers", 0o755, "directory");
		await rejects("EACCES", c.volume.rename(bob, c.dir, "hers", to, "hers", 0));
		await c.volume.rename(bob, c.dir, "hers", c.dir, "still", 0);
		await c.volume.rename(alice, c.dir, "still", to, "hers", 0);
	});
}
