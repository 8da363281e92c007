/**
 * The system calls that Node does not have, through koffi: mount, umount2, poll, eventfd, read without exceptions, and what loop devices
 * need. Linux only.
 */
import koffi from "koffi";

export const pollIn = 1;
export const pollErr = 8;
export const pollHup = 16;

/** mount(2) flags by the names of mount(8). */
export const mountFlags: Readonly<Record<string, number>> = {
	ro: 1,
	nosuid: 2,
	nodev: 4,
	noexec: 8,
	sync: 16,
	dirsync: 128,
	noatime: 1024,
	nodiratime: 2048,
	relatime: 1 << 21,
};
export const mntDetach = 2;
export const umountNoFollow = 8;

/** `struct pollfd` of x86-64 and arm64: i32 fd, i16 events, i16 revents. */
export const pollFdBytes = 8;

type AsyncCall = (error: Error | null, result: number) => void;

export interface Libc {
	/** Bytes read, or -errno. */
	read(fd: number, into: Uint8Array, lengthBytes: number): number;
	/** Other threads that wait for this processor run first (sched_yield(2)). */
	yield(): void;
	/** `attributes` is a `struct sched_attr`; 0 is the calling thread (sched_setattr(2)). 0 or -errno; -ENOSYS on machines whose number of the call is not known here. */
	schedule(thread: number, attributes: Uint8Array): number;
	/** Ready descriptors, or -errno. */
	poll(fds: Uint8Array, count: number, timeoutMs: number): number;
	/** A descriptor, or -errno. Blocking. */
	eventfd(): number;
	/** 0 or -errno, on a thread of the pool: it may need answers from the thread that calls. Strings are NUL-terminated bytes. */
	mount(source: Uint8Array, target: Uint8Array, type: Uint8Array, flags: number, data: Uint8Array): Promise<number>;
	umount(target: Uint8Array, flags: number): Promise<number>;
	/** On the calling thread, for what needs no answer of this process. */
	mountNow(source: Uint8Array, target: Uint8Array, type: Uint8Array, flags: number, data: Uint8Array): number;
	/** On the calling thread. */
	umountNow(target: Uint8Array, flags: number): number;
	/** The calling thread gets a table of descriptors of its own (unshare(2), CLONE_FILES). 0 or -errno. */
	unshareFiles(): number;
	/** Of a descriptor that node:fs has not opened in this thread: it would complain. 0 or -errno. */
	close(fd: number): number;
	/** `fd` becomes another name of what `by` is (dup3(2)), closed on exec. */
	replace(fd: number, by: number): number;
	/** The calling thread gets no signals any more, but for those that its own faults raise. 0 or an errno. */
	blockSignals(): number;
}

/** What loop devices need; each answers a result or -errno. Strings are NUL-terminated bytes. */
export interface DeviceCalls {
	/** On a thread of the pool: configuring a loop device waits for the kernel. `argument` is given as the pointer. */
	ioctl(fd: number, request: number, argument: Uint8Array | null): Promise<number>;
	/** A descriptor that is closed on exec. */
	memfd(name: Uint8Array): number;
	/** `mode` with the file type; `device` as `st_rdev`. */
	mknod(path: Uint8Array, mode: number, device: number): number;
}

/** What files behind a mount need; each answers a result or -errno, on a thread of the pool: the file system of the file may hang. */
export interface BackingCalls {
	/** `argument` is given as the pointer. */
	ioctl(fd: number, request: number, argument: Uint8Array): Promise<number>;
	fcntl(fd: number, command: number, argument: number): Promise<number>;
}

let loaded: Libc | undefined;

/** The library is the same for the whole process and holds no state of ours. */
export function libc(): Libc {
	loaded ??= load();
	return loaded;
}

/** What receiving a descriptor over a socket needs. */
export interface SocketCalls {
	/** Two connected UNIX stream sockets. @throws Error. */
	socketPair(): readonly [number, number];
	/** The descriptor that waits in the socket, closed on exec, or -errno; -ENOMSG when there is none. Does not block. */
	receiveDescriptor(fd: number): number;
	setNonBlocking(fd: number): void;
}

let loadedSocketCalls: SocketCalls | undefined;

