/**
 * Everything that clients do, as one table: an operation is a name, a weight, and a function that does it once and holds the answer against the model. A new verb of the
 * volume gets a row here.
 */
import type { Prng } from "../../src/platform/sim/prng.ts";
import type { Timestamp } from "../../src/base/time.ts";
import type { Attributes } from "../../src/volume/interface.ts";
import type { FsError } from "../../src/base/errors.ts";
import type { NativeVolume } from "../../src/volume/native/interface.ts";
import { yardName } from "../support/durable-yard.ts";
import { type Client, lockOwner, lookupAnswer, type OpenFile } from "./client.ts";
import { Content, timeText } from "./content.ts";
import { endFrom, endOf, lockText, type ModelLock } from "./lock-model.ts";
import { accessList, appendOnly, describeNode, immutable, inheritedList, listBytes, may, maybe, type Tree, type TreeNode } from "./tree.ts";

export interface Operation {
	readonly name: string;
	readonly weight: number;
	run(client: Client): Promise<void>;
}

const handlesPerClient = 4;
const mostLocks = 10_000;
const mostRead = 2_000_000;
const fileNames = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

// ── choosing ─────────────────────────────────────────────────────────────────────────────────────────────────────

function directories(client: Client): TreeNode[] {
	client.sim.names.settle();
	return client.sim.names.tree.living().filter((node) => node.entries !== undefined);
}

function someDirectory(client: Client): TreeNode {
	return client.random.pick(directories(client));
}

/** A name in a directory: one that is there, or any. */
function someName(client: Client, directory: TreeNode): string {
	const names = [...(directory.entries?.keys() ?? [])].filter((name) => name !== yardName);
	if (names.length > 0 && client.random.chance(0.7)) return client.random.pick(names);
	return freshName(client.random);
}

function freshName(random: Prng): string {
	if (random.chance(0.02)) return "x".repeat(200) + random.pick(fileNames);
	return random.pick(fileNames) + (random.chance(0.5) ? random.pick(fileNames) : "");
}

function someNode(client: Client): TreeNode {
	client.sim.names.settle();
	return client.random.pick(client.sim.names.tree.living());
}

/** The tree is as large as it should get. */
function crowded(client: Client): boolean {
	return client.sim.names.tree.living().length >= client.sim.plan.nodes;
}

function someOpen(client: Client): OpenFile | undefined {
	return client.open.length === 0 ? undefined : client.random.pick(client.open);
}

/** An open file, opened now if there is none. */
async function ensureOpen(client: Client): Promise<OpenFile | undefined> {
	if (client.open.length < handlesPerClient && (client.open.length === 0 || client.random.chance(0.2))) await openFile.run(client);
	return someOpen(client);
}

// ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Of a directory: sticky, and that it hands down its group. */
function someBits({ random, sim }: Client): number {
	return sim.plan.others === 0 ? 0 : random.pick([0, 0, 0o1000, 0o2000, 0o3000]);
}

async function make(client: Client, type: "directory" | "file" | "fifo" | "symlink" | "character"): Promise<void> {
	const parent = someDirectory(client);
	const name = client.random.chance(0.8) ? freshName(client.random) : someName(client, parent);
	const mode = type === "directory" ? 0o700 + client.random.below(0o100) + someBits(client) : 0o600 + client.random.below(0o100);
	const target = type === "symlink" ? `../${freshName(client.random)}` : undefined;
	const rdev = type === "character" ? 259 + client.random.below(100) : 0;
	const { volume, who: caller } = client;
	const { uid, gid, umask = 0 } = caller;
	const at = client.node(parent.ino);
	const shownMode = type === "symlink" ? 0o777 : mode;
	await client.change(
		`make ${type} ${parent.ino}/${name}`,
		{ kind: "create", parent: parent.ino, name, type, mode: shownMode, uid, gid, umask, rdev, target, orOpen: false },
		async () => {
			const made =
				type === "directory"
					? await volume.makeDirectory(caller, at, name, mode)
					: type === "symlink"
						? await volume.makeSymlink(caller, at, name, target as string)
						: await volume.makeNode(caller, at, name, type, mode, rdev);
			return { position: made.position, made: made.attributes.ino };
		},
	);
}

