/**
 * Handles of the volume behind requests that know none: opened when a file is first read or written, kept while it is, and closed after a while.
 *
 * Invariants
 *  O1 A handle that has written what is not known to be durable is closed only after a sync through it succeeded, or after the write verifier has changed.
 *  O2 A handle is not closed while a request uses it.
 *  O3 At most `maxOpenFiles` handles that nobody uses are kept.
 */
import { FsError, toFsError } from "../../base/errors.ts";
import type { Logger } from "../../base/telemetry.ts";
import type { Clock } from "../../platform/interface.ts";
import type { Caller, HandleId, Ino, Volume } from "../../volume/interface.ts";
import { idleFileMs, maxOpenFiles, sweepMs } from "./limits.ts";

/** Root's writes leave set-id bits, others' do not: that is told by the handle. */
type Kind = "read" | "write-as-root" | "write";

interface OpenFile {
	readonly ino: Ino;
	readonly kind: Kind;
	readonly opening: Promise<HandleId>;
	handle: HandleId | undefined;
	users: number;
	usedMs: number;
	/** Something was written that no sync has covered. */
	unsynced: boolean;
	/** Not found by new requests any more: closed when nobody uses it. */
	retired: boolean;
}

export interface OpenFilesModules {
	readonly volume: Volume;
	readonly clock: Clock;
	readonly logger: Logger;
	/** Something that was written may be lost: clients must send it again. */
	readonly lost: () => void;
}

const nobody: Omit<Caller, "uid"> = {
	gid: 65_534,
	groups: [],
	principal: undefined,
	door: "nfs",
	clientInstance: "server",
	share: undefined,
	trusted: false,
};

export class OpenFiles {
	readonly #modules: OpenFilesModules;
	/** By inode and kind; the least recently used first. */
	readonly #files = new Map<string, OpenFile>();
	readonly #closing = new Set<Promise<void>>();
	#cancelSweep: () => void = () => {};
	#stopped = false;

	constructor(modules: OpenFilesModules) {
		this.#modules = modules;
		this.#scheduleSweep();
	}

	get size(): number {
		return this.#files.size;
	}

