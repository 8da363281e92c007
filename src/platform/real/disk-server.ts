/**
 * The side of a disk that runs in its thread: synchronous calls, one after the other.
 *
 * Invariants
 * 1. Files are reached through the directory that was opened (`/proc/thread-self/fd/N`), never through the path again: after an unmount or
 *    a rename nothing is created in whatever lies under the path now.
 * 2. A sync reports success only if the path still leads to that directory, with the same `superblock` if there was one, and the file
 *    has a name.
 * 3. A file whose sync failed once never syncs successfully again in this opening.
 * 4. `#named` holds the folders whose own names are known to be durable.
 */
import fs from "node:fs";
import { dirname } from "node:path";
import { receiveMessageOnPort } from "node:worker_threads";
import type { MessagePort } from "node:worker_threads";
import type { ErrorCode } from "../../base/errors.ts";
import { FsError } from "../../base/errors.ts";
import { type DiskCallMessage, type DiskReply, type DiskRequest, type DiskWorkerData, summed, vitals } from "./disk-protocol.ts";
import { DeviceServer, domainOfDevice, isRawDevice } from "./device-server.ts";
import { allocate, FileIdentity, forget, hasName, prefetch, punch, readExactly, statxRoom, tryLock } from "./libc.ts";
import { realLimits } from "./limits.ts";
import { type LaneAsked, LaneServer } from "./disk-lane.ts";

/** The file that tells one disk from another that is mounted in its place. */
const identityFile = "superblock";

const { O_RDONLY, O_RDWR, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_DIRECTORY } = fs.constants;

interface OpenFile {
	readonly fd: number;
	readonly name: string;
	/** Why it could only be opened for reading. */
	readonly readOnly: "EROFS" | "EACCES" | undefined;
	/** Removed through this disk. */
	removed: boolean;
}

interface Identity {
	readonly dev: bigint;
	readonly ino: bigint;
}

export class DiskServer {
	readonly #path: string;
	#root = -1;
	#rootIdentity: Identity | undefined;
	#fileIdentity: Identity | undefined;
	/** The same, as what costs little to compare. */
	#rootSeen: FileIdentity | undefined;
	#fileSeen: FileIdentity | undefined;
	readonly #rootPath: Uint8Array;
	readonly #filePath: Uint8Array;
	readonly #room = statxRoom();
	#files = new Map<number, OpenFile>();
	#nextHandle = 1;
	#named = new Set<string>();
	#rootNamed = false;
	#syncFailed = new Set<string>();

	constructor(path: string) {
		this.#path = path;
		this.#rootPath = Buffer.from(`${path}\0`);
		this.#filePath = Buffer.from(`${path}/${identityFile}\0`);
	}