const makeSomething: Operation = {
	name: "make",
	weight: 8,
	async run(client) {
		if (crowded(client)) return removeSomething.run(client);
		await make(client, client.random.pick(["directory", "directory", "file", "fifo", "symlink", "character"]));
	},
};

const openFile: Operation = {
	name: "open",
	weight: 12,
	async run(client) {
		if (client.open.length >= handlesPerClient) return closeFile.run(client);
		const { random } = client;
		const parent = someDirectory(client);
		const files = [...(parent.entries ?? [])].filter(([, ino]) => client.sim.names.tree.get(ino)?.type === "file").map(([name]) => name);
		const name = files.length > 0 && (crowded(client) || random.chance(0.6)) ? random.pick(files) : freshName(random);
		await client.openName(parent, name, { append: random.chance(0.2), sync: random.chance(0.1), empty: random.chance(0.15) });
	},
};

const closeFile: Operation = {
	name: "close",
	weight: 6,
	async run(client) {
		const open = someOpen(client);
		if (open !== undefined) await client.close(open);
	},
};

const removeSomething: Operation = {
	name: "remove",
	weight: 7,
	async run(client) {
		const parent = someDirectory(client);
		const name = someName(client, parent);
		const child = client.sim.names.tree.child(parent.ino, name);
		const { volume, who: caller } = client;
		const isDirectory = (child?.type === "directory") !== client.random.chance(0.05);
		const kind = isDirectory ? "rmdir" : "unlink";
		await client.change(`${kind} ${parent.ino}/${name}`, { kind, parent: parent.ino, name }, () =>
			isDirectory ? volume.removeDirectory(caller, client.node(parent.ino), name) : volume.unlink(caller, client.node(parent.ino), name),
		);
	},
};

const link: Operation = {
	name: "link",
	weight: 5,
	async run(client) {
		const node = someNode(client);
		const parent = someDirectory(client);
		const name = freshName(client.random);
		await client.change(`link ${node.ino} as ${parent.ino}/${name}`, { kind: "link", ino: node.ino, parent: parent.ino, name }, () =>
			client.volume.link(client.who, client.node(node.ino), client.node(parent.ino), name),
		);
	},
};

const rename: Operation = {
	name: "rename",
	weight: 10,
	async run(client) {
		const { sim, random } = client;
		const from = someDirectory(client);
		const to = random.chance(0.5) ? from : someDirectory(client);
		const name = someName(client, from);
		const newName = someName(client, to);
		const wanted = random.pick([0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 4, 5]);
		// What else is under way may change what the names mean: then nothing is promised of the contents, and the number of a whiteout cannot be told.
		const isAlone = sim.names.underWay === 0 && sim.names.alone === undefined;
		const flags = isAlone ? wanted : wanted & 3;
		const source = sim.names.tree.child(from.ino, name);
		const target = sim.names.tree.child(to.ino, newName);
		const saved = (flags & 1) === 0 && target !== undefined && source?.type === "file" ? sim.fileOf(source.ino) : undefined;
		const tick = saved?.tick ?? 0;
		const { uid, gid } = client.who;
		const operation = { kind: "rename", parent: from.ino, name, newParent: to.ino, newName, flags, owner: { uid, gid } } as const;
		const leaves = (flags & 4) !== 0;
		let position = 0;
		const call = async () => {
			const answer = await client.volume.rename(client.who, client.node(from.ino), name, client.node(to.ino), newName, flags);
			position = answer.position;
			return leaves && source?.ino !== target?.ino ? { position, made: whiteoutAt(client, from.ino, name) } : { position };
		};
		const change = () => client.change(`rename ${from.ino}/${name} to ${to.ino}/${newName} flags ${flags}`, operation, call);
		const done = await (leaves ? sim.names.onlyThis(change) : change());
		if (done !== undefined && saved !== undefined && isAlone && source?.ino !== target?.ino) sim.saved(saved, tick, position);
	},
};

/** The number of what a rename has just left under the old name; asked for in the event of its answer, and again where a rare way finds it not in memory. */
function whiteoutAt(client: Client, parent: number, name: string): number {
	for (let tries = 0; tries < 1000; tries++) {
		const found = client.volume.now?.lookup(client.caller, client.node(parent), name);
		if (found === undefined) continue;
		if (found === null || found.type !== "character" || found.rdev !== 0) client.complain(`no whiteout is left as ${parent}/${name}`);
		return found.ino;
	}
	return client.complain(`the whiteout ${parent}/${name} cannot be looked at`);
}

