/**
 * Reads that the kernel does by itself: stages hot files and has it open them instead (FUSE passthrough). What is decided, and its invariants, is in `staging-core.ts`; why it is right, in README.md.
 *
 * Invariants
 *  R1 An inode is held by an open file of this process that denies writing. It is opened before the number is got, and closed when the core releases the inode.
 *  R2 Effects on one inode follow each other; what was begun is finished before `end` resolves, or its outcome is dropped.
 *  R3 Whatever fails here makes an open an ordinary one, or lets a file be held longer: never an error of a program.
 */
import { Deferred } from "../../base/async.ts";
import { FsError, isFsError, toFsError } from "../../base/errors.ts";
import type { Logger } from "../../base/telemetry.ts";
import { crc32c } from "../../codec/checksum.ts";
import type { Disk, DiskFile, FuseBackings, Memory, Platform } from "../../platform/interface.ts";
import type { Attributes, Caller, HandleId, Ino, ResumedHandle, Volume } from "../../volume/interface.ts";
import {
	nativeEndMs,
	staging,
	stagingFraction,
	stagingFreeFraction,
	stagingMostBytes,
	stagingStepBytes,
	unrecordedNumbers,
} from "./limits.ts";
import { apply, createStagingState, figures, isBound, nextTickMs } from "./staging-core.ts";
import type { StagingCommand, StagingEffect, StagingFigures, StagingLimits, StagingState } from "./staging-core.ts";
import { StagingTable, stagingLost, stagingTableBytes } from "./staging-table.ts";

/** FS_IMMUTABLE_FL of `<linux/fs.h>`. */
const immutable = 0x10;

export interface NativeReadsOptions {
	/** An absolute path; made if it is not there. Everything in it is this module's, and goes at the beginning and at the end. */
	readonly folder: string;
	/** Nobody can write through any door. */
	readonly readOnly: boolean;
	/** For all staged files; undefined: a small part of the file system. */
	readonly spaceBytes?: number | undefined;
	/** What a predecessor has open; undefined: the mount is new. */
	readonly resumed?: readonly ResumedHandle[] | undefined;
	/** For tests: instead of those of limits.ts. */
	readonly limits?: Partial<StagingLimits>;
}

export interface NativeReadsModules {
	readonly volume: Volume;
	readonly platform: Platform;
	/** A folder as a disk that never makes anybody wait for ever. */
	readonly openFolder: (path: string) => Promise<Disk>;
	readonly backings: FuseBackings | undefined;
	readonly logger: Logger;
}

export interface NativeReadsStatus extends StagingFigures {
	/** Why it is not used; undefined: it is. */
	readonly unavailable: string | undefined;
	readonly folder: string;
	readonly spaceBytes: number;
}

/** Of one that was asked for and cannot be. */
export function noNativeReads(folder: string, unavailable: string): NativeReadsStatus {
	return { unavailable, folder, spaceBytes: 0, stagedFiles: 0, stagedBytes: 0, handles: 0, heldFiles: 0 };
}

/** What an earlier mount of the volume has left, for one that does without. */
export async function forgetNativeReads(
	folder: string,
	{ volume, platform }: Pick<NativeReadsModules, "volume" | "platform">,
): Promise<void> {
	await platform.removeMemory(memoryNameOf(volume));
	for (const name of await platform.files.list(folder)) await platform.files.remove(`${folder}/${name}`);
	await platform.files.remove(folder);
}

const self: Caller = {
	uid: 0,
	gid: 0,
	groups: [],
	principal: undefined,
	door: "control",
	clientInstance: "native-reads",
	share: undefined,
	trusted: true,
};

export class NativeReads {
	readonly #options: NativeReadsOptions;
	readonly #modules: NativeReadsModules;
	readonly #memory: Memory;
	readonly #table: StagingTable;
	readonly #state: StagingState;
	readonly #answers = new Map<number, Deferred<number | undefined>>();
	/** Undefined: held, but its file cannot be told. */
	readonly #holds = new Map<Ino, HandleId>();
	readonly #running = new Set<Promise<void>>();
	#disk: Disk | undefined;
	#unavailable: string | undefined;
	#nextKey = 1;
	#cancelTick: () => void = () => {};
	#ended = false;

