/**
 * The outside world as an argument (architecture, rule 1).
 *
 * Nothing above this folder touches clocks, randomness, timers, files, sockets, threads or `process`: it is handed one
 * `Platform` per node. `real/` talks to the kernel, `sim/` is a world that can be replayed; both pass
 * `test/conformance/platform.ts`.
 *
 * Calls of a dead incarnation (a simulated node that was killed) never settle.
 */
import type { Timestamp } from "../base/time.ts";
import type { ShardWork } from "../codec/interface.ts";

export interface Platform {
	readonly clock: Clock;
	readonly random: Random;
	/**
	 * Opens the disk at `path`: an existing directory, a block device, or a file that stands for one. `onOpening` is told at once how to ask for `Disk.activity` while the disk is being opened.
	 * @throws FsError ENOENT, EINVAL (neither, or too small), EACCES, EIO.
	 */
	openDisk(path: string, onOpening?: (activity: () => DiskActivity) => void): Promise<Disk>;
	/**
	 * Shared memory that outlives the death of the process but not a power cut (real: a file in /dev/shm, mapped).
	 * An existing one of the same size is opened with its contents; otherwise it is made, zero-filled, in the place of one of another size.
	 */
	openMemory(name: string, sizeBytes: number): Promise<Memory>;
	removeMemory(name: string): Promise<void>;
	/** The first bytes, `lengthBytes` at most, and the size of one that is there; it is left as it is. Undefined: there is none. */
	memoryHead(name: string, lengthBytes: number): Promise<{ readonly bytes: Uint8Array; readonly sizeBytes: number } | undefined>;
	/** Small host files outside any disk (`$CAIRN_HOME`). */
	readonly files: HostFiles;
	readonly sockets: Sockets;
	readonly network: Network;
	/** Absent where the platform has no kernel to mount into. */
	readonly fuse?: FuseHost;
	/** Absent outside of simulations: nothing is ever asked then. */
	readonly simulation?: SimulationHooks;
	/** Absent where there is no thread for it: whoever wants shards makes them himself then. */
	readonly coder?: Coder;
	/** Absent where nothing is known of devices but what they do. */
	readonly devices?: DeviceReports;
	/** Absent where nobody asks which request a line of the log came from: following requests costs time. */
	readonly requests?: RequestScope;
}

export interface DeviceReports {
	/** What `smartctl -j` prints of the device of a domain; undefined: there is no such program, no such device, or no answer. Bounded in time; never throws. */
	smart(domain: string): Promise<string | undefined>;
}

/** Erasure coding and checksums beside the caller, in the order in which they were asked for. Only ever faster: what it declines or fails at is done by `doShardWork` as well. */
export interface Coder {
	/**
	 * Answers what `doShardWork` does. All shards lie in shared memory (SharedArrayBuffer). Until it settles the coder reads the sources and writes the targets, so nobody changes the former or looks at the latter, and none of
	 * that memory is given to anybody else; afterwards, however it settled, it holds nothing of them. It always settles while the process lives.
	 * Undefined: not now (it is just starting, has too much to do, or is dead).
	 * @throws FsError EIO: its thread was lost, or could not do it; the targets hold anything. An assertion where a shard does not lie in shared memory.
	 */
	begin(work: ShardWork): Promise<Uint32Array> | undefined;
}

/** What somebody outside has asked for. `id` is unique among the requests of its door while the connection lasts. */
export interface RequestIdentity {
	readonly door: string;
	readonly id: string;
	/** An opcode or a verb, as people call it. */
	readonly operation: string;
}

/** Which request the work that is being done was begun for, through everything that is awaited and every timer that is set in it. */
export interface RequestScope {
	run<T>(request: RequestIdentity, work: () => T): T;
	/** Undefined: nobody's; work that the process does by itself. */
	current(): RequestIdentity | undefined;
}

/** How a simulation reaches into the code that runs in it. */
export interface SimulationHooks {
	/** True: take the rare way here, which is as right as the usual one. `point` is `floor.what`, a literal. */
	buggify(point: string): boolean;
	/** True: misbehave here, so that a test sees whether its checkers notice. Only a test that plants this bug by its name makes it true. */
	planted(bug: PlantedBug): boolean;
}

