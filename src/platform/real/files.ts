/** Small host files: written whole, atomically and durably. */
import { randomBytes } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import fs from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import { FsError, toFsError } from "../../base/errors.ts";
import type { HostFiles } from "../interface.ts";

/** What a write that was cut leaves behind; such names are not shown. */
const temporaryName = /^\..*\.[0-9a-f]{12}\.tmp$/;

export class RealHostFiles implements HostFiles {
	read(path: string): Promise<Uint8Array | undefined> {
		return absentIs(undefined, "platform.host-read", async () => new Uint8Array(await fs.readFile(path)));
	}

	async write(path: string, bytes: Uint8Array): Promise<void> {
		const folder = dirname(resolve(path));
		const temporary = `${folder}/.${basename(path)}.${randomBytes(6).toString("hex")}.tmp`;
		await this.makeFolder(folder);
		try {
			await withFile(await fs.open(temporary, "wx", 0o600), async (file) => {
				await file.writeFile(bytes);
				await file.sync();
			});
			await fs.rename(temporary, path);
			await syncFolder(folder);
		} catch (error) {
			await fs.rm(temporary, { force: true }).catch(() => {});
			throw toFsError(error, "platform.host-write");
		}
	}

	list(path: string): Promise<string[]> {
		return absentIs([], "platform.host-list", async () => (await fs.readdir(path)).filter((name) => !temporaryName.test(name)).sort());
	}

	async remove(path: string): Promise<void> {
		await absentIs(undefined, "platform.host-remove", async () => {
			const stat = await fs.lstat(path);
			if (stat.isDirectory()) await fs.rmdir(path);
			else await fs.unlink(path);
			await syncFolder(dirname(resolve(path)));
		});
	}

	kind(path: string): Promise<"file" | "directory" | "socket" | "other" | undefined> {
		return absentIs(undefined, "platform.host-kind", async () => {
			const stat = await fs.stat(path);
			if (stat.isFile()) return "file";
			if (stat.isDirectory()) return "directory";
			return stat.isSocket() ? "socket" : "other";
		});
	}

	async probe(path: string): Promise<void> {
		try {
			await fs.statfs(path);
		} catch (error) {
			// What was asked while the daemon died ends with ECONNABORTED; what is asked later with ENOTCONN.
			const isGone = (error as NodeJS.ErrnoException).code === "ECONNABORTED";
			if (isGone) throw new FsError("ENOTCONN", "platform.host-probe", `${path} has lost its daemon`, { path }, error);
			throw toFsError(error, "platform.host-probe");
		}
	}

	async makeFolder(path: string): Promise<void> {
		try {
			const first = await fs.mkdir(resolve(path), { recursive: true, mode: 0o700 });
			if (first === undefined) return;
			for (let at = resolve(path); at.length >= first.length; at = dirname(at)) await syncFolder(dirname(at));
		} catch (error) {
			throw toFsError(error, "platform.host-folder");
		}
	}
}

async function absentIs<T>(absent: T, site: string, fn: () => Promise<T>): Promise<T> {
	try {
		return await fn();
	} catch (error) {
		const code = (error as { code?: unknown }).code;
		if (code === "ENOENT" || code === "ENOTDIR") return absent;
		throw toFsError(error, site);
	}
}

async function withFile(file: FileHandle, fn: (file: FileHandle) => Promise<void>): Promise<void> {
	try {
		await fn(file);
	} finally {
		await file.close();
	}
}

async function syncFolder(folder: string): Promise<void> {
	await withFile(await fs.open(folder, "r"), (file) => file.sync());
}