// ── attributes ───────────────────────────────────────────────────────────────────────────────────────────────────

const setAttributes: Operation = {
	name: "attributes",
	weight: 4,
	async run(client) {
		const node = someNode(client);
		const { random } = client;
		const change: { mode?: number; uid?: number; gid?: number; atime?: Timestamp } = {};
		if (node.type !== "symlink" && random.chance(0.6))
			change.mode = random.below(0o1000) + (node.type === "directory" ? someBits(client) : 0);
		if (change.mode === undefined || random.chance(0.3)) change.uid = random.below(5);
		if (random.chance(0.3)) change.gid = random.below(5);
		if (random.chance(0.3)) change.atime = { seconds: random.below(2 ** 31), nanoseconds: random.below(1_000_000_000) };
		const { atime, ...rest } = change;
		const operation = { kind: "setattr", ino: node.ino, ...rest, ...(atime === undefined ? {} : { atime: timeText(atime) }) } as const;
		await client.change(`attributes of ${node.ino} ${JSON.stringify(change)}`, operation, () =>
			client.volume.setAttributes(client.who, client.node(node.ino), change),
		);
	},
};

/** chattr(1). The root stays usable: else nothing would happen any more. */
const flags: Operation = {
	name: "flags",
	weight: 3,
	async run(client) {
		const node = someNode(client);
		const { random } = client;
		if (node.type !== "file" && node.type !== "directory") return;
		const isBound = ((node.flags ?? 0) & (immutable | appendOnly)) !== 0;
		const binding = node.ino === 1 || (isBound && random.chance(0.8)) ? 0 : random.pick([0, immutable, appendOnly]);
		const wanted = binding | random.pick([0, 0x40, 0x80, 0xc0]);
		await client.change(`flags of ${node.ino} ${wanted.toString(16)}`, { kind: "setattr", ino: node.ino, flags: wanted }, () =>
			client.volume.setAttributes(client.who, client.node(node.ino), { flags: wanted }),
		);
	},
};

const xattrs: Operation = {
	name: "xattrs",
	weight: 4,
	async run(client) {
		const { random, volume, who: caller } = client;
		const node = someNode(client);
		if (node.type !== "file" && node.type !== "directory") return;
		const name = `user.${random.pick(["a", "b", "c"])}`;
		const at = client.node(node.ino);
		if (random.chance(0.3)) {
			await client.change(`remove ${name} of ${node.ino}`, { kind: "removexattr", ino: node.ino, name }, () =>
				volume.removeXattr(caller, at, name),
			);
			return;
		}
		const mode = random.pick(["any", "any", "create", "replace"] as const);
		const text = `${client.sim.nextNumber()}-`.repeat(1 + random.below(random.pick([2, 100, 4000])));
		const value = new TextEncoder().encode(text);
		// The model keeps what tells two values apart.
		const known = `${value.length}:${text.slice(0, 12)}`;
		await client.change(
			`set ${name} of ${node.ino}, ${value.length} bytes, ${mode}`,
			{ kind: "setxattr", ino: node.ino, name, value: known, mode },
			() => volume.setXattr(caller, at, name, value, mode),
		);
	},
};

const accessLists: Operation = {
	name: "access-lists",
	weight: 3,
	async run(client) {
		const { random, volume, who: caller } = client;
		const node = someNode(client);
		if (node.type === "symlink") return;
		const bits = (): number => random.below(8);
		const list = { owner: bits(), user: bits(), group: bits(), namedGroup: bits(), mask: bits(), other: bits() };
		const inherited = node.type === "directory" && random.chance(0.5);
		const name = inherited ? inheritedList : accessList;
		await client.change(`set ${name} of ${node.ino}`, { kind: "setlist", ino: node.ino, list, inherited }, () =>
			volume.setXattr(caller, client.node(node.ino), name, listBytes(list), "any"),
		);
	},
};

// ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────

