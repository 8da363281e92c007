/** Looks at a whole volume through the door's interface and holds it against the model: after every death, and at the end. */
import type { Attributes, Caller, NodeRef, Volume } from "../../src/volume/interface.ts";
import { Content, type Ink, strangeByte, timeText } from "./content.ts";
import type { FileModel } from "./file-model.ts";
import { accessList, inheritedList, listOf, textOf, Tree, type TreeNode } from "./tree.ts";

const pageEntries = 500;
const readBytes = 4 * 1024 * 1024;
/** Files up to this size are read whole, larger ones where they ever held something. */
const wholeBytes = 8 * 1024 * 1024;

export interface Found {
	readonly tree: Tree;
	readonly sizes: ReadonlyMap<number, number>;
	/** Of the last change of each file (`timeText`). */
	readonly times: ReadonlyMap<number, string>;
}

/** All names, attributes and extended attributes. Directories are listed in pages, so that positions are used. `apart`: a directory in whose entries nobody is interested here. */
export async function readNames(volume: Volume, caller: Caller, apart?: number): Promise<Found> {
	const nodes = new Map<number, TreeNode>();
	const sizes = new Map<number, number>();
	const times = new Map<number, string>();
	const take = async (attributes: Attributes, parent: number): Promise<void> => {
		const { ino, type, mode, uid, gid, nlink, rdev, size, flags } = attributes;
		if (nodes.has(ino)) return;
		const node = volume.node(ino);
		const target = type === "symlink" ? await volume.readSymlink(caller, node) : undefined;
		const xattrs = new Map<string, string>();
		const lists = new Map<string, Uint8Array>();
		for (const name of await volume.listXattrs(caller, node)) {
			const value = await volume.getXattr(caller, node, name);
			const isList = name === accessList || name === inheritedList;
			if (isList) lists.set(name, value);
			xattrs.set(name, isList ? textOf(value) : `${value.length}:${new TextDecoder().decode(value.subarray(0, 12))}`);
		}
		const entries = type === "directory" ? new Map<string, number>() : undefined;
		const access = listOf(lists.get(accessList));
		const inherited = listOf(lists.get(inheritedList));
		const atime = timeText(attributes.atime);
		const isApart = ino === apart ? { apart: true } : {};
		nodes.set(ino, {
			ino,
			type,
			mode,
			uid,
			gid,
			nlink,
			rdev,
			target,
			parent,
			entries,
			xattrs,
			access,
			inherited,
			flags,
			atime,
			...isApart,
		});
		if (type === "file") sizes.set(ino, size);
		if (type === "file") times.set(ino, timeText(attributes.mtime));
		if (entries !== undefined && ino !== apart) await walk(node, ino, entries);
	};
	const walk = async (node: NodeRef, ino: number, entries: Map<string, number>): Promise<void> => {
		for (let after = 2; ; ) {
			const items = await volume.readDirectory(caller, node, after, pageEntries, true);
			for (const item of items) {
				after = item.cookie;
				if (entries.has(item.name)) throw new Error(`directory ${ino} lists ${item.name} twice`);
				entries.set(item.name, item.ino);
				if (item.attributes === undefined) throw new Error(`directory ${ino}: ${item.name} has no inode`);
				await take(item.attributes, ino);
			}
			if (items.length === 0) return;
		}
	};
	await take(await volume.getAttributes(caller, volume.root), 1);
	return { tree: new Tree(nodes), sizes, times };
}

/**
 * Reads a file and compares it with what may be there: one of `allowed` exactly, or with `mixed` byte by byte any of them.
 * @returns what it holds, or what is wrong.
 */
export async function readContents(
	volume: Volume,
	caller: Caller,
	ink: Ink,
	file: {
		readonly ino: number;
		readonly size: number;
		readonly time: string;
		readonly allowed: readonly Content[];
		readonly mixed: boolean;
		readonly number: number;
	},
): Promise<{ readonly content: Content } | { readonly wrong: string }> {
	const { ino, size, time, allowed, mixed } = file;
	const sizes = allowed.map((content) => content.size);
	const fitting = mixed ? allowed : allowed.filter((content) => content.size === size);
	const inRange = mixed && size >= Math.min(...sizes) && size <= Math.max(...sizes);
	if (fitting.length === 0 || (mixed && !inRange))
		return { wrong: `inode ${ino} has ${size} bytes; possible: ${[...new Set(sizes)].join(", ")}` };
	const handle = (await volume.open(caller, { node: volume.node(ino) }, { disposition: "open", access: { read: true, write: false } }))
		.handle;
	try {
		const parts: { readonly from: number; readonly bytes: Uint8Array }[] = [];
		for (const [from, to] of rangesOf(allowed, size)) {
			for (let at = from; at < to; at += readBytes) {
				const length = Math.min(readBytes, to - at);
				const bytes = await volume.read(handle, at, length);
				if (bytes.length !== length)
					return { wrong: `inode ${ino} of ${size} bytes gave ${bytes.length} bytes at ${at} instead of ${length}` };
				parts.push({ from: at, bytes });
			}
		}
		const exact = fitting.filter(
			(content) =>
				content.size === size &&
				parts.every(({ from, bytes }) => Buffer.compare(ink.range(content, from, from + bytes.length), bytes) === 0),
		);
		const dated = (mixed ? fitting : exact).some((content) => content.mayBeOf(time));
		const known = [...new Set(fitting.map((content) => content.time ?? "any"))].join(", ");
		if (!dated && (mixed || exact.length > 0)) return { wrong: `inode ${ino} says it was changed at ${time}; possible: ${known}` };
		const found = exact.find((content) => content.mayBeOf(time)) ?? exact[0];
		if (found !== undefined) return { content: found.withTime(time) };
		for (const { from, bytes } of parts) {
			const at = strangeByte(ink, fitting, from, bytes);
			if (at !== undefined) return { wrong: `inode ${ino}, byte ${at} of ${size} is ${bytes[at - from]}: ${describe(ink, fitting, at)}` };
		}
		if (!mixed) return { wrong: `inode ${ino} is a mixture of several contents: ${fitting.map((content) => content.key).join(" or ")}` };
		const pieces = parts.map(({ from, bytes }) => ({ from, to: from + bytes.length, source: { id: file.number, base: from, raw: bytes } }));
		return { content: new Content(size, pieces, time) };
	} finally {
		await volume.close(handle);
	}
}

function describe(ink: Ink, allowed: readonly Content[], at: number): string {
	return `possible ${allowed.map((content) => `${ink.range(content, at, at + 1)[0]} of ${content.key}`).join(" or ")}`;
}

/** Ranges of [0, size) to be read, in order, not overlapping. */
function rangesOf(allowed: readonly Content[], size: number): readonly (readonly [number, number])[] {
	if (size <= wholeBytes) return size === 0 ? [] : [[0, size]];
	const edge = 4096;
	const wanted = allowed
		.flatMap((content) => content.pieces.map((piece) => [Math.max(0, piece.from - edge), Math.min(size, piece.to + edge)] as const))
		.concat([
			[0, edge],
			[size - edge, size],
		])
		.filter(([from, to]) => from < to)
		.sort((a, b) => a[0] - b[0]);
	const merged: [number, number][] = [];
	for (const [from, to] of wanted) {
		const last = merged.at(-1);
		if (last !== undefined && from <= last[1]) last[1] = Math.max(last[1], to);
		else merged.push([from, to]);
	}
	return merged;
}

/** What a file may hold after a death. */
export function allowedAfter(file: FileModel, how: "cut" | "kill", barrier: number): readonly Content[] {
	return how === "cut" ? file.survivors(barrier) : file.possible();
}
