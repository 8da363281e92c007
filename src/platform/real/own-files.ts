/**
 * Threads that may have to wait in the kernel for longer than their process lives: for an answer of their own process or of its successor, or for a disk that hangs. Such a thread cannot be killed before that
 * answer, and what it has open stays open; the successor waits for its disks' locks, and the keeper for the end of its connection. So these threads keep nothing of the rest of the process.
 */
import { openSync, readdirSync, readlinkSync } from "node:fs";
import { libc } from "./fuse-libc.ts";

/**
 * The calling thread gets a table of descriptors of its own, without files, devices and sockets of the process, but with `kept`; threads wake each other through the rest. Whoever opens files in such a thread
 * must use them in that thread alone, and reach them through `/proc/thread-self`.
 */
export function letGoOfFiles(kept: number | undefined): void {
	if (libc().unshareFiles() < 0) return;
	// A handler would write to a descriptor of the process, and meet another file in its place.
	libc().blockSignals();
	// The runtime may write to what it has open from any thread (the symbols of a profile, a trace): no file of ours may ever get such a number either.
	const nothing = openSync("/dev/null", "r+");
	for (const name of readdirSync("/proc/thread-self/fd")) {
		const one = Number(name);
		try {
			const target = readlinkSync(`/proc/thread-self/fd/${name}`);
			if (one <= 2) replaceStandard(one, target);
			else if (one !== kept && one !== nothing && /^(\/|socket:)/.test(target)) libc().replace(one, nothing);
		} catch {
			// The descriptor with which the folder was listed.
		}
	}
}

/** Last words of the runtime go to these numbers: no file of ours may ever get one. A log or a terminal may stay, nobody waits for its end. */
function replaceStandard(one: number, target: string): void {
	if (target.startsWith("/")) return;
	libc().close(one);
	openSync("/dev/null", "r+");
}