export function describeAttributes(attributes: Attributes): string {
	const { ino, type, mode, uid, gid, nlink, rdev, flags } = attributes;
	return describeNode({ ino, type, mode, uid, gid, nlink, rdev, flags } as TreeNode);
}

const lookup: Operation = {
	name: "lookup",
	weight: 4,
	async run(client) {
		const parent = someDirectory(client);
		const name = someName(client, parent);
		await client.look(
			`lookup ${parent.ino}/${name}`,
			(tree) => lookupAnswer(tree, parent.ino, name, client.by),
			async () => describeAttributes(await client.volume.lookup(client.who, client.node(parent.ino), name)),
		);
	},
};

const list: Operation = {
	name: "list",
	weight: 4,
	async run(client) {
		const directory = someDirectory(client);
		const expect = (tree: Tree): string => {
			const node = tree.get(directory.ino);
			if (node?.entries === undefined) return "ENOENT";
			if (node.nlink === 0) return maybe;
			if (!may(node, client.by, 4)) return "EACCES";
			return [...node.entries]
				.map(([name, ino]) => `${name}=${ino}`)
				.sort()
				.join(" ");
		};
		await client.look(`list ${directory.ino}`, expect, async () => {
			const items = await client.volume.readDirectory(client.who, client.node(directory.ino), 2, 10_000, true);
			return items
				.map((item) => `${item.name}=${item.ino}`)
				.sort()
				.join(" ");
		});
	},
};

// ── contents ─────────────────────────────────────────────────────────────────────────────────────────────────────

/** Where changes of this file tend to happen: at its start, inside, at its end, far behind it. */
function someOffset(client: Client, open: OpenFile): number {
	const { random } = client;
	const size = open.file.possible()[0]?.size ?? 0;
	const kind = random.below(20);
	if (kind < 6) return random.below(size + 1);
	if (kind < 11) return size;
	if (kind < 14) return 0;
	if (kind < 19) return random.below(300_000);
	return random.chance(0.3) ? 2 ** 40 + random.below(10_000) : random.below(8_000_000);
}

const write: Operation = {
	name: "write",
	weight: 30,
	async run(client) {
		const open = await ensureOpen(client);
		if (open === undefined) return;
		if (client.mayChange(open.file)) await writeTo(client, open);
		else await client.read(open, 0, Math.min(mostRead, (open.file.possible()[0]?.size ?? 0) + 1));
	},
};

async function writeTo(client: Client, open: OpenFile): Promise<void> {
	const { random, sim } = client;
	const lengthBytes = 1 + random.below(random.pick([20, 3_000, sim.plan.writeBytes, sim.plan.writeBytes]));
	const offset = someOffset(client, open);
	const source = client.newSource(open.append ? 0 : offset);
	const bytes = sim.ink.bytes(source, lengthBytes);
	const apply = (content: Content): Content => {
		if (!open.append) return content.write(offset, lengthBytes, source);
		return content.write(content.size, lengthBytes, { id: source.id, base: content.size });
	};
	const { file } = open;
	const what = `${open.append ? "append to" : "write"} inode ${file.ino} ${open.append ? "" : offset}+${lengthBytes}${open.sync ? " sync" : ""} (${source.id})`;
	sim.stats.bytesWritten += lengthBytes;
	sim.names.settle();
	const position = sim.names.lastPosition;
	const before = file.tick;
	const aloneBefore = file.busy === 0;
	const call = async (): Promise<void> => {
		const answer = await client.volume.write(open.handle, offset, bytes);
		if (answer.written !== lengthBytes) client.complain(`${what}: ${answer.written} bytes were taken`);
	};
	const written = await client.alter(what, file, apply, call, open.append ? "append" : "place");
	if (!written || !open.sync) return;
	sim.names.durable(position);
	// Alone, the write is in all that is possible now; beside others, something before them may be what was synced.
	const alone = aloneBefore && file.tick === before + 2;
	file.durableSince(alone ? file.tick : before);
}

const read: Operation = {
	name: "read",
	weight: 14,
	async run(client) {
		const open = await ensureOpen(client);
		if (open === undefined) return;
		const { random } = client;
		const size = open.file.possible()[0]?.size ?? 0;
		if (size < 2_000_000 && random.chance(0.5)) await client.read(open, 0, size + 1);
		else await client.read(open, someOffset(client, open), 1 + random.below(random.pick([100, 20_000, 200_000])));
	},
};

