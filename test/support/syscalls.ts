/** System calls that node:fs does not have, for tests that work on a mount. Synchronous: only for processes that do not serve the mount. */
import koffi from "koffi";

const library = koffi.load("libc.so.6");
const calls = {
	fallocate: library.func("int fallocate(int fd, int mode, int64_t offset, int64_t length)"),
	posixFadvise: library.func("int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)"),
	lseek: library.func("int64_t lseek(int fd, int64_t offset, int whence)"),
	copyFileRange: library.func(
		"int64_t copy_file_range(int from, _Inout_ int64_t *fromOffset, int to, _Inout_ int64_t *toOffset, size_t length, unsigned int flags)",
	),
	mmap: library.func("void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)"),
	munmap: library.func("int munmap(void *address, size_t length)"),
	msync: library.func("int msync(void *address, size_t length, int flags)"),
	renameat2: library.func("int renameat2(int fromFolder, const char *from, int toFolder, const char *to, unsigned int flags)"),
	setxattr: library.func("int setxattr(const char *path, const char *name, const char *value, size_t length, int flags)"),
	ioctl: library.func("int ioctl(int fd, unsigned long request, int argument)"),
};

export class SystemError extends Error {
	readonly code: string;

	constructor(call: string) {
		const number = koffi.errno();
		const code = Object.entries(koffi.os.errno).find(([, value]) => value === number)?.[0] ?? `errno ${number}`;
		super(`${call}: ${code}`);
		this.code = code === "EOPNOTSUPP" ? "ENOTSUP" : code;
	}
}

export const falloc = { KEEP_SIZE: 1, PUNCH_HOLE: 2, COLLAPSE_RANGE: 8, ZERO_RANGE: 16, INSERT_RANGE: 32 } as const;

export function fallocate(fd: number, mode: number, offset: number, length: number): void {
	if (calls.fallocate(fd, mode, offset, length) !== 0) throw new SystemError("fallocate");
}

/** Lets the kernel forget clean pages of the file. */
export function dropPages(fd: number): void {
	calls.posixFadvise(fd, 0, 0, 4);
}

/**
 * undefined: ENXIO. Between the call and the look at errno the runtime may make calls of its own (memory): an unlikely error is asked for
 * again before it is believed.
 */
export function seek(fd: number, offset: number, what: "data" | "hole"): number | undefined {
	for (let attempt = 1; ; attempt++) {
		const found = Number(calls.lseek(fd, offset, what === "data" ? 3 : 4));
		if (found >= 0) return found;
		const error = new SystemError("lseek");
		if (error.code === "ENXIO") return undefined;
		if (attempt === 3) throw error;
	}
}

/** One call. */
export function copyFileRange(from: number, fromOffset: number, to: number, toOffset: number, length: number): number {
	const done = Number(calls.copyFileRange(from, [fromOffset], to, [toOffset], length, 0));
	if (done < 0) throw new SystemError("copy_file_range");
	return done;
}

/** RENAME_EXCHANGE. */
export function exchange(a: string, b: string): void {
	const atCurrentFolder = -100;
	if (calls.renameat2(atCurrentFolder, a, atCurrentFolder, b, 2) !== 0) throw new SystemError("renameat2");
}

export function setXattr(path: string, name: string, value: string, mode: "any" | "create" | "replace"): void {
	const flags = { any: 0, create: 1, replace: 2 }[mode];
	if (calls.setxattr(path, name, value, Buffer.byteLength(value), flags) !== 0) throw new SystemError("setxattr");
}

/** FICLONE. */
export function reflink(from: number, to: number): void {
	if (calls.ioctl(to, 0x4004_9409, from) !== 0) throw new SystemError("FICLONE");
}

/** A mapping of whole pages around [offset, offset + length). `bytes` are the range itself; valid until `close`. */
export class Mapped {
	readonly bytes: Uint8Array;
	readonly #pointer: unknown;
	readonly #length: number;

	constructor(fd: number, offset: number, length: number, kind: "shared" | "private" | "reading") {
		const start = offset - (offset % 4096);
		this.#length = offset + length - start;
		const pointer: unknown = calls.mmap(null, this.#length, kind === "reading" ? 1 : 3, kind === "private" ? 2 : 1, fd, start);
		if (pointer === null || BigInt.asIntN(64, pointer as bigint) === -1n) throw new SystemError("mmap");
		this.#pointer = pointer;
		this.bytes = new Uint8Array(koffi.view(pointer, this.#length), offset - start, length);
	}

	/** MS_SYNC. */
	sync(): void {
		if (calls.msync(this.#pointer, this.#length, 4) !== 0) throw new SystemError("msync");
	}

	close(): void {
		if (calls.munmap(this.#pointer, this.#length) !== 0) throw new SystemError("munmap");
	}
}
