/**
 * Public suites through the Linux client in a guest (lab/), where somebody has built them: pjdfstest (PJDFSTEST_DIR), the Connectathon suite (CTHON_DIR), the fcntl and flock tests of the Linux Test Project (LTP_DIR).
 * `CTHON_DIR=/where/it/is npm run test:long nfs-suites -- --pjdfstest rename,link`: of pjdfstest the named folders alone; all take half an hour. They run as they are, with the programs of this machine.
 */
import assert from "node:assert/strict";
import { copyFileSync, cpSync, existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { cannotStartGuests, Guest } from "../lab/guest.ts";
import { cannotMount, execute, missingPrograms, must, TestVolume } from "../support/cairn.ts";

const commandLine = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));

/** Where a suite is, and what must be there when it is built. */
interface PublicSuite {
	readonly variable: string;
	readonly built: string;
}

const pjdfstest: PublicSuite = { variable: "PJDFSTEST_DIR", built: "pjdfstest" };
const connectathon: PublicSuite = { variable: "CTHON_DIR", built: "lock/tlocklfs" };
const linuxTests: PublicSuite = { variable: "LTP_DIR", built: "testcases/kernel/syscalls/fcntl/fcntl01" };

const folderOf = ({ variable }: PublicSuite): string => process.env[variable] ?? "";
function absent(suite: PublicSuite): string | undefined {
	const folder = folderOf(suite);
	if (folder === "") return `${suite.variable} does not say where it is`;
	return existsSync(join(folder, suite.built)) ? undefined : `${folder} is not built: there is no ${suite.built}`;
}

const noneIsThere = [pjdfstest, connectathon, linuxTests].every((suite) => absent(suite) !== undefined);
const reason = (noneIsThere ? "no suite is there: PJDFSTEST_DIR, CTHON_DIR, LTP_DIR" : undefined) ?? cannotMount() ?? cannotStartGuests();

/** What fails on every server of NFS version 3 (the kernel's own, on ext4, fails in the same places), and why. */
const pjdfstestFails: ReadonlyMap<string, { readonly tests: readonly number[]; readonly why: string }> = new Map([
	["unlink/14.t", { tests: [4], why: "the client renames what is removed while it is open: it still has a name" }],
	["utimensat/09.t", { tests: [5], why: "a time of 2^32 seconds: NFS version 3 has 32 bits for them" }],
]);

/** The same of the Linux Test Project. */
const linuxTestsFail: ReadonlyMap<string, string> = new Map([
	["fcntl27", "the client gives no leases (EINVAL); the test expects EAGAIN"],
	["fcntl27_64", "the same"],
	["fcntl35", "pipes alone: it depends on what else runs on the machine"],
	["fcntl35_64", "the same"],
]);

/** A root of the guest with this machine's programs, so that compilers, perl and roff are where suites look for them: /suites are theirs, /mnt the volume, /base what this machine sees too. */
const makeRoot = `
set -e
r=/tmp/root
mkdir -p $r/usr $r/etc/alternatives $r/dev $r/proc $r/tmp $r/mnt $r/base $r/suites $r/var/tmp
mount --bind /host/usr $r/usr
mount --bind /host/alternatives $r/etc/alternatives
for name in bin sbin lib lib64; do ln -s usr/$name $r/$name; done
mount --rbind /dev $r/dev
mount -t proc proc $r/proc
mount --bind /host/base $r/base
cp /etc/passwd /etc/group $r/etc/
chmod 1777 $r/tmp
for suite in /host/suite-*; do
	[ -d $suite ] || continue
	mkdir $r/suites/\${suite#/host/suite-}
	mount --bind $suite $r/suites/\${suite#/host/suite-}
done
`;