const size: Operation = {
	name: "size",
	weight: 8,
	async run(client) {
		const open = someOpen(client);
		if (open !== undefined) await client.size(open);
	},
};

const truncate: Operation = {
	name: "truncate",
	weight: 8,
	async run(client) {
		const open = await ensureOpen(client);
		if (open === undefined || !client.mayChange(open.file)) return;
		const { random } = client;
		const now = open.file.possible()[0]?.size ?? 0;
		const to = random.pick([0, random.below(now + 1), random.below(now + 1), now + random.below(100_000)]);
		const { file } = open;
		await client.alter(
			`truncate inode ${file.ino} to ${to}`,
			file,
			(content) => content.truncate(to),
			() => client.volume.setAttributes(client.caller, client.node(file.ino), { size: to }, open.handle),
			"cut",
		);
	},
};

/** utimensat(2), often right after a write, as `cp -p`, `tar` and `rsync` do it. */
const times: Operation = {
	name: "times",
	weight: 5,
	async run(client) {
		const open = await ensureOpen(client);
		if (open === undefined || !client.mayChange(open.file)) return;
		if (client.random.chance(0.6)) await writeTo(client, open);
		if (!client.mayChange(open.file)) return;
		const { file } = open;
		const mtime = { seconds: client.random.below(2 ** 31), nanoseconds: client.random.below(1_000_000_000) };
		const time = timeText(mtime);
		await client.alter(
			`set time of inode ${file.ino} to ${time}`,
			file,
			(content) => content.withTime(time),
			() => client.volume.setAttributes(client.caller, client.node(file.ino), { mtime }),
			"cut",
		);
		// As rsync, which looks again.
		if (client.random.chance(0.5)) await client.size(open);
	},
};

const allocate: Operation = {
	name: "allocate",
	weight: 6,
	async run(client) {
		const open = await ensureOpen(client);
		if (open === undefined || !client.mayChange(open.file)) return;
		const { random } = client;
		const mode = random.pick(["allocate", "allocate-keep-size", "punch", "punch", "zero", "zero-keep-size"] as const);
		const offset = someOffset(client, open);
		const lengthBytes = 1 + random.below(random.pick([5_000, 200_000]));
		const end = offset + lengthBytes;
		const grows = mode === "allocate" || mode === "zero";
		const apply = (content: Content): Content => {
			if (mode === "allocate") return new Content(Math.max(content.size, end), content.pieces);
			return mode === "allocate-keep-size" ? content.withTime(undefined) : content.zero(offset, end, grows);
		};
		const { file } = open;
		const call = () => client.volume.allocate(open.handle, mode, offset, lengthBytes);
		await client.alter(
			`${mode} inode ${file.ino} ${offset}+${lengthBytes}`,
			file,
			apply,
			call,
			mode.startsWith("allocate") ? "append" : "cut",
			true,
		);
	},
};

const copy: Operation = {
	name: "copy",
	weight: 6,
	async run(client) {
		const source = await ensureOpen(client);
		const target = someOpen(client);
		if (source === undefined || target === undefined || target.append || source.file === target.file) return;
		const [content, ...others] = source.file.possible();
		// What is copied must be known, and stay.
		if (content === undefined || others.length > 0 || source.file.busy > 0 || !client.mayChange(target.file)) return;
		const { random } = client;
		const from = random.below(content.size + 1);
		const lengthBytes = Math.min(content.size - from, 1 + random.below(random.pick([5_000, 2_000_000])));
		if (lengthBytes <= 0) return;
		const to = someOffset(client, target);
		source.file.pins++;
		const call = async (): Promise<void> => {
			for (let done = 0; done < lengthBytes; ) {
				const { copied } = await client.volume.copyRange(source.handle, from + done, target.handle, to + done, lengthBytes - done);
				if (copied === 0) client.complain(`a copy of inode ${source.file.ino} ended after ${done} of ${lengthBytes} bytes`);
				done += copied;
			}
		};
		const what = `copy inode ${source.file.ino} ${from}+${lengthBytes} to inode ${target.file.ino} ${to}`;
		await client.alter(what, target.file, (before) => before.copy(to, content, from, lengthBytes), call, "place", true);
		source.file.pins--;
	},
};

