/**
 * Files behind a mount that the kernel reads by itself (FUSE passthrough).
 *
 * Who has such a file open cannot be asked for directly: opens that the kernel makes for a mount, and mappings that outlive their open file, are in no list of this process. A write lease (fcntl(2), F_SETLEASE) tells: it is
 * granted to the only one who has the file open, and refused to everybody else.
 */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { FsError, toFsError } from "../../base/errors.ts";
import type { ErrorCode } from "../../base/errors.ts";
import type { FuseBackings } from "../interface.ts";
import { backingCalls } from "./fuse-libc.ts";

/** fuse.h: `_IOW(229, 1, struct fuse_backing_map)` {i32 fd, u32 flags, u64 padding}, `_IOW(229, 2, u32)`. */
const backingOpen = 0x4010_e501;
const backingClose = 0x4004_e502;

/** `<linux/fcntl.h>`. */
const setLease = 1024;
const setSignal = 10;
const writeLease = 1;
const noLease = 2;
/** Ignored unless somebody asks for it; the usual one, SIGIO, would end the process if somebody opened the file in the moment of the lease. */
const signalUrgent = 23;

const errnoNames: Readonly<Record<number, ErrorCode>> = {
	1: "EPERM",
	2: "ENOENT",
	9: "EBADF",
	19: "ENODEV",
	22: "EINVAL",
	107: "ENOTCONN",
};
/** ENOTTY: a kernel before 6.9; EOPNOTSUPP, ELOOP: the file's file system lies on others itself. */
const cannot: ReadonlySet<number> = new Set([25, 40, 95]);
const noEntry = 2;

export class RealBackings implements FuseBackings {
	readonly #connection: number;
	readonly #isClosed: () => boolean;

	/** `isClosed`: the descriptor may be another file's. */
	constructor(connection: number, isClosed: () => boolean) {
		this.#connection = connection;
		this.#isClosed = isClosed;
	}

	open(path: string): Promise<number> {
		return withFile(path, 0, async (fd) => {
			const map = new Uint8Array(16);
			new DataView(map.buffer).setInt32(0, fd, true);
			const number = await this.#ioctl(backingOpen, map);
			if (number > 0) return number;
			const code = cannot.has(-number) ? "ENOTSUP" : (errnoNames[-number] ?? "EIO");
			const message = `the kernel does not take ${path} for a file behind a mount: errno ${-number}`;
			throw new FsError(code, "platform.backing-open", message, { path });
		});
	}

	async close(number: number): Promise<void> {
		const argument = new Uint8Array(4);
		new DataView(argument.buffer).setUint32(0, number, true);
		const result = await this.#ioctl(backingClose, argument);
		if (result === 0 || result === -noEntry) return;
		throw new FsError(errnoNames[-result] ?? "EIO", "platform.backing-close", `the kernel keeps backing file ${number}: errno ${-result}`);
	}

	/** Opened past the page cache (O_DIRECT): programs may open the file so through the mount, and would get an error where its file system cannot. */
	async inUse(path: string): Promise<boolean> {
		return withFile(path, constants.O_DIRECT, async (fd) => {
			const { fcntl } = backingCalls();
			if ((await fcntl(fd, setSignal, signalUrgent)) < 0 || (await fcntl(fd, setLease, writeLease)) < 0) return true;
			await fcntl(fd, setLease, noLease);
			return false;
		});
	}

	async #ioctl(request: number, argument: Uint8Array): Promise<number> {
		if (this.#isClosed()) throw new FsError("ENOTCONN", "platform.backing-closed", "this FUSE connection is closed");
		return backingCalls().ioctl(this.#connection, request, argument);
	}
}

async function withFile<T>(path: string, flags: number, use: (fd: number) => Promise<T>): Promise<T> {
	try {
		const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | flags);
		try {
			return await use(file.fd);
		} finally {
			await file.close();
		}
	} catch (error) {
		throw toFsError(error, "platform.backing");
	}
}