/** What prove tells of files that failed: name below tests/, numbers of tests ("3-5, 7"); -1: it did not end as it should. */
function failuresOf(told: string): Map<string, number[]> {
	const found = new Map<string, number[]>();
	let file = "";
	for (const line of told.split("\n")) {
		file = /tests\/(\S+\.t) +\(Wstat: /.exec(line)?.[1] ?? file;
		const numbers = /Failed tests?: +([-0-9, ]+)/.exec(line)?.[1];
		const before = found.get(file) ?? [];
		if (numbers !== undefined) found.set(file, [...before, ...numbersOf(numbers)]);
		else if (/Parse errors|Non-zero (exit|wait) status/.test(line)) found.set(file, [...before, -1]);
	}
	return found;
}

function numbersOf(list: string): number[] {
	const parts = list.split(",").filter((part) => part.trim() !== "");
	return parts.flatMap((part) => {
		const [first = 0, last = first] = part.split("-").map(Number);
		return Array.from({ length: last - first + 1 }, (_, i) => first + i);
	});
}

describe("public suites through the Linux client", { skip: reason ?? false }, () => {
	let volume: TestVolume;
	let guest: Guest;

	const inNetwork = (...words: readonly string[]): Promise<string> =>
		must("nsenter", [`--net=/run/netns/${guest.network}`, process.execPath, commandLine, ...words], {
			env: { CAIRN_HOME: join(volume.base, "home") },
		});
	/** A script of the guest's bash, in the root with this machine's programs. Answers what it told, whatever its end. */
	const inRoot = async (script: string, timeoutMs: number): Promise<{ readonly code: number | null; readonly told: string }> => {
		writeFileSync(join(guest.base, "script"), script);
		const { code, stdout, stderr } = await guest.run("chroot /tmp/root bash /base/script 2>&1", { timeoutMs });
		return { code, told: stdout + stderr };
	};

	before(async () => {
		const suites = [pjdfstest, connectathon, linuxTests].filter((suite) => absent(suite) === undefined);
		// The Connectathon suite compiles where it lies: a copy.
		const shares = suites.map((suite) => `suite-${suite.variable}=${folderOf(suite)}:ro`);
		guest = await Guest.prepare({
			disks: 0,
			diskBytes: 0,
			memoryMiB: 768,
			shares: ["usr=/usr:ro", "alternatives=/etc/alternatives:ro", ...shares],
		});
		volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
		await volume.unmount();
		await inNetwork("mount", volume.name, volume.mountpoint);
		await inNetwork("export", "add", volume.name, "--clients", "10.77.0.0/24", "--squash", "none");
		await inNetwork("export", "serve", volume.name, "--portmapper", "own");
		await guest.start();
		await guest.must(makeRoot);
		await guest.must(`rpc.statd --no-notify && mount -t nfs -o vers=3,proto=tcp $LAB_HOST:/${volume.name} /tmp/root/mnt`);
	});
	after(async () => {
		await guest?.close();
		await volume?.close();
	});

	for (const part of ["basic", "general", "special", "lock"])
		test(`Connectathon: ${part}`, {
			skip: absent(connectathon) ?? (part === "general" ? missingPrograms("cc", "tbl", "nroff", "time", "make") : undefined) ?? false,
		}, async () => {
			const copy = join(guest.base, `cthon-${part}`);
			mkdirSync(copy);
			for (const name of ["tests.init", "tests.h", "unixdos.h"]) copyFileSync(join(folderOf(connectathon), name), join(copy, name));
			cpSync(join(folderOf(connectathon), part), join(copy, part), { recursive: true });
			const { code, told } = await inRoot(`cd /base/cthon-${part}/${part} && NFSTESTDIR=/mnt/${part} sh ./runtests -t`, 900_000);
			assert.equal(code, 0, told.slice(-6000));
			assert.match(told, /Congratulations|tests complete/i);
			assert.doesNotMatch(told, /FAILED|[1-9]\d*\/\d+ fail/);
		});

	test("Linux Test Project: fcntl and flock, through the client and through the mount", {
		skip: absent(linuxTests) ?? false,
	}, async (t) => {
		const calls = ["flock", "fcntl"];
		const programs = calls.flatMap((call) =>
			readdirSync(join(folderOf(linuxTests), "testcases/kernel/syscalls", call))
				.filter((name) => /^(flock|fcntl)[0-9]+(_64)?$/.test(name))
				.map((name) => join("testcases/kernel/syscalls", call, name)),
		);
		const script = (root: string, work: string): string =>
			[
				`mkdir -m 777 -p ${work} && cd ${work}`,
				`export LTPROOT=${root} TMPDIR=${work} KCONFIG_SKIP_CHECK=1 LTP_TIMEOUT_MUL=5`,
				`for program in ${programs.join(" ")}; do`,
				`  told=$(PATH=$PATH:${root}/$(dirname $program) timeout 600 ${root}/$program 2>&1); code=$?`,
				'  echo "ended $(basename $program) $code"; [ $code = 0 ] || echo "$told" | tail -20',
				"done",
			].join("\n");
		/** 32: left out by the test itself (TCONF). */
		const judge = (where: string, told: string): void => {
			const ends = [...told.matchAll(/^ended (\S+) (\d+)$/gm)].map(([, name = "", code = ""]) => ({ name, code: Number(code) }));
			assert.equal(ends.length, programs.length, told.slice(-3000));
			const failed = ends.filter(({ name, code }) => code !== 0 && code !== 32 && !linuxTestsFail.has(name));
			const left = ends.filter(({ code }) => code === 32).map(({ name }) => name);
			t.diagnostic(
				`${where}: ${ends.filter(({ code }) => code === 0).length} of ${ends.length} passed, left out by themselves: ${left.join(" ")}`,
			);
			assert.deepEqual(failed, [], `${where}\n${told.slice(-12_000)}`);
		};
		judge("NFS", (await inRoot(script("/suites/LTP_DIR", "/mnt/ltp"), 1800_000)).told);
		const here = await execute("bash", ["-c", script(folderOf(linuxTests), join(volume.mountpoint, "ltp-mount"))], { timeoutMs: 1800_000 });
		judge("mount", here.stdout + here.stderr);
	});

	test("pjdfstest", { skip: absent(pjdfstest) ?? missingPrograms("prove") ?? false }, async (t) => {
		const folders = (process.env["CAIRN_PJDFSTEST"] ?? "").split(",").filter((name) => name !== "");
		const paths = (folders.length === 0 ? [""] : folders).map((name) => `/suites/PJDFSTEST_DIR/tests/${name}`);
		const { told } = await inRoot(`mkdir /mnt/pjd && cd /mnt/pjd && prove -Q -r ${paths.join(" ")}`, 4 * 3600_000);
		t.diagnostic(told.trim().split("\n").at(-2) ?? "");
		assert.match(told, /^Files=\d+, Tests=[1-9]/m, told.slice(-3000));
		const unexpected = [...failuresOf(told)].filter(([file, numbers]) => {
			const known = pjdfstestFails.get(file)?.tests ?? [];
			return numbers.some((number) => !known.includes(number));
		});
		assert.deepEqual(unexpected, [], told.slice(-6000));
		for (const [file, { tests, why }] of pjdfstestFails) t.diagnostic(`known to fail: ${file} ${tests.join()}: ${why}`);
	});
});
