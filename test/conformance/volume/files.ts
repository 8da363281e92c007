/** Open files: dispositions, handles, reads and writes at the edges, files without a name. */
import assert from "node:assert/strict";
import type { Disposition, OpenIntent } from "../../../src/volume/interface.ts";
import {
	type Case,
	type Check,
	type MakeVolumeHarness,
	pattern,
	readWrite,
	rejects,
	root,
	sameBytes,
	shared,
	text,
	user,
} from "./support.ts";

export function fileTests(name: string, makeHarness: MakeVolumeHarness): void {
	shared(`${name}: files`, makeHarness, (check) => {
		openTests(check);
		intentTests(check);
		statelessTests(check);
		handleTests(check);
		edgeTests(check);
		appendTests(check);
		unnamedTests(check);
	});
}

// ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────────

/** Opens, closes, and says what came of it. */
async function outcome(c: Case, name: string, disposition: Disposition): Promise<string> {
	const opened = await c.open(name, disposition);
	await c.volume.close(opened.handle);
	assert.equal(opened.parentAfter !== undefined, opened.created);
	return `${opened.created ? "created" : "opened"} ${opened.attributes.size}`;
}

function openTests(check: Check): void {
	check("dispositions, for a name that is there and one that is not", async (c) => {
		const table: readonly [Disposition, string, string][] = [
			["open", "opened 3", "ENOENT"],
			["create", "EEXIST", "created 0"],
			["open-or-create", "opened 3", "created 0"],
			["overwrite-or-create", "opened 0", "created 0"],
			["overwrite", "opened 0", "ENOENT"],
		];
		for (const [disposition, there, absent] of table) {
			await c.put("there", text("abc"));
			if (there === "EEXIST") await rejects("EEXIST", c.open("there", disposition));
			else assert.equal(await outcome(c, "there", disposition), there, disposition);
			assert.equal((await c.get("there")).length, there === "opened 0" ? 0 : 3);
			if (absent === "ENOENT") await rejects("ENOENT", c.open(disposition, disposition));
			else assert.equal(await outcome(c, disposition, disposition), absent, disposition);
		}
	});

	check("a creation has the mode and owner it asks for", async (c) => {
		const { handle, attributes, parentAfter } = await c.open("f", "create", { attributes: { mode: 0o4640, uid: 7, gid: 8 } });
		assert.deepEqual([attributes.mode, attributes.uid, attributes.gid, attributes.nlink], [0o4640, 7, 8, 1]);
		assert.deepEqual(parentAfter, await c.attributes(c.dir));
		assert.deepEqual(await c.lookup("f"), attributes);
		await c.volume.close(handle);
	});

	check("a node is opened without its name", async (c) => {
		const node = await c.put("f", text("abc"));
		const handle = await c.openNode(node);
		assert.deepEqual(await c.volume.read(handle, 0, 10), text("abc"));
		await c.volume.close(handle);
		await rejects("EEXIST", c.volume.open(root, { node }, { disposition: "create", access: readWrite }));
		const cut = await c.volume.open(root, { node }, { disposition: "overwrite", access: readWrite });
		assert.equal(cut.attributes.size, 0);
		await c.volume.close(cut.handle);
	});

	check("opening refuses impossible names and parents, and directories for writing", async (c) => {
		const file = await c.file("f");
		await c.mkdir("d");
		await rejects("EISDIR", c.open("d"));
		await rejects("EISDIR", c.open("d", "overwrite-or-create"));
		await rejects("EEXIST", c.open("d", "create"));
		await rejects("ENOTDIR", c.open("x", "open-or-create", {}, file));
		await rejects("ENAMETOOLONG", c.open("x".repeat(256), "open-or-create"));
		await rejects("EINVAL", c.open("a/b", "open-or-create"));
		await rejects("ENOENT", c.open("", "open-or-create"));
		await rejects("EISDIR", c.open(".", "open-or-create"));
		const { handle } = await c.open("d", "open", { access: { read: true, write: false } });
		await rejects("EISDIR", c.volume.read(handle, 0, 10));
		await c.volume.close(handle);
	});

	check("what has no contents cannot be opened", async (c) => {
		await c.volume.makeSymlink(root, c.dir, "s", "target");
		await rejects("ELOOP", c.open("s"));
		await rejects("ELOOP", c.open("s", "overwrite-or-create"));
		for (const type of ["fifo", "socket", "character", "block"] as const) {
			await c.volume.makeNode(root, c.dir, type, type, 0o666, 0);
			await rejects("ENXIO", c.open(type));
		}
		assert.equal(await c.volume.readSymlink(root, c.node(await c.lookup("s"))), "target");
	});

	check("of many who create one name exclusively at once, one succeeds", async (c) => {
		const results = await Promise.allSettled(Array.from({ length: 30 }, () => c.open("f", "create")));
		const opened = results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
		assert.equal(opened.length, 1);
		await c.volume.close(opened[0]?.handle ?? -1);
	});

	check("of many who open or create one name at once, one creates and all have the same file", async (c) => {
		const opened = await Promise.all(Array.from({ length: 30 }, () => c.open("f", "open-or-create")));
		assert.equal(opened.filter(({ created }) => created).length, 1);
		assert.equal(new Set(opened.map(({ attributes }) => attributes.ino)).size, 1);
		assert.equal(new Set(opened.map(({ handle }) => handle)).size, 30);
		for (const { handle } of opened) await c.volume.close(handle);
	});
}

