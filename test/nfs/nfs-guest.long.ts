/**
 * The client of a Linux kernel, in a guest (lab/), on an export of a volume that is mounted here: the POSIX suite, git, SQLite, fio, and kill -9 of the server in the middle of it all. `npm run test:long nfs-guest -- --kills 8`.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { cannotStartGuests, Guest, guestRepository } from "../lab/guest.ts";
import { cannotMount, execute, must, sleep, TestVolume } from "../support/cairn.ts";

const kills = Number(process.env["CAIRN_KILLS"] ?? 8);
const posixProgram = fileURLToPath(new URL("guest-posix.js", import.meta.url));
const repository = fileURLToPath(new URL("../../..", import.meta.url));
const commandLine = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
const reason = cannotMount() ?? cannotStartGuests();

/** Programs of this machine that the guest lacks; its own come first. */
const borrowed =
	"export PATH=$PATH:/host/usr/bin GIT_EXEC_PATH=/host/usr/lib/git-core LD_LIBRARY_PATH=/host/usr/lib/x86_64-linux-gnu HOME=/tmp GIT_TEMPLATE_DIR=/tmp/none;" +
	" git config --global user.email a@b; git config --global user.name n; git config --global safe.directory '*';";

const sqlite = `
import sqlite3, random, os
for mode in ("delete", "truncate", "persist"):
    c = sqlite3.connect("db-" + mode)
    c.execute("pragma journal_mode=" + mode); c.execute("create table t(a integer primary key, b blob)")
    for i in range(30):
        with c: c.executemany("insert into t(b) values(?)", [(os.urandom(random.randint(10, 2000)),) for _ in range(50)])
    c.execute("delete from t where a%3=0"); c.commit(); c.execute("vacuum")
    assert c.execute("pragma integrity_check").fetchone() == ("ok",), mode
    assert c.execute("select count(*) from t").fetchone() == (1000,), mode
    c.close()
`;

/** Writes files, syncs them, and only then says so, where it outlives everything; until it is told to stop. Every third is written over another by a rename. */
const writer = `
import os, hashlib, random, sys
log = os.open("/host/base/synced", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_SYNC)
n = 0
while not os.path.exists("/host/base/stop"):
    name = "f%d" % n
    body = os.urandom(random.choice([10, 3000, 70000, 1500000]))
    with open(name + (".new" if n % 3 == 0 else ""), "wb") as f:
        f.write(body); f.flush(); os.fsync(f.fileno())
    if n % 3 == 0: os.replace(name + ".new", name)
    os.write(log, ("%s %s\\n" % (name, hashlib.sha256(body).hexdigest())).encode())
    if n >= 3 and n % 5 == 0:
        with open("f%d" % random.randrange(n), "rb") as f: f.read()
    n += 1
print("wrote", n)
`;