export type PlantedBug =
	| "stale-roster-accepted"
	| "log-cut-at-rot"
	| "space-reused-early"
	| "seal-after-truncate"
	| "healing-forgotten"
	| "df-drift"
	| "wrong-fragment-accepted"
	| "failed-seal-on-top"
	| "tombstone-dropped-early"
	| "set-time-lost"
	| "young-garbage"
	| "reserve-shown-free"
	| "locks-not-kept"
	| "locks-upgraded-blindly"
	| "search-not-asked"
	| "open-files-not-bound"
	| "durable-open-unsynced"
	| "newest-pending-first";

// ── time and chance ──────────────────────────────────────────────────────────────────────────────────────────────

export interface Clock {
	/** Wall clock, for file times. May jump. */
	realtime(): Timestamp;
	/** Milliseconds (fractional) of CLOCK_BOOTTIME or the like: never goes back. For time-outs and leases. */
	monotonicMs(): number;
	sleep(ms: number): Promise<void>;
	/** Calls `fn` once after `ms`; the returned function cancels. Real timers do not keep the process alive. */
	after(ms: number, fn: () => void): () => void;
	/** Lets other work run before going on: a yield point of long synchronous work. */
	yield(): Promise<void>;
}

export interface Random {
	/** 32 uniform bits. */
	u32(): number;
	/** Uniform integer in [0, bound), bound ≤ 2^53. */
	below(bound: number): number;
	bytes(lengthBytes: number): Uint8Array;
}

// ── disks ────────────────────────────────────────────────────────────────────────────────────────────────────────

/** What the thread of a disk is at. */
export interface DiskActivity {
	/** Calls that it has finished. */
	readonly finished: number;
	/** idle: in no call; nothing was asked of it, or it has not started yet, or has not come to the next call. running: in a call that has the processor or waits for it. waiting: in a call, for the kernel or the device. */
	readonly state: "idle" | "running" | "waiting";
}

/**
 * One disk. All calls on one disk are executed in order by a thread of its own, so a disk that hangs holds up nobody else.
 * Deadlines are put around it by `platform/deadline.ts`.
 */
export interface Disk {
	readonly path: string;
	/** A raw device: what lies on it that is not ours (a file system, a partition table, data), for people. Nothing is written to it while this is said. */
	readonly foreign?: string | undefined;
	/** What is foreign there is given up: the first file that is made overwrites it. */
	disregard?(): void;
	/** Disks with equal domain share one device and fail together (real: st_dev). */
	readonly domain: string;
	/** All of its space is its own, also beside others of its domain: a raw device, or an image of fixed size. */
	readonly ownsSpace?: boolean;
	/**
	 * Exclusive against every other opener of the same disk, in this process and others, until `close` or death.
	 * @throws FsError EBUSY.
	 */
	lock(): Promise<void>;
	/**
	 * Opens a file by its slash-separated relative name. With `create`, makes it (and its folders) if absent; its *name* is durable
	 * only after `syncNames`.
	 * @throws FsError ENOENT (absent, not created), EIO, ENOSPC.
	 */
	open(name: string, options?: { readonly create?: boolean }): Promise<DiskFile>;
	/**
	 * Names directly in the folder `folder` ("" = top), sorted: files as they are, folders with a slash at the end, so that a directory
	 * which holds only folders does not look empty. An absent folder is empty.
	 */
	list(folder: string): Promise<string[]>;
	/** Removes a file; absent is fine. Durable after `syncNames`. */
	remove(name: string): Promise<void>;
	/** Makes creations and removals in `folder` (and of the folder itself) durable. `site` names the call, see DiskFile.sync. */
	syncNames(folder: string, site: string): Promise<void>;
	/** What the device holds and has left, as an unprivileged statfs sees it. */
	space(): Promise<{ readonly capacityBytes: number; readonly freeBytes: number }>;
	/**
	 * Makes `name` a file that takes `sizeBytes` of the disk's space without holding anything, durably: space that nobody else can take (fallocate(2)). Where there is less, it takes what there is; a smaller size gives the
	 * rest back at once. Answers what it takes now. `site`: see DiskFile.sync. Absent where all of the space is the volume's anyway (raw devices).
	 * @throws FsError ENOSPC (not even its name fits), EIO, EROFS.
	 */
	setAside?(name: string, sizeBytes: number, site: string): Promise<number>;
	/**
	 * Rejects with ENODEV when the disk is no longer what was opened (directory removed, replaced or unmounted): handles that
	 * are still open may go on working on unlinked files, which protects nothing. `sync` and `syncNames` check it too.
	 */
	probe(): Promise<void>;
	/**
	 * Reads again what the disk keeps to find its files by, and writes it anew where that is damaged and `repair` says so. Directories leave that to their file system: absent.
	 */
	verifyTable?(repair: boolean): Promise<TableCheck>;
	/** Answers at once, whatever the disk does: tells one that hangs from a machine that is too busy to let it work. Absent only in fakes. */
	activity?(): DiskActivity;
	/** Closes every handle and gives the lock back. */
	close(): Promise<void>;
}