/** What doors that serve files without seeing opens need. */
function statelessTests(check: Check): void {
	check("an exclusive create with a verifier is the same one when it comes again", async (c) => {
		const mine = Uint8Array.of(1, 2, 3, 4, 255, 254, 253, 252);
		const other = Uint8Array.of(1, 2, 3, 4, 255, 254, 253, 251);
		const first = await c.open("f", "create", { verifier: mine, attributes: { mode: 0 } });
		const again = await c.open("f", "create", { verifier: mine });
		assert.deepEqual([first.created, again.created, again.attributes.ino], [true, false, first.attributes.ino]);
		assert.deepEqual(first.parentAfter, await c.volume.getAttributes(root, c.dir));
		assert.notEqual(first.parentBefore?.change, first.parentAfter?.change);
		await rejects("EEXIST", c.open("f", "create", { verifier: other }));
		await rejects("EEXIST", c.open("f", "create"));
		await rejects("EINVAL", c.open("g", "create", { verifier: new Uint8Array(7) }));
		await rejects("ENOTSUP", c.open("f", "open", { verifier: mine }));
		await c.volume.setAttributes(root, c.node(first.attributes), { atime: "now", mtime: "now" });
		await rejects("EEXIST", c.open("f", "create", { verifier: mine }));
		for (const { handle } of [first, again]) await c.volume.close(handle);
	});

	check("permissions say what mode and owner allow, and a checked open asks no more", async (c) => {
		const node = await c.file("f");
		await c.volume.setAttributes(root, node, { uid: 1001, gid: 2001 });
		await c.volume.setAttributes(root, node, { mode: 0o4450 });
		const of = async (caller: ReturnType<typeof user>) => {
			const { read, write, execute } = await c.volume.permissions(caller, node);
			return [read, write, execute];
		};
		assert.deepEqual(await of(user(1001)), [true, false, false]);
		assert.deepEqual(await of(user(1002, 5, [2001])), [true, false, true]);
		assert.deepEqual(await of(user(1003)), [false, false, false]);
		assert.deepEqual(await of(user(0)), [true, true, true]);
		const intent = { disposition: "open", access: { read: false, write: true } } as const;
		await rejects("EACCES", c.volume.open(user(1003), { node }, intent));
		const { handle } = await c.volume.open(user(1003), { node }, { ...intent, checked: true });
		await c.volume.write(handle, 0, text("x"));
		assert.equal((await c.volume.getAttributes(root, node)).mode, 0o450, "a foreign hand takes the set-uid bit");
		await c.volume.close(handle);
	});

	check("attributes are changed only if nobody was quicker, where that is asked for", async (c) => {
		const node = await c.file("f");
		const { ctime } = await c.volume.getAttributes(root, node);
		const changed = await c.volume.setAttributes(root, node, { mode: 0o600, onlyIfCtime: ctime });
		assert.deepEqual([changed.before?.ctime, changed.after.mode], [ctime, 0o600]);
		const wrong = { ...changed.after.ctime, nanoseconds: (changed.after.ctime.nanoseconds + 1) % 1_000_000_000 };
		await rejects("ECANCELED", c.volume.setAttributes(root, node, { mode: 0o644, onlyIfCtime: wrong }));
		await rejects("ECANCELED", c.volume.setAttributes(root, node, { size: 0, onlyIfCtime: wrong }));
		assert.equal((await c.volume.getAttributes(root, node)).mode, 0o600);
	});

	check("a rename tells of both directories, before and after", async (c) => {
		const made = await c.volume.makeDirectory(root, c.dir, "d", 0o755);
		const moved = await c.file("f");
		const target = c.node(made.attributes);
		const before = await c.volume.getAttributes(root, c.dir);
		const renamed = await c.volume.rename(root, c.dir, "f", target, "g", 0);
		assert.equal(renamed.attributes.ino, moved.ino);
		assert.equal(renamed.replaced, undefined);
		assert.deepEqual([renamed.parentBefore, renamed.newParentBefore], [before, made.attributes]);
		assert.deepEqual(renamed.parentAfter, await c.volume.getAttributes(root, c.dir));
		assert.deepEqual(renamed.newParentAfter, await c.volume.getAttributes(root, target));
		const other = await c.file("h");
		assert.equal((await c.volume.rename(root, c.dir, "h", target, "g", 0)).replaced?.ino, moved.ino);
		assert.equal((await c.volume.lookup(root, target, "g")).ino, other.ino);
	});
}

