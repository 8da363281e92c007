/** Walks all records of the namespace and says which of the invariants N1-N6 (src/namespace/interface.ts) do not hold: for tests. */
import type { DirectoryEntry, Ino, Inode, RecordKind, RecordTransaction } from "../../src/records/interface.ts";
import { rootIno } from "../../src/records/interface.ts";
import {
	accessListRecord,
	cookieRecord,
	entryRecord,
	inodeRecord,
	keyName,
	keyNumber,
	keySecondNumber,
	orphanRecord,
	xattrRecord,
} from "../../src/records/kinds.ts";

interface Found {
	readonly inodes: ReadonlyMap<Ino, Inode>;
	readonly orphans: ReadonlySet<Ino>;
	readonly entries: readonly { readonly parent: Ino; readonly name: string; readonly entry: DirectoryEntry }[];
	readonly cookies: ReadonlyMap<string, string>;
	/** Count, bytes of names, bytes of values. */
	readonly xattrs: ReadonlyMap<Ino, readonly [number, number, number]>;
	readonly lists: ReadonlySet<Ino>;
}

const batch = 1000;

/** What is wrong, in sentences; empty when all holds. `view` runs each batch; nothing may change meanwhile. */
export function namespaceFaults(view: <T>(fn: (tx: RecordTransaction) => T) => T): string[] {
	const found = collect(view);
	const faults: string[] = [];
	checkEntries(found, faults);
	checkLinks(found, faults);
	checkTree(found, faults);
	return faults;
}

function* all<Value>(
	view: <T>(fn: (tx: RecordTransaction) => T) => T,
	kind: RecordKind<readonly never[], Value>,
): Generator<{ readonly key: string; readonly value: Value }> {
	let after: string | undefined;
	for (;;) {
		const from = after;
		const some = view((tx) => tx.scan(kind, kind.prefix(), from === undefined ? { limit: batch } : { after: from, limit: batch }));
		yield* some;
		after = some.at(-1)?.key;
		if (after === undefined) return;
	}
}

function collect(view: <T>(fn: (tx: RecordTransaction) => T) => T): Found {
	const any = <Key extends readonly unknown[], Value>(kind: RecordKind<Key, Value>): RecordKind<readonly never[], Value> =>
		kind as unknown as RecordKind<readonly never[], Value>;
	const inodes = new Map<Ino, Inode>();
	for (const { value } of all(view, any(inodeRecord))) inodes.set(value.ino, value);
	const orphans = new Set<Ino>();
	for (const { value } of all(view, any(orphanRecord))) orphans.add(value.ino);
	const entries: { parent: Ino; name: string; entry: DirectoryEntry }[] = [];
	for (const { key, value } of all(view, any(entryRecord))) entries.push({ parent: keyNumber(key), name: keyName(key), entry: value });
	const cookies = new Map<string, string>();
	for (const { key, value } of all(view, any(cookieRecord))) {
		cookies.set(`${keyNumber(key)}:${keySecondNumber(key)}`, `${value.ino} ${value.type} ${value.name}`);
	}
	const xattrs = new Map<Ino, [number, number, number]>();
	for (const { key, value } of all(view, any(xattrRecord))) {
		const [count, names, values] = xattrs.get(keyNumber(key)) ?? [0, 0, 0];
		xattrs.set(keyNumber(key), [count + 1, names + keyName(key).length + 1, values + value.value.length]);
	}
	const lists = new Set<Ino>();
	for (const { value } of all(view, any(accessListRecord))) lists.add(value.ino);
	return { inodes, orphans, entries, cookies, xattrs, lists };
}

