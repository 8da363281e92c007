/** One umount(2): it waits until the file system's server has answered its last request (own-files.ts). */
import { parentPort, workerData } from "node:worker_threads";
import { libc } from "./fuse-libc.ts";
import { letGoOfFiles } from "./own-files.ts";

export interface Unmount {
	/** NUL-terminated. */
	readonly target: Uint8Array;
	readonly flags: number;
}

const { target, flags } = workerData as Unmount;
letGoOfFiles(undefined);
parentPort?.postMessage(libc().umountNow(target, flags));