const seek: Operation = {
	name: "seek",
	weight: 3,
	async run(client) {
		const open = someOpen(client);
		if (open === undefined) return;
		const watch = open.file.watch();
		const offset = someOffset(client, open);
		const what = client.random.pick(["data", "hole"] as const);
		const result = await client.answer(client.volume.seek(open.handle, offset, what));
		open.file.unwatch(watch);
		const answer = "error" in result ? result.error.code : result.value;
		client.sim.note(`${client.number} seek ${what} in inode ${open.file.ino} from ${offset} → ${answer}`);
		const [content, ...others] = [...watch.seen.values()];
		if (watch.quiet && content !== undefined && others.length === 0) {
			const wrong = wrongSeek(content, what, offset, answer);
			if (wrong !== undefined) client.complain(`seek ${what} in inode ${open.file.ino} from ${offset} answers ${answer}: ${wrong}`);
		}
		await client.sim.nextEvent(client.life);
	},
};

/** Data that is passed over would be lost by every program that copies sparsely. Zeros that are shown as data harm nobody. */
function wrongSeek(content: Content, what: "data" | "hole", offset: number, answer: number | string): string | undefined {
	if (typeof answer === "string") {
		if (answer !== "ENXIO") return "no such error";
		if (what === "hole") return offset < content.size ? "the end is a hole" : undefined;
		return content.pieces.some((piece) => piece.to > offset) ? "there is data" : undefined;
	}
	if (answer < offset || answer > content.size) return "outside";
	if (what === "data")
		return content.pieces.some((piece) => Math.max(piece.from, offset) < Math.min(piece.to, answer)) ? "data is passed over" : undefined;
	return content.pieces.some((piece) => piece.from <= answer && piece.to > answer) ? "there is data" : undefined;
}

const unnamed: Operation = {
	name: "unnamed",
	weight: 3,
	async run(client) {
		const { random } = client;
		const candidate = client.open.find((open) => client.sim.names.tree.get(open.file.ino)?.nlink === 0);
		if (candidate !== undefined && random.chance(0.6)) {
			const parent = someDirectory(client);
			const name = freshName(random);
			const { ino } = candidate.file;
			await client.change(`link ${ino} as ${parent.ino}/${name}`, { kind: "link", ino, parent: parent.ino, name }, () =>
				client.volume.link(client.who, client.node(ino), client.node(parent.ino), name),
			);
			return;
		}
		if (client.open.length < handlesPerClient && !crowded(client)) await client.openUnnamed(someDirectory(client), random.chance(0.7));
	},
};

// ── locks ────────────────────────────────────────────────────────────────────────────────────────────────────────

function someLock(client: Client, open: OpenFile): ModelLock {
	const { random } = client;
	const family = random.chance(0.3) ? "flock" : "fcntl";
	const start = family === "flock" ? 0 : random.below(40);
	const end = family === "flock" || random.chance(0.1) ? Number.POSITIVE_INFINITY : start + random.below(20);
	return { ino: open.file.ino, family, owner: lockOwner(open.handle), exclusive: random.chance(0.5), start, end };
}

const lock: Operation = {
	name: "lock",
	weight: 8,
	async run(client) {
		const open = await ensureOpen(client);
		if (open === undefined) return;
		const wanted = someLock(client, open);
		if (client.random.chance(0.3)) unlock(client, wanted);
		else await takeLock(client, open, wanted, client.random.chance(0.4));
		await client.sim.nextEvent(client.life);
		checkLocks(client);
	},
};

function unlock(client: Client, place: ModelLock): void {
	const { ino, family, owner, start, end } = place;
	const number = client.sim.nextNumber();
	const range = { start, end: endOf(end) };
	client.volume.locks.unlock({ ino, family, owner: { id: owner, pid: client.number }, range }, { low: number, high: 1 });
	client.sim.locks.clear(place);
	client.sim.note(`${client.number} unlock ${lockText([place])}`);
}