describe("the Linux client in a guest", { skip: reason ?? false }, () => {
	let volume: TestVolume;
	let guest: Guest;
	/** Commands of the daemon's own machine, in the guest's network. */
	const inNetwork = (...words: readonly string[]): Promise<string> =>
		must("nsenter", [`--net=/run/netns/${guest.network}`, process.execPath, commandLine, ...words], {
			env: { CAIRN_HOME: join(volume.base, "home") },
		});
	const mount = (name: string): Promise<string> =>
		guest.must(
			`mkdir -p /mnt/n && mount -t nfs -o vers=3,nolock,proto=tcp,port=2049,mountport=2049,mountproto=tcp $LAB_HOST:/${name} /mnt/n && mkdir -p /mnt/n/work`,
		);

	before(async () => {
		guest = await Guest.prepare({ disks: 0, diskBytes: 0, memoryMiB: 768, shares: ["usr=/usr:ro"] });
		volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
		await volume.unmount();
		await inNetwork("mount", volume.name, volume.mountpoint);
		await inNetwork("export", "add", volume.name, "--clients", "10.77.0.0/24", "--squash", "none");
		await guest.start();
		await mount(volume.name);
	});
	after(async () => {
		await guest?.close();
		await volume?.close();
	});

	test("POSIX suite", async (t) => {
		const program = join(guestRepository, posixProgram.slice(repository.length));
		await guest.must("mkdir /mnt/n/posix && chmod 777 /mnt/n/posix");
		const out = await guest.must(`cd /tmp && node ${program} /mnt/n/posix`, { timeoutMs: 600_000 });
		for (const line of out.split("\n").filter((one) => /^# (left out|pass|fail)/.test(one))) t.diagnostic(line.slice(2));
		assert.match(out, /^# fail 0$/m);
	});

	test("git: commit, clone, gc, fsck", async () => {
		const source = join(guestRepository, "src");
		await guest.must(
			`${borrowed} set -e; cd /mnt/n/work; git init -q r; cp -r ${source} r/; cd r; git add -A; git commit -qm one; git fsck --strict; git clone -q . ../c; diff -r src ../c/src; git gc -q; git fsck`,
			{ timeoutMs: 900_000 },
		);
	});

	test("SQLite with its journals", async () => {
		await guest.must(`cd /mnt/n/work && python3 - <<'END'\n${sqlite}\nEND`, { timeoutMs: 600_000 });
	});

	test("fio reads back what it wrote, past the caches and through them", async () => {
		const jobs = [
			"--name=d --size=8m --bs=4k --rw=randwrite --direct=1",
			"--name=s --size=64m --bs=1m --rw=write --end_fsync=1",
			"--name=p --numjobs=4 --size=8m --bs=16k --rw=randrw --fsync=32",
		];
		for (const job of jobs)
			await guest.must(`cd /mnt/n/work && fio --directory=. --ioengine=psync --verify=crc32c ${job} >/dev/null`, { timeoutMs: 900_000 });
	});

	test(`kill -9 of the server, ${kills} times, while the client writes: it waits and goes on, and all that was synced is there`, async (t) => {
		await guest.must("mkdir /mnt/n/kill");
		const writing = guest.run(`cd /mnt/n/kill && python3 - <<'END'\n${writer}\nEND`, { timeoutMs: 1800_000 });
		const ofWriter = { end: "" };
		void writing.then(({ code, stdout, stderr }) => {
			ofWriter.end = `ended with ${code}: ${stdout.slice(-2000)}${stderr.slice(-2000)}`;
		});
		for (let i = 0; i < kills; i++) {
			await sleep(2000 + ((i * 997) % 3000));
			const pid = volume.killDaemon();
			await volume.successorOf(pid);
			assert.equal(ofWriter.end, "", `the writer goes on after kill ${i + 1}`);
		}
		await sleep(3000);
		await must("touch", [join(guest.base, "stop")]);
		const { code, stdout, stderr } = await writing;
		assert.equal(code, 0, `no error reached the program: ${stdout}${stderr}`);
		const synced = readFileSync(join(guest.base, "synced"), "utf8").trim().split("\n");
		for (const line of synced) {
			const [name = "", sum] = line.split(" ");
			assert.equal(
				createHash("sha256")
					.update(await readFile(join(volume.mountpoint, "kill", name)))
					.digest("hex"),
				sum,
				name,
			);
		}
		t.diagnostic(`${kills} kills, ${synced.length} files synced and found`);
		const { corrupt, missing, unrecoverable } = await volume.verify();
		assert.deepEqual([corrupt, missing, unrecoverable], [0, 0, 0]);
	});

	test("showmount and rpcinfo see what is there, through a port mapper of its own", {
		skip: !existsSync("/usr/sbin/showmount"),
	}, async () => {
		await inNetwork("export", "serve", volume.name, "--portmapper", "own");
		const ask = (...words: readonly string[]) => execute("nsenter", [`--net=/run/netns/${guest.network}`, ...words], { timeoutMs: 60_000 });
		assert.match((await ask("showmount", "-e", "10.77.0.1")).stdout, new RegExp(`/${volume.name} +10.77.0.0/24`));
		const { stdout } = await ask("rpcinfo", "-p", "10.77.0.1");
		assert.match(stdout, /100003 +3 +tcp +2049 +nfs/);
		assert.match(stdout, /100005 +3 +udp +2049 +mountd/);
		assert.match((await ask("rpcinfo", "-t", "10.77.0.1", "nfs", "3")).stdout, /ready and waiting/);
		// Without ports: the client asks the port mapper.
		await guest.must(
			`mkdir -p /mnt/m && mount -t nfs -o vers=3,nolock $LAB_HOST:/${volume.name} /mnt/m && ls /mnt/m/kill >/dev/null && umount /mnt/m`,
		);
	});
});