function intentTests(check: Check): void {
	const intents: readonly [string, Partial<OpenIntent>][] = [
		["deny modes", { deny: { read: false, write: true, delete: false } }],
		["leases", { lease: "read" }],
		["case folding", { foldCase: true }],
		["delete on close", { deleteOnClose: true }],
		["an unnamed file", { unnamed: true }],
		["a durable handle", { durable: { clientGuid: "0".repeat(32), createGuid: "1".repeat(32), persistent: false, timeoutMs: 0 } }],
	];
	for (const [what, intent] of intents) {
		check(`${what}: done, or refused with ENOTSUP and nothing done, never ignored`, async (c) => {
			const opening = c.open("f", "create", intent);
			const result = await opening.then(
				({ handle }) => handle,
				(error: unknown) => error,
			);
			if (typeof result === "number") {
				// An implementation that does them is tested by the suite of the lock core; here only that nothing is left open.
				await c.volume.close(result);
				return;
			}
			await rejects("ENOTSUP", opening);
			assert.deepEqual(await c.names(), []);
		});
	}

	check("intents that ask for nothing special are no reason to refuse", async (c) => {
		const deny = { read: false, write: false, delete: false };
		const opened = await c.open("f", "create", {
			deny,
			lease: "none",
			foldCase: false,
			deleteOnClose: false,
			unnamed: false,
			sync: false,
			append: false,
		});
		await c.volume.close(opened.handle);
	});
}

// ── handles ──────────────────────────────────────────────────────────────────────────────────────────────────────

