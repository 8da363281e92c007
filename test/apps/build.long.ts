/**
 * Building C programs on a mount with `make -j2`, from Debian's sources: what comes out is byte for byte what the same build makes elsewhere, the programs' own tests pass, and a second `make`, also
 * after a remount, finds everything up to date. Times of files decide that.
 */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { cannotMount, execute, must, TestVolume } from "../support/cairn.ts";
import { programsFrom } from "../support/packages.ts";

const minutes = 60_000;

interface Program {
	readonly source: string;
	readonly configure: string;
	readonly make: string;
	readonly check: string;
	/** What make says or does not say when nothing is left to do; programs and objects that are compared. */
	readonly compared: string;
}

const programs: readonly Program[] = [
	{ source: "zlib", configure: "./configure", make: "make -j2", check: "make test", compared: "*.o *.a *.so.* minigzip example" },
	{
		source: "lua5.4",
		configure: "true",
		make: "make -j2 linux MYLIBS= MYCFLAGS=",
		check: "src/lua -e 'assert(2^10 == 1024)'",
		compared: "src/*.o src/*.a src/lua src/luac",
	},
	{
		source: "hello",
		configure: "./configure --quiet",
		make: "make -j2",
		check: "make check",
		compared: "*.o src/*.o lib/*.o lib/*.a hello",
	},
];

const home = mkdtempSync(join(tmpdir(), "cairn-sources-"));

/** Debian's sources, without touching what this machine's package manager knows. Why not, when not. */
async function fetchSources(): Promise<string | undefined> {
	const targets = await execute("apt-get", [
		"indextargets",
		"--format",
		"$(REPO_URI) $(RELEASE) $(COMPONENT)",
		"Created-By: Packages",
		"Origin: Debian",
	]);
	const lines = new Set(targets.stdout.split("\n").filter((line) => /^https?:\S+ \S+ main$/.test(line)));
	if (lines.size === 0) return "the package manager knows no Debian archive";
	for (const folder of ["lists/partial", "parts"]) mkdirSync(join(home, folder), { recursive: true });
	writeFileSync(join(home, "parts/sources.list"), [...lines].map((line) => `deb-src ${line}\n`).join(""));
	const options = [
		"-qq",
		"-o",
		"Dir::Etc::SourceList=/dev/null",
		"-o",
		`Dir::Etc::SourceParts=${join(home, "parts")}`,
		"-o",
		`Dir::State::Lists=${join(home, "lists")}`,
	];
	const outcome = await execute("apt-get", [...options, "update"], { timeoutMs: 5 * minutes });
	if (outcome.code !== 0) return `no package lists: ${outcome.stderr.slice(0, 200)}`;
	const words = [...options, "source", "--download-only", ...programs.map(({ source }) => source)];
	const fetched = await execute("apt-get", words, { cwd: home, timeoutMs: 5 * minutes });
	return fetched.code === 0 ? undefined : `no sources: ${fetched.stderr.slice(0, 200)}`;
}

async function reasonToSkip(): Promise<string | undefined> {
	const missing =
		cannotMount() ??
		(await programsFrom(["gcc", "libc6-dev", "make", "xz-utils", "bzip2"], "gcc", "make", "tar", "xz", "bzip2", "apt-get"));
	return missing ?? (await fetchSources());
}

const reason = await reasonToSkip();

function archiveOf(source: string): string {
	const name = readdirSync(home).find((name) => name.startsWith(`${source}_`) && /\.orig\.tar\.(gz|xz|bz2)$/.test(name));
	assert.ok(name !== undefined, `the archive of ${source}`);
	return join(home, name);
}

describe("C programs built on a mount", { skip: reason ?? false }, () => {
	let volume: TestVolume | undefined;
	after(async () => {
		await volume?.close();
		rmSync(home, { recursive: true, force: true });
	});

	test("objects as built elsewhere, their own tests, nothing left to do", async (t) => {
		volume = await TestVolume.start({ disks: 6, redundancy: "rs:4+2" });
		const inside = join(volume.mountpoint, "build");
		const beside = join(volume.base, "build");
		// Paths get into objects by __FILE__ and debug information: both builds are at the same place, one after the other.
		const place = join(volume.base, "place");
		const run = (line: string, folder: string): Promise<string> =>
			must("unshare", ["-m", "bash", "-c", `set -euo pipefail; mount --bind '${folder}' '${place}'; cd '${place}'; ${line}`], {
				timeoutMs: 30 * minutes,
			});
		mkdirSync(place);
		for (const { source, configure, make, check, compared } of programs) {
			const sums: string[] = [];
			for (const where of [beside, inside]) {
				const folder = join(where, source);
				mkdirSync(folder, { recursive: true });
				await must("tar", ["-C", folder, "--strip-components=1", "-xf", archiveOf(source)]);
				const start = performance.now();
				await run(`export CFLAGS=-O1; ${configure}; ${make}`, folder);
				t.diagnostic(`${source} ${where === inside ? "on the mount" : "elsewhere"}: ${((performance.now() - start) / 1000).toFixed(1)} s`);
				sums.push(await run(`shopt -s nullglob; sha256sum ${compared}`, folder));
				await run(check, folder);
			}
			assert.ok((sums[0] ?? "").split("\n").length > 5, `${source}: objects were made`);
			assert.equal(sums[1], sums[0], `${source}: the same objects`);
		}
		const made = (
			await must("bash", ["-c", "find . -newermt '1 hour ago' -name '*.o' -printf '%p %T@\\n' | LC_ALL=C sort"], { cwd: inside })
		).trim();
		for (const when of ["at once", "after a remount"]) {
			if (when === "after a remount") await volume.remount();
			for (const { source, make } of programs) await run(make, join(inside, source));
			const now = (await must("bash", ["-c", "find . -name '*.o' -printf '%p %T@\\n' | LC_ALL=C sort"], { cwd: inside })).trim();
			assert.equal(now, made, `${when}: nothing was compiled again`);
		}
		await must("bash", ["-c", "for p in */; do make -C $p clean > /dev/null; done; rm -rf *"], { cwd: inside, timeoutMs: 10 * minutes });
	});
});
