/**
 * The volume's exports, and the NFS door that serves them.
 *
 * Invariants
 *  E1 Nothing listens while nothing is exported; nothing but this machine is listened to while no export names other clients.
 *  E2 What `add` and `remove` answer is durable and in force.
 *  E3 The port stays the same over restarts: clients know it.
 */
import { Mutex } from "../base/async.ts";
import { latin1ToUtf8, utf8ToLatin1 } from "../base/bytes.ts";
import { FsError, isFsError, toFsError } from "../base/errors.ts";
import type { Logger } from "../base/telemetry.ts";
import { formatRange, parseRange } from "../doors/nfs/addresses.ts";
import type { LiveExport } from "../doors/nfs/exports.ts";
import { type Change, type LockServiceStatus, NfsServer, type NfsStatus } from "../doors/nfs/server.ts";
import type { Platform } from "../platform/interface.ts";
import type { ExportRecord, ExportSquash, PortMapperChoice, ServiceRecord } from "../records/interface.ts";
import type { NativeVolume } from "../volume/native/interface.ts";
import { anonymousId, portRetryMs, usualNfsPort } from "./limits.ts";

export interface ExporterOptions {
	readonly name: string;
	readonly readOnly: boolean;
	/** What the volume can answer at once is answered in one step. */
	readonly answerNow: boolean;
	/** Whether this process may use ports that others on this machine may not. */
	readonly privileged: boolean;
}

export interface ExporterModules {
	readonly volume: NativeVolume;
	readonly platform: Platform;
	readonly logger: Logger;
	/** Resolves when the mount of this daemon knows; false: that is not sure. */
	readonly changed: (change: Change) => Promise<boolean>;
}

/** As the command line tells it. */
export interface ShownExport {
	readonly name: string;
	readonly path: string;
	readonly url: string;
	readonly clients: readonly string[];
	readonly squash: ExportSquash;
	readonly readOnly: boolean;
	readonly privilegedPorts: boolean;
	/** Why it cannot be used at the moment; empty: it can. */
	readonly trouble: string;
	/** Why locks of clients do not reach the volume, so that they have to mount with nolock; empty: they do. */
	readonly locksUnfound: string;
}

export interface AskedExport {
	/** UTF-8, with or without slashes around it. */
	readonly folder: string;
	readonly clients: readonly string[];
	readonly squash: ExportSquash;
	readonly readOnly: boolean;
	readonly privilegedPorts: boolean;
	readonly anonymousUid?: number | undefined;
	readonly anonymousGid?: number | undefined;
}

/** What is left out stays as it is. */
export interface ServiceChange {
	readonly port?: number | undefined;
	readonly portMapper?: PortMapperChoice | undefined;
	readonly serverName?: string | undefined;
}

export interface NfsDoorStatus extends NfsStatus {
	readonly exports: number;
	/** Why nothing listens although something is exported. */
	readonly trouble: string;
}

export class Exporter {
	readonly #options: ExporterOptions;
	readonly #modules: ExporterModules;
	readonly #changing = new Mutex();
	#server: NfsServer | undefined;
	#trouble = "";
	#cancelRetry: () => void = () => {};
	#stopped = false;

	constructor(options: ExporterOptions, modules: ExporterModules) {
		this.#options = options;
		this.#modules = modules;
	}

	/** Serves what is exported, now or as soon as the port is free: a port that is taken must not keep a volume from being mounted. */
	start(): Promise<void> {
		return this.#changing.run(() => this.#refresh());
	}

	// ── verbs ────────────────────────────────────────────────────────────────────────────────────────────────────