function handleTests(check: Check): void {
	check("a handle does what it was opened for, and nothing after its close", async (c) => {
		await c.put("f", text("abc"));
		const reader = (await c.open("f", "open", { access: { read: true, write: false } })).handle;
		const writer = (await c.open("f", "open", { access: { read: false, write: true } })).handle;
		await rejects("EBADF", c.volume.write(reader, 0, text("x")));
		await rejects("EBADF", c.volume.read(writer, 0, 1));
		await c.volume.write(writer, 0, text("X"));
		assert.deepEqual(await c.volume.read(reader, 0, 9), text("Xbc"));
		await c.volume.flush(reader);
		await c.volume.close(reader);
		await c.volume.close(writer);
		for (const handle of [reader, writer, 2 ** 40, -1]) {
			await rejects("EBADF", c.volume.read(handle, 0, 1), `read by ${handle}`);
			await rejects("EBADF", c.volume.write(handle, 0, text("x")), `write by ${handle}`);
			await rejects("EBADF", c.volume.flush(handle), `flush of ${handle}`);
			await rejects("EBADF", c.volume.fsync(handle, false), `fsync of ${handle}`);
			await rejects("EBADF", c.volume.close(handle), `close of ${handle}`);
		}
	});

	check("a handle follows its file through rename, and setattr by handle works", async (c) => {
		const node = await c.put("a", text("abc"));
		const handle = await c.openNode(node);
		await c.volume.rename(root, c.dir, "a", await c.mkdir("d"), "b", 0);
		await c.volume.write(handle, 3, text("def"));
		assert.equal((await c.volume.getAttributes(root, node, handle)).size, 6);
		assert.equal((await c.volume.setAttributes(root, node, { size: 2 }, handle)).after.size, 2);
		assert.deepEqual(await c.volume.read(handle, 0, 9), text("ab"));
		await c.volume.close(handle);
	});

	check("all handles of a file see each other's writes and truncations at once", async (c) => {
		const node = await c.file("f");
		const [one, two] = [await c.openNode(node), await c.openNode(node)];
		await c.volume.write(one, 0, text("hello"));
		assert.deepEqual(await c.volume.read(two, 0, 9), text("hello"));
		await c.volume.write(two, 1, text("EL"));
		assert.deepEqual(await c.volume.read(one, 0, 9), text("hELlo"));
		const three = await c.open("f", "overwrite");
		assert.equal((await c.volume.read(one, 0, 9)).length, 0);
		await c.volume.write(one, 2, text("x"));
		assert.deepEqual(await c.volume.read(two, 0, 9), new Uint8Array([0, 0, 120]));
		for (const handle of [one, two, three.handle]) await c.volume.close(handle);
	});

	check("a synchronous handle writes like any other", async (c) => {
		const { handle } = await c.open("f", "create", { sync: true });
		for (let i = 0; i < 5; i++) await c.volume.write(handle, i * 1000, pattern(1000, i));
		sameBytes(await c.volume.read(handle, 4000, 2000), pattern(1000, 4), "last part");
		await c.volume.close(handle);
	});

	check("durable, syncAll, fsync and flush answer", async (c) => {
		const made = await c.volume.makeDirectory(root, c.dir, "d", 0o755);
		await c.volume.durable(made.position);
		await c.volume.durable(0);
		const { handle } = await c.open("f", "create");
		await c.volume.fsync(handle, true);
		await c.volume.write(handle, 0, pattern(100_000, 1));
		await c.volume.flush(handle);
		await c.volume.fsync(handle, false);
		await c.volume.fsync(handle, true);
		await c.volume.syncAll();
		await c.volume.close(handle);
		await c.volume.syncAll();
	});
}

// ── edges ────────────────────────────────────────────────────────────────────────────────────────────────────────

const tebibyte = 2 ** 40;

