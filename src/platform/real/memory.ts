/**
 * Memory that outlives the process: a file in a tmpfs, mapped shared. It is gone after a reboot.
 *
 * Invariant: every page of the file is allocated before it is mapped, so that no store can die of a full tmpfs.
 */
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { FsError, toFsError } from "../../base/errors.ts";
import type { Memory } from "../interface.ts";
import { checkMemoryName } from "../names.ts";
import { mapShare, reserve } from "./libc.ts";

const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = fs.constants;

export class RealMemories {
	readonly #folder: string;

	/** @param folder a tmpfs. */
	constructor(folder: string) {
		this.#folder = folder;
	}

	/** @throws FsError EINVAL, EACCES, ENOSPC, ENOMEM. */
	open(name: string, sizeBytes: number): Memory {
		checkMemoryName(name, sizeBytes);
		const path = `${this.#folder}/${name}`;
		const old = this.#openOld(path, sizeBytes);
		const fd = old ?? this.#make(path, sizeBytes);
		try {
			reserve(fd, sizeBytes, path);
			const mapping = mapShare(fd, sizeBytes, path);
			let open = true;
			const close = async () => {
				if (open) mapping.release();
				open = false;
			};
			return { bytes: new Uint8Array(mapping.buffer), existed: old !== undefined, close };
		} finally {
			fs.closeSync(fd);
		}
	}

	remove(name: string): void {
		checkMemoryName(name, 1);
		fs.rmSync(`${this.#folder}/${name}`, { force: true });
	}

	/** @throws FsError EACCES. */
	head(name: string, lengthBytes: number): { readonly bytes: Uint8Array; readonly sizeBytes: number } | undefined {
		checkMemoryName(name, lengthBytes);
		let fd: number;
		try {
			fd = fs.openSync(`${this.#folder}/${name}`, O_RDONLY | O_NOFOLLOW);
		} catch (error) {
			if ((error as { code?: unknown }).code === "ENOENT") return undefined;
			throw toFsError(error, "platform.memory-head");
		}
		try {
			const bytes = new Uint8Array(lengthBytes);
			const count = fs.readSync(fd, bytes, 0, lengthBytes, 0);
			return { bytes: bytes.subarray(0, count), sizeBytes: fs.fstatSync(fd).size };
		} finally {
			fs.closeSync(fd);
		}
	}

	#openOld(path: string, sizeBytes: number): number | undefined {
		let fd: number;
		try {
			fd = fs.openSync(path, O_RDWR | O_NOFOLLOW);
		} catch (error) {
			if ((error as { code?: unknown }).code === "ENOENT") return undefined;
			throw toFsError(error, "platform.memory-open");
		}
		const stat = fs.fstatSync(fd);
		const mine = stat.isFile() && stat.uid === process.geteuid?.() && (stat.mode & 0o077) === 0;
		if (mine && stat.size === sizeBytes) return fd;
		fs.closeSync(fd);
		if (!mine)
			throw new FsError("EACCES", "platform.memory-foreign", `${path} belongs to somebody else or is open to others; remove it`, { path });
		fs.unlinkSync(path);
		return undefined;
	}

	/** Made under another name first: under its own name it always has its whole size. */
	#make(path: string, sizeBytes: number): number {
		const temporary = `${path}.${randomBytes(6).toString("hex")}.new`;
		let fd: number | undefined;
		try {
			fd = fs.openSync(temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
			reserve(fd, sizeBytes, path);
			fs.renameSync(temporary, path);
			return fd;
		} catch (error) {
			if (fd !== undefined) fs.closeSync(fd);
			fs.rmSync(temporary, { force: true });
			throw toFsError(error, "platform.memory-make");
		}
	}
}
