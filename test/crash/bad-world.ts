/**
 * A volume on six simulated disks that has a bad day: files with known contents, the faults of `SimWorld`, and a ledger of what was
 * acknowledged and what was made durable, with which everything that is read
 * is compared.
 *
 * Invariants
 *  B1 A version enters the ledger before it is asked for; it counts as acknowledged (durable) only after the volume said so.
 *  B2 Every read is compared with the versions that may still be seen.
 */
import assert from "node:assert/strict";
import { type ErrorCode, FsError } from "../../src/base/errors.ts";
import type { Logger } from "../../src/base/telemetry.ts";
import type { Platform } from "../../src/platform/interface.ts";
import type { DiskSnapshot } from "../../src/platform/sim/device.ts";
import type { SimNode } from "../../src/platform/sim/node.ts";
import { SimWorld } from "../../src/platform/sim/world.ts";
import type { Volume } from "../../src/volume/interface.ts";
import type { GarbageTimes, NativeVolume, VolumeStatus } from "../../src/volume/native/interface.ts";
import { createVolume, openVolume } from "../../src/volume/native/open.ts";
import { caller, diskPaths, hash, pattern, readTree } from "./scenario.ts";

const MiB = 1024 * 1024;
/** Of everything a volume does for one call, with one disk that hangs: a call on it takes 10 s until it counts as hung. */
export const deadlineMs = 30_000;

export interface Bytes {
	readonly capacityBytes: number;
}

/** Contents of one path, by hash; undefined = no such path. */
interface History {
	readonly versions: (string | undefined)[];
	acknowledged: number;
	durable: number;
}

interface Template {
	readonly disks: ReadonlyMap<string, DiskSnapshot>;
	readonly histories: ReadonlyMap<string, History>;
	readonly contents: ReadonlyMap<string, Uint8Array>;
}

const templates = new Map<string, Promise<Template>>();

/** Inline, replicated and erasure-coded contents, in several segments, of several files each. */
const firstFiles: readonly (readonly [path: string, length: number])[] = [
	["tiny", 100],
	["small", 9_000],
	["dir/a", 5_000],
	["dir/b", 1_500],
	["medium", 60_000],
	["dir/c", 33_000],
	["large", 400_000],
	["dir/d", 2_049],
];

export class BadWorld {
	readonly world: SimWorld;
	readonly lines: string[] = [];
	readonly histories = new Map<string, History>();
	/** What the newest acknowledged version holds. */
	readonly contents = new Map<string, Uint8Array>();
	node: SimNode;
	/** For the next mount; default: as usual. */
	garbage: GarbageTimes | undefined;
	#volume: NativeVolume | undefined;
	#seed: number;

	constructor(seed: number) {
		this.world = new SimWorld({ seed });
		this.node = this.world.node();
		this.#seed = seed * 1000;
	}

	/** A world with the volume as the template left it: cleanly unmounted. */
	static async make(seed: number, capacityBytes = 256 * MiB, raw = false): Promise<BadWorld> {
		const kind = `${capacityBytes} ${raw}`;
		const template = templates.get(kind) ?? makeTemplate(capacityBytes, raw);
		templates.set(kind, template);
		const { disks, histories, contents } = await template;
		const world = new BadWorld(seed);
		for (const [path, snapshot] of disks) world.world.addDisk(path, { capacityBytes, raw }).restore(snapshot);
		for (const [path, history] of histories) world.histories.set(path, { ...history, versions: [...history.versions] });
		for (const [path, bytes] of contents) world.contents.set(path, bytes);
		return world;
	}