function edgeTests(check: Check): void {
	check("reads end where the file ends", async (c) => {
		const handle = await c.openNode(await c.put("f", text("abcdef")));
		assert.deepEqual(await c.volume.read(handle, 4, 100), text("ef"));
		assert.equal((await c.volume.read(handle, 6, 100)).length, 0);
		assert.equal((await c.volume.read(handle, 2 ** 45, 100)).length, 0);
		assert.equal((await c.volume.read(handle, 0, 0)).length, 0);
		await c.volume.close(handle);
	});

	check("a write of nothing changes nothing", async (c) => {
		const node = await c.file("f");
		const handle = await c.openNode(node);
		const before = await c.attributes(node);
		await c.harness.sleep(5);
		assert.equal((await c.volume.write(handle, 1000, new Uint8Array(0))).written, 0);
		const after = await c.attributes(node);
		assert.deepEqual([after.size, after.mtime], [0, before.mtime]);
		await c.volume.close(handle);
	});

	check("offsets that cannot be", async (c) => {
		const handle = await c.openNode(await c.file("f"));
		for (const offset of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
			await rejects("EINVAL", c.volume.read(handle, offset, 1), `read at ${offset}`);
			await rejects("EINVAL", c.volume.write(handle, offset, text("x")), `write at ${offset}`);
		}
		await rejects("EINVAL", c.volume.read(handle, 0, -1));
		await rejects("EFBIG", c.volume.write(handle, Number.MAX_SAFE_INTEGER - 1, text("x")));
		assert.equal((await c.volume.read(handle, 0, 10)).length, 0);
		await c.volume.close(handle);
	});

	check("bytes are copied before the first await, and what is read is the reader's own", async (c) => {
		for (const size of [10, 5000, 300_000, 2_500_000]) {
			const { handle } = await c.open(`f${size}`, "create");
			const bytes = pattern(size, size);
			const writing = c.volume.write(handle, 0, bytes);
			bytes.fill(0xee);
			assert.equal((await writing).written, size);
			const got = await c.readHandle(handle, 0, size);
			sameBytes(got, pattern(size, size), `${size} bytes`);
			const first = await c.volume.read(handle, 0, 8);
			first.fill(0);
			sameBytes(await c.volume.read(handle, 0, 8), pattern(size, size).subarray(0, 8), "read again");
			await c.volume.close(handle);
		}
	});

	check("a write tells the attributes after it", async (c) => {
		const { handle } = await c.open("f", "create");
		assert.equal((await c.volume.write(handle, 100, text("abc"))).attributes.size, 103);
		assert.equal((await c.volume.write(handle, 0, text("abc"))).attributes.size, 103);
		await c.volume.close(handle);
	});

	check("a buffer of the reader's own is filled with the same bytes, whatever was in it", async (c) => {
		const node = await c.file("f");
		const handle = await c.openNode(node);
		const check = async (when: string): Promise<void> => {
			const { size } = await c.attributes(node);
			for (const [offset, length] of [
				[0, size],
				[0, size + 1000],
				[90_000, 70_000],
				[140_000, 40_000],
				[Math.max(0, size - 10), 100],
				[size, 100],
			] as const) {
				const room = new Uint8Array(length + 7).fill(0xee);
				const found = await c.volume.read(handle, offset, length, room);
				sameBytes(found, await c.volume.read(handle, offset, length), `${length} bytes from ${offset}, ${when}`);
			}
		};
		await c.volume.write(handle, 0, text("tiny"));
		await check("tiny, unsealed");
		await c.volume.syncAll();
		await check("tiny, sealed");
		await c.volume.write(handle, 0, new Uint8Array(100_000).fill(1));
		await c.volume.write(handle, 150_000, new Uint8Array(200_000).fill(2));
		await check("unsealed");
		await c.volume.syncAll();
		await check("sealed");
		await c.volume.write(handle, 145_000, new Uint8Array(10_000).fill(3));
		await check("partly overwritten");
		await c.volume.close(handle);
	});

	check("a sparse file of 8 TiB", async (c) => {
		const node = await c.file("f");
		const handle = await c.openNode(node);
		const places = [0, 5000, 64 * 1024 * 1024 - 1, 2 ** 32 + 3, tebibyte, 8 * tebibyte - 3];
		for (const place of places) await c.volume.write(handle, place, text("abc"));
		const check = async (when: string): Promise<void> => {
			const { size, storedBytes } = await c.attributes(node);
			assert.equal(size, 8 * tebibyte, when);
			assert.ok(storedBytes < 1024 * 1024, `${storedBytes} bytes stored, ${when}`);
			for (const place of places) {
				const around = await c.volume.read(handle, Math.max(0, place - 4), 11);
				const lead = Math.min(place, 4);
				const tail = Math.min(8 - lead, size - place - 3);
				sameBytes(around, new Uint8Array([...new Uint8Array(lead), 97, 98, 99, ...new Uint8Array(tail)]), `around ${place}, ${when}`);
			}
			const hole = await c.volume.read(handle, 3 * tebibyte + 17, 1024 * 1024);
			assert.equal(hole.length, 1024 * 1024);
			assert.ok(
				hole.every((byte) => byte === 0),
				"holes are zeros",
			);
		};
		await check("unsealed");
		await c.volume.syncAll();
		await check("sealed");
		await c.volume.setAttributes(root, node, { size: 2 ** 32 + 4 });
		assert.deepEqual(await c.volume.read(handle, 2 ** 32 + 3, 9), text("a"));
		await c.volume.setAttributes(root, node, { size: 9 * tebibyte });
		sameBytes(await c.volume.read(handle, tebibyte - 2, 10), new Uint8Array(10), "what was cut off is a hole");
		await c.volume.close(handle);
		await c.volume.unlink(root, c.dir, "f");
		await c.gone(node);
	});
}

