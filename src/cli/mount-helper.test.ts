/** mount(8), umount(8), fstab: the helpers, and in a name space of mounts of their own the real programs. */
import assert from "node:assert/strict";
import {
	existsSync,
	lstatSync,
	mkdirSync,
	mkdtempSync,
	readdirSync,
	readFileSync,
	readlinkSync,
	rmSync,
	symlinkSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { cannotMount, execute, missingPrograms, type Outcome, TestVolume } from "../../test/support/cairn.ts";
import { ownOptions, parseHelperCall, volumeOf } from "./mount-helper.ts";

const commandLine = fileURLToPath(new URL("./main.js", import.meta.url));

describe("calls of mount(8)", () => {
	test("words, flags and options", () => {
		const call = parseHelperCall(["photos", "/srv/photos", "-sv", "-n", "-o", "rw,noatime,_netdev", "-t", "cairn", "-o", "x-y=z"]);
		assert.deepEqual(
			[call?.words, [...(call?.flags ?? [])]],
			[
				["photos", "/srv/photos"],
				["s", "v", "n"],
			],
		);
		assert.deepEqual(call?.options, ["rw", "noatime", "_netdev", "x-y=z"]);
		for (const wrong of [["a", "b", "-o"], ["--option"], ["-1"]]) assert.equal(parseHelperCall(wrong), undefined, wrong.join(" "));
	});

	test("what is about when and by whom is not the volume's; what is not known is", () => {
		const all = ["rw", "noauto", "_netdev", "user=joe", "x-systemd.automount", "comment=x", "nofail", "frobnicate", "on_crash=die"];
		assert.deepEqual(ownOptions(all, false), ["rw", "frobnicate", "on_crash=die"]);
		assert.deepEqual(ownOptions(all, true), ["rw", "on_crash=die"]);
		assert.deepEqual(["photos", "cairn:photos", "/dev/cairn/photos"].map(volumeOf), ["photos", "photos", "photos"]);
	});
});

describe("cairn install", () => {
	let root: string;
	before(() => {
		root = mkdtempSync(join(tmpdir(), "cairn-install-"));
	});
	after(() => rmSync(root, { recursive: true, force: true }));
	const install = async (...words: string[]): Promise<Outcome & { states: Set<string>; files: string[] }> => {
		const outcome = await execute(process.execPath, [commandLine, "install", "--root", root, "--json", ...words]);
		const { files = [] } = outcome.code === 0 ? (JSON.parse(outcome.stdout) as { files?: { path: string; state: string }[] }) : {};
		return { ...outcome, states: new Set(files.map(({ state }) => state)), files: files.map(({ path }) => path) };
	};

	test("writes, is idempotent, mends, removes", async () => {
		const first = await install("--prefix", "/usr");
		assert.deepEqual([first.code, [...first.states]], [0, ["written"]], first.stderr);
		for (const path of first.files) assert.ok(lstatSync(path), path);
		assert.ok(first.files.includes(join(root, "usr/lib/systemd/system/cairn@.service")));
		assert.deepEqual([...(await install("--prefix", "/usr")).states], ["unchanged"]);
		writeFileSync(join(root, "sbin/mount.cairn"), "# Written by `cairn install`, and then spoilt");
		assert.deepEqual([...(await install("--prefix", "/usr")).states].sort(), ["unchanged", "written"]);
		assert.equal((await execute(join(root, "sbin/mount.cairn"), [])).code, 1);
		assert.deepEqual([...(await install("--prefix", "/usr", "--remove")).states], ["removed"]);
		assert.deepEqual([...(await install("--prefix", "/usr", "--remove")).states], ["absent"]);
		assert.deepEqual(readdirSync(join(root, "sbin")), []);
	});

	test("leaves files of others alone, and then does nothing at all", async () => {
		mkdirSync(join(root, "sbin"), { recursive: true });
		writeFileSync(join(root, "sbin/umount.cairn"), "somebody's");
		for (const words of [[], ["--remove"]]) {
			const refused = await install(...words);
			assert.equal(refused.code, 4, refused.stdout);
			assert.match(refused.stderr, /umount\.cairn is there and is not cairn's/);
		}
		assert.equal(existsSync(join(root, "sbin/mount.cairn")), false);
		assert.equal((await install("--prefix", "usr")).code, 2);
		rmSync(join(root, "sbin/umount.cairn"));
	});

	test("a command that npm has linked stays as it is", async () => {
		const link = join(root, "usr/bin/cairn");
		mkdirSync(join(root, "usr/bin"), { recursive: true });
		symlinkSync(commandLine, link);
		for (const words of [[], ["--remove"]]) {
			const { code, files } = await install("--prefix", "/usr", ...words);
			assert.deepEqual([code, files.includes(link), readlinkSync(link)], [0, false, commandLine]);
		}
		rmSync(link);
	});

	test("bash completes verbs and volumes", async () => {
		await install("--prefix", "/usr");
		const home = join(root, "home");
		for (const name of ["photos", "phones"]) {
			mkdirSync(join(home, name), { recursive: true });
			writeFileSync(join(home, name, "volume.json"), "{}");
		}
		const complete = async (...words: string[]): Promise<string[]> => {
			const list = words.map((word) => `'${word}'`).join(" ");
			const script = `. ${root}/usr/share/bash-completion/completions/cairn; COMP_WORDS=(cairn ${list}); COMP_CWORD=${words.length}; _cairn; printf '%s\\n' "\${COMPREPLY[@]}"`;
			const { stdout, stderr } = await execute("bash", ["-c", script], { env: { CAIRN_HOME: home } });
			assert.equal(stderr, "");
			return stdout
				.split("\n")
				.filter((line) => line !== "")
				.sort();
		};
		assert.deepEqual(await complete("um"), ["umount"]);
		assert.deepEqual(await complete("disk", "dr"), ["drain"]);
		assert.deepEqual(await complete("mount", "ph"), ["phones", "photos"]);
		assert.deepEqual(await complete("disk", "list", "pho"), ["phones", "photos"]);
	});

	test("the unit is one that systemd understands", { skip: missingPrograms("systemd-analyze") ?? false }, async () => {
		await install("--prefix", "/usr");
		const unit = join(root, "usr/lib/systemd/system/cairn@.service");
		// The command must exist for it.
		const text = readFileSync(unit, "utf8").replaceAll("/usr/bin/cairn", join(root, "usr/bin/cairn"));
		const instance = join(root, "cairn@photos.service");
		writeFileSync(instance, text);
		const { code, stderr } = await execute("systemd-analyze", ["verify", "--man=no", instance], { timeoutMs: 60_000 });
		assert.deepEqual([code, stderr.split("\n").filter((line) => line.includes("cairn"))], [0, []], stderr);
	});
});

const reason = cannotMount() ?? missingPrograms("unshare", "mount", "umount");

describe("mount(8) and umount(8)", { skip: reason ?? false }, () => {
	let volume: TestVolume;
	before(async () => {
		volume = await TestVolume.start({ disks: 3, redundancy: "rs:2+1" });
		await volume.unmount();
		for (const name of ["upper", "work"]) mkdirSync(join(volume.base, name));
	});
	after(() => volume?.close());

	/** In a name space of its own, with helpers installed in a /sbin that nobody else sees. */
	const script = (text: string): Promise<Outcome> => {
		const { base } = volume;
		const overlay = `mount -t tmpfs layers ${base}/upper && mkdir ${base}/upper/u ${base}/upper/w && mount -t overlay sbin -o lowerdir=$(realpath /sbin),upperdir=${base}/upper/u,workdir=${base}/upper/w $(realpath /sbin)`;
		const setUp = `set -e; mount --make-rprivate /; ${overlay}; ${process.execPath} ${commandLine} install --prefix ${base}/upper/prefix > /dev/null 2>&1; set +e`;
		return execute("unshare", ["-m", "bash", "-c", `${setUp}\n${text}`], { env: { CAIRN_HOME: join(base, "home") }, timeoutMs: 120_000 });
	};

	test("mount -t cairn, df, umount that waits for a clean end", async () => {
		const { name, mountpoint } = volume;
		const { code, stdout, stderr } = await script(`
			mount -t cairn ${name} ${mountpoint} -o noatime,_netdev || exit 10
			echo text > ${mountpoint}/file; findmnt -no OPTIONS ${mountpoint}
			umount ${mountpoint} || exit 11
			pgrep -f "daemon/(main|keeper).js ${name} " && exit 12
			mount -t cairn -r ${name} ${mountpoint} || exit 13
			cat ${mountpoint}/file; touch ${mountpoint}/new 2>&1 | grep -o 'Read-only file system'
			umount ${mountpoint} || exit 14`);
		assert.equal(code, 0, `${stdout}${stderr}${volume.log()}`);
		assert.match(stdout, /noatime/);
		assert.match(stdout, /text\nRead-only file system\n$/);
	});

	test("fstab: mount -a, again and again; noauto; what is wrong is refused", async () => {
		const { name, mountpoint, base } = volume;
		writeFileSync(join(base, "fstab"), `${name} ${mountpoint} cairn defaults,_netdev,nofail,x-systemd.requires=network.target 0 0\n`);
		writeFileSync(join(base, "noauto"), `${name} ${mountpoint} cairn noauto 0 0\n`);
		const { code, stdout, stderr } = await script(`
			mount -T ${base}/noauto -a; findmnt ${mountpoint} && exit 10
			mount -T ${base}/fstab -a || exit 11
			mount -T ${base}/fstab -a || exit 12
			findmnt -n ${mountpoint} | wc -l
			mount -t cairn ${name} ${base}/upper/u; echo second place $?
			umount ${mountpoint} || exit 14
			mount -t cairn ${name} ${mountpoint} -o frobnicate; echo wrong option $?
			mount -t cairn -s ${name} ${mountpoint} -o frobnicate || exit 15
			exec 9< ${mountpoint}
			umount ${mountpoint} 9<&-; echo busy $?
			umount -l ${mountpoint} 9<&- || exit 16
			exec 9<&-
			mount -t cairn absent ${mountpoint}; echo absent $?
			mount -f -t cairn ${name} ${mountpoint} || exit 17
			findmnt ${mountpoint} && exit 18
			true`);
		assert.equal(code, 0, `${stdout}${stderr}${volume.log()}`);
		assert.equal(stdout, "1\nsecond place 32\nwrong option 32\nbusy 32\nabsent 32\n", stderr);
		assert.match(stderr, /unknown mount option frobnicate/);
		assert.match(stderr, /no volume absent/);
	});
});

describe("a plain user", { skip: reason ?? missingPrograms("fusermount3", "setpriv") ?? false }, () => {
	let base: string;
	before(() => {
		base = mkdtempSync(join(tmpdir(), "cairn-user-"));
	});
	after(() => rmSync(base, { recursive: true, force: true }));

	/** As nobody, with a /dev/fuse that is open to all, as it is where users may mount. */
	const script = (text: string): Promise<Outcome> => {
		const setUp = `set -e; mount --make-rprivate /; mount -t tmpfs user ${base}; cd ${base}; mknod fuse c 10 229; chmod 666 fuse; mount --bind fuse /dev/fuse
			mkdir d1 d2 d3 mnt; chown -R 65534:65534 .; chmod 755 .; set +e
			user="setpriv --reuid=65534 --regid=65534 --clear-groups env CAIRN_HOME=${base}/home"
			cairn="$user ${process.execPath} ${commandLine}"
			pid() { pgrep -f "daemon/main.js [a-z]+ ${base}/mnt"; }`;
		return execute("unshare", ["-m", "bash", "-c", `${setUp}\n${text}`], { timeoutMs: 120_000 });
	};

	test("creates, mounts with fusermount3, outlives its daemon, unmounts", async (context) => {
		if ((await script("$cairn --version")).code !== 0) return context.skip("this checkout cannot be read by others");
		const { code, stdout, stderr } = await script(`
			$cairn create own --disk ${base}/d1 ${base}/d2 ${base}/d3 --same-device > /dev/null || exit 10
			$cairn mount own ${base}/mnt -o allow_other; echo allow_other $?
			$cairn mount own ${base}/mnt > /dev/null || exit 11
			$user sh -c 'echo text > mnt/file; stat -c "%u %g %a" mnt mnt/file'
			cat mnt/file; echo root $?
			kill -9 $(pid)
			$user sh -c 'echo more >> mnt/file; cat mnt/file'
			$cairn umount ${base}/mnt > /dev/null || exit 12
			$cairn mount own ${base}/mnt -o ro > /dev/null || exit 13
			$user sh -c 'cat mnt/file; touch mnt/new' || echo read only
			$user fusermount3 -u ${base}/mnt || exit 14
			for i in $(seq 300); do pid > /dev/null || break; sleep 0.1; done
			$cairn destroy own --yes own > /dev/null || exit 15`);
		assert.equal(code, 0, `${stdout}${stderr}`);
		const files = "65534 65534 755\n65534 65534 644\n";
		assert.equal(stdout, `allow_other 4\n${files}root 1\ntext\nmore\ntext\nmore\nread only\n`, stderr);
		assert.match(stderr, /user_allow_other/);
	});
});