export function socketCalls(): SocketCalls {
	loadedSocketCalls ??= loadSocketCalls();
	return loadedSocketCalls;
}

/** unix(7), recvmsg(2); sizes and constants of x86-64 and arm64 Linux. */
function loadSocketCalls(): SocketCalls {
	const library = koffi.load("libc.so.6");
	const vector = koffi.struct({ base: "void *", length: "size_t" });
	const header = koffi.struct({
		name: "void *",
		nameLength: "uint32_t",
		vectors: koffi.pointer(vector),
		vectorCount: "size_t",
		control: "void *",
		controlLength: "size_t",
		flags: "int",
	});
	const socketpair = library.func("int socketpair(int domain, int type, int protocol, void *fds)");
	const recvmsg = library.func("recvmsg", "int64_t", ["int", koffi.inout(koffi.pointer(header)), "int"]);
	const fcntl = library.func("int fcntl(int fd, int command, long argument)");
	const { unix, stream, closeOnExec } = { unix: 1, stream: 1, closeOnExec: 0o2000000 };
	return {
		socketPair: () => {
			const fds = new Int32Array(2);
			const result = errno(socketpair(unix, stream | closeOnExec, 0, fds) as number);
			if (result < 0) throw new Error(`socketpair failed with errno ${-result}`);
			return [fds[0] as number, fds[1] as number];
		},
		receiveDescriptor: (fd) => {
			const byte = new Uint8Array(1);
			const control = new Uint8Array(32);
			const message = {
				name: null,
				nameLength: 0,
				vectors: [{ base: byte, length: 1 }],
				vectorCount: 1,
				control,
				controlLength: control.length,
				flags: 0,
			};
			const { dontWait, descriptorsCloseOnExec } = { dontWait: 0x40, descriptorsCloseOnExec: 0x4000_0000 };
			const result = errno(recvmsg(fd, message, dontWait | descriptorsCloseOnExec) as number);
			return result < 0 ? result : descriptorIn(control, Number(message.controlLength));
		},
		setNonBlocking: (fd) => {
			const { setFlags, readWrite, nonBlocking } = { setFlags: 4, readWrite: 2, nonBlocking: 0o4000 };
			fcntl(fd, setFlags, readWrite | nonBlocking);
		},
	};
}

/** `struct cmsghdr` {size_t length, int level, int type}, and one descriptor. */
function descriptorIn(control: Uint8Array, lengthBytes: number): number {
	const noMessage = -42;
	const { bytes, socketLevel, rights } = { bytes: 20, socketLevel: 1, rights: 1 };
	const view = new DataView(control.buffer);
	if (lengthBytes < bytes || view.getUint32(8, true) !== socketLevel || view.getUint32(12, true) !== rights) return noMessage;
	return view.getInt32(16, true);
}

let loadedDeviceCalls: DeviceCalls | undefined;

/** undefined where the C library lacks one of them (glibc before 2.33 has no `mknod` symbol). */
export function deviceCalls(): DeviceCalls | undefined {
	loadedDeviceCalls ??= loadDeviceCalls();
	return loadedDeviceCalls;
}

function loadDeviceCalls(): DeviceCalls | undefined {
	try {
		const library = koffi.load("libc.so.6");
		const ioctl = library.func("int ioctl(int fd, unsigned long request, void *argument)");
		const memfd = library.func("int memfd_create(void *name, unsigned int flags)");
		const mknod = library.func("int mknod(void *path, unsigned int mode, unsigned long device)");
		const closeOnExec = 1;
		return {
			ioctl: (fd, request, argument) => outcome((done) => ioctl.async(fd, request, argument, done)),
			memfd: (name) => errno(memfd(name, closeOnExec) as number),
			mknod: (path, mode, device) => errno(mknod(path, mode, device) as number),
		};
	} catch {
		return undefined;
	}
}

let loadedBackingCalls: BackingCalls | undefined;

export function backingCalls(): BackingCalls {
	loadedBackingCalls ??= loadBackingCalls();
	return loadedBackingCalls;
}