// ── append ───────────────────────────────────────────────────────────────────────────────────────────────────────

function appendTests(check: Check): void {
	check("an appending handle writes at the end, whatever offset it names", async (c) => {
		const node = await c.put("f", text("abc"));
		const append = await c.openNode(node, { append: true });
		await c.volume.write(append, 0, text("def"));
		assert.deepEqual(await c.get("f"), text("abcdef"));
		await c.volume.setAttributes(root, node, { size: 1 });
		await c.volume.write(append, 100, text("X"));
		assert.deepEqual(await c.get("f"), text("aX"));
		await c.volume.close(append);
	});

	check("many appenders at once lose and overwrite nothing", async (c) => {
		const node = await c.file("f");
		const handles = await Promise.all(Array.from({ length: 5 }, () => c.openNode(node, { append: true })));
		const writes = Array.from({ length: 200 }, (_, i) => c.volume.write(handles[i % 5] ?? -1, 0, text(`<${String(i).padStart(3, "0")}>`)));
		await Promise.all(writes);
		const records = new TextDecoder().decode(await c.get("f")).match(/<\d{3}>/g) ?? [];
		assert.deepEqual(
			records.sort(),
			Array.from({ length: 200 }, (_, i) => `<${String(i).padStart(3, "0")}>`),
		);
		assert.equal((await c.attributes(node)).size, 1000);
		for (const handle of handles) await c.volume.close(handle);
	});

	check("appends amid seals, syncs and truncations: none lost, none over another, none behind a gap", async (c) => {
		for (const fill of [0, 3000, 200_000]) {
			const node = await c.put("f", new Uint8Array(fill).fill(46));
			const handle = await c.openNode(node, { append: true });
			const work: Promise<unknown>[] = [];
			for (let i = 0; i < 300; i++) {
				work.push(c.volume.write(handle, 0, text(`<${String(i).padStart(3, "0")}>`)));
				if (i % 11 === 0) work.push(c.volume.fsync(handle, true));
				if (i % 29 === 0) work.push(c.volume.syncAll());
				if (i % 7 === 0) await c.harness.sleep(0.2);
			}
			await Promise.all(work);
			const content = new TextDecoder().decode((await c.get("f")).subarray(fill));
			assert.match(content, /^(<\d{3}>)*$/, `with ${fill} bytes before`);
			assert.equal(new Set(content.match(/<\d{3}>/g)).size, 300);
			assert.equal(content.length, 1500);
			const cutting: Promise<unknown>[] = [];
			for (let i = 0; i < 100; i++) {
				cutting.push(c.volume.write(handle, 0, text(`<${String(i).padStart(3, "0")}>`)));
				if (i % 9 === 0) cutting.push(c.volume.setAttributes(root, node, { size: 0 }));
			}
			await Promise.all(cutting);
			assert.match(new TextDecoder().decode(await c.get("f")), /^(<\d{3}>)*$/, "after truncations");
			await c.volume.close(handle);
		}
	});

	check("a large append stays in one piece beside others", async (c) => {
		const node = await c.file("f");
		const [one, two] = [await c.openNode(node, { append: true }), await c.openNode(node, { append: true })];
		const large = (tag: number): Uint8Array => new Uint8Array(1024 * 1024).fill(tag);
		await Promise.all([1, 2, 3, 4].map((tag) => c.volume.write(tag % 2 === 0 ? two : one, 0, large(tag))));
		const all = await c.get("f");
		assert.equal(all.length, 4 * 1024 * 1024);
		let runs = 1;
		for (let i = 1; i < all.length; i++) if (all[i] !== all[i - 1]) runs++;
		assert.equal(runs, 4);
		await c.volume.close(one);
		await c.volume.close(two);
	});
}