	get volume(): NativeVolume {
		assert(this.#volume !== undefined, "the volume is mounted");
		return this.#volume;
	}

	get seed(): number {
		return this.world.seed;
	}

	/** A number that no other contents of this world were made from. */
	fresh(): number {
		return this.#seed++;
	}

	logger(): Logger {
		const note = (level: string) => (message: string, data?: Record<string, unknown>) => {
			if (this.lines.length < 2000)
				this.lines.push(`${Math.round(this.world.nowMs)} ${level} ${message} ${data === undefined ? "" : JSON.stringify(data)}`);
		};
		return { debug() {}, info: note("info"), warn: note("warn"), error: note("error") };
	}

	/** Lets the world go on until `work` is done; with what the volume logged in the message of a failure. */
	async run<T>(work: () => Promise<T>, limitMs = 600_000): Promise<T> {
		try {
			return await this.world.run(work, { limitMs });
		} catch (error) {
			if (!(error instanceof FsError)) throw error;
			if (this.#tell) console.log(this.lines.join("\n"));
			throw new Error(`seed ${this.seed}: ${error.code} ${error.site}: ${error.message}`, { cause: error });
		}
	}

	get #tell(): boolean {
		return process.env["CAIRN_TELL"] !== undefined;
	}

	// ── life of the daemon ───────────────────────────────────────────────────────────────────────────────────────

	open(platform: Platform, paths: readonly string[] = diskPaths, acceptLoss = false): Promise<NativeVolume> {
		const memory = { logTailBytes: 4 * MiB, dirtyRingBytes: 4 * MiB };
		return openVolume(
			{ name: "sim", diskPaths: paths, acceptLoss, memory, ...(this.garbage && { garbage: this.garbage }) },
			{ platform, logger: this.logger() },
		);
	}

	async mount(paths: readonly string[] = diskPaths, acceptLoss = false): Promise<NativeVolume> {
		const volume = await this.open(this.node.boot(), paths, acceptLoss);
		this.#volume = volume;
		return volume;
	}

	async unmount(): Promise<void> {
		const { volume } = this;
		this.#volume = undefined;
		await volume.shutdown();
		this.node.kill();
		for (const history of this.histories.values()) history.durable = history.acknowledged;
	}

	/** The process dies; the machine goes on. */
	kill(): void {
		this.#volume = undefined;
		this.node.kill();
	}

	/** The power fails. */
	cut(): void {
		this.#volume = undefined;
		this.node.powerCut();
	}

	async remount(paths: readonly string[] = diskPaths): Promise<NativeVolume> {
		await this.unmount();
		return this.mount(paths);
	}

	// ── files ────────────────────────────────────────────────────────────────────────────────────────────────────

	#change(path: string, bytes: Uint8Array | undefined): () => void {
		const version = bytes === undefined ? undefined : hash(bytes);
		const history = this.histories.get(path) ?? { versions: [undefined], acknowledged: 0, durable: 0 };
		this.histories.set(path, history);
		const at = history.versions.push(version) - 1;
		return () => {
			history.acknowledged = at;
			if (bytes === undefined) this.contents.delete(path);
			else this.contents.set(path, bytes);
		};
	}

	async withFile<T>(path: string, fn: (handle: number, volume: Volume) => Promise<T>): Promise<T> {
		const { volume } = this;
		const { parent, name } = await placeOf(volume, path);
		const intent = { disposition: "open-or-create", access: { read: true, write: true }, attributes: { mode: 0o644 } } as const;
		const opened = await volume.open(caller, { parent, name }, intent);
		try {
			return await fn(opened.handle, volume);
		} finally {
			await volume.close(opened.handle);
		}
	}

	/** Writes fresh bytes into a file, which is made if it is not there. */
	async write(path: string, length: number, offset = 0): Promise<void> {
		const before = this.contents.get(path);
		if (before === undefined) this.#change(path, new Uint8Array(0));
		const piece = pattern(this.fresh(), length);
		const after = partly(before, piece, offset);
		const acknowledge = this.#change(path, after);
		await this.withFile(path, async (handle, volume) => {
			for (let done = 0; done < length; ) {
				const { written } = await volume.write(handle, offset + done, piece.subarray(done));
				assert(written > 0, `seed ${this.seed}: a write that takes nothing says why`);
				done += written;
				// At the end of the space a write may take a part; what comes next may be refused.
				if (done < length) this.#change(path, partly(before, piece.subarray(0, done), offset))();
			}
		});
		acknowledge();
	}

	/** copy_file_range into a file that is not there yet. */
	async copy(from: string, offset: number, to: string, length: number): Promise<void> {
		const bytes = (this.contents.get(from) as Uint8Array).slice(offset, offset + length);
		this.#change(to, new Uint8Array(0));
		const acknowledge = this.#change(to, bytes);
		await this.withFile(to, (target, volume) =>
			this.withFile(from, async (source) => {
				for (let done = 0; done < bytes.length; ) {
					const { copied } = await volume.copyRange(source, offset + done, target, done, bytes.length - done);
					assert(copied > 0, `seed ${this.seed}: a copy that takes nothing says why`);
					done += copied;
				}
			}),
		);
		acknowledge();
	}

	async fsync(path: string): Promise<void> {
		const history = this.histories.get(path) as History;
		const upTo = history.acknowledged;
		await this.withFile(path, (handle, volume) => volume.fsync(handle, false));
		history.durable = Math.max(history.durable, upTo);
	}

	/** Written and durable. */
	async put(path: string, length: number, offset = 0): Promise<void> {
		await this.write(path, length, offset);
		await this.fsync(path);
	}

