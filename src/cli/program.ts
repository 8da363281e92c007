/** The grammar of the command: verbs, flags, help with examples, and one way of printing what came out. */
import { Command, CommanderError } from "commander";
import { FsError, toFsError } from "../base/errors.ts";
import { exitCodeOf, exitCodes } from "../daemon/exit-codes.ts";
import { printable } from "../daemon/text.ts";
import { type BalanceFlags, balance } from "./balance-verb.ts";
import { benchGroups } from "./bench-rows.ts";
import { type BenchFlags, bench } from "./bench-verb.ts";
import { heal, type HealFlags, type VerifyFlags, verify } from "./care-verbs.ts";
import type { Context, Outcome } from "./context.ts";
import { diskAdd, diskDrain, diskRemove, diskReplace, diskSet, diskShow, type DrainFlags, type DryRun, type Force } from "./disk-verbs.ts";
import { exportAdd, type ExportFlags, exportList, exportRemove, exportServe, type ServeFlags } from "./export-verbs.ts";
import { scrub, type ScrubFlags } from "./scrub-verbs.ts";
import { ledger } from "./ledger-verbs.ts";
import { breakLocks, locks } from "./lock-verbs.ts";
import { type ProfileFlags, profile } from "./profile-verb.ts";
import { type SetFlags, setProtection } from "./set-verb.ts";
import { diskList, explain, status, volumes } from "./status-verbs.ts";
import { type InstallFlags, install } from "./install-verb.ts";
import { mountHelper, umountHelper } from "./mount-helper.ts";
import { upgrade } from "./upgrade-verb.ts";
import { type CreateFlags, create, type DestroyFlags, destroy, type MountFlags, mount, umount } from "./volume-verbs.ts";

export interface Output {
	/** Standard output and standard error. */
	out(text: string): void;
	err(text: string): void;
}

interface Json {
	readonly json?: boolean;
}

/** Parses and runs one command line (without `node` and the script). Answers the exit code. */
export async function runCommand(words: readonly string[], context: Context, output: Output, version: string): Promise<number> {
	const again = (other: readonly string[]): Promise<number> => runCommand(other, context, quiet(output), version);
	if (words[0] === "helper-mount") return mountHelper(words.slice(1), context, output, again);
	if (words[0] === "helper-umount") return umountHelper(words.slice(1), output, again);
	const run = new Run(words.includes("--json"), output);
	const program = createProgram(context, output, version, run);
	try {
		await program.parseAsync([...words], { from: "user" });
		return run.exitCode;
	} catch (error) {
		if (!(error instanceof CommanderError)) return run.fail(error);
		if (error.exitCode === 0) return exitCodes.done;
		return run.failUsage(error);
	}
}

/** mount(8) says nothing when all is well. */
function quiet(output: Output): Output {
	return { out: () => {}, err: (text) => output.err(text) };
}

class Run {
	exitCode: number = exitCodes.usage;
	readonly #json: boolean;
	readonly #output: Output;

	constructor(json: boolean, output: Output) {
		this.#json = json;
		this.#output = output;
	}

	print(outcome: Outcome): void {
		for (const warning of outcome.warnings ?? []) this.#output.err(`cairn: warning: ${warning}\n`);
		this.#output.out(this.#json ? `${JSON.stringify(outcome.json, undefined, 2)}\n` : outcome.text);
		this.exitCode = outcome.exitCode;
	}

