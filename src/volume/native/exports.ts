/** The exports of a volume and how they are served, as records: they go where the volume goes. */
import { Mutex } from "../../base/async.ts";
import { FsError, isFsError } from "../../base/errors.ts";
import type { ExportRecord, Ino, RecordTransaction, ServiceRecord } from "../../records/interface.ts";
import { exportRecord, serviceRecord } from "../../records/kinds.ts";
import { maximumExports } from "../../records/limits.ts";
import type { Core } from "./core.ts";
import type { ExportVerbs, NewExport } from "./interface.ts";
import { resolvePath } from "./verify.ts";

const secretBytes = 16;

export class ExportBook implements ExportVerbs {
	readonly #core: Core;
	readonly #changing = new Mutex();

	constructor(core: Core) {
		this.#core = core;
	}

	async list(): Promise<readonly ExportRecord[]> {
		return this.#core.view((tx) => all(tx));
	}

	add(entry: NewExport): Promise<ExportRecord> {
		return this.#changing.run(async () => {
			await this.#ensureService();
			const { result, position } = await this.#core.transact((tx, context) => {
				const entries = all(tx);
				if (entries.some(({ folder }) => folder === entry.folder))
					throw new FsError("EEXIST", "volume.export-exists", "this folder is exported already: remove that export first", {});
				if (entries.length >= maximumExports)
					throw new FsError("REFUSED", "volume.exports", `a volume has at most ${maximumExports} exports`, { exports: entries.length });
				const { inode } = resolvePath(tx, entry.folder);
				if (inode.type !== "directory") throw new FsError("ENOTDIR", "volume.export-file", "only directories are exported");
				const service = tx.get(serviceRecord) as ServiceRecord;
				const made: ExportRecord = { ...entry, id: service.nextExport, birthEpoch: context.epoch };
				tx.put(serviceRecord, { ...service, nextExport: service.nextExport + 1 });
				tx.put(exportRecord, made, made.id);
				return made;
			});
			await this.#core.engine.durable(position);
			return result;
		});
	}

	remove(folder: string): Promise<void> {
		return this.#changing.run(async () => {
			const { position } = await this.#core.transact((tx) => {
				const entry = all(tx).find((one) => one.folder === folder);
				if (entry === undefined) throw new FsError("NOTFOUND", "volume.export-absent", "this is not exported");
				tx.delete(exportRecord, entry.id);
			});
			await this.#core.engine.durable(position);
		});
	}

	async locate(folder: string): Promise<Ino | undefined> {
		try {
			const { inode } = await this.#core.view((tx) => resolvePath(tx, folder));
			return inode.type === "directory" ? inode.ino : undefined;
		} catch (error) {
			if (isFsError(error, "ENOENT") || isFsError(error, "ENOTDIR")) return undefined;
			throw error;
		}
	}

	service(): Promise<ServiceRecord> {
		return this.#changing.run(() => this.#ensureService());
	}

	setService(change: Partial<Pick<ServiceRecord, "port" | "portMapper" | "serverName">>): Promise<ServiceRecord> {
		return this.#changing.run(async () => {
			await this.#ensureService();
			const { result, position } = await this.#core.transact((tx) => {
				const service = { ...(tx.get(serviceRecord) as ServiceRecord), ...change };
				tx.put(serviceRecord, service);
				return service;
			});
			await this.#core.engine.durable(position);
			return result;
		});
	}

	/** The secret is durable before any file handle is signed with it. */
	async #ensureService(): Promise<ServiceRecord> {
		const known = await this.#core.view((tx) => tx.get(serviceRecord));
		if (known !== undefined) return known;
		const secret = this.#core.platform.random.bytes(secretBytes);
		const { result, position } = await this.#core.transact((tx, context) => {
			const birthEpoch = context.epoch;
			const made: ServiceRecord = {
				secret,
				nextExport: 1,
				port: 0,
				portMapper: "none",
				serverName: "",
				lockState: 1,
				nextLockClient: 1,
				locksExact: false,
				birthEpoch,
			};
			tx.put(serviceRecord, made);
			return made;
		});
		await this.#core.engine.durable(position);
		return result;
	}
}

function all(tx: RecordTransaction): ExportRecord[] {
	return tx.scan(exportRecord, exportRecord.prefix(), { limit: maximumExports }).map(({ value }) => value);
}