	async remove(path: string): Promise<void> {
		const acknowledge = this.#change(path, undefined);
		const { parent, name } = await placeOf(this.volume, path);
		await this.volume.unlink(caller, parent, name);
		acknowledge();
	}

	async syncAll(): Promise<void> {
		const upTo = [...this.histories.values()].map((history) => [history, history.acknowledged] as const);
		await this.volume.syncAll();
		for (const [history, acknowledged] of upTo) history.durable = Math.max(history.durable, acknowledged);
	}

	/** Reads one file whole and compares. */
	async read(path: string): Promise<void> {
		const history = this.histories.get(path) as History;
		const from = history.acknowledged;
		const { volume } = this;
		const { parent, name } = await placeOf(volume, path);
		const { ino, size } = await volume.lookup(caller, parent, name);
		const opened = await volume.open(caller, { node: volume.node(ino) }, { disposition: "open", access: { read: true, write: false } });
		try {
			const bytes = await volume.read(opened.handle, 0, size + 1);
			this.#compare(path, hash(bytes), history.versions.slice(from), "read");
		} finally {
			await volume.close(opened.handle);
		}
	}

	/**
	 * Reads everything and compares. After the death of the process all that was acknowledged must be there ("acknowledged"), after a
	 * power cut all that was durable. What is seen is from then on
	 * acknowledged, after a power cut also durable.
	 */
	async check(what: string, level: "acknowledged" | "durable" = "acknowledged"): Promise<void> {
		const found = await readTree(this.volume);
		for (const [path, history] of this.histories) {
			const from = level === "acknowledged" ? history.acknowledged : history.durable;
			const seen = found.get(path);
			this.#compare(path, seen, history.versions.slice(from), what);
			if (seen === undefined) this.contents.delete(path);
			history.acknowledged = history.versions.lastIndexOf(seen);
			if (level === "durable") history.durable = history.acknowledged;
		}
		for (const path of found.keys()) assert(this.histories.has(path), `seed ${this.seed}, ${what}: ${path} was never made`);
	}

	#compare(path: string, seen: string | undefined, allowed: readonly (string | undefined)[], what: string): void {
		if (allowed.includes(seen)) return;
		if (this.#tell) console.log(this.lines.join("\n"));
		const words = allowed.map((version) => version ?? "nothing").join(" | ");
		assert.fail(`seed ${this.seed}, ${what}: ${path} is ${seen ?? "nothing"}, it must be ${words}`);
	}

	// ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────

