/**
 * What NFS procedures share: exports, handles of nodes, callers, the write verifier, durability.
 *
 * Invariants
 *  S1 A reply that says that something was changed is sent after that change is durable (stable writes and everything but unstable writes), and after whoever else caches the volume has been told.
 *  S2 The write verifier changes whenever something that was written and not committed may be lost: at every start, and when a sync fails.
 *  S3 A node is reached only by a handle that this volume has made for an export which still exists and whose clients include the caller.
 */
import { BufferPool } from "../../base/buffer-pool.ts";
import { latin1ToUtf8, parseUuid } from "../../base/bytes.ts";
import { FsError } from "../../base/errors.ts";
import type { Logger } from "../../base/telemetry.ts";
import type { Peer, Platform } from "../../platform/interface.ts";
import type { Attributes, Caller, Ino, NodeRef, Volume, VolumeNow, VolumeSpace } from "../../volume/interface.ts";
import { inRanges, isLoopback } from "./addresses.ts";
import { admit, callerOf, type LiveExport } from "./exports.ts";
import { decodeFileHandle, encodeFileHandle, generationOf, type HandleKeys } from "./file-handle.ts";
import { keptPoolBytes, pooledFromBytes, spaceFreshMs } from "./limits.ts";
import { Denials } from "./denials.ts";
import type { FileSystemId } from "./nfs3.ts";
import { OpenFiles } from "./open-files.ts";
import { PastCalls } from "./past-calls.ts";
import type { CallContext } from "./program.ts";

/** What a call has changed, for whoever keeps copies of it (the kernel behind a mount). */
export interface Change {
	/** Attributes are other ones; with `contents` the bytes too, from that offset on. */
	readonly nodes: readonly { readonly ino: Ino; readonly contentsFrom?: number }[];
	/** Names that mean something else now. */
	readonly names: readonly { readonly parent: Ino; readonly name: string }[];
}

export interface NfsModules {
	readonly volume: Volume;
	readonly platform: Platform;
	readonly logger: Logger;
	/** Resolves when copies elsewhere are gone, or after a bounded time. */
	readonly changed: (change: Change) => Promise<void>;
}

export interface NfsOptions {
	/** 16 bytes, kept with the volume: file handles of before stay good. */
	readonly secret: Uint8Array;
	/** The whole volume is read-only. */
	readonly readOnly: boolean;
	/** What the volume can answer at once is answered in one step (default). */
	readonly answerNow?: boolean;
}

/** A node that a call names, and as whom. */
export interface Target {
	readonly entry: LiveExport;
	readonly caller: Caller;
	readonly node: NodeRef;
	readonly attributes: Attributes;
	readonly fsid: FileSystemId;
}

export class NfsState {
	readonly volume: Volume;
	/** What the volume answers at once; undefined where it cannot, or shall not. */
	readonly now: VolumeNow | undefined;
	readonly modules: NfsModules;
	readonly files: OpenFiles;
	readonly denials: Denials;
	readonly pastCalls: PastCalls;
	/** For contents that are read. */
	readonly readBuffers = new BufferPool({ fromBytes: pooledFromBytes, keptBytes: keptPoolBytes, shared: false });
	/** By their directories. */
	#exports: ReadonlyMap<Ino, LiveExport> = new Map();
	/** Who may come, of the exports as they are now. */
	readonly #admitted = new WeakMap<LiveExport, WeakSet<Peer>>();
	readonly #keys: HandleKeys;
	readonly #readOnly: boolean;
	#verifier: Uint8Array;
	#space: { readonly space: Promise<VolumeSpace>; readonly atMs: number } | undefined;

