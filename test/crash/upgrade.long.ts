/**
 * Two versions side by side (`npm run test:long upgrade`): a newer one serves a mount, programs have files open and locked, and this one is asked to take over what it cannot know. It has to refuse before it changes anything, and
 * the newer one goes on: no error, no handle and no lock is lost.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { cannotMount, execute, missingPrograms, TestVolume } from "../support/cairn.ts";
import { type Difference, installation } from "./upgrade.ts";

const skip = cannotMount() ?? missingPrograms("python3") ?? false;

interface Version {
	readonly title: string;
	readonly differences: readonly Difference[];
	/** What this version says of it. */
	readonly refusal: RegExp;
}

const handles = "volume/native/handle-memory.js";
const locks = "locks/memory.js";
const link = "daemon/keeper-link.js";

const versions: readonly Version[] = [
	{
		title: "handles in a newer format",
		differences: [[handles, "const formatVersion = 2;", "const formatVersion = 3;"]],
		refusal: /handles was written by a newer Cairn \(format 3\)/,
	},
	{
		title: "handles with a mark that is not known",
		differences: [
			[handles, "trusted: 64 }", "trusted: 64, tomorrow: 128 }"],
			[handles, "let state = bits.open;", "let state = bits.open | bits.tomorrow;"],
		],
		refusal: /what this mount has open was written by a newer Cairn/,
	},
	{
		title: "room for more handles",
		differences: [["volume/native/limits.js", "handles: 262_144,", "handles: 300_000,"]],
		refusal: /handles has \d+ bytes instead of \d+: another version/,
	},
	{
		title: "locks in a newer format",
		differences: [[locks, "const formatVersion = 1;", "const formatVersion = 2;"]],
		refusal: /locks was written by a newer Cairn \(format 2\)/,
	},
	{
		title: "records of locks of kinds that are not known",
		differences: [[locks, "{ set: 1, clear: 2, note: 3 }", "{ set: 11, clear: 12, note: 13 }"]],
		refusal: /what programs have locked was written by a newer Cairn/,
	},
	{
		title: "a protocol of its own with its keeper",
		differences: [[link, "resumeVersion = 1", "resumeVersion = 2"]],
		refusal: /begun by another version of Cairn \(it speaks version 2/,
	},
	{
		title: "an agreement with the kernel that is not known",
		differences: [
			[link, 'minor: "number",', 'minor: "number", tomorrow: "boolean",'],
			["daemon/daemon.js", "{ ...resume, negotiated }", "{ ...resume, negotiated: { ...negotiated, tomorrow: true } }"],
		],
		refusal: /it agreed with the kernel on tomorrow/,
	},
];

/** Has a file without a name open, with a lock of it, and says whether it still has. */
const holder = `
import fcntl, os, sys
path, other = sys.argv[1], sys.argv[2]
fd = os.open(path, os.O_RDWR | os.O_CREAT)
os.write(fd, b"before ")
locked = os.open(other, os.O_RDWR | os.O_CREAT)
fcntl.lockf(locked, fcntl.LOCK_EX, 10, 5)
os.unlink(path)
print("held", flush=True)
for line in sys.stdin:
    os.write(fd, b"after ")
    print(os.pread(fd, 100, 0).decode(), flush=True)
`;
/** Whether somebody else holds the lock. */
const asker = `
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
try:
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 14)
    print("free")
except OSError: print("held")
`;

class Holder {
	readonly #child: ChildProcess;
	readonly #other: string;
	#said = "";
	readonly #ended: Promise<unknown>;

	constructor(volume: TestVolume) {
		this.#other = join(volume.mountpoint, "locked");
		this.#child = spawn("python3", ["-c", holder, join(volume.mountpoint, "held"), this.#other], { stdio: ["pipe", "pipe", "inherit"] });
		this.#ended = new Promise((resolve) => this.#child.once("close", resolve));
		this.#child.stdout?.setEncoding("utf8").on("data", (text: string) => {
			this.#said += text;
		});
	}

	async line(): Promise<string> {
		for (let i = 0; !this.#said.includes("\n"); i++) {
			assert.ok(i < 3000 && this.#child.exitCode === null, "the holder says something");
			await new Promise((resolve) => setTimeout(resolve, 20));
		}
		const [line = "", ...rest] = this.#said.split("\n");
		this.#said = rest.join("\n");
		return line;
	}

	async expect(contents: string): Promise<void> {
		this.#child.stdin?.write("look\n");
		assert.equal(await this.line(), contents);
		assert.equal((await execute("python3", ["-c", asker, this.#other])).stdout, "held\n");
	}

	async end(): Promise<void> {
		this.#child.kill("SIGKILL");
		await this.#ended;
	}
}

describe("a newer version serves, and this one is asked to take over", { skip }, () => {
	let volume: TestVolume;
	before(async () => {
		volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
		await volume.unmount();
	});
	after(() => volume?.close());

	const served = (): string => readFileSync(`/proc/${volume.daemons()[0]}/cmdline`, "utf8");

	for (const [index, { title, differences, refusal }] of versions.entries())
		test(`${title}: refused, and the newer one goes on`, async () => {
			const newer = installation(join(volume.base, `newer${index}`), differences);
			const mounted = await volume.tryOf(newer, "mount", volume.name, volume.mountpoint);
			assert.equal(mounted.code, 0, mounted.stderr);
			const holding = new Holder(volume);
			try {
				assert.equal(await holding.line(), "held");
				await holding.expect("before after ");
				const { code, stderr } = await volume.try("upgrade", volume.name);
				assert.equal(code, 1, `${stderr}\n${volume.log()}`);
				assert.match(stderr, /could not serve .* goes on/);
				assert.match(volume.log(), refusal);
				assert.match(served(), /newer/);
				await holding.expect("before after after ");
				// It can be followed as before.
				await volume.successorOf(volume.killDaemon());
				await holding.expect("before after after after ");
				assert.match(served(), /newer/);
			} finally {
				await holding.end();
				await volume.tryOf(newer, "umount", volume.mountpoint);
			}
		});

	test("a daemon says something that its keeper does not understand, and is followed all the same", async () => {
		const weather = 'await link.tell({ kind: "weather", is: "fine" }); await link.tell({ kind: "serving" })';
		const newer = installation(join(volume.base, "chatty"), [["daemon/keeping.js", 'await link.tell({ kind: "serving" })', weather]]);
		const mounted = await volume.tryOf(newer, "mount", volume.name, volume.mountpoint);
		assert.equal(mounted.code, 0, mounted.stderr);
		const holding = new Holder(volume);
		try {
			assert.equal(await holding.line(), "held");
			await volume.successorOf(volume.killDaemon());
			await holding.expect("before after ");
			assert.match(volume.log(), /keeper does not understand: .*weather/);
			// The same formats: this version can go on.
			await volume.cairn("upgrade", volume.name);
			await holding.expect("before after after ");
			assert.doesNotMatch(served(), /chatty/);
		} finally {
			await holding.end();
			await volume.try("umount", volume.mountpoint);
		}
	});
});