/** N1, and the half of N4 about cookies. */
function checkEntries(found: Found, faults: string[]): void {
	for (const { parent, name, entry } of found.entries) {
		const where = `entry ${JSON.stringify(name)} of ${parent}`;
		if (found.cookies.get(`${parent}:${entry.cookie}`) !== `${entry.ino} ${entry.type} ${name}`)
			faults.push(`N1: ${where} has no equal cookie record`);
		const directory = found.inodes.get(parent);
		const node = found.inodes.get(entry.ino);
		if (directory?.type !== "directory") faults.push(`N5: ${where} lies in no directory`);
		else if (entry.cookie < 3 || entry.cookie >= directory.nextCookie) faults.push(`N4: ${where} has cookie ${entry.cookie}`);
		if (node?.type !== entry.type) faults.push(`N1: ${where} says ${entry.type}, its inode ${entry.ino} is ${node?.type ?? "absent"}`);
	}
	if (found.cookies.size !== found.entries.length) faults.push(`N1: ${found.cookies.size} cookie records, ${found.entries.length} entries`);
}

/** N2, N3, N7, counts of N4. */
function checkLinks(found: Found, faults: string[]): void {
	const names = new Map<Ino, number>();
	const inside = new Map<Ino, number>();
	const subdirectories = new Map<Ino, number>();
	const count = (map: Map<Ino, number>, ino: Ino): void => void map.set(ino, (map.get(ino) ?? 0) + 1);
	for (const { parent, entry } of found.entries) {
		count(names, entry.ino);
		count(inside, parent);
		if (entry.type === "directory") count(subdirectories, parent);
	}
	for (const inode of found.inodes.values()) {
		const { ino } = inode;
		const named = (names.get(ino) ?? 0) + (ino === rootIno ? 1 : 0);
		const links = inode.type === "directory" && named > 0 ? 2 + (subdirectories.get(ino) ?? 0) : named;
		if (inode.nlink !== links) faults.push(`N2: inode ${ino} (${inode.type}) has nlink ${inode.nlink}, ${links} expected`);
		if (found.orphans.has(ino) !== (inode.nlink === 0)) faults.push(`N3: inode ${ino} with nlink ${inode.nlink} and its orphan record`);
		if (inode.entryCount !== (inside.get(ino) ?? 0))
			faults.push(`N4: directory ${ino} counts ${inode.entryCount}, ${inside.get(ino) ?? 0} are there`);
		const counted = [inode.xattrCount, inode.xattrNameBytes, inode.xattrValueBytes].join();
		const there = (found.xattrs.get(ino) ?? [0, 0, 0]).join();
		if (counted !== there) faults.push(`N7: inode ${ino} counts ${counted} of extended attributes, ${there} are there`);
		if ((inode.access === 1) !== found.lists.has(ino)) faults.push(`N7: inode ${ino} with access ${inode.access} and its access list`);
		if (inode.type === "directory" && named > 1) faults.push(`N5: directory ${ino} has ${named} names`);
	}
	for (const ino of [...found.orphans, ...found.xattrs.keys(), ...found.lists])
		if (!found.inodes.has(ino)) faults.push(`N3: records of inode ${ino}, which does not exist`);
}

/** N5: every directory hangs on the root by its `parent`, where its entry lies. */
function checkTree(found: Found, faults: string[]): void {
	const lies = new Map<Ino, Ino>();
	for (const { parent, entry } of found.entries) if (entry.type === "directory") lies.set(entry.ino, parent);
	const reached = new Set<Ino>([rootIno]);
	for (const [ino, parent] of lies) {
		if (found.inodes.get(ino)?.parent !== parent)
			faults.push(`N5: directory ${ino} lies in ${parent}, says ${found.inodes.get(ino)?.parent ?? "nothing"}`);
		const path: Ino[] = [];
		let at: Ino | undefined = ino;
		while (at !== undefined && !reached.has(at) && path.length <= lies.size) {
			path.push(at);
			at = lies.get(at);
		}
		if (at === undefined || !reached.has(at)) faults.push(`N5: directory ${ino} does not hang on the root`);
		else for (const one of path) reached.add(one);
	}
	if (found.inodes.get(rootIno)?.parent !== rootIno) faults.push("N5: the root's parent is not the root");
}