	constructor(options: NfsOptions, modules: NfsModules) {
		const { volume, platform, logger } = modules;
		this.modules = modules;
		this.volume = volume;
		this.now = options.answerNow === false ? undefined : volume.now;
		this.#readOnly = options.readOnly;
		this.#keys = { secret: options.secret, volume: parseUuid(volume.id) };
		this.#verifier = platform.random.bytes(8);
		this.pastCalls = new PastCalls(options.secret, platform.clock);
		this.denials = new Denials(platform.clock);
		this.files = new OpenFiles({ volume, clock: platform.clock, logger, lost: () => this.#newVerifier() });
	}

	// ── exports ──────────────────────────────────────────────────────────────────────────────────────────────────

	setExports(entries: readonly LiveExport[]): void {
		this.#exports = new Map(entries.map((entry) => [entry.rootIno, entry]));
	}

	get exports(): readonly LiveExport[] {
		return [...this.#exports.values()];
	}

	// ── handles ──────────────────────────────────────────────────────────────────────────────────────────────────

	handleOf(entry: LiveExport, attributes: Attributes): Uint8Array {
		return encodeFileHandle(this.#keys, { rootIno: entry.rootIno, ino: attributes.ino, generation: generationOf(attributes) });
	}

	/** Two exports are two file systems: clients must not take a node of one for the same node of another with other rights. */
	#fsid(entry: LiveExport): FileSystemId {
		const view = new DataView(this.#keys.volume.buffer, this.#keys.volume.byteOffset, 16);
		const [high, low] = [Math.floor(entry.rootIno / 2 ** 32), entry.rootIno >>> 0];
		return { high: (view.getUint32(0) ^ high) >>> 0, low: (view.getUint32(4) ^ low) >>> 0 };
	}

	/** @throws FsError EBADF, ESTALE, EACCES. */
	async target(bytes: Uint8Array, { credential, peer, noted }: CallContext): Promise<Target> {
		const { rootIno, ino, generation } = decodeFileHandle(this.#keys, bytes);
		const entry = this.#exports.get(rootIno);
		if (entry === undefined) throw new FsError("ESTALE", "nfs.export-gone", "the export of this file handle is no more", { rootIno });
		this.#admit(entry, peer);
		const anyCall = callerOf(entry, credential, peer);
		const caller = noted === undefined ? anyCall : { ...anyCall, noted };
		const node = this.volume.node(ino);
		const attributes = this.now?.getAttributes(caller, node) ?? (await this.volume.getAttributes(caller, node));
		if (attributes.nlink === 0 || generationOf(attributes) !== generation) {
			if (attributes.nlink === 0) this.files.forget(ino);
			throw new FsError("ESTALE", "nfs.removed", `inode ${ino} has been removed`, { ino });
		}
		return { entry, caller, node, attributes, fsid: this.#fsid(entry) };
	}

	/** Once for each connection and state of the export: addresses are compared as text and bits, which takes longer than a small call. */
	#admit(entry: LiveExport, peer: Peer): void {
		const known = this.#admitted.get(entry) ?? new WeakSet<Peer>();
		if (known.has(peer)) return;
		admit(entry, peer);
		known.add(peer);
		this.#admitted.set(entry, known);
	}

	/** For whoever asks about something that is its own already: the file may be gone. @throws FsError EBADF, ESTALE, EACCES. */
	inodeOf(bytes: Uint8Array, { peer }: CallContext): Ino {
		const { rootIno, ino } = decodeFileHandle(this.#keys, bytes);
		const entry = this.#exports.get(rootIno);
		if (entry === undefined) throw new FsError("ESTALE", "nfs.export-gone", "the export of this file handle is no more", { rootIno });
		this.#admit(entry, peer);
		return ino;
	}

	/** Whether any export is for this address. */
	isClient(address: string): boolean {
		return this.exports.some(({ clients }) => (clients.length === 0 ? isLoopback(address) : inRanges(address, clients)));
	}

	/** @throws FsError EROFS. */
	requireWritable({ entry }: Target): void {
		if (!this.#readOnly && !entry.readOnly) return;
		throw new FsError("EROFS", "nfs.read-only", `${entry.name} is exported read-only`, { export: entry.name });
	}

	isReadOnly(entry: LiveExport): boolean {
		return this.#readOnly || entry.readOnly;
	}

	/** A path below an export, as MOUNT is given it. @throws FsError ENOENT, ENOTDIR, EACCES. */
	async mountPoint(path: string, { credential, peer }: CallContext): Promise<Target> {
		const clean = `/${path
			.split("/")
			.filter((part) => part !== "")
			.join("/")}`;
		const above = this.exports.filter((one) => clean === one.path || clean.startsWith(`${one.path}/`));
		const entry = above.sort((a, b) => b.path.length - a.path.length)[0];
		if (entry === undefined) throw new FsError("ENOENT", "nfs.no-export", `nothing is exported as ${latin1ToUtf8(clean)}`);
		admit(entry, peer);
		const caller = callerOf(entry, credential, peer);
		let attributes = await this.volume.getAttributes(caller, this.volume.node(entry.rootIno));
		for (const name of clean
			.slice(entry.path.length)
			.split("/")
			.filter((part) => part !== "")) {
			if (name === "." || name === "..") throw new FsError("EACCES", "nfs.mount-dots", `${latin1ToUtf8(path)} is no plain path`);
			attributes = await this.volume.lookup(caller, this.volume.node(attributes.ino), name);
		}
		if (attributes.type !== "directory") throw new FsError("ENOTDIR", "nfs.mount-file", `${latin1ToUtf8(path)} is no directory`);
		return { entry, caller, node: this.volume.node(attributes.ino), attributes, fsid: this.#fsid(entry) };
	}

	// ── durability ───────────────────────────────────────────────────────────────────────────────────────────────

	get verifier(): Uint8Array {
		return this.#verifier;
	}

	/** Of directory positions: they never change their meaning. */
	get cookieVerifier(): Uint8Array {
		return this.#keys.volume.subarray(0, 8);
	}

	#newVerifier(): void {
		this.#verifier = this.modules.platform.random.bytes(8);
	}

	/** S1. */
	async settled(position: number, change: Change): Promise<void> {
		await Promise.all([this.volume.durable(position), this.modules.changed(change)]);
	}

	async space(): Promise<VolumeSpace> {
		const now = this.modules.platform.clock.monotonicMs();
		if (this.#space === undefined || now - this.#space.atMs > spaceFreshMs) this.#space = { space: this.volume.space(), atMs: now };
		return this.#space.space;
	}
}