export interface TableCheck {
	/** Parts: headers, table with journal. */
	readonly checked: number;
	readonly corrupt: number;
	readonly repaired: number;
}

/** Bytes that are lent: they are the borrower's until `release`, which is called once at most. Who forgets it wastes a buffer, no more. */
export interface Borrowed {
	readonly bytes: Uint8Array;
	/** Of each block that was asked for, as far as `bytes` has whole ones: CRC32C of what is in `bytes`. Absent where nobody made them. */
	readonly sums?: Uint32Array | undefined;
	release(): void;
}

export interface DiskFile {
	readonly name: string;
	/** Reads up to `lengthBytes`; short only at the end of the file. The result is the caller's own. */
	read(offset: number, lengthBytes: number): Promise<Uint8Array>;
	/**
	 * As `read`, into a buffer that is used again and again: large reads leave nothing behind for the garbage collector. With `sumBlockBytes` the disk's thread may add the checksum of each block of so many bytes, counted from
	 * `offset`: whoever wants them and gets none makes them himself.
	 */
	borrow(offset: number, lengthBytes: number, sumBlockBytes?: number): Promise<Borrowed>;
	/** Writes all parts one after the other from `offset`. The parts must not change until it settles. @throws ENOSPC, EIO, EROFS … */
	write(offset: number, parts: readonly Uint8Array[]): Promise<void>;
	/**
	 * Data and size durable (fdatasync), and the disk still there (see `probe`). A failed sync is final: the state of the file is unknown
	 * and the sync must not be tried again on it and reported as good.
	 * `site` names the call in the source, `floor.what`; the sync-mutation suite turns sites off one at a time.
	 */
	sync(site: string): Promise<void>;
	/** Gives the space of a range back (punch hole); it reads as zeros afterwards. Where not supported: nothing happens. */
	discard(offset: number, lengthBytes: number): Promise<void>;
	/**
	 * The next read of the range asks the device, not memory that the host keeps of it: what proves that bytes are on a disk must not be answered by the page cache (posix_fadvise(2),
	 * POSIX_FADV_DONTNEED). Only what was synced can be forgotten; where the host cannot, nothing happens.
	 */
	uncache(offset: number, lengthBytes: number): Promise<void>;
	size(): Promise<number>;
	/** What it takes of the disk, in bytes: holes do not count, what is written in part counts whole. A measure, not exact (stat(2), st_blocks). */
	held(): Promise<number>;
	truncate(sizeBytes: number): Promise<void>;
	close(): Promise<void>;
}

export interface Memory {
	/** The mapped bytes. Stores are visible to the next incarnation at once. Not shared with workers. */
	readonly bytes: Uint8Array;
	/** True when it was there already. */
	readonly existed: boolean;
	close(): Promise<void>;
}

// ── host files and sockets ───────────────────────────────────────────────────────────────────────────────────────

