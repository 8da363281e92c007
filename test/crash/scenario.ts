/**
 * A scripted life of a volume on simulated disks, with a ledger of what it was promised: for each path the versions of its contents in order, and the oldest version that may still be seen after a power
 * cut (everything before it was superseded durably). `check` compares a recovered volume with the ledger.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { FsError } from "../../src/base/errors.ts";
import { silentLogger } from "../../src/base/telemetry.ts";
import type { SimWorld } from "../../src/platform/sim/world.ts";
import type { AllocateMode, Attributes, Caller, NodeRef, Volume } from "../../src/volume/interface.ts";
import type { NativeVolume } from "../../src/volume/native/interface.ts";
import { createVolume, openVolume } from "../../src/volume/native/open.ts";

export const diskPaths = ["/d1", "/d2", "/d3", "/d4", "/d5", "/d6"];

export const caller: Caller = {
	uid: 0,
	gid: 0,
	groups: [],
	principal: undefined,
	door: "test",
	clientInstance: "scenario",
	share: undefined,
	trusted: true,
};

/** Contents by hash; undefined = the path does not exist. */
type Version = string | undefined;

interface PathLedger {
	readonly versions: Version[];
	/** Index of the newest version that was made durable. */
	durable: number;
}

export class Ledger {
	readonly paths = new Map<string, PathLedger>();

	/** The path may from now on be seen with these contents. */
	change(path: string, bytes: Uint8Array | undefined): void {
		const version = bytes === undefined ? undefined : hash(bytes);
		const known = this.paths.get(path);
		if (known === undefined) this.paths.set(path, { versions: [undefined, version], durable: 0 });
		else known.versions.push(version);
	}

	/** The newest version of the path is durable. */
	settle(path: string): void {
		const ledger = this.paths.get(path);
		assert(ledger !== undefined, `${path} is in the ledger`);
		ledger.durable = ledger.versions.length - 1;
	}

	/** Everything is durable. */
	settleAll(): void {
		for (const path of this.paths.keys()) this.settle(path);
	}

	/** `acknowledgedToo`: after the death of the process alone, only the newest version (or one in work) may be seen. */
	check(found: ReadonlyMap<string, string>, inWork: ReadonlySet<string>, acknowledgedToo: boolean): void {
		for (const [path, ledger] of this.paths) {
			const newest = ledger.versions.length - 1;
			const from = acknowledgedToo && !inWork.has(path) ? newest : ledger.durable;
			const allowed = ledger.versions.slice(from);
			const seen = found.get(path);
			assert(
				allowed.includes(seen),
				`${path}: found ${seen ?? "nothing"}, allowed ${allowed.map((version) => version ?? "nothing").join(" | ")} (all versions: ${ledger.versions.map((version) => version ?? "nothing").join(" | ")})`,
			);
		}
		for (const path of found.keys()) assert(this.paths.has(path), `${path} was never made`);
	}
}

export function hash(bytes: Uint8Array): string {
	return `${bytes.length}:${createHash("sha256").update(bytes).digest("hex").slice(0, 12)}`;
}

/** Deterministic bytes that compress to nothing obvious. */
export function pattern(seed: number, length: number): Uint8Array {
	const bytes = new Uint8Array(length);
	let state = (seed * 2_654_435_761 + 12_345) >>> 0;
	for (let i = 0; i < length; i++) {
		state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
		bytes[i] = state >>> 24;
	}
	return bytes;
}

export async function makeWorldVolume(world: SimWorld, capacityBytes = 256 * 1024 * 1024, raw = false): Promise<void> {
	for (const path of diskPaths) world.addDisk(path, { capacityBytes, raw });
	const platform = world.node().boot();
	await world.run(
		createVolume(
			{
				name: "sim",
				diskPaths,
				redundancy: "rs:4+2",
				sameDevice: false,
				allowDegraded: false,
				uid: 0,
				gid: 0,
				logSegmentBytes: 512 * 1024,
				logSegmentCount: 4,
			},
			{ platform, logger: silentLogger },
		),
	);
}

export const simMemory = { logTailBytes: 1 << 20, dirtyRingBytes: 2 << 20 };

export function openSim(
	platform: Parameters<typeof openVolume>[1]["platform"],
	paths: readonly string[] = diskPaths,
): Promise<NativeVolume> {
	return openVolume({ name: "sim", diskPaths: paths, acceptLoss: false, memory: simMemory }, { platform, logger: silentLogger });
}

