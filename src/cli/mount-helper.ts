/**
 * What mount(8) and umount(8) call: `mount.cairn SPEC DIR [-sfnv] [-o OPTIONS] [-t TYPE]` and `umount.cairn DIR [-nv] [-t TYPE]` (section "External helpers" of their man pages), as
 * command lines of this program and exit codes of mount(8).
 */
import { exitCodes } from "../daemon/exit-codes.ts";
import { cairnMounts, mountType, parseMountOptions } from "../daemon/mountpoint.ts";
import type { Context } from "./context.ts";
import type { Output } from "./program.ts";

/** mount(8), EXIT STATUS. */
const mountExit = { done: 0, usage: 1, failed: 32 } as const;

/** Options of fstab(5) that are about when and by whom it is mounted, not about the mount: mount(8) and systemd have acted upon them. */
const forOthers: ReadonlySet<string> = new Set([
	"auto",
	"noauto",
	"nofail",
	"_netdev",
	"user",
	"nouser",
	"users",
	"owner",
	"group",
	"async",
	"nosymfollow",
	"silent",
	"loud",
]);

export interface HelperCall {
	readonly words: readonly string[];
	readonly flags: ReadonlySet<string>;
	readonly options: readonly string[];
}

/** @returns undefined for a call that is none of mount(8). */
export function parseHelperCall(words: readonly string[]): HelperCall | undefined {
	const found: string[] = [];
	const flags = new Set<string>();
	const options: string[] = [];
	for (let i = 0; i < words.length; i++) {
		const word = words[i] as string;
		if (word === "-o" || word === "-t" || word === "-N") {
			const value = words[++i];
			if (value === undefined) return undefined;
			if (word === "-o") options.push(...value.split(","));
		} else if (/^-[a-zA-Z]+$/.test(word)) for (const letter of word.slice(1)) flags.add(letter);
		else if (word.startsWith("-")) return undefined;
		else found.push(word);
	}
	return { words: found, flags, options: options.filter((option) => option !== "") };
}

/** What is left for the volume. With `sloppy` (-s), what is not known is left out, as mount(8) asks. */
export function ownOptions(options: readonly string[], sloppy: boolean): string[] {
	const own = options.filter((option) => !forOthers.has(option) && !/^(x-|X-|comment=|user=|helper=|uhelper=)/.test(option));
	return sloppy ? own.filter(isKnown) : own;
}

function isKnown(option: string): boolean {
	try {
		parseMountOptions(option);
		return true;
	} catch {
		return false;
	}
}

/** `photos`, `cairn:photos` or the device that `df` shows. */
export function volumeOf(spec: string): string {
	return spec.replace(/^(cairn:|\/dev\/cairn\/)/, "");
}

/** Answers the exit code. `run` is this program's command line. */
export async function mountHelper(
	words: readonly string[],
	context: Context,
	output: Output,
	run: (words: readonly string[]) => Promise<number>,
): Promise<number> {
	const call = parseHelperCall(words);
	const [spec, directory] = call?.words ?? [];
	if (call === undefined || spec === undefined || directory === undefined || call.words.length > 2) {
		output.err("usage: mount.cairn VOLUME DIRECTORY [-sfnv] [-o OPTIONS]\n");
		return mountExit.usage;
	}
	if (call.options.includes("remount")) {
		output.err("mount.cairn: a volume cannot be remounted with other options: umount it and mount it again\n");
		return mountExit.failed;
	}
	const name = volumeOf(spec);
	const options = ownOptions(call.options, call.flags.has("s"));
	if (call.flags.has("f")) return (await isGood(options, output)) ? mountExit.done : mountExit.failed;
	// `mount -a` compares the device, which has another name once it is mounted.
	if (await isMounted(context, name, directory)) return mountExit.done;
	const code = await run(["mount", name, directory, ...(options.length === 0 ? [] : ["-o", options.join(",")])]);
	return code === exitCodes.done ? mountExit.done : mountExit.failed;
}

/** A mount that is only to be tried: are the options such that it could be? */
async function isGood(options: readonly string[], output: Output): Promise<boolean> {
	const wrong = options.filter((option) => !isKnown(option));
	if (wrong.length > 0) output.err(`mount.cairn: unknown mount option ${wrong.join(", ")}\n`);
	return wrong.length === 0;
}

async function isMounted(context: Context, name: string, directory: string): Promise<boolean> {
	const { fuse } = context.platform;
	if (!fuse) return false;
	const path = await context.processes.canonicalParent(directory);
	return (await cairnMounts(fuse)).some((mount) => mount.name === name && mount.mountpoint === path);
}

/** Answers the exit code. */
export async function umountHelper(
	words: readonly string[],
	output: Output,
	run: (words: readonly string[]) => Promise<number>,
): Promise<number> {
	const call = parseHelperCall(words);
	const [directory] = call?.words ?? [];
	if (call === undefined || directory === undefined || call.words.length > 1) {
		output.err(`usage: umount.cairn DIRECTORY (of type ${mountType})\n`);
		return mountExit.usage;
	}
	const code = await run(["umount", directory]);
	return code === exitCodes.done ? mountExit.done : mountExit.failed;
}
