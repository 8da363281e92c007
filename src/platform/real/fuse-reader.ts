/** The reader thread of one `/dev/fuse` descriptor (non-blocking): kernel → ring. Ends when the connection is over or when told to. */
import { workerData } from "node:worker_threads";
import { libc, pollErr, pollFdBytes, pollHup, pollIn } from "./fuse-libc.ts";
import type { Libc } from "./fuse-libc.ts";
import { maxRequestBytes } from "./fuse-limits.ts";
import { RingProducer } from "./fuse-ring.ts";

export interface ReaderData {
	readonly ring: SharedArrayBuffer;
	readonly fd: number;
	/** An eventfd that becomes readable when the thread shall end, or look at what it is asked. */
	readonly stopFd: number;
}

const errno = { EINTR: 4, ENOENT: 2, EAGAIN: 11 } as const;

/** Waits until the device has something to say. */
function waitForRequest(calls: Libc, fds: Uint8Array): void {
	const result = calls.poll(fds, 2, -1);
	// EINTR and a readable stopFd both lead back to the loop, which looks at the ring's stop word.
	if (result < 0 && result !== -errno.EINTR) throw new Error(`poll of /dev/fuse failed with errno ${-result}`);
}

function pollFds(fd: number, stopFd: number): Uint8Array {
	const fds = new Uint8Array(2 * pollFdBytes);
	const view = new DataView(fds.buffer);
	view.setInt32(0, fd, true);
	view.setInt16(4, pollIn | pollErr | pollHup, true);
	view.setInt32(pollFdBytes, stopFd, true);
	view.setInt16(pollFdBytes + 4, pollIn, true);
	return fds;
}

/** Returns the errno that ended the connection, or 0 when told to stop. */
function run(data: ReaderData): number {
	const producer = new RingProducer(data.ring, maxRequestBytes);
	try {
		const calls = libc();
		const result = pump(calls, producer, data, pollFds(data.fd, data.stopFd));
		producer.end(result);
		return result;
	} catch (error) {
		producer.end(5);
		throw error;
	}
}

/** The eventfd is readable, as poll(2) has said. */
function wasCalled(fds: Uint8Array): boolean {
	return fds[pollFdBytes + 6] !== 0;
}

function pump(calls: Libc, producer: RingProducer, { fd, stopFd }: ReaderData, fds: Uint8Array): number {
	const word = new Uint8Array(8);
	for (;;) {
		producer.standAside();
		const room = producer.reserve();
		if (room === undefined) return 0;
		const count = calls.read(fd, room, maxRequestBytes);
		if (count > 0) producer.publish(count);
		else if (count === -errno.EAGAIN) {
			producer.polling(true);
			waitForRequest(calls, fds);
			producer.polling(false);
			if (wasCalled(fds) && !producer.stopped) calls.read(stopFd, word, word.length);
		}
		// ENOENT: the request was interrupted before it could be read. Anything else is the end: ENODEV unmounted, ECONNABORTED aborted.
		else if (count !== -errno.EINTR && count !== -errno.ENOENT) return count === 0 ? 19 : -count;
	}
}

run(workerData as ReaderData);
