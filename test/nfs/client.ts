/** A client of NFS version 3 and its side protocols, written from RFC 1813 for tests: it checks every reply to its last word. */
import assert from "node:assert/strict";
import { Deferred } from "../../src/base/async.ts";
import { bytesToLatin1, concatBytes } from "../../src/base/bytes.ts";
import { FsError } from "../../src/base/errors.ts";
import type { Timestamp } from "../../src/base/time.ts";
import type { XdrReader, XdrWriter } from "../../src/codec/xdr.ts";
import { RecordReader, recordMark } from "../../src/doors/nfs/record-marking.ts";
import { beginCall, type Credential, decodeReply, type RpcReply } from "../../src/doors/nfs/rpc.ts";
import type { Network, TcpConnection } from "../../src/platform/interface.ts";

export interface Attributes3 {
	readonly type: number;
	readonly mode: number;
	readonly nlink: number;
	readonly uid: number;
	readonly gid: number;
	readonly size: number;
	readonly used: number;
	readonly major: number;
	readonly minor: number;
	readonly fsid: string;
	readonly fileid: number;
	readonly atime: Timestamp;
	readonly mtime: Timestamp;
	readonly ctime: Timestamp;
}

export interface Wcc {
	readonly before: { readonly size: number; readonly mtime: Timestamp; readonly ctime: Timestamp } | undefined;
	readonly after: Attributes3 | undefined;
}

export interface Set3 {
	readonly mode?: number;
	readonly uid?: number;
	readonly gid?: number;
	readonly size?: number;
	readonly atime?: Timestamp | "server";
	readonly mtime?: Timestamp | "server";
}

export interface Entry3 {
	readonly fileid: number;
	readonly name: string;
	readonly cookie: number;
	readonly attributes?: Attributes3 | undefined;
	readonly handle?: Uint8Array | undefined;
}

export type Made = {
	readonly status: number;
	readonly handle?: Uint8Array | undefined;
	readonly attributes?: Attributes3 | undefined;
	readonly directory: Wcc;
};

export const asUser = (uid: number, gid = uid, groups: readonly number[] = []): Credential => ({
	flavor: "sys",
	machineName: "test",
	uid,
	gid,
	groups,
});

const nfs = 100003;
const mountd = 100005;

function readTime(r: XdrReader): Timestamp {
	return { seconds: r.u32(), nanoseconds: r.u32() };
}

function readAttributes(r: XdrReader): Attributes3 {
	return {
		type: r.u32(),
		mode: r.u32(),
		nlink: r.u32(),
		uid: r.u32(),
		gid: r.u32(),
		size: r.u64(),
		used: r.u64(),
		major: r.u32(),
		minor: r.u32(),
		fsid: `${r.u32()}:${r.u32()}`,
		fileid: r.u64(),
		atime: readTime(r),
		mtime: readTime(r),
		ctime: readTime(r),
	};
}

const readPost = (r: XdrReader): Attributes3 | undefined => (r.bool() ? readAttributes(r) : undefined);
const readPostHandle = (r: XdrReader): Uint8Array | undefined => (r.bool() ? r.opaque(64).slice() : undefined);

function readWcc(r: XdrReader): Wcc {
	const before = r.bool() ? { size: r.u64(), mtime: readTime(r), ctime: readTime(r) } : undefined;
	return { before, after: readPost(r) };
}

/** Beyond 2^53 too. */
const write64 = (w: XdrWriter, value: number): XdrWriter => w.u32(Math.floor(value / 2 ** 32)).u32(value % 2 ** 32);

function writeSet(w: XdrWriter, set: Set3): void {
	for (const value of [set.mode, set.uid, set.gid]) {
		w.bool(value !== undefined);
		if (value !== undefined) w.u32(value);
	}
	w.bool(set.size !== undefined);
	if (set.size !== undefined) write64(w, set.size);
	for (const time of [set.atime, set.mtime]) {
		w.u32(time === undefined ? 0 : time === "server" ? 1 : 2);
		if (typeof time === "object") w.u32(time.seconds).u32(time.nanoseconds);
	}
}

export class NfsClient {
	credential: Credential;
	readonly connection: TcpConnection;
	readonly #waiting = new Map<number, Deferred<Uint8Array>>();
	#xid: number;
	#closed = false;