// ── without a name ───────────────────────────────────────────────────────────────────────────────────────────────

function unnamedTests(check: Check): void {
	check("an open file lives on without its name, until it is closed", async (c) => {
		for (const size of [100, 400_000]) {
			const node = await c.put("f", pattern(size, 1));
			const [handle, second] = [await c.openNode(node), await c.openNode(node)];
			await c.volume.setXattr(root, node, "user.a", text("1"), "any");
			await c.volume.unlink(root, c.dir, "f");
			await rejects("ENOENT", c.open("f"));
			assert.equal((await c.attributes(node)).nlink, 0);
			await c.volume.write(handle, size, text("more"));
			await c.volume.syncAll();
			sameBytes(await c.readHandle(handle, 0, size + 4), new Uint8Array([...pattern(size, 1), ...text("more")]), "contents");
			await c.volume.setAttributes(root, node, { size: size + 1 });
			await c.volume.fsync(handle, false);
			await rejects("ENOENT", c.volume.link(root, node, c.dir, "again"));
			await c.volume.close(handle);
			assert.equal((await c.volume.read(second, 0, size * 2)).length, size + 1);
			await c.harness.sleep(3000);
			assert.equal((await c.volume.read(second, 0, size * 2)).length, size + 1, "one handle is enough");
			await c.volume.close(second);
			await c.gone(node);
		}
	});

	check("a file replaced by rename lives on while it is open", async (c) => {
		const old = await c.put("name", text("old"));
		const handle = await c.openNode(old);
		await c.put("new", text("new"));
		await c.volume.rename(root, c.dir, "new", c.dir, "name", 0);
		assert.deepEqual(await c.get("name"), text("new"));
		assert.deepEqual(await c.volume.read(handle, 0, 9), text("old"));
		await c.volume.close(handle);
		await c.gone(old);
	});

	check("files that are removed and closed in every order at once all go", async (c) => {
		const nodes = await Promise.all(Array.from({ length: 60 }, (_, i) => c.put(`f${i}`, pattern(i * 100, i))));
		const handles = await Promise.all(nodes.map((node) => c.openNode(node)));
		await Promise.all(nodes.flatMap((_, i) => [c.volume.unlink(root, c.dir, `f${i}`), c.volume.close(handles[i] ?? -1)]));
		for (const node of nodes) await c.gone(node);
		assert.deepEqual(await c.names(), []);
	});
}