async function takeLock(client: Client, { handle }: OpenFile, wanted: ModelLock, wait: boolean): Promise<void> {
	const { sim, volume } = client;
	const { ino, family, owner, exclusive, start, end } = wanted;
	const request = { low: sim.nextNumber(), high: 1 };
	// flock(2): the old lock is given up first.
	if (family === "flock" && sim.locks.holdsAnother(wanted)) sim.locks.clear(wanted);
	const mayWait = sim.locks.mayWait(wanted);
	const othersWait = sim.locks.waiting.size > 0;
	sim.locks.waiting.add(wanted);
	const asked = volume.locks.lock(
		{ ino, handle, family, owner: { id: owner, pid: client.number }, exclusive, range: { start, end: endOf(end) } },
		{ wait, victim: true, request },
	);
	const answered = asked.then(
		() => {
			sim.locks.waiting.delete(wanted);
			if (client.life.alive) sim.locks.set(wanted);
			return "granted";
		},
		(error: FsError) => {
			sim.locks.waiting.delete(wanted);
			return error.code;
		},
	);
	let answer: string | undefined = await Promise.race([answered, sim.world.sleep(client.random.below(3_000)).then(() => undefined)]);
	if (!client.life.alive) return new Promise(() => {});
	if (answer === undefined) {
		volume.locks.cancel(request);
		answer = await answered;
	}
	// One who makes a shared lock of an exclusive one lets others in, who may hear of it before: so it is looked at when the event is over.
	await sim.nextEvent(client.life);
	const other = answer === "granted" ? sim.locks.conflict(wanted) : undefined;
	if (other !== undefined) answer = `granted beside ${lockText([other])}`;
	const what = `lock ${lockText([wanted])}${wait ? ", waiting" : ""}`;
	sim.note(`${client.number} ${what} → ${answer}`);
	sim.stats.count("outcomes", `lock ${answer.split(" ")[0]}`);
	const possible = ["granted", ...(mayWait ? [wait ? "ECANCELED" : "EAGAIN"] : []), ...(wait && othersWait ? ["EDEADLK"] : [])];
	if (!possible.includes(answer)) client.complain(`${what}: ${answer}; possible: ${possible.join(", ")}`);
}

/** What the table says is what was granted and not given up. */
function checkLocks(client: Client): void {
	const told = heldLocks(client.volume);
	const known = client.sim.locks.text();
	if (told !== known) client.complain(`locks are ${told || "none"}; they must be ${known || "none"}`);
}

export function heldLocks(volume: NativeVolume): string {
	// Those of SMB are the yard's, which looks after them itself.
	const held = volume.locks.list(mostLocks).held.filter(({ family }) => family !== "smb");
	return lockText(
		held.map(({ ino, family, exclusive, range, owner }) => ({
			ino,
			family: family === "flock" ? "flock" : "fcntl",
			exclusive,
			owner: owner.id.slice(-16),
			start: Number(range.start),
			end: endFrom(range.end),
		})),
	);
}

// ── making durable ───────────────────────────────────────────────────────────────────────────────────────────────

const fsync: Operation = {
	name: "fsync",
	weight: 12,
	async run(client) {
		const open = await ensureOpen(client);
		if (open === undefined) return;
		const dataOnly = client.random.chance(0.5);
		await client.persist(`fsync inode ${open.file.ino}`, [open.file], () => client.volume.fsync(open.handle, dataOnly));
	},
};

const syncAll: Operation = {
	name: "syncfs",
	weight: 2,
	async run(client) {
		await client.persist("syncfs", client.sim.files(), () => client.volume.syncAll());
	},
};

const durable: Operation = {
	name: "durable",
	weight: 2,
	async run(client) {
		// What was answered at this very moment counts, as `persist` is about to say that all of it is durable.
		client.sim.names.settle();
		const position = client.sim.names.lastPosition;
		if (position > 0 && Number.isFinite(position)) await client.persist(`durable ${position}`, [], () => client.volume.durable(position));
	},
};

const rest: Operation = {
	name: "rest",
	weight: 2,
	async run(client) {
		await client.sim.world.sleep(client.random.below(client.random.pick([50, 3_000])));
		await client.sim.nextEvent(client.life);
	},
};

