/**
 * install: what mount(8), systemd and shells need to know of cairn. Each file says that cairn wrote it; one that does not say so belongs to somebody else and is left alone.
 */
import {
	chmodSync,
	lstatSync,
	mkdirSync,
	readFileSync,
	readlinkSync,
	realpathSync,
	renameSync,
	rmSync,
	symlinkSync,
	writeFileSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { FsError, toFsError } from "../base/errors.ts";
import { exitCodes } from "../daemon/exit-codes.ts";
import type { Outcome } from "./context.ts";

export interface InstallFlags {
	readonly prefix?: string;
	readonly root?: string;
	readonly remove?: boolean;
}

interface Item {
	readonly path: string;
	/** Contents, or where a symbolic link goes. */
	readonly text?: string;
	readonly link?: string;
	readonly mode?: number;
}

const mark = "Written by `cairn install`";

/** As a word of sh(1). */
const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

function items(prefix: string, verbs: readonly string[]): Item[] {
	const command = `${quoted(process.execPath)} ${quoted(fileURLToPath(new URL("./main.js", import.meta.url)))}`;
	const script = (body: string): string => `#!/bin/sh\n# ${mark}: cairn install --remove takes it away.\n${body}`;
	const helper = 0o755;
	return [
		{ path: join(prefix, "bin/cairn"), mode: helper, text: script(`exec ${command} "$@"\n`) },
		{ path: "/sbin/mount.cairn", mode: helper, text: script(`exec ${command} helper-mount "$@"\n`) },
		{ path: "/sbin/umount.cairn", mode: helper, text: script(umountScript(command)) },
		// What umount(8) looks for: the type as the kernel has it.
		{ path: "/sbin/umount.fuse.cairn", link: "umount.cairn" },
		{ path: "/sbin/umount.fuseblk.cairn", link: "umount.cairn" },
		{ path: join(prefix, "lib/systemd/system/cairn@.service"), mode: 0o644, text: unit(join(prefix, "bin/cairn")) },
		{ path: join(prefix, "share/bash-completion/completions/cairn"), mode: 0o644, text: completion(verbs) },
	];
}

/** Lazy and forced unmounts are the kernel's. */
function umountScript(command: string): string {
	return `for word in "$@"; do
	case $word in
	/*) ;;
	-*[flr]*) exec umount -i "$@" ;;
	esac
done
exec ${command} helper-umount "$@"
`;
}

function unit(command: string): string {
	return `# ${mark}: cairn install --remove takes it away.
# systemctl enable --now cairn@photos mounts the volume photos on /srv/photos; /etc/cairn/photos.conf may say
# DIRECTORY=/somewhere/else and OPTIONS=noatime. A line in /etc/fstab does the same: photos /srv/photos cairn defaults,_netdev 0 0
[Unit]
Description=CairnFS volume %i
After=local-fs.target
Before=remote-fs.target

[Service]
Type=forking
# The daemon may be replaced behind its mount: the service lives as long as any process of it.
GuessMainPID=no
Environment=DIRECTORY=/srv/%i OPTIONS=defaults
EnvironmentFile=-/etc/cairn/%i.conf
ExecStart=${command} mount %i \${DIRECTORY} -o \${OPTIONS}
ExecReload=${command} upgrade %i
ExecStop=${command} umount \${DIRECTORY}
TimeoutStartSec=15min
TimeoutStopSec=15min
# The keeper starts another daemon.
OOMPolicy=continue

[Install]
WantedBy=multi-user.target
`;
}

function completion(verbs: readonly string[]): string {
	return `# ${mark}: cairn install --remove takes it away.
_cairn() {
	local word=\${COMP_WORDS[COMP_CWORD]} home=\${CAIRN_HOME:-/var/lib/cairn}
	local verbs="${verbs.filter((verb) => !verb.includes(" ")).join(" ")}"
	local disk="${verbs
		.filter((verb) => verb.startsWith("disk "))
		.map((verb) => verb.slice(5))
		.join(" ")}"
	local volumes
	volumes=$(cd "$home" 2>/dev/null && for file in */volume.json; do [ -e "$file" ] && echo "\${file%/volume.json}"; done)
	if [[ $word == -* ]]; then
		COMPREPLY=($(compgen -W "--json --help" -- "$word"))
	elif ((COMP_CWORD == 1)); then
		COMPREPLY=($(compgen -W "$verbs disk" -- "$word"))
	elif [[ \${COMP_WORDS[1]} == disk ]] && ((COMP_CWORD == 2)); then
		COMPREPLY=($(compgen -W "$disk" -- "$word"))
	elif ((COMP_CWORD == 2)) && [[ \${COMP_WORDS[1]} != @(umount|explain) ]] || { [[ \${COMP_WORDS[1]} == disk ]] && ((COMP_CWORD == 3)); }; then
		COMPREPLY=($(compgen -W "$volumes" -- "$word"))
	else
		COMPREPLY=($(compgen -f -- "$word"))
	fi
}
complete -o filenames -F _cairn cairn
`;
}

type State = "written" | "unchanged" | "removed" | "absent";

/** `verbs`: those of the command, for completion. @throws FsError REFUSED: a file of somebody else is in the way. */
export function install(flags: InstallFlags, verbs: readonly string[]): Outcome {
	const prefix = flags.prefix ?? "/usr/local";
	if (!prefix.startsWith("/")) throw new FsError("EINVAL", "cli.install-prefix", `--prefix ${prefix} must be an absolute path`);
	const root = flags.root === undefined ? "/" : resolve(flags.root);
	const all = items(prefix, verbs)
		.map((item) => ({ ...item, path: join(root, item.path) }))
		.filter((item) => !leadsHere(item.path));
	// Nothing is done by halves because of what could have been seen before.
	for (const item of all) refuseForeign(item);
	const files = all.map((item) => ({ path: item.path, state: attempt(item, flags.remove === true) }));
	return {
		exitCode: exitCodes.done,
		json: { files },
		text: files.map(({ path, state }) => `${state.padEnd(9)} ${path}\n`).join(""),
		warnings: flags.root === undefined && !flags.remove ? ["systemd reads the unit after: systemctl daemon-reload"] : [],
	};
}

function attempt(item: Item, remove: boolean): State {
	try {
		return remove ? removeItem(item) : writeItem(item);
	} catch (error) {
		const { code, message } = toFsError(error, "cli.install");
		const why = code === "EACCES" || code === "EPERM" ? "run it as root, or give --root" : message;
		throw new FsError(code, "cli.install", `${item.path}: ${why}`, { path: item.path }, error);
	}
}

/** What is there, or undefined. */
function present({ path }: Item): { readonly text?: string; readonly link?: string; readonly mode: number } | undefined {
	const there = lstatSync(path, { throwIfNoEntry: false });
	if (there === undefined) return undefined;
	if (there.isSymbolicLink()) return { link: readlinkSync(path), mode: 0 };
	return there.isFile() ? { text: readFileSync(path, "utf8"), mode: there.mode & 0o7777 } : { mode: 0 };
}

/** The command is there already, as npm has linked it. */
function leadsHere(path: string): boolean {
	try {
		return realpathSync(path) === realpathSync(fileURLToPath(new URL("./main.js", import.meta.url)));
	} catch {
		return false;
	}
}

function refuseForeign(item: Item): void {
	const there = present(item);
	const ours = there === undefined || (item.link === undefined ? there.text?.includes(mark) === true : there.link === item.link);
	if (ours) return;
	throw new FsError("REFUSED", "cli.install-foreign", `${item.path} is there and is not cairn's: move it away`, { path: item.path });
}

function writeItem(item: Item): State {
	const there = present(item);
	if (there !== undefined && there.text === item.text && there.link === item.link && (item.mode === undefined || there.mode === item.mode))
		return "unchanged";
	mkdirSync(dirname(item.path), { recursive: true });
	const temporary = `${item.path}.new`;
	rmSync(temporary, { force: true });
	if (item.link !== undefined) symlinkSync(item.link, temporary);
	else {
		writeFileSync(temporary, item.text ?? "", { mode: item.mode ?? 0o644 });
		chmodSync(temporary, item.mode ?? 0o644);
	}
	renameSync(temporary, item.path);
	return "written";
}

function removeItem(item: Item): State {
	if (present(item) === undefined) return "absent";
	rmSync(item.path);
	return "removed";
}