	/** @throws FsError EINVAL, EEXIST, ENOENT, ENOTDIR, REFUSED. */
	add(asked: AskedExport): Promise<ShownExport> {
		return this.#changing.run(async () => {
			const folder = plainFolder(asked.folder);
			const clients = asked.clients.map((text) => formatRange(parseRange(text)));
			const { squash, readOnly, privilegedPorts, anonymousUid = anonymousId, anonymousGid = anonymousId } = asked;
			const { exports } = this.#modules.volume;
			const entry = { folder, clients, squash, readOnly, privilegedPorts, anonymousUid, anonymousGid };
			const made = await exports.add(entry).catch((error: unknown) => {
				if (!isFsError(error, "ENOENT") && !isFsError(error, "ENOTDIR")) throw error;
				throw new FsError(
					"NOTFOUND",
					"daemon.export-folder",
					`there is no directory /${latin1ToUtf8(folder)} in volume ${this.#options.name}`,
					{},
					error,
				);
			});
			await this.#refresh();
			return this.#show(made);
		});
	}

	/** @throws FsError NOTFOUND. */
	remove(folder: string): Promise<{ readonly name: string }> {
		return this.#changing.run(async () => {
			const plain = plainFolder(folder);
			const name = this.#nameOf(plain);
			await this.#modules.volume.exports.remove(plain).catch((error: unknown) => {
				if (!isFsError(error, "NOTFOUND")) throw error;
				throw new FsError("NOTFOUND", "daemon.export-absent", `${name} is not exported: see cairn export list`, {}, error);
			});
			await this.#refresh();
			return { name };
		});
	}

	list(): Promise<readonly ShownExport[]> {
		return this.#changing.run(async () => {
			const entries = await this.#modules.volume.exports.list();
			return Promise.all(entries.map((entry) => this.#show(entry)));
		});
	}

	/** How all exports of the volume are served. @throws FsError EBUSY: the port is taken; then nothing has changed. */
	serve(change: ServiceChange): Promise<NfsDoorStatus> {
		return this.#changing.run(async () => {
			const { exports } = this.#modules.volume;
			const before = await exports.service();
			const { port = before.port, portMapper = before.portMapper, serverName = before.serverName } = change;
			await exports.setService({ port, portMapper, serverName });
			await this.#refresh();
			if (this.#trouble !== "") {
				const message = this.#trouble;
				await exports.setService({ port: before.port, portMapper: before.portMapper, serverName: before.serverName });
				await this.#refresh();
				throw new FsError("EBUSY", "daemon.export-serve", message, { port });
			}
			return this.#status();
		});
	}

	status(): Promise<NfsDoorStatus> {
		return this.#changing.run(() => this.#status());
	}

	async #status(): Promise<NfsDoorStatus> {
		const entries = await this.#modules.volume.exports.list();
		const locks: LockServiceStatus = {
			stateNumber: this.#modules.volume.clientLocks.stateNumber,
			grace: null,
			clients: [],
			waiting: 0,
			grants: { taken: 0, refused: 0, unheard: 0 },
			untold: 0,
		};
		const nothing: NfsStatus = {
			port: 0,
			wide: false,
			portMapper: "none",
			takenByOthers: [],
			locksUnfound: "nothing is served",
			connections: [],
			mounts: [],
			openFiles: 0,
			locks,
		};
		return { ...(this.#server?.status() ?? nothing), exports: entries.length, trouble: this.#trouble };
	}

	// ── serving ──────────────────────────────────────────────────────────────────────────────────────────────────

	/** Brings what listens in line with what is exported. */
	async #refresh(): Promise<void> {
		this.#cancelRetry();
		if (this.#stopped) return;
		const { exports } = this.#modules.volume;
		const entries = await exports.list();
		if (entries.length === 0) {
			this.#trouble = "";
			await this.#stopServer();
			return;
		}
		const service = await exports.service();
		const server = this.#server ?? this.#makeServer(service);
		this.#server = server;
		server.setExports(await this.#live(entries));
		await this.#listen(
			server,
			service,
			entries.some(({ clients }) => clients.length > 0),
		);
	}

	#makeServer({ secret }: ServiceRecord): NfsServer {
		const { volume, platform, logger, changed } = this.#modules;
		const tell = async (change: Change): Promise<void> => {
			if (!(await changed(change))) logger.warn("the kernel did not forget in time what it knew of a change over NFS", {});
		};
		return new NfsServer(
			{ secret, readOnly: this.#options.readOnly, answerNow: this.#options.answerNow },
			{ volume, clientLocks: volume.clientLocks, platform, logger, changed: tell },
		);
	}

	/** Those whose folder is there. */
	async #live(entries: readonly ExportRecord[]): Promise<readonly LiveExport[]> {
		const live: LiveExport[] = [];
		for (const entry of entries) {
			const rootIno = await this.#modules.volume.exports.locate(entry.folder);
			if (rootIno === undefined) continue;
			const clients = entry.clients.map(parseRange);
			const privilegedPorts = entry.privilegedPorts && this.#options.privileged;
			live.push({ ...entry, clients, privilegedPorts, rootIno, name: this.#nameOf(entry.folder), path: this.#pathOf(entry.folder) });
		}
		return live;
	}

	async #listen(server: NfsServer, service: ServiceRecord, wide: boolean): Promise<void> {
		const now = server.status();
		const { portMapper, serverName } = service;
		server.setName(serverName);
		if (now.port !== 0 && now.port === service.port && now.wide === wide && now.portMapper === portMapper) return;
		try {
			const port = await this.#listenOn(server, service.port, wide, portMapper);
			if (port !== service.port) await this.#modules.volume.exports.setService({ port });
			this.#trouble = "";
			this.#modules.logger.info("serving NFS", { port, wide, portMapper });
		} catch (error) {
			this.#trouble = toFsError(error, "daemon.export-listen").message;
			this.#modules.logger.warn("NFS cannot listen yet; it is tried again", { error: this.#trouble });
			this.#cancelRetry = this.#modules.platform.clock.after(portRetryMs, () => void this.#retry());
		}
	}

	/** The first time any port will do, the usual one best: several volumes have a daemon each. */
	async #listenOn(server: NfsServer, port: number, wide: boolean, portMapper: PortMapperChoice): Promise<number> {
		if (port !== 0) return server.listen({ wide, port, portMapper });
		try {
			return await server.listen({ wide, port: usualNfsPort, portMapper });
		} catch (error) {
			if (!isFsError(error, "EBUSY") && !isFsError(error, "EACCES")) throw error;
			return server.listen({ wide, port: 0, portMapper });
		}
	}

	async #retry(): Promise<void> {
		await this.start().catch((error: unknown) =>
			this.#modules.logger.warn("exports", { error: toFsError(error, "daemon.export-retry").message }),
		);
	}

	async #stopServer(): Promise<void> {
		const server = this.#server;
		this.#server = undefined;
		await server?.stop();
	}

	/** Before the volume is shut down. */
	async stop(): Promise<void> {
		this.#stopped = true;
		this.#cancelRetry();
		await this.#changing.run(() => this.#stopServer());
	}

	// ── showing ──────────────────────────────────────────────────────────────────────────────────────────────────

	#nameOf(folder: string): string {
		return folder === "" ? this.#options.name : `${this.#options.name}:/${latin1ToUtf8(folder)}`;
	}

	/** What clients mount. */
	#pathOf(folder: string): string {
		const name = utf8ToLatin1(this.#options.name);
		return folder === "" ? `/${name}` : `/${name}/${folder}`;
	}

	async #show({ folder, clients, squash, readOnly, privilegedPorts }: ExportRecord): Promise<ShownExport> {
		const path = latin1ToUtf8(this.#pathOf(folder));
		const { port = 0, locksUnfound = "nothing is served" } = this.#server?.status() ?? {};
		const isThere = (await this.#modules.volume.exports.locate(folder)) !== undefined;
		const url = `nfs://127.0.0.1${path}?nfsport=${port}&mountport=${port}`;
		const trouble = !isThere ? "the directory is not there" : this.#trouble;
		return { name: this.#nameOf(folder), path, url, clients, squash, readOnly, privilegedPorts, trouble, locksUnfound };
	}
}

/** Without slashes around it and doubled ones, as bytes. @throws FsError EINVAL. */
function plainFolder(text: string): string {
	const parts = text.split("/").filter((part) => part !== "" && part !== ".");
	if (parts.includes("..")) throw new FsError("EINVAL", "daemon.export-dots", `${text} has ".." in it: name the directory itself`);
	return utf8ToLatin1(parts.join("/"));
}
