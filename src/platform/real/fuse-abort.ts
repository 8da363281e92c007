/**
 * Ends a FUSE connection although other processes hold its descriptor: a dead daemon may have a thread that waits in the kernel for the answer to its own notification, and nobody is left to answer. The
 * kernel offers that as `connections/N/abort` of the file system `fusectl` (fuse.txt), N being the device number of the mount.
 */
import { closeSync, existsSync, mkdtempSync, openSync, readdirSync, readFileSync, rmdirSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isErrored, libc, mntDetach } from "./fuse-libc.ts";

const control = "/sys/fs/fuse/connections";

/** The number of the connection behind a descriptor; undefined where the kernel does not tell (Linux before 6.10), or the connection has ended. */
function connectionOf(descriptor: number): number | undefined {
	if (isErrored(descriptor)) return undefined;
	return numberIn(`/proc/self/fdinfo/${descriptor}`);
}

function numberIn(fdinfo: string): number | undefined {
	const found = /^fuse_connection:\s*(\d+)$/m.exec(readFileSync(fdinfo, "latin1"))?.[1];
	return found === undefined ? undefined : Number(found);
}

/** Of a mount whose `st_dev` is `major:minor`, as proc_pid_mountinfo(5) has it: the kernel's own encoding, 20 bits for the minor. */
export function connectionOfDevice(device: string): number {
	const [major = 0, minor = 0] = device.split(":").map(Number);
	return major * 2 ** 20 + minor;
}

/** The connection behind a descriptor. Undefined: ended, else what was in the way. */
export function abortDescriptor(descriptor: number): string | undefined {
	try {
		const connection = connectionOf(descriptor);
		return connection === undefined ? undefined : abortConnection(connection);
	} catch (error) {
		return String(error);
	}
}

/** Whether another process than this one has the connection too. */
export function isServedByOthers(descriptor: number): boolean {
	try {
		const connection = connectionOf(descriptor);
		return connection !== undefined && serversOf(connection).some((pid) => pid !== process.pid);
	} catch {
		// Not to be told: then nothing is ended.
		return true;
	}
}

/** Undefined: ended, else what was in the way. */
export function abortConnection(connection: number): string | undefined {
	try {
		if (existsSync(`${control}/${connection}`)) write(control, connection);
		else withControl((folder) => write(folder, connection));
		return undefined;
	} catch (error) {
		return (error as { code?: string }).code === "ENOENT" ? undefined : String(error);
	}
}

/** Not with `writeFile`, which would truncate: the kernel takes the first write for the word. */
function write(folder: string, connection: number): void {
	const file = openSync(`${folder}/${connection}/abort`, "r+");
	try {
		writeSync(file, "1");
	} finally {
		closeSync(file);
	}
}

/** Containers do not mount it. */
function withControl(use: (folder: string) => void): void {
	const folder = mkdtempSync(join(tmpdir(), "cairn-fusectl-"));
	const name = (text: string): Uint8Array => Buffer.from(`${text}\0`);
	try {
		const result = libc().mountNow(name("fusectl"), name(folder), name("fusectl"), 0, name(""));
		if (result < 0) throw new Error(`fusectl cannot be mounted (errno ${-result})`);
		try {
			use(folder);
		} finally {
			libc().umountNow(name(folder), mntDetach);
		}
	} finally {
		rmdirSync(folder);
	}
}

/** Processes that are alive and hold a descriptor of the connection: somebody serves it, or keeps it for who will. What is left of a dead one has no table that could be read. */
export function serversOf(connection: number): number[] {
	return readdirSync("/proc")
		.filter((name) => /^[0-9]+$/.test(name))
		.map(Number)
		.filter((pid) => {
			try {
				return readdirSync(`/proc/${pid}/fdinfo`).some((fd) => isOf(connection, `/proc/${pid}/fdinfo/${fd}`));
			} catch {
				// It has ended, or is somebody else's.
				return false;
			}
		});
}

function isOf(connection: number, fdinfo: string): boolean {
	try {
		return numberIn(fdinfo) === connection;
	} catch {
		return false;
	}
}
