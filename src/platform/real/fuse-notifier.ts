/**
 * The notifier thread of one `/dev/fuse` descriptor: a notification can block for as long as a request on the same inode is unanswered, so
 * nobody who answers may write one.
 *
 * Such a thread cannot be killed before that answer, and what it has open stays open. The answer may have to come from a successor of this process, which waits for its disks' locks and for the end of its
 * connection to the keeper: so this thread keeps nothing of that.
 */
import { closeSync, readdirSync, readlinkSync, writeSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import { libc } from "./fuse-libc.ts";

export interface Notification {
	readonly id: number;
	readonly bytes: Uint8Array;
}

export interface NotificationDone {
	readonly id: number;
	/** errno name, undefined when the kernel took it. */
	readonly code: string | undefined;
}

const { fd } = workerData as { readonly fd: number };

/** Files, devices and sockets of the process are none of this thread's; threads wake each other through the rest. */
function letGoOfOthers(): void {
	if (libc().unshareFiles() < 0) return;
	for (const name of readdirSync("/proc/thread-self/fd")) {
		const one = Number(name);
		try {
			if (one !== fd && /^(\/|socket:)/.test(readlinkSync(`/proc/thread-self/fd/${name}`))) closeSync(one);
		} catch {
			// The descriptor with which the folder was listed.
		}
	}
}

function send(bytes: Uint8Array): string | undefined {
	for (;;) {
		try {
			writeSync(fd, bytes);
			return undefined;
		} catch (error) {
			const code = (error as { code?: string }).code ?? "EIO";
			if (code !== "EINTR") return code;
		}
	}
}

letGoOfOthers();
parentPort?.on("message", (notification: Notification) => {
	const done: NotificationDone = { id: notification.id, code: send(notification.bytes) };
	parentPort?.postMessage(done);
});
