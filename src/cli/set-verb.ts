/** set: how a path is to be protected. */
import { FsError } from "../base/errors.ts";
import { exitCodes } from "../daemon/exit-codes.ts";
import type { ProtectionSet } from "../volume/native/interface.ts";
import { parseRedundancy } from "../storage/redundancy.ts";
import { callWithBar, type Context, findDaemon, type Outcome } from "./context.ts";
import { absent, insideVolume, shownSource } from "./status-verbs.ts";

export interface SetFlags {
	readonly redundancy?: string;
	readonly now?: boolean;
	readonly allowDegraded?: boolean;
}

/** `path`: of a file or directory in a mounted volume; its mount point or its name mean the volume's default. */
export async function setProtection(context: Context, path: string, flags: SetFlags): Promise<Outcome> {
	const { redundancy } = flags;
	if (redundancy === undefined) throw new FsError("EINVAL", "cli.set-what", "say what to set: --redundancy rs:K+M, replicate:N or inherit");
	if (redundancy !== "inherit") parseRedundancy(redundancy);
	const { name, full, relative, mountpoint } = await target(context, path);
	const given = { path: relative, redundancy, now: flags.now ?? false, allowDegraded: flags.allowDegraded ?? false };
	const set = await callWithBar<ProtectionSet>(context, name, "set", given, "Rewriting").catch((error: unknown) => absent(full, error));
	const from = shownSource(set.redundancy.from, mountpoint);
	const isOpen = given.now && !set.done;
	const lines = [`${full}: ${set.redundancy.value} (${from})`, ...set.warnings.map((warning) => `warning: ${warning}`)];
	if (isOpen) lines.push(`not everything could be rewritten now: ${set.waitingFor}; it goes on by itself`);
	else if (!given.now) lines.push("new data at once; what is there is rewritten in the background");
	const json = {
		path: full,
		redundancy: { value: set.redundancy.value, from },
		done: set.done,
		waitingFor: set.waitingFor,
		warnings: set.warnings,
	};
	return { exitCode: isOpen ? exitCodes.degraded : exitCodes.done, json, text: `${lines.join("\n")}\n` };
}

interface Target {
	readonly name: string;
	readonly full: string;
	readonly relative: string;
	readonly mountpoint: string;
}

async function target(context: Context, path: string): Promise<Target> {
	try {
		const { full, mount, relative } = await insideVolume(context, path);
		return { name: mount.name, full, relative, mountpoint: mount.mountpoint };
	} catch (error) {
		if (path.includes("/") || !(await isServed(context, path))) throw error;
		return { name: path, full: path, relative: "", mountpoint: "" };
	}
}

/** No daemon of that name: then it was meant as a path. */
async function isServed(context: Context, name: string): Promise<boolean> {
	const client = await findDaemon(context, name).catch(() => undefined);
	client?.close();
	return client !== undefined;
}
