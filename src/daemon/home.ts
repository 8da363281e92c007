/**
 * `$CAIRN_HOME`: NAME/volume.json, NAME/control.sock, NAME/daemon.log. Only a cache of where the disks are: any one disk finds the others.
 */
import { FsError } from "../base/errors.ts";
import type { HostFiles } from "../platform/interface.ts";

export interface HomeEntry {
	readonly name: string;
	/** Formatted uuid of the volume. */
	readonly id: string;
	/** Absolute paths of its disks, as last seen. */
	readonly diskPaths: readonly string[];
}

const format = 1;

/** A volume's name is a folder's, a part of `cairn:NAME` in the mount table and an argument. */
export function checkVolumeName(name: string): void {
	if (/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(name)) return;
	const rule = "a name has 1 to 63 letters, digits, dots, dashes or underscores, and begins with a letter or a digit";
	throw new FsError("EINVAL", "daemon.volume-name", `"${name}" is no name for a volume: ${rule}`, { name });
}

export class Home {
	readonly path: string;
	readonly #files: HostFiles;

	constructor(path: string, modules: { readonly files: HostFiles }) {
		this.path = path;
		this.#files = modules.files;
	}

	folder(name: string): string {
		checkVolumeName(name);
		return `${this.path}/${name}`;
	}

	socketPath(name: string): string {
		return `${this.folder(name)}/control.sock`;
	}

	logPath(name: string): string {
		return `${this.folder(name)}/daemon.log`;
	}

	/** Copies of files that the kernel reads by itself. */
	nativeFolder(name: string): string {
		return `${this.folder(name)}/native`;
	}

	/** The token of monitoring: mode 0600, like all that is written here. */
	tokenPath(name: string): string {
		return `${this.folder(name)}/metrics.token`;
	}

	/** Names of all volumes that this machine knows, sorted. */
	async list(): Promise<string[]> {
		const names = (await this.#files.list(this.path)).filter((name) => /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(name));
		const known: string[] = [];
		for (const name of names) {
			if ((await this.#files.kind(`${this.path}/${name}/volume.json`)) === "file") known.push(name);
		}
		return known;
	}

	/** @throws FsError CORRUPT when the file is damaged: mount with `--disk` writes it anew. */
	async read(name: string): Promise<HomeEntry | undefined> {
		const bytes = await this.#files.read(`${this.folder(name)}/volume.json`);
		return bytes === undefined ? undefined : decodeEntry(name, bytes);
	}

	/** @throws FsError NOTFOUND. */
	async require(name: string): Promise<HomeEntry> {
		const entry = await this.read(name);
		if (entry) return entry;
		const known = await this.list();
		const there = known.length === 0 ? "there is none" : `there are: ${known.join(", ")}`;
		throw new FsError("NOTFOUND", "daemon.no-volume", `no volume ${name} is known under ${this.path} (${there})`, { name });
	}

	async write(entry: HomeEntry): Promise<void> {
		const text = JSON.stringify({ format, name: entry.name, id: entry.id, disks: entry.diskPaths }, undefined, "\t");
		await this.#files.write(`${this.folder(entry.name)}/volume.json`, new TextEncoder().encode(`${text}\n`));
	}

	/** Forgets a volume: volume.json first, so that an interrupted removal is not taken for a volume. */
	async remove(name: string): Promise<void> {
		const folder = this.folder(name);
		for (const file of ["volume.json", "control.sock", "daemon.log", "daemon.log.1", "metrics.token"])
			await this.#files.remove(`${folder}/${file}`);
		const native = this.nativeFolder(name);
		for (const file of await this.#files.list(native)) await this.#files.remove(`${native}/${file}`);
		await this.#files.remove(native);
		if ((await this.#files.list(folder)).length === 0) await this.#files.remove(folder);
	}
}

function decodeEntry(name: string, bytes: Uint8Array): HomeEntry {
	const damaged = (cause?: unknown) =>
		new FsError(
			"CORRUPT",
			"daemon.volume-json",
			`volume.json of ${name} is damaged: mount with --disk PATH writes it anew`,
			{ name },
			cause,
		);
	let value: Record<string, unknown>;
	try {
		value = JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>;
	} catch (error) {
		throw damaged(error);
	}
	const disks = value?.["disks"];
	const isPath = (path: unknown): path is string => typeof path === "string" && path.startsWith("/");
	if (value?.["format"] !== format || typeof value["id"] !== "string" || !Array.isArray(disks) || !disks.every(isPath)) throw damaged();
	return { name, id: value["id"], diskPaths: disks };
}