	private constructor(options: NativeReadsOptions, modules: NativeReadsModules, memory: Memory, limits: StagingLimits) {
		this.#options = options;
		this.#modules = modules;
		this.#memory = memory;
		this.#table = new StagingTable(memory.bytes, memory.existed);
		this.#state = createStagingState(limits);
	}

	/** Before anything is served. @throws FsError: what a predecessor has left is not known, or cannot be held. */
	static async begin(options: NativeReadsOptions, modules: NativeReadsModules): Promise<NativeReads> {
		const { platform, volume, logger } = modules;
		const name = memoryNameOf(volume);
		if (options.resumed === undefined) await platform.removeMemory(name);
		else await refuseOtherTable(platform, name);
		const opened = await openFolder(options.folder, modules).catch((error: unknown) => toFsError(error, "fuse.staging-folder"));
		const disk = opened instanceof FsError ? undefined : opened;
		const spaceBytes = options.spaceBytes ?? (disk === undefined ? 0 : await usualSpace(disk));
		const memory = await platform.openMemory(name, stagingTableBytes(staging.files));
		const reads = new NativeReads(options, modules, memory, { ...staging, spaceBytes, ...options.limits });
		reads.#disk = disk;
		reads.#unavailable = opened instanceof FsError ? `its folder cannot be used: ${opened.message}` : undefined;
		await reads.#restore();
		await reads.#clean();
		await reads.#probe();
		if (reads.#unavailable !== undefined) logger.warn("files are not read natively", { why: reads.#unavailable });
		return reads;
	}

	get status(): NativeReadsStatus {
		const { folder } = this.#options;
		return { unavailable: this.#unavailable, folder, spaceBytes: this.#state.limits.spaceBytes, ...figures(this.#state) };
	}

	/** What INIT settled. */
	negotiated(passthrough: boolean): void {
		if (!passthrough) this.#unavailable ??= "this kernel cannot do it: it needs Linux 6.9";
	}

	// ── what the door asks ─────────────────────────────────────────────────────────────────────────────────────

	/**
	 * How the kernel is to read a file that the volume has just opened: by this number, or (undefined) through the daemon. The handle counts as open from then on.
	 * @throws FsError EBUSY, also as a promise: it cannot be opened so; the volume should not have.
	 */
	opening(attributes: Attributes, reading: boolean): number | undefined | Promise<number | undefined> {
		const { ino, type, flags, size, change } = attributes;
		const eligible = type === "file" && this.#unavailable === undefined && (this.#options.readOnly || (flags & immutable) !== 0);
		const key = this.#nextKey++;
		const answer = new Deferred<number | undefined>();
		this.#answers.set(key, answer);
		const now = this.#run({ kind: "open", key, ino, reading, eligible, sizeBytes: size, change });
		const mine = now.find((effect) => effect.kind === "answer" && effect.key === key);
		return mine?.kind === "answer" && mine.refused !== true ? mine.number : answer.promise;
	}

	closed(ino: Ino, native: boolean): void {
		this.#run({ kind: "close", ino, native });
	}

	/** A handle of a predecessor: whether the kernel reads it by itself. It counts as open already. */
	isNative(ino: Ino): boolean {
		return isBound(this.#state, ino);
	}

	// ── effects ────────────────────────────────────────────────────────────────────────────────────────────────

	#run(command: StagingCommand): readonly StagingEffect[] {
		const effects = apply(this.#state, command, this.#modules.platform.clock.monotonicMs());
		for (const effect of effects) this.#perform(effect);
		if (command.kind !== "open" || effects.length > 1) this.#setTick();
		return effects;
	}

	#perform(effect: StagingEffect): void {
		switch (effect.kind) {
			case "answer":
				this.#answer(effect);
				break;
			case "copy":
				this.#begin(() => this.#copy(effect));
				break;
			case "attach":
				this.#begin(() => this.#attach(effect));
				break;
			case "look":
				this.#begin(() => this.#look(effect));
				break;
			case "record":
				this.#table.set(effect);
				break;
			case "release":
				this.#table.remove(effect.ino);
				this.#letGo(effect.ino);
				break;
			default:
				this.#begin(() => this.#remove(fileName(effect.file)));
		}
	}

	#answer({ key, number, refused }: Extract<StagingEffect, { kind: "answer" }>): void {
		const answer = this.#answers.get(key);
		this.#answers.delete(key);
		if (refused !== true) answer?.resolve(number);
		else answer?.reject(new FsError("EBUSY", "fuse.native-held", "the file was opened for writing, while others read it natively"));
	}

	#begin(work: () => Promise<void>): void {
		const running = work().catch((error: unknown) => {
			this.#modules.logger.error("native reads", { error: toFsError(error, "fuse.native-reads").message });
		});
		this.#running.add(running);
		void running.then(() => this.#running.delete(running));
	}

	#setTick(): void {
		this.#cancelTick();
		const at = this.#ended ? undefined : nextTickMs(this.#state);
		if (at === undefined) return;
		const { clock } = this.#modules.platform;
		this.#cancelTick = clock.after(Math.max(1, Math.ceil(at - clock.monotonicMs())), () => this.#run({ kind: "tick" }));
	}