function loadBackingCalls(): BackingCalls {
	const library = koffi.load("libc.so.6");
	const ioctl = library.func("int ioctl(int fd, unsigned long request, void *argument)");
	const fcntl = library.func("int fcntl(int fd, int command, long argument)");
	return {
		ioctl: (fd, request, argument) => outcome((done) => ioctl.async(fd, request, argument, done)),
		fcntl: (fd, command, argument) => outcome((done) => fcntl.async(fd, command, argument, done)),
	};
}

/** Whether poll(2) tells of an error: on `/dev/fuse` that the connection has ended. */
export function isErrored(fd: number): boolean {
	const fds = new Uint8Array(pollFdBytes);
	const view = new DataView(fds.buffer);
	view.setInt32(0, fd, true);
	return libc().poll(fds, 1, 0) === 1 && (view.getInt16(6, true) & (pollErr | pollHup)) !== 0;
}

function errno(result: number): number {
	return result < 0 ? -koffi.errno() : result;
}

function load(): Libc {
	const library = koffi.load("libc.so.6");
	const read = library.func("long read(int fd, void *buf, size_t count)");
	const schedYield = library.func("int sched_yield()");
	// The C library has it since 2.41 only.
	const syscall = library.func("long syscall(long number, int thread, void *attributes, unsigned int flags)");
	const poll = library.func("int poll(void *fds, unsigned long count, int timeout)");
	const eventfd = library.func("int eventfd(unsigned int initial, int flags)");
	const unshare = library.func("int unshare(int flags)");
	const sigmask = library.func("int pthread_sigmask(int how, void *set, void *old)");
	const close = library.func("int close(int fd)");
	const dup3 = library.func("int dup3(int from, int to, int flags)");
	const closeOnExec = 0o2000000;
	const cloneFiles = 0x400;
	return {
		read: (fd, into, lengthBytes) => errno(read(fd, into, lengthBytes) as number),
		yield: () => void schedYield(),
		schedule: (thread, attributes) => {
			const number = schedSetAttr[process.arch];
			return number === undefined ? -koffi.os.errno.ENOSYS : errno(syscall(number, thread, attributes, 0) as number);
		},
		poll: (fds, count, timeoutMs) => errno(poll(fds, count, timeoutMs) as number),
		eventfd: () => errno(eventfd(0, closeOnExec) as number),
		unshareFiles: () => errno(unshare(cloneFiles) as number),
		close: (fd) => errno(close(fd) as number),
		replace: (fd, by) => errno(dup3(by, fd, closeOnExec) as number),
		blockSignals: () => sigmask(sigBlock, outerSignals(), null) as number,
		...mounts(library),
	};
}

/** Number of sched_setattr(2), by machine: `<asm/unistd.h>`. */
const schedSetAttr: Readonly<Record<string, number>> = { x64: 314, arm64: 274, riscv64: 274 };

const sigBlock = 0;

/** A `sigset_t` (signal N is bit N - 1) of all but SIGILL, SIGTRAP, SIGBUS, SIGFPE and SIGSEGV. */
function outerSignals(): Uint8Array {
	const set = new Uint8Array(128).fill(0xff);
	for (const signal of [4, 5, 7, 8, 11]) {
		const at = (signal - 1) >> 3;
		set[at] = (set[at] as number) & ~(1 << ((signal - 1) & 7));
	}
	return set;
}

function mounts(library: ReturnType<typeof koffi.load>): Pick<Libc, "mount" | "mountNow" | "umount" | "umountNow"> {
	const mount = library.func("int mount(void *source, void *target, void *type, unsigned long flags, void *data)");
	const umount = library.func("int umount2(void *target, int flags)");
	return {
		mount: (source, target, type, flags, data) => outcome((done) => mount.async(source, target, type, flags, data, done)),
		mountNow: (source, target, type, flags, data) => errno(mount(source, target, type, flags, data) as number),
		umount: (target, flags) => outcome((done) => umount.async(target, flags, done)),
		umountNow: (target, flags) => errno(umount(target, flags) as number),
	};
}

/** errno belongs to the thread of the pool that made the call; koffi hands it to the callback, which must ask at once. */
function outcome(call: (done: AsyncCall) => void): Promise<number> {
	return new Promise((resolve, reject) => {
		call((error, result) => {
			if (error) reject(error);
			else resolve(result < 0 ? -koffi.errno() : result);
		});
	});
}