	/** Waits for something that background work brings about. */
	async until(what: string, holds: () => Promise<boolean> | boolean, limitMs = 60_000): Promise<void> {
		const endMs = this.world.nowMs + limitMs;
		while (!(await holds())) {
			if (this.world.nowMs > endMs && this.#tell) console.log(this.lines.join("\n"));
			assert(this.world.nowMs <= endMs, `seed ${this.seed}: ${what} did not come about within ${limitMs} ms`);
			await this.world.sleep(100);
		}
	}

	/** The operation must be over in time, however a disk behaves. */
	async inTime<T>(what: string, work: () => Promise<T>): Promise<T> {
		const startMs = this.world.nowMs;
		const result = await work();
		const tookMs = this.world.nowMs - startMs;
		assert(tookMs <= deadlineMs, `seed ${this.seed}: ${what} took ${Math.round(tookMs)} ms`);
		return result;
	}

	/** The status when healing has done what it can: these disks are away with a reason, and all numbers add up. */
	async expectDegraded(away: readonly string[]): Promise<VolumeStatus> {
		const { volume } = this;
		await this.until("three copies of the metadata", async () => (await volume.status()).metadataCopies.present === 3);
		await volume.heal(() => {});
		const status = await volume.status();
		const label = `seed ${this.seed}, ${away.join(" and ")} away`;
		assert.deepEqual(awayIn(status), [...away].sort(), label);
		for (const disk of status.disks) {
			assert.equal(
				disk.reason === "",
				disk.state === "healthy",
				`${label}: ${disk.id} is ${disk.state}, reason ${JSON.stringify(disk.reason)}`,
			);
			assert.equal(
				disk.errors,
				Object.values(disk.errorKinds).reduce((sum, count) => sum + count, 0),
				label,
			);
		}
		assert.equal(status.state, "degraded", label);
		assert.equal(status.protection.lostBytes, 0, label);
		assert(status.protection.degradedBytes > 0, `${label}: erasure-coded data is short of fragments`);
		assert.deepEqual(status.metadataCopies, { wanted: 3, present: 3 }, label);
		assert(
			status.warnings.some((line) => line.includes("replace")),
			`${label}: the operator is told what to do: ${status.warnings.join("; ")}`,
		);
		return status;
	}

	/** The status of a volume that lacks nothing. */
	async expectWhole(what: string): Promise<VolumeStatus> {
		const { volume } = this;
		await this.until("three copies of the metadata", async () => (await volume.status()).metadataCopies.present === 3);
		await volume.heal(() => {});
		const status = await volume.status();
		const label = `seed ${this.seed}, ${what}`;
		const away = status.disks
			.filter((disk) => disk.state !== "healthy")
			.map((disk) => `${disk.id} ${disk.path}: ${disk.state}, ${disk.reason}`);
		assert.deepEqual(away, [], label);
		assert.deepEqual(
			[status.protection.degradedBytes, status.protection.lostBytes],
			[0, 0],
			`${label}: ${JSON.stringify(status.protection)}`,
		);
		assert.equal(status.state, "running", `${label}: ${status.warnings.join("; ")}`);
		// Being nearly full is no lack of protection.
		const warnings = status.warnings.filter((line) => !line.includes("of the space is free"));
		assert.deepEqual(warnings, [], label);
		return status;
	}

	/** Nothing is damaged or missing, proven by reading all of it. */
	async expectClean(what: string): Promise<void> {
		const found = await this.volume.verify({ dryRun: true, lost: true }, () => {});
		assert.deepEqual(
			{ corrupt: found.corrupt, missing: found.missing, unrecoverable: found.unrecoverable, lostPaths: found.lostPaths },
			{ corrupt: 0, missing: 0, unrecoverable: 0, lostPaths: [] },
			`seed ${this.seed}, ${what}`,
		);
		assert(found.checkedFragments > 0, `seed ${this.seed}, ${what}: fragments were read`);
	}
}

/** What a file holds when `piece` was written to it. */
function partly(before: Uint8Array | undefined, piece: Uint8Array, offset: number): Uint8Array {
	const after = new Uint8Array(Math.max(before?.length ?? 0, offset + piece.length));
	if (before !== undefined) after.set(before);
	after.set(piece, offset);
	return after;
}

export function awayIn(status: VolumeStatus): string[] {
	return status.disks
		.filter((disk) => disk.state !== "healthy")
		.map((disk) => disk.path)
		.sort();
}

/** @throws when `work` does not fail with exactly this code, at this site, in words that match. */
export async function fails(label: string, work: Promise<unknown>, code: ErrorCode, site: string, words: RegExp): Promise<FsError> {
	let error: unknown;
	try {
		await work;
	} catch (caught) {
		error = caught;
	}
	assert(error !== undefined, `${label}: it went through; ${code} at ${site} was to be expected`);
	assert(error instanceof FsError, `${label}: ${String(error)}`);
	assert.deepEqual([error.code, error.site], [code, site], `${label}: ${error.message}`);
	assert.match(error.message, words, label);
	return error;
}

async function placeOf(volume: Volume, path: string): Promise<{ parent: ReturnType<Volume["node"]>; name: string }> {
	const parts = path.split("/");
	let parent = volume.root;
	for (const part of parts.slice(0, -1)) parent = volume.node((await volume.lookup(caller, parent, part)).ino);
	return { parent, name: parts.at(-1) as string };
}

async function makeTemplate(capacityBytes: number, raw: boolean): Promise<Template> {
	const first = new BadWorld(7_777);
	for (const path of diskPaths) first.world.addDisk(path, { capacityBytes, raw });
	await first.run(async () => {
		const platform = first.node.boot();
		const options = { name: "sim", diskPaths, redundancy: "rs:4+2", sameDevice: false, allowDegraded: false, uid: 0, gid: 0 };
		await createVolume({ ...options, logSegmentBytes: 2.5 * MiB, logSegmentCount: 4 }, { platform, logger: first.logger() });
		first.node.kill();
		const volume = await first.mount();
		await volume.makeDirectory(caller, volume.root, "dir", 0o755);
		for (const [path, length] of firstFiles) {
			await first.write(path, length);
			if (length > 30_000) await first.syncAll();
		}
		await first.unmount();
	});
	const disks = new Map(diskPaths.map((path) => [path, first.world.snapshot(path)]));
	return { disks, histories: first.histories, contents: first.contents };
}

/** Fails with the seed and, where there is one, the path in words. */
export function must(bad: BadWorld, holds: boolean, what: string): void {
	assert(holds, `seed ${bad.seed}: ${what}`);
}

/** All unordered pairs of disks. */
export function pairs(): [string, string][] {
	return diskPaths.flatMap((a, i) => diskPaths.slice(i + 1).map((b): [string, string] => [a, b]));
}
