/**
 * The notifier thread of one `/dev/fuse` descriptor: a notification can block for as long as a request on the same inode is unanswered, so
 * nobody who answers may write one (own-files.ts).
 */
import { writeSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import { letGoOfFiles } from "./own-files.ts";

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

letGoOfFiles(fd);
parentPort?.on("message", (notification: Notification) => {
	const done: NotificationDone = { id: notification.id, code: send(notification.bytes) };
	parentPort?.postMessage(done);
});