/** One step of the script: what it does to the volume and what the ledger may believe afterwards. */
export type Step = { readonly name: string; readonly paths: readonly string[]; run(volume: Volume, ledger: Ledger): Promise<void> };

async function nodeOf(volume: Volume, path: string): Promise<{ parent: NodeRef; name: string }> {
	const parts = path.split("/").filter((part) => part !== "");
	let parent = volume.root;
	for (const part of parts.slice(0, -1)) parent = volume.node((await volume.lookup(caller, parent, part)).ino);
	return { parent, name: parts[parts.length - 1] as string };
}

async function withFile<T>(volume: Volume, path: string, fn: (handle: number) => Promise<T>): Promise<T> {
	const { parent, name } = await nodeOf(volume, path);
	const opened = await volume.open(
		caller,
		{ parent, name },
		{ disposition: "open-or-create", access: { read: true, write: true }, attributes: { mode: 0o644 } },
	);
	try {
		return await fn(opened.handle);
	} finally {
		await volume.close(opened.handle);
	}
}

/** Contents of each file as the script has made them; the ledger is told of each change before it is asked for. */
export function script(): Step[] {
	const contents = new Map<string, Uint8Array>();
	const steps: Step[] = [];
	const step = (name: string, paths: string[], run: Step["run"]): void => void steps.push({ name, paths, run });
	const write = (path: string, seed: number, offset: number, length: number): void => {
		step(`write ${path} ${offset}+${length}`, [path], async (volume, ledger) => {
			const before = contents.get(path);
			const after = new Uint8Array(Math.max(before?.length ?? 0, offset + length));
			if (before !== undefined) after.set(before);
			const piece = pattern(seed, length);
			after.set(piece, offset);
			if (before === undefined) ledger.change(path, new Uint8Array(0));
			ledger.change(path, after);
			contents.set(path, after);
			await withFile(volume, path, async (handle) => {
				const answer = await volume.write(handle, offset, piece);
				assert.equal(answer.written, length);
			});
		});
	};
	const sync = (path: string): void => {
		step(`fsync ${path}`, [], async (volume, ledger) => {
			await withFile(volume, path, (handle) => volume.fsync(handle, false));
			ledger.settle(path);
		});
	};
	const truncate = (path: string, size: number): void => {
		step(`truncate ${path} to ${size}`, [path], async (volume, ledger) => {
			const before = contents.get(path) ?? new Uint8Array(0);
			const after = new Uint8Array(size);
			after.set(before.subarray(0, size));
			ledger.change(path, after);
			contents.set(path, after);
			const { parent, name } = await nodeOf(volume, path);
			const node = volume.node((await volume.lookup(caller, parent, name)).ino);
			await volume.setAttributes(caller, node, { size });
		});
	};
	/** Versions of contents that a change may pass through, then what it ends with. */
	const becomes = (ledger: Ledger, path: string, ...versions: readonly Uint8Array[]): void => {
		for (const version of versions) ledger.change(path, version);
		contents.set(path, versions[versions.length - 1] as Uint8Array);
	};
	const allocate = (path: string, mode: AllocateMode, offset: number, length: number): void => {
		step(`${mode} ${path} ${offset}+${length}`, [path], async (volume, ledger) => {
			const before = contents.get(path) ?? new Uint8Array(0);
			const grows = mode === "allocate" || mode === "zero";
			const after = new Uint8Array(grows ? Math.max(before.length, offset + length) : before.length);
			after.set(before);
			if (!mode.startsWith("allocate")) after.fill(0, offset, offset + length);
			becomes(ledger, path, after);
			await withFile(volume, path, (handle) => volume.allocate(handle, mode, offset, length));
		});
	};
	/** In one call: small enough for one transaction, so that it happens whole or not at all. */
	const copy = (from: string, fromOffset: number, to: string, toOffset: number, length: number): void => {
		step(`copy ${from} ${fromOffset}+${length} to ${to} ${toOffset}`, [to], async (volume, ledger) => {
			const bytes = (contents.get(from) as Uint8Array).slice(fromOffset, fromOffset + length);
			const before = contents.get(to);
			const after = new Uint8Array(Math.max(before?.length ?? 0, toOffset + length));
			if (before === undefined) ledger.change(to, new Uint8Array(0));
			else after.set(before);
			after.set(bytes, toOffset);
			becomes(ledger, to, after);
			const { copied } = await withFile(volume, from, (source) =>
				withFile(volume, to, (target) => volume.copyRange(source, fromOffset, target, toOffset, length)),
			);
			assert.equal(copied, length);
		});
	};
	const rename = (from: string, to: string): void => {
		step(`rename ${from} ${to}`, [from, to], async (volume, ledger) => {
			const moved = contents.get(from) as Uint8Array;
			ledger.change(to, moved);
			ledger.change(from, undefined);
			contents.set(to, moved);
			contents.delete(from);
			const source = await nodeOf(volume, from);
			const target = await nodeOf(volume, to);
			await volume.rename(caller, source.parent, source.name, target.parent, target.name, 0);
		});
	};
	const unlink = (path: string): void => {
		step(`unlink ${path}`, [path], async (volume, ledger) => {
			ledger.change(path, undefined);
			contents.delete(path);
			const { parent, name } = await nodeOf(volume, path);
			await volume.unlink(caller, parent, name);
		});
	};
	const syncAll = (): void => {
		step("syncfs", [], async (volume, ledger) => {
			await volume.syncAll();
			ledger.settleAll();
		});
	};
	step("mkdir dir", [], async (volume) => {
		await volume.makeDirectory(caller, volume.root, "dir", 0o755);
	});
	write("tiny", 1, 0, 100);
	sync("tiny");
	write("dir/small", 2, 0, 9_000);
	sync("dir/small");
	write("dir/large", 3, 0, 700_000);
	sync("dir/large");
	write("dir/large", 4, 300_000, 50_000);
	sync("dir/large");
	write("tiny", 5, 50, 3_000);
	syncAll();
	rename("dir/small", "renamed");
	sync("renamed");
	write("replacement", 6, 0, 20_000);
	sync("replacement");
	rename("replacement", "renamed");
	syncAll();
	truncate("dir/large", 310_000);
	sync("dir/large");
	write("dir/large", 7, 400_000, 10_000);
	sync("dir/large");
	unlink("renamed");
	syncAll();
	// Space that the unlinked file gave back is used again here: a premature reuse would damage what is still promised.
	write("again", 8, 0, 600_000);
	sync("again");
	write("again", 9, 0, 600_000);
	syncAll();
	truncate("tiny", 10);
	syncAll();
	unlink("again");
	syncAll();
	// What is shared outlives its first file, what is reserved and punched stays so.
	copy("dir/large", 5_000, "shared", 100, 200_000);
	sync("shared");
	allocate("dir/large", "punch", 20_000, 100_000);
	sync("dir/large");
	write("shared", 11, 50_000, 9_000);
	copy("shared", 0, "shared", 300_000, 120_000);
	sync("shared");
	allocate("shared", "zero", 390_000, 60_000);
	allocate("reserved", "allocate-keep-size", 0, 3_000_000);
	sync("reserved");
	write("reserved", 12, 1_000, 400_000);
	syncAll();
	unlink("dir/large");
	syncAll();
	write("again", 13, 0, 300_000);
	sync("again");
	sync("shared");
	truncate("reserved", 200_000);
	copy("shared", 100, "tiny", 5, 30);
	sync("tiny");
	unlink("shared");
	syncAll();
	write("last", 10, 0, 40_000);
	sync("last");
	return steps;
}