	fail(error: unknown): number {
		const { code, site } = toFsError(error, "cli.failed");
		const message = printable(error instanceof Error ? error.message : String(error));
		this.#output.err(`cairn: ${message}\n`);
		// A fault of the program itself: its stack is what a report needs.
		if (!(error instanceof FsError) && error instanceof Error) this.#output.err(`${error.stack ?? ""}\n`);
		if (this.#json) this.#output.out(`${JSON.stringify({ error: { code, site, message } }, undefined, 2)}\n`);
		return exitCodeOf(error);
	}

	/** Commander has written its line and hint already. */
	failUsage(error: CommanderError): number {
		const message = error.message.replace(/^error: /, "");
		if (this.#json) this.#output.out(`${JSON.stringify({ error: { code: "EINVAL", site: "cli.usage", message } }, undefined, 2)}\n`);
		return exitCodes.usage;
	}
}

function createProgram(context: Context, output: Output, version: string, run: Run): Command {
	const program = new Command("cairn")
		.description("One file system over several disks: it survives their loss, heals itself and says truthfully what is safe.")
		.version(version, "-V, --version")
		.showSuggestionAfterError(true)
		.showHelpAfterError("(see cairn --help, or --help after a verb)")
		.exitOverride()
		.configureOutput({
			writeOut: (text) => output.out(text),
			writeErr: (text) => output.err(text.replace(/^error: /, "cairn: ")),
		});
	const verb = (parent: Command, usage: string, description: string, examples: readonly string[]): Command =>
		parent
			.command(usage)
			.description(description)
			.option("--json", "print JSON for programs")
			.addHelpText("after", `\nExamples:\n${examples.map((line) => `  ${line}\n`).join("")}`);
	addVolumeVerbs(program, verb, context, run);
	addCareVerbs(program, verb, context, run);
	addExportVerbs(program, verb, context, run);
	addBench(program, verb, context, run);
	addProfile(program, verb, context, run);
	program.addHelpText(
		"after",
		"\nExit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 refused, 5 degraded or data lost, 6 daemon unreachable.\n" +
			"Volumes are remembered in $CAIRN_HOME (/var/lib/cairn for root).\n",
	);
	return program;
}

/** `create`, `disk list` … */
function verbsOf(program: Command): string[] {
	return program.commands.flatMap((one) =>
		one.commands.length === 0 ? [one.name()] : one.commands.map((sub) => `${one.name()} ${sub.name()}`),
	);
}

type AddVerb = (parent: Command, usage: string, description: string, examples: readonly string[]) => Command;

function addVolumeVerbs(program: Command, verb: AddVerb, context: Context, run: Run): void {
	verb(program, "create", "Make a volume on empty directories, raw block devices or image files, each on a disk of its own", [
		"cairn create demo --disk /mnt/a --disk /mnt/b --disk /mnt/c",
		"cairn create demo --disk /dev/disk/by-id/ata-A /dev/disk/by-id/ata-B /srv/disk.img",
		"cairn create demo --disk /srv/d{1..6} --redundancy rs:4+2 --same-device",
	])
		.argument("<name>", "name of the volume")
		.requiredOption("--disk <paths...>", "empty directories, block devices, or files that stand for devices")
		.option("--redundancy <shape>", "rs:K+M or replicate:N; default by the number of disks")
		.option("--same-device", "directories on one device count as separate disks (they would be lost together)")
		.option("--force", "overwrite what other file systems or programs have on raw devices")
		.option("--allow-degraded", "begin with fewer disks than the redundancy needs")
		.action(async (name: string, flags: CreateFlags & Json) => run.print(await create(context, name, flags)));
	verb(program, "mount", "Mount a volume; its daemon stays in the background", [
		"cairn mount demo /mnt/demo",
		"cairn mount demo /mnt/demo -o ro,noatime",
		"cairn mount demo /mnt/demo --disk /mnt/a     # on a machine that does not know the volume yet",
	])
		.argument("<name>")
		.argument("<directory>", "an empty directory")
		.option("--foreground", "serve in this process until Ctrl-C")
		.option("--accept-loss", "go on although newer data may exist on missing disks; what is lost is lost")
		.option(
			"-o, --options <list>",
			"ro, root_only, nosuid, nodev, noexec, noatime, relatime, on_crash=resume|remount|die, metrics=PORT, log=text|json, local_lock=none|all, native_reads=on|off, native_reads_mib=N, fast_paths=on|off, low_cpu_latency=on|off, disk_lane=on|off, answer_now=on|off, wait_awake=on|off, coder_thread=on|off",
		)
		.option("--disk <paths...>", "look for disks here, too")
		.action(async (name: string, directory: string, flags: MountFlags & Json) => run.print(await mount(context, name, directory, flags)));
	verb(program, "umount", "Unmount; waits until everything is on the disks", ["cairn umount /mnt/demo"])
		.argument("<directory>")
		.action(async (directory: string) => run.print(await umount(context, directory)));
	verb(program, "upgrade", "Replace the daemon of a mounted volume by that of this installation; programs that use it wait a moment", [
		"cairn upgrade demo",
	])
		.argument("<name>")
		.action(async (name: string) => run.print(await upgrade(context, name)));
	verb(program, "install", "Let mount(8), fstab, systemd and bash know of cairn: helpers in /sbin, a unit, completion", [
		"cairn install",
		"cairn install --root /tmp/package --prefix /usr    # for packagers",
		"cairn install --remove",
	])
		.option("--prefix <dir>", "where bin, lib and share are", "/usr/local")
		.option("--root <dir>", "below another root directory")
		.option("--remove", "take away what was installed")
		.action((flags: InstallFlags & Json) => run.print(install(flags, verbsOf(program))));
	verb(program, "status", "Show protection, space, healing and disks of a volume, or of all", ["cairn status", "cairn status demo --json"])
		.argument("[name]")
		.action(async (name: string | undefined) => run.print(await status(context, name)));
	verb(program, "volumes", "List the volumes that this machine knows", ["cairn volumes"]).action(async () =>
		run.print(await volumes(context)),
	);
	verb(program, "destroy", "Remove a volume and everything in it from its disks", [
		"cairn destroy demo --yes demo",
		"cairn destroy demo --yes demo --disk /mnt/a   # one that this machine does not know; one disk finds the others",
	])
		.argument("<name>")
		.option("--yes <name>", "the name once more")
		.option("--disk <paths...>", "look for disks here, too")
		.action(async (name: string, flags: DestroyFlags) => run.print(await destroy(context, name, flags)));
}

function addCareVerbs(program: Command, verb: AddVerb, context: Context, run: Run): void {
	const disk = program.command("disk").description("The disks of a volume: list, add, drain, remove, replace");
	verb(disk, "list", "List the disks of a volume", ["cairn disk list demo"])
		.argument("<name>")
		.action(async (name: string) => run.print(await diskList(context, name)));
	addDiskChanges(disk, verb, context, run);
	verb(disk, "show", "Show one disk: how far it is trusted and why, its errors, what became of it", ["cairn disk show demo d3"])
		.argument("<name>")
		.argument("<disk>", "id (d3) or path")
		.action(async (name: string, which: string) => run.print(await diskShow(context, name, which)));
	verb(disk, "set", "Say how far a disk is to be trusted; what happens to it does not change that until you say auto", [
		"cairn disk set demo d3 degraded             # written only where others do not do",
		"cairn disk set demo d3 suspect              # only read",
		"cairn disk set demo d3 failed               # not used at all, over restarts; refused while data would be lost with it",
		"cairn disk set demo d3 auto                 # errors and time decide",
	])
		.argument("<name>")
		.argument("<disk>", "id (d3) or path")
		.argument("<health>", "auto, healthy, degraded, suspect or failed")
		.action(async (name: string, which: string, health: string) => run.print(await diskSet(context, name, which, health)));
	verb(disk, "replace", "Put an empty disk in the place of another; healing or moving begins by itself", [
		"cairn disk replace demo d3                  # lost: the same place, now empty",
		"cairn disk replace demo /mnt/c /mnt/new     # lost or working: one that works is a source until it is empty, and then leaves",
	])
		.argument("<name>")
		.argument("<disk>", "id (d3) or path of the disk that goes")
		.argument("[newpath]", "where the new disk is; default: the same place")
		.option("--dry-run", "only say what would be moved or made anew, how long that takes, and what is risked")
		.option("--force", "overwrite what other file systems or programs have on a raw device")
		.action(async (name: string, which: string, newPath: string | undefined, flags: Force & DryRun) =>
			run.print(await diskReplace(context, name, which, newPath, flags)),
		);
	verb(program, "heal", "Bring everything to its full protection", [
		"cairn heal demo --wait",
		"cairn heal demo --tranquility 4             # rest four times as long as it works; kept until changed",
		"cairn heal demo --pause                     # and --resume; over restarts, too",
	])
		.argument("<name>")
		.option("--wait", "return when nothing more can be done; exit code 5 if that is not everything, 4 if the healer is paused")
		.option("--tranquility <times>", "0 to 100: rest so many times as long as it works")
		.option("--pause", "rebuild nothing until it is resumed")
		.option("--resume", "go on")
		.action(async (name: string, flags: HealFlags) => run.print(await heal(context, name, flags)));
	verb(program, "balance", "Move fragments until all disks have the same free space left, as gently as healing and after it", [
		"cairn balance demo --dry-run                # bytes to move, time, and what each disk will hold",
		"cairn balance demo --wait",
		"cairn balance demo --cancel                 # what has moved stays where it is",
		"cairn heal demo --pause                     # pauses a balance, too; --tranquility slows it",
	])
		.argument("<name>")
		.option("--wait", "return when the disks are even; exit code 5 if that is not possible now, 4 if the healer is paused")
		.option("--dry-run", "only say what would move")
		.option("--cancel", "call it off")
		.action(async (name: string, flags: BalanceFlags) => run.print(await balance(context, name, flags)));
	verb(program, "scrub", "Read everything by itself, so that damage is found while it can be mended", [
		"cairn scrub demo status",
		"cairn scrub demo start --intensity high     # now; --dry-run repairs nothing",
		"cairn scrub demo pause                      # resume, stop",
		"cairn scrub demo schedule nightly --hour 2  # UTC; or off, manual, continuous",
	])
		.argument("<name>")
		.argument("<action>", "start, pause, resume, stop, status or schedule")
		.argument("[schedule]", "off, manual, nightly or continuous")
		.option("--dry-run", "start: repair nothing")
		.option("--intensity <how>", "low, medium or high: rests of 100, 50 or 10 ms after 1, 5 or 20 segments")
		.option("--hour <hour>", "schedule: when the night begins, 0 to 23, UTC; it lasts six hours")
		.action(async (name: string, action: string, schedule: string | undefined, flags: ScrubFlags) =>
			run.print(await scrub(context, name, action, schedule, flags)),
		);
	verb(program, "verify", "Read every fragment and all metadata, compare checksums, repair", [
		"cairn verify demo",
		"cairn verify demo --dry-run --json",
		"cairn verify demo --lost",
		"cairn verify demo --garbage --dry-run       # what lies on the disks and nothing names",
	])
		.argument("<name>")
		.option("--dry-run", "repair nothing")
		.option("--lost", "name the files that have lost contents")
		.option("--garbage", "instead look for what lies on the disks and no record names; what was found so for a day is given back")
		.option("--resume", "go on with a verify that was interrupted: what was proven since it began is not read again")
		.action(async (name: string, flags: VerifyFlags) => run.print(await verify(context, name, flags)));
	verb(program, "ledger", "Show what is protected: asked for, proven by reading, only recorded, under-protected and why", [
		"cairn ledger demo",
		"cairn ledger demo --json",
	])
		.argument("<name>")
		.action(async (name: string) => run.print(await ledger(context, name)));
	verb(program, "set", "Say how a file, a directory and what is made in it, or a volume by default, is to be protected", [
		"cairn set /mnt/demo/photos --redundancy replicate:3",
		"cairn set /mnt/demo/film.mkv --redundancy rs:4+2 --now",
		"cairn set /mnt/demo/photos --redundancy inherit",
		"cairn set demo --redundancy rs:4+2          # the volume's default",
	])
		.argument("<path>", "a path in a mounted volume; its mount point or its name for the default")
		.option("--redundancy <value>", "rs:K+M, replicate:N, or inherit from above")
		.option("--now", "return when everything is rewritten; exit code 5 if that is not possible now")
		.option("--allow-degraded", "accept what the disks cannot hold in full yet")
		.action(async (path: string, flags: SetFlags) => run.print(await setProtection(context, path, flags)));
	addLocks(program, verb, context, run);
	verb(program, "explain", "Show where the contents of a file lie and what protects them", ["cairn explain /mnt/demo/film.mkv"])
		.argument("<path>")
		.action(async (path: string) => run.print(await explain(context, path)));
}

function addLocks(program: Command, verb: AddVerb, context: Context, run: Run): void {
	const examples = ["cairn locks                                  # of all mounted volumes", "cairn locks /mnt/demo/mail.db"];
	const all = verb(program, "locks", "Show who has locked files, since when, and who waits for them", examples)
		.argument("[path]", "a file, a mount point, or the name of a volume")
		.action(async (path: string | undefined) => run.print(await locks(context, path)));
	verb(all, "break", "Take locks of a file away from programs that hold them; these are not told", [
		"cairn locks break /mnt/demo/mail.db --yes",
		"cairn locks break /mnt/demo/mail.db --owner fuse:00c0ffee00c0ffee --yes",
	])
		.argument("<path>")
		.option("--owner <owner>", "only those of one owner, as cairn locks shows it")
		.option("--yes", "the programs that hold them cannot spoil anything")
		.action(async (path: string, flags: { owner?: string; yes?: boolean }) => run.print(await breakLocks(context, path, flags)));
}

function addDiskChanges(disk: Command, verb: AddVerb, context: Context, run: Run): void {
	verb(disk, "add", "Take empty disks into a mounted volume; they are used at once, and under-protected data is healed onto them", [
		"cairn disk add demo /mnt/g /mnt/h",
		"cairn disk add demo /mnt/g --dry-run        # what would change",
	])
		.argument("<name>")
		.argument("<paths...>", "empty directories, block devices, or files that stand for devices")
		.option("--force", "overwrite what other file systems or programs have on raw devices")
		.option("--dry-run", "only say what would change")
		.action(async (name: string, paths: string[], flags: DryRun & Force) => run.print(await diskAdd(context, name, paths, flags)));
	verb(disk, "drain", "Move everything off a disk, while the volume is in use and over restarts, with no less protection meanwhile", [
		"cairn disk drain demo d3 --dry-run          # bytes to move, and whether they fit",
		"cairn disk drain demo d3 --wait",
		"cairn disk drain demo d3 --cancel",
	])
		.argument("<name>")
		.argument("<disk>", "id (d3) or path")
		.option("--wait", "return when the disk is empty, or when nothing more can be moved (exit code 5)")
		.option("--dry-run", "only say what would move")
		.option("--cancel", "use the disk again; what has moved stays where it is")
		.option("--allow-degraded", "too few disks stay for the redundancy asked for: keep the data in a shape that survives as many losses")
		.action(async (name: string, which: string, flags: DrainFlags) => run.print(await diskDrain(context, name, which, flags)));
	verb(disk, "remove", "Let a drained (or lost) disk go; refused while it holds anything that is needed", [
		"cairn disk remove demo d3 --dry-run         # what it still holds",
		"cairn disk remove demo d3",
	])
		.argument("<name>")
		.argument("<disk>", "id (d3) or path")
		.option("--dry-run", "only say whether it could go")
		.action(async (name: string, which: string, flags: DryRun) => run.print(await diskRemove(context, name, which, flags)));
}

function addExportVerbs(program: Command, verb: AddVerb, context: Context, run: Run): void {
	const parent = program
		.command("export")
		.description("Serve a mounted volume, or directories in it, to NFS clients: add, list, remove, serve");
	verb(parent, "add", "Serve a volume or a directory in it over NFS (version 3), from now on and whenever it is mounted", [
		"cairn export add demo                                   # for this machine alone",
		"cairn export add demo --clients 192.168.1.0/24",
		"cairn export add demo:/public --clients 192.168.1.0/24 2001:db8::/64 --ro --squash all",
		"mount -t nfs -o vers=3,nolock,proto=tcp,port=PORT,mountport=PORT HOST:/demo DIR     # on the client; PORT: cairn export list",
	])
		.argument("<name[:/directory]>", "a mounted volume, or a directory in it")
		.option("--clients <ranges...>", "addresses that may use it (192.0.2.0/24, 2001:db8::/32, one address); default: this machine alone")
		.option("--squash <whom>", "root: clients' root becomes nobody; all: everybody does; none: clients' root is root here", "root")
		.option("--anonymous <uid:gid>", "who nobody is", "65534:65534")
		.option("--ro", "nothing can be changed through it")
		.option("--any-port", "accept calls from ports above 1023 too, which any user of a client could send in another's name")
		.action(async (what: string, flags: ExportFlags) => run.print(await exportAdd(context, what, flags)));
	verb(parent, "list", "List what is exported, and where clients find it", ["cairn export list", "cairn export list demo --json"])
		.argument("[name]")
		.action(async (name: string | undefined) => run.print(await exportList(context, name)));
	verb(parent, "remove", "Serve it no more; clients that have it mounted get errors", ["cairn export remove demo:/public"])
		.argument("<name[:/directory]>")
		.action(async (what: string) => run.print(await exportRemove(context, what)));
	verb(parent, "serve", "Say on which port the exports of a volume are served, and whether a port mapper tells", [
		"cairn export serve demo --port 2049",
		"cairn export serve demo --portmapper system             # the rpcbind of this machine tells clients the port",
		"cairn export serve demo --portmapper own                # listens on port 111 itself",
	])
		.argument("<name>")
		.option("--port <number>", "of NFS and MOUNT, over TCP; MOUNT over UDP too")
		.option("--portmapper <which>", "none, own or system")
		.option("--name <host>", "what clients call this server where they name no address; they are told of a restart under it too")
		.action(async (name: string, flags: ServeFlags) => run.print(await exportServe(context, name, flags)));
}

function addProfile(program: Command, verb: AddVerb, context: Context, run: Run): void {
	verb(program, "profile", "Show which requests a mount gets, how long they take, for which files and from whom", [
		"cairn profile demo",
		"cairn profile demo --follow             # until Ctrl-C",
		"cairn profile demo --seconds 60 --json",
	])
		.argument("<name>")
		.option("--seconds <n>", "how long one look takes (5; with --follow 1)")
		.option("--follow", "look again and again, until Ctrl-C")
		.action(async (name: string, flags: ProfileFlags) => run.print(await profile(context, name, flags)));
}

function addBench(program: Command, verb: AddVerb, context: Context, run: Run): void {
	verb(program, "bench", "Measure how fast a directory is, on any file system; with a second one, both in the same run", [
		"cairn bench /srv/photos",
		"cairn bench /srv/photos /var/tmp        # beside the plain disk",
		"cairn bench /srv/photos --only files tree --clients 4",
	])
		.argument("<directory>", "where it writes; it removes what it made")
		.argument("[other]", "a directory to compare with")
		.option("--files <n>", "empty files; a quarter as many small ones (2000)")
		.option("--mib <n>", "size of the big file (256)")
		.option("--clients <n>", "as many processes do all of it at once (1)")
		.option("--only <groups...>", benchGroups.join(", "))
		.option("--drop-caches", "before cold rows the kernel forgets everything it knows, of all file systems (root)")
		.action(async (directory: string, other: string | undefined, flags: BenchFlags) =>
			run.print(await bench(context, other === undefined ? [directory] : [directory, other], flags)),
		);
}