const space: Operation = {
	name: "space",
	weight: 2,
	async run(client) {
		const result = await client.answer(client.volume.space());
		if ("error" in result) return client.complain(`space: ${result.error.code} ${result.error.message}`);
		const { capacityBytes, freeBytes } = result.value;
		if (freeBytes < 0 || freeBytes > capacityBytes) client.complain(`space: ${freeBytes} of ${capacityBytes} bytes are free`);
		client.sim.note(`${client.number} space ${freeBytes} of ${capacityBytes}`);
		await client.sim.nextEvent(client.life);
	},
};

/** Shapes that lose nothing by what a plan lets go wrong, by that number of losses. */
const shapes: Readonly<Record<number, readonly string[]>> = {
	1: ["rs:2+1", "replicate:2", "replicate:3", "rs:3+1"],
	2: ["rs:3+2", "rs:4+2", "replicate:3", "rs:2+2"],
};
/** Too few disks, a path that is gone, too much at once. */
const protectRefusals: readonly string[] = ["REFUSED", "ENOENT", "ENOTDIR", "EINVAL", "EAGAIN"];

/** How a file, a directory or everything is protected. That contents are not changed by it is what everything else here looks at; that it is done in the end, the audit. */
const protect: Operation = {
	name: "protect",
	weight: 2,
	async run(client) {
		const { random, sim } = client;
		const parent = someDirectory(client);
		const entries = [...(parent.entries?.keys() ?? [])];
		const path = [...pathOf(sim.names.tree, parent), ...(entries.length > 0 && random.chance(0.7) ? [random.pick(entries)] : [])].join("/");
		const redundancy = random.chance(0.3) ? undefined : random.pick(shapes[sim.plan.tolerance] ?? []);
		const asked = { redundancy, allowDegraded: false, now: random.chance(0.3) };
		const result = await client.answer(client.volume.setProtection(path, asked, () => {}));
		const what = `protect /${path} ${redundancy ?? "as above"}${asked.now ? " now" : ""}`;
		const told = "error" in result ? `${result.error.code} ${result.error.site}` : result.value.redundancy.value;
		sim.note(`${client.number} ${what} → ${told}`);
		sim.stats.count("outcomes", "error" in result ? `protect ${result.error.code}` : "protect");
		if ("error" in result && !protectRefusals.includes(result.error.code) && !client.tolerated(result.error))
			client.complain(`${what}: ${told}: ${result.error.message}`);
		await sim.nextEvent(client.life);
	},
};

function pathOf(tree: Tree, directory: TreeNode): string[] {
	if (directory.ino === 1) return [];
	const parent = tree.get(directory.parent);
	const name = [...(parent?.entries ?? [])].find(([, ino]) => ino === directory.ino)?.[0];
	return parent === undefined || name === undefined ? [] : [...pathOf(tree, parent), name];
}

/** What the volume tells of itself. */
const account: Operation = {
	name: "account",
	weight: 1,
	async run(client) {
		const { sim } = client;
		const result = await client.answer(client.volume.ledger());
		if ("error" in result) return client.complain(`ledger: ${result.error.code} ${result.error.message}`);
		const { provenBytes, recordedBytes, degradedBytes, lostBytes, levels, survival } = result.value;
		sim.note(`${client.number} ledger: ${provenBytes} proven, ${recordedBytes} recorded, ${degradedBytes} degraded, ${lostBytes} lost`);
		if (lostBytes > 0) client.complain(`the ledger says that ${lostBytes} bytes are lost`);
		const wanted = levels.reduce((sum, level) => sum + level.wantedBytes, 0);
		if (wanted !== provenBytes + recordedBytes + degradedBytes)
			client.complain(`the ledger does not add up: ${JSON.stringify(result.value)}`);
		for (const field of ["recordedBytes", "provenBytes"] as const)
			if (survival.reduce((sum, one) => sum + one[field], 0) !== wanted)
				client.complain(`survival does not add up: ${JSON.stringify(survival)}`);
		await sim.nextEvent(client.life);
	},
};

export const operations: readonly Operation[] = [
	makeSomething,
	openFile,
	closeFile,
	removeSomething,
	link,
	rename,
	setAttributes,
	flags,
	xattrs,
	accessLists,
	lookup,
	list,
	write,
	read,
	size,
	truncate,
	times,
	allocate,
	copy,
	seek,
	unnamed,
	lock,
	fsync,
	syncAll,
	durable,
	rest,
	space,
	protect,
	account,
];