/** All files below the root, by path, with the hash of their contents. */
export async function readTree(volume: Volume): Promise<Map<string, string>> {
	const found = new Map<string, string>();
	const walk = async (node: NodeRef, prefix: string): Promise<void> => {
		for (let after = 0; ; ) {
			const items = await volume.readDirectory(caller, node, after, 100, true);
			if (items.length === 0) return;
			for (const item of items) {
				after = item.cookie;
				if (item.name === "." || item.name === "..") continue;
				const attributes = item.attributes as Attributes;
				if (item.type === "directory") await walk(volume.node(item.ino), `${prefix}${item.name}/`);
				else found.set(`${prefix}${item.name}`, hash(await readAll(volume, item.ino, attributes.size)));
			}
		}
	};
	await walk(volume.root, "");
	return found;
}

async function readAll(volume: Volume, ino: number, size: number): Promise<Uint8Array> {
	const opened = await volume.open(caller, { node: volume.node(ino) }, { disposition: "open", access: { read: true, write: false } });
	try {
		const bytes = await volume.read(opened.handle, 0, size + 1);
		assert.equal(bytes.length, size, `inode ${ino} reads as long as its attributes say`);
		return bytes;
	} finally {
		await volume.close(opened.handle);
	}
}

export function canonical(found: ReadonlyMap<string, string>): string {
	return [...found]
		.map(([path, version]) => `${path} ${version}`)
		.sort()
		.join("\n");
}

export function isRefusal(error: unknown): boolean {
	return error instanceof FsError;
}