export interface HostFiles {
	/** undefined when absent. */
	read(path: string): Promise<Uint8Array | undefined>;
	/** Atomic and durable: temporary file, sync, rename, sync of the folder. Makes the folders (mode 0700). */
	write(path: string, bytes: Uint8Array): Promise<void>;
	/** Names in a folder, sorted; absent = []. */
	list(path: string): Promise<string[]>;
	/** A file or an empty folder; absent is fine. */
	remove(path: string): Promise<void>;
	kind(path: string): Promise<"file" | "directory" | "socket" | "other" | undefined>;
	/** Asks the file system there for its figures, which no cache of the kernel answers. @throws FsError ENOENT; ENOTCONN: a FUSE file system without its daemon. */
	probe(path: string): Promise<void>;
	/** Makes the folder and its parents. */
	makeFolder(path: string): Promise<void>;
}

export interface Sockets {
	/** Listens on a UNIX stream socket, replacing a stale one. Mode 0600. */
	listen(path: string, onConnection: (connection: Connection) => void): Promise<Listener>;
	/** Listens on a TCP port of the loopback interface (127.0.0.1) and no other; 0: any free one. @throws FsError EBUSY, EACCES. */
	listenPort(port: number, onConnection: (connection: Connection) => void): Promise<Listener & { readonly port: number }>;
	/** @throws FsError ENOENT or ECONNREFUSED as ENOTCONN. */
	connect(path: string): Promise<Connection>;
}

export interface Listener {
	close(): Promise<void>;
}

export interface Connection {
	onData(fn: (bytes: Uint8Array) => void): void;
	/** Called once, after the last data. */
	onClose(fn: () => void): void;
	write(bytes: Uint8Array): Promise<void>;
	close(): void;
}

// ── network ──────────────────────────────────────────────────────────────────────────────────────────────────────

/** An address as text, `192.0.2.1` or `2001:db8::1`; IPv4 within IPv6 is told as IPv4. */
export interface Peer {
	readonly address: string;
	readonly port: number;
}

export interface Network {
	/**
	 * Listens on a TCP port of a local address (`127.0.0.1`; `::`: every address of this host, of both kinds); 0: any free port. Connections that `onConnection` does not close are the receiver's to close; closing the
	 * listener closes them all.
	 * @throws FsError EBUSY (port taken), EACCES, EINVAL (no address of this host).
	 */
	listenTcp(
		address: string,
		port: number,
		onConnection: (connection: TcpConnection) => void,
	): Promise<Listener & { readonly port: number }>;
	/** @throws FsError ENOTCONN (nobody listens there), ETIMEDOUT, EINVAL. */
	connectTcp(peer: Peer): Promise<TcpConnection>;
	/** Datagrams to a UDP port of a local address; 0: any free port. @throws as listenTcp. */
	bindUdp(address: string, port: number, onDatagram: (bytes: Uint8Array, from: Peer) => void): Promise<DatagramSocket>;
}

/** Bytes given to `onData` are the receiver's own. */
export interface TcpConnection extends Connection {
	readonly remote: Peer;
	/** The address of this machine that the other side sees. */
	readonly local: string;
	/** All parts one after the other, none of another call in between. Resolves when they are with the kernel: whoever writes without waiting for that has them in memory. They must not change before. */
	writeParts(parts: readonly Uint8Array[]): Promise<void>;
	/** Back-pressure: no more `onData` until `resume`, except what was on its way; the other side's writes wait when the buffers between are full. */
	pause(): void;
	resume(): void;
	/** At once, with what was not delivered. */
	destroy(): void;
}

export interface DatagramSocket extends Listener {
	readonly port: number;
	/** May be lost without a word. @throws FsError EINVAL: too long. */
	send(bytes: Uint8Array, to: Peer): Promise<void>;
}

