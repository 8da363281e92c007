/**
 * Mounts of plain users: fusermount3 (set-user-id root, package fuse3) mounts for them and sends the descriptor of `/dev/fuse` over a socket whose number is in `_FUSE_COMMFD`
 * (SCM_RIGHTS, unix(7)). It allows what its configuration allows: `allow_other` only with `user_allow_other` in fuse.conf; nosuid and nodev always.
 */
import { spawn } from "node:child_process";
import { accessSync, closeSync, constants } from "node:fs";
import { join } from "node:path";
import { latin1ToUtf8 } from "../../base/bytes.ts";
import { FsError } from "../../base/errors.ts";
import type { FuseMountOptions } from "../interface.ts";
import { socketCalls } from "./fuse-libc.ts";

const program = "fusermount3";
/** Of the socket in fusermount3. */
const socketNumber = 3;
/** What it says is a line. */
const saidBytes = 4096;

export function hasFusermount(): boolean {
	return (process.env["PATH"] ?? "").split(":").some((folder) => {
		try {
			accessSync(join(folder, program), constants.X_OK);
			return true;
		} catch {
			return false;
		}
	});
}

interface Said {
	readonly code: number | null;
	readonly text: string;
}

function run(words: readonly string[], socket?: number): Promise<Said> {
	return new Promise((resolve, reject) => {
		const env = socket === undefined ? process.env : { ...process.env, _FUSE_COMMFD: String(socketNumber) };
		const child = spawn(program, words, {
			cwd: "/",
			stdio: ["ignore", "ignore", "pipe", socket ?? "ignore"],
			env: { ...env, LC_ALL: "C" },
		});
		let text = "";
		child.stderr?.setEncoding("utf8").on("data", (chunk: string) => {
			text = (text + chunk).slice(0, saidBytes);
		});
		child.once("error", (error) =>
			reject(new FsError("ENODEV", "platform.fusermount", `${program} could not be run: ${error.message}`, {}, error)),
		);
		child.once("close", (code) => resolve({ code, text: text.trim().replace(/^fusermount3: /, "") }));
	});
}

/** A comma in a value would begin another option. */
const escaped = (text: string): string => latin1ToUtf8(text).replace(/[\\,]/g, "\\$&");

/** The descriptor of the connection, not blocking. `mountpoint` is a byte string. @throws FsError EPERM, EBUSY, ENODEV: what fusermount3 says. */
export async function mountAsUser(mountpoint: string, options: FuseMountOptions): Promise<number> {
	const calls = socketCalls();
	const [ours, theirs] = calls.socketPair();
	try {
		const words = [
			`fsname=${escaped(options.source)}`,
			`subtype=${options.subtype}`,
			"default_permissions",
			`max_read=${options.maxReadBytes}`,
		];
		if (options.allowOther) words.push("allow_other");
		if (options.readOnly) words.push("ro");
		const { code, text } = await run(["-o", [...words, ...options.flags].join(","), "--", latin1ToUtf8(mountpoint)], theirs);
		if (code !== 0) throw refused("mount on", mountpoint, text);
		const descriptor = calls.receiveDescriptor(ours);
		if (descriptor < 0) {
			await unmountAsUser(mountpoint, true).catch(() => {});
			throw refused("mount on", mountpoint, "it mounted and did not hand over the connection");
		}
		calls.setNonBlocking(descriptor);
		return descriptor;
	} finally {
		closeSync(ours);
		closeSync(theirs);
	}
}

/** @throws FsError EBUSY, EINVAL (nothing mounted there), EPERM. */
export async function unmountAsUser(mountpoint: string, lazy: boolean): Promise<void> {
	const { code, text } = await run([...(lazy ? ["-u", "-z"] : ["-u"]), "--", latin1ToUtf8(mountpoint)]);
	if (code !== 0) throw refused("unmount", mountpoint, text);
}

function refused(what: string, mountpoint: string, text: string): FsError {
	const code = /busy/i.test(text) ? "EBUSY" : /not (found|mounted)|Invalid argument/i.test(text) ? "EINVAL" : "EPERM";
	const hint = /user_allow_other/.test(text) ? "; mount without allow_other, or ask root to allow it" : "";
	return new FsError(code, "platform.fusermount", `cannot ${what} ${latin1ToUtf8(mountpoint)}: ${program}: ${text || "failed"}${hint}`, {
		mountpoint,
	});
}