	/** Permission has been checked; flags of the inode are checked here. */
	read<T>(ino: Ino, fn: (handle: HandleId) => Promise<T>): Promise<T> {
		const kinds: readonly Kind[] = ["write", "write-as-root", "read"];
		const kind = kinds.find((one) => this.#files.has(`${ino}/${one}`)) ?? "read";
		return this.#with(ino, kind, (file) => fn(file.handle as HandleId));
	}

	/** `fn` answers whether everything that it wrote is durable. */
	write<T>(ino: Ino, asRoot: boolean, fn: (handle: HandleId, file: { unsynced: boolean }) => Promise<T>): Promise<T> {
		return this.#with(ino, asRoot ? "write-as-root" : "write", (file) => fn(file.handle as HandleId, file));
	}

	/** Everything that was written to the file before is durable. @throws FsError: something may be lost; the verifier has changed. */
	async commit(ino: Ino): Promise<void> {
		const written = (["write", "write-as-root"] as const).filter((kind) => this.#files.has(`${ino}/${kind}`));
		if (written.length === 0) await this.#with(ino, "read", (file) => this.fsync(file));
		else for (const kind of written) await this.#with(ino, kind, (file) => this.fsync(file));
	}

	/** Syncs through a file that the caller was given by `write`. */
	async fsync(given: { unsynced: boolean }): Promise<void> {
		const file = given as OpenFile;
		const before = file.unsynced;
		file.unsynced = false;
		try {
			await this.#modules.volume.fsync(file.handle as HandleId, false);
		} catch (error) {
			file.unsynced = before;
			this.#fail(file, error);
			throw error;
		}
	}

	/** A handle whose sync failed reports that for ever: the next request gets a new one, and clients send again what they had not committed. */
	#fail(file: OpenFile, error: unknown): void {
		this.#modules.logger.error("written data may be lost: clients are told to send it again", {
			ino: file.ino,
			error: toFsError(error, "nfs.sync").message,
		});
		file.unsynced = false;
		this.#modules.lost();
		this.#retire(file);
	}

	/** The file has lost its last name: nobody shall hold it because of us. */
	forget(ino: Ino): void {
		for (const kind of ["read", "write", "write-as-root"] as const) {
			const file = this.#files.get(`${ino}/${kind}`);
			if (file === undefined) continue;
			file.unsynced = false;
			this.#retire(file);
		}
	}

	async #with<T>(ino: Ino, kind: Kind, fn: (file: OpenFile) => Promise<T>): Promise<T> {
		if (this.#stopped) throw new FsError("ENOTCONN", "nfs.stopped", "the NFS server is stopping");
		const key = `${ino}/${kind}`;
		const file = this.#files.get(key) ?? this.#open(ino, kind);
		this.#files.delete(key);
		this.#files.set(key, file);
		file.users++;
		try {
			file.handle = await file.opening;
			return await fn(file);
		} finally {
			file.users--;
			file.usedMs = this.#modules.clock.monotonicMs();
			if (file.retired && file.users === 0) this.#close(file);
			this.#trim();
		}
	}

	#open(ino: Ino, kind: Kind): OpenFile {
		const { volume, clock } = this.#modules;
		const caller: Caller = { ...nobody, uid: kind === "write-as-root" ? 0 : 65_534 };
		const write = kind !== "read";
		const intent = { disposition: "open", access: { read: true, write }, checked: true, appending: true } as const;
		const opening = volume.open(caller, { node: volume.node(ino) }, intent).then(({ handle }) => handle);
		const file = { ino, kind, opening, handle: undefined, users: 0, usedMs: clock.monotonicMs(), unsynced: false, retired: false };
		opening.catch(() => this.#retire(file));
		return file;
	}

	#retire(file: OpenFile): void {
		const key = `${file.ino}/${file.kind}`;
		if (this.#files.get(key) === file) this.#files.delete(key);
		if (file.retired) return;
		file.retired = true;
		if (file.users === 0) this.#close(file);
	}

	/** Nobody uses it, nobody finds it. */
	#close(file: OpenFile): void {
		const { handle } = file;
		if (handle === undefined) return;
		file.handle = undefined;
		const closing = this.#closeHandle(file, handle).finally(() => this.#closing.delete(closing));
		this.#closing.add(closing);
	}

	async #closeHandle(file: OpenFile, handle: HandleId): Promise<void> {
		const { volume, logger, lost } = this.#modules;
		try {
			if (file.unsynced) await volume.fsync(handle, false);
		} catch (error) {
			logger.error("written data may be lost: clients are told to send it again", {
				ino: file.ino,
				error: toFsError(error, "nfs.close").message,
			});
			lost();
		}
		await volume.close(handle).catch((error: unknown) => logger.warn("closing a file", { error: toFsError(error, "nfs.close").message }));
	}

	#trim(): void {
		if (this.#files.size <= maxOpenFiles) return;
		for (const file of this.#files.values()) {
			if (this.#files.size <= maxOpenFiles) return;
			if (file.users === 0) this.#retire(file);
		}
	}

	#scheduleSweep(): void {
		this.#cancelSweep = this.#modules.clock.after(sweepMs, () => {
			const oldest = this.#modules.clock.monotonicMs() - idleFileMs;
			for (const file of [...this.#files.values()]) if (file.users === 0 && file.usedMs < oldest) this.#retire(file);
			if (!this.#stopped) this.#scheduleSweep();
		});
	}

	/** No requests are under way. What was written is durable, or clients have been told. */
	async stop(): Promise<void> {
		this.#stopped = true;
		this.#cancelSweep();
		for (const file of [...this.#files.values()]) this.#retire(file);
		while (this.#closing.size > 0) await Promise.all(this.#closing);
	}
}
