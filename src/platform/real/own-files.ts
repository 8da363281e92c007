/**
 * Threads that wait in the kernel for an answer of their own process, or of its successor. Such a thread cannot be killed before that answer, and what it has open stays open; the successor waits for its
 * disks' locks and for the end of its connection to the keeper. So these threads keep nothing of that.
 */
import { closeSync, readdirSync, readlinkSync } from "node:fs";
import { libc } from "./fuse-libc.ts";

/** The calling thread gets a table of descriptors of its own, without files, devices and sockets of the process, but with `kept`; threads wake each other through the rest. */
export function letGoOfFiles(kept: number | undefined): void {
	if (libc().unshareFiles() < 0) return;
	for (const name of readdirSync("/proc/thread-self/fd")) {
		const one = Number(name);
		try {
			if (one !== kept && /^(\/|socket:)/.test(readlinkSync(`/proc/thread-self/fd/${name}`))) closeSync(one);
		} catch {
			// The descriptor with which the folder was listed.
		}
	}
}