	/** What comes late, when a successor may have begun, must not be told to anybody. */
	#outcome(command: StagingCommand): void {
		if (!this.#ended) this.#run(command);
	}

	async #copy({ ino, file, sizeBytes, change }: Extract<StagingEffect, { kind: "copy" }>): Promise<void> {
		let done = false;
		try {
			done = await this.#stage({ ino, sizeBytes, change, name: fileName(file) });
		} catch (error) {
			const { message } = toFsError(error, "fuse.staging");
			this.#modules.logger.warn("a file was not staged", { ino, why: message });
		}
		this.#outcome({ kind: "copied", ino, done });
	}

	/** False: it has changed meanwhile, or there is no room. @throws FsError: what could not be read, written or proven. */
	async #stage(copy: { readonly ino: Ino; readonly sizeBytes: number; readonly change: number; readonly name: string }): Promise<boolean> {
		const { volume } = this.#modules;
		const disk = this.#disk;
		if (disk === undefined || !(await hasRoom(disk, copy.sizeBytes))) return false;
		const { handle, attributes } = await volume.open(self, { node: volume.node(copy.ino) }, { disposition: "open", access: reading });
		const file = await disk.open(copy.name, { create: true }).catch(async (error: unknown) => {
			await volume.close(handle);
			throw error;
		});
		try {
			if (attributes.change !== copy.change) return false;
			const written = await this.#writeStaged(file, handle, copy.sizeBytes);
			await file.sync("fuse.staged");
			await file.uncache(0, copy.sizeBytes);
			if ((await checksumOf(file, copy.sizeBytes)) !== written)
				throw new FsError("CORRUPT", "fuse.staged-differs", `what was written to ${copy.name} does not read back`, { ino: copy.ino });
			const after = await volume.getAttributes(self, volume.node(copy.ino), handle);
			return after.change === copy.change && after.size === copy.sizeBytes;
		} finally {
			await file.close();
			await volume.close(handle);
		}
	}

	/** The volume verifies what it reads. Answers the CRC32C of all of it. */
	async #writeStaged(file: DiskFile, handle: HandleId, sizeBytes: number): Promise<number> {
		let sum = 0;
		for (let at = 0; at < sizeBytes && !this.#ended; ) {
			const bytes = await this.#modules.volume.read(handle, at, Math.min(stagingStepBytes, sizeBytes - at));
			if (bytes.length === 0) throw new FsError("ECANCELED", "fuse.staging-shorter", "the file became shorter while it was copied");
			await file.write(at, [bytes]);
			sum = crc32c(bytes, sum);
			at += bytes.length;
		}
		return sum;
	}

	async #attach({ ino, file, change }: Extract<StagingEffect, { kind: "attach" }>): Promise<void> {
		let number: number | undefined;
		try {
			if (change !== undefined) await this.#hold(ino, change);
			number = await this.#register(fileName(file));
		} catch (error) {
			if (change !== undefined) this.#letGo(ino);
			this.#notAttached(ino, error);
		}
		this.#outcome({ kind: "attached", ino, number });
	}

	/** @throws FsError EBUSY: somebody writes to it; ECANCELED: somebody has. */
	async #hold(ino: Ino, change: number | undefined): Promise<void> {
		const { volume } = this.#modules;
		const deny = { read: false, write: true, delete: false };
		const opened = await volume.open(self, { node: volume.node(ino) }, { disposition: "open", access: reading, deny });
		this.#holds.set(ino, opened.handle);
		if (change !== undefined && opened.attributes.change !== change)
			throw new FsError("ECANCELED", "fuse.staged-old", "the file has changed since it was staged");
	}

	async #register(name: string): Promise<number> {
		const { backings } = this.#modules;
		if (this.#disk === undefined || backings === undefined || this.#ended)
			throw new FsError("ENOTSUP", "fuse.native-unavailable", this.#unavailable ?? "it is ending");
		return backings.open(this.#path(name));
	}

	#notAttached(ino: Ino, error: unknown): void {
		const { code, message } = toFsError(error, "fuse.attach");
		if (code === "EBUSY" || code === "EAGAIN" || code === "ECANCELED") return;
		if (code === "EPERM" || code === "ENOTSUP") this.#unavailable ??= message;
		this.#modules.logger.warn("a staged file is read through the daemon", { ino, why: message });
	}

	async #look({ ino, file, number }: Extract<StagingEffect, { kind: "look" }>): Promise<void> {
		const { backings, volume } = this.#modules;
		let [inUse, change] = [true, -1];
		try {
			if (number !== undefined) await backings?.close(number);
			inUse = (await backings?.inUse(this.#path(fileName(file)))) ?? true;
			if (!inUse) change = await this.#changeOf(volume, ino);
		} catch (error) {
			inUse = true;
			this.#modules.logger.warn("whether a staged file is still in use is not known", { ino, why: toFsError(error, "fuse.look").message });
		}
		this.#outcome({ kind: "looked", ino, inUse, change });
	}

	/** Of one that was removed since: something that it never was. */
	async #changeOf(volume: Volume, ino: Ino): Promise<number> {
		try {
			return (await volume.getAttributes(self, volume.node(ino), this.#holds.get(ino))).change;
		} catch (error) {
			if (isFsError(error, "ESTALE") || isFsError(error, "ENOENT")) return -1;
			throw error;
		}
	}

	#letGo(ino: Ino): void {
		const handle = this.#holds.get(ino);
		this.#holds.delete(ino);
		if (handle !== undefined) this.#begin(() => this.#modules.volume.close(handle));
	}

	async #remove(name: string): Promise<void> {
		try {
			await this.#disk?.remove(name);
		} catch (error) {
			this.#modules.logger.warn("a staged file was not removed", { name, why: toFsError(error, "fuse.staged-remove").message });
		}
	}

	#path(name: string): string {
		return `${this.#options.folder}/${name}`;
	}

	// ── beginning and end ──────────────────────────────────────────────────────────────────────────────────────

	/** What a predecessor held is held again before anybody can ask for anything. */
	async #restore(): Promise<void> {
		const { resumed } = this.#options;
		if (resumed === undefined) return;
		const handles = new Map<Ino, number>();
		for (const { ino } of resumed) handles.set(ino, (handles.get(ino) ?? 0) + 1);
		await this.#giveUpUnrecorded();
		for (const { bound, ...held } of this.#table.all()) {
			const open = bound ? (handles.get(held.ino) ?? 0) : undefined;
			if (!(await this.#holdAgain(held.ino, handles.has(held.ino)))) continue;
			this.#run({ kind: "restore", ...held, handles: open });
			if (bound) handles.delete(held.ino);
		}
		for (const [ino, count] of handles) for (let i = 0; i < count; i++) this.#run({ kind: "restore-ordinary", ino });
	}

	/** False: it is gone, and nobody has it open. @throws FsError: it cannot be held, and somebody could write what its readers would not see. */
	async #holdAgain(ino: Ino, isOpen: boolean): Promise<boolean> {
		try {
			await this.#hold(ino, undefined);
			return true;
		} catch (error) {
			if (isOpen || !(isFsError(error, "ESTALE") || isFsError(error, "ENOENT"))) throw error;
			this.#table.remove(ino);
			return false;
		}
	}

	async #giveUpUnrecorded(): Promise<void> {
		const { backings } = this.#modules;
		for (let i = 1; i <= unrecordedNumbers; i++) await backings?.close(this.#table.newest + i).catch(() => {});
	}

	/** Nothing staged is trusted that is not in use already. */
	async #clean(): Promise<void> {
		const kept = new Set(this.#table.all().map(({ file }) => fileName(file)));
		for (const name of (await this.#disk?.list("").catch(() => [])) ?? [])
			if (!name.endsWith("/") && !kept.has(name)) await this.#remove(name);
	}

	/** Whether it can be told here who uses a file. */
	async #probe(): Promise<void> {
		const { backings } = this.#modules;
		if (this.#unavailable !== undefined || this.#disk === undefined) return;
		if (backings === undefined) {
			this.#unavailable = "this platform cannot do it";
			return;
		}
		const name = "probe";
		try {
			const file = await this.#disk.open(name, { create: true });
			await file.write(0, [new Uint8Array(4096)]);
			const whileOpen = await backings.inUse(this.#path(name));
			await file.close();
			if (!whileOpen || (await backings.inUse(this.#path(name))))
				this.#unavailable = `the file system of ${this.#options.folder} does not tell who uses a file, or cannot read past the page cache`;
		} catch (error) {
			this.#unavailable = `its folder cannot be used: ${toFsError(error, "fuse.staging-probe").message}`;
		}
		await this.#remove(name);
	}

	/** When nothing is asked any more. For a successor, what is held stays held. */
	async end(forSuccessor: boolean): Promise<void> {
		this.#ended = true;
		this.#cancelTick();
		const { clock, volume, platform } = { ...this.#modules, clock: this.#modules.platform.clock };
		await Promise.race([this.#idle(), clock.sleep(nativeEndMs)]);
		for (const handle of this.#holds.values()) await volume.close(handle).catch(() => {});
		this.#holds.clear();
		await this.#memory.close();
		if (!forSuccessor) {
			for (const name of (await this.#disk?.list("").catch(() => [])) ?? []) await this.#remove(name);
			await platform.removeMemory(memoryNameOf(volume));
		}
		await this.#disk?.close().catch(() => {});
	}

	async #idle(): Promise<void> {
		while (this.#running.size > 0) await Promise.all(this.#running);
	}
}

const reading = { read: true, write: false } as const;

/** Of another size it would be replaced by an empty one, and whoever wrote it could not go on with it either. @throws FsError REFUSED. */
async function refuseOtherTable(platform: Platform, name: string): Promise<void> {
	const sizeBytes = (await platform.memoryHead(name, 1))?.sizeBytes ?? stagingTableBytes(staging.files);
	if (sizeBytes !== stagingTableBytes(staging.files)) throw stagingLost();
}

export const memoryNameOf = ({ id }: Pick<Volume, "id">): string => `cairn-${id}.native`;

const fileName = (file: number): string => `staged-${file}`;

async function openFolder(folder: string, { platform, openFolder: open }: NativeReadsModules): Promise<Disk> {
	await platform.files.makeFolder(folder);
	return open(folder);
}

async function usualSpace(disk: Disk): Promise<number> {
	const space = await disk.space().catch(() => undefined);
	return space === undefined ? 0 : Math.min(stagingMostBytes, Math.floor(space.capacityBytes * stagingFraction));
}

async function hasRoom(disk: Disk, sizeBytes: number): Promise<boolean> {
	const { capacityBytes, freeBytes } = await disk.space();
	return freeBytes - sizeBytes >= capacityBytes * stagingFreeFraction;
}

async function checksumOf(file: DiskFile, sizeBytes: number): Promise<number> {
	let sum = 0;
	for (let at = 0; at < sizeBytes; ) {
		const bytes = await file.read(at, Math.min(stagingStepBytes, sizeBytes - at));
		if (bytes.length === 0) return -1;
		sum = crc32c(bytes, sum);
		at += bytes.length;
	}
	return sum;
}