// ── FUSE ─────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface FuseHost {
	/** Undefined when mounting is possible; otherwise what is missing and what to do. Paths and sources here are byte strings. */
	unavailable(): Promise<string | undefined>;
	/** Mounts; requests flow once `FuseChannel.start` was called. @throws FsError EPERM, ENOENT, EBUSY, ENODEV. */
	mount(mountpoint: string, options: FuseMountOptions): Promise<FuseChannel>;
	/**
	 * Takes over a connection that another process has begun, by a descriptor that this process was given. The kernel sends every request again that was read and not answered, bit 63 of `unique` set, before
	 * any other. @throws FsError ENOTSUP: it cannot (Linux before 6.9).
	 */
	resume(descriptor: number, subtype: string): Promise<FuseChannel>;
	/** Takes away a mount, or what a dead daemon left behind. `lazy` = MNT_DETACH. @throws FsError EBUSY, EINVAL (nothing mounted). */
	unmount(mountpoint: string, lazy: boolean): Promise<void>;
	/**
	 * Ends the connection of a mount that nobody serves any more and that hangs all the same (a thread of a dead daemon can hold it): whoever waits there gets an error. The mount stays in the table, dead.
	 * @throws FsError EBUSY (a living process holds it), EINVAL (nothing mounted), EPERM.
	 */
	abort(mountpoint: string): Promise<void>;
	/** The FUSE mounts of this host, from /proc/self/mountinfo. */
	mounts(): Promise<readonly { readonly mountpoint: string; readonly source: string; readonly type: string }[]>;
}

export interface FuseMountOptions {
	/** Shown as the device in /proc/mounts, for instance `cairn:demo`. */
	readonly source: string;
	/** The file system is known as `fuse.SUBTYPE`; the kernel may have it as `fuseblk.SUBTYPE` on `/dev/SUBTYPE/NAME` for the source `SUBTYPE:NAME`. */
	readonly subtype: string;
	readonly allowOther: boolean;
	readonly readOnly: boolean;
	readonly maxReadBytes: number;
	/** Further mount(2) flags by name: nosuid, nodev, noexec, noatime, relatime. */
	readonly flags: readonly string[];
}

/**
 * Files of this machine that the kernel reads by itself for those who have files of the mount open: FUSE passthrough (Linux 6.9; fuse.h FUSE_DEV_IOC_BACKING_OPEN). Paths are those of `openDisk`, of regular files on a local
 * file system. A call takes as long as that file system does.
 */
export interface FuseBackings {
	/**
	 * Makes the file known to this connection, and holds it; what INIT settled must allow it. The number is the connection's: it outlives this process.
	 * @throws FsError EPERM (not root, or not settled), ENOENT, EIO, ENOTSUP (that file system, or this kernel, cannot).
	 */
	open(path: string): Promise<number>;
	/** Gives the number up. What was opened with it stays open. One that is not known is fine. */
	close(number: number): Promise<void>;
	/** Whether anybody has the file open or mapped; where that cannot be found out, somebody has. */
	inUse(path: string): Promise<boolean>;
}

/** One `/dev/fuse` connection. Requests are read by reader threads; replies are written by the caller's thread; notifications only by a notifier thread. */
export interface FuseChannel {
	/** `onRequest` is called in order of arrival with a whole request. The bytes are valid only until it returns: copy what must live longer. */
	start(onRequest: (request: Uint8Array) => void): void;
	/** Back-pressure: no `onRequest` until `resume`; requests wait in the kernel. At most the one being delivered follows a pause. */
	pause(): void;
	resume(): void;
	/** Writes one reply (writev) before it returns: the parts may be used again. An interrupted request (ENOENT) is not an error. Must not be called with notifications. */
	reply(parts: readonly Uint8Array[]): void;
	/** Sends a notification from the notifier thread; resolves when the kernel took it; ENOENT (not cached) is success. May block for long. */
	notify(message: Uint8Array): Promise<void>;
	/** Whether a thread has a capability in force (capabilities(7), by number) in this moment; false when it is gone. */
	capable(pid: number, capability: number): Promise<boolean>;
	/** Whether a thread waits in fcntl(2) with F_OFD_SETLKW in this moment: the protocol does not tell such locks from those of processes. False when that is not to be known. */
	waitsForOpenFile(pid: number): Promise<boolean>;
	/** Absent where there can be none. */
	readonly backings?: FuseBackings;
	/** The file descriptor of the connection in this process, for one that shall inherit it. Undefined where there is none. */
	readonly descriptor?: number;
	/** Resolves when the kernel ended the connection (unmounted or aborted). */
	readonly ended: Promise<void>;
	/** Frees threads and the descriptor; does not unmount. */
	close(): Promise<void>;
}