	constructor(connection: TcpConnection, credential: Credential, firstXid: number) {
		this.connection = connection;
		this.credential = credential;
		this.#xid = firstXid;
		const reader = new RecordReader((record) => {
			const xid = new DataView(record.buffer, record.byteOffset, 4).getUint32(0);
			this.#waiting.get(xid)?.resolve(record);
			this.#waiting.delete(xid);
		});
		connection.onData((bytes) => reader.feed(bytes));
		connection.onClose(() => {
			this.#closed = true;
			for (const one of this.#waiting.values()) one.reject(new FsError("ENOTCONN", "test.closed", "the server has closed the connection"));
			this.#waiting.clear();
		});
	}

	static async connect(network: Network, port: number, credential: Credential, firstXid = 1000): Promise<NfsClient> {
		return new NfsClient(await network.connectTcp({ address: "127.0.0.1", port }), credential, firstXid);
	}

	get closed(): boolean {
		return this.#closed;
	}

	close(): void {
		this.connection.destroy();
	}

	message(program: number, version: number, procedure: number, write: (w: XdrWriter) => void, xid = this.#xid++): Uint8Array {
		const writer = beginCall({ xid, program, version, procedure, credential: this.credential });
		write(writer);
		return writer.finish().slice();
	}

	/** Sends a whole message; its xid is in it. */
	async send(message: Uint8Array): Promise<RpcReply> {
		const xid = new DataView(message.buffer, message.byteOffset, 4).getUint32(0);
		const answer = new Deferred<Uint8Array>();
		this.#waiting.set(xid, answer);
		// It may fail while the call is still on its way.
		answer.promise.catch(() => {});
		await this.connection.writeParts([recordMark(message.length), message]);
		return decodeReply(await answer.promise);
	}

	async raw(program: number, version: number, procedure: number, write: (w: XdrWriter) => void = () => {}): Promise<RpcReply> {
		return this.send(this.message(program, version, procedure, write));
	}

	/** The results of a call that was accepted, read to the end. */
	async call<T>(program: number, version: number, procedure: number, write: (w: XdrWriter) => void, read: (r: XdrReader) => T): Promise<T> {
		const reply = await this.raw(program, version, procedure, write);
		assert.equal(reply.status, 0, `procedure ${procedure} of ${program}: accepted (auth ${reply.authStatus})`);
		const result = read(reply.reader);
		reply.reader.end();
		return result;
	}

	#nfs<T>(
		procedure: number,
		write: (w: XdrWriter) => void,
		read: (r: XdrReader, status: number) => T,
	): Promise<T & { readonly status: number }> {
		return this.call(nfs, 3, procedure, write, (r) => {
			const status = r.u32();
			return { status, ...read(r, status) };
		});
	}

	// ── MOUNT ──

	mount(path: string) {
		return this.call(
			mountd,
			3,
			1,
			(w) => w.text(path),
			(r) => {
				const status = r.u32();
				if (status !== 0) return { status, handle: new Uint8Array(0), flavors: [] as number[] };
				const handle = r.opaque(64).slice();
				return { status, handle, flavors: Array.from({ length: r.u32() }, () => r.u32()) };
			},
		);
	}

	mounts() {
		return this.call(
			mountd,
			3,
			2,
			() => {},
			(r) => {
				const found: string[] = [];
				while (r.bool()) found.push(`${r.text(255)}:${r.text(1024)}`);
				return found;
			},
		);
	}

	unmount(path?: string) {
		return this.call(
			mountd,
			3,
			path === undefined ? 4 : 3,
			(w) => (path === undefined ? w : w.text(path)),
			() => {},
		);
	}

	exports() {
		return this.call(
			mountd,
			3,
			5,
			() => {},
			(r) => {
				const found: { path: string; groups: string[] }[] = [];
				while (r.bool()) {
					const path = r.text(1024);
					const groups: string[] = [];
					while (r.bool()) groups.push(r.text(255));
					found.push({ path, groups });
				}
				return found;
			},
		);
	}

	// ── NFS ──