	/** As the call `read`, without an object for it. */
	readAt(handle: number, offset: number, bytes: Uint8Array, lengthBytes: number): number {
		return readInto(this.#file(handle), offset, bytes, lengthBytes);
	}

	/** As the call `write`. */
	writeAt(handle: number, offset: number, bytes: Uint8Array, lengthBytes: number): void {
		const { fd } = this.#writable(this.#file(handle));
		for (let done = 0; done < lengthBytes; ) done += fs.writeSync(fd, bytes, done, lengthBytes - done, offset + done);
	}

	/** As the call `sync`. */
	syncFile(handle: number): void {
		this.#sync(this.#file(handle));
	}

	execute(request: DiskRequest): unknown {
		switch (request.kind) {
			case "openDisk":
				return this.#openDisk();
			case "lock":
				return this.#lock();
			case "open":
				return this.#open(request.name, request.create);
			case "list":
				return this.#list(request.folder);
			case "remove":
				return this.#remove(request.name);
			case "syncNames":
				return this.#syncNames(request.folder);
			case "setAside":
				return this.#setAside(request.name, request.sizeBytes);
			case "space":
				return this.#space();
			case "probe":
				return this.#checkSameDisk();
			case "close":
				return this.#close();
			default:
				return this.#onFile(request, this.#file(request.handle));
		}
	}

	/** Reads that came together are asked of the device together; answered they are one after the other. */
	expect(handle: number, offset: number, lengthBytes: number): void {
		const file = this.#files.get(handle);
		if (file !== undefined && lengthBytes <= realLimits.expectedReadBytes) prefetch(file.fd, offset, lengthBytes);
	}

	#onFile(request: Extract<DiskRequest, { readonly handle: number }>, file: OpenFile): unknown {
		switch (request.kind) {
			case "read":
				return request.into === undefined
					? this.#read(file, request.offset, request.lengthBytes)
					: summed(request.into, readInto(file, request.offset, request.into, request.into.length), request.sumBlockBytes);
			case "write":
				return this.#write(this.#writable(file), request.offset, request.parts);
			case "sync":
				return this.#sync(file);
			case "discard":
				return this.#discard(this.#writable(file), request.offset, request.lengthBytes);
			case "uncache":
				return forget(file.fd, request.offset, request.lengthBytes);
			case "size":
				return fs.fstatSync(file.fd).size;
			case "held":
				return fs.fstatSync(file.fd).blocks * 512;
			case "truncate":
				return fs.ftruncateSync(this.#writable(file).fd, request.sizeBytes);
			case "closeFile":
				this.#files.delete(request.handle);
				return fs.closeSync(file.fd);
		}
	}

	#openDisk(): { readonly domain: string } {
		this.#root = this.#openRoot();
		const root = fs.fstatSync(this.#root, { bigint: true });
		this.#rootIdentity = root;
		this.#rootSeen = FileIdentity.of(this.#root);
		this.#fileIdentity = identityAt(this.#at(identityFile));
		return { domain: domainOfDevice(root.dev) };
	}

	#openRoot(): number {
		try {
			return fs.openSync(this.#path, O_RDONLY | O_DIRECTORY);
		} catch (error) {
			const code = codeOf(error);
			if (code !== "ENOENT" && code !== "ENOTDIR") throw error;
			const message =
				code === "ENOENT"
					? `${this.#path} does not exist: mount the disk there, or make the directory`
					: `${this.#path} is no disk: a disk is a directory, a block device, or a file that stands for one`;
			throw new FsError(code, "platform.disk-openDisk", message, { path: this.#path }, error);
		}
	}

	/** The lock is on the directory itself: a lock file could be deleted by somebody, and a second daemon would lock a new one. */
	#lock(): void {
		if (tryLock(this.#root, `the disk ${this.#path}`)) return;
		throw new FsError("EBUSY", "platform.disk-locked", `the disk ${this.#path} is in use by another daemon; stop that one first`, {
			path: this.#path,
		});
	}

	#open(name: string, create: boolean): number {
		const { fd, readOnly } = this.#openFile(name, create);
		const stat = fs.fstatSync(fd, { bigint: true });
		if (!stat.isFile()) {
			fs.closeSync(fd);
			throw new FsError("EINVAL", "platform.disk-open-kind", `${name} on the disk ${this.#path} is not a regular file; move it away`, {
				name,
			});
		}
		if (name === identityFile) {
			this.#fileIdentity ??= { dev: stat.dev, ino: stat.ino };
			if (same(stat, this.#fileIdentity)) this.#fileSeen ??= FileIdentity.of(fd);
		}
		readExactly(fd);
		const handle = this.#nextHandle++;
		this.#files.set(handle, { fd, name, readOnly, removed: false });
		return handle;
	}

	#openFile(name: string, create: boolean): Pick<OpenFile, "fd" | "readOnly"> {
		const common = O_NOFOLLOW | O_NONBLOCK;
		try {
			return { fd: fs.openSync(this.#at(name), O_RDWR | (create ? O_CREAT : 0) | common, 0o600), readOnly: undefined };
		} catch (error) {
			const code = codeOf(error);
			if (code === "EROFS" || code === "EACCES") return { fd: this.#openToRead(name, error), readOnly: code };
			if (code !== "ENOENT") throw error;
			this.#checkSameDisk();
			if (!create) throw new FsError("ENOENT", "platform.disk-open", `no file ${name} on the disk ${this.#path}`, { name });
		}
		this.#makeFolders(folderOf(name));
		return { fd: fs.openSync(this.#at(name), O_RDWR | O_CREAT | common, 0o600), readOnly: undefined };
	}

	/** Reading is all that `refused` leaves; where that fails too (there is no such file to read), it is what the caller hears. */
	#openToRead(name: string, refused: unknown): number {
		try {
			return fs.openSync(this.#at(name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
		} catch {
			throw refused;
		}
	}

	#makeFolders(folder: string): void {
		if (folder === "") return;
		this.#makeFolders(folderOf(folder));
		try {
			fs.mkdirSync(this.#at(folder), 0o700);
			this.#named.delete(folder);
		} catch (error) {
			if (codeOf(error) !== "EEXIST") throw error;
		}
	}

	#list(folder: string): string[] {
		try {
			const entries = fs.readdirSync(this.#at(folder), { withFileTypes: true });
			// A directory that was removed reads as an empty one.
			if (entries.length === 0) this.#checkSameDisk();
			return entries.map((entry) => (entry.isDirectory() ? `${entry.name}/` : entry.name)).sort();
		} catch (error) {
			if (codeOf(error) !== "ENOENT") throw error;
			this.#checkSameDisk();
			return [];
		}
	}

	#remove(name: string): void {
		try {
			fs.unlinkSync(this.#at(name));
		} catch (error) {
			if (codeOf(error) !== "ENOENT") throw error;
			this.#checkSameDisk();
		}
		if (name === identityFile) this.#fileIdentity = this.#fileSeen = undefined;
		this.#syncFailed.delete(name);
		for (const file of this.#files.values()) if (file.name === name) file.removed = true;
	}

	#syncNames(folder: string): void {
		let at = folder;
		while (!this.#syncFolder(at)) at = folderOf(at);
		const fresh: string[] = [];
		for (; at !== "" && !this.#named.has(at); at = folderOf(at)) {
			this.#syncFolder(folderOf(at));
			fresh.push(at);
		}
		this.#syncRootName();
		this.#checkSameDisk();
		for (const name of fresh) this.#named.add(name);
	}

	/** False when there is no such folder. */
	#syncFolder(folder: string): boolean {
		let fd: number;
		try {
			fd = fs.openSync(this.#at(folder), O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
		} catch (error) {
			if (folder === "" || codeOf(error) !== "ENOENT") throw error;
			return false;
		}
		try {
			fs.fsyncSync(fd);
		} finally {
			fs.closeSync(fd);
		}
		return true;
	}

	/** The directory may have been made a moment ago by the user. Its parent belongs to others, so failing is no reason to stop. */
	#syncRootName(): void {
		if (this.#rootNamed) return;
		this.#rootNamed = true;
		try {
			const fd = fs.openSync(dirname(this.#path), O_RDONLY | O_DIRECTORY);
			try {
				fs.fsyncSync(fd);
			} finally {
				fs.closeSync(fd);
			}
		} catch {
			// Not ours to read.
		}
	}

	/** Whether a file takes what its size says is asked of the file system each time: a copy of a disk may have left holes. */
	#setAside(name: string, sizeBytes: number): number {
		const handle = this.#open(name, true);
		const file = this.#file(handle);
		try {
			const { size, blocks } = fs.fstatSync(file.fd);
			const whole = blocks * 512 >= size ? size : 0;
			if (whole === size && size === sizeBytes) return size;
			if (sizeBytes < size) fs.ftruncateSync(this.#writable(file).fd, sizeBytes);
			const taken = whole >= sizeBytes ? sizeBytes : takeSpace(this.#writable(file).fd, whole, sizeBytes, `${name} on ${this.#path}`);
			// What was given up can be had by others when that is durable (ext4), and what was taken stays over a power cut.
			if (taken === size && whole === size) return taken;
			this.#sync(file);
			this.#syncNames(folderOf(name));
			return taken;
		} finally {
			this.#files.delete(handle);
			fs.closeSync(file.fd);
		}
	}

	#space(): { readonly capacityBytes: number; readonly freeBytes: number } {
		const stat = fs.statfsSync(this.#at(""));
		return { capacityBytes: stat.blocks * stat.bsize, freeBytes: stat.bavail * stat.bsize };
	}

	/** Closes all there is, the root with its lock last, whatever one of them says. */
	#close(): void {
		const failed: unknown[] = [];
		for (const fd of [...this.#files.values()].map((file) => file.fd).concat(this.#root)) {
			try {
				if (fd >= 0) fs.closeSync(fd);
			} catch (error) {
				failed.push(error);
			}
		}
		this.#files.clear();
		this.#root = -1;
		if (failed.length > 0) throw failed[0];
	}

	#read(file: OpenFile, offset: number, lengthBytes: number): Uint8Array {
		const buffer = Buffer.allocUnsafeSlow(lengthBytes);
		return new Uint8Array(buffer.buffer, 0, readInto(file, offset, buffer, lengthBytes));
	}

	#write(file: OpenFile, offset: number, parts: readonly Uint8Array[]): void {
		let at = offset;
		let rest = parts.filter((part) => part.length > 0);
		while (rest.length > 0) {
			const count = fs.writevSync(file.fd, rest.slice(0, realLimits.writeParts), at);
			at += count;
			rest = after(rest, count);
		}
	}

	#sync(file: OpenFile): void {
		if (this.#syncFailed.has(file.name)) {
			throw new FsError(
				"EIO",
				"platform.disk-sync-failed-before",
				`${file.name} on ${this.#path}: an earlier sync failed, what it holds is unknown`,
				{ name: file.name },
			);
		}
		try {
			fs.fdatasyncSync(file.fd);
		} catch (error) {
			this.#syncFailed.add(file.name);
			throw error;
		}
		if (file.removed) {
			throw new FsError("ENOENT", "platform.disk-sync-removed", `${file.name} on ${this.#path} was removed; syncing it protects nothing`, {
				name: file.name,
			});
		}
		if (!hasName(file.fd, this.#room) && fs.fstatSync(file.fd).nlink === 0) throw this.#gone(`${file.name} was removed by somebody else`);
		if (!this.#isSameDisk()) this.#checkSameDisk();
	}

	/** False too when that is not known without a closer look. */
	#isSameDisk(): boolean {
		if (this.#rootSeen?.isAt(this.#rootPath) !== true) return false;
		return this.#fileIdentity === undefined || this.#fileSeen?.isAt(this.#filePath) === true;
	}

	#discard(file: OpenFile, offset: number, lengthBytes: number): void {
		const size = fs.fstatSync(file.fd).size;
		punch(file.fd, offset, Math.max(0, Math.min(lengthBytes, size - offset)), `${file.name} on ${this.#path}`);
	}

	/** @throws FsError ENODEV. */
	#checkSameDisk(): void {
		if (this.#rootIdentity === undefined) throw this.#gone("it was never opened");
		const root = identityAt(this.#path);
		if (root === undefined) throw this.#gone("its directory is not there any more");
		if (!same(root, this.#rootIdentity)) throw this.#gone("another directory is in its place");
		if (this.#fileIdentity === undefined) return;
		const file = identityAt(`${this.#path}/${identityFile}`);
		if (file === undefined) throw this.#gone(`its ${identityFile} was removed`);
		if (!same(file, this.#fileIdentity)) throw this.#gone(`its ${identityFile} is another one`);
	}

	#gone(why: string): FsError {
		return new FsError("ENODEV", "platform.disk-gone", `the disk ${this.#path} is no longer the one that was opened: ${why}`, {
			path: this.#path,
		});
	}

	#file(handle: number): OpenFile {
		const file = this.#files.get(handle);
		if (file !== undefined) return file;
		throw new FsError("EBADF", "platform.disk-handle", `a file of the disk ${this.#path} was used after it was closed`, {
			path: this.#path,
		});
	}

	#writable(file: OpenFile): OpenFile {
		if (file.readOnly === undefined) return file;
		throw new FsError(file.readOnly, "platform.disk-read-only", `${file.name} on ${this.#path} could only be opened for reading`, {
			name: file.name,
		});
	}

	#at(name: string): string {
		return `/proc/thread-self/fd/${this.#root}/${name}`;
	}
}

/** As much of [from, to) as there is room for, and the file is as long as that afterwards. Answers its length. */
function takeSpace(fd: number, from: number, to: number, what: string): number {
	let end = from;
	for (let step = to - from; end < to && step >= realLimits.setAsideBytes; ) {
		const length = Math.min(step, to - end);
		if (takeRange(fd, end, length, what)) end += length;
		else step = Math.floor(length / 2);
	}
	// What a range that did not fit has taken of it.
	fs.ftruncateSync(fd, end);
	return end;
}

function takeRange(fd: number, offset: number, lengthBytes: number, what: string): boolean {
	const taken = allocate(fd, offset, lengthBytes, what);
	if (taken !== undefined) return taken;
	const zeros = new Uint8Array(realLimits.setAsideBytes);
	try {
		for (let at = 0; at < lengthBytes; ) at += fs.writeSync(fd, zeros, 0, Math.min(zeros.length, lengthBytes - at), offset + at);
		return true;
	} catch (error) {
		if (codeOf(error) === "ENOSPC" || codeOf(error) === "EDQUOT") return false;
		throw error;
	}
}

/**
 * Runs a disk on a thread's port until it is closed. `before` sees every request first: tests make it wait.
 *
 * The thread sleeps on its count of messages, not in its event loop, which gets its turn when the disk has been idle for a moment: the runtime tidies up in it.
 */
export function serveDisk(port: MessagePort, data: DiskWorkerData, before?: (request: DiskRequest) => void): void {
	const service = new Service(port, data, before);
	const told = data.vitals;
	Atomics.store(told, vitals.thread, threadNumber());
	let rests = true;
	const turn = (): void => {
		for (;;) {
			// Looked at first: what comes after the last message that was found rings again.
			const seen = Atomics.load(told, vitals.messages);
			if (service.drain()) rests = false;
			if (service.closed) return;
			if (Atomics.wait(told, vitals.messages, seen, rests ? undefined : realLimits.diskIdleMs) !== "timed-out") continue;
			rests = true;
			setImmediate(turn);
			return;
		}
	};
	setImmediate(turn);
}

/** Executes what comes through the port. */
class Service {
	closed = false;
	readonly #port: MessagePort;
	readonly #path: string;
	readonly #told: Int32Array;
	readonly #lane: LaneServer;
	readonly #before: ((request: DiskRequest) => void) | undefined;
	#server: DiskServer | DeviceServer | undefined;

	constructor(port: MessagePort, data: DiskWorkerData, before: ((request: DiskRequest) => void) | undefined) {
		this.#port = port;
		this.#path = data.path;
		this.#told = data.vitals;
		this.#lane = new LaneServer(data.lane);
		this.#before = before;
	}

	/** True when there was something. */
	drain(): boolean {
		let found = this.#serveLane();
		while (!this.closed) {
			const next = receiveMessageOnPort(this.#port) as { readonly message: readonly DiskCallMessage[] } | undefined;
			if (next === undefined) break;
			found = true;
			// Reads that were asked for before it are no later than it.
			this.#serveLane();
			this.#executeAll(next.message);
		}
		return found;
	}

	/** True when there was something. */
	#serveLane(): boolean {
		if (this.closed) return false;
		const first = this.#lane.next(0);
		if (first < 0) return false;
		// Reads that came together are asked of the device together.
		for (let slot = this.#lane.next(first + 1); slot >= 0; slot = this.#lane.next(slot + 1)) this.#expectOne(this.#lane.look(slot));
		for (let slot = first; slot >= 0; slot = this.#lane.next(slot + 1)) this.#serveSlot(slot);
		return true;
	}

	/**
	 * Without an object or a function for each step: a thread makes some hundred such calls before its code is compiled, and they are on
	 * the way of every small fsync and cold read.
	 */
	#serveSlot(slot: number): void {
		const server = this.#server;
		if (!(server instanceof DiskServer) || this.#before !== undefined) {
			this.#serveAsCalls(slot);
			return;
		}
		const told = this.#told;
		const asked = this.#lane.look(slot);
		let count = 0;
		let failed: DiskReply[] | undefined;
		Atomics.add(told, vitals.begun, 1);
		try {
			if (asked.reads) count = server.readAt(asked.handle, asked.offset, asked.bytes, asked.lengthBytes);
			else if (asked.writes) server.writeAt(asked.handle, asked.offset, asked.bytes, asked.lengthBytes);
			else server.syncFile(asked.handle);
		} catch (error) {
			failed = [failure(error, asked.reads ? "read" : asked.writes ? "write" : "sync", this.#path, -1 - slot)];
		}
		Atomics.add(told, vitals.finished, 1);
		if (asked.writes && asked.syncs) failed = this.#syncBehind(server, asked.handle, slot, failed);
		if (failed !== undefined) this.#failSlot(slot, failed);
		else if (this.#lane.answer(slot, count)) this.#port.postMessage([]);
	}

	/** The sync behind a write, which may have failed. The replies of both, if one of them failed. */
	#syncBehind(server: DiskServer, handle: number, slot: number, failedWrite: DiskReply[] | undefined): DiskReply[] | undefined {
		Atomics.add(this.#told, vitals.begun, 1);
		let replies = failedWrite;
		try {
			server.syncFile(handle);
			replies?.push({ id: -2 - slot, value: undefined });
		} catch (error) {
			replies ??= [{ id: -1 - slot, value: undefined }];
			replies.push(failure(error, "sync", this.#path, -2 - slot));
		}
		Atomics.add(this.#told, vitals.finished, 1);
		return replies;
	}

	/** By the way of messages: of a device, and where somebody wants to see each call first. */
	#serveAsCalls(slot: number): void {
		const replies: DiskReply[] = [];
		for (const request of this.#lane.requests(slot)) {
			Atomics.add(this.#told, vitals.begun, 1);
			this.#before?.(request);
			replies.push(answer(() => this.#execute(request), this.#path, -1 - slot - replies.length, request));
			Atomics.add(this.#told, vitals.finished, 1);
		}
		if (replies.some((reply) => "error" in reply)) {
			this.#failSlot(slot, replies);
			return;
		}
		const [first] = replies as readonly { readonly value: unknown }[];
		if (this.#lane.answer(slot, typeof first?.value === "number" ? first.value : 0)) this.#port.postMessage([]);
	}

	#failSlot(slot: number, replies: readonly DiskReply[]): void {
		this.#lane.fail(slot);
		this.#port.postMessage(replies);
	}

	#executeAll(calls: readonly DiskCallMessage[]): void {
		let replies: DiskReply[] = [];
		for (const [index, { id, request }] of calls.entries()) {
			Atomics.add(this.#told, vitals.begun, 1);
			if (index === 0) this.#expect(calls.map((call) => call.request));
			this.#before?.(request);
			const reply = answer(() => this.#execute(request), this.#path, id, request);
			Atomics.add(this.#told, vitals.finished, 1);
			replies.push(reply);
			// Who writes and then syncs waits for the sync: one message is enough.
			if (request.kind === "write" && calls[index + 1]?.request.kind === "sync") continue;
			const moved = "value" in reply && reply.value instanceof Uint8Array ? [reply.value.buffer as ArrayBuffer] : [];
			this.#port.postMessage(replies, moved);
			replies = [];
			if (request.kind === "close") this.closed = true;
		}
		if (this.closed) this.#port.close();
	}

	/** The first read is begun at once by itself. A device is read past the page cache, where nothing could be kept. */
	#expect(requests: readonly DiskRequest[]): void {
		const server = this.#server;
		if (!(server instanceof DiskServer)) return;
		for (const request of requests.slice(1))
			if (request.kind === "read") server.expect(request.handle, request.offset, request.lengthBytes);
	}

	#expectOne({ reads, handle, offset, lengthBytes }: LaneAsked): void {
		if (reads && this.#server instanceof DiskServer) this.#server.expect(handle, offset, lengthBytes);
	}

	#execute(request: DiskRequest): unknown {
		this.#server ??= isRawDevice(this.#path) ? new DeviceServer(this.#path) : new DiskServer(this.#path);
		return this.#server.execute(request);
	}
}

/** Of the calling thread, as /proc/self/task has it. */
function threadNumber(): number {
	return Number(fs.readlinkSync("/proc/thread-self").split("/").at(-1));
}

function answer(execute: () => unknown, path: string, id: number, request: DiskRequest): DiskReply {
	try {
		return { id, value: execute() };
	} catch (error) {
		return failure(error, request.kind, path, id);
	}
}

function failure(error: unknown, kind: DiskRequest["kind"], path: string, id: number): DiskReply {
	if (error instanceof FsError) return { id, error: { code: error.code, site: error.site, message: error.message, data: error.data } };
	const code = codeOf(error);
	const message = `${kind} on the disk ${path} failed: ${error instanceof Error ? error.message : String(error)}`;
	return { id, error: { code: errorCode(code), site: `platform.disk-${kind}`, message, data: { path, errno: code ?? "none" } } };
}

const passed: ReadonlySet<string> = new Set([
	"EPERM",
	"ENOENT",
	"EIO",
	"ENXIO",
	"EBADF",
	"EAGAIN",
	"ENOMEM",
	"EACCES",
	"EBUSY",
	"EEXIST",
	"ENODEV",
	"ENOTDIR",
	"EISDIR",
	"EINVAL",
	"EMFILE",
	"EFBIG",
	"ENOSPC",
	"EROFS",
	"ENAMETOOLONG",
	"ELOOP",
	"ESTALE",
	"ETIMEDOUT",
]);

function errorCode(code: string | undefined): ErrorCode {
	if (code === "EDQUOT") return "ENOSPC";
	if (code === "ENFILE") return "EMFILE";
	return code !== undefined && passed.has(code) ? (code as ErrorCode) : "EIO";
}

function codeOf(error: unknown): string | undefined {
	const code = (error as { code?: unknown } | null)?.code;
	return typeof code === "string" ? code : undefined;
}

/** undefined when there is nothing at the path. */
function identityAt(path: string): Identity | undefined {
	try {
		const { dev, ino } = fs.statSync(path, { bigint: true });
		return { dev, ino };
	} catch (error) {
		const code = codeOf(error);
		if (code === "ENOENT" || code === "ENOTDIR") return undefined;
		throw error;
	}
}

function same(a: Identity, b: Identity): boolean {
	return a.dev === b.dev && a.ino === b.ino;
}

function folderOf(name: string): string {
	const slash = name.lastIndexOf("/");
	return slash < 0 ? "" : name.slice(0, slash);
}

/** Fills the first `lengthBytes` of `bytes` as far as the file goes. */
function readInto(file: OpenFile, offset: number, bytes: Uint8Array, lengthBytes: number): number {
	let done = 0;
	while (done < lengthBytes) {
		const count = fs.readSync(file.fd, bytes, done, lengthBytes - done, offset + done);
		if (count === 0) break;
		done += count;
	}
	return done;
}

/** What is left of `parts` after `count` bytes were written. */
function after(parts: readonly Uint8Array[], count: number): Uint8Array[] {
	let left = count;
	for (const [index, part] of parts.entries()) {
		if (left < part.length) return [part.subarray(left), ...parts.slice(index + 1)];
		left -= part.length;
	}
	return [];
}