	getattr(handle: Uint8Array) {
		return this.#nfs(
			1,
			(w) => w.opaque(handle),
			(r, status) => ({ attributes: status === 0 ? readAttributes(r) : undefined }),
		);
	}

	setattr(handle: Uint8Array, set: Set3, guard?: Timestamp) {
		const write = (w: XdrWriter): void => {
			writeSet(w.opaque(handle), set);
			w.bool(guard !== undefined);
			if (guard) w.u32(guard.seconds).u32(guard.nanoseconds);
		};
		return this.#nfs(2, write, (r) => readWcc(r));
	}

	lookup(directory: Uint8Array, name: string) {
		return this.#nfs(
			3,
			(w) => w.opaque(directory).text(name),
			(r, status) => {
				const handle = status === 0 ? r.opaque(64).slice() : new Uint8Array(0);
				const attributes = status === 0 ? readPost(r) : undefined;
				return { handle, attributes, directory: readPost(r) };
			},
		);
	}

	access(handle: Uint8Array, bits: number) {
		return this.#nfs(
			4,
			(w) => w.opaque(handle).u32(bits),
			(r, status) => ({ attributes: readPost(r), bits: status === 0 ? r.u32() : 0 }),
		);
	}

	readlink(handle: Uint8Array) {
		return this.#nfs(
			5,
			(w) => w.opaque(handle),
			(r, status) => ({ attributes: readPost(r), target: status === 0 ? r.text(4096) : "" }),
		);
	}

	read(handle: Uint8Array, offset: number, count: number) {
		return this.#nfs(
			6,
			(w) => write64(w.opaque(handle), offset).u32(count),
			(r, status) => {
				const attributes = readPost(r);
				if (status !== 0) return { attributes, eof: false, data: new Uint8Array(0) };
				const length = r.u32();
				const eof = r.bool();
				const data = r.opaque(1 << 20).slice();
				assert.equal(data.length, length);
				return { attributes, eof, data };
			},
		);
	}

	write(handle: Uint8Array, offset: number, data: Uint8Array, how: 0 | 1 | 2) {
		return this.#nfs(
			7,
			(w) => write64(w.opaque(handle), offset).u32(data.length).u32(how).opaque(data),
			(r, status) => {
				const wcc = readWcc(r);
				if (status !== 0) return { ...wcc, count: 0, committed: -1, verifier: "" };
				return { ...wcc, count: r.u32(), committed: r.u32(), verifier: bytesToLatin1(r.fixed(8)) };
			},
		);
	}

	#readMade(r: XdrReader, status: number): Omit<Made, "status"> {
		if (status !== 0) return { directory: readWcc(r) };
		return { handle: readPostHandle(r), attributes: readPost(r), directory: readWcc(r) };
	}

	/** UNCHECKED, GUARDED, or EXCLUSIVE with a verifier. */
	create(directory: Uint8Array, name: string, how: "unchecked" | "guarded" | Uint8Array, set: Set3 = {}): Promise<Made> {
		const write = (w: XdrWriter): void => {
			w.opaque(directory).text(name);
			if (typeof how !== "string") w.u32(2).fixed(how);
			else writeSet(w.u32(how === "guarded" ? 1 : 0), set);
		};
		return this.#nfs(8, write, (r, status) => this.#readMade(r, status));
	}

	mkdir(directory: Uint8Array, name: string, set: Set3 = { mode: 0o755 }): Promise<Made> {
		return this.#nfs(
			9,
			(w) => writeSet(w.opaque(directory).text(name), set),
			(r, status) => this.#readMade(r, status),
		);
	}

	symlink(directory: Uint8Array, name: string, target: string): Promise<Made> {
		const write = (w: XdrWriter): void => {
			writeSet(w.opaque(directory).text(name), { mode: 0o777 });
			w.text(target);
		};
		return this.#nfs(10, write, (r, status) => this.#readMade(r, status));
	}

	mknod(directory: Uint8Array, name: string, type: number, set: Set3, device?: readonly [number, number]): Promise<Made> {
		const write = (w: XdrWriter): void => {
			w.opaque(directory).text(name).u32(type);
			if ([3, 4, 6, 7].includes(type)) writeSet(w, set);
			if (device) w.u32(device[0]).u32(device[1]);
		};
		return this.#nfs(11, write, (r, status) => this.#readMade(r, status));
	}

	remove(directory: Uint8Array, name: string) {
		return this.#nfs(
			12,
			(w) => w.opaque(directory).text(name),
			(r) => readWcc(r),
		);
	}

	rmdir(directory: Uint8Array, name: string) {
		return this.#nfs(
			13,
			(w) => w.opaque(directory).text(name),
			(r) => readWcc(r),
		);
	}

	rename(from: Uint8Array, name: string, to: Uint8Array, newName: string) {
		return this.#nfs(
			14,
			(w) => w.opaque(from).text(name).opaque(to).text(newName),
			(r) => ({ from: readWcc(r), to: readWcc(r) }),
		);
	}

	link(handle: Uint8Array, directory: Uint8Array, name: string) {
		return this.#nfs(
			15,
			(w) => w.opaque(handle).opaque(directory).text(name),
			(r) => ({ attributes: readPost(r), directory: readWcc(r) }),
		);
	}

	readdir(directory: Uint8Array, cookie: number, verifier: Uint8Array, count: number) {
		const write = (w: XdrWriter) => write64(w.opaque(directory), cookie).fixed(verifier).u32(count);
		return this.#nfs(16, write, (r, status) => this.#readEntries(r, status, false));
	}

	readdirplus(directory: Uint8Array, cookie: number, verifier: Uint8Array, dirCount: number, maxCount: number) {
		const write = (w: XdrWriter) => write64(w.opaque(directory), cookie).fixed(verifier).u32(dirCount).u32(maxCount);
		return this.#nfs(17, write, (r, status) => this.#readEntries(r, status, true));
	}

	#readEntries(r: XdrReader, status: number, plus: boolean) {
		const start = r.offset;
		const attributes = readPost(r);
		const entries: Entry3[] = [];
		if (status !== 0) return { attributes, entries, eof: false, verifier: new Uint8Array(8), bytes: 0 };
		const verifier = r.fixed(8).slice();
		while (r.bool()) {
			const entry = { fileid: r.u64(), name: r.text(255), cookie: r.u64() };
			entries.push(plus ? { ...entry, attributes: readPost(r), handle: readPostHandle(r) } : entry);
		}
		const eof = r.bool();
		return { attributes, entries, eof, verifier, bytes: r.offset - start };
	}

	/** All entries, in pages. */
	async list(directory: Uint8Array, pageBytes = 4096): Promise<Entry3[]> {
		const all: Entry3[] = [];
		let verifier = new Uint8Array(8);
		for (;;) {
			const page = await this.readdirplus(directory, all.at(-1)?.cookie ?? 0, verifier, pageBytes, pageBytes);
			assert.equal(page.status, 0);
			assert.ok(page.bytes <= pageBytes, `a reply of ${page.bytes} bytes where ${pageBytes} were asked for`);
			all.push(...page.entries);
			verifier = page.verifier;
			if (page.eof) return all;
			assert.ok(page.entries.length > 0, "a page without an end has entries");
		}
	}

	fsstat(handle: Uint8Array) {
		return this.#nfs(
			18,
			(w) => w.opaque(handle),
			(r, status) => {
				const attributes = readPost(r);
				const figures = status === 0 ? Array.from({ length: 6 }, () => r.u64()) : [];
				return { attributes, figures, invarSeconds: status === 0 ? r.u32() : 0 };
			},
		);
	}

	fsinfo(handle: Uint8Array) {
		return this.#nfs(
			19,
			(w) => w.opaque(handle),
			(r, status) => {
				const attributes = readPost(r);
				if (status !== 0)
					return { attributes, words: [] as number[], maxFileSize: 0, delta: { seconds: 0, nanoseconds: 0 }, properties: 0 };
				const words = Array.from({ length: 7 }, () => r.u32());
				return { attributes, words, maxFileSize: r.u64(), delta: readTime(r), properties: r.u32() };
			},
		);
	}

	pathconf(handle: Uint8Array) {
		return this.#nfs(
			20,
			(w) => w.opaque(handle),
			(r, status) => {
				const attributes = readPost(r);
				const values = status === 0 ? [r.u32(), r.u32(), r.bool(), r.bool(), r.bool(), r.bool()] : [];
				return { attributes, values };
			},
		);
	}

	commit(handle: Uint8Array, offset = 0, count = 0) {
		return this.#nfs(
			21,
			(w) => write64(w.opaque(handle), offset).u32(count),
			(r, status) => ({
				...readWcc(r),
				verifier: status === 0 ? bytesToLatin1(r.fixed(8)) : "",
			}),
		);
	}

	async readAll(handle: Uint8Array, pieceBytes = 1 << 20): Promise<Uint8Array> {
		const parts: Uint8Array[] = [];
		for (let at = 0; ; ) {
			const { status, data, eof } = await this.read(handle, at, pieceBytes);
			assert.equal(status, 0);
			parts.push(data);
			at += data.length;
			if (eof) return concatBytes(parts);
			assert.ok(data.length > 0);
		}
	}
}
